//! Files that are known and not open: why they wait, when they are opened, and who gives its descriptor
//! up for others.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use super::Collector;
use super::readers::IDLE_QUIET;
use super::said::Kind;
use super::timers::Timer;
use crate::base::span::FileKey;
use crate::checkpoint::format::Checkpoint;
use crate::checkpoint::keep::Keep;
use crate::tail::catalog::entry::{Closed, unread};
use crate::tail::discover::Found;
use crate::tail::os::Os;
use crate::tail::tracked::{FoundAs, State};

/// Most files that the first discovery opens at once although they are as they were delivered. The
/// agent opens the others after it.
const OPENED_FIRST_MAX: u64 = 64;
/// How long the opening of files that were left closed at the start may take, before mail and
/// events are looked at again.
const OPENING_MAX: Duration = Duration::from_millis(5);
/// Most checkpoints of files that wait to be opened, beside those that can be known.
const WAITING_MAX: usize = 10_000;

impl<O: Os, K: Keep> Collector<O, K> {
    /// Leaves a file closed for the moment, so that the first discovery of thousands is soon over: it
    /// is as long as it was delivered. Its bytes are compared when it is opened, a moment later.
    pub(super) fn may_defer(&mut self, found: &Found) -> bool {
        let is_first = !self.look.is_ready() && self.drain.is_running();
        if !is_first || self.counters.files_opened < OPENED_FIRST_MAX {
            return false;
        }
        let is_it = |saved: &Checkpoint| {
            saved.offset == found.size
                && saved.ranges.is_empty()
                && saved.path.as_os_str() == found.path.as_os_str()
        };
        let is_text = found.path.extension().is_none_or(|extension| extension != "gz");
        let saved =
            self.catalog.get(found.device, found.inode).filter(|saved| is_text && is_it(saved));
        let Some(resolved) = saved.map(|saved| saved.resolved.clone()) else { return false };
        self.note_in_place(&found.path, &resolved);
        self.catalog.defer((found.device, found.inode), found_as(found));
        true
    }

    /// Opens some of the files that were left closed at the start, as many at most as there are
    /// descriptors. The others stay closed, but for those that were written to since they were
    /// delivered.
    pub(super) fn open_deferred(&mut self, now: Instant) {
        if self.timers.holds(Timer::ReadFrom, now) {
            return;
        }
        self.said.hush(Some(Kind::Shipping));
        let until = self.os.now() + OPENING_MAX;
        while let Some((saved, (size, modified))) = self.catalog.next_deferred() {
            let Checkpoint { path, device, inode, .. } = saved;
            let (path, device, inode) = (path.clone(), *device, *inode);
            let found = Found { path, device, inode, size, modified };
            if !self.drain.is_running() {
                self.catalog.forget_deferred();
                break;
            }
            if self.readers.are_full() && !self.is_written_since(&found) {
                continue;
            }
            let outcome = self.open_found(&found, now);
            self.catalog.on_woken((device, inode));
            match self.registry.find(device, inode) {
                Some(file) => self.refresh_names_of(file),
                // It was replaced or cannot be opened: a discovery takes care of it.
                None => {
                    let is_it = matches!(outcome, Ok(Some(same)) if same == (device, inode));
                    self.look.want_scan_if(!is_it);
                }
            }
            if self.os.now() >= until {
                break;
            }
        }
        self.said.hush(None);
    }

    /// Whether a file may have been written to since the last look of the agent before this one.
    fn is_written_since(&self, found: &Found) -> bool {
        let (seconds, nanoseconds) = found.modified;
        let modified = seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds);
        let saved = self.catalog.get(found.device, found.inode);
        saved.is_none_or(|saved| modified >= saved.looked_at)
    }

    /// Opens files again that were closed after they had been renamed, if they were written to
    /// since.
    pub(super) fn look_at_renamed(&mut self, now: Instant) {
        for (inode, place, found_as) in self.catalog.renamed(now) {
            if look_at(&self.os, &place) != Some((inode, found_as)) {
                self.catalog.search_for(inode);
                self.scout.search_again(&place);
            }
        }
    }

    /// Remembers a file that was found and cannot be opened yet, so that it is known whatever it is
    /// called then.
    pub(super) fn note_waiting(&mut self, found: &Found) {
        let inode = (found.device, found.inode);
        let Ok(facts) = self.os.stat(&found.path) else { return };
        if facts.id() != inode
            || self.catalog.note_grown(inode, facts.born, found.size)
            || self.is_waiting_room_full()
        {
            return;
        }
        let dir = found.path.parent().and_then(|dir| self.patterns.enter(&self.os, dir));
        let (Some(dir), Some(name)) = (dir, found.path.file_name()) else { return };
        let (resolved, unix) = (dir.join(name), self.os.wall().as_secs());
        let waiting = unread((&found.path, &resolved), inode, facts.born, unix);
        let waiting = Checkpoint { rest: Some(found.size), ..waiting };
        self.wait_to_be_opened(waiting, true);
    }

    /// Whether no more files are remembered that wait: they may be any number, and be gone before their turn.
    pub(super) fn is_waiting_room_full(&self) -> bool {
        self.catalog.len() >= self.look.known_max() + WAITING_MAX
    }

    /// Remembers a file of which nothing was read. If no pattern finds it, it is searched for where
    /// it was.
    pub(super) fn wait_to_be_opened(&mut self, waiting: Checkpoint, is_found: bool) {
        if !is_found {
            self.scout.search_again(&waiting.resolved);
        }
        let owner = self.ledger.owner(self.rules.collection);
        self.catalog.wait(Checkpoint { owner, ..waiting }, is_found);
    }

    /// Begins to open files: which are open, and which may be closed, is not what it was.
    pub(super) fn begin_opening(&mut self) {
        self.look.originals = None;
        self.readers.look_again();
    }

    /// Closes a delivered, quiet file when as many files are open as may be.
    pub(super) fn make_descriptor_room(&mut self, now: Instant) -> io::Result<()> {
        if !self.readers.are_full() {
            return Ok(());
        }
        // A discovery may last, and what is opened in it is delivered meanwhile.
        let quiet_by = now.max(self.os.now());
        while let Some(file) = self.readers.next_idle(&self.registry, quiet_by) {
            // Look once more: what has come since the last examination is still to be read.
            let stat = self.stat(file);
            let is_same = self.registry.get(file).is_some_and(|one| {
                stat.is_some_and(|stat| stat.size == one.size)
                    && one.can_close(IDLE_QUIET, quiet_by)
            });
            if is_same {
                self.close_for_now(file);
                return Ok(());
            }
            self.examine(file, false, quiet_by);
        }
        self.readers.run_short();
        Err(io::Error::other("it waits for a descriptor"))
    }

    /// Closes a delivered file. If the patterns find the file, it is opened again when it changes.
    pub(super) fn close_for_now(&mut self, file: FileKey) {
        let Some(tracked) = self.registry.get(file) else { return };
        let (inode, since) = ((tracked.opened.device, tracked.opened.inode), tracked.growth.at);
        let closed = match tracked.state {
            State::Active => Some(Closed::Idle(tracked.sighting.found_as)),
            State::Rotated => look_at(&self.os, &tracked.opened.resolved)
                .filter(|(found, _)| *found == inode)
                .map(|(_, found_as)| Closed::Renamed(found_as, since)),
            State::Deleted => None,
        };
        self.note_left_open(file);
        self.close(file);
        // Its checkpoint must be there when it is opened again.
        self.close_accounts();
        if let Some(closed) = closed {
            self.catalog.on_closed(inode, closed);
        }
    }
}

pub(super) fn found_as(found: &Found) -> FoundAs {
    (found.size, found.modified)
}

/// Device and inode of what is at a real path, and its size and time of change.
pub(super) fn look_at(os: &impl Os, place: &Path) -> Option<((u64, u64), FoundAs)> {
    let found = os.lstat(place).ok()?;
    Some((found.id(), (found.size, found.modified)))
}
