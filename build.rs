//! Tells `logferry version` which commit was built, where the source is a git checkout.
//!
//! Reads two small files; runs no program and needs nothing but the toolchain. An image build that
//! has no `.git` sets LOGFERRY_COMMIT instead.

use std::fs;
use std::path::Path;

fn main() {
    println!("cargo::rerun-if-env-changed=LOGFERRY_COMMIT");
    println!("cargo::rerun-if-changed=.git/HEAD");
    let given = std::env::var_os("LOGFERRY_COMMIT").and_then(|commit| commit.into_string().ok());
    let commit = given.or_else(head_commit).unwrap_or_else(|| "unknown".to_owned());
    println!("cargo::rustc-env=LOGFERRY_COMMIT={commit}");
    let target = std::env::var_os("TARGET").and_then(|target| target.into_string().ok());
    println!("cargo::rustc-env=LOGFERRY_TARGET={}", target.unwrap_or_default());
}

fn head_commit() -> Option<String> {
    let head = fs::read_to_string(".git/HEAD").ok()?;
    let Some(reference) = head.trim().strip_prefix("ref: ") else {
        return Some(head.trim().to_owned());
    };
    println!("cargo::rerun-if-changed=.git/{reference}");
    Some(fs::read_to_string(Path::new(".git").join(reference)).ok()?.trim().to_owned())
}
