//! The commands that people type first.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use logferry::signals::ONE_STOP;
use logferry_mock as mock;

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

/// Who starts the agent of a demo by hand has made no demo.
#[test]
fn the_agent_of_a_demo_removes_nothing_that_its_demo_did_not_make() {
    let (mut pod, log) = Pod::with_log();
    pod.ledger.append(&log, 10);
    let dir = pod.path("logferry-demo-of-somebody-else");
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(dir.join("demo"), "").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_logferry"));
    command.arg("demo-agent").arg(&dir);

    // Its standard input ends at once.
    let _ = pod.start_with(command).exit_code();

    assert!(dir.join("demo").exists());
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

/// Runs a command with its output there; exit code and standard error.
fn run_into(args: &str, env: &HashMap<String, String>, output: std::fs::File) -> (i32, String) {
    let child = Command::new(env!("CARGO_BIN_EXE_logferry"))
        .args(args.split(' '))
        .env_clear()
        .envs(env)
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let output = child.wait_with_output().unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

const PRINTING: [&str; 11] = [
    "check",
    "status",
    "status --json",
    "checkpoint show",
    "checkpoint show --json",
    "parked list",
    "parked list --json",
    "parked replay",
    "parked drop --all",
    "version",
    "--help",
];

/// That is no bug of the program, and nothing that it may pass over.
#[test]
fn output_that_cannot_be_written_is_said() {
    let pod = Pod::new();
    std::fs::create_dir(pod.path("state")).unwrap();
    for args in
        PRINTING.into_iter().chain(["mock --listen 127.0.0.1:0", "demo --seconds 1", "run --help"])
    {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let (code, complaint) = run_into(args, &pod.environment(), full);
        assert_eq!(code, 64, "{args}: {complaint}");
        assert!(complaint.contains("No space left on device"), "{args}: {complaint}");
        assert!(complaint.contains("standard output"), "{args}: {complaint}");
    }
}

/// Who has seen enough is no trouble.
#[test]
fn a_reader_that_goes_away_is_no_error() {
    let pod = Pod::new();
    std::fs::create_dir(pod.path("state")).unwrap();
    for args in PRINTING {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let (code, complaint) = run_into(args, &pod.environment(), OwnedFd::from(writer).into());
        assert_eq!((code, complaint.as_str()), (0, ""), "{args}");
    }
}

#[test]
fn a_mock_that_cannot_be_had_says_what_to_change() {
    let env = HashMap::new();
    let mut pod = Pod::new();
    let taken = pod.mock.address().to_string();
    for (args, words) in [
        (["mock", "--listen", "127.0.0.1:0", "--dir", "/proc/x"], "/proc/x/groups.jsonl"),
        (["mock", "--listen", "127.0.0.1:0", "--dir", "/dev/null"], "--dir takes another"),
        (["mock", "--listen", &taken, "--shards", "1"], "--listen takes another address"),
        (["mock", "--listen", "192.0.2.1:80", "--shards", "1"], "192.0.2.1:80"),
    ] {
        let (code, _, complaint) = run(&args, &env);
        assert_eq!(code, 64, "{args:?}: {complaint}");
        assert!(complaint.contains(words), "{args:?}: {complaint}");
    }
    pod.mock.stop();
}

/// What collects the agent's log as JSON understands why it does not start, too.
#[test]
fn mistakes_in_the_settings_are_json_where_the_log_is() {
    let mut pod = Pod::new();
    pod.set("LOGFERRY_PROJECT", "!").set("LOGFERRY_BATCH_BYTES", "\u{202e}x");
    let mut env = pod.environment();
    let (code, _, text) = run(&["run"], &env);
    assert_eq!(code, 78);
    assert!(text.starts_with("logferry: 2 mistakes in the settings:\n"), "{text}");

    env.insert("LOGFERRY_LOG_FORMAT".to_owned(), "json".to_owned());
    let (code, _, text) = run(&["run"], &env);

    assert_eq!(code, 78);
    let events: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let keys: Vec<_> = events.iter().map(|event| event["key"].as_str().unwrap()).collect();
    assert_eq!(keys, ["project", "batch_bytes"], "{text}");
    for event in &events {
        assert_eq!(event["level"], "ERROR");
        assert_eq!(event["message"], "a mistake in the settings");
        assert!(event["origin"].as_str().unwrap().starts_with("environment LOGFERRY_"), "{event}");
        assert!(event["error"].as_str().unwrap().contains("expected "), "{event}");
    }
    assert!(!text.contains('\u{202e}'), "{text}");
}

#[test]
fn a_file_of_settings_is_named_by_a_flag_of_every_command() {
    let pod = Pod::new();
    let file = pod.path("settings.toml");
    let state = pod.path("elsewhere");
    std::fs::create_dir(&state).unwrap();
    std::fs::write(&file, format!("state_dir = {state:?}\ntopic = 'from the file'\n")).unwrap();
    let mut env = pod.environment();
    env.remove("LOGFERRY_STATE_DIR");
    env.insert("LOGFERRY_CONFIG".to_owned(), "/nowhere.toml".to_owned());
    let file = file.display().to_string();

    let (code, text, complaint) = run(&["check", "--config", &file], &env);
    assert_eq!(code, 0, "{complaint}");
    let row = text.lines().find(|row| row.starts_with("topic ")).unwrap();
    assert!(row.contains("from the file") && row.ends_with(&format!("file {file}")), "{row}");
    for args in ["status", "checkpoint show", "parked list"] {
        let (code, _, complaint) = run(&args.split(' ').collect::<Vec<_>>(), &env);
        assert_eq!(code, 78, "{args}: {complaint}");
        let args: Vec<_> = args.split(' ').chain(["--config", &file]).collect();
        let (code, _, complaint) = run(&args, &env);
        assert_eq!(code, 0, "{args:?}: {complaint}");
    }
    let (code, _, complaint) = run(&["run", "--config", "/nowhere.yaml"], &pod.environment());
    assert_eq!(code, 78);
    assert!(complaint.contains("from flag --config: cannot read the file"), "{complaint}");
}

/// What cannot be meant is said, by `check` and in the log: an address that is none, tags that stay
/// empty.
#[test]
fn what_is_odd_is_noted_by_check_and_in_the_log() {
    let (mut pod, log) = Pod::with_log();
    pod.set("POD_IP", "$(POD_IP)").set("ALIYUN_LOG_ENV_TAGS", "_pod_name_|POD_IP");

    let (code, text, _) = run(&["check"], &pod.environment());
    pod.ledger.append(&log, 10);
    let agent = pod.start();
    pod.finish(agent);

    assert_eq!(code, 0);
    for words in ["\"$(POD_IP)\" is no IP address", "tags are empty: \"_pod_name_\""] {
        assert!(text.contains(words), "{text}");
        let log = pod.agent_log().replace('\\', "");
        assert!(log.contains(words), "{log}");
    }
}
