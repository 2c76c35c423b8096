//! The open files, and who gives its descriptor up when another is to be opened.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use crate::base::span::FileKey;
use crate::tail::os::OsFile;
use crate::tail::reader::Reader;
use crate::tail::registry::Registry;

/// How long a delivered file must have been quiet to give its descriptor up.
pub(super) const IDLE_QUIET: Duration = Duration::from_millis(200);

/// The readers of all open files, of which there may be so many.
pub(super) struct Readers<F> {
    open: HashMap<FileKey, Reader<F>>,
    /// Most log files open at once.
    max: usize,
    /// Whether the last discovery had more files to open than descriptors.
    is_short: bool,
    /// Whether it was logged that there were too few descriptors.
    is_short_logged: bool,
    /// Files that may give their descriptors up, as they were when they were last looked for.
    idle: VecDeque<FileKey>,
    /// Time before which no other files are looked for that may give their descriptors up.
    idle_from: Option<Instant>,
}

impl<F: OsFile> Readers<F> {
    pub(super) fn new(max: usize) -> Self {
        Self {
            open: HashMap::new(),
            max,
            is_short: false,
            is_short_logged: false,
            idle: VecDeque::new(),
            idle_from: None,
        }
    }

    // === the open files

    pub(super) fn get(&self, file: &FileKey) -> Option<&Reader<F>> {
        self.open.get(file)
    }

    pub(super) fn insert(&mut self, file: FileKey, reader: Reader<F>) {
        self.open.insert(file, reader);
    }

    /// Takes the reader of a file out. Unless it is put back, the file is closed with it.
    pub(super) fn remove(&mut self, file: &FileKey) -> Option<Reader<F>> {
        self.open.remove(file)
    }

    // === descriptors

    /// Whether as many files are open as may be.
    pub(super) fn are_full(&self) -> bool {
        self.open.len() >= self.max
    }

    /// Whether the last discovery had more files to open than descriptors.
    pub(super) fn are_short(&self) -> bool {
        self.is_short
    }

    /// Begins to open what a discovery has found: there may be descriptors now.
    pub(super) fn on_scan(&mut self) {
        self.is_short = false;
    }

    /// Notes that files may give their descriptors up that could not when they were last looked for.
    pub(super) fn look_again(&mut self) {
        self.idle_from = None;
    }

    /// Notes that there is no descriptor for a file, and says so the first time.
    pub(super) fn run_short(&mut self) {
        self.is_short = true;
        if !std::mem::replace(&mut self.is_short_logged, true) {
            tracing::warn!(
                files = self.max,
                "as many files are open as the limit of descriptors (RLIMIT_NOFILE) or \
                 mem_usage_limit allows; others wait until these are delivered"
            );
        }
    }

    /// The next file that gives its descriptor up. Such files are looked for together: the search
    /// goes through all files.
    pub(super) fn next_idle(&mut self, registry: &Registry, now: Instant) -> Option<FileKey> {
        loop {
            while let Some(file) = self.idle.pop_front() {
                let tracked = registry.get(file);
                if tracked.is_some_and(|tracked| tracked.can_close(IDLE_QUIET, now)) {
                    return Some(file);
                }
            }
            if self.idle_from.is_some_and(|from| now < from) {
                return None;
            }
            self.idle = registry.idle(IDLE_QUIET, now);
            self.idle_from = Some(now + IDLE_QUIET);
            if self.idle.is_empty() {
                return None;
            }
        }
    }
}
