//! `logferry parked`: the records that the service refused for good, and what to do with them.
//!
//! [`list`] and [`show`] look at them, [`replay`] sends them again and removes what was taken, and
//! `drop` removes them. All of it works beside an agent, which only ever adds pieces, and never
//! reads or changes one.

pub mod list;
pub mod pieces;
pub mod replay;
pub mod show;

use std::io::Write;
use std::path::Path;

pub use self::pieces::Error;

use self::pieces::Pieces;
use crate::base::exit::ExitCode;
use crate::plan::Destination;
use crate::send;

/// What to do with what is set aside, on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Print what there is.
    List {
        /// As JSON.
        json: bool,
    },
    /// Print one piece whole.
    Show {
        /// Id of the piece.
        id: String,
    },
    /// Remove pieces.
    Drop {
        /// Ids of the pieces; `None` means all.
        ids: Option<Vec<String>>,
    },
}

/// Does it, and prints what was done to `out`.
///
/// # Errors
/// Why it could not be done.
pub fn run(action: &Action, state_dir: &Path, out: &mut impl Write) -> Result<ExitCode, Error> {
    let pieces = Pieces::open(state_dir)?;
    match action {
        Action::List { json } => list::run(&pieces, *json, out)?,
        Action::Show { id } => show::run(&pieces, id, out)?,
        Action::Drop { ids } => drop_pieces(&pieces, ids.as_deref(), out)?,
    }
    Ok(ExitCode::Done)
}

/// Sends pieces again, all if none is named; prints how each has fared.
///
/// # Errors
/// Why nothing was sent. What could not be delivered is no error: [`ExitCode::Undelivered`].
pub async fn send_again(
    ids: &[String],
    state_dir: &Path,
    options: send::Options,
    destination: Destination,
    out: &mut impl Write,
) -> Result<ExitCode, Error> {
    replay::run(&Pieces::open(state_dir)?, ids, (options, destination), out).await
}

fn drop_pieces(
    pieces: &Pieces<'_>,
    ids: Option<&[String]>,
    out: &mut impl Write,
) -> Result<(), Error> {
    let ids = match ids {
        None => pieces.ids()?,
        Some(ids) => pieces.expect_known(ids)?,
    };
    for id in &ids {
        if pieces.remove(id)? {
            writeln!(out, "{id}: dropped")?;
        }
    }
    writeln!(out, "{} dropped, for good", ids.len())?;
    Ok(())
}
