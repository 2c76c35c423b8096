//! The body of a request that carries several batches: a package list.
//!
//! Pure. Each package is a LogGroup, compressed by itself; the list around them is not compressed.
//! Appends the bytes itself, as [`crate::batch`] does those of a LogGroup; equal to what prost makes
//! of the same message. Source: facts of the wire protocol, `SlsLogPackageList`.
//!
//! ```text
//! package  0a len { 0a len payload  10 size before compression(varint)  18 how compressed }
//! ```

use crate::base::sealed::SealedBatch;
use logferry_wire::Compression;
use logferry_wire::sls_logs::SlsCompressType;

/// Encodes batches as one list. *Cost*: one allocation, and a copy of every payload.
#[must_use]
pub fn encode(batches: &[SealedBatch]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(batches.iter().map(package_len).sum());
    for batch in batches {
        bytes.push(0x0a);
        put_varint(&mut bytes, fields_len(batch));
        bytes.push(0x0a);
        put_varint(&mut bytes, batch.payload.len());
        bytes.extend_from_slice(&batch.payload);
        bytes.push(0x10);
        put_varint(&mut bytes, batch.raw_bytes as usize);
        bytes.push(0x18);
        bytes.push(compress_type(batch.compression));
    }
    bytes
}

/// Bytes that a batch takes in a list.
#[must_use]
pub fn package_len(batch: &SealedBatch) -> usize {
    let fields = fields_len(batch);
    1 + varint_len(fields) + fields
}

fn fields_len(batch: &SealedBatch) -> usize {
    let payload = batch.payload.len();
    1 + varint_len(payload) + payload + 1 + varint_len(batch.raw_bytes as usize) + 2
}

fn compress_type(compression: Compression) -> u8 {
    let number = match compression {
        Compression::Lz4 => SlsCompressType::SlsCmpLz4,
        Compression::Zstd => SlsCompressType::SlsCmpZstd,
        Compression::None => SlsCompressType::SlsCmpNone,
    };
    // A varint of one byte.
    number as u8
}

fn put_varint(bytes: &mut Vec<u8>, mut value: usize) {
    while value >= 0x80 {
        bytes.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    bytes.push(value.to_le_bytes()[0]);
}

fn varint_len(value: usize) -> usize {
    (usize::BITS - (value | 1).leading_zeros()).div_ceil(7) as usize
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use prost::Message as _;

    use super::*;
    use crate::base::sealed::{BatchId, DestinationId, Route};
    use crate::base::span::{CollectionId, FileKey, Span, StreamKey};
    use logferry_wire::sls_logs::{SlsLogPackage, SlsLogPackageList};

    const STREAM: StreamKey = StreamKey { file: FileKey(0), collection: CollectionId(0) };

    fn batch(payload: Vec<u8>, raw_bytes: u32, compression: Compression) -> SealedBatch {
        SealedBatch {
            id: BatchId(0),
            span: Span::new(STREAM, 0, 10),
            destination: DestinationId(0),
            path: Arc::from("/share/logs/app.log"),
            payload: Arc::from(payload),
            compression,
            raw_bytes,
            lines: 1,
            first: 0,
            route: Route::Any,
            since: crate::base::clock::now(),
        }
    }

    fn package(batch: &SealedBatch) -> SlsLogPackage {
        let compress_type = match batch.compression {
            Compression::Lz4 => SlsCompressType::SlsCmpLz4,
            Compression::Zstd => SlsCompressType::SlsCmpZstd,
            Compression::None => SlsCompressType::SlsCmpNone,
        };
        SlsLogPackage {
            data: batch.payload.to_vec(),
            uncompress_size: Some(i32::try_from(batch.raw_bytes).unwrap()),
            compress_type: Some(compress_type as i32),
        }
    }

    fn compression() -> impl Strategy<Value = Compression> {
        prop::sample::select(vec![Compression::Lz4, Compression::Zstd, Compression::None])
    }

    proptest! {
        #[test]
        fn equals_what_prost_makes(
            batches in prop::collection::vec(
                (prop::collection::vec(any::<u8>(), 0..300), 0_u32..=0x7fff_ffff, compression()),
                0..20,
            ),
        ) {
            let batches: Vec<SealedBatch> =
                batches.into_iter().map(|(data, raw, how)| batch(data, raw, how)).collect();
            let list = SlsLogPackageList { packages: batches.iter().map(package).collect() };

            let bytes = encode(&batches);

            prop_assert_eq!(&bytes, &list.encode_to_vec());
            prop_assert_eq!(bytes.len(), batches.iter().map(package_len).sum::<usize>());
        }
    }

    #[test]
    fn a_large_payload_has_its_length_in_more_bytes() {
        let batches = [batch(vec![7; 70_000], 3 << 20, Compression::Lz4)];
        let list = SlsLogPackageList { packages: batches.iter().map(package).collect() };

        assert_eq!(encode(&batches), list.encode_to_vec());
    }
}
