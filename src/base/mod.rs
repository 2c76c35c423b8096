//! Values without a home of their own, and the clock.
//!
//! Level 0: they know nothing of the agent, and nearly all modules know some of them.

pub mod escape;
pub mod exit;
pub mod fingerprint;
pub mod report;
pub mod sealed;
pub mod span;
pub mod units;

pub use logferry_clock as clock;
