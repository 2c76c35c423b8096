//! What is sent now: the queue in front of one destination.
//!
//! Pure. Four verbs: [`Dispatch::on_batch`], [`Dispatch::on_result`], [`Dispatch::poll`] and
//! [`Dispatch::deadline`]. It gives *loads*: a batch, or several small ones in one request. It holds
//! batches until they end; nothing is ever given up.
//!
//! ```text
//!              take: oldest due, and what may go with it; for a probe the least failed, alone
//!  on_batch ─▶ Queue ─────────────────────────────▶ in flight ── delivered, or refused alone ─▶ Ack
//!                ▲        when all three Limiters        │
//!                │        let a request start            │
//!                └──── failed; refused with others ──────┘
//! ```
//!
//! - [`super::limiters`]: when a request may start, and how many at once. They are told of every
//!   result, and one of several batches is one result.
//! - [`super::queue`]: whose turn it is, and which go together.
//! - [`super::passage`]: what is halved because connections break that carry so much.
//!
//! # What a result does
//!
//! | verdict                          | to the limiters | to the batches                        |
//! |----------------------------------|-----------------|---------------------------------------|
//! | delivered                        | success         | end                                   |
//! | refused, alone                   | success         | ends                                  |
//! | refused, together                | success         | part in halves, due at once           |
//! | failed for no known reason, together | nothing     | part in halves, due at once           |
//! | the date was wrong               | nothing         | due at once                           |
//! | cut alone, perhaps for its size  | as a failure, without a longer pause | ends: it is halved |
//! | the same, with a sequence id     | as a failure    | waits, and is told of                 |
//! | failed, a gate is closed now     | failure         | wait for the gate                     |
//! | failed, the gates stay open      | failure         | wait for a pause of their own         |
//! | a known culprit failed           | nothing         | waits for a pause of its own          |
//!
//! A *known culprit* has failed before where others succeed. That it fails again says something
//! about the destination only if nothing has succeeded since the last one did; otherwise a hundred
//! of them would look like an outage, and one whose failure comes with a `Retry-After` too.
//!
//! In the two before that, those that were together part in halves as well, where what they carry
//! may be the reason, and it is not held against any of them: who is to blame shows when it is alone.
//!
//! # Promises
//! While nothing comes through, a minute sees a handful of requests, whatever the backlog. An
//! endpoint that has recovered is found within [`super::backoff::PAUSE_MAX`] of the end of what is
//! under way, or when the pause that it asked for is over. While it works, no batch waits for
//! another one that does not come through.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::backoff;
use super::limiter::{Failed, Ready};
use super::limiters::{Eras, Limiters};
use super::package_list;
use super::passage::{BYTES_MIN, Passage};
use super::queue::{Entry, Queue, Together};
use super::verdict::{FailureKind, Verdict};
use crate::base::sealed::{Ack, BatchId, DestinationId, Outcome, Refusal, SealedBatch};

/// The batches on their way to the destination.
#[derive(Debug)]
pub struct Dispatch {
    queue: Queue,
    in_flight: BTreeMap<RequestId, Flight>,
    /// The request to come.
    next: RequestId,
    limiters: Limiters,
    passage: Passage,
    /// Batches that would be halved if they might be.
    held_whole: BTreeSet<BatchId>,
    /// Something has succeeded since a known culprit failed.
    has_succeeded: bool,
    rng: fastrand::Rng,
}

/// Number of a request in this run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(pub u64);

/// What one request carries.
#[derive(Clone, Debug)]
pub struct Load {
    /// Number of the request.
    pub request: RequestId,
    /// At least one. All have the same destination, route and compression, and several have no
    /// sequence id.
    pub batches: Vec<SealedBatch>,
}

impl Load {
    /// Where it goes.
    ///
    /// # Panics
    /// Never: a load holds a batch.
    #[must_use]
    pub fn destination(&self) -> DestinationId {
        self.batches[0].destination
    }

    /// Whether it is a package list.
    #[must_use]
    pub fn is_list(&self) -> bool {
        self.batches.len() > 1
    }
}

#[derive(Debug)]
struct Flight {
    entries: Vec<Entry>,
    started: Instant,
    eras: Eras,
}

impl Dispatch {
    /// An empty queue with all gates open. `rng` draws the jitter.
    #[must_use]
    pub fn new(concurrency_max: usize, together: Together, rng: fastrand::Rng) -> Self {
        Self {
            queue: Queue::new(together),
            in_flight: BTreeMap::new(),
            next: RequestId(0),
            limiters: Limiters::new(concurrency_max),
            passage: Passage::default(),
            held_whole: BTreeSet::new(),
            has_succeeded: false,
            rng,
        }
    }

    /// Lets no batch of a stream start before the older ones of it have ended (`ordered_delivery`).
    #[must_use]
    pub fn in_order(mut self) -> Self {
        self.queue.keep_order();
        self
    }

    /// Takes a batch in.
    ///
    /// # Panics
    /// If a batch of that number waits already: the collector counts wrong.
    pub fn on_batch(&mut self, batch: SealedBatch) {
        self.queue.push(batch);
    }

    /// The load to send now; it counts as under way until its result comes. Ask until `None`.
    ///
    /// *Cost*: the copies share the payloads.
    pub fn poll(&mut self, now: Instant) -> Option<Load> {
        let may_start = match self.limiters.ready(self.in_flight.len()) {
            Ready::Now => true,
            Ready::At(at) => now >= at,
            Ready::AfterResult => false,
        };
        if !may_start || self.queue.is_empty() {
            return None;
        }
        let is_probe = !self.limiters.are_open();
        let entries = match is_probe {
            true if self.passage.wants_smallest() => self.queue.take_smallest(),
            true => self.queue.take_probe(),
            false => self.queue.take_due(now, self.passage.limit(now)),
        };
        if entries.is_empty() {
            return None;
        }
        let request = self.next;
        self.next.0 += 1;
        let batches = entries.iter().map(|entry| entry.batch.clone()).collect();
        let eras = self.limiters.on_start(now);
        self.in_flight.insert(request, Flight { entries, started: now, eras });
        Some(Load { request, batches })
    }

    /// Ends the batches that are too large to come through, as it seems. Ask before [`Self::poll`].
    pub fn take_oversized(&mut self, now: Instant) -> Vec<Ack> {
        let Some(bytes) = self.passage.limit(now) else { return Vec::new() };
        let oversized = self.queue.take_oversized(bytes, now);
        oversized.into_iter().map(Entry::halved).collect()
    }

    /// When [`Self::poll`] has something, if neither a batch nor a result comes first.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let due = self.queue.due()?;
        let start = match self.limiters.ready(self.in_flight.len()) {
            Ready::Now => None,
            Ready::At(at) => Some(at),
            Ready::AfterResult => return None,
        };
        // `None` is now, and less than any instant. A probe takes what is not due, too.
        if self.limiters.are_open() { start.max(due) } else { start }
    }

    /// A request has ended; returns the batches that ended with it.
    ///
    /// # Panics
    /// If no such request is under way.
    pub fn on_result(&mut self, request: RequestId, verdict: Verdict, now: Instant) -> Vec<Ack> {
        let flight = self.in_flight.remove(&request).expect("a result belongs to a request");
        let is_list = flight.entries.len() > 1;
        self.queue.on_end(&flight.entries);
        if let [entry] = &flight.entries[..] {
            self.held_whole.remove(&entry.batch.id);
        }
        match verdict {
            Verdict::Delivered => {
                self.passage.on_passed(flight.body_bytes());
                self.on_success(flight.eras, now);
                if is_list {
                    self.queue.on_list_taken();
                } else {
                    self.queue.on_single_taken(now);
                }
                return flight.end(&Outcome::Delivered);
            }
            Verdict::Refuse(refusal) => {
                if !matches!(refusal, Refusal::TooLarge { .. }) {
                    self.passage.on_passed(flight.body_bytes());
                }
                self.on_success(flight.eras, now);
                if !is_list {
                    self.queue.on_refused_alone(&flight.entries[0]);
                    let batch = flight.entries[0].batch.clone();
                    return flight.end(&Outcome::Refused { batch, refusal });
                }
                self.part(flight, now);
            }
            Verdict::Retry { kind: FailureKind::Other, .. } if is_list => {
                self.limiters.on_silence(flight.eras, now);
                self.part(flight, now);
            }
            Verdict::ClockSkew { .. } => {
                self.limiters.on_silence(flight.eras, now);
                self.put_back(flight.entries);
            }
            Verdict::Retry { kind, after } => {
                let failed = Failed { kind, wish: after, started: flight.started };
                self.on_failure(flight, failed, now);
            }
            Verdict::Cut => return self.on_cut(flight, now),
        }
        Vec::new()
    }

    fn on_success(&mut self, eras: Eras, now: Instant) {
        self.has_succeeded = true;
        if self.limiters.on_success(eras, now) {
            self.queue.step_back(now, &mut self.rng);
        }
    }

    /// A list was refused: its halves go again at once.
    fn part(&mut self, mut flight: Flight, now: Instant) {
        self.queue.on_list_refused(now);
        let len = flight.entries.len();
        flight.entries.iter_mut().for_each(|entry| entry.part_from(len));
        self.put_back(flight.entries);
    }

    fn on_failure(&mut self, flight: Flight, failed: Failed, now: Instant) {
        let Flight { mut entries, eras, .. } = flight;
        let Failed { kind, wish, .. } = failed;
        let len = entries.len();
        let is_shared = len > 1 && may_be_its_own(kind);
        if is_shared {
            self.queue.on_list_failed();
        }
        if self.is_its_own(&entries, kind) {
            self.limiters.on_silence(eras, now);
        } else if self.limiters.on_failure(eras, failed, now, &mut self.rng) {
            self.queue.step_back(now, &mut self.rng);
        }
        let (are_open, rng) = (self.limiters.are_open(), &mut self.rng);
        for entry in &mut entries {
            match (are_open, is_shared) {
                (true, true) => entry.rest(kind, now, rng),
                (true, false) => entry.step_back(kind, now, rng),
                (false, true) => {}
                (false, false) => entry.on_failure(),
            }
            if is_shared || (are_open && may_be_its_own(kind)) {
                entry.part_from(len);
            }
            if wish.is_some() {
                entry.wait_at_least(backoff::wish_granted(wish), now);
            }
        }
        self.put_back(entries);
    }

    /// A connection broke: a failure of the network, and perhaps the size of what it carried.
    fn on_cut(&mut self, flight: Flight, now: Instant) -> Vec<Ack> {
        let bytes = flight.body_bytes();
        self.passage.on_cut(bytes, now);
        let id = match flight.entries.as_slice() {
            [entry] if entry.can_be_halved() => Some(entry.batch.id),
            [entry] if entry.must_stay_whole() && self.passage.must_halve(bytes, false) => {
                self.held_whole.insert(entry.batch.id);
                None
            }
            _ => None,
        };
        let failed = Failed { kind: FailureKind::Network, wish: None, started: flight.started };
        // Puts it back, so that it is the first of its file again.
        self.on_failure(flight, failed, now);
        let is_smallest = self.queue.has_none_below(bytes, BYTES_MIN);
        let id = id.filter(|_| self.passage.must_halve(bytes, is_smallest));
        let halved = id.and_then(|id| self.queue.take(id));
        if halved.is_some() {
            self.limiters.on_halved();
        }
        halved.into_iter().map(Entry::halved).collect()
    }

    /// Whether a failure is that of a known culprit alone.
    fn is_its_own(&mut self, entries: &[Entry], kind: FailureKind) -> bool {
        let [entry] = entries else { return false };
        entry.has_stepped_back()
            && may_be_its_own(kind)
            && self.limiters.are_open()
            && std::mem::take(&mut self.has_succeeded)
    }

    fn put_back(&mut self, entries: Vec<Entry>) {
        entries.into_iter().for_each(|entry| self.queue.put_back(entry));
    }

    /// Batches that are not under way.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// Batches that were cut for their size, as it seems, and may not be halved.
    #[must_use]
    pub fn held_whole(&self) -> &BTreeSet<BatchId> {
        &self.held_whole
    }

    /// Requests under way.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Batches that have not ended.
    #[must_use]
    pub fn unfinished(&self) -> usize {
        let under_way = self.in_flight.values().map(|flight| flight.entries.len());
        self.queue.len() + under_way.sum::<usize>()
    }

    /// Whether every batch has ended.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.in_flight.is_empty()
    }

    /// Requests that may be under way now.
    #[must_use]
    pub fn window(&self) -> usize {
        self.limiters.window()
    }
}

impl Flight {
    fn end(self, outcome: &Outcome) -> Vec<Ack> {
        self.entries.into_iter().map(|entry| entry.end(outcome.clone())).collect()
    }

    /// Size of the request's body.
    fn body_bytes(&self) -> usize {
        match self.entries.as_slice() {
            [entry] => entry.batch.payload.len(),
            entries => entries.iter().map(|entry| package_list::package_len(&entry.batch)).sum(),
        }
    }
}

impl Entry {
    fn end(self, outcome: Outcome) -> Ack {
        let SealedBatch { id, span, lines, route, payload, .. } = self.batch;
        Ack { id, span, lines, route, payload_bytes: payload.len(), outcome }
    }

    fn halved(self) -> Ack {
        let (batch, refusal) = (self.batch.clone(), Refusal::SeemsTooLarge);
        self.end(Outcome::Refused { batch, refusal })
    }
}

/// Whether what a request carries can be the reason for such a failure: somebody on the way does
/// not pass it, or the endpoint stumbles over it.
fn may_be_its_own(kind: FailureKind) -> bool {
    match kind {
        FailureKind::Network
        | FailureKind::Server
        | FailureKind::Unverified
        | FailureKind::Other => true,
        FailureKind::Quota
        | FailureKind::ShardQuota
        | FailureKind::Credentials
        | FailureKind::Missing
        | FailureKind::Clock => false,
    }
}

#[cfg(test)]
#[path = "dispatch_tests.rs"]
mod tests;
