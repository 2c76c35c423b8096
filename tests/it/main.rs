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
/// Encodings, what looks like control data: L07, L13.
mod content;
/// Killed and started again.
mod crash;
/// What arrives: tags, compression, line ends, unfinished and long lines.
mod delivery;
/// SIGTERM in every situation.
mod drain;
/// Errors of the endpoint.
mod errors;
/// Limits of notifications and descriptors, fairness, clocks: K01 to K10.
mod kernel;
/// Long lines, large files: L08, L09, L12, L14.
mod large;
/// Unfinished lines, line ends, empty lines, traces: L01 to L05, L10, L11 of the catalogue.
mod lines;
/// NUL bytes: L06.
mod nuls;
/// The state directory full, read-only, gone, damaged.
mod state;
/// One builder for each actor.
mod support;
/// Links, backlogs, rotation, truncation, polling.
mod tail;
/// What is no file, what may not be read: L15, L16.
mod unreadable;
