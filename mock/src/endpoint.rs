//! One request's way through the endpoint, from its first byte to its answer or its cut.
//!
//! Order: name the project and the operation, check the head (`verify`), unpack the body (`put`),
//! ask the [`Faults`], carry out. What is refused is counted by code; what a fault spoils, by kind.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::{ConnectInfo, Request, State};
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse as _, Response};

use super::answer::{self, Answer, Refusal};
use super::connection::Cut;
use super::faults::{Faults, Seen, Spoiled, Then};
use super::journal::Journal;
use super::request::{Asked, Operation, Reading};
use super::store::{Accepted, NotStored, Store};
use super::{Access, Limits, Options, put, read, verify};

/// What a mock endpoint is apart from its socket: it outlives a [`super::Background`] being stopped.
#[derive(Debug)]
pub struct Endpoint {
    store: Arc<Store>,
    faults: Faults,
    access: Mutex<Access>,
    limits: Limits,
    clock_offset_seconds: i64,
}

impl Endpoint {
    /// Makes an endpoint; `options.listen` is left to the server.
    ///
    /// # Errors
    /// When `groups.jsonl` cannot be opened in the directory asked for.
    pub fn open(options: Options) -> io::Result<Arc<Self>> {
        let journal = options.dir.as_deref().map(Journal::open).transpose()?;
        let faults = Faults::default();
        faults.set(options.faults);
        Ok(Arc::new(Self {
            store: Arc::new(Store::new(options.shards, options.memory_bytes_max, journal)),
            faults,
            access: Mutex::new(options.access),
            limits: options.limits,
            clock_offset_seconds: options.clock_offset_seconds,
        }))
    }

    /// What it accepted.
    #[must_use]
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// What it spoils.
    #[must_use]
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// From now on accepts this: a key that is repaired, a logstore that is made.
    pub fn set_access(&self, access: Access) {
        *self.access.lock().unwrap_or_else(PoisonError::into_inner) = access;
    }

    fn access(&self) -> Access {
        self.access.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The endpoint's clock, Unix seconds.
    fn unix_seconds(&self) -> i64 {
        let machine = i64::try_from(logferry_clock::wall().as_secs()).unwrap_or(i64::MAX);
        machine.saturating_add(self.clock_offset_seconds)
    }

    fn received(&self) -> Duration {
        let offset = Duration::from_secs(self.clock_offset_seconds.unsigned_abs());
        match self.clock_offset_seconds {
            0.. => logferry_clock::wall().saturating_add(offset),
            _ => logferry_clock::wall().saturating_sub(offset),
        }
    }

    /// Everything that can be said about a request before it is carried out.
    fn prepare(&self, asked: &Asked, request_id: &str) -> Result<Prepared, Refusal> {
        let project = asked.project()?;
        let operation = Operation::of(asked)?;
        let now = self.unix_seconds();
        verify::head(asked, &operation, &project, &self.access(), now)?;
        match operation {
            Operation::Read(reading) => Ok(Prepared::Read { project, reading }),
            Operation::Put { logstore, routed } => {
                let route = put::route(asked, routed)?;
                let groups = put::unpack(asked, &self.limits, now)?;
                let request_id = request_id.to_owned();
                Ok(Prepared::Put(Accepted { project, logstore, route, request_id, groups }))
            }
        }
    }

    fn spoil(&self, asked: &Asked, prepared: &Prepared) -> Spoiled {
        let seen = match prepared {
            Prepared::Put(put) => Seen {
                is_put: true,
                logstore: Some(&put.logstore),
                raw_bytes: put.groups.iter().map(|group| group.raw.len() as u64).sum(),
                sent_bytes: asked.body.len() as u64,
                groups: &put.groups,
            },
            Prepared::Read { reading, .. } => Seen {
                is_put: false,
                logstore: reading.logstore(),
                raw_bytes: 0,
                sent_bytes: 0,
                groups: &[],
            },
        };
        let spoiled = self.faults.next(seen, logferry_clock::now());
        for kind in &spoiled.played {
            self.store.count_fault(kind);
        }
        spoiled
    }

    fn carry_out(&self, asked: &Asked, prepared: Prepared) -> Result<Answer, Refusal> {
        match prepared {
            Prepared::Put(put) => match self.store.accept(put, self.received()) {
                Ok(()) => Ok(Answer::default()),
                Err(NotStored::OldSequence(last)) => Err(Refusal::new(
                    "InvalidSequenceId",
                    format!("seqid must be greater than {last}, the last of this key"),
                )),
                Err(NotStored::Io(error)) => Err(Refusal::new(
                    "InternalServerError",
                    format!("groups.jsonl cannot be written: {error}"),
                )),
            },
            Prepared::Read { project, reading } => {
                let allowed = self.access().logstores;
                read::answer(asked, &project, reading, &self.store, allowed, self.unix_seconds())
            }
        }
    }
}

/// A request that may be carried out.
enum Prepared {
    Put(Accepted),
    Read { project: String, reading: Reading },
}

/// Serves the service's interface.
pub(super) async fn serve(
    State(endpoint): State<Arc<Endpoint>>,
    ConnectInfo(cut): ConnectInfo<Cut>,
    request: Request,
) -> Response {
    let number = endpoint.store.count_request();
    // 24 upper-case hexadecimal digits, as the service's.
    let request_id = format!("{:08X}{number:016X}", endpoint.unix_seconds() & 0xffff_ffff);
    let outcome = match Asked::read(request).await {
        Ok(asked) => endpoint.answer(asked, &request_id, &cut).await,
        Err(refusal) => Ended::Answered(Err(refusal)),
    };
    match outcome {
        Ended::CaptivePortal => Html("<h1>Please log in</h1>").into_response(),
        Ended::TooLargeForProxy => {
            let page = Html("<h1>413 Request Entity Too Large</h1>");
            (StatusCode::PAYLOAD_TOO_LARGE, page).into_response()
        }
        // Never leaves: the connection is severed.
        Ended::Severed => Response::default(),
        Ended::Answered(outcome) => {
            if let Err(refusal) = &outcome {
                endpoint.store.count_refused(&refusal.code);
            }
            answer::respond(outcome, &request_id, endpoint.unix_seconds())
        }
    }
}

/// How a request ended.
enum Ended {
    Answered(Result<Answer, Refusal>),
    CaptivePortal,
    TooLargeForProxy,
    Severed,
}

impl Endpoint {
    /// Cancellation: a client that goes away while a fault delays its request drops this future
    /// before anything is stored.
    async fn answer(&self, asked: Asked, request_id: &str, cut: &Cut) -> Ended {
        let prepared = match self.prepare(&asked, request_id) {
            Ok(prepared) => prepared,
            Err(refusal) => return Ended::Answered(Err(refusal)),
        };
        let spoiled = self.spoil(&asked, &prepared);
        if !spoiled.delay.is_zero() {
            tokio::time::sleep(spoiled.delay).await;
        }
        match spoiled.then {
            Then::Answer => Ended::Answered(self.carry_out(&asked, prepared)),
            Then::Refuse(refusal) => Ended::Answered(Err(refusal)),
            Then::CaptivePortal => Ended::CaptivePortal,
            Then::TooLargeForProxy => Ended::TooLargeForProxy,
            Then::Hang { stored } => {
                if stored {
                    // Whether it was stored or refused, nobody is told.
                    let _ = self.carry_out(&asked, prepared);
                }
                std::future::pending().await
            }
            Then::Cut { stored } => {
                if stored {
                    let _ = self.carry_out(&asked, prepared);
                }
                cut.sever();
                Ended::Severed
            }
        }
    }
}
