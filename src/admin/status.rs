//! One JSON picture of the agent: what `/status` answers and `logferry status` reads.
//!
//! The names of the fields are public interface; new ones may be added. Times are Unix seconds, 0
//! for "never"; an empty `error` means that there is none.
//!
//! ```json
//! {
//!   "source": "agent",
//!   "version": "0.1.0", "started_unix": 1700000000, "uptime_seconds": 60,
//!   "ready": true, "not_ready_reason": "", "draining": false, "polling": false,
//!   "links_refused": 0,
//!   "patterns_without_files": [{
//!     "pattern": "/share/logs/*.out", "reason": "…", "nearest": "/share/logs", "holds": "app.log"
//!   }],
//!   "state_dir": "/var/lib/logferry",
//!   "endpoint": "https://cn-hangzhou.log.aliyuncs.com", "project": "shop", "logstore": "app",
//!   "totals": {
//!     "active": 1, "rotated": 0, "deleted": 0, "saved": 0, "left": 0, "failing": 0,
//!     "missing": 0, "missing_bytes": 0,
//!     "unread_bytes": 0, "lag_bytes": 300, "lag_seconds": 2
//!   },
//!   "files_unix": 1700000060,
//!   "files": [{
//!     "path": "/share/logs/app.log", "state": "active", "device": 66306, "inode": 1311,
//!     "size": 900, "read_offset": 900, "acked_offset": 600, "lag_bytes": 300, "lag_seconds": 2,
//!     "last_error": ""
//!   }],
//!   "collector": {"lines": 12, "bytes": 900, …},
//!   "sender": {
//!     "batches_delivered": 3, …, "failures": {"network": 1, "server": 0, …},
//!     "in_flight": 1, "waiting": 0, "window": 8, "clock_offset_seconds": 0,
//!     "delivered_unix": 1700000050, "last_error": ""
//!   },
//!   "checkpoint": {"saved_unix": 1700000050, "error": "", "damaged_at_start": 0},
//!   "handoff": {"bytes": 80, "bytes_max": 8388608, "open_bytes": 300,
//!               "held_deleted_bytes": 0},
//!   "errors": [{"about": "delivery", "error": "…"}]
//! }
//! ```
//!
//! `collector` holds all of [`CollectorCounters`]. `errors` gathers what is wrong at the moment,
//! about `delivery`, `checkpoint`, `files` or a path, at most [`ERRORS_MAX`] of them.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::Facts;
use crate::base::report::{
    CollectorCounters, CollectorReport, FileList, FileReport, FileSums, FruitlessPattern,
    SenderReport,
};
use crate::handoff::SenderEnd;

/// Most entries of [`Status::errors`].
pub const ERRORS_MAX: usize = 20;
/// The value of [`Status::source`].
pub const SOURCE: &str = "agent";

/// The picture.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// Always `agent`: these facts come from a running one.
    pub source: String,
    /// Version of the running program.
    pub version: String,
    /// When it started.
    pub started_unix: u64,
    /// For how long it has been up.
    pub uptime_seconds: u64,
    /// What `/ready` says.
    pub ready: bool,
    /// Why it is not ready; empty when it is.
    pub not_ready_reason: String,
    /// Whether it was told to stop and is delivering what it has.
    pub draining: bool,
    /// Notifications cannot be had or trusted: files are polled.
    pub polling: bool,
    /// Links that are not followed because they lead out of the allowed directories.
    pub links_refused: u64,
    /// The patterns that match no file.
    pub patterns_without_files: Vec<FruitlessPattern>,
    /// Where checkpoints live.
    pub state_dir: String,
    /// Address of the service.
    pub endpoint: String,
    /// Project.
    pub project: String,
    /// Logstore.
    pub logstore: String,
    /// All files being shipped, summed up.
    pub totals: FileSums,
    /// When the list of files was made; 0 if there is none.
    pub files_unix: u64,
    /// The files being shipped, in order of path.
    pub files: Vec<FileReport>,
    /// Counters of the collector.
    pub collector: CollectorCounters,
    /// Delivery.
    pub sender: SenderReport,
    /// The saving of checkpoints.
    pub checkpoint: CheckpointStatus,
    /// What is between the files and the service.
    pub handoff: HandoffStatus,
    /// The limits in force.
    pub limits: LimitsStatus,
    /// What is wrong at the moment.
    pub errors: Vec<ErrorStatus>,
}

/// The limits in force: the settings, or the container's where those are lower.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LimitsStatus {
    /// Cores.
    pub cpu_cores: f64,
    /// Resident memory.
    pub memory_bytes: u64,
}

/// The saving of checkpoints.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CheckpointStatus {
    /// When it was last saved.
    pub saved_unix: u64,
    /// Why the last save failed.
    pub error: String,
    /// Damaged checkpoint files passed over at the start.
    pub damaged_at_start: u64,
}

/// What is between the files and the service.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HandoffStatus {
    /// Payload bytes handed over and not yet acknowledged.
    pub bytes: u64,
    /// Most of them at once.
    pub bytes_max: u64,
    /// Raw bytes in groups that are not sealed yet.
    pub open_bytes: u64,
    /// Bytes of deleted files that are kept open until they are delivered.
    pub held_deleted_bytes: u64,
}

/// Something that is wrong at the moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorStatus {
    /// `delivery`, `checkpoint`, `files`, or the path of a file.
    pub about: String,
    /// What is wrong.
    pub error: String,
}

impl Status {
    /// The picture at `now`, from the newest reports and the list of files; `silent`: the collector
    /// has not given a new one for so long.
    #[must_use]
    pub fn of(
        facts: &Facts,
        handoff: &SenderEnd,
        list: &FileList,
        silent: Option<Duration>,
        now: Instant,
    ) -> Self {
        let (collector, sender) = (handoff.collector_report(), handoff.sender_report());
        let reason = not_ready_reason(&collector, handoff.is_draining());
        Self {
            source: SOURCE.to_owned(),
            version: facts.version.clone(),
            started_unix: facts.started_unix,
            uptime_seconds: now.saturating_duration_since(facts.started).as_secs(),
            ready: reason.is_none(),
            not_ready_reason: reason.unwrap_or_default().to_owned(),
            draining: handoff.is_draining(),
            polling: collector.polling,
            links_refused: collector.links_refused,
            patterns_without_files: collector.fruitless.clone(),
            state_dir: facts.state_dir.display().to_string(),
            endpoint: facts.endpoint.clone(),
            project: facts.project.clone(),
            logstore: facts.logstore.clone(),
            errors: errors(&collector, &sender, list, silent),
            totals: collector.files,
            files_unix: list.made_unix,
            files: list.files.clone(),
            collector: collector.counters,
            sender: SenderReport::clone(&sender),
            checkpoint: CheckpointStatus {
                saved_unix: collector.checkpoint_saved_unix,
                error: collector.checkpoint_error.clone(),
                damaged_at_start: collector.counters.checkpoint_damaged,
            },
            handoff: HandoffStatus {
                bytes: collector.handoff_bytes,
                bytes_max: collector.handoff_bytes_max,
                open_bytes: collector.open_bytes,
                held_deleted_bytes: collector.held_deleted_bytes,
            },
            limits: LimitsStatus {
                cpu_cores: collector.cpu_limit_cores,
                memory_bytes: collector.memory_limit_bytes,
            },
        }
    }
}

/// Why the agent is not ready; `None` when it is.
#[must_use]
pub fn not_ready_reason(collector: &CollectorReport, is_draining: bool) -> Option<&'static str> {
    if is_draining {
        Some("the agent is stopping and delivers what it has")
    } else if collector.is_state_taken {
        Some("another agent uses the state directory; waiting for it to end")
    } else if !collector.ready {
        Some("the first search for log files is not done")
    } else {
        None
    }
}

fn errors(
    collector: &CollectorReport,
    sender: &SenderReport,
    list: &FileList,
    silent: Option<Duration>,
) -> Vec<ErrorStatus> {
    let silent = silent.map_or_else(String::new, |silent| {
        let silent = silent.as_secs();
        if collector.ready {
            format!("the reading of files has not answered for {silent} s (a disk that hangs?)")
        } else {
            "the first search for log files is not done (many of them, or a disk that hangs?)"
                .to_owned()
        }
    });
    let parts = [
        ("delivery", &sender.last_error),
        ("checkpoint", &collector.checkpoint_error),
        ("files", &silent),
    ];
    let files = list.files.iter().map(|file| (file.path.as_str(), &file.last_error));
    parts
        .into_iter()
        .chain(files)
        .filter(|(_, error)| !error.is_empty())
        .take(ERRORS_MAX)
        .map(|(about, error)| ErrorStatus { about: about.to_owned(), error: error.clone() })
        .collect()
}
