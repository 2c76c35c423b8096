//! The state directory: its lock, its checkpoint files, and batches set aside.
//!
//! ```text
//! lock           held for the life of the agent (flock(2)); its text is the process id
//! checkpoint.0   saved through to the disk, in turn
//! checkpoint.1
//! checkpoint.now saved at each move of a watermark, not waiting for the disk
//! checkpoint.spare what it was before, to be written over: nobody reads it
//! parked/        one file for each record that the service refused for good
//! ```
//!
//! Each file is written under another name and renamed, so that a reader finds an old or a new one,
//! never a half. (Who reads beside the agent may be so slow that `checkpoint.now` is the spare one
//! meanwhile: [`peek`] looks again.)
//!
//! # Trouble
//! A directory that worked before may become full, read-only, damaged, or be gone. Each save begins
//! with a look at what was left by the one before, and makes and locks again what is not there any
//! more. So a save that fails is all that the caller needs to know of: tried again, it works as soon
//! as it can. A directory that somebody else holds meanwhile is not touched.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, statat};

use super::error::StoreError;
use super::files;
use super::format::{self, Checkpoint};
use super::hold::{self, Hold};
use super::parked::{self, Circumstances};
use crate::access;
use crate::base::sealed::{Refusal, SealedBatch};
use crate::plan::Plan;

/// The state directory in use by this process.
pub struct Store {
    dir: PathBuf,
    /// The lock on the directory; `None` while it cannot be had.
    hold: Option<Hold>,
    /// Generation of the last save that was tried: greater than any in the directory.
    generation: u64,
    /// Which of the two durable files is written next: the older one.
    next_slot: usize,
    /// The last good save of this process, if the directory that it went to is still held.
    left: Option<Left>,
}

/// A file as it was left.
struct Left {
    name: &'static str,
    bytes: u64,
}

/// What the agent found in the state directory at its start.
#[derive(Debug, Default)]
pub struct Loaded {
    /// The newest intact checkpoints; empty on the first start.
    pub checkpoints: Vec<Checkpoint>,
    /// Files that were there and could not be used, with the reason.
    pub damaged: Vec<(PathBuf, String)>,
}

/// What is not as this process has left it.
#[derive(Clone, Copy)]
enum Trouble {
    /// The directory is another one, or there is none.
    Dir(&'static str),
    /// The lock file is another one, or there is none.
    Lock,
    /// The last save is another file, or there is none.
    File(&'static str),
}

const DURABLE: [&str; 2] = ["checkpoint.0", "checkpoint.1"];
const FAST: &str = "checkpoint.now";
const SPARE: &str = "checkpoint.spare";
const TEMPORARY: &str = "checkpoint.tmp";

/// Beginning of the name of the file that [`prove`] makes and removes again; a process id follows.
const PROOF: &str = "checkpoint.proof.";

/// Whether a name in a state directory is one of the agent's own files, or what was in the place of one.
#[must_use]
pub fn is_own(name: &OsStr) -> bool {
    let name = name.as_encoded_bytes();
    let name = name.strip_suffix(files::ASIDE.as_bytes()).unwrap_or(name);
    let names = [FAST, SPARE, TEMPORARY, hold::LOCK, parked::DIR];
    DURABLE.into_iter().chain(names).any(|own| own.as_bytes() == name)
        || name.starts_with(PROOF.as_bytes())
}

/// How often the agent looks again at a state directory that seems damaged and may only be in use.
const LOOKS_MAX: usize = 4;

impl Store {
    /// Makes the directory (0700) if it is missing, takes the lock, loads what is there, and
    /// proves that it can be written. That proof may wait for later if the directory has worked
    /// before (it holds an intact checkpoint), or if its disk is full.
    ///
    /// # Errors
    /// If the directory cannot be made, locked or written. A damaged checkpoint is no error.
    pub fn open(dir: &Path) -> Result<(Self, Loaded), StoreError> {
        let dir = dir.to_owned();
        let mut store = Self { dir, hold: None, generation: 0, next_slot: 0, left: None };
        let loaded = match store.take() {
            Ok(loaded) => loaded,
            Err(error) if error.is_full() => return Ok((store, Loaded::default())),
            Err(error) => return Err(error),
        };
        let has_worked = store.generation > 0;
        let all = loaded.checkpoints.iter().map(Cow::Borrowed);
        let written = store.write(loaded.checkpoints.len(), all, true).map_err(|error| {
            let dir = store.dir.clone();
            StoreError::Io { dir, action: "write a checkpoint", error }
        });
        match written {
            Err(error) if !has_worked && !error.is_full() => Err(error),
            // The next save says so.
            Ok(()) | Err(_) => Ok((store, loaded)),
        }
    }

    /// Saves the checkpoints. *Durability*: an `Ok` survives the death of the process; with
    /// `is_durable` also the death of the machine, for two syncs, of the file and of the directory.
    ///
    /// # Errors
    /// If writing, syncing or renaming fails; then the files of earlier saves are as they were. Also
    /// if what was saved before is gone: once, so that somebody hears of it, though what can be made
    /// again has been. Either way the caller should try again in some seconds.
    pub fn save(&mut self, checkpoints: &[Checkpoint], is_durable: bool) -> io::Result<()> {
        self.save_each(checkpoints.len(), checkpoints.iter().map(Cow::Borrowed), is_durable)
    }

    /// Saves so many checkpoints as [`Self::save`] does, and never has all of them at once.
    ///
    /// # Errors
    /// As [`Self::save`]; and if they are not as many.
    pub fn save_each<'a>(
        &mut self,
        count: usize,
        checkpoints: impl Iterator<Item = Cow<'a, Checkpoint>>,
        is_durable: bool,
    ) -> io::Result<()> {
        let trouble = self.regain()?;
        self.write(count, checkpoints, is_durable).map_err(explain(&self.dir))?;
        trouble.map_or(Ok(()), |trouble| Err(self.describe(trouble)))
    }

    /// Whether the directory does not hold the last save any more, or none was possible yet. A
    /// caller that has nothing new to save asks now and then, and saves if it is so. *Cost*: a few
    /// calls of stat(2).
    #[must_use]
    pub fn needs_save(&self) -> bool {
        self.left.is_none() || self.trouble().is_some()
    }

    /// Sets a refused batch of this plan aside: one file in `parked/`, with all that is needed to send
    /// it again (see [`parked`]). *Durability*: an `Ok` survives the death of the machine.
    ///
    /// # Errors
    /// If writing fails; then the batch must be kept and parked later.
    pub fn park(
        &mut self,
        batch: &SealedBatch,
        plan: &Plan,
        refusal: &Refusal,
        unix: u64,
    ) -> io::Result<PathBuf> {
        self.regain()?;
        let name = parked::name(unix, self.generation, batch.id);
        let circumstances = Circumstances { plan, refusal, unix };
        let dir = self.dir.join(parked::DIR);
        parked::write(self.held().dir(), &name, batch, &circumstances).map_err(explain(&dir))?;
        Ok(dir.join(name))
    }

    fn held(&self) -> &Hold {
        self.hold.as_ref().expect("who writes has taken the directory before")
    }

    /// Makes the directory, holds it, and reads what is there.
    fn take(&mut self) -> Result<Loaded, StoreError> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&self.dir);
        made.map_err(|error| StoreError::Io { dir: self.dir.clone(), action: "make it", error })?;
        let held = Hold::take(&self.dir)?;
        parked::tidy(held.dir());
        let (generation, next_slot, loaded) = load(&self.dir, held.dir());
        self.generation = self.generation.max(generation);
        self.next_slot = next_slot;
        self.hold = Some(held);
        Ok(loaded)
    }

    /// Makes and locks again what is gone, and says what was.
    fn regain(&mut self) -> Result<Option<Trouble>, StoreError> {
        let trouble = self.trouble();
        if let Some(Trouble::Dir(_)) = trouble {
            self.let_go();
        }
        let Some(held) = &mut self.hold else {
            self.take()?;
            return Ok(trouble);
        };
        let locked = match trouble {
            Some(Trouble::Lock) => held.renew_lock_file(&self.dir),
            Some(Trouble::Dir(_) | Trouble::File(_)) | None => held.take_lock_file(&self.dir),
        };
        locked.inspect_err(|_| self.let_go())?;
        Ok(trouble)
    }

    fn let_go(&mut self) {
        (self.hold, self.left) = (None, None);
    }

    fn trouble(&self) -> Option<Trouble> {
        let held = self.hold.as_ref()?;
        if let Some(what) = held.lost(&self.dir) {
            return Some(Trouble::Dir(what));
        }
        if !held.has_lock_file() {
            return Some(Trouble::Lock);
        }
        let left = self.left.as_ref()?;
        let found = statat(held.dir(), left.name, AtFlags::SYMLINK_NOFOLLOW);
        let is_as_left = found.is_ok_and(|found| {
            FileType::from_raw_mode(found.st_mode) == FileType::RegularFile
                && u64::try_from(found.st_size) == Ok(left.bytes)
        });
        (!is_as_left).then_some(Trouble::File(left.name))
    }

    fn describe(&self, trouble: Trouble) -> io::Error {
        let dir = self.dir.display();
        io::Error::other(match trouble {
            Trouble::Dir(what) => {
                format!("the state directory {dir} was lost ({what}), made again")
            }
            Trouble::Lock => format!("{dir}/{} was removed by somebody, made again", hold::LOCK),
            Trouble::File(name) => format!("{dir}/{name} was changed by somebody, written again"),
        })
    }

    /// Writes to the directory that is held.
    fn write<'a>(
        &mut self,
        count: usize,
        checkpoints: impl Iterator<Item = Cow<'a, Checkpoint>>,
        is_durable: bool,
    ) -> io::Result<()> {
        // Another one with each try: of a save that failed half the way, a file may be there.
        self.generation = self.generation.saturating_add(1);
        let write = |file: &mut File| format::write(file, self.generation, count, checkpoints);
        let dir = self.held().dir();
        let (name, bytes) = if is_durable {
            let name = DURABLE[self.next_slot];
            (name, files::replace(dir, TEMPORARY, name, write)?)
        } else {
            (FAST, files::exchange(dir, SPARE, FAST, write)?)
        };
        self.left = Some(Left { name, bytes });
        if is_durable {
            self.next_slot = 1 - self.next_slot;
        }
        Ok(())
    }
}

/// Tries what [`Store::open`] needs, beside an agent too, and leaves everything as it was: a directory is
/// made in this one, or where this one would have to be made, and in it a file, which is renamed.
///
/// # Errors
/// What will be in the way.
pub fn prove(dir: &Path) -> Result<(), StoreError> {
    let fail = |action| {
        let dir = dir.to_owned();
        move |error| StoreError::Io { dir, action, error }
    };
    let is_there = |path: &&Path| path.symlink_metadata().is_ok();
    let nearest = dir.ancestors().find(is_there).unwrap_or_else(|| Path::new("/"));
    let action = if nearest == dir { "write a checkpoint" } else { "make it" };
    let opened = File::open(nearest).map_err(fail("open it"))?;
    files::prove(&opened, &format!("{PROOF}{}", std::process::id())).map_err(fail(action))
}

/// Whether an agent has saved its state in a directory: then the next one starts even if it cannot.
#[must_use]
pub fn has_worked(dir: &Path) -> bool {
    File::open(dir).is_ok_and(|opened| load(dir, &opened).0 > 0)
}

/// Reads the newest intact checkpoints of a state directory without taking its lock.
#[must_use]
pub fn peek(dir: &Path) -> Loaded {
    let Ok(opened) = File::open(dir) else { return Loaded::default() };
    let looks = (0..LOOKS_MAX).map(|_| load(dir, &opened).2);
    let mut looks = looks.skip_while(|loaded| !loaded.damaged.is_empty());
    looks.next().unwrap_or_else(|| load(dir, &opened).2)
}

fn explain(dir: &Path) -> impl FnOnce(io::Error) -> io::Error {
    move |error| {
        let advice = match error.kind() {
            io::ErrorKind::FileTooLarge => {
                "; raise the limit of file sizes (ulimit -f, RLIMIT_FSIZE)"
            }
            _ => "",
        };
        let dir = dir.display();
        io::Error::new(error.kind(), format!("cannot write to {dir}: {error}{advice}"))
    }
}

/// Generation to go on from, the durable file to write next, and what was found in `opened`, which
/// messages call `dir`.
fn load(dir: &Path, opened: &File) -> (u64, usize, Loaded) {
    let read = |name| match files::read(opened, name, format::MAGIC) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let why = access::explain_state_file(&dir.join(name), dir);
            Err(why.map_or_else(|| error.to_string(), |why| format!("{error}: {why}")))
        }
        read => read.map_err(|error| error.to_string()),
    };
    let mut loaded = Loaded::default();
    let mut intact = Vec::new();
    let mut durable = [0; 2];
    // There may be very many entries: those of one file are decoded.
    for (index, name) in [DURABLE[0], DURABLE[1], FAST].into_iter().enumerate() {
        let generation =
            |bytes: Vec<u8>| format::generation(&bytes).map_err(|error| error.to_string());
        match read(name).and_then(|found| found.map(generation).transpose()) {
            Ok(None) => {}
            Ok(Some(generation)) => {
                if let Some(slot) = durable.get_mut(index) {
                    *slot = generation;
                }
                intact.push((generation, name));
            }
            Err(reason) => loaded.damaged.push((dir.join(name), reason)),
        }
    }
    let next_slot = usize::from(durable[1] < durable[0]);
    intact.sort_unstable_by(|a, b| b.cmp(a));
    for (_, name) in intact {
        // Beside an agent it may be another one by now.
        let decode = |bytes: Vec<u8>| format::decode(&bytes).map_err(|error| error.to_string());
        match read(name).and_then(|found| found.map(decode).transpose()) {
            Ok(None) => {}
            Ok(Some((generation, checkpoints))) => {
                loaded.checkpoints = checkpoints;
                return (generation, next_slot, loaded);
            }
            Err(reason) => loaded.damaged.push((dir.join(name), reason)),
        }
    }
    (0, next_slot, loaded)
}

#[cfg(test)]
mod tests {
    use std::fs;

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

    /// What a running agent's directory may become, what the next save says of it, and that the
    /// directory is as it should be afterwards.
    #[test]
    fn what_is_gone_is_made_again_and_said_once() {
        type Case<'a> = (&'a dyn Fn(&Path), &'a str);
        let cases: [Case<'_>; 7] = [
            (&|dir| fs::remove_dir_all(dir).unwrap(), "it was removed"),
            (&|dir| fs::rename(dir, dir.with_extension("old")).unwrap(), "it was removed"),
            (
                &|dir| {
                    fs::rename(dir, dir.with_extension("old")).unwrap();
                    fs::create_dir(dir).unwrap();
                },
                "something else has taken its place",
            ),
            (&|dir| fs::remove_file(dir.join("lock")).unwrap(), "lock was removed"),
            (&|dir| fs::remove_file(dir.join("checkpoint.now")).unwrap(), "now was changed"),
            (&|dir| fs::write(dir.join("checkpoint.now"), b"short").unwrap(), "now was changed"),
            (
                &|dir| {
                    fs::remove_file(dir.join("checkpoint.now")).unwrap();
                    fs::create_dir(dir.join("checkpoint.now")).unwrap();
                },
                "now was changed",
            ),
        ];
        for (change, words) in cases {
            let parent = tempfile::tempdir().unwrap();
            let dir = parent.path().join("state");
            let mut store = Store::open(&dir).unwrap().0;
            store.save(&[checkpoint(1)], false).unwrap();
            assert!(!store.needs_save());
            change(&dir);
            assert!(store.needs_save(), "{words}");

            let said = store.save(&[checkpoint(2)], false).unwrap_err().to_string();

            assert!(said.contains(words), "{words:?} in {said:?}");
            assert_eq!(offsets(&peek(&dir)), [2], "{words}");
            assert!(!store.needs_save());
            store.save(&[checkpoint(3)], false).unwrap();
            assert!(matches!(Store::open(&dir), Err(StoreError::Locked { .. })), "{words}");
        }
    }

    #[test]
    fn a_file_in_the_place_of_the_directory_is_waited_for() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("state");
        let mut store = Store::open(&dir).unwrap().0;
        fs::remove_dir_all(&dir).unwrap();
        fs::write(&dir, b"somebody's").unwrap();
        for _ in 0..2 {
            store.save(&[checkpoint(1)], true).unwrap_err();
        }
        assert_eq!(fs::read(&dir).unwrap(), b"somebody's");
        fs::remove_file(&dir).unwrap();
        store.save(&[checkpoint(2)], true).unwrap();
        assert_eq!(offsets(&peek(&dir)), [2]);
    }

    #[test]
    fn a_directory_that_another_agent_has_taken_is_not_touched() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("state");
        let mut store = Store::open(&dir).unwrap().0;
        fs::remove_dir_all(&dir).unwrap();
        let (mut other, _) = Store::open(&dir).unwrap();
        other.save(&[checkpoint(7)], true).unwrap();

        let said = store.save(&[checkpoint(1)], true).unwrap_err().to_string();

        assert!(said.contains("in use by another agent"), "{said}");
        assert_eq!(offsets(&peek(&dir)), [7]);
        assert!(store.needs_save());
        drop(other);
        store.save(&[checkpoint(1)], true).unwrap();
        assert_eq!(offsets(&peek(&dir)), [1], "newer than what the other one left");
    }

    /// The state of a backup, or of another agent, is put in the place of the directory.
    #[test]
    fn a_save_is_newer_than_whatever_it_finds() {
        let parent = tempfile::tempdir().unwrap();
        let (dir, other) = (parent.path().join("state"), parent.path().join("other"));
        let mut newer = Store::open(&other).unwrap().0;
        for offset in 10..20 {
            newer.save(&[checkpoint(offset)], true).unwrap();
        }
        drop(newer);
        let mut store = Store::open(&dir).unwrap().0;
        fs::remove_dir_all(&dir).unwrap();
        fs::rename(&other, &dir).unwrap();

        store.save(&[checkpoint(1)], false).unwrap_err();

        assert_eq!(offsets(&peek(&dir)), [1]);
    }
}
