//! Numbers that are kept in `docs/performance`: a table of comma-separated values, and gnuplot's
//! drawing of it.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// A table that is being filled. Each row is written and printed at once.
pub(crate) struct Csv {
    name: &'static str,
    text: String,
}

impl Csv {
    pub(crate) fn new(name: &'static str, columns: &str) -> Self {
        println!("{}", columns.replace(',', "\t"));
        Self { name, text: format!("{columns}\n") }
    }

    /// `None` leaves a gap.
    pub(crate) fn row(&mut self, at: f64, values: &[Option<f64>]) {
        let mut row = round(at);
        for value in values {
            let _ = write!(row, ",{}", value.map_or_else(String::new, round));
        }
        println!("{}", row.replace(',', "\t"));
        self.text.push_str(&row);
        self.text.push('\n');
        fs::write(self.path("csv"), &self.text).expect("docs/performance can be written");
    }

    fn path(&self, extension: &str) -> PathBuf {
        let dir = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/performance"));
        dir.join(format!("{}.{extension}", self.name))
    }

    /// Draws it. Without gnuplot, says so, and how to do that later.
    pub(crate) fn draw(&self) {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/plot.gnuplot");
        let (csv, svg) = (self.path("csv"), self.path("svg"));
        let drawn = Command::new("gnuplot").arg("-c").arg(script).args([&csv, &svg]).status();
        if !drawn.is_ok_and(|status| status.success()) {
            let (csv, svg) = (csv.display(), svg.display());
            eprintln!("not drawn: install gnuplot, then gnuplot -c {script} {csv} {svg}");
        }
    }
}

/// Four digits that count.
fn round(value: f64) -> String {
    let digits = match value.abs() {
        size if size >= 1000.0 || value.fract() == 0.0 => 0,
        size if size >= 100.0 => 1,
        size if size >= 10.0 => 2,
        _ => 3,
    };
    format!("{value:.digits$}")
}
