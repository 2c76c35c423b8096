//! When to give memory back: some time after a burst, and now and then while there is work.
//!
//! Pure. The C library's allocator keeps what was freed below anything that is still in use, so after
//! a burst the process would stay as large as it was. To give it back costs some milliseconds, and
//! the next burst has to fetch it again: so it is done when the level has stayed low for a while. Where
//! it never is low, buffers of many sizes come and go, and the process would creep up: so it is done
//! once a minute as well. Where nothing happens, nothing is done.

use std::time::{Duration, Instant};

/// Bursts below this leave nothing behind that is worth it.
const BURST_BYTES_MIN: usize = 2 << 20;
/// The level is low below this share of its peak: an app that goes on writing keeps it above a quarter.
const LOW_SHARE: usize = 2;
/// The level must have been low for so long.
const LOW_FOR: Duration = Duration::from_secs(3);
/// While there is work, memory is given back so often.
const WORK_PERIOD: Duration = Duration::from_secs(60);

/// Watches how many bytes are held, and says when there may be many more that are not.
#[derive(Clone, Debug)]
pub struct Slack {
    /// The highest level since memory was given back.
    peak: usize,
    /// Since when the level is low, after a burst.
    low_since: Option<Instant>,
    /// The first work since memory was given back.
    work_since: Option<Instant>,
}

impl Slack {
    /// The start counts as a burst: reading the settings and the saved state leaves something, too.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self { peak: BURST_BYTES_MIN, low_since: Some(now), work_since: None }
    }

    /// So many bytes are held now.
    pub fn on_level(&mut self, bytes: usize, now: Instant) {
        self.peak = self.peak.max(bytes);
        let is_low = self.peak >= BURST_BYTES_MIN && bytes < self.peak / LOW_SHARE;
        self.low_since = if is_low { self.low_since.or(Some(now)) } else { None };
        if bytes > 0 {
            self.work_since.get_or_insert(now);
        }
    }

    /// When it will be time, if the level stays as it is.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let low = self.low_since.map(|since| since + LOW_FOR);
        let work = self.work_since.map(|since| since + WORK_PERIOD);
        low.into_iter().chain(work).min()
    }

    /// Whether it is time; then it is taken for done.
    pub fn is_due(&mut self, now: Instant) -> bool {
        let is_due = self.deadline().is_some_and(|at| at <= now);
        if is_due {
            (self.peak, self.low_since, self.work_since) = (0, None, None);
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    #[test]
    fn memory_is_given_back_once_after_a_burst_and_after_the_start() {
        let start = crate::base::clock::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut slack = Slack::new(start);
        assert!(!slack.is_due(at(2)));
        assert!(slack.is_due(at(3)));
        slack.on_level(0, at(100));
        assert_eq!(slack.deadline(), None, "nothing happens");

        slack.on_level(8 * MIB, at(200));
        assert!(!slack.is_due(at(205)), "it is needed");
        slack.on_level(MIB, at(210));
        slack.on_level(0, at(211));
        assert!(!slack.is_due(at(212)));
        assert!(slack.is_due(at(213)));
        assert_eq!(slack.deadline(), None);
    }

    #[test]
    fn a_level_that_rises_again_is_waited_for_but_no_longer_than_a_minute() {
        let start = crate::base::clock::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut slack = Slack::new(start);
        slack.on_level(8 * MIB, at(0));
        for second in 1..60 {
            slack.on_level(if second % 2 == 0 { 0 } else { 4 * MIB }, at(second));
            assert!(!slack.is_due(at(second)));
        }
        assert!(slack.is_due(at(60)));
    }
}
