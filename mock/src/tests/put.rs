//! PutLogs: what is taken, and each refusal by a request that deserves it.

use super::*;
use crate::Limits;
use logferry_wire::sls_logs::{SlsCompressType, SlsLogPackage, SlsLogPackageList};

const ALL: [Compression; 3] = [Compression::Lz4, Compression::Zstd, Compression::None];

#[test]
fn keeps_what_it_accepts_byte_by_byte() {
    let mock = start();
    let lines: [&[u8]; 4] = [b"Log 1 to file", b"", "日志 <script>".as_bytes(), b"\xff\0\r"];
    for compression in ALL {
        let reply = Ask::put(&group_of(&lines), compression).send(mock.address()).unwrap();

        assert_eq!((reply.status, reply.body.len()), (200, 0));
        reply.check_common();
    }

    let store = mock.store();
    assert_eq!(store.lines(), lines.repeat(3));
    assert_eq!(store.line_count(), 12);
    let groups = store.groups();
    for (number, (group, compression)) in groups.iter().zip(ALL).enumerate() {
        assert_eq!(group.number, number as u64);
        assert_eq!(group.first_line, 4 * number as u64);
        assert_eq!((&*group.project, &*group.logstore), ("test-project", "test-logstore"));
        assert_eq!((&*group.topic, &*group.source), ("a topic", "10.7.0.37"));
        assert_eq!(group.tag("_pod_name_").as_deref(), Some("app-5fqrl"));
        let keys: Vec<&str> = group.tags.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(keys, ["__path__", "_pod_name_"]);
        assert_eq!((group.line_count, group.shard), (4, 0));
        assert_eq!(group.compression, compression);
        assert_eq!(group.logs()[0].contents, [("content".to_owned(), b"Log 1 to file".to_vec())]);
    }
    let counts = store.counts();
    assert_eq!((counts.requests, counts.puts, counts.groups, counts.lines), (3, 3, 3, 12));
    assert_eq!(counts.logstores["test-project/test-logstore"], 12);
    assert!(counts.refused.is_empty());
}

#[test]
fn takes_good_signatures_of_both_versions() {
    let mock = start_signed();
    let route = "/logstores/test-logstore/shards/route";
    let hash = [("key", "14d2f850ad6ea48e46e4547edbbb27e0")];
    for compression in ALL {
        let ask = Ask::put(&group_of(&[b"line"]), compression);
        let token = ask.clone().with("x-acs-security-token", "a token");
        for ask in [ask.clone(), ask.clone().at(route, &hash), token] {
            assert_eq!(ask.clone().signed_v1(&key()).code(mock.address()), "");
            assert_eq!(ask.signed_v4(&key()).code(mock.address()), "");
        }
    }
    assert_eq!(mock.store().line_count(), 18);
}

#[test]
fn takes_the_published_vector_when_its_clock_says_so() {
    // The vendor's worked example: signed by its SDK, at 1700000000.
    let offset = 1_700_000_000 - i64::from(unix_now());
    let access = Access { keys: vec![key()], ..Access::default() };
    let options = Options { access, clock_offset_seconds: offset, ..Options::default() };
    let mock = Background::start(options).unwrap();
    let mut ask = Ask::put(&vector(), Compression::Lz4)
        .with("host", "test-project.cn-hangzhou.log.aliyuncs.com")
        .with("date", "Tue, 14 Nov 2023 22:13:20 GMT")
        .with("x-log-signaturemethod", "hmac-sha1")
        .with("authorization", "LOG test-access-key-id:2JZZQhvj7qPF4gFCj0z5+cif94s=");
    ask.body = [&[0xf0, 0x68], vector().encode_to_vec().as_slice()].concat();

    let reply = ask.send(mock.address()).unwrap();

    assert_eq!(reply.status, 200, "{}", String::from_utf8_lossy(&reply.body));
    assert_eq!(mock.store().lines(), [b"Log 1 to file"]);
    let time: i64 = reply.header("x-log-time").parse().unwrap();
    assert!((1_700_000_000..1_700_000_600).contains(&time));
}

fn vector() -> LogGroup {
    let mut group = group_of(&[b"Log 1 to file"]);
    group.logs[0].time = 1_700_000_000;
    group.topic = None;
    group.log_tags[1].value = b"app-sidecar-logtail-5fqrl".to_vec();
    group
}

#[test]
fn refuses_each_fault_of_a_head_by_its_code() {
    let mock = start_signed();
    let good = Ask::put(&group_of(&[b"line"]), Compression::Lz4);
    let to = mock.address();
    let v1 = |ask: &Ask| ask.clone().signed_v1(&key()).code(to);

    assert_eq!(v1(&good), "");
    for (name, code) in [
        ("x-log-apiversion", "MissingAPIVersion"),
        ("content-type", "MissingContentType"),
        ("date", "MissingDate"),
        ("host", "MissingHost"),
        ("x-log-bodyrawsize", "MissingBodyRawSize"),
    ] {
        assert_eq!(v1(&good.clone().without(name)), code, "without {name}");
    }
    for (name, value, code) in [
        ("x-log-apiversion", "0.4.0", "InvalidAPIVersion"),
        ("content-type", "application/json", "InvalidContentType"),
        ("date", "2023-11-14T22:13:20Z", "InvalidDateFormat"),
        ("date", "Tue, 14 Nov 2023 22:13:20 GMT", "RequestTimeExpired"),
        ("x-log-date", "Tue, 14 Nov 2023 22:13:20 GMT", "RequestTimeExpired"),
        ("host", "127.0.0.1:9200", "InvalidHost"),
        ("content-md5", "6A24843F53D5186C441B4C330037A0EC", "ParameterInvalid"),
        ("x-log-bodyrawsize", "many", "InvalidBodyRawSize"),
        ("x-log-bodyrawsize", "-1", "InvalidBodyRawSize"),
        ("x-log-bodyrawsize", "3145729", "PostBodyTooLarge"),
        ("x-log-bodyrawsize", "1", "PostBodyUncompressError"),
        ("x-log-bodyrawsize", "1000", "PostBodyUncompressError"),
        ("x-log-compresstype", "deflate", "InvalidCompressType"),
        ("x-log-compresstype", "zstd", "PostBodyUncompressError"),
        ("x-log-mode", "pack", "ParameterInvalid"),
    ] {
        assert_eq!(v1(&good.clone().with(name, value)), code, "{name}: {value}");
    }
    let md5 = content_md5(&good.body).to_ascii_lowercase();
    assert_eq!(v1(&good.with("content-md5", &md5)), "ParameterInvalid");
    assert_eq!(mock.store().line_count(), 1);
}

#[test]
fn refuses_each_fault_of_a_signature_by_its_code() {
    let mock = start_signed();
    let to = mock.address();
    let good = Ask::put(&group_of(&[b"line"]), Compression::Lz4);
    let v1 = good.clone().signed_v1(&key());
    let v4 = good.clone().signed_v4(&key());
    let key_of = |text: &str| text.parse::<Key>().unwrap();
    let stranger = key_of("nobody:test-access-key-secret");
    let wrong = key_of("test-access-key-id:wrong");

    for (ask, code) in [
        (good.clone(), "MissAccessKeyId"),
        (v1.clone().with("authorization", "LOG :2JZZQhvj7qPF4gFCj0z5+cif94s="), "MissAccessKeyId"),
        (v1.clone().with("authorization", "LOG test-access-key-id:short"), "Unauthorized"),
        (v1.clone().with("authorization", "Bearer token"), "Unauthorized"),
        (v1.clone().without("x-log-signaturemethod"), "MissingSignatureMethod"),
        (v1.clone().with("x-log-signaturemethod", "hmac-md5"), "InvalidSignatureMethod"),
        (good.clone().signed_v1(&stranger), "Unauthorized"),
        (good.clone().signed_v4(&stranger), "Unauthorized"),
        (good.clone().signed_v1(&wrong), "SignatureNotMatch"),
        (good.signed_v4(&wrong), "SignatureNotMatch"),
        (v1.clone().with("x-log-added", "later"), "SignatureNotMatch"),
        (v1.clone().at("/logstores/other/shards/lb", &[]), "SignatureNotMatch"),
        (v4.clone().at("/logstores/other/shards/lb", &[]), "SignatureNotMatch"),
        (v4.clone().with("x-log-date", "20231114T221320Z"), "RequestTimeExpired"),
        (v4.clone().with("x-log-date", "yesterday"), "InvalidDateFormat"),
        (v4.clone().with("x-log-content-sha256", &"0".repeat(64)), "SignatureNotMatch"),
    ] {
        assert_eq!(ask.code(to), code, "{:?}", ask.headers);
    }
    // The digest is signed, and the body is held to it.
    for signed in [v1, v4] {
        let mut changed = signed.clone();
        changed.body[3] ^= 1;
        let changed = changed.without("content-md5");
        assert_eq!(changed.code(to), "SignatureNotMatch", "{:?}", changed.headers);
        assert_eq!(signed.code(to), "");
    }
}

#[test]
fn without_keys_a_signature_must_only_be_well_formed() {
    let mock = start();
    let good = Ask::put(&group_of(&[b"line"]), Compression::None);
    let stranger: Key = "nobody:knows".parse().unwrap();

    assert_eq!(good.clone().signed_v1(&stranger).code(mock.address()), "");
    assert_eq!(good.clone().signed_v4(&stranger).code(mock.address()), "");
    let malformed = good.clone().with("authorization", "LOG nobody");
    assert_eq!(malformed.code(mock.address()), "Unauthorized");
    let bare = good.signed_v1(&stranger).without("x-log-signaturemethod");
    assert_eq!(bare.code(mock.address()), "MissingSignatureMethod");
}

#[test]
fn refuses_what_is_no_log_group() {
    let mock = start();
    let to = mock.address();
    let put = |raw: &[u8]| Ask::put_raw(raw, Compression::Lz4).code(to);
    let at = |seconds: i64| {
        let mut group = group_of(&[b"good", b"line"]);
        group.logs[1].time = u32::try_from(i64::from(unix_now()) + seconds).unwrap();
        put(&group.encode_to_vec())
    };

    assert_eq!(put(b""), "PostBodyInvalid");
    assert_eq!(put(b"no protobuf"), "PostBodyInvalid");
    assert_eq!(put(b"\x0a\x06\x08\x01\x12\x02\x12\x00"), "PostBodyInvalid");
    assert_eq!(put(b"\x0a\x09\x08\x01\x12\x05\x0a\x01\xff\x12\x00"), "InvalidEncoding");
    assert_eq!(at(-7 * 24 * 3600 - 60), "PostBodyInvalid");
    assert_eq!(at(15 * 60 + 60), "PostBodyInvalid");
    assert_eq!(mock.store().line_count(), 0, "one bad log refuses them all");

    assert_eq!(at(-7 * 24 * 3600 + 60), "");
    assert_eq!(at(15 * 60 - 60), "");
}

#[test]
fn holds_the_limits_of_the_strict_era() {
    let mock = start();
    let to = mock.address();
    let lines = |count: usize| group_of(&vec![&b"x"[..]; count]);
    assert_eq!(Ask::put(&lines(4096), Compression::Lz4).code(to), "");
    assert_eq!(Ask::put(&lines(4097), Compression::Lz4).code(to), "PostBodyTooLarge");
    let large = group_of(&[&vec![b'x'; 3 << 20]]);
    assert_eq!(Ask::put(&large, Compression::Lz4).code(to), "PostBodyTooLarge");

    let limits = Limits { group_bytes_max: 10 << 20, ..Limits::default() };
    let today = Background::start(Options { limits, ..Options::default() }).unwrap();
    assert_eq!(Ask::put(&large, Compression::Lz4).code(today.address()), "");
}

#[test]
fn a_body_without_its_digest_or_length_is_refused() {
    let mock = start();
    let good = Ask::put(&group_of(&[b"line"]), Compression::None);

    // `send` adds the digest; an empty one is there and wrong.
    assert_eq!(good.clone().with("content-md5", "").code(mock.address()), "ParameterInvalid");
    let chunked = Ask { body: b"0\r\n\r\n".to_vec(), ..good.with("transfer-encoding", "chunked") };
    assert_eq!(chunked.code(mock.address()), "MissingContentLength");
}

#[test]
fn projects_and_logstores_can_be_made_while_it_runs() {
    let mut access = Access::default();
    access.projects.push("other".to_owned());
    access.logstores.push("one".to_owned());
    let mock = Background::start(Options { access: access.clone(), ..Options::default() }).unwrap();
    let put = Ask::put(&group_of(&[b"line"]), Compression::None);
    let code = || put.code(mock.address());

    assert_eq!(code(), "ProjectNotExist");
    access.projects.push("test-project".to_owned());
    mock.set_access(access.clone());
    assert_eq!(code(), "LogStoreNotExist");
    access.logstores.push("test-logstore".to_owned());
    mock.set_access(access);
    assert_eq!(code(), "");
    assert_eq!(mock.store().counts().refused.into_values().sum::<u64>(), 2);
}

fn package(lines: &[&[u8]], compression: Compression) -> SlsLogPackage {
    let raw = group_of(lines).encode_to_vec();
    SlsLogPackage {
        data: compressed(&raw, compression),
        uncompress_size: Some(i32::try_from(raw.len()).unwrap()),
        compress_type: match compression {
            // The oldest clients' packages have no type.
            Compression::Lz4 => None,
            Compression::Zstd => Some(SlsCompressType::SlsCmpZstd as i32),
            Compression::None => Some(SlsCompressType::SlsCmpNone as i32),
        },
    }
}

fn batch(packages: Vec<SlsLogPackage>) -> Ask {
    Ask::put_raw(&SlsLogPackageList { packages }.encode_to_vec(), Compression::None)
        .with("x-log-compresstype", "lz4")
        .with("x-log-mode", "batch_group")
}

#[test]
fn a_batch_of_groups_is_stored_whole_or_not_at_all() {
    let mock = start_signed();
    let to = mock.address();
    let send = |packages| batch(packages).signed_v1(&key()).code(to);
    let good = || {
        [
            package(&[b"one"], Compression::Lz4),
            package(&[b"two", b"three"], Compression::Zstd),
            package(&[b"four"], Compression::None),
        ]
    };
    let with_fourth = |package: SlsLogPackage| [&good()[..], &[package]].concat();
    let fourth = || package(&[b"five"], Compression::Lz4);

    assert_eq!(send(vec![]), "PostBodyInvalid");
    let bad = SlsLogPackage { uncompress_size: Some(-1), ..fourth() };
    assert_eq!(send(with_fourth(bad)), "PostBodyUncompressError");
    let bad = SlsLogPackage { compress_type: Some(1), ..fourth() };
    assert_eq!(send(with_fourth(bad)), "InvalidCompressType");
    let bad = SlsLogPackage { data: b"garbage".to_vec(), ..fourth() };
    assert_eq!(send(with_fourth(bad)), "PostBodyUncompressError");
    assert_eq!(send(with_fourth(package(&[], Compression::Lz4))), "PostBodyInvalid");
    assert_eq!(mock.store().line_count(), 0);

    assert_eq!(send(good().to_vec()), "");
    assert_eq!(mock.store().lines(), [&b"one"[..], b"two", b"three", b"four"]);
    let groups = mock.store().groups();
    assert_eq!(groups.len(), 3);
    assert!(groups.iter().all(|group| group.request_id == groups[0].request_id));
    assert_eq!(mock.store().counts().puts, 1);
}

#[test]
fn a_sequence_number_must_grow_for_its_key() {
    let mock = start();
    let put = |logstore: &str, key: &str, seqid: &str| {
        Ask::put(&group_of(&[seqid.as_bytes()]), Compression::None)
            .at(&format!("/logstores/{logstore}/shards/route"), &[("key", key), ("seqid", seqid)])
            .code(mock.address())
    };
    let (one, two) = ("0".repeat(32), "F".repeat(32));

    assert_eq!(put("a", &one, "5"), "");
    assert_eq!(put("a", &one, "5"), "InvalidSequenceId");
    assert_eq!(put("a", &one, "4"), "InvalidSequenceId");
    assert_eq!(put("a", &two, "1"), "");
    assert_eq!(put("b", &one, "1"), "");
    assert_eq!(put("a", &one, "6"), "");
    assert_eq!(put("a", &one, "seven"), "ParameterInvalid");
    assert_eq!(put("a", "123", "7"), "ParameterInvalid");
    assert_eq!(put("a", "+0000000000000000000000000000000", "7"), "ParameterInvalid");
    assert_eq!(mock.store().lines(), [b"5", b"1", b"1", b"6"]);
    let stored: Vec<_> =
        mock.store().groups().iter().map(|group| (group.key, group.sequence)).collect();
    let all = u128::MAX;
    assert_eq!(
        stored,
        [(0, 5), (all, 1), (0, 1), (0, 6)].map(|(key, seqid)| (Some(key), Some(seqid)))
    );
    assert_eq!(mock.store().refused_sequences(), [(0, 5), (0, 4)]);
}
