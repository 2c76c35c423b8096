//! The queue against a made-up endpoint: time is an argument, so an outage of hours takes no time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::sealed::{Refusal, Route};
use crate::span::{FileKey, Span};
use crate::wire::Compression;

fn batch(id: u64) -> SealedBatch {
    SealedBatch {
        id: BatchId(id),
        span: Span::new(FileKey(0), id * 10, id * 10 + 10),
        path: Arc::from("/share/logs/app.log"),
        payload: Arc::from([0; 5].as_slice()),
        compression: Compression::None,
        raw_bytes: 5,
        lines: 1,
        first: 0,
        route: Route::Any,
    }
}

fn failure() -> Verdict {
    Verdict::Retry { kind: FailureKind::Server, after: None }
}

fn rejection() -> Verdict {
    let (code, message) = ("PostBodyInvalid".to_owned(), "no".to_owned());
    Verdict::Refuse(Refusal::Malformed { code, message })
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

fn dispatch(concurrency_max: usize, batches: u64) -> (Dispatch, Instant) {
    let mut dispatch = Dispatch::new(concurrency_max, fastrand::Rng::with_seed(1));
    (0..batches).for_each(|id| dispatch.on_batch(batch(id)));
    (dispatch, crate::clock::now())
}

fn polled(dispatch: &mut Dispatch, now: Instant) -> Vec<u64> {
    std::iter::from_fn(|| dispatch.poll(now)).map(|batch| batch.id.0).collect()
}

/// Delivers until the window is at its most.
fn grow(dispatch: &mut Dispatch, now: Instant) {
    while dispatch.window.size() < dispatch.window.size_max() {
        let id = dispatch.poll(now).unwrap().id;
        dispatch.on_result(id, Verdict::Delivered, now).unwrap();
    }
}

#[test]
fn sends_the_oldest_first_and_no_more_than_the_window() {
    let (mut dispatch, t) = dispatch(3, 20);
    assert_eq!(polled(&mut dispatch, t), [0]);

    dispatch.on_result(BatchId(0), Verdict::Delivered, t).unwrap();
    assert_eq!(polled(&mut dispatch, t), [1, 2]);
    dispatch.on_result(BatchId(2), Verdict::Delivered, t).unwrap();
    dispatch.on_result(BatchId(1), Verdict::Delivered, t).unwrap();

    assert_eq!(polled(&mut dispatch, t), [3, 4, 5]);
    assert_eq!(dispatch.deadline(), None, "the next event is a result");
}

#[test]
fn after_a_failure_all_wait_and_one_request_probes() {
    let (mut dispatch, t) = dispatch(4, 30);
    grow(&mut dispatch, t);
    let under_way = polled(&mut dispatch, t);
    assert_eq!(under_way.len(), 4);

    for id in under_way {
        assert!(dispatch.on_result(BatchId(id), failure(), t).is_none());
    }
    assert!(polled(&mut dispatch, t).is_empty());
    let until = dispatch.deadline().unwrap();
    assert!(until > t && until <= t + seconds(1), "one failure, not four, is counted");

    let probe = polled(&mut dispatch, until);
    assert_eq!(probe.len(), 1);
    assert!(polled(&mut dispatch, until + seconds(60)).is_empty(), "one request probes");
    dispatch.on_result(BatchId(probe[0]), Verdict::Delivered, until).unwrap();

    assert_eq!(polled(&mut dispatch, until).len(), 2, "the window was halved");
}

#[test]
fn an_old_request_that_fails_late_does_not_close_the_gate_again() {
    let (mut dispatch, t) = dispatch(2, 30);
    grow(&mut dispatch, t);
    let under_way = polled(&mut dispatch, t);
    dispatch.on_result(BatchId(under_way[0]), failure(), t);
    let until = dispatch.deadline().unwrap();
    let probe = polled(&mut dispatch, until);
    dispatch.on_result(BatchId(probe[0]), Verdict::Delivered, until).unwrap();

    dispatch.on_result(BatchId(under_way[1]), failure(), until);

    assert_eq!(dispatch.gate, Gate::Open);
    assert_eq!(polled(&mut dispatch, until).len(), 2, "the window has grown to 2 again");
}

#[test]
fn the_wish_of_a_late_failure_prolongs_the_pause() {
    let (mut dispatch, t) = dispatch(2, 30);
    grow(&mut dispatch, t);
    let under_way = polled(&mut dispatch, t);
    dispatch.on_result(BatchId(under_way[0]), failure(), t);

    let after = Some(seconds(20));
    let wish = Verdict::Retry { kind: FailureKind::Server, after };
    dispatch.on_result(BatchId(under_way[1]), wish, t);

    assert_eq!(dispatch.deadline(), Some(t + seconds(20)));
}

#[test]
fn a_corrected_clock_sends_the_batch_again_at_once() {
    let (mut dispatch, t) = dispatch(2, 1);
    polled(&mut dispatch, t);

    dispatch.on_result(BatchId(0), Verdict::ClockSkew { server_unix: None }, t);
    assert_eq!(polled(&mut dispatch, t), [0]);
    dispatch.on_result(BatchId(0), failure(), t);
    let until = dispatch.deadline().unwrap();
    assert_eq!(polled(&mut dispatch, until), [0]);
    dispatch.on_result(BatchId(0), Verdict::ClockSkew { server_unix: None }, until);

    assert_eq!(polled(&mut dispatch, until), [0], "a probe too");
}

#[test]
fn a_refusal_ends_the_batch_and_brings_it_back_whole() {
    let (mut dispatch, t) = dispatch(1, 1);
    polled(&mut dispatch, t);

    let ack = dispatch.on_result(BatchId(0), rejection(), t).unwrap();

    assert_eq!((ack.id, ack.payload_bytes), (BatchId(0), 5));
    let Outcome::Refused { batch, refusal } = ack.outcome else { panic!("{ack:?}") };
    assert_eq!((batch.payload.len(), refusal.words().0), (5, "PostBodyInvalid"));
    assert!(dispatch.is_empty());
}

/// A made-up endpoint: how long a request takes, and what comes of it, decided when it starts.
struct World<F> {
    dispatch: Dispatch,
    now: Instant,
    /// Results on their way, by the time they arrive.
    results: BTreeMap<(Instant, u64), Verdict>,
    answer: F,
    started: Vec<(Instant, u64)>,
    ended: Vec<(Instant, u64)>,
}

impl<F: FnMut(Instant, u64) -> (Duration, Verdict)> World<F> {
    fn new(dispatch: Dispatch, now: Instant, answer: F) -> Self {
        let (results, started, ended) = (BTreeMap::new(), Vec::new(), Vec::new());
        Self { dispatch, now, results, answer, started, ended }
    }

    /// Runs until `end`, or until nothing is left.
    fn run_until(&mut self, end: Instant) {
        loop {
            while let Some(batch) = self.dispatch.poll(self.now) {
                let id = batch.id.0;
                let (took, verdict) = (self.answer)(self.now, id);
                self.started.push((self.now, id));
                assert!(self.results.insert((self.now + took, id), verdict).is_none());
                assert!(self.dispatch.in_flight() <= self.dispatch.window.size_max());
            }
            assert_eq!(self.results.len(), self.dispatch.in_flight());
            let arrival = self.results.keys().next().map(|(at, _)| *at);
            let Some(next) = arrival.into_iter().chain(self.dispatch.deadline()).min() else {
                assert!(self.dispatch.is_empty(), "batches wait and nothing will wake them");
                return;
            };
            if next > end {
                self.now = end;
                return;
            }
            assert!(next >= self.now);
            self.now = next;
            if arrival == Some(next) {
                let ((_, id), verdict) = self.results.pop_first().unwrap();
                if self.dispatch.on_result(BatchId(id), verdict, next).is_some() {
                    self.ended.push((next, id));
                }
            }
        }
    }

    fn most_attempts_in(&self, stretch: Duration) -> usize {
        let at: Vec<Instant> = self.started.iter().map(|(at, _)| *at).collect();
        (0..at.len())
            .map(|first| at[first..].iter().take_while(|time| **time < at[first] + stretch).count())
            .max()
            .unwrap_or(0)
    }
}

#[test]
fn an_outage_of_eight_hours_costs_few_attempts_and_ends_within_the_pause() {
    let (dispatch, t) = dispatch(8, 200);
    let recovery = t + seconds(8 * 3600);
    let answer = move |now, _| {
        let verdict = if now < recovery { failure() } else { Verdict::Delivered };
        (Duration::from_millis(5), verdict)
    };
    let mut world = World::new(dispatch, t, answer);

    world.run_until(recovery + seconds(120));

    let first = world.ended[0].0;
    assert!(first <= recovery + backoff::PAUSE_MAX + seconds(1), "{:?}", first - recovery);
    assert_eq!(world.ended.len(), 200);
    assert!(world.started.len() < 8 * 3600 / 12 + 250, "{} attempts", world.started.len());
    let (last, _) = world.ended[199];
    assert!(last <= first + seconds(5), "all others follow at once, {:?}", last - first);
}

#[test]
fn requests_that_hang_do_not_delay_the_recovery_further() {
    let (dispatch, t) = dispatch(8, 50);
    let recovery = t + seconds(601);
    let answer = move |now, _| {
        if now < recovery {
            (seconds(15), Verdict::Retry { kind: FailureKind::Network, after: None })
        } else {
            (Duration::from_millis(5), Verdict::Delivered)
        }
    };
    let mut world = World::new(dispatch, t, answer);

    world.run_until(recovery + seconds(60));

    assert!(world.ended[0].0 <= recovery + seconds(25), "{:?}", world.ended[0].0 - recovery);
    assert_eq!(world.ended.len(), 50);
}

#[test]
fn batches_that_always_fail_do_not_stop_the_others_and_are_tried_for_ever() {
    let (dispatch, t) = dispatch(4, 1000);
    let poison: BTreeSet<u64> = [0, 1, 2, 3, 50].into();
    let bad = poison.clone();
    let answer = move |_, id| {
        let verdict = if bad.contains(&id) { failure() } else { Verdict::Delivered };
        (Duration::from_millis(20), verdict)
    };
    let mut world = World::new(dispatch, t, answer);

    world.run_until(t + seconds(3600));

    assert_eq!(world.ended.len(), 995);
    let (last, _) = *world.ended.last().unwrap();
    assert!(last < t + seconds(60), "the last good one waited {:?}", last - t);
    for id in poison {
        let late = world.started.iter().filter(|(at, tried)| *tried == id && *at > last);
        assert!(late.count() > 20, "batch {id} is given up");
    }
}

#[test]
fn an_endpoint_that_refuses_a_tenth_still_takes_everything_soon() {
    let (dispatch, t) = dispatch(8, 1000);
    let mut coin = fastrand::Rng::with_seed(3);
    let answer = move |_, _| {
        let verdict = if coin.u8(..10) == 0 { failure() } else { Verdict::Delivered };
        (Duration::from_millis(10), verdict)
    };
    let mut world = World::new(dispatch, t, answer);

    world.run_until(t + seconds(120));

    assert_eq!(world.ended.len(), 1000, "in two minutes");
}

proptest! {
    /// Whatever the endpoint does for a while: no storm, no more under way than allowed, and once
    /// it behaves each batch ends exactly once and nothing is left.
    #[test]
    fn each_batch_ends_exactly_once(
        seed: u64,
        batches in 1_u64..60,
        concurrency_max in 1_usize..12,
        trouble_seconds in 0_u64..600,
        // Of each ten answers in trouble: these are failures, the next refusals or skews.
        failures in 0_u8..=10,
    ) {
        let mut dispatch = Dispatch::new(concurrency_max, fastrand::Rng::with_seed(seed));
        let t = crate::clock::now();
        (0..batches).for_each(|id| dispatch.on_batch(batch(id)));
        let mut dice = fastrand::Rng::with_seed(seed ^ 1);
        let trouble_end = t + seconds(trouble_seconds);
        let answer = move |now, _| {
            let took = Duration::from_millis(dice.u64(1..3000));
            let roll = dice.u8(..10);
            let verdict = if now >= trouble_end {
                Verdict::Delivered
            } else if roll < failures {
                let after = dice.bool().then(|| Duration::from_secs(dice.u64(..100)));
                Verdict::Retry { kind: FailureKind::Quota, after }
            } else {
                [Verdict::Delivered, rejection()][usize::from(dice.bool())].clone()
            };
            (took, verdict)
        };
        let mut world = World::new(dispatch, t, answer);

        world.run_until(trouble_end + seconds(24 + 3 * batches + 60));

        let mut ended: Vec<u64> = world.ended.iter().map(|(_, id)| *id).collect();
        ended.sort_unstable();
        prop_assert_eq!(ended, (0..batches).collect::<Vec<_>>());
        prop_assert!(world.dispatch.is_empty());
    }

    /// While nothing gets through, a minute sees no more than a handful of attempts.
    #[test]
    fn an_outage_is_no_storm(
        seed: u64,
        batches in 1_u64..100,
        concurrency_max in 1_usize..12,
        latency_millis in 0_u64..2000,
    ) {
        let mut dispatch = Dispatch::new(concurrency_max, fastrand::Rng::with_seed(seed));
        (0..batches).for_each(|id| dispatch.on_batch(batch(id)));
        let kind = FailureKind::Network;
        let answer = move |_, _| {
            (Duration::from_millis(latency_millis), Verdict::Retry { kind, after: None })
        };
        let t = crate::clock::now();
        let mut world = World::new(dispatch, t, answer);

        world.run_until(t + seconds(1200));

        let most = world.most_attempts_in(seconds(60));
        prop_assert!(most <= 14, "{most} attempts in a minute");
        let every_half_minute = world.started.len() >= 1200 / 26;
        prop_assert!(every_half_minute, "{} attempts in 20 minutes", world.started.len());
    }
}
