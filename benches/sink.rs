//! An endpoint that costs next to nothing: it reads requests, counts, and answers 200. If asked to, it
//! then also looks for the marks that [`crate::stream`] puts into what it writes.

use std::io::{BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use logferry::base::clock;
use logferry::batch::compress;
use logferry_wire::Compression;
use logferry_wire::sls_logs::SlsLogPackageList;
use prost::Message as _;

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
    arrivals: Mutex<Vec<Arrival>>,
    looks_for_marks: bool,
}

/// A mark, with the wall-clock times of its writing and of its coming here.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    pub(crate) written: Duration,
    pub(crate) arrived: Duration,
}

/// The head of a request, as far as it matters here.
#[derive(Default)]
struct Head {
    length: usize,
    raw: usize,
    is_list: bool,
}

impl Sink {
    pub(crate) fn start() -> (Self, SocketAddr) {
        Self::serving(Self::default())
    }

    /// The same, with [`Self::arrivals`].
    pub(crate) fn looking_for_marks() -> (Self, SocketAddr) {
        let counts = Counts { looks_for_marks: true, ..Counts::default() };
        Self::serving(Self { counts: Arc::new(counts) })
    }

    fn serving(self) -> (Self, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port of loopback");
        let address = listener.local_addr().expect("it is bound");
        let serving = self.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let sink = serving.clone();
                thread::spawn(move || sink.serve(stream));
            }
        });
        (self, address)
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

    /// All marks so far.
    pub(crate) fn arrivals(&self) -> Vec<Arrival> {
        self.counts.arrivals.lock().expect("nobody panics with it").clone()
    }

    /// Until the agent closes the connection, or says what this does not understand.
    fn serve(&self, mut stream: TcpStream) -> Option<()> {
        let mut reader = BufReader::new(stream.try_clone().ok()?);
        let mut body = Vec::new();
        loop {
            let head = Head::read(&mut reader)?;
            body.resize(head.length, 0);
            reader.read_exact(&mut body).ok()?;
            let arrived = clock::wall();
            let answer = "HTTP/1.1 200 OK\r\nx-log-requestid: 1\r\ncontent-length: 0\r\n\r\n";
            stream.write_all(answer.as_bytes()).ok()?;
            self.counts.requests.fetch_add(1, Ordering::Relaxed);
            self.counts.raw_bytes.fetch_add(head.raw as u64, Ordering::Relaxed);
            self.counts.body_bytes.fetch_add(head.length as u64, Ordering::Relaxed);
            if self.counts.looks_for_marks {
                self.look_for_marks(&head, &body, arrived)?;
            }
        }
    }

    fn look_for_marks(&self, head: &Head, body: &[u8], arrived: Duration) -> Option<()> {
        let unpack = |payload: &[u8], len| compress::decompress(Compression::Lz4, payload, len);
        let mut groups = Vec::new();
        if head.is_list {
            for package in SlsLogPackageList::decode(body).ok()?.packages {
                groups.push(unpack(&package.data, package.uncompress_size?.try_into().ok()?)?);
            }
        } else {
            groups.push(unpack(body, head.raw)?);
        }
        let marks = groups.iter().flat_map(|group| marks(group));
        let arrivals = marks.map(|written| Arrival { written, arrived });
        self.counts.arrivals.lock().expect("nobody panics with it").extend(arrivals);
        Some(())
    }
}

impl Head {
    fn read(reader: &mut impl std::io::BufRead) -> Option<Self> {
        let mut head = Self::default();
        let mut line = String::new();
        loop {
            line.clear();
            if reader.read_line(&mut line).ok()? == 0 {
                return None;
            }
            let Some((name, value)) = line.split_once(':') else {
                if line == "\r\n" {
                    return Some(head);
                }
                continue;
            };
            match name {
                "content-length" => head.length = value.trim().parse().ok()?,
                "x-log-bodyrawsize" => head.raw = value.trim().parse().ok()?,
                "x-log-mode" => head.is_list = true,
                _ => {}
            }
        }
    }
}

/// Bytes of a mark.
pub(crate) const MARK_BYTES: usize = 18;

/// `@` and a time in microseconds and `@`. No other text of the benches holds an `@`.
pub(crate) fn mark(time: Duration) -> [u8; MARK_BYTES] {
    let text = format!("@{:016}@", time.as_micros());
    text.as_bytes().try_into().expect("16 digits hold the microseconds of three centuries")
}

fn marks(text: &[u8]) -> impl Iterator<Item = Duration> {
    memchr::memchr_iter(b'@', text).filter_map(|at| {
        let mark = text.get(at..at + MARK_BYTES)?;
        let digits = mark.strip_prefix(b"@")?.strip_suffix(b"@")?;
        Some(Duration::from_micros(std::str::from_utf8(digits).ok()?.parse().ok()?))
    })
}
