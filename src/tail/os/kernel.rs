//! The system itself: Linux.
//!
//! The only file below `tail` and `collector` that asks the kernel anything. Each method is one call, or the
//! few that answer one question; nothing is remembered.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File, FileType, Metadata, OpenOptions};
use std::io::{self, Read as _};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{
    DirEntryExt as _, FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _,
};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, UNIX_EPOCH};

use inotify::{EventMask, WatchDescriptor, WatchMask};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{
    AtFlags, CWD, Mode, OFlags, ResolveFlags, SeekFrom, StatxAttributes, StatxFlags, openat2, seek,
    statx,
};
use rustix::io::Errno;

use super::{Event, Facts, Kind, Os, OsEntry, OsFile, OsWatch, WatchId, What};
use crate::access;
use crate::base::clock;
use crate::limit::cgroup::Limits;
use crate::tail::served;

/// Size of the buffer for events in bytes: 64 KiB hold some 2,000 events.
const EVENTS_BYTES: usize = 64 * 1024;

/// The system that this process runs on.
#[derive(Clone, Copy, Debug, Default)]
pub struct Kernel;

impl Os for Kernel {
    type File = File;
    type Entry = fs::DirEntry;
    type Dir = fs::ReadDir;
    type Watch = Inotify;

    fn now(&self) -> Instant {
        clock::now()
    }

    fn wall(&self) -> Duration {
        clock::wall()
    }

    fn cpu(&self) -> Duration {
        clock::cpu()
    }

    fn thread_cpu(&self) -> Duration {
        clock::thread_cpu()
    }

    fn random(&self, bytes: &mut [u8]) -> io::Result<()> {
        File::open("/dev/urandom")?.read_exact(bytes)
    }

    fn limits(&self) -> Limits {
        Limits::read(Path::new("/"))
    }

    fn trim_memory(&self) {
        logferry_trim::trim();
    }

    fn wait(
        &self,
        mail: BorrowedFd<'_>,
        watch: Option<&Inotify>,
        at_most: Option<Duration>,
    ) -> bool {
        let mail = PollFd::from_borrowed_fd(mail, PollFlags::IN);
        let time = at_most.map(timespec);
        let came = match watch {
            Some(watch) => {
                let events = PollFd::from_borrowed_fd(watch.as_fd(), PollFlags::IN);
                poll(&mut [mail, events], time.as_ref())
            }
            None => poll(&mut [mail], time.as_ref()),
        };
        // Interrupted or not: the caller looks at everything again.
        came != Ok(0)
    }

    fn open(&self, path: &Path) -> io::Result<File> {
        let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
        let flags = i32::try_from(flags.bits()).expect("flags of open(2) are an int");
        OpenOptions::new().read(true).custom_flags(flags).open(path)
    }

    fn stat(&self, path: &Path) -> io::Result<Facts> {
        fs::metadata(path).map(|metadata| facts(&metadata))
    }

    fn lstat(&self, path: &Path) -> io::Result<Facts> {
        fs::symlink_metadata(path).map(|metadata| facts(&metadata))
    }

    fn stat_without_links(&self, path: &Path) -> io::Result<Facts> {
        let (flags, follow) = (OFlags::PATH | OFlags::CLOEXEC, ResolveFlags::NO_SYMLINKS);
        File::from(openat2(CWD, path, flags, Mode::empty(), follow)?).facts()
    }

    fn list(&self, dir: &Path) -> io::Result<fs::ReadDir> {
        fs::read_dir(dir)
    }

    fn link_target(&self, path: &Path) -> io::Result<PathBuf> {
        fs::read_link(path)
    }

    fn real(&self, path: &Path) -> io::Result<PathBuf> {
        fs::canonicalize(path)
    }

    fn is_mount(&self, dir: &Path) -> Option<bool> {
        let mask = StatxFlags::BASIC_STATS;
        let found = statx(CWD, dir, AtFlags::SYMLINK_NOFOLLOW, mask).ok()?;
        let is_told = found.stx_attributes_mask.contains(StatxAttributes::MOUNT_ROOT);
        is_told.then(|| found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
    }

    fn file_system(&self, path: &Path) -> Option<u32> {
        let told = rustix::fs::statfs(path).ok()?;
        Some(served::magic(told.f_type))
    }

    fn watch(&self) -> io::Result<Inotify> {
        let channel = inotify::Inotify::init()?;
        Ok(Inotify { channel, watched: HashMap::new(), buffer: vec![0; EVENTS_BYTES] })
    }

    fn explain(&self, path: &Path) -> Option<String> {
        access::explain_log(path)
    }
}

impl OsFile for File {
    fn facts(&self) -> io::Result<Facts> {
        self.metadata().map(|metadata| facts(&metadata))
    }

    fn dated_facts(&self) -> io::Result<(Facts, Duration)> {
        let facts = self.facts()?;
        Ok((facts, clock::wall()))
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        std::os::unix::fs::FileExt::read_at(self, buffer, offset)
    }

    fn data_after(&self, offset: u64) -> io::Result<Option<u64>> {
        match seek(self, SeekFrom::Data(offset)) {
            Ok(data) => Ok(Some(data)),
            Err(Errno::NXIO) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn place(&self) -> Option<(PathBuf, bool)> {
        let link = format!("/proc/self/fd/{}", self.as_raw_fd());
        let path = fs::read_link(link).ok()?;
        match path.as_os_str().as_bytes().strip_suffix(b" (deleted)") {
            Some(was) => Some((OsStr::from_bytes(was).into(), true)),
            None => Some((path, false)),
        }
    }

    fn is_open_for_writing(&self) -> Option<bool> {
        logferry_lease::is_open_for_writing(self.as_fd()).ok()
    }

    fn file_system(&self) -> Option<u32> {
        let told = rustix::fs::fstatfs(self).ok()?;
        Some(served::magic(told.f_type))
    }
}

impl OsEntry for fs::DirEntry {
    fn name(&self) -> std::ffi::OsString {
        self.file_name()
    }

    fn inode(&self) -> u64 {
        self.ino()
    }

    fn kind(&self) -> io::Result<Kind> {
        self.file_type().map(kind)
    }

    fn facts(&self) -> io::Result<Facts> {
        self.metadata().map(|metadata| facts(&metadata))
    }
}

/// The notifications of inotify(7).
#[derive(Debug)]
pub struct Inotify {
    channel: inotify::Inotify,
    /// What the library calls each watch.
    watched: HashMap<i32, WatchDescriptor>,
    buffer: Vec<u8>,
}

impl AsFd for Inotify {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }
}

impl OsWatch for Inotify {
    fn add(&mut self, dir: &Path, writes: bool) -> io::Result<WatchId> {
        let watch = self.channel.watches().add(dir, mask(writes))?;
        let id = watch.get_watch_descriptor_id();
        self.watched.insert(id, watch);
        Ok(WatchId(id))
    }

    fn remove(&mut self, id: WatchId) {
        if let Some(watch) = self.watched.remove(&id.0) {
            // Fails when the kernel has removed it with its directory; the same in the end.
            let _ = self.channel.watches().remove(watch);
        }
    }

    fn read(&mut self, mut each: impl FnMut(Event<'_>)) -> io::Result<()> {
        for event in self.channel.read_events(&mut self.buffer)? {
            let dir = WatchId(event.wd.get_watch_descriptor_id());
            let what = what(event.mask);
            if what == What::Ended {
                self.watched.remove(&dir.0);
            }
            let is_dir = event.mask.contains(EventMask::ISDIR);
            each(Event { dir, what, is_dir, name: event.name });
        }
        Ok(())
    }
}

fn mask(writes: bool) -> WatchMask {
    let names = WatchMask::CREATE
        | WatchMask::MOVED_TO
        | WatchMask::MOVED_FROM
        | WatchMask::DELETE
        | WatchMask::DELETE_SELF
        | WatchMask::MOVE_SELF
        | WatchMask::ATTRIB
        | WatchMask::ONLYDIR
        // One directory may be watched under two paths.
        | WatchMask::MASK_ADD;
    if writes { names | WatchMask::MODIFY } else { names }
}

fn what(flags: EventMask) -> What {
    let names = [
        (EventMask::Q_OVERFLOW, What::Overflow),
        (EventMask::MODIFY, What::Written),
        (EventMask::ATTRIB, What::Attributes),
        (EventMask::IGNORED, What::Ended),
        (EventMask::CREATE, What::Created),
        (EventMask::MOVED_TO, What::MovedTo),
        (EventMask::MOVED_FROM, What::MovedFrom),
        (EventMask::DELETE, What::Deleted),
    ];
    let name = names.into_iter().find(|(flag, _)| flags.contains(*flag));
    name.map_or(What::Dir, |(_, what)| what)
}

fn facts(metadata: &Metadata) -> Facts {
    let born = metadata.created().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    Facts {
        device: metadata.dev(),
        inode: metadata.ino(),
        born: born.map_or(0, |born| i64::try_from(born.as_nanos()).unwrap_or(i64::MAX)),
        size: metadata.size(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
        changed: (metadata.ctime(), metadata.ctime_nsec()),
        links: metadata.nlink(),
        kind: kind(metadata.file_type()),
    }
}

fn kind(told: FileType) -> Kind {
    if told.is_file() {
        Kind::File
    } else if told.is_dir() {
        Kind::Dir
    } else if told.is_symlink() {
        Kind::Link
    } else if told.is_fifo() {
        Kind::Pipe
    } else if told.is_socket() {
        Kind::Socket
    } else if told.is_block_device() {
        Kind::BlockDevice
    } else {
        Kind::CharDevice
    }
}

/// A duration as the system takes it, rounded up to a whole millisecond, so that a deadline has
/// passed when the wait for it is over.
fn timespec(duration: Duration) -> Timespec {
    if duration.is_zero() {
        return Timespec::default();
    }
    let rounded = duration + Duration::from_nanos(999_999);
    Timespec {
        tv_sec: i64::try_from(rounded.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(rounded.subsec_millis()) * 1_000_000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_a_name_stands_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::write(path("file"), "text").unwrap();
        fs::create_dir(path("dir")).unwrap();
        std::os::unix::fs::symlink("file", path("link")).unwrap();

        let entries = Kernel.list(dir.path()).unwrap().map(Result::unwrap);
        let mut listed: Vec<_> =
            entries.map(|one| (one.name(), one.kind().unwrap(), one.inode())).collect();
        listed.sort_by(|a, b| a.0.cmp(&b.0));

        let inode = |name: &str| Kernel.lstat(&path(name)).unwrap().inode;
        let expected = [("dir", Kind::Dir), ("file", Kind::File), ("link", Kind::Link)];
        assert_eq!(listed, expected.map(|(name, kind)| (name.into(), kind, inode(name))));
        let (file, link) =
            (Kernel.stat(&path("file")).unwrap(), Kernel.stat(&path("link")).unwrap());
        assert_eq!((file.size, file.links, file), (4, 1, link));
        assert_eq!(Kernel.lstat(&path("link")).unwrap().kind, Kind::Link);
        assert!(Kernel.stat_without_links(&path("link")).is_err() || !has_openat2(dir.path()));
    }

    fn has_openat2(dir: &Path) -> bool {
        Kernel.stat_without_links(dir).is_ok()
    }

    #[test]
    fn says_where_an_open_file_is_and_that_it_was_deleted() {
        let dir = tempfile::tempdir().unwrap();
        let path = Kernel.real(dir.path()).unwrap().join("app.log");
        fs::write(&path, "text").unwrap();
        let file = Kernel.open(&path).unwrap();
        assert_eq!(file.place(), Some((path.clone(), false)));
        assert_eq!(file.data_after(0).unwrap(), Some(0));
        assert_eq!(file.data_after(4).unwrap(), None);

        fs::remove_file(&path).unwrap();

        assert_eq!(file.place(), Some((path, true)));
        assert_eq!(file.facts().unwrap().links, 0);
        let mut buffer = [0; 8];
        assert_eq!(OsFile::read_at(&file, &mut buffer, 1).unwrap(), 3);
    }

    #[test]
    fn tells_of_names_and_writes_in_their_order() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let mut watch = Kernel.watch().unwrap();
        let id = watch.add(dir.path(), true).unwrap();
        assert_eq!(watch.add(&dir.path().join("."), false).unwrap(), id);
        let told = |watch: &mut Inotify| {
            let mut told = Vec::new();
            let read = watch.read(|event| {
                assert!(event.dir == id);
                told.push((event.what, event.name.unwrap_or_default().to_owned(), event.is_dir));
            });
            (told, read.map_err(|error| error.kind()))
        };
        assert_eq!(told(&mut watch), (Vec::new(), Err(io::ErrorKind::WouldBlock)));

        fs::write(path("a"), "text").unwrap();
        fs::rename(path("a"), path("b")).unwrap();
        fs::remove_file(path("b")).unwrap();
        fs::create_dir(path("c")).unwrap();
        watch.remove(id);

        let (told, read) = told(&mut watch);
        let expected = [
            (What::Created, "a", false),
            (What::Written, "a", false),
            (What::MovedFrom, "a", false),
            (What::MovedTo, "b", false),
            (What::Deleted, "b", false),
            (What::Created, "c", true),
            (What::Ended, "", false),
        ];
        assert_eq!(told, expected.map(|(what, name, is_dir)| (what, name.into(), is_dir)));
        assert_eq!(read, Ok(()));
    }

    #[test]
    fn a_wait_ends_with_mail_or_an_event_or_the_time() {
        let dir = tempfile::tempdir().unwrap();
        let mut watch = Kernel.watch().unwrap();
        watch.add(dir.path(), false).unwrap();
        let (mail, sender) = io::pipe().unwrap();
        let short = Some(Duration::from_millis(1));
        assert!(!Kernel.wait(mail.as_fd(), Some(&watch), short));

        fs::write(dir.path().join("a"), "").unwrap();
        assert!(Kernel.wait(mail.as_fd(), Some(&watch), None));
        assert!(!Kernel.wait(mail.as_fd(), None, Some(Duration::ZERO)));
        drop(sender);
        assert!(Kernel.wait(mail.as_fd(), None, None));
    }
}
