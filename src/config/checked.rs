//! What the settings come to: valid by construction.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::enrich::TagPlan;
use crate::limit::memory;
use crate::plan::Plan;
use crate::{batch, limit, send, tail};

/// Everything the agent needs to know, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// Which files, and where their records go.
    pub plan: Arc<Plan>,
    /// For the sender.
    pub send: send::Options,
    /// For the tailer.
    pub tail: tail::Options,
    /// For the batcher.
    pub batch: batch::Options,
    /// The limits of the process, already lowered to the container's.
    pub limit: limit::Options,
    /// How the memory limit is divided; carries the bounds of open groups and of the hand-off.
    pub memory: memory::Plan,
    /// Where checkpoints live. Absolute; may not exist yet.
    pub state_dir: PathBuf,
    /// The files that the settings name: credentials, keys, certificates, the settings themselves.
    /// They are never logs.
    pub named_files: Vec<PathBuf>,
    /// The admin address; `None` switches the port off.
    pub listen: Option<SocketAddr>,
    /// Longest time from SIGTERM to the exit.
    pub drain_deadline: Duration,
    /// How long files must be quiet before a drain is over.
    pub drain_quiet: Duration,
    /// Whether a drain after a signal sends unfinished last lines.
    pub drain_partial_lines: bool,
    /// When something is there, the agent drains and ends.
    pub exit_when: Option<PathBuf>,
    /// What the agent logs about itself: a filter that `tracing_subscriber` takes.
    pub log_filter: String,
    /// How it writes that.
    pub log_format: LogFormat,
    /// Names of the tags whose values decide the shard; empty for any shard.
    pub shard_hash_keys: Vec<String>,
    /// The tags of every group, and the pod's address.
    pub tags: TagPlan,
    /// Every setting with its value and origin, for `check`. Holds no secrets.
    pub effective: Vec<Effective>,
    /// What is odd about the settings and no mistake, for people.
    pub notes: Vec<String>,
}

/// How the agent writes its own log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// A setting in effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effective {
    /// Name of the key, or of the environment variable where there is no key.
    pub key: String,
    /// Value of the key; a secret is `***`.
    pub value: String,
    /// Where the value came from.
    pub origin: String,
}
