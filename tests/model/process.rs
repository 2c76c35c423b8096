//! The agent's process, and what it says of itself on its admin port.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::support::{Agent, Pod};

/// Below those that the system gives away.
pub(crate) const ADMIN_PORT: u16 = 19_465;
pub(crate) const ENDPOINT_PORT: u16 = 19_464;
const RESERVATION_PORT: u16 = 19_463;

/// A running agent.
pub(crate) struct Process {
    pub(crate) agent: Agent,
    address: SocketAddr,
}

/// What the agent last published of itself.
#[derive(Debug)]
pub(crate) struct Status {
    /// Grows: what shows another number than before was published later.
    pub(crate) turns: u64,
    pub(crate) files: Vec<FileStatus>,
}

/// What the agent says of one file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FileStatus {
    pub(crate) device: u64,
    pub(crate) inode: u64,
    pub(crate) read_offset: u64,
    pub(crate) acked_offset: u64,
}

/// An address of 127.0.0.0/8 for the endpoint and the agents of one seed: a port that is free for
/// a while is not taken by another.
pub(crate) struct Host {
    pub(crate) ip: Ipv4Addr,
    /// Keeps other test processes away.
    _reservation: TcpListener,
}

impl Host {
    pub(crate) fn reserve() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let host = (std::process::id() << 12).wrapping_add(number) & 0x007f_ffff;
            let ip = Ipv4Addr::from(0x7f80_0000 | host);
            if let Ok(reservation) = TcpListener::bind((ip, RESERVATION_PORT)) {
                return Self { ip, _reservation: reservation };
            }
        }
    }
}

impl Process {
    /// Starts one, with no right to pass over the modes of files; without notifications if
    /// `is_polling`.
    pub(crate) fn start(pod: &Pod, address: SocketAddr, is_polling: bool) -> Self {
        let mut words: Vec<&str> = Vec::new();
        if is_polling {
            words.extend(WITHOUT_NOTIFICATIONS);
        }
        if is_polling || (is_root() && has_setpriv()) {
            words.extend(WITHOUT_RIGHTS);
        }
        words.push(env!("CARGO_BIN_EXE_logferry"));
        let mut command = Command::new(words[0]);
        command.args(&words[1..]);
        let agent = Agent::spawn(command, &pod.environment(), &pod.path("agent.log"));
        Self { agent, address }
    }

    /// Stops it in its tracks, or lets it go on.
    pub(crate) fn set_frozen(&self, is_frozen: bool) {
        if is_frozen { self.agent.suspend() } else { self.agent.resume() }
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

    /// What the agent says of its open files; `None` while it does not answer.
    pub(crate) fn status(&self) -> Option<Status> {
        let status: serde_json::Value = serde_json::from_str(&self.get("/status")?).ok()?;
        let files = status["files"].as_array()?.iter();
        let is_open = |file: &&serde_json::Value| {
            ["active", "rotated", "deleted"].iter().any(|state| file["state"] == *state)
        };
        let number = |file: &serde_json::Value, key: &str| file[key].as_u64();
        let files = files.filter(is_open).map(|file| {
            Some(FileStatus {
                device: number(file, "device")?,
                inode: number(file, "inode")?,
                read_offset: number(file, "read_offset")?,
                acked_offset: number(file, "acked_offset")?,
            })
        });
        let turns = status["collector"]["turns"].as_u64()?;
        Some(Status { turns, files: files.collect::<Option<_>>()? })
    }

    /// The value of a metric without labels, if there is such a metric.
    pub(crate) fn metric(&self, name: &str) -> Option<f64> {
        let metrics = self.get("/metrics")?;
        let mut lines = metrics.lines();
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
    }
}

/// Root without the capabilities that make modes meaningless to it (capabilities(7)).
const WITHOUT_RIGHTS: [&str; 3] =
    ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all"];
/// A user namespace of its own that may have no inotify instance (namespaces(7)).
const WITHOUT_NOTIFICATIONS: [&str; 6] = [
    "unshare",
    "-r",
    "sh",
    "-c",
    "echo 0 > /proc/sys/user/max_inotify_instances && exec \"$@\"",
    "sh",
];

/// Whether `chmod 000` keeps the agent out.
pub(crate) fn minds_modes() -> bool {
    !is_root() || has_setpriv()
}

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn has_setpriv() -> bool {
    static HAS: LazyLock<bool> = LazyLock::new(|| {
        works(&WITHOUT_RIGHTS, "chmod is left out of the model: no setpriv that drops rights here")
    });
    *HAS
}

/// Whether an agent without notifications can be had.
pub(crate) fn can_poll() -> bool {
    static CAN: LazyLock<bool> = LazyLock::new(|| {
        let words = [&WITHOUT_NOTIFICATIONS[..], &WITHOUT_RIGHTS[..]].concat();
        works(&words, "polling is left out of the model: no user namespace with limits of its own")
    });
    *CAN
}

/// Whether a command can be run like this; if not, says aloud what that means.
fn works(words: &[&str], otherwise: &str) -> bool {
    let status = Command::new(words[0]).args(&words[1..]).arg("true").status();
    let works = status.is_ok_and(|status| status.success());
    if !works {
        // Not eprintln: the test harness would keep it to itself.
        writeln!(std::io::stderr(), "skipped: {otherwise}").expect("standard error");
    }
    works
}
