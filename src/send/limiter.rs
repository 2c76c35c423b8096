//! One reason to hold back: a gate, a window, and for a quota a pace.
//!
//! Pure. It hears of what became of requests as far as its own reason is concerned, and says when
//! the next one may start. [`super::limiters`] holds the three there are.
//!
//! # The gate
//!
//! ```text
//!      a run of failures, or a wish         the pause is over
//!   Open ───────────────────▶ Closed { until } ─────────────────▶ Probing
//!    ▲                               ▲                            │    │
//!    └───────────────────────────────┼──────── it succeeds ───────┘    │
//!                                    └──────── it fails ───────────────┘
//! ```
//!
//! A run is as many failures, without a success between them, as the window holds, at most
//! [`RUN_MAX`]. Everything waits for the back-off then, and *one* request asks how things are. Its
//! success opens the gate. If the first one fails, it was not chance: the [`Window`] is halved, and
//! grows from there when the gate has opened. Requests that were under way when the gate closed are
//! old news: if they fail, it was the same trouble; if they succeed, those batches are done and
//! nothing else follows.
//!
//! # The pace
//!
//! A window of one request still is as many in a second as the endpoint answers. A quota below that
//! would be run into each second. So where a quota closes the gate, requests keep a distance from
//! then on: half as long again as the one that was too short, and less by a fifth for each second
//! without a refusal. For the network there is no such thing: it breaks and works again,
//! and has no rate that one could keep.

use std::time::{Duration, Instant};

use super::backoff::{self, Backoff};
use super::verdict::FailureKind;
use super::window::{Era, Trend, Window};

/// Failures in a row that close the gate, however large the window is.
pub const RUN_MAX: usize = 3;

/// Holds requests back for one reason.
#[derive(Clone, Debug)]
pub struct Limiter {
    gate: Gate,
    window: Window,
    backoff: Backoff,
    /// Failures without a success between them, since the gate was last opened or closed.
    run: usize,
    pace: Option<Pace>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gate {
    Open,
    Closed {
        until: Instant,
    },
    /// Closed, with one request of the present era under way.
    Probing,
}

/// When a request may start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ready {
    /// Now.
    Now,
    /// From then on.
    At(Instant),
    /// Not before another one has ended.
    AfterResult,
}

/// A request that has failed.
#[derive(Clone, Copy, Debug)]
pub struct Failed {
    /// How.
    pub kind: FailureKind,
    /// How long the endpoint asks to be left alone.
    pub wish: Option<Duration>,
    /// When it had started.
    pub started: Instant,
}

impl Limiter {
    /// For what has no rate. `size_max` bounds the window.
    #[must_use]
    pub fn new(size_max: usize) -> Self {
        let (window, backoff) = (Window::new(size_max), Backoff::default());
        Self { gate: Gate::Open, window, backoff, run: 0, pace: None }
    }

    /// For a quota.
    #[must_use]
    pub fn of_quota(size_max: usize) -> Self {
        Self { pace: Some(Pace::default()), ..Self::new(size_max) }
    }

    /// When a request may start while so many are under way. A probe may at once be one more than
    /// the window, because what is under way may hang.
    #[must_use]
    pub fn ready(&self, in_flight: usize) -> Ready {
        match self.gate {
            Gate::Open if in_flight >= self.window.size() => Ready::AfterResult,
            Gate::Open => {
                let next = self.pace.as_ref().and_then(|pace| pace.next);
                next.map_or(Ready::Now, Ready::At)
            }
            Gate::Closed { until } => Ready::At(until),
            Gate::Probing => Ready::AfterResult,
        }
    }

    /// Whether the gate is open.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.gate == Gate::Open
    }

    /// Requests that may be under way now.
    #[must_use]
    pub fn window(&self) -> usize {
        if self.is_open() { self.window.size() } else { 1 }
    }

    /// Requests that may ever be under way.
    #[must_use]
    pub fn window_max(&self) -> usize {
        self.window.size_max()
    }

    /// A request starts; returns the era that its result belongs to.
    pub fn on_start(&mut self, now: Instant) -> Era {
        if !self.is_open() {
            self.gate = Gate::Probing;
        }
        if let Some(pace) = &mut self.pace {
            pace.on_start(now);
        }
        self.window.era()
    }

    /// A request has come through; returns whether that has opened the gate.
    pub fn on_success(&mut self, era: Era, now: Instant) -> bool {
        if self.window.is_old(era) {
            return false;
        }
        self.run = 0;
        self.backoff.on_success();
        let has_opened = !self.is_open();
        self.gate = Gate::Open;
        let trend = self.window.on_result(false, now);
        match &mut self.pace {
            Some(pace) if has_opened => pace.since = Some(now),
            Some(pace) if trend == Some(Trend::Clear) => pace.quicken(now),
            _ => {}
        }
        has_opened
    }

    /// A request has failed for this reason.
    pub fn on_failure(&mut self, era: Era, failed: Failed, now: Instant, rng: &mut fastrand::Rng) {
        if self.window.is_old(era) {
            if let Gate::Closed { until } = &mut self.gate {
                *until = (*until).max(now + backoff::wish_granted(failed.wish));
            }
            return;
        }
        self.run += 1;
        let is_run = self.run >= self.window.size().min(RUN_MAX);
        let has_wish = failed.wish.is_some_and(|wish| !wish.is_zero());
        if self.is_open() && !is_run && !has_wish {
            self.window.on_result(true, now);
            return;
        }
        self.close(failed, now, rng);
    }

    /// What has failed last goes on as something else: the next pause is no longer for it.
    pub fn on_changed(&mut self) {
        self.backoff.step_back();
    }

    fn close(&mut self, failed: Failed, now: Instant, rng: &mut fastrand::Rng) {
        if self.is_open() {
            if let Some(pace) = &mut self.pace {
                pace.slow_down(self.window.gap(now));
            }
            self.window.begin_era();
            self.run = 0;
        } else if self.run == 1 {
            self.window.halve();
        }
        let Failed { kind, wish, started } = failed;
        let until = self.backoff.on_failure(kind, wish, started, now, rng);
        self.gate = Gate::Closed { until };
    }

    /// A request has ended and tells nothing about this reason: if it was the probe, another one
    /// may follow at once.
    pub fn on_silence(&mut self, era: Era, now: Instant) {
        if !self.window.is_old(era) && self.gate == Gate::Probing {
            self.gate = Gate::Closed { until: now };
        }
    }
}

/// The distance that the starts of two requests keep.
#[derive(Clone, Debug, Default)]
struct Pace {
    distance: Duration,
    /// When the next one may start.
    next: Option<Instant>,
    /// When the gate was opened or `distance` changed.
    since: Option<Instant>,
}

/// What was idle before has made the distance seem longer than this; two requests in a second are
/// no flood.
const DISTANCE_MAX: Duration = Duration::from_millis(500);
/// Below this it is not worth the timer.
const DISTANCE_MIN: Duration = Duration::from_millis(2);
/// A quota counts in seconds at least: sooner, nothing is known about it.
const QUICKEN_INTERVAL: Duration = Duration::from_secs(1);

impl Pace {
    fn on_start(&mut self, now: Instant) {
        self.next = (!self.distance.is_zero()).then(|| now + self.distance);
    }

    fn slow_down(&mut self, gap: Option<Duration>) {
        let too_short = self.distance.max(gap.unwrap_or_default());
        self.distance = (too_short * 3 / 2).clamp(DISTANCE_MIN, DISTANCE_MAX);
    }

    fn quicken(&mut self, now: Instant) {
        if self.since.is_some_and(|at| now.saturating_duration_since(at) < QUICKEN_INTERVAL) {
            return;
        }
        self.since = Some(now);
        self.distance = self.distance * 4 / 5;
        if self.distance < DISTANCE_MIN {
            self.distance = Duration::ZERO;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rng() -> fastrand::Rng {
        fastrand::Rng::with_seed(7)
    }

    fn failed(started: Instant) -> Failed {
        Failed { kind: FailureKind::Server, wish: None, started }
    }

    fn grown(mut limiter: Limiter, now: Instant) -> Limiter {
        while limiter.window() < limiter.window_max() {
            let era = limiter.on_start(now);
            limiter.on_success(era, now);
        }
        limiter
    }

    #[test]
    fn a_success_ends_a_run() {
        let (t, mut rng) = (crate::base::clock::now(), rng());
        let mut limiter = grown(Limiter::new(8), t);
        let era = limiter.on_start(t);

        for _ in 0..2 {
            limiter.on_failure(era, failed(t), t, &mut rng);
            limiter.on_failure(era, failed(t), t, &mut rng);
            limiter.on_success(era, t);
        }
        assert!(limiter.is_open(), "four failures, and no run of three");

        let era = limiter.on_start(t);
        (0..3).for_each(|_| limiter.on_failure(era, failed(t), t, &mut rng));
        assert!(!limiter.is_open());
    }

    #[test]
    fn a_probe_that_tells_nothing_is_followed_by_another() {
        let (t, mut rng) = (crate::base::clock::now(), rng());
        let mut limiter = Limiter::new(8);
        let era = limiter.on_start(t);
        limiter.on_failure(era, failed(t), t, &mut rng);
        let Ready::At(until) = limiter.ready(0) else { panic!("{limiter:?}") };

        let era = limiter.on_start(until);
        assert_eq!(limiter.ready(0), Ready::AfterResult);
        limiter.on_silence(era, until);

        assert_eq!(limiter.ready(0), Ready::At(until));
        assert!(!limiter.is_open());
    }

    #[test]
    fn only_a_quota_has_a_pace() {
        for (mut limiter, has_pace) in [(Limiter::new(1), false), (Limiter::of_quota(1), true)] {
            let (mut now, mut rng) = (crate::base::clock::now(), rng());
            for _ in 0..3 {
                let era = limiter.on_start(now);
                now += Duration::from_millis(20);
                limiter.on_success(era, now);
            }
            let era = limiter.on_start(now);
            limiter.on_failure(era, failed(now), now, &mut rng);
            let Ready::At(until) = limiter.ready(0) else { panic!("{limiter:?}") };
            let era = limiter.on_start(until);
            limiter.on_success(era, until);

            // The results came 20 ms apart, the first without a distance to another.
            let after = |millis| Ready::At(until + Duration::from_millis(millis));
            let keeps = (after(19)..=after(20)).contains(&limiter.ready(0));
            assert_eq!(keeps, has_pace);
            assert_eq!(limiter.ready(0) == Ready::Now, !has_pace);
        }
    }

    proptest! {
        /// Whatever comes back: a request may start when none is under way, now or at a time that
        /// is not far, and probes go one by one.
        #[test]
        fn never_shuts_for_good(
            is_quota: bool,
            size_max in 1_usize..10,
            seed: u64,
            events in prop::collection::vec((0_u8..5, 0_u64..4000), 1..300),
        ) {
            let mut rng = fastrand::Rng::with_seed(seed);
            let mut limiter =
                if is_quota { Limiter::of_quota(size_max) } else { Limiter::new(size_max) };
            let mut now = crate::base::clock::now();
            let mut under_way: Vec<(Era, Instant)> = Vec::new();
            for (event, millis) in events {
                now += Duration::from_millis(millis);
                let may_start = match limiter.ready(under_way.len()) {
                    Ready::Now => true,
                    Ready::At(at) => {
                        let pause = at.saturating_duration_since(now);
                        prop_assert!(pause <= backoff::PAUSE_MAX.max(Duration::from_secs(60)));
                        now >= at
                    }
                    Ready::AfterResult => false,
                };
                prop_assert!(!under_way.is_empty() || limiter.ready(0) != Ready::AfterResult);
                if may_start && under_way.len() < size_max {
                    under_way.push((limiter.on_start(now), now));
                } else if let Some((era, started)) = under_way.pop() {
                    let wish = (event == 4).then(|| Duration::from_secs(60));
                    match event {
                        0 => limiter.on_silence(era, now),
                        1 => _ = limiter.on_success(era, now),
                        _ => {
                            let kind = FailureKind::Quota;
                            let failed = Failed { kind, wish, started };
                            limiter.on_failure(era, failed, now, &mut rng);
                        }
                    }
                }
            }
        }
    }
}
