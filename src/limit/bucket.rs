//! A token bucket: bytes per second with a burst of one second.
//!
//! Pure: it says when, the caller waits. Whoever is ready may take any amount, also one larger
//! than the bucket: the bucket goes into debt, and nobody is ready until the debt is paid. So one
//! big turn is possible and the average still holds.

use std::time::{Duration, Instant};

/// Bytes that may be read, refilled with time.
///
/// Over any stretch of time at most `rate × (stretch + 1 s)` bytes are taken, plus the one take
/// that made the debt.
#[derive(Clone, Debug)]
pub struct Bucket {
    bytes_per_second: u64,
    /// In byte-nanoseconds, so that no refill is lost to rounding; negative is debt.
    level: i128,
    refilled_at: Instant,
}

const SECOND: i128 = 1_000_000_000;

impl Bucket {
    /// A full bucket. A rate of 0 is no limit.
    #[must_use]
    pub fn new(bytes_per_second: u64, now: Instant) -> Self {
        Self { bytes_per_second, level: i128::from(bytes_per_second) * SECOND, refilled_at: now }
    }

    /// Takes `bytes`, into debt if need be.
    pub fn take(&mut self, bytes: u64, now: Instant) {
        if self.bytes_per_second == 0 {
            return;
        }
        self.level = self.level_at(now) - i128::from(bytes) * SECOND;
        self.refilled_at = self.refilled_at.max(now);
    }

    /// When the next take is due: `now` or a later time.
    #[must_use]
    pub fn ready_at(&self, now: Instant) -> Instant {
        let level = self.level_at(now);
        if self.bytes_per_second == 0 || level > 0 {
            return now;
        }
        // Just above empty: the first byte has been refilled.
        let missing = SECOND - level;
        let rate = i128::from(self.bytes_per_second);
        let nanos = (missing + rate - 1) / rate;
        now + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX / 2))
    }

    fn level_at(&self, now: Instant) -> i128 {
        let rate = i128::from(self.bytes_per_second);
        let elapsed = now.saturating_duration_since(self.refilled_at).as_nanos();
        let refill = i128::try_from(elapsed).unwrap_or(i128::MAX).saturating_mul(rate);
        self.level.saturating_add(refill).min(rate * SECOND)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn millis(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    #[test]
    fn starts_with_a_burst_of_one_second() {
        let t = crate::base::clock::now();
        let mut bucket = Bucket::new(1000, t);

        bucket.take(999, t);
        assert_eq!(bucket.ready_at(t), t);
        bucket.take(1, t);

        assert_eq!(bucket.ready_at(t), t + millis(1));
    }

    #[test]
    fn a_take_larger_than_the_bucket_is_paid_for_afterwards() {
        let t = crate::base::clock::now();
        let mut bucket = Bucket::new(1000, t);

        bucket.take(6000, t);

        assert_eq!(bucket.ready_at(t), t + millis(5001));
        assert_eq!(bucket.ready_at(t + millis(5001)), t + millis(5001));
    }

    #[test]
    fn a_rate_of_zero_is_no_limit() {
        let t = crate::base::clock::now();
        let mut bucket = Bucket::new(0, t);

        bucket.take(u64::MAX, t);

        assert_eq!(bucket.ready_at(t), t);
    }

    #[test]
    fn a_debt_of_any_size_does_not_overflow() {
        let t = crate::base::clock::now();
        let mut bucket = Bucket::new(1, t);

        bucket.take(10_000_000_000, t);

        assert!(bucket.ready_at(t) > t + Duration::from_secs(9_999_999_998));
    }

    proptest! {
        #[test]
        fn no_stretch_of_time_sees_more_than_rate_burst_and_one_take(
            rate in 1_u64..5_000_000,
            // Bytes of a take, and the idle time before it.
            takes in prop::collection::vec((1_u64..2_000_000, 0_u64..3_000), 1..60),
        ) {
            let t = crate::base::clock::now();
            let mut bucket = Bucket::new(rate, t);
            let mut now = t;
            let mut taken: Vec<(Instant, u64)> = Vec::new();
            for &(bytes, idle) in &takes {
                now = bucket.ready_at(now + millis(idle));
                bucket.take(bytes, now);
                taken.push((now, bytes));
            }

            for first in 0..taken.len() {
                let mut sum = 0;
                for &(at, bytes) in &taken[first..] {
                    let stretch = at.duration_since(taken[first].0).as_nanos();
                    // The take at the end may go into debt; everything before it was covered.
                    let allowed = u128::from(rate) * (stretch + 1_000_000_000) / 1_000_000_000;
                    prop_assert!(u128::from(sum) <= allowed, "{sum} bytes, {allowed} allowed");
                    sum += bytes;
                }
            }
        }

        #[test]
        fn a_greedy_reader_gets_the_whole_rate(rate in 1_000_u64..5_000_000, share in 1_u64..20) {
            let t = crate::base::clock::now();
            let mut bucket = Bucket::new(rate, t);
            let bytes = rate / share;
            let (mut now, mut sum) = (t, 0);

            while now < t + Duration::from_secs(60) {
                now = bucket.ready_at(now);
                bucket.take(bytes, now);
                sum += bytes;
            }

            prop_assert!(sum >= rate * 60, "{sum} bytes in a minute at {rate} a second");
        }
    }
}
