use super::entry::{Copy, Held, Source};
use super::*;
use crate::base::span::FileKey;
use crate::tail::tracked::Tracked;

/// Makes checkpoints of files that are not there, seen so long before second `10_000_000`.
pub(in crate::tail) fn seen_before(ages: impl Iterator<Item = u64>) -> Vec<Checkpoint> {
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
    Catalog::new(checkpoints, unix, "default").checkpoints().count()
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

/// The files are on the disk still, under names that no pattern finds.
#[test]
fn of_delivered_files_that_left_the_patterns_those_seen_last_are_kept() {
    let mut catalog = Catalog::default();
    let old = 100;
    for (number, one) in seen_before((0..UNSEEN_MAX as u64 + old).rev()).into_iter().enumerate() {
        match number {
            // The oldest of all: it waits to be delivered; the next one is found.
            0 => {
                catalog.put(one);
            }
            _ => catalog.put_closed(one),
        }
    }
    let is_found = |inode| inode == (0, 2);

    catalog.forget_unfound(is_found);

    assert_eq!(catalog.checkpoints().count(), UNSEEN_MAX + 2);
    for inode in [1, 2, old + 1, UNSEEN_MAX as u64 + old] {
        assert!(catalog.get(0, inode).is_some(), "{inode}");
    }
    assert!(catalog.get(0, old).is_none());
    catalog.forget_unfound(is_found);
    assert_eq!(catalog.checkpoints().count(), UNSEEN_MAX + 2);
}

/// What another collection shipped is not read on by this one, and not forgotten.
#[test]
fn a_file_of_another_collection_is_left_and_kept() {
    for (owner, is_ours) in [(None, true), (Some("default"), true), (Some("other"), false)] {
        let one = Checkpoint { owner: owner.map(Into::into), ..closed() };
        let catalog = Catalog::new(vec![one], 1000, "default");
        assert_eq!(catalog.checkpoints().count(), usize::from(is_ours), "{owner:?}");
        assert_eq!(catalog.foreign().len(), usize::from(!is_ours), "{owner:?}");
    }
}

#[test]
fn what_is_met_does_not_age() {
    let mut catalog = idle();
    let now = crate::base::clock::now();
    assert!(catalog.is_known_so(ORIGINAL, AS_FOUND, &Registry::default(), now, 5000));

    let saved = catalog.checkpoints().cloned().collect();
    let restarted = Catalog::new(saved, 1000 + UNSEEN_SECONDS_MAX, "default");
    assert!(restarted.get(ORIGINAL.0, ORIGINAL.1).is_some());
}

const ORIGINAL: Inode = (1, 10);
const OTHER: Inode = (1, 11);
const AS_FOUND: FoundAs = (5, (1, 0));
const GROWN: FoundAs = (6, (1, 0));

fn closed() -> Checkpoint {
    Checkpoint {
        path: "/logs/app.log".into(),
        resolved: "/logs/app.log".into(),
        device: ORIGINAL.0,
        inode: ORIGINAL.1,
        offset: 5,
        head: crate::base::fingerprint::Fingerprint { len: 5, crc32: 7 },
        seen_unix: 1000,
        is_done: true,
        ..Checkpoint::default()
    }
}

/// A file that is delivered and closed, as a discovery has found it.
fn idle() -> Catalog {
    let mut catalog = Catalog::default();
    catalog.put_closed(closed());
    catalog.on_closed(ORIGINAL, Closed::Idle(AS_FOUND));
    catalog
}

fn copy(doubted: Instant) -> Copy {
    let (device, inode) = OTHER;
    Copy {
        found_as: Some(AS_FOUND),
        of: Source::Closed(ORIGINAL),
        done: Checkpoint { path: "/logs/copy".into(), device, inode, ..closed() },
        doubted: Some(doubted),
        is_own: false,
        is_compressed: false,
    }
}

#[test]
fn a_closed_file_holds_nothing_new_until_it_changes() {
    let (mut catalog, now) = (idle(), crate::base::clock::now());
    let mut is_known_so =
        |found_as| catalog.is_known_so(ORIGINAL, found_as, &Registry::default(), now, 0);

    assert!(is_known_so(AS_FOUND));
    assert!(!is_known_so(GROWN), "it has grown");
    assert!(!is_known_so(GROWN), "it is not open yet");
}

#[test]
fn a_copy_waits_until_it_changes_or_is_one_of_its_own() {
    let now = crate::base::clock::now();
    let later = now + entry::COPY_TIME;
    let registry = Registry::default();
    let mut catalog = idle();
    catalog.put_copy(copy(now));
    assert!(catalog.is_known_so(OTHER, AS_FOUND, &registry, now, 0));
    assert!(!catalog.is_known_so(OTHER, GROWN, &registry, now, 0) && !catalog.has_copies());

    catalog.put_copy(copy(now));
    assert!(catalog.has_copies());
    assert!(!catalog.is_known_so(OTHER, AS_FOUND, &registry, later, 0));
    assert!(catalog.copy(OTHER).unwrap().is_own, "nobody has touched the original");
    catalog.on_discovered(&HashSet::from([ORIGINAL]));
    assert!(catalog.copy(OTHER).is_none(), "it is gone");
    assert_eq!(catalog.doubted(OTHER), Some(now), "it may be found elsewhere");
}

#[test]
fn a_deferred_file_is_opened_once_and_as_it_was_found() {
    let mut catalog = Catalog::new(vec![closed()], 1000, "one");
    catalog.defer(ORIGINAL, AS_FOUND);
    assert_eq!(catalog.deferred(), 1);

    let (saved, found_as) = catalog.next_deferred().unwrap();

    assert_eq!((saved.inode, found_as), (ORIGINAL.1, AS_FOUND));
    assert!(catalog.next_deferred().is_none());
}

#[test]
fn a_deferred_file_that_has_changed_is_left_to_the_discovery_that_saw_it() {
    let (mut catalog, now) = (Catalog::new(vec![closed()], 1000, "one"), crate::base::clock::now());
    catalog.defer(ORIGINAL, AS_FOUND);
    assert!(!catalog.is_known_so(ORIGINAL, GROWN, &Registry::default(), now, 0));

    assert!(catalog.next_deferred().is_none());
}

/// Each phase that a discovery must find a file in, and what follows if it does not.
#[test]
fn what_a_discovery_has_not_found_is_searched_for() {
    let now = crate::base::clock::now();
    let waiting = || Checkpoint { offset: 0, head: Default::default(), is_done: false, ..closed() };
    type Make = (&'static str, Box<dyn Fn() -> Catalog>, Option<bool>);
    let cases: [Make; 5] = [
        ("idle", Box::new(idle), Some(true)),
        (
            "changed",
            Box::new(move || {
                let mut catalog = idle();
                catalog.is_known_so(ORIGINAL, GROWN, &Registry::default(), now, 0);
                catalog
            }),
            Some(true),
        ),
        (
            "deferred",
            Box::new(|| {
                let mut catalog = Catalog::new(vec![closed()], 1000, "one");
                catalog.defer(ORIGINAL, AS_FOUND);
                catalog
            }),
            Some(true),
        ),
        (
            "waiting",
            Box::new(move || {
                let mut catalog = Catalog::default();
                catalog.wait(waiting(), true);
                catalog
            }),
            Some(false),
        ),
        (
            "no log",
            Box::new(|| {
                let mut catalog = Catalog::default();
                catalog.on_no_log(ORIGINAL, Path::new("/logs/app.log.1"), AS_FOUND);
                catalog
            }),
            None,
        ),
    ];
    for (phase, make, was_closed) in cases {
        let mut catalog = make();
        catalog.on_discovered(&HashSet::from([ORIGINAL]));
        assert!(!catalog.is_any_missing(), "{phase}: it was found");
        catalog.on_discovered(&HashSet::new());
        let searched = catalog.entries.values().next().map(|entry| entry.was_closed());
        assert_eq!(searched, was_closed, "{phase}");
        assert_eq!(catalog.is_any_missing(), was_closed.is_some(), "{phase}");
    }
}

#[test]
fn a_file_without_a_log_is_not_saved() {
    let mut catalog = Catalog::default();
    catalog.on_no_log(ORIGINAL, Path::new("/logs/app.log.1"), AS_FOUND);
    assert_eq!(catalog.saved_count(&Registry::default()), 0);

    let now = crate::base::clock::now();
    assert!(catalog.is_known_so(ORIGINAL, AS_FOUND, &Registry::default(), now, 0));
    assert!(!catalog.is_known_so(ORIGINAL, GROWN, &Registry::default(), now, 0));
    assert!(catalog.is_empty(), "it is judged again");
}

/// A deleted file that was read up to here, and has ended.
fn ended(offset: u64) -> (FileKey, Tracked) {
    use crate::base::fingerprint::Fingerprint;
    use crate::base::span::CollectionId;

    let (mut registry, path) = (Registry::default(), Path::new("/logs/app.log"));
    let opened = crate::tail::tracked::Opened {
        collection: CollectionId(0),
        path: path.into(),
        resolved: path.into(),
        device: ORIGINAL.0,
        inode: ORIGINAL.1,
        born: 0,
        head: Fingerprint::default(),
        offset,
        tail: Fingerprint::default(),
    };
    let file = registry.open(opened, crate::base::clock::now(), 0);
    registry.end(file).unwrap();
    (file, *registry.take_settled().pop().unwrap().1)
}

#[test]
fn what_a_deleted_file_has_of_a_missing_one_is_delivered_with_it() {
    for (read, is_lost, is_delivered) in [(5, true, true), (4, true, false), (5, false, false)] {
        let (original, ended) = ended(read);
        let mut catalog = Catalog::default();
        let missing =
            Checkpoint { offset: 0, head: Default::default(), is_done: false, ..closed() };
        catalog.wait(Checkpoint { inode: OTHER.1, ..missing }, false);
        let done = Box::new(Checkpoint { inode: OTHER.1, ..closed() });
        catalog.on_held(Held { original, done });
        assert!(catalog.held(OTHER).is_some());
        catalog.on_original_ended(FileKey(original.0 + 1), &ended, true);
        assert!(catalog.closed(OTHER).is_none(), "another one has ended");

        catalog.on_original_ended(original, &ended, is_lost);

        assert_eq!(catalog.closed(OTHER).is_some(), is_delivered, "{read} {is_lost}");
        assert_eq!(catalog.is_any_missing(), !is_delivered, "{read} {is_lost}");
    }
}

#[test]
fn what_equals_another_file_is_not_named_when_it_vanishes() {
    let mut catalog = Catalog::default();
    let missing = Checkpoint { offset: 0, head: Default::default(), is_done: false, ..closed() };
    catalog.wait(Checkpoint { rest: None, ..missing }, false);
    catalog.on_equal(ORIGINAL);
    assert!(catalog.is_any_missing());
    assert_eq!(catalog.tell(|_, _| true), []);
}
