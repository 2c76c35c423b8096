//! What people type beside `run`: each command in a file or folder of its name.
//!
//! [`check`] prints the settings. [`checkpoint`] and [`parked`] deal with the state directory, [`status`] asks an agent or reads what
//! one has left, [`mock`] and [`demo`] are for development. [`table`] is how they print.

pub mod check;
pub mod checkpoint;
pub mod demo;
pub mod mock;
pub mod parked;
pub mod status;
pub mod table;
