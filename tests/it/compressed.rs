//! Copied, emptied and compressed while the app writes (F44): what it writes between the end of the
//! copying and the emptying is read or lost, and the copy holds less than was delivered.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use crate::support::{
    Agent, Meanwhile, Pod, append_to, compress, each, numbered, pairs, shift, wait_for,
};

const PATTERNS: [&str; 2] = ["share/logs/app.log*", "share/logs/*"];

/// 300 lines are delivered; the agent runs and reads at once.
fn delivered_pod(pattern: &str) -> (Pod, PathBuf, File, Agent) {
    let (mut pod, log) = Pod::with_log();
    pod.patterns(&[pattern]).set("LOGFERRY_READ_LINGER", "1ms");
    let mut writer = append_to(&log);
    pod.ledger.write(&mut writer, 300);
    let agent = pod.start();
    pod.expect_all();
    (pod, log, writer, agent)
}

/// `app.log.1` to `app.log.2`, with `.gz` or without.
fn make_room(log: &Path) {
    shift(log, 9);
    for number in (1..9).rev() {
        let gz = |number: usize| numbered(log, number).with_extension(format!("{number}.gz"));
        let _ = fs::rename(gz(number), gz(number + 1));
    }
}

/// When the copy is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    AtOnce,
    /// With the next rotation: `delaycompress`.
    Delayed,
}

/// The lines between the copying and the emptying are delivered, so the .gz holds the text but for
/// its end. Nothing comes again, whatever the agent does while the copy is compressed.
#[test]
fn f44_a_compressed_copy_that_lacks_the_last_lines_is_not_shipped_again() {
    let whens = pairs(&[When::AtOnce, When::Delayed], &Meanwhile::ALL);
    each(&pairs(&PATTERNS, &whens), |&(pattern, (when, how))| {
        let (mut pod, log, mut writer, mut agent) = delivered_pod(pattern);
        for _ in 0..3 {
            pod.ledger.write(&mut writer, 100);
            agent = pod.meanwhile(agent, Meanwhile::Running, |pod| {
                make_room(&log);
                fs::copy(&log, numbered(&log, 1)).unwrap();
                // A busy app: an agent that runs reads these.
                for _ in 0..3 {
                    pod.ledger.write(&mut writer, 2);
                    pod.expect_all();
                }
            });
            agent = pod.meanwhile(agent, how, |pod| {
                writer.set_len(0).unwrap();
                pod.ledger.write(&mut writer, 80);
                let generation = numbered(&log, if when == When::AtOnce { 1 } else { 2 });
                if generation.exists() {
                    compress(&generation);
                }
            });
        }

        assert_eq!(pod.finish_twice(agent, &log), 0);
    });
}

/// As logrotate does it, in one go: what is between the copying and the emptying may be lost, and is
/// read by chance. Nothing else is lost, and nothing comes twice.
#[test]
fn f44_lines_between_the_copying_and_the_emptying_arrive_once_or_not_at_all() {
    each(&pairs(&PATTERNS, &[0, 3, 30, 120]), |&(pattern, pause)| {
        let (mut pod, log, mut writer, agent) = delivered_pod(pattern);
        let mut between = Vec::new();
        for _ in 0..4 {
            pod.ledger.write(&mut writer, 100);
            // What was read to its end proves what a copy holds; of what was not, all may come again.
            let written = &between;
            wait_for("what is not between", || is_missing_only(&pod, written));
            make_room(&log);
            fs::copy(&log, numbered(&log, 1)).unwrap();
            let first = pod.ledger.lines.len();
            for _ in 0..4 {
                pod.ledger.write(&mut writer, 1);
                crate::support::pause(std::time::Duration::from_millis(pause) / 4);
            }
            between.extend(first..pod.ledger.lines.len());
            writer.set_len(0).unwrap();
            pod.ledger.write(&mut writer, 20);
            compress(&numbered(&log, 1));
        }
        wait_for("what is not between", || is_missing_only(&pod, &between));
        assert_eq!(agent.stop().0, 0, "{}", pod.agent_log());
        let agent = pod.start();
        pod.ledger.write(&mut writer, 1);
        wait_for("what is not between", || is_missing_only(&pod, &between));
        assert_eq!(agent.stop().0, 0, "{}", pod.agent_log());

        assert_eq!(pod.ledger.check(&pod.mock), 0);
        pod.expect_sound();
    });
}

fn is_missing_only(pod: &Pod, may_be: &[usize]) -> bool {
    pod.ledger.missing_numbers(&pod.mock).iter().all(|number| may_be.contains(number))
}

/// The next rotation renames the copy and compresses it under its new number, before the agent looks:
/// the copy that it has open was `old/app.log.1`, and what it finds is `old/app.log.2.gz`.
#[test]
fn f44_a_copy_that_is_renamed_and_compressed_at_once_is_not_shipped_again() {
    each(&pairs(&[20, 100], &Meanwhile::BLIND), |&(lines, how)| {
        let (mut pod, log, mut writer, mut agent) = delivered_pod("share/logs/**/*");
        let old = log.with_file_name("old").join("app.log");
        fs::create_dir(old.parent().unwrap()).unwrap();
        writer.set_len(0).unwrap();
        for number in 0..3 {
            pod.ledger.write(&mut writer, lines);
            pod.expect_all();
            let settled = pod.times_logged("a file is done");
            // When the agent meets the copy, the text is gone from the log.
            let copy = pod.path("data/copy");
            fs::copy(&log, &copy).unwrap();
            writer.set_len(0).unwrap();
            wait_for("the text to be settled", || pod.times_logged("a file is done") > settled);
            fs::rename(&copy, numbered(&old, 1)).unwrap();
            pod.ledger.write(&mut writer, 2);
            pod.expect_all();
            wait_for("the copy to be known", || {
                pod.times_logged("old/app.log.1 resolved") > number
            });
            agent = pod.meanwhile(agent, how, |_| {
                make_room(&old);
                compress(&numbered(&old, 2));
            });
        }

        assert_eq!(pod.finish_twice(agent, &log), 0);
    });
}

/// The copy was never met under its own name: the agent stands still from the copying until the .gz is
/// there. What it had not read is in the .gz only.
#[test]
fn f44_the_rest_is_read_from_a_compressed_copy_that_was_never_met_before() {
    each(
        &pairs(&["share/logs/app.log", "share/logs/app.log*"], &Meanwhile::BLIND),
        |&(pattern, how)| {
            let (mut pod, log, mut writer, mut agent) = delivered_pod(pattern);
            for _ in 0..3 {
                agent = pod.meanwhile(agent, how, |pod| {
                    pod.ledger.write(&mut writer, 100);
                    make_room(&log);
                    fs::copy(&log, numbered(&log, 1)).unwrap();
                    writer.set_len(0).unwrap();
                    pod.ledger.write(&mut writer, 80);
                    compress(&numbered(&log, 1));
                });
            }

            assert_eq!(pod.finish_twice(agent, &log), 0);
        },
    );
}
