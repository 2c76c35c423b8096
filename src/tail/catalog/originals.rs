//! Which open files a file may be a copy of, by their first bytes and by the names that they had.
//!
//! Pure. Whose bytes a file has is told in [`crate::tail::copies`].

use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasher as _, RandomState};
use std::path::Path;

use super::index::{SAME_HEADS_MAX, around, bases_around};
use crate::base::fingerprint::Fingerprint;
use crate::base::span::FileKey;
use crate::tail::registry::Registry;
use crate::tail::tracked::Tracked;

/// Open files, and those whose last batches are under way, by what a copy has of them.
#[derive(Debug, Default)]
pub struct Originals {
    by_head: HashMap<Fingerprint, Vec<FileKey>>,
    /// Lengths of the heads in bytes.
    head_lens: BTreeSet<u32>,
    /// Files by the paths where they stand and stood.
    by_place: BTreeSet<(u64, FileKey)>,
    /// Makes keys of paths. Two that share one are told apart where the names are compared.
    hasher: RandomState,
}

impl Originals {
    /// All that are open, and those whose last batches are under way.
    #[must_use]
    pub fn all(registry: &Registry) -> Self {
        let mut originals = Self::default();
        let all = registry.iter().chain(registry.ended());
        all.for_each(|(file, tracked)| originals.add(file, tracked));
        originals
    }

    /// Adds a file that is open.
    pub fn add(&mut self, file: FileKey, tracked: &Tracked) {
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

    /// How many bytes the heads have.
    pub fn head_lens(&self) -> impl Iterator<Item = u32> + use<'_> {
        self.head_lens.iter().copied()
    }

    /// Open files that one with these heads may be a copy of, or one in this place.
    #[must_use]
    pub fn of(&self, heads: &[Fingerprint], place: &Path) -> BTreeSet<FileKey> {
        let by_place = bases_around(place).flat_map(|place| {
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
