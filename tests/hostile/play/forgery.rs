//! What somebody who can write the state directory does: he adds a checkpoint that speaks of a
//! secret, with all that he can find out about its file.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use logferry::base::clock;
use logferry::base::fingerprint::{Fingerprint, HEAD_BYTES_MAX};
use logferry::checkpoint::format::Checkpoint;
use logferry::checkpoint::store::Store;

use super::agent::{PATIENCE, holds_within};
use super::pick;

/// What a forged checkpoint says.
#[derive(Clone, Debug)]
pub(crate) struct Forgery {
    /// As which file the lines are to come.
    pub(crate) path: PathBuf,
    /// Where the secret is, or a path by which the app leads there.
    pub(crate) resolved: PathBuf,
    /// Bytes that it says were delivered.
    pub(crate) offset: usize,
    pub(crate) is_same_device: bool,
    pub(crate) is_same_inode: bool,
    /// The time of birth is the file's; else it is not known.
    pub(crate) is_born_known: bool,
    pub(crate) is_done: bool,
    /// It was last looked at long ago: what stands there is younger.
    pub(crate) is_old: bool,
}

impl Forgery {
    pub(crate) fn draw(rng: &mut fastrand::Rng, path: PathBuf, resolved: PathBuf) -> Self {
        Self {
            path,
            resolved,
            offset: pick(rng, &[0, 1, 1, 200, 300, 1500]),
            is_same_device: rng.bool(),
            is_same_inode: rng.bool(),
            is_born_known: rng.bool(),
            is_done: rng.u8(..4) == 0,
            is_old: rng.bool(),
        }
    }

    fn checkpoint(&self) -> Option<Checkpoint> {
        let found = fs::metadata(&self.resolved).ok()?;
        let bytes = fs::read(&self.resolved).ok()?;
        let born = found.created().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        let born = born.and_then(|born| i64::try_from(born.as_nanos()).ok());
        let offset = self.offset.min(bytes.len());
        let read = &bytes[..offset];
        let now = clock::wall();
        let looked_at = if self.is_old { 1 } else { i64::try_from(now.as_nanos()).ok()? };
        Some(Checkpoint {
            path: self.path.clone(),
            resolved: self.resolved.clone(),
            device: found.dev() + u64::from(!self.is_same_device),
            inode: found.ino() + u64::from(!self.is_same_inode),
            born: born.filter(|_| self.is_born_known).unwrap_or_default(),
            offset: offset as u64,
            head: Fingerprint::of(&bytes[..bytes.len().min(HEAD_BYTES_MAX)]),
            tail: Fingerprint::of_tail(read),
            seen_unix: now.as_secs(),
            is_done: self.is_done,
            looked_at,
            ..Checkpoint::default()
        })
    }
}

/// Adds forged checkpoints to a state directory that no agent uses. Says whether they could be.
pub(crate) fn plant(state: &Path, forged: &[Forgery]) -> bool {
    let mut opened = None;
    // What another thread starts has this process's locks for a moment.
    holds_within(PATIENCE, || {
        opened = Store::open(state).ok();
        opened.is_some()
    });
    let Some((mut store, loaded)) = opened else { return false };
    let mut all = loaded.checkpoints;
    all.extend(forged.iter().filter_map(Forgery::checkpoint));
    store.save(&all, true).is_ok()
}
