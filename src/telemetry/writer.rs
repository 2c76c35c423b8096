//! Standard error, written by a thread of its own: who logs never waits for who reads.
//!
//! Events wait in a queue with a bound. When it is full, the reader has half a second to make room;
//! then it is taken for stuck, and what does not fit is dropped and counted, without another wait until
//! all that waited then has been written. Behind it one event says how many were dropped. So a reader
//! that is only slower than a burst misses nothing, and one that never reads holds up nothing.
//!
//! While the system refuses the thread (a limit of processes), events are written by who logs, as
//! far as poll(2) says that there is room.

use std::cell::Cell;
use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::base::clock;

/// Most bytes that wait to be written.
const QUEUE_BYTES_MAX: usize = 256 << 10;
/// How long the reader of a full queue has to make room.
const ROOM_PATIENCE: Duration = Duration::from_millis(500);
/// Most bytes written at once: of a pipe that is ready, poll(2) promises no more (PIPE_BUF, pipe(7)),
/// and up to here no other writer comes in between.
const WRITE_BYTES_MAX: usize = 4096;
/// How often a thread is asked for that the system has refused.
const THREAD_PERIOD: Duration = Duration::from_secs(1);

thread_local! {
    /// Whether this is the thread that writes: what it logs goes out at once.
    static IS_WRITER: Cell<bool> = const { Cell::new(false) };
}

/// What is logged on its way to standard error. A clone is the same one.
#[derive(Clone, Default)]
pub struct LogWriter {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    /// There is something to write.
    filled: Condvar,
    /// Something was written. Told only if somebody waits for it.
    written: Condvar,
    /// Events dropped so far.
    dropped: Arc<AtomicU64>,
}

#[derive(Default)]
struct Queue {
    /// Whole events.
    pending: Vec<u8>,
    /// Bytes that the thread has taken and not written yet.
    taken: usize,
    thread: Thread,
    /// The reader had its time, and not all that waited then has been written since.
    is_stuck: bool,
    /// Events dropped since it was last said.
    unsaid: u64,
    /// Threads that wait for something to be written.
    waiting: usize,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Thread {
    /// Never asked for.
    #[default]
    Unasked,
    /// Asked for in vain; not again before this.
    Refused(Instant),
    /// Has something to do.
    Busy,
    /// Waits for something to do.
    Idle,
}

impl LogWriter {
    /// Starts the thread. If the system refuses it, it is asked for again when something is logged.
    #[must_use]
    pub fn start() -> Self {
        let writer = Self::default();
        writer.has_thread(&mut writer.queue());
        writer
    }

    /// The number of events that were dropped so far, as it grows.
    #[must_use]
    pub fn dropped(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.shared.dropped)
    }

    /// Writes text that is no event, with the program's name before it and a line end behind it.
    pub fn say(&self, text: &str) {
        self.push(format!("logferry: {text}\n").as_bytes());
    }

    /// Waits until all has been written, no longer than this.
    pub fn flush(&self, patience: Duration) {
        let queue = self.queue();
        if matches!(queue.thread, Thread::Busy | Thread::Idle) {
            drop(self.wait_while(queue, patience, |queue| queue.thread == Thread::Busy));
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, event: &[u8]) {
        let mut queue = self.queue();
        if !self.has_thread(&mut queue) {
            if !write_if_ready(event) {
                self.drop_events(&mut queue, 1);
            }
            return;
        }
        if !queue.has_room(event.len()) && !queue.is_stuck {
            let is_full = |queue: &Queue| !queue.has_room(event.len()) && !queue.is_stuck;
            queue = self.wait_while(queue, ROOM_PATIENCE, is_full);
            queue.is_stuck |= !queue.has_room(event.len());
        }
        if !queue.has_room(event.len()) {
            self.drop_events(&mut queue, 1);
            return;
        }
        queue.pending.extend_from_slice(event);
        if queue.thread == Thread::Idle {
            queue.thread = Thread::Busy;
            self.shared.filled.notify_one();
        }
    }

    fn wait_while<'a>(
        &self,
        mut queue: MutexGuard<'a, Queue>,
        patience: Duration,
        condition: impl Fn(&Queue) -> bool,
    ) -> MutexGuard<'a, Queue> {
        queue.waiting += 1;
        let waited =
            self.shared.written.wait_timeout_while(queue, patience, |queue| condition(queue));
        let (mut queue, _) = waited.unwrap_or_else(PoisonError::into_inner);
        queue.waiting -= 1;
        queue
    }

    fn drop_events(&self, queue: &mut Queue, count: u64) {
        queue.unsaid += count;
        self.shared.dropped.fetch_add(count, Relaxed);
    }

    /// Whether the thread is there. Asks for it if it is time to.
    fn has_thread(&self, queue: &mut Queue) -> bool {
        match queue.thread {
            Thread::Busy | Thread::Idle => return true,
            Thread::Refused(until) if clock::now() < until => return false,
            Thread::Refused(_) | Thread::Unasked => {}
        }
        let writer = self.clone();
        let started = thread::Builder::new().name("log".to_owned()).spawn(move || writer.run());
        queue.thread = match started {
            Ok(_) => Thread::Busy,
            Err(_) => Thread::Refused(clock::now() + THREAD_PERIOD),
        };
        queue.thread == Thread::Busy
    }

    /// The life of the thread, which ends with the process.
    fn run(&self) {
        IS_WRITER.set(true);
        loop {
            let (events, unsaid) = self.take();
            let mut is_written = true;
            for some in whole_events(&events) {
                is_written = write_all(some).is_ok();
                self.on_tried(some, is_written);
            }
            if unsaid == 0 {
                continue;
            }
            if is_written {
                tracing::warn!(
                    lines = unsaid,
                    "log lines were dropped: nobody took them from standard error in time"
                );
            } else {
                // Nobody would hear of it.
                self.queue().unsaid += unsaid;
            }
        }
    }

    /// Waits for events. Takes all that are there, and the number of those that were dropped behind
    /// them.
    fn take(&self) -> (Vec<u8>, u64) {
        let mut queue = self.queue();
        queue.is_stuck = false;
        // What was dropped is said although nothing else comes.
        if queue.pending.is_empty() && queue.unsaid == 0 {
            queue.thread = Thread::Idle;
            self.tell(&queue);
            let is_idle = |queue: &mut Queue| queue.pending.is_empty();
            let filled = self.shared.filled.wait_while(queue, is_idle);
            queue = filled.unwrap_or_else(PoisonError::into_inner);
        }
        queue.taken = queue.pending.len();
        (std::mem::take(&mut queue.pending), std::mem::take(&mut queue.unsaid))
    }

    /// Notes that these events have been written, or could not be.
    fn on_tried(&self, events: &[u8], is_written: bool) {
        let mut queue = self.queue();
        queue.taken -= events.len();
        if !is_written {
            let lines = memchr::memchr_iter(b'\n', events).count();
            self.drop_events(&mut queue, lines as u64);
        }
        self.tell(&queue);
    }

    fn tell(&self, queue: &Queue) {
        if queue.waiting > 0 {
            self.shared.written.notify_all();
        }
    }
}

impl Queue {
    fn has_room(&self, bytes: usize) -> bool {
        let used = self.pending.len() + self.taken;
        used == 0 || used + bytes <= QUEUE_BYTES_MAX
    }
}

impl Write for LogWriter {
    /// Takes one event, its line end included. Never fails, and never waits for long.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        if IS_WRITER.get() {
            write_all(event)?;
        } else {
            self.push(event);
        }
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Pieces of at most [`WRITE_BYTES_MAX`] that end with an event; a longer event is a piece.
fn whole_events(mut events: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let most = &events[..events.len().min(WRITE_BYTES_MAX)];
        let end = memchr::memrchr(b'\n', most).or_else(|| memchr::memchr(b'\n', events));
        let (piece, rest) = events.split_at(end.map_or(events.len(), |end| end + 1));
        events = rest;
        (!piece.is_empty()).then_some(piece)
    })
}

/// Waits as long as it takes.
fn write_all(mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match io::stderr().write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Somebody who shares the descriptor has made it so.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                is_ready(None);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Writes as long as nothing needs to be waited for. Says whether that was all of it.
fn write_if_ready(event: &[u8]) -> bool {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    event.chunks(WRITE_BYTES_MAX).all(|part| is_ready(Some(&now)) && write_all(part).is_ok())
}

/// Waits until standard error takes something, or an error is to be had.
fn is_ready(at_most: Option<&Timespec>) -> bool {
    let stderr = io::stderr();
    let mut descriptors = [PollFd::new(&stderr, PollFlags::OUT)];
    poll(&mut descriptors, at_most).is_ok_and(|count| count > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_end_with_an_event() {
        let event = |bytes: usize| [vec![b'x'; bytes - 1], vec![b'\n']].concat();
        let sizes = |events: &[usize]| -> Vec<usize> {
            let text = events.iter().map(|&bytes| event(bytes)).collect::<Vec<_>>().concat();
            whole_events(&text).map(<[u8]>::len).collect()
        };
        assert_eq!(sizes(&[]), [0; 0]);
        assert_eq!(sizes(&[100, 200]), [300]);
        assert_eq!(sizes(&[4000, 96, 1]), [4096, 1]);
        assert_eq!(sizes(&[4000, 97]), [4000, 97]);
        assert_eq!(sizes(&[10, 9000, 10]), [10, 9000, 10]);
        assert_eq!(whole_events(b"no end").collect::<Vec<_>>(), [b"no end"]);
    }

    #[test]
    fn an_event_larger_than_the_queue_has_room_when_it_is_empty() {
        let mut queue = Queue::default();
        assert!(queue.has_room(QUEUE_BYTES_MAX + 1));
        queue.taken = 1;
        assert!(queue.has_room(QUEUE_BYTES_MAX - 1));
        assert!(!queue.has_room(QUEUE_BYTES_MAX));
    }
}
