//! One seed: the files, the agent, the endpoint; what is waited for, and what must be true.

use std::fs;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use logferry::clock;
use logferry::mock::{self, Fault, Kind};

use crate::actions;
use crate::arrivals::Arrivals;
use crate::disk::{Disk, Fate, Pattern};
use crate::process::{self, Host, Process};
use crate::support::{Pod, pause, wait_for};

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
    let mut world = World::new(seed, is_printed);
    let outcome = catch_unwind(AssertUnwindSafe(|| world.play())).unwrap_or_else(|panic| {
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
    fn new(seed: u64, is_printed: bool) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let host = Host::reserve();
        let address = SocketAddr::from((host.ip, process::ADMIN_PORT));
        let mut pod = Pod::with_endpoint(mock::Options {
            listen: (host.ip, process::ENDPOINT_PORT).into(),
            ..mock::Options::default()
        });
        let pattern = pick(
            &mut rng,
            &[Pattern::Link, Pattern::Link, Pattern::LinkAndRotated, Pattern::Direct],
        );
        let has_pieces = rng.u8(..5) == 0;
        let is_polling = rng.u8(..10) == 0 && process::can_poll();
        let disk = Disk::new(&pod.path(""), seed, pattern, has_pieces);
        let patterns = pod.path(pattern.text()).display().to_string();
        pod.set("LOGFERRY_PATHS", &patterns);
        pod.set("LOGFERRY_LISTEN", &address.to_string());
        pod.set("LOGFERRY_DRAIN_DEADLINE", "120s");
        pod.set("LOGFERRY_PARTIAL_LINE_TIMEOUT", if has_pieces { "100ms" } else { "3600s" });
        pod.set("LOGFERRY_READ_LINGER", pick(&mut rng, &["1ms", "10ms", "50ms"]));
        pod.set("LOGFERRY_BATCH_LINGER", pick(&mut rng, &["10ms", "50ms"]));
        pod.set("LOGFERRY_BATCH_LINES", pick(&mut rng, &["1", "3", "5", "100"]));
        pod.set("LOGFERRY_COMPRESSION", pick(&mut rng, &["none", "lz4"]));
        pod.set("max_bytes_per_sec", pick(&mut rng, &["0", "0", "0", "0", "16KiB"]));
        pod.set("send_request_concurrency", pick(&mut rng, &["1", "8"]));
        let mut world = Self {
            host,
            rng,
            pod,
            disk,
            process: None,
            is_polling,
            is_frozen: false,
            is_endpoint_up: true,
            arrivals: Arrivals::default(),
            trace: Vec::new(),
            tally: Tally::default(),
            is_printed,
        };
        world.say(format!("pattern {}, pieces {has_pieces}, polling {is_polling}", pattern.text()));
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

    // === the agent

    /// Starts the agent, and waits until signals are understood.
    pub(crate) fn start(&mut self) -> Result<(), String> {
        self.spawn();
        self.wait_for("the agent to answer", STATUS_PERIOD, Self::observe)
    }

    fn spawn(&mut self) {
        self.disk.on_started();
        self.process = Some(Process::start(
            &self.pod,
            (self.host.ip, process::ADMIN_PORT).into(),
            self.is_polling,
        ));
        self.tally.add("starts", 1);
    }

    fn check_alive(&mut self) -> Result<(), String> {
        let has_ended = self.process.as_mut().is_some_and(|process| process.agent.has_ended());
        if has_ended { Err("the agent died by itself".to_owned()) } else { Ok(()) }
    }

    /// Learns from the agent's status. Returns whether it answered.
    pub(crate) fn observe(&mut self) -> Result<bool, String> {
        // First what has arrived: what is published afterwards is not older.
        self.look()?;
        let process = self.process.as_ref().filter(|_| !self.is_frozen);
        let Some(status) = process.and_then(Process::status) else { return Ok(false) };
        for node in 0..self.disk.nodes.len() {
            let new = self.disk.lines_born_in(node);
            if new.into_iter().any(|line| self.arrivals.has_part(line)) {
                self.disk.on_arrival(node, status.turns);
            }
        }
        for file in status.files {
            if let Some(node) = self.disk.node_of(file.device, file.inode) {
                self.disk.on_status(node, status.turns, file.read_offset, file.acked_offset);
            }
        }
        Ok(true)
    }

    /// Stops the agent in its tracks, or lets it go on.
    pub(crate) fn set_frozen(&mut self, is_frozen: bool) {
        if let Some(process) = &self.process
            && self.is_frozen != is_frozen
        {
            process.set_frozen(is_frozen);
            self.is_frozen = is_frozen;
        }
    }

    /// SIGTERM. With the endpoint up the agent must deliver everything, unless it may not read.
    pub(crate) fn stop(&mut self) -> Result<(), String> {
        self.set_frozen(false);
        self.observe()?;
        self.check_balance()?;
        let is_forbidden = self.disk.nodes.iter().any(|node| node.is_forbidden);
        // An archive that may still be written to is not known to be delivered.
        let may_be_undelivered =
            is_forbidden || !self.disk.forbidden_pods.is_empty() || self.disk.has_archives();
        let is_up = self.is_endpoint_up;
        let Some(process) = self.process.take() else { return Ok(()) };
        if !is_up {
            // The second one, whenever it comes, ends it at once.
            let mut agent = process.agent;
            while !agent.has_ended() {
                agent.terminate();
                pause(STATUS_PERIOD);
            }
            return self.on_exit(agent.exit_code(), true);
        }
        let code = process.agent.stop().0;
        self.on_exit(code, may_be_undelivered)
    }

    fn on_exit(&mut self, code: i32, may_be_undelivered: bool) -> Result<(), String> {
        match code {
            0 => {
                self.tally.add("clean stops", 1);
                self.look()?;
                let arrivals = &self.arrivals;
                let is_missing =
                    |disk: &Disk, line: usize| disk.is_owed(line) && !arrivals.has_line(disk, line);
                let missing: Vec<usize> =
                    self.disk.with_rights(actions::SEES_CLOSED_DIRECTORIES, |disk| {
                        (0..disk.lines.len()).filter(|&line| is_missing(disk, line)).collect()
                    });
                if !missing.is_empty() {
                    return Err(self.complain("exit 0, and not everything was delivered", &missing));
                }
                self.disk.on_drained();
                Ok(())
            }
            75 if may_be_undelivered => {
                self.tally.add("stops with a rest", 1);
                self.disk.on_died();
                Ok(())
            }
            code => Err(format!("the agent ended with {code}")),
        }
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) -> Result<(), String> {
        self.observe()?;
        self.kill_unseen();
        Ok(())
    }

    fn kill_unseen(&mut self) {
        let Some(process) = self.process.take() else { return };
        self.is_frozen = false;
        process.agent.kill();
        self.disk.on_died();
        self.tally.add("kills", 1);
    }

    /// SIGKILL on the way up.
    pub(crate) fn kill_at_start(&mut self, after: Duration) {
        self.spawn();
        pause(after);
        self.kill_unseen();
    }

    /// After a kill: what was saved and not synced is gone, or torn.
    pub(crate) fn cut_power(&mut self, is_torn: bool) -> Result<(), String> {
        self.kill()?;
        let path = self.pod.path("state/checkpoint.now");
        if let Ok(bytes) = fs::read(&path) {
            if is_torn {
                fs::write(&path, &bytes[..bytes.len() / 2]).expect("the state can be written");
            } else {
                fs::remove_file(&path).expect("the state can be written");
            }
        }
        self.disk.on_power_cut();
        self.tally.add("power cuts", 1);
        Ok(())
    }

    // === the endpoint

    pub(crate) fn set_endpoint(&mut self, is_up: bool) {
        if is_up {
            // For a moment a child of another seed, not yet the program it is to be, may hold the
            // old listener.
            wait_for("the endpoint's port", || self.pod.mock.resume().is_ok());
        } else {
            self.pod.mock.stop();
        }
        self.is_endpoint_up = is_up;
    }

    pub(crate) fn set_faults(&mut self, kinds: Vec<(Kind, u64)>) {
        let faults = kinds.into_iter().map(|(kind, times)| {
            let mut fault = Fault::new(kind);
            fault.times = Some(times);
            fault
        });
        self.pod.mock.faults().set(faults.collect());
    }

    // === waiting

    fn look(&mut self) -> Result<(), String> {
        self.arrivals.take(&self.pod.mock.store(), &self.disk)
    }

    /// Lines that must arrive and have not.
    fn missing(&self) -> Vec<usize> {
        let lines = 0..self.disk.lines.len();
        lines.filter(|&line| self.disk.is_owed(line) && !self.has(line)).collect()
    }

    fn has(&self, line: usize) -> bool {
        self.arrivals.has_line(&self.disk, line)
    }

    fn wait_for(
        &mut self,
        what: &str,
        period: Duration,
        mut condition: impl FnMut(&mut Self) -> Result<bool, String>,
    ) -> Result<(), String> {
        let deadline = clock::now() + PATIENCE;
        while !condition(self)? {
            self.check_alive()?;
            if clock::now() > deadline {
                let missing = self.missing();
                return Err(self.complain(&format!("waited in vain for {what}"), &missing));
            }
            pause(period);
        }
        Ok(())
    }

    /// Waits until every line that is owed has arrived. Needs an agent and the endpoint.
    pub(crate) fn wait_for_all(&mut self) -> Result<(), String> {
        self.wait_for("what is owed to arrive", LOOK_PERIOD, |world| {
            world.look()?;
            // The status tells of files that are owed although no name leads to them.
            Ok(world.missing().is_empty() && world.observe()? && world.missing().is_empty())
        })
    }

    /// Where unfinished lines are sent after a while, waits until the last ones have arrived too.
    fn wait_for_rests(&mut self) -> Result<(), String> {
        let disk = &self.disk;
        let is_rest = |line: &usize| {
            let node = disk.lines[*line].node;
            disk.has_pieces() && disk.is_reachable(node) && disk.unfinished(node) == Some(*line)
        };
        let rests: Vec<usize> = (0..disk.lines.len()).filter(is_rest).collect();
        self.tally.add("unfinished lines at the end", rests.len());
        self.wait_for("unfinished lines to arrive", LOOK_PERIOD, |world| {
            world.look()?;
            Ok(rests.iter().all(|&line| world.has(line)))
        })
    }

    /// Waits until all lines of a file are known to have been read: by their arrival, or by the
    /// agent's word. Returns whether that could be known at all.
    pub(crate) fn wait_until_noticed(&mut self, node: usize) -> Result<bool, String> {
        if self.process.is_none()
            || self.is_frozen
            || !self.disk.is_reachable(node)
            || !self.can_be_noticed(node)
        {
            return Ok(false);
        }
        self.tally.add("waits before destruction", 1);
        let what = format!("the agent to notice node {node}");
        self.wait_for(&what, STATUS_PERIOD, |world| {
            world.observe()?;
            Ok(world.disk.nodes[node].layout.iter().all(|placed| {
                let line = &world.disk.lines[placed.line];
                !line.is_complete || line.is_read || world.has(placed.line)
            }))
        })?;
        Ok(true)
    }

    /// With the endpoint up the lines themselves tell. Otherwise only an offset does, and after a
    /// rewriting an offset that could be of the generation before tells nothing.
    fn can_be_noticed(&self, node: usize) -> bool {
        let Self { disk, .. } = self;
        let mut complete =
            disk.nodes[node].layout.iter().filter(|placed| disk.lines[placed.line].is_complete);
        let Some(last) = complete.next_back() else { return false };
        self.is_endpoint_up
            || disk.nodes[node].generation == 0
            || last.end > disk.nodes[node].old_size_max
    }

    /// Waits until everything has arrived and, where its offsets can tell, the agent has saved so:
    /// from then on a kill repeats nothing.
    pub(crate) fn settle(&mut self) -> Result<(), String> {
        self.wait_for_all()?;
        self.wait_for("the agent to save what has arrived", STATUS_PERIOD, |world| {
            world.observe()?;
            let disk = &world.disk;
            Ok((0..disk.nodes.len()).all(|index| {
                let node = &disk.nodes[index];
                let is_telling =
                    node.generation == 0 && disk.is_reachable(index) && disk.has_name(index);
                let is_safe = |line: usize| disk.lines[line].is_safe || !disk.is_owed(line);
                !is_telling || node.layout.iter().all(|placed| is_safe(placed.line))
            }))
        })
    }

    // === the end

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
