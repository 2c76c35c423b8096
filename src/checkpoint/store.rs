//! The state directory: its lock, its checkpoint files, and batches set aside.
//!
//! ```text
//! lock           held for the life of the agent (flock(2)); its text is the process id
//! checkpoint.0   saved through to the disk, in turn
//! checkpoint.1
//! checkpoint.now saved at each move of a watermark, not waiting for the disk
//! parked/        one file for each batch that the service refused for good
//! ```
//!
//! Each file is written under a temporary name and renamed, so that a reader finds an old or a new
//! one, never a half.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use serde::Serialize;

use super::format::{self, Checkpoint};
use crate::sealed::SealedBatch;

/// The state directory in use by this process.
pub struct Store {
    dir: PathBuf,
    /// Generation of the last save.
    generation: u64,
    /// Which of the two durable files is written next: the older one.
    next_slot: usize,
    /// Holds the lock.
    #[expect(dead_code, reason = "held, not used: closing it gives the lock up")]
    lock: File,
}

/// What was found at the start.
#[derive(Debug, Default)]
pub struct Loaded {
    /// The newest intact checkpoints; empty on the first start.
    pub checkpoints: Vec<Checkpoint>,
    /// Files that were there and could not be used, with the reason.
    pub damaged: Vec<(PathBuf, String)>,
}

/// Why the state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Making, opening or writing failed.
    #[error(
        "the state directory {dir} cannot be used: {action}: {error}; give the agent a directory \
         that it may write, on a disk that outlives the pod (LOGFERRY_STATE_DIR)"
    )]
    Io {
        /// The directory.
        dir: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the system said.
        error: io::Error,
    },
    /// Another process holds the lock.
    #[error(
        "the state directory {dir} is in use by another agent (process {holder}); two agents must \
         not share one: give each its own LOGFERRY_STATE_DIR"
    )]
    Locked {
        /// The directory.
        dir: PathBuf,
        /// The text of the lock file: a process id, as its own container counts.
        holder: String,
    },
}

const DURABLE: [&str; 2] = ["checkpoint.0", "checkpoint.1"];
const FAST: &str = "checkpoint.now";

impl Store {
    /// Makes the directory (0700) if it is missing, takes the lock, loads what is there, and
    /// proves that it can be written.
    ///
    /// # Errors
    /// If the directory cannot be made, locked or written. A damaged checkpoint is no error.
    pub fn open(dir: &Path) -> Result<(Self, Loaded), StoreError> {
        let fail = |action| {
            let dir = dir.to_owned();
            move |error| StoreError::Io { dir, action, error }
        };
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(fail("make it"))?;
        let lock = take_lock(dir)?;
        let (generation, next_slot, loaded) = load(dir);
        let mut store = Self { dir: dir.to_owned(), generation, next_slot, lock };
        store.save(&loaded.checkpoints, true).map_err(fail("write a checkpoint"))?;
        Ok((store, loaded))
    }

    /// Saves the checkpoints. *Durability*: an `Ok` survives the death of the process; with
    /// `is_durable` also the death of the machine, for two syncs, of the file and of the directory.
    ///
    /// # Errors
    /// If writing, syncing or renaming fails. The files of earlier saves are as they were.
    pub fn save(&mut self, checkpoints: &[Checkpoint], is_durable: bool) -> io::Result<()> {
        let bytes = format::encode(self.generation + 1, checkpoints);
        let name = if is_durable { DURABLE[self.next_slot] } else { FAST };
        self.write(&self.dir.join(name), &bytes, is_durable)?;
        self.generation += 1;
        if is_durable {
            self.next_slot = 1 - self.next_slot;
        }
        Ok(())
    }

    /// Sets a refused batch aside: one file in `parked/`, a line of JSON with all that is needed
    /// to send it again, then the payload. *Durability*: an `Ok` survives the death of the machine.
    ///
    /// # Errors
    /// If writing fails; then the batch must be kept and parked later.
    pub fn park(
        &self,
        batch: &SealedBatch,
        code: &str,
        message: &str,
        unix: u64,
    ) -> io::Result<PathBuf> {
        let dir = self.dir.join("parked");
        DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
        let header = ParkedHeader {
            path: &batch.path,
            start: batch.span.start,
            end: batch.span.end,
            lines: batch.lines,
            raw_bytes: batch.raw_bytes,
            compression: batch.compression.name(),
            code,
            message,
            parked_unix: unix,
        };
        let mut bytes = serde_json::to_vec(&header)?;
        bytes.push(b'\n');
        bytes.extend_from_slice(&batch.payload);
        // The generation tells runs apart that end and begin within a second.
        let path = dir.join(format!("{unix}-{}-{}.batch", self.generation, batch.id.0));
        self.write(&path, &bytes, true)?;
        sync_dir(&dir)?;
        Ok(path)
    }

    /// Temporary file, (sync,) rename, (sync of the directory): in this order, so that the name
    /// never points at bytes that are not there.
    fn write(&self, path: &Path, bytes: &[u8], is_durable: bool) -> io::Result<()> {
        let temporary = path.with_extension("tmp");
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all(bytes)?;
        if is_durable {
            file.sync_all()?;
        }
        fs::rename(&temporary, path)?;
        if is_durable { sync_dir(&self.dir) } else { Ok(()) }
    }
}

#[derive(Serialize)]
struct ParkedHeader<'a> {
    path: &'a str,
    start: u64,
    end: u64,
    lines: u32,
    raw_bytes: u32,
    compression: &'a str,
    code: &'a str,
    message: &'a str,
    parked_unix: u64,
}

/// Reads the newest intact checkpoints of a state directory without taking its lock.
#[must_use]
pub fn peek(dir: &Path) -> Loaded {
    load(dir).2
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

fn take_lock(dir: &Path) -> Result<File, StoreError> {
    let path = dir.join("lock");
    let fail = |error| StoreError::Io { dir: dir.to_owned(), action: "open the lock", error };
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(fail)?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let holder = fs::read_to_string(&path).unwrap_or_default().trim().to_owned();
            return Err(StoreError::Locked { dir: dir.to_owned(), holder });
        }
        Err(error) => return Err(fail(error.into())),
    }
    // The text is for people; the lock itself is the descriptor.
    let text = format!("{}\n", std::process::id());
    let _ = file.set_len(0).and_then(|()| file.write_all(text.as_bytes()));
    Ok(file)
}

/// Generation to go on from, the durable file to write next, and what was found.
fn load(dir: &Path) -> (u64, usize, Loaded) {
    let mut loaded = Loaded::default();
    let mut newest = None;
    let mut durable = [0; 2];
    for (index, name) in [DURABLE[0], DURABLE[1], FAST].into_iter().enumerate() {
        let path = dir.join(name);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => {
                loaded.damaged.push((path, error.to_string()));
                continue;
            }
        };
        match format::decode(&bytes) {
            Ok((generation, checkpoints)) => {
                if let Some(slot) = durable.get_mut(index) {
                    *slot = generation;
                }
                if newest.is_none_or(|newest| newest < generation) {
                    newest = Some(generation);
                    loaded.checkpoints = checkpoints;
                }
            }
            Err(error) => loaded.damaged.push((path, error.to_string())),
        }
    }
    let next_slot = usize::from(durable[1] < durable[0]);
    (newest.unwrap_or(0), next_slot, loaded)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checkpoint(offset: u64) -> Checkpoint {
        Checkpoint {
            path: "/share/logs/app.log".into(),
            resolved: "/data/pod/logs/app.log".into(),
            device: 1,
            inode: 2,
            offset,
            head: Default::default(),
            tail: Default::default(),
            seen_unix: 3,
            ..Checkpoint::default()
        }
    }

    fn offsets(loaded: &Loaded) -> Vec<u64> {
        loaded.checkpoints.iter().map(|checkpoint| checkpoint.offset).collect()
    }

    #[test]
    fn the_newest_of_all_files_wins() {
        let dir = tempfile::tempdir().unwrap();
        let (mut store, first) = Store::open(dir.path()).unwrap();
        assert!(first.checkpoints.is_empty());
        for (offset, is_durable) in [(1, true), (2, false), (3, true), (4, false), (5, true)] {
            store.save(&[checkpoint(offset)], is_durable).unwrap();
            assert_eq!(offsets(&peek(dir.path())), [offset]);
        }
        drop(store);
        assert_eq!(offsets(&Store::open(dir.path()).unwrap().1), [5]);
    }

    /// Whatever one of the three files has become, an older intact one is used.
    #[test]
    fn a_damaged_file_is_passed_over_and_named() {
        for (name, expected) in [("checkpoint.now", 2), ("checkpoint.0", 3), ("checkpoint.1", 3)] {
            for damage in [&b""[..], b"LFCKPT\r\n", &[0; 300]] {
                let dir = tempfile::tempdir().unwrap();
                let mut store = Store::open(dir.path()).unwrap().0;
                store.save(&[checkpoint(1)], true).unwrap();
                store.save(&[checkpoint(2)], true).unwrap();
                store.save(&[checkpoint(3)], false).unwrap();
                drop(store);
                fs::write(dir.path().join(name), damage).unwrap();

                let (_store, loaded) = Store::open(dir.path()).unwrap();

                assert_eq!(offsets(&loaded), [expected], "{name}");
                assert_eq!(loaded.damaged[0].0, dir.path().join(name));
            }
        }
    }

    /// A crash between any two steps of a save leaves the last good state: the temporary file is
    /// not looked at.
    #[test]
    fn a_half_written_save_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = Store::open(dir.path()).unwrap().0;
        store.save(&[checkpoint(1)], true).unwrap();
        drop(store);
        fs::write(dir.path().join("checkpoint.tmp"), b"LFCK").unwrap();
        assert_eq!(offsets(&Store::open(dir.path()).unwrap().1), [1]);
    }

    #[test]
    fn a_second_agent_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let _first = Store::open(dir.path()).unwrap();
        let refusal = Store::open(dir.path()).err().unwrap().to_string();
        assert!(refusal.contains("in use by another agent"), "{refusal}");
        assert!(refusal.contains(&std::process::id().to_string()), "{refusal}");
    }

    #[test]
    fn a_path_that_is_no_directory_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, b"").unwrap();
        let refusal = Store::open(&file).err().unwrap().to_string();
        assert!(refusal.contains(file.to_str().unwrap()), "{refusal}");
    }

    #[test]
    fn a_parked_batch_holds_all_that_is_needed_to_send_it_again() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap().0;
        let batch = SealedBatch {
            id: crate::sealed::BatchId(7),
            span: crate::span::Span::new(crate::span::FileKey(1), 10, 20),
            path: "/share/logs/app.log".into(),
            payload: b"payload".as_slice().into(),
            compression: crate::wire::Compression::Lz4,
            raw_bytes: 9,
            lines: 2,
        };
        let path = store.park(&batch, "PostBodyInvalid", "bad", 5).unwrap();
        let bytes = fs::read(path).unwrap();
        let (header, payload) = bytes.split_at(bytes.iter().position(|&b| b == b'\n').unwrap());
        assert_eq!(&payload[1..], b"payload");
        let header: serde_json::Value = serde_json::from_slice(header).unwrap();
        assert_eq!(header["code"], "PostBodyInvalid");
        assert_eq!((&header["start"], &header["end"]), (&10.into(), &20.into()));
    }
}
