//! The collector's dealings with files: look, discover, open, read.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use super::{Collector, SCAN_PERIOD, SCAN_PERIOD_POLLING};
use crate::batch::log_group;
use crate::clock;
use crate::fingerprint::Fingerprint;
use crate::span::FileKey;
use crate::tail::identity::Match;
use crate::tail::reader::Reader;
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
        self.keep_within_budget();
        self.note_polling();
        let has_gone = self.registry.iter().any(|(_, tracked)| tracked.state != State::Active);
        let is_slow = self.watch.trouble().is_none() && !has_gone;
        self.scan_at = now + if is_slow { SCAN_PERIOD } else { SCAN_PERIOD_POLLING };
        self.publish_at = Some(now);
        self.is_ready = true;
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
        let resolved = reader.path().unwrap_or_else(|| path.to_owned());
        let path = path.to_owned();
        let born = stat.born;
        let opened = Opened { path, resolved, device, inode, born, head, offset, tail };
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
                            born: stat.born,
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

    pub(super) fn begin_stream(&mut self, file: FileKey) {
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
    pub(super) fn refresh_names(&mut self) {
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
    fn close(&mut self, file: FileKey) -> u64 {
        self.note_seen(file);
        let left = self.registry.end(file).unwrap_or(0);
        self.batcher.end(file);
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
        for ended in self.registry.take_settled() {
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
            let checkpoint = ended.checkpoint(clock::wall().as_secs());
            self.remembered.put_done(checkpoint, has_gone);
            self.is_moved = true;
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
        match self.registry.on_stat(file, &stat, now) {
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
            Change::Unread | Change::Touched => self.schedule.mark(file),
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
