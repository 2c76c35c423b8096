//! `groups.jsonl`: every accepted LogGroup as one line of JSON.
//!
//! The file is only ever appended to, also across restarts; `number` starts anew with each. A
//! value that is not UTF-8 is written as `{"base64": "…"}`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use serde_json::{Value, json};

use super::accepted::Group;

/// An open `groups.jsonl`.
#[derive(Debug)]
pub(super) struct Journal {
    file: File,
}

impl Journal {
    /// Opens the file in `dir`, which is made if it does not exist.
    pub(super) fn open(dir: &Path) -> io::Result<Self> {
        let path = dir.join("groups.jsonl");
        let open = || {
            fs::create_dir_all(dir)?;
            OpenOptions::new().create(true).append(true).open(&path)
        };
        let cannot = |error: io::Error| {
            let path = path.display();
            let text = format!("cannot write {path}: {error}; --dir takes another directory");
            io::Error::new(error.kind(), text)
        };
        Ok(Self { file: open().map_err(cannot)? })
    }

    /// Writes the groups of one request, by one write.
    pub(super) fn append(&mut self, groups: &[Arc<Group>]) -> io::Result<()> {
        let mut text = Vec::new();
        for group in groups {
            serde_json::to_writer(&mut text, &to_json(group))?;
            text.push(b'\n');
        }
        self.file.write_all(&text)
    }
}

fn to_json(group: &Group) -> Value {
    let logs: Vec<Value> = group
        .logs()
        .iter()
        .map(|log| {
            json!({"time": log.time, "time_ns": log.time_ns, "contents": pairs(&log.contents)})
        })
        .collect();
    json!({
        "number": group.number,
        "received": group.received.as_secs_f64(),
        "project": group.project,
        "logstore": group.logstore,
        "shard": group.shard,
        "topic": group.topic,
        "source": group.source,
        "tags": pairs(&group.tags),
        "raw_size": group.raw().len(),
        "sent_size": group.sent_size,
        "compression": group.compression.name(),
        "request_id": group.request_id,
        "logs": logs,
    })
}

/// `[[key, value], …]`: an object would lose the order and repeated keys.
fn pairs(pairs: &[(String, Vec<u8>)]) -> Value {
    pairs.iter().map(|(key, value)| json!([key, text(value)])).collect()
}

fn text(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => json!(text),
        Err(_) => json!({"base64": base64::prelude::BASE64_STANDARD.encode(bytes)}),
    }
}
