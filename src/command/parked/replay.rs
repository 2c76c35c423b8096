//! `logferry parked replay`: sends pieces again, one after the other, and removes what was taken.
//!
//! A piece goes to the project and logstore that it was meant for, at the endpoint and with the
//! credentials of the settings. What is refused again stays; what fails for a reason that may pass
//! is tried a few times. A piece is removed once the service has acknowledged it: if that reply is
//! lost, or the command is ended in between, it may arrive twice.

use std::io::Write;
use std::time::Duration;

use super::pieces::{Error, Pieces};
use crate::base::exit::ExitCode;
use crate::base::sealed::{Refusal, SealedBatch};
use crate::batch::rewrite;
use crate::plan::Destination;
use crate::send;
use crate::send::replay::{Replay, Replayed};
use logferry_wire::Compression;

/// Attempts for one piece.
const ATTEMPTS_MAX: u32 = 4;
/// The pause after the first; it doubles.
const PAUSE: Duration = Duration::from_millis(500);
/// The service is not waited for longer than that.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// How it ended for one piece.
enum Ended {
    Delivered,
    /// Other pieces may fare better.
    Left(String),
    /// The others would fare the same.
    Stuck(String),
}

/// Sends pieces again.
pub(super) async fn run(
    pieces: &Pieces<'_>,
    ids: &[String],
    (options, destination): (send::Options, Destination),
    out: &mut impl Write,
) -> Result<ExitCode, Error> {
    let ids = if ids.is_empty() { pieces.ids()? } else { pieces.expect_known(ids)? };
    let mut replay =
        Replay::new(options, destination).map_err(|error| Error::Client(error.to_string()))?;
    let mut left = Vec::new();
    let mut is_stuck = false;
    for id in &ids {
        if is_stuck {
            left.push(id.as_str());
            continue;
        }
        match replay_one(pieces, id, &mut replay).await {
            Ended::Delivered => {
                pieces.remove(id)?;
                writeln!(out, "{id}: delivered")?;
            }
            Ended::Left(reason) => {
                writeln!(out, "{id}: {reason}")?;
                left.push(id);
            }
            Ended::Stuck(reason) => {
                writeln!(out, "{id}: {reason}")?;
                left.push(id);
                is_stuck = true;
            }
        }
    }
    writeln!(out, "{} delivered, {} left", ids.len() - left.len(), left.len())?;
    if left.is_empty() {
        return Ok(ExitCode::Done);
    }
    writeln!(out, "left: {}", left.join(" "))?;
    Ok(ExitCode::Undelivered)
}

async fn replay_one(pieces: &Pieces<'_>, id: &str, replay: &mut Replay) -> Ended {
    let piece = match pieces.parked.read(id) {
        Ok(Some(piece)) => piece,
        Ok(None) => return Ended::Left("removed by somebody meanwhile".to_owned()),
        Err(reason) => return Ended::Left(format!("its file is damaged: {reason}")),
    };
    replay.set_logstore(&piece.header.project, &piece.header.logstore);
    let mut batch = piece.batch;
    let mut pause = PAUSE;
    let mut attempt = 1;
    loop {
        // What waited here for a week is too old for the service.
        if let Some(restamped) = rewrite::restamp(&batch, replay.server_unix()) {
            batch = restamped;
        }
        match replay.send(&batch).await {
            Ok(Replayed::Delivered) => return Ended::Delivered,
            Ok(Replayed::Refused(refusal)) => match in_fallback(&batch, &refusal) {
                Some(other) => batch = other,
                None => {
                    let (code, message) = refusal.words();
                    return Ended::Left(format!("refused again: {code}: {message}"));
                }
            },
            Ok(Replayed::Failed { reason, again: Some(after) }) if attempt < ATTEMPTS_MAX => {
                tracing::debug!(reason, attempt, "not delivered, trying again");
                tokio::time::sleep(after.unwrap_or(pause).min(PAUSE_MAX)).await;
                pause *= 2;
                attempt += 1;
            }
            Ok(Replayed::Failed { reason, .. }) => {
                return Ended::Stuck(format!("not delivered: {reason}"));
            }
            Err(error) => return Ended::Stuck(format!("not delivered: {error}")),
        }
    }
}

/// The batch as every service takes it, where only its compression is refused.
fn in_fallback(batch: &SealedBatch, refusal: &Refusal) -> Option<SealedBatch> {
    let can_help = *refusal == Refusal::Compression && batch.compression != Compression::Lz4;
    if can_help { rewrite::recompress(batch, Compression::Lz4) } else { None }
}
