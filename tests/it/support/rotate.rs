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

/// How rotation names a generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Naming {
    /// `app.log.1`, the newest one.
    Numbered,
    /// `app.log-20261101`, each a day later.
    Dated,
    /// `app-2026-11-01.log`, each a day later.
    Inner,
}

impl Naming {
    /// Makes a directory, and room for the next generation of a log in it: where that goes.
    pub(crate) fn next(self, log: &Path, dir: &Path) -> PathBuf {
        fs::create_dir_all(dir).expect("the directory of old logs");
        let name = log.file_name().expect("a name").to_str().expect("a text");
        let (stem, extension) = name.rsplit_once('.').unwrap_or((name, ""));
        let place = |name: String| dir.join(name);
        let is_free = |path: &PathBuf| !path.exists() && !with_gz(path).exists();
        let days = 1..;
        let mut days = days.map(|day| match self {
            Self::Numbered => place(format!("{name}.{day}")),
            Self::Dated => place(format!("{name}-202611{day:02}")),
            Self::Inner => place(format!("{stem}-2026-11-{day:02}.{extension}")),
        });
        if self != Self::Numbered {
            return days.find(is_free).expect("there are enough days");
        }
        for number in (1..30).rev() {
            let [old, new] = [number, number + 1].map(|number| place(format!("{name}.{number}")));
            let _ = fs::rename(&old, &new);
            let _ = fs::rename(with_gz(&old), with_gz(&new));
        }
        place(format!("{name}.1"))
    }
}

/// A path with what gzip adds to it.
fn with_gz(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".gz");
    name.into()
}

/// Copies a log to a path and empties it, as `copytruncate` does; the writer keeps its descriptor.
pub(crate) fn copy_and_empty(log: &Path, copy: &Path) {
    fs::copy(log, copy).expect("the log can be copied");
    let file = File::options().write(true).open(log).expect("the log is there");
    file.set_len(0).expect("the log can be emptied");
}

/// Copies `app.log` to `app.log.1` and empties it, as logrotate's `copytruncate` does; the writer
/// keeps its descriptor.
pub(crate) fn copytruncate(log: &Path, keep: usize) {
    shift(log, keep);
    copy_and_empty(log, &numbered(log, 1));
}

/// `gzip FILE`: the file is gone, and beside it stands `FILE.gz`, whose path is returned.
pub(crate) fn compress(path: &Path) -> PathBuf {
    let status = Command::new("gzip").arg(path).status().expect("gzip runs");
    assert!(status.success(), "gzip {}", path.display());
    with_gz(path)
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
