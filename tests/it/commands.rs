//! The commands that people type first.

use std::collections::HashMap;

use logferry::mock;

use crate::support::{Pod, run};

#[test]
fn the_demo_ends_with_written_equal_to_delivered() {
    let (code, out, complaint) = run(&["demo", "--seconds", "4", "--rate", "500"], &HashMap::new());
    assert_eq!(code, 0, "{out}\n{complaint}");
    assert!(out.contains("http://127.0.0.1:"), "the page's address:\n{out}");
    assert!(out.contains("written 2000 = delivered 2000"), "{out}");
}

#[test]
fn check_prints_every_value_its_origin_and_the_memory_sum() {
    let pod = Pod::new();
    let (code, out, complaint) = run(&["check", "--batch-lines", "77"], &pod.environment());
    assert_eq!(code, 0, "{complaint}");
    for word in ["batch_lines", "77", "test-project", "LOGFERRY_PROJECT", "default", "***"] {
        assert!(out.contains(word), "no {word:?} in:\n{out}");
    }
    assert!(!out.contains("test-access-key-secret"), "{out}");
}

#[test]
fn link_roots_are_shown_by_check_and_a_wrong_one_is_named() {
    let pod = Pod::new();
    let mut env = pod.environment();
    env.insert("LOGFERRY_LINK_ROOTS".to_owned(), "/data/, /mnt//logs".to_owned());
    let (code, out, complaint) = run(&["check"], &env);
    assert_eq!(code, 0, "{complaint}");
    let row = out.lines().find(|line| line.starts_with("link_roots")).expect("the row");
    assert!(row.contains(" /data,/mnt/logs "), "{row}");
    assert!(row.ends_with("environment LOGFERRY_LINK_ROOTS"), "{row}");

    env.insert("LOGFERRY_LINK_ROOTS".to_owned(), "/data,logs".to_owned());
    let (code, _, complaint) = run(&["check"], &env);
    assert_eq!(code, 78);
    for word in ["link_roots", "\"logs\"", "LOGFERRY_LINK_ROOTS", "absolute directories"] {
        assert!(complaint.contains(word), "no {word:?} in:\n{complaint}");
    }
}

#[test]
fn check_connect_tells_whether_delivery_would_work() {
    let pod = Pod::new();
    let (code, out, complaint) = run(&["check", "--connect"], &pod.environment());
    assert_eq!(code, 0, "{out}\n{complaint}");

    let wrong = |key: &str, value: &str, word: &str| {
        let mut env = pod.environment();
        env.insert(key.to_owned(), value.to_owned());
        let (code, out, complaint) = run(&["check", "--connect"], &env);
        assert_eq!(code, 78, "{out}\n{complaint}");
        assert!(complaint.contains(word), "no {word:?} in:\n{complaint}");
    };
    wrong("LOGFERRY_LOGSTORE", "missing", "logstore: status 404, LogStoreNotExist");
    wrong("LOGFERRY_LOGSTORE", "missing", "create logstore missing");
    wrong("LOGFERRY_PROJECT", "missing", "project: status 404, ProjectNotExist");
    wrong("LOGFERRY_PROJECT", "missing", "create project missing");
    wrong("ALIBABA_CLOUD_ACCESS_KEY_SECRET", "wrong", "credentials: status 401, SignatureNotMatch");
    wrong("LOGFERRY_ENDPOINT", "http://127.0.0.1:1", "connection refused");
    wrong("LOGFERRY_ENDPOINT", "http://127.0.0.1:1", "the host and the port");
}

#[test]
fn check_connect_tells_a_clock_that_is_off() {
    let options = mock::Options { clock_offset_seconds: 3600, ..mock::Options::default() };
    let pod = Pod::with_endpoint(options);

    let (code, out, complaint) = run(&["check", "--connect"], &pod.environment());

    assert_eq!(code, 78, "{out}");
    assert!(complaint.contains("clock: status 400, RequestTimeExpired"), "{complaint}");
    assert!(complaint.contains("set the clock of this machine"), "{complaint}");
}

#[test]
fn check_connect_does_not_wait_for_packets_that_vanish() {
    let mut pod = Pod::new();
    let wire = pod.wire();
    wire.lose_packets(true);

    let (code, out, complaint) = run(&["check", "--connect"], &pod.environment());

    assert_eq!(code, 78, "{out}");
    assert!(complaint.contains("no answer in time: no connection within 5s"), "{complaint}");
    assert!(complaint.contains("network policy"), "{complaint}");
}

/// The port of something else.
#[test]
fn check_connect_tells_an_answer_of_somebody_else() {
    let mut pod = Pod::new();
    let wire = pod.wire();
    wire.rewrite_answers(|_| b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".to_vec());

    let (code, out, complaint) = run(&["check", "--connect"], &pod.environment());

    assert_eq!(code, 78, "{out}");
    assert!(complaint.contains("somebody else answers: status 200"), "{complaint}");
}

#[test]
fn version_names_itself() {
    let (code, out, _) = run(&["version"], &HashMap::new());
    assert_eq!(code, 0);
    assert!(out.starts_with(concat!("logferry ", env!("CARGO_PKG_VERSION"))), "{out}");
}
