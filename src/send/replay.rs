//! `logferry parked replay`: one batch, one attempt, and an answer for a person.
//!
//! The agent's own loop retries for ever and talks to a log; who waits at a terminal wants to know
//! after each attempt how it stands. So this shares its parts and not the loop.

use std::time::Duration;

use super::advice::{advice, advice_on};
use super::credentials::{CredentialsError, CredentialsInUse};
use super::http::{Client, ClientError};
use super::skew::ServerClock;
use super::verdict::{FailureKind, Sent, Verdict};
use super::{Options, request};
use crate::base::sealed::{Refusal, SealedBatch};
use crate::plan::Destination;

/// What became of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Replayed {
    /// The service has it.
    Delivered,
    /// The service will never take it as it is.
    Refused(Refusal),
    /// Not now.
    Failed {
        /// What happened, and what to do.
        reason: String,
        /// Whether it is worth trying again before a person has done something, and after how long
        /// if the service has said so.
        again: Option<Option<Duration>>,
    },
}

/// Sends batches one by one, with the settings and credentials of the moment.
pub struct Replay {
    options: Options,
    destination: Destination,
    client: Client,
    credentials: CredentialsInUse,
    clock: ServerClock,
}

impl Replay {
    /// Connects to nothing yet. Batches go to this destination.
    ///
    /// # Errors
    /// If the HTTP client cannot be set up.
    pub fn new(options: Options, destination: Destination) -> Result<Self, ClientError> {
        Ok(Self {
            client: Client::new(&options, std::slice::from_ref(&destination))?,
            credentials: CredentialsInUse::new(destination.credentials.clone()),
            clock: ServerClock::default(),
            options,
            destination,
        })
    }

    /// From now on batches go to this logstore.
    pub fn set_logstore(&mut self, project: &str, logstore: &str) {
        project.clone_into(&mut self.destination.project);
        logstore.clone_into(&mut self.destination.logstore);
    }

    /// The service's time, in Unix seconds, as far as it is known.
    #[must_use]
    pub fn server_unix(&self) -> i64 {
        super::local_unix().saturating_add(self.clock.offset_seconds())
    }

    /// Sends a batch once. A complaint about the clock is obeyed at once.
    ///
    /// # Errors
    /// If there is nothing to sign with.
    pub async fn send(&mut self, batch: &SealedBatch) -> Result<Replayed, CredentialsError> {
        loop {
            let clock_offset = self.clock.offset_seconds();
            let date_unix = self.server_unix();
            let credentials = self.credentials.current(crate::base::clock::now())?;
            let request = request::put_logs(
                &self.destination,
                std::slice::from_ref(batch),
                credentials,
                date_unix,
            );
            let answer = match self.client.send(request).await {
                Ok(answer) => answer,
                Err(error) => {
                    let advice = advice_on(error.cause(), &self.options, &self.destination);
                    let reason = format!("no answer: {error}: {advice}");
                    return Ok(Replayed::Failed { reason, again: Some(None) });
                }
            };
            let verify = self.options.verify_response;
            let (kind, after) = match Verdict::of_load(&answer, Sent::of(batch), verify) {
                Verdict::Delivered => return Ok(Replayed::Delivered),
                Verdict::Refuse(refusal) => return Ok(Replayed::Refused(refusal)),
                Verdict::Retry { kind, after } => (kind, after),
                Verdict::Cut => (FailureKind::Network, None),
                Verdict::ClockSkew { server_unix } => {
                    let local_unix = super::local_unix();
                    if self.clock.on_complaint(clock_offset, server_unix, local_unix) {
                        continue;
                    }
                    (FailureKind::Clock, answer.retry_after)
                }
            };
            let code = answer.error.as_ref().map(|error| error.code.as_str());
            let words = answer.error.as_ref().map_or_else(
                || "without an error code of the service".to_owned(),
                |error| format!("{}: {}", error.code, error.message),
            );
            let advice = advice(kind, code, &self.destination);
            let reason = format!("status {}, {words}: {advice}", answer.status);
            let again = (!kind.needs_a_person()).then_some(after);
            return Ok(Replayed::Failed { reason, again });
        }
    }
}
