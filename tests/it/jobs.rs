//! Sidecars that live longer or shorter than their app: started before it (P06), and in the pod of
//! a job, which ends when all its containers do (P07), with the unfinished lines of its app (P08).

use std::fs;
use std::time::Duration;

use logferry::base::clock;
use logferry_mock::{Fault, Kind};

use crate::support::{Agent, Pod, append_unfinished, pause, wait_for};

/// Kubernetes starts it before the app, waits until it is ready, and tells it to stop after the app
/// has ended.
#[test]
fn p06_a_native_sidecar_is_ready_before_its_app_and_delivers_after_it() {
    let mut pod = Pod::new();
    let admin = pod.admin();
    let started = clock::now();
    let agent = pod.start();
    admin.wait_until_ready();
    println!("ready after {:?}", clock::now() - started);
    assert!(!pod.path("share/logs").exists(), "and there is no directory yet");

    pod.link("data/pod/logs");
    let log = pod.path("data/pod/logs/app.log");
    pod.ledger.append(&log, 500);
    // The app has ended, all at once.
    let (code, _) = agent.stop();

    assert_eq!(code, 0, "{}", pod.agent_log());
    assert_eq!(pod.ledger.missing(&pod.mock), Vec::<&str>::new());
    assert_eq!(pod.ledger.check(&pod.mock), 0);
}

/// A pod whose agent ends when `share/done` is there, its log, and that path.
fn job() -> (Pod, std::path::PathBuf, std::path::PathBuf) {
    let (mut pod, log) = Pod::with_log();
    let done = pod.path("share/done");
    pod.set("LOGFERRY_EXIT_WHEN", done.to_str().unwrap());
    (pod, log, done)
}

fn expect_done(pod: &Pod, agent: Agent) {
    assert_eq!(agent.exit_code(), 0, "{}", pod.agent_log());
    assert_eq!(pod.ledger.missing(&pod.mock), Vec::<&str>::new());
    assert_eq!(pod.ledger.check(&pod.mock), 0);
    assert!(pod.agent_log().contains("stopped: everything was delivered"));
}

/// The app writes its last line, then the file.
#[test]
fn p07_it_ends_when_the_file_appears() {
    let (mut pod, log, done) = job();
    let mut agent = pod.start();
    pod.ledger.append(&log, 500);
    pod.expect_all();
    assert!(!agent.has_ended());

    pod.ledger.append(&log, 500);
    fs::write(&done, "").unwrap();

    expect_done(&pod, agent);
    assert!(pod.agent_log().contains("what LOGFERRY_EXIT_WHEN names is there"));
}

/// The app was faster: it has ended before the agent starts.
#[test]
fn p07_a_file_that_is_there_at_the_start_counts() {
    let (mut pod, log, done) = job();
    pod.ledger.append(&log, 500);
    fs::write(&done, "").unwrap();

    let agent = pod.start();

    expect_done(&pod, agent);
}

/// Nobody waits for it, so it takes as long as it takes: here longer than a drain after a signal may.
#[test]
fn p07_the_drain_deadline_is_for_signals() {
    let (mut pod, log, done) = job();
    pod.set("LOGFERRY_DRAIN_DEADLINE", "1s");
    pod.mock.stop();
    pod.ledger.append(&log, 500);
    fs::write(&done, "").unwrap();
    let mut agent = pod.start();
    pod.wait_for_log("what LOGFERRY_EXIT_WHEN names is there", 1);

    pause(Duration::from_secs(3));
    assert!(!agent.has_ended(), "{}", pod.agent_log());
    pod.mock.resume().unwrap();

    expect_done(&pod, agent);
}

/// The node is drained while the job's rest is delivered: from then on there is a deadline.
#[test]
fn p07_a_signal_meanwhile_begins_the_deadline() {
    let (mut pod, log, done) = job();
    pod.set("LOGFERRY_DRAIN_DEADLINE", "2s");
    pod.mock.stop();
    pod.ledger.append(&log, 500);
    fs::write(&done, "").unwrap();
    let agent = pod.start();
    pod.wait_for_log("what LOGFERRY_EXIT_WHEN names is there", 1);

    agent.terminate();

    assert_eq!(agent.exit_code(), 75, "{}", pod.agent_log());
    pod.mock.resume().unwrap();
    let agent = pod.start();
    expect_done(&pod, agent);
}

/// The app has ended, and some of its logs with a line that has no end: one of them is longer than a
/// record may be. They are sent at once, for no next start would.
#[test]
fn p08_unfinished_last_lines_are_sent_before_the_end() {
    for (once, quiet) in [("false", "0s"), ("false", "1s"), ("true", "0s")] {
        let (mut pod, log, done) = job();
        pod.set("LOGFERRY_PARTIAL_LINE_TIMEOUT", "1h").set("LOGFERRY_LINE_BYTES_MAX", "1KiB");
        pod.set("LOGFERRY_EXACTLY_ONCE", once).set("LOGFERRY_DRAIN_QUIET", quiet);
        let agent = pod.start();
        for number in 0..40 {
            let log = log.with_file_name(format!("{number:02}.log"));
            pod.ledger.append(&log, number % 3);
            append_unfinished(&mut pod, &log, &[&format!("the last words of {number:02}")]);
        }
        let pieces = ['x', 'y', 'z'].map(|letter| letter.to_string().repeat(1 << 10));
        append_unfinished(&mut pod, &log, &pieces.each_ref().map(String::as_str));
        fs::write(&done, "").unwrap();

        expect_done(&pod, agent);
    }
}

/// The signal came first; the app makes the file, as its last act, during the drain.
#[test]
fn p08_a_file_that_appears_during_the_drain_ends_unfinished_lines() {
    let (mut pod, log, done) = job();
    pod.set("LOGFERRY_PARTIAL_LINE_TIMEOUT", "1h").set("LOGFERRY_DRAIN_DEADLINE", "60s");
    pod.mock.stop();
    pod.ledger.append(&log, 500);
    append_unfinished(&mut pod, &log, &["the last words"]);
    let agent = pod.start();
    agent.terminate();
    pod.wait_for_log("stopping: delivering", 1);
    fs::write(&done, "").unwrap();
    pod.mock.resume().unwrap();

    expect_done(&pod, agent);
}

/// It is not ready while it ends, and it is alive.
#[test]
fn p07_probes_see_that_it_is_ending() {
    let (mut pod, log, done) = job();
    let admin = pod.admin();
    pod.ledger.append(&log, 500);
    let agent = pod.start();
    admin.wait_until_ready();
    pod.mock.faults().set(vec![Fault::new(Kind::Hang)]);
    pod.ledger.append(&log, 500);

    fs::write(&done, "").unwrap();

    wait_for("it to be unready", || !admin.is_ready());
    assert!(admin.status().is_object());
    agent.kill();
}
