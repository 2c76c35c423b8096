//! Thousands of files: the first discovery leaves those closed that are as they were delivered, and
//! they are opened one after the other. Whatever happens to them meanwhile is seen.

use std::fs::{self, File};
use std::path::PathBuf;

use crate::support::{Pod, append_to, rotate};

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
