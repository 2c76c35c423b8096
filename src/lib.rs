//! Ships a pod's log files to Simple Log Service (SLS).
//!
//! A sidecar: it tails files through the symlink that the app makes, remembers how far it got,
//! puts the pod's names on what it sends, and delivers it over HTTP.
//!
//! # The journey of a line
//!
//! ```text
//!  app writes                                                         checkpoint
//!      │                                                                   ▲
//!      ▼                                                                   │
//!  Registry ─ grew ─▶ Schedule ─ turn ─▶ Reader ──▶ read buffer       Watermark ◀─────┐
//!                                                      │ &[u8]                        │
//!      collector thread (no async)                     ▼                              │
//!                                  split ▶ LogGroup ▶ Compressor                      │ Ack
//!                                  pipeline            │ SealedBatch                  │
//!  ════════════════════ handoff: bounded in bytes ═════▼══════════════════════════════╪═
//!      sender thread (tokio, current_thread)                                          │
//!        Dispatch ─ attempt ─▶ sign ▶ request ▶ http ─ answer ─▶ Verdict ─▶ Dispatch ─┘
//! ```
//!
//! # In reading order
//!
//! [`pipeline`] is what happens to a line; [`collector`] is the loop around it; [`tail`] finds and
//! knows files; [`mod@line`], [`batch`] and [`enrich`] make groups; [`checkpoint`] remembers;
//! [`handoff`] joins the threads; [`send`] delivers; [`limit`] keeps it small; [`config`] gives
//! meaning to settings, and makes the [`plan`] of them: which files, and where to; [`app`] wires it all, [`signals`] and [`shutdown`] take it down, [`admin`] shows
//! it. [`command`] is what people type beside `run`, and [`base`] what all share.
//!
//! Crates of their own are [`logferry_wire`], what the agent and the service speak; [`logferry_mock`],
//! the endpoint for development and for the tests; [`logferry_clock`]; [`logferry_lease`] and [`logferry_trim`].

pub mod access;
pub mod admin;
pub mod app;
pub mod base;
pub mod batch;
pub mod checkpoint;
pub mod cli;
pub mod collector;
pub mod command;
pub mod config;
pub mod enrich;
pub mod handoff;
pub mod limit;
pub mod line;
pub mod pipeline;
pub mod plan;
pub mod send;
pub mod shutdown;
pub mod signals;
pub mod tail;
pub mod telemetry;

#[cfg(test)]
extern crate self as logferry;
#[cfg(test)]
mod hostile_tests;
