//! The walk of one pattern through the directories that it can match.
//!
//! Links, which may lead anywhere, are [`links`]'s; here are directories and the names in them.
//!
//! # What it costs
//! A `readdir` for each directory, a `stat` for each file that matches, some more for each link. A
//! directory that several links lead to is entered once, or a few times if files are left out by
//! name; one that contains itself is not entered again in itself. What is ahead is a list, not a
//! stack of calls: the depth of a tree costs a little memory and no more.

mod links;

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::exclude::Exclude;
use super::found::{ALIASES_MAX, Found, Host, Noted, Room, Scan};
use super::os::{Facts, Kind, Os, OsEntry as _};
use super::own::Own;
use super::pattern::{Part, Pattern};
use super::roots::LinkRoots;
use super::trace;

/// How often a directory is entered, under as many names, if files are left out by name: what is
/// left out under one name may be wanted under the next.
const NAMES_MAX: u8 = 8;

/// The state that the walks of all patterns share.
pub(super) struct Ground<'a, O: Os> {
    pub(super) os: &'a O,
    pub(super) exclude: &'a Exclude,
    pub(super) own: &'a Own,
    pub(super) room: Room,
    pub(super) host: &'a mut dyn Host,
}

/// One pattern's walk.
pub(super) struct Walk<'a, O: Os> {
    pattern: &'a Pattern,
    ground: Ground<'a, O>,
    roots: &'a mut LinkRoots,
    noted: &'a mut Noted,
    scan: &'a mut Scan,
    /// Files that the pattern matches.
    found: Vec<Match>,
    /// How many of the files are not known.
    new: usize,
    /// Device and inode of found files that may have other names.
    several: HashSet<(u64, u64)>,
    /// How many further names of such files were found.
    further: usize,
    /// How often a directory was entered to match a part of the pattern.
    entered: HashMap<((u64, u64), usize), u8>,
    /// The directories that are still to be entered, the next one last.
    ahead: Vec<Place>,
    /// Whether the files of the directory that is looked at are beside one that the settings name.
    is_beside_named: bool,
    /// Directories with hidden names, which wait until there are no others: a file that several
    /// names lead to is found under one that people use.
    hidden_ahead: Vec<Place>,
}

/// A file that matches.
struct Match {
    is_hidden: bool,
    is_known: bool,
    file: Found,
}

/// A directory that the walk may enter.
struct Place {
    /// Path of the directory, as configured.
    path: PathBuf,
    /// Where the directory really is.
    real: PathBuf,
    /// Whether a component below the base begins with a dot.
    is_hidden: bool,
    /// Whether some of the names in the directory are our own.
    has_own: bool,
    /// Indexes of the parts of the pattern that names in the directory may match.
    parts: Vec<usize>,
    above: Option<Rc<Above>>,
}

impl Place {
    /// A place for a directory in this one.
    fn below(&self, name: &OsStr, real: PathBuf, parts: Vec<usize>) -> Self {
        Self {
            path: self.path.join(name),
            real,
            is_hidden: self.is_hidden || is_hidden(name),
            has_own: false,
            parts,
            above: self.above.clone(),
        }
    }
}

/// A directory on the way to a place, to notice that it contains itself.
struct Above {
    inode: (u64, u64),
    parts: Vec<usize>,
    above: Option<Rc<Self>>,
}

impl Above {
    fn contains(mut above: Option<&Self>, inode: (u64, u64), part: usize) -> bool {
        while let Some(dir) = above {
            if dir.inode == inode && dir.parts.contains(&part) {
                return true;
            }
            above = dir.above.as_deref();
        }
        false
    }
}

impl<'a, O: Os> Walk<'a, O> {
    /// Prepares the walk of one pattern.
    pub(super) fn new(
        pattern: &'a Pattern,
        ground: Ground<'a, O>,
        roots: &'a mut LinkRoots,
        noted: &'a mut Noted,
        scan: &'a mut Scan,
    ) -> Self {
        Self {
            pattern,
            ground,
            roots,
            noted,
            scan,
            found: Vec::new(),
            new: 0,
            several: HashSet::new(),
            further: 0,
            entered: HashMap::new(),
            ahead: Vec::new(),
            is_beside_named: false,
            hidden_ahead: Vec::new(),
        }
    }

    /// Learns where the base leads, and the one file of a pattern without wildcards.
    pub(super) fn learn(mut self) {
        if let Some(base) = self.base()
            && self.pattern.is_literal()
        {
            self.enter(base);
        }
    }

    /// Walks the pattern. Returns the files in order of path, those with hidden names last; what
    /// else was met is in the scan.
    pub(super) fn run(mut self) -> Vec<Found> {
        if let Some(base) = self.base() {
            self.enter(base);
        }
        while let Some(place) = self.ahead.pop().or_else(|| self.hidden_ahead.pop()) {
            self.enter(place);
        }
        self.keep_within_room();
        // Nearly sorted as it is: directories come in order, and so do the files of each.
        self.found.sort_by(|a, b| (a.is_hidden, &a.file.path).cmp(&(b.is_hidden, &b.file.path)));
        self.found.into_iter().map(|one| one.file).collect()
    }

    /// Looks for names in a directory, if it is one.
    fn enter(&mut self, place: Place) {
        let facts = match trace::stat(self.ground.os, &place.real) {
            Ok(facts) => facts,
            Err(error) => return self.note(&place.path, error),
        };
        if !facts.is_directory() {
            // Only a base is not known to be a directory yet. It may become one.
            return self.watch(place.real.parent().map(Path::to_owned));
        }
        let inode = facts.id();
        if self.is_own(inode) {
            return;
        }
        if self.ground.exclude.has_tree(&place.path) {
            self.scan.left_out += 1;
            return;
        }
        let parts = self.parts_to_match(&place, inode);
        if parts.is_empty() {
            return;
        }
        self.is_beside_named = self.ground.own.is_beside(inode);
        let above = Above { inode, parts: parts.clone(), above: place.above };
        let has_own = self.ground.own.is_private(inode);
        self.look(&Place { parts, has_own, above: Some(Rc::new(above)), ..place });
    }

    fn is_own(&self, inode: (u64, u64)) -> bool {
        self.ground.own.is_ours(inode) || self.ground.own.is_named(inode)
    }

    /// The parts that names in a directory are to be matched with, those behind `**` among them,
    /// without what is or was done in this directory already.
    fn parts_to_match(&mut self, place: &Place, inode: (u64, u64)) -> Vec<usize> {
        let names_max = if self.ground.exclude.has_names { NAMES_MAX } else { 1 };
        let mut parts = place.parts.clone();
        self.pattern.pass_any_depth(&mut parts);
        parts.retain(|&part| {
            let entered = self.entered.entry((inode, part)).or_default();
            let is_new =
                *entered < names_max && !Above::contains(place.above.as_deref(), inode, part);
            *entered += u8::from(is_new);
            is_new
        });
        parts
    }

    fn look(&mut self, place: &Place) {
        let is_last = |&part: &usize| part + 1 == self.pattern.parts.len();
        let holds_files = place.parts.iter().any(is_last);
        let is_literal = |&part: &usize| matches!(self.pattern.parts[part], Part::Literal(_));
        let mut dirs = Vec::new();
        if place.parts.iter().all(is_literal) {
            self.look_up(place, &mut dirs);
        } else if let Err(error) = self.list(place, &mut dirs) {
            // Who may not list it may not watch it. A change of its mode is news of the one above.
            return self.note(&place.path, error);
        }
        *self.scan.dirs.entry(place.path.clone()).or_default() |= holds_files;
        // The last one is entered next.
        dirs.sort_unstable_by(|a, b| b.path.cmp(&a.path));
        for dir in dirs {
            let ahead = if dir.is_hidden { &mut self.hidden_ahead } else { &mut self.ahead };
            ahead.push(dir);
        }
    }

    /// Looks at the names that the pattern gives without wildcards.
    fn look_up(&mut self, place: &Place, dirs: &mut Vec<Place>) {
        let pattern = self.pattern;
        for &part in &place.parts {
            let Part::Literal(name) = &pattern.parts[part] else { continue };
            match self.ground.os.lstat(&place.real.join(name)) {
                Ok(found) => self.see(place, name, found.kind, || Ok(found), dirs),
                Err(error) => self.note(&place.path.join(name), error),
            }
        }
    }

    /// Looks at all names in a directory.
    fn list(&mut self, place: &Place, dirs: &mut Vec<Place>) -> io::Result<()> {
        let before = self.found.len();
        for entry in self.ground.os.list(&place.real)? {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => {
                    // What was listed counts; the rest may come the next time.
                    self.note(&place.path, error);
                    break;
                }
            };
            self.ground.host.pulse();
            let name = entry.name();
            match entry.kind() {
                Ok(kind) => self.see(place, &name, kind, || entry.facts(), dirs),
                Err(error) => self.note(&place.path.join(name), error),
            }
        }
        // In one directory the order of paths is that of their bytes, which is quickly compared.
        let before = before.min(self.found.len());
        self.found[before..]
            .sort_unstable_by(|a, b| a.file.path.as_os_str().cmp(b.file.path.as_os_str()));
        Ok(())
    }

    /// Looks at a name in a directory: a file that matches, a directory to enter, or a link to one
    /// of them.
    fn see(
        &mut self,
        place: &Place,
        name: &OsStr,
        kind: Kind,
        facts: impl FnOnce() -> io::Result<Facts>,
        dirs: &mut Vec<Place>,
    ) {
        if place.has_own && self.ground.own.is_private_name(name) {
            return;
        }
        if kind == Kind::Link {
            return self.follow(place, name, dirs);
        }
        if kind == Kind::Dir {
            let parts = self.parts_below(place, name);
            if !parts.is_empty() {
                self.plan(dirs, || place.below(name, place.real.join(name), parts));
            }
        }
        if self.is_beside_named || !self.is_match(place, name) {
            return;
        }
        let path = place.path.join(name);
        if self.ground.exclude.has_file(&path) {
            self.scan.left_out += 1;
            return;
        }
        if kind != Kind::File {
            return self.pass_over(place, name, path, kind);
        }
        match facts() {
            Ok(facts) if facts.is_regular() => {
                if self.pattern.is_literal() {
                    let os = self.ground.os;
                    let is_mount = |dir: &Path| trace::is_mount(os, dir);
                    self.roots.learn(&path, &place.real.join(name), None, is_mount);
                }
                self.take(place, name, path, &facts, false);
            }
            // Something else has taken its name: the next walk sees it.
            Ok(_) => {}
            Err(error) => self.note(&path, error),
        }
    }

    /// Takes a file that matches, found by its own name or behind a link.
    fn take(&mut self, place: &Place, name: &OsStr, path: PathBuf, facts: &Facts, is_link: bool) {
        let inode = facts.id();
        if self.is_own(inode) {
            return;
        }
        if (is_link || facts.links > 1) && !self.several.insert(inode) {
            if self.further >= ALIASES_MAX {
                return;
            }
            self.further += 1;
        }
        let file = Found {
            path,
            device: facts.device,
            inode: facts.inode,
            size: facts.size,
            modified: facts.modified,
        };
        let is_known = self.ground.host.is_known(inode);
        let is_hidden = place.is_hidden || is_hidden(name);
        self.found.push(Match { is_hidden, is_known, file });
        self.new += usize::from(!is_known);
        if self.new / 2 > self.ground.room.files {
            self.keep_within_room();
        }
    }

    /// Keeps as many as there is room for, and leaves some of it to files that are written to.
    fn keep_within_room(&mut self) {
        let Room { files, young_files, young_from, .. } = self.ground.room;
        let room = files.saturating_sub(self.found.len() - self.new);
        self.keep_within(room);
        let is_young = |one: &&Match| !one.is_known && one.file.modified.0 >= young_from;
        if self.new > room.saturating_sub(young_files) {
            let young = self.found.iter().filter(is_young).count();
            self.keep_within(young.max(room.saturating_sub(young_files)));
        }
    }

    /// Keeps so many of the files that are not known: those that were written to last.
    fn keep_within(&mut self, files_max: usize) {
        if self.new <= files_max {
            return;
        }
        let new = self.found.iter().filter(|one| !one.is_known);
        let mut times: Vec<_> = new.map(|one| one.file.modified).collect();
        let left = times.len() - files_max;
        let (_, &mut latest_left, younger) = times.select_nth_unstable(left - 1);
        // Of those of the same time some are kept.
        let mut equals = files_max - younger.iter().filter(|time| **time > latest_left).count();
        self.found.retain(|one| {
            let time = one.file.modified;
            let is_equal = !one.is_known && time == latest_left && equals > 0;
            equals -= usize::from(is_equal);
            one.is_known || time > latest_left || is_equal
        });
        self.scan.left_files += left as u64;
        self.new = files_max;
    }

    /// Plans to enter a directory, if there is room for it.
    fn plan(&mut self, dirs: &mut Vec<Place>, place: impl FnOnce() -> Place) {
        let ahead = self.ahead.len() + self.hidden_ahead.len() + dirs.len();
        if ahead + self.scan.dirs.len() < self.ground.room.dirs {
            dirs.push(place());
        } else {
            self.scan.left_dirs += 1;
        }
    }

    /// Names what matches and is no regular file. A directory is only named if the pattern asks for
    /// more than any name.
    fn pass_over(&mut self, place: &Place, name: &OsStr, path: PathBuf, kind: Kind) {
        let is_asked_for = |&part: &usize| {
            !matches!(self.pattern.parts[part], Part::AnyName) && self.matches_last(part, name)
        };
        if kind != Kind::Dir || place.parts.iter().any(is_asked_for) {
            let met = self.noted.odd.meet(&path);
            self.scan.odd.add(met, || (path, kind_name(kind)));
        }
    }

    /// Whether a file of this name is one that the pattern matches.
    fn is_match(&self, place: &Place, name: &OsStr) -> bool {
        place.parts.iter().any(|&part| self.matches_last(part, name))
    }

    fn matches_last(&self, part: usize, name: &OsStr) -> bool {
        part + 1 == self.pattern.parts.len() && self.pattern.parts[part].is_match(name)
    }

    /// What is left to match in a directory of this name.
    fn parts_below(&self, place: &Place, name: &OsStr) -> Vec<usize> {
        self.pattern.below(&place.parts, name)
    }

    /// Watches directories for names.
    fn watch(&mut self, dirs: impl IntoIterator<Item = PathBuf>) {
        for dir in dirs {
            if !self.scan.dirs.contains_key(&dir) && !self.has_room_to_watch() {
                continue;
            }
            self.scan.ways.insert(dir.clone());
            self.scan.dirs.entry(dir).or_default();
        }
    }

    /// Whether one more directory may be watched. What happens in others is noticed with the next walk.
    fn has_room_to_watch(&self) -> bool {
        self.scan.dirs.len() / 2 < self.ground.room.dirs
    }

    /// Notes an error at a path. Nothing is noted of a path where nothing is: something may come.
    fn note(&mut self, path: &Path, error: io::Error) {
        if error.kind() != io::ErrorKind::NotFound && error.kind() != io::ErrorKind::NotADirectory {
            let met = self.noted.errors.meet(path);
            self.scan.errors.add(met, || (path.to_owned(), error));
        }
    }
}

fn is_hidden(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b".")
}

/// What something that is no regular file is, for people.
const fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::File => "regular file",
        Kind::Dir => "directory",
        Kind::Link => "link",
        Kind::Pipe => "named pipe",
        Kind::Socket => "socket",
        Kind::BlockDevice => "block device",
        Kind::CharDevice => "character device",
    }
}
