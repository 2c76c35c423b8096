//! Keeps the sender's thread within the CPU limit, whatever its peers make it read.
//!
//! The collector rests so that the process keeps to its limit; it has no say in what arrives. A peer
//! that answers a request with interim responses, with headers that never end or with TLS records
//! without a byte in them keeps this thread busy for as long as an attempt may take. So the thread is
//! charged what it uses, and rests by itself: for moments, because probes are answered here too. Where
//! moments are not enough, the attempts that have gone on for a while are to be cut off.

use std::time::{Duration, Instant};

use crate::clock;
use crate::limit::pacer::Pacer;

/// How often it looks while requests are under way; and while the thread uses too much.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
const LOOK_INTERVAL_BUSY: Duration = Duration::from_millis(10);

/// Longest rest at once: a probe waits no longer for its answer.
const REST_MAX: Duration = Duration::from_millis(250);

/// What would take longer than this to make up for is somebody else's doing.
const DEBT_MAX: Duration = Duration::from_secs(1);

/// How long a peer is left alone that has been cut off, for each time in a row; and at most.
const LEFT_ALONE: Duration = Duration::from_secs(20);
const LEFT_ALONE_TIMES_MAX: u32 = 4;

/// What the collector needs in order to see what is going on.
const SHARE: f64 = 0.9;

/// An attempt that is cut off has had at least so long.
pub(super) const CUT_AGE_MIN: Duration = Duration::from_millis(500);

/// The account of this thread.
#[derive(Debug)]
pub(super) struct Brake {
    pacer: Pacer,
    /// The limit that the account is kept for.
    cores: f64,
    looked_at: Instant,
    /// CPU time of the thread then.
    used: Duration,
    is_busy: bool,
    /// Attempts that were cut off since one came through.
    cuts: u32,
}

/// What a look has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Used {
    /// No more than it may.
    Fair,
    /// More than can be made up for by resting.
    TooMuch,
}

impl Brake {
    pub(super) fn new(now: Instant) -> Self {
        let used = clock::thread_cpu();
        let pacer = Pacer::new(1.0, used, now);
        Self { pacer, cores: 1.0, looked_at: now, used, is_busy: false, cuts: 0 }
    }

    /// When it wants to look again.
    pub(super) fn look_at(&self) -> Instant {
        self.looked_at + if self.is_busy { LOOK_INTERVAL_BUSY } else { LOOK_INTERVAL }
    }

    /// An attempt has come through.
    pub(super) fn on_delivered(&mut self) {
        self.cuts = 0;
    }

    /// An attempt was cut off; returns how long the peer is to be left alone.
    pub(super) fn on_cut(&mut self) -> Duration {
        self.cuts = (self.cuts + 1).min(LEFT_ALONE_TIMES_MAX);
        LEFT_ALONE * self.cuts
    }

    /// Looks, and lets the thread rest if it has used too much of a limit of so many cores.
    ///
    /// It blocks the runtime: that is what keeps the connections from being read.
    pub(super) fn look(&mut self, cores: f64) -> Used {
        let now = clock::now();
        if cores <= 0.0 {
            // No limit is known yet.
            self.looked_at = now;
            return Used::Fair;
        }
        if (cores - self.cores).abs() > f64::EPSILON {
            self.pacer.set_cores(cores * SHARE);
            self.cores = cores;
        }
        let used = clock::thread_cpu();
        let rest = self.pacer.on_turn(used, now);
        let spent = used.saturating_sub(self.used);
        self.is_busy = !rest.is_zero();
        if self.is_busy {
            #[expect(
                clippy::disallowed_methods,
                reason = "nothing may run on this thread meanwhile"
            )]
            std::thread::sleep(rest.min(REST_MAX));
        }
        self.looked_at = clock::now();
        self.used = used;
        // While old debt is made up for, nothing new is anybody's doing.
        if rest > DEBT_MAX && spent > DEBT_MAX.mul_f64(cores / 2.0) {
            Used::TooMuch
        } else {
            Used::Fair
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn burn(cpu: Duration) {
        let until = clock::thread_cpu() + cpu;
        while clock::thread_cpu() < until {}
    }

    #[test]
    fn a_thread_that_uses_too_much_rests_and_says_so() {
        let mut brake = Brake::new(clock::now());
        burn(Duration::from_millis(200));
        let started = clock::now();

        assert_eq!(brake.look(0.1), Used::TooMuch);

        assert!(clock::now() - started >= REST_MAX, "it rested");
        assert!(brake.look_at() <= clock::now() + LOOK_INTERVAL_BUSY, "it looks more often");
    }

    #[test]
    fn a_thread_that_keeps_to_its_share_does_not_rest() {
        let mut brake = Brake::new(clock::now());
        burn(LOOK_INTERVAL);

        assert_eq!(brake.look(8.0), Used::Fair);
        assert!(!brake.is_busy);
    }
}
