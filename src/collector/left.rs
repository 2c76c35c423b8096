//! What is left: files that were found and are not open, and what a stop leaves for the next start.
//!
//! All of them are counted; of the first the reason is kept, for people. *Absent: any decision.*

use std::borrow::Cow;
use std::io;
use std::path::{Path, PathBuf};

use crate::access;
use crate::report::FileReport;

/// Of so many the reason is kept.
const NAMED_MAX: usize = 20;

/// A file that is left, and why.
#[derive(Clone, Debug)]
pub struct Left {
    /// Its path.
    pub path: PathBuf,
    /// Bytes of it that are not acknowledged; `None` where what it holds is not known.
    pub bytes: Option<u64>,
    /// Why it is left.
    pub reason: Cow<'static, str>,
}

/// The files that a discovery found and could not open, or not yet.
#[derive(Default)]
pub(super) struct Unopened {
    count: usize,
    first: Vec<Left>,
    /// How many of them could not be opened for an error.
    failed: usize,
    /// One of them had gone when it was to be opened. It may have another name now.
    has_vanished: bool,
}

impl Unopened {
    pub(super) fn add(&mut self, path: &Path, reason: impl Into<Cow<'static, str>>) {
        self.count += 1;
        if self.first.len() < NAMED_MAX {
            let (path, reason) = (path.to_owned(), reason.into());
            self.first.push(Left { path, bytes: None, reason });
        }
    }

    pub(super) fn add_failed(&mut self, path: &Path, error: &io::Error) {
        self.failed += 1;
        self.has_vanished |= error.kind() == io::ErrorKind::NotFound;
        if self.first.len() < NAMED_MAX {
            self.add(path, describe(path, error));
        } else {
            self.count += 1;
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

    /// The first of them, for the list of files.
    pub(super) fn reports(&self) -> impl Iterator<Item = FileReport> {
        self.first.iter().map(|left| FileReport {
            path: left.path.display().to_string(),
            state: "unopened".to_owned(),
            last_error: left.reason.to_string(),
            ..FileReport::default()
        })
    }

    /// The first of them.
    pub(super) fn first(&self) -> &[Left] {
        &self.first
    }
}

/// What the system said, and what of that a person can change.
pub(super) fn describe(path: &Path, error: &io::Error) -> String {
    let is_denied = error.kind() == io::ErrorKind::PermissionDenied;
    match access::explain_log(path).filter(|_| is_denied) {
        Some(why) => format!("{error}: {why}"),
        None => error.to_string(),
    }
}

/// The first of all that is left.
pub(super) fn named(left: impl Iterator<Item = Left>) -> Vec<Left> {
    left.take(NAMED_MAX).collect()
}
