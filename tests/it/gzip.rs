//! Rotated files that are compressed (F07, F08, F09): nothing is lost, nothing comes twice, and
//! nothing is shipped as the bytes of a .gz.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use crate::support::{
    Admin, Agent, Pod, append_to, compress, compressed, each, logrotate, numbered, rotate,
    wait_for, write_large_gz,
};

const SKIPPED: &str = "logferry_skipped_bytes_total{reason=\"truncated\"}";

fn pod_matching(pattern: &str) -> (Pod, PathBuf) {
    let (mut pod, log) = Pod::with_log();
    pod.patterns(&[pattern]);
    (pod, log)
}

/// Writes lines to a .gz, as one more member.
fn append_compressed(pod: &mut Pod, gz: &Path, count: usize) {
    let mut file = append_to(gz);
    let text = pod.ledger.compose(&file, count);
    file.write_all(&compressed(text.as_bytes())).unwrap();
}

/// An agent that has begun to read a .gz with more text than it holds in memory; the endpoint is
/// down.
fn agent_that_reads_a_gz() -> (Pod, PathBuf, Agent, Admin) {
    let (mut pod, log) = pod_matching("share/logs/app.log*");
    pod.keep_memory_small();
    let gz = log.with_file_name("app.log.1.gz");
    write_large_gz(&mut pod, &gz);
    pod.mock.stop();
    let admin = pod.admin();
    let agent = pod.start();
    admin.wait_until_reading();
    (pod, gz, agent, admin)
}

/// Waits for the lines from this number on.
fn expect_all_from(pod: &Pod, first: usize) {
    let mut looked_at = 0;
    wait_for("what was written later", || {
        // Comparing decodes everything.
        let arrived = pod.mock.store().line_count();
        std::mem::replace(&mut looked_at, arrived) != arrived
            && pod.ledger.missing_numbers(&pod.mock).iter().all(|&number| number < first)
    });
}

/// `create` and `compress` without delay, by the real logrotate: the file is gone at once, and a
/// writer that has not noticed goes on.
#[test]
fn f07_logrotate_creates_and_compresses_at_once() {
    for pattern in ["share/logs/app.log*", "share/logs/*.log"] {
        let (mut pod, log) = pod_matching(pattern);
        pod.ledger.append(&log, 100);
        let agent = pod.start();
        for _ in 0..3 {
            agent.wait_until_open(&log);
            let mut old = append_to(&log);
            pod.ledger.write(&mut old, 1000);
            if !logrotate(&pod, &log, "rotate 9\ncreate 0644\ncompress\nnodelaycompress") {
                return;
            }
            pod.ledger.write(&mut old, 100);
            pod.ledger.append(&log, 100);
        }

        assert_eq!(pod.finish(agent), 0, "{pattern}");
        // The .gz files are still there, and the originals are not.
        pod.ledger.append(&log, 10);
        let agent = pod.start();
        assert_eq!(pod.finish(agent), 0, "{pattern}");
    }
}

/// The endpoint is down, so the compressed file was not read; our descriptor still leads to it.
#[test]
fn f07_a_backlog_is_read_from_the_file_that_was_compressed() {
    let (mut pod, log) = pod_matching("share/logs/app.log*");
    pod.keep_memory_small();
    pod.mock.stop();
    pod.ledger.write_kib(&mut append_to(&log), 16 << 10);
    let agent = pod.start();
    agent.wait_until_open(&log);
    rotate(&log, 9);
    compress(&numbered(&log, 1));
    pod.ledger.append(&log, 100);
    pod.mock.resume().unwrap();

    assert_eq!(pod.finish(agent), 0);
}

/// A writer that has not noticed the rotation goes on in the deleted file, so more was delivered of
/// it than the .gz holds.
#[test]
fn f07_a_gz_that_is_shorter_than_what_was_delivered_is_not_shipped_again() {
    let (mut pod, log) = pod_matching("share/logs/app.log*");
    let mut writer = append_to(&log);
    pod.ledger.write(&mut writer, 300);
    let agent = pod.start();
    pod.expect_all();
    rotate(&log, 9);
    compress(&numbered(&log, 1));
    pod.ledger.write(&mut writer, 100);
    pod.ledger.append(&log, 10);
    assert_eq!(pod.finish(agent), 0);
    drop(writer);
    let agent = pod.start();
    pod.ledger.append(&log, 10);

    assert_eq!(pod.finish(agent), 0);
}

/// After a restart the agent knows a generation by its number; it gets another one, and is
/// compressed.
#[test]
fn f08_a_generation_compressed_under_another_number_is_not_shipped_again() {
    let (mut pod, log) = pod_matching("share/logs/app.log*");
    pod.ledger.append(&log, 300);
    let agent = pod.start();
    pod.expect_all();
    assert_eq!(agent.stop().0, 0);
    rotate(&log, 9);
    pod.ledger.append(&log, 100);
    let agent = pod.start();
    pod.expect_all();
    agent.wait_until_open(&numbered(&log, 1));
    rotate(&log, 9);
    compress(&numbered(&log, 2));
    pod.ledger.append(&log, 100);

    assert_eq!(pod.finish(agent), 0);
    let agent = pod.start();
    pod.ledger.append(&log, 10);
    assert_eq!(pod.finish(agent), 0);
}

/// `delaycompress`: what was app.log.1 becomes app.log.2.gz with the next rotation.
#[test]
fn f08_delayed_compression_repeats_nothing() {
    let (mut pod, log) = pod_matching("share/logs/app.log*");
    pod.ledger.append(&log, 100);
    let mut agent = pod.start();
    for round in 0..4 {
        pod.ledger.append(&log, 300);
        pod.expect_all();
        if !logrotate(&pod, &log, "rotate 9\ncreate 0644\ncompress\ndelaycompress") {
            return;
        }
        pod.ledger.append(&log, 200);
        if round % 2 == 1 {
            assert_eq!(pod.finish(agent), 0);
            agent = pod.start();
        }
    }

    assert_eq!(pod.finish(agent), 0);
}

/// Delivered, then compressed while no agent ran.
#[test]
fn f08_a_delivered_file_compressed_while_the_agent_was_away_is_not_shipped_again() {
    let (mut pod, log) = pod_matching("share/logs/app.log*");
    pod.ledger.append(&log, 500);
    let agent = pod.start();
    pod.expect_all();
    assert_eq!(agent.stop().0, 0);
    rotate(&log, 9);
    compress(&numbered(&log, 1));
    pod.ledger.append(&log, 100);
    for _ in 0..2 {
        let agent = pod.start();
        pod.ledger.append(&log, 10);
        assert_eq!(pod.finish(agent), 0);
    }
}

/// Compressed while the agent ran and could not deliver; then it is restarted, and with that the
/// deleted file is gone that it held. The rest is only in the .gz.
#[test]
fn f08_the_rest_of_a_file_compressed_before_a_restart_is_read_from_the_gz() {
    each(&["share/logs/app.log*", "share/logs/app.log"], |pattern| {
        let (mut pod, log) = pod_matching(pattern);
        let admin = pod.admin();
        pod.ledger.append(&log, 500);
        let agent = pod.start();
        pod.expect_all();
        pod.mock.stop();
        pod.ledger.append(&log, 200);
        rotate(&log, 9);
        compress(&numbered(&log, 1));
        pod.ledger.append(&log, 100);
        wait_for("the deleted file and the new one", || {
            let status = admin.status();
            let files = status["files"].as_array().unwrap();
            files.iter().any(|file| file["state"] == "deleted") && files.len() == 2
        });
        pod.set("LOGFERRY_DRAIN_DEADLINE", "2s");
        assert_eq!(agent.stop().0, 75);
        pod.set("LOGFERRY_DRAIN_DEADLINE", "60s");
        pod.mock.resume().unwrap();
        let agent = pod.start();
        assert_eq!(pod.finish(agent), 0, "{pattern}");
        let agent = pod.start();
        pod.ledger.append(&log, 10);
        assert_eq!(pod.finish(agent), 0, "{pattern}, after a restart");
    });
}

/// Delivered in part: the rest is only in the .gz.
#[test]
fn f08_the_rest_of_a_compressed_file_is_read_from_the_gz() {
    for pattern in ["share/logs/app.log*", "share/logs/app.log"] {
        let (mut pod, log) = pod_matching(pattern);
        pod.ledger.append(&log, 500);
        let agent = pod.start();
        pod.expect_all();
        assert_eq!(agent.stop().0, 0);
        pod.ledger.append(&log, 200);
        rotate(&log, 9);
        compress(&numbered(&log, 1));
        pod.ledger.append(&log, 100);
        let agent = pod.start();
        assert_eq!(pod.finish(agent), 0, "{pattern}");
        let agent = pod.start();
        pod.ledger.append(&log, 10);
        assert_eq!(pod.finish(agent), 0, "{pattern}");
    }
}

/// The agent is killed while the rest of the .gz is on its way: it goes on from there too.
#[test]
fn f08_a_gz_is_read_on_after_a_kill() {
    let (mut pod, log) = pod_matching("share/logs/app.log*");
    // No two of them go in one request.
    pod.set("LOGFERRY_BATCH_LINES", "2100").set("send_request_concurrency", "1");
    let gz = log.with_file_name("app.log.1.gz");
    append_compressed(&mut pod, &gz, 80_000);
    let slow = logferry_mock::Fault::new(logferry_mock::Kind::Delay { ms: 20 });
    pod.mock.faults().set(vec![slow]);
    let agent = pod.start();
    wait_for("some lines", || pod.mock.store().line_count() >= 10_000);
    agent.kill();
    let arrived = pod.mock.store().line_count();
    assert!(arrived < 70_000, "{arrived} lines had arrived already");
    pod.mock.faults().clear();
    let agent = pod.start();

    let repeats = pod.finish(agent);
    assert!(repeats <= 3 * 2100, "{repeats} lines came again, and three batches could be");
}

/// A .gz that was there before the agent is shipped as what it holds, once.
#[test]
fn f08_a_gz_that_nobody_knows_is_shipped_decompressed() {
    let (mut pod, log) = pod_matching("share/logs/app.log*");
    append_compressed(&mut pod, &log.with_file_name("app.log.2.gz"), 3000);
    pod.ledger.append(&log, 100);
    for _ in 0..3 {
        let agent = pod.start();
        pod.ledger.append(&log, 10);
        assert_eq!(pod.finish(agent), 0);
    }
}

/// Under a name that does not say so: the bytes decide.
#[test]
fn f08_a_gz_without_its_suffix_is_not_shipped_as_text() {
    let (mut pod, log) = Pod::with_log();
    append_compressed(&mut pod, &log.with_file_name("old.log"), 300);
    pod.ledger.append(&log, 100);
    let agent = pod.start();

    assert_eq!(pod.finish(agent), 0);
}

/// To know what is in it, 4 GiB have to be decoded, and the CPU is limited: meanwhile other files
/// are shipped, and a stop keeps its deadline.
#[test]
fn f08_while_a_huge_gz_is_looked_at_others_are_shipped_and_a_stop_is_in_time() {
    let (mut pod, log) = pod_matching("share/logs/app.log*");
    pod.set("cpu_usage_limit", "0.3").set("LOGFERRY_DRAIN_DEADLINE", "2s");
    let member = compressed("the same line\n".repeat(5 << 20).as_bytes());
    fs::write(log.with_file_name("app.log.1.gz"), member.repeat(60)).unwrap();
    let agent = pod.start();
    pod.wait_for_log("a compressed file is measured", 1);

    pod.ledger.append(&log, 1000);
    pod.expect_all();
    pod.ledger.append(&log, 1000);
    pod.expect_all();
    let (code, _) = agent.stop();

    assert_eq!(code, 75);
    let log = pod.agent_log();
    let is_shipped = |line: &str| line.contains("shipping a file") && line.contains("app.log.1.gz");
    assert!(!log.lines().any(is_shipped), "it was looked at when the agent ended:\n{log}");
    pod.expect_sound();
}

/// Archives that are too young to be looked at when the agent is told to end: it delivers them one
/// after the other, then it ends.
#[test]
fn f08_archives_that_wait_when_the_agent_is_stopped_are_all_delivered() {
    let (mut pod, log) = pod_matching("share/logs/app.log*");
    pod.ledger.append(&log, 100);
    let agent = pod.start();
    pod.expect_all();
    append_compressed(&mut pod, &log.with_file_name("app.log.1.gz"), 3000);
    for count in [300, 1, 40_000] {
        append_compressed(&mut pod, &log.with_file_name("app.log.2.gz"), count);
    }
    append_compressed(&mut pod, &log.with_file_name("app.log.3.gz"), 3000);

    assert_eq!(agent.stop().0, 0, "{}", pod.agent_log());
    assert_eq!(pod.ledger.missing(&pod.mock), Vec::<&str>::new());
    pod.expect_sound();
    let agent = pod.start();
    pod.ledger.append(&log, 10);
    assert_eq!(pod.finish(agent), 0);
}

/// An archive does not grow: its last line is sent although it has no end, and others need not wait.
#[test]
fn f08_an_archive_whose_last_line_has_no_end_holds_nobody_up() {
    let (mut pod, log) = pod_matching("share/logs/app.log*");
    pod.set("LOGFERRY_PARTIAL_LINE_TIMEOUT", "1h");
    for number in 1..=2 {
        let mut file = append_to(&log.with_file_name(format!("app.log.{number}.gz")));
        let text = pod.ledger.compose(&file, 10);
        file.write_all(&compressed(text.trim_end().as_bytes())).unwrap();
    }
    let agent = pod.start();

    pod.expect_all();
    assert_eq!(pod.finish(agent), 0);
    pod.expect_sound();
}

/// Another text takes the place of the one that is being read: what was not read is gone, and
/// counted; the new text comes, and the archives that wait behind it.
#[test]
fn f09_a_gz_that_is_written_over_while_it_is_read_holds_nobody_up() {
    each(&[("shorter", 100), ("longer", 60_000), ("no gzip", 100)], |&(case, count)| {
        let (mut pod, gz, agent, admin) = agent_that_reads_a_gz();
        let first = pod.ledger.lines.len();
        fs::write(&gz, "").unwrap();
        let text = pod.ledger.compose(&append_to(&gz), count);
        let is_packed = case != "no gzip";
        let bytes = if is_packed { compressed(text.as_bytes()) } else { text.into_bytes() };
        fs::write(&gz, bytes).unwrap();
        append_compressed(&mut pod, &gz.with_file_name("app.log.2.gz"), 300);
        pod.mock.resume().unwrap();

        expect_all_from(&pod, first);
        assert!(admin.metric(SKIPPED).is_some_and(|bytes| bytes > 0), "{case}");
        assert_eq!(agent.stop().0, 0, "{case}: {}", pod.agent_log());
        pod.expect_sound();
        pod.ledger.check(&pod.mock);
        assert!(!pod.ledger.missing(&pod.mock).is_empty(), "{case}: it was not all read before");
    });
}

/// Cut off while it is read: its text ends there, and the archives behind it come.
#[test]
fn f09_a_gz_that_is_cut_off_while_it_is_read_holds_nobody_up() {
    each(&[0, 300_000], |&len| {
        let (mut pod, gz, agent, admin) = agent_that_reads_a_gz();
        let first = pod.ledger.lines.len();
        fs::File::options().write(true).open(&gz).unwrap().set_len(len).unwrap();
        append_compressed(&mut pod, &gz.with_file_name("app.log.2.gz"), 300);
        pod.mock.resume().unwrap();

        expect_all_from(&pod, first);
        assert!(admin.metric(SKIPPED).is_some_and(|bytes| bytes > 0), "{len}");
        let log = pod.agent_log();
        let is_told = |line: &str| line.contains("WARN") && line.contains(" skipped=");
        assert!(log.lines().any(is_told), "{len}: {log}");
        assert_eq!(agent.stop().0, 0, "{}", pod.agent_log());
        pod.expect_sound();
    });
}

/// The .gz is renamed by the next rotations: it stays the same file.
#[test]
fn f08_a_gz_that_is_renamed_is_not_shipped_again() {
    let (mut pod, log) = pod_matching("share/logs/app.log*");
    let gz = |age: usize| log.with_file_name(format!("app.log.{age}.gz"));
    append_compressed(&mut pod, &gz(1), 500);
    pod.ledger.append(&log, 100);
    for age in 1..=3 {
        let agent = pod.start();
        pod.expect_all();
        fs::rename(gz(age), gz(age + 1)).unwrap();
        pod.ledger.append(&log, 10);
        assert_eq!(pod.finish(agent), 0);
    }
}

/// A lot in little: 16 MB of lines in a .gz of some 100 KB, in bounded memory.
#[test]
fn f08_a_large_gz_is_read_in_bounded_memory() {
    let (mut pod, log) = pod_matching("share/logs/app.log*");
    pod.keep_memory_small();
    let plain = pod.path("app.log.1");
    pod.ledger.write_kib(&mut append_to(&plain), 16 << 10);
    fs::rename(compress(&plain), log.with_file_name("app.log.1.gz")).unwrap();
    pod.mock.stop();
    let agent = pod.start();
    pod.wait_for_log("app.log.1.gz", 1);
    crate::support::pause(std::time::Duration::from_secs(2));
    let resident = agent.resident_bytes() >> 20;
    assert!(resident < 80, "{resident} MB resident");
    pod.mock.resume().unwrap();

    assert_eq!(pod.finish(agent), 0);
}

#[test]
fn f09_all_members_of_a_gz_are_read() {
    let (mut pod, log) = pod_matching("share/logs/app.log*");
    let gz = log.with_file_name("app.log.1.gz");
    for count in [300, 1, 2000] {
        append_compressed(&mut pod, &gz, count);
    }
    let agent = pod.start();
    assert_eq!(pod.finish(agent), 0);
    let agent = pod.start();
    pod.ledger.append(&log, 10);
    assert_eq!(pod.finish(agent), 0);
}

/// `gzip -c app.log.1 >> archive.gz`: a member more, with the agent and without.
#[test]
fn f09_a_member_that_is_added_is_read() {
    let (mut pod, log) = pod_matching("share/logs/*.gz");
    let gz = log.with_file_name("archive.gz");
    append_compressed(&mut pod, &gz, 300);
    let agent = pod.start();
    pod.expect_all();
    append_compressed(&mut pod, &gz, 300);
    assert_eq!(pod.finish(agent), 0);
    append_compressed(&mut pod, &gz, 300);
    let agent = pod.start();
    assert_eq!(pod.finish(agent), 0);
}

/// Whoever writes it stalls for longer than the agent waits: what comes then is read too, once.
#[test]
fn f09_a_gz_that_is_written_with_a_pause_arrives_whole() {
    let (mut pod, log) = pod_matching("share/logs/app.log*");
    pod.set("LOGFERRY_PARTIAL_LINE_TIMEOUT", "60s");
    let mut file = append_to(&log.with_file_name("app.log.1.gz"));
    let text = pod.ledger.compose(&file, 20_000);
    let bytes = compressed(text.as_bytes());
    let (begin, rest) = bytes.split_at(bytes.len() / 2);
    file.write_all(begin).unwrap();
    let agent = pod.start();
    wait_for("what is there", || pod.mock.store().line_count() > 0);
    file.write_all(rest).unwrap();

    assert_eq!(pod.finish(agent), 0);
}

/// gzip makes its file before it has anything to write: the file is found while it is empty.
#[test]
fn f08_a_gz_that_is_found_while_it_is_empty_is_not_shipped_as_text() {
    let (mut pod, log) = pod_matching("share/logs/app.log*");
    let gz = log.with_file_name("app.log.1.gz");
    let mut file = append_to(&gz);
    let agent = pod.start();
    agent.wait_until_open(&gz);
    let text = pod.ledger.compose(&file, 20_000);
    let bytes = compressed(text.as_bytes());
    let (magic, rest) = bytes.split_at(2);
    file.write_all(magic).unwrap();
    pod.ledger.append(&log, 10);
    wait_for("what was written later", || pod.mock.store().line_count() >= 10);
    file.write_all(rest).unwrap();

    assert_eq!(pod.finish(agent), 0);
}

/// The same where the patterns do not find it, and the rest of a file is nowhere else.
#[test]
fn f08_a_gz_that_is_found_while_it_is_empty_is_known_as_a_copy() {
    let (mut pod, log) = Pod::with_log();
    pod.ledger.append(&log, 500);
    let agent = pod.start();
    pod.expect_all();
    assert_eq!(agent.stop().0, 0);
    pod.ledger.append(&log, 200);
    let text = fs::read(&log).unwrap();
    fs::remove_file(&log).unwrap();
    pod.ledger.append(&log, 10);
    let mut file = append_to(&log.with_file_name("app.log.1.gz"));
    let admin = pod.admin();
    let agent = pod.start();
    wait_for("the first discovery", || {
        // Made a moment ago, however slow the agent is.
        file.set_len(0).unwrap();
        admin.is_ready()
    });
    file.write_all(&compressed(&text)).unwrap();

    assert_eq!(pod.finish(agent), 0);
}

/// Cut off or damaged: what can be read of it arrives, and the others are not held up.
#[test]
fn f09_a_damaged_gz_costs_what_is_damaged() {
    let (mut pod, log) = pod_matching("share/logs/app.log*");
    let first = pod.ledger.lines.len();
    let gz = log.with_file_name("app.log.1.gz");
    append_compressed(&mut pod, &gz, 20_000);
    let damaged = first..pod.ledger.lines.len();
    let bytes = fs::read(&gz).unwrap();
    fs::write(&gz, &bytes[..bytes.len() / 2]).unwrap();
    pod.ledger.append(&log, 500);
    let agent = pod.start();
    wait_for("the whole file", || {
        let missing = pod.ledger.missing_numbers(&pod.mock);
        missing.iter().all(|number| damaged.contains(number))
    });
    pod.wait_for_log("a compressed file is damaged", 1);
    let _ = agent.stop();

    let missing = pod.ledger.missing(&pod.mock);
    let count = missing.len();
    assert!((1..20_000).contains(&count), "{count} lines are missing, some half could be");
    let foreign = pod.ledger.foreign(&pod.mock);
    let is_torn = |line: &Vec<u8>| missing.iter().any(|one| one.as_bytes().starts_with(line));
    assert!(foreign.len() <= 1 && foreign.iter().all(is_torn), "{foreign:?}");
}

/// Archives are read one after the other, but none waits until the one before is delivered.
#[test]
fn f08_many_small_archives_are_read_in_one_go() {
    const ARCHIVES: usize = 150;
    let (mut pod, log) = pod_matching("share/logs/*.gz");
    for number in 0..ARCHIVES {
        append_compressed(&mut pod, &log.with_file_name(format!("{number:03}.log.gz")), 20);
    }
    let agent = pod.start();

    // With a second for each it would take longer than a test has patience.
    pod.expect_all();

    assert_eq!(pod.finish(agent), 0);
}
