//! Patterns to files.
//!
//! Finds every regular file that the patterns match, through links in any part of the path as far
//! as `roots` lets them lead, together with the directories whose changes could change the
//! answer: [`super::watch`] watches those. Never opens a file; pipes, sockets and devices are named
//! and passed over. Keeps what was learnt about links; the walk itself is `walk`.
//!
//! # How much it holds
//! What is there may be any number, and memory has a limit: [`Room`] says how many files and
//! directories are held, and the others are counted. Of links that are refused, and of all that is no
//! file, a [`Crowd`] is held.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use globset::{GlobSet, GlobSetBuilder};

use super::crowd::{Crowd, Names};
use super::pattern::{self, Pattern, PatternError};
use super::roots::LinkRoots;
use super::trace;
use super::walk::{Ground, Walk};

/// Most further names of files that a walk tells. Writing by one beyond them is noticed with the next
/// walk.
pub(super) const ALIASES_MAX: usize = 4096;

/// The patterns, understood, and where links may lead.
#[derive(Debug)]
pub struct Patterns {
    patterns: Vec<Pattern>,
    exclude: Exclude,
    /// Directories and files of our own, never entered or matched, under whatever name.
    own: Vec<PathBuf>,
    roots: LinkRoots,
    noted: Noted,
}

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
    /// Most files. Those that are known are held in any case; of the others those that were written to
    /// last.
    pub files: usize,
    /// How many of them only those may be that are known or young.
    pub young_files: usize,
    /// What was written to since then is young, in seconds of Unix time.
    pub young_from: i64,
    /// Most directories.
    pub dirs: usize,
}

impl Room {
    /// For whatever is there.
    pub const ANY: Self =
        Self { files: usize::MAX, young_files: 0, young_from: 0, dirs: usize::MAX };
}

/// Who has the walk made.
pub trait Host {
    /// Whether a file is known by device and inode, and held whatever the room.
    fn is_known(&self, inode: (u64, u64)) -> bool;

    /// Does what cannot wait for the end of the walk. Called for each name.
    fn pulse(&mut self);
}

/// Somebody who knows no file and has nothing else to do.
struct Nobody;

impl Host for Nobody {
    fn is_known(&self, _: (u64, u64)) -> bool {
        false
    }

    fn pulse(&mut self) {}
}

/// What is left out.
#[derive(Debug)]
pub(super) struct Exclude {
    files: GlobSet,
    /// Directories of which all is left out.
    trees: GlobSet,
    /// It leaves out more than whole directories.
    pub(super) has_names: bool,
}

/// A file that a pattern matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Path as configured, links not resolved.
    pub path: PathBuf,
    /// Device number of what it leads to.
    pub device: u64,
    /// Inode number of what it leads to.
    pub inode: u64,
    /// Size in bytes.
    pub size: u64,
    /// When its bytes changed last: seconds and nanoseconds of Unix time.
    pub modified: (i64, i64),
}

/// A link that is not followed, because it leads out of the allowed directories.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Its path, as configured.
    pub link: PathBuf,
    /// Where it leads, links resolved.
    pub target: PathBuf,
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
    /// Those of them in which any name may matter: what a path or a link leads through, or waits for.
    pub ways: BTreeSet<PathBuf>,
    /// What could not be looked at, other than because it is not there.
    pub errors: Crowd<(PathBuf, io::Error)>,
    /// The links that lead out of the allowed directories.
    pub refused: Crowd<Refused>,
    /// What matches and is no regular file, with what it is.
    pub odd: Crowd<(PathBuf, &'static str)>,
    /// Files for which there was no room,
    pub left_files: u64,
    /// and directories, whatever is in them.
    pub left_dirs: u64,
}

impl Patterns {
    /// Understands the patterns. Files that are in `own`, or in a directory that is, are never
    /// matched, whichever links lead there. With `link_roots` only these directories and the bases
    /// of the patterns are allowed, without them what the bases link to at first sight is too.
    ///
    /// # Errors
    /// Names the first pattern that is none, with the reason.
    pub fn new(
        paths: &[String],
        exclude: &[String],
        own: Vec<PathBuf>,
        link_roots: &[PathBuf],
    ) -> Result<Self, (String, PatternError)> {
        let parse = |text: &String| Pattern::new(text).map_err(|error| (text.clone(), error));
        let patterns = paths.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
        let roots = LinkRoots::new(patterns.iter().map(Pattern::root), link_roots);
        let noted = Noted::default();
        Ok(Self { exclude: Exclude::new(exclude)?, patterns, own, roots, noted })
    }

    /// Those that find nothing, in the place of others that are in use.
    ///
    /// # Panics
    /// Never: there is no pattern to be wrong.
    #[must_use]
    pub fn none() -> Self {
        Self::new(&[], &[], Vec::new(), &[]).expect("no pattern is wrong")
    }

    /// Whether the fixed part of a pattern ends here.
    #[must_use]
    pub fn is_base(&self, dir: &Path) -> bool {
        self.patterns.iter().any(|pattern| pattern.root() == dir)
    }

    /// Walks all patterns, and learns where links may lead from the bases that it meets for the
    /// first time.
    #[must_use]
    pub fn scan(&mut self) -> Scan {
        self.scan_for(&mut Nobody, Room::ANY)
    }

    /// Walks all patterns as [`Self::scan`] does, and holds no more than there is room for.
    #[must_use]
    pub fn scan_for(&mut self, host: &mut dyn Host, room: Room) -> Scan {
        let own = Own::look(&self.own);
        self.roots.resolve(|dir| fs::canonicalize(dir).ok());
        // What one pattern allows is to be known before another one is walked.
        for pattern in &self.patterns {
            let mut unused = (Scan::default(), Noted::default());
            let (scan, noted) = (&mut unused.0, &mut unused.1);
            let ground = Ground { exclude: &self.exclude, own: &own, room, host: &mut Nobody };
            Walk::new(pattern, ground, &mut self.roots, noted, scan).learn();
        }
        for names in [&mut self.noted.refused, &mut self.noted.odd, &mut self.noted.errors] {
            names.turn();
        }
        let mut scan = Scan::default();
        let mut seen = HashMap::new();
        for pattern in &self.patterns {
            let ground = Ground { exclude: &self.exclude, own: &own, room, host };
            let walk = Walk::new(pattern, ground, &mut self.roots, &mut self.noted, &mut scan);
            for file in walk.run() {
                let inode = (file.device, file.inode);
                match seen.entry(inode) {
                    Entry::Vacant(entry) => {
                        entry.insert(scan.files.len());
                        scan.files.push(file);
                    }
                    Entry::Occupied(first) => {
                        let is_other = scan.files[*first.get()].path != file.path;
                        if is_other && scan.aliases.len() < ALIASES_MAX {
                            scan.aliases.push((file.path, inode));
                        }
                    }
                }
            }
        }
        scan.refused.sort_by(|a, b| a.link.cmp(&b.link));
        scan.odd.sort_by(Ord::cmp);
        scan
    }

    /// Whether the last walk has refused this link, as far as is known.
    #[must_use]
    pub fn has_refused(&self, link: &Path) -> bool {
        self.noted.refused.has_met(link)
    }

    /// Whether a pattern ends in what matches this name: a file of it may be one to ship.
    #[must_use]
    pub fn may_find(&self, name: &OsStr) -> bool {
        let last = self.patterns.iter().filter_map(|pattern| pattern.parts.last());
        last.into_iter().any(|part| part.is_match(name))
    }

    /// Whether `path` is left out.
    #[must_use]
    pub fn is_excluded(&self, path: &Path) -> bool {
        self.exclude.has_file(path)
    }

    /// Where a file that was found and opened really is, if it may be shipped. The kernel says that
    /// it is at `told`. To be asked of each opened file, because links can change between the walk
    /// and the opening.
    #[must_use]
    pub fn place(&self, found: &Path, told: &Path, inode: (u64, u64)) -> Option<PathBuf> {
        if self.roots.allows(told) {
            return Some(told.to_owned());
        }
        let real = trace::path(found).real;
        let is_it = self.roots.allows(&real) && trace::is_behind_kernel(&real, told, inode);
        is_it.then_some(real)
    }

    /// Whether a file that an earlier run of the agent was allowed to ship still may be. What links
    /// led to then is not known any more, and was allowed; a list replaces that.
    #[must_use]
    pub fn allows_known(&self, found: &Path, told: &Path, inode: (u64, u64)) -> bool {
        !self.roots.are_listed() || self.place(found, told, inode).is_some()
    }

    /// The directories below which files may be shipped, for people.
    #[must_use]
    pub fn roots(&self) -> String {
        self.roots.list()
    }
}

/// Our own directories and files, as they are now.
#[derive(Debug)]
pub(super) struct Own {
    inodes: HashSet<(u64, u64)>,
    paths: Vec<PathBuf>,
}

impl Own {
    fn look(paths: &[PathBuf]) -> Self {
        let metadata = paths.iter().filter_map(|path| fs::metadata(path).ok());
        Self {
            inodes: metadata.map(|metadata| (metadata.dev(), metadata.ino())).collect(),
            paths: paths.iter().filter_map(|path| fs::canonicalize(path).ok()).collect(),
        }
    }

    /// Whether this is one of them.
    pub(super) fn contains(&self, metadata: &Metadata) -> bool {
        self.inodes.contains(&(metadata.dev(), metadata.ino()))
    }

    /// Whether this real path is in one of them.
    pub(super) fn is_around(&self, real: &Path) -> bool {
        self.paths.iter().any(|path| real.starts_with(path))
    }
}

impl Exclude {
    fn new(texts: &[String]) -> Result<Self, (String, PatternError)> {
        for text in texts {
            pattern::check(text).map_err(|error| (text.clone(), error))?;
        }
        let tree = |text| str::strip_suffix(text, "/**/*").or_else(|| text.strip_suffix("/**"));
        let files: Vec<&str> = texts.iter().map(String::as_str).collect();
        let trees: Vec<&str> = files.iter().filter_map(|text| tree(text)).collect();
        let has_names = trees.len() < files.len();
        Ok(Self { files: set(&files)?, trees: set(&trees)?, has_names })
    }

    /// Whether this file is left out.
    pub(super) fn has_file(&self, path: &Path) -> bool {
        !self.files.is_empty() && self.files.is_match(path)
    }

    /// Whether all that is in this directory is left out.
    pub(super) fn has_tree(&self, path: &Path) -> bool {
        !self.trees.is_empty() && self.trees.is_match(path)
    }
}

fn set(texts: &[&str]) -> Result<GlobSet, (String, PatternError)> {
    let mut set = GlobSetBuilder::new();
    let no_glob =
        |text: String, error: globset::Error| (text, PatternError::Glob(error.kind().to_string()));
    for text in texts {
        set.add(pattern::glob(text).map_err(|error| no_glob((*text).to_owned(), error))?);
    }
    set.build().map_err(|error| no_glob(texts.join(","), error))
}

#[cfg(test)]
#[path = "discover_tests.rs"]
mod tests;
