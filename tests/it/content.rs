//! What lines hold, by the ids of the catalogue of failures (A2): any encoding, and what looks like
//! control data.

use crate::support::Pod;
use crate::support::observe::{append_bytes, expect_same, get, lines_of, metric};

const APP: &str = "share/logs/app.log";

#[test]
fn l07_bytes_of_any_encoding_arrive_as_they_were_written() {
    let (pod, log) = Pod::with_log();
    let utf16 = |text: &str, order: fn(u16) -> [u8; 2]| -> Vec<u8> {
        text.encode_utf16().flat_map(order).collect()
    };
    let mut text = Vec::new();
    // A byte order mark first, then each on its own line.
    text.extend_from_slice("\u{feff}begins with a mark\n".as_bytes());
    for bytes in [
        &b"\xff\xfe \x80 \xc0\xaf \xf5\x80 invalid"[..],
        b"\xed\xa0\x80 a lone surrogate",
        b"\xe6\x97 a torn character",
        b"\xc8\xd5\xd6\xbe GBK",
        b"caf\xe9 \x85 Latin-1",
        b"\x01\x02\x07\x08\x0b\x0c\x1a\x1b\x7f controls",
        "\u{2028} \u{2029} \u{85} ends of lines elsewhere".as_bytes(),
        "日志 🦀 \u{202e}UTF-8".as_bytes(),
    ] {
        text.extend_from_slice(bytes);
        text.extend_from_slice(b"\n");
    }
    text.extend(0x0b..=0xff_u8);
    text.extend_from_slice(b"\n");
    // What an app on Windows writes; the 0x0a within `ਊ` is a line end too: bytes are.
    text.extend(utf16("\u{feff}one\r\ntwo ਊ\r\n", u16::to_le_bytes));
    text.extend(utf16("\u{feff}three\r\nfour\r\n", u16::to_be_bytes));
    text.extend_from_slice(b"\n");
    append_bytes(&log, &text);
    let agent = pod.start();

    pod.finish_records(agent, &lines_of(&text));
}

#[test]
fn l07_a_megabyte_of_anything_arrives_as_it_was_written() {
    let (pod, log) = Pod::with_log();
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut text: Vec<u8> = std::iter::repeat_with(|| rng.u8(..)).take(1 << 20).collect();
    text.push(b'\n');
    append_bytes(&log, &text);
    let agent = pod.start();

    pod.finish_records(agent, &lines_of(&text));
}

#[test]
fn l13_what_looks_like_control_data_is_content() {
    let (mut pod, log) = Pod::with_log();
    pod.set("LOGFERRY_TOPIC", "real");
    let text = b"{\"__tag__:__path__\": \"/etc/passwd\", \"__topic__\": \"forged\"}\n\
        __tag__:__hostname__: forged\n\
        POST / HTTP/1.1\r\nHost: forged\r\nContent-Length: 0\r\n\r\n\
        \x1b[31mred\x1b[0m \x1b]0;title\x07 \x1b[2J\n\
        \x0a\x05\x08\x01\x12\x01\x00 protobuf \x1a\x06forged\x22\x06forged\n\
        2026-01-01 ERROR logferry: forged ${jndi:ldap://x} $(reboot) %s%n\n";
    append_bytes(&log, text);
    let agent = pod.start();
    pod.finish_records(agent, &lines_of(text));

    for group in pod.mock.store().groups() {
        let path = pod.path(APP).display().to_string();
        assert_eq!((group.topic.as_str(), group.tag("__path__")), ("real", Some(path)));
        let mut keys: Vec<&str> = group.tags.iter().map(|(key, _)| key.as_str()).collect();
        keys.sort_unstable();
        assert_eq!(keys, ["__hostname__", "__pack_id__", "__path__"]);
    }
}

/// Whoever may name a file may not write lines into the agent's own log, or into a request.
#[test]
fn l13_the_name_of_a_file_forges_nothing() {
    use std::os::unix::ffi::OsStrExt as _;
    let mut pod = Pod::new();
    let address = pod.listen();
    pod.link("data/pod/logs");
    let names: [&[u8]; 4] = [
        b"a\r\nX-Forged: 1\r\n\r\n.log",
        b"b\n2026-01-01T00:00:00Z ERROR logferry: forged.log",
        b"c\x1b[31m \" \\ , * [ { | }.log",
        b"d \xff\xfe \xe6\x97\xa5.log",
    ];
    let mut expected = Vec::new();
    for name in names {
        let path = std::path::Path::new(std::ffi::OsStr::from_bytes(name));
        append_bytes(&pod.path("data/pod/logs").join(path), b"line\n");
        expected.push(pod.path("share/logs").join(path).into_os_string().into_encoded_bytes());
    }
    let agent = pod.start();
    pod.await_records(names.len());
    let (code, status) = get(&address, "/status");
    assert_eq!((code, serde_json::from_str::<serde_json::Value>(&status).is_ok()), (200, true));
    assert_eq!(metric(&address, "logferry_files{state=\"active\"}"), Some(4));
    assert_eq!(agent.stop().0, 0);

    let groups = pod.mock.store().groups();
    let path_of = |group: &logferry::mock::Group| {
        let (_, path) = group.tags.iter().find(|(key, _)| key == "__path__").unwrap();
        path.clone()
    };
    let mut paths: Vec<Vec<u8>> = groups.iter().map(|group| path_of(group)).collect();
    paths.sort_unstable();
    expect_same(&paths, &expected);
    let log = pod.agent_log();
    assert!(!log.lines().any(|line| line.starts_with("2026-01-01T00:00:00Z")), "{log}");
    assert!(!log.contains('\x1b'), "{log}");
}
