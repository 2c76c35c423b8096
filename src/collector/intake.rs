//! What is read, whose turn it is, and how much may be read at once.
//!
//! [`Intake`] owns the order of the turns, the pauses between them and the read buffer. It never opens
//! or reads a file: `reading` does, as far as it is let.

use std::time::{Duration, Instant};

use super::timers::{Timer, Timers};
use crate::base::report::CollectorCounters;
use crate::base::span::FileKey;
use crate::limit;
use crate::limit::bucket::Bucket;
use crate::limit::cgroup::Limits;
use crate::limit::pacer::Pacer;
use crate::limit::slack::Slack;
use crate::tail::filled::Filled;
use crate::tail::os::Os;
use crate::tail::schedule::Schedule;

/// Least time between two readings of the container's limits.
const CONTAINER_PERIOD: Duration = Duration::from_secs(30);
/// Least bytes of a file that a turn takes under a rate limit.
pub(super) const PIECE_BYTES_MIN: usize = 4096;

/// The turns of reading, and their limits.
pub(super) struct Intake {
    schedule: Schedule,
    filled: Filled,
    rate: Rate,
    quota: Quota,
    slack: Slack,
    /// The buffer that all files are read into; empty after memory was given back.
    buffer: Vec<u8>,
    read_bytes: usize,
    /// Whether the last turn ended because the hand-off was full.
    is_blocked: bool,
}

impl Intake {
    pub(super) fn new(
        os: &impl Os,
        limit: limit::Options,
        read_bytes: usize,
        timers: &mut Timers,
        now: Instant,
    ) -> Self {
        timers.set(Timer::Quota, now + CONTAINER_PERIOD);
        Self {
            schedule: Schedule::default(),
            filled: Filled::default(),
            rate: Rate::new(limit.bytes_per_second, now),
            quota: Quota {
                pacer: Pacer::new(limit.cpu_cores, os.cpu(), now),
                limit,
                container: Limits::default(),
            },
            slack: Slack::new(now),
            buffer: Vec::new(),
            read_bytes,
            is_blocked: false,
        }
    }

    // === whose turn it is

    /// Sets the moment after which what is marked from now on came.
    pub(super) fn looked(&mut self, at: Instant) {
        self.schedule.looked(at);
    }

    /// Gives a file a turn that may have something to read.
    pub(super) fn mark(&mut self, file: FileKey) {
        self.schedule.mark(file);
    }

    /// Gives a file a turn that has bytes which nobody has read.
    pub(super) fn mark_grown(&mut self, file: FileKey) {
        self.schedule.mark_grown(file);
    }

    /// Gives turns to the files whose NULs have had the time to be filled.
    pub(super) fn mark_filled(&mut self, now: Instant) {
        for file in self.filled.take_due(now) {
            self.schedule.mark_grown(file);
        }
    }

    /// Takes the file whose turn it is.
    pub(super) fn next_file(&mut self) -> Option<FileKey> {
        self.schedule.next_file()
    }

    /// Since when the bytes at `offset` may have waited, from which the file is read; the file has
    /// `size` bytes `now`.
    pub(super) fn waits_since(
        &mut self,
        file: FileKey,
        offset: u64,
        size: u64,
        now: Instant,
    ) -> Instant {
        self.schedule.waits_since(file, offset, size, now)
    }

    /// Notes that a file is read to its end.
    pub(super) fn on_end(&mut self, file: FileKey) {
        self.schedule.on_end(file);
    }

    /// Forgets a file that is not read any more.
    pub(super) fn forget(&mut self, file: FileKey) {
        self.schedule.on_end(file);
        self.filled.forget(file);
    }

    /// Whether a file waits for its turn.
    pub(super) fn has_turns(&self) -> bool {
        !self.schedule.is_empty()
    }

    /// Whether a turn would read what has grown, as far as the hand-off has room.
    pub(super) fn has_grown(&self) -> bool {
        !self.is_blocked && self.schedule.has_grown()
    }

    /// Whether a file waits for its turn, or for the filling of a NUL.
    pub(super) fn is_waiting(&self) -> bool {
        self.has_turns() || self.filled.is_waiting()
    }

    /// When a file has its turn because its NULs have had the time to be filled.
    pub(super) fn filled_deadline(&self) -> Option<Instant> {
        self.filled.deadline()
    }

    // === NULs that may be filled

    /// The NULs that are waited for. A file is read up to the first of them.
    pub(super) fn filled(&mut self) -> &mut Filled {
        &mut self.filled
    }

    // === room

    pub(super) fn is_blocked(&self) -> bool {
        self.is_blocked
    }

    /// Notes that the hand-off is full: nothing is read before it has room.
    pub(super) fn block(&mut self) {
        self.is_blocked = true;
    }

    /// Notes that the hand-off may have room again.
    pub(super) fn unblock(&mut self) {
        self.is_blocked = false;
    }

    /// Most bytes of a file that one turn takes: a tenth of a second's under a rate limit.
    pub(super) fn piece_bytes(&self) -> usize {
        self.rate.piece_bytes
    }

    /// Counts bytes that were read against the rate limit.
    pub(super) fn take(&mut self, bytes: u64, now: Instant) {
        if let Some(bucket) = &mut self.rate.bucket {
            bucket.take(bytes, now);
        }
    }

    /// Whether the rate limit lets nothing be read now. If something waits to be read, reading pauses.
    pub(super) fn is_rate_limited(
        &self,
        timers: &mut Timers,
        counters: &mut CollectorCounters,
        now: Instant,
    ) -> bool {
        let ready_at = self.rate.bucket.as_ref().map(|bucket| bucket.ready_at(now));
        let Some(ready_at) = ready_at.filter(|at| now < *at) else { return false };
        if self.has_turns() {
            counters.rate_pauses += 1;
            timers.defer(Timer::ReadFrom, ready_at);
        }
        true
    }

    /// Pauses if the CPU limit asks for that, and returns whether it does.
    pub(super) fn pace(
        &mut self,
        os: &impl Os,
        timers: &mut Timers,
        counters: &mut CollectorCounters,
    ) -> bool {
        let now = os.now();
        let rest = self.quota.pacer.on_turn(os.cpu(), now);
        if rest.is_zero() {
            return false;
        }
        counters.cpu_pauses += 1;
        timers.defer(Timer::ReadFrom, now + rest);
        true
    }

    // === limits

    pub(super) fn cpu_cores(&self) -> f64 {
        self.quota.limit.cpu_cores
    }

    pub(super) fn memory_bytes(&self) -> u64 {
        self.quota.limit.memory_bytes
    }

    /// Reads the limits of the container again, which may change while the agent runs. To be called
    /// when the loop is awake anyway. Returns whether the agent has another limit now.
    pub(super) fn reload_quota(&mut self, os: &impl Os, timers: &mut Timers, now: Instant) -> bool {
        if !timers.is_due(Timer::Quota, now) {
            return false;
        }
        timers.set(Timer::Quota, now + CONTAINER_PERIOD);
        self.quota.on_limits(os.limits())
    }

    // === the read buffer

    /// Takes the read buffer, which is to be put back.
    pub(super) fn take_buffer(&mut self) -> Vec<u8> {
        let buffer = std::mem::take(&mut self.buffer);
        if buffer.is_empty() { vec![0; self.read_bytes] } else { buffer }
    }

    pub(super) fn put_buffer(&mut self, buffer: Vec<u8>) {
        self.buffer = buffer;
    }

    /// Makes the read buffer at least this large.
    pub(super) fn widen_buffer(&mut self, least: usize) {
        if self.buffer.len() < least {
            self.buffer.resize(least, 0);
        }
    }

    /// Gives the read buffer up if memory is to be given back to the system, and returns whether it
    /// is. `held` bytes wait to be sent.
    pub(super) fn trims(&mut self, held: usize, now: Instant) -> bool {
        self.slack.on_level(held, now);
        let is_due = self.slack.is_due(now);
        if is_due {
            self.buffer = Vec::new();
        }
        is_due
    }

    /// When memory may be given back.
    pub(super) fn trim_deadline(&self) -> Option<Instant> {
        self.slack.deadline()
    }
}

/// The limit of bytes per second.
struct Rate {
    bucket: Option<Bucket>,
    piece_bytes: usize,
}

impl Rate {
    /// Makes the limit; a rate of zero is none.
    fn new(bytes_per_second: u64, now: Instant) -> Self {
        if bytes_per_second == 0 {
            return Self { bucket: None, piece_bytes: usize::MAX };
        }
        let piece = usize::try_from(bytes_per_second / 10).unwrap_or(usize::MAX);
        let bucket = Bucket::new(bytes_per_second, now);
        Self { bucket: Some(bucket), piece_bytes: piece.max(PIECE_BYTES_MIN) }
    }
}

/// The limits of CPU and memory, as the settings and the container have them.
struct Quota {
    pacer: Pacer,
    limit: limit::Options,
    /// What the container's limits allowed when they were read last.
    container: Limits,
}

impl Quota {
    /// Takes what the container's limits allow. Returns whether the agent has another limit now.
    fn on_limits(&mut self, container: Limits) -> bool {
        let before = std::mem::replace(&mut self.container, container);
        let set = self.limit.cpu_cores_max;
        let cores = self.container.cpu_cores.filter(|quota| *quota > 0.0);
        let cores = cores.map_or(set, |quota| quota.min(set));
        let is_changed = (cores - self.limit.cpu_cores).abs() > f64::EPSILON;
        if is_changed {
            tracing::info!(
                cores,
                before = self.limit.cpu_cores,
                "the container's CPU quota has changed; keeping within it"
            );
            self.limit.cpu_cores = cores;
            self.pacer.set_cores(cores);
        }
        let limit_bytes = self.limit.memory_bytes;
        if let Some(bytes) = self.container.memory_bytes
            && bytes < limit_bytes
            && before.memory_bytes != Some(bytes)
        {
            tracing::warn!(
                bytes,
                limit_bytes,
                hint =
                    "restart the agent to divide the memory anew, or raise the container's limit",
                "the container's memory limit is now lower than what the agent was started for"
            );
        }
        is_changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tail::os::kernel::Kernel;

    const FILE: FileKey = FileKey(1);
    const LIMIT: limit::Options = limit::Options {
        cpu_cores: 1.0,
        cpu_cores_max: 1.0,
        memory_bytes: 1 << 30,
        bytes_per_second: 0,
    };

    fn intake(limit: limit::Options, now: Instant) -> (Intake, Timers) {
        let mut timers = Timers::default();
        let intake = Intake::new(&Kernel, limit, 16, &mut timers, now);
        (intake, timers)
    }

    #[test]
    fn reading_pauses_for_the_rate_only_if_something_waits() {
        let now = crate::base::clock::now();
        let limit = limit::Options { bytes_per_second: 1000, ..LIMIT };
        let (mut intake, mut timers) = intake(limit, now);
        let mut counters = CollectorCounters::default();
        assert_eq!(intake.piece_bytes(), PIECE_BYTES_MIN);
        intake.take(1 << 20, now);

        assert!(intake.is_rate_limited(&mut timers, &mut counters, now));
        assert!(!timers.is_set(Timer::ReadFrom) && counters.rate_pauses == 0);
        intake.mark(FILE);
        assert!(intake.is_rate_limited(&mut timers, &mut counters, now));
        assert!(timers.holds(Timer::ReadFrom, now) && counters.rate_pauses == 1);
    }

    #[test]
    fn a_quota_lowers_the_limit_and_never_raises_it_above_the_settings() {
        let now = crate::base::clock::now();
        let (mut intake, _) = intake(LIMIT, now);
        let mut on = |cpu_cores| {
            let is_changed = intake.quota.on_limits(Limits { cpu_cores, ..Limits::default() });
            (is_changed, intake.cpu_cores())
        };

        assert_eq!(on(Some(0.5)), (true, 0.5));
        assert_eq!(on(Some(0.5)), (false, 0.5));
        assert_eq!(on(Some(4.0)), (true, 1.0));
        assert_eq!(on(Some(0.0)), (false, 1.0), "no quota");
        assert_eq!(on(None), (false, 1.0));
    }

    #[test]
    fn the_buffer_is_made_when_it_is_needed_and_is_as_long_as_it_must_be() {
        let (mut intake, _) = intake(LIMIT, crate::base::clock::now());
        let buffer = intake.take_buffer();
        assert_eq!(buffer.len(), 16);
        intake.put_buffer(buffer);

        intake.widen_buffer(32);
        intake.widen_buffer(8);

        assert_eq!(intake.take_buffer().len(), 32);
    }

    #[test]
    fn what_has_grown_waits_while_there_is_no_room() {
        let (mut intake, _) = intake(LIMIT, crate::base::clock::now());
        intake.mark_grown(FILE);
        intake.block();
        assert!(intake.has_turns() && !intake.has_grown());

        intake.unblock();

        assert!(intake.has_grown());
        assert_eq!(intake.next_file(), Some(FILE));
        assert!(!intake.is_waiting());
    }
}
