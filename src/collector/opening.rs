//! Opening: a file that was found is shipped, waits, or stays closed, as its bytes say.
//!
//! Whose bytes they are is told in `copies`; here is what follows from that.

use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use super::Collector;
use super::copies::{Origin, SOUGHT};
use super::idle::found_as;
use super::said::Kind;
use crate::base::span::{FileKey, StreamKey};
use crate::checkpoint::format::Checkpoint;
use crate::checkpoint::keep::Keep;
use crate::tail::catalog::entry::Closed;
use crate::tail::catalog::judge::Stat;
use crate::tail::catalog::names;
use crate::tail::discover::Found;
use crate::tail::os::Os;
use crate::tail::reader::Reader;
use crate::tail::tracked::{Opened, State};

impl<O: Os, K: Keep> Collector<O, K> {
    /// Opens a file that discovery found, and goes on where it was left. Returns device and inode,
    /// if it is a file.
    pub(super) fn open_found(
        &mut self,
        found: &Found,
        now: Instant,
    ) -> io::Result<Option<(u64, u64)>> {
        self.make_descriptor_room(now)?;
        let mut reader = Reader::open(&self.os, &found.path)?;
        let stat = reader.stat()?;
        if !stat.is_file {
            return Ok(None);
        }
        let inode = (stat.device, stat.inode);
        if self.registry.find(stat.device, stat.inode).is_some() {
            return Ok(Some(inode));
        }
        // What was written over is judged again when all that was read of it has arrived.
        if self.registry.has_ended(&stat) {
            self.look.unopened.add_unacknowledged(&found.path);
            return Ok(Some(inode));
        }
        // A link may have come into its way since it was found.
        let told = reader.whereabouts(&self.os, &found.path)?;
        let Some(resolved) = self.patterns.place(&self.os, &found.path, &told, inode) else {
            let why = format!("it leads out of the allowed directories: {}", told.display());
            return Err(io::Error::other(why));
        };
        if self.is_about_to_be_packed(&stat, &found.path) {
            return Ok(Some(inode));
        }
        if reader.is_gzip()? {
            if self.was_delivered(&stat) {
                self.catalog.on_closed(inode, Closed::Idle(found_as(found)));
                return Ok(Some(inode));
            }
            if !self.unpack(&mut reader, &stat, &found.path)? {
                return Ok(Some(inode));
            }
        }
        let saved = match self.origin(&found.path, &resolved, &reader)? {
            Origin::New => None,
            Origin::Known(saved) => Some(saved),
            Origin::CopyOf(suspect) => {
                self.note_copy((&found.path, &resolved), &reader, found_as(found), suspect, now)?;
                return Ok(Some(inode));
            }
            Origin::Later => {
                self.note_waiting(found);
                self.look.unopened.add(&found.path, SOUGHT);
                self.look.want_scan_after_search();
                return Ok(Some(inode));
            }
            Origin::Overwritten => {
                self.catalog.on_no_log(inode, &found.path, found_as(found));
                return Ok(Some(inode));
            }
        };
        let is_unpacked = reader.is_unpacked();
        let path = self.path_of(saved.as_ref(), &found.path);
        // Its bytes were compared a moment ago, and it has not been written to since.
        let is_known = |saved: &Checkpoint| saved.offset == stat.size && !is_unpacked;
        let is_as_delivered = saved.as_ref().is_some_and(is_known);
        if saved.as_ref().is_some_and(|saved| saved.path == found.path && !saved.is_copy) {
            self.note_in_place(&found.path, &resolved);
        }
        let file = self.begin(path, resolved, reader, saved, State::Active, now)?;
        if let Some(tracked) = self.registry.get_mut(file) {
            tracked.sighting.path = shared(&tracked.opened.path, &found.path);
            if let Some(name) = tracked.opened.path.file_name()
                && Some(name) != found.path.file_name()
            {
                tracked.sighting.named = tracked.opened.resolved.with_file_name(name).into();
            }
            tracked.sighting.found_as = found_as(found);
            tracked.modified = stat.modified.filter(|_| is_as_delivered);
        }
        self.examine(file, !is_as_delivered, now);
        if is_unpacked {
            self.read_unpacked(file, now);
        }
        Ok(Some(inode))
    }

    /// The path under which a file is shipped that stands under `path`. Renamed where it was, it keeps the
    /// one that it is known by, if the patterns still find that: by another one it would not be read on
    /// after the next start, and its generations would not be known.
    pub(super) fn path_of(&self, saved: Option<&Checkpoint>, path: &Path) -> PathBuf {
        let is_kept = |known: &&Path| known.parent() == path.parent() && self.patterns.finds(known);
        saved.map(|saved| saved.path.as_path()).filter(is_kept).unwrap_or(path).to_owned()
    }

    /// Notes that a known file stands where it stood, with its bytes: no other was made in its
    /// place and renamed since.
    pub(super) fn note_in_place(&mut self, path: &Path, resolved: &Path) {
        let Some(name) = path.file_name() else { return };
        self.look.expected.on_in_place(resolved.with_file_name(name).as_os_str());
    }

    /// Begins to ship a file, from where `saved` says or from its first byte. The caller examines
    /// the file then. If the file cannot be read, its checkpoint is put back.
    pub(super) fn begin(
        &mut self,
        path: PathBuf,
        resolved: PathBuf,
        reader: Reader<O::File>,
        saved: Option<Checkpoint>,
        state: State,
        now: Instant,
    ) -> io::Result<FileKey> {
        let settled_end = saved.as_ref().map_or(0, |saved| saved.offset);
        let outcome = reader.head(settled_end).and_then(|head| Ok((head, reader.stat()?)));
        let (head, stat) = match (outcome, &saved) {
            (Ok(read), _) => read,
            (Err(error), saved) => {
                saved.iter().cloned().for_each(|saved| self.catalog.put_back(saved));
                return Err(error);
            }
        };
        let Checkpoint { offset, tail, ranges, trail, .. } = saved.unwrap_or_default();
        let Stat { device, inode, born, .. } = stat;
        let path: Arc<Path> = path.into();
        let resolved = shared(&path, &resolved);
        let collection = self.rules.collection;
        let opened = Opened { collection, path, resolved, device, inode, born, head, offset, tail };
        if self.said.admits(Kind::Shipping) {
            tracing::info!(
                file = %opened.path.display(), resolved = %opened.resolved.display(),
                offset = opened.offset, bytes = stat.size, state = state.name(), "shipping a file"
            );
        }
        let unix = self.os.wall().as_secs();
        self.catalog.on_opened(opened.device, opened.inode);
        let file = self.registry.open(opened, now, unix);
        let stream = StreamKey { file, collection };
        self.ledger.once.adopt(stream, offset, ranges);
        self.make_room_to_read_again(stream);
        if let Some(tracked) = self.registry.get_mut(file) {
            (tracked.state, tracked.sighting.is_last) = (state, state == State::Active);
            let name = tracked.opened.resolved.file_name().unwrap_or_default();
            let is_untold = stat.size == 0 || reader.was_blank();
            tracked.may_be_copy = is_untold && !names::bases(name.as_bytes()).is_empty();
            tracked.trail = trail.into();
            tracked.unpacked_unix = reader.is_unpacked().then_some(unix);
            if let Some(originals) = &mut self.look.originals {
                // Copies of it may be met in this discovery.
                originals.add(file, tracked);
            }
        }
        self.counters.seen_bytes += self.registry.on_verified(file, stat.size);
        self.counters.files_opened += 1;
        self.begin_stream(file);
        if reader.is_unpacked() {
            self.packed.on_opened(file);
        }
        self.readers.insert(file, reader);
        self.ledger.note(true);
        Ok(file)
    }

    pub(super) fn begin_stream(&mut self, file: FileKey) {
        let Some(tracked) = self.registry.get(file) else { return };
        let stream = tracked.stream(file);
        let destination = self.rules.plan.collection(stream.collection).destination;
        self.streams.begin(&mut self.batcher, stream, destination, &tracked.opened.path);
    }
}

/// A path in memory, shared with `one` if both are equal.
fn shared(one: &Arc<Path>, path: &Path) -> Arc<Path> {
    if one.as_os_str() == path.as_os_str() { Arc::clone(one) } else { path.into() }
}
