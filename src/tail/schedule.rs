//! Whose turn it is.
//!
//! Pure. Round robin over the files that have something to read: a file that has more after its
//! piece goes to the end, so that a busy one cannot starve a quiet one; so does one that stopped for want
//! of room, or it would take each bit of room that comes.

use std::collections::{HashSet, VecDeque};

use crate::span::FileKey;

/// Room for so many files is kept when none waits any more.
const ROOM_KEPT: usize = 256;

/// Files that wait to be read, each at most once.
#[derive(Debug, Default)]
pub struct Schedule {
    queue: VecDeque<FileKey>,
    queued: HashSet<FileKey>,
}

impl Schedule {
    /// The file may have something to read. Says nothing new if it waits already.
    pub fn mark(&mut self, file: FileKey) {
        if self.queued.insert(file) {
            self.queue.push_back(file);
        }
    }

    /// Takes the next file.
    pub fn next_file(&mut self) -> Option<FileKey> {
        let file = self.queue.pop_front()?;
        self.queued.remove(&file);
        if self.queue.is_empty() && self.queue.capacity() > ROOM_KEPT {
            *self = Self::default();
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
}
