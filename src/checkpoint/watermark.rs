//! Acknowledgements in any order to the offset below which all is delivered.
//!
//! Pure. One [`Watermark`] per stream. Spans are sealed in order and without holes;
//! acknowledgements come as they like. A saved checkpoint may name the watermark's offset and
//! nothing beyond it: that is the promise this file keeps.

use std::collections::VecDeque;

use crate::base::fingerprint::Fingerprint;
use crate::base::span::Span;

/// The lowest byte of a stream that is not acknowledged.
#[derive(Clone, Debug)]
pub struct Watermark {
    offset: u64,
    /// The bytes of the file just before `offset`.
    tail: Fingerprint,
    /// Sealed spans that end above `offset`, in order. Each begins where the one before it ends.
    /// Those that are done and stand side by side are one: while one batch does not arrive, there
    /// may be thousands behind it.
    pending: VecDeque<Pending>,
    /// Bytes of acknowledged spans, without holes: added up for themselves, not taken from `offset`.
    acked_bytes: u64,
}

#[derive(Clone, Debug)]
struct Pending {
    start: u64,
    end: u64,
    tail: Fingerprint,
    /// Bytes of the span that are no text: holes that were passed over.
    hole_bytes: u64,
    /// Records of the span that are not acknowledged.
    records_left: u32,
}

impl Watermark {
    /// A watermark below which every byte is acknowledged, or was never wanted.
    #[must_use]
    pub fn at(offset: u64, tail: Fingerprint) -> Self {
        Self { offset, tail, pending: VecDeque::new(), acked_bytes: 0 }
    }

    /// The offset below which all is acknowledged.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The fingerprint of the bytes just before [`Self::offset`].
    #[must_use]
    pub fn tail(&self) -> Fingerprint {
        self.tail
    }

    /// Bytes that were acknowledged since this watermark began, holes not counted.
    #[must_use]
    pub fn acked_bytes(&self) -> u64 {
        self.acked_bytes
    }

    /// Takes the span of a batch that was sealed, with so many records, at least one. The batch
    /// ends in the bytes that `tail` covers; `hole_bytes` of it were passed over as holes.
    ///
    /// # Panics
    /// If it does not begin where the last one ended: a byte would be lost.
    pub fn on_sealed(&mut self, span: Span, records: u32, tail: Fingerprint, hole_bytes: u64) {
        let Span { start, end, .. } = span;
        self.push(Pending { start, end, tail, hole_bytes, records_left: records });
    }

    /// Takes bytes that were passed over and are no record: they need no acknowledgement of their
    /// own. `hole_bytes` of them are holes, the others the end of a line that was delivered.
    ///
    /// # Panics
    /// If they do not begin where the last span ended.
    pub fn on_passed(&mut self, start: u64, end: u64, tail: Fingerprint, hole_bytes: u64) {
        self.acked_bytes += end - start - hole_bytes;
        self.push(Pending { start, end, tail, hole_bytes, records_left: 0 });
        self.join(self.pending.len() - 1);
        self.advance();
    }

    /// Takes the acknowledgement of so many records of the batch that was sealed with this span.
    /// Returns whether the offset moved.
    pub fn on_ack(&mut self, span: Span, records: u32) -> bool {
        let found = self.pending.binary_search_by_key(&span.start, |pending| pending.start);
        let Ok(index) = found else { return false };
        let pending = &mut self.pending[index];
        if pending.records_left == 0 {
            return false;
        }
        debug_assert_eq!(pending.end, span.end, "a span is acknowledged as sealed");
        pending.records_left = pending.records_left.saturating_sub(records);
        if pending.records_left == 0 {
            self.acked_bytes += pending.end - pending.start - pending.hole_bytes;
            self.join(index);
        }
        self.advance()
    }

    /// Joins a span with those beside it that are done too.
    fn join(&mut self, index: usize) {
        for second in [index + 1, index] {
            let is_done = |at: usize| self.pending.get(at).is_some_and(|one| one.records_left == 0);
            let Some(first) = second.checked_sub(1).filter(|first| is_done(*first)) else {
                continue;
            };
            if is_done(second)
                && let Some(joined) = self.pending.remove(second)
            {
                let first = &mut self.pending[first];
                (first.end, first.tail) = (joined.end, joined.tail);
            }
        }
    }

    fn push(&mut self, pending: Pending) {
        let (start, expected) = (pending.start, self.pending.back().map_or(self.offset, |l| l.end));
        assert!(start == expected, "sealed spans have no gaps: {start} after {expected}");
        self.pending.push_back(pending);
    }

    fn advance(&mut self) -> bool {
        let before = self.offset;
        while let Some(first) = self.pending.pop_front_if(|first| first.records_left == 0) {
            (self.offset, self.tail) = (first.end, first.tail);
        }
        if self.pending.is_empty() {
            // A quiet file keeps no room for what may be under way.
            self.pending = VecDeque::new();
        }
        self.offset > before
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::base::span::{CollectionId, FileKey, StreamKey};

    fn span(start: u64, end: u64) -> Span {
        let stream = StreamKey { file: FileKey(1), collection: CollectionId(0) };
        Span::new(stream, start, end)
    }

    fn tail(end: u64) -> Fingerprint {
        Fingerprint::of(&end.to_le_bytes())
    }

    #[test]
    fn waits_for_the_lowest_batch() {
        let mut mark = Watermark::at(5, Fingerprint::default());
        mark.on_sealed(span(5, 10), 1, tail(10), 0);
        mark.on_sealed(span(10, 20), 1, tail(20), 0);

        assert!(!mark.on_ack(span(10, 20), 1));
        assert_eq!(mark.offset(), 5);
        assert!(mark.on_ack(span(5, 10), 1));
        assert_eq!((mark.offset(), mark.tail()), (20, tail(20)));
    }

    #[test]
    fn passed_bytes_wait_for_what_lies_before_them() {
        let mut mark = Watermark::at(0, Fingerprint::default());
        mark.on_passed(0, 1, tail(1), 0);
        assert_eq!(mark.offset(), 1);
        mark.on_sealed(span(1, 4), 1, tail(4), 0);
        mark.on_passed(4, 5, tail(5), 0);
        assert_eq!(mark.offset(), 1);
        mark.on_ack(span(1, 4), 1);
        assert_eq!(mark.offset(), 5);
    }

    #[test]
    fn a_second_acknowledgement_changes_nothing() {
        let mut mark = Watermark::at(0, Fingerprint::default());
        mark.on_sealed(span(0, 4), 1, tail(4), 0);
        assert!(mark.on_ack(span(0, 4), 1));
        assert!(!mark.on_ack(span(0, 4), 1));
        assert_eq!(mark.acked_bytes(), 4);
    }

    #[test]
    fn spans_that_are_done_behind_one_that_is_not_take_no_room() {
        let mut mark = Watermark::at(0, Fingerprint::default());
        mark.on_sealed(span(0, 10), 1, tail(10), 0);
        for start in (10..10_000).step_by(30) {
            mark.on_sealed(span(start, start + 10), 1, tail(start + 10), 0);
            mark.on_sealed(span(start + 10, start + 20), 1, tail(start + 20), 0);
            mark.on_passed(start + 20, start + 30, tail(start + 30), 0);
            mark.on_ack(span(start + 10, start + 20), 1);
            mark.on_ack(span(start, start + 10), 1);
            assert_eq!(mark.pending.len(), 2);
        }
        assert!(mark.on_ack(span(0, 10), 1));
        assert_eq!((mark.offset(), mark.tail()), (10_000, tail(10_000)));
        assert_eq!(mark.acked_bytes(), 10_000);
    }

    #[test]
    fn a_span_is_done_when_all_its_records_are() {
        let mut mark = Watermark::at(0, Fingerprint::default());
        mark.on_sealed(span(0, 4), 3, tail(4), 0);
        assert!(!mark.on_ack(span(0, 4), 2));
        assert_eq!((mark.offset(), mark.acked_bytes()), (0, 0));
        assert!(mark.on_ack(span(0, 4), 1));
        assert_eq!((mark.offset(), mark.acked_bytes()), (4, 4));
    }

    #[test]
    fn holes_are_not_counted_as_acknowledged() {
        let mut mark = Watermark::at(0, Fingerprint::default());
        mark.on_passed(0, 10, tail(10), 9);
        mark.on_sealed(span(10, 50), 1, tail(50), 30);
        assert_eq!((mark.offset(), mark.acked_bytes()), (10, 1));
        mark.on_ack(span(10, 50), 1);
        assert_eq!((mark.offset(), mark.acked_bytes()), (50, 11));
    }

    proptest! {
        /// Equal to a naive model: the end of the longest run of acknowledged spans from 0.
        #[test]
        fn equals_a_naive_model(lengths in proptest::collection::vec(1_u64..9, 1..20), order in any::<u64>()) {
            let mut mark = Watermark::at(0, Fingerprint::default());
            let mut spans = Vec::new();
            let mut end = 0;
            for len in lengths {
                spans.push(span(end, end + len));
                end += len;
                mark.on_sealed(span(end - len, end), 1, tail(end), 0);
            }
            let mut left = spans.clone();
            let mut rng = fastrand::Rng::with_seed(order);
            while !left.is_empty() {
                let acked = left.swap_remove(rng.usize(..left.len()));
                mark.on_ack(acked, 1);
                let lowest = left.iter().map(|span| span.start).min().unwrap_or(end);
                prop_assert_eq!(mark.offset(), lowest);
                if lowest > 0 {
                    prop_assert_eq!(mark.tail(), tail(lowest));
                }
            }
        }
    }
}
