//! Names: a name server of a test's own, and agents that see other files in /etc.

use std::collections::HashMap;
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use super::special::{apart, skipped};
use super::{Agent, Pod};

/// What the name server says about a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// It has these addresses.
    Addresses(Vec<Ipv4Addr>),
    /// There is no such name.
    Unknown,
    /// Something is wrong with the server.
    Failure,
    /// Not a word.
    Nothing,
}

/// A name server on port 53 of an address of its own. It knows one name.
pub(crate) struct NameServer {
    address: Ipv4Addr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    told: Mutex<Told>,
    asked: AtomicUsize,
    is_over: AtomicBool,
}

impl NameServer {
    /// On 127.53.0.`number`. `None`, said aloud, where port 53 is not to be had.
    pub(crate) fn start(number: u8, told: Told) -> Option<Self> {
        let address = Ipv4Addr::new(127, 53, 0, number);
        let Ok(socket) = UdpSocket::bind((address, 53)) else {
            skipped("port 53 is not to be had here: this needs root");
            return None;
        };
        socket.set_read_timeout(Some(Duration::from_millis(20))).expect("a time-out");
        let shared = Arc::new(Shared {
            told: Mutex::new(told),
            asked: AtomicUsize::new(0),
            is_over: AtomicBool::new(false),
        });
        let of_thread = Arc::clone(&shared);
        let thread = std::thread::spawn(move || serve(&socket, &of_thread));
        Some(Self { address, shared, thread: Some(thread) })
    }

    /// What it says from now on.
    pub(crate) fn tell(&self, told: Told) {
        *self.shared.told.lock().expect("nobody panics with it") = told;
    }

    /// How often it was asked for an address.
    pub(crate) fn asked(&self) -> usize {
        self.shared.asked.load(SeqCst)
    }

    /// The resolv.conf(5) that leads to it, and to it alone.
    pub(crate) fn files(&self) -> HashMap<&'static str, String> {
        let resolv = format!("nameserver {}\noptions timeout:1 attempts:1\n", self.address);
        HashMap::from([
            ("/etc/resolv.conf", resolv),
            ("/etc/nsswitch.conf", "hosts: files dns\n".to_owned()),
        ])
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.shared.is_over.store(true, SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(socket: &UdpSocket, shared: &Shared) {
    let mut buffer = [0; 512];
    while !shared.is_over.load(SeqCst) {
        let Ok((count, from)) = socket.recv_from(&mut buffer) else { continue };
        let told = shared.told.lock().expect("nobody panics with it").clone();
        if let Some(answer) = answer(&buffer[..count], &told, &shared.asked) {
            let _ = socket.send_to(&answer, from);
        }
    }
}

/// RFC 1035, section 4: as much of it as a resolver asks for.
fn answer(question: &[u8], told: &Told, asked: &AtomicUsize) -> Option<Vec<u8>> {
    const TYPE_A: [u8; 2] = [0, 1];
    let name_end = 12 + question.get(12..)?.iter().position(|&byte| byte == 0)? + 1;
    let question_end = name_end + 4;
    let is_for_address = question.get(name_end..name_end + 2)? == TYPE_A;
    asked.fetch_add(usize::from(is_for_address), SeqCst);
    let (code, addresses) = match told {
        Told::Addresses(addresses) => (0, addresses.as_slice()),
        Told::Unknown => (3, [].as_slice()),
        Told::Failure => (2, [].as_slice()),
        Told::Nothing => return None,
    };
    let addresses = if is_for_address { addresses } else { &[] };
    let count = u8::try_from(addresses.len()).ok()?;
    let mut answer = question.get(..2)?.to_vec();
    // An answer, recursion wanted and had; one question; so many answers.
    answer.extend([0x81, 0x80 | code, 0, 1, 0, count, 0, 0, 0, 0]);
    answer.extend(question.get(12..question_end)?);
    for address in addresses {
        // The name of the question, A, IN, not to be kept, four bytes.
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4]);
        answer.extend(address.octets());
    }
    Some(answer)
}

/// What a command is started by that is to see these files in place of the system's.
pub(crate) fn with_files(
    pod: &Pod,
    files: &HashMap<&'static str, String>,
) -> std::process::Command {
    let mut script = String::new();
    for (name, text) in files {
        let ours = pod.path(&name.trim_start_matches('/').replace('/', "_"));
        std::fs::write(&ours, text).expect("a file of /etc");
        script += &format!("{{ [ ! -e {name} ] || mount --bind {} {name}; }} && ", ours.display());
    }
    apart(&format!("{script}exec \"$@\""))
}

impl Pod {
    /// Starts an agent that sees these files in place of the system's. `None`, said aloud, where
    /// the system does not allow that.
    pub(crate) fn start_with_files(&self, files: &HashMap<&'static str, String>) -> Option<Agent> {
        let agent = self.start_by(|| with_files(self, files));
        if agent.is_none() {
            skipped("no files can be mounted here");
        }
        agent
    }

    /// Runs a command of the binary that sees these files: exit code, and what it complains about.
    pub(crate) fn run_with_files(
        &self,
        args: &[&str],
        files: &HashMap<&'static str, String>,
    ) -> (i32, String) {
        let output = with_files(self, files)
            .arg(env!("CARGO_BIN_EXE_logferry"))
            .args(args)
            .env_clear()
            .envs(self.environment())
            .output()
            .expect("the command runs");
        let code = output.status.code().expect("it ends by itself");
        (code, String::from_utf8_lossy(&output.stderr).into_owned())
    }
}
