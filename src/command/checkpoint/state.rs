//! The state directory as these commands open it, and why they cannot.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::base::exit::ExitCode;
use crate::checkpoint::error::StoreError;
use crate::checkpoint::logtail;
use crate::checkpoint::store::{Loaded, Store};

/// For messages: where the file to import is.
const WHERE_IT_IS: &str = "logtail keeps it at /tmp/logtail_check_point in its \
    container, or where ALIYUN_LOGTAIL_CHECK_POINT_PATH says";

/// Why nothing was done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The output cannot be written.
    #[error("cannot print: {0}")]
    Output(#[from] io::Error),
    /// An agent runs, or another of these commands.
    #[error(
        "the state directory {dir} is in use by process {holder}, a running agent: stop it first, \
         it would write its own state over this one"
    )]
    Busy {
        /// The directory.
        dir: PathBuf,
        /// A process id, as its own container counts; `unknown` if the lock file has none.
        holder: String,
    },
    /// The state directory cannot be read or written.
    #[error(transparent)]
    State(StoreError),
    /// No checkpoint speaks of this path.
    #[error("the state directory {dir} knows no file {path}; {known}")]
    Unknown {
        /// The directory.
        dir: PathBuf,
        /// What was asked for.
        path: PathBuf,
        /// What it does know, for people.
        known: String,
    },
    /// The file to import cannot be read.
    #[error("cannot read {file}: {error}; {}", WHERE_IT_IS)]
    Read {
        /// The file.
        file: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The file to import is something else.
    #[error("{file} is no checkpoint file of logtail: {error}; {}", WHERE_IT_IS)]
    Format {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        error: logtail::FormatError,
    },
}

impl Error {
    /// The code to end with.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Busy { .. } | Self::State(_) => ExitCode::State,
            Self::Output(_) | Self::Unknown { .. } | Self::Read { .. } | Self::Format { .. } => {
                ExitCode::Usage
            }
        }
    }
}

/// Whether the state directory is there.
///
/// # Errors
/// If it is, and cannot be read: what it holds must not be taken for nothing.
pub(super) fn is_there(dir: &Path) -> Result<bool, Error> {
    match fs::read_dir(dir) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(cannot("read it", dir)(error)),
    }
}

/// Opens the state directory, with its lock, which is held as long as the answer.
pub(super) fn open(dir: &Path) -> Result<(Store, Loaded), Error> {
    Store::open(dir).map_err(|error| match error {
        StoreError::Locked { dir, holder } => Error::Busy { dir, holder },
        error @ StoreError::Io { .. } => Error::State(error),
    })
}

pub(super) fn cannot(action: &'static str, dir: &Path) -> impl FnOnce(io::Error) -> Error {
    let dir = dir.to_owned();
    move |error| Error::State(StoreError::Io { dir, action, error })
}
