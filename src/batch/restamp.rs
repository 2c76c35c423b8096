//! New times for a group that was read by a wrong clock, or has waited for too long.
//!
//! The service refuses a whole group if one `Time` is older than seven days or more than a quarter
//! of an hour ahead of its own clock. The lines are as good as others, so they get a time that it
//! takes. Pure; the only place where a sealed payload is opened again.

use std::sync::Arc;

use prost::Message as _;

use super::compress::{Compressor, decompress};
use crate::sealed::SealedBatch;
use crate::wire::{LOG_AGE_SECONDS_MAX, LOG_AHEAD_SECONDS_MAX, sls_logs::LogGroup};

/// Room for the way to the service, and for the noise of its clock.
const MARGIN_SECONDS: i64 = 60;

/// The batch with all its times within the service's bounds, where `server_unix` is its time.
/// `None` if they were: then it was refused for another reason.
#[must_use]
pub fn restamp(batch: &SealedBatch, server_unix: i64) -> Option<SealedBatch> {
    let raw_len = batch.raw_bytes as usize;
    let raw = decompress(batch.compression, &batch.payload, raw_len)?;
    let mut group = LogGroup::decode(&*raw).ok()?;
    let oldest = server_unix - LOG_AGE_SECONDS_MAX + MARGIN_SECONDS;
    let newest = server_unix + LOG_AHEAD_SECONDS_MAX - MARGIN_SECONDS;
    let mut is_changed = false;
    for log in &mut group.logs {
        if !(oldest..=newest).contains(&i64::from(log.time)) {
            log.time = u32::try_from(server_unix).ok()?;
            is_changed = true;
        }
    }
    if !is_changed {
        return None;
    }
    let raw = group.encode_to_vec();
    let payload: Arc<[u8]> = Compressor::new(batch.compression).ok()?.compress(&raw);
    Some(SealedBatch { payload, raw_bytes: u32::try_from(raw.len()).ok()?, ..batch.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sealed::{BatchId, Route};
    use crate::span::{FileKey, Span};
    use crate::wire::Compression;
    use crate::wire::sls_logs::{Log, log::Content};

    const NOW: i64 = 1_700_000_000;

    fn batch(compression: Compression, time: i64) -> SealedBatch {
        let content = Content { key: "content".to_owned(), value: b"line".to_vec() };
        let time = u32::try_from(time).unwrap();
        let log = Log { time, contents: vec![content], ..Log::default() };
        let raw = LogGroup { logs: vec![log], ..LogGroup::default() }.encode_to_vec();
        SealedBatch {
            id: BatchId(1),
            span: Span::new(FileKey(1), 0, 5),
            path: "/a.log".into(),
            payload: Compressor::new(compression).unwrap().compress(&raw),
            compression,
            raw_bytes: u32::try_from(raw.len()).unwrap(),
            lines: 1,
            first: 0,
            route: Route::Any,
        }
    }

    fn check(time: i64, expected: Option<i64>) {
        for compression in [Compression::None, Compression::Lz4, Compression::Zstd] {
            let restamped = restamp(&batch(compression, time), NOW).map(|batch| {
                let raw_len = batch.raw_bytes as usize;
                let raw = decompress(compression, &batch.payload, raw_len).unwrap();
                let group = LogGroup::decode(&*raw).unwrap();
                assert_eq!(group.logs[0].contents[0].value, b"line");
                i64::from(group.logs[0].time)
            });
            assert_eq!(restamped, expected, "{time}");
        }
    }

    #[test]
    fn a_time_that_the_service_refuses_becomes_its_own() {
        check(NOW - 3600, None);
        check(NOW + 60, None);
        check(NOW + 1200, Some(NOW));
        check(NOW - 8 * 24 * 3600, Some(NOW));
    }

    #[test]
    fn what_cannot_be_read_is_left_alone() {
        let broken =
            SealedBatch { payload: b"broken".as_slice().into(), ..batch(Compression::Lz4, 0) };
        assert!(restamp(&broken, NOW).is_none());
    }
}
