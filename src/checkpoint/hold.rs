//! The state directory while this process holds it: an open descriptor, and two locks.
//!
//! The first lock is flock(2) on the directory itself: it needs no file, so it can be had on a disk
//! that is full or read-only, and nobody undoes it by deleting one. The second is on the file
//! `lock`, for file systems that do not lock directories (NFS); its text tells people who holds it.
//! A process that finds either taken stays out.
//!
//! Everything is reached through the descriptor. Whatever becomes of the directory's name, nothing
//! is written to one that is not held.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FlockOperation, Mode, OFlags, Stat, flock, fstat, openat, statat};
use rustix::io::Errno;

use super::error::StoreError;
use super::files::{clear, read};

/// The lock file, in the state directory.
pub(super) const LOCK: &str = "lock";

/// The directory, open and locked.
pub(super) struct Hold {
    dir: File,
    /// Whether the lock on the directory itself could be had.
    is_dir_locked: bool,
    /// The lock file. `None` where there is none and none can be made: full, read-only. Then the
    /// directory itself is locked.
    lock: Option<File>,
}

impl Hold {
    /// Opens and locks the directory at `path`.
    ///
    /// # Errors
    /// If it cannot be opened, or another process holds it, or no lock at all can be had.
    pub(super) fn take(path: &Path) -> Result<Self, StoreError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = openat(CWD, path, flags, Mode::empty()).map_err(fail(path, "open it"))?;
        let mut hold = Self { dir: dir.into(), is_dir_locked: false, lock: None };
        hold.is_dir_locked = match lock(&hold.dir) {
            Ok(()) => true,
            Err(Errno::WOULDBLOCK) => return Err(hold.locked(path)),
            // The lock file decides.
            Err(_) => false,
        };
        hold.take_lock_file(path)?;
        Ok(hold)
    }

    /// The directory.
    pub(super) fn dir(&self) -> &File {
        &self.dir
    }

    /// Whether `path` still leads to this directory; if not, what has become of it.
    pub(super) fn lost(&self, path: &Path) -> Option<&'static str> {
        match statat(CWD, path, AtFlags::empty()) {
            Ok(found) if is_of(&self.dir, &found) => None,
            Ok(_) => Some("something else has taken its place"),
            Err(Errno::NOENT) => Some("it was removed"),
            Err(_) => Some("its path leads nowhere"),
        }
    }

    /// Whether the lock file is still the one that is held, or there was none.
    pub(super) fn has_lock_file(&self) -> bool {
        self.lock.as_ref().is_none_or(|lock| {
            let found = statat(&self.dir, LOCK, AtFlags::SYMLINK_NOFOLLOW);
            found.is_ok_and(|found| is_of(lock, &found))
        })
    }

    /// Makes and locks another lock file.
    ///
    /// # Errors
    /// As [`Self::take_lock_file`].
    pub(super) fn renew_lock_file(&mut self, path: &Path) -> Result<(), StoreError> {
        self.lock = None;
        self.take_lock_file(path)
    }

    /// Makes and locks the lock file, if none is held.
    ///
    /// # Errors
    /// If another process holds it. If it cannot be had for another reason, only where the
    /// directory itself is not locked.
    pub(super) fn take_lock_file(&mut self, path: &Path) -> Result<(), StoreError> {
        if self.lock.is_some() {
            return Ok(());
        }
        // Open for reading only, so that its disk may be made read-only. Some (NFS) lock only what
        // may be written.
        let open_and_lock = |access| {
            let file = self.open_lock_file(access)?;
            lock(&file).map(|()| file)
        };
        let taken = match open_and_lock(OFlags::RDONLY) {
            Err(Errno::BADF) => open_and_lock(OFlags::RDWR),
            taken => taken,
        };
        match taken {
            Ok(file) => self.lock = Some(file),
            Err(Errno::WOULDBLOCK) => return Err(self.locked(path)),
            Err(_) if self.is_dir_locked => return Ok(()),
            Err(error) => return Err(fail(path, "lock it")(error)),
        }
        self.sign();
        Ok(())
    }

    /// Writes the process id for people; the lock itself is the descriptor.
    fn sign(&self) {
        let flags = OFlags::WRONLY | OFlags::TRUNC | OFlags::NOFOLLOW;
        let flags = flags | OFlags::NONBLOCK | OFlags::CLOEXEC;
        if let Ok(file) = openat(&self.dir, LOCK, flags, Mode::empty()) {
            let text = format!("{}\n", std::process::id());
            let _ = File::from(file).write_all(text.as_bytes());
        }
    }

    /// Opens the lock file; makes it if it is missing or unusable.
    fn open_lock_file(&self, access: OFlags) -> rustix::io::Result<File> {
        let flags = OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let open = || openat(&self.dir, LOCK, access | flags, Mode::RUSR | Mode::WUSR);
        let opened = match open() {
            Err(Errno::LOOP | Errno::ISDIR | Errno::ACCESS | Errno::NXIO)
                if self.is_dir_locked && clear(&self.dir, LOCK).is_ok() =>
            {
                open()
            }
            opened => opened,
        };
        opened.map(File::from)
    }

    fn locked(&self, path: &Path) -> StoreError {
        let text = read(&self.dir, LOCK, b"").ok().flatten().unwrap_or_default();
        let id = str::from_utf8(&text).ok().and_then(|text| text.trim().parse::<u32>().ok());
        let holder = id.map_or_else(|| "unknown".to_owned(), |id| id.to_string());
        StoreError::Locked { dir: path.to_owned(), holder }
    }
}

fn lock(file: &File) -> rustix::io::Result<()> {
    flock(file, FlockOperation::NonBlockingLockExclusive)
}

fn is_of(file: &File, found: &Stat) -> bool {
    fstat(file).is_ok_and(|held| (held.st_dev, held.st_ino) == (found.st_dev, found.st_ino))
}

fn fail(path: &Path, action: &'static str) -> impl FnOnce(Errno) -> StoreError {
    let dir = path.to_owned();
    move |error| StoreError::Io { dir, action, error: io::Error::from(error) }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn refusal(path: &Path) -> String {
        Hold::take(path).err().expect("it is held").to_string()
    }

    #[test]
    fn a_lock_file_that_was_deleted_lets_nobody_in_and_is_made_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut hold = Hold::take(dir.path()).unwrap();
        fs::remove_file(dir.path().join(LOCK)).unwrap();

        assert!(!hold.has_lock_file());
        assert!(refusal(dir.path()).contains("in use by another agent"));
        hold.renew_lock_file(dir.path()).unwrap();

        assert!(hold.has_lock_file());
        assert!(refusal(dir.path()).contains(&std::process::id().to_string()));
        drop(hold);
        Hold::take(dir.path()).unwrap();
    }

    /// The lock on the file is the only one on a file system that does not lock directories.
    #[test]
    fn the_lock_file_refuses_too() {
        let dir = tempfile::tempdir().unwrap();
        let other = File::create(dir.path().join(LOCK)).unwrap();
        lock(&other).unwrap();
        assert!(refusal(dir.path()).contains("in use by another agent (process unknown)"));
        fs::write(dir.path().join(LOCK), b"\x1b[2J and a long story").unwrap();
        assert!(refusal(dir.path()).contains("in use by another agent (process unknown)"));
        fs::write(dir.path().join(LOCK), b"4711\n").unwrap();
        assert!(refusal(dir.path()).contains("in use by another agent (process 4711)"));
    }

    #[test]
    fn whatever_stands_in_the_place_of_the_lock_file_makes_way() {
        let put: [&dyn Fn(&Path); 3] = [
            &|path| fs::create_dir(path).unwrap(),
            &|path| symlink("nowhere", path).unwrap(),
            &|path| fs::write(path, b"4711 and a long story").unwrap(),
        ];
        for put in put {
            let dir = tempfile::tempdir().unwrap();
            put(&dir.path().join(LOCK));
            let _hold = Hold::take(dir.path()).unwrap();
            let text = fs::read_to_string(dir.path().join(LOCK)).unwrap();
            assert_eq!(text, format!("{}\n", std::process::id()));
        }
    }

    #[test]
    fn says_what_has_become_of_it() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("state");
        fs::create_dir(&path).unwrap();
        let hold = Hold::take(&path).unwrap();
        assert_eq!(hold.lost(&path), None);

        fs::rename(&path, parent.path().join("moved")).unwrap();
        assert_eq!(hold.lost(&path), Some("it was removed"));
        fs::write(&path, b"").unwrap();
        assert_eq!(hold.lost(&path), Some("something else has taken its place"));
        fs::remove_file(&path).unwrap();
        symlink("moved", &path).unwrap();
        assert_eq!(hold.lost(&path), None, "the same directory over a link");
    }
}
