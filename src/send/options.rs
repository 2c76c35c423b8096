//! What the sender must know of the settings beside the plan: how it sends, wherever that goes.

use std::path::PathBuf;
use std::time::Duration;

use super::proxy::Proxy;
use super::queue::Together;

/// How the sender works. Every field comes from the settings.
#[derive(Clone, Debug)]
pub struct Options {
    /// Most requests in flight (`send_request_concurrency`, at least 1).
    pub concurrency_max: usize,
    /// How many lines and bytes may go together in one request.
    pub together: Together,
    /// The batches of a stream go one after the other (`ordered_delivery`).
    pub in_order: bool,
    /// A 200 counts only with `x-log-requestid` (`verify_response`).
    pub verify_response: bool,
    /// Time to connect, TLS included.
    pub connect_timeout: Duration,
    /// Time for a whole attempt, and what its bytes take at the least acceptable rate.
    pub request_timeout: Duration,
    /// Certificates of files.
    pub tls: TlsFiles,
    /// What requests go through on their way to an endpoint.
    pub proxy: Option<Proxy>,
}

/// Where certificates come from, beside the roots inside the binary.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// More roots to trust, in PEM.
    pub ca: Option<PathBuf>,
    /// What to prove with who we are.
    pub client: Option<ClientFiles>,
}

/// A client's certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientFiles {
    /// The certificate and those above it, in PEM.
    pub cert: PathBuf,
    /// The certificate's key, in PEM.
    pub key: PathBuf,
}
