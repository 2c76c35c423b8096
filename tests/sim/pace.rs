//! The pace of delivery alone: the queue against a made-up endpoint, hours of it in no time.
//!
//! Each test prints what it measured: `cargo test --test sim pace -- --nocapture`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use logferry::base::sealed::{BatchId, DestinationId, Outcome, Refusal, Route, SealedBatch};
use logferry::base::span::{CollectionId, FileKey, Span, StreamKey};
use logferry::send::backoff::PAUSE_MAX;
use logferry::send::dispatch::{Dispatch, Load};
use logferry::send::queue::Together;
use logferry::send::verdict::{FailureKind, Verdict};
use logferry_wire::Compression;
use proptest::prelude::*;

/// Most requests at once.
const CONCURRENCY: usize = 8;
/// What an endpoint in order takes for an answer.
const LATENCY: Duration = Duration::from_millis(50);

fn batch(id: u64) -> SealedBatch {
    let stream = StreamKey { file: FileKey(0), collection: CollectionId(0) };
    SealedBatch {
        id: BatchId(id),
        span: Span::new(stream, id * 10, id * 10 + 10),
        destination: DestinationId(0),
        path: Arc::from("/share/logs/app.log"),
        payload: Arc::from([0; 5].as_slice()),
        compression: Compression::None,
        // Full: it goes alone.
        raw_bytes: 512 * 1024,
        lines: 1,
        first: 0,
        route: Route::Any,
        since: logferry::base::clock::now(),
    }
}

fn small(id: u64) -> SealedBatch {
    SealedBatch { raw_bytes: 5, ..batch(id) }
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

fn retry(kind: FailureKind) -> Verdict {
    Verdict::Retry { kind, after: None }
}

/// A dispatch and its endpoint, which decides about a request when it starts.
struct World<E> {
    dispatch: Dispatch,
    now: Instant,
    endpoint: E,
    /// There are always some that wait: this makes the one of that number.
    endless: Option<fn(u64) -> SealedBatch>,
    next: u64,
    /// Batches to come.
    supply: BTreeMap<Instant, Vec<SealedBatch>>,
    /// Results on their way, by the time they arrive.
    results: BTreeMap<(Instant, u64), (Load, Verdict)>,
    /// When requests started, and whether the window was at its most.
    started: Vec<(Instant, bool)>,
    /// When batches were attempted.
    attempted: Vec<(Instant, u64)>,
    delivered: BTreeMap<u64, Instant>,
    refused: BTreeSet<u64>,
}

impl<E: FnMut(Instant, &Load) -> (Duration, Verdict)> World<E> {
    fn new(seed: u64, concurrency_max: usize, now: Instant, endpoint: E) -> Self {
        let together = Together { raw_bytes_max: 512 * 1024, lines_max: 4000 };
        Self {
            dispatch: Dispatch::new(concurrency_max, together, fastrand::Rng::with_seed(seed)),
            now,
            endpoint,
            endless: None,
            next: 0,
            supply: BTreeMap::new(),
            results: BTreeMap::new(),
            started: Vec::new(),
            attempted: Vec::new(),
            delivered: BTreeMap::new(),
            refused: BTreeSet::new(),
        }
    }

    fn with(mut self, batches: impl IntoIterator<Item = SealedBatch>) -> Self {
        batches.into_iter().for_each(|batch| self.dispatch.on_batch(batch));
        self
    }

    fn with_endless(self, batch: fn(u64) -> SealedBatch) -> Self {
        Self { endless: Some(batch), ..self }
    }

    /// Runs until `end`, or until nothing is left.
    fn run_until(&mut self, end: Instant) {
        loop {
            self.start_requests();
            let (arrival, supply) = (self.results.keys().next(), self.supply.keys().next());
            let (arrival, supply) = (arrival.map(|(at, _)| *at), supply.copied());
            let next = [arrival, supply, self.dispatch.deadline()].into_iter().flatten().min();
            let Some(next) = next else {
                assert!(self.dispatch.is_empty(), "batches wait and nothing will wake them");
                return;
            };
            assert!(next >= self.now, "time goes back");
            if next > end {
                self.now = end;
                return;
            }
            self.now = next;
            if supply == Some(next) {
                let (_, batches) = self.supply.pop_first().expect("it was just seen");
                batches.into_iter().for_each(|batch| self.dispatch.on_batch(batch));
            } else if arrival == Some(next) {
                self.take_result();
            }
        }
    }

    fn start_requests(&mut self) {
        while let Some(batch) = self.endless.filter(|_| self.dispatch.waiting() < 100) {
            self.dispatch.on_batch(batch(self.next));
            self.next += 1;
        }
        let before = self.started.len();
        while let Some(load) = self.dispatch.poll(self.now) {
            let (took, verdict) = (self.endpoint)(self.now, &load);
            self.started.push((self.now, self.dispatch.window() == CONCURRENCY));
            self.attempted.extend(load.batches.iter().map(|batch| (self.now, batch.id.0)));
            self.results.insert((self.now + took, load.request.0), (load, verdict));
            assert!(self.started.len() - before < 1000, "it spins");
        }
        assert_eq!(self.results.len(), self.dispatch.in_flight());
    }

    fn take_result(&mut self) {
        let (_, (load, verdict)) = self.results.pop_first().expect("a result is due");
        for ack in self.dispatch.on_result(load.request, verdict, self.now) {
            let is_new = match ack.outcome {
                Outcome::Delivered => self.delivered.insert(ack.id.0, self.now).is_none(),
                Outcome::Refused { .. } => self.refused.insert(ack.id.0),
            };
            assert!(is_new, "{:?} ended twice", ack.id);
        }
    }

    fn started_in(&self, from: Instant, to: Instant) -> usize {
        self.started.iter().filter(|(at, _)| (from..to).contains(at)).count()
    }

    /// Most requests that started within any such time, from `from` on.
    fn most_started_in(&self, stretch: Duration, from: Instant) -> usize {
        let at: Vec<Instant> =
            self.started.iter().map(|one| one.0).filter(|at| *at >= from).collect();
        let within = |first: &Instant| {
            at.iter().filter(|at| (*first..*first + stretch).contains(*at)).count()
        };
        at.iter().map(within).max().unwrap_or(0)
    }

    fn delivered_in(&self, from: Instant, to: Instant) -> usize {
        self.delivered.values().filter(|at| (from..to).contains(*at)).count()
    }
}

/// What an endpoint does while it is out of order.
struct Outage {
    name: &'static str,
    took: Duration,
    verdict: Verdict,
}

impl Outage {
    /// How long after the endpoint's recovery something must be delivered.
    fn patience(&self) -> Duration {
        let Verdict::Retry { after, .. } = &self.verdict else { panic!() };
        after.unwrap_or_default() + seconds(30)
    }
}

fn outages() -> Vec<Outage> {
    let outage = |name, took, verdict| Outage { name, took, verdict };
    let after = |s| Verdict::Retry { kind: FailureKind::Server, after: Some(seconds(s)) };
    vec![
        outage("network, refused at once", millis(1), retry(FailureKind::Network)),
        outage("network, hangs", seconds(15), retry(FailureKind::Network)),
        outage("500", LATENCY, retry(FailureKind::Server)),
        outage("503, Retry-After 2", LATENCY, after(2)),
        outage("503, Retry-After 120", LATENCY, after(120)),
        outage("project quota", LATENCY, retry(FailureKind::Quota)),
        outage("shard quota", LATENCY, retry(FailureKind::ShardQuota)),
        outage("credentials", LATENCY, retry(FailureKind::Credentials)),
        outage("missing", LATENCY, retry(FailureKind::Missing)),
        outage("clock", LATENCY, retry(FailureKind::Clock)),
        outage("unverified", LATENCY, retry(FailureKind::Unverified)),
        outage("other", LATENCY, retry(FailureKind::Other)),
    ]
}

/// A minute of any outage sees a handful of requests; the first one also those that were under way.
/// It ends within 30 s of the endpoint's recovery, and then it goes on at full speed.
#[test]
fn an_outage_is_no_storm_and_ends_soon_and_wholly() {
    println!("{:28}{:>10}{:>10}{:>12}{:>16}", "", "1st min", "a min", "recovery", "full speed");
    for outage in outages() {
        let (mut first_minute, mut minute, mut recovery, mut full) = (0, 0, Duration::ZERO, 0);
        for seed in 0..3 {
            let t = logferry::base::clock::now();
            let (down, up) = (t + seconds(20), t + seconds(20 + 3600));
            let endpoint = |now, load: &Load| {
                assert!(!load.batches.is_empty());
                if (down..up).contains(&now) {
                    (outage.took, outage.verdict.clone())
                } else {
                    (LATENCY, Verdict::Delivered)
                }
            };
            let mixed = |id| if id % 4 < 3 { small(id) } else { batch(id) };
            let mut world = World::new(seed, CONCURRENCY, t, endpoint).with_endless(mixed);

            world.run_until(up + outage.patience() + seconds(15));

            assert!(world.started_in(t, down) > 500, "at full speed before");
            first_minute = first_minute.max(world.started_in(down, down + seconds(60)));
            let later: Vec<Instant> =
                world.started.iter().map(|one| one.0).filter(|at| *at < up).collect();
            let settled = down + seconds(60);
            let in_minute = |first: &Instant| {
                later.iter().filter(|at| (*first..*first + seconds(60)).contains(*at)).count()
            };
            let most = later.iter().filter(|at| **at >= settled).map(in_minute).max();
            minute = minute.max(most.unwrap_or(0));
            let first = *world.delivered.values().filter(|at| **at >= up).min().unwrap();
            recovery = recovery.max(first - up);
            let after = world.started.iter().filter(|(at, _)| *at >= up);
            full = full.max(after.take_while(|(_, is_full)| !is_full).count());
        }
        println!(
            "{:28}{first_minute:>10}{minute:>10}{:>10} s{full:>7} requests",
            outage.name,
            recovery.as_secs()
        );
        assert!(first_minute <= 24, "{}: {first_minute} requests in the first minute", outage.name);
        assert!(minute <= 6, "{}: {minute} requests in a minute", outage.name);
        assert!(recovery <= outage.patience(), "{}: found after {recovery:?}", outage.name);
        assert!(full <= 100, "{}: {full} requests until it is at full speed", outage.name);
    }
}

/// An endpoint that takes so many requests in each period, which begins with a request.
fn quota(
    latency: Duration,
    period: Duration,
    most: usize,
    kind: FailureKind,
) -> impl FnMut(Instant, &Load) -> (Duration, Verdict) {
    let mut window: Option<(Instant, usize)> = None;
    move |now, _| {
        let (_, count) = match &mut window {
            Some(window) if now < window.0 + period => window,
            window => window.insert((now, 0)),
        };
        *count += 1;
        (latency, if *count > most { retry(kind) } else { Verdict::Delivered })
    }
}

#[test]
fn a_quota_is_used_and_not_run_into() {
    println!("{:24}{:>12}{:>10}{:>10}", "", "latency", "used", "refused");
    for (name, period, most) in [
        ("2 a second", seconds(1), 2),
        ("5 a second", seconds(1), 5),
        ("20 a second", seconds(1), 20),
        ("50 a second", seconds(1), 50),
        ("600 a minute", seconds(60), 600),
        ("2000 a minute", seconds(60), 2000),
    ] {
        for latency in [millis(5), millis(20), millis(100)] {
            let kinds = [FailureKind::Quota, FailureKind::ShardQuota];
            let (mut used, mut refused) = (f64::MAX, 0_f64);
            for (seed, kind) in (0..2).zip(kinds.into_iter().cycle()) {
                let t = logferry::base::clock::now();
                let endpoint = quota(latency, period, most, kind);
                let mut world = World::new(seed, CONCURRENCY, t, endpoint).with_endless(batch);
                let (from, to) = (t + seconds(60), t + seconds(240));

                world.run_until(to);

                let delivered = world.delivered_in(from, to) as f64;
                let requests = world.started_in(from, to) as f64;
                let possible = most as f64 * 180.0 / period.as_secs_f64();
                used = used.min(delivered / possible);
                refused = refused.max(1.0 - delivered / requests);
            }
            println!("{name:24}{latency:>12?}{used:>10.2}{refused:>10.2}");
            assert!(used >= 0.7, "{name}, {latency:?}: {used:.2} of it is used");
            let most_refused = if most <= 2 { 0.4 } else { 0.25 };
            assert!(refused <= most_refused, "{name}, {latency:?}: {refused:.2} are refused");
        }
    }
}

/// Requests in a minute, where so many of a hundred fail by chance.
fn throughput(percent: u8, seed: u64) -> f64 {
    let t = logferry::base::clock::now();
    let mut dice = fastrand::Rng::with_seed(seed);
    let endpoint = move |_, _: &Load| {
        let is_bad = dice.u8(..100) < percent;
        (LATENCY, if is_bad { retry(FailureKind::Server) } else { Verdict::Delivered })
    };
    let mut world = World::new(seed, CONCURRENCY, t, endpoint).with_endless(batch);
    world.run_until(t + seconds(180));
    world.delivered_in(t + seconds(60), t + seconds(180)) as f64
}

#[test]
fn failures_by_chance_do_not_slow_it_down_much() {
    let faultless = throughput(0, 1);
    for (percent, least) in [(1, 0.95), (5, 0.85), (10, 0.7), (20, 0.05)] {
        let shares: Vec<f64> = (0..3).map(|seed| throughput(percent, seed) / faultless).collect();
        let worst = shares.iter().copied().fold(f64::MAX, f64::min);
        println!("{percent} % fail: {worst:.2} of the throughput");
        assert!(worst >= least, "{percent} % fail: {worst:.2}");
    }
}

/// Fifty batches a second, a few of which never come through: the others do not notice.
#[test]
fn poisoned_batches_hold_nobody_up_and_are_tried_for_ever() {
    for kind in [FailureKind::Server, FailureKind::Network] {
        let t = logferry::base::clock::now();
        let poison: BTreeSet<u64> = (0..9000).filter(|id| id % 1000 == 300).collect();
        let bad = poison.clone();
        let endpoint = move |_, load: &Load| {
            let is_bad = load.batches.iter().any(|batch| bad.contains(&batch.id.0));
            (LATENCY, if is_bad { retry(kind) } else { Verdict::Delivered })
        };
        let mut world = World::new(3, CONCURRENCY, t, endpoint);
        for id in 0..9000 {
            let batch = if id % 2 == 0 { small(id) } else { batch(id) };
            world.supply.entry(t + millis(20 * id)).or_default().push(batch);
        }

        world.run_until(t + seconds(900));

        let good = (0..9000).filter(|id| !poison.contains(id));
        let waits: Vec<Duration> =
            good.map(|id| world.delivered[&id] - (t + millis(20 * id))).collect();
        let longest = waits.iter().max().unwrap();
        println!("{}: the longest wait is {longest:?}", kind.name());
        assert!(*longest <= seconds(5), "{kind:?}: a batch waited {longest:?}");
        assert_eq!(world.delivered.len(), 9000 - poison.len());
        let end = t + seconds(900);
        for id in poison {
            let mut late = world.attempted.iter().rev().filter(|(_, tried)| *tried == id);
            let (last, _) = late.next().unwrap();
            assert!(end - *last <= seconds(12 * 30), "batch {id} is given up");
        }
    }
}

/// A hundred of five thousand are what somebody on the way does not pass. They are older than the
/// others each time they come back, and still do not stand in their way.
#[test]
fn many_poisoned_batches_hold_nobody_up_either() {
    for kind in [FailureKind::Unverified, FailureKind::Other] {
        let t = logferry::base::clock::now();
        let is_poison = |id: u64| id.is_multiple_of(50);
        let endpoint = move |_, load: &Load| {
            let is_bad = load.batches.iter().any(|batch| is_poison(batch.id.0));
            (LATENCY, if is_bad { retry(kind) } else { Verdict::Delivered })
        };
        let mut world = World::new(3, CONCURRENCY, t, endpoint);
        for id in 0..5000 {
            world.supply.entry(t + millis(50 * id)).or_default().push(batch(id));
        }

        world.run_until(t + seconds(400));

        let good = (0..5000).filter(|id| !is_poison(*id));
        let waits = good.map(|id| {
            let at = world.delivered.get(&id).copied().unwrap_or(world.now);
            at - (t + millis(50 * id))
        });
        let longest = waits.max().unwrap();
        println!("{}: the longest wait is {longest:?}", kind.name());
        assert!(longest <= seconds(10), "{kind:?}: a batch waited {longest:?}");
    }
}

/// Whoever does not pass a batch may want to be left alone for a minute: that is about the batch.
#[test]
fn a_poisoned_batch_that_comes_with_a_wish_holds_nobody_up() {
    let t = logferry::base::clock::now();
    let endpoint = move |_, load: &Load| {
        let is_bad = load.batches.iter().any(|batch| batch.id.0 == 300);
        let busy = Verdict::Retry { kind: FailureKind::Server, after: Some(seconds(60)) };
        (LATENCY, if is_bad { busy } else { Verdict::Delivered })
    };
    let mut world = World::new(3, CONCURRENCY, t, endpoint);
    for id in 0..9000 {
        world.supply.entry(t + millis(100 * id)).or_default().push(batch(id));
    }

    world.run_until(t + seconds(1200));

    // For the first time it is believed.
    let good = (1500..9000).map(|id| world.delivered[&id] - (t + millis(100 * id)));
    let longest = good.max().unwrap();
    println!("a wish: the longest wait is {longest:?}");
    assert!(longest <= seconds(5), "a batch waited {longest:?}");
    assert_eq!(world.delivered.len(), 8999);
}

/// An endpoint, or somebody before it, that stumbles over lists: they are given up.
#[test]
fn lists_that_never_come_through_are_given_up() {
    for kind in [FailureKind::Server, FailureKind::Unverified, FailureKind::Network] {
        let t = logferry::base::clock::now();
        let endpoint = move |_, load: &Load| {
            (LATENCY, if load.is_list() { retry(kind) } else { Verdict::Delivered })
        };
        let mut world = World::new(3, CONCURRENCY, t, endpoint);
        for id in 0..12_000 {
            world.supply.entry(t + millis(20 * id)).or_default().push(small(id));
        }

        world.run_until(t + seconds(600));

        let waits = (0..12_000).map(|id| {
            let at = world.delivered.get(&id).copied().unwrap_or(world.now);
            at - (t + millis(20 * id))
        });
        let longest = waits.max().unwrap();
        let failed = world.started.len() - world.delivered.len();
        println!("{}: the longest wait is {longest:?}, {failed} failed", kind.name());
        assert!(longest <= seconds(10), "{kind:?}: a batch waited {longest:?}");
        assert!(failed <= 100, "{kind:?}: {failed} requests failed");
    }
}

/// One second up, one second down, for ten minutes.
#[test]
fn an_endpoint_that_flaps_makes_progress_and_no_storm() {
    let t = logferry::base::clock::now();
    let endpoint = move |now: Instant, _: &Load| {
        let is_up = (now - t).as_secs().is_multiple_of(2);
        if is_up { (LATENCY, Verdict::Delivered) } else { (millis(1), retry(FailureKind::Network)) }
    };
    let mut world = World::new(5, CONCURRENCY, t, endpoint).with_endless(batch);

    world.run_until(t + seconds(600));

    let (delivered, started) = (world.delivered.len(), world.started.len());
    println!("flapping: {delivered} delivered, {} requests failed", started - delivered);
    assert!(delivered > 600 * 20, "{delivered} delivered");
    assert!(started - delivered < 300 * 12, "{} requests failed", started - delivered);
}

/// While the old lines are caught up with, new ones flow.
#[test]
fn new_lines_flow_while_a_backlog_is_caught_up_with() {
    let t = logferry::base::clock::now();
    let up = t + seconds(600);
    let endpoint = move |now: Instant, _: &Load| {
        let verdict = if now < up { retry(FailureKind::Network) } else { Verdict::Delivered };
        (LATENCY, verdict)
    };
    let mut world = World::new(5, CONCURRENCY, t, endpoint);
    // Ten a second: a sixteenth of what the endpoint takes.
    for id in 0..9000 {
        world.supply.insert(t + millis(100 * id), vec![batch(id)]);
    }

    world.run_until(t + seconds(900));

    let backlog = world.delivered[&5999] - up;
    assert!(backlog <= seconds(30 + 60), "ten minutes are caught up with in {backlog:?}");
    let last = world.delivered[&8999] - (t + millis(899_900));
    assert!(last <= LATENCY, "then nothing waits: {last:?}");
}

proptest! {
    /// Whatever the endpoint does for a while: never more under way than allowed, and once it
    /// behaves each batch ends exactly once and nothing is left.
    #[test]
    fn each_batch_ends_exactly_once(
        seed: u64,
        batches in 1_u64..60,
        concurrency_max in 1_usize..12,
        trouble_seconds in 0_u64..600,
        // Of each ten answers in trouble: these are failures, the next refusals or skews.
        failures in 0_u8..=10,
        small_share in 0_u64..=4,
    ) {
        let t = logferry::base::clock::now();
        let mut dice = fastrand::Rng::with_seed(seed ^ 1);
        let trouble_end = t + seconds(trouble_seconds);
        let kinds = [
            FailureKind::Network,
            FailureKind::Quota,
            FailureKind::ShardQuota,
            FailureKind::Other,
            FailureKind::Credentials,
        ];
        let endpoint = move |now, _: &Load| {
            let took = millis(dice.u64(1..3000));
            let roll = dice.u8(..10);
            let verdict = if now >= trouble_end {
                Verdict::Delivered
            } else if roll < failures {
                let after = (dice.u8(..8) == 0).then(|| seconds(dice.u64(..100)));
                Verdict::Retry { kind: kinds[dice.usize(..5)], after }
            } else {
                let (code, message) = ("PostBodyInvalid".to_owned(), "no".to_owned());
                let refused = Verdict::Refuse(Refusal::Malformed { code, message });
                [Verdict::Delivered, refused][usize::from(dice.bool())].clone()
            };
            (took, verdict)
        };
        let all = (0..batches).map(|id| if id % 4 < small_share { small(id) } else { batch(id) });
        let mut world = World::new(seed, concurrency_max, t, endpoint).with(all);

        world.run_until(trouble_end + seconds(100 + 24 + 3 * batches + 60));

        prop_assert!(world.dispatch.is_empty());
        prop_assert_eq!(world.delivered.len() + world.refused.len(), batches as usize);
    }

    /// While nothing gets through, a minute sees no more than a handful of requests, and they
    /// never end.
    #[test]
    fn no_backlog_makes_a_storm(
        seed: u64,
        batches in 1_u64..300,
        concurrency_max in 1_usize..12,
        latency_millis in 0_u64..2000,
    ) {
        let endpoint =
            move |_, _: &Load| (millis(latency_millis), retry(FailureKind::Network));
        let t = logferry::base::clock::now();
        let all = (0..batches).map(|id| if id % 2 == 0 { small(id) } else { batch(id) });
        let mut world = World::new(seed, concurrency_max, t, endpoint).with(all);

        world.run_until(t + seconds(1200));

        let most = world.most_started_in(seconds(60), t);
        prop_assert!(most <= 14, "{most} requests in a minute");
        let least = 1200 / (PAUSE_MAX.as_secs() as usize + 2);
        prop_assert!(world.started.len() >= least, "{} in 20 minutes", world.started.len());
    }
}
