//! Files that were found and are not open, and files that a stop leaves for the next start.
//!
//! All of them are counted; of the first the reason is kept, for people. *Absent: any decision.*

use std::borrow::Cow;
use std::io;
use std::path::{Path, PathBuf};

use crate::base::report::FileReport;
use crate::tail::os::Os;

/// Most files of which the reason is kept.
pub(super) const NAMED_MAX: usize = 20;

/// Why a file is not open yet where there are very many.
pub(super) const LATER: &str = "it waits for its turn";

/// A file that is left, and why.
#[derive(Clone, Debug)]
pub struct Left {
    /// Path of the file.
    pub path: PathBuf,
    /// Bytes of the file that are not acknowledged; `None` where it is not known what the file
    /// holds.
    pub bytes: Option<u64>,
    /// Why the file is left.
    pub reason: Cow<'static, str>,
}

/// What a discovery found and left for later, because memory has a limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Beyond {
    /// How many files there are beyond those that can be known.
    pub(super) files: u64,
    /// How many directories there are for which there was no room, whatever is in them.
    pub(super) dirs: u64,
}

impl Beyond {
    pub(super) fn count(&self) -> usize {
        usize::try_from(self.files + self.dirs).unwrap_or(usize::MAX)
    }

    /// The files and directories in one entry, which names the patterns that find them.
    pub(super) fn left(&self, patterns: &[String]) -> Option<Left> {
        let Self { files, dirs } = self;
        let reason = format!(
            "{files} files and {dirs} directories more than fit in mem_usage_limit are left for later"
        );
        let path = PathBuf::from(patterns.join(","));
        (self.count() > 0).then(|| Left { path, bytes: None, reason: reason.into() })
    }
}

/// The files that a discovery found and could not open, or not yet.
#[derive(Default)]
pub(super) struct Unopened {
    count: usize,
    /// How many of them may not be looked at before their link is there.
    awaiting: usize,
    /// The first of them, and whether an error is the reason.
    first: Vec<(Left, bool)>,
    /// How many of them could not be opened for an error.
    failed: usize,
    /// Whether something waits until what was read of a file is acknowledged.
    is_unacknowledged: bool,
    /// Whether one of the files had gone when it was to be opened. It may have another name now.
    has_vanished: bool,
}

impl Unopened {
    /// Adds a file that waits for something.
    pub(super) fn add(&mut self, path: &Path, reason: &'static str) {
        self.note(path, false, || reason.into());
    }

    /// Adds a file that may not be looked at before the link is there by which it was found.
    pub(super) fn add_awaiting(&mut self, path: &Path) {
        self.awaiting += 1;
        self.add(path, "the link by which it was found is not there");
    }

    /// Adds a file of which something was read before that is not acknowledged yet.
    pub(super) fn add_unacknowledged(&mut self, path: &Path) {
        self.note_unacknowledged();
        self.add(path, "what was read of it before is not acknowledged yet");
    }

    /// Notes that something waits until what was read of a file is acknowledged.
    pub(super) fn note_unacknowledged(&mut self) {
        self.is_unacknowledged = true;
    }

    /// Whether something waits until what was read of a file is acknowledged.
    pub(super) const fn is_unacknowledged(&self) -> bool {
        self.is_unacknowledged
    }

    /// How many wait for their turn.
    pub(super) const fn waiting(&self) -> usize {
        self.count - self.failed - self.awaiting
    }

    /// How many may be opened as soon as something changes.
    pub(super) const fn expected(&self) -> usize {
        self.count - self.awaiting
    }

    /// Adds a file that an error kept from being opened.
    pub(super) fn add_failed(&mut self, os: &impl Os, path: &Path, error: &io::Error) {
        let is_gone = error.kind() == io::ErrorKind::NotFound;
        self.failed += usize::from(!is_gone);
        self.has_vanished |= is_gone;
        self.note(path, !is_gone, || describe(os, path, error).into());
    }

    /// Adds files of which nobody has the names, and which an error may keep from being opened.
    pub(super) fn add_unnamed(&mut self, count: u64, is_failed: bool) {
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        self.count = self.count.saturating_add(count);
        self.failed = self.failed.saturating_add(if is_failed { count } else { 0 });
    }

    fn note(&mut self, path: &Path, is_failed: bool, reason: impl FnOnce() -> Cow<'static, str>) {
        self.count += 1;
        if self.first.len() < NAMED_MAX {
            let left = Left { path: path.to_owned(), bytes: None, reason: reason() };
            self.first.push((left, is_failed));
        }
    }

    pub(super) const fn count(&self) -> usize {
        self.count
    }

    pub(super) const fn failed(&self) -> usize {
        self.failed
    }

    pub(super) const fn has_vanished(&self) -> bool {
        self.has_vanished
    }

    /// Reports of the first files that an error keeps from being opened, for the list of files.
    pub(super) fn reports(&self) -> impl Iterator<Item = FileReport> {
        let failed = self.first.iter().filter(|(_, is_failed)| *is_failed);
        failed.map(|(left, _)| FileReport {
            path: left.path.display().to_string(),
            state: "unopened".to_owned(),
            last_error: left.reason.to_string(),
            ..FileReport::default()
        })
    }

    /// The first of the files.
    pub(super) fn first(&self) -> impl Iterator<Item = Left> {
        self.first.iter().map(|(left, _)| left.clone())
    }
}

/// What the system said, and what of that a person can change.
pub(super) fn describe(os: &impl Os, path: &Path, error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::PermissionDenied
        && let Some(why) = os.explain(path)
    {
        return format!("{error}: {why}");
    }
    error.to_string()
}

/// The first of all files that are left, as many as are named.
pub(super) fn named(left: impl Iterator<Item = Left>) -> Vec<Left> {
    left.take(NAMED_MAX).collect()
}
