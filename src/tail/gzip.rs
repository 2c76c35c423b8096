//! The text of a gzip file, by position.
//!
//! A rotated log may be compressed before all of it was delivered; its text is then read as if it
//! stood in a file of its own. The stream is decoded forward; reading at an earlier position than
//! the last read began decodes it again from its start. All members of a file are read (RFC 1952,
//! 2.2).
//!
//! # Limits
//! Memory: the decoder, one copy of the last read, and the head. Work: opening decodes the whole file once, to
//! know its length; a file with more than [`TEXT_BYTES_MAX`] of text is refused, so that a small
//! file cannot keep the agent busy for ever.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::FileExt as _;

use flate2::bufread::MultiGzDecoder;

use crate::fingerprint::HEAD_BYTES_MAX;

/// What a gzip file with deflated text begins with.
const MAGIC: [u8; 3] = [0x1f, 0x8b, 8];
/// Text decoded at once while searching.
const STEP_BYTES: usize = 64 << 10;
/// Most text of one file.
const TEXT_BYTES_MAX: u64 = 16 << 30;

/// An open gzip file.
#[derive(Debug)]
pub struct Gzip {
    decoder: Decoder,
    /// Position in the text of the next byte that the decoder gives.
    position: u64,
    /// The text of the last read; it ends at `position`.
    last: Vec<u8>,
    /// The first bytes of the text: they are asked for between all others.
    head: Vec<u8>,
    /// Length of the text.
    len: u64,
    damage: Option<String>,
}

type Decoder = MultiGzDecoder<BufReader<Source>>;

/// The compressed bytes, read by position: the descriptor's own offset belongs to nobody.
#[derive(Debug)]
struct Source {
    file: File,
    offset: u64,
}

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(buffer, self.offset)?;
        self.offset += count as u64;
        Ok(count)
    }
}

/// Whether a file is a gzip file.
///
/// # Errors
/// As pread(2).
pub fn is_gzip(file: &File) -> io::Result<bool> {
    let mut magic = [0; MAGIC.len()];
    let count = file.read_at(&mut magic, 0)?;
    Ok(count == MAGIC.len() && magic == MAGIC)
}

impl Gzip {
    /// Opens the text of a gzip file and measures it. *Cost*: decodes all of it.
    ///
    /// A stream that is damaged or cut off is text up to there ([`Self::damage`]).
    ///
    /// # Errors
    /// As pread(2); if there is too much text.
    pub fn open(file: &File) -> io::Result<Self> {
        let decoder = decoder(file)?;
        let mut gzip = Self {
            decoder,
            position: 0,
            last: Vec::new(),
            head: Vec::new(),
            len: u64::MAX,
            damage: None,
        };
        let mut buffer = vec![0; STEP_BYTES];
        loop {
            match gzip.decoder.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => {
                    gzip.position += count as u64;
                    let missing = (HEAD_BYTES_MAX - gzip.head.len()).min(count);
                    gzip.head.extend_from_slice(&buffer[..missing]);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if is_damage(&error) => {
                    gzip.damage = Some(error.to_string());
                    break;
                }
                Err(error) => return Err(error),
            }
            if gzip.position > TEXT_BYTES_MAX {
                return Err(io::Error::other("it unpacks to more than 16 GiB"));
            }
        }
        gzip.len = gzip.position;
        gzip.rewind(file)?;
        Ok(gzip)
    }

    /// Length of the text.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there is no text.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Why the text ends where it does, if that is not its proper end.
    #[must_use]
    pub fn damage(&self) -> Option<&str> {
        self.damage.as_deref()
    }

    /// Reads text from `offset` until `buffer` is full or the text ends.
    ///
    /// # Errors
    /// As pread(2).
    pub fn read_at(&mut self, file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        if offset >= self.len {
            return Ok(0);
        }
        if let Some(kept) = self.kept_head(offset, buffer.len()) {
            buffer[..kept.len()].copy_from_slice(kept);
            return Ok(kept.len());
        }
        if offset < self.position - self.last.len() as u64 {
            self.rewind(file)?;
        }
        let wanted = usize::try_from(self.len - offset).unwrap_or(usize::MAX);
        let buffer_len = buffer.len().min(wanted);
        let buffer = &mut buffer[..buffer_len];
        let mut filled = 0;
        if offset < self.position {
            let begin = self.position - self.last.len() as u64;
            let start = usize::try_from(offset - begin).unwrap_or(usize::MAX);
            let kept = &self.last[start..];
            filled = kept.len().min(buffer.len());
            buffer[..filled].copy_from_slice(&kept[..filled]);
            if filled == buffer.len() {
                return Ok(filled);
            }
        }
        let mut skipped = vec![0; STEP_BYTES];
        while self.position < offset {
            let left = usize::try_from(offset - self.position).unwrap_or(usize::MAX);
            let step = left.min(STEP_BYTES);
            self.decoder.read_exact(&mut skipped[..step])?;
            self.position += step as u64;
        }
        self.decoder.read_exact(&mut buffer[filled..])?;
        self.position += (buffer.len() - filled) as u64;
        self.last.clear();
        self.last.extend_from_slice(buffer);
        Ok(buffer.len())
    }

    /// What is wanted, if all of it is in the head: no reason to decode from the start again.
    fn kept_head(&self, offset: u64, wanted: usize) -> Option<&[u8]> {
        let start = usize::try_from(offset).ok()?;
        let end = start.checked_add(wanted)?;
        let end = end.min(usize::try_from(self.len).unwrap_or(usize::MAX));
        self.head.get(start..end)
    }

    fn rewind(&mut self, file: &File) -> io::Result<()> {
        self.decoder = decoder(file)?;
        self.position = 0;
        self.last = Vec::new();
        Ok(())
    }
}

fn decoder(file: &File) -> io::Result<Decoder> {
    let source = Source { file: file.try_clone()?, offset: 0 };
    Ok(MultiGzDecoder::new(BufReader::with_capacity(STEP_BYTES, source)))
}

/// The decoder's own words for bytes that are no gzip stream, or for one that is cut off.
fn is_damage(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidData, InvalidInput, UnexpectedEof};
    matches!(error.kind(), InvalidData | InvalidInput | UnexpectedEof)
}

#[cfg(test)]
mod tests {
    use std::io::{Seek as _, Write as _};

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn packed(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn file(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    fn text(len: usize) -> Vec<u8> {
        (0..len).map(|at| b"abcdefghij\n"[(at * at / 7) % 11]).collect()
    }

    fn read(gzip: &mut Gzip, file: &File, offset: u64, len: usize) -> Vec<u8> {
        let mut buffer = vec![0; len];
        let count = gzip.read_at(file, &mut buffer, offset).unwrap();
        buffer[..count].to_vec()
    }

    #[test]
    fn reads_text_at_any_position() {
        let text = text(300_000);
        let file = file(&packed(&text));
        assert!(is_gzip(&file).unwrap());
        let mut gzip = Gzip::open(&file).unwrap();

        assert_eq!((gzip.len(), gzip.damage()), (300_000, None));
        for (offset, len) in [
            (0, 1000),
            (500, 1000),
            (900, 100),
            (250_000, 1000),
            (249_999, 10),
            (3, 10),
            (299_999, 9),
            (300_000, 9),
            (400_000, 9),
        ] {
            let at = usize::try_from(offset).unwrap().min(text.len());
            let expected = &text[at..(at + len).min(text.len())];
            assert_eq!(read(&mut gzip, &file, offset, len), expected, "{len} at {offset}");
        }
    }

    #[test]
    fn looking_at_the_head_decodes_nothing_again() {
        let text = text(3_000_000);
        let mut file = file(&packed(&text));
        let mut gzip = Gzip::open(&file).unwrap();
        assert_eq!(read(&mut gzip, &file, 2_000_000, 9), &text[2_000_000..2_000_009]);
        // From here on nothing can be decoded from the start.
        file.seek(io::SeekFrom::Start(0)).unwrap();
        file.write_all(b"garbage").unwrap();

        assert_eq!(read(&mut gzip, &file, 0, 1024), &text[..1024]);
        assert_eq!(read(&mut gzip, &file, 2_000_000, 30), &text[2_000_000..2_000_030]);
    }

    #[test]
    fn reads_all_members() {
        let file = file(&[packed(b"one\n"), packed(b""), packed(b"two\n")].concat());
        let mut gzip = Gzip::open(&file).unwrap();
        assert_eq!(read(&mut gzip, &file, 0, 99), b"one\ntwo\n");
    }

    #[test]
    fn reads_up_to_where_a_stream_is_damaged() {
        let whole = [packed(b"one\n"), packed(&text(200_000))].concat();
        for bytes in [&whole[..whole.len() / 2], &[&packed(b"one\n")[..], b"garbage"].concat()] {
            let file = file(bytes);
            let mut gzip = Gzip::open(&file).unwrap();
            assert!(gzip.damage().is_some() && gzip.len() >= 4);
            assert!(read(&mut gzip, &file, 0, 999).starts_with(b"one\n"));
        }
        assert!(!is_gzip(&file(b"one\n")).unwrap());
        assert!(!is_gzip(&file(b"")).unwrap());
    }
}
