//! A directory of its own for old logs (F39): below, beside, two levels away, a new one each day. What
//! was read of a file is known wherever it is found, and what was born between two rotations is found
//! where its elder brothers are.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::support::{
    Agent, Meanwhile, Naming, Pod, append_to, compress, copy_and_empty, each, numbered, pairs,
};

/// Where old logs go, from the directory of the log; what the patterns `*.log` do not find.
const PLACES: [&str; 6] =
    ["old", "old/app", "2026-11-30", "../archive", "../archive/app", "../../old"];

const NAMINGS: [Naming; 3] = [Naming::Numbered, Naming::Dated, Naming::Inner];

/// A place, a naming and a pattern.
type Case = (&'static str, Naming, &'static str);

/// Each place, with the namings in turn, and a pattern that finds no old log.
fn places() -> Vec<Case> {
    let namings = NAMINGS.iter().cycle();
    PLACES
        .iter()
        .zip(namings)
        .map(|(&place, &naming)| (place, naming, "share/logs/*.log"))
        .collect()
}

/// Places below the log, with patterns that find what is there too.
const FOUND: [Case; 4] = [
    ("old", Naming::Numbered, "share/logs/**/*"),
    ("old/app", Naming::Dated, "share/logs/**/app*"),
    ("2026-11-30", Naming::Inner, "share/logs/**/*.log"),
    ("old", Naming::Dated, "share/logs/**/app.log*"),
];

/// What rotation does with a file that it takes away.
type Rotate = fn(&Path, &Path);

fn rename(log: &Path, to: &Path) {
    fs::rename(log, to).unwrap();
}

fn rename_and_compress(log: &Path, to: &Path) {
    rename(log, to);
    compress(to);
}

/// 300 lines are delivered; the agent runs.
fn delivered_pod(pattern: &str) -> (Pod, PathBuf, Agent) {
    let (mut pod, log) = Pod::with_log();
    pod.patterns(&[pattern]);
    pod.ledger.append(&log, 300);
    let agent = pod.start();
    pod.expect_all();
    (pod, log, agent)
}

/// Rotates twice, so that a whole generation comes and goes, then once, in each way in which an agent
/// can meet that. What was written before the first rotation is read in part.
fn check(cases: &[Case], how: Meanwhile, rotate: Rotate) {
    each(cases, |&(place, naming, pattern)| {
        let (mut pod, log, mut agent) = delivered_pod(pattern);
        let dir = log.with_file_name(place);
        for rotations in [2, 1] {
            agent = pod.meanwhile(agent, how, |pod| {
                for _ in 0..rotations {
                    pod.ledger.append(&log, 50);
                    if how == Meanwhile::Running {
                        // Else only its bytes in a .gz are left, and nobody knows whose they are.
                        pod.expect_all();
                    }
                    rotate(&log, &naming.next(&log, &dir));
                    pod.ledger.append(&log, 80);
                }
            });
            pod.expect_all();
        }

        assert_eq!(pod.finish_twice(agent, &log), 0);
        if !pattern.contains("**") {
            assert_eq!(pod.shipped_paths(), ["share/logs/app.log".to_owned()].into());
        }
    });
}

#[test]
fn f39_what_comes_and_goes_into_another_directory_is_found_by_a_running_agent() {
    check(&places(), Meanwhile::Running, rename);
}

#[test]
fn f39_what_comes_and_goes_into_another_directory_is_found_after_a_freeze() {
    check(&places(), Meanwhile::Frozen, rename);
}

#[test]
fn f39_what_comes_and_goes_into_another_directory_is_found_after_a_stop() {
    check(&places(), Meanwhile::Stopped, rename);
}

#[test]
fn f39_what_comes_and_goes_into_another_directory_is_found_after_a_kill() {
    check(&places(), Meanwhile::Killed, rename);
}

/// The patterns find the log and what becomes of it.
#[test]
fn f39_what_the_patterns_find_in_both_directories_comes_once() {
    for how in Meanwhile::ALL {
        check(&FOUND, how, rename);
    }
}

/// A directory for each day, right below the log or below one for the month. What nobody has seen is in
/// a directory that nobody has seen.
#[test]
fn f39_a_new_directory_for_each_day_is_looked_into() {
    let days: [[&str; 3]; 2] =
        [["2026-11-29", "2026-11-30", "2026-12-01"], ["2026/11-29", "2026/11-30", "2026/12-01"]];
    let patterns = ["share/logs/*.log", "share/logs/**/app.log*"];
    let cases = pairs(&days, &patterns);
    each(&pairs(&cases, &Meanwhile::ALL), |&((days, pattern), how)| {
        let (mut pod, log, mut agent) = delivered_pod(pattern);
        let mut days = days.iter();
        for rotations in [2, 1] {
            agent = pod.meanwhile(agent, how, |pod| {
                for day in days.by_ref().take(rotations) {
                    pod.ledger.append(&log, 50);
                    if how == Meanwhile::Running {
                        pod.expect_all();
                    }
                    rename(&log, &Naming::Numbered.next(&log, &log.with_file_name(day)));
                    pod.ledger.append(&log, 80);
                }
            });
            pod.expect_all();
        }

        assert_eq!(pod.finish_twice(agent, &log), 0);
    });
}

/// As fast as a disk allows, while the agent runs: most files live for a moment only.
#[test]
fn f39_quick_rotations_into_another_directory_lose_nothing() {
    each(&places(), |&(place, naming, pattern)| {
        let (mut pod, log, agent) = delivered_pod(pattern);
        let dir = log.with_file_name(place);
        for _ in 0..4 {
            for _ in 0..3 {
                rename(&log, &naming.next(&log, &dir));
                pod.ledger.append(&log, 20);
            }
            pod.expect_all();
        }

        assert_eq!(pod.finish_twice(agent, &log), 0);
    });
}

/// What stood there before the agent came, and what others keep there, is not ours.
#[test]
fn f39_what_is_older_than_the_agent_or_of_others_is_left_alone() {
    each(&pairs(&["old", "../archive"], &Meanwhile::ALL), |&(place, how)| {
        let (mut pod, log) = Pod::with_log();
        pod.patterns(&["share/logs/*.log"]);
        let dir = log.with_file_name(place);
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("app.log.7"), "older than the agent\n").unwrap();
        // What the agent remembers of its last look is the second.
        crate::support::pause(std::time::Duration::from_millis(1100));
        pod.ledger.append(&log, 300);
        let agent = pod.start();
        let agent = pod.meanwhile(agent, how, |pod| {
            for name in ["other.log.1", "application.log.1", "xapp.log.1", "app.logs"] {
                fs::write(dir.join(name), "of somebody else\n").unwrap();
            }
            fs::rename(&log, numbered(&dir.join("app.log"), 1)).unwrap();
            pod.ledger.append(&log, 80);
        });

        assert_eq!(pod.finish_twice(agent, &log), 0);
    });
}

/// A log of the same name lives in the directory below: its generations are its own, and no pattern
/// finds any of it.
#[test]
fn f39_generations_of_a_log_of_the_same_name_below_are_left_alone() {
    each(&Meanwhile::ALL, |&how| {
        let (mut pod, log, agent) = delivered_pod("share/logs/app.log");
        let other = log.with_file_name("other").join("app.log");
        fs::create_dir(other.parent().unwrap()).unwrap();
        let agent = pod.meanwhile(agent, how, |pod| {
            fs::write(&other, "of another app\n").unwrap();
            fs::rename(&other, numbered(&other, 1)).unwrap();
            fs::write(&other, "of another app, later\n").unwrap();
            fs::rename(&log, numbered(&log, 1)).unwrap();
            pod.ledger.append(&log, 80);
        });

        assert_eq!(pod.finish_twice(agent, &log), 0);
    });
}

/// A link that an app puts where old logs might be leads nobody to what is behind it.
#[test]
fn f39_links_in_place_of_a_directory_for_old_logs_are_not_followed() {
    each(&pairs(&["old", "../archive", "../../old"], &Meanwhile::ALL), |&(place, how)| {
        let (mut pod, log, agent) = delivered_pod("share/logs/*.log");
        let secrets = pod.path("secrets");
        fs::create_dir(&secrets).unwrap();
        let agent = pod.meanwhile(agent, how, |pod| {
            pod.ledger.append(&log, 50);
            fs::rename(&log, numbered(&log, 2)).unwrap();
            for name in ["app.log.1", "app.log.3", "app.log"] {
                fs::write(secrets.join(name), "of somebody else\n").unwrap();
            }
            symlink(&secrets, log.with_file_name(place)).unwrap();
            pod.ledger.append(&log, 80);
        });

        assert_eq!(pod.finish_twice(agent, &log), 0);
    });
}

/// `copytruncate` with `olddir`: the copy stands in another directory, and what was written between
/// the last look and the copying is in it only.
fn check_copies(cases: &[Case], how: Meanwhile) {
    each(cases, |&(place, naming, pattern)| {
        let (mut pod, log, mut agent) = delivered_pod(pattern);
        let dir = log.with_file_name(place);
        let mut writer = append_to(&log);
        for rotations in [2, 1] {
            agent = pod.meanwhile(agent, how, |pod| {
                for _ in 0..rotations {
                    pod.ledger.write(&mut writer, 100);
                    copy_and_empty(&log, &naming.next(&log, &dir));
                    pod.ledger.write(&mut writer, 80);
                }
            });
            pod.expect_all();
        }

        assert_eq!(pod.finish_twice(agent, &log), 0);
    });
}

#[test]
fn f39_copies_in_another_directory_are_known_by_a_running_agent() {
    check_copies(&places(), Meanwhile::Running);
}

#[test]
fn f39_copies_in_another_directory_are_known_after_a_freeze() {
    check_copies(&places(), Meanwhile::Frozen);
}

#[test]
fn f39_copies_in_another_directory_are_known_after_a_stop() {
    check_copies(&places(), Meanwhile::Stopped);
}

#[test]
fn f39_copies_in_another_directory_are_known_after_a_kill() {
    check_copies(&places(), Meanwhile::Killed);
}

#[test]
fn f39_copies_that_the_patterns_find_in_another_directory_come_once() {
    for how in Meanwhile::ALL {
        check_copies(&FOUND, how);
    }
}

/// `create`, `compress`, `olddir`: what was read in part, and what nobody has seen, is in a .gz.
#[test]
fn f39_what_is_compressed_in_another_directory_comes_once_after_a_stop() {
    check(&places(), Meanwhile::Stopped, rename_and_compress);
    check(&found_compressed(), Meanwhile::Stopped, rename_and_compress);
}

#[test]
fn f39_what_is_compressed_in_another_directory_comes_once_after_a_kill() {
    check(&places(), Meanwhile::Killed, rename_and_compress);
    check(&found_compressed(), Meanwhile::Killed, rename_and_compress);
}

#[test]
fn f39_what_is_compressed_in_another_directory_comes_once_after_a_freeze() {
    check(&places(), Meanwhile::Frozen, rename_and_compress);
    check(&found_compressed(), Meanwhile::Frozen, rename_and_compress);
}

#[test]
fn f39_what_is_compressed_in_another_directory_comes_once_while_the_agent_runs() {
    check(&places(), Meanwhile::Running, rename_and_compress);
    check(&found_compressed(), Meanwhile::Running, rename_and_compress);
}

/// Patterns that find a .gz below the log.
fn found_compressed() -> Vec<Case> {
    FOUND.into_iter().filter(|(_, _, pattern)| !pattern.ends_with(".log")).collect()
}

/// All is delivered when the files are compressed, with a clean stop each time.
#[test]
fn f39_clean_restarts_between_compressions_repeat_nothing() {
    let places = ["old", "old/app", "../archive"];
    each(&pairs(&places, &["share/logs/*.log", "share/logs/**/*"]), |&(place, pattern)| {
        let (mut pod, log, mut agent) = delivered_pod(pattern);
        let dir = log.with_file_name(place);
        for round in 0..4 {
            let gone = Naming::Numbered.next(&log, &dir);
            fs::rename(&log, &gone).unwrap();
            pod.ledger.append(&log, 100);
            pod.expect_all();
            if round % 2 == 0 {
                compress(&gone);
            }
            assert_eq!(pod.finish(agent), 0, "{round}");
            if round % 2 == 1 {
                compress(&gone);
            }
            agent = pod.start();
        }

        assert_eq!(pod.finish_twice(agent, &log), 0);
    });
}
