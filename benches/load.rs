//! Quiet and ordinary load, as a table: `cargo bench --bench load`, some four minutes.

#[allow(dead_code, reason = "several benches share it")]
mod agent;
#[allow(dead_code, reason = "several benches share it")]
mod sink;
#[allow(dead_code, reason = "several benches share it")]
mod stream;
mod text;

use std::fs;
use std::io::Write as _;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use agent::Agent;
use logferry::base::clock;
use sink::{Sink, mark};
use stream::{Stream, Taken, append_to, files, latencies, wait_until};

const LINGER: (&str, &str) = ("LOGFERRY_BATCH_LINGER", "200ms");
const MANY: usize = 10_000;

fn main() {
    println!(
        "{:<44} {:>7} {:>9} {:>9} {:>8} {:>8}",
        "", "CPU %", "resident", "wakeups/s", "p50 ms", "p99 ms"
    );
    let idle = Stream { seconds: 20, ..Stream::default() };
    let one = idle.measure();
    print("idle, 1 file", &one);
    let many = Stream { files: MANY, ..idle }.measure();
    print("idle, 10,000 files", &many);
    let each = many.resident.saturating_sub(one.resident) / (MANY as u64 - 1);
    println!("  {each} bytes of memory a file");
    print("1 MB/s", &Stream { rate: 1_000_000, ..idle }.measure());
    print("10 MB/s", &Stream { rate: 10_000_000, ..idle }.measure());
    let env = &[LINGER];
    print("1 MB/s, batch_linger 200ms", &Stream { rate: 1_000_000, env, ..idle }.measure());
    print("a line after 10 s of silence, 200ms", &lone_lines(5, Duration::from_secs(10)));
    print("50 slow files beside a busy one, 200ms", &beside_a_busy_file(50));
    start();
    binary();
}

fn print(name: &str, taken: &Taken) {
    let millis = |time: Option<Duration>| match time {
        Some(time) => format!("{:.0}", time.as_secs_f64() * 1e3),
        None => "-".to_owned(),
    };
    println!(
        "{name:<44} {:>7.3} {:>6.1} MB {:>9.1} {:>8} {:>8}",
        taken.cpu_percent(),
        taken.resident as f64 / 1e6,
        taken.wakeups as f64 / taken.wall.as_secs_f64(),
        millis(taken.percentile(50)),
        millis(taken.percentile(99)),
    );
}

/// One line at a time, each after silence.
fn lone_lines(count: u32, silence: Duration) -> Taken {
    watched(1, |paths| {
        for _ in 0..count {
            wait_until(clock::now() + silence);
            let mut line = mark(clock::wall()).to_vec();
            line.extend_from_slice(b" a line by itself\n");
            append_to(&paths[0]).write_all(&line).expect("the log can be written");
        }
        wait_until(clock::now() + Duration::from_secs(3));
    })
}

/// Ten lines a second in each of some files, while another one grows as fast as it can be written
/// without filling the disk: at twice what the agent reads.
fn beside_a_busy_file(count: usize) -> Taken {
    watched(count + 1, |paths| {
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                let (mut busy, text) = (append_to(&paths[count]), text::lines(2 << 20, 0));
                while !is_over.load(Ordering::Relaxed) {
                    busy.write_all(&text).expect("the log can be written");
                    thread::park_timeout(Duration::from_millis(8));
                }
            });
            let ends = clock::now() + Duration::from_secs(15);
            while clock::now() < ends {
                for path in &paths[..count] {
                    let mut line = mark(clock::wall()).to_vec();
                    line.extend_from_slice(b" a line of a slow file\n");
                    append_to(path).write_all(&line).expect("the log can be written");
                }
                thread::park_timeout(Duration::from_millis(100));
            }
            // Lines that wait behind the busy file are late, not lost: they count.
            wait_until(clock::now() + Duration::from_secs(5));
            is_over.store(true, Ordering::Relaxed);
        });
    })
}

/// What an agent takes while something is done to its files; and all latencies.
fn watched(count: usize, act: impl FnOnce(&[std::path::PathBuf])) -> Taken {
    let (sink, address) = Sink::looking_for_marks();
    let mut agent = Agent::new(address);
    let paths = files(&agent.logs(), count);
    agent.start(&[LINGER]);
    agent.wait_until_delivered();
    let (from, cpu, wakeups) = (clock::wall(), agent.cpu(), agent.wakeups());
    act(&paths);
    let to = clock::wall();
    Taken {
        wall: to - from,
        cpu: agent.cpu() - cpu,
        bytes: 0,
        resident: agent.resident(),
        wakeups: agent.wakeups() - wakeups,
        latencies: latencies(&sink.arrivals(), from, to),
    }
}

/// From the process to `/ready`, with new files and with checkpointed ones.
fn start() {
    let (_, address) = Sink::start();
    let mut agent = Agent::new(address);
    files(&agent.logs(), MANY);
    for name in ["new", "checkpointed"] {
        let started = clock::now();
        agent.start(&[]);
        agent.wait(Duration::from_millis(1), Agent::is_ready);
        let ready = started.elapsed();
        println!("start with 10,000 {name} files: ready after {:.0} ms", ready.as_secs_f64() * 1e3);
        agent.wait_until_delivered();
        assert_eq!(agent.stop(), Some(0), "{}", agent.log());
    }
}

fn binary() {
    let path = env!("CARGO_BIN_EXE_logferry");
    let stripped = tempfile::NamedTempFile::new().expect("a temporary file");
    let strip = Command::new("strip").arg("-o").arg(stripped.path()).arg(path).status();
    if strip.is_ok_and(|status| status.success()) {
        let bytes = fs::metadata(stripped.path()).expect("it was made").len();
        println!("binary, stripped: {:.2} MB", bytes as f64 / 1e6);
    } else {
        eprintln!("binary: strip(1) is not installed");
    }
}
