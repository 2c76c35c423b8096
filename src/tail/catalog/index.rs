//! Numbers of checkpoints by what a file is known by: inode, path, name, and first bytes.
//!
//! Pure. A key may stand for several things: whoever asks compares the checkpoints.

use std::collections::{BTreeMap, BTreeSet, HashMap, btree_map};
use std::ffi::OsStr;
use std::hash::{BuildHasher as _, RandomState};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use super::names;
use crate::base::fingerprint::Fingerprint;
use crate::checkpoint::format::Checkpoint;

/// Most files with the same head that a suspect is compared with, beside those whose generation it may be.
pub(super) const SAME_HEADS_MAX: usize = 64;

/// What finds checkpoints.
#[derive(Debug, Default)]
pub struct Indexes {
    by_inode: Index,
    /// Numbers of checkpoints by the path as configured.
    by_path: Index,
    /// Numbers of checkpoints by the places where a copy is looked for under another name.
    by_name: Index,
    /// Numbers of checkpoints by the head, where there is one: a copy has the same.
    by_head: BTreeSet<(u64, u64)>,
    /// Lengths of the heads in bytes, and how many heads are so long.
    head_lens: BTreeMap<u32, usize>,
    /// Makes keys of paths.
    hasher: RandomState,
}

impl Indexes {
    /// Adds a checkpoint.
    pub fn insert(&mut self, checkpoint: &Checkpoint, number: u64) {
        self.by_inode.insert(checkpoint.inode, number);
        self.by_path.insert(self.key(&checkpoint.path), number);
        for place in places(checkpoint) {
            self.by_name.insert(self.key(&place), number);
        }
        if checkpoint.head.len > 0 {
            self.by_head.insert((head_key(checkpoint.head), number));
            *self.head_lens.entry(checkpoint.head.len).or_default() += 1;
        }
    }

    /// Takes a checkpoint out, which is as it was added.
    pub fn remove(&mut self, checkpoint: &Checkpoint, number: u64) {
        self.by_inode.remove(checkpoint.inode, number);
        self.by_path.remove(self.key(&checkpoint.path), number);
        for place in places(checkpoint) {
            self.by_name.remove(self.key(&place), number);
        }
        self.by_head.remove(&(head_key(checkpoint.head), number));
        if let btree_map::Entry::Occupied(mut lens) = self.head_lens.entry(checkpoint.head.len) {
            *lens.get_mut() -= 1;
            if *lens.get() == 0 {
                lens.remove();
            }
        }
    }

    /// Checkpoints of files with this inode number, on whatever device.
    pub fn of_inode(&self, inode: u64) -> impl Iterator<Item = u64> + Clone + use<'_> {
        self.by_inode.get(inode)
    }

    /// Checkpoints of files that are known by this path.
    pub fn of_path(&self, path: &Path) -> impl Iterator<Item = u64> + Clone + use<'_> {
        self.by_path.get(self.key(path))
    }

    /// Checkpoints of files that stood in this place, under their last names or those that the patterns
    /// found.
    pub fn of_place(&self, place: &Path) -> impl Iterator<Item = u64> + Clone + use<'_> {
        self.by_name.get(self.key(place))
    }

    /// Checkpoints of files that begin with these bytes.
    pub fn of_head(&self, head: Fingerprint) -> impl Iterator<Item = u64> + use<'_> {
        let key = head_key(head);
        self.by_head.range((key, 0)..=(key, u64::MAX)).map(|(_, number)| *number)
    }

    /// How many bytes the heads have.
    pub fn head_lens(&self) -> impl Iterator<Item = u32> + use<'_> {
        self.head_lens.keys().copied()
    }

    /// Checkpoints of files that one with these heads may be a copy of, or one in this place.
    #[must_use]
    pub fn originals_of(&self, heads: &[Fingerprint], place: &Path) -> BTreeSet<u64> {
        let by_place =
            bases_around(place).flat_map(|base| self.of_place(&base).collect::<Vec<_>>());
        // Many may begin with the same banner.
        let by_head = heads.iter().flat_map(|head| self.of_head(*head).take(SAME_HEADS_MAX));
        by_place.chain(by_head).collect()
    }

    /// A key that stands for a path. Two paths that share it are told apart where the checkpoints
    /// are compared.
    fn key(&self, path: &Path) -> u64 {
        self.hasher.hash_one(path.as_os_str())
    }
}

/// Numbers of checkpoints by something that several may share, and most do not.
#[derive(Debug, Default)]
struct Index {
    /// The first number of each key.
    first: HashMap<u64, u64>,
    /// The other numbers. Ordered, so that many with the same key do not cost more and more.
    others: BTreeSet<(u64, u64)>,
}

impl Index {
    fn insert(&mut self, key: u64, number: u64) {
        if *self.first.entry(key).or_insert(number) != number {
            self.others.insert((key, number));
        }
    }

    fn remove(&mut self, key: u64, number: u64) {
        self.others.remove(&(key, number));
        if self.first.get(&key) != Some(&number) {
            return;
        }
        let next = self.others.range((key, 0)..=(key, u64::MAX)).next().copied();
        match next {
            Some(next) => {
                self.others.remove(&next);
                self.first.insert(key, next.1);
            }
            None => drop(self.first.remove(&key)),
        }
        // After a start nearly all of them are taken.
        if self.first.len() < self.first.capacity() / 8 {
            self.first.shrink_to(self.first.len() * 2);
        }
    }

    fn get(&self, key: u64) -> impl Iterator<Item = u64> + Clone + use<'_> {
        let others = self.others.range((key, 0)..=(key, u64::MAX)).map(|(_, number)| *number);
        self.first.get(&key).copied().into_iter().chain(others)
    }
}

/// Where a file stood, under its last name and under the one that the patterns found.
fn places(saved: &Checkpoint) -> impl Iterator<Item = PathBuf> {
    let first = saved.path.file_name().map(|name| saved.resolved.with_file_name(name));
    let last = saved.resolved.clone();
    let is_other = first.as_ref() != Some(&last);
    first.into_iter().chain(is_other.then_some(last))
}

/// The places of a file that has become a generation in this one: under the names that it may have had
/// before, there and in the two directories above.
pub(super) fn bases_around(place: &Path) -> impl Iterator<Item = PathBuf> {
    let bases = names::bases(place.file_name().unwrap_or_default().as_bytes());
    let bases = bases.into_iter().map(|base| place.with_file_name(OsStr::from_bytes(&base)));
    bases.flat_map(|base| around(&base))
}

/// A path, and the same name in the two directories above.
pub(super) fn around(place: &Path) -> Vec<PathBuf> {
    let name = place.file_name().unwrap_or_default();
    place.ancestors().skip(1).take(3).map(|dir| dir.join(name)).collect()
}

/// Makes a key of a head.
fn head_key(head: Fingerprint) -> u64 {
    u64::from(head.len) << 32 | u64::from(head.crc32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn saved(inode: u64, path: &str, resolved: &str) -> Checkpoint {
        let head = Fingerprint { len: 8, crc32: 7 };
        let (path, resolved) = (path.into(), resolved.into());
        Checkpoint { inode, path, resolved, head, ..Checkpoint::default() }
    }

    #[test]
    fn a_checkpoint_is_found_by_all_that_it_is_known_by() {
        let (mut indexes, one) = (Indexes::default(), saved(5, "/logs/app.log", "/disk/app.log.1"));
        indexes.insert(&one, 1);

        assert!(indexes.of_inode(5).eq([1]) && indexes.of_inode(6).next().is_none());
        assert!(indexes.of_path(&one.path).eq([1]) && indexes.of_head(one.head).eq([1]));
        for place in ["/disk/app.log.1", "/disk/app.log"] {
            assert!(indexes.of_place(Path::new(place)).eq([1]), "{place}");
        }
        assert!(indexes.of_place(&one.path).next().is_none(), "it is no place");
    }

    #[test]
    fn what_several_share_stays_when_one_is_taken_out() {
        let (mut indexes, one) = (Indexes::default(), saved(5, "/logs/app.log", "/disk/app.log"));
        let other = saved(5, "/logs/other.log", "/disk/other.log");
        indexes.insert(&one, 1);
        indexes.insert(&other, 2);

        indexes.remove(&one, 1);

        assert!(indexes.of_inode(5).eq([2]) && indexes.of_head(one.head).eq([2]));
        assert!(indexes.head_lens().eq([8]) && indexes.of_path(&one.path).next().is_none());
        indexes.remove(&other, 2);
        assert!(indexes.head_lens().next().is_none() && indexes.of_inode(5).next().is_none());
    }
}
