//! Why the state directory cannot be used, and what a person can do about it.

use std::io;
use std::path::{Path, PathBuf};

use crate::access;

/// Why the state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Making, opening or writing failed.
    #[error(
        "the state directory {dir} cannot be used: {action}: {error}; {}", advice(.dir, .error)
    )]
    Io {
        /// The directory.
        dir: PathBuf,
        /// What was tried, for the message.
        action: &'static str,
        /// What the system said.
        error: io::Error,
    },
    /// Another process holds the lock.
    #[error(
        "the state directory {dir} is in use by another agent (process {holder}); two agents must \
         not share one: give each its own LOGFERRY_STATE_DIR"
    )]
    Locked {
        /// The directory.
        dir: PathBuf,
        /// A process id, as its own container counts; `unknown` if the lock file has none.
        holder: String,
    },
}

/// What a person can do about an error. Asks the system again, a moment after it has refused.
fn advice(dir: &Path, error: &io::Error) -> String {
    let explained = match error.kind() {
        io::ErrorKind::PermissionDenied => access::explain_state(dir),
        io::ErrorKind::ReadOnlyFilesystem => Some(
            "it is on a disk that is mounted read-only: in a pod, mount a volume there that may be \
             written, on a disk that outlives the pod, or name such a one with LOGFERRY_STATE_DIR"
                .to_owned(),
        ),
        _ => None,
    };
    explained.unwrap_or_else(|| {
        "give the agent a directory that it may write, on a disk that outlives the pod \
         (LOGFERRY_STATE_DIR)"
            .to_owned()
    })
}

impl StoreError {
    /// Whether the system forbids this user what was tried.
    #[must_use]
    pub fn is_forbidden(&self) -> bool {
        matches!(self, Self::Io { error, .. } if error.kind() == io::ErrorKind::PermissionDenied)
    }

    /// Whether the error is one that passes: the disk or a quota of it is full, or a limit of file
    /// sizes is too small.
    #[must_use]
    pub fn is_full(&self) -> bool {
        use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
        match self {
            Self::Io { error, .. } => {
                matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
            }
            Self::Locked { .. } => false,
        }
    }
}

impl From<StoreError> for io::Error {
    fn from(error: StoreError) -> Self {
        Self::other(error)
    }
}
