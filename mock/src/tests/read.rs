//! Reading back, the page, and the mock's own interface.

use super::*;
use logferry_wire::sls_logs::LogGroupList;

/// Puts one group per entry.
fn fill(mock: &Background, groups: &[&[&[u8]]]) {
    for lines in groups {
        assert_eq!(Ask::put(&group_of(lines), Compression::Lz4).code(mock.address()), "");
    }
}

const SHARD: &str = "/logstores/test-logstore/shards/0";

fn cursor(mock: &Background, from: &str) -> String {
    let ask = Ask::get(SHARD, &[("type", "cursor"), ("from", from)]);
    let reply = ask.send(mock.address()).unwrap();
    reply.check_common();
    reply.json()["cursor"].as_str().unwrap().to_owned()
}

/// The lines of one pull, and the next cursor.
fn pull(mock: &Background, encoding: &str, query: &[(&str, &str)]) -> (Vec<Vec<u8>>, String) {
    let query = [&[("type", "log")], query].concat();
    let ask = Ask::get(SHARD, &query).with("accept-encoding", encoding);
    let reply = ask.send(mock.address()).unwrap();
    assert_eq!(reply.status, 200, "{:?}", reply);
    reply.check_common();
    let size: usize = reply.header("x-log-bodyrawsize").parse().unwrap();
    assert_eq!(reply.header("x-log-compresstype"), if size == 0 { "" } else { encoding });
    let raw = match reply.header("x-log-compresstype") {
        "lz4" => lz4_flex::block::decompress(&reply.body, size).unwrap(),
        "zstd" => zstd::bulk::decompress(&reply.body, size).unwrap(),
        _ => reply.body.clone(),
    };
    assert_eq!(raw.len(), size);
    let groups = LogGroupList::decode(raw.as_slice()).unwrap().log_group_list;
    assert_eq!(reply.header("x-log-count"), groups.len().to_string());
    let lines = groups
        .into_iter()
        .flat_map(|group| group.logs)
        .flat_map(|log| log.contents)
        .map(|content| content.value)
        .collect();
    (lines, reply.header("x-log-cursor").to_owned())
}

#[test]
fn pulls_what_was_put_through_its_cursors() {
    let mock = start();
    let begin = cursor(&mock, "begin");
    fill(&mock, &[&[b"one", b"two"], &[b"three"], &[b"\xff four"]]);
    let end = cursor(&mock, "end");

    for encoding in ["lz4", "zstd", ""] {
        let (lines, next) = pull(&mock, encoding, &[("cursor", &begin), ("count", "1000")]);
        assert_eq!(lines, [&b"one"[..], b"two", b"three", b"\xff four"]);
        assert_eq!(next, end);
    }
    let (lines, next) = pull(&mock, "lz4", &[("cursor", &begin), ("count", "2")]);
    assert_eq!(lines, [&b"one"[..], b"two", b"three"]);
    let (lines, again) =
        pull(&mock, "lz4", &[("cursor", &begin), ("end_cursor", &next), ("count", "9")]);
    assert_eq!((lines.len(), &again), (3, &next));
    let (lines, last) = pull(&mock, "lz4", &[("cursor", &next), ("count", "2")]);
    assert_eq!((lines, &last), (vec![b"\xff four".to_vec()], &end));
    let (lines, stays) = pull(&mock, "lz4", &[("cursor", &end), ("count", "2")]);
    assert_eq!((lines.len(), stays), (0, end));
}

#[test]
fn cursors_follow_the_time_of_receipt() {
    let mock = start();
    fill(&mock, &[&[b"one"]]);
    let now = unix_now();

    assert_eq!(cursor(&mock, &(now - 60).to_string()), cursor(&mock, "begin"));
    assert_eq!(cursor(&mock, &(now + 60).to_string()), cursor(&mock, "end"));
    let begin = cursor(&mock, "begin");
    let ask = Ask::get(SHARD, &[("type", "cursor_time"), ("cursor", &begin)]);
    let time = ask.send(mock.address()).unwrap().json()["cursor_time"].as_u64().unwrap();
    assert!(time.abs_diff(now.into()) < 60);
}

#[test]
fn wrong_reads_are_refused() {
    let mock = start_signed();
    let to = mock.address();
    let code =
        |path: &str, query: &[(&str, &str)]| Ask::get(path, query).signed_v1(&key()).code(to);
    let logs = "/logstores/test-logstore";

    assert_eq!(Ask::get("/logstores", &[]).code(to), "MissAccessKeyId");
    assert_eq!(code("/logstores", &[]), "");
    assert_eq!(Ask::get(logs, &[]).signed_v4(&key()).code(to), "");
    assert_eq!(code("/elsewhere", &[]), "ResourceNotExist");
    assert_eq!(code("/logstores/test-logstore/shards/1", &[("type", "cursor")]), "ShardNotExist");
    for query in [
        &[("type", "nothing")][..],
        &[("type", "cursor")],
        &[("type", "cursor"), ("from", "yesterday")],
        &[("type", "log"), ("cursor", "!"), ("count", "1")],
        &[("type", "log"), ("cursor", "MA=="), ("count", "0")],
        &[("type", "log"), ("cursor", "MA=="), ("count", "1001")],
    ] {
        assert_eq!(code(SHARD, query), "ParameterInvalid", "{query:?}");
    }
    for query in [
        &[("type", "log"), ("to", "5")][..],
        &[("type", "log"), ("from", "1"), ("to", "5"), ("line", "101")],
        &[("type", "log"), ("from", "1"), ("to", "5"), ("query", "*|select")],
    ] {
        assert_eq!(code(logs, query), "ParameterInvalid", "{query:?}");
    }
}

#[test]
fn queries_flat_logs_by_time_topic_and_words() {
    let mock = start();
    fill(&mock, &[&[b"apple one", b"pear two"], &[b"apple three"]]);
    let (from, to) = ((unix_now() - 60).to_string(), (unix_now() + 60).to_string());
    let query = |more: &[(&str, &str)]| {
        let query = [&[("type", "log"), ("from", &from), ("to", &to)], more].concat();
        let reply = Ask::get("/logstores/test-logstore", &query).send(mock.address()).unwrap();
        assert_eq!(reply.header("x-log-progress"), "Complete");
        let logs = reply.json();
        let logs = logs.as_array().unwrap().clone();
        assert_eq!(reply.header("x-log-count"), logs.len().to_string());
        logs
    };
    let contents = |more: &[(&str, &str)]| -> Vec<String> {
        query(more).iter().map(|log| log["content"].as_str().unwrap().to_owned()).collect()
    };

    assert_eq!(contents(&[]), ["apple one", "pear two", "apple three"]);
    assert_eq!(contents(&[("query", "apple")]), ["apple one", "apple three"]);
    assert_eq!(contents(&[("reverse", "true"), ("line", "1")]), ["apple three"]);
    assert_eq!(contents(&[("offset", "1"), ("line", "1")]), ["pear two"]);
    assert_eq!(contents(&[("topic", "a+topic")]).len(), 3);
    assert_eq!(contents(&[("topic", "another")]).len(), 0);
    assert_eq!(contents(&[("query", "app-5fqrl")]).len(), 3, "tags are searched too");
    let log = &query(&[])[0];
    assert_eq!(log["__source__"], "10.7.0.37");
    assert_eq!(log["__topic__"], "a topic");
    assert_eq!(log["__tag__:__path__"], "/share/logs/app.log");
    assert!(log["__time__"].as_str().unwrap().parse::<u32>().unwrap().abs_diff(unix_now()) < 60);
    let none = [("type", "log"), ("from", "1"), ("to", &from)];
    let reply = Ask::get("/logstores/test-logstore", &none).send(mock.address()).unwrap();
    assert_eq!(reply.json(), serde_json::json!([]));
}

#[test]
fn shards_share_out_the_keys() {
    let mock = Background::start(Options { shards: 2, ..Options::default() }).unwrap();
    let reply = Ask::get("/logstores/x/shards", &[]).send(mock.address()).unwrap();
    let shards = reply.json();
    assert_eq!(shards.as_array().unwrap().len(), 2);
    assert_eq!(shards[0]["exclusiveEndKey"], shards[1]["inclusiveBeginKey"]);
    assert_eq!(shards[1]["inclusiveBeginKey"], "80000000000000000000000000000000");

    for key in ["7fffffffffffffffffffffffffffffff", "80000000000000000000000000000000"] {
        let put = Ask::put(&group_of(&[b"line"]), Compression::None);
        let put = put.at("/logstores/x/shards/route", &[("key", key)]);
        assert_eq!(put.code(mock.address()), "");
    }

    let shards: Vec<u32> = mock.store().groups().iter().map(|group| group.shard).collect();
    assert_eq!(shards, [0, 1]);
}

#[test]
fn the_page_loads_nothing_from_elsewhere() {
    let mock = start();
    for (path, kind) in [
        ("/", "text/html; charset=utf-8"),
        ("/mock/page.css", "text/css"),
        ("/mock/page.js", "text/javascript"),
    ] {
        let reply = Ask::new("GET", path).send(mock.address()).unwrap();

        assert_eq!((reply.status, reply.header("content-type")), (200, kind));
        assert!(reply.header("content-security-policy").starts_with("default-src 'none'"));
        let text = String::from_utf8(reply.body).unwrap();
        for word in ["http://", "https://", "innerHTML", "document.write"] {
            assert!(!text.contains(word), "{path} has {word}");
        }
    }
    assert_eq!(mock.store().counts().requests, 0, "the page is not counted");
}

/// What the page loads is served here, and its own policy lets a browser load it.
#[test]
fn the_page_loads_nothing_that_its_policy_forbids() {
    let page = include_str!("../page.html");
    let loaded: Vec<&str> = ["href=\"", "src=\""]
        .iter()
        .flat_map(|attribute| page.split(attribute).skip(1))
        .filter_map(|rest| rest.split('"').next())
        .collect();
    assert_eq!(loaded.len(), 3, "{loaded:?}");
    let mock = start();
    for path in loaded {
        let reply = Ask::new("GET", path).send(mock.address()).unwrap();
        assert_eq!(reply.status, 200, "{path}");
        let needed = match reply.header("content-type").split(['/', ';']).next() {
            Some("image") => "img-src 'self'",
            _ if path.ends_with(".css") => "style-src 'self'",
            _ => "script-src 'self'",
        };
        assert!(reply.header("content-security-policy").contains(needed), "{path}: {needed}");
    }
}

#[test]
fn lines_can_be_paged_through_or_watched() {
    let mock = start();
    fill(&mock, &[&[b"0", b"1", b"2"], &[b"3"], &[b"4 <script>alert(1)</script>", b"5"]]);
    let lines = |query: &[(&str, &str)]| -> Vec<u64> {
        let reply = Ask::new("GET", "/mock/lines").at("/mock/lines", query).send(mock.address());
        let answer = reply.unwrap().json();
        assert_eq!(answer["total"], 6);
        let lines = answer["lines"].as_array().unwrap().clone();
        lines.iter().map(|line| line["number"].as_u64().unwrap()).collect()
    };

    assert_eq!(lines(&[]), [0, 1, 2, 3, 4, 5]);
    assert_eq!(lines(&[("limit", "2")]), [4, 5]);
    assert_eq!(lines(&[("after", "0"), ("limit", "3")]), [1, 2, 3]);
    assert_eq!(lines(&[("after", "3")]), [4, 5]);
    assert_eq!(lines(&[("after", "5")]), [0u64; 0]);
    let reply = Ask::new("GET", "/mock/lines").send(mock.address()).unwrap();
    let line = &reply.json()["lines"][4];
    assert_eq!(line["contents"], serde_json::json!([["content", "4 <script>alert(1)</script>"]]));
    assert_eq!(line["tags"][0], serde_json::json!(["__path__", "/share/logs/app.log"]));
}
