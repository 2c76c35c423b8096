//! Settings as a whole: layers, mistakes, secrets, and the two files in `config/`.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;

use expect_test::{Expect, expect};
use proptest::prelude::*;

use super::*;
use crate::command::check;
use crate::limit::memory;
use crate::send::{CredentialsSource, Endpoint, Signature};
use logferry_wire::Compression;

/// The least that makes a good start.
const GOOD: [(&str, &str); 3] = [
    ("LOGFERRY_ENDPOINT", "http://127.0.0.1:9200"),
    ("LOGFERRY_PROJECT", "demo"),
    ("LOGFERRY_LOGSTORE", "app-log"),
];
const NO_CONTAINER: cgroup::Limits = cgroup::Limits { cpu_cores: None, memory_bytes: None };

fn env(pairs: &[(&str, &str)]) -> Environment {
    pairs.iter().map(|(name, value)| (name.into(), value.into())).collect()
}

/// [`GOOD`] with `pairs` over it.
fn good(pairs: &[(&str, &str)]) -> Environment {
    let mut env = env(&GOOD);
    env.extend(self::env(pairs));
    env
}

fn flags(pairs: &[(&str, &str)]) -> Flags {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), value.into())).collect()
}

fn load_env(env: &Environment) -> Result<Config, Mistakes> {
    load_within(env, &Flags::new(), NO_CONTAINER)
}

fn effective<'a>(config: &'a Config, key: &str) -> (&'a str, &'a str) {
    let row = config.effective.iter().find(|row| row.key == key).expect("the key is shown");
    (&row.value, &row.origin)
}

/// A file in a directory of its own; the directory's path is `DIR` in complaints.
struct File {
    directory: tempfile::TempDir,
    path: String,
}

fn file(name: &str, text: &str) -> File {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(name);
    std::fs::write(&path, text).unwrap();
    File { path: path.to_str().unwrap().to_owned(), directory }
}

fn complain(result: Result<Config, Mistakes>, expected: Expect) {
    expected.assert_eq(&result.expect_err("this must not load").to_string());
}

fn complain_file(name: &str, text: &str, expected: Expect) {
    let file = file(name, text);
    let mistakes = load_env(&good(&[("LOGFERRY_CONFIG", &file.path)])).expect_err(text);
    let directory = file.directory.path().to_str().unwrap();
    expected.assert_eq(&mistakes.to_string().replace(directory, "DIR"));
}

// Defaults and layers.

#[test]
fn defaults_are_those_of_the_contract() {
    let config = load_env(&good(&[])).unwrap();

    let rows: String = config
        .effective
        .iter()
        .map(|row| format!("{} = {} ({})\n", row.key, row.value, row.origin))
        .collect();
    expect![[r#"
        endpoint = http://127.0.0.1:9200 (environment LOGFERRY_ENDPOINT)
        project = demo (environment LOGFERRY_PROJECT)
        logstore = app-log (environment LOGFERRY_LOGSTORE)
        credentials_file =  (not set)
        ca_file =  (not set)
        client_cert_file =  (not set)
        client_key_file =  (not set)
        signature = v1 (default)
        region =  (not set)
        paths = /share/logs/**/*.log (default)
        exclude =  (default)
        link_roots =  (default)
        topic =  (default)
        state_dir = /var/lib/logferry (default)
        listen = 127.0.0.1:9465 (default)
        compression = lz4 (default)
        batch_bytes = 512KiB (default)
        batch_lines = 4000 (default)
        batch_linger = 1s (default)
        line_bytes_max = 512KiB (default)
        read_linger = 100ms (default)
        partial_line_timeout = 5s (default)
        held_deleted_bytes_max = 1GiB (default)
        drain_deadline = 25s (default)
        drain_quiet = 2s (default)
        drain_partial_lines = false (default)
        exit_when =  (not set)
        cpu_usage_limit = 2.0 (default)
        mem_usage_limit = 384 (default)
        max_bytes_per_sec = 0 (default)
        send_request_concurrency = 8 (default)
        ordered_delivery = false (default)
        exactly_once = false (default)
        shard_hash_keys =  (default)
        verify_response = true (default)
        log = info (default)
        log_format = text (default)
        credentials = none (requests go unsigned)
    "#]]
    .assert_eq(&rows);
    let destination = config.plan.only_destination();
    assert_eq!(
        destination.endpoint,
        Endpoint { tls: false, host: "127.0.0.1".to_owned(), port: 9200 }
    );
    assert_eq!(destination.compression, Compression::Lz4);
    assert_eq!(config.limit.memory_bytes, 384 << 20);
    let collection = config.plan.collection(config.plan.only_collection());
    assert!(collection.exclude.is_empty(), "the state's own files are left out by name");
    assert_eq!(config.log_format, LogFormat::Text);
    assert!(matches!(destination.credentials, CredentialsSource::Unsigned));
}

/// For a key of every kind: the file beats the default, the environment the file, flags all.
#[test]
fn later_layers_win_for_every_kind_of_key() {
    let text = r#"
endpoint = "http://127.0.0.2"
project = "file"
paths = ["/file/*.log", "/file/{a,b}"]
link_roots = ["/file", "/a,b//c/./d/"]
topic = "file"
state_dir = "/file-state"
listen = "127.0.0.1:1"
compression = "zstd"
batch_bytes = 65536
batch_lines = 10
batch_linger = "2s"
cpu_usage_limit = 1
verify_response = false
log = "warn"
"#;
    let later = [
        ("endpoint", "http://127.0.0.2:80", "http://127.0.0.3:80", "http://127.0.0.4:80"),
        ("project", "file", "env", "flag"),
        ("paths", "/file/*.log,/file/{a,b}", "/env/{a,b}", "/flag"),
        ("link_roots", "/file,/a,b/c/d", "/env,/x", "/"),
        ("topic", "file", "env", "flag"),
        ("state_dir", "/file-state", "/env-state", "/flag-state"),
        ("listen", "127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"),
        ("compression", "zstd", "none", "lz4"),
        ("batch_bytes", "64KiB", "128KiB", "256KiB"),
        ("batch_lines", "10", "20", "30"),
        ("batch_linger", "2s", "3s", "4s"),
        ("cpu_usage_limit", "1.0", "0.5", "0.25"),
        ("verify_response", "false", "true", "false"),
        ("log", "warn", "error", "debug,hyper=info"),
    ];
    let file = file("settings.toml", text);
    let origin = format!("file {}", file.path);
    for (key, in_file, in_env, in_flag) in later {
        let variable = format!("LOGFERRY_{}", key.to_uppercase());
        let mut env = env(&[("LOGFERRY_LOGSTORE", "l"), ("LOGFERRY_CONFIG", &file.path)]);
        let of_file = load_env(&env).unwrap();
        env.insert(variable.clone().into(), in_env.into());
        let of_env = load_env(&env).unwrap();
        let flags = flags(&[(key, in_flag)]);
        let of_flag = load_within(&env, &flags, NO_CONTAINER).unwrap();

        assert_eq!(effective(&of_file, key), (in_file, origin.as_str()));
        assert_eq!(effective(&of_env, key), (in_env, format!("environment {variable}").as_str()));
        let flag = format!("flag --{}", key.replace('_', "-"));
        assert_eq!(effective(&of_flag, key), (in_flag, flag.as_str()));
    }
}

#[test]
fn yaml_says_the_same_as_toml() {
    let file = file(
        "settings.yml",
        "# comment\npaths:\n  - /a/*.log\n  - /b/**\nbatch_lines: 7\ncpu_usage_limit: 0.5\n\
         verify_response: false\ntopic:\nbatch_bytes: 64KiB\n",
    );
    let config = load_env(&good(&[("LOGFERRY_CONFIG", &file.path)])).unwrap();

    let collection = config.plan.collection(config.plan.only_collection());
    assert_eq!(collection.paths, ["/a/*.log", "/b/**"]);
    assert_eq!(config.batch.batch_lines, 7);
    assert_eq!(config.batch.batch_bytes, 64 << 10);
    assert_eq!(config.limit.cpu_cores, 0.5);
    assert!(!config.send.verify_response);
    assert_eq!(effective(&config, "topic"), ("", "default"));
}

#[test]
fn an_empty_file_says_nothing() {
    for name in ["a.toml", "a.yaml"] {
        for text in ["", "\n# nothing\n"] {
            let file = file(name, text);
            assert!(load_env(&good(&[("LOGFERRY_CONFIG", &file.path)])).is_ok(), "{name} {text:?}");
        }
    }
}

#[test]
fn our_variable_wins_over_the_bare_one() {
    let bare = [("cpu_usage_limit", "0.5"), ("mem_usage_limit", "1024")];
    let config = load_env(&good(&bare)).unwrap();
    assert_eq!(effective(&config, "cpu_usage_limit"), ("0.5", "environment cpu_usage_limit"));
    assert_eq!(config.limit.memory_bytes, 1024 << 20);

    let both = [("cpu_usage_limit", "0.5"), ("LOGFERRY_CPU_USAGE_LIMIT", "0.7")];
    let config = load_env(&good(&both)).unwrap();
    assert_eq!(
        effective(&config, "cpu_usage_limit"),
        ("0.7", "environment LOGFERRY_CPU_USAGE_LIMIT")
    );
}

#[test]
fn an_empty_variable_is_a_value_only_where_empty_means_something() {
    let names = "LISTEN TOPIC EXCLUDE LINK_ROOTS BATCH_BYTES PATHS COMPRESSION CONFIG".split(' ');
    let names: Vec<_> = names.map(|name| format!("LOGFERRY_{name}")).collect();
    let pairs: Vec<_> = names.iter().map(|name| (name.as_str(), "")).collect();

    let config = load_env(&good(&pairs)).unwrap();

    assert_eq!(config.listen, None);
    assert_eq!(effective(&config, "listen"), ("", "environment LOGFERRY_LISTEN"));
    assert_eq!(effective(&config, "topic").1, "environment LOGFERRY_TOPIC");
    assert!(config.tail.link_roots.is_empty());
    assert_eq!(effective(&config, "batch_bytes"), ("512KiB", "default"));
    assert_eq!(effective(&config, "paths").1, "default");
}

// The container.

#[test]
fn limits_are_lowered_to_the_containers_and_say_so() {
    let container = cgroup::Limits { cpu_cores: Some(0.5), memory_bytes: Some(64 << 20) };
    let load = |env: &Environment| load_within(env, &Flags::new(), container).unwrap();

    let config = load(&good(&[]));
    assert_eq!(config.limit.cpu_cores, 0.5);
    assert_eq!(config.limit.memory_bytes, 64 << 20);
    assert_eq!(config.memory.limit_bytes, 64 << 20);
    let origin = "the container's quota (lower than 2.0 from default)";
    assert_eq!(effective(&config, "cpu_usage_limit"), ("0.5", origin));

    let config = load(&good(&[("mem_usage_limit", "1024"), ("cpu_usage_limit", "0.25")]));
    let origin = "the container's limit (lower than 1024 from environment mem_usage_limit)";
    assert_eq!(effective(&config, "mem_usage_limit"), ("64", origin));
    assert_eq!(effective(&config, "cpu_usage_limit"), ("0.25", "environment cpu_usage_limit"));
}

#[test]
fn a_container_that_is_too_small_is_refused() {
    let container = cgroup::Limits { cpu_cores: None, memory_bytes: Some(16 << 20) };
    complain(
        load_within(&good(&[]), &Flags::new(), container),
        expect![[r#"
            1 mistake in the settings:
              mem_usage_limit = 16, from the container's limit (lower than 384 from default): the least that these settings need is 28 MB; raise it (and the container's limit, if that is lower), or lower batch_bytes or line_bytes_max"#]],
    );
}

// An existing logtail set-up.

#[test]
fn the_articles_pod_works_with_credentials_project_and_logstore_added() {
    let config = load_env(&env(&[
        ("ALIYUN_LOGTAIL_CONFIG", "/etc/ilogtail/conf/cn-hangzhou-intranet/ilogtail_config.json"),
        ("ALIYUN_LOGTAIL_USER_ID", "1234567890"),
        ("ALIYUN_LOGTAIL_USER_DEFINED_ID", "web,app"),
        ("ALIYUN_LOG_ENV_TAGS", "_node_name_|_node_ip_|_pod_name_|_pod_namespace_"),
        ("_node_name_", "node-1"),
        ("_node_ip_", "10.0.0.1"),
        ("_pod_name_", "app-1"),
        ("cpu_usage_limit", "2.0"),
        ("mem_usage_limit", "1024"),
        ("ALIBABA_CLOUD_ACCESS_KEY_ID", "id"),
        ("ALIBABA_CLOUD_ACCESS_KEY_SECRET", "s3cret"),
        ("LOGFERRY_PROJECT", "demo"),
        ("LOGFERRY_LOGSTORE", "app-log"),
        ("POD_IP", "10.7.0.37"),
    ]))
    .unwrap();

    assert_eq!(
        effective(&config, "endpoint"),
        (
            "https://cn-hangzhou-intranet.log.aliyuncs.com:443",
            "ALIYUN_LOGTAIL_CONFIG, directory name cn-hangzhou-intranet"
        )
    );
    let tags = config.tags.tags_for(b"/share/logs/app.log");
    let tags: Vec<_> =
        tags.iter().map(|(k, v)| format!("{k}={}", String::from_utf8_lossy(v))).collect();
    assert_eq!(
        tags[1..],
        [
            "__path__=/share/logs/app.log",
            "__user_defined_id__=app web",
            "_node_name_=node-1",
            "_node_ip_=10.0.0.1",
            "_pod_name_=app-1",
            "_pod_namespace_=",
        ]
    );
    assert_eq!(config.tags.source(), "10.7.0.37");
}

#[test]
fn the_logtail_file_stands_between_defaults_and_the_settings_file() {
    let logtail = file(
        "ilogtail_config.json",
        r#"{"data_server_list": [{"cluster": "c", "endpoint": "http://127.0.0.9"}],
            "cpu_usage_limit": 0.1, "send_request_concurrency": 4, "max_bytes_per_sec": 2097152}"#,
    );
    let settings = file("s.toml", "cpu_usage_limit = 0.2\nendpoint = \"http://127.0.0.1\"\n");
    let mut env = env(&GOOD[1..]);
    env.insert("ALIYUN_LOGTAIL_CONFIG".into(), logtail.path.clone().into());

    let config = load_env(&env).unwrap();
    let origin = format!("ALIYUN_LOGTAIL_CONFIG, file {}", logtail.path);
    assert_eq!(effective(&config, "endpoint"), ("http://127.0.0.9:80", origin.as_str()));
    assert_eq!(config.send.concurrency_max, 4);
    assert_eq!(config.limit.bytes_per_second, 2 << 20);
    assert_eq!(config.limit.cpu_cores, 0.1, "no hidden least value");

    env.insert("LOGFERRY_CONFIG".into(), settings.path.into());
    let config = load_env(&env).unwrap();
    assert_eq!(config.limit.cpu_cores, 0.2);
    assert_eq!(effective(&config, "endpoint").0, "http://127.0.0.1:80");
}

#[test]
fn every_suffix_of_the_directory_gives_its_endpoint() {
    for (directory, host) in [
        ("cn-hangzhou-internet", "cn-hangzhou.log.aliyuncs.com"),
        ("cn-hangzhou_Intranet", "cn-hangzhou-intranet.log.aliyuncs.com"),
        ("cn-hangzhou-inner", "cn-hangzhou-share.log.aliyuncs.com"),
        ("cn-hangzhou-acceleration", "log-global.aliyuncs.com"),
        ("cn-hangzhou", "cn-hangzhou-intranet.log.aliyuncs.com"),
    ] {
        let mut env = env(&GOOD[1..]);
        let path = format!("/nowhere/conf/{directory}/ilogtail_config.json");
        env.extend(self::env(&[
            ("ALIYUN_LOGTAIL_CONFIG", &path),
            ("ALIBABA_CLOUD_ACCESS_KEY_ID", "id"),
            ("ALIBABA_CLOUD_ACCESS_KEY_SECRET", "s3cret"),
        ]));
        let plan = load_env(&env).unwrap().plan;
        let endpoint = &plan.only_destination().endpoint;
        assert_eq!(*endpoint, Endpoint { tls: true, host: host.to_owned(), port: 443 });
    }
}

#[test]
fn a_bad_logtail_file_is_a_mistake() {
    let bad = file("ilogtail_config.json", "{ no");
    let mistakes = load_env(&good(&[("ALIYUN_LOGTAIL_CONFIG", &bad.path)])).unwrap_err();
    assert!(mistakes.to_string().contains("no JSON at line 1, column 3"), "{mistakes}");

    complain(
        load_env(&env(&[("ALIYUN_LOGTAIL_CONFIG", "/nowhere/x.json")])),
        expect![[r#"
            4 mistakes in the settings:
              ALIYUN_LOGTAIL_CONFIG = "/nowhere/x.json", from environment: the file is missing and its directory "nowhere" is not named <region>-<network_type>, such as cn-hangzhou-intranet
              endpoint: not set; set LOGFERRY_ENDPOINT or --endpoint to http:// or https:// and a host with an optional port, or a bare host name, such as https://cn-hangzhou.log.aliyuncs.com, or ALIYUN_LOGTAIL_CONFIG to an ilogtail_config.json that names it
              project: not set; set LOGFERRY_PROJECT or --project to the name of a project: 1 to 63 lower-case letters, digits and hyphens, with a letter or digit at both ends
              logstore: not set; set LOGFERRY_LOGSTORE or --logstore to the name of a logstore: 1 to 128 lower-case letters, digits, underscores and hyphens, with a letter or digit at both ends"#]],
    );
}

// Mistakes.

#[test]
fn nothing_set_names_everything_that_is_missing() {
    complain(
        load_env(&Environment::new()),
        expect![[r#"
        3 mistakes in the settings:
          endpoint: not set; set LOGFERRY_ENDPOINT or --endpoint to http:// or https:// and a host with an optional port, or a bare host name, such as https://cn-hangzhou.log.aliyuncs.com, or ALIYUN_LOGTAIL_CONFIG to an ilogtail_config.json that names it
          project: not set; set LOGFERRY_PROJECT or --project to the name of a project: 1 to 63 lower-case letters, digits and hyphens, with a letter or digit at both ends
          logstore: not set; set LOGFERRY_LOGSTORE or --logstore to the name of a logstore: 1 to 128 lower-case letters, digits, underscores and hyphens, with a letter or digit at both ends"#]],
    );
}

#[test]
fn all_mistakes_are_reported_at_once() {
    let bad = good(&[
        ("LOGFERRY_ENDPOINT", "ftp://user:s3cret@host"),
        ("LOGFERRY_PROJECT", "Demo Project"),
        ("LOGFERRY_LOGSTORE", "-x-"),
        ("LOGFERRY_PATHS", "/a/[b,logs/*.log"),
        ("LOGFERRY_EXCLUDE", "relative"),
        ("LOGFERRY_STATE_DIR", "var/lib"),
        ("LOGFERRY_LISTEN", "localhost:9465"),
        ("LOGFERRY_COMPRESSION", "gzip"),
        ("LOGFERRY_BATCH_BYTES", "5 parsecs"),
        ("LOGFERRY_BATCH_LINES", "5000"),
        ("LOGFERRY_BATCH_LINGER", "5"),
        ("LOGFERRY_LINE_BYTES_MAX", "1.5MiB"),
        ("LOGFERRY_DRAIN_DEADLINE", "0s"),
        ("LOGFERRY_LINK_ROOTS", "/data,logs"),
        ("LOGFERRY_LOG", "verbose"),
        ("LOGFERRY_LOG_FORMAT", "xml"),
        ("LOGFERRY_VERIFY_RESPONSE", "maybe"),
        ("LOGFERRY_TOPIC", "a\u{1b}[31m"),
        ("cpu_usage_limit", "-1"),
        ("mem_usage_limit", "512MiB"),
        ("max_bytes_per_sec", "-5"),
        ("send_request_concurrency", "0"),
        ("LOGFERRY_PROJCT", "demo"),
        ("LOGFERRY_FROBNICATE", "1"),
        ("LOGFERRY_ACCESS_KEY_SECRET", "s3cret"),
    ]);
    complain(
        load_env(&bad),
        expect![[r#"
            25 mistakes in the settings:
              LOGFERRY_ACCESS_KEY_SECRET = ***, from environment: unknown key; for credentials set ALIBABA_CLOUD_ACCESS_KEY_ID and ALIBABA_CLOUD_ACCESS_KEY_SECRET, or credentials_file (LOGFERRY_CREDENTIALS_FILE) to a JSON file with access_key_id and access_key_secret
              LOGFERRY_FROBNICATE = "1", from environment: unknown key; `logferry run --help` lists all keys
              LOGFERRY_PROJCT = "demo", from environment: unknown key; did you mean LOGFERRY_PROJECT?
              endpoint = "ftp://***@host", from environment LOGFERRY_ENDPOINT: the scheme is neither http nor https; expected http:// or https:// and a host with an optional port, or a bare host name, such as https://cn-hangzhou.log.aliyuncs.com
              project = "Demo Project", from environment LOGFERRY_PROJECT: expected the name of a project: 1 to 63 lower-case letters, digits and hyphens, with a letter or digit at both ends
              logstore = "-x-", from environment LOGFERRY_LOGSTORE: expected the name of a logstore: 1 to 128 lower-case letters, digits, underscores and hyphens, with a letter or digit at both ends
              paths = "/a/[b,logs/*.log", from environment LOGFERRY_PATHS: "/a/[b,logs/*.log": unclosed character class; missing ']'; expected absolute globs of files, such as /share/logs/**/*.log
              exclude = "relative", from environment LOGFERRY_EXCLUDE: "relative": the pattern is not absolute; expected absolute globs of files, or nothing
              link_roots = "/data,logs", from environment LOGFERRY_LINK_ROOTS: "logs" is no absolute path; expected absolute directories, such as /data, or nothing
              topic = "a\u{1b}[31m", from environment LOGFERRY_TOPIC: expected a text of at most 1024 bytes without control characters
              state_dir = "var/lib", from environment LOGFERRY_STATE_DIR: expected an absolute path
              listen = "localhost:9465", from environment LOGFERRY_LISTEN: expected an IP address and a port, such as 127.0.0.1:9465, or nothing
              compression = "gzip", from environment LOGFERRY_COMPRESSION: expected one of lz4, zstd, none
              batch_bytes = "5 parsecs", from environment LOGFERRY_BATCH_BYTES: the unit is unknown; write one of B, KiB, MiB, GiB, KB, MB, GB; expected a size from 4KiB to 2MiB
              batch_lines = "5000", from environment LOGFERRY_BATCH_LINES: expected a whole number of lines from 1 to 4096
              batch_linger = "5", from environment LOGFERRY_BATCH_LINGER: the unit is missing; write one of ms, s, m, h; expected a time from 10ms to 1m
              line_bytes_max = "1.5MiB", from environment LOGFERRY_LINE_BYTES_MAX: there is no whole number in front; expected a size from 1KiB to 2MiB
              drain_deadline = "0s", from environment LOGFERRY_DRAIN_DEADLINE: expected a time from 1s to 1h
              cpu_usage_limit = "-1", from environment cpu_usage_limit: expected a decimal number of cores from 0.01 to 1024
              mem_usage_limit = "512MiB", from environment mem_usage_limit: expected a whole number of MB from 32 to 1048576
              max_bytes_per_sec = "-5", from environment max_bytes_per_sec: there is no whole number in front; expected 0 or a size from 1KiB to 64GiB
              send_request_concurrency = "0", from environment send_request_concurrency: expected a whole number of requests from 1 to 1000
              verify_response = "maybe", from environment LOGFERRY_VERIFY_RESPONSE: expected true or false
              log = "verbose", from environment LOGFERRY_LOG: "verbose" is no level; expected a level (off, error, warn, info, debug, trace) or part=level, separated by commas
              log_format = "xml", from environment LOGFERRY_LOG_FORMAT: expected one of text, json"#]],
    );
}

#[test]
fn mistakes_in_files_name_the_file() {
    complain_file(
        "a.toml",
        "batch_bytes = 1\nbatch_size = 3\n[paths]\nx = 1\n",
        expect![[r#"
            3 mistakes in the settings:
              batch_size = 3, from file DIR/a.toml: unknown key; `logferry run --help` lists all keys
              paths = a table, from file DIR/a.toml: expected absolute globs of files, such as /share/logs/**/*.log
              batch_bytes = 1, from file DIR/a.toml: expected a size from 4KiB to 2MiB"#]],
    );
    complain_file(
        "a.toml",
        "project = \"x\"\npaths = [1, 2]\nlog = [\"info\"]",
        expect![[r#"
            2 mistakes in the settings:
              paths = [1, 2], from file DIR/a.toml: not every item is a text; expected absolute globs of files, such as /share/logs/**/*.log
              log = ["info"], from file DIR/a.toml: expected a level (off, error, warn, info, debug, trace) or part=level, separated by commas"#]],
    );
    complain_file(
        "a.toml",
        "access_key_secret = s3cret\n",
        expect![[r#"
            1 mistake in the settings:
              LOGFERRY_CONFIG = "DIR/a.toml", from environment: TOML parse error at line 1, column 21: string values must be quoted, expected literal string"#]],
    );
    complain_file(
        "a.yaml",
        "paths:\n  - /a\n b: [\n",
        expect![[r#"
            1 mistake in the settings:
              LOGFERRY_CONFIG = "DIR/a.yaml", from environment: while parsing a block mapping, did not find expected key at byte 16 line 3 column 3"#]],
    );
    complain_file(
        "a.yaml",
        "- a\n- b\n",
        expect![[r#"
            1 mistake in the settings:
              LOGFERRY_CONFIG = "DIR/a.yaml", from environment: invalid type: sequence, expected a map"#]],
    );
    complain_file(
        "a.json",
        "{}",
        expect![[r#"
            1 mistake in the settings:
              LOGFERRY_CONFIG = "DIR/a.json", from environment: the name of the file must end in .toml, .yaml or .yml"#]],
    );
    complain_file(
        "a.toml",
        &"#".repeat(70_000),
        expect![[r#"
            1 mistake in the settings:
              LOGFERRY_CONFIG = "DIR/a.toml", from environment: the file is larger than 64KiB"#]],
    );
}

/// The parsers recurse and the agent aborts on an overflow of the stack, so nothing may nest deep.
#[test]
fn deep_files_are_refused_or_read_but_never_overflow() {
    let stairs = |step: &str, count: usize| {
        (0..count).map(|depth| format!("{}{step}\n", " ".repeat(2 * depth))).collect::<String>()
    };
    for (name, text) in [
        ("a.yaml", stairs("-", 200)),
        ("a.yaml", stairs("a:", 200)),
        ("a.yaml", stairs("- - - -", 60)),
        ("a.yaml", "{a: ".repeat(60)),
        ("a.toml", format!("a = {}", "[".repeat(60_000))),
        ("a.toml", format!("a = {}", "{b=".repeat(20_000))),
        ("a.toml", format!("{}a = 1", "a.".repeat(30_000))),
        ("a.toml", format!("[{}a]\nx = 1", "a.".repeat(30_000))),
    ] {
        let file = file(name, &text);
        assert!(load_env(&good(&[("LOGFERRY_CONFIG", &file.path)])).is_err(), "{}", &text[..20]);
    }
}

#[test]
fn an_unreadable_settings_file_is_a_mistake() {
    complain(
        load_env(&good(&[("LOGFERRY_CONFIG", "/nowhere/a.toml")])),
        expect![[r#"
            1 mistake in the settings:
              LOGFERRY_CONFIG = "/nowhere/a.toml", from environment: cannot read the file: No such file or directory (os error 2)"#]],
    );
    let file = file("a.toml", "");
    let directory = file.directory.path().join("d.toml");
    std::fs::create_dir(&directory).unwrap();
    let env = good(&[("LOGFERRY_CONFIG", directory.to_str().unwrap())]);
    assert!(load_env(&env).unwrap_err().to_string().contains("Is a directory"));
}

#[test]
fn values_that_are_no_text_are_mistakes_except_as_tags() {
    let raw = OsString::from_vec(vec![b'a', 0xff]);
    let mut bad = good(&[]);
    bad.insert("LOGFERRY_TOPIC".into(), raw.clone());
    bad.insert("ALIYUN_LOG_ENV_TAGS".into(), raw.clone());
    bad.insert("ALIBABA_CLOUD_ACCESS_KEY_SECRET".into(), raw.clone());
    complain(
        load_env(&bad),
        expect![[r#"
            3 mistakes in the settings:
              topic = "a�", from environment LOGFERRY_TOPIC: expected text in UTF-8
              ALIBABA_CLOUD_ACCESS_KEY_SECRET = ***, from environment: expected printable ASCII without blanks within
              ALIYUN_LOG_ENV_TAGS = "a�", from environment: expected text in UTF-8"#]],
    );

    let mut tag = good(&[("ALIYUN_LOG_ENV_TAGS", "_raw_")]);
    tag.insert("_raw_".into(), raw);
    let tags = load_env(&tag).unwrap().tags.tags_for(b"/a");
    assert_eq!(tags.last().unwrap().1, [b'a', 0xff]);
}

#[test]
fn what_kubernetes_injects_is_ignored() {
    assert!(
        load_env(&good(&[
            ("LOGFERRY_SERVICE_HOST", "10.0.0.1"),
            ("LOGFERRY_SERVICE_PORT_HTTP", "9465"),
            ("LOGFERRY_PORT", "tcp://10.0.0.1:9465"),
            ("LOGFERRY_PORT_9465_TCP_ADDR", "10.0.0.1"),
        ]))
        .is_ok()
    );
}

#[test]
fn a_flag_that_is_no_key_is_a_mistake() {
    complain(
        load_within(&good(&[]), &flags(&[("colour", "red")]), NO_CONTAINER),
        expect![[r#"
            1 mistake in the settings:
              colour = "red", from flag: unknown key; `logferry run --help` lists all keys"#]],
    );
}

#[test]
fn rules_between_keys_are_checked() {
    complain(
        load_env(&good(&[("LOGFERRY_BATCH_BYTES", "2MiB"), ("LOGFERRY_LINE_BYTES_MAX", "1MiB")])),
        expect![[r#"
            1 mistake in the settings:
              batch_bytes = 2MiB, from environment LOGFERRY_BATCH_BYTES: together with line_bytes_max = 1MiB (from environment LOGFERRY_LINE_BYTES_MAX) it is more than the 2816KiB that fit into one group; lower one of them"#]],
    );
    complain(
        load_env(&good(&[
            ("LOGFERRY_ENDPOINT", "http://demo.cn-hangzhou.log.aliyuncs.com"),
            ("ALIBABA_CLOUD_ACCESS_KEY_ID", "id"),
            ("ALIBABA_CLOUD_ACCESS_KEY_SECRET", "s3cret"),
        ])),
        expect![[r#"
            1 mistake in the settings:
              endpoint = "http://demo.cn-hangzhou.log.aliyuncs.com:80", from environment LOGFERRY_ENDPOINT: the project is not part of it; write cn-hangzhou.log.aliyuncs.com"#]],
    );
    complain(
        load_env(&good(&[
            ("mem_usage_limit", "32"),
            ("LOGFERRY_BATCH_BYTES", "1MiB"),
            ("LOGFERRY_LINE_BYTES_MAX", "1MiB"),
        ])),
        expect![[r#"
            1 mistake in the settings:
              mem_usage_limit = 32, from environment mem_usage_limit: the least that these settings need is 35 MB; raise it (and the container's limit, if that is lower), or lower batch_bytes or line_bytes_max"#]],
    );
    complain(
        load_env(&good(&[("ALIYUN_LOG_ENV_TAGS", "A|ALIBABA_CLOUD_ACCESS_KEY_SECRET")])),
        expect![[r#"
            1 mistake in the settings:
              ALIYUN_LOG_ENV_TAGS = "A|ALIBABA_CLOUD_ACCESS_KEY_SECRET", from environment: ALIBABA_CLOUD_ACCESS_KEY_SECRET is a secret and must not become a tag"#]],
    );
    complain(
        load_env(&good(&[("ALIYUN_LOG_ENV_TAGS", "BIG"), ("BIG", &"x".repeat(40_000))])),
        expect![[r#"
            1 mistake in the settings:
              ALIYUN_LOG_ENV_TAGS = "BIG", from environment: names and values of these variables are 40003 bytes; expected at most 32768"#]],
    );
}

#[test]
fn the_largest_batches_allowed_fit_the_service() {
    let largest = [("LOGFERRY_BATCH_BYTES", "2MiB"), ("LOGFERRY_LINE_BYTES_MAX", "768KiB")];
    let config = load_env(&good(&largest)).unwrap();

    let raw = config.batch.batch_bytes + config.tail.line_bytes_max;
    assert_eq!(raw + memory::GROUP_OVERHEAD_BYTES_MAX, logferry_wire::GROUP_BYTES_MAX);
}

#[test]
fn thirty_two_megabytes_are_enough_for_the_defaults() {
    let config = load_env(&good(&[("mem_usage_limit", "32")])).unwrap();
    assert!(config.memory.total() <= 32 << 20);
}

// Credentials and secrets.

#[test]
fn credentials_are_needed_for_https_and_beyond_this_machine() {
    complain(
        load_env(&good(&[("LOGFERRY_ENDPOINT", "https://localhost")])),
        expect![[r#"
        1 mistake in the settings:
          credentials: none are set, and an https endpoint needs them: set ALIBABA_CLOUD_ACCESS_KEY_ID and ALIBABA_CLOUD_ACCESS_KEY_SECRET, or credentials_file (LOGFERRY_CREDENTIALS_FILE) to a JSON file with access_key_id and access_key_secret"#]],
    );
    complain(
        load_env(&good(&[("LOGFERRY_ENDPOINT", "http://10.0.0.1")])),
        expect![[r#"
        1 mistake in the settings:
          credentials: none are set, and unsigned requests go only to this machine: set ALIBABA_CLOUD_ACCESS_KEY_ID and ALIBABA_CLOUD_ACCESS_KEY_SECRET, or credentials_file (LOGFERRY_CREDENTIALS_FILE) to a JSON file with access_key_id and access_key_secret"#]],
    );
    complain(
        load_env(&good(&[("ALIBABA_CLOUD_ACCESS_KEY_ID", "id")])),
        expect![[r#"
        1 mistake in the settings:
          ALIBABA_CLOUD_ACCESS_KEY_SECRET: not set, although ALIBABA_CLOUD_ACCESS_KEY_ID is: set both or none"#]],
    );
    complain(
        load_env(&good(&[("ALIBABA_CLOUD_ACCESS_KEY_SECRET", "s3cret")])),
        expect![[r#"
        1 mistake in the settings:
          ALIBABA_CLOUD_ACCESS_KEY_ID: not set, although ALIBABA_CLOUD_ACCESS_KEY_SECRET is: set both or none"#]],
    );
    complain(
        load_env(&good(&[("ALIBABA_CLOUD_SECURITY_TOKEN", "t0ken")])),
        expect![[r#"
        1 mistake in the settings:
          ALIBABA_CLOUD_ACCESS_KEY_ID and ALIBABA_CLOUD_ACCESS_KEY_SECRET: not set, although ALIBABA_CLOUD_SECURITY_TOKEN is: set both or none"#]],
    );
}

#[test]
fn a_credentials_file_is_checked_and_wins_over_the_environment() {
    let good_file =
        file("c.json", r#"{"access_key_id": "from-file", "access_key_secret": "s3cret"}"#);
    let both = good(&[
        ("LOGFERRY_ENDPOINT", "https://cn-hangzhou.log.aliyuncs.com"),
        ("LOGFERRY_CREDENTIALS_FILE", &good_file.path),
        ("ALIBABA_CLOUD_ACCESS_KEY_ID", "from-env"),
    ]);
    let config = load_env(&both).unwrap();
    assert!(
        matches!(&config.plan.only_destination().credentials, CredentialsSource::File(path) if path == Path::new(&good_file.path))
    );

    let bad = file("c.json", r#"{"access_key_id": "s3cret", "x": s3cret}"#);
    let mistakes = load_env(&good(&[("LOGFERRY_CREDENTIALS_FILE", &bad.path)])).unwrap_err();
    assert!(mistakes.to_string().contains("is not valid JSON at line 1 column 34"), "{mistakes}");
    assert!(!mistakes.to_string().contains("s3cret"));
    complain(
        load_env(&good(&[("LOGFERRY_CREDENTIALS_FILE", "/nowhere.json")])),
        expect![[r#"
            1 mistake in the settings:
              credentials_file = "/nowhere.json", from environment LOGFERRY_CREDENTIALS_FILE: cannot read the credentials file /nowhere.json: No such file or directory (os error 2)"#]],
    );
}

#[test]
fn secrets_never_show() {
    let env = good(&[
        ("ALIBABA_CLOUD_ACCESS_KEY_ID", "id"),
        ("ALIBABA_CLOUD_ACCESS_KEY_SECRET", "s3cret"),
        ("ALIBABA_CLOUD_SECURITY_TOKEN", "s3cret-token"),
    ]);
    let config = load_env(&env).unwrap();
    for text in [format!("{config:?}"), format!("{:?}", config.effective), check::tables(&config)] {
        assert!(text.contains("***"), "{text}");
        assert!(!text.contains("s3cret"), "{text}");
    }

    let bad = good(&[
        ("LOGFERRY_ENDPOINT", "https://user:s3cret@cn-hangzhou.log.aliyuncs.com"),
        ("LOGFERRY_SECURITY_TOKEN", "s3cret"),
        ("LOGFERRY_AK", "s3cret"),
        ("ALIBABA_CLOUD_ACCESS_KEY_SECRET", "s3cret\u{7f}"),
        ("ALIYUN_LOG_ENV_TAGS", "ALIBABA_CLOUD_SECURITY_TOKEN"),
        ("ALIBABA_CLOUD_SECURITY_TOKEN", "s3cret"),
    ]);
    let mistakes = load_env(&bad).unwrap_err();
    assert_eq!(mistakes.0.len(), 5, "{mistakes}");
    for text in [mistakes.to_string(), format!("{mistakes:?}")] {
        assert!(!text.contains("s3cret"), "{text}");
    }
}

// What is printed.

#[test]
fn check_prints_two_tables() {
    let config =
        load_env(&good(&[("LOGFERRY_TOPIC", "tópic"), ("mem_usage_limit", "64")])).unwrap();
    expect![[r#"
        setting                   value                  from
        endpoint                  http://127.0.0.1:9200  environment LOGFERRY_ENDPOINT
        project                   demo                   environment LOGFERRY_PROJECT
        logstore                  app-log                environment LOGFERRY_LOGSTORE
        credentials_file                                 not set
        ca_file                                          not set
        client_cert_file                                 not set
        client_key_file                                  not set
        signature                 v1                     default
        region                                           not set
        paths                     /share/logs/**/*.log   default
        exclude                                          default
        link_roots                                       default
        topic                     tópic                  environment LOGFERRY_TOPIC
        state_dir                 /var/lib/logferry      default
        listen                    127.0.0.1:9465         default
        compression               lz4                    default
        batch_bytes               512KiB                 default
        batch_lines               4000                   default
        batch_linger              1s                     default
        line_bytes_max            512KiB                 default
        read_linger               100ms                  default
        partial_line_timeout      5s                     default
        held_deleted_bytes_max    1GiB                   default
        drain_deadline            25s                    default
        drain_quiet               2s                     default
        drain_partial_lines       false                  default
        exit_when                                        not set
        cpu_usage_limit           2.0                    default
        mem_usage_limit           64                     environment mem_usage_limit
        max_bytes_per_sec         0                      default
        send_request_concurrency  8                      default
        ordered_delivery          false                  default
        exactly_once              false                  default
        shard_hash_keys                                  default
        verify_response           true                   default
        log                       info                   default
        log_format                text                   default
        credentials               none                   requests go unsigned

        memory              at most  because
        base                12MiB    the process without any file
        files               10.3MiB  5227 open at once, 2048 bytes each
        closed files        14.0MiB  11447 delivered and at rest, 1280 bytes each
        read buffer         1MiB     one, for a line of 512KiB
        compressed file     1280KiB  one at a time: its decoder, and its text beside the read buffer
        open groups         10.7MiB  8.2MiB, and 2 × a group that grows by doubling
        compression buffer  1.4MiB   one payload, of a group of 1280KiB
        hand-off            11.1MiB  9.7MiB waiting or in flight, and one payload
        requests            2560KiB  8, each with a copy of small batches: a list
        worst case          64MiB    of 64MiB (mem_usage_limit)
    "#]]
    .assert_eq(&check::tables(&config));
}

#[test]
fn looking_from_outside_needs_no_complete_settings() {
    let local =
        load_local(&env(&[("LOGFERRY_PROJECT", "!"), ("LOGFERRY_STATE_DIR", "/s")]), &flags(&[]));
    let listen = Some("127.0.0.1:9465".parse().unwrap());
    assert_eq!(local, Ok(Local { state_dir: "/s".into(), listen }));

    let mistakes = load_local(&env(&[("LOGFERRY_STATE_DIR", "s")]), &flags(&[])).unwrap_err();
    assert_eq!(mistakes.0[0].key, "state_dir");
}

#[test]
fn the_state_directory_needs_its_own_keys_only() {
    let load = |vars: &[(&str, &str)]| load_kept(&env(vars), &flags(&[]));
    let kept = load(&[("LOGFERRY_STATE_DIR", "/s"), ("LOGFERRY_LISTEN", "!")]).unwrap();
    assert_eq!(kept.state_dir, Path::new("/s"));
    assert!(kept.reach.includes("/share/logs/app.log".as_ref()), "the default paths");
    let kept = load(&[("LOGFERRY_PATHS", "/a/*"), ("LOGFERRY_EXCLUDE", "/a/b")]).unwrap();
    assert!(kept.reach.includes("/a/a".as_ref()) && !kept.reach.includes("/a/b".as_ref()));

    assert_eq!(load(&[("LOGFERRY_PATHS", "a")]).unwrap_err().0[0].key, "paths");
}

// The files in `config/`.

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

#[test]
fn the_reference_is_what_the_table_says() {
    let path = repository("config/reference.toml");
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(&path, reference()).unwrap();
    }
    let committed = std::fs::read_to_string(path).unwrap();
    assert_eq!(
        committed,
        reference(),
        "config/reference.toml is stale: UPDATE_EXPECT=1 cargo test"
    );
}

#[test]
fn the_reference_loads_and_changes_nothing() {
    let path = repository("config/reference.toml");
    let path = path.to_str().unwrap();

    let config = load_env(&good(&[("LOGFERRY_CONFIG", path)])).unwrap();
    let defaults = load_env(&good(&[])).unwrap();

    for key in &KEYS {
        assert_eq!(effective(&config, key.name).0, effective(&defaults, key.name).0);
        let from_file = effective(&config, key.name).1.contains("reference.toml");
        assert_eq!(from_file, key.default.is_some(), "{}", key.name);
    }
}

#[test]
fn the_examples_in_the_reference_are_right() {
    let text: String = reference()
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(example)
                if KEYS.iter().any(|key| example.starts_with(&format!("{} = ", key.name))) =>
            {
                format!("{example}\n")
            }
            _ => format!("{line}\n"),
        })
        .collect();
    let file = file("all.toml", &text);

    let mistakes = load_env(&env(&[("LOGFERRY_CONFIG", &file.path)])).unwrap_err();

    let keys: Vec<_> = mistakes.0.iter().map(|mistake| mistake.key.as_str()).collect();
    let missing = ["credentials_file", "ca_file", "client_cert_file"];
    assert_eq!(keys, missing, "only the files that do not exist here: {mistakes}");
}

#[test]
fn the_region_of_v4_comes_from_the_setting_the_endpoint_or_the_directory() {
    const KEY: [(&str, &str); 2] =
        [("ALIBABA_CLOUD_ACCESS_KEY_ID", "id"), ("ALIBABA_CLOUD_ACCESS_KEY_SECRET", "secret")];
    let of = |pairs: &[(&str, &str)]| {
        let v4 = [("LOGFERRY_SIGNATURE", "v4")];
        let config = load_env(&good(&[&KEY[..], &v4, pairs].concat())).unwrap();
        let region = effective(&config, "region").0.to_owned();
        assert_eq!(
            config.plan.only_destination().signature,
            Signature::V4 { region: region.clone() }
        );
        region
    };
    let hangzhou = ("LOGFERRY_ENDPOINT", "cn-hangzhou-intranet.log.aliyuncs.com");
    let directory = ("ALIYUN_LOGTAIL_CONFIG", "/nowhere/us-west-1-internet/ilogtail_config.json");

    assert_eq!(of(&[hangzhou, directory]), "cn-hangzhou");
    assert_eq!(of(&[hangzhou, ("LOGFERRY_REGION", "eu-central-1")]), "eu-central-1");
    assert_eq!(of(&[directory]), "us-west-1");
    complain(
        load_env(&good(&[&KEY[..], &[("LOGFERRY_SIGNATURE", "v4")]].concat())),
        expect![[r#"
            1 mistake in the settings:
              region: not set, and the endpoint's name does not tell it, but signature = v4 needs it; set LOGFERRY_REGION to the region of the project, such as cn-hangzhou"#]],
    );
    complain(
        load_env(&good(&[("LOGFERRY_SIGNATURE", "v4"), ("LOGFERRY_REGION", "Hang Zhou")])),
        expect![[r#"
            1 mistake in the settings:
              region = "Hang Zhou", from environment LOGFERRY_REGION: expected the name of a region: 1 to 48 lower-case letters, digits and hyphens, with a letter or digit at both ends"#]],
    );
    let v1 = load_env(&good(&[directory])).unwrap();
    assert_eq!(effective(&v1, "region").0, "", "it needs none");
}

#[test]
fn a_certificate_and_its_key_are_set_together_and_are_checked() {
    let broken = file("broken.pem", "no certificate");
    let (set, path) = (|name, path| (name, path), broken.path.as_str());

    complain(
        load_env(&good(&[set("LOGFERRY_CLIENT_CERT_FILE", path)])),
        expect![[r#"
        1 mistake in the settings:
          client_key_file: not set, although client_cert_file is: set both or none"#]],
    );
    complain(
        load_env(&good(&[set("LOGFERRY_CLIENT_KEY_FILE", path)])),
        expect![[r#"
        1 mistake in the settings:
          client_cert_file: not set, although client_key_file is: set both or none"#]],
    );
    let half = [set("LOGFERRY_CA_FILE", path), set("LOGFERRY_CLIENT_KEY_FILE", path)];
    let mistakes = load_env(&good(&half)).unwrap_err().to_string();
    assert!(mistakes.starts_with("2 mistakes"), "both at once: {mistakes}");
    let all = [
        set("LOGFERRY_CA_FILE", path),
        set("LOGFERRY_CLIENT_CERT_FILE", path),
        set("LOGFERRY_CLIENT_KEY_FILE", path),
    ];
    let mistakes = load_env(&good(&all)).unwrap_err().to_string();
    let mistakes = mistakes.replace(broken.directory.path().to_str().unwrap(), "DIR");
    expect![[r#"
        2 mistakes in the settings:
          ca_file = "DIR/broken.pem", from environment LOGFERRY_CA_FILE: DIR/broken.pem holds no certificate in PEM (-----BEGIN CERTIFICATE-----)
          client_cert_file = "DIR/broken.pem", from environment LOGFERRY_CLIENT_CERT_FILE: DIR/broken.pem holds no certificate in PEM (-----BEGIN CERTIFICATE-----)"#]].assert_eq(&mistakes);
}

#[test]
fn the_sidecar_file_loads_with_credentials() {
    let path = repository("config/sidecar.toml");
    let config = load_env(&env(&[
        ("LOGFERRY_CONFIG", path.to_str().unwrap()),
        ("ALIBABA_CLOUD_ACCESS_KEY_ID", "id"),
        ("ALIBABA_CLOUD_ACCESS_KEY_SECRET", "s3cret"),
    ]))
    .unwrap();
    assert!(config.plan.only_destination().endpoint.tls);
}

// What a second look shows.

/// Whatever stands in a file that cannot be read, it may be all that seems to be missing.
#[test]
fn a_broken_file_is_no_reason_to_call_settings_missing() {
    for (name, text) in [("a.toml", "endpoint = "), ("a.yaml", "a: [x,&a y]"), ("a.txt", "")] {
        let file = file(name, text);
        let mistakes = load_env(&env(&[
            ("LOGFERRY_CONFIG", &file.path),
            ("LOGFERRY_ENDPOINT", "https://cn-hangzhou.log.aliyuncs.com"),
            ("LOGFERRY_CLIENT_CERT_FILE", "/etc/hosts"),
            ("LOGFERRY_BATCH_BYTES", "2MiB"),
            ("LOGFERRY_SIGNATURE", "v4"),
            ("LOGFERRY_TOPC", "x"),
        ]))
        .unwrap_err();
        let keys: Vec<_> = mistakes.0.iter().map(|mistake| mistake.key.as_str()).collect();
        assert_eq!(keys, ["LOGFERRY_CONFIG", "LOGFERRY_TOPC"], "{mistakes}");
    }
    // This one could have had the endpoint, and nothing else.
    let broken = file("ilogtail_config.json", "{");
    let mistakes = load_env(&env(&[("ALIYUN_LOGTAIL_CONFIG", &broken.path)])).unwrap_err();
    let keys: Vec<_> = mistakes.0.iter().map(|mistake| mistake.key.as_str()).collect();
    assert_eq!(keys, ["ALIYUN_LOGTAIL_CONFIG", "project", "logstore"], "{mistakes}");
}

/// A value that cannot be taken is there all the same.
#[test]
fn a_value_that_is_no_text_is_not_called_missing_too() {
    let mut env = good(&[]);
    env.insert("LOGFERRY_PROJECT".into(), OsString::from_vec(vec![0xff]));
    complain(
        load_env(&env),
        expect![[r#"
            1 mistake in the settings:
              project = "�", from environment LOGFERRY_PROJECT: expected text in UTF-8"#]],
    );
}

#[test]
fn the_flag_names_the_file_and_wins_over_the_variable() {
    let named = file("flag.toml", "topic = 'from the flag'");
    let other = file("variable.toml", "topic = 'from the variable'");
    let env = good(&[("LOGFERRY_CONFIG", &other.path)]);
    let load = |path: &str| load_within(&env, &flags(&[("config", path)]), NO_CONTAINER);

    let config = load(&named.path).unwrap();
    assert_eq!(effective(&config, "topic").0, "from the flag");
    assert_eq!(effective(&config, "LOGFERRY_CONFIG"), (named.path.as_str(), "flag --config"));

    complain(
        load("/nowhere.toml"),
        expect![[r#"
            1 mistake in the settings:
              LOGFERRY_CONFIG = "/nowhere.toml", from flag --config: cannot read the file: No such file or directory (os error 2)"#]],
    );
    let empty = load("").unwrap_err();
    assert!(empty.to_string().contains("flag --config: expected the path of a file"), "{empty}");
}

#[test]
fn what_is_odd_and_no_mistake_is_noted() {
    let notes = |pairs: &[(&str, &str)]| load_env(&good(pairs)).unwrap().notes;

    assert_eq!(notes(&[("POD_IP", "10.7.0.37"), ("ALIYUN_LOG_ENV_TAGS", "POD_IP||")]), [""; 0]);
    let said =
        notes(&[("POD_IP", "$(POD_IP)"), ("ALIYUN_LOG_ENV_TAGS", "POD_IP|_pod_name_|x\u{9b}")]);
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(
        said[0].contains(r#"not set, so these tags are empty: "_pod_name_", "x\u{9b}";"#),
        "{said:?}"
    );
    assert!(said[1].contains(r#"POD_IP = "$(POD_IP)" is no IP address; the source"#), "{said:?}");
}

// Whatever comes, an answer.

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..Default::default() })]

    #[test]
    fn any_environment_gets_an_answer(
        values in proptest::collection::vec((0..40_usize, proptest::collection::vec(any::<u8>(), 0..40)), 0..20),
        name in proptest::collection::vec(any::<u8>(), 0..12),
    ) {
        let more = [
            "ALIYUN_LOG_ENV_TAGS", "ALIYUN_LOGTAIL_USER_DEFINED_ID", "ALIYUN_LOGTAIL_CONFIG",
            "ALIBABA_CLOUD_ACCESS_KEY_ID", "ALIBABA_CLOUD_ACCESS_KEY_SECRET", "POD_IP",
            "cpu_usage_limit", "mem_usage_limit", "max_bytes_per_sec", "LOGFERRY_CONFIG",
        ];
        let mut env = good(&[]);
        for (index, value) in values {
            let name = KEYS.get(index).map(keys::Key::variable);
            let name = name.unwrap_or_else(|| more[index % more.len()].to_owned());
            env.insert(name.into(), OsString::from_vec(value));
        }
        let unknown = [b"LOGFERRY_", name.as_slice()].concat();
        env.insert(OsString::from_vec(unknown), "x".into());

        match load_env(&env) {
            Ok(config) => prop_assert!(!check::tables(&config).is_empty()),
            Err(mistakes) => prop_assert!(!mistakes.0.is_empty()),
        }
    }

    #[test]
    fn any_text_for_a_key_gets_an_answer(text in "[ -~é\\n]{0,60}", index in 0..KEYS.len()) {
        let _ = KEYS[index].kind.read(&text.as_str().into());
    }

    #[test]
    fn any_file_gets_an_answer(
        text in prop_oneof![
            "[ -~\\n]{0,200}",
            "([a-z_]{1,8}|- |: |\\n|  |\\[|\\]|\\{|\\}|\"|'|=|,|#|&a|\\*a|!!|\\||>|\\?|%|@|0x|1|\\.){0,60}",
            ".{0,100}",
        ],
        name in prop_oneof![Just("a.toml"), Just("a.yaml"), Just("ilogtail_config.json")],
    ) {
        let file = file(name, &text);
        let variable = if name.ends_with("json") { "ALIYUN_LOGTAIL_CONFIG" } else { "LOGFERRY_CONFIG" };
        match load_env(&good(&[(variable, &file.path)])) {
            Ok(_) => {}
            Err(mistakes) => prop_assert!(!mistakes.0.is_empty()),
        }
    }
}

// Proxies.

const REMOTE: (&str, &str) = ("LOGFERRY_ENDPOINT", "https://sls.example.com");
const KEY: [(&str, &str); 2] =
    [("ALIBABA_CLOUD_ACCESS_KEY_ID", "id"), ("ALIBABA_CLOUD_ACCESS_KEY_SECRET", "s3cret")];

fn with_proxy(pairs: &[(&str, &str)]) -> Result<Config, Mistakes> {
    let mut env = good(&[REMOTE]);
    env.extend(self::env(&KEY));
    env.extend(self::env(pairs));
    load_env(&env)
}

#[test]
fn a_proxy_that_is_none_stops_the_start_without_its_password() {
    for name in ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "HTTP_PROXY", "http_proxy"]
    {
        for value in [
            "http://user:p4ss@proxy.test:99999",
            "http://user:p4ss",
            "http://user:p4@ss@proxy.test",
            "http://us er:p4ss@proxy.test",
            "%",
            "http://",
        ] {
            let mistakes = with_proxy(&[(name, value)]).expect_err(value);
            assert_eq!(mistakes.0.len(), 1, "{name}={value}: {mistakes}");
            assert_eq!(mistakes.0[0].key, name);
            assert!(
                mistakes.0[0].advice.contains("http://[user:password@]host:port"),
                "{mistakes}"
            );
            assert!(!mistakes.to_string().contains("p4"), "{mistakes}");
        }
    }
    complain(
        with_proxy(&[("ALL_PROXY", "socks5://user:p4ss@proxy.test:1080")]),
        expect![[r#"
            1 mistake in the settings:
              ALL_PROXY, from environment: a SOCKS proxy cannot be used; give an HTTP proxy: http://host:port"#]],
    );
    let mut env = good(&[REMOTE]);
    env.extend(self::env(&KEY));
    env.insert("HTTPS_PROXY".into(), OsString::from_vec(vec![b'h', 0xff]));
    assert!(load_env(&env).unwrap_err().to_string().contains("HTTPS_PROXY"));
}

#[test]
fn the_proxy_in_force_is_shown_and_why_another_is_not() {
    let rows = |pairs: &[(&str, &str)]| {
        let config = with_proxy(pairs).unwrap();
        let rows = config.effective.iter().filter(|row| row.key.to_lowercase().ends_with("_proxy"));
        let rows = rows.map(|row| format!("{} = {} ({})", row.key, row.value, row.origin));
        let used = config.send.proxy.filter(|proxy| proxy.is_for("https://demo.sls.example.com"));
        (used.map(|proxy| proxy.to_string()), rows.collect::<Vec<String>>())
    };
    let secret = "http://user:p4ss@proxy.test:3128";
    let shown = "http://***@proxy.test:3128";
    let used = Some(shown.to_owned());

    assert_eq!(rows(&[]), (None, vec![]));
    let expected = vec![format!("https_proxy = {shown} (environment)")];
    assert_eq!(rows(&[("https_proxy", secret)]), (used.clone(), expected.clone()));
    assert_eq!(rows(&[("HTTPS_PROXY", ""), ("https_proxy", secret)]), (used.clone(), expected));
    assert_eq!(
        rows(&[
            ("HTTPS_PROXY", secret),
            ("https_proxy", "http://other.test"),
            ("ALL_PROXY", "socks5://socks.test:1080"),
            ("http_proxy", "plain.test:80"),
        ]),
        (
            used.clone(),
            vec![
                format!("HTTPS_PROXY = {shown} (environment)"),
                "ALL_PROXY = socks5://*** (environment (not used: HTTPS_PROXY is set))".to_owned(),
                "http_proxy = http://plain.test:80 (environment (not used: the endpoint is https://))"
                    .to_owned(),
            ]
        )
    );
    // It is no CGI program, whatever the environment says.
    assert_eq!(rows(&[("ALL_PROXY", secret), ("REQUEST_METHOD", "GET")]).0, used);
    assert_eq!(
        rows(&[("ALL_PROXY", secret), ("no_proxy", "a.test, .example.com")]),
        (
            None,
            vec![
                format!(
                    "ALL_PROXY = {shown} (environment (not used: NO_PROXY names the endpoint))"
                ),
                "no_proxy = a.test, .example.com (environment)".to_owned(),
            ]
        )
    );
    let socks = rows(&[("HTTPS_PROXY", "socks5://a:p4ss@b"), ("NO_PROXY", "sls.example.com")]);
    assert_eq!(socks.0, None);
    assert!(
        socks.1[0].starts_with("HTTPS_PROXY = socks5://*** (environment (not used"),
        "{socks:?}"
    );
}

#[test]
fn this_machine_is_reached_without_a_proxy() {
    let config =
        load_env(&good(&[("ALL_PROXY", "socks5://socks.test"), ("HTTP_PROXY", "proxy.test")]));

    let config = config.unwrap();
    assert_eq!(config.send.proxy, None);
    let (value, origin) = effective(&config, "HTTP_PROXY");
    assert_eq!(value, "http://proxy.test");
    assert_eq!(origin, "environment (not used: the endpoint is on this machine)");
}
