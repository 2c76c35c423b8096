//! One line's way from the read buffer to a sealed batch: time and allocations a megabyte.
//! `cargo bench`.

use std::sync::Arc;
use std::time::Duration;

use divan::Bencher;
use divan::counter::BytesCount;
use logferry::batch::policy::Reason;
use logferry::batch::{Batcher, Options};
use logferry::pipeline::{self, Input, Stop};
use logferry::span::FileKey;
use logferry::wire::Compression;

#[global_allocator]
static ALLOCATOR: divan::AllocProfiler = divan::AllocProfiler::system();

fn main() {
    divan::main();
}

/// Some lines as apps write them.
fn text(line_bytes: usize) -> Vec<u8> {
    let mut text = Vec::with_capacity(1 << 20);
    for number in 0.. {
        let line = format!("2026-01-01T00:00:00.{:03} INFO request id={number} ", number % 1000);
        let width = line_bytes.max(line.len());
        text.extend_from_slice(format!("{line:x<width$}\n").as_bytes());
        if text.len() > (1 << 20) - width - 1 {
            break;
        }
    }
    text
}

#[divan::bench(args = [50, 150, 1500], consts = [0, 1, 2])]
fn read_buffer_to_batches<const COMPRESSION: usize>(bencher: Bencher<'_, '_>, line_bytes: usize) {
    let compression = [Compression::None, Compression::Lz4, Compression::Zstd][COMPRESSION];
    let options = Options {
        batch_bytes: 512 << 10,
        batch_lines: 4000,
        batch_linger: Duration::from_secs(1),
        compression,
        topic: String::new(),
    };
    let file = FileKey(1);
    let mut batcher = Batcher::new(options, 8 << 20).expect("a batcher");
    batcher.begin(file, "/share/logs/app.log".into(), Arc::new([]), "bench");
    let text = text(line_bytes);
    let now = logferry::clock::now();
    bencher.counter(BytesCount::of_slice(&text)).bench_local(|| {
        let mut input = Input {
            bytes: &text,
            lead: 0,
            offset: 0,
            time: 1_700_000_000,
            now,
            flush_partial: false,
            is_range_end: false,
        };
        loop {
            let progress = pipeline::advance(&input, 512 << 10, &mut batcher.writer(file));
            input.lead += progress.consumed;
            input.offset += progress.consumed as u64;
            match progress.stop {
                Stop::Seal(reason) => drop(divan::black_box(batcher.seal(file, reason))),
                Stop::NeedsBytes => break,
            }
        }
        divan::black_box(batcher.seal(file, Reason::Age))
    });
}
