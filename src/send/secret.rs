//! Access keys as values, how they sign, and text that never shows.

use std::fmt;
use std::path::PathBuf;

/// Where credentials come from.
#[derive(Clone, Debug)]
pub enum CredentialsSource {
    /// None: requests go unsigned (allowed only to loopback).
    Unsigned,
    /// From the environment, fixed for the life of the process.
    Fixed(Credentials),
    /// A JSON file (`access_key_id`, `access_key_secret`, `security_token`), re-read when it
    /// changes.
    File(PathBuf),
}

/// How requests are signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signature {
    /// HMAC-SHA1, over the digest of the body.
    V1,
    /// HMAC-SHA256, with keys that are good for a day and a region.
    V4 {
        /// The endpoint's region: `cn-hangzhou`.
        region: String,
    },
}

/// An access key, with the token of a temporary one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// Access key id: names the key, is not secret.
    pub access_key_id: String,
    /// Access key secret.
    pub access_key_secret: Secret,
    /// Security token (STS).
    pub security_token: Option<Secret>,
}

/// Text that never shows: `Debug` and `Display` print `***`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The secret itself. Only for signing and for the token's header.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}
