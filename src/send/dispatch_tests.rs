//! The queue by single steps: time is an argument. Whole outages are in `tests/sim/pace.rs`.

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::base::sealed::{BatchId, Refusal, Route};
use crate::base::span::{CollectionId, FileKey, Span, StreamKey};
use crate::send::queue::ALONE_TIME;
use logferry_wire::Compression;

/// A batch that goes alone: it is as large as a list may be.
fn batch(id: u64) -> SealedBatch {
    SealedBatch { raw_bytes: 512 * 1024, ..small(id) }
}

fn small(id: u64) -> SealedBatch {
    SealedBatch {
        id: BatchId(id),
        span: span(0, id),
        destination: DestinationId(0),
        path: Arc::from("/share/logs/app.log"),
        payload: Arc::from([0; 5].as_slice()),
        compression: Compression::None,
        raw_bytes: 5,
        lines: 1,
        first: 0,
        route: Route::Any,
        since: crate::base::clock::now(),
    }
}

/// Ten bytes of this file.
fn span(file: u32, id: u64) -> Span {
    let stream = StreamKey { file: FileKey(file), collection: CollectionId(0) };
    Span::new(stream, id * 10, id * 10 + 10)
}

fn retry(kind: FailureKind) -> Verdict {
    Verdict::Retry { kind, after: None }
}

fn failure() -> Verdict {
    retry(FailureKind::Server)
}

fn rejection() -> Verdict {
    let (code, message) = ("PostBodyInvalid".to_owned(), "no".to_owned());
    Verdict::Refuse(Refusal::Malformed { code, message })
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

fn dispatch(concurrency_max: usize, batches: impl IntoIterator<Item = SealedBatch>) -> Dispatch {
    let together = Together { raw_bytes_max: 512 * 1024, lines_max: 4000 };
    let mut dispatch = Dispatch::new(concurrency_max, together, fastrand::Rng::with_seed(1));
    batches.into_iter().for_each(|batch| dispatch.on_batch(batch));
    dispatch
}

fn ids(load: &Load) -> Vec<u64> {
    load.batches.iter().map(|batch| batch.id.0).collect()
}

/// Which batches start now, request by request.
fn polled(dispatch: &mut Dispatch, now: Instant) -> Vec<Load> {
    std::iter::from_fn(|| dispatch.poll(now)).collect()
}

fn polled_ids(dispatch: &mut Dispatch, now: Instant) -> Vec<Vec<u64>> {
    polled(dispatch, now).iter().map(ids).collect()
}

/// Delivers until the window is at its most.
fn grow(dispatch: &mut Dispatch, size: usize, now: Instant) {
    while dispatch.window() < size {
        let request = dispatch.poll(now).unwrap().request;
        assert!(!dispatch.on_result(request, Verdict::Delivered, now).is_empty());
    }
}

#[test]
fn sends_the_oldest_first_and_no_more_than_the_window() {
    let (mut dispatch, t) = (dispatch(3, (0..100).map(batch)), crate::base::clock::now());
    let first = polled(&mut dispatch, t);
    assert_eq!(first.iter().map(ids).collect::<Vec<_>>(), [[0]]);
    dispatch.on_result(first[0].request, Verdict::Delivered, t);

    grow(&mut dispatch, 3, t);

    assert_eq!(polled_ids(&mut dispatch, t), [[20], [21], [22]]);
    assert_eq!(dispatch.deadline(), None, "the next event is a result");
}

#[test]
fn after_a_run_of_failures_all_wait_and_one_request_probes() {
    let (mut dispatch, t) = (dispatch(4, (0..100).map(batch)), crate::base::clock::now());
    grow(&mut dispatch, 4, t);
    let under_way = polled(&mut dispatch, t);
    assert_eq!(under_way.len(), 4);

    for load in &under_way[..2] {
        assert!(dispatch.on_result(load.request, failure(), t).is_empty());
        assert_eq!(dispatch.window(), 4, "two failures are chance");
    }
    for load in &under_way[2..] {
        dispatch.on_result(load.request, failure(), t);
    }
    assert!(polled(&mut dispatch, t).is_empty());
    let until = dispatch.deadline().unwrap();
    assert!(until > t && until <= t + seconds(1), "one run, not four failures, is counted");

    let probe = polled(&mut dispatch, until);
    assert_eq!(probe.len(), 1);
    assert!(polled(&mut dispatch, until + seconds(60)).is_empty(), "one request probes");
    dispatch.on_result(probe[0].request, Verdict::Delivered, until);

    assert_eq!(dispatch.window(), 4, "it may have been chance");
}

#[test]
fn a_probe_that_fails_halves_the_window_once() {
    let (mut dispatch, t) = (dispatch(4, (0..100).map(batch)), crate::base::clock::now());
    grow(&mut dispatch, 4, t);
    for load in polled(&mut dispatch, t) {
        dispatch.on_result(load.request, failure(), t);
    }
    let mut pauses = vec![t];
    for verdict in [failure(), failure(), failure(), Verdict::Delivered] {
        let until = dispatch.deadline().unwrap();
        let probe = dispatch.poll(until).unwrap();
        dispatch.on_result(probe.request, verdict, until);
        pauses.push(until);
    }

    assert_eq!(dispatch.window(), 2);
    assert!(pauses[4] - pauses[3] > pauses[1] - pauses[0], "pauses grow: {pauses:?}");
}

#[test]
fn an_old_request_that_fails_late_does_not_close_the_gate_again() {
    let (mut dispatch, t) = (dispatch(4, (0..100).map(batch)), crate::base::clock::now());
    grow(&mut dispatch, 4, t);
    let under_way = polled(&mut dispatch, t);
    for load in &under_way[..3] {
        dispatch.on_result(load.request, failure(), t);
    }
    let until = dispatch.deadline().unwrap();
    let probe = polled(&mut dispatch, until);
    dispatch.on_result(probe[0].request, Verdict::Delivered, until);

    dispatch.on_result(under_way[3].request, failure(), until);

    assert_eq!(dispatch.window(), 4);
    assert_eq!(polled(&mut dispatch, until).len(), 4);
}

#[test]
fn a_wish_closes_the_gate_at_once_and_a_later_one_prolongs_the_pause() {
    let (mut dispatch, t) = (dispatch(2, (0..50).map(batch)), crate::base::clock::now());
    grow(&mut dispatch, 2, t);
    let under_way = polled(&mut dispatch, t);
    let busy = |s| Verdict::Retry { kind: FailureKind::Server, after: Some(seconds(s)) };

    dispatch.on_result(under_way[0].request, busy(7), t);
    assert_eq!(dispatch.deadline(), Some(t + seconds(7)));
    dispatch.on_result(under_way[1].request, busy(200), t);

    assert_eq!(dispatch.deadline(), Some(t + seconds(200)));
}

#[test]
fn a_wish_for_no_pause_is_a_failure_like_others() {
    let (mut dispatch, t) = (dispatch(4, (0..100).map(batch)), crate::base::clock::now());
    grow(&mut dispatch, 4, t);
    let load = dispatch.poll(t).unwrap();
    let at_once = Verdict::Retry { kind: FailureKind::Server, after: Some(Duration::ZERO) };

    dispatch.on_result(load.request, at_once, t);

    assert_eq!(polled(&mut dispatch, t).len(), 4, "one failure is chance");
}

#[test]
fn a_corrected_clock_sends_the_batch_again_at_once() {
    let (mut dispatch, t) = (dispatch(2, [batch(0)]), crate::base::clock::now());
    let skew = || Verdict::ClockSkew { server_unix: None };
    let load = dispatch.poll(t).unwrap();

    dispatch.on_result(load.request, skew(), t);
    let load = dispatch.poll(t).unwrap();
    dispatch.on_result(load.request, failure(), t);
    let until = dispatch.deadline().unwrap();
    let load = dispatch.poll(until).unwrap();
    dispatch.on_result(load.request, skew(), until);

    assert_eq!(polled_ids(&mut dispatch, until), [[0]], "a probe too");
}

#[test]
fn a_refusal_ends_the_batch_and_brings_it_back_whole() {
    let (mut dispatch, t) = (dispatch(1, [batch(0)]), crate::base::clock::now());
    let load = dispatch.poll(t).unwrap();

    let acks = dispatch.on_result(load.request, rejection(), t);

    let [ack] = acks.as_slice() else { panic!("{acks:?}") };
    assert_eq!((ack.id, ack.payload_bytes), (BatchId(0), 5));
    let Outcome::Refused { batch, refusal } = &ack.outcome else { panic!("{ack:?}") };
    assert_eq!((batch.payload.len(), refusal.words().0), (5, "PostBodyInvalid"));
    assert!(dispatch.is_empty());
}

#[test]
fn the_quotas_and_the_network_have_a_pause_each() {
    let (mut dispatch, t) = (dispatch(1, (0..9).map(batch)), crate::base::clock::now());
    let mut fail = |kind, now| {
        let load = dispatch.poll(now).unwrap();
        dispatch.on_result(load.request, retry(kind), now);
        dispatch.deadline().unwrap() - now
    };

    // Each is the first of its kind; had they one pause, it would double.
    let mut now = t;
    for kind in [FailureKind::Quota, FailureKind::ShardQuota, FailureKind::Network] {
        let pause = fail(kind, now);
        assert!(pause <= Duration::from_millis(500), "{kind:?}: {pause:?}");
        now += seconds(1);
    }
    let pauses = [0, 1, 2].map(|i| fail(FailureKind::Quota, now + seconds(30 * i)));
    assert!(pauses[2] > seconds(1), "and in a row it doubles: {pauses:?}");
}

#[test]
fn small_batches_go_together_and_end_together() {
    let (mut dispatch, t) = (dispatch(1, (0..100).map(small)), crate::base::clock::now());

    let load = dispatch.poll(t).unwrap();
    assert_eq!(ids(&load), (0..100).collect::<Vec<_>>());
    assert_eq!((dispatch.in_flight(), dispatch.unfinished()), (1, 100));
    let acks = dispatch.on_result(load.request, Verdict::Delivered, t);

    assert_eq!(acks.len(), 100);
    assert!(dispatch.is_empty());
}

#[test]
fn what_cannot_go_together_does_not() {
    let key = |id, key| SealedBatch { route: Route::Key(key), ..small(id) };
    let once = |id| SealedBatch { route: Route::Once { key: 1, sequence: id + 1 }, ..small(id) };
    let elsewhere = |id| SealedBatch { destination: DestinationId(1), ..small(id) };
    let zstd = |id| SealedBatch { compression: Compression::Zstd, ..small(id) };
    let lines = |id| SealedBatch { lines: 3999, ..small(id) };
    let raw = |id| SealedBatch { raw_bytes: 300 << 10, ..small(id) };
    let body = |id| SealedBatch { payload: Arc::from(vec![0; 130 << 10]), ..small(id) };
    type Case = (&'static str, Vec<SealedBatch>, &'static [&'static [u64]]);
    let cases: [Case; 8] = [
        ("destinations", vec![small(0), elsewhere(1), small(2)], &[&[0, 2], &[1]]),
        ("keys", vec![key(0, 7), key(1, 8), key(2, 7)], &[&[0, 2], &[1]]),
        ("sequence ids", vec![once(0), once(1)], &[&[0], &[1]]),
        ("compression", vec![small(0), zstd(1), zstd(2)], &[&[0], &[1, 2]]),
        ("lines", vec![small(0), lines(1), lines(2)], &[&[0, 1], &[2]]),
        ("raw bytes", vec![raw(0), raw(1), small(2)], &[&[0], &[1, 2]]),
        ("body", vec![body(0), small(1), body(2)], &[&[0, 1], &[2]]),
        // One that does not fit is not overtaken.
        ("order", vec![raw(0), raw(1), raw(2), small(3)], &[&[0], &[1], &[2, 3]]),
    ];
    for (what, batches, expected) in cases {
        let (mut dispatch, t) = (dispatch(1, batches), crate::base::clock::now());
        let mut loads = Vec::new();
        while let Some(load) = dispatch.poll(t) {
            dispatch.on_result(load.request, Verdict::Delivered, t);
            loads.push(ids(&load));
        }
        assert_eq!(loads, expected, "{what}");
    }
}

/// Until the culprit is alone: a refused list costs nobody else anything.
#[test]
fn a_refused_list_is_halved_until_the_culprit_is_alone() {
    for kind in [rejection(), retry(FailureKind::Other)] {
        let is_refused = matches!(kind, Verdict::Refuse(_));
        let (mut dispatch, mut now) = (dispatch(1, (0..64).map(small)), crate::base::clock::now());
        let mut sizes = Vec::new();
        let mut acks = Vec::new();
        while acks.len() < 63 || (is_refused && !dispatch.is_empty()) {
            // Alone, the culprit closes the gate for a moment.
            now = dispatch.deadline().unwrap_or(now).max(now);
            let load = dispatch.poll(now).unwrap();
            let is_bad = ids(&load).contains(&37);
            sizes.push(load.batches.len());
            let verdict = if is_bad { kind.clone() } else { Verdict::Delivered };
            acks.extend(dispatch.on_result(load.request, verdict, now));
        }

        let delivered = acks.iter().filter(|ack| matches!(ack.outcome, Outcome::Delivered));
        assert_eq!(delivered.count(), 63, "{kind:?}: {sizes:?}");
        assert!(sizes.len() <= 16, "{sizes:?}");
        assert_eq!(dispatch.is_empty(), is_refused, "a refusal ends it, a failure does not");
    }
}

#[test]
fn an_endpoint_that_knows_no_lists_is_asked_seldom() {
    let (mut dispatch, t) = (dispatch(1, (0..1000).map(small)), crate::base::clock::now());
    let run = |dispatch: &mut Dispatch, now| {
        let mut refused = 0;
        while let Some(load) = dispatch.poll(now) {
            let verdict = if load.is_list() { rejection() } else { Verdict::Delivered };
            refused += usize::from(load.is_list());
            dispatch.on_result(load.request, verdict, now);
        }
        refused
    };

    assert_eq!(run(&mut dispatch, t), 6);
    (1000..2000).for_each(|id| dispatch.on_batch(small(id)));
    assert_eq!(run(&mut dispatch, t + ALONE_TIME / 2), 0);
    (2000..3000).for_each(|id| dispatch.on_batch(small(id)));
    assert_eq!(run(&mut dispatch, t + ALONE_TIME), 6);
    assert!(dispatch.is_empty());
}

/// Six lists in a row are refused, and each time it is the same batch.
#[test]
fn the_culprit_in_front_does_not_end_all_lists() {
    let (mut dispatch, t) = (dispatch(1, (0..256).map(small)), crate::base::clock::now());
    let mut sizes = Vec::new();
    while let Some(load) = dispatch.poll(t) {
        sizes.push(load.batches.len());
        let is_bad = ids(&load).contains(&0);
        let verdict = if is_bad { rejection() } else { Verdict::Delivered };
        dispatch.on_result(load.request, verdict, t);
    }

    assert!(dispatch.is_empty());
    assert!(sizes.len() <= 20, "what was with it goes together again: {sizes:?}");
}

/// A list that the network breaks may be broken by one of its members.
#[test]
fn a_list_that_does_not_come_through_is_halved_too() {
    let (mut dispatch, t) = (dispatch(1, (0..8).map(small)), crate::base::clock::now());
    let load = dispatch.poll(t).unwrap();
    assert_eq!(load.batches.len(), 8);

    dispatch.on_result(load.request, retry(FailureKind::Network), t);
    let until = dispatch.deadline().unwrap();
    let probe = dispatch.poll(until).unwrap();
    assert_eq!(ids(&probe), [0], "a probe is a batch alone");
    dispatch.on_result(probe.request, Verdict::Delivered, until);

    assert_eq!(polled_ids(&mut dispatch, until), [[1, 2, 3, 4]]);
}

/// A batch of this file; it goes alone.
fn of(file: u32, id: u64) -> SealedBatch {
    SealedBatch { span: span(file, id), ..batch(id) }
}

#[test]
fn ordered_delivery_lets_nothing_of_a_file_overtake_what_failed() {
    // File 0 has the even numbers, file 1 the odd ones.
    let batches = (0..100).map(|id| of(u32::try_from(id % 2).unwrap(), id));
    let (mut dispatch, t) = (dispatch(8, batches).in_order(), crate::base::clock::now());
    grow(&mut dispatch, 8, t);
    let under_way = polled(&mut dispatch, t);
    assert_eq!(under_way.len(), 2, "one of each file, however many may go");
    assert_eq!(dispatch.deadline(), None, "the next event is a result");
    let (first, other) = (ids(&under_way[0])[0], ids(&under_way[1])[0]);

    // The one steps back, for the other comes through.
    dispatch.on_result(under_way[0].request, failure(), t);
    dispatch.on_result(under_way[1].request, Verdict::Delivered, t);

    assert_eq!(polled_ids(&mut dispatch, t), [[other + 2]], "nothing of the file that failed");
    let until = dispatch.deadline().unwrap();
    assert_eq!(polled_ids(&mut dispatch, until), [[first]]);
}

/// Whatever fails, is refused with others or goes in lists, the batches of each file end in order.
#[test]
fn ordered_delivery_keeps_the_order_of_each_file() {
    for seed in 0..300 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let files = rng.u32(1..6);
        let batches: Vec<_> = (0..60)
            .map(|id| {
                let batch = of(rng.u32(0..files), id);
                let raw_bytes = if rng.bool() { 5 } else { 512 * 1024 };
                let route = Route::Key(rng.u128(0..2));
                SealedBatch { raw_bytes, route, ..batch }
            })
            .collect();
        let (mut dispatch, mut now) = (dispatch(8, batches).in_order(), crate::base::clock::now());
        let (mut under_way, mut last) = (Vec::new(), vec![None; files as usize]);
        while !dispatch.is_empty() {
            under_way.extend(polled(&mut dispatch, now));
            if under_way.is_empty() {
                now =
                    dispatch.deadline().expect("something is left, and nothing under way").max(now);
                continue;
            }
            let load = under_way.swap_remove(rng.usize(0..under_way.len()));
            let verdict = match rng.u32(0..6) {
                0 => failure(),
                1 => retry(FailureKind::Quota),
                2 if load.is_list() => rejection(),
                _ => Verdict::Delivered,
            };
            for ack in dispatch.on_result(load.request, verdict, now) {
                let last = &mut last[ack.span.stream.file.0 as usize];
                assert!(*last < Some(ack.id.0), "seed {seed}: {} after {last:?}", ack.id.0);
                *last = Some(ack.id.0);
            }
        }
    }
}

/// A batch that can be halved, with a payload of so many bytes.
fn sized(id: u64, bytes: usize) -> SealedBatch {
    SealedBatch { payload: vec![0; bytes].into(), lines: 100, ..batch(id) }
}

/// Sends what may be sent, where what is as large as `limit` is cut, until `batches` have ended or time
/// has passed; what came through, and what was halved.
fn through_a_proxy(dispatch: &mut Dispatch, limit: usize, mut now: Instant) -> [Vec<u64>; 2] {
    let mut ended = [Vec::new(), Vec::new()];
    let end = now + seconds(120);
    while now < end && !dispatch.is_empty() {
        let mut acks = dispatch.take_oversized(now);
        for load in polled(dispatch, now) {
            let bytes: usize = load.batches.iter().map(|batch| batch.payload.len()).sum();
            let verdict = if bytes < limit { Verdict::Delivered } else { Verdict::Cut };
            acks.extend(dispatch.on_result(load.request, verdict, now));
        }
        for ack in acks {
            match ack.outcome {
                Outcome::Delivered => ended[0].push(ack.id.0),
                Outcome::Refused { refusal, .. } => {
                    assert_eq!(refusal, Refusal::SeemsTooLarge);
                    ended[1].push(ack.id.0);
                }
            }
        }
        now += Duration::from_millis(100);
    }
    ended
}

#[test]
fn what_is_cut_for_its_size_is_halved_and_the_rest_comes_through() {
    let t = crate::base::clock::now();
    let large = (0..6).map(|id| sized(id, 100 << 10));
    let mut dispatch = dispatch(4, large.chain((6..9).map(|id| sized(id, 10 << 10))));

    let [mut delivered, mut halved] = through_a_proxy(&mut dispatch, 40 << 10, t);

    delivered.sort_unstable();
    halved.sort_unstable();
    assert_eq!((delivered, halved), (vec![6, 7, 8], vec![0, 1, 2, 3, 4, 5]));
}

/// Nobody knows whether the service has it under its id.
#[test]
fn what_has_a_sequence_id_is_kept_whole_and_told_of() {
    let mut now = crate::base::clock::now();
    let once = |id: u64| {
        let route = Route::Once { key: id.into(), sequence: 1 };
        SealedBatch { route, ..sized(id, 100 << 10) }
    };
    let mut dispatch = dispatch(1, (0..2).map(once));
    for id in 2..6 {
        dispatch.on_batch(sized(id, 10 << 10));
        let [delivered, halved] = through_a_proxy(&mut dispatch, 40 << 10, now);
        assert_eq!((delivered, halved), (vec![id], vec![]), "others go past them");
        now += seconds(120);
    }
    assert!(dispatch.held_whole().iter().eq(&[BatchId(0), BatchId(1)]));

    let [mut delivered, _] = through_a_proxy(&mut dispatch, 1 << 20, now);
    delivered.sort_unstable();
    assert_eq!((delivered, dispatch.held_whole().len()), (vec![0, 1], 0));
}

/// Each size that is tried is a question of its own: the pauses do not grow over it.
#[test]
fn the_size_that_comes_through_is_found_in_half_a_minute() {
    for seed in 0..50 {
        let mut dispatch = dispatch(4, (0..12).map(|id| sized(id, 200 << 10)));
        dispatch.rng = fastrand::Rng::with_seed(seed);
        let (start, mut next, mut has_passed) = (crate::base::clock::now(), 12, false);
        let mut now = start;
        while !has_passed {
            assert!(now < start + seconds(30), "seed {seed}");
            for load in polled(&mut dispatch, now) {
                let bytes = load.batches[0].payload.len();
                let has_room = bytes < 7 << 10;
                let verdict = if has_room { Verdict::Delivered } else { Verdict::Cut };
                has_passed |= has_room;
                let ended = dispatch.on_result(load.request, verdict, now).len();
                if !has_room && ended > 0 {
                    let halves = [next, next + 1].map(|id| sized(id, bytes / 2));
                    halves.into_iter().for_each(|half| dispatch.on_batch(half));
                    next += 2;
                }
            }
            now += Duration::from_millis(50);
        }
    }
}

#[test]
fn in_an_outage_only_the_smallest_is_halved() {
    let t = crate::base::clock::now();
    let sizes = [100, 101, 102, 103, 104, 105];
    let batches = (0..).zip(sizes).map(|(id, size)| sized(id, size << 10));
    let mut dispatch = dispatch(4, batches);

    let [delivered, halved] = through_a_proxy(&mut dispatch, 0, t);

    assert!(delivered.is_empty());
    // Its halves do not come back here, so the next one is the smallest then.
    assert_eq!(halved[0], 0);
    let two = [sized(0, 4 << 10), sized(1, 100 << 10)];
    let mut outage = self::dispatch(4, two);
    assert_eq!(through_a_proxy(&mut outage, 0, t), [Vec::<u64>::new(), Vec::new()]);
    assert_eq!(outage.unfinished(), 2);
}

#[test]
fn a_single_line_and_a_batch_with_a_sequence_id_are_never_halved() {
    let t = crate::base::clock::now();
    let line = SealedBatch { lines: 1, ..sized(0, 100 << 10) };
    let once = SealedBatch { route: Route::Once { key: 7, sequence: 1 }, ..sized(1, 100 << 10) };
    let small = (2..9).map(|id| sized(id, 5 << 10));
    let mut dispatch = dispatch(4, [line, once].into_iter().chain(small));

    let [delivered, halved] = through_a_proxy(&mut dispatch, 40 << 10, t);

    assert_eq!((delivered.len(), halved.len(), dispatch.unfinished()), (7, 0, 2));
}

/// Something on the way cuts one small batch for what it says: others are tried too.
#[test]
fn a_small_batch_that_never_comes_through_keeps_no_other_waiting() {
    let mut now = crate::base::clock::now();
    let poison = SealedBatch { lines: 1, ..sized(0, 200) };
    let others = (1..5).map(|id| sized(id, 10 << 10));
    let mut dispatch = dispatch(4, [poison].into_iter().chain(others));
    let (mut delivered, end) = (0, now + seconds(300));
    while now < end && delivered < 4 {
        for load in polled(&mut dispatch, now) {
            let is_poison = load.batches.iter().any(|batch| batch.id.0 == 0);
            let verdict = if is_poison { Verdict::Cut } else { Verdict::Delivered };
            delivered += dispatch.on_result(load.request, verdict, now).len();
        }
        now += Duration::from_millis(100);
    }
    assert_eq!((delivered, dispatch.unfinished()), (4, 1));
}

/// Only the oldest of a file may go, so it is the smallest that may, whatever waits behind it; and a line
/// that cannot be cut keeps no batch from being halved.
#[test]
fn what_may_not_go_or_cannot_be_cut_keeps_nothing_whole() {
    let t = crate::base::clock::now();
    let in_file = |id: u64, bytes: usize| SealedBatch { span: of(0, id).span, ..sized(id, bytes) };
    let mut ordered = dispatch(4, [in_file(0, 100 << 10), in_file(1, 10 << 10)]).in_order();
    assert_eq!(through_a_proxy(&mut ordered, 40 << 10, t)[1], [0]);

    let line = SealedBatch { lines: 1, ..sized(0, 100 << 10) };
    let mut dispatch = dispatch(4, [line, sized(1, 200 << 10), sized(2, 200 << 10)]);
    assert_eq!(through_a_proxy(&mut dispatch, 40 << 10, t)[1].len(), 2);
}
