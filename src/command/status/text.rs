//! The status as text for people: a table of files, then delivery and checkpoint.
//!
//! Pure. Whatever comes from outside (paths, errors) is printed without control characters.

use std::net::SocketAddr;

use super::saved::Saved;
use crate::admin::status::Status;
use crate::base::report::FileSums;
use crate::command::table::{Column, ago, duration, printable, push_line, push_table, size};

const COLUMNS: [Column; 9] = [
    Column::Words("PATH"),
    Column::Words("STATE"),
    Column::Words("DEVICE:INODE"),
    Column::Numbers("SIZE"),
    Column::Numbers("READ"),
    Column::Numbers("ACKED"),
    Column::Numbers("LAG"),
    Column::Numbers("WAITING"),
    Column::Words("LAST ERROR"),
];

/// The text for what a running agent says.
#[must_use]
pub fn of_agent(status: &Status, address: SocketAddr, is_lagging: bool, now_unix: u64) -> String {
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
    let if_empty = if is_lagging { "no file lags behind" } else { "no file is being shipped" };
    if status.ready || status.draining || !status.files.is_empty() {
        push_table(&mut text, COLUMNS, &rows.collect::<Vec<_>>(), if_empty);
    } else {
        let reason = printable(&status.not_ready_reason);
        push_line(&mut text, format_args!("which files are shipped is not known yet: {reason}"));
    }
    text.push('\n');
    push_files(&mut text, status);
    if status.totals.left > 0 {
        let left = status.totals.left;
        push_line(
            &mut text,
            format_args!("left for later: {left} files more than fit in mem_usage_limit"),
        );
    }
    push_delivery(&mut text, status, now_unix);
    text
}

/// Where many files are listed, the last lines are what is seen.
fn push_files(text: &mut String, status: &Status) {
    for pattern in &status.patterns_without_files {
        push_line(text, format_args!("{}", printable(&pattern.to_string())));
    }
    let FileSums { active, rotated, deleted, saved, .. } = status.totals;
    let lagging = status.files.iter().filter(|file| file.lag_bytes > 0).count();
    if let (Some(worst), 1..) = (status.files.first(), lagging) {
        push_line(
            text,
            format_args!(
                "files: {}, of these {lagging} with a lag, the longest {} of {}; --lagging shows these \
                 only",
                active + rotated + deleted + saved,
                duration(worst.lag_seconds),
                printable(&worst.path),
            ),
        );
    }
}

fn push_delivery(text: &mut String, status: &Status, now_unix: u64) {
    let (sender, checkpoint) = (&status.sender, &status.checkpoint);
    push_line(
        text,
        format_args!(
            "delivery: {} lines in {} batches, last {}; {} in flight, {} waiting; last error: {}",
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
    if sender.held_whole > 0 {
        push_line(
            text,
            format_args!(
                "held up: {} batches, since connections break that carry so much, and with \
                 exactly_once none is halved: raise the limit of the proxy on the way",
                sender.held_whole,
            ),
        );
    }
    let parked = status.collector.batches_parked;
    if parked > 0 {
        push_line(
            text,
            format_args!(
                "set aside: {parked} refused by the service, in {}/parked: logferry parked list",
                printable(&status.state_dir),
            ),
        );
    }
}

/// The text for what the state directory holds.
#[must_use]
pub fn of_saved(saved: &Saved, is_lagging: bool, now_unix: u64) -> String {
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
    let if_empty = if is_lagging { "no file lags behind" } else { "no file is known" };
    push_table(&mut text, COLUMNS, &rows.collect::<Vec<_>>(), if_empty);
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

fn or_none(error: &str) -> String {
    if error.is_empty() { "none".to_owned() } else { printable(error) }
}
