//! Exactly once: which ids batches are sent under, and what of that is on disk.
//!
//! The service stores a request with a hash key and a sequence id only if the id is greater than the
//! last one of that key, and says `InvalidSequenceId` otherwise (facts of the service, 4.7).
//!
//! # The protocol
//! ```text
//! sealed ─▶ waits for a slot ─▶ assigned (key, sequence) ─▶ saved, synced ─▶ sent ─▶ acknowledged
//!                ▲                                                                      │
//!                └── the slot is free, and that is in the same save as its next id ◀────┘
//! ```
//! A run draws a random base key and has a *slot* for each request that may be under way, with a key
//! of its own; a slot has one batch at a time. A checkpoint holds, above its watermark, a [`Range`]
//! for each batch that has an id or is done. After a restart ([`super::rereading`]) what is done is
//! passed over, and what is assigned is read again exactly and goes under its old id; all else is
//! new and goes under keys of the new run.
//!
//! # Why nothing is lost
//! The watermark passes a byte as it does everywhere: when its records are acknowledged or set
//! aside. `InvalidSequenceId` is taken for an acknowledgement, so it must not be said of a batch that
//! is not stored. It is said of (k, n) only after some (k, m ≥ n) was stored. Of one key, m is sent
//! only after a save that holds n as done or below the watermark (or not at all: then it was refused
//! and split), so an n that is still looked at is the greatest that was ever sent: it is n itself
//! that is stored. Keys are random, so no other run, file or agent has the same.
//!
//! # Why nothing comes twice
//! Bytes are sent again only under the id that the disk holds for them, and that is the id under
//! which they were sent first, because nothing is sent before its id is saved and synced.
//!
//! # Where a kill may strike
//! - Before the save: nothing was sent; the next run reads these bytes as new ones.
//! - Saved, and not sent, or sent and not stored: the next run sends the range, and it is stored.
//! - Stored, and the answer lost, or not saved: the next run sends the range, and it is refused as
//!   old. A request of the dead agent that arrives later still is refused as old, too.
//! - Again and again: ranges are saved again with every save until they are done, also while their
//!   file has not been met, and with the file's checkpoint they go to a copy of it. So at most one
//!   range per key is ever open on disk.
//! - In a save: the older state is used; what the newer one held was not sent.
//! - While a batch is split: the ids of all its parts replace its own in one save, before one of
//!   them is sent. The batch itself was refused, so it is not stored.
//! - In a drain: as always; the hand-off is closed when nothing waits any more.
//!
//! # What a range is
//! Bytes that are read again must make the same records where only some of them are wanted: so a
//! range remembers the limit of its lines, and groups end with an unfinished line. Other limits of
//! batches do not matter: nothing is sealed within a range. A range of which all is wanted covers
//! the same bytes, whatever the records. One without records is passed over. The bytes before its
//! end have a fingerprint: if other ones stand there now, the file was truncated or rewritten, and
//! what is there is new. Holes and ends of lines between ranges are read again as what they are.
//!
//! # What it cannot do
//! Know what became of a range after its checkpoint was reset or lost, or its logstore replaced.
//! Nor does it help where the service changes its mind: if it stores a batch, the answer is lost, and
//! then it refuses the same bytes as malformed, the parts of that batch are sent anew. The service
//! remembers some ten thousand ids of a shard: what waits for an answer while so many others go may be
//! stored twice. A batch whose connections break for its size is not taken apart (`send::passage`): a
//! part under the same id that is said to be repeated may be so because of the whole or of itself. A
//! kill between the setting aside of a piece and the next save sets it aside twice, which
//! `logferry parked list` shows: before and behind a replay there is no id.

use std::collections::{BTreeMap, HashMap, VecDeque};

use crate::base::fingerprint::Fingerprint;
use crate::base::sealed::{Route, SealedBatch};
use crate::base::span::{Span, StreamKey};
use crate::checkpoint::format::{Range, RangeState};
use crate::tail::os::Os;

/// Least number of leading bits that say in which part of the space of hash keys a key is. The
/// service may cut the space finer, by a power of two.
const BUCKET_BITS_LEAST: u32 = 9;
/// Longest line that any setting allows, in bytes, whatever a range says.
const LINE_BYTES_MOST: u32 = 2 << 20;

/// The ids of a run, and all that is known above the watermarks. Does no I/O but for randomness.
pub(super) struct Once {
    /// The slots; empty if lines need not arrive exactly once. Ranges of an earlier run are
    /// honoured even so.
    slots: Vec<Slot>,
    /// Indexes of slots without a batch, the slot that has been so for longest first.
    free: VecDeque<usize>,
    /// Batches without an id, in the order in which they were handed over.
    waiting: VecDeque<SealedBatch>,
    /// Batches with an id that no save holds yet.
    unsaved: Vec<SealedBatch>,
    streams: HashMap<StreamKey, Known>,
    /// Whether the save of these ids has failed. The agent tries it again with the next durable
    /// save.
    pub(super) has_failed: bool,
}

struct Slot {
    key: u128,
    /// The last id that was assigned; 0 before the first.
    sequence: u64,
}

/// What is known of a stream above its watermark.
#[derive(Default)]
struct Known {
    /// Ranges from the checkpoint that were not read again yet, in order.
    saved: VecDeque<Range>,
    /// Ranges that were sealed, by their first offset.
    sealed: BTreeMap<u64, SealedRange>,
}

/// The bytes of a batch.
struct SealedRange {
    end: u64,
    tail: Fingerprint,
    line_bytes_max: u32,
    /// All records of the batch, in order: in more than one part if the batch was refused and sent
    /// in parts.
    parts: Vec<Part>,
}

struct Part {
    first: u32,
    records: u32,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// The part waits for an id.
    Waiting,
    /// The part has an id, and is not handed over: another part of the same refused batch was.
    Reserved(Id),
    Assigned(Id),
    Done,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Id {
    key: u128,
    sequence: u64,
}

impl Id {
    const fn route(self) -> Route {
        Route::Once { key: self.key, sequence: self.sequence }
    }

    const fn range_state(self) -> RangeState {
        RangeState::Assigned { key: self.key, sequence: self.sequence }
    }

    /// An id that is used once.
    fn fresh(os: &impl Os) -> Self {
        Self { key: random_key(os), sequence: 1 }
    }
}

impl Once {
    /// Makes the ids of a run. `slots` is how many requests may be under way; `None` if lines need
    /// not arrive exactly once.
    pub(super) fn new(os: &impl Os, slots: Option<usize>) -> Self {
        let count = slots.unwrap_or(0);
        let base = if count > 0 { random_key(os) } else { 0 };
        let slot = |index| Slot { key: slot_key(base, index, count), sequence: 0 };
        Self {
            slots: (0..count).map(slot).collect(),
            free: (0..count).collect(),
            waiting: VecDeque::new(),
            unsaved: Vec::new(),
            streams: HashMap::new(),
            has_failed: false,
        }
    }

    /// Whether lines are to arrive exactly once.
    pub(super) fn is_on(&self) -> bool {
        !self.slots.is_empty()
    }

    // === batches

    /// Notes that a batch was sealed.
    pub(super) fn on_sealed(
        &mut self,
        batch: &SealedBatch,
        tail: Fingerprint,
        line_bytes_max: usize,
    ) {
        if !self.is_on() {
            return;
        }
        let part = Part { first: 0, records: batch.lines, state: State::Waiting };
        self.insert(batch.span, tail, line_bytes_max, vec![part]);
    }

    fn insert(&mut self, span: Span, tail: Fingerprint, line_bytes_max: usize, parts: Vec<Part>) {
        let line_bytes_max = u32::try_from(line_bytes_max).unwrap_or(LINE_BYTES_MOST);
        let range = SealedRange { end: span.end, tail, line_bytes_max, parts };
        self.streams.entry(span.stream).or_default().sealed.insert(span.start, range);
    }

    /// Takes a batch that is to be handed over, and returns it if it may go at once. Otherwise the
    /// batch waits here, for an id or until a save holds its id.
    pub(super) fn on_batch(&mut self, os: &impl Os, mut batch: SealedBatch) -> Option<SealedBatch> {
        let known = self.streams.get_mut(&batch.span.stream);
        let Some(range) = known.and_then(|known| known.sealed.get_mut(&batch.span.start)) else {
            return Some(batch);
        };
        let is_it = |part: &Part| (part.first, part.records) == (batch.first, batch.lines);
        let part = match range.parts.iter().position(is_it) {
            Some(index) => &mut range.parts[index],
            None => {
                let (freed, index) = range.split(os, batch.first, batch.lines);
                self.set_free(freed);
                let range =
                    self.streams.get_mut(&batch.span.stream)?.sealed.get_mut(&batch.span.start)?;
                &mut range.parts[index]
            }
        };
        match part.state {
            State::Waiting => {
                self.waiting.push_back(batch);
                None
            }
            State::Reserved(id) => {
                part.state = State::Assigned(id);
                batch.route = id.route();
                self.unsaved.push(batch);
                None
            }
            // It was refused, changed, and is the same lines still; or it was read again.
            State::Assigned(id) => {
                batch.route = id.route();
                Some(batch)
            }
            State::Done => Some(batch),
        }
    }

    /// Gives ids to as many batches as there are free slots. Returns whether there is something to
    /// save.
    pub(super) fn assign(&mut self) -> bool {
        while !self.waiting.is_empty()
            && let Some(index) = self.free.pop_front()
            && let Some(mut batch) = self.waiting.pop_front()
        {
            let slot = &mut self.slots[index];
            slot.sequence += 1;
            let id = Id { key: slot.key, sequence: slot.sequence };
            batch.route = id.route();
            if let Some(part) = self.part_mut(batch.span, |part| part.first == batch.first) {
                part.state = State::Assigned(id);
            }
            self.unsaved.push(batch);
        }
        !self.unsaved.is_empty() && !self.has_failed
    }

    /// Notes that all ids are on the disk. Returns the batches that may go now.
    pub(super) fn on_saved(&mut self) -> Vec<SealedBatch> {
        self.has_failed = false;
        std::mem::take(&mut self.unsaved)
    }

    /// Notes that a batch with this route is done with. Returns whether a checkpoint says so.
    pub(super) fn on_done(&mut self, span: Span, route: Route) -> bool {
        let Route::Once { key, sequence } = route else { return false };
        let id = Id { key, sequence };
        let part = self.part_mut(span, |part| part.state == State::Assigned(id));
        let Some(part) = part else { return false };
        part.state = State::Done;
        self.set_free(Some(id));
        if let Some(known) = self.streams.get_mut(&span.stream) {
            known.join_done(span.start);
        }
        true
    }

    fn part_mut(&mut self, span: Span, is_it: impl Fn(&Part) -> bool) -> Option<&mut Part> {
        let range = self.streams.get_mut(&span.stream)?.sealed.get_mut(&span.start)?;
        range.parts.iter_mut().find(|part| is_it(part))
    }

    /// Frees the slot of an id, if the slot is one of this run's.
    fn set_free(&mut self, id: Option<Id>) {
        let Some(id) = id else { return };
        self.free.extend(self.slots.iter().position(|slot| slot.key == id.key));
    }

    // === what is on disk

    /// The ranges of a stream that a checkpoint holds above `offset`.
    pub(super) fn ranges(&self, stream: StreamKey, offset: u64) -> Vec<Range> {
        let Some(known) = self.streams.get(&stream) else { return Vec::new() };
        let sealed = known.sealed.iter().filter(|(_, range)| range.end > offset);
        let sealed = sealed.flat_map(|(start, range)| range.saved(*start));
        sealed.chain(known.saved.iter().copied()).collect()
    }

    /// Forgets the ranges of a stream below `offset`: all of them are done with.
    pub(super) fn on_watermark(&mut self, stream: StreamKey, offset: u64) {
        if let Some(known) = self.streams.get_mut(&stream) {
            known.sealed.retain(|_, range| range.end > offset);
        }
    }

    /// Forgets a stream of which nothing is open any more.
    pub(super) fn forget(&mut self, stream: StreamKey) {
        self.streams.remove(&stream);
    }

    // === what an earlier run has left

    /// Takes over what the checkpoint of a stream held above `offset`. What makes no sense is left out:
    /// those bytes are read as new ones.
    pub(super) fn adopt(&mut self, stream: StreamKey, offset: u64, ranges: Vec<Range>) {
        let mut saved = VecDeque::<Range>::new();
        for mut range in ranges {
            let is_sound = match saved.back() {
                Some(last) if (last.start, last.end) == (range.start, range.end) => {
                    last.first.checked_add(last.records) == Some(range.first)
                }
                last => {
                    range.first == 0
                        && (last.map_or(offset, |last| last.end)..range.end).contains(&range.start)
                }
            };
            if is_sound && range.records > 0 {
                range.line_bytes_max = range.line_bytes_max.clamp(1, LINE_BYTES_MOST);
                saved.push_back(range);
            }
        }
        if !saved.is_empty() {
            self.streams.entry(stream).or_default().saved = saved;
        }
    }

    /// Most bytes of a line in the range of a stream that is to be read again next.
    pub(super) fn longest_line(&self, stream: StreamKey) -> usize {
        let saved = self.streams.get(&stream).map(|known| known.saved.iter());
        saved.into_iter().flatten().map(|range| range.line_bytes_max as usize).max().unwrap_or(0)
    }

    /// The first range of a stream that was not read again yet.
    pub(super) fn saved(&self, stream: StreamKey) -> Option<&Range> {
        self.streams.get(&stream)?.saved.front()
    }

    /// Whether the first range of a stream is done, all its parts.
    pub(super) fn is_saved_done(&self, stream: StreamKey) -> bool {
        let Some(known) = self.streams.get(&stream) else { return false };
        let start = known.saved.front().map(|range| range.start);
        let mut parts = known.saved.iter().take_while(|range| Some(range.start) == start);
        parts.all(|range| range.state == RangeState::Done)
    }

    /// Takes the first range of a stream, all its parts, if it begins at `start`.
    pub(super) fn take_saved(&mut self, stream: StreamKey, start: u64) -> Vec<Range> {
        let Some(known) = self.streams.get_mut(&stream) else { return Vec::new() };
        let count = known.saved.iter().take_while(|range| range.start == start).count();
        known.saved.drain(..count).collect()
    }

    /// Notes that a range was read again, or passed over: these are its parts, with their records
    /// as they are now.
    pub(super) fn on_read_again(&mut self, span: Span, parts: &[Range]) {
        let Some(one) = parts.first() else { return };
        let part = |range: &Range| {
            let state = match range.state {
                RangeState::Done => State::Done,
                RangeState::Assigned { key, sequence } => State::Assigned(Id { key, sequence }),
            };
            Part { first: range.first, records: range.records, state }
        };
        let all = parts.iter().map(part).collect();
        self.insert(span, one.tail, one.line_bytes_max as usize, all);
        if let Some(known) = self.streams.get_mut(&span.stream) {
            known.join_done(span.start);
        }
    }
}

impl Known {
    /// Joins the range that begins at `start` with those beside it, as far as they are done. While
    /// one batch does not arrive, there may be thousands behind it, and each save holds them all.
    fn join_done(&mut self, start: u64) {
        let Some(end) = self.done_at(start).map(|range| range.end) else { return };
        if self.done_at(end).is_some() {
            self.join(start, end);
        }
        let before =
            self.sealed.range(..start).next_back().map(|(before, range)| (*before, range.end));
        if let Some((before, _)) = before.filter(|(_, end)| *end == start)
            && self.done_at(before).is_some()
        {
            self.join(before, start);
        }
    }

    fn done_at(&self, start: u64) -> Option<&SealedRange> {
        let is_done = |range: &&SealedRange| range.parts.iter().all(|one| one.state == State::Done);
        self.sealed.get(&start).filter(is_done)
    }

    fn join(&mut self, first: u64, second: u64) {
        let Some(joined) = self.sealed.remove(&second) else { return };
        let Some(range) = self.sealed.get_mut(&first) else { return };
        let all = range.parts.iter().chain(&joined.parts);
        let records = all.fold(0_u32, |sum, part| sum.saturating_add(part.records));
        let parts = vec![Part { first: 0, records, state: State::Done }];
        *range = SealedRange { parts, ..joined };
    }
}

impl SealedRange {
    /// Makes a part of its own of these records, because what they were part of was refused. The
    /// id of that, and the place of the part.
    fn split(&mut self, os: &impl Os, first: u32, records: u32) -> (Option<Id>, usize) {
        let end = first.saturating_add(records);
        let holds = |part: &Part| part.first <= first && end <= part.first + part.records;
        let whole = self.parts.iter().position(holds).expect("a part is of what was sealed");
        let Part { first: before, records: count, state } = self.parts.remove(whole);
        let pieces = [(before, first), (first, end), (end, before + count)];
        let pieces = pieces.into_iter().filter(|(start, end)| start < end);
        let piece = |(start, end)| Part {
            first: start,
            records: end - start,
            state: State::Reserved(Id::fresh(os)),
        };
        self.parts.splice(whole..whole, pieces.map(piece));
        let freed = match state {
            State::Assigned(id) => Some(id),
            State::Waiting | State::Reserved(_) | State::Done => None,
        };
        (freed, whole + usize::from(before < first))
    }

    /// The ranges as a checkpoint has them; none of a part that waits for an id.
    fn saved(&self, start: u64) -> impl Iterator<Item = Range> {
        let Self { end, tail, line_bytes_max, .. } = *self;
        self.parts.iter().filter_map(move |part| {
            let state = match part.state {
                State::Waiting => return None,
                State::Reserved(id) | State::Assigned(id) => id.range_state(),
                State::Done => RangeState::Done,
            };
            let Part { first, records, .. } = *part;
            Some(Range { start, end, first, records, line_bytes_max, tail, state })
        })
    }
}

/// The base key with its leading bits replaced by one of `count` even parts of the space of keys.
fn slot_key(base: u128, index: usize, count: usize) -> u128 {
    let count_bits = usize::BITS - count.saturating_sub(1).leading_zeros();
    let bits = count_bits.max(BUCKET_BITS_LEAST);
    let bucket = (index as u128) * (1 << bits) / (count as u128);
    (bucket << (u128::BITS - bits)) | (base & (u128::MAX >> bits))
}

/// A random key that nobody else has. If two agents had one key, each would take the other's lines
/// for its own.
fn random_key(os: &impl Os) -> u128 {
    let mut bytes = [0; 16];
    os.random(&mut bytes).map_or_else(|_| fastrand::u128(..), |()| u128::from_le_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::sealed::{BatchId, DestinationId};
    use crate::base::span::{CollectionId, FileKey};
    use crate::tail::os::kernel::Kernel;
    use logferry_wire::Compression;

    const STREAM: StreamKey = StreamKey { file: FileKey(1), collection: CollectionId(0) };
    const TAIL: Fingerprint = Fingerprint { len: 3, crc32: 7 };

    fn batch(start: u64, first: u32, lines: u32) -> SealedBatch {
        SealedBatch {
            id: BatchId(start),
            span: Span::new(STREAM, start, start + 10),
            destination: DestinationId(0),
            path: "/a.log".into(),
            payload: Vec::new().into(),
            compression: Compression::None,
            raw_bytes: 0,
            lines,
            first,
            route: Route::Any,
            since: crate::base::clock::now(),
        }
    }

    fn seal(once: &mut Once, start: u64, lines: u32) {
        let batch = batch(start, 0, lines);
        once.on_sealed(&batch, TAIL, 100);
        assert!(once.on_batch(&Kernel, batch).is_none());
    }

    fn sent(once: &mut Once) -> Vec<SealedBatch> {
        once.assign();
        once.on_saved()
    }

    fn sequence(batch: &SealedBatch) -> u64 {
        match batch.route {
            Route::Once { sequence, .. } => sequence,
            Route::Any | Route::Key(_) => panic!("it has an id"),
        }
    }

    #[test]
    fn a_slot_has_one_batch_at_a_time() {
        let mut once = Once::new(&Kernel, Some(2));
        (0..3).for_each(|index| seal(&mut once, index * 10, 1));

        let first = sent(&mut once);
        assert_eq!(first.len(), 2);
        assert!(sent(&mut once).is_empty());
        once.on_done(first[1].span, first[1].route);
        let second = sent(&mut once);

        assert_eq!((second.len(), sequence(&second[0])), (1, 2));
        let (Route::Once { key: old, .. }, Route::Once { key: new, .. }) =
            (first[1].route, second[0].route)
        else {
            panic!("both have an id");
        };
        assert_eq!(old, new);
    }

    #[test]
    fn what_is_assigned_is_saved_until_the_watermark_has_passed_it() {
        let mut once = Once::new(&Kernel, Some(2));
        (0..3).for_each(|index| seal(&mut once, index * 10, 1));
        assert!(once.ranges(STREAM, 0).is_empty(), "what waits has not been sent");
        assert!(once.assign());
        let starts =
            |ranges: Vec<Range>| ranges.iter().map(|range| range.start).collect::<Vec<_>>();
        assert_eq!(starts(once.ranges(STREAM, 0)), [0, 10]);

        let batches = once.on_saved();
        once.on_done(batches[1].span, batches[1].route);
        assert_eq!(once.ranges(STREAM, 0)[1].state, RangeState::Done);
        once.on_done(batches[0].span, batches[0].route);
        once.on_watermark(STREAM, 20);
        assert!(once.assign());
        assert_eq!(starts(once.ranges(STREAM, 20)), [20]);
    }

    #[test]
    fn what_is_done_behind_one_that_is_not_is_one_range() {
        let mut once = Once::new(&Kernel, Some(3));
        seal(&mut once, 0, 1);
        let stuck = sent(&mut once).remove(0);
        for start in (10..10_000).step_by(20) {
            seal(&mut once, start, 2);
            seal(&mut once, start + 10, 3);
            let batches = sent(&mut once);
            once.on_done(batches[1].span, batches[1].route);
            once.on_done(batches[0].span, batches[0].route);
            assert_eq!(once.ranges(STREAM, 0).len(), 2);
        }
        let done = once.ranges(STREAM, 0)[1];
        assert_eq!((done.start, done.end, done.first, done.records), (10, 10_010, 0, 2500));
        assert_eq!(done.state, RangeState::Done);
        assert!(once.on_done(stuck.span, stuck.route));
        assert_eq!(once.ranges(STREAM, 0).len(), 1);
        once.on_watermark(STREAM, 10_010);
        assert!(once.ranges(STREAM, 10_010).is_empty());
    }

    #[test]
    fn after_a_failed_save_ids_stay_and_nothing_goes() {
        let mut once = Once::new(&Kernel, Some(1));
        seal(&mut once, 0, 1);
        assert!(once.assign());
        once.has_failed = true;

        assert!(!once.assign());
        assert_eq!(once.ranges(STREAM, 0).len(), 1);
        assert_eq!(once.on_saved().len(), 1);
    }

    #[test]
    fn parts_of_a_refused_batch_replace_its_id_all_at_once() {
        let mut once = Once::new(&Kernel, Some(1));
        seal(&mut once, 0, 5);
        let whole = sent(&mut once).remove(0);
        assert!(once.on_batch(&Kernel, whole.clone()).is_some(), "with other times it is the same");

        assert!(once.on_batch(&Kernel, batch(0, 0, 2)).is_none());
        let ranges = once.ranges(STREAM, 0);
        assert_eq!(
            [(0, 2), (2, 3)],
            [0, 1].map(|at: usize| (ranges[at].first, ranges[at].records))
        );
        assert!(ranges.iter().all(|range| range.state != whole_state(&whole)));
        assert!(once.on_batch(&Kernel, batch(0, 2, 3)).is_none());
        assert_eq!(once.ranges(STREAM, 0), ranges, "the second one keeps its place");

        seal(&mut once, 10, 1);
        let parts = sent(&mut once);
        assert_eq!(parts.iter().map(sequence).collect::<Vec<_>>(), [1, 1, 2], "the slot is free");
        assert!(once.on_batch(&Kernel, batch(0, 3, 1)).is_none(), "and again");
        let firsts: Vec<u32> = once.ranges(STREAM, 0).iter().map(|range| range.first).collect();
        assert_eq!(firsts, [0, 2, 3, 4, 0]);
    }

    fn whole_state(batch: &SealedBatch) -> RangeState {
        match batch.route {
            Route::Once { key, sequence } => RangeState::Assigned { key, sequence },
            Route::Any | Route::Key(_) => RangeState::Done,
        }
    }

    #[test]
    fn ranges_that_make_no_sense_are_left_out() {
        let range = |start, end, first, records| Range {
            start,
            end,
            first,
            records,
            line_bytes_max: u32::MAX,
            tail: TAIL,
            state: RangeState::Done,
        };
        let mut once = Once::new(&Kernel, None);
        let ranges = vec![
            range(5, 15, 0, 1),
            range(10, 20, 1, 1),
            range(10, 20, 0, 2),
            range(10, 20, 2, u32::MAX),
            range(10, 20, 2, 0),
            range(15, 30, 0, 1),
            range(25, 25, 0, 1),
            range(30, 40, 0, 1),
        ];
        once.adopt(STREAM, 10, ranges);

        let saved = once.ranges(STREAM, 10);
        let found: Vec<_> = saved.iter().map(|range| (range.start, range.first)).collect();
        assert_eq!(found, [(10, 0), (10, 2), (30, 0)]);
        assert_eq!(once.longest_line(STREAM), 2 << 20);
    }

    #[test]
    fn keys_of_slots_are_spread_evenly() {
        let base = u128::MAX;
        assert_eq!(slot_key(base, 0, 1) >> 119, 0);
        let buckets = |count| (0..count).map(move |index| slot_key(base, index, count));
        assert_eq!(
            buckets(8).map(|key| key >> 119).collect::<Vec<_>>(),
            [0, 64, 128, 192, 256, 320, 384, 448]
        );
        assert!(buckets(8).all(|key| key & (u128::MAX >> 9) == base >> 9));
        for count in [1, 3, 8, 512, 513, 1000] {
            let distinct: std::collections::BTreeSet<u128> = buckets(count).collect();
            assert_eq!(distinct.len(), count);
        }
    }
}
