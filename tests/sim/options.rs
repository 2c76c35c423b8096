//! Settings of a world's agent: drawn from a seed, and as the collector takes them.

use std::time::Duration;

use logferry::base::fingerprint::{HEAD_BYTES_MAX, TAIL_BYTES_MAX};
use logferry::collector::{self, stopping};
use logferry::enrich::{Host, TagPlan};
use logferry::line::split::lookahead;
use logferry::plan::{Destination, Plan};
use logferry::send::{CredentialsSource, Endpoint, Signature};
use logferry::{batch, limit, tail};
use logferry_wire::Compression;

use crate::flaws::Flaw;
use crate::ground::Ground;
use crate::invariants::Bounds;

/// Settings of one world's agent.
#[derive(Clone)]
pub struct Options {
    pub bounds: Bounds,
    pub compression: Compression,
    pub paths: Vec<String>,
    pub read_linger: Duration,
    pub partial_line_timeout: Duration,
    pub read_bytes: usize,
    pub concurrency_max: usize,
    pub is_ordered: bool,
    pub bytes_per_second: u64,
    pub cpu_cores: f64,
    pub drain_quiet: Duration,
    pub files_max: usize,
}

/// Bounds as small as they can be, so that they are met all the time.
pub fn options(rng: &mut fastrand::Rng, ground: &Ground) -> Options {
    let line_bytes_max = rng.usize(16..200);
    let compressions = [Compression::None, Compression::Lz4, Compression::Zstd];
    let batch = batch::Options {
        batch_bytes: rng.usize(300..3000),
        batch_lines: rng.u32(1..40),
        batch_linger: Duration::from_millis(rng.u64(20..2000)),
        topic: String::new(),
    };
    let compression = compressions[rng.usize(..3)];
    let bounds = Bounds {
        batch,
        line_bytes_max,
        open_bytes_max: rng.usize(300..5000),
        handoff_bytes_max: rng.usize(1..16_000),
    };
    Options {
        bounds,
        compression,
        paths: vec![ground.written()],
        read_linger: Duration::from_millis(rng.u64(10..300)),
        partial_line_timeout: Duration::from_millis(rng.u64(200..5000)),
        read_bytes: HEAD_BYTES_MAX.max(lookahead(line_bytes_max) + TAIL_BYTES_MAX)
            + rng.usize(..500),
        concurrency_max: rng.usize(1..9),
        is_ordered: rng.u8(..4) == 0,
        bytes_per_second: if rng.u8(..6) == 0 { rng.u64(4000..20_000) } else { 0 },
        cpu_cores: if rng.u8(..6) == 0 { 0.01 } else { 2.0 },
        drain_quiet: Duration::from_millis([0, 0, 300, 2000][rng.usize(..4)]),
        files_max: if rng.u8(..5) == 0 { rng.usize(2..5) } else { 100 },
    }
}

/// The settings of the collector.
pub fn collector_options(options: &Options, flaw: Option<Flaw>) -> collector::Options {
    let bounds = &options.bounds;
    let host = Host { name: b"pod".to_vec(), address: "10.0.0.1".to_owned() };
    let keeps_rests = flaw == Some(Flaw::KeepsRests);
    // What the simulation has for a service asks for no name and no key.
    let destination = Destination {
        endpoint: Endpoint { tls: false, host: "e".to_owned(), port: 80 },
        project: "p".to_owned(),
        logstore: "l".to_owned(),
        credentials: CredentialsSource::Unsigned,
        signature: Signature::V1,
        compression: options.compression,
        exactly_once: false,
    };
    collector::Options {
        plan: Plan::flat(options.paths.clone(), Vec::new(), destination).into(),
        tail: tail::Options {
            link_roots: Vec::new(),
            read_linger: options.read_linger,
            line_bytes_max: bounds.line_bytes_max,
            partial_line_timeout: match keeps_rests {
                true => Duration::from_secs(1_000_000),
                false => options.partial_line_timeout,
            },
            held_deleted_bytes_max: u64::MAX,
        },
        batch: bounds.batch.clone(),
        limit: limit::Options {
            cpu_cores: options.cpu_cores,
            cpu_cores_max: options.cpu_cores,
            memory_bytes: 1 << 30,
            bytes_per_second: options.bytes_per_second,
        },
        open_bytes_max: bounds.open_bytes_max,
        read_bytes: options.read_bytes,
        files_max: options.files_max,
        known_max: 1000,
        tags: TagPlan::new(host, "", Vec::new()),
        stop: stopping::Options {
            quiet: options.drain_quiet,
            sends_partial_lines: false,
            exit_when: None,
        },
        shard_hash_keys: Vec::new(),
        concurrency_max: options.concurrency_max,
    }
}
