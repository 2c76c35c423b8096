//! Files that look like others and are none of them (F43), and a fresh disk in place of another (F35):
//! what the patterns find comes whole, what they do not find comes not at all.

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use crate::support::disk::Disk;
use crate::support::{
    Meanwhile, PATIENCE, Pod, append_to, compress, copy_and_empty, each, each_of, numbered, pairs,
    pause,
};

/// A log, and one beside it whose name could be that of its generation.
const NAMES: [(&str, &str); 6] = [
    ("worker.log", "worker-1.log"),
    ("worker.log", "worker.2.log"),
    ("job.log", "job_3.log"),
    ("job.log", "job-2026-11-30.log"),
    ("app.log", "app.log.1"),
    ("app.log", "app.log-20261130"),
];

/// So long an agent waits at most before a file that equals another one is a file of its own.
const EQUAL_FOR: Duration = Duration::from_secs(60);

/// Waits for all lines longer than a file that equals another one may wait.
fn expect_all_at_last(pod: &Pod) {
    let started = logferry::base::clock::now();
    while !pod.ledger.missing(&pod.mock).is_empty() {
        let waits = logferry::base::clock::now() - started;
        let missing = pod.ledger.missing(&pod.mock).len();
        assert!(waits < EQUAL_FOR + PATIENCE, "{missing} lines are missing\n{}", pod.agent_log());
        pause(Duration::from_millis(250));
    }
}

/// A pod of two logs, and where they are.
fn pod_of(names: (&str, &str)) -> (Pod, PathBuf, PathBuf) {
    let (mut pod, log) = Pod::with_log();
    pod.patterns(&["share/logs/*"]);
    let (first, second) = (log.with_file_name(names.0), log.with_file_name(names.1));
    (pod, first, second)
}

/// Both are shipped, under their own paths.
fn expect_both(pod: &Pod, names: (&str, &str)) {
    let paths = [names.0, names.1].map(|name| format!("share/logs/{name}"));
    assert_eq!(pod.shipped_paths(), paths.into());
}

/// The same text in both, and nothing else: the second one is waited for, for a minute, whether it was
/// there before the agent or came later. Then it is a file of its own, and goes on.
#[test]
fn f43_a_file_that_equals_an_untouched_one_is_shipped_whole_after_a_minute() {
    let cases = pairs(&NAMES[..4], &[false, true]);
    each_of(&cases, cases.len(), |&(names, is_there)| {
        let (mut pod, first, second) = pod_of(names);
        pod.ledger.append(&first, 100);
        let agent = (!is_there).then(|| {
            let agent = pod.start();
            pod.expect_all();
            agent
        });
        pod.ledger.write_again(&mut append_to(&second), 0..100);
        let agent = agent.unwrap_or_else(|| pod.start());
        expect_all_at_last(&pod);
        pod.ledger.append(&second, 10);
        pod.ledger.append(&first, 10);
        pod.expect_all();

        assert_eq!(pod.finish_twice(agent, &second), 0);
        expect_both(&pod, names);
    });
}

/// Told to end before the minute is over: if it says that everything was delivered, it was, and a
/// later start delivers what was not.
#[test]
fn f43_a_stop_within_that_minute_loses_nothing() {
    each(&NAMES[..3], |&names| {
        let (mut pod, first, second) = pod_of(names);
        pod.ledger.append(&first, 100);
        let agent = pod.start();
        pod.expect_all();
        pod.ledger.write_again(&mut append_to(&second), 0..100);
        let code = agent.stop().0;
        let is_missing = !pod.ledger.missing(&pod.mock).is_empty();
        assert!(code != 0 || !is_missing, "everything was delivered, it says");
        let agent = pod.start();
        expect_all_at_last(&pod);

        assert_eq!(pod.finish(agent), 0);
        expect_both(&pod, names);
    });
}

/// The second begins as the first and goes on otherwise: that is no copy, and nothing is waited for.
#[test]
fn f43_a_file_that_begins_as_another_and_goes_on_otherwise_is_shipped_whole() {
    // Fewer bytes than a fingerprint has, and more than both have.
    let texts = [(2, 1), (100, 100), (100, 3), (100, 60)];
    let names = NAMES[..4].iter().cycle();
    let cases: Vec<_> = pairs(&texts, &Meanwhile::ALL).into_iter().zip(names).collect();
    each(&cases, |&(((first_count, same), how), &names)| {
        let (mut pod, first, second) = pod_of(names);
        pod.ledger.append(&first, first_count);
        let agent = pod.start();
        let agent = pod.meanwhile(agent, how, |pod| {
            let mut writer = append_to(&second);
            pod.ledger.write_again(&mut writer, 0..same);
            pod.ledger.write(&mut writer, 20);
            pod.ledger.append(&first, 5);
        });
        pod.expect_all();
        pod.ledger.append(&second, 10);

        assert_eq!(pod.finish_twice(agent, &first), 0);
        expect_both(&pod, names);
    });
}

/// The first is deleted, and later comes the second, which begins with the same line. The agent sees
/// that line before the others.
#[test]
fn f43_a_file_made_after_another_was_deleted_is_no_copy_of_it() {
    let hows = [Meanwhile::Running, Meanwhile::Stopped, Meanwhile::Killed];
    let cases = pairs(&NAMES, &hows).into_iter().zip([1, 50].into_iter().cycle());
    each(&cases.collect::<Vec<_>>(), |&((names, how), count)| {
        let (mut pod, first, second) = pod_of(names);
        pod.ledger.append(&first, count);
        let agent = pod.start();
        pod.expect_all();
        fs::remove_file(&first).unwrap();
        pod.ledger.append(&first.with_file_name("mark"), 1);
        pod.expect_all();
        // The times of a file are as coarse as a tick of the kernel's clock.
        pause(Duration::from_millis(1100));
        let agent = pod.meanwhile(agent, how, |pod| {
            pod.ledger.write_again(&mut append_to(&second), 0..1);
        });
        pod.expect_all();
        pod.ledger.append(&second, 10);

        assert_eq!(pod.finish_twice(agent, &second), 0);
        assert!(pod.shipped_paths().contains(&format!("share/logs/{}", names.1)));
    });
}

/// Both happen while nobody looks: only the first line is the same, so it is no copy of what was there.
#[test]
fn f43_a_file_made_after_another_was_deleted_unseen_is_no_copy_of_it() {
    each(&pairs(&NAMES, &Meanwhile::BLIND), |&(names, how)| {
        let (mut pod, first, second) = pod_of(names);
        pod.ledger.append(&first, 50);
        let agent = pod.start();
        let agent = pod.meanwhile(agent, how, |pod| {
            fs::remove_file(&first).unwrap();
            pause(Duration::from_millis(1100));
            let mut writer = append_to(&second);
            pod.ledger.write_again(&mut writer, 0..1);
            pod.ledger.write(&mut writer, 20);
        });

        assert_eq!(pod.finish_twice(agent, &second), 0);
        expect_both(&pod, names);
    });
}

/// A generation of the first that was a copy is one still: only its time and its bytes together say so.
#[test]
fn f43_a_copy_made_before_the_original_was_emptied_is_still_known() {
    each(&pairs(&NAMES, &Meanwhile::ALL), |&(names, how)| {
        let (mut pod, first, second) = pod_of(names);
        pod.ledger.append(&first, 100);
        let agent = pod.start();
        let agent = pod.meanwhile(agent, how, |pod| {
            pod.ledger.append(&first, 20);
            copy_and_empty(&first, &second);
            pod.ledger.append(&first, 30);
        });

        assert_eq!(pod.finish_twice(agent, &first), 0);
    });
}

// === F43: one path, and files beside it

/// Made beside a log that is still there and was not rotated.
const BESIDE: [&str; 6] =
    ["app-2.log", "app.2.log", "app_2.log", "app-2026-11-30.log", "app-2.log.gz", "app-1.2.log"];

/// Only `app.log` is configured: a file with a number in its name is somebody else's while that is
/// there and was not rotated.
#[test]
fn f43_a_file_with_a_number_beside_a_log_that_was_not_rotated_is_left_alone() {
    let lines = [100, 0, 0, 0, 100].into_iter().cycle();
    let cases = pairs(&BESIDE, &Meanwhile::ALL).into_iter().zip(lines);
    each(&cases.collect::<Vec<_>>(), |&((name, how), lines)| {
        let (mut pod, log) = Pod::with_log();
        pod.patterns(&["share/logs/app.log"]);
        pod.ledger.append(&log, lines);
        let agent = pod.start();
        agent.wait_until_open(&log);
        let agent = pod.meanwhile(agent, how, |pod| {
            let path = log.with_file_name(name.trim_end_matches(".gz"));
            fs::write(&path, "of somebody else\n".repeat(20)).unwrap();
            if name != path.file_name().unwrap() {
                compress(&path);
            }
            pod.ledger.append(&log, 10);
        });

        assert_eq!(pod.finish_twice(agent, &log), 0);
    });
}

/// What a log was renamed to, and what its successor was.
const ROTATED: [[&str; 2]; 4] = [
    ["app-2.log", "app-1.log"],
    ["app.2.log", "app.1.log"],
    ["app_2.log", "app_1.log"],
    ["app-2026-11-29.log", "app-2026-11-30.log"],
];

/// The log was rotated to such a name: then it is a generation, with what came and went meanwhile.
#[test]
fn f43_a_file_with_a_number_beside_a_log_that_was_rotated_is_its_generation() {
    each(&pairs(&ROTATED, &Meanwhile::BLIND), |&([older, newer], how)| {
        let (mut pod, log) = Pod::with_log();
        pod.patterns(&["share/logs/app.log"]);
        pod.ledger.append(&log, 100);
        let agent = pod.start();
        let agent = pod.meanwhile(agent, how, |pod| {
            pod.ledger.append(&log, 10);
            fs::rename(&log, log.with_file_name(older)).unwrap();
            pod.ledger.append(&log, 30);
            fs::rename(&log, log.with_file_name(newer)).unwrap();
            pod.ledger.append(&log, 30);
        });

        assert_eq!(pod.finish_twice(agent, &log), 0);
        assert_eq!(pod.shipped_paths(), ["share/logs/app.log".to_owned()].into());
    });
}

/// The log was rotated to `app.log.1`, and a family of its own stands beside it: its files have numbers
/// before the extension, and are older than the rotation.
#[test]
fn f43_another_family_beside_a_log_that_was_rotated_comes_under_its_own_paths() {
    each(&Meanwhile::ALL, |&how| {
        let (mut pod, log) = Pod::with_log();
        let other = log.with_file_name("app-2.log");
        pod.ledger.append(&log, 100);
        let agent = pod.start();
        let agent = pod.meanwhile(agent, how, |pod| {
            pod.ledger.append(&other, 50);
            fs::rename(&log, numbered(&log, 1)).unwrap();
            pod.ledger.append(&log, 30);
        });
        pod.expect_all();
        pod.ledger.append(&other, 50);

        assert_eq!(pod.finish_twice(agent, &log), 0);
        let paths = ["share/logs/app.log", "share/logs/app-2.log"].map(ToOwned::to_owned);
        assert_eq!(pod.shipped_paths(), paths.into());
    });
}

// === F35: a fresh disk

/// What is on a fresh disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Memory,
    Ext4,
    /// Only bytes and numbers tell the files apart.
    Ext4WithoutBirthTimes,
}

/// Two disks of a pod, of which one is where the logs are.
struct Disks {
    at: Option<Disk>,
    logs: PathBuf,
    fresh: PathBuf,
    _both: [Disk; 2],
}

impl Disks {
    fn new(pod: &Pod, kind: Kind) -> Option<Self> {
        let make = |name: &str| {
            let (image, at) = (pod.path(&format!("{name}.img")), pod.path(name));
            match kind {
                Kind::Memory => Disk::tmpfs(&at, "size=8m"),
                Kind::Ext4 => Disk::new_ext4(&image, 16, &at),
                Kind::Ext4WithoutBirthTimes => Disk::new_ext4_without_birth_times(&image, 16, &at),
            }
        };
        let both = [make("old-disk")?, make("fresh-disk")?];
        let logs = pod.path("data/pod/logs");
        let at = Some(Disk::bind(&pod.path("old-disk"), &logs)?);
        Some(Self { at, logs, fresh: pod.path("fresh-disk"), _both: both })
    }

    /// Mounts the fresh disk where the other one was.
    fn swap(&mut self) {
        drop(self.at.take());
        self.at = Disk::bind(&self.fresh, &self.logs);
        assert!(self.at.is_some(), "what could be mounted once");
    }
}

/// Lines of so many bytes, all of them few enough to be a banner: so many before, as many of them the
/// same on the fresh disk.
const BANNERS: [(usize, usize, usize); 5] =
    [(40, 1, 1), (40, 3, 3), (300, 1, 1), (700, 1, 1), (40, 300, 2)];

fn banner(number: usize, bytes: usize) -> String {
    format!("banner {number:0>width$}", width = bytes - 8)
}

/// A fresh disk is mounted where the old one was, and the app begins its log there with the same
/// lines: few enough to be a banner. They come again, for they were written again.
fn check_fresh_disk(how: Meanwhile, more: usize) {
    let kinds = [Kind::Memory, Kind::Ext4, Kind::Ext4WithoutBirthTimes];
    each(&pairs(&kinds, &BANNERS), |&(kind, (bytes, before, same))| {
        let (mut pod, log) = Pod::with_log();
        let Some(mut disks) = Disks::new(&pod, kind) else { return };
        let text = |count: usize| (0..count).map(|number| banner(number, bytes)).collect();
        pod.ledger.write_lines(&mut append_to(&log), text(before));
        let agent = pod.start();
        let agent = pod.meanwhile(agent, how, |pod| {
            disks.swap();
            let mut writer = append_to(&log);
            pod.ledger.write_lines(&mut writer, text(same));
            pod.ledger.write_fixed(&mut writer, more);
        });
        pod.expect_all();
        pod.ledger.append(&log, 10);

        assert_eq!(pod.finish_twice(agent, &log), 0);
    });
}

#[test]
fn f35_a_fresh_disk_whose_log_begins_the_same_is_read_from_its_first_byte_after_a_stop() {
    check_fresh_disk(Meanwhile::Stopped, 20);
}

#[test]
fn f35_a_fresh_disk_whose_log_begins_the_same_is_read_from_its_first_byte_after_a_kill() {
    check_fresh_disk(Meanwhile::Killed, 20);
}

#[test]
fn f35_a_fresh_disk_whose_log_begins_the_same_is_read_from_its_first_byte_by_a_running_agent() {
    check_fresh_disk(Meanwhile::Running, 20);
}

/// Nothing but the same lines stand there at first: they are shipped, without waiting for others.
#[test]
fn f35_a_fresh_disk_with_nothing_but_the_same_lines_is_read() {
    check_fresh_disk(Meanwhile::Stopped, 0);
}

/// The old disk is swapped for a fresh one, and what had not been read of the old one is gone with it.
/// That is said; the new text comes whole.
#[test]
fn f35_the_rest_on_a_disk_that_was_swapped_is_named() {
    let (mut pod, log) = Pod::with_log();
    let dir = log.parent().unwrap();
    let Some(old) = Disk::tmpfs(dir, "size=8m") else { return };
    pod.set("LOGFERRY_DRAIN_DEADLINE", "1s");
    pod.ledger.write_fixed(&mut append_to(&log), 2);
    let agent = pod.start();
    pod.expect_all();
    pod.mock.stop();
    append_to(&log).write_all(b"never delivered\n").unwrap();
    agent.wait_until_open(&log);
    wait_until_seen(&pod);
    assert_eq!(agent.stop().0, 75);
    drop(old);
    let Some(fresh) = Disk::tmpfs(dir, "size=8m") else { return };
    let mut writer = append_to(&log);
    pod.ledger.write_again(&mut writer, 0..2);
    pod.ledger.write_fixed(&mut writer, 20);
    pod.mock.resume().unwrap();
    pod.set("LOGFERRY_DRAIN_DEADLINE", "25s");
    let agent = pod.start();
    pod.expect_all();

    assert_eq!(agent.stop().0, 75, "{}", pod.agent_log());
    assert_eq!(pod.ledger.check(&pod.mock), 0);
    pod.expect_sound();
    drop(fresh);
}

/// Waits until an agent has seen more of a file than it could deliver.
fn wait_until_seen(pod: &Pod) {
    let is_seen = || {
        let (_, text, _) = crate::support::run(&["status", "--json"], &pod.environment());
        let status: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        status["files"][0]["lag_bytes"].as_u64() > Some(0)
    };
    crate::support::wait_for("the rest to be seen", is_seen);
}
