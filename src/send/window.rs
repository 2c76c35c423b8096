//! How many requests at once: additive increase, multiplicative decrease.
//!
//! Pure. Results are looked at in *statistics* of up to ten, or of what comes in three seconds:
//!
//! | share that failed | the window      |
//! |-------------------|-----------------|
//! | none              | grows by one    |
//! | up to 20 %        | stays           |
//! | up to 40 %        | shrinks to 80 % |
//! | more              | is halved       |
//!
//! Where one request in ten fails by chance, ten of them show two failures or more every fourth
//! time. To shrink at that would leave an endpoint half used that is not crowded at all; so it
//! takes three.
//!
//! Time comes in *eras*. A decrease begins a new era, and so does a closed gate; results of requests
//! from an earlier one are old news, so eight requests that fail together shrink the window once and
//! not eight times.

use std::time::{Duration, Instant};

/// Requests that may be under way: between 1 and the configured most.
#[derive(Clone, Debug)]
pub struct Window {
    /// In thousandths of a request, so that 80 % of 80 % is not rounded twice. At least 1000.
    thousandths: usize,
    size_max: usize,
    era: Era,
    seen: Statistics,
    /// How far the results of the last complete statistics were apart, on average.
    last_gap: Option<Duration>,
}

/// The time between two decreases.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Era(u64);

/// What finished statistics have done to the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trend {
    /// Nothing failed: it has grown, or is at its most.
    Clear,
    /// Some failures, as they happen.
    Steady,
    /// Too many: it has shrunk, and a new era has begun.
    Worse,
}

/// Results that have not been judged yet.
#[derive(Clone, Copy, Debug, Default)]
struct Statistics {
    /// When the first of them came.
    since: Option<Instant>,
    results: u32,
    failures: u32,
}

impl Statistics {
    fn gap(&self, now: Instant) -> Option<Duration> {
        Some(now.saturating_duration_since(self.since?) / self.results.max(1))
    }
}

const ONE: usize = 1000;
const RESULTS_MAX: u32 = 10;
const TIME_MAX: Duration = Duration::from_secs(3);

impl Window {
    /// Starts at 1, to see how the endpoint takes it. `size_max` of 0 counts as 1.
    #[must_use]
    pub fn new(size_max: usize) -> Self {
        let (era, seen) = (Era::default(), Statistics::default());
        Self { thousandths: ONE, size_max: size_max.max(1), era, seen, last_gap: None }
    }

    /// Requests that may be under way now.
    #[must_use]
    pub fn size(&self) -> usize {
        self.thousandths / ONE
    }

    /// Requests that may ever be under way.
    #[must_use]
    pub fn size_max(&self) -> usize {
        self.size_max
    }

    /// The era that a request started now belongs to.
    #[must_use]
    pub fn era(&self) -> Era {
        self.era
    }

    /// Whether a result of that era is old news, which changes nothing.
    #[must_use]
    pub fn is_old(&self, era: Era) -> bool {
        era < self.era
    }

    /// Counts a result of the present era; returns what came of it, when statistics are complete.
    pub fn on_result(&mut self, has_failed: bool, now: Instant) -> Option<Trend> {
        let since = *self.seen.since.get_or_insert(now);
        self.seen.results += 1;
        self.seen.failures += u32::from(has_failed);
        let is_complete =
            self.seen.results >= RESULTS_MAX || now.saturating_duration_since(since) >= TIME_MAX;
        is_complete.then(|| {
            self.last_gap = self.seen.gap(now);
            self.judge()
        })
    }

    /// Halves it without waiting for more results, and begins a new era.
    pub fn halve(&mut self) {
        self.shrink(50);
    }

    /// Leaves the size as it is and begins a new era.
    pub fn begin_era(&mut self) {
        self.seen = Statistics::default();
        self.era.0 += 1;
    }

    /// How far results have come apart lately, on average.
    #[must_use]
    pub fn gap(&self, now: Instant) -> Option<Duration> {
        let present = self.seen.gap(now).filter(|_| self.seen.results >= RESULTS_MAX / 2);
        present.or(self.last_gap).or_else(|| self.seen.gap(now))
    }

    fn judge(&mut self) -> Trend {
        let Statistics { results, failures, .. } = std::mem::take(&mut self.seen);
        match failures * 100 / results {
            0 if failures == 0 => {
                self.thousandths = (self.thousandths + ONE).min(self.size_max * ONE);
                Trend::Clear
            }
            0..=20 => Trend::Steady,
            21..=40 => self.shrink(80),
            _ => self.shrink(50),
        }
    }

    fn shrink(&mut self, percent: usize) -> Trend {
        self.thousandths = (self.thousandths * percent / 100).max(ONE);
        self.begin_era();
        Trend::Worse
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn grown(size: usize) -> Window {
        let (mut window, now) = (Window::new(size), crate::base::clock::now());
        while window.size() < size {
            window.on_result(false, now);
        }
        window
    }

    /// Ten results, so many of them failures.
    fn judged(size: usize, failures: usize) -> (Trend, usize) {
        let (mut window, now) = (grown(size), crate::base::clock::now());
        let trends: Vec<_> = (0..10).filter_map(|i| window.on_result(i < failures, now)).collect();
        assert_eq!(trends.len(), 1, "ten results make statistics");
        (trends[0], window.size())
    }

    #[test]
    fn grows_by_one_for_ten_successes() {
        let (mut window, now) = (Window::new(3), crate::base::clock::now());

        let sizes: Vec<usize> = (0..4)
            .map(|_| {
                let _ = (0..10).filter_map(|_| window.on_result(false, now)).count();
                window.size()
            })
            .collect();

        assert_eq!(sizes, [2, 3, 3, 3]);
    }

    #[test]
    fn three_seconds_make_statistics_of_fewer() {
        let (mut window, t) = (Window::new(3), crate::base::clock::now());

        assert_eq!(window.on_result(false, t), None);
        assert_eq!(window.on_result(false, t + TIME_MAX), Some(Trend::Clear));

        assert_eq!(window.size(), 2);
    }

    #[test]
    fn the_share_of_failures_decides() {
        for (failures, expected) in [
            (0, (Trend::Clear, 8)),
            (1, (Trend::Steady, 8)),
            (2, (Trend::Steady, 8)),
            (3, (Trend::Worse, 6)),
            (4, (Trend::Worse, 6)),
            (5, (Trend::Worse, 4)),
            (10, (Trend::Worse, 4)),
        ] {
            assert_eq!(judged(8, failures), expected, "{failures} of 10");
        }
    }

    #[test]
    fn a_decrease_makes_what_is_under_way_old_news() {
        let mut window = grown(8);
        let era = window.era();

        window.halve();

        assert!(window.is_old(era) && !window.is_old(window.era()));
        assert_eq!(window.size(), 4);
    }

    proptest! {
        #[test]
        fn stays_between_one_and_the_most(
            size_max in 0_usize..40,
            results in prop::collection::vec((any::<bool>(), any::<bool>(), 0_u64..2000), 0..300),
        ) {
            let (mut window, mut now) = (Window::new(size_max), crate::base::clock::now());
            for (has_failed, is_halved, millis) in results {
                now += Duration::from_millis(millis);
                let before = window.era();
                let trend = window.on_result(has_failed, now);
                prop_assert_eq!(window.era() > before, trend == Some(Trend::Worse));
                if is_halved {
                    window.halve();
                }
                prop_assert!((1..=size_max.max(1)).contains(&window.size()));
            }
        }
    }
}
