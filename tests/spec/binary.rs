//! The program's own size.

use std::fs;
use std::process::Command;

const BYTES_MAX: u64 = 8_000_000;

#[test]
#[cfg_attr(debug_assertions, ignore = "a number of the release build")]
fn the_binary_has_at_most_8_mb_when_it_is_stripped() {
    let dir = tempfile::tempdir().unwrap();
    let stripped = dir.path().join("logferry");
    let binary = env!("CARGO_BIN_EXE_logferry");
    let status = Command::new("strip").arg("-o").arg(&stripped).arg(binary).status();
    assert!(status.expect("strip(1) of binutils").success());

    let bytes = fs::metadata(&stripped).unwrap().len();

    assert!(bytes <= BYTES_MAX, "{bytes} bytes");
}
