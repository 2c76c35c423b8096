//! Every moment that the loop waits for, in one table.
//!
//! Pure. A timer is either *due* from its moment on, and something happens then; or it *holds* something
//! back until its moment. One that is not set is never due, and holds nothing back.

use std::time::Instant;

/// What a moment is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Timer {
    /// Due: a discovery, whatever the notifications say.
    Scan,
    /// Holds back: discoveries, whatever they are wanted for.
    ScanFrom,
    /// Holds back: discoveries for names that have changed.
    NamesFrom,
    /// Holds back: discoveries for files that wait for descriptors, when batches are acknowledged.
    ShortFrom,
    /// Holds back: looks at events, and turns of reading unless there is a backlog.
    TurnFrom,
    /// Holds back: reading, because of the limits. Set while it does.
    ReadFrom,
    /// Due: a save through to the disk.
    Durable,
    /// Holds back: other saves, so that saving many files takes a small part of the time.
    SaveFrom,
    /// Due: a report.
    Publish,
    /// Due: the limits of the container are read again, when the loop is awake anyway.
    Quota,
}

const COUNT: usize = Timer::Quota as usize + 1;

/// The moment of each timer that is set.
#[derive(Clone, Debug, Default)]
pub(super) struct Timers([Option<Instant>; COUNT]);

impl Timers {
    pub(super) fn get(&self, timer: Timer) -> Option<Instant> {
        self.0[timer as usize]
    }

    pub(super) fn is_set(&self, timer: Timer) -> bool {
        self.get(timer).is_some()
    }

    pub(super) fn set(&mut self, timer: Timer, at: Instant) {
        self.0[timer as usize] = Some(at);
    }

    pub(super) fn clear(&mut self, timer: Timer) {
        self.0[timer as usize] = None;
    }

    /// Sets a timer unless it is set.
    pub(super) fn start(&mut self, timer: Timer, at: Instant) {
        self.0[timer as usize].get_or_insert(at);
    }

    /// Moves a timer to an earlier moment, if it is set to a later one or not at all.
    pub(super) fn advance(&mut self, timer: Timer, at: Instant) {
        self.set(timer, self.get(timer).map_or(at, |before| before.min(at)));
    }

    /// Moves a timer to a later moment, if it is set to an earlier one or not at all.
    pub(super) fn defer(&mut self, timer: Timer, at: Instant) {
        self.set(timer, self.get(timer).map_or(at, |before| before.max(at)));
    }

    pub(super) fn is_due(&self, timer: Timer, now: Instant) -> bool {
        self.get(timer).is_some_and(|at| at <= now)
    }

    pub(super) fn holds(&self, timer: Timer, now: Instant) -> bool {
        self.get(timer).is_some_and(|at| now < at)
    }

    /// When none of these timers holds back any more what is wanted now; `now` if none does.
    pub(super) fn free_at(&self, timers: &[Timer], now: Instant) -> Instant {
        timers.iter().filter_map(|timer| self.get(*timer)).fold(now, Instant::max)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn one_that_is_not_set_is_never_due_and_holds_nothing_back() {
        let now = crate::base::clock::now();
        let timers = Timers::default();

        assert!(!timers.is_due(Timer::Quota, now) && !timers.holds(Timer::Scan, now));
        assert_eq!(timers.free_at(&[Timer::ScanFrom, Timer::TurnFrom], now), now);
    }

    #[test]
    fn one_is_due_from_its_moment_on_and_holds_back_until_then() {
        let now = crate::base::clock::now();
        let [soon, later] = [1, 2].map(|seconds| now + Duration::from_secs(seconds));
        let mut timers = Timers::default();
        timers.set(Timer::Scan, soon);

        assert!(!timers.is_due(Timer::Scan, now) && timers.holds(Timer::Scan, now));
        assert!(timers.is_due(Timer::Scan, soon) && !timers.holds(Timer::Scan, soon));

        timers.start(Timer::Scan, later);
        assert_eq!(timers.get(Timer::Scan), Some(soon));
        timers.defer(Timer::Scan, later);
        timers.set(Timer::TurnFrom, soon);
        assert_eq!(timers.free_at(&[Timer::TurnFrom, Timer::Scan], now), later);
        timers.advance(Timer::Scan, now);
        assert_eq!(timers.get(Timer::Scan), Some(now));
        timers.clear(Timer::Scan);
        assert!(!timers.is_set(Timer::Scan));
    }
}
