//! What the two threads hand each other: sealed batches down, acknowledgements up.
//!
//! Level 0: plain values. [`crate::handoff`] moves them.

use std::sync::Arc;

use crate::span::Span;
use crate::wire::Compression;

/// Number of a batch in this run, counted from 0 in the order of sealing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BatchId(pub u64);

/// An immutable LogGroup, encoded and compressed, with the bytes of the file that it carries.
///
/// Not a request: it may take several to deliver it.
#[derive(Clone, Debug)]
pub struct SealedBatch {
    /// Its number.
    pub id: BatchId,
    /// The bytes of one file incarnation that its lines came from, line ends included.
    pub span: Span,
    /// Path as configured (links not resolved); for log lines about the batch only.
    pub path: Arc<str>,
    /// The request body: the LogGroup, compressed as `compression` says.
    pub payload: Arc<[u8]>,
    /// How `payload` is compressed.
    pub compression: Compression,
    /// Size of the LogGroup before compression, in bytes (`x-log-bodyrawsize`).
    pub raw_bytes: u32,
    /// Lines (log entries) inside.
    pub lines: u32,
}

/// The end of a batch.
#[derive(Clone, Debug)]
pub struct Ack {
    /// Which batch.
    pub id: BatchId,
    /// The bytes it carried.
    pub span: Span,
    /// Size of its payload: the room in the hand-off that it gives back.
    pub payload_bytes: usize,
    /// How it ended.
    pub outcome: Outcome,
}

/// How a batch ended. There is no variant for "given up": that does not happen.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// The endpoint has it.
    Delivered,
    /// The endpoint refused its content for good; it must be set aside on disk before the
    /// watermark may pass it.
    Rejected {
        /// The batch itself, to be set aside.
        batch: SealedBatch,
        /// The endpoint's error code, for example `PostBodyInvalid`.
        code: String,
        /// The endpoint's message.
        message: String,
    },
}
