//! How long NUL bytes are waited on that have something behind them.
//!
//! Pure. Pages of a file may arrive in another order than they were written, from another node or from
//! several threads of an app: for some milliseconds there are NULs where text will be, and other text
//! behind them. A hole looks the same, and stays. So nothing behind such NULs is read until they have
//! been there for [`FILLED_WITHIN`]; they are text, or a hole, if they still are NULs then.
//!
//! A file has one *horizon*: the end of the bytes that were behind NULs at one moment. What is NUL
//! below it that long after that moment has stayed so. A file that is written to all the time is held
//! up by one such wait after the other, each for all that was there when it began.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::base::span::FileKey;

/// Longest time that a page may take to be filled once the page behind it is there.
pub const FILLED_WITHIN: Duration = Duration::from_secs(1);

/// Files with NULs that have something behind them.
#[derive(Debug, Default)]
pub struct Filled {
    horizons: BTreeMap<FileKey, Horizon>,
}

#[derive(Clone, Copy, Debug)]
struct Horizon {
    /// Just past the last byte that was there behind NULs at the moment `seen_at`.
    end: u64,
    /// When these bytes were seen.
    seen_at: Instant,
    /// The NUL that is waited on; `None` when the wait is over.
    awaited: Option<u64>,
}

impl Filled {
    /// The offset below which NULs have stayed NULs for long enough.
    #[must_use]
    pub fn settled_end(&self, file: FileKey, now: Instant) -> u64 {
        let settled = self.horizons.get(&file).filter(|one| one.seen_at + FILLED_WITHIN <= now);
        settled.map_or(0, |one| one.end)
    }

    /// Begins to wait for the NUL at `at`, or goes on to that one: the NUL is not settled, and
    /// there are bytes behind it, up to `end` as far as is known.
    pub fn await_at(&mut self, file: FileKey, at: u64, end: u64, now: Instant) {
        let begun = Horizon { end, seen_at: now, awaited: Some(at) };
        let horizon = self.horizons.entry(file).or_insert(begun);
        if horizon.end <= at {
            *horizon = begun;
        }
        horizon.awaited = Some(at);
    }

    /// The NUL that a file waits on, if the time for it to be filled is not over.
    #[must_use]
    pub fn awaited(&self, file: FileKey, now: Instant) -> Option<u64> {
        let horizon = self.horizons.get(&file)?;
        horizon.awaited.filter(|_| now < horizon.seen_at + FILLED_WITHIN)
    }

    /// Whether any file waits.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.horizons.values().any(|horizon| horizon.awaited.is_some())
    }

    /// When the first wait will be over.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let waiting = self.horizons.values().filter(|horizon| horizon.awaited.is_some());
        waiting.map(|horizon| horizon.seen_at + FILLED_WITHIN).min()
    }

    /// Takes out the files that have waited for long enough: they are to be read.
    pub fn take_due(&mut self, now: Instant) -> Vec<FileKey> {
        let mut due = Vec::new();
        for (file, horizon) in &mut self.horizons {
            if horizon.awaited.is_some() && horizon.seen_at + FILLED_WITHIN <= now {
                horizon.awaited = None;
                due.push(*file);
            }
        }
        due
    }

    /// Ends a wait whose NUL has been filled: what is behind it is read.
    pub fn on_filled(&mut self, file: FileKey) {
        if let Some(horizon) = self.horizons.get_mut(&file) {
            horizon.awaited = None;
        }
    }

    /// Forgets a file that has ended, or is another text.
    pub fn forget(&mut self, file: FileKey) {
        self.horizons.remove(&file);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: FileKey = FileKey(1);

    #[test]
    fn what_stays_nul_for_the_time_is_settled() {
        let start = crate::base::clock::now();
        let mut filled = Filled::default();
        assert_eq!((filled.settled_end(FILE, start), filled.deadline()), (0, None));

        filled.await_at(FILE, 10, 100, start);
        let early = start + FILLED_WITHIN / 2;
        assert_eq!(filled.awaited(FILE, early), Some(10));
        assert_eq!((filled.settled_end(FILE, early), filled.take_due(early)), (0, vec![]));

        let end = filled.deadline().unwrap();
        assert_eq!(end, start + FILLED_WITHIN);
        assert_eq!((filled.take_due(end), filled.take_due(end)), (vec![FILE], vec![]));
        assert_eq!((filled.settled_end(FILE, end), filled.awaited(FILE, end)), (100, None));
        assert!(!filled.is_waiting());
    }

    /// One wait is long enough for NULs that were there when it began; for those that came later it
    /// is not.
    #[test]
    fn one_wait_is_for_all_that_was_there_when_it_began() {
        let start = crate::base::clock::now();
        let later = start + FILLED_WITHIN / 2;
        let mut filled = Filled::default();
        filled.await_at(FILE, 10, 100, start);

        filled.await_at(FILE, 50, 200, later);
        assert_eq!(filled.deadline(), Some(start + FILLED_WITHIN));
        filled.await_at(FILE, 150, 200, later);
        assert_eq!(filled.deadline(), Some(later + FILLED_WITHIN));
        assert_eq!(filled.settled_end(FILE, start + FILLED_WITHIN), 0);
    }

    #[test]
    fn what_was_filled_is_not_waited_on() {
        let start = crate::base::clock::now();
        let mut filled = Filled::default();
        filled.await_at(FILE, 10, 100, start);

        filled.on_filled(FILE);
        assert_eq!((filled.awaited(FILE, start), filled.deadline()), (None, None));
        filled.await_at(FILE, 50, 100, start);
        filled.forget(FILE);
        assert!(!filled.is_waiting());
    }
}
