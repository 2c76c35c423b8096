//! The agent as the simulation runs it: the crate's own pure structs, under a copy of the glue.
//!
//! This mirrors `collector::{mod, files, refused, stopping}`, `tail::remembered`, `handoff` and the loop of
//! `send::Sender`, in the same order: mail → look → turn → save → wait. It has no logging, no
//! counters, no limit of descriptors and no pacing of large saves. Where the glue changes, this
//! changes with it; what can be decided by a pure function should be, so that this gets shorter.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use logferry::base::fingerprint::{Fingerprint, HEAD_BYTES_MAX};
use logferry::base::sealed::{Ack, BatchId, DestinationId, Outcome, Refusal, SealedBatch};
use logferry::base::span::{CollectionId, FileKey, StreamKey};
use logferry::batch::policy::Reason;
use logferry::batch::{Batcher, Sealed, log_group, rewrite};
use logferry::checkpoint::format::Checkpoint;
use logferry::handoff::BATCH_OVERHEAD_BYTES;
use logferry::limit::bucket::Bucket;
use logferry::limit::pacer::Pacer;
use logferry::line::split;
use logferry::pipeline::{self, Input, Stop};
use logferry::plan::{Destination, Plan};
use logferry::send::answer::Answer;
use logferry::send::dispatch::{Dispatch, Load};
use logferry::send::queue::Together;
use logferry::send::skew::ServerClock;
use logferry::send::verdict::{FailureKind, Sent, Verdict};
use logferry::send::{CredentialsSource, Endpoint, Signature};
use logferry::tail::catalog::judge::{Match, Seen, Stat, compare};
use logferry::tail::registry::{Change, Opened, Registry, State, Tracked};
use logferry::tail::schedule::Schedule;
use logferry_wire::Compression;

use crate::disk::{Fd, Hints};
use crate::invariants::Bounds;
use crate::machine::{IoError, Machine};

const SCAN_PERIOD: Duration = Duration::from_secs(5);
const SCAN_PERIOD_POLLING: Duration = Duration::from_secs(1);
const DURABLE_PERIOD: Duration = Duration::from_secs(5);
const PUBLISH_PERIOD: Duration = Duration::from_millis(500);
const READS_PER_TURN: usize = 8;
const DRAIN_LINGER_MAX: Duration = Duration::from_millis(200);
pub const PARTS_MAX: usize = 32;

#[derive(Clone)]
pub struct Options {
    pub bounds: Bounds,
    pub compression: Compression,
    pub read_linger: Duration,
    pub partial_line_timeout: Duration,
    pub read_bytes: usize,
    pub concurrency_max: usize,
    pub bytes_per_second: u64,
    /// Bytes of a file that may be taken in one turn.
    pub piece_bytes: usize,
    pub cpu_cores: f64,
    pub drain_quiet: Duration,
}

/// A mistake that is made on purpose, to see that an invariant notices it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// The checkpoint says how far was read.
    CheckpointOfReading,
    /// Each acknowledgement gives the room of its batch back twice.
    RoomTwice,
    /// A 200 of anybody counts.
    TrustsStrangers,
    /// The bytes before the offset are not looked at.
    BlindToRewriting,
    /// A renamed file is closed.
    DropsRotated,
    /// Only every fifth second is saved.
    SavesSeldom,
    /// An unfinished last line waits for ever.
    KeepsRests,
    /// The end of a drain is told without looking.
    ClaimsAll,
}

pub struct Agent {
    pub life: u32,
    options: Options,
    flaw: Option<Flaw>,
    registry: Registry,
    remembered: Remembered,
    readers: BTreeMap<FileKey, Fd>,
    /// Which bytes of the disk a file's last read was of; for the ledger only.
    generations: BTreeMap<FileKey, usize>,
    schedule: Schedule,
    batcher: Batcher,
    bucket: Option<Bucket>,
    pacer: Pacer,
    cpu: Duration,
    rng: fastrand::Rng,
    unparked: Vec<SealedBatch>,
    /// Refused batches that are to be split, the last refused first, and parts under way.
    returned: Vec<SealedBatch>,
    trying: HashSet<BatchId>,
    is_scan_wanted: bool,
    scan_at: Instant,
    turn_at: Instant,
    paused_until: Option<Instant>,
    is_blocked: bool,
    is_moved: bool,
    durable_at: Option<Instant>,
    publish_at: Option<Instant>,
    /// Files that the last discovery could not open.
    unopened: usize,
    stage: Stage,
    drain_asked_at: Instant,
    looked_after: Option<Instant>,
    // The hand-off.
    down: VecDeque<SealedBatch>,
    outstanding_bytes: usize,
    acks: Vec<Ack>,
    wants_drain: bool,
    is_abandoned: bool,
    // The sender.
    dispatch: Dispatch,
    clock: ServerClock,
    // The wait.
    wake_at: Option<Instant>,
    sees_events: bool,
    /// What was done since it was last asked for: bytes consumed, batches ended, events taken.
    pub progress: u64,
}

/// Where everything goes: what the simulation has for a service asks for no name and no key.
fn destination(compression: Compression) -> Destination {
    Destination {
        endpoint: Endpoint { tls: false, host: "127.0.0.1".to_owned(), port: 80 },
        project: "project".to_owned(),
        logstore: "logstore".to_owned(),
        credentials: CredentialsSource::Unsigned,
        signature: Signature::V1,
        compression,
        exactly_once: false,
    }
}

/// A file in the only collection.
fn stream(file: FileKey) -> StreamKey {
    StreamKey { file, collection: CollectionId(0) }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Running,
    Draining,
    Closed,
}

/// What an iteration of the loop consists of. The agent can die between any two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Mail,
    Look,
    Turn,
    Save,
}

pub const STEPS: [Step; 4] = [Step::Mail, Step::Look, Step::Turn, Step::Save];

impl Agent {
    pub fn new(
        options: Options,
        flaw: Option<Flaw>,
        life: u32,
        loaded: Vec<Checkpoint>,
        mut rng: fastrand::Rng,
        now: Instant,
    ) -> Self {
        let bounds = options.bounds.clone();
        let rate = options.bytes_per_second;
        let plan = Plan::flat(Vec::new(), Vec::new(), destination(options.compression));
        // More than a batch, so that there are lists of full ones too.
        let batch = &options.bounds.batch;
        let together =
            Together { raw_bytes_max: 4 * batch.batch_bytes, lines_max: 4 * batch.batch_lines };
        Self {
            life,
            flaw,
            registry: Registry::default(),
            remembered: Remembered { checkpoints: loaded, searched: None },
            readers: BTreeMap::new(),
            generations: BTreeMap::new(),
            schedule: Schedule::default(),
            batcher: Batcher::new(bounds.batch, &plan, bounds.open_bytes_max)
                .expect("memory is there"),
            bucket: (rate > 0).then(|| Bucket::new(rate, now)),
            pacer: Pacer::new(options.cpu_cores, Duration::ZERO, now),
            cpu: Duration::ZERO,
            unparked: Vec::new(),
            returned: Vec::new(),
            trying: HashSet::new(),
            is_scan_wanted: true,
            scan_at: now,
            turn_at: now,
            paused_until: None,
            is_blocked: false,
            is_moved: false,
            durable_at: None,
            publish_at: None,
            unopened: 0,
            stage: Stage::Running,
            drain_asked_at: now,
            looked_after: None,
            down: VecDeque::new(),
            outstanding_bytes: 0,
            acks: Vec::new(),
            wants_drain: false,
            is_abandoned: false,
            dispatch: Dispatch::new(options.concurrency_max, together, rng.fork()),
            clock: ServerClock::default(),
            wake_at: Some(now),
            sees_events: true,
            progress: 0,
            rng,
            options,
        }
    }

    // === the loop

    /// Takes one step; says whether the agent has ended.
    pub fn step(&mut self, step: Step, machine: &mut Machine) -> bool {
        let now = machine.now;
        match step {
            Step::Mail => {
                self.on_mail(machine, now);
                if self.wants_drain && self.stage == Stage::Running {
                    self.begin_drain(machine, now);
                }
            }
            Step::Look => {
                if self.is_looking() && now >= self.turn_at {
                    self.look(machine, now);
                }
            }
            Step::Turn => {
                self.turn(machine, now);
                self.finish_drain(machine, now);
                self.settle(machine);
                if self.is_abandoned && self.stage != Stage::Closed {
                    self.examine_where(machine, now, |_| true);
                }
                machine.ledger.on_turn(self.batcher.open_bytes());
            }
            Step::Save => {
                let is_done = self.stage == Stage::Closed
                    && self.outstanding_bytes == 0
                    && self.unparked.is_empty();
                let is_over = self.is_abandoned || is_done;
                self.save(machine, now, is_over);
                machine.ledger.on_loop(now);
                if self.publish_at.is_some_and(|at| at <= now) {
                    self.publish_at = None;
                }
                self.wait(machine, now);
                return is_over;
            }
        }
        false
    }

    /// Whether all was delivered, as the process would tell by its exit code: by
    /// `undelivered_files` of the collector's `Summary`, and `unfinished` of the sender's.
    pub fn is_all_delivered(&self) -> bool {
        let is_left =
            |tracked: &Tracked| tracked.has_undelivered_lines() || !tracked.last_error.is_empty();
        let is_read = self.unopened == 0 && !self.registry.iter().any(|(_, one)| is_left(one));
        let is_sent = self.dispatch.is_empty() && self.down.is_empty();
        (is_read && is_sent) || self.flaw == Some(Flaw::ClaimsAll)
    }

    /// Files that it holds though the patterns do not find them.
    pub fn held_files(&self) -> usize {
        self.registry.iter().filter(|(_, tracked)| tracked.state != State::Active).count()
    }

    pub fn ask_to_drain(&mut self, now: Instant) {
        self.wants_drain = true;
        self.wake_at = Some(now);
    }

    pub fn abandon(&mut self, now: Instant) {
        self.is_abandoned = true;
        self.ask_to_drain(now);
    }

    /// When the loop goes on, if nothing else happens; `None` for never.
    pub fn wake_at(&self, has_events: bool, now: Instant) -> Option<Instant> {
        let is_called = !self.acks.is_empty() || (has_events && self.sees_events);
        if is_called { Some(now) } else { self.wake_at }
    }

    // === mail

    fn on_mail(&mut self, machine: &mut Machine, now: Instant) {
        let acks = std::mem::take(&mut self.acks);
        if !acks.is_empty() {
            self.is_blocked = false;
            self.touch(now);
        }
        self.progress += acks.len() as u64;
        for ack in acks {
            self.trying.remove(&ack.id);
            let room = ack.payload_bytes + BATCH_OVERHEAD_BYTES;
            let rounds = if self.flaw == Some(Flaw::RoomTwice) { 2 } else { 1 };
            for _ in 0..rounds {
                self.outstanding_bytes = self.outstanding_bytes.saturating_sub(room);
            }
            match ack.outcome {
                Outcome::Delivered => {
                    machine.ledger.on_done((self.life, ack.id));
                    self.is_moved |= self.registry.on_ack(ack.span, ack.lines).1;
                }
                Outcome::Refused { batch, refusal } => self.on_refused(machine, batch, &refusal),
            }
        }
        self.treat_refused(machine, now);
    }

    fn on_refused(&mut self, machine: &mut Machine, batch: SealedBatch, refusal: &Refusal) {
        machine.ledger.on_refused(batch.id);
        if batch.lines > 1 && *refusal != Refusal::Compression {
            self.outstanding_bytes += batch.payload.len() + BATCH_OVERHEAD_BYTES;
            self.returned.push(batch);
        } else {
            self.unparked.push(batch);
        }
    }

    fn treat_refused(&mut self, machine: &mut Machine, now: Instant) {
        self.park(machine, now);
        while self.unparked.is_empty() && self.trying.len() < PARTS_MAX {
            let Some(batch) = self.returned.pop() else { break };
            self.outstanding_bytes -= batch.payload.len() + BATCH_OVERHEAD_BYTES;
            let ids = [self.batcher.next_id(), self.batcher.next_id()];
            let parts = rewrite::split(&batch, ids).expect("what was sealed can be opened");
            machine.ledger.on_split((self.life, batch.id), self.life, &parts);
            for part in parts {
                self.trying.insert(part.id);
                self.outstanding_bytes += part.payload.len() + BATCH_OVERHEAD_BYTES;
                self.down.push_back(part);
            }
        }
    }

    fn park(&mut self, machine: &mut Machine, now: Instant) {
        for batch in std::mem::take(&mut self.unparked) {
            match machine.write_state() {
                Ok(()) => {
                    let id = (self.life, batch.id);
                    machine.ledger.on_parked(id, &machine.disk);
                    machine.ledger.on_done(id);
                    self.is_moved |= self.registry.on_ack(batch.span, batch.lines).1;
                }
                Err(IoError) => {
                    self.unparked.push(batch);
                    self.durable_at.get_or_insert(now + DURABLE_PERIOD);
                }
            }
        }
    }

    // === look

    fn look(&mut self, machine: &mut Machine, now: Instant) {
        let hints = machine.disk.watch.take();
        self.is_scan_wanted |= hints.names_changed || hints.overflowed;
        let is_periodic = self.scan_at <= now;
        for &file in &hints.written {
            self.examine(machine, file, true, now);
        }
        if self.is_scan_wanted || is_periodic {
            self.discover(machine, now);
        } else if hints.unknown_written {
            self.examine_where(machine, now, |state| state != State::Active);
        }
        let is_news = hints != Hints::default();
        if is_news {
            self.progress += 1;
            self.turn_at = now + self.options.read_linger;
            self.touch(now);
        }
    }

    fn discover(&mut self, machine: &mut Machine, now: Instant) {
        self.is_scan_wanted = false;
        for _ in 0..2 {
            let files = machine.scan();
            self.unopened = 0;
            let mut found = HashSet::new();
            for (path, device, inode) in files {
                found.insert((device, inode));
                if let Some(known) = self.registry.find(device, inode) {
                    if let Some(tracked) = self.registry.get_mut(known) {
                        tracked.sighting.path = Path::new(&path).into();
                    }
                    continue;
                }
                match self.open_found(machine, Path::new(&path), now) {
                    Ok(inode) => found.extend([inode]),
                    Err(IoError) => self.unopened += 1,
                }
            }
            for file in self.registry.on_scan(&found) {
                if self.flaw == Some(Flaw::DropsRotated) {
                    self.close(file);
                }
            }
            let is_new = machine.disk.watch.works && !machine.disk.watch.is_armed;
            machine.disk.watch.is_armed = true;
            if !is_new {
                break;
            }
        }
        self.adopt(machine, now);
        self.refresh_names(machine);
        self.close_idle(machine, now);
        self.examine_where(machine, now, |_| true);
        let has_gone = self.registry.iter().any(|(_, tracked)| tracked.state != State::Active);
        let is_slow = machine.disk.watch.works && !has_gone;
        self.scan_at = now + if is_slow { SCAN_PERIOD } else { SCAN_PERIOD_POLLING };
        self.publish_at = Some(now);
    }

    fn open_found(
        &mut self,
        machine: &mut Machine,
        path: &Path,
        now: Instant,
    ) -> Result<(u64, u64), IoError> {
        let fd = machine.open(path)?;
        let stat = machine.stat(&fd)?;
        let inode = (stat.device, stat.inode);
        if self.registry.find(stat.device, stat.inode).is_some() {
            return Ok(inode);
        }
        let head = machine.head(&fd)?;
        let (offset, tail) = match self.remembered.claim(machine, path, &fd, stat)? {
            Some((saved, Match::Resume | Match::Again)) => (saved.offset, saved.tail),
            Some((_, Match::Rewritten | Match::Other)) | None => (0, Fingerprint::default()),
        };
        self.begin(machine, path.to_owned(), fd, stat, head, offset, tail, State::Active, now);
        Ok(inode)
    }

    fn adopt(&mut self, machine: &mut Machine, now: Instant) {
        for (path, saved) in self.remembered.whereabouts(machine) {
            let outcome: Result<(), IoError> = (|| {
                let fd = machine.open(&path)?;
                let stat = machine.stat(&fd)?;
                if self.registry.find(stat.device, stat.inode).is_some() {
                    return Ok(());
                }
                let head = machine.head(&fd)?;
                match self.remembered.claim(machine, &saved.path, &fd, stat)? {
                    Some((found, Match::Resume | Match::Again)) => {
                        let Checkpoint { path, offset, tail, .. } = found;
                        self.begin(
                            machine,
                            path,
                            fd,
                            stat,
                            head,
                            offset,
                            tail,
                            State::Rotated,
                            now,
                        );
                    }
                    Some((found, Match::Rewritten | Match::Other)) => {
                        self.remembered.checkpoints.push(found);
                    }
                    None => {}
                }
                Ok(())
            })();
            if outcome.is_err() {
                self.unopened += 1;
                self.remembered.searched = None;
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "as the function that it mirrors")]
    fn begin(
        &mut self,
        machine: &mut Machine,
        path: PathBuf,
        fd: Fd,
        stat: Stat,
        head: Fingerprint,
        offset: u64,
        tail: Fingerprint,
        state: State,
        now: Instant,
    ) {
        let opened = Opened {
            collection: CollectionId(0),
            resolved: machine.path_of(&fd).unwrap_or_else(|| path.clone()).into(),
            path: path.into(),
            device: stat.device,
            inode: stat.inode,
            born: stat.born,
            head,
            offset,
            tail,
        };
        machine.note("open", stat.inode, offset, 0);
        let file = self.registry.open(opened, now, machine.unix());
        if let Some(tracked) = self.registry.get_mut(file) {
            tracked.state = state;
        }
        self.begin_stream(file);
        machine.ledger.on_opened(fd.inode, machine.head_generation, head.len == 0);
        self.readers.insert(file, fd);
        self.is_moved = true;
        self.examine(machine, file, true, now);
    }

    fn begin_stream(&mut self, file: FileKey) {
        let Some(tracked) = self.registry.get(file) else { return };
        let path = tracked.opened.path.to_string_lossy();
        let tags = [("__path__".to_owned(), path.as_bytes().to_owned())];
        let trailer = log_group::trailer("", "10.0.0.1", &tags);
        let source_id = format!("10.0.0.1_{path}_{:016X}", self.rng.u64(..));
        let stream = tracked.stream(file);
        self.batcher.begin(stream, DestinationId(0), path.into(), trailer.into(), &source_id);
    }

    fn refresh_names(&mut self, machine: &mut Machine) {
        for (file, fd) in &self.readers {
            if let Some(tracked) = self.registry.get_mut(*file)
                && tracked.state != State::Active
                && let Some(path) = machine.path_of(fd)
                && *path != *tracked.opened.resolved
            {
                tracked.opened.resolved = path.into();
                self.is_moved = true;
            }
        }
        let paths = self.registry.iter().flat_map(|(file, tracked)| {
            let found = (tracked.state == State::Active).then_some(&tracked.sighting.path);
            let names = found.into_iter().chain([&tracked.opened.resolved]);
            names.map(move |name| (name, file))
        });
        let name =
            |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        machine.disk.watch.set_names(paths.map(|(path, file)| (name(path), file)).collect());
    }

    fn close_idle(&mut self, machine: &mut Machine, now: Instant) {
        for file in self.registry.closable(now) {
            self.examine(machine, file, false, now);
        }
        for file in self.registry.closable(now) {
            if let Some(fd) = self.close(file) {
                machine.ledger.on_closed(fd.inode, &machine.disk);
            }
        }
    }

    fn close(&mut self, file: FileKey) -> Option<Fd> {
        self.note_seen(file);
        self.registry.end(file);
        self.batcher.end(stream(file));
        self.is_moved = true;
        self.readers.remove(&file)
    }

    fn note_seen(&mut self, file: FileKey) {
        let size = self.registry.get(file).map_or(0, |tracked| tracked.size);
        self.registry.on_verified(file, size);
    }

    fn settle(&mut self, machine: &mut Machine) {
        for (_, ended) in self.registry.take_settled() {
            if !ended.is_balanced() {
                machine.ledger.fail(|| format!("the bytes do not add up: {ended:?}"));
            }
            self.is_moved = true;
        }
    }

    fn examine_where(
        &mut self,
        machine: &mut Machine,
        now: Instant,
        wanted: impl Fn(State) -> bool,
    ) {
        let states = self.registry.iter().map(|(file, tracked)| (file, tracked.state));
        let files: Vec<_> = states.filter(|(_, state)| wanted(*state)).collect();
        for (file, _) in files {
            self.examine(machine, file, false, now);
        }
    }

    fn examine(&mut self, machine: &mut Machine, file: FileKey, is_announced: bool, now: Instant) {
        let Some(stat) = self.stat(machine, file) else { return };
        match self.registry.on_stat(file, &stat, now) {
            Change::None if !is_announced => {}
            Change::None | Change::Grew | Change::Unread | Change::Touched | Change::Cut(_) => {
                self.schedule.mark(file);
            }
            Change::Shrank => self.on_shrunk(machine, file, now),
        }
    }

    fn on_shrunk(&mut self, machine: &mut Machine, file: FileKey, now: Instant) {
        self.note_seen(file);
        self.restart(machine, file, now);
    }

    fn stat(&mut self, machine: &mut Machine, file: FileKey) -> Option<Stat> {
        let stat = machine.stat(self.readers.get(&file)?).ok();
        if stat.is_none() {
            self.note_file_error(file);
        }
        stat
    }

    fn note_file_error(&mut self, file: FileKey) {
        self.registry.on_unreadable(file);
        if let Some(tracked) = self.registry.get_mut(file) {
            "an error".clone_into(&mut tracked.last_error);
        }
    }

    fn restart(&mut self, machine: &mut Machine, file: FileKey, now: Instant) {
        let Some(restarted) = self.registry.restart(file, 0, now, machine.unix()) else { return };
        let Some(fd) = self.readers.remove(&file) else { return };
        if let (Ok(head), Some(tracked)) =
            (machine.head(&fd), self.registry.get_mut(restarted.file))
        {
            tracked.opened.head = head;
            machine.ledger.on_opened(fd.inode, machine.head_generation, head.len == 0);
        }
        let generation = machine.disk.inodes[fd.inode].generation as u64;
        machine.note("restart", u64::from(restarted.file.0), generation, restarted.lost_bytes);
        machine.ledger.counts.restarts += 1;
        self.batcher.end(stream(file));
        self.begin_stream(restarted.file);
        self.readers.insert(restarted.file, fd);
        self.schedule.mark(restarted.file);
        self.is_moved = true;
        self.refresh_names(machine);
    }

    // === turn

    fn turn(&mut self, machine: &mut Machine, now: Instant) {
        if self.stage == Stage::Closed {
            return;
        }
        self.seal_due(machine, now);
        if self.paused_until.is_some_and(|until| now < until) {
            return;
        }
        self.paused_until = None;
        let flush = self.registry.rests_due(self.options.partial_line_timeout, now);
        for &file in &flush {
            self.schedule.mark(file);
        }
        for _ in 0..READS_PER_TURN {
            if self.is_blocked || !self.unparked.is_empty() {
                break;
            }
            if self.is_rate_limited(now) || !self.make_room(machine) {
                break;
            }
            let Some(file) = self.schedule.next_file() else { break };
            let is_flush = flush.contains(&file) && self.flaw != Some(Flaw::KeepsRests);
            self.read(machine, file, is_flush, now);
            self.cpu += Duration::from_micros(200);
            if self.pace(now) {
                return;
            }
        }
        self.pace(now);
    }

    fn pace(&mut self, now: Instant) -> bool {
        let rest = self.pacer.on_turn(self.cpu, now);
        if rest > Duration::ZERO {
            self.pause(now + rest);
        }
        rest > Duration::ZERO
    }

    fn is_rate_limited(&mut self, now: Instant) -> bool {
        let Some(bucket) = &self.bucket else { return false };
        let ready_at = bucket.ready_at(now);
        if ready_at <= now {
            return false;
        }
        if !self.schedule.is_empty() {
            self.pause(ready_at);
        }
        true
    }

    fn pause(&mut self, until: Instant) {
        self.paused_until = Some(self.paused_until.map_or(until, |before| before.max(until)));
    }

    fn has_room(&self) -> bool {
        self.outstanding_bytes < self.options.bounds.handoff_bytes_max
    }

    fn make_room(&mut self, machine: &mut Machine) -> bool {
        while self.batcher.is_over() {
            if !self.has_room() {
                self.is_blocked = true;
                return false;
            }
            let Some((_, stream)) = self.batcher.oldest() else { break };
            self.seal(machine, stream, Reason::Pressure);
        }
        true
    }

    fn seal_due(&mut self, machine: &mut Machine, now: Instant) {
        while self.has_room() {
            let Some((stream, reason)) = self.batcher.due(now) else { break };
            self.seal(machine, stream, reason);
        }
    }

    fn seal(&mut self, machine: &mut Machine, stream: StreamKey, reason: Reason) {
        let Some(sealed) = self.batcher.seal(stream, reason) else { return };
        let Sealed { batch, tail, hole_bytes, .. } = sealed;
        if let Some(watermark) = self.registry.watermark_mut(stream) {
            watermark.on_sealed(batch.span, batch.lines, tail, hole_bytes);
        }
        machine.note("seal", batch.id.0, batch.span.start, batch.span.end);
        let generation = self.generations[&stream.file];
        machine.ledger.on_sealed(&batch, self.life, generation, &machine.disk);
        self.outstanding_bytes += batch.payload.len() + BATCH_OVERHEAD_BYTES;
        self.down.push_back(batch);
    }

    fn read(&mut self, machine: &mut Machine, file: FileKey, flush_partial: bool, now: Instant) {
        let Some(stat) = self.stat(machine, file) else { return };
        let change = self.registry.on_stat(file, &stat, now);
        if change == Change::Shrank {
            return self.on_shrunk(machine, file, now);
        }
        let flush_partial = flush_partial && change != Change::Grew;
        match self.read_into(machine, file, stat, flush_partial, now) {
            Ok(Piece::Done) => {}
            Ok(Piece::More) => self.schedule.mark(file),
            Ok(Piece::Blocked) => {
                self.is_blocked = true;
                self.schedule.mark(file);
            }
            Ok(Piece::Rewritten) => self.restart(machine, file, now),
            Err(IoError) => self.note_file_error(file),
        }
        self.touch(now);
    }

    fn read_into(
        &mut self,
        machine: &mut Machine,
        file: FileKey,
        stat: Stat,
        flush_partial: bool,
        now: Instant,
    ) -> Result<Piece, IoError> {
        let Some(tracked) = self.registry.get(file) else { return Ok(Piece::Done) };
        let Some(fd) = self.readers.get(&file) else { return Ok(Piece::Done) };
        let (tail, head) = (tracked.tail, tracked.opened.head);
        let lead = tail.len as usize;
        let from = tracked.read_offset - u64::from(tail.len);
        let is_blind = self.flaw == Some(Flaw::BlindToRewriting);
        let (bytes, generation) = machine.read_at(fd, from, self.options.read_bytes)?;
        let is_other = !tail.matches_start_of(&bytes) || !machine.has_head(fd, head)?;
        if is_other && !(is_blind && lead <= bytes.len()) {
            return Ok(Piece::Rewritten);
        }
        self.registry.on_verified(file, stat.size);
        if (head.len as usize) < HEAD_BYTES_MAX && u64::from(head.len) < stat.size {
            let head = machine.head(fd)?;
            if let Some(tracked) = self.registry.get_mut(file) {
                tracked.opened.head = head;
            }
        }
        self.generations.insert(file, generation);
        machine.note("read", u64::from(file.0), generation as u64, from + lead as u64);
        let is_to_end = from + bytes.len() as u64 >= stat.size;
        let time = u32::try_from(machine.unix()).unwrap_or(u32::MAX);
        let flush_partial = flush_partial && is_to_end;
        let offset = from + lead as u64;
        let input =
            Input { bytes: &bytes, lead, offset, time, now, flush_partial, is_range_end: false };
        Ok(self.feed(machine, file, input, is_to_end))
    }

    fn feed(
        &mut self,
        machine: &mut Machine,
        file: FileKey,
        mut input: Input<'_>,
        mut is_to_end: bool,
    ) -> Piece {
        let (whole, whole_is_to_end) = (input, is_to_end);
        let piece = input.lead.saturating_add(self.options.piece_bytes);
        if piece < whole.bytes.len() {
            input.bytes = &whole.bytes[..piece];
            (input.flush_partial, is_to_end) = (false, false);
        }
        loop {
            let mut writer = self.batcher.writer(stream(file));
            let line_bytes_max = self.options.bounds.line_bytes_max;
            let progress = pipeline::advance(&input, line_bytes_max, &mut writer);
            input.lead += progress.consumed;
            let before = input.offset;
            input.offset += progress.consumed as u64;
            self.progress += progress.consumed as u64;
            let inode = self.readers[&file].inode;
            machine.ledger.on_read(inode, self.generations[&file], input.offset);
            if let Some(bucket) = &mut self.bucket {
                bucket.take(progress.consumed as u64, input.now);
            }
            // A rest of more than a line's length is sent in pieces, with a seal between them.
            if progress.sent_partial && progress.stop == Stop::NeedsBytes {
                machine.ledger.on_rest_sent(&whole.bytes[input.lead..]);
            }
            let left = &input.bytes[input.lead..];
            let is_at_end = is_to_end && progress.stop == Stop::NeedsBytes;
            let is_idle = split::is_idle(left);
            self.registry.on_read(file, input.offset, progress.tail, is_at_end, is_idle);
            if let Some(tracked) = self.registry.get_mut(file) {
                tracked.last_error.clear();
                if progress.passed > 0 {
                    let end = before + progress.passed as u64;
                    let passed = &input.bytes[..input.lead - progress.consumed + progress.passed];
                    tracked.watermark.on_passed(before, end, Fingerprint::of_tail(passed), 0);
                    self.is_moved = true;
                }
            }
            let is_stuck = progress.consumed == 0 && input.bytes.len() < whole.bytes.len();
            match progress.stop {
                Stop::NeedsBytes if is_stuck => {
                    let piece = input.lead + 2 * (input.bytes.len() - input.lead).max(1);
                    if let Some(bytes) = whole.bytes.get(..piece) {
                        input.bytes = bytes;
                    } else {
                        (input.bytes, input.flush_partial) = (whole.bytes, whole.flush_partial);
                        is_to_end = whole_is_to_end;
                    }
                }
                Stop::NeedsBytes if is_to_end || progress.consumed == 0 => return Piece::Done,
                Stop::NeedsBytes => return Piece::More,
                Stop::Seal(reason) => {
                    if !self.has_room() {
                        return Piece::Blocked;
                    }
                    self.seal(machine, stream(file), reason);
                }
            }
        }
    }

    // === stopping

    fn begin_drain(&mut self, machine: &mut Machine, now: Instant) {
        self.stage = Stage::Draining;
        self.drain_asked_at = now;
        self.batcher.lower_linger(DRAIN_LINGER_MAX);
        self.publish_at = Some(now);
        self.discover(machine, now);
        let files: Vec<FileKey> = self.registry.iter().map(|(file, _)| file).collect();
        for file in files {
            self.schedule.mark(file);
        }
    }

    fn is_looking(&self) -> bool {
        match self.stage {
            Stage::Running => true,
            Stage::Draining => !self.options.drain_quiet.is_zero(),
            Stage::Closed => false,
        }
    }

    fn grown_at(&self) -> Instant {
        let grown = self.registry.iter().map(|(_, tracked)| tracked.growth.at);
        grown.fold(self.drain_asked_at, Instant::max)
    }

    fn quiet_at(&self) -> Instant {
        self.grown_at() + self.options.drain_quiet
    }

    fn finish_drain(&mut self, machine: &mut Machine, now: Instant) {
        let is_reading = !self.schedule.is_empty();
        if self.stage != Stage::Draining || is_reading || now < self.quiet_at() {
            return;
        }
        while let Some((_, stream)) = self.batcher.oldest() {
            if !self.has_room() {
                return;
            }
            self.seal(machine, stream, Reason::Shutdown);
        }
        if self.outstanding_bytes > 0 || !self.unparked.is_empty() {
            return;
        }
        let grown_at = self.grown_at();
        if self.is_looking() && self.looked_after != Some(grown_at) {
            self.looked_after = Some(grown_at);
            self.discover(machine, now);
            if !self.schedule.is_empty() || now < self.quiet_at() {
                return;
            }
        }
        self.stage = Stage::Closed;
    }

    // === checkpoint

    fn save(&mut self, machine: &mut Machine, now: Instant, is_last: bool) {
        let is_durable_due = self.durable_at.is_some_and(|at| at <= now);
        if !(self.is_moved || is_durable_due || is_last) {
            return;
        }
        let is_durable = is_durable_due || is_last;
        if self.flaw == Some(Flaw::SavesSeldom) && !is_durable {
            self.durable_at.get_or_insert(now + DURABLE_PERIOD);
            return;
        }
        let unix = machine.unix();
        let mut checkpoints: Vec<Checkpoint> = Vec::new();
        for (_, tracked) in self.registry.iter() {
            let mut checkpoint = tracked.checkpoint(unix);
            if self.flaw == Some(Flaw::CheckpointOfReading) {
                (checkpoint.offset, checkpoint.tail) = (tracked.read_offset, tracked.tail);
            }
            checkpoints.push(checkpoint);
        }
        checkpoints.extend_from_slice(&self.remembered.checkpoints);
        self.durable_at = match machine.save(&checkpoints, is_durable) {
            Ok(()) if is_durable && self.unparked.is_empty() => None,
            Ok(()) => self.durable_at.filter(|at| *at > now).or(Some(now + DURABLE_PERIOD)),
            Err(IoError) => Some(now + DURABLE_PERIOD),
        };
        self.is_moved = false;
    }

    fn touch(&mut self, now: Instant) {
        self.publish_at.get_or_insert(now + PUBLISH_PERIOD);
    }

    // === waiting

    fn wait(&mut self, machine: &Machine, now: Instant) {
        let is_reading = self.stage != Stage::Closed;
        let is_held_up =
            self.is_blocked || self.paused_until.is_some() || !self.unparked.is_empty();
        let can_read = is_reading && !is_held_up;
        if can_read && !self.schedule.is_empty() {
            self.wake_at = Some(now);
            return;
        }
        let paused_until = self.paused_until.filter(|_| is_reading);
        let mut deadlines = vec![self.durable_at, self.publish_at, paused_until];
        if self.stage == Stage::Draining {
            deadlines.push(Some(self.quiet_at()).filter(|at| *at > now));
        }
        if self.is_looking() {
            deadlines.push(Some(self.scan_at.max(self.turn_at)));
            if self.is_scan_wanted {
                deadlines.push(Some(self.turn_at));
            }
        }
        if can_read {
            deadlines.push(self.registry.rest_deadline(self.options.partial_line_timeout));
        }
        if self.has_room() {
            deadlines.push(self.batcher.deadline());
        }
        let nearest = deadlines.into_iter().flatten().min();
        self.sees_events = self.is_looking() && now >= self.turn_at;
        let has_watch = machine.disk.watch.works && self.is_looking();
        self.wake_at = if has_watch && !self.sees_events {
            Some(nearest.map_or(self.turn_at, |at| at.min(self.turn_at)))
        } else {
            nearest
        };
    }

    // === the sender

    /// Starts the requests that may start now.
    pub fn send(&mut self, machine: &mut Machine) {
        for batch in self.down.drain(..) {
            self.dispatch.on_batch(batch);
        }
        while let Some(load) = self.dispatch.poll(machine.now) {
            for batch in &load.batches {
                machine.note("attempt", batch.id.0, load.request.0, 0);
                machine.ledger.on_attempt((self.life, batch.id));
            }
            machine.request(self.life, load, self.clock.offset_seconds());
        }
    }

    pub fn send_deadline(&self) -> Option<Instant> {
        self.dispatch.deadline()
    }

    /// An attempt has ended: with an answer, or without.
    pub fn on_answer(
        &mut self,
        load: &Load,
        offset: i64,
        answer: Option<Answer>,
        machine: &mut Machine,
    ) {
        let sent = Sent::of(&load.batches[0]);
        let verdict = self.judge(sent, offset, answer, machine.unix());
        if matches!(verdict, Verdict::Delivered | Verdict::Refuse(_)) {
            self.clock.on_success();
        }
        if verdict == Verdict::Delivered {
            for batch in &load.batches {
                machine.ledger.on_acknowledged((self.life, batch.id));
            }
        }
        self.acks.extend(self.dispatch.on_result(load.request, verdict, machine.now));
    }

    fn judge(&mut self, sent: Sent, offset: i64, answer: Option<Answer>, unix: u64) -> Verdict {
        let Some(answer) = answer else {
            return Verdict::Retry { kind: FailureKind::Network, after: None };
        };
        let verdict = Verdict::of_load(&answer, sent, self.flaw != Some(Flaw::TrustsStrangers));
        if let Verdict::ClockSkew { server_unix } = verdict
            && !self.clock.on_complaint(offset, server_unix, unix.cast_signed())
        {
            return Verdict::Retry { kind: FailureKind::Clock, after: answer.retry_after };
        }
        verdict
    }
}

enum Piece {
    Done,
    More,
    Blocked,
    Rewritten,
}

/// As `tail::remembered::Remembered`, over the made-up directory.
struct Remembered {
    checkpoints: Vec<Checkpoint>,
    searched: Option<u64>,
}

impl Remembered {
    fn claim(
        &mut self,
        machine: &mut Machine,
        path: &Path,
        fd: &Fd,
        stat: Stat,
    ) -> Result<Option<(Checkpoint, Match)>, IoError> {
        let kinship = |saved: &Checkpoint| match (
            saved.device == stat.device,
            saved.inode == stat.inode,
            saved.path == path,
        ) {
            (true, true, _) => Some(0),
            (false, true, _) => Some(1),
            (false, false, true) => Some(2),
            (true, false, _) | (false, false, false) => None,
        };
        let kin = self.checkpoints.iter().enumerate();
        let mut candidates: Vec<_> =
            kin.filter_map(|(index, saved)| Some((kinship(saved)?, index))).collect();
        candidates.sort_unstable();
        machine.note("claim", stat.inode, candidates.len() as u64, self.checkpoints.len() as u64);
        for (_, index) in candidates {
            let saved = &self.checkpoints[index];
            let seen = Seen {
                device: stat.device,
                inode: stat.inode,
                born: stat.born,
                is_same_path: saved.path == path,
                is_head_same: machine.has_head(fd, saved.head)?,
                is_tail_same: stat.size >= saved.offset
                    && machine.has_tail(fd, saved.tail, saved.offset)?,
            };
            let found = compare(saved, seen);
            if found != Match::Other {
                let mut saved = self.checkpoints.swap_remove(index);
                if found == Match::Again {
                    (saved.offset, saved.tail) = (0, Fingerprint::default());
                }
                return Ok(Some((saved, found)));
            }
        }
        Ok(None)
    }

    fn whereabouts(&mut self, machine: &mut Machine) -> Vec<(PathBuf, Checkpoint)> {
        let version = machine.disk.version;
        if self.checkpoints.is_empty() || self.searched.replace(version) == Some(version) {
            return Vec::new();
        }
        let entries = machine.entries();
        let waiting = |inode| self.checkpoints.iter().find(|saved| saved.inode == inode).cloned();
        entries.into_iter().filter_map(|(path, inode)| Some((path, waiting(inode)?))).collect()
    }
}
