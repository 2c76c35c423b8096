//! Files to bytes: which files there are, which of them we know, whose turn it is.
//!
//! [`discover`] turns patterns into files, through links in any part of the path; what a
//! [`pattern`] is, how its directories are walked and where links may lead stands beside it; of what may
//! be there in any number a [`crowd`] is kept.
//! [`watch`] is the kernel's hint that something changed; the truth is `fstat` and the bytes.
//! [`catalog`] knows a file again, [`registry`] remembers what happened to each, [`schedule`] says
//! whose turn it is, [`filled`] which NULs may still become text, [`reader`] looks at the bytes.
//! All of them see the system through [`os`].
//!
//! What happens to a log file, and what follows from it:
//!
//! ```text
//! rename      app.log ──mv──▶ app.log.1     same inode: read on under the old `__path__`, to the
//!             (new app.log)                 end and until it has been quiet for ten minutes
//! delete      app.log ──rm──▶ (open)        the descriptor keeps it: read to the end, closed
//!                                           when nobody writes to it any more
//! truncate    [old bytes] ──▶ [new]         smaller than the offset, or other bytes before it:
//!                                           a new incarnation, from its first byte
//! re-point    logs ─▶ A  becomes  logs ─▶ B both: A as if renamed away, B as new
//! ```

pub mod catalog;
pub mod copies;
pub mod crowd;
pub mod discover;
pub mod filled;
pub mod gzip;
pub mod missed;
pub mod os;
mod own;
pub mod pattern;
pub mod reader;
pub mod registry;
mod roots;
#[cfg(test)]
mod rules_tests;
pub mod schedule;
pub mod scout;
mod served;
mod trace;
pub mod tracked;

mod walk;
pub mod watch;

use std::path::PathBuf;
use std::time::Duration;

/// How to find files and how to read them.
#[derive(Clone, Debug)]
pub struct Options {
    /// Directories that links may lead to; if there are none, what the patterns link to at first
    /// sight.
    pub link_roots: Vec<PathBuf>,
    /// Least time between two turns of reading.
    pub read_linger: Duration,
    /// Most bytes of a line; longer lines are split.
    pub line_bytes_max: usize,
    /// How long an unterminated last line must have been quiet before it is sent.
    pub partial_line_timeout: Duration,
    /// Most bytes of deleted files that are kept open.
    pub held_deleted_bytes_max: u64,
}
