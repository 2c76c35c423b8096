//! Which open files a file may be a copy of.
//!
//! Pure. *Absent: the bytes of a file.* Whose they are is told in `copies`.

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsStr;
use std::hash::{BuildHasher as _, RandomState};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use crate::base::fingerprint::Fingerprint;
use crate::base::span::FileKey;
use crate::tail::catalog::names;
use crate::tail::registry::{Registry, Tracked};

/// Most open files with the same head that are looked at, beside those whose generation it may be.
const SAME_HEADS_MAX: usize = 64;

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
    /// All that are open, and those whose last batches are under way.
    pub(super) fn all(registry: &Registry) -> Self {
        let mut originals = Self::default();
        let all = registry.iter().chain(registry.ended());
        all.for_each(|(file, tracked)| originals.add(file, tracked));
        originals
    }

    /// Adds a file that is open.
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
