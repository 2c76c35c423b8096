//! The body of a PutLogs: from compressed bytes to LogGroups worth keeping.
//!
//! All or nothing: one bad log, or one bad LogGroup of a `batch_group` request, refuses the whole
//! request, as the service does. Pure: the caller brings the time and does the storing.

use prost::Message as _;

use super::Limits;
use super::answer::Refusal;
use super::group;
use super::request::Asked;
use super::store::{NewGroup, Route};
use logferry_wire::Compression;
use logferry_wire::sls_logs::{LogGroup, SlsCompressType, SlsLogPackage, SlsLogPackageList};

/// Raw bytes of all LogGroups of one request together; a guard of this process's memory, above
/// anything a client sends.
const REQUEST_RAW_BYTES_MAX: usize = 64 << 20;

/// Unpacks and checks the body of a PutLogs.
pub(super) fn unpack(
    asked: &Asked,
    limits: &Limits,
    unix_seconds: i64,
) -> Result<Vec<NewGroup>, Refusal> {
    let raw_size = raw_size(asked, limits)?;
    let compression = compression(asked)?;
    let packed = match asked.header("x-log-mode") {
        None => vec![Packed { data: asked.body.to_vec(), raw_size, compression }],
        Some("batch_group") => packages(&asked.body, raw_size)?,
        Some(mode) => {
            return Err(Refusal::new(
                "ParameterInvalid",
                format!("Http extend x-log-mode : {mode} pair is invalid."),
            ));
        }
    };
    if packed.iter().map(|group| group.raw_size).sum::<usize>() > REQUEST_RAW_BYTES_MAX {
        return Err(too_large(limits));
    }
    packed.into_iter().map(|group| check(group, limits, unix_seconds)).collect()
}

/// Where a PutLogs wants to go: any shard, or the one of its hash key.
pub(super) fn route(asked: &Asked, routed: bool) -> Result<Route, Refusal> {
    if !routed {
        return Ok(Route::Any);
    }
    let invalid = |name: &str, value: &str| {
        Refusal::new("ParameterInvalid", format!("parameter {name} : {value} pair is invalid."))
    };
    let text = asked.parameter("key").unwrap_or_default();
    let is_key = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let key = u128::from_str_radix(text, 16)
        .ok()
        .filter(|_| is_key)
        .ok_or_else(|| invalid("key", text))?;
    let sequence = match asked.parameter("seqid") {
        None => None,
        Some(text) => Some(text.parse().map_err(|_| invalid("seqid", text))?),
    };
    Ok(Route::Key { key, sequence })
}

fn raw_size(asked: &Asked, limits: &Limits) -> Result<usize, Refusal> {
    let text = asked.header("x-log-bodyrawsize").ok_or_else(|| {
        Refusal::new(
            "MissingBodyRawSize",
            "x-log-bodyrawsize does not exist in header when it is necessary.",
        )
    })?;
    match text.parse() {
        Ok(size) if size <= limits.group_bytes_max => Ok(size),
        Ok(_) => Err(too_large(limits)),
        Err(_) => {
            Err(Refusal::new("InvalidBodyRawSize", format!("x-log-bodyrawsize {text} is invalid.")))
        }
    }
}

fn compression(asked: &Asked) -> Result<Compression, Refusal> {
    match asked.header("x-log-compresstype") {
        None => Ok(Compression::None),
        Some("lz4") => Ok(Compression::Lz4),
        Some("zstd") => Ok(Compression::Zstd),
        Some(other) => Err(Refusal::new(
            "InvalidCompressType",
            format!("x-log-compresstype {other} is unsupported."),
        )),
    }
}

/// One LogGroup before it is unpacked.
struct Packed {
    data: Vec<u8>,
    raw_size: usize,
    compression: Compression,
}

/// The packages of a `batch_group` body, which itself is never compressed.
fn packages(body: &[u8], raw_size: usize) -> Result<Vec<Packed>, Refusal> {
    if body.len() != raw_size {
        return Err(wrong_raw_size(body.len(), raw_size));
    }
    let list = SlsLogPackageList::decode(body).map_err(|error| {
        Refusal::new("PostBodyInvalid", format!("the package list cannot be parsed: {error}"))
    })?;
    if list.packages.is_empty() {
        return Err(Refusal::new("PostBodyInvalid", "the package list is empty"));
    }
    list.packages.into_iter().map(package).collect()
}

fn package(package: SlsLogPackage) -> Result<Packed, Refusal> {
    // A package without a type is LZ4: the service's rule for its oldest clients.
    let compression = match package.compress_type.map(SlsCompressType::try_from) {
        None | Some(Ok(SlsCompressType::SlsCmpLz4)) => Compression::Lz4,
        Some(Ok(SlsCompressType::SlsCmpZstd)) => Compression::Zstd,
        Some(Ok(SlsCompressType::SlsCmpNone)) => Compression::None,
        Some(other) => {
            return Err(Refusal::new(
                "InvalidCompressType",
                format!("compress_type {other:?} of a package is unsupported."),
            ));
        }
    };
    let raw_size = package.uncompress_size.and_then(|size| usize::try_from(size).ok());
    let raw_size = raw_size.ok_or_else(|| {
        Refusal::new("PostBodyUncompressError", "a package has no valid uncompress_size")
    })?;
    Ok(Packed { data: package.data, raw_size, compression })
}

fn check(packed: Packed, limits: &Limits, unix_seconds: i64) -> Result<NewGroup, Refusal> {
    if packed.raw_size > limits.group_bytes_max {
        return Err(too_large(limits));
    }
    let compression = packed.compression;
    let sent_size = packed.data.len();
    let raw = uncompress(packed)?;
    let summary = group::summarise(&raw)?;
    if summary.lines > limits.group_lines_max {
        return Err(too_large(limits));
    }
    let span = unix_seconds.saturating_sub(limits.log_age_seconds_max)
        ..=unix_seconds.saturating_add(limits.log_ahead_seconds_max);
    for time in [summary.earliest, summary.latest] {
        if !span.contains(&i64::from(time)) {
            return Err(Refusal::new(
                "PostBodyInvalid",
                format!("log time {time} is out of range while server time is {unix_seconds}"),
            ));
        }
    }
    let decoded = LogGroup::decode(raw.as_slice()).map_err(|error| {
        Refusal::new("PostBodyInvalid", format!("the LogGroup cannot be parsed: {error}"))
    })?;
    Ok(NewGroup {
        topic: decoded.topic.unwrap_or_default(),
        source: decoded.source.unwrap_or_default(),
        tags: decoded.log_tags.into_iter().map(|tag| (tag.key, tag.value)).collect(),
        line_count: summary.lines,
        compression,
        sent_size,
        raw,
    })
}

fn uncompress(packed: Packed) -> Result<Vec<u8>, Refusal> {
    let size = packed.raw_size;
    let raw = match packed.compression {
        Compression::None if packed.data.len() == size => return Ok(packed.data),
        Compression::None => return Err(wrong_raw_size(packed.data.len(), size)),
        Compression::Lz4 => {
            let mut raw = vec![0; size];
            lz4_flex::block::decompress_into(&packed.data, &mut raw)
                .ok()
                .filter(|written| *written == size)
                .map(|_| raw)
        }
        Compression::Zstd => {
            zstd::bulk::decompress(&packed.data, size).ok().filter(|raw| raw.len() == size)
        }
    };
    raw.ok_or_else(|| {
        Refusal::new(
            "PostBodyUncompressError",
            format!(
                "the body is not {} of exactly {size} bytes",
                match packed.compression {
                    Compression::Lz4 => "a raw LZ4 block",
                    Compression::Zstd | Compression::None => "a zstd frame",
                }
            ),
        )
    })
}

fn wrong_raw_size(actual: usize, claimed: usize) -> Refusal {
    Refusal::new(
        "InvalidBodyRawSize",
        format!("x-log-bodyrawsize {claimed} is invalid; the body has {actual} bytes."),
    )
}

fn too_large(limits: &Limits) -> Refusal {
    Refusal::new(
        "PostBodyTooLarge",
        format!(
            "Logs must be less than or equal to {} bytes and {} in number.",
            limits.group_bytes_max, limits.group_lines_max
        ),
    )
}
