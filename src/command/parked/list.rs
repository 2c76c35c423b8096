//! `logferry parked list`: a row for each piece, and a line for each that is damaged.

use std::io::{self, Write};

use serde::Serialize;

use super::pieces::{Error, Pieces};
use crate::base::clock;
use crate::checkpoint::parked::{self, Header};
use crate::command::table::{self, Column, ago, printable, push_line, push_table};

const COLUMNS: [Column; 6] = [
    Column::Words("ID"),
    Column::Words("SET ASIDE"),
    Column::Numbers("LINES"),
    Column::Words("CODE"),
    Column::Words("LOGSTORE"),
    Column::Words("PATH"),
];

/// The facts, in the form of `--json`.
#[derive(Serialize)]
struct Listed {
    dir: String,
    pieces: Vec<ListedPiece>,
    damaged: Vec<DamagedPiece>,
}

#[derive(Serialize)]
struct ListedPiece {
    id: String,
    #[serde(flatten)]
    header: Header,
}

#[derive(Serialize)]
struct DamagedPiece {
    id: String,
    reason: String,
}

/// Prints what there is.
pub(super) fn run(pieces: &Pieces<'_>, json: bool, out: &mut impl Write) -> Result<(), Error> {
    let listed = Listed::read(pieces)?;
    let text = if json {
        table::json(&listed).map_err(io::Error::from)?
    } else {
        text(&listed, clock::wall().as_secs())
    };
    Ok(out.write_all(text.as_bytes())?)
}

impl Listed {
    fn read(pieces: &Pieces<'_>) -> Result<Self, Error> {
        let dir = pieces.dir.join(parked::DIR).display().to_string();
        let mut listed = Self { dir, pieces: Vec::new(), damaged: Vec::new() };
        for id in pieces.ids()? {
            match pieces.parked.read(&id) {
                Ok(Some(piece)) => listed.pieces.push(ListedPiece { id, header: piece.header }),
                // Removed by somebody a moment ago.
                Ok(None) => {}
                Err(reason) => listed.damaged.push(DamagedPiece { id, reason }),
            }
        }
        Ok(listed)
    }
}

fn text(listed: &Listed, now_unix: u64) -> String {
    let mut text = String::new();
    let row = |piece: &ListedPiece| {
        let Header { code, project, logstore, path, lines, parked_unix, .. } = &piece.header;
        let code = if code.is_empty() { "-" } else { code };
        [
            piece.id.clone(),
            ago(*parked_unix, now_unix),
            lines.to_string(),
            printable(code),
            printable(&format!("{project}/{logstore}")),
            printable(path),
        ]
    };
    let rows: Vec<_> = listed.pieces.iter().map(row).collect();
    push_table(&mut text, COLUMNS, &rows, "nothing is set aside");
    for DamagedPiece { id, reason } in &listed.damaged {
        let (dir, reason) = (printable(&listed.dir), printable(reason));
        push_line(&mut text, format_args!("damaged: {dir}/{id}.batch: {reason}"));
    }
    text
}
