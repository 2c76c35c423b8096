//! Stopping: from the wish to the end of the last file.
//!
//! A drain begins with a signal, or when the file that `exit_when` names is there. From then on
//! files are looked at and read as before, for the app may still write: the signal has reached it
//! at the same moment. It is over when no file has grown for `quiet` and all is acknowledged, which
//! a last look must confirm. With a `quiet` of zero only what was there at the wish is read.
//!
//! An unfinished last line waits for the next start, which may find it finished. Where there is
//! none, it is sent at the very end: until then its writer may finish it. That is after `exit_when`,
//! where the settings say so, and of a file that was deleted.
//!
//! The deadline is nobody's business here: whoever has one tells the collector to abandon.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

pub use super::drain::Options;
use super::drain::{LastLook, Progress, Prospect};
use super::left::{self, Left};
use super::readers::IDLE_QUIET;
use super::timers::Timer;
use super::{Collector, Summary};
use crate::base::span::FileKey;
use crate::batch::policy::Reason;
use crate::checkpoint::keep::Keep;
use crate::tail::os::Os;
use crate::tail::reader::Reader;
use crate::tail::tracked::{DELETED_QUIET_SCARCE, State, Tracked};

/// Longest time that groups wait once the end is near. What is under way when the deadline comes is
/// sent again by the next start.
const LINGER_MAX: Duration = Duration::from_millis(200);

impl<O: Os, K: Keep> Collector<O, K> {
    /// Begins the drain if that is wished for, by whoever runs the process or by a file.
    pub(super) fn heed_wish(&mut self, now: Instant) {
        if !self.drain.begins(&self.os, now) {
            return;
        }
        self.handoff.begin_drain();
        self.batcher.lower_linger(LINGER_MAX);
        self.timers.set(Timer::Publish, now);
        self.discover(now);
        let files: Vec<FileKey> = self.registry.iter().map(|(file, _)| file).collect();
        for file in files {
            self.intake.mark(file);
        }
    }

    /// When there may be something to do for the stopping that nothing else calls for.
    pub(super) fn stop_deadline(&self, now: Instant) -> Option<Instant> {
        let is_idle = || !self.is_reading() && self.is_acknowledged();
        self.drain.deadline(|| self.grown_at(), is_idle, now)
    }

    /// The last growth of a file; the beginning of the drain, if none has grown since.
    fn grown_at(&self) -> Instant {
        self.drain.grown_at(self.registry.iter().map(|(_, tracked)| tracked.growth.at))
    }

    /// When the files will have been quiet for long enough, if they stay so.
    fn quiet_at(&self) -> Instant {
        self.drain.quiet_at(self.grown_at())
    }

    /// Ends the drain when all files are read to their end and have been quiet. First what is open
    /// is sealed; when all of it is acknowledged and a last look finds nothing more, the hand-off
    /// is closed.
    pub(super) fn finish_drain(&mut self, now: Instant) {
        if !self.drain.is_draining() || self.is_reading() || now < self.quiet_at() {
            return;
        }
        while let Some((_, stream)) = self.batcher.oldest() {
            if !self.handoff.has_room() {
                return;
            }
            self.seal(stream, Reason::Shutdown);
        }
        if !self.is_acknowledged() {
            return;
        }
        // Copies wait for what has ended.
        self.close_accounts();
        if self.finds_more(now) || self.ends_lines() {
            return;
        }
        self.handoff.close();
        self.drain.close();
    }

    /// Has unfinished last lines sent that no next start would send. Says whether there are any.
    fn ends_lines(&mut self) -> bool {
        let is_final = self.drain.is_final(&self.os);
        let rests = self.registry.rests_due(Duration::ZERO, self.os.now());
        let ends = |file: &FileKey| is_final || self.is_deleted(*file);
        let unfinished: BTreeSet<FileKey> = rests.into_iter().filter(ends).collect();
        unfinished.iter().for_each(|file| self.intake.mark(*file));
        let are_any = !unfinished.is_empty();
        self.drain.end_lines_of(unfinished);
        are_any
    }

    /// Whether a file is deleted by now: with a `quiet` of zero nobody has looked since the wish.
    fn is_deleted(&self, file: FileKey) -> bool {
        self.registry.get(file).is_some_and(|tracked| tracked.state == State::Deleted)
            || self.readers.get(&file).is_some_and(Reader::has_no_name_to_come)
    }

    fn is_reading(&self) -> bool {
        self.intake.is_waiting() || self.packed.is_measuring()
    }

    /// Whether nothing is on its way, or waits to be set aside.
    fn is_acknowledged(&self) -> bool {
        self.handoff.outstanding_bytes() == 0 && !self.ledger.refusals.has_unparked()
    }

    /// Looks once more: for growth that nothing told of, and for files that could not be opened.
    /// These get another chance for as long as that leads on. (A copy is taken up when its original
    /// is delivered, one archive after the other, and a file that is being written when it is
    /// whole.)
    fn finds_more(&mut self, now: Instant) -> bool {
        let (grown_at, prospect) = (self.grown_at(), self.prospect());
        // What was read asks for a discovery: the rest of a file may be in its copy.
        let is_scan_wanted = self.look.is_scan_wanted();
        let are_names_changed = self.look.are_names_changed();
        match self.drain.last_look(is_scan_wanted, are_names_changed, grown_at, &prospect, now) {
            LastLook::Done => return false,
            LastLook::Later => return true,
            LastLook::Now => {}
        }
        self.drain.on_look(grown_at);
        self.close_unpacked();
        self.close_accounts();
        let before = self.progress();
        self.discover(now);
        let (prospect, has_vanished) = (self.prospect(), self.look.unopened.has_vanished());
        self.drain.on_looked(before, &prospect, has_vanished, self.packed.is_idle(), now);
        // It may have read some of it already.
        let is_begun = self.batcher.oldest().is_some() || !self.is_acknowledged();
        is_begun
            || self.drain.has_chance(&prospect)
            || self.intake.has_turns()
            || now < self.quiet_at()
    }

    fn progress(&self) -> Progress {
        (self.counters.files_opened, self.packed.turns())
    }

    fn prospect(&self) -> Prospect {
        let is_any_unopened = self.look.unopened.count() > 0;
        Prospect { progress: self.progress(), is_any_unopened, retry_at: self.retry_at() }
    }

    /// When a look may lead on although the last one did not. By then a file that was being written
    /// is whole, or a delivered file has been quiet for long enough to give its descriptor up.
    /// (Deleted files give theirs up last.)
    fn retry_at(&self) -> Option<Instant> {
        let discovered = self.look.discovered();
        let is_closing =
            self.readers.are_short() && discovered < self.grown_at() + DELETED_QUIET_SCARCE;
        let idle_at = is_closing.then(|| discovered + IDLE_QUIET);
        self.packed.retry_at().into_iter().chain(idle_at).min()
    }

    /// Looks at the sizes a last time when the agent is told to end at once. What was written since
    /// is not delivered, and must not be taken for it.
    pub(super) fn take_stock(&mut self, now: Instant) {
        if !self.drain.is_closed() {
            self.examine_where(now, |_| true);
        }
    }

    pub(super) fn summary(&self) -> Summary {
        let unix = self.os.wall().as_secs();
        let mut summary = Summary {
            lines: self.counters.lines,
            bytes: self.counters.bytes,
            undelivered_files: self.look.unopened.count(),
            ..Summary::default()
        };
        // Of what has ended, batches may still wait here: for an id, or to be set aside.
        let is_under_way = |ended: &&Tracked| ended.watermark.offset() < ended.read_offset;
        let ended = self.registry.ended().map(|(_, ended)| ended).filter(is_under_way);
        let is_final = self.drain.is_final(&self.os);
        // Of a line that no next start sends, nothing is to be left.
        let is_left = |one: &Tracked| {
            let is_final = is_final || one.state == State::Deleted;
            one.has_undelivered_lines()
                || !one.last_error.is_empty()
                || (is_final && one.has_unfinished_line())
        };
        let open = self.registry.iter().map(|(_, tracked)| tracked);
        let (left, rest): (Vec<&Tracked>, Vec<&Tracked>) = open.partition(|one| is_left(one));
        let tracked: Vec<&Tracked> = left.into_iter().chain(ended).collect();
        for tracked in &tracked {
            let waits = unix.saturating_sub(tracked.level_unix);
            summary.undelivered_files += 1;
            summary.undelivered_bytes += tracked.size - tracked.watermark.offset();
            if summary.oldest.as_ref().is_none_or(|(_, longest)| *longest < waits) {
                summary.oldest = Some((tracked.opened.path.to_path_buf(), waits));
            }
        }
        for (_, bytes) in self.missing() {
            summary.undelivered_files += 1;
            summary.undelivered_bytes += bytes;
        }
        let doubtful = self.catalog.in_doubt(&self.registry).map(|copy| Left {
            path: copy.path.clone(),
            bytes: Some(copy.offset),
            reason: "it equals a file that nobody touches: it is its copy, or one of its own"
                .into(),
        });
        let doubtful: Vec<Left> = doubtful.collect();
        summary.undelivered_files += doubtful.len();
        summary.undelivered_bytes += doubtful.iter().filter_map(|left| left.bytes).sum::<u64>();
        let beyond = self
            .look
            .notices
            .beyond()
            .left(&self.rules.plan.collection(self.rules.collection).paths);
        summary.undelivered_files += self.look.notices.beyond().count();
        let left = tracked.into_iter().map(left_of).chain(beyond).chain(self.look.unopened.first());
        let left = left.chain(doubtful);
        summary.left = left::named(left.chain(self.missing().map(|(left, _)| left)));
        let unfinished =
            || rest.iter().filter(|one| one.has_unfinished_line()).map(|one| left_of(one));
        summary.unfinished_files = unfinished().count();
        summary.unfinished_bytes = unfinished().filter_map(|left| left.bytes).sum();
        summary.unfinished = left::named(unfinished());
        summary
    }
}

/// What is left of a file that is open, and why.
fn left_of(tracked: &Tracked) -> Left {
    let reason = if !tracked.last_error.is_empty() {
        tracked.last_error.clone().into()
    } else if tracked.has_unfinished_line() {
        "its last line has no line end".into()
    } else if tracked.read_offset < tracked.size {
        "not all of it has been read".into()
    } else {
        "the last of it was not acknowledged".into()
    };
    let bytes = Some(tracked.size - tracked.watermark.offset());
    Left { path: tracked.opened.path.to_path_buf(), bytes, reason }
}
