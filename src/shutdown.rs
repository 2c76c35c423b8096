//! Stopping, in five steps with one deadline:
//!
//! 1. A signal comes; `/ready` says no.
//! 2. The collector reads every file to its end and seals every open group.
//! 3. The hand-off closes; the sender sends what it has.
//! 4. The last acknowledgements move the watermarks; the checkpoint is saved and synced.
//! 5. The process exits: 0 if all was delivered, 75 if the deadline came first. What was not
//!    delivered still stands in the log files, and the next start goes on there.
//!
//! A second signal is the deadline: what is under way is cut off, the checkpoint is saved. One stop
//! may come as several signals, to the process and to its group, so those of one second are one.

use std::time::{Duration, Instant};

use crate::base::clock;
use crate::handoff::SenderEnd;
use crate::signals::{ONE_STOP, Signals};

/// Kept back from the deadline for steps 4 and 5: at most this, at most a fifth of it.
const RESERVE_MAX: Duration = Duration::from_secs(1);

/// The wish to stop, as signals bring it.
pub struct Shutdown {
    signals: Signals,
    drain_deadline: Duration,
}

impl Shutdown {
    /// Stops when a signal has come, within this time.
    #[must_use]
    pub fn new(signals: Signals, drain_deadline: Duration) -> Self {
        Self { signals, drain_deadline }
    }

    /// Waits for a signal before anything has begun.
    pub async fn signalled(&mut self) {
        self.signals.stop().await;
    }

    /// Waits for the first signal, asks for the drain (step 2), then waits until the time for it
    /// is over and sending must be given up. `asked_at` learns when the signal came.
    pub async fn run(mut self, end: &SenderEnd, asked_at: &std::cell::Cell<Option<Instant>>) {
        self.signals.stop().await;
        let now = clock::now();
        asked_at.set(Some(now));
        tracing::info!(deadline = ?self.drain_deadline, "stopping: delivering what is left");
        end.ask_to_drain();
        let budget = self.drain_deadline - RESERVE_MAX.min(self.drain_deadline / 5);
        tokio::select! {
            () = tokio::time::sleep(budget) => {
                tracing::warn!("the drain deadline is near; what is left stays on disk");
            }
            () = self.signals.stop_after(now + ONE_STOP) => {
                tracing::warn!("a second signal: stopping now");
            }
        }
    }
}

/// Time for the collector to save and end after it was told to abandon: milliseconds, unless a disk
/// hangs.
pub const LAST_WORD: Duration = Duration::from_millis(500);

/// What is left of the deadline once the sender has ended, less the time for a last word.
#[must_use]
pub fn time_left(asked_at: Option<Instant>, drain_deadline: Duration, now: Instant) -> Duration {
    let used = asked_at.map_or(Duration::ZERO, |asked_at| now.saturating_duration_since(asked_at));
    drain_deadline.saturating_sub(used).saturating_sub(LAST_WORD)
}
