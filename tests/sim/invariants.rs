//! What must be true, whatever happens: written once, and checked while the world runs.
//!
//! The [`Ledger`] knows what the apps wrote (from the disk), what the service stored and what the
//! agent did at the seam, and takes nothing from the agent's own accounts. The first broken invariant
//! stays in [`Ledger::violation`] and ends the run. What is owed is in [`crate::owed`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use std::time::{Duration, Instant};

use logferry::base::report::{CollectorReport, FileList};
use logferry::base::sealed::{Ack, BatchId, Outcome, SealedBatch};
use logferry::base::span::FileKey;
use logferry::batch;
use logferry::batch::log_group::LogGroup;
use logferry::checkpoint::format::Checkpoint;
use logferry::collector::Step;
use logferry::handoff::BATCH_OVERHEAD_BYTES;
use logferry_wire::{Compression, GROUP_LINES_MAX, sls_logs};
use prost::Message as _;

use crate::disk::{Disk, NodeId, Text, TextId};
use crate::ground::Ground;
use crate::owed::Known;

/// What was acknowledged is written through to the disk within this time.
const DURABLE_WITHIN: Duration = Duration::from_secs(6);
/// More than the tags of a group take.
const TAGS_BYTES_MAX: usize = 512;
/// Most parts of refused batches under way.
const PARTS_MAX: usize = 32;

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
    pub ground: Ground,
    bounds: Bounds,
    /// By text.
    pub accounts: Vec<Account>,
    facts: BTreeMap<Batch, Facts>,
    streams: BTreeMap<(u32, FileKey), Stream>,
    /// Bytes handed over, with what each batch takes beside its payload, whose end was not told.
    outstanding: BTreeMap<BatchId, usize>,
    /// Batches that were refused and are neither taken apart nor set aside: payload bytes, and the lines
    /// that are left of each.
    refused: BTreeMap<BatchId, (usize, u32)>,
    /// What the agent knows, what a kill would leave of that, and what a power cut.
    pub now: Known,
    fast: Known,
    durable: Known,
    /// Files that the agent holds open.
    pub held: BTreeSet<NodeId>,
    /// Files that could not be read when the agent tried, and that it has not had open since.
    pub faulty: BTreeSet<NodeId>,
    /// Files that were emptied, and how far the text before was read. The agent may not know yet.
    pub unnoticed: BTreeMap<NodeId, u64>,
    /// Directories that were listed in this step, and the time when it began.
    pub listed: BTreeSet<String>,
    pub step_began: i64,
    is_save_broken: bool,
    /// Since when a power cut would cost more than what is in flight.
    not_durable_since: Option<Instant>,
    /// Lowest byte of each text that a life may deliver again, by life.
    floors: Vec<Vec<u64>>,
    /// Saved entries that have been checked.
    checked: BTreeSet<(u64, u64, u32)>,
    files: Option<std::sync::Arc<FileList>>,
    /// Grows with whatever the agent gets done.
    pub progress: u64,
    /// All that stood on a disk was copied to another one.
    pub has_copied: bool,
    /// When that was last, as the files say: all were born then.
    pub copied_at: Option<i64>,
    /// Connections broke in this life: then small batches are tried before others.
    pub has_probes: bool,
    /// Files that the pattern finds, as of the last change.
    pub found: BTreeSet<NodeId>,
    /// Versions of the disk that were looked at.
    pub held_at: u64,
    pub changed_at: u64,
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
    pub missed_found: u64,
    pub copies_recognised: u64,
    pub copies_refused: u64,
    pub moved_resumed: u64,
}

impl Counts {
    pub fn add(&mut self, other: &Self) {
        self.batches += other.batches;
        self.stored += other.stored;
        self.stored_again += other.stored_again;
        self.repeated_bytes += other.repeated_bytes;
        self.parked += other.parked;
        self.split += other.split;
        self.saves += other.saves;
        self.closed += other.closed;
        self.restarts += other.restarts;
        self.missed_found += other.missed_found;
        self.copies_recognised += other.copies_recognised;
        self.copies_refused += other.copies_refused;
        self.moved_resumed += other.moved_resumed;
    }
}

/// One text.
#[derive(Default)]
pub struct Account {
    /// Stored by the service or set aside, as ranges that do not touch.
    covered: BTreeMap<u64, u64>,
    /// Below it all is covered, line ends aside. Raised when it is asked for.
    prefix: u64,
    /// Bytes at its beginning that need not come: another text has the same, and is gone.
    pub forgiven: u64,
    /// Offset from which on there is a reason to deliver again.
    pub excused_from: Option<u64>,
    /// In this life: just past the last byte that the agent took, saw, sealed, attempted.
    pub taken_to: u64,
    pub seen_to: u64,
    sealed_to: u64,
    attempted_to: u64,
    /// Its bytes went away while the agent had taken so many.
    pub owed_below: u64,
    /// Its file left the patterns before the agent had it open, and is searched for.
    pub is_missed: bool,
    pub is_moved: bool,
    is_repeated: bool,
    /// Sealed and not acknowledged, in order: start, end, and whether it is acknowledged.
    pending: VecDeque<(u64, u64, bool)>,
    floor: u64,
    /// Paths as configured under which it may arrive.
    pub paths: BTreeSet<String>,
    /// Paths of the text that it equals.
    pub others: BTreeSet<String>,
    /// Keys under which it came in this life.
    keys: BTreeSet<FileKey>,
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
    text: TextId,
    file: FileKey,
    start: u64,
    end: u64,
    stored: u32,
    is_acknowledged: bool,
    is_attempted: bool,
}

struct Stream {
    prefix: String,
    next: u64,
    text: TextId,
    sealed_to: u64,
}

impl Ledger {
    pub fn new(bounds: Bounds, ground: Ground) -> Self {
        Self {
            violation: None,
            counts: Counts::default(),
            ground,
            bounds,
            accounts: Vec::new(),
            facts: BTreeMap::new(),
            streams: BTreeMap::new(),
            outstanding: BTreeMap::new(),
            refused: BTreeMap::new(),
            now: Known::default(),
            fast: Known::default(),
            durable: Known::default(),
            held: BTreeSet::new(),
            faulty: BTreeSet::new(),
            unnoticed: BTreeMap::new(),
            listed: BTreeSet::new(),
            step_began: 0,
            is_save_broken: false,
            not_durable_since: None,
            floors: Vec::new(),
            checked: BTreeSet::new(),
            files: None,
            progress: 0,
            has_copied: false,
            copied_at: None,
            has_probes: false,
            found: BTreeSet::new(),
            held_at: 0,
            changed_at: u64::MAX,
        }
    }

    pub fn fail(&mut self, what: impl FnOnce() -> String) {
        self.violation.get_or_insert_with(what);
    }

    pub fn check(&mut self, is_true: bool, what: impl FnOnce() -> String) {
        if !is_true {
            self.fail(what);
        }
    }

    pub fn account(&mut self, text: TextId) -> &mut Account {
        if self.accounts.len() <= text {
            self.accounts.resize_with(text + 1, Account::default);
        }
        &mut self.accounts[text]
    }

    // === the agent's steps

    /// The agent has read bytes of a file up to there.
    pub fn on_bytes_seen(&mut self, text: TextId, end: u64) {
        let account = self.account(text);
        account.seen_to = account.seen_to.max(end);
    }

    pub fn on_step(
        &mut self,
        step: Step,
        report: &CollectorReport,
        files: &std::sync::Arc<FileList>,
        disk: &Disk,
        now: Instant,
    ) {
        let unbalanced = report.counters.generations_unbalanced;
        self.check(unbalanced == 0, || format!("the bytes of {unbalanced} files do not add up"));
        let (open, most) = (report.open_bytes as usize, self.most_open());
        self.check(open <= most, || format!("{open} bytes are in open groups, and {most} may be"));
        self.counts.restarts = self.counts.restarts.max(report.counters.files_truncated);
        if step == Step::Save
            && self.files.as_ref().is_none_or(|old| !std::sync::Arc::ptr_eq(old, files))
        {
            self.files = Some(std::sync::Arc::clone(files));
            self.on_files(files, disk);
        }
        self.on_held(disk);
        if step == Step::Save {
            self.on_loop(now);
        }
    }

    /// What the agent says how far it has taken each file into groups; never more than it has read.
    fn on_files(&mut self, files: &FileList, disk: &Disk) {
        for file in &files.files {
            let is_it = |node: &NodeId| disk.nodes[*node].number == file.inode;
            let Some(node) = self.held.iter().copied().find(is_it) else { continue };
            let Some((text, _)) = disk.carried(node) else { continue };
            // As long as the agent has not noticed that the file was emptied, it speaks of the text before.
            match self.unnoticed.get(&node) {
                Some(before) if file.read_offset >= *before => continue,
                _ => self.unnoticed.remove(&node),
            };
            let account = self.account(text);
            let taken = account.taken_to.max(file.read_offset.min(account.seen_to));
            let is_progress = std::mem::replace(&mut account.taken_to, taken) < taken;
            self.progress += u64::from(is_progress);
        }
    }

    // === batches

    /// A batch came out of the hand-off.
    pub fn on_sealed(&mut self, batch: &SealedBatch, life: u32, disk: &Disk) {
        self.progress += 1;
        if self.is_part(batch, life) {
            return;
        }
        self.counts.batches += 1;
        let (start, end) = (batch.span.start, batch.span.end);
        let name = format!("batch {} of life {life}, {start}..{end} of {}", batch.id.0, batch.path);
        let Some(group) = decode(batch) else {
            return self.fail(|| format!("{name} cannot be decoded"));
        };
        let Some(text) = self.source(batch, life, &group, disk) else {
            return self.fail(|| format!("{name} says what was never written"));
        };
        self.follow_twin(life, batch.span.stream.file, text, disk);
        self.unnoticed.remove(&disk.texts[text].node);
        let name = format!("{name}, text {text}");
        self.check_cuts(batch, &group, &disk.texts[text], &name);
        self.check_limits(batch, &group, &name);
        self.check_stream(batch, life, text, &group, &name);
        let account = self.account(text);
        let is_right_path =
            account.paths.contains(&*batch.path) || account.others.contains(&*batch.path);
        self.check(is_right_path, || format!("{name} has a path that never led to it"));
        let is_new = self.accounts[text].keys.insert(batch.span.stream.file);
        if is_new && start > 0 && std::mem::take(&mut self.accounts[text].is_moved) {
            self.counts.moved_resumed += 1;
        }
        if std::mem::take(&mut self.accounts[text].is_missed) {
            self.counts.missed_found += 1;
        }
        let excused = self.accounts[text].excused_from.unwrap_or(u64::MAX);
        let account = self.account(text);
        let is_in_order = start >= account.sealed_to || start >= excused;
        account.sealed_to = account.sealed_to.max(end);
        account.taken_to = account.taken_to.max(end);
        account.pending.push_back((start, end, false));
        let sealed_to = account.sealed_to;
        self.check(is_in_order, || {
            format!("{name} repeats what was sealed in this life, up to {sealed_to}")
        });
        let held: usize = self.outstanding.values().sum();
        let handoff_max = self.bounds.handoff_bytes_max;
        self.check(held < handoff_max, || format!("{name} went into a full hand-off: {held}"));
        self.outstanding.insert(batch.id, batch.payload.len() + BATCH_OVERHEAD_BYTES);
        let id = (life, batch.id);
        self.facts.insert(id, Facts::new(id, 0..batch.lines, text, batch));
    }

    /// The text that a batch was made from, for people.
    pub fn text_of(&self, batch: Batch) -> Option<TextId> {
        self.facts.get(&batch).map(|facts| facts.text)
    }

    /// The text that a batch is made from: its records stand there, and the agent has read them in this life.
    fn source(
        &self,
        batch: &SealedBatch,
        life: u32,
        group: &sls_logs::LogGroup,
        disk: &Disk,
    ) -> Option<TextId> {
        let (start, end) = (batch.span.start, batch.span.end);
        let known = self.streams.get(&(life, batch.span.stream.file)).map(|stream| stream.text);
        let holds = |text: &TextId| carries(&disk.texts[*text].bytes, start, end, group);
        if let Some(known) = known.filter(|known| holds(known) || !is_twin(disk, *known)) {
            return Some(known).filter(holds);
        }
        let is_seen = |text: &TextId| self.accounts.get(*text).is_some_and(|one| one.seen_to > 0);
        let mut found: Vec<TextId> = (0..disk.texts.len()).filter(is_seen).filter(holds).collect();
        found.sort_by_key(|text| {
            let account = &self.accounts[*text];
            let is_path =
                account.paths.contains(&*batch.path) || account.others.contains(&*batch.path);
            let is_back = start < account.sealed_to;
            (!is_path, is_back, !account.keys.is_empty(), account.prefix != start)
        });
        found.first().copied()
    }

    /// A stream was taken for that of a text that begins the same: what came of it counts for the right one.
    fn follow_twin(&mut self, life: u32, file: FileKey, text: TextId, disk: &Disk) {
        let Some(stream) = self.streams.get_mut(&(life, file)) else { return };
        let before = std::mem::replace(&mut stream.text, text);
        if before == text {
            return;
        }
        // What was taken for a stream of this text is one of the other, if that has its bytes too.
        let [one, other] = [before, text].map(|text| &disk.texts[text].bytes);
        let is_either = |facts: &Facts| {
            let range = facts.start as usize..facts.end as usize;
            other.get(range.clone()).is_some_and(|bytes| one.get(range) == Some(bytes))
        };
        let others = self.streams.iter().filter(|((of, one), stream)| {
            let mut facts = self.facts.iter().filter(|((of, _), _)| *of == life);
            let is_of = |facts: &Facts| facts.file == *one && !is_either(facts);
            *of == life
                && *one != file
                && stream.text == text
                && !facts.any(|(_, facts)| is_of(facts))
        });
        let others: Vec<FileKey> = others.map(|((_, one), _)| *one).collect();
        self.count_for(life, file, text, disk);
        others.into_iter().for_each(|one| self.count_for(life, one, before, disk));
        for text in [before, text] {
            let of_life =
                self.facts.iter().filter(|((of, _), one)| *of == life && one.text == text);
            let (mut sealed_to, mut attempted_to) = (0, 0);
            for (_, one) in of_life {
                sealed_to = one.end.max(sealed_to);
                attempted_to =
                    if one.is_attempted { one.end.max(attempted_to) } else { attempted_to };
            }
            let account = &mut self.accounts[text];
            (account.sealed_to, account.attempted_to) = (sealed_to, attempted_to);
        }
    }

    /// All that came of a stream counts for a text.
    fn count_for(&mut self, life: u32, file: FileKey, text: TextId, disk: &Disk) {
        if let Some(stream) = self.streams.get_mut(&(life, file)) {
            stream.text = text;
        }
        let mut came = Vec::new();
        for ((of_life, _), facts) in &mut self.facts {
            if *of_life == life && facts.file == file {
                facts.text = text;
                came.extend((facts.stored > 0).then_some((facts.start, facts.end)));
            }
        }
        came.into_iter().for_each(|(start, end)| self.cover(text, start, end, disk));
    }

    /// Takes a part of a batch that was refused, or that batch again as it was.
    fn is_part(&mut self, batch: &SealedBatch, life: u32) -> bool {
        let is_of = |id: &BatchId| {
            let facts = &self.facts[&(life, *id)];
            let lines = batch.first..batch.first + batch.lines;
            facts.file == batch.span.stream.file
                && facts.start == batch.span.start
                && facts.lines.start <= lines.start
                && lines.end <= facts.lines.end
        };
        let Some(id) = self.refused.keys().copied().find(is_of) else { return false };
        let whole = self.facts[&(life, id)].whole;
        let text = self.facts[&(life, id)].text;
        let (_, left) = self.refused.get_mut(&id).expect("it was just found");
        *left = left.saturating_sub(batch.lines);
        if *left == 0 {
            self.refused.remove(&id);
        }
        self.outstanding.insert(batch.id, batch.payload.len() + BATCH_OVERHEAD_BYTES);
        if batch.id != id {
            self.counts.split += 1;
            let lines = batch.first..batch.first + batch.lines;
            self.facts.insert((life, batch.id), Facts::new(whole, lines, text, batch));
        }
        true
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
        let is_named = group
            .log_tags
            .iter()
            .any(|tag| tag.key == "__path__" && tag.value == batch.path.as_bytes());
        self.check(is_named, || format!("{name} does not say its path"));
    }

    /// A record ends with its line, or where it is as long as may be, or where the file ended when it was read.
    fn check_cuts(
        &mut self,
        batch: &SealedBatch,
        group: &sls_logs::LogGroup,
        text: &Text,
        name: &str,
    ) {
        let mut at = batch.span.start as usize;
        for log in &group.logs {
            let len = log.contents[0].value.len();
            at += len;
            let behind = &text.bytes[at..batch.span.end as usize];
            let end = [&b"\r\n"[..], b"\n"].into_iter().find(|end| behind.starts_with(end));
            let is_long = len + 4 > self.bounds.line_bytes_max;
            let is_at_end = text.is_cut_off
                || text.ends.contains(&at)
                || (text.ends.contains(&(at + 1)) && text.bytes.get(at) == Some(&b'\r'));
            self.check(end.is_some() || is_long || is_at_end, || {
                let behind = text.bytes[at..].iter().take(9).copied().collect::<Vec<u8>>();
                format!(
                    "{name} cuts a line at {at}, with {:?} behind it",
                    behind.escape_ascii().to_string()
                )
            });
            at += end.map_or(0, <[u8]>::len);
        }
    }

    /// The order of a file is that of its numbered groups: one more each, spans going forward.
    fn check_stream(
        &mut self,
        batch: &SealedBatch,
        life: u32,
        text: TextId,
        group: &sls_logs::LogGroup,
        name: &str,
    ) {
        let tag = group.log_tags.iter().find(|tag| tag.key == "__pack_id__");
        let id =
            tag.map(|tag| String::from_utf8_lossy(&tag.value).into_owned()).unwrap_or_default();
        let Some((prefix, number)) = id.split_once('-') else {
            return self.fail(|| format!("{name} has the pack id {id:?}"));
        };
        let stream = self.streams.entry((life, batch.span.stream.file)).or_insert_with(|| Stream {
            prefix: prefix.to_owned(),
            next: 0,
            text,
            sealed_to: 0,
        });
        let is_next = stream.prefix == prefix && u64::from_str_radix(number, 16) == Ok(stream.next);
        let is_forward = batch.span.start >= stream.sealed_to;
        stream.next += 1;
        stream.sealed_to = batch.span.end;
        self.check(is_next, || format!("{name} has the pack id {id} out of order"));
        self.check(is_forward, || format!("{name} goes back in its stream"));
    }

    /// A request with the batch was sent.
    pub fn on_attempt(&mut self, batch: Batch) {
        let Some(facts) = self.facts.get_mut(&batch) else { return };
        if std::mem::replace(&mut facts.is_attempted, true) {
            let is_open = !facts.is_acknowledged;
            return self.check(is_open, || format!("batch {batch:?} went again after its end"));
        }
        if facts.whole != batch {
            return;
        }
        let (text, start, end) = (facts.text, facts.start, facts.end);
        let has_probes = self.has_probes;
        let account = self.account(text);
        let is_excused = account.excused_from.is_some_and(|from| start >= from);
        let is_in_order = start >= account.attempted_to || is_excused || has_probes;
        account.attempted_to = end;
        self.check(is_in_order, || format!("batch {batch:?} overtook another of its file"));
    }

    /// The service has stored the batch.
    pub fn on_stored(&mut self, batch: Batch, disk: &Disk) {
        let Some(facts) = self.facts.get_mut(&batch) else { return };
        facts.stored += 1;
        let (whole, text, start, end) = (facts.whole, facts.text, facts.start, facts.end);
        let is_again = facts.stored > 1;
        self.counts.stored += 1;
        // An earlier attempt was stored and its answer was lost.
        let is_of_stored = whole != batch && self.facts[&whole].stored > 0;
        if is_again || is_of_stored {
            self.counts.stored_again += 1;
        }
        if !self.is_all_safe(batch) || is_again || is_of_stored {
            return;
        }
        if let Some((from, to)) = self.accounts[text].first_overlap(start, end) {
            self.counts.repeated_bytes += to - from;
            self.accounts[text].is_repeated = true;
            let floor = |life: u32| {
                let floors = self.floors.get(life as usize);
                floors.map_or(u64::MAX, |floors| floors.get(text).copied().unwrap_or(0))
            };
            let least = floor(batch.0).min(floor(batch.0 + 1));
            let least = least.min(self.accounts[text].excused_from.unwrap_or(u64::MAX));
            self.check(from >= least, || {
                format!(
                    "batch {batch:?} repeats byte {from} of text {text}, and everything below \
                     {least} was acknowledged and saved"
                )
            });
        }
        self.cover(text, start, end, disk);
    }

    /// The lines of a batch are safe. Whether all of the batch that it is a part of are now.
    fn is_all_safe(&mut self, batch: Batch) -> bool {
        let (whole, lines) = (self.facts[&batch].whole, self.facts[&batch].lines.clone());
        let whole = self.facts.get_mut(&whole).expect("what has parts was sealed");
        let was_safe = whole.safe_lines.len() == whole.lines.len();
        whole.safe_lines.extend(lines);
        !was_safe && whole.safe_lines.len() == whole.lines.len()
    }

    fn cover(&mut self, text: TextId, start: u64, end: u64, disk: &Disk) {
        self.account(text).cover(start, end);
        self.prefix(text, disk);
    }

    /// The agent's sender has the service's acknowledgement.
    pub fn on_acknowledged(&mut self, batch: Batch) {
        if let Some(facts) = self.facts.get_mut(&batch) {
            facts.is_acknowledged = true;
        }
    }

    /// The sender gives a batch back that has ended.
    pub fn on_ended(&mut self, life: u32, ack: &Ack) {
        self.progress += 1;
        let held = self.outstanding.remove(&ack.id).unwrap_or_default();
        match &ack.outcome {
            Outcome::Delivered => self.on_done((life, ack.id)),
            Outcome::Refused { .. } => self.on_refused(ack.id, held, ack.lines),
        }
    }

    /// The end of a batch counts.
    fn on_done(&mut self, batch: Batch) {
        let Some(facts) = self.facts.get(&batch) else { return };
        let (text, start) = (facts.text, facts.start);
        let (whole, lines) = (facts.whole, facts.lines.len());
        let whole = self.facts.get_mut(&whole).expect("what has parts was sealed");
        whole.done_lines += lines;
        if whole.done_lines < whole.lines.len() {
            return;
        }
        let account = self.account(text);
        if let Some(pending) = account.pending.iter_mut().find(|one| one.0 == start && !one.2) {
            pending.2 = true;
        }
        while let Some((_, end, _)) = account.pending.pop_front_if(|(.., is_acked)| *is_acked) {
            account.floor = account.floor.max(end);
        }
    }

    /// The collector takes a refusal: the batch stays in memory until it is set aside.
    fn on_refused(&mut self, id: BatchId, bytes: usize, lines: u32) {
        self.refused.insert(id, (bytes, lines));
        let held: usize = self.refused.values().map(|(bytes, _)| bytes).sum();
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
        let (text, start, end) = (facts.text, facts.start, facts.end);
        if self.is_all_safe(batch) {
            self.cover(text, start, end, disk);
        }
        self.on_done(batch);
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
            for text in 0..disk.texts.len() {
                let bytes = &disk.texts[text].bytes;
                let start = saved.offset.saturating_sub(u64::from(tail.len)) as usize;
                let before = bytes.get(start..saved.offset as usize);
                if before.is_some_and(|before| tail.matches_start_of(before)) {
                    let prefix = self.prefix(text, disk).max(self.prefix_with_twins(text, disk));
                    covered = Some(covered.map_or(prefix, |other: u64| other.max(prefix)));
                }
            }
            let is_covered = covered.is_some_and(|covered| saved.offset <= covered);
            // What the copy of an untouched file holds is delivered from that.
            self.check(is_covered || saved.is_copy, || {
                let Checkpoint { path, inode, offset, .. } = saved;
                let path = path.display();
                format!(
                    "a checkpoint of {path}, inode {inode}, says {offset}; delivered is {covered:?}"
                )
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
    fn on_loop(&mut self, now: Instant) {
        if self.is_save_broken {
            return;
        }
        self.fast.floors = self.floors_now();
        let is_behind = self.accounts.iter().enumerate().any(|(text, account)| {
            let durable = self.durable.floors.get(text).copied().unwrap_or(0);
            account.owed_below == 0 && account.floor > durable
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

    // === lives

    /// The agent is gone and all that it held with it. `is_fast_lost`: and what it had not written
    /// through to the disk.
    pub fn on_death(&mut self, is_fast_lost: bool, disk: &Disk) {
        for account in &mut self.accounts {
            account.owed_below = 0;
            (account.taken_to, account.seen_to) = (0, 0);
            (account.sealed_to, account.attempted_to) = (0, 0);
            account.pending.clear();
            account.keys.clear();
        }
        self.has_probes = false;
        self.outstanding.clear();
        self.refused.clear();
        self.held.clear();
        self.unnoticed.clear();
        self.listed.clear();
        self.files = None;
        (self.is_save_broken, self.not_durable_since) = (false, None);
        if is_fast_lost {
            self.fast = self.durable.clone();
        }
        self.now = self.fast.clone();
        self.forget_missed(disk);
    }

    /// The next life begins: files that it cannot know of are not owed.
    pub fn on_start(&mut self) {
        for (text, account) in self.accounts.iter_mut().enumerate() {
            account.floor = self.now.floors.get(text).copied().unwrap_or(0);
        }
        self.durable = self.now.clone();
        self.fast = self.now.clone();
        self.floors.push(self.now.floors.clone());
    }

    /// All that is known stands elsewhere now. Fewer bytes than a whole head and tail prove nothing there.
    pub fn on_moved(&mut self, keeps_inodes: bool, least: u64, disk: &Disk) {
        // Of two that are equal, the one that is opened first may be taken for the known one.
        (0..disk.texts.len()).for_each(|text| self.on_bytes_gone(text, disk));
        if !keeps_inodes {
            (self.has_copied, self.copied_at) = (true, Some(disk.stamp()));
            // What has another name than before cannot be known again.
            self.each_known(|known| {
                known.files.clear();
                known.texts.clear();
            });
            self.accounts.iter_mut().for_each(|account| account.is_missed = false);
            // Copies are younger now than what they were made from. What was renamed has no path in common with
            // what is known.
            for (node, text, _) in disk.files().collect::<Vec<_>>() {
                let is_at_home = disk.names_of(node).any(|name| name == disk.texts[text].home);
                if !disk.is_log(node) || !is_at_home {
                    self.account(text).excused_from = Some(0);
                }
            }
        }
        for (text, account) in self.accounts.iter_mut().enumerate() {
            account.is_moved = true;
            // What was acknowledged and not saved is not known.
            let saved = self.now.floors.get(text).copied().unwrap_or(0);
            if account.floor.min(saved) < least {
                account.excused_from = Some(0);
            }
        }
    }

    pub fn each_known(&mut self, change: impl Fn(&mut Known)) {
        [&mut self.now, &mut self.fast, &mut self.durable].into_iter().for_each(change);
    }

    // === the end

    /// Room is made before a file's turn, and in its turn its own group can grow to a full one.
    fn most_open(&self) -> usize {
        let line = LogGroup::appended_len(self.bounds.line_bytes_max);
        self.bounds.open_bytes_max + line.max(self.bounds.batch.batch_bytes)
    }

    pub fn prefix(&mut self, text: TextId, disk: &Disk) -> u64 {
        self.account(text).raise_prefix(&disk.texts[text].bytes)
    }

    /// As [`Self::prefix`], where what came of equal texts counts as well.
    fn prefix_with_twins(&self, text: TextId, disk: &Disk) -> u64 {
        let mut all = Account::default();
        for (other, one) in disk.texts.iter().enumerate() {
            let common = match (one.like, disk.texts[text].like) {
                (Some((of, common)), _) if of == text => common,
                (_, Some((of, common))) if of == other => common,
                _ if other == text => usize::MAX,
                _ => continue,
            };
            let Some(account) = self.accounts.get(other) else { continue };
            for (&start, &end) in &account.covered {
                let end = end.min(common as u64);
                if start < end {
                    all.cover(start, end);
                }
            }
        }
        all.raise_prefix(&disk.texts[text].bytes)
    }

    /// Counts copies that were met and not delivered again.
    pub fn count_copies(&mut self, disk: &Disk) {
        use crate::disk::Body;
        for (node, text, len) in disk.files().collect::<Vec<_>>() {
            let is_copy = matches!(disk.nodes[node].body, Body::Copy(..) | Body::Packed(..));
            let is_met = self.now.met_copies.contains(&node);
            let is_whole = len > 0 && self.prefix(text, disk) >= len as u64;
            if is_copy && is_met && is_whole && !self.accounts[text].is_repeated {
                self.counts.copies_recognised += 1;
            }
            let like = disk.texts[text].like;
            if like.is_some_and(|(_, common)| {
                self.accounts[text].first_overlap(0, common as u64).is_some()
            }) {
                self.counts.copies_refused += 1;
            }
        }
    }
}

impl Facts {
    /// Of what was just sealed, or taken out of it.
    fn new(whole: Batch, lines: Range<u32>, text: TextId, batch: &SealedBatch) -> Self {
        Self {
            whole,
            lines,
            safe_lines: BTreeSet::new(),
            done_lines: 0,
            text,
            file: batch.span.stream.file,
            start: batch.span.start,
            end: batch.span.end,
            stored: 0,
            is_acknowledged: false,
            is_attempted: false,
        }
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
        self.prefix = self.prefix.max(self.forgiven);
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

/// Whether a text begins as another one does.
fn is_twin(disk: &Disk, text: TextId) -> bool {
    let is_of = |one: &Text| one.like.is_some_and(|(of, _)| of == text);
    disk.texts[text].like.is_some() || disk.texts.iter().any(is_of)
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
