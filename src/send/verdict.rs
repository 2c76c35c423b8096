//! The meaning of one answer: delivered, again later, or refused for good.
//!
//! Pure. It goes by the error *code* first and by the status second, and it errs on the side of
//! trying again: only what the service itself will never take as it is, is refused. Whatever a
//! person could repair (credentials, a missing project or logstore, quota, the clock, a setting)
//! and whatever is not known is tried again for ever.

use std::time::Duration;

use super::answer::{Answer, ServiceError};
use crate::base::report::FAILURE_KINDS;
use crate::base::sealed::{Refusal, Route, SealedBatch};
use logferry_wire::Compression;

/// What an answer is an answer to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Where the load went.
    pub route: Route,
    /// How its groups are compressed.
    pub compression: Compression,
}

impl Sent {
    /// What a batch needs to have said about it, and every other of its load.
    #[must_use]
    pub fn of(batch: &SealedBatch) -> Self {
        Self { route: batch.route, compression: batch.compression }
    }
}

/// What one attempt has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The endpoint has it.
    Delivered,
    /// Not delivered; the same batch goes again later.
    Retry {
        /// What kind of failure.
        kind: FailureKind,
        /// How long the endpoint asks to be left alone.
        after: Option<Duration>,
    },
    /// Not delivered: the connection broke before an answer. A failure of the network, and perhaps the
    /// size of what it carried.
    Cut,
    /// The service dislikes the date of the request.
    ClockSkew {
        /// The service's own clock, in Unix seconds, when it said so.
        server_unix: Option<i64>,
    },
    /// The batch will never be taken as it is.
    Refuse(Refusal),
}

impl Verdict {
    /// Decides what the answer to a request without a load means.
    #[must_use]
    pub fn of(answer: &Answer, verify_response: bool) -> Self {
        let sent = Sent { route: Route::Any, compression: Compression::None };
        Self::of_load(answer, sent, verify_response)
    }

    /// Decides what the answer to a load means. With `verify_response`, only what carries the
    /// service's request id is taken as an acknowledgement or as a refusal for good; except that a
    /// body is too large for whoever says so.
    #[must_use]
    pub fn of_load(answer: &Answer, sent: Sent, verify_response: bool) -> Self {
        let is_the_services = answer.request_id.is_some() || !verify_response;
        let retry = |kind| Self::Retry { kind, after: answer.retry_after };
        if answer.status == 200 {
            return if is_the_services { Self::Delivered } else { retry(FailureKind::Unverified) };
        }
        let (code, message) = words(answer);
        if answer.status == 413 {
            return Self::Refuse(Refusal::TooLarge { code, message });
        }
        let meaning = answer.error.as_ref().map_or(Meaning::Unknown, meaning_of);
        let is_for_good = is_the_services && (400..500).contains(&answer.status);
        match meaning {
            Meaning::Failure(kind) => retry(kind),
            Meaning::Skew => Self::ClockSkew { server_unix: answer.server_unix },
            Meaning::Malformed | Meaning::TooLarge if !is_for_good => {
                retry(FailureKind::Unverified)
            }
            Meaning::Malformed => Self::Refuse(Refusal::Malformed { code, message }),
            Meaning::TooLarge => Self::Refuse(Refusal::TooLarge { code, message }),
            // Told by the service that it has this one.
            Meaning::Repeated if is_for_good && matches!(sent.route, Route::Once { .. }) => {
                Self::Delivered
            }
            Meaning::Compression if is_for_good && sent.compression == Compression::Zstd => {
                Self::Refuse(Refusal::Compression)
            }
            Meaning::Repeated | Meaning::Compression => retry(FailureKind::Other),
            Meaning::Unknown => Self::of_status(answer, sent, is_the_services),
        }
    }

    /// Without a code, or with an unknown one.
    fn of_status(answer: &Answer, sent: Sent, is_the_services: bool) -> Self {
        let is_format = matches!(answer.status, 406 | 415);
        if is_format && is_the_services && sent.compression == Compression::Zstd {
            return Self::Refuse(Refusal::Compression);
        }
        let kind = match kind_of_status(answer.status, is_the_services) {
            // A status can tell a busy service; what is forbidden or missing, of several codes only
            // a known one can.
            FailureKind::Credentials | FailureKind::Missing if answer.error.is_some() => {
                FailureKind::Other
            }
            kind => kind,
        };
        Self::Retry { kind, after: answer.retry_after }
    }
}

/// Kinds of failed attempts, in the order of [`FAILURE_KINDS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// No answer: refused, reset, timed out, not resolved.
    Network,
    /// The endpoint is unwell.
    Server,
    /// The quota of the project is used up, or one that nobody names.
    Quota,
    /// The quota of a shard is used up.
    ShardQuota,
    /// The access key is missing, wrong, disabled, expired or may not do this.
    Credentials,
    /// The project or the logstore does not exist, or is closed.
    Missing,
    /// The request's date is too far from the service's clock.
    Clock,
    /// Somebody else answered: a proxy, a captive portal.
    Unverified,
    /// Anything else.
    Other,
}

impl FailureKind {
    /// Place in [`FAILURE_KINDS`].
    #[must_use]
    pub fn index(self) -> usize {
        self as usize
    }

    /// The kind's name in the metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        FAILURE_KINDS[self.index()]
    }

    /// Whether it stays until a person does something.
    #[must_use]
    pub fn needs_a_person(self) -> bool {
        matches!(self, Self::Credentials | Self::Missing)
    }
}

enum Meaning {
    Failure(FailureKind),
    Skew,
    Malformed,
    TooLarge,
    /// The sequence id was taken before.
    Repeated,
    /// The service does not know how it is compressed.
    Compression,
    Unknown,
}

/// What the service's codes mean to a sender, in old and new spellings.
fn meaning_of(error: &ServiceError) -> Meaning {
    match error.code.as_str() {
        "PostBodyInvalid"
        | "InvalidTimestamp"
        | "InvalidEncoding"
        | "InvalidKey"
        | "PostBodyUncompressError" => Meaning::Malformed,
        "PostBodyTooLarge" => Meaning::TooLarge,
        "InvalidSequenceId" => Meaning::Repeated,
        "InvalidCompressType" => Meaning::Compression,
        "ParameterInvalid" if error.message.to_lowercase().contains("x-log-compresstype") => {
            Meaning::Compression
        }
        // Of the header of that name, whatever the status.
        "InvalidContentType" => Meaning::Failure(FailureKind::Other),
        "RequestTimeExpired"
        | "RequestTimeTooSkewed"
        | "InvalidRequestTime"
        | "InvalidDateFormat" => Meaning::Skew,
        "InternalServerError" | "ServerBusy" => Meaning::Failure(FailureKind::Server),
        "WriteQuotaExceed" | "ReadQuotaExceed" | "ProjectQuotaExceed" => {
            Meaning::Failure(FailureKind::Quota)
        }
        "ShardWriteQuotaExceed" | "ShardReadQuotaExceed" => {
            Meaning::Failure(FailureKind::ShardQuota)
        }
        "SignatureNotMatch"
        | "Unauthorized"
        | "InvalidAccessKeyId"
        | "MissAccessKeyId"
        | "MissingSignatureMethod"
        | "InvalidSignatureMethod" => Meaning::Failure(FailureKind::Credentials),
        "ProjectNotExist"
        | "ProjectNotExists"
        | "LogStoreNotExist"
        | "ShardNotExist"
        | "LogStoreWithoutShard"
        | "ProjectForbidden"
        | "ProjectInRecycleBin" => Meaning::Failure(FailureKind::Missing),
        _ => Meaning::Unknown,
    }
}

/// The error's code and message, or empty texts.
fn words(answer: &Answer) -> (String, String) {
    let error = answer.error.as_ref();
    error.map(|error| (error.code.clone(), error.message.clone())).unwrap_or_default()
}

/// What a status means when the body does not say more.
fn kind_of_status(status: u16, is_the_services: bool) -> FailureKind {
    match status {
        408 | 500..=599 => FailureKind::Server,
        429 => FailureKind::Quota,
        _ if !is_the_services => FailureKind::Unverified,
        401 | 403 => FailureKind::Credentials,
        404 => FailureKind::Missing,
        _ => FailureKind::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::FailureKind::*;
    use super::*;
    use crate::send::answer::ServiceError;

    fn answer(status: u16, request_id: bool, code: &str) -> Answer {
        let error = ServiceError { code: code.to_owned(), message: "why".to_owned() };
        Answer {
            status,
            request_id: request_id.then(|| "id".to_owned()),
            error: (!code.is_empty()).then_some(error),
            retry_after: None,
            server_unix: Some(1_700_000_000),
        }
    }

    const SENT: Sent = Sent { route: Route::Any, compression: Compression::Lz4 };

    fn of(answer: &Answer, verify_response: bool) -> Verdict {
        Verdict::of_load(answer, SENT, verify_response)
    }

    fn retry(kind: FailureKind) -> Verdict {
        Verdict::Retry { kind, after: None }
    }

    fn reject(code: &str) -> Verdict {
        let (code, message) = (code.to_owned(), "why".to_owned());
        Verdict::Refuse(Refusal::Malformed { code, message })
    }

    fn too_large(code: &str, message: &str) -> Verdict {
        let (code, message) = (code.to_owned(), message.to_owned());
        Verdict::Refuse(Refusal::TooLarge { code, message })
    }

    const SKEW: Verdict = Verdict::ClockSkew { server_unix: Some(1_700_000_000) };

    #[test]
    fn every_documented_code_has_its_meaning() {
        let table = [
            (400, "RequestTimeExpired", SKEW),
            (400, "RequestTimeTooSkewed", SKEW),
            (400, "InvalidRequestTime", SKEW),
            (400, "InvalidDateFormat", SKEW),
            (400, "InvalidHost", retry(Other)),
            (400, "MissingHost", retry(Other)),
            (400, "MissingDate", retry(Other)),
            (400, "MissingContentType", retry(Other)),
            (400, "MissingAPIVersion", retry(Other)),
            (400, "InvalidAPIVersion", retry(Other)),
            (400, "MissAccessKeyId", retry(Credentials)),
            (400, "MissingSignatureMethod", retry(Credentials)),
            (400, "InvalidSignatureMethod", retry(Credentials)),
            (400, "MissingBodyRawSize", retry(Other)),
            (400, "InvalidBodyRawSize", retry(Other)),
            (400, "InvalidCompressType", retry(Other)),
            (400, "ParameterInvalid", retry(Other)),
            (400, "PostBodyInvalid", reject("PostBodyInvalid")),
            (400, "InvalidTimestamp", reject("InvalidTimestamp")),
            (400, "InvalidEncoding", reject("InvalidEncoding")),
            (400, "InvalidKey", reject("InvalidKey")),
            (400, "PostBodyTooLarge", too_large("PostBodyTooLarge", "why")),
            (413, "PostBodyTooLarge", too_large("PostBodyTooLarge", "why")),
            (413, "BornTomorrow", too_large("BornTomorrow", "why")),
            (400, "PostBodyUncompressError", reject("PostBodyUncompressError")),
            (400, "InvalidSequenceId", retry(Other)),
            (401, "SignatureNotMatch", retry(Credentials)),
            (401, "Unauthorized", retry(Credentials)),
            (401, "InvalidAccessKeyId", retry(Credentials)),
            (403, "WriteQuotaExceed", retry(Quota)),
            (403, "ShardWriteQuotaExceed", retry(ShardQuota)),
            (403, "ReadQuotaExceed", retry(Quota)),
            (403, "ShardReadQuotaExceed", retry(ShardQuota)),
            (403, "ProjectQuotaExceed", retry(Quota)),
            (403, "ProjectForbidden", retry(Missing)),
            (403, "ProjectInRecycleBin", retry(Missing)),
            (404, "ProjectNotExist", retry(Missing)),
            (404, "ProjectNotExists", retry(Missing)),
            (404, "LogStoreNotExist", retry(Missing)),
            (404, "ShardNotExist", retry(Missing)),
            (411, "MissingContentLength", retry(Other)),
            (415, "InvalidContentType", retry(Other)),
            (400, "InvalidContentType", retry(Other)),
            (500, "InternalServerError", retry(Server)),
            (503, "ServerBusy", retry(Server)),
            (400, "BornTomorrow", retry(Other)),
            (403, "BornTomorrow", retry(Other)),
            (404, "BornTomorrow", retry(Other)),
            (429, "BornTomorrow", retry(Quota)),
            (502, "BornTomorrow", retry(Server)),
        ];
        for (status, code, expected) in table {
            for verify in [true, false] {
                assert_eq!(of(&answer(status, true, code), verify), expected, "{code}");
            }
        }
    }

    #[test]
    fn the_code_goes_before_the_status() {
        assert_eq!(of(&answer(400, true, "ServerBusy"), true), retry(Server));
        assert_eq!(of(&answer(500, true, "Unauthorized"), true), retry(Credentials));
        assert_eq!(of(&answer(503, true, "WriteQuotaExceed"), true), retry(Quota));
    }

    #[test]
    fn a_status_without_a_code_is_no_refusal_but_for_its_size() {
        // Status, then its kind from the service, and from who knows whom.
        let table = [
            (100, Other, Unverified),
            (201, Other, Unverified),
            (204, Other, Unverified),
            (206, Other, Unverified),
            (301, Other, Unverified),
            (302, Other, Unverified),
            (307, Other, Unverified),
            (400, Other, Unverified),
            (401, Credentials, Unverified),
            (403, Credentials, Unverified),
            (404, Missing, Unverified),
            (405, Other, Unverified),
            (407, Other, Unverified),
            (408, Server, Server),
            (415, Other, Unverified),
            (429, Quota, Quota),
            (500, Server, Server),
            (502, Server, Server),
            (503, Server, Server),
            (504, Server, Server),
            (599, Server, Server),
            (0, Other, Unverified),
            (999, Other, Unverified),
        ];
        for (status, known, stranger) in table {
            assert_eq!(of(&answer(status, true, ""), true), retry(known), "{status}");
            assert_eq!(of(&answer(status, false, ""), true), retry(stranger), "{status}");
        }
        for request_id in [true, false] {
            assert_eq!(of(&answer(413, request_id, ""), true), too_large("", ""));
        }
    }

    #[test]
    fn a_sequence_id_that_was_taken_before_is_delivered() {
        let repeated = answer(400, true, "InvalidSequenceId");
        let once = Sent { route: Route::Once { key: 7, sequence: 3 }, ..SENT };

        assert_eq!(Verdict::of_load(&repeated, once, true), Verdict::Delivered);

        let stranger = answer(400, false, "InvalidSequenceId");
        assert_eq!(Verdict::of_load(&stranger, once, true), retry(Other));
        let keyed = Sent { route: Route::Key(7), ..SENT };
        assert_eq!(Verdict::of_load(&repeated, keyed, true), retry(Other));
    }

    #[test]
    fn zstd_that_is_not_known_is_refused_as_such() {
        let mut named = answer(400, true, "ParameterInvalid");
        named.error.as_mut().unwrap().message =
            "Http extend x-log-compresstype : zstd pair is invalid.".to_owned();
        let refused = Verdict::Refuse(Refusal::Compression);
        let zstd = Sent { compression: Compression::Zstd, ..SENT };
        for (answer, expected) in [
            (named, &refused),
            (answer(400, true, "InvalidCompressType"), &refused),
            (answer(406, true, ""), &refused),
            (answer(415, true, ""), &refused),
            (answer(415, true, "BornTomorrow"), &refused),
            (answer(415, true, "InvalidContentType"), &retry(Other)),
            (answer(415, false, ""), &retry(Unverified)),
            (answer(400, true, "ParameterInvalid"), &retry(Other)),
            (answer(400, false, "InvalidCompressType"), &retry(Other)),
        ] {
            assert_eq!(&Verdict::of_load(&answer, zstd, true), expected, "{answer:?}");
            let lz4 = Verdict::of_load(&answer, SENT, true);
            assert!(matches!(lz4, Verdict::Retry { .. }), "{lz4:?}");
        }
    }

    #[test]
    fn only_an_answer_of_the_service_acknowledges() {
        assert_eq!(of(&answer(200, true, ""), true), Verdict::Delivered);
        assert_eq!(of(&answer(200, false, ""), true), retry(Unverified));
        assert_eq!(of(&answer(200, false, ""), false), Verdict::Delivered);
    }

    #[test]
    fn only_an_answer_of_the_service_refuses_for_good() {
        let stranger = answer(400, false, "PostBodyInvalid");
        assert_eq!(of(&stranger, true), retry(Unverified));
        assert_eq!(of(&stranger, false), reject("PostBodyInvalid"));

        assert_eq!(of(&answer(500, true, "PostBodyInvalid"), true), retry(Unverified));
        assert_eq!(of(&answer(400, false, "PostBodyTooLarge"), true), retry(Unverified));
    }

    #[test]
    fn the_wish_to_be_left_alone_is_passed_on() {
        let after = Some(Duration::from_secs(9));

        let busy = Answer { retry_after: after, ..answer(503, true, "ServerBusy") };

        assert_eq!(of(&busy, true), Verdict::Retry { kind: Server, after });
    }

    #[test]
    fn kinds_are_named_as_in_the_metrics() {
        let all =
            [Network, Server, Quota, ShardQuota, Credentials, Missing, Clock, Unverified, Other];
        let names = all.map(|kind| format!("{kind:?}").replace("dQ", "d_q").to_lowercase());

        assert_eq!(names, FAILURE_KINDS);
        assert_eq!(all.map(FailureKind::name), FAILURE_KINDS);
    }
}
