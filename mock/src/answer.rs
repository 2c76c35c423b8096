//! What goes back to the client: the headers every answer carries, and errors with their status.
//!
//! Pure: it refuses to decide anything; it only says it in the service's form.

use std::borrow::Cow;

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, DATE, RETRY_AFTER, SERVER};
use axum::response::Response;

use logferry_wire::content_md5;

/// Media type of JSON bodies.
pub(super) const JSON: &str = "application/json";

/// A request the endpoint did not carry out, in the service's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// HTTP status.
    pub(super) status: u16,
    /// The service's `errorCode`.
    pub(super) code: Cow<'static, str>,
    /// The service's `errorMessage`.
    pub(super) message: String,
    /// Seconds for the header `Retry-After`.
    pub(super) retry_after: Option<u64>,
}

impl Refusal {
    /// A refusal with the status that the service documents for `code`.
    pub(super) fn new(code: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        let code = code.into();
        let status = status_of(&code);
        Self { status, code, message: message.into(), retry_after: None }
    }
}

/// The documented HTTP status of an error code; 400 for one that is not in the table.
pub(super) fn status_of(code: &str) -> u16 {
    match code {
        "SignatureNotMatch" | "Unauthorized" | "InvalidAccessKeyId" => 401,
        "WriteQuotaExceed"
        | "ShardWriteQuotaExceed"
        | "ReadQuotaExceed"
        | "ShardReadQuotaExceed"
        | "ProjectQuotaExceed"
        | "ProjectForbidden" => 403,
        "ProjectNotExist" | "ProjectNotExists" | "LogStoreNotExist" | "ShardNotExist"
        | "ResourceNotExist" => 404,
        "MethodNotAllowed" => 405,
        "MissingContentLength" => 411,
        "InvalidContentType" => 415,
        "InternalServerError" => 500,
        "ServerBusy" => 503,
        _ => 400,
    }
}

/// A request that was carried out.
#[derive(Clone, Debug, Default)]
pub(super) struct Answer {
    /// Headers besides those of every answer.
    pub(super) headers: Vec<(&'static str, String)>,
    /// The body as it is sent.
    pub(super) body: Vec<u8>,
}

impl Answer {
    /// An answer with a JSON body.
    pub(super) fn json(value: &serde_json::Value) -> Self {
        Self {
            headers: vec![(CONTENT_TYPE.as_str(), JSON.to_owned())],
            body: value.to_string().into_bytes(),
        }
    }

    /// Adds a header.
    pub(super) fn with(mut self, name: &'static str, value: impl ToString) -> Self {
        self.headers.push((name, value.to_string()));
        self
    }
}

/// The HTTP response for an outcome: with request id, server time, `Date`, and the body's MD5.
pub(super) fn respond(
    outcome: Result<Answer, Refusal>,
    request_id: &str,
    unix_seconds: i64,
) -> Response {
    let (status, answer) = match outcome {
        Ok(answer) => (200, answer),
        Err(refusal) => {
            let body = serde_json::json!({
                "errorCode": refusal.code, "errorMessage": refusal.message,
            });
            let answer = Answer::json(&body);
            let answer = match refusal.retry_after {
                Some(seconds) => answer.with(RETRY_AFTER.as_str(), seconds),
                None => answer,
            };
            (refusal.status, answer)
        }
    };
    let mut response = Response::builder()
        .status(status)
        .header(SERVER, "logferry-mock")
        .header(DATE, http_date(unix_seconds))
        .header("x-log-requestid", request_id)
        .header("x-log-time", unix_seconds);
    if !answer.body.is_empty() {
        response = response.header("content-md5", content_md5(&answer.body));
    }
    for (name, value) in answer.headers {
        response = response.header(name, value);
    }
    // A fault may name a status that is none.
    response.body(Body::from(answer.body)).unwrap_or_else(|_| {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = axum::http::StatusCode::INTERNAL_SERVER_ERROR;
        response
    })
}

/// `Tue, 14 Nov 2023 22:13:20 GMT`.
pub(super) fn http_date(unix_seconds: i64) -> String {
    let timestamp =
        jiff::Timestamp::from_second(unix_seconds).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    jiff::fmt::rfc2822::DateTimePrinter::new()
        .timestamp_to_rfc9110_string(&timestamp)
        .unwrap_or_default()
}
