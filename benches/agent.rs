//! The whole agent: the binary as it ships, from a file to the last acknowledged request.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use logferry::clock;

use crate::sink::Sink;

/// A pod's directories, an endpoint, and the agent beside them. All of it ends with it.
pub(crate) struct Agent {
    dir: tempfile::TempDir,
    pub(crate) sink: Sink,
    address: std::net::SocketAddr,
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
    /// The directories and the endpoint; the agent is not started yet.
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        fs::create_dir_all(dir.path().join("data/logs")).expect("data/logs");
        fs::create_dir_all(dir.path().join("share")).expect("share");
        symlink(dir.path().join("data/logs"), dir.path().join("share/logs")).expect("the link");
        let (sink, address) = Sink::start();
        Self { dir, sink, address, process: None }
    }

    /// Where the app writes.
    pub(crate) fn logs(&self) -> PathBuf {
        self.dir.path().join("data/logs")
    }

    pub(crate) fn start(&mut self, env: &[(&str, &str)]) {
        let dir = self.dir.path();
        let process = Command::new(env!("CARGO_BIN_EXE_logferry"))
            .env("LOGFERRY_ENDPOINT", format!("http://{}", self.address))
            .env("LOGFERRY_PROJECT", "bench-project")
            .env("LOGFERRY_LOGSTORE", "bench-logstore")
            .env("LOGFERRY_PATHS", dir.join("share/logs/**/*.log"))
            .env("LOGFERRY_STATE_DIR", dir.join("state"))
            .env("LOGFERRY_LISTEN", "")
            .env("LOGFERRY_LOG", "warn")
            .envs(env.iter().copied())
            .stdin(Stdio::null())
            .spawn();
        self.process = Some(process.expect("the agent starts"));
    }

    fn pid(&self) -> u32 {
        self.process.as_ref().expect("it was started").id()
    }

    /// CPU time so far, by the kernel's own count in nanoseconds (proc(5), schedstat).
    pub(crate) fn cpu(&self) -> Duration {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.pid())).expect("the agent runs");
        let used = |task: PathBuf| -> Option<u64> {
            fs::read_to_string(task.join("schedstat")).ok()?.split(' ').next()?.parse().ok()
        };
        let nanos = tasks.flatten().filter_map(|task| used(task.path())).sum();
        Duration::from_nanos(nanos)
    }

    /// Starts the agent beside a log and waits until the endpoint has all of it.
    pub(crate) fn empty(&mut self, log: &Path) -> Emptied {
        fs::hard_link(log, self.logs().join("app.log")).expect("a link on the same disk");
        let bytes = fs::metadata(log).expect("the log").len();
        let started = clock::now();
        self.start(&[]);
        // A group is larger than its lines: the last one has come when nothing more does.
        let (mut last, mut seen) = (clock::now(), 0);
        while seen < bytes || last.elapsed() < Duration::from_millis(1500) {
            thread::park_timeout(Duration::from_millis(2));
            let raw = self.sink.raw_bytes();
            if raw > seen {
                (last, seen) = (clock::now(), raw);
            }
        }
        Emptied { cpu: self.cpu(), wall: elapsed(started, last) }
    }
}

fn elapsed(from: Instant, to: Instant) -> Duration {
    to.saturating_duration_since(from)
}

impl Drop for Agent {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}
