use super::*;
use crate::base::span::{CollectionId, Span};
use crate::tail::tracked::{DELETED_QUIET, DELETED_QUIET_MAX, TRAIL_MAX};

fn opened(inode: u64, offset: u64) -> Opened {
    Opened {
        collection: CollectionId(0),
        path: Path::new("/share/logs/app.log").into(),
        resolved: Path::new("/data/pod/logs/app.log").into(),
        device: 1,
        inode,
        born: 0,
        head: Fingerprint::of(b"h"),
        offset,
        tail: Fingerprint::of(b"tail"),
    }
}

fn stat(size: u64, links: u64) -> Stat {
    Stat { device: 1, inode: 7, size, links, modified: Some(1), ..Stat::default() }
}

fn stream(file: FileKey) -> StreamKey {
    StreamKey { file, collection: CollectionId(0) }
}

fn none() -> Fingerprint {
    Fingerprint::default()
}

#[test]
fn an_acknowledgement_moves_the_watermark_of_its_own_stream() {
    let mut registry = Registry::default();
    let file = registry.open(opened(7, 0), crate::base::clock::now(), 0);
    let span = Span::new(registry.stream(file).unwrap(), 0, 5);
    registry.watermark_mut(span.stream).unwrap().on_sealed(span, 1, none(), 0);
    let collection = CollectionId(1);
    let other = Span { stream: StreamKey { collection, ..span.stream }, ..span };

    assert_eq!(registry.on_ack(other, 1), (0, false));
    assert_eq!(registry.on_ack(span, 1), (5, true));
}

#[test]
fn a_file_that_is_found_no_more_is_read_on() {
    let now = crate::base::clock::now();
    let mut registry = Registry::default();
    let file = registry.open(opened(7, 0), now, 0);

    assert_eq!(registry.on_scan(&HashSet::from([(1, 7)])), []);
    assert_eq!(registry.on_scan(&HashSet::new()), [file]);
    assert_eq!(registry.on_scan(&HashSet::new()), []);
    assert_eq!(registry.get(file).unwrap().state, State::Rotated);
    assert_eq!(registry.on_stat(file, &stat(5, 1), now), Change::Grew);
    registry.on_scan(&HashSet::from([(1, 7)]));
    assert_eq!(registry.get(file).unwrap().state, State::Active);
}

#[test]
fn growth_is_news_until_it_is_read_to_the_end() {
    let now = crate::base::clock::now();
    let mut registry = Registry::default();
    let file = registry.open(opened(7, 0), now, 0);

    assert_eq!(registry.on_stat(file, &stat(10, 1), now), Change::Grew);
    assert_eq!(registry.on_stat(file, &stat(10, 1), now), Change::Unread);
    registry.on_read(file, 8, none(), true, false);
    assert_eq!(registry.on_stat(file, &stat(10, 1), now), Change::None);
    assert_eq!(registry.on_stat(file, &stat(11, 1), now), Change::Grew);
}

#[test]
fn truncation_begins_a_new_incarnation_and_counts_what_was_lost() {
    let now = crate::base::clock::now();
    let mut registry = Registry::default();
    let file = registry.open(opened(7, 100), now, 0);
    registry.on_stat(file, &stat(150, 1), now);
    registry.on_read(file, 120, none(), false, false);

    assert_eq!(registry.on_stat(file, &stat(119, 1), now), Change::Shrank);
    registry.on_verified(file, 150);
    let restarted = registry.restart(file, 1, now, 0).unwrap();

    assert_eq!(restarted.lost_bytes, 30);
    assert_ne!(restarted.file, file);
    let tracked = registry.get(restarted.file).unwrap();
    assert_eq!((tracked.read_offset, tracked.watermark.offset()), (0, 0));
    assert_eq!(registry.find(1, 7), Some(restarted.file));
    assert!(registry.get(file).is_none());
}

#[test]
fn truncation_is_noticed_before_anything_was_read() {
    let now = crate::base::clock::now();
    let mut registry = Registry::default();
    let head = Fingerprint::of_head(b"one\n");
    let file = registry.open(Opened { head, ..opened(7, 0) }, now, 0);
    assert_eq!(registry.on_stat(file, &stat(4, 1), now), Change::Grew);
    assert_eq!(registry.on_stat(file, &stat(3, 1), now), Change::Shrank);
}

#[test]
fn an_unfinished_line_is_due_after_its_quiet_time() {
    let start = crate::base::clock::now();
    let at = |s| start + Duration::from_secs(s);
    let timeout = Duration::from_secs(5);
    let mut registry = Registry::default();
    let file = registry.open(opened(7, 0), at(0), 0);
    registry.on_stat(file, &stat(3, 1), at(1));
    registry.on_read(file, 0, none(), true, false);

    assert_eq!(registry.rest_deadline(timeout), Some(at(6)));
    assert_eq!(registry.rests_due(timeout, at(5)), []);
    registry.on_stat(file, &stat(4, 1), at(5));
    assert_eq!(registry.rest_deadline(timeout), None);
    registry.on_read(file, 0, none(), true, false);
    assert_eq!(registry.rests_due(timeout, at(9)), []);
    assert_eq!(registry.rests_due(timeout, at(10)), [file]);
    registry.on_read(file, 4, none(), true, false);
    assert_eq!(registry.rest_deadline(timeout), None);
}

#[test]
fn an_unfinished_line_that_cannot_be_read_waits_for_the_next_examination() {
    let now = crate::base::clock::now();
    let mut registry = Registry::default();
    let file = registry.open(opened(7, 0), now, 0);
    registry.on_stat(file, &stat(3, 1), now);
    registry.on_read(file, 0, none(), true, false);

    registry.on_unreadable(file);

    assert_eq!(registry.rest_deadline(Duration::ZERO), None);
    assert_eq!(registry.on_stat(file, &stat(3, 1), now), Change::Unread);
}

#[test]
fn a_trail_leads_far_back_in_larger_and_larger_steps() {
    let mut trail = Trail::new();
    for offset in 1..=1000 {
        prolong(&mut trail, (offset, none()));
    }
    let offsets: Vec<u64> = trail.iter().map(|(offset, _)| *offset).collect();

    assert!(offsets.len() <= TRAIL_MAX && offsets.ends_with(&[997, 998, 999, 1000]));
    assert!(offsets[0] < 900, "{offsets:?}");
    assert!(offsets.is_sorted_by(|a, b| a < b));
}

#[test]
fn a_deleted_file_is_closed_only_when_delivered_and_quiet() {
    let start = crate::base::clock::now();
    let later = start + DELETED_QUIET;
    let mut registry = Registry::default();
    let file = registry.open(opened(7, 0), start, 0);
    registry.on_stat(file, &stat(5, 0), start);
    assert_eq!(registry.get(file).unwrap().state, State::Deleted);
    assert_eq!(registry.closable(later), []);
    registry.on_read(file, 5, none(), true, false);
    let span = Span::new(stream(file), 0, 5);
    registry.get_mut(file).unwrap().watermark.on_sealed(span, 1, none(), 0);
    assert_eq!(registry.closable(later), []);
    registry.get_mut(file).unwrap().watermark.on_ack(span, 1);

    assert_eq!(registry.closable(later - Duration::from_millis(1)), []);
    assert_eq!(registry.closable(later), [file]);
}

#[test]
fn a_deleted_file_is_kept_for_as_long_as_its_app_may_be_silent() {
    let start = crate::base::clock::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let mut registry = Registry::default();
    let file = registry.open(opened(7, 0), start, 0);
    for (number, seconds) in [(1, 75), (2, 150), (3, 160)] {
        registry.on_stat(file, &stat(number, u64::from(seconds < 150)), at(seconds));
        registry.on_read(file, number, none(), true, false);
        let span = Span::new(stream(file), number - 1, number);
        let watermark = &mut registry.get_mut(file).unwrap().watermark;
        watermark.on_sealed(span, 1, none(), 0);
        watermark.on_ack(span, 1);
    }

    assert_eq!(registry.closable(at(160 + 299)), []);
    assert_eq!(registry.closable(at(160 + 300)), [file]);
    registry.get_mut(file).unwrap().growth.longest_pause = Duration::from_secs(100_000);
    assert_eq!(registry.closable(at(160) + DELETED_QUIET_MAX), [file]);
}

#[test]
fn an_unfinished_last_line_is_not_undelivered() {
    let now = crate::base::clock::now();
    let mut registry = Registry::default();
    let file = registry.open(opened(7, 0), now, 0);
    registry.on_stat(file, &stat(5, 1), now);
    assert!(registry.get(file).unwrap().has_undelivered_lines());
    registry.on_read(file, 0, none(), true, false);
    assert!(!registry.get(file).unwrap().has_undelivered_lines());
    assert!(!registry.get(file).unwrap().is_delivered());
}

#[test]
fn a_write_that_keeps_the_size_is_noticed_by_its_time() {
    let now = crate::base::clock::now();
    let mut registry = Registry::default();
    let file = registry.open(opened(7, 0), now, 0);
    let at = |modified| Stat { modified, ..stat(5, 1) };
    assert_eq!(registry.on_stat(file, &at(Some(1)), now), Change::Grew);
    registry.on_read(file, 5, none(), true, false);

    assert_eq!(registry.on_stat(file, &at(Some(1)), now), Change::None);
    assert_eq!(registry.on_stat(file, &at(Some(2)), now), Change::Touched);
    assert_eq!(registry.on_stat(file, &at(None), now), Change::Touched);
    assert_eq!(registry.on_stat(file, &at(Some(2)), now), Change::Touched, "it was too young");
    assert_eq!(registry.on_stat(file, &at(Some(2)), now), Change::None);
}

#[test]
fn an_account_is_settled_when_the_last_batch_is_acknowledged() {
    let now = crate::base::clock::now();
    let mut registry = Registry::default();
    let file = registry.open(opened(7, 10), now, 0);
    registry.on_stat(file, &stat(100, 1), now);
    assert_eq!(registry.on_verified(file, 100), 90);
    registry.on_read(file, 60, none(), false, false);
    let span = Span::new(stream(file), 10, 60);
    registry.watermark_mut(span.stream).unwrap().on_sealed(span, 1, none(), 5);
    registry.get_mut(file).unwrap().skipped.hole_bytes = 5;
    registry.on_stat(file, &stat(130, 1), now);

    let restarted = registry.restart(file, 1, now, 0).unwrap();
    assert_eq!(restarted.lost_bytes, 40, "what came last may be of the new text");
    assert_eq!(registry.take_settled().len(), 0);
    assert_eq!(registry.on_ack(span, 1), (45, true));

    let settled = registry.take_settled();
    assert_eq!((settled.len(), settled[0].1.size), (1, 100));
    assert!(settled[0].1.is_balanced());
    let mut wrong = settled[0].1.clone();
    wrong.skipped.left_bytes -= 1;
    assert!(!wrong.is_balanced());
}

#[test]
fn what_is_forgotten_has_no_account() {
    let now = crate::base::clock::now();
    let mut registry = Registry::default();
    let file = registry.open(opened(7, 0), now, 0);
    registry.on_stat(file, &stat(5, 1), now);
    registry.on_verified(file, 2);

    assert_eq!(registry.forget(file), 2);
    assert_eq!(registry.find(1, 7), None);
    assert!(!registry.is_known(file) && registry.take_settled().is_empty());
}

#[test]
fn the_files_deleted_first_go_beyond_the_budget() {
    let start = crate::base::clock::now();
    let mut registry = Registry::default();
    let mut delete = |inode: u64, size, at| {
        let file = registry.open(opened(inode, 0), start, 0);
        registry.on_stat(file, &stat(size, 0), start + Duration::from_secs(at));
        file
    };
    let (late, early, alive) = (delete(1, 30, 9), delete(2, 20, 1), delete(3, 10, 5));
    registry.get_mut(alive).unwrap().state = State::Active;

    assert_eq!(registry.held_deleted_bytes(), 50);
    assert_eq!(registry.beyond_budget(50), []);
    assert_eq!(registry.beyond_budget(49), [early]);
    assert_eq!(registry.beyond_budget(29), [early, late]);
}

#[test]
fn what_is_cut_off_unread_is_told() {
    let now = crate::base::clock::now();
    let mut registry = Registry::default();
    let file = registry.open(opened(7, 0), now, 0);
    registry.on_stat(file, &stat(100, 1), now);
    registry.on_verified(file, 90);
    registry.on_read(file, 10, none(), true, true);

    assert_eq!(registry.on_stat(file, &stat(100, 1), now), Change::Touched, "it waits idly");
    assert_eq!(registry.on_stat(file, &stat(50, 1), now), Change::Cut(40));
    assert_eq!(registry.on_verified(file, 50), 0);
    assert_eq!(registry.end(file), Some(40));
}
