//! Patterns to files.
//!
//! Finds every regular file that the patterns match, through links in any part of the path as far
//! as `roots` lets them lead, together with the directories whose changes could change the
//! answer: [`super::watch`] watches those. Never opens a file; pipes, sockets and devices are named
//! and passed over. Keeps what was learnt about links; the walk itself is `walk`.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use globset::{GlobSet, GlobSetBuilder};

use super::pattern::{self, Part, Pattern, PatternError};
use super::roots::LinkRoots;
use super::trace;
use super::walk::Walk;

/// The patterns, understood, and where links may lead.
#[derive(Debug)]
pub struct Patterns {
    patterns: Vec<Pattern>,
    exclude: Exclude,
    /// The patterns as they were written.
    texts: Vec<String>,
    /// Directories and files of our own, never entered or matched, under whatever name.
    own: Vec<PathBuf>,
    /// Those of our own in a directory that may hold logs too.
    kept: Option<Kept>,
    roots: LinkRoots,
}

/// A directory, and which names in it are our own.
#[derive(Debug)]
struct Kept {
    dir: PathBuf,
    is_own: fn(&OsStr) -> bool,
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

/// A pattern that matches no file, and how far it leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fruitless {
    /// The pattern as written.
    pub pattern: String,
    /// Its part before the first wildcard.
    pub base: PathBuf,
    /// Where that leads, links resolved.
    pub real: PathBuf,
    /// The nearest directory on the way there that exists; where that leads to if it does.
    pub nearest: PathBuf,
    /// Something would match, and is left out.
    pub is_left_out: bool,
    /// The names in `nearest` are nobody's secret: no link has led there, or one that may.
    pub may_be_listed: bool,
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
    /// The patterns that match no file.
    pub fruitless: Vec<Fruitless>,
    /// How often something was left out because it is excluded.
    pub(super) left_out: u64,
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
        let (exclude, texts) = (Exclude::new(exclude)?, paths.to_vec());
        Ok(Self { exclude, patterns, texts, own, kept: None, roots })
    }

    /// Leaves out these names in this directory too, under whatever name it is met.
    #[must_use]
    pub fn leaving_out(self, dir: &Path, is_own: fn(&OsStr) -> bool) -> Self {
        Self { kept: Some(Kept { dir: dir.to_owned(), is_own }), ..self }
    }

    /// The pattern of one file, if there is one, that stands for one of our own.
    #[must_use]
    pub fn own_file(&self) -> Option<&str> {
        let own = Own::look(&self.own, None);
        let is_own = |pattern: &Pattern| {
            let [Part::Literal(name)] = pattern.parts.as_slice() else { return false };
            fs::metadata(pattern.base.join(name)).is_ok_and(|metadata| own.contains(&metadata))
        };
        let mut pairs = self.patterns.iter().zip(&self.texts);
        pairs.find(|(pattern, _)| is_own(pattern)).map(|(_, text)| text.as_str())
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
        let own = Own::look(&self.own, self.kept.as_ref());
        self.roots.resolve(|dir| fs::canonicalize(dir).ok());
        // What one pattern allows is to be known before another one is walked.
        for pattern in &self.patterns {
            let mut unused = Scan::default();
            Walk::new(pattern, &self.exclude, &own, &mut self.roots, &mut unused).learn();
        }
        let mut scan = Scan::default();
        let mut seen = HashMap::new();
        for (pattern, text) in self.patterns.iter().zip(&self.texts) {
            let left_out = scan.left_out;
            let walk = Walk::new(pattern, &self.exclude, &own, &mut self.roots, &mut scan);
            let files = walk.run();
            if files.is_empty() {
                let is_left_out = scan.left_out > left_out;
                scan.fruitless.push(Fruitless::new(text, pattern, is_left_out, &self.roots));
            }
            for file in files {
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

/// The first of these patterns that finds files only in `dir` or below, and where its base leads, as
/// far as that can be seen now.
#[must_use]
pub fn within(paths: &[String], dir: &Path) -> Option<(String, PathBuf)> {
    let real_dir = trace::path(dir).real;
    paths.iter().find_map(|text| {
        let base = Pattern::new(text).ok()?.base;
        let real = trace::path(&base).real;
        (base.starts_with(dir) || real.starts_with(&real_dir)).then(|| (text.clone(), real))
    })
}

/// The first of the names in a directory, in order, and how many more there are; none if it cannot be
/// read.
#[must_use]
pub fn names_in(dir: &Path, names_max: usize) -> (Vec<String>, usize) {
    /// Of a crowd some are enough.
    const LOOKED_AT_MAX: usize = 1000;
    let entries = fs::read_dir(dir).into_iter().flatten().flatten().take(LOOKED_AT_MAX);
    let mut names: Vec<_> = entries.map(|entry| entry.file_name()).collect();
    names.sort_unstable();
    let more = names.len().saturating_sub(names_max);
    names.truncate(names_max);
    (names.iter().map(|name| name.to_string_lossy().into_owned()).collect(), more)
}

impl Fruitless {
    fn new(text: &str, pattern: &Pattern, is_left_out: bool, roots: &LinkRoots) -> Self {
        let (base, trace) = (pattern.base.clone(), trace::path(&pattern.base));
        let is_dir = |dir: &&Path| trace::stat(dir).is_ok_and(|metadata| metadata.is_dir());
        let nearest =
            trace.real.ancestors().find(is_dir).unwrap_or_else(|| Path::new("/")).to_owned();
        let may_be_listed = base.starts_with(&nearest) || roots.allows(&nearest);
        Self {
            pattern: text.to_owned(),
            base,
            real: trace.real,
            nearest,
            is_left_out,
            may_be_listed,
        }
    }
}

/// Our own directories and files, as they are now.
#[derive(Debug)]
pub(super) struct Own {
    inodes: HashSet<(u64, u64)>,
    paths: Vec<PathBuf>,
    kept: Option<KeptNow>,
}

/// A directory that holds some of our own files: what it is, where it really is, which these are.
#[derive(Debug)]
struct KeptNow {
    inode: (u64, u64),
    real: PathBuf,
    is_own: fn(&OsStr) -> bool,
}

impl Own {
    fn look(paths: &[PathBuf], kept: Option<&Kept>) -> Self {
        let inode = |path: &Path| fs::metadata(path).ok().map(|found| (found.dev(), found.ino()));
        let kept = kept.and_then(|Kept { dir, is_own }| {
            let (inode, real) = (inode(dir)?, fs::canonicalize(dir).ok()?);
            Some(KeptNow { inode, real, is_own: *is_own })
        });
        Self {
            inodes: paths.iter().filter_map(|path| inode(path)).collect(),
            paths: paths.iter().filter_map(|path| fs::canonicalize(path).ok()).collect(),
            kept,
        }
    }

    /// Whether names in this directory may be our own.
    pub(super) fn keeps_in(&self, inode: (u64, u64)) -> bool {
        self.kept.as_ref().is_some_and(|kept| kept.inode == inode)
    }

    /// Whether a name in such a directory is.
    pub(super) fn keeps(&self, name: &OsStr) -> bool {
        self.kept.as_ref().is_some_and(|kept| (kept.is_own)(name))
    }

    /// Whether this is one of them.
    pub(super) fn contains(&self, metadata: &Metadata) -> bool {
        self.inodes.contains(&(metadata.dev(), metadata.ino()))
    }

    /// Whether this real path is in one of them.
    pub(super) fn is_around(&self, real: &Path) -> bool {
        let is_kept = |kept: &KeptNow| {
            let rest = real.strip_prefix(&kept.real).ok();
            let name = rest.and_then(|rest| rest.components().next());
            name.is_some_and(|name| (kept.is_own)(name.as_os_str()))
        };
        self.paths.iter().any(|path| real.starts_with(path))
            || self.kept.as_ref().is_some_and(is_kept)
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
