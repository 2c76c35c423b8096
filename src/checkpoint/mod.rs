//! What has surely arrived, and how it is remembered.
//!
//! The promise: a checkpoint never passes a byte that the endpoint has not acknowledged (or that
//! was set aside on disk). [`watermark`] turns acknowledgements into offsets, [`mod@format`] turns
//! them into bytes, [`store`] keeps the bytes, with the lock that makes this agent the only one.
//! [`logtail`] reads what the agent remembered that this one replaces.
//!
//! # Crash safety
//! Each time watermarks have moved, the state is written without waiting for the disk
//! (`checkpoint.now`): that survives the death of the process. Every five seconds it is also
//! written through to the disk, in turn to `checkpoint.0` and `checkpoint.1`: that survives the
//! death of the machine. At the start the newest intact one of the three is taken. What a crash
//! can cost is therefore repeated, never lost: after a kill, what was in flight; after a power
//! loss, at most five seconds more. `tests/it/crash_matrix.rs` ends the process at each system call
//! that touches the directory.

pub mod error;
mod files;
pub mod format;
mod hold;
pub mod keep;
pub mod logtail;
mod murmur3;
pub mod parked;
pub mod store;
pub mod watermark;
