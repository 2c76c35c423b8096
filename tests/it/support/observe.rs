//! What came of it: the records of a file, the agent's metrics, its saved state.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use logferry_mock::Entry;

use super::{Agent, Pod, run, wait_for};

/// An address of this machine that nobody listens on. Each is given out once, and none of them is among
/// those that the kernel gives to whoever asks for any: until it is used, another scenario could get it.
pub(crate) fn free_address() -> String {
    const PORTS: std::ops::Range<u32> = 12_000..32_000;
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    // Two runs of the tests at once begin in different places.
    let first = std::process::id().wrapping_mul(97);
    loop {
        let number = first.wrapping_add(GIVEN.fetch_add(1, Ordering::Relaxed));
        let port = PORTS.start + number % (PORTS.end - PORTS.start);
        let address = format!("127.0.0.1:{port}");
        if TcpListener::bind(&address).is_ok() {
            return address;
        }
    }
}

/// Status code and body of a GET; 0 and nothing where nobody listens.
pub(crate) fn get(address: &str, path: &str) -> (u16, String) {
    let Ok(mut stream) = TcpStream::connect(address) else { return (0, String::new()) };
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

/// The value of a series, written as in the text: `logferry_skipped_bytes_total{reason="hole"}`.
pub(crate) fn metric(address: &str, series: &str) -> Option<u64> {
    let (_, text) = get(address, "/metrics");
    let mut lines = text.lines();
    lines.find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
}

/// Waits until a series, which must be there from the start, has this value.
pub(crate) fn wait_for_metric(address: &str, series: &str, value: u64) {
    wait_for("the admin port", || get(address, "/live").0 == 200);
    let mut last = None;
    let started = logferry::base::clock::now();
    while last != Some(value) {
        last = metric(address, series);
        assert!(last.is_some(), "there is no {series}");
        let waits = logferry::base::clock::now() - started;
        assert!(waits < super::PATIENCE, "{series} is {last:?}, and should be {value}");
        super::pause(std::time::Duration::from_millis(50));
    }
}

impl Pod {
    /// Gives the agents an admin port; returns its address.
    pub(crate) fn listen(&mut self) -> String {
        let address = free_address();
        self.set("LOGFERRY_LISTEN", &address);
        address
    }

    /// The records that arrived from a file, by the path that the agent gives it, in the order of
    /// the file: groups by their number in the pack id, lives of the agent by their first arrival.
    /// Each record must have `content` and nothing else.
    pub(crate) fn records_of(&self, path: &str) -> Vec<Vec<u8>> {
        let path = self.path(path).display().to_string();
        let mut groups = Vec::new();
        let mut lives = HashMap::new();
        for group in self.mock.store().groups() {
            if group.tag("__path__").as_ref() != Some(&path) {
                continue;
            }
            let id = group.tag("__pack_id__").expect("a pack id");
            let (life, number) = id.rsplit_once('-').expect("a number in the pack id");
            let number = u64::from_str_radix(number, 16).expect("hexadecimal digits");
            let next = lives.len();
            let life = *lives.entry(life.to_owned()).or_insert(next);
            groups.push((life, number, group));
        }
        groups.sort_by_key(|(life, number, _)| (*life, *number));
        let entries = groups.iter().flat_map(|(_, _, group)| group.logs());
        entries.map(content).collect()
    }

    /// Waits until as many records have arrived as should, stops the agent, which must have
    /// delivered everything, and compares those of `share/logs/app.log` byte for byte.
    pub(crate) fn finish_records<R: AsRef<[u8]>>(&self, agent: Agent, expected: &[R]) {
        self.await_records(expected.len());
        assert_eq!(agent.stop().0, 0, "{}", self.agent_log());
        expect_same(&self.records_of("share/logs/app.log"), expected);
    }

    /// Waits until so many records have arrived, of all files together; in vain only when nothing
    /// comes any more.
    pub(crate) fn await_records(&self, count: usize) {
        let arrived = || self.mock.store().line_count();
        let mut before = arrived();
        while before < count as u64 {
            wait_for(&format!("{count} records; {before} came"), || arrived() > before);
            before = arrived();
        }
    }

    /// Waits until the state directory holds an acknowledged offset for a file.
    pub(crate) fn await_saved(&self, path: &str, offset: u64) {
        let mut env = self.environment();
        env.insert("LOGFERRY_LISTEN".to_owned(), String::new());
        let path = self.path(path).display().to_string();
        wait_for(&format!("offset {offset} to be saved"), || {
            let (_, text, _) = run(&["status", "--json"], &env);
            let status: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
            let files = status["files"].as_array().cloned().unwrap_or_default();
            files.iter().any(|file| file["path"] == path && file["acked_offset"] == offset)
        });
    }

    /// How often the agents of this pod have logged this message.
    pub(crate) fn times_logged(&self, message: &str) -> usize {
        self.agent_log().matches(message).count()
    }
}

fn content(entry: Entry) -> Vec<u8> {
    let keys: Vec<&str> = entry.contents.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(keys, ["content"]);
    entry.line()
}

/// Compares records and says where they differ first, without printing megabytes.
pub(crate) fn expect_same<R: AsRef<[u8]>>(arrived: &[Vec<u8>], expected: &[R]) {
    let text = |bytes: &[u8]| {
        let shown = &bytes[..bytes.len().min(120)];
        format!("{} bytes: \"{}\"", bytes.len(), shown.escape_ascii())
    };
    for (at, (arrived, expected)) in arrived.iter().zip(expected).enumerate() {
        let expected = expected.as_ref();
        assert!(
            arrived == expected,
            "record {at} is {}\nand should be {}",
            text(arrived),
            text(expected)
        );
    }
    let missing = expected.get(arrived.len()).map(|record| text(record.as_ref()));
    let surplus = arrived.get(expected.len()).map(|record| text(record));
    assert_eq!((missing, surplus), (None, None), "the first record missing, or too many");
}

/// The lines of some text as the contract has them: without `\n` or `\r\n`, exactly as written
/// otherwise; nothing behind the last line end.
pub(crate) fn lines_of(text: &[u8]) -> Vec<&[u8]> {
    let mut lines: Vec<&[u8]> = text.split(|&byte| byte == b'\n').collect();
    assert_eq!(lines.pop(), Some(&b""[..]), "the text ends with a line end");
    lines.into_iter().map(|line| line.strip_suffix(b"\r").unwrap_or(line)).collect()
}

/// Appends bytes to a file as an app does: one write.
pub(crate) fn append_bytes(path: &Path, bytes: &[u8]) {
    super::append_to(path).write_all(bytes).expect("the app can write");
}
