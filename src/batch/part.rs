//! Some of the records of a batch as a batch of their own.
//!
//! Pure. Of what is read again, not all may be wanted: when a batch was refused and sent in parts,
//! some of them may have arrived.

use std::ops::Range;
use std::sync::Arc;

use prost::Message as _;

use super::compress::{Compressor, decompress};
use crate::sealed::{BatchId, SealedBatch};
use crate::wire::sls_logs::LogGroup;

/// The records with these indexes in the payload of a batch, as a batch with another number. It
/// keeps the span, because records have no bytes of their own. `None` if it has no such records.
#[must_use]
pub fn part(batch: &SealedBatch, records: Range<u32>, id: BatchId) -> Option<SealedBatch> {
    let raw = decompress(batch.compression, &batch.payload, batch.raw_bytes as usize)?;
    let mut group = LogGroup::decode(&*raw).ok()?;
    let (start, end) = (records.start as usize, records.end as usize);
    group.logs = group.logs.get(start..end).filter(|logs| !logs.is_empty())?.to_vec();
    let raw = group.encode_to_vec();
    let payload: Arc<[u8]> = Compressor::new(batch.compression).ok()?.compress(&raw);
    Some(SealedBatch {
        id,
        payload,
        raw_bytes: u32::try_from(raw.len()).ok()?,
        lines: records.end - records.start,
        first: batch.first + records.start,
        ..batch.clone()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sealed::Route;
    use crate::span::{FileKey, Span};
    use crate::wire::Compression;
    use crate::wire::sls_logs::{Log, log::Content};

    fn values(batch: &SealedBatch) -> Vec<Vec<u8>> {
        let raw = decompress(batch.compression, &batch.payload, batch.raw_bytes as usize).unwrap();
        let logs = LogGroup::decode(&*raw).unwrap().logs;
        logs.into_iter().map(|mut log| log.contents.remove(0).value).collect()
    }

    #[test]
    fn a_part_has_its_records_and_says_which_they_are() {
        let log = |text: &str| {
            let content = Content { key: "content".to_owned(), value: text.into() };
            Log { time: 1_700_000_000, contents: vec![content], ..Log::default() }
        };
        let logs = ["a", "b", "c", "d"].map(log).to_vec();
        let raw = LogGroup { logs, ..LogGroup::default() }.encode_to_vec();
        let whole = SealedBatch {
            id: BatchId(1),
            span: Span::new(FileKey(1), 0, 8),
            path: "/a.log".into(),
            payload: Compressor::new(Compression::Lz4).unwrap().compress(&raw),
            compression: Compression::Lz4,
            raw_bytes: u32::try_from(raw.len()).unwrap(),
            lines: 4,
            first: 0,
            route: Route::Any,
        };

        let half = part(&whole, 2..4, BatchId(2)).unwrap();
        let quarter = part(&half, 1..2, BatchId(3)).unwrap();

        assert_eq!(values(&half), [b"c", b"d"]);
        assert_eq!((half.first, half.lines, half.span), (2, 2, whole.span));
        assert_eq!(values(&quarter), [b"d"]);
        assert_eq!((quarter.first, quarter.lines, quarter.id), (3, 1, BatchId(3)));
        assert!(part(&whole, 3..5, BatchId(4)).is_none());
        assert!(part(&whole, 2..2, BatchId(4)).is_none());
    }
}
