//! Batches that the service refused for good, set aside on disk.
//!
//! Each is one file in `parked/`: a line of JSON with all that is needed to send it again, then
//! the payload. The agent writes them and never reads one. What stands in the place of the directory
//! and is none makes way, and is kept: all that follows a refused batch waits for this.

use std::fs::File;
use std::io;

use rustix::fs::{AtFlags, Mode, OFlags, mkdirat, openat, renameat, unlinkat};
use rustix::io::Errno;
use serde::Serialize;

use super::files::{ASIDE, replace, sync};
use crate::sealed::SealedBatch;

/// The directory, below the state directory.
pub(super) const DIR: &str = "parked";
/// One batch is written at a time.
const TEMPORARY: &str = "batch.tmp";

/// Why the service refused it, and when.
pub(super) struct Refusal<'a> {
    pub(super) code: &'a str,
    pub(super) message: &'a str,
    pub(super) unix: u64,
}

#[derive(Serialize)]
struct Header<'a> {
    path: &'a str,
    start: u64,
    end: u64,
    lines: u32,
    raw_bytes: u32,
    compression: &'a str,
    code: &'a str,
    message: &'a str,
    parked_unix: u64,
}

/// Writes a batch through to the disk, under `name`.
///
/// # Errors
/// If that fails; then no file is left.
pub(super) fn write(
    state: &File,
    name: &str,
    batch: &SealedBatch,
    refusal: &Refusal<'_>,
) -> io::Result<()> {
    let header = Header {
        path: &batch.path,
        start: batch.span.start,
        end: batch.span.end,
        lines: batch.lines,
        raw_bytes: batch.raw_bytes,
        compression: batch.compression.name(),
        code: refusal.code,
        message: refusal.message,
        parked_unix: refusal.unix,
    };
    let mut bytes = serde_json::to_vec(&header)?;
    bytes.push(b'\n');
    bytes.extend_from_slice(&batch.payload);
    replace(&open(state)?, TEMPORARY, name, &bytes, true)
}

/// Opens the directory; makes it (0700) if it is missing.
fn open(state: &File) -> io::Result<File> {
    let opened = match open_or_make(state) {
        Err(Errno::NOTDIR | Errno::NOENT | Errno::LOOP) => {
            renameat(state, DIR, state, format!("{DIR}{ASIDE}"))?;
            open_or_make(state)
        }
        opened => opened,
    }?;
    // It may be new, or made by an agent that died before it came to this.
    sync(state)?;
    Ok(opened)
}

fn open_or_make(state: &File) -> rustix::io::Result<File> {
    match mkdirat(state, DIR, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(error),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(state, DIR, flags, Mode::empty()).map(File::from)
}

/// Removes what a crash has left half written.
pub(super) fn tidy(state: &File) {
    // Usually there is nothing, and on a disk that cannot be written it does no harm.
    let _ = unlinkat(state, format!("{DIR}/{TEMPORARY}"), AtFlags::empty());
}
