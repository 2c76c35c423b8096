//! One seed's world: a machine with disks and apps on it, a service, and an agent that dies and
//! comes back.
//!
//! Time jumps from event to event. A world has three parts: the *storm*, in which anything may
//! happen; the *calm*, in which the service is well and the agent must deliver all that is owed;
//! and a last drain.

use std::cell::{RefCell, RefMut};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use logferry::base::fingerprint::HEAD_BYTES_MAX;
use logferry::collector::Step;

use crate::agent::Agent;
use crate::disk::Disk;
use crate::flaws::Flaw;
use crate::ground::Ground;
use crate::invariants::{Counts, Ledger};
use crate::keep::StateDir;
use crate::machine::{Chaos, Event, Machine, Trace};
use crate::options::{Options, options};
use crate::os::System;
use crate::server::Server;
use crate::workload::{Tally, Workload};

/// Once the service is well, something must be delivered in any such time, until all is: a hung
/// request, the longest pause of the queue and that of a batch which stepped back, twice.
const CALM: Duration = Duration::from_secs(150);
const DRAIN_DEADLINE: Duration = Duration::from_secs(25);
/// Fewer bytes prove nothing where neither a birth nor an inode does.
const WHOLE: u64 = HEAD_BYTES_MAX as u64;
/// Steps of the loop in a row, in so short a time, that came to nothing: it spins.
const IDLE_STEPS_MAX: u32 = 400;
const IDLE_TIME: Duration = Duration::from_secs(2);

/// What a good run tells.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tale {
    /// Hash of everything that happened, in order.
    pub trace: u64,
    pub counts: Counts,
    pub tally: Tally,
    pub kills: u64,
    pub power_losses: u64,
    pub drains_done: u64,
    pub drains_cut: u64,
    pub moves: u64,
}

impl Tale {
    pub fn add(&mut self, other: &Self) {
        self.kills += other.kills;
        self.power_losses += other.power_losses;
        self.drains_done += other.drains_done;
        self.drains_cut += other.drains_cut;
        self.moves += other.moves;
        self.counts.add(&other.counts);
        self.tally.add(&other.tally);
    }
}

/// Runs one seed; the error is the first invariant that was broken.
pub fn run(seed: u64, flaw: Option<Flaw>, is_printed: bool) -> Result<Tale, String> {
    let mut world = World::new(seed, flaw, is_printed);
    world.storm();
    world.calm();
    world.part();
    let World { system, mut tale, agent, .. } = world;
    drop(agent);
    let mut machine = system.0.borrow_mut();
    let Machine { ledger, disk, .. } = &mut *machine;
    ledger.count_copies(disk);
    if let Some(violation) = ledger.violation.take() {
        return Err(violation);
    }
    tale.trace = machine.trace.hash;
    tale.counts = machine.ledger.counts;
    tale.tally = machine.workload.tally;
    Ok(tale)
}

struct World {
    system: System,
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
    idle: (u32, Instant, u64),
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
        let ground = Ground::new(&mut rng);
        let options = options(&mut rng, &ground);
        let disk = disk(&mut rng, &ground);
        let lines = options.bounds.line_bytes_max;
        let mut machine = Machine {
            now: start,
            start,
            wall_ahead: 0,
            cpu: Duration::ZERO,
            disk,
            state: StateDir::default(),
            workload: Workload::new(rng.fork(), lines, &ground.home, ground.has_link()),
            ledger: Ledger::new(options.bounds.clone(), ground),
            server: Server::new(rng.fork(), start, storm),
            events: BTreeMap::new(),
            next_event: 0,
            chaos: Chaos::new(&mut rng),
            trace: Trace::new(is_printed),
            flaw,
            rng: rng.fork(),
            calls: 0,
        };
        machine.set_time(start);
        machine.note("world", [0; 3], |machine| {
            let (volume, notices) = (&machine.disk.volumes[1], &machine.disk.notices);
            format!(
                "{}, {}, births {}, tells {}, notifications {}, {} events, {} watches, {} files open, \
                 line {}, proc {}",
                options.paths[0],
                machine.workload.describe(),
                volume.knows_births,
                volume.tells,
                notices.works,
                notices.events_max,
                notices.watches_max,
                options.files_max,
                options.bounds.line_bytes_max,
                machine.chaos.has_proc,
            )
        });
        let mut world = Self {
            system: System(Rc::new(RefCell::new(machine))),
            agent: None,
            options,
            flaw,
            rng,
            lives: 0,
            free_at: start,
            dies_in: None,
            drain: None,
            is_storm: true,
            idle: (0, start, 0),
            tale: Tale::default(),
        };
        world.plan(storm);
        world
    }

    fn machine(&self) -> RefMut<'_, Machine> {
        self.system.0.borrow_mut()
    }

    fn plan(&mut self, storm: Duration) {
        let mut machine = self.system.0.borrow_mut();
        let rng = &mut self.rng;
        for app in 0..machine.workload.len() {
            let pace = [20, 100, 400, 1500][rng.usize(..4)];
            let mut at = Duration::ZERO;
            let mut left = 400;
            while at < storm && left > 0 {
                machine.plan(at, Event::Act(app));
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
        {
            let mut machine = self.machine();
            let machine = &mut *machine;
            machine.note("calm", [0; 3], |_| String::new());
            machine.server.heal();
            machine.chaos.end();
            machine.set_mounted(true);
            machine.workload.finish(&mut machine.disk, &mut machine.ledger);
            machine.plan(Duration::from_millis(500), Event::Check);
        }
        let now = self.machine().now;
        let (mut stored, mut end, last) = (0, now + CALM, now + 20 * CALM);
        self.run_until(|world| {
            let mut machine = world.system.0.borrow_mut();
            let Machine { ledger, disk, now, .. } = &mut *machine;
            if std::mem::replace(&mut stored, ledger.counts.stored) < stored {
                end = last.min(*now + CALM);
            }
            let is_settled = ledger.unsettled(disk).is_none();
            let is_up = world.agent.is_some() && world.drain.is_none() && world.dies_in.is_none();
            (is_settled && is_up) || *now >= end
        });
        let mut machine = self.machine();
        let Machine { ledger, disk, .. } = &mut *machine;
        if let Some((text, covered, owed)) = ledger.unsettled(disk) {
            let names: Vec<String> = disk
                .files()
                .filter(|(_, of, _)| *of == text)
                .flat_map(|(node, ..)| disk.names_of(node).collect::<Vec<_>>())
                .collect();
            ledger.fail(|| {
                format!("text {text}, in {names:?}, is delivered up to {covered} of {owed}")
            });
        }
        drop(machine);
        if self.rng.u8(..8) == 0 {
            self.outlast_rotated_files();
        }
    }

    /// Files that the patterns do not find are let go of in the end.
    fn outlast_rotated_files(&mut self) {
        // What equals another is shipped a minute later.
        let quiet = logferry::tail::tracked::ROTATED_QUIET + Duration::from_secs(100);
        let end = self.machine().now + quiet;
        self.machine().plan(quiet, Event::Check);
        self.run_until(|world| world.machine().now >= end);
        let held = self.agent.as_ref().map_or(0, Agent::held_files);
        if held > 0 {
            self.machine().ledger.fail(|| format!("{held} files are held for ever"));
        }
    }

    fn part(&mut self) {
        self.machine().plan(Duration::ZERO, Event::Drain);
        let lives = self.lives;
        self.run_until(|world| world.agent.is_none() || world.lives > lives);
    }

    // === the course of time

    fn run_until(&mut self, mut is_over: impl FnMut(&mut Self) -> bool) {
        while self.machine().ledger.violation.is_none() && !is_over(self) {
            let mut machine = self.system.0.borrow_mut();
            let event_at = machine.events.keys().next().map(|(at, _)| *at);
            let loop_at = self.agent.as_ref().and_then(|agent| agent.wake_at(&machine));
            let loop_at = loop_at.map(|at| at.max(self.free_at));
            let send_at = self.agent.as_ref().and_then(Agent::send_deadline);
            let Some(at) = [event_at, loop_at, send_at].into_iter().flatten().min() else {
                return machine.ledger.fail(|| "nothing will ever happen again".to_owned());
            };
            let now = machine.now.max(at);
            machine.set_time(now);
            if event_at.is_some_and(|at| at <= now) {
                let (_, event) = machine.events.pop_first().expect("it was just seen");
                drop(machine);
                self.on_event(event);
            } else {
                drop(machine);
                if loop_at.is_some_and(|at| at <= now) {
                    self.run_loop();
                }
            }
            if let Some(agent) = &mut self.agent {
                agent.send();
            }
        }
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Act(app) => self.machine().act(Some(app)),
            Event::Store(batch) => {
                let mut machine = self.machine();
                let machine = &mut *machine;
                machine.note("store", [u64::from(batch.0), batch.1.0, 0], |_| String::new());
                machine.ledger.on_stored(batch, &machine.disk);
            }
            Event::Answer { life, load, offset, answer, is_cut } => {
                let status = answer.as_ref().map_or(0, |answer| u64::from(answer.status));
                let numbers = [u64::from(life), load.request.0, status];
                self.machine().note("answer", numbers, |_| String::new());
                if let Some(agent) = self.agent.as_mut().filter(|agent| agent.life == life) {
                    agent.on_answer(&load, offset, answer, is_cut);
                }
            }
            Event::Start => self.start(),
            Event::Mount => self.machine().set_mounted(true),
            Event::Kill if self.agent.is_some() && self.is_storm => {
                // Most often in the middle of things.
                self.dies_in = Some(self.rng.u32(..20));
            }
            Event::Kill => {}
            Event::Drain => self.begin_drain(),
            Event::Abandon(life) => {
                if let Some(agent) = self.agent.as_mut().filter(|agent| agent.life == life) {
                    agent.abandon();
                }
            }
            Event::Check => {
                if self.is_storm {
                    self.is_storm = false;
                } else {
                    self.machine().plan(Duration::from_millis(500), Event::Check);
                }
            }
        }
    }

    /// One iteration of the collector's loop, in steps between which the agent may die.
    fn run_loop(&mut self) {
        let Some(mut agent) = self.agent.take() else { return };
        for step in Step::ALL {
            if self.dies_in == Some(0) {
                self.dies_in = None;
                drop(agent);
                return self.die();
            }
            self.dies_in = self.dies_in.map(|left| left - 1);
            self.machine().meddle();
            let wall = self.machine().disk.wall;
            self.machine().ledger.on_step_begins(wall);
            if agent.step(step) {
                return self.end_drain(agent);
            }
        }
        agent.rest();
        self.check_idling();
        let busy = Duration::from_micros(self.rng.u64(100..2000));
        let free_at = self.machine().now + busy;
        self.free_at = free_at;
        self.agent = Some(agent);
        self.check_deadline();
    }

    fn check_idling(&mut self) {
        let mut machine = self.system.0.borrow_mut();
        let (now, progress) = (machine.now, machine.ledger.progress);
        if progress > self.idle.2 {
            self.idle = (0, now, progress);
        }
        self.idle.0 += 1;
        if self.idle.0 > IDLE_STEPS_MAX {
            if now - self.idle.1 < IDLE_TIME {
                machine.ledger.fail(|| "the loop spins: it wakes for nothing".to_owned());
            }
            self.idle = (0, now, progress);
        }
    }

    // === lives

    fn start(&mut self) {
        if self.agent.is_some() {
            return;
        }
        let dice = self.rng.u8(..20);
        let mut machine = self.system.0.borrow_mut();
        let machine_ref = &mut *machine;
        match dice {
            0..=2 => {
                self.tale.moves += 1;
                machine_ref.disk.renumber();
                machine_ref.ledger.on_remounted();
                let least = if machine_ref.disk.volumes[1].knows_births { 0 } else { WHOLE };
                machine_ref.ledger.on_moved(true, least, &machine_ref.disk);
            }
            3 => {
                self.tale.moves += 1;
                machine_ref.disk.copy_elsewhere();
                machine_ref.ledger.on_moved(false, WHOLE, &machine_ref.disk);
            }
            4 if self.is_storm => {
                machine_ref.set_mounted(false);
                let late = Duration::from_millis(self.rng.u64(100..10_000));
                machine_ref.plan(late, Event::Mount);
            }
            _ => {}
        }
        let device = machine_ref.disk.volumes[1].device;
        machine_ref.note("start", [u64::from(self.lives), device, 0], |_| String::new());
        machine_ref.ledger.on_start();
        let loaded = machine_ref.state.load();
        machine_ref.state.save(&loaded, true);
        drop(machine);
        let (life, rng) = (self.lives, self.rng.fork());
        self.agent = Some(Agent::new(&self.options, &self.system, self.flaw, life, loaded, rng));
        self.lives += 1;
        let now = self.machine().now;
        self.free_at = now;
    }

    /// The agent is gone, and perhaps the machine with it.
    fn die(&mut self) {
        let is_power_lost = self.rng.u8(..3) == 0;
        let mut machine = self.system.0.borrow_mut();
        machine.note("die", [u64::from(is_power_lost), 0, 0], |_| String::new());
        let is_fast_lost = is_power_lost && !machine.state.lose_power(&mut self.rng);
        drop(machine);
        self.tale.kills += 1;
        self.tale.power_losses += u64::from(is_fast_lost);
        self.bury(is_fast_lost);
    }

    fn bury(&mut self, is_fast_lost: bool) {
        self.drain = None;
        self.dies_in = None;
        let away = [50, 1000, 20_000][self.rng.usize(..3)];
        let away = Duration::from_millis(self.rng.u64(1..away));
        let mut machine = self.machine();
        let machine = &mut *machine;
        machine.disk.notices.disarm();
        machine.disk.reap();
        machine.ledger.on_death(is_fast_lost, &machine.disk);
        machine.plan(away, Event::Start);
    }

    fn begin_drain(&mut self) {
        let Some(agent) = self.agent.as_mut().filter(|_| self.drain.is_none()) else { return };
        let mut machine = self.system.0.borrow_mut();
        let patience = if self.is_storm { self.rng.u64(1000..25_000) } else { 25_000 };
        let patience = Duration::from_millis(patience).min(DRAIN_DEADLINE);
        machine.note("drain", [u64::from(agent.life), 0, 0], |_| String::new());
        let promised = machine.ledger.promised(&machine.disk);
        let (deadline, is_easy) = (machine.now + patience, !self.is_storm);
        self.drain = Some(Drain { deadline, promised, is_easy });
        machine.plan(patience, Event::Abandon(agent.life));
        drop(machine);
        agent.ask_to_drain();
    }

    fn check_deadline(&self) {
        let mut machine = self.system.0.borrow_mut();
        let (now, slack) = (machine.now, Duration::from_millis(50));
        if let Some(drain) = self.drain.as_ref().filter(|drain| now > drain.deadline + slack) {
            let late = now - drain.deadline;
            machine.ledger.fail(|| format!("a drain is not over {late:?} after its deadline"));
        }
    }

    fn end_drain(&mut self, agent: Agent) {
        self.check_deadline();
        let drain = self.drain.take().expect("an agent ends only when it is asked to");
        let is_done = agent.is_all_delivered();
        let mut machine = self.system.0.borrow_mut();
        let machine_ref = &mut *machine;
        let left = agent.left();
        machine_ref.note("end", [u64::from(agent.life), u64::from(is_done), 0], |_| left.clone());
        if is_done {
            self.tale.drains_done += 1;
            machine_ref.ledger.on_drained(&drain.promised, &machine_ref.disk);
        } else {
            self.tale.drains_cut += 1;
            let may_be_left =
                agent.is_only_missing() && machine_ref.ledger.has_lost(&machine_ref.disk);
            if drain.is_easy && !may_be_left {
                machine_ref.ledger.fail(|| format!("the last drain left something behind: {left}"));
            }
        }
        drop(machine);
        drop(agent);
        self.bury(false);
    }
}

fn disk(rng: &mut fastrand::Rng, ground: &Ground) -> Disk {
    let mut disk = Disk::new(rng.fork(), 0);
    disk.notices.works = rng.u8(..6) > 0;
    disk.notices.events_max = if rng.u8(..4) == 0 { 6 } else { 10_000 };
    disk.notices.watches_max = if rng.u8(..8) == 0 { 2 } else { 1000 };
    disk.volumes[1].knows_births = rng.u8(..5) > 0;
    disk.volumes[1].tells = rng.u8(..10) > 0;
    if !disk.volumes[1].tells && rng.bool() {
        // FUSE_SUPER_MAGIC
        disk.volumes[1].magic = 0x6573_5546;
    }
    disk.make_dirs(&ground.home);
    if ground.has_link() {
        disk.make_dirs("/share");
        disk.symlink(&ground.home, &ground.base);
    }
    disk
}
