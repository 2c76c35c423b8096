//! Rotation while the endpoint is down (F03, F04): all generations wait, those that were deleted
//! within a budget.

use std::fs;
use std::time::Duration;

use crate::support::{Admin, Agent, Pod, append_to, each, numbered, pause, rotate, wait_for};

/// The agent says that it has given a file up.
const GIVEN_UP: &str = "a deleted file is given up to keep within held_deleted_bytes_max";

/// What was lost of such files.
const SKIPPED: &str = r#"logferry_skipped_bytes_total{reason="deleted"}"#;

/// Within this time the agent has ended what it is doing. (If not, the scenario is an easier one.)
const OVER: Duration = Duration::from_millis(100);

/// Generations of 1 MiB each, rotated one after the other; after each the agent has opened the new
/// file, so that what is deleted later is in its hands.
fn write_generations(pod: &mut Pod, agent: &Agent, count: usize, keep: usize) {
    let log = pod.path("data/pod/logs/app.log");
    for generation in 1..=count {
        let mut writer = append_to(&log);
        agent.wait_until_open(&log);
        pod.ledger.write_kib(&mut writer, 1024);
        if generation < count {
            rotate(&log, keep);
        }
        let (open, resident) = (agent.open_paths().len(), agent.resident_bytes() >> 20);
        assert!(open <= generation + 32, "{open} descriptors for {generation} files");
        assert!(resident < 80, "{resident} MB resident");
    }
}

/// Only `*.log` matches, so each rotated file leaves the patterns.
#[test]
fn f03_thirty_rotations_while_the_endpoint_is_down() {
    let (mut pod, _) = Pod::with_log();
    pod.keep_memory_small();
    pod.mock.stop();
    let agent = pod.start();
    write_generations(&mut pod, &agent, 30, 40);
    pod.mock.resume().unwrap();

    assert_eq!(pod.finish(agent), 0);
    assert_eq!(pod.shipped_paths(), ["share/logs/app.log".to_owned()].into());
}

/// As fast as the disk takes it, and the patterns find all generations: none needs to be seen while
/// it is young.
#[test]
fn f03_thirty_rotations_at_once_when_the_patterns_find_all_of_them() {
    let (mut pod, log) = Pod::with_log();
    pod.keep_memory_small();
    pod.patterns(&["share/logs/app.log*"]);
    pod.mock.stop();
    let agent = pod.start();
    for _ in 0..30 {
        pod.ledger.write_kib(&mut append_to(&log), 400);
        rotate(&log, 40);
    }
    pod.ledger.append(&log, 1);
    wait_for("all files to be open", || {
        agent.open_paths().iter().filter(|path| path.contains("app.log")).count() == 31
    });
    pod.mock.resume().unwrap();

    assert_eq!(pod.finish(agent), 0);
}

/// Killed while all generations wait: their names lead to them.
#[test]
fn f03_generations_that_wait_survive_a_kill() {
    let (mut pod, log) = Pod::with_log();
    pod.keep_memory_small();
    pod.mock.stop();
    let agent = pod.start();
    write_generations(&mut pod, &agent, 12, 40);
    wait_for("the rotations to be seen", || pod.rotations_seen() >= 11);
    // Two more are made and rotated away without an agent.
    agent.kill();
    for _ in 0..2 {
        rotate(&log, 40);
        pod.ledger.write_kib(&mut append_to(&log), 100);
    }
    pod.mock.resume().unwrap();
    let agent = pod.start();

    assert_eq!(pod.finish(agent), 0, "nothing had arrived before");
}

/// Faster than the agent looks: most generations were never seen under a name that the patterns
/// find, and stand beside the file that is known.
#[test]
fn f03_generations_that_were_rotated_away_before_a_look_are_found_by_their_names() {
    let (mut pod, log) = Pod::with_log();
    pod.ledger.append(&log, 100);
    let agent = pod.start();
    pod.expect_all();
    agent.suspend();
    for _ in 0..5 {
        pod.ledger.append(&log, 200);
        rotate(&log, 9);
    }
    pod.ledger.append(&log, 200);
    agent.resume();

    assert_eq!(pod.finish(agent), 0);
    assert_eq!(pod.shipped_paths(), ["share/logs/app.log".to_owned()].into());
}

/// An app writes to its file anew only when it has a line; until then the name stands for nothing.
#[test]
fn f03_a_generation_that_came_and_went_while_the_name_was_free_is_found() {
    let (mut pod, log) = Pod::with_log();
    pod.ledger.append(&log, 100);
    let agent = pod.start();
    pod.expect_all();
    for turn in 1..=2 {
        rotate(&log, 9);
        wait_for("the rotation to be seen", || pod.rotations_seen() >= 2 * turn - 1);
        pause(OVER);
        agent.suspend();
        pod.ledger.append(&log, 200);
        rotate(&log, 9);
        agent.resume();
        pod.expect_all();
        pod.ledger.append(&log, 200);
        pod.expect_all();
    }
    assert_eq!(pod.finish(agent), 0);

    rotate(&log, 9);
    let admin = pod.admin();
    let agent = pod.start();
    admin.wait_until_ready();
    pause(OVER);
    agent.suspend();
    pod.ledger.append(&log, 200);
    rotate(&log, 9);
    agent.resume();

    assert_eq!(pod.finish(agent), 0);
    assert_eq!(pod.shipped_paths(), ["share/logs/app.log".to_owned()].into());
}

/// Twice within a moment while the agent runs, the second time just after a look that found the name
/// free: what came and went is found, however long after that look.
#[test]
fn f03_a_generation_that_came_and_went_after_a_look_in_vain_is_found() {
    each(&[0, 10, 50, 100, 250, 600, 1500], |&after| {
        for pattern in ["share/logs/*.log", "share/logs/app.log"] {
            let (mut pod, log) = Pod::with_log();
            pod.patterns(&[pattern]);
            pod.ledger.append(&log, 100);
            let agent = pod.start();
            pod.expect_all();
            for _ in 0..3 {
                let seen = pod.rotations_seen();
                rotate(&log, 9);
                wait_for("the rotation to be seen", || pod.rotations_seen() > seen);
                pause(Duration::from_millis(after));
                pod.ledger.append(&log, 20);
                rotate(&log, 9);
                pod.ledger.append(&log, 20);
                pod.expect_all();
            }

            assert_eq!(pod.finish(agent), 0, "{pattern}");
            let agent = pod.start();
            pod.ledger.append(&log, 1);
            assert_eq!(pod.finish(agent), 0, "{pattern}, after a restart");
            assert_eq!(pod.shipped_paths(), ["share/logs/app.log".to_owned()].into());
        }
    });
}

/// Rotation keeps three files; the others are deleted and wait in our descriptors.
#[test]
fn f04_deleted_generations_within_the_budget_all_arrive() {
    let (mut pod, _) = Pod::with_log();
    pod.keep_memory_small();
    pod.set("LOGFERRY_HELD_DELETED_BYTES_MAX", "64MiB");
    let admin = pod.admin();
    pod.mock.stop();
    let agent = pod.start();
    write_generations(&mut pod, &agent, 16, 3);
    wait_for("the deleted files to be known", || held_bytes(&admin) > 4 << 20);
    pod.mock.resume().unwrap();

    assert_eq!(pod.finish(agent), 0);
    assert_eq!(pod.times_logged(GIVEN_UP), 0);
}

/// The budget holds four of the deleted files. The oldest are given up, no more of them than
/// needed, and what is lost is known to the byte.
#[test]
fn f04_beyond_the_budget_the_oldest_are_given_up_and_counted_to_the_byte() {
    const BUDGET: u64 = 4 << 20;
    let (mut pod, log) = Pod::with_log();
    pod.keep_memory_small();
    pod.set("LOGFERRY_HELD_DELETED_BYTES_MAX", &BUDGET.to_string());
    let admin = pod.admin();
    pod.mock.stop();
    let agent = pod.start();
    write_generations(&mut pod, &agent, 30, 3);
    let held_files =
        || agent.open_paths().iter().filter(|path| path.ends_with("(deleted)")).count();
    wait_for("the oldest to be given up", || {
        let skipped = admin.metric(SKIPPED);
        skipped > Some(0) && held_files() <= 4
    });
    let held = held_bytes(&admin);
    assert!(held <= BUDGET, "{held} bytes are held");
    pod.mock.resume().unwrap();

    wait_for("an end", || admin.metric("logferry_lag_bytes") == Some(0));
    let missing = pod.ledger.missing_numbers(&pod.mock);
    let lost = missing.len() as u64 * 1024;
    admin.expect_metric(SKIPPED, lost);
    admin.expect_metric("logferry_generations_unbalanced_total", 0);
    let skipped: u64 = pod.logged_numbers(GIVEN_UP, "skipped").iter().sum();
    assert_eq!(skipped, lost, "the log says the same");
    // 26 of 30 are deleted, and four of them fit.
    assert!(lost >= 1 << 20, "{lost} bytes were lost");
    let newest_lost = missing.last().map(|line| line / 1024);
    assert!(newest_lost < Some(22), "generation {newest_lost:?} was lost, and others are older");
    assert_eq!(pod.ledger.check(&pod.mock), 0);
    pod.expect_sound();

    // Nothing of it comes back: the next start knows nothing of them and ships the rest.
    assert_eq!(agent.stop().0, 0, "{}", pod.agent_log());
    let agent = pod.start();
    let before = pod.mock.store().line_count();
    pod.ledger.append(&log, 10);
    wait_for("the next lines", || pod.mock.store().line_count() >= before + 10);
    assert_eq!(agent.stop().0, 0);
    assert_eq!(pod.ledger.check(&pod.mock), 0);
}

/// A file that is alone larger than the budget is given up too; one that has a name never is.
#[test]
fn f04_a_file_with_a_name_is_never_given_up() {
    let (mut pod, log) = Pod::with_log();
    pod.keep_memory_small();
    pod.set("LOGFERRY_HELD_DELETED_BYTES_MAX", "64KiB");
    let admin = pod.admin();
    pod.mock.stop();
    let deleted = log.with_file_name("deleted.log");
    let kept = log.with_file_name("kept.log");
    pod.ledger.write_kib(&mut append_to(&kept), 4 << 10);
    let agent = pod.start();
    agent.wait_until_open(&kept);
    fs::rename(&kept, numbered(&kept, 1)).unwrap();
    let lines = pod.ledger.lines.len();
    pod.ledger.write_kib(&mut append_to(&deleted), 16 << 10);
    agent.wait_until_open(&deleted);
    fs::remove_file(&deleted).unwrap();
    pod.wait_for_log(GIVEN_UP, 1);
    pod.mock.resume().unwrap();

    wait_for("an end", || admin.metric("logferry_lag_bytes") == Some(0));
    let missing = pod.ledger.missing_numbers(&pod.mock);
    admin.expect_metric(SKIPPED, missing.len() as u64 * 1024);
    assert!(missing.first() >= Some(&lines), "what has a name arrives whole");
    assert_eq!(pod.ledger.check(&pod.mock), 0);
    pod.expect_sound();
    assert_eq!(agent.stop().0, 0);
}

fn held_bytes(admin: &Admin) -> u64 {
    admin.metric("logferry_held_deleted_bytes").unwrap_or_default()
}
