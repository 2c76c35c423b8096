//! The service's wire format: what both the agent and the mock endpoint must agree on.
//!
//! - [`sls_logs`]: the protobuf messages, generated from `proto/sls_logs.proto`. The agent's hot
//!   path does not use them (it appends the bytes itself); the mock and the tests do.
//! - [`sign`]: request signatures V1 and V4.
//! - [`host`]: whom the sender of a request believes to talk to.
//!
//! Pure: bytes in, bytes out. Source: the service's PutLogs reference, API 0.6.0.

pub mod host;
pub mod sign;
#[expect(missing_docs, clippy::all, reason = "generated from proto/sls_logs.proto")]
#[rustfmt::skip]
pub mod sls_logs;

/// Value of the header `x-log-apiversion`.
pub const API_VERSION: &str = "0.6.0";
/// Value of the header `Content-Type` of a LogGroup.
pub const CONTENT_TYPE: &str = "application/x-protobuf";

/// Most log entries in one LogGroup that every era of the service takes.
pub const GROUP_LINES_MAX: u32 = 4096;
/// Largest LogGroup before compression, in bytes, that every era of the service takes.
pub const GROUP_BYTES_MAX: usize = 3 * 1024 * 1024;

/// Largest age of a log's `Time`, in seconds, that the service takes.
pub const LOG_AGE_SECONDS_MAX: i64 = 7 * 24 * 3600;
/// How far a log's `Time` may be ahead of the service's clock, in seconds.
pub const LOG_AHEAD_SECONDS_MAX: i64 = 15 * 60;

/// How a request body is compressed: the header `x-log-compresstype`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Compression {
    /// A raw LZ4 block: no frame, no size prefix; the receiver sizes its buffer by
    /// `x-log-bodyrawsize`.
    Lz4,
    /// A zstd frame.
    Zstd,
    /// As it is; the header is left out.
    None,
}

impl Compression {
    /// The value of `x-log-compresstype`, or `None` where the header is left out.
    #[must_use]
    pub fn header(self) -> Option<&'static str> {
        match self {
            Self::Lz4 => Some("lz4"),
            Self::Zstd => Some("zstd"),
            Self::None => None,
        }
    }

    /// The word used in settings: `lz4`, `zstd` or `none`.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.header().unwrap_or("none")
    }

    /// The one of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        [Self::Lz4, Self::Zstd, Self::None].into_iter().find(|one| one.name() == name)
    }
}

/// The upper-case hexadecimal MD5 of a body, as `Content-MD5` wants it.
#[must_use]
pub fn content_md5(body: &[u8]) -> String {
    use md5::Digest as _;
    hex_upper(&md5::Md5::digest(body))
}

fn hex_upper(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02X}");
        text
    })
}

/// The lower-case hexadecimal form of `bytes`.
#[must_use]
pub fn hex_lower(bytes: &[u8]) -> String {
    hex_upper(bytes).to_ascii_lowercase()
}
