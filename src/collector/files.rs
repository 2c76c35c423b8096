//! The collector's dealings with files: look, discover, examine.

use std::collections::{HashSet, VecDeque};
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::Collector;
use super::idle::found_as;
use super::ledger::Ledger;
use super::left::{Beyond, LATER, Unopened};
use super::look::{BREATH_PERIOD, Effort, Unwatched};
use super::notices::note_odd;
use super::said::Kind;
use super::stamp::{nanoseconds, stamp};
use super::timers::Timer;
use crate::base::fingerprint::HEAD_BYTES_MAX;
use crate::base::span::FileKey;
use crate::checkpoint::keep::Keep;
use crate::tail::catalog::entry::is_unread;
use crate::tail::catalog::names;
use crate::tail::discover::{Found, Host, Patterns, Permission, Scan};
use crate::tail::os::{Facts, Os};
use crate::tail::reader::Reader;
use crate::tail::registry::Change;
use crate::tail::tracked::{State, Tracked};
use crate::tail::watch::Hints;

/// How often discovery is repeated at once because a directory was watched for the first time. What
/// is missed beyond that is found in the next period.
const SCANS_AT_ONCE_MAX: usize = 4;
/// Growths of a file in a row without a notification after which its file system is taken for one
/// without them.
const UNANNOUNCED_MAX: u8 = 3;
/// Most new names that are examined one by one, rather than with a discovery.
const CAME_MAX: usize = 64;
/// Most files that are opened in the order of their paths. Of more, those go first that were
/// written to last.
const OPENED_IN_ORDER_MAX: usize = 1000;
/// How long a discovery opens files while there is news, unless it took longer to find them.
const OPENING_MAX: Duration = Duration::from_millis(500);
/// Least number of files that a discovery opens even if there is news. Those that wait longest are
/// among them.
const OPENED_LEAST: u64 = 64;
/// How much longer than [`OPENING_MAX`] the opening of [`OPENED_LEAST`] files may take.
const OPENING_LONGER_MAX: Duration = Duration::from_secs(2);
/// Why a file is not open where descriptors are few.
const SHORT: &str = "it waits for a descriptor";
/// How long a directory must not have changed for its time stamp to say so, whoever's clock made
/// it.
const STAMP_MARGIN: Duration = Duration::from_secs(2);

impl<O: Os, K: Keep> Collector<O, K> {
    /// Takes the events; discovers and examines as they and the clock ask for.
    pub(super) fn take_look(&mut self, now: Instant) {
        let hints = self.heed_hints(now);
        let are_names_changed = self.came(&hints.came);
        self.look.want_names_if(are_names_changed);
        if self.look.is_due(&self.timers, now) {
            self.discover(now);
        } else if hints.unknown_written || self.look.take_unknown_written() {
            self.examine_where(now, |state| state != State::Active);
        }
        let is_news = hints != Hints::default();
        if is_news {
            self.timers.set(Timer::TurnFrom, now + self.rules.tail.read_linger);
            self.touch(now);
        }
        self.open_deferred(now);
    }

    /// Takes the events, and examines the files that they name.
    fn heed_hints(&mut self, now: Instant) -> Hints {
        let hints = self.watch.take();
        if hints.overflowed {
            self.counters.watch_overflows += 1;
            if self.said.admits(Kind::Overflow) {
                tracing::warn!("the kernel dropped notifications; looking at everything");
            }
        }
        self.open_births(now);
        self.look.want_scan_if(hints.overflowed);
        self.look.want_names_if(hints.names_changed);
        for &file in &hints.written {
            self.examine(file, true, now);
        }
        for &file in &hints.touched {
            self.examine(file, false, now);
        }
        // A closed file may have been written to.
        self.look.want_names_if(hints.unknown_written && self.catalog.has_idle());
        hints
    }

    /// Reads events between two looks, for files that are born: they may not live until the next
    /// look.
    pub(super) fn glance(&mut self, now: Instant) {
        self.watch.glance();
        self.open_births(now);
    }

    /// Whether files have been born lately, and the next one may live for a moment only.
    pub(super) fn expects_births(&self, now: Instant) -> bool {
        self.look.are_births_lately(now) && !self.timers.is_set(Timer::ReadFrom)
    }

    /// Opens files under whose names something came, as far as that needs no discovery: one follows, but
    /// until then they may be gone.
    fn open_births(&mut self, now: Instant) {
        // During a discovery they are found by it, or by the next one.
        if self.patterns.are_none()
            || !self.look.is_ready()
            || self.timers.holds(Timer::ReadFrom, now)
        {
            return;
        }
        let (came, gone) = self.watch.take_births();
        let gone = gone.iter().filter(|path| self.patterns.finds(path)).count();
        self.counters.files_vanished += gone as u64;
        let came: Vec<PathBuf> = came.into_iter().filter(|one| self.patterns.finds(one)).collect();
        if came.is_empty() {
            return;
        }
        self.look.on_birth(now);
        if self.look.begins_births(now) {
            self.begin_opening();
        }
        for path in came {
            if self.readers.are_short()
                || self.look.notices.beyond() != Beyond::default()
                || self.drain.is_abandoned()
            {
                return;
            }
            match self.open_birth(&path, now) {
                Ok(Some((device, inode))) => {
                    if let Some(file) = self.registry.find(device, inode) {
                        self.refresh_names_of(file);
                    }
                }
                Ok(None) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    self.counters.files_vanished += 1;
                }
                // A discovery meets the same, and says so.
                Err(_) => {}
            }
        }
    }

    /// Opens what stands under a path, unless that takes more to decide: the file is known, or the
    /// path is a link.
    fn open_birth(&mut self, path: &Path, now: Instant) -> io::Result<Option<(u64, u64)>> {
        let facts = self.os.lstat(path)?;
        let (device, inode) = facts.id();
        let found = Found {
            path: path.to_owned(),
            device,
            inode,
            size: facts.size,
            modified: facts.modified,
        };
        let is_known = || {
            self.registry.find(device, inode).is_some()
                || self.catalog.get(device, inode).is_some()
                || self.catalog.is_copy((device, inode))
        };
        if !facts.is_regular() || is_known() {
            return Ok(None);
        }
        self.open_found(&found, now)
    }

    /// Whether one of these new paths may lead to a file to ship.
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
        self.look.unopened.expected() > 0
            || self.catalog.has_copies()
            || self.catalog.is_any_missing()
    }

    /// Whether something of this name may be shipped, lead to what is, or be another name of it. A
    /// generation may be a copy of one.
    fn matters(&self, path: &Path) -> bool {
        let name = path.file_name().unwrap_or_default();
        let bases = names::bases(name.as_bytes());
        let mut known = bases.iter().map(|base| OsStr::from_bytes(base)).chain([name]);
        if known.any(|name| self.patterns.may_find(name)) {
            return true;
        }
        match self.os.lstat(path) {
            Ok(found) if found.is_regular() => {
                let (device, inode) = found.id();
                self.registry.find(device, inode).is_some()
                    || self.catalog.get(device, inode).is_some()
            }
            Ok(_) => true,
            // What has gone again has left nothing.
            Err(error) => error.kind() != io::ErrorKind::NotFound,
        }
    }

    /// Finds the files, opens the new ones, watches the directories, examines all.
    pub(super) fn discover(&mut self, now: Instant) {
        let news_from = self.look.begin(self.watch.trouble().is_none(), now);
        self.intake.looked(news_from);
        self.packed.on_discovery(now);
        self.look.notices.begin();
        let (mut found, mut is_all) = (HashSet::new(), false);
        let (looked_at, began) = (stamp(&self.os), self.os.now());
        let since = looked_at.saturating_sub(nanoseconds(STAMP_MARGIN));
        let (used, opened) = (self.os.thread_cpu(), self.counters.files_opened);
        self.look.begin_breath(self.os.now());
        let (first, is_none_left) = (self.registry.next_key(), self.look.unopened.count() == 0);
        for _ in 0..SCANS_AT_ONCE_MAX {
            let scan = self.walk();
            is_all = scan.is_all();
            self.look.unopened = Unopened::default();
            self.readers.on_scan();
            let beyond = Beyond { files: scan.left_files, dirs: scan.left_dirs };
            self.look.notices.note_beyond(&mut self.said, beyond, self.look.known_max());
            self.look.notices.note_refused(&mut self.said, &self.patterns, &scan.refused);
            note_odd(&mut self.said, &scan.odd);
            self.look.notices.note_fruitless(&self.os, scan.fruitless, now);
            for (path, error) in scan.errors.iter() {
                if self.may_hold_logs(path) {
                    self.look.unopened.add_failed(&self.os, path, error);
                }
                self.trouble(path, "look at", error);
            }
            let unnamed = scan.errors.unnamed();
            self.look.unopened.add_unnamed(unnamed, true);
            self.counters.file_errors += unnamed;
            self.said.count(Kind::Trouble, scan.errors.unnamed_news());
            // What comes while files are opened is to be told of.
            let is_new = self.watch.watch(&self.os, &scan.dirs, since);
            self.reopen_stale(&scan.files);
            found = self.open_all(&scan.files, now);
            if scan.left_dirs > 0 {
                found.extend(self.still_there());
            }
            for file in self.registry.on_scan(&found) {
                self.on_gone(file);
            }
            self.look.set_aliases(scan.aliases);
            self.watch.set_ways(&scan.ways);
            if !is_new {
                break;
            }
        }
        let is_first = self.look.on_opened();
        if is_first {
            if let files @ 1.. = self.catalog.deferred() {
                tracing::info!(files, "more files are as they were delivered; opening them now");
            }
            // Whoever waits for that need not wait for what is only searched for, or for the save.
            self.timers.set(Timer::Publish, now);
            self.publish(now, false);
        }
        self.refresh_places();
        self.look_at_renamed(now);
        self.catalog.on_discovered(&found);
        if is_all {
            self.catalog.forget_unfound(|inode| found.contains(&inode));
        }
        self.adopt(now);
        self.adopt_missed(&found, is_first, now);
        self.packed.on_discovered();
        self.look.originals = None;
        self.note_missing(false, now);
        let is_untold = !is_first && self.note_births(first, is_none_left);
        self.refresh_names();
        self.close_idle(now);
        self.examine_where(now, |_| true);
        self.keep_within_budget();
        self.look.notices.note_polling(&mut self.said, self.watch.trouble());
        self.look.end(looked_at, began, self.readers.are_short().then_some(news_from));
        let are_quiet = self.are_quiet(now);
        let (ended, used) = (self.os.now(), self.os.thread_cpu().saturating_sub(used));
        let effort = Effort {
            ended,
            own: self.look.own_share(used, ended - now),
            cores: self.intake.cpu_cores(),
            is_plain: self.counters.files_opened == opened,
            is_short: self.readers.are_short(),
            is_told: are_quiet && !is_untold && self.watch.trouble().is_none(),
        };
        effort.set_pace(&mut self.timers);
        self.ledger.check(&mut self.timers, now);
        self.timers.set(Timer::Publish, now);
    }

    /// Wants a discovery when batches are acknowledged and files wait for descriptors: some may be
    /// had now.
    pub(super) fn on_acknowledged(&mut self, now: Instant) {
        self.close_unpacked();
        if self.readers.are_short() {
            let at = self.timers.free_at(&[Timer::ShortFrom], now);
            self.timers.advance(Timer::Scan, at);
        }
    }

    /// Whether what stands in a directory that cannot be looked into matters. It does if the
    /// patterns name the directory, or if logs were found there. (The `lost+found` of a disk, or a
    /// link to itself, holds nothing.)
    fn may_hold_logs(&self, dir: &Path) -> bool {
        let mut open = self.registry.iter().map(|(_, tracked)| &tracked.opened.path);
        let mut known = self.catalog.checkpoints().map(|saved| &saved.path);
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
            unopened: self.look.unopened.count(),
            files_opened: self.counters.files_opened,
            ..Unwatched::default()
        };
        for (_, tracked) in self.registry.iter().filter(|(_, tracked)| !is_watched(tracked)) {
            unwatched.files += 1;
            unwatched.bytes += u128::from(tracked.size) + u128::from(tracked.read_offset);
        }
        self.look.are_quiet(unwatched, now)
    }

    /// Walks the patterns. Files beyond those that can be known are left for later: first of all
    /// those that were not written to since the agent started.
    fn walk(&mut self) -> Scan {
        // What is done meanwhile does not ask for the patterns.
        let mut patterns = std::mem::replace(&mut self.patterns, Patterns::none());
        let os = self.os.clone();
        let room = self.look.room();
        let scan = patterns.scan_for(&os, self, room);
        self.patterns = patterns;
        scan
    }

    /// Does what cannot wait for the end of a discovery, if it is time: takes mail, reads what has
    /// grown, and keeps to the CPU limit.
    pub(super) fn breathe(&mut self) {
        let began = self.os.now();
        if !self.look.is_breath_due(began) {
            return;
        }
        let (used, truncated) = (self.os.thread_cpu(), self.counters.files_truncated);
        loop {
            let now = self.os.now();
            self.said.begin(now);
            let mail = self.handoff.take_mail();
            self.on_mail(mail, now);
            if self.drain.is_looking() && !self.timers.holds(Timer::TurnFrom, now) {
                let hints = self.heed_hints(now);
                self.look.want_names_if(!hints.came.is_empty());
                self.look.note_unknown_written(hints.unknown_written);
            }
            self.turn(now);
            self.save(now, false);
            self.publish(now, false);
            let now = self.os.now();
            match self.timers.get(Timer::ReadFrom).filter(|until| now < *until) {
                // Nobody waits for the end of a pause, and nothing is read before it.
                Some(_) if self.drain.is_abandoned() => break,
                Some(until) => {
                    self.doze(until - now);
                    // To look at mail and events takes CPU too, and may ask for the next pause.
                    if self.os.now() >= until {
                        break;
                    }
                }
                None if self.can_go_on() && now < began + BREATH_PERIOD => {}
                None => break,
            }
        }
        if self.counters.files_truncated != truncated {
            // Which file stood where is not what it was.
            self.begin_opening();
        }
        let ended = self.os.now();
        self.look.on_breath(began, ended, self.os.thread_cpu().saturating_sub(used));
    }

    /// Device and inode of the open files that stand where they were found: where not all directories
    /// are looked into, what was not found is not gone.
    fn still_there(&self) -> Vec<(u64, u64)> {
        let stands = |tracked: &Tracked| {
            let inode = (tracked.opened.device, tracked.opened.inode);
            let is_it = |found: Facts| found.id() == inode;
            (tracked.state == State::Active
                && self.os.stat(&tracked.sighting.path).is_ok_and(is_it))
            .then_some(inode)
        };
        self.registry.iter().filter_map(|(_, tracked)| stands(tracked)).collect()
    }

    /// Whether a turn would read what has grown.
    fn can_go_on(&self) -> bool {
        !self.drain.is_closed() && !self.ledger.refusals.has_unparked() && self.intake.has_grown()
    }

    /// Opens the files that were found and are not open. Returns device and inode of all of them.
    fn open_all(&mut self, files: &[Found], now: Instant) -> HashSet<(u64, u64)> {
        self.begin_opening();
        let mut found: HashSet<_> = files.iter().map(|file| (file.device, file.inode)).collect();
        // Those with a checkpoint first, so that no copy takes it.
        let is_known = |file: &&Found| {
            let saved = self.catalog.get(file.device, file.inode);
            saved.is_some_and(|saved| !saved.is_copy && !is_unread(saved))
        };
        let (first, then): (Vec<_>, Vec<_>) = files.iter().partition(is_known);
        let waits = |file: &&Found| {
            let inode = (file.device, file.inode);
            self.registry.find(file.device, file.inode).is_none() && !self.catalog.is_copy(inode)
        };
        let (mut waiting, then): (Vec<_>, Vec<_>) = then.into_iter().partition(waits);
        if self.look.take_opening_cut() {
            waiting = in_turn(waiting);
        } else if waiting.len() > OPENED_IN_ORDER_MAX {
            // It takes a while: those that are written to go first.
            waiting.sort_by_key(|file| std::cmp::Reverse(file.modified));
        }
        // A copy is known by an original that is open.
        let is_generation = |file: &&Found| {
            let name = file.path.file_name().unwrap_or_default();
            !names::bases(name.as_bytes()).is_empty()
        };
        waiting.sort_by_key(is_generation);
        // As of the look before: what changes from now on is younger.
        let unix = u64::try_from(self.look.looked_at() / 1_000_000_000).unwrap_or_default();
        let opened_until = self.os.now() + OPENING_MAX.max(self.os.now() - now);
        let opened_least = self.counters.files_opened + OPENED_LEAST;
        for file in first.into_iter().chain(then).chain(waiting) {
            self.breathe();
            if let Some(known) = self.registry.find(file.device, file.inode) {
                let Some(tracked) = self.registry.get_mut(known) else { continue };
                if tracked.sighting.path.as_os_str() != file.path.as_os_str() {
                    tracked.sighting.path = file.path.as_path().into();
                }
                // Of a compressed one it stays what it was when its text was measured.
                if tracked.unpacked_unix.is_none() {
                    tracked.sighting.found_as = (file.size, file.modified);
                }
                continue;
            }
            let inode = (file.device, file.inode);
            if self.catalog.is_known_so(inode, found_as(file), &self.registry, now, unix) {
                continue;
            }
            if self.may_defer(file) {
                continue;
            }
            let is_late = |by: Duration| self.os.now() >= opened_until + by;
            // What cannot be opened takes its time too.
            let may_end = self.counters.files_opened >= opened_least || is_late(OPENING_LONGER_MAX);
            if (self.look.are_names_changed() && may_end && is_late(Duration::ZERO))
                || self.drain.is_abandoned()
            {
                // What is new goes before what is only waiting. (And who is to end has no time.)
                self.look.cut_opening();
                self.packed.on_waits((file.device, file.inode));
                self.note_waiting(file);
                self.look.unopened.add(&file.path, LATER);
                continue;
            }
            if self.readers.are_short() {
                // Nobody gives up a descriptor in this look who has not for the one before.
                self.packed.on_waits((file.device, file.inode));
                self.note_waiting(file);
                self.look.unopened.add(&file.path, SHORT);
                continue;
            }
            match self.open_found(file, now) {
                // Another file than was found, if it was replaced since.
                Ok(inode) => {
                    if inode.is_some_and(|inode| inode != (file.device, file.inode)) {
                        self.expect_renamed(file, &mut found);
                    }
                    found.extend(inode);
                }
                Err(error) => {
                    if error.kind() == io::ErrorKind::NotFound {
                        self.expect_renamed(file, &mut found);
                    }
                    if self.readers.are_short() {
                        self.packed.on_waits((file.device, file.inode));
                        self.note_waiting(file);
                    }
                    self.note_unopened(&file.path, &error);
                    // What is gone again is no trouble. Of too few descriptors is told once, and not
                    // for each file.
                    if !self.readers.are_short() && error.kind() != io::ErrorKind::NotFound {
                        self.trouble(&file.path, "open", &error);
                    }
                }
            }
        }
        found
    }

    /// Notes that a file could not be opened: for want of a descriptor, or for this error.
    pub(super) fn note_unopened(&mut self, path: &Path, error: &io::Error) {
        if self.readers.are_short() {
            self.look.unopened.add(path, SHORT);
        } else {
            self.look.unopened.add_failed(&self.os, path, error);
        }
    }

    /// Says of a file that was shipped before that it may not be any more, once.
    pub(super) fn note_left(&mut self, why: Permission, known: &Path, place: PathBuf) {
        self.look.notices.note_left(&mut self.said, &self.patterns, why, known, place);
    }

    pub(super) fn trouble(&mut self, path: &Path, action: &str, error: &io::Error) {
        self.counters.file_errors += 1;
        self.look.notices.trouble(&self.os, &mut self.said, path, action, error);
    }

    /// Notes that discovery does not find a file any more. The new name of the file, if it has one,
    /// is where it is now.
    fn on_gone(&mut self, file: FileKey) {
        let Some(tracked) = self.registry.get(file) else { return };
        self.counters.files_rotated += 1;
        if self.said.admits(Kind::Gone) {
            tracing::info!(
                file = %tracked.opened.path.display(), inode = tracked.opened.inode,
                "it was renamed, deleted or left by a link; reading it to its end"
            );
        }
        self.expect_missed_beside(file);
    }

    /// Asks where the renamed files are now.
    fn refresh_places(&mut self) {
        let is_elsewhere = |tracked: &Tracked| tracked.state != State::Active;
        let elsewhere = self.registry.iter().filter(|(_, tracked)| is_elsewhere(tracked));
        let elsewhere: Vec<FileKey> = elsewhere.map(|(file, _)| file).collect();
        for file in elsewhere {
            if let Some(tracked) = self.registry.get_mut(file)
                && let Some((path, _)) = self.readers.get(&file).and_then(Reader::place)
                && *path != *tracked.opened.resolved
            {
                tracked.opened.resolved = path.into();
                self.ledger.note(true);
            }
        }
    }

    /// Tells the watch which names stand for which files; renamed files by their new names, and
    /// deleted ones, of which there may be a compressed copy, by their last. An app may write to a
    /// file by any of its names.
    pub(super) fn refresh_names(&mut self) {
        self.refresh_places();
        let paths = self.registry.iter().flat_map(|(file, tracked)| names_of(file, tracked));
        let aliases = self
            .look
            .aliases()
            .filter_map(|(name, (device, inode))| Some((name, self.registry.find(device, inode)?)));
        self.watch.set_names(aliases.chain(paths));
    }

    /// Tells the watch the names of one file, which has a new key.
    pub(super) fn refresh_names_of(&mut self, file: FileKey) {
        let Some(tracked) = self.registry.get(file) else { return };
        let inode = (tracked.opened.device, tracked.opened.inode);
        let aliases = self.look.aliases().filter(|(_, of)| *of == inode);
        let aliases = aliases.map(|(name, _)| (name, file));
        self.watch.add_names(aliases.chain(names_of(file, tracked)));
    }

    pub(super) fn examine_where(&mut self, now: Instant, wanted: impl Fn(State) -> bool) {
        let files: Vec<FileKey> = self
            .registry
            .iter()
            .filter(|(_, tracked)| wanted(tracked.state))
            .map(|(file, _)| file)
            .collect();
        for file in files {
            self.breathe();
            self.examine(file, false, now);
        }
    }

    /// Looks at the size of a file. `is_announced` says that a notification asked for it.
    pub(super) fn examine(&mut self, file: FileKey, is_announced: bool, now: Instant) {
        let Some(stat) = self.stat(file) else { return };
        let level = self.registry.get_mut(file).filter(|tracked| tracked.is_delivered());
        let was_delivered = level.is_some();
        if let Some(tracked) = level {
            tracked.level_unix = self.os.wall().as_secs();
        }
        match self.registry.on_stat(file, &stat, now) {
            Change::None => {
                // The same size can be other bytes: written to, so look at them.
                if is_announced {
                    self.intake.mark(file);
                }
            }
            Change::Grew => {
                // After a kill, too, it is to be known that not all of it was delivered.
                if was_delivered {
                    Ledger::<K>::save_soon(&mut self.timers, now);
                }
                self.intake.mark_grown(file);
                self.note_announced(file, is_announced);
                if self.intake.is_blocked() {
                    self.learn_head(file, stat.size, now);
                }
            }
            Change::Unread => {
                self.intake.mark_grown(file);
                self.learn_head(file, stat.size, now);
            }
            Change::Touched => self.intake.mark(file),
            Change::Cut(bytes) => {
                self.on_cut(file, bytes);
                self.intake.mark(file);
            }
            Change::Shrank => self.on_shrunk(file, now),
        }
    }

    /// Learns the first bytes of a file of `size` bytes that is not read for now. Without them nobody would
    /// know a copy of it, nor the file itself after the next start where births are not told.
    fn learn_head(&mut self, file: FileKey, size: u64, now: Instant) {
        let Some(tracked) = self.registry.get(file) else { return };
        let Some(reader) = self.readers.get(&file) else { return };
        let (head, offset) = (tracked.opened.head, tracked.read_offset);
        let is_short = (head.len as usize) < HEAD_BYTES_MAX && u64::from(head.len) < size;
        if !is_short || tracked.may_be_copy || reader.is_unpacked() {
            return;
        }
        let settled_end = self.intake.filled().settled_end(file, now).max(offset);
        // Other bytes are noticed when the file is read.
        let is_same = match head.len {
            0 => Ok(offset == 0),
            _ => reader.has_head(head),
        };
        if let (Ok(true), Ok(head)) = (is_same, reader.head(settled_end))
            && let Some(tracked) = self.registry.get_mut(file)
        {
            tracked.opened.head = head;
        }
    }

    /// Notes files that were opened since `first` and are new, although no event told of any:
    /// others may come so. `is_all` says that the discovery before left none for later. Returns
    /// whether there are any.
    fn note_births(&mut self, first: FileKey, is_all: bool) -> bool {
        let looked_at = self.look.looked_at();
        let is_new = |tracked: &Tracked| match tracked.opened.born {
            0 => is_all && tracked.opened.offset == 0,
            born => born > looked_at,
        };
        let new = self.registry.iter_from(first).filter(|(_, tracked)| is_new(tracked));
        let untold = new.filter(|(_, tracked)| self.watch.on_birth(&tracked.opened.path));
        untold.count() > 0
    }

    fn note_announced(&mut self, file: FileKey, is_announced: bool) {
        let Some(tracked) = self.registry.get_mut(file) else { return };
        let is_told = is_announced || tracked.state != State::Active;
        if tracked.growth.on_announced(is_told) == UNANNOUNCED_MAX {
            let path = tracked.opened.path.display();
            let why = format!("{path} grows without notifications");
            self.watch.distrust(&why);
        }
    }
}

impl<O: Os, K: Keep> Host for Collector<O, K> {
    fn is_known(&self, (device, inode): (u64, u64)) -> bool {
        self.registry.find(device, inode).is_some() || self.catalog.get(device, inode).is_some()
    }

    fn pulse(&mut self) {
        self.breathe();
    }
}

/// The order in which files are opened whose opening was cut short for new ones: in turn the one that was
/// written to last and the one that has waited longest. So new ones come soon, and however many come, the
/// others are opened too.
fn in_turn(mut files: Vec<&Found>) -> Vec<&Found> {
    files.sort_by_key(|file| std::cmp::Reverse(file.modified));
    let mut files = VecDeque::from(files);
    let mut order = Vec::with_capacity(files.len());
    while let Some(newest) = files.pop_front() {
        order.push(newest);
        order.extend(files.pop_back());
    }
    order
}

/// The names under which somebody may write to a file. A file that is found no more has left its
/// name to another.
fn names_of(file: FileKey, tracked: &Tracked) -> impl Iterator<Item = (&Path, FileKey)> {
    let found = (tracked.state == State::Active).then_some(&tracked.sighting.path);
    let names = found.into_iter().chain([&tracked.opened.resolved]);
    names.map(move |name| (&**name, file))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written_at(seconds: i64) -> Found {
        let path = format!("/logs/{seconds}.log").into();
        Found { path, device: 1, inode: 1, size: 1, modified: (seconds, 0) }
    }

    #[test]
    fn what_is_new_and_what_waits_longest_is_opened_in_turn() {
        let files = [3, 1, 5, 2, 4].map(written_at);

        let order = in_turn(files.iter().collect());

        let order: Vec<i64> = order.into_iter().map(|file| file.modified.0).collect();
        assert_eq!(order, [5, 1, 4, 2, 3]);
    }

    /// More files come in each round than the 64 that are opened in it.
    #[test]
    fn however_many_files_come_each_is_opened_after_a_bounded_wait() {
        let mut closed: Vec<Found> = (0..1000).map(written_at).collect();
        for round in 1..=1000 / (64 / 2) + 1 {
            let come = 2 * 64;
            closed.extend((0..come).map(|number| written_at(round * 1000 + number)));
            let opened: Vec<i64> = in_turn(closed.iter().collect())
                .iter()
                .take(64)
                .map(|file| file.modified.0)
                .collect();
            let newest = round * 1000 + come - 1;
            assert_eq!(opened[0], newest, "what is new does not wait");
            closed.retain(|file| !opened.contains(&file.modified.0));
        }
        assert!(closed.iter().all(|file| file.modified.0 >= 1000), "{}", closed.len());
    }
}
