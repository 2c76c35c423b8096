//! Waiting: for what is owed, and until the agent has noticed. Always for a condition, never for a
//! time.

use std::time::Duration;

use logferry::base::clock;

use super::{LOOK_PERIOD, PATIENCE, STATUS_PERIOD, World};
use crate::support::pause;

impl World {
    pub(super) fn look(&mut self) -> Result<(), String> {
        self.arrivals.take(&self.pod.mock.store(), &self.disk)
    }

    /// Lines that must arrive and have not.
    pub(super) fn missing(&self) -> Vec<usize> {
        let lines = 0..self.disk.lines.len();
        lines.filter(|&line| self.disk.is_owed(line) && !self.has(line)).collect()
    }

    pub(super) fn has(&self, line: usize) -> bool {
        self.arrivals.has_line(&self.disk, line)
    }

    pub(super) fn wait_for(
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
    pub(super) fn wait_for_rests(&mut self) -> Result<(), String> {
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
}
