//! Messages on files in the log, and how many of each kind there may be.
//!
//! An app can rewrite a file ten times a second and make links by the thousand, so whatever it can make
//! the agent say goes through here: of each kind the first few are said with their names, and then
//! how many more there were. *Absent: any decision about a file.*

use std::time::Instant;

use crate::limit::flood::Flood;

/// The kinds of messages that an app can cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A file is opened.
    Shipping,
    /// A file is found no more.
    Gone,
    /// A file has another descriptor.
    Reopened,
    /// A renamed file holds no log any more.
    Overwritten,
    /// The account of a file is closed.
    Done,
    /// The account of a file is closed, and does not add up.
    Unbalanced,
    /// A link leads out of the allowed directories.
    Refused,
    /// A file that was shipped before is not configured now.
    NotConfigured,
    /// Something that matches is no regular file.
    Odd,
    /// A file cannot be opened or looked at.
    Trouble,
    /// A file is open and cannot be read or examined.
    Unreadable,
    /// A file begins anew.
    Rewritten,
    /// A file is shorter, and what is missing was not read.
    Cut,
    /// A file has NUL bytes that nobody wrote.
    Hole,
    /// A file is deleted, and closed before it was read.
    GivenUp,
    /// A file is compressed, and cannot be read to its end.
    Packed,
    /// The kernel's queue was full.
    Overflow,
    /// Polling begins or ends.
    Polling,
    /// Files or directories wait for memory.
    Left,
    /// Lines of a batch have an old time.
    Restamped,
    /// Lines go again under the id that they had before a restart.
    Again,
    /// Lines cannot go again under the id that they had before a restart.
    NotAgain,
    /// The checkpoint cannot be saved, or can be again.
    Saving,
}

impl Kind {
    /// How many messages of this kind are logged one by one.
    const fn burst(self) -> u32 {
        match self {
            // A pod has dozens of files, and an agent that starts names them.
            Self::Shipping | Self::Gone => 100,
            _ => 20,
        }
    }
}

/// The log of the collector.
pub(super) struct Said {
    flood: Flood<Kind>,
    /// When the present step began.
    now: Instant,
    /// The kind of which nothing is said at present.
    hushed: Option<Kind>,
}

impl Said {
    pub(super) fn new(now: Instant) -> Self {
        Self { flood: Flood::default(), now, hushed: None }
    }

    /// Begins a step: what is said from now on is said at this time.
    pub(super) fn begin(&mut self, now: Instant) {
        self.now = now;
    }

    /// Whether a message of this kind is to be written. If not, it is counted.
    pub(super) fn admits(&mut self, kind: Kind) -> bool {
        self.hushed != Some(kind) && self.flood.admit(kind, kind.burst(), self.now)
    }

    /// Counts messages of which nobody knows the names any more.
    pub(super) fn count(&mut self, kind: Kind, messages: u64) {
        self.flood.count(kind, messages, self.now);
    }

    /// Says nothing of this kind until it is called with `None`.
    pub(super) fn hush(&mut self, kind: Option<Kind>) {
        self.hushed = kind;
    }

    /// When there is something to sum up.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.flood.deadline()
    }

    /// Says how many there were of what was not said, where it is time for that.
    pub(super) fn sum_up(&mut self, now: Instant) {
        self.flood.take_due(now).into_iter().for_each(say);
    }

    /// Says how many there were of what was not said, at the end of the run.
    pub(super) fn sum_up_all(&mut self, now: Instant) {
        self.flood.take_all(now).into_iter().for_each(say);
    }
}

fn say((kind, count): (Kind, u64)) {
    match kind {
        Kind::Shipping => tracing::info!(files = count, "shipping more files"),
        Kind::Gone => {
            tracing::info!(files = count, "more files were renamed or deleted; reading them too");
        }
        Kind::Reopened => {
            tracing::warn!(files = count, "more files were opened again in their places")
        }
        Kind::Overwritten => tracing::warn!(
            files = count,
            "more renamed files were written over in their places; they are not read any more"
        ),
        Kind::Done => tracing::info!(files = count, "more files are done"),
        Kind::Unbalanced => {
            tracing::error!(files = count, "more accounts do not add up; please report this");
        }
        Kind::Refused => tracing::warn!(
            links = count,
            hint = "logferry_links_refused says how many there are",
            "more links lead out; they are not followed"
        ),
        Kind::NotConfigured => {
            tracing::warn!(
                files = count,
                "more files that were shipped before are not among the patterns now; not read on"
            );
        }
        Kind::Odd => {
            tracing::warn!(names = count, "more names match and are no regular files; skipped");
        }
        Kind::Trouble => tracing::warn!(
            errors = count,
            "more files or directories cannot be opened or looked at; trying again"
        ),
        Kind::Unreadable => {
            tracing::warn!(errors = count, "more files could not be read; trying again");
        }
        Kind::Rewritten => tracing::warn!(
            times = count,
            "files began anew more often; each time they are read from the first byte"
        ),
        Kind::Cut => tracing::warn!(times = count, "unread bytes were cut off more often"),
        Kind::Hole => tracing::warn!(holes = count, "more holes are skipped"),
        Kind::GivenUp => tracing::warn!(
            files = count,
            "more deleted files are given up to keep within held_deleted_bytes_max"
        ),
        Kind::Packed => {
            tracing::warn!(times = count, "more compressed files could not be read to their end");
        }
        Kind::Overflow => {
            tracing::warn!(times = count, "notifications were dropped more often");
        }
        Kind::Polling => {
            tracing::info!(times = count, "polling began or ended more often");
        }
        Kind::Left => tracing::warn!(
            times = count,
            "the number of files that are left for later has changed more often"
        ),
        Kind::Restamped => tracing::warn!(
            batches = count,
            "the service refuses the times of more batches; they go with the time of now"
        ),
        Kind::Again => tracing::info!(batches = count, "more batches go under the same id again"),
        Kind::NotAgain => tracing::warn!(
            times = count,
            "more often other lines stand where some may have arrived; sending all"
        ),
        Kind::Saving => {
            tracing::error!(times = count, "saving failed or was possible again more often");
        }
    }
}
