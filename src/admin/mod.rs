//! What operators see: four paths over HTTP, for probes, for Prometheus and for people.
//!
//! | path | says |
//! |---|---|
//! | `/live` | 200 `ok` as long as the sender's thread runs its loop |
//! | `/ready` | 200 when files are being shipped; 503 with the reason before that and while stopping |
//! | `/metrics` | counters and gauges as Prometheus reads them ([`metrics`]) |
//! | `/status` | the same and every file, as one JSON object ([`status`]) |
//!
//! [`Server`] answers from the newest copies of the reports in the hand-off, and changes nothing and
//! knows no secret. It never waits for a loop, but that `/status` asks the collector for the list of
//! files: nobody pays for one of thousands that nobody reads. Without an answer within two seconds
//! the list before it is shown, and the silence is among the errors.
//!
//! # What `/live` leaves out
//! A restart must help, or a probe does harm. A service that is down, refused credentials, a disk
//! that hangs and a collector that waits for either are all there after a restart too, and the
//! restart would throw away what is open. So `/live` fails in one way only, by not answering: the
//! sender's thread is gone or stuck. A panic in the collector ends the whole process. Lag and
//! errors are in `/metrics`, for alerts.
//!
//! # Limits
//! One request a connection. 16 connections at once: one more closes the oldest, so that clients
//! which connect and stay silent cannot shut a probe out. A connection lives at most 5 seconds,
//! request and answer together, and a request has at most 16 KiB. The largest answer is `/status`,
//! at about 300 bytes a file.

mod connections;
pub mod metrics;
pub mod process;
mod server;
pub mod status;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

pub use self::server::Server;

/// Where the admin port is.
#[derive(Clone, Debug)]
pub struct Options {
    /// The address to listen on; `None` switches the port off.
    pub listen: Option<SocketAddr>,
}

/// What the process knows of itself: all but the last stays the same as long as it runs. Nothing in
/// it is secret.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Version of the program.
    pub version: String,
    /// When the process started, for the time it has been up.
    pub started: Instant,
    /// When the process started by the wall clock, in Unix seconds.
    pub started_unix: u64,
    /// Where checkpoints live.
    pub state_dir: PathBuf,
    /// Address of the service, as a person would write it.
    pub endpoint: String,
    /// Project.
    pub project: String,
    /// Logstore.
    pub logstore: String,
    /// Log lines of the agent itself that were dropped so far.
    pub log_lines_dropped: Arc<AtomicU64>,
}

#[cfg(test)]
pub(crate) mod tests;
