//! What is known of the agent, from its status and from how its processes end, and what follows from
//! that for the files: what it owes, and what it may send again.

use super::{Disk, Fate, Node};

impl Disk {
    /// The agent's process is gone, and did not deliver everything.
    pub(crate) fn on_died(&mut self) {
        for line in &mut self.lines {
            if line.fate == Fate::Read {
                line.fate = Fate::Gone;
            }
            // What it had not saved, the next one sends again.
            if line.fate == Fate::OnDisk && !line.is_safe {
                line.repeats_max += 1;
            }
        }
        // Whose copy a copy is may not have been saved.
        for &line in &self.copied {
            self.lines[line].repeats_max += 1;
        }
        self.on_ended();
    }

    /// The agent's process is gone, and has delivered everything.
    pub(crate) fn on_drained(&mut self) {
        for node in 0..self.nodes.len() {
            if self.is_kept(node) && self.is_reachable(node) {
                let node = &mut self.nodes[node];
                node.known = Some(node.generation);
                node.is_displaced = false;
            }
        }
        for index in 0..self.lines.len() {
            if self.is_owed(index) {
                self.lines[index].is_safe = true;
                self.lines[index].is_durable = true;
            }
        }
        for node in &mut self.nodes {
            node.known_durably = node.known;
        }
        self.on_ended();
    }

    fn on_ended(&mut self) {
        for line in &mut self.lines {
            line.is_read = false;
        }
        for node in 0..self.nodes.len() {
            self.nodes[node].is_held = false;
            self.nodes[node].is_expected = false;
            self.nodes[node].turns_at_arrival = None;
            self.nodes[node].writer = None;
            self.on_unlinked(node);
        }
    }

    /// After a death, all that was saved and not synced is lost as well.
    pub(crate) fn on_power_cut(&mut self) {
        for line in &mut self.lines {
            if line.fate == Fate::OnDisk && line.is_safe && !line.is_durable {
                line.repeats_max += 1;
            }
            line.is_safe = line.is_durable;
        }
        for node in &mut self.nodes {
            node.known = node.known_durably;
        }
    }

    /// A process starts: its checkpoint leads it to what has a name and the same bytes.
    pub(crate) fn on_started(&mut self) {
        let kept: Vec<bool> = self.with_rights(true, |disk| {
            (0..disk.nodes.len()).map(|node| disk.is_kept(node)).collect()
        });
        for (node, is_kept) in self.nodes.iter_mut().zip(kept) {
            node.is_expected = is_kept && node.known == Some(node.generation);
        }
    }

    /// Lines that were first written in the newest generation of a node.
    pub(crate) fn lines_born_in(&self, node: usize) -> Vec<usize> {
        let Node { generation, layout, .. } = &self.nodes[node];
        let lines = layout.iter().map(|placed| placed.line);
        lines.filter(|&line| self.lines[line].born == *generation).collect()
    }

    /// One of them has arrived: the agent knows of the generation.
    pub(crate) fn on_arrival(&mut self, node: usize, turns: u64) {
        self.nodes[node].turns_at_arrival.get_or_insert(turns);
    }

    /// The running agent says, after so many turns, how far it has come with a file.
    pub(crate) fn on_status(&mut self, index: usize, turns: u64, read: u64, acked: u64) {
        let node = &mut self.nodes[index];
        node.is_held = true;
        let is_fresh = node.turns_at_arrival.is_some_and(|before| before < turns);
        let is_of_this =
            |offset: u64| node.generation == 0 || offset > node.old_size_max || is_fresh;
        if is_of_this(read) && !node.is_displaced {
            node.known = Some(node.generation);
        }
        for placed in &node.layout {
            let line = &mut self.lines[placed.line];
            line.is_read |= is_of_this(read) && placed.end <= read && line.is_complete;
            line.is_safe |= is_of_this(acked) && placed.end <= acked && line.is_complete;
        }
    }
}
