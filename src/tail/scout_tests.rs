use std::fs;
use std::os::unix::fs::MetadataExt as _;

use super::*;
use crate::tail::catalog::REMOVED_MAX;
use crate::tail::catalog::tests::seen_before;
use crate::tail::os::kernel::Kernel;

/// What is known of a file that was read up to `offset`.
pub(in crate::tail) fn saved(path: &Path, text: &str, offset: usize) -> Checkpoint {
    let metadata = fs::metadata(path).unwrap();
    Checkpoint {
        path: "/share/logs/app.log".into(),
        resolved: path.to_owned(),
        device: metadata.dev(),
        inode: metadata.ino(),
        offset: offset as u64,
        head: Fingerprint::of_head(text.as_bytes()),
        tail: Fingerprint::of_tail(&text.as_bytes()[..offset]),
        seen_unix: 1000,
        ..Checkpoint::default()
    }
}

fn claim(checkpoint: &Checkpoint, path: &Path) -> Option<Match> {
    let reader = Reader::open(&Kernel, path).unwrap();
    let stat = reader.stat().unwrap();
    let mut known = Anywhere::new(vec![checkpoint.clone()]);
    let claim =
        super::claim(&mut known.catalog, &Kernel, "/share/logs/app.log".as_ref(), &reader, stat)
            .unwrap();
    claim.iter().for_each(|claim| drop(known.catalog.take(claim.number)));
    assert_eq!(claim.is_some(), known.catalog.checkpoints().next().is_none());
    claim.map(|claim| claim.found)
}

/// Somebody who may look into every directory.
#[derive(Default)]
struct Anywhere {
    catalog: Catalog,
    scout: Scout,
    pulses: usize,
}

impl Anywhere {
    fn new(checkpoints: Vec<Checkpoint>) -> Self {
        Self { catalog: Catalog::new(checkpoints, 1000, "default"), ..Self::default() }
    }

    /// Where files may be.
    fn whereabouts(&mut self, unix: u64) -> Vec<(PathBuf, Checkpoint)> {
        whereabouts(self, unix).paths
    }
}

impl Seeker for Anywhere {
    type Os = Kernel;

    fn os(&self) -> Kernel {
        Kernel
    }

    fn known(&mut self) -> (&mut Catalog, &mut Scout) {
        (&mut self.catalog, &mut self.scout)
    }

    fn enter(&self, dir: &Path) -> Option<PathBuf> {
        Some(fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned()))
    }

    fn pulse(&mut self) {
        self.pulses += 1;
    }
}

#[test]
fn a_file_takes_its_own_checkpoint_only() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.log");
    let text = "one\n".repeat(300) + "two\n";
    fs::write(&path, &text).unwrap();
    let own = saved(&path, &text, 1100);
    let with = |change: &dyn Fn(&mut Checkpoint)| {
        let mut other = own.clone();
        change(&mut other);
        claim(&other, &path)
    };

    assert_eq!(claim(&own, &path), Some(Match::Resume));
    assert_eq!(with(&|c| c.device += 1), Some(Match::Resume), "mounted elsewhere");
    assert_eq!(
        with(&|c| (c.device, c.inode) = (c.device + 1, c.inode + 1)),
        Some(Match::Resume),
        "copied"
    );
    let short = saved(&path, &text, 255);
    let elsewhere = Checkpoint { device: own.device + 1, ..short };
    let reader = Reader::open(&Kernel, &path).unwrap();
    let mut known = Anywhere::new(vec![elsewhere]);
    let found = super::claim(
        &mut known.catalog,
        &Kernel,
        "/share/logs/app.log".as_ref(),
        &reader,
        reader.stat().unwrap(),
    );
    let Claim { saved, found, .. } = found.unwrap().unwrap();
    assert_eq!((saved.offset, found), (0, Match::Again), "few bytes prove nothing there");
    assert_eq!(with(&|c| c.inode += 1), None, "another file of this disk");
    assert_eq!(with(&|c| c.offset = 9999), Some(Match::Rewritten), "shorter now");
    assert_eq!(with(&|c| c.tail.crc32 += 1), Some(Match::Rewritten), "rewritten");
    assert_eq!(with(&|c| c.head.crc32 += 1), Some(Match::Rewritten), "inode used again");
}

#[test]
fn a_renamed_file_is_found_where_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.log");
    fs::write(&path, "one\n").unwrap();
    let checkpoint = saved(&path, "one\n", 4);
    let renamed = dir.path().join("app.log.1");
    fs::rename(&path, &renamed).unwrap();
    let mut known = Anywhere::new(vec![checkpoint.clone()]);

    assert_eq!(known.whereabouts(u64::MAX), [(renamed.clone(), checkpoint.clone())]);
    assert_eq!(known.whereabouts(u64::MAX), [], "no name has changed since");
    known.scout.search_again(&renamed);
    assert_eq!(known.whereabouts(u64::MAX), [(renamed.clone(), checkpoint.clone())]);
    fs::rename(&renamed, dir.path().join("app.log.2")).unwrap();
    assert_eq!(known.whereabouts(u64::MAX), [(dir.path().join("app.log.2"), checkpoint)]);
}

/// A directory was moved, and a link to it stands in its place.
#[test]
fn files_of_one_directory_under_two_paths_are_found_together() {
    let parent = tempfile::tempdir().unwrap();
    let (old, new) = (parent.path().join("old"), parent.path().join("new"));
    fs::create_dir(&new).unwrap();
    std::os::unix::fs::symlink(&new, &old).unwrap();
    let known = ["a.log", "b.log", "c.log"].map(|name| {
        fs::write(new.join(name), "one\n").unwrap();
        saved(&new.join(name), "one\n", 4)
    });
    let known = known.map(|one| {
        let name = one.resolved.file_name().unwrap().to_owned();
        fs::rename(new.join(&name), new.join(&name).with_extension("log.1")).unwrap();
        let dir = if name == "b.log" { &old } else { &new };
        Checkpoint { resolved: dir.join(name), ..one }
    });
    let mut known = Anywhere::new(known.to_vec());

    let found = known.whereabouts(u64::MAX);

    let mut found: Vec<_> = found.into_iter().map(|(path, _)| path).collect();
    found.sort();
    assert_eq!(found, ["a.log.1", "b.log.1", "c.log.1"].map(|name| new.join(name)));
    assert_eq!(known.whereabouts(u64::MAX), [], "no name has changed since");
    known.scout.search_again(&new.join("b.log.1"));
    assert_eq!(known.whereabouts(u64::MAX).len(), 3);
}

/// A search lets others have their turn with each name.
#[test]
fn a_search_pulses_with_each_name() {
    let root = tempfile::tempdir().unwrap();
    // Around it nothing of other tests is met.
    let dir = root.path().join("data/pod/logs");
    let (path, below) = (dir.join("app.log"), dir.join("below"));
    fs::create_dir_all(&dir).unwrap();
    fs::write(&path, "one\n").unwrap();
    let known = saved(&path, "one\n", 4);
    // As long as it is open, no other file gets its inode number.
    let _open = fs::File::open(&path).unwrap();
    fs::remove_file(&path).unwrap();
    fs::create_dir(&below).unwrap();
    for number in 0..100 {
        fs::write(dir.join(format!("{number}.log")), "").unwrap();
        fs::write(below.join(format!("{number}.log")), "").unwrap();
    }
    let mut seeker = Anywhere::new(vec![known]);

    assert_eq!(seeker.whereabouts(u64::MAX), []);

    assert!(seeker.pulses > 200, "{}", seeker.pulses);
}

/// All that a disk held was copied to another one.
#[test]
fn a_copied_file_is_found_in_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let (path, other) = (dir.path().join("app.log"), dir.path().join("other.log"));
    let text = "one\n".repeat(300);
    fs::write(&path, &text).unwrap();
    fs::write(&other, &text).unwrap();
    let own = saved(&path, &text, 1100);
    // Another file has got its inode number there.
    let inode = fs::metadata(&other).unwrap().ino();
    let copied = Checkpoint { device: own.device + 1, inode, ..own.clone() };
    let mut known = Anywhere::new(vec![copied.clone()]);

    let found = known.whereabouts(u64::MAX);

    assert_eq!(found, [(other.clone(), copied.clone()), (path.clone(), copied.clone())]);
    let copied = Checkpoint { inode: u64::MAX, ..copied };
    assert_eq!(claim(&copied, &path), Some(Match::Resume));
    assert_eq!(claim(&copied, &other), None, "it has only the bytes, and the path as configured");
    let mut known = Anywhere::new(vec![Checkpoint { inode: u64::MAX, ..own }]);
    assert_eq!(known.whereabouts(u64::MAX), [], "another file of this disk");
}

#[test]
fn of_files_whose_directories_were_removed_those_seen_last_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let device = fs::metadata(dir.path()).unwrap().dev();
    let known = |device| {
        let mut all = seen_before(0..1500);
        for (number, one) in all.iter_mut().enumerate() {
            let place = dir.path().join(format!("job-{}/app.log", number % 20));
            (one.device, one.resolved) = (device, place);
        }
        Anywhere { catalog: Catalog::new(all, 10_000_000, "default"), ..Anywhere::default() }
    };
    let left = |known: &mut Anywhere, unix| {
        assert_eq!(known.whereabouts(unix), []);
        known.catalog.checkpoints().count()
    };

    let mut removed = known(device);
    assert_eq!(left(&mut removed, 100), 1500);
    assert_eq!(left(&mut removed, 99 + AWAY_SECONDS), 1500, "they may be late");
    assert_eq!(left(&mut removed, 100 + AWAY_SECONDS), AWAY_MAX);
    let oldest = removed.catalog.checkpoints().map(|one| one.seen_unix).min();
    assert_eq!(oldest, Some(10_000_000 - AWAY_MAX as u64 + 1));

    let mut unmounted = known(device + 1);
    assert_eq!(left(&mut unmounted, 100), 1500);
    assert_eq!(left(&mut unmounted, 100 + AWAY_SECONDS), 1500, "its volume is not there");

    let mut late = known(device);
    assert_eq!(left(&mut late, 100), 1500);
    (0..20).for_each(|job| fs::create_dir(dir.path().join(format!("job-{job}"))).unwrap());
    assert_eq!(left(&mut late, 101), 1500);
    (0..20).for_each(|job| fs::remove_dir(dir.path().join(format!("job-{job}"))).unwrap());
    assert_eq!(left(&mut late, 100 + AWAY_SECONDS), 1500, "it was there in between");
}

#[test]
fn a_file_whose_directory_was_away_is_known() {
    let parent = tempfile::tempdir().unwrap();
    // What others make elsewhere must not be around it.
    let parent = parent.path().join("a/b");
    let (dir, aside) = (parent.join("logs"), parent.join("aside"));
    fs::create_dir_all(&dir).unwrap();
    let path = dir.join("app.log");
    fs::write(&path, "one\n").unwrap();
    let checkpoint = saved(&path, "one\n", 4);
    let mut known = Anywhere::new(vec![checkpoint.clone()]);
    assert_eq!(known.whereabouts(u64::MAX / 2).len(), 1);

    fs::rename(&dir, &aside).unwrap();
    let moved = (aside.join("app.log"), checkpoint.clone());
    assert_eq!(known.whereabouts(u64::MAX / 2), [moved], "it is beside");
    assert_eq!(known.whereabouts(u64::MAX), [], "no name has changed since");
    fs::rename(&aside, &dir).unwrap();

    assert_eq!(known.whereabouts(u64::MAX), [(path.clone(), checkpoint)]);
    let reader = Reader::open(&Kernel, &path).unwrap();
    let stat = reader.stat().unwrap();
    let Claim { found, .. } =
        super::claim(&mut known.catalog, &Kernel, &path, &reader, stat).unwrap().unwrap();
    assert_eq!(found, Match::Resume);
}

#[test]
fn what_is_done_is_not_searched_for_and_what_is_gone_is_bounded() {
    let dir = tempfile::tempdir().unwrap();
    // What others make elsewhere must not be around it.
    let path = dir.path().join("data/pod/logs/app.log");
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, "one\n").unwrap();
    let checkpoint = saved(&path, "one\n", 4);
    let mut known = Anywhere::default();
    known.catalog.put_closed(checkpoint.clone());

    assert_eq!(known.whereabouts(0), []);
    assert!(known.catalog.get(checkpoint.device, checkpoint.inode).is_some());
    known.catalog.search_for((checkpoint.device, checkpoint.inode));
    assert_eq!(known.whereabouts(0).len(), 1);
    fs::remove_file(&path).unwrap();
    assert_eq!(known.whereabouts(0), []);
    assert_eq!(known.catalog.checkpoints().next().unwrap().inode, 0, "not found, it is gone");

    fs::write(&path, "one\n").unwrap();
    let checkpoint = saved(&path, "one\n", 4);
    known = Anywhere::default();
    known.catalog.put_closed(checkpoint.clone());
    fs::remove_file(&path).unwrap();
    assert_eq!(known.whereabouts(0), []);
    assert_eq!(known.catalog.checkpoints().next().unwrap().inode, 0, "it is gone");
    for number in 0..=REMOVED_MAX as i64 {
        known.catalog.put_removed(Checkpoint { gone_at: number, ..checkpoint.clone() });
    }
    assert_eq!(known.catalog.checkpoints().count(), REMOVED_MAX);
    let again = known.catalog.checkpoints().next().unwrap().clone();
    known.catalog.put(again);
    assert_eq!(known.catalog.checkpoints().count(), REMOVED_MAX, "it is there once");
}

/// Some file systems, such as FUSE and layers of an overlay, tell other inodes along with the
/// names.
#[test]
fn what_is_in_its_place_is_not_gone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.log");
    fs::write(&path, "one\n").unwrap();
    let mut known = Anywhere::default();
    known.catalog.put_closed(saved(&path, "one\n", 4));
    let listed = HashMap::from([(u64::from(u32::MAX), path)]);

    compare_names(&Kernel, &mut known.catalog, &[0], &listed, Some(1), &mut Vec::new());

    assert_ne!(known.catalog.checkpoints().next().unwrap().inode, 0);
}

/// A file that was named as missing, came back and could not be opened is missing still at the
/// stop.
#[test]
fn what_is_not_opened_is_still_told_of() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.log");
    fs::write(&path, "one\ntwo\n").unwrap();
    let known = Checkpoint { rest: Some(4), ..saved(&path, "one\ntwo\n", 4) };
    let mut known = Anywhere::new(vec![known]);
    assert_eq!(known.catalog.tell(|_, _| true).len(), 1);
    let claim = |known: &mut Anywhere| {
        let reader = Reader::open(&Kernel, &path).unwrap();
        let stat = reader.stat().unwrap();
        super::claim(&mut known.catalog, &Kernel, "/share/logs/app.log".as_ref(), &reader, stat)
            .unwrap()
            .unwrap()
    };

    let number = claim(&mut known).number;
    known.catalog.on_unfound(number);

    assert_eq!((known.catalog.told().count(), known.catalog.missing()), (1, (1, 4)));
    assert_eq!(known.catalog.tell(|_, _| true).len(), 0, "it is no news");
    let number = claim(&mut known).number;
    let opened = known.catalog.take(number).unwrap();
    assert_eq!((known.catalog.told().count(), known.catalog.missing()), (0, (0, 0)));
    known.catalog.put_closed(Checkpoint { is_told: false, rest: Some(0), ..opened });
    assert_eq!(
        (known.catalog.told().count(), known.catalog.missing()),
        (0, (0, 0)),
        "it is delivered"
    );
    let known = Checkpoint { is_told: true, ..claim(&mut known).saved };
    let mut later = Anywhere::new(vec![known]);
    let number = claim(&mut later).number;
    later.catalog.on_unfound(number);
    assert_eq!(later.catalog.told().count(), 0, "an earlier run has told of it");
}
