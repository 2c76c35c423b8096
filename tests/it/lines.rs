//! Framing, by the ids of the catalogue of failures (A2): unfinished lines, line ends, empty lines,
//! and traces, whose lines belong together.

use std::fs;
use std::io::Write as _;
use std::time::Duration;

use logferry::limit::memory::Sizes;
use logferry_wire::Compression;

use crate::support::observe::{append_bytes, expect_same, lines_of, metric};
use crate::support::{Pod, append_to, pause, wait_for};

/// So long that it does not pass within a test.
const NEVER: &str = "1h";
const APP: &str = "share/logs/app.log";

// === L01 to L03: unfinished lines

#[test]
fn l01_an_unfinished_line_is_sent_after_its_quiet_time() {
    let (mut pod, log) = Pod::with_log();
    pod.set("LOGFERRY_PARTIAL_LINE_TIMEOUT", "1s");
    let mut log = append_to(&log);
    let agent = pod.start();
    log.write_all(b"one\npar").unwrap();
    pod.await_records(1);
    pod.await_records(2);
    expect_same(&pod.records_of(APP), &["one", "par"]);

    log.write_all(b"\ntwo\n").unwrap();

    // Its end is no line of its own.
    pod.finish_records(agent, &["one", "par", "two"]);
}

#[test]
fn l01_before_its_quiet_time_an_unfinished_line_waits_for_its_end() {
    let (mut pod, log) = Pod::with_log();
    pod.set("LOGFERRY_PARTIAL_LINE_TIMEOUT", NEVER).set("LOGFERRY_READ_LINGER", "1ms");
    let agent = pod.start();
    for byte in "one byte at a time\n".bytes() {
        append_bytes(&log, &[byte]);
        pause(Duration::from_millis(15));
    }

    pod.finish_records(agent, &["one byte at a time"]);
}

/// Dots of progress: each piece waits for its quiet time, and together they are the line.
#[test]
fn l01_a_line_written_slower_than_its_quiet_time_arrives_in_pieces() {
    let (mut pod, log) = Pod::with_log();
    pod.set("LOGFERRY_PARTIAL_LINE_TIMEOUT", "200ms").set("LOGFERRY_BATCH_LINGER", "10ms");
    let agent = pod.start();
    let pieces = ["loading ", ".", "..", " ", "done"];
    for (number, piece) in pieces.iter().enumerate() {
        append_bytes(&log, piece.as_bytes());
        pod.await_records(number + 1);
    }
    append_bytes(&log, b"\nnext\n");

    pod.finish_records(agent, &[&pieces[..], &["next"]].concat());
}

/// Others lose the last event of every file of many.
#[test]
fn l01_the_unfinished_last_lines_of_many_files_are_all_sent() {
    let mut pod = Pod::new();
    pod.set("LOGFERRY_PARTIAL_LINE_TIMEOUT", "500ms");
    pod.link("data/pod/logs");
    let mut expected = Vec::new();
    for number in 0..300 {
        let line = format!("the only line of {number:03}");
        append_bytes(&pod.path(&format!("data/pod/logs/{number:03}.log")), line.as_bytes());
        expected.push(line.into_bytes());
    }
    let agent = pod.start();
    pod.await_records(expected.len());
    assert_eq!(agent.stop().0, 0);

    let mut arrived = pod.mock.store().lines();
    arrived.sort_unstable();
    expect_same(&arrived, &expected);
}

#[test]
fn l01_the_unfinished_line_of_a_file_that_was_renamed_or_deleted_is_sent() {
    for is_deleted in [false, true] {
        let (mut pod, log) = Pod::with_log();
        pod.set("LOGFERRY_PARTIAL_LINE_TIMEOUT", "1s");
        let agent = pod.start();
        append_bytes(&log, b"one\n");
        pod.await_records(1);
        let mut writer = append_to(&log);
        if is_deleted {
            fs::remove_file(&log).unwrap();
        } else {
            fs::rename(&log, log.with_extension("log.1")).unwrap();
        }
        writer.write_all(b"last words").unwrap();

        pod.finish_records(agent, &["one", "last words"]);
    }
}

/// The offset stands behind the piece that was sent: what follows is sent by itself, whole, once.
#[test]
fn l01_what_follows_a_sent_piece_after_a_restart_is_not_lost_and_repeats_nothing() {
    for is_killed in [false, true] {
        let (mut pod, log) = Pod::with_log();
        pod.set("LOGFERRY_PARTIAL_LINE_TIMEOUT", "300ms");
        append_bytes(&log, b"par");
        let agent = pod.start();
        pod.await_records(1);
        pod.await_saved(APP, 3);
        if is_killed {
            agent.kill();
        } else {
            assert_eq!(agent.stop().0, 0);
        }

        append_bytes(&log, b"tial\nnext\n");
        let agent = pod.start();

        pod.finish_records(agent, &["par", "tial", "next"]);
    }
}

#[test]
fn l02_a_line_completed_across_a_stop_is_one_line() {
    let (mut pod, log) = Pod::with_log();
    pod.set("LOGFERRY_PARTIAL_LINE_TIMEOUT", NEVER);
    append_bytes(&log, b"one\npar");
    let agent = pod.start();
    pod.await_records(1);
    assert_eq!(agent.stop().0, 0, "an unfinished line is not undelivered");

    append_bytes(&log, b"tial\n");
    let agent = pod.start();

    pod.finish_records(agent, &["one", "partial"]);
}

/// Killed again and again while the line grows.
#[test]
fn l03_a_line_completed_across_kills_is_one_line() {
    let (mut pod, log) = Pod::with_log();
    pod.set("LOGFERRY_PARTIAL_LINE_TIMEOUT", NEVER);
    append_bytes(&log, b"one\n");
    let agent = pod.start();
    pod.await_saved(APP, 4);
    agent.kill();
    for piece in ["par", "ti", "al"] {
        append_bytes(&log, piece.as_bytes());
        let address = pod.listen();
        let agent = pod.start();
        // A mark behind which the piece has been read: a line of another file.
        append_bytes(&log.with_file_name("mark.log"), b"mark\n");
        let lines = || metric(&address, "logferry_collected_lines_total");
        wait_for("the mark", || lines().is_some_and(|count| count > 0));
        agent.kill();
    }
    append_bytes(&log, b" line\n");
    let agent = pod.start();

    wait_for("the line", || pod.records_of(APP).len() >= 2);
    assert_eq!(agent.stop().0, 0);
    expect_same(&pod.records_of(APP), &["one", "partial line"]);
}

// === L05: line ends

/// The read buffer ends before, within and behind the line end.
#[test]
fn l05_a_crlf_over_a_buffer_edge_is_one_line_end() {
    let pod = Pod::new();
    pod.link("data/pod/logs");
    let buffer = Sizes {
        batch_bytes: 512 << 10,
        line_bytes_max: 512 << 10,
        concurrency_max: 8,
        compression: Compression::Lz4,
    }
    .read_bytes();
    let mut expected = Vec::new();
    // Offset of the `\r` of the line that meets the edge.
    for at in buffer - 3..=buffer + 1 {
        let mut text = Vec::new();
        while text.len() + 1000 < at {
            text.extend_from_slice(format!("{:0>98}\r\n", text.len()).as_bytes());
        }
        text.resize(at, b'x');
        text.extend_from_slice(b"\r\nbehind\r\n");
        let name = format!("{at}.log");
        fs::write(pod.path("data/pod/logs").join(&name), &text).unwrap();
        expected.push((format!("share/logs/{name}"), text));
    }
    let agent = pod.start();
    pod.await_records(expected.iter().map(|(_, text)| lines_of(text).len()).sum());
    assert_eq!(agent.stop().0, 0);

    for (path, text) in expected {
        expect_same(&pod.records_of(&path), &lines_of(&text));
    }
}

/// A library flushes between `\r` and `\n`, and the quiet time passes in between.
#[test]
fn l05_a_crlf_written_in_two_halves_is_one_line_end() {
    let (mut pod, log) = Pod::with_log();
    pod.set("LOGFERRY_PARTIAL_LINE_TIMEOUT", "300ms");
    let agent = pod.start();
    for number in 0..3 {
        append_bytes(&log, format!("line {number}\r").as_bytes());
        pod.await_records(number + 1);
        append_bytes(&log, b"\n");
    }

    pod.finish_records(agent, &["line 0", "line 1", "line 2"]);
}

#[test]
fn l05_a_crlf_in_two_halves_in_time_is_one_line_end() {
    let (mut pod, log) = Pod::with_log();
    pod.set("LOGFERRY_PARTIAL_LINE_TIMEOUT", NEVER).set("LOGFERRY_READ_LINGER", "1ms");
    let agent = pod.start();
    for number in 0..3 {
        append_bytes(&log, format!("line {number}\r").as_bytes());
        pause(Duration::from_millis(50));
        append_bytes(&log, b"\n");
        pod.await_records(number + 1);
    }

    pod.finish_records(agent, &["line 0", "line 1", "line 2"]);
}

#[test]
fn l05_a_lone_cr_belongs_to_its_line() {
    let (mut pod, log) = Pod::with_log();
    pod.set("LOGFERRY_PARTIAL_LINE_TIMEOUT", "300ms");
    append_bytes(&log, b"10 %\r20 %\r100 %\n\rahead\nbehind\r\r\n\r\r\n\r\nold\rmac\rtext");
    let agent = pod.start();

    let lines = ["10 %\r20 %\r100 %", "\rahead", "behind\r", "\r", "", "old\rmac\rtext"];
    pod.finish_records(agent, &lines);
}

/// The line end is no part of the longest line.
#[test]
fn l05_a_longest_line_ends_with_either_line_end() {
    let (mut pod, log) = Pod::with_log();
    pod.set("LOGFERRY_LINE_BYTES_MAX", "1KiB");
    let mut text = Vec::new();
    let mut expected = Vec::new();
    for end in ["\n", "\r\n"] {
        for length in [1023, 1024, 1025, 2048, 2049] {
            let line = vec![b'x'; length];
            text.extend_from_slice(&line);
            text.extend_from_slice(end.as_bytes());
            expected.extend(line.chunks(1024).map(<[u8]>::to_vec));
        }
    }
    append_bytes(&log, &text);
    let agent = pod.start();

    pod.finish_records(agent, &expected);
}

// === L10: empty lines

#[test]
fn l10_a_million_empty_lines_are_a_million_records() {
    const EACH: usize = 500_000;
    let (pod, log) = Pod::with_log();
    let text = ["first\n", &"\n".repeat(EACH), "\r\n", &"\r\n".repeat(EACH), "last\n"].concat();
    append_bytes(&log, text.as_bytes());
    let agent = pod.start();
    let expected = lines_of(text.as_bytes());
    assert_eq!(expected.len(), 2 * EACH + 3);

    pod.finish_records(agent, &expected);
}

// === L11: traces

/// A trace is written in halves, three times: seconds apart, over a restart, over a rotation. The
/// agent joins no lines; each arrives once, in order, and never among those of another file.
#[test]
fn l11_the_lines_of_a_stack_trace_stay_in_order_whatever_comes_between() {
    let (mut pod, log) = Pod::with_log();
    pod.set("LOGFERRY_BATCH_LINES", "7").set("LOGFERRY_PARTIAL_LINE_TIMEOUT", NEVER);
    let other = log.with_file_name("other.log");
    let trace = |number: usize| -> (String, String) {
        let head = format!("ERROR {number} java.lang.IllegalStateException: no\n");
        let frames = |from: usize| -> String {
            let line = |n| format!("\tat com.example.App.call{n}(App.java:{number})\n");
            (from..from + 10).map(line).collect()
        };
        (head + &frames(0) + "\tat com.exam", format!("ple.App.torn()\n{}", frames(11)))
    };
    let mut written = String::new();
    let mut agent = pod.start();
    for number in 0..3 {
        let (one, two) = trace(number);
        append_bytes(&log, one.as_bytes());
        append_bytes(&other, "other\n".repeat(20).as_bytes());
        let mut writer = append_to(&log);
        // The other file's lines are behind the first half's.
        pod.await_records(11 + number * 22 + (number + 1) * 20);
        match number {
            0 => pause(Duration::from_secs(3)),
            1 => {
                assert_eq!(agent.stop().0, 0);
                agent = pod.start();
            }
            _ => fs::rename(&log, log.with_extension("log.1")).unwrap(),
        }
        writer.write_all(two.as_bytes()).unwrap();
        written = written + &one + &two;
        pod.await_records((number + 1) * 42);
    }
    assert_eq!(agent.stop().0, 0);

    expect_same(&pod.records_of(APP), &lines_of(written.as_bytes()));
    expect_same(&pod.records_of("share/logs/other.log"), &["other"; 60]);
}
