//! What a walk finds, how much of it is held, and for whom.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;

use super::crowd::{Crowd, Names};

/// Most further names of files that a walk tells. When somebody writes by a name beyond them, the
/// agent notices it with the next walk.
pub(super) const ALIASES_MAX: usize = 4096;

/// What the last walk met by the way, by name: what is not among it is news.
#[derive(Debug, Default)]
pub(super) struct Noted {
    pub(super) refused: Names,
    pub(super) odd: Names,
    pub(super) errors: Names,
}

/// How much a walk may hold of what is there.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    /// Most files. Known files are held in any case; of the others those that were written to last.
    pub files: usize,
    /// Room among these files that is kept for known and young ones.
    pub young_files: usize,
    /// Time from which on a file that was written to is young, in seconds of Unix time.
    pub young_from: i64,
    /// Most directories.
    pub dirs: usize,
}

impl Room {
    /// Room for whatever is there.
    pub const ANY: Self =
        Self { files: usize::MAX, young_files: 0, young_from: 0, dirs: usize::MAX };
}

/// The one who has the walk made.
pub trait Host {
    /// Whether a file is known by device and inode, and held whatever the room.
    fn is_known(&self, inode: (u64, u64)) -> bool;

    /// Does what cannot wait for the end of the walk. Called for each name.
    fn pulse(&mut self);
}

/// A file that a pattern matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Path as configured, links not resolved.
    pub path: PathBuf,
    /// Device number of what the path leads to.
    pub device: u64,
    /// Inode number of what the path leads to.
    pub inode: u64,
    /// Size in bytes.
    pub size: u64,
    /// When the bytes changed last: seconds and nanoseconds of Unix time.
    pub modified: (i64, i64),
}

/// A link that is not followed, because it leads out of the allowed directories.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Path of the link, as configured.
    pub link: PathBuf,
    /// Where the link leads, links resolved.
    pub target: PathBuf,
}

/// A pattern that matches no file, and how far it leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fruitless {
    /// The pattern as written.
    pub pattern: String,
    /// Part of the pattern before its first wildcard.
    pub base: PathBuf,
    /// Where the base leads, links resolved.
    pub real: PathBuf,
    /// The nearest directory on the way to the base that exists; where the base leads to if it
    /// exists.
    pub nearest: PathBuf,
    /// Whether something would match, and is left out.
    pub is_left_out: bool,
    /// Whether the names in `nearest` are nobody's secret: no link has led there, or one that may.
    pub may_be_listed: bool,
}

/// What one walk found.
#[derive(Debug, Default)]
pub struct Scan {
    /// The files, each once: under the first pattern that finds it, then the first path in order,
    /// visible names before hidden ones.
    pub files: Vec<Found>,
    /// Further names of these files, with device and inode: the first few thousand.
    pub aliases: Vec<(PathBuf, (u64, u64))>,
    /// The directories to watch; `true` where files are that could be written.
    pub dirs: BTreeMap<PathBuf, bool>,
    /// Directories to watch in which any name may matter: a path or a link leads through them, or
    /// waits for a name in them.
    pub ways: BTreeSet<PathBuf>,
    /// What could not be looked at, other than because it is not there.
    pub errors: Crowd<(PathBuf, io::Error)>,
    /// The links that lead out of the allowed directories.
    pub refused: Crowd<Refused>,
    /// What matches and is no regular file, with what it is.
    pub odd: Crowd<(PathBuf, &'static str)>,
    /// How many files there were for which there was no room.
    pub left_files: u64,
    /// How many directories there were for which there was no room, whatever is in them.
    pub left_dirs: u64,
    /// The patterns that match no file.
    pub fruitless: Vec<Fruitless>,
    /// How often something was left out because it is excluded.
    pub(super) left_out: u64,
}

impl Scan {
    /// Whether the walk found all there is: nothing was left out, out of reach, or perhaps not
    /// mounted yet.
    #[must_use]
    pub fn is_all(&self) -> bool {
        let has_errors = self.errors.iter().next().is_some() || self.errors.unnamed() > 0;
        let has_left = self.left_files > 0 || self.left_dirs > 0;
        !has_errors && !has_left && self.fruitless.is_empty()
    }
}
