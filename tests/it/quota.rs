//! The pace of requests by the ids of the catalogue of failures (A6): an endpoint that is unwell,
//! full or flaps, a clock that is off; and what goes together in one request.

use std::time::Duration;

use logferry::base::clock;
use logferry_mock::{self as mock, Fault, Kind};

use crate::support::{Admin, Agent, Pod, append_to, pause, wait_for};

fn failures(admin: &Admin, kind: &str) -> u64 {
    let series = format!("logferry_request_failures_total{{kind=\"{kind}\"}}");
    admin.metric(&series).expect("the metric is there")
}

fn refused(pod: &Pod, code: &str) -> u64 {
    pod.mock.store().counts().refused.get(code).copied().unwrap_or(0)
}

/// Of each kind a few in a row, with the codes of the service and without.
#[test]
fn n05_a_burst_of_server_errors_loses_and_repeats_nothing() {
    let (mut pod, log) = Pod::with_log();
    let admin = pod.admin();
    pod.ledger.append(&log, 500);
    let errors = [(500, "InternalServerError"), (502, "Gateway"), (503, "ServerBusy"), (504, "X")];
    let fault = |(status, code): (u16, &str)| {
        let (code, status) = (code.to_owned(), Some(status));
        let kind = Kind::Error { code, status, retry_after: None };
        Fault { times: Some(1), ..Fault::new(kind) }
    };
    pod.mock.faults().set(errors.map(fault).into());

    let agent = pod.start();
    pod.expect_all();

    admin.expect_metric("logferry_request_failures_total{kind=\"server\"}", 4);
    assert_eq!(pod.times_logged("cannot deliver"), 1, "a repeated fault is said once");
    assert_eq!(pod.finish(agent), 0);
}

#[test]
fn n05_a_wish_to_be_left_alone_is_granted() {
    let (mut pod, log) = Pod::with_log();
    pod.ledger.append(&log, 500);
    let code = "ServerBusy".to_owned();
    let busy = Kind::Error { code, status: None, retry_after: Some(4) };
    pod.mock.faults().set(vec![Fault { times: Some(1), ..Fault::new(busy) }]);
    let started = clock::now();

    let agent = pod.start();
    pod.expect_all();

    let took = clock::now() - started;
    assert!(took >= Duration::from_secs(4), "without the wish it comes again at once: {took:?}");
    assert_eq!(pod.mock.store().counts().requests, 2);
    assert_eq!(pod.finish(agent), 0);
}

/// More than a quota takes, for some seconds: all of it arrives once, and what is refused is little.
fn stay_within_a_quota(code: &str, kind: &str, other_kind: &str) {
    let (mut pod, log) = Pod::with_log();
    let admin = pod.admin();
    // Batches of 512 KiB: each goes alone.
    pod.ledger.write_kib(&mut append_to(&log), 8 * 1024);
    let quota = Kind::Quota {
        bytes_per_second: None,
        requests_per_second: Some(4),
        code: Some(code.to_owned()),
    };
    // A slow machine may never get that far by itself.
    let first = Fault { times: Some(2), ..Fault::error(code) };
    pod.mock.faults().set(vec![first, Fault::new(quota)]);

    let agent = pod.start();
    pod.expect_all();

    let refused = refused(&pod, code);
    assert!((2..=24).contains(&refused), "{refused} requests refused for 16 batches");
    let series = |kind: &str| format!("logferry_request_failures_total{{kind=\"{kind}\"}}");
    admin.expect_metric(&series(kind), refused);
    assert_eq!(failures(&admin, other_kind), 0);
    assert_eq!(failures(&admin, "network") + failures(&admin, "server"), 0);
    assert_eq!(pod.finish(agent), 0);
}

#[test]
fn n06_the_quota_of_a_project_slows_down_and_drops_nothing() {
    stay_within_a_quota("WriteQuotaExceed", "quota", "shard_quota");
}

#[test]
fn n06_the_quota_of_a_shard_is_another_one() {
    stay_within_a_quota("ShardWriteQuotaExceed", "shard_quota", "quota");
}

#[test]
fn n10_requests_are_dated_by_the_services_clock_after_its_first_complaint() {
    for seconds in [1200, -1200] {
        let options = mock::Options { clock_offset_seconds: seconds, ..mock::Options::default() };
        let mut pod = Pod::with_endpoint(options);
        let admin = pod.admin();
        pod.link("data/pod/logs");
        let log = pod.path("data/pod/logs/app.log");
        pod.ledger.append(&log, 500);

        let agent = pod.start();
        pod.expect_all();
        pod.ledger.append(&log, 500);
        pod.expect_all();

        assert_eq!(refused(&pod, "RequestTimeExpired"), 1, "once is enough");
        assert_eq!(failures(&admin, "clock"), 1);
        assert_eq!(pod.times_logged("the clock of this machine is off"), 1);
        assert_eq!(pod.finish(agent), 0);
    }
}

/// The same error under its old name; here it is not true, so there is nothing to correct.
#[test]
fn n10_a_complaint_that_is_not_true_is_waited_out() {
    let (mut pod, log) = Pod::with_log();
    let admin = pod.admin();
    pod.ledger.append(&log, 500);
    let fault = Fault { times: Some(1), ..Fault::error("RequestTimeTooSkewed") };
    pod.mock.faults().set(vec![fault]);

    let agent = pod.start();
    pod.expect_all();

    assert_eq!(failures(&admin, "clock"), 1);
    assert_eq!(pod.times_logged("the clock of this machine is off"), 0);
    assert_eq!(pod.finish(agent), 0);
}

fn threads_of(agent: &Agent) -> usize {
    std::fs::read_dir(format!("/proc/{}/task", agent.id())).expect("the agent runs").count()
}

/// Up and down several times a second: lines arrive meanwhile, nothing piles up in the agent, and
/// the log says little.
#[test]
fn n16_an_endpoint_that_flaps_costs_neither_descriptors_nor_threads_nor_log_lines() {
    let (mut pod, log) = Pod::with_log();
    let admin = pod.admin();
    pod.ledger.append(&log, 100);
    let agent = pod.start();
    pod.expect_all();
    let (descriptors, threads) = (agent.descriptors(), threads_of(&agent));

    let started = clock::now();
    let mut rounds = 0_u64;
    let mut stored = vec![pod.mock.store().line_count()];
    while clock::now() - started < Duration::from_secs(10) {
        pod.mock.stop();
        pod.ledger.append(&log, 100);
        pause(Duration::from_millis(300));
        pod.mock.resume().unwrap();
        pause(Duration::from_millis(500));
        rounds += 1;
        stored.push(pod.mock.store().line_count());
    }
    pod.expect_all();

    stored.dedup();
    assert!(stored.len() as u64 > rounds / 4, "no progress in {rounds} rounds: {stored:?}");
    let failed = failures(&admin, "network");
    assert!(failed >= 3, "it was noticed {failed} times");
    let lasted = (clock::now() - started).as_secs();
    let said = pod.times_logged("cannot deliver") + pod.times_logged("delivering again");
    let most = 2 * (lasted / 30 + 1);
    assert!(said as u64 <= most, "{said} lines in {lasted} s:\n{}", pod.agent_log());
    wait_for("the descriptors to be given back", || agent.descriptors() <= descriptors + 8);
    assert_eq!(threads_of(&agent), threads);
    assert_eq!(agent.stop().0, 0);
    pod.expect_sound();
}

/// Writes `count` small files and starts an agent that has sealed them all before it can send any.
fn with_small_files(pod: &mut Pod, count: usize) -> (Admin, Agent) {
    let admin = pod.admin();
    pod.link("data/pod/logs");
    for number in 0..count {
        let log = pod.path(&format!("data/pod/logs/app-{number:03}.log"));
        pod.ledger.append(&log, 3);
    }
    pod.mock.stop();
    let agent = pod.start();
    wait_for("the batches", || {
        let waiting = admin.metric("logferry_waiting_batches").unwrap_or(0);
        waiting + admin.metric("logferry_requests_in_flight").unwrap_or(0) >= count as u64
    });
    pod.mock.resume().unwrap();
    (admin, agent)
}

#[test]
fn what_is_due_together_goes_together() {
    let mut pod = Pod::new();
    let (admin, agent) = with_small_files(&mut pod, 80);
    pod.expect_all();

    let counts = pod.mock.store().counts();
    assert_eq!(counts.groups, 80, "a group for each file");
    assert!(counts.puts <= 20, "{} requests for 80 groups", counts.puts);
    assert!(admin.metric("logferry_request_lists_total").unwrap() > 0);
    assert_eq!(pod.finish(agent), 0);
}

/// One bad line in one of eighty files: the others arrive, it alone is set aside.
#[test]
fn a_list_that_is_refused_is_halved_until_the_culprit_is_alone() {
    let mut pod = Pod::new();
    // The seventh file's second line; its number is known before it is written.
    let poison = "line 00000019".to_owned();
    pod.mock.faults().set(vec![Fault::new(Kind::Poison { text: poison.clone() })]);
    let (admin, agent) = with_small_files(&mut pod, 80);
    assert_eq!(pod.ledger.lines.iter().filter(|line| line.contains(&poison)).count(), 1);

    wait_for("the other lines", || pod.mock.store().line_count() >= 239);
    pod.wait_for_log("is set aside", 1);

    let missing = pod.ledger.missing(&pod.mock);
    assert!(missing.len() == 1 && missing[0].contains(&poison), "{missing:?}");
    assert_eq!(pod.ledger.check(&pod.mock), 0);
    assert!(admin.metric("logferry_request_lists_refused_total").unwrap() > 0);
    let requests = pod.mock.store().counts().requests;
    assert!(requests <= 60, "{requests} requests to find one of 80");
    assert_eq!(agent.stop().0, 0);
}

#[test]
fn an_endpoint_that_knows_no_lists_gets_everything() {
    let mut pod = Pod::new();
    pod.mock.faults().set(vec![Fault::new(Kind::RefuseLists)]);
    let (admin, agent) = with_small_files(&mut pod, 80);
    pod.expect_all();

    let counts = pod.mock.store().counts();
    assert_eq!(counts.puts, 80, "one by one");
    let lists = admin.metric("logferry_request_lists_refused_total").unwrap();
    assert_eq!(Some(&lists), counts.refused.get("ParameterInvalid"));
    assert!((1..=6).contains(&lists), "{lists} lists refused");
    assert_eq!(pod.finish(agent), 0);
}
