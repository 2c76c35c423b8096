//! One stream's bytes on their way through the stages: split, then into the open group.
//!
//! Pure, and the page to read first. The collector brings the bytes and takes what comes out;
//! nothing here knows of files, clocks or peers. Between splitter and group there is room for
//! other stages (joining lines, decoding, parsing): each would borrow the line from the one before.

use std::time::Instant;

use crate::base::fingerprint::Fingerprint;
use crate::batch::Writer;
use crate::batch::policy::Reason;
use crate::line::split::{Line, last_line, next_line, partial_line};

/// Some bytes of one file, and when they were read.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// Bytes of the file: `lead` of them known already, the rest new.
    pub bytes: &'a [u8],
    /// How many of `bytes` stand before `offset`.
    pub lead: usize,
    /// Offset in the file of the first new byte.
    pub offset: u64,
    /// Wall-clock time of the reading, in Unix seconds: the `Time` of the lines.
    pub time: u32,
    /// Monotonic time of the reading: the age of a group that is opened.
    pub now: Instant,
    /// The file has been quiet long enough for its unfinished last line to be sent as it is.
    pub flush_partial: bool,
    /// A record ended where `bytes` end when they were read before: what is left there is whole.
    pub is_range_end: bool,
}

/// Why the stages stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// No complete line is left.
    NeedsBytes,
    /// The open group must be sealed first; then the rest of the input goes on.
    Seal(Reason),
}

/// How far they came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// New bytes that are in groups now, or were passed over.
    pub consumed: usize,
    /// The first of these bytes that were passed over while no group was open to cover them: the
    /// end of a line whose text was delivered before, or a hole.
    pub passed: usize,
    /// How many of the bytes passed over are holes.
    pub passed_hole_bytes: usize,
    /// How many of all bytes are holes.
    pub hole_bytes: usize,
    /// Fingerprint of the bytes before the new offset.
    pub tail: Fingerprint,
    /// Records made.
    pub records: u64,
    /// Of these, how many are a piece of a longer line.
    pub cut: u64,
    /// An unfinished last line was sent.
    pub sent_partial: bool,
    /// Why it ended here.
    pub stop: Stop,
}

/// Takes lines off the new bytes and appends them to the stream's open group, until either needs
/// more. *Cost*: no allocation per line; each byte is looked at once and copied once.
#[must_use]
pub fn advance(input: &Input<'_>, line_bytes_max: usize, writer: &mut Writer<'_>) -> Progress {
    let mut at = input.lead;
    let mut is_mid_line = at > 0 && input.bytes[at - 1] != b'\n';
    let mut progress = Progress {
        consumed: 0,
        passed: 0,
        passed_hole_bytes: 0,
        hole_bytes: 0,
        tail: Fingerprint::default(),
        records: 0,
        cut: 0,
        sent_partial: false,
        stop: Stop::NeedsBytes,
    };
    loop {
        let left = &input.bytes[at..];
        let (line, is_partial) = match next_line(left, is_mid_line, line_bytes_max) {
            Some(line) => (line, false),
            None if input.is_range_end => match last_line(left, line_bytes_max) {
                Some(line) => (line, false),
                None => break,
            },
            None if input.flush_partial => match partial_line(left, line_bytes_max) {
                Some(line) => (line, true),
                None => break,
            },
            None => break,
        };
        if let Some(reason) = take(input, at, line, writer, &mut progress) {
            progress.stop = Stop::Seal(reason);
            break;
        }
        if is_partial {
            progress.sent_partial = true;
            writer.on_partial();
        }
        at += line.consumed;
        is_mid_line = line.is_cut;
    }
    progress.consumed = at - input.lead;
    progress.tail = Fingerprint::of_tail(&input.bytes[..at]);
    writer.set_tail(progress.tail);
    progress
}

/// Puts one line into the open group, or says why the group must be sealed before.
fn take(
    input: &Input<'_>,
    at: usize,
    line: Line<'_>,
    writer: &mut Writer<'_>,
    progress: &mut Progress,
) -> Option<Reason> {
    let start = input.offset + (at - input.lead) as u64;
    let end = start + line.consumed as u64;
    let Some(value) = line.value else {
        let hole_bytes = if line.is_hole { line.consumed } else { 0 };
        progress.hole_bytes += hole_bytes;
        if !writer.cover(end, hole_bytes as u64) {
            debug_assert_eq!(at, input.lead + progress.passed, "behind a line a group is open");
            progress.passed += line.consumed;
            progress.passed_hole_bytes += hole_bytes;
        }
        return None;
    };
    if let Some(reason) = writer.seal_before(value.len(), input.time) {
        return Some(reason);
    }
    writer.append(value, start, end, input.time, input.now);
    progress.records += 1;
    progress.cut += u64::from(line.is_cut);
    None
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::base::sealed::DestinationId;
    use crate::base::span::{CollectionId, FileKey, Span, StreamKey};
    use crate::batch::{Batcher, Options, Sealed};
    use crate::plan::{Destination, Plan};
    use logferry_wire::sls_logs;

    const STREAM: StreamKey = StreamKey { file: FileKey(1), collection: CollectionId(0) };

    fn batcher(batch_lines: u32) -> Batcher {
        let options = Options {
            batch_bytes: 1 << 20,
            batch_lines,
            batch_linger: Duration::from_secs(1),
            topic: String::new(),
        };
        let plan = Plan::sample(vec![Destination::sample()]);
        let mut batcher = Batcher::new(options, &plan, 1 << 20).unwrap();
        batcher.begin(STREAM, DestinationId(0), "/a.log".into(), Vec::new().into(), "id");
        batcher
    }

    fn input(bytes: &[u8], lead: usize, offset: u64) -> Input<'_> {
        let now = crate::base::clock::now();
        Input {
            bytes,
            lead,
            offset,
            time: 1_700_000_000,
            now,
            flush_partial: false,
            is_range_end: false,
        }
    }

    fn values(sealed: &Sealed) -> Vec<String> {
        use prost::Message as _;
        let group = sls_logs::LogGroup::decode(&*sealed.batch.payload).unwrap();
        let text = |log: &sls_logs::Log| String::from_utf8(log.contents[0].value.clone()).unwrap();
        group.logs.iter().map(text).collect()
    }

    #[test]
    fn complete_lines_go_into_the_group_and_the_rest_stays() {
        let mut batcher = batcher(9);
        let progress = advance(&input(b"one\ntwo\npart", 0, 100), 99, &mut batcher.writer(STREAM));

        assert_eq!((progress.consumed, progress.records, progress.passed), (8, 2, 0));
        assert_eq!(progress.stop, Stop::NeedsBytes);
        assert_eq!(progress.tail, Fingerprint::of(b"one\ntwo\n"));
        let sealed = batcher.seal(STREAM, Reason::Age).unwrap();
        assert_eq!(values(&sealed), ["one", "two"]);
        assert_eq!(sealed.batch.span, Span::new(STREAM, 100, 108));
        assert_eq!(sealed.tail, progress.tail);
    }

    #[test]
    fn stops_before_the_line_that_does_not_fit() {
        let mut batcher = batcher(2);
        let bytes = b"a\nb\nc\n";
        let first = advance(&input(bytes, 0, 0), 99, &mut batcher.writer(STREAM));
        assert_eq!((first.consumed, first.stop), (4, Stop::Seal(Reason::Full)));
        let sealed = batcher.seal(STREAM, Reason::Full).unwrap();
        assert_eq!(sealed.tail, Fingerprint::of(b"a\nb\n"));

        let second = advance(&input(bytes, 4, 4), 99, &mut batcher.writer(STREAM));
        assert_eq!((second.consumed, second.stop), (2, Stop::NeedsBytes));
        let sealed = batcher.seal(STREAM, Reason::Age).unwrap();
        assert_eq!(sealed.batch.span, Span::new(STREAM, 4, 6));
        assert_eq!(sealed.tail, Fingerprint::of(bytes));
    }

    #[test]
    fn an_unfinished_line_is_sent_when_asked_and_its_end_is_passed_over() {
        let mut batcher = batcher(9);
        let mut quiet = input(b"par", 0, 0);
        quiet.flush_partial = true;
        let progress = advance(&quiet, 99, &mut batcher.writer(STREAM));
        assert!(progress.sent_partial);
        assert_eq!(values(&batcher.seal(STREAM, Reason::Age).unwrap()), ["par"]);

        let progress = advance(&input(b"par\nnext\n", 3, 3), 99, &mut batcher.writer(STREAM));
        assert_eq!((progress.consumed, progress.passed, progress.records), (6, 1, 1));
        let sealed = batcher.seal(STREAM, Reason::Age).unwrap();
        assert_eq!(values(&sealed), ["next"]);
        assert_eq!(sealed.batch.span, Span::new(STREAM, 4, 9));
    }

    #[test]
    fn what_follows_an_unfinished_line_is_a_record_of_its_own() {
        let mut batcher = batcher(9);
        let progress = advance(&input(b"partial\n", 3, 3), 99, &mut batcher.writer(STREAM));
        assert_eq!((progress.consumed, progress.passed), (5, 0));
        assert_eq!(values(&batcher.seal(STREAM, Reason::Age).unwrap()), ["tial"]);
    }

    #[test]
    fn an_open_group_covers_the_end_of_a_partial_line() {
        let mut batcher = batcher(9);
        let mut quiet = input(b"par", 0, 0);
        quiet.flush_partial = true;
        let _ = advance(&quiet, 99, &mut batcher.writer(STREAM));
        let progress = advance(&input(b"par\nnext\n", 3, 3), 99, &mut batcher.writer(STREAM));
        assert_eq!((progress.consumed, progress.passed), (6, 0));
        let sealed = batcher.seal(STREAM, Reason::Age).unwrap();
        assert_eq!(values(&sealed), ["par", "next"]);
        assert_eq!(sealed.batch.span, Span::new(STREAM, 0, 9));
    }

    #[test]
    fn holes_are_passed_over_and_counted() {
        let mut batcher = batcher(9);
        let bytes = [&[0; 20][..], b"\none\n", &[0; 10], b"two\n"].concat();
        let progress = advance(&input(&bytes, 0, 0), 99, &mut batcher.writer(STREAM));
        assert_eq!((progress.passed, progress.passed_hole_bytes), (21, 20));
        assert_eq!((progress.consumed, progress.hole_bytes), (39, 30));
        let sealed = batcher.seal(STREAM, Reason::Age).unwrap();
        assert_eq!(values(&sealed), ["one", "two"]);
        assert_eq!((sealed.batch.span, sealed.hole_bytes), (Span::new(STREAM, 21, 39), 10));
    }

    #[test]
    fn counts_the_pieces_of_long_lines() {
        let mut batcher = batcher(9);
        let progress = advance(&input(b"abcdefg\nh\n", 0, 0), 3, &mut batcher.writer(STREAM));
        assert_eq!((progress.consumed, progress.records, progress.cut), (10, 4, 2));
    }
}
