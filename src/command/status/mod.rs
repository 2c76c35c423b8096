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

use self::saved::{Saved, SavedFile};
use crate::base::clock;
use crate::base::exit::ExitCode;
use crate::base::report::FileReport;
use crate::command::table;

/// What to show of the status, and how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::Args)]
pub struct Form {
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
    /// Show only files that lag behind or have an error.
    #[arg(long)]
    pub lagging: bool,
}

/// How far a file lags behind; the greatest first.
trait Lagging {
    /// Seconds, bytes, and whether it has an error. What is not known is more than nothing.
    fn lag(&self) -> (u64, u64, bool);
}

impl Lagging for FileReport {
    fn lag(&self) -> (u64, u64, bool) {
        (self.lag_seconds, self.lag_bytes, !self.last_error.is_empty())
    }
}

impl Lagging for SavedFile {
    fn lag(&self) -> (u64, u64, bool) {
        (0, self.lag_bytes.unwrap_or(1), !self.last_error.is_empty())
    }
}

impl Form {
    /// Leaves out what was not asked for, and puts the file that lags most first; of the others
    /// the order stays.
    fn arrange<F: Lagging>(self, files: &mut Vec<F>) {
        if self.lagging {
            files.retain(|file| file.lag() != (0, 0, false));
        }
        files.sort_by_key(|file| std::cmp::Reverse(file.lag()));
    }
}

/// Prints the status to `out`. `listen` is the agent's admin address, if it has one.
///
/// Gives [`ExitCode::State`] when no agent answers and the state directory cannot be read either.
///
/// # Errors
/// If `out` cannot be written.
pub fn run(
    listen: Option<SocketAddr>,
    state_dir: &Path,
    form: Form,
    out: &mut impl Write,
) -> io::Result<ExitCode> {
    let now_unix = clock::wall().as_secs();
    let why = match listen {
        None => "the admin port is switched off (LOGFERRY_LISTEN is empty)".to_owned(),
        Some(address) => match ask::agent(address) {
            Ok(mut status) => {
                form.arrange(&mut status.files);
                let text = if form.json {
                    table::json(&status)?
                } else {
                    text::of_agent(&status, address, form.lagging, now_unix)
                };
                out.write_all(text.as_bytes())?;
                return Ok(ExitCode::Done);
            }
            Err(error) => error.to_string(),
        },
    };
    let mut saved = Saved::read(state_dir, why);
    form.arrange(&mut saved.files);
    let text = if form.json {
        table::json(&saved)?
    } else {
        text::of_saved(&saved, form.lagging, now_unix)
    };
    out.write_all(text.as_bytes())?;
    Ok(if saved.error.is_empty() { ExitCode::Done } else { ExitCode::State })
}

#[cfg(test)]
mod tests;
