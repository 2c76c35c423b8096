//! The numbers that logferry promises, as far as a test can hold them without racing a clock: counts,
//! sizes, and upper bounds that a busy machine cannot push up. Those of a release build are checked in
//! one, `cargo test --release --test spec`; a debug build leaves them out by name.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

/// How long a line takes.
mod latency;
/// What may be used.
mod limits;
/// One builder for each actor, shared with `tests/it`.
#[path = "../it/support/mod.rs"]
mod support;

/// Thousands of files.
mod many;
