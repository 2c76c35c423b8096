//! The machine that the agent runs on: time, disk, network, and what goes wrong with them.
//!
//! All that the agent does to its surroundings goes through here, and each time an app may meddle,
//! so that files change between any two of its system calls.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use logferry::base::fingerprint::{Fingerprint, HEAD_BYTES_MAX};
use logferry::base::sealed::BatchId;
use logferry::checkpoint::format::Checkpoint;
use logferry::send::answer::Answer;
use logferry::send::dispatch::Load;
use logferry::tail::catalog::judge::Stat;

use crate::disk::{DIR, Disk, Fd, StateDir};
use crate::invariants::{Ledger, is_matched};
use crate::server::Server;
use crate::workload::Workload;

/// Unix time at the start of every world.
const UNIX_START: u64 = 1_700_000_000;

/// What happens at a given time.
pub enum Event {
    Write(usize),
    Store((u32, BatchId)),
    Answer { life: u32, load: Load, offset: i64, answer: Option<Answer> },
    Start,
    Kill,
    Drain,
    Abandon(u32),
    Check,
}

pub struct Machine {
    pub now: Instant,
    pub start: Instant,
    pub disk: Disk,
    pub state: StateDir,
    pub workload: Workload,
    pub ledger: Ledger,
    pub server: Server,
    pub events: BTreeMap<(Instant, u64), Event>,
    pub next_event: u64,
    pub chaos: Chaos,
    pub trace: Trace,
    /// Which generation the last head was of; for the ledger only.
    pub head_generation: usize,
}

/// Chances of what goes wrong on the machine.
pub struct Chaos {
    meddling: f64,
    /// Acts of meddling left: each gives the agent more to do, and so more chances for others.
    meddling_left: u32,
    io_errors: f64,
    save_errors: f64,
    /// Files that cannot be read for a while.
    bad_until: BTreeMap<usize, Instant>,
    rng: fastrand::Rng,
}

impl Chaos {
    pub fn new(rng: &mut fastrand::Rng) -> Self {
        Self {
            meddling: [0.0, 0.02, 0.1][rng.usize(..3)],
            meddling_left: 400,
            io_errors: [0.0, 0.0, 0.02][rng.usize(..3)],
            save_errors: [0.0, 0.0, 0.1][rng.usize(..3)],
            bad_until: BTreeMap::new(),
            rng: rng.fork(),
        }
    }

    /// From now on nothing goes wrong.
    pub fn end(&mut self) {
        (self.meddling, self.io_errors, self.save_errors) = (0.0, 0.0, 0.0);
        self.bad_until.clear();
    }
}

/// All that happened, in order: its hash, and on request its text.
pub struct Trace {
    pub hash: u64,
    is_printed: bool,
}

impl Trace {
    pub fn new(is_printed: bool) -> Self {
        Self { hash: 0xcbf2_9ce4_8422_2325, is_printed }
    }
}

#[derive(Clone, Copy, Debug)]
pub struct IoError;

impl Machine {
    /// Something is to happen later.
    pub fn plan(&mut self, after: Duration, event: Event) {
        self.events.insert((self.now + after, self.next_event), event);
        self.next_event += 1;
    }

    pub fn note(&mut self, what: &str, a: u64, b: u64, c: u64) {
        let at = u64::try_from((self.now - self.start).as_nanos()).unwrap_or(u64::MAX);
        if self.trace.is_printed {
            eprintln!("{:>10.3} {what} {a} {b} {c}", at as f64 / 1e9);
        }
        for number in [at, what.len() as u64, a, b, c] {
            self.trace.hash =
                (self.trace.hash ^ number).wrapping_mul(0x0100_0000_01b3).rotate_left(5);
        }
    }

    pub fn unix(&self) -> u64 {
        UNIX_START + (self.now - self.start).as_secs()
    }

    /// An app does something just now.
    pub fn meddle(&mut self) {
        if self.chaos.meddling_left > 0 && self.chaos.rng.f64() < self.chaos.meddling {
            self.chaos.meddling_left -= 1;
            self.workload.act_any(&mut self.disk, &mut self.ledger);
        }
    }

    /// Meddles and fails, by chance; a file that fails once often goes on to.
    fn try_file(&mut self, inode: usize) -> Result<(), IoError> {
        self.meddle();
        let Chaos { rng, io_errors, bad_until, .. } = &mut self.chaos;
        let is_bad = bad_until.get(&inode).is_some_and(|until| self.now < *until);
        if !is_bad && rng.f64() >= *io_errors {
            return Ok(());
        }
        if !is_bad && rng.bool() {
            let while_bad = Duration::from_millis(rng.u64(1..10_000));
            bad_until.insert(inode, self.now + while_bad);
        }
        Err(IoError)
    }

    // === files

    /// Path, device and inode number of what the patterns match.
    pub fn scan(&mut self) -> Vec<(String, u64, u64)> {
        self.meddle();
        let matched = self.disk.names().filter(|(name, _)| is_matched(name));
        let number = |inode: usize| self.disk.inodes[inode].number;
        matched
            .map(|(name, inode)| (format!("{DIR}/{name}"), self.disk.device, number(inode)))
            .collect()
    }

    /// Path and inode number of all that is in the directory.
    pub fn entries(&mut self) -> Vec<(PathBuf, u64)> {
        self.meddle();
        let number = |inode: usize| self.disk.inodes[inode].number;
        self.disk.names().map(|(name, inode)| (Path::new(DIR).join(name), number(inode))).collect()
    }

    pub fn open(&mut self, path: &Path) -> Result<Fd, IoError> {
        let name = path.file_name().and_then(|name| name.to_str()).ok_or(IoError)?;
        self.try_file(self.disk.named(name).ok_or(IoError)?)?;
        self.disk.open(name).ok_or(IoError)
    }

    pub fn path_of(&self, fd: &Fd) -> Option<PathBuf> {
        self.disk.name_of(fd.inode).map(|name| Path::new(DIR).join(name))
    }

    pub fn stat(&mut self, fd: &Fd) -> Result<Stat, IoError> {
        self.try_file(fd.inode)?;
        let inode = &self.disk.inodes[fd.inode];
        let size = self.disk.bytes(fd.inode).len() as u64;
        Ok(Stat {
            device: self.disk.device,
            inode: inode.number,
            // A disk keeps it, wherever it is mounted.
            born: 1 + i64::try_from(fd.inode).expect("few inodes"),
            size,
            links: inode.links,
            modified: i64::try_from(inode.generation).ok(),
            is_file: true,
            ..Stat::default()
        })
    }

    /// The bytes that stand at `offset`, and which generation they are of.
    pub fn read_at(
        &mut self,
        fd: &Fd,
        offset: u64,
        bytes_max: usize,
    ) -> Result<(Vec<u8>, usize), IoError> {
        self.try_file(fd.inode)?;
        let bytes = self.disk.bytes(fd.inode);
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
        let end = (start + bytes_max).min(bytes.len());
        Ok((bytes[start..end].to_vec(), self.disk.inodes[fd.inode].generation))
    }

    pub fn head(&mut self, fd: &Fd) -> Result<Fingerprint, IoError> {
        let (bytes, generation) = self.read_at(fd, 0, HEAD_BYTES_MAX)?;
        self.head_generation = generation;
        Ok(Fingerprint::of_head(&bytes))
    }

    pub fn has_head(&mut self, fd: &Fd, head: Fingerprint) -> Result<bool, IoError> {
        Ok(head.matches_start_of(&self.read_at(fd, 0, HEAD_BYTES_MAX)?.0))
    }

    pub fn has_tail(&mut self, fd: &Fd, tail: Fingerprint, offset: u64) -> Result<bool, IoError> {
        let Some(start) = offset.checked_sub(u64::from(tail.len)) else { return Ok(false) };
        Ok(tail.matches_start_of(&self.read_at(fd, start, tail.len as usize)?.0))
    }

    // === the state directory

    pub fn write_state(&mut self) -> Result<(), IoError> {
        if self.chaos.rng.f64() < self.chaos.save_errors { Err(IoError) } else { Ok(()) }
    }

    pub fn save(&mut self, checkpoints: &[Checkpoint], is_durable: bool) -> Result<(), IoError> {
        if self.write_state().is_err() {
            self.ledger.on_save_failed();
            return Err(IoError);
        }
        self.note("save", checkpoints.len() as u64, u64::from(is_durable), 0);
        self.state.save(checkpoints, is_durable);
        self.ledger.on_saved(checkpoints, is_durable, &self.disk);
        Ok(())
    }

    // === the network

    /// A request leaves. What it comes to will not be undone by the death of who sent it.
    pub fn request(&mut self, life: u32, load: Load, offset: i64) {
        let unix = self.unix().cast_signed();
        let fate = self.server.on_request(&load, unix + offset, unix, self.now);
        if let Some(after) = fate.stored_after {
            for batch in &load.batches {
                self.plan(after, Event::Store((life, batch.id)));
            }
        }
        let answer = fate.answer;
        self.plan(fate.answered_after, Event::Answer { life, load, offset, answer });
    }
}
