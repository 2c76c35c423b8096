//! The admin port over real sockets, with reports that the tests publish.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::oneshot;

use super::*;
use crate::base::clock;
use crate::base::report::{CollectorReport, FileList, FileReport, FileSums, SenderReport};
use crate::handoff::{CollectorEnd, SenderEnd, handoff};

/// A server on a thread of its own, and both ends of its hand-off.
pub(crate) struct Served {
    pub(crate) address: SocketAddr,
    pub(crate) collector: CollectorEnd,
    pub(crate) sender: SenderEnd,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Served {
    pub(crate) fn start() -> Self {
        Self::start_with(|_| {})
    }

    fn start_with(change: impl FnOnce(&mut Server)) -> Self {
        let listen = Some("127.0.0.1:0".parse().unwrap());
        let mut server = Server::bind(&Options { listen }).unwrap();
        change(&mut server);
        let address = server.local_addr().unwrap();
        let (collector, sender) = handoff(1000).unwrap();
        let (stop, stopped) = oneshot::channel();
        let end = sender.clone();
        let thread = std::thread::spawn(move || {
            runtime().block_on(server.serve(end, facts(), async { drop(stopped.await) })).unwrap();
        });
        Self { address, collector, sender, stop: Some(stop), thread: Some(thread) }
    }

    fn get(&self, path: &str) -> Answer {
        ask(self.address, &format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"))
    }

    /// Does what asks for the list of files, and answers as the collector would.
    pub(crate) fn with_files<T: Send>(
        &mut self,
        files: Vec<FileReport>,
        ask: impl FnOnce() -> T + Send,
    ) -> T {
        std::thread::scope(|scope| {
            let asking = scope.spawn(ask);
            let mut list = Some(FileList { made_unix: 60, files });
            while !asking.is_finished() {
                if self.collector.take_mail().wants_files {
                    self.collector.publish_files(list.take().unwrap_or_default());
                }
                std::thread::yield_now();
            }
            asking.join().unwrap()
        })
    }

    fn metrics(&self) -> Answer {
        self.metrics_as("application/openmetrics-text")
    }

    fn metrics_as(&self, accept: &str) -> Answer {
        let request = format!("GET /metrics HTTP/1.1\r\nHost: x\r\nAccept: {accept}\r\n\r\n");
        ask(self.address, &request)
    }

    fn status(&mut self, files: Vec<FileReport>) -> Answer {
        let address = self.address;
        self.with_files(files, || ask(address, "GET /status HTTP/1.1\r\nHost: x\r\n\r\n"))
    }

    fn connect(&self) -> TcpStream {
        connect(self.address)
    }

    fn stop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop();
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn facts() -> Facts {
    Facts {
        version: "1.2.3".to_owned(),
        // Still to come, so that the time it has been up is 0 however slow a test is.
        started: clock::now() + Duration::from_secs(3600),
        started_unix: 5,
        state_dir: "/var/lib/\"ferry\"".into(),
        endpoint: "https://cn-hangzhou.log.aliyuncs.com".to_owned(),
        project: "shop".to_owned(),
        logstore: "app".to_owned(),
        log_lines_dropped: Arc::new(7.into()),
    }
}

struct Answer {
    code: u16,
    head: String,
    body: String,
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream
}

/// Sends a request and reads until the server closes.
fn ask(address: SocketAddr, request: &str) -> Answer {
    let mut stream = connect(address);
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let code = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { code, head: head.to_ascii_lowercase(), body: body.to_owned() }
}

/// Reads until the server ends the connection, and gives what came.
fn read_to_end(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
        Err(error) => panic!("the server left it open: {error}"),
    }
    bytes
}

// === probes

#[test]
fn live_needs_no_report() {
    let served = Served::start();
    let answer = served.get("/live");
    assert_eq!((answer.code, answer.body.as_str()), (200, "ok\n"));
}

#[test]
fn ready_after_the_first_search_and_no_more_once_told_to_stop() {
    let served = Served::start();
    let answer = served.get("/ready");
    assert_eq!(answer.code, 503);
    assert!(answer.body.contains("first search"), "{}", answer.body);

    served.collector.publish(CollectorReport { ready: true, ..CollectorReport::default() });
    assert_eq!(served.get("/ready").code, 200);

    // The collector has not seen the wish yet: its report still says ready.
    served.sender.ask_to_drain();
    let answer = served.get("/ready");
    assert_eq!(answer.code, 503);
    assert!(answer.body.contains("stopping"), "{}", answer.body);
    assert_eq!(served.get("/live").code, 200);
}

#[test]
fn other_paths_and_methods_are_refused_with_what_would_be_right() {
    let served = Served::start();
    for path in ["/", "/healthz", "/status/", "/metrics/x", "/%2e%2e/etc/passwd"] {
        let answer = served.get(path);
        assert_eq!(answer.code, 404, "{path}");
        for known in ["/live", "/ready", "/metrics", "/status"] {
            assert!(answer.body.contains(known), "{path}: {}", answer.body);
        }
    }
    let post = "POST /status HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi";
    let answer = ask(served.address, post);
    assert_eq!(answer.code, 405);
    assert!(answer.body.contains("GET"), "{}", answer.body);
    assert!(answer.head.contains("allow: get"), "{}", answer.head);
}

#[test]
fn a_name_that_was_made_to_lead_here_is_told_nothing() {
    let served = Served::start();
    for host in
        ["evil.example.com", "evil.example.com:9465", "127.0.0.1.nip.io", "localhost.evil.com"]
    {
        for path in ["/live", "/ready", "/metrics", "/status", "/nowhere"] {
            let answer =
                ask(served.address, &format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
            assert_eq!(answer.code, 403, "{path} {host}");
            assert!(answer.body.contains("localhost"), "{}", answer.body);
        }
    }
    let port = served.address.port();
    for host in ["127.0.0.1", "localhost", "LOCALHOST", "[::1]"] {
        for host in [host.to_owned(), format!("{host}:{port}"), format!("{host}:1234")] {
            let answer =
                ask(served.address, &format!("GET /live HTTP/1.1\r\nHost: {host}\r\n\r\n"));
            assert_eq!(answer.code, 200, "{host}");
        }
    }
    assert_eq!(ask(served.address, "GET /live HTTP/1.0\r\n\r\n").code, 200);
}

/// A probe asks the pod's address, and a scraper may ask by any name.
#[test]
fn where_others_may_ask_they_may_by_any_name() {
    let listen = Some("0.0.0.0:0".parse().unwrap());
    let served = Served::start_with(|server| *server = Server::bind(&Options { listen }).unwrap());
    let to = SocketAddr::from(([127, 0, 0, 1], served.address.port()));
    for host in ["10.1.2.3:9465", "pod-1.logs.example.com"] {
        let answer = ask(to, &format!("GET /live HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        assert_eq!(answer.code, 200, "{host}");
    }
}

// === metrics

/// Samples by name and labels. Panics on anything that OpenMetrics does not allow.
fn parse_metrics(text: &str) -> BTreeMap<String, f64> {
    let body = text.strip_suffix("# EOF\n").expect("it ends with the end mark");
    let (mut families, mut samples) = (BTreeSet::new(), BTreeMap::new());
    let (mut helped, mut family) = (String::new(), String::new());
    let mut suffixes: &[&str] = &[];
    let mut samples_of_family = 1;
    for line in body.lines() {
        assert_eq!(line, line.trim(), "no space around");
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, text) = help.split_once(' ').unwrap();
            assert!(!text.is_empty() && text.ends_with('.'), "{line}");
            assert!(families.insert(name.to_owned()), "described twice: {name}");
            assert!(samples_of_family > 0, "no sample before {name}");
            helped = name.to_owned();
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            assert_eq!(name, helped, "the type follows the help");
            family = name.to_owned();
            samples_of_family = 0;
            suffixes = match kind {
                "counter" => &["_total"],
                "gauge" => &[""],
                "info" => &["_info"],
                "histogram" => &["_sum", "_count", "_bucket"],
                other => panic!("unknown type {other}"),
            };
        } else {
            assert_eq!(family, helped, "a type before the samples");
            let (key, value) = line.rsplit_once(' ').unwrap();
            let (name, labels) = key.split_once('{').unwrap_or((key, "}"));
            let suffix = name.strip_prefix(&family).expect("the name of its family");
            assert!(suffixes.contains(&suffix), "{name}");
            assert!(name.starts_with("logferry_"));
            assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{name}");
            check_labels(labels.strip_suffix('}').expect("labels are closed"));
            let value = value.parse().expect("a number");
            assert_eq!(samples.insert(key.to_owned(), value), None, "twice: {key}");
            samples_of_family += 1;
        }
    }
    assert!(samples_of_family > 0, "no sample of {family}");
    samples
}

/// `key="value",…` with quotes, backslashes and newlines in values escaped.
fn check_labels(mut labels: &str) {
    while !labels.is_empty() {
        let (key, rest) = labels.split_once("=\"").expect("a quoted value");
        assert!(key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{key}");
        let mut letters = rest.char_indices();
        let end = loop {
            match letters.next().expect("the quote is closed") {
                (_, '\\') => assert!(matches!(letters.next(), Some((_, '\\' | '"' | 'n')))),
                (at, '"') => break at,
                _ => {}
            }
        };
        let rest = &rest[end + 1..];
        labels = rest.strip_prefix(',').unwrap_or(rest);
        assert!(labels.is_empty() || rest.starts_with(','), "{rest}");
    }
}

/// Sets each number in a report to another one; they are added to `numbers`. They are odd, as no
/// number of bytes in whole pages is.
fn fill(value: &mut Value, numbers: &mut Vec<u64>) {
    match value {
        Value::Number(number) => {
            let other = 7_000_001 + 2 * numbers.len() as u64;
            numbers.push(other);
            *number = other.into();
        }
        Value::Array(values) => values.iter_mut().for_each(|value| fill(value, numbers)),
        Value::Object(values) => values.values_mut().for_each(|value| fill(value, numbers)),
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

fn filled<T: serde::Serialize + serde::de::DeserializeOwned + Default>(
    numbers: &mut Vec<u64>,
) -> T {
    let mut value = serde_json::to_value(T::default()).unwrap();
    fill(&mut value, numbers);
    serde_json::from_value(value).unwrap()
}

#[test]
fn every_number_of_the_reports_is_a_metric_of_its_own() {
    let served = Served::start();
    let mut numbers = Vec::new();
    served.collector.publish(filled(&mut numbers));
    served.sender.publish(filled(&mut numbers));
    assert!(numbers.len() > 40, "the reports are full of numbers: {}", numbers.len());

    let answer = served.metrics();

    assert_eq!(answer.code, 200);
    let content_type = "content-type: application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert!(answer.head.contains(content_type), "{}", answer.head);
    let samples = parse_metrics(&answer.body);
    for number in numbers {
        let found = samples.values().filter(|&&value| value == number as f64).count();
        assert_eq!(found, 1, "{number} in {samples:#?}");
    }
}

/// What Prometheus, a browser and curl send, and what they get.
#[test]
fn open_metrics_is_for_who_asks_for_it() {
    let served = Served::start();
    let prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,\
        application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
    for (accept, is_open) in [
        (prometheus, true),
        ("application/openmetrics-text", true),
        ("text/plain, Application/OpenMetrics-Text; version=1.0.0", true),
        ("", false),
        ("*/*", false),
        ("text/html,application/xhtml+xml,*/*;q=0.8", false),
        ("text/plain;version=0.0.4", false),
        ("text/plain;q=0.5,application/openmetrics-text;q=0.4", false),
        ("application/openmetrics-text;q=0", false),
        ("application/openmetrics-textual", false),
        (";;,q=,application/openmetrics-text;q=x", false),
    ] {
        let answer = served.metrics_as(accept);
        let kind = if is_open {
            "application/openmetrics-text; version=1.0.0"
        } else {
            "text/plain; version=0.0.4"
        };
        let header = format!("content-type: {kind}; charset=utf-8");
        assert!(answer.head.contains(&header), "{accept}: {}", answer.head);
        assert_eq!(answer.body.ends_with("# EOF\n"), is_open, "{accept}");
    }
    assert!(
        served.get("/metrics").head.contains("text/plain; version=0.0.4"),
        "without the header"
    );
}

/// The plain text says the same, and `promtool check metrics` has nothing to say of it.
#[test]
fn the_plain_text_has_the_same_samples_and_no_lint() {
    let served = Served::start();
    let mut numbers = Vec::new();
    served.collector.publish(filled(&mut numbers));
    served.sender.publish(filled(&mut numbers));
    let text = served.metrics_as("*/*").body;

    let samples = |text: &str| -> BTreeSet<String> {
        let is_steady =
            |line: &&str| !line.starts_with('#') && !line.starts_with("logferry_process_");
        text.lines().filter(is_steady).map(str::to_owned).collect()
    };
    assert_eq!(samples(&text), samples(&served.metrics().body));
    let families: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
    assert!(families.contains(&"logferry_requests_total counter"), "{families:?}");
    assert!(families.contains(&"logferry_build_info gauge"), "{families:?}");
    assert_eq!(families.iter().collect::<BTreeSet<_>>().len(), families.len(), "each once");
    for family in families {
        let (name, _) = family.split_once(' ').unwrap();
        assert!(text.contains(&format!("# HELP {name} ")), "{name} has a help");
    }

    let promtool = std::process::Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn();
    let mut promtool = match promtool {
        Ok(promtool) => promtool,
        Err(error) => return println!("skipped its part with promtool: {error}"),
    };
    promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success() && said.is_empty(), "{said}");
}

#[test]
fn kinds_and_reasons_are_labels() {
    let served = Served::start();
    let mut report = CollectorReport::default();
    report.counters.sealed_minute = 3;
    report.counters.skipped_deleted_bytes = 4;
    served.collector.publish(report);
    let mut report = SenderReport { last_error: "refused".to_owned(), ..SenderReport::default() };
    report.failures[2] = 5;
    served.sender.publish(report);

    let samples = parse_metrics(&served.metrics().body);

    assert_eq!(samples["logferry_sealed_batches_total{reason=\"minute\"}"], 3.0);
    assert_eq!(samples["logferry_sealed_batches_total{reason=\"age\"}"], 0.0);
    assert_eq!(samples["logferry_skipped_bytes_total{reason=\"deleted\"}"], 4.0);
    assert_eq!(samples["logferry_request_failures_total{kind=\"quota\"}"], 5.0);
    assert_eq!(samples["logferry_delivery_failing"], 1.0);
    assert_eq!(samples["logferry_ready"], 0.0);
}

#[test]
fn ages_of_lines_are_a_histogram() {
    let served = Served::start();
    let mut report = SenderReport::default();
    report.ages.count(Duration::from_millis(200), 10);
    report.ages.count(Duration::from_millis(201), 5);
    report.ages.count(Duration::from_secs(7200), 1);
    served.sender.publish(report);

    let samples = parse_metrics(&served.metrics().body);

    let within = |le: &str| samples[&format!("logferry_delivery_seconds_bucket{{le=\"{le}\"}}")];
    let bounds = ["0.1", "0.2", "0.3", "1.0", "3600.0", "+Inf"];
    assert_eq!(bounds.map(within), [0.0, 10.0, 15.0, 15.0, 15.0, 16.0]);
    assert_eq!(samples["logferry_delivery_seconds_count"], 16.0);
    assert!((samples["logferry_delivery_seconds_sum"] - 7203.005).abs() < 1e-6);
}

#[test]
fn what_the_admin_port_uses_of_the_thread_is_told() {
    let served = Served::start();
    assert_eq!(served.sender.admin_cpu(), Duration::ZERO);
    let mut before = Duration::ZERO;
    for path in ["/live", "/ready", "/metrics", "/none"] {
        served.get(path);
        let used = served.sender.admin_cpu();
        assert!(used > before + Duration::from_millis(1), "{path}: {used:?}, {before:?} before");
        before = used;
    }
}

#[test]
fn the_process_is_measured() {
    let served = Served::start();

    let samples = parse_metrics(&served.metrics().body);

    assert!(samples["logferry_process_resident_memory_bytes"] > 1e6);
    assert!(samples["logferry_process_cpu_seconds_total"] > 0.0);
    assert!(samples["logferry_process_open_fds"] >= 3.0);
    assert_eq!(samples["logferry_process_start_time_seconds"], 5.0);
    let info = samples.keys().find(|key| key.starts_with("logferry_build_info")).unwrap();
    assert!(info.contains("version=\"1.2.3\"") && info.contains("project=\"shop\""), "{info}");
}

fn file(path: &str, state: &str, lag_bytes: u64, lag_seconds: u64) -> FileReport {
    FileReport {
        path: path.to_owned(),
        state: state.to_owned(),
        device: 66306,
        inode: 1311,
        size: 1000,
        read_offset: 990,
        acked_offset: 1000 - lag_bytes,
        lag_bytes,
        lag_seconds,
        last_error: String::new(),
    }
}

#[test]
fn files_are_summed_up() {
    let served = Served::start();
    let files = FileSums {
        active: 2,
        deleted: 1,
        failing: 1,
        unread_bytes: 30,
        lag_bytes: 60,
        lag_seconds: 40,
        ..FileSums::default()
    };
    served.collector.publish(CollectorReport { files, ..CollectorReport::default() });

    let samples = parse_metrics(&served.metrics().body);

    assert_eq!(samples["logferry_files{state=\"active\"}"], 2.0);
    assert_eq!(samples["logferry_files{state=\"rotated\"}"], 0.0);
    assert_eq!(samples["logferry_files{state=\"deleted\"}"], 1.0);
    assert_eq!(samples["logferry_failing_files"], 1.0);
    assert_eq!(samples["logferry_unread_bytes"], 30.0);
    assert_eq!(samples["logferry_lag_bytes"], 60.0);
    assert_eq!(samples["logferry_lag_seconds"], 40.0);
}

#[test]
fn every_state_of_a_file_has_its_series() {
    use crate::tail::tracked::State;
    for state in [State::Active, State::Rotated, State::Deleted] {
        assert!(metrics::FILE_STATES.contains(&state.name()), "{}", state.name());
    }
}

// === status

#[test]
fn status_has_the_documented_fields() {
    let mut served = Served::start();
    let mut failing = file("/share/logs/app.log", "active", 300, 2);
    failing.last_error = "cannot stat".to_owned();
    let mut report = CollectorReport { ready: true, ..CollectorReport::default() };
    report.checkpoint_error = "no space".to_owned();
    report.files.active = 1;
    served.collector.publish(report);
    let mut report = SenderReport { last_error: "refused".to_owned(), ..SenderReport::default() };
    report.failures[0] = 7;
    served.sender.publish(report);

    let answer = served.status(vec![failing]);

    assert_eq!(answer.code, 200);
    assert!(answer.head.contains("content-type: application/json"), "{}", answer.head);
    let status: Value = serde_json::from_str(&answer.body).unwrap();
    let names: Vec<&String> = status.as_object().unwrap().keys().collect();
    assert_eq!(
        names,
        [
            "checkpoint",
            "collector",
            "draining",
            "endpoint",
            "errors",
            "files",
            "files_unix",
            "handoff",
            "limits",
            "links_refused",
            "logstore",
            "not_ready_reason",
            "patterns_without_files",
            "polling",
            "project",
            "ready",
            "sender",
            "source",
            "started_unix",
            "state_dir",
            "totals",
            "uptime_seconds",
            "version",
        ]
    );
    assert_eq!(status["source"], "agent");
    assert_eq!(status["ready"], true);
    assert_eq!(status["endpoint"], "https://cn-hangzhou.log.aliyuncs.com");
    assert_eq!(
        status["files"][0],
        serde_json::json!({
            "path": "/share/logs/app.log", "state": "active", "device": 66306, "inode": 1311,
            "size": 1000, "read_offset": 990, "acked_offset": 700, "lag_bytes": 300,
            "lag_seconds": 2, "last_error": "cannot stat",
        })
    );
    assert_eq!((&status["files_unix"], &status["totals"]["active"]), (&60.into(), &1.into()));
    assert_eq!(status["sender"]["failures"]["network"], 7);
    assert_eq!(status["sender"]["failures"]["quota"], 0);
    assert_eq!(
        status["errors"],
        serde_json::json!([
            {"about": "delivery", "error": "refused"},
            {"about": "checkpoint", "error": "no space"},
            {"about": "/share/logs/app.log", "error": "cannot stat"},
        ])
    );
}

#[test]
fn every_number_of_the_reports_is_in_the_status() {
    let mut served = Served::start();
    let mut numbers = Vec::new();
    served.collector.publish(filled(&mut numbers));
    served.sender.publish(filled(&mut numbers));

    let body = served.status(Vec::new()).body;

    for number in numbers {
        assert!(body.contains(&format!(":{number}")), "{number} in {body}");
    }
}

#[test]
fn a_status_of_five_thousand_files_arrives_whole() {
    let mut served = Served::start();
    let many = (0..5000).map(|n| file(&format!("/share/logs/{n}.log"), "active", 1, 1)).collect();
    let status: Value = serde_json::from_str(&served.status(many).body).unwrap();
    assert_eq!(status["files"].as_array().unwrap().len(), 5000);
}

#[test]
fn a_collector_that_does_not_answer_is_said_with_the_list_before() {
    let mut served = Served::start();
    served.status(vec![file("/share/logs/app.log", "active", 1, 1)]);

    let status: Value = serde_json::from_str(&served.get("/status").body).unwrap();

    assert_eq!((&status["files_unix"], &status["files"][0]["size"]), (&60.into(), &1000.into()));
    assert_eq!(status["errors"][0]["about"], "files");
}

// === limits

#[test]
fn silent_clients_do_not_shut_a_probe_out() {
    let served = Served::start();
    let started = clock::now();
    let mut silent: Vec<TcpStream> = (0..60).map(|_| served.connect()).collect();

    assert_eq!(served.get("/live").code, 200);

    // The oldest gave way; nobody had to wait for a time limit.
    assert_eq!(read_to_end(&mut silent[0]), b"");
    assert!(clock::now() - started < Duration::from_secs(4), "{:?}", clock::now() - started);
}

#[test]
fn a_client_that_sends_a_byte_at_a_time_is_cut_off() {
    let lifetime = Duration::from_millis(300);
    let served = Served::start_with(|server| server.limits.lifetime = lifetime);
    let started = clock::now();
    let mut slow = served.connect();
    slow.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let mut request = b"GET /live HTTP/1.1\r\nX: ".iter().chain(std::iter::repeat(&b'x'));

    let mut byte = [0];
    let is_cut_off = loop {
        let is_sent = slow.write_all(&[*request.next().unwrap()]).is_ok();
        match slow.read(&mut byte) {
            Ok(0) => break true,
            Ok(_) => break false,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock && is_sent => {}
            Err(_) => break true,
        }
        assert!(clock::now() - started < Duration::from_secs(10), "it is still open");
    };

    assert!(is_cut_off, "an unfinished request got an answer");
    assert!(clock::now() - started >= lifetime, "it had its time");
    assert_eq!(served.get("/live").code, 200);
}

#[test]
fn a_client_that_does_not_read_is_cut_off() {
    let lifetime = Duration::from_millis(300);
    let mut served = Served::start_with(|server| server.limits.lifetime = lifetime);
    // Far more than the socket buffers of both sides hold.
    let (count, path_bytes) = (60_000, 200);
    let many = (0..count).map(|n| file(&format!("/{n:0path_bytes$}"), "active", 1, 1)).collect();
    let mut lazy = served.connect();
    lazy.write_all(b"GET /status HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    while !served.collector.take_mail().wants_files {
        std::thread::yield_now();
    }
    served.collector.publish_files(FileList { made_unix: 60, files: many });

    // Its time runs out while it does nothing: seen by what another connection lives through.
    assert_eq!(read_to_end(&mut served.connect()), b"");
    assert_eq!(read_to_end(&mut served.connect()), b"");

    let received = read_to_end(&mut lazy).len();
    assert!(received < count * path_bytes, "{received} bytes came in spite of its pause");
}

#[test]
fn a_request_is_read_up_to_a_bound() {
    let served = Served::start();
    let padded =
        |bytes| format!("GET /live HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "x".repeat(bytes));
    assert_eq!(ask(served.address, &padded(8 << 10)).code, 200);

    // The server on top would take a head of this size.
    let mut stream = served.connect();
    // It may be cut off while it is sent.
    let _ = stream.write_all(padded(64 << 10).as_bytes());

    assert_eq!(read_to_end(&mut stream), b"");
}

#[test]
fn stops_at_once_although_clients_are_connected() {
    let mut served = Served::start();
    let mut silent = served.connect();
    // Once this one is answered, the one before it is accepted.
    assert_eq!(served.get("/live").code, 200);
    let started = clock::now();

    served.stop();

    assert!(clock::now() - started < Duration::from_secs(2), "{:?}", clock::now() - started);
    assert_eq!(read_to_end(&mut silent), b"");
    assert!(TcpStream::connect(served.address).is_err());
}

// === binding

#[test]
fn an_address_that_cannot_be_had_is_named_with_its_setting() {
    let served = Served::start();
    let refusal = Server::bind(&Options { listen: Some(served.address) }).err().unwrap();
    assert_eq!(refusal.kind(), std::io::ErrorKind::AddrInUse);
    let text = refusal.to_string();
    assert!(text.contains(&served.address.to_string()), "{text}");
    assert!(text.contains("LOGFERRY_LISTEN"), "{text}");
}

#[test]
fn switched_off_it_only_waits() {
    let server = Server::bind(&Options { listen: None }).unwrap();
    assert_eq!(server.local_addr(), None);
    let end = handoff(1).unwrap().1;
    runtime().block_on(server.serve(end, facts(), std::future::ready(()))).unwrap();
}
