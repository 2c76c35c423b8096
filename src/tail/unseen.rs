//! Files that were born and renamed while nobody looked.
//!
//! Rotation can make a file and rename it out of the patterns between two looks, above all while
//! the agent is stopped. Its lines were written to a file that the patterns named, so they are
//! shipped. Such a file bears the name of a *generation* of one that is known, and is younger than
//! the last look at that one; what is older was left behind by others.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use super::remembered::bases;

/// A file that is known, and the last look at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Path as configured, links not resolved.
    pub path: PathBuf,
    /// Where it really was, under the name that the patterns found.
    pub place: PathBuf,
    /// When it was last looked at, in nanoseconds since 1970.
    pub seen: i64,
    /// If it waits to be delivered and is not met, a copy of it may be older than the last look:
    /// when it was born itself.
    pub born: Option<i64>,
}

impl Known {
    fn is_younger(&self, born: i64) -> bool {
        born > self.born.unwrap_or(i64::MAX).min(self.seen)
    }
}

/// A file beside a known one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unseen<'k> {
    /// Where it is.
    pub path: PathBuf,
    /// The file that it is a generation of.
    pub known: &'k Known,
    /// It is older than the last look: it counts only as a copy.
    pub is_copy: bool,
}

/// The generations of `known` files that are younger than the last look at them, oldest first, with
/// the file that each is a generation of; and the older ones that may be a copy. Files in `met`
/// (device and inode) are passed over.
#[must_use]
pub fn unseen<'k>(known: &'k [Known], met: &HashSet<(u64, u64)>) -> Vec<Unseen<'k>> {
    let mut by_dir: BTreeMap<&Path, Vec<&Known>> = BTreeMap::new();
    for one in known {
        if let Some(dir) = one.place.parent() {
            by_dir.entry(dir).or_default().push(one);
        }
    }
    let mut found = Vec::new();
    for (dir, known) in by_dir {
        let Ok(entries) = fs::read_dir(dir) else { continue };
        for path in entries.flatten().map(|entry| entry.path()) {
            let bases = bases(&path);
            if bases.is_empty() {
                continue;
            }
            // Links are not followed: what they lead to has a name of its own.
            let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
            let born = born(&metadata);
            let is_met = met.contains(&(metadata.dev(), metadata.ino()));
            let is_beside =
                |known: &&&Known| bases.contains(&known.place) && known.is_younger(born);
            if let Some(known) = known.iter().find(is_beside)
                && metadata.is_file()
                && !is_met
            {
                found.push((born, Unseen { path, known, is_copy: born <= known.seen }));
            }
        }
    }
    found.sort_by(|a, b| (a.0, &a.1.path).cmp(&(b.0, &b.1.path)));
    found.into_iter().map(|(_, unseen)| unseen).collect()
}

/// Whether the directory of a known file may not be looked into.
#[must_use]
pub fn is_closed(known: &Known) -> bool {
    let looked = known.place.parent().map(fs::read_dir);
    looked.is_some_and(|looked| {
        looked.is_err_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied)
    })
}

/// When a file was made; where that is not known, when its bytes changed last.
fn born(metadata: &Metadata) -> i64 {
    let born = metadata.created().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    match born {
        Some(born) => i64::try_from(born.as_nanos()).unwrap_or(i64::MAX),
        None => metadata.mtime().saturating_mul(1_000_000_000) + metadata.mtime_nsec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_generations_that_are_younger_than_the_last_look() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("app.log");
        let write = |name: &str| {
            let path = dir.path().join(name);
            fs::write(&path, name).unwrap();
            fs::metadata(path).unwrap()
        };
        let older = write("app.log.3");
        let met = write("app.log.2");
        write("app.log.1");
        write("other.log.1");
        write("app.log.bak");
        std::os::unix::fs::symlink("other.log.1", dir.path().join("app.log.9")).unwrap();
        let known = |seen, born| {
            [Known { path: "/share/app.log".into(), place: place.clone(), seen, born }]
        };
        let met = HashSet::from([(met.dev(), met.ino()), (older.dev(), older.ino())]);
        let paths = |seen| -> Vec<PathBuf> {
            unseen(&known(seen, None), &met).into_iter().map(|one| one.path).collect()
        };

        assert_eq!(paths(0), [dir.path().join("app.log.1")]);
        assert!(paths(i64::MAX).is_empty());
        let waits = known(i64::MAX, Some(0));
        let copies = unseen(&waits, &met);
        assert_eq!(copies.len(), 1);
        assert!(copies[0].is_copy && copies[0].path == dir.path().join("app.log.1"));
    }
}
