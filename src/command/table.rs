//! Tables, sizes and ages for people at a terminal, and JSON for programs.
//!
//! Level 0 and pure: values in, text out. What comes from outside (paths, errors) goes through
//! [`printable`], so that a file's name cannot move the cursor or break a table.

use std::fmt::Write as _;

use crate::base::escape;

/// The head of a column, and on which side its cells stand.
#[derive(Clone, Copy, Debug)]
pub enum Column {
    /// On the left.
    Words(&'static str),
    /// On the right.
    Numbers(&'static str),
}

/// Facts as indented JSON, with a line end.
///
/// # Errors
/// If they have no form in JSON.
pub fn json(facts: &impl serde::Serialize) -> serde_json::Result<String> {
    serde_json::to_string_pretty(facts).map(|text| escape::json(&text).into_owned() + "\n")
}

/// Appends a table, or `if_empty` where there is no row.
pub fn push_table<const N: usize>(
    text: &mut String,
    columns: [Column; N],
    rows: &[[String; N]],
    if_empty: &str,
) {
    if rows.is_empty() {
        push_line(text, format_args!("{if_empty}"));
        return;
    }
    let head = columns.map(|column| match column {
        Column::Words(name) | Column::Numbers(name) => name.to_owned(),
    });
    let lines = || std::iter::once(&head).chain(rows);
    let widths: [usize; N] = std::array::from_fn(|column| {
        lines().map(|row| row[column].chars().count()).max().unwrap_or_default()
    });
    for row in lines() {
        let cells: [String; N] = std::array::from_fn(|column| {
            let (cell, width) = (&row[column], widths[column]);
            match columns[column] {
                Column::Words(_) => format!("{cell:<width$}"),
                Column::Numbers(_) => format!("{cell:>width$}"),
            }
        });
        push_line(text, format_args!("{}", cells.join("  ").trim_end()));
    }
}

/// Appends a line.
pub fn push_line(text: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(text, "{line}").expect("writing to a string does not fail");
}

/// The text as it may stand at a terminal.
#[must_use]
pub fn printable(text: &str) -> String {
    escape::text(text).into_owned()
}

/// Bytes in the unit that leaves one to four digits before the point.
#[must_use]
pub fn size(bytes: u64) -> String {
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
#[must_use]
pub fn duration(seconds: u64) -> String {
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

/// How long ago a moment was; 0 is never.
#[must_use]
pub fn ago(unix: u64, now_unix: u64) -> String {
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
        let columns = [Column::Words("PATH"), Column::Numbers("SIZE"), Column::Words("LAST ERROR")];
        let row = |cells: [&str; 3]| cells.map(str::to_owned);
        let mut text = String::new();

        push_table(
            &mut text,
            columns,
            &[row(["/ü", "1", "bad"]), row(["/long/path", "22222", ""])],
            "",
        );

        expect_test::expect![[r#"
            PATH         SIZE  LAST ERROR
            /ü              1  bad
            /long/path  22222
        "#]]
        .assert_eq(&text);
    }

    #[test]
    fn a_table_without_rows_says_so() {
        let mut text = String::new();
        push_table(&mut text, [Column::Words("PATH")], &[], "no file is known");
        assert_eq!(text, "no file is known\n");
    }
}
