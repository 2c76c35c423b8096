//! Places where files are expected that no pattern finds: born beside known ones, or renamed, while
//! nobody looked.
//!
//! Pure. Whoever searches takes the places, and gives back those that are still to be searched.

use std::collections::{BTreeMap, HashMap, HashSet, hash_map};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::tail::missed::{Known, Places};

/// How long a name that stands for nothing is expected to come back.
const ABSENT_TIME: Duration = Duration::from_secs(60 * 60);
/// Most names that are expected to come back.
const ABSENT_MAX: usize = 1000;

/// What is expected where.
#[derive(Default)]
pub(super) struct Expected {
    /// Known files beside which others may have been born while nobody looked.
    known: Places,
    /// Names of known files that stood for nothing at the last look, with their paths, and since
    /// when.
    absent: BTreeMap<OsString, (PathBuf, Instant)>,
    /// Whether not all of what was known at the start has been looked for.
    is_first_search: bool,
    /// Older files beside known ones that turned out to be no copies, by device and inode.
    strangers: HashSet<(u64, u64)>,
}

impl Expected {
    /// Begins with what was known at the start.
    pub(super) fn begin(&mut self, known: Places) {
        self.known = known;
        self.is_first_search = true;
    }

    /// What is expected in a place where a file of this path stands or stood. If nothing is yet, files
    /// are that were born since `seen`.
    pub(super) fn entry(&mut self, place: OsString, path: &Path, seen: i64) -> &mut Known {
        let one = || Known { path: path.to_owned(), seen, born: None, copied: None };
        self.known.entry(place).or_insert_with(one)
    }

    /// Notes that a known file stands where it stood, with its bytes: no other was made in its place
    /// and renamed since.
    pub(super) fn on_in_place(&mut self, place: &OsStr) {
        if let Some(known) = self.known.get_mut(place).filter(|_| self.is_first_search) {
            known.seen = i64::MAX;
        }
    }

    // === a search

    /// Takes the places to be searched.
    pub(super) fn take(&mut self) -> Places {
        std::mem::take(&mut self.known)
    }

    /// Gives places back that are still to be searched. Others may be expected there by now.
    pub(super) fn give_back(&mut self, known: Places) {
        for (place, one) in known {
            match self.known.entry(place) {
                hash_map::Entry::Vacant(free) => _ = free.insert(one),
                hash_map::Entry::Occupied(mut other) => other.get_mut().merge(&one),
            }
        }
    }

    /// Notes that there is something more of which others may be copies. What was no copy is asked again.
    pub(super) fn on_learnt(&mut self) {
        self.strangers.clear();
    }

    /// Ends a search after which nothing is left to be opened. Returns whether what was known at the
    /// start has been looked for with it.
    pub(super) fn on_searched(&mut self) -> bool {
        self.strangers.clear();
        std::mem::take(&mut self.is_first_search)
    }

    /// Notes that a file beside a known one is no copy.
    pub(super) fn on_stranger(&mut self, inode: (u64, u64)) {
        self.strangers.insert(inode);
    }

    /// Whether a file turned out to be no copy.
    pub(super) fn is_stranger(&self, inode: (u64, u64)) -> bool {
        self.strangers.contains(&inode)
    }

    // === names that stand for nothing

    /// The places that stood for nothing at the last look, with the paths of the files that did.
    pub(super) fn absent(&mut self, now: Instant) -> impl Iterator<Item = (&OsString, &Path)> {
        self.absent.retain(|_, (_, since)| now < *since + ABSENT_TIME);
        self.absent.iter().map(|(place, (path, _))| (place, path.as_path()))
    }

    /// Notes which of the `known` names the search has found to stand for nothing.
    pub(super) fn note_absent(&mut self, mut absent: Vec<OsString>, known: &Places, now: Instant) {
        let mut before = std::mem::take(&mut self.absent);
        // Where nothing was searched for, nothing is known to be otherwise.
        self.absent = before.extract_if(.., |place, _| !known.contains_key(place)).collect();
        let seen = |place: &OsString| known.get(place).map(|one| one.seen);
        absent.sort_by_cached_key(|place| {
            std::cmp::Reverse((before.contains_key(place), seen(place)))
        });
        let room = ABSENT_MAX.saturating_sub(self.absent.len());
        for place in absent.into_iter().take(room) {
            let since = before.get(&place).map_or(now, |(_, since)| *since);
            if let Some(one) = known.get(&place) {
                self.absent.insert(place, (one.path.clone(), since));
            }
        }
    }
}

/// Spreads what is expected of a path over all places of it: those that are `known`, and the directories
/// where generations of it were `met`, with their real paths. A copy may have gone to any of them.
pub(super) fn spread<'a>(known: &mut Places, met: impl Iterator<Item = (&'a Path, &'a Path)>) {
    let mut homes: HashMap<PathBuf, (PathBuf, Known)> = HashMap::new();
    for (place, one) in known.iter() {
        let Some(dir) = Path::new(place).parent() else { continue };
        let (home, expected) = match homes.get_mut(&one.path) {
            Some(home) => home,
            None => homes.entry(one.path.clone()).or_insert_with(|| (dir.to_owned(), one.clone())),
        };
        // Of several with one path the same counts in every run.
        if dir < home.as_path() {
            (*home, expected.seen) = (dir.to_owned(), one.seen);
        }
        expected.merge(&Known { seen: i64::MAX, ..one.clone() });
    }
    for one in known.values_mut() {
        if let Some((_, expected)) = homes.get(&one.path) {
            one.merge(&Known { seen: i64::MAX, ..expected.clone() });
        }
    }
    for (path, real) in met {
        if let (Some((_, expected)), Some(name)) = (homes.get(path), path.file_name()) {
            known.entry(real.with_file_name(name).into()).or_insert_with(|| expected.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_expected_wherever_generations_of_the_path_went() {
        let known = |seen, born| Known { path: "/share/app.log".into(), seen, born, copied: None };
        // In the order of names the directory of the log is behind that of its generations.
        let mut places = Places::from([
            ("/data/logs/app.log".into(), known(i64::MAX, Some(3))),
            ("/data/archive/app.log".into(), known(6, None)),
        ]);
        let met = [(Path::new("/share/app.log"), Path::new("/data/old/app.log.1"))];

        spread(&mut places, met.into_iter());

        assert_eq!(places[OsStr::new("/data/logs/app.log")], known(i64::MAX, Some(3)));
        assert_eq!(places[OsStr::new("/data/archive/app.log")], known(6, Some(3)));
        assert_eq!(places[OsStr::new("/data/old/app.log")], known(6, Some(3)));
    }

    fn places(count: usize) -> Places {
        let mut expected = Expected::default();
        for number in 0..count {
            expected.entry(format!("/logs/{number}").into(), Path::new("/logs/app.log"), 0);
        }
        expected.take()
    }

    fn names(known: &Places) -> Vec<OsString> {
        known.keys().cloned().collect()
    }

    #[test]
    fn what_is_given_back_is_searched_from_the_earlier_moment_on() {
        let mut expected = Expected::default();
        expected.entry("/logs/app.log".into(), Path::new("/logs/app.log"), 5);
        let taken = expected.take();
        expected.entry("/logs/app.log".into(), Path::new("/logs/app.log"), 9);

        expected.give_back(taken);

        assert_eq!(expected.take()[OsStr::new("/logs/app.log")].seen, 5);
    }

    #[test]
    fn a_name_that_is_absent_is_expected_for_an_hour_since_it_went() {
        let now = crate::base::clock::now();
        let (mut expected, known) = (Expected::default(), places(1));
        expected.note_absent(names(&known), &known, now);
        expected.note_absent(names(&known), &known, now + ABSENT_TIME / 2);

        assert_eq!(expected.absent(now + ABSENT_TIME / 2).count(), 1);
        assert_eq!(expected.absent(now + ABSENT_TIME).count(), 0);
    }

    #[test]
    fn a_name_that_is_there_again_is_not_absent_and_others_stay() {
        let now = crate::base::clock::now();
        let (mut expected, known) = (Expected::default(), places(2));
        expected.note_absent(names(&known), &known, now);

        expected.note_absent(Vec::new(), &places(1), now);

        let absent: Vec<_> = expected.absent(now).map(|(place, _)| place.clone()).collect();
        assert_eq!(absent, ["/logs/1"], "nobody has searched there");
    }

    #[test]
    fn so_many_names_are_absent_at_most() {
        let now = crate::base::clock::now();
        let (mut expected, known) = (Expected::default(), places(ABSENT_MAX + 1));
        expected.note_absent(names(&known), &known, now);

        assert_eq!(expected.absent(now).count(), ABSENT_MAX);
    }
}
