//! Whose bytes an opened file has: its own, those of a known file, or those of the original of which it
//! is a copy.
//!
//! ```text
//! its checkpoint waits           go on there: restarted, renamed, mounted elsewhere
//! a copy of what is there        wait: what the original holds is shipped from the original; after a
//!                                minute it is a file of its own
//! a copy of what is gone         go on behind what was delivered of it (gzip, copytruncate)
//! anything else                  from its first byte
//! ```

use std::io;
use std::path::Path;
use std::time::Instant;

use super::Collector;
use super::said::Kind;
use crate::checkpoint::format::Checkpoint;
use crate::checkpoint::keep::Keep;
use crate::tail::catalog::entry::{Copy, Held, Source, is_unread};
use crate::tail::catalog::judge::{self, Match, Stat};
use crate::tail::catalog::originals::Originals;
use crate::tail::copies::{self, Known, Open, Original, Standing, Suspect};
use crate::tail::os::Os;
use crate::tail::reader::{self, Reader};
use crate::tail::scout::{self, Claim};
use crate::tail::tracked::FoundAs;

/// Why a file is not open that equals one that nobody touches.
pub(super) const IN_DOUBT: &str =
    "it equals a file that nobody touches: it is its copy, or one of its own";
/// Why a file is not open that may be a copy.
pub(super) const SOUGHT: &str = "it may be a copy of a file that is searched for";

/// What is known of a file that is a copy.
#[derive(Clone, Copy)]
pub(super) struct CopyOf {
    pub(super) of: Source,
    /// What has become of the original.
    pub(super) standing: Standing,
    /// How many bytes of the copy were delivered before, for sure.
    pub(super) known: u64,
    /// Since when the copy is known to equal a file that nobody touches, if it was missing since.
    pub(super) doubted: Option<Instant>,
}

/// From where a file is read that is known, or a copy of one.
pub(super) struct Resume {
    /// What is known to be delivered of its bytes.
    pub(super) saved: Checkpoint,
    /// The number of the entry that speaks of the file; `None` for a copy.
    pub(super) entry: Option<u64>,
}

/// Where the bytes of an opened file are from.
pub(super) enum Origin {
    New,
    Known(Resume),
    /// The file is a copy.
    CopyOf(CopyOf),
    /// The file may be a copy of one that is searched for first.
    Later,
    /// The file was written over since it was renamed, and holds no log any more.
    Overwritten,
}

impl Resume {
    /// Goes on in a file that an entry speaks of.
    pub(super) const fn of(saved: Checkpoint, number: u64) -> Self {
        Self { saved, entry: Some(number) }
    }
}

impl Origin {
    /// Speaks of a file that an entry speaks of.
    const fn known(saved: Checkpoint, number: u64) -> Self {
        Self::Known(Resume::of(saved, number))
    }

    /// Speaks of a copy of bytes up to here.
    const fn copied(saved: Checkpoint) -> Self {
        Self::Known(Resume { saved, entry: None })
    }
}

impl<O: Os, K: Keep> Collector<O, K> {
    /// Finds out where the bytes of a file are from.
    pub(super) fn origin(
        &mut self,
        path: &Path,
        resolved: &Path,
        reader: &Reader<O::File>,
    ) -> io::Result<Origin> {
        let stat = reader.stat()?;
        let inode = (stat.device, stat.inode);
        let doubted = self.catalog.doubted(inode);
        let Some(before) = self.catalog.copy(inode).cloned() else {
            let mut origin = self.origin_of(path, resolved, reader, &stat, false);
            if let Ok(Origin::CopyOf(copy)) = &mut origin {
                copy.doubted = doubted;
            }
            return origin;
        };
        let mut origin = self.origin_of(path, resolved, reader, &stat, before.is_own);
        match &mut origin {
            Ok(Origin::CopyOf(copy)) if copy.of == before.of => {
                let Checkpoint { tail, offset, .. } = before.done;
                copy.known = if reader.has_tail(tail, offset)? { offset } else { copy.known };
            }
            Ok(Origin::Later) | Err(_) => {
                self.catalog.put_copy(Copy { found_as: None, ..before });
            }
            Ok(_) => {}
        }
        origin
    }

    /// Finds out where the bytes of a file are from. `is_own` says that it equals another one and is one of
    /// its own.
    fn origin_of(
        &mut self,
        path: &Path,
        resolved: &Path,
        reader: &Reader<O::File>,
        stat: &Stat,
        is_own: bool,
    ) -> io::Result<Origin> {
        let unknown = Known { entry: None, is_own };
        let claim = scout::claim(&mut self.catalog, &self.os, path, reader, *stat)?;
        let Some(Claim { number, saved, found }) = claim else {
            return self.origin_of_unknown(resolved, reader, unknown);
        };
        let is_unread = is_unread(&saved);
        match found {
            Match::Resume if saved.is_copy && saved.offset < stat.size => {
                let outcome = self.origin_of_grown_copy(number, &saved, resolved, reader);
                if let Ok(Origin::CopyOf(_)) = outcome {
                    self.catalog.take(number);
                }
                outcome
            }
            // Nothing tells it from another file with the same inode.
            Match::Resume
                if is_unread
                    && path != saved.path
                    && !judge::is_same_file(&saved, stat.born, resolved) =>
            {
                self.catalog.on_removed(number, |saved| saved);
                self.origin_of_unknown(resolved, reader, unknown)
            }
            Match::Resume
                if is_unread
                    && saved.rest == Some(0)
                    && self.is_overwritten_since(number, &saved, path, reader, stat) =>
            {
                Ok(Origin::Overwritten)
            }
            // It was only waiting to be opened.
            Match::Resume if is_unread => {
                let known = Known { entry: Some(number), is_own };
                let origin = self.origin_of_unknown(resolved, reader, known);
                match origin {
                    Ok(Origin::New) => return Ok(Origin::known(saved, number)),
                    Ok(Origin::Known(original)) => {
                        return Ok(Origin::known(original.saved, number));
                    }
                    Ok(Origin::Overwritten) => self.catalog.on_overwritten(number),
                    _ => self.wait_to_be_opened(saved, true),
                }
                origin
            }
            Match::Resume | Match::Again => Ok(Origin::known(saved, number)),
            Match::Rewritten | Match::Other
                if self.is_overwritten_since(number, &saved, path, reader, stat) =>
            {
                Ok(Origin::Overwritten)
            }
            Match::Rewritten | Match::Other => {
                self.on_rewritten(path, number, &saved, stat);
                self.origin_of_unknown(resolved, reader, unknown)
            }
        }
    }

    /// Finds out where the bytes of a file are from of which no checkpoint speaks.
    pub(super) fn origin_of_unknown(
        &mut self,
        resolved: &Path,
        reader: &Reader<O::File>,
        known: Known,
    ) -> io::Result<Origin> {
        // It may become anything, and is judged when there is something in it.
        let is_blank = reader.stat()?.size == 0;
        reader.note_blank(is_blank);
        if is_blank {
            return Ok(Origin::New);
        }
        let copy_of =
            |of, standing| Origin::CopyOf(CopyOf { of, standing, known: 0, doubted: None });
        Ok(match self.original_of(resolved, reader, 0, known)? {
            Some(Original::Open { file, standing }) => copy_of(Source::Open(file), standing),
            Some(Original::Removed(saved)) => Origin::copied(saved),
            // No app writes compressed what another file has as text.
            Some(Original::There(saved)) if reader.is_unpacked() && saved.is_done => {
                Origin::copied(saved)
            }
            Some(Original::There(saved)) => {
                let of = Source::Closed((saved.device, saved.inode));
                copy_of(of, Standing::Untouched)
            }
            Some(Original::Sought) => Origin::Later,
            None if self.is_shredded(resolved, reader) => Origin::Overwritten,
            None => Origin::New,
        })
    }

    /// Finds out where a copy that was met while it was made goes on; `saved` says how much of it
    /// there was. More of it is delivered if more of its original is, and the bytes say so. If they
    /// cannot, the copy goes on at the start of the line that was cut off.
    fn origin_of_grown_copy(
        &mut self,
        number: u64,
        saved: &Checkpoint,
        resolved: &Path,
        reader: &Reader<O::File>,
    ) -> io::Result<Origin> {
        let known = Known { entry: Some(number), is_own: false };
        match self.original_of(resolved, reader, saved.offset, known)? {
            Some(Original::Open { file, standing }) => {
                let (of, known) = (Source::Open(file), saved.offset);
                return Ok(Origin::CopyOf(CopyOf { of, standing, known, doubted: None }));
            }
            Some(Original::Removed(further) | Original::There(further)) => {
                return Ok(Origin::known(further, number));
            }
            Some(Original::Sought) => return Ok(Origin::Later),
            None => {}
        }
        let offset = reader.line_start(saved.offset, self.rules.tail.line_bytes_max)?;
        let tail = reader.tail(offset)?;
        Ok(Origin::known(Checkpoint { offset, tail, ..saved.clone() }, number))
    }

    /// Notes that other bytes stand in a known file, or that another file has its inode: of the old
    /// text only a copy can be met.
    pub(super) fn on_rewritten(
        &mut self,
        path: &Path,
        number: u64,
        saved: &Checkpoint,
        stat: &Stat,
    ) {
        let is_used = judge::is_used_inode(saved, stat.born);
        if !is_used {
            if self.said.admits(Kind::Rewritten) {
                tracing::warn!(
                    file = %path.display(), offset = saved.offset,
                    "it was rewritten while the agent was away; reading from its first byte"
                );
            }
            self.counters.files_truncated += 1;
        }
        // It was gone before another file was born with its inode; or whoever wrote over it changed it.
        let gone_at = match is_used {
            true if saved.gone_at != 0 => saved.gone_at.min(stat.born - 1),
            true => stat.born - 1,
            false => stat.changed,
        };
        self.look.expected.on_learnt();
        self.catalog.on_removed(number, |_| Checkpoint { gone_at, ..saved.clone() });
    }

    /// The file that an opened one is a copy of. At least `from` bytes of it were delivered.
    fn original_of(
        &mut self,
        place: &Path,
        reader: &Reader<O::File>,
        from: u64,
        known: Known,
    ) -> io::Result<Option<Original>> {
        let Self { os, registry, readers, look, catalog, .. } = self;
        let originals = look.originals.get_or_insert_with(|| Originals::all(registry));
        let open = Open { registry, originals, reader: &|file| readers.get(&file) };
        let suspect = Suspect { os: os.clone(), place, reader, stat: reader.stat()?, known };
        copies::original_of(&open, catalog, &suspect, from)
    }

    /// Notes a file that is a copy, with its path and where it is, as it is now.
    pub(super) fn note_copy(
        &mut self,
        (path, resolved): (&Path, &Path),
        reader: &Reader<O::File>,
        found_as: FoundAs,
        suspect: CopyOf,
        now: Instant,
    ) -> io::Result<()> {
        let done = self.done((path, resolved), reader, &suspect)?;
        let CopyOf { of, standing, doubted, .. } = suspect;
        let is_untouched = standing == Standing::Untouched;
        let is_compressed = reader.is_unpacked();
        let is_doubted = is_untouched && !is_compressed;
        let doubted = is_doubted.then_some(doubted.unwrap_or(now));
        let found_as = Some(found_as);
        self.catalog.put_copy(Copy { found_as, of, done, doubted, is_own: false, is_compressed });
        Ok(())
    }

    /// Notes that a file which no pattern finds has only bytes that another one has.
    pub(super) fn note_held(
        &mut self,
        names: (&Path, &Path),
        reader: &Reader<O::File>,
        suspect: &CopyOf,
    ) -> io::Result<()> {
        let done = Box::new(self.done(names, reader, suspect)?);
        let Source::Open(original) = suspect.of else {
            self.catalog.on_equal((done.device, done.inode));
            return Ok(());
        };
        let tracked = self.registry.get(original).or_else(|| self.registry.get_ended(original));
        let read = tracked.map_or(0, |tracked| tracked.read_offset);
        // More may stand in a copy than was read of bytes that are gone.
        if suspect.standing == Standing::Gone && reader.stat()?.size > read {
            return Ok(());
        }
        self.catalog.on_equal((done.device, done.inode));
        if suspect.standing != Standing::Untouched {
            self.catalog.on_held(Held { original, done });
        }
        Ok(())
    }

    /// What is true of a copy as soon as all of its original is delivered.
    fn done(
        &self,
        (path, resolved): (&Path, &Path),
        reader: &Reader<O::File>,
        suspect: &CopyOf,
    ) -> io::Result<Checkpoint> {
        let owner = self.ledger.owner(self.rules.collection);
        let done = Checkpoint { owner, ..done(&self.os, reader, path, resolved)? };
        self.proved(suspect.of, reader, suspect.known, done)
    }

    /// The checkpoint of a copy, up to where its original surely held the same when it was read.
    /// That is all of the copy, unless the original holds other bytes by now and more was read of
    /// it than the copy has. `known` bytes of the copy are known to be delivered.
    fn proved(
        &self,
        of: Source,
        copy: &Reader<O::File>,
        known: u64,
        done: Checkpoint,
    ) -> io::Result<Checkpoint> {
        let Source::Open(original) = of else { return Ok(done) };
        let tracked = self.registry.get(original).or_else(|| self.registry.get_ended(original));
        let Some(tracked) = tracked.filter(|one| done.offset < one.read_offset) else {
            return Ok(done);
        };
        if let Some(original) = self.readers.get(&original)
            && reader::is_copy_so_far(copy, original)?
        {
            return Ok(done);
        }
        for &(offset, tail) in tracked.trail.iter().rev() {
            if (known..=done.offset).contains(&offset) && copy.has_tail(tail, offset)? {
                return Ok(Checkpoint { offset, tail, ..done });
            }
        }
        let offset = copy.line_start(known, self.rules.tail.line_bytes_max)?;
        Ok(Checkpoint { offset, tail: copy.tail(offset)?, ..done })
    }
}

/// The checkpoint of a copy of which everything is delivered as it stands.
fn done<O: Os>(
    os: &O,
    reader: &Reader<O::File>,
    path: &Path,
    resolved: &Path,
) -> io::Result<Checkpoint> {
    let stat = reader.stat()?;
    Ok(Checkpoint {
        path: path.to_owned(),
        resolved: resolved.to_owned(),
        device: stat.device,
        inode: stat.inode,
        born: stat.born,
        offset: stat.size,
        head: reader.head(stat.size)?,
        tail: reader.tail(stat.size)?,
        seen_unix: os.wall().as_secs(),
        is_done: true,
        rest: Some(0),
        is_copy: true,
        ..Checkpoint::default()
    })
}
