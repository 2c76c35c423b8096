//! Looks on the disk for files that are known and not open.
//!
//! A file that discovery finds takes its entry from the catalog; one that was renamed or unlinked from the
//! patterns while the agent was away, or since it was closed, is looked for where it was, by inode. Nothing
//! searches for a file that is closed and in its place. Of a file that is removed only a copy can be met:
//! see [`super::copies`].

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use super::catalog::Catalog;
use super::catalog::entry::{Entry, Search, is_unread};
use super::catalog::judge::{self, Match, Seen, Stat, compare};
use super::os::{Kind, Os, OsEntry as _};
use super::reader::Reader;
use crate::base::fingerprint::Fingerprint;
use crate::checkpoint::format::Checkpoint;

/// Age from which on a time stamp is trusted, in seconds: coarser ones are not to be met.
const STAMP_SECONDS: i64 = 2;
/// Most entries kept of files whose directory was removed: those seen last. They keep their
/// identity, because it may have been renamed, and be renamed back.
const AWAY_MAX: usize = 1000;
/// After a search of so many directories the next one waits for a second.
const AROUND_PER_SECOND: usize = 256;
/// Most directories in which files are searched for that left their own.
const AROUND_MAX: usize = 4096;
/// How long a directory must be missing to count as removed, in seconds. Before, its volume may be
/// late.
const AWAY_SECONDS: u64 = 60;

/// What is known of the directories in which files were searched for.
#[derive(Debug, Default)]
pub struct Scout {
    /// Directories that were searched, as they were then: there is no use in looking again before
    /// a name has changed.
    searched: HashMap<PathBuf, DirState>,
    /// Directories that are not there, and since when, in Unix seconds.
    missing: HashMap<PathBuf, u64>,
    /// Directories that were searched around the places of files, as they were then.
    around: Vec<(PathBuf, DirState)>,
    /// When they may be searched again because a name has changed, in Unix seconds.
    around_from: u64,
}

/// Where the files that wait may be.
#[derive(Debug, Default)]
pub struct Whereabouts {
    /// Paths at which a file may be, each with its checkpoint.
    pub paths: Vec<(PathBuf, Checkpoint)>,
    /// Checkpoints of files whose directory may not be looked into.
    pub barred: Vec<Checkpoint>,
    /// Checkpoints of files that are found nowhere any more.
    pub lost: Vec<Checkpoint>,
}

/// The one who has files looked for.
pub trait Seeker {
    /// The system in which they are looked for.
    type Os: Os;

    /// A handle on the system.
    fn os(&self) -> Self::Os;

    /// The files that are known and not open, and what is known of the directories where they stood.
    fn known(&mut self) -> (&mut Catalog, &mut Scout);

    /// Where a directory really is, if it may be looked into.
    fn enter(&self, dir: &Path) -> Option<PathBuf>;

    /// Does what cannot wait for the end of the search. Called for each name.
    fn pulse(&mut self);
}

/// What is looked for in one directory.
struct DirSearch {
    /// How the directory was before.
    state: DirState,
    /// Inodes of all files that are looked for.
    inodes: HashSet<u64>,
}

/// Finds paths under which files may stand that still wait: renamed in their directory or around
/// it, no longer reached by the patterns, or copied to another disk under their names. Each
/// directory is searched again only when a name in it changed, under whichever path it is known.
/// `unix` is now, in seconds.
pub fn whereabouts(seeker: &mut impl Seeker, unix: u64) -> Whereabouts {
    let os = &seeker.os();
    let (mut paths, mut missing, mut barred) = (Vec::new(), Vec::new(), Vec::new());
    let mut by_dir: BTreeMap<PathBuf, Vec<u64>> = BTreeMap::new();
    seeker.known().0.begin_search();
    for (dir, numbers) in seeker.known().0.wanted_by_dir() {
        seeker.pulse();
        match seeker.enter(&dir) {
            // It may have been moved, and a link stand in its place.
            Some(dir) => by_dir.entry(dir).or_default().extend(numbers),
            None => {
                let (catalog, _) = seeker.known();
                barred.extend(catalog.missing_of(&numbers).cloned());
                numbers.iter().for_each(|number| catalog.on_search(*number, Search::Barred));
            }
        }
    }
    seeker.known().1.searched.retain(|dir, _| by_dir.contains_key(dir));
    for (dir, numbers) in &by_dir {
        seeker.pulse();
        let (catalog, scout) = seeker.known();
        let search = match scout.begin_search(os, catalog, dir, numbers, unix) {
            Ok(Some(search)) => search,
            Err(error) if is_absence(&error) => {
                if !scout.missing.contains_key(dir) {
                    numbers.iter().for_each(|number| catalog.on_left(*number));
                }
                missing.push((dir.clone(), numbers.clone()));
                continue;
            }
            Ok(None) | Err(_) => continue,
        };
        let Ok((files, _)) = entries(os, dir, &search.inodes, &mut || seeker.pulse()) else {
            // The right to look may come without a change of the names.
            seeker.known().1.searched.remove(dir);
            continue;
        };
        let (catalog, scout) = seeker.known();
        // What was renamed while the names were read may have been missed.
        let are_all = state_of(os, dir).is_ok_and(|state| state == search.state);
        if !are_all {
            scout.searched.remove(dir);
        }
        compare_names(os, catalog, numbers, &files, are_all.then_some(unix), &mut paths);
        paths.extend(copied(os, catalog, dir, numbers, search.state.0, &files));
    }
    for numbers in by_dir.values_mut() {
        let (catalog, _) = seeker.known();
        let is_sought = |number: &u64| {
            let search = catalog.entry(*number).and_then(Entry::search);
            matches!(search, Some(Search::Wanted | Search::Nowhere))
        };
        numbers.retain(is_sought);
    }
    by_dir.retain(|_, numbers| !numbers.is_empty());
    let lost = search_around(seeker, &by_dir, unix, &mut paths);
    let (catalog, scout) = seeker.known();
    scout.forget_missing(os, catalog, missing, unix);
    Whereabouts { paths, barred, lost }
}

/// Searches around the directories of files that are in none of them any more. The search covers
/// what is up to two levels below such a directory; the directory above, and what is up to two
/// levels below that; and the one above that, with its directories, and in each of these the
/// directory of the same name: one may be the directory above, renamed. Each directory is listed
/// once. Returns what is found nowhere now, and was not known to be.
fn search_around(
    seeker: &mut impl Seeker,
    by_dir: &BTreeMap<PathBuf, Vec<u64>>,
    unix: u64,
    paths: &mut Vec<(PathBuf, Checkpoint)>,
) -> Vec<Checkpoint> {
    let os = &seeker.os();
    let numbers: Vec<u64> = by_dir.values().flatten().copied().collect();
    let (catalog, scout) = seeker.known();
    if numbers.is_empty() || scout.is_searched_around(os, catalog, &numbers, unix) {
        return Vec::new();
    }
    let wanted = catalog.by_inode_of(&numbers);
    let inodes = wanted.iter().map(|(inode, _)| *inode).collect();
    let mut lister = Lister { wanted: inodes, ..Lister::default() };
    let dirs: BTreeSet<&Path> = by_dir.keys().map(PathBuf::as_path).collect();
    let above: BTreeSet<&Path> = dirs.iter().filter_map(|dir| dir.parent()).collect();
    let mut far: BTreeMap<&Path, BTreeSet<&OsStr>> = BTreeMap::new();
    for dir in &dirs {
        if let Some((above, name)) = dir.parent().and_then(Path::parent).zip(dir.file_name()) {
            far.entry(above).or_default().insert(name);
        }
    }
    for dir in dirs.iter().chain(&above) {
        for below in lister.list(seeker, dir) {
            lister.list(seeker, &below).iter().for_each(|below| drop(lister.list(seeker, below)));
        }
    }
    for (dir, names) in far {
        for beside in lister.list(seeker, dir) {
            lister.list(seeker, &beside);
            names.iter().for_each(|name| drop(lister.list(seeker, &beside.join(name))));
        }
    }
    let is_partial = lister.is_partial || lister.tries == AROUND_MAX;
    let (catalog, scout) = seeker.known();
    let is_recent =
        |state: &DirState| state.2.saturating_add(STAMP_SECONDS).cast_unsigned() >= unix;
    // A name may still change within the same tick of the directory's time stamp.
    lister
        .dirs
        .iter_mut()
        .filter(|(_, state)| is_recent(state))
        .for_each(|(_, state)| state.3 = -1);
    scout.around_from = unix.saturating_add((lister.tries / AROUND_PER_SECOND) as u64);
    scout.around = lister.dirs;
    let mut lost = Vec::new();
    for (inode, number) in wanted {
        let Some(entry) = catalog.entry(number) else { continue };
        let saved = entry.saved();
        match lister.files.get(&inode).filter(|path| may_be_at(os, saved, path)) {
            Some(path) => {
                paths.push((path.clone(), saved.clone()));
                catalog.on_search(number, Search::At(path.clone()));
            }
            None if entry.was_closed() && !is_partial && is_surely_gone(os, saved) => {
                catalog.on_lost(number, unix);
            }
            None => {
                if entry.search() != Some(&Search::Nowhere) {
                    lost.push(saved.clone());
                }
                catalog.on_search(number, Search::Nowhere);
            }
        }
    }
    lost
}

/// Lists directories, each once.
#[derive(Default)]
struct Lister {
    /// Inodes of the files that are looked for.
    wanted: HashSet<u64>,
    /// Paths at which files were found, by inode.
    files: HashMap<u64, PathBuf>,
    /// Directories that were listed, as they were before.
    dirs: Vec<(PathBuf, DirState)>,
    /// Directories in each directory that was listed.
    below: HashMap<PathBuf, Vec<PathBuf>>,
    /// How many paths were tried.
    tries: usize,
    /// Whether a directory could not be listed.
    is_partial: bool,
}

impl Lister {
    /// The directories in a directory, if that may be looked into.
    fn list(&mut self, seeker: &mut impl Seeker, dir: &Path) -> Vec<PathBuf> {
        if let Some(below) = self.below.get(dir) {
            return below.clone();
        }
        if self.tries == AROUND_MAX {
            return Vec::new();
        }
        self.tries += 1;
        seeker.pulse();
        let os = &seeker.os();
        let state = state_of(os, dir);
        self.is_partial |= state.as_ref().is_err_and(|error| !is_absence(error));
        let state = state.ok().filter(|_| seeker.enter(dir).as_deref() == Some(dir));
        let Some(state) = state else { return Vec::new() };
        self.dirs.push((dir.to_owned(), state));
        let found = entries(os, dir, &self.wanted, &mut || seeker.pulse());
        self.is_partial |= found.is_err();
        let (files, below) = found.unwrap_or_default();
        self.files.extend(files);
        self.below.insert(dir.to_owned(), below.clone());
        below
    }
}

/// State of a directory: device, inode, and time of the last change of a name, in seconds and
/// nanoseconds.
type DirState = (u64, u64, i64, i64);

fn state_of(os: &impl Os, dir: &Path) -> io::Result<DirState> {
    let found = os.stat(dir)?;
    Ok((found.device, found.inode, found.modified.0, found.modified.1))
}

impl Scout {
    /// Begins the search in a directory, unless no name in it has changed since it was searched.
    fn begin_search(
        &mut self,
        os: &impl Os,
        catalog: &Catalog,
        dir: &Path,
        numbers: &[u64],
        unix: u64,
    ) -> io::Result<Option<DirSearch>> {
        let state = state_of(os, dir).inspect_err(|_| {
            self.searched.remove(dir);
        })?;
        if self.searched.insert(dir.to_owned(), state) == Some(state) {
            return Ok(None);
        }
        // A name may still change within the same tick of the directory's time stamp.
        if state.2.saturating_add(STAMP_SECONDS).cast_unsigned() >= unix {
            self.searched.remove(dir);
        }
        let known = numbers.iter().filter_map(|number| catalog.entry(*number));
        Ok(Some(DirSearch { state, inodes: known.map(|one| one.saved().inode).collect() }))
    }

    /// Whether the files of all of these were searched for around their places, and no name has
    /// changed there since.
    fn is_searched_around(
        &self,
        os: &impl Os,
        catalog: &Catalog,
        numbers: &[u64],
        unix: u64,
    ) -> bool {
        let is_done =
            |number: &u64| catalog.entry(*number).and_then(Entry::search) == Some(&Search::Nowhere);
        let is_same =
            |(dir, state): &(PathBuf, DirState)| state_of(os, dir).is_ok_and(|now| now == *state);
        // Of many directories some name changes all the time.
        numbers.iter().all(is_done) && (unix < self.around_from || self.around.iter().all(is_same))
    }

    /// Keeps only some of the checkpoints whose directories are not there. None of them is dropped
    /// as long as its directory, or the volume that it is on, may only be late.
    fn forget_missing(
        &mut self,
        os: &impl Os,
        catalog: &mut Catalog,
        missing: Vec<(PathBuf, Vec<u64>)>,
        unix: u64,
    ) {
        let before = std::mem::take(&mut self.missing);
        let mut away = Vec::new();
        for (dir, numbers) in missing {
            let since = before.get(&dir).map_or(unix, |&since| since.min(unix));
            if since.saturating_add(AWAY_SECONDS) <= unix {
                away.extend(numbers);
            }
            self.missing.insert(dir, since);
        }
        if away.len() <= AWAY_MAX {
            return;
        }
        let mut removed: Vec<_> = away
            .into_iter()
            .filter_map(|number| Some((number, catalog.entry(number)?.saved())))
            .filter(|(_, saved)| nearest_device(os, &saved.resolved) == Some(saved.device))
            .map(|(number, saved)| (saved.seen_unix, number))
            .collect();
        removed.sort_unstable();
        removed.truncate(removed.len().saturating_sub(AWAY_MAX));
        for (_, number) in removed {
            catalog.take(number);
        }
    }

    /// Has a directory searched again the next time, and those around it: what stands at `path`
    /// could not be opened.
    pub fn search_again(&mut self, path: &Path) {
        for dir in path.ancestors().skip(1).take(2) {
            self.searched.remove(dir);
        }
    }
}

/// The kinship of a file that had the same inode number, the furthest.
const USED: u8 = 4;

/// An entry that speaks of an opened file.
#[derive(Debug)]
pub struct Claim {
    /// The number of the entry.
    pub number: u64,
    /// What is known of the file by it.
    pub saved: Checkpoint,
    /// What that means for the file.
    pub found: Match,
}

/// The entry that speaks of an opened file, and what it means for it. The closest kinship is tried first:
/// device and inode, then inode, then path.
///
/// # Errors
/// As reading the file.
pub fn claim<O: Os>(
    catalog: &mut Catalog,
    os: &O,
    path: &Path,
    reader: &Reader<O::File>,
    stat: Stat,
) -> io::Result<Option<Claim>> {
    let kinship = |saved: &Checkpoint| match (
        saved.device == stat.device,
        saved.inode == stat.inode,
        saved.path == path,
    ) {
        _ if saved.inode == 0 => None,
        // Another file had the inode; what is known of this one comes first.
        (true, true, _) if judge::is_used_inode(saved, stat.born) => Some(USED),
        // What is known from before tells more than that it waits since this start.
        (true, true, _) if is_unread(saved) => Some(3),
        (true, true, _) => Some(0),
        (false, true, _) => Some(1),
        // Copied with all else it stands where it was, and what has only its path now is another.
        (false, false, true) if is_place_taken(os, saved, &stat) => None,
        (false, false, true) => Some(2),
        (true, false, _) | (false, false, false) => None,
    };
    let related = catalog.indexes().of_inode(stat.inode).chain(catalog.indexes().of_path(path));
    let mut candidates: Vec<_> = related
        .filter_map(|number| {
            let entry = catalog.entry(number)?;
            let kinship = kinship(entry.saved())?;
            // What is found in its place is nobody else's.
            ([0, 3, USED].contains(&kinship) || !entry.is_found()).then_some((kinship, number))
        })
        .collect();
    candidates.sort_unstable();
    // A copy of what had the inode before may be met.
    if candidates.iter().any(|(kinship, _)| *kinship != USED) {
        for (_, number) in candidates.extract_if(.., |(kinship, _)| *kinship == USED) {
            catalog.on_removed(number, |saved| {
                let gone_at = if saved.gone_at == 0 { i64::MAX } else { saved.gone_at };
                Checkpoint { gone_at: gone_at.min(stat.born - 1), ..saved }
            });
        }
    }
    for (_, number) in candidates {
        let Some(saved) = catalog.entry(number).map(Entry::saved) else { continue };
        let is_head_same = reader.has_head(saved.head)?;
        let seen = Seen {
            device: stat.device,
            inode: stat.inode,
            born: stat.born,
            is_same_path: saved.path == path,
            is_head_same,
            is_tail_same: is_head_same
                && stat.size >= saved.offset
                && reader.has_tail(saved.tail, saved.offset)?,
        };
        let saved = saved.clone();
        let found = compare(&saved, seen);
        let saved = match found {
            Match::Other => continue,
            Match::Again => Checkpoint {
                offset: 0,
                tail: Fingerprint::default(),
                ranges: Vec::new(),
                is_copy: false,
                ..saved
            },
            Match::Resume | Match::Rewritten => saved,
        };
        return Ok(Some(Claim { number, saved, found }));
    }
    Ok(None)
}

/// Compares what is looked for with the names that are there. A file that waits and is there is
/// found. A file that is done and is not there any more is gone, if all names are known: by the
/// time `are_all`, in Unix seconds.
fn compare_names(
    os: &impl Os,
    catalog: &mut Catalog,
    numbers: &[u64],
    entries: &HashMap<u64, PathBuf>,
    are_all: Option<u64>,
    paths: &mut Vec<(PathBuf, Checkpoint)>,
) {
    for &number in numbers {
        catalog.on_left(number);
        let Some(entry) = catalog.entry(number) else { continue };
        let saved = entry.saved();
        match (entries.get(&saved.inode), entry.search()) {
            (Some(path), Some(_)) if !is_ruled_out(os, saved, path) => {
                paths.push((path.clone(), saved.clone()));
                catalog.on_search(number, Search::At(path.clone()));
            }
            (None, None) => {
                if let Some(unix) = are_all
                    && is_surely_gone(os, saved)
                {
                    catalog.on_lost(number, unix);
                }
            }
            (Some(_), _) | (None, Some(_)) => {}
        }
    }
}

/// Finds files that stand in the places of those that wait and that were on another disk than
/// their directory is now: all of it may have been copied. Whether they are the same files is
/// for their bytes to say.
fn copied<'a>(
    os: &'a impl Os,
    catalog: &'a Catalog,
    dir: &'a Path,
    numbers: &'a [u64],
    device: u64,
    entries: &'a HashMap<u64, PathBuf>,
) -> impl Iterator<Item = (PathBuf, Checkpoint)> + 'a {
    let elsewhere = catalog.missing_of(numbers).filter(move |saved| saved.device != device);
    let places = elsewhere.filter_map(|saved| Some((dir.join(saved.resolved.file_name()?), saved)));
    places
        .filter(|(place, saved)| entries.get(&saved.inode) != Some(place))
        .filter(|(place, _)| os.lstat(place).is_ok_and(|found| found.is_regular()))
        .map(|(place, saved)| (place, saved.clone()))
}

/// Whether an error says that nothing is there, and not only that nothing is to be seen.
pub(super) fn is_absence(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// The device of the nearest directory above a path that is there. If a volume is not mounted, the
/// device is another one than the volume's.
fn nearest_device(os: &impl Os, path: &Path) -> Option<u64> {
    let mut above = path.ancestors().skip(1);
    above.find_map(|dir| os.stat(dir).ok()).map(|found| found.device)
}

/// Whether another file than this one stands in the place of a known file, on the same disk.
fn is_place_taken(os: &impl Os, saved: &Checkpoint, this: &Stat) -> bool {
    os.stat(&saved.resolved).is_ok_and(|found| {
        found.is_regular() && found.device == this.device && found.inode != this.inode
    })
}

/// Whether a file does not stand where it was last, as far as that can be seen.
#[must_use]
pub fn is_gone_from_its_place(os: &impl Os, saved: &Checkpoint) -> bool {
    match os.lstat(&saved.resolved) {
        Ok(_) => !is_in_its_place(os, saved),
        Err(error) => is_absence(&error),
    }
}

/// Whether a file is gone from its place, and its disk is there. (Not every file system tells the right
/// inodes along with the names, and a volume may come late.)
fn is_surely_gone(os: &impl Os, saved: &Checkpoint) -> bool {
    is_gone_from_its_place(os, saved) && nearest_device(os, &saved.resolved) == Some(saved.device)
}

/// Whether a file that stands where it was last has more bytes than were delivered. The text of a
/// compressed file is longer than the file.
#[must_use]
pub fn has_grown_in_its_place(os: &impl Os, saved: &Checkpoint) -> bool {
    is_in_its_place(os, saved)
        && os.lstat(&saved.resolved).is_ok_and(|found| found.size > saved.offset)
}

/// Whether what has the inode number of a known file may be that file, by its device and birth.
fn may_be_at(os: &impl Os, saved: &Checkpoint, path: &Path) -> bool {
    os.lstat(path).is_ok_and(|found| match found.device == saved.device {
        true => !judge::is_used_inode(saved, found.born),
        // Its disk may have another number now.
        false => judge::is_born_with(saved, found.born),
    })
}

/// Whether what has the inode number of a known file is another one, on a disk of another number. On the
/// same disk it says when the known file was gone.
fn is_ruled_out(os: &impl Os, saved: &Checkpoint, path: &Path) -> bool {
    os.lstat(path)
        .is_ok_and(|found| found.device != saved.device && judge::is_used_inode(saved, found.born))
}

pub(super) fn is_in_its_place(os: &impl Os, saved: &Checkpoint) -> bool {
    stands_at(os, saved, &saved.resolved)
}

/// Whether a file with the numbers of a known one stands here.
#[must_use]
pub fn stands_at(os: &impl Os, saved: &Checkpoint, path: &Path) -> bool {
    os.lstat(path)
        .is_ok_and(|found| found.id() == (saved.device, saved.inode) && found.is_regular())
}

/// The files in a directory with these inodes, and the directories, all of them or none. Nothing
/// else: a link may have got the inode of a file that is gone.
fn entries(
    os: &impl Os,
    dir: &Path,
    wanted: &HashSet<u64>,
    pulse: &mut impl FnMut(),
) -> io::Result<(HashMap<u64, PathBuf>, Vec<PathBuf>)> {
    let (mut files, mut dirs) = (HashMap::new(), Vec::new());
    for entry in os.list(dir)? {
        pulse();
        let entry = entry?;
        match entry.kind() {
            Ok(Kind::File) if wanted.contains(&entry.inode()) => {
                files.insert(entry.inode(), dir.join(entry.name()));
            }
            Ok(Kind::Dir) => dirs.push(dir.join(entry.name())),
            Ok(_) | Err(_) => {}
        }
    }
    Ok((files, dirs))
}

#[cfg(test)]
#[path = "scout_tests.rs"]
pub(in crate::tail) mod tests;
