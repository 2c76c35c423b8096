//! Logtail's checkpoint file: whatever the bytes, each entry is one that can be looked for, or has
//! a reason why not.

#![no_main]

use libfuzzer_sys::fuzz_target;
use logferry::checkpoint::logtail::{self, SIGNATURE_BYTES_MAX, Signature};

fuzz_target!(|data: &[u8]| {
    if let Some(signature) = Signature::of_head(data) {
        assert!(signature.matches_start_of(data), "a file has its own signature");
    }
    let Ok(entries) = logtail::parse(data) else { return };
    for entry in entries {
        match entry {
            Ok(entry) => {
                assert!(!entry.places.is_empty());
                assert!(entry.places.iter().chain([&entry.path]).all(|path| path.is_absolute()));
                if let Some(signature) = entry.signature {
                    assert!((1..=SIGNATURE_BYTES_MAX).contains(&(signature.len as usize)));
                    let _ = signature.matches_start_of(data);
                }
            }
            Err(unusable) => assert!(!unusable.reason.is_empty()),
        }
    }
});
