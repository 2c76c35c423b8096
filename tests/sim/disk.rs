//! The disk: one directory of files as a kernel keeps them, its notifications, and the state
//! directory.
//!
//! A file is an inode with bytes; names come and go. An inode lives as long as it has a name or
//! somebody holds it open, and its number is used again afterwards. Each truncation begins a new
//! *generation* of bytes; the old ones are kept here for the invariants, not for the agent.

use std::collections::BTreeMap;
use std::rc::Rc;

use logferry::base::span::FileKey;
use logferry::checkpoint::format::{self, Checkpoint};

/// The directory that everything happens in.
pub const DIR: &str = "/logs";

/// One directory and what its names lead to.
#[derive(Default)]
pub struct Disk {
    pub device: u64,
    pub inodes: Vec<Inode>,
    /// All bytes that ever stood in a file, in the order of their first byte.
    pub generations: Vec<Generation>,
    names: BTreeMap<String, usize>,
    numbers_free: Vec<u64>,
    number_next: u64,
    /// Generations that have stood under an inode number.
    by_number: BTreeMap<u64, Vec<usize>>,
    /// Grows with each change of a name: the directory's modification time.
    pub version: u64,
    pub watch: Watch,
}

pub struct Inode {
    pub number: u64,
    pub links: u64,
    /// Index of its bytes.
    pub generation: usize,
    pub is_freed: bool,
    hold: Rc<()>,
}

pub struct Generation {
    pub inode: usize,
    pub bytes: Vec<u8>,
}

/// An open descriptor: holds its inode until it is dropped.
pub struct Fd {
    pub inode: usize,
    _hold: Rc<()>,
}

impl Disk {
    pub fn create(&mut self, name: &str, rng: &mut fastrand::Rng) -> usize {
        let reused = (!self.numbers_free.is_empty() && rng.u8(..10) < 7)
            .then(|| self.numbers_free.swap_remove(rng.usize(..self.numbers_free.len())));
        let number = reused.unwrap_or_else(|| {
            self.number_next += 1;
            100 + self.number_next
        });
        let inode = self.inodes.len();
        let (links, hold) = (1, Rc::new(()));
        self.inodes.push(Inode { number, links, generation: 0, is_freed: false, hold });
        self.begin_generation(inode);
        self.names.insert(name.to_owned(), inode);
        self.on_names();
        inode
    }

    fn begin_generation(&mut self, inode: usize) {
        let generation = self.generations.len();
        self.generations.push(Generation { inode, bytes: Vec::new() });
        self.by_number.entry(self.inodes[inode].number).or_default().push(generation);
        self.inodes[inode].generation = generation;
    }

    pub fn append(&mut self, inode: usize, bytes: &[u8]) {
        let generation = self.inodes[inode].generation;
        self.generations[generation].bytes.extend_from_slice(bytes);
        self.on_written(inode);
    }

    /// Begins the file anew; returns the generation that ended.
    pub fn truncate(&mut self, inode: usize) -> usize {
        let old = self.inodes[inode].generation;
        self.begin_generation(inode);
        self.on_written(inode);
        old
    }

    pub fn rename(&mut self, old: &str, new: &str) {
        let Some(inode) = self.names.remove(old) else { return };
        assert!(self.names.insert(new.to_owned(), inode).is_none(), "the name is free");
        self.on_names();
    }

    pub fn unlink(&mut self, name: &str) -> Option<usize> {
        let inode = self.names.remove(name)?;
        self.inodes[inode].links = 0;
        self.on_names();
        Some(inode)
    }

    pub fn bytes(&self, inode: usize) -> &[u8] {
        &self.generations[self.inodes[inode].generation].bytes
    }

    pub fn named(&self, name: &str) -> Option<usize> {
        self.names.get(name).copied()
    }

    /// Names and inodes in the order of the names.
    pub fn names(&self) -> impl Iterator<Item = (&str, usize)> {
        self.names.iter().map(|(name, inode)| (name.as_str(), *inode))
    }

    pub fn name_of(&self, inode: usize) -> Option<&str> {
        self.names().find(|(_, named)| *named == inode).map(|(name, _)| name)
    }

    pub fn open(&self, name: &str) -> Option<Fd> {
        let inode = self.named(name)?;
        Some(Fd { inode, _hold: Rc::clone(&self.inodes[inode].hold) })
    }

    pub fn is_held(&self, inode: usize) -> bool {
        Rc::strong_count(&self.inodes[inode].hold) > 1
    }

    /// Frees the inodes that have neither a name nor a holder; returns them.
    pub fn reap(&mut self) -> Vec<usize> {
        let mut freed = Vec::new();
        for inode in 0..self.inodes.len() {
            let Inode { links, is_freed, number, .. } = self.inodes[inode];
            if links == 0 && !is_freed && !self.is_held(inode) {
                self.inodes[inode].is_freed = true;
                self.numbers_free.push(number);
                freed.push(inode);
            }
        }
        freed
    }

    /// The data stands on another volume from now on: other numbers for everything.
    pub fn copy_elsewhere(&mut self) {
        self.device += 1;
        self.numbers_free.clear();
        self.number_next += 1000;
        for inode in 0..self.inodes.len() {
            if !self.inodes[inode].is_freed {
                self.number_next += 1;
                self.inodes[inode].number = 100 + self.number_next;
                let number = self.inodes[inode].number;
                self.by_number.entry(number).or_default().push(self.inodes[inode].generation);
            }
        }
    }

    /// What has ever stood under an inode number.
    pub fn generations_of(&self, number: u64) -> &[usize] {
        self.by_number.get(&number).map_or(&[], Vec::as_slice)
    }

    fn on_names(&mut self) {
        self.version += 1;
        self.watch.push(None);
    }

    fn on_written(&mut self, inode: usize) {
        let name = self.name_of(inode).map(str::to_owned);
        if name.is_some() {
            self.watch.push(name);
        }
    }
}

/// The kernel's notifications: writes by name (`Some`) and changes of names (`None`).
#[derive(Default)]
pub struct Watch {
    /// Notifications can be had at all.
    pub works: bool,
    /// The agent listens.
    pub is_armed: bool,
    /// More events than this are lost.
    pub events_max: usize,
    events: Vec<Option<String>>,
    is_overflowed: bool,
    names: BTreeMap<String, FileKey>,
}

/// As `tail::watch::Hints`.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Hints {
    pub written: Vec<FileKey>,
    pub names_changed: bool,
    pub unknown_written: bool,
    pub overflowed: bool,
}

impl Watch {
    fn push(&mut self, event: Option<String>) {
        if !self.works || !self.is_armed || self.events.last() == Some(&event) {
            return;
        }
        if self.events.len() < self.events_max {
            self.events.push(event);
        } else {
            self.is_overflowed = true;
        }
    }

    pub fn has_events(&self) -> bool {
        !self.events.is_empty() || self.is_overflowed
    }

    pub fn set_names(&mut self, names: BTreeMap<String, FileKey>) {
        self.names = names;
    }

    pub fn take(&mut self) -> Hints {
        let overflowed = std::mem::take(&mut self.is_overflowed);
        let mut hints = Hints { overflowed, ..Hints::default() };
        for event in self.events.drain(..) {
            match event.map(|name| self.names.get(&name).copied()) {
                None => hints.names_changed = true,
                Some(None) => hints.unknown_written = true,
                Some(Some(file)) => hints.written.push(file),
            }
        }
        hints.written.sort_unstable();
        hints.written.dedup();
        hints
    }

    /// The agent is gone.
    pub fn disarm(&mut self) {
        self.is_armed = false;
        self.is_overflowed = false;
        self.events.clear();
        self.names.clear();
    }
}

/// The files of `checkpoint::store`, as bytes.
#[derive(Default)]
pub struct StateDir {
    durable: [Option<Vec<u8>>; 2],
    fast: Option<Vec<u8>>,
    fast_before: Option<Vec<u8>>,
    generation: u64,
    next_slot: usize,
}

impl StateDir {
    pub fn save(&mut self, checkpoints: &[Checkpoint], is_durable: bool) {
        self.generation += 1;
        let bytes = Some(format::encode(self.generation, checkpoints));
        if is_durable {
            self.durable[self.next_slot] = bytes;
            self.next_slot = 1 - self.next_slot;
        } else {
            self.fast_before = std::mem::replace(&mut self.fast, bytes);
        }
    }

    /// The machine died: what was not written through may be gone, old or torn. Says whether the
    /// newest save is still there.
    pub fn lose_power(&mut self, rng: &mut fastrand::Rng) -> bool {
        match rng.u8(..4) {
            0 => self.fast = None,
            1 => self.fast = self.fast_before.take(),
            2 => {
                if let Some(bytes) = &mut self.fast {
                    bytes.truncate(rng.usize(..bytes.len()));
                }
            }
            _ => return true,
        }
        false
    }

    /// The newest intact save; with it the generation and the slot to go on from.
    pub fn load(&mut self) -> Vec<Checkpoint> {
        let slots = [&self.durable[0], &self.durable[1], &self.fast];
        let decoded = slots.map(|bytes| bytes.as_ref().and_then(|b| format::decode(b).ok()));
        let generation =
            |index: usize| decoded[index].as_ref().map_or(0, |(generation, _)| *generation);
        self.next_slot = usize::from(generation(1) < generation(0));
        self.generation = (0..3).map(generation).max().unwrap_or(0);
        let newest = decoded.into_iter().flatten().max_by_key(|(generation, _)| *generation);
        newest.map(|(_, checkpoints)| checkpoints).unwrap_or_default()
    }
}
