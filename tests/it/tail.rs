//! Which files are read with little: a large backlog, no watches, few descriptors.

use crate::support::{Pod, wait_for};

#[test]
fn a_backlog_of_100_mb_is_read_from_its_first_byte() {
    let (mut pod, log) = Pod::with_log();
    while pod.ledger.bytes() < 100 << 20 {
        pod.ledger.append(&log, 20_000);
    }
    let agent = pod.start();

    assert_eq!(pod.expect_all(), 0);
    assert!(agent.resident_bytes() < 384 << 20, "{} bytes resident", agent.resident_bytes());
    assert_eq!(agent.stop().0, 0);
}

/// The limit of inotify instances is used up: the agent says so and polls.
#[test]
fn polls_when_no_watch_can_be_had() {
    let mut pod = Pod::new();
    let Some(agent) = pod.start_without_inotify() else { return };
    wait_for("the agent's start", || pod.agent_log().contains("logferry starts"));
    pod.link("data/pod/logs");
    let log = pod.path("data/pod/logs/app.log");
    for _ in 0..3 {
        pod.ledger.append(&log, 10);
        assert_eq!(pod.expect_all(), 0);
    }

    assert!(pod.agent_log().contains("polling files each second"), "{}", pod.agent_log());
    assert_eq!(pod.finish(agent), 0);
}

/// With fewer descriptors than files some files wait, and the others arrive.
#[test]
fn more_files_than_descriptors_do_not_stop_the_rest() {
    let mut pod = Pod::new();
    pod.link("data/pod/logs");
    for number in 0..200 {
        pod.ledger.append(&pod.path(&format!("data/pod/logs/{number:03}.log")), 1);
    }
    let agent = pod.start_with_descriptors(128);

    wait_for("what fits", || pod.mock.store().line_count() >= 50);
    assert!(pod.agent_log().contains("RLIMIT_NOFILE"), "{}", pod.agent_log());
    drop(agent);
}
