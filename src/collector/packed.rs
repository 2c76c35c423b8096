//! Whose turn it is among the compressed files, and what became of the others.
//!
//! One is measured or read at a time. What is done with it is in `unpacking`.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::stamp::{nanoseconds, wall_nanoseconds};
use crate::base::span::FileKey;
use crate::tail::catalog::judge::Stat;
use crate::tail::gzip::Gzip;
use crate::tail::os::{Os, OsFile};

/// How long nothing about a compressed file must have changed for it to be whole.
pub(super) const QUIET: Duration = Duration::from_secs(3);

/// The compressed files.
pub(super) struct Packed<F> {
    measuring: Option<Measuring<F>>,
    /// Compressed files that are open: one is read, and the others wait to be delivered.
    open: Vec<FileKey>,
    /// Files with too much text, by device and inode, and when they changed last.
    oversized: HashMap<(u64, u64), i64>,
    /// Files that could not be measured, by device and inode.
    failed: HashMap<(u64, u64), Failed>,
    /// How many turns have ended, whatever came of them.
    turns: u64,
}

/// The compressed file whose turn it is.
pub(super) struct Measuring<F> {
    /// Device and inode.
    pub(super) inode: (u64, u64),
    pub(super) path: PathBuf,
    /// When the file changed last.
    pub(super) changed: i64,
    pub(super) gzip: Gzip<F>,
    /// Whether this discovery has found the file.
    pub(super) is_found: bool,
}

struct Failed {
    retry_at: Instant,
    /// What is wrong; `None` if somebody still writes the file.
    why: Option<String>,
}

/// What came of a slice.
pub(super) enum Slice {
    /// There is nothing to measure.
    Idle,
    /// There is more to decode.
    Begun,
    /// All is decoded: the next discovery opens the file.
    Whole,
    /// There is too much text: the file is left alone until it changes.
    TooLarge(PathBuf, io::Error),
    /// The file cannot be decoded now.
    Failed,
}

impl<F> Default for Packed<F> {
    fn default() -> Self {
        let (open, oversized, failed) = (Vec::new(), HashMap::new(), HashMap::new());
        Self { measuring: None, open, oversized, failed, turns: 0 }
    }
}

impl<F: OsFile> Packed<F> {
    /// Whether there is something to decode before the next one can be opened.
    pub(super) fn is_measuring(&self) -> bool {
        self.measuring.as_ref().is_some_and(|one| !one.gzip.is_measured())
    }

    /// Whether no file has its turn.
    pub(super) fn is_idle(&self) -> bool {
        self.measuring.is_none()
    }

    /// How many turns have ended. After each, another file may be the next.
    pub(super) const fn turns(&self) -> u64 {
        self.turns
    }

    /// When a file is looked at again that somebody still writes.
    pub(super) fn retry_at(&self) -> Option<Instant> {
        let written = self.failed.values().filter(|failed| failed.why.is_none());
        written.map(|failed| failed.retry_at).min()
    }

    // === the course of a discovery

    /// Begins a discovery: what could not be measured may have another turn.
    pub(super) fn on_discovery(&mut self, now: Instant) {
        self.failed.retain(|_, failed| now < failed.retry_at);
    }

    /// Ends a discovery: a file that it has not found is gone.
    pub(super) fn on_discovered(&mut self) {
        let is_gone = self.measuring.take_if(|one| !std::mem::take(&mut one.is_found)).is_some();
        self.turns += u64::from(is_gone);
    }

    /// Keeps what was measured of a file that this discovery has found and that cannot have its
    /// turn now.
    pub(super) fn on_waits(&mut self, inode: (u64, u64)) {
        if let Some(one) = self.measuring.as_mut().filter(|one| one.inode == inode) {
            one.is_found = true;
        }
    }

    // === whose turn it is

    /// Whether a file has too much text, and has not changed since that was found.
    pub(super) fn is_oversized(&self, inode: (u64, u64), changed: i64) -> bool {
        self.oversized.get(&inode) == Some(&changed)
    }

    /// What is wrong with a file that could not be decoded.
    pub(super) fn failure(&self, inode: (u64, u64)) -> Option<&str> {
        self.failed.get(&inode)?.why.as_deref()
    }

    /// Whether a file may have its turn, as far as no other has it and it has not failed. Those that
    /// are open are asked whether they are `done` with.
    pub(super) fn is_turn_of(&self, inode: (u64, u64), done: impl FnMut(&FileKey) -> bool) -> bool {
        let is_other = self.measuring.as_ref().is_some_and(|one| one.inode != inode);
        !is_other && !self.failed.contains_key(&inode) && self.open.iter().all(done)
    }

    /// Takes the file whose turn it is.
    pub(super) fn take(&mut self) -> Option<Measuring<F>> {
        self.measuring.take()
    }

    /// Gives a file its turn, which this discovery has found.
    pub(super) fn measure_later(&mut self, one: Measuring<F>) {
        self.measuring = Some(Measuring { is_found: true, ..one });
    }

    /// Ends the turn of a file that is opened.
    pub(super) fn on_shown(&mut self) {
        self.turns += 1;
    }

    /// Ends the turn of a file that could not be measured. `why` is `None` if somebody still writes it.
    pub(super) fn fail(&mut self, inode: (u64, u64), retry_at: Instant, why: Option<String>) {
        self.turns += 1;
        self.failed.insert(inode, Failed { retry_at, why });
    }

    /// Decodes one more slice of the file whose turn it is. If that fails, the file may be tried again
    /// at the time that `retry_at` says.
    pub(super) fn measure(&mut self, retry_at: impl FnOnce() -> Instant) -> Slice {
        let measuring = self.measuring.as_mut();
        let Some(one) = measuring.filter(|one| !one.gzip.is_measured()) else {
            return Slice::Idle;
        };
        let error = match one.gzip.measure() {
            Ok(true) => return Slice::Whole,
            Ok(false) => return Slice::Begun,
            Err(error) => error,
        };
        let Some(one) = self.measuring.take() else { return Slice::Idle };
        if error.kind() == io::ErrorKind::FileTooLarge {
            self.oversized.insert(one.inode, one.changed);
            self.turns += 1;
            return Slice::TooLarge(one.path, error);
        }
        self.fail(one.inode, retry_at(), Some(error.to_string()));
        Slice::Failed
    }

    /// Why a file is not read yet.
    pub(super) fn wait(&self, inode: (u64, u64)) -> &'static str {
        if self.measuring.as_ref().is_some_and(|one| one.inode == inode) {
            "it is compressed, and not all of it is decoded yet"
        } else if self.failed.contains_key(&inode) {
            "it is compressed and not complete; somebody may still write it"
        } else {
            "it is compressed, and waits for its turn to be decoded"
        }
    }

    // === those that are open

    /// Notes that a compressed file is open.
    pub(super) fn on_opened(&mut self, file: FileKey) {
        self.open.push(file);
    }

    /// The compressed files that are open still.
    pub(super) fn open(&mut self, is_open: impl FnMut(&FileKey) -> bool) -> Vec<FileKey> {
        self.open.retain(is_open);
        self.open.clone()
    }
}

/// Whether a file has changed a moment ago.
pub(super) fn is_young(os: &impl Os, stat: &Stat) -> bool {
    let age = wall_nanoseconds(os).saturating_sub(stat.changed);
    (0..nanoseconds(QUIET)).contains(&age)
}
