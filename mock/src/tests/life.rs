//! Starting, stopping, keeping.

use std::os::fd::AsFd as _;

use super::*;
use crate::connection::Door;
use crate::{Fault, Kind, Server};

fn put(line: &[u8]) -> Ask {
    Ask::put(&group_of(&[line]), Compression::Lz4)
}

#[test]
fn is_down_and_up_again_on_the_same_port_with_the_same_store() {
    let mut mock = start();
    let address = mock.address();
    assert_eq!(put(b"before").code(address), "");

    mock.stop();
    let error = put(b"meanwhile").send(address).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    let other = tokio::net::TcpSocket::new_v4().unwrap().bind(address).unwrap_err();
    assert_eq!(other.kind(), io::ErrorKind::AddrInUse, "its port is kept");
    mock.resume().unwrap();
    assert_eq!(mock.address(), address);
    assert_eq!(put(b"after").code(address), "");

    assert_eq!(mock.store().lines(), [&b"before"[..], b"after"]);
}

/// A process that is being started has copies of all descriptors until it runs its own program.
#[test]
fn a_port_is_closed_though_somebody_has_a_copy_of_the_listener() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let copy = listener.as_fd().try_clone_to_owned().unwrap();
        let (_, stop) = tokio::sync::watch::channel(false);

        drop(Door { listener, stop });

        let error = TcpStream::connect(address).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        tokio::net::TcpListener::bind(address).await.unwrap();
        drop(copy);
    });
}

#[test]
fn stopping_closes_connections_that_hang_or_idle() {
    let faults = vec![Fault::new(Kind::Hang)];
    let mut mock = Background::start(Options { faults, ..Options::default() }).unwrap();
    let mut idle = TcpStream::connect(mock.address()).unwrap();
    let mut hung = TcpStream::connect(mock.address()).unwrap();
    hung.write_all(&put(b"line").digested().bytes()).unwrap();
    let deadline = logferry_clock::now() + PATIENCE;
    while mock.store().counts().faults.is_empty() {
        assert!(logferry_clock::now() < deadline, "the request never came");
        std::thread::yield_now();
    }

    mock.stop();

    for stream in [&mut idle, &mut hung] {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let ended = stream.read(&mut [0]);
        assert!(
            matches!(&ended, Ok(0))
                || ended.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::ConnectionReset),
            "{ended:?}"
        );
    }
    assert_eq!(mock.store().line_count(), 0);
}

#[test]
fn serves_inside_a_runtime_that_exists() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let server = Server::start(Options::default()).await.unwrap();
        let address = server.address();
        let (done, asked) = tokio::sync::oneshot::channel();
        let client = std::thread::spawn(move || done.send(put(b"line").code(address)));

        assert_eq!(asked.await.as_deref(), Ok(""));
        client.join().unwrap().unwrap();
        assert_eq!(server.endpoint().store().line_count(), 1);
        server.stop().await;
        assert!(put(b"line").send(address).is_err());
    });
}

#[test]
fn a_taken_port_is_an_error() {
    let mock = start();

    let error = Background::start(Options { listen: mock.address(), ..Options::default() });

    assert_eq!(error.unwrap_err().kind(), io::ErrorKind::AddrInUse);
}

#[test]
fn writes_each_group_to_its_directory_before_it_answers() {
    let dir = tempfile::tempdir().unwrap();
    let inside = dir.path().join("made/for/it");
    let options = || Options { dir: Some(inside.clone()), ..Options::default() };
    let lines = || {
        let text = std::fs::read_to_string(inside.join("groups.jsonl")).unwrap();
        let parse = |line| serde_json::from_str::<serde_json::Value>(line).unwrap();
        text.lines().map(parse).collect::<Vec<_>>()
    };

    let mock = Background::start(options()).unwrap();
    mock.faults().set(vec!["cut_after:times=1".parse().unwrap()]);
    assert!(put("日志".as_bytes()).send(mock.address()).is_err());
    assert_eq!(lines().len(), 1, "the reply was lost, the group was not");
    assert_eq!(put(b"\xff").code(mock.address()), "");
    drop(mock);
    let mock = Background::start(options()).unwrap();
    assert_eq!(put(b"third").code(mock.address()), "");

    let lines = lines();
    assert_eq!(lines.len(), 3);
    assert_eq!(lines[0]["logs"][0]["contents"], serde_json::json!([["content", "日志"]]));
    assert_eq!(lines[1]["logs"][0]["contents"][0][1], serde_json::json!({"base64": "/w=="}));
    assert_eq!(lines[2]["tags"][1], serde_json::json!(["_pod_name_", "app-5fqrl"]));
    assert_eq!(lines[2]["logstore"], "test-logstore");
    assert_eq!(lines[2]["compression"], "lz4");
}

#[test]
fn forgets_the_oldest_groups_beyond_its_memory_and_counts_them() {
    let size = group_of(&[b"line 0"]).encoded_len();
    let options = Options { memory_bytes_max: 2 * size, ..Options::default() };
    let mock = Background::start(options).unwrap();
    for number in 0..5 {
        assert_eq!(put(format!("line {number}").as_bytes()).code(mock.address()), "");
    }

    let store = mock.store();
    assert_eq!(store.lines(), [b"line 3", b"line 4"]);
    assert_eq!((store.line_count(), store.counts().groups_forgotten), (5, 3));
    let reply = Ask::new("GET", "/mock/lines").send(mock.address()).unwrap();
    assert_eq!(reply.json()["lines"][0]["number"], 3);
}

#[test]
fn never_shows_a_secret() {
    let mock = start_signed();

    assert!(!format!("{mock:?}").contains("test-access-key-secret"));
    assert_eq!(format!("{:?}", key()), "test-access-key-id:***");
    assert!("no colon".parse::<Key>().is_err());
}
