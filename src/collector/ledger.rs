//! What is known to have arrived, and the saving of it.
//!
//! [`Ledger`] owns the state directory: it alone saves and sets aside. It takes acknowledgements, knows
//! which ids batches go under and which were refused, and decides when what is known is saved.
//! *Absent: which files there are*; whoever saves tells.

use std::borrow::Cow;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::once::Once;
use super::refusals::Refusals;
use super::said::{Kind, Said};
use super::timers::{Timer, Timers};
use crate::base::report::CollectorCounters;
use crate::base::sealed::{Refusal, Route, SealedBatch};
use crate::base::span::{CollectionId, FileKey, Span, StreamKey};
use crate::checkpoint::format::Checkpoint;
use crate::checkpoint::keep::Keep;
use crate::handoff::CollectorEnd;
use crate::plan::Plan;
use crate::tail::catalog::Catalog;
use crate::tail::os::Os;
use crate::tail::registry::Registry;
use crate::tail::tracked::Tracked;

/// Least time between two saves that are written through to the disk.
const DURABLE_PERIOD: Duration = Duration::from_secs(5);
/// Most files whose checkpoint is saved without a pause. With more, a save is large, and the next
/// one waits.
const SAVES_PACED_FROM: usize = 256;
/// Pause after a large save, in multiples of the time that it took.
const SAVE_PAUSE_FACTOR: u32 = 20;
/// Most of a CPU limit that large saves may take, as a share of 1.
const SAVES_SHARE_OF_CPU: f64 = 0.25;

/// The account of what has arrived.
pub(super) struct Ledger<K> {
    store: K,
    /// What the numbers of collections and destinations mean on disk.
    plan: Arc<Plan>,
    /// The ids that batches go under.
    pub(super) once: Once,
    /// The batches that the service refused.
    pub(super) refusals: Refusals,
    /// Whether something changed that a checkpoint must hold.
    is_moved: bool,
    saved_unix: u64,
    error: String,
}

/// All that a save holds.
pub(super) struct Known<'a> {
    pub(super) registry: &'a Registry,
    pub(super) catalog: &'a Catalog,
    /// When the last look began, as time stamps of files count.
    pub(super) looked_at: i64,
}

/// Whom a save tells how it went.
pub(super) struct Told<'a> {
    pub(super) counters: &'a mut CollectorCounters,
    pub(super) said: &'a mut Said,
    pub(super) timers: &'a mut Timers,
}

impl<K: Keep> Ledger<K> {
    pub(super) fn new(store: K, plan: Arc<Plan>, once: Once) -> Self {
        Self {
            store,
            plan,
            once,
            refusals: Refusals::default(),
            is_moved: false,
            saved_unix: 0,
            error: String::new(),
        }
    }

    // === what has arrived

    /// Notes whether something changed that a checkpoint must hold.
    pub(super) fn note(&mut self, is_moved: bool) {
        self.is_moved |= is_moved;
    }

    /// Whether something is to be saved.
    pub(super) fn is_moved(&self) -> bool {
        self.is_moved
    }

    /// Takes the news that so many records of a batch with this route are delivered, or set aside.
    pub(super) fn on_done(
        &mut self,
        registry: &mut Registry,
        counters: &mut CollectorCounters,
        (span, records, route): (Span, u32, Route),
    ) {
        let (acknowledged, is_moved) = registry.on_ack(span, records);
        counters.acknowledged_bytes += acknowledged;
        self.is_moved |= is_moved;
        self.is_moved |= self.once.on_done(span, route);
        if is_moved {
            self.on_watermark(registry, span.stream);
        }
    }

    /// Notes that the watermark of a stream has moved.
    pub(super) fn on_watermark(&mut self, registry: &mut Registry, stream: StreamKey) {
        if let Some(watermark) = registry.watermark_mut(stream) {
            self.once.on_watermark(stream, watermark.offset());
        }
    }

    /// Hands a batch over, or keeps it until it may go. The only way to the sender: of batches that
    /// were sealed, of refused ones that were changed, and of parts of those.
    pub(super) fn hand_over(
        &mut self,
        os: &impl Os,
        handoff: &mut CollectorEnd,
        batch: SealedBatch,
    ) {
        let payload_bytes = batch.payload.len();
        match self.once.on_batch(os, batch) {
            Some(batch) => handoff.push(batch),
            None => handoff.reserve(payload_bytes),
        }
    }

    /// Forgets a stream whose account is closed.
    pub(super) fn forget(&mut self, stream: StreamKey) {
        self.once.forget(stream);
        self.refusals.forget_row(stream);
    }

    // === the state directory

    /// The checkpoint of a file that is open, or has ended.
    pub(super) fn checkpoint(
        &self,
        looked_at: i64,
        file: FileKey,
        tracked: &Tracked,
        unix: u64,
    ) -> Checkpoint {
        saved(&self.once, &self.plan, looked_at, file, tracked, unix)
    }

    /// A collection as a checkpoint names it.
    pub(super) fn owner(&self, collection: CollectionId) -> Option<Arc<str>> {
        owner(&self.plan, collection)
    }

    /// Has what is known saved through to the disk, if what was saved last is not there.
    pub(super) fn check(&self, timers: &mut Timers, now: Instant) {
        if self.store.needs_save() {
            timers.start(Timer::Durable, now);
        }
    }

    /// Has what is known saved through to the disk within the period of that.
    pub(super) fn save_soon(timers: &mut Timers, now: Instant) {
        timers.start(Timer::Durable, now + DURABLE_PERIOD);
    }

    /// Sets a refused batch aside. What cannot be written is to be kept, and its watermark with it.
    pub(super) fn park(
        &mut self,
        batch: &SealedBatch,
        refusal: &Refusal,
        unix: u64,
        told: &mut Told<'_>,
    ) -> Option<PathBuf> {
        match self.store.park(batch, &self.plan, refusal, unix) {
            Ok(parked) => Some(parked),
            Err(error) => {
                let meanwhile = "nothing more is read until that is possible";
                self.on_error("set a refused batch aside", meanwhile, &error, told);
                None
            }
        }
    }

    /// Saves what is known, if it is time for that. Batches whose ids are on the disk then are handed
    /// over.
    pub(super) fn save(
        &mut self,
        os: &impl Os,
        known: &Known<'_>,
        handoff: &mut CollectorEnd,
        cores: f64,
        told: &mut Told<'_>,
        (now, is_last): (Instant, bool),
    ) {
        let is_durable_due = told.timers.is_due(Timer::Durable, now);
        let is_fast_due = self.is_moved && !told.timers.holds(Timer::SaveFrom, now);
        let is_assigning = self.once.assign();
        if !(is_fast_due || is_durable_due || is_assigning || is_last) {
            return;
        }
        let started = os.now();
        let is_durable = is_durable_due || is_assigning || is_last;
        let unix = os.wall().as_secs();
        let (count, written) = self.save_all(known, unix, is_durable);
        match written {
            Ok(()) => {
                if is_durable {
                    let batches = self.once.on_saved();
                    batches.into_iter().for_each(|batch| handoff.send(batch));
                }
                told.counters.checkpoint_saves += 1;
                self.saved_unix = unix;
                let is_all_saved = !self.refusals.has_unparked();
                if !self.error.is_empty() && is_all_saved {
                    if told.said.admits(Kind::Saving) {
                        tracing::info!("the checkpoint can be saved again");
                    }
                    self.error.clear();
                }
                // What could not be set aside is tried again in the same rhythm.
                if is_durable && is_all_saved {
                    told.timers.clear(Timer::Durable);
                } else if !told.timers.holds(Timer::Durable, now) {
                    told.timers.set(Timer::Durable, now + DURABLE_PERIOD);
                }
            }
            Err(error) => {
                let meanwhile = if self.once.is_on() {
                    "nothing more is sent until that is possible"
                } else {
                    "shipping goes on, and a restart would repeat what was sent since"
                };
                self.once.has_failed = true;
                self.on_error("save the checkpoint", meanwhile, &error, told);
                told.timers.set(Timer::Durable, now + DURABLE_PERIOD);
            }
        }
        self.is_moved = false;
        let ended = os.now();
        if let Some(pause) = pause_after_save(count, ended - started, cores) {
            told.timers.set(Timer::SaveFrom, ended + pause);
        }
    }

    /// Saves what is known of all files; there may be very many, so one is made after the other.
    /// Returns how many they are.
    fn save_all(
        &mut self,
        known: &Known<'_>,
        unix: u64,
        is_durable: bool,
    ) -> (usize, io::Result<()>) {
        let Known { registry, catalog, looked_at } = known;
        let (once, plan) = (&self.once, &self.plan);
        let known = |file, tracked: &Tracked| saved(once, plan, *looked_at, file, tracked, unix);
        let open = registry.iter().map(|(file, tracked)| Cow::Owned(known(file, tracked)));
        // Of what has ended only a copy can be met again.
        let gone = |file, ended: &Tracked| Checkpoint { inode: 0, ..known(file, ended) };
        let ended = registry.ended().map(|(file, ended)| Cow::Owned(gone(file, ended)));
        let foreign = catalog.foreign().iter().map(Cow::Borrowed);
        let count = registry.iter().count()
            + registry.ended().count()
            + catalog.saved_count(registry)
            + catalog.foreign().len();
        let all = open.chain(ended).chain(catalog.to_save(registry)).chain(foreign);
        (count, self.store.save_each(count, all, is_durable))
    }

    fn on_error(&mut self, action: &str, meanwhile: &str, error: &io::Error, told: &mut Told<'_>) {
        told.counters.checkpoint_errors += 1;
        if self.error.is_empty() && told.said.admits(Kind::Saving) {
            tracing::error!(error = %error, "cannot {action}; {meanwhile}");
        }
        self.error = format!("{action}: {error}");
    }

    /// When a checkpoint was saved last, and what keeps the next one from being saved.
    pub(super) fn saved(&self) -> (u64, &str) {
        (self.saved_unix, &self.error)
    }
}

/// What a checkpoint remembers of a file.
fn saved(
    once: &Once,
    plan: &Plan,
    looked_at: i64,
    file: FileKey,
    tracked: &Tracked,
    unix: u64,
) -> Checkpoint {
    let stream = tracked.stream(file);
    let owner = owner(plan, stream.collection);
    let ranges = once.ranges(stream, tracked.watermark.offset());
    Checkpoint { owner, looked_at, ranges, ..tracked.checkpoint(unix) }
}

fn owner(plan: &Plan, collection: CollectionId) -> Option<Arc<str>> {
    Some(Arc::clone(&plan.collection(collection).name))
}

/// How long the next save waits after one of `count` files, which `took` so long, under a limit of
/// `cores`.
fn pause_after_save(count: usize, took: Duration, cores: f64) -> Option<Duration> {
    if count <= SAVES_PACED_FROM {
        return None;
    }
    let fair = took.div_f64(cores * SAVES_SHARE_OF_CPU);
    // A disk that hung once, or a process that was frozen, is no reason to save no more.
    Some((took * SAVE_PAUSE_FACTOR).max(fair).min(DURABLE_PERIOD))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handoff;
    use crate::plan::Destination;
    use crate::tail::os::kernel::Kernel;

    /// A state directory that counts, and may be full.
    #[derive(Default)]
    struct Shelf {
        saves: usize,
        is_full: bool,
    }

    impl Keep for Shelf {
        fn save_each<'a>(
            &mut self,
            _: usize,
            _: impl Iterator<Item = Cow<'a, Checkpoint>>,
            _: bool,
        ) -> io::Result<()> {
            self.saves += 1;
            if self.is_full { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
        }

        fn needs_save(&self) -> bool {
            self.is_full
        }

        fn park(&mut self, _: &SealedBatch, _: &Plan, _: &Refusal, _: u64) -> io::Result<PathBuf> {
            Err(io::ErrorKind::StorageFull.into())
        }
    }

    struct Scene {
        ledger: Ledger<Shelf>,
        counters: CollectorCounters,
        said: Said,
        timers: Timers,
        handoff: CollectorEnd,
    }

    impl Scene {
        fn new(now: Instant) -> Self {
            let plan = Plan::sample(vec![Destination::sample()]);
            let once = Once::new(&Kernel, None);
            Self {
                ledger: Ledger::new(Shelf::default(), plan.into(), once),
                counters: CollectorCounters::default(),
                said: Said::new(now),
                timers: Timers::default(),
                handoff: handoff::handoff(1 << 20).unwrap().0,
            }
        }

        /// Saves if it is time for that. Returns how often the state was saved by now.
        fn save(&mut self, now: Instant, is_last: bool) -> usize {
            let Self { ledger, counters, said, timers, handoff } = self;
            let (registry, catalog) = (Registry::default(), Catalog::default());
            let known = Known { registry: &registry, catalog: &catalog, looked_at: 0 };
            let mut told = Told { counters, said, timers };
            ledger.save(&Kernel, &known, handoff, 1.0, &mut told, (now, is_last));
            ledger.store.saves
        }
    }

    #[test]
    fn what_has_moved_is_saved_once_and_the_rest_at_the_end() {
        let now = crate::base::clock::now();
        let mut scene = Scene::new(now);
        assert_eq!(scene.save(now, false), 0, "nothing has moved");

        scene.ledger.note(true);
        scene.ledger.note(false);
        assert_eq!(scene.save(now, false), 1);
        assert_eq!(scene.save(now, false), 1, "it is saved");
        assert!(scene.timers.holds(Timer::Durable, now), "it is not on the disk yet");

        assert_eq!(scene.save(now + DURABLE_PERIOD, false), 2);
        assert!(!scene.timers.is_set(Timer::Durable));
        assert_eq!(scene.save(now, true), 3);
    }

    #[test]
    fn a_save_that_failed_is_tried_again_and_said() {
        let now = crate::base::clock::now();
        let mut scene = Scene::new(now);
        scene.ledger.store.is_full = true;
        scene.ledger.note(true);
        scene.save(now, false);
        assert!(scene.ledger.saved().1.starts_with("save the checkpoint: "));
        assert_eq!(scene.counters.checkpoint_errors, 1);
        assert_eq!(scene.save(now, false), 1, "not at once");

        scene.ledger.store.is_full = false;

        assert_eq!(scene.save(now + DURABLE_PERIOD, false), 2);
        assert_eq!(scene.ledger.saved().1, "");
    }

    #[test]
    fn only_large_saves_are_paced_and_never_for_longer_than_the_period() {
        let took = Duration::from_millis(10);
        assert_eq!(pause_after_save(SAVES_PACED_FROM, took, 1.0), None);
        assert_eq!(pause_after_save(1000, took, 1.0), Some(took * SAVE_PAUSE_FACTOR));
        assert_eq!(pause_after_save(1000, took, 0.1), Some(took * 40));
        assert_eq!(pause_after_save(1000, took * 1000, 1.0), Some(DURABLE_PERIOD));
    }
}
