//! Which batch goes next, and when: the queue in front of one destination.
//!
//! Pure. Four verbs: [`Dispatch::on_batch`], [`Dispatch::on_result`], [`Dispatch::poll`] and
//! [`Dispatch::deadline`]. It holds batches until they end, and it has no way to let go of one
//! otherwise: there is no limit of tries, of age or of number.
//!
//! # The gate
//!
//! ```text
//!           a request fails                    the pause is over
//!   Open ───────────────────▶ Closed { until } ─────────────────▶ Probing
//!    ▲                               ▲                            │    │
//!    └───────────────────────────────┼──────── it succeeds ───────┘    │
//!                                    └──────── it fails ───────────────┘
//! ```
//!
//! A failure is the destination's affair first: everything waits for the back-off, then *one*
//! request asks how things are. Its success opens the gate again, and the [`Window`] grows from
//! where the failure has left it. Requests that were under way when the gate closed are old news:
//! if they fail, it was the same trouble; if they succeed, that batch is done and nothing else
//! follows.
//!
//! # Whose turn it is
//!
//! The oldest batch first. But a failure may be the batch's own affair (a body that some proxy does
//! not pass), and it must not stand in the way of all others: so probes go through the batches that
//! have failed least, and a batch that failed while another one then succeeded steps back for a
//! pause of its own. It never steps back for longer than [`backoff::PAUSE_MAX`], and it goes
//! first when it returns.

use std::collections::BTreeMap;
use std::time::Instant;

use super::backoff::{self, Backoff};
use super::verdict::{FailureKind, Verdict};
use super::window::{Era, Window};
use crate::sealed::{Ack, BatchId, Outcome, SealedBatch};

/// The batches on their way to the destination.
#[derive(Debug)]
pub struct Dispatch {
    waiting: BTreeMap<BatchId, Entry>,
    in_flight: BTreeMap<BatchId, Flight>,
    gate: Gate,
    window: Window,
    backoff: Backoff,
    rng: fastrand::Rng,
}

#[derive(Debug)]
struct Entry {
    batch: SealedBatch,
    /// Attempts that failed since the gate was last open.
    failures: u32,
    /// Times it failed where another batch succeeded.
    set_back: u32,
    /// While the gate is open, it waits until then.
    not_before: Option<Instant>,
}

#[derive(Debug)]
struct Flight {
    entry: Entry,
    started: Instant,
    era: Era,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gate {
    Open,
    Closed {
        until: Instant,
    },
    /// Closed, with one request of the present era under way.
    Probing,
}

impl Dispatch {
    /// An empty queue with its gate open. `rng` draws the jitter.
    #[must_use]
    pub fn new(concurrency_max: usize, rng: fastrand::Rng) -> Self {
        Self {
            waiting: BTreeMap::new(),
            in_flight: BTreeMap::new(),
            gate: Gate::Open,
            window: Window::new(concurrency_max),
            backoff: Backoff::default(),
            rng,
        }
    }

    /// Takes a batch in.
    ///
    /// # Panics
    /// If a batch of that number is here already: the collector counts wrong.
    pub fn on_batch(&mut self, batch: SealedBatch) {
        let id = batch.id;
        assert!(!self.in_flight.contains_key(&id), "a batch is handed over once");
        let entry = Entry { batch, failures: 0, set_back: 0, not_before: None };
        assert!(self.waiting.insert(id, entry).is_none(), "a batch is handed over once");
    }

    /// The batch to attempt now; it counts as under way until its result comes. Ask until `None`.
    ///
    /// *Cost*: the copy shares the payload.
    pub fn poll(&mut self, now: Instant) -> Option<SealedBatch> {
        let id = match self.gate {
            Gate::Open if self.in_flight.len() < self.window.size() => self.oldest_ready(now)?,
            Gate::Closed { until } if now >= until => {
                // Requests from before may still hang; one of them has ended, or the gate would
                // not have closed, so there is room for the probe.
                debug_assert!(self.in_flight.len() < self.window.size_max());
                let id = self.least_failed()?;
                self.gate = Gate::Probing;
                id
            }
            Gate::Open | Gate::Closed { .. } | Gate::Probing => return None,
        };
        let entry = self.waiting.remove(&id)?;
        let batch = entry.batch.clone();
        self.in_flight.insert(id, Flight { entry, started: now, era: self.window.era() });
        Some(batch)
    }

    /// When [`Self::poll`] has something, if neither a batch nor a result comes first.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        match self.gate {
            Gate::Closed { until } if !self.waiting.is_empty() => Some(until),
            Gate::Open if self.in_flight.len() < self.window.size() => {
                self.waiting.values().filter_map(|entry| entry.not_before).min()
            }
            Gate::Open | Gate::Closed { .. } | Gate::Probing => None,
        }
    }

    /// An attempt has ended; returns the acknowledgement if its batch has.
    ///
    /// [`Verdict::ClockSkew`] means that the clock has been set right: the batch goes again
    /// without a pause. Without that, it is a [`Verdict::Retry`].
    ///
    /// # Panics
    /// If the batch is not under way.
    pub fn on_result(&mut self, id: BatchId, verdict: Verdict, now: Instant) -> Option<Ack> {
        let mut flight = self.in_flight.remove(&id).expect("a result is of a batch under way");
        let outcome = match verdict {
            Verdict::Delivered => Outcome::Delivered,
            Verdict::Refuse(refusal) => {
                Outcome::Refused { batch: flight.entry.batch.clone(), refusal }
            }
            Verdict::ClockSkew { .. } => {
                if flight.era == self.window.era() && self.gate == Gate::Probing {
                    self.gate = Gate::Closed { until: now };
                }
                self.waiting.insert(id, flight.entry);
                return None;
            }
            Verdict::Retry { kind, after } => {
                flight.entry.failures += 1;
                self.on_failure(&flight, kind, after, now);
                self.waiting.insert(id, flight.entry);
                return None;
            }
        };
        if self.window.on_success(flight.era) {
            self.on_success(now);
        }
        let SealedBatch { id, span, lines, route, payload, .. } = flight.entry.batch;
        Some(Ack { id, span, lines, route, payload_bytes: payload.len(), outcome })
    }

    fn on_failure(
        &mut self,
        flight: &Flight,
        kind: FailureKind,
        wish: Option<std::time::Duration>,
        now: Instant,
    ) {
        if self.window.on_failure(flight.era) {
            let (started, rng) = (flight.started, &mut self.rng);
            let until = self.backoff.on_failure(kind, wish, started, now, rng);
            self.gate = Gate::Closed { until };
        } else if let Gate::Closed { until } = &mut self.gate {
            *until = (*until).max(now + backoff::wish_granted(wish));
        }
    }

    fn on_success(&mut self, now: Instant) {
        self.backoff.on_success();
        if self.gate == Gate::Open {
            return;
        }
        self.gate = Gate::Open;
        for entry in self.waiting.values_mut().filter(|entry| entry.failures > 0) {
            let pause = backoff::pause(FailureKind::Network, entry.set_back, &mut self.rng);
            entry.not_before = Some(now + pause);
            entry.set_back += 1;
            entry.failures = 0;
        }
    }

    fn oldest_ready(&self, now: Instant) -> Option<BatchId> {
        let ready = |entry: &Entry| entry.not_before.is_none_or(|at| now >= at);
        self.waiting.iter().find(|(_, entry)| ready(entry)).map(|(id, _)| *id)
    }

    /// The batch for a probe: one that stepped back only if there is no other.
    fn least_failed(&self) -> Option<BatchId> {
        let order = |(id, entry): &(&BatchId, &Entry)| (entry.failures, entry.set_back, **id);
        self.waiting.iter().min_by_key(order).map(|(id, _)| *id)
    }

    /// Batches that are not under way.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Batches under way.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Whether every batch has ended.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.in_flight.is_empty()
    }

    /// Requests that may be under way now.
    #[must_use]
    pub fn window(&self) -> usize {
        if self.gate == Gate::Open { self.window.size() } else { 1 }
    }
}

#[cfg(test)]
#[path = "dispatch_tests.rs"]
mod tests;
