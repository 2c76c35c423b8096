//! Payloads to the service.
//!
//! [`Sender`] is the async loop around the pure parts. In reading order:
//!
//! - [`dispatch`]: what is sent now; whose turn it is by [`queue`], when and how many at once by
//!   [`limiters`], each a [`limiter`] with its [`window`] and [`backoff`]; how large it may be by
//!   [`passage`];
//! - [`request`]: what goes over the wire, signed with the key ([`secret`]) from [`credentials`]; several
//!   batches as a [`package_list`];
//! - [`http`]: one attempt, with certificates from [`tls`] and names from `lookup`; what went wrong
//!   is told by [`cause`], and with a certificate by [`certificate`];
//! - [`options`]: what the settings say of all that; where it goes is in the [`plan`](crate::plan);
//! - `brake`: what the sender's thread may use of the CPU;
//! - [`answer`] and [`verdict`]: what came back and what it means; [`skew`]: the service's clock;
//! - `journal` and [`advice`]: what is said about it.
//!
//! It sees payloads and never a line or a file: the path of a batch is for its log lines.
//!
//! # Errors and retries
//! A batch ends when the endpoint has acknowledged it or will never take it as it is. Everything
//! else is tried again for ever.
//!
//! # Cancellation
//! [`Sender::run`] can be given up at any time; what was under way is cut off and may arrive twice
//! after the next start.

pub mod advice;
pub mod answer;
pub mod backoff;
mod brake;
pub mod cause;
pub mod certificate;
pub mod connect;
pub mod credentials;
pub mod dispatch;
pub mod encoding;
pub mod endpoint;
pub mod http;
mod journal;
pub mod limiter;
pub mod limiters;
mod lookup;
pub mod options;
pub mod package_list;
pub mod passage;
pub mod proxy;
pub mod queue;
pub mod replay;
pub mod request;
pub mod secret;
pub mod skew;
pub mod tls;
pub mod verdict;
mod watched;
pub mod window;

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::task::JoinSet;

pub use self::connect::connect;
pub use self::endpoint::Endpoint;
pub use self::options::{ClientFiles, Options, TlsFiles};
pub use self::proxy::Proxy;
pub use self::secret::{Credentials, CredentialsSource, Secret, Signature};

use self::answer::Answer;
use self::brake::{Brake, CUT_AGE_MIN, Used};
use self::credentials::CredentialsInUse;
use self::dispatch::{Dispatch, Load};
use self::http::{ARRIVED_GRACE, Client, ClientError, TransportError};
use self::journal::{Failure, Journal};
use self::skew::ServerClock;
use self::verdict::{FailureKind, Sent, Verdict};
use crate::base::clock;
use crate::base::report::SenderReport;
use crate::base::sealed::{Ack, Outcome, Refusal, Route};
use crate::handoff::SenderEnd;
use crate::plan::{Destination, Plan};

/// The sender's loop: takes batches from the hand-off, delivers them, acknowledges.
pub struct Sender {
    options: Arc<Options>,
    plan: Arc<Plan>,
    end: SenderEnd,
    client: Client,
    /// The credentials of each destination, in the place that its number says.
    credentials: Vec<CredentialsInUse>,
    dispatch: Dispatch,
    clock: ServerClock,
    journal: Journal,
    attempts: JoinSet<Attempted>,
    /// Tells attempts that have gone on for a while that they are cut off.
    cut: Arc<Notify>,
    brake: Brake,
    /// The collector has closed the hand-off and all its batches have been taken.
    closed: bool,
}

/// How a run of the sender ended.
#[derive(Clone, Debug)]
pub struct Summary {
    /// The last report.
    pub report: SenderReport,
    /// Batches that have not ended; 0 unless it was given up.
    pub unfinished: usize,
}

/// An attempt that has come back.
struct Attempted {
    load: Load,
    /// The offset of the clock that dated it.
    clock_offset: i64,
    started: Instant,
    result: Result<Answer, TransportError>,
}

impl Sender {
    /// A sender at one end of the hand-off, of batches for the destinations of `plan`. `seed` draws the
    /// jitter of the pauses.
    ///
    /// # Errors
    /// If the HTTP client cannot be set up.
    pub fn new(
        options: Options,
        plan: Arc<Plan>,
        end: SenderEnd,
        seed: u64,
    ) -> Result<Self, ClientError> {
        let options = Arc::new(options);
        let rng = fastrand::Rng::with_seed(seed);
        let dispatch = Dispatch::new(options.concurrency_max, options.together, rng);
        let in_use = |to: &Destination| CredentialsInUse::new(to.credentials.clone());
        let dispatch = if options.in_order { dispatch.in_order() } else { dispatch };
        Ok(Self {
            client: Client::new(&options, plan.destinations())?,
            credentials: plan.destinations().iter().map(in_use).collect(),
            dispatch,
            clock: ServerClock::default(),
            journal: Journal::new(Arc::clone(&options), Arc::clone(&plan)),
            attempts: JoinSet::new(),
            cut: Arc::new(Notify::new()),
            brake: Brake::new(Duration::ZERO, clock::now()),
            closed: false,
            options,
            plan,
            end,
        })
    }

    /// Delivers until the hand-off is closed and every batch has ended, or until `give_up` is
    /// ready: then attempts under way are cut off, and the collector is told to abandon.
    ///
    /// Needs a tokio runtime with time and I/O enabled.
    pub async fn run(mut self, give_up: impl Future<Output = ()>) -> Summary {
        let mut give_up = pin!(give_up);
        // Not charged what was done before.
        self.brake = Brake::new(self.end.admin_cpu(), clock::now());
        loop {
            self.take_batches();
            self.start_attempts();
            self.publish();
            self.brake();
            if self.closed && self.dispatch.is_empty() {
                break;
            }
            let pause = self.dispatch.deadline();
            // Each arm is cancel-safe: a batch or a result is taken in its last step.
            tokio::select! {
                biased;
                () = &mut give_up => {
                    // What was suspended beyond the deadline may have its answers: they are told
                    // before the collector ends.
                    let _ = tokio::time::timeout(ARRIVED_GRACE, self.take_results()).await;
                    // It may still be reading, with nothing handed over at this moment.
                    self.end.abandon();
                    break;
                }
                Some(attempted) = self.attempts.join_next() => {
                    self.on_attempted(attempted.expect("an attempt is neither cut off nor panics"));
                }
                batch = self.end.next_batch(), if !self.closed => match batch {
                    Some(batch) => self.dispatch.on_batch(batch),
                    None => self.closed = true,
                },
                () = sleep_until(pause), if pause.is_some() => {}
                () = sleep_until(Some(self.brake.look_at())), if !self.attempts.is_empty() => {}
            }
        }
        let unfinished = self.dispatch.unfinished() + self.end.queued();
        Summary { report: self.journal.report, unfinished }
    }

    /// Takes all that has been handed over, so that what is due together can go together.
    fn take_batches(&mut self) {
        let mut context = Context::from_waker(Waker::noop());
        while !self.closed {
            // Asked once and given up: nothing is lost with it.
            match pin!(self.end.next_batch()).poll(&mut context) {
                Poll::Ready(Some(batch)) => self.dispatch.on_batch(batch),
                Poll::Ready(None) => self.closed = true,
                Poll::Pending => return,
            }
        }
    }

    /// Takes the results of all attempts under way. Cancel-safe.
    async fn take_results(&mut self) {
        while let Some(attempted) = self.attempts.join_next().await {
            self.on_attempted(attempted.expect("an attempt is neither cut off nor panics"));
        }
    }

    fn start_attempts(&mut self) {
        let now = clock::now();
        let oversized = self.dispatch.take_oversized(now);
        self.end_batches(oversized, now);
        while let Some(load) = self.dispatch.poll(now) {
            self.start(load, now);
        }
    }

    fn start(&mut self, load: Load, now: Instant) {
        let destination = load.destination();
        let credentials = match self.credentials[destination.index()].current(now) {
            Ok(credentials) => credentials,
            Err(error) => {
                let kind = FailureKind::Credentials;
                self.journal.on_failure(destination, kind, &Failure::of_error(&error), now);
                let verdict = Verdict::Retry { kind, after: None };
                let ended = self.dispatch.on_result(load.request, verdict, now);
                debug_assert!(ended.is_empty(), "a retry ends nothing");
                return;
            }
        };
        let clock_offset = self.clock.offset_seconds();
        let date_unix = local_unix().saturating_add(clock_offset);
        let destination = self.plan.destination(destination);
        let request = request::put_logs(destination, &load.batches, credentials, date_unix);
        self.journal.on_attempt(&load);
        let (client, cut) = (self.client.clone(), Arc::clone(&self.cut));
        self.attempts.spawn(async move {
            let sending = client.send(request);
            let result = tokio::select! {
                biased;
                result = sending => result,
                () = until_cut(&cut, now) => Err(TransportError::Flooded),
            };
            Attempted { load, clock_offset, started: now, result }
        });
    }

    /// An attempt was cut off; returns how long the peer is to be left alone.
    fn leave_alone(&mut self, started: Instant, now: Instant) -> Duration {
        self.client.on_flood();
        self.brake.on_cut(started, now)
    }

    fn look(&mut self) -> Used {
        let cores = self.end.collector_report().cpu_limit_cores;
        self.brake.look(cores, self.end.admin_cpu())
    }

    /// Rests if this thread uses more of the CPU than it may. Where that is not enough, what has been
    /// under way for a while is cut off: somebody sends and sends instead of answering.
    fn brake(&mut self) {
        if clock::now() >= self.brake.look_at() && self.look() == Used::TooMuch {
            self.cut.notify_waiters();
        }
    }

    fn on_attempted(&mut self, attempted: Attempted) {
        let now = clock::now();
        let verdict = self.judge(&attempted, now);
        let load = &attempted.load;
        match &verdict {
            Verdict::Delivered => {
                self.clock.on_success();
                self.brake.on_delivered();
                self.journal.on_delivered(load, clock::wall(), now);
            }
            Verdict::Refuse(refusal) => {
                self.clock.on_success();
                let (code, message) = refusal.words();
                if load.is_list() {
                    self.journal.on_list_refused(load, code, message);
                } else {
                    self.journal.on_rejected(&load.batches[0], code, message, now);
                }
            }
            Verdict::Retry { .. } | Verdict::Cut | Verdict::ClockSkew { .. } => {}
        }
        let ended = self.dispatch.on_result(load.request, verdict, now);
        if let [batch] = &load.batches[..]
            && self.dispatch.held_whole().contains(&batch.id)
        {
            self.journal.on_held_whole(batch, now);
        }
        self.end_batches(ended, now);
    }

    /// Gives batches back that have ended.
    fn end_batches(&mut self, ended: Vec<Ack>, now: Instant) {
        for ack in ended {
            if let Outcome::Refused { batch, refusal: Refusal::SeemsTooLarge } = &ack.outcome {
                self.journal.on_halved(batch, now);
            }
            self.end.ack(ack);
        }
    }

    /// The verdict on an attempt, with failures counted and a complaint about the clock resolved
    /// into "again at once" or "again later".
    fn judge(&mut self, attempted: &Attempted, now: Instant) -> Verdict {
        let destination = attempted.load.destination();
        let answer = match &attempted.result {
            Ok(answer) => answer,
            Err(error) => {
                let kind = match error {
                    TransportError::Malformed(_) => FailureKind::Other,
                    TransportError::ConnectTimeout(_)
                    | TransportError::Timeout(_)
                    | TransportError::Flooded
                    | TransportError::Broken(_) => FailureKind::Network,
                };
                if error.may_have_arrived() {
                    self.journal.on_unanswered(&attempted.load);
                }
                let mut failure = Failure::of_transport(error);
                let is_cut = matches!(error, TransportError::Broken(broken) if broken.was_cut);
                if is_cut && matches!(attempted.load.batches[0].route, Route::Once { .. }) {
                    failure = failure.and_is_whole();
                }
                self.journal.on_failure(destination, kind, &failure, now);
                return match error {
                    TransportError::Flooded => Verdict::Retry {
                        kind,
                        after: Some(self.leave_alone(attempted.started, now)),
                    },
                    // Its time was over before anybody could look.
                    TransportError::Timeout(_) if self.look() == Used::TooMuch => Verdict::Retry {
                        kind,
                        after: Some(self.leave_alone(attempted.started, now)),
                    },
                    _ if is_cut => Verdict::Cut,
                    _ => Verdict::Retry { kind, after: None },
                };
            }
        };
        let sent = Sent::of(&attempted.load.batches[0]);
        let verdict = Verdict::of_load(answer, sent, self.options.verify_response);
        match verdict {
            // Whether it is the list or one in it, its halves will tell.
            Verdict::Retry { kind: FailureKind::Other, .. } if attempted.load.is_list() => {
                let Failure { code, reason, .. } = Failure::of_answer(answer);
                self.journal.on_list_refused(&attempted.load, &code, &reason);
            }
            Verdict::Retry { kind, .. } => {
                self.journal.on_failure(destination, kind, &Failure::of_answer(answer), now);
            }
            Verdict::ClockSkew { server_unix } => {
                let kind = FailureKind::Clock;
                self.journal.on_failure(destination, kind, &Failure::of_answer(answer), now);
                let at_once =
                    self.clock.on_complaint(attempted.clock_offset, server_unix, local_unix());
                self.journal.on_clock_corrected(destination, self.clock.offset_seconds());
                self.end.set_clock_offset(self.clock.offset_seconds());
                if !at_once {
                    return Verdict::Retry { kind, after: answer.retry_after };
                }
            }
            Verdict::Delivered | Verdict::Cut | Verdict::Refuse(_) => {}
        }
        verdict
    }

    fn publish(&mut self) {
        let report = &mut self.journal.report;
        report.in_flight = self.dispatch.in_flight() as u64;
        report.waiting = (self.dispatch.waiting() + self.end.queued()) as u64;
        report.held_whole = self.dispatch.held_whole().len() as u64;
        report.window = self.dispatch.window() as u64;
        self.end.publish(report.clone());
    }
}

/// Waits until an attempt that was `started` is cut off.
async fn until_cut(cut: &Notify, started: Instant) {
    loop {
        cut.notified().await;
        if clock::now().saturating_duration_since(started) >= CUT_AGE_MIN {
            return;
        }
    }
}

/// Waits until `deadline`, or for ever without one.
async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

fn local_unix() -> i64 {
    i64::try_from(clock::wall().as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
