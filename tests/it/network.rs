//! What the network does to connections: packets that vanish (N02), answers that take for ever
//! (N03), connections that are closed while idle and odd answers (N14).

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use logferry::base::clock;
use logferry_mock::{Fault, Kind};

use crate::support::wire::{Closing, Flow, Wire};
use crate::support::{Admin, Agent, PATIENCE, Pod, each, pause, run, wait_for};

const NETWORK: &str = "logferry_request_failures_total{kind=\"network\"}";
const FAILED: &str = "cannot deliver, trying again";

/// A pod behind a wire, whose agent has delivered the first lines and holds a connection.
struct Scene {
    pod: Pod,
    log: std::path::PathBuf,
    wire: Wire,
    admin: Admin,
    agent: Agent,
}

impl Scene {
    fn new() -> Self {
        let (mut pod, log) = Pod::with_log();
        let wire = pod.wire();
        let admin = pod.admin();
        pod.ledger.append(&log, 100);
        let agent = pod.start();
        pod.expect_all();
        assert_eq!(wire.accepted(), 1, "one connection, which is kept");
        Self { pod, log, wire, admin, agent }
    }

    /// Waits until an attempt has failed; the time since `started`.
    fn time_to_failure(&self, started: std::time::Instant) -> Duration {
        self.pod.wait_for_log(FAILED, 1);
        clock::now() - started
    }

    fn failures(&self) -> u64 {
        self.admin.metric(NETWORK).expect("the metric is there from the start")
    }
}

/// The kernel would try for a quarter of an hour.
#[test]
fn n02_packets_that_vanish_cost_a_connection_and_no_line() {
    let mut scene = Scene::new();
    let started = clock::now();
    scene.wire.lose_packets(true);
    scene.pod.ledger.append(&scene.log, 100);

    let took = scene.time_to_failure(started);
    assert!(took < PATIENCE / 2, "{took:?} to notice");
    scene.wire.lose_packets(false);

    assert_eq!(scene.pod.finish(scene.agent), 0, "nothing of it had arrived");
    assert!(scene.wire.accepted() > 1, "over a new connection");
}

/// The peer has rebooted and its resets are dropped: what is sent is taken, nothing comes back.
#[test]
fn n02_a_half_open_connection_is_given_up() {
    let mut scene = Scene::new();
    let started = clock::now();
    scene.wire.half_open();
    scene.pod.ledger.append(&scene.log, 100);

    let took = scene.time_to_failure(started);
    assert!(took < PATIENCE / 2, "{took:?} to notice");
    scene.wire.flow();

    assert_eq!(scene.pod.finish(scene.agent), 0, "nothing of it had arrived");
    assert!(scene.wire.accepted() > 1, "over a new connection");
}

/// The peer's window closes in the midst of a large request.
#[test]
fn n02_a_peer_that_takes_no_more_is_given_up() {
    let (mut pod, log) = Pod::with_log();
    pod.set("LOGFERRY_COMPRESSION", "none").set("LOGFERRY_BATCH_BYTES", "2MiB");
    let wire = pod.wire();
    wire.requests(Flow::Stalled);
    while pod.ledger.bytes() < 16 << 20 {
        pod.ledger.append(&log, 10_000);
    }
    let agent = pod.start();

    pod.wait_for_log(FAILED, 1);
    wire.flow();

    pod.finish(agent);
}

#[test]
fn n03_an_answer_that_comes_too_late_is_not_waited_for() {
    let (mut pod, log) = Pod::with_log();
    let fault = Fault { times: Some(1), ..Fault::new(Kind::Delay { ms: 60_000 }) };
    pod.mock.faults().set(vec![fault]);
    pod.ledger.append(&log, 100);
    let started = clock::now();
    let agent = pod.start();

    pod.expect_all();

    let took = clock::now() - started;
    assert!(took < Duration::from_secs(55), "{took:?}: it waited for the late answer");
    assert!(pod.agent_log().contains("no answer within"), "{}", pod.agent_log());
    pod.finish(agent);
}

/// The request is taken and stored; its answer drips.
#[test]
fn n03_an_answer_of_a_byte_a_second_is_given_up_and_floods_nobody() {
    let (mut pod, log) = Pod::with_log();
    let wire = pod.wire();
    let admin = pod.admin();
    wire.answers(Flow::BytesPerSecond(1));
    pod.ledger.append(&log, 100);
    let agent = pod.start();

    pod.wait_for_log("no answer within", 1);
    wire.flow();

    pod.expect_all();
    wait_for("the acknowledgement", || {
        admin.metric("logferry_delivered_lines_total").unwrap_or(0) >= 100
    });
    let attempts = admin.metric("logferry_requests_total").expect("the metric");
    assert!(attempts <= 4, "{attempts} attempts at one batch in a quarter of a minute");
    let repeated = pod.finish(agent);
    assert!(repeated >= 100, "the first attempt was stored, and its answer never came");
}

/// As a load balancer does after a minute.
#[test]
fn n14_a_connection_closed_while_idle_is_replaced_without_a_word() {
    let mut scene = Scene::new();
    scene.wire.close_idle();
    wait_for("the closing", || scene.wire.open() == 0);
    scene.pod.ledger.append(&scene.log, 100);

    scene.pod.expect_all();

    assert_eq!((scene.failures(), scene.wire.accepted()), (0, 2));
    assert_eq!(scene.pod.finish(scene.agent), 0);
}

/// The peer closes it at the moment when a request is already on its way.
#[test]
fn n14_a_request_that_meets_a_closing_connection_goes_again_without_a_word() {
    for closing in [Closing::Fin, Closing::Reset] {
        let mut scene = Scene::new();
        scene.wire.close_on_reuse(1, closing);
        scene.pod.ledger.append(&scene.log, 100);

        scene.pod.expect_all();

        assert_eq!(scene.wire.closings_left(), 0, "the request met it");
        assert_eq!((scene.failures(), scene.wire.accepted()), (0, 2));
        assert_eq!(scene.pod.finish(scene.agent), 0);
    }
}

/// A connection of its own that closes without an answer is no idle one.
#[test]
fn n14_a_new_connection_that_closes_is_a_failure() {
    let (mut pod, log) = Pod::with_log();
    let admin = pod.admin();
    pod.mock.faults().set(vec![Fault { times: Some(1), ..Fault::new(Kind::CutBefore) }]);
    pod.ledger.append(&log, 100);
    let agent = pod.start();

    pod.expect_all();

    admin.expect_metric(NETWORK, 1);
    assert_eq!(pod.finish(agent), 0);
}

/// RFC 9112 allows all of it.
#[test]
fn n14_chunked_answers_and_interim_ones_are_understood() {
    let mut scene = Scene::new();
    for (rewrite, name) in
        [(interim as fn(&[u8]) -> Vec<u8>, "100"), (chunked as fn(&[u8]) -> Vec<u8>, "chunked")]
    {
        scene.wire.rewrite_answers(rewrite);
        for _ in 0..3 {
            scene.pod.ledger.append(&scene.log, 100);
            scene.pod.expect_all();
        }
        assert_eq!((scene.failures(), scene.wire.accepted()), (0, 1), "{name}");
    }
    assert_eq!(scene.pod.finish(scene.agent), 0);
}

fn interim(answer: &[u8]) -> Vec<u8> {
    [b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: <x>\r\n\r\n", answer].concat()
}

/// The same answer in chunks, with an extension and a trailer. Its body is empty.
fn chunked(answer: &[u8]) -> Vec<u8> {
    let text = String::from_utf8(answer.to_vec()).expect("an answer without a body");
    let chunked = text.replace("content-length: 0\r\n", "transfer-encoding: chunked\r\n");
    assert_ne!(text, chunked, "an empty answer");
    format!("{chunked}2;odd=\"yes\"\r\n{{}}\r\n0\r\nx-trailer: 1\r\n\r\n").into_bytes()
}

/// The service sends none: one comes from somebody else, and nobody follows it with our logs.
#[test]
fn n14_a_redirect_is_neither_followed_nor_an_acknowledgement() {
    for status in ["301 Moved Permanently", "307 Temporary Redirect", "308 Permanent Redirect"] {
        let mut scene = Scene::new();
        let elsewhere = Wire::to(scene.pod.mock.address());
        let to = elsewhere.address();
        scene.wire.rewrite_answers(move |_| {
            let head = format!("HTTP/1.1 {status}\r\nlocation: http://{to}/\r\n");
            format!("{head}content-length: 0\r\n\r\n").into_bytes()
        });
        scene.pod.ledger.append(&scene.log, 100);

        scene.pod.wait_for_log(FAILED, 1);
        assert_eq!(elsewhere.accepted(), 0, "{status}");
        scene.wire.keep_answers();

        scene.pod.finish(scene.agent);
    }
}

/// What lies in the socket was there in time, although nobody could look.
#[test]
fn n03_an_answer_that_came_while_the_agent_was_suspended_is_read() {
    let (mut pod, log) = Pod::with_log();
    let fault = Fault { times: Some(1), ..Fault::new(Kind::Delay { ms: 1000 }) };
    pod.mock.faults().set(vec![fault]);
    let admin = pod.admin();
    pod.ledger.append(&log, 100);
    let agent = pod.start();
    wait_for("the request", || pod.mock.store().counts().faults.contains_key("delay"));

    agent.suspend();
    wait_for("the lines", || pod.mock.store().line_count() == 100);
    // Longer than any attempt may take.
    pause(Duration::from_secs(18));
    agent.resume();

    wait_for("the acknowledgement", || {
        admin.metric("logferry_delivered_lines_total").unwrap_or(0) >= 100
    });
    assert_eq!(admin.metric(NETWORK), Some(0));
    assert_eq!(pod.finish(agent), 0, "the batch did not go again");
}

/// The same when the time to stop is over.
#[test]
fn n03_an_answer_that_came_while_a_stop_was_suspended_is_read() {
    let (mut pod, log) = Pod::with_log();
    pod.set("LOGFERRY_DRAIN_DEADLINE", "5s");
    pod.mock.faults().set(vec![Fault::new(Kind::Delay { ms: 1000 })]);
    pod.ledger.append(&log, 100);
    let agent = pod.start();
    wait_for("the request", || pod.mock.store().counts().faults.contains_key("delay"));
    agent.terminate();
    pod.wait_for_log("stopping", 1);

    agent.suspend();
    wait_for("the lines", || pod.mock.store().line_count() == 100);
    pause(Duration::from_secs(6));
    agent.resume();
    agent.exit_code();

    pod.mock.faults().clear();
    let agent = pod.start();
    assert_eq!(pod.finish(agent), 0, "the next start sends nothing again");
}

/// An acknowledgement is believed once its status and its request id were read, whatever else comes.
#[test]
fn n14_an_odd_acknowledgement_is_one() {
    type Rewriting = fn(&[u8]) -> Vec<u8>;
    let oddities: [(&str, Rewriting); 9] = [
        ("101 headers", |answer| with_headers(answer, &many(101, 1))),
        ("250 headers", |answer| with_headers(answer, &many(250, 1))),
        ("large headers", |answer| with_headers(answer, &many(50, 4000))),
        ("no headers at all", |answer| {
            with_headers(answer, "no header\r\n: nameless\r\nx y: z\r\n")
        }),
        ("blanks", |answer| with_headers(answer, "x-a : b\r\nx-long: a\r\n  and more\r\n")),
        ("raw bytes", |answer| {
            let text = with_headers(answer, "x-raw: ?\r\n");
            text.into_iter().map(|byte| if byte == b'?' { 0xe9 } else { byte }).collect()
        }),
        ("a body that breaks off", |answer| replaced(answer, "content-length: 1000\r\n", "{}")),
        ("chunks that are none", |answer| {
            replaced(answer, "transfer-encoding: chunked\r\n", "zz\r\ngarbage\r\n")
        }),
        ("a trailer that is none", |answer| {
            replaced(answer, "transfer-encoding: chunked\r\n", "0\r\nno trailer\r\n\r\n")
        }),
    ];
    let mut scene = Scene::new();
    for (name, rewrite) in oddities {
        scene.wire.rewrite_answers(rewrite);
        scene.pod.ledger.append(&scene.log, 100);
        assert_eq!(scene.pod.expect_all(), 0, "{name}");
        let lines = scene.pod.ledger.lines.len() as u64;
        let delivered = || scene.admin.metric("logferry_delivered_lines_total").unwrap_or(0);
        wait_for(name, || delivered() >= lines);
        assert_eq!(scene.failures(), 0, "{name}");
    }
    scene.wire.keep_answers();
    assert_eq!(scene.pod.finish(scene.agent), 0);
}

/// What an answer with more headers than there was room for acknowledges goes again, once.
#[test]
fn n14_an_answer_with_thousands_of_headers_is_read_from_the_second_on() {
    let mut scene = Scene::new();
    for count in [5000, 301, 19_990, 100] {
        scene.wire.rewrite_answers(move |answer| with_headers(answer, &many(count, 1)));
        scene.pod.ledger.append(&scene.log, 100);
        let repeated = scene.pod.expect_all();
        let lines = scene.pod.ledger.lines.len() as u64;
        let delivered = || scene.admin.metric("logferry_delivered_lines_total").unwrap_or(0);
        wait_for("the acknowledgement", || delivered() >= lines);
        assert!(repeated <= 100, "{count}: {repeated} lines came again");
        assert_eq!(scene.failures(), 1, "{count}: only the first was not read");
    }
    scene.wire.keep_answers();
    scene.pod.finish(scene.agent);

    scene.wire.rewrite_answers(|answer| with_headers(answer, &many(5000, 1)));
    let (code, out, complaint) = run(&["check", "--connect"], &scene.pod.environment());
    assert_eq!(code, 0, "it can be delivered: {out}{complaint}");
}

/// What cannot be read is said with its remedy, tried again, and harms nothing.
#[test]
fn n14_an_answer_with_more_headers_than_can_be_read_is_named() {
    for (count, bytes) in [(30_000, 0), (4000, 400)] {
        let mut scene = Scene::new();
        scene.wire.rewrite_answers(move |answer| with_headers(answer, &many(count, bytes)));
        scene.pod.ledger.append(&scene.log, 100);

        scene.pod.wait_for_log("find out who adds headers to the answers", 1);
        wait_for("another attempt", || scene.failures() >= 3);
        scene.wire.keep_answers();

        scene.pod.finish(scene.agent);
    }
}

fn many(count: usize, bytes: usize) -> String {
    let value = "v".repeat(bytes);
    (0..count).map(|n| format!("x-added-{n}: {value}\r\n")).collect()
}

/// The answer with more headers in front of its own.
fn with_headers(answer: &[u8], headers: &str) -> Vec<u8> {
    let text = String::from_utf8(answer.to_vec()).expect("an answer without a body");
    let (status, rest) = text.split_once("\r\n").expect("a status line");
    format!("{status}\r\n{headers}{rest}").into_bytes()
}

/// The answer with another length, and a body, behind which the connection is of no use.
fn replaced(answer: &[u8], length: &str, body: &str) -> Vec<u8> {
    let text = String::from_utf8(answer.to_vec()).expect("an answer without a body");
    let other = text.replace("content-length: 0\r\n", length);
    assert_ne!(text, other, "an empty answer");
    format!("{other}{body}").into_bytes()
}

/// A peer that says one thing over and over instead of answering.
struct Babbler {
    address: SocketAddr,
    heard: Arc<AtomicUsize>,
}

impl Babbler {
    fn new(first: &'static str, then: &str) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let address = listener.local_addr().expect("its address");
        let heard = Arc::new(AtomicUsize::new(0));
        let (chunk, counted) = (then.repeat(64 * 1024 / then.len()), Arc::clone(&heard));
        // Both end with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (chunk, counted) = (chunk.clone(), Arc::clone(&counted));
                std::thread::spawn(move || babble(stream, first, &chunk, &counted));
            }
        });
        Self { address, heard }
    }
}

fn babble(mut stream: std::net::TcpStream, first: &str, chunk: &str, heard: &AtomicUsize) {
    let mut request = [0; 1024];
    if !matches!(stream.read(&mut request), Ok(1..)) || stream.write_all(first.as_bytes()).is_err()
    {
        return;
    }
    heard.fetch_add(1, SeqCst);
    while stream.write_all(chunk.as_bytes()).is_ok() {}
}

/// The client reads on and on, since each of these is whole; nothing but the CPU limit ends it.
#[test]
fn n19_a_peer_that_sends_interim_responses_without_end_is_left_alone() {
    let thens = [
        "HTTP/1.1 100 Continue\r\n\r\n",
        "HTTP/1.1 103 Early Hints\r\nlink: </x>; rel=preload\r\n\r\n",
    ];
    each(&thens, |then| {
        let (mut pod, log) = Pod::with_log();
        let babbler = Babbler::new("", then);
        let wire = Wire::to(babbler.address);
        pod.set("LOGFERRY_ENDPOINT", &format!("http://{}", wire.address()));
        pod.set("cpu_usage_limit", "0.1");
        pod.ledger.append(&log, 100);
        let agent = pod.start();

        // Cut off, or on a busy machine over in time; and then left alone.
        pod.wait_for_log(FAILED, 1);
        let asked = babbler.heard.load(SeqCst);
        pause(Duration::from_secs(15));
        assert_eq!(babbler.heard.load(SeqCst), asked, "{}", pod.agent_log());
        wire.lead_to(pod.mock.address());
        wire.cut();

        pod.finish(agent);
    });
}

/// Interim responses, headers, chunks and blank lines without end: the agent keeps to its CPU limit,
/// answers probes, and delivers when the endpoint is itself again.
#[test]
fn n19_a_peer_that_babbles_takes_no_more_than_the_cpu_limit() {
    std::thread::scope(|scope| {
        for (name, first, then) in [
            ("interim responses", "", "HTTP/1.1 100 Continue\r\n\r\n"),
            ("early hints", "", "HTTP/1.1 103 Early Hints\r\nlink: </x>; rel=preload\r\n\r\n"),
            ("headers", "HTTP/1.1 200 OK\r\n", "x: y\r\n"),
            ("a body", "HTTP/1.1 500 Oh\r\ncontent-length: 99999999999\r\n\r\n", "lorem ipsum "),
            ("chunks", "HTTP/1.1 500 Oh\r\ntransfer-encoding: chunked\r\n\r\n", "1\r\nx\r\n"),
            ("blank lines", "", "\r\n"),
        ] {
            scope.spawn(move || bear_babbling(name, first, then));
        }
    });
}

fn bear_babbling(name: &str, first: &'static str, then: &str) {
    const CORES: f64 = 0.5;
    let (mut pod, log) = Pod::with_log();
    let babbler = Babbler::new(first, then);
    let wire = Wire::to(babbler.address);
    pod.set("LOGFERRY_ENDPOINT", &format!("http://{}", wire.address()));
    pod.set("cpu_usage_limit", &CORES.to_string());
    let admin = pod.admin();
    pod.ledger.append(&log, 100);
    let agent = pod.start();
    wait_for("the first request", || babbler.heard.load(SeqCst) > 0);
    admin.wait_until_ready();

    let (started, before) = (clock::now(), agent.cpu_time());
    while clock::now() < started + Duration::from_secs(10) {
        assert!(admin.is_ready(), "{name}: probes are answered");
        pause(Duration::from_millis(500));
    }
    let (took, used) = (clock::now() - started, agent.cpu_time() - before);
    println!("{name}: {used:?} in {took:?}, {} requests", babbler.heard.load(SeqCst));
    // What may be saved up, and a turn.
    let most = took.mul_f64(CORES) + Duration::from_millis(400);
    assert!(used < most, "{name}: {used:?} of CPU in {took:?}, at most {most:?}");

    wire.lead_to(pod.mock.address());
    wire.cut();
    pod.finish(agent);
}
