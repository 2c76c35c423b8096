//! A request as the service sees it: names, query, body, and which operation on which project.
//!
//! Refuses to judge: headers and signatures are looked at in `verify`.

use axum::body::Bytes;
use axum::extract::Request;
use axum::http::Method;

use super::answer::Refusal;

/// Bytes of a body that are read at all. What the service takes is far below.
const BODY_BYTES_MAX: usize = 64 << 20;

/// One request, read to its end.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    /// `GET`, `POST`…
    pub(super) method: Method,
    /// Path, without query.
    pub(super) path: String,
    /// Query pairs, decoded.
    pub(super) query: Vec<(String, String)>,
    /// Headers, names in lower case.
    pub(super) headers: Vec<(String, String)>,
    /// Body as it was sent.
    pub(super) body: Bytes,
}

impl Asked {
    /// Reads head and body.
    pub(super) async fn read(request: Request) -> Result<Self, Refusal> {
        let (head, body) = request.into_parts();
        let headers: Vec<(String, String)> = head
            .headers
            .iter()
            .map(|(name, value)| {
                (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
            })
            .collect();
        let body = axum::body::to_bytes(body, BODY_BYTES_MAX).await.map_err(|error| {
            Refusal::new("PostBodyTooLarge", format!("the body cannot be read: {error}"))
        })?;
        let asked = Self {
            query: decode_query(head.uri.query().unwrap_or_default()),
            path: head.uri.path().to_owned(),
            method: head.method,
            headers,
            body,
        };
        if asked.method == Method::POST && asked.header("content-length").is_none() {
            return Err(Refusal::new(
                "MissingContentLength",
                "Content-Length does not exist in http header when it is necessary.",
            ));
        }
        Ok(asked)
    }

    /// The value of a header, by its lower-case name.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The value of a query parameter.
    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The project: `x-log-project`, or the first label of the host.
    pub(super) fn project(&self) -> Result<String, Refusal> {
        if let Some(project) = self.header("x-log-project").filter(|name| !name.is_empty()) {
            return Ok(project.to_owned());
        }
        let host = self
            .header("host")
            .filter(|host| !host.is_empty())
            .ok_or_else(|| Refusal::new("MissingHost", "Host does not exist in http header."))?;
        let is_address = host.starts_with('[')
            || host.parse::<std::net::IpAddr>().is_ok()
            || host.parse::<std::net::SocketAddr>().is_ok();
        match host.split_once('.') {
            Some((project, rest)) if !is_address && !project.is_empty() && !rest.is_empty() => {
                Ok(project.to_owned())
            }
            _ => Err(Refusal::new(
                "InvalidHost",
                format!("Host {host} names no project; send {{project}}.{host} or x-log-project."),
            )),
        }
    }
}

/// What a request wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    /// PutLogs.
    Put {
        /// Where to.
        logstore: String,
        /// False for `/shards/lb` (a shard of the service's choice), true for `/shards/route` (the
        /// one of a hash key).
        routed: bool,
    },
    /// Any other; nothing is changed by it.
    Read(Reading),
}

/// What a request wants to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    /// GetCursor, cursor time or PullLogs, by the parameter `type`.
    Shard { logstore: String, shard: String },
    /// ListShards.
    Shards { logstore: String },
    /// GetLogStore or, with `type=log`, GetLogs of the old form.
    Logstore { logstore: String },
    /// GetLogs of the new form: JSON in, JSON with metadata out.
    Query { logstore: String },
    /// ListLogStores.
    Logstores,
}

impl Operation {
    /// The operation that method and path name.
    pub(super) fn of(asked: &Asked) -> Result<Self, Refusal> {
        let parts: Vec<&str> = asked.path.split('/').skip(1).collect();
        let logstore = parts.get(1).copied().unwrap_or_default().to_owned();
        let operation = match (asked.method.as_str(), parts.as_slice()) {
            ("POST", ["logstores", _, "shards", "lb"]) => Self::Put { logstore, routed: false },
            ("POST", ["logstores", _, "shards", "route"]) => Self::Put { logstore, routed: true },
            ("POST", ["logstores", _, "logs"]) => Self::Read(Reading::Query { logstore }),
            ("GET", ["logstores"]) => Self::Read(Reading::Logstores),
            ("GET", ["logstores", _]) => Self::Read(Reading::Logstore { logstore }),
            ("GET", ["logstores", _, "shards"]) => Self::Read(Reading::Shards { logstore }),
            ("GET", ["logstores", _, "shards", shard]) => {
                Self::Read(Reading::Shard { logstore, shard: (*shard).to_owned() })
            }
            _ => {
                return Err(Refusal::new(
                    "ResourceNotExist",
                    format!("this endpoint has no {} {}", asked.method, asked.path),
                ));
            }
        };
        Ok(operation)
    }

    /// The logstore, where there is one.
    pub(super) fn logstore(&self) -> Option<&str> {
        match self {
            Self::Put { logstore, .. } => Some(logstore),
            Self::Read(reading) => reading.logstore(),
        }
    }
}

impl Reading {
    /// The logstore, where there is one.
    pub(super) fn logstore(&self) -> Option<&str> {
        match self {
            Self::Shard { logstore, .. }
            | Self::Shards { logstore }
            | Self::Logstore { logstore }
            | Self::Query { logstore } => Some(logstore),
            Self::Logstores => None,
        }
    }
}

fn decode_query(query: &str) -> Vec<(String, String)> {
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode_component(key), decode_component(value))
        })
        .collect()
}

/// Undoes form encoding: `+` is a space, `%XX` a byte. A `%` without two digits stays.
fn decode_component(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let digits = bytes.get(at + 1..at + 3).and_then(|pair| std::str::from_utf8(pair).ok());
        match (bytes[at], digits.and_then(|pair| u8::from_str_radix(pair, 16).ok())) {
            (b'%', Some(byte)) => {
                decoded.push(byte);
                at += 2;
            }
            (b'+', _) => decoded.push(b' '),
            (byte, _) => decoded.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod unit {
    use super::*;

    fn asked(headers: &[(&str, &str)]) -> Asked {
        Asked {
            method: Method::GET,
            path: "/".to_owned(),
            query: Vec::new(),
            headers: headers.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            body: Bytes::new(),
        }
    }

    #[test]
    fn query_is_form_decoded() {
        assert_eq!(
            decode_query("a=1+2&b=%E6%97%A5%2B&c&d=%zz"),
            [("a", "1 2"), ("b", "日+"), ("c", ""), ("d", "%zz")]
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
        );
    }

    #[test]
    fn project_comes_from_the_host_or_its_header() {
        for (host, expected) in [
            ("p1.cn-hangzhou.log.aliyuncs.com", Some("p1")),
            ("p1.127.0.0.1:9200", Some("p1")),
            ("p1.localhost", Some("p1")),
            ("127.0.0.1", None),
            ("127.0.0.1:9200", None),
            ("localhost:9200", None),
            ("[::1]:9200", None),
        ] {
            let project = asked(&[("host", host)]).project();
            assert_eq!(project.as_deref().ok(), expected, "{host}");
            let named = asked(&[("host", host), ("x-log-project", "p2")]).project();
            assert_eq!(named.as_deref(), Ok("p2"), "{host}");
        }
        assert_eq!(asked(&[]).project().unwrap_err().code, "MissingHost");
    }
}
