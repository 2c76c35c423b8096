//! `logferry checkpoint show`: everything that the state directory holds, beside what is on disk.
//!
//! Reads without the lock, so it may run beside an agent, and changes nothing. A directory that is
//! not there yet holds nothing: that is no error.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::find::Finder;
use super::state::{Error, is_there};
use crate::base::clock;
use crate::base::fingerprint::Fingerprint;
use crate::checkpoint::format::{Checkpoint, Range, RangeState};
use crate::checkpoint::{parked, store};
use crate::command::status::saved::DamagedFile;
use crate::command::table::{self, Column, ago, printable, push_line, push_table, size};
use crate::config::{Kept, Reach};

const COLUMNS: [Column; 7] = [
    Column::Words("PATH"),
    Column::Words("DEVICE:INODE"),
    Column::Numbers("OFFSET"),
    Column::Numbers("SIZE"),
    Column::Words("SEEN"),
    Column::Words("WHERE"),
    Column::Words("NOTE"),
];

/// The facts, in the form of `--json`.
#[derive(Clone, Debug, Serialize)]
pub struct Holding {
    /// The directory.
    pub state_dir: String,
    /// Whether it is there.
    pub exists: bool,
    /// The files it knows, in order of path.
    pub files: Vec<HeldFile>,
    /// Checkpoint files that are there and cannot be used.
    pub damaged: Vec<DamagedFile>,
    /// Batches that the service refused for good.
    pub parked: Parked,
}

/// What is known about one file, and what is there now.
#[derive(Clone, Debug, Serialize)]
pub struct HeldFile {
    /// Path as configured, links not resolved.
    pub path: String,
    /// Where it really was when an agent last saw it.
    pub resolved: String,
    /// Where it is now; `None` if it is not found.
    pub found_at: Option<String>,
    /// Device number, then.
    pub device: u64,
    /// Inode number; 0 if the file is gone and only a copy of its bytes could be met.
    pub inode: u64,
    /// When the file was made, in nanoseconds since 1970; 0 for not known.
    pub born: i64,
    /// Everything below is acknowledged.
    pub offset: u64,
    /// Size now; `None` if it is not found.
    pub size: Option<u64>,
    /// Parts of what follows that were sent, or may have been, and are not known to have arrived:
    /// they are sent again under the ids that are saved with them.
    pub unresolved: usize,
    /// Of its first bytes.
    pub head: Print,
    /// Of the bytes just before `offset`.
    pub tail: Print,
    /// When an agent last saw it, in Unix seconds.
    pub seen_unix: u64,
    /// Whether it was delivered and closed; then nothing searches for it.
    pub is_done: bool,
    /// Whether the patterns of this command's settings match its path.
    pub in_paths: bool,
    /// What is unusual about it; empty when nothing is.
    pub note: String,
}

/// A [`Fingerprint`].
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Print {
    /// How many bytes it covers.
    pub len: u32,
    /// CRC-32 of these bytes.
    pub crc32: u32,
}

/// Batches that were set aside.
#[derive(Clone, Debug, Serialize)]
pub struct Parked {
    /// Where they are.
    pub dir: String,
    /// How many.
    pub batches: u64,
    /// Bytes on disk.
    pub bytes: u64,
}

/// Prints what the state directory holds.
///
/// # Errors
/// If it is there and cannot be read, or `out` cannot be written.
pub fn run(kept: &Kept, json: bool, out: &mut impl Write) -> Result<(), Error> {
    let holding = Holding::read(kept)?;
    let text = if json {
        table::json(&holding).map_err(io::Error::from)?
    } else {
        text(&holding, clock::wall().as_secs())
    };
    Ok(out.write_all(text.as_bytes())?)
}

impl Holding {
    fn read(kept: &Kept) -> Result<Self, Error> {
        let dir = &kept.state_dir;
        let exists = is_there(dir)?;
        let loaded = store::peek(dir);
        let mut finder = Finder::default();
        let held = |one: &Checkpoint| HeldFile::of(one, &kept.reach, &mut finder);
        let mut files: Vec<HeldFile> = loaded.checkpoints.iter().map(held).collect();
        files.sort_by(|a, b| (&a.path, a.inode).cmp(&(&b.path, b.inode)));
        let damaged = loaded
            .damaged
            .into_iter()
            .map(|(path, reason)| DamagedFile { path: shown(&path), reason });
        Ok(Self {
            state_dir: shown(dir),
            exists,
            files,
            damaged: damaged.collect(),
            parked: Parked::count(dir.join(parked::DIR)),
        })
    }
}

impl HeldFile {
    fn of(one: &Checkpoint, reach: &Reach, finder: &mut Finder) -> Self {
        let mut places = vec![one.resolved.as_path()];
        if one.path != one.resolved {
            places.push(&one.path);
        }
        let found = finder.find(&places, one.inode);
        let in_paths = reach.includes(&one.path);
        let mut notes = Vec::new();
        match &found {
            _ if one.inode == 0 => notes.push("gone; a copy of it would be known".to_owned()),
            Ok(found) if found.metadata.len() < one.offset => {
                notes.push("shorter than what was delivered".to_owned());
            }
            Ok(_) => {}
            Err(error) => notes.push(error.to_string()),
        }
        let is_open = |range: &&Range| range.state != RangeState::Done;
        let unresolved = one.ranges.iter().filter(is_open).count();
        if unresolved > 0 {
            let end = one.ranges.last().map_or(one.offset, |last| last.end);
            notes.push(format!("{unresolved} requests assigned, up to byte {end}"));
        }
        if one.is_done {
            notes.push("delivered and closed".to_owned());
        }
        if !in_paths {
            notes.push("`paths` does not find this name".to_owned());
        }
        let found = found.ok();
        let print = |one: Fingerprint| Print { len: one.len, crc32: one.crc32 };
        Self {
            path: shown(&one.path),
            resolved: shown(&one.resolved),
            size: found.as_ref().map(|found| found.metadata.len()),
            found_at: found.map(|found| shown(&found.path)),
            device: one.device,
            inode: one.inode,
            born: one.born,
            offset: one.offset,
            unresolved,
            head: print(one.head),
            tail: print(one.tail),
            seen_unix: one.seen_unix,
            is_done: one.is_done,
            in_paths,
            note: notes.join("; "),
        }
    }
}

impl Parked {
    fn count(dir: PathBuf) -> Self {
        let mut parked = Self { dir: shown(&dir), batches: 0, bytes: 0 };
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let is_batch = entry.path().extension().is_some_and(|name| name == "batch");
            if let Ok(metadata) = entry.metadata()
                && metadata.is_file()
                && is_batch
            {
                parked.batches += 1;
                parked.bytes += metadata.len();
            }
        }
        parked
    }
}

fn text(holding: &Holding, now_unix: u64) -> String {
    let mut text = String::new();
    let dir = printable(&holding.state_dir);
    if !holding.exists {
        push_line(&mut text, format_args!("the state directory {dir} is not there: nothing known"));
        return text;
    }
    push_line(&mut text, format_args!("the state directory {dir}\n"));
    let rows: Vec<_> = holding.files.iter().map(|file| row(file, now_unix)).collect();
    push_table(&mut text, COLUMNS, &rows, "no file is known");
    text.push('\n');
    for DamagedFile { path, reason } in &holding.damaged {
        let (path, reason) = (printable(path), printable(reason));
        push_line(&mut text, format_args!("damaged: {path}: {reason}"));
    }
    let Parked { dir, batches, bytes } = &holding.parked;
    push_line(
        &mut text,
        format_args!("set aside: {batches} batches, {}, in {}", size(*bytes), printable(dir)),
    );
    text
}

fn row(file: &HeldFile, now_unix: u64) -> [String; 7] {
    [
        printable(&file.path),
        format!("{}:{}", file.device, file.inode),
        file.offset.to_string(),
        file.size.map_or_else(|| "-".to_owned(), |size| size.to_string()),
        ago(file.seen_unix, now_unix),
        printable(file.found_at.as_deref().unwrap_or("-")),
        printable(&file.note),
    ]
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}
