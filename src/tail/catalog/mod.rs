//! What every file is that is found, known, or missed.
//!
//! | rule | seen | then |
//! |---|---|---|
//! | allowed | the settings do not find the path by which it was known, or exclude that or its present name | it is left alone, and that is said |
//! | same file | same device and inode, births not different, head and tail as they were | go on at the offset |
//! | used inode | same device and inode, another birth | another file; the old one was removed |
//! | rewritten | same device and inode, other bytes | from the first byte |
//! | moved disk | another device; same inode and birth, and the bytes; or the same path, or the same inode with no birth known, and a whole head and tail | go on at the offset |
//! | few bytes | another device, same inode or path, and fewer bytes than that | from the first byte |
//! | copy of what is there | head and last bytes of a known file that still has them, and the name of a generation of it | it waits for at most a minute; then it is a file of its own |
//! | copy of what went | head and tail of bytes that went away after it was born, or compressed; a whole head and tail, unless it has the name of a generation and stands beside them or where no log of their name lives | go on behind what was delivered of them |
//! | missed | born since the last look, under the name of a generation of a file that was rotated; beside it, below it, or where an earlier generation went | shipped under its path |
//! | anything else | | from the first byte |
//!
//! Each rule has a test of its name in `tail::rules_tests`. A *whole* head is 1,024 bytes and a whole tail 256. What is not known, such as a birth on a file
//! system without one, proves nothing. [`judge`] has the rules, [`names`] what a name says.
//!
//! [`Catalog`] holds an [`Entry`] for each file that is known and not open, and [`entry::Phase`] says in which
//! state such a file is. At the start that is what the last run has saved: a file that discovery finds takes
//! its entry from here, and one that is found no more is searched for. What is never met is kept for a month
//! of the agent's own time: its volume may come back.
//!
//! Pure: [`super::scout`] looks for the files, and at their bytes.

pub mod entry;
pub mod index;
pub mod judge;
pub mod names;
pub mod originals;

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::path::{Path, PathBuf};
use std::time::Instant;

use self::entry::{
    Closed, Copy, Entry, Held, Inode, Phase, Search, Source, is_own_by, is_unread, unread,
};
use self::index::Indexes;
use super::registry::Registry;
use super::tracked::{FoundAs, Tracked};
use crate::base::span::FileKey;
use crate::checkpoint::format::Checkpoint;

/// How long a file may not have been seen before its checkpoint is dropped, in seconds.
const UNSEEN_SECONDS_MAX: u64 = 30 * 24 * 3600;
/// How long before the agent ended a file must have been seen to count as live, in seconds. The
/// live ones are as many as the agent had open or closed.
const LIVE_SECONDS: u64 = 24 * 3600;
/// Most checkpoints kept beside those of live files, and while the agent runs of files that are
/// closed and left the patterns. Beyond it those unseen longest are dropped.
const UNSEEN_MAX: usize = 10_000;
/// Most entries kept of files that are removed, because a copy of them may be met: the newest.
pub(super) const REMOVED_MAX: usize = 100;

/// The files that are known and not open.
#[derive(Debug, Default)]
pub struct Catalog {
    /// The entries by their numbers, in the order in which they came. Boxed, because a map keeps
    /// room for more than it holds, and there may be many.
    entries: BTreeMap<u64, Box<Entry>>,
    next_number: u64,
    indexes: Indexes,
    /// Numbers of the entries of copies: of those that a discovery has found, and of missing ones.
    copies: BTreeSet<u64>,
    /// Numbers of the entries of missing files that somebody was told of.
    told: BTreeSet<u64>,
    /// Identities of files that were told of in this run and were taken out: they may be put back.
    told_taken: HashSet<(u64, u64, u64)>,
    /// Numbers of the entries of deferred files, in the order in which the agent opens them.
    deferred: VecDeque<u64>,
    /// Checkpoints of collections that are not configured: nothing is known of them but that they
    /// are kept.
    foreign: Vec<Checkpoint>,
}

impl Catalog {
    /// Takes over the checkpoints that were loaded, without those whose files have not been seen
    /// for too long while an agent ran. Checkpoints of another collection than this are only kept.
    /// `unix` is now, in seconds.
    #[must_use]
    pub fn new(mut checkpoints: Vec<Checkpoint>, unix: u64, collection: &str) -> Self {
        checkpoints.sort_by_key(|one| Reverse(one.seen_unix));
        // When an agent ran last; not later than now, whatever its clock said.
        let last = checkpoints.first().map_or(0, |newest| newest.seen_unix).min(unix);
        let count_within = |seconds| {
            checkpoints.partition_point(|one| one.seen_unix.saturating_add(seconds) > last)
        };
        let (live, young) = (count_within(LIVE_SECONDS), count_within(UNSEEN_SECONDS_MAX));
        checkpoints.truncate(young.min(live + UNSEEN_MAX));
        let is_ours = |one: &Checkpoint| one.owner.as_deref().is_none_or(|it| it == collection);
        let (ours, foreign) = checkpoints.into_iter().partition(is_ours);
        let mut catalog = Self { foreign, ..Self::default() };
        let ours: Vec<Checkpoint> = ours;
        ours.into_iter().rev().for_each(|one| catalog.put_back(one));
        catalog
    }

    // === entries

    /// Whether a file is known not to hold anything new as long as it is as it was found.
    #[must_use]
    pub fn has_idle(&self) -> bool {
        self.entries.values().any(|entry| entry.is_idle())
    }

    /// How many files are known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether no file is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Checkpoints of collections that are not configured, to be saved again.
    #[must_use]
    pub fn foreign(&self) -> &[Checkpoint] {
        &self.foreign
    }

    /// What is saved of all files.
    pub fn checkpoints(&self) -> impl Iterator<Item = &Checkpoint> {
        self.entries.values().map(|entry| &entry.saved)
    }

    /// What the next start is to know of the files, and of copies whose originals are delivered by now.
    pub fn to_save<'a>(&'a self, open: &'a Registry) -> impl Iterator<Item = Cow<'a, Checkpoint>> {
        let copies = self.delivered_copies(open).map(Cow::Borrowed);
        copies.chain(self.saved().map(|entry| match entry.is_searched_by_next_start() {
            true => Cow::Owned(Checkpoint { is_done: false, ..entry.saved.clone() }),
            false => Cow::Borrowed(&entry.saved),
        }))
    }

    /// How many checkpoints the next start is to know.
    #[must_use]
    pub fn saved_count(&self, open: &Registry) -> usize {
        self.delivered_copies(open).count() + self.saved().count()
    }

    fn saved(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values().map(Box::as_ref).filter(|entry| !entry.is_unsaved())
    }

    /// The checkpoints of copies whose originals are delivered by now. A file that equals one that
    /// nobody touches is left out: it may be no copy.
    fn delivered_copies<'a>(&'a self, open: &'a Registry) -> impl Iterator<Item = &'a Checkpoint> {
        let is_delivered = move |(file, done): &(FileKey, &Checkpoint)| {
            let is_read = |original: &Tracked| done.offset <= original.read_offset;
            open.get(*file).is_some_and(|one| one.is_delivered() && is_read(one))
        };
        let found = self.copies().filter(|copy| copy.doubted.is_none());
        let found = found.filter_map(|copy| match copy.of {
            Source::Open(file) => Some((file, &copy.done)),
            Source::Closed(_) => None,
        });
        let held = self.copies.iter().filter_map(|number| self.entry(*number)?.held());
        let held = held.map(|held| (held.original, &*held.done));
        found.chain(held).filter(is_delivered).map(|(_, done)| done)
    }

    /// What is known of the file with this device and inode.
    #[must_use]
    pub fn get(&self, device: u64, inode: u64) -> Option<&Checkpoint> {
        self.numbers_of((device, inode)).find_map(|number| self.entry(number)).map(Entry::saved)
    }

    /// Whether the file with this device and inode is delivered and closed.
    #[must_use]
    pub fn closed(&self, inode: Inode) -> Option<&Checkpoint> {
        self.get(inode.0, inode.1).filter(|saved| saved.is_done)
    }

    /// The entry with this number.
    pub(super) fn entry(&self, number: u64) -> Option<&Entry> {
        self.entries.get(&number).map(Box::as_ref)
    }

    /// What finds entries.
    pub(super) const fn indexes(&self) -> &Indexes {
        &self.indexes
    }

    fn numbers_of(&self, inode: Inode) -> impl Iterator<Item = u64> + Clone + use<'_> {
        let numbers = self.indexes.of_inode(inode.1).filter(move |_| inode.1 != 0);
        numbers.filter(move |number| {
            self.entry(*number).is_some_and(|one| one.saved.device == inode.0)
        })
    }

    /// The number of the entry of a file that is such.
    fn find(&self, inode: Inode, is_it: impl Fn(&Entry) -> bool) -> Option<u64> {
        self.numbers_of(inode).find(|number| self.entry(*number).is_some_and(&is_it))
    }

    /// The number of the entry of a file of which nothing was read, and that stood here.
    fn find_unread(&self, inode: Inode, place: &Path) -> Option<u64> {
        self.find(inode, |one| is_unread(&one.saved) && one.saved.resolved == place)
    }

    fn insert(&mut self, entry: Entry) -> u64 {
        // Of what is removed it may be there still.
        if entry.saved.inode == 0 {
            let is_same = |number: &u64| {
                self.entry(*number).is_some_and(|one| one.is_same_removed(&entry.saved))
            };
            let same = self.indexes.of_inode(0).find(is_same);
            same.into_iter().for_each(|number| drop(self.take(number)));
        }
        let number = self.next_number;
        self.next_number += 1;
        let mut entry = entry;
        self.indexes.insert(&entry.saved, number);
        if entry.saved.is_told {
            self.told.insert(number);
            entry.is_told_now |= self.told_taken.remove(&self.indexes.identity(&entry.saved));
        }
        self.entries.insert(number, Box::new(entry));
        number
    }

    /// Puts a checkpoint back whose file could not be opened after all.
    pub fn put_back(&mut self, checkpoint: Checkpoint) {
        self.insert(Entry::new(checkpoint));
    }

    pub(super) fn take(&mut self, number: u64) -> Option<Checkpoint> {
        let entry = self.entries.remove(&number)?;
        self.copies.remove(&number);
        self.told.remove(&number);
        if entry.is_told_now {
            self.told_taken.insert(self.indexes.identity(&entry.saved));
        }
        self.indexes.remove(&entry.saved, number);
        Some(entry.saved)
    }

    /// Takes this checkpoint out.
    pub fn remove(&mut self, checkpoint: &Checkpoint) -> Option<Checkpoint> {
        let is_it = |number: &u64| self.entry(*number).is_some_and(|one| one.saved == *checkpoint);
        let number = self.indexes.of_inode(checkpoint.inode).find(is_it);
        self.take(number?)
    }

    fn enter(&mut self, number: u64, phase: Phase) {
        let Some(entry) = self.entries.get_mut(&number) else { return };
        entry.enter(phase);
        match entry.phase {
            Phase::CopyOf(_) => self.copies.insert(number),
            _ => self.copies.remove(&number),
        };
    }

    /// Forgets that a file waited to be opened: it is open.
    pub fn on_opened(&mut self, device: u64, inode: u64) {
        while let Some(number) = self.find((device, inode), |one| is_unread(&one.saved)) {
            self.take(number);
        }
    }

    // === closed files

    /// Keeps the checkpoint of a file that is delivered and closed, to know it when it is met again.
    pub fn put_closed(&mut self, checkpoint: Checkpoint) {
        self.put_back(Checkpoint { is_done: true, trail: Vec::new(), ..checkpoint });
    }

    /// Keeps the checkpoint of a file that holds no log any more: nothing of it is owed.
    pub fn put_overwritten(&mut self, checkpoint: Checkpoint) {
        self.put_closed(Checkpoint { rest: Some(0), ..checkpoint });
    }

    /// Notes how a closed file was seen.
    pub fn on_closed(&mut self, inode: Inode, closed: Closed) {
        if let Some(number) = self.find(inode, |one| matches!(one.phase, Phase::Closed(_))) {
            self.enter(number, Phase::Closed(closed));
        }
    }

    /// Notes that a file which stands so under `path` holds no log, whether it is known or not.
    pub fn on_no_log(&mut self, inode: Inode, path: &Path, found_as: FoundAs) {
        if self.closed(inode).is_some() {
            return self.on_closed(inode, Closed::Idle(found_as));
        }
        let number = self
            .find_unread(inode, path)
            .unwrap_or_else(|| self.insert(Entry::new(unread((path, path), inode, 0, 0))));
        self.enter(number, Phase::NoLog(found_as));
    }

    /// Whether a file that a discovery has found so holds nothing new, as is known. Its entry does not
    /// age: it was there at `unix`, in seconds.
    pub fn is_known_so(
        &mut self,
        inode: Inode,
        found_as: FoundAs,
        open: &Registry,
        now: Instant,
        unix: u64,
    ) -> bool {
        let Some(number) = self.find(inode, Entry::is_idle) else { return false };
        let is_copy = self.copies.contains(&number) && self.is_copy_so(number, found_as, open, now);
        let Some(entry) = self.entries.get_mut(&number) else { return false };
        let is_so = match &entry.phase {
            Phase::Closed(Closed::Idle(known)) | Phase::Deferred(known) | Phase::NoLog(known) => {
                *known == found_as
            }
            _ => is_copy,
        };
        match entry.phase {
            _ if is_so => entry.saved.seen_unix = entry.saved.seen_unix.max(unix),
            Phase::Closed(_) | Phase::Deferred(_) => entry.enter(Phase::Changed),
            Phase::NoLog(_) => drop(self.take(number)),
            _ => {}
        }
        is_so
    }

    /// Whether a copy that a discovery has found so is one still. If not, it is judged again.
    fn is_copy_so(
        &mut self,
        number: u64,
        found_as: FoundAs,
        open: &Registry,
        now: Instant,
    ) -> bool {
        let Some(copy) = self.copy_mut(number) else { return false };
        if let Source::Closed((device, inode)) = copy.of
            && let Some(opened) = open.find(device, inode)
        {
            copy.of = Source::Open(opened);
        }
        let is_original_there = match copy.of {
            Source::Open(file) => open.is_known(file),
            Source::Closed((device, inode)) => self.get(device, inode).is_some(),
        };
        let Some(copy) = self.copy_mut(number) else { return false };
        copy.is_own |= is_own_by(copy.doubted, now);
        let is_so = copy.found_as == Some(found_as) && is_original_there && !copy.is_own;
        copy.found_as = copy.found_as.filter(|_| is_so);
        is_so
    }

    /// The files that were closed after they had been renamed, with the places where they stand and how
    /// they stood there. Each is looked at for a while.
    pub fn renamed(&mut self, now: Instant) -> Vec<(Inode, PathBuf, FoundAs)> {
        let mut renamed = Vec::new();
        for entry in self.entries.values_mut() {
            if let Phase::Closed(closed @ Closed::Renamed(found_as, _)) = entry.phase {
                renamed.push((entry.inode(), entry.saved.resolved.clone(), found_as));
                if !closed.is_looked_at(now) {
                    entry.enter(Phase::Closed(Closed::Unmet));
                }
            }
        }
        renamed
    }

    /// Wants a search for a file that was closed and has left the place where it was, or has changed there.
    pub fn search_for(&mut self, inode: Inode) {
        let is_closed = |one: &Entry| {
            matches!(one.phase, Phase::Closed(_) | Phase::Deferred(_) | Phase::Changed)
        };
        while let Some(number) = self.find(inode, is_closed) {
            self.enter(number, Phase::missing(true, None));
        }
    }

    /// Takes note of the files that a discovery has found, by device and inode, with all that are open.
    /// Others that it should have found have another name now, or none.
    pub fn on_discovered(&mut self, found: &HashSet<Inode>) {
        let is_lost = |entry: &Entry| entry.is_expected() && !found.contains(&entry.inode());
        let lost = self.entries.iter().filter(|(_, entry)| is_lost(entry));
        let lost: Vec<u64> = lost.map(|(number, _)| *number).collect();
        for number in lost {
            match self.entry(number).map(|entry| &entry.phase) {
                Some(Phase::NoLog(_)) => drop(self.take(number)),
                Some(Phase::CopyOf(copy)) if copy.is_compressed => drop(self.take(number)),
                Some(Phase::CopyOf(copy)) => {
                    self.enter(number, Phase::missing(false, copy.doubted));
                }
                Some(Phase::Waiting) => self.enter(number, Phase::missing(false, None)),
                _ => self.enter(number, Phase::missing(true, None)),
            }
        }
    }

    /// Keeps only some of the entries of files that are closed and that nobody finds by the
    /// patterns any more: those seen last. `is_found` says whether a file is found.
    pub fn forget_unfound(&mut self, is_found: impl Fn(Inode) -> bool) {
        let is_unfound =
            |entry: &Entry| matches!(entry.phase, Phase::Closed(_)) && !is_found(entry.inode());
        let unfound = self.entries.iter().filter(|(_, entry)| is_unfound(entry));
        let mut unfound: Vec<_> =
            unfound.map(|(number, entry)| (entry.saved.seen_unix, *number)).collect();
        let Some(beyond @ 1..) = unfound.len().checked_sub(UNSEEN_MAX) else { return };
        unfound.select_nth_unstable(beyond - 1);
        for (_, number) in &unfound[..beyond] {
            self.take(*number);
        }
    }

    // === files that are found and not open

    /// Leaves a file closed that is as it was delivered; the agent opens it soon. Nothing else claims its
    /// entry, and nothing searches for it, until it is opened or has left its place.
    pub fn defer(&mut self, inode: Inode, found_as: FoundAs) {
        let Some(number) = self.find(inode, |_| true) else { return };
        self.enter(number, Phase::Deferred(found_as));
        self.deferred.push_back(number);
    }

    /// Takes the next file that is to be opened and is as it was found.
    pub fn next_deferred(&mut self) -> Option<(&Checkpoint, FoundAs)> {
        let is_deferred = |number: &u64| match self.entry(*number)?.phase {
            Phase::Deferred(found_as) => Some((*number, found_as)),
            _ => None,
        };
        // Others have changed or gone, and were seen to.
        let mut next = self.deferred.iter().enumerate();
        let next = next.find_map(|(index, number)| Some((index, is_deferred(number)?)));
        let Some((index, (number, found_as))) = next else {
            self.forget_deferred();
            return None;
        };
        self.deferred.drain(..=index);
        Some((self.entry(number)?.saved(), found_as))
    }

    /// Leaves all others closed.
    pub fn forget_deferred(&mut self) {
        self.deferred = VecDeque::new();
    }

    /// How many files are to be opened that are as they were delivered.
    #[must_use]
    pub fn deferred(&self) -> usize {
        self.deferred.len()
    }

    /// Ends the phase of a deferred file that was to be opened: it was, or could not be.
    pub fn on_woken(&mut self, inode: Inode) {
        let number = self.find(inode, |one| matches!(one.phase, Phase::Deferred(_)));
        if let Some(entry) = number.and_then(|number| self.entries.get_mut(&number)) {
            entry.enter(Phase::of(&entry.saved));
        }
    }

    /// Notes that a file that is not open has `size` bytes. Returns whether it is known: `born` tells it
    /// from one that had its inode before.
    pub fn note_grown(&mut self, inode: Inode, born: i64, size: u64) -> bool {
        let is_it = |one: &Entry| !judge::is_used_inode(&one.saved, born);
        let Some(number) = self.find(inode, is_it) else { return false };
        if let Some(Entry { saved, .. }) = self.entries.get_mut(&number).map(Box::as_mut) {
            saved.rest = Some(size.saturating_sub(saved.offset));
        }
        true
    }

    /// Keeps a file that was found and of which nothing was read, so that it is known whatever it is
    /// called when it is opened.
    ///
    /// `is_found` says whether a discovery has found the file; if not, it is searched for.
    pub fn wait(&mut self, waiting: Checkpoint, is_found: bool) {
        let number = self.find_unread((waiting.device, waiting.inode), &waiting.resolved);
        let number = number.unwrap_or_else(|| self.insert(Entry::new(waiting)));
        if !is_found {
            self.enter(number, Phase::missing(false, None));
        } else if self.entry(number).is_some_and(|one| one.copy().is_none()) {
            self.enter(number, Phase::Waiting);
        }
    }

    // === missing files

    /// Whether a file is searched for, or bytes of one that is removed may stand in a copy.
    #[must_use]
    pub fn is_any_missing(&self) -> bool {
        self.unmet().next().is_some()
    }

    /// Checkpoints of files that are searched for, and of removed ones whose bytes may stand in a copy.
    pub fn unmet(&self) -> impl Iterator<Item = &Checkpoint> {
        let is_unmet = |entry: &&Box<Entry>| {
            matches!(entry.phase, Phase::Missing(_) | Phase::Removed { is_undelivered: true })
        };
        self.entries.values().filter(is_unmet).map(|entry| &entry.saved)
    }

    /// The files that are looked for in their directories, by these.
    pub(super) fn wanted_by_dir(&self) -> BTreeMap<PathBuf, Vec<u64>> {
        let mut by_dir: HashMap<&Path, Vec<u64>> = HashMap::new();
        for (&number, entry) in &self.entries {
            let is_wanted = matches!(entry.phase, Phase::Closed(_) | Phase::Missing(_));
            if let Some(dir) = entry.saved.resolved.parent().filter(|_| is_wanted) {
                by_dir.entry(dir).or_default().push(number);
            }
        }
        // In an order that does not change from run to run.
        let mut ordered = BTreeMap::new();
        for (dir, numbers) in by_dir {
            ordered.insert(dir.to_owned(), numbers);
        }
        ordered
    }

    /// Notes how far the search for a file is, if it is missing.
    pub(super) fn on_search(&mut self, number: u64, search: Search) {
        let entry = self.entries.get_mut(&number);
        if let Some(missing) = entry.and_then(|entry| entry.missing_mut()) {
            missing.search = search;
        }
    }

    /// Begins a search: what could not be opened is found again, and where nobody might look somebody
    /// may now.
    pub(super) fn begin_search(&mut self) {
        for missing in self.entries.values_mut().filter_map(|entry| entry.missing_mut()) {
            if matches!(missing.search, Search::Met | Search::Barred | Search::Awaited) {
                missing.search = Search::Wanted;
            }
        }
    }

    /// Notes that a file stands no more where the search has found it, or not for sure.
    pub(super) fn on_left(&mut self, number: u64) {
        if let Some(Search::At(_)) = self.entry(number).and_then(Entry::search) {
            self.on_search(number, Search::Wanted);
        }
    }

    /// Notes that the search has met a file that could not be opened: the next one finds it again.
    pub fn on_unopened(&mut self, saved: &Checkpoint) {
        self.on_search_of(saved, &Search::Met);
    }

    /// Notes that a file which is not in its place may not be searched for before a link is there.
    pub fn on_awaited(&mut self, saved: &Checkpoint) {
        self.on_search_of(saved, &Search::Awaited);
    }

    fn on_search_of(&mut self, saved: &Checkpoint, search: &Search) {
        let numbers: Vec<u64> = self.numbers_of((saved.device, saved.inode)).collect();
        numbers.into_iter().for_each(|number| self.on_search(number, search.clone()));
    }

    /// Checkpoints of the missing ones among these.
    pub(super) fn missing_of<'a>(
        &'a self,
        numbers: &'a [u64],
    ) -> impl Iterator<Item = &'a Checkpoint> {
        let known = numbers.iter().filter_map(|number| self.entry(*number));
        known.filter(|entry| entry.search().is_some()).map(|entry| &entry.saved)
    }

    /// Pairs each of these numbers with the inode of its file, in the order of the inodes.
    pub(super) fn by_inode_of(&self, numbers: &[u64]) -> BTreeSet<(u64, u64)> {
        let mut by_inode = BTreeSet::new();
        for &number in numbers {
            if let Some(entry) = self.entry(number) {
                by_inode.insert((entry.saved.inode, number));
            }
        }
        by_inode
    }

    /// Keeps the checkpoint of a file that a search has found, and that could not be opened.
    pub fn put_unopened(&mut self, checkpoint: Checkpoint, doubted: Option<Instant>) {
        self.put_missing(checkpoint, Search::Met, doubted);
    }

    /// Puts a checkpoint back whose file was searched for: what has its inode is another file, as far as
    /// that can be told.
    pub fn put_unfound(&mut self, checkpoint: Checkpoint) {
        self.put_missing(checkpoint, Search::Nowhere, None);
    }

    fn put_missing(&mut self, checkpoint: Checkpoint, search: Search, doubted: Option<Instant>) {
        let mut entry = Entry::new(checkpoint);
        if let Some(missing) = entry.missing_mut() {
            (missing.search, missing.doubted) = (search, doubted);
        }
        self.insert(entry);
    }

    /// Since when a missing file is known to equal one that nobody touches.
    #[must_use]
    pub fn doubted(&self, inode: Inode) -> Option<Instant> {
        self.numbers_of(inode).find_map(|number| match &self.entry(number)?.phase {
            Phase::Missing(missing) => missing.doubted,
            _ => None,
        })
    }

    /// Takes the checkpoints whose files are missing and of which nobody was told in this run or an
    /// earlier one. From now on somebody was told.
    ///
    /// `is_missing` is asked with the place where the search has found the file, if it has.
    pub fn tell(
        &mut self,
        is_missing: impl Fn(&Checkpoint, Option<&Path>) -> bool,
    ) -> Vec<Checkpoint> {
        let mut told = Vec::new();
        for (number, entry) in &mut self.entries {
            let at = match entry.search() {
                Some(Search::Met | Search::Barred) => continue,
                Some(Search::At(at)) => Some(at.as_path()),
                Some(Search::Wanted | Search::Nowhere | Search::Awaited) | None => None,
            };
            let is_untold = !entry.saved.is_told && entry.is_undelivered();
            if is_untold && is_missing(&entry.saved, at) {
                (entry.saved.is_told, entry.is_told_now) = (true, true);
                self.told.insert(*number);
                told.push(entry.saved.clone());
            }
        }
        told
    }

    /// Checkpoints whose files are missing still, and of which somebody was told in this run.
    pub fn told(&self) -> impl Iterator<Item = &Checkpoint> {
        let told = self.told.iter().filter_map(|number| self.entry(*number));
        told.filter(|entry| entry.is_told_now).map(|entry| &entry.saved)
    }

    /// How many files are missing, as somebody was told in this run or an earlier one, and how many
    /// bytes of them were not delivered, as far as is known.
    #[must_use]
    pub fn missing(&self) -> (u64, u64) {
        let missing = self.told.iter().filter_map(|number| self.entry(*number));
        missing.fold((0, 0), |(files, bytes): (u64, u64), entry| {
            (files + 1, bytes.saturating_add(entry.saved.rest.unwrap_or(0)))
        })
    }

    // === removed files

    /// Keeps the checkpoint of a file that is removed, delivered or not: only a copy of its bytes can
    /// be met. The checkpoint's `gone_at` says since when.
    pub fn put_removed(&mut self, checkpoint: Checkpoint) {
        self.put_back(Checkpoint { inode: 0, ..checkpoint });
        let removed = self.indexes.of_inode(0);
        let is_over = removed.clone().nth(REMOVED_MAX).is_some();
        // What was not delivered goes last.
        let is_delivered =
            |number: &u64| self.entry(*number).is_some_and(|one| one.saved.rest.unwrap_or(0) == 0);
        let oldest = removed.clone().filter(is_delivered).min().or_else(|| removed.min());
        if let Some(oldest) = oldest.filter(|_| is_over) {
            self.take(oldest);
        }
    }

    /// Notes that a copy of what is removed was found, in which nothing is missing. Returns what was known.
    pub(super) fn on_copied(&mut self, number: u64) -> Option<Checkpoint> {
        let entry = self.entries.get_mut(&number)?;
        let known = entry.saved.clone();
        (entry.saved.rest, entry.saved.ranges) = (Some(0), Vec::new());
        Some(known)
    }

    /// Notes that a closed file is found no more, as was noticed at `unix`, in seconds.
    pub(super) fn on_lost(&mut self, number: u64, unix: u64) {
        let Some(saved) = self.take(number) else { return };
        let gone_at = i64::try_from(unix).unwrap_or(i64::MAX).saturating_mul(1_000_000_000);
        // Within the same second it may have been copied.
        let gone_at = gone_at.saturating_add(1_000_000_000);
        self.put_removed(Checkpoint { is_done: true, gone_at, ..saved });
    }

    /// Notes that copies of what is removed were searched for: copies made from now on are younger
    /// than this look. Returns whether that is news of any.
    pub fn on_copies_searched(&mut self) -> bool {
        let is_owed = |number: &u64| {
            let entry = self.entry(*number);
            entry.is_some_and(|one| matches!(one.phase, Phase::Removed { is_undelivered: true }))
        };
        let owed: Vec<u64> = self.indexes.of_inode(0).filter(is_owed).collect();
        for number in &owed {
            self.enter(*number, Phase::Removed { is_undelivered: false });
        }
        !owed.is_empty()
    }

    // === copies

    /// Notes that a file is a copy.
    pub fn put_copy(&mut self, copy: Copy) {
        let Copy { done, .. } = &copy;
        let number =
            self.find_unread((done.device, done.inode), &done.resolved).unwrap_or_else(|| {
                let (names, inode) = ((&*done.path, &*done.resolved), (done.device, done.inode));
                let waiting = unread(names, inode, done.born, done.seen_unix);
                self.insert(Entry::new(Checkpoint { owner: done.owner.clone(), ..waiting }))
            });
        if let Some(entry) = self.entries.get_mut(&number) {
            // Its original has what it holds.
            entry.saved.rest = Some(0);
        }
        self.enter(number, Phase::CopyOf(Box::new(copy)));
    }

    /// What was known of a file that is judged again, and was found to be a copy.
    #[must_use]
    pub fn copy(&self, inode: Inode) -> Option<&Copy> {
        self.numbers_of(inode).find_map(|number| self.entry(number)?.copy())
    }

    fn copy_mut(&mut self, number: u64) -> Option<&mut Copy> {
        self.entries.get_mut(&number)?.copy_mut()
    }

    /// Whether a file was found to be a copy, and is not to be judged again.
    #[must_use]
    pub fn is_copy(&self, inode: Inode) -> bool {
        self.copy(inode).is_some_and(|copy| copy.found_as.is_some())
    }

    /// Whether a file waits for the end of the one that it is a copy of.
    #[must_use]
    pub fn has_copies(&self) -> bool {
        self.copies().next().is_some()
    }

    fn copies(&self) -> impl Iterator<Item = &Copy> {
        let copies = self.copies.iter().filter_map(|number| self.entry(*number)?.copy());
        copies.filter(|copy| copy.found_as.is_some())
    }

    /// Files of which it is not known yet whether they are copies: they hold just as much as others
    /// that are there. (A file that holds less is most likely a copy of one that has grown since.)
    pub fn in_doubt(&self, open: &Registry) -> impl Iterator<Item = &Checkpoint> {
        let is_as_long = |copy: &&Copy| match copy.of {
            Source::Open(file) => open.get(file).is_some_and(|one| one.size == copy.done.offset),
            Source::Closed(_) => true,
        };
        let copies = self.copies().filter(|copy| copy.doubted.is_some());
        copies.filter(is_as_long).map(|copy| &copy.done)
    }

    /// Who has the bytes of a missing file, if that is known.
    #[must_use]
    pub fn held(&self, inode: Inode) -> Option<Held> {
        self.numbers_of(inode).find_map(|number| self.entry(number)?.held().cloned())
    }

    /// Notes who has the bytes of a missing file of which nothing was read.
    pub fn on_held(&mut self, held: Held) {
        let is_it = |one: &Entry| is_unread(&one.saved) && one.search().is_some();
        let Some(number) = self.find((held.done.device, held.done.inode), is_it) else { return };
        if let Some(missing) = self.entries.get_mut(&number).and_then(|one| one.missing_mut()) {
            missing.held = Some(held);
            self.copies.insert(number);
        }
    }

    /// Notes for the copies of an original that it has ended. If the original was only closed, they
    /// are copies of the closed file from now on. If its bytes are gone, nothing more of it was
    /// seen: a copy that holds more was made later, and goes on there.
    pub fn on_original_ended(&mut self, original: FileKey, ended: &Tracked, is_gone: bool) {
        let inode = (ended.opened.device, ended.opened.inode);
        let is_delivered =
            |copy: &Checkpoint| copy.offset <= ended.read_offset && ended.skipped.left_bytes == 0;
        for number in self.copies.clone() {
            let missing = self.entries.get_mut(&number).and_then(|entry| entry.missing_mut());
            let held = missing.and_then(|one| one.held.take_if(|held| held.original == original));
            if let Some(Held { done, .. }) = held.filter(|one| is_gone && is_delivered(&one.done)) {
                self.on_opened(done.device, done.inode);
                self.put_closed(*done);
            }
            let Some(copy) = self.copy_mut(number) else { continue };
            if copy.found_as.is_none() || copy.of != Source::Open(original) {
                continue;
            }
            if !is_gone {
                copy.of = Source::Closed(inode);
            } else if is_delivered(&copy.done) {
                let done = copy.done.clone();
                self.on_opened(done.device, done.inode);
                self.put_closed(done);
            }
        }
    }
}

#[cfg(test)]
mod tests;
