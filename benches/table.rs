//! What it costs, in one table: `cargo bench [-- MEGABYTES]`; `-- --quick` leaves out what valgrind
//! counts. `-- --counts` only compares instructions with `benches/counts.txt`.
//!
//! Everything is compared with [`limit`] in the same run, in turns, because times of one run cannot
//! be compared with those of another. No time fails: that is for the counts.

#[allow(dead_code, reason = "several benches share it")]
mod agent;
mod counts;
mod limit;
mod rows;
#[allow(dead_code, reason = "several benches share it")]
mod sink;
mod text;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use agent::Agent;
use counts::{ALLOCATIONS, INSTRUCTIONS, Tool};
use limit::Limit;
use rows::{ROWS, Row};
use sink::Sink;

const TURNS: usize = 5;
/// Each row works at least so long in a turn.
const TURN: Duration = Duration::from_millis(60);

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let has = |word: &str| args.iter().any(|arg| arg == word);
    if let Some(at) = args.iter().position(|arg| arg == "--rounds") {
        counts::rounds(&args[at + 1], args[at + 2].parse().expect("a number of rounds"));
        return ExitCode::SUCCESS;
    }
    if has("--counts") {
        let is_good = counts::compare(std::env::var_os("UPDATE_EXPECT").is_some());
        return if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let megabytes = args.iter().find_map(|word| word.parse().ok()).unwrap_or(400);
    println!(
        "{:<16} {:<6} {:>11} {:>9} {:>8} {:>12} {:>13}",
        "", "unit", "time/unit", "MB/cpu-s", "of limit", "allocations", "instructions"
    );
    stages(!has("--quick"));
    whole_agent(megabytes, !has("--quick"));
    ExitCode::SUCCESS
}

/// A line of the table. Without a ratio if the row says nothing about bytes.
struct Printed {
    name: &'static str,
    unit: &'static str,
    time: Duration,
    rate: f64,
    ratio: f64,
    allocations: Option<f64>,
    instructions: Option<f64>,
}

impl Printed {
    fn print(&self) {
        let number = |value: Option<f64>, digits: usize| match value {
            Some(value) => format!("{value:.digits$}"),
            None => "-".to_owned(),
        };
        println!(
            "{:<16} {:<6} {:>11} {:>9.0} {:>8.2} {:>12} {:>13}",
            self.name,
            self.unit,
            format!("{:.1?}", self.time),
            self.rate,
            self.ratio,
            number(self.allocations, 3),
            number(self.instructions, 0),
        );
    }
}

fn stages(counts: bool) {
    let mut stages: Vec<_> = ROWS.iter().map(|row| (row.prepare)()).collect();
    let mut times = vec![Vec::new(); stages.len()];
    for _ in 0..TURNS {
        for (stage, times) in stages.iter_mut().zip(&mut times) {
            let (started, mut rounds) = (limit::thread_cpu(), 0);
            while limit::thread_cpu() - started < TURN {
                (stage.once)();
                rounds += 1;
            }
            times.push((limit::thread_cpu() - started) / rounds);
        }
    }
    let mut limit_rate = 0.0;
    for ((row, stage), times) in ROWS.iter().zip(&mut stages).zip(&mut times) {
        let Row { name, unit, .. } = *row;
        let time = median(times);
        let rate = rate(stage.bytes as u64, time);
        if limit_rate == 0.0 {
            limit_rate = rate;
        }
        let allocated = allocation_counter::measure(&mut stage.once).count_total;
        let printed = Printed {
            name,
            unit,
            time: time.div_f64(stage.units as f64),
            rate,
            ratio: rate / limit_rate,
            allocations: Some(allocated as f64 / stage.units as f64),
            instructions: counts.then(|| counts::instructions(row)).flatten(),
        };
        printed.print();
    }
}

/// From a file to the last acknowledged request, beside the yardstick over the same file.
fn whole_agent(megabytes: usize, counts: bool) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let log = dir.path().join("app.log");
    let (bytes, lines) = backlog(&log, megabytes);
    let (mut limits, mut cpus, mut walls) = (Vec::new(), Vec::new(), Vec::new());
    let (mut compressed, mut requests, mut body_bytes) = (0, 0, 0);
    let mut limit = Limit::new();
    for _ in 0..TURNS {
        let (cpu, out) = limit.run(&log);
        let (sink, address) = Sink::start();
        let emptied = Agent::new(address).empty(&log, &sink);
        limits.push(cpu);
        cpus.push(emptied.cpu);
        walls.push(emptied.wall);
        (compressed, requests, body_bytes) = (out, sink.requests(), sink.body_bytes());
    }
    let (limit, cpu, wall) = (median(&mut limits), median(&mut cpus), median(&mut walls));
    let printed = Printed {
        name: "agent",
        unit: "line",
        time: cpu.div_f64(lines as f64),
        rate: rate(bytes, cpu),
        ratio: limit.as_secs_f64() / cpu.as_secs_f64(),
        allocations: counts.then(|| counted(&ALLOCATIONS, dir.path())).flatten(),
        instructions: counts.then(|| counted(&INSTRUCTIONS, dir.path())).flatten(),
    };
    printed.print();
    println!(
        "\nagent: {megabytes} MB, its start included, beside a limit of {:.0} MB/s over the same file\n  \
         by the wall {:.0} MB/s, {:.2} of the limit; {requests} requests, {:.1} MB ({:.1} MB by the limit)",
        rate(bytes, limit),
        rate(bytes, wall),
        limit.as_secs_f64() / wall.as_secs_f64(),
        body_bytes as f64 / 1e6,
        compressed as f64 / 1e6,
    );
}

/// What a line costs the whole agent: its threads meet differently each time, so this is printed and
/// not compared.
fn counted(tool: &Tool, dir: &Path) -> Option<f64> {
    let summary = dir.join("summary");
    let run = |megabytes: usize| {
        let log = dir.join("counted.log");
        let (_, lines) = backlog(&log, megabytes);
        let (sink, address) = Sink::start();
        let mut agent = Agent::new(address);
        agent.runner = tool.command(&summary);
        agent.empty(&log, &sink);
        agent.stop();
        Some((tool.read(&summary)?, lines))
    };
    let (few, more) = (run(8)?, run(40)?);
    Some(more.0.saturating_sub(few.0) as f64 / (more.1 - few.1) as f64)
}

/// Writes a log. Its bytes and lines.
fn backlog(path: &Path, megabytes: usize) -> (u64, usize) {
    let block = text::lines(8 << 20, 0);
    let text = block.repeat(megabytes.div_ceil(8));
    std::fs::write(path, &text).expect("the log of the bench");
    (text.len() as u64, memchr::memchr_iter(b'\n', &text).count())
}

fn rate(bytes: u64, time: Duration) -> f64 {
    bytes as f64 / 1e6 / time.as_secs_f64()
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}
