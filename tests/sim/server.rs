//! The service, and what stands between it and the agent.
//!
//! It decides for each request what becomes of it: stored or not, and the answer, if any, after a
//! delay. Answers are made of a status, headers and a body, and read by the agent's own parser.

use std::time::{Duration, Instant};

use logferry::base::sealed::SealedBatch;
use logferry::batch::rewrite;
use logferry::send::answer::Answer;
use logferry::send::dispatch::Load;

pub struct Server {
    rng: fastrand::Rng,
    /// Share of the requests outside of outages that fail.
    fault_share: f64,
    /// Share of the lines that the service calls malformed.
    malformed_share: f64,
    /// It does not know package lists.
    refuses_lists: bool,
    /// Larger groups are refused.
    group_bytes_max: u32,
    outages: Vec<Outage>,
    healed: bool,
    /// Server clock minus the agent's, in seconds.
    pub clock_ahead: i64,
    delay_ms_max: u64,
}

struct Outage {
    from: Instant,
    to: Instant,
    fault: Fault,
}

#[derive(Clone, Copy)]
enum Fault {
    Internal,
    Busy,
    Quota,
    TooMany,
    Unauthorized,
    Missing,
    Gateway,
    Stranger,
    Cut,
    CutAfterStoring,
    LateAnswer,
}

const FAULTS: [Fault; 11] = [
    Fault::Internal,
    Fault::Busy,
    Fault::Quota,
    Fault::TooMany,
    Fault::Unauthorized,
    Fault::Missing,
    Fault::Gateway,
    Fault::Stranger,
    Fault::Cut,
    Fault::CutAfterStoring,
    Fault::LateAnswer,
];

const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// What becomes of one request.
pub struct Fate {
    pub stored_after: Option<Duration>,
    pub answered_after: Duration,
    /// `None`: no answer, the connection broke or the time ran out.
    pub answer: Option<Answer>,
    /// The connection broke while the request was on its way.
    pub is_cut: bool,
}

impl Server {
    pub fn new(mut rng: fastrand::Rng, start: Instant, storm: Duration) -> Self {
        let outages = (0..rng.u32(..4))
            .map(|_| {
                let from = start + storm.mul_f64(rng.f64());
                let to = from + Duration::from_millis(rng.u64(500..30_000));
                Outage { from, to, fault: FAULTS[rng.usize(..FAULTS.len())] }
            })
            .collect();
        Self {
            fault_share: if rng.bool() { 0.0 } else { rng.f64() * 0.5 },
            malformed_share: if rng.u8(..4) == 0 { 0.02 } else { 0.0 },
            refuses_lists: rng.u8(..6) == 0,
            group_bytes_max: if rng.u8(..6) == 0 { rng.u32(250..1500) } else { u32::MAX },
            outages,
            healed: false,
            clock_ahead: if rng.u8(..6) == 0 { rng.i64(-5000..5000) } else { 0 },
            delay_ms_max: [5, 50, 500, 3000][rng.usize(..4)],
            rng,
        }
    }

    /// Whether all requests fail now.
    pub fn is_out(&self, now: Instant) -> bool {
        !self.healed && self.outages.iter().any(|one| one.from <= now && now < one.to)
    }

    /// The storm is over: whatever comes is stored and answered.
    pub fn heal(&mut self) {
        self.healed = true;
        self.delay_ms_max = self.delay_ms_max.min(50);
    }

    /// `date_unix` is the date that the agent gave the request; `unix` is its own clock.
    pub fn on_request(&mut self, load: &Load, date_unix: i64, unix: i64, now: Instant) -> Fate {
        let delay = Duration::from_millis(1 + self.rng.u64(..self.delay_ms_max));
        let server_unix = unix + self.clock_ahead;
        let answer = |status, wish, code: &str| Fate {
            stored_after: None,
            answered_after: delay,
            answer: Some(answer(status, true, wish, code, server_unix)),
            is_cut: false,
        };
        if let Some(fault) = self.fault(now) {
            return match fault {
                Fault::Internal => answer(500, None, "InternalServerError"),
                Fault::Busy => answer(503, Some("3"), "ServerBusy"),
                Fault::Quota => answer(403, None, "WriteQuotaExceed"),
                Fault::TooMany => answer(429, None, ""),
                Fault::Unauthorized => answer(401, None, "Unauthorized"),
                Fault::Missing => answer(404, None, "LogStoreNotExist"),
                Fault::Gateway => Fate {
                    answer: Some(self::answer(502, false, None, "", server_unix)),
                    ..answer(502, None, "")
                },
                Fault::Stranger => Fate {
                    answer: Some(self::answer(200, false, None, "", server_unix)),
                    ..answer(200, None, "")
                },
                Fault::Cut => Fate { answer: None, is_cut: true, ..answer(0, None, "") },
                Fault::CutAfterStoring => Fate {
                    stored_after: Some(delay),
                    answered_after: delay + Duration::from_millis(1),
                    answer: None,
                    is_cut: self.rng.bool(),
                },
                Fault::LateAnswer => Fate {
                    stored_after: Some(delay + Duration::from_millis(self.rng.u64(..20_000))),
                    answered_after: REQUEST_TIMEOUT,
                    answer: None,
                    is_cut: false,
                },
            };
        }
        if (date_unix - server_unix).abs() > 900 {
            return answer(400, None, "RequestTimeTooSkewed");
        }
        if load.is_list() && self.refuses_lists {
            return answer(400, None, "ParameterInvalid");
        }
        let mut batches = load.batches.iter();
        let is_malformed = !self.healed && batches.any(|batch| self.is_malformed(batch));
        if is_malformed {
            return answer(400, None, "PostBodyInvalid");
        }
        let largest = load.batches.iter().map(|batch| batch.raw_bytes).max();
        if !self.healed && largest > Some(self.group_bytes_max) {
            return answer(400, None, "PostBodyTooLarge");
        }
        let answered_after = delay + Duration::from_millis(self.rng.u64(..3));
        Fate { stored_after: Some(delay), answered_after, ..answer(200, None, "") }
    }

    fn fault(&mut self, now: Instant) -> Option<Fault> {
        if self.healed {
            return None;
        }
        let outage = self.outages.iter().find(|one| one.from <= now && now < one.to);
        if let Some(outage) = outage {
            return Some(outage.fault);
        }
        (self.rng.f64() < self.fault_share).then(|| FAULTS[self.rng.usize(..FAULTS.len())])
    }

    /// The same lines are malformed each time, whatever they are sent with.
    fn is_malformed(&self, batch: &SealedBatch) -> bool {
        let most = self.malformed_share * 1000.0;
        let is_bad = |value: &[u8]| f64::from(crc32fast::hash(value) % 1000) < most;
        let group = rewrite::opened(batch).expect("the agent encodes groups");
        most > 0.0 && group.logs.iter().any(|log| is_bad(&log.contents[0].value))
    }
}

fn answer(status: u16, is_ours: bool, wish: Option<&str>, code: &str, unix: i64) -> Answer {
    let time = unix.to_string();
    let header = |name| match name {
        "x-log-requestid" => is_ours.then_some("5F3A"),
        "x-log-time" => is_ours.then_some(time.as_str()),
        "retry-after" => wish,
        _ => None,
    };
    let body = if code.is_empty() {
        String::new()
    } else {
        format!(r#"{{"errorCode":"{code}","errorMessage":"made up"}}"#)
    };
    Answer::parse(status, header, body.as_bytes())
}
