//! Opening: whether a file that was found is new, known, or a copy of one that is.
//!
//! ```text
//! its checkpoint waits           go on there: restarted, renamed, mounted elsewhere
//! a copy of what is there        wait: what the original holds is shipped from the original; after a
//!                                minute it is a file of its own
//! a copy of what is gone         go on behind what was delivered of it (gzip, copytruncate)
//! anything else                  from its first byte
//! ```

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap, HashSet, VecDeque, hash_map};
use std::ffi::{OsStr, OsString};
use std::hash::{BuildHasher as _, RandomState};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};
use std::{fs, io};

use super::files::LATER;
use super::said::Kind;
use super::timers::Timer;
use super::{Collector, Stage};
use crate::base::clock;
use crate::base::fingerprint::Fingerprint;
use crate::base::sealed::Route;
use crate::base::span::FileKey;
use crate::batch::log_group;
use crate::checkpoint::format::Checkpoint;
use crate::enrich;
use crate::tail::catalog::judge::{self, Match, Stat};
use crate::tail::catalog::names::{self, Kin};
use crate::tail::discover::{Found, Permission};
use crate::tail::reader::{self, Reader};
use crate::tail::registry::{FoundAs, Opened, ROTATED_QUIET, Registry, State, Tracked};
use crate::tail::remembered::{self, Original, Remembered, Seeker, Suspect};
use crate::tail::unseen::{self, Known, Places, Search, Unseen};

/// How long a delivered file must have been quiet to give its descriptor up.
pub(super) const REST_QUIET: Duration = Duration::from_millis(200);
/// Most files that the first discovery opens at once although they are as they were delivered. The
/// agent opens the others after it.
const AWAKE_MAX: u64 = 64;
/// How long the opening of files that were left closed at the start may take, before mail and
/// events are looked at again.
const WAKING_MAX: Duration = Duration::from_millis(5);
/// How far time stamps of files may lag behind: they come from a clock that is read in ticks.
const STAMP_LAG: Duration = Duration::from_millis(50);

/// How long a file that equals one that nobody touches may be a copy that is still to replace it.
const COPY_TIME: Duration = Duration::from_secs(60);
/// Most checkpoints of files that wait to be opened, beside those that can be known.
const WAITING_MAX: usize = 10_000;
/// How long it is known which open files there are, while files are born between two discoveries.
const BIRTHS_PAUSE: Duration = Duration::from_millis(100);
/// Why a file is not open that may be a copy.
const SOUGHT: &str = "it may be a copy of a file that is searched for";
/// Most open files with the same head that are looked at, beside those whose generation it may be.
const SAME_HEADS_MAX: usize = 64;
/// Most open files that a suspect is compared with: the nearest.
const CANDIDATES_MAX: usize = 64;
/// How long a name that stands for nothing is expected to come back.
const ABSENT_TIME: Duration = Duration::from_secs(60 * 60);
/// Most names that are expected to come back.
const ABSENT_MAX: usize = 1000;

/// What discovery finds and what need not be open.
#[derive(Default)]
pub(super) struct Aside {
    /// Files that are delivered and closed, as they were found then, by device and inode.
    resting: HashMap<(u64, u64), FoundAs>,
    /// Files that were delivered, renamed and closed, with where they are: somebody may write to
    /// them for a while.
    renamed: HashMap<(u64, u64), (PathBuf, FoundAs, Instant)>,
    /// Files that could not be opened yet when they were found, by device and inode.
    waiting: HashSet<(u64, u64)>,
    /// Delivered files that the first discovery left closed, and that are to be opened soon.
    asleep: VecDeque<Found>,
    /// Closed files that have changed and are not open yet, by device and inode: they may be
    /// renamed before they can be opened.
    changed: HashSet<(u64, u64)>,
    /// Copies of files that have their bytes still, by device and inode.
    copies: HashMap<(u64, u64), Copy>,
    /// Files that equal others and turned out to be files of their own, by device and inode.
    own: HashSet<(u64, u64)>,
    /// Known files beside which others may have been born while nobody looked.
    known: Places,
    /// Names of known files that stood for nothing at the last look, with their paths, and since
    /// when.
    absent: HashMap<OsString, (PathBuf, Instant)>,
    /// Whether not all of what was known at the start has been looked for.
    is_first_search: bool,
    /// Older files beside known ones that turned out to be no copies, by device and inode.
    strangers: HashSet<(u64, u64)>,
    /// Files that may give their descriptors up, as they were when they were last looked for.
    restable: VecDeque<FileKey>,
    /// Time before which this discovery looks for no other files that may give their descriptors
    /// up.
    restable_from: Option<Instant>,
    /// The originals, by what a copy has of them; made when the first copy is suspected in a
    /// discovery.
    originals: Option<Originals>,
    /// When files that are born are compared with what is open by then.
    births_from: Option<Instant>,
}

/// Open files, and those whose last batches are under way, by what a copy has of them.
#[derive(Default)]
struct Originals {
    by_head: HashMap<Fingerprint, Vec<FileKey>>,
    head_lens: BTreeSet<u32>,
    /// Files by the paths where they stand and stood.
    by_place: BTreeSet<(u64, FileKey)>,
    /// Makes keys of paths. Two that share one are told apart where the names are compared.
    hasher: RandomState,
}

impl Originals {
    fn add(&mut self, file: FileKey, tracked: &Tracked) {
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
    fn of(&self, heads: &[Fingerprint], place: &Path) -> BTreeSet<FileKey> {
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
struct Copy {
    found_as: FoundAs,
    of: Source,
    /// What is true of the copy as soon as all of the original is delivered.
    done: Checkpoint,
    /// When the file is taken for one of its own, if nobody touches the original.
    own_at: Option<Instant>,
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
    const fn is_empty(&self) -> bool {
        self.done.offset == 0
    }
}

/// Where the bytes of an opened file are from.
pub(super) enum Origin {
    New,
    Known(Checkpoint),
    /// The file is a copy; `true` if it is one as long as nobody touches the original.
    CopyOf(Source, bool),
    /// The file may be a copy of one that is searched for first.
    Later,
    /// The file was written over since it was renamed, and holds no log any more.
    Overwritten,
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

fn found_as(found: &Found) -> FoundAs {
    (found.size, found.modified)
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

    /// Begins a discovery.
    pub(super) fn begin(&mut self) {
        self.originals = None;
        self.restable_from = None;
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

impl Collector {
    /// Expects files that were born beside those of the loaded checkpoints while no agent looked.
    pub(super) fn expect_unseen(&mut self) {
        if let [first, ..] = self.remembered.foreign() {
            tracing::warn!(
                files = self.remembered.foreign().len(), first = %first.path.display(),
                collection = first.owner.as_deref(),
                "known files belong to collections that are not configured; they are left alone, and \
                 remembered for 30 days"
            );
        }
        let mut known = Places::with_capacity(self.remembered.checkpoints().count());
        let now = wall_nanoseconds();
        for saved in self.remembered.checkpoints() {
            let Some(name) = saved.path.file_name() else { continue };
            let place = saved.resolved.with_file_name(name);
            // What logtail left says nothing of names.
            let seen = match saved.looked_at {
                0 => nanoseconds(Duration::from_secs(saved.seen_unix)),
                // The clock was ahead: what is younger than the file may have been born since.
                looked_at if looked_at > now => saved.born,
                looked_at => looked_at,
            };
            let one = || Known { path: saved.path.clone(), seen, born: None, copied: None };
            let known = known.entry(place.into()).or_insert_with(one);
            known.seen = known.seen.max(seen);
        }
        self.aside.known = known;
        self.aside.is_first_search = true;
    }

    /// Expects other files in the place of a renamed one: they may have been born and renamed since
    /// the last look.
    pub(super) fn expect_unseen_beside(&mut self, file: FileKey) {
        let seen = self.looked_at();
        // What was known before is still looked for from then on.
        self.expect_beside(file, |known| known.seen = known.seen.min(seen));
    }

    /// Expects a copy beside a file that was truncated. The copy was made just before, and may hold
    /// what was not read of the file, whether the patterns find it or not. If bytes were seen that
    /// are lost now, the agent looks for the copy at once, however old it is. If not, others may
    /// have come since the last look; a copy that holds them was written to since then, and is
    /// looked for with the next discovery.
    pub(super) fn expect_copy_beside(&mut self, file: FileKey, is_lost: bool) {
        let seen = self.looked_at();
        self.is_scan_wanted |= is_lost;
        self.expect_beside(file, |known| {
            // Between two truncations there may have been a text that stands in a copy only.
            known.seen = known.seen.min(seen);
            if is_lost {
                known.born = Some(i64::MIN);
            } else {
                known.copied = known.copied.or(Some(seen));
            }
        });
    }

    /// Expects others where a file was found that has another name since, or none.
    pub(super) fn expect_renamed(&mut self, file: &Found, found: &mut HashSet<(u64, u64)>) {
        found.remove(&(file.device, file.inode));
        let seen = self.looked_at();
        let dir = file.path.parent().and_then(|dir| self.patterns.enter(dir));
        if let (Some(dir), Some(name)) = (dir, file.path.file_name()) {
            let one = Known { path: file.path.clone(), seen, born: None, copied: None };
            let known = self.aside.known.entry(dir.join(name).into()).or_insert(one);
            known.seen = known.seen.min(seen);
        }
    }

    /// When the last discovery began, by the clock as it is set now: it may have been set back
    /// since.
    fn looked_at(&self) -> i64 {
        let age = nanoseconds(clock::now().saturating_duration_since(self.looked_when));
        self.looked_at.min(stamp().saturating_sub(age))
    }

    fn expect_beside(&mut self, file: FileKey, expect: impl FnOnce(&mut Known)) {
        let Some(tracked) = self.registry.get(file) else { return };
        let Some(name) = tracked.found_at.file_name() else { return };
        let place = tracked.opened.resolved.with_file_name(name);
        let path = &tracked.opened.path;
        let one = || Known { path: path.to_path_buf(), seen: i64::MAX, born: None, copied: None };
        expect(self.aside.known.entry(place.into()).or_insert_with(one));
    }

    /// Files are born between two discoveries.
    pub(super) fn begin_births(&mut self, now: Instant) {
        if self.aside.births_from.is_none_or(|from| from <= now) {
            self.aside.begin();
            self.aside.births_from = Some(now + BIRTHS_PAUSE);
        }
    }

    /// Whether a file that was found is known not to hold anything new.
    pub(super) fn is_aside(&mut self, found: &Found, now: Instant) -> bool {
        let inode = (found.device, found.inode);
        let (aside, registry, remembered) = (&mut self.aside, &self.registry, &self.remembered);
        if aside.resting.get(&inode) == Some(&found_as(found)) {
            return true;
        }
        if aside.resting.remove(&inode).is_some() {
            aside.changed.insert(inode);
        }
        let Some(copy) = aside.copies.get_mut(&inode) else { return false };
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
            aside.own.insert(inode);
        }
        let is_copy = copy.found_as == found_as(found) && is_original_there && !is_own;
        if !is_copy {
            aside.copies.remove(&inode);
        }
        is_copy
    }

    /// Leaves a file closed for the moment, so that the first discovery of thousands is soon over: it
    /// is as long as it was delivered. Its bytes are compared when it is opened, a moment later.
    pub(super) fn may_sleep(&mut self, found: &Found) -> bool {
        let is_first = !self.is_ready && self.stage == Stage::Running;
        if !is_first || self.counters.files_opened < AWAKE_MAX {
            return false;
        }
        let is_it = |saved: &Checkpoint| {
            saved.offset == found.size
                && saved.ranges.is_empty()
                && saved.path.as_os_str() == found.path.as_os_str()
        };
        let is_text = found.path.extension().is_none_or(|extension| extension != "gz");
        let may = is_text && self.remembered.get(found.device, found.inode).is_some_and(is_it);
        if may {
            let inode = (found.device, found.inode);
            let saved = self.remembered.get(found.device, found.inode);
            if let Some(resolved) = saved.map(|saved| saved.resolved.clone()) {
                self.note_in_place(&found.path, &resolved);
            }
            self.remembered.let_sleep(found.device, found.inode);
            self.aside.resting.insert(inode, found_as(found));
            self.aside.asleep.push_back(found.clone());
        }
        may
    }

    /// Opens some of the files that were left closed at the start, as many at most as there are
    /// descriptors. The others stay closed, but for those that were written to since they were
    /// delivered.
    pub(super) fn wake(&mut self, now: Instant) {
        if self.timers.holds(Timer::ReadFrom, now) {
            return;
        }
        self.said.hush(Some(Kind::Shipping));
        let until = clock::now() + WAKING_MAX;
        while let Some(found) = self.aside.asleep.pop_front() {
            let inode = (found.device, found.inode);
            if self.stage != Stage::Running {
                self.aside.asleep = VecDeque::new();
                break;
            }
            if self.readers.len() >= self.files_max && !self.is_written_since(&found) {
                continue;
            }
            // It has changed or gone, and was seen to.
            if self.aside.resting.get(&inode) != Some(&found_as(&found)) {
                continue;
            }
            self.aside.resting.remove(&inode);
            let outcome = self.open_found(&found, now);
            self.remembered.wake(found.device, found.inode);
            match self.registry.find(found.device, found.inode) {
                Some(file) => self.refresh_names_of(file),
                // It was replaced or cannot be opened: a discovery takes care of it.
                None => self.is_scan_wanted |= !matches!(outcome, Ok(Some(same)) if same == inode),
            }
            if clock::now() >= until {
                break;
            }
        }
        if self.aside.asleep.is_empty() {
            self.aside.asleep = VecDeque::new();
        }
        self.said.hush(None);
    }

    /// Whether a file may have been written to since the last look of the agent before this one.
    fn is_written_since(&self, found: &Found) -> bool {
        let (seconds, nanoseconds) = found.modified;
        let modified = seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds);
        let saved = self.remembered.get(found.device, found.inode);
        saved.is_none_or(|saved| modified >= saved.looked_at)
    }

    /// Searches for closed files and copies that a discovery has not found: each has another name
    /// now, or none. `is_all` says that the discovery found all there is, as far as anybody can
    /// know.
    pub(super) fn search_for_vanished(&mut self, found: &HashSet<(u64, u64)>, is_all: bool) {
        self.aside.copies.retain(|inode, _| found.contains(inode));
        self.aside.own.retain(|inode| found.contains(inode));
        let (remembered, registry) = (&mut self.remembered, &self.registry);
        self.aside.waiting.retain(|inode| {
            let is_found = found.contains(inode);
            if !is_found {
                remembered.miss(inode.0, inode.1);
            }
            is_found && registry.find(inode.0, inode.1).is_none()
        });
        if self.aside.waiting.len() < self.aside.waiting.capacity() / 8 {
            self.aside.waiting.shrink_to_fit();
        }
        let (remembered, registry) = (&mut self.remembered, &self.registry);
        self.aside.changed.retain(|inode| {
            let is_found = found.contains(inode);
            if !is_found {
                remembered.search_for(inode.0, inode.1);
            }
            is_found && registry.find(inode.0, inode.1).is_none()
        });
        self.aside.resting.retain(|inode, _| {
            let is_found = found.contains(inode);
            if !is_found {
                remembered.search_for(inode.0, inode.1);
            }
            is_found
        });
        if is_all {
            self.remembered.forget_unfound(|inode| found.contains(&inode));
        }
    }

    /// Opens files again that were closed after they had been renamed, if they were written to
    /// since.
    pub(super) fn look_at_renamed(&mut self, now: Instant) {
        let mut changed = Vec::new();
        self.aside.renamed.retain(|inode, (place, found_as, since)| {
            let is_same = look_at(place).is_some_and(|found| found == (*inode, *found_as));
            if !is_same {
                changed.push((*inode, place.clone()));
            }
            is_same && now < *since + ROTATED_QUIET
        });
        for ((device, inode), place) in changed {
            self.remembered.search_for(device, inode);
            self.remembered.search_again(&place);
        }
    }

    /// Remembers a file that was found and cannot be opened yet, so that it is known whatever it is
    /// called then.
    pub(super) fn note_waiting(&mut self, found: &Found) {
        let inode = (found.device, found.inode);
        // What waits may be any number, and be gone before its turn.
        let is_full = self.remembered.len() >= self.known_max + WAITING_MAX;
        if is_full || self.remembered.get(found.device, found.inode).is_some() {
            return;
        }
        let Ok(metadata) = fs::metadata(&found.path) else { return };
        let dir = found.path.parent().and_then(|dir| self.patterns.enter(dir));
        let (Some(dir), Some(name)) = (dir, found.path.file_name()) else { return };
        if (metadata.dev(), metadata.ino()) != inode {
            return;
        }
        let born = metadata.created().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        let waiting = Checkpoint {
            path: found.path.clone(),
            resolved: dir.join(name),
            device: found.device,
            inode: found.inode,
            born: born.map_or(0, nanoseconds),
            seen_unix: clock::wall().as_secs(),
            rest: Some(found.size),
            ..Checkpoint::default()
        };
        self.wait_to_be_opened(waiting, true);
    }

    /// Remembers a file of which nothing was read. If no pattern finds it, it is searched for where
    /// it was.
    pub(super) fn wait_to_be_opened(&mut self, waiting: Checkpoint, is_found: bool) {
        let (inode, place) = ((waiting.device, waiting.inode), waiting.resolved.clone());
        self.remembered.put_back(waiting);
        if is_found {
            self.remembered.let_sleep(inode.0, inode.1);
            self.aside.waiting.insert(inode);
        } else {
            self.remembered.search_again(&place);
        }
    }

    /// Opens a file that discovery found, and goes on where it was left. Returns device and inode,
    /// if it is a file.
    pub(super) fn open_found(
        &mut self,
        found: &Found,
        now: Instant,
    ) -> io::Result<Option<(u64, u64)>> {
        self.make_descriptor_room(now)?;
        let mut reader = Reader::open(&found.path)?;
        let stat = reader.stat()?;
        if !stat.is_file {
            return Ok(None);
        }
        let inode = (stat.device, stat.inode);
        // What was written over is judged again when all that was read of it has arrived.
        if self.registry.find(stat.device, stat.inode).is_some() || self.registry.has_ended(&stat) {
            return Ok(Some(inode));
        }
        // A link may have come into its way since it was found.
        let told = reader.whereabouts(&found.path)?;
        let Some(resolved) = self.patterns.place(&found.path, &told, inode) else {
            let why = format!("it leads out of the allowed directories: {}", told.display());
            return Err(io::Error::other(why));
        };
        if self.is_about_to_be_packed(&stat, &found.path) {
            return Ok(Some(inode));
        }
        if reader.is_gzip()? {
            if self.was_delivered(&stat) {
                self.aside.resting.insert(inode, found_as(found));
                return Ok(Some(inode));
            }
            if !self.unpack(&mut reader, &stat, &found.path)? {
                return Ok(Some(inode));
            }
        }
        let saved = match self.origin(&found.path, &resolved, &reader)? {
            Origin::New => None,
            Origin::Known(saved) => Some(saved),
            Origin::CopyOf(of, is_untouched) => {
                let owner = Some(Arc::clone(&self.collection));
                let done = Checkpoint { owner, ..done(&reader, &found.path, &resolved)? };
                let done = self.proved(of, &reader, done)?;
                let own_at = (is_untouched && !reader.is_unpacked()).then(|| now + COPY_TIME);
                let copy = Copy { found_as: found_as(found), of, done, own_at };
                self.aside.copies.insert(inode, copy);
                return Ok(Some(inode));
            }
            Origin::Later => {
                self.unopened.add(&found.path, SOUGHT);
                self.is_scan_wanted = true;
                return Ok(Some(inode));
            }
            Origin::Overwritten => {
                self.aside.resting.insert(inode, found_as(found));
                return Ok(Some(inode));
            }
        };
        let is_unpacked = reader.is_unpacked();
        // Renamed where it was, it keeps the path that it is known by, if the patterns still find that:
        // by another one it would not be read on after the next start.
        let keeps_path = |saved: &&Checkpoint| {
            saved.path.parent() == found.path.parent() && self.patterns.finds(&saved.path)
        };
        let known_by = saved.as_ref().filter(keeps_path).map(|saved| saved.path.clone());
        let path = known_by.unwrap_or_else(|| found.path.clone());
        // Its bytes were compared a moment ago, and it has not been written to since.
        let is_known = |saved: &Checkpoint| saved.offset == stat.size && !is_unpacked;
        let is_as_delivered = saved.as_ref().is_some_and(is_known);
        if saved.as_ref().is_some_and(|saved| saved.path == found.path && !saved.is_copy) {
            self.note_in_place(&found.path, &resolved);
        }
        let file = self.begin(path, resolved, reader, saved, State::Active, now)?;
        if let Some(tracked) = self.registry.get_mut(file) {
            tracked.found_at = shared(&tracked.opened.path, &found.path);
            if let Some(name) = tracked.opened.path.file_name()
                && Some(name) != found.path.file_name()
            {
                tracked.named = tracked.opened.resolved.with_file_name(name).into();
            }
            tracked.found_as = found_as(found);
            tracked.modified = stat.modified.filter(|_| is_as_delivered);
        }
        self.examine(file, !is_as_delivered, now);
        if is_unpacked {
            self.read_unpacked(file, now);
        }
        Ok(Some(inode))
    }

    /// Notes for the copies of an original that it has ended. If the original was only closed, they
    /// are copies of the closed file from now on. If its bytes are gone, nothing more of it was
    /// seen: a copy that holds more was made later, and goes on there.
    pub(super) fn on_original_ended(&mut self, original: FileKey, ended: &Tracked, is_gone: bool) {
        let inode = (ended.opened.device, ended.opened.inode);
        let of_this =
            self.aside.copies.values_mut().filter(|copy| copy.of == Source::Open(original));
        for copy in of_this {
            if !is_gone {
                copy.of = Source::Closed(inode);
            } else if !copy.is_empty()
                && copy.done.offset <= ended.read_offset
                && ended.left_bytes == 0
            {
                self.remembered.put_done(copy.done.clone());
            }
        }
    }

    /// Closes a delivered, quiet file when as many files are open as may be.
    fn make_descriptor_room(&mut self, now: Instant) -> io::Result<()> {
        if self.readers.len() < self.files_max {
            return Ok(());
        }
        let Some(file) = self.next_restable(now) else {
            self.is_short = true;
            if !std::mem::replace(&mut self.is_short_logged, true) {
                tracing::warn!(
                    files = self.files_max,
                    "as many files are open as the limit of descriptors (RLIMIT_NOFILE) or \
                     mem_usage_limit allows; others wait until these are delivered"
                );
            }
            return Err(io::Error::other("it waits for a descriptor"));
        };
        self.rest(file);
        Ok(())
    }

    /// The next file that gives its descriptor up. Such files are looked for together: the search
    /// goes through all files.
    fn next_restable(&mut self, now: Instant) -> Option<FileKey> {
        // A discovery may last, and what is opened in it is delivered meanwhile.
        let now = now.max(clock::now());
        loop {
            while let Some(file) = self.aside.restable.pop_front() {
                let tracked = self.registry.get(file);
                if tracked.is_some_and(|tracked| tracked.can_rest(REST_QUIET, now)) {
                    return Some(file);
                }
            }
            if self.aside.restable_from.is_some_and(|from| now < from) {
                return None;
            }
            self.aside.restable = self.registry.restable(REST_QUIET, now);
            self.aside.restable_from = Some(now + REST_QUIET);
            if self.aside.restable.is_empty() {
                return None;
            }
        }
    }

    /// Closes a delivered file. If the patterns find the file, it is opened again when it changes.
    pub(super) fn rest(&mut self, file: FileKey) {
        let Some(tracked) = self.registry.get(file) else { return };
        let inode = (tracked.opened.device, tracked.opened.inode);
        match tracked.state {
            State::Active => _ = self.aside.resting.insert(inode, tracked.found_as),
            State::Rotated => {
                let place = tracked.opened.resolved.to_path_buf();
                if let Some((found, found_as)) = look_at(&place)
                    && found == inode
                {
                    self.aside.renamed.insert(inode, (place, found_as, tracked.grown_at));
                }
            }
            State::Deleted => {}
        }
        self.note_left_open(file);
        self.close(file);
        // Its checkpoint must be there when it is opened again.
        self.settle();
    }

    fn origin(&mut self, path: &Path, resolved: &Path, reader: &Reader) -> io::Result<Origin> {
        let stat = reader.stat()?;
        match self.remembered.claim(path, reader, stat)? {
            Some((saved, Match::Resume)) if saved.is_copy && saved.offset < stat.size => {
                let outcome = self.origin_of_grown_copy(&saved, resolved, reader);
                if matches!(outcome, Ok(Origin::Later) | Err(_)) {
                    self.remembered.put_back(saved);
                }
                outcome
            }
            // It was only waiting to be opened.
            Some((saved, Match::Resume)) if remembered::is_unread(&saved) => {
                let origin = self.origin_of_unknown(resolved, reader);
                match origin {
                    Ok(Origin::New) => return Ok(Origin::Known(saved)),
                    Ok(Origin::Known(_)) => {}
                    _ => self.wait_to_be_opened(saved, true),
                }
                origin
            }
            Some((saved, Match::Resume | Match::Again)) => Ok(Origin::Known(saved)),
            Some((saved, Match::Rewritten | Match::Other))
                if self.is_overwritten_since(&saved, path, reader, &stat) =>
            {
                Ok(Origin::Overwritten)
            }
            Some((saved, Match::Rewritten | Match::Other)) => {
                self.on_rewritten(path, saved, &stat);
                self.origin_of_unknown(resolved, reader)
            }
            None => self.origin_of_unknown(resolved, reader),
        }
    }

    /// Finds out where the bytes of a file are from of which no checkpoint speaks.
    pub(super) fn origin_of_unknown(
        &mut self,
        resolved: &Path,
        reader: &Reader,
    ) -> io::Result<Origin> {
        let suspect = Suspect { place: resolved, reader, stat: reader.stat()? };
        let is_own = self.aside.own.contains(&(suspect.stat.device, suspect.stat.inode));
        if let Some((file, is_untouched)) = self.original_of(&suspect)?
            && !(is_own && is_untouched)
        {
            return Ok(Origin::CopyOf(Source::Open(file), is_untouched));
        }
        Ok(match self.remembered.original_of(&suspect, 0)? {
            Some(Original::Gone(saved)) => Origin::Known(saved),
            // No app writes compressed what another file has as text.
            Some(Original::There(saved)) if reader.is_unpacked() => Origin::Known(saved),
            Some(Original::There(saved)) if !is_own => {
                Origin::CopyOf(Source::Closed((saved.device, saved.inode)), true)
            }
            Some(Original::Sought) => Origin::Later,
            Some(Original::There(_)) | None => Origin::New,
        })
    }

    /// Finds out where a copy that was met while it was made goes on; `saved` says how much of it
    /// there was. More of it is delivered if more of its original is, and the bytes say so. If they
    /// cannot, the copy goes on at the start of the line that was cut off.
    fn origin_of_grown_copy(
        &mut self,
        saved: &Checkpoint,
        resolved: &Path,
        reader: &Reader,
    ) -> io::Result<Origin> {
        let suspect = Suspect { place: resolved, reader, stat: reader.stat()? };
        if let Some((original, is_untouched)) = self.original_of(&suspect)? {
            return Ok(Origin::CopyOf(Source::Open(original), is_untouched));
        }
        match self.remembered.original_of(&suspect, saved.offset)? {
            Some(Original::Gone(further) | Original::There(further)) => {
                return Ok(Origin::Known(further));
            }
            Some(Original::Sought) => return Ok(Origin::Later),
            None => {}
        }
        let offset = reader.line_start(saved.offset, self.tail.line_bytes_max)?;
        let tail = reader.tail(offset)?;
        Ok(Origin::Known(Checkpoint { offset, tail, ..saved.clone() }))
    }

    /// Notes that other bytes stand in a known file, or that another file has its inode: of the old
    /// text only a copy can be met.
    fn on_rewritten(&mut self, path: &Path, saved: Checkpoint, stat: &Stat) {
        if !judge::is_used_inode(&saved, stat.born) {
            if self.said.admits(Kind::Rewritten) {
                tracing::warn!(
                    file = %path.display(), offset = saved.offset,
                    "it was rewritten while the agent was away; reading from its first byte"
                );
            }
            self.counters.files_truncated += 1;
        }
        // It was gone before another file was born with its inode; or whoever wrote over it changed it.
        let is_used = judge::is_used_inode(&saved, stat.born);
        let gone_at = match is_used {
            true if saved.gone_at != 0 => saved.gone_at.min(stat.born - 1),
            true => stat.born - 1,
            false => stat.changed,
        };
        self.remembered.put_gone(Checkpoint { gone_at, ..saved });
    }

    /// The file that a suspect is a copy of, if that is open or its last batches are under way;
    /// `true` if the original stands where it was and has its bytes still.
    fn original_of(&mut self, suspect: &Suspect<'_>) -> io::Result<Option<(FileKey, bool)>> {
        let Suspect { reader, stat, .. } = suspect;
        for (file, kin) in self.related(suspect)? {
            let tracked = self.registry.get(file).or_else(|| self.registry.get_ended(file));
            let Some(tracked) = tracked else { continue };
            // A directory for generations holds no log of the name that they had.
            let is_archive = kin == Kin::Elsewhere && suspect.is_alone_here(&tracked.opened.path);
            let needed = if is_archive { Kin::Generation } else { kin };
            let is_proof = |tail| judge::is_proof_for(needed, tracked.opened.head, tail);
            match self.readers.get(&file) {
                // It is read forward only: what may be the same waits for its end.
                Some(original) if original.is_unpacked() => {
                    let head = tracked.opened.head;
                    if kin != Kin::Stranger && head.len > 0 && reader.has_head(head)? {
                        let why = "it waits for a compressed file that may hold the same";
                        return Err(io::Error::other(why));
                    }
                }
                Some(original) => {
                    let is_suspect =
                        needed == Kin::Generation || (kin == Kin::Elsewhere && stat.size > 0);
                    if is_suspect && reader::is_copy_so_far(reader, original)? {
                        return Ok(Some((file, tracked.state != State::Deleted)));
                    }
                    if is_copy_of_lost(reader, original, tracked, is_proof)? {
                        return Ok(Some((file, false)));
                    }
                }
                None if is_proof(tracked.tail) && is_copy_of_ended(reader, tracked)? => {
                    return Ok(Some((file, false)));
                }
                None => {}
            }
        }
        Ok(None)
    }

    /// The open files that a suspect may be a copy of, as far as heads, names and times say, the nearest
    /// first.
    fn related(&mut self, suspect: &Suspect<'_>) -> io::Result<Vec<(FileKey, Kin)>> {
        let registry = &self.registry;
        let originals = self.aside.originals.get_or_insert_with(|| {
            let mut originals = Originals::default();
            let all = registry.iter().chain(registry.ended());
            all.for_each(|(file, tracked)| originals.add(file, tracked));
            originals
        });
        let heads = suspect.reader.heads(originals.head_lens.iter().copied())?;
        let mut related: Vec<(Kin, usize, FileKey)> = originals
            .of(&heads, suspect.place)
            .into_iter()
            .filter_map(|file| {
                let tracked = registry.get(file).or_else(|| registry.get_ended(file))?;
                let opened = &tracked.opened;
                let is_it = (opened.device, opened.inode)
                    == (suspect.stat.device, suspect.stat.inode)
                    && registry.get(file).is_some();
                if is_it || !suspect.has_alibi(tracked.gone_at) {
                    return None;
                }
                let names = [&*opened.path, &*tracked.found_at, &*opened.resolved];
                let kin = names::kin(suspect.place, &names)?;
                Some((kin, names::distance(suspect.place, &opened.resolved), file))
            })
            .collect();
        related.sort_unstable();
        related.truncate(CANDIDATES_MAX);
        Ok(related.into_iter().map(|(kin, _, file)| (file, kin)).collect())
    }

    /// The checkpoint of a copy, up to where its original surely held the same when it was read.
    /// That is all of the copy, unless the original holds other bytes by now and more was read of
    /// it than the copy has.
    fn proved(&self, of: Source, copy: &Reader, done: Checkpoint) -> io::Result<Checkpoint> {
        let Source::Open(original) = of else { return Ok(done) };
        let tracked = self.registry.get(original).or_else(|| self.registry.get_ended(original));
        let Some(tracked) = tracked.filter(|one| done.offset < one.read_offset) else {
            return Ok(done);
        };
        if let Some(original) = self.readers.get(&original)
            && reader::is_copy_so_far(copy, original)?
        {
            return Ok(done);
        }
        for &(offset, tail) in tracked.trail.iter().rev() {
            if offset <= done.offset && copy.has_tail(tail, offset)? {
                return Ok(Checkpoint { offset, tail, ..done });
            }
        }
        Ok(done)
    }

    /// Opens files that a checkpoint speaks of and that the patterns do not reach: renamed while
    /// the agent was away, or left behind by a link that leads elsewhere now.
    pub(super) fn adopt(&mut self, now: Instant) {
        let found = remembered::whereabouts(self, clock::wall().as_secs());
        self.unadopted.clear();
        self.not_allowed.turn();
        for saved in found.barred {
            let permission = self.patterns.permits(&saved.path, &saved.resolved);
            match permission {
                // It may be missing as well: of what is there it is said at a stop that it is left.
                Permission::Awaited if remembered::is_gone_from_its_place(&saved) => continue,
                Permission::Awaited
                    if saved.rest != Some(0) || remembered::has_grown_in_its_place(&saved) =>
                {
                    self.unopened.add_awaiting(&saved.path);
                }
                _ => {}
            }
            self.unadopted.insert((saved.device, saved.inode));
            // Where the patterns may lead and it is shut all the same, something of our own is.
            let why =
                if permission == Permission::Granted { Permission::LeadsOut } else { permission };
            self.note_left(why, &saved.path, saved.resolved);
        }
        for (path, saved) in found.paths {
            if self.is_abandoned {
                self.unopened.add(&path, LATER);
                continue;
            }
            if let Err(error) = self.adopt_one(&path, &saved, now) {
                self.unadopted.insert((saved.device, saved.inode));
                if self.is_short {
                    self.packed.on_waits((saved.device, saved.inode));
                }
                self.note_unopened(&path, &error);
                self.remembered.search_again(&path);
                // Of too few descriptors is told once, and not for each file; what is gone is no trouble.
                if !self.is_short && error.kind() != io::ErrorKind::NotFound {
                    self.trouble(&path, "open", &error);
                }
            }
        }
    }

    fn adopt_one(&mut self, path: &Path, saved: &Checkpoint, now: Instant) -> io::Result<()> {
        let permission = self.patterns.permits(&saved.path, path);
        if permission != Permission::Granted {
            self.unadopted.insert((saved.device, saved.inode));
            self.note_left(permission, &saved.path, path.to_owned());
            return Ok(());
        }
        self.make_descriptor_room(now)?;
        let mut reader = Reader::open(path)?;
        let stat = reader.stat()?;
        if !stat.is_file || self.registry.find(stat.device, stat.inode).is_some() {
            return Ok(());
        }
        let told = reader.whereabouts(path)?;
        if self.patterns.place_known(path, &told, (stat.device, stat.inode)).is_none() {
            self.note_left(Permission::LeadsOut, &saved.path, told);
            return Ok(());
        }
        if reader.is_gzip()? && !self.unpack(&mut reader, &stat, path)? {
            self.remembered.search_again(path);
            return Ok(());
        }
        let resolved = reader.path().unwrap_or_else(|| path.to_owned());
        let claimed = self.remembered.claim(&saved.path, &reader, reader.stat()?)?;
        // Its disk has another number, and its bytes cannot say that it is the same.
        let is_renumbered = saved.inode == stat.inode && judge::is_born_with(saved, stat.born);
        let claimed = match claimed {
            None if is_renumbered => {
                self.remembered.remove(saved).map(|found| (found, Match::Rewritten))
            }
            claimed => claimed,
        };
        let (configured, found) = match claimed {
            // Nothing tells it from another file with the same inode.
            Some((found, Match::Resume))
                if remembered::is_unread(&found)
                    && !judge::is_same_file(&found, stat.born, path) =>
            {
                self.remembered.put_back(found);
                return Ok(());
            }
            // It was renamed while it was waiting to be opened.
            Some((found, Match::Resume)) if remembered::is_unread(&found) => {
                match self.origin_of_unknown(&resolved, &reader) {
                    Ok(Origin::New) => (found.path, None),
                    Ok(Origin::Known(original)) => (original.path.clone(), Some(original)),
                    waits => {
                        self.unadopted.insert((found.device, found.inode));
                        self.remembered.put_back(found);
                        self.remembered.search_again(path);
                        let waits = waits?;
                        self.wait_for_original(path, &waits);
                        return Ok(());
                    }
                }
            }
            Some((found, Match::Resume | Match::Again)) => (found.path.clone(), Some(found)),
            Some((found, Match::Rewritten | Match::Other))
                if self.is_overwritten_since(&found, path, &reader, &stat) =>
            {
                return Ok(());
            }
            // Another file: it is shipped only if its name and its age say so.
            Some((found, Match::Rewritten | Match::Other))
                if judge::is_used_inode(&found, stat.born) =>
            {
                self.remembered.put_gone(Checkpoint { gone_at: stat.born - 1, ..found });
                return Ok(());
            }
            Some((found, Match::Rewritten | Match::Other))
                if judge::is_same_file(&found, stat.born, path) =>
            {
                let (configured, original) = match self.origin_of_unknown(&resolved, &reader) {
                    Ok(Origin::New) => (found.path.clone(), None),
                    Ok(Origin::Known(original)) => (original.path.clone(), Some(original)),
                    Ok(Origin::Overwritten) => return Ok(()),
                    // Until then only its checkpoint leads here.
                    waits => {
                        self.remembered.put_back(found);
                        self.remembered.search_again(path);
                        let waits = waits?;
                        self.wait_for_original(path, &waits);
                        return Ok(());
                    }
                };
                self.on_rewritten(path, found, &stat);
                (configured, original)
            }
            // Nothing tells it from another file with the same inode.
            Some((found, Match::Rewritten | Match::Other)) => {
                self.remembered.put_back(found);
                return Ok(());
            }
            None => return Ok(()),
        };
        let file = self.begin(configured, resolved, reader, found, State::Rotated, now)?;
        self.examine(file, true, now);
        Ok(())
    }

    /// Notes that a copy waits for its original. As soon as all that was read of an original that
    /// has ended is acknowledged, the copy goes on there.
    fn wait_for_original(&mut self, copy: &Path, origin: &Origin) {
        match origin {
            Origin::CopyOf(Source::Open(file), _) if self.registry.get_ended(*file).is_some() => {
                self.unopened.add(copy, "it waits for the file that it is a copy of");
            }
            Origin::Later => {
                self.unopened.add(copy, SOUGHT);
                self.is_scan_wanted = true;
            }
            Origin::New | Origin::Known(_) | Origin::CopyOf(..) | Origin::Overwritten => {}
        }
    }

    /// Opens what was born and renamed beside known files while nobody looked.
    pub(super) fn adopt_unseen(
        &mut self,
        found: &HashSet<(u64, u64)>,
        is_first: bool,
        now: Instant,
    ) {
        let mut known = std::mem::take(&mut self.aside.known);
        if is_first {
            self.expect_copies(&mut known);
        }
        self.expect_absent(&mut known, now);
        self.expect_where_others_went(&mut known);
        let (waiting, mut is_learnt) = (self.unopened.count(), false);
        let may_enter = |dir: &Path| self.patterns.enter(dir).as_deref() == Some(dir);
        let Search { found, closed, absent } = unseen::unseen(&known, found, may_enter);
        for (_, one) in found {
            match self.adopt_unseen_one(&one, now) {
                // Where a copy is others may be.
                Ok(is_shipped) => is_learnt |= is_shipped && one.is_copy,
                Err(error) => {
                    self.note_unopened(&one.path, &error);
                    if !self.is_short && error.kind() != io::ErrorKind::NotFound {
                        self.trouble(&one.path, "open", &error);
                    }
                }
            }
        }
        let is_searched = !is_learnt && self.unopened.count() == waiting;
        if is_learnt {
            self.aside.strangers.clear();
            self.is_scan_wanted = true;
        } else if is_searched {
            self.note_absent(absent, &known, now);
            known.retain(|place, _| {
                Path::new(place).parent().is_some_and(|dir| closed.contains(dir))
            });
        }
        // At the start it holds all that was known, and after it next to nothing.
        if known.len() < known.capacity() / 8 {
            known.shrink_to_fit();
        }
        if is_searched {
            self.aside.strangers.clear();
            if std::mem::take(&mut self.aside.is_first_search) {
                self.is_moved |= self.remembered.on_copies_searched();
            }
        }
        // What was opened may be expected to have others beside it.
        for (place, one) in known {
            match self.aside.known.entry(place) {
                hash_map::Entry::Vacant(free) => _ = free.insert(one),
                hash_map::Entry::Occupied(mut other) => other.get_mut().merge(&one),
            }
        }
    }

    /// Expects unknown files in directories where generations of a known file were found.
    fn expect_where_others_went(&self, known: &mut Places) {
        let homes: HashMap<&Path, (&OsStr, &Path)> = known
            .iter()
            .filter_map(|(place, one)| {
                let dir = Path::new(place).parent()?;
                Some((one.path.as_path(), (place.as_os_str(), dir)))
            })
            .collect();
        let open = self.registry.iter().chain(self.registry.ended());
        let open = open.map(|(_, one)| (&*one.opened.path, &*one.opened.resolved));
        let closed = self.remembered.checkpoints();
        let closed = closed.map(|saved| (saved.path.as_path(), saved.resolved.as_path()));
        let mut others = HashMap::new();
        for (path, real) in open.chain(closed) {
            if let (Some((home, home_dir)), Some(dir), Some(name)) =
                (homes.get(path), real.parent(), path.file_name())
                && dir != *home_dir
                && let Some(one) = known.get(*home)
            {
                others.insert(OsString::from(dir.join(name)), one.clone());
            }
        }
        for (place, one) in others {
            known.entry(place).or_insert(one);
        }
    }

    /// Notes that a known file stands where it stood, with its bytes: no other was made in its
    /// place and renamed since.
    fn note_in_place(&mut self, path: &Path, resolved: &Path) {
        let Some(name) = path.file_name().filter(|_| self.aside.is_first_search) else { return };
        if let Some(known) = self.aside.known.get_mut(resolved.with_file_name(name).as_os_str()) {
            known.seen = i64::MAX;
        }
    }

    /// Expects files where a name stood for nothing at the last look: one may have been born there
    /// and renamed since.
    fn expect_absent(&mut self, known: &mut Places, now: Instant) {
        let seen = self.looked_at();
        self.aside.absent.retain(|_, (_, since)| now < *since + ABSENT_TIME);
        let has_changed = |place: &OsString| unseen::has_changed_since(Path::new(place), seen);
        for (place, (path, _)) in self.aside.absent.iter().filter(|(place, _)| has_changed(place)) {
            let one = Known { path: path.clone(), seen, born: None, copied: None };
            known.entry(place.clone()).or_insert(one);
        }
    }

    /// Notes which names the search has found to stand for nothing.
    fn note_absent(&mut self, mut absent: Vec<OsString>, known: &Places, now: Instant) {
        let mut before = std::mem::take(&mut self.aside.absent);
        // Where nothing was searched for, nothing is known to be otherwise.
        self.aside.absent = before.extract_if(|place, _| !known.contains_key(place)).collect();
        let seen = |place: &OsString| known.get(place).map(|one| one.seen);
        absent.sort_by_cached_key(|place| {
            std::cmp::Reverse((before.contains_key(place), seen(place)))
        });
        let room = ABSENT_MAX.saturating_sub(self.aside.absent.len());
        for place in absent.into_iter().take(room) {
            let since = before.get(&place).map_or(now, |(_, since)| *since);
            if let Some(one) = known.get(&place) {
                self.aside.absent.insert(place, (one.path.clone(), since));
            }
        }
    }

    /// Expects copies of files that were not delivered and were not met at the start. Each may have
    /// been compressed before the agent ended, which held it open until then.
    fn expect_copies(&self, known: &mut Places) {
        let mut born: HashMap<OsString, i64> = HashMap::new();
        for saved in self.remembered.unmet() {
            let Some(name) = saved.path.file_name() else { continue };
            let place = saved.resolved.with_file_name(name).into();
            let first = born.entry(place).or_insert(saved.born);
            *first = saved.born.min(*first);
        }
        for (place, one) in known {
            one.born = born.get(place).copied();
        }
    }

    /// Opens a file beside a known one, unless it is nothing to ship. Returns whether it is
    /// shipped.
    fn adopt_unseen_one(&mut self, unseen: &Unseen<'_>, now: Instant) -> io::Result<bool> {
        let Unseen { path, known, is_copy } = unseen;
        let configured = known.path.with_file_name(path.file_name().unwrap_or_default());
        // What has the name itself may have been taken out of the patterns.
        let is_out = configured == known.path
            && configured.file_name().is_some_and(|name| !self.patterns.may_find(name));
        if is_out || self.patterns.permits(&known.path, path) != Permission::Granted {
            return Ok(false);
        }
        self.make_descriptor_room(now)?;
        let mut reader = Reader::open(path)?;
        let stat = reader.stat()?;
        // A link may have taken its name since: what that leads to is not what was seen.
        let told = reader.whereabouts(path)?;
        let inode = (stat.device, stat.inode);
        let is_it =
            || told == *path || self.patterns.place(path, &told, inode).as_ref() == Some(path);
        if !is_it() || self.patterns.place_known(path, &told, inode).is_none() {
            return Ok(false);
        }
        if self.registry.has_ended(&stat) {
            self.unopened.add(path, "what was read of it before is not acknowledged yet");
            return Ok(false);
        }
        let remembered = self.remembered.get(stat.device, stat.inode);
        let is_known = self.registry.find(stat.device, stat.inode).is_some()
            || remembered.is_some_and(|saved| !judge::is_used_inode(saved, stat.born));
        if !stat.is_file || is_known || self.aside.strangers.contains(&inode) {
            return Ok(false);
        }
        let is_begun = self.is_about_to_be_packed(&stat, path);
        if is_begun || (reader.is_gzip()? && !self.unpack(&mut reader, &stat, path)?) {
            return Ok(false);
        }
        let saved = match self.origin(path, path, &reader)? {
            Origin::New if *is_copy => {
                self.aside.strangers.insert(inode);
                return Ok(false);
            }
            Origin::New => None,
            Origin::Known(saved) => Some(saved),
            Origin::Overwritten => return Ok(false),
            waits => {
                self.wait_for_original(path, &waits);
                return Ok(false);
            }
        };
        let configured = known.path.clone();
        let file = self.begin(configured, path.clone(), reader, saved, State::Rotated, now)?;
        self.examine(file, true, now);
        Ok(true)
    }

    /// Begins to ship a file, from where `saved` says or from its first byte. The caller examines
    /// the file then. If the file cannot be read, its checkpoint is put back.
    pub(super) fn begin(
        &mut self,
        path: PathBuf,
        resolved: PathBuf,
        reader: Reader,
        saved: Option<Checkpoint>,
        state: State,
        now: Instant,
    ) -> io::Result<FileKey> {
        let settled_end = saved.as_ref().map_or(0, |saved| saved.offset);
        let outcome = reader.head(settled_end).and_then(|head| Ok((head, reader.stat()?)));
        let (head, stat) = match (outcome, &saved) {
            (Ok(read), _) => read,
            (Err(error), saved) => {
                saved.iter().cloned().for_each(|saved| self.remembered.put_back(saved));
                return Err(error);
            }
        };
        let (offset, tail, ranges) =
            saved.map(|saved| (saved.offset, saved.tail, saved.ranges)).unwrap_or_default();
        let Stat { device, inode, born, .. } = stat;
        let path: Arc<Path> = path.into();
        let resolved = shared(&path, &resolved);
        let opened = Opened { path, resolved, device, inode, born, head, offset, tail };
        if self.said.admits(Kind::Shipping) {
            tracing::info!(
                file = %opened.path.display(), resolved = %opened.resolved.display(),
                offset = opened.offset, bytes = stat.size, state = state.name(), "shipping a file"
            );
        }
        let unix = clock::wall().as_secs();
        self.remembered.on_opened(opened.device, opened.inode);
        let file = self.registry.open(opened, now, unix);
        self.once.adopt(file, offset, ranges);
        self.make_room_to_read_again(file);
        if let Some(tracked) = self.registry.get_mut(file) {
            (tracked.state, tracked.was_found) = (state, state == State::Active);
            tracked.unpacked_unix = reader.is_unpacked().then_some(unix);
            if let Some(originals) = &mut self.aside.originals {
                originals.add(file, tracked);
            }
        }
        self.counters.seen_bytes += self.registry.on_verified(file, stat.size);
        self.counters.files_opened += 1;
        self.begin_stream(file);
        if reader.is_unpacked() {
            self.packed.on_opened(file);
        }
        self.readers.insert(file, reader);
        self.is_moved = true;
        Ok(file)
    }

    pub(super) fn begin_stream(&mut self, file: FileKey) {
        let Some(tracked) = self.registry.get(file) else { return };
        let path = tracked.opened.path.as_os_str();
        let label: Arc<str> = path.to_string_lossy().into();
        let source = self.tags.source();
        let tags = self.tags.tags_for(path.as_encoded_bytes());
        let trailer = log_group::trailer(&self.topic, source, &tags);
        let source_id = format!("{source}_{label}_{:016X}", self.rng.u64(..));
        self.batcher.begin(file, label, trailer.into(), &source_id);
        if let Some(key) = enrich::hash_key(&self.shard_hash_keys, &tags, source, &self.topic) {
            self.batcher.set_route(file, Route::Key(key));
        }
    }
}

impl Seeker for Collector {
    fn remembered(&mut self) -> &mut Remembered {
        &mut self.remembered
    }

    fn enter(&self, dir: &Path) -> Option<PathBuf> {
        self.patterns.enter(dir)
    }

    fn pulse(&mut self) {
        self.breathe();
    }
}

/// A path in memory, shared with `one` if both are equal.
fn shared(one: &Arc<Path>, path: &Path) -> Arc<Path> {
    if one.as_os_str() == path.as_os_str() { Arc::clone(one) } else { path.into() }
}

/// Device and inode of what is at a real path, and its size and time of change.
fn look_at(place: &Path) -> Option<((u64, u64), FoundAs)> {
    let found = fs::symlink_metadata(place).ok()?;
    let found_as = (found.len(), (found.mtime(), found.mtime_nsec()));
    Some(((found.dev(), found.ino()), found_as))
}

/// Whether the original was truncated or rewritten since it was last looked at, and `copy` holds
/// the bytes that stood in it, all of them that were read or those up to an earlier end.
fn is_copy_of_lost(
    copy: &Reader,
    original: &Reader,
    tracked: &Tracked,
    is_proof: impl Fn(Fingerprint) -> bool,
) -> io::Result<bool> {
    let (head, last) = (tracked.opened.head, (tracked.read_offset, tracked.tail));
    let has_bytes = |one: &Reader, (offset, tail): (u64, Fingerprint)| -> io::Result<bool> {
        Ok(one.stat()?.size >= offset && one.has_head(head)? && one.has_tail(tail, offset)?)
    };
    if has_bytes(original, last)? {
        return Ok(false);
    }
    for place in tracked.trail.iter().rev().copied().chain([last]) {
        if is_proof(place.1) && has_bytes(copy, place)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether `copy` holds the bytes of a file that was closed; of a copy that is not complete yet, the
/// first of them.
fn is_copy_of_ended(copy: &Reader, ended: &Tracked) -> io::Result<bool> {
    let (head, tail, offset) = (ended.opened.head, ended.tail, ended.read_offset);
    // The text of a compressed file is read forward only: it has nothing but its head to be known by.
    let is_unknown = head.len == 0 && copy.is_unpacked();
    if is_unknown || !copy.has_head(head)? {
        return Ok(false);
    }
    Ok(copy.is_unpacked() || copy.stat()?.size < offset || copy.has_tail(tail, offset)?)
}

/// The time that a file born from now on may bear as its time stamp, in nanoseconds since 1970.
pub(super) fn stamp() -> i64 {
    wall_nanoseconds().saturating_sub(nanoseconds(STAMP_LAG))
}

/// The checkpoint of a copy of which everything is delivered as it stands.
fn done(reader: &Reader, path: &Path, resolved: &Path) -> io::Result<Checkpoint> {
    let stat = reader.stat()?;
    Ok(Checkpoint {
        path: path.to_owned(),
        resolved: resolved.to_owned(),
        device: stat.device,
        inode: stat.inode,
        born: stat.born,
        offset: stat.size,
        head: reader.head(stat.size)?,
        tail: reader.tail(stat.size)?,
        seen_unix: clock::wall().as_secs(),
        is_done: true,
        rest: Some(0),
        is_copy: true,
        ..Checkpoint::default()
    })
}

pub(super) fn wall_nanoseconds() -> i64 {
    nanoseconds(clock::wall())
}

pub(super) fn nanoseconds(time: Duration) -> i64 {
    i64::try_from(time.as_nanos()).unwrap_or(i64::MAX)
}
