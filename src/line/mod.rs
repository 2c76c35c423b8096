//! Bytes to lines.
//!
//! [`split`] finds where a line ends and what to do with one that is too long or has no end.
//! Nothing here allocates, and no byte of a line is changed.

pub mod split;
