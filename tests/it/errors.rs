//! Errors of the endpoint: what a person could repair is tried for ever, what is malformed is set
//! aside.

use std::fs;
use std::time::Duration;

use logferry::mock::{Access, Fault, Kind};

use crate::support::{Pod, pause, wait_for};

/// Each error lasts for some requests; nothing is dropped, nothing comes twice.
#[test]
fn errors_that_pass_lose_nothing() {
    for code in [
        "InternalServerError",
        "ServerBusy",
        "WriteQuotaExceed",
        "ShardWriteQuotaExceed",
        "Unauthorized",
        "SignatureNotMatch",
        "ProjectNotExist",
        "LogStoreNotExist",
        "ParameterInvalid",
        "SomethingNobodyKnows",
    ] {
        let (mut pod, log) = Pod::with_log();
        pod.ledger.append(&log, 500);
        let mut fault = Fault::error(code);
        fault.times = Some(2);
        pod.mock.faults().set(vec![fault]);
        let agent = pod.start();
        pod.expect_all();
        assert!(!pod.path("state/parked").exists(), "{code}");
        assert!(pod.agent_log().contains(code), "{code} is named:\n{}", pod.agent_log());
        assert_eq!(pod.finish(agent), 0, "{code}");
    }
}

#[test]
fn a_connection_cut_before_the_request_is_stored_loses_and_repeats_nothing() {
    let (mut pod, log) = Pod::with_log();
    pod.ledger.append(&log, 500);
    pod.mock.faults().set(vec![Fault { times: Some(2), ..Fault::new(Kind::CutBefore) }]);
    let agent = pod.start();
    assert_eq!(pod.finish(agent), 0);
}

#[test]
fn a_lost_reply_repeats_a_batch_and_loses_nothing() {
    let (mut pod, log) = Pod::with_log();
    pod.ledger.append(&log, 500);
    pod.mock.faults().set(vec![Fault { times: Some(1), ..Fault::new(Kind::CutAfter) }]);
    let agent = pod.start();
    assert_eq!(pod.finish(agent), 500, "the batch whose reply was lost came again");
}

/// A captive portal answers 200 to everything.
#[test]
fn a_200_of_somebody_else_is_no_acknowledgement() {
    let (mut pod, log) = Pod::with_log();
    pod.ledger.append(&log, 500);
    pod.mock.faults().set(vec![Fault { times: Some(2), ..Fault::new(Kind::CaptivePortal) }]);
    let agent = pod.start();
    assert_eq!(pod.finish(agent), 0);
}

#[test]
fn what_is_refused_as_malformed_is_set_aside_and_the_rest_goes_on() {
    let (mut pod, log) = Pod::with_log();
    pod.set("LOGFERRY_BATCH_LINES", "100").set("send_request_concurrency", "1");
    pod.ledger.append(&log, 1000);
    pod.mock.faults().set(vec![Fault { times: Some(1), ..Fault::error("PostBodyInvalid") }]);
    let agent = pod.start();
    wait_for("the other nine batches", || pod.mock.store().line_count() >= 900);
    assert_eq!(agent.stop().0, 0, "what is set aside is not undelivered");

    let parked: Vec<_> = fs::read_dir(pod.path("state/parked")).unwrap().flatten().collect();
    assert_eq!(parked.len(), 1);
    let bytes = fs::read(parked[0].path()).unwrap();
    let end = bytes.iter().position(|&byte| byte == b'\n').unwrap();
    let header: serde_json::Value = serde_json::from_slice(&bytes[..end]).unwrap();
    assert_eq!((&header["code"], &header["lines"]), (&"PostBodyInvalid".into(), &100.into()));
    let raw_bytes = usize::try_from(header["raw_bytes"].as_u64().unwrap()).unwrap();
    let raw = lz4_flex::block::decompress(&bytes[end + 1..], raw_bytes).unwrap();
    assert_eq!(memchr::memmem::find_iter(&raw, b"line 0000").count(), 100);
    assert_eq!(pod.ledger.missing(&pod.mock).len(), 100);
    assert!(pod.agent_log().contains("it is set aside"));
}

/// Down from the start, for some seconds: delivered soon after it is back.
#[test]
fn an_endpoint_that_comes_back_gets_everything() {
    let mut pod = Pod::new();
    pod.mock.stop();
    pod.link("data/pod/logs");
    let log = pod.path("data/pod/logs/app.log");
    let agent = pod.start();
    for _ in 0..10 {
        pod.ledger.append(&log, 1000);
        pause(Duration::from_millis(300));
    }
    pod.mock.resume().unwrap();
    assert_eq!(pod.finish(agent), 0);
}

/// A logstore that is created later, a key that is put right later.
#[test]
fn what_a_person_repairs_is_noticed() {
    let mut pod = Pod::new();
    let access =
        Access { keys: vec!["other-id:other-secret".parse().unwrap()], ..Access::default() };
    pod.mock.set_access(access);
    pod.link("data/pod/logs");
    let log = pod.path("data/pod/logs/app.log");
    pod.ledger.append(&log, 500);
    let agent = pod.start();
    wait_for("the complaint", || pod.agent_log().contains("Unauthorized"));
    assert_eq!(pod.mock.store().line_count(), 0);
    pod.mock.set_access(Access::default());
    assert_eq!(pod.finish(agent), 0);
}

#[test]
fn secrets_appear_nowhere() {
    let (mut pod, log) = Pod::with_log();
    pod.set("LOGFERRY_LOG", "trace");
    pod.ledger.append(&log, 50);
    pod.mock.faults().set(vec![Fault { times: Some(1), ..Fault::error("SignatureNotMatch") }]);
    let agent = pod.start();
    pod.expect_all();
    assert_eq!(agent.stop().0, 0);
    assert!(pod.agent_log().contains("logferry starts"));
    assert!(!pod.agent_log().contains("test-access-key-secret"));
}

/// Refused for good, and nowhere to set it aside: nothing more is read until there is.
#[test]
fn refused_batches_that_cannot_be_set_aside_are_bounded() {
    let (mut pod, log) = Pod::with_log();
    pod.set("LOGFERRY_COMPRESSION", "none").set("mem_usage_limit", "40");
    pod.set("LOGFERRY_DRAIN_DEADLINE", "60s");
    while pod.ledger.bytes() < 100 << 20 {
        pod.ledger.append(&log, 20_000);
    }
    // In the way, and it cannot be put aside.
    fs::create_dir_all(pod.path("state/parked.aside")).unwrap();
    fs::write(pod.path("state/parked"), "in the way").unwrap();
    pod.mock.faults().set(vec![Fault::error("PostBodyInvalid")]);
    let agent = pod.start();
    wait_for("a refusal", || pod.agent_log().contains("cannot set a refused batch aside"));
    pause(Duration::from_secs(4));
    let resident = agent.resident_bytes() >> 20;
    assert!(resident < 60, "{resident} MB resident");

    pod.mock.faults().clear();
    agent.terminate();
    wait_for("the drain", || pod.agent_log().contains("stopping: delivering"));
    fs::remove_file(pod.path("state/parked")).unwrap();
    assert_eq!(agent.exit_code(), 0, "set aside after all:\n{}", pod.agent_log());
    assert!(fs::read_dir(pod.path("state/parked")).unwrap().count() > 0);
}
