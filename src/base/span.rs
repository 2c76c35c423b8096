//! Which bytes of which file: the coordinates that tie a batch to what stands on disk.
//!
//! Level 0: numbers only. Everything that must not lose a byte (batches, watermarks, checkpoints)
//! speaks in these.

use std::fmt;

/// One open incarnation of a file in this run: a new key after truncation, never reused.
///
/// Not an identity that survives a restart: that is in [`crate::checkpoint::format::Checkpoint`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileKey(pub u32);

impl fmt::Display for FileKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

/// Number of a collection: its place in the [`Plan`](crate::plan::Plan) of this run.
///
/// What survives a restart is the collection's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CollectionId(pub u16);

impl CollectionId {
    /// The place in the plan.
    #[must_use]
    pub fn index(self) -> usize {
        self.0.into()
    }
}

/// A file incarnation in a collection: the thing that has a read offset, a watermark and an open group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamKey {
    /// The incarnation whose bytes are read.
    pub file: FileKey,
    /// The collection for which they are read.
    pub collection: CollectionId,
}

/// The half-open range of bytes `[start, end)` of one stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Span {
    /// The stream whose bytes they are.
    pub stream: StreamKey,
    /// Offset of the first byte.
    pub start: u64,
    /// Offset just past the last byte. Always `>= start`.
    pub end: u64,
}

impl Span {
    /// Makes a span.
    ///
    /// # Panics
    /// If `end < start`: the caller has mixed up its offsets.
    #[must_use]
    pub fn new(stream: StreamKey, start: u64, end: u64) -> Self {
        assert!(start <= end, "a span runs forward");
        Self { stream, start, end }
    }

    /// Bytes covered.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.end - self.start
    }
}
