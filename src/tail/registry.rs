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
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::catalog::judge::{self, Stat};
use crate::base::fingerprint::Fingerprint;
use crate::base::span::{CollectionId, FileKey, Span, StreamKey};
use crate::checkpoint::format::Checkpoint;
use crate::checkpoint::watermark::Watermark;

/// How long a renamed file must have been quiet, with all of it acknowledged, before it is closed.
/// Apps keep writing to a rotated file until they notice; ten minutes is what logtail grants too.
pub const ROTATED_QUIET: Duration = Duration::from_secs(600);
/// Shortest silence after which a deleted file is closed: the bytes of the file occupy the disk as
/// long as it is open.
pub const DELETED_QUIET: Duration = Duration::from_secs(60);
/// How many times its longest pause so far a deleted file must have been quiet, too.
const DELETED_PAUSES: u32 = 4;
/// Longest silence that a deleted file is kept for, where it is not known who writes to it.
pub const DELETED_QUIET_MAX: Duration = Duration::from_secs(3600);
/// Silence after which a deleted file is closed while other files wait for a descriptor.
pub const DELETED_QUIET_SCARCE: Duration = Duration::from_secs(5);

/// Most places that a trail holds.
const TRAIL_MAX: usize = 15;

/// Most places of a trail that a checkpoint holds.
const TRAIL_SAVED_MAX: usize = 7;

/// Places up to which a file was read to its end, with the fingerprints of the bytes before each: the
/// last ones, and of older ones fewer and fewer. A copy that is shorter than what was read since is
/// known by one of them.
pub type Trail = VecDeque<(u64, Fingerprint)>;

fn prolong(trail: &mut Trail, place: (u64, Fingerprint)) {
    trail.push_back(place);
    if trail.len() > TRAIL_MAX {
        let mut index = 0;
        trail.retain(|_| {
            index += 1;
            index > TRAIL_MAX / 2 || index % 2 == 1
        });
    }
}

/// Where a tracked file stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The patterns find the file.
    Active,
    /// The file has a name that the patterns do not find (any more).
    Rotated,
    /// The file has no name: only our descriptor, and perhaps a writer's, keeps it.
    Deleted,
}

impl State {
    /// The word for the state that people read.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Rotated => "rotated",
            Self::Deleted => "deleted",
        }
    }
}

/// A file that was just opened, and where to go on in it.
#[derive(Clone, Debug)]
pub struct Opened {
    /// The collection for which the file is read.
    pub collection: CollectionId,
    /// Path as configured, links not resolved.
    pub path: Arc<Path>,
    /// Where the file really is.
    pub resolved: Arc<Path>,
    /// Device number.
    pub device: u64,
    /// Inode number.
    pub inode: u64,
    /// When the file was made, in nanoseconds since 1970; 0 for not known.
    pub born: i64,
    /// Fingerprint of the file's first bytes.
    pub head: Fingerprint,
    /// Offset at which to go on.
    pub offset: u64,
    /// Fingerprint of the bytes before `offset`.
    pub tail: Fingerprint,
}

/// Size in bytes and time of change (seconds and nanoseconds of Unix time) of a name: while they
/// stay, there is nothing new in the file.
pub type FoundAs = (u64, (i64, i64));

/// One tracked file.
#[derive(Clone, Debug)]
pub struct Tracked {
    /// The file as it was opened: the names of the moment, and the identity.
    pub opened: Opened,
    /// How it was seen by discovery.
    pub sighting: Sighting,
    /// When a compressed file had the text that is read, in Unix seconds; `None` if the file is not
    /// compressed. The text never changes; the file may.
    pub unpacked_unix: Option<u64>,
    /// Where the file stands.
    pub state: State,
    /// Size of the file when it was last examined, in bytes.
    pub size: u64,
    /// Size of the file when its bytes were last found to be the known ones. What came since may be
    /// the text of another incarnation.
    pub sure_size: u64,
    /// When the file had changed last by then, in nanoseconds since 1970.
    pub sure_changed: i64,
    /// When the file's bytes changed last, as last examined; `None` if they may have changed since.
    pub modified: Option<i64>,
    /// When the file's bytes, names or rights changed last, as last examined while the file had a
    /// name and all that was read of it; in nanoseconds since 1970.
    pub changed: i64,
    /// What of the file is not read, and will not be.
    pub skipped: Skipped,
    /// When the file went.
    pub gone: Gone,
    /// Whether what the file holds is to be judged before it is read: the file was written over, and
    /// a copy of another one may stand in it.
    pub may_be_copy: bool,
    /// Offset just past the last byte that went into a group.
    pub read_offset: u64,
    /// Fingerprint of the bytes before `read_offset`.
    pub tail: Fingerprint,
    /// Places at which readings of the file ended.
    pub trail: Trail,
    /// What is acknowledged.
    pub watermark: Watermark,
    /// When the file has grown.
    pub growth: Growth,
    /// Whether the file was read to its end. What is left there, if anything, is no complete line.
    pub is_at_end: bool,
    /// Whether what is left is never sent by itself: a lone `\r`, or NULs.
    pub is_rest_idle: bool,
    /// Last time, in Unix seconds, when all of the file was acknowledged.
    pub level_unix: u64,
    /// The last error with the file; empty when there was none.
    pub last_error: String,
}

/// How discovery saw a file.
#[derive(Clone, Debug)]
pub struct Sighting {
    /// Path of the file when it was opened, or the one that a checkpoint knows.
    pub named: Arc<Path>,
    /// The path under which discovery found the file last; another one after a rename within the
    /// patterns.
    pub path: Arc<Path>,
    /// Size and time of change as discovery found them last.
    pub found_as: FoundAs,
    /// Whether the last discovery found the file.
    pub is_last: bool,
}

/// Bytes of a file that are not read.
#[derive(Clone, Copy, Debug, Default)]
pub struct Skipped {
    /// Bytes passed over as holes.
    pub hole_bytes: u64,
    /// Bytes at the end of the file that were given up: seen and not read.
    pub left_bytes: u64,
}

impl Skipped {
    /// All of the bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.hole_bytes + self.left_bytes
    }
}

/// When a file, or what it held, went.
#[derive(Clone, Copy, Debug, Default)]
pub struct Gone {
    /// When the file was first seen without a name.
    pub deleted_at: Option<Instant>,
    /// When the file's bytes were known to have gone away, in nanoseconds since 1970: the file was
    /// deleted, or other bytes stand in it. 0 as long as they are there; `i64::MAX` if it is not
    /// known when.
    pub at: i64,
}

impl Gone {
    /// Notes that the file has no name. It lost that at the time `at`, as far as is known.
    fn on_deleted(&mut self, now: Instant, at: impl FnOnce() -> Option<i64>) {
        self.deleted_at.get_or_insert(now);
        if self.at == 0 || self.at == i64::MAX {
            self.at = at().unwrap_or(i64::MAX);
        }
    }
}

/// How a file grows.
#[derive(Clone, Copy, Debug)]
pub struct Growth {
    /// When the file was last seen to grow (or was opened).
    pub at: Instant,
    /// The longest time between two growths of the file, as they were seen.
    longest_pause: Duration,
    /// How often in a row the file grew without a notification.
    unannounced: u8,
}

impl Growth {
    const fn new(now: Instant) -> Self {
        Self { at: now, longest_pause: Duration::ZERO, unannounced: 0 }
    }

    fn on_grown(&mut self, now: Instant) {
        self.longest_pause = self.longest_pause.max(now - self.at);
        self.at = now;
    }

    /// Notes whether a notification told of the growth. Returns how often in a row none did.
    pub fn on_announced(&mut self, is_announced: bool) -> u8 {
        self.unannounced = if is_announced { 0 } else { self.unannounced.saturating_add(1) };
        self.unannounced
    }

    /// Whether the file has been quiet for so long.
    fn is_quiet(&self, quiet: Duration, now: Instant) -> bool {
        self.at + quiet <= now
    }

    /// How long a deleted file must have been quiet before it is taken for left by its app. The app
    /// may write as seldom as before.
    fn deleted_quiet(&self) -> Duration {
        let quiet = self.longest_pause.saturating_mul(DELETED_PAUSES);
        quiet.clamp(DELETED_QUIET, DELETED_QUIET_MAX)
    }
}

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
            sure_size: opened.offset,
            sure_changed: i64::MAX,
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
            let cut_bytes = tracked.sure_size.saturating_sub(size);
            tracked.sure_size -= cut_bytes;
            return Change::Cut(cut_bytes);
        }
        Change::Grew
    }

    /// Notes that a file had `size` bytes and the known ones among them. Returns how many of them
    /// are new.
    pub fn on_verified(&mut self, file: FileKey, size: u64) -> u64 {
        let Some(tracked) = self.files.get_mut(&file) else { return 0 };
        let before = tracked.sure_size;
        tracked.sure_size = before.max(size);
        tracked.sure_size - before
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
        tracked.size = tracked.sure_size.max(tracked.read_offset);
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

impl Tracked {
    /// The paths of the file: where it stands, and where it stood under the names that the patterns
    /// found.
    pub fn places(&self) -> impl Iterator<Item = PathBuf> {
        let names = [&self.opened.path, &self.sighting.path].map(|path| path.file_name());
        let resolved = &self.opened.resolved;
        let places = names.into_iter().flatten().map(|name| resolved.with_file_name(name));
        places.chain([resolved.to_path_buf()]).collect::<BTreeSet<_>>().into_iter()
    }

    /// Whether the bytes from where the file was opened to its size are all acknowledged or
    /// skipped. To be asked of a settled incarnation.
    #[must_use]
    pub fn is_balanced(&self) -> bool {
        let acked = self.watermark.acked_bytes();
        self.opened.offset + acked + self.skipped.bytes() == self.size
    }

    /// Whether the file is read but for bytes that are never sent by themselves: they may be
    /// written over.
    #[must_use]
    pub fn waits_idly(&self) -> bool {
        self.is_at_end && self.is_rest_idle && self.size > self.read_offset
    }

    /// Whether the file may give its descriptor up to others that wait for one.
    #[must_use]
    pub fn can_close(&self, quiet: Duration, now: Instant) -> bool {
        let quiet = match self.state {
            State::Active if self.sighting.found_as.0 == self.size => quiet,
            State::Active => return false,
            State::Rotated => quiet,
            State::Deleted => DELETED_QUIET_SCARCE,
        };
        // What cannot be examined may hold more.
        self.last_error.is_empty() && self.is_delivered() && self.growth.is_quiet(quiet, now)
    }

    /// Whether all of the file was read and acknowledged, but for what is never sent by itself.
    #[must_use]
    pub fn is_delivered(&self) -> bool {
        let is_read = self.size == self.read_offset || (self.is_at_end && self.is_rest_idle);
        is_read && self.watermark.offset() == self.read_offset
    }

    /// Whether the file holds complete lines that are not acknowledged, as far as is known. An
    /// unfinished last line does not count: somebody may still write it.
    #[must_use]
    pub fn has_undelivered_lines(&self) -> bool {
        let is_read = self.size == self.read_offset || self.is_at_end;
        !is_read || self.watermark.offset() < self.read_offset
    }

    /// Whether all of the file was read and acknowledged, but for a last line without a line end.
    #[must_use]
    pub fn has_unfinished_line(&self) -> bool {
        let is_read = self.is_at_end && self.size > self.read_offset && !self.is_rest_idle;
        is_read && self.watermark.offset() == self.read_offset
    }

    /// The stream of the file, which has this key.
    #[must_use]
    pub fn stream(&self, file: FileKey) -> StreamKey {
        StreamKey { file, collection: self.opened.collection }
    }

    /// What a checkpoint remembers of the file.
    #[must_use]
    pub fn checkpoint(&self, unix: u64) -> Checkpoint {
        Checkpoint {
            path: self.opened.path.to_path_buf(),
            resolved: self.opened.resolved.to_path_buf(),
            device: self.opened.device,
            inode: self.opened.inode,
            born: self.opened.born,
            offset: self.watermark.offset(),
            head: self.opened.head,
            tail: self.watermark.tail(),
            seen_unix: self.unpacked_unix.unwrap_or(unix),
            rest: Some(self.rest_bytes()),
            gone_at: self.gone.at,
            trail: self.last_places(),
            ..Checkpoint::default()
        }
    }

    /// The last places at which readings ended and all was acknowledged.
    fn last_places(&self) -> Vec<(u64, Fingerprint)> {
        let acked = self.watermark.offset();
        let places = self.trail.iter().filter(|(offset, _)| *offset < acked).copied();
        let first = places.clone().count().saturating_sub(TRAIL_SAVED_MAX);
        places.skip(first).collect()
    }

    /// Bytes of the file that are not acknowledged, as far as is known, but for what is never sent
    /// by itself and what was given up.
    fn rest_bytes(&self) -> u64 {
        let is_idle = self.is_at_end && self.is_rest_idle;
        let end = if is_idle { self.read_offset } else { self.size - self.skipped.left_bytes };
        end.saturating_sub(self.watermark.offset())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::span::Span;

    fn opened(inode: u64, offset: u64) -> Opened {
        Opened {
            collection: CollectionId(0),
            path: Path::new("/share/logs/app.log").into(),
            resolved: Path::new("/data/pod/logs/app.log").into(),
            device: 1,
            inode,
            born: 0,
            head: Fingerprint::of(b"h"),
            offset,
            tail: Fingerprint::of(b"tail"),
        }
    }

    fn stat(size: u64, links: u64) -> Stat {
        Stat { device: 1, inode: 7, size, links, modified: Some(1), ..Stat::default() }
    }

    fn stream(file: FileKey) -> StreamKey {
        StreamKey { file, collection: CollectionId(0) }
    }

    fn none() -> Fingerprint {
        Fingerprint::default()
    }

    #[test]
    fn an_acknowledgement_moves_the_watermark_of_its_own_stream() {
        let mut registry = Registry::default();
        let file = registry.open(opened(7, 0), crate::base::clock::now(), 0);
        let span = Span::new(registry.stream(file).unwrap(), 0, 5);
        registry.watermark_mut(span.stream).unwrap().on_sealed(span, 1, none(), 0);
        let collection = CollectionId(1);
        let other = Span { stream: StreamKey { collection, ..span.stream }, ..span };

        assert_eq!(registry.on_ack(other, 1), (0, false));
        assert_eq!(registry.on_ack(span, 1), (5, true));
    }

    #[test]
    fn a_file_that_is_found_no_more_is_read_on() {
        let now = crate::base::clock::now();
        let mut registry = Registry::default();
        let file = registry.open(opened(7, 0), now, 0);

        assert_eq!(registry.on_scan(&HashSet::from([(1, 7)])), []);
        assert_eq!(registry.on_scan(&HashSet::new()), [file]);
        assert_eq!(registry.on_scan(&HashSet::new()), []);
        assert_eq!(registry.get(file).unwrap().state, State::Rotated);
        assert_eq!(registry.on_stat(file, &stat(5, 1), now), Change::Grew);
        registry.on_scan(&HashSet::from([(1, 7)]));
        assert_eq!(registry.get(file).unwrap().state, State::Active);
    }

    #[test]
    fn growth_is_news_until_it_is_read_to_the_end() {
        let now = crate::base::clock::now();
        let mut registry = Registry::default();
        let file = registry.open(opened(7, 0), now, 0);

        assert_eq!(registry.on_stat(file, &stat(10, 1), now), Change::Grew);
        assert_eq!(registry.on_stat(file, &stat(10, 1), now), Change::Unread);
        registry.on_read(file, 8, none(), true, false);
        assert_eq!(registry.on_stat(file, &stat(10, 1), now), Change::None);
        assert_eq!(registry.on_stat(file, &stat(11, 1), now), Change::Grew);
    }

    #[test]
    fn truncation_begins_a_new_incarnation_and_counts_what_was_lost() {
        let now = crate::base::clock::now();
        let mut registry = Registry::default();
        let file = registry.open(opened(7, 100), now, 0);
        registry.on_stat(file, &stat(150, 1), now);
        registry.on_read(file, 120, none(), false, false);

        assert_eq!(registry.on_stat(file, &stat(119, 1), now), Change::Shrank);
        registry.on_verified(file, 150);
        let restarted = registry.restart(file, 1, now, 0).unwrap();

        assert_eq!(restarted.lost_bytes, 30);
        assert_ne!(restarted.file, file);
        let tracked = registry.get(restarted.file).unwrap();
        assert_eq!((tracked.read_offset, tracked.watermark.offset()), (0, 0));
        assert_eq!(registry.find(1, 7), Some(restarted.file));
        assert!(registry.get(file).is_none());
    }

    #[test]
    fn truncation_is_noticed_before_anything_was_read() {
        let now = crate::base::clock::now();
        let mut registry = Registry::default();
        let head = Fingerprint::of_head(b"one\n");
        let file = registry.open(Opened { head, ..opened(7, 0) }, now, 0);
        assert_eq!(registry.on_stat(file, &stat(4, 1), now), Change::Grew);
        assert_eq!(registry.on_stat(file, &stat(3, 1), now), Change::Shrank);
    }

    #[test]
    fn an_unfinished_line_is_due_after_its_quiet_time() {
        let start = crate::base::clock::now();
        let at = |s| start + Duration::from_secs(s);
        let timeout = Duration::from_secs(5);
        let mut registry = Registry::default();
        let file = registry.open(opened(7, 0), at(0), 0);
        registry.on_stat(file, &stat(3, 1), at(1));
        registry.on_read(file, 0, none(), true, false);

        assert_eq!(registry.rest_deadline(timeout), Some(at(6)));
        assert_eq!(registry.rests_due(timeout, at(5)), []);
        registry.on_stat(file, &stat(4, 1), at(5));
        assert_eq!(registry.rest_deadline(timeout), None);
        registry.on_read(file, 0, none(), true, false);
        assert_eq!(registry.rests_due(timeout, at(9)), []);
        assert_eq!(registry.rests_due(timeout, at(10)), [file]);
        registry.on_read(file, 4, none(), true, false);
        assert_eq!(registry.rest_deadline(timeout), None);
    }

    #[test]
    fn an_unfinished_line_that_cannot_be_read_waits_for_the_next_examination() {
        let now = crate::base::clock::now();
        let mut registry = Registry::default();
        let file = registry.open(opened(7, 0), now, 0);
        registry.on_stat(file, &stat(3, 1), now);
        registry.on_read(file, 0, none(), true, false);

        registry.on_unreadable(file);

        assert_eq!(registry.rest_deadline(Duration::ZERO), None);
        assert_eq!(registry.on_stat(file, &stat(3, 1), now), Change::Unread);
    }

    #[test]
    fn a_trail_leads_far_back_in_larger_and_larger_steps() {
        let mut trail = Trail::new();
        for offset in 1..=1000 {
            prolong(&mut trail, (offset, none()));
        }
        let offsets: Vec<u64> = trail.iter().map(|(offset, _)| *offset).collect();

        assert!(offsets.len() <= TRAIL_MAX && offsets.ends_with(&[997, 998, 999, 1000]));
        assert!(offsets[0] < 900, "{offsets:?}");
        assert!(offsets.is_sorted_by(|a, b| a < b));
    }

    #[test]
    fn a_deleted_file_is_closed_only_when_delivered_and_quiet() {
        let start = crate::base::clock::now();
        let later = start + DELETED_QUIET;
        let mut registry = Registry::default();
        let file = registry.open(opened(7, 0), start, 0);
        registry.on_stat(file, &stat(5, 0), start);
        assert_eq!(registry.get(file).unwrap().state, State::Deleted);
        assert_eq!(registry.closable(later), []);
        registry.on_read(file, 5, none(), true, false);
        let span = Span::new(stream(file), 0, 5);
        registry.get_mut(file).unwrap().watermark.on_sealed(span, 1, none(), 0);
        assert_eq!(registry.closable(later), []);
        registry.get_mut(file).unwrap().watermark.on_ack(span, 1);

        assert_eq!(registry.closable(later - Duration::from_millis(1)), []);
        assert_eq!(registry.closable(later), [file]);
    }

    #[test]
    fn a_deleted_file_is_kept_for_as_long_as_its_app_may_be_silent() {
        let start = crate::base::clock::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut registry = Registry::default();
        let file = registry.open(opened(7, 0), start, 0);
        for (number, seconds) in [(1, 75), (2, 150), (3, 160)] {
            registry.on_stat(file, &stat(number, u64::from(seconds < 150)), at(seconds));
            registry.on_read(file, number, none(), true, false);
            let span = Span::new(stream(file), number - 1, number);
            let watermark = &mut registry.get_mut(file).unwrap().watermark;
            watermark.on_sealed(span, 1, none(), 0);
            watermark.on_ack(span, 1);
        }

        assert_eq!(registry.closable(at(160 + 299)), []);
        assert_eq!(registry.closable(at(160 + 300)), [file]);
        registry.get_mut(file).unwrap().growth.longest_pause = Duration::from_secs(100_000);
        assert_eq!(registry.closable(at(160) + DELETED_QUIET_MAX), [file]);
    }

    #[test]
    fn an_unfinished_last_line_is_not_undelivered() {
        let now = crate::base::clock::now();
        let mut registry = Registry::default();
        let file = registry.open(opened(7, 0), now, 0);
        registry.on_stat(file, &stat(5, 1), now);
        assert!(registry.get(file).unwrap().has_undelivered_lines());
        registry.on_read(file, 0, none(), true, false);
        assert!(!registry.get(file).unwrap().has_undelivered_lines());
        assert!(!registry.get(file).unwrap().is_delivered());
    }

    #[test]
    fn a_write_that_keeps_the_size_is_noticed_by_its_time() {
        let now = crate::base::clock::now();
        let mut registry = Registry::default();
        let file = registry.open(opened(7, 0), now, 0);
        let at = |modified| Stat { modified, ..stat(5, 1) };
        assert_eq!(registry.on_stat(file, &at(Some(1)), now), Change::Grew);
        registry.on_read(file, 5, none(), true, false);

        assert_eq!(registry.on_stat(file, &at(Some(1)), now), Change::None);
        assert_eq!(registry.on_stat(file, &at(Some(2)), now), Change::Touched);
        assert_eq!(registry.on_stat(file, &at(None), now), Change::Touched);
        assert_eq!(registry.on_stat(file, &at(Some(2)), now), Change::Touched, "it was too young");
        assert_eq!(registry.on_stat(file, &at(Some(2)), now), Change::None);
    }

    #[test]
    fn an_account_is_settled_when_the_last_batch_is_acknowledged() {
        let now = crate::base::clock::now();
        let mut registry = Registry::default();
        let file = registry.open(opened(7, 10), now, 0);
        registry.on_stat(file, &stat(100, 1), now);
        assert_eq!(registry.on_verified(file, 100), 90);
        registry.on_read(file, 60, none(), false, false);
        let span = Span::new(stream(file), 10, 60);
        registry.watermark_mut(span.stream).unwrap().on_sealed(span, 1, none(), 5);
        registry.get_mut(file).unwrap().skipped.hole_bytes = 5;
        registry.on_stat(file, &stat(130, 1), now);

        let restarted = registry.restart(file, 1, now, 0).unwrap();
        assert_eq!(restarted.lost_bytes, 40, "what came last may be of the new text");
        assert_eq!(registry.take_settled().len(), 0);
        assert_eq!(registry.on_ack(span, 1), (45, true));

        let settled = registry.take_settled();
        assert_eq!((settled.len(), settled[0].1.size), (1, 100));
        assert!(settled[0].1.is_balanced());
        let mut wrong = settled[0].1.clone();
        wrong.skipped.left_bytes -= 1;
        assert!(!wrong.is_balanced());
    }

    #[test]
    fn what_is_forgotten_has_no_account() {
        let now = crate::base::clock::now();
        let mut registry = Registry::default();
        let file = registry.open(opened(7, 0), now, 0);
        registry.on_stat(file, &stat(5, 1), now);
        registry.on_verified(file, 2);

        assert_eq!(registry.forget(file), 2);
        assert_eq!(registry.find(1, 7), None);
        assert!(!registry.is_known(file) && registry.take_settled().is_empty());
    }

    #[test]
    fn the_files_deleted_first_go_beyond_the_budget() {
        let start = crate::base::clock::now();
        let mut registry = Registry::default();
        let mut delete = |inode: u64, size, at| {
            let file = registry.open(opened(inode, 0), start, 0);
            registry.on_stat(file, &stat(size, 0), start + Duration::from_secs(at));
            file
        };
        let (late, early, alive) = (delete(1, 30, 9), delete(2, 20, 1), delete(3, 10, 5));
        registry.get_mut(alive).unwrap().state = State::Active;

        assert_eq!(registry.held_deleted_bytes(), 50);
        assert_eq!(registry.beyond_budget(50), []);
        assert_eq!(registry.beyond_budget(49), [early]);
        assert_eq!(registry.beyond_budget(29), [early, late]);
    }

    #[test]
    fn what_is_cut_off_unread_is_told() {
        let now = crate::base::clock::now();
        let mut registry = Registry::default();
        let file = registry.open(opened(7, 0), now, 0);
        registry.on_stat(file, &stat(100, 1), now);
        registry.on_verified(file, 90);
        registry.on_read(file, 10, none(), true, true);

        assert_eq!(registry.on_stat(file, &stat(100, 1), now), Change::Touched, "it waits idly");
        assert_eq!(registry.on_stat(file, &stat(50, 1), now), Change::Cut(40));
        assert_eq!(registry.on_verified(file, 50), 0);
        assert_eq!(registry.end(file), Some(40));
    }
}
