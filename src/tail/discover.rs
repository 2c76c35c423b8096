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
//! file, a [`Crowd`](super::crowd::Crowd) is held.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use super::exclude::Exclude;
use super::found::{ALIASES_MAX, Fruitless, Host, Noted, Room, Scan};
use super::os::{Os, OsEntry as _};
use super::own::{self, Own, Private};
use super::pattern::{Part, Pattern, PatternError};
use super::roots::LinkRoots;
use super::trace::{self, End};
use super::walk::{Ground, Walk};

/// The patterns, understood, and where links may lead.
#[derive(Debug)]
pub struct Patterns {
    patterns: Vec<Pattern>,
    exclude: Exclude,
    /// The patterns as they were written.
    texts: Vec<String>,
    /// Directories and files of our own, never entered or matched, under whatever name.
    own: Vec<PathBuf>,
    /// A directory that may hold logs too, and which names in it are our own.
    private: Option<Private>,
    /// Files that the settings name, such as credentials and keys.
    named: Vec<PathBuf>,
    /// What our own files and the named ones were when the last walk began.
    own_now: Own,
    roots: LinkRoots,
    noted: Noted,
}

/// A host that knows no file and has nothing else to do.
struct Nobody;

impl Host for Nobody {
    fn is_known(&self, _: (u64, u64)) -> bool {
        false
    }

    fn pulse(&mut self) {}
}

/// Whether what an earlier run has shipped may be read on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permission {
    /// The present settings find what was shipped.
    Granted,
    /// The permission is not known yet: a link that may lead to the file is not there.
    Awaited,
    /// No pattern finds the path by which the file was known, or an exclusion names that path or
    /// the present one.
    NotConfigured,
    /// The file is out of the directories below which files are shipped.
    LeadsOut,
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
        let (named, own_now, noted) = (Vec::new(), Own::default(), Noted::default());
        Ok(Self { exclude, patterns, texts, own, private: None, named, own_now, roots, noted })
    }

    /// Never matches the files either that the settings name, nor what is beside them.
    #[must_use]
    pub fn without(self, named: Vec<PathBuf>) -> Self {
        Self { named, ..self }
    }

    /// Leaves out these names in this directory too, under whatever name it is met.
    #[must_use]
    pub fn leaving_out(self, dir: &Path, is_own: fn(&OsStr) -> bool) -> Self {
        Self { private: Some(Private { dir: dir.to_owned(), is_own }), ..self }
    }

    /// The pattern of one file, if there is one, that stands for one of our own.
    #[must_use]
    pub fn own_file(&self, os: &impl Os) -> Option<&str> {
        let own = Own::look(os, &self.own, None, &[], &[]);
        let is_own = |pattern: &Pattern| {
            let [Part::Literal(name)] = pattern.parts.as_slice() else { return false };
            let path = pattern.base.join(name);
            // An app's link to it keeps nobody from starting.
            let is_plain = trace::path(os, &path).links.is_empty();
            is_plain && own::inode(os, &path).is_some_and(|inode| own.is_ours(inode))
        };
        let mut pairs = self.patterns.iter().zip(&self.texts);
        pairs.find(|(pattern, _)| is_own(pattern)).map(|(_, text)| text.as_str())
    }

    /// Patterns that find nothing, to stand in the place of others while those are in use.
    ///
    /// # Panics
    /// Never: there is no pattern to be wrong.
    #[must_use]
    pub fn none() -> Self {
        Self::new(&[], &[], Vec::new(), &[]).expect("no pattern is wrong")
    }

    /// Whether there is no pattern.
    #[must_use]
    pub fn are_none(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Whether the fixed part of a pattern ends here.
    #[must_use]
    pub fn is_base(&self, dir: &Path) -> bool {
        self.patterns.iter().any(|pattern| pattern.root() == dir)
    }

    /// The directory in which files are looked for and that a path is in, as written or really.
    #[must_use]
    pub fn base_above(&self, os: &impl Os, path: &Path) -> Option<PathBuf> {
        let real = trace::path(os, path).real;
        let is_above =
            |base: &PathBuf| path.starts_with(base) || real.starts_with(trace::path(os, base).real);
        self.patterns.iter().map(Pattern::root).find(is_above)
    }

    /// Walks all patterns, and learns where links may lead from the bases that it meets for the
    /// first time.
    #[must_use]
    pub fn scan(&mut self, os: &impl Os) -> Scan {
        self.scan_for(os, &mut Nobody, Room::ANY)
    }

    /// Walks all patterns as [`Self::scan`] does, and holds no more than there is room for.
    #[must_use]
    pub fn scan_for(&mut self, os: &impl Os, host: &mut dyn Host, room: Room) -> Scan {
        let bases: Vec<&Path> = self.patterns.iter().map(|one| one.base.as_path()).collect();
        let own = Own::look(os, &self.own, self.private.as_ref(), &self.named, &bases);
        self.roots.resolve(|dir| {
            let trace = trace::path(os, dir);
            let links = trace.links.into_iter().map(|link| link.path).collect();
            matches!(trace.end, End::There).then_some((trace.real, links))
        });
        // What one pattern allows is to be known before another one is walked.
        for pattern in &self.patterns {
            let mut unused = (Scan::default(), Noted::default());
            let (scan, noted) = (&mut unused.0, &mut unused.1);
            let ground = Ground { os, exclude: &self.exclude, own: &own, room, host: &mut Nobody };
            Walk::new(pattern, ground, &mut self.roots, noted, scan).learn();
        }
        for names in [&mut self.noted.refused, &mut self.noted.odd, &mut self.noted.errors] {
            names.turn();
        }
        let mut scan = Scan::default();
        let mut seen = HashMap::new();
        for (pattern, text) in self.patterns.iter().zip(&self.texts) {
            let (left_out, left) = (scan.left_out, scan.left_files + scan.left_dirs);
            let ground = Ground { os, exclude: &self.exclude, own: &own, room, host };
            let walk = Walk::new(pattern, ground, &mut self.roots, &mut self.noted, &mut scan);
            let files = walk.run();
            if files.is_empty() && scan.left_files + scan.left_dirs == left {
                let is_left_out = scan.left_out > left_out;
                scan.fruitless.push(Fruitless::new(os, text, pattern, is_left_out, &self.roots));
            }
            for file in files {
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
        self.own_now = own;
        scan
    }

    /// Whether the last walk has refused this link, as far as is known.
    #[must_use]
    pub fn has_refused(&self, link: &Path) -> bool {
        self.noted.refused.has_met(link)
    }

    /// Whether a pattern ends in what matches this name: a file with the name may be one to ship.
    #[must_use]
    pub fn may_find(&self, name: &OsStr) -> bool {
        let last = self.patterns.iter().filter_map(|pattern| pattern.parts.last());
        last.into_iter().any(|part| part.is_match(name))
    }

    /// Whether the settings leave `path` out.
    #[must_use]
    pub fn is_excluded(&self, path: &Path) -> bool {
        self.exclude.has_file(path)
    }

    /// Where a file that was found and opened really is, if it may be shipped. The kernel says that
    /// it is at `told`. To be called for each opened file, because links can change between the
    /// walk and the opening.
    #[must_use]
    pub fn place(
        &self,
        os: &impl Os,
        found: &Path,
        told: &Path,
        inode: (u64, u64),
    ) -> Option<PathBuf> {
        let is_kept = self.own_now.keeps(os, told, inode).is_some();
        if is_kept || self.leads_to_private(os, found, told) {
            return None;
        }
        if self.roots.allows(told) {
            return Some(told.to_owned());
        }
        let real = trace::path(os, found).real;
        let is_it = self.roots.allows(&real) && trace::is_behind_kernel(os, &real, told, inode);
        is_it.then_some(real)
    }

    /// Whether a file stands right in the private directory, and was not found by the path of that.
    fn leads_to_private(&self, os: &impl Os, found: &Path, told: &Path) -> bool {
        let Some(private) = &self.private else { return false };
        let is_told = told.parent().is_some_and(|dir| self.own_now.is_private_dir(os, dir));
        is_told && found.parent() != Some(&private.dir)
    }

    /// Where a directory really is in which files of an earlier run are looked for, if it may be
    /// looked into.
    #[must_use]
    pub fn enter(&self, os: &impl Os, dir: &Path) -> Option<PathBuf> {
        if self.has_flaw() {
            return Some(dir.to_owned());
        }
        let real = trace::path(os, dir).real;
        let may = self.roots.allows(&real) && self.own_now.keeps_dir(os, &real).is_none();
        may.then_some(real)
    }

    /// Whether a file with this path, as configured, is one to ship.
    #[must_use]
    pub fn finds(&self, path: &Path) -> bool {
        self.patterns.iter().any(|pattern| pattern.finds(path)) && !self.is_left_out(path)
    }

    /// Whether a file that an earlier run knew as `known`, and that stands at `place` now, may be
    /// read on. A checkpoint is no permission: the settings must find the path by which it was known.
    #[must_use]
    pub fn permits(&self, os: &impl Os, known: &Path, place: &Path) -> Permission {
        if self.has_flaw() {
            return Permission::Granted;
        }
        let dir = known.parent().unwrap_or_else(|| Path::new("/"));
        // Its present path as the settings would name it.
        let now = match place.strip_prefix(trace::path(os, dir).real) {
            Ok(below) => dir.join(below),
            Err(_) => known.with_file_name(place.file_name().unwrap_or_default()),
        };
        if !self.finds(known) || self.is_left_out(&now) || self.is_left_out(place) {
            return Permission::NotConfigured;
        }
        let real = trace::path(os, place).real;
        match self.roots.allows(&real) {
            true => Permission::Granted,
            false if self.roots.are_awaited() => Permission::Awaited,
            false => Permission::LeadsOut,
        }
    }

    /// Where an opened file of an earlier run really is, if it may be read on: as [`Self::place`].
    #[must_use]
    pub fn place_known(
        &self,
        os: &impl Os,
        place: &Path,
        told: &Path,
        inode: (u64, u64),
    ) -> Option<PathBuf> {
        if self.has_flaw() {
            return Some(told.to_owned());
        }
        self.place(os, place, told, inode)
    }

    /// Whether a checkpoint is a permission, unless the operator says what is allowed. The test of
    /// the hostile app plants this flaw.
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

/// The first of these patterns that finds files only in `dir` or below, and where its base leads, as
/// far as that can be seen now. Over links, which an app may have made, only if all of them do: no app
/// keeps the files of others from being shipped.
#[must_use]
pub fn within(os: &impl Os, paths: &[String], dir: &Path) -> Option<(String, PathBuf)> {
    let real_dir = trace::path(os, dir).real;
    let leads = |text: &String| {
        let base = Pattern::new(text).ok()?.base;
        let real = trace::path(os, &base).real;
        let is_within = real.starts_with(&real_dir);
        Some((text.clone(), base, real, is_within))
    };
    let led: Vec<_> = paths.iter().filter_map(leads).collect();
    let are_all = led.iter().all(|(.., is_within)| *is_within);
    let first = led.into_iter().find(|(_, base, ..)| base.starts_with(dir) || are_all);
    first.map(|(text, _, real, _)| (text, real))
}

/// The first of the names in a directory, in order, and how many more there are; none if it cannot be
/// read.
#[must_use]
pub fn names_in(os: &impl Os, dir: &Path, names_max: usize) -> (Vec<String>, usize) {
    /// Most names of a directory that are looked at.
    const LOOKED_AT_MAX: usize = 1000;
    let entries = os.list(dir).into_iter().flatten().flatten().take(LOOKED_AT_MAX);
    let mut names: Vec<_> = entries.map(|entry| entry.name()).collect();
    names.sort_unstable();
    let more = names.len().saturating_sub(names_max);
    names.truncate(names_max);
    (names.iter().map(|name| name.to_string_lossy().into_owned()).collect(), more)
}

impl Fruitless {
    fn new(
        os: &impl Os,
        text: &str,
        pattern: &Pattern,
        is_left_out: bool,
        roots: &LinkRoots,
    ) -> Self {
        let (base, trace) = (pattern.base.clone(), trace::path(os, &pattern.base));
        let is_dir = |dir: &&Path| trace::stat(os, dir).is_ok_and(|found| found.is_directory());
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

#[cfg(test)]
#[path = "discover_tests.rs"]
mod tests;
