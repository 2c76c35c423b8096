//! Wrong settings and state directories that cannot be used: the exit code, the key's name, what
//! would be right; never a panic.

use std::collections::HashMap;
use std::fs;

use crate::support::disk::Disk;
use crate::support::{Pod, run, wait_for};

/// Starts the agent with one thing wrong; it must end with `code` and name each of `words`.
fn check(change: impl FnOnce(&mut HashMap<String, String>), code: i32, words: &[&str]) {
    let pod = Pod::new();
    let mut env = pod.environment();
    change(&mut env);
    for command in ["run", "check"] {
        let (found, _, complaint) = run(&[command], &env);
        assert_eq!(found, code, "{command}: {complaint}");
        for word in words {
            assert!(complaint.contains(word), "{command}: no {word:?} in:\n{complaint}");
        }
        assert!(!complaint.contains("panicked"), "{complaint}");
    }
}

fn set<'a>(key: &'a str, value: &'a str) -> impl FnOnce(&mut HashMap<String, String>) + 'a {
    |env| {
        env.insert(key.to_owned(), value.to_owned());
    }
}

#[test]
fn no_project() {
    check(|env| drop(env.remove("LOGFERRY_PROJECT")), 78, &["project", "LOGFERRY_PROJECT"]);
}

#[test]
fn an_endpoint_that_is_no_url() {
    check(set("LOGFERRY_ENDPOINT", "ftp://x"), 78, &["endpoint", "ftp://x", "https://"]);
    check(set("LOGFERRY_ENDPOINT", "http://"), 78, &["endpoint"]);
    check(set("LOGFERRY_ENDPOINT", "http://a b/"), 78, &["endpoint", "a b"]);
}

#[test]
fn a_negative_limit() {
    check(set("cpu_usage_limit", "-1"), 78, &["cpu_usage_limit", "-1"]);
    check(set("mem_usage_limit", "-384"), 78, &["mem_usage_limit", "-384"]);
    check(set("max_bytes_per_sec", "-1"), 78, &["max_bytes_per_sec", "-1"]);
}

#[test]
fn a_memory_limit_that_is_too_small() {
    check(set("mem_usage_limit", "8"), 78, &["mem_usage_limit"]);
}

#[test]
fn a_malformed_glob() {
    check(set("LOGFERRY_PATHS", "/share/logs/[a"), 78, &["paths", "/share/logs/[a"]);
    check(set("LOGFERRY_PATHS", "logs/*.log"), 78, &["paths", "logs/*.log"]);
}

#[test]
fn an_unknown_key() {
    check(set("LOGFERRY_BATCH_BYTE", "1MiB"), 78, &["LOGFERRY_BATCH_BYTE", "LOGFERRY_BATCH_BYTES"]);
}

#[test]
fn a_settings_file_that_cannot_be_read_or_understood() {
    check(set("LOGFERRY_CONFIG", "/nowhere/logferry.toml"), 78, &["/nowhere/logferry.toml"]);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("logferry.toml");
    let path = file.display().to_string();
    fs::write(&file, "batch_lines = = 3\n").unwrap();
    check(set("LOGFERRY_CONFIG", &path), 78, &[&path]);
    fs::write(&file, "batch_lanes = 3\n").unwrap();
    check(set("LOGFERRY_CONFIG", &path), 78, &["batch_lanes", "batch_lines", &path]);
    fs::write(&file, [0xff, 0xfe, 0x00]).unwrap();
    check(set("LOGFERRY_CONFIG", &path), 78, &[&path]);
}

#[test]
fn all_mistakes_are_named_at_once() {
    let all = |env: &mut HashMap<String, String>| {
        env.remove("LOGFERRY_PROJECT");
        env.insert("LOGFERRY_BATCH_LINES".to_owned(), "many".to_owned());
        env.insert("LOGFERRY_NONSENSE".to_owned(), "1".to_owned());
    };
    check(all, 78, &["LOGFERRY_PROJECT", "batch_lines", "many", "LOGFERRY_NONSENSE"]);
}

#[test]
fn a_state_directory_that_cannot_be_written() {
    check(
        set("LOGFERRY_STATE_DIR", "/proc/logferry"),
        73,
        &["/proc/logferry", "LOGFERRY_STATE_DIR"],
    );
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let path = file.display().to_string();
    check(set("LOGFERRY_STATE_DIR", &path), 73, &[&path]);
}

#[test]
fn a_second_agent_on_the_same_state_directory() {
    let pod = Pod::new();
    let first = pod.start();
    wait_for("the first agent", || pod.agent_log().contains("logferry starts"));
    let (code, complaint) = pod.run_beside();
    assert_eq!(code, 73, "{complaint}");
    assert!(complaint.contains("in use by another agent"), "{complaint}");
    assert!(complaint.contains(&first.id().to_string()), "{complaint}");
    assert_eq!(first.stop().0, 0);
}

#[test]
fn an_admin_address_that_is_taken() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let pod = Pod::new();
    let mut env = pod.environment();
    env.insert("LOGFERRY_LISTEN".to_owned(), address.clone());
    let (code, _, complaint) = run(&["run"], &env);
    assert_eq!(code, 78, "{complaint}");
    assert!(complaint.contains(&address) && complaint.contains("LOGFERRY_LISTEN"), "{complaint}");
}

#[test]
fn wrong_usage() {
    for args in [&["nonsense"][..], &["run", "--nonsense"], &["check", "--batch-lines"]] {
        let (code, _, complaint) = run(args, &HashMap::new());
        assert_eq!(code, 64, "{args:?}: {complaint}");
        assert!(complaint.contains("--help"), "{complaint}");
    }
}

/// All logs would be taken for the agent's own: as written, and over links as far as they lead now.
#[test]
fn a_state_directory_at_or_above_the_logs() {
    for (state, linked) in [
        ("share/logs", "data/pod/logs"),
        ("share", "data/pod/logs"),
        ("", "data/pod/logs"),
        ("data/pod/logs", "data/pod/logs"),
        ("data/pod", "data/pod/logs"),
        // Not made yet, neither of them.
        ("share", ""),
        ("share/logs", ""),
    ] {
        let pod = Pod::new();
        if !linked.is_empty() {
            pod.link(linked);
        }
        let mut env = pod.environment();
        let state = pod.path(state).display().to_string();
        env.insert("LOGFERRY_STATE_DIR".to_owned(), state.clone());
        for command in ["run", "check"] {
            let (code, _, complaint) = run(&[command], &env);
            assert_eq!(code, 78, "{state}: {complaint}");
            for word in ["state_dir", &*state, "share/logs/**/*.log", "a directory of its own"] {
                assert!(complaint.contains(word), "no {word:?} in:\n{complaint}");
            }
        }
        assert!(!pod.path("share/lock").exists(), "nothing is made");
    }
}

/// As `2> app.log` makes it, with `app.log` in the settings.
#[test]
fn a_log_that_is_the_agents_own_is_no_log_to_ship() {
    let mut pod = Pod::new();
    pod.patterns(&["agent.log"]);
    let agent = pod.start();
    assert_eq!(agent.exit_code(), 78);
    assert!(pod.agent_log().contains("is where the agent's own log goes"), "{}", pod.agent_log());
}

/// What the start would meet, `check` meets before: also as root, whom no mode forbids anything.
#[test]
fn check_tries_the_state_directory_and_leaves_no_trace() {
    let names = |dir: &std::path::Path| -> Vec<_> {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name()).collect()
    };
    let pod = Pod::new();
    let Some(disk) = Disk::tmpfs(&pod.path("disk"), "size=1m,mode=0777") else { return };
    for state in ["disk", "disk/state", "disk/to/be/made"] {
        let mut env = pod.environment();
        let path = pod.path(state).display().to_string();
        env.insert("LOGFERRY_STATE_DIR".to_owned(), path.clone());

        disk.remount("rw");
        let (code, out, complaint) = run(&["check"], &env);
        assert_eq!(code, 0, "{state}: {complaint}");
        assert!(!out.contains("note: the state"), "{out}");
        assert!(names(&pod.path("disk")).is_empty(), "{:?}", names(&pod.path("disk")));

        disk.remount("ro");
        for command in [&["run"][..], &["check"], &["check", "--connect"]] {
            let (code, out, complaint) = run(command, &env);
            assert_eq!(code, 73, "{command:?} {state}: {complaint}");
            let asks = command.len() > 1;
            assert_eq!(out.contains("endpoint: "), asks, "the rest is told all the same: {out}");
            assert!(complaint.contains(&path), "{complaint}");
            assert!(complaint.contains("mounted read-only"), "{complaint}");
        }
    }
}

/// It is asked beside the agent that holds it, and of a directory that has worked.
#[test]
fn check_takes_a_state_directory_in_use_for_a_good_one() {
    let (mut pod, log) = Pod::with_log();
    let Some(disk) = Disk::tmpfs(&pod.path("state"), "size=1m,mode=0777") else { return };
    pod.ledger.append(&log, 10);
    let agent = pod.start();
    pod.expect_all();
    let check = || run(&["check"], &pod.environment());

    assert_eq!(check().0, 0);
    assert_eq!(agent.stop().0, 0);
    disk.remount("ro");
    let (code, out, complaint) = check();
    let agent = pod.start();

    assert_eq!(code, 0, "{complaint}");
    assert!(out.contains("read-only") && out.contains("starts all the same"), "{out}");
    assert_eq!(agent.stop().0, 0, "so it does: {}", pod.agent_log());
}
