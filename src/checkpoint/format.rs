//! The checkpoint file: encoding and decoding.
//!
//! Pure. Numbers are little-endian.
//!
//! ```text
//! "LFCKPT\r\n"            8  a transfer that mends line ends would be noticed
//! version                 4  2; version 1 is read
//! generation              8  grows by one with each save; the newest intact file wins
//! count                   4  entries
//! entry × count
//!   length                4  of what follows in this entry; a reader may skip what it does not know
//!   device inode offset  24  everything below `offset` is acknowledged
//!   head tail            16  fingerprints: length and CRC-32 of the first bytes, and of those
//!                            just before `offset`
//!   seen                  8  Unix seconds: when the file was last there
//!   path                4+n  as configured, links not resolved
//!   resolved            4+n  where it really was
//!   born                  8  when it was made, in nanoseconds since 1970; 0 for not known
//!   flags                 4  bit 0: done (see `Checkpoint::is_done`); bit 1: nothing above `offset`;
//!                            bit 2: a copy; bit 3: told to be missing
//!   looked_at             8  when names were last looked at, in nanoseconds since 1970
//!   gone_at               8  not in version 1: see `Checkpoint::gone_at`
//!   process               4  not in version 1: see `Checkpoint::process`
//!   owner               4+n  not in version 1: name of the collection; empty for not known
//!   trail            4+16×n  not in version 1: offsets and the fingerprints before them
//!   count                 4  ranges above `offset`; left out, with all that follows, if there are none
//!                            and `rest` is nothing or not known
//!   range × count
//!     start end          16  the bytes, and
//!     first records       8  which of their records
//!     line_bytes_max      4  as which they were cut into records
//!     tail                8  fingerprint of the bytes just before `end`
//!     flags               4  bit 0: done; else assigned to
//!     key sequence       24  a hash key and a sequence id
//!   rest                  8  bytes above `offset`; left out if bit 1 says that there are none, or if
//!                            that is not known
//! CRC-32                  4  of all bytes before it
//! ```

use std::borrow::Cow;
use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::PathBuf;
use std::sync::Arc;

use crc32fast::Hasher;

use crate::base::fingerprint::Fingerprint;

/// How every checkpoint file begins.
pub(super) const MAGIC: &[u8; 8] = b"LFCKPT\r\n";
const VERSION: u32 = 2;
/// The version whose entries name no owner, and do not say when a text went away.
const VERSION_WITHOUT_OWNERS: u32 = 1;
/// Bytes of the pieces in which a file is written, or a little more.
const PIECE_BYTES: usize = 64 << 10;
/// The flag of [`Checkpoint::is_done`].
const DONE: u32 = 1;
/// The flag of a [`Checkpoint::rest`] of no bytes.
const NO_REST: u32 = 1 << 1;
/// The flag of [`Checkpoint::is_copy`].
const COPY: u32 = 1 << 2;
/// The flag of [`Checkpoint::is_told`].
const TOLD: u32 = 1 << 3;

/// How far one file has been delivered, and how to know it again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checkpoint {
    /// Path as configured, links not resolved.
    pub path: PathBuf,
    /// Path at which the file really was when it was last seen, links resolved.
    pub resolved: PathBuf,
    /// Device number. May change when the disk is mounted elsewhere.
    pub device: u64,
    /// Inode number; 0 if the file is gone and only a copy of its bytes could be met.
    pub inode: u64,
    /// When the file was made (statx(2), `btime`), in nanoseconds since 1970; 0 for not known.
    pub born: i64,
    /// Offset below which every byte is acknowledged.
    pub offset: u64,
    /// The first bytes of the file.
    pub head: Fingerprint,
    /// The bytes just before `offset`.
    pub tail: Fingerprint,
    /// When the file was last there, in Unix seconds.
    pub seen_unix: u64,
    /// Whether the file was delivered and closed. The agent knows it again when it meets it, and
    /// does not search for it.
    pub is_done: bool,
    /// Bytes above `offset` that were to be delivered when it was last looked at; `None` where that
    /// is not known.
    pub rest: Option<u64>,
    /// Whether the file is a copy of another one. The copy was as long as `offset` when the agent
    /// met it; of what it holds above that, more may be delivered.
    pub is_copy: bool,
    /// Whether the agent has said that the file was found nowhere and not delivered to its end.
    pub is_told: bool,
    /// When the names in its directory were last looked at, in nanoseconds since 1970: what is born
    /// later has not been seen.
    pub looked_at: i64,
    /// When the bytes were known to have gone away, in nanoseconds since 1970: what is born later is no
    /// copy of them. 0 if they are there, or if that is not known.
    pub gone_at: i64,
    /// The collection that the file belongs to; `None` where that is not known: then it belongs to
    /// whichever finds its path.
    pub owner: Option<Arc<str>>,
    /// Which rules the ranges were made into records by; a number that grows with each change of them.
    pub process: u32,
    /// Places below `offset` at which readings ended, with the fingerprints of the bytes before each: a copy
    /// that is shorter than what was delivered is known by one of them.
    pub trail: Vec<(u64, Fingerprint)>,
    /// What was sent, or may have been, of the bytes above `offset`, in order. Only where each line
    /// is to arrive exactly once.
    pub ranges: Vec<Range>,
}

/// Some records of a range of bytes that were sent under an id, or may have been.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// Offset of the first byte.
    pub start: u64,
    /// Offset just past the last byte.
    pub end: u64,
    /// Which record of these bytes is the first one.
    pub first: u32,
    /// How many records of these bytes were sent.
    pub records: u32,
    /// Most bytes of a line that was not cut when the range was read. The same bytes make the same
    /// records only with the same limit.
    pub line_bytes_max: u32,
    /// The bytes just before `end`.
    pub tail: Fingerprint,
    /// Whether the records have arrived.
    pub state: RangeState,
}

/// Whether a range has arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RangeState {
    /// The records have arrived.
    Done,
    /// The records may have arrived, and the service knows under which id.
    Assigned {
        /// Hash key.
        key: u128,
        /// Sequence id.
        sequence: u64,
    },
}

/// Why bytes are no checkpoint file.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// Fewer bytes than the least file, or than its entries claim.
    #[error("it is cut off after {0} bytes")]
    Short(usize),
    /// The first bytes are not those of a checkpoint file.
    #[error("it does not begin like a checkpoint file")]
    Magic,
    /// Written by a newer program.
    #[error("it has version {0}, and this program reads version {VERSION}")]
    Version(u32),
    /// The check sum is another than that of the bytes.
    #[error("its check sum is {found:08x} and should be {expected:08x}")]
    Crc {
        /// The check sum that was computed from the bytes.
        found: u32,
        /// The check sum that is stored in the file.
        expected: u32,
    },
}

/// Encodes a checkpoint file.
///
/// # Panics
/// Never: there is always room in memory.
#[must_use]
pub fn encode(generation: u64, checkpoints: &[Checkpoint]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let entries = checkpoints.iter().map(Cow::Borrowed);
    write(&mut bytes, generation, checkpoints.len(), entries)
        .expect("memory takes what it is given");
    bytes
}

/// Writes a checkpoint file of so many entries, a piece after the other, so that there are never copies
/// of all of them. Returns its length.
///
/// # Errors
/// As writing; and if there are not as many entries as was said.
pub fn write<'a>(
    out: &mut impl io::Write,
    generation: u64,
    count: usize,
    entries: impl Iterator<Item = Cow<'a, Checkpoint>>,
) -> io::Result<u64> {
    let (mut piece, mut hasher, mut len, mut written) = (Vec::new(), Hasher::new(), 0, 0);
    let mut flush = |piece: &mut Vec<u8>, hasher: &mut Hasher| {
        hasher.update(piece);
        len += piece.len() as u64;
        out.write_all(piece)?;
        piece.clear();
        io::Result::Ok(())
    };
    piece.extend_from_slice(MAGIC);
    piece.extend_from_slice(&VERSION.to_le_bytes());
    piece.extend_from_slice(&generation.to_le_bytes());
    put_len(&mut piece, count);
    for entry in entries {
        encode_entry(&mut piece, &entry);
        written += 1;
        if piece.len() >= PIECE_BYTES {
            flush(&mut piece, &mut hasher)?;
        }
    }
    if written != count {
        return Err(io::Error::other(format!("{written} checkpoints instead of {count}")));
    }
    flush(&mut piece, &mut hasher)?;
    let crc = hasher.clone().finalize();
    piece.extend_from_slice(&crc.to_le_bytes());
    flush(&mut piece, &mut hasher)?;
    Ok(len)
}

fn encode_entry(bytes: &mut Vec<u8>, entry: &Checkpoint) {
    let at = bytes.len();
    bytes.extend_from_slice(&[0; 4]);
    for number in [entry.device, entry.inode, entry.offset] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    for fingerprint in [entry.head, entry.tail] {
        bytes.extend_from_slice(&fingerprint.len.to_le_bytes());
        bytes.extend_from_slice(&fingerprint.crc32.to_le_bytes());
    }
    bytes.extend_from_slice(&entry.seen_unix.to_le_bytes());
    for path in [&entry.path, &entry.resolved] {
        let path = path.as_os_str().as_bytes();
        put_len(bytes, path.len());
        bytes.extend_from_slice(path);
    }
    bytes.extend_from_slice(&entry.born.to_le_bytes());
    let flags = [
        (entry.is_done, DONE),
        (entry.rest == Some(0), NO_REST),
        (entry.is_copy, COPY),
        (entry.is_told, TOLD),
    ];
    let flags = flags.iter().filter(|(is_set, _)| *is_set).fold(0, |all, (_, flag)| all | flag);
    bytes.extend_from_slice(&flags.to_le_bytes());
    bytes.extend_from_slice(&entry.looked_at.to_le_bytes());
    bytes.extend_from_slice(&entry.gone_at.to_le_bytes());
    bytes.extend_from_slice(&entry.process.to_le_bytes());
    let owner = entry.owner.as_deref().unwrap_or_default();
    put_len(bytes, owner.len());
    bytes.extend_from_slice(owner.as_bytes());
    put_len(bytes, entry.trail.len());
    for (offset, before) in &entry.trail {
        bytes.extend_from_slice(&offset.to_le_bytes());
        bytes.extend_from_slice(&before.len.to_le_bytes());
        bytes.extend_from_slice(&before.crc32.to_le_bytes());
    }
    let rest = entry.rest.filter(|rest| *rest > 0);
    if !entry.ranges.is_empty() || rest.is_some() {
        put_len(bytes, entry.ranges.len());
        entry.ranges.iter().for_each(|range| encode_range(bytes, range));
    }
    if let Some(rest) = rest {
        bytes.extend_from_slice(&rest.to_le_bytes());
    }
    let len =
        u32::try_from(bytes.len() - at - 4).expect("two paths and what is in flight are short");
    bytes[at..at + 4].copy_from_slice(&len.to_le_bytes());
}

fn encode_range(bytes: &mut Vec<u8>, range: &Range) {
    let (flags, key, sequence) = match range.state {
        RangeState::Done => (DONE, 0, 0),
        RangeState::Assigned { key, sequence } => (0, key, sequence),
    };
    for number in [range.start, range.end] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    let Fingerprint { len, crc32 } = range.tail;
    for number in [range.first, range.records, range.line_bytes_max, len, crc32, flags] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    bytes.extend_from_slice(&key.to_le_bytes());
    bytes.extend_from_slice(&sequence.to_le_bytes());
}

fn put_len(bytes: &mut Vec<u8>, len: usize) {
    let len = u32::try_from(len).expect("a checkpoint file is far below 4 GiB");
    bytes.extend_from_slice(&len.to_le_bytes());
}

/// Decodes the generation and the entries of a checkpoint file.
///
/// # Errors
/// If the bytes are anything but a whole, undamaged file of a known version.
pub fn decode(bytes: &[u8]) -> Result<(u64, Vec<Checkpoint>), FormatError> {
    let (version, generation, mut reader) = open(bytes)?;
    let count = reader.u32()?;
    let mut owners = Owners::default();
    let entry = |_| decode_entry(&mut reader, version, &mut owners);
    let checkpoints = (0..count).map(entry).collect::<Result<_, _>>()?;
    Ok((generation, checkpoints))
}

/// The generation of a checkpoint file, of which no entry is looked at.
///
/// # Errors
/// If the bytes are not whole, are damaged, or are of a newer version.
pub(super) fn generation(bytes: &[u8]) -> Result<u64, FormatError> {
    open(bytes).map(|(_, generation, _)| generation)
}

/// The version, the generation, and what follows them.
fn open(bytes: &[u8]) -> Result<(u32, u64, Reader<'_>), FormatError> {
    let short = FormatError::Short(bytes.len());
    let (body, crc) = bytes.split_last_chunk::<4>().ok_or(short)?;
    let mut reader = Reader { left: body, len: bytes.len() };
    if reader.take(MAGIC.len())? != MAGIC {
        return Err(FormatError::Magic);
    }
    let (found, expected) = (crc32fast::hash(body), u32::from_le_bytes(*crc));
    if found != expected {
        return Err(FormatError::Crc { found, expected });
    }
    let version = reader.u32()?;
    if version != VERSION && version != VERSION_WITHOUT_OWNERS {
        return Err(FormatError::Version(version));
    }
    Ok((version, reader.u64()?, reader))
}

/// The names of collections, each once: many files belong to few.
#[derive(Default)]
struct Owners(Vec<Arc<str>>);

impl Owners {
    fn name(&mut self, bytes: &[u8]) -> Option<Arc<str>> {
        let text = String::from_utf8_lossy(bytes);
        if text.is_empty() {
            return None;
        }
        if let Some(known) = self.0.iter().find(|known| known.as_ref() == text) {
            return Some(Arc::clone(known));
        }
        let name: Arc<str> = text.into();
        self.0.push(Arc::clone(&name));
        Some(name)
    }
}

fn decode_entry(
    reader: &mut Reader<'_>,
    version: u32,
    owners: &mut Owners,
) -> Result<Checkpoint, FormatError> {
    let len = reader.u32()? as usize;
    let mut entry = Reader { left: reader.take(len)?, len: reader.len };
    let mut checkpoint = Checkpoint {
        device: entry.u64()?,
        inode: entry.u64()?,
        offset: entry.u64()?,
        head: Fingerprint { len: entry.u32()?, crc32: entry.u32()? },
        tail: Fingerprint { len: entry.u32()?, crc32: entry.u32()? },
        seen_unix: entry.u64()?,
        path: entry.path()?,
        resolved: entry.path()?,
        born: entry.u64()?.cast_signed(),
        ..Checkpoint::default()
    };
    let flags = entry.u32()?;
    checkpoint.is_done = flags & DONE != 0;
    checkpoint.is_copy = flags & COPY != 0;
    checkpoint.is_told = flags & TOLD != 0;
    checkpoint.looked_at = entry.u64()?.cast_signed();
    if version != VERSION_WITHOUT_OWNERS {
        checkpoint.gone_at = entry.u64()?.cast_signed();
        checkpoint.process = entry.u32()?;
        let len = entry.u32()? as usize;
        checkpoint.owner = owners.name(entry.take(len)?);
        for _ in 0..entry.u32()? {
            let offset = entry.u64()?;
            let before = Fingerprint { len: entry.u32()?, crc32: entry.u32()? };
            checkpoint.trail.push((offset, before));
        }
    }
    if !entry.left.is_empty() {
        checkpoint.ranges = decode_ranges(&mut entry)?;
    }
    checkpoint.rest = match () {
        () if flags & NO_REST != 0 => Some(0),
        () if entry.left.is_empty() => None,
        () => Some(entry.u64()?),
    };
    Ok(checkpoint)
}

fn decode_ranges(entry: &mut Reader<'_>) -> Result<Vec<Range>, FormatError> {
    let count = entry.u32()?;
    (0..count).map(|_| decode_range(entry)).collect()
}

fn decode_range(entry: &mut Reader<'_>) -> Result<Range, FormatError> {
    let (start, end) = (entry.u64()?, entry.u64()?);
    let (first, records, line_bytes_max) = (entry.u32()?, entry.u32()?, entry.u32()?);
    let tail = Fingerprint { len: entry.u32()?, crc32: entry.u32()? };
    let is_done = entry.u32()? & DONE != 0;
    let (key, sequence) = (entry.array().map(u128::from_le_bytes)?, entry.u64()?);
    let state = if is_done { RangeState::Done } else { RangeState::Assigned { key, sequence } };
    Ok(Range { start, end, first, records, line_bytes_max, tail, state })
}

struct Reader<'a> {
    left: &'a [u8],
    /// Length of the whole file, for the message.
    len: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], FormatError> {
        let (taken, left) = self.left.split_at_checked(len).ok_or(FormatError::Short(self.len))?;
        self.left = left;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], FormatError> {
        Ok(self.take(N)?.try_into().expect("take gives as many as asked"))
    }

    fn u32(&mut self) -> Result<u32, FormatError> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, FormatError> {
        self.array().map(u64::from_le_bytes)
    }

    fn path(&mut self) -> Result<PathBuf, FormatError> {
        let len = self.u32()? as usize;
        Ok(OsString::from_vec(self.take(len)?.to_vec()).into())
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use proptest::prelude::*;

    use super::*;

    prop_compose! {
        fn range()(
            numbers in any::<[u64; 3]>(),
            small in any::<[u32; 5]>(),
            key in any::<u128>(),
            is_done in any::<bool>(),
        ) -> Range {
            let [start, end, sequence] = numbers;
            let [first, records, line_bytes_max, len, crc32] = small;
            let state =
                if is_done { RangeState::Done } else { RangeState::Assigned { key, sequence } };
            let tail = Fingerprint { len, crc32 };
            Range { start, end, first, records, line_bytes_max, tail, state }
        }
    }

    prop_compose! {
        fn checkpoint()(
            numbers in any::<[u64; 4]>(),
            prints in any::<[u32; 4]>(),
            born in any::<i64>(),
            flags in any::<[bool; 3]>(),
            rest in any::<Option<u64>>(),
            looked_at in any::<i64>(),
            path in proptest::collection::vec(any::<u8>(), 0..40),
            resolved in proptest::collection::vec(any::<u8>(), 0..40),
            ranges in proptest::collection::vec(range(), 0..3),
            gone_at in any::<i64>(),
            process in any::<u32>(),
            owner in proptest::option::of("[a-z-]{1,9}"),
            trail in proptest::collection::vec(any::<(u64, u32, u32)>(), 0..3),
        ) -> Checkpoint {
            Checkpoint {
                path: OsString::from_vec(path).into(),
                resolved: OsString::from_vec(resolved).into(),
                device: numbers[0],
                inode: numbers[1],
                offset: numbers[2],
                seen_unix: numbers[3],
                born,
                is_done: flags[0],
                is_copy: flags[1],
                is_told: flags[2],
                rest,
                looked_at,
                gone_at,
                process,
                owner: owner.map(Into::into),
                trail: trail
                    .into_iter()
                    .map(|(at, len, crc32)| (at, Fingerprint { len, crc32 }))
                    .collect(),
                ranges,
                head: Fingerprint { len: prints[0], crc32: prints[1] },
                tail: Fingerprint { len: prints[2], crc32: prints[3] },
            }
        }
    }

    /// A writer that notes how many entries had been asked for at each write.
    struct Pieces<'a> {
        asked: &'a Cell<usize>,
        written: Vec<usize>,
        bytes: Vec<u8>,
    }

    impl io::Write for Pieces<'_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.written.push(self.asked.get());
            self.bytes.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn of_very_many_entries_a_piece_is_held_at_a_time() {
        const MANY: usize = 10_000;
        let one = |number| Checkpoint {
            path: "/logs/app.log".into(),
            inode: number,
            ..Checkpoint::default()
        };
        let asked = Cell::new(0);
        let entries = (1..=MANY as u64).map(|number| {
            asked.set(asked.get() + 1);
            Cow::Owned(one(number))
        });
        let mut out = Pieces { asked: &asked, written: Vec::new(), bytes: Vec::new() };

        let len = write(&mut out, 7, MANY, entries).unwrap();

        let most = out.written.windows(2).map(|two| two[1] - two[0]).max();
        assert!(most.is_some_and(|most| most < MANY / 10), "{:?}", out.written);
        assert_eq!(len, out.bytes.len() as u64);
        let all: Vec<_> = (1..=MANY as u64).map(one).collect();
        assert_eq!(decode(&out.bytes), Ok((7, all)));
    }

    #[test]
    fn as_many_entries_as_were_said_or_an_error() {
        let entries = [Checkpoint::default(), Checkpoint::default()];
        for count in [1, 3] {
            let entries = entries.iter().map(Cow::Borrowed);
            assert!(write(&mut Vec::new(), 7, count, entries).is_err(), "{count}");
        }
    }

    proptest! {
        #[test]
        fn decodes_what_it_encodes(generation in any::<u64>(), entries in proptest::collection::vec(checkpoint(), 0..5)) {
            prop_assert_eq!(decode(&encode(generation, &entries)), Ok((generation, entries)));
        }

        #[test]
        fn says_so_when_cut_off(entries in proptest::collection::vec(checkpoint(), 0..3), at in any::<proptest::sample::Index>()) {
            let bytes = encode(7, &entries);
            prop_assert!(decode(&bytes[..at.index(bytes.len())]).is_err());
        }

        #[test]
        fn says_so_when_a_bit_is_flipped(entries in proptest::collection::vec(checkpoint(), 0..3), at in any::<proptest::sample::Index>()) {
            let mut bytes = encode(7, &entries);
            let bit = at.index(bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(decode(&bytes).is_err());
        }

        #[test]
        fn never_panics_on_other_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(decode(&bytes).is_err());
        }
    }

    /// Encodes as programs did before there were flags and `rest`.
    #[test]
    fn reads_entries_that_say_nothing_of_the_rest() {
        let saved =
            Checkpoint { path: "/a".into(), offset: 7, is_done: true, ..Checkpoint::default() };
        let bytes = encode(1, std::slice::from_ref(&saved));
        let (crc, owner, looked_at, flags) = (4, 8 + 4 + 4 + 4, 8, 4);
        let flags_at = bytes.len() - crc - owner - looked_at - flags;

        assert_eq!(bytes[flags_at..flags_at + 4], DONE.to_le_bytes());
        assert_eq!(decode(&bytes), Ok((1, vec![saved])));
    }

    #[test]
    fn reads_version_1_which_names_no_owner() {
        let saved = Checkpoint { path: "/a".into(), rest: Some(3), ..Checkpoint::default() };
        let entry = Checkpoint { gone_at: 5, process: 2, owner: Some("x".into()), ..saved.clone() };
        let mut bytes = encode(1, &[entry]);
        let (crc, rest, owner) = (4, 4 + 8, 8 + 4 + 4 + 1 + 4);
        let owner_at = bytes.len() - crc - rest - owner;
        bytes.drain(owner_at..owner_at + owner);
        bytes.truncate(bytes.len() - crc);
        let (version_at, len_at) = (MAGIC.len(), MAGIC.len() + 4 + 8 + 4);
        bytes[version_at] = 1;
        bytes[len_at] -= u8::try_from(owner).unwrap();
        bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());

        assert_eq!(decode(&bytes), Ok((1, vec![saved])));
    }

    #[test]
    fn names_a_newer_version() {
        let mut bytes = encode(7, &[]);
        bytes.truncate(bytes.len() - 4);
        bytes[8] = 9;
        bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
        assert_eq!(decode(&bytes), Err(FormatError::Version(9)));
    }
}
