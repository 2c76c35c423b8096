//! Sidecars that live longer or shorter than their app: started before it (P06), and in the pod of
//! a job, which ends when all its containers do (P07).

use std::fs;
use std::time::Duration;

use logferry::clock;
use logferry::mock::{Fault, Kind};

use crate::support::{Agent, Pod, pause, wait_for};

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
