//! An endpoint that costs next to nothing: it reads requests, counts, and answers 200.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

/// What has come so far. Its threads end with the process.
#[derive(Clone, Default)]
pub(crate) struct Sink {
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    requests: AtomicU64,
    raw_bytes: AtomicU64,
    body_bytes: AtomicU64,
}

impl Sink {
    pub(crate) fn start() -> (Self, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port of loopback");
        let address = listener.local_addr().expect("it is bound");
        let sink = Self::default();
        let serving = sink.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let sink = serving.clone();
                thread::spawn(move || sink.serve(stream));
            }
        });
        (sink, address)
    }

    pub(crate) fn requests(&self) -> u64 {
        self.counts.requests.load(Ordering::Relaxed)
    }

    /// By the header `x-log-bodyrawsize`.
    pub(crate) fn raw_bytes(&self) -> u64 {
        self.counts.raw_bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn body_bytes(&self) -> u64 {
        self.counts.body_bytes.load(Ordering::Relaxed)
    }

    /// Until the agent closes the connection, or says what this does not understand.
    fn serve(&self, mut stream: TcpStream) -> Option<()> {
        let mut reader = BufReader::new(stream.try_clone().ok()?);
        let mut body = Vec::new();
        loop {
            let (mut length, mut raw) = (0, 0);
            loop {
                let mut line = String::new();
                if reader.read_line(&mut line).ok()? == 0 {
                    return None;
                }
                let Some((name, value)) = line.split_once(':') else {
                    if line == "\r\n" {
                        break;
                    }
                    continue;
                };
                match name {
                    "content-length" => length = value.trim().parse().ok()?,
                    "x-log-bodyrawsize" => raw = value.trim().parse().ok()?,
                    _ => {}
                }
            }
            body.resize(length, 0);
            reader.read_exact(&mut body).ok()?;
            let answer = "HTTP/1.1 200 OK\r\nx-log-requestid: 1\r\ncontent-length: 0\r\n\r\n";
            stream.write_all(answer.as_bytes()).ok()?;
            self.counts.requests.fetch_add(1, Ordering::Relaxed);
            self.counts.raw_bytes.fetch_add(raw, Ordering::Relaxed);
            self.counts.body_bytes.fetch_add(length as u64, Ordering::Relaxed);
        }
    }
}
