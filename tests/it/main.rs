//! The real binary against the mock endpoint: real files, real notifications, real sockets, real
//! signals. What must arrive is what the writer wrote, never what did arrive.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

/// The admin port and `logferry status`.
mod admin;

/// Files that look like others and are none of them (F35, F43).
mod alike;
/// Rotation while the endpoint is down (F03, F04).
mod backlog;
/// Settings that are wrong, state directories that cannot be used.
mod bad_input;
/// `logferry checkpoint`, and taking over from logtail.
mod checkpoint;
/// `logferry demo` and the other commands.
mod commands;
/// Copied, emptied and compressed while the app writes (F44).
mod compressed;
/// Encodings, what looks like control data: L07, L13.
mod content;
/// Killed and started again.
mod crash;
/// Killed at each system call on the state directory.
mod crash_matrix;
/// What arrives: tags, compression, line ends, unfinished and long lines.
mod delivery;
/// SIGTERM in every situation.
mod drain;
/// Errors of the endpoint.
mod errors;
/// Exactly once: N04, P05.
mod exactly_once;
/// Excluded, or taken out of the patterns, between two runs (F45).
mod excluded;
/// Compressed generations (F07 to F09).
mod gzip;
/// The same when the agent is told to end.
mod gzip_stop;
/// Which file is which (F16, F17, F20, F21, F35 to F37).
mod identity;
/// The pods of jobs, and sidecars that start before their app (P06 to P08).
mod jobs;
/// Limits of notifications and descriptors, fairness, clocks: K01 to K10.
mod kernel;
/// Long lines, large files: L08, L09, L12, L14.
mod large;
/// A pod's life: restarts of its app, readiness, the first process of a container.
mod life;
/// Unfinished lines, line ends, empty lines, traces: L01 to L05, L10, L11 of the catalogue.
mod lines;
/// Links (F23 to F29).
mod links;
/// The real logrotate, in all ways to set it up (F39).
mod logrotate;
/// Thousands of files.
mod many;
/// Names and their addresses: N11.
mod names;
/// What the network does to connections: N02, N03, N14.
mod network;
/// NUL bytes: L06.
mod nuls;
/// A directory of its own for old logs (F39).
mod olddir;
/// The endpoint is away, slow, or answers into the void: N01, N04, N09, N15, N17, N18.
mod outage;
/// Checkpoints of this collection, of another one, and of nobody.
mod owners;
/// `logferry parked`.
mod parked;
/// Paths of another user (L16), as the image's user meets them.
mod permissions;
/// The power goes: C09.
mod power;
/// A forward proxy: N13.
mod proxy;
/// The pace of requests, and lists of several batches: N05, N06, N10, N16.
mod quota;
/// Renamed directories, files moved, names that rotation seldom gives (F40 to F42).
mod renamed;
/// Rotation while no agent runs, and what is remembered (F05, F06, F14, F18, F38).
mod restart;
/// Truncation and rewriting (F10 to F15).
mod rewrite;
/// Rotation while the agent runs (F01, F02, F30, F32, F33).
mod rotation;
/// Secrets appear nowhere: S05.
mod secrets;
/// Which shard.
mod shards;
/// Two agents at one directory (F34).
mod shared;
/// The state directory full, read-only, gone, damaged.
mod state;
/// One builder for each actor.
mod support;
/// A large backlog.
mod tail;
/// Certificates: N12.
mod tls;
/// What is no file, what may not be read: L15, L16.
mod unreadable;
