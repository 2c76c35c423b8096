//! What keeps the collector's state: the seam between the loop and the state directory.
//!
//! [`Store`] keeps it on the disk; the simulation has a disk of its own, which may lose what was not synced.

use std::borrow::Cow;
use std::io;
use std::path::PathBuf;

use super::format::Checkpoint;
use super::store::Store;
use crate::base::sealed::{Refusal, SealedBatch};
use crate::plan::Plan;

/// A place for checkpoints and for batches that are set aside.
pub trait Keep {
    /// Saves so many checkpoints. *Durability*: an `Ok` survives the death of the process; with `is_durable`
    /// also the death of the machine.
    ///
    /// # Errors
    /// As [`Store::save_each`].
    fn save_each<'a>(
        &mut self,
        count: usize,
        checkpoints: impl Iterator<Item = Cow<'a, Checkpoint>>,
        is_durable: bool,
    ) -> io::Result<()>;

    /// Whether what was saved last is not there any more, or nothing could be saved yet.
    fn needs_save(&self) -> bool;

    /// Sets a refused batch of this plan aside. *Durability*: an `Ok` survives the death of the machine.
    ///
    /// # Errors
    /// As [`Store::park`].
    fn park(
        &mut self,
        batch: &SealedBatch,
        plan: &Plan,
        refusal: &Refusal,
        unix: u64,
    ) -> io::Result<PathBuf>;
}

impl Keep for Store {
    fn save_each<'a>(
        &mut self,
        count: usize,
        checkpoints: impl Iterator<Item = Cow<'a, Checkpoint>>,
        is_durable: bool,
    ) -> io::Result<()> {
        self.save_each(count, checkpoints, is_durable)
    }

    fn needs_save(&self) -> bool {
        self.needs_save()
    }

    fn park(
        &mut self,
        batch: &SealedBatch,
        plan: &Plan,
        refusal: &Refusal,
        unix: u64,
    ) -> io::Result<PathBuf> {
        self.park(batch, plan, refusal, unix)
    }
}
