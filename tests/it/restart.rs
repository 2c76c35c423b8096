//! Rotation and rewriting while no agent runs (F05, F06, F14), files that vanish meanwhile (F38), and
//! what the state directory holds over time (F18).

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use logferry::checkpoint::store;

use crate::support::{
    Meanwhile, PATIENCE, Pod, append_to, compress, copytruncate, each, numbered, pairs, pause,
    rotate, wait_for,
};

/// 500 lines are delivered and the agent is gone; 100 more are in the file.
fn stopped_pod(pattern: &str) -> (Pod, PathBuf) {
    let (mut pod, log) = delivered_pod(pattern);
    pod.ledger.append(&log, 100);
    (pod, log)
}

/// 500 lines are delivered and the agent is gone.
fn delivered_pod(pattern: &str) -> (Pod, PathBuf) {
    let (mut pod, log) = Pod::with_log();
    pod.patterns(&[pattern]);
    pod.ledger.append(&log, 500);
    let agent = pod.start();
    pod.expect_all();
    assert_eq!(agent.stop().0, 0);
    (pod, log)
}

/// Both go on: the renamed one at its offset, the new one from its first byte.
#[test]
fn f05_a_file_renamed_while_the_agent_was_away_is_read_on() {
    for pattern in ["share/logs/app.log", "share/logs/app.log*"] {
        // The new file is shorter than the offset of the old one, and longer.
        for count in [50, 900] {
            let (mut pod, log) = stopped_pod(pattern);
            let mut old = append_to(&log);
            rotate(&log, 9);
            pod.ledger.append(&log, count);
            let agent = pod.start();
            pod.expect_all();
            pod.ledger.write(&mut old, 50);

            assert_eq!(pod.finish(agent), 0, "{pattern} {count}");
        }
    }
}

/// Killed, not stopped: what was delivered and saved is not sent again.
#[test]
fn f05_a_file_renamed_after_a_kill_is_read_on() {
    let (mut pod, log) = Pod::with_log();
    let admin = pod.admin();
    pod.ledger.append(&log, 500);
    let agent = pod.start();
    pod.expect_all();
    let size = pod.ledger.bytes();
    // Saved before it is published.
    wait_for("the acknowledgement", || admin.status()["files"][0]["acked_offset"] == size);
    agent.kill();
    pod.ledger.append(&log, 100);
    rotate(&log, 9);
    pod.ledger.append(&log, 50);
    let agent = pod.start();

    assert_eq!(pod.finish(agent), 0);
}

/// The same head in both: a banner that the app writes at its start.
#[test]
fn f05_files_with_the_same_head_are_told_apart() {
    let (mut pod, log) = Pod::with_log();
    let mut writer = append_to(&log);
    pod.ledger.write_fixed(&mut writer, 100);
    let agent = pod.start();
    pod.expect_all();
    assert_eq!(agent.stop().0, 0);
    pod.ledger.write_fixed(&mut writer, 10);
    rotate(&log, 9);
    let mut next = append_to(&log);
    pod.ledger.write_again(&mut next, 0..50);
    pod.ledger.write_fixed(&mut next, 10);
    let agent = pod.start();

    assert_eq!(pod.finish(agent), 0);
}

/// Moved out of its directory, into one beside it, and another one stands in its place.
#[test]
fn f05_a_file_moved_into_another_matched_directory_is_read_on() {
    let (mut pod, log) = stopped_pod("share/logs/**/*.log");
    fs::create_dir(pod.path("data/pod/logs/old")).unwrap();
    fs::rename(&log, pod.path("data/pod/logs/old/app.log")).unwrap();
    pod.ledger.append(&log, 50);
    let agent = pod.start();

    assert_eq!(pod.finish(agent), 0);
}

/// How rotation names the generation that was rotated away as the so-manyth of four.
type Naming = fn(&Path, usize) -> PathBuf;

fn dated(log: &Path, age: usize) -> PathBuf {
    log.with_file_name(format!("app.log-202611{}", 28 - age))
}

fn inner(log: &Path, age: usize) -> PathBuf {
    log.with_file_name(format!("app.{age}.log"))
}

fn dashed(log: &Path, age: usize) -> PathBuf {
    log.with_file_name(format!("app-2026-11-{}.log", 28 - age))
}

/// Three rotations: of the first file the rest, the two that no agent ever saw whole, and the one
/// that is there now. Only `app.log` matches.
#[test]
fn f06_three_rotations_while_the_agent_was_away() {
    let namings: [Naming; 4] = [numbered, dated, inner, dashed];
    for naming in namings {
        let (mut pod, log) = stopped_pod("share/logs/app.log");
        rotate_away(&mut pod, &log, naming);
        let agent = pod.start();

        assert_eq!(pod.finish(agent), 0, "{}", naming(&log, 1).display());
        assert_eq!(pod.shipped_paths(), ["share/logs/app.log".to_owned()].into());
        // Known from now on.
        let agent = pod.start();
        pod.ledger.append(&log, 10);
        assert_eq!(pod.finish(agent), 0, "{}", naming(&log, 1).display());
    }
}

fn rotate_away(pod: &mut Pod, log: &Path, naming: Naming) {
    for rotation in 1..=3 {
        for age in (1..rotation).rev() {
            fs::rename(naming(log, age), naming(log, age + 1)).unwrap();
        }
        fs::rename(log, naming(log, 1)).unwrap();
        pod.ledger.append(log, 300);
    }
}

/// The clock was fast while an agent ran, and is set right while none does: what was made meanwhile is
/// older than the last look, by that clock.
#[test]
fn f06_three_rotations_after_the_clock_was_set_right() {
    let cases = pairs(&[90, 3600, 86_400], &Meanwhile::AWAY);
    let namings: [Naming; 3] = [numbered, dated, inner];
    let cases: Vec<_> = cases.into_iter().zip([0, 1, 2].into_iter().cycle()).collect();
    each(&pairs(&cases, &[false, true]), |&(((ahead, how), naming), is_copied)| {
        let (mut pod, log) = Pod::with_log();
        pod.patterns(&["share/logs/app.log"]);
        if pod.fake_clock(ahead).is_none() {
            return;
        }
        pod.ledger.append(&log, 500);
        let agent = pod.start();
        let agent = pod.meanwhile(agent, how, |pod| {
            pod.set_clock(0);
            pod.ledger.append(&log, 100);
            if is_copied {
                for _ in 0..3 {
                    copytruncate(&log, 9);
                    pod.ledger.append(&log, 300);
                }
            } else {
                rotate_away(pod, &log, namings[naming]);
            }
        });

        assert_eq!(pod.finish_twice(agent, &log), 0);
        assert_eq!(pod.shipped_paths(), ["share/logs/app.log".to_owned()].into());
    });
}

/// The same while an agent runs, or stands still.
#[test]
fn f06_rotations_while_the_clock_is_set_right_under_an_agent() {
    each(&pairs(&[3600, 86_400], &[true, false]), |&(ahead, is_frozen)| {
        let (mut pod, log) = Pod::with_log();
        pod.patterns(&["share/logs/app.log"]);
        if pod.fake_clock(ahead).is_none() {
            return;
        }
        pod.ledger.append(&log, 500);
        let agent = pod.start();
        pod.expect_all();
        if !is_frozen {
            pod.set_clock(0);
        }
        let agent = pod.meanwhile(agent, Meanwhile::Frozen, |pod| {
            pod.set_clock(0);
            pod.ledger.append(&log, 100);
            rotate_away(pod, &log, numbered);
        });

        assert_eq!(pod.finish_twice(agent, &log), 0);
    });
}

#[test]
fn f06_three_rotations_within_the_patterns() {
    let (mut pod, log) = stopped_pod("share/logs/app.log*");
    rotate_away(&mut pod, &log, numbered);
    let agent = pod.start();

    assert_eq!(pod.finish(agent), 0);
}

/// Another agent's search ends after 1000 names.
#[test]
fn f06_a_renamed_file_is_found_among_three_thousand_names() {
    let (mut pod, log) = stopped_pod("share/logs/app.log");
    for number in 0..3000 {
        fs::write(log.with_file_name(format!("other-{number:04}")), "not a log\n").unwrap();
    }
    rotate_away(&mut pod, &log, numbered);
    let agent = pod.start();

    assert_eq!(pod.finish(agent), 0);
}

/// What stood there before the agent was first started and never matched is not ours, nor is what
/// only looks alike.
#[test]
fn f06_what_no_pattern_ever_found_is_left_alone() {
    let (mut pod, log) = Pod::with_log();
    pod.patterns(&["share/logs/app.log"]);
    fs::write(numbered(&log, 1), "older than the agent\n").unwrap();
    // What the agent remembers of its last look is the second.
    pause(Duration::from_millis(1100));
    pod.ledger.append(&log, 100);
    let agent = pod.start();
    pod.expect_all();
    assert_eq!(agent.stop().0, 0);
    for name in ["other.log.1", "application.log.1", "app.logs", "app.log.lock", "xapp.log.1"] {
        fs::write(log.with_file_name(name), "of somebody else\n").unwrap();
    }
    rotate(&log, 9);
    pod.ledger.append(&log, 50);
    let agent = pod.start();

    assert_eq!(pod.finish(agent), 0);
}

/// `compress` without delay: the file that was being read, and one that no agent ever saw, are
/// compressed when it comes back.
#[test]
fn f06_generations_compressed_while_the_agent_was_away() {
    for pattern in ["share/logs/app.log*", "share/logs/app.log"] {
        let (mut pod, log) = stopped_pod(pattern);
        rotate_away(&mut pod, &log, numbered);
        compress(&numbered(&log, 3));
        compress(&numbered(&log, 2));
        let agent = pod.start();

        assert_eq!(pod.finish(agent), 0, "{pattern}");
        let agent = pod.start();
        assert_eq!(pod.finish(agent), 0, "{pattern}");
    }
}

/// `olddir`: moved into another directory, which no pattern reaches.
#[test]
fn f06_a_file_moved_to_another_directory_while_the_agent_was_away_is_read_on() {
    let (mut pod, log) = stopped_pod("share/logs/*.log");
    fs::create_dir(log.with_file_name("old")).unwrap();
    fs::rename(&log, log.with_file_name("old").join("app.log.1")).unwrap();
    pod.ledger.append(&log, 300);
    let agent = pod.start();

    assert_eq!(pod.finish(agent), 0);
}

/// The patterns find a renamed file, and not any more the name that it had in an earlier run.
#[test]
fn f06_a_file_known_by_a_name_that_no_pattern_finds_any_more_is_read_on() {
    let (mut pod, log) = stopped_pod("share/logs/app.log");
    let mut writer = append_to(&log);
    let old = log.with_file_name("old-1.log");
    fs::rename(&log, &old).unwrap();
    pod.patterns(&["share/logs/old-1.log"]);
    let agent = pod.start();
    assert_eq!(pod.finish(agent), 0);

    pod.ledger.write(&mut writer, 50);
    fs::rename(&old, log.with_file_name("old-2.log")).unwrap();
    let agent = pod.start();

    assert_eq!(pod.finish(agent), 0);
}

/// Delivered, then emptied and written anew (`command > app.log`) and renamed out of the patterns, all
/// of it while no agent runs: only what is remembered of it leads there.
/// It was delivered when somebody looked last, and may not be read as long as its link is not there.
#[test]
fn f38_a_file_that_grew_and_waits_for_its_link_is_not_everything_delivered() {
    let (mut pod, log) = Pod::with_log();
    pod.ledger.append(&log, 100);
    let agent = pod.start();
    pod.expect_all();
    assert_eq!(agent.stop().0, 0, "{}", pod.agent_log());
    pod.ledger.append(&log, 10);
    fs::remove_file(pod.path("share/logs")).unwrap();
    let admin = pod.admin();
    let agent = pod.start();
    admin.wait_until_ready();

    assert_eq!(agent.stop().0, 75, "{}", pod.agent_log());

    assert_eq!(pod.times_logged("reason=the link by which it was found is not there"), 1);
    pod.link("data/pod/logs");
    let agent = pod.start();
    assert_eq!(pod.finish(agent), 0);
}

#[test]
fn f14_a_file_rewritten_and_renamed_while_the_agent_was_away_is_read_from_its_first_byte() {
    for name in ["app.log.1", "app.log.bak", "old/app.log"] {
        for count in [50, 900] {
            let (mut pod, log) = delivered_pod("share/logs/app.log");
            fs::create_dir(log.with_file_name("old")).unwrap();
            let renamed = log.with_file_name(name);
            for round in 0..2 {
                pod.ledger.write(&mut File::create(&log).unwrap(), count + round);
                fs::rename(&log, &renamed).unwrap();
                pod.ledger.append(&log, 20);
                let agent = pod.start();

                assert_eq!(pod.finish(agent), 0, "{name} {count} {round}");
            }
            // Known from now on.
            let agent = pod.start();
            pod.ledger.append(&renamed, 10);
            assert_eq!(pod.finish(agent), 0, "{name} {count}");
            assert_eq!(pod.shipped_paths(), ["share/logs/app.log".to_owned()].into());
        }
    }
}

/// It stayed where it was, and the link that led there was pointed elsewhere.
#[test]
fn f14_a_file_rewritten_and_left_by_its_link_while_the_agent_was_away_is_read() {
    for count in [50, 900] {
        let (mut pod, log) = delivered_pod("share/logs/*.log");
        pod.ledger.write(&mut File::create(&log).unwrap(), count);
        pod.link("data/pod/logs-2");
        pod.ledger.append(&pod.path("data/pod/logs-2/app.log"), 20);
        let agent = pod.start();
        assert_eq!(pod.finish(agent), 0, "{count}");
        let agent = pod.start();

        assert_eq!(pod.finish(agent), 0, "{count}");
    }
}

/// What was not delivered of the old text is in a copy.
#[test]
fn f14_a_file_copied_rewritten_and_renamed_while_the_agent_was_away_is_read_with_its_copy() {
    let (mut pod, log) = stopped_pod("share/logs/app.log");
    copytruncate(&log, 9);
    pod.ledger.append(&log, 300);
    fs::rename(&log, log.with_extension("log.bak")).unwrap();
    pod.ledger.append(&log, 20);
    let agent = pod.start();

    assert_eq!(pod.finish(agent), 0);
}

/// 500 lines are delivered and 100 more were read; then the agent ends, told or killed, without an
/// endpoint. Returns how many bytes were delivered, and how many were not.
fn undelivered_pod(is_killed: bool) -> (Pod, PathBuf, u64, u64) {
    let (mut pod, log) = Pod::with_log();
    pod.set("LOGFERRY_DRAIN_DEADLINE", "1s");
    pod.ledger.append(&log, 500);
    let agent = pod.start();
    pod.expect_all();
    let delivered = pod.ledger.bytes();
    pod.await_saved("share/logs/app.log", delivered);
    pod.mock.stop();
    pod.ledger.append(&log, 100);
    let rest = pod.ledger.bytes() - delivered;
    if is_killed {
        wait_for("a save", || saved_rest(&pod) == Some(rest));
        agent.kill();
    } else {
        assert_eq!(agent.stop().0, 75);
    }
    pod.mock.resume().unwrap();
    pod.set("LOGFERRY_DRAIN_DEADLINE", "25s");
    (pod, log, delivered, rest)
}

fn saved_rest(pod: &Pod) -> Option<u64> {
    let saved = store::peek(&pod.path("state")).checkpoints;
    saved.iter().find(|one| one.path.ends_with("app.log"))?.rest
}

const NOWHERE: &str = "not delivered to its end is found nowhere";

/// Deleted before all of it was delivered, while no agent ran: that is said, once.
#[test]
fn f38_a_file_that_vanished_before_it_was_delivered_is_named_once() {
    for is_killed in [false, true] {
        let (mut pod, log, delivered, rest) = undelivered_pod(is_killed);
        fs::remove_file(&log).unwrap();
        let other = log.with_file_name("other.log");
        pod.ledger.append(&other, 10);
        let agent = pod.start();
        wait_for("the other file", || pod.mock.store().line_count() == 510);

        assert_eq!(agent.stop().0, 75, "{}", pod.agent_log());

        assert_eq!(pod.logged_numbers(NOWHERE, "offset"), [delivered], "killed: {is_killed}");
        assert_eq!(pod.logged_numbers(NOWHERE, "bytes"), [rest], "killed: {is_killed}");
        let text = pod.agent_log();
        assert!(text.contains("it is found nowhere: deleted"), "{text}");
        let agent = pod.start();
        pod.wait_for_log("logferry starts", 3);
        assert_eq!(agent.stop().0, 0);
        assert_eq!(pod.times_logged(NOWHERE), 1);
    }
}

/// An unfinished last line waits for the next start, and is not there any more.
#[test]
fn f38_a_vanished_unfinished_line_is_named() {
    let (mut pod, log) = delivered_pod("share/logs/app.log");
    pod.set("LOGFERRY_PARTIAL_LINE_TIMEOUT", "1h");
    append_to(&log).write_all(b"half").unwrap();
    let agent = pod.start();
    agent.wait_until_open(&log);
    assert_eq!(agent.stop().0, 0);
    fs::remove_file(&log).unwrap();
    let agent = pod.start();

    assert_eq!(agent.stop().0, 75);
    assert_eq!(pod.logged_numbers(NOWHERE, "bytes"), [4]);
}

/// The bytes were overwritten, and no copy holds them; or one does.
#[test]
fn f38_what_was_overwritten_before_it_was_delivered_is_named() {
    for has_copy in [true, false] {
        let (mut pod, log, _, rest) = undelivered_pod(false);
        if has_copy {
            copytruncate(&log, 9);
        }
        pod.ledger.write(&mut File::create(&log).unwrap(), 50);
        let agent = pod.start();
        let count = if has_copy { 650 } else { 550 };
        wait_for("the lines", || pod.mock.store().line_count() >= count);

        assert_eq!(agent.stop().0, if has_copy { 0 } else { 75 }, "{}", pod.agent_log());
        let bytes = pod.logged_numbers(NOWHERE, "bytes");
        assert_eq!(bytes, if has_copy { vec![] } else { vec![rest] });
        assert_eq!(pod.ledger.check(&pod.mock), 0);
        assert_eq!(pod.ledger.missing(&pod.mock).len(), if has_copy { 0 } else { 100 });
    }
}

/// Whatever was delivered may be deleted or rewritten, and the agent stopped or killed.
#[test]
fn f38_what_was_delivered_is_not_missed() {
    for is_killed in [false, true] {
        let (mut pod, log) = Pod::with_log();
        pod.ledger.append(&log, 500);
        pod.ledger.append(&log.with_file_name("b.log"), 500);
        let agent = pod.start();
        pod.expect_all();
        let logs = [log.clone(), log.with_file_name("b.log")];
        let size = |log: &PathBuf| fs::metadata(log).unwrap().len();
        pod.await_saved("share/logs/app.log", size(&logs[0]));
        pod.await_saved("share/logs/b.log", size(&logs[1]));
        if is_killed {
            agent.kill();
        } else {
            assert_eq!(agent.stop().0, 0);
        }
        fs::remove_file(&log).unwrap();
        pod.ledger.write(&mut File::create(&logs[1]).unwrap(), 50);
        let agent = pod.start();

        assert_eq!(pod.finish(agent), 0);
        assert_eq!(pod.times_logged(NOWHERE), 0);
    }
}

/// A volume that is late is waited for, for a minute; then it is said that it is not there. When it is
/// there after all, everything is delivered, and nothing is missing.
#[test]
fn f38_a_volume_that_is_late_is_waited_for() {
    each(&[false, true], |&is_very_late| {
        let (mut pod, log, _, rest) = undelivered_pod(false);
        let admin = pod.admin();
        let (dir, away) = (pod.path("data/pod"), pod.path("data/elsewhere"));
        fs::rename(&dir, &away).unwrap();
        let agent = pod.start();
        admin.wait_until_ready();
        if is_very_late {
            let started = logferry::base::clock::now();
            while pod.times_logged(NOWHERE) == 0 {
                assert!(logferry::base::clock::now() - started < 3 * PATIENCE, "it says nothing");
                pause(Duration::from_millis(250));
            }
            assert!(logferry::base::clock::now() - started > PATIENCE / 2, "it does not wait");
            admin.expect_metric("logferry_missing_files", 1);
            admin.expect_metric("logferry_missing_bytes", rest);
        }

        fs::rename(&away, &dir).unwrap();
        pod.ledger.append(&log, 10);

        assert_eq!(pod.finish(agent), 0);
        assert_eq!(pod.times_logged(NOWHERE), usize::from(is_very_late));
    });
}

/// Files come and go: what was delivered and deleted is forgotten after a quiet minute, but for the
/// last hundred, whose copies may still be met.
#[test]
fn f18_what_was_deleted_and_delivered_is_forgotten() {
    let (mut pod, log) = Pod::with_log();
    pod.ledger.append(&log, 1);
    let agent = pod.start();
    for number in 0..1000 {
        pod.ledger.append(&log.with_file_name(format!("{number}.log")), 1);
    }
    pod.expect_all();
    wait_for("a save", || state_bytes(&pod) > 50_000);
    let much = state_bytes(&pod);
    for number in 0..1000 {
        fs::remove_file(log.with_file_name(format!("{number}.log"))).unwrap();
    }
    let held = || agent.open_paths().iter().filter(|path| path.ends_with("(deleted)")).count();
    let started = logferry::base::clock::now();
    while held() > 0 {
        assert!(logferry::base::clock::now() - started < 3 * PATIENCE, "{} are held", held());
        pause(Duration::from_millis(250));
    }

    assert_eq!(pod.finish(agent), 0);
    let little = state_bytes(&pod);
    assert!(little < much / 5, "{little} bytes, and {much} with a thousand files");
}

/// Bytes of the newest checkpoint file.
fn state_bytes(pod: &Pod) -> u64 {
    let files = fs::read_dir(pod.path("state")).unwrap().flatten();
    let metadata = files.filter_map(|file| file.metadata().ok());
    let newest = metadata.filter(|one| one.is_file() && one.len() > 0);
    newest.max_by_key(|one| one.modified().unwrap()).map_or(0, |one| one.len())
}
