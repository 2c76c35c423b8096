//! The collector's dealings with files: look, discover, examine, close.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{fs, io};

use super::left::{self, Unopened};
use super::{
    Collector, DURABLE_PERIOD, SCAN_PERIOD, SCAN_PERIOD_POLLING, SCAN_PERIOD_SHORT, opening,
};
use crate::checkpoint::format::Checkpoint;
use crate::clock;
use crate::span::FileKey;
use crate::tail::discover::{Found, Permission, Refused};
use crate::tail::generation;
use crate::tail::reader::Reader;
use crate::tail::registry::{Change, State, Tracked};

/// Times that discovery is repeated at once because a directory was watched for the first time.
/// What is missed beyond that is found in the next period.
const SCANS_AT_ONCE_MAX: usize = 4;
/// A file that grew so often in a row without a notification is on a file system without them.
const UNANNOUNCED_MAX: u8 = 3;
/// So long files are looked at each second for which nothing comes of it.
const FRUITLESS_MAX: Duration = Duration::from_secs(10);

/// Of very many files a discovery that nothing asks for is at most so far from the one before.
const SCAN_PERIOD_MAX: Duration = Duration::from_secs(60);
/// The pause before it is so many times as long as it took of the CPU: a five-hundredth.
const SCAN_PAUSE_FACTOR: u32 = 499;
/// The same while files wait for descriptors, perhaps for as long as the endpoint is down: a twentieth.
const SCARCE_PAUSE_FACTOR: u32 = 19;
/// The same before one that a change of names asks for: a tenth.
const NAMES_PAUSE_FACTOR: u32 = 9;
/// With so many files a name may be made and deleted every moment, and they still be examined.
const NAMES_PAUSE_MAX: Duration = SCAN_PERIOD;
/// Names that came and that are examined one by one, rather than with a discovery.
const CAME_MAX: usize = 64;
/// Why a file is not open where descriptors are few.
const SHORT: &str = "it waits for a descriptor";
/// Files of which one discovery logs each by itself.
const SAID_MAX: u64 = 100;
/// A directory that has not changed for so long has a time stamp that says so, whoever's clock made
/// it.
const STAMP_MARGIN: Duration = Duration::from_secs(2);

/// How many files this discovery has opened, and how many it found no more.
#[derive(Default)]
pub(super) struct Crowd {
    opened: u64,
    gone: u64,
}

impl Crowd {
    /// Logs none by itself.
    pub(super) const SILENT: Self = Self { opened: SAID_MAX, gone: SAID_MAX };

    /// One more was opened. Says whether it is logged by itself.
    pub(super) fn on_opened(&mut self) -> bool {
        self.opened += 1;
        self.opened <= SAID_MAX
    }

    fn on_gone(&mut self) -> bool {
        self.gone += 1;
        self.gone <= SAID_MAX
    }

    /// Says how many more there were than were logged.
    fn sum_up(&mut self) {
        let Self { opened, gone } = std::mem::take(self);
        if let more @ 1.. = opened.saturating_sub(SAID_MAX) {
            tracing::info!(files = more, "shipping more files");
        }
        if let more @ 1.. = gone.saturating_sub(SAID_MAX) {
            tracing::info!(files = more, "more files were renamed or deleted; reading them too");
        }
    }
}

/// Files of which no notification may tell, to notice that something came of looking at them.
#[derive(Default, PartialEq, Eq)]
pub(super) struct Unwatched {
    unopened: usize,
    files_opened: u64,
    files: usize,
    /// Their sizes and how far they are read, all together.
    bytes: u128,
}

impl Collector {
    /// Takes the events; discovers and examines as they and the clock ask for.
    pub(super) fn look(&mut self, now: Instant) {
        let hints = self.watch.take();
        if hints.overflowed {
            self.counters.watch_overflows += 1;
            tracing::warn!("the kernel dropped notifications; looking at everything");
        }
        self.is_scan_wanted |= hints.overflowed;
        self.are_names_changed |= hints.names_changed || self.came(&hints.came);
        let is_periodic = self.scan_at <= now;
        for &file in &hints.written {
            self.examine(file, true, now);
        }
        // A file that is aside may have been written to.
        self.are_names_changed |= hints.unknown_written && !self.aside.is_empty();
        let is_for_names = self.are_names_changed && self.names_from <= now;
        if self.is_scan_wanted || self.are_names_changed {
            self.wanted_from.get_or_insert(self.news_from);
        }
        let is_due = self.is_scan_wanted || is_periodic || is_for_names;
        if is_due && self.scan_from <= now {
            self.discover(now);
        } else if hints.unknown_written {
            self.examine_where(now, |state| state != State::Active);
        }
        let is_news = hints != crate::tail::watch::Hints::default();
        if is_news {
            self.turn_at = now + self.tail.read_linger;
            self.touch(now);
        }
        self.wake(now);
    }

    /// Whether one of these paths, which came, may lead to a file to ship.
    fn came(&mut self, paths: &[PathBuf]) -> bool {
        if paths.len() > CAME_MAX || self.waits_for_names() {
            return !paths.is_empty();
        }
        let idle: Vec<&PathBuf> = paths.iter().filter(|path| !self.matters(path)).collect();
        idle.iter().for_each(|path| self.watch.ignore(path));
        idle.len() < paths.len()
    }

    /// Whether a file is looked for that may come back under any name.
    fn waits_for_names(&self) -> bool {
        self.unopened.count() > 0
            || self.aside.has_copies()
            || self.remembered.unmet().next().is_some()
    }

    /// Whether something of this name may be shipped, lead to what is, or be another name of it. A
    /// generation may be a copy of one.
    fn matters(&self, path: &Path) -> bool {
        let name = path.file_name().unwrap_or_default();
        let bases = generation::bases(name.as_bytes());
        let mut names = bases.iter().map(|base| OsStr::from_bytes(base)).chain([name]);
        if names.any(|name| self.patterns.may_find(name)) {
            return true;
        }
        match fs::symlink_metadata(path) {
            Ok(found) if found.is_file() => {
                let (device, inode) = (found.dev(), found.ino());
                self.registry.find(device, inode).is_some()
                    || self.remembered.get(device, inode).is_some()
            }
            Ok(_) => true,
            // What has gone again has left nothing.
            Err(error) => error.kind() != io::ErrorKind::NotFound,
        }
    }

    /// Finds the files, opens the new ones, watches the directories, examines all.
    pub(super) fn discover(&mut self, now: Instant) {
        (self.is_scan_wanted, self.are_names_changed) = (false, false);
        let mut news_from = self.wanted_from.unwrap_or(self.news_from);
        if self.watch.trouble().is_some() {
            // Nothing told of what is found now.
            news_from = news_from.min(self.discovered);
        }
        self.schedule.looked(news_from);
        self.discovered = now;
        self.packed.on_discovery(now);
        // What has trouble now: what is not among it any more is news when it comes back.
        let mut troubled = HashSet::new();
        let mut found = HashSet::new();
        let looked_at = opening::stamp();
        let since = looked_at.saturating_sub(opening::nanoseconds(STAMP_MARGIN));
        let (used, opened) = (clock::thread_cpu(), self.counters.files_opened);
        for _ in 0..SCANS_AT_ONCE_MAX {
            let scan = self.patterns.scan();
            self.unopened = Unopened::default();
            self.is_short = false;
            troubled.clear();
            self.note_refused(&scan.refused);
            self.note_odd(&scan.odd);
            for (path, error) in &scan.errors {
                if self.may_hold_logs(path) {
                    self.unopened.add_failed(path, error);
                }
                self.trouble(path, "look at", error);
                troubled.insert(path.clone());
            }
            self.reopen_stale(&scan.files);
            found = self.open_all(&scan.files, &mut troubled, now);
            for file in self.registry.on_scan(&found) {
                self.on_gone(file);
            }
            self.aliases = scan.aliases;
            let is_new = self.watch.watch(&scan.dirs, since);
            self.watch.set_ways(&scan.ways);
            if !is_new {
                break;
            }
        }
        let is_first = !std::mem::replace(&mut self.is_ready, true);
        if is_first {
            if let files @ 1.. = self.aside.asleep() {
                tracing::info!(files, "more files are as they were delivered; opening them now");
            }
            // Whoever waits for that need not wait for what is only searched for, or for the save.
            self.publish_at = Some(now);
            self.publish(now, false);
        }
        self.search_for_vanished(&found);
        troubled.extend(self.adopt(now));
        troubled.extend(self.adopt_unseen(&found, is_first, now));
        self.packed.on_discovered();
        self.note_missing(false, now);
        self.troubled.retain(|path| troubled.contains(path));
        self.refresh_names();
        self.close_idle(now);
        self.examine_where(now, |_| true);
        // Now all that was found has been looked at since then.
        self.looked_at = looked_at;
        self.keep_within_budget();
        self.note_polling();
        // Files that wait for descriptors wait since then.
        self.wanted_from = self.is_short.then_some(news_from);
        let are_quiet = self.are_quiet(now);
        // Of many files a discovery takes long, and hardly ever finds what no notification told.
        let (ended, used) = (clock::now(), clock::thread_cpu().saturating_sub(used));
        // Even if it was wanted again at once it would take half the time, and half of the CPU limit.
        let fair = used.div_f64(self.limit.cpu_cores) * 2;
        // (Who was frozen meanwhile has not worked that long.)
        self.scan_from = ended + (ended - now).clamp(fair.min(SCAN_PERIOD), SCAN_PERIOD_MAX);
        self.names_from = ended + (used * NAMES_PAUSE_FACTOR).min(NAMES_PAUSE_MAX);
        // To open files is no part of looking for them.
        let is_plain = self.counters.files_opened == opened;
        let period = if is_plain { used * SCAN_PAUSE_FACTOR } else { SCAN_PERIOD };
        self.scan_at = ended
            + match () {
                () if self.is_short => SCAN_PERIOD_SHORT.max(used * SCARCE_PAUSE_FACTOR),
                () if are_quiet && self.watch.trouble().is_none() => {
                    period.clamp(SCAN_PERIOD, SCAN_PERIOD_MAX)
                }
                () => SCAN_PERIOD_POLLING,
            };
        self.crowd.sum_up();
        if self.store.needs_save() {
            self.durable_at.get_or_insert(now);
        }
        self.publish_at = Some(now);
    }

    /// Whether what stands in a directory that cannot be looked into matters: the patterns name it,
    /// or logs were found there. (The `lost+found` of a disk, or a link to itself, holds nothing.)
    fn may_hold_logs(&self, dir: &Path) -> bool {
        let mut open = self.registry.iter().map(|(_, tracked)| &tracked.opened.path);
        let mut known = self.remembered.checkpoints().map(|saved| &saved.path);
        self.patterns.is_base(dir)
            || open.any(|path| path.starts_with(dir))
            || known.any(|path| path.starts_with(dir))
    }

    /// Whether there are no files of which no notification may tell, or nothing has come of
    /// looking at them for a while: those that are renamed, wait to be written over, or could not
    /// be opened.
    fn are_quiet(&mut self, now: Instant) -> bool {
        let is_watched =
            |tracked: &Tracked| tracked.state == State::Active && !tracked.waits_idly();
        let mut unwatched = Unwatched {
            unopened: self.unopened.count(),
            files_opened: self.counters.files_opened,
            ..Unwatched::default()
        };
        for (_, tracked) in self.registry.iter().filter(|(_, tracked)| !is_watched(tracked)) {
            unwatched.files += 1;
            unwatched.bytes += u128::from(tracked.size) + u128::from(tracked.read_offset);
        }
        let is_same = self.unwatched.0 == unwatched;
        if !is_same {
            self.unwatched = (unwatched, now);
        }
        let waits = self.unwatched.0.unopened > 0 || self.unwatched.0.files > 0;
        !waits || (is_same && now >= self.unwatched.1 + FRUITLESS_MAX)
    }

    /// Opens the files that were found and are not open. Returns device and inode of all of them.
    fn open_all(
        &mut self,
        files: &[Found],
        troubled: &mut HashSet<PathBuf>,
        now: Instant,
    ) -> HashSet<(u64, u64)> {
        self.aside.begin();
        let mut found: HashSet<_> = files.iter().map(|file| (file.device, file.inode)).collect();
        // Those with a checkpoint first, so that no copy takes it.
        let is_remembered = |file: &&Found| {
            let saved = self.remembered.get(file.device, file.inode);
            saved.is_some_and(|saved| !saved.is_copy)
        };
        let (first, then): (Vec<_>, Vec<_>) = files.iter().partition(is_remembered);
        for file in first.into_iter().chain(then) {
            if let Some(known) = self.registry.find(file.device, file.inode) {
                let Some(tracked) = self.registry.get_mut(known) else { continue };
                if tracked.found_at.as_os_str() != file.path.as_os_str() {
                    tracked.found_at = file.path.as_path().into();
                }
                // Of a compressed one it stays what it was when its text was measured.
                if tracked.unpacked_unix.is_none() {
                    tracked.found_as = (file.size, file.modified);
                }
                continue;
            }
            if self.is_aside(file) {
                // As of the look before: what changes from now on is younger.
                let unix = u64::try_from(self.looked_at / 1_000_000_000).unwrap_or_default();
                self.remembered.on_met(file.device, file.inode, unix);
                continue;
            }
            if self.may_sleep(file) {
                continue;
            }
            if self.is_short {
                // Nobody gives up a descriptor in this look who has not for the one before.
                self.unopened.add(&file.path, SHORT);
                continue;
            }
            match self.open_found(file, now) {
                // Another file than was found, if it was replaced since.
                Ok(inode) => found.extend(inode),
                Err(error) => {
                    self.note_unopened(&file.path, &error);
                    // What is gone again is no trouble. Of too few descriptors is told once, and not
                    // for each file.
                    if !self.is_short && error.kind() != io::ErrorKind::NotFound {
                        self.trouble(&file.path, "open", &error);
                        troubled.insert(file.path.clone());
                    }
                }
            }
        }
        found
    }

    /// A file could not be opened: for want of a descriptor, or for this error.
    pub(super) fn note_unopened(&mut self, path: &Path, error: &io::Error) {
        if self.is_short {
            self.unopened.add(path, SHORT);
        } else {
            self.unopened.add_failed(path, error);
        }
    }

    /// Says of each refused link that it is, once until it has been right again.
    fn note_refused(&mut self, refused: &[Refused]) {
        let is_news = |one: &&Refused| !self.refused.contains(&one.link);
        refused.iter().filter(is_news).for_each(|one| self.warn_refused(one));
        self.refused = refused.iter().map(|one| one.link.clone()).collect();
    }

    /// Says of a file that was shipped before that it may not be any more, once.
    pub(super) fn note_left(&mut self, why: Permission, known: PathBuf, place: PathBuf) {
        if self.refused.contains(&known) || self.left.contains(&known) {
            return;
        }
        match why {
            // As soon as its link is there, it is looked for again.
            Permission::Granted | Permission::Awaited => return,
            Permission::LeadsOut => {
                self.warn_refused(&Refused { link: known.clone(), target: place })
            }
            Permission::NotConfigured => tracing::warn!(
                file = %known.display(), resolved = %place.display(),
                hint = "to have its rest shipped, let LOGFERRY_PATHS find it and LOGFERRY_EXCLUDE not",
                "a file that was shipped before is not among the patterns now; it is not read on"
            ),
        }
        self.left.insert(known);
    }

    fn warn_refused(&self, Refused { link, target }: &Refused) {
        tracing::warn!(
            file = %link.display(), target = %target.display(), roots = self.patterns.roots(),
            hint = "if it should be followed, name its directory in LOGFERRY_LINK_ROOTS",
            "a link leads out of the allowed directories; it is not followed"
        );
    }

    /// Says of all that matches and is no regular file what it is, once while it is.
    fn note_odd(&mut self, odd: &[(PathBuf, &'static str)]) {
        for (path, kind) in odd.iter().filter(|(path, _)| !self.odd.contains(path)) {
            tracing::warn!(
                file = %path.display(), kind,
                "it matches the patterns and is no regular file; it is skipped"
            );
        }
        self.odd = odd.iter().map(|(path, _)| path.clone()).collect();
    }

    fn note_polling(&mut self) {
        match self.watch.trouble() {
            Some(why) if !self.is_polling_logged => {
                self.is_polling_logged = true;
                tracing::warn!(reason = why, "polling files each second");
            }
            None if self.is_polling_logged => {
                self.is_polling_logged = false;
                tracing::info!("all directories are watched again");
            }
            Some(_) | None => {}
        }
    }

    pub(super) fn trouble(&mut self, path: &Path, action: &str, error: &io::Error) {
        self.counters.file_errors += 1;
        if self.troubled.insert(path.to_owned()) {
            let error = left::describe(path, error);
            tracing::warn!(file = %path.display(), error, "cannot {action} it; trying again");
        }
    }

    /// Discovery does not find it any more: its new name, if it has one, is where it is now.
    fn on_gone(&mut self, file: FileKey) {
        let Some(tracked) = self.registry.get(file) else { return };
        self.counters.files_rotated += 1;
        if self.crowd.on_gone() {
            tracing::info!(
                file = %tracked.opened.path.display(), inode = tracked.opened.inode,
                "it was renamed, deleted or left by a link; reading it to its end"
            );
        }
        self.expect_unseen_beside(file);
    }

    /// Tells the watch which names stand for which files; renamed files by their new names, and
    /// deleted ones, of which there may be a compressed copy, by their last. An app may write to a
    /// file by any of its names.
    pub(super) fn refresh_names(&mut self) {
        let is_elsewhere = |tracked: &Tracked| tracked.state != State::Active;
        let elsewhere = self.registry.iter().filter(|(_, tracked)| is_elsewhere(tracked));
        let elsewhere: Vec<FileKey> = elsewhere.map(|(file, _)| file).collect();
        for file in elsewhere {
            if let Some(tracked) = self.registry.get_mut(file)
                && let Some((path, _)) = self.readers.get(&file).and_then(Reader::place)
                && *path != *tracked.opened.resolved
            {
                tracked.opened.resolved = path.into();
                self.is_moved = true;
            }
        }
        let paths = self.registry.iter().flat_map(|(file, tracked)| names_of(file, tracked));
        let aliases = self.aliases.iter().filter_map(|(name, (device, inode))| {
            Some((name.as_path(), self.registry.find(*device, *inode)?))
        });
        self.watch.set_names(aliases.chain(paths));
    }

    /// Tells the watch the names of one file, which has a new key.
    pub(super) fn refresh_names_of(&mut self, file: FileKey) {
        let Some(tracked) = self.registry.get(file) else { return };
        let inode = (tracked.opened.device, tracked.opened.inode);
        let aliases = self.aliases.iter().filter(|(_, of)| *of == inode);
        let aliases = aliases.map(|(name, _)| (name.as_path(), file));
        self.watch.add_names(aliases.chain(names_of(file, tracked)));
    }

    fn close_idle(&mut self, now: Instant) {
        self.rest_unpacked();
        self.unpack_again();
        // Look once more: what has come since the last examination is still to be read.
        for file in self.registry.closable(now) {
            self.examine(file, false, now);
        }
        for file in self.registry.closable(now) {
            let is_nuls = self.registry.get(file).is_some_and(|tracked| tracked.is_rest_idle);
            let left = self.close(file);
            if is_nuls {
                self.counters.skipped_hole_bytes += left;
            } else {
                self.counters.skipped_deleted_bytes += left;
            }
        }
    }

    /// Gives up deleted files, those deleted first before others, until the rest of them is within
    /// the bound. What is delivered of them goes without a loss.
    fn keep_within_budget(&mut self) {
        for file in self.registry.beyond_budget(self.tail.held_deleted_bytes_max) {
            let Some(tracked) = self.registry.get(file) else { continue };
            let (path, inode) = (tracked.opened.path.clone(), tracked.opened.inode);
            let bytes = tracked.size;
            let skipped = self.close(file);
            self.counters.skipped_deleted_bytes += skipped;
            if skipped > 0 {
                tracing::warn!(
                    file = %path.display(), inode, bytes, skipped,
                    "a deleted file is given up to keep within held_deleted_bytes_max"
                );
            }
        }
    }

    /// Ends a file: no more is read of it. Returns the bytes that were not.
    pub(super) fn close(&mut self, file: FileKey) -> u64 {
        self.note_seen(file);
        let left = self.registry.end(file).unwrap_or(0);
        self.batcher.end(file);
        self.schedule.on_end(file);
        self.readers.remove(&file);
        self.is_moved = true;
        left
    }

    /// What an examination showed of a file is taken for its own bytes.
    pub(super) fn note_seen(&mut self, file: FileKey) {
        let size = self.registry.get(file).map_or(0, |tracked| tracked.size);
        self.counters.seen_bytes += self.registry.on_verified(file, size);
    }

    /// Closes the accounts of ended incarnations that have nothing under way any more, and
    /// remembers them.
    pub(super) fn settle(&mut self) {
        for (file, mut ended) in self.registry.take_settled() {
            self.counters.generations_closed += 1;
            let skipped = ended.hole_bytes + ended.left_bytes;
            let (opened, acknowledged) = (&ended.opened, ended.watermark.acked_bytes());
            if ended.is_balanced() {
                tracing::info!(
                    file = %opened.path.display(), inode = opened.inode, offset = opened.offset,
                    bytes = ended.size, acknowledged, skipped, "a file is done"
                );
            } else {
                self.counters.generations_unbalanced += 1;
                tracing::error!(
                    file = %opened.path.display(), inode = opened.inode, offset = opened.offset,
                    bytes = ended.size, acknowledged, skipped,
                    "the bytes of a file do not add up; please report this"
                );
            }
            let has_gone = ended.state == State::Deleted
                || self.registry.find(opened.device, opened.inode).is_some();
            let checkpoint = self.checkpoint(file, &ended, clock::wall().as_secs());
            self.once.forget(file);
            self.returned.forget_row(file);
            let is_done = ended.left_bytes == 0;
            if is_done {
                self.on_original_delivered(file, ended.read_offset);
            }
            if has_gone {
                let trail = std::mem::take(&mut ended.trail);
                self.remembered.put_gone_with(Checkpoint { is_done, ..checkpoint }, trail);
            } else {
                self.remembered.put_done(checkpoint);
            }
            self.is_scan_wanted |= self.aside.has_copies();
            self.is_moved = true;
        }
    }

    pub(super) fn examine_where(&mut self, now: Instant, wanted: impl Fn(State) -> bool) {
        let files: Vec<FileKey> = self
            .registry
            .iter()
            .filter(|(_, tracked)| wanted(tracked.state))
            .map(|(file, _)| file)
            .collect();
        for file in files {
            self.examine(file, false, now);
        }
    }

    /// Looks at the size of a file. `is_announced`: because of a notification.
    pub(super) fn examine(&mut self, file: FileKey, is_announced: bool, now: Instant) {
        let Some(stat) = self.stat(file) else { return };
        let level = self.registry.get_mut(file).filter(|tracked| tracked.is_delivered());
        let was_delivered = level.is_some();
        if let Some(tracked) = level {
            tracked.level_unix = clock::wall().as_secs();
        }
        match self.registry.on_stat(file, &stat, now) {
            Change::None => {
                // The same size can be other bytes: written to, so look at them.
                if is_announced {
                    self.schedule.mark(file);
                }
            }
            Change::Grew => {
                // After a kill, too, it is to be known that not all of it was delivered.
                if was_delivered {
                    self.durable_at.get_or_insert(now + DURABLE_PERIOD);
                }
                self.schedule.mark(file);
                self.note_announced(file, is_announced);
            }
            Change::Unread | Change::Touched => self.schedule.mark(file),
            Change::Cut(bytes) => {
                self.on_cut(file, bytes);
                self.schedule.mark(file);
            }
            Change::Shrank => self.on_shrunk(file, now),
        }
    }

    fn note_announced(&mut self, file: FileKey, is_announced: bool) {
        let Some(tracked) = self.registry.get_mut(file) else { return };
        if is_announced || tracked.state != State::Active {
            tracked.unannounced = 0;
            return;
        }
        tracked.unannounced = tracked.unannounced.saturating_add(1);
        if tracked.unannounced == UNANNOUNCED_MAX {
            let path = tracked.opened.path.display();
            let why = format!("{path} grows without notifications");
            self.watch.distrust(&why);
        }
    }
}

/// The names under which somebody may write to a file. One that is found no more has left its name
/// to another.
fn names_of(file: FileKey, tracked: &Tracked) -> impl Iterator<Item = (&Path, FileKey)> {
    let found = (tracked.state == State::Active).then_some(&tracked.found_at);
    let names = found.into_iter().chain([&tracked.opened.resolved]);
    names.map(move |name| (&**name, file))
}
