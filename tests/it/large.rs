//! What is large, by the ids of the catalogue of failures (A2): lines of a megabyte and of a
//! gigabyte, a trace of ten megabytes, offsets beyond four gigabytes.

use std::collections::HashSet;
use std::fs;
use std::io::Write as _;
use std::time::Duration;

use logferry::base::clock;
use logferry_mock as mock;

use crate::support::observe::{append_bytes, lines_of, wait_for_metric};
use crate::support::{Pod, append_to, pause, wait_for};

const APP: &str = "share/logs/app.log";
const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

#[test]
fn l08_a_line_of_a_megabyte_is_cut_and_its_neighbours_are_kept() {
    let (mut pod, log) = Pod::with_log();
    pod.set("LOGFERRY_LINE_BYTES_MAX", "64KiB");
    let address = pod.listen();
    let long: Vec<u8> = (0..1_000_003_u32).map(|n| b'a' + (n % 26) as u8).collect();
    let mut expected = vec![b"before".to_vec()];
    expected.extend(long.chunks(64 << 10).map(<[u8]>::to_vec));
    expected.push(b"after".to_vec());
    let agent = pod.start();
    append_bytes(&log, &[b"before\n", &long[..], b"\nafter\n"].concat());
    pod.await_records(expected.len());
    let cuts = long.len().div_ceil(64 << 10) - 1;
    wait_for_metric(&address, "logferry_split_lines_total", cuts as u64);

    pod.finish_records(agent, &expected);
}

#[test]
fn l08_a_long_line_is_cut_between_its_characters() {
    let (mut pod, log) = Pod::with_log();
    pod.set("LOGFERRY_LINE_BYTES_MAX", "1KiB");
    let long = "x日🦀é".repeat(10_000);
    append_bytes(&log, format!("{long}\nafter\n").as_bytes());
    let agent = pod.start();
    wait_for("the line behind it", || {
        pod.records_of(APP).last().is_some_and(|record| record == b"after")
    });
    assert_eq!(agent.stop().0, 0);

    let mut pieces = pod.records_of(APP);
    pieces.pop();
    assert!(pieces.iter().all(|piece| std::str::from_utf8(piece).is_ok()));
    assert!(pieces.iter().all(|piece| piece.len() <= 1024));
    assert!(pieces.concat() == long.as_bytes(), "no byte is dropped");
}

/// One line that grows to a gigabyte before it ends: memory stays bounded, every byte arrives, and
/// the line ends of another file arrive meanwhile. The endpoint keeps little, so each step is
/// checked before the next one is written.
#[test]
fn l09_a_line_of_a_gigabyte_takes_little_memory_and_stops_no_other_file() {
    const PIECE: usize = 512 * KIB;
    const STEP: usize = 64 * MIB;
    const STEPS: usize = 16;
    let options = mock::Options { memory_bytes_max: 3 * STEP, ..mock::Options::default() };
    let mut pod = Pod::with_endpoint(options);
    pod.set("mem_usage_limit", "64").set("LOGFERRY_PARTIAL_LINE_TIMEOUT", "1h");
    pod.link("data/pod/logs");
    let log = pod.path("data/pod/logs/app.log");
    let other = pod.path("data/pod/logs/other.log");
    let agent = pod.start();
    let started = clock::now();
    let mut file = append_to(&log);
    let mut long = LongLine::default();
    for step in 1..=STEPS {
        file.write_all(&LongLine::text((step - 1) * STEP / LongLine::BLOCK, STEP)).unwrap();
        append_bytes(&other, format!("other {step}\n").as_bytes());
        // The last piece waits for what tells whether it is the last.
        let pieces = step * STEP / PIECE - 1;
        wait_for("the step", || {
            long.take(&pod);
            long.pieces.len() >= pieces && long.others.len() == step
        });
    }
    let used = agent.cpu_time();
    pause(Duration::from_secs(1));
    let idle = agent.cpu_time() - used;
    assert!(idle < Duration::from_millis(300), "{idle:?} of 1 s, waiting for the line's end");

    file.write_all(b"\nafter\n").unwrap();
    wait_for("the line behind it", || {
        long.take(&pod);
        long.is_over
    });
    let took = clock::now() - started;
    let resident = agent.resident_bytes_peak();
    println!("{took:?}, {used:?} of CPU, {} MiB resident", resident >> 20);
    assert!(resident < 64 << 20, "{resident} bytes resident");
    assert_eq!(agent.stop().0, 0);
    long.take(&pod);
    assert_eq!((long.pieces.len() * PIECE, long.others.len()), (STEPS * STEP, STEPS));
}

/// What has arrived of the long line: blocks that begin with their number, so that each piece can
/// be checked by itself, in whichever order they come.
#[derive(Default)]
struct LongLine {
    /// Number of the first block of each piece.
    pieces: HashSet<usize>,
    others: HashSet<Vec<u8>>,
    is_over: bool,
    groups: u64,
}

impl LongLine {
    const BLOCK: usize = 4096;

    const NUMBER: usize = 16;

    fn text(first: usize, bytes: usize) -> Vec<u8> {
        let fill = "x".repeat(Self::BLOCK - Self::NUMBER);
        let block = |number| format!("{number:0>16}{fill}");
        (first..first + bytes / Self::BLOCK).map(block).collect::<String>().into_bytes()
    }

    /// Takes what is new; each piece and line once.
    fn take(&mut self, pod: &Pod) {
        for group in pod.mock.store().groups() {
            if group.number < self.groups {
                continue;
            }
            assert_eq!(
                group.number, self.groups,
                "the endpoint has forgotten what was not checked"
            );
            self.groups += 1;
            for record in group.logs().into_iter().map(mock::Entry::line) {
                if record == b"after" {
                    assert!(!std::mem::replace(&mut self.is_over, true));
                } else if record.starts_with(b"other") {
                    assert!(self.others.insert(record));
                } else {
                    let head = std::str::from_utf8(&record[..Self::NUMBER]).unwrap();
                    let first = head.parse().unwrap();
                    assert!(record == Self::text(first, record.len()), "the piece at {first}");
                    assert!(self.pieces.insert(first), "the piece at {first} comes twice");
                }
            }
        }
    }
}

/// Ten megabytes of one trace: many groups, under way at the same time; their numbers tell the
/// order.
#[test]
fn l12_a_trace_of_ten_megabytes_is_in_order_by_the_numbers_of_its_groups() {
    let (mut pod, log) = Pod::with_log();
    pod.set("LOGFERRY_BATCH_BYTES", "64KiB");
    let mut text = String::from("ERROR java.lang.StackOverflowError\n");
    while text.len() < 10 << 20 {
        text.push_str(&format!("\tat com.example.App.call(App.java:{:0>100})\n", text.len()));
    }
    append_bytes(&log, text.as_bytes());
    let agent = pod.start();

    pod.finish_records(agent, &lines_of(text.as_bytes()));
}

/// Behind a hole of five gigabytes, and then in steps beyond.
#[test]
fn l14_offsets_beyond_four_gigabytes_are_kept_across_restarts() {
    const FAR: u64 = 5 << 30;
    let (mut pod, log) = Pod::with_log();
    pod.ledger.append(&log, 10);
    append_to(&log).set_len(FAR).unwrap();
    pod.ledger.append(&log, 1000);
    let agent = pod.start();
    assert_eq!(pod.expect_all(), 0);
    pod.await_saved(APP, fs::metadata(&log).unwrap().len());
    agent.kill();

    pod.ledger.append(&log, 1000);
    let agent = pod.start();

    assert_eq!(pod.finish(agent), 0);
}
