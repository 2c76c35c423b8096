//! The state directory: what a death of the agent leaves of it, and what a power cut.

use std::borrow::Cow;
use std::io;
use std::path::PathBuf;

use logferry::base::sealed::{Refusal, SealedBatch};
use logferry::checkpoint::format::{self, Checkpoint};
use logferry::checkpoint::keep::Keep;
use logferry::plan::Plan;
use rustix::io::Errno;

/// The start of every world, in nanoseconds since 1970.
const UNIX_START_NS: i64 = 1_700_000_000_000_000_000;

use crate::flaws::Flaw;
use crate::machine::Machine;
use crate::os::System;

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

/// What one agent keeps there.
pub struct Keeper {
    system: System,
    life: u32,
    /// Its last save is there.
    has_saved: bool,
}

impl Keeper {
    pub fn new(system: System, life: u32) -> Self {
        Self { system, life, has_saved: true }
    }

    fn write(machine: &mut Machine) -> io::Result<()> {
        machine.on_call();
        let is_failing = machine.chaos.rng.f64() < machine.chaos.save_errors;
        if is_failing { Err(Errno::NOSPC.into()) } else { Ok(()) }
    }
}

impl Keep for Keeper {
    fn save_each<'a>(
        &mut self,
        count: usize,
        checkpoints: impl Iterator<Item = Cow<'a, Checkpoint>>,
        is_durable: bool,
    ) -> io::Result<()> {
        let mut checkpoints: Vec<Checkpoint> = checkpoints.map(Cow::into_owned).collect();
        assert_eq!(checkpoints.len(), count, "as many as were promised");
        let mut machine = self.system.0.borrow_mut();
        let machine = &mut *machine;
        if let Err(error) = Self::write(machine) {
            self.has_saved = false;
            machine.ledger.on_save_failed();
            return Err(error);
        }
        self.has_saved = true;
        match machine.flaw {
            Some(Flaw::SavesSeldom) if !is_durable => return Ok(()),
            Some(Flaw::CheckpointOfReading) => {
                checkpoints.iter_mut().for_each(|one| Flaw::read_ahead(one, &machine.disk));
            }
            _ => {}
        }
        let words = |machine: &Machine| {
            let one = |saved: &Checkpoint| {
                let Checkpoint { path, resolved, inode, offset, rest, is_done, is_copy, .. } =
                    saved;
                let since = |time: i64| (time - UNIX_START_NS) as f64 / 1e9;
                let (born, gone, looked) =
                    (since(saved.born), since(saved.gone_at), since(saved.looked_at));
                let heads = (saved.head.len, saved.tail.len, saved.trail.len());
                let flags = [(*is_done, "done"), (*is_copy, "copy")];
                let flags: Vec<_> = flags.iter().filter(|one| one.0).map(|one| one.1).collect();
                format!(
                    "\n             {} ({}) #{inode} {offset}+{rest:?} {flags:?} born {born:.3} gone {gone:.3} \
                     looked {looked:.3} {heads:?}",
                    path.display(),
                    resolved.display()
                )
            };
            let _ = machine;
            checkpoints.iter().map(one).collect::<String>()
        };
        machine.note("save", [count as u64, u64::from(is_durable), 0], words);
        machine.state.save(&checkpoints, is_durable);
        machine.ledger.on_saved(&checkpoints, is_durable, &machine.disk);
        Ok(())
    }

    fn needs_save(&self) -> bool {
        !self.has_saved
    }

    fn park(&mut self, batch: &SealedBatch, _: &Plan, _: &Refusal, _: u64) -> io::Result<PathBuf> {
        let mut machine = self.system.0.borrow_mut();
        let machine = &mut *machine;
        Self::write(machine)?;
        machine.note("park", [batch.id.0, 0, 0], |_| String::new());
        machine.ledger.on_parked((self.life, batch.id), &machine.disk);
        Ok(PathBuf::from(format!("parked/{}", batch.id.0)))
    }
}
