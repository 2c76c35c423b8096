//! The admin port, and `logferry status` with and without an agent.

use crate::support::observe::get;
use crate::support::{Agent, Pod, run, wait_for};

fn served_pod() -> (Pod, Agent, String) {
    let (mut pod, log) = Pod::with_log();
    let address = pod.listen();
    pod.ledger.append(&log, 100);
    let agent = pod.start();
    (pod, agent, address)
}

#[test]
fn says_that_it_is_alive_and_ready() {
    let (pod, agent, address) = served_pod();
    wait_for("readiness", || get(&address, "/ready").0 == 200);
    assert_eq!(get(&address, "/live").0, 200);
    assert_eq!(get(&address, "/nowhere").0, 404);

    // Draining: alive, no longer ready.
    let mut pod = pod;
    pod.mock.stop();
    let log = pod.path("data/pod/logs/app.log");
    pod.ledger.append(&log, 100);
    agent.terminate();
    wait_for("unreadiness", || get(&address, "/ready").0 == 503);
    assert_eq!(get(&address, "/live").0, 200);
    agent.terminate();
    assert_eq!(agent.exit_code(), 75);
}

#[test]
fn metrics_and_status_tell_what_was_delivered() {
    let (pod, agent, address) = served_pod();
    pod.expect_all();
    wait_for("the metrics to say so", || {
        get(&address, "/metrics").1.contains("\nlogferry_delivered_lines_total 100\n")
    });
    let size = pod.ledger.bytes();
    let status =
        || -> serde_json::Value { serde_json::from_str(&get(&address, "/status").1).unwrap() };
    wait_for("the status to say so", || status()["files"][0]["acked_offset"] == size);
    let status = status();
    assert_eq!(status["files"][0]["path"], pod.path("share/logs/app.log").display().to_string());
    assert_eq!(
        (&status["files"][0]["size"], &status["files"][0]["lag_bytes"]),
        (&size.into(), &0.into())
    );
    assert!(!status.to_string().contains("test-access-key-secret"));
    assert_eq!(agent.stop().0, 0);
}

#[test]
fn status_asks_the_agent_or_reads_the_state_directory() {
    let (pod, agent, _) = served_pod();
    pod.expect_all();
    let size = pod.ledger.bytes();
    let path = pod.path("share/logs/app.log").display().to_string();
    let json = || -> serde_json::Value {
        let (code, out, complaint) = run(&["status", "--json"], &pod.environment());
        assert_eq!(code, 0, "{complaint}");
        serde_json::from_str(&out).unwrap()
    };
    wait_for("the agent to say so", || json()["files"][0]["acked_offset"] == size);
    assert_eq!(json()["files"][0]["state"], "active");
    let (_, text, _) = run(&["status"], &pod.environment());
    assert!(text.contains(&path), "{text}");

    assert_eq!(agent.stop().0, 0);
    let saved = json();
    assert_eq!(saved["files"][0]["state"], "saved");
    assert_eq!(
        (&saved["files"][0]["path"], &saved["files"][0]["acked_offset"]),
        (&path.into(), &size.into())
    );
}
