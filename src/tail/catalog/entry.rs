//! What is known of one file that is not open.
//!
//! Pure. The saved form holds what the file is: its identity, its names, the proof of its bytes, and its
//! owner. The phase says in which state the file is.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::base::span::FileKey;
use crate::checkpoint::format::Checkpoint;
use crate::tail::tracked::{FoundAs, ROTATED_QUIET};

/// How long a file that equals one that nobody touches may be a copy that is still to replace it.
pub const COPY_TIME: Duration = Duration::from_secs(60);

/// Device and inode number of a file.
pub type Inode = (u64, u64);

/// All that is known of a file.
#[derive(Clone, Debug)]
pub struct Entry {
    /// What is saved of the file. Its flags follow the phase.
    pub(super) saved: Checkpoint,
    pub(super) phase: Phase,
    /// Whether the agent has said in this run that the file is missing.
    pub(super) is_told_now: bool,
}

/// The state of a file that is not open.
#[derive(Clone, Debug)]
pub enum Phase {
    /// The file is delivered and closed, and is opened again when it changes.
    Closed(Closed),
    /// The file was delivered before this run and is as it was; the agent opens it soon.
    Deferred(FoundAs),
    /// The file was closed or deferred and has changed since; it could not be opened yet.
    Changed,
    /// A discovery has found the file, nothing of it was read, and it could not be opened yet.
    Waiting,
    /// The file was not met where it stood; it is searched for.
    Missing(Missing),
    /// The file is deleted, or other bytes stand in it: only a copy of its bytes can be met.
    Removed {
        /// Whether bytes of the file may stand in a copy that nobody has searched for yet.
        is_undelivered: bool,
    },
    /// The file is a copy of another one.
    CopyOf(Box<Copy>),
    /// The file was overwritten and holds no log.
    NoLog(FoundAs),
}

/// How a closed file was seen last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closed {
    /// No discovery has found the file since it is known: the next one that does opens it.
    Unmet,
    /// A discovery finds the file so, as it was delivered.
    Idle(FoundAs),
    /// The file was renamed out of the patterns, stood so under its real path, and was written to last
    /// at the moment: somebody may write to it for a while.
    Renamed(FoundAs, Instant),
}

/// What the search for a file has come to.
#[derive(Clone, Debug, Default)]
pub struct Missing {
    pub(super) search: Search,
    /// Whether the file was closed before: if the search finds it nowhere, it is removed.
    pub(super) was_closed: bool,
    /// Since when the file is known to equal one that nobody touches.
    pub(super) doubted: Option<Instant>,
    /// Who has the bytes of the file, if that is known.
    pub(super) held: Option<Held>,
}

/// What is known of a missing file whose bytes another one has, or had when they were read.
#[derive(Clone, Debug)]
pub struct Held {
    /// The other file, which is open or has batches under way.
    pub original: FileKey,
    /// What is true of the missing file as soon as the other one is delivered.
    pub done: Box<Checkpoint>,
}

/// How far the search for a file is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Search {
    /// The search has not begun, or begins anew.
    #[default]
    Wanted,
    /// The file is found nowhere around the place where it stood.
    Nowhere,
    /// The file stands here. It is not found again before a name has changed.
    At(PathBuf),
    /// The last search has found the file, and it could not be opened.
    Met,
    /// The directory of the file may not be looked into.
    Barred,
    /// The directory may not be looked into before a link is there, and the file left its place.
    Awaited,
}

/// A file that was found to be a copy.
#[derive(Clone, Debug)]
pub struct Copy {
    /// How discovery found the copy; `None` if it is to be judged again.
    pub found_as: Option<FoundAs>,
    /// What the file is a copy of.
    pub of: Source,
    /// What is true of the copy as soon as all of the original is delivered.
    pub done: Checkpoint,
    /// Since when the file is known to equal one that nobody touches, if that is all that is known.
    pub doubted: Option<Instant>,
    /// Whether the file turned out to be one of its own.
    pub is_own: bool,
    /// Whether the copy is compressed.
    pub is_compressed: bool,
}

/// What a file is a copy of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A file that is open, or whose last batches are under way.
    Open(FileKey),
    /// A closed file.
    Closed(Inode),
}

impl Entry {
    /// The entry of a file of which only the saved form is known.
    pub(super) fn new(saved: Checkpoint) -> Self {
        let phase = Phase::of(&saved);
        Self { saved, phase, is_told_now: false }
    }

    /// What is saved of the file.
    #[must_use]
    pub const fn saved(&self) -> &Checkpoint {
        &self.saved
    }

    /// Device and inode number.
    pub(super) const fn inode(&self) -> Inode {
        (self.saved.device, self.saved.inode)
    }

    /// What is known of the file as a copy.
    pub(super) fn copy(&self) -> Option<&Copy> {
        match &self.phase {
            Phase::CopyOf(copy) => Some(copy),
            _ => None,
        }
    }

    /// What is known of the file as a copy, to change it.
    pub(super) fn copy_mut(&mut self) -> Option<&mut Copy> {
        match &mut self.phase {
            Phase::CopyOf(copy) => Some(copy),
            _ => None,
        }
    }

    /// Who has the bytes of the file, if it is missing and that is known.
    pub(in crate::tail) const fn held(&self) -> Option<&Held> {
        match &self.phase {
            Phase::Missing(missing) => missing.held.as_ref(),
            _ => None,
        }
    }

    /// What the search for the file has come to, if it is missing.
    pub(super) fn missing_mut(&mut self) -> Option<&mut Missing> {
        match &mut self.phase {
            Phase::Missing(missing) => Some(missing),
            _ => None,
        }
    }

    /// Puts the file into another phase.
    pub(super) fn enter(&mut self, phase: Phase) {
        self.saved.is_done = match phase {
            Phase::Closed(_) => true,
            Phase::Removed { is_undelivered } => !is_undelivered,
            Phase::Waiting | Phase::Missing(_) | Phase::CopyOf(_) | Phase::NoLog(_) => false,
            Phase::Deferred(_) | Phase::Changed => self.saved.is_done,
        };
        self.phase = phase;
    }

    /// Whether the file is known not to have left its place, as of the last look.
    #[must_use]
    pub const fn is_there(&self) -> bool {
        !matches!(self.phase, Phase::Missing(_) | Phase::Removed { .. })
    }

    /// Whether the patterns lead to the file, as of the last look, and nothing searches for it.
    pub(in crate::tail) const fn is_found(&self) -> bool {
        !matches!(self.phase, Phase::Missing(_) | Phase::Removed { .. } | Phase::Closed(_))
    }

    /// Whether a discovery must find the file, or it has left its place.
    pub(super) const fn is_expected(&self) -> bool {
        match self.phase {
            Phase::Closed(closed) => matches!(closed, Closed::Idle(_)),
            Phase::Missing(_) | Phase::Removed { .. } => false,
            Phase::Deferred(_) | Phase::Changed | Phase::Waiting => true,
            Phase::CopyOf(_) | Phase::NoLog(_) => true,
        }
    }

    /// Whether this is what is known of the same bytes that are removed.
    pub(super) fn is_same_removed(&self, removed: &Checkpoint) -> bool {
        let identity = |one: &Checkpoint| (one.born, one.gone_at, one.offset, one.head, one.tail);
        self.saved.path == removed.path && identity(&self.saved) == identity(removed)
    }

    /// Whether the file holds nothing new as long as a discovery finds it as it was.
    pub(super) const fn is_idle(&self) -> bool {
        self.is_expected() && !matches!(self.phase, Phase::Changed | Phase::Waiting)
    }

    /// How far the search for the file is, if it is missing.
    #[must_use]
    pub const fn search(&self) -> Option<&Search> {
        match &self.phase {
            Phase::Missing(missing) => Some(&missing.search),
            _ => None,
        }
    }

    /// Whether the file is missing, and was closed before.
    pub(in crate::tail) const fn was_closed(&self) -> bool {
        matches!(self.phase, Phase::Missing(Missing { was_closed: true, .. }))
    }

    /// Whether bytes of the file are not delivered, as far as is known, and it is not there.
    pub(super) fn is_undelivered(&self) -> bool {
        match (self.saved.rest, &self.phase) {
            (Some(rest), Phase::Missing(_) | Phase::Removed { .. }) => rest > 0,
            (None, Phase::Missing(_)) => true,
            _ => false,
        }
    }

    /// Whether the next start searches for the file: somebody may write to a closed file and rename it
    /// until then. (A compressed file has another size than its text.)
    pub(super) fn is_searched_by_next_start(&self) -> bool {
        let is_as_long = |found_as: FoundAs| found_as.0 == self.saved.offset;
        match self.phase {
            Phase::Closed(Closed::Idle(found_as)) | Phase::Deferred(found_as) => {
                is_as_long(found_as)
            }
            Phase::Closed(Closed::Renamed(..)) => true,
            _ => false,
        }
    }

    /// Whether the next discovery says all that is known of the file.
    pub(super) const fn is_unsaved(&self) -> bool {
        match &self.phase {
            Phase::CopyOf(copy) => copy.found_as.is_some() || copy.is_compressed,
            Phase::NoLog(_) => true,
            _ => false,
        }
    }
}

impl Phase {
    /// The phase of a file that has left its place and is to be searched for.
    pub(super) const fn missing(was_closed: bool, doubted: Option<Instant>) -> Self {
        Self::Missing(Missing { search: Search::Wanted, was_closed, doubted, held: None })
    }

    /// The phase of a file of which only the saved form is known.
    pub(super) fn of(saved: &Checkpoint) -> Self {
        match (saved.inode, saved.is_done) {
            (0, is_done) => Self::Removed { is_undelivered: !is_done },
            (_, true) => Self::Closed(Closed::Unmet),
            (_, false) => Self::Missing(Missing::default()),
        }
    }
}

impl Closed {
    /// Whether somebody may still write to the file under the name that it was renamed to.
    pub(super) fn is_looked_at(self, now: Instant) -> bool {
        matches!(self, Self::Renamed(_, since) if now < since + ROTATED_QUIET)
    }
}

/// The checkpoint of a file of which nothing was read, and nothing is known to be owed.
#[must_use]
pub fn unread(
    (path, resolved): (&Path, &Path),
    (device, inode): Inode,
    born: i64,
    seen_unix: u64,
) -> Checkpoint {
    let (path, resolved) = (path.to_owned(), resolved.to_owned());
    let rest = Some(0);
    Checkpoint { path, resolved, device, inode, born, seen_unix, rest, ..Checkpoint::default() }
}

/// Whether a file that is known since then to equal one that nobody touches is one of its own by now.
#[must_use]
pub fn is_own_by(doubted: Option<Instant>, now: Instant) -> bool {
    doubted.is_some_and(|since| now >= since + COPY_TIME)
}

/// Whether a checkpoint speaks of a file that waited to be opened: nothing was read of it.
#[must_use]
pub const fn is_unread(saved: &Checkpoint) -> bool {
    saved.offset == 0 && saved.head.len == 0
}
