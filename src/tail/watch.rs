//! The kernel's hints: what changed in the watched directories.
//!
//! inotify(7) on directories, never on files: one watch serves all names in it. An event only says
//! where to look; sizes and bytes come from the files themselves, so a lost event costs time, not
//! data. Where a directory cannot be watched (limits of the kernel, no inotify at all), or the kernel is
//! not told of what happens in it (another node writes there, or a process below), the agent polls, and
//! says so once. statfs(2) names most of the latter. The others show: files are born in them, look after
//! look, and no event tells of any.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ffi::OsStr;
use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::path::{Path, PathBuf};

use super::os::{Event, Os, OsWatch, WatchId, What, nanoseconds};
use super::served;
use crate::base::span::FileKey;

/// The watches of this process.
pub struct Watch<W> {
    /// The channel; `None` where there is none.
    channel: Option<W>,
    by_dir: HashMap<PathBuf, Watched>,
    /// Directories of log files through which nothing leads elsewhere, by their watch: a name in one
    /// of them matters only as the name of a file.
    plain: HashMap<WatchId, PathBuf>,
    /// Which file stands under which name, by a key of directory and name. Made anew after each
    /// discovery.
    names: HashMap<u64, FileKey>,
    /// Names in plain directories that matter to nobody.
    idle: HashSet<u64>,
    /// Makes the keys of names: thousands of names are large. Two names that share a key would be
    /// the same hint.
    hasher: RandomState,
    /// Why files are polled for good; `None` while notifications can be had and trusted.
    trouble: Option<String>,
    /// Why a directory could not be watched the last time.
    unwatched: Option<String>,
    /// Directories in which a file was found that no event had told of.
    untold: Untold,
    /// Names under which files may have been born.
    births: Births,
    /// What a glance has shown.
    glanced: Hints,
}

/// Files that came and have not been looked at, by their names.
#[derive(Default)]
struct Births {
    /// Directories that hold files and are no plain ones: in the plain ones names are known.
    ways: HashMap<WatchId, PathBuf>,
    /// Paths that came, with the key of directory and name, in the order of coming.
    came: Vec<(u64, PathBuf)>,
    /// Paths that came and have gone again.
    gone: Vec<PathBuf>,
}

impl Births {
    fn on_event(&mut self, event: &Event<'_>, key: u64, dir: Option<&PathBuf>) {
        let Some((dir, name)) = dir.or_else(|| self.ways.get(&event.dir)).zip(event.name) else {
            return;
        };
        if event.is_dir || event.what == What::Attributes {
            return;
        }
        let before = self.came.iter().position(|(other, _)| *other == key);
        let before = before.map(|index| self.came.remove(index).1);
        // One that was renamed is born under its next name.
        let is_gone = event.what != What::MovedFrom;
        if self.gone.len() < BIRTHS_MAX {
            self.gone.extend(before.filter(|_| is_gone));
        }
        let is_come = matches!(event.what, What::Created | What::MovedTo);
        if is_come && self.came.len() < BIRTHS_MAX {
            self.came.push((key, dir.join(name)));
        }
    }
}

struct Watched {
    id: WatchId,
    holds_files: bool,
    /// The kind of the directory's file system, if it does not tell of all that happens.
    served: Option<&'static str>,
}

/// Directories in which files are born without an event, as far as is known.
#[derive(Default)]
struct Untold {
    /// Directories in which files were born without an event in earlier discoveries.
    before: HashSet<WatchId>,
    /// Directories in which a file was born without an event in this discovery.
    now: HashSet<WatchId>,
    /// Directories of which an event has told names since the last discovery.
    told: HashSet<WatchId>,
}

impl Untold {
    fn on_event(&mut self, dir: WatchId) {
        if self.told.insert(dir) {
            self.before.remove(&dir);
            self.now.remove(&dir);
        }
    }

    /// Notes that a file was born in a directory since the last discovery. Returns whether that has
    /// been so twice without an event.
    fn on_birth(&mut self, dir: WatchId) -> bool {
        if self.told.contains(&dir) {
            return false;
        }
        self.now.insert(dir);
        self.before.contains(&dir)
    }

    fn on_discovered(&mut self) {
        self.told.clear();
        self.before.extend(self.now.drain());
    }
}

/// What the events since the last look amount to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Hints {
    /// Files that were written to, each once.
    pub written: Vec<FileKey>,
    /// Files of which only the attributes have changed, each once.
    pub touched: Vec<FileKey>,
    /// Whether names came, went or changed: discovery is due.
    pub names_changed: bool,
    /// Paths that came, or whose rights have changed, and of which the caller says whether that is
    /// news: by [`Watch::ignore`], or with a discovery.
    pub came: Vec<PathBuf>,
    /// Whether something was written to that has no known name: perhaps a rotated file.
    pub unknown_written: bool,
    /// Whether the kernel's queue was full and events are lost: the agent looks at everything.
    pub overflowed: bool,
}

/// Most paths that came of which the caller is asked whether they are news; more are taken for
/// news.
const CAME_MAX: usize = 1024;
/// Most files that came and wait to be looked at one by one; discovery tells of others.
const BIRTHS_MAX: usize = 64;
/// Most names that the watch keeps as mattering to nobody.
const IDLE_MAX: usize = 4096;
/// Most calls in a row that read events. They hold more than the kernel's queue does by default
/// (16,384 events).
const READS_MAX: usize = 16;

impl<W: OsWatch> Watch<W> {
    /// Opens the notification channel; without one (limit of instances) the agent polls.
    #[must_use]
    pub fn new(os: &impl Os<Watch = W>) -> Self {
        let (channel, trouble) = match os.watch() {
            Ok(channel) => (Some(channel), None),
            Err(error) => {
                let hint = match error.raw_os_error() {
                    // EMFILE
                    Some(24) => "; raise the sysctl fs.inotify.max_user_instances on the node",
                    _ => "",
                };
                (None, Some(format!("inotify is not available: {error}{hint}")))
            }
        };
        Self {
            channel,
            by_dir: HashMap::new(),
            plain: HashMap::new(),
            idle: HashSet::new(),
            hasher: RandomState::new(),
            names: HashMap::new(),
            trouble,
            unwatched: None,
            untold: Untold::default(),
            births: Births::default(),
            glanced: Hints::default(),
        }
    }

    /// The channel, if there is one: events can be waited for.
    #[must_use]
    pub fn channel(&self) -> Option<&W> {
        self.channel.as_ref()
    }

    /// Why files are polled, if they are.
    #[must_use]
    pub fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref().or(self.unwatched.as_deref())
    }

    /// Notes that notifications cannot be trusted here.
    pub fn distrust(&mut self, why: &str) {
        self.trouble.get_or_insert_with(|| why.to_owned());
    }

    /// Watches exactly these directories (`true`: also for writes). Returns whether discovery must
    /// run again: a watch is new, and in that directory a name may have changed after `since`
    /// (nanoseconds since 1970), when discovery began.
    pub fn watch(
        &mut self,
        os: &impl Os<Watch = W>,
        dirs: &BTreeMap<PathBuf, bool>,
        since: i64,
    ) -> bool {
        let Some(channel) = &mut self.channel else { return false };
        for dir in in_order(self.by_dir.keys().filter(|dir| !dirs.contains_key(*dir)).cloned()) {
            self.by_dir.remove(&dir).into_iter().for_each(|watched| channel.remove(watched.id));
        }
        let mut has_new = false;
        self.unwatched = None;
        for (dir, &holds_files) in dirs {
            match channel.add(dir, holds_files) {
                Ok(id) => {
                    let before = self.by_dir.get(dir).filter(|old| old.id == id);
                    let served = before.map_or_else(|| served_kind(os, dir), |old| old.served);
                    if let Some(kind) = served {
                        self.unwatched.get_or_insert_with(|| {
                            let dir = dir.display();
                            format!(
                                "{dir} is on {kind}, which does not tell of all that is written"
                            )
                        });
                    }
                    let watched = Watched { id, holds_files, served };
                    match self.by_dir.insert(dir.clone(), watched) {
                        Some(old) if old.id != id => {
                            // The path leads elsewhere now.
                            channel.remove(old.id);
                            has_new = true;
                        }
                        Some(old) => has_new |= holds_files && !old.holds_files,
                        None => has_new |= is_changed(os, dir, since),
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => has_new = true,
                Err(error) => {
                    let hint = match error.raw_os_error() {
                        Some(28) => "; raise the sysctl fs.inotify.max_user_watches on the node",
                        _ => "",
                    };
                    let dir = dir.display();
                    self.unwatched
                        .get_or_insert_with(|| format!("{dir} cannot be watched: {error}{hint}"));
                }
            }
        }
        has_new
    }

    /// Notes that a discovery has found a file that was born since the one before. Returns whether
    /// no event has told of any name there since: the next discovery is to come soon, and if it
    /// finds another file so, notifications are not trusted.
    pub fn on_birth(&mut self, path: &Path) -> bool {
        let Some(watched) = path.parent().and_then(|dir| self.by_dir.get(dir)) else {
            return false;
        };
        if self.untold.on_birth(watched.id) {
            let why = || format!("{} was made without notifications", path.display());
            self.trouble.get_or_insert_with(why);
        }
        self.untold.now.contains(&watched.id)
    }

    /// Says in which of the directories any name may matter: a link leads through them, or is to.
    pub fn set_ways(&mut self, ways: &BTreeSet<PathBuf>) {
        let is_way = |dir: &PathBuf, watched: &Watched| !watched.holds_files || ways.contains(dir);
        self.plain.clear();
        for (dir, watched) in &self.by_dir {
            insert_first(&mut self.plain, watched.id, dir);
        }
        self.births.ways.clear();
        for (dir, way) in self.by_dir.iter().filter(|(dir, watched)| is_way(dir, watched)) {
            self.plain.remove(&way.id);
            if way.holds_files {
                insert_first(&mut self.births.ways, way.id, dir);
            }
        }
    }

    /// Says which file stands under which path, links resolved or not, as discovery found them.
    pub fn set_names<'a>(&mut self, files: impl Iterator<Item = (&'a Path, FileKey)>) {
        self.names.clear();
        self.untold.on_discovered();
        self.add_names(files);
        self.births.came.retain(|(key, _)| !self.names.contains_key(key));
    }

    /// Says which files stand under which paths, as [`Self::set_names`] does, for some files: what
    /// is known of others stays.
    pub fn add_names<'a>(&mut self, files: impl Iterator<Item = (&'a Path, FileKey)>) {
        // Files of one directory come one after the other, mostly.
        let mut last: Option<(&Path, &Watched)> = None;
        for (path, file) in files {
            let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else { continue };
            if last.is_none_or(|(last, _)| last.as_os_str() != dir.as_os_str()) {
                last = self.by_dir.get(dir).map(|watched| (dir, watched));
            }
            if let Some((_, watched)) = last {
                self.names.insert(key(&self.hasher, watched.id, name), file);
            }
        }
    }

    /// Ignores what happens to a file of this name, until something comes there again.
    pub fn ignore(&mut self, path: &Path) {
        let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else { return };
        let Some(watched) = self.by_dir.get(dir) else { return };
        if self.idle.len() >= IDLE_MAX {
            self.idle.clear();
        }
        self.idle.insert(key(&self.hasher, watched.id, name));
    }

    /// Takes the paths under which files may have been born since it was last called, and those
    /// under which some were that have gone again.
    pub fn take_births(&mut self) -> (Vec<PathBuf>, Vec<PathBuf>) {
        let came = std::mem::take(&mut self.births.came).into_iter().map(|(_, path)| path);
        (came.collect(), std::mem::take(&mut self.births.gone))
    }

    /// Reads the waiting events for the births among them; the hints are kept for [`Self::take`].
    pub fn glance(&mut self) {
        self.glanced = self.take();
    }

    /// Takes the waiting events; what comes in without end meanwhile is left for the next time.
    /// *Cost*: a `read` for each 64 KiB of them, and one that finds none.
    pub fn take(&mut self) -> Hints {
        let mut hints = std::mem::take(&mut self.glanced);
        let mut ended = HashSet::new();
        let mut came = HashMap::new();
        let Some(channel) = &mut self.channel else { return hints };
        let (untold, births) = (&mut self.untold, &mut self.births);
        let mut names = Names {
            plain: &self.plain,
            names: &self.names,
            idle: &mut self.idle,
            hasher: &self.hasher,
        };
        let mut take = |event: Event<'_>| match event.what {
            What::Overflow => {
                hints.overflowed = true;
                *untold = Untold::default();
            }
            What::Written => {
                let key = key(names.hasher, event.dir, event.name.unwrap_or_default());
                match names.names.get(&key) {
                    Some(file) if hints.written.last() == Some(file) => {}
                    Some(file) => hints.written.push(*file),
                    None => hints.unknown_written |= !names.idle.contains(&key),
                }
            }
            What::Ended => _ = ended.insert(event.dir),
            What::Attributes
            | What::Created
            | What::MovedTo
            | What::MovedFrom
            | What::Deleted
            | What::Dir => {
                if let Some(file) = names.is_touched(&event) {
                    if hints.touched.last() != Some(&file) {
                        hints.touched.push(file);
                    }
                    return;
                }
                untold.on_event(event.dir);
                if let Some(name) = event.name {
                    let key = key(names.hasher, event.dir, name);
                    births.on_event(&event, key, names.plain.get(&event.dir));
                }
                hints.names_changed |= names.is_changed_by(&event, &mut came);
            }
        };
        for _ in 0..READS_MAX {
            match channel.read(&mut take) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    self.trouble.get_or_insert_with(|| format!("inotify cannot be read: {error}"));
                    break;
                }
            }
        }
        let before = std::mem::take(&mut hints.came);
        hints.came.extend(in_order(before.into_iter().chain(came.into_values())));
        if !ended.is_empty() {
            let known = self.by_dir.len();
            self.by_dir.retain(|_, watched| !ended.contains(&watched.id));
            // The echo of a watch that we removed ourselves is no news.
            hints.names_changed |= self.by_dir.len() < known;
        }
        for files in [&mut hints.written, &mut hints.touched] {
            files.sort_unstable();
            files.dedup();
        }
        hints
    }
}

/// What is known of the names in the watched directories.
struct Names<'a> {
    plain: &'a HashMap<WatchId, PathBuf>,
    names: &'a HashMap<u64, FileKey>,
    idle: &'a mut HashSet<u64>,
    hasher: &'a RandomState,
}

impl Names<'_> {
    /// The open file of which only the attributes have changed: the file is the same, under the
    /// same name.
    fn is_touched(&self, event: &Event<'_>) -> Option<FileKey> {
        let name = event.name.filter(|_| event.what == What::Attributes && !event.is_dir)?;
        self.names.get(&key(self.hasher, event.dir, name)).copied()
    }

    /// Whether an event is news of the names for sure. Puts a path that may be news into `came`, by
    /// its key, and takes out one that has gone again.
    fn is_changed_by(&mut self, event: &Event<'_>, came: &mut HashMap<u64, PathBuf>) -> bool {
        let Some((dir, name)) = self.plain.get(&event.dir).zip(event.name) else { return true };
        let key = key(self.hasher, event.dir, name);
        if event.is_dir || self.names.contains_key(&key) {
            return true;
        }
        let is_idle = self.idle.contains(&key);
        if matches!(event.what, What::Created | What::MovedTo) {
            // It is something else now.
            self.idle.remove(&key);
            if came.len() >= CAME_MAX {
                return true;
            }
            came.insert(key, dir.join(name));
            false
        } else if matches!(event.what, What::Deleted | What::MovedFrom) {
            came.remove(&key).is_none() && !is_idle
        } else {
            !is_idle && !came.contains_key(&key)
        }
    }
}

/// Puts paths in order, each once.
fn in_order(paths: impl Iterator<Item = PathBuf>) -> BTreeSet<PathBuf> {
    let mut ordered = BTreeSet::new();
    paths.for_each(|path| _ = ordered.insert(path));
    ordered
}

/// Inserts the path of a directory; of several paths to one directory the first in order stays.
fn insert_first(dirs: &mut HashMap<WatchId, PathBuf>, id: WatchId, dir: &PathBuf) {
    match dirs.entry(id) {
        Entry::Vacant(free) => _ = free.insert(dir.clone()),
        Entry::Occupied(mut known) if dir < known.get() => known.get_mut().clone_from(dir),
        Entry::Occupied(_) => {}
    }
}

/// A key that stands for a name in a directory.
fn key(hasher: &RandomState, dir: WatchId, name: &OsStr) -> u64 {
    hasher.hash_one((dir, name))
}

/// Whether a name in a directory may have changed after `since`, which was taken from our clock with
/// a margin for that of the file system.
fn is_changed(os: &impl Os, dir: &Path, since: i64) -> bool {
    os.stat(dir).map_or(true, |found| nanoseconds(found.changed) >= since)
}

/// The kind of the file system of a directory, if another machine or process serves it.
fn served_kind(os: &impl Os, dir: &Path) -> Option<&'static str> {
    served::kind(os.file_system(dir)?)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::MetadataExt as _;

    use super::*;
    use crate::tail::os::kernel::{Inotify, Kernel};

    fn dirs(dir: &Path, holds_files: bool) -> BTreeMap<PathBuf, bool> {
        BTreeMap::from([(dir.to_owned(), holds_files)])
    }

    #[test]
    fn tells_writes_of_known_files_from_other_news() {
        let dir = tempfile::tempdir().unwrap();
        let known = dir.path().join("a.log");
        fs::write(&known, "").unwrap();
        let mut watch = Watch::new(&Kernel);
        assert!(watch.watch(&Kernel, &dirs(dir.path(), true), 0), "the watch is new");
        assert!(!watch.watch(&Kernel, &dirs(dir.path(), true), 0), "it is there already");
        watch.set_names([(known.as_path(), FileKey(3))].into_iter());
        assert_eq!(watch.take(), Hints::default());

        fs::write(&known, "line\n").unwrap();
        let hints = watch.take();
        assert_eq!((hints.written, hints.names_changed), (vec![FileKey(3)], false));

        fs::write(dir.path().join("b.log"), "line\n").unwrap();
        let hints = watch.take();
        assert_eq!((hints.unknown_written, hints.names_changed), (true, true), "no way is known");
    }

    #[test]
    fn files_that_are_born_look_after_look_without_an_event_are_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.log");
        let mut watch = Watch::new(&Kernel);
        watch.watch(&Kernel, &dirs(dir.path(), true), 0);
        let mut look = |is_told: bool| {
            if is_told {
                fs::write(&path, "").unwrap();
                fs::remove_file(&path).unwrap();
            }
            watch.take();
            let is_soon = watch.on_birth(&path);
            watch.set_names(std::iter::empty());
            (is_soon, watch.trouble().is_some())
        };

        assert_eq!(look(false), (true, false));
        assert_eq!(look(true), (false, false), "the event came a little later");
        assert_eq!(look(false), (true, false));
        assert_eq!(look(false), (true, true));
    }

    #[test]
    fn a_directory_of_names_is_not_watched_for_writes() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a.log"), "").unwrap();
        let mut watch = Watch::new(&Kernel);
        watch.watch(&Kernel, &dirs(dir.path(), false), 0);
        fs::write(dir.path().join("a.log"), "line\n").unwrap();
        assert_eq!(watch.take(), Hints::default());
        assert!(watch.watch(&Kernel, &dirs(dir.path(), true), 0), "now it is, and that is new");
    }

    #[test]
    fn a_directory_that_comes_back_is_watched_anew() {
        let dir = tempfile::tempdir().unwrap();
        let sub = dir.path().join("sub");
        fs::create_dir(&sub).unwrap();
        let mut watch = Watch::new(&Kernel);
        watch.watch(&Kernel, &dirs(&sub, true), 0);
        fs::remove_dir(&sub).unwrap();
        assert!(watch.take().names_changed);
        assert!(watch.watch(&Kernel, &dirs(&sub, true), 0), "missing: look again");
        fs::create_dir(&sub).unwrap();
        assert!(watch.watch(&Kernel, &dirs(&sub, true), 0));
        fs::write(sub.join("x"), "").unwrap();
        assert!(watch.take().names_changed);
        assert_eq!(watch.trouble(), None);
    }

    #[test]
    fn a_new_watch_on_what_has_not_changed_needs_no_second_look() {
        let dir = tempfile::tempdir().unwrap();
        let changed = fs::metadata(dir.path()).unwrap().ctime() * 1_000_000_000;
        assert!(Watch::new(&Kernel).watch(&Kernel, &dirs(dir.path(), true), changed));
        assert!(!Watch::new(&Kernel).watch(
            &Kernel,
            &dirs(dir.path(), true),
            changed + 1_000_000_000
        ));
    }

    #[test]
    fn a_name_that_matters_to_nobody_is_asked_about_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::write(path("a.log"), "").unwrap();
        let mut watch = Watch::new(&Kernel);
        watch.watch(&Kernel, &dirs(dir.path(), true), 0);
        watch.set_ways(&BTreeSet::new());
        watch.set_names([(path("a.log").as_path(), FileKey(3))].into_iter());

        fs::write(path("x.tmp"), "").unwrap();
        assert_eq!(watch.take(), Hints { came: vec![path("x.tmp")], ..Hints::default() });
        watch.ignore(&path("x.tmp"));
        fs::write(path("x.tmp"), "more").unwrap();
        fs::remove_file(path("x.tmp")).unwrap();
        assert_eq!(watch.take(), Hints::default());
        fs::write(path("y.tmp"), "").unwrap();
        fs::rename(path("y.tmp"), path("z")).unwrap();
        assert_eq!(watch.take(), Hints { came: vec![path("z")], ..Hints::default() });

        // What was there before, a known name, a directory, a way: any of them is news.
        fs::rename(path("z"), path("x.tmp")).unwrap();
        assert!(watch.take().names_changed);
        fs::remove_file(path("a.log")).unwrap();
        assert!(watch.take().names_changed);
        fs::create_dir(path("dir")).unwrap();
        assert!(watch.take().names_changed);
        watch.set_ways(&BTreeSet::from([dir.path().to_owned()]));
        fs::write(path("v.tmp"), "").unwrap();
        assert!(watch.take().names_changed);
    }

    /// Watches one directory by two paths, which share its watch: when one path is given up or
    /// leads elsewhere, the directory is watched on by the other.
    /// No hash decides: a run can be played again.
    #[test]
    fn names_that_came_are_told_in_order_by_the_first_path_of_their_directory() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("m")).unwrap();
        let other = ["a", "b", "x", "y", "z"].map(|link| dir.path().join(link));
        other.iter().for_each(|link| std::os::unix::fs::symlink("m", link).unwrap());
        let paths = other.iter().cloned().chain([dir.path().join("m")]);
        let dirs = paths.map(|path| (path, true)).collect();
        let mut watch = Watch::new(&Kernel);
        watch.watch(&Kernel, &dirs, 0);
        watch.set_ways(&BTreeSet::new());

        let names = ["3", "1", "4", "5", "9", "2", "6"];
        names.iter().for_each(|name| fs::write(dir.path().join("m").join(name), "").unwrap());

        let in_order = ["1", "2", "3", "4", "5", "6", "9"];
        let expected = in_order.map(|name| dir.path().join("a").join(name));
        assert_eq!(watch.take().came, expected);
    }

    #[test]
    fn a_directory_under_two_paths_stays_watched_when_one_goes() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (dir.path().join("one"), dir.path().join("two"));
        let other = tempfile::tempdir().unwrap();
        fs::create_dir(&one).unwrap();
        let watch_until_known = |watch: &mut Watch<Inotify>, dirs: &BTreeMap<PathBuf, bool>| {
            let rounds =
                (1..9).find(|_| !watch.watch(&Kernel, dirs, 0) && !watch.take().names_changed);
            assert!(rounds.is_some_and(|rounds| rounds <= 4), "{rounds:?}");
            assert_eq!(watch.by_dir.len(), dirs.len());
            fs::write(one.join("x"), "").unwrap();
            assert!(watch.take().names_changed);
            fs::remove_file(one.join("x")).unwrap();
        };
        for target in [other.path(), &one] {
            let mut watch = Watch::new(&Kernel);
            let _ = fs::remove_file(&two);
            std::os::unix::fs::symlink(&one, &two).unwrap();
            let both = BTreeMap::from([(one.clone(), true), (two.clone(), true)]);
            watch_until_known(&mut watch, &both);
            if target == one {
                watch_until_known(&mut watch, &dirs(&one, true));
            } else {
                fs::remove_file(&two).unwrap();
                std::os::unix::fs::symlink(target, &two).unwrap();
                watch_until_known(&mut watch, &both);
            }
        }
    }

    /// The kernel holds the watches that are wanted, however often directories come and go.
    #[test]
    fn no_watch_is_left_behind() {
        let dir = tempfile::tempdir().unwrap();
        let paths: Vec<_> = (0..20).map(|number| dir.path().join(number.to_string())).collect();
        let mut watch = Watch::new(&Kernel);
        for round in 0..6 {
            paths.iter().for_each(|path| fs::create_dir(path).unwrap());
            watch.watch(&Kernel, &paths.iter().map(|path| (path.clone(), true)).collect(), 0);
            assert_eq!(kernel_watches(&watch), paths.len());
            if round % 2 == 0 {
                watch.watch(&Kernel, &dirs(&paths[0], true), 0);
                assert_eq!(kernel_watches(&watch), 1);
            }
            for (number, path) in paths.iter().enumerate() {
                if number % 2 == 0 {
                    fs::remove_dir(path).unwrap();
                } else {
                    fs::rename(path, dir.path().join(format!("{round}-{number}"))).unwrap();
                }
            }
            assert!(watch.take().names_changed);
        }
        watch.watch(&Kernel, &BTreeMap::new(), 0);
        watch.take();
        assert_eq!((kernel_watches(&watch), watch.by_dir.len()), (0, 0));
    }

    fn kernel_watches(watch: &Watch<Inotify>) -> usize {
        use std::os::fd::{AsFd as _, AsRawFd as _};
        let number = watch.channel().unwrap().as_fd().as_raw_fd();
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{number}")).unwrap();
        info.lines().filter(|line| line.starts_with("inotify ")).count()
    }
}
