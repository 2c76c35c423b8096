//! What rotates logs: by hand, as the tools do it, and with the tools themselves.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::special::skipped;
use super::{Pod, append_to};

/// `app.log.N`.
pub(crate) fn numbered(log: &Path, number: usize) -> PathBuf {
    let mut name = log.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

/// Makes room for `app.log.1`: each generation takes the next number; what would pass `keep` goes.
pub(crate) fn shift(log: &Path, keep: usize) {
    let _ = fs::remove_file(numbered(log, keep));
    for number in (1..keep).rev() {
        let _ = fs::rename(numbered(log, number), numbered(log, number + 1));
    }
}

/// Renames `app.log` to `app.log.1` and the older generations one further; `keep` of them stay.
pub(crate) fn rotate(log: &Path, keep: usize) {
    shift(log, keep);
    fs::rename(log, numbered(log, 1)).expect("the log is there");
}

/// Copies `app.log` to `app.log.1` and empties it, as logrotate's `copytruncate` does; the writer
/// keeps its descriptor.
pub(crate) fn copytruncate(log: &Path, keep: usize) {
    shift(log, keep);
    fs::copy(log, numbered(log, 1)).expect("the log can be copied");
    let file = File::options().write(true).open(log).expect("the log is there");
    file.set_len(0).expect("the log can be emptied");
}

/// `gzip FILE`: the file is gone, and beside it stands `FILE.gz`, whose path is returned.
pub(crate) fn compress(path: &Path) -> PathBuf {
    let status = Command::new("gzip").arg(path).status().expect("gzip runs");
    assert!(status.success(), "gzip {}", path.display());
    let mut name = path.as_os_str().to_owned();
    name.push(".gz");
    name.into()
}

/// What `gzip` makes of these bytes.
pub(crate) fn compressed(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = Command::new("gzip");
    let gzip = gzip.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut gzip = gzip.expect("gzip runs");
    let mut input = gzip.stdin.take().expect("it is a pipe");
    let output = std::thread::scope(|scope| {
        scope.spawn(move || input.write_all(bytes).expect("gzip reads"));
        gzip.wait_with_output().expect("gzip ends")
    });
    assert!(output.status.success(), "gzip");
    output.stdout
}

/// Lets the real logrotate rotate one log once. Says so aloud and returns `false` where it is not
/// installed.
pub(crate) fn logrotate(pod: &Pod, log: &Path, directives: &str) -> bool {
    let config = pod.path("logrotate.conf");
    fs::write(&config, format!("\"{}\" {{\n{directives}\n}}\n", log.display())).expect("writable");
    let mut command = Command::new("logrotate");
    command.arg("--force").arg("--state").arg(pod.path("logrotate.state")).arg(&config);
    match command.stdin(Stdio::null()).output() {
        Ok(output) => {
            let complaint = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success() && complaint.is_empty(), "logrotate: {complaint}");
            true
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            skipped("logrotate is not installed");
            false
        }
        Err(error) => panic!("logrotate: {error}"),
    }
}

/// Writes a compressed file of 12 MB of text, which is hardly to be compressed: not all of it is read at
/// once.
pub(crate) fn write_large_gz(pod: &mut Pod, gz: &Path) {
    let mut file = append_to(gz);
    let noise = || (0..500).map(|_| fastrand::alphanumeric()).collect::<String>();
    let lines = (0..24_000).map(|number| format!("line {number} {}", noise())).collect();
    let text = pod.ledger.note(&file, lines);
    file.write_all(&compressed(text.as_bytes())).unwrap();
}
