//! The loop, as steps and a wait.
//!
//! [`Collector::step`] does one step at the time that it is told; [`Collector::wait`] says until when
//! there is nothing to do. [`Collector::run`] is these two, with the clock and poll(2). The agent may
//! die between any two steps: what a step has done, the next start finds or does again.

use std::time::{Duration, Instant};

use super::timers::Timer;
use super::{Collector, Summary};
use crate::checkpoint::keep::Keep;
use crate::tail::os::{Os, Times};

/// How often events are glanced at between two looks while files are born.
const GLANCE_PERIOD: Duration = Duration::from_millis(5);

/// One step of the loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Takes what the sender and the process say: acknowledgements, a wish to stop.
    Mail,
    /// Looks at what events and the clock say may have changed.
    Look,
    /// Reads files a piece at a time, seals groups and hands them over.
    Turn,
    /// Saves the checkpoint, publishes the report, gives memory back.
    Save,
}

impl Step {
    /// All steps, in the order of the loop.
    pub const ALL: [Self; 4] = [Self::Mail, Self::Look, Self::Turn, Self::Save];
}

/// How long there is nothing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait {
    /// When the wait ends; for ever without a time.
    pub until: Option<Instant>,
    /// Whether an event ends the wait, too. Mail always does.
    pub sees_events: bool,
}

impl<O: Os, K: Keep> Collector<O, K> {
    /// Runs until it is told to stop and has done so.
    #[must_use]
    pub fn run(mut self) -> Summary {
        self.start();
        loop {
            let at = self.os.times();
            for step in Step::ALL {
                if let Some(summary) = self.step(step, at) {
                    return summary;
                }
            }
            let at = self.os.times();
            let wait = self.wait(at);
            self.sleep(wait, at.now);
        }
    }

    /// Starts the run; to be called once, before the first step.
    pub fn start(&mut self) {
        self.expect_missed();
    }

    /// Does one step; the last one returns how it ended.
    #[must_use]
    pub fn step(&mut self, step: Step, at: Times) -> Option<Summary> {
        let now = at.now;
        self.said.begin(now);
        match step {
            Step::Mail => self.take_mail(now),
            Step::Look if self.drain.is_looking() && !self.timers.holds(Timer::TurnFrom, now) => {
                let written_from = self.look.on_look(now);
                self.intake.looked(written_from);
                self.take_look(now);
            }
            Step::Look if self.drain.is_looking() && self.expects_births(now) => self.glance(now),
            Step::Look => {}
            Step::Turn => {
                self.turn(now);
                self.finish_drain(now);
                self.close_accounts();
                if self.drain.is_abandoned() {
                    self.take_stock(now);
                }
            }
            Step::Save => return self.keep(now),
        }
        None
    }

    fn take_mail(&mut self, now: Instant) {
        let mail = self.handoff.take_mail();
        let has_acks = !mail.acks.is_empty();
        self.on_mail(mail, now);
        if has_acks {
            self.on_acknowledged(now);
        }
        if self.intake.reload_quota(&self.os, &mut self.timers, now) {
            self.touch(now);
        }
        self.heed_wish(now);
    }

    fn keep(&mut self, now: Instant) -> Option<Summary> {
        let is_delivered = self.drain.is_closed()
            && self.handoff.outstanding_bytes() == 0
            && !self.ledger.refusals.has_unparked();
        let is_over = self.drain.is_abandoned() || is_delivered;
        if is_over {
            // What was refused may have come again until now.
            self.handoff.close();
            self.note_missing(true, now);
        }
        self.save(now, is_over);
        self.publish(now, is_over);
        self.give_back(now);
        self.said.sum_up(now);
        if is_over {
            self.said.sum_up_all(now);
        }
        is_over.then(|| self.summary())
    }

    /// How long there is nothing to do, if neither mail nor an event comes.
    #[must_use]
    pub fn wait(&self, at: Times) -> Wait {
        let now = at.now;
        if self.drain.is_wish_new() {
            // The mail that says so was taken in the middle of something else.
            return Wait { until: Some(now), sees_events: false };
        }
        let is_reading = !self.drain.is_closed();
        let is_paused = self.timers.is_set(Timer::ReadFrom);
        let can_read = is_reading
            && !is_paused
            && !self.intake.is_blocked()
            && !self.ledger.refusals.has_unparked();
        let can_measure = is_reading && !is_paused && self.packed.is_measuring();
        if can_measure || (can_read && self.intake.has_turns()) {
            return Wait { until: Some(now), sees_events: false };
        }
        let timers = &self.timers;
        let mut deadlines = vec![timers.get(Timer::Durable), timers.get(Timer::Publish)];
        deadlines.extend([
            self.intake.trim_deadline(),
            self.said.deadline(),
            self.stop_deadline(now),
        ]);
        if self.ledger.is_moved() {
            deadlines.push(Some(timers.free_at(&[Timer::SaveFrom], now)));
        }
        if is_reading {
            deadlines.push(timers.get(Timer::ReadFrom));
        }
        if can_read {
            deadlines.push(self.registry.rest_deadline(self.rules.tail.partial_line_timeout));
            deadlines.push(self.intake.filled_deadline());
        }
        if self.handoff.has_room() {
            deadlines.push(self.batcher.deadline());
        }
        if !self.drain.is_looking() {
            return Wait { until: deadlines.into_iter().flatten().min(), sees_events: false };
        }
        deadlines.push(Some(self.look.deadline(timers, now)));
        let sees_events = !timers.holds(Timer::TurnFrom, now) && self.watch.channel().is_some();
        // A turn that is near is waited for without looking at events: they would only wake it.
        let waits_for_turn = timers.holds(Timer::TurnFrom, now) && self.watch.channel().is_some();
        if waits_for_turn || (self.catalog.deferred() > 0 && !is_paused) {
            deadlines.push(Some(timers.free_at(&[Timer::TurnFrom], now)));
        }
        if waits_for_turn && self.expects_births(now) {
            deadlines.push(Some(now + GLANCE_PERIOD));
        }
        Wait { until: deadlines.into_iter().flatten().min(), sees_events }
    }

    /// Notes that nothing has happened since the look, as is asked before the sleep: see `News`.
    pub fn on_rest(&mut self) {
        self.look.on_rest();
    }

    /// Sleeps for as long as a wait says.
    fn sleep(&mut self, wait: Wait, now: Instant) {
        let left = wait.until.map(|until| until.saturating_duration_since(now));
        if left == Some(Duration::ZERO) && !wait.sees_events {
            return;
        }
        if wait.sees_events {
            if self.os.wait(self.handoff.wake_fd(), self.watch.channel(), Some(Duration::ZERO)) {
                return;
            }
            self.on_rest();
        }
        let watch = self.watch.channel().filter(|_| wait.sees_events);
        self.os.wait(self.handoff.wake_fd(), watch, left);
    }

    /// Sleeps until there is mail, but no longer than `time`.
    pub(super) fn doze(&self, time: Duration) {
        self.os.wait(self.handoff.wake_fd(), None, Some(time));
    }
}
