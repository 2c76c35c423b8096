//! What a running agent says on its admin port.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use super::{Pod, wait_for};

/// The admin port of the agents of a pod.
pub(crate) struct Admin {
    /// Host and port.
    pub(crate) address: String,
}

impl Pod {
    /// Gives the agents that are started from now on an admin port.
    pub(crate) fn listen(&mut self) -> Admin {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("its address").to_string();
        self.set("LOGFERRY_LISTEN", &address);
        Admin { address }
    }
}

impl Admin {
    /// Status code and body of a GET; 0 and nothing while nobody listens.
    pub(crate) fn get(&self, path: &str) -> (u16, String) {
        let Ok(mut stream) = TcpStream::connect(&self.address) else { return (0, String::new()) };
        let address = &self.address;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")
            .expect("the request is taken");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
        let code = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
        (code, body.to_owned())
    }

    /// The value of a metric, named with its labels if it has any: `x_total{reason="y"}`.
    pub(crate) fn metric(&self, name: &str) -> Option<u64> {
        let (_, text) = self.get("/metrics");
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
        value.parse().ok()
    }

    /// Waits until a metric has this value.
    pub(crate) fn expect_metric(&self, name: &str, value: u64) {
        let mut last = None;
        let started = logferry::clock::now();
        while last != Some(value) {
            last = self.metric(name);
            let waited = logferry::clock::now() - started;
            assert!(waited < super::PATIENCE, "{name} is {last:?}, not {value}");
            super::pause(std::time::Duration::from_millis(50));
        }
    }

    /// The status of the agent.
    pub(crate) fn status(&self) -> serde_json::Value {
        serde_json::from_str(&self.get("/status").1).unwrap_or_default()
    }

    /// Waits until the agent is ready: the first discovery is done and the watches are armed.
    pub(crate) fn wait_until_ready(&self) {
        wait_for("readiness", || self.get("/ready").0 == 200);
    }
}
