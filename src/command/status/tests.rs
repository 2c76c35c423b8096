//! The command against an agent, against other things that listen, and against a directory.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use expect_test::expect;
use serde_json::Value;

use super::*;
use crate::admin::tests::Served;
use crate::base::fingerprint::Fingerprint;
use crate::base::report::{CollectorReport, FileReport, SenderReport};
use crate::checkpoint::format::Checkpoint;
use crate::checkpoint::store::Store;

fn run_text(listen: Option<SocketAddr>, dir: &Path) -> (ExitCode, String) {
    let mut out = Vec::new();
    let code = run(listen, dir, Form::default(), &mut out).unwrap();
    (code, String::from_utf8(out).unwrap())
}

fn run_json(listen: Option<SocketAddr>, dir: &Path) -> (ExitCode, Value) {
    let mut out = Vec::new();
    let form = Form { json: true, ..Form::default() };
    let code = run(listen, dir, form, &mut out).unwrap();
    (code, serde_json::from_slice(&out).unwrap())
}

/// A port that was free a moment ago.
fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

// === a running agent

fn served() -> (Served, Vec<FileReport>) {
    let served = Served::start();
    let file = |path: &str, size, acked_offset, lag_seconds, last_error: &str| FileReport {
        path: path.to_owned(),
        state: "active".to_owned(),
        device: 66306,
        inode: 1311,
        size,
        read_offset: size,
        acked_offset,
        lag_bytes: size - acked_offset,
        lag_seconds,
        last_error: last_error.to_owned(),
    };
    let files = vec![
        file("/share/logs/app.log", 5_000_000, 2_000_000, 75, ""),
        file("/share/logs/b\u{1b}[2J.log", 9, 9, 0, "read it: permission denied"),
    ];
    let mut report = CollectorReport { ready: true, ..CollectorReport::default() };
    report.counters.batches_parked = 2;
    served.collector.publish(report);
    served.sender.publish(SenderReport {
        lines_delivered: 345,
        batches_delivered: 12,
        waiting: 3,
        last_error: "503 ServerBusy".to_owned(),
        ..SenderReport::default()
    });
    (served, files)
}

#[test]
fn shows_what_the_agent_says() {
    let (mut served, files) = served();
    let address = Some(served.address);

    let (code, text) = served.with_files(files, || run_text(address, Path::new("/nonexistent")));

    assert_eq!(code, ExitCode::Done);
    let text = text.replace(&served.address.to_string(), "ADDRESS");
    expect![[r#"
        the agent at ADDRESS: logferry 1.2.3, up for 0s, ready
        to https://cn-hangzhou.log.aliyuncs.com project shop logstore app

        PATH                        STATE   DEVICE:INODE     SIZE     READ    ACKED      LAG  WAITING  LAST ERROR
        /share/logs/app.log         active  66306:1311    5000000  5000000  2000000  2.8 MiB    1m15s
        /share/logs/b\u{1b}[2J.log  active  66306:1311          9        9        9      0 B       0s  read it: permission denied

        files: 0, of these 1 with a lag, the longest 1m15s of /share/logs/app.log; --lagging shows these only
        delivery: 345 lines in 12 batches, last never; 0 in flight, 3 waiting; last error: 503 ServerBusy
        checkpoint: saved never in /var/lib/"ferry"; last error: none
        set aside: 2 refused by the service, in /var/lib/"ferry"/parked: logferry parked list
    "#]]
    .assert_eq(&text);
}

/// The one that has waited longest is seen first, and of five thousand only those that wait if asked.
#[test]
fn the_file_that_lags_most_stands_first() {
    let (mut served, files) = served();
    let (template, address) = (files[0].clone(), Some(served.address));
    let file = |name: &str, lag_bytes, lag_seconds| FileReport {
        path: format!("/share/logs/{name}.log"),
        lag_bytes,
        lag_seconds,
        ..template.clone()
    };
    let mut files: Vec<FileReport> = (0..50).map(|n| file(&format!("even-{n:02}"), 0, 0)).collect();
    files.extend([file("large", 9_000_000, 1), file("late", 1, 900), file("small", 2, 1)]);
    let names = |text: &str| -> Vec<String> {
        let rows = text.lines().filter_map(|line| line.strip_prefix("/share/logs/"));
        rows.map(|row| row.split(".log").next().unwrap().to_owned()).collect()
    };
    let mut show = |form: Form| {
        let mut out = Vec::new();
        served.with_files(files.clone(), || {
            run(address, Path::new("/none"), form, &mut out).unwrap()
        });
        String::from_utf8(out).unwrap()
    };

    let all = show(Form::default());
    assert_eq!(names(&all)[..5], ["late", "large", "small", "even-00", "even-01"]);
    assert_eq!(names(&all).len(), 53);
    assert!(
        all.contains("of these 3 with a lag, the longest 15m00s of /share/logs/late.log"),
        "{all}"
    );

    let few = show(Form { lagging: true, ..Form::default() });
    assert_eq!(names(&few), ["late", "large", "small"]);
    let json: Value = serde_json::from_str(&show(Form { json: true, lagging: true })).unwrap();
    assert_eq!(json["files"].as_array().unwrap().len(), 3);
    assert_eq!(json["files"][0]["path"], "/share/logs/late.log");
}

/// Before the first search is done nobody knows that there are none.
#[test]
fn an_agent_that_has_not_searched_yet_is_not_said_to_ship_nothing() {
    let mut served = Served::start();
    let address = Some(served.address);

    let (code, text) =
        served.with_files(Vec::new(), || run_text(address, Path::new("/nonexistent")));

    assert_eq!(code, ExitCode::Done);
    assert!(!text.contains("no file is being shipped"), "{text}");
    assert!(text.contains("not known yet: the first search for log files is not done"), "{text}");
}

#[test]
fn json_is_what_the_agent_answers() {
    let (mut served, files) = served();
    let address = Some(served.address);
    let (code, status) = served.with_files(files, || run_json(address, Path::new("/nonexistent")));
    assert_eq!(code, ExitCode::Done);
    assert_eq!(status["source"], "agent");
    assert_eq!(status["files"][0]["lag_bytes"], 3_000_000);
    assert_eq!(status["sender"]["failures"]["network"], 0);
}

// === something else listens

/// Runs the command while something gives `answer` to whoever connects, and then closes.
fn run_against(answer: &'static [u8]) -> (ExitCode, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = [0; 1000];
        assert!(stream.read(&mut request).unwrap() > 0);
        stream.write_all(answer).unwrap();
    });
    let dir = tempfile::tempdir().unwrap();
    let result = run_text(Some(address), dir.path());
    server.join().unwrap();
    result
}

#[test]
fn a_stranger_at_the_address_is_named_and_the_directory_is_read() {
    for answer in [
        &b""[..],
        b"220 mail.example.com ESMTP\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n<html>",
        b"HTTP/1.1 200 OK\r\n\r\n{\"source\":\"agent\",\"files\":7}",
        b"HTTP/1.1 404 Not Found\r\n\r\n",
        b"\xff\xfe\0\0\r\n\r\n",
    ] {
        let (code, text) = run_against(answer);
        assert_eq!(code, ExitCode::Done);
        assert!(text.contains("is not a logferry agent"), "{answer:?}: {text}");
        assert!(text.contains("from the state directory"), "{answer:?}: {text}");
    }
}

#[test]
fn nobody_at_the_address_is_said_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let address = free_address();
    let (code, text) = run_text(Some(address), dir.path());
    assert_eq!(code, ExitCode::Done);
    assert!(text.contains(&format!("no agent answers at {address}")), "{text}");
    assert!(text.contains("no file is known"), "{text}");
}

// === the state directory

struct Disk {
    dir: tempfile::TempDir,
    checkpoints: Vec<Checkpoint>,
}

impl Disk {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), checkpoints: Vec::new() }
    }

    fn state_dir(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    /// Makes a file and a checkpoint of it.
    fn file(&mut self, name: &str, bytes: usize, offset: u64) -> PathBuf {
        let resolved = self.dir.path().join(name);
        fs::write(&resolved, vec![b'x'; bytes]).unwrap();
        let found = fs::metadata(&resolved).unwrap();
        self.checkpoints.push(Checkpoint {
            path: PathBuf::from("/share/logs").join(name),
            resolved: resolved.clone(),
            device: found.dev(),
            inode: found.ino(),
            offset,
            head: Fingerprint::default(),
            tail: Fingerprint::default(),
            seen_unix: 7,
            ..Checkpoint::default()
        });
        resolved
    }

    fn save(&self) {
        let mut store = Store::open(&self.state_dir()).unwrap().0;
        store.save(&self.checkpoints, true).unwrap();
    }
}

fn saved_file<'a>(status: &'a Value, name: &str) -> &'a Value {
    let files = status["files"].as_array().unwrap();
    files.iter().find(|file| file["path"].as_str().unwrap().ends_with(name)).unwrap()
}

#[test]
fn without_an_agent_it_holds_the_checkpoints_against_the_files() {
    let mut disk = Disk::new();
    disk.file("level.log", 10, 10);
    disk.file("behind.log", 10, 4);
    disk.file("shrunk.log", 3, 10);
    let replaced = disk.file("replaced.log", 10, 4);
    let gone = disk.file("gone.log", 10, 4);
    disk.save();
    fs::remove_file(gone).unwrap();
    // Made beside it and renamed, so that the old inode is surely not used again.
    fs::write(disk.dir.path().join("other"), "other").unwrap();
    fs::rename(disk.dir.path().join("other"), replaced).unwrap();

    let (code, status) = run_json(None, &disk.state_dir());

    assert_eq!(code, ExitCode::Done);
    assert_eq!(status["source"], "state directory");
    assert!(status["no_agent_reason"].as_str().unwrap().contains("LOGFERRY_LISTEN"));
    let check = |name: &str, size: Value, lag: Value, seconds: Value, error: &str| {
        let file = saved_file(&status, name);
        assert_eq!(file["state"], "saved");
        assert_eq!(file["read_offset"], file["acked_offset"]);
        assert_eq!((&file["size"], &file["lag_bytes"]), (&size, &lag), "{name}");
        assert_eq!(file["lag_seconds"], seconds, "{name}");
        let last_error = file["last_error"].as_str().unwrap();
        assert!(last_error.contains(error), "{name}: {last_error}");
        assert_eq!(last_error.is_empty(), error.is_empty(), "{name}: {last_error}");
    };
    check("level.log", 10.into(), 0.into(), 0.into(), "");
    check("behind.log", 10.into(), 6.into(), Value::Null, "");
    check("shrunk.log", 3.into(), 3.into(), Value::Null, "shorter");
    check("replaced.log", Value::Null, Value::Null, Value::Null, "another file");
    check("gone.log", Value::Null, Value::Null, Value::Null, "No such file");
}

#[test]
fn the_table_from_the_directory_says_where_it_is_from() {
    let mut disk = Disk::new();
    disk.file("app.log", 5000, 1000);
    disk.save();
    let inode = disk.checkpoints[0].inode;
    let device = disk.checkpoints[0].device;

    let (code, text) = run_text(None, &disk.state_dir());

    assert_eq!(code, ExitCode::Done);
    let state_dir = disk.state_dir().display().to_string();
    assert!(text.contains(&format!("from the state directory {state_dir}")), "{text}");
    let row = text.lines().find(|line| line.starts_with("/share/logs/app.log")).unwrap();
    let words: Vec<&str> = row.split_whitespace().collect();
    let identity = format!("{device}:{inode}");
    assert_eq!(
        words,
        ["/share/logs/app.log", "saved", &identity, "5000", "1000", "1000", "3.9", "KiB", "?"]
    );
    assert!(text.contains("delivery: not known without an agent"), "{text}");
}

#[test]
fn damaged_checkpoint_files_are_named() {
    let mut disk = Disk::new();
    disk.file("app.log", 10, 4);
    disk.save();
    let damaged = disk.state_dir().join("checkpoint.now");
    fs::write(&damaged, "LFCKPT\r\nnonsense").unwrap();

    let (code, text) = run_text(None, &disk.state_dir());

    assert_eq!(code, ExitCode::Done);
    assert!(text.contains(&format!("damaged: {}: ", damaged.display())), "{text}");
    assert!(text.contains("/share/logs/app.log"), "{text}");
    let (_, status) = run_json(None, &disk.state_dir());
    assert_eq!(status["damaged"][0]["path"], damaged.to_str().unwrap());
}

#[test]
fn runs_beside_an_agent_that_holds_the_lock() {
    let mut disk = Disk::new();
    disk.file("app.log", 10, 4);
    let (mut store, _) = Store::open(&disk.state_dir()).unwrap();
    store.save(&disk.checkpoints, false).unwrap();
    let (code, status) = run_json(None, &disk.state_dir());
    assert_eq!(code, ExitCode::Done);
    assert_eq!(saved_file(&status, "app.log")["acked_offset"], 4);
}

#[test]
fn a_directory_that_is_not_there_is_an_error_that_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("missing");
    let (code, text) = run_text(None, &missing);
    assert_eq!(code, ExitCode::State);
    assert!(text.contains(missing.to_str().unwrap()), "{text}");
    assert!(text.contains("LOGFERRY_STATE_DIR"), "{text}");
    let (code, status) = run_json(None, &missing);
    assert_eq!(code, ExitCode::State);
    assert!(status["error"].as_str().unwrap().contains("No such file"));
}
