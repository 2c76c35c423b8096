//! Whether a file is one we know.
//!
//! Pure: the reader looks at the bytes, this decides. A file is known by device, inode, time of
//! birth and two fingerprints, of its head and of the bytes just before the offset; names do not
//! count, because rotation changes them.
//!
//! | device | inode | born | head | tail, size | then |
//! |---|---|---|---|---|---|
//! | same | same | same | same | same | go on at the offset |
//! | same | same | same | same | other, or smaller | rewritten in place: from the first byte |
//! | same | same | other | – | – | another file with a used inode: from the first byte |
//! | same | same | – | other | – | the same, or rewritten: from the first byte |
//! | other | same | same, and known | same | same | the disk was mounted elsewhere: go on |
//! | other | same | – | same | same, a whole tail | the same, where births are not known: go on |
//! | other | – | – | same | same, a whole tail, and the path too | the data was copied: go on |
//! | other | – | – | same | same, fewer bytes, and inode or path too | it may be: from the first byte |
//! | – | – | – | – | anything else | not this file |
//!
//! Not every file system knows the time of birth; a time that is not known says nothing. A whole tail
//! is 256 bytes: fewer, such as `{` or a banner, are those of many files, and prove nothing on another
//! device. Then the file is shipped again from its first byte.

use crate::base::fingerprint::TAIL_BYTES_MAX;
use crate::checkpoint::format::Checkpoint;

/// What fstat(2) says of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stat {
    /// Device number.
    pub device: u64,
    /// Inode number.
    pub inode: u64,
    /// When it was made, in nanoseconds since 1970; 0 for not known.
    pub born: i64,
    /// Size in bytes.
    pub size: u64,
    /// When its bytes changed last, in nanoseconds since 1970. `None` while that is so recent that
    /// another change could bear the same time.
    pub modified: Option<i64>,
    /// When its bytes, names or rights changed last, in nanoseconds since 1970.
    pub changed: i64,
    /// Names that it has; 0 when it was deleted.
    pub links: u64,
    /// It is a regular file.
    pub is_file: bool,
}

/// What the reader sees of a file, held against a checkpoint.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// Device number.
    pub device: u64,
    /// Inode number.
    pub inode: u64,
    /// When the file was made; 0 for not known.
    pub born: i64,
    /// The path is that of the checkpoint.
    pub is_same_path: bool,
    /// The first bytes are those of the checkpoint's head.
    pub is_head_same: bool,
    /// The bytes before the checkpoint's offset are those of its tail (and so the file is at least
    /// that long).
    pub is_tail_same: bool,
}

/// What a checkpoint means for a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Match {
    /// It is this file: go on at the checkpoint's offset.
    Resume,
    /// It may be this file, which nothing proves: from the first byte, and the checkpoint is done with.
    Again,
    /// It was this file, and other bytes stand in it now: from the first byte.
    Rewritten,
    /// It speaks of another file.
    Other,
}

/// Holds what is seen against a checkpoint.
#[must_use]
pub fn compare(saved: &Checkpoint, seen: Seen) -> Match {
    let is_same_device = saved.device == seen.device;
    let is_same_inode = saved.inode == seen.inode;
    let are_bytes_same = seen.is_head_same && seen.is_tail_same;
    let is_born_same = saved.born == 0 || seen.born == 0 || saved.born == seen.born;
    let is_same_birth = is_born_same && saved.born != 0 && seen.born != 0;
    let has_bytes = saved.head.len > 0 && are_bytes_same;
    // Few bytes are those of many files.
    let is_proof = has_bytes && saved.tail.len as usize == TAIL_BYTES_MAX;
    match (is_same_device, is_same_inode) {
        (true, true) if are_bytes_same && is_born_same => Match::Resume,
        (true, true) => Match::Rewritten,
        (false, true) if has_bytes && is_same_birth => Match::Resume,
        (false, true) if is_proof && is_born_same => Match::Resume,
        (false, _) if is_proof && seen.is_same_path => Match::Resume,
        (false, _) if has_bytes && (is_same_inode || seen.is_same_path) => Match::Again,
        _ => Match::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::fingerprint::Fingerprint;

    fn check(device: u64, inode: u64, path: bool, head: bool, tail: bool, expected: Match) {
        let saved = Checkpoint {
            path: "/a".into(),
            resolved: "/a".into(),
            device: 1,
            inode: 1,
            offset: 10,
            head: Fingerprint::of(b"head"),
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
        for (tail, born, path, inode, expected) in [
            (TAIL_BYTES_MAX, 0, true, 1, Match::Resume),
            (TAIL_BYTES_MAX, 0, true, 9, Match::Resume),
            (TAIL_BYTES_MAX, 0, false, 1, Match::Resume),
            (TAIL_BYTES_MAX, 5, false, 1, Match::Again),
            (TAIL_BYTES_MAX, 0, false, 9, Match::Other),
            (TAIL_BYTES_MAX, 5, true, 1, Match::Resume),
            (TAIL_BYTES_MAX - 1, 0, true, 1, Match::Again),
            (TAIL_BYTES_MAX - 1, 5, true, 1, Match::Again),
            (1, 7, true, 9, Match::Again),
            (1, 7, false, 9, Match::Other),
            (1, 7, false, 1, Match::Resume),
        ] {
            let saved = Checkpoint {
                device: 1,
                inode: 1,
                born,
                head: Fingerprint::of(b"{"),
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
            assert_eq!(compare(&saved, seen), expected, "{tail} {born} {path} {inode}");
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
