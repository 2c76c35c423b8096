//! The endpoint is away, slow, or answers into the void: N01, N04, N09, N15, N17, N18.

use std::fs;
use std::os::unix::fs::symlink;
use std::time::Duration;

use logferry::base::clock;
use logferry_mock::{Fault, Kind};
use logferry_wire::Compression;

use crate::support::wire::{Flow, Wire};
use crate::support::{Agent, Pod, append_to, pause, wait_for};

/// Bytes of a log that are written in each tenth of a second.
const STEP_KIB: usize = 200;
const STEP: Duration = Duration::from_millis(100);

/// The app writes 2 MB/s all the time. That the agent is level with it in the end, although it began
/// with the backlog of an outage, shows that it is faster.
#[test]
fn n01_an_outage_takes_no_memory_and_is_caught_up_while_the_app_writes_on() {
    let (mut pod, log) = Pod::with_log();
    pod.keep_memory_small();
    pod.mock.stop();
    let agent = pod.start();
    let mut writer = append_to(&log);
    let mut resident_max = 0;
    for _ in 0..60 {
        pod.ledger.write_kib(&mut writer, STEP_KIB);
        pause(STEP);
        resident_max = resident_max.max(agent.resident_bytes() >> 20);
    }
    let (backlog, down_at) = (pod.ledger.lines.len() as u64, clock::now());
    pod.mock.resume().unwrap();
    while pod.mock.store().line_count() < backlog {
        pod.ledger.write_kib(&mut writer, STEP_KIB);
        pause(STEP);
        resident_max = resident_max.max(agent.resident_bytes() >> 20);
        assert!(clock::now() - down_at < Duration::from_secs(120), "{}", pod.agent_log());
    }
    println!("{backlog} KiB caught up in {:?}, {resident_max} MB resident", clock::now() - down_at);
    assert!(resident_max < 60, "{resident_max} MB resident");
    assert_eq!(pod.finish(agent), 0);
    assert!(pod.times_logged("cannot deliver, trying again") <= 3, "{}", pod.agent_log());
}

/// Another file's lines do not queue behind the backlog of the first.
#[test]
fn n01_new_lines_flow_while_a_backlog_is_caught_up() {
    let (mut pod, log) = Pod::with_log();
    pod.keep_memory_small();
    pod.mock.faults().set(vec![Fault::new(Kind::Delay { ms: 20 })]);
    pod.mock.stop();
    pod.ledger.write_kib(&mut append_to(&log), 30_000);
    let agent = pod.start();
    wait_for("the first refusal", || pod.agent_log().contains("cannot deliver"));
    let fresh = pod.path("data/pod/logs/fresh.log");
    pod.ledger.append(&fresh, 10);
    pod.mock.resume().unwrap();
    assert_eq!(pod.finish(agent), 0);

    let groups = pod.mock.store().groups();
    let is_fresh = |path: Option<String>| path.is_some_and(|path| path.ends_with("fresh.log"));
    let first = groups.iter().position(|group| is_fresh(group.tag("__path__"))).unwrap();
    assert!(first < groups.len() / 2, "the fresh lines are group {first} of {}", groups.len());
}

/// What comes again because its reply was lost can be known again: it has the same number.
#[test]
fn n04_a_batch_whose_reply_was_lost_comes_again_as_it_was() {
    let (mut pod, log) = Pod::with_log();
    pod.ledger.append(&log, 500);
    let faults =
        [Kind::CutAfter, Kind::CutAfter].map(|kind| Fault { times: Some(1), ..Fault::new(kind) });
    pod.mock.faults().set(faults.into());
    let agent = pod.start();
    assert_eq!(pod.finish(agent), 1000, "stored and not answered, twice");

    let groups = pod.mock.store().groups();
    assert_eq!(groups.len(), 3);
    for group in &groups[1..] {
        assert_eq!(group.raw(), groups[0].raw(), "byte for byte, __pack_id__ and all");
    }
}

/// A mounted secret: the files are links through `..data`, which is replaced as a whole.
#[test]
fn n09_a_key_that_was_replaced_in_its_file_is_taken_up_and_nothing_is_dropped() {
    let (mut pod, log) = Pod::with_log();
    let mount = pod.path("secret");
    let write_version = |version: &str, secret: &str| {
        fs::create_dir_all(mount.join(version)).unwrap();
        let text = format!(
            r#"{{"access_key_id": "test-access-key-id", "access_key_secret": "{secret}"}}"#
        );
        fs::write(mount.join(version).join("key.json"), text).unwrap();
        let next = mount.join("..next");
        symlink(version, &next).unwrap();
        fs::rename(next, mount.join("..data")).unwrap();
    };
    write_version("..1", "expired-since-noon");
    symlink("..data/key.json", mount.join("key.json")).unwrap();
    pod.set("LOGFERRY_CREDENTIALS_FILE", &mount.join("key.json").display().to_string());
    pod.ledger.append(&log, 500);
    let agent = pod.start();
    wait_for("the complaint", || pod.agent_log().contains("SignatureNotMatch"));
    assert_eq!(pod.mock.store().line_count(), 0);
    assert!(pod.agent_log().contains("LOGFERRY_CREDENTIALS_FILE"), "it says where to look");

    write_version("..2", "test-access-key-secret");
    assert_eq!(pod.finish(agent), 0);
    assert!(!pod.agent_log().contains("expired-since-noon"));
}

/// 4 MB/s through 200 kB/s, later through all there is.
#[test]
fn n15_a_narrow_line_fills_neither_memory_nor_disk() {
    let (mut pod, log) = Pod::with_log();
    pod.keep_memory_small();
    let wire = Wire::to(pod.mock.address());
    wire.requests(Flow::BytesPerSecond(200_000));
    pod.set("LOGFERRY_ENDPOINT", &format!("http://{}", wire.address()));
    let agent = pod.start();
    let mut writer = append_to(&log);
    let mut resident_max = 0;
    for _ in 0..60 {
        pod.ledger.write_kib(&mut writer, 2 * STEP_KIB);
        pause(STEP);
        resident_max = resident_max.max(agent.resident_bytes() >> 20);
    }
    wait_for("some lines", || pod.mock.store().line_count() > 0);
    let (arrived, written) = (pod.mock.store().line_count(), pod.ledger.lines.len() as u64);
    assert!(arrived < written / 2, "the line is narrow: {arrived} of {written}");
    assert!(resident_max < 60, "{resident_max} MB resident");
    let state: u64 = fs::read_dir(pod.path("state"))
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .sum();
    assert!(state < 64 << 10, "{state} bytes in the state directory");
    wire.requests(Flow::Free);
    pod.finish(agent);
}

/// One agent has one destination. Two that ship the same files have nothing in common.
#[test]
fn n17_an_agent_beside_one_whose_endpoint_is_dead_is_not_affected() {
    let (mut pod, log) = Pod::with_log();
    let dead = Pod::new();
    let mut env = pod.environment();
    let mut set = |name: &str, value: String| env.insert(name.to_owned(), value);
    set("LOGFERRY_STATE_DIR", dead.path("state").display().to_string());
    set("LOGFERRY_ENDPOINT", "http://127.0.0.1:1".to_owned());
    let beside = Agent::start(&env, &dead.path("agent.log"));
    wait_for("the first refusal", || dead.agent_log().contains("logferry starts"));
    let agent = pod.start();
    pod.ledger.append(&log, 5000);
    wait_for("the other one's trouble", || dead.agent_log().contains("cannot deliver"));
    assert_eq!(pod.finish(agent), 0);
    drop(beside);
    assert_eq!(dead.mock.store().line_count(), 0);
}

/// zstd is not taken: everything goes as lz4, and the next batches do so at once.
#[test]
fn n18_a_compression_that_is_refused_is_given_up_for_lz4() {
    for refused in [
        "refuse_compression:name=zstd",
        r#"{"kind": {"error": {"code": "", "status": 415}}, "times": 1}"#,
        r#"{"kind": {"error": {"code": "", "status": 406}}, "times": 1}"#,
    ] {
        let (mut pod, log) = Pod::with_log();
        pod.set("LOGFERRY_COMPRESSION", "zstd");
        pod.mock.faults().set(vec![refused.parse().unwrap()]);
        pod.ledger.append(&log, 500);
        let agent = pod.start();
        pod.expect_all();
        let requests = pod.mock.store().counts().requests;
        pod.ledger.append(&log, 500);
        pod.expect_all();
        let later = pod.mock.store().counts().requests - requests;
        assert_eq!(pod.finish(agent), 0, "{refused}");
        let groups = pod.mock.store().groups();
        assert!(groups.iter().all(|group| group.compression == Compression::Lz4), "{refused}");
        assert_eq!(later, groups.len() as u64 - 1, "no more is tried with zstd: {refused}");
        assert!(!pod.path("state/parked").exists());
    }
}

/// With `ordered_delivery` the lines of a file arrive as they were written, whatever fails meanwhile.
#[test]
fn ordered_delivery_brings_the_lines_of_a_file_in_order() {
    let (mut pod, log) = Pod::with_log();
    pod.set("LOGFERRY_ORDERED_DELIVERY", "true").set("LOGFERRY_BATCH_LINES", "50");
    let mut fault = Fault::error("InternalServerError");
    fault.every = std::num::NonZeroU64::new(3);
    pod.mock.faults().set(vec![fault]);
    let second = pod.path("data/pod/logs/second.log");
    for _ in 0..20 {
        pod.ledger.append(&log, 50);
        pod.ledger.append(&second, 50);
    }
    let agent = pod.start();
    pod.expect_all();
    assert_eq!(agent.stop().0, 0);

    for (path, file) in [("share/logs/app.log", &log), ("share/logs/second.log", &second)] {
        let path = pod.path(path).display().to_string();
        let groups = pod.mock.store().groups();
        let of_file = groups.iter().filter(|group| group.tag("__path__").as_ref() == Some(&path));
        // As they came: the store numbers them so.
        let arrived: Vec<u8> = of_file
            .flat_map(|group| group.logs())
            .flat_map(|log| [log.contents[0].1.clone(), b"\n".to_vec()].concat())
            .collect();
        assert!(arrived == fs::read(file).unwrap(), "{path} came in another order");
    }
}
