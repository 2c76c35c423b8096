//! Two agents at one directory (F34): one state directory has one agent, and what belongs to two
//! comes once.

use std::fs;

use crate::support::observe::get;
use crate::support::{Agent, Pod, wait_for};

const WAITING: &str = "another agent uses the state directory; waiting for it to end";

/// The new pod's agent starts while the old one still runs: it ships nothing, says why, and takes
/// over when the old one is gone, however that went.
#[test]
fn f34_a_second_agent_waits_its_turn() {
    for is_killed in [false, true] {
        let (mut pod, log) = Pod::with_log();
        pod.ledger.append(&log, 500);
        let old = pod.start();
        pod.expect_all();
        let address = pod.listen();
        pod.set("LOGFERRY_DRAIN_DEADLINE", "10m");

        let new = pod.start();
        pod.wait_for_log(WAITING, 1);
        wait_for("the port", || get(&address, "/live").0 == 200);
        let (code, reason) = get(&address, "/ready");
        assert!(code == 503 && reason.contains("another agent"), "{code} {reason}");
        let (_, status) = get(&address, "/status");
        assert!(status.contains("another agent") && status.contains("\"errors\":[]"), "{status}");
        pod.ledger.append(&log, 100);
        pod.expect_all();
        assert!(!new.open_paths().contains(&log.display().to_string()));
        if is_killed {
            old.kill();
        } else {
            assert_eq!(old.stop().0, 0);
        }
        pod.ledger.append(&log, 100);

        let repeats = pod.finish(new);
        // Killed between an answer and its save, a batch comes again.
        assert!(repeats <= if is_killed { 100 } else { 0 }, "{repeats} lines came again");
        assert_eq!(pod.times_logged(WAITING), 1, "{}", pod.agent_log());
    }
}

/// It waits as long as a drain may take, and no longer: the old one never ends.
#[test]
fn f34_a_second_agent_gives_up() {
    let (mut pod, log) = Pod::with_log();
    pod.ledger.append(&log, 500);
    let old = pod.start();
    pod.expect_all();
    pod.set("LOGFERRY_DRAIN_DEADLINE", "1s");

    let new = pod.start();

    assert_eq!(new.exit_code(), 73, "{}", pod.agent_log());
    assert!(pod.agent_log().contains(&pod.path("state").display().to_string()));
    pod.ledger.append(&log, 100);
    assert_eq!(pod.finish(old), 0);
}

/// Told to end while it waits, it does: what is there is the other's to deliver.
#[test]
fn f34_a_second_agent_that_is_stopped_does_not_wait() {
    let (mut pod, log) = Pod::with_log();
    pod.ledger.append(&log, 500);
    let old = pod.start();
    pod.expect_all();
    pod.set("LOGFERRY_DRAIN_DEADLINE", "1h");
    let new = pod.start();
    pod.wait_for_log(WAITING, 1);

    assert_eq!(new.stop().0, 73, "{}", pod.agent_log());
    assert_eq!(pod.finish(old), 0);
}

/// Started at the same moment, many times over: one of them ships.
#[test]
fn f34_of_agents_that_start_at_once_one_ships() {
    let (mut pod, log) = Pod::with_log();
    pod.set("LOGFERRY_DRAIN_DEADLINE", "10s");
    pod.ledger.append(&log, 500);
    let agents: Vec<Agent> = (0..5).map(|_| pod.start()).collect();
    pod.expect_all();
    wait_for("the others to give up", || pod.times_logged("the agent does not start") >= 4);
    let mut codes: Vec<i32> = agents.into_iter().map(|agent| agent.stop().0).collect();
    codes.sort_unstable();

    assert_eq!(codes, [0, 73, 73, 73, 73], "{}", pod.agent_log());
    assert_eq!(pod.ledger.check(&pod.mock), 0);
}

/// Two pods of a node share the directory above their logs; each agent has its own patterns and
/// its own state.
#[test]
fn f34_two_agents_with_states_of_their_own_ship_their_own() {
    let mut pod = Pod::new();
    let mut agents = Vec::new();
    for name in ["one", "two"] {
        fs::create_dir_all(pod.path("share").join(name)).unwrap();
        let log = pod.path("share").join(name).join("app.log");
        pod.ledger.append(&log, 300);
        pod.patterns(&[&format!("share/{name}/*.log")]);
        let state = pod.path(&format!("state-{name}")).display().to_string();
        pod.set("LOGFERRY_STATE_DIR", &state);
        agents.push(pod.start());
    }
    pod.expect_all();
    for agent in agents {
        assert_eq!(agent.stop().0, 0);
    }

    assert_eq!(pod.ledger.check(&pod.mock), 0);
    let paths = ["share/one/app.log".to_owned(), "share/two/app.log".to_owned()];
    assert_eq!(pod.shipped_paths(), paths.into());
}
