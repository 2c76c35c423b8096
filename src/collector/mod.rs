//! The collector's loop: one plain thread that does everything that touches a log line.
//!
//! ```text
//! loop { mail → look → turn → save → wait }
//! ```
//!
//! *Mail*: acknowledgements move watermarks. *Look*: events and the clock say what may have
//! changed (`files`). *Turn*: files are read a piece at a time, groups are sealed and handed
//! over. *Save*: the checkpoint, if a watermark moved, and the report. *Wait*: in one poll(2) for
//! the next deadline, mail, or an event. `step` has them.
//!
//! # Pace
//! Turns of reading are at least `read_linger` apart while all files are read to their end, so a
//! chatty writer does not wake the agent for each line. While there is a backlog and room in the
//! hand-off, turns follow each other at once. When the hand-off is full nothing is read: the log
//! files are the queue. CPU limit and `max_bytes_per_sec` put pauses between turns.
//!
//! # Stopping
//! Told to drain, the loop goes on until nothing is left and the files have been quiet (`stopping`).
//! Told to abandon, it saves what is known and ends.

mod adopting;
mod closing;
mod copies;
mod drain;
mod expected;
mod files;
pub mod fruitless;
mod idle;
mod intake;
mod ledger;
mod left;
mod look;
mod missing;
mod news;
mod notices;
mod once;
mod opening;
mod overwritten;
mod packed;
mod readers;
mod reading;
mod refusals;
mod refused;
mod reopening;
mod report;
mod rereading;
mod said;
mod stamp;
mod step;
pub mod stopping;
mod streams;
mod timers;
mod unpacking;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use self::drain::Drain;
use self::intake::Intake;
use self::ledger::{Known, Ledger, Told};
pub use self::left::Left;
use self::look::Look;
use self::once::Once;
use self::packed::Packed;
use self::readers::Readers;
use self::report::Report;
use self::said::Said;
pub use self::step::{Step, Wait};
use self::streams::Streams;
use self::timers::{Timer, Timers};
use crate::base::report::{CollectorCounters, CollectorReport, FileSums};
use crate::base::sealed::{Outcome, Route, SealedBatch};
use crate::base::span::{CollectionId, Span, StreamKey};
use crate::batch::policy::Reason;
use crate::batch::{Batcher, Sealed};
use crate::checkpoint::format::Checkpoint;
use crate::checkpoint::keep::Keep;
use crate::checkpoint::store::Loaded;
use crate::enrich::TagPlan;
use crate::handoff::{CollectorEnd, Mail};
use crate::plan::Plan;
use crate::tail::catalog::Catalog;
use crate::tail::discover::Patterns;
use crate::tail::os::Os;
use crate::tail::registry::Registry;
use crate::tail::scout::Scout;
use crate::tail::watch::Watch;
use crate::{batch, limit, tail};

/// Most pieces of files that one turn reads before the loop looks at mail and events again.
const READS_PER_TURN: usize = 8;
/// What the collector is built from.
pub struct Options {
    /// Which files, and where their records go.
    pub plan: Arc<Plan>,
    /// How to find files and how to read them.
    pub tail: tail::Options,
    /// When to seal.
    pub batch: batch::Options,
    /// Limits of CPU, memory and bytes per second.
    pub limit: limit::Options,
    /// Most raw bytes in open groups.
    pub open_bytes_max: usize,
    /// Size of the one read buffer.
    pub read_bytes: usize,
    /// Most log files open at once. The other descriptors are for the checkpoint and the sockets.
    pub files_max: usize,
    /// Most log files known at once: those that are open, and those that are delivered and closed.
    pub known_max: usize,
    /// Tags and source of the groups.
    pub tags: TagPlan,
    /// When a drain begins by itself, and when it may end.
    pub stop: stopping::Options,
    /// Names of the tags whose values decide the shard; empty for any shard.
    pub shard_hash_keys: Vec<String>,
    /// How many requests may be under way.
    pub concurrency_max: usize,
}

/// How a run ended.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Lines put into groups.
    pub lines: u64,
    /// Bytes of files put into groups.
    pub bytes: u64,
    /// Bytes of complete lines that were on disk and are not acknowledged.
    pub undelivered_bytes: u64,
    /// Files that hold undelivered bytes. Those that match and cannot be opened or read are among
    /// them: what they hold is not known.
    pub undelivered_files: usize,
    /// The path of the file that waits longest, and for how many seconds.
    pub oldest: Option<(PathBuf, u64)>,
    /// The first of the undelivered files.
    pub left: Vec<Left>,
    /// Files of which all is acknowledged but for an unfinished last line, which the next start may
    /// find finished.
    pub unfinished_files: usize,
    /// Bytes of the unfinished last lines.
    pub unfinished_bytes: u64,
    /// The first of the files with an unfinished last line.
    pub unfinished: Vec<Left>,
}

/// What the settings say of the files.
struct Rules {
    plan: Arc<Plan>,
    /// The collection that the patterns are of.
    collection: CollectionId,
    tail: tail::Options,
}

/// The loop and all that it owns.
pub struct Collector<O: Os, K: Keep> {
    os: O,
    rules: Rules,
    streams: Streams,
    ledger: Ledger<K>,
    /// The patterns; none while a walk has them.
    patterns: Patterns,
    watch: Watch<O::Watch>,
    registry: Registry,
    /// Files that are known and not open.
    catalog: Catalog,
    scout: Scout,
    readers: Readers<O::File>,
    intake: Intake,
    batcher: Batcher,
    handoff: CollectorEnd,
    counters: CollectorCounters,
    packed: Packed<O::File>,
    said: Said,
    look: Look,
    timers: Timers,
    report: Report,
    drain: Drain,
}

impl<O: Os, K: Keep> Collector<O, K> {
    /// Puts the collector together; opens no log file yet.
    ///
    /// # Errors
    /// If a compressor cannot be made.
    ///
    /// # Panics
    /// If the read buffer is smaller than a longest line: the settings see to that.
    pub fn new(
        os: O,
        store: K,
        options: Options,
        patterns: Patterns,
        loaded: Loaded,
        handoff: CollectorEnd,
    ) -> std::io::Result<Self> {
        let least = crate::line::split::lookahead(options.tail.line_bytes_max)
            + crate::base::fingerprint::TAIL_BYTES_MAX;
        let least = least.max(crate::base::fingerprint::HEAD_BYTES_MAX);
        assert!(options.read_bytes >= least, "the read buffer holds a longest line and a head");
        let (at, mut seed) = (os.times(), [0; 8]);
        let (now, unix) = (at.now, at.unix());
        if os.random(&mut seed).is_err() {
            seed = fastrand::u64(..).to_le_bytes();
        }
        let known_max = options.known_max;
        let look = Look::new(&loaded.checkpoints, known_max, stamp::stamp(&os), unix, now);
        let topic = options.batch.topic.clone();
        let plan = options.plan;
        let batcher = Batcher::new(options.batch, &plan, options.open_bytes_max)?;
        let mut timers = Timers::default();
        let intake = Intake::new(&os, options.limit, options.read_bytes, &mut timers, now);
        let is_once = plan.only_destination().exactly_once;
        let once = Once::new(&os, is_once.then_some(options.concurrency_max));
        let collection = plan.only_collection();
        let name = &plan.collection(collection).name;
        let checkpoints = claimed(loaded.checkpoints, name, &patterns);
        let catalog = Catalog::new(checkpoints, unix, name);
        let ledger = Ledger::new(store, Arc::clone(&plan), once);
        let seed = u64::from_le_bytes(seed);
        let streams = Streams::new(topic, options.tags, options.shard_hash_keys, seed);
        Ok(Self {
            streams,
            batcher,
            counters: CollectorCounters {
                checkpoint_damaged: loaded.damaged.len() as u64,
                ..CollectorCounters::default()
            },
            catalog,
            scout: Scout::default(),
            rules: Rules { plan, collection, tail: options.tail },
            ledger,
            patterns,
            watch: Watch::new(&os),
            registry: Registry::default(),
            readers: Readers::new(options.files_max),
            intake,
            handoff,
            packed: Packed::default(),
            said: Said::new(now),
            look,
            timers,
            report: Report::default(),
            drain: Drain::new(options.stop, now),
            os,
        })
    }

    // === mail

    fn on_mail(&mut self, mail: Mail, now: Instant) {
        self.streams.set_clock_offset(mail.clock_offset);
        self.drain.on_wish(mail.drain, mail.abandon);
        self.report.want_list_if(mail.wants_files);
        if !mail.acks.is_empty() {
            self.intake.unblock();
            self.touch(now);
        }
        for ack in mail.acks {
            self.ledger.refusals.on_ended(ack.id);
            match ack.outcome {
                Outcome::Delivered => {
                    self.ledger.refusals.forget_row(ack.span.stream);
                    self.on_done(ack.span, ack.lines, ack.route);
                }
                Outcome::Refused { batch, refusal } => self.on_refused(batch, refusal),
            }
        }
        self.treat_refused(now);
    }

    /// The time as the service has it, as far as is known.
    fn server_unix(&self) -> i64 {
        self.streams.server_unix(self.os.wall().as_secs())
    }

    /// Takes the news that so many records of a batch with this route are delivered, or set aside.
    fn on_done(&mut self, span: Span, records: u32, route: Route) {
        let done = (span, records, route);
        self.ledger.on_done(&mut self.registry, &mut self.counters, done);
    }

    fn hand_over(&mut self, batch: SealedBatch) {
        self.ledger.hand_over(&self.os, &mut self.handoff, batch);
    }

    // === turn

    fn turn(&mut self, now: Instant) {
        if self.drain.is_closed() {
            return;
        }
        self.seal_due(now);
        if self.timers.holds(Timer::ReadFrom, now) {
            return;
        }
        self.timers.clear(Timer::ReadFrom);
        self.counters.turns += 1;
        self.measure();
        self.intake.mark_filled(now);
        let flush = self.registry.rests_due(self.rules.tail.partial_line_timeout, now);
        for &file in &flush {
            self.intake.mark(file);
        }
        for _ in 0..READS_PER_TURN {
            if !self.may_read(now) {
                break;
            }
            let Some(file) = self.intake.next_file() else { break };
            let ends_line = flush.contains(&file) || self.drain.ends_line_of(file);
            self.read(file, ends_line, now);
            // A turn of several reads would be too much at once for a small limit.
            if self.pace() {
                return;
            }
        }
        self.pace();
    }

    /// Whether there is room for more of any file.
    fn may_read(&mut self, now: Instant) -> bool {
        // Refused batches that cannot be set aside have given their room back: read no more.
        // What is acknowledged is to be saved before more is read.
        let is_held_up = self.intake.is_blocked()
            || self.ledger.refusals.has_unparked()
            || self.handoff.has_mail();
        !is_held_up && !self.is_rate_limited(now) && self.make_room()
    }

    /// Says whether the CPU limit asks for a pause.
    fn pace(&mut self) -> bool {
        self.intake.pace(&self.os, &mut self.timers, &mut self.counters)
    }

    /// Gives back to the system, after a burst, the memory that it has used.
    fn give_back(&mut self, now: Instant) {
        let held = self.handoff.outstanding_bytes() + self.batcher.open_bytes();
        if !self.intake.trims(held, now) {
            return;
        }
        if let Err(error) = self.batcher.slim() {
            tracing::debug!(%error, "the compressor stays as it is");
        }
        self.os.trim_memory();
    }

    fn is_rate_limited(&mut self, now: Instant) -> bool {
        self.intake.is_rate_limited(&mut self.timers, &mut self.counters, now)
    }

    /// Keeps all open groups together under their limit. Says whether there is room for more.
    fn make_room(&mut self) -> bool {
        while self.batcher.is_over() {
            if !self.handoff.has_room() {
                self.intake.block();
                return false;
            }
            let Some((_, stream)) = self.batcher.oldest() else { break };
            self.seal(stream, Reason::Pressure);
        }
        true
    }

    fn seal_due(&mut self, now: Instant) {
        while self.handoff.has_room() {
            let Some((stream, reason)) = self.batcher.due(now) else { break };
            self.seal(stream, reason);
        }
    }

    /// Seals the group of a stream and hands it over. Only when there is room.
    fn seal(&mut self, stream: StreamKey, reason: Reason) {
        let Some(sealed) = self.batcher.seal(stream, reason) else { return };
        let Sealed { batch, tail, hole_bytes, reason } = sealed;
        let counter = match reason {
            Reason::Full => &mut self.counters.sealed_full,
            Reason::Age => &mut self.counters.sealed_age,
            Reason::Minute => &mut self.counters.sealed_minute,
            Reason::Pressure => &mut self.counters.sealed_pressure,
            Reason::Shutdown => &mut self.counters.sealed_shutdown,
        };
        *counter += 1;
        if let Some(watermark) = self.registry.watermark_mut(stream) {
            watermark.on_sealed(batch.span, batch.lines, tail, hole_bytes);
        }
        let again = self.ledger.once.take_saved(stream, batch.span.start);
        if !again.is_empty() {
            return self.hand_over_again(batch, tail, again);
        }
        self.ledger.once.on_sealed(&batch, tail, self.rules.tail.line_bytes_max);
        self.hand_over(batch);
    }

    // === checkpoint

    fn save(&mut self, now: Instant, is_last: bool) {
        let Self { registry, catalog, counters, said, timers, .. } = self;
        let known = Known { registry, catalog, looked_at: self.look.looked_at() };
        let mut told = Told { counters, said, timers };
        let cores = self.intake.cpu_cores();
        let when = (now, is_last);
        self.ledger.save(&self.os, &known, &mut self.handoff, cores, &mut told, when);
    }

    // === report

    /// Notes that something changed which the report should say.
    fn touch(&mut self, now: Instant) {
        self.report.touch(&mut self.timers, now);
    }

    fn publish(&mut self, now: Instant, is_last: bool) {
        // Not before what it says is saved.
        if self.report.take_list_wanted() {
            let unix = self.os.wall().as_secs();
            let list = report::list(&self.registry, &self.look.unopened, unix);
            self.handoff.publish_files(list);
        }
        let is_due = self.timers.is_due(Timer::Publish, now);
        if !is_due && !is_last {
            return;
        }
        self.timers.clear(Timer::Publish);
        let used = self.os.thread_cpu();
        let files = self.file_sums();
        let used = self.os.thread_cpu().saturating_sub(used);
        self.report.on_made(used);
        let (checkpoint_saved_unix, checkpoint_error) = self.ledger.saved();
        self.handoff.publish(CollectorReport {
            ready: self.look.is_ready() && self.drain.is_running(),
            polling: self.watch.trouble().is_some(),
            files,
            is_state_taken: false,
            links_refused: self.look.notices.links_refused(),
            fruitless: self.look.notices.fruitless(),
            counters: self.counters,
            handoff_bytes: self.handoff.outstanding_bytes() as u64,
            handoff_bytes_max: self.handoff.bytes_max() as u64,
            open_bytes: self.batcher.open_bytes() as u64,
            held_deleted_bytes: self.registry.held_deleted_bytes(),
            cpu_limit_cores: self.intake.cpu_cores(),
            memory_limit_bytes: self.intake.memory_bytes(),
            checkpoint_saved_unix,
            checkpoint_error: checkpoint_error.to_owned(),
        });
    }

    fn file_sums(&self) -> FileSums {
        let (missing, missing_bytes) = self.catalog.missing();
        let sums = FileSums {
            saved: self.catalog.deferred() as u64,
            left: self.look.notices.beyond().files,
            failing: self.look.unopened.failed() as u64,
            missing,
            missing_bytes,
            ..FileSums::default()
        };
        report::sum_up(&self.registry, sums, self.os.wall().as_secs())
    }
}

/// The checkpoints that were loaded, those without an owner as the collection's that finds their paths.
fn claimed(
    mut checkpoints: Vec<Checkpoint>,
    name: &Arc<str>,
    patterns: &Patterns,
) -> Vec<Checkpoint> {
    let nobodys = checkpoints.iter_mut().filter(|saved| saved.owner.is_none());
    for saved in nobodys.filter(|saved| patterns.finds(&saved.path)) {
        saved.owner = Some(Arc::clone(name));
    }
    checkpoints
}
