//! Access keys: read from their file, and the one to sign with now.
//!
//! A credentials file that is replaced is taken up within a second, when something is to be signed
//! (see `watched`). Nothing here prints a secret, nor a message of the JSON parser: those
//! quote the text.

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::Deserialize;
use tracing::{info, warn};

use super::secret::{Credentials, CredentialsSource, Secret};
use super::watched::{Look, Watched};

/// Why there are no credentials to sign with.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// The file cannot be read.
    #[error("cannot read the credentials file {}: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// The file is not what it should be.
    #[error("the credentials file {} {trouble}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong, without a word from the file.
        trouble: String,
    },
}

/// Reads a credentials file.
///
/// # Errors
/// If it cannot be read, or is not a JSON object with `access_key_id` and `access_key_secret`.
pub fn read_credentials(path: &Path) -> Result<Credentials, CredentialsError> {
    let unreadable = |error| CredentialsError::Read { path: path.to_owned(), error };
    let mut text = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX).read_to_end(&mut text))
        .map_err(unreadable)?;
    parse(&text).map_err(|trouble| CredentialsError::Malformed { path: path.to_owned(), trouble })
}

/// No credentials file is longer; what stands behind is not read.
const FILE_BYTES_MAX: u64 = 64 * 1024;

fn parse(text: &[u8]) -> Result<Credentials, String> {
    #[derive(Deserialize)]
    struct File {
        access_key_id: String,
        access_key_secret: String,
        #[serde(default)]
        security_token: Option<String>,
    }

    let file: File = serde_json::from_slice(text).map_err(|error| {
        let place = format!("line {} column {}", error.line(), error.column());
        if error.is_data() {
            format!(
                "has something unexpected at {place}: it must be a JSON object with the texts \
                 access_key_id, access_key_secret and, for a temporary key, security_token"
            )
        } else {
            format!("is not valid JSON at {place}")
        }
    })?;
    let field = |name: &str, value: String| match value.trim() {
        "" => Err(format!("has an empty {name}")),
        value if value.bytes().all(|byte| byte.is_ascii_graphic()) => Ok(value.to_owned()),
        _ => Err(format!("has blanks or unprintable characters within {name}")),
    };
    let token = file.security_token.filter(|token| !token.trim().is_empty());
    Ok(Credentials {
        access_key_id: field("access_key_id", file.access_key_id)?,
        access_key_secret: Secret::new(field("access_key_secret", file.access_key_secret)?),
        security_token: match token {
            Some(token) => Some(Secret::new(field("security_token", token)?)),
            None => None,
        },
    })
}

/// The credentials in use.
#[derive(Debug)]
pub(crate) enum CredentialsInUse {
    Unsigned,
    Fixed(Credentials),
    File { path: PathBuf, watched: Watched<Credentials> },
}

impl CredentialsInUse {
    pub(crate) fn new(source: CredentialsSource) -> Self {
        match source {
            CredentialsSource::Unsigned => Self::Unsigned,
            CredentialsSource::Fixed(credentials) => Self::Fixed(credentials),
            CredentialsSource::File(path) => {
                let watched = Watched::new(vec![path.clone()]);
                Self::File { path, watched }
            }
        }
    }

    /// The credentials to sign with now; `None` to leave the request unsigned.
    ///
    /// # Errors
    /// If the file has not been good even once.
    pub(crate) fn current(
        &mut self,
        now: Instant,
    ) -> Result<Option<&Credentials>, CredentialsError> {
        match self {
            Self::Unsigned => Ok(None),
            Self::Fixed(credentials) => Ok(Some(credentials)),
            Self::File { path, watched } => {
                match watched.look(now, || read_credentials(path))? {
                    Look::Same => {}
                    Look::Fresh => {
                        let id = watched.good().map_or("", |fresh| fresh.access_key_id.as_str());
                        info!(file = %path.display(), access_key_id = id, "credentials read");
                    }
                    Look::Bad(error) => warn!(%error, "keeping the last good credentials"),
                }
                Ok(watched.good())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::watched::LOOK_INTERVAL;
    use super::*;

    const GOOD: &str = r#"{"access_key_id": "id-1", "access_key_secret": "s3cret-1"}"#;

    struct Fixture {
        _directory: tempfile::TempDir,
        path: PathBuf,
        in_use: CredentialsInUse,
        now: Instant,
    }

    impl Fixture {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("credentials.json");
            let in_use = CredentialsInUse::new(CredentialsSource::File(path.clone()));
            Self { _directory: directory, path, in_use, now: crate::base::clock::now() }
        }

        fn write(&self, text: &str) {
            std::fs::write(&self.path, text).unwrap();
        }

        /// Replaces the file as a careful writer does.
        fn replace(&self, text: &str) {
            let fresh = self.path.with_extension("new");
            std::fs::write(&fresh, text).unwrap();
            std::fs::rename(fresh, &self.path).unwrap();
        }

        fn id_after(&mut self, wait: Duration) -> Result<String, String> {
            self.now += wait;
            let credentials = self.in_use.current(self.now).map_err(|error| error.to_string())?;
            Ok(credentials.unwrap().access_key_id.clone())
        }
    }

    #[test]
    fn a_replaced_file_is_taken_up_after_a_second_and_not_looked_at_before() {
        let mut file = Fixture::new();
        file.write(GOOD);
        assert_eq!(file.id_after(Duration::ZERO).unwrap(), "id-1");

        file.replace(&GOOD.replace("id-1", "id-2"));

        assert_eq!(file.id_after(Duration::from_millis(900)).unwrap(), "id-1");
        assert_eq!(file.id_after(Duration::from_millis(100)).unwrap(), "id-2");
    }

    #[test]
    fn a_file_that_is_gone_or_half_written_keeps_the_last_good_ones() {
        let mut file = Fixture::new();
        file.write(GOOD);
        file.id_after(Duration::ZERO).unwrap();

        file.write(&GOOD[..20]);
        assert_eq!(file.id_after(LOOK_INTERVAL).unwrap(), "id-1");
        std::fs::remove_file(&file.path).unwrap();
        assert_eq!(file.id_after(LOOK_INTERVAL).unwrap(), "id-1");
        file.write(&GOOD.replace("id-1", "id-3"));

        assert_eq!(file.id_after(LOOK_INTERVAL).unwrap(), "id-3");
    }

    #[test]
    fn a_file_that_was_never_good_is_an_error_until_it_is() {
        let mut file = Fixture::new();

        let error = file.id_after(Duration::ZERO).unwrap_err();
        assert!(error.contains("cannot read the credentials file"), "{error}");
        file.write(GOOD);

        assert_eq!(file.id_after(Duration::ZERO).unwrap(), "id-1");
    }

    #[test]
    fn parses_the_documented_fields_and_says_what_is_wrong_without_quoting_the_file() {
        let full = r#"{"access_key_id":" id ","access_key_secret":"sec\n","security_token":"tok",
            "expiration":"tomorrow"}"#;
        let credentials = parse(full.as_bytes()).unwrap();
        assert_eq!(credentials.access_key_id, "id");
        assert_eq!(credentials.access_key_secret.expose(), "sec");
        assert_eq!(credentials.security_token.unwrap().expose(), "tok");

        for (text, wanted) in [
            ("", "not valid JSON"),
            (r#""s3cret""#, "must be a JSON object"),
            (r#"{"access_key_id":"s3cret"}"#, "must be a JSON object"),
            (r#"{"access_key_id":"","access_key_secret":"s3cret"}"#, "empty access_key_id"),
            (r#"{"access_key_id":"id","access_key_secret":"s3cret\u0007x"}"#, "unprintable"),
            (r#"{"access_key_id":"id","access_key_secret":{"s3cret":1}}"#, "unexpected"),
        ] {
            let trouble = parse(text.as_bytes()).unwrap_err();
            assert!(trouble.contains(wanted), "{text}: {trouble}");
            assert!(!trouble.contains("s3cret"), "{trouble}");
        }
    }

    #[test]
    fn secrets_do_not_show() {
        let credentials = parse(GOOD.as_bytes()).unwrap();

        let shown = format!("{credentials:?} {}", credentials.access_key_secret);

        assert!(shown.contains("id-1") && !shown.contains("s3cret"), "{shown}");
    }
}
