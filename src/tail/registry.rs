//! What happened to which file.
//!
//! Pure: facts come in (found, examined, read), states and deadlines come out. A file is tracked
//! from its opening to its closing; each truncation or rewriting begins a new incarnation with a
//! new [`FileKey`], so that late acknowledgements of the old bytes cannot move the new watermark.
//!
//! # Accounts
//! Each incarnation has an account: of the bytes seen from where it was opened to its size at the
//! end, every one is acknowledged or skipped for a reason. It is settled when the last batch of an
//! ended incarnation is acknowledged ([`Registry::take_settled`]).

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::path::Path;
use std::time::{Duration, Instant};

use super::catalog::judge::{self, Stat};
use super::tracked::{
    FoundAs, Gone, Growth, Opened, ROTATED_QUIET, Sighting, Skipped, State, Sure, Tracked, Trail,
    prolong,
};
use crate::base::fingerprint::Fingerprint;
use crate::base::span::{FileKey, Span, StreamKey};
use crate::checkpoint::watermark::Watermark;

/// What an examination showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The examination shows nothing new.
    None,
    /// There are more bytes than at the last examination.
    Grew,
    /// There are no more bytes than at the last examination, but not all of them were read yet.
    Unread,
    /// There are as many bytes as at the last examination, and they were written to since.
    Touched,
    /// There are fewer bytes than at the last examination, but none of those that were read is
    /// missing. The number says how many of the missing ones were seen.
    Cut(u64),
    /// There are fewer bytes than were read or are known as the head: the file was truncated.
    Shrank,
}

/// A file that was truncated or rewritten, and began anew in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restarted {
    /// The new key of the file.
    pub file: FileKey,
    /// Bytes that had been seen on disk and were not read: they are gone.
    pub lost_bytes: u64,
}

/// All tracked files.
#[derive(Debug, Default)]
pub struct Registry {
    /// The open incarnations. Boxed, because a map keeps room for more than it holds, and there may
    /// be many.
    files: BTreeMap<FileKey, Box<Tracked>>,
    /// Incarnations that ended and have batches under way.
    ended: BTreeMap<FileKey, Box<Tracked>>,
    by_inode: HashMap<(u64, u64), FileKey>,
    /// Files with an unfinished last line, by the time it was last added to.
    rests: BTreeSet<(Instant, FileKey)>,
    next_key: u32,
}

impl Registry {
    /// Begins to track a file. `unix` is the wall-clock time.
    pub fn open(&mut self, opened: Opened, now: Instant, unix: u64) -> FileKey {
        let file = FileKey(self.next_key);
        self.next_key += 1;
        self.by_inode.insert((opened.device, opened.inode), file);
        let tracked = Tracked {
            state: State::Active,
            size: opened.offset,
            sure: Sure { size: opened.offset, changed: i64::MAX },
            modified: None,
            changed: 0,
            skipped: Skipped::default(),
            gone: Gone::default(),
            may_be_copy: false,
            read_offset: opened.offset,
            tail: opened.tail,
            trail: Trail::new(),
            watermark: Watermark::at(opened.offset, opened.tail),
            growth: Growth::new(now),
            is_at_end: false,
            is_rest_idle: false,
            level_unix: unix,
            last_error: String::new(),
            sighting: Sighting {
                named: opened.resolved.clone(),
                path: opened.path.clone(),
                found_as: FoundAs::default(),
                is_last: true,
            },
            unpacked_unix: None,
            opened,
        };
        self.files.insert(file, Box::new(tracked));
        file
    }

    /// The tracked file with this device and inode.
    #[must_use]
    pub fn find(&self, device: u64, inode: u64) -> Option<FileKey> {
        self.by_inode.get(&(device, inode)).copied()
    }

    /// One tracked file.
    #[must_use]
    pub fn get(&self, file: FileKey) -> Option<&Tracked> {
        self.files.get(&file).map(Box::as_ref)
    }

    /// One tracked file, to change what only the loop knows of it.
    pub fn get_mut(&mut self, file: FileKey) -> Option<&mut Tracked> {
        self.files.get_mut(&file).map(Box::as_mut)
    }

    /// All tracked files, in the order of opening.
    pub fn iter(&self) -> impl Iterator<Item = (FileKey, &Tracked)> {
        self.files.iter().map(|(file, tracked)| (*file, tracked.as_ref()))
    }

    /// The key that the next incarnation gets.
    #[must_use]
    pub fn next_key(&self) -> FileKey {
        FileKey(self.next_key)
    }

    /// The tracked files that were opened with this key or later.
    pub fn iter_from(&self, first: FileKey) -> impl Iterator<Item = (FileKey, &Tracked)> {
        self.files.range(first..).map(|(file, tracked)| (*file, tracked.as_ref()))
    }

    /// Takes the devices and inodes of the files that a discovery found. Returns the tracked files
    /// that it found no more: they were renamed away or deleted.
    pub fn on_scan(&mut self, found: &HashSet<(u64, u64)>) -> Vec<FileKey> {
        let mut gone = Vec::new();
        for (&file, tracked) in &mut self.files {
            let is_found = found.contains(&(tracked.opened.device, tracked.opened.inode));
            let was_found = std::mem::replace(&mut tracked.sighting.is_last, is_found);
            if is_found {
                tracked.state = State::Active;
            } else if was_found {
                // It may be known by now that it was deleted.
                if tracked.state == State::Active {
                    tracked.state = State::Rotated;
                }
                gone.push(file);
            }
        }
        gone
    }

    /// Takes what an examination of a file showed.
    pub fn on_stat(&mut self, file: FileKey, stat: &Stat, now: Instant) -> Change {
        let Some(tracked) = self.files.get_mut(&file) else { return Change::None };
        if stat.links == 0 {
            tracked.state = State::Deleted;
            let changed = tracked.changed;
            tracked.gone.on_deleted(now, || judge::gone_at(stat.changed, changed));
        }
        let size = stat.size;
        if size < tracked.read_offset.max(tracked.opened.head.len.into()) {
            return Change::Shrank;
        }
        if stat.links > 0 {
            tracked.changed = stat.changed;
        }
        let before = std::mem::replace(&mut tracked.size, size);
        let modified = std::mem::replace(&mut tracked.modified, stat.modified);
        if size == before {
            let is_read = tracked.is_at_end || size == tracked.read_offset;
            // What waits to be written over may be, without a trace (mmap(2)).
            let is_touched =
                modified.is_none() || modified != stat.modified || tracked.waits_idly();
            return match (is_read, is_touched) {
                (false, _) => Change::Unread,
                (true, true) => Change::Touched,
                (true, false) => Change::None,
            };
        }
        self.rests.remove(&(tracked.growth.at, file));
        tracked.growth.on_grown(now);
        tracked.is_at_end = false;
        if size < before {
            let cut_bytes = tracked.sure.size.saturating_sub(size);
            tracked.sure.size -= cut_bytes;
            return Change::Cut(cut_bytes);
        }
        Change::Grew
    }

    /// Notes that a file had `size` bytes and the known ones among them. Returns how many of them
    /// are new.
    pub fn on_verified(&mut self, file: FileKey, size: u64) -> u64 {
        let Some(tracked) = self.files.get_mut(&file) else { return 0 };
        let before = tracked.sure.size;
        tracked.sure.size = before.max(size);
        tracked.sure.size - before
    }

    /// Notes that a file was read up to `offset`. `is_at_end` says that nothing complete is left
    /// behind it; `is_rest_idle` says that what is left there is nothing that is sent by itself.
    pub fn on_read(
        &mut self,
        file: FileKey,
        offset: u64,
        tail: Fingerprint,
        is_at_end: bool,
        is_rest_idle: bool,
    ) {
        let Some(tracked) = self.files.get_mut(&file) else { return };
        assert!(tracked.read_offset <= offset, "reading goes forward");
        if is_at_end && tracked.read_offset < offset {
            prolong(&mut tracked.trail, (offset, tail));
        }
        tracked.read_offset = offset;
        tracked.tail = tail;
        tracked.size = tracked.size.max(offset);
        tracked.is_at_end = is_at_end;
        tracked.is_rest_idle = is_rest_idle;
        let has_rest = is_at_end && !is_rest_idle && tracked.size > offset;
        if has_rest {
            self.rests.insert((tracked.growth.at, file));
        } else {
            self.rests.remove(&(tracked.growth.at, file));
        }
    }

    /// Notes that a file was opened again, under another device or inode number perhaps. Returns
    /// `false` if the numbers are those of another tracked file.
    pub fn on_reopened(&mut self, file: FileKey, stat: Stat, resolved: &Path) -> bool {
        let inode = (stat.device, stat.inode);
        let Some(tracked) = self.files.get_mut(&file) else { return false };
        if self.by_inode.get(&inode).is_some_and(|other| *other != file) {
            return false;
        }
        let opened = &mut tracked.opened;
        self.by_inode.remove(&(opened.device, opened.inode));
        self.by_inode.insert(inode, file);
        (opened.device, opened.inode, opened.born) = (stat.device, stat.inode, stat.born);
        if *opened.resolved != *resolved {
            opened.resolved = resolved.into();
        }
        tracked.last_error.clear();
        true
    }

    /// Notes that a file could not be read: what is left of it is not known, and the next
    /// examination asks again.
    pub fn on_unreadable(&mut self, file: FileKey) {
        let Some(tracked) = self.files.get_mut(&file) else { return };
        self.rests.remove(&(tracked.growth.at, file));
        tracked.is_at_end = false;
    }

    /// Begins a new incarnation of a file that was truncated or rewritten, at 0; the old one ends.
    /// The old bytes had gone away by `gone_at`, in nanoseconds since 1970.
    pub fn restart(
        &mut self,
        file: FileKey,
        gone_at: i64,
        now: Instant,
        unix: u64,
    ) -> Option<Restarted> {
        let tracked = self.files.get_mut(&file)?;
        tracked.gone.at = gone_at;
        let (opened, state, was_found) =
            (tracked.opened.clone(), tracked.state, tracked.sighting.is_last);
        let lost_bytes = self.end(file)?;
        let opened = Opened {
            head: Fingerprint::default(),
            offset: 0,
            tail: Fingerprint::default(),
            ..opened
        };
        let restarted = self.open(opened, now, unix);
        if let Some(tracked) = self.files.get_mut(&restarted) {
            (tracked.state, tracked.sighting.is_last) = (state, was_found);
        }
        Some(Restarted { file: restarted, lost_bytes })
    }

    /// Ends the tracking of an incarnation; acknowledgements of it are still taken. Returns the
    /// bytes that were seen for sure and not read: they are given up.
    pub fn end(&mut self, file: FileKey) -> Option<u64> {
        let mut tracked = self.files.remove(&file)?;
        self.rests.remove(&(tracked.growth.at, file));
        let inode = (tracked.opened.device, tracked.opened.inode);
        if self.by_inode.get(&inode) == Some(&file) {
            self.by_inode.remove(&inode);
        }
        tracked.size = tracked.sure.size.max(tracked.read_offset);
        let left_bytes = tracked.size - tracked.read_offset;
        tracked.skipped.left_bytes = left_bytes;
        self.ended.insert(file, tracked);
        Some(left_bytes)
    }

    /// Forgets a file of which nothing was read, as if it had never been opened. Returns how many
    /// bytes of it were seen for sure.
    pub fn forget(&mut self, file: FileKey) -> u64 {
        if self.end(file).is_none() {
            return 0;
        }
        self.ended.remove(&file).map_or(0, |ended| ended.skipped.left_bytes)
    }

    /// The stream of an incarnation, ended or not.
    #[must_use]
    pub fn stream(&self, file: FileKey) -> Option<StreamKey> {
        let tracked = self.files.get(&file).or_else(|| self.ended.get(&file))?;
        Some(tracked.stream(file))
    }

    /// The watermark of a stream, ended or not.
    pub fn watermark_mut(&mut self, stream: StreamKey) -> Option<&mut Watermark> {
        let StreamKey { file, collection } = stream;
        let tracked = self.files.get_mut(&file).or_else(|| self.ended.get_mut(&file))?;
        (tracked.opened.collection == collection).then_some(&mut tracked.watermark)
    }

    /// Takes an acknowledgement of so many records of a sealed span. Returns how many bytes are
    /// acknowledged by that for the first time, and whether the watermark moved.
    pub fn on_ack(&mut self, span: Span, records: u32) -> (u64, bool) {
        let Some(watermark) = self.watermark_mut(span.stream) else { return (0, false) };
        let before = watermark.acked_bytes();
        let is_moved = watermark.on_ack(span, records);
        (watermark.acked_bytes() - before, is_moved)
    }

    /// Whether an incarnation is tracked, or has ended and has batches under way.
    #[must_use]
    pub fn is_known(&self, file: FileKey) -> bool {
        self.files.contains_key(&file) || self.ended.contains_key(&file)
    }

    /// An incarnation that ended and has batches under way.
    #[must_use]
    pub fn get_ended(&self, file: FileKey) -> Option<&Tracked> {
        self.ended.get(&file).map(Box::as_ref)
    }

    /// Whether an incarnation of this file has ended and has batches under way.
    #[must_use]
    pub fn has_ended(&self, stat: &Stat) -> bool {
        let identity = (stat.device, stat.inode, stat.born);
        let is_it = |one: &Opened| (one.device, one.inode, one.born) == identity;
        self.ended.values().any(|ended| is_it(&ended.opened))
    }

    /// Incarnations that ended and have batches under way.
    pub fn ended(&self) -> impl Iterator<Item = (FileKey, &Tracked)> {
        self.ended.iter().map(|(file, tracked)| (*file, tracked.as_ref()))
    }

    /// Takes out the ended incarnations of which all that was read is acknowledged.
    pub fn take_settled(&mut self) -> Vec<(FileKey, Box<Tracked>)> {
        let is_settled =
            |_: &FileKey, ended: &mut Box<Tracked>| ended.watermark.offset() == ended.read_offset;
        self.ended.extract_if(.., is_settled).collect()
    }

    /// Deleted files, the one deleted first at the front, that together occupy more than
    /// `bytes_max`: as many as must go.
    #[must_use]
    pub fn beyond_budget(&self, bytes_max: u64) -> Vec<FileKey> {
        let mut held: Vec<_> = self
            .iter()
            .filter(|(_, tracked)| tracked.state == State::Deleted)
            .map(|(file, tracked)| {
                (!tracked.is_delivered(), tracked.gone.deleted_at, file, tracked.size)
            })
            .collect();
        // What is delivered goes first: nothing is lost with it.
        held.sort_unstable();
        let mut bytes: u64 = held.iter().map(|(.., size)| size).sum();
        let mut beyond = Vec::new();
        for (.., file, size) in held {
            if bytes <= bytes_max {
                break;
            }
            bytes -= size;
            beyond.push(file);
        }
        beyond
    }

    /// Bytes of all deleted files that are open.
    #[must_use]
    pub fn held_deleted_bytes(&self) -> u64 {
        let held = self.files.values().filter(|tracked| tracked.state == State::Deleted);
        held.map(|tracked| tracked.size).sum()
    }

    /// Files whose unfinished last line has been quiet for `timeout`.
    #[must_use]
    pub fn rests_due(&self, timeout: Duration, now: Instant) -> Vec<FileKey> {
        self.rests
            .iter()
            .take_while(|(grown_at, _)| *grown_at + timeout <= now)
            .map(|(_, file)| *file)
            .collect()
    }

    /// When the next unfinished last line will have been quiet for `timeout`.
    #[must_use]
    pub fn rest_deadline(&self, timeout: Duration) -> Option<Instant> {
        self.rests.first().map(|(grown_at, _)| *grown_at + timeout)
    }

    /// The files that are delivered and have been quiet for `quiet` at least, those first that were
    /// so longest. Files that the patterns find come first; then those that were renamed, which can
    /// be opened again too; then those that were deleted, to which hardly anybody writes any more.
    #[must_use]
    pub fn idle(&self, quiet: Duration, now: Instant) -> VecDeque<FileKey> {
        let idle = self.iter().filter(|(_, tracked)| tracked.can_close(quiet, now));
        let order = |tracked: &Tracked| {
            let rank = match tracked.state {
                State::Active => 0,
                State::Rotated => 1,
                State::Deleted => 2,
            };
            (rank, tracked.growth.at)
        };
        let mut files: Vec<_> = idle.map(|(file, tracked)| (order(tracked), file)).collect();
        files.sort_unstable();
        files.into_iter().map(|(_, file)| file).collect()
    }

    /// Renamed and deleted files that are delivered and have been quiet for long enough.
    #[must_use]
    pub fn closable(&self, now: Instant) -> Vec<FileKey> {
        let is_closable = |tracked: &Tracked| {
            let quiet = match tracked.state {
                State::Active => return false,
                State::Rotated => ROTATED_QUIET,
                State::Deleted => tracked.growth.deleted_quiet(),
            };
            tracked.is_delivered() && tracked.growth.is_quiet(quiet, now)
        };
        self.iter().filter(|(_, tracked)| is_closable(tracked)).map(|(file, _)| file).collect()
    }
}

#[cfg(test)]
#[path = "registry_tests.rs"]
mod tests;
