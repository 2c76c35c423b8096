//! The whole sender against a small endpoint that does as it is told, over real sockets.

use std::collections::VecDeque;
use std::sync::Mutex;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::queue::Together;
use super::*;
use crate::base::sealed::{Ack, BatchId, DestinationId, Outcome, Route, SealedBatch};
use crate::base::span::{CollectionId, FileKey, Span, StreamKey};
use crate::handoff::{CollectorEnd, handoff};
use logferry_wire::{Compression, content_md5};

/// What the endpoint does with one request.
#[derive(Clone)]
enum Reply {
    /// Answers.
    Answer { status: u16, headers: String, body: &'static str },
    /// Answers well and closes the connection without a word.
    AcceptAndClose,
    /// Closes the connection instead of answering.
    Reset,
    /// Never answers.
    Hang,
}

fn answer(status: u16, headers: &str, body: &'static str) -> Reply {
    let headers = format!("x-log-requestid: 5F3A\r\n{headers}");
    Reply::Answer { status, headers, body }
}

fn accept() -> Reply {
    answer(200, "", "")
}

fn stranger(status: u16, headers: &str) -> Reply {
    Reply::Answer { status, headers: headers.to_owned(), body: "<html></html>" }
}

/// A request as it came in.
struct Seen {
    head: String,
    body: Vec<u8>,
}

impl Seen {
    fn header(&self, name: &str) -> &str {
        let line = self.head.lines().find(|line| {
            line.split_once(':').is_some_and(|(key, _)| key.eq_ignore_ascii_case(name))
        });
        line.and_then(|line| line.split_once(':')).map_or("", |(_, value)| value.trim())
    }
}

#[derive(Default)]
struct State {
    /// What comes first; after it, everything is accepted.
    script: VecDeque<Reply>,
    seen: Vec<Seen>,
    connections: usize,
    under_way: usize,
    under_way_max: usize,
}

/// How the sender works, and where to.
struct Settings {
    options: Options,
    destination: Destination,
}

struct Server {
    port: u16,
    state: Arc<Mutex<State>>,
}

impl Server {
    async fn start(script: impl IntoIterator<Item = Reply>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let script = script.into_iter().collect();
        let state = Arc::new(Mutex::new(State { script, ..State::default() }));
        let shared = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                shared.lock().unwrap().connections += 1;
                tokio::spawn(serve(stream, Arc::clone(&shared)));
            }
        });
        Self { port, state }
    }

    fn settings(&self) -> Settings {
        let options = Options {
            concurrency_max: 4,
            together: Together { raw_bytes_max: 512 * 1024, lines_max: 4000 },
            in_order: false,
            verify_response: true,
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_millis(500),
            tls: TlsFiles::default(),
            proxy: None,
        };
        let destination = Destination {
            endpoint: Endpoint { tls: false, host: "127.0.0.1".to_owned(), port: self.port },
            credentials: CredentialsSource::Fixed(Credentials {
                access_key_id: "id".to_owned(),
                access_key_secret: Secret::new("s3cret".to_owned()),
                security_token: None,
            }),
            ..Destination::sample()
        };
        Settings { options, destination }
    }

    fn seen(&self) -> Vec<Seen> {
        std::mem::take(&mut self.state.lock().unwrap().seen)
    }
}

async fn serve(mut stream: TcpStream, state: Arc<Mutex<State>>) {
    while let Some(seen) = read_request(&mut stream).await {
        let reply = {
            let mut state = state.lock().unwrap();
            state.seen.push(seen);
            state.under_way += 1;
            state.under_way_max = state.under_way_max.max(state.under_way);
            state.script.pop_front().unwrap_or_else(accept)
        };
        // Requests overlap, or the window could not be seen.
        tokio::time::sleep(Duration::from_millis(2)).await;
        state.lock().unwrap().under_way -= 1;
        let keep_open = match reply {
            Reply::Answer { status, headers, body } => {
                write_answer(&mut stream, status, &headers, body).await
            }
            Reply::AcceptAndClose => {
                write_answer(&mut stream, 200, "x-log-requestid: 1\r\n", "").await;
                false
            }
            Reply::Reset => false,
            Reply::Hang => std::future::pending().await,
        };
        if !keep_open {
            return;
        }
    }
}

async fn write_answer(stream: &mut TcpStream, status: u16, headers: &str, body: &str) -> bool {
    let length = body.len();
    let text = format!("HTTP/1.1 {status} X\r\n{headers}Content-Length: {length}\r\n\r\n{body}");
    stream.write_all(text.as_bytes()).await.is_ok()
}

async fn read_request(stream: &mut TcpStream) -> Option<Seen> {
    let mut bytes = Vec::new();
    let head_end = loop {
        if let Some(at) = memchr::memmem::find(&bytes, b"\r\n\r\n") {
            break at + 4;
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let mut seen =
        Seen { head: String::from_utf8(bytes[..head_end].to_vec()).ok()?, body: Vec::new() };
    let length = seen.header("content-length").parse().unwrap_or(0);
    seen.body = bytes.split_off(head_end);
    while seen.body.len() < length {
        if stream.read_buf(&mut seen.body).await.ok()? == 0 {
            return None;
        }
    }
    Some(seen)
}

/// Raw size of a full batch, which goes alone.
const FULL: u32 = 512 * 1024;

fn batch(id: u64) -> SealedBatch {
    SealedBatch { raw_bytes: FULL, ..small(id) }
}

fn small(id: u64) -> SealedBatch {
    let stream = StreamKey { file: FileKey(0), collection: CollectionId(0) };
    SealedBatch {
        id: BatchId(id),
        span: Span::new(stream, id * 10, id * 10 + 10),
        destination: DestinationId(0),
        path: Arc::from("/share/logs/app.log"),
        payload: Arc::from(format!("payload {id}").into_bytes()),
        compression: Compression::Lz4,
        raw_bytes: 20,
        lines: 2,
        first: 0,
        route: Route::Any,
        since: clock::now(),
    }
}

/// What a run has come to.
struct Run {
    summary: Summary,
    acks: Vec<Ack>,
}

impl Run {
    fn failures(&self) -> Vec<(FailureName, u64)> {
        let names = crate::base::report::FAILURE_KINDS.into_iter();
        names.zip(self.summary.report.failures).filter(|(_, count)| *count > 0).collect()
    }

    fn delivered(&self) -> Vec<u64> {
        let delivered = self.acks.iter().filter(|ack| matches!(ack.outcome, Outcome::Delivered));
        let mut ids: Vec<u64> = delivered.map(|ack| ack.id.0).collect();
        ids.sort_unstable();
        ids
    }
}

type FailureName = &'static str;

fn start(settings: Settings) -> (CollectorEnd, Sender) {
    let Settings { options, destination } = settings;
    start_with(options, vec![destination])
}

fn start_with(options: Options, destinations: Vec<Destination>) -> (CollectorEnd, Sender) {
    let plan = Plan::sample(destinations);
    let (collector, end) = handoff(1 << 20).unwrap();
    (collector, Sender::new(options, plan.into(), end, 7).unwrap())
}

/// Hands batches over, closes, and lets the sender finish.
async fn run(settings: Settings, batches: u64) -> Run {
    run_with(settings, (0..batches).map(batch)).await
}

async fn run_with(settings: Settings, batches: impl Iterator<Item = SealedBatch>) -> Run {
    let (mut collector, sender) = start(settings);
    batches.for_each(|batch| collector.push(batch));
    collector.close();
    let deadline = Duration::from_secs(30);
    let summary = tokio::time::timeout(deadline, sender.run(std::future::pending())).await;
    Run { summary: summary.expect("the sender ends"), acks: collector.take_mail().acks }
}

#[tokio::test(flavor = "current_thread")]
async fn delivers_each_batch_once_within_the_window_and_over_kept_connections() {
    let server = Server::start([]).await;

    let run = run(server.settings(), 40).await;

    assert_eq!(run.delivered(), (0..40).collect::<Vec<_>>());
    let report = &run.summary.report;
    assert_eq!((report.batches_delivered, report.lines_delivered), (40, 80));
    assert_eq!(
        (report.raw_bytes_delivered, report.payload_bytes_delivered),
        (40 * u64::from(FULL), 390)
    );
    assert_eq!((report.attempts, report.in_flight, report.waiting), (40, 0, 0));
    assert!(report.delivered_unix > 0);
    assert_eq!(run.failures(), []);
    assert_eq!(run.summary.unfinished, 0);
    let state = server.state.lock().unwrap();
    assert!((2..=4).contains(&state.under_way_max), "{} at once", state.under_way_max);
    assert!(state.connections <= 4, "{} connections", state.connections);
}

#[tokio::test(flavor = "current_thread")]
async fn the_request_is_what_the_service_expects() {
    let server = Server::start([]).await;

    run(server.settings(), 1).await;

    let seen = &server.seen()[0];
    assert!(seen.head.starts_with("POST /logstores/orders/shards/lb HTTP/1.1\r\n"));
    assert_eq!(seen.header("host"), "shop.127.0.0.1");
    assert_eq!(seen.body, b"payload 0");
    assert_eq!(seen.header("content-md5"), content_md5(b"payload 0"));
    assert_eq!(seen.header("x-log-bodyrawsize"), FULL.to_string());
    assert!(seen.header("authorization").starts_with("LOG id:"));
    assert_eq!(seen.header("transfer-encoding"), "");
    let hosts = seen.head.lines().filter(|line| line.to_lowercase().starts_with("host:"));
    assert_eq!(hosts.count(), 1);
}

#[tokio::test(flavor = "current_thread")]
async fn a_batch_goes_to_its_destination_with_the_keys_of_that() {
    let server = Server::start([]).await;
    let Settings { options, destination } = server.settings();
    let other = Destination {
        project: "stock".to_owned(),
        logstore: "parts".to_owned(),
        credentials: CredentialsSource::Unsigned,
        ..destination.clone()
    };
    let (mut collector, sender) = start_with(options, vec![destination, other]);
    collector.push(small(0));
    collector.push(SealedBatch { destination: DestinationId(1), ..small(1) });
    collector.close();

    let summary = sender.run(std::future::pending()).await;

    assert_eq!((summary.report.attempts, summary.report.batches_delivered), (2, 2));
    let mut seen = server.seen();
    seen.sort_by(|one, other| one.body.cmp(&other.body));
    let facts = |seen: &Seen| {
        let target = seen.head.split(' ').nth(1).unwrap().to_owned();
        (target, seen.header("host").to_owned(), !seen.header("authorization").is_empty())
    };
    let text = str::to_owned;
    assert_eq!(
        seen.iter().map(facts).collect::<Vec<_>>(),
        [
            (text("/logstores/orders/shards/lb"), text("shop.127.0.0.1"), true),
            (text("/logstores/parts/shards/lb"), text("stock.127.0.0.1"), false),
        ]
    );
}

#[tokio::test(flavor = "current_thread")]
async fn what_is_due_together_goes_together() {
    let server = Server::start([]).await;

    let run = run_with(server.settings(), (0..40).map(small)).await;

    assert_eq!(run.delivered(), (0..40).collect::<Vec<_>>());
    let report = &run.summary.report;
    assert_eq!((report.attempts, report.lists, report.batches_delivered), (1, 1, 40));
    assert_eq!(server.seen()[0].header("x-log-mode"), "batch_group");
}

#[tokio::test(flavor = "current_thread")]
async fn what_may_have_arrived_twice_is_counted() {
    let server = Server::start([Reply::Reset]).await;

    let run = run(server.settings(), 3).await;

    assert_eq!(run.delivered(), [0, 1, 2]);
    assert_eq!(run.summary.report.possible_duplicates, 1);
}

#[tokio::test(flavor = "current_thread")]
async fn no_clock_of_an_endpoint_is_too_absurd_to_connect_to() {
    let time = format!("x-log-time: {}\r\n", i64::MIN);
    let server = Server::start([answer(200, &time, "[]")]).await;

    let Settings { options, destination } = server.settings();
    let connected = connect(&options, &destination).await.unwrap();

    assert!(connected.clock_offset_seconds.unwrap() < 0);
}

#[tokio::test(flavor = "current_thread")]
async fn what_found_no_connection_has_not_arrived() {
    let server = Server::start([Reply::Reset]).await;
    let no_tls = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let no_tls_port = no_tls.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (mut stream, _) = no_tls.accept().await.unwrap();
        stream.write_all(b"HTTP/1.1 400 X\r\n\r\n").await.unwrap();
        std::future::pending::<()>().await;
    });
    let arrived = async |Settings { options, destination }| {
        let request = request::put_logs(&destination, &[batch(0)], None, 0);
        let client = Client::new(&options, &[destination]).unwrap();
        let answer = client.send(request).await;
        answer.unwrap_err().may_have_arrived()
    };
    let elsewhere = |tls, host: &str, port| {
        let mut settings = server.settings();
        settings.options.request_timeout = Duration::from_secs(15);
        settings.destination.endpoint = Endpoint { tls, host: host.to_owned(), port };
        settings
    };

    assert!(arrived(server.settings()).await, "closed without an answer");
    assert!(!arrived(elsewhere(true, "127.0.0.1", no_tls_port)).await, "no TLS there");
    assert!(!arrived(elsewhere(false, "127.0.0.1", 1)).await, "nobody there");
    assert!(!arrived(elsewhere(false, "a.name.invalid", 80)).await, "no such name");
}

#[tokio::test(flavor = "current_thread")]
async fn server_errors_are_tried_again_with_the_same_body() {
    let busy = r#"{"errorCode":"ServerBusy","errorMessage":"later"}"#;
    let server = Server::start([answer(500, "", ""), answer(503, "", busy)]).await;

    let run = run(server.settings(), 1).await;

    assert_eq!(run.delivered(), [0]);
    assert_eq!(run.failures(), [("server", 2)]);
    assert_eq!(run.summary.report.attempts, 3);
    assert_eq!(run.summary.report.last_error, "");
    assert!(server.seen().iter().all(|seen| seen.body == b"payload 0"));
}

#[tokio::test(flavor = "current_thread")]
async fn connections_cut_before_the_answer_are_tried_again() {
    let server = Server::start([Reply::Reset, Reply::Reset]).await;

    let run = run(server.settings(), 3).await;

    assert_eq!(run.delivered(), [0, 1, 2]);
    assert_eq!(run.failures(), [("network", 2)]);
}

#[tokio::test(flavor = "current_thread")]
async fn a_200_without_a_request_id_is_no_acknowledgement() {
    let server = Server::start([stranger(200, ""), stranger(302, "Location: /login\r\n")]).await;

    let run = run(server.settings(), 1).await;

    assert_eq!(run.delivered(), [0]);
    assert_eq!(run.failures(), [("unverified", 2)]);
    let paths = server.seen().iter().filter(|seen| seen.head.contains("/login")).count();
    assert_eq!(paths, 0, "a redirect is not followed");
}

#[tokio::test(flavor = "current_thread")]
async fn a_200_without_a_request_id_will_do_where_nobody_verifies() {
    let server = Server::start([stranger(200, "")]).await;
    let mut settings = server.settings();
    settings.options.verify_response = false;

    let run = run(settings, 1).await;

    assert_eq!(run.delivered(), [0]);
    assert_eq!(run.summary.report.attempts, 1);
}

#[tokio::test(flavor = "current_thread")]
async fn an_endpoint_that_hangs_is_given_its_time_and_tried_again() {
    let server = Server::start([Reply::Hang]).await;

    let run = run(server.settings(), 1).await;

    assert_eq!(run.delivered(), [0]);
    assert_eq!(run.failures(), [("network", 1)]);
}

#[tokio::test(flavor = "current_thread")]
async fn an_address_where_nobody_listens_is_a_network_failure() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let mut settings = Server::start([]).await.settings();
    settings.destination.endpoint.port = port;
    let (mut collector, sender) = start(settings);
    collector.push(batch(0));

    let summary = sender.run(tokio::time::sleep(Duration::from_millis(300))).await;

    assert!(summary.report.last_error.contains("refused"), "{}", summary.report.last_error);
    assert!(summary.report.last_error.contains("check that http://127.0.0.1"));
    assert_eq!(summary.unfinished, 1);
}

#[tokio::test(flavor = "current_thread")]
async fn content_refused_for_good_comes_back_and_the_rest_goes_on() {
    let invalid = r#"{"errorCode":"PostBodyInvalid","errorMessage":"no such thing"}"#;
    let server = Server::start([answer(400, "", invalid)]).await;

    let run = run(server.settings(), 3).await;

    assert_eq!(run.delivered(), [1, 2]);
    let Outcome::Refused { batch, refusal } = &run.acks[0].outcome else { panic!() };
    assert_eq!(refusal.words(), ("PostBodyInvalid", "no such thing"));
    assert_eq!(&*batch.payload, b"payload 0");
    assert_eq!(run.summary.report.batches_rejected, 1);
    assert_eq!(run.failures(), []);
}

#[tokio::test(flavor = "current_thread")]
async fn a_complaint_about_the_date_sets_the_clock_and_is_answered_at_once() {
    let expired = r#"{"errorCode":"RequestTimeExpired","errorMessage":"expired"}"#;
    let server_time = local_unix() + 1200;
    let headers = format!("x-log-time: {server_time}\r\n");
    let server = Server::start([answer(400, &headers, expired)]).await;

    let run = run(server.settings(), 2).await;

    assert_eq!(run.delivered(), [0, 1]);
    assert_eq!(run.failures(), [("clock", 1)]);
    let offset = run.summary.report.clock_offset_seconds;
    assert!((1195..=1205).contains(&offset), "{offset}");
    let seen = server.seen();
    assert_eq!(seen.len(), 3);
    assert_ne!(seen[0].header("date"), seen[1].header("date"));
    assert_ne!(seen[0].header("authorization"), seen[1].header("authorization"));
}

#[tokio::test(flavor = "current_thread")]
async fn a_connection_closed_while_idle_costs_no_failure() {
    let server = Server::start([Reply::AcceptAndClose, Reply::AcceptAndClose]).await;
    let (mut collector, sender) = start(server.settings());
    let work = async {
        let mut delivered = 0;
        for id in 0..3 {
            collector.push(batch(id));
            while delivered <= id {
                tokio::time::sleep(Duration::from_millis(5)).await;
                delivered += collector.take_mail().acks.len() as u64;
            }
        }
        collector.close();
    };

    let (summary, ()) = tokio::join!(sender.run(std::future::pending()), work);

    assert_eq!(summary.report.failures, [0; crate::base::report::FAILURE_KINDS.len()]);
    assert_eq!((summary.report.attempts, summary.report.batches_delivered), (3, 3));
    assert_eq!(server.state.lock().unwrap().connections, 3);
}

#[tokio::test(flavor = "current_thread")]
async fn giving_up_cuts_off_what_is_under_way() {
    let server = Server::start([Reply::Hang]).await;
    let mut settings = server.settings();
    settings.options.request_timeout = Duration::from_secs(60);
    let (mut collector, sender) = start(settings);
    (0..3).for_each(|id| collector.push(batch(id)));
    collector.close();

    let summary = sender.run(tokio::time::sleep(Duration::from_millis(100))).await;

    assert_eq!(summary.unfinished, 3);
    assert_eq!(summary.report.attempts, 1, "the window starts at 1");
    assert!(collector.take_mail().acks.is_empty());
}

#[tokio::test(flavor = "current_thread")]
async fn a_missing_credentials_file_is_waited_for_without_a_request() {
    let server = Server::start([]).await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("key.json");
    let mut settings = server.settings();
    settings.destination.credentials = CredentialsSource::File(path.clone());
    let (mut collector, sender) = start(settings);
    collector.push(batch(0));
    collector.close();
    let late = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(server.seen().is_empty());
        let text = r#"{"access_key_id":"from-file","access_key_secret":"s3cret"}"#;
        std::fs::write(&path, text).unwrap();
    };

    let (summary, ()) = tokio::join!(sender.run(std::future::pending()), late);

    assert_eq!(summary.report.failures[FailureKind::Credentials.index()], 1);
    assert_eq!((summary.report.attempts, summary.report.batches_delivered), (1, 1));
    assert!(server.seen()[0].header("authorization").starts_with("LOG from-file:"));
}

#[tokio::test(flavor = "current_thread")]
async fn connect_tells_whether_delivery_would_work() {
    let missing = r#"{"errorCode":"LogStoreNotExist","errorMessage":"no orders"}"#;
    let server = Server::start([accept(), answer(404, "", missing), stranger(200, "")]).await;
    let Settings { options, destination } = server.settings();
    let ask = async || connect(&options, &destination).await;

    let connected = ask().await.unwrap();
    assert_eq!(connected.request_id.as_deref(), Some("5F3A"));
    let error = ask().await.unwrap_err().to_string();
    assert!(error.contains("LogStoreNotExist") && error.contains("LOGFERRY_LOGSTORE"), "{error}");
    let error = ask().await.unwrap_err().to_string();
    assert!(error.contains("LOGFERRY_VERIFY_RESPONSE"), "{error}");

    let seen = &server.seen()[0];
    assert!(seen.head.starts_with("GET /logstores/orders/shards HTTP/1.1\r\n"), "{}", seen.head);
    assert!(seen.header("authorization").starts_with("LOG id:"));
}
