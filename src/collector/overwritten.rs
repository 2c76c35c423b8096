//! Renamed files that were overwritten, and hold no log any more.
//!
//! logrotate's `shred`, and shred(1) itself, write random bytes or a pattern over a file, from its first
//! byte on and as often as they like, before it is truncated, renamed and deleted. A log is written over
//! in its place too, by an app that begins anew, and then it is read from its first byte. Two things tell
//! the one from the other: shred comes when a file is out of use (renamed, left, deleted, or named as an
//! archive), and its bytes are no text.
//!
//! Such a file is not read again until it is truncated. What was not read of it is counted as skipped.
//! *Absent: a file that is shorter than what was read: that is a truncation, whatever its name.*

use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::Collector;
use super::said::Kind;
use crate::base::fingerprint::HEAD_BYTES_MAX;
use crate::base::span::FileKey;
use crate::checkpoint::format::Checkpoint;
use crate::checkpoint::keep::Keep;
use crate::tail::catalog::judge::Stat;
use crate::tail::catalog::names;
use crate::tail::os::{Os, OsFile};
use crate::tail::reader::Reader;
use crate::tail::tracked::State;

/// Least number of bytes for each control character in bytes that are text. A tenth of random bytes
/// are controls that no text has; of text in any encoding hardly any byte is one.
const TEXT_BYTES_PER_CONTROL: usize = 32;

/// Endings that programs add to the name of a file that they have compressed.
const COMPRESSED: [&str; 4] = [".gz", ".bz2", ".xz", ".zst"];

impl<O: Os, K: Keep> Collector<O, K> {
    /// Takes a file in which other bytes stand than those that were read, and that is not shorter:
    /// either the file begins anew, or it holds no log any more.
    pub(super) fn on_other_bytes(&mut self, file: FileKey, now: Instant) {
        if self.is_overwritten(file) {
            self.end_overwritten(file);
        } else {
            self.restart(file, "other bytes stand before the offset", now);
        }
    }

    fn is_overwritten(&self, file: FileKey) -> bool {
        let (Some(tracked), Some(reader)) = (self.registry.get(file), self.readers.get(&file))
        else {
            return false;
        };
        // A discovery may not have seen yet that it was renamed.
        let is_out_of_use = |(place, is_deleted): (PathBuf, bool)| {
            is_deleted
                || place.file_name() != tracked.sighting.named.file_name()
                || is_archive(&place)
        };
        (tracked.state != State::Active || reader.place().is_some_and(is_out_of_use))
            && begins_with_noise(reader)
    }

    /// Ends an overwritten file: no more of it is read. What stands there now was never a part of
    /// the log, however much it is.
    fn end_overwritten(&mut self, file: FileKey) {
        let Some(tracked) = self.registry.get(file) else { return };
        let (path, inode) = (tracked.opened.path.clone(), tracked.opened.inode);
        let offset = tracked.read_offset;
        let skipped = self.registry.end(file).unwrap_or(0);
        self.drop_stages(file);
        self.readers.remove(&file);
        self.ledger.note(true);
        self.note_overwritten(&path, inode, offset, skipped);
    }

    /// Whether a file with a checkpoint was written over since it was renamed, and has other bytes
    /// now. If so, what was not delivered of the file is counted, and the file is done with.
    pub(super) fn is_overwritten_since(
        &mut self,
        saved: &Checkpoint,
        path: &Path,
        reader: &Reader<O::File>,
        stat: &Stat,
    ) -> bool {
        // Where births are not known it may be another file with the same inode.
        let is_it = saved.born != 0 && saved.born == stat.born && stat.size >= saved.offset;
        let is_out_of_use = path.file_name() != saved.path.file_name() || is_archive(path);
        if !is_it || !is_out_of_use || !begins_with_noise(reader) {
            return false;
        }
        // It is judged again whenever it changes, and told of once.
        if !saved.is_done {
            let skipped = saved.rest.unwrap_or(0);
            self.counters.seen_bytes = self.counters.seen_bytes.saturating_add(skipped);
            self.note_overwritten(&saved.path, saved.inode, saved.offset, skipped);
        }
        self.catalog.put_overwritten(saved.clone());
        true
    }

    /// Whether a file that nobody knows was compressed and is written over before it is deleted: the text
    /// stands beside it.
    pub(super) fn is_shredded(&mut self, place: &Path, reader: &Reader<O::File>) -> bool {
        if !is_archive(place) || !begins_with_noise(reader) {
            return false;
        }
        let compressed = |ending| {
            let mut path = place.as_os_str().to_owned();
            path.push(ending);
            self.os.lstat(Path::new(&path)).is_ok_and(|facts| facts.is_regular())
        };
        let is_it = !reader.is_unpacked() && COMPRESSED.into_iter().any(compressed);
        if is_it && let Ok(stat) = reader.stat() {
            self.note_overwritten(place, stat.inode, 0, 0);
        }
        is_it
    }

    fn note_overwritten(&mut self, path: &Path, inode: u64, offset: u64, skipped: u64) {
        let counted = &mut self.counters.skipped_overwritten_bytes;
        *counted = counted.saturating_add(skipped);
        if self.said.admits(Kind::Overwritten) {
            tracing::warn!(
                file = %path.display(), inode, offset, skipped,
                "other bytes were written over it in its place, as by shred; it is not read any more"
            );
        }
    }
}

/// Whether a file has the name of an archive.
fn is_archive(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default();
    !names::bases(name.as_bytes()).is_empty()
}

/// Whether the first bytes of a file are no text.
fn begins_with_noise(reader: &Reader<impl OsFile>) -> bool {
    let mut buffer = [0; HEAD_BYTES_MAX];
    reader.read_once(&mut buffer, 0).is_ok_and(is_noise)
}

/// Whether bytes are random, or a pattern of three without a line end, rather than text.
fn is_noise(bytes: &[u8]) -> bool {
    let is_control =
        |byte: &&u8| byte.is_ascii_control() && !b"\t\n\x0b\x0c\r\x1b\0".contains(byte);
    let is_random = bytes.iter().filter(is_control).count() * TEXT_BYTES_PER_CONTROL > bytes.len();
    let is_pattern = || bytes.len() == HEAD_BYTES_MAX && bytes[3..] == bytes[..bytes.len() - 3];
    is_random || (is_pattern() && !bytes.contains(&b'\n'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_is_no_text_and_text_is_no_noise() {
        let mut rng = fastrand::Rng::with_seed(1);
        for _ in 0..1000 {
            let noise: Vec<u8> = (0..HEAD_BYTES_MAX).map(|_| rng.u8(..)).collect();
            assert!(is_noise(&noise));
        }
        for pattern in [[0x55; 3], [0x92, 0x49, 0x24], [0xff; 3], [b'a', b'b', b'c']] {
            assert!(is_noise(&pattern.repeat(HEAD_BYTES_MAX / 3 + 1)[..HEAD_BYTES_MAX]));
        }
        let gbk = [0xc8, 0xd5, 0xd6, 0xbe, b'\n'].repeat(200);
        let nuls = [[0; 500], [b'a'; 500]].concat();
        let colours = b"\x1b[31mred\x1b[0m\r\n".repeat(50);
        for text in
            [&b""[..], b"one\ntwo\n", "größer\n".as_bytes(), &gbk, &nuls, &colours, &[b'\n'; 1024]]
        {
            assert!(!is_noise(text), "{}", text.escape_ascii());
        }
    }
}
