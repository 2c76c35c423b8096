//! Records that the service refused for good, set aside on disk.
//!
//! Each *piece* is one file in `parked/`: a line of JSON, the [`Header`], with all that is needed to
//! send it again, then the payload. The agent writes them and never reads one; `logferry parked`
//! reads them, also beside an agent. Pieces are made whole, under their names or not at all, and
//! never changed. What stands in the place of the directory and is none makes way, and is kept: all
//! that follows a refused batch waits for this.
//!
//! Reading trusts nothing: whatever stands in a file, it is a piece or a sentence about what is
//! wrong with it.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::unlinkat;
use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, fchmod, fstat, mkdirat, openat, renameat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::files::{ASIDE, read, replace, sync};
use crate::base::sealed::{BatchId, DestinationId, Refusal, Route, SealedBatch};
use crate::base::span::{CollectionId, FileKey, Span, StreamKey};
use crate::plan::Plan;
use logferry_wire::{Compression, GROUP_BYTES_MAX};

/// Name of the directory, below the state directory.
pub const DIR: &str = "parked";
/// Name of a piece while it is written; one is written at a time.
const TEMPORARY: &str = "batch.tmp";
/// Ending of the names of pieces.
const SUFFIX: &str = ".batch";
/// Version of the format that is written. Others are refused, for they may mean something else.
const VERSION: u32 = 1;

/// What is known of a piece.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Version of the format.
    pub version: u32,
    /// Project that it was to go to.
    pub project: String,
    /// Logstore.
    pub logstore: String,
    /// The service's address.
    pub endpoint: String,
    /// Name of the collection that the records were read for; empty where that is not known.
    #[serde(default)]
    pub collection: String,
    /// The file that the records came from, as configured.
    pub path: String,
    /// Offset in that file of the batch that the records were read into.
    pub start: u64,
    /// Offset of its end.
    pub end: u64,
    /// Which record of the batch is the first here.
    pub first: u32,
    /// How many records are here.
    pub lines: u32,
    /// How the payload is compressed: `lz4`, `zstd` or `none`.
    pub compression: String,
    /// Size of the payload before compression, in bytes.
    pub raw_bytes: u32,
    /// Size of the payload as it is stored, in bytes.
    pub payload_bytes: u64,
    /// CRC-32 of the payload.
    pub crc32: u32,
    /// The service's error code; empty if somebody in between has refused it.
    pub code: String,
    /// The service's message.
    pub message: String,
    /// When the records were set aside, in Unix seconds.
    pub parked_unix: u64,
}

/// A piece, as it was found.
#[derive(Clone, Debug)]
pub struct Piece {
    /// What is known of it.
    pub header: Header,
    /// The records, as a batch that can be sent again.
    pub batch: SealedBatch,
}

/// Why the service refused a batch, what its numbers mean, and when that was.
pub(super) struct Circumstances<'a> {
    pub(super) plan: &'a Plan,
    pub(super) refusal: &'a Refusal,
    pub(super) unix: u64,
}

// === writing

/// Writes a batch through to the disk, under `name`.
///
/// # Errors
/// If that fails; then no file is left.
pub(super) fn write(
    state: &File,
    name: &str,
    batch: &SealedBatch,
    circumstances: &Circumstances<'_>,
) -> io::Result<()> {
    let Circumstances { plan, refusal, unix } = circumstances;
    let destination = plan.destination(batch.destination);
    let (code, message) = refusal.words();
    let header = Header {
        version: VERSION,
        project: destination.project.clone(),
        logstore: destination.logstore.clone(),
        endpoint: destination.endpoint.to_string(),
        collection: plan.collection(batch.span.stream.collection).name.to_string(),
        path: batch.path.to_string(),
        start: batch.span.start,
        end: batch.span.end,
        first: batch.first,
        lines: batch.lines,
        compression: batch.compression.name().to_owned(),
        raw_bytes: batch.raw_bytes,
        payload_bytes: batch.payload.len() as u64,
        crc32: crc32fast::hash(&batch.payload),
        code: code.to_owned(),
        message: message.to_owned(),
        parked_unix: *unix,
    };
    let mut header = serde_json::to_vec(&header)?;
    header.push(b'\n');
    let write = |file: &mut File| {
        file.write_all(&header)?;
        file.write_all(&batch.payload)?;
        Ok((header.len() + batch.payload.len()) as u64)
    };
    replace(&open_for_writing(state)?, TEMPORARY, name, write).map(drop)
}

/// The name of a piece. The generation tells runs apart that end and begin within a second.
pub(super) fn name(unix: u64, generation: u64, batch: BatchId) -> String {
    format!("{unix}-{generation}-{}{SUFFIX}", batch.0)
}

/// Opens the directory; makes it if it is missing. It is for the agent's user alone (0700).
fn open_for_writing(state: &File) -> io::Result<File> {
    let opened = match open_or_make(state) {
        Err(Errno::NOTDIR | Errno::NOENT | Errno::LOOP) => {
            renameat(state, DIR, state, format!("{DIR}{ASIDE}"))?;
            open_or_make(state)
        }
        opened => opened,
    }?;
    // Made by somebody else. Whether it can be put right or not, the pieces in it are 0600.
    if fstat(&opened).is_ok_and(|found| found.st_mode & 0o077 != 0) {
        let _ = fchmod(&opened, Mode::RWXU);
    }
    // It may be new, or made by an agent that died before it came to this.
    sync(state)?;
    Ok(opened)
}

fn open_or_make(state: &File) -> rustix::io::Result<File> {
    match mkdirat(state, DIR, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(error),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(state, DIR, flags, Mode::empty()).map(File::from)
}

/// Removes what a crash has left half written.
pub(super) fn tidy(state: &File) {
    // Usually there is nothing, and on a disk that cannot be written it does no harm.
    let _ = unlinkat(state, format!("{DIR}/{TEMPORARY}"), AtFlags::empty());
}

// === reading

/// The pieces that are set aside in a state directory.
pub struct Parked {
    /// The open directory; `None` while there is none.
    dir: Option<File>,
}

impl Parked {
    /// Opens what is set aside in a state directory. It need not exist.
    ///
    /// # Errors
    /// If there is something, and it cannot be opened.
    pub fn open(state_dir: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match openat(CWD, state_dir.join(DIR), flags, Mode::empty()) {
            Ok(dir) => Ok(Self { dir: Some(dir.into()) }),
            Err(Errno::NOENT) => Ok(Self { dir: None }),
            Err(error) => Err(error.into()),
        }
    }

    /// The ids of all pieces, the one that was set aside first in front.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub fn ids(&self) -> io::Result<Vec<String>> {
        let Some(dir) = &self.dir else { return Ok(Vec::new()) };
        let mut ids = Vec::new();
        for entry in Dir::read_from(dir)? {
            let entry = entry?;
            let name = entry.file_name().to_str().ok().and_then(|name| name.strip_suffix(SUFFIX));
            ids.extend(name.filter(|id| is_id(id)).map(str::to_owned));
        }
        ids.sort_by_key(|id| numbers(id));
        Ok(ids)
    }

    /// Reads a piece. `None` if there is none of this id.
    ///
    /// # Errors
    /// What is wrong with its file, for a person.
    pub fn read(&self, id: &str) -> Result<Option<Piece>, String> {
        let Some(dir) = self.dir.as_ref().filter(|_| is_id(id)) else { return Ok(None) };
        let bytes = read(dir, &format!("{id}{SUFFIX}"), b"{").map_err(|error| error.to_string())?;
        bytes.map(|bytes| decode(&bytes)).transpose()
    }

    /// Removes a piece, for good. `false` if there is none of this id.
    ///
    /// # Errors
    /// If it is there and stays.
    pub fn remove(&self, id: &str) -> io::Result<bool> {
        let Some(dir) = self.dir.as_ref().filter(|_| is_id(id)) else { return Ok(false) };
        match unlinkat(dir, format!("{id}{SUFFIX}"), AtFlags::empty()) {
            Ok(()) => sync(dir).map(|()| true),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

/// Whether a name is the id of a piece: three numbers with hyphens between them. What else stands
/// there is not ours, and no id leads out of the directory.
fn is_id(id: &str) -> bool {
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    id.split('-').count() == 3 && id.split('-').all(is_number)
}

fn numbers(id: &str) -> Vec<u64> {
    id.split('-').map(|part| part.parse().unwrap_or(u64::MAX)).collect()
}

/// Understands the bytes of a file.
///
/// # Errors
/// What is wrong with them, for a person.
fn decode(bytes: &[u8]) -> Result<Piece, String> {
    let end = memchr::memchr(b'\n', bytes).ok_or("its first line does not end")?;
    let (header, payload) = (&bytes[..end], &bytes[end + 1..]);
    let version = serde_json::from_slice::<Versioned>(header).ok().and_then(|it| it.version);
    let header = match version {
        Some(VERSION) => serde_json::from_slice::<Header>(header)
            .map_err(|error| format!("its first line is not what it should be: {error}"))?,
        Some(other) => return Err(format!("its version is {other}, and this program knows 1")),
        None => return Err("its first line is no header of a set aside batch".to_owned()),
    };
    if payload.len() as u64 != header.payload_bytes || crc32fast::hash(payload) != header.crc32 {
        return Err(format!(
            "its records are not those that were written: {} bytes of {}",
            payload.len(),
            header.payload_bytes
        ));
    }
    let compression = Compression::named(&header.compression)
        .ok_or_else(|| format!("it is compressed as {:?}", header.compression))?;
    let is_group = header.raw_bytes as usize <= GROUP_BYTES_MAX;
    if header.end < header.start || header.lines == 0 || !is_group {
        return Err("its first line contradicts itself".to_owned());
    }
    // Numbers are those of the run that has set it aside. What they meant stands in the header.
    let stream = StreamKey { file: FileKey(0), collection: CollectionId(0) };
    let batch = SealedBatch {
        id: BatchId(0),
        span: Span::new(stream, header.start, header.end),
        destination: DestinationId(0),
        path: Arc::from(header.path.as_str()),
        payload: Arc::from(payload),
        compression,
        raw_bytes: header.raw_bytes,
        lines: header.lines,
        first: header.first,
        route: Route::Any,
        since: crate::base::clock::now(),
    };
    Ok(Piece { header, batch })
}

#[derive(Deserialize)]
struct Versioned {
    version: Option<u32>,
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;
    use crate::plan::Destination;

    fn batch(id: u64) -> SealedBatch {
        SealedBatch {
            id: BatchId(id),
            span: Span::new(StreamKey { file: FileKey(1), collection: CollectionId(0) }, 10, 20),
            destination: DestinationId(0),
            path: "/share/logs/app.log".into(),
            payload: b"payload\nof some bytes".as_slice().into(),
            compression: Compression::Zstd,
            raw_bytes: 99,
            lines: 2,
            first: 5,
            route: Route::Key(7),
            since: crate::base::clock::now(),
        }
    }

    fn park(dir: &Path, unix: u64, id: u64) -> String {
        let text = |text: &str| text.to_owned();
        let plan = Plan::sample(vec![Destination::sample()]);
        let refusal = Refusal::Malformed { code: text("PostBodyInvalid"), message: text("bad") };
        let circumstances = Circumstances { plan: &plan, refusal: &refusal, unix };
        let name = name(unix, 3, BatchId(id));
        write(&File::open(dir).unwrap(), &name, &batch(id), &circumstances).unwrap();
        name.strip_suffix(SUFFIX).unwrap().to_owned()
    }

    #[test]
    fn a_piece_holds_all_that_is_needed_to_send_it_again() {
        let dir = tempfile::tempdir().unwrap();
        let id = park(dir.path(), 5, 7);

        let parked = Parked::open(dir.path()).unwrap();
        assert_eq!(parked.ids().unwrap(), ["5-3-7"]);
        let Piece { header, batch: found } = parked.read(&id).unwrap().unwrap();

        let expected = batch(7);
        assert_eq!((found.payload, found.compression), (expected.payload, Compression::Zstd));
        assert_eq!((found.raw_bytes, found.lines, found.first), (99, 2, 5));
        assert_eq!((header.project.as_str(), header.logstore.as_str()), ("shop", "orders"));
        assert_eq!(header.collection, "default");
        assert_eq!((header.code.as_str(), header.message.as_str()), ("PostBodyInvalid", "bad"));
        assert_eq!((header.start, header.end, header.parked_unix), (10, 20, 5));
    }

    #[test]
    fn pieces_are_in_the_order_in_which_they_were_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        for (unix, id) in [(100, 2), (20, 10), (20, 9)] {
            park(dir.path(), unix, id);
        }
        for other in ["batch.tmp", "notes.batch", "1-2.batch", "1-2-x.batch", "readme"] {
            fs::write(dir.path().join(DIR).join(other), b"somebody's").unwrap();
        }

        let parked = Parked::open(dir.path()).unwrap();

        assert_eq!(parked.ids().unwrap(), ["20-3-9", "20-3-10", "100-3-2"]);
        assert!(parked.remove("20-3-10").unwrap());
        assert!(!parked.remove("20-3-10").unwrap());
        assert_eq!(parked.ids().unwrap(), ["20-3-9", "100-3-2"]);
    }

    #[test]
    fn no_id_leads_out_of_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        park(dir.path(), 1, 1);
        fs::write(dir.path().join("1-1-1.batch"), b"{}").unwrap();
        let parked = Parked::open(dir.path()).unwrap();

        for id in ["../1-1-1", "", "-", "--", "1-1-1/../1-3-1", "1-3-1.batch", "+1-3-1"] {
            assert!(parked.read(id).unwrap().is_none(), "{id}");
            assert!(!parked.remove(id).unwrap(), "{id}");
        }
    }

    #[test]
    fn a_directory_that_is_not_there_holds_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let parked = Parked::open(&dir.path().join("nowhere")).unwrap();

        assert!(parked.ids().unwrap().is_empty());
        assert!(parked.read("1-1-1").unwrap().is_none());
    }

    /// Changes each byte of a piece, and cuts it at each place: reading never panics, and never
    /// gives other records.
    #[test]
    fn whatever_stands_in_a_file_is_a_piece_or_a_sentence() {
        let dir = tempfile::tempdir().unwrap();
        let id = park(dir.path(), 1, 1);
        let good = fs::read(dir.path().join(DIR).join(format!("{id}{SUFFIX}"))).unwrap();
        let payload = batch(1).payload;
        for at in 0..good.len() {
            assert!(decode(&good[..at]).is_err(), "cut at {at}");
            let mut other = good.clone();
            other[at] ^= 0x15;
            if let Ok(piece) = decode(&other) {
                assert_eq!(piece.batch.payload, payload, "byte {at}");
            }
        }
        for text in ["", "\n", "{}\n", "null\n", "[1]\n", "{\"version\":2}\n", "{\"version\":-1}\n"]
        {
            assert!(!decode(text.as_bytes()).unwrap_err().is_empty());
        }
    }

    /// The header's size says how much memory the text of a piece takes.
    #[test]
    fn a_piece_larger_than_any_group_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let id = park(dir.path(), 1, 1);
        let good = fs::read(dir.path().join(DIR).join(format!("{id}{SUFFIX}"))).unwrap();
        let text = String::from_utf8(good).unwrap();
        let other = text.replace("\"raw_bytes\":99", "\"raw_bytes\":4294967295");
        assert_ne!(text, other);
        assert!(decode(other.as_bytes()).unwrap_err().contains("contradicts itself"));
    }

    #[test]
    fn what_is_no_file_is_told_and_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let id = park(dir.path(), 1, 1);
        let at = |id: &str| dir.path().join(DIR).join(format!("{id}{SUFFIX}"));
        symlink(at(&id), at("2-2-2")).unwrap();
        fs::create_dir(at("3-3-3")).unwrap();

        let parked = Parked::open(dir.path()).unwrap();

        assert_eq!(parked.ids().unwrap().len(), 3);
        assert!(parked.read("2-2-2").is_err());
        assert!(parked.read("3-3-3").is_err());
    }

    #[test]
    fn it_is_for_nobody_elses_eyes() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join(DIR)).unwrap();
        fs::set_permissions(dir.path().join(DIR), fs::Permissions::from_mode(0o777)).unwrap();

        let id = park(dir.path(), 1, 1);

        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode(&dir.path().join(DIR)), 0o700);
        assert_eq!(mode(&dir.path().join(DIR).join(format!("{id}{SUFFIX}"))), 0o600);
    }
}
