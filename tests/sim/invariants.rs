//! What must be true, whatever happens: written once, and checked while the world runs.
//!
//! The [`Ledger`] knows what the apps wrote (from the disk), what the service stored and what the
//! agent did, and takes nothing from the agent's own accounts. The first broken invariant stays in
//! [`Ledger::violation`] and ends the run.
//!
//! # What is owed
//! Every byte of a file that stands on the disk, line ends aside, if the agent could know the file:
//! it was found under a name that the patterns match, or a save that survived speaks of it. Of a
//! file that was truncated: what had been read, unless the agent died. Of a deleted file: all,
//! as long as the agent lives and holds it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use std::time::{Duration, Instant};

use logferry::base::sealed::{BatchId, SealedBatch};
use logferry::base::span::FileKey;
use logferry::batch;
use logferry::batch::log_group::LogGroup;
use logferry::checkpoint::format::Checkpoint;
use logferry::handoff::BATCH_OVERHEAD_BYTES;
use logferry_wire::{Compression, GROUP_LINES_MAX, sls_logs};
use prost::Message as _;

use crate::agent::PARTS_MAX;
use crate::disk::{DIR, Disk};

/// What was acknowledged is written through to the disk within this time.
const DURABLE_WITHIN: Duration = Duration::from_secs(6);

/// More than the tags of a group take.
const TAGS_BYTES_MAX: usize = 512;

/// Which batch of which life of the agent.
pub type Batch = (u32, BatchId);

/// The bounds of one world.
#[derive(Clone)]
pub struct Bounds {
    pub batch: batch::Options,
    pub line_bytes_max: usize,
    pub open_bytes_max: usize,
    pub handoff_bytes_max: usize,
}

pub struct Ledger {
    pub violation: Option<String>,
    pub counts: Counts,
    bounds: Bounds,
    /// By generation of the disk.
    accounts: Vec<Account>,
    facts: BTreeMap<Batch, Facts>,
    streams: BTreeMap<(u32, FileKey), Stream>,
    /// Bytes handed over, with what each batch takes beside its payload, whose acknowledgement the agent has not taken.
    outstanding: BTreeMap<BatchId, usize>,
    /// Payload bytes that were refused and are not set aside yet.
    refused: BTreeMap<BatchId, usize>,
    /// Files that this life of the agent has opened, by inode.
    met: BTreeSet<usize>,
    /// What the agent knows, what a kill would leave of that, and what a power cut.
    now: Known,
    fast: Known,
    durable: Known,
    /// The last save failed.
    is_save_broken: bool,
    /// Since when a power cut would cost more than what is in flight.
    not_durable_since: Option<Instant>,
    /// Lowest byte of each generation that a life may deliver again, by life.
    floors: Vec<Vec<u64>>,
    /// Saved entries that have been checked.
    checked: BTreeSet<(u64, u64, u32)>,
}

/// What happened in a run, so that a quiet one does not pass for a good one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    pub batches: u64,
    pub stored: u64,
    pub stored_again: u64,
    pub repeated_bytes: u64,
    pub parked: u64,
    pub split: u64,
    pub saves: u64,
    pub closed: u64,
    pub restarts: u64,
}

#[derive(Clone, Default)]
struct Known {
    /// Files that were opened, by inode, and what was met in them.
    files: BTreeMap<usize, Met>,
    /// By generation: everything below is acknowledged.
    floors: Vec<u64>,
}

#[derive(Clone, Copy)]
struct Met {
    generation: usize,
    is_blank: bool,
}

/// One generation of bytes.
#[derive(Default)]
struct Account {
    /// Stored by the service or set aside, as ranges that do not touch.
    covered: BTreeMap<u64, u64>,
    /// Below it all is covered, line ends aside. Raised when it is asked for.
    prefix: u64,
    owed: Owed,
    /// In this life: just past the last byte that was read, sealed, attempted.
    read_to: u64,
    sealed_to: u64,
    attempted_to: u64,
    /// Sealed and not acknowledged, in order: end, and whether it is acknowledged.
    pending: VecDeque<(u64, u64, bool)>,
    floor: u64,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Owed {
    #[default]
    Whole,
    Below(u64),
    Nothing,
}

struct Facts {
    /// The batch that was sealed, where this is a part of it; else itself.
    whole: Batch,
    /// Which of the lines of the whole are in it.
    lines: Range<u32>,
    /// Of a whole: which of its lines were stored or set aside, be it in a part of it, and how many
    /// the collector has taken into account.
    safe_lines: BTreeSet<u32>,
    done_lines: usize,
    generation: usize,
    start: u64,
    end: u64,
    stored: u32,
    is_acknowledged: bool,
    is_attempted: bool,
}

impl Facts {
    /// Of what was just sealed, or taken out of it.
    fn new(whole: Batch, lines: Range<u32>, generation: usize, (start, end): (u64, u64)) -> Self {
        Self {
            whole,
            lines,
            safe_lines: BTreeSet::new(),
            done_lines: 0,
            generation,
            start,
            end,
            stored: 0,
            is_acknowledged: false,
            is_attempted: false,
        }
    }
}

struct Stream {
    prefix: String,
    next: u64,
}

impl Ledger {
    pub fn new(bounds: Bounds) -> Self {
        Self {
            violation: None,
            counts: Counts::default(),
            bounds,
            accounts: Vec::new(),
            facts: BTreeMap::new(),
            streams: BTreeMap::new(),
            outstanding: BTreeMap::new(),
            refused: BTreeMap::new(),
            met: BTreeSet::new(),
            now: Known::default(),
            fast: Known::default(),
            durable: Known::default(),
            is_save_broken: false,
            not_durable_since: None,
            floors: Vec::new(),
            checked: BTreeSet::new(),
        }
    }

    pub fn fail(&mut self, what: impl FnOnce() -> String) {
        self.violation.get_or_insert_with(what);
    }

    fn check(&mut self, is_true: bool, what: impl FnOnce() -> String) {
        if !is_true {
            self.fail(what);
        }
    }

    fn account(&mut self, generation: usize) -> &mut Account {
        if self.accounts.len() <= generation {
            self.accounts.resize_with(generation + 1, Account::default);
        }
        &mut self.accounts[generation]
    }

    // === what is owed

    /// The agent has opened a file, or has begun it anew. `is_blank`: it saw no byte of it.
    pub fn on_opened(&mut self, inode: usize, generation: usize, is_blank: bool) {
        self.met.insert(inode);
        self.now.files.insert(inode, Met { generation, is_blank });
    }

    /// Lines up to `offset` are in groups.
    pub fn on_read(&mut self, inode: usize, generation: usize, offset: u64) {
        if let Some(met) = self.now.files.get_mut(&inode) {
            met.is_blank = false;
        }
        let account = self.account(generation);
        account.read_to = account.read_to.max(offset);
    }

    /// A line was sent without its end; `behind` it stands in the file what was read with it.
    pub fn on_rest_sent(&mut self, behind: &[u8]) {
        let is_last = matches!(behind, [] | [b'\r']);
        self.check(is_last, || format!("a line was cut with {:?} behind it", behind));
    }

    pub fn on_truncated(&mut self, generation: usize) {
        let account = self.account(generation);
        if account.owed == Owed::Whole {
            account.owed = Owed::Below(account.read_to);
        }
    }

    /// A file has another name. One that left the patterns before the agent had met it is not owed.
    pub fn on_renamed(&mut self, inode: usize, name: &str, disk: &Disk) {
        if !is_matched(name) && !self.met.contains(&inode) {
            self.forgive_strange(inode, disk);
        }
    }

    /// Without its name, a file can only be known by what a save says of its bytes: one that was
    /// truncated since looks like any other file with a used inode.
    fn forgive_strange(&mut self, inode: usize, disk: &Disk) {
        let generation = disk.inodes[inode].generation;
        if self.now.files.get(&inode).is_none_or(|met| met.generation != generation) {
            self.account(generation).owed = Owed::Nothing;
        }
    }

    /// Names are gone: what nobody holds is gone with them.
    pub fn on_unlinked(&mut self, disk: &mut Disk) {
        for inode in disk.reap() {
            let generation = disk.inodes[inode].generation;
            self.account(generation).owed = Owed::Nothing;
        }
    }

    /// The agent has closed files of its own accord.
    pub fn on_closed(&mut self, inode: usize, disk: &Disk) {
        self.counts.closed += 1;
        let generation = disk.inodes[inode].generation;
        let is_settled = self.is_settled(generation, disk);
        let covered = self.prefix(generation, disk);
        self.check(is_settled, || {
            format!("a file was closed before its end was delivered: inode {inode}, at {covered}")
        });
        self.now.files.remove(&inode);
    }

    /// The agent is gone and all that it held with it. `is_fast_lost`: and what it had not written
    /// through to the disk.
    pub fn on_death(&mut self, is_fast_lost: bool, disk: &mut Disk) {
        self.on_unlinked(disk);
        for account in &mut self.accounts {
            if matches!(account.owed, Owed::Below(_)) {
                account.owed = Owed::Nothing;
            }
            (account.read_to, account.sealed_to, account.attempted_to) = (0, 0, 0);
            account.pending.clear();
        }
        self.outstanding.clear();
        self.refused.clear();
        self.met.clear();
        (self.is_save_broken, self.not_durable_since) = (false, None);
        if is_fast_lost {
            self.fast = self.durable.clone();
        }
        self.now = self.fast.clone();
    }

    /// The disk has another number: files of which no byte was seen cannot be known again.
    pub fn on_remounted(&mut self) {
        for known in [&mut self.now, &mut self.fast, &mut self.durable] {
            known.files.retain(|_, met| !met.is_blank);
        }
    }

    /// All numbers are others now: nothing but names and bytes can be known again.
    pub fn on_copied(&mut self) {
        for known in [&mut self.now, &mut self.fast, &mut self.durable] {
            *known = Known::default();
        }
    }

    /// The next life begins: files that it cannot know of are not owed.
    pub fn on_start(&mut self, disk: &Disk) {
        for (generation, account) in self.accounts.iter_mut().enumerate() {
            account.floor = self.now.floors.get(generation).copied().unwrap_or(0);
        }
        self.durable = self.now.clone();
        self.fast = self.now.clone();
        self.floors.push(self.now.floors.clone());
        let matched: BTreeSet<usize> =
            disk.names().filter(|(name, _)| is_matched(name)).map(|(_, inode)| inode).collect();
        for inode in 0..disk.inodes.len() {
            if !matched.contains(&inode) {
                self.forgive_strange(inode, disk);
            }
        }
    }

    // === batches

    /// A batch was sealed from bytes that were read of `generation`.
    pub fn on_sealed(&mut self, batch: &SealedBatch, life: u32, generation: usize, disk: &Disk) {
        self.counts.batches += 1;
        let (start, end) = (batch.span.start, batch.span.end);
        let name = format!(
            "batch {} of life {life}, {start}..{end} of generation {generation}",
            batch.id.0
        );
        let Some(group) = decode(batch) else {
            return self.fail(|| format!("{name} cannot be decoded"));
        };
        self.check_limits(batch, &group, &name);
        self.check_pack_id(batch, life, &group, &name);
        let is_written = carries(&disk.generations[generation].bytes, start, end, &group);
        self.check(is_written, || format!("{name} says what was never written"));
        let account = self.account(generation);
        let is_in_order = start >= account.sealed_to;
        account.sealed_to = end;
        account.pending.push_back((start, end, false));
        self.check(is_in_order, || format!("{name} repeats what was sealed in this life"));
        let held: usize = self.outstanding.values().sum();
        let handoff_max = self.bounds.handoff_bytes_max;
        self.check(held < handoff_max, || format!("{name} went into a full hand-off: {held}"));
        self.outstanding.insert(batch.id, batch.payload.len() + BATCH_OVERHEAD_BYTES);
        let id = (life, batch.id);
        self.facts.insert(id, Facts::new(id, 0..batch.lines, generation, (start, end)));
    }

    /// A refused batch was taken apart.
    pub fn on_split(&mut self, batch: Batch, life: u32, parts: &[SealedBatch]) {
        self.counts.split += 1;
        self.refused.remove(&batch.1);
        let facts = &self.facts[&batch];
        let (whole, generation, span) = (facts.whole, facts.generation, (facts.start, facts.end));
        let mut lines = 0;
        for part in parts {
            lines += part.lines;
            self.outstanding.insert(part.id, part.payload.len() + BATCH_OVERHEAD_BYTES);
            let lines = part.first..part.first + part.lines;
            let facts = Facts::new(whole, lines, generation, span);
            self.facts.insert((life, part.id), facts);
        }
        let is_same = lines == self.facts[&batch].lines.len() as u32;
        self.check(is_same, || format!("the parts of {batch:?} have {lines} lines"));
    }

    fn check_limits(&mut self, batch: &SealedBatch, group: &sls_logs::LogGroup, name: &str) {
        let lines = group.logs.len();
        let lines_max = self.bounds.batch.batch_lines.min(GROUP_LINES_MAX) as usize;
        self.check(lines == batch.lines as usize, || format!("{name} miscounts its {lines} lines"));
        self.check((1..=lines_max).contains(&lines), || format!("{name} has {lines} lines"));
        let tags: usize = group.log_tags.iter().map(prost::Message::encoded_len).sum::<usize>()
            + group.log_tags.len() * 3
            + group.source.as_ref().map_or(0, |source| source.len() + 2);
        let bytes = batch.raw_bytes as usize - tags.min(batch.raw_bytes as usize);
        let bytes_max = if lines == 1 {
            LogGroup::appended_len(self.bounds.line_bytes_max)
        } else {
            self.bounds.batch.batch_bytes
        };
        self.check(bytes <= bytes_max, || format!("{name} has {bytes} bytes"));
        let minutes: BTreeSet<u32> = group.logs.iter().map(|log| log.time / 60).collect();
        self.check(minutes.len() == 1, || format!("{name} mixes the minutes {minutes:?}"));
        let is_named = group.log_tags.iter().any(|tag| {
            tag.key == "__path__"
                && tag.value == batch.path.as_bytes()
                && tag.value.starts_with(DIR.as_bytes())
        });
        self.check(is_named, || format!("{name} does not say its path"));
    }

    /// The order of a file is that of its numbered groups: one more each, spans going forward.
    fn check_pack_id(
        &mut self,
        batch: &SealedBatch,
        life: u32,
        group: &sls_logs::LogGroup,
        name: &str,
    ) {
        let tag = group.log_tags.iter().find(|tag| tag.key == "__pack_id__");
        let text =
            tag.map(|tag| String::from_utf8_lossy(&tag.value).into_owned()).unwrap_or_default();
        let Some((prefix, number)) = text.split_once('-') else {
            return self.fail(|| format!("{name} has the pack id {text:?}"));
        };
        let stream = self
            .streams
            .entry((life, batch.span.stream.file))
            .or_insert_with(|| Stream { prefix: prefix.to_owned(), next: 0 });
        let is_next = stream.prefix == prefix && u64::from_str_radix(number, 16) == Ok(stream.next);
        stream.next += 1;
        self.check(is_next, || format!("{name} has the pack id {text} out of order"));
    }

    /// A request with the batch was sent.
    pub fn on_attempt(&mut self, batch: Batch) {
        let facts = self.facts.get_mut(&batch).expect("what is sent was sealed");
        if std::mem::replace(&mut facts.is_attempted, true) {
            let is_open = !facts.is_acknowledged;
            return self.check(is_open, || format!("batch {batch:?} went again after its end"));
        }
        if facts.whole != batch {
            return;
        }
        let (generation, start, end) = (facts.generation, facts.start, facts.end);
        let account = self.account(generation);
        let is_in_order = start >= account.attempted_to;
        account.attempted_to = end;
        self.check(is_in_order, || format!("batch {batch:?} overtook another of its file"));
    }

    /// The service has stored the batch.
    pub fn on_stored(&mut self, batch: Batch, disk: &Disk) {
        let facts = self.facts.get_mut(&batch).expect("what is stored was sealed");
        facts.stored += 1;
        let (generation, start, end) = (facts.generation, facts.start, facts.end);
        let is_again = facts.stored > 1;
        self.counts.stored += 1;
        if !is_again && !self.is_all_safe(batch) {
            return;
        }
        if is_again {
            // An earlier attempt was stored and its answer was lost.
            self.counts.stored_again += 1;
        } else if let Some((from, to)) = self.accounts[generation].first_overlap(start, end) {
            self.counts.repeated_bytes += to - from;
            let floor = |life: u32| {
                let floors = self.floors.get(life as usize);
                floors.map_or(u64::MAX, |floors| floors.get(generation).copied().unwrap_or(0))
            };
            let least = floor(batch.0).min(floor(batch.0 + 1));
            self.check(from >= least, || {
                format!(
                    "batch {batch:?} repeats byte {from} of generation {generation}, and \
                     everything below {least} was acknowledged and saved"
                )
            });
        }
        if !is_again {
            self.cover(generation, start, end, disk);
        }
    }

    /// The lines of a batch are safe. Whether all of the batch that it is a part of are now.
    fn is_all_safe(&mut self, batch: Batch) -> bool {
        let (whole, lines) = (self.facts[&batch].whole, self.facts[&batch].lines.clone());
        let whole = self.facts.get_mut(&whole).expect("what has parts was sealed");
        whole.safe_lines.extend(lines);
        whole.safe_lines.len() == whole.lines.len()
    }

    fn cover(&mut self, generation: usize, start: u64, end: u64, disk: &Disk) {
        self.account(generation).cover(start, end);
        self.prefix(generation, disk);
    }

    /// The agent's sender has the service's acknowledgement.
    pub fn on_acknowledged(&mut self, batch: Batch) {
        if let Some(facts) = self.facts.get_mut(&batch) {
            facts.is_acknowledged = true;
        }
    }

    /// The agent's collector has taken the end of a batch into account.
    pub fn on_done(&mut self, batch: Batch) {
        self.outstanding.remove(&batch.1);
        let Some(facts) = self.facts.get(&batch) else { return };
        let (generation, start) = (facts.generation, facts.start);
        let (whole, lines) = (facts.whole, facts.lines.len());
        let whole = self.facts.get_mut(&whole).expect("what has parts was sealed");
        whole.done_lines += lines;
        if whole.done_lines < whole.lines.len() {
            return;
        }
        let account = self.account(generation);
        if let Some(pending) = account.pending.iter_mut().find(|pending| pending.0 == start) {
            pending.2 = true;
        }
        while let Some((_, end, _)) = account.pending.pop_front_if(|(.., is_acked)| *is_acked) {
            account.floor = end;
        }
    }

    /// The collector has taken a refusal: the batch stays in memory until it is set aside.
    pub fn on_refused(&mut self, id: BatchId) {
        self.refused.extend(self.outstanding.remove_entry(&id));
        let held: usize = self.refused.values().sum();
        // Few parts of refused batches are under way, and they repeat the tags.
        let parts = PARTS_MAX * (BATCH_OVERHEAD_BYTES + TAGS_BYTES_MAX);
        let most = 2 * self.bounds.handoff_bytes_max + self.most_open() + parts;
        self.check(held <= most, || format!("{held} refused bytes are held, and {most} may be"));
    }

    /// A refused batch was set aside.
    pub fn on_parked(&mut self, batch: Batch, disk: &Disk) {
        self.counts.parked += 1;
        self.refused.remove(&batch.1);
        let Some(facts) = self.facts.get(&batch) else { return };
        let (generation, start, end) = (facts.generation, facts.start, facts.end);
        let lines = facts.lines.len();
        self.check(lines == 1, || format!("batch {batch:?} was set aside with {lines} lines"));
        if self.is_all_safe(batch) {
            self.cover(generation, start, end, disk);
        }
    }

    // === checkpoints

    /// The agent has saved these.
    pub fn on_saved(&mut self, checkpoints: &[Checkpoint], is_durable: bool, disk: &Disk) {
        self.counts.saves += 1;
        for saved in checkpoints {
            let tail = saved.tail;
            if saved.offset == 0 || !self.checked.insert((saved.inode, saved.offset, tail.crc32)) {
                continue;
            }
            let mut covered = None;
            for &generation in disk.generations_of(saved.inode) {
                let bytes = &disk.generations[generation].bytes;
                let start = saved.offset.saturating_sub(u64::from(tail.len)) as usize;
                let before = bytes.get(start..saved.offset as usize);
                if before.is_some_and(|before| tail.matches_start_of(before)) {
                    let prefix = self.prefix(generation, disk);
                    covered = Some(covered.map_or(prefix, |other: u64| other.max(prefix)));
                }
            }
            let is_covered = covered.is_some_and(|covered| saved.offset <= covered);
            self.check(is_covered, || {
                let Checkpoint { inode, offset, .. } = saved;
                format!("a checkpoint of inode {inode} says {offset}; delivered is {covered:?}")
            });
        }
        self.now.floors = self.floors_now();
        self.fast = self.now.clone();
        self.is_save_broken = false;
        if is_durable {
            self.durable = self.now.clone();
            self.not_durable_since = None;
        }
    }

    /// The state directory could not be written: what it holds stays as it was.
    pub fn on_save_failed(&mut self) {
        self.is_save_broken = true;
        self.not_durable_since = None;
    }

    /// The loop has come round. What it had acknowledged when it saved, or should have, will not be
    /// repeated after a kill; nor after a power cut, if that was some seconds ago.
    pub fn on_loop(&mut self, now: Instant) {
        if self.is_save_broken {
            return;
        }
        self.fast.floors = self.floors_now();
        let is_behind = self.accounts.iter().enumerate().any(|(generation, account)| {
            let durable = self.durable.floors.get(generation).copied().unwrap_or(0);
            account.owed == Owed::Whole && account.floor > durable
        });
        if is_behind {
            let since = *self.not_durable_since.get_or_insert(now);
            self.check(now <= since + DURABLE_WITHIN, || {
                format!("nothing was written through to the disk for {:?}", now - since)
            });
        }
    }

    fn floors_now(&self) -> Vec<u64> {
        self.accounts.iter().map(|account| account.floor).collect()
    }

    // === buffers and time

    pub fn on_turn(&mut self, open_bytes: usize) {
        let most = self.most_open();
        self.check(open_bytes <= most, || {
            format!("{open_bytes} bytes are in open groups, and {most} may be")
        });
    }

    /// Room is made before a file's turn, and in its turn its own group can grow to a full one.
    fn most_open(&self) -> usize {
        let line = LogGroup::appended_len(self.bounds.line_bytes_max);
        self.bounds.open_bytes_max + line.max(self.bounds.batch.batch_bytes)
    }

    pub fn on_drained(&mut self, promised: &[(usize, u64)], disk: &Disk) {
        for &(generation, end) in promised {
            let owed = match self.account(generation).owed {
                Owed::Whole => end,
                Owed::Below(below) => below.min(end),
                Owed::Nothing => 0,
            };
            let covered = self.prefix(generation, disk);
            self.check(covered >= owed, || {
                format!(
                    "a drain ended as if all were delivered, and generation {generation} stands at \
                     {covered} of {owed}"
                )
            });
        }
    }

    /// Complete lines that stand on the disk and are owed: generations, and where they end.
    pub fn promised(&self, disk: &Disk) -> Vec<(usize, u64)> {
        let line_end = |bytes: &[u8]| memchr::memrchr(b'\n', bytes).map_or(0, |at| at as u64 + 1);
        (0..disk.generations.len())
            .filter(|&generation| self.owed(generation, disk) > 0)
            .map(|generation| (generation, line_end(&disk.generations[generation].bytes)))
            .collect()
    }

    pub fn on_deadline_missed(&mut self, now: Instant, deadline: Instant) {
        self.fail(|| format!("a drain is not over {:?} after its deadline", now - deadline));
    }

    // === the end

    /// What is owed and not delivered: generation, delivered up to, owed up to.
    pub fn unsettled(&mut self, disk: &Disk) -> Option<(usize, u64, u64)> {
        (0..disk.generations.len()).find_map(|generation| {
            let is_settled = self.is_settled(generation, disk);
            let owed = self.owed(generation, disk);
            (!is_settled).then(|| (generation, self.prefix(generation, disk), owed))
        })
    }

    fn is_settled(&mut self, generation: usize, disk: &Disk) -> bool {
        self.prefix(generation, disk) >= self.owed(generation, disk)
    }

    fn owed(&self, generation: usize, disk: &Disk) -> u64 {
        let bytes = &disk.generations[generation].bytes;
        match self.accounts.get(generation).map_or(Owed::Whole, |account| account.owed) {
            // A lone carriage return at the end may be half of a line end: it is never sent.
            Owed::Whole => (bytes.len() - usize::from(bytes.ends_with(b"\r"))) as u64,
            Owed::Below(offset) => offset,
            Owed::Nothing => 0,
        }
    }

    fn prefix(&mut self, generation: usize, disk: &Disk) -> u64 {
        let bytes = &disk.generations[generation].bytes;
        self.account(generation).raise_prefix(bytes)
    }
}

impl Account {
    fn first_overlap(&self, start: u64, end: u64) -> Option<(u64, u64)> {
        let before = self.covered.range(..=start).next_back().filter(|(_, to)| **to > start);
        let found = before.or_else(|| self.covered.range(start..end).next());
        found.map(|(from, to)| (start.max(*from), end.min(*to)))
    }

    fn cover(&mut self, start: u64, end: u64) {
        let (mut from, mut to) = (start, end);
        while let Some((&other, &other_end)) =
            self.covered.range(..=to).next_back().filter(|(_, end)| **end >= from)
        {
            (from, to) = (from.min(other), to.max(other_end));
            self.covered.remove(&other);
        }
        self.covered.insert(from, to);
    }

    fn raise_prefix(&mut self, bytes: &[u8]) -> u64 {
        loop {
            let at = self.prefix as usize;
            if let Some((_, &to)) =
                self.covered.range(..=self.prefix).next_back().filter(|(_, to)| **to > self.prefix)
            {
                self.prefix = to;
                continue;
            }
            // The end of a line whose text was delivered before needs no record of its own.
            let is_mid_line = at > 0 && bytes[at - 1] != b'\n';
            let left = &bytes[at..];
            self.prefix += match left {
                [b'\n', ..] if is_mid_line => 1,
                [b'\r', b'\n', ..] if is_mid_line => 2,
                _ => return self.prefix,
            };
        }
    }
}

/// Whether the patterns match a name.
pub fn is_matched(name: &str) -> bool {
    name.ends_with(".log")
}

fn decode(batch: &SealedBatch) -> Option<sls_logs::LogGroup> {
    let raw_bytes = batch.raw_bytes as usize;
    let raw = match batch.compression {
        Compression::None => batch.payload.to_vec(),
        Compression::Lz4 => lz4_flex::block::decompress(&batch.payload, raw_bytes).ok()?,
        Compression::Zstd => zstd::bulk::decompress(&batch.payload, raw_bytes).ok()?,
    };
    (raw.len() == raw_bytes).then_some(())?;
    sls_logs::LogGroup::decode(&*raw).ok()
}

/// Whether the records of a group are the bytes `start..end`, in order, line ends aside.
fn carries(bytes: &[u8], start: u64, end: u64, group: &sls_logs::LogGroup) -> bool {
    let Some(mut left) = bytes.get(start as usize..end as usize) else { return false };
    for log in &group.logs {
        let [content] = &*log.contents else { return false };
        let Some(behind) = left.strip_prefix(&*content.value) else { return false };
        let is_line = !content.value.contains(&b'\n') && content.key == "content";
        let unended = behind.strip_prefix(b"\r\n").or_else(|| behind.strip_prefix(b"\n"));
        left = unended.unwrap_or(behind);
        if !is_line {
            return false;
        }
    }
    left.is_empty()
}
