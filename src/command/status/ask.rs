//! One question to the running agent: `GET /status`, read within bounds of time and size.
//!
//! Plain blocking HTTP/1.0 over one socket: a server then closes after its answer and sends no
//! chunks, so the body is what follows the head.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::admin::status::{SOURCE, Status};
use crate::base::clock;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// For request and answer together.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Two hundred thousand files.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Why there is no status.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nothing listens there, or it cannot be reached.
    #[error("no agent answers at {address}: {error}")]
    Unreachable {
        /// Where it was asked for.
        address: SocketAddr,
        /// What the system said.
        error: io::Error,
    },
    /// Something listens there and did not answer in time, or broke off.
    #[error("what listens at {address} does not answer: {error}")]
    Silent {
        /// Where it was asked for.
        address: SocketAddr,
        /// What the system said.
        error: io::Error,
    },
    /// Something answered, and not as an agent does.
    #[error("what answers at {address} is not a logferry agent of this version: {reason}")]
    NotAnAgent {
        /// Where it was asked for.
        address: SocketAddr,
        /// What is wrong with the answer.
        reason: String,
    },
}

/// Asks the agent at its admin address. One that listens on all addresses is asked by loopback.
///
/// # Errors
/// If none answers there; the state directory is then the place to look.
pub fn agent(address: SocketAddr) -> Result<Status, AskError> {
    let address = reachable(address);
    let mut stream = TcpStream::connect_timeout(&address, CONNECT_TIMEOUT)
        .map_err(|error| AskError::Unreachable { address, error })?;
    let answer = exchange(&mut stream, address, clock::now() + ANSWER_TIMEOUT)
        .map_err(|error| AskError::Silent { address, error })?;
    parse(&answer).map_err(|reason| AskError::NotAnAgent { address, reason })
}

fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

fn exchange(stream: &mut TcpStream, host: SocketAddr, deadline: Instant) -> io::Result<Vec<u8>> {
    stream.set_write_timeout(Some(ANSWER_TIMEOUT))?;
    stream.write_all(format!("GET /status HTTP/1.0\r\nHost: {host}\r\n\r\n").as_bytes())?;
    let mut answer = Vec::new();
    let mut piece = [0; 16 << 10];
    loop {
        let left = deadline.saturating_duration_since(clock::now());
        if left.is_zero() {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "its time is over"));
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut piece) {
            Ok(0) => return Ok(answer),
            Ok(read) => answer.extend_from_slice(&piece[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // How a time-out of the socket reads.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "its time is over"));
            }
            Err(error) => return Err(error),
        }
        if answer.len() > ANSWER_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "its answer has no end"));
        }
    }
}

/// The status in an HTTP answer, or what is wrong with it.
fn parse(answer: &[u8]) -> Result<Status, String> {
    let end = memchr::memmem::find(answer, b"\r\n\r\n").ok_or("it does not speak HTTP")?;
    let (head, body) = (&answer[..end], &answer[end + 4..]);
    let first = head.split(|&byte| byte == b'\r').next().unwrap_or_default();
    let mut words = first.split(|&byte| byte == b' ');
    if !words.next().is_some_and(|version| version.starts_with(b"HTTP/1.")) {
        return Err("it does not speak HTTP".to_owned());
    }
    let code = words.next().ok_or("it does not speak HTTP")?;
    if code != b"200" {
        return Err(format!("it answers {} to /status", code.escape_ascii()));
    }
    let status: Status = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    if status.source == SOURCE { Ok(status) } else { Err("its source is no agent".to_owned()) }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use proptest::prelude::*;

    use super::*;

    fn check(answer: &str, expected: &str) {
        let reason = parse(answer.as_bytes()).unwrap_err();
        assert!(reason.contains(expected), "{answer:?}: {reason}");
    }

    #[test]
    fn names_what_is_wrong_with_an_answer() {
        check("", "does not speak HTTP");
        check("SSH-2.0-OpenSSH_9.6\r\n", "does not speak HTTP");
        check("SSH\r\n\r\n", "does not speak HTTP");
        check("HTTP/1.1\r\n\r\n", "does not speak HTTP");
        check("HTTP/1.1 404 Not Found\r\n\r\nx", "answers 404 to /status");
        check("HTTP/1.1 \u{1b}[2J\r\n\r\n", "answers \\x1b[2J to /status");
        check("HTTP/1.1 200 OK\r\n\r\n", "EOF");
        check("HTTP/1.1 200 OK\r\n\r\n<html>", "expected value");
        check("HTTP/1.1 200 OK\r\n\r\n{\"source\":\"agent\"}", "missing field");
    }

    #[test]
    fn an_agent_on_all_addresses_is_asked_by_loopback() {
        for (listen, expected) in [
            ("0.0.0.0:9465", "127.0.0.1:9465"),
            ("[::]:9465", "[::1]:9465"),
            ("10.0.0.7:1", "10.0.0.7:1"),
        ] {
            assert_eq!(reachable(listen.parse().unwrap()), expected.parse().unwrap());
        }
    }

    /// Talks to something that does `serve` with whoever connects.
    fn exchange_with(
        time: Duration,
        serve: impl FnOnce(TcpStream) + Send + 'static,
    ) -> io::Result<Vec<u8>> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || serve(listener.accept().unwrap().0));
        let mut stream = TcpStream::connect(address).unwrap();
        let result = exchange(&mut stream, address, clock::now() + time);
        drop(stream);
        server.join().unwrap();
        result
    }

    #[test]
    fn gives_up_on_what_is_silent_or_too_slow() {
        let time = Duration::from_millis(200);
        let until_closed = |mut stream: TcpStream| while stream.read(&mut [0; 99]).unwrap() > 0 {};
        let error = exchange_with(time, until_closed).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);

        let a_byte_at_a_time = |mut stream: TcpStream| {
            stream.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
            while stream.write_all(b"x").is_ok() {
                let _ = stream.read(&mut [0; 99]);
            }
        };
        let error = exchange_with(time, a_byte_at_a_time).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn gives_up_on_an_answer_without_an_end() {
        let endless = |mut stream: TcpStream| while stream.write_all(&[b'x'; 1 << 16]).is_ok() {};
        let error = exchange_with(Duration::from_secs(60), endless).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }

    proptest! {
        #[test]
        fn never_panics_on_other_bytes(
            start in prop_oneof![Just(""), Just("HTTP/1.1 200 OK\r\n\r\n")],
            rest in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            prop_assert!(parse(&[start.as_bytes(), &rest].concat()).is_err());
        }
    }
}
