//! A long run under all troubles at once: `cargo bench --bench soak [-- MINUTES]` (20).
//!
//! Three apps write and rotate: by renaming, by copying and truncating, by renaming and compressing.
//! The endpoint has faults that come and go. The agent is stopped and killed and started again until
//! two fifths of the time are over; from then on it is one process, so that what grows can be seen.
//! Each five seconds: memory, descriptors, threads, lag; they go to `docs/performance/soak.csv` and a
//! drawing of it.
//!
//! It fails if a line that was written has not arrived at the end, if the agent finds fault with
//! itself, or if memory or descriptors rise in the last two fifths.

#[allow(dead_code, reason = "several benches share it")]
mod agent;
mod apps;
mod plot;
#[allow(dead_code, reason = "several benches share it")]
mod sink;

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use agent::Agent;
use apps::{APPS, App, Arrived};
use fastrand::Rng;
use logferry::base::clock;
use logferry_mock::{self as mock, Background, Fault};
use plot::Csv;

const SAMPLE: Duration = Duration::from_secs(5);
/// Between two deaths, while there are some.
const LIFE: Duration = Duration::from_secs(15);
/// How long the endpoint is well, and ill.
const SPELL: std::ops::Range<u64> = 5..20;
/// The last lines have so long to arrive.
const PATIENCE: Duration = Duration::from_secs(120);

/// A new process may grow so long: until there are as many rotated files as will ever be.
const SETTLED: Duration = Duration::from_secs(120);
/// Fewer samples than these say nothing of growth.
const SAMPLES_MIN: usize = 10;

/// What the endpoint has, one after the other, in an order that a seed says. Empty: it is down.
const FAULTS: [&str; 9] = [
    "",
    "error:code=ServerBusy,probability=0.5",
    "error:code=InternalServerError,probability=0.9",
    "error:code=WriteQuotaExceed,retry_after=2,probability=0.7",
    "hang:probability=0.2",
    "cut_before:probability=0.5",
    "cut_after:probability=0.3",
    "delay:ms=400",
    "quota:bytes_per_second=600000",
];

/// Most growth of a median line through the last two fifths.
const RESIDENT_GROWTH_MAX: f64 = 3.0;
const DESCRIPTORS_GROWTH_MAX: f64 = 4.0;

fn main() -> ExitCode {
    let minutes = std::env::args().find_map(|word| word.parse().ok()).unwrap_or(20);
    let soak = Soak::new(Duration::from_secs(60 * minutes));
    let faults = soak.run();
    for fault in &faults {
        eprintln!("soak: {fault}");
    }
    if faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

struct Soak {
    agent: Agent,
    mock: Background,
    arrived: Arrived,
    rng: Rng,
    started: Instant,
    agent_started: Instant,
    length: Duration,
    csv: Csv,
    /// Of the last two fifths: seconds, resident MB, descriptors.
    samples: Vec<[f64; 3]>,
    /// How often the agent was stopped, and killed.
    stops: u32,
    kills: u32,
    /// What was wrong so far.
    wrong: Vec<String>,
}

/// What happens next, and when.
struct Plan {
    sample: Instant,
    death: Instant,
    /// The endpoint falls ill, or is well again.
    turn: Instant,
    is_ill: bool,
}

impl Soak {
    fn new(length: Duration) -> Self {
        // Lines are counted as they come; the mock forgets them.
        let options = mock::Options { memory_bytes_max: 256 << 20, ..mock::Options::default() };
        let mock = Background::start(options).expect("the endpoint starts");
        Self {
            agent: Agent::new(mock.address()),
            mock,
            arrived: Arrived::default(),
            rng: Rng::with_seed(1),
            started: clock::now(),
            agent_started: clock::now(),
            length,
            csv: Csv::new("soak", "seconds,resident MB,descriptors,threads,lag MB"),
            samples: Vec::new(),
            stops: 0,
            kills: 0,
            wrong: Vec::new(),
        }
    }

    /// All that was wrong.
    fn run(mut self) -> Vec<String> {
        self.start_agent();
        let (logs, is_over) = (self.agent.logs(), AtomicBool::new(false));
        let written: Vec<u32> = thread::scope(|scope| {
            let write = |app: App| app.write(&logs, &is_over);
            let apps: Vec<_> = APPS.map(|app| scope.spawn(move || write(app))).into();
            self.live();
            is_over.store(true, Ordering::Relaxed);
            apps.into_iter().map(|app| app.join().expect("an app ends")).collect()
        });
        self.finish(&written);
        self.csv.draw();
        self.judge_growth();
        self.wrong
    }

    fn start_agent(&mut self) {
        self.agent_started = clock::now();
        self.agent.start(&[("LOGFERRY_LOG", "info")]);
    }

    fn live(&mut self) {
        let now = clock::now();
        let mut plan =
            Plan { sample: now + SAMPLE, death: now + LIFE, turn: now + LIFE, is_ill: false };
        while self.started.elapsed() < self.length {
            let next = plan.sample.min(plan.death).min(plan.turn);
            // Arrivals are counted before the mock forgets them.
            let left = next.saturating_duration_since(clock::now());
            thread::park_timeout(left.min(Duration::from_millis(200)));
            self.arrived.take(&self.mock);
            let now = clock::now();
            if now >= plan.sample {
                plan.sample += SAMPLE;
                self.sample();
            }
            if now >= plan.turn {
                plan.is_ill = !plan.is_ill;
                plan.turn = now + Duration::from_secs(self.rng.u64(SPELL));
                self.turn(plan.is_ill);
            }
            if now >= plan.death {
                let is_restarting = self.started.elapsed() < self.length * 2 / 5;
                plan.death = if is_restarting { now + LIFE } else { now + self.length };
                if is_restarting {
                    self.restart();
                }
            }
        }
        self.turn(false);
    }

    fn turn(&mut self, is_ill: bool) {
        self.mock.faults().clear();
        self.mock.resume().expect("nobody takes the port of an endpoint that is down for a moment");
        if is_ill {
            match *self.rng.choice(&FAULTS).expect("there are faults") {
                "" => self.mock.stop(),
                fault => {
                    let fault: Fault = fault.parse().expect("a fault as the mock knows it");
                    self.mock.faults().add(Fault { seed: self.rng.u64(..), ..fault });
                }
            }
        }
    }

    fn restart(&mut self) {
        if self.rng.bool() {
            self.kills += 1;
            self.agent.kill();
        } else {
            self.stops += 1;
            // 75: the endpoint was ill until the deadline.
            let code = self.agent.stop();
            if ![Some(0), Some(75)].contains(&code) {
                self.wrong.push(format!("the agent ended with {code:?}"));
            }
        }
        self.start_agent();
    }

    fn sample(&mut self) {
        self.agent.expect_alive();
        let at = self.started.elapsed().as_secs_f64();
        let resident = self.agent.resident() as f64 / 1e6;
        let descriptors = self.agent.descriptors() as f64;
        let threads = self.agent.threads() as f64;
        let lag = self.agent.metric("logferry_lag_bytes").map(|bytes| bytes as f64 / 1e6);
        self.csv.row(at.round(), &[Some(resident), Some(descriptors), Some(threads), lag]);
        if at > self.length.as_secs_f64() * 0.6 && self.agent_started.elapsed() > SETTLED {
            self.samples.push([at, resident, descriptors]);
        }
    }

    /// Waits for the last lines, stops the agent, and compares.
    fn finish(&mut self, written: &[u32]) {
        let deadline = clock::now() + PATIENCE;
        while self.arrived.missing(written) > 0 && clock::now() < deadline {
            thread::park_timeout(Duration::from_millis(200));
            self.arrived.take(&self.mock);
        }
        let unbalanced = self.agent.metric("logferry_generations_unbalanced_total");
        let code = self.agent.stop();
        self.arrived.take(&self.mock);
        let (lines, repeats) = (written.iter().sum::<u32>(), self.arrived.repeats());
        let missing = self.arrived.missing(written);
        println!(
            "{lines} lines written, {missing} missing, {repeats} more than once; {} stops, {} kills",
            self.stops, self.kills
        );
        println!("faults that the endpoint played: {:?}", self.mock.store().counts().faults);
        let mut find = |is_wrong: bool, what: String| is_wrong.then(|| self.wrong.push(what));
        find(missing > 0, format!("{missing} lines are missing"));
        find(code != Some(0), format!("the last agent ended with {code:?}"));
        find(unbalanced != Some(0), format!("unbalanced generations: {unbalanced:?}"));
        find(self.arrived.forgotten, "the mock forgot lines before they were counted".to_owned());
        for (line, what) in self.agent.log().lines().filter_map(complaint) {
            find(true, format!("{what}: {line}"));
        }
        if !self.wrong.is_empty() {
            let log = std::env::temp_dir().join("logferry-soak.log");
            let kept = std::fs::write(&log, self.agent.log());
            self.wrong.push(format!("the agent's log: {} ({kept:?})", log.display()));
            self.wrong.extend(self.arrived.gaps(written));
        }
    }

    fn judge_growth(&mut self) {
        if self.samples.len() < SAMPLES_MIN {
            self.wrong.push("too short to see what grows: at least 5 minutes".to_owned());
            return;
        }
        for (index, name, most) in
            [(1, "MB of memory", RESIDENT_GROWTH_MAX), (2, "descriptors", DESCRIPTORS_GROWTH_MAX)]
        {
            let growth = growth(&self.samples, index);
            println!("growth over the last two fifths: {growth:+.2} {name}");
            if growth > most {
                self.wrong.push(format!("{growth:.2} {name} more than in the beginning"));
            }
        }
    }
}

/// What the agent must never say.
fn complaint(line: &str) -> Option<(&str, &'static str)> {
    let is = |text: &str| line.contains(text);
    let what = if is("panicked") {
        "a panic"
    } else if is("the bytes of a file do not add up") {
        "an account that does not add up"
    } else {
        return None;
    };
    Some((line, what))
}

/// How much a column rises from the first sample to the last, along the median of the slopes between
/// all pairs (Theil and Sen's line): single peaks, as of an endpoint that was down, do not matter.
fn growth(samples: &[[f64; 3]], column: usize) -> f64 {
    let mut slopes: Vec<f64> = samples
        .iter()
        .enumerate()
        .flat_map(|(at, one)| samples[at + 1..].iter().map(move |other| (one, other)))
        .map(|(one, other)| (other[column] - one[column]) / (other[0] - one[0]))
        .collect();
    slopes.sort_unstable_by(f64::total_cmp);
    let length = samples.last().map_or(0.0, |last| last[0] - samples[0][0]);
    slopes.get(slopes.len() / 2).map_or(0.0, |slope| slope * length)
}
