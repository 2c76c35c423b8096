//! The real binary against the mock endpoint: real files, real notifications, real sockets, real
//! signals. What must arrive is what the writer wrote, never what did arrive.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

/// The admin port and `logferry status`.
mod admin;

/// Settings that are wrong, state directories that cannot be used.
mod bad_input;
/// `logferry checkpoint`, and taking over from logtail.
mod checkpoint;
/// `logferry demo` and the other commands.
mod commands;
/// Killed and started again.
mod crash;
/// What arrives: tags, compression, line ends, unfinished and long lines.
mod delivery;
/// SIGTERM in every situation.
mod drain;
/// Errors of the endpoint.
mod errors;
/// The state directory full, read-only, gone, damaged.
mod state;
/// One builder for each actor.
mod support;
/// Links, backlogs, rotation, truncation, polling.
mod tail;
