//! Writes log lines at a rate, to try an agent under load:
//! `cargo run --example write_logs -- FILE LINES_PER_SECOND SECONDS [LINE_BYTES [ROTATE_EVERY]]`.
//!
//! Each line is numbered. With `ROTATE_EVERY`, the file is renamed to `FILE.1`, `FILE.2`… after so
//! many lines.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;
use std::time::Duration;

fn main() -> io::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |index: usize, default: u64| {
        args.get(index).and_then(|text| text.parse().ok()).unwrap_or(default)
    };
    let Some(path) = args.first().map(Path::new) else {
        eprintln!("usage: write_logs FILE LINES_PER_SECOND SECONDS [LINE_BYTES [ROTATE_EVERY]]");
        return Ok(());
    };
    let (rate, seconds) = (number(1, 1000), number(2, 10));
    let (line_bytes, rotate_every) = (number(3, 150), number(4, u64::MAX));

    let started = logferry::base::clock::now();
    let mut file = open(path)?;
    let mut written = 0;
    while written < rate * seconds {
        let elapsed = logferry::base::clock::now() - started;
        let due = (elapsed.as_millis() * u128::from(rate) / 1000).min(u128::from(rate * seconds));
        let mut text = String::new();
        while u128::from(written) < due {
            written += 1;
            let width = usize::try_from(line_bytes).unwrap_or(150);
            text.push_str(&format!("{:.<width$}\n", format!("line {written} ")));
            if written % rotate_every == 0 {
                file.write_all(text.as_bytes())?;
                text.clear();
                let number = written / rotate_every;
                fs::rename(path, format!("{}.{number}", path.display()))?;
                file = open(path)?;
            }
        }
        file.write_all(text.as_bytes())?;
        std::thread::park_timeout(Duration::from_millis(10));
    }
    println!("{written} lines written");
    Ok(())
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}
