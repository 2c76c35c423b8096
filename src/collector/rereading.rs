//! Reading again what was sent before a restart, range by range, exactly as it was sent.
//!
//! ```text
//!  offset                        range                   range
//!    ├── the end of a line, a hole ┤├── assigned: read ────┤├── done: passed over ──┤├── new ──▶
//! ```
//!
//! A turn of reading goes no further than the next beginning or end of a range. A group ends there,
//! and within a range nowhere else. [`super::once`] says why.

use std::io;

use super::Collector;
use super::said::Kind;
use crate::base::fingerprint::{Fingerprint, TAIL_BYTES_MAX};
use crate::base::sealed::SealedBatch;
use crate::base::span::{Span, StreamKey};
use crate::batch::policy::Reason;
use crate::batch::rewrite::part;
use crate::checkpoint::format::{Range, RangeState};
use crate::checkpoint::keep::Keep;
use crate::line::split;
use crate::pipeline::Input;
use crate::tail::os::Os;

/// How far a turn may read, and how.
#[derive(Clone, Copy, Debug)]
pub(super) struct Within {
    /// Offset where the next range begins or ends, if there is one.
    pub(super) end: Option<u64>,
    /// Most bytes of a line that is not cut.
    pub(super) line_bytes_max: usize,
}

/// What a turn may do.
pub(super) enum Ahead {
    /// The turn may read.
    Read(Within),
    /// The turn begins anew: a range was passed over or ended.
    Passed,
    /// The turn waits: a group is to be sealed, and there is no room.
    Full,
}

impl Within {
    /// Takes away what stands behind the end. Returns whether the input comes so far.
    pub(super) fn cuts_off(self, input: &mut Input<'_>) -> bool {
        let left = self.end.map(|end| usize::try_from(end - input.offset).unwrap_or(usize::MAX));
        let len = left.map(|left| input.lead.saturating_add(left));
        let Some(len) = len.filter(|len| *len <= input.bytes.len()) else { return false };
        input.bytes = &input.bytes[..len];
        (input.flush_partial, input.is_range_end) = (false, true);
        true
    }

    /// Whether there is nothing more to read before the end.
    pub(super) fn ends_at(self, offset: u64) -> bool {
        self.end == Some(offset)
    }
}

impl<O: Os, K: Keep> Collector<O, K> {
    /// Says how far the next turn of a stream may read. Its bytes before the offset are known to be
    /// the right ones. *Cost*: nothing, unless there are ranges to be read again.
    pub(super) fn ahead(&mut self, stream: StreamKey) -> io::Result<Ahead> {
        let (free, offset) = match (self.ledger.once.saved(stream), self.registry.get(stream.file))
        {
            (Some(_), Some(tracked)) => (self.rules.tail.line_bytes_max, tracked.read_offset),
            _ => {
                let line_bytes_max = self.rules.tail.line_bytes_max;
                return Ok(Ahead::Read(Within { end: None, line_bytes_max }));
            }
        };
        while let Some(&range) = self.ledger.once.saved(stream) {
            let Range { start, end, tail, .. } = range;
            let within =
                |end, line_bytes_max| Ahead::Read(Within { end: Some(end), line_bytes_max });
            if self.batcher.is_held(stream) && offset < end {
                return Ok(within(end, range.line_bytes_max as usize));
            }
            if self.batcher.is_held(stream) {
                return Ok(if self.end_range(stream) { Ahead::Passed } else { Ahead::Full });
            }
            let Some(reader) = self.readers.get(&stream.file) else { break };
            if offset > start || !reader.has_tail(tail, end)? {
                self.give_up_range(stream, range);
                continue;
            }
            if offset < start {
                return Ok(within(start, free));
            }
            if self.batcher.is_open(stream) {
                return Ok(if self.end_range(stream) { Ahead::Passed } else { Ahead::Full });
            }
            if self.ledger.once.is_saved_done(stream) {
                self.pass_range(stream, range);
                return Ok(Ahead::Passed);
            }
            self.batcher.hold(stream);
            return Ok(within(end, range.line_bytes_max as usize));
        }
        Ok(Ahead::Read(Within { end: None, line_bytes_max: free }))
    }

    /// Seals what is open when a range, or what stands before one, was read to its end. Returns
    /// `false` if there is no room for that.
    pub(super) fn end_range(&mut self, stream: StreamKey) -> bool {
        if self.batcher.is_open(stream) {
            if !self.handoff.has_room() {
                return false;
            }
            self.seal(stream, Reason::Full);
        } else if self.batcher.is_held(stream) {
            // There was no record in it.
            self.batcher.seal(stream, Reason::Full);
            if let Some(&Range { start, .. }) = self.ledger.once.saved(stream) {
                self.ledger.once.take_saved(stream, start);
            }
        }
        true
    }

    fn give_up_range(&mut self, stream: StreamKey, range: Range) {
        let Range { start, end, .. } = range;
        self.ledger.once.take_saved(stream, start);
        let Some(tracked) = self.registry.get(stream.file) else { return };
        if self.said.admits(Kind::NotAgain) {
            tracing::warn!(
                file = %tracked.opened.path.display(), offset = start, bytes = end - start,
                "other bytes stand where lines were sent from that are not known to have arrived; \
                 reading what is there"
            );
        }
    }

    /// Passes over a range of which all has arrived.
    fn pass_range(&mut self, stream: StreamKey, range: Range) {
        let Range { start, end, tail, .. } = range;
        let parts = self.ledger.once.take_saved(stream, start);
        self.ledger.once.on_read_again(Span::new(stream, start, end), &parts);
        self.registry.on_read(stream.file, end, tail, false, false);
        self.pass(stream, start, end, tail, 0);
        self.ledger.on_watermark(&mut self.registry, stream);
    }

    /// Hands over the parts of a range that was read again, or as much of it as is still there:
    /// each part that may not have arrived goes under its old id.
    pub(super) fn hand_over_again(
        &mut self,
        batch: SealedBatch,
        tail: Fingerprint,
        mut parts: Vec<Range>,
    ) {
        let records = parts.iter().map(|part| u64::from(part.records)).sum::<u64>();
        if self.said.admits(Kind::Again) {
            tracing::info!(
                file = %batch.path, offset = batch.span.start, bytes = batch.span.bytes(),
                records = batch.lines, parts = parts.len(), "sending again under the same id"
            );
        }
        if let [whole] = &mut parts[..] {
            // The same bytes, whatever they are cut into.
            whole.records = batch.lines;
        } else if records != u64::from(batch.lines) {
            if self.said.admits(Kind::NotAgain) {
                tracing::warn!(
                    file = %batch.path, offset = batch.span.start, records = batch.lines,
                    "other lines stand where some of a refused batch may have arrived; sending all"
                );
            }
            self.ledger.once.on_sealed(&batch, tail, self.rules.tail.line_bytes_max);
            return self.hand_over(batch);
        }
        self.ledger.once.on_read_again(batch.span, &parts);
        if let [_] = &parts[..] {
            return self.hand_over(batch);
        }
        for Range { first, records, state, .. } in parts {
            if state == RangeState::Done {
                self.on_done(batch.span, records, batch.route);
                continue;
            }
            let id = self.batcher.next_id();
            let wanted = part(&batch, first..first + records, id);
            self.hand_over(wanted.expect("a sealed batch has the records that it counts"));
        }
    }

    /// Makes the read buffer large enough for what is to be read again: its lines may be longer
    /// than the present settings allow.
    pub(super) fn make_room_to_read_again(&mut self, stream: StreamKey) {
        let longest = self.ledger.once.longest_line(stream);
        let least = split::lookahead(longest) + TAIL_BYTES_MAX;
        if longest > 0 {
            self.intake.widen_buffer(least);
        }
    }
}
