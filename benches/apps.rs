//! Apps that write numbered lines and rotate their logs, and the account of which lines have come.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use logferry::base::clock;
use logferry_mock::Background;

/// How a log is rotated.
#[derive(Clone, Copy, Debug)]
enum Rotation {
    /// Renamed; the app goes on in a new file.
    Rename,
    /// Copied and emptied; the app keeps its descriptor.
    CopyTruncate,
    /// Renamed, and compressed one rotation later.
    Gzip,
}

/// An app with one log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct App {
    name: &'static str,
    rotation: Rotation,
}

pub(crate) const APPS: [App; 3] = [
    App { name: "rename", rotation: Rotation::Rename },
    App { name: "copytruncate", rotation: Rotation::CopyTruncate },
    App { name: "gzip", rotation: Rotation::Gzip },
];

const PERIOD: Duration = Duration::from_millis(10);
/// Lines of some 150 bytes each period: 300 KB/s an app.
const LINES: u32 = 20;
/// Between two rotations, 3 MB.
const ROTATION: u32 = 1000;
/// Rotated files kept: for longer than any outage and what follows from it.
const KEPT: usize = 8;

impl App {
    /// Writes and rotates until it is over. How many lines it wrote.
    pub(crate) fn write(self, logs: &Path, is_over: &AtomicBool) -> u32 {
        let log = logs.join(format!("{}.log", self.name));
        let (mut file, mut count, mut periods) = (append_to(&log), 0, 0);
        let started = clock::now();
        while !is_over.load(Ordering::Relaxed) {
            let mut text = Vec::new();
            for _ in 0..LINES {
                let (name, width) = (self.name, 60 + (count as usize * 37) % 180);
                let _ = writeln!(text, "{name} {count} {:x<width$}", started.elapsed().as_nanos());
                count += 1;
            }
            file.write_all(&text).expect("the log can be written");
            periods += 1;
            if periods % ROTATION == 0 {
                self.rotate(&log);
                file = append_to(&log);
            }
            // May end early; then it writes a little more.
            let due = started + PERIOD * periods;
            thread::park_timeout(due.saturating_duration_since(clock::now()));
        }
        count
    }

    fn rotate(self, log: &Path) {
        for number in (1..=KEPT).rev() {
            for end in ["", ".gz"] {
                let from = generation(log, number, end);
                // Most of them are not there.
                let _ = match number {
                    KEPT => fs::remove_file(from),
                    _ => fs::rename(from, generation(log, number + 1, end)),
                };
            }
        }
        let newest = generation(log, 1, "");
        match self.rotation {
            Rotation::Rename => fs::rename(log, newest).expect("the log is there"),
            Rotation::CopyTruncate => {
                fs::copy(log, newest).expect("the log can be copied");
                let file = File::options().write(true).open(log).expect("the log is there");
                file.set_len(0).expect("the log can be emptied");
            }
            Rotation::Gzip => {
                fs::rename(log, newest).expect("the log is there");
                let before = generation(log, 2, "");
                if before.exists() {
                    let status = Command::new("gzip").arg(before).status();
                    assert!(status.expect("gzip is installed").success(), "gzip");
                }
            }
        }
    }
}

/// `app.log.N`, `app.log.N.gz`.
fn generation(log: &Path, number: usize, end: &str) -> PathBuf {
    let mut name = log.as_os_str().to_owned();
    name.push(format!(".{number}{end}"));
    name.into()
}

fn append_to(path: &Path) -> File {
    File::options().append(true).create(true).open(path).expect("the log can be opened")
}

/// Which lines have come, by their numbers.
#[derive(Debug, Default)]
pub(crate) struct Arrived {
    /// How often each line of each app came.
    times: [Vec<u32>; APPS.len()],
    /// Number of the next group of the mock.
    next_group: u64,
    /// The mock has forgotten some before they were counted here.
    pub(crate) forgotten: bool,
}

impl Arrived {
    /// Counts what the endpoint has got since the last time.
    pub(crate) fn take(&mut self, mock: &Background) {
        for group in mock.store().groups() {
            if group.number < self.next_group {
                continue;
            }
            self.forgotten |= group.number > self.next_group;
            self.next_group = group.number + 1;
            for entry in group.logs() {
                self.count(&String::from_utf8_lossy(&entry.line()));
            }
        }
    }

    fn count(&mut self, line: &str) {
        let mut words = line.split(' ');
        let name = words.next().unwrap_or_default();
        let number = words.next().and_then(|word| word.parse::<usize>().ok());
        let app = APPS.iter().position(|app| app.name == name);
        let (app, number) = app.zip(number).expect("only whole lines of the apps arrive");
        let times = &mut self.times[app];
        times.resize(times.len().max(number + 1), 0);
        times[number] += 1;
    }

    /// How many of the lines that each app wrote have not come.
    pub(crate) fn missing(&self, written: &[u32]) -> usize {
        self.lost(written).count()
    }

    /// Where they are: the first line of each gap, and how many in a row are missing.
    pub(crate) fn gaps(&self, written: &[u32]) -> Option<String> {
        let mut gaps: Vec<(&str, usize, usize)> = Vec::new();
        for (app, line) in self.lost(written) {
            match gaps.last_mut() {
                Some((of, first, count)) if *of == app && *first + *count == line => *count += 1,
                _ => gaps.push((app, line, 1)),
            }
        }
        let texts = gaps.iter().map(|(app, first, count)| format!("{app} {first} +{count}"));
        let texts: Vec<String> = texts.take(50).collect();
        (!texts.is_empty()).then(|| format!("missing: {}", texts.join(", ")))
    }

    fn lost(&self, written: &[u32]) -> impl Iterator<Item = (&'static str, usize)> {
        APPS.iter().zip(&self.times).zip(written).flat_map(|((app, times), &written)| {
            let has_come = |line: usize| times.get(line).is_some_and(|&times| times > 0);
            (0..written as usize).filter(move |&line| !has_come(line)).map(|line| (app.name, line))
        })
    }

    /// How many lines have come more than once.
    pub(crate) fn repeats(&self) -> usize {
        self.times.iter().flatten().filter(|&&times| times > 1).count()
    }
}
