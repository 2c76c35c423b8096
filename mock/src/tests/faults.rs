//! Misbehaviour as a client meets it.

use super::*;
use crate::{Fault, Kind};

fn put() -> Ask {
    Ask::put(&group_of(&[b"line"]), Compression::Lz4)
}

/// A mock with these faults, in the short form.
fn start_with(faults: &[&str]) -> Background {
    let faults = faults.iter().map(|text| text.parse().unwrap()).collect();
    Background::start(Options { faults, ..Options::default() }).unwrap()
}

#[test]
fn error_codes_come_with_their_status_and_pause() {
    let mock = start_with(&[
        "error:code=ServerBusy,retry_after=7,times=1",
        "error:code=WriteQuotaExceed,times=1",
        "error:code=Odd,status=599,times=1",
    ]);

    let reply = put().send(mock.address()).unwrap();
    assert_eq!((reply.status, reply.header("retry-after")), (503, "7"));
    assert_eq!(put().code(mock.address()), "WriteQuotaExceed");
    let reply = put().send(mock.address()).unwrap();
    assert_eq!((reply.status, &reply.json()["errorCode"]), (599, &"Odd".into()));
    assert_eq!(mock.store().line_count(), 0);
    assert_eq!(put().code(mock.address()), "");
    assert_eq!(mock.store().line_count(), 1);
    let counts = mock.store().counts();
    assert_eq!(counts.faults["error"], 3);
    assert_eq!(counts.refused["WriteQuotaExceed"], 1);
}

#[test]
fn a_request_that_would_be_refused_uses_up_no_fault() {
    let mock = start_with(&["error:code=ServerBusy,times=1"]);

    assert_eq!(put().without("x-log-apiversion").code(mock.address()), "MissingAPIVersion");
    assert_eq!(put().code(mock.address()), "ServerBusy");
}

/// The connection ends without a byte of an answer.
fn assert_cut(outcome: io::Result<Reply>) {
    let error = outcome.unwrap_err();
    let kinds =
        [io::ErrorKind::UnexpectedEof, io::ErrorKind::ConnectionReset, io::ErrorKind::BrokenPipe];
    assert!(kinds.contains(&error.kind()), "{error:?}");
}

#[test]
fn a_cut_before_stores_nothing_and_a_cut_after_stores() {
    let mock = start_with(&["cut_before:times=1", "cut_after:times=1"]);

    assert_cut(put().send(mock.address()));
    assert_eq!(mock.store().line_count(), 0);
    assert_cut(put().send(mock.address()));
    assert_eq!(mock.store().line_count(), 1);
    assert_eq!(put().code(mock.address()), "");
    assert_eq!(mock.store().line_count(), 2);
    let counts = mock.store().counts();
    assert_eq!((counts.faults["cut_before"], counts.faults["cut_after"]), (1, 1));
}

#[test]
fn a_cut_ends_only_its_own_connection() {
    let mock = start_with(&["cut_before:after=1,times=1"]);
    let mut kept = TcpStream::connect(mock.address()).unwrap();
    kept.set_read_timeout(Some(PATIENCE)).unwrap();
    let exchange = |stream: &mut TcpStream| {
        let ask = put().with("connection", "keep-alive");
        stream.write_all(&ask.digested().bytes()).unwrap();
        let mut answer = [0; 4096];
        let count = stream.read(&mut answer).unwrap();
        String::from_utf8_lossy(&answer[..count]).into_owned()
    };

    assert!(exchange(&mut kept).starts_with("HTTP/1.1 200"));
    assert_cut(put().send(mock.address()));
    assert!(exchange(&mut kept).starts_with("HTTP/1.1 200"));
}

/// Sends and waits a moment: true if nothing comes and the connection stays open.
fn hangs(to: SocketAddr) -> bool {
    let mut stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    stream.write_all(&put().digested().bytes()).unwrap();
    let kinds = [io::ErrorKind::WouldBlock, io::ErrorKind::TimedOut];
    stream.read(&mut [0]).is_err_and(|error| kinds.contains(&error.kind()))
}

#[test]
fn hanging_requests_get_no_answer() {
    let mock = start_with(&["hang:times=1", "hang_after:times=1"]);

    assert!(hangs(mock.address()));
    assert_eq!(mock.store().line_count(), 0);
    assert!(hangs(mock.address()));
    assert_eq!(mock.store().line_count(), 1);
    assert!(!hangs(mock.address()));
}

#[test]
fn a_delay_holds_the_answer_back() {
    let mock = start_with(&["delay:ms=250,times=1"]);

    let before = logferry_clock::now();
    assert_eq!(put().code(mock.address()), "");

    assert!(before.elapsed() >= Duration::from_millis(250));
    assert_eq!(mock.store().line_count(), 1);
}

#[test]
fn a_captive_portal_says_200_and_stores_nothing() {
    let mock = start_with(&["captive_portal:times=1"]);

    let reply = put().send(mock.address()).unwrap();

    assert_eq!((reply.status, reply.header("x-log-requestid")), (200, ""));
    assert!(!reply.body.is_empty());
    assert_eq!(mock.store().line_count(), 0);
}

#[test]
fn poison_refuses_what_holds_it_and_nothing_else() {
    let mock = start_with(&["poison:text=7"]);
    let with = |lines: &[&[u8]]| Ask::put(&group_of(lines), Compression::Lz4);

    assert_eq!(with(&[b"line 6", b"line 7"]).code(mock.address()), "PostBodyInvalid");
    assert_eq!(with(&[b"line 6"]).code(mock.address()), "");
    assert_eq!(mock.store().line_count(), 1);
    assert_eq!(mock.store().counts().faults["poison"], 1);
}

#[test]
fn a_compression_that_is_refused_is_named_as_the_service_names_it() {
    let mock = start_with(&["refuse_compression:name=zstd"]);
    let with = |compression| Ask::put(&group_of(&[b"line"]), compression);

    let reply = with(Compression::Zstd).send(mock.address()).unwrap();
    assert_eq!((reply.status, &reply.json()["errorCode"]), (400, &"ParameterInvalid".into()));
    let message = reply.json()["errorMessage"].as_str().unwrap().to_owned();
    assert!(message.contains("x-log-compresstype : zstd"), "{message}");
    assert_eq!(with(Compression::Lz4).code(mock.address()), "");
    assert_eq!(with(Compression::None).code(mock.address()), "");
}

#[test]
fn a_proxys_limit_is_about_the_body_as_it_is_sent() {
    let mock = start_with(&["body_limit:bytes=2000"]);
    let long = [b'x'; 5000];
    let with = |compression| Ask::put(&group_of(&[&long]), compression);

    let reply = with(Compression::None).send(mock.address()).unwrap();
    assert_eq!((reply.status, reply.header("x-log-requestid")), (413, ""));
    assert_eq!(with(Compression::Lz4).code(mock.address()), "");
}

#[test]
fn a_quota_refuses_what_is_over_it() {
    let mock =
        start_with(&["quota:requests_per_second=0,code=ShardWriteQuotaExceed,logstore=full"]);
    let full = put().at("/logstores/full/shards/lb", &[]);

    assert_eq!(full.code(mock.address()), "ShardWriteQuotaExceed");
    assert_eq!(put().code(mock.address()), "");
    mock.faults().clear();
    assert_eq!(full.code(mock.address()), "");
}

#[test]
fn reads_can_be_spoiled_too() {
    let mock = start_with(&["error:code=Unauthorized,on=read"]);
    let shards = Ask::get("/logstores/test-logstore/shards", &[]);

    assert_eq!(shards.code(mock.address()), "Unauthorized");
    assert_eq!(put().code(mock.address()), "");
}

#[test]
fn faults_are_changed_over_http() {
    let mock = start();
    let faults = |method: &'static str, body: &str| {
        let mut ask = Ask::new(method, "/mock/faults");
        ask.body = body.into();
        let reply = ask.send(mock.address()).unwrap();
        (reply.status, reply.json())
    };

    let (status, list) = faults("PUT", r#"{"kind":"hang","on":"read"}"#);
    assert_eq!((status, &list[0]["fault"]["kind"]), (200, &"hang".into()));
    let (_, list) = faults("POST", r#"[{"kind":{"error":{"code":"ServerBusy"}},"times":1}]"#);
    assert_eq!(list.as_array().unwrap().len(), 2);
    assert_eq!(
        mock.faults().list()[1].fault,
        Fault { times: Some(1), ..Fault::error("ServerBusy") }
    );
    assert_eq!(put().code(mock.address()), "ServerBusy");
    let (_, list) = faults("GET", "");
    assert_eq!((&list[0]["seen"], &list[1]["played"]), (&0.into(), &1.into()));
    for bad in ["", "[1]", r#"{"kind":"hung"}"#, r#"{"kind":"hang","probability":2}"#] {
        let (status, answer) = faults("PUT", bad);
        assert_eq!(status, 400, "{bad}: {answer}");
        assert!(answer["error"].is_string());
    }
    assert_eq!(mock.faults().list().len(), 2, "a mistake changes nothing");
    assert_eq!(faults("DELETE", ""), (200, serde_json::json!([])));
    mock.faults().set(vec![Fault::new(Kind::Hang)]);
    assert_eq!(faults("GET", "").1.as_array().unwrap().len(), 1);
}
