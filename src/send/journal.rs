//! What the sender says about its attempts: counters for the report, and few log lines.
//!
//! A repeated fault is said at once, then summed up every half minute, and its end is said once.
//! Names the project, the logstore, the endpoint and what to do; never the content of a batch and
//! never a secret.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::{debug, error, info, warn};

use super::Options;
use super::advice::{advice, advice_on};
use super::answer::Answer;
use super::cause::Cause;
use super::dispatch::Load;
use super::http::TransportError;
use super::verdict::FailureKind;
use crate::base::report::SenderReport;
use crate::base::sealed::{BatchId, DestinationId, SealedBatch};
use crate::limit::repeat::{Repeat, Say};
use crate::plan::{Destination, Plan};

/// Least time between two lines about the same kind of fault.
const SUM_UP_INTERVAL: Duration = Duration::from_secs(30);

/// Counts, and says what is worth saying.
pub(crate) struct Journal {
    options: Arc<Options>,
    plan: Arc<Plan>,
    pub(crate) report: SenderReport,
    faults: Repeat<FailureKind>,
    refusals: Repeat<()>,
    halvings: Repeat<()>,
    held_whole: Repeat<()>,
    /// Batches of which an attempt has ended without an answer.
    unanswered: BTreeSet<BatchId>,
}

/// A failed attempt, in words.
#[derive(Debug, Default)]
pub(crate) struct Failure {
    /// 0 without an answer.
    status: u16,
    pub(crate) code: String,
    pub(crate) reason: String,
    request_id: String,
    /// Why there was no answer.
    cause: Option<Cause>,
    /// The peer has cut a batch that may not be halved.
    is_whole_cut: bool,
}

impl Failure {
    /// An answer other than the hoped-for one.
    pub(crate) fn of_answer(answer: &Answer) -> Self {
        let (code, reason) = match &answer.error {
            Some(error) => (error.code.clone(), error.message.clone()),
            None if answer.status == 200 => (String::new(), "200 without a request id".to_owned()),
            None => (String::new(), format!("status {} without an error code", answer.status)),
        };
        let request_id = answer.request_id.clone().unwrap_or_default();
        Self { status: answer.status, code, reason, request_id, ..Self::default() }
    }

    /// No answer.
    pub(crate) fn of_transport(error: &TransportError) -> Self {
        let cause = Some(error.cause()).filter(|cause| cause.is_certain());
        Self { cause, ..Self::of_error(error) }
    }

    /// Marks the failure as one of a batch that may not be halved.
    pub(crate) fn and_is_whole(self) -> Self {
        Self { is_whole_cut: true, ..self }
    }

    /// No attempt.
    pub(crate) fn of_error(error: &impl std::fmt::Display) -> Self {
        Self { reason: error.to_string(), ..Self::default() }
    }
}

impl Journal {
    pub(crate) fn new(options: Arc<Options>, plan: Arc<Plan>) -> Self {
        Self {
            options,
            plan,
            report: SenderReport::default(),
            faults: Repeat::new(SUM_UP_INTERVAL),
            refusals: Repeat::new(SUM_UP_INTERVAL),
            halvings: Repeat::new(SUM_UP_INTERVAL),
            held_whole: Repeat::new(SUM_UP_INTERVAL),
            unanswered: BTreeSet::new(),
        }
    }

    pub(crate) fn on_attempt(&mut self, load: &Load) {
        self.report.attempts += 1;
        self.report.lists += u64::from(load.is_list());
        for batch in &load.batches {
            debug!(
                request = load.request.0,
                batch = batch.id.0,
                file = %batch.path,
                lines = batch.lines,
                bytes = batch.payload.len(),
                "batch on its way"
            );
        }
    }

    pub(crate) fn on_delivered(&mut self, load: &Load, wall: Duration, now: Instant) {
        let report = &mut self.report;
        for batch in &load.batches {
            report.batches_delivered += 1;
            report.lines_delivered += u64::from(batch.lines);
            report.raw_bytes_delivered += u64::from(batch.raw_bytes);
            report.payload_bytes_delivered += batch.payload.len() as u64;
            report.possible_duplicates += u64::from(self.unanswered.remove(&batch.id));
            report.ages.count(now.saturating_duration_since(batch.since), batch.lines);
            debug!(request = load.request.0, batch = batch.id.0, "batch delivered");
        }
        report.delivered_unix = wall.as_secs();
        self.on_recovery(load.destination(), now);
    }

    /// The endpoint may have taken it, and has not said so.
    pub(crate) fn on_unanswered(&mut self, load: &Load) {
        self.unanswered.extend(load.batches.iter().map(|batch| batch.id));
    }

    /// One of several batches is refused, or the way they are sent: it is tried which.
    pub(crate) fn on_list_refused(&mut self, load: &Load, code: &str, reason: &str) {
        self.report.lists_refused += 1;
        let (request, batches) = (load.request.0, load.batches.len());
        debug!(request, batches, code, reason, "several batches are refused together");
    }

    /// The endpoint is in order even where it refuses.
    pub(crate) fn on_rejected(
        &mut self,
        batch: &SealedBatch,
        code: &str,
        reason: &str,
        now: Instant,
    ) {
        self.report.batches_rejected += 1;
        self.unanswered.remove(&batch.id);
        self.on_recovery(batch.destination, now);
        let Some(say) = self.refusals.on_fault((), now) else { return };
        let Destination { project, logstore, endpoint, .. } =
            self.plan.destination(batch.destination);
        error!(
            project,
            logstore,
            %endpoint,
            batch = batch.id.0,
            file = %batch.path,
            offset = batch.span.start,
            lines = batch.lines,
            code,
            reason,
            times = times(say),
            "the service refuses what is in a batch"
        );
    }

    /// Notes that a batch goes in halves, because connections break that carry so much. Whether the
    /// endpoint has it is not known.
    pub(crate) fn on_halved(&mut self, batch: &SealedBatch, now: Instant) {
        self.report.possible_duplicates += u64::from(self.unanswered.remove(&batch.id));
        let Some(say) = self.halvings.on_fault((), now) else { return };
        let Destination { project, endpoint, .. } = self.plan.destination(batch.destination);
        warn!(
            project,
            %endpoint,
            batch = batch.id.0,
            file = %batch.path,
            bytes = batch.payload.len(),
            times = times(say),
            hint = "raise the limit of the proxy on the way, or lower batch_bytes",
            "connections break that carry a batch of this size; it is sent in halves"
        );
    }

    /// Connections break that carry so much, and it may not be halved.
    pub(crate) fn on_held_whole(&mut self, batch: &SealedBatch, now: Instant) {
        let Some(say) = self.held_whole.on_fault((), now) else { return };
        let Destination { project, endpoint, .. } = self.plan.destination(batch.destination);
        warn!(
            project,
            %endpoint,
            batch = batch.id.0,
            file = %batch.path,
            offset = batch.span.start,
            bytes = batch.payload.len(),
            times = times(say),
            hint = "raise the limit of the proxy on the way; batch_bytes is for batches to come",
            "connections break that carry a batch of this size; with exactly_once it is not sent in \
             halves, because the service may have it, and is tried again for ever"
        );
    }

    fn on_recovery(&mut self, destination: DestinationId, now: Instant) {
        self.report.last_error.clear();
        let Some(over) = self.faults.on_recovery(now) else { return };
        let Destination { project, logstore, endpoint, .. } = self.plan.destination(destination);
        info!(
            project,
            logstore,
            %endpoint,
            lasted = ?over.lasted,
            attempts = over.count + 1,
            "delivering again"
        );
    }

    pub(crate) fn on_failure(
        &mut self,
        destination: DestinationId,
        kind: FailureKind,
        failure: &Failure,
        now: Instant,
    ) {
        let destination = self.plan.destination(destination);
        let Destination { project, logstore, endpoint, .. } = destination;
        self.report.failures[kind.index()] += 1;
        let Failure { status, code, reason, request_id, cause, is_whole_cut } = failure;
        let mut advice = match cause {
            Some(cause) => advice_on(*cause, &self.options, destination),
            None => advice(kind, (!code.is_empty()).then_some(code), destination),
        };
        if *is_whole_cut {
            advice.push_str(
                "; if a proxy on the way cuts what is large, raise its limit: with exactly_once no \
                 batch is sent in halves",
            );
        }
        self.report.last_error = in_one_line(kind, failure, &advice);
        let Some(say) = self.faults.on_fault(kind, now) else { return };

        // The level of an event is a constant, so there are two of the same.
        macro_rules! say {
            ($level:ident) => {
                $level!(
                    project,
                    logstore,
                    %endpoint,
                    kind = kind.name(),
                    status,
                    code,
                    reason,
                    request_id,
                    times = times(say),
                    advice,
                    "cannot deliver, trying again"
                )
            };
        }
        if kind.needs_a_person() { say!(error) } else { say!(warn) }
    }

    pub(crate) fn on_clock_corrected(&mut self, destination: DestinationId, offset_seconds: i64) {
        if self.report.clock_offset_seconds == offset_seconds {
            return;
        }
        self.report.clock_offset_seconds = offset_seconds;
        let endpoint = &self.plan.destination(destination).endpoint;
        warn!(
            %endpoint,
            offset_seconds,
            "the clock of this machine is off; dating requests by the service's"
        );
    }
}

fn times(say: Say) -> u64 {
    match say {
        Say::First => 1,
        Say::Again { count, .. } => count,
    }
}

/// `credentials: Unauthorized: The key is disabled (request 5F3A): check …`.
fn in_one_line(kind: FailureKind, failure: &Failure, advice: &str) -> String {
    let Failure { code, reason, request_id, .. } = failure;
    let code = if code.is_empty() { String::new() } else { format!("{code}: ") };
    let request =
        if request_id.is_empty() { String::new() } else { format!(" (request {request_id})") };
    format!("{}: {code}{reason}{request}: {advice}", kind.name())
}
