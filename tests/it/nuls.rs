//! NUL bytes, by their id in the catalogue of failures (A2, L06): within a line they are kept; the
//! holes of sparse files are skipped and counted; space that was allocated ahead is waited on.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::Duration;

use crate::support::observe::{append_bytes, expect_same, wait_for_metric};
use crate::support::{Pod, append_to, pause};

const HOLES: &str = "logferry_skipped_bytes_total{reason=\"hole\"}";
const HOLE_MESSAGE: &str = "a hole of NUL bytes is skipped";

/// A writer that keeps its own position, as one without `O_APPEND` does.
fn writer(path: &Path) -> File {
    File::options().create(true).truncate(false).write(true).open(path).unwrap()
}

#[test]
fn l06_nul_bytes_within_a_line_are_kept() {
    let (mut pod, log) = Pod::with_log();
    let address = pod.listen();
    let seven = "\0".repeat(7);
    let many = "\0".repeat(5000);
    let lines = [
        "within \0 a line",
        "at its end\0",
        "\0at its start",
        "\0",
        &format!("{seven}at its start"),
        &seven,
        &format!("within {many} a line"),
        &format!("at its end{many}"),
    ];
    append_bytes(&log, (lines.join("\n") + "\n").as_bytes());
    let agent = pod.start();
    pod.await_records(lines.len());
    wait_for_metric(&address, HOLES, 0);

    pod.finish_records(agent, &lines);
}

/// `truncate -s 0` under a writer that goes on where it was: each time a hole, then lines.
#[test]
fn l06_the_hole_before_a_writer_that_keeps_its_position_is_skipped_and_counted() {
    let (mut pod, log) = Pod::with_log();
    let address = pod.listen();
    let agent = pod.start();
    let file = writer(&log);
    let mut at = 0;
    let mut holes = 0;
    let mut expected = Vec::new();
    for number in 0..3 {
        let lines = format!("line {number}a of some length\nline {number}b\n");
        file.write_all_at(lines.as_bytes(), at).unwrap();
        at += lines.len() as u64;
        expected.extend(lines.lines().map(str::to_owned));
        pod.await_records(expected.len());
        wait_for_metric(&address, HOLES, holes);
        // The app truncates it, and its next line leaves a hole as long as what was there.
        file.set_len(0).unwrap();
        holes += at;
    }
    let log = pod.agent_log();
    let skips: Vec<&str> = log.lines().filter(|line| line.contains(HOLE_MESSAGE)).collect();
    assert_eq!(skips.len(), 2, "{log}");
    for field in ["file=", "offset=0", "bytes="] {
        assert!(skips.iter().all(|line| line.contains(field)), "{field}: {skips:?}");
    }

    pod.finish_records(agent, &expected);
}

/// As it is found at the start, and after a stop in front of the hole.
#[test]
fn l06_a_hole_that_came_while_no_agent_ran_is_skipped() {
    let (mut pod, log) = Pod::with_log();
    let address = pod.listen();
    let file = writer(&log);
    file.write_all_at(b"before\n", 0).unwrap();
    let agent = pod.start();
    pod.await_records(1);
    assert_eq!(agent.stop().0, 0);

    file.write_all_at(b"behind\n", 1_000_000).unwrap();
    let agent = pod.start();
    pod.await_records(2);
    wait_for_metric(&address, HOLES, 1_000_000 - 7);

    pod.finish_records(agent, &["before", "behind"]);
}

/// Ten gigabytes that are not there, in two files: one with a line behind, one that gets it later.
#[test]
fn l06_a_hole_of_ten_gigabytes_takes_no_memory_and_no_time() {
    const FAR: u64 = 10 << 30;
    let (mut pod, log) = Pod::with_log();
    pod.set("mem_usage_limit", "64");
    let address = pod.listen();
    pod.ledger.append(&log, 10);
    let before = pod.ledger.bytes();
    append_to(&log).set_len(FAR).unwrap();
    pod.ledger.append(&log, 10);
    let waiting = log.with_file_name("waiting.log");
    pod.ledger.append(&waiting, 10);
    let start = std::fs::metadata(&waiting).unwrap().len();
    append_to(&waiting).set_len(FAR).unwrap();
    let agent = pod.start();
    assert_eq!(pod.expect_all(), 0);
    wait_for_metric(&address, HOLES, FAR - before);

    // What may still be overwritten is waited on, without looking at all of it again and again.
    let used = agent.cpu_time();
    pause(Duration::from_secs(2));
    let used = agent.cpu_time() - used;
    assert!(used < Duration::from_millis(500), "{used:?} of 2 s");
    pod.ledger.append(&waiting, 10);
    assert_eq!(pod.expect_all(), 0);
    wait_for_metric(&address, HOLES, FAR - before + FAR - start);
    let resident = agent.resident_bytes_peak();
    assert!(resident < 64 << 20, "{resident} bytes resident");
    assert_eq!(pod.finish(agent), 0);
}

/// A line that was cut off, as by a loss of power, and what another writer put behind the hole.
#[test]
fn l06_a_line_is_cut_before_a_hole_that_makes_it_too_long() {
    const HOLE: usize = 1 << 20;
    let (mut pod, log) = Pod::with_log();
    pod.set("LOGFERRY_LINE_BYTES_MAX", "64KiB");
    let address = pod.listen();
    append_bytes(&log, b"torn");
    append_to(&log).set_len((4 + HOLE) as u64).unwrap();
    append_bytes(&log, b"apart\nnext\n");
    let agent = pod.start();
    pod.await_records(3);
    wait_for_metric(&address, HOLES, HOLE as u64);

    pod.finish_records(agent, &["torn", "apart", "next"]);
}

/// A line behind a hole is sent after its quiet time like any other.
#[test]
fn l06_an_unfinished_line_behind_a_hole_is_sent() {
    let (mut pod, log) = Pod::with_log();
    pod.set("LOGFERRY_PARTIAL_LINE_TIMEOUT", "300ms");
    append_to(&log).set_len(5000).unwrap();
    append_bytes(&log, b"unfinished");
    let agent = pod.start();

    pod.finish_records(agent, &["unfinished"]);
}

/// Zeros that were written, as by a file system that was cut off: no hole for the kernel.
#[test]
fn l06_written_nul_bytes_are_a_hole_too() {
    const NULS: usize = 20 << 20;
    let (mut pod, log) = Pod::with_log();
    let address = pod.listen();
    append_bytes(&log, b"before\n");
    append_bytes(&log, &vec![0; NULS]);
    append_bytes(&log, b"behind\n");
    let agent = pod.start();
    pod.await_records(2);
    wait_for_metric(&address, HOLES, NULS as u64);

    pod.finish_records(agent, &["before", "behind"]);
}

/// An app that allocates its log ahead and writes lines over the NUL bytes, in place.
#[test]
fn l06_space_allocated_ahead_is_waited_on_until_lines_are_written_over_it() {
    const AHEAD: u64 = 64 << 10;
    let (mut pod, log) = Pod::with_log();
    let address = pod.listen();
    pod.set("LOGFERRY_PARTIAL_LINE_TIMEOUT", "200ms");
    let file = writer(&log);
    file.set_len(AHEAD).unwrap();
    let agent = pod.start();
    let mut at = 0;
    let mut expected = Vec::new();
    for number in 0..5 {
        let lines = format!("line {number}\nand another\n");
        file.write_all_at(lines.as_bytes(), at).unwrap();
        at += lines.len() as u64;
        expected.extend(lines.lines().map(str::to_owned));
        pod.await_records(expected.len());
        pause(Duration::from_millis(300));
    }
    wait_for_metric(&address, HOLES, 0);

    // What is left of the space is nothing undelivered.
    pod.finish_records(agent, &expected);
}

/// Stopped in front of the space, and started again when there is more in it; in the end the app
/// cuts the rest off.
#[test]
fn l06_space_allocated_ahead_survives_restarts_and_is_cut_off_at_the_end() {
    const AHEAD: u64 = 64 << 10;
    let (pod, log) = Pod::with_log();
    let file = writer(&log);
    file.set_len(AHEAD).unwrap();
    let mut at = 0;
    let mut write = |line: &str| {
        file.write_all_at(line.as_bytes(), at).unwrap();
        at += line.len() as u64;
        at
    };
    write("one\n");
    let agent = pod.start();
    pod.await_records(1);
    assert_eq!(agent.stop().0, 0);
    write("two\n");
    let agent = pod.start();
    pod.await_records(2);
    let end = write("three\n");
    file.set_len(end).unwrap();
    pod.await_records(3);
    append_bytes(&log, b"four\n");

    pod.finish_records(agent, &["one", "two", "three", "four"]);
}

// === NULs that are filled: pages in another order, several threads of an app

/// A page in the middle, the first one, one that ends in the middle of a line: the lines arrive as
/// they were written, and once.
#[test]
fn l06_pages_that_arrive_in_another_order_are_waited_on() {
    const PAGE: usize = 4096;
    const ORDERS: [[usize; 4]; 4] = [[0, 1, 3, 2], [1, 2, 3, 0], [0, 2, 3, 1], [3, 2, 1, 0]];
    for late in [5, 300].map(Duration::from_millis) {
        for line_bytes in [16, 5000] {
            let (mut pod, log) = Pod::with_log();
            let address = pod.listen();
            append_bytes(&log, b"");
            let agent = pod.start();
            agent.wait_until_open(&log);
            let file = writer(&log);
            let mut expected: Vec<String> = Vec::new();
            let mut text = String::new();
            for order in ORDERS {
                let first = text.len() / PAGE;
                while text.len() < (first + 4) * PAGE {
                    let line = format!("{:0line_bytes$}", expected.len());
                    text = text + &line + "\n";
                    expected.push(line);
                }
                for (nth, number) in order.into_iter().enumerate() {
                    let at = (first + number) * PAGE;
                    if nth == 3 {
                        pause(late);
                    }
                    file.write_all_at(&text.as_bytes()[at..at + PAGE], at as u64).unwrap();
                }
                let at = (first + 4) * PAGE;
                file.write_all_at(&text.as_bytes()[at..], at as u64).unwrap();
                pod.await_records(expected.len());
            }
            wait_for_metric(&address, HOLES, 0);

            pod.finish_records(agent, &expected);
        }
    }
}

/// Threads that reserve their place and write there: short lines are missing for a while, at the
/// head of the file and everywhere else.
#[test]
fn l06_lines_that_threads_write_behind_each_other_arrive_whole_and_once() {
    const LINES: usize = 40;
    let (mut pod, log) = Pod::with_log();
    let address = pod.listen();
    append_bytes(&log, b"");
    let agent = pod.start();
    agent.wait_until_open(&log);
    let mut expected = Vec::new();
    let file = writer(&log);
    let mut at = 0;
    for number in (0..LINES).step_by(2) {
        let late = format!("line {number}\n");
        let early = format!("line {}\n", number + 1);
        file.write_all_at(early.as_bytes(), at + late.len() as u64).unwrap();
        // Long enough to be seen.
        pause(Duration::from_millis(150));
        file.write_all_at(late.as_bytes(), at).unwrap();
        at += (late.len() + early.len()) as u64;
        expected.extend([late, early].map(|line| line.trim_end().to_owned()));
    }
    wait_for_metric(&address, HOLES, 0);

    pod.finish_records(agent, &expected);
}

/// What stays is a hole after a moment, whoever waits for it: a writer that goes on, an agent that is
/// told to stop.
#[test]
fn l06_a_stop_waits_until_a_hole_is_known_for_one() {
    let (pod, log) = Pod::with_log();
    let agent = pod.start();
    let file = writer(&log);
    file.write_all_at(b"before\n", 0).unwrap();
    pod.await_records(1);
    file.write_all_at(b"behind\n", 5000).unwrap();
    assert_eq!(agent.stop().0, 0, "{}", pod.agent_log());

    expect_same(&pod.records_of("share/logs/app.log"), &["before", "behind"]);
}

/// While NULs are waited on, an app that writes behind them all the time costs next to nothing.
#[test]
fn l06_nuls_that_are_waited_on_are_not_read_again_and_again() {
    let (mut pod, log) = Pod::with_log();
    let address = pod.listen();
    let agent = pod.start();
    let file = writer(&log);
    let mut expected = Vec::new();
    let mut at = 64 << 10;
    for number in 0..300 {
        let line = format!("line {number}");
        file.write_all_at(format!("{line}\n").as_bytes(), at).unwrap();
        at += line.len() as u64 + 1;
        expected.push(line);
        pause(Duration::from_millis(5));
    }
    wait_for_metric(&address, HOLES, 64 << 10);
    pod.finish_records(agent, &expected);
    let skips = pod.times_logged(HOLE_MESSAGE);
    assert_eq!(skips, 1, "{}", pod.agent_log());
}
