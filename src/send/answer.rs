//! What an answer of the endpoint says: the few facts that decide what becomes of a batch.
//!
//! Pure, and total: any bytes are an answer. What they mean is [`super::verdict`]'s business.
//! Source: the service's pages on response headers and common error codes.

use std::time::Duration;

use serde::Deserialize;

use crate::base::escape;

/// An answer, reduced to what matters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// `x-log-requestid`: every answer of the service has one, answers of strangers do not.
    pub request_id: Option<String>,
    /// The error of a JSON body in the service's form.
    pub error: Option<ServiceError>,
    /// `Retry-After`: how long the endpoint asks to be left alone.
    pub retry_after: Option<Duration>,
    /// The endpoint's clock, in Unix seconds: `x-log-time`, or else `Date`.
    pub server_unix: Option<i64>,
}

/// An error as the service words it. Both texts are fit for a log line: no control characters, and
/// not long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceError {
    /// For example `PostBodyInvalid`.
    pub code: String,
    /// For a person.
    pub message: String,
}

impl Answer {
    /// Reduces an answer. `header` gives the value of a header by its lower-case name.
    pub fn parse<'h>(
        status: u16,
        header: impl Fn(&'static str) -> Option<&'h str>,
        body: &[u8],
    ) -> Self {
        let request_id = header("x-log-requestid").map(|id| printable(id, 64));
        let date = header("date").and_then(unix_of_date);
        let server_unix = header("x-log-time").and_then(|time| time.trim().parse().ok()).or(date);
        Self {
            status,
            request_id: request_id.filter(|id| !id.is_empty()),
            error: service_error(body),
            retry_after: header("retry-after").and_then(|wish| retry_after(wish, server_unix)),
            server_unix,
        }
    }
}

fn service_error(body: &[u8]) -> Option<ServiceError> {
    #[derive(Deserialize)]
    struct Body {
        #[serde(rename = "errorCode")]
        code: String,
        #[serde(rename = "errorMessage", default)]
        message: String,
    }

    let body: Body = serde_json::from_slice(body).ok()?;
    let code = printable(&body.code, 64);
    let error = ServiceError { code, message: printable(&body.message, 512) };
    (!error.code.is_empty()).then_some(error)
}

/// `Retry-After`: seconds, or a date, which is measured by the clock of whoever wrote it.
fn retry_after(wish: &str, server_unix: Option<i64>) -> Option<Duration> {
    if let Ok(seconds) = wish.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let seconds = unix_of_date(wish)?.saturating_sub(server_unix?);
    Some(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
}

/// Unix seconds of an HTTP date (RFC 9110, `Tue, 14 Nov 2023 22:13:20 GMT`).
fn unix_of_date(date: &str) -> Option<i64> {
    let parser = jiff::fmt::rfc2822::DateTimeParser::new().relaxed_weekday(true);
    Some(parser.parse_timestamp(date.trim()).ok()?.as_second())
}

/// At most `chars_max` characters of a text, blanks in the place of those that act on a terminal.
fn printable(text: &str, chars_max: usize) -> String {
    let blank = |c: char| if escape::is_more_than_seen(c) { ' ' } else { c };
    text.trim().chars().take(chars_max).map(blank).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(status: u16, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let find = |name: &'static str| {
            headers.iter().find(|(key, _)| *key == name).map(|(_, value)| *value)
        };
        Answer::parse(status, find, body)
    }

    #[test]
    fn reads_an_error_of_the_service() {
        let body = br#"{"errorCode":"Unauthorized","errorMessage":"The AccessKey\nis disabled."}"#;
        let headers = [
            ("x-log-requestid", "5F3A"),
            ("date", "Tue, 14 Nov 2023 22:13:20 GMT"),
            ("retry-after", "7"),
        ];

        let answer = parse(401, &headers, body);

        let error = ServiceError {
            code: "Unauthorized".to_owned(),
            message: "The AccessKey is disabled.".to_owned(),
        };
        assert_eq!(
            answer,
            Answer {
                status: 401,
                request_id: Some("5F3A".to_owned()),
                error: Some(error),
                retry_after: Some(Duration::from_secs(7)),
                server_unix: Some(1_700_000_000),
            }
        );
    }

    #[test]
    fn what_is_not_the_services_form_is_no_error_of_the_service() {
        for body in [
            "",
            "<html>502 Bad Gateway</html>",
            "{}",
            "null",
            "[1]",
            r#"{"errorCode":""}"#,
            r#"{"errorCode":7}"#,
            r#"{"error":"PostBodyInvalid"}"#,
            "{\"errorCode\":\"PostBodyInvalid\"",
        ] {
            assert_eq!(parse(500, &[], body.as_bytes()).error, None, "{body}");
        }
    }

    #[test]
    fn the_services_own_time_goes_before_the_date() {
        let headers = [("x-log-time", "1700000123"), ("date", "Tue, 14 Nov 2023 22:13:20 GMT")];

        assert_eq!(parse(200, &headers, b"").server_unix, Some(1_700_000_123));
        assert_eq!(parse(200, &[("date", "yesterday")], b"").server_unix, None);
    }

    #[test]
    fn a_date_to_retry_at_is_measured_by_the_servers_clock() {
        let date = ("date", "Tue, 14 Nov 2023 22:13:20 GMT");
        let at = |wish| parse(503, &[date, ("retry-after", wish)], b"").retry_after;

        assert_eq!(at("Tue, 14 Nov 2023 22:13:50 GMT"), Some(Duration::from_secs(30)));
        assert_eq!(at("Tue, 14 Nov 2023 22:13:00 GMT"), Some(Duration::ZERO));
        assert_eq!(at("soon"), None);
        assert_eq!(at("-5"), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_answer(
            status: u16,
            value in ".{0,80}",
            body in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let answer = Answer::parse(status, |_| Some(&value), &body);

            prop_assert_eq!(answer.status, status);
        }
    }
}
