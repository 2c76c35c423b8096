//! What is published of the collector, and when.
//!
//! The sums of all files are made anew for each report, which takes long of very many: so reports come
//! as far apart as they cost.

use std::time::{Duration, Instant};

use super::left::Unopened;
use super::timers::{Timer, Timers};
use crate::base::report::{FileList, FileReport, FileSums};
use crate::tail::registry::Registry;
use crate::tail::tracked::{State, Tracked};

/// Least time between two reports.
const PUBLISH_PERIOD: Duration = Duration::from_millis(500);
/// Pause after a report, in multiples of the CPU time that it took. Of very many files it takes
/// long to sum up what they wait for.
const PUBLISH_PAUSE_FACTOR: u32 = 500;

/// When something is published.
pub(super) struct Report {
    /// Whether somebody waits for the list of files.
    is_list_wanted: bool,
    /// How long what changes may wait to be published.
    period: Duration,
}

impl Default for Report {
    fn default() -> Self {
        Self { is_list_wanted: false, period: PUBLISH_PERIOD }
    }
}

impl Report {
    /// Notes that something changed which the report should say.
    pub(super) fn touch(&self, timers: &mut Timers, now: Instant) {
        timers.start(Timer::Publish, now + self.period);
    }

    /// Notes whether somebody waits for the list of files.
    pub(super) fn want_list_if(&mut self, is_wanted: bool) {
        self.is_list_wanted |= is_wanted;
    }

    /// Whether the list of files is to be published now.
    pub(super) fn take_list_wanted(&mut self) -> bool {
        std::mem::take(&mut self.is_list_wanted)
    }

    /// Notes that a report was made with so much CPU time.
    pub(super) fn on_made(&mut self, used: Duration) {
        self.period = PUBLISH_PERIOD.max(used * PUBLISH_PAUSE_FACTOR);
    }
}

/// Adds the open files up, to the `sums` of those that are not open.
pub(super) fn sum_up(registry: &Registry, mut sums: FileSums, unix: u64) -> FileSums {
    for (_, tracked) in registry.iter() {
        match tracked.state {
            State::Active => sums.active += 1,
            State::Rotated => sums.rotated += 1,
            State::Deleted => sums.deleted += 1,
        }
        let (lag_bytes, lag_seconds) = lag(tracked, unix);
        sums.failing += u64::from(!tracked.last_error.is_empty());
        sums.unread_bytes += tracked.size.saturating_sub(tracked.read_offset);
        sums.lag_bytes += lag_bytes;
        sums.lag_seconds = sums.lag_seconds.max(lag_seconds);
    }
    sums
}

/// Each file, in the order of their paths, for somebody who wants to see them.
pub(super) fn list(registry: &Registry, unopened: &Unopened, made_unix: u64) -> FileList {
    let files = registry.iter().map(|(_, tracked)| file_report(tracked, made_unix));
    let mut files: Vec<FileReport> = files.chain(unopened.reports()).collect();
    files.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    FileList { made_unix, files }
}

/// Bytes of a file that are not acknowledged, and for how many seconds that has been so.
fn lag(tracked: &Tracked, unix: u64) -> (u64, u64) {
    match tracked.size.saturating_sub(tracked.watermark.offset()) {
        0 => (0, 0),
        bytes => (bytes, unix.saturating_sub(tracked.level_unix)),
    }
}

fn file_report(tracked: &Tracked, unix: u64) -> FileReport {
    let (lag_bytes, lag_seconds) = lag(tracked, unix);
    FileReport {
        path: tracked.opened.path.display().to_string(),
        state: tracked.state.name().to_owned(),
        device: tracked.opened.device,
        inode: tracked.opened.inode,
        size: tracked.size,
        read_offset: tracked.read_offset,
        acked_offset: tracked.watermark.offset(),
        lag_bytes,
        lag_seconds,
        last_error: tracked.last_error.clone(),
    }
}
