//! The checkpoint file: decoding never panics, and what decodes means the same after encoding.
//!
//! Input: a file without its check sum, which is made right here, because no mutation would.

#![no_main]

use libfuzzer_sys::fuzz_target;
use logferry::checkpoint::format::{decode, encode};

fuzz_target!(|data: &[u8]| {
    let _ = decode(data);
    let file = [data, &crc32fast::hash(data).to_le_bytes()].concat();
    if let Ok((generation, checkpoints)) = decode(&file) {
        let again = encode(generation, &checkpoints);
        assert_eq!(decode(&again), Ok((generation, checkpoints)));
    }
});
