//! What must never be read: files with many distinctive lines, behind a beginning that anybody knows.
//!
//! They bear names that the patterns match, and names of what secrets are kept in; they lie as a
//! mounted Secret does (`name -> ..data/name`, `..data -> ..1`) or plainly.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;

/// In every line of a secret, and in nothing that the app can write.
pub(crate) const MARKER: &str = "SECRET-";
/// The files of a directory of secrets.
pub(crate) const NAMES: [&str; 7] =
    ["credentials.json", "tls.key", "app.log", "x.log", "x.log.1", "app.log.1.gz", "token.log"];
/// Where in such a directory they stand, each time all of them.
pub(crate) const BELOW: [&str; 3] = ["", "sub", "logs"];
/// Bytes at the beginning of a secret that the app may know.
const KNOWN_BYTES: usize = 1600;

/// A directory of secrets.
#[derive(Clone, Debug)]
pub(crate) struct Vault {
    /// What it is, in a word.
    pub(crate) kind: &'static str,
    pub(crate) dir: PathBuf,
    /// Its files lie as those of a mounted Secret.
    pub(crate) is_mounted: bool,
    /// How often it was written.
    version: u32,
}

impl Vault {
    /// Makes the directory, and writes its files.
    pub(crate) fn make(kind: &'static str, dir: PathBuf, is_mounted: bool) -> Self {
        fs::create_dir_all(&dir).expect("a directory of secrets");
        let mut vault = Self { kind, dir, is_mounted, version: 0 };
        vault.renew();
        vault
    }

    /// Writes all files anew: others have their names now, as when a Secret is rotated.
    pub(crate) fn renew(&mut self) {
        self.version += 1;
        let place = self.place();
        for below in BELOW {
            fs::create_dir_all(place.join(below)).expect("a directory of secrets");
            for name in NAMES {
                let path = place.join(below).join(name);
                let next = path.with_extension("next");
                fs::write(&next, text(self.kind, name, self.version)).expect("a secret");
                fs::rename(&next, &path).expect("a secret");
            }
        }
        if self.is_mounted {
            self.point_to(&place);
        }
    }

    /// Appends a line to one of the files.
    pub(crate) fn append(&self, name: &str) {
        let file = fs::OpenOptions::new().append(true).open(self.dir.join(name));
        let line = format!("{MARKER}{}-{name}-appended\n", self.kind);
        file.and_then(|mut file| file.write_all(line.as_bytes())).expect("a secret");
    }

    /// Where the files really are.
    pub(crate) fn place(&self) -> PathBuf {
        let version = if self.is_mounted { format!("..{}", self.version) } else { String::new() };
        self.dir.join(version)
    }

    fn point_to(&self, place: &Path) {
        let (data, next) = (self.dir.join("..data"), self.dir.join("..data.next"));
        symlink(place.file_name().expect("a version"), &next).expect("a link");
        fs::rename(&next, &data).expect("a link");
        for name in NAMES.iter().chain(&BELOW[1..]) {
            // It is there from the second time on.
            let _ = symlink(Path::new("..data").join(name), self.dir.join(name));
        }
        if self.version > 1 {
            let before = self.dir.join(format!("..{}", self.version - 1));
            fs::remove_dir_all(before).expect("the version before");
        }
    }
}

/// The bytes of a secret.
fn text(kind: &str, name: &str, version: u32) -> Vec<u8> {
    let mut bytes = known(name);
    for line in 0..8 {
        let end = if name == "token.log" && line == 7 { "" } else { "\n" };
        bytes.extend(format!("{MARKER}{kind}-{name}-{version}-{line}{end}").bytes());
    }
    if !name.ends_with(".gz") {
        return bytes;
    }
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(&bytes).and_then(|()| packed.finish()).expect("memory")
}

/// How a file of this name begins: so many bytes that the app may know and write itself.
pub(crate) fn known(name: &str) -> Vec<u8> {
    let (first, line) = match name {
        "credentials.json" => ("{\n", "  \"comment\": \"this file is made by the platform\",\n"),
        "tls.key" => {
            ("-----BEGIN PRIVATE KEY-----\n", "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSj\n")
        }
        "token.log" => ("eyJhbGciOiJSUzI1NiIsImtpZCI6I", "kFBQUFBQUFBQUFBQUFBQUFBQUFBQUFB"),
        _ => ("2026-11-30T00:00:00Z INFO the service begins\n", "2026-11-30T00:00:01Z INFO idle\n"),
    };
    let mut bytes = first.as_bytes().to_vec();
    while bytes.len() < KNOWN_BYTES {
        bytes.extend(line.bytes());
    }
    bytes
}
