//! What the two threads hand each other: sealed batches down, acknowledgements up.
//!
//! Level 0: plain values. [`crate::handoff`] moves them.

use std::sync::Arc;
use std::time::Instant;

use crate::base::span::Span;
use logferry_wire::Compression;

/// Number of a batch in this run, counted from 0 in the order of sealing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BatchId(pub u64);

/// Number of a destination: its place in the [`Plan`](crate::plan::Plan) of this run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DestinationId(pub u16);

impl DestinationId {
    /// The place in the plan.
    #[must_use]
    pub fn index(self) -> usize {
        self.0.into()
    }
}

/// An immutable LogGroup, encoded and compressed, with the bytes of the file that it carries.
///
/// Not a request: it may take several to deliver it.
#[derive(Clone, Debug)]
pub struct SealedBatch {
    /// The number of the batch in this run.
    pub id: BatchId,
    /// The bytes of one stream that its lines came from, line ends included.
    pub span: Span,
    /// Where it goes.
    pub destination: DestinationId,
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
    /// Which of the records of its span is its first: not 0 in a part of a batch that was refused.
    pub first: u32,
    /// Which shard it goes to there, and whether the service is to know it again.
    pub route: Route,
    /// None of its lines was written before this moment.
    pub since: Instant,
}

/// Which shard a batch goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Route {
    /// Any: the service spreads the load.
    Any,
    /// The one whose range holds this hash key.
    Key(u128),
    /// The one whose range holds this hash key, of which the service takes each sequence id once, in
    /// rising order.
    Once {
        /// Hash key.
        key: u128,
        /// Sequence id, from 1.
        sequence: u64,
    },
}

/// The end of a batch.
#[derive(Clone, Debug)]
pub struct Ack {
    /// Which batch.
    pub id: BatchId,
    /// The bytes it carried.
    pub span: Span,
    /// How many records of these bytes it carried.
    pub lines: u32,
    /// Where the batch went.
    pub route: Route,
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
    /// The endpoint will never take it as it is: it must be changed, or set aside on disk, before
    /// the watermark may pass it.
    Refused {
        /// The batch itself.
        batch: SealedBatch,
        /// Why.
        refusal: Refusal,
    },
}

/// Why the endpoint will never take a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Something in it.
    Malformed {
        /// The endpoint's error code, for example `PostBodyInvalid`.
        code: String,
        /// The endpoint's message.
        message: String,
    },
    /// The size of the batch.
    TooLarge {
        /// As above; empty if somebody in between has refused it.
        code: String,
        /// As above.
        message: String,
    },
    /// The size of the batch, as it seems: connections break that carry so much, and others do not.
    SeemsTooLarge,
    /// The way it is compressed.
    Compression,
}

impl Refusal {
    /// The endpoint's code and message, as far as there are any.
    #[must_use]
    pub fn words(&self) -> (&str, &str) {
        match self {
            Self::Malformed { code, message } | Self::TooLarge { code, message } => (code, message),
            Self::SeemsTooLarge | Self::Compression => ("", ""),
        }
    }
}
