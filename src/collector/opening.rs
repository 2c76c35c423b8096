//! Opening: whether a file that was found is new, known, or a copy of one that is.
//!
//! ```text
//! its checkpoint waits           go on there: restarted, renamed, mounted elsewhere
//! a copy of what is there        wait: what the original holds is shipped from the original; after a
//!                                minute it is a file of its own
//! a copy of what is gone         go on behind what was delivered of it (gzip, copytruncate)
//! anything else                  from its first byte
//! ```

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Collector;
use super::aside::{Copy, Source, found_as};
use super::left::LATER;
use super::said::Kind;
use super::stamp::{nanoseconds, stamp, wall_nanoseconds};
use super::timers::Timer;
use crate::base::fingerprint::Fingerprint;
use crate::base::span::FileKey;
use crate::checkpoint::format::Checkpoint;
use crate::checkpoint::keep::Keep;
use crate::tail::catalog::judge::{self, Match, Stat};
use crate::tail::catalog::names::{self, Kin};
use crate::tail::discover::{Found, Permission};
use crate::tail::os::{Os, OsFile};
use crate::tail::reader::{self, Reader};
use crate::tail::registry::{FoundAs, Opened, State, Tracked};
use crate::tail::remembered::{self, Original, Remembered, Seeker, Suspect};
use crate::tail::unseen::{self, Known, Places, Search, Unseen};

/// Most files that the first discovery opens at once although they are as they were delivered. The
/// agent opens the others after it.
const AWAKE_MAX: u64 = 64;
/// How long the opening of files that were left closed at the start may take, before mail and
/// events are looked at again.
const WAKING_MAX: Duration = Duration::from_millis(5);
/// How long a file that equals one that nobody touches may be a copy that is still to replace it.
const COPY_TIME: Duration = Duration::from_secs(60);
/// Most checkpoints of files that wait to be opened, beside those that can be known.
const WAITING_MAX: usize = 10_000;
/// Why a file is not open that may be a copy.
const SOUGHT: &str = "it may be a copy of a file that is searched for";
/// Most open files that a suspect is compared with: the nearest.
const CANDIDATES_MAX: usize = 64;
/// Where the bytes of an opened file are from.
pub(super) enum Origin {
    New,
    Known(Checkpoint),
    /// The file is a copy; `true` if it is one as long as nobody touches the original.
    CopyOf(Source, bool),
    /// The file may be a copy of one that is searched for first.
    Later,
    /// The file was written over since it was renamed, and holds no log any more.
    Overwritten,
}

impl<O: Os, K: Keep> Collector<O, K> {
    /// Expects files that were born beside those of the loaded checkpoints while no agent looked.
    pub(super) fn expect_unseen(&mut self) {
        if let [first, ..] = self.remembered.foreign() {
            tracing::warn!(
                files = self.remembered.foreign().len(), first = %first.path.display(),
                collection = first.owner.as_deref(),
                "known files belong to collections that are not configured; they are left alone, and \
                 remembered for 30 days"
            );
        }
        let mut known = Places::with_capacity(self.remembered.checkpoints().count());
        let now = wall_nanoseconds(&self.os);
        for saved in self.remembered.checkpoints() {
            let Some(name) = saved.path.file_name() else { continue };
            let place = saved.resolved.with_file_name(name);
            // What logtail left says nothing of names.
            let seen = match saved.looked_at {
                0 => nanoseconds(Duration::from_secs(saved.seen_unix)),
                // The clock was ahead: what is younger than the file may have been born since.
                looked_at if looked_at > now => saved.born,
                looked_at => looked_at,
            };
            let one = || Known { path: saved.path.clone(), seen, born: None, copied: None };
            let known = known.entry(place.into()).or_insert_with(one);
            known.seen = known.seen.max(seen);
        }
        self.look.expected.begin(known);
    }

    /// Expects other files in the place of a renamed one: they may have been born and renamed since
    /// the last look.
    pub(super) fn expect_unseen_beside(&mut self, file: FileKey) {
        let seen = self.looked_at();
        // What was known before is still looked for from then on.
        self.expect_beside(file, |known| known.seen = known.seen.min(seen));
    }

    /// Expects a copy beside a file that was truncated. The copy was made just before, and may hold
    /// what was not read of the file, whether the patterns find it or not. If bytes were seen that
    /// are lost now, the agent looks for the copy at once, however old it is. If not, others may
    /// have come since the last look; a copy that holds them was written to since then, and is
    /// looked for with the next discovery.
    pub(super) fn expect_copy_beside(&mut self, file: FileKey, is_lost: bool) {
        let seen = self.looked_at();
        self.look.want_scan_if(is_lost);
        self.expect_beside(file, |known| {
            // Between two truncations there may have been a text that stands in a copy only.
            known.seen = known.seen.min(seen);
            if is_lost {
                known.born = Some(i64::MIN);
            } else {
                known.copied = known.copied.or(Some(seen));
            }
        });
    }

    /// Expects others where a file was found that has another name since, or none.
    pub(super) fn expect_renamed(&mut self, file: &Found, found: &mut HashSet<(u64, u64)>) {
        found.remove(&(file.device, file.inode));
        let seen = self.looked_at();
        let dir = file.path.parent().and_then(|dir| self.patterns.enter(&self.os, dir));
        if let (Some(dir), Some(name)) = (dir, file.path.file_name()) {
            let known = self.look.expected.entry(dir.join(name).into(), &file.path, seen);
            known.seen = known.seen.min(seen);
        }
    }

    /// When the last discovery began, by the clock as it is set now: it may have been set back
    /// since.
    fn looked_at(&self) -> i64 {
        self.look.looked_at_by(stamp(&self.os), self.os.now())
    }

    fn expect_beside(&mut self, file: FileKey, expect: impl FnOnce(&mut Known)) {
        let Some(tracked) = self.registry.get(file) else { return };
        let Some(name) = tracked.found_at.file_name() else { return };
        let place = tracked.opened.resolved.with_file_name(name);
        let path = &tracked.opened.path;
        expect(self.look.expected.entry(place.into(), path, i64::MAX));
    }

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
    pub(super) fn note_waiting(&mut self, found: &Found) {
        let inode = (found.device, found.inode);
        // What waits may be any number, and be gone before its turn.
        let is_full = self.remembered.len() >= self.look.known_max() + WAITING_MAX;
        if is_full || self.remembered.get(found.device, found.inode).is_some() {
            return;
        }
        let Ok(facts) = self.os.stat(&found.path) else { return };
        let dir = found.path.parent().and_then(|dir| self.patterns.enter(&self.os, dir));
        let (Some(dir), Some(name)) = (dir, found.path.file_name()) else { return };
        if facts.id() != inode {
            return;
        }
        let waiting = Checkpoint {
            path: found.path.clone(),
            resolved: dir.join(name),
            device: found.device,
            inode: found.inode,
            born: facts.born,
            seen_unix: self.os.wall().as_secs(),
            rest: Some(found.size),
            ..Checkpoint::default()
        };
        self.wait_to_be_opened(waiting, true);
    }

    /// Remembers a file of which nothing was read. If no pattern finds it, it is searched for where
    /// it was.
    pub(super) fn wait_to_be_opened(&mut self, waiting: Checkpoint, is_found: bool) {
        let (inode, place) = ((waiting.device, waiting.inode), waiting.resolved.clone());
        self.remembered.put_back(waiting);
        if is_found {
            self.remembered.let_sleep(inode.0, inode.1);
            self.aside.wait(inode);
        } else {
            self.remembered.search_again(&place);
        }
    }

    /// Opens a file that discovery found, and goes on where it was left. Returns device and inode,
    /// if it is a file.
    pub(super) fn open_found(
        &mut self,
        found: &Found,
        now: Instant,
    ) -> io::Result<Option<(u64, u64)>> {
        self.make_descriptor_room(now)?;
        let mut reader = Reader::open(&self.os, &found.path)?;
        let stat = reader.stat()?;
        if !stat.is_file {
            return Ok(None);
        }
        let inode = (stat.device, stat.inode);
        // What was written over is judged again when all that was read of it has arrived.
        if self.registry.find(stat.device, stat.inode).is_some() || self.registry.has_ended(&stat) {
            return Ok(Some(inode));
        }
        // A link may have come into its way since it was found.
        let told = reader.whereabouts(&self.os, &found.path)?;
        let Some(resolved) = self.patterns.place(&self.os, &found.path, &told, inode) else {
            let why = format!("it leads out of the allowed directories: {}", told.display());
            return Err(io::Error::other(why));
        };
        if self.is_about_to_be_packed(&stat, &found.path) {
            return Ok(Some(inode));
        }
        if reader.is_gzip()? {
            if self.was_delivered(&stat) {
                self.aside.rest(inode, found_as(found));
                return Ok(Some(inode));
            }
            if !self.unpack(&mut reader, &stat, &found.path)? {
                return Ok(Some(inode));
            }
        }
        let saved = match self.origin(&found.path, &resolved, &reader)? {
            Origin::New => None,
            Origin::Known(saved) => Some(saved),
            Origin::CopyOf(of, is_untouched) => {
                let owner = self.ledger.owner();
                let done = Checkpoint { owner, ..done(&self.os, &reader, &found.path, &resolved)? };
                let done = self.proved(of, &reader, done)?;
                let own_at = (is_untouched && !reader.is_unpacked()).then(|| now + COPY_TIME);
                let copy = Copy { found_as: found_as(found), of, done, own_at };
                self.aside.add_copy(inode, copy);
                return Ok(Some(inode));
            }
            Origin::Later => {
                self.look.unopened.add(&found.path, SOUGHT);
                self.look.want_scan();
                return Ok(Some(inode));
            }
            Origin::Overwritten => {
                self.aside.rest(inode, found_as(found));
                return Ok(Some(inode));
            }
        };
        let is_unpacked = reader.is_unpacked();
        // Renamed where it was, it keeps the path that it is known by, if the patterns still find that:
        // by another one it would not be read on after the next start.
        let keeps_path = |saved: &&Checkpoint| {
            saved.path.parent() == found.path.parent() && self.patterns.finds(&saved.path)
        };
        let known_by = saved.as_ref().filter(keeps_path).map(|saved| saved.path.clone());
        let path = known_by.unwrap_or_else(|| found.path.clone());
        // Its bytes were compared a moment ago, and it has not been written to since.
        let is_known = |saved: &Checkpoint| saved.offset == stat.size && !is_unpacked;
        let is_as_delivered = saved.as_ref().is_some_and(is_known);
        if saved.as_ref().is_some_and(|saved| saved.path == found.path && !saved.is_copy) {
            self.note_in_place(&found.path, &resolved);
        }
        let file = self.begin(path, resolved, reader, saved, State::Active, now)?;
        if let Some(tracked) = self.registry.get_mut(file) {
            tracked.found_at = shared(&tracked.opened.path, &found.path);
            if let Some(name) = tracked.opened.path.file_name()
                && Some(name) != found.path.file_name()
            {
                tracked.named = tracked.opened.resolved.with_file_name(name).into();
            }
            tracked.found_as = found_as(found);
            tracked.modified = stat.modified.filter(|_| is_as_delivered);
        }
        self.examine(file, !is_as_delivered, now);
        if is_unpacked {
            self.read_unpacked(file, now);
        }
        Ok(Some(inode))
    }

    /// Begins to open files: which are open, and which may be closed, is not what it was.
    pub(super) fn begin_opening(&mut self) {
        self.aside.end();
        self.readers.look_again();
    }

    /// Closes a delivered, quiet file when as many files are open as may be.
    fn make_descriptor_room(&mut self, now: Instant) -> io::Result<()> {
        if !self.readers.are_full() {
            return Ok(());
        }
        // A discovery may last, and what is opened in it is delivered meanwhile.
        let quiet_by = now.max(self.os.now());
        let Some(file) = self.readers.next_restable(&self.registry, quiet_by) else {
            self.readers.run_short();
            return Err(io::Error::other("it waits for a descriptor"));
        };
        self.rest(file);
        Ok(())
    }

    /// Closes a delivered file. If the patterns find the file, it is opened again when it changes.
    pub(super) fn rest(&mut self, file: FileKey) {
        let Some(tracked) = self.registry.get(file) else { return };
        let inode = (tracked.opened.device, tracked.opened.inode);
        match tracked.state {
            State::Active => self.aside.rest(inode, tracked.found_as),
            State::Rotated => {
                let place = tracked.opened.resolved.to_path_buf();
                if let Some((found, found_as)) = look_at(&self.os, &place)
                    && found == inode
                {
                    self.aside.rest_renamed(inode, place, found_as, tracked.grown_at);
                }
            }
            State::Deleted => {}
        }
        self.note_left_open(file);
        self.close(file);
        // Its checkpoint must be there when it is opened again.
        self.settle();
    }

    fn origin(
        &mut self,
        path: &Path,
        resolved: &Path,
        reader: &Reader<O::File>,
    ) -> io::Result<Origin> {
        let stat = reader.stat()?;
        match self.remembered.claim(&self.os, path, reader, stat)? {
            Some((saved, Match::Resume)) if saved.is_copy && saved.offset < stat.size => {
                let outcome = self.origin_of_grown_copy(&saved, resolved, reader);
                if matches!(outcome, Ok(Origin::Later) | Err(_)) {
                    self.remembered.put_back(saved);
                }
                outcome
            }
            // It was only waiting to be opened.
            Some((saved, Match::Resume)) if remembered::is_unread(&saved) => {
                let origin = self.origin_of_unknown(resolved, reader);
                if !matches!(origin, Ok(Origin::New | Origin::Known(_))) {
                    let (device, inode) = (saved.device, saved.inode);
                    self.remembered.put_back(saved);
                    self.remembered.let_sleep(device, inode);
                    self.aside.wait((device, inode));
                }
                origin
            }
            Some((saved, Match::Resume | Match::Again)) => Ok(Origin::Known(saved)),
            Some((saved, Match::Rewritten | Match::Other))
                if self.is_overwritten_since(&saved, path, reader, &stat) =>
            {
                Ok(Origin::Overwritten)
            }
            Some((saved, Match::Rewritten | Match::Other)) => {
                self.on_rewritten(path, saved, &stat);
                self.origin_of_unknown(resolved, reader)
            }
            None => self.origin_of_unknown(resolved, reader),
        }
    }

    /// Finds out where the bytes of a file are from of which no checkpoint speaks.
    pub(super) fn origin_of_unknown(
        &mut self,
        resolved: &Path,
        reader: &Reader<O::File>,
    ) -> io::Result<Origin> {
        let suspect =
            Suspect { os: self.os.clone(), place: resolved, reader, stat: reader.stat()? };
        let is_own = self.aside.is_own((suspect.stat.device, suspect.stat.inode));
        if let Some((file, is_untouched)) = self.original_of(&suspect)?
            && !(is_own && is_untouched)
        {
            return Ok(Origin::CopyOf(Source::Open(file), is_untouched));
        }
        Ok(match self.remembered.original_of(&suspect, 0)? {
            Some(Original::Gone(saved)) => Origin::Known(saved),
            // No app writes compressed what another file has as text.
            Some(Original::There(saved)) if reader.is_unpacked() => Origin::Known(saved),
            Some(Original::There(saved)) if !is_own => {
                Origin::CopyOf(Source::Closed((saved.device, saved.inode)), true)
            }
            Some(Original::Sought) => Origin::Later,
            Some(Original::There(_)) | None => Origin::New,
        })
    }

    /// Finds out where a copy that was met while it was made goes on; `saved` says how much of it
    /// there was. More of it is delivered if more of its original is, and the bytes say so. If they
    /// cannot, the copy goes on at the start of the line that was cut off.
    fn origin_of_grown_copy(
        &mut self,
        saved: &Checkpoint,
        resolved: &Path,
        reader: &Reader<O::File>,
    ) -> io::Result<Origin> {
        let suspect =
            Suspect { os: self.os.clone(), place: resolved, reader, stat: reader.stat()? };
        if let Some((original, is_untouched)) = self.original_of(&suspect)? {
            return Ok(Origin::CopyOf(Source::Open(original), is_untouched));
        }
        match self.remembered.original_of(&suspect, saved.offset)? {
            Some(Original::Gone(further) | Original::There(further)) => {
                return Ok(Origin::Known(further));
            }
            Some(Original::Sought) => return Ok(Origin::Later),
            None => {}
        }
        let offset = reader.line_start(saved.offset, self.tail.line_bytes_max)?;
        let tail = reader.tail(offset)?;
        Ok(Origin::Known(Checkpoint { offset, tail, ..saved.clone() }))
    }

    /// Notes that other bytes stand in a known file, or that another file has its inode: of the old
    /// text only a copy can be met.
    fn on_rewritten(&mut self, path: &Path, saved: Checkpoint, stat: &Stat) {
        if !judge::is_used_inode(&saved, stat.born) {
            if self.said.admits(Kind::Rewritten) {
                tracing::warn!(
                    file = %path.display(), offset = saved.offset,
                    "it was rewritten while the agent was away; reading from its first byte"
                );
            }
            self.counters.files_truncated += 1;
        }
        // It was gone before another file was born with its inode; or whoever wrote over it changed it.
        let is_used = judge::is_used_inode(&saved, stat.born);
        let gone_at = match is_used {
            true if saved.gone_at != 0 => saved.gone_at.min(stat.born - 1),
            true => stat.born - 1,
            false => stat.changed,
        };
        self.remembered.put_gone(Checkpoint { gone_at, ..saved });
    }

    /// The file that a suspect is a copy of, if that is open or its last batches are under way;
    /// `true` if the original stands where it was and has its bytes still.
    fn original_of(&mut self, suspect: &Suspect<'_, O>) -> io::Result<Option<(FileKey, bool)>> {
        let Suspect { reader, stat, .. } = suspect;
        for (file, kin) in self.related(suspect)? {
            let tracked = self.registry.get(file).or_else(|| self.registry.get_ended(file));
            let Some(tracked) = tracked else { continue };
            // A directory for generations holds no log of the name that they had.
            let is_archive = kin == Kin::Elsewhere && suspect.is_alone_here(&tracked.opened.path);
            let needed = if is_archive { Kin::Generation } else { kin };
            let is_proof = |tail| judge::is_proof_for(needed, tracked.opened.head, tail);
            match self.readers.get(&file) {
                // It is read forward only: what may be the same waits for its end.
                Some(original) if original.is_unpacked() => {
                    let head = tracked.opened.head;
                    if kin != Kin::Stranger && head.len > 0 && reader.has_head(head)? {
                        let why = "it waits for a compressed file that may hold the same";
                        return Err(io::Error::other(why));
                    }
                }
                Some(original) => {
                    let is_suspect =
                        needed == Kin::Generation || (kin == Kin::Elsewhere && stat.size > 0);
                    if is_suspect && reader::is_copy_so_far(reader, original)? {
                        return Ok(Some((file, tracked.state != State::Deleted)));
                    }
                    if is_copy_of_lost(reader, original, tracked, is_proof)? {
                        return Ok(Some((file, false)));
                    }
                }
                None if is_proof(tracked.tail) && is_copy_of_ended(reader, tracked)? => {
                    return Ok(Some((file, false)));
                }
                None => {}
            }
        }
        Ok(None)
    }

    /// The open files that a suspect may be a copy of, as far as heads, names and times say, the nearest
    /// first.
    fn related(&mut self, suspect: &Suspect<'_, O>) -> io::Result<Vec<(FileKey, Kin)>> {
        let registry = &self.registry;
        let originals = self.aside.originals(registry);
        let heads = suspect.reader.heads(originals.head_lens.iter().copied())?;
        let mut related: Vec<(Kin, usize, FileKey)> = originals
            .of(&heads, suspect.place)
            .into_iter()
            .filter_map(|file| {
                let tracked = registry.get(file).or_else(|| registry.get_ended(file))?;
                let opened = &tracked.opened;
                let is_it = (opened.device, opened.inode)
                    == (suspect.stat.device, suspect.stat.inode)
                    && registry.get(file).is_some();
                if is_it || !suspect.has_alibi(tracked.gone_at) {
                    return None;
                }
                let names = [&*opened.path, &*tracked.found_at, &*opened.resolved];
                let kin = names::kin(suspect.place, &names)?;
                Some((kin, names::distance(suspect.place, &opened.resolved), file))
            })
            .collect();
        related.sort_unstable();
        related.truncate(CANDIDATES_MAX);
        Ok(related.into_iter().map(|(kin, _, file)| (file, kin)).collect())
    }

    /// The checkpoint of a copy, up to where its original surely held the same when it was read.
    /// That is all of the copy, unless the original holds other bytes by now and more was read of
    /// it than the copy has.
    fn proved(
        &self,
        of: Source,
        copy: &Reader<O::File>,
        done: Checkpoint,
    ) -> io::Result<Checkpoint> {
        let Source::Open(original) = of else { return Ok(done) };
        let tracked = self.registry.get(original).or_else(|| self.registry.get_ended(original));
        let Some(tracked) = tracked.filter(|one| done.offset < one.read_offset) else {
            return Ok(done);
        };
        if let Some(original) = self.readers.get(&original)
            && reader::is_copy_so_far(copy, original)?
        {
            return Ok(done);
        }
        for &(offset, tail) in tracked.trail.iter().rev() {
            if offset <= done.offset && copy.has_tail(tail, offset)? {
                return Ok(Checkpoint { offset, tail, ..done });
            }
        }
        Ok(done)
    }

    /// Opens files that a checkpoint speaks of and that the patterns do not reach: renamed while
    /// the agent was away, or left behind by a link that leads elsewhere now.
    pub(super) fn adopt(&mut self, now: Instant) {
        let unix = self.os.wall().as_secs();
        let found = remembered::whereabouts(self, unix);
        self.look.begin_search();
        self.look.notices.begin_search();
        for saved in found.barred {
            let permission = self.patterns.permits(&self.os, &saved.path, &saved.resolved);
            match permission {
                // It may be missing as well: of what is there it is said at a stop that it is left.
                Permission::Awaited if remembered::is_gone_from_its_place(&self.os, &saved) => {
                    continue;
                }
                Permission::Awaited
                    if saved.rest != Some(0)
                        || remembered::has_grown_in_its_place(&self.os, &saved) =>
                {
                    self.look.unopened.add_awaiting(&saved.path);
                }
                _ => {}
            }
            self.look.on_unadopted(&saved);
            // Where the patterns may lead and it is shut all the same, something of our own is.
            let why =
                if permission == Permission::Granted { Permission::LeadsOut } else { permission };
            self.note_left(why, &saved.path, saved.resolved);
        }
        for (path, saved) in found.paths {
            if self.drain.is_abandoned() {
                self.look.unopened.add(&path, LATER);
                continue;
            }
            if let Err(error) = self.adopt_one(&path, &saved, now) {
                self.look.on_unadopted(&saved);
                if self.readers.are_short() {
                    self.packed.on_waits((saved.device, saved.inode));
                }
                self.note_unopened(&path, &error);
                self.remembered.search_again(&path);
                // Of too few descriptors is told once, and not for each file; what is gone is no trouble.
                if !self.readers.are_short() && error.kind() != io::ErrorKind::NotFound {
                    self.trouble(&path, "open", &error);
                }
            }
        }
    }

    fn adopt_one(&mut self, path: &Path, saved: &Checkpoint, now: Instant) -> io::Result<()> {
        let permission = self.patterns.permits(&self.os, &saved.path, path);
        if permission != Permission::Granted {
            self.look.on_unadopted(saved);
            self.note_left(permission, &saved.path, path.to_owned());
            return Ok(());
        }
        self.make_descriptor_room(now)?;
        let mut reader = Reader::open(&self.os, path)?;
        let stat = reader.stat()?;
        if !stat.is_file || self.registry.find(stat.device, stat.inode).is_some() {
            return Ok(());
        }
        let told = reader.whereabouts(&self.os, path)?;
        if self.patterns.place_known(&self.os, path, &told, (stat.device, stat.inode)).is_none() {
            self.note_left(Permission::LeadsOut, &saved.path, told);
            return Ok(());
        }
        if reader.is_gzip()? && !self.unpack(&mut reader, &stat, path)? {
            self.remembered.search_again(path);
            return Ok(());
        }
        let resolved = reader.path().unwrap_or_else(|| path.to_owned());
        let claimed = self.remembered.claim(&self.os, &saved.path, &reader, reader.stat()?)?;
        // Its disk has another number, and its bytes cannot say that it is the same.
        let is_renumbered = saved.inode == stat.inode && judge::is_born_with(saved, stat.born);
        let claimed = match claimed {
            None if is_renumbered => {
                self.remembered.remove(saved).map(|found| (found, Match::Rewritten))
            }
            claimed => claimed,
        };
        let (configured, found) = match claimed {
            // It was renamed while it was waiting to be opened.
            Some((found, Match::Resume)) if remembered::is_unread(&found) => {
                match self.origin_of_unknown(&resolved, &reader) {
                    Ok(Origin::New) => (found.path, None),
                    Ok(Origin::Known(original)) => (original.path.clone(), Some(original)),
                    waits => {
                        self.look.on_unadopted(&found);
                        self.remembered.put_back(found);
                        self.remembered.search_again(path);
                        let waits = waits?;
                        self.wait_for_original(path, &waits);
                        return Ok(());
                    }
                }
            }
            Some((found, Match::Resume | Match::Again)) => (found.path.clone(), Some(found)),
            Some((found, Match::Rewritten | Match::Other))
                if self.is_overwritten_since(&found, path, &reader, &stat) =>
            {
                return Ok(());
            }
            // Another file: it is shipped only if its name and its age say so.
            Some((found, Match::Rewritten | Match::Other))
                if judge::is_used_inode(&found, stat.born) =>
            {
                self.remembered.put_gone(Checkpoint { gone_at: stat.born - 1, ..found });
                return Ok(());
            }
            Some((found, Match::Rewritten | Match::Other))
                if judge::is_same_file(&found, stat.born, path) =>
            {
                let (configured, original) = match self.origin_of_unknown(&resolved, &reader) {
                    Ok(Origin::New) => (found.path.clone(), None),
                    Ok(Origin::Known(original)) => (original.path.clone(), Some(original)),
                    Ok(Origin::Overwritten) => return Ok(()),
                    // Until then only its checkpoint leads here.
                    waits => {
                        self.remembered.put_back(found);
                        self.remembered.search_again(path);
                        let waits = waits?;
                        self.wait_for_original(path, &waits);
                        return Ok(());
                    }
                };
                self.on_rewritten(path, found, &stat);
                (configured, original)
            }
            // Nothing tells it from another file with the same inode.
            Some((found, Match::Rewritten | Match::Other)) => {
                self.remembered.put_back(found);
                return Ok(());
            }
            None => return Ok(()),
        };
        let file = self.begin(configured, resolved, reader, found, State::Rotated, now)?;
        self.examine(file, true, now);
        Ok(())
    }

    /// Notes that a copy waits for its original. As soon as all that was read of an original that
    /// has ended is acknowledged, the copy goes on there.
    fn wait_for_original(&mut self, copy: &Path, origin: &Origin) {
        match origin {
            Origin::CopyOf(Source::Open(file), _) if self.registry.get_ended(*file).is_some() => {
                self.look.unopened.add(copy, "it waits for the file that it is a copy of");
            }
            Origin::Later => {
                self.look.unopened.add(copy, SOUGHT);
                self.look.want_scan();
            }
            Origin::New | Origin::Known(_) | Origin::CopyOf(..) | Origin::Overwritten => {}
        }
    }

    /// Opens what was born and renamed beside known files while nobody looked.
    pub(super) fn adopt_unseen(
        &mut self,
        found: &HashSet<(u64, u64)>,
        is_first: bool,
        now: Instant,
    ) {
        let mut known = self.look.expected.take();
        if is_first {
            self.expect_copies(&mut known);
        }
        self.expect_absent(&mut known, now);
        self.expect_where_others_went(&mut known);
        let (waiting, mut is_learnt) = (self.look.unopened.count(), false);
        let may_enter = |dir: &Path| self.patterns.enter(&self.os, dir).as_deref() == Some(dir);
        let Search { found, closed, absent } = unseen::unseen(&self.os, &known, found, may_enter);
        for (_, one) in found {
            match self.adopt_unseen_one(&one, now) {
                // Where a copy is others may be.
                Ok(is_shipped) => is_learnt |= is_shipped && one.is_copy,
                Err(error) => {
                    self.note_unopened(&one.path, &error);
                    if !self.readers.are_short() && error.kind() != io::ErrorKind::NotFound {
                        self.trouble(&one.path, "open", &error);
                    }
                }
            }
        }
        let is_searched = !is_learnt && self.look.unopened.count() == waiting;
        if is_learnt {
            self.look.expected.on_learnt();
            self.look.want_scan();
        } else if is_searched {
            self.look.expected.note_absent(absent, &known, now);
            known.retain(|place, _| {
                Path::new(place).parent().is_some_and(|dir| closed.contains(dir))
            });
        }
        // At the start it holds all that was known, and after it next to nothing.
        if known.len() < known.capacity() / 8 {
            known.shrink_to_fit();
        }
        if is_searched && self.look.expected.on_searched() {
            self.ledger.note(self.remembered.on_copies_searched());
        }
        // What was opened may be expected to have others beside it.
        self.look.expected.give_back(known);
    }

    /// Expects unknown files in directories where generations of a known file were found.
    fn expect_where_others_went(&self, known: &mut Places) {
        let mut homes: Vec<(&Path, (&OsStr, &Path))> = known
            .iter()
            .filter_map(|(place, one)| {
                let dir = Path::new(place).parent()?;
                Some((one.path.as_path(), (place.as_os_str(), dir)))
            })
            .collect();
        // Of several with one path the same counts in every run.
        homes.sort_unstable();
        let homes: HashMap<_, _> = homes.into_iter().collect();
        let open = self.registry.iter().chain(self.registry.ended());
        let open = open.map(|(_, one)| (&*one.opened.path, &*one.opened.resolved));
        let closed = self.remembered.checkpoints();
        let closed = closed.map(|saved| (saved.path.as_path(), saved.resolved.as_path()));
        let mut others = HashMap::new();
        for (path, real) in open.chain(closed) {
            if let (Some((home, home_dir)), Some(dir), Some(name)) =
                (homes.get(path), real.parent(), path.file_name())
                && dir != *home_dir
                && let Some(one) = known.get(*home)
            {
                others.insert(OsString::from(dir.join(name)), one.clone());
            }
        }
        for (place, one) in others {
            known.entry(place).or_insert(one);
        }
    }

    /// Notes that a known file stands where it stood, with its bytes: no other was made in its
    /// place and renamed since.
    fn note_in_place(&mut self, path: &Path, resolved: &Path) {
        let Some(name) = path.file_name() else { return };
        self.look.expected.on_in_place(resolved.with_file_name(name).as_os_str());
    }

    /// Expects files where a name stood for nothing at the last look: one may have been born there
    /// and renamed since.
    fn expect_absent(&mut self, known: &mut Places, now: Instant) {
        let seen = self.looked_at();
        let os = &self.os;
        let has_changed = |place: &OsString| unseen::has_changed_since(os, Path::new(place), seen);
        for (place, path) in self.look.expected.absent(now).filter(|(place, _)| has_changed(place))
        {
            let one = Known { path: path.to_owned(), seen, born: None, copied: None };
            known.entry(place.clone()).or_insert(one);
        }
    }

    /// Expects copies of files that were not delivered and were not met at the start. Each may have
    /// been compressed before the agent ended, which held it open until then.
    fn expect_copies(&self, known: &mut Places) {
        let mut born: HashMap<OsString, i64> = HashMap::new();
        for saved in self.remembered.unmet() {
            let Some(name) = saved.path.file_name() else { continue };
            let place = saved.resolved.with_file_name(name).into();
            let first = born.entry(place).or_insert(saved.born);
            *first = saved.born.min(*first);
        }
        for (place, one) in known {
            one.born = born.get(place).copied();
        }
    }

    /// Opens a file beside a known one, unless it is nothing to ship. Returns whether it is
    /// shipped.
    fn adopt_unseen_one(&mut self, unseen: &Unseen<'_>, now: Instant) -> io::Result<bool> {
        let Unseen { path, known, is_copy } = unseen;
        let configured = known.path.with_file_name(path.file_name().unwrap_or_default());
        // What has the name itself may have been taken out of the patterns.
        let is_out = configured == known.path
            && configured.file_name().is_some_and(|name| !self.patterns.may_find(name));
        if is_out || self.patterns.permits(&self.os, &known.path, path) != Permission::Granted {
            return Ok(false);
        }
        self.make_descriptor_room(now)?;
        let mut reader = Reader::open(&self.os, path)?;
        let stat = reader.stat()?;
        // A link may have taken its name since: what that leads to is not what was seen.
        let told = reader.whereabouts(&self.os, path)?;
        let inode = (stat.device, stat.inode);
        let is_it = || {
            told == *path
                || self.patterns.place(&self.os, path, &told, inode).as_ref() == Some(path)
        };
        if !is_it() || self.patterns.place_known(&self.os, path, &told, inode).is_none() {
            return Ok(false);
        }
        if self.registry.has_ended(&stat) {
            self.look.unopened.add(path, "what was read of it before is not acknowledged yet");
            return Ok(false);
        }
        let remembered = self.remembered.get(stat.device, stat.inode);
        let is_known = self.registry.find(stat.device, stat.inode).is_some()
            || remembered.is_some_and(|saved| !judge::is_used_inode(saved, stat.born));
        if !stat.is_file || is_known || self.look.expected.is_stranger(inode) {
            return Ok(false);
        }
        let is_begun = self.is_about_to_be_packed(&stat, path);
        if is_begun || (reader.is_gzip()? && !self.unpack(&mut reader, &stat, path)?) {
            return Ok(false);
        }
        let saved = match self.origin(path, path, &reader)? {
            Origin::New if *is_copy => {
                self.look.expected.on_stranger(inode);
                return Ok(false);
            }
            Origin::New => None,
            Origin::Known(saved) => Some(saved),
            Origin::Overwritten => return Ok(false),
            waits => {
                self.wait_for_original(path, &waits);
                return Ok(false);
            }
        };
        let configured = known.path.clone();
        let file = self.begin(configured, path.clone(), reader, saved, State::Rotated, now)?;
        self.examine(file, true, now);
        Ok(true)
    }

    /// Begins to ship a file, from where `saved` says or from its first byte. The caller examines
    /// the file then. If the file cannot be read, its checkpoint is put back.
    pub(super) fn begin(
        &mut self,
        path: PathBuf,
        resolved: PathBuf,
        reader: Reader<O::File>,
        saved: Option<Checkpoint>,
        state: State,
        now: Instant,
    ) -> io::Result<FileKey> {
        let settled_end = saved.as_ref().map_or(0, |saved| saved.offset);
        let outcome = reader.head(settled_end).and_then(|head| Ok((head, reader.stat()?)));
        let (head, stat) = match (outcome, &saved) {
            (Ok(read), _) => read,
            (Err(error), saved) => {
                saved.iter().cloned().for_each(|saved| self.remembered.put_back(saved));
                return Err(error);
            }
        };
        let (offset, tail, ranges) =
            saved.map(|saved| (saved.offset, saved.tail, saved.ranges)).unwrap_or_default();
        let Stat { device, inode, born, .. } = stat;
        let path: Arc<Path> = path.into();
        let resolved = shared(&path, &resolved);
        let opened = Opened { path, resolved, device, inode, born, head, offset, tail };
        if self.said.admits(Kind::Shipping) {
            tracing::info!(
                file = %opened.path.display(), resolved = %opened.resolved.display(),
                offset = opened.offset, bytes = stat.size, state = state.name(), "shipping a file"
            );
        }
        let unix = self.os.wall().as_secs();
        self.remembered.on_opened(opened.device, opened.inode);
        let file = self.registry.open(opened, now, unix);
        self.ledger.once.adopt(file, offset, ranges);
        self.make_room_to_read_again(file);
        if let Some(tracked) = self.registry.get_mut(file) {
            (tracked.state, tracked.was_found) = (state, state == State::Active);
            tracked.unpacked_unix = reader.is_unpacked().then_some(unix);
            self.aside.on_opened(file, tracked);
        }
        self.counters.seen_bytes += self.registry.on_verified(file, stat.size);
        self.counters.files_opened += 1;
        self.begin_stream(file);
        if reader.is_unpacked() {
            self.packed.on_opened(file);
        }
        self.readers.insert(file, reader);
        self.ledger.note(true);
        Ok(file)
    }

    pub(super) fn begin_stream(&mut self, file: FileKey) {
        let Some(tracked) = self.registry.get(file) else { return };
        self.streams.begin(&mut self.batcher, file, &tracked.opened.path);
    }
}

impl<O: Os, K: Keep> Seeker for Collector<O, K> {
    type Os = O;

    fn os(&self) -> O {
        self.os.clone()
    }

    fn remembered(&mut self) -> &mut Remembered {
        &mut self.remembered
    }

    fn enter(&self, dir: &Path) -> Option<PathBuf> {
        self.patterns.enter(&self.os, dir)
    }

    fn pulse(&mut self) {
        self.breathe();
    }
}

/// A path in memory, shared with `one` if both are equal.
fn shared(one: &Arc<Path>, path: &Path) -> Arc<Path> {
    if one.as_os_str() == path.as_os_str() { Arc::clone(one) } else { path.into() }
}

/// Device and inode of what is at a real path, and its size and time of change.
fn look_at(os: &impl Os, place: &Path) -> Option<((u64, u64), FoundAs)> {
    let found = os.lstat(place).ok()?;
    Some((found.id(), (found.size, found.modified)))
}

/// Whether the original was truncated or rewritten since it was last looked at, and `copy` holds
/// the bytes that stood in it, all of them that were read or those up to an earlier end.
fn is_copy_of_lost<F: OsFile>(
    copy: &Reader<F>,
    original: &Reader<F>,
    tracked: &Tracked,
    is_proof: impl Fn(Fingerprint) -> bool,
) -> io::Result<bool> {
    let (head, last) = (tracked.opened.head, (tracked.read_offset, tracked.tail));
    let has_bytes = |one: &Reader<F>, (offset, tail): (u64, Fingerprint)| -> io::Result<bool> {
        Ok(one.stat()?.size >= offset && one.has_head(head)? && one.has_tail(tail, offset)?)
    };
    if has_bytes(original, last)? {
        return Ok(false);
    }
    for place in tracked.trail.iter().rev().copied().chain([last]) {
        if is_proof(place.1) && has_bytes(copy, place)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether `copy` holds the bytes of a file that was closed; of a copy that is not complete yet, the
/// first of them.
fn is_copy_of_ended(copy: &Reader<impl OsFile>, ended: &Tracked) -> io::Result<bool> {
    let (head, tail, offset) = (ended.opened.head, ended.tail, ended.read_offset);
    // The text of a compressed file is read forward only: it has nothing but its head to be known by.
    let is_unknown = head.len == 0 && copy.is_unpacked();
    if is_unknown || !copy.has_head(head)? {
        return Ok(false);
    }
    Ok(copy.is_unpacked() || copy.stat()?.size < offset || copy.has_tail(tail, offset)?)
}

/// The checkpoint of a copy of which everything is delivered as it stands.
fn done<O: Os>(
    os: &O,
    reader: &Reader<O::File>,
    path: &Path,
    resolved: &Path,
) -> io::Result<Checkpoint> {
    let stat = reader.stat()?;
    Ok(Checkpoint {
        path: path.to_owned(),
        resolved: resolved.to_owned(),
        device: stat.device,
        inode: stat.inode,
        born: stat.born,
        offset: stat.size,
        head: reader.head(stat.size)?,
        tail: reader.tail(stat.size)?,
        seen_unix: os.wall().as_secs(),
        is_done: true,
        rest: Some(0),
        is_copy: true,
        ..Checkpoint::default()
    })
}
