//! What each loop publishes about itself: plain counters and facts, copied out once a turn.
//!
//! Level 0: values only. [`crate::handoff`] keeps the newest copy; the admin port and the drain
//! summary read it and never wait for a loop. Counters start at 0 with the process.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What the collector says about itself.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct CollectorReport {
    /// The first discovery is done and watches are armed (or polling has begun).
    pub ready: bool,
    /// Another agent has the state directory: this one waits for it, and has not begun.
    pub is_state_taken: bool,
    /// A directory could not be watched, or a notification was missed: files are polled.
    pub polling: bool,
    /// The files being shipped, summed up.
    pub files: FileSums,
    /// Links that the last discovery refused because they lead out of the allowed directories.
    pub links_refused: u64,
    /// The patterns for which the last discovery found no file.
    pub fruitless: Vec<FruitlessPattern>,
    /// Counters since the start of the process.
    pub counters: CollectorCounters,
    /// Payload bytes handed over and not yet acknowledged.
    pub handoff_bytes: u64,
    /// Most payload bytes that may be handed over at once.
    pub handoff_bytes_max: u64,
    /// Raw bytes in groups that are not sealed yet.
    pub open_bytes: u64,
    /// Bytes of deleted files that are kept open.
    pub held_deleted_bytes: u64,
    /// The CPU limit in force, in cores.
    pub cpu_limit_cores: f64,
    /// The memory limit in force.
    pub memory_limit_bytes: u64,
    /// Unix time of the last good save of the checkpoint, in seconds; 0 before the first.
    pub checkpoint_saved_unix: u64,
    /// Why the last save of the checkpoint failed; empty when it did not.
    pub checkpoint_error: String,
}

/// A pattern that matches no file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FruitlessPattern {
    /// As it was written.
    pub pattern: String,
    /// Why, for people.
    pub reason: String,
    /// The nearest directory on its way that exists.
    pub nearest: String,
    /// The first names in that directory, for people; empty where they are none of ours to tell.
    pub holds: String,
}

impl std::fmt::Display for FruitlessPattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { pattern, reason, nearest, holds } = self;
        write!(f, "no file matches {pattern}: {reason}; the nearest directory is {nearest}")?;
        if holds.is_empty() { Ok(()) } else { write!(f, ", which holds {holds}") }
    }
}

/// Counters of the collector.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct CollectorCounters {
    /// Lines put into groups.
    pub lines: u64,
    /// Bytes of files put into groups, line ends included.
    pub bytes: u64,
    /// Lines longer than the limit, cut into several records.
    pub lines_split: u64,
    /// Unterminated last lines that were sent after their quiet time.
    pub lines_partial: u64,
    /// Groups sealed because they were full (bytes or lines).
    pub sealed_full: u64,
    /// Groups sealed because of their age.
    pub sealed_age: u64,
    /// Groups sealed because the minute of `Time` changed.
    pub sealed_minute: u64,
    /// Groups sealed early because all open groups together were at their limit.
    pub sealed_pressure: u64,
    /// Groups sealed because the agent is stopping or the file has ended.
    pub sealed_shutdown: u64,
    /// Bytes that were on disk and vanished before they were read, by truncation or rewriting.
    pub skipped_truncated_bytes: u64,
    /// Bytes of deleted files that were given up because they could not be read any more.
    pub skipped_deleted_bytes: u64,
    /// Bytes of renamed files that were written over before they were read.
    #[serde(default)]
    pub skipped_overwritten_bytes: u64,
    /// NUL bytes that nobody wrote, passed over.
    pub skipped_hole_bytes: u64,
    /// Bytes seen in files, from where each was opened. All of them are acknowledged, skipped, or
    /// still to be delivered.
    pub seen_bytes: u64,
    /// Bytes acknowledged by the service or set aside for good, each counted once.
    pub acknowledged_bytes: u64,
    /// Incarnations of files that ended with everything acknowledged or skipped: deleted, renamed
    /// and closed, or truncated.
    pub generations_closed: u64,
    /// Of these, how many whose bytes did not add up. Not 0 is a bug.
    pub generations_unbalanced: u64,
    /// Files opened.
    pub files_opened: u64,
    /// Files that were renamed while open.
    pub files_rotated: u64,
    /// Files that were truncated or rewritten in place.
    pub files_truncated: u64,
    /// Deleted files that were closed although somebody may still write to them.
    #[serde(default)]
    pub files_left_open: u64,
    /// Files that were seen by name and were gone before they could be opened.
    #[serde(default)]
    pub files_vanished: u64,
    /// Errors of opening, reading or examining a file.
    pub file_errors: u64,
    /// Notifications that the kernel had to drop (queue overflow).
    pub watch_overflows: u64,
    /// Refused batches that were taken apart, to send the halves.
    pub batches_split: u64,
    /// Batches refused by the service and set aside in the state directory.
    pub batches_parked: u64,
    /// Lines in those batches.
    pub lines_parked: u64,
    /// Saves of the checkpoint.
    pub checkpoint_saves: u64,
    /// Failed saves of the checkpoint.
    pub checkpoint_errors: u64,
    /// Damaged checkpoint files passed over at the start.
    pub checkpoint_damaged: u64,
    /// Pauses taken to stay under the CPU limit.
    pub cpu_pauses: u64,
    /// Pauses taken to stay under `max_bytes_per_sec`.
    pub rate_pauses: u64,
    /// Turns taken.
    pub turns: u64,
}

/// All files being shipped, summed up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileSums {
    /// How many the patterns find.
    pub active: u64,
    /// How many were renamed away from them.
    pub rotated: u64,
    /// How many were deleted.
    pub deleted: u64,
    /// How many are known from the checkpoint only: they are as they were delivered, and are opened
    /// one after the other.
    pub saved: u64,
    /// How many were found and are left for later, because as many are known as the memory limit
    /// allows.
    #[serde(default)]
    pub left: u64,
    /// How many could not be opened, read or examined the last time.
    pub failing: u64,
    /// How many known ones were not delivered to their end and are found nowhere.
    #[serde(default)]
    pub missing: u64,
    /// Bytes of these that were not delivered, as far as is known.
    #[serde(default)]
    pub missing_bytes: u64,
    /// Bytes on disk that are not read yet.
    pub unread_bytes: u64,
    /// Bytes on disk that are not acknowledged yet.
    pub lag_bytes: u64,
    /// The longest time, in seconds, for which one has not been acknowledged to its end.
    pub lag_seconds: u64,
}

/// Each of the files being shipped. There may be thousands, so the list is made when it is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileList {
    /// When it was made, in Unix seconds; 0 if none was yet.
    pub made_unix: u64,
    /// The files, in order of path.
    pub files: Vec<FileReport>,
}

/// One file being shipped.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileReport {
    /// Path as configured, links not resolved; the first one it was found under.
    pub path: String,
    /// `active` (found by the patterns), `rotated` (renamed away from them), `deleted`, `saved` (known
    /// from the checkpoint only), or `unopened` (found, and cannot be opened: the error says why; only
    /// the first of these are listed).
    pub state: String,
    /// Device number.
    pub device: u64,
    /// Inode number.
    pub inode: u64,
    /// Size in bytes.
    pub size: u64,
    /// Offset just past the last byte that was read into a group.
    pub read_offset: u64,
    /// Offset below which everything is acknowledged.
    pub acked_offset: u64,
    /// `size - acked_offset`.
    pub lag_bytes: u64,
    /// Seconds since everything on disk was last acknowledged; 0 when it is.
    pub lag_seconds: u64,
    /// The last error with this file; empty when there was none.
    pub last_error: String,
}

/// What the sender says about itself.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct SenderReport {
    /// Batches that the endpoint has acknowledged.
    pub batches_delivered: u64,
    /// Lines in those batches.
    pub lines_delivered: u64,
    /// Size of those batches before compression, in bytes.
    pub raw_bytes_delivered: u64,
    /// Size of those batches on the wire, in bytes.
    pub payload_bytes_delivered: u64,
    /// Batches refused for good by the service.
    pub batches_rejected: u64,
    /// Requests sent, repeats included.
    pub attempts: u64,
    /// Of these, how many carried several batches.
    pub lists: u64,
    /// Of these, how many were refused and sent again in halves.
    pub lists_refused: u64,
    /// Batches delivered after an attempt that ended without an answer: the endpoint may have them
    /// twice.
    pub possible_duplicates: u64,
    /// Failed attempts by kind, in the order of [`FAILURE_KINDS`]; by name where they are serialized.
    #[serde(with = "by_kind")]
    pub failures: [u64; FAILURE_KINDS.len()],
    /// Batches with a sequence id that seem too large for what is on the way, and are not halved.
    pub held_whole: u64,
    /// Requests under way.
    pub in_flight: u64,
    /// Batches waiting for their turn or their next attempt.
    pub waiting: u64,
    /// Most requests that may be under way at the moment.
    pub window: u64,
    /// Server clock minus ours, in seconds, as learnt from the service; 0 until it complains.
    pub clock_offset_seconds: i64,
    /// Unix time of the last acknowledgement, in seconds; 0 before the first.
    pub delivered_unix: u64,
    /// The last failure, while nothing has been delivered since; empty otherwise.
    pub last_error: String,
    /// How old lines were when they were acknowledged; for the metrics only.
    #[serde(skip)]
    pub ages: Ages,
}

/// Upper bounds of the buckets of [`Ages`] in seconds; one more bucket holds what is older.
pub const AGE_BOUNDS: [f64; 14] =
    [0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0];

/// How long lines took from being written to being acknowledged. Never less than it was, but for the
/// moment that the kernel takes to tell of them, and for what it does not tell of (a mapping): each
/// counts with the age of the oldest one of its batch.
#[derive(Clone, Debug, Default)]
pub struct Ages {
    /// Lines by bucket, each line in one.
    pub lines: [u64; AGE_BOUNDS.len() + 1],
    /// The ages of all lines together, in seconds.
    pub seconds: f64,
}

impl Ages {
    /// Counts lines that were acknowledged at this age.
    pub fn count(&mut self, age: Duration, lines: u32) {
        let seconds = age.as_secs_f64();
        let bucket = AGE_BOUNDS.iter().position(|bound| seconds <= *bound);
        self.lines[bucket.unwrap_or(AGE_BOUNDS.len())] += u64::from(lines);
        self.seconds += seconds * f64::from(lines);
    }
}

/// Kinds of failed attempts, as the label `kind` of the metric names them.
pub const FAILURE_KINDS: [&str; 9] = [
    "network",
    "server",
    "quota",
    "shard_quota",
    "credentials",
    "missing",
    "clock",
    "unverified",
    "other",
];

/// Failures as an object: the names of the kinds, and how many there were of each.
mod by_kind {
    use std::collections::BTreeMap;

    use serde::{Deserialize as _, Deserializer, Serializer};

    use super::FAILURE_KINDS;

    type Failures = [u64; FAILURE_KINDS.len()];

    pub(super) fn serialize<S: Serializer>(
        failures: &Failures,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_map(FAILURE_KINDS.iter().zip(failures))
    }

    /// Counts nothing of kinds that this program does not know.
    pub(super) fn deserialize<'d, D: Deserializer<'d>>(
        deserializer: D,
    ) -> Result<Failures, D::Error> {
        let by_kind = BTreeMap::<String, u64>::deserialize(deserializer)?;
        Ok(FAILURE_KINDS.map(|kind| by_kind.get(kind).copied().unwrap_or_default()))
    }
}
