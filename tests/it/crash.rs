//! Killed and started again: nothing is lost, and no more is repeated than was in flight.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use logferry::checkpoint::format::{self, Checkpoint};
use logferry::checkpoint::store;
use logferry_mock::{Fault, Kind};

use crate::support::observe::metric;
use crate::support::{Ledger, Pod, Repeats, append_to, pause, wait_for};

/// Many times (30, or `LOGFERRY_KILLS`): a writer at full work, the agent killed at a random moment
/// and started again, with rotations in between. The endpoint loses nothing it has answered; what
/// it stored behind the last checkpoint comes again, and that is in the mean no more than the window
/// lets be in flight.
#[test]
fn c01_thirty_kills_lose_nothing_and_repeat_only_what_was_in_flight() {
    const WINDOW: usize = 2;
    const BATCH_LINES: usize = 200;
    let kills = kills(30);
    let (mut pod, log) = Pod::with_log();
    pod.set("send_request_concurrency", &WINDOW.to_string());
    pod.set("LOGFERRY_BATCH_LINES", &BATCH_LINES.to_string());
    pod.set("LOGFERRY_READ_LINGER", "20ms");
    // Answers take longer than saving what was answered, on a busy machine too.
    pod.mock.faults().set(vec![Fault::new(Kind::Delay { ms: 50 })]);
    let ledger = Arc::new(Mutex::new(Ledger::default()));
    let is_over = Arc::new(AtomicBool::new(false));
    let writer = std::thread::spawn({
        let (ledger, is_over, log) = (Arc::clone(&ledger), Arc::clone(&is_over), log);
        move || {
            let mut rotations = 0;
            let mut file = append_to(&log);
            while !is_over.load(Ordering::Relaxed) {
                ledger.lock().unwrap().write(&mut file, 100);
                if ledger.lock().unwrap().lines.len() % 20_000 == 0 {
                    rotations += 1;
                    fs::rename(&log, log.with_extension(format!("log.{rotations}"))).unwrap();
                    file = append_to(&log);
                }
                pause(Duration::from_millis(20));
            }
        }
    });

    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut repeats = Repeats::default();
    // What was in flight at a kill comes again in the next life; and one batch that was
    // acknowledged and not yet saved.
    let bound = (WINDOW + 1) * BATCH_LINES;
    let mut repeated = Vec::new();
    for _ in 0..kills {
        let agent = pod.start();
        let before = pod.mock.store().line_count();
        pause(Duration::from_millis(rng.u64(50..600)));
        if rng.bool() {
            wait_for("lines to arrive", || pod.mock.store().line_count() > before);
        }
        agent.kill();
        repeated.push(repeats.take(&pod.mock));
    }
    is_over.store(true, Ordering::Relaxed);
    writer.join().unwrap();
    pod.ledger = Arc::into_inner(ledger).unwrap().into_inner().unwrap();
    let agent = pod.start();

    let total = pod.finish(agent);

    repeated.push(repeats.take(&pod.mock));
    let lines = pod.ledger.lines.len();
    println!("{kills} kills, {lines} lines, {total} repeated: {repeated:?}");
    assert_eq!(repeated.iter().sum::<usize>(), total);
    // In the mean: how long the agent is kept from saving what is acknowledged is the machine's
    // affair, and one life may pay for that.
    assert!(total <= bound * repeated.len(), "{repeated:?}, and {bound} a kill could be");
}

/// `LOGFERRY_KILLS`, or so many.
pub(crate) fn kills(default: usize) -> usize {
    let Some(text) = std::env::var_os("LOGFERRY_KILLS") else { return default };
    let number = text.to_str().and_then(|text| text.parse().ok());
    number.unwrap_or_else(|| panic!("LOGFERRY_KILLS is a number, not {text:?}"))
}

#[test]
fn after_a_clean_stop_nothing_is_repeated() {
    let (mut pod, log) = Pod::with_log();
    for _ in 0..5 {
        pod.ledger.append(&log, 300);
        let agent = pod.start();
        pod.expect_all();
        assert_eq!(agent.stop().0, 0);
    }
    assert_eq!(pod.expect_all(), 0);
}
/// The log is put back from a backup, shorter than what was delivered of it, as the same file or
/// another; then it grows: not at all, to less and to more than before. The checkpoint is ahead of
/// it, and what it says of the bytes before its offset is not so any more.
#[test]
fn c07_a_log_that_is_put_back_from_a_backup_is_read_from_its_first_byte() {
    for (is_same_file, grown) in [(true, 0), (true, 100), (true, 500), (false, 100), (false, 500)] {
        let (mut pod, log) = Pod::with_log();
        pod.ledger.append(&log, 300);
        let agent = pod.start();
        assert_eq!(pod.finish(agent), 0);

        let target = if is_same_file { log.clone() } else { pod.path("restored") };
        pod.ledger.write_again(&mut File::create(&target).unwrap(), 0..100);
        fs::rename(&target, &log).unwrap();
        pod.ledger.append(&log, grown);
        let agent = pod.start();

        assert_eq!(pod.finish(agent), 0, "the same file: {is_same_file}, {grown} lines more");
    }
}

/// The state directory is put back from a backup, older than the log.
#[test]
fn c07_a_state_directory_that_is_put_back_repeats_what_came_since() {
    let (mut pod, log) = Pod::with_log();
    let deliver = |pod: &mut Pod, lines| {
        pod.ledger.append(&log, lines);
        let agent = pod.start();
        pod.finish(agent)
    };
    let (state, backup) = (pod.path("state"), pod.path("backup"));
    let copy = |from: &Path, to: &Path| {
        let copied = Command::new("cp").arg("-a").args([from, to]).status();
        assert!(copied.unwrap().success());
    };

    assert_eq!(deliver(&mut pod, 100), 0);
    copy(&state, &backup);
    assert_eq!(deliver(&mut pod, 50), 0);
    fs::remove_dir_all(&state).unwrap();
    copy(&backup, &state);

    assert_eq!(deliver(&mut pod, 25), 50);
    assert_eq!(deliver(&mut pod, 25), 50, "and no more");
}

/// 100,000 files that were not seen for days, and one that was: it is known among them, most of them
/// are forgotten, and what is saved often is not so much.
#[test]
fn c06_a_hundred_thousand_checkpoints_are_no_burden() {
    const SAVED: u64 = 100_000;
    let (mut pod, log) = Pod::with_log();
    let address = pod.listen();
    pod.set("LOGFERRY_BATCH_LINES", "10").set("LOGFERRY_BATCH_LINGER", "10ms");
    pod.set("LOGFERRY_READ_LINGER", "5ms");
    pod.ledger.append(&log, 100);
    let agent = pod.start();
    assert_eq!(pod.finish(agent), 0);
    let known = store::peek(&pod.path("state")).checkpoints.remove(0);
    let gone = |number: u64| Checkpoint {
        path: format!("/gone/{number}.log").into(),
        resolved: format!("/gone/{number}.log").into(),
        inode: u64::MAX - number,
        seen_unix: known.seen_unix - 2 * 24 * 3600 - number % 1000,
        ..known.clone()
    };
    let mut all: Vec<Checkpoint> = (1..SAVED).map(gone).collect();
    all.push(known.clone());
    let now = pod.path("state/checkpoint.now");
    fs::write(&now, format::encode(1 << 40, &all)).unwrap();

    let agent = pod.start();
    for _ in 0..300 {
        pod.ledger.append(&log, 10);
        pause(Duration::from_millis(10));
    }
    pod.expect_all();
    let batches = pod.mock.store().groups().len() as u64;
    let saves = metric(&address, "logferry_checkpoint_saves_total").unwrap();

    assert_eq!(pod.finish(agent), 0, "it was known");
    let left = store::peek(&pod.path("state")).checkpoints.len();
    assert!((2..=10_001).contains(&left), "{left} are saved");
    println!("{saves} saves for {batches} batches");
    assert!(saves * 3 < batches, "{saves} saves for {batches} batches");
}

/// More files than are kept of those that are gone: each is known again.
#[test]
fn c06_as_many_files_as_there_are_at_the_end_are_known_again() {
    const FILES: usize = 10_500;
    let (mut pod, log) = Pod::with_log();
    pod.set("LOGFERRY_LOG", "warn");
    for number in 0..FILES {
        pod.ledger.append(&log.with_file_name(format!("{number}.log")), 1);
    }
    let agent = pod.start();
    pod.await_records(FILES);
    assert_eq!(pod.finish(agent), 0);
    for number in (0..FILES).step_by(100) {
        pod.ledger.append(&log.with_file_name(format!("{number}.log")), 1);
    }

    let agent = pod.start();

    pod.await_records(pod.ledger.lines.len());
    assert_eq!(pod.finish(agent), 0, "nothing comes twice");
}

/// 60 MB wait at the restart, in a file and in what it was rotated to, and the limit is 40 MB.
#[test]
fn c11_a_backlog_larger_than_the_memory_does_not_grow_it() {
    let (mut pod, log) = Pod::with_log();
    pod.set("mem_usage_limit", "40").set("LOGFERRY_COMPRESSION", "none");
    pod.ledger.append(&log, 100);
    let agent = pod.start();
    pod.expect_all();
    pod.mock.stop();
    for generation in 1..=4 {
        while pod.ledger.bytes() < generation * (15 << 20) {
            pod.ledger.append(&log, 20_000);
        }
        let before = pod.rotations_seen();
        fs::rename(&log, log.with_extension(format!("log.{generation}"))).unwrap();
        wait_for("the rotation to be seen", || pod.rotations_seen() > before);
    }
    agent.kill();
    pod.ledger.append(&log, 100);
    pod.mock.resume().unwrap();

    let agent = pod.start();

    pod.expect_all();
    let peak = agent.resident_bytes_peak() >> 20;
    println!("{peak} MB at most");
    assert!(peak < 60, "{peak} MB resident");
    pod.finish(agent);
}
