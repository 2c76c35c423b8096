//! A pod's life with a container for the app and one for the agent: either may be restarted, the app
//! makes its directory and its link when it likes, and the agent is process 1 of its container.

use std::fs;
use std::io::{PipeReader, PipeWriter, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use logferry::base::clock;
use logferry::checkpoint::store;
use rustix::fs::OFlags;
use rustix::process::{Pid, Signal, kill_process};

use crate::support::observe::{get, metric};
use crate::support::signals::{HANGUP, kill, meaningless};
use crate::support::special::skipped;
use crate::support::{Agent, PATIENCE, Pod, append_to, run, wait_for};

/// What the app does at a start: a directory of its own, and a link to it. The first one's is
/// `logs`; a later one makes another beside it.
fn start_app(pod: &Pod, time: usize, ln: &[&str]) -> PathBuf {
    let name = if time == 0 { "logs".to_owned() } else { format!("logs-{time}") };
    let dir = pod.path("data/pod").join(name);
    fs::create_dir_all(&dir).unwrap();
    let link = pod.path("share/logs");
    let status = Command::new("ln").args(ln).arg(&dir).arg(&link).status().expect("ln runs");
    assert!(status.success());
    dir
}

/// Waits until a kill would repeat nothing.
fn wait_until_saved(pod: &Pod, logs: &[&Path]) {
    wait_for("the checkpoint", || {
        let saved = store::peek(&pod.path("state")).checkpoints;
        logs.iter().all(|log| {
            let found = fs::metadata(log).unwrap();
            saved.iter().any(|one| (one.inode, one.offset) == (found.ino(), found.len()))
        })
    });
}

/// The agent is killed and started again, if `is_killed`.
fn maybe_kill(pod: &Pod, agent: Agent, is_killed: bool, logs: &[&Path]) -> Agent {
    if !is_killed {
        return agent;
    }
    wait_until_saved(pod, logs);
    agent.kill();
    pod.start()
}

/// `ln -s DIR /share/logs` once the link is there makes another link in the old directory. What is
/// written through either name arrives.
#[test]
fn a_restarted_app_that_nests_its_link_is_followed() {
    for is_killed in [false, true] {
        let mut pod = Pod::new();
        let agent = pod.start();
        let first = start_app(&pod, 0, &["-s"]).join("app.log");
        pod.ledger.append(&first, 100);
        pod.expect_all();
        let agent = maybe_kill(&pod, agent, is_killed, &[&first]);

        let second = start_app(&pod, 1, &["-s"]).join("app.log");
        assert!(pod.path("data/pod/logs/logs-1").is_symlink(), "the link is nested");
        pod.ledger.append(&second, 100);
        pod.ledger.append(&pod.path("share/logs/app.log"), 100);
        pod.expect_all();
        let agent = maybe_kill(&pod, agent, is_killed, &[&first, &second]);
        let third = start_app(&pod, 2, &["-s"]).join("app.log");
        pod.ledger.append(&third, 100);
        pod.ledger.append(&pod.path("share/logs/other.log"), 100);
        pod.ledger.append(&second, 10);

        assert_eq!(pod.finish(agent), 0, "killed: {is_killed}");
        let paths = ["app.log", "other.log", "logs-1/app.log", "logs-2/app.log"];
        assert_eq!(pod.shipped_paths(), paths.map(|path| format!("share/logs/{path}")).into());
    }
}

/// `ln -sfn DIR /share/logs`: the rest of the old directory arrives, and the new one.
#[test]
fn a_restarted_app_that_points_its_link_elsewhere_is_followed() {
    for is_killed in [false, true] {
        let mut pod = Pod::new();
        let mut agent = pod.start();
        let mut log = start_app(&pod, 0, &["-sfn"]).join("app.log");
        for time in 1..4 {
            pod.ledger.append(&log, 100);
            pod.expect_all();
            agent = maybe_kill(&pod, agent, is_killed, &[&log]);
            if !is_killed {
                // Held open, the rest is read to its end.
                agent.wait_until_open(&log);
            }
            pod.ledger.append(&log, 50);
            let old = log;
            log = start_app(&pod, time, &["-sfn"]).join("app.log");
            pod.ledger.append(&log, 10);
            pod.expect_all();
            agent = maybe_kill(&pod, agent, is_killed, &[&old, &log]);
        }

        assert_eq!(pod.finish(agent), 0, "killed: {is_killed}");
    }
}

/// A pod whose agent has delivered 100 lines and was stopped, and the log.
fn stopped_pod() -> (Pod, PathBuf) {
    let mut pod = Pod::new();
    let log = start_app(&pod, 0, &["-sfn"]).join("app.log");
    pod.ledger.append(&log, 100);
    let agent = pod.start();
    pod.expect_all();
    assert_eq!(agent.stop().0, 0);
    (pod, log)
}

/// While no agent runs the app rotates its log, goes on under the old name, and is restarted with a
/// directory of its own: nothing leads to what it wrote last in the old one.
#[test]
fn f25_a_log_made_in_the_old_directory_while_no_agent_ran_is_read() {
    let (mut pod, log) = stopped_pod();
    pod.ledger.append(&log, 20);
    fs::rename(&log, log.with_extension("log.1")).unwrap();
    pod.ledger.append(&log, 30);
    let new = start_app(&pod, 1, &["-sfn"]).join("app.log");
    pod.ledger.append(&new, 10);
    let agent = pod.start();

    assert_eq!(pod.finish(agent), 0);
    assert_eq!(pod.shipped_paths(), ["share/logs/app.log".to_owned()].into());
    // Known from now on.
    let agent = pod.start();
    assert_eq!(pod.finish(agent), 0, "nothing comes twice");
}

/// The same when the file is in no pattern any more: it is left alone.
#[test]
fn f25_a_log_that_was_taken_out_of_the_patterns_stays_unread() {
    let (mut pod, log) = stopped_pod();
    fs::remove_file(&log).unwrap();
    fs::write(&log, "not to be shipped\n").unwrap();
    pod.ledger.append(&log.with_file_name("other.log"), 10);
    pod.patterns(&["share/logs/other.log"]);
    let agent = pod.start();

    assert_eq!(pod.finish(agent), 0);
}

/// The inode numbers that an agent has the kernel watch (proc(5), `fdinfo`).
fn watched(agent: &Agent) -> Vec<u64> {
    let dir = fs::read_dir(format!("/proc/{}/fdinfo", agent.id())).expect("the agent runs");
    let text: String =
        dir.flatten().filter_map(|entry| fs::read_to_string(entry.path()).ok()).collect();
    let watches = text.lines().filter(|line| line.starts_with("inotify "));
    let inode = |line: &str| {
        let field = line.split(' ').find_map(|word| word.strip_prefix("ino:"))?;
        u64::from_str_radix(field, 16).ok()
    };
    watches.filter_map(inode).collect()
}

/// Ready means that the kernel tells of each new name: a file that lives for a moment only, from
/// then on, is caught.
#[test]
fn f33_when_it_says_that_it_is_ready_the_watches_are_armed() {
    let (mut pod, log) = Pod::with_log();
    let sub = log.with_file_name("sub");
    fs::create_dir(&sub).unwrap();
    let dirs = [pod.path("share"), pod.path("data/pod/logs"), sub.clone()];
    let address = pod.listen();
    for number in 0..5 {
        let agent = pod.start();
        let until = clock::now() + PATIENCE;
        // Without a pause: what matters is the moment of the first good answer.
        while get(&address, "/ready").0 != 200 {
            assert!(clock::now() < until, "{}", pod.agent_log());
        }
        let armed = watched(&agent);

        let brief = sub.join(format!("brief-{number}.log"));
        let mut file = append_to(&brief);
        pod.ledger.write(&mut file, 10);
        for dir in &dirs {
            let inode = fs::metadata(dir).unwrap().ino();
            assert!(armed.contains(&inode), "{}: {armed:?}", dir.display());
        }
        agent.wait_until_open(&brief);
        fs::remove_file(&brief).unwrap();
        assert_eq!(pod.finish(agent), 0);
    }
}

/// Neither directory nor link is there; then both come, with a file in them.
#[test]
fn p06_ready_before_there_is_a_directory_it_finds_what_comes() {
    let mut pod = Pod::new();
    // A link of the pod before this one, which led to what is gone.
    symlink(pod.path("data/pod/logs"), pod.path("share/logs")).unwrap();
    let address = pod.listen();
    let agent = pod.start();
    wait_for("readiness", || get(&address, "/ready").0 == 200);

    fs::create_dir_all(pod.path("data/pod")).unwrap();
    pod.link("data/pod/logs");
    pod.ledger.append(&pod.path("data/pod/logs/app.log"), 100);

    assert_eq!(pod.finish(agent), 0);
}

/// An agent that is process 1 of a process namespace, as in a container.
/// (Other tests need no more than that it is killed when dropped.)
struct First(Child);

impl First {
    fn start(pod: &Pod) -> Option<Self> {
        let unshare = || {
            let mut command = Command::new("unshare");
            command.args(["--map-root-user", "--pid", "--fork", "--kill-child"]);
            command
        };
        if !unshare().arg("true").status().is_ok_and(|status| status.success()) {
            skipped("no process namespace can be had here");
            return None;
        }
        let mut command = unshare();
        command.arg(env!("CARGO_BIN_EXE_logferry"));
        command.env_clear().envs(pod.environment()).stdin(Stdio::null());
        let log = append_to(&pod.path("agent.log"));
        Some(Self(command.stderr(log).spawn().expect("unshare runs")))
    }

    /// The agent, as the namespace outside counts.
    fn agent(&self) -> Pid {
        let path = format!("/proc/{0}/task/{0}/children", self.0.id());
        let mut id = None;
        wait_for("the agent", || {
            let text = fs::read_to_string(&path).unwrap_or_default();
            id = text.trim().parse().ok();
            id.is_some()
        });
        Pid::from_raw(id.unwrap()).unwrap()
    }
}

impl Drop for First {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The kernel does to process 1 nothing that it has not asked for: both signals are awaited.
#[test]
fn p14_as_the_first_process_of_a_container_it_heeds_signals() {
    for signal in [Signal::TERM, Signal::INT, Signal::QUIT] {
        let (mut pod, log) = Pod::with_log();
        let Some(mut first) = First::start(&pod) else { return };
        let agent = first.agent();
        pod.ledger.append(&log, 100);
        pod.expect_all();
        for number in meaningless() {
            kill(agent.as_raw_nonzero().get().unsigned_abs(), number);
        }

        pod.ledger.append(&log, 100);
        kill_process(agent, signal).unwrap();
        let code = first.0.wait().unwrap().code();

        assert_eq!(code, Some(0), "{signal:?}: {}", pod.agent_log());
        assert_eq!(pod.ledger.missing(&pod.mock), Vec::<&str>::new());
        assert!(pod.agent_log().contains("stopped: everything was delivered"));
    }
}

/// Whoever reads its log has gone: it ships on.
#[test]
fn p14_when_nobody_reads_its_log_any_more_it_ships_on() {
    let (mut pod, log) = Pod::with_log();
    let mut command = Command::new(env!("CARGO_BIN_EXE_logferry"));
    command.env_clear().envs(pod.environment()).stdin(Stdio::null());
    let mut agent = First(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
    (agent.0.stdout, agent.0.stderr) = (None, None);
    for _ in 0..3 {
        pod.ledger.append(&log, 100);
        pod.expect_all();
    }

    kill_process(Pid::from_child(&agent.0), Signal::TERM).unwrap();
    assert_eq!(agent.0.wait().unwrap().code(), Some(0));
    assert_eq!(pod.ledger.check(&pod.mock), 0);
}

/// Nobody ever did: input, output and standard error are closed.
#[test]
fn p14_without_open_descriptors_it_ships() {
    let (mut pod, log) = Pod::with_log();
    let mut shell = Command::new("sh");
    shell.args(["-c", "exec \"$0\" <&- >&- 2>&-", env!("CARGO_BIN_EXE_logferry")]);
    let agent = pod.start_with(shell);
    for _ in 0..3 {
        pod.ledger.append(&log, 100);
        pod.expect_all();
    }

    assert_eq!(pod.finish(agent), 0);
}

/// Whatever a signal ends by default, this one lives on.
#[test]
fn p12_signals_that_mean_nothing_end_nothing() {
    let (mut pod, log) = Pod::with_log();
    let agent = pod.start();
    pod.ledger.append(&log, 100);
    pod.expect_all();

    for number in meaningless().chain([HANGUP, HANGUP]) {
        kill(agent.id(), number);
        pod.ledger.append(&log, 1);
    }
    pod.expect_all();
    pod.wait_for_log("SIGHUP changes nothing", 1);
    kill(agent.id(), HANGUP);

    assert_eq!(pod.finish(agent), 0);
    assert_eq!(pod.times_logged("SIGHUP changes nothing"), 1, "{}", pod.agent_log());
}

/// A pipe that nobody reads, and that takes nothing more.
fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, writer) = std::io::pipe().unwrap();
    let flags = rustix::fs::fcntl_getfl(&writer).unwrap();
    rustix::fs::fcntl_setfl(&writer, flags | OFlags::NONBLOCK).unwrap();
    while (&writer).write(&[b'x'; 4096]).is_ok() {}
    while (&writer).write(b"x").is_ok() {}
    rustix::fs::fcntl_setfl(&writer, flags).unwrap();
    (reader, writer)
}

/// Starts an agent whose standard error is this.
fn start_logging_to(pod: &Pod, stderr: PipeWriter) -> First {
    let mut command = Command::new(env!("CARGO_BIN_EXE_logferry"));
    command.env_clear().envs(pod.environment()).stdin(Stdio::null()).stdout(Stdio::null());
    First(command.stderr(stderr).spawn().unwrap())
}

/// All that the agent has logged, from a pipe that was full.
fn read_to_end(mut reader: PipeReader) -> String {
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    text.trim_start_matches('x').to_owned()
}

const DROPPED: &str = "logferry_log_lines_dropped_total";

/// Not a byte of its log can be written, and there is much more of it than may wait.
#[test]
fn p14_when_its_log_is_a_full_pipe_it_ships_on_and_stops_in_order() {
    let (mut pod, log) = Pod::with_log();
    let address = pod.listen();
    pod.set("LOGFERRY_LOG", "trace").set("LOGFERRY_BATCH_LINES", "10");
    let (reader, writer) = full_pipe();
    let mut agent = start_logging_to(&pod, writer);
    while metric(&address, DROPPED).is_none_or(|dropped| dropped == 0) {
        pod.ledger.append(&log, 1000);
        pod.expect_all();
    }

    for path in ["/live", "/ready"] {
        assert_eq!(get(&address, path).0, 200);
    }
    kill_process(Pid::from_child(&agent.0), Signal::TERM).unwrap();
    assert_eq!(agent.0.wait().unwrap().code(), Some(0));
    assert_eq!(pod.ledger.check(&pod.mock), 0);
    drop(reader);
}

/// Somebody begins to read: what was dropped is said, and each line after it comes.
#[test]
fn p14_what_was_dropped_is_said_when_somebody_reads_again() {
    let (mut pod, log) = Pod::with_log();
    let address = pod.listen();
    pod.set("LOGFERRY_LOG", "trace").set("LOGFERRY_BATCH_LINES", "10");
    let (reader, writer) = full_pipe();
    let mut agent = start_logging_to(&pod, writer);
    while metric(&address, DROPPED).is_none_or(|dropped| dropped == 0) {
        pod.ledger.append(&log, 1000);
        pod.expect_all();
    }

    let reading = std::thread::spawn(move || read_to_end(reader));
    let mut dropped = None;
    wait_for("the log to be read", || {
        let before = dropped;
        dropped = metric(&address, DROPPED);
        before == dropped
    });
    pod.ledger.append(&log, 1000);
    pod.expect_all();
    kill_process(Pid::from_child(&agent.0), Signal::TERM).unwrap();
    assert_eq!(agent.0.wait().unwrap().code(), Some(0));

    let text = reading.join().unwrap();
    let said = text.lines().filter(|line| line.contains("log lines were dropped"));
    let said = said.map(|line| line.rsplit_once("lines=").unwrap().1.parse::<u64>().unwrap());
    assert_eq!(Some(said.sum::<u64>()), dropped, "{text}");
    assert!(text.lines().next().unwrap().contains(" logferry starts "), "{text}");
    assert!(text.lines().last().unwrap().contains("stopped: everything was delivered"), "{text}");
}

/// Whatever is wrong with its start, it ends.
#[test]
fn p14_a_start_that_fails_ends_though_nobody_reads_why() {
    for (key, value, code) in
        [("LOGFERRY_BATCH_LINES", "none", 78), ("LOGFERRY_STATE_DIR", "/proc/none", 73)]
    {
        let mut pod = Pod::new();
        pod.set(key, value);
        let (reader, writer) = full_pipe();
        let mut agent = start_logging_to(&pod, writer);

        let mut ended = None;
        wait_for("its end", || {
            ended = agent.0.try_wait().unwrap();
            ended.is_some()
        });

        assert_eq!(ended.unwrap().code(), Some(code), "{key}");
        drop(reader);
    }
}

/// Somebody who shares standard error has made it non-blocking.
#[test]
fn p14_standard_error_that_does_not_block_gets_each_line() {
    let mut pod = Pod::new();
    let address = pod.listen();
    let (reader, writer) = full_pipe();
    let shared = writer.try_clone().unwrap();
    let flags = rustix::fs::fcntl_getfl(&shared).unwrap();
    rustix::fs::fcntl_setfl(&shared, flags | OFlags::NONBLOCK).unwrap();
    drop(shared);
    let mut agent = start_logging_to(&pod, writer);
    wait_for("readiness", || get(&address, "/ready").0 == 200);
    let reading = std::thread::spawn(move || read_to_end(reader));
    kill_process(Pid::from_child(&agent.0), Signal::TERM).unwrap();

    assert_eq!(agent.0.wait().unwrap().code(), Some(0));
    let text = reading.join().unwrap();
    assert!(text.contains(" logferry starts "), "{text}");
    assert!(text.contains("stopped: everything was delivered"), "{text}");
}

/// Why it ends is said whatever else is left out.
#[test]
fn p15_the_reason_of_an_exit_passes_every_filter() {
    for filter in ["off", "error", "logferry::send=debug", "logferry=off", "info,logferry::app=off"]
    {
        for format in ["text", "json"] {
            let ends = |name: &str, value: &str, code: i32, reason: &str| {
                let (mut pod, log) = Pod::with_log();
                pod.set("LOGFERRY_LOG", filter).set("LOGFERRY_LOG_FORMAT", format);
                pod.set("LOGFERRY_DRAIN_DEADLINE", "1s").set(name, value);
                pod.ledger.append(&log, 10);
                let (found, complaint) = if code == 75 {
                    let agent = pod.start();
                    agent.wait_until_open(&log);
                    (agent.stop().0, pod.agent_log())
                } else {
                    let (found, _, complaint) = run(&["run"], &pod.environment());
                    (found, complaint)
                };
                assert_eq!(found, code, "{complaint}");
                assert!(complaint.contains(reason), "{filter}, {format}: {complaint}");
                for line in complaint.lines().filter(|_| format == "json") {
                    serde_json::from_str::<serde_json::Value>(line).expect(line);
                }
            };
            ends("LOGFERRY_STATE_DIR", "/proc/none", 73, "the agent does not start");
            ends("LOGFERRY_LISTEN", "192.0.2.1:1", 78, "the agent does not start");
            ends("LOGFERRY_ENDPOINT", "http://127.0.0.1:1", 75, "stopped before everything");
        }
    }
}
