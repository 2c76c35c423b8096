//! `logferry status`: which files are shipped, and how far.
//!
//! [`ask`] asks the running agent. When none answers, [`saved`] reads the state directory instead,
//! without its lock, and says so: that is what was acknowledged when it was last saved. [`text`]
//! makes a table for people; `--json` prints the same facts, from an agent as
//! [`crate::admin::status`] describes them and from the directory as [`saved::Saved`].
//!
//! It changes nothing and trusts nobody: whatever listens at the address, its answer is read
//! within bounds and only shown if it is an agent's.

pub mod ask;
pub mod saved;
pub mod text;

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::Path;

use self::saved::Saved;
use crate::clock;
use crate::exit::ExitCode;
use crate::table;

/// Prints the status to `out`. `listen` is the agent's admin address, if it has one.
///
/// Gives [`ExitCode::State`] when no agent answers and the state directory cannot be read either.
///
/// # Errors
/// If `out` cannot be written.
pub fn run(
    listen: Option<SocketAddr>,
    state_dir: &Path,
    json: bool,
    out: &mut impl Write,
) -> io::Result<ExitCode> {
    let now_unix = clock::wall().as_secs();
    let why = match listen {
        None => "the admin port is switched off (LOGFERRY_LISTEN is empty)".to_owned(),
        Some(address) => match ask::agent(address) {
            Ok(status) => {
                let text = if json {
                    table::json(&status)?
                } else {
                    text::of_agent(&status, address, now_unix)
                };
                out.write_all(text.as_bytes())?;
                return Ok(ExitCode::Done);
            }
            Err(error) => error.to_string(),
        },
    };
    let saved = Saved::read(state_dir, why);
    let text = if json { table::json(&saved)? } else { text::of_saved(&saved, now_unix) };
    out.write_all(text.as_bytes())?;
    Ok(if saved.error.is_empty() { ExitCode::Done } else { ExitCode::State })
}

#[cfg(test)]
mod tests;
