//! Very many small files beside one that an app writes to: `cargo bench --bench crowd`, some twenty
//! minutes. `-- 100000 300000` for other counts of files, `-- cpu_usage_limit=0.4` for other settings
//! than the table's, `-- touched` for files that are touched without end.

#[allow(dead_code, reason = "several benches share it")]
mod agent;
#[allow(dead_code, reason = "several benches share it")]
mod sink;
#[allow(dead_code, reason = "several benches share it")]
mod stream;
mod text;

use std::fs::{self, File, FileTimes};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, UNIX_EPOCH};

use agent::Agent;
use logferry::base::clock;
use sink::{Sink, mark};
use stream::{append_to, latencies};

/// The setting whose bound is to hold, in MiB.
const MEMORY: (&str, &str) = ("mem_usage_limit", "64");
const LINGER: (&str, &str) = ("LOGFERRY_BATCH_LINGER", "200ms");
/// Files of a directory.
const FILES_PER_DIR: usize = 1000;
/// Lines come so often to the neighbour.
const PERIOD: Duration = Duration::from_millis(100);
/// Nothing new was delivered for so long: what could be is.
const QUIET: Duration = Duration::from_secs(15);
/// Once all is as it will be, it is measured for so long.
const STEADY: Duration = Duration::from_secs(60);
/// Files that are touched in a loop.
const TOUCHED: usize = 3000;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    let mut env: Vec<(&str, &str)> = args.iter().filter_map(|arg| arg.split_once('=')).collect();
    let mut counts: Vec<usize> = args.iter().filter_map(|arg| arg.parse().ok()).collect();
    println!(
        "{:<34} {:>7} {:>8} {:>8} {:>6} {:>8} {:>8} {:>8} {:>8} {:>8}",
        "", "s", "peak MB", "now MB", "CPU %", "new", "left", "p50 ms", "p99 ms", "max ms"
    );
    if args.iter().any(|arg| arg == "touched") {
        if env.is_empty() {
            env.push(("cpu_usage_limit", "0.1"));
        }
        return touched(&env);
    }
    if counts.is_empty() {
        counts = vec![10_000, 100_000, 300_000];
    }
    let limits: &[&str] = if env.is_empty() { &["0.4", "1.0"] } else { &[""] };
    for count in counts {
        for cores in limits {
            let mut env = env.clone();
            if !cores.is_empty() {
                env.push(("cpu_usage_limit", cores));
            }
            measure(count, &env);
        }
    }
}

/// A start without a state and one with the state of the first, and what each comes to.
fn measure(count: usize, env: &[(&str, &str)]) {
    let (sink, address) = Sink::looking_for_marks();
    let mut agent = Agent::new(address);
    crowd(&agent.logs(), count);
    let neighbour = agent.logs().join("neighbour.log");
    append_to(&neighbour);
    let env: Vec<(&str, &str)> = [MEMORY, LINGER].iter().chain(env).copied().collect();
    let limit = env.iter().rev().find(|(key, _)| *key == "cpu_usage_limit");
    let limit = limit.map_or("", |(_, value)| value);
    for name in ["new", "again"] {
        let row = Row::begin(&format!("{count} files, {name}, {limit} cores"), &sink);
        agent.start(&env);
        while_writing(&neighbour, || wait_until_quiet(&mut agent, &sink));
        row.end(&agent, QUIET);
        let row = Row::begin("  after that", &sink);
        let cpu = agent.cpu();
        while_writing(&neighbour, || thread::park_timeout(STEADY));
        row.end_from(&agent, cpu, Duration::ZERO);
        // What comes last is on its way.
        thread::park_timeout(Duration::from_secs(1));
        let began = clock::now();
        let code = agent.stop();
        println!("  stop: {code:?} after {:.1} s", began.elapsed().as_secs_f64());
    }
    print!("{}", last_words(&agent.log()));
}

/// Thousands of delivered files whose time of change moves without end, at a small CPU limit.
fn touched(env: &[(&str, &str)]) {
    let (sink, address) = Sink::looking_for_marks();
    let mut agent = Agent::new(address);
    let paths = crowd(&agent.logs(), TOUCHED);
    let neighbour = agent.logs().join("neighbour.log");
    append_to(&neighbour);
    let env: Vec<(&str, &str)> = [MEMORY, LINGER].iter().chain(env).copied().collect();
    agent.start(&env);
    wait_until_quiet(&mut agent, &sink);
    let row = Row::begin(&format!("{TOUCHED} files, touched without end"), &sink);
    let (cpu, is_over) = (agent.cpu(), AtomicBool::new(false));
    let mut times = 0;
    thread::scope(|scope| {
        let toucher = scope.spawn(|| touch(&paths, &is_over));
        while_writing(&neighbour, || thread::park_timeout(STEADY));
        is_over.store(true, Ordering::Relaxed);
        times = toucher.join().expect("the app ends");
    });
    row.end_from(&agent, cpu, Duration::ZERO);
    println!("  each was touched {times} times");
}

fn touch(paths: &[PathBuf], is_over: &AtomicBool) -> u32 {
    let mut times = 0;
    while !is_over.load(Ordering::Relaxed) {
        for path in paths {
            let now = FileTimes::new().set_modified(UNIX_EPOCH + clock::wall());
            append_to(path).set_times(now).expect("it is ours");
        }
        times += 1;
        thread::park_timeout(Duration::from_millis(10));
    }
    times
}

/// So many files of one line, an hour old.
fn crowd(logs: &Path, count: usize) -> Vec<PathBuf> {
    let old = UNIX_EPOCH + clock::wall() - Duration::from_secs(3600);
    let path = |number| {
        let dir = logs.join(format!("{:04}", number / FILES_PER_DIR));
        if number % FILES_PER_DIR == 0 {
            fs::create_dir(&dir).expect("a directory");
        }
        let path = dir.join(format!("request-{number:07}.log"));
        let mut file = File::create(&path).expect("a log");
        writeln!(file, "the only line of {number}, which is not very long").expect("room for it");
        file.set_modified(old).expect("it is ours");
        path
    };
    (0..count).map(path).collect()
}

/// Does something while a line with a mark comes to a file each [`PERIOD`].
fn while_writing(path: &Path, act: impl FnOnce()) {
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut file = append_to(path);
            while !is_over.load(Ordering::Relaxed) {
                let mut line = mark(clock::wall()).to_vec();
                line.extend_from_slice(b" a line of the neighbour\n");
                file.write_all(&line).expect("the log can be written");
                thread::park_timeout(PERIOD);
            }
        });
        act();
        is_over.store(true, Ordering::Relaxed);
    });
}

/// Until nothing is delivered any more but the neighbour's lines.
fn wait_until_quiet(agent: &mut Agent, sink: &Sink) {
    let others = |agent: &Agent| delivered(agent).saturating_sub(sink.arrivals().len() as u64);
    let (mut since, mut before) = (clock::now(), 0);
    while since.elapsed() < QUIET {
        thread::park_timeout(Duration::from_millis(250));
        agent.expect_alive();
        let now = others(agent);
        // Neighbour's lines are under way: what differs by a few is no news.
        if now > before + 50 || agent.metric("logferry_ready") != Some(1) {
            (since, before) = (clock::now(), now.max(before));
        }
    }
}

fn delivered(agent: &Agent) -> u64 {
    agent.metric("logferry_delivered_lines_total").unwrap_or(0)
}

/// A row of the table that is being measured.
struct Row<'a> {
    name: String,
    sink: &'a Sink,
    began: Instant,
    from: Duration,
}

impl<'a> Row<'a> {
    fn begin(name: &str, sink: &'a Sink) -> Self {
        Self { name: name.to_owned(), sink, began: clock::now(), from: clock::wall() }
    }

    fn end(self, agent: &Agent, quiet: Duration) {
        self.end_from(agent, Duration::ZERO, quiet);
    }

    /// The last `quiet` of it are no part of the time.
    fn end_from(self, agent: &Agent, cpu: Duration, quiet: Duration) {
        let wall = self.began.elapsed();
        let used = agent.cpu() - cpu;
        let latencies = latencies(&self.sink.arrivals(), self.from, clock::wall());
        let millis = |index: usize| {
            latencies.get(index).map_or(f64::NAN, |latency| latency.as_secs_f64() * 1e3)
        };
        let lines = delivered(agent).saturating_sub(self.sink.arrivals().len() as u64);
        println!(
            "{:<34} {:>7.1} {:>8.1} {:>8.1} {:>6.1} {:>8} {:>8} {:>8.0} {:>8.0} {:>8.0}",
            self.name,
            wall.saturating_sub(quiet).as_secs_f64(),
            agent.resident_max() as f64 / (1 << 20) as f64,
            agent.resident() as f64 / (1 << 20) as f64,
            used.as_secs_f64() / wall.as_secs_f64() * 100.0,
            lines,
            agent.metric("logferry_files{state=\"left\"}").unwrap_or(0),
            millis(latencies.len() / 2),
            millis(latencies.len() * 99 / 100),
            millis(latencies.len().saturating_sub(1)),
        );
    }
}

/// What the agent says of what is left.
fn last_words(log: &str) -> String {
    log.lines().map(|line| format!("  | {line}\n")).collect()
}
