//! What a mock endpoint accepted, in order, and counts of everything it was asked.
//!
//! LogGroups are kept as the protobuf bytes they came as and decoded when looked at, so that a
//! backlog of 100 MB costs about that. With a directory, each is written to it and flushed before
//! it counts as accepted; the answer is decided on after that.
//!
//! One lock around it all: this is a test peer, and its numbers must agree with each other.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;

use super::accepted::{Entry, Group};
use super::journal::Journal;
use logferry_wire::Compression;

/// Refused sequence ids that are remembered.
const OLD_MAX: usize = 10_000;

/// Everything an endpoint counts. Forgotten groups stay counted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Requests of the service's interface, of any outcome.
    pub requests: u64,
    /// PutLogs requests that were stored; a `batch_group` request counts once.
    pub puts: u64,
    /// LogGroups stored.
    pub groups: u64,
    /// Log entries stored.
    pub lines: u64,
    /// Bytes of LogGroups stored, before compression.
    pub raw_bytes: u64,
    /// Bytes of LogGroups stored, as they were sent.
    pub sent_bytes: u64,
    /// LogGroups that were stored and are no longer in memory.
    pub groups_forgotten: u64,
    /// Refusals by error code, those of faults included.
    pub refused: BTreeMap<String, u64>,
    /// Faults played, by kind.
    pub faults: BTreeMap<String, u64>,
    /// Log entries stored, by `project/logstore`.
    pub logstores: BTreeMap<String, u64>,
}

/// A LogGroup that passed every check.
#[derive(Clone, Debug)]
pub(super) struct NewGroup {
    pub(super) topic: String,
    pub(super) source: String,
    pub(super) tags: Vec<(String, Vec<u8>)>,
    pub(super) line_count: u32,
    pub(super) compression: Compression,
    pub(super) sent_size: usize,
    pub(super) raw: Vec<u8>,
}

/// The shard a PutLogs asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// Whichever; they take turns.
    Any,
    /// The one whose range holds `key`. With a sequence number it is stored only if that is
    /// greater than the last one of the key.
    Key { key: u128, sequence: Option<u64> },
}

/// A PutLogs that passed every check.
#[derive(Clone, Debug)]
pub(super) struct Accepted {
    pub(super) project: String,
    pub(super) logstore: String,
    pub(super) route: Route,
    pub(super) request_id: String,
    pub(super) groups: Vec<NewGroup>,
}

/// Why a PutLogs that passed every check was not stored after all.
#[derive(Debug)]
pub(super) enum NotStored {
    /// The sequence number is not greater than this last one.
    OldSequence(u64),
    /// The directory cannot be written to.
    Io(io::Error),
}

/// Which groups a reader wants.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    pub(super) project: &'a str,
    pub(super) logstore: &'a str,
    /// `None`: all shards.
    pub(super) shard: Option<u32>,
}

impl Place<'_> {
    fn holds(&self, group: &Group) -> bool {
        group.logstore == self.logstore
            && group.project == self.project
            && self.shard.is_none_or(|shard| shard == group.shard)
    }
}

/// The accepted LogGroups of an endpoint. Shared by reference; every method locks.
#[derive(Debug)]
pub struct Store {
    shards: u32,
    memory_bytes_max: usize,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// In order; the numbers have no gaps.
    groups: VecDeque<Arc<Group>>,
    /// Raw bytes of `groups` together.
    memory_bytes: usize,
    counts: Counts,
    /// Last sequence number by project, logstore and hash key.
    sequences: HashMap<(String, String, u128), u64>,
    /// Hash keys and sequence ids that were refused as old, the last ones.
    old: VecDeque<(u128, u64)>,
    journal: Option<Journal>,
}

impl Store {
    pub(super) fn new(shards: u32, memory_bytes_max: usize, journal: Option<Journal>) -> Self {
        let inner = Inner { journal, ..Inner::default() };
        Self { shards: shards.max(1), memory_bytes_max, inner: Mutex::new(inner) }
    }

    /// The accepted LogGroups that are in memory, oldest first.
    #[must_use]
    pub fn groups(&self) -> Vec<Arc<Group>> {
        self.lock().groups.iter().cloned().collect()
    }

    /// Every accepted line that is in memory, in the order of acceptance: see [`Entry::line`].
    #[must_use]
    pub fn lines(&self) -> Vec<Vec<u8>> {
        self.groups().iter().flat_map(|group| group.logs()).map(Entry::line).collect()
    }

    /// How many log entries were accepted.
    #[must_use]
    pub fn line_count(&self) -> u64 {
        self.lock().counts.lines
    }

    /// Hash keys and sequence ids of requests that were refused because of them, oldest first; of
    /// very many the last ones.
    #[must_use]
    pub fn refused_sequences(&self) -> Vec<(u128, u64)> {
        self.lock().old.iter().copied().collect()
    }

    /// A copy of all counts.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.lock().counts.clone()
    }

    pub(super) fn shards(&self) -> u32 {
        self.shards
    }

    /// Counts a request, and gives its number.
    pub(super) fn count_request(&self) -> u64 {
        let mut inner = self.lock();
        inner.counts.requests += 1;
        inner.counts.requests
    }

    pub(super) fn count_refused(&self, code: &str) {
        *self.lock().counts.refused.entry(code.to_owned()).or_default() += 1;
    }

    pub(super) fn count_fault(&self, kind: &str) {
        *self.lock().counts.faults.entry(kind.to_owned()).or_default() += 1;
    }

    /// Stores all groups of a request, or none.
    ///
    /// *Durability*: with a directory, an `Ok` means that the lines were handed to the system.
    pub(super) fn accept(&self, request: Accepted, received: Duration) -> Result<(), NotStored> {
        let mut inner = self.lock();
        let inner = &mut *inner;
        let sequence = inner.new_sequence(&request);
        if sequence.is_err() {
            inner.note_old(request.route);
        }
        let sequence = sequence?;
        let shard = self.shard_of(request.route, inner.counts.puts);
        let (key, seqid) = match request.route {
            Route::Any => (None, None),
            Route::Key { key, sequence } => (Some(key), sequence),
        };
        let mut number = inner.counts.groups;
        let mut first_line = inner.counts.lines;
        let groups: Vec<Arc<Group>> = request
            .groups
            .into_iter()
            .map(|new| {
                let group = Group {
                    number,
                    first_line,
                    received,
                    project: request.project.clone(),
                    logstore: request.logstore.clone(),
                    shard,
                    topic: new.topic,
                    source: new.source,
                    tags: new.tags,
                    line_count: new.line_count,
                    compression: new.compression,
                    sent_size: new.sent_size,
                    key,
                    sequence: seqid,
                    request_id: request.request_id.clone(),
                    raw: new.raw,
                };
                number += 1;
                first_line += u64::from(group.line_count);
                Arc::new(group)
            })
            .collect();
        if let Some(journal) = &mut inner.journal {
            journal.append(&groups).map_err(NotStored::Io)?;
        }
        if let Some((key, value)) = sequence {
            inner.sequences.insert(key, value);
        }
        inner.counts.puts += 1;
        for group in groups {
            inner.keep(group);
        }
        inner.forget(self.memory_bytes_max);
        Ok(())
    }

    /// Groups of a place with `number >= from`, oldest first, in memory.
    pub(super) fn since(&self, place: Place<'_>, from: u64) -> Vec<Arc<Group>> {
        let inner = self.lock();
        let skip = usize::try_from(from.saturating_sub(inner.first_number())).unwrap_or(usize::MAX);
        inner.groups.iter().skip(skip).filter(|group| place.holds(group)).cloned().collect()
    }

    /// Number of the first group of a place that was received at `time` or later; the next number
    /// to be given out if there is none.
    pub(super) fn number_at(&self, place: Place<'_>, time: Duration) -> u64 {
        let inner = self.lock();
        let group = inner
            .groups
            .iter()
            .find(|group| place.holds(group) && group.received.as_secs() >= time.as_secs());
        group.map_or(inner.counts.groups, |group| group.number)
    }

    /// The number that the next group will get.
    pub(super) fn next_number(&self) -> u64 {
        self.lock().counts.groups
    }

    /// Groups from the one that holds line number `line` on, until they hold `lines` lines.
    pub(super) fn since_line(&self, line: u64, lines: u64) -> Vec<Arc<Group>> {
        let inner = self.lock();
        let start = inner
            .groups
            .partition_point(|group| group.first_line + u64::from(group.line_count) <= line);
        let end = line.saturating_add(lines);
        let groups = inner.groups.range(start..);
        groups.take_while(|group| group.first_line < end).cloned().collect()
    }

    /// Names of a project's logstores that have lines.
    pub(super) fn logstores(&self, project: &str) -> Vec<String> {
        let inner = self.lock();
        let names = inner.counts.logstores.keys();
        names
            .filter_map(|name| name.split_once('/'))
            .filter(|(of, _)| *of == project)
            .map(|(_, logstore)| logstore.to_owned())
            .collect()
    }

    fn shard_of(&self, route: Route, turn: u64) -> u32 {
        let shards = self.shards;
        let shard = match route {
            Route::Any => turn % u64::from(shards),
            // The key space is cut into equal ranges; the high half of a key decides.
            Route::Key { key, .. } => {
                let high = key >> 64;
                u64::try_from((high * u128::from(shards)) >> 64).unwrap_or_default()
            }
        };
        u32::try_from(shard).unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

type SequenceKey = (String, String, u128);

impl Inner {
    /// The entry of `sequences` that this request makes, if it may.
    fn new_sequence(&self, request: &Accepted) -> Result<Option<(SequenceKey, u64)>, NotStored> {
        let Route::Key { key, sequence: Some(sequence) } = request.route else { return Ok(None) };
        let key = (request.project.clone(), request.logstore.clone(), key);
        match self.sequences.get(&key) {
            Some(last) if sequence <= *last => Err(NotStored::OldSequence(*last)),
            _ => Ok(Some((key, sequence))),
        }
    }

    fn note_old(&mut self, route: Route) {
        if let Route::Key { key, sequence: Some(sequence) } = route {
            self.old.push_back((key, sequence));
            if self.old.len() > OLD_MAX {
                self.old.pop_front();
            }
        }
    }

    fn keep(&mut self, group: Arc<Group>) {
        let lines = u64::from(group.line_count);
        let counts = &mut self.counts;
        counts.groups += 1;
        counts.lines += lines;
        counts.raw_bytes += group.raw.len() as u64;
        counts.sent_bytes += group.sent_size as u64;
        let place = format!("{}/{}", group.project, group.logstore);
        *counts.logstores.entry(place).or_default() += lines;
        self.memory_bytes += group.raw.len();
        self.groups.push_back(group);
    }

    fn forget(&mut self, memory_bytes_max: usize) {
        while self.memory_bytes > memory_bytes_max {
            let Some(group) = self.groups.pop_front() else { return };
            self.memory_bytes -= group.raw.len();
            self.counts.groups_forgotten += 1;
        }
    }

    fn first_number(&self) -> u64 {
        self.groups.front().map_or(self.counts.groups, |group| group.number)
    }
}
