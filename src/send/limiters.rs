//! The three reasons to hold back: the network, the project's quota, the shard's quota.
//!
//! Pure. They have the same rules ([`super::limiter`]) and are apart from each other, so that a
//! quota does not look like an outage, nor the quota of a shard like that of the project.
//!
//! | what came back             | network | project's quota | shard's quota |
//! |----------------------------|---------|-----------------|---------------|
//! | it is stored, or refused   | success | success         | success       |
//! | the project's quota is up  | success | failure         |               |
//! | the shard's quota is up    | success |                 | failure       |
//! | any other failure          | failure |                 |               |
//! | the date was wrong         |         |                 |               |
//!
//! A request starts when all three let it.

use std::time::Instant;

use super::limiter::{Failed, Limiter, Ready};
use super::verdict::FailureKind;
use super::window::Era;

/// The three limiters of a destination.
#[derive(Clone, Debug)]
pub struct Limiters {
    network: Limiter,
    project: Limiter,
    shard: Limiter,
}

/// The eras of the limiters that a request was started in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Eras {
    network: Era,
    project: Era,
    shard: Era,
}

impl Limiters {
    /// All gates open, all windows at 1.
    #[must_use]
    pub fn new(size_max: usize) -> Self {
        let (network, quota) = (Limiter::new(size_max), Limiter::of_quota(size_max));
        Self { network, project: quota.clone(), shard: quota }
    }

    /// When a request may start while so many are under way.
    #[must_use]
    pub fn ready(&self, in_flight: usize) -> Ready {
        if in_flight >= self.network.window_max() {
            return Ready::AfterResult;
        }
        // A probe does not wait for what hangs.
        let in_flight = if self.are_open() { in_flight } else { 0 };
        let ready = self.all().map(|limiter| limiter.ready(in_flight));
        ready.into_iter().fold(Ready::Now, Ready::max)
    }

    /// Whether all gates are open; otherwise the next request is a probe.
    #[must_use]
    pub fn are_open(&self) -> bool {
        self.all().into_iter().all(Limiter::is_open)
    }

    /// Requests that may be under way now.
    #[must_use]
    pub fn window(&self) -> usize {
        self.all().map(Limiter::window).into_iter().fold(usize::MAX, usize::min)
    }

    /// A request starts.
    pub fn on_start(&mut self, now: Instant) -> Eras {
        Eras {
            network: self.network.on_start(now),
            project: self.project.on_start(now),
            shard: self.shard.on_start(now),
        }
    }

    /// A request has come through; returns whether that has opened a gate.
    pub fn on_success(&mut self, eras: Eras, now: Instant) -> bool {
        let opened = [
            self.network.on_success(eras.network, now),
            self.project.on_success(eras.project, now),
            self.shard.on_success(eras.shard, now),
        ];
        opened.contains(&true)
    }

    /// A request has failed; returns whether that has opened a gate, as the refusal by a quota
    /// does with that of the network.
    pub fn on_failure(
        &mut self,
        eras: Eras,
        failed: Failed,
        now: Instant,
        rng: &mut fastrand::Rng,
    ) -> bool {
        let Self { network, project, shard } = self;
        match failed.kind {
            FailureKind::Quota => {
                shard.on_silence(eras.shard, now);
                project.on_failure(eras.project, failed, now, rng);
                network.on_success(eras.network, now)
            }
            FailureKind::ShardQuota => {
                project.on_silence(eras.project, now);
                shard.on_failure(eras.shard, failed, now, rng);
                network.on_success(eras.network, now)
            }
            FailureKind::Network
            | FailureKind::Server
            | FailureKind::Credentials
            | FailureKind::Missing
            | FailureKind::Clock
            | FailureKind::Unverified
            | FailureKind::Other => {
                project.on_silence(eras.project, now);
                shard.on_silence(eras.shard, now);
                network.on_failure(eras.network, failed, now, rng);
                false
            }
        }
    }

    /// What the network has cut goes on in halves: the next pause is no longer for it.
    pub fn on_halved(&mut self) {
        self.network.on_changed();
    }

    /// A request has ended and tells nothing.
    pub fn on_silence(&mut self, eras: Eras, now: Instant) {
        self.network.on_silence(eras.network, now);
        self.project.on_silence(eras.project, now);
        self.shard.on_silence(eras.shard, now);
    }

    fn all(&self) -> [&Limiter; 3] {
        [&self.network, &self.project, &self.shard]
    }
}
