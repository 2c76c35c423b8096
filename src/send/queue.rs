//! The batches that wait: whose turn it is, and which go together.
//!
//! Pure. It holds batches until they are taken, and it has no way to let go of one otherwise: there
//! is no limit of tries, of age or of number.
//!
//! # Whose turn it is
//! The oldest batch first. But a failure may be the batch's own affair (a body that some proxy does
//! not pass), and it must not stand in the way of all others: so probes go through the batches that
//! have failed least, and a batch that failed while the destination works steps back for a pause of
//! its own. It never steps back for longer than [`backoff::PAUSE_MAX`] or the endpoint's wish, and
//! it goes first when it returns; but of many that return, each lets one go first that has never
//! stepped back.
//!
//! Where the order matters (`ordered_delivery`), of each stream only the oldest batch takes part in this,
//! and none while something of that stream is under way; what follows it may be in the same load.
//!
//! # Which go together
//! Small ones that are due, in one *load*: a package list, no larger than a full batch ([`Together`]).
//! All of a load goes to the same shard of one destination and is compressed the same way; what has a
//! sequence id goes alone.
//!
//! A load fails as one. So that nobody suffers from what travels with it, its members may then be
//! no more than half as many together (`together_max`), until the culprit is alone. Where
//! list after list is refused, or does not come through while batches alone do, it is the list:
//! then batches go alone for [`ALONE_TIME`].

use std::collections::{BTreeMap, HashSet};
use std::ops::Bound;
use std::time::{Duration, Instant};

use super::backoff;
use super::package_list;
use super::verdict::FailureKind;
use crate::base::sealed::{BatchId, DestinationId, Route, SealedBatch};
use crate::base::span::StreamKey;
use crate::limit::memory::LIST_BYTES_MAX;
use logferry_wire::{Compression, GROUP_BYTES_MAX, GROUP_LINES_MAX};

/// How much goes together: no more than a full batch holds, since it comes again as a whole, and
/// whatever does not let a large batch pass would not let it pass either.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Together {
    /// Most bytes before compression (`batch_bytes`).
    pub raw_bytes_max: usize,
    /// Most lines (`batch_lines`).
    pub lines_max: u32,
}

/// The body of a list is a copy of its payloads.
const BODY_BYTES_MAX: usize = 256 * 1024;
const _: () = assert!(BODY_BYTES_MAX <= GROUP_BYTES_MAX, "every era of the service takes it");
const _: () =
    assert!(BODY_BYTES_MAX <= LIST_BYTES_MAX, "the plan of memory holds one for each request");

/// Batches that are looked at for one list, so that a long queue costs no more than a short one.
const LOOK_MAX: usize = 512;

/// So many lists refused, and none taken between them.
const REFUSED_LISTS_MAX: u32 = 6;
/// How long batches go alone then.
pub const ALONE_TIME: Duration = Duration::from_secs(10 * 60);

/// Batches that are not under way.
#[derive(Debug)]
pub struct Queue {
    together: Together,
    waiting: BTreeMap<BatchId, Entry>,
    /// Lists that were refused since one was taken.
    refused_lists: u32,
    /// A list has not come through, and since then neither a list nor a batch alone has.
    has_failed_list: bool,
    /// No lists before that.
    alone_until: Option<Instant>,
    /// The last load that was due began with one that had stepped back.
    let_return: bool,
    /// Of which streams something is under way, if the batches of one go one after the other.
    busy: Option<HashSet<StreamKey>>,
}

/// A batch and what has become of it so far.
#[derive(Debug)]
pub struct Entry {
    /// The batch.
    pub batch: SealedBatch,
    /// Attempts that failed since the gates were last open.
    failures: u32,
    /// Times it failed where others succeed.
    set_back: u32,
    /// While the gates are open, it waits until then.
    not_before: Option<Instant>,
    /// How many batches may travel in one request with it, itself included.
    together_max: usize,
}

impl Queue {
    /// An empty queue.
    #[must_use]
    pub fn new(together: Together) -> Self {
        let Together { raw_bytes_max, lines_max } = together;
        let together = Together {
            raw_bytes_max: raw_bytes_max.min(GROUP_BYTES_MAX),
            lines_max: lines_max.min(GROUP_LINES_MAX),
        };
        Self {
            together,
            waiting: BTreeMap::new(),
            let_return: false,
            busy: None,
            refused_lists: 0,
            has_failed_list: false,
            alone_until: None,
        }
    }

    /// Lets nothing of a stream go before what is older of it, under way or waiting, has ended.
    pub fn keep_order(&mut self) {
        self.busy = Some(HashSet::new());
    }

    /// A load has ended, or comes back.
    pub fn on_end(&mut self, load: &[Entry]) {
        if let Some(busy) = &mut self.busy {
            for entry in load {
                busy.remove(&entry.stream());
            }
        }
    }

    /// Takes a new batch in.
    ///
    /// # Panics
    /// If a batch of that number is here already: the collector counts wrong.
    pub fn push(&mut self, batch: SealedBatch) {
        let (failures, set_back, not_before, together_max) = (0, 0, None, usize::MAX);
        self.put_back(Entry { batch, failures, set_back, not_before, together_max });
    }

    /// Takes a batch back that was under way.
    pub fn put_back(&mut self, entry: Entry) {
        let id = entry.batch.id;
        assert!(self.waiting.insert(id, entry).is_none(), "a batch is handed over once");
    }

    /// Takes one out.
    pub fn take(&mut self, id: BatchId) -> Option<Entry> {
        self.waiting.remove(&id)
    }

    /// Batches.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether a batch is here.
    #[must_use]
    pub fn contains(&self, id: BatchId) -> bool {
        self.waiting.contains_key(&id)
    }

    /// When [`Self::take_due`] has something: `Some(None)` is now.
    #[must_use]
    pub fn due(&self) -> Option<Option<Instant>> {
        // `None` is less than any instant.
        let mut soonest = None;
        for entry in self.first_of_each() {
            soonest = Some(soonest.map_or(entry.not_before, |at| entry.not_before.min(at)));
            if entry.not_before.is_none() {
                break;
            }
        }
        soonest
    }

    /// Takes the oldest batch that is due, and what may go with it. Bodies from the size of `passes` on
    /// do not come through.
    pub fn take_due(&mut self, now: Instant, passes: Option<usize>) -> Vec<Entry> {
        let Some(first) = self.first_due(now) else { return Vec::new() };
        let (id, is_returning) = (first.batch.id, first.set_back > 0);
        let mut list = List::of(first, passes);
        if self.alone_until.is_none_or(|until| now >= until) {
            self.fill(&mut list, id, now);
        }
        self.let_return = is_returning;
        self.take_out(&list.ids)
    }

    /// The oldest that is due; of many that return, one that has never stepped back in between.
    fn first_due(&self, now: Instant) -> Option<&Entry> {
        let mut due = self.first_of_each().filter(|entry| entry.is_due(now));
        let oldest = due.next()?;
        let must_let_by = self.let_return && oldest.set_back > 0;
        let other = due.find(|entry| must_let_by && entry.set_back == 0);
        Some(other.unwrap_or(oldest))
    }

    /// Puts into a list what is due, fits, and is younger than its first one.
    fn fill(&self, list: &mut List, first: BatchId, now: Instant) {
        let mut barred = self.busy.clone().map(|mut busy| {
            busy.extend(self.waiting.range(..first).map(|(_, entry)| entry.stream()));
            busy
        });
        let mut looks_left = LOOK_MAX;
        for (_, entry) in self.waiting.range((Bound::Excluded(first), Bound::Unbounded)) {
            if barred.as_ref().is_some_and(|barred| barred.contains(&entry.stream())) {
                continue;
            }
            let len = list.ids.len();
            if entry.is_due(now) {
                // One that does not fit ends it: no younger one of its stream may overtake it.
                if looks_left == 0 || !list.offer(entry, self.together) {
                    return;
                }
                looks_left -= 1;
            }
            if let Some(barred) = barred.as_mut().filter(|_| list.ids.len() == len) {
                barred.insert(entry.stream());
            }
        }
    }

    /// Of each stream the oldest that waits, if nothing of it is under way; all where the order does not
    /// matter.
    fn first_of_each(&self) -> impl Iterator<Item = &Entry> {
        let mut passed = self.busy.clone();
        let is_first = move |entry: &&Entry| {
            passed.as_mut().is_none_or(|passed| passed.insert(entry.stream()))
        };
        self.waiting.values().filter(is_first)
    }

    fn take_out(&mut self, ids: &[BatchId]) -> Vec<Entry> {
        let taken: Vec<Entry> = ids.iter().filter_map(|id| self.take(*id)).collect();
        if let Some(busy) = &mut self.busy {
            busy.extend(taken.iter().map(Entry::stream));
        }
        taken
    }

    /// Takes a batch for a probe, alone: one that stepped back only if there is no other.
    pub fn take_probe(&mut self) -> Vec<Entry> {
        let order = |entry: &&Entry| (entry.failures, entry.set_back, entry.batch.id);
        let id = self.first_of_each().min_by_key(order).map(|entry| entry.batch.id);
        self.take_out(id.as_slice())
    }

    /// Takes the smallest batch for a probe, alone.
    pub fn take_smallest(&mut self) -> Vec<Entry> {
        let order = |entry: &&Entry| (entry.batch.payload.len(), entry.batch.id);
        let id = self.first_of_each().min_by_key(order).map(|entry| entry.batch.id);
        self.take_out(id.as_slice())
    }

    /// Whether no batch that may go is smaller than this, but for those that cannot be made smaller
    /// although they are larger than `least`: they tell nothing.
    #[must_use]
    pub fn has_none_below(&self, bytes: usize, least: usize) -> bool {
        let tells = |entry: &&Entry| entry.can_be_halved() || entry.batch.payload.len() <= least;
        self.first_of_each().filter(tells).all(|entry| entry.batch.payload.len() >= bytes)
    }

    /// Takes the batches that are due, of this size or more, and can be halved.
    pub fn take_oversized(&mut self, bytes: usize, now: Instant) -> Vec<Entry> {
        let is_it = |entry: &&Entry| {
            entry.is_due(now) && entry.batch.payload.len() >= bytes && entry.can_be_halved()
        };
        let ids: Vec<BatchId> =
            self.first_of_each().filter(is_it).map(|entry| entry.batch.id).collect();
        // They are not under way: their halves come as batches of their own.
        ids.into_iter().filter_map(|id| self.take(id)).collect()
    }

    /// The gates have opened: what failed while they were closed steps back, since another one
    /// has succeeded.
    pub fn step_back(&mut self, now: Instant, rng: &mut fastrand::Rng) {
        for entry in self.waiting.values_mut().filter(|entry| entry.failures > 0) {
            entry.step_back(FailureKind::Network, now, rng);
        }
    }

    /// A list was refused.
    pub fn on_list_refused(&mut self, now: Instant) {
        self.refused_lists += 1;
        if self.refused_lists >= REFUSED_LISTS_MAX {
            self.refused_lists = 0;
            self.alone_until = Some(now + ALONE_TIME);
        }
    }

    /// A batch was refused alone. If lists were refused before with it among them, it was not them.
    pub fn on_refused_alone(&mut self, entry: &Entry) {
        if entry.together_max < usize::MAX {
            self.refused_lists = 0;
            self.alone_until = None;
        }
    }

    /// A list has not come through, for a reason that may be its own.
    pub fn on_list_failed(&mut self) {
        self.has_failed_list = true;
    }

    /// A list was taken.
    pub fn on_list_taken(&mut self) {
        self.refused_lists = 0;
        self.has_failed_list = false;
    }

    /// A batch was taken that was alone: what failed before it was no outage.
    pub fn on_single_taken(&mut self, now: Instant) {
        if std::mem::take(&mut self.has_failed_list) {
            self.on_list_refused(now);
        }
    }
}

impl Entry {
    /// Notes a failure while the gates are closed.
    pub fn on_failure(&mut self) {
        self.failures += 1;
    }

    /// Notes that it has failed, or is suspected of it, where others succeed.
    pub fn step_back(&mut self, kind: FailureKind, now: Instant, rng: &mut fastrand::Rng) {
        self.rest(kind, now, rng);
        self.set_back += 1;
        self.failures = 0;
    }

    /// Whether it has failed where others succeed.
    #[must_use]
    pub fn has_stepped_back(&self) -> bool {
        self.set_back > 0
    }

    /// Waits as long as if it had stepped back.
    pub fn rest(&mut self, kind: FailureKind, now: Instant, rng: &mut fastrand::Rng) {
        self.not_before = Some(now + backoff::pause(kind, self.set_back, rng));
    }

    /// The endpoint wants to be left alone.
    pub fn wait_at_least(&mut self, wish: Duration, now: Instant) {
        self.not_before = self.not_before.max(Some(now + wish));
    }

    /// Notes that it has failed together with others: `len` in all.
    pub fn part_from(&mut self, len: usize) {
        self.together_max = (len / 2).max(1);
    }

    fn stream(&self) -> StreamKey {
        self.batch.span.stream
    }

    /// Whether it may be sent in halves.
    #[must_use]
    pub fn can_be_halved(&self) -> bool {
        self.batch.lines > 1 && !self.must_stay_whole()
    }

    /// Whether it has a sequence id: while nobody knows whether the service has it under that id, no
    /// part of it may go under another.
    #[must_use]
    pub fn must_stay_whole(&self) -> bool {
        matches!(self.batch.route, Route::Once { .. })
    }

    fn is_due(&self, now: Instant) -> bool {
        self.not_before.is_none_or(|at| now >= at)
    }
}

/// A load being put together.
struct List {
    ids: Vec<BatchId>,
    destination: DestinationId,
    route: Route,
    compression: Compression,
    lines: u32,
    raw_bytes: usize,
    body_bytes: usize,
    body_bytes_max: usize,
    together_max: usize,
}

impl List {
    fn of(entry: &Entry, passes: Option<usize>) -> Self {
        let batch = &entry.batch;
        let is_once = matches!(batch.route, Route::Once { .. });
        Self {
            ids: vec![batch.id],
            destination: batch.destination,
            route: batch.route,
            compression: batch.compression,
            lines: batch.lines,
            raw_bytes: batch.raw_bytes as usize,
            body_bytes: package_list::package_len(batch),
            body_bytes_max: passes.map_or(BODY_BYTES_MAX, |bytes| BODY_BYTES_MAX.min(bytes - 1)),
            together_max: if is_once { 1 } else { entry.together_max },
        }
    }

    /// Takes it along if it fits; returns whether to go on. What goes elsewhere is passed over, and
    /// what has failed alone: it has been overtaken before.
    fn offer(&mut self, entry: &Entry, most: Together) -> bool {
        let batch = &entry.batch;
        let goes_elsewhere = (batch.destination, batch.route) != (self.destination, self.route);
        if goes_elsewhere || (entry.has_stepped_back() && entry.together_max == 1) {
            return true;
        }
        let together_max = self.together_max.min(entry.together_max);
        let lines = self.lines.saturating_add(batch.lines);
        let raw_bytes = self.raw_bytes.saturating_add(batch.raw_bytes as usize);
        let body_bytes = self.body_bytes.saturating_add(package_list::package_len(batch));
        let fits = self.ids.len() < together_max
            && batch.compression == self.compression
            && lines <= most.lines_max
            && raw_bytes <= most.raw_bytes_max
            && body_bytes <= self.body_bytes_max;
        if fits {
            self.ids.push(batch.id);
            self.lines = lines;
            self.raw_bytes = raw_bytes;
            self.body_bytes = body_bytes;
            self.together_max = together_max;
        }
        fits
    }
}
