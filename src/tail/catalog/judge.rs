//! What a file is, from what is seen of it and what is known.
//!
//! Pure: the reader looks at the bytes, this decides. The rules are the rows of the table in [`super`], each
//! with a test of its name in `tail::rules_tests`.

use std::path::Path;

use super::names::{Kin, kin};
use crate::base::fingerprint::{Fingerprint, HEAD_BYTES_MAX, TAIL_BYTES_MAX};
use crate::checkpoint::format::Checkpoint;

/// What fstat(2) says of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stat {
    /// Device number.
    pub device: u64,
    /// Inode number.
    pub inode: u64,
    /// When the file was made, in nanoseconds since 1970; 0 for not known.
    pub born: i64,
    /// Size in bytes.
    pub size: u64,
    /// When the file's bytes changed last, in nanoseconds since 1970. `None` while that is so
    /// recent that another change could bear the same time.
    pub modified: Option<i64>,
    /// When the file's bytes, names or rights changed last, in nanoseconds since 1970.
    pub changed: i64,
    /// How many names the file has; 0 when it was deleted.
    pub links: u64,
    /// Whether the file is a regular one.
    pub is_file: bool,
}

/// What the reader sees of a file, held against a checkpoint.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// Device number.
    pub device: u64,
    /// Inode number.
    pub inode: u64,
    /// When the file was made, in nanoseconds since 1970; 0 for not known.
    pub born: i64,
    /// Whether the path is that of the checkpoint.
    pub is_same_path: bool,
    /// Whether the first bytes are those of the checkpoint's head.
    pub is_head_same: bool,
    /// Whether the bytes before the checkpoint's offset are those of its tail (and so the file is
    /// at least that long).
    pub is_tail_same: bool,
}

/// What a checkpoint means for a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Match {
    /// The file is the one that the checkpoint speaks of: the agent goes on at the checkpoint's
    /// offset.
    Resume,
    /// The file may be the one that the checkpoint speaks of, and nothing proves it: the agent
    /// reads from the first byte, and drops the checkpoint.
    Again,
    /// The file was the one that the checkpoint speaks of, and other bytes stand in it now: the
    /// agent reads from the first byte.
    Rewritten,
    /// The checkpoint speaks of another file.
    Other,
}

/// Holds what is seen of a file against a checkpoint.
#[must_use]
pub fn compare(saved: &Checkpoint, seen: Seen) -> Match {
    let is_same_device = saved.device == seen.device;
    let is_same_inode = saved.inode == seen.inode;
    let are_bytes_same = seen.is_head_same && seen.is_tail_same;
    let birth = Birth::of(saved.born, seen.born);
    let has_bytes = saved.head.len > 0 && are_bytes_same;
    let has_proof = are_bytes_same && is_whole_proof(saved.head, saved.tail);
    match (is_same_device, is_same_inode) {
        (true, true) if are_bytes_same && birth != Birth::Other => Match::Resume,
        (true, true) => Match::Rewritten,
        (false, true) if has_bytes && birth == Birth::Same => Match::Resume,
        (false, true) if has_proof && birth == Birth::Unknown => Match::Resume,
        (false, _) if has_proof && seen.is_same_path => Match::Resume,
        (false, _) if has_bytes && (is_same_inode || seen.is_same_path) => Match::Again,
        _ => Match::Other,
    }
}

/// What two times of birth say of two sights of a file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Birth {
    Same,
    Other,
    /// The time is not known of both: not every file system has it.
    Unknown,
}

impl Birth {
    const fn of(one: i64, other: i64) -> Self {
        match (one, other) {
            (0, _) | (_, 0) => Self::Unknown,
            _ if one == other => Self::Same,
            _ => Self::Other,
        }
    }
}

/// Whether a head and a tail are whole: so many bytes that no other log is to be expected to have
/// the same. Fewer, such as `{` or a banner, are those of many files.
#[must_use]
pub const fn is_whole_proof(head: Fingerprint, tail: Fingerprint) -> bool {
    head.len as usize == HEAD_BYTES_MAX && tail.len as usize == TAIL_BYTES_MAX
}

/// Whether the file of a checkpoint is gone, and another one has its inode number.
#[must_use]
pub fn is_used_inode(saved: &Checkpoint, born: i64) -> bool {
    Birth::of(saved.born, born) == Birth::Other
}

/// Whether a file was made at the moment that a checkpoint knows.
#[must_use]
pub fn is_born_with(saved: &Checkpoint, born: i64) -> bool {
    Birth::of(saved.born, born) == Birth::Same
}

/// Whether other bytes in a file that a checkpoint speaks of, now at `path`, are a new text of that
/// file, and not another file with the same inode: by the time of birth, or where that is not known
/// by the name.
#[must_use]
pub fn is_same_file(saved: &Checkpoint, born: i64, path: &Path) -> bool {
    let kin = || kin(path, &[&saved.path, &saved.resolved]);
    let is_named_so = || !matches!(kin(), Some(Kin::Sibling | Kin::Stranger));
    is_born_with(saved, born) || is_named_so()
}

/// When a file's bytes or its last name went away, if an examination that misses them says so:
/// `changed` is the file's time of change then, and `before` the one when they were seen last. A
/// kernel may take size and names away before it notes the time.
#[must_use]
pub fn gone_at(changed: i64, before: i64) -> Option<i64> {
    (changed > before).then_some(changed)
}

/// Whether a file that was born at `born` can be a copy of bytes that had gone away by `gone_at`; 0
/// for not known. A file that holds them compressed is a copy whenever it was made: no app writes
/// that.
#[must_use]
pub const fn has_alibi(born: i64, gone_at: i64, is_compressed: bool) -> bool {
    is_compressed || born == 0 || gone_at == 0 || born <= gone_at
}

/// Whether a file was last written to before another one was made, which has a time of birth: then it is
/// no copy of it. Some tools keep times in seconds only.
#[must_use]
pub fn is_older(modified: Option<i64>, born: i64) -> bool {
    const SECOND: i64 = 1_000_000_000;
    modified.is_some_and(|modified| modified.div_euclid(SECOND) < born.div_euclid(SECOND))
}

/// Whether so many equal bytes make a file a copy of another one that it is so related to.
#[must_use]
pub fn is_proof_for(kin: Kin, head: Fingerprint, tail: Fingerprint) -> bool {
    match kin {
        // A head of NULs is no head; then a whole tail is the proof.
        Kin::Generation => head.len > 0 || tail.len as usize == TAIL_BYTES_MAX,
        Kin::Elsewhere | Kin::Sibling | Kin::Stranger => is_whole_proof(head, tail),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_was_written_to_in_an_earlier_second_is_no_copy() {
        let second = 1_000_000_000;
        assert!(is_older(Some(2 * second - 1), 2 * second));
        assert!(!is_older(Some(2 * second), 2 * second + 999_999_999));
        assert!(!is_older(None, second));
        assert!(!is_older(Some(0), 0), "no birth is known");
    }

    fn check(device: u64, inode: u64, path: bool, head: bool, tail: bool, expected: Match) {
        let saved = Checkpoint {
            path: "/a".into(),
            resolved: "/a".into(),
            device: 1,
            inode: 1,
            offset: 10,
            head: Fingerprint::of(&[b'x'; HEAD_BYTES_MAX]),
            tail: Fingerprint::of_tail(&[b'x'; TAIL_BYTES_MAX]),
            born: 7,
            ..Checkpoint::default()
        };
        let seen = Seen {
            device,
            inode,
            born: 7,
            is_same_path: path,
            is_head_same: head,
            is_tail_same: tail,
        };
        assert_eq!(compare(&saved, seen), expected, "{seen:?}");
    }

    #[test]
    fn knows_a_file_again_and_no_other() {
        check(1, 1, true, true, true, Match::Resume);
        check(1, 1, false, true, true, Match::Resume);
        check(1, 1, true, true, false, Match::Rewritten);
        check(1, 1, true, false, false, Match::Rewritten);
        check(2, 1, false, true, true, Match::Resume);
        check(2, 1, true, true, false, Match::Other);
        check(2, 9, true, true, true, Match::Resume);
        check(2, 9, false, true, true, Match::Other);
        check(1, 9, true, true, true, Match::Other);
    }

    #[test]
    fn an_empty_head_proves_nothing_elsewhere() {
        let saved = Checkpoint {
            path: "/a".into(),
            resolved: "/a".into(),
            device: 1,
            inode: 1,
            ..Checkpoint::default()
        };
        let mut seen = Seen {
            device: 2,
            inode: 1,
            born: 0,
            is_same_path: true,
            is_head_same: true,
            is_tail_same: true,
        };
        assert_eq!(compare(&saved, seen), Match::Other);
        seen.device = 1;
        assert_eq!(compare(&saved, seen), Match::Resume);
    }

    #[test]
    fn few_bytes_prove_nothing_on_another_device() {
        let whole = (HEAD_BYTES_MAX, TAIL_BYTES_MAX);
        for ((head, tail), born, path, inode, expected) in [
            (whole, 0, true, 1, Match::Resume),
            (whole, 0, true, 9, Match::Resume),
            (whole, 0, false, 1, Match::Resume),
            (whole, 5, false, 1, Match::Again),
            (whole, 0, false, 9, Match::Other),
            (whole, 5, true, 1, Match::Resume),
            ((HEAD_BYTES_MAX, TAIL_BYTES_MAX - 1), 0, true, 1, Match::Again),
            ((HEAD_BYTES_MAX - 1, TAIL_BYTES_MAX), 5, true, 1, Match::Again),
            ((HEAD_BYTES_MAX - 1, TAIL_BYTES_MAX), 0, false, 1, Match::Again),
            ((1, 1), 7, true, 9, Match::Again),
            ((1, 1), 7, false, 9, Match::Other),
            ((1, 1), 7, false, 1, Match::Resume),
        ] {
            let saved = Checkpoint {
                device: 1,
                inode: 1,
                born,
                head: Fingerprint::of(&[b'x'; HEAD_BYTES_MAX][..head]),
                tail: Fingerprint::of_tail(&[b'x'; TAIL_BYTES_MAX][..tail]),
                ..Checkpoint::default()
            };
            let seen = Seen {
                device: 2,
                inode,
                born: 7,
                is_same_path: path,
                is_head_same: true,
                is_tail_same: true,
            };
            assert_eq!(compare(&saved, seen), expected, "{head} {tail} {born} {path} {inode}");
        }
    }

    #[test]
    fn a_copy_needs_an_alibi() {
        for (born, gone_at, expected) in
            [(5, 5, true), (5, 9, true), (5, 4, false), (0, 4, true), (5, 0, true)]
        {
            assert_eq!(has_alibi(born, gone_at, false), expected, "{born} {gone_at}");
            assert!(has_alibi(born, gone_at, true));
        }
    }

    #[test]
    fn a_time_of_change_that_stands_still_says_nothing_of_when_bytes_went_away() {
        assert_eq!((gone_at(6, 5), gone_at(5, 5)), (Some(6), None));
    }

    #[test]
    fn the_further_away_a_copy_is_the_more_bytes_it_needs() {
        let few = Fingerprint::of(b"{\n");
        let (head, tail) = ([b'x'; HEAD_BYTES_MAX], [b'x'; TAIL_BYTES_MAX]);
        let whole = (Fingerprint::of(&head), Fingerprint::of(&tail));
        for (kin, (head, tail), expected) in [
            (Kin::Generation, (few, few), true),
            (Kin::Generation, (Fingerprint::default(), few), false),
            (Kin::Generation, (Fingerprint::default(), whole.1), true),
            (Kin::Elsewhere, (few, few), false),
            (Kin::Elsewhere, (whole.0, few), false),
            (Kin::Elsewhere, whole, true),
            (Kin::Sibling, (whole.0, few), false),
            (Kin::Sibling, whole, true),
            (Kin::Stranger, (few, whole.1), false),
            (Kin::Stranger, whole, true),
        ] {
            assert_eq!(is_proof_for(kin, head, tail), expected, "{kin:?} {head:?} {tail:?}");
        }
    }

    #[test]
    fn a_used_inode_is_told_by_the_time_of_birth() {
        let saved = Checkpoint { device: 1, inode: 1, born: 5, ..Checkpoint::default() };
        let born = |born| Seen {
            device: 1,
            inode: 1,
            born,
            is_same_path: true,
            is_head_same: true,
            is_tail_same: true,
        };
        assert_eq!(compare(&saved, born(5)), Match::Resume);
        assert_eq!(compare(&saved, born(6)), Match::Rewritten);
        assert_eq!(compare(&saved, born(0)), Match::Resume, "not known here");
    }
}
