//! `logferry demo`: the whole story in one command.
//!
//! A mock endpoint in this process, the article's sample app on a thread, the agent as the process
//! that a pod would run, all in a temporary directory. The app does what its `run.sh` does, restart
//! included: it makes `/data/<pod>/logs` (with a time stamp behind it when that exists), points
//! `/share/logs` at it, and appends `Log <n> to file` to `app.log`. The end compares what the app
//! wrote with what the endpoint holds, line by line.

use std::collections::HashMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::thread;
use std::time::{Duration, Instant};

use super::{Access, Background, Key, Options};
use crate::clock;
use crate::exit::ExitCode;

const PROJECT: &str = "demo-project";
const LOGSTORE: &str = "app-log";
const POD: &str = "app-demo-5fqrl";
const KEY_ID: &str = "demo-access-key-id";
const KEY_SECRET: &str = "demo-access-key-secret";
/// The app writes so often, each time as many lines as the rate asks for.
const WRITE_PERIOD: Duration = Duration::from_millis(10);
/// How long the agent may take to deliver what is left; then the demo has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long and how hard to demonstrate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::Args)]
pub struct Demo {
    /// Seconds to write logs for
    #[arg(long, value_name = "N", default_value_t = 10,
          value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub seconds: u32,
    /// Lines to write in a second
    #[arg(long, value_name = "N", default_value_t = 1000,
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub rate: u32,
}

/// Plays the story and prints it. Ends with [`ExitCode::Done`] when everything that was written
/// was delivered, each line once.
///
/// # Errors
/// If the directories, the endpoint or the agent cannot be had, or printing fails.
pub fn run(demo: Demo, out: &mut impl Write) -> io::Result<ExitCode> {
    let stage = Stage::set()?;
    let key = Key { id: KEY_ID.to_owned(), secret: KEY_SECRET.to_owned() };
    let access = Access { keys: vec![key], ..Access::default() };
    let mock = Background::start(Options { access, ..Options::default() })?;
    writeln!(out, "endpoint  http://{}/ shows what arrives", mock.address())?;
    writeln!(out, "app       writes {} lines a second for {} s", demo.rate, demo.seconds)?;
    let mut agent = stage.start_agent(&mock)?;
    writeln!(out, "agent     logferry run, process {}, in {}", agent.0.id(), stage.root.display())?;
    out.flush()?;

    let (progress, news) = mpsc::sync_channel(64);
    let app = App { stage: stage.clone(), demo, progress };
    let app = thread::Builder::new().name("app".to_owned()).spawn(move || app.run())?;
    watch(&news, &mock, out)?;
    let written = app.join().map_err(|_| io::Error::other("the sample app died"))??;

    let code = stop_agent(&mut agent.0)?;
    let verdict = compare(&written, &mock);
    writeln!(out, "{}", verdict.text)?;
    if verdict.is_good && code == 0 {
        fs::remove_dir_all(&stage.root)?;
        return Ok(ExitCode::Done);
    }
    writeln!(out, "the agent ended with code {code}; its log: {}", stage.agent_log().display())?;
    Ok(ExitCode::Undelivered)
}

/// The directories.
#[derive(Clone)]
struct Stage {
    root: PathBuf,
}

impl Stage {
    fn set() -> io::Result<Self> {
        let name = format!("logferry-demo-{}-{}", std::process::id(), clock::wall().as_millis());
        let root = std::env::temp_dir().join(name);
        fs::create_dir_all(root.join("share"))?;
        Ok(Self { root })
    }

    fn agent_log(&self) -> PathBuf {
        self.root.join("agent.log")
    }

    fn link(&self) -> PathBuf {
        self.root.join("share/logs")
    }

    /// Starts the agent before the app, as it happens in pods: the link is not there yet.
    fn start_agent(&self, mock: &Background) -> io::Result<Agent> {
        let text = |path: &Path| path.display().to_string();
        let child = Command::new(std::env::current_exe()?)
            .arg("run")
            .env_clear()
            .env("LOGFERRY_ENDPOINT", format!("http://{}", mock.address()))
            .env("LOGFERRY_PROJECT", PROJECT)
            .env("LOGFERRY_LOGSTORE", LOGSTORE)
            .env("LOGFERRY_PATHS", text(&self.link().join("**/*.log")))
            .env("LOGFERRY_STATE_DIR", text(&self.root.join("state")))
            .env("LOGFERRY_LISTEN", "")
            .env("ALIBABA_CLOUD_ACCESS_KEY_ID", KEY_ID)
            .env("ALIBABA_CLOUD_ACCESS_KEY_SECRET", KEY_SECRET)
            .env("ALIYUN_LOG_ENV_TAGS", "_node_name_|_node_ip_|_pod_name_|_pod_namespace_")
            .env("_node_name_", "demo-node")
            .env("_node_ip_", "127.0.0.1")
            .env("_pod_name_", POD)
            .env("_pod_namespace_", "default")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(OpenOptions::new().create(true).append(true).open(self.agent_log())?)
            .spawn()?;
        Ok(Agent(child))
    }
}

/// The agent's process, which does not outlive the demo, however that ends.
struct Agent(Child);

impl Drop for Agent {
    fn drop(&mut self) {
        // Fails when it has ended and was waited for, as it should.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The sample app.
struct App {
    stage: Stage,
    demo: Demo,
    /// Gets the number of lines written so far.
    progress: SyncSender<u64>,
}

impl App {
    /// Two lives of the container; returns how often each line was written.
    fn run(self) -> io::Result<HashMap<Vec<u8>, u64>> {
        let total = u64::from(self.demo.seconds) * u64::from(self.demo.rate);
        let mut written = HashMap::new();
        let mut done = 0;
        for life in [total / 2, total - total / 2] {
            done = self.live(life, done, &mut written)?;
        }
        Ok(written)
    }

    /// One life, as `run.sh` has it.
    fn live(
        &self,
        lines: u64,
        before: u64,
        written: &mut HashMap<Vec<u8>, u64>,
    ) -> io::Result<u64> {
        let mut logs = self.stage.root.join("data").join(POD).join("logs");
        if logs.exists() {
            logs.set_file_name(format!("logs-{}", clock::wall().as_secs()));
        }
        fs::create_dir_all(&logs)?;
        // A link made under another name and renamed is never missing, even for a moment.
        let next = self.stage.link().with_extension("next");
        symlink(&logs, &next)?;
        fs::rename(next, self.stage.link())?;

        let path = self.stage.link().join("app.log");
        let mut file = OpenOptions::new().create(true).append(true).open(path)?;
        let started = clock::now();
        let mut number = 0;
        while number < lines {
            let elapsed = clock::now() - started;
            let due = (elapsed.as_secs_f64() * f64::from(self.demo.rate)).ceil();
            let mut text = Vec::new();
            while number < lines && (number as f64) < due {
                number += 1;
                let line = format!("Log {number} to file").into_bytes();
                text.extend_from_slice(&line);
                text.push(b'\n');
                *written.entry(line).or_default() += 1;
            }
            file.write_all(&text)?;
            // A watcher that is behind will learn of the next one.
            let _ = self.progress.try_send(before + number);
            rest(WRITE_PERIOD);
        }
        Ok(before + number)
    }
}

/// Prints a line of progress each second until the app has ended.
fn watch(news: &Receiver<u64>, mock: &Background, out: &mut impl Write) -> io::Result<()> {
    let started = clock::now();
    let mut next = started + Duration::from_secs(1);
    let mut written = 0;
    loop {
        match news.recv_timeout(next.saturating_duration_since(clock::now())) {
            Ok(lines) => written = lines,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return progress(started, written, mock, out),
        }
        if clock::now() >= next {
            progress(started, written, mock, out)?;
            next += Duration::from_secs(1);
        }
    }
}

fn progress(
    started: Instant,
    written: u64,
    mock: &Background,
    out: &mut impl Write,
) -> io::Result<()> {
    let seconds = (clock::now() - started).as_secs();
    let delivered = mock.store().line_count();
    writeln!(out, "{seconds:4} s    written {written}, delivered {delivered}")?;
    out.flush()
}

/// SIGTERM, as a pod's end sends it; the agent delivers what is left. Returns its exit code.
fn stop_agent(agent: &mut Child) -> io::Result<i32> {
    if let Some(pid) = i32::try_from(agent.id()).ok().and_then(rustix::process::Pid::from_raw) {
        // It may have ended by itself; its code says so.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    }
    let deadline = clock::now() + PATIENCE;
    loop {
        if let Some(status) = agent.try_wait()? {
            return Ok(status.code().unwrap_or(-1));
        }
        if clock::now() >= deadline {
            agent.kill()?;
        }
        rest(WRITE_PERIOD);
    }
}

struct Comparison {
    text: String,
    is_good: bool,
}

fn compare(written: &HashMap<Vec<u8>, u64>, mock: &Background) -> Comparison {
    let mut delivered: HashMap<Vec<u8>, u64> = HashMap::new();
    for line in mock.store().lines() {
        *delivered.entry(line).or_default() += 1;
    }
    let count = |lines: &HashMap<Vec<u8>, u64>| lines.values().sum::<u64>();
    let beyond = |these: &HashMap<Vec<u8>, u64>, those: &HashMap<Vec<u8>, u64>| -> u64 {
        let other = |line| those.get(line).copied().unwrap_or(0);
        these.iter().map(|(line, count)| count.saturating_sub(other(line))).sum()
    };
    let (missing, excess) = (beyond(written, &delivered), beyond(&delivered, written));
    let (written, delivered) = (count(written), count(&delivered));
    if missing == 0 && excess == 0 {
        return Comparison {
            text: format!("written {written} = delivered {delivered}"),
            is_good: true,
        };
    }
    Comparison {
        text: format!(
            "written {written}, delivered {delivered}: {missing} missing, {excess} too many"
        ),
        is_good: false,
    }
}

fn rest(duration: Duration) {
    // May end early; all callers look at the clock again.
    thread::park_timeout(duration);
}
