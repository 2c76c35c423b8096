//! Which files are found and read: links, backlogs, rotation, truncation, polling.

use std::fs;
use std::time::Duration;

use crate::support::{Pod, append_to, pause, wait_for};

#[test]
fn a_link_that_appears_two_seconds_after_the_agent_is_followed() {
    let mut pod = Pod::new();
    let agent = pod.start();
    pause(Duration::from_secs(2));

    pod.link("data/pod/logs");
    let log = pod.path("data/pod/logs/app.log");
    pod.ledger.append(&log, 100);

    assert_eq!(pod.expect_all(), 0);
    let path = pod.path("share/logs/app.log").display().to_string();
    let group = &pod.mock.store().groups()[0];
    assert_eq!(group.tag("__path__"), Some(path), "as configured, the link not resolved");
    assert_eq!(agent.stop().0, 0);
}

#[test]
fn a_dangling_link_is_followed_when_its_target_is_made() {
    let mut pod = Pod::new();
    std::os::unix::fs::symlink(pod.path("data/later/logs"), pod.path("share/logs")).unwrap();
    let agent = pod.start();
    pause(Duration::from_millis(500));

    fs::create_dir_all(pod.path("data/later/logs/deep")).unwrap();
    let log = pod.path("data/later/logs/deep/app.log");
    pod.ledger.append(&log, 10);

    assert_eq!(pod.finish(agent), 0);
}

/// The restarted app points the link elsewhere while the old one still writes.
#[test]
fn both_files_are_read_when_the_link_is_pointed_elsewhere() {
    let mut pod = Pod::new();
    pod.link("data/pod/logs");
    let agent = pod.start();
    let mut old = append_to(&pod.path("data/pod/logs/app.log"));
    pod.ledger.write(&mut old, 100);
    pod.expect_all();

    pod.link("data/pod/logs-2");
    let mut new = append_to(&pod.path("data/pod/logs-2/app.log"));
    for _ in 0..20 {
        pod.ledger.write(&mut old, 10);
        pod.ledger.write(&mut new, 10);
        pause(Duration::from_millis(50));
    }

    assert_eq!(pod.finish(agent), 0);
}

/// The link is pointed elsewhere while no agent runs: the rest of the old file is found by what
/// the checkpoint remembers of it.
#[test]
fn the_rest_of_the_old_file_is_read_when_the_link_moved_while_the_agent_was_away() {
    let mut pod = Pod::new();
    pod.link("data/pod/logs");
    let old = pod.path("data/pod/logs/app.log");
    pod.ledger.append(&old, 100);
    let agent = pod.start();
    pod.expect_all();
    assert_eq!(agent.stop().0, 0);

    pod.ledger.append(&old, 50);
    pod.link("data/pod/logs-2");
    let new = pod.path("data/pod/logs-2/app.log");
    pod.ledger.append(&new, 50);
    let agent = pod.start();

    assert_eq!(pod.finish(agent), 0);
}

#[test]
fn a_backlog_of_100_mb_is_read_from_its_first_byte() {
    let (mut pod, log) = Pod::with_log();
    while pod.ledger.bytes() < 100 << 20 {
        pod.ledger.append(&log, 20_000);
    }
    let agent = pod.start();

    assert_eq!(pod.expect_all(), 0);
    assert!(agent.resident_bytes() < 384 << 20, "{} bytes resident", agent.resident_bytes());
    assert_eq!(agent.stop().0, 0);
}

/// `mv app.log app.log.1`; the writer keeps its descriptor for a while, as apps do.
#[test]
fn a_renamed_file_is_read_to_its_end() {
    let (mut pod, log) = Pod::with_log();
    let agent = pod.start();
    pod.ledger.append(&log, 1);
    pod.expect_all();
    for generation in 1..=5 {
        let mut writer = append_to(&log);
        pod.ledger.write(&mut writer, 1000);
        fs::rename(&log, pod.path(&format!("data/pod/logs/app.log.{generation}"))).unwrap();
        pod.ledger.write(&mut writer, 500);
        let mut next = append_to(&log);
        pod.ledger.write(&mut next, 500);
        pause(Duration::from_millis(250));
        pod.ledger.write(&mut writer, 10);
    }

    assert_eq!(pod.finish(agent), 0);
}

#[test]
fn files_renamed_while_the_agent_was_away_are_read_on() {
    let (mut pod, log) = Pod::with_log();
    pod.ledger.append(&log, 1000);
    let agent = pod.start();
    pod.expect_all();
    assert_eq!(agent.stop().0, 0);

    pod.ledger.append(&log, 200);
    fs::rename(&log, pod.path("data/pod/logs/app.log.1")).unwrap();
    pod.ledger.append(&log, 300);
    let agent = pod.start();

    assert_eq!(pod.finish(agent), 0);
}

#[test]
fn a_deleted_file_is_read_to_its_end() {
    let (mut pod, log) = Pod::with_log();
    pod.ledger.append(&log, 10);
    let agent = pod.start();
    pod.expect_all();

    pod.mock.stop();
    let mut writer = append_to(&log);
    pod.ledger.write(&mut writer, 20_000);
    pause(Duration::from_millis(300));
    fs::remove_file(&log).unwrap();
    pod.ledger.write(&mut writer, 10);
    pod.mock.resume().unwrap();

    assert_eq!(pod.finish(agent), 0);
}

/// To less, to the same size, to more: each time everything new arrives.
#[test]
fn a_truncated_file_is_read_from_its_first_byte() {
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

#[test]
fn a_file_rewritten_while_the_agent_was_away_is_read_from_its_first_byte() {
    let (mut pod, log) = Pod::with_log();
    pod.ledger.append(&log, 500);
    let agent = pod.start();
    pod.expect_all();
    assert_eq!(agent.stop().0, 0);

    let mut writer = append_to(&log);
    writer.set_len(0).unwrap();
    pod.ledger.write(&mut writer, 800);
    let agent = pod.start();

    assert_eq!(pod.finish(agent), 0);
}

/// The new incarnation is known to the notifications at once, not with the next discovery.
#[test]
fn lines_after_a_truncation_arrive_at_once() {
    let (mut pod, log) = Pod::with_log();
    let agent = pod.start();
    let mut writer = append_to(&log);
    pod.ledger.write(&mut writer, 100);
    pod.expect_all();
    for _ in 0..3 {
        writer.set_len(0).unwrap();
        pause(Duration::from_millis(400));
        let started = logferry::clock::now();
        pod.ledger.write(&mut writer, 100);
        pod.expect_all();
        let took = logferry::clock::now() - started;
        assert!(took < Duration::from_millis(2500), "{took:?}");
    }

    assert_eq!(pod.finish(agent), 0);
}

/// The new name is found by the patterns too; the writer keeps its descriptor.
#[test]
fn a_file_renamed_within_the_patterns_is_not_mistaken_for_one_without_notifications() {
    let (mut pod, log) = Pod::with_log();
    let agent = pod.start();
    let mut writer = append_to(&log);
    pod.ledger.write(&mut writer, 100);
    pod.expect_all();
    fs::rename(&log, pod.path("data/pod/logs/app-1.log")).unwrap();
    let mut next = append_to(&log);
    pod.ledger.write(&mut next, 10);
    pod.expect_all();
    for _ in 0..4 {
        let started = logferry::clock::now();
        pod.ledger.write(&mut writer, 10);
        pod.expect_all();
        let took = logferry::clock::now() - started;
        assert!(took < Duration::from_millis(2500), "{took:?}");
    }

    assert!(!pod.agent_log().contains("without notifications"), "{}", pod.agent_log());
    assert_eq!(pod.finish(agent), 0);
}

/// The endpoint is down, so nothing of the first text was delivered when it is replaced.
#[test]
fn a_file_truncated_before_it_was_read_is_known_again_after_a_restart() {
    let (mut pod, log) = Pod::with_log();
    let mut writer = append_to(&log);
    std::io::Write::write_all(&mut writer, &[b'x'; 1500]).unwrap();
    let agent = pod.start();
    wait_for("the file", || pod.agent_log().contains("shipping a file"));
    pause(Duration::from_millis(300));
    writer.set_len(0).unwrap();
    pod.ledger.write(&mut writer, 500);
    pod.expect_all();
    assert_eq!(agent.stop().0, 0);
    let agent = pod.start();
    pod.ledger.append(&log, 10);

    assert_eq!(pod.finish(agent), 0, "nothing comes twice");
}
