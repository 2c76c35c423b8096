//! What a seed fixes from its first action to its last: the agent's settings.

use super::pick;
use crate::disk::Pattern;
use crate::process;

/// The settings of a seed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Setting {
    pub(super) seed: u64,
    pub(super) pattern: Pattern,
    /// Unfinished lines are sent as they are, soon.
    pub(super) has_pieces: bool,
    /// The agents get no notifications.
    pub(super) is_polling: bool,
    read_linger: &'static str,
    batch_linger: &'static str,
    batch_lines: &'static str,
    compression: &'static str,
    bytes_per_second: &'static str,
    concurrency: &'static str,
}

impl Setting {
    pub(super) fn draw(seed: u64, rng: &mut fastrand::Rng) -> Self {
        Self {
            seed,
            pattern: pick(
                rng,
                &[Pattern::Link, Pattern::Link, Pattern::LinkAndRotated, Pattern::Direct],
            ),
            has_pieces: rng.u8(..5) == 0,
            is_polling: rng.u8(..10) == 0 && process::can_poll(),
            read_linger: pick(rng, &["1ms", "10ms", "50ms"]),
            batch_linger: pick(rng, &["10ms", "50ms"]),
            batch_lines: pick(rng, &["1", "3", "5", "100"]),
            compression: pick(rng, &["none", "lz4"]),
            bytes_per_second: pick(rng, &["0", "0", "0", "0", "16KiB"]),
            concurrency: pick(rng, &["1", "8"]),
        }
    }

    pub(super) fn plain(pattern: Pattern) -> Self {
        Self {
            seed: 0,
            pattern,
            has_pieces: false,
            is_polling: false,
            read_linger: "10ms",
            batch_linger: "10ms",
            batch_lines: "3",
            compression: "lz4",
            bytes_per_second: "0",
            concurrency: "8",
        }
    }

    pub(super) fn environment(&self) -> [(&'static str, &'static str); 8] {
        [
            ("LOGFERRY_DRAIN_DEADLINE", "120s"),
            ("LOGFERRY_PARTIAL_LINE_TIMEOUT", if self.has_pieces { "100ms" } else { "3600s" }),
            ("LOGFERRY_READ_LINGER", self.read_linger),
            ("LOGFERRY_BATCH_LINGER", self.batch_linger),
            ("LOGFERRY_BATCH_LINES", self.batch_lines),
            ("LOGFERRY_COMPRESSION", self.compression),
            ("max_bytes_per_sec", self.bytes_per_second),
            ("send_request_concurrency", self.concurrency),
        ]
    }
}
