//! Whose turn it is, and since when it waits.
//!
//! Pure. Round robin over the files that have something to read: a file that has more after its
//! piece goes to the end, so that a busy one cannot starve a quiet one; so does one that stopped for want
//! of room, or it would take each bit of room that comes.
//!
//! Files with new bytes go before those that only may have something: thousands that are touched, or
//! are to be compared for another reason, do not hold up the one that was written to. These get a
//! part of the turns all the same.
//!
//! # Since when
//! When a line was written is known only from above: it came after the last look that would have
//! shown it. Whoever marks files says when that was ([`Schedule::looked`]); a file keeps the moment
//! until it is read to its end. What a busy one gets meanwhile is told from the rest by the sizes
//! that it had: bytes beyond a size came after the file had that size.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Instant;

use crate::base::span::FileKey;

/// Most files for which room is kept when none waits any more.
const ROOM_KEPT: usize = 256;

/// How many files with new bytes have their turn before one that only may have something.
const GROWN_IN_A_ROW: u8 = 3;

/// Files that wait to be read, each at most once.
#[derive(Debug, Default)]
pub struct Schedule {
    /// Files with new bytes.
    grown: Queue,
    /// Files that may have something to read. Some may have moved to those with new bytes.
    doubtful: Queue,
    /// How many files with new bytes have had their turn since one that only may have something.
    in_a_row: u8,
    /// The moment after which what is marked now has come.
    looked_at: Option<Instant>,
    /// Files that were marked and are not read to their end.
    waiting: HashMap<FileKey, Waiting>,
}

/// Files in order, each once.
#[derive(Debug, Default)]
struct Queue {
    files: VecDeque<FileKey>,
    queued: HashSet<FileKey>,
}

impl Queue {
    fn push(&mut self, file: FileKey) {
        if self.queued.insert(file) {
            self.files.push_back(file);
        }
    }

    fn pop(&mut self) -> Option<FileKey> {
        while let Some(file) = self.files.pop_front() {
            if self.queued.remove(&file) {
                if self.files.is_empty() && self.files.capacity() > ROOM_KEPT {
                    *self = Self::default();
                }
                return Some(file);
            }
        }
        None
    }

    /// Removes a file, and leaves its place in the order behind: the place is passed over.
    fn remove(&mut self, file: FileKey) {
        self.queued.remove(&file);
    }
}

/// Bytes of a file that nobody has read.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    /// The moment after which the first of the bytes came.
    since: Instant,
    /// Offset from which on the bytes came later, and the moment after which they came.
    then: Option<(u64, Instant)>,
}

impl Schedule {
    /// Marks a file that may have something to read. Says nothing new if the file waits already.
    pub fn mark(&mut self, file: FileKey) {
        if !self.grown.queued.contains(&file) {
            self.doubtful.push(file);
        }
        self.note(file);
    }

    /// Marks a file that has bytes which nobody has read.
    pub fn mark_grown(&mut self, file: FileKey) {
        self.doubtful.remove(file);
        self.grown.push(file);
        self.note(file);
    }

    fn note(&mut self, file: FileKey) {
        if let Some(since) = self.looked_at {
            self.waiting.entry(file).or_insert(Waiting { since, then: None });
        }
    }

    /// Sets the moment after which what is marked from now on came.
    pub fn looked(&mut self, at: Instant) {
        self.looked_at = Some(at);
    }

    /// Returns since when the bytes at `offset` may have waited, from which the file is read; the
    /// file has `size` bytes `now`.
    pub fn waits_since(&mut self, file: FileKey, offset: u64, size: u64, now: Instant) -> Instant {
        let since = self.looked_at.unwrap_or(now);
        let waiting = self.waiting.entry(file).or_insert(Waiting { since, then: None });
        if let Some((_, at)) = waiting.then.filter(|(from, _)| *from <= offset) {
            *waiting = Waiting { since: at, then: None };
        }
        waiting.then.get_or_insert((size, now));
        waiting.since
    }

    /// Takes out a file that is read to its end, or will not be read any more.
    pub fn on_end(&mut self, file: FileKey) {
        self.waiting.remove(&file);
        if self.waiting.is_empty() && self.waiting.capacity() > ROOM_KEPT {
            self.waiting = HashMap::new();
        }
    }

    /// Takes the next file. The schedule keeps since when it waits: it has not been read yet.
    pub fn next_file(&mut self) -> Option<FileKey> {
        let is_turn_of_grown = self.in_a_row < GROWN_IN_A_ROW;
        let grown = if is_turn_of_grown { self.grown.pop() } else { None };
        if grown.is_some() {
            self.in_a_row += 1;
            return grown;
        }
        self.in_a_row = 0;
        self.doubtful.pop().or_else(|| self.grown.pop())
    }

    /// Whether no file waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.grown.queued.is_empty() && self.doubtful.queued.is_empty()
    }

    /// Whether a file with new bytes waits.
    #[must_use]
    pub fn has_grown(&self) -> bool {
        !self.grown.queued.is_empty()
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
    fn a_file_with_new_bytes_does_not_wait_for_thousands_that_were_touched() {
        let mut schedule = Schedule::default();
        (0..3000).map(FileKey).for_each(|file| schedule.mark(file));
        let (new, touched) = (FileKey(9999), FileKey(2999));
        schedule.mark_grown(new);
        schedule.mark_grown(touched);

        assert_eq!(schedule.next_file(), Some(new));
        assert_eq!(schedule.next_file(), Some(touched));
        let rest: Vec<_> = std::iter::from_fn(|| schedule.next_file()).collect();
        assert_eq!(rest, (0..2999).map(FileKey).collect::<Vec<_>>(), "each has one turn");
        assert!(schedule.is_empty());
    }

    #[test]
    fn files_that_only_may_have_something_get_a_part_of_the_turns() {
        let mut schedule = Schedule::default();
        let (busy, quiet) = (FileKey(1), FileKey(2));
        schedule.mark(quiet);
        for _ in 0..3 {
            schedule.mark_grown(busy);
            assert_eq!(schedule.next_file(), Some(busy));
        }
        schedule.mark_grown(busy);
        assert_eq!(schedule.next_file(), Some(quiet));
    }

    #[test]
    fn a_file_waits_since_the_look_that_it_was_first_marked_in() {
        let (start, file) = (crate::base::clock::now(), FileKey(1));
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
        let start = crate::base::clock::now();
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
        let capacity = schedule.grown.files.capacity() + schedule.doubtful.files.capacity();
        assert!(capacity + schedule.waiting.capacity() <= 2 * ROOM_KEPT);
    }

    #[test]
    fn what_came_later_has_not_waited_as_long() {
        let (start, file) = (crate::base::clock::now(), FileKey(1));
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
