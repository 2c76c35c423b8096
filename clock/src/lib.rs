//! The only reading of time. Everything below `app` gets `now` as an argument.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

/// Monotonic time, for deadlines and pauses. Not affected by clock steps.
#[must_use]
pub fn now() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "this is the one place")]
    Instant::now()
}

/// Wall-clock time since the Unix epoch, for `Time` of a log and `Date` of a request.
///
/// A clock set before 1970 reads as the epoch.
#[must_use]
pub fn wall() -> std::time::Duration {
    #[expect(clippy::disallowed_methods, reason = "this is the one place")]
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// CPU time that this process has used so far, all threads together.
#[must_use]
pub fn cpu() -> std::time::Duration {
    used(ClockId::ProcessCPUTime)
}

/// CPU time that the calling thread has used so far.
#[must_use]
pub fn thread_cpu() -> std::time::Duration {
    used(ClockId::ThreadCPUTime)
}

fn used(clock: ClockId) -> std::time::Duration {
    let used = clock_gettime(clock);
    let seconds = u64::try_from(used.tv_sec).unwrap_or_default();
    let nanoseconds = u32::try_from(used.tv_nsec).unwrap_or_default();
    std::time::Duration::new(seconds, nanoseconds)
}
