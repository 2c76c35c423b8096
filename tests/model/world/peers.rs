//! The agent and the endpoint: started, stopped, killed, frozen, taken down.

use std::fs;
use std::time::Duration;

use logferry_mock::{Fault, Kind};

use super::{STATUS_PERIOD, World};
use crate::disk::Disk;
use crate::process::{self, Process};
use crate::support::{pause, wait_for};

impl World {
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

    pub(super) fn check_alive(&mut self) -> Result<(), String> {
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
        let may_be_undelivered = is_forbidden || !self.disk.forbidden_pods.is_empty();
        self.disk.expect_last_words();
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
        let named = self.pod.times_logged("not delivered to its end is found nowhere");
        let has_named = std::mem::replace(&mut self.missing_named, named) < named;
        // What it has named is on no disk any more; all else was delivered.
        let misses_file = code == 75 && has_named && !may_be_undelivered;
        match code {
            0 | 75 if code == 0 || misses_file => {
                self.tally.add("clean stops", 1);
                self.tally.add("clean stops that miss a file", usize::from(misses_file));
                self.look()?;
                let arrivals = &self.arrivals;
                let is_missing =
                    |disk: &Disk, line: usize| disk.is_owed(line) && !arrivals.has_line(disk, line);
                let missing: Vec<usize> =
                    self.disk.with_rights(self.disk.sees_closed_directories(), |disk| {
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

    pub(crate) fn set_faults(&self, kinds: Vec<(Kind, u64)>) {
        let faults = kinds.into_iter().map(|(kind, times)| {
            let mut fault = Fault::new(kind);
            fault.times = Some(times);
            fault
        });
        self.pod.mock.faults().set(faults.collect());
    }
}
