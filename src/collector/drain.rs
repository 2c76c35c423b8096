//! How far the stopping has come, and what a drain is waiting for.
//!
//! [`Drain`] owns the stage and the wish, and decides when a drain begins, looks again and ends. What
//! is done for that is in `stopping`. It asks the system for one thing: whether the file of
//! `exit_when` is there.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::base::span::FileKey;
use crate::tail::os::Os;

/// How often the file that ends the agent is looked for.
const EXIT_PERIOD: Duration = Duration::from_millis(500);

/// How often in a row the agent looks again for a file that is gone whenever it is to be opened.
const VANISHED_MAX: u8 = 5;

/// When a drain begins by itself, and when it may end.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// How long no file must have grown before a drain may end.
    pub quiet: Duration,
    /// Whether a drain that a signal has begun sends unfinished last lines too.
    pub sends_partial_lines: bool,
    /// Path at which something must be for a drain to begin.
    pub exit_when: Option<PathBuf>,
}

/// How far the stopping has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Running,
    /// The collector reads to the end, and waits until all of it is acknowledged.
    Draining,
    /// All is delivered, and nothing more is read.
    Closed,
}

/// What whoever runs the process has asked for, the lesser first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Wish {
    /// To go on.
    None,
    /// To deliver what is there, and to end then.
    Drain,
    /// To end at once.
    End,
}

/// How far the opening of files has come: files that were opened, turns of compressed ones. What is
/// not open has another chance whenever it moves.
pub(super) type Progress = (u64, u64);

/// What there is to hope for from one more look.
pub(super) struct Prospect {
    pub(super) progress: Progress,
    /// Whether files were found that are not open.
    pub(super) is_any_unopened: bool,
    /// When a look may lead on although the last one did not.
    pub(super) retry_at: Option<Instant>,
}

/// What a drain does whose files are quiet and delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LastLook {
    /// Nothing, because there is no more to be found.
    Done,
    /// Wait for the time of the next look.
    Later,
    /// Look once more.
    Now,
}

/// The state of the stopping.
pub(super) struct Drain {
    options: Options,
    stage: Stage,
    wish: Wish,
    /// When the file of `exit_when` is looked for next.
    exit_look_at: Instant,
    /// Whether the file of `exit_when` was there.
    is_exit_met: bool,
    /// When the drain began.
    asked_at: Instant,
    /// The growth after which a last look was taken.
    looked_after: Option<Instant>,
    /// How far the opening of files had come when a look for more of them led to nothing.
    fruitless: Option<Progress>,
    /// When files that could not be opened are looked for again.
    look_at: Option<Instant>,
    /// Looks in a row in which a file was gone when it was to be opened.
    vanished: u8,
    /// Files whose unfinished last lines are to be sent with their next reading.
    unfinished: BTreeSet<FileKey>,
}

impl Drain {
    pub(super) fn new(options: Options, now: Instant) -> Self {
        Self {
            options,
            stage: Stage::Running,
            wish: Wish::None,
            exit_look_at: now,
            is_exit_met: false,
            asked_at: now,
            looked_after: None,
            fruitless: None,
            look_at: None,
            vanished: 0,
            unfinished: BTreeSet::new(),
        }
    }

    // === the stage

    /// Takes what whoever runs the process asks for. What was asked for is not taken back.
    pub(super) fn on_wish(&mut self, drains: bool, ends: bool) {
        let wish = match (drains, ends) {
            (_, true) => Wish::End,
            (true, false) => Wish::Drain,
            (false, false) => Wish::None,
        };
        self.wish = self.wish.max(wish);
    }

    pub(super) fn is_running(&self) -> bool {
        self.stage == Stage::Running
    }

    pub(super) fn is_draining(&self) -> bool {
        self.stage == Stage::Draining
    }

    /// Whether all is delivered, and nothing more is read.
    pub(super) fn is_closed(&self) -> bool {
        self.stage == Stage::Closed
    }

    /// Whether the collector is told to end at once.
    pub(super) fn is_abandoned(&self) -> bool {
        self.wish == Wish::End
    }

    /// Whether something is asked for that has not begun.
    pub(super) fn is_wish_new(&self) -> bool {
        self.is_abandoned() || (self.wish == Wish::Drain && self.is_running())
    }

    /// Whether files are looked at: while running, and while they may still be written.
    pub(super) fn is_looking(&self) -> bool {
        match self.stage {
            Stage::Running => true,
            Stage::Draining => !self.options.quiet.is_zero(),
            Stage::Closed => false,
        }
    }

    /// Begins the drain if that is wished for, by whoever runs the process or by a file. Returns
    /// whether it begins now.
    pub(super) fn begins(&mut self, os: &impl Os, now: Instant) -> bool {
        if !self.is_running() || !(self.wish > Wish::None || self.is_exit_there(os, now)) {
            return false;
        }
        self.stage = Stage::Draining;
        self.asked_at = now;
        true
    }

    /// Ends the drain: all is delivered.
    pub(super) fn close(&mut self) {
        self.stage = Stage::Closed;
    }

    /// Whether the file that ends the agent is there; not asked more often than need be.
    fn is_exit_there(&mut self, os: &impl Os, now: Instant) -> bool {
        let Some(path) = self.options.exit_when.as_ref().filter(|_| self.exit_look_at <= now)
        else {
            return false;
        };
        self.exit_look_at = now + EXIT_PERIOD;
        let is_there = os.lstat(path).is_ok();
        self.is_exit_met = is_there;
        if is_there {
            tracing::info!(
                file = %path.display(),
                "stopping: what LOGFERRY_EXIT_WHEN names is there; delivering what is left"
            );
        }
        is_there
    }

    // === times

    /// The last growth of a file; the beginning of the drain, if none has `grown` since.
    pub(super) fn grown_at(&self, grown: impl Iterator<Item = Instant>) -> Instant {
        grown.fold(self.asked_at, Instant::max)
    }

    /// When the files will have been quiet for long enough, if they stay so.
    pub(super) fn quiet_at(&self, grown_at: Instant) -> Instant {
        grown_at + self.options.quiet
    }

    /// When there may be something to do for the stopping that nothing else calls for. `grown_at` and
    /// `is_idle` are asked only in a drain; what is read, or on its way, has wake-ups of its own.
    pub(super) fn deadline(
        &self,
        grown_at: impl FnOnce() -> Instant,
        is_idle: impl FnOnce() -> bool,
        now: Instant,
    ) -> Option<Instant> {
        match self.stage {
            Stage::Running => self.options.exit_when.as_ref().map(|_| self.exit_look_at),
            Stage::Draining => {
                let quiet_at = self.quiet_at(grown_at());
                let is_idle = is_idle();
                let look_at = self.look_at.filter(|_| is_idle);
                let look_at = look_at.map(|at| at.max(quiet_at));
                Some(quiet_at).filter(|at| *at > now).into_iter().chain(look_at).min()
            }
            Stage::Closed => None,
        }
    }

    // === last looks

    /// Whether one more look may lead to a file that is not open.
    pub(super) fn has_chance(&self, prospect: &Prospect) -> bool {
        let is_fruitless = self.fruitless == Some(prospect.progress);
        prospect.is_any_unopened && (!is_fruitless || prospect.retry_at.is_some())
    }

    /// Whether a look follows after the growth of `grown_at`. One does if a discovery is wanted, or if
    /// names have changed or a file has grown since the last look and growth is looked for.
    pub(super) fn last_look(
        &self,
        is_scan_wanted: bool,
        are_names_changed: bool,
        grown_at: Instant,
        prospect: &Prospect,
        now: Instant,
    ) -> LastLook {
        let is_news = are_names_changed || self.looked_after != Some(grown_at);
        let is_unsure = is_scan_wanted || (self.is_looking() && is_news);
        if !(is_unsure || self.has_chance(prospect)) {
            return LastLook::Done;
        }
        let is_early = self.look_at.is_some_and(|at| now < at);
        if !is_unsure && is_early { LastLook::Later } else { LastLook::Now }
    }

    /// Notes that a last look begins after the growth of `grown_at`.
    pub(super) fn on_look(&mut self, grown_at: Instant) {
        self.looked_after = Some(grown_at);
    }

    /// Decides whether and when another look for more files follows. The look has begun with the
    /// progress of `before`; `is_idle` says that no compressed file has its turn.
    pub(super) fn on_looked(
        &mut self,
        before: Progress,
        prospect: &Prospect,
        has_vanished: bool,
        is_idle: bool,
        now: Instant,
    ) {
        self.vanished = if has_vanished { self.vanished.saturating_add(1) } else { 0 };
        // What was renamed just then is found under its new name.
        let is_renamed = (1..=VANISHED_MAX).contains(&self.vanished);
        let is_fruitless = prospect.progress == before && is_idle && !is_renamed;
        self.fruitless = is_fruitless.then_some(before);
        let next = if is_fruitless { prospect.retry_at } else { Some(now) };
        self.look_at = next.filter(|_| self.has_chance(prospect));
    }

    // === unfinished last lines

    /// Whether no start is to be expected after this stop: the app has said that it has ended, or the
    /// settings say so.
    pub(super) fn is_final(&self, os: &impl Os) -> bool {
        let is_there = |path: &PathBuf| os.lstat(path).is_ok();
        self.options.sends_partial_lines
            || self.is_exit_met
            || self.options.exit_when.as_ref().is_some_and(is_there)
    }

    /// Has the unfinished last lines of these files sent with their next readings, and of no others.
    pub(super) fn end_lines_of(&mut self, files: BTreeSet<FileKey>) {
        self.unfinished = files;
    }

    /// Whether the unfinished last line of a file is to be sent with this reading.
    pub(super) fn ends_line_of(&mut self, file: FileKey) -> bool {
        self.unfinished.remove(&file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tail::os::kernel::Kernel;

    fn begun(quiet: Duration, now: Instant) -> Drain {
        let mut drain = Drain::new(Options { quiet, ..Options::default() }, now);
        drain.on_wish(true, false);
        assert!(drain.is_wish_new() && drain.begins(&Kernel, now));
        drain
    }

    fn prospect(progress: Progress) -> Prospect {
        Prospect { progress, is_any_unopened: true, retry_at: None }
    }

    #[test]
    fn a_wish_is_not_taken_back() {
        let now = crate::base::clock::now();
        let mut drain = Drain::new(Options::default(), now);
        assert!(!drain.begins(&Kernel, now), "nobody asked");

        drain.on_wish(true, true);
        drain.on_wish(false, false);

        assert!(drain.is_abandoned() && drain.begins(&Kernel, now));
        assert!(!drain.begins(&Kernel, now), "it has begun");
    }

    #[test]
    fn a_drain_looks_once_after_each_growth() {
        let now = crate::base::clock::now();
        let mut drain = begun(Duration::from_secs(1), now);
        let nothing = Prospect { is_any_unopened: false, ..prospect((1, 0)) };
        let look = |drain: &Drain, at| drain.last_look(false, false, at, &nothing, now);

        assert_eq!(look(&drain, now), LastLook::Now);
        drain.on_look(now);
        assert_eq!(look(&drain, now), LastLook::Done);
        assert_eq!(look(&drain, now + EXIT_PERIOD), LastLook::Now, "a file has grown");
    }

    #[test]
    fn files_that_could_not_be_opened_are_looked_for_as_long_as_that_leads_on() {
        let now = crate::base::clock::now();
        let mut drain = begun(Duration::ZERO, now);
        let next = |drain: &Drain, prospect| drain.last_look(false, false, now, &prospect, now);
        assert_eq!(next(&drain, prospect((1, 0))), LastLook::Now);

        drain.on_looked((1, 0), &prospect((2, 0)), false, true, now);
        assert_eq!(next(&drain, prospect((2, 0))), LastLook::Now, "one was opened");
        drain.on_looked((2, 0), &prospect((2, 0)), true, true, now);
        assert_eq!(next(&drain, prospect((2, 0))), LastLook::Now, "one was renamed");

        drain.on_looked((2, 0), &prospect((2, 0)), false, true, now);
        assert_eq!(next(&drain, prospect((2, 0))), LastLook::Done);
        let later = Prospect { retry_at: Some(now + EXIT_PERIOD), ..prospect((2, 0)) };
        drain.on_looked((2, 0), &later, false, true, now);
        assert_eq!(next(&drain, later), LastLook::Later);
    }
}
