//! Thousands of files: the first discovery leaves those closed that are as they were delivered, and
//! they are opened one after the other. Whatever happens to them meanwhile is seen.

use std::collections::HashSet;
use std::fs::{self, File};
use std::path::PathBuf;
use std::time::{Duration, UNIX_EPOCH};

use logferry::base::clock;
use logferry::limit::memory::{Plan, Sizes};
use logferry_wire::Compression;

use crate::support::{Pod, append_to, rotate, wait_for};

/// More than are opened at once.
const FILES: usize = 400;
/// Descriptors for all of them.
const ENOUGH: u32 = 1024;

/// Descriptors for some of them: for a fourth at most.
const FEW: u32 = 160;

/// Each file holds three lines of the same length, which are delivered, and the agent, which had so
/// many descriptors, is gone.
fn stopped_pod(descriptors: u32) -> (Pod, Vec<PathBuf>) {
    let (mut pod, _) = Pod::with_log();
    let logs: Vec<PathBuf> =
        (0..FILES).map(|number| pod.path(&format!("data/pod/logs/{number}.log"))).collect();
    for log in &logs {
        pod.ledger.write_fixed(&mut append_to(log), 3);
    }
    let agent = pod.start_with_descriptors(descriptors);
    pod.expect_all();
    assert_eq!(agent.stop().0, 0);
    (pod, logs)
}

/// Some grow, some are rewritten with as many bytes, some are renamed out of the patterns and then
/// written to, some are deleted.
fn change(pod: &mut Pod, logs: &[PathBuf]) {
    for (number, log) in logs.iter().enumerate() {
        match number % 8 {
            0 => pod.ledger.append(log, 1),
            1 => pod.ledger.write_fixed(&mut File::create(log).unwrap(), 3),
            2 => {
                let mut old = append_to(log);
                rotate(log, 3);
                pod.ledger.write_fixed(&mut old, 1);
                pod.ledger.append(log, 1);
            }
            3 => fs::remove_file(log).unwrap(),
            _ => {}
        }
    }
}

#[test]
fn what_changes_while_the_agent_is_away_is_seen() {
    let (mut pod, logs) = stopped_pod(ENOUGH);
    change(&mut pod, &logs);

    let agent = pod.start();

    assert_eq!(pod.finish(agent), 0);
}

/// Some of the files were closed when the agent ended, and some are not opened when it starts.
#[test]
fn what_changes_while_the_agent_is_away_is_seen_with_few_descriptors() {
    let (mut pod, logs) = stopped_pod(FEW);
    change(&mut pod, &logs);

    let agent = pod.start_with_descriptors(FEW);

    assert_eq!(pod.finish(agent), 0);
}

#[test]
fn what_changes_while_files_are_still_to_be_opened_is_seen() {
    let (mut pod, logs) = stopped_pod(ENOUGH);
    let admin = pod.admin();
    let agent = pod.start();
    admin.wait_until_ready();

    change(&mut pod, &logs);

    assert_eq!(pod.finish(agent), 0);
}

#[test]
fn what_is_opened_later_is_shipped_like_any_other() {
    let (mut pod, logs) = stopped_pod(ENOUGH);
    let admin = pod.admin();
    let agent = pod.start();
    admin.expect_metric("logferry_files{state=\"active\"}", FILES as u64);
    admin.expect_metric("logferry_files{state=\"saved\"}", 0);
    for log in &logs {
        agent.wait_until_open(log);
        pod.ledger.append(log, 1);
    }

    assert_eq!(pod.finish(agent), 0);
    assert!(pod.times_logged("shipping a file") <= 200, "a hundred in each run");
    assert_eq!(pod.times_logged("shipping more files"), 1, "in the first run");
    assert_eq!(pod.times_logged("more files are as they were delivered"), 1, "in the second");
}

/// It need not be quiet, and delivered files keep their descriptors for a moment: those that wait for
/// one are waited for.
#[test]
fn what_waits_for_descriptors_at_the_signal_is_delivered() {
    let (mut pod, _) = Pod::with_log();
    pod.set("LOGFERRY_DRAIN_QUIET", "0s").set("LOGFERRY_DRAIN_DEADLINE", "10m");
    for number in 0..FILES {
        pod.ledger.append(&pod.path(&format!("data/pod/logs/{number}.log")), 3);
    }
    let agent = pod.start_with_descriptors(FEW);
    pod.wait_for_log("others wait until these are delivered", 1);

    assert_eq!(agent.stop().0, 0, "{}", pod.agent_log());
    assert_eq!(pod.ledger.missing(&pod.mock), Vec::<&str>::new());
    assert_eq!(pod.ledger.check(&pod.mock), 0);
}

/// Of more files than memory allows to know, some are left for later, and that is said. What is new
/// goes before them, and they follow as others are gone.
#[test]
fn k11_more_files_than_fit_in_memory_are_left_for_later() {
    const LIMIT: u64 = 32;
    const MANY: usize = 11_000;
    let (mut pod, _) = Pod::with_log();
    pod.set("mem_usage_limit", &LIMIT.to_string());
    let logs: Vec<PathBuf> =
        (0..MANY).map(|number| pod.path(&format!("data/pod/logs/{number:05}.log"))).collect();
    let old = UNIX_EPOCH + clock::wall() - Duration::from_secs(3600);
    for log in &logs {
        let mut file = append_to(log);
        pod.ledger.write(&mut file, 1);
        file.set_modified(old).unwrap();
    }
    let admin = pod.admin();
    let agent = pod.start();
    let left = || admin.metric("logferry_files{state=\"left\"}").unwrap_or(0);
    wait_for("some to be left", || left() > 0);
    pod.wait_for_log("these are left for later", 1);
    wait_for("the others to be delivered", || pod.ledger.missing(&pod.mock).len() as u64 == left());

    let new = pod.path("data/pod/logs/new.log");
    pod.ledger.append(&new, 10);
    wait_for("the new one to be delivered", || {
        pod.ledger.missing(&pod.mock).len() as u64 <= left()
    });
    assert!(agent.resident_bytes() < (LIMIT + 4) << 20, "{}", agent.resident_bytes());

    // What is delivered is removed, until nothing is left.
    let mut there: Vec<(usize, &PathBuf)> = logs.iter().enumerate().collect();
    wait_for("all to be delivered", || {
        let missing: HashSet<usize> = pod.ledger.missing_numbers(&pod.mock).into_iter().collect();
        for (_, log) in there.extract_if(.., |(number, _)| !missing.contains(number)) {
            fs::remove_file(log).unwrap();
        }
        missing.is_empty()
    });
    admin.expect_metric("logferry_files{state=\"left\"}", 0);
    assert_eq!(pod.finish(agent), 0);
}

/// The most memory of an agent that finds so many files as they were delivered, and has descriptors for
/// a few of them; and the length of their names.
fn memory_of_a_start(files: usize) -> (u64, u64) {
    let (mut pod, _) = Pod::with_log();
    for number in 0..files {
        pod.ledger.append(&pod.path(&format!("data/pod/logs/{number:05}.log")), 1);
    }
    let agent = pod.start();
    pod.expect_all();
    assert_eq!(agent.stop().0, 0, "{}", pod.agent_log());
    let admin = pod.admin();
    let agent = pod.start_with_descriptors(FEW);
    wait_for("its start", || admin.metric("logferry_ready") == Some(1));
    admin.expect_metric("logferry_files{state=\"saved\"}", 0);
    let new = pod.path("data/pod/logs/new.log");
    pod.ledger.append(&new, 10);
    pod.expect_all();
    (agent.resident_bytes_peak(), new.as_os_str().len() as u64)
}

/// What the sum that `check` prints has for a file that is delivered and closed.
fn bytes_of_a_file_at_rest() -> u64 {
    let sizes = Sizes {
        batch_bytes: 512 << 10,
        line_bytes_max: 512 << 10,
        concurrency_max: 8,
        compression: Compression::Lz4,
    };
    let plan = Plan::fit(384 << 20, sizes).unwrap();
    let row = plan.rows.iter().find(|row| row.name == "closed files").unwrap();
    row.bytes / (plan.known_max - plan.files_max) as u64
}

#[test]
fn k11_a_file_at_rest_takes_no_more_than_the_sum_of_check_says() {
    const COUNT: usize = 10_000;
    let ((few, _), (many, name_bytes)) = (memory_of_a_start(10), memory_of_a_start(COUNT));

    let each = many.saturating_sub(few) / COUNT as u64;

    let said = bytes_of_a_file_at_rest();
    println!("{each} bytes a file of {said}: {few} and {many} resident");
    assert!(each <= said + 2 * name_bytes, "{each} bytes a file of {said}: {few} and {many}");
}
