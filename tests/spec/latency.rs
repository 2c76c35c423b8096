//! How long a line takes from being written to being acknowledged, as `logferry_delivery_seconds`
//! tells it: never less than it was, and not much more. How long it is on which machine stands in
//! `docs/performance.md`.

use std::time::Duration;

use logferry::base::clock;
use logferry_mock::{Fault, Kind};

use crate::support::observe::{append_bytes, get};
use crate::support::{PATIENCE, Pod, append_to, pause, wait_for};

/// The histogram, as its text has it.
#[derive(Debug)]
struct Ages {
    count: u64,
    seconds: f64,
    /// Upper bounds, and how many lines were not older.
    buckets: Vec<(f64, u64)>,
}

impl Ages {
    fn of(address: &str) -> Self {
        let (_, text) = get(address, "/metrics");
        let rest = |prefix: &str| {
            let prefix = format!("logferry_delivery_seconds_{prefix}");
            text.lines().filter_map(|line| line.strip_prefix(&prefix)).collect::<Vec<_>>()
        };
        let bucket = |rest: &str| {
            let (bound, count) = rest.split_once("\"} ").unwrap();
            let bound = if bound == "+Inf" { f64::INFINITY } else { bound.parse().unwrap() };
            (bound, count.parse().unwrap())
        };
        Self {
            count: rest("count ")[0].parse().unwrap(),
            seconds: rest("sum ")[0].parse().unwrap(),
            buckets: rest("bucket{le=\"").into_iter().map(bucket).collect(),
        }
    }

    /// Waits until so many lines have been counted.
    fn wait(address: &str, count: u64) -> Self {
        wait_for("the admin port", || get(address, "/live").0 == 200);
        let started = clock::now();
        loop {
            let ages = Self::of(address);
            if ages.count >= count {
                assert_eq!(ages.count, count, "each line counts once");
                return ages;
            }
            assert!(clock::now() - started < PATIENCE, "{count} lines in vain: {ages:?}");
            pause(Duration::from_millis(20));
        }
    }

    /// How many lines were at most so old.
    fn within(&self, seconds: f64) -> u64 {
        let (_, count) = self.buckets.iter().find(|(bound, _)| *bound == seconds).unwrap();
        *count
    }

    /// A bound that a share of all lines keeps.
    fn quantile(&self, share: f64) -> f64 {
        let wanted = self.count as f64 * share;
        self.buckets.iter().find(|(_, count)| *count as f64 >= wanted).unwrap().0
    }
}

fn serving(pod: &mut Pod) -> String {
    let address = pod.listen();
    pod.set("LOGFERRY_LOG", "warn");
    address
}

/// The lines say when they were written; the endpoint knows when it got them.
#[test]
fn the_histogram_never_says_less_than_it_was() {
    let (mut pod, log) = Pod::with_log();
    let address = serving(&mut pod);
    let mut writer = append_to(&log);
    let agent = pod.start();
    wait_for("readiness", || get(&address, "/ready").0 == 200);
    let mut written = 0;
    for _ in 0..300 {
        let now = clock::wall();
        let lines = format!("{}\n", now.as_nanos()).repeat(5);
        std::io::Write::write_all(&mut writer, lines.as_bytes()).unwrap();
        written += 5;
        pause(Duration::from_millis(10));
    }
    let ages = Ages::wait(&address, written);
    assert_eq!(agent.stop().0, 0);

    let mut taken = Vec::new();
    for group in pod.mock.store().groups() {
        for line in group.logs() {
            let nanos: u64 = String::from_utf8(line.line()).unwrap().parse().unwrap();
            taken.push(group.received.saturating_sub(Duration::from_nanos(nanos)).as_secs_f64());
        }
    }
    assert_eq!(taken.len() as u64, written);
    taken.sort_by(f64::total_cmp);
    let p99 = taken[taken.len() * 99 / 100];
    assert!(ages.quantile(0.99) >= p99, "p99 was {p99}: {ages:?}");
    let seconds: f64 = taken.iter().sum();
    assert!(ages.seconds >= seconds, "all together it was {seconds} s: {ages:?}");
}

#[test]
fn a_slow_answer_and_a_time_without_answers_count() {
    let (mut pod, log) = Pod::with_log();
    let address = serving(&mut pod);
    pod.mock.faults().set(vec![Fault::new(Kind::Delay { ms: 600 })]);
    let agent = pod.start();
    wait_for("readiness", || get(&address, "/ready").0 == 200);
    pod.ledger.append(&log, 50);
    let slow = Ages::wait(&address, 50);
    assert_eq!(slow.within(0.5), 0, "each answer took 0.6 s: {slow:?}");

    let busy = Kind::Error { code: "ServerBusy".to_owned(), status: Some(503), retry_after: None };
    pod.mock.faults().set(vec![Fault::new(busy)]);
    pod.ledger.append(&log, 50);
    pause(Duration::from_millis(2100));
    pod.mock.faults().clear();
    let late = Ages::wait(&address, 100);
    assert_eq!(late.within(2.0), slow.within(2.0), "there was none for 2.1 s: {late:?}");
    assert_eq!(agent.stop().0, 0);
}

/// They wait for others to be delivered, which takes as long as the endpoint is down.
#[test]
fn lines_of_files_that_wait_for_a_descriptor_are_as_old_as_they_are() {
    let (mut pod, log) = Pod::with_log();
    let address = serving(&mut pod);
    pod.mock.faults().set(vec![Fault::error("ServerBusy")]);
    let agent = pod.start_with_descriptors(128);
    wait_for("readiness", || get(&address, "/ready").0 == 200);
    for number in 0..300 {
        pod.ledger.append(&log.with_file_name(format!("{number}.log")), 1);
    }
    pause(Duration::from_millis(2100));
    pod.mock.faults().clear();
    let ages = Ages::wait(&address, 300);
    assert_eq!(ages.within(2.0), 0, "none was delivered for 2.1 s: {ages:?}");
    assert_eq!(agent.stop().0, 0);
}

/// Halves of a batch are as old as the batch: one line of it is refused.
#[test]
fn what_is_taken_apart_is_as_old_as_it_was() {
    let (mut pod, log) = Pod::with_log();
    let address = serving(&mut pod);
    let poison = Fault::new(Kind::Poison { text: "line 00000031".to_owned() });
    pod.mock.faults().set(vec![poison, Fault::new(Kind::Delay { ms: 100 })]);
    let agent = pod.start();
    wait_for("readiness", || get(&address, "/ready").0 == 200);
    pod.ledger.append(&log, 64);
    // The refused line is not delivered; the last of the others came after several answers.
    let ages = Ages::wait(&address, 63);
    assert_eq!(ages.within(0.1), 0, "{ages:?}");
    assert_eq!(agent.stop().0, 0);
}

/// What was on disk counts from the start of the agent, and no further back.
#[test]
fn a_backlog_counts_from_the_start() {
    let (mut pod, log) = Pod::with_log();
    let address = serving(&mut pod);
    pod.ledger.append(&log, 20_000);
    pause(Duration::from_millis(1100));
    let started = clock::now();
    let agent = pod.start();
    let ages = Ages::wait(&address, 20_000);
    let took = (clock::now() - started).as_secs_f64();
    assert!(ages.seconds <= took * 20_000.0, "it took {took} s in all: {ages:?}");
    assert_eq!(agent.stop().0, 0);
}

/// It is not taken for as old as the last look. (The agent may be looking just when one of the five is
/// written.)
#[test]
fn a_lone_line_after_silence_is_as_young_as_it_is() {
    let (mut pod, log) = Pod::with_log();
    let address = serving(&mut pod);
    let agent = pod.start();
    wait_for("readiness", || get(&address, "/ready").0 == 200);
    let mut young = 0;
    for number in 1..=5 {
        pause(Duration::from_millis(1500));
        let before = Ages::of(&address).seconds;
        let written_at = clock::now();
        append_bytes(&log, b"alone\n");
        let after = Ages::wait(&address, number).seconds;
        young += usize::from(after - before <= (clock::now() - written_at).as_secs_f64());
    }
    assert!(young > 0, "each of five lines was taken for older than it was");
    assert_eq!(agent.stop().0, 0);
}

/// A file that is never read to its end while a group is sealed is not taken for ever older: what
/// it got later came later.
#[test]
fn a_busy_file_does_not_age() {
    let (mut pod, log) = Pod::with_log();
    let address = serving(&mut pod);
    let started = clock::now();
    let agent = pod.start();
    let mut written = 0;
    while written < 60_000 {
        pod.ledger.append(&log, 1000);
        written += 1000;
        pause(Duration::from_millis(10));
    }
    let ages = Ages::wait(&address, written);
    let took = (clock::now() - started).as_secs_f64();
    assert!(ages.seconds < took * written as f64, "within {took} s: {ages:?}");
    assert_eq!(agent.stop().0, 0);
}
