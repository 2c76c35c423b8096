//! Files that a checkpoint speaks of and that have not been met again.
//!
//! At the start that is all of them. A file that discovery finds takes its checkpoint from here;
//! one that was renamed or unlinked from the patterns while the agent was away is looked for where
//! it was, by inode. What is never met is kept for a month of the agent's own time: its volume may
//! come back.
//!
//! Later come those of files that are *done*: delivered and closed. Nothing searches for them, but
//! when one is met again it goes on where it was. Of a file that is *gone* (deleted, or truncated)
//! only a copy can be met, made by gzip or copytruncate; it is known by its name and its bytes.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use super::catalog::index::Indexes;
use super::catalog::judge::{self, Match, Seen, Stat, compare};
use super::catalog::names::{self, Kin};
use super::os::{Kind, Os, OsEntry as _};
use super::reader::Reader;
use crate::base::fingerprint::Fingerprint;
use crate::checkpoint::format::Checkpoint;

/// How long a file may not have been seen before its checkpoint is dropped, in seconds.
const UNSEEN_SECONDS_MAX: u64 = 30 * 24 * 3600;
/// How long before the agent ended a file must have been seen to count as live, in seconds. The
/// live ones are as many as the agent had open or at rest.
const LIVE_SECONDS: u64 = 24 * 3600;
/// Age from which on a time stamp is trusted, in seconds: coarser ones are not to be met.
const STAMP_SECONDS: i64 = 2;
/// Most checkpoints kept beside those of live files, and while the agent runs of files that are
/// done and left the patterns. Beyond it those unseen longest are dropped.
const UNSEEN_MAX: usize = 10_000;
/// Most checkpoints kept of files that are gone, because a copy of them may be met: the newest.
const GONE_MAX: usize = 100;
/// Most checkpoints kept of files whose directory was removed: those seen last. They keep their
/// identity, because it may have been renamed, and be renamed back.
const AWAY_MAX: usize = 1000;
/// After a search of so many directories the next one waits for a second.
const AROUND_PER_SECOND: usize = 256;
/// Most known files that a suspect is compared with: the nearest.
const CANDIDATES_MAX: usize = 64;
/// Most known files with the same head that are looked at, beside those whose generation it may be.
const SAME_HEADS_MAX: usize = 64;
/// Most directories in which files are searched for that left their own.
const AROUND_MAX: usize = 4096;
/// How long a directory must be missing to count as removed, in seconds. Before, its volume may be
/// late.
const AWAY_SECONDS: u64 = 60;

/// The checkpoints that wait for their files.
#[derive(Debug, Default)]
pub struct Remembered {
    /// The checkpoints by their numbers, in the order in which they came. Boxed, because a map
    /// keeps room for more than it holds, and there may be many.
    checkpoints: BTreeMap<u64, Box<Checkpoint>>,
    next_number: u64,
    indexes: Indexes,
    /// Checkpoints of collections that are not configured: nothing is known of them but that they
    /// are kept.
    foreign: Vec<Checkpoint>,
    /// Directories that were searched, as they were then: there is no use in looking again before
    /// a name has changed.
    searched: HashMap<PathBuf, DirState>,
    /// Directories that are not there, and since when, in Unix seconds.
    missing: HashMap<PathBuf, u64>,
    /// Numbers of checkpoints of files that were done and left their place. A file is gone if it is
    /// not found around it.
    vanished: HashSet<u64>,
    /// Numbers of checkpoints whose files were searched for around their place, and not found.
    searched_for: HashSet<u64>,
    /// Numbers of checkpoints whose files were found: there is no use in finding them again before
    /// a name has changed.
    located: HashMap<u64, PathBuf>,
    /// Checkpoints whose directories may not be looked into.
    barred: HashSet<u64>,
    /// Directories that were searched around the places of files, as they were then.
    around: Vec<(PathBuf, DirState)>,
    /// When they may be searched again because a name has changed, in Unix seconds.
    around_from: u64,
    /// Numbers of checkpoints of files that were found as they had been delivered, and are to be
    /// opened soon.
    asleep: HashSet<u64>,
    /// Numbers of checkpoints of files that were found nowhere, as was said in this run or an
    /// earlier one.
    nowhere: BTreeSet<u64>,
    /// Numbers of checkpoints of files that were found nowhere, as was said in this run.
    told: BTreeSet<u64>,
    /// Identities of checkpoints that were told of in this run and were taken out: they may be put
    /// back.
    told_taken: HashSet<(u64, u64, u64)>,
}

/// Where the files that wait may be.
#[derive(Debug, Default)]
pub struct Whereabouts {
    /// Paths at which a file may be, each with its checkpoint.
    pub paths: Vec<(PathBuf, Checkpoint)>,
    /// Checkpoints of files whose directory may not be looked into.
    pub barred: Vec<Checkpoint>,
}

/// A file that may be a copy of a known one.
pub struct Suspect<'a, O: Os> {
    /// The system that the suspect is a file of.
    pub os: O,
    /// Where the suspect really is.
    pub place: &'a Path,
    /// Reads the suspect's bytes.
    pub reader: &'a Reader<O::File>,
    /// What fstat(2) says of the suspect.
    pub stat: Stat,
}

impl<O: Os> Suspect<'_, O> {
    /// Whether no log of this name is in the suspect's directory.
    #[must_use]
    pub fn is_alone_here(&self, log: &Path) -> bool {
        let log = log.file_name().map(|name| self.place.with_file_name(name));
        log.is_some_and(|log| self.os.lstat(&log).is_err_and(|error| is_absence(&error)))
    }

    /// Whether the suspect can be a copy of bytes that stood in a file that was made at `born`, and had
    /// gone away by `gone_at`.
    #[must_use]
    pub fn has_alibi(&self, born: i64, gone_at: i64) -> bool {
        let is_compressed = self.reader.is_unpacked();
        // logrotate gives an archive the time of the log, whose copy was made later.
        (is_compressed || !judge::is_older(self.stat.modified, born))
            && judge::has_alibi(self.stat.born, gone_at, is_compressed)
    }
}

/// The file that another one is a copy of.
#[derive(Debug, PartialEq, Eq)]
pub enum Original {
    /// The original's bytes are not there any more. The copy goes on where this checkpoint says.
    Gone(Checkpoint),
    /// The original is closed, and has its bytes still.
    There(Checkpoint),
    /// The original may be somewhere else, and was not searched for yet.
    Sought,
}

/// A place in a known file up to which a suspect may be a copy of it.
struct Candidate {
    distance: usize,
    kin: Kin,
    number: u64,
    offset: u64,
    tail: Fingerprint,
    /// Whether a compressed suspect that is a copy up to this place ends before the next one: it
    /// holds nothing else, because no app writes compressed what another file has as text.
    holds_all: bool,
}

/// The one who has files looked for.
pub trait Seeker {
    /// The system in which they are looked for.
    type Os: Os;

    /// A handle on the system.
    fn os(&self) -> Self::Os;

    /// The checkpoints whose files are looked for.
    fn remembered(&mut self) -> &mut Remembered;

    /// Where a directory really is, if it may be looked into.
    fn enter(&self, dir: &Path) -> Option<PathBuf>;

    /// Does what cannot wait for the end of the search. Called for each name.
    fn pulse(&mut self);
}

/// What is looked for in one directory.
struct Search {
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
    seeker.remembered().barred.clear();
    for (dir, numbers) in seeker.remembered().wanted_by_dir() {
        seeker.pulse();
        match seeker.enter(&dir) {
            // It may have been moved, and a link stand in its place.
            Some(dir) => by_dir.entry(dir).or_default().extend(numbers),
            None => {
                let remembered = seeker.remembered();
                remembered.barred.extend(&numbers);
                barred.extend(remembered.waiting(&numbers).cloned());
            }
        }
    }
    seeker.remembered().searched.retain(|dir, _| by_dir.contains_key(dir));
    let mut listed = HashSet::new();
    for (dir, numbers) in &by_dir {
        seeker.pulse();
        let search = match seeker.remembered().begin_search(os, dir, numbers, unix) {
            Ok(Some(search)) => search,
            Err(error) if is_absence(&error) => {
                let remembered = seeker.remembered();
                if !remembered.missing.contains_key(dir) {
                    numbers.iter().for_each(|number| _ = remembered.located.remove(number));
                }
                missing.push((dir.clone(), numbers.clone()));
                continue;
            }
            Ok(None) | Err(_) => continue,
        };
        let Ok((files, _)) = entries(os, dir, &search.inodes, &mut || seeker.pulse()) else {
            // The right to look may come without a change of the names.
            seeker.remembered().searched.remove(dir);
            continue;
        };
        listed.insert(dir.as_path());
        let remembered = seeker.remembered();
        // What was renamed while the names were read may have been missed.
        let are_all = state_of(os, dir).is_ok_and(|state| state == search.state);
        if !are_all {
            remembered.searched.remove(dir);
        }
        remembered.compare_names(os, numbers, &files, are_all.then_some(unix), &mut paths);
        paths.extend(remembered.copied(os, dir, numbers, search.state.0, &files));
    }
    for numbers in by_dir.values_mut() {
        let remembered = seeker.remembered();
        let is_sought = |number: &u64| {
            !remembered.located.contains_key(number)
                && remembered.saved(*number).is_some_and(|saved| !saved.is_done)
        };
        numbers.retain(is_sought);
    }
    by_dir.retain(|_, numbers| !numbers.is_empty());
    search_around(seeker, &by_dir, unix, &mut paths);
    seeker.remembered().forget_missing(os, missing, unix);
    Whereabouts { paths, barred }
}

/// Searches around the directories of files that are in none of them any more. The search covers
/// what is up to two levels below such a directory; the directory above, and what is up to two
/// levels below that; and the one above that, with its directories, and in each of these the
/// directory of the same name: one may be the directory above, renamed. Each directory is listed
/// once.
fn search_around(
    seeker: &mut impl Seeker,
    by_dir: &BTreeMap<PathBuf, Vec<u64>>,
    unix: u64,
    paths: &mut Vec<(PathBuf, Checkpoint)>,
) {
    let os = &seeker.os();
    let numbers: Vec<u64> = by_dir.values().flatten().copied().collect();
    if numbers.is_empty() || seeker.remembered().is_searched_around(os, &numbers, unix) {
        return;
    }
    let wanted = seeker.remembered().by_inode_of(&numbers);
    let inodes = wanted.iter().map(|(inode, _)| *inode).collect();
    let mut scout = Scout { wanted: inodes, ..Scout::default() };
    let dirs: BTreeSet<&Path> = by_dir.keys().map(PathBuf::as_path).collect();
    let above: BTreeSet<&Path> = dirs.iter().filter_map(|dir| dir.parent()).collect();
    let mut far: BTreeMap<&Path, BTreeSet<&OsStr>> = BTreeMap::new();
    for dir in &dirs {
        if let Some((above, name)) = dir.parent().and_then(Path::parent).zip(dir.file_name()) {
            far.entry(above).or_default().insert(name);
        }
    }
    for dir in dirs.iter().chain(&above) {
        for below in scout.list(seeker, dir) {
            scout.list(seeker, &below).iter().for_each(|below| drop(scout.list(seeker, below)));
        }
    }
    for (dir, names) in far {
        for beside in scout.list(seeker, dir) {
            scout.list(seeker, &beside);
            names.iter().for_each(|name| drop(scout.list(seeker, &beside.join(name))));
        }
    }
    let is_partial = scout.is_partial || scout.tries == AROUND_MAX;
    let remembered = seeker.remembered();
    let is_recent =
        |state: &DirState| state.2.saturating_add(STAMP_SECONDS).cast_unsigned() >= unix;
    // A name may still change within the same tick of the directory's time stamp.
    scout.dirs.iter_mut().filter(|(_, state)| is_recent(state)).for_each(|(_, state)| state.3 = -1);
    remembered.around_from = unix.saturating_add((scout.tries / AROUND_PER_SECOND) as u64);
    remembered.around = scout.dirs;
    for (inode, number) in wanted {
        let saved = remembered.saved(number);
        let is_it = |path: &&PathBuf| saved.is_some_and(|saved| may_be_at(os, saved, path));
        match (scout.files.get(&inode).filter(is_it), saved) {
            (Some(path), Some(saved)) => {
                paths.push((path.clone(), saved.clone()));
                remembered.located.insert(number, path.clone());
            }
            (None, Some(saved)) if remembered.vanished.contains(&number) && !is_partial => {
                // Not every file system tells the right inodes along with the names.
                if !is_in_its_place(os, saved)
                    && let Some(saved) = remembered.take(number)
                {
                    remembered.put_lost(saved, unix);
                }
            }
            (None, Some(_)) => _ = remembered.searched_for.insert(number),
            (_, None) => {}
        }
    }
}

/// Lists directories, each once.
#[derive(Default)]
struct Scout {
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

impl Scout {
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
        let state = state_of(os, dir).ok().filter(|_| seeker.enter(dir).as_deref() == Some(dir));
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

impl Remembered {
    /// Takes over the checkpoints that were loaded, without those whose files have not been seen
    /// for too long while an agent ran. Checkpoints of another collection than this are only kept.
    /// `unix` is now, in seconds.
    #[must_use]
    pub fn new(mut checkpoints: Vec<Checkpoint>, unix: u64, collection: &str) -> Self {
        checkpoints.sort_by_key(|one| Reverse(one.seen_unix));
        // When an agent ran last; not later than now, whatever its clock said.
        let last = checkpoints.first().map_or(0, |newest| newest.seen_unix).min(unix);
        let count_within = |seconds| {
            checkpoints.partition_point(|one| one.seen_unix.saturating_add(seconds) > last)
        };
        let (live, young) = (count_within(LIVE_SECONDS), count_within(UNSEEN_SECONDS_MAX));
        checkpoints.truncate(young.min(live + UNSEEN_MAX));
        let is_ours = |one: &Checkpoint| one.owner.as_deref().is_none_or(|it| it == collection);
        let (ours, foreign) = checkpoints.into_iter().partition(is_ours);
        let mut remembered = Self { foreign, ..Self::default() };
        let ours: Vec<Checkpoint> = ours;
        ours.into_iter().rev().for_each(|one| remembered.put_back(one));
        remembered
    }

    /// How many checkpoints wait for their files.
    #[must_use]
    pub fn len(&self) -> usize {
        self.checkpoints.len()
    }

    /// Whether no checkpoint waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.checkpoints.is_empty()
    }

    /// Checkpoints of collections that are not configured, to be saved again.
    #[must_use]
    pub fn foreign(&self) -> &[Checkpoint] {
        &self.foreign
    }

    fn saved(&self, number: u64) -> Option<&Checkpoint> {
        self.checkpoints.get(&number).map(Box::as_ref)
    }

    /// Checkpoints that still wait for their files, to be saved again.
    pub fn checkpoints(&self) -> impl Iterator<Item = &Checkpoint> {
        self.checkpoints.values().map(Box::as_ref)
    }

    /// Checkpoints whose files were not delivered and have not been met.
    pub fn unmet(&self) -> impl Iterator<Item = &Checkpoint> {
        let is_unmet =
            |number: &u64, saved: &Checkpoint| !saved.is_done && !self.asleep.contains(number);
        let all = self.checkpoints.iter();
        all.filter(move |(number, saved)| is_unmet(number, saved)).map(|(_, saved)| saved.as_ref())
    }

    /// Leaves a file closed that is there and as long as it was delivered. Nothing else claims its
    /// checkpoint, and nothing searches for it, until it is opened or has left its place.
    pub fn let_sleep(&mut self, device: u64, inode: u64) {
        let numbers = self.indexes.of_inode(inode).filter(|_| inode != 0);
        let is_it =
            |number: &u64| self.checkpoints.get(number).is_some_and(|one| one.device == device);
        self.asleep.extend(numbers.filter(is_it));
    }

    /// Ends what [`Self::let_sleep`] began: the file was opened, or could not be.
    pub fn wake(&mut self, device: u64, inode: u64) {
        let is_it =
            |number: &u64| self.checkpoints.get(number).is_some_and(|one| one.device == device);
        for number in self.indexes.of_inode(inode).filter(is_it) {
            self.asleep.remove(&number);
        }
    }

    /// Forgets that a file waited to be opened.
    pub fn on_opened(&mut self, device: u64, inode: u64) {
        let is_it = |number: &u64| {
            self.saved(*number).is_some_and(|one| one.device == device && is_unread(one))
        };
        let waited: Vec<u64> = self.indexes.of_inode(inode).filter(is_it).collect();
        waited.into_iter().for_each(|number| drop(self.take(number)));
    }

    /// Checkpoints whose files have not been met and were not delivered to their end, as far as is
    /// known.
    fn undelivered(&self) -> impl Iterator<Item = (u64, &Checkpoint)> {
        let is_it = |(number, saved): &(u64, &Checkpoint)| {
            let has_rest = match saved.rest {
                Some(rest) => rest > 0,
                None => !saved.is_done && saved.inode != 0,
            };
            has_rest && !self.asleep.contains(number)
        };
        self.checkpoints.iter().map(|(number, saved)| (*number, saved.as_ref())).filter(is_it)
    }

    /// Takes the checkpoints whose files are missing and of which nobody was told in this run or an
    /// earlier one. From now on somebody was told.
    pub fn tell(&mut self, is_missing: impl Fn(&Checkpoint) -> bool) -> Vec<Checkpoint> {
        let untold = self.undelivered().filter(|(_, saved)| !saved.is_told && is_missing(saved));
        let numbers: Vec<u64> = untold.map(|(number, _)| number).collect();
        self.told.extend(&numbers);
        self.nowhere.extend(&numbers);
        let tell = |number| {
            let saved = self.checkpoints.get_mut(&number)?;
            saved.is_told = true;
            Some(saved.as_ref().clone())
        };
        numbers.into_iter().filter_map(tell).collect()
    }

    /// Checkpoints whose files are missing still, and of which somebody was told in this run.
    pub fn told(&self) -> impl Iterator<Item = &Checkpoint> {
        self.told.iter().filter_map(|number| self.saved(*number))
    }

    /// How many files are missing, as somebody was told in this run or an earlier one, and how many
    /// bytes of them were not delivered, as far as is known.
    #[must_use]
    pub fn missing(&self) -> (u64, u64) {
        let missing = self.nowhere.iter().filter_map(|number| self.saved(*number));
        missing.fold((0, 0), |(files, bytes): (u64, u64), saved| {
            (files + 1, bytes.saturating_add(saved.rest.unwrap_or(0)))
        })
    }

    /// Puts checkpoints back whose files could not be opened after all.
    pub fn put_back(&mut self, checkpoint: Checkpoint) {
        // Of what is gone it may be there still.
        if checkpoint.inode == 0 {
            let same = self.indexes.of_inode(0).find(|number| self.is_of(*number, &checkpoint));
            same.into_iter().for_each(|number| drop(self.take(number)));
        }
        let number = self.next_number;
        self.next_number += 1;
        self.indexes.insert(&checkpoint, number);
        if checkpoint.is_told {
            self.nowhere.insert(number);
            if self.told_taken.remove(&self.indexes.identity(&checkpoint)) {
                self.told.insert(number);
            }
        }
        self.checkpoints.insert(number, Box::new(checkpoint));
    }

    /// Whether a checkpoint speaks of the same bytes that are gone.
    fn is_of(&self, number: u64, gone: &Checkpoint) -> bool {
        let Checkpoint { path, born, head, offset, tail, gone_at, .. } = gone;
        self.saved(number).is_some_and(|one| {
            one.path == *path
                && (one.born, one.gone_at, one.offset) == (*born, *gone_at, *offset)
                && (one.head, one.tail) == (*head, *tail)
        })
    }

    /// Puts a checkpoint back whose file was searched for: what has its inode is another file, as far as
    /// that can be told.
    pub fn put_unfound(&mut self, checkpoint: Checkpoint) {
        self.searched_for.insert(self.next_number);
        self.put_back(checkpoint);
    }

    fn take(&mut self, number: u64) -> Option<Checkpoint> {
        let checkpoint = self.checkpoints.remove(&number)?;
        self.vanished.remove(&number);
        self.asleep.remove(&number);
        // Very many may have slept.
        if self.asleep.len() < self.asleep.capacity() / 8 {
            self.asleep.shrink_to(self.asleep.len() * 2);
        }
        self.nowhere.remove(&number);
        if self.told.remove(&number) {
            self.told_taken.insert(self.indexes.identity(&checkpoint));
        }
        self.indexes.remove(&checkpoint, number);
        self.searched_for.remove(&number);
        self.located.remove(&number);
        self.barred.remove(&number);
        Some(*checkpoint)
    }

    /// Takes this checkpoint out.
    pub fn remove(&mut self, checkpoint: &Checkpoint) -> Option<Checkpoint> {
        let is_it = |number: &u64| self.saved(*number) == Some(checkpoint);
        let number = self.indexes.of_inode(checkpoint.inode).find(is_it);
        self.take(number?)
    }

    /// Keeps the checkpoint of a file that is done, to know it when it is met again.
    pub fn put_done(&mut self, checkpoint: Checkpoint) {
        self.put_back(Checkpoint { is_done: true, trail: Vec::new(), ..checkpoint });
    }

    /// Keeps the checkpoint of a file that holds no log any more: nothing of it is owed.
    pub fn put_overwritten(&mut self, checkpoint: Checkpoint) {
        self.put_done(Checkpoint { rest: Some(0), ..checkpoint });
    }

    /// Keeps the checkpoint of a file that is gone, delivered or not: only a copy of its bytes can
    /// be met. The checkpoint's `gone_at` says since when.
    pub fn put_gone(&mut self, checkpoint: Checkpoint) {
        self.put_back(Checkpoint { inode: 0, ..checkpoint });
        let gone = self.indexes.of_inode(0);
        let is_over = gone.clone().nth(GONE_MAX).is_some();
        // What was not delivered goes last.
        let is_delivered =
            |number: &u64| self.saved(*number).is_some_and(|saved| saved.rest.unwrap_or(0) == 0);
        let oldest = gone.clone().filter(is_delivered).min().or_else(|| gone.min());
        if let Some(oldest) = oldest.filter(|_| is_over) {
            self.take(oldest);
        }
    }

    /// Keeps only some of the checkpoints of files that are done and that nobody finds by the
    /// patterns any more: those seen last. `is_found` says whether a file is found, by device and
    /// inode.
    pub fn forget_unfound(&mut self, is_found: impl Fn((u64, u64)) -> bool) {
        let is_unfound = |number: &u64, saved: &Checkpoint| {
            let is_done = saved.is_done && saved.inode != 0 && !self.asleep.contains(number);
            is_done && !is_found((saved.device, saved.inode))
        };
        let known = self.checkpoints.iter();
        let unfound = known.filter(|(number, saved)| is_unfound(number, saved));
        let mut unfound: Vec<_> =
            unfound.map(|(number, saved)| (saved.seen_unix, *number)).collect();
        let Some(beyond @ 1..) = unfound.len().checked_sub(UNSEEN_MAX) else { return };
        unfound.select_nth_unstable(beyond - 1);
        for (_, number) in &unfound[..beyond] {
            self.take(*number);
        }
    }

    /// Notes that copies of what is gone were searched for: copies made from now on are younger
    /// than this look. Returns whether that is news of any.
    pub fn on_copies_searched(&mut self) -> bool {
        let mut is_news = false;
        for number in self.indexes.of_inode(0) {
            if let Some(gone) = self.checkpoints.get_mut(&number) {
                is_news |= !gone.is_done;
                gone.is_done = true;
            }
        }
        is_news
    }

    /// Wants a search for a file that was done and has left the place where it was.
    pub fn search_for(&mut self, device: u64, inode: u64) {
        for number in self.indexes.of_inode(inode) {
            let saved = self.checkpoints.get_mut(&number).filter(|one| one.device == device);
            let is_asleep = saved.is_some() && self.asleep.remove(&number);
            if let Some(saved) = saved.filter(|one| one.is_done || is_asleep) {
                saved.is_done = false;
                self.vanished.insert(number);
            }
        }
    }

    /// Wants a search for a file that was left closed, was not delivered and has left the place
    /// where it was.
    pub fn miss(&mut self, device: u64, inode: u64) {
        self.wake(device, inode);
    }

    /// Notes that a file that is not open has `size` bytes. Returns whether it is known: `born` tells it
    /// from one that had its inode before.
    pub fn note_grown(&mut self, device: u64, inode: u64, born: i64, size: u64) -> bool {
        let mut numbers = self.indexes.of_inode(inode).filter(|_| inode != 0);
        let is_it = |number: &u64| {
            let saved = self.saved(*number).filter(|one| one.device == device);
            saved.is_some_and(|one| !judge::is_used_inode(one, born))
        };
        let Some(number) = numbers.find(is_it) else { return false };
        if let Some(saved) = self.checkpoints.get_mut(&number) {
            saved.rest = Some(size.saturating_sub(saved.offset));
        }
        true
    }

    /// Notes that a file is still there, as it was: its checkpoint does not age.
    pub fn on_met(&mut self, device: u64, inode: u64, unix: u64) {
        for number in self.indexes.of_inode(inode) {
            let saved = self.checkpoints.get_mut(&number);
            if let Some(saved) = saved.filter(|one| one.device == device) {
                saved.seen_unix = saved.seen_unix.max(unix);
            }
        }
    }

    /// What is known of the file with this device and inode.
    #[must_use]
    pub fn get(&self, device: u64, inode: u64) -> Option<&Checkpoint> {
        let numbers = self.indexes.of_inode(inode).filter(|_| inode != 0);
        let mut checkpoints = numbers.filter_map(|number| self.saved(number));
        checkpoints.find(|one| one.device == device)
    }

    /// Takes the checkpoint that speaks of an opened file, with what it means for it. The closest
    /// kinship is tried first: device and inode, then inode, then path.
    ///
    /// # Errors
    /// As reading the file.
    pub fn claim<O: Os>(
        &mut self,
        os: &O,
        path: &Path,
        reader: &Reader<O::File>,
        stat: Stat,
    ) -> io::Result<Option<(Checkpoint, Match)>> {
        let kinship = |saved: &Checkpoint| match (
            saved.device == stat.device,
            saved.inode == stat.inode,
            saved.path == path,
        ) {
            _ if saved.inode == 0 => None,
            // What is known from before tells more than that it waits since this start.
            (true, true, _) if is_unread(saved) => Some(3),
            (true, true, _) => Some(0),
            (false, true, _) => Some(1),
            // Copied with all else it stands where it was, and what has only its path now is another.
            (false, false, true) if is_place_taken(os, saved, &stat) => None,
            (false, false, true) => Some(2),
            (true, false, _) | (false, false, false) => None,
        };
        let related = self.indexes.of_inode(stat.inode).chain(self.indexes.of_path(path));
        let mut candidates: Vec<_> = related
            .filter_map(|number| Some((kinship(self.saved(number)?)?, number)))
            // What sleeps in its place is nobody else's.
            .filter(|(kinship, number)| [0, 3].contains(kinship) || !self.asleep.contains(number))
            .collect();
        candidates.sort_unstable();
        for (_, number) in candidates {
            let Some(saved) = self.saved(number) else { continue };
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
            let found = compare(saved, seen);
            if found == Match::Again {
                let anew = |saved: Checkpoint| Checkpoint {
                    offset: 0,
                    tail: Fingerprint::default(),
                    ranges: Vec::new(),
                    is_copy: false,
                    ..saved
                };
                return Ok(self.take(number).map(|saved| (anew(saved), found)));
            }
            if found != Match::Other {
                return Ok(self.take(number).map(|saved| (saved, found)));
            }
        }
        Ok(None)
    }

    /// The file that a suspect is a copy of, by its bytes, and by what its name and its birth allow:
    /// copytruncate and gzip make such. At least `from` bytes of it were delivered.
    ///
    /// # Errors
    /// As reading the suspect.
    pub fn original_of(
        &mut self,
        suspect: &Suspect<'_, impl Os>,
        from: u64,
    ) -> io::Result<Option<Original>> {
        let mut candidates = self.candidates(suspect, from)?;
        candidates.sort_unstable_by_key(|one| (one.distance, Reverse(one.offset), one.number));
        for one in candidates.into_iter().take(CANDIDATES_MAX) {
            if !suspect.reader.has_tail(one.tail, one.offset)? {
                continue;
            }
            let Some(saved) = self.saved(one.number) else { continue };
            let is_known_there = self.is_there(one.number, saved);
            let is_missing = saved.inode != 0 && !is_known_there;
            let is_located = is_missing && self.located.contains_key(&one.number);
            // Nobody may look where it may stand.
            let is_barred = is_missing && self.barred.contains(&one.number);
            if (is_located || is_barred) && one.kin != Kin::Generation {
                // Whose bytes these are is not known.
                continue;
            }
            // It was found and cannot be opened yet: nobody else takes its checkpoint.
            if is_known_there || is_located || is_in_its_place(&suspect.os, saved) {
                return Ok(Some(Original::There(saved.clone())));
            }
            if is_missing && !is_barred && !self.searched_for.contains(&one.number) {
                return Ok(Some(Original::Sought));
            }
            if one.offset < saved.offset {
                // Ranges of the original stand above all that the copy holds.
                let (offset, tail) = match one.holds_all {
                    true => (suspect.stat.size, suspect.reader.tail(suspect.stat.size)?),
                    false => (one.offset, one.tail),
                };
                let part = Checkpoint { offset, tail, ranges: Vec::new(), ..saved.clone() };
                return Ok(Some(Original::Gone(part)));
            }
            if saved.inode == 0 {
                // There may be more than one copy, and another may hold more.
                let gone = saved.clone();
                let kept = self.checkpoints.get_mut(&one.number);
                kept.into_iter().for_each(|one| (one.rest, one.ranges) = (Some(0), Vec::new()));
                return Ok(Some(Original::Gone(gone)));
            }
            return Ok(self.take(one.number).map(Original::Gone));
        }
        Ok(None)
    }

    /// Whether a file is closed, and was where it was found when that was last looked at.
    fn is_there(&self, number: u64, saved: &Checkpoint) -> bool {
        (saved.is_done || self.asleep.contains(&number)) && saved.inode != 0
    }

    /// The places up to which a suspect may be a copy of known files, as far as its head says.
    fn candidates(&self, suspect: &Suspect<'_, impl Os>, from: u64) -> io::Result<Vec<Candidate>> {
        let name = suspect.place.file_name().unwrap_or_default();
        let bases = names::bases(name.as_bytes());
        let bases = bases.iter().map(|base| suspect.place.with_file_name(OsStr::from_bytes(base)));
        let mut numbers: BTreeSet<u64> =
            bases.flat_map(|base| self.indexes.of_place(&base)).collect();
        for head in suspect.reader.heads(self.indexes.head_lens())? {
            // Many may begin with the same banner.
            numbers.extend(self.indexes.of_head(head).take(SAME_HEADS_MAX));
        }
        let mut candidates = Vec::new();
        for number in numbers {
            if let Some(saved) = self.saved(number)
                && suspect.reader.has_head(saved.head)?
            {
                candidates.extend(self.places_in(number, saved, suspect, from));
            }
        }
        Ok(candidates)
    }

    /// The places in a known file with the same head up to which a suspect may be a copy of it.
    fn places_in(
        &self,
        number: u64,
        saved: &Checkpoint,
        suspect: &Suspect<'_, impl Os>,
        from: u64,
    ) -> Vec<Candidate> {
        let kin = names::kin(suspect.place, &[&saved.path, &saved.resolved]);
        // What is there as it was is copied under the name of a generation, or it is not told from another
        // file.
        let is_other = |kin| kin == Kin::Stranger && self.is_there(number, saved);
        let Some(kin) = kin.filter(|kin| !is_other(*kin)) else { return Vec::new() };
        if !suspect.has_alibi(saved.born, saved.gone_at) {
            return Vec::new();
        }
        // A directory for generations holds no log of the name that they had.
        let is_archive = kin == Kin::Elsewhere && suspect.is_alone_here(&saved.path);
        let needed = if is_archive { Kin::Generation } else { kin };
        let (size, head) = (suspect.stat.size, saved.head);
        let below = saved.trail.iter().filter(|(offset, _)| *offset < saved.offset);
        let places: Vec<_> = below.copied().chain([(saved.offset, saved.tail)]).collect();
        let candidate = |(index, &(offset, tail)): (usize, &(u64, Fingerprint))| {
            let is_it = (from..=size).contains(&offset) && judge::is_proof_for(needed, head, tail);
            let is_last = places.get(index + 1).is_some_and(|(next, _)| *next > size);
            let is_compressed = suspect.reader.is_unpacked();
            is_it.then(|| Candidate {
                distance: names::distance(suspect.place, &saved.resolved),
                kin,
                number,
                offset,
                tail,
                holds_all: is_last && is_compressed && judge::is_whole_proof(head, tail),
            })
        };
        places.iter().enumerate().filter_map(candidate).collect()
    }

    /// The checkpoints whose files are looked for, by the directories where they stood.
    fn wanted_by_dir(&self) -> BTreeMap<PathBuf, Vec<u64>> {
        let mut by_dir: HashMap<&Path, Vec<u64>> = HashMap::new();
        for (&number, saved) in &self.checkpoints {
            let is_wanted = saved.inode != 0 && !self.asleep.contains(&number);
            if let Some(dir) = saved.resolved.parent().filter(|_| is_wanted) {
                by_dir.entry(dir).or_default().push(number);
            }
        }
        // In an order that does not change from run to run.
        let mut ordered = BTreeMap::new();
        for (dir, numbers) in by_dir {
            ordered.insert(dir.to_owned(), numbers);
        }
        ordered
    }

    /// Checkpoints among these whose files were not delivered.
    fn waiting<'a>(&'a self, numbers: &'a [u64]) -> impl Iterator<Item = &'a Checkpoint> {
        let known = numbers.iter().filter_map(|number| self.saved(*number));
        known.filter(|saved| !saved.is_done)
    }

    /// Begins the search in a directory, unless no name in it has changed since it was searched.
    fn begin_search(
        &mut self,
        os: &impl Os,
        dir: &Path,
        numbers: &[u64],
        unix: u64,
    ) -> io::Result<Option<Search>> {
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
        let known = numbers.iter().filter_map(|number| self.saved(*number));
        Ok(Some(Search { state, inodes: known.map(|saved| saved.inode).collect() }))
    }

    /// Whether the files of all of these were searched for around their places, and no name has
    /// changed there since.
    fn is_searched_around(&self, os: &impl Os, numbers: &[u64], unix: u64) -> bool {
        let is_done =
            |number| self.searched_for.contains(number) || self.located.contains_key(number);
        let is_same =
            |(dir, state): &(PathBuf, DirState)| state_of(os, dir).is_ok_and(|now| now == *state);
        // Of many directories some name changes all the time.
        numbers.iter().all(is_done) && (unix < self.around_from || self.around.iter().all(is_same))
    }

    /// Pairs each of these numbers of checkpoints with the inode of its file, in the order of the inodes.
    fn by_inode_of(&self, numbers: &[u64]) -> BTreeSet<(u64, u64)> {
        let mut by_inode = BTreeSet::new();
        for &number in numbers {
            if let Some(saved) = self.saved(number) {
                by_inode.insert((saved.inode, number));
            }
        }
        by_inode
    }

    /// Keeps only some of the checkpoints whose directories are not there. None of them is dropped
    /// as long as its directory, or the volume that it is on, may only be late.
    fn forget_missing(&mut self, os: &impl Os, missing: Vec<(PathBuf, Vec<u64>)>, unix: u64) {
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
            .filter_map(|number| Some((number, self.saved(number)?)))
            .filter(|(_, saved)| nearest_device(os, &saved.resolved) == Some(saved.device))
            .map(|(number, saved)| (saved.seen_unix, number))
            .collect();
        removed.sort_unstable();
        removed.truncate(removed.len().saturating_sub(AWAY_MAX));
        for (_, number) in removed {
            self.take(number);
        }
    }

    /// Compares what is looked for with the names that are there. A file that waits and is there is
    /// found. A file that is done and is not there any more is gone, if all names are known: by the
    /// time `are_all`, in Unix seconds.
    fn compare_names(
        &mut self,
        os: &impl Os,
        numbers: &[u64],
        entries: &HashMap<u64, PathBuf>,
        are_all: Option<u64>,
        paths: &mut Vec<(PathBuf, Checkpoint)>,
    ) {
        for &number in numbers {
            self.located.remove(&number);
            let Some(saved) = self.saved(number) else { continue };
            match entries.get(&saved.inode) {
                Some(path) if !saved.is_done && !is_ruled_out(os, saved, path) => {
                    paths.push((path.clone(), saved.clone()));
                    self.located.insert(number, path.clone());
                }
                None if saved.is_done => {
                    // Not every file system tells the right inodes along with the names.
                    if let Some(unix) = are_all
                        && !is_in_its_place(os, saved)
                        && let Some(saved) = self.take(number)
                    {
                        self.put_lost(saved, unix);
                    }
                }
                Some(_) | None => {}
            }
        }
    }

    /// Keeps the checkpoint of a file that was done and is found no more, as was noticed at `unix`,
    /// in seconds.
    fn put_lost(&mut self, saved: Checkpoint, unix: u64) {
        let gone_at = i64::try_from(unix).unwrap_or(i64::MAX).saturating_mul(1_000_000_000);
        // Within the same second it may have been copied.
        let gone_at = gone_at.saturating_add(1_000_000_000);
        self.put_gone(Checkpoint { is_done: true, gone_at, ..saved });
    }

    /// Finds files that stand in the places of those that wait and that were on another disk than
    /// their directory is now: all of it may have been copied. Whether they are the same files is
    /// for their bytes to say.
    fn copied<'a>(
        &'a self,
        os: &'a impl Os,
        dir: &'a Path,
        numbers: &'a [u64],
        device: u64,
        entries: &'a HashMap<u64, PathBuf>,
    ) -> impl Iterator<Item = (PathBuf, Checkpoint)> + 'a {
        let elsewhere = self.waiting(numbers).filter(move |saved| saved.device != device);
        let places =
            elsewhere.filter_map(|saved| Some((dir.join(saved.resolved.file_name()?), saved)));
        places
            .filter(|(place, saved)| entries.get(&saved.inode) != Some(place))
            .filter(|(place, _)| os.lstat(place).is_ok_and(|found| found.is_regular()))
            .map(|(place, saved)| (place, saved.clone()))
    }

    /// Has a directory searched again the next time, and those around it: what stands at `path`
    /// could not be opened.
    pub fn search_again(&mut self, path: &Path) {
        for dir in path.ancestors().skip(1).take(2) {
            self.searched.remove(dir);
        }
        self.located.retain(|_, located| located != path);
    }
}

/// Whether a checkpoint speaks of a file that waited to be opened: nothing was read of it.
#[must_use]
pub const fn is_unread(saved: &Checkpoint) -> bool {
    saved.offset == 0 && saved.head.len == 0
}

/// Whether an error says that nothing is there, and not only that nothing is to be seen.
fn is_absence(error: &io::Error) -> bool {
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

fn is_in_its_place(os: &impl Os, saved: &Checkpoint) -> bool {
    os.lstat(&saved.resolved)
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
#[path = "remembered_tests.rs"]
mod tests;
