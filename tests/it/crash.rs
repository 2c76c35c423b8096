//! Killed and started again: nothing is lost, and no more is repeated than was in flight.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::support::{Ledger, Pod, Repeats, append_to, pause, wait_for};

/// 30 times: a writer at full work, the agent killed at a random moment and started again, with
/// rotations in between. The endpoint loses nothing it has answered; what it stored behind the last
/// checkpoint comes again, and that is at most what the window lets be in flight.
#[test]
fn thirty_kills_lose_nothing_and_repeat_only_what_was_in_flight() {
    const KILLS: usize = 30;
    const WINDOW: usize = 2;
    const BATCH_LINES: usize = 200;
    let (mut pod, log) = Pod::with_log();
    pod.set("send_request_concurrency", &WINDOW.to_string());
    pod.set("LOGFERRY_BATCH_LINES", &BATCH_LINES.to_string());
    pod.set("LOGFERRY_READ_LINGER", "20ms");
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
                pause(Duration::from_millis(10));
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
    for _ in 0..KILLS {
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
    println!("{} lines, {total} repeated: {repeated:?}", pod.ledger.lines.len());
    assert_eq!(repeated.iter().sum::<usize>(), total);
    assert!(repeated.iter().all(|&lines| lines <= bound), "{repeated:?}, and {bound} could be");
}

/// Each of the files that hold checkpoints is damaged in turn; an older one is used.
#[test]
fn a_damaged_checkpoint_costs_repeats_and_no_loss() {
    let (mut pod, log) = Pod::with_log();
    for name in ["checkpoint.now", "checkpoint.0", "checkpoint.1"] {
        pod.ledger.append(&log, 200);
        let agent = pod.start();
        pod.expect_all();
        agent.kill();
        let path = pod.path("state").join(name);
        if let Ok(bytes) = fs::read(&path) {
            fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
        }
    }
    pod.ledger.append(&log, 200);
    let agent = pod.start();

    pod.expect_all();
    assert!(pod.agent_log().contains("a checkpoint file is damaged"));
    assert_eq!(agent.stop().0, 0);
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
