//! Files that are copies of others, and those whose bytes others have.
//!
//! Pure.

use std::time::Instant;

use super::Catalog;
use super::entry::{Copy, Entry, Held, Inode, Phase, Source, is_own_by, is_unread, unread};
use crate::base::span::FileKey;
use crate::checkpoint::format::Checkpoint;
use crate::tail::registry::Registry;
use crate::tail::tracked::{FoundAs, Tracked};

impl Catalog {
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
    #[cfg(test)]
    pub fn held(&self, inode: Inode) -> Option<Held> {
        self.numbers_of(inode).find_map(|number| self.entry(number)?.held().cloned())
    }

    /// Notes that another file has all bytes of a missing one of which nothing was read: it owes none.
    pub fn on_equal(&mut self, inode: Inode) {
        let is_it = |one: &Entry| is_unread(&one.saved) && one.search().is_some();
        let number = self.find(inode, is_it);
        if let Some(entry) = number.and_then(|number| self.entries.get_mut(&number)) {
            entry.saved.rest = Some(0);
        }
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

    /// The checkpoints of copies whose originals are delivered by now. A file that equals one that
    /// nobody touches is left out: it may be no copy.
    pub(super) fn delivered_copies<'a>(
        &'a self,
        open: &'a Registry,
    ) -> impl Iterator<Item = &'a Checkpoint> {
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

    /// Whether a copy that a discovery has found so is one still. If not, it is judged again.
    pub(super) fn is_copy_so(
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
}
