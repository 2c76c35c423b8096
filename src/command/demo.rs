//! `logferry demo`: the whole story in one command.
//!
//! A mock endpoint in this process, the article's sample app on a thread, the agent as the process
//! that a pod would run, all in a temporary directory. The app does what its `run.sh` does, restart
//! included: it makes `/data/<pod>/logs` (with a time stamp behind it when that exists), points
//! `/share/logs` at it, and appends `Log <n> to file` to `app.log`. The end compares what the app
//! wrote with what the endpoint holds, line by line.
//!
//! A signal ends the app early, and the story as always. A second one, a second later, ends this
//! process at once. The agent ends with it, however it ends: its standard input is a pipe whose other
//! end is held here. Whoever of the two is last removes the directory: the agent if the word that came
//! through the pipe stands in it.

use std::collections::HashMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Read as _, Write};
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use logferry_mock::{Access, Background, Key, Options};

use crate::base::clock;
use crate::base::exit::ExitCode;
use crate::signals::{ONE_STOP, Signals, Wish};

const PROJECT: &str = "demo-project";
const LOGSTORE: &str = "app-log";
const POD: &str = "app-demo-5fqrl";
const KEY_ID: &str = "demo-access-key-id";
const KEY_SECRET: &str = "demo-access-key-secret";
/// How the name of the directory begins.
const DIR_PREFIX: &str = "logferry-demo-";
/// The file in it that says whose it is.
const MARK: &str = "demo";
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
    let is_over = heed_signals()?;
    let key = Key { id: KEY_ID.to_owned(), secret: KEY_SECRET.to_owned() };
    let access = Access { keys: vec![key], ..Access::default() };
    let mock = Background::start(Options { access, ..Options::default() })?;
    writeln!(out, "endpoint  http://{}/ shows what arrives", mock.address())?;
    writeln!(out, "app       writes {} lines a second for {} s", demo.rate, demo.seconds)?;
    // Each ends when it goes out of scope, the last one first.
    let mut stage = Stage::set()?;
    let mut agent = Agent::start(&stage, &mock)?;
    writeln!(out, "agent     logferry run, process {}, in {}", agent.0.id(), stage.root.display())?;
    out.flush()?;

    let (progress, news) = mpsc::sync_channel(64);
    let app = App { root: stage.root.clone(), demo, progress, is_over: Arc::clone(&is_over) };
    let app = Running::start(app)?;
    watch(&news, &mock, out)?;
    if is_over.load(Relaxed) {
        writeln!(out, "a signal: the app ends, the agent delivers what is left")?;
    }
    let written = app.end()?;

    let code = stop_agent(&mut agent.0)?;
    let verdict = compare(&written, &mock);
    writeln!(out, "{}", verdict.text)?;
    if verdict.is_good && code == 0 {
        return Ok(ExitCode::Done);
    }
    if is_over.load(Relaxed) {
        writeln!(out, "the agent ended with code {code}")?;
    } else {
        writeln!(
            out,
            "the agent ended with code {code}; its log: {}",
            stage.agent_log().display()
        )?;
        stage.is_kept = true;
    }
    Ok(ExitCode::Undelivered)
}

/// Says from now on whether a signal has come that ends the demo. A second one ends the process, as
/// does the patience with it.
fn heed_signals() -> io::Result<Arc<AtomicBool>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut signals = Signals::catch(&runtime)?;
    let is_over = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&is_over);
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        runtime.block_on(async {
            // With its terminal it ends too.
            let (Wish::Stop | Wish::Reload) = signals.next().await;
            told.store(true, Relaxed);
            let second = signals.stop_after(clock::now() + ONE_STOP);
            let _ = tokio::time::timeout(PATIENCE + PATIENCE / 2, second).await;
        });
        #[expect(
            clippy::disallowed_methods,
            reason = "main may wait for whoever reads what it prints"
        )]
        std::process::exit(i32::from(ExitCode::Undelivered as u8));
    })?;
    Ok(is_over)
}

/// Lets this process, the agent of a demo, end with the demo: when standard input ends. Nothing that
/// is left could be delivered then, so it does not wait for the deadline of a drain. From then on there
/// is the word by which the demo marked its directory.
///
/// # Errors
/// If the system refuses a thread.
pub fn end_with_demo() -> io::Result<Arc<OnceLock<Vec<u8>>>> {
    let word = Arc::new(OnceLock::new());
    let told = Arc::clone(&word);
    thread::Builder::new().name("demo".to_owned()).spawn(move || {
        let mut said = Vec::new();
        // What ends is gone, whatever the reason.
        let _ = io::stdin().read_to_end(&mut said);
        let _ = told.set(said);
        let us = rustix::process::getpid();
        loop {
            // The first asks for a drain, the next one cuts it short.
            let _ = rustix::process::kill_process(us, rustix::process::Signal::TERM);
            let until = clock::now() + ONE_STOP + WRITE_PERIOD;
            while clock::now() < until {
                rest(WRITE_PERIOD);
            }
        }
    })?;
    Ok(word)
}

/// Removes the directory of a demo that is gone, and no other: it is marked with this word, which only
/// that demo and its agent know.
///
/// # Errors
/// If it cannot be removed.
pub fn clean_up(dir: &Path, word: &[u8]) -> io::Result<()> {
    let name = dir.file_name().unwrap_or_default().to_string_lossy();
    let is_marked = || fs::read(dir.join(MARK)).is_ok_and(|mark| mark == word);
    let is_it = name.starts_with(DIR_PREFIX) && !word.is_empty() && is_marked();
    if is_it { fs::remove_dir_all(dir) } else { Ok(()) }
}

/// The directories, which go when this goes.
struct Stage {
    root: PathBuf,
    /// What it is marked with.
    word: String,
    /// Whether the directories stay, for somebody to look at.
    is_kept: bool,
}

impl Drop for Stage {
    fn drop(&mut self) {
        if !self.is_kept {
            // It is a temporary one: whatever stays harms nobody.
            let _ = fs::remove_dir_all(&self.root);
        }
    }
}

impl Stage {
    fn set() -> io::Result<Self> {
        let time = clock::wall().as_millis();
        let name = format!("{DIR_PREFIX}{}-{time}", std::process::id());
        let root = std::env::temp_dir().join(name);
        let word = format!("{:016x}", fastrand::u64(..));
        let stage = Self { root, word, is_kept: false };
        fs::create_dir_all(stage.root.join("share"))?;
        fs::write(stage.root.join(MARK), &stage.word)?;
        Ok(stage)
    }

    fn agent_log(&self) -> PathBuf {
        self.root.join("agent.log")
    }
}

/// The link that the app makes, below the root.
fn link(root: &Path) -> PathBuf {
    root.join("share/logs")
}

/// The agent's process.
struct Agent(Child);

impl Agent {
    /// Starts it before the app, as it happens in pods: the link is not there yet.
    fn start(stage: &Stage, mock: &Background) -> io::Result<Self> {
        let text = |path: &Path| path.display().to_string();
        let child = Command::new(std::env::current_exe()?)
            .arg("demo-agent")
            .arg(&stage.root)
            .env_clear()
            .env("LOGFERRY_ENDPOINT", format!("http://{}", mock.address()))
            .env("LOGFERRY_PROJECT", PROJECT)
            .env("LOGFERRY_LOGSTORE", LOGSTORE)
            .env("LOGFERRY_PATHS", text(&link(&stage.root).join("**/*.log")))
            .env("LOGFERRY_STATE_DIR", text(&stage.root.join("state")))
            .env("LOGFERRY_LISTEN", "")
            .env("ALIBABA_CLOUD_ACCESS_KEY_ID", KEY_ID)
            .env("ALIBABA_CLOUD_ACCESS_KEY_SECRET", KEY_SECRET)
            .env("ALIYUN_LOG_ENV_TAGS", "_node_name_|_node_ip_|_pod_name_|_pod_namespace_")
            .env("_node_name_", "demo-node")
            .env("_node_ip_", "127.0.0.1")
            .env("_pod_name_", POD)
            .env("_pod_namespace_", "default")
            // Ctrl-C is for us alone: the agent is stopped after the app.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(OpenOptions::new().create(true).append(true).open(stage.agent_log())?)
            .spawn()?;
        let mut agent = Self(child);
        if let Some(pipe) = &mut agent.0.stdin {
            pipe.write_all(stage.word.as_bytes())?;
        }
        Ok(agent)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // Fails when it has ended and was waited for, as it should.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The sample app's thread.
struct Running {
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<io::Result<Written>>>,
}

/// How often each line was written.
type Written = HashMap<Vec<u8>, u64>;

impl Running {
    fn start(app: App) -> io::Result<Self> {
        let is_over = Arc::clone(&app.is_over);
        let thread = thread::Builder::new().name("app".to_owned()).spawn(move || app.run())?;
        Ok(Self { is_over, thread: Some(thread) })
    }

    /// Waits for its end.
    fn end(mut self) -> io::Result<Written> {
        let joined = self.thread.take().map(JoinHandle::join);
        joined.and_then(Result::ok).ok_or_else(|| io::Error::other("the sample app died"))?
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.is_over.store(true, Relaxed);
        // What it has written is nobody's concern any more.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// The sample app.
struct App {
    root: PathBuf,
    demo: Demo,
    /// Gets the number of lines written so far.
    progress: SyncSender<u64>,
    /// Whether the app is told to end before its time.
    is_over: Arc<AtomicBool>,
}

impl App {
    /// Two lives of the container.
    fn run(self) -> io::Result<Written> {
        let total = u64::from(self.demo.seconds) * u64::from(self.demo.rate);
        let mut written = HashMap::new();
        let mut done = 0;
        for life in [total / 2, total - total / 2] {
            done = self.live(life, done, &mut written)?;
        }
        Ok(written)
    }

    /// One life, as `run.sh` has it.
    fn live(&self, lines: u64, before: u64, written: &mut Written) -> io::Result<u64> {
        let mut logs = self.root.join("data").join(POD).join("logs");
        if logs.exists() {
            logs.set_file_name(format!("logs-{}", clock::wall().as_secs()));
        }
        fs::create_dir_all(&logs)?;
        // A link made under another name and renamed is never missing, even for a moment.
        let link = link(&self.root);
        let next = link.with_extension("next");
        symlink(&logs, &next)?;
        fs::rename(next, &link)?;

        let path = link.join("app.log");
        let mut file = OpenOptions::new().create(true).append(true).open(path)?;
        let started = clock::now();
        let mut number = 0;
        while number < lines && !self.is_over.load(Relaxed) {
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

fn compare(written: &Written, mock: &Background) -> Comparison {
    let mut delivered = Written::new();
    for line in mock.store().lines() {
        *delivered.entry(line).or_default() += 1;
    }
    let count = |lines: &Written| lines.values().sum::<u64>();
    let beyond = |these: &Written, those: &Written| -> u64 {
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
