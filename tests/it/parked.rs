//! `logferry parked`: what the service refused for good is looked at, sent again, or removed.

use std::fs;
use std::io::Write as _;

use logferry_mock::{Access, Fault, Kind};
use serde_json::Value;

use crate::support::{Agent, Pod, append_to, run, wait_for};

impl Pod {
    /// The pieces that are set aside, as `logferry parked list --json` has them.
    pub(crate) fn parked(&self) -> Vec<Value> {
        let (code, out, complaint) = run(&["parked", "list", "--json"], &self.environment());
        assert_eq!(code, 0, "{complaint}");
        let listed: Value = serde_json::from_str(&out).unwrap();
        assert_eq!(listed["damaged"], Value::Array(Vec::new()));
        listed["pieces"].as_array().unwrap().clone()
    }
}

pub(crate) fn id(piece: &Value) -> &str {
    piece["id"].as_str().unwrap()
}

/// Three lines are set aside, under a running agent: `bad 0`, `bad 1`, `bad 2`.
fn with_three() -> (Pod, Agent) {
    let (mut pod, log) = Pod::with_log();
    pod.mock.faults().set(vec![Fault::new(Kind::Poison { text: "bad ".to_owned() })]);
    let agent = pod.start();
    for number in 0..3 {
        append_to(&log).write_all(format!("bad {number}\n").as_bytes()).unwrap();
        wait_for("it to be set aside", || pod.parked().len() == number + 1);
    }
    pod.ledger.append(&log, 10);
    pod.expect_all();
    (pod, agent)
}

fn arrived(pod: &Pod) -> Vec<String> {
    let text = |line: Vec<u8>| String::from_utf8(line).unwrap();
    let lines = pod.mock.store().lines().into_iter().map(text);
    lines.filter(|line| line.starts_with("bad")).collect()
}

#[test]
fn a_list_says_what_there_is_beside_an_agent_and_after_it() {
    let (pod, agent) = with_three();

    for _ in 0..2 {
        let (code, text, _) = run(&["parked", "list"], &pod.environment());
        assert_eq!(code, 0);
        let rows: Vec<&str> = text.lines().filter(|row| row.contains("PostBodyInvalid")).collect();
        assert_eq!(rows.len(), 3, "{text}");
        let path = pod.path("share/logs/app.log").display().to_string();
        assert!(rows.iter().all(|row| row.contains("test-project/app-log") && row.contains(&path)));
        agent.terminate();
    }
    assert_eq!(agent.exit_code(), 0);
}

#[test]
fn without_anything_set_aside_all_of_it_is_done() {
    let pod = Pod::new();
    for (args, says) in [
        (vec!["parked", "list"], "nothing is set aside"),
        (vec!["parked", "replay"], "0 delivered, 0 left"),
        (vec!["parked", "drop", "--all"], "0 dropped"),
    ] {
        let (code, out, complaint) = run(&args, &pod.environment());
        assert_eq!(code, 0, "{args:?}: {complaint}");
        assert!(out.contains(says), "{args:?}: {out}");
    }
    assert!(!pod.path("state").exists(), "looking makes nothing");
}

#[test]
fn show_says_why_and_shows_the_lines_escaped() {
    let (pod, log) = Pod::with_log();
    pod.mock.faults().set(vec![Fault::new(Kind::Poison { text: "bad".to_owned() })]);
    let agent = pod.start();
    append_to(&log).write_all(b"bad \x1b[2J \xff\n").unwrap();
    wait_for("it to be set aside", || pod.parked().len() == 1);

    let pieces = pod.parked();
    let (code, text, _) = run(&["parked", "show", id(&pieces[0])], &pod.environment());

    assert_eq!(code, 0);
    for part in [
        r"bad \u{1b}[2J \xff",
        "PostBodyInvalid: ",
        "project test-project, logstore app-log",
        "collection    default",
        "tag           __path__=",
    ] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    assert_eq!(agent.stop().0, 0);
}

/// Those that are named, then the rest; what is refused again stays.
#[test]
fn replay_removes_what_is_delivered_and_keeps_the_rest() {
    let (pod, agent) = with_three();
    let pieces = pod.parked();
    let (first, last) = (id(&pieces[0]), id(&pieces[2]));
    pod.mock.faults().set(vec![Fault::new(Kind::Poison { text: "bad 2".to_owned() })]);

    let (code, said, _) = run(&["parked", "replay", first], &pod.environment());
    assert_eq!(code, 0, "{said}");
    assert_eq!(arrived(&pod), ["bad 0"]);
    let (code, said, _) = run(&["parked", "replay"], &pod.environment());

    assert_eq!(code, 75, "{said}");
    assert!(said.contains(&format!("{last}: refused again: PostBodyInvalid")), "{said}");
    assert!(said.contains(&format!("left: {last}")), "{said}");
    assert_eq!(arrived(&pod), ["bad 0", "bad 1"]);
    assert_eq!(pod.parked().len(), 1);
    assert_eq!(agent.stop().0, 0);
}

#[test]
fn replay_tries_again_what_may_pass_and_then_says_what_is_left() {
    let (mut pod, agent) = with_three();
    assert_eq!(agent.stop().0, 0);
    let busy = Fault { times: Some(2), ..Fault::error("ServerBusy") };
    pod.mock.faults().set(vec![busy]);
    let pieces = pod.parked();
    let (code, said, _) = run(&["parked", "replay", id(&pieces[0])], &pod.environment());
    assert_eq!(code, 0, "{said}");

    pod.mock.stop();
    let (code, said, _) = run(&["parked", "replay"], &pod.environment());

    assert_eq!(code, 75, "{said}");
    let both = format!("left: {} {}", id(&pieces[1]), id(&pieces[2]));
    assert!(said.contains(&both) && said.contains("LOGFERRY_ENDPOINT"), "{said}");
    assert_eq!(pod.parked().len(), 2);
}

/// What a person must repair first is not tried again and again.
#[test]
fn replay_says_what_to_repair() {
    let (pod, agent) = with_three();
    assert_eq!(agent.stop().0, 0);
    pod.mock.faults().clear();
    let key = "other-id:other-secret".parse().unwrap();
    pod.mock.set_access(Access { keys: vec![key], ..Access::default() });
    let before = pod.mock.store().counts().requests;

    let (code, said, _) = run(&["parked", "replay"], &pod.environment());

    assert_eq!(code, 75, "{said}");
    assert!(said.contains("ALIBABA_CLOUD_ACCESS_KEY_ID"), "{said}");
    assert!(!said.contains("test-access-key-secret"));
    assert_eq!(pod.mock.store().counts().requests, before + 1, "one attempt for all of them");
    assert_eq!(pod.parked().len(), 3);
}

/// An agent that is now configured for another logstore does not bring the old one's lines there.
#[test]
fn replay_sends_to_where_it_was_meant_to_go() {
    let (mut pod, agent) = with_three();
    assert_eq!(agent.stop().0, 0);
    pod.mock.faults().clear();
    pod.set("LOGFERRY_LOGSTORE", "another");

    let (code, said, _) = run(&["parked", "replay"], &pod.environment());

    assert_eq!(code, 0, "{said}");
    assert_eq!(arrived(&pod).len(), 3);
    let groups = pod.mock.store().groups();
    assert!(groups.iter().all(|group| group.logstore == "app-log"));
}

#[test]
fn drop_removes_what_is_named_and_nothing_else() {
    let (pod, agent) = with_three();
    let pieces = pod.parked();

    let (code, said, _) = run(&["parked", "drop", id(&pieces[1])], &pod.environment());
    assert_eq!((code, said.contains("1 dropped")), (0, true), "{said}");
    let left = pod.parked();
    assert_eq!([id(&left[0]), id(&left[1])], [id(&pieces[0]), id(&pieces[2])]);
    assert_eq!(run(&["parked", "drop", "--all"], &pod.environment()).0, 0);
    assert!(pod.parked().is_empty());
    assert_eq!(agent.stop().0, 0);
}

#[test]
fn an_id_that_is_none_is_wrong_usage_and_does_nothing() {
    let (pod, agent) = with_three();
    let good = pod.parked();
    for command in ["show", "replay", "drop"] {
        for wrong in ["1-2-3", "../../agent", "*"] {
            let (code, _, complaint) = run(&["parked", command, wrong], &pod.environment());
            assert_eq!(code, 64, "{command} {wrong}");
            assert!(complaint.contains("logferry parked list"), "{complaint}");
        }
        if command != "show" {
            let args = ["parked", command, id(&good[0]), "1-2-3"];
            assert_eq!(run(&args, &pod.environment()).0, 64);
        }
    }
    assert_eq!(pod.parked().len(), 3, "not even those that there are");
    assert_eq!(agent.stop().0, 0);
}

/// A damaged file is named; the others are dealt with.
#[test]
fn a_damaged_piece_is_named_and_stops_no_other() {
    let (pod, agent) = with_three();
    assert_eq!(agent.stop().0, 0);
    pod.mock.faults().clear();
    let pieces = pod.parked();
    let damaged = id(&pieces[0]);
    let file = pod.path("state/parked").join(format!("{damaged}.batch"));
    let bytes = fs::read(&file).unwrap();
    fs::write(&file, &bytes[..bytes.len() - 1]).unwrap();

    let (code, text, _) = run(&["parked", "list"], &pod.environment());
    assert_eq!(code, 0);
    assert!(text.contains(&format!("damaged: {}: ", file.display())), "{text}");
    let (code, _, complaint) = run(&["parked", "show", damaged], &pod.environment());
    assert_eq!(code, 73, "{complaint}");
    assert!(complaint.contains(&file.display().to_string()), "{complaint}");
    let (code, said, _) = run(&["parked", "replay"], &pod.environment());
    assert_eq!(code, 75, "{said}");
    assert!(said.contains("2 delivered, 1 left"), "{said}");
    assert_eq!(run(&["parked", "drop", damaged], &pod.environment()).0, 0);
    assert!(!file.exists());
}
