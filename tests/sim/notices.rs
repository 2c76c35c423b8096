//! The kernel's notifications: what happens to names in watched directories, as inotify(7) tells.

use std::collections::BTreeMap;

use crate::disk::NodeId;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Create,
    Modify,
    MovedFrom,
    MovedTo,
    Delete,
    Attrib,
    DeleteSelf,
    MoveSelf,
    Ignored,
    Overflow,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub watch: i32,
    pub kind: Kind,
    pub name: Option<String>,
    pub is_dir: bool,
}

/// What the agent watches, and what it has not read yet.
pub struct Notices {
    /// Notifications can be had at all.
    pub works: bool,
    /// More events than this are lost.
    pub events_max: usize,
    /// More directories than this cannot be watched.
    pub watches_max: usize,
    /// By directory: the number of the watch, and whether it tells of writes.
    watches: BTreeMap<NodeId, (i32, bool)>,
    next: i32,
    events: Vec<Event>,
}

impl Default for Notices {
    fn default() -> Self {
        Self {
            works: true,
            events_max: 10_000,
            watches_max: 1000,
            watches: BTreeMap::new(),
            next: 1,
            events: Vec::new(),
        }
    }
}

impl Notices {
    pub fn push(&mut self, dir: NodeId, kind: Kind, name: &str, is_dir: bool) {
        let Some(&(watch, tells_writes)) = self.watches.get(&dir) else { return };
        if kind != Kind::Modify || tells_writes {
            self.queue(Event { watch, kind, name: Some(name.to_owned()), is_dir });
        }
    }

    /// Something happened to a watched directory itself.
    pub fn push_self(&mut self, dir: NodeId, kind: Kind) {
        let Some(&(watch, _)) = self.watches.get(&dir) else { return };
        self.queue(Event { watch, kind, name: None, is_dir: true });
        if kind == Kind::DeleteSelf {
            self.watches.remove(&dir);
            self.queue(Event { watch, kind: Kind::Ignored, name: None, is_dir: false });
        }
    }

    fn queue(&mut self, event: Event) {
        if self.events.last() == Some(&event) {
            return;
        }
        if self.events.len() < self.events_max {
            self.events.push(event);
        } else if self.events.last().is_none_or(|last| last.kind != Kind::Overflow) {
            self.events.push(Event { watch: 0, kind: Kind::Overflow, name: None, is_dir: false });
        }
    }

    /// Watches a directory, as `IN_MASK_ADD` does; `None` if there are too many.
    pub fn add(&mut self, dir: NodeId, tells_writes: bool) -> Option<i32> {
        if let Some((watch, tells)) = self.watches.get_mut(&dir) {
            *tells |= tells_writes;
            return Some(*watch);
        }
        if self.watches.len() >= self.watches_max {
            return None;
        }
        self.next += 1;
        self.watches.insert(dir, (self.next, tells_writes));
        Some(self.next)
    }

    pub fn remove(&mut self, watch: i32) {
        let count = self.watches.len();
        self.watches.retain(|_, (other, _)| *other != watch);
        if self.watches.len() < count {
            self.queue(Event { watch, kind: Kind::Ignored, name: None, is_dir: false });
        }
    }

    pub fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    pub fn take(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// The agent is gone.
    pub fn disarm(&mut self) {
        self.watches.clear();
        self.events.clear();
    }
}
