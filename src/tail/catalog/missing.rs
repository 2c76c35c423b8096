//! Files that are not where they stood: searched for, found nowhere, or removed.
//!
//! Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::entry::{Entry, Inode, Phase, Search};
use super::{Catalog, REMOVED_MAX};
use crate::checkpoint::format::Checkpoint;

impl Catalog {
    /// Whether a file is searched for, or bytes of one that is removed may stand in a copy.
    #[must_use]
    pub fn is_any_missing(&self) -> bool {
        self.unmet().next().is_some()
    }

    /// Checkpoints of files that are searched for, and of removed ones whose bytes may stand in a copy.
    pub fn unmet(&self) -> impl Iterator<Item = &Checkpoint> {
        let is_unmet = |entry: &&Entry| {
            matches!(entry.phase, Phase::Missing(_) | Phase::Removed { is_undelivered: true })
        };
        self.entries.values().map(Box::as_ref).filter(is_unmet).map(|entry| &entry.saved)
    }

    /// The files that are looked for in their directories, by these.
    pub(in crate::tail) fn wanted_by_dir(&self) -> BTreeMap<PathBuf, Vec<u64>> {
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
    pub(in crate::tail) fn on_search(&mut self, number: u64, search: Search) {
        let entry = self.entries.get_mut(&number);
        if let Some(missing) = entry.and_then(|entry| entry.missing_mut()) {
            missing.search = search;
        }
    }

    /// Begins a search: what could not be opened is found again, and where nobody might look somebody
    /// may now.
    pub(in crate::tail) fn begin_search(&mut self) {
        for missing in self.entries.values_mut().filter_map(|entry| entry.missing_mut()) {
            if matches!(missing.search, Search::Met | Search::Barred | Search::Awaited) {
                missing.search = Search::Wanted;
            }
        }
    }

    /// Notes that a file stands no more where the search has found it, or not for sure.
    pub(in crate::tail) fn on_left(&mut self, number: u64) {
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
    pub(in crate::tail) fn missing_of<'a>(
        &'a self,
        numbers: &'a [u64],
    ) -> impl Iterator<Item = &'a Checkpoint> {
        let known = numbers.iter().filter_map(|number| self.entry(*number));
        known.filter(|entry| entry.search().is_some()).map(|entry| &entry.saved)
    }

    /// Pairs each of these numbers with the inode of its file, in the order of the inodes.
    pub(in crate::tail) fn by_inode_of(&self, numbers: &[u64]) -> BTreeSet<(u64, u64)> {
        let mut by_inode = BTreeSet::new();
        for &number in numbers {
            if let Some(entry) = self.entry(number) {
                by_inode.insert((entry.saved.inode, number));
            }
        }
        by_inode
    }

    /// Notes since when a missing file is known to equal one that nobody touches.
    pub fn on_doubted(&mut self, number: u64, since: Instant) {
        let missing = self.entries.get_mut(&number).and_then(|entry| entry.missing_mut());
        missing.into_iter().for_each(|missing| missing.doubted = Some(since));
    }

    /// Notes that what was found in the place of a file is another one, as far as that can be told.
    pub fn on_unfound(&mut self, number: u64) {
        if let Some(number) = self.change(number, |saved| saved) {
            self.on_search(number, Search::Nowhere);
        }
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
        self.put(Checkpoint { inode: 0, ..checkpoint });
        self.forget_removed();
    }

    /// Notes that a known file is removed, or other bytes stand in it. `to` says what is known of its bytes.
    pub fn on_removed(&mut self, number: u64, to: impl FnOnce(Checkpoint) -> Checkpoint) {
        self.change(number, |saved| Checkpoint { inode: 0, ..to(saved) });
        self.forget_removed();
    }

    /// Keeps only the newest entries of removed files.
    fn forget_removed(&mut self) {
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

    /// Notes that a copy of what is removed was found, which holds `rest` bytes behind what was delivered.
    /// Returns what was known.
    pub(in crate::tail) fn on_copied(&mut self, number: u64, rest: u64) -> Option<Checkpoint> {
        let entry = self.entries.get_mut(&number)?;
        let known = entry.saved.clone();
        entry.saved.rest = entry.saved.rest.map_or(Some(0), |owed| Some(owed.saturating_sub(rest)));
        entry.saved.ranges = Vec::new();
        Some(known)
    }

    /// Notes that a closed file is found no more, as was noticed at `unix`, in seconds.
    pub(in crate::tail) fn on_lost(&mut self, number: u64, unix: u64) {
        let gone_at = i64::try_from(unix).unwrap_or(i64::MAX).saturating_mul(1_000_000_000);
        // Within the same second it may have been copied.
        let gone_at = gone_at.saturating_add(1_000_000_000);
        self.on_removed(number, |saved| Checkpoint { is_done: true, gone_at, ..saved });
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
}
