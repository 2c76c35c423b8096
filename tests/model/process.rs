//! The agent's process, and what it says of itself on its admin port.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::support::{Agent, Pod};

/// Of the admin port, and of the endpoint: below those that the system gives away.
pub(crate) const ADMIN_PORT: u16 = 19_465;
pub(crate) const ENDPOINT_PORT: u16 = 19_464;

/// A running agent.
pub(crate) struct Process {
    pub(crate) agent: Agent,
    address: SocketAddr,
}

/// What the agent says of one file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FileStatus {
    pub(crate) device: u64,
    pub(crate) inode: u64,
    pub(crate) read_offset: u64,
    pub(crate) acked_offset: u64,
}

/// An address for the endpoint and the agents of one seed, in a part of 127.0.0.0/8 that nobody
/// else uses.
pub(crate) fn new_host() -> Ipv4Addr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let host = (std::process::id() << 12).wrapping_add(number) & 0x007f_ffff;
    Ipv4Addr::from(0x7f80_0000 | host)
}

impl Process {
    /// Starts one. As root it is given no right to pass over the modes of files.
    pub(crate) fn start(pod: &Pod, address: SocketAddr) -> Self {
        let binary = env!("CARGO_BIN_EXE_logferry");
        let command = if rustix::process::geteuid().is_root() && has_setpriv() {
            let mut command = Command::new("setpriv");
            command.args(RIGHTS).arg(binary);
            command
        } else {
            Command::new(binary)
        };
        let agent = Agent::spawn(command, &pod.environment(), &pod.path("agent.log"));
        Self { agent, address }
    }

    /// Body of a GET; `None` while nobody answers.
    fn get(&self, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(self.address).ok()?;
        let host = self.address;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        head.starts_with("HTTP/1.1 200").then(|| body.to_owned())
    }

    /// The files as the agent has them open; `None` while it does not answer.
    pub(crate) fn files(&self) -> Option<Vec<FileStatus>> {
        let status: serde_json::Value = serde_json::from_str(&self.get("/status")?).ok()?;
        let files = status["files"].as_array()?.iter();
        let is_open = |file: &&serde_json::Value| {
            ["active", "rotated", "deleted"].iter().any(|state| file["state"] == *state)
        };
        let number = |file: &serde_json::Value, key: &str| file[key].as_u64();
        let read = files.filter(is_open).map(|file| {
            Some(FileStatus {
                device: number(file, "device")?,
                inode: number(file, "inode")?,
                read_offset: number(file, "read_offset")?,
                acked_offset: number(file, "acked_offset")?,
            })
        });
        read.collect()
    }

    /// The value of a metric without labels, if there is such a metric.
    pub(crate) fn metric(&self, name: &str) -> Option<f64> {
        let metrics = self.get("/metrics")?;
        let mut lines = metrics.lines();
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
    }
}

/// Root without the capabilities that make modes meaningless to it (capabilities(7)).
const RIGHTS: [&str; 2] = ["--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all"];

/// Whether `chmod 000` keeps the agent out.
pub(crate) fn minds_modes() -> bool {
    !rustix::process::geteuid().is_root() || has_setpriv()
}

fn has_setpriv() -> bool {
    static HAS: std::sync::LazyLock<bool> = std::sync::LazyLock::new(|| {
        let status = Command::new("setpriv").args(RIGHTS).arg("true").status();
        status.is_ok_and(|status| status.success())
    });
    *HAS
}
