//! One seed's world: a machine with a disk and apps on it, a service, and an agent that dies and
//! comes back.
//!
//! Time jumps from event to event. A world has three parts: the *storm*, in which anything may
//! happen; the *calm*, in which the service is well and the agent must deliver all that is owed;
//! and a last drain.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use logferry::base::fingerprint::{HEAD_BYTES_MAX, TAIL_BYTES_MAX};
use logferry::batch;
use logferry::line::split::lookahead;
use logferry_wire::Compression;

use crate::agent::{Agent, Flaw, Options, STEPS};
use crate::disk::{Disk, StateDir};
use crate::invariants::{Bounds, Counts, Ledger};
use crate::machine::{Chaos, Event, Machine, Trace};
use crate::server::Server;
use crate::workload::Workload;

/// Once the service is well, something must be delivered in any such time, until all is: a hung
/// request, the longest pause of the queue and that of a batch which stepped back, twice.
const CALM: Duration = Duration::from_secs(150);
const DRAIN_DEADLINE: Duration = Duration::from_secs(25);
/// Steps of the loop in a row, in so short a time, that came to nothing: it spins.
const IDLE_STEPS_MAX: u32 = 400;
const IDLE_TIME: Duration = Duration::from_secs(2);

/// What a good run tells.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tale {
    /// Hash of everything that happened, in order.
    pub trace: u64,
    pub counts: Counts,
    pub kills: u64,
    pub power_losses: u64,
    pub drains_done: u64,
    pub drains_cut: u64,
    pub rotations: u64,
    pub truncations: u64,
    pub deletions: u64,
}

/// Runs one seed; the error is the first invariant that was broken.
pub fn run(seed: u64, flaw: Option<Flaw>, is_printed: bool) -> Result<Tale, String> {
    let mut world = World::new(seed, flaw, is_printed);
    world.storm();
    world.calm();
    world.part();
    let World { machine, mut tale, .. } = world;
    if let Some(violation) = machine.ledger.violation {
        return Err(violation);
    }
    tale.trace = machine.trace.hash;
    tale.counts = machine.ledger.counts;
    tale.rotations = machine.workload.rotations;
    tale.truncations = machine.workload.truncations;
    tale.deletions = machine.workload.deletions;
    Ok(tale)
}

struct World {
    machine: Machine,
    agent: Option<Agent>,
    options: Options,
    flaw: Option<Flaw>,
    rng: fastrand::Rng,
    lives: u32,
    /// The loop is busy until then.
    free_at: Instant,
    /// Steps that the agent may still take before it dies.
    dies_in: Option<u32>,
    drain: Option<Drain>,
    is_storm: bool,
    idle: (u32, Instant),
    tale: Tale,
}

struct Drain {
    deadline: Instant,
    /// What stood on the disk when it was asked for.
    promised: Vec<(usize, u64)>,
    /// The service is well and there is time enough.
    is_easy: bool,
}

impl World {
    fn new(seed: u64, flaw: Option<Flaw>, is_printed: bool) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        // Any instant will do: only differences count.
        let start = logferry::base::clock::now();
        let storm = Duration::from_secs(rng.u64(20..90));
        let options = options(&mut rng);
        let mut disk = Disk::default();
        disk.watch.works = rng.u8(..5) > 0;
        disk.watch.events_max = if rng.u8(..4) == 0 { 6 } else { 1000 };
        let machine = Machine {
            now: start,
            start,
            disk,
            state: StateDir::default(),
            workload: Workload::new(rng.fork(), options.bounds.line_bytes_max),
            ledger: Ledger::new(options.bounds.clone()),
            server: Server::new(rng.fork(), start, storm),
            events: BTreeMap::new(),
            next_event: 0,
            chaos: Chaos::new(&mut rng),
            trace: Trace::new(is_printed),
            head_generation: 0,
        };
        let (agent, lives, free_at, dies_in, drain) = (None, 0, start, None, None);
        let (idle, tale, is_storm) = ((0, start), Tale::default(), true);
        let mut world = Self {
            machine,
            agent,
            options,
            flaw,
            rng,
            lives,
            free_at,
            dies_in,
            drain,
            is_storm,
            idle,
            tale,
        };
        world.plan(storm);
        world
    }

    fn plan(&mut self, storm: Duration) {
        let (rng, machine) = (&mut self.rng, &mut self.machine);
        for writer in 0..machine.workload.len() {
            let pace = [20, 100, 400, 1500][rng.usize(..4)];
            let mut at = Duration::ZERO;
            let mut left = 400;
            while at < storm && left > 0 {
                machine.plan(at, Event::Write(writer));
                at += Duration::from_millis(rng.u64(1..2 * pace));
                left -= 1;
                // Now and then it is quiet for long enough for an unfinished line to be sent.
                at += Duration::from_secs(if rng.u8(..60) == 0 { 6 } else { 0 });
            }
        }
        machine.plan(Duration::from_millis(rng.u64(..2000)), Event::Start);
        for _ in 0..rng.u32(..7) {
            machine.plan(storm.mul_f64(rng.f64()), Event::Kill);
        }
        for _ in 0..rng.u32(..4) {
            machine.plan(storm.mul_f64(rng.f64()), Event::Drain);
        }
        machine.plan(storm, Event::Check);
    }

    // === the three parts

    fn storm(&mut self) {
        self.run_until(|world| !world.is_storm);
    }

    fn calm(&mut self) {
        self.machine.note("calm", 0, 0, 0);
        let machine = &mut self.machine;
        machine.server.heal();
        machine.chaos.end();
        machine.workload.finish(&mut machine.disk);
        machine.plan(Duration::from_millis(500), Event::Check);
        let (mut stored, mut end, last) = (0, machine.now + CALM, machine.now + 20 * CALM);
        self.run_until(|world| {
            let machine = &mut world.machine;
            if std::mem::replace(&mut stored, machine.ledger.counts.stored) < stored {
                end = last.min(machine.now + CALM);
            }
            let is_settled = machine.ledger.unsettled(&machine.disk).is_none();
            let is_up = world.agent.is_some() && world.drain.is_none() && world.dies_in.is_none();
            (is_settled && is_up) || machine.now >= end
        });
        if let Some((generation, covered, owed)) = self.machine.ledger.unsettled(&self.machine.disk)
        {
            let inode = self.machine.disk.generations[generation].inode;
            let name = self.machine.disk.name_of(inode).unwrap_or("(deleted)").to_owned();
            self.machine.ledger.fail(|| {
                format!("{name}, generation {generation}, is delivered up to {covered} of {owed}")
            });
        }
        if self.rng.u8(..8) == 0 {
            self.outlast_rotated_files();
        }
    }

    /// Files that the patterns do not find are let go of in the end.
    fn outlast_rotated_files(&mut self) {
        let quiet = logferry::tail::registry::ROTATED_QUIET + Duration::from_secs(10);
        let end = self.machine.now + quiet;
        self.machine.plan(quiet, Event::Check);
        self.run_until(|world| world.machine.now >= end);
        let held = self.agent.as_ref().map_or(0, Agent::held_files);
        if held > 0 {
            self.machine.ledger.fail(|| format!("{held} files are held for ever"));
        }
    }

    fn part(&mut self) {
        self.machine.plan(Duration::ZERO, Event::Drain);
        let lives = self.lives;
        self.run_until(|world| world.agent.is_none() || world.lives > lives);
    }

    // === the course of time

    fn run_until(&mut self, mut is_over: impl FnMut(&mut Self) -> bool) {
        while self.machine.ledger.violation.is_none() && !is_over(self) {
            let machine = &mut self.machine;
            let event_at = machine.events.keys().next().map(|(at, _)| *at);
            let (has_events, now) = (machine.disk.watch.has_events(), machine.now);
            let loop_at = self.agent.as_ref().and_then(|agent| agent.wake_at(has_events, now));
            let loop_at = loop_at.map(|at| at.max(self.free_at));
            let send_at = self.agent.as_ref().and_then(Agent::send_deadline);
            let Some(at) = [event_at, loop_at, send_at].into_iter().flatten().min() else {
                return machine.ledger.fail(|| "nothing will ever happen again".to_owned());
            };
            machine.now = now.max(at);
            if event_at.is_some_and(|at| at <= machine.now) {
                let (_, event) = machine.events.pop_first().expect("it was just seen");
                self.on_event(event);
            } else if loop_at.is_some_and(|at| at <= machine.now) {
                self.run_loop();
            }
            if let Some(agent) = &mut self.agent {
                agent.send(&mut self.machine);
            }
        }
    }

    fn on_event(&mut self, event: Event) {
        let machine = &mut self.machine;
        match event {
            Event::Write(writer) => {
                machine.workload.act(writer, &mut machine.disk, &mut machine.ledger);
            }
            Event::Store(batch) => {
                machine.note("store", u64::from(batch.0), batch.1.0, 0);
                machine.ledger.on_stored(batch, &machine.disk);
            }
            Event::Answer { life, load, offset, answer } => {
                let status = answer.as_ref().map_or(0, |answer| u64::from(answer.status));
                machine.note("answer", u64::from(life), load.request.0, status);
                if let Some(agent) = self.agent.as_mut().filter(|agent| agent.life == life) {
                    agent.on_answer(&load, offset, answer, machine);
                }
            }
            Event::Start => self.start(),
            Event::Kill if self.agent.is_some() && self.is_storm => {
                // Most often in the middle of things.
                self.dies_in = Some(self.rng.u32(..20));
            }
            Event::Kill => {}
            Event::Drain => self.begin_drain(),
            Event::Abandon(life) => {
                if let Some(agent) = self.agent.as_mut().filter(|agent| agent.life == life) {
                    agent.abandon(machine.now);
                }
            }
            Event::Check => {
                if self.is_storm {
                    self.is_storm = false;
                } else {
                    machine.plan(Duration::from_millis(500), Event::Check);
                }
            }
        }
    }

    /// One iteration of the collector's loop, in steps between which the agent may die.
    fn run_loop(&mut self) {
        let Some(mut agent) = self.agent.take() else { return };
        for step in STEPS {
            if self.dies_in == Some(0) {
                self.dies_in = None;
                drop(agent);
                return self.die();
            }
            self.dies_in = self.dies_in.map(|left| left - 1);
            self.machine.meddle();
            let is_over = agent.step(step, &mut self.machine);
            self.machine.ledger.on_unlinked(&mut self.machine.disk);
            if is_over {
                return self.end_drain(agent);
            }
        }
        self.check_idling(&mut agent);
        self.free_at = self.machine.now + Duration::from_micros(self.rng.u64(100..2000));
        self.agent = Some(agent);
        self.check_deadline();
    }

    fn check_idling(&mut self, agent: &mut Agent) {
        let now = self.machine.now;
        if std::mem::take(&mut agent.progress) > 0 {
            self.idle = (0, now);
        }
        self.idle.0 += 1;
        if self.idle.0 > IDLE_STEPS_MAX {
            if now - self.idle.1 < IDLE_TIME {
                self.machine.ledger.fail(|| "the loop spins: it wakes for nothing".to_owned());
            }
            self.idle = (0, now);
        }
    }

    // === lives

    fn start(&mut self) {
        if self.agent.is_some() {
            return;
        }
        let machine = &mut self.machine;
        match self.rng.u8(..20) {
            0..=2 => {
                machine.disk.device += 1;
                machine.ledger.on_remounted();
            }
            3 => {
                machine.disk.copy_elsewhere();
                machine.ledger.on_copied();
            }
            _ => {}
        }
        machine.note("start", u64::from(self.lives), machine.disk.device, 0);
        machine.ledger.on_start(&machine.disk);
        let loaded = machine.state.load();
        machine.state.save(&loaded, true);
        let (options, rng) = (self.options.clone(), self.rng.fork());
        self.agent = Some(Agent::new(options, self.flaw, self.lives, loaded, rng, machine.now));
        self.lives += 1;
        self.free_at = machine.now;
    }

    /// The agent is gone, and perhaps the machine with it.
    fn die(&mut self) {
        let is_power_lost = self.rng.u8(..3) == 0;
        let machine = &mut self.machine;
        machine.note("die", u64::from(is_power_lost), 0, 0);
        let is_fast_lost = is_power_lost && !machine.state.lose_power(&mut self.rng);
        self.tale.kills += 1;
        self.tale.power_losses += u64::from(is_fast_lost);
        self.bury(is_fast_lost);
    }

    fn bury(&mut self, is_fast_lost: bool) {
        self.drain = None;
        self.dies_in = None;
        let machine = &mut self.machine;
        machine.disk.watch.disarm();
        machine.ledger.on_death(is_fast_lost, &mut machine.disk);
        let away = [50, 1000, 20_000][self.rng.usize(..3)];
        machine.plan(Duration::from_millis(self.rng.u64(1..away)), Event::Start);
    }

    fn begin_drain(&mut self) {
        let Some(agent) = self.agent.as_mut().filter(|_| self.drain.is_none()) else { return };
        let machine = &mut self.machine;
        let patience = if self.is_storm { self.rng.u64(1000..25_000) } else { 25_000 };
        let patience = Duration::from_millis(patience).min(DRAIN_DEADLINE);
        machine.note("drain", u64::from(agent.life), 0, 0);
        let promised = machine.ledger.promised(&machine.disk);
        let (deadline, is_easy) = (machine.now + patience, !self.is_storm);
        self.drain = Some(Drain { deadline, promised, is_easy });
        agent.ask_to_drain(machine.now);
        machine.plan(patience, Event::Abandon(agent.life));
    }

    fn check_deadline(&mut self) {
        let (now, slack) = (self.machine.now, Duration::from_millis(50));
        if let Some(drain) = self.drain.as_ref().filter(|drain| now > drain.deadline + slack) {
            self.machine.ledger.on_deadline_missed(now, drain.deadline);
        }
    }

    fn end_drain(&mut self, agent: Agent) {
        self.check_deadline();
        let drain = self.drain.take().expect("an agent ends only when it is asked to");
        let machine = &mut self.machine;
        let is_done = agent.is_all_delivered();
        machine.note("end", u64::from(agent.life), u64::from(is_done), 0);
        if is_done {
            self.tale.drains_done += 1;
            machine.ledger.on_drained(&drain.promised, &machine.disk);
        } else {
            self.tale.drains_cut += 1;
            if drain.is_easy {
                machine.ledger.fail(|| "the last drain left something behind".to_owned());
            }
        }
        drop(agent);
        self.bury(false);
    }
}

/// Bounds as small as they can be, so that they are met all the time.
fn options(rng: &mut fastrand::Rng) -> Options {
    let line_bytes_max = rng.usize(16..200);
    let compressions = [Compression::None, Compression::Lz4, Compression::Zstd];
    let batch = batch::Options {
        batch_bytes: rng.usize(300..3000),
        batch_lines: rng.u32(1..40),
        batch_linger: Duration::from_millis(rng.u64(20..2000)),
        topic: String::new(),
    };
    let compression = compressions[rng.usize(..3)];
    let bounds = Bounds {
        batch,
        line_bytes_max,
        open_bytes_max: rng.usize(300..5000),
        handoff_bytes_max: rng.usize(1..16_000),
    };
    Options {
        bounds,
        compression,
        read_linger: Duration::from_millis(rng.u64(10..300)),
        partial_line_timeout: Duration::from_millis(rng.u64(200..5000)),
        read_bytes: HEAD_BYTES_MAX.max(lookahead(line_bytes_max) + TAIL_BYTES_MAX)
            + rng.usize(..500),
        concurrency_max: rng.usize(1..9),
        piece_bytes: if rng.u8(..4) == 0 { rng.usize(1..500) } else { usize::MAX },
        bytes_per_second: if rng.u8(..6) == 0 { rng.u64(4000..20_000) } else { 0 },
        cpu_cores: if rng.u8(..6) == 0 { 0.01 } else { 2.0 },
        drain_quiet: Duration::from_millis([0, 0, 300, 2000][rng.usize(..4)]),
    }
}
