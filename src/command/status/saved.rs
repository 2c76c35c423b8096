//! What the state directory holds, beside what is on disk now.
//!
//! Reads without the lock, so it may run beside an agent. Where the file that a checkpoint speaks
//! of cannot be found, its size and lag are unknown and `last_error` says why.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use serde::Serialize;

use crate::checkpoint::format::Checkpoint;
use crate::checkpoint::store;

/// The facts, in the form of `--json`.
#[derive(Clone, Debug, Serialize)]
pub struct Saved {
    /// Always `state directory`.
    pub source: &'static str,
    /// Why no running agent was asked.
    pub no_agent_reason: String,
    /// The directory.
    pub state_dir: String,
    /// Why it cannot be read; empty when it can.
    pub error: String,
    /// The files it knows, in order of path.
    pub files: Vec<SavedFile>,
    /// Checkpoint files that are there and cannot be used.
    pub damaged: Vec<DamagedFile>,
}

/// A file as its checkpoint knows it. Fields as in [`crate::base::report::FileReport`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SavedFile {
    /// Path as configured.
    pub path: String,
    /// Where it really was, links resolved.
    pub resolved: String,
    /// Always `saved`.
    pub state: &'static str,
    /// Device number.
    pub device: u64,
    /// Inode number.
    pub inode: u64,
    /// Size now; `None` if the file is not there any more.
    pub size: Option<u64>,
    /// The next start reads from here: the same as `acked_offset`.
    pub read_offset: u64,
    /// Offset below which everything was acknowledged.
    pub acked_offset: u64,
    /// What the next start would read; `None` if unknown.
    pub lag_bytes: Option<u64>,
    /// 0 if nothing is left to read; otherwise not known without an agent.
    pub lag_seconds: Option<u64>,
    /// When an agent last saw it, in Unix seconds.
    pub seen_unix: u64,
    /// What is wrong with it; empty when nothing is.
    pub last_error: String,
}

/// A checkpoint file that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DamagedFile {
    /// Where it is.
    pub path: String,
    /// What is wrong with it.
    pub reason: String,
}

impl Saved {
    /// Reads the directory and examines the files.
    #[must_use]
    pub fn read(dir: &Path, no_agent_reason: String) -> Self {
        let loaded = store::peek(dir);
        let mut files: Vec<SavedFile> = loaded.checkpoints.iter().map(SavedFile::of).collect();
        files.sort_by(|a, b| a.path.cmp(&b.path));
        let damaged = loaded
            .damaged
            .into_iter()
            .map(|(path, reason)| DamagedFile { path: path.display().to_string(), reason });
        Self {
            source: "state directory",
            no_agent_reason,
            state_dir: dir.display().to_string(),
            error: fs::read_dir(dir).err().map(|error| error.to_string()).unwrap_or_default(),
            files,
            damaged: damaged.collect(),
        }
    }
}

impl SavedFile {
    fn of(checkpoint: &Checkpoint) -> Self {
        let (size, last_error) = examine(checkpoint);
        // A file that is shorter than before is another one in the same place.
        let lag_bytes = size.map(|size| size.checked_sub(checkpoint.offset).unwrap_or(size));
        Self {
            path: checkpoint.path.display().to_string(),
            resolved: checkpoint.resolved.display().to_string(),
            state: "saved",
            device: checkpoint.device,
            inode: checkpoint.inode,
            size,
            read_offset: checkpoint.offset,
            acked_offset: checkpoint.offset,
            lag_bytes,
            lag_seconds: (lag_bytes == Some(0)).then_some(0),
            seen_unix: checkpoint.seen_unix,
            last_error,
        }
    }
}

/// The size of the file, if it is where it was, and what is wrong with it.
fn examine(checkpoint: &Checkpoint) -> (Option<u64>, String) {
    let place = checkpoint.resolved.display();
    match fs::metadata(&checkpoint.resolved) {
        Err(error) => (None, format!("cannot examine {place}: {error}")),
        Ok(found) if found.ino() != checkpoint.inode => {
            (None, format!("another file is at {place} now"))
        }
        Ok(found) if found.len() < checkpoint.offset => {
            let text = "it is shorter than what was delivered; it will be read from its first byte";
            (Some(found.len()), text.to_owned())
        }
        Ok(found) => (Some(found.len()), String::new()),
    }
}
