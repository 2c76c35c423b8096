//! Reading: one turn of one file through the stages, and what is found on the way.

use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::sync::Arc;
use std::time::Instant;

use super::Collector;
use super::copies::{CopyOf, Origin};
use super::idle::look_at;
use super::intake::PIECE_BYTES_MIN;
use super::reopening::is_stale;
use super::rereading::{Ahead, Within};
use super::said::Kind;
use super::stamp::wall_nanoseconds;
use crate::base::fingerprint::{Fingerprint, HEAD_BYTES_MAX, TAIL_BYTES_MAX};
use crate::base::span::{FileKey, StreamKey};
use crate::checkpoint::format::Checkpoint;
use crate::checkpoint::keep::Keep;
use crate::line::split;
use crate::pipeline::{self, Input, Stop};
use crate::tail::catalog::judge::{self, Stat};
use crate::tail::catalog::names::{self, Kin};
use crate::tail::copies::{Known, Standing};
use crate::tail::gzip;
use crate::tail::os::Os;
use crate::tail::reader::Reader;
use crate::tail::registry::Change;
use crate::tail::tracked::{State, Tracked};

impl<O: Os, K: Keep> Collector<O, K> {
    /// Begins a new incarnation of a file that was truncated or rewritten; the old one ends.
    pub(super) fn restart(&mut self, file: FileKey, why: &str, now: Instant) {
        let Some(tracked) = self.registry.get(file) else { return };
        let (old_offset, changed_before) = (tracked.read_offset, tracked.changed);
        let sure_changed = tracked.sure.changed;
        let unix = self.os.wall().as_secs();
        // It is asked anew: a copy may have been made since the last examination.
        let stat = self.readers.get(&file).and_then(|reader| reader.stat_truncated().ok());
        let gone_at = stat.and_then(|stat| match stat.size < old_offset {
            true => judge::gone_at(stat.changed, changed_before),
            false => Some(stat.changed),
        });
        let gone_at = gone_at.unwrap_or_else(|| wall_nanoseconds(&self.os));
        let may_be_copy = self.may_be_copied_over(file);
        let Some(restarted) = self.registry.restart(file, gone_at, now, unix) else { return };
        self.look.originals = None;
        let Some(reader) = self.readers.remove(&file) else { return };
        if let (Ok(head), Some(tracked)) = (reader.head(0), self.registry.get_mut(restarted.file)) {
            (tracked.opened.head, tracked.may_be_copy) = (head, may_be_copy);
            if self.said.admits(Kind::Rewritten) {
                tracing::warn!(
                    file = %tracked.opened.path.display(), offset = old_offset,
                    skipped = restarted.lost_bytes, reason = why,
                    "it was truncated or rewritten; reading from its first byte"
                );
            }
        }
        self.counters.files_truncated += 1;
        self.counters.skipped_truncated_bytes += restarted.lost_bytes;
        self.drop_stages(file);
        self.begin_stream(restarted.file);
        self.readers.insert(restarted.file, reader);
        self.intake.mark_grown(restarted.file);
        self.ledger.note(true);
        self.expect_copy_beside(restarted.file, restarted.lost_bytes > 0, sure_changed);
        // Notifications must lead to the new key before the next discovery.
        self.refresh_names_of(restarted.file);
    }

    /// Whether a file has the name of a generation of an open one: what is written over it may be a
    /// copy of that one. A file without a name could not be opened again.
    fn may_be_copied_over(&self, file: FileKey) -> bool {
        let Some(place) = self.readers.get(&file).and_then(Reader::path) else { return false };
        let is_of = |one: &Tracked| {
            let names = [&*one.opened.path, &*one.sighting.path, &*one.opened.resolved];
            names::kin(&place, &names) == Some(Kin::Generation)
        };
        let is_generation =
            !names::bases(place.file_name().unwrap_or_default().as_bytes()).is_empty();
        is_generation && self.registry.iter().any(|(other, one)| other != file && is_of(one))
    }

    /// Finds out whose bytes stand in a file that was written over. Returns whether the file is read
    /// on as it is: a copy is closed, because its original has the bytes.
    fn judge_again(&mut self, file: FileKey, now: Instant) -> io::Result<bool> {
        let Some(tracked) = self.registry.get(file) else { return Ok(false) };
        let (path, resolved) =
            (Arc::clone(&tracked.opened.path), Arc::clone(&tracked.opened.resolved));
        let (mut waiting, state) = (unopened(tracked, self.os.wall().as_secs()), tracked.state);
        let Some(reader) = self.readers.remove(&file) else { return Ok(false) };
        let resolved = reader.path().map_or(resolved, Arc::from);
        let origin = self.origin_of_unknown(&resolved, &reader, Known::default());
        // Without a name it could not be opened again.
        let is_nameless = state == State::Deleted;
        let from = match origin {
            Ok(Origin::Known(resume)) => Some(resume),
            // More may stand in it than was read of its original, which is known when that has ended.
            Ok(Origin::CopyOf(CopyOf { standing: Standing::Gone, .. })) if is_nameless => {
                self.readers.insert(file, reader);
                self.look.unopened.note_unacknowledged();
                return Ok(false);
            }
            Ok(Origin::CopyOf(_)) if is_nameless => {
                tracing::debug!(file = %path.display(), "a copy was deleted before it was read");
                self.let_go(file);
                return Ok(false);
            }
            Ok(Origin::CopyOf(suspect)) => {
                waiting.rest = Some(0);
                if let Some((_, found_as)) = look_at(&self.os, &resolved) {
                    // Otherwise the next discovery judges it.
                    let _ = self.note_copy((&path, &resolved), &reader, found_as, suspect, now);
                }
                None
            }
            Ok(Origin::Overwritten) => {
                self.let_go(file);
                if let Some((inode, found_as)) = look_at(&self.os, &resolved)
                    && inode == (waiting.device, waiting.inode)
                {
                    self.catalog.on_no_log(inode, &path, found_as);
                }
                return Ok(false);
            }
            Ok(Origin::Later) if !is_nameless => None,
            origin => {
                self.readers.insert(file, reader);
                if let Some(tracked) = self.registry.get_mut(file) {
                    tracked.may_be_copy = origin.is_err();
                }
                return origin.map(|_| true);
            }
        };
        self.let_go(file);
        let is_found = state == State::Active;
        let Some(from) = from else {
            self.wait_to_be_opened(waiting, is_found);
            self.look.unopened.add(&path, "it was written over, and may be a copy");
            self.look.want_scan();
            return Ok(false);
        };
        let known_by = self.path_of(Some(&from.saved), &path);
        let begun = self.begin(known_by, resolved.to_path_buf(), reader, Some(from), state, now);
        match begun {
            Ok(file) => self.examine(file, true, now),
            Err(error) => {
                self.wait_to_be_opened(waiting, is_found);
                self.note_unopened(&path, &error);
                self.look.want_scan();
            }
        }
        Ok(false)
    }

    /// Drops the stages of a file: no more bytes of it come to them.
    pub(super) fn drop_stages(&mut self, file: FileKey) {
        if let Some(stream) = self.registry.stream(file) {
            self.batcher.end(stream);
        }
        self.intake.forget(file);
    }

    /// Takes a file that has fewer bytes than were read. What an examination showed before was its
    /// own.
    pub(super) fn on_shrunk(&mut self, file: FileKey, now: Instant) {
        self.note_seen(file);
        self.restart(file, "it is shorter than what was read", now);
    }

    /// Notes that a file lost bytes that were seen and not read: text, or space that was taken in
    /// advance.
    pub(super) fn on_cut(&mut self, file: FileKey, bytes: u64) {
        let Some(tracked) = self.registry.get(file).filter(|_| bytes > 0) else { return };
        let (path, is_text) = (tracked.opened.path.display(), !tracked.is_rest_idle);
        if is_text {
            if self.said.admits(Kind::Cut) {
                tracing::warn!(file = %path, skipped = bytes, "it was truncated before it was read");
            }
            self.counters.skipped_truncated_bytes += bytes;
        } else {
            tracing::debug!(file = %path, skipped = bytes, "NULs at its end were cut off");
            self.counters.skipped_hole_bytes += bytes;
        }
    }

    /// Reads a piece of one file, as its turn, through the stages.
    pub(super) fn read(&mut self, file: FileKey, flush_partial: bool, now: Instant) {
        let Some(stat) = self.stat(file) else { return };
        let change = self.registry.on_stat(file, &stat, now);
        match change {
            Change::Shrank => return self.on_shrunk(file, now),
            Change::Cut(bytes) => self.on_cut(file, bytes),
            Change::None | Change::Grew | Change::Unread | Change::Touched => {}
        }
        if self.registry.get(file).is_some_and(|tracked| tracked.may_be_copy) && stat.size > 0 {
            match self.judge_again(file, now) {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => {
                    self.on_file_error(file, "read", &error);
                    return;
                }
            }
        }
        match self.awaits_filling(file, now) {
            Ok(true) => return,
            Ok(false) => {}
            Err(error) => {
                self.on_file_error(file, "read", &error);
                return;
            }
        }
        // What has grown a moment ago has not been quiet. What is compressed to its end does not
        // grow: its last line is as finished as it will be.
        let gzip = self.readers.get(&file).and_then(Reader::gzip);
        let is_whole = gzip.is_some_and(|gzip| gzip.is_measured() && gzip.damage().is_none());
        let flush_partial = is_whole || (flush_partial && change != Change::Grew);
        let mut buffer = self.intake.take_buffer();
        let outcome = self.read_into(&mut buffer, file, stat, flush_partial, now);
        self.intake.put_buffer(buffer);
        match outcome {
            Ok(Piece::Done) => self.release_unpacked(file),
            Ok(Piece::More) => self.intake.mark_grown(file),
            Ok(Piece::Blocked) => {
                self.intake.block();
                self.intake.mark_grown(file);
            }
            Ok(Piece::Packed) => self.on_packed(file),
            // A compressed file: the text up to there is decoded in slices.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.intake.mark_grown(file);
            }
            Ok(Piece::Rewritten) => self.on_other_bytes(file, now),
            Err(error) => drop(self.on_file_error(file, "read", &error)),
        }
        self.touch(now);
    }

    fn read_into(
        &mut self,
        buffer: &mut [u8],
        file: FileKey,
        stat: Stat,
        flush_partial: bool,
        now: Instant,
    ) -> io::Result<Piece> {
        let Some(tracked) = self.registry.get(file) else { return Ok(Piece::Done) };
        let Some(reader) = self.readers.get(&file) else { return Ok(Piece::Done) };
        let (stream, tail, head) = (tracked.stream(file), tracked.tail, tracked.opened.head);
        let lead = tail.len as usize;
        let offset = tracked.read_offset;
        let from = offset - u64::from(tail.len);
        let bytes = reader.read_once(buffer, from)?;
        // What came since the examination is judged first.
        let bytes = if tracked.may_be_copy { &bytes[..0] } else { bytes };
        match reader.gzip() {
            None if from == 0 && gzip::is_gzip(bytes) => return Ok(Piece::Packed),
            // What was decoded is neither the old text nor the new one.
            Some(gzip) if gzip.change()? == Some(gzip::Change::Rewritten) => {
                return Ok(Piece::Done);
            }
            Some(_) | None => {}
        }
        // The head is looked at after the bytes: were they of a new text, it would be too.
        if !tail.matches_start_of(bytes) || !reader.has_head(head)? {
            return Ok(Piece::Rewritten);
        }
        self.counters.seen_bytes += self.registry.on_verified(file, stat.size);
        if let Some(tracked) = self.registry.get_mut(file) {
            tracked.sure.changed = stat.changed;
        }
        if (head.len as usize) < HEAD_BYTES_MAX && u64::from(head.len) < stat.size {
            let head = reader.head(self.intake.filled().settled_end(file, now).max(offset))?;
            if let Some(tracked) = self.registry.get_mut(file) {
                tracked.opened.head = head;
            }
        }
        let within = match self.ahead(stream)? {
            Ahead::Read(within) => within,
            Ahead::Passed => return Ok(Piece::More),
            Ahead::Full => return Ok(Piece::Blocked),
        };
        let read_bytes = bytes.len();
        let bytes = self.settled(file, bytes, lead, stat.size, now)?;
        let is_held = bytes.len() < read_bytes;
        let is_to_end = !is_held && from + bytes.len() as u64 >= stat.size;
        let time = u32::try_from(self.server_unix()).unwrap_or_default();
        let input = Input {
            bytes,
            lead,
            offset,
            time,
            now,
            flush_partial: flush_partial && is_to_end,
            is_range_end: false,
        };
        let since = self.intake.waits_since(file, offset, stat.size, now);
        self.feed(stream, input, is_to_end, is_held, within, since)
    }

    /// Whether the next byte of a file is a NUL that may still be filled.
    fn awaits_filling(&mut self, file: FileKey, now: Instant) -> io::Result<bool> {
        let Some(at) = self.intake.filled().awaited(file, now) else { return Ok(false) };
        let Some(reader) = self.readers.get(&file) else { return Ok(false) };
        let is_nul = reader.is_nul_at(at)?;
        if !is_nul {
            self.intake.filled().on_filled(file);
        }
        Ok(is_nul)
    }

    /// The part of `bytes` that may be read now. It ends before a NUL that may still be filled,
    /// because there is something behind the NUL, in these bytes or in the file of `size` bytes.
    /// `lead` of the bytes were read before. *Cost*: one search for a NUL.
    fn settled<'b>(
        &mut self,
        file: FileKey,
        bytes: &'b [u8],
        lead: usize,
        size: u64,
        now: Instant,
    ) -> io::Result<&'b [u8]> {
        let (Some(tracked), Some(reader)) = (self.registry.get(file), self.readers.get(&file))
        else {
            return Ok(bytes);
        };
        let (offset, new) = (tracked.read_offset, &bytes[lead..]);
        let known = self.intake.filled().settled_end(file, now).saturating_sub(offset);
        let known = usize::try_from(known).unwrap_or(usize::MAX).min(new.len());
        let nul = memchr::memchr(0, &new[known..]).filter(|_| !reader.is_unpacked());
        let Some(nul) = nul.map(|nul| known + nul) else { return Ok(bytes) };
        let goes_on = offset + (new.len() as u64) < size;
        let end = match split::without_nuls(new).len() {
            _ if goes_on && !reader.is_nul_at(size - 1)? => size,
            text => offset + text as u64,
        };
        let at = offset + nul as u64;
        if end <= at {
            return Ok(bytes);
        }
        self.intake.filled().await_at(file, at, end, now);
        Ok(&bytes[..lead + nul])
    }

    /// Lets the stages take what they can, sealing as they ask for it and as there is room.
    fn feed(
        &mut self,
        stream: StreamKey,
        mut input: Input<'_>,
        mut is_to_end: bool,
        mut is_held: bool,
        within: Within,
        since: Instant,
    ) -> io::Result<Piece> {
        let file = stream.file;
        if within.cuts_off(&mut input) {
            is_to_end = false;
        }
        // Under a rate limit a turn takes a piece of it, unless a single line is longer. The end
        // of a piece is not the end of the file, so nothing unfinished is sent there.
        let (whole, whole_is_to_end, whole_is_held) = (input, is_to_end, is_held);
        let piece = input.lead.saturating_add(self.intake.piece_bytes());
        if piece < whole.bytes.len() {
            input.bytes = &whole.bytes[..piece];
            (input.flush_partial, input.is_range_end) = (false, false);
            (is_to_end, is_held) = (false, false);
        }
        loop {
            let mut writer = self.batcher.writer(stream).written_since(since);
            let progress = pipeline::advance(&input, within.line_bytes_max, &mut writer);
            input.lead += progress.consumed;
            let before = input.offset;
            input.offset += progress.consumed as u64;
            self.counters.lines += progress.records;
            self.counters.bytes += progress.consumed as u64;
            self.counters.lines_split += progress.cut - u64::from(progress.sent_partial);
            self.counters.lines_partial += u64::from(progress.sent_partial);
            self.intake.take(progress.consumed as u64, input.now);
            let left = &input.bytes[input.lead..];
            let is_at_end = is_to_end && progress.stop == Stop::NeedsBytes;
            let is_idle = split::is_idle(left);
            self.registry.on_read(file, input.offset, progress.tail, is_at_end, is_idle);
            if is_at_end && (left.is_empty() || is_idle) {
                self.intake.on_end(file);
            }
            self.note_hole(file, before, progress.hole_bytes as u64);
            if let Some(tracked) = self.registry.get_mut(file) {
                tracked.last_error.clear();
            }
            if progress.passed > 0 {
                let end = before + progress.passed as u64;
                let passed = &input.bytes[..input.lead - progress.consumed + progress.passed];
                let hole_bytes = progress.passed_hole_bytes as u64;
                self.pass(stream, before, end, Fingerprint::of_tail(passed), hole_bytes);
            }
            let is_stuck = progress.consumed == 0 && input.bytes.len() < whole.bytes.len();
            if within.ends_at(input.offset) {
                return Ok(if self.end_range(stream) { Piece::More } else { Piece::Blocked });
            }
            match progress.stop {
                // A single line is longer than the piece: twice as much, until that holds it.
                Stop::NeedsBytes if is_stuck => {
                    let piece = (input.bytes.len() - input.lead).max(PIECE_BYTES_MIN);
                    let piece = input.lead + 2 * piece;
                    if let Some(bytes) = whole.bytes.get(..piece) {
                        input.bytes = bytes;
                    } else {
                        input.bytes = whole.bytes;
                        input.flush_partial = whole.flush_partial;
                        input.is_range_end = whole.is_range_end;
                        (is_to_end, is_held) = (whole_is_to_end, whole_is_held);
                    }
                }
                Stop::NeedsBytes if is_to_end || is_held => return Ok(Piece::Done),
                Stop::NeedsBytes if progress.consumed == 0 && is_idle => {
                    let nuls = left.len() as u64;
                    return self.jump(stream, input.offset, nuls, within, input.now);
                }
                // It has a size and does not give the bytes: the next examination asks again.
                Stop::NeedsBytes if progress.consumed == 0 => return Ok(Piece::Done),
                Stop::NeedsBytes => return Ok(Piece::More),
                Stop::Seal(reason) => {
                    if !self.handoff.has_room() {
                        return Ok(Piece::Blocked);
                    }
                    self.seal(stream, reason);
                }
            }
        }
    }

    /// Passes over the bytes `[start, end)`, which are no record, when no group is open to cover
    /// them.
    pub(super) fn pass(
        &mut self,
        stream: StreamKey,
        start: u64,
        end: u64,
        tail: Fingerprint,
        hole_bytes: u64,
    ) {
        if let Some(watermark) = self.registry.watermark_mut(stream) {
            watermark.on_passed(start, end, tail, hole_bytes);
            self.counters.acknowledged_bytes += end - start - hole_bytes;
            self.ledger.note(true);
        }
    }

    fn note_hole(&mut self, file: FileKey, offset: u64, bytes: u64) {
        let Some(tracked) = self.registry.get_mut(file).filter(|_| bytes > 0) else { return };
        tracked.skipped.hole_bytes += bytes;
        self.counters.skipped_hole_bytes += bytes;
        if self.said.admits(Kind::Hole) {
            let path = tracked.opened.path.display();
            tracing::warn!(file = %path, offset, bytes, "a hole of NUL bytes is skipped");
        }
    }

    /// Jumps over the `nuls` NUL bytes that are all that the read buffer holds, to the text behind
    /// them, if there is any yet.
    fn jump(
        &mut self,
        stream: StreamKey,
        offset: u64,
        nuls: u64,
        within: Within,
        now: Instant,
    ) -> io::Result<Piece> {
        let file = stream.file;
        let Some(reader) = self.readers.get(&file) else { return Ok(Piece::Done) };
        let Some(text) = reader.text_after(offset + nuls)? else {
            if let Some(tracked) = self.registry.get(file) {
                self.registry.on_read(file, offset, tracked.tail, true, true);
            }
            return Ok(Piece::Done);
        };
        if self.intake.filled().settled_end(file, now) <= offset && !reader.is_unpacked() {
            self.intake.filled().await_at(file, offset, text + 1, now);
            return Ok(Piece::Done);
        }
        let text = within.end.map_or(text, |end| text.min(end));
        let (bytes, tail) = (text - offset, Fingerprint::of_tail(&[0; TAIL_BYTES_MAX]));
        let mut writer = self.batcher.writer(stream);
        let is_covered = writer.cover(text, bytes);
        writer.set_tail(tail);
        self.registry.on_read(file, text, tail, false, false);
        self.note_hole(file, offset, bytes);
        if !is_covered {
            self.pass(stream, offset, text, tail, bytes);
        }
        Ok(Piece::More)
    }

    pub(super) fn stat(&mut self, file: FileKey) -> Option<Stat> {
        match self.readers.get(&file)?.stat() {
            Ok(stat) => Some(stat),
            Err(error) => self.on_file_error(file, "examine", &error),
        }
    }

    /// Deals with the refusal of the system to `action` a file. A descriptor that is stale is
    /// replaced, and anything else is tried again. Returns what the new descriptor says.
    pub(super) fn on_file_error(
        &mut self,
        file: FileKey,
        action: &str,
        error: &io::Error,
    ) -> Option<Stat> {
        if !is_stale(error) {
            self.note_file_error(file, &format!("{action} it"), error);
            return None;
        }
        // Whether it may be read cannot be asked during a walk: after it this is asked again.
        if self.patterns.are_none() {
            return None;
        }
        match self.reopen(file, error) {
            Ok(stat) => Some(stat),
            Err(why) => {
                // It is not read by this descriptor any more: the memory is for others.
                let _ = self.readers.get(&file).is_some_and(Reader::release);
                let action = format!("{action} it ({error}), or open it again");
                self.note_file_error(file, &action, &why);
                None
            }
        }
    }

    pub(super) fn note_file_error(&mut self, file: FileKey, action: &str, error: &io::Error) {
        self.counters.file_errors += 1;
        self.registry.on_unreadable(file);
        let Some(tracked) = self.registry.get_mut(file) else { return };
        if tracked.last_error.is_empty() && self.said.admits(Kind::Unreadable) {
            tracing::warn!(
                file = %tracked.opened.path.display(), offset = tracked.read_offset, error = %error,
                "cannot {action}; trying again"
            );
        }
        tracked.last_error = format!("cannot {action}: {error}");
    }
}

/// The checkpoint of an open file as if nothing had been read of it.
fn unopened(tracked: &Tracked, unix: u64) -> Checkpoint {
    let opened = &tracked.opened;
    Checkpoint {
        path: opened.path.to_path_buf(),
        resolved: opened.resolved.to_path_buf(),
        device: opened.device,
        inode: opened.inode,
        born: opened.born,
        seen_unix: unix,
        rest: Some(tracked.size),
        ..Checkpoint::default()
    }
}

/// How a turn of a file ended.
enum Piece {
    /// The file is read to its end.
    Done,
    /// There is more in the file.
    More,
    /// The hand-off is full.
    Blocked,
    /// The file is a compressed one.
    Packed,
    /// The bytes before the offset are others than before.
    Rewritten,
}
