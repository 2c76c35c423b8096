//! The system as the collector sees it: the seam under everything that reads logs.
//!
//! Whatever [`crate::tail`] and [`crate::collector`] want to know of files, directories, notifications, clocks
//! and chance, they ask an [`Os`]. There are two: [`kernel::Kernel`], and the world of the simulation, which
//! makes all of it from a seed. A method is one question to the system and its answer; what follows from the
//! answer is decided above, so that both have the same rules.

pub mod kernel;

use std::ffi::{OsStr, OsString};
use std::fmt::Debug;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::limit::cgroup::Limits;

/// Clocks that are read once for a step and passed down.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// Time of the clock that nobody sets.
    pub now: Instant,
    /// Time of the wall clock, since 1970.
    pub wall: Duration,
}

impl Times {
    /// Whole seconds of the wall clock since 1970.
    #[must_use]
    pub const fn unix(&self) -> u64 {
        self.wall.as_secs()
    }
}

/// Time stamp of a file: seconds since 1970 and nanoseconds.
pub type Stamp = (i64, i64);

/// What stat(2) says of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Device number.
    pub device: u64,
    /// Inode number.
    pub inode: u64,
    /// When the file was made, in nanoseconds since 1970; 0 where the file system does not say.
    pub born: i64,
    /// Size in bytes.
    pub size: u64,
    /// When the file's bytes changed last, or of a directory a name in it.
    pub modified: Stamp,
    /// When the file's bytes, names or rights changed last.
    pub changed: Stamp,
    /// How many names the file has; 0 when it was deleted.
    pub links: u64,
    /// What it is.
    pub kind: Kind,
}

impl Facts {
    /// Device and inode.
    #[must_use]
    pub const fn id(&self) -> (u64, u64) {
        (self.device, self.inode)
    }

    /// Whether it is a regular file.
    #[must_use]
    pub fn is_regular(&self) -> bool {
        self.kind == Kind::File
    }

    /// Whether it is a directory.
    #[must_use]
    pub fn is_directory(&self) -> bool {
        self.kind == Kind::Dir
    }

    /// Whether it is a symbolic link.
    #[must_use]
    pub fn is_link(&self) -> bool {
        self.kind == Kind::Link
    }
}

/// A time stamp in nanoseconds since 1970.
#[must_use]
pub const fn nanoseconds((seconds, nanoseconds): Stamp) -> i64 {
    seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds)
}

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link.
    Link,
    /// A named pipe.
    Pipe,
    /// A socket.
    Socket,
    /// A block device.
    BlockDevice,
    /// A character device.
    CharDevice,
}

/// A watched directory, as the system numbers it: another path to the same directory has the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WatchId(pub i32);

/// A notification.
#[derive(Clone, Copy, Debug)]
pub struct Event<'a> {
    /// The directory; of no meaning if notifications were dropped.
    pub dir: WatchId,
    /// What happened.
    pub what: What,
    /// Whether it happened to a directory in the watched one.
    pub is_dir: bool,
    /// Name in the directory to which it happened; none if it happened to the directory itself.
    pub name: Option<&'a OsStr>,
}

/// What a notification tells of (inotify(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Bytes of a file were written, or it was truncated.
    Written,
    /// Rights, time stamps or the number of links have changed.
    Attributes,
    /// A name was made.
    Created,
    /// A name came by a renaming.
    MovedTo,
    /// A name went by a renaming.
    MovedFrom,
    /// A name was deleted.
    Deleted,
    /// The watched directory itself was renamed, deleted or unmounted.
    Dir,
    /// The watch is gone: with its directory, or because it was removed.
    Ended,
    /// The queue was full, and notifications were dropped.
    Overflow,
}

/// The system.
///
/// A handle: copies are cheap and speak of the same system.
pub trait Os: Clone {
    /// An open file; closed when it is dropped.
    type File: OsFile;
    /// A name in a directory that is listed.
    type Entry: OsEntry;
    /// The names in a directory, in any order. An error ends them.
    type Dir: Iterator<Item = io::Result<Self::Entry>>;
    /// The notifications of this process.
    type Watch: OsWatch;

    /// Time of the clock that nobody sets.
    fn now(&self) -> Instant;

    /// Time of the wall clock, since 1970.
    fn wall(&self) -> Duration;

    /// CPU time that the process has used so far.
    fn cpu(&self) -> Duration;

    /// CPU time that the calling thread has used so far.
    fn thread_cpu(&self) -> Duration;

    /// Both clocks.
    fn times(&self) -> Times {
        Times { now: self.now(), wall: self.wall() }
    }

    /// Fills bytes with chance that nobody can foretell.
    ///
    /// # Errors
    /// If there is no source of chance.
    fn random(&self, bytes: &mut [u8]) -> io::Result<()>;

    /// What the container may use at present.
    fn limits(&self) -> Limits;

    /// Gives memory that is free back to the system.
    fn trim_memory(&self);

    /// Waits until `mail` is readable, or `watch` has events, but no longer than `at_most`, which is for ever
    /// if there is none. Returns `false` if nothing came in that time.
    fn wait(
        &self,
        mail: BorrowedFd<'_>,
        watch: Option<&Self::Watch>,
        at_most: Option<Duration>,
    ) -> bool;

    /// Opens a file for reading, through links, without waiting: what was a file a moment ago may be a pipe.
    ///
    /// # Errors
    /// As open(2).
    fn open(&self, path: &Path) -> io::Result<Self::File>;

    /// Examines what a path leads to.
    ///
    /// # Errors
    /// As stat(2).
    fn stat(&self, path: &Path) -> io::Result<Facts>;

    /// Examines what stands at a path, which may be a link.
    ///
    /// # Errors
    /// As lstat(2).
    fn lstat(&self, path: &Path) -> io::Result<Facts>;

    /// Examines what stands at a path of which no part may be a link.
    ///
    /// # Errors
    /// As openat2(2) with `RESOLVE_NO_SYMLINKS`, which not every system allows.
    fn stat_without_links(&self, path: &Path) -> io::Result<Facts>;

    /// Lists a directory.
    ///
    /// # Errors
    /// As opendir(3).
    fn list(&self, dir: &Path) -> io::Result<Self::Dir>;

    /// The target of a link, as it is written.
    ///
    /// # Errors
    /// As readlink(2).
    fn link_target(&self, path: &Path) -> io::Result<PathBuf>;

    /// Where a path leads, all links followed.
    ///
    /// # Errors
    /// As realpath(3).
    fn real(&self, path: &Path) -> io::Result<PathBuf>;

    /// Whether a file system is mounted at a directory; `None` where the kernel does not tell (before 5.8).
    fn is_mount(&self, dir: &Path) -> Option<bool>;

    /// The number of the file system that a path leads to (statfs(2)), in 32 bits.
    fn file_system(&self, path: &Path) -> Option<u32>;

    /// Opens a channel for notifications.
    ///
    /// # Errors
    /// As inotify_init(2).
    fn watch(&self) -> io::Result<Self::Watch>;

    /// Why the agent may not read a log, and what would let it, for people.
    fn explain(&self, path: &Path) -> Option<String>;
}

/// An open file.
pub trait OsFile: Debug {
    /// Examines the file.
    ///
    /// # Errors
    /// As fstat(2).
    fn facts(&self) -> io::Result<Facts>;

    /// Examines the file, and says what time it was right after that, since 1970.
    ///
    /// # Errors
    /// As fstat(2).
    fn dated_facts(&self) -> io::Result<(Facts, Duration)>;

    /// Reads once, by position. Returns how many bytes were there.
    ///
    /// # Errors
    /// As pread(2).
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Where the first byte stands from `offset` on that is not in a hole; `None` if there is none.
    ///
    /// # Errors
    /// As lseek(2) with `SEEK_DATA`; [`io::ErrorKind::InvalidInput`] or [`io::ErrorKind::Unsupported`] on a
    /// file system without holes.
    fn data_after(&self, offset: u64) -> io::Result<Option<u64>>;

    /// The name that the file has, or had last; `true`: it has it no more (proc(5), `/proc/PID/fd`). `None`
    /// where there is no `/proc`.
    fn place(&self) -> Option<(PathBuf, bool)>;

    /// Whether somebody has the file open for writing, as far as this kernel knows; `None` where that cannot
    /// be asked.
    fn is_open_for_writing(&self) -> Option<bool>;

    /// The number of the file's file system (statfs(2)), in 32 bits.
    fn file_system(&self) -> Option<u32>;
}

/// A name in a directory that is listed.
pub trait OsEntry {
    /// The name.
    fn name(&self) -> OsString;

    /// Inode number, as far as the file system tells the right one along with the name.
    fn inode(&self) -> u64;

    /// What the name stands for.
    ///
    /// # Errors
    /// As lstat(2), where the file system does not say so along with the name.
    fn kind(&self) -> io::Result<Kind>;

    /// Examines what the name stands for, which may be a link.
    ///
    /// # Errors
    /// As lstat(2).
    fn facts(&self) -> io::Result<Facts>;
}

/// A channel for notifications.
pub trait OsWatch {
    /// Watches a directory for changes of names, and with `writes` for changes of bytes. A directory that is
    /// watched for bytes already stays so.
    ///
    /// # Errors
    /// As inotify_add_watch(2).
    fn add(&mut self, dir: &Path, writes: bool) -> io::Result<WatchId>;

    /// Ends a watch. One that is gone with its directory is none any more.
    fn remove(&mut self, id: WatchId);

    /// Reads some of the events that wait, in their order.
    ///
    /// # Errors
    /// As read(2): [`io::ErrorKind::WouldBlock`] if none waits.
    fn read(&mut self, each: impl FnMut(Event<'_>)) -> io::Result<()>;
}
