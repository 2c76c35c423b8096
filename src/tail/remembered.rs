//! Files that a checkpoint speaks of and that have not been met again.
//!
//! At the start that is all of them. A file that discovery finds takes its checkpoint from here;
//! one that was renamed or unlinked from the patterns while the agent was away is looked for where
//! it was, by inode. What is never met is kept for a month: its volume may come back.
//!
//! Later come those of files that are *done*: delivered and closed. Nothing searches for them, but
//! when one is met again it goes on where it was. Of a file that is *gone* (deleted, or truncated)
//! only a copy can be met, made by gzip or copytruncate; it is known by its name and its bytes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsString;
use std::hash::Hash;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{DirEntryExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::{fs, io};

use super::generation;
use super::identity::{Match, Seen, Stat, compare};
use super::reader::Reader;
use crate::checkpoint::format::Checkpoint;
use crate::fingerprint::TAIL_BYTES_MAX;

/// A checkpoint whose file was not seen for this long is dropped.
const UNSEEN_SECONDS_MAX: u64 = 30 * 24 * 3600;
/// A time stamp is trusted when it is older than this: coarser ones are not to be met.
const STAMP_SECONDS: i64 = 2;
/// Most checkpoints kept for files that are not there; beyond it those unseen longest are dropped.
const UNSEEN_MAX: usize = 10_000;
/// Most checkpoints kept of files that are gone, because a copy of them may be met: the newest.
const GONE_MAX: usize = 100;

/// The checkpoints that wait for their files.
#[derive(Debug, Default)]
pub struct Remembered {
    /// In the order in which they came.
    checkpoints: BTreeMap<u64, Checkpoint>,
    next_number: u64,
    by_inode: Index<u64>,
    by_path: Index<PathBuf>,
    /// By the places where a copy is looked for under another name.
    by_name: Index<PathBuf>,
    /// Directories that were searched, as they were then: there is no use in looking again before
    /// a name has changed.
    searched: HashMap<PathBuf, (u64, u64, i64, i64)>,
}

type Index<K> = HashMap<K, BTreeSet<u64>>;

impl Remembered {
    /// Takes over what was loaded, but for what has not been seen for too long. `unix` is now.
    #[must_use]
    pub fn new(mut checkpoints: Vec<Checkpoint>, unix: u64) -> Self {
        checkpoints.retain(|one| one.seen_unix.saturating_add(UNSEEN_SECONDS_MAX) > unix);
        checkpoints.sort_by_key(|one| std::cmp::Reverse(one.seen_unix));
        checkpoints.truncate(UNSEEN_MAX);
        let mut remembered = Self::default();
        checkpoints.into_iter().rev().for_each(|one| remembered.put_back(one));
        remembered
    }

    /// Those that still wait, to be saved again.
    pub fn checkpoints(&self) -> impl Iterator<Item = &Checkpoint> {
        self.checkpoints.values()
    }

    /// Puts checkpoints back whose files could not be opened after all.
    pub fn put_back(&mut self, checkpoint: Checkpoint) {
        let number = self.next_number;
        self.next_number += 1;
        self.by_inode.entry(checkpoint.inode).or_default().insert(number);
        self.by_path.entry(checkpoint.path.clone()).or_default().insert(number);
        for place in places(&checkpoint) {
            self.by_name.entry(place).or_default().insert(number);
        }
        self.checkpoints.insert(number, checkpoint);
    }

    fn take(&mut self, number: u64) -> Option<Checkpoint> {
        let checkpoint = self.checkpoints.remove(&number)?;
        remove(&mut self.by_inode, &checkpoint.inode, number);
        remove(&mut self.by_path, &checkpoint.path, number);
        for place in places(&checkpoint) {
            remove(&mut self.by_name, &place, number);
        }
        Some(checkpoint)
    }

    /// Keeps the checkpoint of a file that is done, to know it when it is met again. If it `is_gone`
    /// only a copy of its bytes can be.
    pub fn put_done(&mut self, checkpoint: Checkpoint, is_gone: bool) {
        let inode = if is_gone { 0 } else { checkpoint.inode };
        self.put_back(Checkpoint { is_done: true, inode, ..checkpoint });
        if let Some(gone) = self.by_inode.get(&0)
            && gone.len() > GONE_MAX
            && let Some(&oldest) = gone.first()
        {
            self.take(oldest);
        }
    }

    /// A file that was done has left the place where it was: it is searched for.
    pub fn search_for(&mut self, device: u64, inode: u64) {
        for number in self.by_inode.get(&inode).into_iter().flatten() {
            if let Some(saved) = self.checkpoints.get_mut(number).filter(|one| one.device == device)
            {
                saved.is_done = false;
            }
        }
    }

    /// The file is still there, as it was: its checkpoint does not age.
    pub fn on_met(&mut self, device: u64, inode: u64, unix: u64) {
        for number in self.by_inode.get(&inode).into_iter().flatten() {
            if let Some(saved) = self.checkpoints.get_mut(number).filter(|one| one.device == device)
            {
                saved.seen_unix = saved.seen_unix.max(unix);
            }
        }
    }

    /// What is known of the file with this device and inode.
    #[must_use]
    pub fn get(&self, device: u64, inode: u64) -> Option<&Checkpoint> {
        let numbers = self.by_inode.get(&inode).filter(|_| inode != 0)?;
        let mut checkpoints = numbers.iter().filter_map(|number| self.checkpoints.get(number));
        checkpoints.find(|one| one.device == device)
    }

    /// Takes the checkpoint that speaks of an opened file, with what it means for it. The closest
    /// kinship is tried first: device and inode, then inode, then path.
    ///
    /// # Errors
    /// As reading the file.
    pub fn claim(
        &mut self,
        path: &Path,
        reader: &Reader,
        stat: Stat,
    ) -> io::Result<Option<(Checkpoint, Match)>> {
        let kinship = |saved: &Checkpoint| match (
            saved.device == stat.device,
            saved.inode == stat.inode,
            saved.path == path,
        ) {
            _ if saved.inode == 0 => None,
            (true, true, _) => Some(0),
            (false, true, _) => Some(1),
            (false, false, true) => Some(2),
            (true, false, _) | (false, false, false) => None,
        };
        let related = [self.by_inode.get(&stat.inode), self.by_path.get(path)];
        let mut candidates: Vec<_> = related
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|&number| Some((kinship(self.checkpoints.get(&number)?)?, number)))
            .collect();
        candidates.sort_unstable();
        for (_, number) in candidates {
            let Some(saved) = self.checkpoints.get(&number) else { continue };
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
            if found != Match::Other {
                return Ok(self.take(number).map(|saved| (saved, found)));
            }
        }
        Ok(None)
    }

    /// The checkpoint of the file that an opened one at the real path `resolved` is a copy of, by
    /// its name and its bytes: copytruncate and gzip make such. It goes on behind what was delivered
    /// of the original. What is closed and still there keeps its own; any other is taken.
    ///
    /// # Errors
    /// As reading the file.
    pub fn claim_copy(
        &mut self,
        resolved: &Path,
        reader: &Reader,
        size: u64,
    ) -> io::Result<Option<Checkpoint>> {
        let mut candidates = BTreeSet::new();
        for base in bases(resolved) {
            for number in self.by_name.get(&base).into_iter().flatten() {
                let Some(saved) = self.checkpoints.get(number) else { continue };
                // A head of NULs is no head; then a whole tail is the proof.
                let is_proof = saved.head.len > 0 || saved.tail.len as usize == TAIL_BYTES_MAX;
                if is_proof && saved.offset <= size {
                    candidates.insert((saved.offset, *number));
                }
            }
        }
        // The one of which most was delivered.
        for (offset, number) in candidates.into_iter().rev() {
            let Some(saved) = self.checkpoints.get(&number) else { continue };
            if reader.has_head(saved.head)? && reader.has_tail(saved.tail, offset)? {
                let is_there = saved.is_done && saved.inode != 0;
                let saved = saved.clone();
                return Ok(if is_there { Some(saved) } else { self.take(number) });
            }
        }
        Ok(None)
    }

    /// Paths under which files may stand that still wait: renamed in their directory or into one
    /// below it, or no longer reached by the patterns. Each directory is searched again only when a name in it changed.
    pub fn whereabouts(&mut self, unix: u64) -> Vec<(PathBuf, Checkpoint)> {
        let mut by_dir: HashMap<PathBuf, Vec<u64>> = HashMap::new();
        for (&number, saved) in self.checkpoints.iter().filter(|(_, saved)| saved.inode != 0) {
            if let Some(dir) = saved.resolved.parent() {
                by_dir.entry(dir.to_owned()).or_default().push(number);
            }
        }
        self.searched.retain(|dir, _| by_dir.contains_key(dir));
        let mut paths = Vec::new();
        for (dir, numbers) in by_dir {
            let Ok(metadata) = fs::metadata(&dir) else { continue };
            let state = (metadata.dev(), metadata.ino(), metadata.mtime(), metadata.mtime_nsec());
            if self.searched.insert(dir.clone(), state) == Some(state) {
                continue;
            }
            // A name may still change within the same tick of the directory's time stamp.
            if state.2.saturating_add(STAMP_SECONDS).cast_unsigned() >= unix {
                self.searched.remove(&dir);
            }
            let Ok((mut files, below)) = entries(&dir) else {
                // The right to look may come without a change of the names.
                self.searched.remove(&dir);
                continue;
            };
            // Rotation may move a file to a directory below (`olddir`).
            let is_missing = |number: &u64| {
                let saved = self.checkpoints.get(number);
                saved.is_some_and(|saved| !saved.is_done && !files.contains_key(&saved.inode))
            };
            if numbers.iter().any(is_missing) {
                let below = below.iter().flat_map(|dir| entries(dir));
                files.extend(below.flat_map(|(files, _)| files));
            }
            self.compare_names(&numbers, &files, &mut paths);
        }
        paths
    }

    /// What waits and is there is found; what is done and is there no more is gone.
    fn compare_names(
        &mut self,
        numbers: &[u64],
        entries: &HashMap<u64, PathBuf>,
        paths: &mut Vec<(PathBuf, Checkpoint)>,
    ) {
        for &number in numbers {
            let Some(saved) = self.checkpoints.get(&number) else { continue };
            match entries.get(&saved.inode) {
                Some(path) if !saved.is_done => paths.push((path.clone(), saved.clone())),
                None if saved.is_done => {
                    if let Some(saved) = self.take(number) {
                        self.put_done(saved, true);
                    }
                }
                Some(_) | None => {}
            }
        }
    }

    /// What stands at `path` could not be opened: its directory is searched again the next time, and
    /// the one above, whose search may have led there.
    pub fn search_again(&mut self, path: &Path) {
        for dir in path.ancestors().skip(1).take(2) {
            self.searched.remove(dir);
        }
    }
}

/// The files in a directory, by inode, and the directories. Nothing else: a link may have got the
/// inode of a file that is gone.
fn entries(dir: &Path) -> io::Result<(HashMap<u64, PathBuf>, Vec<PathBuf>)> {
    let (mut files, mut dirs) = (HashMap::new(), Vec::new());
    for entry in fs::read_dir(dir)?.flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_file() => drop(files.insert(entry.ino(), entry.path())),
            Ok(kind) if kind.is_dir() => dirs.push(entry.path()),
            Ok(_) | Err(_) => {}
        }
    }
    Ok((files, dirs))
}

fn remove<K: Eq + Hash>(index: &mut Index<K>, key: &K, number: u64) {
    if let Some(numbers) = index.get_mut(key) {
        numbers.remove(&number);
        if numbers.is_empty() {
            index.remove(key);
        }
    }
}

/// Where a file stood, under its last name and under the one that the patterns found.
fn places(saved: &Checkpoint) -> impl Iterator<Item = PathBuf> {
    let first = saved.path.file_name().map(|name| saved.resolved.with_file_name(name));
    let last = saved.resolved.clone();
    let is_other = first.as_ref() != Some(&last);
    first.into_iter().chain(is_other.then_some(last))
}

/// The paths that a file may have had in its directory before it was renamed or copied.
pub fn bases(resolved: &Path) -> Vec<PathBuf> {
    let name = resolved.file_name().unwrap_or_default();
    let bases = generation::bases(name.as_bytes());
    bases.into_iter().map(|base| resolved.with_file_name(OsString::from_vec(base))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fingerprint::Fingerprint;

    fn saved(path: &Path, text: &str, offset: usize) -> Checkpoint {
        let metadata = fs::metadata(path).unwrap();
        Checkpoint {
            path: "/share/logs/app.log".into(),
            resolved: path.to_owned(),
            device: metadata.dev(),
            inode: metadata.ino(),
            offset: offset as u64,
            head: Fingerprint::of_head(text.as_bytes()),
            tail: Fingerprint::of_tail(&text.as_bytes()[..offset]),
            seen_unix: 1000,
            ..Checkpoint::default()
        }
    }

    fn claim(checkpoint: &Checkpoint, path: &Path) -> Option<Match> {
        let reader = Reader::open(path).unwrap();
        let stat = reader.stat().unwrap();
        let mut remembered = Remembered::new(vec![checkpoint.clone()], 1000);
        let found = remembered.claim("/share/logs/app.log".as_ref(), &reader, stat).unwrap();
        assert_eq!(found.is_some(), remembered.checkpoints().next().is_none());
        found.map(|(_, found)| found)
    }

    #[test]
    fn a_file_takes_its_own_checkpoint_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("app.log");
        fs::write(&path, "one\ntwo\n").unwrap();
        let own = saved(&path, "one\ntwo\n", 4);
        let with = |change: &dyn Fn(&mut Checkpoint)| {
            let mut other = own.clone();
            change(&mut other);
            claim(&other, &path)
        };

        assert_eq!(claim(&own, &path), Some(Match::Resume));
        assert_eq!(with(&|c| c.device += 1), Some(Match::Resume), "mounted elsewhere");
        assert_eq!(
            with(&|c| (c.device, c.inode) = (c.device + 1, c.inode + 1)),
            Some(Match::Resume),
            "copied"
        );
        assert_eq!(with(&|c| c.inode += 1), None, "another file of this disk");
        assert_eq!(with(&|c| c.offset = 100), Some(Match::Rewritten), "shorter now");
        assert_eq!(with(&|c| c.tail.crc32 += 1), Some(Match::Rewritten), "rewritten");
        assert_eq!(with(&|c| c.head.crc32 += 1), Some(Match::Rewritten), "inode used again");
    }

    #[test]
    fn a_renamed_file_is_found_where_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("app.log");
        fs::write(&path, "one\n").unwrap();
        let checkpoint = saved(&path, "one\n", 4);
        let renamed = dir.path().join("app.log.1");
        fs::rename(&path, &renamed).unwrap();
        let mut remembered = Remembered::new(vec![checkpoint.clone()], 1000);

        assert_eq!(remembered.whereabouts(u64::MAX), [(renamed.clone(), checkpoint.clone())]);
        assert_eq!(remembered.whereabouts(u64::MAX), [], "no name has changed since");
        remembered.search_again(&renamed);
        assert_eq!(remembered.whereabouts(u64::MAX), [(renamed.clone(), checkpoint.clone())]);
        fs::rename(&renamed, dir.path().join("app.log.2")).unwrap();
        assert_eq!(remembered.whereabouts(u64::MAX), [(dir.path().join("app.log.2"), checkpoint)]);
    }

    #[test]
    fn what_is_never_met_goes_after_a_month() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("app.log");
        fs::write(&path, "one\n").unwrap();
        let checkpoint = saved(&path, "one\n", 4);
        let after = |seconds| Remembered::new(vec![checkpoint.clone()], 1000 + seconds);
        assert_eq!(after(UNSEEN_SECONDS_MAX - 1).checkpoints().count(), 1);
        assert_eq!(after(UNSEEN_SECONDS_MAX).checkpoints().count(), 0);
    }

    #[test]
    fn a_copy_is_known_by_its_name_and_its_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("app.log");
        let text = "one\ntwo\nthree\n";
        fs::write(&path, text).unwrap();
        let gone = saved(&path, text, 8);
        let claim = |name: &str, text: &str| {
            let path = dir.path().join(name);
            fs::write(&path, text).unwrap();
            let reader = Reader::open(&path).unwrap();
            let mut remembered = Remembered::default();
            remembered.put_done(gone.clone(), true);
            let found = remembered.claim_copy(&path, &reader, text.len() as u64).unwrap();
            assert_eq!(found.is_some(), remembered.checkpoints().next().is_none());
            found.map(|saved| saved.offset)
        };

        assert_eq!(claim("app.log.1", text), Some(8));
        assert_eq!(claim("app-2026-11-22.log", text), Some(8));
        assert_eq!(claim("app2.log", text), None, "another name");
        assert_eq!(claim("app.log.2", "one\n"), None, "shorter");
        assert_eq!(claim("app.log.3", "one\nTWO\nthree\n"), None, "other bytes");
    }

    #[test]
    fn what_is_met_does_not_age() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("app.log");
        fs::write(&path, "one\n").unwrap();
        let checkpoint = saved(&path, "one\n", 4);
        let mut remembered = Remembered::default();
        remembered.put_done(checkpoint.clone(), false);
        remembered.on_met(checkpoint.device, checkpoint.inode, 5000);

        let saved = remembered.checkpoints().cloned().collect();
        let restarted = Remembered::new(saved, 1000 + UNSEEN_SECONDS_MAX);
        assert!(restarted.get(checkpoint.device, checkpoint.inode).is_some());
    }

    #[test]
    fn a_copy_leaves_the_checkpoint_to_a_file_that_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("app.log");
        fs::write(&path, "one\ntwo\n").unwrap();
        let checkpoint = saved(&path, "one\ntwo\n", 8);
        let copy = dir.path().join("app.log.1");
        fs::copy(&path, &copy).unwrap();
        let mut remembered = Remembered::default();
        remembered.put_done(checkpoint.clone(), false);
        let reader = Reader::open(&copy).unwrap();

        let found = remembered.claim_copy(&copy, &reader, 8).unwrap();

        assert_eq!(found.map(|saved| saved.offset), Some(8));
        assert!(remembered.get(checkpoint.device, checkpoint.inode).is_some());
    }

    #[test]
    fn what_is_done_is_not_searched_for_and_what_is_gone_is_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("app.log");
        fs::write(&path, "one\n").unwrap();
        let checkpoint = saved(&path, "one\n", 4);
        let mut remembered = Remembered::default();
        remembered.put_done(checkpoint.clone(), false);

        assert_eq!(remembered.whereabouts(0), []);
        assert!(remembered.get(checkpoint.device, checkpoint.inode).is_some());
        remembered.search_for(checkpoint.device, checkpoint.inode);
        assert_eq!(remembered.whereabouts(0).len(), 1);

        remembered = Remembered::default();
        remembered.put_done(checkpoint.clone(), false);
        fs::remove_file(&path).unwrap();
        assert_eq!(remembered.whereabouts(0), []);
        assert_eq!(remembered.checkpoints().next().unwrap().inode, 0, "it is gone");
        for _ in 0..=GONE_MAX {
            remembered.put_done(checkpoint.clone(), true);
        }
        assert_eq!(remembered.checkpoints().count(), GONE_MAX);
    }
}
