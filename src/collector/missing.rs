//! Known files that were not delivered to their end and are found nowhere.
//!
//! A volume may be late, and so may the app that makes the link to it: nothing is said of such files
//! before the agent has run for a minute, or stops. Then each is named once, and not again in later
//! runs; whenever it is met after all, it goes on where it was left.

use std::path::Path;
use std::time::{Duration, Instant};

use super::Collector;
use super::left::{Left, NAMED_MAX};
use crate::checkpoint::format::Checkpoint;
use crate::checkpoint::keep::Keep;
use crate::tail::os::Os;
use crate::tail::scout;

/// How long a volume, or a link, may be late.
const LATE_MAX: Duration = Duration::from_secs(60);

impl<O: Os, K: Keep> Collector<O, K> {
    /// Names the known files that are missing, once the time for that has come; `is_last` says that
    /// the agent ends. While files that were found wait to be opened, one of them may be a missing
    /// one, or hold its bytes.
    pub(super) fn note_missing(&mut self, is_last: bool, now: Instant) {
        let is_due = is_last || now >= self.look.started() + LATE_MAX;
        let waits = self.look.unopened.waiting() > 0 || !self.packed.is_idle();
        if !is_due || !self.look.is_ready() || waits {
            return;
        }
        let look = &self.look;
        let is_missing = |saved: &Checkpoint, at: Option<&Path>| {
            !look.notices.is_not_allowed(&saved.path)
                && !at.is_some_and(|at| scout::stands_at(&self.os, saved, at))
                && scout::is_gone_from_its_place(&self.os, saved)
        };
        let told = self.catalog.tell(is_missing);
        self.ledger.note(!told.is_empty());
        for saved in told.iter().take(NAMED_MAX) {
            tracing::warn!(
                file = %saved.path.display(), resolved = %saved.resolved.display(),
                offset = saved.offset, bytes = saved.rest,
                "a known file that was not delivered to its end is found nowhere; if it comes back, \
                 it goes on at its offset"
            );
        }
        if let more @ 1.. = told.len().saturating_sub(NAMED_MAX) {
            tracing::warn!(files = more, "more known files are found nowhere");
        }
    }

    /// The files that are missing, as this run has named them.
    pub(super) fn missing(&self) -> impl Iterator<Item = (Left, u64)> {
        self.catalog.told().map(|saved| {
            let reason = match saved.rest {
                Some(_) => "it is found nowhere: deleted, or on a volume that is not here".into(),
                None => "it is found nowhere, and how much it held is not known".into(),
            };
            let left = Left { path: saved.path.clone(), bytes: saved.rest, reason };
            (left, saved.rest.unwrap_or(0))
        })
    }
}
