//! `logferry checkpoint import FILE`: takes over what logtail had read, so that a running sidecar
//! can be replaced without sending everything again.
//!
//! An entry is taken over only if the file is surely the one that logtail read: it has the inode,
//! and it begins with the bytes that logtail's signature covers. Device numbers are compared only
//! where there is no signature: two containers may count the same disk differently. What is not
//! taken over is shipped from its first byte, so that a doubt repeats lines and loses none.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read as _, Write};
use std::path::Path;

use super::find::Finder;
use super::state::{Error, cannot, open};
use crate::base::clock;
use crate::base::fingerprint::{Fingerprint, TAIL_BYTES_MAX};
use crate::checkpoint::format::Checkpoint;
use crate::checkpoint::logtail::{self, Entry, SIGNATURE_BYTES_MAX, Unusable};
use crate::command::table::{printable, size};
use crate::config::Kept;
use crate::tail::catalog::judge::Stat;
use crate::tail::os::OsFile;
use crate::tail::os::kernel::Kernel;
use crate::tail::reader::Reader;

/// The most files that logtail remembers take less.
const FILE_BYTES_MAX: u64 = 256 << 20;

/// What became of an entry.
enum Outcome {
    /// The entry will be a checkpoint of ours.
    Imported { checkpoint: Box<Checkpoint>, bytes: u64 },
    /// The state directory knew the file before, up to this offset.
    Known { offset: u64 },
    /// The entry is left out, for this reason.
    Skipped(String),
}

/// Takes over what can be taken over from `file`, and says what became of each entry.
///
/// # Errors
/// If `file` cannot be read or is something else, an agent runs, or the state directory cannot be
/// written. Entries that are left out are no error.
pub fn run(file: &Path, kept: &Kept, out: &mut impl Write) -> Result<(), Error> {
    let bytes = read(file).map_err(|error| Error::Read { file: file.to_owned(), error })?;
    let mut entries =
        logtail::parse(&bytes).map_err(|error| Error::Format { file: file.to_owned(), error })?;
    // Of two entries for one file, as two of logtail's configurations make them, the one that had
    // read less counts.
    entries.sort_by_key(|entry| entry.as_ref().map_or(0, |entry| entry.offset));

    let (mut store, loaded) = open(&kept.state_dir)?;
    let mut takeover = Takeover::new(loaded.checkpoints, clock::wall().as_secs());
    let mut outcomes: Vec<_> = entries.into_iter().map(|entry| takeover.take(entry)).collect();
    outcomes.sort_by(|(a, _), (b, _)| a.cmp(b));
    store
        .save(&takeover.checkpoints, true)
        .map_err(cannot("write a checkpoint", &kept.state_dir))?;

    for (path, outcome) in &outcomes {
        writeln!(out, "{}", line(path, outcome, kept))?;
    }
    let count = |is_it: fn(&Outcome) -> bool| outcomes.iter().filter(|(_, one)| is_it(one)).count();
    writeln!(
        out,
        "{} imported, {} already known, {} skipped; the state directory is {}",
        count(|one| matches!(one, Outcome::Imported { .. })),
        count(|one| matches!(one, Outcome::Known { .. })),
        count(|one| matches!(one, Outcome::Skipped(_))),
        printable(&kept.state_dir.display().to_string()),
    )?;
    Ok(())
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        let limit = size(FILE_BYTES_MAX);
        return Err(io::Error::other(format!("it is larger than {limit}")));
    }
    Ok(bytes)
}

fn line(path: &str, outcome: &Outcome, kept: &Kept) -> String {
    let path = printable(path);
    match outcome {
        Outcome::Imported { checkpoint, bytes } => {
            let remark = if kept.reach.includes(&checkpoint.path) {
                String::new()
            } else {
                format!(
                    "; `paths` does not find this name: only what is left of this file is \
                     shipped, unless `logferry checkpoint reset {path}` forgets it"
                )
            };
            format!(
                "imported: {path} from byte {} of {bytes} on (inode {}, at {}){remark}",
                checkpoint.offset,
                checkpoint.inode,
                printable(&checkpoint.resolved.display().to_string()),
            )
        }
        Outcome::Known { offset } => {
            format!("already known: {path}, delivered up to byte {offset}; left as it is")
        }
        Outcome::Skipped(reason) => {
            format!("skipped: {path}: {}; shipped from its first byte if found", printable(reason))
        }
    }
}

/// The checkpoints to be saved, while entry after entry joins them.
struct Takeover {
    /// The checkpoints; the ones that were known before come first.
    checkpoints: Vec<Checkpoint>,
    known_count: usize,
    /// Indexes into `checkpoints`.
    by_inode: HashMap<u64, Vec<usize>>,
    finder: Finder,
    /// Now, in Unix seconds.
    unix: u64,
}

impl Takeover {
    fn new(known: Vec<Checkpoint>, unix: u64) -> Self {
        let mut takeover = Self {
            checkpoints: Vec::new(),
            known_count: known.len(),
            by_inode: HashMap::new(),
            finder: Finder::default(),
            unix,
        };
        known.into_iter().for_each(|one| takeover.push(one));
        takeover
    }

    fn push(&mut self, checkpoint: Checkpoint) {
        self.by_inode.entry(checkpoint.inode).or_default().push(self.checkpoints.len());
        self.checkpoints.push(checkpoint);
    }

    /// The name of the entry, and what became of it.
    fn take(&mut self, entry: Result<Entry, Unusable>) -> (String, Outcome) {
        let entry = match entry {
            Ok(entry) => entry,
            Err(Unusable { name, reason }) => return (name, Outcome::Skipped(reason)),
        };
        let outcome = self.examine(&entry).unwrap_or_else(Outcome::Skipped);
        if let Outcome::Imported { checkpoint, .. } = &outcome {
            self.push(Checkpoint::clone(checkpoint));
        }
        (entry.path.display().to_string(), outcome)
    }

    /// Finds the file and looks at it.
    ///
    /// # Errors
    /// Why it is not taken over, for people.
    fn examine(&mut self, entry: &Entry) -> Result<Outcome, String> {
        let places: Vec<&Path> = entry.places.iter().map(AsRef::as_ref).collect();
        let found = self.finder.find(&places, entry.inode).map_err(|error| error.to_string())?;
        let cannot = |error: io::Error| format!("cannot read {}: {error}", found.path.display());
        let reader = Reader::open(&Kernel, &found.path).map_err(cannot)?;
        let stat = reader.stat().map_err(cannot)?;
        if !stat.is_file || stat.inode != entry.inode {
            return Err("it was replaced a moment ago".to_owned());
        }
        if let Some(outcome) = self.find_known(&reader, stat).map_err(cannot)? {
            return Ok(outcome);
        }
        let head = first_bytes(&reader).map_err(cannot)?;
        prove(entry, found.is_moved, stat, &head)?;
        let checkpoint = Checkpoint {
            path: entry.path.clone(),
            resolved: reader.path().unwrap_or_else(|| found.path.clone()),
            device: stat.device,
            inode: stat.inode,
            born: stat.born,
            offset: entry.offset,
            // Of the bytes that were proved, not of what may stand there by now.
            head: Fingerprint::of_head(&head),
            tail: whole_tail(&reader, entry.offset).map_err(cannot)?,
            seen_unix: self.unix,
            ..Checkpoint::default()
        };
        Ok(Outcome::Imported { checkpoint: Box::new(checkpoint), bytes: stat.size })
    }

    /// What becomes of an entry whose file has a checkpoint already: one with the same inode, and
    /// the same device or the same first bytes.
    fn find_known(&self, reader: &Reader<impl OsFile>, stat: Stat) -> io::Result<Option<Outcome>> {
        for &index in self.by_inode.get(&stat.inode).into_iter().flatten() {
            let one = &self.checkpoints[index];
            let is_it =
                one.device == stat.device || (one.head.len > 0 && reader.has_head(one.head)?);
            if is_it && index < self.known_count {
                return Ok(Some(Outcome::Known { offset: one.offset }));
            } else if is_it {
                let reason = "another entry for this file had read less, and that one counts";
                return Ok(Some(Outcome::Skipped(reason.to_owned())));
            }
        }
        Ok(None)
    }
}

/// As many as a signature may cover, or as there are.
fn first_bytes(reader: &Reader<impl OsFile>) -> io::Result<Vec<u8>> {
    let mut buffer = [0; SIGNATURE_BYTES_MAX];
    Ok(reader.read_once(&mut buffer, 0)?.to_vec())
}

/// Whether the file is the one that logtail read, and still holds what it had read.
fn prove(entry: &Entry, is_moved: bool, stat: Stat, head: &[u8]) -> Result<(), String> {
    match entry.signature {
        Some(signature) if !signature.matches_start_of(head) => Err(format!(
            "its first {} bytes are not those that logtail saw: it was rewritten, or another file \
             has its inode now",
            signature.len
        )),
        None if is_moved || entry.device != Some(stat.device) => {
            Err("logtail had no signature of it, and it was renamed or is on another device"
                .to_owned())
        }
        _ if entry.offset > stat.size => Err(format!(
            "logtail had read {} bytes, and it has {}: it was truncated",
            entry.offset, stat.size
        )),
        _ => Ok(()),
    }
}

/// The fingerprint of the bytes just before `offset`, all of which must be there.
fn whole_tail(reader: &Reader<impl OsFile>, offset: u64) -> io::Result<Fingerprint> {
    let tail = reader.tail(offset)?;
    if u64::from(tail.len) == offset.min(TAIL_BYTES_MAX as u64) {
        Ok(tail)
    } else {
        Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it was truncated a moment ago"))
    }
}
