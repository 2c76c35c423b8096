//! A file that was read in part is excluded, or taken out of the patterns, between two runs (F45):
//! nothing of it is shipped any more, wherever the rest stands; taken back, it is read on.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use logferry_mock::Group;

use crate::support::{
    Agent, LOGSTORE, Meanwhile, OTHER_LOGSTORE, OTHER_PROJECT, PROJECT, Pod, append_to, compress,
    copy_and_empty, each, numbered, pairs,
};

/// How a file is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Out {
    /// `exclude` names it.
    Excluded,
    /// `exclude` finds it and all of its generations.
    ExcludedWithGenerations,
    /// `paths` names the other file only.
    NotInPaths,
}

const OUTS: [Out; 3] = [Out::Excluded, Out::ExcludedWithGenerations, Out::NotInPaths];

/// What becomes of the file meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    /// It stays where it is, and grows.
    Stays,
    /// `app.log.1`, and another file takes its place.
    Renamed,
    /// Renamed and compressed.
    Compressed,
    /// Copied and emptied.
    Copied,
    /// Moved into another directory.
    Moved,
    /// Rotated twice: one file was never seen.
    Twice,
}

const THENS: [Then; 6] =
    [Then::Stays, Then::Renamed, Then::Compressed, Then::Copied, Then::Moved, Then::Twice];

fn is_out(pod: &mut Pod, out: Out) {
    let path = |pod: &Pod, name: &str| pod.path("share/logs").join(name).display().to_string();
    match out {
        Out::Excluded => {
            let excluded = path(pod, "secret.log");
            pod.set("LOGFERRY_EXCLUDE", &excluded);
        }
        Out::ExcludedWithGenerations => {
            let excluded = path(pod, "**/secret.log*");
            pod.set("LOGFERRY_EXCLUDE", &excluded);
        }
        Out::NotInPaths => {
            pod.patterns(&["share/logs/app.log"]);
        }
    }
}

/// Lines that must not arrive: the ledger does not know them.
fn write_secret(log: &Path, count: usize) {
    append_to(log).write_all("must not be shipped\n".repeat(count).as_bytes()).unwrap();
}

/// Nothing but what is in the ledger arrives, after another start too; the log goes on.
fn expect_only_the_log(pod: &mut Pod, agent: Agent, log: &Path) {
    agent.stop();
    let agent = pod.start();
    pod.ledger.append(log, 10);
    pod.expect_all();
    agent.stop();
    assert_eq!(pod.ledger.check(&pod.mock), 0);
    pod.expect_sound();
}

fn happen(log: &Path, then: Then) {
    write_secret(log, 50);
    match then {
        Then::Stays => return,
        Then::Renamed | Then::Twice => fs::rename(log, numbered(log, 1)).unwrap(),
        Then::Compressed => {
            fs::rename(log, numbered(log, 1)).unwrap();
            compress(&numbered(log, 1));
        }
        Then::Copied => copy_and_empty(log, &numbered(log, 1)),
        Then::Moved => {
            fs::create_dir_all(log.with_file_name("old")).unwrap();
            fs::rename(log, log.with_file_name("old").join("secret.log")).unwrap();
        }
    }
    write_secret(log, 20);
    if then == Then::Twice {
        fs::rename(numbered(log, 1), numbered(log, 2)).unwrap();
        fs::rename(log, numbered(log, 1)).unwrap();
        write_secret(log, 5);
    }
}

/// Two logs are delivered; the agent runs.
fn delivered_pod() -> (Pod, PathBuf, PathBuf, Agent) {
    let (mut pod, log) = Pod::with_log();
    let secret = log.with_file_name("secret.log");
    pod.patterns(&["share/logs/*.log"]);
    pod.ledger.append(&secret, 100);
    pod.ledger.append(&log, 100);
    let agent = pod.start();
    pod.expect_all();
    (pod, log, secret, agent)
}

/// Neither in that run nor in the next one, under whatever name; to the same logstore or another one.
#[test]
fn f45_nothing_of_a_file_that_was_left_out_is_shipped() {
    let runs = [
        (Meanwhile::Stopped, (PROJECT, OTHER_LOGSTORE)),
        (Meanwhile::Killed, (PROJECT, LOGSTORE)),
        (Meanwhile::Stopped, (OTHER_PROJECT, LOGSTORE)),
        (Meanwhile::Killed, (PROJECT, OTHER_LOGSTORE)),
        (Meanwhile::Stopped, (PROJECT, LOGSTORE)),
    ];
    let runs = runs.into_iter();
    let cases = pairs(&OUTS, &THENS).into_iter().zip(runs.cycle());
    each(&cases.collect::<Vec<_>>(), |&((out, then), (how, (project, logstore)))| {
        let (mut pod, log, secret, agent) = delivered_pod();
        let agent = pod.meanwhile(agent, how, |pod| {
            happen(&secret, then);
            is_out(pod, out);
            pod.set("LOGFERRY_PROJECT", project).set("LOGFERRY_LOGSTORE", logstore);
            pod.ledger.append(&log, 10);
        });
        pod.expect_all();
        write_secret(&secret, 10);
        pod.ledger.append(&log, 10);
        pod.expect_all();
        expect_only_the_log(&mut pod, agent, &log);
    });
}

/// `exclude` finds the names that generations have now, and not the log's: what was not read of the one
/// that is known stays unread, so does one that was never seen, and the log goes on.
#[test]
fn f45_a_generation_whose_present_name_is_excluded_is_left_alone() {
    let excludes = ["share/logs/*.log.*", "share/logs/secret.log.*", "share/logs/old/**"];
    each(&pairs(&excludes, &Meanwhile::AWAY), |&(exclude, how)| {
        let (mut pod, log, secret, agent) = delivered_pod();
        let agent = pod.meanwhile(agent, how, |pod| {
            let dir = if exclude.contains("/old/") { "old/secret.log" } else { "secret.log" };
            let old = secret.with_file_name(dir);
            fs::create_dir_all(old.parent().unwrap()).unwrap();
            for number in [2, 1] {
                write_secret(&secret, 50);
                fs::rename(&secret, numbered(&old, number)).unwrap();
            }
            let exclude = pod.path(exclude).display().to_string();
            pod.set("LOGFERRY_EXCLUDE", &exclude);
            pod.ledger.append(&secret, 10);
            pod.ledger.append(&log, 10);
        });
        pod.expect_all();
        expect_only_the_log(&mut pod, agent, &log);
    });
}

/// It is said, once, and what is remembered of the file is kept: taken back, it is read on.
#[test]
fn f45_a_file_that_was_left_out_is_named_once_and_read_on_when_it_is_taken_back() {
    let thens = [Then::Stays, Then::Renamed, Then::Moved];
    each(&pairs(&thens, &OUTS), |&(then, out)| {
        let (mut pod, log, secret, agent) = delivered_pod();
        assert_eq!(agent.stop().0, 0);
        pod.ledger.append(&secret, 50);
        let rest = pod.ledger.lines.len() - 50..pod.ledger.lines.len();
        match then {
            Then::Renamed => fs::rename(&secret, numbered(&secret, 1)).unwrap(),
            Then::Moved => {
                fs::create_dir(secret.with_file_name("old")).unwrap();
                fs::rename(&secret, secret.with_file_name("old").join("secret.log")).unwrap();
            }
            _ => {}
        }
        is_out(&mut pod, out);
        for _ in 0..2 {
            let told = pod.agent_log().len();
            pod.ledger.append(&log, 10);
            let agent = pod.start();
            crate::support::wait_for("the other file", || {
                let missing = pod.ledger.missing_numbers(&pod.mock);
                missing.iter().all(|number| rest.contains(number))
            });
            agent.stop();
            let text = pod.agent_log()[told..].to_owned();
            let is_named =
                |line: &&str| line.contains("share/logs/secret.log") && !line.contains(" DEBUG ");
            let count = text.lines().filter(is_named).count();
            assert_eq!(count, 1, "it is named once:\n{text}");
        }
        let missing = pod.ledger.missing_numbers(&pod.mock);
        assert_eq!(missing, rest.collect::<Vec<_>>(), "it is left out");

        pod.set("LOGFERRY_EXCLUDE", "").patterns(&["share/logs/*.log"]);
        let agent = pod.start();
        assert_eq!(pod.finish_twice(agent, &log), 0);
    });
}

/// Another logstore or project, and nothing left out: each file is read on where it was, into the new
/// one.
#[test]
fn f45_with_another_logstore_a_file_is_read_on() {
    let targets = [(PROJECT, OTHER_LOGSTORE), (OTHER_PROJECT, LOGSTORE)];
    let runs = pairs(&Meanwhile::AWAY, &targets);
    each(&pairs(&THENS[..3], &runs), |&(then, (how, (project, logstore)))| {
        let (mut pod, log, secret, agent) = delivered_pod();
        let agent = pod.meanwhile(agent, how, |pod| {
            pod.ledger.append(&secret, 50);
            match then {
                Then::Renamed => fs::rename(&secret, numbered(&secret, 1)).unwrap(),
                Then::Compressed => drop(compress(&secret)),
                _ => {}
            }
            pod.set("LOGFERRY_PROJECT", project).set("LOGFERRY_LOGSTORE", logstore);
            pod.ledger.append(&secret, 10);
        });

        assert_eq!(pod.finish_twice(agent, &log), 0);
        let groups = pod.mock.store().groups();
        let is_there = |group: &Group| (&*group.project, &*group.logstore) == (project, logstore);
        let lines: usize =
            groups.iter().filter(|group| is_there(group)).map(|group| group.logs().len()).sum();
        assert_eq!(lines, 50 + 10 + 1);
    });
}
