//! Thousands of files that nobody writes to cost next to nothing.

use std::fs;
use std::time::Duration;

use crate::support::{Admin, Agent, Pod, each, pause, strace};

/// A pod with so many files of one line each; the agent has delivered them all and sleeps.
fn idle_pod(files: usize) -> (Pod, Admin, Agent) {
    let (mut pod, _) = Pod::with_log();
    let admin = pod.admin();
    for number in 0..files {
        pod.ledger.append(&pod.path(&format!("data/pod/logs/{number:05}.log")), 1);
    }
    let agent = pod.start();
    pod.expect_all();
    admin.expect_metric("logferry_lag_bytes", 0);
    (pod, admin, agent)
}

/// Voluntary context switches of all threads: each is a wake-up that found an end.
fn wakes(agent: &Agent) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{}/task", agent.id())).unwrap().flatten();
    let count = |status: String| {
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        line.and_then(|count| count.trim().parse::<u64>().ok()).unwrap_or(0)
    };
    tasks.map(|task| count(fs::read_to_string(task.path().join("status")).unwrap())).sum()
}

#[test]
#[cfg_attr(debug_assertions, ignore = "a number of the release build")]
fn an_idle_file_takes_no_more_than_two_kibibytes_beside_its_names() {
    let resident = |files| {
        let (pod, _, agent) = idle_pod(files);
        let name = pod.path("data/pod/logs/00000.log");
        (agent.resident_bytes(), name.as_os_str().len() as u64)
    };
    let ((one, _), (many, name_bytes)) = (resident(1), resident(10_000));
    let names = 4 * name_bytes;

    let each = many.saturating_sub(one) / 10_000;

    assert!(each <= 2048 + names, "{each} bytes a file: {one} and {many} resident");
}

#[test]
fn nobody_ticks_while_nothing_happens() {
    each(&[1, 2000], |&files| {
        let (_pod, _, agent) = idle_pod(files);
        // The last save through to the disk is five seconds after the last line.
        pause(Duration::from_secs(6));
        let before = wakes(&agent);

        pause(Duration::from_secs(10));

        let woken = wakes(&agent) - before;
        assert!(woken <= 20, "{woken} wake-ups in ten seconds with {files} files");
    });
}

/// How often a start with so many files, all of them delivered, opens or reads something, until each
/// is open again. (How often it examines them depends on how long that takes.)
fn calls_of_a_start(files: usize) -> usize {
    let (pod, admin, agent) = idle_pod(files);
    assert_eq!(agent.stop().0, 0);
    let calls = pod.path("calls");
    let agent = pod.start_with(strace::recording(&calls, env!("CARGO_BIN_EXE_logferry")));
    admin.expect_metric("logferry_files{state=\"active\"}", files as u64);
    assert_eq!(agent.stop().0, 0);
    let is_wanted = |line: &&str| line.contains("openat(") || line.contains("pread64(");
    fs::read_to_string(calls).unwrap().lines().filter(is_wanted).count()
}

#[test]
fn a_start_takes_so_many_calls_for_each_file_however_many_there_are() {
    if !strace::is_there() {
        eprintln!("not checked: processes cannot be traced here");
        return;
    }
    let (few, more) = (calls_of_a_start(300), calls_of_a_start(1300));

    let each = more.saturating_sub(few) / 1000;

    assert!((1..=14).contains(&each), "{each} calls a file: {few} with 300, {more} with 1300");
}
