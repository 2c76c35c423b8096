//! What discovery finds and what need not be open: files that are delivered and closed, and copies.
//!
//! *Absent: the bytes of a file. Whether one is a copy is decided in `opening`.*

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::ffi::OsStr;
use std::hash::{BuildHasher as _, RandomState};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::base::fingerprint::Fingerprint;
use crate::base::span::FileKey;
use crate::checkpoint::format::Checkpoint;
use crate::tail::catalog::names;
use crate::tail::discover::Found;
use crate::tail::registry::{FoundAs, ROTATED_QUIET, Registry, Tracked};
use crate::tail::remembered::{self, Remembered};

/// Most open files with the same head that are looked at, beside those whose generation it may be.
const SAME_HEADS_MAX: usize = 64;

/// How long a file that equals one that nobody touches may be a copy that is still to replace it.
pub(super) const COPY_TIME: Duration = Duration::from_secs(60);
/// How long it is known which open files there are, while files are born between two discoveries.
const BIRTHS_PAUSE: Duration = Duration::from_millis(100);

/// What discovery finds and what need not be open.
#[derive(Default)]
pub(super) struct Aside {
    /// Files that are delivered and closed, as they were found then, by device and inode.
    resting: HashMap<(u64, u64), FoundAs>,
    /// Files that were delivered, renamed and closed, with where they are: somebody may write to
    /// them for a while.
    renamed: BTreeMap<(u64, u64), (PathBuf, FoundAs, Instant)>,
    /// Files that could not be opened yet when they were found, by device and inode.
    waiting: HashSet<(u64, u64)>,
    /// Delivered files that the first discovery left closed, and that are to be opened soon.
    asleep: VecDeque<Found>,
    /// Closed files that have changed and are not open yet, by device and inode: they may be
    /// renamed before they can be opened.
    changed: HashSet<(u64, u64)>,
    /// Copies of files that have their bytes still, by device and inode.
    copies: BTreeMap<(u64, u64), Copy>,
    /// Copies that have changed and are to be judged again, by device and inode, with what they were
    /// copies of and what was known of them.
    grown: HashMap<(u64, u64), (Source, Checkpoint)>,
    /// Files that equal others and turned out to be files of their own, by device and inode.
    own: HashSet<(u64, u64)>,
    /// Files that nothing finds by the patterns and that equal others, by device and inode, and since
    /// when that is known.
    doubted: HashMap<(u64, u64), Instant>,
    /// Whether a file waits until what was read of it before is acknowledged.
    has_unacknowledged: bool,
    /// The originals, by what a copy has of them; made when the first copy is suspected in a
    /// discovery.
    originals: Option<Originals>,
    /// When files that are born are compared with what is open by then.
    births_from: Option<Instant>,
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

/// What has become of the bytes of an original.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// The bytes stand where they were: what has the same is a copy only as long as nobody touches them.
    Untouched,
    /// The bytes have no name any more, and are read to their end by the descriptor.
    Nameless,
    /// The bytes are gone: what was not read of them may stand in a copy only.
    Gone,
}

/// What is known of a file that is a copy.
#[derive(Clone, Copy)]
pub(super) struct CopyOf {
    pub(super) of: Source,
    /// What has become of the original.
    pub(super) standing: Standing,
    /// How many bytes of the copy were delivered before, for sure.
    pub(super) known: u64,
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

    // === closed files

    /// Notes that a file is delivered and closed, as it was found then.
    pub(super) fn rest(&mut self, inode: (u64, u64), found_as: FoundAs) {
        self.resting.insert(inode, found_as);
    }

    /// Notes that a file was delivered, renamed and closed, which stands in `place` and was written to
    /// last at `since`.
    pub(super) fn rest_renamed(
        &mut self,
        inode: (u64, u64),
        place: PathBuf,
        found_as: FoundAs,
        since: Instant,
    ) {
        self.renamed.insert(inode, (place, found_as, since));
    }

    /// Takes out the files that were closed after they had been renamed and are not what they were, as
    /// `look_at` sees them. Others are looked at for a while.
    pub(super) fn changed_since_renamed(
        &mut self,
        now: Instant,
        look_at: impl Fn(&Path) -> Option<((u64, u64), FoundAs)>,
    ) -> Vec<((u64, u64), PathBuf)> {
        let mut changed = Vec::new();
        self.renamed.retain(|inode, (place, found_as, since)| {
            let is_same = look_at(place).is_some_and(|found| found == (*inode, *found_as));
            if !is_same {
                changed.push((*inode, place.clone()));
            }
            is_same && now < *since + ROTATED_QUIET
        });
        changed
    }

    /// Notes that a file could not be opened yet when it was found.
    pub(super) fn wait(&mut self, inode: (u64, u64)) {
        self.waiting.insert(inode);
    }

    /// Leaves a delivered file closed that is to be opened soon.
    pub(super) fn sleep(&mut self, found: &Found) {
        self.rest((found.device, found.inode), found_as(found));
        self.asleep.push_back(found.clone());
    }

    /// Takes the next file that is to be opened.
    pub(super) fn next_asleep(&mut self) -> Option<Found> {
        let next = self.asleep.pop_front();
        if self.asleep.is_empty() {
            self.forget_asleep();
        }
        next
    }

    /// Leaves all others closed.
    pub(super) fn forget_asleep(&mut self) {
        self.asleep = VecDeque::new();
    }

    /// Whether a file that is to be opened is as it was found. If not, it has changed or gone, and was
    /// seen to.
    pub(super) fn wakes(&mut self, found: &Found) -> bool {
        let inode = (found.device, found.inode);
        let is_same = self.resting.get(&inode) == Some(&found_as(found));
        if is_same {
            self.resting.remove(&inode);
        }
        is_same
    }

    /// Whether a file that was found is known not to hold anything new.
    pub(super) fn is_aside(
        &mut self,
        found: &Found,
        registry: &Registry,
        remembered: &Remembered,
        now: Instant,
    ) -> bool {
        let inode = (found.device, found.inode);
        if self.resting.get(&inode) == Some(&found_as(found)) {
            return true;
        }
        if self.resting.remove(&inode).is_some() {
            self.changed.insert(inode);
        }
        let Some(copy) = self.copies.get_mut(&inode) else { return false };
        if let Source::Closed((device, inode)) = copy.of
            && let Some(opened) = registry.find(device, inode)
        {
            copy.of = Source::Open(opened);
        }
        let is_original_there = match copy.of {
            Source::Open(file) => registry.is_known(file),
            Source::Closed((device, inode)) => remembered.get(device, inode).is_some(),
        };
        let is_own = copy.own_at.is_some_and(|at| at <= now);
        if is_own {
            self.own.insert(inode);
        }
        let is_copy = copy.found_as == found_as(found) && is_original_there && !is_own;
        if !is_copy && let Some(copy) = self.copies.remove(&inode) {
            self.grown.insert(inode, (copy.of, copy.done));
        }
        is_copy
    }

    /// Searches for closed files and copies that a discovery has not found: each has another name
    /// now, or none.
    pub(super) fn search_for_vanished(
        &mut self,
        found: &HashSet<(u64, u64)>,
        registry: &Registry,
        remembered: &mut Remembered,
    ) {
        self.copies.retain(|inode, _| found.contains(inode));
        self.grown.retain(|inode, _| found.contains(inode));
        self.own.retain(|inode| found.contains(inode));
        self.waiting.retain(|inode| {
            let is_found = found.contains(inode);
            if !is_found {
                remembered.miss(inode.0, inode.1);
            }
            is_found && registry.find(inode.0, inode.1).is_none()
        });
        if self.waiting.len() < self.waiting.capacity() / 8 {
            self.waiting.shrink_to_fit();
        }
        self.changed.retain(|inode| {
            let is_found = found.contains(inode);
            if !is_found {
                remembered.search_for(inode.0, inode.1);
            }
            is_found && registry.find(inode.0, inode.1).is_none()
        });
        self.resting.retain(|inode, _| {
            let is_found = found.contains(inode);
            if !is_found {
                remembered.search_for(inode.0, inode.1);
            }
            is_found
        });
    }

    // === copies

    /// Notes that a file is a copy.
    pub(super) fn add_copy(&mut self, inode: (u64, u64), copy: Copy) {
        self.copies.insert(inode, copy);
    }

    /// Takes what was known of a copy of this source that has changed since.
    pub(super) fn take_grown(&mut self, inode: (u64, u64), of: Source) -> Option<Checkpoint> {
        let (_, before) = self.grown.remove(&inode).filter(|(source, _)| *source == of)?;
        Some(before)
    }

    /// Whether a checkpoint only says that a copy is there, which the next discovery says too.
    pub(super) fn is_unread_copy(&self, saved: &Checkpoint) -> bool {
        remembered::is_unread(saved) && self.copies.contains_key(&(saved.device, saved.inode))
    }

    /// Whether a file that equals one that nobody touches has done so for long enough to be one of its
    /// own.
    pub(super) fn is_own_by_now(&mut self, inode: (u64, u64), now: Instant) -> bool {
        self.doubted.retain(|_, since| now < *since + 2 * COPY_TIME);
        let since = *self.doubted.entry(inode).or_insert(now);
        now >= since + COPY_TIME
    }

    /// Notes that a file waits until what was read of it before is acknowledged.
    pub(super) fn on_unacknowledged(&mut self) {
        self.has_unacknowledged = true;
    }

    /// Whether a file waits until what was read of it before is acknowledged; asked once.
    pub(super) fn take_unacknowledged(&mut self) -> bool {
        std::mem::take(&mut self.has_unacknowledged)
    }

    /// Whether a file that equals another turned out to be one of its own.
    pub(super) fn is_own(&self, inode: (u64, u64)) -> bool {
        self.own.contains(&inode)
    }

    /// Notes for the copies of an original that it has ended. If the original was only closed, they
    /// are copies of the closed file from now on. If its bytes are gone, nothing more of it was
    /// seen: a copy that holds more was made later, and goes on there.
    pub(super) fn on_original_ended(
        &mut self,
        original: FileKey,
        ended: &Tracked,
        is_gone: bool,
        remembered: &mut Remembered,
    ) {
        let inode = (ended.opened.device, ended.opened.inode);
        let of_this = self.copies.values_mut().filter(|copy| copy.of == Source::Open(original));
        for copy in of_this {
            if !is_gone {
                copy.of = Source::Closed(inode);
            } else if copy.done.offset <= ended.read_offset && ended.skipped.left_bytes == 0 {
                remembered.on_opened(copy.done.device, copy.done.inode);
                remembered.put_done(copy.done.clone());
            }
        }
    }

    /// The open files by what a copy has of them.
    pub(super) fn originals(&mut self, registry: &Registry) -> &Originals {
        self.originals.get_or_insert_with(|| {
            let mut originals = Originals::default();
            let all = registry.iter().chain(registry.ended());
            all.for_each(|(file, tracked)| originals.add(file, tracked));
            originals
        })
    }

    /// Notes that a file is open: copies of it may be met in this discovery.
    pub(super) fn on_opened(&mut self, file: FileKey, tracked: &Tracked) {
        if let Some(originals) = &mut self.originals {
            originals.add(file, tracked);
        }
    }

    /// Whether files that are born now are compared with what is open by now, rather than with what
    /// was open a moment ago.
    pub(super) fn begins_births(&mut self, now: Instant) -> bool {
        let begins = self.births_from.is_none_or(|from| from <= now);
        if begins {
            self.births_from = Some(now + BIRTHS_PAUSE);
        }
        begins
    }

    /// Files of which it is not known yet whether they are copies: they hold just as much as others
    /// that are there. (A file that holds less is most likely a copy of one that has grown since.)
    pub(super) fn in_doubt(&self, open: &Registry) -> impl Iterator<Item = &Checkpoint> {
        let is_as_long = |copy: &&Copy| match copy.of {
            Source::Open(file) => open.get(file).is_some_and(|one| one.size == copy.done.offset),
            Source::Closed(_) => true,
        };
        let copies = self.copies.values().filter(|copy| copy.own_at.is_some());
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
            let original = open.get(file).filter(|_| copy.own_at.is_none());
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

#[cfg(test)]
mod tests {
    use super::*;

    const ORIGINAL: (u64, u64) = (1, 10);

    fn found(size: u64) -> Found {
        Found { path: "/logs/app.log".into(), device: 1, inode: 11, size, modified: (1, 0) }
    }

    /// What is remembered of a closed file.
    fn remembered() -> Remembered {
        let (device, inode) = ORIGINAL;
        let saved = Checkpoint { device, inode, path: "/logs/one".into(), ..Checkpoint::default() };
        Remembered::new(vec![saved], 0, "one")
    }

    #[test]
    fn a_closed_file_holds_nothing_new_until_it_changes() {
        let now = crate::base::clock::now();
        let (mut aside, registry, remembered) =
            (Aside::default(), Registry::default(), remembered());
        aside.rest((1, 11), found_as(&found(5)));

        assert!(aside.is_aside(&found(5), &registry, &remembered, now));
        assert!(!aside.is_aside(&found(6), &registry, &remembered, now), "it has grown");
    }

    #[test]
    fn a_copy_waits_until_it_changes_or_is_one_of_its_own() {
        let now = crate::base::clock::now();
        let (mut aside, registry, remembered) =
            (Aside::default(), Registry::default(), remembered());
        let copy = || Copy {
            found_as: found_as(&found(5)),
            of: Source::Closed(ORIGINAL),
            done: Checkpoint::default(),
            own_at: Some(now + BIRTHS_PAUSE),
        };
        aside.add_copy((1, 11), copy());
        assert!(aside.is_aside(&found(5), &registry, &remembered, now));
        assert!(!aside.is_aside(&found(6), &registry, &remembered, now) && !aside.has_copies());

        aside.add_copy((1, 11), copy());
        let later = now + BIRTHS_PAUSE;
        assert!(!aside.is_aside(&found(5), &registry, &remembered, later));
        assert!(aside.is_own((1, 11)), "nobody has touched the original");
        aside.search_for_vanished(&HashSet::new(), &registry, &mut self::remembered());
        assert!(!aside.is_own((1, 11)), "it is gone");
    }

    #[test]
    fn a_file_that_sleeps_is_woken_once_and_as_it_was_found() {
        let mut aside = Aside::default();
        aside.sleep(&found(5));
        assert_eq!(aside.asleep(), 1);

        let next = aside.next_asleep().unwrap();

        assert!(aside.wakes(&next) && !aside.wakes(&next));
        assert!(aside.next_asleep().is_none());
    }
}
