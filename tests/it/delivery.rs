//! What arrives: tags, compression, line ends, unfinished and long lines.

use std::io::Write as _;
use std::time::Duration;

use logferry_mock::{self as mock, Fault, Kind};

use crate::support::{Agent, LOGSTORE, PROJECT, Pod, append_to, wait_for};

fn lines(pod: &Pod) -> Vec<String> {
    let text = |line: Vec<u8>| String::from_utf8_lossy(&line).into_owned();
    pod.mock.store().lines().into_iter().map(text).collect()
}

#[test]
fn a_group_carries_the_pods_tags_in_their_order() {
    let (mut pod, log) = Pod::with_log();
    pod.set("ALIYUN_LOG_ENV_TAGS", "_node_name_|_pod_name_|_unset_");
    pod.set("_node_name_", "node-1").set("_pod_name_", "app-5fqrl");
    pod.set("ALIYUN_LOGTAIL_USER_DEFINED_ID", "beta, alpha");
    pod.set("LOGFERRY_TOPIC", "sidecar").set("POD_IP", "10.7.0.37");
    pod.ledger.append(&log, 3);
    let agent = pod.start();
    pod.expect_all();

    let group = pod.mock.store().groups()[0].clone();
    let keys: Vec<&str> = group.tags.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(
        keys,
        [
            "__hostname__",
            "__path__",
            "__user_defined_id__",
            "_node_name_",
            "_pod_name_",
            "_unset_",
            "__pack_id__"
        ]
    );
    let tag = |key| group.tag(key).unwrap();
    assert_eq!(tag("__user_defined_id__"), "alpha beta");
    assert_eq!((tag("_node_name_"), tag("_pod_name_")), ("node-1".into(), "app-5fqrl".into()));
    assert_eq!(tag("_unset_"), "");
    assert!(tag("__pack_id__").ends_with("-0"), "{}", tag("__pack_id__"));
    assert_eq!((group.topic.as_str(), group.source.as_str()), ("sidecar", "10.7.0.37"));
    assert_eq!((group.project.as_str(), group.logstore.as_str()), (PROJECT, LOGSTORE));
    assert_eq!(agent.stop().0, 0);
}

#[test]
fn pack_ids_count_up_within_a_file() {
    let (mut pod, log) = Pod::with_log();
    pod.set("LOGFERRY_BATCH_LINES", "10").set("send_request_concurrency", "1");
    pod.ledger.append(&log, 200);
    let agent = pod.start();
    pod.expect_all();

    let ids: Vec<String> =
        pod.mock.store().groups().iter().map(|group| group.tag("__pack_id__").unwrap()).collect();
    let prefix = ids[0].strip_suffix("-0").unwrap();
    let expected: Vec<String> = (0..20).map(|number| format!("{prefix}-{number:X}")).collect();
    assert_eq!(ids, expected);
    assert_eq!(agent.stop().0, 0);
}

#[test]
fn every_compression_delivers_the_same() {
    for compression in ["lz4", "zstd", "none"] {
        let (mut pod, log) = Pod::with_log();
        pod.set("LOGFERRY_COMPRESSION", compression);
        pod.ledger.append(&log, 3000);
        let agent = pod.start();
        assert_eq!(pod.expect_all(), 0, "{compression}");
        assert_eq!(pod.mock.store().groups()[0].compression.name(), compression);
        assert_eq!(agent.stop().0, 0);
    }
}

#[test]
fn excluded_files_and_the_agents_own_are_left_alone() {
    let mut pod = Pod::new();
    let exclude = pod.path("share/logs/debug*").display().to_string();
    let state = pod.path("data/pod/logs/state").display().to_string();
    pod.set("LOGFERRY_EXCLUDE", &exclude).set("LOGFERRY_STATE_DIR", &state);
    pod.link("data/pod/logs");
    std::fs::write(pod.path("data/pod/logs/debug.log"), "no\n").unwrap();
    std::fs::create_dir(pod.path("data/pod/logs/state")).unwrap();
    let log = pod.path("data/pod/logs/app.log");
    pod.ledger.append(&log, 10);
    let agent = pod.start();

    pod.expect_all();
    assert_eq!(agent.stop().0, 0);
    assert_eq!(lines(&pod).len(), 10);
}

#[test]
fn a_rate_limit_is_kept() {
    let (mut pod, log) = Pod::with_log();
    pod.set("max_bytes_per_sec", "200000");
    while pod.ledger.bytes() < 1_000_000 {
        pod.ledger.append(&log, 1000);
    }
    let started = logferry::base::clock::now();
    let agent = pod.start();
    assert_eq!(pod.expect_all(), 0);
    let took = logferry::base::clock::now() - started;
    // One second's worth may go at once, the other four fifths take four seconds.
    assert!(took > Duration::from_secs(3), "1 MB at 200 kB/s took {took:?}");
    assert_eq!(agent.stop().0, 0);
}

/// A turn under a rate limit takes a piece of the file, which does not end where the file does.
#[test]
fn a_rate_limit_tears_no_unfinished_line() {
    let mut pod = Pod::new();
    pod.set("max_bytes_per_sec", "20000").set("LOGFERRY_PARTIAL_LINE_TIMEOUT", "1s");
    pod.link("data/pod/logs");
    let mut log = append_to(&pod.path("data/pod/logs/app.log"));
    let agent = pod.start();
    log.write_all(&[b'x'; 10_000]).unwrap();
    wait_for("the unfinished line", || pod.mock.store().line_count() >= 1);

    assert_eq!(agent.stop().0, 0);
    let lengths: Vec<usize> = lines(&pod).iter().map(String::len).collect();
    assert_eq!(lengths, [10_000]);
}

/// Standard error on a disk that is full.
#[test]
fn what_cannot_be_logged_ends_nothing() {
    let (mut pod, log) = Pod::with_log();
    pod.ledger.append(&log, 10);
    let agent = Agent::start(&pod.environment(), "/dev/full".as_ref());

    assert_eq!(pod.finish(agent), 0);
}

/// Standard error in the directory of the logs, under a name that the patterns find.
#[test]
fn the_agents_own_log_is_not_shipped() {
    let (mut pod, log) = Pod::with_log();
    pod.ledger.append(&log, 10);
    let agent = Agent::start(&pod.environment(), &pod.path("data/pod/logs/agent.log"));

    assert_eq!(pod.finish(agent), 0);
}

/// Also where the clock is off: the date is part of the signature.
#[test]
fn v4_signatures_are_accepted_and_follow_the_services_clock() {
    for clock_offset_seconds in [0, 3600] {
        let options = mock::Options { clock_offset_seconds, ..mock::Options::default() };
        let mut pod = Pod::with_endpoint(options);
        pod.link("data/pod/logs");
        pod.set("LOGFERRY_SIGNATURE", "v4").set("LOGFERRY_REGION", "cn-hangzhou");
        pod.set("ALIBABA_CLOUD_SECURITY_TOKEN", "test-security-token");
        let wire = pod.wire();
        let log = pod.path("data/pod/logs/app.log");
        pod.ledger.append(&log, 100);
        let agent = pod.start();

        assert_eq!(pod.finish(agent), 0);

        let heard = String::from_utf8_lossy(&wire.heard()).into_owned();
        assert!(heard.contains("SLS4-HMAC-SHA256 Credential=test-access-key-id/"), "{heard}");
        assert!(heard.contains("/cn-hangzhou/sls/aliyun_v4_request,Signature="), "{heard}");
    }
}

/// The state is where logs are too, and what looks for logs looks there: by its path.
#[test]
fn logs_beside_the_state_are_shipped_and_its_own_files_are_not() {
    for pattern in ["data/**", "data/*/logs/**"] {
        let mut pod = Pod::new();
        let logs = pod.path("data/pod/logs");
        std::fs::create_dir_all(&logs).unwrap();
        pod.set("LOGFERRY_STATE_DIR", logs.to_str().unwrap()).patterns(&[pattern]);
        pod.mock.faults().set(vec![Fault::new(Kind::Poison { text: "poison".to_owned() })]);
        pod.ledger.append(&logs.join("checkpoint.log"), 10);
        pod.ledger.append(&logs.join("app.log"), 10);
        std::fs::write(logs.join("bad.log"), "poison\n").unwrap();
        let agent = pod.start();
        pod.expect_all();
        wait_for("a piece set aside", || logs.join("parked").is_dir());
        wait_for("a durable save", || logs.join("checkpoint.0").exists());
        // Whatever was written meanwhile, it is looked at once more.
        pod.ledger.append(&logs.join("last.log"), 10);
        pod.expect_all();

        assert_eq!(agent.stop().0, 0, "{}", pod.agent_log());
        let shipped: Vec<String> = pod.shipped_paths().into_iter().collect();
        let expected =
            ["app.log", "checkpoint.log", "last.log"].map(|name| format!("data/pod/logs/{name}"));
        assert_eq!(shipped, expected, "{pattern}");
    }
}

/// No link opens up the agent's own, also one that is made later; below it is what the app may have
/// there.
#[test]
fn a_link_to_the_state_is_refused_and_one_below_is_followed() {
    let mut pod = Pod::new();
    let state = pod.path("data/pod").display().to_string();
    pod.set("LOGFERRY_STATE_DIR", &state);
    let agent = pod.start();
    pod.wait_for_log("no file matches a pattern", 1);
    pod.link("data/pod");
    pod.wait_for_log("a link leads out of the allowed directories", 1);
    std::fs::write(pod.path("data/pod/app.log"), "of nobody's concern\n").unwrap();
    pod.link("data/pod/logs");
    pod.ledger.append(&pod.path("data/pod/logs/app.log"), 10);

    assert_eq!(pod.finish(agent), 0);
}
