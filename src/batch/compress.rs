//! Payloads: none, LZ4 raw block, zstd frame.
//!
//! Pure. Source: facts of the wire protocol, section 2.5. zstd uses level 1, as the service's own
//! agents do.

use std::sync::Arc;

use logferry_wire::Compression;

const ZSTD_LEVEL: i32 = 1;

/// Compresses groups, one after the other, in buffers of its own.
pub struct Compressor {
    compression: Compression,
    /// Reused output; as large as the worst case of the largest group so far.
    scratch: Vec<u8>,
    zstd: Option<zstd::bulk::Compressor<'static>>,
}

impl Compressor {
    /// Makes a compressor.
    ///
    /// # Errors
    /// If zstd cannot allocate its context.
    pub fn new(compression: Compression) -> std::io::Result<Self> {
        let zstd = match compression {
            Compression::Zstd => Some(zstd::bulk::Compressor::new(ZSTD_LEVEL)?),
            Compression::Lz4 | Compression::None => None,
        };
        Ok(Self { compression, scratch: Vec::new(), zstd })
    }

    /// The payload of `raw`. *Cost*: one allocation of the payload's size.
    ///
    /// # Panics
    /// Never: the output has the size that the format documents as its worst case.
    pub fn compress(&mut self, raw: &[u8]) -> Arc<[u8]> {
        let bound = match self.compression {
            Compression::None => return Arc::from(raw),
            Compression::Lz4 => lz4_flex::block::get_maximum_output_size(raw.len()),
            Compression::Zstd => zstd::zstd_safe::compress_bound(raw.len()),
        };
        if self.scratch.len() < bound {
            // Not grown: that would copy it, and might make it twice as large. Of a new one, memory is
            // taken only as far as it is written.
            self.scratch = Vec::new();
            self.scratch = vec![0; bound];
        }
        let len = match &mut self.zstd {
            None => lz4_flex::block::compress_into(raw, &mut self.scratch)
                .expect("the output has the worst-case size"),
            Some(zstd) => zstd
                .compress_to_buffer(raw, &mut self.scratch)
                .expect("the output has the worst-case size"),
        };
        Arc::from(&self.scratch[..len])
    }

    /// How the payloads are compressed.
    #[must_use]
    pub fn compression(&self) -> Compression {
        self.compression
    }
}

/// Largest payload that `raw_bytes` can become, whatever the compression.
#[must_use]
pub fn payload_bytes_max(raw_bytes: usize) -> usize {
    lz4_flex::block::get_maximum_output_size(raw_bytes)
        .max(zstd::zstd_safe::compress_bound(raw_bytes))
}

/// The group that `payload` holds, of `raw_len` bytes. `None` if that is not so.
#[must_use]
pub fn decompress(compression: Compression, payload: &[u8], raw_len: usize) -> Option<Vec<u8>> {
    let raw = match compression {
        Compression::None => payload.to_vec(),
        Compression::Lz4 => lz4_flex::block::decompress(payload, raw_len).ok()?,
        Compression::Zstd => zstd::bulk::decompress(payload, raw_len).ok()?,
    };
    (raw.len() == raw_len).then_some(raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_decompress_to_what_they_were_made_of() {
        let raw: Vec<u8> = b"the same words again and again, ".repeat(4000);
        for text in [&raw[..], b"", b"x"] {
            let lz4 = Compressor::new(Compression::Lz4).unwrap().compress(text);
            let zstd = Compressor::new(Compression::Zstd).unwrap().compress(text);
            let none = Compressor::new(Compression::None).unwrap().compress(text);
            assert_eq!(lz4_flex::block::decompress(&lz4, text.len()).unwrap(), text);
            assert_eq!(zstd::bulk::decompress(&zstd, text.len()).unwrap(), text);
            assert_eq!(&*none, text);
        }
    }
}
