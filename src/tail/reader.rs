//! An open file: its size, its bytes, its fingerprints.
//!
//! The only place that opens log files. Reads by position (pread(2)) into a buffer that all files
//! share: what is not consumed in a turn is simply read again in the next, so a file costs a
//! descriptor and no memory of its own.

use std::cell::{Cell, Ref, RefCell};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;

use super::catalog::judge::Stat;
use super::gzip::{self, Gzip};
use super::os::{self, Os, OsFile};
use super::served;
use super::trace;
use super::tracked::FoundAs;
use crate::base::fingerprint::{Fingerprint, HEAD_BYTES_MAX, TAIL_BYTES_MAX};
use crate::line::split::without_nuls;

/// Most NUL bytes that are read in search of text. More of them are a hole, whatever follows.
const NULS_READ_MAX: usize = 64 << 20;

/// A file that was opened for reading.
#[derive(Debug)]
pub struct Reader<F> {
    file: Arc<F>,
    /// The text of a file that is compressed: what is read and measured is the text.
    gzip: Option<Box<RefCell<Gzip<F>>>>,
    /// What the last examination has shown.
    last: Cell<Option<Stat>>,
    /// No byte stood in it when it was asked whose bytes they are.
    was_blank: Cell<bool>,
}

/// Age from which on a time of change stands for one change only: kernels count in ticks.
const TICK: Duration = Duration::from_millis(50);

impl<F: OsFile> Reader<F> {
    /// Opens a file, without waiting: what was a file a moment ago may be a pipe now.
    ///
    /// # Errors
    /// As open(2).
    pub fn open(os: &impl Os<File = F>, path: &Path) -> io::Result<Self> {
        let (last, was_blank) = (Cell::new(None), Cell::new(false));
        Ok(Self { file: Arc::new(os.open(path)?), gzip: None, last, was_blank })
    }

    /// Whether the file is compressed.
    ///
    /// # Errors
    /// As pread(2).
    pub fn is_gzip(&self) -> io::Result<bool> {
        let mut magic = [0; 16];
        let count = self.file.read_at(&mut magic, 0)?;
        Ok(gzip::is_gzip(&magic[..count]))
    }

    /// The text of the compressed file, to be measured.
    ///
    /// # Errors
    /// As [`Gzip::open`].
    pub fn unpack(&self) -> io::Result<Gzip<F>> {
        Gzip::open(&self.file)
    }

    /// Reads and measures this text from now on; the file that is open is `gzip`'s.
    pub fn show(&mut self, gzip: Gzip<F>) {
        self.file = gzip.file();
        self.gzip = Some(Box::new(RefCell::new(gzip)));
    }

    /// What is known of the text of a compressed file.
    #[must_use]
    pub fn gzip(&self) -> Option<Ref<'_, Gzip<F>>> {
        self.gzip.as_ref().map(|gzip| gzip.borrow())
    }

    /// Measures the text of a compressed file anew that has changed: see [`Gzip::measure_again`].
    ///
    /// # Errors
    /// As [`Gzip::measure_again`].
    pub fn measure_again(&self) -> io::Result<FoundAs> {
        let gzip = self.gzip.as_ref().expect("only asked of compressed files");
        gzip.borrow_mut().measure_again()
    }

    /// Gives up what decodes a compressed file, as [`Gzip::release`] does. Returns whether there was
    /// something to give up.
    #[must_use]
    pub fn release(&self) -> bool {
        self.gzip.as_ref().is_some_and(|gzip| gzip.borrow_mut().release())
    }

    /// Whether the text of a compressed file is read, which never changes.
    #[must_use]
    pub fn is_unpacked(&self) -> bool {
        self.gzip.is_some()
    }

    /// Notes whether no byte stood in the file when it was asked whose it is.
    pub fn note_blank(&self, is_blank: bool) {
        self.was_blank.set(is_blank);
    }

    /// Whether nothing could be told of the file yet: bytes that stand in it by now came since.
    #[must_use]
    pub fn was_blank(&self) -> bool {
        self.was_blank.get()
    }

    /// Examines the file. A served file system may know a file by its name only (FUSE): where that is
    /// gone, the file is taken for deleted, and reading tells its size.
    ///
    /// # Errors
    /// As fstat(2).
    pub fn stat(&self) -> io::Result<Stat> {
        let stat = match (self.examine(), self.last.get()) {
            (Err(error), Some(last)) if error.kind() == io::ErrorKind::NotFound => {
                Stat { size: self.end_from(last.size)?, modified: None, links: 0, ..last }
            }
            (stat, _) => stat?,
        };
        self.last.set(Some(stat));
        Ok(stat)
    }

    /// Examines the file when a truncation that is under way is over. The size goes first, and the time
    /// of change follows; a search for data waits for the lock of the file that is held meanwhile (ext4,
    /// tmpfs).
    ///
    /// # Errors
    /// As fstat(2).
    pub fn stat_truncated(&self) -> io::Result<Stat> {
        let _ = self.file.data_after(0);
        self.stat()
    }

    /// Where a file ends that had `size` bytes.
    fn end_from(&self, size: u64) -> io::Result<u64> {
        if let Some(gzip) = self.gzip() {
            return Ok(gzip.len());
        }
        let (mut buffer, mut end) = (vec![0; 64 << 10], size);
        loop {
            match self.file.read_at(&mut buffer, end)? {
                0 => return Ok(end),
                count => end += count as u64,
            }
        }
    }

    fn examine(&self) -> io::Result<Stat> {
        let (facts, now) = self.file.dated_facts()?;
        let (modified, now) = (os::nanoseconds(facts.modified), nanoseconds(now));
        let is_settled = !(now.saturating_sub(nanoseconds(TICK))..=now).contains(&modified);
        Ok(Stat {
            device: facts.device,
            inode: facts.inode,
            born: facts.born,
            size: self.gzip.as_ref().map_or(facts.size, |gzip| gzip.borrow().len()),
            modified: is_settled.then_some(modified),
            changed: os::nanoseconds(facts.changed),
            links: facts.links,
            is_file: facts.is_regular(),
        })
    }

    /// Whether no later opening finds the file: it is deleted, or bears the name that an NFS or FUSE client
    /// gives to what was deleted and is still open.
    #[must_use]
    pub fn has_no_name_to_come(&self) -> bool {
        let is_hidden = |path: PathBuf| {
            let name = path.file_name().unwrap_or_default().as_bytes();
            name.starts_with(b".nfs0") || name.starts_with(b".fuse_hidden")
        };
        self.stat().is_ok_and(|stat| stat.links == 0) || self.path().is_some_and(is_hidden)
    }

    /// Whether somebody has the file open for writing; `None` where that cannot be asked: it takes to be
    /// the file's owner, or `CAP_LEASE`, and a file system whose writers this kernel knows.
    #[must_use]
    pub fn is_open_for_writing(&self) -> Option<bool> {
        let file_system = self.file.file_system()?;
        let is_open = self.file.is_open_for_writing()?;
        (is_open || served::knows_writers(file_system)).then_some(is_open)
    }

    /// The name that the file has now; `None` when it has none any more.
    #[must_use]
    pub fn path(&self) -> Option<PathBuf> {
        let (path, is_deleted) = self.place()?;
        (!is_deleted).then_some(path)
    }

    /// The name that the file has, or had last: where it really is, links resolved. It was opened by
    /// `path`, which is followed again where there is no `/proc`.
    ///
    /// # Errors
    /// If that is not known, or `path` leads to another file by now: it may not be read.
    pub fn whereabouts(&self, os: &impl Os<File = F>, path: &Path) -> io::Result<PathBuf> {
        if let Some((path, _)) = self.place() {
            return Ok(path);
        }
        let real = trace::path(os, path).real;
        let why = |error: io::Error| {
            io::Error::other(format!("without /proc it is not known where it is: {error}"))
        };
        if os.stat_without_links(&real).map_err(why)?.id() != self.file.facts()?.id() {
            return Err(why(Errno::STALE.into()));
        }
        Ok(real)
    }

    /// The name that the file has, or had last; `true`: it has it no more (proc(5),
    /// `/proc/PID/fd`). `None` where there is no `/proc`.
    #[must_use]
    pub fn place(&self) -> Option<(PathBuf, bool)> {
        self.file.place()
    }

    /// Reads once from `offset`; returns the bytes that are there. One call, so that they are all of
    /// one moment: a second one could see the file after it was truncated and written anew.
    ///
    /// # Errors
    /// As pread(2).
    pub fn read_once<'b>(&self, buffer: &'b mut [u8], offset: u64) -> io::Result<&'b [u8]> {
        if let Some(gzip) = &self.gzip {
            let count = gzip.borrow_mut().read_at(buffer, offset)?;
            return Ok(&buffer[..count]);
        }
        loop {
            match self.file.read_at(buffer, offset) {
                Ok(count) => return Ok(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Reads from `offset` until `buffer` is full or the file ends; returns the bytes that are
    /// there.
    ///
    /// # Errors
    /// As pread(2).
    fn read_at<'b>(&self, buffer: &'b mut [u8], offset: u64) -> io::Result<&'b [u8]> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.read_once(&mut buffer[filled..], offset + filled as u64)?.len() {
                0 => break,
                count => filled += count,
            }
        }
        Ok(&buffer[..filled])
    }

    /// Where the first byte that is not NUL stands, from `offset` on; `None` if there is only NUL
    /// up to the end. Holes of a sparse file are jumped over (lseek(2), `SEEK_DATA`); of NULs that
    /// are on the disk at most `NULS_READ_MAX` are read, and what follows them is the answer.
    ///
    /// # Errors
    /// As lseek(2) and pread(2).
    pub fn text_after(&self, offset: u64) -> io::Result<Option<u64>> {
        let mut buffer = vec![0; 64 << 10];
        let (mut at, mut nuls) = (offset, 0);
        while nuls < NULS_READ_MAX {
            if !self.is_unpacked() {
                at = match self.file.data_after(at) {
                    Ok(Some(data)) => data,
                    Ok(None) => return Ok(None),
                    Err(error) if has_no_holes(&error) => at,
                    Err(error) => return Err(error),
                };
            }
            let bytes = self.read_once(&mut buffer, at)?;
            if bytes.is_empty() {
                return Ok(None);
            }
            if let Some(text) = bytes.iter().position(|&byte| byte != 0) {
                return Ok(Some(at + text as u64));
            }
            at += bytes.len() as u64;
            nuls += bytes.len();
        }
        Ok(Some(at))
    }

    /// The fingerprint of the head as it is now. It ends before the first NUL from `settled_end` on,
    /// which may still be filled, and before NULs at its end, which may be space that was taken in
    /// advance.
    ///
    /// # Errors
    /// As pread(2).
    pub fn head(&self, settled_end: u64) -> io::Result<Fingerprint> {
        let mut buffer = [0; HEAD_BYTES_MAX];
        let bytes = self.read_at(&mut buffer, 0)?;
        let settled = if self.is_unpacked() { u64::MAX } else { settled_end };
        let settled = usize::try_from(settled).unwrap_or(usize::MAX).min(bytes.len());
        let end = memchr::memchr(0, &bytes[settled..]).map_or(bytes.len(), |nul| settled + nul);
        Ok(Fingerprint::of_head(without_nuls(&bytes[..end])))
    }

    /// Whether the byte at `offset` is there and NUL.
    ///
    /// # Errors
    /// As pread(2).
    pub fn is_nul_at(&self, offset: u64) -> io::Result<bool> {
        Ok(self.read_once(&mut [1], offset)? == [0])
    }

    /// The fingerprints of heads of these lengths; none of a longer one than the file is.
    ///
    /// # Errors
    /// As pread(2).
    pub fn heads(&self, lens: impl Iterator<Item = u32>) -> io::Result<Vec<Fingerprint>> {
        let mut buffer = [0; HEAD_BYTES_MAX];
        let bytes = self.read_at(&mut buffer, 0)?;
        Ok(lens.filter_map(|len| bytes.get(..len as usize)).map(Fingerprint::of).collect())
    }

    /// The fingerprint of the bytes before `offset`.
    ///
    /// # Errors
    /// As pread(2).
    pub fn tail(&self, offset: u64) -> io::Result<Fingerprint> {
        let mut buffer = [0; TAIL_BYTES_MAX];
        let len = usize::try_from(offset).unwrap_or(usize::MAX).min(TAIL_BYTES_MAX);
        self.read_at(&mut buffer[..len], offset - len as u64).map(Fingerprint::of_tail)
    }

    /// Where the line begins that is cut off at `offset`; `offset` itself if that is a line's start, or
    /// if the line is longer than `line_bytes_max`.
    ///
    /// # Errors
    /// As pread(2).
    pub fn line_start(&self, offset: u64, line_bytes_max: usize) -> io::Result<u64> {
        let len = usize::try_from(offset).unwrap_or(usize::MAX).min(line_bytes_max + 1);
        let mut buffer = vec![0; len];
        let bytes = self.read_at(&mut buffer, offset - len as u64)?;
        let start = match memchr::memrchr(b'\n', bytes) {
            Some(end) => end + 1,
            None if len as u64 == offset => 0,
            None => len,
        };
        Ok(offset - (len - start) as u64)
    }

    /// Whether the file still begins with the bytes of `head`.
    ///
    /// # Errors
    /// As pread(2).
    pub fn has_head(&self, head: Fingerprint) -> io::Result<bool> {
        let mut buffer = [0; HEAD_BYTES_MAX];
        Ok(head.matches_start_of(self.read_at(&mut buffer, 0)?))
    }

    /// Whether the bytes of `tail` still stand just before `offset`.
    ///
    /// # Errors
    /// As pread(2).
    pub fn has_tail(&self, tail: Fingerprint, offset: u64) -> io::Result<bool> {
        let Some(start) = offset.checked_sub(u64::from(tail.len)) else { return Ok(false) };
        let mut buffer = [0; TAIL_BYTES_MAX];
        let Some(buffer) = buffer.get_mut(..tail.len as usize) else { return Ok(false) };
        Ok(tail.matches_start_of(self.read_at(buffer, start)?))
    }
}

/// Whether an error says that the file system knows no holes.
fn has_no_holes(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported)
}

fn nanoseconds(time: Duration) -> i64 {
    i64::try_from(time.as_nanos()).unwrap_or(i64::MAX)
}

/// Whether `copy` may be a copy of `original`, as far as it has come: its first and its last bytes
/// are the ones that stand there in the original.
///
/// # Errors
/// As pread(2).
pub fn is_copy_so_far<F: OsFile>(copy: &Reader<F>, original: &Reader<F>) -> io::Result<bool> {
    let size = copy.stat()?.size;
    if size > original.stat()?.size {
        return Ok(false);
    }
    let (mut ours, mut theirs) = ([0; HEAD_BYTES_MAX], [0; HEAD_BYTES_MAX]);
    for offset in [0, size.saturating_sub(HEAD_BYTES_MAX as u64)] {
        let len = usize::try_from(size - offset).unwrap_or(usize::MAX).min(HEAD_BYTES_MAX);
        let ours = copy.read_at(&mut ours[..len], offset)?;
        if ours != original.read_at(&mut theirs[..len], offset)? {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::FileExt as _;

    use super::*;
    use crate::tail::os::kernel::Kernel;

    #[test]
    fn knows_heads_and_tails_of_a_file_that_grew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.log");
        std::fs::write(&path, "one\ntwo\nthree\n").unwrap();
        let reader = Reader::open(&Kernel, &path).unwrap();

        assert_eq!(reader.stat().unwrap().size, 14);
        assert!(reader.has_head(Fingerprint::of_head(b"one\n")).unwrap());
        assert!(!reader.has_head(Fingerprint::of_head(b"two\n")).unwrap());
        assert!(reader.has_tail(Fingerprint::of_tail(b"one\ntwo\n"), 8).unwrap());
        assert!(!reader.has_tail(Fingerprint::of_tail(b"one\ntwo\n"), 9).unwrap());
        assert!(!reader.has_tail(Fingerprint::of_tail(b"one\ntwo\n"), 100).unwrap());
        assert!(!reader.has_tail(Fingerprint { len: 9, crc32: 0 }, 3).unwrap());
        assert!(!reader.has_tail(Fingerprint { len: 9999, crc32: 0 }, 99_999).unwrap());
    }

    #[test]
    fn knows_where_a_line_begins_that_is_cut_off() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.log");
        std::fs::write(&path, "one\ntwo\nthree\n").unwrap();
        let reader = Reader::open(&Kernel, &path).unwrap();
        let starts = |line_bytes_max| {
            [0, 2, 4, 6, 13, 14].map(|offset| reader.line_start(offset, line_bytes_max).unwrap())
        };

        assert_eq!(starts(99), [0, 0, 4, 4, 8, 14]);
        assert_eq!(starts(3), [0, 0, 4, 4, 13, 14]);
    }

    #[test]
    fn knows_a_copy_while_it_is_made() {
        let dir = tempfile::tempdir().unwrap();
        let open = |name: &str, text: &[u8]| {
            std::fs::write(dir.path().join(name), text).unwrap();
            Reader::open(&Kernel, &dir.path().join(name)).unwrap()
        };
        let text: Vec<u8> = (0..5000_u32).flat_map(|n| n.to_le_bytes()).collect();
        let original = open("app.log", &text);

        for len in [0, 1, 1024, 9000, text.len()] {
            assert!(is_copy_so_far(&open("copy", &text[..len]), &original).unwrap(), "{len}");
        }
        let longer = [&text[..], b"more"].concat();
        assert!(!is_copy_so_far(&open("copy", &longer), &original).unwrap());
        let same_head = [&text[..2000], b"other"].concat();
        assert!(!is_copy_so_far(&open("copy", &same_head), &original).unwrap());
    }

    #[test]
    fn finds_text_behind_a_hole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.log");
        let file = File::create(&path).unwrap();
        file.write_all_at(b"one\n", 0).unwrap();
        file.write_all_at(b"two\n", (5 << 30) + 100).unwrap();
        file.set_len(6 << 30).unwrap();
        let reader = Reader::open(&Kernel, &path).unwrap();

        assert_eq!(reader.text_after(2).unwrap(), Some(2));
        assert_eq!(reader.text_after(4).unwrap(), Some((5 << 30) + 100));
        assert_eq!(reader.text_after((5 << 30) + 104).unwrap(), None);
        assert_eq!(reader.text_after(7 << 30).unwrap(), None);
    }

    #[test]
    fn does_not_wait_for_the_writer_of_a_pipe() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pipe");
        let status = std::process::Command::new("mkfifo").arg(&path).status().unwrap();
        assert!(status.success());
        assert!(!Reader::open(&Kernel, &path).unwrap().stat().unwrap().is_file);
    }
}
