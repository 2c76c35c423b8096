//! Collections: which files are shipped, how their text becomes records, and where these go.
//!
//! Pure. A checkpoint names the collection that its file belongs to. The flat settings make one.

/// The name of the collection that the flat settings make.
pub const DEFAULT: &str = "default";
