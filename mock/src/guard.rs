//! Whose requests the endpoint takes: not those that a web page makes behind its reader's back.
//!
//! A page from anywhere can let its reader's browser send requests to this machine. Two headers, which a
//! page cannot choose, tell: `Host`, when its own name was made to lead here ([`logferry_wire::host`]), and
//! `Origin` (or, where there is none, `Sec-Fetch-Site`), when it asks across.
//!
//! | | `Host` | `Origin`, `Sec-Fetch-Site` |
//! |---|---|---|
//! | the page and `/mock/…` | no name that a stranger can own | none, or this place |
//! | the service's interface | any: projects stand in it | none, or this place |

use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use serde_json::json;

use super::answer;
use logferry_wire::host::is_foreign;

/// Lets a request to the mock's own interface pass, or refuses it.
pub(super) async fn own(request: Request, next: Next) -> Response {
    if let [host, ..] = foreign_hosts(request.headers()).as_slice() {
        return refuse(&format!(
            "Host {host} is a name that anybody can point here; ask for an address, localhost or a \
             name of the cluster"
        ));
    }
    next.run(request).await
}

/// Lets any request pass, or refuses what a web page of another place has sent.
pub(super) async fn any(request: Request, next: Next) -> Response {
    if is_from_another_place(request.headers(), request.method().is_safe()) {
        return refuse("the request comes from a web page of another place (Origin)");
    }
    next.run(request).await
}

fn foreign_hosts(headers: &HeaderMap) -> Vec<String> {
    let hosts = headers.get_all(header::HOST).iter();
    let hosts =
        hosts.map(|host| String::from_utf8_lossy(host.as_bytes()).escape_debug().to_string());
    hosts.filter(|host| is_foreign(host)).collect()
}

fn is_from_another_place(headers: &HeaderMap, is_safe: bool) -> bool {
    let text =
        |value: &header::HeaderValue| String::from_utf8_lossy(value.as_bytes()).to_lowercase();
    let host = headers.get(header::HOST).map(text).unwrap_or_default();
    let mut origins = headers.get_all(header::ORIGIN).iter().map(text).peekable();
    if origins.peek().is_some() {
        let is_here = |origin: String| {
            origin.split_once("://").is_some_and(|(_, place)| !place.is_empty() && place == host)
        };
        return !origins.all(is_here);
    }
    // A link to the page may stand anywhere.
    let sites = headers.get_all("sec-fetch-site").iter().map(text);
    !is_safe && sites.into_iter().any(|site| !matches!(site.as_str(), "same-origin" | "none"))
}

fn refuse(why: &str) -> Response {
    let kind = [(header::CONTENT_TYPE, answer::JSON)];
    (StatusCode::FORBIDDEN, kind, json!({ "error": why }).to_string()).into_response()
}
