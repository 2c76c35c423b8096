//! `logferry checkpoint`: what the state directory holds, and how to change it.
//!
//! [`show`] reads it without its lock, also beside an agent. [`reset`] forgets a file, [`import`]
//! takes over what logtail had read; both take the lock, so they refuse to run beside an agent,
//! which would write its own state over theirs. [`find`] looks for a file where it may be now.

pub mod find;
pub mod import;
pub mod reset;
pub mod show;
pub mod state;

use std::io::Write;
use std::path::PathBuf;

pub use self::state::Error;

use crate::config::Kept;

/// What to do with the state directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Print what it holds.
    Show {
        /// As JSON.
        json: bool,
    },
    /// Forget one file.
    Reset {
        /// Path of the file, as configured or with links resolved.
        path: PathBuf,
    },
    /// Take over the offsets of a logtail checkpoint file.
    Import {
        /// The file.
        file: PathBuf,
    },
}

/// Does it, and prints what was done to `out`.
///
/// # Errors
/// Why it could not be done; then the state directory is as it was.
pub fn run(action: &Action, kept: &Kept, out: &mut impl Write) -> Result<(), Error> {
    match action {
        Action::Show { json } => show::run(kept, *json, out),
        Action::Reset { path } => reset::run(path, &kept.state_dir, out),
        Action::Import { file } => import::run(file, kept, out),
    }
}

#[cfg(test)]
mod tests;
