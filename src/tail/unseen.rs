//! Files that were born and renamed while nobody looked.
//!
//! Rotation can make a file and rename it out of the patterns between two looks, above all while
//! the agent is stopped. Its lines were written to a file that the patterns named, so they are
//! shipped. Such a file bears the name of a *generation* of one that is known, and is younger than
//! the last look at that one; what is older was left behind by others. So does one that has the name
//! itself and that the patterns do not lead to any more, because a link was pointed elsewhere.
//!
//! | where | what counts |
//! |---|---|
//! | beside a known file, or where an earlier generation of it was found | what is younger, and copies |
//! | up to two levels below, where no file has the known one's name | what is younger, and copies |
//! | in the directory above and up to two levels below that; in the one above that and its directories | copies |

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::catalog::names;
use super::os::{Facts, Kind, Os, OsEntry as _, nanoseconds};

/// How many levels are searched around the directory of a known file.
const LEVELS: usize = 2;
/// How long before a look what was copied after it may have been written to, in nanoseconds.
const SEEN_MARGIN: i64 = 60_000_000_000;
/// Most files that one search finds.
const FOUND_MAX: usize = 10_000;
/// Most directories that are searched around those of all known files.
const AROUND_MAX: usize = 1024;
/// How coarse the time stamps of directories are, in nanoseconds.
const DIR_STAMP_LAG: i64 = 2_000_000_000;

/// A file that is known, and the last look at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Path as configured, links not resolved.
    pub path: PathBuf,
    /// When the file was last looked at, in nanoseconds since 1970.
    pub seen: i64,
    /// When the file was born, in nanoseconds since 1970, if it waits to be delivered and is not
    /// met. A copy of it may be older than the last look.
    pub born: Option<i64>,
    /// Time after which a copy was written to that may hold more than was read, in nanoseconds
    /// since 1970, if the file was truncated.
    pub copied: Option<i64>,
}

impl Known {
    /// Takes over what is expected of the same place since other looks.
    pub fn merge(&mut self, other: &Self) {
        let earlier = |a: Option<i64>, b: Option<i64>| a.into_iter().chain(b).min();
        self.seen = self.seen.min(other.seen);
        self.born = earlier(self.born, other.born);
        self.copied = earlier(self.copied, other.copied);
    }

    /// Whether a file was made since the last look, or may be a copy although it is older. The time of a look
    /// is a little early, so what was not written to for longer than that is older too.
    fn is_younger(&self, born: i64, modified: i64) -> bool {
        let is_missed = born > self.seen && modified > self.seen.saturating_sub(SEEN_MARGIN);
        is_missed || self.born.is_some_and(|first| born > first)
    }

    /// Whether what the file held may stand in a copy only.
    const fn expects_copies(&self) -> bool {
        self.born.is_some() || self.copied.is_some()
    }

    /// Whether anything is searched for beside the file.
    const fn expects_more(&self) -> bool {
        self.seen != i64::MAX || self.expects_copies()
    }

    fn may_be_copied(&self, modified: i64) -> bool {
        self.copied.is_some_and(|copied| modified > copied)
    }
}

/// The known files, by where they really were, under the names that the patterns found. The keys
/// are the bytes of the paths: to compare paths a component at a time is slow.
pub type Places = HashMap<OsString, Known>;

/// A file beside a known one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unseen<'k> {
    /// Where the file is.
    pub path: PathBuf,
    /// The known file that the file is a generation of.
    pub known: &'k Known,
    /// Whether the file counts only as a copy: it is older than the last look, or its age does not
    /// matter.
    pub is_copy: bool,
}

/// What a search beside the known files came to.
#[derive(Debug, Default)]
pub struct Search<'k> {
    /// The files that it found, oldest first.
    pub found: Vec<(i64, Unseen<'k>)>,
    /// Directories that may not be looked into.
    pub closed: HashSet<PathBuf>,
    /// Paths at which a known file was and nothing is now.
    pub absent: Vec<OsString>,
    /// Whether there are more files than one search finds.
    pub is_cut: bool,
}

impl<'k> Search<'k> {
    fn add(&mut self, found: Option<(i64, Unseen<'k>)>) {
        self.is_cut |= found.is_some() && self.found.len() == FOUND_MAX;
        self.found.extend(found.filter(|_| self.found.len() < FOUND_MAX));
    }
}

/// The generations of `known` files that are younger than the last look at them, with the file that
/// each is a generation of; and the others that may be a copy. Files in `met` (device and inode)
/// are passed over. `may_enter` says whether a directory may be looked into, and is where its path
/// says, without a link.
///
/// *Cost*: reads each directory once, and those of known files once more if the search around others comes
/// there; examines what bears the name of a generation.
#[must_use]
pub fn unseen<'k>(
    os: &impl Os,
    known: &'k Places,
    met: &HashSet<(u64, u64)>,
    may_enter: impl Fn(&Path) -> bool,
) -> Search<'k> {
    let mut by_dir: BTreeMap<&Path, Names<'k>> = BTreeMap::new();
    for (place, one) in known {
        let place = Path::new(place);
        if let (Some(dir), Some(name)) = (place.parent(), place.file_name()) {
            by_dir.entry(dir).or_default().insert(name.as_bytes(), one);
        }
    }
    let mut search = Search::default();
    let mut around = Around::default();
    for (dir, family) in &by_dir {
        if !may_enter(dir) {
            search.closed.insert((*dir).to_owned());
            continue;
        }
        let listed = match list(os, dir) {
            Ok(listed) => listed,
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                search.closed.insert((*dir).to_owned());
                continue;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Listed::default(),
            Err(_) => continue,
        };
        for name in &listed.names {
            search.add(examine(os, dir, name, family, met, Where::Beside));
        }
        let absent = family.keys().filter(|name| !listed.has(OsStr::from_bytes(name)));
        search.absent.extend(absent.map(|name| dir.join(OsStr::from_bytes(name)).into()));
        // Where a known file stands in its place nothing was missed.
        let missed = family.iter().filter(|(_, known)| known.expects_more());
        let all: Family<'_> = Rc::new(missed.map(|(name, known)| (*name, *known)).collect());
        listed
            .dirs
            .iter()
            .for_each(|below| around.plan(dir.join(below), &all, Where::Below, LEVELS));
        let copies = family.iter().filter(|(_, known)| known.expects_copies());
        let copies: Family<'_> = Rc::new(copies.map(|(name, known)| (*name, *known)).collect());
        for (dir, levels) in dir.ancestors().skip(1).zip([LEVELS + 1, LEVELS]) {
            around.plan(dir.to_owned(), &copies, Where::Around, levels);
        }
    }
    while let Some((dir, plans)) = around.dirs.pop_first() {
        if !may_enter(&dir) {
            continue;
        }
        let beside = by_dir.get(dir.as_path());
        let listed = list(os, &dir).unwrap_or_default();
        for Plan { family, ways, levels } in plans {
            // What is known here was examined above; a log of that name has its own generations here.
            let has_home = |name: &&[u8]| {
                beside.is_some_and(|names| names.contains_key(*name))
                    || (ways == Where::Below && listed.has(OsStr::from_bytes(name)))
            };
            let family = if family.keys().any(has_home) {
                let others = family.iter().filter(|(name, _)| !has_home(name));
                Rc::new(others.map(|(name, known)| (*name, *known)).collect())
            } else {
                family
            };
            for name in &listed.names {
                search.add(examine(os, &dir, name, &family, met, ways));
            }
            listed.dirs.iter().for_each(|below| {
                around.plan(dir.join(below), &family, ways, levels - 1);
            });
        }
    }
    search.found.sort_by(|a, b| (a.0, &a.1.path).cmp(&(b.0, &b.1.path)));
    search.found.dedup_by(|a, b| a.1.path == b.1.path);
    search
}

/// Known files by their names in one directory.
type Names<'k> = BTreeMap<&'k [u8], &'k Known>;
/// Names that many directories are searched for.
type Family<'k> = Rc<Names<'k>>;

/// Where a directory is from that of a known file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Where {
    Beside,
    Below,
    /// Above the directory, or beside the one above.
    Around,
}

/// What is searched for in a directory, and how many levels deep.
struct Plan<'k> {
    family: Family<'k>,
    ways: Where,
    levels: usize,
}

/// Directories around those of known files that are to be searched.
#[derive(Default)]
struct Around<'k> {
    dirs: BTreeMap<PathBuf, Vec<Plan<'k>>>,
    /// How many were planned, each as often as it was.
    planned: usize,
}

impl<'k> Around<'k> {
    fn plan(&mut self, dir: PathBuf, family: &Family<'k>, ways: Where, levels: usize) {
        if levels > 0 && !family.is_empty() && self.planned < AROUND_MAX {
            self.planned += 1;
            let plan = Plan { family: Rc::clone(family), ways, levels };
            self.dirs.entry(dir).or_default().push(plan);
        }
    }
}

/// The names in a directory.
#[derive(Default)]
struct Listed {
    names: Vec<OsString>,
    dirs: Vec<OsString>,
}

impl Listed {
    fn has(&self, name: &OsStr) -> bool {
        self.names.binary_search_by(|one| one.as_os_str().cmp(name)).is_ok()
    }
}

fn list(os: &impl Os, dir: &Path) -> io::Result<Listed> {
    let mut listed = Listed::default();
    for entry in os.list(dir)?.flatten() {
        match entry.kind() {
            Ok(Kind::Dir) => listed.dirs.push(entry.name()),
            Ok(_) | Err(_) => listed.names.push(entry.name()),
        }
    }
    listed.names.sort_unstable();
    Ok(listed)
}

/// Whether a name beside this place may have changed since a look. The directory says when a name
/// did, a little late.
#[must_use]
pub fn has_changed_since(os: &impl Os, place: &Path, seen: i64) -> bool {
    let changed = place.parent().map(|dir| os.stat(dir));
    let changed = changed.and_then(|found| found.ok()).map(|found| nanoseconds(found.modified));
    changed.is_none_or(|changed| changed > seen.saturating_sub(DIR_STAMP_LAG))
}

/// When a file of this name was born, in nanoseconds since 1970, if it is one that nobody has seen.
fn examine<'k>(
    os: &impl Os,
    dir: &Path,
    name: &OsStr,
    family: &Names<'k>,
    met: &HashSet<(u64, u64)>,
    ways: Where,
) -> Option<(i64, Unseen<'k>)> {
    let bases = names::bases(name.as_bytes());
    let mut beside: Vec<&Known> =
        bases.iter().filter_map(|base| family.get(&base[..]).copied()).collect();
    let same = family.get(name.as_bytes()).copied();
    // Rotation into another directory may leave the name as it is.
    if ways == Where::Around {
        beside.extend(same);
    }
    if beside.is_empty() && same.is_none() {
        return None;
    }
    let path = dir.join(name);
    // Links are not followed: what they lead to has a name of its own.
    let facts = os.lstat(&path).ok()?;
    let born = born(&facts);
    let is_met = met.contains(&facts.id());
    let modified = nanoseconds(facts.modified);
    let is_it = |known: &&Known| known.is_younger(born, modified) || known.may_be_copied(modified);
    let same = same.filter(|known| ways == Where::Beside && born > known.seen);
    let known = same.or_else(|| beside.into_iter().find(is_it))?;
    let is_it = facts.is_regular() && !is_met;
    let is_copy = ways == Where::Around || born <= known.seen;
    is_it.then_some((born, Unseen { path, known, is_copy }))
}

/// When a file was made, in nanoseconds since 1970; where that is not known, when its bytes changed
/// last.
fn born(facts: &Facts) -> i64 {
    match facts.born {
        0 => nanoseconds(facts.modified),
        born => born,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::MetadataExt as _;
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::tail::os::kernel::Kernel;

    /// A directory around which there is nothing else.
    fn logs() -> (tempfile::TempDir, PathBuf) {
        let temporary = tempfile::tempdir().unwrap();
        let dir = temporary.path().join("data/pod/logs");
        fs::create_dir_all(&dir).unwrap();
        (temporary, dir)
    }

    #[test]
    fn finds_generations_that_are_younger_than_the_last_look() {
        let (_temporary, dir) = logs();
        let place = dir.join("app.log");
        let write = |name: &str| {
            let path = dir.join(name);
            fs::write(&path, name).unwrap();
            fs::metadata(path).unwrap()
        };
        let older = write("app.log.3");
        let met = write("app.log.2");
        write("app.log.1");
        write("other.log.1");
        write("app.log.tmp");
        std::os::unix::fs::symlink("other.log.1", dir.join("app.log.9")).unwrap();
        let known = |seen, born| {
            Places::from([(
                place.clone().into(),
                Known { path: "/share/app.log".into(), seen, born, copied: None },
            )])
        };
        let met = HashSet::from([(met.dev(), met.ino()), (older.dev(), older.ino())]);
        let paths = |seen| -> Vec<PathBuf> {
            let known = known(seen, None);
            let search = unseen(&Kernel, &known, &met, |_| true);
            assert_eq!(search.absent, [place.as_os_str()]);
            search.found.into_iter().map(|(_, one)| one.path).collect()
        };

        assert_eq!(paths(0), [dir.join("app.log.1")]);
        assert!(paths(i64::MAX).is_empty());
        let waits = known(i64::MAX, Some(0));
        let copies = unseen(&Kernel, &waits, &met, |_| true);
        assert_eq!(copies.found.len(), 1);
        let (_, copy) = &copies.found[0];
        assert!(copy.is_copy && copy.path == dir.join("app.log.1"));
    }

    #[test]
    fn a_directory_that_holds_generations_of_one_file_is_searched_for_those_of_others() {
        let (_temporary, dir) = logs();
        let old = dir.join("old");
        fs::create_dir_all(&old).unwrap();
        fs::write(old.join("one.log.1"), "one").unwrap();
        fs::write(old.join("other.log.1"), "other").unwrap();
        let known = |name: &str| Known {
            path: Path::new("/share").join(name),
            seen: 0,
            born: None,
            copied: None,
        };
        let known = Places::from([
            (dir.join("one.log").into(), known("one.log")),
            (old.join("one.log").into(), known("one.log")),
            (dir.join("other.log").into(), known("other.log")),
        ]);

        let Search { found, .. } = unseen(&Kernel, &known, &HashSet::new(), |_| true);

        let mut found: Vec<_> = found.into_iter().map(|(_, one)| one.path).collect();
        found.sort();
        assert_eq!(found, [old.join("one.log.1"), old.join("other.log.1")]);
    }

    #[test]
    fn finds_copies_of_a_truncated_file_that_were_written_to_since_the_last_look() {
        let (_temporary, dir) = logs();
        let write = |name: &str, seconds| {
            let file = fs::File::create(dir.join(name)).unwrap();
            file.set_modified(UNIX_EPOCH + std::time::Duration::from_secs(seconds)).unwrap();
        };
        write("app.log.2", 1000);
        write("app.log.1", 2000);
        let copied = Some(1_500_000_000_000);
        let one = Known { path: "/share/app.log".into(), seen: i64::MAX, born: None, copied };
        let known = Places::from([(dir.join("app.log").into(), one)]);

        fs::write(dir.join("app.log"), "").unwrap();

        let Search { found, absent, .. } = unseen(&Kernel, &known, &HashSet::new(), |_| true);

        assert!(absent.is_empty());
        let found: Vec<_> = found.into_iter().map(|(_, one)| (one.path, one.is_copy)).collect();
        assert_eq!(found, [(dir.join("app.log.1"), true)]);
    }
}
