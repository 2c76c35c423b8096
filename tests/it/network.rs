//! What the network does to connections: packets that vanish (N02), answers that take for ever
//! (N03), connections that are closed while idle and odd answers (N14).

use std::time::Duration;

use logferry::clock;
use logferry::mock::{Fault, Kind};

use crate::support::wire::{Closing, Flow, Wire};
use crate::support::{Admin, Agent, PATIENCE, Pod, wait_for};

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
