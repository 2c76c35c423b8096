//! One seed: the files, the agent, the endpoint; what is waited for, and what must be true.

/// The agent and the endpoint.
mod peers;
/// What is fixed for a seed.
mod setting;
/// Waiting.
mod waits;

use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use logferry_mock as mock;

use crate::actions;
use crate::arrivals::Arrivals;
use crate::disk::{Disk, Fate, Pattern};
use crate::process::{self, Host, Process};
use crate::support::{Pod, pause};
use setting::Setting;

/// Long enough for a machine that runs many seeds at once; who waits so long has failed.
const PATIENCE: Duration = Duration::from_secs(120);
/// Between two looks at the endpoint.
const LOOK_PERIOD: Duration = Duration::from_millis(15);
/// Between two looks at the agent's status.
const STATUS_PERIOD: Duration = Duration::from_millis(60);

/// What happened, over all seeds: a run in which nothing happens proves nothing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) counts: std::collections::BTreeMap<&'static str, usize>,
}

impl Tally {
    pub(crate) fn add(&mut self, what: &'static str, count: usize) {
        *self.counts.entry(what).or_default() += count;
    }

    pub(crate) fn absorb(&mut self, other: &Self) {
        for (what, count) in &other.counts {
            self.add(what, *count);
        }
    }
}

/// How a seed ended.
pub(crate) struct Tale {
    /// The actions, in words.
    pub(crate) trace: Vec<String>,
    pub(crate) tally: Tally,
    pub(crate) outcome: Result<(), String>,
}

/// Everything a seed plays with.
pub(crate) struct World {
    host: Host,
    pub(crate) rng: fastrand::Rng,
    pub(crate) pod: Pod,
    pub(crate) disk: Disk,
    pub(crate) process: Option<Process>,
    /// Its agents get no notifications.
    is_polling: bool,
    /// How many missing files the agents have named.
    missing_named: usize,
    /// The agent is stopped by a signal, and knows nothing of it.
    pub(crate) is_frozen: bool,
    pub(crate) is_endpoint_up: bool,
    arrivals: Arrivals,
    pub(crate) trace: Vec<String>,
    pub(crate) tally: Tally,
    is_printed: bool,
}

/// Plays a seed. A directory of a seed that failed is kept, and named in the outcome.
pub(crate) fn run(seed: u64, is_printed: bool) -> Tale {
    let mut rng = fastrand::Rng::with_seed(seed);
    let setting = Setting::draw(seed, &mut rng);
    tell(World::new(&setting, rng, is_printed), World::play)
}

/// Plays a scene: what a test says, and the end that every seed has.
pub(crate) fn scene(pattern: Pattern, play: impl FnOnce(&mut World) -> Result<(), String>) {
    let world = World::new(&Setting::plain(pattern), fastrand::Rng::with_seed(0), false);
    let tale = tell(world, |world| {
        play(world)?;
        world.end()
    });
    if let Err(what) = tale.outcome {
        panic!("{what}");
    }
}

fn tell(mut world: World, play: impl FnOnce(&mut World) -> Result<(), String>) -> Tale {
    let outcome = catch_unwind(AssertUnwindSafe(|| play(&mut world))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        Err(text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic").to_owned())
    });
    let World { trace, tally, pod, process, .. } = world;
    drop(process);
    let outcome = outcome.map_err(|what| {
        let dir = pod.keep();
        format!("{what}\n    kept: {}, with the agent's agent.log", dir.display())
    });
    Tale { trace, tally, outcome }
}

impl World {
    fn new(setting: &Setting, rng: fastrand::Rng, is_printed: bool) -> Self {
        let host = Host::reserve();
        let mut pod = Pod::with_endpoint(mock::Options {
            listen: (host.ip, process::ENDPOINT_PORT).into(),
            ..mock::Options::default()
        });
        let patterns = pod.path(setting.pattern.text()).display().to_string();
        pod.set("LOGFERRY_PATHS", &patterns);
        pod.set("LOGFERRY_LISTEN", &SocketAddr::from((host.ip, process::ADMIN_PORT)).to_string());
        for (name, value) in setting.environment() {
            pod.set(name, value);
        }
        let disk = Disk::new(&pod.path(""), setting.seed, setting.pattern, setting.has_pieces);
        let mut world = Self {
            host,
            rng,
            pod,
            disk,
            process: None,
            is_polling: setting.is_polling,
            missing_named: 0,
            is_frozen: false,
            is_endpoint_up: true,
            arrivals: Arrivals::default(),
            trace: Vec::new(),
            tally: Tally::default(),
            is_printed,
        };
        world.say(format!("{setting:?}"));
        world
    }

    pub(crate) fn say(&mut self, what: String) {
        if self.is_printed {
            println!("{:3} {what}", self.trace.len());
        }
        self.trace.push(what);
    }

    fn play(&mut self) -> Result<(), String> {
        actions::begin(self)?;
        for _ in 0..self.rng.usize(12..=24) {
            actions::act(self)?;
            // Only how far the agent has come by the next action depends on this.
            pause(Duration::from_millis(pick(&mut self.rng, &[0, 0, 0, 3, 20, 120])));
            self.check_alive()?;
            if self.rng.bool() {
                self.observe()?;
            }
        }
        self.end()
    }

    /// Everything is made well again; then all that is owed must arrive, and all checks hold.
    fn end(&mut self) -> Result<(), String> {
        self.say("the end: everything is made well again".to_owned());
        self.pod.mock.faults().clear();
        self.set_endpoint(true);
        self.set_frozen(false);
        let forbidden: Vec<String> = self
            .disk
            .names
            .iter()
            .filter(|(_, node)| self.disk.nodes[**node].is_forbidden)
            .map(|(name, _)| name.clone())
            .collect();
        for name in forbidden {
            self.disk.forbid(&name, false);
        }
        if let Some(pod) = self.disk.forbidden_pods.first().cloned() {
            self.disk.forbid_directory(&pod, false);
        }
        if self.disk.link.is_none() {
            self.disk.point(Some("a"));
        }
        if self.process.is_none() {
            self.start()?;
        }
        self.wait_for_all()?;
        self.wait_for_rests()?;
        self.stop()?;
        if self.rng.u8(..4) == 0 {
            // There is nothing to do: what comes now comes once too often.
            self.start()?;
            self.stop()?;
            self.tally.add("starts with nothing to do", 1);
        }
        self.check()
    }

    /// Bytes of closed files add up, where the agent counts them.
    fn check_balance(&self) -> Result<(), String> {
        let Some(process) = &self.process else { return Ok(()) };
        match process.metric("logferry_generations_unbalanced_total") {
            Some(count) if count > 0.0 => Err(format!("{count} generations do not add up")),
            _ => Ok(()),
        }
    }

    fn check(&mut self) -> Result<(), String> {
        self.look()?;
        self.arrivals.check_order(&self.disk)?;
        let again = self.arrivals.check_repeats(&self.disk)?;
        let log = self.pod.agent_log();
        if let Some(line) = log.lines().find(|line| line.contains("panicked")) {
            return Err(format!("the agent panicked: {line}"));
        }
        let gone = |line: &usize| self.disk.lines[*line].fate == Fate::Gone;
        let lost = (0..self.disk.lines.len()).filter(|line| gone(line) && !self.has(*line)).count();
        let again_groups = self.arrivals.groups_again;
        let all = self.disk.lines.len();
        for (what, count) in [
            ("lines", all),
            ("lines destroyed unseen", lost),
            ("lines again", again),
            ("groups again", again_groups),
        ] {
            self.tally.add(what, count);
        }
        Ok(())
    }

    /// What is wrong, with what is known of the lines.
    fn complain(&self, what: &str, missing: &[usize]) -> String {
        let mut text = format!("{what}; {} lines are missing", missing.len());
        for &line in missing.iter().take(5) {
            let node = self.disk.lines[line].node;
            let names: Vec<&String> = self.disk.names_of(node).collect();
            let shown = String::from_utf8_lossy(&self.disk.lines[line].text).into_owned();
            let file = &self.disk.nodes[node];
            text += &format!(
                "\n    {shown:?}, {:?}, of node {node} {names:?}, inode {}, generation {}, held \
                 {}, expected {}",
                self.disk.lines[line].fate,
                file.inode,
                file.generation,
                file.is_held,
                file.is_expected
            );
        }
        let process = self.process.as_ref().filter(|_| !self.is_frozen);
        if let Some(status) = process.and_then(Process::status) {
            text += &format!("\n    the agent says {:?}", status.files);
        }
        text
    }
}

/// One of several.
pub(crate) fn pick<T: Copy>(rng: &mut fastrand::Rng, all: &[T]) -> T {
    all[rng.usize(..all.len())]
}
