//! Files that are known and not open: why they wait, when they are opened, and who gives its descriptor
//! up for others.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use super::Collector;
use super::readers::REST_QUIET;
use super::said::Kind;
use super::timers::Timer;
use crate::base::span::FileKey;
use crate::checkpoint::format::Checkpoint;
use crate::checkpoint::keep::Keep;
use crate::tail::discover::Found;
use crate::tail::os::Os;
use crate::tail::registry::{FoundAs, State};

/// Most files that the first discovery opens at once although they are as they were delivered. The
/// agent opens the others after it.
const AWAKE_MAX: u64 = 64;
/// How long the opening of files that were left closed at the start may take, before mail and
/// events are looked at again.
const WAKING_MAX: Duration = Duration::from_millis(5);
/// Most checkpoints of files that wait to be opened, beside those that can be known.
const WAITING_MAX: usize = 10_000;

impl<O: Os, K: Keep> Collector<O, K> {
    /// Leaves a file closed for the moment, so that the first discovery of thousands is soon over: it
    /// is as long as it was delivered. Its bytes are compared when it is opened, a moment later.
    pub(super) fn may_sleep(&mut self, found: &Found) -> bool {
        let is_first = !self.look.is_ready() && self.drain.is_running();
        if !is_first || self.counters.files_opened < AWAKE_MAX {
            return false;
        }
        let is_it = |saved: &Checkpoint| {
            saved.offset == found.size
                && saved.ranges.is_empty()
                && saved.path.as_os_str() == found.path.as_os_str()
        };
        let is_text = found.path.extension().is_none_or(|extension| extension != "gz");
        let may = is_text && self.remembered.get(found.device, found.inode).is_some_and(is_it);
        if may {
            let saved = self.remembered.get(found.device, found.inode);
            if let Some(resolved) = saved.map(|saved| saved.resolved.clone()) {
                self.note_in_place(&found.path, &resolved);
            }
            self.remembered.let_sleep(found.device, found.inode);
            self.aside.sleep(found);
        }
        may
    }

    /// Opens some of the files that were left closed at the start, as many at most as there are
    /// descriptors. The others stay closed, but for those that were written to since they were
    /// delivered.
    pub(super) fn wake(&mut self, now: Instant) {
        if self.timers.holds(Timer::ReadFrom, now) {
            return;
        }
        self.said.hush(Some(Kind::Shipping));
        let until = self.os.now() + WAKING_MAX;
        while let Some(found) = self.aside.next_asleep() {
            let inode = (found.device, found.inode);
            if !self.drain.is_running() {
                self.aside.forget_asleep();
                break;
            }
            if self.readers.are_full() && !self.is_written_since(&found) {
                continue;
            }
            // It has changed or gone, and was seen to.
            if !self.aside.wakes(&found) {
                continue;
            }
            let outcome = self.open_found(&found, now);
            self.remembered.wake(found.device, found.inode);
            match self.registry.find(found.device, found.inode) {
                Some(file) => self.refresh_names_of(file),
                // It was replaced or cannot be opened: a discovery takes care of it.
                None => self.look.want_scan_if(!matches!(outcome, Ok(Some(same)) if same == inode)),
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
        let saved = self.remembered.get(found.device, found.inode);
        saved.is_none_or(|saved| modified >= saved.looked_at)
    }

    /// Opens files again that were closed after they had been renamed, if they were written to
    /// since.
    pub(super) fn look_at_renamed(&mut self, now: Instant) {
        let changed = self.aside.changed_since_renamed(now, |place| look_at(&self.os, place));
        for ((device, inode), place) in changed {
            self.remembered.search_for(device, inode);
            self.remembered.search_again(&place);
        }
    }

    /// Remembers a file that was found and cannot be opened yet, so that it is known whatever it is
    /// called then.
    pub(super) fn note_waiting(&mut self, found: &Found, is_in_doubt: bool) {
        let inode = (found.device, found.inode);
        let Ok(facts) = self.os.stat(&found.path) else { return };
        let size = if is_in_doubt { 0 } else { found.size };
        if facts.id() != inode
            || self.remembered.note_grown(inode.0, inode.1, facts.born, size)
            || self.is_waiting_room_full()
        {
            return;
        }
        let dir = found.path.parent().and_then(|dir| self.patterns.enter(&self.os, dir));
        let (Some(dir), Some(name)) = (dir, found.path.file_name()) else { return };
        let waiting = Checkpoint {
            path: found.path.clone(),
            resolved: dir.join(name),
            device: found.device,
            inode: found.inode,
            born: facts.born,
            seen_unix: self.os.wall().as_secs(),
            rest: Some(size),
            ..Checkpoint::default()
        };
        self.wait_to_be_opened(waiting, true);
    }

    /// Whether no more files are remembered that wait: they may be any number, and be gone before their turn.
    pub(super) fn is_waiting_room_full(&self) -> bool {
        self.remembered.len() >= self.look.known_max() + WAITING_MAX
    }

    /// Remembers a file of which nothing was read. If no pattern finds it, it is searched for where
    /// it was.
    pub(super) fn wait_to_be_opened(&mut self, waiting: Checkpoint, is_found: bool) {
        let (inode, place) = ((waiting.device, waiting.inode), waiting.resolved.clone());
        let owner = self.ledger.owner(self.collection);
        self.remembered.put_back(Checkpoint { owner, ..waiting });
        if is_found {
            self.remembered.let_sleep(inode.0, inode.1);
            self.aside.wait(inode);
        } else {
            self.remembered.search_again(&place);
        }
    }

    /// Begins to open files: which are open, and which may be closed, is not what it was.
    pub(super) fn begin_opening(&mut self) {
        self.aside.end();
        self.readers.look_again();
    }

    /// Closes a delivered, quiet file when as many files are open as may be.
    pub(super) fn make_descriptor_room(&mut self, now: Instant) -> io::Result<()> {
        if !self.readers.are_full() {
            return Ok(());
        }
        // A discovery may last, and what is opened in it is delivered meanwhile.
        let quiet_by = now.max(self.os.now());
        while let Some(file) = self.readers.next_restable(&self.registry, quiet_by) {
            // Look once more: what has come since the last examination is still to be read.
            let stat = self.stat(file);
            let is_same = self.registry.get(file).is_some_and(|one| {
                stat.is_some_and(|stat| stat.size == one.size) && one.can_rest(REST_QUIET, quiet_by)
            });
            if is_same {
                self.rest(file);
                return Ok(());
            }
            self.examine(file, false, quiet_by);
        }
        self.readers.run_short();
        Err(io::Error::other("it waits for a descriptor"))
    }

    /// Closes a delivered file. If the patterns find the file, it is opened again when it changes.
    pub(super) fn rest(&mut self, file: FileKey) {
        let Some(tracked) = self.registry.get(file) else { return };
        let inode = (tracked.opened.device, tracked.opened.inode);
        match tracked.state {
            State::Active => self.aside.rest(inode, tracked.sighting.found_as),
            State::Rotated => {
                let place = tracked.opened.resolved.to_path_buf();
                if let Some((found, found_as)) = look_at(&self.os, &place)
                    && found == inode
                {
                    self.aside.rest_renamed(inode, place, found_as, tracked.growth.at);
                }
            }
            State::Deleted => {}
        }
        self.note_left_open(file);
        self.close(file);
        // Its checkpoint must be there when it is opened again.
        self.settle();
    }
}

/// Device and inode of what is at a real path, and its size and time of change.
pub(super) fn look_at(os: &impl Os, place: &Path) -> Option<((u64, u64), FoundAs)> {
    let found = os.lstat(place).ok()?;
    Some((found.id(), (found.size, found.modified)))
}
