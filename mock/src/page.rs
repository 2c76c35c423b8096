//! The page at `/` and the mock's own interface under `/mock/`.
//!
//! | request | does |
//! |---|---|
//! | `GET /` | the page: counts and the newest lines |
//! | `GET /mock/stats` | all counts |
//! | `GET /mock/lines?limit=100` | the newest lines, oldest first |
//! | `GET /mock/lines?after=N&limit=100` | the lines after line number N, oldest first |
//! | `GET /mock/faults` | the faults and how often they played |
//! | `PUT /mock/faults` | replaces them by a fault or a list of faults |
//! | `POST /mock/faults` | adds a fault or a list of faults |
//! | `DELETE /mock/faults` | removes them |
//!
//! Web pages of other places are refused (see [`super::guard`]). The page loads nothing from elsewhere,
//! and puts what was logged into the document as text only.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Deserialize;
use serde_json::{Value, json};

use super::accepted::Group;
use super::fault::Fault;
use super::{Endpoint, answer};

/// Most lines in one answer of `/mock/lines`.
const LINES_MAX: u64 = 1000;

/// Nothing but the page's own script, style, icon and requests.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
                      connect-src 'self'";

/// The routes of this module.
pub(super) fn routes() -> Router<Arc<Endpoint>> {
    Router::new()
        .route("/", get(|| asset("text/html; charset=utf-8", include_str!("page.html"))))
        .route("/mock/page.css", get(|| asset("text/css", include_str!("page.css"))))
        .route("/mock/page.svg", get(|| asset("image/svg+xml", include_str!("page.svg"))))
        .route("/mock/page.js", get(|| asset("text/javascript", include_str!("page.js"))))
        .route("/mock/stats", get(stats))
        .route("/mock/lines", get(lines))
        .route("/mock/faults", get(list).put(replace).post(add).delete(clear))
}

type Served = State<Arc<Endpoint>>;

async fn asset(kind: &'static str, text: &'static str) -> impl IntoResponse {
    ([(CONTENT_TYPE, kind), (CONTENT_SECURITY_POLICY, POLICY), (CACHE_CONTROL, "no-cache")], text)
}

async fn stats(State(endpoint): Served) -> Response {
    json_response(StatusCode::OK, &json!(endpoint.store().counts()))
}

/// Parameters of `/mock/lines`.
#[derive(Debug, Deserialize)]
struct Which {
    after: Option<u64>,
    limit: Option<u64>,
}

async fn lines(State(endpoint): Served, Query(which): Query<Which>) -> Response {
    let limit = which.limit.unwrap_or(100).min(LINES_MAX);
    let store = endpoint.store();
    let total = store.line_count();
    let first = match which.after {
        Some(number) => number.saturating_add(1),
        None => total.saturating_sub(limit),
    };
    let groups = store.since_line(first, limit);
    let lines: Vec<Value> = groups
        .iter()
        .flat_map(|group| lines_of(group))
        .filter(|(number, _)| (first..first.saturating_add(limit)).contains(number))
        .map(|(_, line)| line)
        .collect();
    json_response(StatusCode::OK, &json!({"total": total, "lines": lines}))
}

fn lines_of(group: &Group) -> impl Iterator<Item = (u64, Value)> {
    let text = |pairs: &[(String, Vec<u8>)]| -> Value {
        pairs.iter().map(|(key, value)| json!([key, String::from_utf8_lossy(value)])).collect()
    };
    let tags = text(&group.tags);
    (group.first_line..).zip(group.logs()).map(move |(number, log)| {
        let line = json!({
            "number": number,
            "time": log.time,
            "project": group.project,
            "logstore": group.logstore,
            "topic": group.topic,
            "source": group.source,
            "tags": tags,
            "contents": text(&log.contents),
        });
        (number, line)
    })
}

async fn list(State(endpoint): Served) -> Response {
    json_response(StatusCode::OK, &json!(endpoint.faults().list()))
}

async fn replace(State(endpoint): Served, body: Bytes) -> Response {
    change(&endpoint, &body, |faults| endpoint.faults().set(faults))
}

async fn add(State(endpoint): Served, body: Bytes) -> Response {
    change(&endpoint, &body, |faults| {
        for fault in faults {
            endpoint.faults().add(fault);
        }
    })
}

async fn clear(State(endpoint): Served) -> Response {
    endpoint.faults().clear();
    json_response(StatusCode::OK, &json!([]))
}

fn change(endpoint: &Endpoint, body: &[u8], apply: impl FnOnce(Vec<Fault>)) -> Response {
    match read_faults(body) {
        Ok(faults) => {
            apply(faults);
            json_response(StatusCode::OK, &json!(endpoint.faults().list()))
        }
        Err(error) => json_response(StatusCode::BAD_REQUEST, &json!({"error": error})),
    }
}

/// One fault or a list of them.
fn read_faults(body: &[u8]) -> Result<Vec<Fault>, String> {
    let value: Value = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let values = match value {
        Value::Array(values) => values,
        one => vec![one],
    };
    let read = |value: Value| {
        let fault: Fault = serde_json::from_value(value).map_err(|error| error.to_string())?;
        fault.check().map(|()| fault)
    };
    values.into_iter().map(read).collect()
}

fn json_response(status: StatusCode, value: &Value) -> Response {
    let headers: [(HeaderName, &str); 2] =
        [(CONTENT_TYPE, answer::JSON), (CACHE_CONTROL, "no-store")];
    (status, headers, value.to_string()).into_response()
}
