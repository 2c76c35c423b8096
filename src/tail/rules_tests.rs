//! Tests of the rules by which a file is known: one for each row of the tables in [`super::catalog`] and
//! [`super::copies`], under the name of the row.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;

use super::catalog::Catalog;
use super::catalog::entry::{COPY_TIME, Search, is_own_by};
use super::catalog::judge::{self, Match, Stat};
use super::catalog::originals::Originals;
use super::copies::{self, Known as Itself, Open, Original, Standing, Suspect};
use super::discover::{Patterns, Permission};
use super::missed::{Known, Places, missed};
use super::os::Os;
use super::os::kernel::Kernel;
use super::reader::Reader;
use super::registry::Registry;
use super::scout;
use super::tracked::{Opened, State};
use crate::base::span::{CollectionId, FileKey};
use crate::checkpoint::format::Checkpoint;

type File = <Kernel as Os>::File;

/// Nanoseconds in a second.
const SECOND: i64 = 1_000_000_000;

/// Lines that no other text has, more than a whole head and tail need.
fn long(name: &str) -> String {
    (0..200).map(|number| format!("{name} {number:06}\n")).collect()
}

/// Files on a disk, and what is known of them.
struct House {
    root: PathBuf,
    _dir: tempfile::TempDir,
    catalog: Catalog,
    registry: Registry,
    readers: HashMap<FileKey, Reader<File>>,
}

impl House {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap().join("data/pod/logs");
        fs::create_dir_all(&root).unwrap();
        let (catalog, registry, readers) = Default::default();
        Self { root, _dir: dir, catalog, registry, readers }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    fn write_packed(&self, name: &str, text: &str) {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(text.as_bytes()).unwrap();
        fs::write(self.path(name), encoder.finish().unwrap()).unwrap();
    }

    /// Opens a file; of a compressed one the text, in which these places are known.
    fn reader(&self, name: &str, places: &[u64]) -> Reader<File> {
        let mut reader = Reader::open(&Kernel, &self.path(name)).unwrap();
        if reader.is_gzip().unwrap() {
            let mut gzip = reader.unpack().unwrap();
            gzip.mark(places.iter().copied());
            while !gzip.measure().unwrap() {}
            reader.show(gzip);
        }
        reader
    }

    /// The checkpoint of a file that is there, of which so many bytes are delivered.
    fn saved(&self, name: &str, offset: u64) -> Checkpoint {
        let reader = self.reader(name, &[]);
        let Stat { device, inode, born, size, .. } = reader.stat().unwrap();
        Checkpoint {
            path: self.path(name),
            resolved: self.path(name),
            device,
            inode,
            born,
            offset,
            head: reader.head(size).unwrap(),
            tail: reader.tail(offset).unwrap(),
            rest: Some(size - offset),
            ..Checkpoint::default()
        }
    }

    /// A file that is deleted, and was delivered up to here.
    fn removed(&mut self, name: &str, text: &str, offset: u64) -> Checkpoint {
        self.write(name, text);
        let saved = Checkpoint { gone_at: i64::MAX, ..self.saved(name, offset) };
        fs::remove_file(self.path(name)).unwrap();
        self.catalog.put_removed(saved.clone());
        saved
    }

    /// Opens a file and reads all of it.
    fn open(&mut self, name: &str) -> FileKey {
        let reader = self.reader(name, &[]);
        let Stat { device, inode, born, size, .. } = reader.stat().unwrap();
        let path = self.path(name);
        let opened = Opened {
            collection: CollectionId(0),
            path: path.as_path().into(),
            resolved: path.as_path().into(),
            device,
            inode,
            born,
            head: reader.head(size).unwrap(),
            offset: 0,
            tail: Default::default(),
        };
        let file = self.registry.open(opened, crate::base::clock::now(), 0);
        let tail =
            if reader.is_unpacked() { Default::default() } else { reader.tail(size).unwrap() };
        self.registry.on_read(file, size, tail, true, false);
        self.readers.insert(file, reader);
        file
    }

    /// Which checkpoint speaks of a file that is found under its own path, and what it means.
    fn claim(&mut self, name: &str) -> Option<(Checkpoint, Match)> {
        let (reader, path) = (self.reader(name, &[]), self.path(name));
        let stat = reader.stat().unwrap();
        let claim = scout::claim(&mut self.catalog, &Kernel, &path, &reader, stat).unwrap();
        claim.map(|claim| (claim.saved, claim.found))
    }

    /// What a checkpoint that speaks of a file means for it.
    fn means(&mut self, saved: Checkpoint, name: &str) -> Option<Match> {
        self.catalog = Catalog::default();
        self.catalog.put(saved);
        self.claim(name).map(|(_, found)| found)
    }

    fn original(&mut self, name: &str) -> Option<Original> {
        self.judged(name, &[], |_| {}).unwrap()
    }

    /// The original of a file of which more is told than the system says.
    fn judged(
        &mut self,
        name: &str,
        places: &[u64],
        tell: impl Fn(&mut Suspect<'_, Kernel>),
    ) -> io::Result<Option<Original>> {
        let (reader, place) = (self.reader(name, places), self.path(name));
        let Self { catalog, registry, readers, .. } = self;
        let originals = Originals::all(registry);
        let open = Open { registry, originals: &originals, reader: &|file| readers.get(&file) };
        // The second may have changed since the original was made.
        let stat = Stat { modified: None, ..reader.stat()? };
        let known = Itself::default();
        let mut suspect = Suspect { os: Kernel, place: &place, reader: &reader, stat, known };
        tell(&mut suspect);
        copies::original_of(&open, catalog, &suspect, 0)
    }

    /// Where a copy of what is gone goes on.
    fn goes_on_at(&mut self, name: &str) -> Option<u64> {
        goes_on_at(self.original(name))
    }
}

fn goes_on_at(original: Option<Original>) -> Option<u64> {
    original.map(|original| match original {
        Original::Removed(saved) => saved.offset,
        other => panic!("{other:?}"),
    })
}

mod judgements {
    use super::*;

    #[test]
    fn allowed() {
        let house = House::new();
        let (path, renamed) = (house.write("app.log", "one\n"), house.write("app.log.1", "one\n"));
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        let permits = |paths: &[String], exclude: &[String]| {
            let mut patterns = Patterns::new(paths, exclude, Vec::new(), &[]).unwrap();
            let _ = patterns.scan(&Kernel);
            patterns.permits(&Kernel, &path, &renamed)
        };
        assert_eq!(permits(&[text(&path)], &[]), Permission::Granted);
        assert_eq!(permits(&[text(&renamed)], &[]), Permission::NotConfigured);
        assert_eq!(permits(&[text(&path)], &[text(&path)]), Permission::NotConfigured);
        assert_eq!(permits(&[text(&path)], &[text(&renamed)]), Permission::NotConfigured);
    }

    #[test]
    fn same_file() {
        let mut house = House::new();
        house.write("app.log", "one\ntwo\n");
        let saved = house.saved("app.log", 4);
        house.catalog.put(saved.clone());
        assert_eq!(house.claim("app.log"), Some((saved.clone(), Match::Resume)));
        fs::rename(house.path("app.log"), house.path("other.log")).unwrap();
        assert_eq!(house.means(Checkpoint { born: 0, ..saved }, "other.log"), Some(Match::Resume));
    }

    #[test]
    fn used_inode() {
        let mut house = House::new();
        house.write("app.log", "one\ntwo\n");
        let saved = house.saved("app.log", 4);
        let other = Checkpoint { born: saved.born - 1, ..saved.clone() };
        assert_eq!(house.means(other.clone(), "app.log"), Some(Match::Rewritten));
        assert!(judge::is_used_inode(&other, saved.born));
    }

    #[test]
    fn rewritten() {
        let mut house = House::new();
        house.write("app.log", "one\ntwo\n");
        let saved = house.saved("app.log", 4);
        for text in ["six\ntwo\n", "one", ""] {
            house.write("app.log", text);
            assert_eq!(house.means(saved.clone(), "app.log"), Some(Match::Rewritten), "{text:?}");
        }
        assert!(!judge::is_used_inode(&saved, saved.born));
    }

    #[test]
    fn moved_disk() {
        let mut house = House::new();
        house.write("app.log", &long("app"));
        let whole = house.saved("app.log", 2000);
        let whole = Checkpoint { device: whole.device + 1, ..whole };
        let elsewhere = || Checkpoint { path: "/share/app.log".into(), ..whole.clone() };
        let other = |born| Checkpoint { born, ..elsewhere() };
        let copied = Checkpoint { inode: whole.inode + 1, born: 1, ..whole.clone() };
        assert_eq!(house.means(elsewhere(), "app.log"), Some(Match::Resume), "inode and birth");
        assert_eq!(house.means(copied, "app.log"), Some(Match::Resume), "the path, and proof");
        assert_eq!(house.means(other(0), "app.log"), Some(Match::Resume), "the inode, and proof");
        assert_ne!(house.means(other(1), "app.log"), Some(Match::Resume), "another birth");
        house.write("app.log", "one\ntwo\n");
        let few = house.saved("app.log", 4);
        let few = Checkpoint { device: few.device + 1, path: "/share/app.log".into(), ..few };
        assert_eq!(house.means(few, "app.log"), Some(Match::Resume), "few, of the same birth");
    }

    #[test]
    fn few_bytes() {
        let mut house = House::new();
        house.write("app.log", "one\ntwo\n");
        let few = house.saved("app.log", 4);
        let copied = Checkpoint { device: few.device + 1, inode: few.inode + 1, born: 1, ..few };
        house.catalog.put(copied);
        let (anew, found) = house.claim("app.log").unwrap();
        assert_eq!((anew.offset, found), (0, Match::Again));
    }

    #[test]
    fn copy_of_what_is_there() {
        let mut house = House::new();
        house.write("app.log", &long("app"));
        let saved = house.saved("app.log", 2200);
        house.catalog.put_closed(saved.clone());
        house.write("app.log.1", &long("app"));
        house.write("other.log", &long("app"));

        let original = house.original("app.log.1");

        assert_eq!(original, Some(Original::There(Checkpoint { is_done: true, ..saved })));
        assert_eq!(house.original("other.log"), None, "an app of its own");
        let now = crate::base::clock::now();
        assert!(!is_own_by(Some(now), now) && is_own_by(Some(now), now + COPY_TIME));
    }

    #[test]
    fn copy_of_what_went() {
        let mut house = House::new();
        house.removed("app.log", "one\ntwo\n", 4);
        house.write("app.log.1", "one\ntwo\nthree\n");
        house.write("other.log", "one\ntwo\nthree\n");
        assert_eq!(house.goes_on_at("app.log.1"), Some(4));
        assert_eq!(house.goes_on_at("other.log"), None, "few bytes under another name");
        house.removed("app.log", &long("app"), 2000);
        house.write("other.log", &long("app"));
        assert_eq!(house.goes_on_at("other.log"), Some(2000));
    }

    #[test]
    fn missed() {
        let house = House::new();
        house.write("app.log", "three\n");
        let saved = house.saved("app.log", 0);
        let met = HashSet::from([(saved.device, saved.inode)]);
        for name in ["app.log.1", "old/app.log.2", "other.log.1"] {
            house.write(name, name);
        }
        let found = |seen| {
            let path = house.path("app.log");
            let known = Known { path: path.clone(), seen, born: None, copied: None };
            let known = Places::from([(path.into(), known)]);
            let found = super::missed(&Kernel, &known, &met, |_| true).found;
            let found = found.into_iter().map(|(_, one)| one.path);
            found.collect::<std::collections::BTreeSet<_>>()
        };
        let generations = [house.path("app.log.1"), house.path("old/app.log.2")];
        assert_eq!(found(0), generations.into());
        assert_eq!(found(i64::MAX), [].into(), "nothing is younger than the last look");
    }

    #[test]
    fn anything_else() {
        let mut house = House::new();
        house.write("app.log", &long("app"));
        let saved = house.saved("app.log", 2200);
        house.catalog.put(saved);
        house.removed("gone.log", &long("gone"), 2200);
        house.write("app.log.1", &long("other"));
        assert_eq!(house.claim("app.log.1"), None);
        assert_eq!(house.original("app.log.1"), None);
    }
}

mod originals {
    use super::*;

    #[test]
    fn alibi() {
        let mut house = House::new();
        house.removed("app.log", &long("app"), 2200);
        house.write("app.log.1", &long("app"));
        house.write_packed("app.log.2.gz", &long("app"));
        let born = house.saved("app.log.1", 0).born;
        let mut is_copy = |name: &str, gone_at: i64, modified: Option<i64>| {
            let saved = house.catalog.checkpoints().next().unwrap().clone();
            house.catalog = Catalog::default();
            house.catalog.put_removed(Checkpoint { gone_at, ..saved });
            let tell = |suspect: &mut Suspect<'_, Kernel>| suspect.stat.modified = modified;
            house.judged(name, &[2200], tell).unwrap().is_some()
        };
        assert!(is_copy("app.log.1", born, None));
        assert!(!is_copy("app.log.1", born - 1, None), "the bytes had gone");
        assert!(!is_copy("app.log.1", born, Some(born - 2 * SECOND)), "it is older");
        assert!(is_copy("app.log.2.gz", born - 1, Some(born - 2 * SECOND)), "compressed later");
    }

    #[test]
    fn place() {
        let mut house = House::new();
        house.removed("app.log", &long("app"), 2200);
        house.write("app.log", &long("app"));
        assert_eq!(house.original("app.log"), None);
    }

    #[test]
    fn proof() {
        let mut house = House::new();
        for (text, name, is_copy) in [
            ("one\n".to_owned(), "app.log.1", true),
            ("one\n".to_owned(), "other.log", false),
            (long("app"), "other.log", true),
        ] {
            house.catalog = Catalog::default();
            house.removed("app.log", &text, text.len() as u64);
            house.write(name, &text);
            assert_eq!(house.original(name).is_some(), is_copy, "{name}: {}", text.len());
            fs::remove_file(house.path(name)).unwrap();
        }
    }

    #[test]
    fn short() {
        let text = long("app");
        // The head of the log has 1,024 bytes, and the copy fewer.
        for (offset, name, expected) in
            [(500, "app.log.1", Some(500)), (200, "app.log.1", None), (500, "other.log", None)]
        {
            let mut house = House::new();
            house.removed("app.log", &text, offset);
            house.write(name, &text[..800]);
            assert_eq!(house.goes_on_at(name), expected, "{name}: {offset}");
        }
    }

    #[test]
    fn nearest_first() {
        let mut house = House::new();
        let (text, offset) = (long("app"), 2000);
        for name in ["stranger.log", "old/app.log", "app.log"] {
            house.removed(name, &text, if name == "app.log" { offset } else { 2200 });
        }
        house.write("app.log.1", &text);
        let goes_on_in = |house: &mut House| match house.original("app.log.1") {
            Some(Original::Removed(saved)) => (saved.resolved, saved.offset),
            other => panic!("{other:?}"),
        };
        assert_eq!(goes_on_in(&mut house), (house.path("app.log"), offset), "near before far");
        house.removed("app.log", &text, 2200);
        assert_eq!(goes_on_in(&mut house), (house.path("app.log"), 2200), "more before fewer");
        house.catalog = Catalog::default();
        house.removed("stranger.log", &text, 2200);
        house.removed("far/off/app.log", &text, offset);
        assert_eq!(goes_on_in(&mut house).1, offset, "kin before strangers");
        house.write("app.log", &text);
        let file = house.open("app.log");
        let standing = Standing::Untouched;
        assert_eq!(house.original("app.log.1"), Some(Original::Open { file, standing }));
    }

    #[test]
    fn compressed_original() {
        let mut house = House::new();
        house.write_packed("app.log", &long("app"));
        house.open("app.log");
        house.write("app.log.1", &long("app"));
        house.write("other.log", &long("app"));
        assert!(house.judged("app.log.1", &[], |_| {}).is_err(), "it waits");
        assert_eq!(house.original("other.log"), None);
    }

    #[test]
    fn copy_so_far() {
        let mut house = House::new();
        house.write("app.log.1", &long("app"));
        let file = house.open("app.log.1");
        house.write("app.log.1.bak", &long("app")[..11]);
        house.write("other.log", &long("app"));
        house.write_packed("app.log.2.gz", &long("app"));
        let is = |standing| Some(Original::Open { file, standing });
        assert_eq!(house.original("app.log.1.bak"), is(Standing::Untouched));
        assert_eq!(house.original("app.log.2.gz"), is(Standing::Untouched), "had that number");
        assert_eq!(house.original("other.log"), None);
        house.write("app.log.1.bak", "app 000001\n");
        assert_eq!(house.original("app.log.1.bak"), None, "other bytes");
        house.write("app.log.1.bak", &long("app"));
        house.registry.get_mut(file).unwrap().state = State::Deleted;
        assert_eq!(house.original("app.log.1.bak"), is(Standing::Nameless));
    }

    #[test]
    fn lost_bytes() {
        let mut house = House::new();
        house.write("app.log", &long("app"));
        let file = house.open("app.log");
        house.write("app.log.1", &long("app"));
        house.write("app.log.2", &long("two"));
        house.write("app.log", "");
        let standing = Standing::Gone;
        assert_eq!(house.original("app.log.1"), Some(Original::Open { file, standing }));
        assert_eq!(house.original("app.log.2"), None);
    }

    #[test]
    fn under_way() {
        let mut house = House::new();
        house.write("app.log", &long("app"));
        let file = house.open("app.log");
        house.registry.end(file).unwrap();
        house.readers.clear();
        house.write("app.log.1", &long("app"));
        house.write("app.log.2", &long("app")[..1100]);
        house.write_packed("app.log.3.gz", &long("app"));
        house.write("app.log.4", &(long("app") + "more\n").replace("000199", "000200"));
        let is = Some(Original::Open { file, standing: Standing::Gone });
        for name in ["app.log.1", "app.log.2", "app.log.3.gz"] {
            assert_eq!(house.original(name), is, "{name}");
        }
        assert_eq!(house.original("app.log.4"), None, "other bytes");
    }

    #[test]
    fn own() {
        let mut house = House::new();
        house.write("app.log", &long("app"));
        let saved = house.saved("app.log", 2200);
        house.catalog.put_closed(saved);
        house.write("app.log.1", &long("app"));
        let is_own = |suspect: &mut Suspect<'_, Kernel>| suspect.known.is_own = true;
        assert!(house.original("app.log.1").is_some());
        assert_eq!(house.judged("app.log.1", &[], is_own).unwrap(), None);
        house.catalog = Catalog::default();
        house.open("app.log");
        assert!(house.original("app.log.1").is_some());
        assert_eq!(house.judged("app.log.1", &[], is_own).unwrap(), None);
    }

    /// A file that is missing, and how far the search for it is.
    fn missing(house: &mut House, search: Search) -> Checkpoint {
        let path = house.write("app.log", &long("app"));
        let saved = house.saved("app.log", 2000);
        fs::rename(path, house.path("app.log.9")).unwrap();
        house.catalog = Catalog::default();
        house.catalog.put(saved.clone());
        let number = house.catalog.indexes().of_inode(saved.inode).next().unwrap();
        house.catalog.on_search(number, search);
        saved
    }

    #[test]
    fn located() {
        let mut house = House::new();
        house.write("app.log.1", &long("app"));
        house.write("other.log", &long("app"));
        let at = Search::At(house.path("app.log.9"));
        for search in [at.clone(), Search::Barred, Search::Awaited] {
            missing(&mut house, search.clone());
            assert_eq!(house.original("other.log"), None, "{search:?}");
        }
        let saved = missing(&mut house, at);
        assert_eq!(house.original("app.log.1"), Some(Original::There(saved)));
    }

    #[test]
    fn there() {
        let mut house = House::new();
        house.write("app.log", "one\n");
        let saved = house.saved("app.log", 4);
        house.catalog.put_closed(saved.clone());
        let saved = Checkpoint { is_done: true, ..saved };
        house.write("app.log.1", "one\n");
        house.write("app.log.2", "two\n");
        assert_eq!(house.original("app.log.1"), Some(Original::There(saved)));
        assert_eq!(house.original("app.log.2"), None, "other bytes");
    }

    #[test]
    fn longer() {
        let mut house = House::new();
        let text = long("app");
        house.write("app.log", &text[..1900]);
        let saved = house.saved("app.log", 1900);
        house.catalog.put_closed(saved.clone());
        house.write_packed("app.log.1.gz", &text);
        house.write_packed("app.log.2.gz", &text[..1900]);
        let mut original = |name: &str| house.judged(name, &[1900], |_| {}).unwrap();
        assert_eq!(original("app.log.1.gz"), None);
        let there = Original::There(Checkpoint { is_done: true, ..saved });
        assert_eq!(original("app.log.2.gz"), Some(there));
    }

    #[test]
    fn sought() {
        let mut house = House::new();
        house.write("app.log.1", &long("app"));
        for search in [Search::Wanted, Search::Met] {
            missing(&mut house, search);
            assert_eq!(house.original("app.log.1"), Some(Original::Sought));
        }
    }

    #[test]
    fn removed() {
        let mut house = House::new();
        house.write("app.log.1", &long("app"));
        house.write("app.log.2", &long("app")[..1900]);
        missing(&mut house, Search::Nowhere);
        assert_eq!(house.goes_on_at("app.log.1"), Some(2000), "found nowhere");
        let place = house.saved("app.log.1", 1800);
        let trail = vec![(place.offset, place.tail)];
        let saved = house.removed("app.log", &long("app"), 2000);
        house.catalog = Catalog::default();
        house.catalog.put_removed(Checkpoint { trail, ..saved });
        assert_eq!(house.goes_on_at("app.log.1"), Some(2000));
        assert_eq!(house.goes_on_at("app.log.2"), Some(1800), "where a reading ended");
    }

    #[test]
    fn holds_all() {
        let mut house = House::new();
        let text = long("app");
        house.write("app.log.1", &text[..1900]);
        house.write_packed("app.log.2.gz", &text[..1900]);
        let place = house.saved("app.log.1", 1800);
        let trail = vec![(place.offset, place.tail)];
        let saved = house.removed("app.log", &text, 2000);
        house.catalog = Catalog::default();
        house.catalog.put_removed(Checkpoint { trail, ..saved });
        let packed = house.judged("app.log.2.gz", &[1800, 2000], |_| {}).unwrap();
        assert_eq!(goes_on_at(packed), Some(1900));
        assert_eq!(house.goes_on_at("app.log.1"), Some(1800), "an app may have written that");
    }
}
