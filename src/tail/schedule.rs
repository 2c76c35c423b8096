//! Whose turn it is, and since when it waits.
//!
//! Pure. Round robin over the files that have something to read: a file that has more after its
//! piece goes to the end, so that a busy one cannot starve a quiet one; so does one that stopped for want
//! of room, or it would take each bit of room that comes.
//!
//! # Since when
//! When a line was written is known only from above: it came after the last look that would have
//! shown it. Whoever marks files says when that was ([`Schedule::looked`]); a file keeps the moment
//! until it is read to its end. What a busy one gets meanwhile is told from the rest by the sizes
//! that it had: bytes beyond a size came after the file had that size.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Instant;

use crate::span::FileKey;

/// Room for so many files is kept when none waits any more.
const ROOM_KEPT: usize = 256;

/// Files that wait to be read, each at most once.
#[derive(Debug, Default)]
pub struct Schedule {
    queue: VecDeque<FileKey>,
    queued: HashSet<FileKey>,
    /// What is marked now has come after this moment.
    looked_at: Option<Instant>,
    /// Files that were marked and are not read to their end.
    waiting: HashMap<FileKey, Waiting>,
}

/// Bytes of a file that nobody has read.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    /// The first of them came after this moment.
    since: Instant,
    /// Those from this offset on came after that one.
    then: Option<(u64, Instant)>,
}

impl Schedule {
    /// The file may have something to read. Says nothing new if it waits already.
    pub fn mark(&mut self, file: FileKey) {
        if self.queued.insert(file) {
            self.queue.push_back(file);
        }
        if let Some(since) = self.looked_at {
            self.waiting.entry(file).or_insert(Waiting { since, then: None });
        }
    }

    /// What is marked from now on came after this moment.
    pub fn looked(&mut self, at: Instant) {
        self.looked_at = Some(at);
    }

    /// The file, which has `size` bytes `now`, is read from `offset`: returns since when the bytes
    /// there may have waited.
    pub fn waits_since(&mut self, file: FileKey, offset: u64, size: u64, now: Instant) -> Instant {
        let since = self.looked_at.unwrap_or(now);
        let waiting = self.waiting.entry(file).or_insert(Waiting { since, then: None });
        if let Some((_, at)) = waiting.then.filter(|(from, _)| *from <= offset) {
            *waiting = Waiting { since: at, then: None };
        }
        waiting.then.get_or_insert((size, now));
        waiting.since
    }

    /// The file is read to its end, or will not be read any more.
    pub fn on_end(&mut self, file: FileKey) {
        self.waiting.remove(&file);
        if self.waiting.is_empty() && self.waiting.capacity() > ROOM_KEPT {
            self.waiting = HashMap::new();
        }
    }

    /// Takes the next file.
    pub fn next_file(&mut self) -> Option<FileKey> {
        let file = self.queue.pop_front()?;
        self.queued.remove(&file);
        if self.queue.is_empty() && self.queue.capacity() > ROOM_KEPT {
            // Since when they wait is kept: the one that is taken has not been read yet.
            (self.queue, self.queued) = (VecDeque::new(), HashSet::new());
        }
        Some(file)
    }

    /// Whether no file waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_busy_file_does_not_starve_a_quiet_one() {
        let (busy, quiet) = (FileKey(1), FileKey(2));
        let mut schedule = Schedule::default();
        schedule.mark(busy);
        schedule.mark(busy);
        assert_eq!(schedule.next_file(), Some(busy));
        schedule.mark(quiet);
        schedule.mark(busy);
        assert_eq!(schedule.next_file(), Some(quiet));
        assert_eq!(schedule.next_file(), Some(busy));
        assert_eq!(schedule.next_file(), None);
    }

    #[test]
    fn a_file_waits_since_the_look_that_it_was_first_marked_in() {
        let (start, file) = (crate::clock::now(), FileKey(1));
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut schedule = Schedule::default();
        schedule.looked(at(1));
        schedule.mark(file);
        schedule.looked(at(2));
        schedule.mark(file);
        assert_eq!(schedule.waits_since(file, 0, 10, at(3)), at(1));

        schedule.on_end(file);
        schedule.mark(file);
        assert_eq!(schedule.waits_since(file, 10, 20, at(4)), at(2));
    }

    #[test]
    fn the_last_one_of_many_waits_since_it_was_marked() {
        let start = crate::clock::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut schedule = Schedule::default();
        schedule.looked(at(1));
        let files: Vec<FileKey> = (0..1000).map(FileKey).collect();
        files.iter().for_each(|file| schedule.mark(*file));
        for file in files {
            assert_eq!(schedule.next_file(), Some(file));
            assert_eq!(schedule.waits_since(file, 0, 10, at(60)), at(1), "{file:?}");
            schedule.on_end(file);
        }
        assert!(schedule.queue.capacity() + schedule.waiting.capacity() <= 2 * ROOM_KEPT);
    }

    #[test]
    fn what_came_later_has_not_waited_as_long() {
        let (start, file) = (crate::clock::now(), FileKey(1));
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut schedule = Schedule::default();
        schedule.looked(at(0));
        schedule.mark(file);
        assert_eq!(schedule.waits_since(file, 0, 100, at(10)), at(0));
        assert_eq!(schedule.waits_since(file, 50, 200, at(20)), at(0));
        // Beyond the 100 bytes that it had at the first reading.
        assert_eq!(schedule.waits_since(file, 100, 300, at(30)), at(10));
        assert_eq!(schedule.waits_since(file, 299, 400, at(40)), at(10));
        assert_eq!(schedule.waits_since(file, 300, 400, at(50)), at(30));
    }
}
