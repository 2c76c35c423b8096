//! `check --connect`: one signed, read-only request that tells whether delivery would work.

use super::advice::{advice, advice_on};
use super::cause::Cause;
use super::credentials::{CredentialsError, CredentialsInUse};
use super::http::{Client, ClientError, TransportError};
use super::verdict::{FailureKind, Verdict};
use super::{Options, request};
use crate::base::clock;
use crate::plan::Destination;

/// The endpoint knows the project, the logstore and the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connected {
    /// The service's id of the request, if it gave one.
    pub request_id: Option<String>,
    /// The service's clock minus ours, in seconds, if it told.
    pub clock_offset_seconds: Option<i64>,
}

impl std::fmt::Display for Connected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("it takes logs")?;
        if let Some(id) = &self.request_id {
            write!(f, " (request {id})")?;
        }
        match self.clock_offset_seconds {
            Some(0) | None => Ok(()),
            Some(offset) => write!(f, "; its clock is {offset} s ahead of this machine's"),
        }
    }
}

/// Why delivery would not work. Each text ends with what to do.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// There is nothing to sign with.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// There is no client.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// No answer.
    #[error("{what}: {error}: {advice}")]
    Transport {
        /// What stands in between, in a few words.
        what: &'static str,
        /// What happened.
        error: TransportError,
        /// What to do.
        advice: String,
    },
    /// An answer, but not the one.
    #[error("{what}: status {status}, {reason}: {advice}")]
    Refused {
        /// What is wrong, in a few words.
        what: &'static str,
        /// HTTP status.
        status: u16,
        /// The service's code and message.
        reason: String,
        /// What to do.
        advice: String,
    },
}

/// Asks a destination for the shards of its logstore.
///
/// # Errors
/// If delivery would not work.
pub async fn connect(
    options: &Options,
    destination: &Destination,
) -> Result<Connected, ConnectError> {
    let mut credentials = CredentialsInUse::new(destination.credentials.clone());
    let local_unix = super::local_unix();
    let request = request::list_shards(destination, credentials.current(clock::now())?, local_unix);
    let client = Client::new(options, std::slice::from_ref(destination))?;
    let mut result = client.send(request.clone()).await;
    if result.as_ref().is_err_and(|error| error.cause() == Cause::LargeHead) {
        // The next answer has more room.
        result = client.send(request).await;
    }
    let answer = result.map_err(|error| {
        let cause = error.cause();
        let (what, advice) = (what_stands_between(cause), advice_on(cause, options, destination));
        ConnectError::Transport { what, error, advice }
    })?;

    let kind = match Verdict::of(&answer, options.verify_response) {
        Verdict::Delivered => {
            let clock_offset_seconds =
                answer.server_unix.map(|time| time.saturating_sub(local_unix));
            return Ok(Connected { request_id: answer.request_id, clock_offset_seconds });
        }
        Verdict::Retry { kind, .. } => kind,
        Verdict::Cut => FailureKind::Network,
        Verdict::ClockSkew { .. } => FailureKind::Clock,
        Verdict::Refuse(_) => FailureKind::Other,
    };
    let code = answer.error.as_ref().map(|error| error.code.as_str());
    let reason = match &answer.error {
        Some(error) => format!("{}: {}", error.code, error.message),
        None => "without the service's request id or error code".to_owned(),
    };
    let (what, advice) = match answer.status {
        407 => ("proxy", advice_on(Cause::Proxy, options, destination)),
        _ => (what_is_wrong(kind, code), advice(kind, code, destination)),
    };
    Err(ConnectError::Refused { what, status: answer.status, reason, advice })
}

fn what_stands_between(cause: Cause) -> &'static str {
    match cause {
        Cause::NameNotFound => "name not found",
        Cause::NameService => "the name service does not answer",
        Cause::NoThread => "the name cannot be looked up",
        Cause::Refused => "connection refused",
        Cause::Unreachable => "unreachable",
        Cause::TooLate => "no answer in time",
        Cause::Untrusted | Cause::SelfSigned | Cause::OtherKey => {
            "TLS: the certificate is not trusted"
        }
        Cause::ServerInCaFile => "TLS: ca_file does not hold an authority",
        Cause::AuthorityAsServer => "TLS: the server shows the certificate of an authority",
        Cause::WeakKey => "TLS: a key is too short",
        Cause::WeakSignature => "TLS: the certificate's signature is not safe",
        Cause::WrongPurpose => "TLS: the certificate is for another purpose",
        Cause::CriticalExtension => "TLS: the certificate has an unknown critical extension",
        Cause::BadChain => "TLS: the certificate breaks a rule",
        Cause::Expired => "TLS: the certificate has expired",
        Cause::NotYetValid => "TLS: the certificate is not valid yet",
        Cause::WrongName => "TLS: the certificate is for another name",
        Cause::ClientCertificate => "TLS: our certificate is missing or not accepted",
        Cause::Tls => "TLS",
        Cause::Proxy => "proxy",
        Cause::LargeHead => "the answer has too many headers",
        Cause::Other => "no answer",
    }
}

fn what_is_wrong(kind: FailureKind, code: Option<&str>) -> &'static str {
    match (kind, code) {
        (FailureKind::Clock, _) => "clock",
        (FailureKind::Credentials, _) => "credentials",
        (
            FailureKind::Missing,
            Some("LogStoreNotExist" | "ShardNotExist" | "LogStoreWithoutShard"),
        ) => "logstore",
        (FailureKind::Missing, _) => "project",
        (FailureKind::Unverified, _) => "somebody else answers",
        _ => "refused",
    }
}
