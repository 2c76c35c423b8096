//! The files of the state directory: read whole, replaced whole or not at all.
//!
//! A file that is replaced many times a second changes places with a spare one, which is written over
//! each time: making and deleting a file costs some file systems (ext4) more than everything else
//! that the agent does meanwhile.
//!
//! Names are relative to an open directory, so that nothing is written to another one that has
//! taken its path. Whatever stands under a name (a directory, a link, a pipe), reading it does not
//! block, and writing does not follow it.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, RenameFlags, fsync, mkdirat, openat, renameat, renameat_with,
    statat, unlinkat,
};
use rustix::io::Errno;

/// Ending of the new name of a thing that stands in the way and may be somebody's.
pub(super) const ASIDE: &str = ".aside";

/// Most bytes of a file that can be ours: room for half a million checkpoints.
const BYTES_MAX: u64 = 128 << 20;

/// Reads a file. `None` if nothing has this name. If the file does not begin as it should, only the
/// beginning is read: the file may have any size.
///
/// # Errors
/// If it is no regular file, is larger than any of ours, or cannot be read.
pub(super) fn read(dir: &File, name: &str, begins: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file: File = match openat(dir, name, flags, Mode::empty()) {
        Ok(file) => file.into(),
        Err(Errno::NOENT) => return Ok(None),
        Err(Errno::LOOP) => return Err(io::Error::other("it is a link")),
        Err(error) => return Err(error.into()),
    };
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    if metadata.len() > BYTES_MAX {
        return Err(io::Error::other(format!("it has {} bytes", metadata.len())));
    }
    let mut bytes = Vec::new();
    (&file).take(begins.len() as u64).read_to_end(&mut bytes)?;
    if bytes == begins {
        // One more byte, so that its end is seen without growing.
        bytes.reserve(usize::try_from(metadata.len() + 1).unwrap_or_default());
        file.take(BYTES_MAX).read_to_end(&mut bytes)?;
    }
    Ok(Some(bytes))
}

/// Removes a file that could not be written: it would take up the room that the disk may be short
/// of.
fn unlink_after_failure(dir: &File, name: &str, written: &io::Result<u64>) {
    if written.is_err() {
        let _ = unlinkat(dir, name, AtFlags::empty());
    }
}

/// Has something written under `temporary`, syncs it, gives it its name, syncs the directory: in this
/// order, so that the name never points at bytes that are not there. Returns how many bytes they are.
///
/// # Errors
/// The first step that fails. The file under `name` is as it was, and nothing is left under
/// `temporary`; only where the sync of the directory has failed, the new file may be there.
pub(super) fn replace(
    dir: &File,
    temporary: &str,
    name: &str,
    write: impl FnOnce(&mut File) -> io::Result<u64>,
) -> io::Result<u64> {
    let written = write_new(dir, temporary, write, true).and_then(|bytes| {
        rename_over(dir, temporary, name).map(|()| bytes).map_err(io::Error::from)
    });
    unlink_after_failure(dir, temporary, &written);
    let bytes = written?;
    sync(dir)?;
    Ok(bytes)
}

/// Has something written over what stands under `spare` and lets it change places with the file under
/// `name`: whoever opens that finds an old or a new one. Waits for no disk. Returns how many bytes
/// they are.
///
/// # Errors
/// The first step that fails. The file under `name` is as it was, and nothing is left under `spare`.
pub(super) fn exchange(
    dir: &File,
    spare: &str,
    name: &str,
    write: impl FnOnce(&mut File) -> io::Result<u64>,
) -> io::Result<u64> {
    let written = write_over(dir, spare, write).and_then(|bytes| {
        exchange_names(dir, spare, name).map(|()| bytes).map_err(io::Error::from)
    });
    unlink_after_failure(dir, spare, &written);
    written
}

/// Makes a directory of this name, writes and syncs a file in it, renames that, and removes both.
///
/// # Errors
/// The first step that fails; what was made before is removed all the same.
pub(super) fn prove(dir: &File, name: &str) -> io::Result<()> {
    mkdirat(dir, name, Mode::RWXU)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let written = openat(dir, name, flags, Mode::empty())
        .map_err(io::Error::from)
        .and_then(|made| replace(&made.into(), "new", "file", whole(b"proof")));
    let _ = unlinkat(dir, format!("{name}/file"), AtFlags::empty());
    let removed = unlinkat(dir, name, AtFlags::REMOVEDIR);
    written.and(Ok(removed?))
}

/// Writes all of these bytes.
fn whole(bytes: &[u8]) -> impl FnOnce(&mut File) -> io::Result<u64> {
    move |file| file.write_all(bytes).map(|()| bytes.len() as u64)
}

/// Syncs a directory. On file systems that know no such thing (FUSE, network) there is nothing to
/// wait for.
///
/// # Errors
/// As fsync(2).
pub(super) fn sync(dir: &File) -> io::Result<()> {
    match fsync(dir) {
        Err(Errno::INVAL | Errno::BADF | Errno::NOSYS | Errno::NOTSUP) => Ok(()),
        synced => Ok(synced?),
    }
}

fn write_new(
    dir: &File,
    name: &str,
    write: impl FnOnce(&mut File) -> io::Result<u64>,
    is_durable: bool,
) -> io::Result<u64> {
    let mut file = match create(dir, name) {
        // Left behind by a crash, or put there by somebody.
        Err(Errno::EXIST) => {
            clear(dir, name)?;
            create(dir, name)?
        }
        created => created?,
    };
    let bytes = write(&mut file)?;
    if is_durable {
        file.sync_all()?;
    }
    Ok(bytes)
}

/// Writes to the file of this name if it is ours alone, otherwise to a new one.
fn write_over(
    dir: &File,
    name: &str,
    write: impl FnOnce(&mut File) -> io::Result<u64>,
) -> io::Result<u64> {
    let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let Ok(file) = openat(dir, name, flags, Mode::empty()) else {
        return write_new(dir, name, write, false);
    };
    let mut file = File::from(file);
    let metadata = file.metadata()?;
    // With a second name it is part of somebody's backup.
    if !metadata.is_file() || metadata.nlink() != 1 {
        return write_new(dir, name, write, false);
    }
    let bytes = write(&mut file)?;
    if metadata.len() > bytes {
        file.set_len(bytes)?;
    }
    Ok(bytes)
}

fn exchange_names(dir: &File, spare: &str, name: &str) -> rustix::io::Result<()> {
    let found = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW);
    if found.is_ok_and(|found| FileType::from_raw_mode(found.st_mode) == FileType::RegularFile) {
        // Some file systems cannot, and some sandboxes forbid it, each with an error of its own.
        if renameat_with(dir, spare, dir, name, RenameFlags::EXCHANGE).is_ok() {
            return Ok(());
        }
    }
    rename_over(dir, spare, name)
}

fn create(dir: &File, name: &str) -> rustix::io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    openat(dir, name, flags, Mode::RUSR | Mode::WUSR).map(File::from)
}

fn rename_over(dir: &File, temporary: &str, name: &str) -> rustix::io::Result<()> {
    match renameat(dir, temporary, dir, name) {
        Err(Errno::ISDIR) => {
            clear(dir, name)?;
            renameat(dir, temporary, dir, name)
        }
        renamed => renamed,
    }
}

/// Makes a name free. What may be somebody's, a directory with something in it, is kept under
/// another name.
pub(super) fn clear(dir: &File, name: &str) -> rustix::io::Result<()> {
    match unlinkat(dir, name, AtFlags::empty()) {
        Err(Errno::ISDIR) => {}
        removed => return removed,
    }
    match unlinkat(dir, name, AtFlags::REMOVEDIR) {
        Err(Errno::NOTEMPTY | Errno::EXIST) => renameat(dir, name, dir, format!("{name}{ASIDE}")),
        removed => removed,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use super::*;

    fn replaced(path: &Path) -> io::Result<u64> {
        replace(&File::open(path).unwrap(), "new.tmp", "file", whole(b"new"))
    }

    fn exchanged(path: &Path, bytes: &[u8]) -> io::Result<u64> {
        exchange(&File::open(path).unwrap(), "spare", "file", whole(bytes))
    }

    /// Tries whatever may stand under either of the two names.
    #[test]
    fn nothing_stands_in_its_way() {
        let things: [&dyn Fn(&Path); 6] = [
            &|_| {},
            &|path| fs::write(path, b"older and longer").unwrap(),
            &|path| fs::create_dir(path).unwrap(),
            &|path| symlink("nowhere", path).unwrap(),
            &|path| symlink("/etc", path).unwrap(),
            &|path| {
                fs::create_dir(path).unwrap();
                fs::write(path.join("somebody's"), b"").unwrap();
            },
        ];
        for (number, put) in things.into_iter().enumerate() {
            for name in ["file", "new.tmp", "spare"] {
                let dir = tempfile::tempdir().unwrap();
                put(&dir.path().join(name));

                let bytes = match name {
                    "spare" => exchanged(dir.path(), b"new").unwrap(),
                    _ => replaced(dir.path()).unwrap(),
                };
                assert_eq!(bytes, 3);

                let file = dir.path().join("file");
                assert_eq!(fs::read(&file).unwrap(), b"new", "{name}, thing {number}");
                assert!(fs::symlink_metadata(&file).unwrap().is_file());
                assert!(!dir.path().join("new.tmp").exists());
                assert!(!dir.path().join("nowhere").exists(), "a link is not followed");
            }
        }
    }

    #[test]
    fn files_that_change_places_are_not_made_anew() {
        let dir = tempfile::tempdir().unwrap();
        let inodes = || {
            let of = |name| Some(fs::metadata(dir.path().join(name)).ok()?.ino());
            [of("file"), of("spare")]
        };
        exchanged(dir.path(), b"the first and the longest").unwrap();
        exchanged(dir.path(), b"the second").unwrap();
        let [Some(file), Some(spare)] = inodes() else { panic!("{:?}", inodes()) };

        exchanged(dir.path(), b"third").unwrap();
        assert_eq!(inodes(), [Some(spare), Some(file)]);
        assert_eq!(fs::read(dir.path().join("file")).unwrap(), b"third");
        assert_eq!(fs::read(dir.path().join("spare")).unwrap(), b"the second");

        fs::hard_link(dir.path().join("spare"), dir.path().join("backup")).unwrap();
        exchanged(dir.path(), b"fourth").unwrap();
        assert_eq!(fs::read(dir.path().join("file")).unwrap(), b"fourth");
        assert_eq!(fs::read(dir.path().join("backup")).unwrap(), b"the second", "not ours alone");
    }

    #[test]
    fn what_stands_in_the_place_of_the_file_is_not_exchanged() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("file")).unwrap();
        fs::write(dir.path().join("file/somebody's"), b"kept").unwrap();

        exchanged(dir.path(), b"new").unwrap();

        assert_eq!(fs::read(dir.path().join("file")).unwrap(), b"new");
        assert_eq!(fs::read(dir.path().join("file.aside/somebody's")).unwrap(), b"kept");
    }

    /// Nothing that may stand under a name blocks a reader, is followed, or is taken for a file.
    #[test]
    fn reads_nothing_but_files() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::write(path("file"), b"text").unwrap();
        fs::create_dir(path("dir")).unwrap();
        symlink("file", path("link")).unwrap();
        File::create(path("sparse")).unwrap().set_len(BYTES_MAX + 1).unwrap();
        let kind = FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, path("pipe"), kind, Mode::RUSR, 0).unwrap();
        let opened = File::open(dir.path()).unwrap();

        assert_eq!(read(&opened, "file", b"te").unwrap().as_deref(), Some(&b"text"[..]));
        assert_eq!(read(&opened, "file", b"no").unwrap().as_deref(), Some(&b"te"[..]));
        assert_eq!(read(&opened, "nothing", b"te").unwrap(), None);
        for name in ["dir", "link", "sparse", "pipe"] {
            assert!(read(&opened, name, b"te").is_err(), "{name}");
        }
    }

    #[test]
    fn what_was_in_the_way_and_may_be_somebodys_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("file")).unwrap();
        fs::write(dir.path().join("file/somebody's"), b"kept").unwrap();

        replaced(dir.path()).unwrap();

        assert_eq!(fs::read(dir.path().join("file.aside/somebody's")).unwrap(), b"kept");
    }

    #[test]
    fn a_failure_leaves_the_old_file_and_no_temporary_one() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["file", "file.aside"] {
            fs::create_dir(dir.path().join(name)).unwrap();
            fs::write(dir.path().join(name).join("somebody's"), b"kept").unwrap();
        }

        replaced(dir.path()).unwrap_err();

        assert!(!dir.path().join("new.tmp").exists());
        assert!(dir.path().join("file/somebody's").exists());
    }
}
