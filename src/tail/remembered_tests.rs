use std::fs;
use std::os::unix::fs::MetadataExt as _;

use super::*;
use crate::tail::os::kernel::Kernel;

fn saved(path: &Path, text: &str, offset: usize) -> Checkpoint {
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
    let mut remembered = Remembered::new(vec![checkpoint.clone()], 1000, "default");
    let found = remembered.claim(&Kernel, "/share/logs/app.log".as_ref(), &reader, stat).unwrap();
    assert_eq!(found.is_some(), remembered.checkpoints().next().is_none());
    found.map(|(_, found)| found)
}

/// Somebody who may look into every directory.
#[derive(Default)]
struct Anywhere {
    remembered: Remembered,
    pulses: usize,
}

impl Seeker for Anywhere {
    type Os = Kernel;

    fn os(&self) -> Kernel {
        Kernel
    }

    fn remembered(&mut self) -> &mut Remembered {
        &mut self.remembered
    }

    fn enter(&self, dir: &Path) -> Option<PathBuf> {
        Some(fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned()))
    }

    fn pulse(&mut self) {
        self.pulses += 1;
    }
}

/// What an opened file is a copy of, if at least `from` bytes of that were delivered.
fn original_of(remembered: &mut Remembered, path: &Path, from: u64) -> Option<Original> {
    let reader = Reader::open(&Kernel, path).unwrap();
    let suspect =
        Suspect { os: Kernel, place: path, reader: &reader, stat: reader.stat().unwrap() };
    remembered.original_of(&suspect, from).unwrap()
}

/// Where a copy of what is gone goes on.
fn goes_on_at(original: Option<&Original>) -> Option<u64> {
    original.map(|original| match original {
        Original::Gone(saved) => saved.offset,
        other => panic!("{other:?}"),
    })
}

/// Where files may be, with every directory open.
fn whereabouts(remembered: &mut Remembered, unix: u64) -> Vec<(PathBuf, Checkpoint)> {
    let mut seeker = Anywhere { remembered: std::mem::take(remembered), pulses: 0 };
    let found = super::whereabouts(&mut seeker, unix).paths;
    *remembered = seeker.remembered;
    found
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
    let mut remembered = Remembered::new(vec![elsewhere], 1000, "default");
    let found =
        remembered.claim(&Kernel, "/share/logs/app.log".as_ref(), &reader, reader.stat().unwrap());
    let (found, meaning) = found.unwrap().unwrap();
    assert_eq!((found.offset, meaning), (0, Match::Again), "few bytes prove nothing there");
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
    let mut remembered = Remembered::new(vec![checkpoint.clone()], 1000, "default");

    assert_eq!(whereabouts(&mut remembered, u64::MAX), [(renamed.clone(), checkpoint.clone())]);
    assert_eq!(whereabouts(&mut remembered, u64::MAX), [], "no name has changed since");
    remembered.search_again(&renamed);
    assert_eq!(whereabouts(&mut remembered, u64::MAX), [(renamed.clone(), checkpoint.clone())]);
    fs::rename(&renamed, dir.path().join("app.log.2")).unwrap();
    assert_eq!(
        whereabouts(&mut remembered, u64::MAX),
        [(dir.path().join("app.log.2"), checkpoint)]
    );
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
    let mut remembered = Remembered::new(known.to_vec(), 1000, "default");

    let found = whereabouts(&mut remembered, u64::MAX);

    let mut found: Vec<_> = found.into_iter().map(|(path, _)| path).collect();
    found.sort();
    assert_eq!(found, ["a.log.1", "b.log.1", "c.log.1"].map(|name| new.join(name)));
    assert_eq!(whereabouts(&mut remembered, u64::MAX), [], "no name has changed since");
    remembered.search_again(&new.join("b.log.1"));
    assert_eq!(whereabouts(&mut remembered, u64::MAX).len(), 3);
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
    let mut seeker =
        Anywhere { remembered: Remembered::new(vec![known], 1000, "default"), pulses: 0 };

    assert_eq!(super::whereabouts(&mut seeker, u64::MAX).paths, []);

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
    let mut remembered = Remembered::new(vec![copied.clone()], 1000, "default");

    let found = whereabouts(&mut remembered, u64::MAX);

    assert_eq!(found, [(other.clone(), copied.clone()), (path.clone(), copied.clone())]);
    let copied = Checkpoint { inode: u64::MAX, ..copied };
    assert_eq!(claim(&copied, &path), Some(Match::Resume));
    assert_eq!(claim(&copied, &other), None, "it has only the bytes, and the path as configured");
    let mut remembered =
        Remembered::new(vec![Checkpoint { inode: u64::MAX, ..own }], 1000, "default");
    assert_eq!(whereabouts(&mut remembered, u64::MAX), [], "another file of this disk");
}

/// Makes checkpoints of files that are not there, seen so long before second `10_000_000`.
fn seen_before(ages: impl Iterator<Item = u64>) -> Vec<Checkpoint> {
    let one = |(number, age): (usize, u64)| Checkpoint {
        path: format!("/nowhere/{number}.log").into(),
        resolved: format!("/nowhere/{number}.log").into(),
        inode: 1 + number as u64,
        seen_unix: 10_000_000 - age,
        ..Checkpoint::default()
    };
    ages.enumerate().map(one).collect()
}

fn count_kept(checkpoints: Vec<Checkpoint>, unix: u64) -> usize {
    Remembered::new(checkpoints, unix, "default").checkpoints().count()
}

#[test]
fn what_is_never_met_goes_after_a_month_of_the_agents_time() {
    let kept = |age, unix| count_kept(seen_before([0, age].into_iter()), unix);
    let (month, now) = (UNSEEN_SECONDS_MAX, 10_000_000);
    assert_eq!(kept(month - 1, now), 2);
    assert_eq!(kept(month, now), 1);
    assert_eq!(kept(month - 1, now + 100 * month), 2, "no agent ran meanwhile");
    assert_eq!(kept(month - 1, u64::MAX), 2, "the clock of now is wrong");
    assert_eq!(kept(month, now - 1), 2, "the clock of then was wrong");
}

#[test]
fn however_many_were_there_at_the_end_are_known() {
    let live = || std::iter::repeat_n(LIVE_SECONDS - 1, 3 * UNSEEN_MAX);
    let older = || std::iter::repeat_n(LIVE_SECONDS, 2 * UNSEEN_MAX);
    let now = 10_000_000;
    let count = |ages| count_kept(ages, now);
    assert_eq!(count(seen_before(std::iter::once(0).chain(live()))), 3 * UNSEEN_MAX + 1);
    assert_eq!(count(seen_before(std::iter::once(0).chain(older()))), UNSEEN_MAX + 1);
    let both = older().chain(live()).chain([0]);
    assert_eq!(count(seen_before(both)), 4 * UNSEEN_MAX + 1);
    // Half of them were saved by a clock that was a year ahead.
    let mut ahead = seen_before(std::iter::repeat_n(0, 4 * UNSEEN_MAX));
    ahead.iter_mut().step_by(2).for_each(|one| one.seen_unix += 365 * LIVE_SECONDS);
    assert_eq!(count(ahead), 4 * UNSEEN_MAX);
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
        Remembered::new(all, 10_000_000, "default")
    };
    let left = |remembered: &mut Remembered, unix| {
        assert_eq!(whereabouts(remembered, unix), []);
        remembered.checkpoints().count()
    };

    let mut removed = known(device);
    assert_eq!(left(&mut removed, 100), 1500);
    assert_eq!(left(&mut removed, 99 + AWAY_SECONDS), 1500, "they may be late");
    assert_eq!(left(&mut removed, 100 + AWAY_SECONDS), AWAY_MAX);
    let oldest = removed.checkpoints().map(|one| one.seen_unix).min();
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
    let mut remembered = Remembered::new(vec![checkpoint.clone()], 1000, "default");
    assert_eq!(whereabouts(&mut remembered, u64::MAX / 2).len(), 1);

    fs::rename(&dir, &aside).unwrap();
    let moved = (aside.join("app.log"), checkpoint.clone());
    assert_eq!(whereabouts(&mut remembered, u64::MAX / 2), [moved], "it is beside");
    assert_eq!(whereabouts(&mut remembered, u64::MAX), [], "no name has changed since");
    fs::rename(&aside, &dir).unwrap();

    assert_eq!(whereabouts(&mut remembered, u64::MAX), [(path.clone(), checkpoint)]);
    let reader = Reader::open(&Kernel, &path).unwrap();
    let stat = reader.stat().unwrap();
    let (_, found) = remembered.claim(&Kernel, &path, &reader, stat).unwrap().unwrap();
    assert_eq!(found, Match::Resume);
}

#[test]
fn a_copy_is_known_by_its_name_and_its_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.log");
    let text = "one\ntwo\nthree\n";
    fs::write(&path, text).unwrap();
    let gone = saved(&path, text, 8);
    let claim = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        let mut remembered = Remembered::default();
        remembered.put_gone(gone.clone());
        let found = original_of(&mut remembered, &path, 0);
        // Another copy may hold more. Of what a copy was found for nothing is missing.
        let kept: Vec<_> = remembered.checkpoints().map(|saved| saved.rest).collect();
        assert_eq!(kept, [if found.is_some() { Some(0) } else { gone.rest }]);
        assert_eq!(original_of(&mut remembered, &path, 0).is_some(), found.is_some());
        goes_on_at(found.as_ref())
    };

    assert_eq!(claim("app.log.1", text), Some(8));
    assert_eq!(claim("app-2026-11-22.log", text), Some(8));
    assert_eq!(claim("app2.log", text), None, "another name");
    assert_eq!(claim("app.log.2", "one\n"), None, "shorter");
    assert_eq!(claim("app.log.3", "one\nTWO\nthree\n"), None, "other bytes");
}

#[test]
fn what_is_met_does_not_age() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.log");
    fs::write(&path, "one\n").unwrap();
    let checkpoint = saved(&path, "one\n", 4);
    let mut remembered = Remembered::default();
    remembered.put_done(checkpoint.clone());
    remembered.on_met(checkpoint.device, checkpoint.inode, 5000);

    let saved = remembered.checkpoints().cloned().collect();
    let restarted = Remembered::new(saved, 1000 + UNSEEN_SECONDS_MAX, "default");
    assert!(restarted.get(checkpoint.device, checkpoint.inode).is_some());
}

#[test]
fn a_copy_shorter_than_what_was_delivered_is_known_by_where_readings_ended() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.log");
    let text = "one\ntwo\nthree\n";
    fs::write(&path, text).unwrap();
    let place = |offset: usize| (offset as u64, Fingerprint::of_tail(&text.as_bytes()[..offset]));
    let gone = saved(&path, text, 14);
    let claim = |text: &str, from| {
        let copy = dir.path().join("app.log.1");
        fs::write(&copy, text).unwrap();
        let mut remembered = Remembered::default();
        let trail = vec![place(4), place(8), place(14)];
        let gone = Checkpoint { head: Fingerprint::of_head(b"one\n"), trail, ..gone.clone() };
        remembered.put_gone(gone);
        goes_on_at(original_of(&mut remembered, &copy, from).as_ref())
    };

    assert_eq!(claim(text, 0), Some(14));
    assert_eq!(claim("one\ntwo\nth", 0), Some(8));
    assert_eq!(claim("one\ntwo\nth", 9), None, "less than is known of it");
    assert_eq!(claim("one\ntwi\nth", 0), Some(4), "other bytes from there on");
    assert_eq!(claim("ont\ntwo\nth", 0), None);
}

#[test]
fn a_copy_leaves_the_checkpoint_to_a_file_that_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.log");
    fs::write(&path, "one\ntwo\n").unwrap();
    let checkpoint = saved(&path, "one\ntwo\n", 8);
    let copy = dir.path().join("app.log.1");
    fs::copy(&path, &copy).unwrap();
    let mut remembered = Remembered::default();
    remembered.put_done(checkpoint.clone());

    let found = original_of(&mut remembered, &copy, 0);

    assert_eq!(found, Some(Original::There(Checkpoint { is_done: true, ..checkpoint.clone() })));
    assert!(remembered.get(checkpoint.device, checkpoint.inode).is_some());
}

#[test]
fn what_is_done_is_not_searched_for_and_what_is_gone_is_bounded() {
    let dir = tempfile::tempdir().unwrap();
    // What others make elsewhere must not be around it.
    let path = dir.path().join("data/pod/logs/app.log");
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, "one\n").unwrap();
    let checkpoint = saved(&path, "one\n", 4);
    let mut remembered = Remembered::default();
    remembered.put_done(checkpoint.clone());

    assert_eq!(whereabouts(&mut remembered, 0), []);
    assert!(remembered.get(checkpoint.device, checkpoint.inode).is_some());
    remembered.search_for(checkpoint.device, checkpoint.inode);
    assert_eq!(whereabouts(&mut remembered, 0).len(), 1);
    fs::remove_file(&path).unwrap();
    assert_eq!(whereabouts(&mut remembered, 0), []);
    assert_eq!(remembered.checkpoints().next().unwrap().inode, 0, "not found, it is gone");

    fs::write(&path, "one\n").unwrap();
    let checkpoint = saved(&path, "one\n", 4);
    remembered = Remembered::default();
    remembered.put_done(checkpoint.clone());
    fs::remove_file(&path).unwrap();
    assert_eq!(whereabouts(&mut remembered, 0), []);
    assert_eq!(remembered.checkpoints().next().unwrap().inode, 0, "it is gone");
    for number in 0..=GONE_MAX as i64 {
        remembered.put_gone(Checkpoint { gone_at: number, ..checkpoint.clone() });
    }
    assert_eq!(remembered.checkpoints().count(), GONE_MAX);
    let again = remembered.checkpoints().next().unwrap().clone();
    remembered.put_back(again);
    assert_eq!(remembered.checkpoints().count(), GONE_MAX, "it is there once");
}

/// Some file systems, such as FUSE and layers of an overlay, tell other inodes along with the
/// names.
#[test]
fn what_is_in_its_place_is_not_gone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.log");
    fs::write(&path, "one\n").unwrap();
    let mut remembered = Remembered::default();
    remembered.put_done(saved(&path, "one\n", 4));
    let listed = HashMap::from([(u64::from(u32::MAX), path)]);

    remembered.compare_names(&Kernel, &[0], &listed, Some(1), &mut Vec::new());

    assert_ne!(remembered.checkpoints().next().unwrap().inode, 0);
}

/// A file that was named as missing, came back and could not be opened is missing still at the
/// stop.
#[test]
fn what_is_put_back_is_still_told_of() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.log");
    fs::write(&path, "one\ntwo\n").unwrap();
    let known = Checkpoint { rest: Some(4), ..saved(&path, "one\ntwo\n", 4) };
    let mut remembered = Remembered::new(vec![known], 1000, "default");
    assert_eq!(remembered.tell(|_| true).len(), 1);
    let claim = |remembered: &mut Remembered| {
        let reader = Reader::open(&Kernel, &path).unwrap();
        let stat = reader.stat().unwrap();
        remembered.claim(&Kernel, "/share/logs/app.log".as_ref(), &reader, stat).unwrap().unwrap().0
    };

    let taken = claim(&mut remembered);
    assert_eq!((remembered.told().count(), remembered.missing()), (0, (0, 0)));
    remembered.put_back(taken);

    assert_eq!((remembered.told().count(), remembered.missing()), (1, (1, 4)));
    assert_eq!(remembered.tell(|_| true).len(), 0, "it is no news");
    let taken = claim(&mut remembered);
    remembered.put_done(Checkpoint { is_told: false, rest: Some(0), ..taken });
    assert_eq!((remembered.told().count(), remembered.missing()), (0, (0, 0)), "it is delivered");
    let known = Checkpoint { is_told: true, ..claim(&mut remembered) };
    let mut later = Remembered::new(vec![known], 1000, "default");
    let taken = claim(&mut later);
    later.put_back(taken);
    assert_eq!(later.told().count(), 0, "an earlier run has told of it");
}

/// The files are on the disk still, under names that no pattern finds.
#[test]
fn of_delivered_files_that_left_the_patterns_those_seen_last_are_kept() {
    let mut remembered = Remembered::default();
    let old = 100;
    for (number, one) in seen_before((0..UNSEEN_MAX as u64 + old).rev()).into_iter().enumerate() {
        match number {
            // The oldest of all: it waits to be delivered; the next one is found.
            0 => remembered.put_back(one),
            _ => remembered.put_done(one),
        }
    }
    let is_found = |inode| inode == (0, 2);

    remembered.forget_unfound(is_found);

    assert_eq!(remembered.checkpoints().count(), UNSEEN_MAX + 2);
    for inode in [1, 2, old + 1, UNSEEN_MAX as u64 + old] {
        assert!(remembered.get(0, inode).is_some(), "{inode}");
    }
    assert!(remembered.get(0, old).is_none());
    remembered.forget_unfound(is_found);
    assert_eq!(remembered.checkpoints().count(), UNSEEN_MAX + 2);
}

/// What another collection shipped is not read on by this one, and not forgotten.
#[test]
fn a_file_of_another_collection_is_left_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.log");
    fs::write(&path, "one\n").unwrap();
    let of = |owner: Option<&str>| Checkpoint {
        owner: owner.map(Into::into),
        ..saved(&path, "one\n", 4)
    };
    for (owner, is_ours) in [(None, true), (Some("default"), true), (Some("other"), false)] {
        let remembered = Remembered::new(vec![of(owner)], 1000, "default");
        assert_eq!(remembered.checkpoints().count(), usize::from(is_ours), "{owner:?}");
        assert_eq!(remembered.foreign().len(), usize::from(!is_ours), "{owner:?}");
    }
}
