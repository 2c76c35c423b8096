//! What it costs, in one table: `cargo bench --bench table [-- MEGABYTES]`.
//!
//! Everything is compared with [`limit`] in the same run, in turns, because times of one run cannot
//! be compared with those of another.

mod agent;
mod limit;
mod sink;
mod text;

use std::time::Duration;

use agent::Agent;

const ROUNDS: usize = 5;

fn main() {
    let args = std::env::args().skip(1).find_map(|word| word.parse().ok());
    let megabytes: usize = args.unwrap_or(400);
    let dir = tempfile::tempdir().expect("a temporary directory");
    let log = dir.path().join("app.log");
    let block = text::lines(8 << 20, 0);
    std::fs::write(&log, block.repeat(megabytes.div_ceil(8))).expect("the log");
    let bytes = std::fs::metadata(&log).expect("the log").len();

    let (mut limits, mut cpus, mut walls) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let (cpu, out) = limit::run(&log);
        let mut agent = Agent::new();
        let emptied = agent.empty(&log);
        println!(
            "limit {:.0} MB/s (ratio {:.2})  agent {:.0} MB/cpu-s  {:.0} MB/s  requests {} body {:.0} MB",
            rate(bytes, cpu),
            bytes as f64 / out as f64,
            rate(bytes, emptied.cpu),
            rate(bytes, emptied.wall),
            agent.sink.requests(),
            agent.sink.body_bytes() as f64 / 1e6,
        );
        limits.push(cpu);
        cpus.push(emptied.cpu);
        walls.push(emptied.wall);
    }
    let limit = median(&mut limits);
    println!(
        "agent: {:.3} of the limit per CPU second, {:.3} per wall second",
        limit.as_secs_f64() / median(&mut cpus).as_secs_f64(),
        limit.as_secs_f64() / median(&mut walls).as_secs_f64(),
    );
}

fn rate(bytes: u64, time: Duration) -> f64 {
    bytes as f64 / 1e6 / time.as_secs_f64()
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}
