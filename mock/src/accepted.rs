//! A LogGroup that the endpoint has accepted, as its readers see it.

use std::time::Duration;

use logferry_wire::{Compression, sls_logs};
use prost::Message as _;

/// An accepted LogGroup.
#[derive(Clone, Debug)]
pub struct Group {
    /// Position in the order of acceptance, from 0. Also its cursor.
    pub number: u64,
    /// Position of its first line among all accepted lines, from 0.
    pub first_line: u64,
    /// When it was accepted, by the endpoint's clock, since the Unix epoch.
    pub received: Duration,
    /// The project it was sent to.
    pub project: String,
    /// The logstore it was sent to.
    pub logstore: String,
    /// The shard it went to.
    pub shard: u32,
    /// Topic, often empty.
    pub topic: String,
    /// Source: the sender's address.
    pub source: String,
    /// Tags, in the order sent.
    pub tags: Vec<(String, Vec<u8>)>,
    /// Log entries in it.
    pub line_count: u32,
    /// How it was compressed on the way.
    pub compression: Compression,
    /// Bytes on the way.
    pub sent_size: usize,
    /// The hash key that it came with, if it did.
    pub key: Option<u128>,
    /// The sequence id of the request, if it had one.
    pub sequence: Option<u64>,
    /// The request that brought it; those of one `batch_group` request share it.
    pub request_id: String,
    pub(super) raw: Vec<u8>,
}

impl Group {
    /// The protobuf bytes as they were sent, uncompressed.
    #[must_use]
    pub fn raw(&self) -> &[u8] {
        &self.raw
    }

    /// The value of a tag, as text.
    #[must_use]
    pub fn tag(&self, key: &str) -> Option<String> {
        let (_, value) = self.tags.iter().find(|(name, _)| name == key)?;
        Some(String::from_utf8_lossy(value).into_owned())
    }

    /// The log entries, decoded anew by each call.
    #[must_use]
    pub fn logs(&self) -> Vec<Entry> {
        let group = sls_logs::LogGroup::decode(self.raw.as_slice())
            .expect("it was decoded once before it was accepted");
        group
            .logs
            .into_iter()
            .map(|log| Entry {
                time: log.time,
                time_ns: log.time_ns,
                contents: log.contents.into_iter().map(|pair| (pair.key, pair.value)).collect(),
            })
            .collect()
    }
}

/// One log of an accepted LogGroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Unix seconds.
    pub time: u32,
    /// Nanoseconds within the second, when sent.
    pub time_ns: Option<u32>,
    /// Keys and values in the order sent.
    pub contents: Vec<(String, Vec<u8>)>,
}

impl Entry {
    /// The line: the value of `content`, else of the first key, else nothing.
    #[must_use]
    pub fn line(self) -> Vec<u8> {
        let at = self.contents.iter().position(|(key, _)| key == "content").unwrap_or(0);
        self.contents.into_iter().nth(at).map(|(_, value)| value).unwrap_or_default()
    }
}
