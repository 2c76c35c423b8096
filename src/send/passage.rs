//! How large a body may be to get through, where nobody says so.
//!
//! A service or a proxy that finds a body too large answers 413. Some proxies break the connection
//! instead, each time, for ever. That looks like any broken connection; what tells it from one is that
//! smaller bodies come through meanwhile. Pure: it hears of what came through and what was cut, and says
//! which batches are to be halved.
//!
//! # When a batch is halved
//! - After [`CUTS_MIN`] cuts, when something smaller than all that was cut has come through since the
//!   first of them, and nothing as large. From then on bodies of that size are halved unsent, for
//!   [`LIMIT_TIME`]; then one is tried again, so that sizes go up when the proxy has been repaired.
//! - After [`CUTS_MIN`] cuts in a row, when nothing comes through that would show it: then only the
//!   smallest batch that waits, which is tried next, and its halves. In an ordinary outage, where
//!   everything is cut, that is one batch in a few pieces, and all others keep their size.
//!
//! Nothing is halved below [`BYTES_MIN`], where no proxy draws its line, and one that has a sequence id
//! never is: nobody knows whether the service has it. It is tried again and again, and that is said.

use std::time::{Duration, Instant};

/// So many cuts before sizes are suspected.
pub const CUTS_MIN: u32 = 3;
/// A body of this size or less is not halved.
pub const BYTES_MIN: usize = 4 * 1024;
/// How long a size that was cut is not tried again.
pub const LIMIT_TIME: Duration = Duration::from_secs(5 * 60);

/// What is known of the sizes that come through.
#[derive(Clone, Debug, Default)]
pub struct Passage {
    /// Requests that were cut since one came through.
    in_a_row: u32,
    /// Requests that were cut since one as large as the smallest of them came through.
    cuts: u32,
    /// The smallest of these. All that came through since is smaller.
    cut_bytes_least: usize,
    /// The largest that came through since.
    passed_bytes_most: Option<usize>,
    /// Bodies from this size on are halved, until then.
    limit: Option<(usize, Instant)>,
}

impl Passage {
    /// A request with a body of so many bytes has come through.
    pub fn on_passed(&mut self, bytes: usize) {
        self.in_a_row = 0;
        if self.limit.is_some_and(|(limit, _)| bytes >= limit) {
            self.limit = None;
        }
        if self.cuts == 0 {
            return;
        }
        if bytes >= self.cut_bytes_least {
            self.forget_cuts();
        } else {
            self.passed_bytes_most = self.passed_bytes_most.max(Some(bytes));
        }
    }

    /// The connection of a request with a body of so many bytes broke before an answer.
    pub fn on_cut(&mut self, bytes: usize, now: Instant) {
        self.in_a_row = self.in_a_row.saturating_add(1);
        if self.passed_bytes_most.is_some_and(|most| most >= bytes) {
            // Then it was not the size.
            self.forget_cuts();
        }
        self.cut_bytes_least = if self.cuts == 0 { bytes } else { self.cut_bytes_least.min(bytes) };
        self.cuts = self.cuts.saturating_add(1);
        if self.is_size_to_blame() {
            self.limit = Some((self.cut_bytes_least, now + LIMIT_TIME));
        }
    }

    fn forget_cuts(&mut self) {
        self.cuts = 0;
        self.passed_bytes_most = None;
    }

    fn is_size_to_blame(&self) -> bool {
        self.cuts >= CUTS_MIN && self.passed_bytes_most.is_some()
    }

    /// Whether the smallest batch is what to try next: nothing comes through, and the size may be why.
    #[must_use]
    pub fn is_searching(&self) -> bool {
        self.in_a_row >= CUTS_MIN
    }

    /// Whether the next probe is the smallest batch. In turns with others: a filter may cut just that
    /// one for what it says, and then others come through.
    #[must_use]
    pub fn wants_smallest(&self) -> bool {
        self.is_searching() && self.in_a_row % 2 == 1
    }

    /// Whether a body that was just cut is to be halved. `is_smallest`: no smaller one waits.
    #[must_use]
    pub fn must_halve(&self, bytes: usize, is_smallest: bool) -> bool {
        let is_known = self.is_size_to_blame() && bytes >= self.cut_bytes_least;
        bytes > BYTES_MIN && (is_known || (self.is_searching() && is_smallest))
    }

    /// The size from which on bodies are not even sent.
    #[must_use]
    pub fn limit(&self, now: Instant) -> Option<usize> {
        let (bytes, until) = self.limit?;
        (now < until).then_some(bytes.max(BYTES_MIN + 1))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KIB: usize = 1024;

    #[test]
    fn what_is_cut_while_smaller_ones_come_through_is_halved() {
        let now = crate::base::clock::now();
        let mut passage = Passage::default();
        for _ in 0..2 {
            passage.on_cut(100 * KIB, now);
            passage.on_passed(10 * KIB);
            assert!(!passage.must_halve(100 * KIB, false) && passage.limit(now).is_none());
        }

        passage.on_cut(80 * KIB, now);

        assert!(passage.must_halve(80 * KIB, false) && passage.must_halve(100 * KIB, false));
        assert!(!passage.must_halve(40 * KIB, false));
        assert_eq!(passage.limit(now), Some(80 * KIB), "larger ones are not even sent");
        passage.on_cut(40 * KIB, now);
        assert_eq!(passage.limit(now), Some(40 * KIB));
    }

    #[test]
    fn broken_connections_of_any_size_halve_nothing() {
        let now = crate::base::clock::now();
        let mut passage = Passage::default();
        for _ in 0..100 {
            passage.on_cut(100 * KIB, now);
            passage.on_passed(10 * KIB);
            passage.on_passed(100 * KIB);
            passage.on_cut(10 * KIB, now);
            passage.on_passed(10 * KIB);
            assert!(!passage.must_halve(100 * KIB, true) && passage.limit(now).is_none());
        }
        passage.on_cut(100 * KIB, now);
        passage.on_passed(50 * KIB);
        // One smaller than what came through.
        (0..2).for_each(|_| passage.on_cut(20 * KIB, now));
        assert!(!passage.must_halve(100 * KIB, false) && passage.limit(now).is_none());
    }

    #[test]
    fn where_nothing_comes_through_only_the_smallest_is_halved_and_not_for_ever() {
        let now = crate::base::clock::now();
        let mut passage = Passage::default();
        (0..2).for_each(|_| passage.on_cut(100 * KIB, now));
        assert!(!passage.is_searching() && !passage.must_halve(100 * KIB, true));
        passage.on_cut(100 * KIB, now);

        assert!(passage.is_searching());
        assert!(passage.must_halve(100 * KIB, true) && !passage.must_halve(100 * KIB, false));
        passage.on_cut(BYTES_MIN, now);
        assert!(!passage.must_halve(BYTES_MIN, true));
        assert_eq!(passage.limit(now), None);

        passage.on_passed(100 * KIB);
        assert!(!passage.is_searching() && !passage.must_halve(100 * KIB, true));
    }

    #[test]
    fn an_outage_that_ends_leaves_no_limit_and_a_search_that_succeeds_does() {
        let now = crate::base::clock::now();
        let mut passage = Passage::default();
        (0..3).for_each(|_| passage.on_cut(100 * KIB, now));
        passage.on_cut(50 * KIB, now);
        passage.on_passed(25 * KIB);
        assert_eq!(passage.limit(now), None, "the outage may be over");
        let mut after_outage = passage.clone();
        after_outage.on_passed(100 * KIB);
        after_outage.on_cut(100 * KIB, now);
        assert_eq!(after_outage.limit(now), None);

        passage.on_cut(100 * KIB, now);
        assert_eq!(passage.limit(now), Some(50 * KIB));
        assert!(passage.must_halve(50 * KIB, false));
    }

    #[test]
    fn a_limit_is_tried_again_and_goes_when_something_as_large_comes_through() {
        let now = crate::base::clock::now();
        let mut passage = Passage::default();
        (0..3).for_each(|_| passage.on_cut(50 * KIB, now));
        passage.on_passed(25 * KIB);
        passage.on_cut(50 * KIB, now);
        let later = now + LIMIT_TIME;
        assert_eq!(passage.limit(now), Some(50 * KIB));
        assert_eq!(passage.limit(later), None);

        let mut unrepaired = passage.clone();
        unrepaired.on_cut(60 * KIB, later);
        assert_eq!(unrepaired.limit(later), Some(50 * KIB), "one trial is enough");
        assert!(unrepaired.must_halve(60 * KIB, false));

        passage.on_passed(60 * KIB);
        assert_eq!(passage.limit(now), None);
        passage.on_cut(60 * KIB, later);
        assert!(!passage.must_halve(60 * KIB, true));
    }

    proptest! {
        /// A proxy with a limit is found out, whatever comes and in whatever order.
        #[test]
        fn no_size_that_comes_through_is_ever_held_back(
            limit in (BYTES_MIN + 1)..200_000_usize,
            sizes in prop::collection::vec(1_usize..200_000, 1..200),
        ) {
            let now = crate::base::clock::now();
            let mut passage = Passage::default();
            for bytes in sizes {
                prop_assert!(passage.limit(now).is_none_or(|known| known >= limit));
                if bytes < limit {
                    passage.on_passed(bytes);
                } else {
                    passage.on_cut(bytes, now);
                    prop_assert!(!passage.must_halve(limit - 1, false));
                }
            }
        }
    }
}
