//! An app that writes at a rate, and what the agent beside it takes.
//!
//! The app writes in chunks of whole lines. The first line of each begins with a mark, which bears
//! the time at which the chunk was written; the endpoint finds the marks, so how late a line comes is
//! known from what was written and what arrived, without asking the agent.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use logferry::base::clock;

use crate::agent::Agent;
use crate::sink::{Arrival, MARK_BYTES, Sink, mark};
use crate::text;

/// Written so often, unless a line is longer than what is due then.
const PERIOD: Duration = Duration::from_millis(10);
/// Longer than a batch waits: what is measured begins when all goes its way.
const SETTLED: Duration = Duration::from_secs(3);

/// What is written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stream<'a> {
    /// Files, in turns.
    pub(crate) files: usize,
    /// Bytes a second, all files together; 0: nothing is written.
    pub(crate) rate: usize,
    /// As in [`text::lines`].
    pub(crate) line_bytes: usize,
    /// Bytes of a chunk, or a little less; 0: what is due in [`PERIOD`].
    pub(crate) chunk_bytes: usize,
    /// Settings of the agent.
    pub(crate) env: &'a [(&'a str, &'a str)],
    /// How long it is measured.
    pub(crate) seconds: u64,
}

impl Default for Stream<'_> {
    fn default() -> Self {
        Self { files: 1, rate: 0, line_bytes: 0, chunk_bytes: 0, env: &[], seconds: 10 }
    }
}

/// What an agent took in some time.
#[derive(Clone, Debug)]
pub(crate) struct Taken {
    pub(crate) wall: Duration,
    pub(crate) cpu: Duration,
    /// Bytes of files that the endpoint got.
    pub(crate) bytes: u64,
    /// Resident memory at the end.
    pub(crate) resident: u64,
    pub(crate) wakeups: u64,
    /// From writing to arrival, sorted.
    pub(crate) latencies: Vec<Duration>,
}

impl Taken {
    /// CPU time in percent of a core.
    pub(crate) fn cpu_percent(&self) -> f64 {
        self.cpu.as_secs_f64() / self.wall.as_secs_f64() * 100.0
    }

    /// The latency that so many of a hundred do not exceed.
    pub(crate) fn percentile(&self, percent: usize) -> Option<Duration> {
        let index = self.latencies.len() * percent / 100;
        self.latencies.get(index.min(self.latencies.len().saturating_sub(1))).copied()
    }
}

impl Stream<'_> {
    /// Starts an agent beside the files, writes, and measures when all goes its way.
    pub(crate) fn measure(&self) -> Taken {
        let (sink, address) = Sink::looking_for_marks();
        let mut agent = Agent::new(address);
        let files = files(&agent.logs(), self.files);
        agent.start(self.env);
        agent.wait_until_delivered();
        thread::scope(|scope| {
            let ends = clock::now() + SETTLED + Duration::from_secs(self.seconds);
            let writer = scope.spawn(move || self.write(&files, ends));
            wait_until(ends - Duration::from_secs(self.seconds));
            let (from, cpu, wakeups) = (clock::wall(), agent.cpu(), agent.wakeups());
            wait_until(ends);
            let mut taken = Taken {
                wall: clock::wall() - from,
                cpu: agent.cpu() - cpu,
                bytes: 0,
                resident: agent.resident(),
                wakeups: agent.wakeups() - wakeups,
                latencies: Vec::new(),
            };
            let chunk_bytes = writer.join().expect("the writer ends");
            taken.latencies = latencies(&sink.arrivals(), from, from + taken.wall);
            taken.bytes = taken.latencies.len() as u64 * chunk_bytes;
            taken
        })
    }

    /// Returns the bytes of a chunk, in the mean.
    fn write(&self, paths: &[PathBuf], ends: std::time::Instant) -> u64 {
        if self.rate == 0 {
            return 0;
        }
        let due = self.rate / usize::try_from(1000 / PERIOD.as_millis()).expect("it is small");
        let chunk_bytes = if self.chunk_bytes > 0 { self.chunk_bytes } else { due };
        let chunk_bytes = chunk_bytes.max(self.line_bytes).max(200);
        let mut chunks = chunks(chunk_bytes, self.line_bytes);
        // A descriptor each would be too many for some systems; a few are kept.
        let mut open: Vec<File> = if paths.len() <= 100 {
            paths.iter().map(|path| append_to(path)).collect()
        } else {
            Vec::new()
        };
        let (started, mut count, mut bytes) = (clock::now(), 0_u32, 0);
        while clock::now() < ends {
            let due = started.elapsed().as_secs_f64() * self.rate as f64 / chunk_bytes as f64;
            while f64::from(count) < due {
                let index = count as usize;
                let of = chunks.len();
                let chunk = &mut chunks[index % of];
                chunk[..MARK_BYTES].copy_from_slice(&mark(clock::wall()));
                match open.get_mut(index % paths.len()) {
                    Some(file) => file.write_all(chunk),
                    None => append_to(&paths[index % paths.len()]).write_all(chunk),
                }
                .expect("the log can be written");
                bytes += chunk.len() as u64;
                count += 1;
            }
            thread::park_timeout(PERIOD.min(Duration::from_millis(2)));
        }
        bytes / u64::from(count).max(1)
    }
}

/// So many files, a hundred in a directory, each with a line.
pub(crate) fn files(logs: &Path, count: usize) -> Vec<PathBuf> {
    let path = |number| {
        let dir = logs.join(format!("{:03}", number / 100));
        if number % 100 == 0 {
            fs::create_dir(&dir).expect("a directory");
        }
        let path = dir.join(format!("app-{number}.log"));
        fs::write(&path, "the first line\n").expect("a log");
        path
    };
    (0..count).map(path).collect()
}

pub(crate) fn append_to(path: &Path) -> File {
    File::options().append(true).create(true).open(path).expect("the log can be opened")
}

/// Different pieces of whole lines.
fn chunks(chunk_bytes: usize, line_bytes: usize) -> Vec<Vec<u8>> {
    let text = text::lines((8 << 20).max(4 * chunk_bytes), line_bytes);
    let (mut chunks, mut rest) = (Vec::new(), &text[..]);
    while rest.len() > chunk_bytes {
        let end = memchr::memrchr(b'\n', &rest[..chunk_bytes]).expect("a line fits into a chunk");
        chunks.push(rest[..=end].to_vec());
        rest = &rest[end + 1..];
    }
    chunks
}

/// Of the marks that came between two moments, sorted.
pub(crate) fn latencies(arrivals: &[Arrival], from: Duration, to: Duration) -> Vec<Duration> {
    let came = arrivals.iter().filter(|mark| (from..to).contains(&mark.arrived));
    let mut latencies: Vec<Duration> =
        came.map(|mark| mark.arrived.saturating_sub(mark.written)).collect();
    latencies.sort_unstable();
    latencies
}

pub(crate) fn wait_until(moment: std::time::Instant) {
    loop {
        let left = moment.saturating_duration_since(clock::now());
        if left.is_zero() {
            return;
        }
        thread::park_timeout(left);
    }
}
