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
use super::aside::{COPY_TIME, Copy, CopyOf, Source, Standing};
use super::said::Kind;
use crate::base::fingerprint::Fingerprint;
use crate::base::span::FileKey;
use crate::checkpoint::format::Checkpoint;
use crate::checkpoint::keep::Keep;
use crate::tail::catalog::judge::{self, Match, Stat};
use crate::tail::catalog::names::{self, Kin};
use crate::tail::os::{Os, OsFile};
use crate::tail::reader::{self, Reader};
use crate::tail::registry::{FoundAs, State, Tracked};
use crate::tail::remembered::{self, Original, Suspect};

/// Why a file is not open that was written over.
pub(super) const UNACKNOWLEDGED: &str = "what was read of it before is not acknowledged yet";
/// Why a file is not open that equals one that nobody touches.
pub(super) const IN_DOUBT: &str =
    "it equals a file that nobody touches: it is its copy, or one of its own";
/// Why a file is not open that may be a copy.
pub(super) const SOUGHT: &str = "it may be a copy of a file that is searched for";
/// Most open files that a suspect is compared with: the nearest.
const CANDIDATES_MAX: usize = 64;

/// Where the bytes of an opened file are from.
pub(super) enum Origin {
    New,
    Known(Checkpoint),
    /// The file is a copy.
    CopyOf(CopyOf),
    /// The file may be a copy of one that is searched for first.
    Later,
    /// The file was written over since it was renamed, and holds no log any more.
    Overwritten,
}

impl<O: Os, K: Keep> Collector<O, K> {
    pub(super) fn origin(
        &mut self,
        path: &Path,
        resolved: &Path,
        reader: &Reader<O::File>,
    ) -> io::Result<Origin> {
        let stat = reader.stat()?;
        match self.remembered.claim(&self.os, path, reader, stat)? {
            Some((saved, Match::Resume)) if saved.is_copy && saved.offset < stat.size => {
                let outcome = self.origin_of_grown_copy(&saved, resolved, reader);
                if matches!(outcome, Ok(Origin::Later) | Err(_)) {
                    self.remembered.put_back(saved);
                }
                outcome
            }
            // Nothing tells it from another file with the same inode.
            Some((saved, Match::Resume))
                if remembered::is_unread(&saved)
                    && path != saved.path
                    && !judge::is_same_file(&saved, stat.born, resolved) =>
            {
                self.remembered.put_gone(saved);
                self.origin_of_unknown(resolved, reader)
            }
            Some((saved, Match::Resume))
                if remembered::is_unread(&saved)
                    && saved.rest == Some(0)
                    && self.is_overwritten_since(&saved, path, reader, &stat) =>
            {
                Ok(Origin::Overwritten)
            }
            // It was only waiting to be opened.
            Some((saved, Match::Resume)) if remembered::is_unread(&saved) => {
                let origin = self.origin_of_unknown(resolved, reader);
                match origin {
                    Ok(Origin::New) => return Ok(Origin::Known(saved)),
                    Ok(Origin::Known(_)) => {}
                    Ok(Origin::Overwritten) => self.remembered.put_overwritten(saved),
                    _ => self.wait_to_be_opened(saved, true),
                }
                origin
            }
            Some((saved, Match::Resume | Match::Again)) => Ok(Origin::Known(saved)),
            Some((saved, Match::Rewritten | Match::Other))
                if self.is_overwritten_since(&saved, path, reader, &stat) =>
            {
                Ok(Origin::Overwritten)
            }
            Some((saved, Match::Rewritten | Match::Other)) => {
                self.on_rewritten(path, saved, &stat);
                self.origin_of_unknown(resolved, reader)
            }
            None => self.origin_of_unknown(resolved, reader),
        }
    }

    /// Finds out where the bytes of a file are from of which no checkpoint speaks.
    pub(super) fn origin_of_unknown(
        &mut self,
        resolved: &Path,
        reader: &Reader<O::File>,
    ) -> io::Result<Origin> {
        let suspect =
            Suspect { os: self.os.clone(), place: resolved, reader, stat: reader.stat()? };
        // It may become anything, and is judged when there is something in it.
        if suspect.stat.size == 0 {
            return Ok(Origin::New);
        }
        let is_own = self.aside.is_own((suspect.stat.device, suspect.stat.inode));
        if let Some((file, standing)) = self.original_of(&suspect)?
            && !(is_own && standing == Standing::Untouched)
        {
            let of = Source::Open(file);
            return Ok(Origin::CopyOf(CopyOf { of, standing, known: 0 }));
        }
        Ok(match self.remembered.original_of(&suspect, 0)? {
            Some(Original::Gone(saved)) => Origin::Known(saved),
            // No app writes compressed what another file has as text.
            Some(Original::There(saved)) if reader.is_unpacked() && saved.is_done => {
                Origin::Known(saved)
            }
            Some(Original::There(saved)) if !is_own || reader.is_unpacked() => {
                let of = Source::Closed((saved.device, saved.inode));
                Origin::CopyOf(CopyOf { of, standing: Standing::Untouched, known: 0 })
            }
            Some(Original::Sought) => Origin::Later,
            None if self.is_shredded(resolved, reader) => Origin::Overwritten,
            Some(Original::There(_)) | None => Origin::New,
        })
    }

    /// Finds out where a copy that was met while it was made goes on; `saved` says how much of it
    /// there was. More of it is delivered if more of its original is, and the bytes say so. If they
    /// cannot, the copy goes on at the start of the line that was cut off.
    fn origin_of_grown_copy(
        &mut self,
        saved: &Checkpoint,
        resolved: &Path,
        reader: &Reader<O::File>,
    ) -> io::Result<Origin> {
        let suspect =
            Suspect { os: self.os.clone(), place: resolved, reader, stat: reader.stat()? };
        if let Some((original, standing)) = self.original_of(&suspect)? {
            let (of, known) = (Source::Open(original), saved.offset);
            return Ok(Origin::CopyOf(CopyOf { of, standing, known }));
        }
        match self.remembered.original_of(&suspect, saved.offset)? {
            Some(Original::Gone(further) | Original::There(further)) => {
                return Ok(Origin::Known(further));
            }
            Some(Original::Sought) => return Ok(Origin::Later),
            None => {}
        }
        let offset = reader.line_start(saved.offset, self.tail.line_bytes_max)?;
        let tail = reader.tail(offset)?;
        Ok(Origin::Known(Checkpoint { offset, tail, ..saved.clone() }))
    }

    /// Notes that other bytes stand in a known file, or that another file has its inode: of the old
    /// text only a copy can be met.
    pub(super) fn on_rewritten(&mut self, path: &Path, saved: Checkpoint, stat: &Stat) {
        if !judge::is_used_inode(&saved, stat.born) {
            if self.said.admits(Kind::Rewritten) {
                tracing::warn!(
                    file = %path.display(), offset = saved.offset,
                    "it was rewritten while the agent was away; reading from its first byte"
                );
            }
            self.counters.files_truncated += 1;
        }
        // It was gone before another file was born with its inode; or whoever wrote over it changed it.
        let is_used = judge::is_used_inode(&saved, stat.born);
        let gone_at = match is_used {
            true if saved.gone_at != 0 => saved.gone_at.min(stat.born - 1),
            true => stat.born - 1,
            false => stat.changed,
        };
        self.look.expected.on_learnt();
        self.remembered.put_gone(Checkpoint { gone_at, ..saved });
    }

    /// The file that a suspect is a copy of, if that is open or its last batches are under way.
    fn original_of(&mut self, suspect: &Suspect<'_, O>) -> io::Result<Option<(FileKey, Standing)>> {
        let Suspect { reader, stat, .. } = suspect;
        for (file, kin) in self.related(suspect)? {
            let tracked = self.registry.get(file).or_else(|| self.registry.get_ended(file));
            let Some(tracked) = tracked else { continue };
            // A directory for generations holds no log of the name that they had.
            let is_archive = kin == Kin::Elsewhere && suspect.is_alone_here(&tracked.opened.path);
            let needed = if is_archive { Kin::Generation } else { kin };
            let is_proof = |tail| judge::is_proof_for(needed, tracked.opened.head, tail);
            match self.readers.get(&file) {
                // It is read forward only: what may be the same waits for its end.
                Some(original) if original.is_unpacked() => {
                    let head = tracked.opened.head;
                    let is_kin = matches!(kin, Kin::Generation | Kin::Elsewhere);
                    if is_kin && head.len > 0 && reader.has_head(head)? {
                        let why = "it waits for a compressed file that may hold the same";
                        return Err(io::Error::other(why));
                    }
                }
                Some(original) => {
                    let is_suspect = match needed {
                        Kin::Generation => true,
                        Kin::Elsewhere => stat.size > 0,
                        Kin::Sibling => is_proof(tracked.tail),
                        Kin::Stranger => false,
                    };
                    if is_suspect && reader::is_copy_so_far(reader, original)? {
                        let is_nameless = tracked.state == State::Deleted;
                        let there =
                            if is_nameless { Standing::Nameless } else { Standing::Untouched };
                        return Ok(Some((file, there)));
                    }
                    if is_copy_of_lost(reader, original, tracked, is_proof)? {
                        return Ok(Some((file, Standing::Gone)));
                    }
                }
                None if is_proof(tracked.tail) && is_copy_of_ended(reader, tracked)? => {
                    return Ok(Some((file, Standing::Gone)));
                }
                None => {}
            }
        }
        Ok(None)
    }

    /// The open files that a suspect may be a copy of, as far as heads, names and times say, the nearest
    /// first.
    fn related(&mut self, suspect: &Suspect<'_, O>) -> io::Result<Vec<(FileKey, Kin)>> {
        let registry = &self.registry;
        let originals = self.aside.originals(registry);
        let heads = suspect.reader.heads(originals.head_lens.iter().copied())?;
        let mut related: Vec<(Kin, usize, FileKey)> = originals
            .of(&heads, suspect.place)
            .into_iter()
            .filter_map(|file| {
                let tracked = registry.get(file).or_else(|| registry.get_ended(file))?;
                let opened = &tracked.opened;
                let is_it = (opened.device, opened.inode)
                    == (suspect.stat.device, suspect.stat.inode)
                    && registry.get(file).is_some();
                if is_it || !suspect.has_alibi(opened.born, tracked.gone.at) {
                    return None;
                }
                let names = [&*opened.path, &*tracked.sighting.path, &*opened.resolved];
                let kin = names::kin(suspect.place, &names)?;
                Some((kin, names::distance(suspect.place, &opened.resolved), file))
            })
            .collect();
        related.sort_unstable();
        related.truncate(CANDIDATES_MAX);
        Ok(related.into_iter().map(|(kin, _, file)| (file, kin)).collect())
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
        let CopyOf { of, standing, known } = suspect;
        let is_untouched = standing == Standing::Untouched;
        let owner = self.ledger.owner(self.collection);
        let done = Checkpoint { owner, ..done(&self.os, reader, path, resolved)? };
        let inode = (done.device, done.inode);
        let known = match self.aside.take_grown(inode, of) {
            Some(before) if reader.has_tail(before.tail, before.offset)? => before.offset,
            _ => known,
        };
        let done = self.proved(of, reader, known, done)?;
        let own_at = (is_untouched && !reader.is_unpacked()).then(|| now + COPY_TIME);
        self.aside.add_copy(inode, Copy { found_as, of, done, own_at });
        Ok(())
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
        let offset = copy.line_start(known, self.tail.line_bytes_max)?;
        Ok(Checkpoint { offset, tail: copy.tail(offset)?, ..done })
    }
}

/// Whether the original was truncated or rewritten since it was last looked at, and `copy` holds
/// the bytes that stood in it, all of them that were read or those up to an earlier end.
fn is_copy_of_lost<F: OsFile>(
    copy: &Reader<F>,
    original: &Reader<F>,
    tracked: &Tracked,
    is_proof: impl Fn(Fingerprint) -> bool,
) -> io::Result<bool> {
    let (head, last) = (tracked.opened.head, (tracked.read_offset, tracked.tail));
    let has_bytes = |one: &Reader<F>, (offset, tail): (u64, Fingerprint)| -> io::Result<bool> {
        Ok(one.stat()?.size >= offset && one.has_head(head)? && one.has_tail(tail, offset)?)
    };
    if has_bytes(original, last)? {
        return Ok(false);
    }
    for place in tracked.trail.iter().rev().copied().chain([last]) {
        if is_proof(place.1) && has_bytes(copy, place)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether `copy` holds the bytes of a file that was closed; of a copy that is not complete yet, the
/// first of them.
fn is_copy_of_ended(copy: &Reader<impl OsFile>, ended: &Tracked) -> io::Result<bool> {
    let (head, tail, offset) = (ended.opened.head, ended.tail, ended.read_offset);
    // The text of a compressed file is read forward only: it has nothing but its head to be known by.
    let is_unknown = head.len == 0 && copy.is_unpacked();
    if is_unknown || !copy.has_head(head)? {
        return Ok(false);
    }
    Ok(copy.is_unpacked() || copy.stat()?.size < offset || copy.has_tail(tail, offset)?)
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
