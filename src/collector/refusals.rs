//! The batches that the service refused: which wait, which are tried again, which cannot be helped.
//!
//! Pure. What is done with one is in `refused`.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use crate::base::sealed::{BatchId, Refusal, SealedBatch};
use crate::base::span::StreamKey;
use crate::limit::repeat::{Repeat, Say};

/// Most parts of refused batches under way. Enough to keep a sender busy with nothing else.
const PARTS_MAX: usize = 32;
/// How many pieces of a stream are set aside in a row before its batches are not taken apart any
/// more.
const PARKED_IN_A_ROW_MAX: u32 = 32;
/// Least time between two words on what is set aside.
const SAY_INTERVAL: Duration = Duration::from_secs(10);

/// The refused batches.
pub(super) struct Refusals {
    /// Batches to be changed and sent again, the last refused first.
    waiting: Vec<(SealedBatch, Refusal)>,
    /// Batches that were made of refused ones, and are under way.
    trying: HashSet<BatchId>,
    /// Batches to be set aside.
    unparked: Vec<(SealedBatch, Refusal)>,
    /// How many malformed pieces of a stream were set aside since something of it was delivered.
    in_a_row: HashMap<StreamKey, u32>,
    parked: Repeat<()>,
}

impl Default for Refusals {
    fn default() -> Self {
        Self {
            waiting: Vec::new(),
            trying: HashSet::new(),
            unparked: Vec::new(),
            in_a_row: HashMap::new(),
            parked: Repeat::new(SAY_INTERVAL),
        }
    }
}

impl Refusals {
    /// Notes that a batch has ended, one way or the other.
    pub(super) fn on_ended(&mut self, id: BatchId) {
        self.trying.remove(&id);
    }

    /// Begins the count of a stream's set-aside pieces anew: something of the stream was delivered, or
    /// nothing more of it will come.
    pub(super) fn forget_row(&mut self, stream: StreamKey) {
        self.in_a_row.remove(&stream);
    }

    /// Whether no record is to blame for what is refused of this stream.
    pub(super) fn is_hopeless(&self, stream: StreamKey) -> bool {
        self.in_a_row.get(&stream).is_some_and(|count| *count >= PARKED_IN_A_ROW_MAX)
    }

    /// Keeps a batch that is to be changed and sent again.
    pub(super) fn wait(&mut self, batch: SealedBatch, refusal: Refusal) {
        self.waiting.push((batch, refusal));
    }

    /// Takes the batch that is to be changed next, unless enough is under way, or something cannot be
    /// set aside.
    pub(super) fn next(&mut self) -> Option<(SealedBatch, Refusal)> {
        let is_room = self.unparked.is_empty() && self.trying.len() < PARTS_MAX;
        if is_room { self.waiting.pop() } else { None }
    }

    /// Notes that a batch which was made of a refused one is under way.
    pub(super) fn on_tried(&mut self, id: BatchId) {
        self.trying.insert(id);
    }

    /// Keeps a batch that is to be set aside.
    pub(super) fn give_up(&mut self, batch: SealedBatch, refusal: Refusal) {
        self.unparked.push((batch, refusal));
    }

    /// Whether something is to be set aside and is not yet.
    pub(super) fn has_unparked(&self) -> bool {
        !self.unparked.is_empty()
    }

    /// Takes what is to be set aside.
    pub(super) fn take_unparked(&mut self) -> Vec<(SealedBatch, Refusal)> {
        std::mem::take(&mut self.unparked)
    }

    /// Notes that a batch is set aside. Returns how many were since somebody was told, if it is time
    /// to tell again.
    pub(super) fn on_parked(
        &mut self,
        stream: StreamKey,
        refusal: &Refusal,
        now: Instant,
    ) -> Option<u64> {
        if matches!(refusal, Refusal::Malformed { .. }) {
            *self.in_a_row.entry(stream).or_default() += 1;
        }
        match self.parked.on_fault((), now)? {
            Say::First => Some(1),
            Say::Again { count, .. } => Some(count),
        }
    }
}
