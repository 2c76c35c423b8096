//! Reopening: a descriptor that leads to a volume of before is replaced.
//!
//! A volume that is mounted anew, or a server that was restarted, leaves descriptors that answer
//! nothing but ESTALE (NFS), ENOTCONN or ECONNABORTED (FUSE), EBADF (SMB) or the like, for ever. Or they
//! answer, as long as anybody has them open, and the same file is found under another device number. It
//! is still there, so it is opened again: in its place, or under the name that its inode has there now.
//! The rules are those of a file that a checkpoint remembers: where it may be read
//! (`Patterns::permits`), and which bytes prove that it is the same (`identity`). Of two that are open
//! the same size and time of change prove it too. Of a compressed one these are the first of its
//! text; those before the offset are compared by the next read, which decodes it up to there.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::Collector;
use super::said::Kind;
use crate::base::span::FileKey;
use crate::checkpoint::format::Checkpoint;
use crate::checkpoint::keep::Keep;
use crate::tail::catalog::judge::{Match, Seen, Stat, compare};
use crate::tail::discover::{Found, Permission};
use crate::tail::os::{Os, OsEntry as _};
use crate::tail::reader::Reader;
use crate::tail::tracked::{State, Tracked};

/// Most names of a directory among which a renamed file is looked for.
const NAMES_MAX: usize = 1000;

/// Whether the descriptor will never answer again, although the file may be there.
pub(super) fn is_stale(error: &io::Error) -> bool {
    const STALE: [Errno; 7] = [
        Errno::STALE,
        Errno::NOTCONN,
        Errno::CONNABORTED,
        Errno::SHUTDOWN,
        Errno::HOSTDOWN,
        Errno::NODEV,
        Errno::BADF,
    ];
    STALE.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

impl<O: Os, K: Keep> Collector<O, K> {
    /// Asks files that a look does not find any more whether their descriptors are stale, or whether
    /// they are found on another device, before what stands in their places is taken for new.
    pub(super) fn reopen_stale(&mut self, found: &[Found]) {
        let inodes: HashSet<_> = found.iter().map(|found| (found.device, found.inode)).collect();
        let paths: HashSet<&OsStr> = found.iter().map(|found| found.path.as_os_str()).collect();
        // What was not found for a while may have answered from a cache.
        let is_asked = |tracked: &Tracked| {
            !inodes.contains(&(tracked.opened.device, tracked.opened.inode))
                && (tracked.state == State::Active
                    || !tracked.last_error.is_empty()
                    || paths.contains(tracked.sighting.path.as_os_str()))
        };
        let asked = self.registry.iter().filter(|(_, tracked)| is_asked(tracked));
        let asked: Vec<FileKey> = asked.map(|(file, _)| file).collect();
        if asked.is_empty() {
            return;
        }
        let is_new = |found: &&Found| self.registry.find(found.device, found.inode).is_none();
        let new: HashMap<u64, PathBuf> =
            found.iter().filter(is_new).map(|found| (found.inode, found.path.clone())).collect();
        for file in asked {
            self.breathe();
            let stat = self.stat(file);
            let inode = self.registry.get(file).map(|tracked| tracked.opened.inode);
            if let (Some(stat), Some(path)) = (stat, inode.and_then(|inode| new.get(&inode)))
                && stat.links > 0
            {
                self.move_over(file, path);
            }
        }
    }

    /// Goes on by another descriptor in a file that is found on another device, if it is the same.
    fn move_over(&mut self, file: FileKey, path: &Path) {
        let (Some(tracked), Some(old)) = (self.registry.get(file), self.readers.get(&file)) else {
            return;
        };
        let before = tracked.opened.device;
        let Ok((reader, stat, place)) = self.open_again(tracked, old, path) else { return };
        if self.replace(file, reader, stat, &place).is_ok() && self.said.admits(Kind::Reopened) {
            tracing::info!(
                file = %path.display(), before, device = stat.device,
                "its volume was mounted again under another number; going on there"
            );
        }
    }

    /// Opens a file again whose descriptor says `error`, and goes on where it was. Returns what the
    /// new descriptor says of it.
    ///
    /// # Errors
    /// If it is not found or may not be read; then this is asked again with the next look.
    pub(super) fn reopen(&mut self, file: FileKey, error: &io::Error) -> io::Result<Stat> {
        let (Some(tracked), Some(old)) = (self.registry.get(file), self.readers.get(&file)) else {
            return Err(Errno::NOENT.into());
        };
        let configured = tracked.opened.path.clone();
        let (reader, stat, place) = self.find_again(tracked, old)?;
        self.replace(file, reader, stat, &place)?;
        if self.said.admits(Kind::Reopened) {
            tracing::warn!(
                file = %configured.display(), resolved = %place.display(), error = %error,
                "the file system has given its descriptor up; opened it again"
            );
        }
        Ok(stat)
    }

    /// Replaces the descriptor by which a file is read.
    fn replace(
        &mut self,
        file: FileKey,
        reader: Reader<O::File>,
        stat: Stat,
        place: &Path,
    ) -> io::Result<()> {
        if !self.registry.on_reopened(file, stat, place) {
            return Err(io::Error::other("what stands there is shipped as another file"));
        }
        let found_as = reader.gzip().map(|gzip| gzip.as_of());
        if let (Some(found_as), Some(tracked)) = (found_as, self.registry.get_mut(file)) {
            tracked.sighting.found_as = found_as;
            tracked.unpacked_unix = Some(self.os.wall().as_secs());
        }
        self.readers.insert(file, reader);
        self.intake.mark(file);
        self.ledger.note(true);
        Ok(())
    }

    /// Finds the file of this name or inode again, if it may be read and is the same.
    fn find_again(
        &self,
        tracked: &Tracked,
        old: &Reader<O::File>,
    ) -> io::Result<(Reader<O::File>, Stat, PathBuf)> {
        let opened = &tracked.opened;
        let mut last = Err(Errno::NOENT.into());
        for path in self.candidates(&opened.resolved, opened.inode) {
            last = self.open_again(tracked, old, &path);
            if last.is_ok() {
                break;
            }
        }
        last
    }

    /// The paths under which a file may stand: first where it was, then names in the same directory
    /// that have its inode number. (What a served file system lists may have other inode numbers
    /// than its files.)
    fn candidates(&self, place: &Path, inode: u64) -> Vec<PathBuf> {
        let dir = place.parent().and_then(|dir| self.patterns.enter(&self.os, dir));
        let names = dir.iter().flat_map(|dir| {
            let entries = self.os.list(dir).into_iter().flatten().flatten();
            entries.map(|entry| dir.join(entry.name()))
        });
        let names = names.take(NAMES_MAX);
        let renamed = names.filter(|path| {
            path != place && self.os.lstat(path).is_ok_and(|found| found.inode == inode)
        });
        [place.to_owned()].into_iter().chain(renamed).collect()
    }

    fn open_again(
        &self,
        tracked: &Tracked,
        old: &Reader<O::File>,
        path: &Path,
    ) -> io::Result<(Reader<O::File>, Stat, PathBuf)> {
        let opened = &tracked.opened;
        let forbidden = || io::Error::other("it is not among the files to ship now");
        let other = || io::Error::other("another file stands in its place");
        if self.patterns.permits(&self.os, &opened.path, path) != Permission::Granted {
            return Err(forbidden());
        }
        let mut reader = Reader::open(&self.os, path)?;
        let stat = reader.stat()?;
        let told = reader.whereabouts(&self.os, path)?;
        let place = self.patterns.place(&self.os, path, &told, (stat.device, stat.inode));
        let place = place.filter(|_| stat.is_file).ok_or_else(forbidden)?;
        let known = Checkpoint {
            device: opened.device,
            inode: opened.inode,
            born: opened.born,
            head: opened.head,
            tail: tracked.tail,
            offset: tracked.read_offset,
            ..Checkpoint::default()
        };
        let text = match old.gzip() {
            Some(_) if !reader.is_gzip()? => return Err(other()),
            Some(_) => Some(reader.unpack()?),
            None => None,
        };
        let is_head_same = match &text {
            Some(text) => text.has_head(known.head),
            None => reader.has_head(known.head)?,
        };
        let seen = Seen {
            device: stat.device,
            inode: stat.inode,
            born: stat.born,
            is_same_path: *place == *opened.resolved,
            is_head_same,
            is_tail_same: is_head_same
                && (text.is_some()
                    || stat.size >= known.offset && reader.has_tail(known.tail, known.offset)?),
        };
        let are_bytes_same = seen.is_head_same && seen.is_tail_same;
        let is_twin = are_bytes_same && old.stat().is_ok_and(|old| is_twin(&old, &stat));
        if !is_twin && compare(&known, seen) != Match::Resume {
            return Err(other());
        }
        if let (Some(mut text), Some(old)) = (text, old.gzip()) {
            text.replace(&old);
            reader.show(text);
        }
        let stat = reader.stat()?;
        Ok((reader, stat, place))
    }
}

/// Whether two open descriptors lead to one file on two devices.
fn is_twin(one: &Stat, other: &Stat) -> bool {
    let facts = |stat: &Stat| (stat.inode, stat.born, stat.size, stat.changed);
    one.size > 0 && one.device != other.device && facts(one) == facts(other)
}
