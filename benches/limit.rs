//! The yardstick: what one thread can do that has nothing else to do.
//!
//! It reads a file from the page cache, finds newlines, appends to a LogGroup, compresses with LZ4,
//! hashes with MD5, and throws the result away. It uses the agent's own encoder, compressor and hash,
//! so what the whole agent lacks against it is the price of everything around them: files, tags,
//! checkpoints, threads, HTTP.

use std::fs::File;
use std::hint::black_box;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::Duration;

use logferry::batch::compress::Compressor;
use logferry::batch::log_group::LogGroup;
use logferry_wire::{Compression, content_md5};
use rustix::time::{ClockId, clock_gettime};

const READ_BYTES: usize = 1 << 20;
pub(crate) const BATCH_BYTES: usize = 512 << 10;
pub(crate) const BATCH_LINES: u32 = 4000;

/// The buffers of the thread. A run begins with those of the run before, as a turn of the agent does: to
/// get them from the system is no part of the work.
pub(crate) struct Limit {
    compressor: Compressor,
    buffer: Vec<u8>,
    group: LogGroup,
}

impl Limit {
    pub(crate) fn new() -> Self {
        let compressor = Compressor::new(Compression::Lz4).expect("LZ4 needs nothing");
        Self { compressor, buffer: vec![0; READ_BYTES], group: LogGroup::default() }
    }

    /// Goes through the file once. The CPU time that this took, and how many bytes came out.
    pub(crate) fn run(&mut self, path: &Path) -> (Duration, usize) {
        let file = File::open(path).expect("the file of the bench");
        let mut buffer = std::mem::take(&mut self.buffer);
        let (mut offset, mut out) = (0, 0);
        let started = thread_cpu();
        loop {
            let count = file.read_at(&mut buffer, offset).expect("the file of the bench");
            let mut rest = &buffer[..count];
            while let Some(newline) = memchr::memchr(b'\n', rest) {
                let full = self.group.len() + LogGroup::appended_len(newline) > BATCH_BYTES;
                if full || self.group.lines() == BATCH_LINES {
                    out += self.seal();
                }
                self.group.append(1_767_225_600, &rest[..newline]);
                rest = &rest[newline + 1..];
            }
            if rest.len() == count {
                break;
            }
            offset += (count - rest.len()) as u64;
        }
        out += self.seal();
        let used = thread_cpu() - started;
        self.buffer = buffer;
        (used, out)
    }

    fn seal(&mut self) -> usize {
        let raw = std::mem::take(&mut self.group).finish(&[], "0-0");
        let payload = self.compressor.compress(&raw);
        black_box(content_md5(&payload));
        self.group = LogGroup::in_buffer(raw);
        payload.len()
    }
}

pub(crate) fn thread_cpu() -> Duration {
    let used = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(used.tv_sec).unwrap_or_default();
    Duration::new(seconds, u32::try_from(used.tv_nsec).unwrap_or_default())
}
