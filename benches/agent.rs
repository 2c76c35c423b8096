//! The whole agent: the binary as it ships, in a pod's directories, seen from outside.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use logferry::base::clock;
use rustix::process::{Pid, Signal, kill_process};

use crate::sink::Sink;

/// Longer than anything here takes; who waits so long waits in vain.
const PATIENCE: Duration = Duration::from_secs(300);

/// A pod's directories, and the agent in them. Both end with it.
pub(crate) struct Agent {
    dir: tempfile::TempDir,
    endpoint: SocketAddr,
    admin: SocketAddr,
    /// What the agent is run by, if not by itself: valgrind and its arguments.
    pub(crate) runner: Vec<String>,
    process: Option<Child>,
}

/// What emptying a backlog took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Emptied {
    /// CPU time of the whole process, its start included.
    pub(crate) cpu: Duration,
    /// From the start of the process to the last answer.
    pub(crate) wall: Duration,
}

impl Agent {
    /// The directories; the agent is not started yet.
    pub(crate) fn new(endpoint: SocketAddr) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        fs::create_dir_all(dir.path().join("data/logs")).expect("data/logs");
        fs::create_dir_all(dir.path().join("share")).expect("share");
        symlink(dir.path().join("data/logs"), dir.path().join("share/logs")).expect("the link");
        // Free a moment ago; who takes it meanwhile makes the agent's start fail, aloud.
        let port = TcpListener::bind("127.0.0.1:0").expect("a port of loopback");
        let admin = port.local_addr().expect("it is bound");
        Self { dir, endpoint, admin, runner: Vec::new(), process: None }
    }

    /// Where the app writes.
    pub(crate) fn logs(&self) -> PathBuf {
        self.dir.path().join("data/logs")
    }

    /// What the agent says.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("agent.log")).unwrap_or_default()
    }

    pub(crate) fn start(&mut self, env: &[(&str, &str)]) {
        let dir = self.dir.path();
        let agent = env!("CARGO_BIN_EXE_logferry").to_owned();
        let words: Vec<&String> = self.runner.iter().chain([&agent]).collect();
        let log = fs::File::options().create(true).append(true).open(dir.join("agent.log"));
        let process = Command::new(words[0])
            .args(&words[1..])
            // What cargo tells a bench would be unknown settings.
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("LOGFERRY_ENDPOINT", format!("http://{}", self.endpoint))
            .env("LOGFERRY_PROJECT", "bench-project")
            .env("LOGFERRY_LOGSTORE", "bench-logstore")
            .env("LOGFERRY_PATHS", dir.join("share/logs/**/*.log"))
            .env("LOGFERRY_STATE_DIR", dir.join("state"))
            .env("LOGFERRY_LISTEN", self.admin.to_string())
            .env("LOGFERRY_LOG", "warn")
            .envs(env.iter().copied())
            .stdin(Stdio::null())
            .stderr(log.expect("the agent's log"))
            .spawn();
        self.process = Some(process.expect("the agent starts"));
    }

    /// SIGTERM; waits until it has ended. Its exit code.
    pub(crate) fn stop(&mut self) -> Option<i32> {
        let mut process = self.process.take().expect("it was started");
        let pid = i32::try_from(process.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.expect("a process has a number"), Signal::TERM).expect("it runs");
        process.wait().expect("it is our child").code()
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            // It may have ended by itself.
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// Ends the bench if it has ended by itself.
    pub(crate) fn expect_alive(&mut self) {
        let process = self.process.as_mut().expect("it was started");
        let ended = process.try_wait().expect("it is our child");
        assert!(ended.is_none(), "the agent has ended, {ended:?}:\n{}", self.log());
    }

    /// CPU time so far, by the kernel's own count in nanoseconds (proc(5), schedstat).
    pub(crate) fn cpu(&self) -> Duration {
        let used = |text: String| text.split(' ').next()?.parse::<u64>().ok();
        Duration::from_nanos(self.tasks("schedstat").into_iter().filter_map(used).sum())
    }

    /// How often its threads have gone to sleep, and so were woken.
    pub(crate) fn wakeups(&self) -> u64 {
        let tasks = self.tasks("status").into_iter();
        tasks.filter_map(|text| number(&text, "voluntary_ctxt_switches:")).sum()
    }

    pub(crate) fn threads(&self) -> usize {
        self.tasks("comm").len()
    }

    /// A file of each thread.
    fn tasks(&self, name: &str) -> Vec<String> {
        let tasks = fs::read_dir(self.proc("task")).expect("the agent runs");
        tasks.flatten().filter_map(|task| fs::read_to_string(task.path().join(name)).ok()).collect()
    }

    /// Resident memory in bytes.
    pub(crate) fn resident(&self) -> u64 {
        self.memory("VmRSS:")
    }

    /// The most it ever was.
    pub(crate) fn resident_max(&self) -> u64 {
        self.memory("VmHWM:")
    }

    fn memory(&self, field: &str) -> u64 {
        let status = fs::read_to_string(self.proc("status")).expect("the agent runs");
        number(&status, field).unwrap_or_default() * 1024
    }

    pub(crate) fn descriptors(&self) -> usize {
        fs::read_dir(self.proc("fd")).expect("the agent runs").count()
    }

    fn proc(&self, name: &str) -> PathBuf {
        let pid = self.process.as_ref().expect("it was started").id();
        PathBuf::from(format!("/proc/{pid}/{name}"))
    }

    /// A metric without labels, as `/metrics` shows it.
    pub(crate) fn metric(&self, name: &str) -> Option<u64> {
        let text = self.get("/metrics")?;
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
        value.parse().ok()
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.get("/ready").is_some_and(|answer| answer.starts_with("HTTP/1.1 200"))
    }

    fn get(&self, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(self.admin).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\nhost: agent\r\nconnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    }

    /// Waits until all that is on disk is delivered.
    pub(crate) fn wait_until_delivered(&self) {
        self.wait(Duration::from_millis(100), |agent| {
            agent.is_ready() && agent.metric("logferry_lag_bytes") == Some(0)
        });
    }

    /// Looks each `pause` whether something is so.
    pub(crate) fn wait(&self, pause: Duration, is_so: impl Fn(&Self) -> bool) {
        let started = clock::now();
        while !is_so(self) {
            assert!(
                started.elapsed() < PATIENCE,
                "waited in vain; the agent says:\n{}",
                self.log()
            );
            thread::park_timeout(pause);
        }
    }

    /// Starts the agent beside a log and waits until the endpoint has all of it.
    pub(crate) fn empty(&mut self, log: &Path, sink: &Sink) -> Emptied {
        fs::hard_link(log, self.logs().join("app.log")).expect("a link on the same disk");
        let bytes = fs::metadata(log).expect("the log").len();
        let started = clock::now();
        self.start(&[]);
        // A group is larger than its lines: the last one has come when nothing more does.
        let (mut last, mut seen) = (started, 0);
        while seen < bytes || last.elapsed() < Duration::from_millis(1500) {
            assert!(last.elapsed() < PATIENCE, "nothing comes; the agent says:\n{}", self.log());
            thread::park_timeout(Duration::from_millis(2));
            let raw = sink.raw_bytes();
            if raw > seen {
                (last, seen) = (clock::now(), raw);
            }
        }
        Emptied { cpu: self.cpu(), wall: last.saturating_duration_since(started) }
    }
}

/// The number behind a word at the beginning of a line.
fn number(text: &str, field: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(field))?;
    line.split_whitespace().next()?.parse().ok()
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.kill();
    }
}
