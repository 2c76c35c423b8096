//! Files that are truncated, rewritten, copied and truncated (F10 to F15): what is written then
//! arrives, whatever size the file has by the next look.

use std::fs::{self, File};
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::support::{
    Agent, FIXED, Meanwhile, Pod, append_to, copytruncate, each, logrotate, numbered, pairs, pause,
    shift, wait_for,
};

/// Lines in the file before it is rewritten; what is 16 lines longer than a head that is known.
const BEFORE: usize = 100;
/// Lines that make a known head of 1024 bytes.
const HEAD: usize = 16;

/// How the file begins after it was rewritten.
#[derive(Clone, Copy, Debug)]
enum Head {
    Other,
    Same,
}

const HEADS: [Head; 2] = [Head::Other, Head::Same];

/// Empties the file and writes it anew, with so many lines.
fn rewrite(pod: &mut Pod, writer: &mut File, head: Head, count: usize) {
    writer.set_len(0).unwrap();
    match head {
        Head::Other => pod.ledger.write_fixed(writer, count),
        Head::Same => {
            pod.ledger.write_again(writer, 0..HEAD);
            pod.ledger.write_fixed(writer, count - HEAD);
        }
    }
    assert_eq!(writer.metadata().unwrap().len(), (count * FIXED) as u64);
}

/// A pod whose log was delivered; its writer appends.
fn delivered_pod() -> (Pod, File, Agent) {
    let (mut pod, log) = Pod::with_log();
    let mut writer = append_to(&log);
    pod.ledger.write_fixed(&mut writer, BEFORE);
    let agent = pod.start();
    pod.expect_all();
    (pod, writer, agent)
}

/// Rewrites the file between two looks of a running agent; what it holds then arrives, as often as
/// it was written.
fn check_running(count: usize) {
    for head in HEADS {
        let (mut pod, mut writer, agent) = delivered_pod();
        agent.suspend();
        rewrite(&mut pod, &mut writer, head, count);
        agent.resume();
        pod.expect_all();
        pod.ledger.write_fixed(&mut writer, 10);

        assert_eq!(pod.finish(agent), 0, "{head:?}");
    }
}

#[test]
fn f11_truncated_and_written_to_less() {
    check_running(40);
}

#[test]
fn f12_truncated_and_refilled_to_the_same_size_within_one_look() {
    check_running(BEFORE);
}

#[test]
fn f13_truncated_and_refilled_to_more_within_one_look() {
    check_running(BEFORE + 50);
}

/// The same without an agent, all sizes.
#[test]
fn f14_truncated_and_refilled_while_the_agent_was_away() {
    for count in [40, BEFORE, BEFORE + 50] {
        for head in HEADS {
            let (mut pod, mut writer, agent) = delivered_pod();
            assert_eq!(agent.stop().0, 0);
            rewrite(&mut pod, &mut writer, head, count);
            let agent = pod.start();
            pod.expect_all();
            pod.ledger.write_fixed(&mut writer, 10);

            assert_eq!(pod.finish(agent), 0, "{count} {head:?}");
        }
    }
}

/// A generation that no pattern finds is written over with lines of its own, and renamed or not.
#[test]
fn f14_a_generation_that_is_written_over_is_read_on() {
    let moves = [None, Some("app.log.7")];
    each(&pairs(&moves, &Meanwhile::ALL), |&(name, how)| {
        let (mut pod, log) = Pod::with_log();
        pod.patterns(&["share/logs/*.log"]);
        let mut writer = append_to(&log);
        pod.ledger.write_fixed(&mut writer, BEFORE);
        let agent = pod.start();
        pod.expect_all();
        fs::rename(&log, numbered(&log, 1)).unwrap();
        pod.ledger.append(&log, 20);
        let agent = pod.meanwhile(agent, how, |pod| {
            rewrite(pod, &mut writer, Head::Other, BEFORE + 50);
            if let Some(name) = name {
                fs::rename(numbered(&log, 1), log.with_file_name(name)).unwrap();
            }
        });
        pod.expect_all();
        pod.ledger.write_fixed(&mut writer, 10);
        pod.expect_all();

        assert_eq!(pod.finish_twice(agent, &log), 0);
        assert_eq!(pod.shipped_paths(), ["share/logs/app.log".to_owned()].into());
    });
}

/// Nothing tells the agent that the file was written to, and its size says nothing.
#[test]
fn f12_a_rewrite_to_the_same_size_is_noticed_without_notifications() {
    for head in HEADS {
        let (mut pod, log) = Pod::with_log();
        let mut writer = append_to(&log);
        pod.ledger.write_fixed(&mut writer, BEFORE);
        let limit = "max_inotify_instances";
        let Some(agent) = pod.start_with_user_limit(limit, 0) else { return };
        pod.expect_all();
        agent.suspend();
        rewrite(&mut pod, &mut writer, head, BEFORE);
        agent.resume();

        assert_eq!(pod.finish(agent), 0, "{head:?}");
    }
}

/// Its time stamps and permissions change, and no byte of it.
#[test]
fn f12_a_touch_repeats_nothing() {
    let (mut pod, writer, agent) = delivered_pod();
    let touch = |agent: Agent, pod: &mut Pod| {
        for seconds in [0, 3600, 4_000_000_000] {
            let time = std::time::UNIX_EPOCH + Duration::from_secs(seconds);
            writer.set_modified(time).unwrap();
            writer.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
            pod.ledger.append(&pod.path("data/pod/logs/other.log"), 1);
            pod.expect_all();
        }
        assert_eq!(pod.finish(agent), 0);
    };
    touch(agent, &mut pod);
    writer.set_modified(std::time::UNIX_EPOCH).unwrap();
    let agent = pod.start();
    touch(agent, &mut pod);
}

/// To less, to the same size, to more, without holding the agent up: it may see any moment of it.
#[test]
fn f13_a_truncated_file_is_read_from_its_first_byte() {
    let (mut pod, log) = Pod::with_log();
    let agent = pod.start();
    let mut writer = append_to(&log);
    pod.ledger.write(&mut writer, 500);
    for count in [10, 10, 900] {
        pod.expect_all();
        writer.set_len(0).unwrap();
        pod.ledger.write(&mut writer, count);
    }

    assert_eq!(pod.finish(agent), 0);
}

/// `> app.log` by an impatient person, again and again.
#[test]
fn f13_a_file_overwritten_in_quick_succession_gives_its_last_version() {
    let (mut pod, log) = Pod::with_log();
    let agent = pod.start();
    let mut lost = Vec::new();
    for version in 0..50 {
        let first = pod.ledger.lines.len();
        pod.ledger.write_fixed(&mut File::create(&log).unwrap(), 20 + version % 3);
        lost.extend(first..pod.ledger.lines.len());
    }
    lost.truncate(lost.len() - 20 - 49 % 3);

    wait_for("the last version", || {
        pod.ledger.missing_numbers(&pod.mock).iter().all(|number| lost.contains(number))
    });
    assert_eq!(agent.stop().0, 0);
    assert_eq!(pod.ledger.check(&pod.mock), 0);
    pod.expect_sound();
}

/// The end of the file is cut off, and the app appends: what is new arrives, and what is still
/// there may come again.
#[test]
fn f11_a_file_that_loses_its_end_is_read_anew() {
    for is_running in [true, false] {
        let (mut pod, mut writer, mut agent) = delivered_pod();
        let mut cut = || {
            writer.set_len(40 * FIXED as u64).unwrap();
            pod.ledger.write_fixed(&mut writer, 10);
        };
        if is_running {
            agent.suspend();
            cut();
            agent.resume();
        } else {
            assert_eq!(agent.stop().0, 0);
            cut();
            agent = pod.start();
        }

        pod.expect_all();
        assert_eq!(agent.stop().0, 0);
        let repeats = pod.ledger.check(&pod.mock);
        assert!(repeats <= 40, "{repeats} lines came again, and 40 are in the file again");
    }
}

/// What was on disk and not read when the file was truncated is lost, and known to the byte.
#[test]
fn f11_what_a_truncation_takes_is_counted() {
    let (mut pod, log) = Pod::with_log();
    pod.keep_memory_small();
    let admin = pod.admin();
    pod.mock.stop();
    let mut writer = append_to(&log);
    pod.ledger.write_kib(&mut writer, 20 << 10);
    let size = pod.ledger.bytes();
    let agent = pod.start();
    wait_for("the file to be seen", || admin.status()["files"][0]["size"] == size);
    agent.suspend();
    writer.set_len(0).unwrap();
    pod.ledger.write_fixed(&mut writer, 500);
    agent.resume();
    pod.wait_for_log("it was truncated or rewritten", 1);
    pod.mock.resume().unwrap();

    wait_for("the new lines", || {
        pod.mock.store().line_count() > 500
            && pod.ledger.missing_numbers(&pod.mock).iter().all(|&number| number < 20 << 10)
    });
    assert_eq!(agent_stops_after(&pod, agent, &admin), 0);
    assert_eq!(pod.ledger.check(&pod.mock), 0);
    pod.expect_sound();
}

/// Waits until nothing is under way; then what is missing is what the metric says. The exit code.
fn agent_stops_after(pod: &Pod, agent: Agent, admin: &crate::support::Admin) -> i32 {
    wait_for("an end", || admin.metric("logferry_lag_bytes") == Some(0));
    let missing = pod.ledger.missing_numbers(&pod.mock).len();
    assert!(missing > 0, "20 MB fit into memory");
    admin.expect_metric(
        r#"logferry_skipped_bytes_total{reason="truncated"}"#,
        missing as u64 * 1024,
    );
    admin.expect_metric("logferry_generations_unbalanced_total", 0);
    agent.stop().0
}

/// The new incarnation is known to the notifications at once, not with the next discovery.
#[test]
fn f11_lines_after_a_truncation_arrive_at_once() {
    let (mut pod, log) = Pod::with_log();
    let agent = pod.start();
    let mut writer = append_to(&log);
    pod.ledger.write(&mut writer, 100);
    pod.expect_all();
    for _ in 0..3 {
        writer.set_len(0).unwrap();
        pause(Duration::from_millis(400));
        let started = logferry::base::clock::now();
        pod.ledger.write(&mut writer, 100);
        pod.expect_all();
        let took = logferry::base::clock::now() - started;
        assert!(took < Duration::from_millis(2500), "{took:?}");
    }

    assert_eq!(pod.finish(agent), 0);
}

/// The endpoint is down, so nothing of the first text was delivered when it is replaced.
#[test]
fn f14_a_file_truncated_before_it_was_read_is_known_again_after_a_restart() {
    let (mut pod, log) = Pod::with_log();
    let mut writer = append_to(&log);
    std::io::Write::write_all(&mut writer, &[b'x'; 1500]).unwrap();
    let agent = pod.start();
    agent.wait_until_open(&log);
    pause(Duration::from_millis(300));
    writer.set_len(0).unwrap();
    pod.ledger.write(&mut writer, 500);
    pod.expect_all();
    assert_eq!(agent.stop().0, 0);
    let agent = pod.start();
    pod.ledger.append(&log, 10);

    assert_eq!(pod.finish(agent), 0, "nothing comes twice");
}

const PATTERNS: [&str; 2] = ["share/logs/app.log", "share/logs/app.log*"];

fn pod_matching(pattern: &str) -> (Pod, PathBuf, File) {
    let (mut pod, log) = Pod::with_log();
    pod.patterns(&[pattern]);
    let writer = append_to(&log);
    (pod, log, writer)
}

/// The real logrotate, three times, so that the copies are renamed too. What was written before a
/// rotation was delivered or not.
#[test]
fn f10_logrotate_copies_and_truncates() {
    for pattern in PATTERNS {
        let (mut pod, log, mut writer) = pod_matching(pattern);
        let agent = pod.start();
        for _ in 0..3 {
            pod.ledger.write(&mut writer, 300);
            pod.expect_all();
            if !logrotate(&pod, &log, "rotate 9\ncopytruncate") {
                return;
            }
            pod.ledger.write(&mut writer, 500);
        }
        assert_eq!(pod.finish(agent), 0, "{pattern}");
        pod.ledger.write(&mut writer, 10);
        let agent = pod.start();

        assert_eq!(pod.finish(agent), 0, "{pattern}, after a restart");
    }
}

/// All of it between two looks, and the file is longer than before when the agent sees it.
#[test]
fn f10_copied_truncated_and_refilled_within_one_look() {
    for pattern in PATTERNS {
        let (mut pod, log, mut writer) = pod_matching(pattern);
        pod.ledger.write(&mut writer, 300);
        let agent = pod.start();
        pod.expect_all();
        for _ in 0..3 {
            agent.suspend();
            copytruncate(&log, 9);
            pod.ledger.write(&mut writer, 500);
            agent.resume();
            pod.expect_all();
        }

        assert_eq!(pod.finish(agent), 0, "{pattern}");
    }
}

/// What was written since the last look stands in the copy only, and the agent has never seen it.
#[test]
fn f10_what_was_written_since_the_last_look_is_read_from_the_copy() {
    for pattern in PATTERNS {
        let (mut pod, log, mut writer) = pod_matching(pattern);
        pod.ledger.write(&mut writer, 300);
        let agent = pod.start();
        pod.expect_all();
        for _ in 0..3 {
            agent.suspend();
            pod.ledger.write(&mut writer, 100);
            copytruncate(&log, 9);
            pod.ledger.write(&mut writer, 10);
            agent.resume();
            pod.expect_all();
        }

        assert_eq!(pod.finish(agent), 0, "{pattern}");
    }
}

/// An app begins its log with the same line each time. What an older generation holds behind that
/// line was never to be shipped.
#[test]
fn f10_an_older_generation_that_begins_the_same_is_no_copy() {
    let (mut pod, log) = Pod::with_log();
    pod.ledger.append(&log, 1);
    let old = log.with_extension("log.1");
    fs::copy(&log, &old).unwrap();
    append_to(&old).write_all(b"before the agent came\n").unwrap();
    let old = append_to(&old);
    old.set_modified(old.metadata().unwrap().modified().unwrap() - Duration::from_secs(600))
        .unwrap();
    let agent = pod.start();
    let mut writer = append_to(&log);
    for round in 0..3 {
        pod.expect_all();
        writer.set_len(0).unwrap();
        wait_for("it to be seen", || pod.times_logged("truncated or rewritten") > round);
        pod.ledger.write_again(&mut writer, 0..1);
        pod.ledger.append(&log.with_file_name("other.log"), 1);
    }

    assert_eq!(pod.finish(agent), 0);
}

/// Without notifications a look begins with the names: it meets the copy before it sees that the
/// original is shorter.
#[test]
fn f10_copied_and_truncated_between_two_polls() {
    for refill in [20, 500] {
        let (mut pod, log, mut writer) = pod_matching("share/logs/app.log*");
        pod.ledger.write(&mut writer, 300);
        let Some(agent) = pod.start_with_user_limit("max_inotify_instances", 0) else {
            return;
        };
        for _ in 0..3 {
            pod.expect_all();
            copytruncate(&log, 9);
            pod.ledger.write(&mut writer, refill);
        }

        assert_eq!(pod.finish(agent), 0, "{refill}");
    }
}

/// A look meets the copy while it is made, cut off within a line. Until the next look it is complete,
/// and the original is emptied and filled again; no agent may run meanwhile.
#[test]
fn f10_a_copy_that_is_met_half_made_repeats_nothing() {
    for is_killed in [false, true] {
        for once in ["false", "true"] {
            let (mut pod, log, mut writer) = pod_matching("share/logs/app.log*");
            pod.set("LOGFERRY_READ_LINGER", "1ms").set("LOGFERRY_EXACTLY_ONCE", once);
            pod.ledger.write(&mut writer, 600);
            let mut agent = pod.start();
            pod.expect_all();
            for round in 0..3 {
                let rest = begin_copy(&mut pod, &log, round);
                let mut finish_copying = |pod: &mut Pod| {
                    append_to(&numbered(&log, 1)).write_all(&rest).unwrap();
                    writer.set_len(0).unwrap();
                    pod.ledger.write(&mut writer, 500);
                };
                if is_killed {
                    // What is saved then is what a kill leaves.
                    let mark = format!("share/logs/app.log-mark-{round}");
                    pod.await_saved(&mark, fs::metadata(pod.path(&mark)).unwrap().len());
                    agent.kill();
                    finish_copying(&mut pod);
                    agent = pod.start();
                } else {
                    agent.suspend();
                    finish_copying(&mut pod);
                    agent.resume();
                }
                pod.expect_all();
            }

            assert_eq!(pod.finish(agent), 0, "killed: {is_killed}, exactly once: {once}");
        }
    }
}

/// Makes room for the copy of a log and copies the first half of it; returns when the agent has
/// looked at that, with what is still to be copied.
fn begin_copy(pod: &mut Pod, log: &Path, round: usize) -> Vec<u8> {
    shift(log, 9);
    let text = fs::read(log).unwrap();
    let half = text.len() / 2;
    let half = half + usize::from(text[half - 1] == b'\n');
    append_to(&numbered(log, 1)).write_all(&text[..half]).unwrap();
    // A look that finds this one has met the copy.
    pod.ledger.append(&log.with_file_name(format!("app.log-mark-{round}")), 1);
    pod.expect_all();
    text[half..].to_vec()
}

/// The same, but the copying breaks off: the copy ends where no reading of the original has ended, so
/// nothing proves what it got after it was met. That comes again, whole lines only.
#[test]
fn f10_what_cannot_be_proved_of_a_copy_comes_again_from_the_start_of_a_line() {
    let (mut pod, log, mut writer) = pod_matching("share/logs/app.log*");
    pod.set("LOGFERRY_READ_LINGER", "1ms");
    pod.ledger.write(&mut writer, 600);
    let agent = pod.start();
    pod.expect_all();
    let rest = begin_copy(&mut pod, &log, 0);
    let end = rest[..rest.len() / 2].iter().rposition(|&byte| byte == b'\n').unwrap();
    let rest = &rest[..=end];
    agent.suspend();
    append_to(&numbered(&log, 1)).write_all(rest).unwrap();
    writer.set_len(0).unwrap();
    pod.ledger.write(&mut writer, 500);
    agent.resume();

    let repeats = pod.finish(agent);
    let again = rest.iter().filter(|&&byte| byte == b'\n').count();
    assert!(repeats <= again, "{repeats} lines came again, and {again} could not be proved");
}

/// What the app writes between the copying and the emptying is read from the original, before the copy
/// is met: the copy is shorter than what is known, and ends where a reading has ended.
#[test]
fn f10_a_copy_that_is_shorter_than_what_was_read_repeats_nothing() {
    let (mut pod, log, mut writer) = pod_matching("share/logs/app.log*");
    let agent = pod.start();
    for _ in 0..3 {
        pod.ledger.write(&mut writer, 600);
        pod.expect_all();
        let copy = pod.path("copy");
        fs::copy(&log, &copy).unwrap();
        pod.ledger.write(&mut writer, 50);
        pod.expect_all();
        agent.suspend();
        shift(&log, 9);
        fs::rename(&copy, numbered(&log, 1)).unwrap();
        writer.set_len(0).unwrap();
        pod.ledger.write(&mut writer, 500);
        agent.resume();
        pod.expect_all();
    }

    assert_eq!(pod.finish(agent), 0);
}

/// Copied a piece at a time and emptied, again and again, while the app writes and the agent looks as
/// often as it can. (Between the last piece and the emptying nothing is written: that would be in
/// neither.)
#[test]
fn f10_many_logs_copied_and_truncated_under_writes() {
    let mut pod = Pod::new();
    pod.link("data/pod/logs");
    pod.patterns(&["share/logs/*.log*"]).set("LOGFERRY_READ_LINGER", "1ms");
    let logs: Vec<PathBuf> =
        (0..60).map(|number| pod.path(&format!("data/pod/logs/{number:02}.log"))).collect();
    let agent = pod.start();
    for _ in 0..8 {
        for log in &logs {
            let mut writer = append_to(log);
            pod.ledger.write(&mut writer, 40);
            shift(log, 99);
            let mut copied = 0;
            let mut copy = append_to(&numbered(log, 1));
            for _ in 0..4 {
                let text = fs::read(log).unwrap();
                let end = copied + (text.len() - copied) * 2 / 3;
                copy.write_all(&text[copied..end]).unwrap();
                copied = end;
                pod.ledger.write(&mut writer, 10);
                pause(Duration::from_millis(1));
            }
            copy.write_all(&fs::read(log).unwrap()[copied..]).unwrap();
            writer.set_len(0).unwrap();
        }
    }

    assert_eq!(pod.finish(agent), 0);
}

/// `compress` and `copytruncate`: the copy is a .gz.
#[test]
fn f10_logrotate_copies_truncates_and_compresses() {
    let (mut pod, log, mut writer) = pod_matching("share/logs/app.log*");
    let agent = pod.start();
    for _ in 0..3 {
        pod.ledger.write(&mut writer, 300);
        pod.expect_all();
        if !logrotate(&pod, &log, "rotate 9\ncopytruncate\ncompress") {
            return;
        }
        pod.ledger.write(&mut writer, 300);
    }
    assert_eq!(pod.finish(agent), 0);
    let agent = pod.start();
    pod.ledger.write(&mut writer, 10);

    assert_eq!(pod.finish(agent), 0);
}

/// Without an agent: the rest of what was not delivered is in the copy only.
#[test]
fn f10_the_rest_is_read_from_the_copy_when_the_agent_was_away() {
    for pattern in PATTERNS {
        let (mut pod, log, mut writer) = pod_matching(pattern);
        pod.ledger.write(&mut writer, 300);
        let agent = pod.start();
        pod.expect_all();
        assert_eq!(agent.stop().0, 0);
        pod.ledger.write(&mut writer, 200);
        copytruncate(&log, 9);
        pod.ledger.write(&mut writer, 100);
        let agent = pod.start();
        assert_eq!(pod.finish(agent), 0, "{pattern}");
        let agent = pod.start();

        assert_eq!(pod.finish(agent), 0, "{pattern}, after a restart");
    }
}

/// The endpoint is down and the file was read in part only: the rest is in the copy, which the
/// patterns find, or which stands beside what they find.
#[test]
fn f10_the_rest_is_read_from_the_copy_when_the_endpoint_was_down() {
    check_rest_in_copy("share/logs/app.log*");
}

#[test]
fn f10_the_rest_is_read_from_a_copy_that_no_pattern_finds() {
    check_rest_in_copy("share/logs/app.log");
}

fn check_rest_in_copy(pattern: &str) {
    let (mut pod, log, mut writer) = pod_matching(pattern);
    pod.keep_memory_small();
    pod.mock.stop();
    pod.ledger.write_kib(&mut writer, 16 << 10);
    let agent = pod.start();
    agent.wait_until_open(&log);
    agent.suspend();
    copytruncate(&log, 9);
    pod.ledger.write(&mut writer, 500);
    agent.resume();
    pod.mock.resume().unwrap();

    assert_eq!(pod.finish(agent), 0);
}

/// The writer does not append, so it goes on where it was: behind a hole as long as the old text.
fn write_behind_a_hole(pod: &mut Pod, log: &Path, writer: &mut File, count: usize) -> u64 {
    copytruncate(log, 9);
    let hole = writer.stream_position().unwrap();
    pod.ledger.write(writer, count);
    hole
}

#[test]
fn f15_the_hole_of_a_writer_that_does_not_append_is_skipped_and_counted() {
    for is_running in [true, false] {
        let (mut pod, log) = Pod::with_log();
        let admin = pod.admin();
        let mut writer = File::create(&log).unwrap();
        pod.ledger.write(&mut writer, 2000);
        let mut agent = pod.start();
        pod.expect_all();
        let mut holes = Vec::new();
        for _ in 0..2 {
            if is_running {
                holes.push(write_behind_a_hole(&mut pod, &log, &mut writer, 300));
            } else {
                assert_eq!(agent.stop().0, 0);
                // The counters begin anew with the process.
                holes = vec![write_behind_a_hole(&mut pod, &log, &mut writer, 300)];
                agent = pod.start();
            }
            pod.expect_all();
        }

        let skipped = holes.iter().sum();
        admin.expect_metric(r#"logferry_skipped_bytes_total{reason="hole"}"#, skipped);
        let logged = pod.logged_numbers("a hole of NUL bytes is skipped", "bytes");
        assert!(logged.ends_with(&holes), "{holes:?} were logged as {logged:?}");
        assert_eq!(pod.finish(agent), 0);
    }
}

/// What no memory and no request could hold.
#[test]
fn f15_a_hole_of_256_mb_costs_no_memory() {
    let (mut pod, log) = Pod::with_log();
    pod.keep_memory_small();
    let admin = pod.admin();
    let mut writer = File::create(&log).unwrap();
    writer.seek(SeekFrom::Start(256 << 20)).unwrap();
    pod.ledger.write(&mut writer, 300);
    let agent = pod.start();
    pod.expect_all();

    let resident = agent.resident_bytes() >> 20;
    assert!(resident < 80, "{resident} MB resident");
    admin.expect_metric(r#"logferry_skipped_bytes_total{reason="hole"}"#, 256 << 20);
    assert_eq!(pod.finish(agent), 0);
}

/// Nothing but a hole yet, as `fallocate` leaves it: the agent waits, and does not hold up a drain.
#[test]
fn f15_preallocated_space_is_waited_on() {
    let (mut pod, log) = Pod::with_log();
    let mut writer = File::create(&log).unwrap();
    pod.ledger.write(&mut writer, 100);
    writer.set_len(1 << 20).unwrap();
    pod.set("LOGFERRY_PARTIAL_LINE_TIMEOUT", "300ms");
    let agent = pod.start();
    pod.expect_all();
    pause(Duration::from_millis(800));
    pod.ledger.write(&mut writer, 100);

    assert_eq!(pod.finish(agent), 0, "NULs were sent, or cost lines");
    assert_eq!(writer.metadata().unwrap().len(), 1 << 20, "the end is still to be written");
}

/// What an app does over and over is summed up in the log.
#[test]
fn k12_a_file_that_is_rewritten_again_and_again_costs_a_few_lines() {
    const TIMES: u64 = 100;
    let (mut pod, log) = Pod::with_log();
    let admin = pod.admin();
    let agent = pod.start();
    for round in 0..TIMES {
        let mut file = File::create(&log).unwrap();
        // Shorter each time, so that each time is noticed.
        let count = usize::try_from(TIMES - round).unwrap();
        pod.ledger.write(&mut file, count);
        pod.expect_all();
        admin.expect_metric("logferry_file_events_total{event=\"truncated\"}", round);
    }
    assert_eq!(pod.finish(agent), 0);

    for (one, sum) in [
        ("it was truncated or rewritten", "files began anew more often"),
        ("a file is done", "more files are done"),
    ] {
        let (said, sums) = (pod.times_logged(one), pod.times_logged(sum));
        assert!(said <= 25, "{said} times: {one}");
        assert!((1..=5).contains(&sums), "{sums} times: {sum}");
    }
    let summed: u64 = pod.logged_numbers("files began anew more often", "times").iter().sum();
    let said = pod.times_logged("it was truncated or rewritten") as u64;
    assert_eq!(said + summed, TIMES - 1, "each time is in the log");
}
