//! The table of settings: the one place that knows which keys there are.
//!
//! Flags, names of environment variables, `config/reference.toml`, suggestions and the output of
//! `logferry check` all come from here. A key is documented for the person who sets it: what it
//! does, when to change it, what it costs.

use std::time::Duration;

use super::kind::Kind;

/// A setting.
#[derive(Debug)]
pub(crate) struct Key {
    /// Name in the settings file.
    pub(crate) name: &'static str,
    /// What may be written.
    pub(crate) kind: Kind,
    /// The value when nobody sets one, as it would be written in the environment.
    pub(crate) default: Option<&'static str>,
    /// A value to show where there is no default.
    pub(crate) example: &'static str,
    /// The lower-case name is an environment variable too, as the service's own agent has it.
    pub(crate) bare: bool,
    /// What it does.
    pub(crate) doc: &'static str,
}

impl Key {
    /// The environment variable: `LOGFERRY_BATCH_BYTES`.
    pub(crate) fn variable(&self) -> String {
        format!("{VARIABLE_PREFIX}{}", self.name.to_ascii_uppercase())
    }

    /// The flag without its dashes: `batch-bytes`.
    pub(crate) fn flag(&self) -> String {
        self.name.replace('_', "-")
    }
}

/// What the environment variables of settings begin with.
pub(crate) const VARIABLE_PREFIX: &str = "LOGFERRY_";

/// Finds a key by its name in the settings file.
pub(crate) fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

const fn time(least_millis: u64, most_seconds: u64) -> Kind {
    Kind::Time {
        least: Duration::from_millis(least_millis),
        most: Duration::from_secs(most_seconds),
    }
}

/// All settings, in the order in which people read about them.
pub(crate) static KEYS: [Key; 37] = [
    Key {
        name: "endpoint",
        kind: Kind::Endpoint,
        default: None,
        example: "https://cn-hangzhou.log.aliyuncs.com",
        bare: false,
        doc: "Where the logs go: http:// or https:// and the host of the service, with a port if \
              it is not the usual one; a bare host name means https. The project is not part of \
              it. Without this key the endpoint comes from the file that ALIYUN_LOGTAIL_CONFIG \
              names, or from that file's directory name if the file is missing.",
    },
    Key {
        name: "project",
        kind: Kind::Name { what: "project", most: 63, underscore: false },
        default: None,
        example: "my-project",
        bare: false,
        doc: "The project that receives the logs. Required.",
    },
    Key {
        name: "logstore",
        kind: Kind::Name { what: "logstore", most: 128, underscore: true },
        default: None,
        example: "app-log",
        bare: false,
        doc: "The logstore in that project. Required.",
    },
    Key {
        name: "credentials_file",
        kind: Kind::Path,
        default: None,
        example: "/etc/logferry/credentials.json",
        bare: false,
        doc: "A JSON file with access_key_id, access_key_secret and, for temporary credentials, \
              security_token. It is read again when it changes and wins over \
              ALIBABA_CLOUD_ACCESS_KEY_ID, ALIBABA_CLOUD_ACCESS_KEY_SECRET and \
              ALIBABA_CLOUD_SECURITY_TOKEN. Secrets themselves are never settings.",
    },
    Key {
        name: "ca_file",
        kind: Kind::Path,
        default: None,
        example: "/etc/logferry/ca.pem",
        bare: false,
        doc: "A file with certificates in PEM that are trusted beside the roots inside the program: \
              for an endpoint or a proxy with a private authority. It is read again when it \
              changes. Verification cannot be switched off.",
    },
    Key {
        name: "client_cert_file",
        kind: Kind::Path,
        default: None,
        example: "/etc/logferry/client.pem",
        bare: false,
        doc: "The agent's own certificate in PEM, with those above it, for a gateway that asks for \
              one. Together with client_key_file. It is read again when it changes.",
    },
    Key {
        name: "client_key_file",
        kind: Kind::Path,
        default: None,
        example: "/etc/logferry/client-key.pem",
        bare: false,
        doc: "The key of the agent's own certificate in PEM, not encrypted. Together with \
              client_cert_file. It is read again when it changes.",
    },
    Key {
        name: "signature",
        kind: Kind::OneOf(&["v1", "v4"]),
        default: Some("v1"),
        example: "",
        bare: false,
        doc: "How requests are signed: v1 is HMAC-SHA1 and works everywhere; v4 is HMAC-SHA256, \
              which some projects demand, and needs the region.",
    },
    Key {
        name: "region",
        kind: Kind::Name { what: "region", most: 48, underscore: false },
        default: None,
        example: "cn-hangzhou",
        bare: false,
        doc: "The region of the project; only signature = v4 needs it. Without this key it comes \
              from the endpoint's name, or from the directory that ALIYUN_LOGTAIL_CONFIG names.",
    },
    Key {
        name: "paths",
        kind: Kind::Patterns { least: 1 },
        default: Some("/share/logs/**/*.log"),
        example: "",
        bare: false,
        doc: "The files to ship: absolute globs, with ** for any number of directories. Links in \
              any part of a path are followed. Separated by commas in the environment and in flags \
              (a comma within braces belongs to the glob), a list in the file.",
    },
    Key {
        name: "exclude",
        kind: Kind::Patterns { least: 0 },
        default: Some(""),
        example: "",
        bare: false,
        doc: "Files to leave out, written like paths. The agent's own state directory is always \
              left out.",
    },
    Key {
        name: "link_roots",
        kind: Kind::Directories,
        default: Some(""),
        example: "",
        bare: false,
        doc: "Directories that links may lead to: a file is shipped only if its real path is below \
              one of them, or below the part of a pattern before its first wildcard. Empty means \
              that what this part links to when it is first seen is allowed too, up to two levels \
              above: with /share/logs -> /data/pod-1/logs all of /data. Where that is the root of a \
              mount, it is /data/pod-1 and /data/*/logs; where it is a directory of every system, \
              such as /var or /home, one level above. Every other link is refused with a warning. Set it to / to follow them all. Separated by commas in the \
              environment and in flags, a list in the file.",
    },
    Key {
        name: "topic",
        kind: Kind::Text { most: 1024 },
        default: Some(""),
        example: "",
        bare: false,
        doc: "Topic of every group of logs; empty for none.",
    },
    Key {
        name: "state_dir",
        kind: Kind::Path,
        default: Some("/var/lib/logferry"),
        example: "",
        bare: false,
        doc: "The directory, created with mode 0700, that remembers how far each file has been \
              delivered. It must outlive the container, and one agent at a time may use it.",
    },
    Key {
        name: "listen",
        kind: Kind::Listen,
        default: Some("127.0.0.1:9465"),
        example: "",
        bare: false,
        doc: "Address of the admin port with /live, /ready, /metrics and /status. Use 0.0.0.0:9465 \
              to let the node probe and scrape it; empty switches it off.",
    },
    Key {
        name: "compression",
        kind: Kind::OneOf(&["lz4", "zstd", "none"]),
        default: Some("lz4"),
        example: "",
        bare: false,
        doc: "How requests are compressed. zstd makes them smaller than lz4 and takes more processor \
              time.",
    },
    Key {
        name: "batch_bytes",
        kind: Kind::Size { least: 4 * KIB, most: 2 * MIB, zero: false },
        default: Some("512KiB"),
        example: "",
        bare: false,
        doc: "A group of lines is sent when it has this size before compression. Together with \
              line_bytes_max at most 2816KiB. Larger groups compress better and cost memory.",
    },
    Key {
        name: "batch_lines",
        kind: Kind::Count { least: 1, most: 4096, unit: "lines" },
        default: Some("4000"),
        example: "",
        bare: false,
        doc: "A group of lines is sent when it has this many lines.",
    },
    Key {
        name: "batch_linger",
        kind: time(10, 60),
        default: Some("1s"),
        example: "",
        bare: false,
        doc: "A group of lines is sent when it is this old. Shorter means fresher logs, more and \
              smaller requests.",
    },
    Key {
        name: "line_bytes_max",
        kind: Kind::Size { least: KIB, most: 2 * MIB, zero: false },
        default: Some("512KiB"),
        example: "",
        bare: false,
        doc: "Longer lines are split into several; no byte is dropped.",
    },
    Key {
        name: "read_linger",
        kind: time(1, 10),
        default: Some("100ms"),
        example: "",
        bare: false,
        doc: "The least time between two readings of the files. Longer costs less processor time \
              and makes logs later by as much.",
    },
    Key {
        name: "partial_line_timeout",
        kind: time(100, 3600),
        default: Some("5s"),
        example: "",
        bare: false,
        doc: "A last line without a line end is sent after nothing was added to it for this time.",
    },
    Key {
        name: "held_deleted_bytes_max",
        kind: Kind::Size { least: 64 * KIB, most: 64 << 40, zero: false },
        default: Some("1GiB"),
        example: "",
        bare: false,
        doc: "A deleted file is kept open until it is delivered, and occupies the disk as long. When \
              such files together are larger than this, the one deleted first is given up; the loss \
              is counted and logged.",
    },
    Key {
        name: "drain_deadline",
        kind: time(1000, 3600),
        default: Some("25s"),
        example: "",
        bare: false,
        doc: "The longest time from SIGTERM to the exit. Keep it below the pod's \
              terminationGracePeriodSeconds, which is 30 by default. As long, and a fifth more, is \
              waited at the start for another agent to let go of the state directory.",
    },
    Key {
        name: "drain_quiet",
        kind: time(0, 60),
        default: Some("2s"),
        example: "",
        bare: false,
        doc: "After SIGTERM the files are shipped on until nothing was added to any of them for this \
              time and all of it has arrived, within drain_deadline: the app may have been told to \
              stop at the same moment. 0s ships what is there at the signal, and no more.",
    },
    Key {
        name: "drain_partial_lines",
        kind: Kind::Switch,
        default: Some("false"),
        example: "",
        bare: false,
        doc: "The end of the drain after SIGTERM sends last lines without a line end as they are: for a \
              pod whose successor does not find state_dir, so that no next start sends them. false \
              leaves them to the next start, which delivers such a line as one when it is complete \
              by then. A stop for exit_when always sends them, and so does every stop those of \
              deleted files.",
    },
    Key {
        name: "exit_when",
        kind: Kind::Path,
        default: None,
        example: "/share/done",
        bare: false,
        doc: "A path. When something is there, the agent delivers what is left, however long that \
              takes, and ends: for the pod of a job, whose app makes the file when it has ended. \
              Looked for twice a second; what is there at the start counts too.",
    },
    Key {
        name: "cpu_usage_limit",
        kind: Kind::Cores { least: 0.01, most: 1024.0 },
        default: Some("2.0"),
        example: "",
        bare: true,
        doc: "Processor cores that the agent may use on average; it paces itself to stay under. A \
              lower quota of the container counts instead.",
    },
    Key {
        name: "mem_usage_limit",
        kind: Kind::Count { least: 32, most: 1 << 20, unit: "MB" },
        default: Some("384"),
        example: "",
        bare: true,
        doc: "Resident memory of the agent stays under this many MB of 1024×1024 bytes. A lower \
              limit of the container counts instead. Buffers are sized to fit: `logferry check` \
              shows the sum.",
    },
    Key {
        name: "max_bytes_per_sec",
        kind: Kind::Size { least: KIB, most: 64 * GIB, zero: true },
        default: Some("0"),
        example: "",
        bare: true,
        doc: "Bytes of logs read in a second, all files together, before compression; 0 for no \
              limit.",
    },
    Key {
        name: "send_request_concurrency",
        kind: Kind::Count { least: 1, most: 1000, unit: "requests" },
        default: Some("8"),
        example: "",
        bare: true,
        doc: "Most requests in flight at once.",
    },
    Key {
        name: "ordered_delivery",
        kind: Kind::Switch,
        default: Some("false"),
        example: "",
        bare: false,
        doc: "The groups of a file arrive in the order in which they were written: one request at a \
              time for each file, and what fails holds up what follows it in that file, others not. A \
              file is then delivered no faster than one batch_bytes in each round trip. What the \
              service refuses and is sent again in halves may be overtaken.",
    },
    Key {
        name: "exactly_once",
        kind: Kind::Switch,
        default: Some("false"),
        example: "",
        bare: false,
        doc: "Each line arrives once, whatever dies: no line comes again after a kill or a lost \
              answer. What is sent is noted through to the disk of state_dir before, so it costs \
              two flushes for as many requests as can go at once, and while state_dir cannot be \
              written nothing is sent. Requests go to the shards by random hash keys, as many as \
              send_request_concurrency.",
    },
    Key {
        name: "shard_hash_keys",
        kind: Kind::Tags,
        default: Some(""),
        example: "",
        bare: false,
        doc: "Names of tags, __source__ and __topic__ among them, whose values decide the shard: \
              what is equal in all of them goes to the same one, so that a reader of it sees all of \
              a pod or of a file. Empty lets the service spread the load. Not together with \
              exactly_once. Separated by commas in the environment and in flags, a list in the \
              file.",
    },
    Key {
        name: "verify_response",
        kind: Kind::Switch,
        default: Some("true"),
        example: "",
        bare: false,
        doc: "An answer 200 counts as delivered only with the header x-log-requestid, which the \
              service always sends and a proxy in between does not.",
    },
    Key {
        name: "log",
        kind: Kind::Filter,
        default: Some("info"),
        example: "",
        bare: false,
        doc: "What the agent logs about itself, to standard error: a level (off, error, warn, info, \
              debug, trace), or levels for parts of it, such as info,logferry::send=debug.",
    },
    Key {
        name: "log_format",
        kind: Kind::OneOf(&["text", "json"]),
        default: Some("text"),
        example: "",
        bare: false,
        doc: "How the agent writes its own log lines.",
    },
];
