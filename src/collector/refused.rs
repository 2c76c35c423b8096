//! Batches that the service will never take as they are.
//!
//! ```text
//! times out of bounds     ─▶ the time of now ─────┐
//! compression not known   ─▶ LZ4 ─────────────────┼─▶ sent again
//! too large, or malformed ─▶ two halves ──────────┤
//!   and a single record   ─▶ set aside on disk    │
//! perhaps too large       ─▶ two halves ──────────┘
//! ```
//!
//! So the record that spoils a batch is found and set aside, and the others are delivered. Where
//! record after record of a stream is set aside and none is delivered, it is something else in the
//! batches, a tag for one: then they are set aside whole, until one is delivered.
//!
//! # Limits
//! A batch that comes back keeps its room in the hand-off until it is taken apart, and it is taken
//! apart only when few parts are under way: the last refused first, so that one batch is dealt with
//! before the next. While a record cannot be set aside nothing is taken apart and nothing is read.

use std::time::Instant;

use super::Collector;
use super::ledger::{Ledger, Told};
use super::said::Kind;
use crate::base::sealed::{Refusal, SealedBatch};
use crate::batch::rewrite;
use crate::checkpoint::keep::Keep;
use crate::tail::os::Os;
use logferry_wire::Compression;

impl<O: Os, K: Keep> Collector<O, K> {
    /// Decides what becomes of a refused batch.
    pub(super) fn on_refused(&mut self, batch: SealedBatch, refusal: Refusal) {
        let can_help = match &refusal {
            Refusal::Malformed { .. } => {
                if let Some(restamped) = rewrite::restamp(&batch, self.server_unix()) {
                    return self.push_restamped(restamped);
                }
                batch.lines > 1
            }
            Refusal::TooLarge { .. } | Refusal::SeemsTooLarge => batch.lines > 1,
            Refusal::Compression => batch.compression != FALLBACK,
        };
        if can_help {
            self.handoff.reserve(batch.payload.len());
            self.ledger.refusals.wait(batch, refusal);
        } else {
            self.ledger.refusals.give_up(batch, refusal);
        }
    }

    fn push_restamped(&mut self, batch: SealedBatch) {
        if self.said.admits(Kind::Restamped) {
            tracing::warn!(
                file = %batch.path, batch = batch.id.0, records = batch.lines,
                "the service refuses the times of a batch; sending it with the time of now"
            );
        }
        self.hand_over(batch);
    }

    /// Sets aside what must be, and sends what was made of the others.
    pub(super) fn treat_refused(&mut self, now: Instant) {
        if self.ledger.refusals.has_unparked() {
            self.park(now);
        }
        while let Some((batch, refusal)) = self.ledger.refusals.next() {
            self.handoff.free(batch.payload.len());
            // No acknowledgement follows if it is set aside.
            self.intake.unblock();
            self.change(batch, refusal);
            self.park(now);
        }
    }

    fn change(&mut self, batch: SealedBatch, refusal: Refusal) {
        let is_hopeless = self.ledger.refusals.is_hopeless(batch.span.stream);
        let parts = match refusal {
            Refusal::Malformed { .. } if is_hopeless => None,
            Refusal::Compression => self.recompressed(&batch).map(|batch| vec![batch]),
            Refusal::Malformed { .. } | Refusal::TooLarge { .. } | Refusal::SeemsTooLarge => {
                let ids = [self.batcher.next_id(), self.batcher.next_id()];
                self.counters.batches_split += 1;
                rewrite::split(&batch, ids).map(Vec::from)
            }
        };
        let Some(parts) = parts else {
            // Or made by this program and not understood by it: kept as it is.
            self.ledger.refusals.give_up(batch, refusal);
            return;
        };
        for part in parts {
            tracing::debug!(
                file = %part.path, batch = part.id.0, of = batch.id.0, records = part.lines,
                "a refused batch is sent again, changed"
            );
            // A part that only seems too large may never end: it must not keep others from being cut.
            if refusal != Refusal::SeemsTooLarge {
                self.ledger.refusals.on_tried(part.id);
            }
            self.hand_over(part);
        }
    }

    /// The batch as the service takes it; all that follow it there will be compressed so from the start.
    fn recompressed(&mut self, batch: &SealedBatch) -> Option<SealedBatch> {
        if self.batcher.compression(batch.destination) != FALLBACK {
            self.batcher.set_compression(batch.destination, FALLBACK).ok()?;
            tracing::warn!(
                refused = batch.compression.name(),
                instead = FALLBACK.name(),
                "the service does not take this compression; going on with another"
            );
        }
        rewrite::recompress(batch, FALLBACK)
    }

    /// Sets refused records aside. What cannot be written stays, and its watermark with it.
    fn park(&mut self, now: Instant) {
        let mut unparked = self.ledger.refusals.take_unparked().into_iter();
        while let Some((batch, refusal)) = unparked.next() {
            let unix = self.os.wall().as_secs();
            let (counters, said, timers) = (&mut self.counters, &mut self.said, &mut self.timers);
            let mut told = Told { counters, said, timers };
            let Some(parked) = self.ledger.park(&batch, &refusal, unix, &mut told) else {
                // The others would fare the same.
                for (batch, refusal) in [(batch, refusal)].into_iter().chain(unparked) {
                    self.ledger.refusals.give_up(batch, refusal);
                }
                Ledger::<K>::save_soon(&mut self.timers, now);
                return;
            };
            self.counters.batches_parked += 1;
            self.counters.lines_parked += u64::from(batch.lines);
            if let Some(times) = self.ledger.refusals.on_parked(batch.span.stream, &refusal, now) {
                say_parked(&batch, &refusal, &parked.display().to_string(), times);
            }
            self.on_done(batch.span, batch.lines, batch.route);
        }
    }
}

fn say_parked(batch: &SealedBatch, refusal: &Refusal, parked: &str, times: u64) {
    let (code, reason) = refusal.words();
    tracing::error!(
        file = %batch.path, offset = batch.span.start, record = batch.first,
        records = batch.lines, code, reason, parked, times,
        hint = "logferry parked list",
        "the service refuses records for good; what it refuses is set aside"
    );
}

/// The compression that every era of the service takes.
const FALLBACK: Compression = Compression::Lz4;
