//! What lines hold, by the ids of the catalogue of failures (A2): any encoding, and what looks like
//! control data.

use logferry_mock::{Fault, Kind};

use crate::parked::id;
use crate::support::observe::{append_bytes, expect_same, get, lines_of, metric};
use crate::support::{Pod, run, run_raw, wait_for};

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
    let path_of = |group: &logferry_mock::Group| {
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

/// Letters that turn the direction of a text, end a line, move a cursor or are not seen: no name of a
/// file brings one of them before a person, in whichever form he asks.
#[test]
fn l13_no_name_of_a_file_acts_on_a_terminal() {
    const ACTING: &str = "\u{7f}\u{80}\u{85}\u{9b}2J\u{9c}\u{9f}\u{ad}\u{61c}\u{200b}\u{200d}\u{200e}\u{200f}\
        \u{2028}\u{2029}\u{202a}\u{202b}\u{202d}\u{202e}\u{202c}\u{2060}\u{2066}\u{2067}\u{2068}\u{2069}\
        \u{feff}\u{e0001}\u{e0041}\u{e007f}\u{e0100}\u{1b}[2J\u{7}\r\n";
    use std::os::unix::ffi::OsStrExt as _;
    let acts = |text: &str| {
        text.chars()
            .find(|&c| c != '\n' && c != '\u{fffd}' && ACTING.contains(c) && !c.is_ascii_graphic())
    };
    for format in ["text", "json"] {
        let mut pod = Pod::new();
        let address = pod.listen();
        pod.set("LOGFERRY_LOG_FORMAT", format);
        pod.link("data/pod/logs");
        let name = [b"a", ACTING.as_bytes(), b"\xff\xc2\x9b.log"].concat();
        let log = pod.path("data/pod/logs").join(std::ffi::OsStr::from_bytes(&name));
        append_bytes(&log, b"poison\n");
        // A link that leads out is named in a warning.
        let out = pod.path(&format!("out-{}", ACTING.replace('\u{7}', "")));
        append_bytes(&out, b"x\n");
        let link = pod.path("data/pod/logs").join(format!("l{ACTING}.log"));
        std::os::unix::fs::symlink(&out, link).unwrap();
        pod.set("LOGFERRY_LINK_ROOTS", &pod.path("data").display().to_string());
        pod.mock.faults().set(vec![Fault::new(Kind::Poison { text: "poison".to_owned() })]);
        let agent = pod.start();
        wait_for("it to be set aside", || pod.parked().len() == 1);
        let piece = id(&pod.parked()[0]).to_owned();

        let (_, status) = get(&address, "/status");
        let json: serde_json::Value = serde_json::from_str(&status).unwrap();
        let expected = pod.path("share/logs").join(log.file_name().unwrap()).display().to_string();
        assert_eq!(json["files"][0]["path"], expected, "the value is what it was");
        assert_eq!(acts(&status), None, "/status: {status}");
        let (_, metrics) = get(&address, "/metrics");
        assert_eq!(acts(&metrics), None, "/metrics: {metrics}");
        let check = |args: &[&str]| {
            let (code, out, complaint) = run(args, &pod.environment());
            assert_eq!(code, 0, "{args:?}: {complaint}");
            assert_eq!(acts(&out), None, "{args:?}: {out}");
            assert!(complaint.is_empty(), "{args:?}: {complaint}");
            out
        };
        let looks = ["status", "status --json", "checkpoint show", "checkpoint show --json"];
        let more = ["check", "parked list", "parked list --json"];
        for args in looks.iter().chain(&more) {
            let text = check(&args.split(' ').collect::<Vec<_>>());
            if args.ends_with("--json") {
                serde_json::from_str::<serde_json::Value>(&text).unwrap();
            }
        }
        check(&["parked", "show", &piece]);
        assert_eq!(agent.stop().0, 0);
        for args in looks {
            check(&args.split(' ').collect::<Vec<_>>());
        }
        let path = pod.path("share/logs").join(log.file_name().unwrap());
        let (code, _, complaint) = run_raw(
            &[
                "checkpoint".as_ref(),
                "reset".as_ref(),
                pod.path("share/nothing").join(ACTING).as_os_str(),
            ],
            &pod.environment(),
        );
        assert_eq!((code, acts(&complaint)), (64, None), "{complaint}");
        let (code, said, _) = run_raw(
            &["checkpoint".as_ref(), "reset".as_ref(), path.as_os_str()],
            &pod.environment(),
        );
        assert_eq!((code, acts(&said)), (0, None), "{said}");

        let log = pod.agent_log();
        assert_eq!(acts(&log), None, "{log}");
        assert!(log.contains("a link leads out"), "{log}");
        if format == "json" {
            for line in log.lines() {
                serde_json::from_str::<serde_json::Value>(line).unwrap();
            }
        }
    }
}
