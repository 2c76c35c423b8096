//! What discovery finds and what need not be open: files that are delivered and closed, and copies.
//!
//! *Absent: the bytes of a file. Whether one is a copy is decided in `opening`.*

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::ffi::{OsStr, OsString};
use std::hash::{BuildHasher as _, RandomState};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::base::fingerprint::Fingerprint;
use crate::base::span::FileKey;
use crate::checkpoint::format::Checkpoint;
use crate::tail::catalog::names;
use crate::tail::discover::Found;
use crate::tail::registry::{FoundAs, Registry, Tracked};
use crate::tail::unseen::Places;

/// Most open files with the same head that are looked at, beside those whose generation it may be.
const SAME_HEADS_MAX: usize = 64;

/// What discovery finds and what need not be open.
#[derive(Default)]
pub(super) struct Aside {
    /// Files that are delivered and closed, as they were found then, by device and inode.
    pub(super) resting: HashMap<(u64, u64), FoundAs>,
    /// Files that were delivered, renamed and closed, with where they are: somebody may write to
    /// them for a while.
    pub(super) renamed: BTreeMap<(u64, u64), (PathBuf, FoundAs, Instant)>,
    /// Files that could not be opened yet when they were found, by device and inode.
    pub(super) waiting: HashSet<(u64, u64)>,
    /// Delivered files that the first discovery left closed, and that are to be opened soon.
    pub(super) asleep: VecDeque<Found>,
    /// Closed files that have changed and are not open yet, by device and inode: they may be
    /// renamed before they can be opened.
    pub(super) changed: HashSet<(u64, u64)>,
    /// Copies of files that have their bytes still, by device and inode.
    pub(super) copies: BTreeMap<(u64, u64), Copy>,
    /// Files that equal others and turned out to be files of their own, by device and inode.
    pub(super) own: HashSet<(u64, u64)>,
    /// Known files beside which others may have been born while nobody looked.
    pub(super) known: Places,
    /// Names of known files that stood for nothing at the last look, with their paths, and since
    /// when.
    pub(super) absent: BTreeMap<OsString, (PathBuf, Instant)>,
    /// Whether not all of what was known at the start has been looked for.
    pub(super) is_first_search: bool,
    /// Older files beside known ones that turned out to be no copies, by device and inode.
    pub(super) strangers: HashSet<(u64, u64)>,
    /// The originals, by what a copy has of them; made when the first copy is suspected in a
    /// discovery.
    pub(super) originals: Option<Originals>,
    /// When files that are born are compared with what is open by then.
    pub(super) births_from: Option<Instant>,
}

/// Open files, and those whose last batches are under way, by what a copy has of them.
#[derive(Default)]
pub(super) struct Originals {
    by_head: HashMap<Fingerprint, Vec<FileKey>>,
    pub(super) head_lens: BTreeSet<u32>,
    /// Files by the paths where they stand and stood.
    by_place: BTreeSet<(u64, FileKey)>,
    /// Makes keys of paths. Two that share one are told apart where the names are compared.
    hasher: RandomState,
}

impl Originals {
    pub(super) fn add(&mut self, file: FileKey, tracked: &Tracked) {
        let head = tracked.opened.head;
        if head.len > 0 {
            self.head_lens.insert(head.len);
            self.by_head.entry(head).or_default().push(file);
        }
        for place in tracked.places().flat_map(|place| around(&place)) {
            self.by_place.insert((self.key(&place), file));
        }
    }

    fn key(&self, place: &Path) -> u64 {
        self.hasher.hash_one(place.as_os_str())
    }

    /// Open files that one with these heads may be a copy of, or become one in this place.
    pub(super) fn of(&self, heads: &[Fingerprint], place: &Path) -> BTreeSet<FileKey> {
        let name = place.file_name().unwrap_or_default();
        let bases = names::bases(name.as_bytes());
        let bases = bases.iter().map(|base| place.with_file_name(OsStr::from_bytes(base)));
        let places = bases.flat_map(|base| around(&base).collect::<Vec<_>>());
        let by_place = places.flat_map(|place| {
            let key = self.key(&place);
            self.by_place.range((key, FileKey(0))..=(key, FileKey(u32::MAX))).take(SAME_HEADS_MAX)
        });
        let by_place = by_place.map(|(_, file)| file);
        // Many may begin with the same banner.
        let by_head = heads.iter().filter_map(|head| self.by_head.get(head));
        let by_head = by_head.flat_map(|files| files.iter().take(SAME_HEADS_MAX));
        by_place.chain(by_head).copied().collect()
    }
}

/// A file that was found to be a copy.
pub(super) struct Copy {
    pub(super) found_as: FoundAs,
    pub(super) of: Source,
    /// What is true of the copy as soon as all of the original is delivered.
    pub(super) done: Checkpoint,
    /// When the file is taken for one of its own, if nobody touches the original.
    pub(super) own_at: Option<Instant>,
}

/// What a file is a copy of.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// A file that is open, or whose last batches are under way.
    Open(FileKey),
    /// A closed file, by device and inode.
    Closed((u64, u64)),
}

impl Copy {
    /// Whether the copy is still empty. It may become anything: gzip makes its file before it
    /// writes.
    pub(super) const fn is_empty(&self) -> bool {
        self.done.offset == 0
    }
}

impl Aside {
    /// Forgets which open files a copy may be of: they are not what they were.
    pub(super) fn end(&mut self) {
        self.originals = None;
    }

    /// Whether there are neither closed files nor copies.
    pub(super) fn is_empty(&self) -> bool {
        self.resting.is_empty() && self.copies.is_empty()
    }

    /// Whether a file waits for the end of the one that it is a copy of.
    pub(super) fn has_copies(&self) -> bool {
        !self.copies.is_empty()
    }

    /// Files of which it is not known yet whether they are copies: they hold just as much as others
    /// that are there. (A file that holds less is most likely a copy of one that has grown since.)
    pub(super) fn in_doubt(&self, open: &Registry) -> impl Iterator<Item = &Checkpoint> {
        let is_as_long = |copy: &&Copy| match copy.of {
            Source::Open(file) => open.get(file).is_some_and(|one| one.size == copy.done.offset),
            Source::Closed(_) => true,
        };
        let copies = self.copies.values().filter(|copy| copy.own_at.is_some() && !copy.is_empty());
        copies.filter(is_as_long).map(|copy| &copy.done)
    }

    /// Whether a file was found to be a copy of an open one.
    pub(super) fn is_copy(&self, inode: (u64, u64)) -> bool {
        self.copies.contains_key(&inode)
    }

    /// How many files are to be opened that are as they were delivered.
    pub(super) fn asleep(&self) -> usize {
        self.asleep.len()
    }

    /// The checkpoint of a closed file, as it is saved for the next start. Somebody may write to
    /// the file and rename it until then, so the next start searches for it. (A compressed file has
    /// another size than its text.)
    pub(super) fn for_next_start<'a>(&self, saved: &'a Checkpoint) -> Cow<'a, Checkpoint> {
        let inode = (saved.device, saved.inode);
        let rests = self.resting.get(&inode).is_some_and(|found_as| found_as.0 == saved.offset)
            || self.renamed.contains_key(&inode);
        match saved.is_done && rests {
            true => Cow::Owned(Checkpoint { is_done: false, ..saved.clone() }),
            false => Cow::Borrowed(saved),
        }
    }

    /// The checkpoints of copies whose originals are delivered by now. A file that equals one that
    /// nobody touches is left out: it may be no copy.
    pub(super) fn delivered_copies(&self, open: &Registry) -> impl Iterator<Item = &Checkpoint> {
        let is_delivered = |copy: &&Copy| {
            let Source::Open(file) = copy.of else { return false };
            let original = open.get(file).filter(|_| !copy.is_empty() && copy.own_at.is_none());
            let is_read = |original: &Tracked| copy.done.offset <= original.read_offset;
            original.is_some_and(|one| one.is_delivered() && is_read(one))
        };
        self.copies.values().filter(is_delivered).map(|copy| &copy.done)
    }
}

/// A path, and the same name in the two directories above.
fn around(place: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let name = place.file_name().unwrap_or_default().to_owned();
    place
        .ancestors()
        .skip(1)
        .take(3)
        .map(move |dir| dir.join(&name))
        .collect::<Vec<_>>()
        .into_iter()
}

pub(super) fn found_as(found: &Found) -> FoundAs {
    (found.size, found.modified)
}
