//! How it grows: bytes a CPU second, memory and latency against the number of files, the length of
//! lines, the rate, and the backlog. `cargo bench --bench growth [-- files lines rate backlog]`, some
//! ten minutes and 11 GB of disk. Writes `docs/performance/*.csv` and draws each as an SVG.

#[allow(dead_code, reason = "several benches share it")]
mod agent;
mod plot;
#[allow(dead_code, reason = "several benches share it")]
mod sink;
#[allow(dead_code, reason = "several benches share it")]
mod stream;
mod text;

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::time::Duration;

use agent::Agent;
use plot::Csv;
use sink::Sink;
use stream::Stream;

const MB: usize = 1_000_000;
const COLUMNS: &str = "MB/CPU s,resident MB,p50 ms,p99 ms";

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let sweeps: [(&str, fn()); 4] =
        [("files", by_files), ("lines", by_lines), ("rate", by_rate), ("backlog", by_backlog)];
    for (name, sweep) in sweeps {
        if args.is_empty() || args.iter().any(|arg| arg == name) {
            println!("{name}");
            sweep();
        }
    }
}

/// 1 MB/s in pieces of ten lines, spread over more and more files.
fn by_files() {
    let mut csv = Csv::new("files", &format!("files,{COLUMNS}"));
    for files in [1, 10, 100, 1000, 10_000] {
        let stream = Stream { files, rate: MB, chunk_bytes: 1500, ..Stream::default() };
        measure(&mut csv, files as f64, stream);
    }
    csv.draw();
}

/// 10 MB/s in longer and longer lines.
fn by_lines() {
    let mut csv = Csv::new("lines", &format!("bytes of a line,{COLUMNS}"));
    for line_bytes in [20, 50, 150, 500, 2000, 10_000, 50_000, 200_000, 1_000_000] {
        let stream = Stream { line_bytes, rate: 10 * MB, ..Stream::default() };
        measure(&mut csv, line_bytes as f64, stream);
    }
    csv.draw();
}

/// More and more a second; beyond what two cores can do, latency is that of a growing backlog.
fn by_rate() {
    let mut csv = Csv::new("rate", &format!("MB/s written,{COLUMNS}"));
    for rate in [MB / 10, 3 * MB / 10, MB, 3 * MB, 10 * MB, 30 * MB, 100 * MB, 200 * MB] {
        measure(&mut csv, rate as f64 / 1e6, Stream { rate, ..Stream::default() });
    }
    csv.draw();
}

fn measure(csv: &mut Csv, at: f64, stream: Stream<'_>) {
    let taken = stream.measure();
    let rate = taken.bytes as f64 / 1e6 / taken.cpu.as_secs_f64();
    let millis = |percent| taken.percentile(percent).map(|time| time.as_secs_f64() * 1e3);
    csv.row(at, &[Some(rate), Some(megabytes(taken.resident)), millis(50), millis(99)]);
}

/// Larger and larger logs that are there when the agent starts. The latency is that of the last line.
fn by_backlog() {
    let mut csv = Csv::new("backlog", &format!("MB of backlog,{COLUMNS}"));
    let dir = tempfile::tempdir().expect("a temporary directory");
    for size in [1, 10, 100, 1000, 10_000] {
        let log = dir.path().join("app.log");
        let bytes = write(&log, size * MB);
        let (sink, address) = Sink::start();
        let mut agent = Agent::new(address);
        let emptied = agent.empty(&log, &sink);
        let rate = bytes as f64 / 1e6 / emptied.cpu.as_secs_f64();
        let (resident, last) = (megabytes(agent.resident_max()), millis(emptied.wall));
        csv.row(bytes as f64 / 1e6, &[Some(rate), Some(resident), None, Some(last)]);
        drop(agent);
        std::fs::remove_file(log).expect("it was written");
    }
    csv.draw();
}

fn write(path: &Path, bytes: usize) -> usize {
    let text = text::lines(bytes.min(8 << 20), 0);
    let mut file = BufWriter::new(File::create(path).expect("the log of the bench"));
    let times = bytes.div_ceil(8 << 20);
    for _ in 0..times {
        file.write_all(&text).expect("room for the log of the bench");
    }
    file.flush().expect("room for the log of the bench");
    times * text.len()
}

fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
