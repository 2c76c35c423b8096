//! Keeps the sender's thread within the CPU limit, whatever its peers make it read.
//!
//! The collector rests so that the process keeps to its limit; it has no say in what arrives. A peer
//! that answers a request with interim responses, with headers that never end or with TLS records
//! without a byte in them keeps this thread busy for as long as an attempt may take. So the thread is
//! charged what it uses, and rests by itself: for moments, because probes are answered here too. Where
//! moments are not enough, the attempts that have gone on for a while are to be cut off.
//!
//! There are two accounts. The thread rests by that of all it uses; attempts are cut off by that of
//! what is left when the admin port's requests are taken off, because no peer is to blame for those.

use std::time::{Duration, Instant};

use crate::base::clock;
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
    all: Pacer,
    peers: Pacer,
    /// What the peers may have used.
    peers_used: Duration,
    /// The limit that the accounts are kept for.
    cores: f64,
    looked_at: Instant,
    /// CPU time of the thread then.
    used: Duration,
    /// Of this, what the admin port had used.
    admin_used: Duration,
    is_busy: bool,
    /// Times in a row that attempts were cut off.
    cuts: u32,
    /// When that was counted last.
    cut_at: Option<Instant>,
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
    pub(super) fn new(admin_used: Duration, now: Instant) -> Self {
        let used = clock::thread_cpu();
        Self {
            all: Pacer::new(1.0, used, now),
            peers: Pacer::new(1.0, Duration::ZERO, now),
            peers_used: Duration::ZERO,
            cores: 1.0,
            looked_at: now,
            used,
            admin_used,
            is_busy: false,
            cuts: 0,
            cut_at: None,
        }
    }

    /// When it wants to look again.
    pub(super) fn look_at(&self) -> Instant {
        self.looked_at + if self.is_busy { LOOK_INTERVAL_BUSY } else { LOOK_INTERVAL }
    }

    /// An attempt has come through.
    pub(super) fn on_delivered(&mut self) {
        self.cuts = 0;
    }

    /// An attempt that was `started` then was cut off; returns how long the peer is to be left alone.
    ///
    /// All that were under way when one was cut off count as one time.
    pub(super) fn on_cut(&mut self, started: Instant, now: Instant) -> Duration {
        if self.cut_at.is_none_or(|at| started > at) {
            self.cuts = (self.cuts + 1).min(LEFT_ALONE_TIMES_MAX);
            self.cut_at = Some(now);
        }
        LEFT_ALONE * self.cuts.max(1)
    }

    /// Looks, and lets the thread rest if it has used too much of a limit of so many cores.
    /// `admin_used` is what the admin port's requests have used since the start.
    ///
    /// It blocks the runtime: that is what keeps the connections from being read.
    pub(super) fn look(&mut self, cores: f64, admin_used: Duration) -> Used {
        let now = clock::now();
        if cores <= 0.0 {
            // No limit is known yet.
            self.looked_at = now;
            return Used::Fair;
        }
        if (cores - self.cores).abs() > f64::EPSILON {
            self.all.set_cores(cores * SHARE);
            self.peers.set_cores(cores * SHARE);
            self.cores = cores;
        }
        let used = clock::thread_cpu();
        let by_admin = admin_used.saturating_sub(self.admin_used);
        // Taken off bit by bit: what was put too high for the admin port is no credit for later.
        let by_peers = used.saturating_sub(self.used).saturating_sub(by_admin);
        self.peers_used += by_peers;
        let debt = self.peers.on_turn(self.peers_used, now);
        let rest = self.all.on_turn(used, now);
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
        self.admin_used = admin_used;
        // While old debt is made up for, nothing new is anybody's doing.
        if debt > DEBT_MAX && by_peers > DEBT_MAX.mul_f64(cores / 2.0) {
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
        let mut brake = Brake::new(Duration::ZERO, clock::now());
        burn(Duration::from_millis(200));
        let started = clock::now();

        assert_eq!(brake.look(0.1, Duration::ZERO), Used::TooMuch);

        assert!(clock::now() - started >= REST_MAX, "it rested");
        assert!(brake.look_at() <= clock::now() + LOOK_INTERVAL_BUSY, "it looks more often");
    }

    #[test]
    fn a_thread_that_keeps_to_its_share_does_not_rest() {
        let mut brake = Brake::new(Duration::ZERO, clock::now());
        burn(LOOK_INTERVAL);

        assert_eq!(brake.look(8.0, Duration::ZERO), Used::Fair);
        assert!(!brake.is_busy);
    }

    #[test]
    fn what_the_admin_port_uses_is_rested_for_and_held_against_nobody() {
        let mut brake = Brake::new(Duration::ZERO, clock::now());
        burn(Duration::from_millis(200));
        assert_eq!(brake.look(0.1, Duration::from_millis(190)), Used::Fair);
        assert!(brake.is_busy, "it rested all the same");

        burn(Duration::from_millis(300));
        assert_eq!(brake.look(0.1, Duration::from_millis(190)), Used::TooMuch, "that was a peer");
    }

    #[test]
    fn attempts_that_are_cut_off_together_count_once() {
        let began = clock::now();
        let at = |seconds| began + Duration::from_secs(seconds);
        let mut brake = Brake::new(Duration::ZERO, began);
        // The last ones are cut off by a later look.
        for cut_at in [1, 1, 1, 2, 2] {
            assert_eq!(brake.on_cut(began, at(cut_at)), LEFT_ALONE);
        }
        assert_eq!(brake.on_cut(at(21), at(22)), LEFT_ALONE * 2);
        assert_eq!(brake.on_cut(at(21), at(23)), LEFT_ALONE * 2);
        brake.on_delivered();
        assert_eq!(brake.on_cut(at(21), at(24)), LEFT_ALONE, "one of them came through");
        for again in 2..9 {
            let times = brake.on_cut(at(again * 100), at(again * 100 + 1));
            assert!(times <= LEFT_ALONE * LEFT_ALONE_TIMES_MAX);
        }
        assert_eq!(brake.on_cut(at(1000), at(1001)), LEFT_ALONE * LEFT_ALONE_TIMES_MAX);
    }
}
