//! Sealed batches that the service has refused, made into others that it may take.
//!
//! - [`restamp`]: it refuses a whole group if one `Time` is older than seven days or more than a
//!   quarter of an hour ahead of its own clock: read by a wrong clock, or kept for too long. The
//!   lines are as good as others, so they get a time that it takes.
//! - [`split`]: two halves, by records: to be smaller, or to find the record that spoils the others.
//! - [`part`]: some of its records, where others have arrived.
//! - [`recompress`]: the same group in another compression.
//!
//! Pure; the only place where a sealed payload is opened again.

use std::ops::Range;
use std::sync::Arc;

use prost::Message as _;

use super::compress::{Compressor, decompress};
use crate::base::sealed::{BatchId, SealedBatch};
use logferry_wire::sls_logs::LogGroup;
use logferry_wire::{Compression, LOG_AGE_SECONDS_MAX, LOG_AHEAD_SECONDS_MAX};

/// Room for the way to the service, and for the noise of its clock.
const MARGIN_SECONDS: i64 = 60;

/// The batch with all its times within the service's bounds, where `server_unix` is its time.
/// `None` if they were: then it was refused for another reason.
#[must_use]
pub fn restamp(batch: &SealedBatch, server_unix: i64) -> Option<SealedBatch> {
    let mut group = opened(batch)?;
    let oldest = server_unix - LOG_AGE_SECONDS_MAX + MARGIN_SECONDS;
    let newest = server_unix + LOG_AHEAD_SECONDS_MAX - MARGIN_SECONDS;
    let mut is_changed = false;
    for log in &mut group.logs {
        if !(oldest..=newest).contains(&i64::from(log.time)) {
            log.time = u32::try_from(server_unix).ok()?;
            is_changed = true;
        }
    }
    if is_changed { closed(batch, &group) } else { None }
}

/// The records with these indexes in the payload of a batch, as a batch with another number. It
/// keeps tags and span, and says where in that its records begin. `None` if it has no such records.
#[must_use]
pub fn part(batch: &SealedBatch, records: Range<u32>, id: BatchId) -> Option<SealedBatch> {
    let mut group = opened(batch)?;
    let (start, end) = (records.start as usize, records.end as usize);
    group.logs = group.logs.get(start..end).filter(|logs| !logs.is_empty())?.to_vec();
    let first = batch.first.checked_add(records.start)?;
    let lines = records.end - records.start;
    Some(SealedBatch { id, lines, first, ..closed(batch, &group)? })
}

/// The two halves of a batch, under these ids. `None` if it has less than two records.
#[must_use]
pub fn split(batch: &SealedBatch, ids: [BatchId; 2]) -> Option<[SealedBatch; 2]> {
    let middle = batch.lines / 2;
    Some([part(batch, 0..middle, ids[0])?, part(batch, middle..batch.lines, ids[1])?])
}

/// The batch in another compression.
#[must_use]
pub fn recompress(batch: &SealedBatch, compression: Compression) -> Option<SealedBatch> {
    let raw = decompress(batch.compression, &batch.payload, batch.raw_bytes as usize)?;
    let payload = Compressor::new(compression).ok()?.compress(&raw);
    Some(SealedBatch { payload, compression, ..batch.clone() })
}

/// The group inside. `None` if there is none: then it is not one of ours.
#[must_use]
pub fn opened(batch: &SealedBatch) -> Option<LogGroup> {
    let raw = decompress(batch.compression, &batch.payload, batch.raw_bytes as usize)?;
    LogGroup::decode(&*raw).ok()
}

/// The batch with another group inside.
fn closed(batch: &SealedBatch, group: &LogGroup) -> Option<SealedBatch> {
    let raw = group.encode_to_vec();
    let payload: Arc<[u8]> = Compressor::new(batch.compression).ok()?.compress(&raw);
    Some(SealedBatch { payload, raw_bytes: u32::try_from(raw.len()).ok()?, ..batch.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::sealed::{DestinationId, Route};
    use crate::base::span::{CollectionId, FileKey, Span, StreamKey};
    use logferry_wire::sls_logs::{Log, LogTag, log::Content};

    const NOW: i64 = 1_700_000_000;
    const STREAM: StreamKey = StreamKey { file: FileKey(1), collection: CollectionId(0) };
    const ALL: [Compression; 3] = [Compression::None, Compression::Lz4, Compression::Zstd];

    fn batch(compression: Compression, lines: &[&str], time: i64) -> SealedBatch {
        let log = |line: &&str| {
            let value = line.as_bytes().to_vec();
            let content = Content { key: "content".to_owned(), value };
            let time = u32::try_from(time).unwrap();
            Log { time, contents: vec![content], ..Log::default() }
        };
        let tag = LogTag { key: "__path__".to_owned(), value: b"/a.log".to_vec() };
        let logs = lines.iter().map(log).collect();
        let raw = LogGroup { logs, log_tags: vec![tag], ..LogGroup::default() }.encode_to_vec();
        SealedBatch {
            id: BatchId(1),
            span: Span::new(STREAM, 0, 5),
            destination: DestinationId(0),
            path: "/a.log".into(),
            payload: Compressor::new(compression).unwrap().compress(&raw),
            compression,
            raw_bytes: u32::try_from(raw.len()).unwrap(),
            lines: u32::try_from(lines.len()).unwrap(),
            first: 10,
            route: Route::Any,
            since: crate::base::clock::now(),
        }
    }

    fn lines(batch: &SealedBatch) -> Vec<String> {
        let group = opened(batch).unwrap();
        assert_eq!(group.log_tags[0].value, b"/a.log");
        assert_eq!(group.logs.len(), batch.lines as usize);
        let value = |log: &Log| String::from_utf8(log.contents[0].value.clone()).unwrap();
        group.logs.iter().map(value).collect()
    }

    fn check_restamped(time: i64, expected: Option<i64>) {
        for compression in ALL {
            let restamped = restamp(&batch(compression, &["line"], time), NOW).map(|batch| {
                assert_eq!(lines(&batch), ["line"]);
                i64::from(opened(&batch).unwrap().logs[0].time)
            });
            assert_eq!(restamped, expected, "{time}");
        }
    }

    #[test]
    fn a_time_that_the_service_refuses_becomes_its_own() {
        check_restamped(NOW - 3600, None);
        check_restamped(NOW + 60, None);
        check_restamped(NOW + 1200, Some(NOW));
        check_restamped(NOW - 8 * 24 * 3600, Some(NOW));
    }

    #[test]
    fn halves_hold_each_record_once_and_say_which() {
        for compression in ALL {
            let whole = batch(compression, &["a", "b", "c", "d", "e"], NOW);

            let [front, back] = split(&whole, [BatchId(7), BatchId(8)]).unwrap();

            assert_eq!((front.id, front.first, front.span), (BatchId(7), 10, whole.span));
            assert_eq!((back.id, back.first, back.span), (BatchId(8), 12, whole.span));
            assert_eq!(lines(&front), ["a", "b"]);
            assert_eq!(lines(&back), ["c", "d", "e"]);
            let last = part(&back, 2..3, BatchId(9)).unwrap();
            assert_eq!((last.id, last.first, last.lines), (BatchId(9), 14, 1));
            assert_eq!(lines(&last), ["e"]);
            assert!(part(&back, 2..4, BatchId(9)).is_none());
            assert!(part(&back, 1..1, BatchId(9)).is_none());
        }
    }

    #[test]
    fn a_single_record_is_not_split() {
        assert!(split(&batch(Compression::Lz4, &["a"], NOW), [BatchId(7), BatchId(8)]).is_none());
    }

    #[test]
    fn another_compression_holds_the_same() {
        let zstd = batch(Compression::Zstd, &["a", "b"], NOW);

        let lz4 = recompress(&zstd, Compression::Lz4).unwrap();

        assert_eq!((lz4.compression, lz4.raw_bytes), (Compression::Lz4, zstd.raw_bytes));
        assert_eq!(lines(&lz4), ["a", "b"]);
    }

    #[test]
    fn what_cannot_be_read_is_left_alone() {
        let good = batch(Compression::Lz4, &["a", "b"], NOW);
        for broken in [
            SealedBatch { payload: b"broken".as_slice().into(), ..good.clone() },
            SealedBatch { lines: 3, ..good },
        ] {
            assert!(restamp(&broken, NOW).is_none());
            assert!(split(&broken, [BatchId(7), BatchId(8)]).is_none());
        }
    }
}
