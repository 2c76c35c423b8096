//! The text of a gzip file, by position.
//!
//! A rotated log may be compressed before all of it was delivered; its text is then read as if it
//! stood in a file of its own. The stream is decoded forward; reading at an earlier position than
//! the last read began decodes it again from its start. All members of a file are read (RFC 1952,
//! 2.2).
//!
//! # Limits
//! Time: no call decodes more than a slice; what needs more is told to ask again
//! ([`io::ErrorKind::WouldBlock`]). Work: before it is read, all of a file is decoded once, to know
//! its length and what stands at the positions that matter; one with more than `TEXT_BYTES_MAX` of
//! text is refused, so that a small file cannot keep the agent busy for ever. Memory: the decoder
//! (some 45 KiB), a step of compressed bytes, one copy of the last read, and of the text the head
//! and what stands before the marks.

use std::collections::BTreeMap;
use std::io::{self, BufReader, Read};
use std::sync::Arc;

use flate2::bufread::MultiGzDecoder;

use super::os::OsFile;
use super::tracked::FoundAs;
use crate::base::fingerprint::{Fingerprint, HEAD_BYTES_MAX, TAIL_BYTES_MAX};

/// First bytes of a gzip file with deflated text.
const MAGIC: [u8; 3] = [0x1f, 0x8b, 8];
/// Compressed bytes that are read at once, and text bytes that are decoded at once.
const STEP_BYTES: usize = 64 << 10;
/// Most bytes of text that are decoded in one call: some milliseconds.
const SLICE_BYTES: u64 = 1 << 20;
/// Most compressed bytes that are read in one call. They may hold no text, and take as long.
const SLICE_BYTES_PACKED: u64 = 256 << 10;
/// Most bytes of text that one file may have.
const TEXT_BYTES_MAX: u64 = 16 << 30;

/// An open gzip file.
#[derive(Debug)]
pub struct Gzip<F> {
    file: Arc<F>,
    /// Size and time of change of the file when its measuring began.
    as_of: FoundAs,
    /// The decoder; `None` while nothing is to be decoded: then the position is 0.
    decoder: Option<Decoder<F>>,
    /// Position in the text of the next byte that the decoder gives.
    position: u64,
    /// The text that was decoded last and is still wanted; it ends at `position`.
    last: Vec<u8>,
    /// The first bytes of the text: callers ask for them between all others.
    head: Vec<u8>,
    /// The text before positions that callers may ask for, as far as it has been met.
    marks: BTreeMap<u64, Vec<u8>>,
    /// Length of the text in bytes, as measured last; 0 before.
    len: u64,
    is_measured: bool,
    damage: Option<String>,
}

type Decoder<F> = MultiGzDecoder<BufReader<Source<F>>>;

/// The compressed bytes, read by position: the descriptor's own offset belongs to nobody.
#[derive(Debug)]
struct Source<F> {
    file: Arc<F>,
    offset: u64,
    /// Bytes that may still be read in this slice.
    left: u64,
}

impl<F: OsFile> Read for Source<F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let count = self.file.read_at(buffer, self.offset)?;
        self.offset += count as u64;
        self.left = self.left.saturating_sub(count as u64);
        Ok(count)
    }
}

/// Whether a file that begins with these bytes is a gzip file.
#[must_use]
pub fn is_gzip(bytes: &[u8]) -> bool {
    bytes.starts_with(&MAGIC)
}

impl<F: OsFile> Gzip<F> {
    /// Opens a gzip file and decodes the head of its text.
    ///
    /// # Errors
    /// As pread(2), and if a slice of the file does not hold a head.
    pub fn open(file: &Arc<F>) -> io::Result<Self> {
        let mut gzip = Self {
            as_of: as_of(&**file)?,
            decoder: None,
            file: Arc::clone(file),
            position: 0,
            last: Vec::new(),
            head: Vec::new(),
            marks: BTreeMap::new(),
            len: 0,
            is_measured: false,
            damage: None,
        };
        gzip.decode_head()?;
        Ok(gzip)
    }

    /// Whether the text begins with the bytes of `head`.
    #[must_use]
    pub fn has_head(&self, head: Fingerprint) -> bool {
        head.matches_start_of(&self.head)
    }

    /// Marks positions: what stands before them will be asked for, once all is measured.
    pub fn mark(&mut self, positions: impl Iterator<Item = u64>) {
        // What stands before others is in the head.
        let position = self.position;
        self.marks = positions.filter(|&mark| mark > position).map(|at| (at, Vec::new())).collect();
    }

    /// Decodes the next slice to measure the text. Returns whether its length is known now.
    ///
    /// A stream that is damaged or cut off is text up to there ([`Self::damage`]).
    ///
    /// # Errors
    /// As pread(2); [`io::ErrorKind::FileTooLarge`] if there is too much text.
    pub fn measure(&mut self) -> io::Result<bool> {
        self.measure_up_to(TEXT_BYTES_MAX)
    }

    fn measure_up_to(&mut self, text_bytes_max: u64) -> io::Result<bool> {
        let until = self.begin_slice();
        while !self.is_measured && self.position < until {
            let mark = self.marks.range(self.position + 1..).next().map_or(until, |(at, _)| *at);
            let is_end = match self.decode(mark.min(until)) {
                Ok(is_end) => is_end,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if is_damage(&error) => {
                    self.damage = Some(error.to_string());
                    true
                }
                Err(error) => return Err(error),
            };
            // Of what was passed the end is kept: it may be the end of all.
            self.forget_before(self.position.saturating_sub(HEAD_BYTES_MAX as u64));
            if let Some(kept) = self.marks.get_mut(&self.position) {
                let tail = self.last.len().saturating_sub(TAIL_BYTES_MAX);
                kept.extend_from_slice(&self.last[tail..]);
            }
            if is_end {
                self.len = self.position;
                self.marks.insert(self.len, std::mem::take(&mut self.last));
                self.is_measured = true;
            }
        }
        if self.position > text_bytes_max {
            let why = "it unpacks to more than 16 GiB; it is left out";
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, why));
        }
        Ok(self.is_measured)
    }

    /// Measures the text of a file anew that was written to, by the next reads. Until then its
    /// length is what it was. Returns the size and time of change of the file by now.
    ///
    /// # Errors
    /// As fstat(2) and pread(2).
    pub fn measure_again(&mut self) -> io::Result<FoundAs> {
        let as_of = as_of(&*self.file)?;
        self.rewind();
        (self.as_of, self.is_measured, self.damage) = (as_of, false, None);
        self.head.clear();
        self.marks.clear();
        self.decode_head()?;
        Ok(as_of)
    }

    /// Takes the place of `old`, another descriptor of the same file. If the file is as it was,
    /// nothing is measured again. If not, the length is the old one until the text is measured.
    pub fn replace(&mut self, old: &Self) {
        self.len = old.len;
        if old.is_measured && self.as_of == old.as_of {
            self.rewind();
            (self.is_measured, self.damage) = (true, old.damage.clone());
            self.marks.clone_from(&old.marks);
        }
    }

    /// Size and time of change of the file when its measuring began.
    #[must_use]
    pub fn as_of(&self) -> FoundAs {
        self.as_of
    }

    /// Whether the length of the text is known.
    #[must_use]
    pub fn is_measured(&self) -> bool {
        self.is_measured
    }

    /// How the file has changed since it began to be measured.
    ///
    /// # Errors
    /// As fstat(2).
    pub fn change(&self) -> io::Result<Option<Change>> {
        let now = as_of(&*self.file)?;
        Ok(match now {
            _ if now == self.as_of => None,
            _ if now.0 > self.as_of.0 => Some(Change::Grew),
            _ => Some(Change::Rewritten),
        })
    }

    /// Gives up the decoder and all text but its head and its end, once the text was read to its
    /// end. What else is asked for is decoded anew. Returns whether there was something to give up.
    pub fn release(&mut self) -> bool {
        let is_held = !self.is_released();
        if is_held && self.is_measured {
            self.rewind();
            self.marks = self.marks.split_off(&self.len);
        }
        is_held
    }

    /// Whether only the head and the end of the text are held.
    #[must_use]
    pub fn is_released(&self) -> bool {
        self.is_measured && self.decoder.is_none()
    }

    /// The file itself.
    pub(super) fn file(&self) -> Arc<F> {
        Arc::clone(&self.file)
    }

    /// Length of the text in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there is no text.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Why the text ends where it does, if that is not where it should end.
    #[must_use]
    pub fn damage(&self) -> Option<&str> {
        self.damage.as_deref()
    }

    /// Reads text from `offset` until `buffer` is full or the text ends. If the stream turns out to
    /// be damaged, the text ends there.
    ///
    /// # Errors
    /// As pread(2); [`io::ErrorKind::WouldBlock`] if a slice was not enough: ask again.
    pub fn read_at(&mut self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        if !self.is_measured {
            self.measure()?;
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let end = self.len.min(offset.saturating_add(buffer.len() as u64));
        if offset >= end {
            return Ok(0);
        }
        if let Some(kept) = self.kept(offset, end) {
            buffer[..kept.len()].copy_from_slice(kept);
            return Ok(kept.len());
        }
        if offset < self.position - self.last.len() as u64 {
            self.rewind();
        }
        self.decode_to(offset, end)?;
        let count = self.last.len().min(buffer.len());
        buffer[..count].copy_from_slice(&self.last[..count]);
        Ok(count)
    }

    /// Text that is kept in the head or before a mark, if all that is wanted is: then nothing is to
    /// be decoded.
    fn kept(&self, start: u64, end: u64) -> Option<&[u8]> {
        let head = (self.head.len() as u64, &self.head);
        let marked = self.marks.range(end..).next().map(|(at, kept)| (*at, kept));
        [Some(head), marked].into_iter().flatten().find_map(|(at, kept)| {
            let begin = at - kept.len() as u64;
            let index = |at: u64| usize::try_from(at.checked_sub(begin)?).ok();
            kept.get(index(start)?..index(end)?)
        })
    }

    /// Decodes until all of `[offset, end)` is in `last`, and nothing before it.
    fn decode_to(&mut self, offset: u64, end: u64) -> io::Result<()> {
        let slice_end = self.begin_slice();
        self.forget_before(offset);
        while self.position < end {
            if self.position >= slice_end {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            if self.position >= offset {
                let wanted = usize::try_from(end - offset).unwrap_or(usize::MAX);
                self.last.reserve_exact(wanted.saturating_sub(self.last.len()));
            }
            let is_end = match self.decode(end.min(slice_end)) {
                Err(error) if is_damage(&error) => {
                    self.damage.get_or_insert_with(|| error.to_string());
                    true
                }
                outcome => outcome?,
            };
            self.forget_before(offset);
            if is_end {
                // It was longer when it was measured.
                self.len = self.position;
                break;
            }
        }
        Ok(())
    }

    fn decode_head(&mut self) -> io::Result<()> {
        let _ = self.begin_slice();
        while self.position < HEAD_BYTES_MAX as u64 {
            match self.decode(HEAD_BYTES_MAX as u64) {
                Ok(false) => {}
                Ok(true) => break,
                Err(error) if is_damage(&error) => {
                    self.damage = Some(error.to_string());
                    break;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Err(io::Error::other("it holds too little text for its size"));
                }
                Err(error) => return Err(error),
            }
        }
        self.head.clone_from(&self.last);
        Ok(())
    }

    /// Decodes a step, at most up to position `until`. Returns whether the text ends there.
    fn decode(&mut self, until: u64) -> io::Result<bool> {
        let step = until.saturating_sub(self.position).min(STEP_BYTES as u64);
        let before = self.last.len();
        let decoder = self.decoder.get_or_insert_with(|| decoder(&self.file));
        let outcome = decoder.take(step).read_to_end(&mut self.last);
        let count = (self.last.len() - before) as u64;
        self.position += count;
        outcome.map(|_| count < step)
    }

    /// Begins a slice, and returns the position up to which it goes.
    fn begin_slice(&mut self) -> u64 {
        self.decoder().get_mut().get_mut().left = SLICE_BYTES_PACKED;
        self.position + SLICE_BYTES
    }

    fn forget_before(&mut self, offset: u64) {
        let begin = self.position - self.last.len() as u64;
        let count = usize::try_from(offset.saturating_sub(begin)).unwrap_or(usize::MAX);
        self.last.drain(..count.min(self.last.len()));
    }

    fn decoder(&mut self) -> &mut Decoder<F> {
        self.decoder.get_or_insert_with(|| decoder(&self.file))
    }

    fn rewind(&mut self) {
        self.decoder = None;
        self.position = 0;
        self.last = Vec::new();
    }
}

/// How a file has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The file has more bytes; those that were there may be the same.
    Grew,
    /// The file has other bytes, or fewer.
    Rewritten,
}

fn as_of(file: &impl OsFile) -> io::Result<FoundAs> {
    let facts = file.facts()?;
    Ok((facts.size, facts.modified))
}

fn decoder<F: OsFile>(file: &Arc<F>) -> Decoder<F> {
    // To make a decoder reads a header already.
    let source = Source { file: Arc::clone(file), offset: 0, left: SLICE_BYTES_PACKED };
    MultiGzDecoder::new(BufReader::with_capacity(STEP_BYTES, source))
}

/// Whether an error is the decoder's word for bytes that are no gzip stream, or for one that is cut
/// off.
fn is_damage(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidData, InvalidInput, UnexpectedEof};
    matches!(error.kind(), InvalidData | InvalidInput | UnexpectedEof)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Seek as _, Write as _};

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn packed(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn file(bytes: &[u8]) -> Arc<File> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        Arc::new(file)
    }

    fn opened(bytes: &[u8]) -> Gzip<File> {
        let mut gzip = Gzip::open(&file(bytes)).unwrap();
        while !gzip.measure().unwrap() {}
        gzip
    }

    fn text(len: usize) -> Vec<u8> {
        (0..len).map(|at| b"abcdefghij\n"[(at * at / 7) % 11]).collect()
    }

    /// Reads, with as many calls as it takes.
    fn read(gzip: &mut Gzip<File>, offset: u64, len: usize) -> Vec<u8> {
        let mut buffer = vec![0; len];
        loop {
            match gzip.read_at(&mut buffer, offset) {
                Ok(count) => return buffer[..count].to_vec(),
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
        }
    }

    #[test]
    fn what_was_released_is_decoded_anew_where_it_is_asked_for() {
        let text: Vec<u8> = (0..100_000u32).flat_map(|n| format!("{n}\n").into_bytes()).collect();
        let mut file = tempfile::tempfile().unwrap();
        let mut encoder = GzEncoder::new(&mut file, Compression::fast());
        encoder.write_all(&text).unwrap();
        encoder.finish().unwrap();
        let mut gzip = Gzip::open(&Arc::new(file)).unwrap();
        while !gzip.measure().unwrap() {}
        assert!(!gzip.is_released());

        assert!(gzip.release() && gzip.is_released() && !gzip.release());

        let (mut buffer, end) = (vec![0; 200], text.len());
        assert_eq!(gzip.read_at(&mut buffer, end as u64 - 200).unwrap(), 200);
        assert_eq!(buffer, text[end - 200..]);
        assert!(gzip.is_released(), "the end is kept");
        while gzip.read_at(&mut buffer, 50_000).is_err() {}
        assert_eq!(buffer, text[50_000..50_200]);
        assert!(!gzip.is_released());
    }

    #[test]
    fn reads_text_at_any_position() {
        let text = text(3_000_000);
        let mut gzip = opened(&packed(&text));

        assert_eq!((gzip.len(), gzip.damage()), (3_000_000, None));
        for (offset, len) in [
            (0, 1000),
            (500, 1000),
            (900, 100),
            (250_000, 1000),
            (249_999, 10),
            (2_500_000, 10),
            (3, 10),
            (3, 2_000_000),
            (2_999_999, 9),
            (3_000_000, 9),
            (4_000_000, 9),
        ] {
            let at = usize::try_from(offset).unwrap().min(text.len());
            let expected = &text[at..(at + len).min(text.len())];
            assert!(read(&mut gzip, offset, len) == expected, "{len} at {offset}");
        }
    }

    #[test]
    fn no_call_decodes_more_than_a_slice() {
        let empty_members = packed(b"").repeat(50_000);
        for bytes in [packed(&text(5 << 20)), [packed(&text(9999)), empty_members].concat()] {
            let mut gzip = Gzip::open(&file(&bytes)).unwrap();
            let mut calls = 1;
            let mut before = (gzip.position, gzip.decoder().get_ref().get_ref().offset);
            while !gzip.measure().unwrap() {
                let after = (gzip.position, gzip.decoder().get_ref().get_ref().offset);
                assert!(after.0 - before.0 <= SLICE_BYTES);
                assert!(after.1 - before.1 <= SLICE_BYTES_PACKED + STEP_BYTES as u64);
                (before, calls) = (after, calls + 1);
            }
            assert!(calls > 3, "{calls} calls");
        }
        let mut gzip = opened(&packed(&text(5 << 20)));
        assert!(gzip.read_at(&mut [0; 9], 4 << 20).is_err(), "it is not there at once");
        assert!(Gzip::open(&file(&packed(b"").repeat(20_000))).is_err(), "no head in a slice");
    }

    #[test]
    fn what_stands_at_marks_is_read_without_decoding_it_again() {
        let text = text(3_000_000);
        let mut file = file(&packed(&text));
        let mut gzip = Gzip::open(&file).unwrap();
        gzip.mark([500, 1_000_000, 1_000_100, 9_000_000].into_iter());
        while !gzip.measure().unwrap() {}
        // From here on nothing can be decoded from the start.
        file.seek(io::SeekFrom::Start(0)).unwrap();
        file.write_all(b"garbage").unwrap();

        for (start, end) in [
            (0, 1024),
            (244, 500),
            (999_744, 1_000_000),
            (999_844, 1_000_100),
            (2_999_744, 3_000_000),
            (2_998_976, 3_000_000),
        ] {
            let mut buffer = vec![0; end - start];
            let count = gzip.read_at(&mut buffer, start as u64).unwrap();
            assert!(buffer[..count] == text[start..end], "{start}..{end}");
        }
    }

    #[test]
    fn looking_at_the_head_decodes_nothing_again() {
        let text = text(3_000_000);
        let mut file = file(&packed(&text));
        let mut gzip = Gzip::open(&file).unwrap();
        while !gzip.measure().unwrap() {}
        assert_eq!(read(&mut gzip, 2_000_000, 40), &text[2_000_000..2_000_040]);
        file.seek(io::SeekFrom::Start(0)).unwrap();
        file.write_all(b"garbage").unwrap();

        assert_eq!(read(&mut gzip, 0, 1024), &text[..1024]);
        assert_eq!(read(&mut gzip, 2_000_000, 50), &text[2_000_000..2_000_050]);
    }

    #[test]
    fn refuses_too_much_text() {
        let measure = |most| {
            let mut gzip = Gzip::open(&file(&packed(&text(200_000)))).unwrap();
            gzip.measure_up_to(most).map_err(|error| error.kind())
        };
        assert_eq!(measure(200_000), Ok(true));
        assert_eq!(measure(100_000), Err(io::ErrorKind::FileTooLarge));
    }

    #[test]
    fn reads_all_members() {
        let mut gzip = opened(&[packed(b"one\n"), packed(b""), packed(b"two\n")].concat());
        assert_eq!(read(&mut gzip, 0, 99), b"one\ntwo\n");
    }

    #[test]
    fn reads_up_to_where_a_stream_is_damaged() {
        let whole = [packed(b"one\n"), packed(&text(200_000))].concat();
        let mut broken = whole.clone();
        broken[whole.len() / 2] ^= 0xff;
        for bytes in
            [&whole[..whole.len() / 2], &broken, &[&packed(b"one\n")[..], b"garbage"].concat()]
        {
            let mut gzip = opened(bytes);
            assert!(gzip.damage().is_some() && gzip.len() >= 4);
            let mut text = Vec::new();
            while (text.len() as u64) < gzip.len() {
                text.extend(read(&mut gzip, text.len() as u64, 999));
            }
            assert!(text.starts_with(b"one\n"));
        }
        let gzip = opened(&packed(b"one\n")[..5]);
        assert!(gzip.damage().is_some() && gzip.is_empty());
        assert!(!is_gzip(b"one\n") && !is_gzip(b""));
    }

    #[test]
    fn text_ends_where_the_file_was_written_over() {
        let text: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(..)).take(3_000_000).collect();
        let mut file = file(&packed(&text));
        let mut gzip = Gzip::open(&file).unwrap();
        while !gzip.measure().unwrap() {}
        assert!(read(&mut gzip, 0, 4096) == text[..4096]);
        assert_eq!(gzip.change().unwrap(), None);
        file.set_len(2_000_000).unwrap();

        assert_eq!(gzip.change().unwrap(), Some(Change::Rewritten));
        assert!(read(&mut gzip, 4096, 2_900_000).len() < 2_000_000);
        assert!(gzip.len() < 2_000_000, "{}", gzip.len());
        assert!(gzip.damage().is_some());

        file.set_len(0).unwrap();
        file.seek(io::SeekFrom::Start(0)).unwrap();
        file.write_all(&packed(b"anew\n")).unwrap();
        gzip.measure_again().unwrap();
        assert_eq!(read(&mut gzip, 0, 99), b"anew\n");
        assert_eq!((gzip.len(), gzip.damage(), gzip.change().unwrap()), (5, None, None));
    }
}
