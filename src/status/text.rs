//! The status as text for people: a table of files, then delivery and checkpoint.
//!
//! Pure. Whatever comes from outside (paths, errors) is printed without control characters, so
//! that a file's name cannot move the cursor or break the table.

use std::fmt::Write as _;
use std::net::SocketAddr;

use super::saved::Saved;
use crate::admin::status::Status;

const COLUMNS: [&str; 9] =
    ["PATH", "STATE", "DEVICE:INODE", "SIZE", "READ", "ACKED", "LAG", "WAITING", "LAST ERROR"];
/// Words stand left, numbers right.
const IS_NUMBER: [bool; 9] = [false, false, false, true, true, true, true, true, false];

type Row = [String; 9];

/// The text for what a running agent says.
#[must_use]
pub fn of_agent(status: &Status, address: SocketAddr, now_unix: u64) -> String {
    let rows = status.files.iter().map(|file| {
        [
            printable(&file.path),
            printable(&file.state),
            format!("{}:{}", file.device, file.inode),
            file.size.to_string(),
            file.read_offset.to_string(),
            file.acked_offset.to_string(),
            size(file.lag_bytes),
            duration(file.lag_seconds),
            printable(&file.last_error),
        ]
    });
    let state = if status.ready {
        "ready".to_owned()
    } else {
        format!("not ready: {}", printable(&status.not_ready_reason))
    };
    let polling = if status.polling { ", polling" } else { "" };
    let mut text = format!(
        "the agent at {address}: logferry {}, up for {}, {state}{polling}\n\
         to {} project {} logstore {}\n\n",
        printable(&status.version),
        duration(status.uptime_seconds),
        printable(&status.endpoint),
        printable(&status.project),
        printable(&status.logstore),
    );
    push_table(&mut text, &rows.collect::<Vec<_>>(), "no file is being shipped");
    push_delivery(&mut text, status, now_unix);
    text
}

fn push_delivery(text: &mut String, status: &Status, now_unix: u64) {
    let (sender, checkpoint) = (&status.sender, &status.checkpoint);
    push_line(
        text,
        format_args!(
            "\ndelivery: {} lines in {} batches, last {}; {} in flight, {} waiting; last error: {}",
            sender.lines_delivered,
            sender.batches_delivered,
            ago(sender.delivered_unix, now_unix),
            sender.in_flight,
            sender.waiting,
            or_none(&sender.last_error),
        ),
    );
    push_line(
        text,
        format_args!(
            "checkpoint: saved {} in {}; last error: {}",
            ago(checkpoint.saved_unix, now_unix),
            printable(&status.state_dir),
            or_none(&checkpoint.error),
        ),
    );
    let parked = status.collector.batches_parked;
    if parked > 0 {
        push_line(
            text,
            format_args!(
                "set aside: {parked} batches were refused by the service; they are in {}/parked",
                printable(&status.state_dir),
            ),
        );
    }
}

/// The text for what the state directory holds.
#[must_use]
pub fn of_saved(saved: &Saved, now_unix: u64) -> String {
    let dir = printable(&saved.state_dir);
    let mut text = format!("{}\n", printable(&saved.no_agent_reason));
    if !saved.error.is_empty() {
        push_line(
            &mut text,
            format_args!(
                "the state directory {dir} cannot be read either: {}; name the agent's own with \
             LOGFERRY_STATE_DIR",
                printable(&saved.error),
            ),
        );
        return text;
    }
    push_line(
        &mut text,
        format_args!(
            "from the state directory {dir}: what was acknowledged when it was last saved\n"
        ),
    );
    let unknown = || "?".to_owned();
    let rows = saved.files.iter().map(|file| {
        [
            printable(&file.path),
            file.state.to_owned(),
            format!("{}:{}", file.device, file.inode),
            file.size.map_or_else(unknown, |size| size.to_string()),
            file.read_offset.to_string(),
            file.acked_offset.to_string(),
            file.lag_bytes.map_or_else(unknown, size),
            file.lag_seconds.map_or_else(unknown, duration),
            printable(&file.last_error),
        ]
    });
    push_table(&mut text, &rows.collect::<Vec<_>>(), "no file is known");
    let seen = saved.files.iter().map(|file| file.seen_unix).max().unwrap_or_default();
    push_line(
        &mut text,
        format_args!(
            "\ndelivery: not known without an agent; one last saw these files {}",
            ago(seen, now_unix)
        ),
    );
    for damaged in &saved.damaged {
        let (path, reason) = (printable(&damaged.path), printable(&damaged.reason));
        push_line(&mut text, format_args!("damaged: {path}: {reason}"));
    }
    text
}

fn push_line(text: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(text, "{line}").expect("writing to a string does not fail");
}

fn push_table(text: &mut String, rows: &[Row], if_empty: &str) {
    if rows.is_empty() {
        push_line(text, format_args!("{if_empty}"));
        return;
    }
    let head = COLUMNS.map(str::to_owned);
    let lines = || std::iter::once(&head).chain(rows);
    let widths: [usize; 9] = std::array::from_fn(|column| {
        lines().map(|row| row[column].chars().count()).max().unwrap_or_default()
    });
    for row in lines() {
        let cells: [String; 9] = std::array::from_fn(|column| {
            let (cell, width) = (&row[column], widths[column]);
            if IS_NUMBER[column] { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
        });
        push_line(text, format_args!("{}", cells.join("  ").trim_end()));
    }
}

/// The text without control characters.
fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for letter in text.chars() {
        if letter.is_control() {
            shown.extend(letter.escape_default());
        } else {
            shown.push(letter);
        }
    }
    shown
}

fn or_none(error: &str) -> String {
    if error.is_empty() { "none".to_owned() } else { printable(error) }
}

/// Bytes in the unit that leaves one to four digits before the point.
fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let (mut whole, mut rest, mut unit) = (bytes / 1024, bytes % 1024, 0);
    while whole >= 1024 {
        (whole, rest, unit) = (whole / 1024, whole % 1024, unit + 1);
    }
    // Cut off, not rounded, so that 1023.99 MiB is not 1024.0 MiB.
    format!("{whole}.{} {}", rest * 10 / 1024, UNITS[unit])
}

/// Seconds with the two largest units that matter.
fn duration(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    if days > 0 {
        format!("{days}d{:02}h", hours % 24)
    } else if hours > 0 {
        format!("{hours}h{:02}m", minutes % 60)
    } else if minutes > 0 {
        format!("{minutes}m{:02}s", seconds % 60)
    } else {
        format!("{seconds}s")
    }
}

fn ago(unix: u64, now_unix: u64) -> String {
    if unix == 0 {
        return "never".to_owned();
    }
    format!("{} ago", duration(now_unix.saturating_sub(unix)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_well() {
        for (bytes, expected) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            ((1 << 20) - 1, "1023.9 KiB"),
            (100 << 20, "100.0 MiB"),
            (u64::MAX, "15.9 EiB"),
        ] {
            assert_eq!(size(bytes), expected);
        }
    }

    #[test]
    fn durations_read_well() {
        for (seconds, expected) in
            [(0, "0s"), (59, "59s"), (61, "1m01s"), (3660, "1h01m"), (90_000, "1d01h")]
        {
            assert_eq!(duration(seconds), expected);
        }
        assert_eq!(ago(0, 9), "never");
        assert_eq!(ago(9, 12), "3s ago");
        assert_eq!(ago(12, 9), "0s ago");
    }

    #[test]
    fn a_name_cannot_move_the_cursor_or_break_a_line() {
        assert_eq!(printable("/a\n\u{1b}[2J\u{9b}/ü 日"), "/a\\n\\u{1b}[2J\\u{9b}/ü 日");
    }

    #[test]
    fn columns_line_up() {
        let mut text = String::new();
        let row = |path: &str, number: &str, error: &str| -> Row {
            let mut row: Row = std::array::from_fn(|_| number.to_owned());
            row[0] = path.to_owned();
            row[8] = error.to_owned();
            row
        };

        push_table(&mut text, &[row("/ü", "1", "bad"), row("/long/path", "22", "")], "");

        expect_test::expect![[r#"
            PATH        STATE  DEVICE:INODE  SIZE  READ  ACKED  LAG  WAITING  LAST ERROR
            /ü          1      1                1     1      1    1        1  bad
            /long/path  22     22              22    22     22   22       22
        "#]]
        .assert_eq(&text);
    }
}
