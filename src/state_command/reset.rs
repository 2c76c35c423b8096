//! `logferry checkpoint reset PATH`: forgets a file, so that it is shipped from its first byte.

use std::io::Write;
use std::path::Path;

use super::{Error, cannot, open};
use crate::checkpoint::format::Checkpoint;
use crate::checkpoint::store;
use crate::table::printable;

/// Forgets all that is known under `path`: the file that has this name, and those that had it
/// before.
///
/// # Errors
/// If no checkpoint speaks of the path, an agent runs, or the directory cannot be written.
pub fn run(path: &Path, dir: &Path, out: &mut impl Write) -> Result<(), Error> {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let is_it = |one: &Checkpoint| one.path == path || one.resolved == path;
    let unknown = |checkpoints: &[Checkpoint]| Error::Unknown {
        dir: dir.to_owned(),
        path: path.clone(),
        known: known(checkpoints),
    };
    // Before the lock, which would make a directory that is not there.
    let before = store::peek(dir).checkpoints;
    if !before.iter().any(is_it) {
        return Err(unknown(&before));
    }
    let (mut store, loaded) = open(dir)?;
    let (forgotten, kept): (Vec<_>, Vec<_>) = loaded.checkpoints.into_iter().partition(is_it);
    if forgotten.is_empty() {
        return Err(unknown(&kept));
    }
    // Into every file, so that no older one remembers if the newest is damaged.
    for is_durable in [true, false, true] {
        store.save(&kept, is_durable).map_err(cannot("write a checkpoint", dir))?;
    }
    for one in &forgotten {
        writeln!(
            out,
            "forgotten: {} (inode {}, delivered up to {}, last seen at {})",
            printable(&one.path.display().to_string()),
            one.inode,
            one.offset,
            printable(&one.resolved.display().to_string()),
        )?;
    }
    writeln!(out, "the next start ships what `paths` finds of it from the first byte")?;
    Ok(())
}

fn known(checkpoints: &[Checkpoint]) -> String {
    const SHOWN_MAX: usize = 20;
    let mut paths: Vec<_> = checkpoints.iter().flat_map(|one| [&one.path, &one.resolved]).collect();
    paths.sort_unstable();
    paths.dedup();
    if paths.is_empty() {
        return "it knows none".to_owned();
    }
    let rest = paths.len().saturating_sub(SHOWN_MAX);
    let shown = paths.iter().take(SHOWN_MAX);
    let mut text = String::from("it knows");
    for path in shown {
        text += &format!("\n  {}", printable(&path.display().to_string()));
    }
    if rest > 0 {
        text += &format!("\n  and {rest} more; `logferry checkpoint show` lists them");
    }
    text
}
