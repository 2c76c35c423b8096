//! Compressed files when the agent is told to end: all that can be read is delivered first, and what
//! is left is named.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::UNIX_EPOCH;

use logferry::base::clock;

use crate::support::{
    Agent, Pod, append_to, compress, compressed, logrotate, numbered, rotate, wait_for,
};

const STOPPING: &str = "stopping: delivering what is left";
const LEFT: &str = "a file is left for the next start";

fn pod() -> (Pod, PathBuf) {
    let (mut pod, log) = Pod::with_log();
    pod.patterns(&["share/logs/app.log*"]);
    (pod, log)
}

fn generation(log: &Path, age: usize) -> PathBuf {
    log.with_file_name(format!("app.log.{age}.gz"))
}

fn append_compressed(pod: &mut Pod, gz: &Path, count: usize) {
    let mut file = append_to(gz);
    let text = pod.ledger.compose(&file, count);
    file.write_all(&compressed(text.as_bytes())).unwrap();
}

/// `gzip --keep` of a file with much text that is no lines: the agent has delivered the file, and
/// takes its time to find that the archive holds nothing else. It has begun to.
fn agent_that_measures_a_copy(pod: &mut Pod, log: &Path) -> Agent {
    pod.set("cpu_usage_limit", "0.2");
    let plain = numbered(log, 3);
    pod.ledger.append(&plain, 100);
    fs::File::options().write(true).open(&plain).unwrap().set_len(100 << 20).unwrap();
    pod.ledger.append(&plain, 100);
    let status = Command::new("gzip").arg("--fast").arg("--keep").arg(&plain).status();
    assert!(status.unwrap().success());
    let agent = pod.start();
    pod.expect_all();
    pod.wait_for_log("a compressed file is measured", 1);
    agent
}

/// The one whose turn it is turns out to be a copy; those that wait come before it by their names.
#[test]
fn f08_archives_that_wait_for_a_copy_are_delivered_before_the_end() {
    let (mut pod, log) = pod();
    let agent = agent_that_measures_a_copy(&mut pod, &log);
    for age in 1..=2 {
        append_compressed(&mut pod, &generation(&log, age), 300);
    }

    assert_eq!(agent.stop().0, 0, "{}", pod.agent_log());
    assert_eq!(pod.ledger.missing(&pod.mock), Vec::<&str>::new());
    assert_eq!(pod.ledger.check(&pod.mock), 0);
    pod.expect_sound();
}

/// All lines were delivered from the files before they were compressed: nothing is left to do.
#[test]
fn f07_stopped_right_after_rotations_it_has_delivered_everything() {
    for quiet in ["0s", "500ms"] {
        let (mut pod, log) = pod();
        pod.set("LOGFERRY_DRAIN_QUIET", quiet);
        pod.ledger.append(&log, 1000);
        let agent = pod.start();
        for _ in 0..6 {
            agent.wait_until_open(&log);
            pod.expect_all();
            if !logrotate(&pod, &log, "rotate 9\ncreate 0644\ncompress\nnodelaycompress") {
                return;
            }
            pod.ledger.append(&log, 1000);
        }

        assert_eq!(agent.stop().0, 0, "{quiet}: {}", pod.agent_log());
        assert_eq!(pod.ledger.missing(&pod.mock), Vec::<&str>::new());
        assert_eq!(pod.ledger.check(&pod.mock), 0);
    }
}

/// The same with archives of files that the agent before this one has delivered.
#[test]
fn f08_archives_of_delivered_files_hold_no_stop_up() {
    let (mut pod, log) = pod();
    for _ in 0..5 {
        pod.ledger.append(&log, 20_000);
        let agent = pod.start();
        assert_eq!(pod.finish(agent), 0);
        rotate(&log, 9);
    }
    for age in 1..=5 {
        compress(&numbered(&log, age));
    }
    pod.ledger.append(&log, 10);
    let agent = pod.start();

    assert_eq!(agent.stop().0, 0, "{}", pod.agent_log());
    assert_eq!(pod.ledger.missing(&pod.mock), Vec::<&str>::new());
    assert_eq!(pod.ledger.check(&pod.mock), 0);
}

/// gzip is at work when the signal comes: what it writes then is waited for.
#[test]
fn f08_an_archive_that_is_being_written_is_waited_for() {
    for quiet in ["0s", "500ms"] {
        let (mut pod, log) = pod();
        pod.set("LOGFERRY_DRAIN_QUIET", quiet);
        pod.ledger.append(&log, 100);
        let agent = pod.start();
        pod.expect_all();
        let mut gz = append_to(&generation(&log, 1));
        let text = pod.ledger.compose(&gz, 20_000);
        let bytes = compressed(text.as_bytes());
        let (begin, rest) = bytes.split_at(bytes.len() / 2);
        gz.write_all(begin).unwrap();
        agent.terminate();
        wait_for("the drain", || {
            // Written a moment ago, however slow the agent is.
            gz.set_modified(UNIX_EPOCH + clock::wall()).unwrap();
            pod.times_logged(STOPPING) == 1
        });
        gz.write_all(rest).unwrap();

        assert_eq!(agent.exit_code(), 0, "{quiet}: {}", pod.agent_log());
        assert_eq!(pod.ledger.missing(&pod.mock), Vec::<&str>::new());
        assert_eq!(pod.ledger.check(&pod.mock), 0);
    }
}

/// There is no time to decode four gigabytes: the log names what is left, and why.
#[test]
fn f08_archives_that_are_left_at_the_deadline_are_named() {
    let (mut pod, log) = pod();
    pod.set("LOGFERRY_DRAIN_DEADLINE", "1s").set("cpu_usage_limit", "0.3");
    pod.ledger.append(&log, 10);
    let agent = pod.start();
    pod.expect_all();
    let member = compressed("the same line\n".repeat(5 << 20).as_bytes());
    for age in 1..=2 {
        fs::write(generation(&log, age), member.repeat(60)).unwrap();
    }

    assert_eq!(agent.stop().0, 75);
    let text = pod.agent_log();
    for (age, reason) in [(1, "not all of it is decoded"), (2, "waits for its turn")] {
        let path = format!("file={} ", pod.path(&format!("share/logs/app.log.{age}.gz")).display());
        let is_it = |line: &&str| line.contains(LEFT) && line.contains(&path);
        let lines: Vec<&str> = text.lines().filter(is_it).collect();
        assert_eq!(lines.len(), 1, "{path}: {text}");
        assert!(lines[0].contains(reason), "{}", lines[0]);
    }
}

/// The endpoint is down: files are named with what is left of them.
#[test]
fn p03_files_that_are_left_at_the_deadline_are_named() {
    let (mut pod, log) = pod();
    pod.set("LOGFERRY_DRAIN_DEADLINE", "1s");
    pod.mock.stop();
    pod.ledger.append(&log, 100);
    let size = fs::metadata(&log).unwrap().len();
    let agent = pod.start();
    agent.wait_until_open(&log);

    assert_eq!(agent.stop().0, 75);
    let text = pod.agent_log();
    let line = text.lines().find(|line| line.contains(LEFT)).unwrap_or_else(|| panic!("{text}"));
    assert!(line.contains("share/logs/app.log"), "{line}");
    assert!(line.contains(&format!(" bytes={size} ")), "{line}");
}

/// While one is measured, other files take all descriptors: what was decoded of it until then is not
/// decoded again.
#[test]
fn f08_what_was_measured_is_kept_while_descriptors_are_short() {
    const MEASURED: &str = "a compressed file is measured";
    let mut pod = Pod::new();
    pod.link("data/pod/logs");
    pod.patterns(&["share/logs/*.log*"]);
    // So that it takes some seconds.
    pod.set("cpu_usage_limit", "0.1").set("LOGFERRY_LOG", "debug");
    let gz = pod.path("data/pod/logs/z.log.1.gz");
    let line = "x".repeat(10_000) + "\n";
    fs::write(&gz, compressed(line.repeat(10_000).as_bytes())).unwrap();
    pod.mock.stop();
    let agent = pod.start_with_descriptors(64);
    pod.wait_for_log(MEASURED, 1);
    for number in 0..60 {
        pod.ledger.append(&pod.path(&format!("data/pod/logs/{number:02}.log")), 1);
    }
    pod.wait_for_log("RLIMIT_NOFILE", 1);

    pod.mock.resume().unwrap();
    let is_shipped = |line: &str| line.contains("shipping a file") && line.contains("z.log.1.gz");
    wait_for("its turn", || pod.agent_log().lines().any(is_shipped));

    assert_eq!(pod.times_logged(MEASURED), 1, "{}", pod.agent_log());
    agent.kill();
}
