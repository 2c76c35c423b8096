//! Closing: files of which no more is read, and the accounts of those that have ended.

use std::time::Instant;

use super::Collector;
use super::said::Kind;
use crate::base::span::FileKey;
use crate::checkpoint::format::Checkpoint;
use crate::checkpoint::keep::Keep;
use crate::tail::os::Os;
use crate::tail::tracked::{State, Tracked};

impl<O: Os, K: Keep> Collector<O, K> {
    pub(super) fn close_idle(&mut self, now: Instant) {
        self.close_unpacked();
        self.unpack_again();
        // Look once more: what has come since the last examination is still to be read.
        for file in self.registry.closable(now) {
            self.examine(file, false, now);
        }
        for file in self.registry.closable(now) {
            // What is kept so is bounded by held_deleted_bytes_max, and by those who wait for descriptors.
            if self.is_written_to(file) == Some(true) {
                continue;
            }
            self.note_left_open(file);
            let is_nuls = self.registry.get(file).is_some_and(|tracked| tracked.is_rest_idle);
            let left = self.close(file);
            if is_nuls {
                self.counters.skipped_hole_bytes += left;
            } else {
                self.counters.skipped_deleted_bytes += left;
            }
        }
    }

    /// Whether somebody has a deleted file open for writing, if that can be known.
    fn is_written_to(&self, file: FileKey) -> Option<bool> {
        let is_deleted = |tracked: &&Tracked| tracked.state == State::Deleted;
        self.registry.get(file).filter(is_deleted)?;
        self.readers.get(&file)?.is_open_for_writing()
    }

    /// Counts a file that is about to be closed if it is deleted and somebody may still write to
    /// it: nobody will see what is written.
    pub(super) fn note_left_open(&mut self, file: FileKey) {
        let Some(tracked) = self.registry.get(file) else { return };
        if tracked.state == State::Deleted && self.is_written_to(file) != Some(false) {
            self.counters.files_left_open += 1;
            tracing::debug!(
                file = %tracked.opened.path.display(), inode = tracked.opened.inode,
                "a deleted file is closed although somebody may still write to it"
            );
        }
    }

    /// Gives up deleted files, those deleted first before others, until the rest of them is within
    /// the bound. What is delivered of them is no loss.
    pub(super) fn keep_within_budget(&mut self) {
        for file in self.registry.beyond_budget(self.rules.tail.held_deleted_bytes_max) {
            let Some(tracked) = self.registry.get(file) else { continue };
            let (path, inode) = (tracked.opened.path.clone(), tracked.opened.inode);
            let bytes = tracked.size;
            self.note_left_open(file);
            let skipped = self.close(file);
            self.counters.skipped_deleted_bytes += skipped;
            if skipped > 0 && self.said.admits(Kind::GivenUp) {
                tracing::warn!(
                    file = %path.display(), inode, bytes, skipped,
                    "a deleted file is given up to keep within held_deleted_bytes_max"
                );
            }
        }
    }

    /// Ends a file: no more of it is read. Returns the bytes that were not read.
    pub(super) fn close(&mut self, file: FileKey) -> u64 {
        self.note_seen(file);
        let left = self.registry.end(file).unwrap_or(0);
        self.drop_stages(file);
        self.readers.remove(&file);
        self.ledger.note(true);
        left
    }

    /// Closes a file of which nothing was read, as if it had never been opened.
    pub(super) fn let_go(&mut self, file: FileKey) {
        if let Some(stream) = self.registry.stream(file) {
            self.ledger.once.forget(stream);
        }
        self.drop_stages(file);
        self.counters.skipped_truncated_bytes += self.registry.forget(file);
        self.readers.remove(&file);
    }

    /// Takes what an examination showed of a file for its own bytes.
    pub(super) fn note_seen(&mut self, file: FileKey) {
        let size = self.registry.get(file).map_or(0, |tracked| tracked.size);
        self.counters.seen_bytes += self.registry.on_verified(file, size);
    }

    /// Closes the accounts of ended incarnations that have nothing under way any more, and
    /// remembers them.
    pub(super) fn close_accounts(&mut self) {
        for (file, ended) in self.registry.take_settled() {
            self.counters.generations_closed += 1;
            let skipped = ended.skipped.bytes();
            let (opened, acknowledged) = (&ended.opened, ended.watermark.acked_bytes());
            if ended.is_balanced() {
                if self.said.admits(Kind::Done) {
                    tracing::info!(
                        file = %opened.path.display(), inode = opened.inode, offset = opened.offset,
                        bytes = ended.size, acknowledged, skipped, "a file is done"
                    );
                }
            } else {
                self.counters.generations_unbalanced += 1;
                if self.said.admits(Kind::Unbalanced) {
                    tracing::error!(
                        file = %opened.path.display(), inode = opened.inode, offset = opened.offset,
                        bytes = ended.size, acknowledged, skipped,
                        "the bytes of a file do not add up; please report this"
                    );
                }
            }
            let has_gone = ended.state == State::Deleted
                || ended.gone.at != 0
                || self.registry.find(opened.device, opened.inode).is_some();
            let unix = self.os.wall().as_secs();
            let checkpoint = self.ledger.checkpoint(self.look.looked_at(), file, &ended, unix);
            self.ledger.forget(ended.stream(file));
            let is_done = ended.skipped.left_bytes == 0;
            self.catalog.on_original_ended(file, &ended, has_gone);
            if has_gone {
                // What was nobody's copy may be one of this.
                self.look.expected.on_learnt();
                self.catalog.put_removed(Checkpoint { is_done, ..checkpoint });
            } else {
                self.catalog.put_closed(checkpoint);
            }
            let waits = self.catalog.has_copies() || self.look.unopened.is_unacknowledged();
            self.look.want_scan_if(waits);
            self.ledger.note(true);
        }
    }
}
