//! `logferry parked show ID`: all that is known of a piece, and its lines.
//!
//! Lines are escaped, so that what an app has written cannot move the cursor of who looks at it.

use std::io::Write;

use super::pieces::{Error, Pieces};
use crate::base::clock;
use crate::base::escape;
use crate::batch::rewrite;
use crate::checkpoint::parked::{Header, Piece};
use crate::command::table::{ago, printable, size};
use logferry_wire::sls_logs::{Log, LogGroup};

/// Prints a piece.
pub(super) fn run(pieces: &Pieces<'_>, id: &str, out: &mut impl Write) -> Result<(), Error> {
    let damaged = |reason: &str| Error::Damaged {
        dir: pieces.dir.to_owned(),
        id: id.to_owned(),
        reason: reason.to_owned(),
    };
    let read = pieces.parked.read(id).map_err(|reason| damaged(&reason))?;
    let piece = read.ok_or_else(|| pieces.unknown(id))?;
    print_header(id, &piece, out)?;
    let group = rewrite::opened(&piece.batch);
    print_records(&group.ok_or_else(|| damaged("its records cannot be read"))?, out)
}

fn print_header(id: &str, piece: &Piece, out: &mut impl Write) -> Result<(), Error> {
    let Header { project, logstore, endpoint, collection, path, start, end, .. } = &piece.header;
    let Header { first, lines, raw_bytes, compression, code, message, parked_unix, .. } =
        &piece.header;
    let reason = match (code.as_str(), message.as_str()) {
        ("", "") => "somebody between here and the service refused its size".to_owned(),
        (code, message) => format!("{code}: {message}"),
    };
    let set_aside = ago(*parked_unix, clock::wall().as_secs());
    for (name, value) in [
        ("id", id.to_owned()),
        ("set aside", format!("{set_aside} (Unix time {parked_unix})")),
        ("refused with", reason),
        ("meant for", format!("project {project}, logstore {logstore}, {endpoint}")),
        ("collection", collection.clone()),
        ("file", path.clone()),
        ("bytes", format!("{start} to {end}, of these the records from {first} on")),
        ("records", format!("{lines}, {}, sent as {compression}", size((*raw_bytes).into()))),
    ] {
        if !value.is_empty() {
            writeln!(out, "{name:<13} {}", printable(&value))?;
        }
    }
    Ok(())
}

fn print_records(group: &LogGroup, out: &mut impl Write) -> Result<(), Error> {
    for tag in &group.log_tags {
        writeln!(out, "{:<13} {}={}", "tag", printable(&tag.key), escaped(&tag.value))?;
    }
    writeln!(out)?;
    for Log { time, contents, .. } in &group.logs {
        for content in contents {
            let value = escaped(&content.value);
            match content.key.as_str() {
                "content" => writeln!(out, "{time} {value}")?,
                key => writeln!(out, "{time} {}={value}", printable(key))?,
            }
        }
    }
    Ok(())
}

/// Text as it is, but for what acts on a terminal, backslashes and what is no UTF-8.
fn escaped(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for letter in chunk.valid().chars() {
            if escape::is_more_than_seen(letter) || letter == '\\' {
                text.extend(letter.escape_default());
            } else {
                text.push(letter);
            }
        }
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_shown_without_what_could_harm_a_terminal() {
        let shown = escaped("日志 a\\b\t\u{1b}[2J".as_bytes());
        assert_eq!(shown, "日志 a\\\\b\\t\\u{1b}[2J");
        assert_eq!(escaped(b"\xff\0ok"), "\\xff\\u{0}ok");
    }
}
