//! The commands that people type first.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use logferry::mock;
use logferry::signals::ONE_STOP;

use crate::support::signals::{CONTINUE, HANGUP, INTERRUPT, KILL, QUIT, STOP, TERM, kill};
use crate::support::{Pod, pause, run, wait_for};

#[test]
fn the_demo_ends_with_written_equal_to_delivered() {
    let (code, out, complaint) = run(&["demo", "--seconds", "4", "--rate", "500"], &HashMap::new());
    assert_eq!(code, 0, "{out}\n{complaint}");
    assert!(out.contains("http://127.0.0.1:"), "the page's address:\n{out}");
    assert!(out.contains("written 2000 = delivered 2000"), "{out}");
}

/// A demo that would go on for minutes, in a temporary directory that is otherwise empty.
struct Demo {
    dir: tempfile::TempDir,
    demo: Child,
    out: Option<BufReader<ChildStdout>>,
    /// The process id of its agent.
    agent: u32,
}

impl Demo {
    /// Once its agent has delivered something.
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_logferry"));
        command.args(["demo", "--seconds", "600", "--rate", "200"]);
        command.env_clear().env("TMPDIR", dir.path()).stdin(Stdio::null());
        let demo = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut started = Self { dir, demo, out: None, agent: 0 };
        started.out = started.demo.stdout.take().map(BufReader::new);
        let line = started.read_until("process ");
        let (_, words) = line.split_once("process ").unwrap();
        started.agent = words.split(',').next().unwrap().parse().unwrap();
        while started.read_until("delivered ").ends_with(" 0\n") {}
        started
    }

    /// Reads on until a line holds this.
    fn read_until(&mut self, text: &str) -> String {
        let mut line = String::new();
        while !line.contains(text) {
            line.clear();
            let count = self.out.as_mut().unwrap().read_line(&mut line).unwrap();
            assert!(count > 0, "it ended before {text:?}");
        }
        line
    }

    /// Neither a process nor a directory is left, in the end.
    fn expect_nothing(&self) {
        let stat = format!("/proc/{}/stat", self.agent);
        let stat = Path::new(&stat);
        // Who has lost its parent may have none that waits for it.
        let is_over = || std::fs::read_to_string(stat).map_or(true, |text| text.contains(") Z "));
        wait_for("the agent to be gone", is_over);
        wait_for("the directory to be gone", || {
            std::fs::read_dir(self.dir.path()).unwrap().count() == 0
        });
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.demo.kill();
        let _ = self.demo.wait();
    }
}

/// Ctrl-C, or the end of a terminal or a pod.
#[test]
fn a_demo_that_is_ended_early_ends_in_order_and_leaves_nothing() {
    for signal in [INTERRUPT, TERM, HANGUP, QUIT] {
        let mut demo = Demo::start();
        kill(demo.demo.id(), signal);
        let mut rest = String::new();
        demo.out.take().unwrap().read_to_string(&mut rest).unwrap();

        assert_eq!(demo.demo.wait().unwrap().code(), Some(0), "{signal}: {rest}");

        let last = rest.lines().last().unwrap();
        assert!(last.starts_with("written ") && last.contains(" = delivered "), "{rest}");
        assert!(!Path::new(&format!("/proc/{}", demo.agent)).exists(), "{signal}");
        demo.expect_nothing();
    }
}

/// It could not say a word.
#[test]
fn a_demo_that_is_killed_leaves_nothing() {
    let mut demo = Demo::start();
    kill(demo.demo.id(), KILL);

    assert_eq!(demo.demo.wait().unwrap().signal(), Some(KILL));

    demo.expect_nothing();
}

/// `logferry demo | head`: nobody wants to see more.
#[test]
fn a_demo_that_nobody_sees_leaves_nothing() {
    let mut demo = Demo::start();
    demo.out = None;

    assert_eq!(demo.demo.wait().unwrap().code(), Some(0));

    demo.expect_nothing();
}

/// Who stops it twice does not wait for what the agent has left.
#[test]
fn a_demo_that_is_stopped_twice_ends_at_once() {
    let mut demo = Demo::start();
    // The agent cannot end.
    kill(demo.agent, STOP);
    kill(demo.demo.id(), INTERRUPT);
    demo.read_until("a signal: ");
    pause(ONE_STOP);
    kill(demo.demo.id(), INTERRUPT);

    assert_eq!(demo.demo.wait().unwrap().code(), Some(75));

    kill(demo.agent, CONTINUE);
    demo.expect_nothing();
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
