//! A repeated fault: said at once, then summed up at most once per interval.
//!
//! Pure: it decides what is said and never says it. It keeps no text, only which faults have been
//! said when, so that an outage of a day costs a line per interval and not a line per attempt.

use std::time::{Duration, Instant};

/// Which faults of kind `K` have been said, and since when the present trouble lasts.
///
/// `K` comes from a small closed set; each of its values has its own interval.
#[derive(Clone, Debug)]
pub struct Repeat<K> {
    interval: Duration,
    faults: Vec<Fault<K>>,
    trouble: Option<Trouble>,
}

#[derive(Clone, Debug)]
struct Fault<K> {
    kind: K,
    said_at: Instant,
    /// Times it happened since `said_at` without being said.
    unsaid: u64,
}

/// Faults without a recovery between them.
#[derive(Clone, Copy, Debug)]
struct Trouble {
    since: Instant,
    count: u64,
    /// Something was said about it, so its end is worth a word too.
    said: bool,
}

/// What to say about a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Say {
    /// The fault is new: say it.
    First,
    /// The fault goes on: sum it up.
    Again {
        /// Times it happened since it was last said, this time included.
        count: u64,
        /// How long ago it was last said.
        since: Duration,
    },
}

/// Trouble that is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// How long it lasted, from the first fault to the recovery.
    pub lasted: Duration,
    /// Faults in that time.
    pub count: u64,
}

impl<K: PartialEq> Repeat<K> {
    /// Says each kind of fault at most once per `interval`.
    #[must_use]
    pub fn new(interval: Duration) -> Self {
        Self { interval, faults: Vec::new(), trouble: None }
    }

    /// A fault happened; returns what to say about it, if anything.
    pub fn on_fault(&mut self, kind: K, now: Instant) -> Option<Say> {
        let trouble = self.trouble.get_or_insert(Trouble { since: now, count: 0, said: false });
        trouble.count += 1;
        let Some(fault) = self.faults.iter_mut().find(|fault| fault.kind == kind) else {
            self.faults.push(Fault { kind, said_at: now, unsaid: 0 });
            trouble.said = true;
            return Some(Say::First);
        };
        fault.unsaid += 1;
        let since = now.saturating_duration_since(fault.said_at);
        if since < self.interval {
            return None;
        }
        let count = std::mem::take(&mut fault.unsaid);
        fault.said_at = now;
        trouble.said = true;
        // Alone since it was last said: nothing to sum up.
        Some(if count == 1 { Say::First } else { Say::Again { count, since } })
    }

    /// Notes that it works again. Returns the trouble that is over, if anything was said about it.
    pub fn on_recovery(&mut self, now: Instant) -> Option<Recovered> {
        let trouble = self.trouble.take()?;
        // Faults said a moment ago stay known: an endpoint that flaps must not fill the log.
        self.faults.retain(|fault| {
            fault.unsaid > 0 || now.saturating_duration_since(fault.said_at) < self.interval
        });
        trouble.said.then(|| Recovered {
            lasted: now.saturating_duration_since(trouble.since),
            count: trouble.count,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(30);

    fn start() -> (Repeat<&'static str>, Instant) {
        (Repeat::new(INTERVAL), crate::base::clock::now())
    }

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn says_a_new_fault_at_once_and_sums_up_the_rest() {
        let (mut repeat, t) = start();

        let said: Vec<_> = (0..=60)
            .filter_map(|s| repeat.on_fault("network", t + seconds(s)).map(|say| (s, say)))
            .collect();

        assert_eq!(
            said,
            [
                (0, Say::First),
                (30, Say::Again { count: 30, since: seconds(30) }),
                (60, Say::Again { count: 30, since: seconds(30) }),
            ]
        );
    }

    #[test]
    fn a_different_fault_is_said_at_once_but_alternating_ones_are_not_repeated() {
        let (mut repeat, t) = start();

        let said: Vec<_> = (0..20)
            .filter_map(|s| {
                repeat.on_fault(if s % 2 == 0 { "network" } else { "server" }, t + seconds(s))
            })
            .collect();

        assert_eq!(said, [Say::First, Say::First]);
    }

    #[test]
    fn recovery_tells_how_long_it_took_and_is_said_once() {
        let (mut repeat, t) = start();
        repeat.on_fault("network", t);
        repeat.on_fault("server", t + seconds(5));

        let recovered = repeat.on_recovery(t + seconds(9));

        assert_eq!(recovered, Some(Recovered { lasted: seconds(9), count: 2 }));
        assert_eq!(repeat.on_recovery(t + seconds(10)), None);
    }

    #[test]
    fn an_endpoint_that_flaps_costs_two_lines_per_interval() {
        let (mut repeat, t) = start();

        let mut lines = 0;
        for s in 0..300 {
            let now = t + seconds(s);
            let said = if s % 2 == 0 {
                repeat.on_fault("network", now).is_some()
            } else {
                repeat.on_recovery(now).is_some()
            };
            lines += usize::from(said);
        }

        assert_eq!(lines, 20);
    }

    #[test]
    fn a_fault_that_comes_back_after_a_quiet_time_is_new() {
        let (mut repeat, t) = start();
        repeat.on_fault("network", t);
        repeat.on_recovery(t + seconds(1));

        assert_eq!(repeat.on_fault("network", t + seconds(300)), Some(Say::First));
    }
}
