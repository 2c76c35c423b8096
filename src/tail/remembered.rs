//! Files that a checkpoint speaks of and that have not been met again.
//!
//! At the start that is all of them. A file that discovery finds takes its checkpoint from here;
//! one that was renamed or unlinked from the patterns while the agent was away is looked for where
//! it was, by inode. What is never met is kept for a month: its volume may come back.

use std::collections::HashMap;
use std::os::unix::fs::{DirEntryExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::{fs, io};

use super::identity::{Match, Seen, Stat, compare};
use super::reader::Reader;
use crate::checkpoint::format::Checkpoint;

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
    checkpoints: Vec<Checkpoint>,
    /// Directories that were searched, as they were then: there is no use in looking again before
    /// a name has changed.
    searched: HashMap<PathBuf, (u64, u64, i64, i64)>,
}

impl Remembered {
    /// Takes over what was loaded, but for what has not been seen for too long. `unix` is now.
    #[must_use]
    pub fn new(mut checkpoints: Vec<Checkpoint>, unix: u64) -> Self {
        checkpoints.retain(|one| one.seen_unix.saturating_add(UNSEEN_SECONDS_MAX) > unix);
        checkpoints.sort_by_key(|one| std::cmp::Reverse(one.seen_unix));
        checkpoints.truncate(UNSEEN_MAX);
        Self { checkpoints, searched: HashMap::new() }
    }

    /// Those that still wait, to be saved again.
    #[must_use]
    pub fn checkpoints(&self) -> &[Checkpoint] {
        &self.checkpoints
    }

    /// Puts checkpoints back whose files could not be opened after all.
    pub fn put_back(&mut self, checkpoint: Checkpoint) {
        self.checkpoints.push(checkpoint);
    }

    /// Keeps the checkpoint of a file that is done, to know it when it is met again. If it `is_gone`
    /// only a copy of its bytes can be.
    pub fn put_done(&mut self, checkpoint: Checkpoint, is_gone: bool) {
        let inode = if is_gone { 0 } else { checkpoint.inode };
        self.checkpoints.push(Checkpoint { is_done: true, inode, ..checkpoint });
        let is_gone = |one: &Checkpoint| one.inode == 0;
        if self.checkpoints.iter().filter(|one| is_gone(one)).count() > GONE_MAX
            && let Some(oldest) = self.checkpoints.iter().position(is_gone)
        {
            self.checkpoints.remove(oldest);
        }
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
        let mut candidates: Vec<_> = self
            .checkpoints
            .iter()
            .enumerate()
            .filter_map(|(index, saved)| Some((kinship(saved)?, index)))
            .collect();
        candidates.sort_unstable();
        for (_, index) in candidates {
            let saved = &self.checkpoints[index];
            let seen = Seen {
                device: stat.device,
                inode: stat.inode,
                born: stat.born,
                is_same_path: saved.path == path,
                is_head_same: reader.has_head(saved.head)?,
                is_tail_same: stat.size >= saved.offset
                    && reader.has_tail(saved.tail, saved.offset)?,
            };
            let found = compare(saved, seen);
            if found != Match::Other {
                return Ok(Some((self.checkpoints.swap_remove(index), found)));
            }
        }
        Ok(None)
    }

    /// Paths under which files may stand that still wait: renamed in their directory, or no longer
    /// reached by the patterns. Each directory is searched again only when a name in it changed.
    pub fn whereabouts(&mut self, unix: u64) -> Vec<(PathBuf, Checkpoint)> {
        let mut by_dir: HashMap<&Path, Vec<&Checkpoint>> = HashMap::new();
        for saved in self.checkpoints.iter().filter(|saved| !saved.is_done) {
            if let Some(dir) = saved.resolved.parent() {
                by_dir.entry(dir).or_default().push(saved);
            }
        }
        let mut paths = Vec::new();
        for (dir, waiting) in by_dir {
            let Ok(metadata) = fs::metadata(dir) else { continue };
            let state = (metadata.dev(), metadata.ino(), metadata.mtime(), metadata.mtime_nsec());
            if self.searched.insert(dir.to_owned(), state) == Some(state) {
                continue;
            }
            // A name may still change within the same tick of the directory's time stamp.
            if state.2.saturating_add(STAMP_SECONDS).cast_unsigned() >= unix {
                self.searched.remove(dir);
            }
            let Ok(entries) = fs::read_dir(dir) else { continue };
            for entry in entries.flatten() {
                let found = waiting.iter().find(|saved| saved.inode == entry.ino());
                paths.extend(found.map(|saved| (entry.path(), (*saved).clone())));
            }
        }
        self.searched.retain(|dir, _| {
            self.checkpoints.iter().any(|saved| saved.resolved.parent() == Some(dir.as_path()))
        });
        paths
    }

    /// What stands at `path` could not be opened: its directory is searched again the next time.
    pub fn search_again(&mut self, path: &Path) {
        if let Some(dir) = path.parent() {
            self.searched.remove(dir);
        }
    }
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
        assert_eq!(found.is_some(), remembered.checkpoints().is_empty());
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
        assert_eq!(after(UNSEEN_SECONDS_MAX - 1).checkpoints().len(), 1);
        assert_eq!(after(UNSEEN_SECONDS_MAX).checkpoints().len(), 0);
    }
}
