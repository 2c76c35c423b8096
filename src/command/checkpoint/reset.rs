//! `logferry checkpoint reset PATH`: forgets a file, so that it is shipped from its first byte.

use std::io::Write;
use std::path::Path;

use super::state::{Error, cannot, is_there, open};
use crate::checkpoint::format::Checkpoint;
use crate::checkpoint::store::{self, Loaded};
use crate::command::table::printable;

/// Forgets all that is known under `path`: the file that has this name, and those that had it
/// before.
///
/// # Errors
/// If no checkpoint speaks of the path, an agent runs, or the directory cannot be written.
pub fn run(path: &Path, dir: &Path, out: &mut impl Write) -> Result<(), Error> {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let is_it = |one: &Checkpoint| one.path == path || one.resolved == path;
    let expect_known = |loaded: &Loaded| {
        if loaded.checkpoints.iter().any(is_it) {
            return Ok(());
        }
        Err(Error::Unknown { dir: dir.to_owned(), path: path.clone(), known: known(loaded) })
    };
    // Before the lock, which would make a directory that is not there.
    is_there(dir)?;
    expect_known(&store::peek(dir))?;
    let (mut store, loaded) = open(dir)?;
    expect_known(&loaded)?;
    let (forgotten, kept): (Vec<_>, Vec<_>) = loaded.checkpoints.into_iter().partition(is_it);
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

fn known(loaded: &Loaded) -> String {
    const SHOWN_MAX: usize = 20;
    let checkpoints = loaded.checkpoints.iter();
    let mut paths: Vec<_> = checkpoints.flat_map(|one| [&one.path, &one.resolved]).collect();
    paths.sort_unstable();
    paths.dedup();
    let mut text = String::from(if paths.is_empty() { "it knows none" } else { "it knows" });
    for path in paths.iter().take(SHOWN_MAX) {
        text += &format!("\n  {}", printable(&path.display().to_string()));
    }
    let rest = paths.len().saturating_sub(SHOWN_MAX);
    if rest > 0 {
        text += &format!("\n  and {rest} more; `logferry checkpoint show` lists them");
    }
    for (path, reason) in &loaded.damaged {
        let (path, reason) = (path.display().to_string(), printable(reason));
        text += &format!("\ndamaged, so it may have known more: {}: {reason}", printable(&path));
    }
    text
}
