//! The only place where the two threads meet.
//!
//! Batches go down from the collector to the sender, acknowledgements and wishes come up, and each
//! side leaves the newest copy of its report for whoever asks.
//!
//! # Limits
//! The bound is counted in payload bytes from the push of a batch to the collector's taking of its
//! acknowledgement, so it covers what waits, what is in flight and what is acknowledged but not
//! yet in the watermark. A batch is taken when there is any room at all, so the true maximum is
//! the bound plus one payload. Nothing is ever dropped here: a full hand-off stops the reading,
//! and the log files are the queue.
//!
//! # Waking
//! The sender awaits a [`Notify`]; the collector polls an eventfd beside its inotify descriptor.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::event::EventfdFlags;
use tokio::sync::Notify;

use crate::base::report::{CollectorReport, FileList, SenderReport};
use crate::base::sealed::{Ack, SealedBatch};

/// Makes the hand-off. `bytes_max` bounds the payload bytes handed over and not acknowledged.
///
/// # Errors
/// If the kernel refuses an eventfd.
pub fn handoff(bytes_max: usize) -> std::io::Result<(CollectorEnd, SenderEnd)> {
    let shared = Arc::new(Shared {
        down: Mutex::default(),
        pushed: Notify::new(),
        up: Mutex::default(),
        wake: rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
        collector: Mutex::default(),
        files: Mutex::default(),
        listed: Notify::new(),
        sender: Mutex::default(),
        admin_cpu: AtomicU64::default(),
    });
    let collector = CollectorEnd { shared: Arc::clone(&shared), bytes_max, outstanding_bytes: 0 };
    Ok((collector, SenderEnd { shared }))
}

struct Shared {
    down: Mutex<Down>,
    pushed: Notify,
    up: Mutex<Mail>,
    /// Readable when there is mail for the collector.
    wake: OwnedFd,
    collector: Mutex<Arc<CollectorReport>>,
    /// The newest list of files that was asked for.
    files: Mutex<Arc<FileList>>,
    /// Told when there is a new one.
    listed: Notify,
    sender: Mutex<Arc<SenderReport>>,
    /// Nanoseconds.
    admin_cpu: AtomicU64,
}

#[derive(Default)]
struct Down {
    queue: VecDeque<SealedBatch>,
    /// No batch will follow.
    closed: bool,
}

/// What a batch takes beside its payload, here and in the sender: thousands of small ones count.
pub const BATCH_OVERHEAD_BYTES: usize = 1024;

/// What has come up for the collector.
#[derive(Debug, Default)]
pub struct Mail {
    /// Batches that ended, in the order in which they did.
    pub acks: Vec<Ack>,
    /// The agent shall stop: read to the end, seal, close.
    pub drain: bool,
    /// The deadline of the drain has passed: save what is known and end.
    pub abandon: bool,
    /// The service's clock minus ours, in seconds, as far as is known.
    pub clock_offset: i64,
    /// Somebody waits for the list of files.
    pub wants_files: bool,
}

/// The collector's end.
pub struct CollectorEnd {
    shared: Arc<Shared>,
    bytes_max: usize,
    /// Payload bytes pushed whose acknowledgement has not been taken, and those of batches that
    /// came back and are kept.
    outstanding_bytes: usize,
}

impl CollectorEnd {
    /// Whether another batch may be pushed.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.outstanding_bytes < self.bytes_max
    }

    /// Payload bytes handed over and not yet acknowledged, or kept after they came back.
    #[must_use]
    pub fn outstanding_bytes(&self) -> usize {
        self.outstanding_bytes
    }

    /// Most payload bytes that may be handed over before [`Self::has_room`] says no.
    #[must_use]
    pub fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// Hands a batch over. A new one only if there is room: ask first, and leave the lines in their
    /// file. One that was handed over before, or a part of it, still has the room that it had.
    pub fn push(&mut self, batch: SealedBatch) {
        self.reserve(batch.payload.len());
        self.send(batch);
    }

    /// Counts a batch as handed over that has to wait on this side for something.
    pub fn reserve(&mut self, payload_bytes: usize) {
        self.outstanding_bytes += payload_bytes + BATCH_OVERHEAD_BYTES;
    }

    /// Gives that room back.
    pub fn free(&mut self, payload_bytes: usize) {
        self.outstanding_bytes -= payload_bytes + BATCH_OVERHEAD_BYTES;
    }

    /// Hands a batch over that has its room already.
    pub fn send(&mut self, batch: SealedBatch) {
        lock(&self.shared.down).queue.push_back(batch);
        self.shared.pushed.notify_one();
    }

    /// Whether something has come up since the mail was taken.
    #[must_use]
    pub fn has_mail(&self) -> bool {
        !lock(&self.shared.up).acks.is_empty()
    }

    /// Says that the agent is stopping, where the collector was the first to know.
    pub fn begin_drain(&self) {
        lock(&self.shared.up).drain = true;
    }

    /// Says that no batch will follow.
    pub fn close(&mut self) {
        lock(&self.shared.down).closed = true;
        self.shared.pushed.notify_one();
    }

    /// Takes what has come up, and gives the room of ended batches back.
    pub fn take_mail(&mut self) -> Mail {
        let mut count = [0; 8];
        // Empty is fine: the wake-up was for something else.
        let _ = rustix::io::read(&self.shared.wake, &mut count);
        let mut up = lock(&self.shared.up);
        let mail = Mail { acks: std::mem::take(&mut up.acks), ..*up };
        up.wants_files = false;
        drop(up);
        for ack in &mail.acks {
            self.outstanding_bytes -= ack.payload_bytes + BATCH_OVERHEAD_BYTES;
        }
        mail
    }

    /// The descriptor that is readable when there is mail.
    #[must_use]
    pub fn wake_fd(&self) -> BorrowedFd<'_> {
        self.shared.wake.as_fd()
    }

    /// Leaves the newest report.
    pub fn publish(&self, report: CollectorReport) {
        *lock(&self.shared.collector) = Arc::new(report);
    }

    /// Leaves the list of files for those who asked for it.
    pub fn publish_files(&self, list: FileList) {
        *lock(&self.shared.files) = Arc::new(list);
        self.shared.listed.notify_waiters();
    }
}

/// The sender's end; the admin port and the signal listener hold clones.
#[derive(Clone)]
pub struct SenderEnd {
    shared: Arc<Shared>,
}

impl SenderEnd {
    /// Waits for the next batch; `None` when the collector has closed and all are taken.
    ///
    /// *Cancel-safe*: a batch is taken in the last step, without an await behind it.
    pub async fn next_batch(&self) -> Option<SealedBatch> {
        loop {
            {
                let mut down = lock(&self.shared.down);
                if let Some(batch) = down.queue.pop_front() {
                    return Some(batch);
                }
                if down.closed {
                    return None;
                }
            }
            self.shared.pushed.notified().await;
        }
    }

    /// Batches that nobody has taken yet.
    #[must_use]
    pub fn queued(&self) -> usize {
        lock(&self.shared.down).queue.len()
    }

    /// Reports the end of a batch.
    pub fn ack(&self, ack: Ack) {
        lock(&self.shared.up).acks.push(ack);
        self.wake_collector();
    }

    /// Says what to add to our clock to get the service's.
    pub fn set_clock_offset(&self, seconds: i64) {
        lock(&self.shared.up).clock_offset = seconds;
    }

    /// Asks the collector to read to the end, seal and close.
    pub fn ask_to_drain(&self) {
        lock(&self.shared.up).drain = true;
        self.wake_collector();
    }

    /// Whether the collector has been asked to drain.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        lock(&self.shared.up).drain
    }

    /// Tells the collector that the time is up.
    pub fn abandon(&self) {
        let mut up = lock(&self.shared.up);
        up.drain = true;
        up.abandon = true;
        drop(up);
        self.wake_collector();
    }

    /// Leaves the newest report.
    pub fn publish(&self, report: SenderReport) {
        *lock(&self.shared.sender) = Arc::new(report);
    }

    /// The collector's newest report.
    #[must_use]
    pub fn collector_report(&self) -> Arc<CollectorReport> {
        Arc::clone(&lock(&self.shared.collector))
    }

    /// Asks the collector for the list of files and waits for it, but no longer than `patience`:
    /// a disk may hang. Then it is the newest list that there is; `false` with it.
    pub async fn files(&self, patience: Duration) -> (Arc<FileList>, bool) {
        let mut listed = std::pin::pin!(self.shared.listed.notified());
        listed.as_mut().enable();
        self.ask_for_files();
        let is_new = tokio::time::timeout(patience, listed).await.is_ok();
        (self.newest_files(), is_new)
    }

    /// Asks the collector for the list of files, and does not wait for it.
    pub fn ask_for_files(&self) {
        lock(&self.shared.up).wants_files = true;
        self.wake_collector();
    }

    /// The newest list of files that somebody has asked for.
    #[must_use]
    pub fn newest_files(&self) -> Arc<FileList> {
        Arc::clone(&lock(&self.shared.files))
    }

    /// CPU time that the requests of the admin port have taken of the sender's thread.
    #[must_use]
    pub fn admin_cpu(&self) -> Duration {
        Duration::from_nanos(self.shared.admin_cpu.load(Ordering::Relaxed))
    }

    /// Adds to [`Self::admin_cpu`].
    pub fn add_admin_cpu(&self, used: Duration) {
        let nanos = u64::try_from(used.as_nanos()).unwrap_or(u64::MAX);
        self.shared.admin_cpu.fetch_add(nanos, Ordering::Relaxed);
    }

    /// The sender's newest report.
    #[must_use]
    pub fn sender_report(&self) -> Arc<SenderReport> {
        Arc::clone(&lock(&self.shared.sender))
    }

    fn wake_collector(&self) {
        // A counter that cannot be raised is already non-zero: the collector is awake.
        let _ = rustix::io::write(&self.shared.wake, &1_u64.to_ne_bytes());
    }
}

/// A panic in one thread ends the process, so a poisoned lock still holds whole values.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
