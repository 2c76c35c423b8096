//! Errors of the endpoint: what a person could repair is tried for ever, what is malformed is set
//! aside.

use std::fs;
use std::io::Write as _;
use std::time::Duration;

use logferry_mock::{self as mock, Access, Fault, Kind};

use crate::parked::id;
use crate::support::{Pod, append_to, each, pause, run, wait_for};

/// Each error lasts for some requests; nothing is dropped, nothing comes twice.
#[test]
fn errors_that_pass_lose_nothing() {
    let codes = [
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
    ];
    each(&codes, |&code| {
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
    });
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

/// One bad line in a batch of a thousand: it alone is set aside, the others arrive, and it too once
/// the endpoint takes it.
#[test]
fn n08_a_line_that_spoils_its_batch_is_set_aside_alone() {
    let (mut pod, log) = Pod::with_log();
    pod.ledger.append(&log, 1000);
    let poison = pod.ledger.lines[617].clone();
    pod.mock.faults().set(vec![Fault::new(Kind::Poison { text: poison.clone() })]);
    let agent = pod.start();

    wait_for("the other lines", || pod.mock.store().line_count() >= 999);
    pod.wait_for_log("is set aside", 1);
    pod.ledger.append(&log, 10);
    wait_for("later lines", || pod.mock.store().line_count() >= 1009);
    assert_eq!(agent.stop().0, 0, "what is set aside is not undelivered");

    assert_eq!(pod.ledger.missing(&pod.mock), [poison.as_str()]);
    assert_eq!(pod.ledger.check(&pod.mock), 0);
    let pieces = pod.parked();
    assert_eq!(pieces.len(), 1, "{pieces:?}");
    let piece = &pieces[0];
    assert_eq!((&piece["code"], &piece["lines"]), (&"PostBodyInvalid".into(), &1.into()));
    assert_eq!(piece["first"], 617);
    let (code, shown, _) = run(&["parked", "show", id(piece)], &pod.environment());
    assert_eq!(code, 0);
    assert!(shown.lines().any(|line| line.ends_with(&poison)), "{shown}");

    pod.mock.faults().clear();
    let (code, said, _) = run(&["parked", "replay"], &pod.environment());
    assert_eq!(code, 0, "{said}");
    assert_eq!(pod.ledger.missing(&pod.mock), Vec::<&str>::new());
    assert_eq!(pod.ledger.check(&pod.mock), 0);
    assert!(pod.parked().is_empty());
}

/// Several in a row, at the edges, and in more than one batch; with few requests at once.
#[test]
fn n08_each_of_many_bad_lines_is_found() {
    let (mut pod, log) = Pod::with_log();
    pod.set("LOGFERRY_BATCH_LINES", "100").set("send_request_concurrency", "2");
    pod.ledger.append(&log, 1000);
    let bad = [0, 99, 100, 500, 501, 502, 503, 750, 999];
    let poison = |&at: &usize| Fault::new(Kind::Poison { text: pod.ledger.lines[at].clone() });
    pod.mock.faults().set(bad.iter().map(poison).collect());
    let agent = pod.start();

    wait_for("all lines, here or there", || {
        pod.mock.store().line_count() >= 991 && pod.parked().len() == bad.len()
    });
    assert_eq!(agent.stop().0, 0);

    assert_eq!(pod.ledger.missing_numbers(&pod.mock), bad);
    assert_eq!(pod.ledger.check(&pod.mock), 0);
    pod.expect_sound();
    pod.mock.faults().clear();
    assert_eq!(run(&["parked", "replay"], &pod.environment()).0, 0);
    assert_eq!(pod.ledger.missing(&pod.mock), Vec::<&str>::new());
}

/// What spoils them is none of their lines, but a tag for one: not a file for each line.
#[test]
fn n08_batches_that_no_line_spoils_are_set_aside_whole() {
    let (mut pod, log) = Pod::with_log();
    pod.set("LOGFERRY_BATCH_LINES", "1000");
    pod.ledger.append(&log, 3000);
    pod.mock.faults().set(vec![Fault::error("PostBodyInvalid")]);
    let agent = pod.start();
    let lines = |piece: &serde_json::Value| piece["lines"].as_u64().unwrap();
    let set_aside = |pod: &Pod| pod.parked().iter().map(lines).sum::<u64>();
    wait_for("all to be set aside", || set_aside(&pod) == 3000);
    let files = pod.parked().len();
    assert!(files < 300, "{files} files");

    // Lines arrive again: from then on the one that spoils a batch is found.
    pod.mock.faults().clear();
    pod.ledger.append(&log, 10);
    wait_for("later lines", || pod.mock.store().line_count() == 10);
    pod.mock.faults().set(vec![Fault::new(Kind::Poison { text: "a bad one".to_owned() })]);
    let mut file = append_to(&log);
    pod.ledger.write(&mut file, 50);
    file.write_all(b"a bad one\n").unwrap();
    pod.ledger.write(&mut file, 50);
    wait_for("the other lines", || pod.mock.store().line_count() == 110);
    wait_for("one more to be set aside", || pod.parked().len() > files);
    assert_eq!(set_aside(&pod), 3001);
    assert_eq!(agent.stop().0, 0);

    pod.mock.faults().clear();
    assert_eq!(run(&["parked", "replay"], &pod.environment()).0, 0);
    assert_eq!(pod.ledger.missing(&pod.mock), Vec::<&str>::new());
    assert_eq!(pod.mock.store().line_count(), 3111, "each of them once");
}

/// What has been found out is not lost with the agent: after a kill in the middle of it nothing is
/// missing.
#[test]
fn n08_a_kill_while_the_bad_line_is_searched_for_loses_nothing() {
    let (mut pod, log) = Pod::with_log();
    pod.set("send_request_concurrency", "1");
    pod.ledger.append(&log, 1000);
    let poison = pod.ledger.lines[333].clone();
    let poison = Fault::new(Kind::Poison { text: poison });
    // Slow enough to be killed between two halves.
    pod.mock.faults().set(vec![Fault::new(Kind::Delay { ms: 50 }), poison]);
    let agent = pod.start();
    wait_for("a part of it", || pod.mock.store().line_count() >= 500);
    agent.kill();

    let agent = pod.start();
    wait_for("the bad line", || !pod.parked().is_empty());
    assert_eq!(agent.stop().0, 0);

    assert_eq!(pod.ledger.missing_numbers(&pod.mock), [333]);
    pod.ledger.check(&pod.mock);
}

/// The service takes groups of 20 KiB. What is larger goes in halves, and the line that is larger
/// by itself is set aside.
#[test]
fn n07_what_is_too_large_goes_in_halves() {
    let limits = mock::Limits { group_bytes_max: 20 << 10, ..mock::Limits::default() };
    let mut pod = Pod::with_endpoint(mock::Options { limits, ..mock::Options::default() });
    pod.link("data/pod/logs");
    let log = pod.path("data/pod/logs/app.log");
    pod.ledger.append(&log, 3000);
    let long = "x".repeat(30 << 10);
    append_to(&log).write_all(format!("{long}\n").as_bytes()).unwrap();
    pod.ledger.append(&log, 1000);
    let agent = pod.start();

    assert_eq!(pod.finish(agent), 0);
    let pieces = pod.parked();
    assert_eq!(pieces.len(), 1, "{pieces:?}");
    assert_eq!((&pieces[0]["code"], &pieces[0]["lines"]), (&"PostBodyTooLarge".into(), &1.into()));
    let (_, shown, _) = run(&["parked", "show", id(&pieces[0])], &pod.environment());
    assert!(shown.contains(&long), "the line is whole");
}

/// A proxy in between refuses large bodies with a page of its own.
#[test]
fn n07_a_413_of_somebody_else_is_obeyed_too() {
    let (mut pod, log) = Pod::with_log();
    pod.set("LOGFERRY_COMPRESSION", "none");
    pod.ledger.append(&log, 3000);
    pod.mock.faults().set(vec![Fault::new(Kind::BodyLimit { bytes: 20 << 10 })]);
    let agent = pod.start();

    assert_eq!(pod.finish(agent), 0);
    assert!(pod.parked().is_empty());
    assert!(pod.mock.store().counts().faults["body_limit"] > 0);
}

/// Some proxies break the connection instead of answering 413.
#[test]
fn n07_what_a_proxy_resets_for_its_size_goes_in_smaller_pieces() {
    let (mut pod, log) = Pod::with_log();
    pod.set("LOGFERRY_COMPRESSION", "none");
    let wire = pod.wire();
    let admin = pod.admin();
    wire.reset_above(40 << 10);
    // More than one batch, and nothing small among them.
    pod.ledger.append(&log, 30_000);
    let agent = pod.start();

    pod.expect_all();
    assert!(wire.resets() >= 3, "{} resets", wire.resets());
    pod.wait_for_log("is sent in halves", 1);
    // From here on such sizes are not even tried.
    let resets = wire.resets();
    pod.ledger.append(&log, 20_000);
    pod.expect_all();
    assert!(wire.resets() <= resets + 8, "{resets}, then {}", wire.resets());

    assert!(pod.parked().is_empty());
    assert!(admin.metric("logferry_split_batches_total").unwrap_or(0) > 0);
    assert_eq!(pod.finish(agent), 0, "nothing of what was reset had arrived");
}

/// A single line cannot be halved, and is not given up.
#[test]
fn n07_a_line_that_is_reset_for_its_size_waits_and_holds_nobody_up() {
    let (mut pod, log) = Pod::with_log();
    pod.set("LOGFERRY_COMPRESSION", "none");
    let wire = pod.wire();
    wire.reset_above(40 << 10);
    pod.ledger.append(&log, 50);
    let long = format!("line long {}", "x".repeat(100 << 10));
    writeln!(append_to(&log), "{long}").unwrap();
    let agent = pod.start();
    wait_for("the lines before it", || pod.mock.store().line_count() >= 50);
    pod.ledger.append(&log, 50);
    wait_for("the lines behind it", || pod.mock.store().line_count() >= 100);
    assert!(pod.parked().is_empty());

    wire.reset_above(0);

    wait_for("the long one", || {
        pod.mock.store().lines().iter().any(|line| line == long.as_bytes())
    });
    assert!(pod.parked().is_empty());
    drop(agent);
}

/// Everything is reset: an outage. Batches keep their size, but for one.
#[test]
fn n07_an_outage_by_resets_shrinks_nothing() {
    let (mut pod, log) = Pod::with_log();
    pod.set("LOGFERRY_COMPRESSION", "none");
    let wire = pod.wire();
    wire.reset_above(1);
    pod.ledger.append(&log, 30_000);
    let agent = pod.start();
    wait_for("the search for a size that passes", || wire.resets() >= 6);
    wire.reset_above(0);

    assert_eq!(pod.finish(agent), 0);

    let sizes: Vec<usize> =
        pod.mock.store().groups().iter().map(|group| group.raw().len()).collect();
    let most = sizes.iter().max().copied().unwrap_or(0);
    let bytes: usize = sizes.iter().sum();
    let large = sizes.iter().filter(|size| **size > most / 2).sum::<usize>();
    assert!(most > 300 << 10 && large > bytes / 2, "{sizes:?}");
}

/// A gateway compresses what the service says, although nobody has asked for it.
#[test]
fn n08_a_refusal_that_a_gateway_has_compressed_is_understood() {
    let (mut pod, log) = Pod::with_log();
    pod.ledger.append(&log, 1000);
    let poison = pod.ledger.lines[617].clone();
    pod.mock.faults().set(vec![Fault::new(Kind::Poison { text: poison.clone() })]);
    let wire = pod.wire();
    wire.rewrite_answers(compressed);
    let agent = pod.start();

    wait_for("the other lines", || pod.mock.store().line_count() >= 999);
    pod.wait_for_log("is set aside", 1);
    assert_eq!(agent.stop().0, 0);

    assert_eq!(pod.ledger.missing(&pod.mock), [poison.as_str()]);
    assert_eq!(pod.parked().len(), 1);
    let heard = String::from_utf8_lossy(&wire.heard()).to_lowercase();
    assert!(heard.contains("accept-encoding: identity\r\n"), "nobody asks for it");
}

/// The same answer with its body in gzip.
fn compressed(answer: &[u8]) -> Vec<u8> {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").expect("a head") + 4;
    let (head, body) = answer.split_at(end);
    if body.is_empty() {
        return answer.to_vec();
    }
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(body).expect("memory");
    let body = encoder.finish().expect("memory");
    let head = String::from_utf8_lossy(head);
    let lines = head.split("\r\n").filter(|line| !line.starts_with("content-length"));
    let head: String =
        lines.take_while(|line| !line.is_empty()).map(|l| format!("{l}\r\n")).collect();
    let length = body.len();
    let head = format!("{head}content-encoding: gzip\r\ncontent-length: {length}\r\n\r\n");
    [head.as_bytes(), &body].concat()
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
