//! The admin port, and `logferry status` with and without an agent.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use crate::support::observe::get;
use crate::support::{Agent, Pod, run, wait_for};

fn served_pod() -> (Pod, Agent, String) {
    let (mut pod, log) = Pod::with_log();
    let address = pod.listen();
    pod.ledger.append(&log, 100);
    let agent = pod.start();
    (pod, agent, address)
}

#[test]
fn says_that_it_is_alive_and_ready() {
    let (pod, agent, address) = served_pod();
    wait_for("readiness", || get(&address, "/ready").0 == 200);
    assert_eq!(get(&address, "/live").0, 200);
    assert_eq!(get(&address, "/nowhere").0, 404);

    // Draining: alive, no longer ready.
    let mut pod = pod;
    pod.mock.stop();
    let log = pod.path("data/pod/logs/app.log");
    pod.ledger.append(&log, 100);
    agent.terminate();
    wait_for("unreadiness", || get(&address, "/ready").0 == 503);
    assert_eq!(get(&address, "/live").0, 200);
    agent.terminate();
    assert_eq!(agent.exit_code(), 75);
}

#[test]
fn metrics_and_status_tell_what_was_delivered() {
    let (pod, agent, address) = served_pod();
    pod.expect_all();
    wait_for("the metrics to say so", || {
        get(&address, "/metrics").1.contains("\nlogferry_delivered_lines_total 100\n")
    });
    let size = pod.ledger.bytes();
    let status =
        || -> serde_json::Value { serde_json::from_str(&get(&address, "/status").1).unwrap() };
    wait_for("the status to say so", || status()["files"][0]["acked_offset"] == size);
    let status = status();
    assert_eq!(status["files"][0]["path"], pod.path("share/logs/app.log").display().to_string());
    assert_eq!(
        (&status["files"][0]["size"], &status["files"][0]["lag_bytes"]),
        (&size.into(), &0.into())
    );
    assert!(!status.to_string().contains("test-access-key-secret"));
    assert_eq!(agent.stop().0, 0);
}

#[test]
fn status_asks_the_agent_or_reads_the_state_directory() {
    let (pod, agent, _) = served_pod();
    pod.expect_all();
    let size = pod.ledger.bytes();
    let path = pod.path("share/logs/app.log").display().to_string();
    let json = || -> serde_json::Value {
        let (code, out, complaint) = run(&["status", "--json"], &pod.environment());
        assert_eq!(code, 0, "{complaint}");
        serde_json::from_str(&out).unwrap()
    };
    wait_for("the agent to say so", || json()["files"][0]["acked_offset"] == size);
    assert_eq!(json()["files"][0]["state"], "active");
    let (_, text, _) = run(&["status"], &pod.environment());
    assert!(text.contains(&path), "{text}");

    assert_eq!(agent.stop().0, 0);
    let saved = json();
    assert_eq!(saved["files"][0]["state"], "saved");
    assert_eq!(
        (&saved["files"][0]["path"], &saved["files"][0]["acked_offset"]),
        (&path.into(), &size.into())
    );
}

/// Other pods cannot reach it unless somebody says so.
#[test]
fn s08_by_default_only_this_machine_can_reach_it() {
    let pod = Pod::new();
    let mut env = pod.environment();
    env.remove("LOGFERRY_LISTEN");

    let (code, text, _) = run(&["check"], &env);

    assert_eq!(code, 0);
    let row = text.lines().find(|row| row.starts_with("listen ")).unwrap();
    assert!(row.contains(" 127.0.0.1:9465 ") && row.contains("default"), "{row}");
}

/// Sends a request as it is, and reads what comes until the other end closes; empty if it just
/// closes.
fn exchange(address: &str, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    // It may have closed before all is written.
    let _ = stream.write_all(request);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn s08_it_only_answers_questions() {
    let (pod, agent, address) = served_pod();
    wait_for("readiness", || get(&address, "/ready").0 == 200);
    let ask = |method: &str, path: &str| {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{{}}"
        );
        let answer = exchange(&address, request.as_bytes());
        answer.split(' ').nth(1).unwrap_or_default().to_owned()
    };

    for path in ["/live", "/ready", "/metrics", "/status"] {
        for method in ["POST", "PUT", "DELETE", "PATCH"] {
            assert_eq!(ask(method, path), "405", "{method} {path}");
        }
    }
    for path in [
        "/",
        "//live",
        "/live/",
        "/status/../../etc/passwd",
        "/%2e%2e/etc/passwd",
        "/debug/pprof",
        "/trace",
        "/config",
        "/status%00",
        "/shutdown",
    ] {
        for method in ["GET", "POST"] {
            assert_eq!(ask(method, path), "404", "{method} {path}");
        }
    }
    assert!(!get(&address, "/status").1.contains("test-access-key-secret"));
    pod.expect_all();
    assert_eq!(agent.stop().0, 0);
}

/// Whatever is sent to it, it answers or closes, and goes on with its work.
#[test]
fn s08_no_request_breaks_it() {
    let (mut pod, agent, address) = served_pod();
    wait_for("readiness", || get(&address, "/ready").0 == 200);
    let huge = "a".repeat(1 << 20);
    let many: String = (0..5000).map(|number| format!("x-{number}: y\r\n")).collect();
    let before = agent.resident_bytes();

    for request in [
        format!("GET /live HTTP/1.1\r\nHost: x\r\nx-long: {huge}\r\n\r\n"),
        format!("GET /live HTTP/1.1\r\nHost: x\r\n{many}\r\n"),
        format!("GET /{huge} HTTP/1.1\r\nHost: x\r\n\r\n"),
        format!("POST /live HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n{huge}"),
        format!("POST /live HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{huge}"),
        "GET /live HTTP/9.9\r\n\r\n".to_owned(),
        "\u{16}\u{3}\u{1}\u{2}\0\u{1}".repeat(100),
        "\r\n".repeat(50_000),
    ] {
        let answer = exchange(&address, request.as_bytes());
        let head = answer.lines().next().unwrap_or_default();
        assert!(!head.contains(" 200 ") && !head.contains(" 500 "), "{head}");
        assert_eq!(get(&address, "/live").0, 200, "after {:?}", &request[..request.len().min(60)]);
    }

    let grown = agent.resident_bytes().saturating_sub(before) >> 20;
    assert!(grown < 32, "{grown} MiB more than before");
    let log = pod.path("data/pod/logs/app.log");
    pod.ledger.append(&log, 100);
    assert_eq!(pod.finish(agent), 0);
}

/// A hundred clients that are silent, and as many that send a byte now and then: probes are answered
/// and lines are shipped.
#[test]
fn s08_clients_that_hold_on_shut_nobody_out() {
    let (mut pod, agent, address) = served_pod();
    wait_for("readiness", || get(&address, "/ready").0 == 200);
    let mut clients: Vec<TcpStream> =
        (0..200).map(|_| TcpStream::connect(&address).unwrap()).collect();

    for byte in "GET /status HTTP".bytes() {
        for client in clients.iter_mut().step_by(2) {
            // Those that were put out find their connection closed.
            let _ = client.write_all(&[byte]);
        }
        assert_eq!(get(&address, "/live").0, 200);
        assert_eq!(get(&address, "/ready").0, 200);
    }

    let open = agent.open_paths().iter().filter(|path| path.starts_with("socket:")).count();
    assert!(open < 64, "{open} sockets are open");
    let log = pod.path("data/pod/logs/app.log");
    pod.ledger.append(&log, 100);
    assert_eq!(pod.finish(agent), 0);
}

/// Its own name was made to lead to this machine.
#[test]
fn s08_a_web_page_is_told_nothing() {
    let (pod, agent, address) = served_pod();
    wait_for("readiness", || get(&address, "/ready").0 == 200);
    for path in ["/status", "/metrics", "/ready"] {
        let mut stream = TcpStream::connect(&address).unwrap();
        let head = format!("GET {path} HTTP/1.1\r\nHost: evil.example.com:9465\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 403 "), "{path}: {answer}");
        assert!(!answer.contains("test-project"), "{answer}");
    }
    assert_eq!(pod.finish(agent), 0);
}
