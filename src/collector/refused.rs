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
//! record after record of a file is set aside and none is delivered, it is something else in the
//! batches, a tag for one: then they are set aside whole, until one is delivered.
//!
//! # Limits
//! A batch that comes back keeps its room in the hand-off until it is taken apart, and it is taken
//! apart only when few parts are under way: the last refused first, so that one batch is dealt with
//! before the next. While a record cannot be set aside nothing is taken apart and nothing is read.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use super::said::Kind;
use super::timers::Timer;
use super::{Collector, DURABLE_PERIOD};
use crate::base::sealed::{BatchId, Refusal, SealedBatch};
use crate::base::span::FileKey;
use crate::batch::rewrite;
use crate::checkpoint::keep::Keep;
use crate::checkpoint::parked::Destination;
use crate::limit::repeat::{Repeat, Say};
use crate::tail::os::Os;
use logferry_wire::Compression;

/// Most parts of refused batches under way. Enough to keep a sender busy with nothing else.
const PARTS_MAX: usize = 32;
/// How many pieces of a file are set aside in a row before its batches are not taken apart any
/// more.
const PARKED_IN_A_ROW_MAX: u32 = 32;
/// Least time between two words on what is set aside.
const SAY_INTERVAL: Duration = Duration::from_secs(10);

/// The refused batches.
pub(super) struct Refused {
    destination: Destination,
    /// Batches to be changed and sent again, the last refused first.
    waiting: Vec<(SealedBatch, Refusal)>,
    /// Batches that were made of refused ones, and are under way.
    trying: HashSet<BatchId>,
    /// How many malformed pieces of a file were set aside since something of it was delivered.
    in_a_row: HashMap<FileKey, u32>,
    parked: Repeat<()>,
}

impl Refused {
    pub(super) fn new(destination: Destination) -> Self {
        Self {
            destination,
            waiting: Vec::new(),
            trying: HashSet::new(),
            in_a_row: HashMap::new(),
            parked: Repeat::new(SAY_INTERVAL),
        }
    }

    /// Notes that a batch has ended, one way or the other.
    pub(super) fn on_ended(&mut self, id: BatchId) {
        self.trying.remove(&id);
    }

    /// Begins the count of a file's set-aside pieces anew: something of the file was delivered, or
    /// nothing more of it will come.
    pub(super) fn forget_row(&mut self, file: FileKey) {
        self.in_a_row.remove(&file);
    }

    /// Whether no record is to blame for what is refused of this file.
    fn is_hopeless(&self, file: FileKey) -> bool {
        self.in_a_row.get(&file).is_some_and(|count| *count >= PARKED_IN_A_ROW_MAX)
    }
}

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
            self.returned.waiting.push((batch, refusal));
        } else {
            self.unparked.push((batch, refusal));
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
        if !self.unparked.is_empty() {
            self.park(now);
        }
        while self.unparked.is_empty() && self.returned.trying.len() < PARTS_MAX {
            let Some((batch, refusal)) = self.returned.waiting.pop() else { break };
            self.handoff.free(batch.payload.len());
            // No acknowledgement follows if it is set aside.
            self.intake.unblock();
            self.change(batch, refusal);
            self.park(now);
        }
    }

    fn change(&mut self, batch: SealedBatch, refusal: Refusal) {
        let is_hopeless = self.returned.is_hopeless(batch.span.file);
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
            self.unparked.push((batch, refusal));
            return;
        };
        for part in parts {
            tracing::debug!(
                file = %part.path, batch = part.id.0, of = batch.id.0, records = part.lines,
                "a refused batch is sent again, changed"
            );
            // A part that only seems too large may never end: it must not keep others from being cut.
            if refusal != Refusal::SeemsTooLarge {
                self.returned.trying.insert(part.id);
            }
            self.hand_over(part);
        }
    }

    /// The batch as the service takes it; all that follow will be compressed so from the start.
    fn recompressed(&mut self, batch: &SealedBatch) -> Option<SealedBatch> {
        if self.batcher.compression() != FALLBACK {
            self.batcher.set_compression(FALLBACK).ok()?;
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
        let mut unparked = std::mem::take(&mut self.unparked).into_iter();
        while let Some((batch, refusal)) = unparked.next() {
            let unix = self.os.wall().as_secs();
            match self.store.park(&batch, &self.returned.destination, &refusal, unix) {
                Ok(parked) => {
                    self.counters.batches_parked += 1;
                    self.counters.lines_parked += u64::from(batch.lines);
                    if matches!(refusal, Refusal::Malformed { .. }) {
                        *self.returned.in_a_row.entry(batch.span.file).or_default() += 1;
                    }
                    self.say_parked(&batch, &refusal, &parked.display().to_string(), now);
                    self.on_done(batch.span, batch.lines, batch.route);
                }
                Err(error) => {
                    let meanwhile = "nothing more is read until that is possible";
                    self.note_checkpoint_error("set a refused batch aside", meanwhile, &error);
                    self.unparked.push((batch, refusal));
                    // The others would fare the same.
                    self.unparked.extend(unparked);
                    self.timers.start(Timer::Durable, now + DURABLE_PERIOD);
                    return;
                }
            }
        }
    }

    fn say_parked(&mut self, batch: &SealedBatch, refusal: &Refusal, parked: &str, now: Instant) {
        let Some(say) = self.returned.parked.on_fault((), now) else { return };
        let (code, reason) = refusal.words();
        let times = match say {
            Say::First => 1,
            Say::Again { count, .. } => count,
        };
        tracing::error!(
            file = %batch.path, offset = batch.span.start, record = batch.first,
            records = batch.lines, code, reason, parked, times,
            hint = "logferry parked list",
            "the service refuses records for good; what it refuses is set aside"
        );
    }
}

/// The compression that every era of the service takes.
const FALLBACK: Compression = Compression::Lz4;
