//! The collector's dealings with files: look, discover, open, read.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use super::{Collector, SCAN_PERIOD, SCAN_PERIOD_POLLING};
use crate::batch::log_group;
use crate::clock;
use crate::fingerprint::{Fingerprint, HEAD_BYTES_MAX};
use crate::pipeline::{self, Input, Stop};
use crate::span::FileKey;
use crate::tail::discover::Refused;
use crate::tail::identity::Match;
use crate::tail::reader::{Reader, Stat};
use crate::tail::registry::{Change, Opened, State};

/// Times that discovery is repeated at once because a directory was watched for the first time.
/// What is missed beyond that is found in the next period.
const SCANS_AT_ONCE_MAX: usize = 4;
/// A file that grew so often in a row without a notification is on a file system without them.
const UNANNOUNCED_MAX: u8 = 3;

impl Collector {
    /// Takes the events; discovers and examines as they and the clock ask for.
    pub(super) fn look(&mut self, now: Instant) {
        let hints = self.watch.take();
        if hints.overflowed {
            self.counters.watch_overflows += 1;
            tracing::warn!("the kernel dropped notifications; looking at everything");
        }
        self.is_scan_wanted |= hints.names_changed || hints.overflowed;
        let is_periodic = self.scan_at <= now;
        for &file in &hints.written {
            self.examine(file, true, now);
        }
        if self.is_scan_wanted || is_periodic {
            self.discover(now);
        } else if hints.unknown_written {
            self.examine_where(now, |state| state != State::Active);
        }
        let is_news = hints != crate::tail::watch::Hints::default();
        if is_news {
            self.turn_at = now + self.tail.read_linger;
            self.touch(now);
        }
    }

    /// Finds the files, opens the new ones, watches the directories, examines all.
    pub(super) fn discover(&mut self, now: Instant) {
        self.is_scan_wanted = false;
        // What has trouble now: what is not among it any more is news when it comes back.
        let mut troubled = HashSet::new();
        for _ in 0..SCANS_AT_ONCE_MAX {
            let scan = self.patterns.scan();
            self.unopened = 0;
            troubled.clear();
            self.note_refused(&scan.refused);
            self.note_odd(&scan.odd);
            for (path, error) in &scan.errors {
                self.trouble(path, "look at", error);
                troubled.insert(path.clone());
            }
            let mut found = HashSet::with_capacity(scan.files.len());
            for file in &scan.files {
                found.insert((file.device, file.inode));
                if let Some(known) = self.registry.find(file.device, file.inode) {
                    if let Some(tracked) = self.registry.get_mut(known) {
                        tracked.found_at.clone_from(&file.path);
                    }
                    continue;
                }
                match self.open_found(&file.path, now) {
                    // Another file than was found, if it was replaced since.
                    Ok(inode) => found.extend(inode),
                    Err(error) => {
                        self.trouble(&file.path, "open", &error);
                        self.unopened += 1;
                        troubled.insert(file.path.clone());
                    }
                }
            }
            for file in self.registry.on_scan(&found) {
                self.on_gone(file);
            }
            let is_new = self.watch.watch(&scan.dirs);
            if !is_new {
                break;
            }
        }
        troubled.extend(self.adopt(now));
        self.troubled.retain(|path| troubled.contains(path));
        self.refresh_names();
        self.close_idle(now);
        self.examine_where(now, |_| true);
        self.note_polling();
        let has_gone = self.registry.iter().any(|(_, tracked)| tracked.state != State::Active);
        let is_slow = self.watch.trouble().is_none() && !has_gone;
        self.scan_at = now + if is_slow { SCAN_PERIOD } else { SCAN_PERIOD_POLLING };
        self.publish_at = Some(now);
        self.is_ready = true;
    }

    /// Says of each refused link that it is, once until it has been right again.
    fn note_refused(&mut self, refused: &[Refused]) {
        let is_news = |one: &&Refused| !self.refused.contains(&one.link);
        for Refused { link, target } in refused.iter().filter(is_news) {
            tracing::warn!(
                file = %link.display(), target = %target.display(), roots = self.patterns.roots(),
                hint = "if it should be followed, name its directory in LOGFERRY_LINK_ROOTS",
                "a link leads out of the allowed directories; it is not followed"
            );
        }
        self.refused = refused.iter().map(|one| one.link.clone()).collect();
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
        if let Some(why) = self.watch.trouble()
            && !self.is_polling_logged
        {
            self.is_polling_logged = true;
            tracing::warn!(reason = why, "polling files each second");
        }
    }

    fn trouble(&mut self, path: &Path, action: &str, error: &io::Error) {
        self.counters.file_errors += 1;
        if self.troubled.insert(path.to_owned()) {
            tracing::warn!(file = %path.display(), error = %error, "cannot {action} it; trying again");
        }
    }

    /// Opens a file that discovery found, and goes on where a checkpoint says. Returns device and
    /// inode, if it is a file.
    fn open_found(&mut self, path: &Path, now: Instant) -> io::Result<Option<(u64, u64)>> {
        if self.readers.len() >= self.files_max {
            let limit = "as many files are open as the limit of descriptors (RLIMIT_NOFILE) allows";
            return Err(io::Error::other(limit));
        }
        let reader = Reader::open(path)?;
        let stat = reader.stat()?;
        let (device, inode) = (stat.device, stat.inode);
        if !stat.is_file {
            return Ok(None);
        }
        if self.registry.find(device, inode).is_some() {
            return Ok(Some((device, inode)));
        }
        // A link may have come into its way since it was found.
        let resolved = reader.path().unwrap_or_else(|| path.to_owned());
        if !self.patterns.allows(&resolved) {
            let resolved = resolved.display();
            return Err(io::Error::other(format!(
                "it leads out of the allowed directories: {resolved}"
            )));
        }
        let head = reader.head()?;
        let claimed = self.remembered.claim(path, &reader, stat)?;
        let (offset, tail) = match claimed {
            Some((saved, Match::Resume)) => (saved.offset, saved.tail),
            Some((saved, Match::Rewritten | Match::Other)) => {
                tracing::warn!(
                    file = %path.display(), offset = saved.offset,
                    "it was rewritten while the agent was away; reading from its first byte"
                );
                self.counters.files_truncated += 1;
                (0, Fingerprint::default())
            }
            None => (0, Fingerprint::default()),
        };
        let path = path.to_owned();
        let opened = Opened { path, resolved, device, inode, head, offset, tail };
        self.begin(opened, reader, stat.size, State::Active, now);
        Ok(Some((device, inode)))
    }

    /// Opens files that a checkpoint speaks of and that the patterns do not reach: renamed while
    /// the agent was away, or left behind by a link that leads elsewhere now. Returns the paths that
    /// could not be opened.
    fn adopt(&mut self, now: Instant) -> Vec<PathBuf> {
        let mut unopened = Vec::new();
        for (path, saved) in self.remembered.whereabouts(clock::wall().as_secs()) {
            let outcome = (|| {
                let reader = Reader::open(&path)?;
                let stat = reader.stat()?;
                if !stat.is_file || self.registry.find(stat.device, stat.inode).is_some() {
                    return Ok(());
                }
                let head = reader.head()?;
                match self.remembered.claim(&saved.path, &reader, stat)? {
                    Some((found, Match::Resume)) => {
                        let opened = Opened {
                            resolved: reader.path().unwrap_or_else(|| path.clone()),
                            path: found.path,
                            device: stat.device,
                            inode: stat.inode,
                            head,
                            offset: found.offset,
                            tail: found.tail,
                        };
                        self.begin(opened, reader, stat.size, State::Rotated, now);
                    }
                    Some((found, Match::Rewritten | Match::Other)) => {
                        self.remembered.put_back(found);
                    }
                    None => {}
                }
                Ok(())
            })();
            if let Err(error) = outcome {
                self.trouble(&path, "open", &error);
                self.unopened += 1;
                self.remembered.search_again(&path);
                unopened.push(path);
            }
        }
        unopened
    }

    /// Begins to ship a file. Cannot fail: its checkpoint has been claimed.
    fn begin(&mut self, opened: Opened, reader: Reader, bytes: u64, state: State, now: Instant) {
        tracing::info!(
            file = %opened.path.display(), resolved = %opened.resolved.display(),
            offset = opened.offset, bytes, state = state.name(), "shipping a file"
        );
        let file = self.registry.open(opened, now, clock::wall().as_secs());
        if let Some(tracked) = self.registry.get_mut(file) {
            tracked.state = state;
        }
        self.counters.files_opened += 1;
        self.begin_stream(file);
        self.readers.insert(file, reader);
        self.is_moved = true;
        self.examine(file, true, now);
    }

    fn begin_stream(&mut self, file: FileKey) {
        let Some(tracked) = self.registry.get(file) else { return };
        let path = tracked.opened.path.as_os_str();
        let label: Arc<str> = path.to_string_lossy().into();
        let source = self.tags.source();
        let tags = self.tags.tags_for(path.as_encoded_bytes());
        let trailer = log_group::trailer(&self.topic, source, &tags);
        let source_id = format!("{source}_{label}_{:016X}", self.rng.u64(..));
        self.batcher.begin(file, label, trailer.into(), &source_id);
    }

    /// Discovery does not find it any more: its new name, if it has one, is where it is now.
    fn on_gone(&mut self, file: FileKey) {
        let Some(tracked) = self.registry.get(file) else { return };
        self.counters.files_rotated += 1;
        tracing::info!(
            file = %tracked.opened.path.display(), inode = tracked.opened.inode,
            "it was renamed, deleted or left by a link; reading it to its end"
        );
    }

    /// Tells the watch which names stand for which files; renamed files by their new names.
    fn refresh_names(&mut self) {
        for (file, reader) in &self.readers {
            if let Some(tracked) = self.registry.get_mut(*file)
                && tracked.state != State::Active
                && let Some(path) = reader.path()
                && path != tracked.opened.resolved
            {
                tracked.opened.resolved = path;
                self.is_moved = true;
            }
        }
        let paths = self.registry.iter().flat_map(|(file, tracked)| {
            // A file that is found no more has left its name to another one.
            let found = (tracked.state == State::Active).then_some(&tracked.found_at);
            let names = found.into_iter().chain([&tracked.opened.resolved]);
            names.map(move |name| (name.as_path(), file))
        });
        self.watch.set_names(paths);
    }

    fn close_idle(&mut self, now: Instant) {
        // Look once more: what has come since the last examination is still to be read.
        for file in self.registry.closable(now) {
            self.examine(file, false, now);
        }
        for file in self.registry.closable(now) {
            let Some(tracked) = self.registry.forget(file) else { continue };
            self.batcher.end(file);
            self.readers.remove(&file);
            self.is_moved = true;
            let left = tracked.size - tracked.read_offset;
            self.counters.skipped_deleted_bytes += left;
            tracing::info!(
                file = %tracked.opened.path.display(), inode = tracked.opened.inode,
                bytes = tracked.size, skipped = left, "a file is done"
            );
        }
    }

    fn examine_where(&mut self, now: Instant, wanted: impl Fn(State) -> bool) {
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
    fn examine(&mut self, file: FileKey, is_announced: bool, now: Instant) {
        let Some(stat) = self.stat(file) else { return };
        match self.registry.on_stat(file, stat.size, stat.links, now) {
            Change::None => {
                // The same size can be other bytes: written to, so look at them.
                if is_announced {
                    self.schedule.mark(file);
                }
            }
            Change::Grew => {
                self.schedule.mark(file);
                self.note_announced(file, is_announced);
            }
            Change::Unread => self.schedule.mark(file),
            Change::Shrank => self.restart(file, "it is shorter than what was read", now),
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

    fn stat(&mut self, file: FileKey) -> Option<Stat> {
        match self.readers.get(&file)?.stat() {
            Ok(stat) => Some(stat),
            Err(error) => {
                self.note_file_error(file, "examine it", &error);
                None
            }
        }
    }

    fn note_file_error(&mut self, file: FileKey, action: &str, error: &io::Error) {
        self.counters.file_errors += 1;
        self.registry.on_unreadable(file);
        let Some(tracked) = self.registry.get_mut(file) else { return };
        if tracked.last_error.is_empty() {
            tracing::warn!(
                file = %tracked.opened.path.display(), offset = tracked.read_offset, error = %error,
                "cannot {action}; trying again"
            );
        }
        tracked.last_error = format!("cannot {action}: {error}");
    }

    /// The file was truncated or rewritten: its old incarnation ends, a new one begins.
    fn restart(&mut self, file: FileKey, why: &str, now: Instant) {
        let Some(old_offset) = self.registry.get(file).map(|tracked| tracked.read_offset) else {
            return;
        };
        let unix = clock::wall().as_secs();
        let Some(restarted) = self.registry.restart(file, now, unix) else { return };
        let Some(reader) = self.readers.remove(&file) else { return };
        if let (Ok(head), Some(tracked)) = (reader.head(), self.registry.get_mut(restarted.file)) {
            tracked.opened.head = head;
            tracing::warn!(
                file = %tracked.opened.path.display(), offset = old_offset,
                skipped = restarted.lost_bytes, reason = why,
                "it was truncated or rewritten; reading from its first byte"
            );
        }
        self.counters.files_truncated += 1;
        self.counters.skipped_truncated_bytes += restarted.lost_bytes;
        self.batcher.end(file);
        self.begin_stream(restarted.file);
        self.readers.insert(restarted.file, reader);
        self.schedule.mark(restarted.file);
        self.is_moved = true;
        // Notifications must lead to the new key before the next discovery.
        self.refresh_names();
    }

    /// One turn of one file: a piece of it goes through the stages.
    pub(super) fn read(&mut self, file: FileKey, flush_partial: bool, now: Instant) {
        let Some(stat) = self.stat(file) else { return };
        let change = self.registry.on_stat(file, stat.size, stat.links, now);
        if change == Change::Shrank {
            return self.restart(file, "it is shorter than what was read", now);
        }
        // What has grown a moment ago has not been quiet.
        let flush_partial = flush_partial && change != Change::Grew;
        let mut buffer = std::mem::take(&mut self.buffer);
        let outcome = self.read_into(&mut buffer, file, stat, flush_partial, now);
        self.buffer = buffer;
        match outcome {
            Ok(Piece::Done) => {}
            Ok(Piece::More) => self.schedule.mark(file),
            Ok(Piece::Blocked) => {
                self.is_blocked = true;
                self.schedule.put_back(file);
            }
            Ok(Piece::Rewritten) => self.restart(file, "other bytes stand before the offset", now),
            Err(error) => self.note_file_error(file, "read it", &error),
        }
        self.touch(now);
    }

    fn read_into(
        &mut self,
        buffer: &mut [u8],
        file: FileKey,
        stat: Stat,
        flush_partial: bool,
        now: Instant,
    ) -> io::Result<Piece> {
        let Some(tracked) = self.registry.get(file) else { return Ok(Piece::Done) };
        let Some(reader) = self.readers.get(&file) else { return Ok(Piece::Done) };
        let (tail, head) = (tracked.tail, tracked.opened.head);
        let lead = tail.len as usize;
        let from = tracked.read_offset - u64::from(tail.len);
        let bytes = reader.read_once(buffer, from)?;
        let is_head_other = from == 0 && !head.matches_start_of(bytes);
        if is_head_other || !tail.matches_start_of(bytes) {
            return Ok(Piece::Rewritten);
        }
        if (head.len as usize) < HEAD_BYTES_MAX && u64::from(head.len) < stat.size {
            if !reader.has_head(head)? {
                return Ok(Piece::Rewritten);
            }
            let head = reader.head()?;
            if let Some(tracked) = self.registry.get_mut(file) {
                tracked.opened.head = head;
            }
        }
        let is_to_end = from + bytes.len() as u64 >= stat.size;
        let time = u32::try_from(clock::wall().as_secs()).unwrap_or(u32::MAX);
        let input = Input {
            bytes,
            lead,
            offset: from + lead as u64,
            time,
            now,
            flush_partial: flush_partial && is_to_end,
        };
        Ok(self.feed(file, input, is_to_end))
    }

    /// Lets the stages take what they can, sealing as they ask for it and as there is room.
    fn feed(&mut self, file: FileKey, mut input: Input<'_>, mut is_to_end: bool) -> Piece {
        // Under a rate limit a turn takes a piece of it, unless a single line is longer. The end
        // of a piece is not the end of the file, so nothing unfinished is sent there.
        let (whole, whole_is_to_end, whole_flush) = (input.bytes, is_to_end, input.flush_partial);
        let piece = input.lead.saturating_add(self.piece_bytes);
        if piece < whole.len() {
            input.bytes = &whole[..piece];
            input.flush_partial = false;
            is_to_end = false;
        }
        loop {
            let mut writer = self.batcher.writer(file);
            let progress = pipeline::advance(&input, self.tail.line_bytes_max, &mut writer);
            input.lead += progress.consumed;
            let before = input.offset;
            input.offset += progress.consumed as u64;
            self.counters.lines += progress.records;
            self.counters.bytes += progress.consumed as u64;
            self.counters.lines_split += progress.cut - u64::from(progress.sent_partial);
            self.counters.lines_partial += u64::from(progress.sent_partial);
            if let Some(bucket) = &mut self.bucket {
                bucket.take(progress.consumed as u64, input.now);
            }
            let left = &input.bytes[input.lead..];
            let is_at_end = is_to_end && progress.stop == Stop::NeedsBytes;
            self.registry.on_read(file, input.offset, progress.tail, is_at_end, left == b"\r");
            if let Some(tracked) = self.registry.get_mut(file) {
                tracked.last_error.clear();
                if progress.passed > 0 {
                    let end = before + progress.passed as u64;
                    let passed = &input.bytes[..input.lead - progress.consumed + progress.passed];
                    let tail = Fingerprint::of_tail(passed);
                    tracked.watermark.on_passed(before, end, tail);
                    self.is_moved = true;
                }
            }
            let is_stuck = progress.consumed == 0 && input.bytes.len() < whole.len();
            match progress.stop {
                Stop::NeedsBytes if is_stuck => {
                    input.bytes = whole;
                    input.flush_partial = whole_flush;
                    is_to_end = whole_is_to_end;
                }
                Stop::NeedsBytes if is_to_end => return Piece::Done,
                // It has a size and does not give the bytes: the next examination asks again.
                Stop::NeedsBytes if progress.consumed == 0 => return Piece::Done,
                Stop::NeedsBytes => return Piece::More,
                Stop::Seal(reason) => {
                    if !self.handoff.has_room() {
                        return Piece::Blocked;
                    }
                    self.seal(file, reason);
                }
            }
        }
    }
}

/// How a turn of a file ended.
enum Piece {
    /// Read to its end.
    Done,
    /// There is more in the file.
    More,
    /// The hand-off is full.
    Blocked,
    /// The bytes before the offset are others than before.
    Rewritten,
}
