//! What a file is a copy of: a file that is open, one that is closed, or bytes that are not there any more.
//!
//! The names, the births and the fingerprints are compared without asking (`catalog`); here the bytes are.
//! Each rule has a test of its name in `tail::rules_tests`.
//!
//! | rule | the original | the suspect | then |
//! |---|---|---|---|
//! | alibi | its bytes went away before the suspect was born, unless that is compressed; or the suspect is not compressed, and was last written to before the original was made | any | no copy |
//! | place | | stands where the original stood last | no copy |
//! | proof | see [`judge::is_proof_for`] | has fewer equal bytes than its name asks for | no copy |
//! | short | a longer head is known of it | stands beside it with the name of a generation, and ends with the whole tail of such a place | the head is not asked for |
//! | nearest first | several | | open ones before closed ones, kin before strangers, near before far, those with more equal bytes first |
//! | compressed original | open and compressed, of the same head | has the name of a generation | it waits |
//! | copy so far | open; has all bytes of the suspect | has the name of a generation, or that of another one and a whole head and tail | it is a copy as long as the original is not touched |
//! | lost bytes | open, and has the bytes no more that were read of it | has them, up to where a reading ended | it is a copy |
//! | under way | ended, and not all of it is acknowledged | has its bytes, or fewer of them, or is compressed and has its head | it is a copy |
//! | own | not touched | was found to be a file of its own | it is none |
//! | located | known to stand elsewhere, or where nobody may look | has the name of a stranger | no copy of that |
//! | there | closed and in its place, or found and not open yet | has its bytes, and the name of a kin | it is a copy as long as the original is not touched |
//! | sought | missing, and not searched for yet | has its bytes | it waits for the search |
//! | longer | closed, in its place as it was delivered | is compressed and has more text | no copy of that |
//! | removed | removed, or found nowhere | has its bytes, up to where a reading ended | it goes on there |
//! | holds all | the same | is compressed, proven, and ends between two such places | it holds nothing new |

use std::cmp::Reverse;
use std::io;
use std::path::Path;

use super::catalog::Catalog;
use super::catalog::entry::{Entry, Search};
use super::catalog::judge::{self, Stat};
use super::catalog::names::{self, Kin};
use super::catalog::originals::Originals;
use super::os::{Facts, Os, OsFile};
use super::reader::{self, Reader};
use super::registry::Registry;
use super::scout::{is_absence, is_in_its_place};
use super::tracked::{State, Tracked};
use crate::base::fingerprint::Fingerprint;
use crate::base::span::FileKey;
use crate::checkpoint::format::Checkpoint;

/// Most open files, and most places in closed ones, that a suspect is compared with: the nearest.
const CANDIDATES_MAX: usize = 64;

/// A file that may be a copy of a known one.
pub struct Suspect<'a, O: Os> {
    /// The system that the suspect is a file of.
    pub os: O,
    /// Where the suspect really is.
    pub place: &'a Path,
    /// Reads the suspect's bytes.
    pub reader: &'a Reader<O::File>,
    /// What fstat(2) says of the suspect.
    pub stat: Stat,
    /// What is known of the suspect itself.
    pub known: Known,
}

/// What is known of a suspect itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct Known {
    /// The number of the entry that speaks of it: no original.
    pub entry: Option<u64>,
    /// Whether it equals a file that nobody touches, and has done so for long enough to be one of its own.
    pub is_own: bool,
}

/// What has become of the bytes of an open original.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The bytes stand where they were: what has the same is a copy only as long as nobody touches them.
    Untouched,
    /// The bytes have no name any more, and are read to their end by the descriptor.
    Nameless,
    /// The bytes are gone: what was not read of them may stand in a copy only.
    Gone,
}

/// The file that another one is a copy of.
#[derive(Debug, PartialEq, Eq)]
pub enum Original {
    /// The original is open, or its last batches are under way.
    Open {
        /// The original.
        file: FileKey,
        /// What has become of its bytes.
        standing: Standing,
    },
    /// The original is closed, and has its bytes still.
    There(Checkpoint),
    /// The original's bytes are not there any more. The copy goes on where this checkpoint says.
    Removed(Checkpoint),
    /// The original may be somewhere else, and was not searched for yet.
    Sought,
}

/// The open files, and those whose last batches are under way.
pub struct Open<'a, F> {
    /// The files themselves.
    pub registry: &'a Registry,
    /// What finds the files that a copy may be of.
    pub originals: &'a Originals,
    /// The reader of a file, unless the file has ended.
    pub reader: &'a dyn Fn(FileKey) -> Option<&'a Reader<F>>,
}

/// How a suspect is related to a file that it may be a copy of, the nearest first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Relation {
    is_stranger: bool,
    distance: usize,
    kin: Kin,
    /// As which kin the suspect must prove itself.
    needed: Kin,
}

/// A place in a closed file up to which a suspect may be a copy of it.
struct Place {
    relation: Relation,
    number: u64,
    offset: u64,
    tail: Fingerprint,
    /// Whether a compressed suspect that is a copy up to this place ends before the next one: it
    /// holds nothing else, because no app writes compressed what another file has as text.
    holds_all: bool,
}

impl<O: Os> Suspect<'_, O> {
    /// How the suspect is related to a file with these names, of which the first is the configured one and
    /// the last where the file stood; it was made at `born`, and its bytes had gone away by `gone_at`.
    fn relation(&self, names: &[&Path], born: i64, gone_at: i64) -> Option<Relation> {
        let (configured, real) = (names.first()?, names.last()?);
        let is_compressed = self.reader.is_unpacked();
        // logrotate gives an archive the time of the log, whose copy was made later.
        let is_older = !is_compressed && judge::is_older(self.stat.modified, born);
        let has_alibi = !is_older && judge::has_alibi(self.stat.born, gone_at, is_compressed);
        let kin = names::kin(self.place, names).filter(|_| has_alibi)?;
        let distance = names::distance(self.place, real);
        // A directory for generations holds no log of the name that they had.
        let is_archive = kin == Kin::Elsewhere && self.is_alone_here(configured);
        let needed = if is_archive { Kin::Generation } else { kin };
        Some(Relation { is_stranger: kin == Kin::Stranger, distance, kin, needed })
    }

    /// What a head tells of the suspect: nothing if the suspect is shorter, as a copy is that was made before
    /// the head was looked at.
    fn comparable(&self, head: Fingerprint) -> Fingerprint {
        if self.stat.size < u64::from(head.len) { Fingerprint::default() } else { head }
    }

    /// Whether the suspect is compressed and has more text than a file that stands where it stood, as
    /// it was delivered.
    fn is_longer_than(&self, saved: &Checkpoint) -> bool {
        let is_it =
            |found: Facts| found.id() == (saved.device, saved.inode) && found.size == saved.offset;
        self.reader.is_unpacked()
            && self.stat.size > saved.offset
            && self.os.lstat(&saved.resolved).is_ok_and(is_it)
    }

    /// Whether no log of this name is in the suspect's directory.
    fn is_alone_here(&self, log: &Path) -> bool {
        let log = log.file_name().map(|name| self.place.with_file_name(name));
        log.is_some_and(|log| self.os.lstat(&log).is_err_and(|error| is_absence(&error)))
    }
}

/// The file that a suspect is a copy of, by its bytes, and by what its name and its birth allow:
/// copytruncate and gzip make such. At least `from` bytes of the suspect were delivered.
///
/// # Errors
/// As reading the suspect; and if it waits for a compressed original.
pub fn original_of<O: Os>(
    open: &Open<'_, O::File>,
    catalog: &mut Catalog,
    suspect: &Suspect<'_, O>,
    from: u64,
) -> io::Result<Option<Original>> {
    for (relation, file) in open.related(suspect)? {
        if let Some(standing) = open.standing(file, relation, suspect)? {
            let is_none = suspect.known.is_own && standing == Standing::Untouched;
            return Ok((!is_none).then_some(Original::Open { file, standing }));
        }
    }
    for place in places(catalog, suspect, from)? {
        if !suspect.reader.has_tail(place.tail, place.offset)? {
            continue;
        }
        let Some(entry) = catalog.entry(place.number) else { continue };
        let (saved, is_kin) = (entry.saved(), place.relation.kin == Kin::Generation);
        let is_there = match entry.search() {
            // Whose bytes these are is not known.
            Some(Search::At(_) | Search::Barred | Search::Awaited) if !is_kin => continue,
            Some(Search::At(_)) => true,
            // It was found and cannot be opened yet: nobody else takes its checkpoint.
            _ => entry.is_there() || is_in_its_place(&suspect.os, saved),
        };
        // An archive of what stands there has no more text than that.
        if is_there && suspect.is_longer_than(saved) {
            continue;
        }
        return match entry.search() {
            _ if is_there && suspect.known.is_own => Ok(None),
            _ if is_there => Ok(Some(Original::There(saved.clone()))),
            Some(Search::Wanted | Search::Met) => Ok(Some(Original::Sought)),
            _ => removed(catalog, &place, suspect),
        };
    }
    Ok(None)
}

/// Goes on in a copy of bytes that are not there any more, behind a place in them.
fn removed(
    catalog: &mut Catalog,
    place: &Place,
    suspect: &Suspect<'_, impl Os>,
) -> io::Result<Option<Original>> {
    let Some(saved) = catalog.entry(place.number).map(Entry::saved) else { return Ok(None) };
    if place.offset == saved.offset && saved.inode == 0 {
        // There may be more than one copy, and another may hold more.
        let rest = suspect.stat.size.saturating_sub(saved.offset);
        return Ok(catalog.on_copied(place.number, rest).map(Original::Removed));
    }
    if place.offset == saved.offset {
        let is_rest_here =
            saved.rest.is_none_or(|owed| saved.offset.saturating_add(owed) <= suspect.stat.size);
        let known = match is_rest_here {
            true => catalog.take(place.number),
            // What this copy has not may stand in another.
            false => Some(saved.clone()),
        };
        return Ok(known.map(Original::Removed));
    }
    // Ranges of the original stand above all that the copy holds.
    let (offset, tail) = match place.holds_all {
        true => (suspect.stat.size, suspect.reader.tail(suspect.stat.size)?),
        false => (place.offset, place.tail),
    };
    Ok(Some(Original::Removed(Checkpoint { offset, tail, ranges: Vec::new(), ..saved.clone() })))
}

impl<F: OsFile> Open<'_, F> {
    fn get(&self, file: FileKey) -> Option<&Tracked> {
        self.registry.get(file).or_else(|| self.registry.get_ended(file))
    }

    /// The files that a suspect may be a copy of, as far as heads, names and times say.
    fn related(
        &self,
        suspect: &Suspect<'_, impl Os<File = F>>,
    ) -> io::Result<Vec<(Relation, FileKey)>> {
        let heads = suspect.reader.heads(self.originals.head_lens())?;
        let inode = (suspect.stat.device, suspect.stat.inode);
        let relation = |file: FileKey| {
            let Tracked { opened, sighting, gone, .. } = self.get(file)?;
            let is_it = (opened.device, opened.inode) == inode && self.registry.get(file).is_some();
            let names = [&*opened.path, &*sighting.path, &*opened.resolved];
            let relation = suspect.relation(&names, opened.born, gone.at).filter(|_| !is_it)?;
            Some((relation, file))
        };
        let originals = self.originals.of(&heads, suspect.place);
        let mut related: Vec<_> = originals.into_iter().filter_map(relation).collect();
        related.sort_unstable();
        related.truncate(CANDIDATES_MAX);
        Ok(related)
    }

    /// What has become of the bytes of a file, if a suspect is a copy of it.
    fn standing(
        &self,
        file: FileKey,
        relation: Relation,
        suspect: &Suspect<'_, impl Os<File = F>>,
    ) -> io::Result<Option<Standing>> {
        let Some(tracked) = self.get(file) else { return Ok(None) };
        let (copy, head) = (suspect.reader, suspect.comparable(tracked.opened.head));
        let is_proof = |tail| judge::is_proof_for(relation.needed, head, tail);
        let Some(original) = (self.reader)(file) else {
            let is_copy = is_proof(tracked.tail) && is_copy_of_ended(copy, tracked)?;
            return Ok(is_copy.then_some(Standing::Gone));
        };
        // It is read forward only: what may be the same waits for its end.
        if original.is_unpacked() {
            let head = tracked.opened.head;
            let is_kin = matches!(relation.kin, Kin::Generation | Kin::Elsewhere);
            if is_kin && head.len > 0 && copy.has_head(head)? {
                let why = "it waits for a compressed file that may hold the same";
                return Err(io::Error::other(why));
            }
            return Ok(None);
        }
        let is_suspect = match relation.kin {
            Kin::Generation | Kin::Elsewhere => true,
            Kin::Sibling => is_proof(tracked.tail),
            Kin::Stranger => false,
        };
        if is_suspect && reader::is_copy_so_far(copy, original)? {
            let is_nameless = tracked.state == State::Deleted;
            let there = if is_nameless { Standing::Nameless } else { Standing::Untouched };
            return Ok(Some(there));
        }
        Ok(is_copy_of_lost((copy, head), original, tracked, is_proof)?.then_some(Standing::Gone))
    }
}

/// Whether the original was truncated or rewritten since it was last looked at, and `copy` holds
/// the bytes that stood in it, all of them that were read or those up to an earlier end.
fn is_copy_of_lost<F: OsFile>(
    (copy, head): (&Reader<F>, Fingerprint),
    original: &Reader<F>,
    tracked: &Tracked,
    is_proof: impl Fn(Fingerprint) -> bool,
) -> io::Result<bool> {
    let last = (tracked.read_offset, tracked.tail);
    let has_bytes = |one: &Reader<F>, head, (offset, tail): (u64, Fingerprint)| {
        Ok::<_, io::Error>(
            one.stat()?.size >= offset && one.has_head(head)? && one.has_tail(tail, offset)?,
        )
    };
    if has_bytes(original, tracked.opened.head, last)? {
        return Ok(false);
    }
    for place in tracked.trail.iter().rev().copied().chain([last]) {
        if is_proof(place.1) && has_bytes(copy, head, place)? {
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

/// The places up to which a suspect may be a copy of closed files, as far as its head says.
fn places(catalog: &Catalog, suspect: &Suspect<'_, impl Os>, from: u64) -> io::Result<Vec<Place>> {
    let heads = suspect.reader.heads(catalog.indexes().head_lens())?;
    let mut places = Vec::new();
    for number in catalog.indexes().originals_of(&heads, suspect.place) {
        if let Some(entry) = catalog.entry(number).filter(|_| suspect.known.entry != Some(number))
            && suspect.reader.has_head(suspect.comparable(entry.saved().head))?
        {
            places.extend(places_in(number, entry, suspect, from));
        }
    }
    let nearest = |one: &Place| (one.relation, Reverse(one.offset), one.number);
    places.sort_unstable_by_key(nearest);
    places.truncate(CANDIDATES_MAX);
    Ok(places)
}

/// The places in a closed file with the same head up to which a suspect may be a copy of it.
fn places_in(number: u64, entry: &Entry, suspect: &Suspect<'_, impl Os>, from: u64) -> Vec<Place> {
    let saved = entry.saved();
    let names = [saved.path.as_path(), saved.resolved.as_path()];
    let relation = suspect.relation(&names, saved.born, saved.gone_at);
    // What is there as it was is copied under the name of a generation, or it is not told from another
    // file.
    let is_other = |one: &Relation| one.kin == Kin::Stranger && entry.is_there();
    let Some(relation) = relation.filter(|one| !is_other(one)) else { return Vec::new() };
    let (size, head) = (suspect.stat.size, suspect.comparable(saved.head));
    let below = saved.trail.iter().filter(|(offset, _)| *offset < saved.offset);
    let ends: Vec<_> = below.copied().chain([(saved.offset, saved.tail)]).collect();
    let place = |(index, &(offset, tail)): (usize, &(u64, Fingerprint))| {
        let is_proof = judge::is_proof_for(relation.needed, head, tail);
        let is_it = (from..=size).contains(&offset) && is_proof;
        let is_last = ends.get(index + 1).is_some_and(|(next, _)| *next > size);
        let is_compressed = suspect.reader.is_unpacked();
        let holds_all = is_last && is_compressed && judge::is_whole_proof(head, tail);
        is_it.then_some(Place { relation, number, offset, tail, holds_all })
    };
    ends.iter().enumerate().filter_map(place).collect()
}

#[cfg(test)]
#[path = "copies_tests.rs"]
mod tests;
