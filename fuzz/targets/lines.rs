//! The way of lines from a file into groups: however the reads cut the file, the records are the
//! same, no byte of text is lost or made up, and the spans cover all that was read.
//!
//! Input: the longest line, the most lines of a group, a number of cuts, the cuts, the file.

#![no_main]

use std::sync::Arc;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use logferry::base::clock;
use logferry::base::fingerprint::Fingerprint;
use logferry::base::sealed::DestinationId;
use logferry::base::span::{CollectionId, FileKey, StreamKey};
use logferry::batch::policy::Reason;
use logferry::batch::{Batcher, Options, Sealed};
use logferry::pipeline::{self, Input, Stop};
use logferry::plan::Destination;
use logferry::send::{CredentialsSource, Endpoint, Signature};
use logferry_wire::{Compression, sls_logs};
use prost::Message as _;

const STREAM: StreamKey = StreamKey { file: FileKey(1), collection: CollectionId(0) };
/// The least `line_bytes_max` that is tried: well below the least that the settings allow.
const LINE_BYTES_MIN: usize = 8;

struct Plan<'a> {
    line_bytes_max: usize,
    batch_lines: u32,
    /// Sizes of the file at each read, in order; the last is all of it.
    sizes: Vec<usize>,
    file: &'a [u8],
}

fuzz_target!(|data: &[u8]| {
    let Some(plan) = plan(data) else { return };
    let whole = ship(&plan, &[plan.file.len()], false);
    let chunked = ship(&plan, &plan.sizes, false);
    assert_eq!(whole.records, chunked.records, "cuts at {:?}", plan.sizes);
    assert_eq!(whole.offset, chunked.offset);
    // Unfinished lines are records of their own then, so that cuts do change something.
    let flushed = ship(&plan, &plan.sizes, true);
    for shipped in [whole, chunked, flushed] {
        shipped.check(&plan);
    }
});

fn plan(data: &[u8]) -> Option<Plan<'_>> {
    let (&[line, lines, count], data) = data.split_first_chunk::<3>()?;
    let (cuts, file) = data.split_at_checked(2 * usize::from(count % 16))?;
    let (cuts, _) = cuts.as_chunks::<2>();
    let size = |cut: &[u8; 2]| usize::from(u16::from_le_bytes(*cut)) % (file.len() + 1);
    let mut sizes: Vec<usize> = cuts.iter().map(size).chain([file.len()]).collect();
    sizes.sort_unstable();
    let line_bytes_max = LINE_BYTES_MIN + usize::from(line % 128);
    Some(Plan { line_bytes_max, batch_lines: 1 + u32::from(lines % 9), sizes, file })
}

/// What came out at the other end.
#[derive(Default)]
struct Shipped {
    records: Vec<Vec<u8>>,
    /// Up to where the file was read.
    offset: usize,
    /// Bytes in spans of batches, and bytes passed over outside of them.
    covered: u64,
}

/// Reads the file as the collector does: with the bytes before the offset in front, until the
/// stages need more, sealing when they ask for it.
fn ship(plan: &Plan<'_>, sizes: &[usize], flush_partial: bool) -> Shipped {
    let options = Options {
        batch_bytes: 1 << 10,
        batch_lines: plan.batch_lines,
        batch_linger: Duration::from_secs(1),
        topic: String::new(),
    };
    let destination = Destination {
        endpoint: Endpoint { tls: false, host: "127.0.0.1".to_owned(), port: 80 },
        project: "fuzz".to_owned(),
        logstore: "fuzz".to_owned(),
        credentials: CredentialsSource::Unsigned,
        signature: Signature::V1,
        compression: Compression::None,
        exactly_once: false,
    };
    let destinations = logferry::plan::Plan::flat(Vec::new(), Vec::new(), destination);
    let mut batcher = Batcher::new(options, &destinations, 1 << 20).expect("a batcher");
    batcher.begin(STREAM, DestinationId(0), "/a.log".into(), Arc::new([]), "fuzz");
    let mut shipped = Shipped::default();
    let mut tail = Fingerprint::default();
    for &size in sizes {
        let lead = tail.len as usize;
        let from = shipped.offset - lead;
        let mut input = Input {
            bytes: &plan.file[from..size.max(shipped.offset)],
            lead,
            offset: shipped.offset as u64,
            time: 1_700_000_000,
            now: clock::now(),
            flush_partial,
            is_range_end: false,
        };
        assert!(tail.matches_start_of(input.bytes), "the tail is what stands before the offset");
        loop {
            let progress =
                pipeline::advance(&input, plan.line_bytes_max, &mut batcher.writer(STREAM));
            input.lead += progress.consumed;
            input.offset += progress.consumed as u64;
            shipped.covered += progress.passed as u64;
            tail = progress.tail;
            match progress.stop {
                Stop::NeedsBytes => break,
                Stop::Seal(reason) => shipped.take(batcher.seal(STREAM, reason)),
            }
        }
        shipped.offset = usize::try_from(input.offset).expect("a small file");
    }
    shipped.take(batcher.seal(STREAM, Reason::Age));
    shipped
}

impl Shipped {
    fn take(&mut self, sealed: Option<Sealed>) {
        let Some(sealed) = sealed else { return };
        self.covered += sealed.batch.span.bytes();
        let group = sls_logs::LogGroup::decode(&*sealed.batch.payload).expect("a group");
        assert_eq!(group.logs.len(), sealed.batch.lines as usize);
        self.records.extend(group.logs.into_iter().map(|mut log| log.contents.remove(0).value));
    }

    fn check(&self, plan: &Plan<'_>) {
        let read = &plan.file[..self.offset];
        assert_eq!(self.covered, self.offset as u64, "every byte is in a span or passed over");
        for record in &self.records {
            assert!(record.len() <= plan.line_bytes_max && !record.contains(&b'\n'));
        }
        // Only line ends and holes may be left out.
        let lines = || read.split(|&byte| byte == b'\n');
        let is_text = |byte: &&u8| **byte != 0;
        let complete = lines().count() - 1;
        let written = lines().enumerate().flat_map(|(index, line)| match line {
            [line @ .., b'\r'] if index < complete => line,
            line => line,
        });
        let arrived = self.records.iter().flatten();
        assert!(
            written.filter(is_text).eq(arrived.filter(is_text)),
            "all text arrives, in order: {:?}",
            self.records
        );
        let empty = lines().take(complete).filter(|line| matches!(line, [] | [b'\r'])).count();
        let arrived = self.records.iter().filter(|record| record.is_empty()).count();
        assert_eq!(empty, arrived, "empty lines arrive, and no others: {:?}", self.records);
        // Nothing that is a whole line waits.
        let rest = &plan.file[self.offset..];
        let has_line = rest
            .iter()
            .position(|&byte| byte == b'\n')
            .is_some_and(|end| end <= plan.line_bytes_max);
        assert!(!has_line, "a complete line is left: {rest:?}");
    }
}
