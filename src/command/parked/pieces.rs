//! The pieces in a state directory as these commands reach them, and why they cannot.

use std::io;
use std::path::{Path, PathBuf};

use crate::base::exit::ExitCode;
use crate::checkpoint::error::StoreError;
use crate::checkpoint::parked::Parked;

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
        /// Id of the piece.
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
pub(super) struct Pieces<'a> {
    /// The state directory.
    pub(super) dir: &'a Path,
    pub(super) parked: Parked,
}

impl<'a> Pieces<'a> {
    pub(super) fn open(dir: &'a Path) -> Result<Self, Error> {
        let parked = Parked::open(dir).map_err(cannot("read what is set aside", dir))?;
        Ok(Self { dir, parked })
    }

    pub(super) fn ids(&self) -> Result<Vec<String>, Error> {
        self.parked.ids().map_err(cannot("read what is set aside", self.dir))
    }

    /// Returns these ids, if there is a piece for each.
    pub(super) fn expect_known(&self, ids: &[String]) -> Result<Vec<String>, Error> {
        let known = self.ids()?;
        match ids.iter().find(|id| !known.contains(id)) {
            None => Ok(ids.to_vec()),
            Some(id) => Err(self.unknown(id)),
        }
    }

    pub(super) fn unknown(&self, id: &str) -> Error {
        Error::Unknown { dir: self.dir.to_owned(), id: id.to_owned() }
    }

    pub(super) fn remove(&self, id: &str) -> Result<bool, Error> {
        self.parked.remove(id).map_err(cannot("remove what is set aside", self.dir))
    }
}

fn cannot(action: &'static str, dir: &Path) -> impl FnOnce(io::Error) -> Error {
    let dir = dir.to_owned();
    move |error| Error::State(StoreError::Io { dir, action, error })
}
