//! A local SLS endpoint that a sceptic would accept: `logferry mock` serves it, and the tests do.
//!
//! What it is: an HTTP server that refuses what the service refuses (facts of the service's
//! PutLogs reference, strict limits), keeps what it accepted, gives it back over the service's
//! own read operations, shows it on a page, and misbehaves on request.
//!
//! How it is used: [`Server`] inside a tokio runtime, [`Background`] from
//! synchronous tests, where it can be stopped and resumed on the same port with the same
//! [`Store`]. What to accept is [`Access`], what to spoil is [`Faults`]; both can be changed while
//! it runs.
//!
//! Reading order: [`endpoint`] (one request's way), `request`, `verify` (headers, signature),
//! `put` and `group` (bodies), [`store`] and `journal`, `read` (cursors, pulls, queries),
//! [`fault`] and [`faults`], `page`, `guard` (whose requests), `server` and `connection` (sockets).
//!
//! What it refuses to do: it knows nothing of how the agent tails or sends; it shares only
//! [`logferry_wire`] with it, so that a mistake there is caught by the vendor's SDK instead.
//!
//! Where the service's documents are silent, the choice is written beside the code:
//! - a wrong or missing `Content-MD5` is `ParameterInvalid` (no code of its own is documented);
//! - `deflate` is refused as `InvalidCompressType`;
//! - in a `batch_group` request the limits hold for the body and for each LogGroup by itself.

pub mod accepted;
mod answer;
mod connection;
pub mod endpoint;
pub mod fault;
pub mod faults;
mod group;
mod guard;
mod journal;
mod page;
mod put;
mod read;
mod request;
mod server;
pub mod store;
mod verify;

#[cfg(test)]
mod tests;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

pub use accepted::{Entry, Group};
pub use endpoint::Endpoint;
pub use fault::{Fault, Kind, On};
pub use faults::Faults;
pub use server::{Background, Server};
pub use store::{Counts, Store};

/// What a mock endpoint is started with.
#[derive(Clone, Debug)]
pub struct Options {
    /// Address to listen on; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Directory that gets `groups.jsonl`, one JSON line for each accepted LogGroup; it is made
    /// if it does not exist. `None`: memory only.
    pub dir: Option<PathBuf>,
    /// Whom and what it accepts.
    pub access: Access,
    /// How large and how old a LogGroup may be.
    pub limits: Limits,
    /// Shards of every logstore. At least 1.
    pub shards: u32,
    /// Raw LogGroup bytes kept in memory; beyond it the oldest groups are forgotten and counted.
    pub memory_bytes_max: usize,
    /// Seconds by which the endpoint's clock is ahead of the machine's (negative: behind).
    pub clock_offset_seconds: i64,
    /// Faults that are set from the start.
    pub faults: Vec<Fault>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            dir: None,
            access: Access::default(),
            limits: Limits::default(),
            shards: 1,
            memory_bytes_max: 1 << 30,
            clock_offset_seconds: 0,
            faults: Vec::new(),
        }
    }
}

/// Whom and what an endpoint accepts. The default takes any project and logstore, and requests
/// without a signature.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// When empty, a request may be unsigned, and a signature is not checked but must be well
    /// formed. When not, every request must be signed with one of them.
    pub keys: Vec<Key>,
    /// When not empty, other projects answer `ProjectNotExist`.
    pub projects: Vec<String>,
    /// When not empty, other logstores answer `LogStoreNotExist`.
    pub logstores: Vec<String>,
}

/// An access key that an endpoint accepts. `Debug` hides the secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Key {
    /// The public half.
    pub id: String,
    /// The secret half.
    pub secret: String,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:***", self.id)
    }
}

impl std::str::FromStr for Key {
    type Err = String;

    /// Reads `ID:SECRET`.
    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            Some((id, secret)) if !id.is_empty() && !secret.is_empty() => {
                Ok(Self { id: id.to_owned(), secret: secret.to_owned() })
            }
            _ => Err("an access key is written ID:SECRET".to_owned()),
        }
    }
}

/// How large and how old a LogGroup may be. The default is the strictest the service has been.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of a body and of a LogGroup before compression.
    pub group_bytes_max: usize,
    /// Log entries in a LogGroup.
    pub group_lines_max: u32,
    /// Seconds that a log's time may lie in the past.
    pub log_age_seconds_max: i64,
    /// Seconds that a log's time may lie in the future.
    pub log_ahead_seconds_max: i64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            group_bytes_max: logferry_wire::GROUP_BYTES_MAX,
            group_lines_max: logferry_wire::GROUP_LINES_MAX,
            log_age_seconds_max: logferry_wire::LOG_AGE_SECONDS_MAX,
            log_ahead_seconds_max: logferry_wire::LOG_AHEAD_SECONDS_MAX,
        }
    }
}
