//! Compressed files: measured a slice at a time, then read as others are, one after the other.
//!
//! ```text
//! found, quiet ─▶ measured, a slice a turn ─▶ opened: new, known, or a copy ─▶ read ─▶ closed
//! ```
//!
//! Others wait until that one is read to its end: so there is one decoder and one copy of the read
//! buffer, however many there are. They do not wait until it is delivered, nor for one that cannot be
//! read, and small ones are read as soon as they are opened, many in one discovery.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::packed::{Measuring, QUIET, Slice, is_young};
use super::said::Kind;
use super::timers::Timer;
use super::{Collector, READS_PER_TURN};
use crate::base::span::FileKey;
use crate::checkpoint::keep::Keep;
use crate::tail::catalog::judge::Stat;
use crate::tail::catalog::names::{self, Kin};
use crate::tail::os::Os;
use crate::tail::reader::Reader;
use crate::tail::tracked::{Opened, Tracked};

/// How long a file that could not be measured leaves its turn to others.
const FAILED_PAUSE: Duration = Duration::from_secs(30);

impl<O: Os, K: Keep> Collector<O, K> {
    /// Whether a compressed file was delivered before and has not changed since.
    pub(super) fn was_delivered(&self, stat: &Stat) -> bool {
        self.catalog.closed((stat.device, stat.inode)).is_some_and(|saved| {
            let changed_unix = u64::try_from(stat.changed / 1_000_000_000).unwrap_or(u64::MAX);
            saved.born == stat.born && changed_unix < saved.seen_unix
        })
    }

    /// Whether an empty file is about to be a compressed one, by its name and its age: then nothing
    /// can be said of it yet.
    pub(super) fn is_about_to_be_packed(&mut self, stat: &Stat, path: &Path) -> bool {
        let is_it = stat.size == 0
            && path.extension().is_some_and(|extension| extension == "gz")
            && is_young(&self.os, stat)
            && self.drain.is_running();
        if is_it {
            self.look.unopened.add(path, "it is empty, and may be about to be compressed text");
        }
        is_it
    }

    /// Makes the text of a compressed file readable. `false`: not yet; it may still be written, is
    /// being measured, or waits for another one.
    pub(super) fn unpack(
        &mut self,
        reader: &mut Reader<O::File>,
        stat: &Stat,
        path: &Path,
    ) -> io::Result<bool> {
        let inode = (stat.device, stat.inode);
        if self.packed.is_oversized(inode, stat.changed) {
            return Ok(false);
        }
        if let Some(why) = self.packed.failure(inode) {
            return Err(io::Error::other(why.to_owned()));
        }
        let is_opened = self.is_its_turn(inode) && self.unpack_next(reader, stat, path)?;
        if !is_opened {
            self.look.unopened.add(path, self.packed.wait(inode));
        }
        Ok(is_opened)
    }

    fn is_its_turn(&self, inode: (u64, u64)) -> bool {
        // Nobody waits for a file that cannot be read now.
        let is_failing =
            |file: FileKey| self.registry.get(file).is_some_and(|one| !one.last_error.is_empty());
        self.packed.is_turn_of(inode, |&file| self.is_released(file) || is_failing(file))
    }

    fn unpack_next(
        &mut self,
        reader: &mut Reader<O::File>,
        stat: &Stat,
        path: &Path,
    ) -> io::Result<bool> {
        let next = match self.packed.take() {
            Some(next) if next.gzip.change()?.is_none() => next,
            // Asked to end, there is no time to wait: it is whole if it unpacks.
            Some(_) | None if is_young(&self.os, stat) && self.drain.is_running() => {
                return Ok(false);
            }
            Some(_) | None => match self.begin_measuring(reader, stat, path)? {
                Some(next) => next,
                None => return Ok(false),
            },
        };
        if !next.gzip.is_measured() {
            self.packed.measure_later(next);
            return Ok(false);
        }
        if next.gzip.damage().is_some() && is_young(&self.os, stat) {
            self.packed.fail(next.inode, self.os.now() + QUIET, None);
            return Ok(false);
        }
        self.packed.on_shown();
        reader.show(next.gzip);
        Ok(true)
    }

    /// Opens the text of a compressed file, unless batches of the file that it was made from are
    /// under way: what is acknowledged of that is to be known first.
    fn begin_measuring(
        &self,
        reader: &Reader<O::File>,
        stat: &Stat,
        path: &Path,
    ) -> io::Result<Option<Measuring<O::File>>> {
        let inode = (stat.device, stat.inode);
        let mut gzip = reader.unpack()?;
        let place = reader.path().unwrap_or_else(|| path.to_owned());
        let is_of = |ended: &Tracked| {
            let Opened { path, resolved, device, inode: number, head, .. } = &ended.opened;
            let kin = || names::kin(&place, &[path, &ended.sighting.path, resolved]);
            let is_copy = || kin().is_some_and(|kin| kin != Kin::Stranger);
            (*device, *number) == inode || (head.len > 0 && gzip.has_head(*head) && is_copy())
        };
        if self.registry.ended().any(|(_, ended)| is_of(ended)) {
            return Ok(None);
        }
        // Where a file with these first bytes may have been left.
        let saved = self.catalog.checkpoints().flat_map(|saved| {
            let ends = saved.ranges.iter().map(|range| range.end);
            let places = saved.trail.iter().map(|(offset, _)| *offset);
            ends.chain(places).chain([saved.offset]).map(|offset| (saved.head, offset))
        });
        let files = self.registry.iter().flat_map(|(_, file)| {
            let trail = file.trail.iter().map(|(offset, _)| *offset);
            trail.chain([file.read_offset]).map(|offset| (file.opened.head, offset))
        });
        let offsets: Vec<u64> = saved
            .chain(files)
            .filter_map(|(head, offset)| gzip.has_head(head).then_some(offset))
            .collect();
        gzip.mark(offsets.into_iter());
        tracing::debug!(file = %path.display(), "a compressed file is measured");
        gzip.measure()?;
        let (path, changed) = (path.to_owned(), stat.changed);
        Ok(Some(Measuring { inode, path, changed, gzip, is_found: false }))
    }

    /// Decodes one more slice of the file whose turn it is. When it is measured the next discovery
    /// opens it.
    pub(super) fn measure(&mut self) {
        match self.packed.measure(|| self.os.now() + FAILED_PAUSE) {
            Slice::Idle | Slice::Begun => return,
            Slice::Whole | Slice::Failed => {}
            Slice::TooLarge(path, error) => {
                self.counters.file_errors += 1;
                if self.said.admits(Kind::Packed) {
                    let path = path.display();
                    tracing::warn!(file = %path, error = %error, "a compressed file is too large");
                }
            }
        }
        self.look.want_scan();
    }

    /// Reads a small compressed file at once when it is opened, so that the next one has its turn.
    pub(super) fn read_unpacked(&mut self, file: FileKey, now: Instant) {
        for _ in 0..READS_PER_TURN {
            let is_held = self.timers.is_set(Timer::ReadFrom) || !self.may_read(now);
            if is_held || self.is_released(file) {
                break;
            }
            self.read(file, false, now);
        }
    }

    /// Gives up the decoder of a compressed file that was read to its end: the next one gets it.
    pub(super) fn release_unpacked(&mut self, file: FileKey) {
        let is_read = self.registry.get(file).is_some_and(|one| one.read_offset == one.size);
        let reader = self.readers.get(&file).filter(|reader| is_read && reader.is_unpacked());
        if reader.is_some_and(Reader::release) {
            self.look.want_scan_if(self.look.unopened.count() > 0);
        }
    }

    fn is_released(&self, file: FileKey) -> bool {
        let gzip = self.readers.get(&file).and_then(Reader::gzip);
        gzip.is_none_or(|gzip| gzip.is_released())
    }

    /// Looks whether open compressed files were written to: then there is other text, or more.
    pub(super) fn unpack_again(&mut self) {
        for file in self.unpacked() {
            if let Err(error) = self.unpack_changed(file) {
                self.on_file_error(file, "unpack", &error);
            }
        }
    }

    fn unpack_changed(&mut self, file: FileKey) -> io::Result<()> {
        let Some(reader) = self.readers.get(&file) else { return Ok(()) };
        let change = reader.gzip().map(|gzip| gzip.change()).transpose()?.flatten();
        if change.is_none() {
            return Ok(());
        }
        if is_young(&self.os, &reader.stat()?) && self.drain.is_running() {
            let path = reader.path().unwrap_or_default();
            self.look.unopened.add(&path, "it is compressed, and somebody writes over it");
            return Ok(());
        }
        if !reader.is_gzip()? {
            self.end_unpacked(file);
            return Ok(());
        }
        let found_as = reader.measure_again()?;
        if let Some(tracked) = self.registry.get_mut(file) {
            tracked.sighting.found_as = found_as;
            tracked.unpacked_unix = Some(self.os.wall().as_secs());
        }
        self.intake.mark(file);
        Ok(())
    }

    /// Ends a compressed file in which something else stands now: it is opened anew as what it is.
    fn end_unpacked(&mut self, file: FileKey) {
        let Some(tracked) = self.registry.get(file) else { return };
        let (path, offset) = (Arc::clone(&tracked.opened.path), tracked.read_offset);
        let skipped = self.close(file);
        self.counters.files_truncated += 1;
        self.counters.skipped_truncated_bytes += skipped;
        self.look.want_scan();
        if self.said.admits(Kind::Packed) {
            tracing::warn!(
                file = %path.display(), offset, skipped,
                "a compressed file was written over before all of it was read"
            );
        }
    }

    /// Opens a file anew that was opened as text and begins like a compressed one: it was found
    /// while it was empty, or was emptied.
    pub(super) fn on_packed(&mut self, file: FileKey) {
        self.let_go(file);
        self.look.want_scan();
    }

    /// Closes compressed files that are delivered: they do not grow.
    pub(super) fn close_unpacked(&mut self) {
        for file in self.unpacked() {
            self.close_unpacked_one(file);
        }
    }

    fn close_unpacked_one(&mut self, file: FileKey) {
        let is_delivered = self.registry.get(file).is_some_and(Tracked::is_delivered);
        let Some(reader) = self.readers.get(&file).filter(|_| is_delivered) else { return };
        let Some(gzip) = reader.gzip().filter(|gzip| gzip.is_measured()) else { return };
        if let (Some(damage), Some(tracked)) = (gzip.damage(), self.registry.get(file))
            && self.said.admits(Kind::Packed)
        {
            let path = tracked.sighting.path.display();
            tracing::warn!(
                file = %path, bytes = gzip.len(), error = damage,
                "a compressed file is damaged; its text ends there"
            );
        }
        drop(gzip);
        self.close_for_now(file);
        // One that may hold the same waited for it.
        self.look.want_scan_if(self.look.unopened.count() > 0);
    }

    /// The compressed files that are open.
    fn unpacked(&mut self) -> Vec<FileKey> {
        let readers = &self.readers;
        let is_open = |file: &FileKey| readers.get(file).is_some_and(Reader::is_unpacked);
        self.packed.open(is_open)
    }
}
