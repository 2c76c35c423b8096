//! Patterns to files.
//!
//! Finds every regular file that the patterns match, through links in any part of the path as far
//! as `roots` lets them lead, together with the directories whose changes could change the
//! answer: [`super::watch`] watches those. Never opens a file; pipes, sockets and devices are named
//! and passed over. Keeps what was learnt about links; the walk itself is `walk`.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use globset::{GlobSet, GlobSetBuilder};

use super::own::Own;
use super::pattern::{self, Pattern, PatternError};
use super::roots::LinkRoots;
use super::trace::{self, End};
use super::walk::Walk;

/// The patterns, understood, and where links may lead.
#[derive(Debug)]
pub struct Patterns {
    patterns: Vec<Pattern>,
    exclude: Exclude,
    /// Directories and files of our own, never entered or matched, under whatever name.
    own: Vec<PathBuf>,
    /// Files that the settings name, such as credentials and keys.
    named: Vec<PathBuf>,
    /// What all of these were when the last walk began.
    own_now: Own,
    roots: LinkRoots,
}

/// Whether what an earlier run has shipped may be read on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permission {
    /// The present settings would find it.
    Granted,
    /// It is not known yet: a link that may lead there is not there.
    Awaited,
    /// No pattern finds the path by which it was known, or that or its present name is excluded.
    NotConfigured,
    /// It is out of the directories below which files are shipped.
    LeadsOut,
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
    /// Further names of these files, with device and inode.
    pub aliases: Vec<(PathBuf, (u64, u64))>,
    /// The directories to watch; `true` where files are that could be written.
    pub dirs: BTreeMap<PathBuf, bool>,
    /// Those of them in which any name may matter: what a path or a link leads through, or waits for.
    pub ways: BTreeSet<PathBuf>,
    /// What could not be looked at, other than because it is not there.
    pub errors: Vec<(PathBuf, io::Error)>,
    /// The links that lead out of the allowed directories, each once.
    pub refused: Vec<Refused>,
    /// What matches and is no regular file, with what it is, each once.
    pub odd: Vec<(PathBuf, &'static str)>,
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
        let exclude = Exclude::new(exclude)?;
        Ok(Self { exclude, patterns, own, named: Vec::new(), own_now: Own::default(), roots })
    }

    /// Never matches these files either, which the settings name, nor what is beside them.
    #[must_use]
    pub fn without(mut self, named: Vec<PathBuf>) -> Self {
        self.named = named;
        self
    }

    /// Whether the fixed part of a pattern ends here.
    #[must_use]
    pub fn is_base(&self, dir: &Path) -> bool {
        self.patterns.iter().any(|pattern| pattern.root() == dir)
    }

    /// The directory in which files are looked for and that a path is in, as written or really.
    #[must_use]
    pub fn base_above(&self, path: &Path) -> Option<PathBuf> {
        let real = trace::path(path).real;
        let is_above =
            |base: &PathBuf| path.starts_with(base) || real.starts_with(trace::path(base).real);
        self.patterns.iter().map(Pattern::root).find(is_above)
    }

    /// Walks all patterns, and learns where links may lead from the bases that it meets for the
    /// first time.
    #[must_use]
    pub fn scan(&mut self) -> Scan {
        let bases: Vec<&Path> = self.patterns.iter().map(|one| one.base.as_path()).collect();
        let own = Own::look(&self.own, &self.named, &bases);
        self.roots.resolve(|dir| {
            let trace = trace::path(dir);
            let links = trace.links.into_iter().map(|link| link.path).collect();
            matches!(trace.end, End::There).then_some((trace.real, links))
        });
        // What one pattern allows is to be known before another one is walked.
        for pattern in &self.patterns {
            let mut unused = Scan::default();
            Walk::new(pattern, &self.exclude, &own, &mut self.roots, &mut unused).learn();
        }
        let mut scan = Scan::default();
        let mut seen = HashMap::new();
        for pattern in &self.patterns {
            let walk = Walk::new(pattern, &self.exclude, &own, &mut self.roots, &mut scan);
            for file in walk.run() {
                let inode = (file.device, file.inode);
                match seen.entry(inode) {
                    Entry::Vacant(entry) => {
                        entry.insert(scan.files.len());
                        scan.files.push(file);
                    }
                    Entry::Occupied(first) if scan.files[*first.get()].path != file.path => {
                        scan.aliases.push((file.path, inode));
                    }
                    Entry::Occupied(_) => {}
                }
            }
        }
        scan.refused.sort_unstable_by(|a, b| a.link.cmp(&b.link));
        scan.refused.dedup_by(|a, b| a.link == b.link);
        scan.odd.sort_unstable();
        scan.odd.dedup_by(|a, b| a.0 == b.0);
        self.own_now = own;
        scan
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
        if self.own_now.keeps(told, inode).is_some() {
            return None;
        }
        if self.roots.allows(told) {
            return Some(told.to_owned());
        }
        let real = trace::path(found).real;
        let is_it = self.roots.allows(&real) && trace::is_behind_kernel(&real, told, inode);
        is_it.then_some(real)
    }

    /// Where a directory really is in which files of an earlier run are looked for, if it may be
    /// looked into: the rules are those of a directory that a link leads to.
    #[must_use]
    pub fn enter(&self, dir: &Path) -> Option<PathBuf> {
        if self.has_flaw() {
            return Some(dir.to_owned());
        }
        let real = trace::path(dir).real;
        let may = self.roots.allows(&real) && self.own_now.keeps_dir(&real).is_none();
        may.then_some(real)
    }

    /// Whether a file that an earlier run knew as `known`, and that stands at `place` now, may be
    /// read on. A checkpoint is no permission: the rules are those of a file that is found.
    #[must_use]
    pub fn permits(&self, known: &Path, place: &Path) -> Permission {
        if self.has_flaw() {
            return Permission::Granted;
        }
        let now = known.with_file_name(place.file_name().unwrap_or_default());
        let is_found = self.patterns.iter().any(|pattern| pattern.finds(known));
        if !is_found || self.is_left_out(known) || self.is_left_out(&now) {
            return Permission::NotConfigured;
        }
        let real = trace::path(place).real;
        match self.roots.allows(&real) {
            true => Permission::Granted,
            false if self.roots.are_awaited() => Permission::Awaited,
            false => Permission::LeadsOut,
        }
    }

    /// Where an opened file of an earlier run really is, if it may be read on: as [`Self::place`].
    #[must_use]
    pub fn place_known(&self, place: &Path, told: &Path, inode: (u64, u64)) -> Option<PathBuf> {
        if self.has_flaw() {
            return Some(told.to_owned());
        }
        self.place(place, told, inode)
    }

    /// Whether a checkpoint is a permission, unless the operator says what is allowed: the flaw that
    /// the test of the hostile app plants.
    #[cfg(test)]
    fn has_flaw(&self) -> bool {
        !self.roots.are_listed() && std::env::var_os("PLANTED_FLAW").is_some()
    }

    #[cfg(not(test))]
    #[expect(clippy::unused_self, reason = "only the test's agent has it")]
    const fn has_flaw(&self) -> bool {
        false
    }

    fn is_left_out(&self, path: &Path) -> bool {
        let mut above = path.ancestors().skip(1);
        self.exclude.has_file(path) || above.any(|dir| self.exclude.has_tree(dir))
    }

    /// The directories below which files may be shipped, for people.
    #[must_use]
    pub fn roots(&self) -> String {
        self.roots.list()
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
