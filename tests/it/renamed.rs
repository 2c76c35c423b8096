//! Renamed directories and files that were moved (F40), names that rotation seldom gives (F41), and
//! many finished logs that are renamed (F42): what was read of a file is known wherever it is.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::{
    Agent, Meanwhile, Pod, append_to, compress, copy_and_empty, each, pairs, rotate, wait_for,
};

/// 300 lines are delivered; the agent runs.
fn delivered_pod(pattern: &str) -> (Pod, PathBuf, Agent) {
    delivered_log("app.log", pattern)
}

/// The same of a log with another name.
fn delivered_log(name: &str, pattern: &str) -> (Pod, PathBuf, Agent) {
    let (mut pod, log) = Pod::with_log();
    let log = log.with_file_name(name);
    pod.patterns(&[pattern]);
    pod.ledger.append(&log, 300);
    let agent = pod.start();
    pod.expect_all();
    (pod, log, agent)
}

// === F40: renamed directories, moved files

/// A directory and its new name, and where the log is then.
const DIRECTORIES: [(&str, &str, &str); 5] = [
    ("data/pod/logs", "data/pod/logs.old", "data/pod/logs.old/app.log"),
    ("data/pod/logs", "data/logs-1", "data/logs-1/app.log"),
    ("data/pod/logs", "data/pod/old/logs", "data/pod/old/logs/app.log"),
    ("data/pod", "data/pod.old", "data/pod.old/logs/app.log"),
    ("data/pod", "data/pod-1", "data/pod-1/logs/app.log"),
];

/// The directory is renamed and another one stands in its place, or the link leads to another place.
#[test]
fn f40_lines_follow_a_renamed_directory() {
    each(&pairs(&DIRECTORIES, &Meanwhile::ALL), |&((old, new, moved), how)| {
        let (mut pod, log, agent) = delivered_pod("share/logs/**/*.log");
        let mut writer = append_to(&log);
        let agent = pod.meanwhile(agent, how, |pod| {
            pod.ledger.write(&mut writer, 50);
            let new = pod.path(new);
            fs::create_dir_all(new.parent().unwrap()).unwrap();
            fs::rename(pod.path(old), new).unwrap();
            pod.ledger.append(&pod.path(moved), 10);
            pod.link("data/pod/logs");
            pod.ledger.append(&log, 80);
        });
        pod.expect_all();
        pod.ledger.write(&mut writer, 10);
        pod.expect_all();

        assert_eq!(pod.finish_twice(agent, &log), 0);
        assert_eq!(pod.shipped_paths(), ["share/logs/app.log".to_owned()].into());
    });
}

/// Nothing stands in its place: the link leads to the directory of another name then, or nowhere.
#[test]
fn f40_lines_follow_a_renamed_directory_that_nothing_takes_the_place_of() {
    each(&pairs(&["data/pod-2/logs", "data/pod/logs-2"], &Meanwhile::ALL), |&(next, how)| {
        let (mut pod, log, agent) = delivered_pod("share/logs/*.log");
        let moved = pod.path("data/pod/logs.old/app.log");
        let next_log = pod.path(next).join("app.log");
        let agent = pod.meanwhile(agent, how, |pod| {
            pod.ledger.append(&log, 50);
            fs::rename(pod.path("data/pod/logs"), pod.path("data/pod/logs.old")).unwrap();
            pod.ledger.append(&moved, 10);
            pod.link(next);
            pod.ledger.append(&next_log, 80);
        });

        assert_eq!(pod.finish_twice(agent, &next_log), 0);
    });
}

/// Renamed again and again, a new one each time, as a deployment does that keeps the last ones.
#[test]
fn f40_lines_follow_a_directory_that_is_renamed_again_and_again() {
    each(&Meanwhile::ALL, |&how| {
        let (mut pod, log, mut agent) = delivered_pod("share/logs/*.log");
        for _ in 0..3 {
            agent = pod.meanwhile(agent, how, |pod| {
                pod.ledger.append(&log, 50);
                for number in (0..3).rev() {
                    let dir = |number: usize| pod.path(&format!("data/pod/logs.{number}"));
                    let _ = fs::rename(dir(number), dir(number + 1));
                }
                fs::rename(pod.path("data/pod/logs"), pod.path("data/pod/logs.0")).unwrap();
                pod.link("data/pod/logs");
                pod.ledger.append(&log, 80);
            });
        }

        assert_eq!(pod.finish_twice(agent, &log), 0);
    });
}

/// Rotated first: what nobody has seen stands in the renamed directory beside what is known, under a name
/// of a generation and under that of the log.
#[test]
fn f40_what_was_made_in_a_directory_before_it_was_renamed_is_found() {
    let directories = [DIRECTORIES[0], DIRECTORIES[1], DIRECTORIES[3]];
    each(&pairs(&directories, &Meanwhile::BLIND), |&((old, new, moved), how)| {
        let (mut pod, log, agent) = delivered_pod("share/logs/*.log");
        let agent = pod.meanwhile(agent, how, |pod| {
            pod.ledger.append(&log, 50);
            for _ in 0..2 {
                rotate(&log, 9);
                pod.ledger.append(&log, 80);
            }
            fs::rename(pod.path(old), pod.path(new)).unwrap();
            pod.ledger.append(&pod.path(moved), 10);
            pod.link("data/pod/logs");
            pod.ledger.append(&log, 30);
        });

        assert_eq!(pod.finish_twice(agent, &log), 0);
        assert_eq!(pod.shipped_paths(), ["share/logs/app.log".to_owned()].into());
    });
}

/// Where a single file is moved to, from the directory of the log.
const PLACES: [&str; 7] = [
    "../app.log",
    "../../app.log",
    "../other/app.log",
    "../other/deep/app.log",
    "a/app.log",
    "a/b/app.log",
    "a/b/finished",
];

/// Moved up, down and aside; another one takes its place, or none does.
#[test]
fn f40_lines_follow_a_file_that_is_moved() {
    each(&pairs(&PLACES, &Meanwhile::ALL), |&(place, how)| {
        let (mut pod, log, agent) = delivered_pod("share/logs/*.log");
        let moved = log.parent().unwrap().join(place);
        let has_successor = !place.starts_with("a/b");
        let agent = pod.meanwhile(agent, how, |pod| {
            pod.ledger.append(&log, 50);
            fs::create_dir_all(moved.parent().unwrap()).unwrap();
            fs::rename(&log, &moved).unwrap();
            pod.ledger.append(&moved, 10);
            if has_successor {
                pod.ledger.append(&log, 80);
            }
        });
        pod.expect_all();
        pod.ledger.append(&moved, 10);

        assert_eq!(pod.finish_twice(agent, &log), 0);
        assert_eq!(pod.shipped_paths(), ["share/logs/app.log".to_owned()].into());
    });
}

/// log4j2's `$${date:yyyy-MM}/app-%d-%i.log.gz`: what was read in part, and what nobody has seen, is
/// compressed in a directory for the month.
#[test]
fn f40_archives_in_a_directory_for_the_month_hold_the_rest() {
    let patterns = ["share/logs/*.log", "share/logs/**/*"];
    each(&pairs(&patterns, &Meanwhile::ALL), |&(pattern, how)| {
        let (mut pod, log, mut agent) = delivered_pod(pattern);
        let mut number = 0;
        for rotations in [1, 2] {
            agent = pod.meanwhile(agent, how, |pod| {
                for _ in 0..rotations {
                    pod.ledger.append(&log, 50);
                    if how == Meanwhile::Running {
                        pod.expect_all();
                    }
                    number += 1;
                    let name = format!("2026-11/app-2026-11-30-{number}.log");
                    let archive = log.with_file_name(name);
                    fs::create_dir_all(archive.parent().unwrap()).unwrap();
                    // As log4j2 does it: renamed first, compressed then.
                    fs::rename(&log, &archive).unwrap();
                    compress(&archive);
                    pod.ledger.append(&log, 80);
                }
            });
        }

        assert_eq!(pod.finish_twice(agent, &log), 0);
    });
}

/// Not delivered to its end, and farther away than anybody looks, or where `link_roots` does not allow
/// to read: that is said, and the run ends with 75. Put back, it is read on.
#[test]
fn f40_a_file_moved_out_of_reach_is_missing_and_read_on_when_it_is_back() {
    let cases =
        [("elsewhere/deep/down/app.log", None), ("data/pod/app.log", Some("data/pod/logs"))];
    each(&cases, |&(place, roots)| {
        let (mut pod, log) = Pod::with_log();
        pod.set("LOGFERRY_DRAIN_DEADLINE", "2s");
        pod.ledger.append(&log, 300);
        let agent = pod.start();
        pod.expect_all();
        pod.mock.stop();
        let rest = pod.ledger.lines.len();
        pod.ledger.append(&log, 50);
        let rest: Vec<usize> = (rest..rest + 50).collect();
        assert_eq!(agent.stop().0, 75, "{}", pod.agent_log());
        pod.mock.resume().unwrap();
        pod.set("LOGFERRY_DRAIN_DEADLINE", "25s");

        let moved = pod.path(place);
        fs::create_dir_all(moved.parent().unwrap()).unwrap();
        fs::rename(&log, &moved).unwrap();
        pod.ledger.append(&log, 80);
        if let Some(roots) = roots {
            pod.set("LOGFERRY_LINK_ROOTS", &pod.path(roots).display().to_string());
        }
        let told = pod.agent_log().len();
        let agent = pod.start();
        wait_for("the new file", || {
            let missing = pod.ledger.missing_numbers(&pod.mock);
            missing.iter().all(|number| rest.contains(number))
        });
        let code = agent.stop().0;
        assert_eq!(pod.ledger.missing_numbers(&pod.mock), rest, "it may not be read there");
        let text = pod.agent_log()[told..].to_owned();
        let is_said = |line: &str| line.contains("WARN") && line.contains("share/logs/app.log");
        let is_named = text.lines().any(is_said);
        assert_eq!((code, is_named), (75, true), "not everything was delivered:\n{text}");

        fs::rename(&moved, log.with_file_name("app.log.1")).unwrap();
        let agent = pod.start();
        assert_eq!(pod.finish_twice(agent, &log), 0);
    });
}

// === F41: names that rotation seldom gives

/// A log, and the names that its generations get, the older one first. Where the names are the same
/// the newer one takes the place of the older.
const NAMES: [(&str, [&str; 2]); 12] = [
    ("app.log", ["app.log.old", "app.log.old"]),
    ("app.log", ["app.log.bak", "app.log.bak"]),
    ("app.log", ["app.log.prev", "app.log.prev"]),
    ("app.log", ["app.log~", "app.log~"]),
    ("app-out.log", ["app-out__2026-11-30_00-00-00.log", "app-out__2026-12-01_00-00-00.log"]),
    ("app.log", ["app.log.20261130T100000Z", "app.log.20261130T110000Z"]),
    ("app.log", ["app-20261130T100000Z.log", "app-20261130T110000Z.log"]),
    ("app.log", ["app-2026-11-30T10-00-00.123.log", "app-2026-11-30T11-00-00.456.log"]),
    ("app.log", ["app.log.2026-11-30_10-00", "app.log.2026-11-30_11-00"]),
    ("current", ["@400000006749ab0112345678.s", "@400000006749ab0212345678.s"]),
    ("current", ["@400000006749ab0112345678.u", "@400000006749ab0212345678.s"]),
    ("current", ["@400000006749ab0112345678.u", "@400000006749ab0212345678.u"]),
];

/// One pattern that finds the log only, and one that finds the whole directory.
fn patterns_of(log: &str) -> [String; 2] {
    [format!("share/logs/{log}"), "share/logs/*".to_owned()]
}

/// Runs one way to rotate under all names and patterns.
fn check_names(how: Meanwhile, rotate: fn(&Path, &Path)) {
    let cases: Vec<_> = NAMES
        .iter()
        .flat_map(|(log, names)| patterns_of(log).map(|pattern| (*log, *names, pattern)))
        .collect();
    each(&cases, |(log, names, pattern)| {
        let (mut pod, log, agent) = delivered_log(log, pattern);
        let [old, new] = names.map(|name| log.with_file_name(name));
        let agent = pod.meanwhile(agent, how, |pod| {
            if old != new {
                // Where the next one takes its place, this one's rest would be nowhere.
                pod.ledger.append(&log, 50);
            }
            rotate(&log, &old);
            pod.ledger.append(&log, 80);
            if how == Meanwhile::Running {
                pod.expect_all();
            }
            rotate(&log, &new);
            pod.ledger.append(&log, 30);
        });
        pod.expect_all();
        pod.ledger.append(&log, 50);
        if old == new {
            // What is there is delivered when it goes.
            pod.expect_all();
        }
        let agent = pod.meanwhile(agent, how, |pod| {
            pod.ledger.append(&log, 20);
            let last = log.with_file_name(names[1]);
            if old == new {
                rotate(&log, &last);
                pod.ledger.append(&log, 10);
            }
        });

        assert_eq!(pod.finish_twice(agent, &log), 0);
    });
}

fn rename(log: &Path, to: &Path) {
    fs::rename(log, to).unwrap();
}

#[test]
fn f41_seldom_names_are_known_by_a_running_agent() {
    check_names(Meanwhile::Running, rename);
}

#[test]
fn f41_seldom_names_are_known_after_a_freeze() {
    check_names(Meanwhile::Frozen, rename);
}

#[test]
fn f41_seldom_names_are_known_after_a_stop() {
    check_names(Meanwhile::Stopped, rename);
}

#[test]
fn f41_seldom_names_are_known_after_a_kill() {
    check_names(Meanwhile::Killed, rename);
}

#[test]
fn f41_copies_with_seldom_names_are_known_by_a_running_agent() {
    check_names(Meanwhile::Running, copy_and_empty);
}

/// A copy takes the place of one that was met when the log had its lines still, and holds lines that
/// were never read in the log.
#[test]
fn f41_a_copy_over_a_known_one_is_read_by_a_running_agent() {
    let (mut pod, log, agent) = delivered_log("app.log", "share/logs/app.log");
    let old = log.with_file_name("app.log.old");
    agent.suspend();
    pod.ledger.append(&log, 20);
    copy_and_empty(&log, &old);
    agent.resume();
    // Only the copy has some of it, so that is open now.
    pod.ledger.append(&log, 80);
    pod.expect_all();
    fs::copy(&log, &old).unwrap();
    pod.wait_for_log("truncated or rewritten", 2);
    fs::File::options().write(true).open(&log).unwrap().set_len(0).unwrap();
    pod.ledger.append(&log, 30);
    pod.expect_all();

    pod.ledger.append(&log, 20);
    copy_and_empty(&log, &old);
    pod.ledger.append(&log, 10);

    assert_eq!(pod.finish_twice(agent, &log), 0);
}

#[test]
fn f41_copies_with_seldom_names_are_known_after_a_freeze() {
    check_names(Meanwhile::Frozen, copy_and_empty);
}

#[test]
fn f41_copies_with_seldom_names_are_known_after_a_stop() {
    check_names(Meanwhile::Stopped, copy_and_empty);
}

#[test]
fn f41_copies_with_seldom_names_are_known_after_a_kill() {
    check_names(Meanwhile::Killed, copy_and_empty);
}

/// The same names with `.gz`: what was delivered is not shipped again, what was not is.
#[test]
fn f41_archives_with_seldom_names_hold_the_rest_and_repeat_nothing() {
    let cases: Vec<_> = NAMES
        .iter()
        .flat_map(|(log, names)| patterns_of(log).map(|pattern| (*log, names[0], pattern)))
        .collect();
    each(&cases, |(log, name, pattern)| {
        for how in [Meanwhile::Stopped, Meanwhile::Frozen] {
            let (mut pod, log, agent) = delivered_log(log, pattern);
            let agent = pod.meanwhile(agent, how, |pod| {
                pod.ledger.append(&log, 50);
                let old = log.with_file_name(name);
                fs::rename(&log, &old).unwrap();
                compress(&old);
                pod.ledger.append(&log, 80);
            });

            assert_eq!(pod.finish_twice(agent, &log), 0, "{how:?}");
        }
    });
}

/// A name that begins like the log's and ends in none of these ways is somebody else's.
#[test]
fn f41_other_names_beside_a_log_are_left_alone() {
    each(&Meanwhile::ALL, |&how| {
        let (mut pod, log, agent) = delivered_pod("share/logs/app.log");
        let agent = pod.meanwhile(agent, how, |pod| {
            for name in ["app.log.lock", "app.log.swp", "app.pid", "xapp.log.old", "@4", "@x.s"] {
                fs::write(log.with_file_name(name), "of somebody else\n").unwrap();
            }
            pod.ledger.append(&log, 50);
            fs::rename(&log, log.with_file_name("app.log.old")).unwrap();
            pod.ledger.append(&log, 80);
        });

        assert_eq!(pod.finish_twice(agent, &log), 0);
    });
}

// === F42: many finished logs

/// A job's log each; when it is delivered, it gets another name. There are so many of them, four times,
/// that not all can be open at once.
fn check_finished(start: fn(&Pod) -> Agent, count: usize, rename: fn(&Path, usize) -> PathBuf) {
    let (mut pod, log) = Pod::with_log();
    pod.patterns(&["share/logs/*.log"]);
    pod.set("LOGFERRY_LOG", "info");
    let agent = start(&pod);
    let mut number = 0;
    for _ in 0..4 {
        let logs: Vec<PathBuf> = (0..count)
            .map(|_| {
                number += 1;
                log.with_file_name(format!("job-{number}-of-many.log"))
            })
            .collect();
        logs.iter().for_each(|log| pod.ledger.append(log, 2));
        pod.expect_all();
        for (number, log) in logs.iter().enumerate() {
            let to = rename(log, number);
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::rename(log, to).unwrap();
        }
    }

    assert_eq!(pod.finish(agent), 0);
    let agent = start(&pod);
    pod.ledger.append(&log.with_file_name("last.log"), 1);
    assert_eq!(pod.finish(agent), 0);
}

fn done(log: &Path, _: usize) -> PathBuf {
    log.with_extension("log.done")
}

fn done_aside(log: &Path, number: usize) -> PathBuf {
    let dir = format!("../done/{}", number % 4);
    log.with_file_name(dir).join(log.file_name().unwrap())
}

#[test]
fn f42_finished_logs_that_are_renamed_hold_no_descriptors() {
    each(&[done, done_aside].map(Renaming), |renaming| {
        check_finished(|pod| pod.start_with_descriptors(64), 40, renaming.0);
    });
}

#[test]
fn f42_finished_logs_that_leave_the_patterns_hold_no_memory() {
    each(&[done, done_aside].map(Renaming), |renaming| {
        let start = |pod: &Pod| {
            let mut env = pod.environment();
            env.insert("mem_usage_limit".to_owned(), "32".to_owned());
            Agent::start(&env, &pod.path("agent.log"))
        };
        check_finished(start, 500, renaming.0);
    });
}

struct Renaming(fn(&Path, usize) -> PathBuf);

impl std::fmt::Debug for Renaming {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "to {}", self.0(Path::new("job.log"), 0).display())
    }
}

/// Not delivered yet when they are renamed: nothing is lost, however few descriptors there are.
#[test]
fn f42_logs_that_are_renamed_before_they_are_opened_arrive() {
    let (mut pod, log) = Pod::with_log();
    pod.patterns(&["share/logs/*.log"]);
    let agent = pod.start_with_descriptors(64);
    for number in 0..200 {
        let log = log.with_file_name(format!("job-{number}-of-many.log"));
        pod.ledger.append(&log, 5);
        if number >= 50 {
            // Seen long ago, opened or not.
            let earlier = log.with_file_name(format!("job-{}-of-many.log", number - 50));
            let to = done(&earlier, number);
            fs::rename(earlier, to).unwrap();
        }
        if number % 50 == 49 {
            pod.expect_all();
        }
    }

    assert_eq!(pod.finish(agent), 0);
}
