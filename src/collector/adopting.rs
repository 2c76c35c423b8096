//! Adopting: files that no pattern finds, and that belong to a known one.
//!
//! They were renamed while the agent was away, left behind by a link that leads elsewhere now, or born
//! and renamed while nobody looked. Each is judged as one that a pattern finds.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::Collector;
use super::copies::{CopyOf, IN_DOUBT, Origin, Resume, SOUGHT};
use super::expected;
use super::left::LATER;
use super::packed::is_young;
use super::stamp::{nanoseconds, stamp, wall_nanoseconds};
use crate::base::span::FileKey;
use crate::checkpoint::format::Checkpoint;
use crate::checkpoint::keep::Keep;
use crate::tail::catalog::Catalog;
use crate::tail::catalog::entry::{is_own_by, is_unread, unread};
use crate::tail::catalog::judge::{self, Match, Stat};
use crate::tail::copies::{Known as Itself, Standing};
use crate::tail::discover::Permission;
use crate::tail::found::Found;
use crate::tail::missed::{self, Known, Missed, Places, Search};
use crate::tail::os::Os;
use crate::tail::reader::Reader;
use crate::tail::scout::{self, Claim, Scout, Seeker};
use crate::tail::tracked::State;

/// How long an archive of a file that nobody touches is not measured again.
const DOUBT_PAUSE: Duration = Duration::from_secs(1);

impl<O: Os, K: Keep> Collector<O, K> {
    /// Expects files that were born beside those of the loaded checkpoints while no agent looked.
    pub(super) fn expect_missed(&mut self) {
        if let [first, ..] = self.catalog.foreign() {
            tracing::warn!(
                files = self.catalog.foreign().len(), first = %first.path.display(),
                collection = first.owner.as_deref(),
                "known files belong to collections that are not configured; they are left alone, and \
                 remembered for 30 days"
            );
        }
        let mut known = Places::with_capacity(self.catalog.checkpoints().count());
        let now = wall_nanoseconds(&self.os);
        for saved in self.catalog.checkpoints() {
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
    pub(super) fn expect_missed_beside(&mut self, file: FileKey) {
        let seen = self.looked_at();
        // What was known before is still looked for from then on.
        self.expect_beside(file, |known| known.seen = known.seen.min(seen));
    }

    /// Expects a copy beside a file that was truncated. The copy was made just before, and may hold
    /// what was not read of the file, whether the patterns find it or not. If bytes were seen that
    /// are lost now, the agent looks for the copy at once, however old it is. If not, others may
    /// have come since the last reading, before which the file had changed last at `sure_changed`; a copy
    /// that holds them was written to since then, and is looked for with the next discovery.
    pub(super) fn expect_copy_beside(&mut self, file: FileKey, is_lost: bool, sure_changed: i64) {
        let seen = self.looked_at();
        let since = seen.min(sure_changed);
        // A drain takes no look that nothing asks for.
        self.look.want_scan_if(is_lost || !self.drain.is_running());
        self.expect_beside(file, |known| {
            // Between two truncations there may have been a text that stands in a copy only.
            known.seen = known.seen.min(seen);
            if is_lost {
                known.born = Some(i64::MIN);
            } else {
                known.copied = Some(known.copied.map_or(since, |before| before.min(since)));
            }
        });
    }

    /// Expects a copy of a file that is found nowhere any more, however old the copy is: the file may have
    /// been compressed, and a copy that waited as well.
    fn expect_archive(&mut self, lost: &Checkpoint) {
        let Some(name) = lost.path.file_name() else { return };
        let place = lost.resolved.with_file_name(name).into();
        let known = self.look.expected.entry(place, &lost.path, i64::MAX);
        known.born = Some(known.born.map_or(lost.born, |before| before.min(lost.born)));
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
        let Some(name) = tracked.sighting.path.file_name() else { return };
        let place = tracked.opened.resolved.with_file_name(name);
        let path = &tracked.opened.path;
        expect(self.look.expected.entry(place.into(), path, i64::MAX));
    }

    /// Opens files that a checkpoint speaks of and that the patterns do not reach: renamed while
    /// the agent was away, or left behind by a link that leads elsewhere now.
    pub(super) fn adopt(&mut self, now: Instant) {
        let unix = self.os.wall().as_secs();
        let found = scout::whereabouts(self, unix);
        self.look.notices.begin_search();
        for saved in found.barred {
            let permission = self.patterns.permits(&self.os, &saved.path, &saved.resolved);
            match permission {
                // It may be missing as well: of what is there it is said at a stop that it is left.
                Permission::Awaited if scout::is_gone_from_its_place(&self.os, &saved) => {
                    self.catalog.on_awaited(&saved);
                    continue;
                }
                Permission::Awaited
                    if saved.rest != Some(0) || scout::has_grown_in_its_place(&self.os, &saved) =>
                {
                    self.look.unopened.add_awaiting(&saved.path);
                }
                _ => {}
            }
            // Where the patterns may lead and it is shut all the same, something of our own is.
            let why =
                if permission == Permission::Granted { Permission::LeadsOut } else { permission };
            self.note_left(why, &saved.path, saved.resolved);
        }
        for saved in &found.lost {
            self.expect_archive(saved);
        }
        for (path, saved) in found.paths {
            if self.drain.is_abandoned() {
                self.look.unopened.add(&path, LATER);
                continue;
            }
            if let Err(error) = self.adopt_one(&path, &saved, now) {
                self.catalog.on_unopened(&saved);
                if self.readers.are_short() {
                    self.packed.on_waits((saved.device, saved.inode));
                }
                self.note_unopened(&path, &error);
                self.scout.search_again(&path);
                // Of too few descriptors is told once, and not for each file; what is gone is no trouble.
                if !self.readers.are_short() && error.kind() != io::ErrorKind::NotFound {
                    self.trouble(&path, "open", &error);
                }
            }
        }
    }

    /// Notes that what was found in the place of a known file is another one.
    fn note_unfound(&mut self, saved: &Checkpoint) {
        if let Some(number) = self.catalog.number_of(saved) {
            self.catalog.on_unfound(number);
        }
    }

    fn adopt_one(&mut self, path: &Path, saved: &Checkpoint, now: Instant) -> io::Result<()> {
        let permission = self.patterns.permits(&self.os, &saved.path, path);
        if permission != Permission::Granted {
            self.note_left(permission, &saved.path, path.to_owned());
            return Ok(());
        }
        self.make_descriptor_room(now)?;
        let mut reader = Reader::open(&self.os, path)?;
        let stat = reader.stat()?;
        if !stat.is_file || self.registry.find(stat.device, stat.inode).is_some() {
            self.note_unfound(saved);
            return Ok(());
        }
        let told = reader.whereabouts(&self.os, path)?;
        if self.patterns.place_known(&self.os, path, &told, (stat.device, stat.inode)).is_none() {
            self.note_left(Permission::LeadsOut, &saved.path, told);
            return Ok(());
        }
        if reader.is_gzip()? && !self.unpack(&mut reader, &stat, path)? {
            self.catalog.on_unopened(saved);
            self.scout.search_again(path);
            return Ok(());
        }
        let resolved = reader.path().unwrap_or_else(|| path.to_owned());
        let doubted = self.catalog.doubted((saved.device, saved.inode));
        let (text, number) = (reader.stat()?, self.catalog.number_of(saved));
        let claimed = scout::claim(&mut self.catalog, &self.os, &saved.path, &reader, text)?;
        if let Some(claim) = claimed.as_ref().filter(|claim| Some(claim.number) != number) {
            // The file that has the inode is known as another one, or better than by this.
            match number {
                Some(number) if is_unread(saved) && judge::is_born_with(saved, stat.born) => {
                    self.catalog.take(number);
                }
                _ => self.note_unfound(saved),
            }
            let Claim { saved, found, .. } = claim;
            if *found == Match::Resume && saved.is_done && saved.offset == text.size {
                return Ok(());
            }
        }
        // Its disk has another number, and its bytes cannot say that it is the same.
        let is_renumbered = saved.inode == stat.inode && judge::is_born_with(saved, stat.born);
        let claimed = match (claimed, number) {
            (None, Some(number)) if is_renumbered => {
                Some(Claim { number, saved: saved.clone(), found: Match::Rewritten })
            }
            (claimed, _) => claimed,
        };
        let Some(Claim { number, saved: found, found: meaning }) = claimed else {
            self.note_unfound(saved);
            return Ok(());
        };
        let itself = Itself { entry: Some(number), is_own: false };
        let mut rewritten = None;
        let (configured, from) = match meaning {
            // Nothing tells it from another file with the same inode.
            Match::Resume if is_unread(&found) && !judge::is_same_file(&found, stat.born, path) => {
                self.catalog.on_unfound(number);
                return Ok(());
            }
            // It was renamed while it was waiting to be opened.
            Match::Resume if is_unread(&found) => {
                match self.origin_of_unknown(&resolved, &reader, itself) {
                    Ok(Origin::New) => (found.path.clone(), Some(Resume::of(found, number))),
                    Ok(Origin::Known(Resume { saved, .. })) => {
                        (saved.path.clone(), Some(Resume::of(saved, number)))
                    }
                    // It is one of its own by now.
                    Ok(Origin::CopyOf(CopyOf { standing: Standing::Untouched, .. }))
                        if is_own_by(doubted, now) =>
                    {
                        (found.path.clone(), Some(Resume::of(found, number)))
                    }
                    Ok(Origin::Overwritten) => {
                        self.catalog.on_overwritten(number);
                        return Ok(());
                    }
                    waits => {
                        self.catalog.on_unopened(&found);
                        self.scout.search_again(path);
                        let waits = waits?;
                        if let Origin::CopyOf(suspect) = &waits {
                            if suspect.standing == Standing::Untouched {
                                self.catalog.on_doubted(number, doubted.unwrap_or(now));
                            }
                            self.note_held((&found.path, &resolved), &reader, suspect)?;
                        }
                        self.wait_for_original(path, &waits);
                        return Ok(());
                    }
                }
            }
            Match::Resume | Match::Again => (found.path.clone(), Some(Resume::of(found, number))),
            Match::Rewritten | Match::Other
                if self.is_overwritten_since(number, &found, path, &reader, &stat) =>
            {
                return Ok(());
            }
            // Another file: it is shipped only if its name and its age say so.
            Match::Rewritten | Match::Other if judge::is_used_inode(&found, stat.born) => {
                let gone_at = stat.born - 1;
                self.catalog.on_removed(number, |saved| Checkpoint { gone_at, ..saved });
                return Ok(());
            }
            Match::Rewritten | Match::Other if judge::is_same_file(&found, stat.born, path) => {
                let origin = self.origin_of_unknown(&resolved, &reader, itself);
                let (configured, original) = match origin {
                    Ok(Origin::New) => (found.path.clone(), None),
                    Ok(Origin::Known(original)) => (original.saved.path.clone(), Some(original)),
                    Ok(Origin::Overwritten) => {
                        self.on_rewritten(path, number, &found, &stat);
                        return Ok(());
                    }
                    Ok(waits) => {
                        // Until then only this leads here. Of the old text a copy can be met.
                        let waiting = self.waiting(&found.path, &resolved, &stat);
                        self.on_rewritten(path, number, &found, &stat);
                        self.wait_to_be_opened(waiting, false);
                        self.wait_for_original(path, &waits);
                        return Ok(());
                    }
                    Err(error) => {
                        self.catalog.on_unopened(&found);
                        self.scout.search_again(path);
                        return Err(error);
                    }
                };
                rewritten = Some(found);
                (configured, original)
            }
            // Nothing tells it from another file with the same inode.
            Match::Rewritten | Match::Other => {
                self.catalog.on_unfound(number);
                return Ok(());
            }
        };
        let file = self.begin(configured, resolved, reader, from, State::Rotated, now)?;
        if let Some(found) = rewritten {
            self.on_rewritten(path, number, &found, &stat);
        }
        self.examine(file, true, now);
        Ok(())
    }

    /// The checkpoint of a file that waits to be opened, and that no pattern finds.
    fn waiting(&self, path: &Path, resolved: &Path, stat: &Stat) -> Checkpoint {
        let unix = self.os.wall().as_secs();
        unread((path, resolved), (stat.device, stat.inode), stat.born, unix)
    }

    /// Notes that a copy waits for its original. As soon as all that was read of an original that
    /// has ended is acknowledged, the copy goes on there.
    pub(super) fn wait_for_original(&mut self, copy: &Path, origin: &Origin) {
        match origin {
            Origin::CopyOf(CopyOf { standing: Standing::Gone, .. }) => {
                self.look.unopened.add(copy, "it waits for the file that it is a copy of");
                self.look.unopened.note_unacknowledged();
            }
            Origin::Later => {
                self.look.unopened.add(copy, SOUGHT);
                self.look.want_scan_after_search();
            }
            Origin::CopyOf(CopyOf { standing: Standing::Untouched, .. }) => {
                self.look.unopened.add(copy, IN_DOUBT);
            }
            Origin::New | Origin::Known(_) | Origin::CopyOf(_) | Origin::Overwritten => {}
        }
    }

    /// Opens what was born and renamed beside known files while nobody looked.
    pub(super) fn adopt_missed(
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
        let Search { found, closed, absent, is_cut } =
            missed::missed(&self.os, &known, found, may_enter);
        for (_, one) in found {
            self.breathe();
            if self.drain.is_abandoned() {
                // After the next start it is not younger than the last look any more.
                self.look.unopened.add(&one.path, LATER);
                self.note_missed(&one);
                continue;
            }
            match self.adopt_missed_one(&one, now) {
                // Where a copy is others may be.
                Ok(is_shipped) => is_learnt |= is_shipped && one.is_copy,
                Err(error) => {
                    self.note_missed(&one);
                    self.note_unopened(&one.path, &error);
                    if !self.readers.are_short() && error.kind() != io::ErrorKind::NotFound {
                        self.trouble(&one.path, "open", &error);
                    }
                }
            }
        }
        let is_searched = !is_learnt && !is_cut && self.look.unopened.count() == waiting;
        self.look.want_scan_if(is_cut);
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
            self.ledger.note(self.catalog.on_copies_searched());
        }
        // What was opened may be expected to have others beside it.
        self.look.expected.give_back(known);
    }

    /// Expects unknown files in directories where generations of a known file were found.
    fn expect_where_others_went(&self, known: &mut Places) {
        let open = self.registry.iter().chain(self.registry.ended());
        let open = open.map(|(_, one)| (&*one.opened.path, &*one.opened.resolved));
        let closed = self.catalog.checkpoints();
        let closed = closed.map(|saved| (saved.path.as_path(), saved.resolved.as_path()));
        expected::spread(known, open.chain(closed));
    }

    /// Expects files where a name stood for nothing at the last look: one may have been born there
    /// and renamed since.
    fn expect_absent(&mut self, known: &mut Places, now: Instant) {
        let seen = self.looked_at();
        let os = &self.os;
        let has_changed = |place: &OsString| missed::has_changed_since(os, Path::new(place), seen);
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
        for saved in self.catalog.unmet() {
            let Some(name) = saved.path.file_name() else { continue };
            let place = saved.resolved.with_file_name(name).into();
            let first = born.entry(place).or_insert(saved.born);
            *first = saved.born.min(*first);
        }
        for (place, one) in known {
            one.born = born.get(place).copied();
        }
    }

    /// Remembers a file that nobody has seen and that is not open yet.
    fn note_missed(&mut self, missed: &Missed<'_>) {
        let Missed { path, known, is_copy } = missed;
        let Ok(facts) = self.os.lstat(path) else { return };
        let (device, inode) = facts.id();
        let is_known = self.registry.find(device, inode).is_some()
            || self.catalog.get(device, inode).is_some()
            || self.is_waiting_room_full();
        if *is_copy || is_known || !facts.is_regular() {
            return;
        }
        let stat = Stat { device, inode, born: facts.born, ..Stat::default() };
        let waiting = Checkpoint { rest: None, ..self.waiting(&known.path, path, &stat) };
        self.wait_to_be_opened(waiting, false);
    }

    /// Opens a file beside a known one, unless it is nothing to ship. Returns whether it is
    /// shipped.
    fn adopt_missed_one(&mut self, missed: &Missed<'_>, now: Instant) -> io::Result<bool> {
        let Missed { path, known, is_copy } = missed;
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
            self.look.unopened.add_unacknowledged(path);
            return Ok(false);
        }
        if !stat.is_file
            || self.registry.find(stat.device, stat.inode).is_some()
            || self.look.expected.is_stranger(inode)
        {
            return Ok(false);
        }
        let saved = self.catalog.get(stat.device, stat.inode);
        let saved = saved.filter(|saved| !judge::is_used_inode(saved, stat.born));
        // What is delivered and closed may have been written over: a copy over the one before.
        let is_delivered = saved.is_some_and(|saved| saved.is_done);
        let is_copy = *is_copy || is_delivered;
        let known_by_bytes = match saved {
            Some(saved) if !is_delivered && judge::is_born_with(saved, stat.born) => {
                return Ok(false);
            }
            // Births are not known here. Of what waits there are no bytes to be compared.
            Some(saved) if is_unread(saved) => {
                if judge::is_same_file(saved, stat.born, path) {
                    return Ok(false);
                }
                None
            }
            Some(_) if self.was_delivered(&stat) => return Ok(false),
            saved => saved.map(|saved| (saved.head, saved.tail, saved.offset)),
        };
        let is_begun = self.is_about_to_be_packed(&stat, path);
        if is_begun || (reader.is_gzip()? && !self.unpack(&mut reader, &stat, path)?) {
            if !self.packed.is_oversized(inode, stat.changed) {
                self.note_missed(missed);
            }
            return Ok(false);
        }
        if let Some((head, tail, offset)) = known_by_bytes
            && (!is_delivered || offset == reader.stat()?.size)
            && reader.has_head(head)?
            && reader.has_tail(tail, offset)?
        {
            return Ok(false);
        }
        if is_copy && stat.size == 0 && self.drain.is_running() && is_young(&self.os, &stat) {
            self.look.unopened.add(path, "it is empty, and may be about to become a copy");
            return Ok(false);
        }
        let saved = match self.origin(path, path, &reader)? {
            Origin::New if is_copy => {
                self.look.expected.on_stranger(inode);
                return Ok(false);
            }
            Origin::New => None,
            Origin::Known(resume) => Some(resume),
            Origin::Overwritten => return Ok(false),
            waits => {
                // After the next look it is not younger than the last one any more.
                self.note_missed(missed);
                if let Origin::CopyOf(suspect) = &waits {
                    self.note_held((&known.path, path), &reader, suspect)?;
                }
                self.wait_for_original(path, &waits);
                // What is measured asks for the next discovery, and this would be measured again then.
                let is_doubted =
                    matches!(waits, Origin::CopyOf(CopyOf { standing: Standing::Untouched, .. }));
                if is_doubted && reader.is_unpacked() {
                    self.packed.fail(inode, self.os.now() + DOUBT_PAUSE, None);
                }
                return Ok(false);
            }
        };
        let configured = known.path.clone();
        let file = self.begin(configured, path.clone(), reader, saved, State::Rotated, now)?;
        self.examine(file, true, now);
        Ok(true)
    }
}

impl<O: Os, K: Keep> Seeker for Collector<O, K> {
    type Os = O;

    fn os(&self) -> O {
        self.os.clone()
    }

    fn known(&mut self) -> (&mut Catalog, &mut Scout) {
        (&mut self.catalog, &mut self.scout)
    }

    fn enter(&self, dir: &Path) -> Option<PathBuf> {
        self.patterns.enter(&self.os, dir)
    }

    fn pulse(&mut self) {
        self.breathe();
    }
}
