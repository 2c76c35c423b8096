//! The machine that the agent runs on: time, disks, network, and what goes wrong with them.
//!
//! Each call of the agent passes through here and takes a little time, and at each an app may meddle: so
//! files change between any two of its system calls.

use std::collections::BTreeMap;
use std::io;
use std::time::{Duration, Instant};

use logferry::base::sealed::BatchId;
use logferry::send::answer::Answer;
use logferry::send::dispatch::Load;
use rustix::io::Errno;

use crate::disk::{Disk, NodeId};
use crate::flaws::Flaw;
use crate::invariants::Ledger;
use crate::keep::StateDir;
use crate::server::Server;
use crate::workload::Workload;

/// Unix time at the start of every world.
const UNIX_START: u64 = 1_700_000_000;

/// More calls than any world needs.
const CALLS_MAX: u64 = 1_000_000;

/// What happens at a given time.
pub enum Event {
    /// An app, or who looks after its files.
    Act(usize),
    Store((u32, BatchId)),
    Answer {
        life: u32,
        load: Load,
        offset: i64,
        answer: Option<Answer>,
        is_cut: bool,
    },
    Start,
    Kill,
    Drain,
    Abandon(u32),
    /// The volume of the logs comes, late.
    Mount,
    Check,
}

pub struct Machine {
    pub now: Instant,
    pub start: Instant,
    /// How far the wall clock was set forward, or back, in nanoseconds.
    pub wall_ahead: i64,
    pub cpu: Duration,
    pub disk: Disk,
    pub state: StateDir,
    pub workload: Workload,
    pub ledger: Ledger,
    pub server: Server,
    pub events: BTreeMap<(Instant, u64), Event>,
    pub next_event: u64,
    pub chaos: Chaos,
    pub trace: Trace,
    pub flaw: Option<Flaw>,
    pub rng: fastrand::Rng,
    /// How often the agent has asked the system.
    pub calls: u64,
}

/// Chances of what goes wrong on the machine.
pub struct Chaos {
    meddling: f64,
    /// Acts of meddling left: each gives the agent more to do, and so more chances for others.
    meddling_left: u32,
    io_errors: f64,
    pub save_errors: f64,
    /// Whether writers of a file can be asked for, and whether there is a `/proc`.
    pub knows_writers: bool,
    pub has_proc: bool,
    /// Files that cannot be read for a while.
    bad_until: BTreeMap<NodeId, Instant>,
    pub rng: fastrand::Rng,
}

impl Chaos {
    pub fn new(rng: &mut fastrand::Rng) -> Self {
        Self {
            meddling: [0.0, 0.005, 0.03][rng.usize(..3)],
            meddling_left: 300,
            io_errors: [0.0, 0.0, 0.01][rng.usize(..3)],
            save_errors: [0.0, 0.0, 0.1][rng.usize(..3)],
            knows_writers: rng.bool(),
            has_proc: rng.u8(..8) > 0,
            bad_until: BTreeMap::new(),
            rng: rng.fork(),
        }
    }

    /// From now on nothing goes wrong.
    pub fn end(&mut self) {
        (self.meddling, self.io_errors, self.save_errors) = (0.0, 0.0, 0.0);
        self.bad_until.clear();
    }
}

/// All that happened, in order: its hash, and on request its text.
pub struct Trace {
    pub hash: u64,
    is_printed: bool,
}

impl Trace {
    pub fn new(is_printed: bool) -> Self {
        Self { hash: 0xcbf2_9ce4_8422_2325, is_printed }
    }
}

impl Machine {
    /// Something is to happen later.
    pub fn plan(&mut self, after: Duration, event: Event) {
        self.events.insert((self.now + after, self.next_event), event);
        self.next_event += 1;
    }

    /// Notes what happened: numbers that make the trace, and words for whoever reads it.
    pub fn note(&mut self, what: &str, numbers: [u64; 3], words: impl FnOnce(&Self) -> String) {
        let at = u64::try_from((self.now - self.start).as_nanos()).unwrap_or(u64::MAX);
        if self.trace.is_printed {
            eprintln!("{:>11.6} {what} {numbers:?} {}", at as f64 / 1e9, words(self));
        }
        for number in [at, what.len() as u64].into_iter().chain(numbers) {
            self.trace.hash =
                (self.trace.hash ^ number).wrapping_mul(0x0100_0000_01b3).rotate_left(5);
        }
    }

    pub fn wall(&self) -> Duration {
        let ahead = (UNIX_START.cast_signed() * 1_000_000_000) + self.wall_ahead;
        Duration::from_nanos(ahead.cast_unsigned()) + (self.now - self.start)
    }

    pub fn unix(&self) -> u64 {
        self.wall().as_secs()
    }

    pub fn set_time(&mut self, now: Instant) {
        self.now = now;
        self.disk.wall = i64::try_from(self.wall().as_nanos()).expect("it is not that late");
    }

    /// A call of the agent: it takes its time, and an app does something just then.
    pub fn on_call(&mut self) {
        self.calls += 1;
        assert!(self.calls < CALLS_MAX, "the agent asks the system without end");
        let took = Duration::from_micros(self.chaos.rng.u64(1..20));
        self.cpu += took;
        self.set_time(self.now + took);
        self.meddle();
    }

    /// An app does something just now.
    pub fn meddle(&mut self) {
        if self.chaos.meddling_left > 0 && self.chaos.rng.f64() < self.chaos.meddling {
            self.chaos.meddling_left -= 1;
            self.act(None);
        }
    }

    /// Something that one app does, or any, or that is done to its files.
    pub fn act(&mut self, app: Option<usize>) {
        let is_out = self.server.is_out(self.now);
        let acted = self.workload.act(app, &mut self.disk, &mut self.ledger, is_out);
        if let Some(words) = acted {
            self.note("act", [app.unwrap_or(99) as u64, words.len() as u64, 0], |_| words);
        }
        self.disk.reap();
    }

    /// The volume of the logs comes or goes.
    pub fn set_mounted(&mut self, is_there: bool) {
        if self.workload.is_away == is_there {
            self.note("mount", [u64::from(is_there), 0, 0], |_| String::new());
            self.disk.mount(is_there);
            self.workload.is_away = !is_there;
        }
    }

    /// Fails by chance; a file that fails once often goes on to.
    pub fn try_file(&mut self, node: NodeId) -> io::Result<()> {
        let Chaos { rng, io_errors, bad_until, .. } = &mut self.chaos;
        let is_bad = bad_until.get(&node).is_some_and(|until| self.now < *until);
        if *io_errors == 0.0 || (!is_bad && rng.f64() >= *io_errors) {
            return Ok(());
        }
        if !is_bad && rng.bool() {
            let while_bad = Duration::from_millis(rng.u64(1..10_000));
            bad_until.insert(node, self.now + while_bad);
        }
        self.ledger.on_fault(node, &self.disk);
        self.note("io error", [node as u64, 0, 0], |_| String::new());
        Err(Errno::IO.into())
    }

    // === the network

    /// A request leaves. What it comes to will not be undone by the death of who sent it.
    pub fn request(&mut self, life: u32, load: Load, offset: i64) {
        let unix = self.unix().cast_signed();
        let fate = self.server.on_request(&load, unix + offset, unix, self.now);
        if let Some(after) = fate.stored_after {
            for batch in &load.batches {
                self.plan(after, Event::Store((life, batch.id)));
            }
        }
        let (answer, is_cut) = (fate.answer, fate.is_cut);
        self.plan(fate.answered_after, Event::Answer { life, load, offset, answer, is_cut });
    }
}
