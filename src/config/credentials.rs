//! Where the credentials come from. No message here ever holds a part of one.

use std::path::PathBuf;

use super::layers::{Environment, variable};
use super::mistake::{CREDENTIALS_WAYS, Mistake, Mistakes};
use crate::send::credentials::read_credentials;
use crate::send::{Credentials, CredentialsSource, Endpoint, Secret};

const ID: &str = "ALIBABA_CLOUD_ACCESS_KEY_ID";
const SECRET: &str = "ALIBABA_CLOUD_ACCESS_KEY_SECRET";
const TOKEN: &str = "ALIBABA_CLOUD_SECURITY_TOKEN";
/// The environment variables whose values must never leave the process.
pub(super) const SECRET_VARIABLES: [&str; 2] = [SECRET, TOKEN];

/// Finds the credentials: the file if there is one, else the environment, else none. `None` is a
/// mistake that has been noted.
pub(super) fn find(
    env: &Environment,
    file: Option<(PathBuf, &str)>,
    mistakes: &mut Mistakes,
) -> Option<CredentialsSource> {
    if let Some((path, origin)) = file {
        return match read_credentials(&path) {
            Ok(_) => Some(CredentialsSource::File(path)),
            Err(error) => {
                let why = error.to_string();
                let value = format!("{:?}", path.display().to_string());
                mistakes.push(Mistake::new("credentials_file", why).value(value).origin(origin));
                None
            }
        };
    }
    let id = from_variable(env, ID, mistakes)?;
    let secret = from_variable(env, SECRET, mistakes)?;
    let token = from_variable(env, TOKEN, mistakes)?;
    match (id, secret, token) {
        (None, None, None) => Some(CredentialsSource::Unsigned),
        (Some(access_key_id), Some(secret), token) => Some(CredentialsSource::Fixed(Credentials {
            access_key_id,
            access_key_secret: Secret::new(secret),
            security_token: token.map(Secret::new),
        })),
        (Some(_), None, _) => missing(SECRET, ID, mistakes),
        (None, Some(_), _) => missing(ID, SECRET, mistakes),
        (None, None, Some(_)) => missing(&format!("{ID} and {SECRET}"), TOKEN, mistakes),
    }
}

/// Refuses to go without credentials where that cannot work or would let anyone listen.
pub(super) fn check_unsigned(
    source: &CredentialsSource,
    endpoint: &Endpoint,
    mistakes: &mut Mistakes,
) {
    if !matches!(source, CredentialsSource::Unsigned) {
        return;
    }
    if endpoint.tls {
        mistakes.push(Mistake::new(
            "credentials",
            format!("none are set, and an https endpoint needs them: {CREDENTIALS_WAYS}"),
        ));
    } else if !endpoint.is_loopback() {
        mistakes.push(Mistake::new(
            "credentials",
            format!(
                "none are set, and unsigned requests go only to this machine: {CREDENTIALS_WAYS}"
            ),
        ));
    }
}

/// The outer `None` is a mistake that has been noted, the inner one an unset or empty variable.
fn from_variable(env: &Environment, name: &str, mistakes: &mut Mistakes) -> Option<Option<String>> {
    let text = match variable(env, name) {
        None => return Some(None),
        Some(Ok(text)) => clean(text),
        Some(Err(_)) => None,
    };
    if text.is_none() {
        let advice = "expected printable ASCII without blanks within";
        mistakes.push(Mistake::new(name, advice).value("***".to_owned()).origin("environment"));
    }
    text
}

/// Drops blanks around (a line end is easily stored with a secret); an empty text is none. The
/// outer `None`: not fit for a header.
fn clean(text: &str) -> Option<Option<String>> {
    let text = text.trim();
    let is_fit = text.bytes().all(|byte| byte.is_ascii_graphic());
    is_fit.then(|| (!text.is_empty()).then(|| text.to_owned()))
}

fn missing<T>(missing: &str, given: &str, mistakes: &mut Mistakes) -> Option<T> {
    mistakes.push(Mistake::new(missing, format!("not set, although {given} is: set both or none")));
    None
}
