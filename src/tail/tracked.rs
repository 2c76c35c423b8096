//! What is known of an open file: the identity and the names of the moment, what of it is read, and what
//! is acknowledged.
//!
//! Pure. The files are in the [`super::registry`], which takes the facts.

use std::collections::{BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::base::fingerprint::Fingerprint;
use crate::base::span::{CollectionId, FileKey, StreamKey};
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
pub(super) const TRAIL_MAX: usize = 15;

/// Most places of a trail that a checkpoint holds.
const TRAIL_SAVED_MAX: usize = 7;

/// Places up to which a file was read to its end, with the fingerprints of the bytes before each: the
/// last ones, and of older ones fewer and fewer. A copy that is shorter than what was read since is
/// known by one of them.
pub type Trail = VecDeque<(u64, Fingerprint)>;

pub(super) fn prolong(trail: &mut Trail, place: (u64, Fingerprint)) {
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
    /// The file as its bytes were last found to be the known ones.
    pub sure: Sure,
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

/// A file when its bytes were found to be the known ones.
#[derive(Clone, Copy, Debug)]
pub struct Sure {
    /// Size in bytes. What came since may be the text of another incarnation.
    pub size: u64,
    /// When the file had changed last by then, in nanoseconds since 1970.
    pub changed: i64,
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
    pub(super) fn on_deleted(&mut self, now: Instant, at: impl FnOnce() -> Option<i64>) {
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
    pub(super) longest_pause: Duration,
    /// How often in a row the file grew without a notification.
    unannounced: u8,
}

impl Growth {
    pub(super) const fn new(now: Instant) -> Self {
        Self { at: now, longest_pause: Duration::ZERO, unannounced: 0 }
    }

    pub(super) fn on_grown(&mut self, now: Instant) {
        self.longest_pause = self.longest_pause.max(now - self.at);
        self.at = now;
    }

    /// Notes whether a notification told of the growth. Returns how often in a row none did.
    pub fn on_announced(&mut self, is_announced: bool) -> u8 {
        self.unannounced = if is_announced { 0 } else { self.unannounced.saturating_add(1) };
        self.unannounced
    }

    /// Whether the file has been quiet for so long.
    pub(super) fn is_quiet(&self, quiet: Duration, now: Instant) -> bool {
        self.at + quiet <= now
    }

    /// How long a deleted file must have been quiet before it is taken for left by its app. The app
    /// may write as seldom as before.
    pub(super) fn deleted_quiet(&self) -> Duration {
        let quiet = self.longest_pause.saturating_mul(DELETED_PAUSES);
        quiet.clamp(DELETED_QUIET, DELETED_QUIET_MAX)
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
