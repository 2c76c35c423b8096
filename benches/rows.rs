//! What a line and a batch go through, each stage by itself and all of them together.

use std::hint::black_box;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use logferry::base::sealed::{BatchId, DestinationId, Route, SealedBatch};
use logferry::base::span::{CollectionId, FileKey, Span, StreamKey};
use logferry::batch::compress::Compressor;
use logferry::batch::log_group::LogGroup;
use logferry::batch::policy::Reason;
use logferry::batch::{Batcher, Options};
use logferry::line::split::next_line;
use logferry::pipeline::{self, Input, Stop};
use logferry::plan::{Destination, Plan};
use logferry::send::request::put_logs;
use logferry::send::{Credentials, CredentialsSource, Endpoint, Secret, Signature};
use logferry_wire::{Compression, content_md5};

use crate::limit::{BATCH_BYTES, BATCH_LINES, Limit};
use crate::text;

const LINE_BYTES_MAX: usize = 512 << 10;
const TIME: u32 = 1_767_225_600;
const STREAM: StreamKey = StreamKey { file: FileKey(1), collection: CollectionId(0) };

/// A row of the table.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    /// What is counted: `line` or `batch`.
    pub(crate) unit: &'static str,
    /// Makes everything ready.
    pub(crate) prepare: fn() -> Stage,
}

/// Work that can be done again and again.
pub(crate) struct Stage {
    /// Lines or batches that go through at once, and
    pub(crate) units: usize,
    /// the bytes of log that they are.
    pub(crate) bytes: usize,
    pub(crate) once: Box<dyn FnMut()>,
}

/// All but the whole agent. [`limit`] is first: others are compared with it.
pub(crate) const ROWS: &[Row] = &[
    Row { name: "limit", unit: "line", prepare: yardstick },
    Row { name: "split", unit: "line", prepare: split },
    Row { name: "append", unit: "line", prepare: append },
    Row { name: "compress-lz4", unit: "batch", prepare: || compress(Compression::Lz4) },
    Row { name: "compress-zstd", unit: "batch", prepare: || compress(Compression::Zstd) },
    Row { name: "hash", unit: "batch", prepare: hash },
    Row { name: "request", unit: "batch", prepare: request },
    Row { name: "pipeline", unit: "line", prepare: || pipeline(0, Compression::Lz4) },
    Row { name: "pipeline-none", unit: "line", prepare: || pipeline(0, Compression::None) },
    Row { name: "pipeline-zstd", unit: "line", prepare: || pipeline(0, Compression::Zstd) },
    Row { name: "pipeline-50B", unit: "line", prepare: || pipeline(50, Compression::Lz4) },
    Row { name: "pipeline-1500B", unit: "line", prepare: || pipeline(1500, Compression::Lz4) },
];

/// What is in the read buffer.
fn read_buffer(line_bytes: usize) -> Vec<u8> {
    text::lines(1 << 20, line_bytes)
}

fn line_count(text: &[u8]) -> usize {
    memchr::memchr_iter(b'\n', text).count()
}

fn yardstick() -> Stage {
    let text = text::lines(4 << 20, 0);
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(&text).expect("the log of the bench");
    let mut limit = Limit::new();
    let once = Box::new(move || {
        black_box(limit.run(file.path()));
    });
    Stage { units: line_count(&text), bytes: text.len(), once }
}

/// Finds where lines end.
fn split() -> Stage {
    let text = read_buffer(0);
    let (units, bytes) = (line_count(&text), text.len());
    let once = Box::new(move || {
        let mut rest = &text[..];
        while let Some(line) = next_line(rest, false, LINE_BYTES_MAX) {
            rest = &rest[black_box(line).consumed..];
        }
    });
    Stage { units, bytes, once }
}

/// Appends lines to a group whose buffer has grown.
fn append() -> Stage {
    let text = read_buffer(0);
    let (units, bytes) = (line_count(&text), text.len());
    // To find the lines is a row of its own.
    let ends = memchr::memchr_iter(b'\n', &text);
    let lines = ends.scan(0, |start, end| Some(std::mem::replace(start, end + 1)..end));
    let lines: Vec<_> = lines.collect();
    let mut buffer = Vec::new();
    let once = Box::new(move || {
        let mut group = LogGroup::in_buffer(std::mem::take(&mut buffer));
        for line in &lines {
            group.append(TIME, &text[line.clone()]);
        }
        buffer = black_box(group).finish(&[], "0-0");
    });
    Stage { units, bytes, once }
}

/// A full group, and the bytes of log in it.
fn full_group() -> (Vec<u8>, usize) {
    let text = read_buffer(0);
    let mut group = LogGroup::default();
    let mut bytes = 0;
    for line in text.split(|&byte| byte == b'\n') {
        let is_full = group.len() + LogGroup::appended_len(line.len()) > BATCH_BYTES;
        if is_full || group.lines() == BATCH_LINES {
            break;
        }
        group.append(TIME, line);
        bytes += line.len() + 1;
    }
    (group.finish(&[], "0-0"), bytes)
}

fn compress(compression: Compression) -> Stage {
    let (raw, bytes) = full_group();
    let mut compressor = Compressor::new(compression).expect("memory for a compressor");
    let once = Box::new(move || drop(black_box(compressor.compress(&raw))));
    Stage { units: 1, bytes, once }
}

/// The digest of a batch's body.
fn hash() -> Stage {
    let (raw, bytes) = full_group();
    let payload = Compressor::new(Compression::Lz4).expect("LZ4 needs nothing").compress(&raw);
    let once = Box::new(move || drop(black_box(content_md5(black_box(&payload)))));
    Stage { units: 1, bytes, once }
}

/// The headers of a request and their signature. Its body is a byte: [`hash`] is a row of its own.
fn request() -> Stage {
    let (_, bytes) = full_group();
    let destination = destination(Compression::Lz4);
    let secret = |text: &str| Secret::new(text.to_owned());
    let credentials = Credentials {
        access_key_id: "bench-access-key-id".to_owned(),
        access_key_secret: secret("bench-access-key-secret"),
        security_token: None,
    };
    let batch = SealedBatch {
        id: BatchId(0),
        span: Span::new(STREAM, 0, bytes as u64),
        destination: DestinationId(0),
        path: "/share/logs/app.log".into(),
        payload: Arc::new([0]),
        compression: Compression::Lz4,
        raw_bytes: 1,
        lines: 1,
        first: 0,
        route: Route::Any,
        since: logferry::base::clock::now(),
    };
    let batches = [batch];
    let once = Box::new(move || {
        drop(black_box(put_logs(&destination, &batches, Some(&credentials), TIME.into())));
    });
    Stage { units: 1, bytes, once }
}

fn destination(compression: Compression) -> Destination {
    Destination {
        endpoint: Endpoint { tls: false, host: "127.0.0.1".to_owned(), port: 9200 },
        project: "bench-project".to_owned(),
        logstore: "bench-logstore".to_owned(),
        credentials: CredentialsSource::Unsigned,
        signature: Signature::V1,
        compression,
        exactly_once: false,
    }
}

/// From the read buffer to sealed batches, which are thrown away.
fn pipeline(line_bytes: usize, compression: Compression) -> Stage {
    let options = Options {
        batch_bytes: BATCH_BYTES,
        batch_lines: BATCH_LINES,
        batch_linger: Duration::from_secs(1),
        topic: String::new(),
    };
    let plan = Plan::flat(Vec::new(), Vec::new(), destination(compression));
    let mut batcher = Batcher::new(options, &plan, 8 << 20).expect("a batcher");
    batcher.begin(STREAM, DestinationId(0), "/share/logs/app.log".into(), Arc::new([]), "bench");
    let text = read_buffer(line_bytes);
    let (units, bytes) = (line_count(&text), text.len());
    let now = logferry::base::clock::now();
    let once = Box::new(move || {
        let mut input = Input {
            bytes: &text,
            lead: 0,
            offset: 0,
            time: TIME,
            now,
            flush_partial: false,
            is_range_end: false,
        };
        loop {
            let mut writer = batcher.writer(STREAM);
            let progress = pipeline::advance(&input, LINE_BYTES_MAX, &mut writer);
            input.lead += progress.consumed;
            input.offset += progress.consumed as u64;
            match progress.stop {
                Stop::Seal(reason) => drop(black_box(batcher.seal(STREAM, reason))),
                Stop::NeedsBytes => break,
            }
        }
        drop(black_box(batcher.seal(STREAM, Reason::Age)));
    });
    Stage { units, bytes, once }
}
