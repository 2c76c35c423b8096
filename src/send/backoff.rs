//! How long the destination is left alone after a failure: exponential, jittered, bounded.
//!
//! Pure. The pause doubles with each failure in a row, up to [`PAUSE_MAX`], and every pause is
//! drawn from its upper half, so that a thousand agents do not come back in step. It is counted
//! from the start of the attempt that failed: an attempt that hung until its timeout has already
//! waited. So an endpoint that recovers is found within [`PAUSE_MAX`], unless it has asked for a
//! longer pause itself.

use std::time::{Duration, Instant};

use super::verdict::FailureKind;

/// The longest pause, jitter included, without a wish of the endpoint.
pub const PAUSE_MAX: Duration = Duration::from_secs(24);

const _: () = assert!(PAUSE_MAX.as_secs() <= 25, "30 s after its recovery an endpoint is in use");

/// A longer wish of the endpoint is cut to this: a stranger's `Retry-After: 86400` must not cost a
/// day.
pub const WISH_MAX: Duration = Duration::from_secs(5 * 60);

/// The shortest pause after a failure has come in, however long its attempt took.
const PAUSE_MIN: Duration = Duration::from_millis(100);

/// Failures in a row, and the pauses they earn.
#[derive(Clone, Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// An attempt that was `started` has failed; returns when to try again.
    ///
    /// `wish` is the endpoint's own, counted from `now`.
    pub fn on_failure(
        &mut self,
        kind: FailureKind,
        wish: Option<Duration>,
        started: Instant,
        now: Instant,
        rng: &mut fastrand::Rng,
    ) -> Instant {
        let pause = pause(kind, self.failures, rng);
        self.failures = self.failures.saturating_add(1);
        (started + pause).max(now + wish_granted(wish)).max(now + PAUSE_MIN.min(pause))
    }

    /// Takes the last failure back: the next pause is no longer for it.
    pub fn step_back(&mut self) {
        self.failures = self.failures.saturating_sub(1);
    }

    /// Notes that it works again: the next failure is a first one.
    pub fn on_success(&mut self) {
        self.failures = 0;
    }
}

/// What a wish of the endpoint comes to.
#[must_use]
pub fn wish_granted(wish: Option<Duration>) -> Duration {
    wish.unwrap_or_default().min(WISH_MAX)
}

/// The pause after `failures` earlier failures in a row.
#[must_use]
pub fn pause(kind: FailureKind, failures: u32, rng: &mut fastrand::Rng) -> Duration {
    let doubled = first_pause(kind).saturating_mul(1_u32 << failures.min(16));
    doubled.min(PAUSE_MAX).mul_f64(0.5 + rng.f64() / 2.0)
}

/// Each kind has its pace: a hiccup is over at once, a quota with the present second or minute, and
/// a person takes longer than either.
fn first_pause(kind: FailureKind) -> Duration {
    match kind {
        FailureKind::Network | FailureKind::Server | FailureKind::Unverified => {
            Duration::from_millis(250)
        }
        FailureKind::Quota | FailureKind::ShardQuota => Duration::from_millis(500),
        FailureKind::Credentials
        | FailureKind::Missing
        | FailureKind::Clock
        | FailureKind::Other => Duration::from_secs(2),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rng() -> fastrand::Rng {
        fastrand::Rng::with_seed(7)
    }

    #[test]
    fn doubles_up_to_the_longest_pause_and_draws_from_the_upper_half() {
        let (now, mut rng) = (crate::base::clock::now(), rng());
        let mut backoff = Backoff::default();

        for full in [250, 500, 1000, 2000, 4000, 8000, 16_000, 24_000, 24_000] {
            let pause = backoff.on_failure(FailureKind::Network, None, now, now, &mut rng) - now;
            let (most, least) = (Duration::from_millis(full), Duration::from_millis(full / 2));
            assert!((least..=most).contains(&pause), "{pause:?} of {most:?}");
        }
    }

    #[test]
    fn a_success_makes_the_next_failure_a_first_one() {
        let (now, mut rng) = (crate::base::clock::now(), rng());
        let mut backoff = Backoff::default();
        for _ in 0..10 {
            backoff.on_failure(FailureKind::Network, None, now, now, &mut rng);
        }

        backoff.on_success();

        let pause = backoff.on_failure(FailureKind::Network, None, now, now, &mut rng) - now;
        assert!(pause <= Duration::from_millis(250), "{pause:?}");
    }

    #[test]
    fn a_failure_that_is_taken_back_lengthens_no_pause() {
        let (now, mut rng) = (crate::base::clock::now(), rng());
        let mut backoff = Backoff::default();

        for _ in 0..10 {
            let pause = backoff.on_failure(FailureKind::Network, None, now, now, &mut rng) - now;
            assert!(pause <= Duration::from_millis(250), "{pause:?}");
            backoff.step_back();
        }
    }

    #[test]
    fn the_time_that_a_hanging_attempt_took_counts() {
        let (started, mut rng) = (crate::base::clock::now(), rng());
        let now = started + Duration::from_secs(15);

        let at = Backoff::default().on_failure(FailureKind::Network, None, started, now, &mut rng);

        assert_eq!(at, now + PAUSE_MIN);
    }

    #[test]
    fn a_wish_of_the_endpoint_is_honoured_up_to_five_minutes() {
        let (now, mut rng) = (crate::base::clock::now(), rng());
        let mut after = |seconds| {
            let wish = Some(Duration::from_secs(seconds));
            Backoff::default().on_failure(FailureKind::Server, wish, now, now, &mut rng) - now
        };

        assert_eq!(after(10), Duration::from_secs(10));
        assert_eq!(after(300), Duration::from_secs(300));
        assert_eq!(after(86_400), WISH_MAX);
    }

    proptest! {
        #[test]
        fn no_pause_is_longer_than_the_longest_or_the_wish(
            failures in 0_u32..200,
            seed: u64,
            wish in prop::option::of(any::<u32>()),
            took_seconds in 0_u64..60,
        ) {
            let mut rng = fastrand::Rng::with_seed(seed);
            let started = crate::base::clock::now();
            let now = started + Duration::from_secs(took_seconds);
            let wish = wish.map(|seconds| Duration::from_secs(u64::from(seconds)));
            let mut backoff = Backoff { failures };

            let at = backoff.on_failure(FailureKind::Other, wish, started, now, &mut rng);

            let longest = PAUSE_MAX.max(wish_granted(wish));
            prop_assert!(at > now && at - now <= longest);
            prop_assert!(at - now >= wish_granted(wish));
        }
    }
}
