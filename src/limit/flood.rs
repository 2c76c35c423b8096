//! Messages that may come in floods: the first few are said, the others are counted and summed up.
//!
//! Pure: it decides what is said and never says it. It keeps numbers and no text, so that an app which
//! makes files, links and names at will costs a few lines a minute, and no memory.

use std::time::{Duration, Instant};

/// So many messages of a kind are said by themselves if the period before had more than could be said:
/// an example, beside the sum.
const BURST_AGAIN: u32 = 1;
/// A sum of a kind is said at most this often.
const PERIOD: Duration = Duration::from_secs(60);
/// The first sum waits so long, so that what comes together is counted together.
const GATHER: Duration = Duration::from_secs(1);

/// What was said of each kind `K`, and what was not.
///
/// `K` comes from a small closed set.
#[derive(Clone, Debug)]
pub struct Flood<K> {
    kinds: Vec<Kind<K>>,
}

#[derive(Clone, Debug)]
struct Kind<K> {
    kind: K,
    /// How many more may be said by themselves in this period.
    left: u32,
    /// When this period ends.
    until: Instant,
    /// There were more in this period.
    is_flooded: bool,
    /// How many were not said and are in no sum yet.
    unsaid: u64,
    /// When they are summed up.
    sum_at: Instant,
}

impl<K> Default for Flood<K> {
    fn default() -> Self {
        Self { kinds: Vec::new() }
    }
}

impl<K: Copy + PartialEq> Flood<K> {
    /// Counts one message of a kind of which `burst` are said in a period. Says whether it is said by
    /// itself; if not, it is in the next sum.
    pub fn admit(&mut self, kind: K, burst: u32, now: Instant) -> bool {
        let one = self.kind(kind, now);
        if one.until <= now {
            one.left = if one.is_flooded { BURST_AGAIN } else { burst };
            (one.until, one.is_flooded) = (now + PERIOD, false);
        }
        let is_said = one.left > 0;
        if is_said {
            one.left -= 1;
        } else {
            one.leave(1, now);
        }
        is_said
    }

    /// Counts messages that nobody can say by themselves: they are in the next sum.
    pub fn count(&mut self, kind: K, messages: u64, now: Instant) {
        if messages > 0 {
            self.kind(kind, now).leave(messages, now);
        }
    }

    /// The kinds to sum up now, with how many messages of each were not said.
    pub fn take_due(&mut self, now: Instant) -> Vec<(K, u64)> {
        self.take(now, |one| one.sum_at <= now)
    }

    /// All kinds that are left to sum up, at the end, with how many messages of each were not said.
    pub fn take_all(&mut self, now: Instant) -> Vec<(K, u64)> {
        self.take(now, |_| true)
    }

    /// When there is something to sum up, if there is.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let unsaid = self.kinds.iter().filter(|one| one.unsaid > 0);
        unsaid.map(|one| one.sum_at).min()
    }

    fn take(&mut self, now: Instant, is_wanted: impl Fn(&Kind<K>) -> bool) -> Vec<(K, u64)> {
        let wanted = self.kinds.iter_mut().filter(|one| one.unsaid > 0 && is_wanted(one));
        wanted
            .map(|one| {
                one.sum_at = now + PERIOD;
                (one.kind, std::mem::take(&mut one.unsaid))
            })
            .collect()
    }

    fn kind(&mut self, kind: K, now: Instant) -> &mut Kind<K> {
        let index = self.kinds.iter().position(|one| one.kind == kind).unwrap_or_else(|| {
            // Its first period is yet to begin.
            let (left, until) = (0, now);
            self.kinds.push(Kind { kind, left, until, is_flooded: false, unsaid: 0, sum_at: now });
            self.kinds.len() - 1
        });
        &mut self.kinds[index]
    }
}

impl<K> Kind<K> {
    fn leave(&mut self, messages: u64, now: Instant) {
        if self.unsaid == 0 {
            self.sum_at = self.sum_at.max(now + GATHER);
        }
        self.is_flooded = true;
        self.unsaid = self.unsaid.saturating_add(messages);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_are_said_and_the_others_summed_up_a_moment_later() {
        let now = crate::base::clock::now();
        let mut flood = Flood::default();

        let said = (0..1000).filter(|_| flood.admit('a', 20, now)).count();
        flood.count('a', 5, now);

        assert_eq!(said, 20);
        assert!(flood.admit('b', 20, now), "another kind has nothing to do with it");
        assert_eq!(flood.take_due(now), []);
        assert_eq!(flood.deadline(), Some(now + GATHER));
        assert_eq!(flood.take_due(now + GATHER), [('a', 985)]);
        assert_eq!((flood.deadline(), flood.take_due(now + PERIOD)), (None, vec![]));
    }

    #[test]
    fn a_flood_that_goes_on_costs_two_lines_a_minute() {
        let start = crate::base::clock::now();
        let mut flood = Flood::default();
        let (mut said, mut summed, mut lines) = (0, 0, 0);

        for tenth in 0..6000 {
            let now = start + Duration::from_millis(100 * tenth);
            said += u64::from(flood.admit((), 20, now));
            for (_, count) in flood.take_due(now) {
                summed += count;
                lines += 1;
            }
        }
        let rest: u64 = flood.take_all(start).iter().map(|(_, count)| count).sum();

        assert_eq!(said + summed + rest, 6000, "each one counts");
        assert!(said + lines <= 20 + 2 * 10, "{said} said, {lines} sums in ten minutes");
    }

    #[test]
    fn after_a_quiet_time_all_is_said_again() {
        let start = crate::base::clock::now();
        let mut flood = Flood::default();
        let _ = (0..100).filter(|_| flood.admit((), 20, start)).count();
        flood.take_due(start + GATHER);
        assert!(flood.admit((), 20, start + PERIOD));

        let later = start + 3 * PERIOD;

        assert_eq!((0..30).filter(|_| flood.admit((), 20, later)).count(), 20);
    }
}
