//! Misbehaviour on request: which requests a mock endpoint spoils, and how.
//!
//! A request passes every check first; only one that would have been carried out can be spoiled.
//! Faults are asked in their order: delays add up, the first other fault that plays decides.
//!
//! Pure: `now` is an argument, chance comes from a seed.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use memchr::memmem;
use prost::Message as _;
use serde::Serialize;

use super::answer::Refusal;
use super::fault::{Fault, Kind, On};
use super::store::NewGroup;
use logferry_wire::sls_logs::LogGroup;

/// The faults of a running endpoint. Shared by reference; every method locks.
#[derive(Debug, Default)]
pub struct Faults(Mutex<Vec<Live>>);

/// A fault and how far it has come.
#[derive(Clone, Debug, Serialize)]
pub struct Live {
    /// What was asked for.
    pub fault: Fault,
    /// Requests it looked at.
    pub seen: u64,
    /// Times it played.
    pub played: u64,
    #[serde(skip)]
    random: fastrand::Rng,
    #[serde(skip)]
    window: Option<Window>,
}

/// What a quota counted in the current second.
#[derive(Clone, Copy, Debug)]
struct Window {
    start: Instant,
    bytes: u64,
    requests: u64,
}

/// What the faults decide about one request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Spoiled {
    /// Names of the faults that played.
    pub(super) played: Vec<&'static str>,
    /// Wait so long first.
    pub(super) delay: Duration,
    /// Then this.
    pub(super) then: Then,
}

/// How a request ends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Then {
    #[default]
    Answer,
    Refuse(Refusal),
    Hang {
        stored: bool,
    },
    Cut {
        stored: bool,
    },
    CaptivePortal,
    /// A proxy's 413.
    TooLargeForProxy,
}

/// What a fault looks at in a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen<'a> {
    pub(super) is_put: bool,
    pub(super) logstore: Option<&'a str>,
    /// Of all its groups together, before compression.
    pub(super) raw_bytes: u64,
    /// Of the body as it was sent.
    pub(super) sent_bytes: u64,
    /// What it wants to be stored.
    pub(super) groups: &'a [NewGroup],
}

impl Faults {
    /// Replaces all faults; an empty list ends the misbehaviour.
    pub fn set(&self, faults: Vec<Fault>) {
        *self.lock() = faults.into_iter().map(Live::new).collect();
    }

    /// Adds a fault behind the others.
    pub fn add(&self, fault: Fault) {
        self.lock().push(Live::new(fault));
    }

    /// Removes all faults.
    pub fn clear(&self) {
        self.lock().clear();
    }

    /// The faults as they stand.
    #[must_use]
    pub fn list(&self) -> Vec<Live> {
        self.lock().clone()
    }

    pub(super) fn next(&self, seen: Seen<'_>, now: Instant) -> Spoiled {
        let mut spoiled = Spoiled::default();
        for live in self.lock().iter_mut() {
            let Some(kind) = live.look(seen, now) else { continue };
            spoiled.played.push(kind.name());
            spoiled.then = match kind {
                Kind::Delay { ms } => {
                    spoiled.delay += Duration::from_millis(ms);
                    continue;
                }
                Kind::Hang => Then::Hang { stored: false },
                Kind::HangAfter => Then::Hang { stored: true },
                Kind::CutBefore => Then::Cut { stored: false },
                Kind::CutAfter => Then::Cut { stored: true },
                Kind::CaptivePortal => Then::CaptivePortal,
                Kind::Error { code, status, retry_after } => {
                    let refusal = Refusal::new(code, "a fault that was asked for");
                    let status = status.unwrap_or(refusal.status);
                    Then::Refuse(Refusal { status, retry_after, ..refusal })
                }
                Kind::Poison { text } => {
                    let message = format!("the LogGroup holds {text:?}");
                    Then::Refuse(Refusal::new("PostBodyInvalid", message))
                }
                Kind::RefuseCompression { name } => {
                    let message =
                        format!("Http extend x-log-compresstype : {name} pair is invalid.");
                    Then::Refuse(Refusal::new("ParameterInvalid", message))
                }
                Kind::RefuseLists => {
                    let message = "Http extend x-log-mode : batch_group pair is invalid.";
                    Then::Refuse(Refusal::new("ParameterInvalid", message))
                }
                Kind::BodyLimit { .. } => Then::TooLargeForProxy,
                Kind::Quota { code, .. } => {
                    let code = code.unwrap_or_else(|| "WriteQuotaExceed".to_owned());
                    let message = if live.is_over_requests() {
                        "Project write quota exceed: qps"
                    } else {
                        "Project write quota exceed: inflow"
                    };
                    Then::Refuse(Refusal::new(code, message))
                }
            };
            break;
        }
        spoiled
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Live>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Live {
    fn new(fault: Fault) -> Self {
        let random = fastrand::Rng::with_seed(fault.seed);
        Self { fault, seen: 0, played: 0, random, window: None }
    }

    /// The kind, if it plays on this request.
    fn look(&mut self, seen: Seen<'_>, now: Instant) -> Option<Kind> {
        let fault = &self.fault;
        let is_its = match fault.on {
            On::Put => seen.is_put,
            On::Read => !seen.is_put,
            On::Any => true,
        };
        if !is_its || fault.logstore.as_deref().is_some_and(|name| seen.logstore != Some(name)) {
            return None;
        }
        self.seen += 1;
        let turn = self.seen.checked_sub(fault.after).filter(|turn| *turn > 0)?;
        if fault.times.is_some_and(|times| self.played >= times)
            || fault.every.is_some_and(|every| turn % every != 0)
            || fault.probability.is_some_and(|chance| self.random.f64() >= chance)
            || !self.is_about(seen)
            || !self.is_over(seen, now)
        {
            return None;
        }
        self.played += 1;
        Some(self.fault.kind.clone())
    }

    /// True unless its kind is about something else than is in the request.
    fn is_about(&self, seen: Seen<'_>) -> bool {
        match &self.fault.kind {
            Kind::Poison { text } => seen.groups.iter().any(|group| holds(group, text)),
            Kind::RefuseCompression { name } => {
                seen.groups.iter().any(|group| group.compression.name() == name)
            }
            Kind::RefuseLists => seen.groups.len() > 1,
            Kind::BodyLimit { bytes } => seen.sent_bytes > *bytes,
            Kind::Error { .. }
            | Kind::Delay { .. }
            | Kind::Hang
            | Kind::HangAfter
            | Kind::CutBefore
            | Kind::CutAfter
            | Kind::CaptivePortal
            | Kind::Quota { .. } => true,
        }
    }

    /// True unless it is a quota with room for the request, which then takes the room.
    fn is_over(&mut self, seen: Seen<'_>, now: Instant) -> bool {
        let Kind::Quota { bytes_per_second, .. } = self.fault.kind else { return true };
        let fresh = Window { start: now, bytes: 0, requests: 0 };
        let window = self.window.get_or_insert(fresh);
        if now.saturating_duration_since(window.start) >= Duration::from_secs(1) {
            *window = fresh;
        }
        let (bytes, requests) = (window.bytes, window.requests);
        // The first request of a second passes whatever its size; else a large one never could.
        let over_bytes = requests > 0
            && bytes_per_second.is_some_and(|most| bytes.saturating_add(seen.raw_bytes) > most);
        if over_bytes || self.is_over_requests() {
            return true;
        }
        if let Some(window) = &mut self.window {
            window.bytes += seen.raw_bytes;
            window.requests += 1;
        }
        false
    }

    fn is_over_requests(&self) -> bool {
        match (&self.fault.kind, self.window) {
            (Kind::Quota { requests_per_second: Some(most), .. }, Some(window)) => {
                window.requests >= *most
            }
            _ => false,
        }
    }
}

/// Whether a value of some log holds this text.
fn holds(group: &NewGroup, text: &str) -> bool {
    let logs = LogGroup::decode(group.raw.as_slice()).map(|group| group.logs).unwrap_or_default();
    let mut contents = logs.iter().flat_map(|log| &log.contents);
    contents.any(|content| memmem::find(&content.value, text.as_bytes()).is_some())
}

#[cfg(test)]
mod unit {
    use super::*;

    const PUT: Seen<'static> =
        Seen { is_put: true, logstore: Some("ls"), raw_bytes: 100, sent_bytes: 100, groups: &[] };

    /// Which of `count` requests, 1 ms apart, a fault plays on.
    fn plays(text: &str, count: u64) -> Vec<u64> {
        let faults = Faults::default();
        faults.set(vec![text.parse().unwrap()]);
        let start = logferry_clock::now();
        let at = |turn| start + Duration::from_millis(turn);
        (1..=count).filter(|turn| !faults.next(PUT, at(*turn)).played.is_empty()).collect()
    }

    #[test]
    fn plays_when_it_was_asked_to() {
        for (text, expected) in [
            ("hang", vec![1, 2, 3, 4, 5, 6]),
            ("hang:times=2", vec![1, 2]),
            ("hang:after=4", vec![5, 6]),
            ("hang:every=3", vec![3, 6]),
            ("hang:every=2,after=1,times=2", vec![3, 5]),
            ("hang:logstore=other", vec![]),
            ("hang:on=read", vec![]),
            ("hang:on=any,times=1", vec![1]),
            ("hang:probability=0", vec![]),
            ("hang:probability=1,seed=3", vec![1, 2, 3, 4, 5, 6]),
            ("quota:requests_per_second=4", vec![5, 6]),
            ("quota:bytes_per_second=250", vec![3, 4, 5, 6]),
            ("quota:bytes_per_second=10", vec![2, 3, 4, 5, 6]),
        ] {
            assert_eq!(plays(text, 6), expected, "{text}");
        }
    }

    #[test]
    fn chance_repeats_with_its_seed() {
        let some = plays("cut_after:probability=0.5,seed=7", 1000);

        assert_eq!(some, plays("cut_after:probability=0.5,seed=7", 1000));
        assert_ne!(some, plays("cut_after:probability=0.5,seed=8", 1000));
        assert!((400..600).contains(&some.len()), "{}", some.len());
    }

    #[test]
    fn a_quota_opens_again_with_the_next_second() {
        assert_eq!(plays("quota:requests_per_second=1", 1001), (2..=1000).collect::<Vec<_>>());
    }

    #[test]
    fn delays_add_up_before_the_first_other_fault() {
        let faults = Faults::default();
        for text in ["delay:ms=20", "delay:ms=3", "error:code=ServerBusy,retry_after=9", "hang"] {
            faults.add(text.parse().unwrap());
        }

        let spoiled = faults.next(PUT, logferry_clock::now());

        assert_eq!(spoiled.delay, Duration::from_millis(23));
        assert_eq!(spoiled.played, ["delay", "delay", "error"]);
        let Then::Refuse(refusal) = spoiled.then else { panic!("{:?}", spoiled.then) };
        assert_eq!((refusal.status, &*refusal.code), (503, "ServerBusy"));
        assert_eq!(refusal.retry_after, Some(9));
    }
}
