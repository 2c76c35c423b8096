//! Names of which there may be any number.
//!
//! Pure. An app can make links, pipes and directories at will; the memory of the agent must not follow.
//! So of what a walk meets in such numbers only a count is kept, a hash of each name, and the text of
//! the first few, up to bounds.

use std::collections::HashSet;
use std::hash::{BuildHasher as _, RandomState};
use std::path::Path;

/// Most names of a walk that are known again by their hashes: some 3 MiB, with those of the walk
/// before.
const KNOWN_MAX: usize = 1 << 16;
/// Most things whose text is kept in any case, and most that are kept besides because they are
/// news.
const NAMED_MAX: usize = 64;

/// The names that one walk met, and those of the walk before, as hashes.
#[derive(Debug, Default)]
pub struct Names {
    before: HashSet<u64>,
    now: HashSet<u64>,
    hasher: RandomState,
}

/// Whether a name that a walk met is news.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Met {
    /// The walk before did not meet the name.
    News,
    /// The walk before met the name too.
    Known,
    /// This walk has met the name already.
    Again,
    /// There are more names than can be known again.
    Beyond,
}

impl Names {
    /// Begins a walk. What the last one met is known from then on, and what was known before is not
    /// any more.
    pub fn turn(&mut self) {
        self.before = std::mem::take(&mut self.now);
    }

    /// Notes a name.
    pub fn meet(&mut self, path: &Path) -> Met {
        let key = self.hasher.hash_one(path.as_os_str());
        if self.now.contains(&key) {
            return Met::Again;
        }
        if self.now.len() >= KNOWN_MAX {
            return if self.before.contains(&key) { Met::Known } else { Met::Beyond };
        }
        self.now.insert(key);
        if self.before.contains(&key) { Met::Known } else { Met::News }
    }

    /// Whether this walk has met a name, as far as it is known.
    #[must_use]
    pub fn has_met(&self, path: &Path) -> bool {
        self.now.contains(&self.hasher.hash_one(path.as_os_str()))
    }

    /// How many names this walk has met, as far as they are known.
    #[must_use]
    pub fn count(&self) -> usize {
        self.now.len()
    }
}

/// Things of one kind that a walk met: all are counted, each once, and the first few are kept.
#[derive(Debug)]
pub struct Crowd<T> {
    count: u64,
    /// The first things, each with whether it is news.
    first: Vec<(T, bool)>,
    unnamed_news: u64,
}

impl<T> Default for Crowd<T> {
    fn default() -> Self {
        Self { count: 0, first: Vec::new(), unnamed_news: 0 }
    }
}

impl<T> Crowd<T> {
    /// Counts a thing that was met under a name; `thing` is called if the thing is to be kept.
    pub(super) fn add(&mut self, met: Met, thing: impl FnOnce() -> T) {
        if met == Met::Again {
            return;
        }
        self.count += 1;
        let is_news = met == Met::News;
        let room = if is_news { 2 * NAMED_MAX } else { NAMED_MAX };
        if self.first.len() < room {
            self.first.push((thing(), is_news));
        } else {
            self.unnamed_news += u64::from(is_news);
        }
    }

    /// Puts the first ones in order.
    pub(super) fn sort_by(&mut self, compare: impl Fn(&T, &T) -> std::cmp::Ordering) {
        self.first.sort_by(|a, b| compare(&a.0, &b.0));
    }

    /// How many things there were.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// Whether there were no things.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// How many things there were whose text is not kept.
    #[must_use]
    pub fn unnamed(&self) -> u64 {
        self.count - self.first.len() as u64
    }

    /// The first of the things.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.first.iter().map(|(thing, _)| thing)
    }

    /// Things among the first that the walk before did not meet.
    pub fn news(&self) -> impl Iterator<Item = &T> {
        self.first.iter().filter(|(_, is_news)| *is_news).map(|(thing, _)| thing)
    }

    /// How many other things there were that the walk before did not meet.
    #[must_use]
    pub const fn unnamed_news(&self) -> u64 {
        self.unnamed_news
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn walk(names: &mut Names, numbers: impl Iterator<Item = usize>) -> Crowd<PathBuf> {
        names.turn();
        let mut crowd = Crowd::default();
        for number in numbers {
            let path = PathBuf::from(format!("/share/logs/{number}"));
            crowd.add(names.meet(&path), || path.clone());
        }
        crowd
    }

    #[test]
    fn each_is_counted_once_and_the_first_are_named() {
        let mut names = Names::default();
        let crowd = walk(&mut names, (0..1000).chain(0..1000));

        assert_eq!(crowd.count(), 1000);
        assert_eq!(crowd.news().count() as u64 + crowd.unnamed_news(), 1000);
        assert_eq!(crowd.iter().count(), 2 * NAMED_MAX);
        assert!(names.has_met(Path::new("/share/logs/999")));
    }

    #[test]
    fn what_comes_new_among_many_is_named() {
        let mut names = Names::default();
        walk(&mut names, 0..1000);

        let crowd = walk(&mut names, 0..1001);

        let news: Vec<_> = crowd.news().collect();
        assert_eq!(news, [Path::new("/share/logs/1000")]);
        assert_eq!((crowd.count(), crowd.unnamed_news()), (1001, 0));
    }

    #[test]
    fn what_was_right_in_between_is_news_again() {
        let mut names = Names::default();
        walk(&mut names, 0..2);
        walk(&mut names, 0..1);

        assert_eq!(walk(&mut names, 0..2).news().count(), 1);
    }

    #[test]
    fn of_very_many_the_count_is_right_and_memory_has_a_bound() {
        let mut names = Names::default();
        for _ in 0..3 {
            let crowd = walk(&mut names, 0..2 * KNOWN_MAX);
            assert_eq!(crowd.count(), 2 * KNOWN_MAX as u64);
            assert!(crowd.news().count() as u64 + crowd.unnamed_news() <= KNOWN_MAX as u64);
        }
        assert!(names.now.len() <= KNOWN_MAX && names.before.len() <= KNOWN_MAX);
        assert_eq!(walk(&mut names, 0..2 * KNOWN_MAX).news().count(), 0, "nothing is new");
    }
}
