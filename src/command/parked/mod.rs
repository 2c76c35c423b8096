//! `logferry parked`: the records that the service refused for good, and what to do with them.
//!
//! [`list`] and [`show`] look at them, [`replay`] sends them again and removes what was taken, and
//! `drop` removes them. All of it works beside an agent, which only ever adds pieces, and never
//! reads or changes one.

pub mod list;
pub mod replay;
pub mod show;

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::base::exit::ExitCode;
use crate::checkpoint::parked::Parked;
use crate::checkpoint::store::StoreError;
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
        /// Its id.
        id: String,
    },
    /// Remove pieces.
    Drop {
        /// Their ids; `None` means all.
        ids: Option<Vec<String>>,
    },
}

/// Why nothing was done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The output cannot be written.
    #[error("cannot print: {0}")]
    Output(#[from] io::Error),
    /// The state directory cannot be read or written.
    #[error(transparent)]
    State(StoreError),
    /// There is no such piece.
    #[error("nothing of the id {id} is set aside in {dir}; `logferry parked list` shows what is")]
    Unknown {
        /// The state directory.
        dir: PathBuf,
        /// What was asked for.
        id: String,
    },
    /// A piece cannot be used.
    #[error("{dir}/parked/{id}.batch is damaged: {reason}")]
    Damaged {
        /// The state directory.
        dir: PathBuf,
        /// Its id.
        id: String,
        /// What is wrong with it.
        reason: String,
    },
    /// There is no HTTP client, or no runtime for it.
    #[error("cannot send anything: {0}")]
    Client(String),
}

impl Error {
    /// The code to end with.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Client(_) => ExitCode::Settings,
            Self::State(_) | Self::Damaged { .. } => ExitCode::State,
            Self::Output(_) | Self::Unknown { .. } => ExitCode::Usage,
        }
    }
}

/// What one of these commands works on.
struct Pieces<'a> {
    /// The state directory.
    dir: &'a Path,
    parked: Parked,
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
    out: &mut impl Write,
) -> Result<ExitCode, Error> {
    replay::run(&Pieces::open(state_dir)?, ids, options, out).await
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

impl<'a> Pieces<'a> {
    fn open(dir: &'a Path) -> Result<Self, Error> {
        let parked = Parked::open(dir).map_err(cannot("read what is set aside", dir))?;
        Ok(Self { dir, parked })
    }

    fn ids(&self) -> Result<Vec<String>, Error> {
        self.parked.ids().map_err(cannot("read what is set aside", self.dir))
    }

    /// These ids, if there is a piece for each.
    fn expect_known(&self, ids: &[String]) -> Result<Vec<String>, Error> {
        let known = self.ids()?;
        match ids.iter().find(|id| !known.contains(id)) {
            None => Ok(ids.to_vec()),
            Some(id) => Err(self.unknown(id)),
        }
    }

    fn unknown(&self, id: &str) -> Error {
        Error::Unknown { dir: self.dir.to_owned(), id: id.to_owned() }
    }

    fn remove(&self, id: &str) -> Result<bool, Error> {
        self.parked.remove(id).map_err(cannot("remove what is set aside", self.dir))
    }
}

fn cannot(action: &'static str, dir: &Path) -> impl FnOnce(io::Error) -> Error {
    let dir = dir.to_owned();
    move |error| Error::State(StoreError::Io { dir, action, error })
}
