//! The endpoint over real sockets, asked by a client that is written here and sends what it is
//! told, right or wrong.

mod faults;
mod guard;
mod life;
mod put;
mod read;

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use prost::Message as _;

use super::{Access, Background, Key, Options};
use logferry_wire::sign::{self, Parts};
use logferry_wire::sls_logs::{Log, LogGroup, LogTag, log::Content};
use logferry_wire::{Compression, content_md5, hex_lower};

/// Longer than anything here takes; an answer that is later counts as none.
const PATIENCE: Duration = Duration::from_secs(20);

fn start() -> Background {
    Background::start(Options::default()).unwrap()
}

fn key() -> Key {
    "test-access-key-id:test-access-key-secret".parse().unwrap()
}

fn start_signed() -> Background {
    let access = Access { keys: vec![key()], ..Access::default() };
    Background::start(Options { access, ..Options::default() }).unwrap()
}

fn unix_now() -> u32 {
    u32::try_from(logferry_clock::wall().as_secs()).unwrap()
}

/// A LogGroup with these lines, now.
fn group_of(lines: &[&[u8]]) -> LogGroup {
    let log = |line: &&[u8]| Log {
        time: unix_now(),
        contents: vec![Content { key: "content".to_owned(), value: line.to_vec() }],
        time_ns: None,
    };
    LogGroup {
        logs: lines.iter().map(log).collect(),
        topic: Some("a topic".to_owned()),
        source: Some("10.7.0.37".to_owned()),
        log_tags: [("__path__", "/share/logs/app.log"), ("_pod_name_", "app-5fqrl")]
            .map(|(key, value)| LogTag { key: key.to_owned(), value: value.into() })
            .to_vec(),
        ..LogGroup::default()
    }
}

fn compressed(raw: &[u8], compression: Compression) -> Vec<u8> {
    match compression {
        Compression::None => raw.to_vec(),
        Compression::Lz4 => lz4_flex::block::compress(raw),
        Compression::Zstd => zstd::bulk::compress(raw, 1).unwrap(),
    }
}

/// A request to be sent. Starts as one that the endpoint takes; tests spoil it.
#[derive(Clone)]
struct Ask {
    method: &'static str,
    path: String,
    query: Vec<(String, String)>,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Ask {
    /// An unsigned PutLogs of this group.
    fn put(group: &LogGroup, compression: Compression) -> Self {
        Self::put_raw(&group.encode_to_vec(), compression)
    }

    /// An unsigned PutLogs of these bytes.
    fn put_raw(raw: &[u8], compression: Compression) -> Self {
        let mut ask = Self::new("POST", "/logstores/test-logstore/shards/lb");
        ask.body = compressed(raw, compression);
        let ask = ask
            .with("content-type", "application/x-protobuf")
            .with("x-log-bodyrawsize", &raw.len().to_string());
        match compression.header() {
            Some(name) => ask.with("x-log-compresstype", name),
            None => ask,
        }
    }

    fn get(path: &str, query: &[(&str, &str)]) -> Self {
        let mut ask = Self::new("GET", path).with("x-log-bodyrawsize", "0");
        ask.query = query.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        ask
    }

    fn new(method: &'static str, path: &str) -> Self {
        let date = super::answer::http_date(unix_now().into());
        let ask = Self {
            method,
            path: path.to_owned(),
            query: Vec::new(),
            headers: Vec::new(),
            body: Vec::new(),
        };
        ask.with("host", "test-project.127.0.0.1")
            .with("date", &date)
            .with("x-log-apiversion", "0.6.0")
    }

    fn at(mut self, path: &str, query: &[(&str, &str)]) -> Self {
        path.clone_into(&mut self.path);
        self.query = query.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        self
    }

    fn with(self, name: &str, value: &str) -> Self {
        let mut ask = self.without(name);
        ask.headers.push((name.to_owned(), value.to_owned()));
        ask
    }

    fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(key, _)| key != name);
        self
    }

    /// Adds `Content-MD5` if it belongs and is not there.
    fn digested(self) -> Self {
        let has_one = self.headers.iter().any(|(name, _)| name == "content-md5");
        if self.body.is_empty() || has_one {
            return self;
        }
        let md5 = content_md5(&self.body);
        self.with("content-md5", &md5)
    }

    fn signed_v1(self, key: &Key) -> Self {
        let ask = self.digested().with("x-log-signaturemethod", "hmac-sha1");
        let authorization = sign::authorization_v1(&ask.parts(), &key.id, &key.secret);
        ask.with("authorization", &authorization)
    }

    fn signed_v4(self, key: &Key) -> Self {
        use sha2::Digest as _;
        let date = jiff::Timestamp::from_second(unix_now().into()).unwrap();
        let sha = hex_lower(&sha2::Sha256::digest(&self.body));
        let ask = self
            .without("date")
            .with("x-log-date", &date.strftime("%Y%m%dT%H%M%SZ").to_string())
            .with("x-log-content-sha256", &sha);
        let authorization =
            sign::authorization_v4(&ask.parts(), "cn-hangzhou", &key.id, &key.secret);
        ask.with("authorization", &authorization)
    }

    fn parts(&self) -> Parts<'_> {
        Parts { method: self.method, path: &self.path, query: &self.query, headers: &self.headers }
    }

    fn bytes(&self) -> Vec<u8> {
        let pairs: Vec<String> = self.query.iter().map(|(k, v)| format!("{k}={v}")).collect();
        let question = if pairs.is_empty() { "" } else { "?" };
        let target = format!("{}{question}{}", self.path, pairs.join("&"));
        let mut text = format!("{} {target} HTTP/1.1\r\n", self.method);
        for (name, value) in &self.headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        if self.method != "GET" && !text.contains("transfer-encoding") {
            text.push_str(&format!("content-length: {}\r\n", self.body.len()));
        }
        if !text.contains("connection: ") {
            text.push_str("connection: close\r\n");
        }
        text.push_str("\r\n");
        [text.as_bytes(), &self.body].concat()
    }

    /// Sends it, with a digest where it needs one, and reads until the endpoint closes.
    fn send(&self, to: SocketAddr) -> io::Result<Reply> {
        let mut stream = TcpStream::connect(to)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(&self.clone().digested().bytes())?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Reply::of(&answer)
    }

    /// The code of the refusal that the endpoint answers with; empty for a 200.
    fn code(&self, to: SocketAddr) -> String {
        let reply = self.send(to).unwrap();
        if reply.status == 200 {
            return String::new();
        }
        let body: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
        assert!(body["errorMessage"].is_string(), "{body}");
        let code = body["errorCode"].as_str().unwrap().to_owned();
        assert_eq!(reply.status, super::answer::status_of(&code), "{code}");
        reply.check_common();
        code
    }
}

/// What came back.
#[derive(Debug)]
struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Reply {
    fn of(bytes: &[u8]) -> io::Result<Self> {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
        let end = end.ok_or(io::ErrorKind::UnexpectedEof)?;
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers = lines
            .map(|line| {
                let (name, value) = line.split_once(':').unwrap();
                (name.to_ascii_lowercase(), value.trim().to_owned())
            })
            .collect();
        Ok(Self { status, headers, body: bytes[end + 4..].to_vec() })
    }

    fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
    }

    fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// What every answer of the service has.
    fn check_common(&self) {
        let id = self.header("x-log-requestid");
        assert!(id.len() == 24 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id:?}");
        let time: u32 = self.header("x-log-time").parse().unwrap();
        assert!(unix_now().abs_diff(time) < 60, "{time}");
        assert_eq!(self.header("date"), super::answer::http_date(time.into()));
        let md5 = if self.body.is_empty() { String::new() } else { content_md5(&self.body) };
        assert_eq!(self.header("content-md5"), md5);
    }
}
