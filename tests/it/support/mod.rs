//! One builder for each actor of a test: the pod's directories, the app's writer, the agent's
//! process, the endpoint.

#![allow(dead_code, unused_imports, reason = "two test targets share it, each using a part")]

mod admin;
/// File systems in trouble.
pub(crate) mod disk;
/// A forward proxy.
pub(crate) mod forward;
mod ledger;
mod meanwhile;
/// Names and addresses.
pub(crate) mod names;
/// What came of it.
pub(crate) mod observe;
mod rotate;
/// Signals by their numbers.
pub(crate) mod signals;
/// Agents under special circumstances.
pub(crate) mod special;
/// strace(1) as a saboteur.
pub(crate) mod strace;
/// Certificates.
pub(crate) mod tls;
pub(crate) mod volume;
/// The network in between.
pub(crate) mod wire;

pub(crate) use admin::Admin;
pub(crate) use ledger::{FIXED, Ledger, Repeats};
pub(crate) use meanwhile::{Meanwhile, each, each_of, pairs};
pub(crate) use rotate::{
    Naming, compress, compressed, copy_and_empty, copytruncate, logrotate, numbered, rotate, shift,
    write_large_gz,
};
pub(crate) use volume::Volume;

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use logferry::base::clock;
use logferry_mock::{self as mock, Access, Background, Key};
use rustix::process::{Pid, Signal, kill_process};

pub(crate) const PROJECT: &str = "test-project";
/// Another project that the endpoint takes.
pub(crate) const OTHER_PROJECT: &str = "other-project";
pub(crate) const LOGSTORE: &str = "app-log";
/// Another logstore that it takes.
pub(crate) const OTHER_LOGSTORE: &str = "other-log";
const KEY_ID: &str = "test-access-key-id";
const KEY_SECRET: &str = "test-access-key-secret";

/// Long enough for the slowest machine; a test that waits this long has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A pod: the article's directories, an endpoint, and what the app has written.
pub(crate) struct Pod {
    dir: tempfile::TempDir,
    pub(crate) mock: Background,
    pub(crate) ledger: Ledger,
    env: HashMap<String, String>,
}

impl Pod {
    /// The directories, without a link or a log yet; the endpoint serves.
    pub(crate) fn new() -> Self {
        Self::with_endpoint(mock::Options::default())
    }

    /// The same, with an endpoint that is started so; whom it accepts is the pod's business.
    pub(crate) fn with_endpoint(options: mock::Options) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        fs::create_dir_all(dir.path().join("share")).expect("share");
        let access = Access {
            keys: vec![Key { id: KEY_ID.to_owned(), secret: KEY_SECRET.to_owned() }],
            projects: vec![PROJECT.to_owned(), OTHER_PROJECT.to_owned()],
            logstores: vec![LOGSTORE.to_owned(), OTHER_LOGSTORE.to_owned()],
        };
        let options = mock::Options { access, ..options };
        let mock = Background::start(options).expect("the endpoint starts");
        Self { dir, mock, ledger: Ledger::default(), env: HashMap::new() }
    }

    /// The usual case: the link is there, and this is the log that the app will write.
    pub(crate) fn with_log() -> (Self, PathBuf) {
        let pod = Self::new();
        pod.link("data/pod/logs");
        let log = pod.path("data/pod/logs/app.log");
        (pod, log)
    }

    /// Sets an environment variable of the agents that are started from now on.
    pub(crate) fn set(&mut self, name: &str, value: &str) -> &mut Self {
        self.env.insert(name.to_owned(), value.to_owned());
        self
    }

    /// A path below the pod's root: `data/…`, `share/…`, `state`.
    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    /// What the app does at its start: makes the directory, and the link to it.
    pub(crate) fn link(&self, logs: &str) {
        let logs = self.path(logs);
        fs::create_dir_all(&logs).expect("the log directory");
        let link = self.path("share/logs");
        let next = self.path("share/logs.next");
        symlink(&logs, &next).expect("the link");
        fs::rename(next, link).expect("the link takes its place");
    }

    /// The environment of an agent in this pod, with what the test has set.
    pub(crate) fn environment(&self) -> HashMap<String, String> {
        let text = |path: &str| self.path(path).display().to_string();
        let mut env: HashMap<String, String> = [
            ("LOGFERRY_ENDPOINT", format!("http://{}", self.mock.address())),
            ("LOGFERRY_PROJECT", PROJECT.to_owned()),
            ("LOGFERRY_LOGSTORE", LOGSTORE.to_owned()),
            ("LOGFERRY_PATHS", text("share/logs/**/*.log")),
            ("LOGFERRY_STATE_DIR", text("state")),
            ("LOGFERRY_LISTEN", String::new()),
            ("LOGFERRY_BATCH_LINGER", "200ms".to_owned()),
            ("LOGFERRY_DRAIN_QUIET", "0s".to_owned()),
            ("LOGFERRY_LOG", "info,logferry=debug".to_owned()),
            ("ALIBABA_CLOUD_ACCESS_KEY_ID", KEY_ID.to_owned()),
            ("ALIBABA_CLOUD_ACCESS_KEY_SECRET", KEY_SECRET.to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        env.extend(self.env.clone());
        env
    }

    /// Starts an agent.
    pub(crate) fn start(&self) -> Agent {
        Agent::start(&self.environment(), &self.path("agent.log"))
    }

    /// Starts an agent by a command that becomes it.
    pub(crate) fn start_with(&self, command: Command) -> Agent {
        Agent::spawn(command, &self.environment(), &self.path("agent.log"))
    }

    /// Starts an agent that may have so many descriptors.
    pub(crate) fn start_with_descriptors(&self, count: u32) -> Agent {
        let mut shell = program("sh");
        let binary = env!("CARGO_BIN_EXE_logferry");
        shell.args(["-c", "ulimit -n $0 && exec $1", &count.to_string(), binary]);
        Agent::spawn(shell, &self.environment(), &self.path("agent.log"))
    }

    /// Waits until every line of the ledger has arrived, then checks what else did: returns how
    /// many lines arrived more than once.
    pub(crate) fn expect_all(&self) -> usize {
        let written = self.ledger.lines.len();
        let deadline = clock::now() + PATIENCE;
        // Comparing decodes everything; look closer only when there can be enough.
        while self.mock.store().line_count() < written as u64
            || !self.ledger.missing(&self.mock).is_empty()
        {
            if clock::now() > deadline {
                let missing = self.ledger.missing(&self.mock);
                let (count, log) = (missing.len(), self.agent_log());
                panic!("{count} of {written} lines are missing, the first {:?}\n{log}", missing[0]);
            }
            pause(Duration::from_millis(20));
        }
        self.ledger.check(&self.mock)
    }

    /// Waits for every line, stops the agent, which must have delivered everything in the order
    /// in which it was written, and returns how many lines arrived more than once.
    pub(crate) fn finish(&self, agent: Agent) -> usize {
        self.expect_all();
        assert_eq!(agent.stop().0, 0, "{}", self.agent_log());
        self.expect_sound();
        let repeats = self.ledger.check(&self.mock);
        if repeats > 0 {
            // Shown if the test fails for it.
            println!("{repeats} lines came again:\n{}", self.agent_log());
        }
        repeats
    }

    /// Checks what holds however a scenario ends: the order within each file, and that the agent
    /// found no fault with itself.
    pub(crate) fn expect_sound(&self) {
        self.ledger.check_order(&self.mock);
        let log = self.agent_log();
        for fault in ["panicked", "the bytes of a file do not add up"] {
            assert!(!log.contains(fault), "{log}");
        }
    }

    /// Waits until the agents of this pod have logged `text` so many times altogether.
    pub(crate) fn wait_for_log(&self, text: &str, count: usize) {
        let started = clock::now();
        while self.times_logged(text) < count {
            let log = self.agent_log();
            assert!(clock::now() - started < PATIENCE, "not {count} times {text:?}:\n{log}");
            pause(Duration::from_millis(20));
        }
    }

    /// How many rotations the agents of this pod have seen. A file that came and went between two looks
    /// is found under its new name, and never said to be renamed.
    pub(crate) fn rotations_seen(&self) -> usize {
        let seen = ["reading it to its end", "state=\"rotated\""];
        seen.map(|text| self.times_logged(text)).iter().sum()
    }

    /// A number that the agents have logged with a message, each time they did.
    pub(crate) fn logged_numbers(&self, text: &str, field: &str) -> Vec<u64> {
        let field = format!(" {field}=");
        let number = |line: &str| {
            let (_, value) = line.split_once(&field)?;
            value.split(' ').next()?.parse().ok()
        };
        self.agent_log().lines().filter(|line| line.contains(text)).filter_map(number).collect()
    }

    /// Makes agents that are started from now on hold little in memory, so that a backlog of some
    /// 10 MB stays on disk while the endpoint is down.
    pub(crate) fn keep_memory_small(&mut self) {
        self.set("mem_usage_limit", "32").set("LOGFERRY_COMPRESSION", "none");
        self.set("LOGFERRY_BATCH_BYTES", "64KiB").set("LOGFERRY_LINE_BYTES_MAX", "16KiB");
    }

    /// The values of `__path__` under which lines have arrived, without the pod's root.
    pub(crate) fn shipped_paths(&self) -> std::collections::BTreeSet<String> {
        let root = format!("{}/", self.dir.path().display());
        let groups = self.mock.store().groups();
        let paths = groups.iter().filter_map(|group| group.tag("__path__"));
        paths.map(|path| path.strip_prefix(&root).unwrap_or(&path).to_owned()).collect()
    }

    /// Sets the patterns, below the pod's root.
    pub(crate) fn patterns(&mut self, patterns: &[&str]) -> &mut Self {
        let text = |pattern: &&str| self.path(pattern).display().to_string();
        let patterns: Vec<String> = patterns.iter().map(text).collect();
        self.set("LOGFERRY_PATHS", &patterns.join(","))
    }

    /// Leaves everything where it is, for a person to look at: the root.
    pub(crate) fn keep(self) -> PathBuf {
        self.dir.keep()
    }

    /// The text that all agents of this pod have logged.
    pub(crate) fn agent_log(&self) -> String {
        fs::read_to_string(self.path("agent.log")).unwrap_or_default()
    }
}

/// Opens a log file as an app does.
pub(crate) fn append_to(path: &Path) -> File {
    OpenOptions::new().create(true).append(true).open(path).expect("the log opens")
}

/// Appends the pieces of one line, which is not ended, to a file, in one write. Each piece is to be a
/// record.
pub(crate) fn append_unfinished(pod: &mut Pod, path: &Path, pieces: &[&str]) {
    let mut file = append_to(path);
    let lines = pieces.iter().map(|piece| (*piece).to_owned()).collect();
    let text = pod.ledger.note(&file, lines).replace('\n', "");
    file.write_all(text.as_bytes()).expect("the app can write");
}

/// A running agent. Killed when dropped.
pub(crate) struct Agent {
    child: Child,
    log: PathBuf,
}

impl Agent {
    /// Starts the real binary with this environment and no other; its log is appended to `log`.
    pub(crate) fn start(env: &HashMap<String, String>, log: &Path) -> Self {
        Self::spawn(Command::new(env!("CARGO_BIN_EXE_logferry")), env, log)
    }

    /// Starts an agent by a command that becomes it.
    pub(crate) fn spawn(mut command: Command, env: &HashMap<String, String>, log: &Path) -> Self {
        let child = command
            .env_clear()
            .envs(env)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(append_to(log))
            .spawn()
            .expect("the agent starts");
        Self { child, log: log.to_owned() }
    }

    /// Process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it has ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("the agent is waited for")
    }

    /// SIGKILL, and waits until it is gone.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("the agent can be killed");
        let status = self.child.wait().expect("the agent is waited for");
        assert_eq!(status.signal(), Some(9), "it was alive until now:\n{}", self.log_text());
    }

    /// SIGTERM, not before it is awaited: until then it ends any process at once.
    pub(crate) fn terminate(&self) {
        // One that has ended catches nothing, and is told nothing.
        wait_for("the signal to be awaited", || self.awaits_term() || self.is_over());
        self.signal(Signal::TERM);
    }

    /// Whether SIGTERM would not end it at once.
    pub(crate) fn awaits_term(&self) -> bool {
        let caught = self.status("SigCgt:").and_then(|mask| u64::from_str_radix(&mask, 16).ok());
        let term = 1 << (Signal::TERM.as_raw() - 1);
        caught.is_none_or(|mask| mask & term != 0)
    }

    fn is_over(&self) -> bool {
        self.status("State:").is_none_or(|state| state.starts_with('Z'))
    }

    /// A line of proc_pid_status(5).
    fn status(&self, name: &str) -> Option<String> {
        let text = fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        text.lines().find_map(|line| Some(line.strip_prefix(name)?.trim().to_owned()))
    }

    /// Waits until it has a file open, by the real path that the file has then.
    pub(crate) fn wait_until_open(&self, path: &Path) {
        let path = path.display().to_string();
        let started = clock::now();
        while !self.open_paths().contains(&path) {
            let log = self.log_text();
            assert!(clock::now() - started < PATIENCE, "{path} is not open:\n{log}");
            pause(Duration::from_millis(5));
        }
    }

    /// Sends it a signal, whatever that does.
    pub(crate) fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.child.id()).expect("a process id");
        let pid = Pid::from_raw(id).expect("a process id");
        kill_process(pid, signal).expect("the agent runs");
    }

    /// What its descriptors lead to, as /proc says it: a deleted file ends with ` (deleted)`.
    pub(crate) fn open_paths(&self) -> Vec<String> {
        let dir = fs::read_dir(format!("/proc/{}/fd", self.child.id())).expect("the agent runs");
        let links = dir.flatten().filter_map(|entry| fs::read_link(entry.path()).ok());
        links.map(|path| path.display().to_string()).collect()
    }

    /// SIGTERM, then the exit code and the time it took.
    pub(crate) fn stop(self) -> (i32, Duration) {
        let asked_at = clock::now();
        self.terminate();
        let code = self.exit_code();
        (code, clock::now() - asked_at)
    }

    /// Whether it has ended.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.ended().is_some()
    }

    /// Waits for the end by itself; the exit code.
    pub(crate) fn exit_code(mut self) -> i32 {
        let mut status = None;
        wait_for("the agent's end", || {
            status = self.child.try_wait().expect("the agent is waited for");
            status.is_some()
        });
        let status = status.expect("it has ended");
        status.code().unwrap_or_else(|| panic!("{status}:\n{}", self.log_text()))
    }

    /// Resident memory in bytes.
    pub(crate) fn resident_bytes(&self) -> u64 {
        let text = self.status("VmRSS:").expect("the agent runs");
        let kib = text.split(' ').next().and_then(|kib| kib.parse::<u64>().ok());
        kib.expect("kB") * 1024
    }

    /// CPU time used so far.
    pub(crate) fn cpu_time(&self) -> Duration {
        let text =
            fs::read_to_string(format!("/proc/{}/stat", self.child.id())).expect("the agent runs");
        let (_, fields) = text.rsplit_once(')').expect("a name");
        let ticks: u64 =
            fields.split_whitespace().skip(11).take(2).filter_map(|n| n.parse::<u64>().ok()).sum();
        Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second())
    }

    fn log_text(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A command of the system, by its path. An agent gets no variable but its own, and one that was also to
/// be looked up in `PATH` would begin as a copy of this process, with all its memory and sockets.
pub(crate) fn program(name: &str) -> Command {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|dir| dir.join(name)).find(|path| path.is_file());
    Command::new(found.unwrap_or_else(|| name.into()))
}

/// Runs a command of the binary to its end: exit code, standard output, standard error.
pub(crate) fn run(args: &[&str], env: &HashMap<String, String>) -> (i32, String, String) {
    run_raw(&args.iter().map(OsStr::new).collect::<Vec<_>>(), env)
}

/// Runs a command whose arguments may be no text.
pub(crate) fn run_raw(args: &[&OsStr], env: &HashMap<String, String>) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_logferry"))
        .args(args)
        .env_clear()
        .envs(env)
        .stdin(Stdio::null())
        .output()
        .expect("the binary runs");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let code = output.status.code().expect("it ends by itself");
    (code, text(output.stdout), text(output.stderr))
}

/// Waits until `condition` holds.
///
/// # Panics
/// If it does not within [`PATIENCE`].
pub(crate) fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let started = clock::now();
    while !condition() {
        assert!(clock::now() - started < PATIENCE, "waited in vain for {what}");
        pause(Duration::from_millis(20));
    }
}

/// Lets real time pass, where the scenario itself is about time.
pub(crate) fn pause(duration: Duration) {
    let until = clock::now() + duration;
    while let Some(left) = until.checked_duration_since(clock::now()).filter(|d| !d.is_zero()) {
        std::thread::park_timeout(left);
    }
}
