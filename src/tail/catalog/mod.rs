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
//! Each rule has a test of its name in `tail::rules_tests`. A *whole* head is 1,024 bytes and a whole tail 256.
//! What is not known, such as a birth on a file system without one, proves nothing. [`judge`] has the rules,
//! [`names`] what a name says.
//!
//! [`Catalog`] holds an [`Entry`] for each file that is known and not open, and [`entry::Phase`] says in which
//! state such a file is. At the start that is what the last run has saved: a file that discovery finds is
//! opened as its entry says, and one that is found no more is searched for. An entry stays until its file is
//! open. What is never met is kept for a month
//! of the agent's own time: its volume may come back.
//!
//! Pure: [`super::scout`] looks for the files, and at their bytes.

mod copied;
pub mod entry;
pub mod index;
pub mod judge;
mod missing;
pub mod names;
pub mod originals;

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::path::{Path, PathBuf};
use std::time::Instant;

use self::entry::{Closed, Entry, Inode, Phase, is_unread, unread};
use self::index::Indexes;
use super::registry::Registry;
use super::tracked::FoundAs;
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
        for one in ours.into_iter().rev() {
            catalog.put(one);
        }
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
        self.indexes.insert(&entry.saved, number);
        if entry.saved.is_told {
            self.told.insert(number);
        }
        self.entries.insert(number, Box::new(entry));
        number
    }

    /// Adds a file of which only what is saved is known.
    pub fn put(&mut self, checkpoint: Checkpoint) -> u64 {
        self.insert(Entry::new(checkpoint))
    }

    /// Takes an entry out: its file is open now, or something else is known of it.
    pub fn take(&mut self, number: u64) -> Option<Checkpoint> {
        self.take_entry(number).map(|entry| entry.saved)
    }

    fn take_entry(&mut self, number: u64) -> Option<Entry> {
        let entry = self.entries.remove(&number)?;
        self.copies.remove(&number);
        self.told.remove(&number);
        self.indexes.remove(&entry.saved, number);
        Some(*entry)
    }

    /// Changes what is saved of a file, and so its phase. Returns the number of its entry from now on.
    fn change(&mut self, number: u64, to: impl FnOnce(Checkpoint) -> Checkpoint) -> Option<u64> {
        let Entry { saved, is_told_now, .. } = self.take_entry(number)?;
        Some(self.insert(Entry { is_told_now, ..Entry::new(to(saved)) }))
    }

    /// The number of the entry of which just this is saved.
    #[must_use]
    pub fn number_of(&self, saved: &Checkpoint) -> Option<u64> {
        let is_it = |number: &u64| self.entry(*number).is_some_and(|one| one.saved == *saved);
        self.indexes.of_inode(saved.inode).find(is_it)
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
        self.put(closed(checkpoint));
    }

    /// Notes that a file holds no log any more: nothing of it is owed.
    pub fn on_overwritten(&mut self, number: u64) {
        self.change(number, |saved| closed(Checkpoint { rest: Some(0), ..saved }));
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
}

/// The checkpoint of a file that is delivered and closed.
fn closed(checkpoint: Checkpoint) -> Checkpoint {
    Checkpoint { is_done: true, trail: Vec::new(), ..checkpoint }
}

#[cfg(test)]
pub(in crate::tail) mod tests;
