//! The checkpoint file of logtail, the agent that this one replaces.
//!
//! Pure: bytes in, entries out. One JSON object, as the 1.x agents and their successor write it;
//! what only the successor writes (`resolved_file_name`) may be missing.
//!
//! ```text
//! {"version": 200,
//!  "check_point": {                              null where there is no file
//!    "<path>*<device>*<inode>*<config>": {
//!      "file_name": "/share/logs/app.log",       as configured
//!      "resolved_file_name": "…",                links resolved, if it was a link
//!      "real_file_name": "…",                    where it was last, after a rotation for example
//!      "dev": 2049, "inode": 1311,
//!      "offset": "123456",                       a string; everything below was read
//!      "sig_size": 1024, "sig_hash": 8932160646779697652,
//!      …}}}
//! ```
//!
//! The signature is the low half of MurmurHash3 (x64_128) over the first `sig_size` bytes of the
//! file, at most 1024 and never past the first NUL.

use std::collections::HashSet;
use std::path::PathBuf;

use serde_json::{Map, Value};

use super::murmur3;

const SIGNATURE_SEED: u32 = 0xdead_beaf;
/// Most bytes that a signature covers.
pub const SIGNATURE_BYTES_MAX: usize = 1024;
/// First version of another format, as logtail itself has it.
const VERSION_END: u64 = 10_000;

/// How far logtail had read one file, and how it knew it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Path as configured, links not resolved.
    pub path: PathBuf,
    /// Where the file may be, the most likely place first. Absolute, never empty.
    pub places: Vec<PathBuf>,
    /// Device number, as logtail's container counts.
    pub device: Option<u64>,
    /// Inode number.
    pub inode: u64,
    /// Offset below which logtail has read every byte.
    pub offset: u64,
    /// The signature of the file's first bytes; `None` where the file had none yet.
    pub signature: Option<Signature>,
}

/// A hash of the first bytes of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signature {
    /// How many bytes are covered: from 1 to [`SIGNATURE_BYTES_MAX`].
    pub len: u32,
    /// The low half of the hash of these bytes.
    pub hash: u64,
}

/// An entry that says too little, or makes no sense.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unusable {
    /// The file it is about, or else the name of the entry.
    pub name: String,
    /// What is wrong with it.
    pub reason: String,
}

/// Why bytes are no checkpoint file of logtail.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// The bytes are no JSON: cut off, or something else.
    #[error("it is no JSON from line {line}, column {column} on")]
    Json {
        /// Line of the first mistake, counted from 1.
        line: usize,
        /// Column of the first mistake, counted from 1.
        column: usize,
    },
    /// The bytes are JSON of something else.
    #[error("it is JSON without the object `check_point`")]
    Other,
    /// The version is of a format that is not known.
    #[error("its version is {0}, and versions below {VERSION_END} are known")]
    Version(u64),
}

impl Signature {
    /// The signature that logtail gives a file that begins with `bytes`; `None` where there is
    /// nothing to cover.
    #[must_use]
    pub fn of_head(bytes: &[u8]) -> Option<Self> {
        let bytes = &bytes[..bytes.len().min(SIGNATURE_BYTES_MAX)];
        let end = memchr::memchr(0, bytes).unwrap_or(bytes.len());
        let len = u32::try_from(end).ok().filter(|&len| len > 0)?;
        Some(Self { len, hash: hash(&bytes[..end]) })
    }

    /// Whether `bytes` begin as the covered ones did. Too few bytes never match.
    #[must_use]
    pub fn matches_start_of(self, bytes: &[u8]) -> bool {
        let covered = bytes.get(..self.len as usize);
        covered.is_some_and(|bytes| memchr::memchr(0, bytes).is_none() && hash(bytes) == self.hash)
    }
}

fn hash(bytes: &[u8]) -> u64 {
    murmur3::x64_128(bytes, SIGNATURE_SEED)[0]
}

/// The entries of a checkpoint file, in the order of their names. Names that are no UTF-8 are read
/// with replacement characters: such a file is found by its inode or not at all.
///
/// # Errors
/// If the bytes are no checkpoint file at all. What is wrong with one entry spoils no other.
pub fn parse(bytes: &[u8]) -> Result<Vec<Result<Entry, Unusable>>, FormatError> {
    let text = String::from_utf8_lossy(bytes);
    let json: Value = serde_json::from_str(&text)
        .map_err(|error| FormatError::Json { line: error.line(), column: error.column() })?;
    let entries = match json.get("check_point") {
        Some(Value::Object(entries)) => entries,
        Some(Value::Null) => &Map::new(),
        _ => return Err(FormatError::Other),
    };
    if let Some(version) = json.get("version").and_then(number).filter(|&at| at >= VERSION_END) {
        return Err(FormatError::Version(version));
    }
    Ok(entries.iter().map(|(name, entry)| entry_of(name, entry)).collect())
}

fn entry_of(name: &str, entry: &Value) -> Result<Entry, Unusable> {
    let path = |key| entry.get(key).and_then(Value::as_str).filter(|path| path.starts_with('/'));
    let file_name = path("file_name");
    let unusable = |reason: String| Unusable { name: file_name.unwrap_or(name).to_owned(), reason };
    let wrong = |key: &str, right: &str| match entry.get(key) {
        None => unusable(format!("its entry has no {key}")),
        Some(_) => unusable(format!("its {key} is not {right}")),
    };
    let whole = "a whole number from 0 on";
    let file_name = file_name.ok_or_else(|| wrong("file_name", "an absolute path"))?;
    let inode = entry.get("inode").and_then(number).ok_or_else(|| wrong("inode", whole))?;
    let offset = entry.get("offset").and_then(number).ok_or_else(|| wrong("offset", whole))?;
    let signature = signature_of(entry).map_err(unusable)?;

    let mut seen = HashSet::new();
    let places = [path("real_file_name"), path("resolved_file_name"), Some(file_name)];
    let places = places.into_iter().flatten().filter(|place| seen.insert(*place));
    Ok(Entry {
        path: file_name.into(),
        places: places.map(PathBuf::from).collect(),
        device: entry.get("dev").and_then(number),
        inode,
        offset,
        signature,
    })
}

/// The signature: as size and hash, or, in very old files, as the bytes themselves.
fn signature_of(entry: &Value) -> Result<Option<Signature>, String> {
    let Some(size) = entry.get("sig_size").filter(|size| !size.is_null()) else {
        let head = entry.get("sig").and_then(Value::as_str).unwrap_or_default();
        return Ok(Signature::of_head(head.as_bytes()));
    };
    let len = number(size).and_then(|size| u32::try_from(size).ok());
    let len = len
        .filter(|&len| len as usize <= SIGNATURE_BYTES_MAX)
        .ok_or_else(|| format!("its sig_size is not a whole number up to {SIGNATURE_BYTES_MAX}"))?;
    if len == 0 {
        return Ok(None);
    }
    let hash = entry.get("sig_hash").and_then(|hash| {
        // The same 64 bits, read as a signed number somewhere on the way.
        number(hash).or_else(|| hash.as_i64().map(i64::cast_unsigned))
    });
    let hash = hash.ok_or("it has a sig_size and no sig_hash that is a whole number")?;
    Ok(Some(Signature { len, hash }))
}

/// A whole number, written as one or as a string.
fn number(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A file as logtail 1.8 writes it: jsoncpp's styled text, keys in order.
    const CLASSIC: &str = r###"{
       "check_point" : {
          "/share/logs/app.log*2049*1311*##1.0##shop$app" : {
             "config_name" : "##1.0##shop$app",
             "container_stopped" : 0,
             "dev" : 2049,
             "file_name" : "/share/logs/app.log",
             "file_open" : 1,
             "idx_in_reader_array" : -2,
             "inode" : 1311,
             "last_force_read" : 0,
             "offset" : "123456",
             "real_file_name" : "/data/pod/logs/app.log.1",
             "sig" : "",
             "sig_hash" : 11944296022839773003,
             "sig_size" : 49,
             "update_time" : 1700000000
          }
       },
       "dir_check_point" : {
          "/share" : {"sub_dir" : ["/share/logs"], "update_time" : 1700000000}
       },
       "version" : 200
    }"###;

    fn classic() -> Entry {
        Entry {
            path: "/share/logs/app.log".into(),
            places: vec!["/data/pod/logs/app.log.1".into(), "/share/logs/app.log".into()],
            device: Some(2049),
            inode: 1311,
            offset: 123_456,
            signature: Some(Signature { len: 49, hash: 11_944_296_022_839_773_003 }),
        }
    }

    /// The classic entry with one field written otherwise, or left out.
    fn with(key: &str, value: Option<&str>) -> Result<Entry, Unusable> {
        let mut json: Value = serde_json::from_str(CLASSIC).unwrap();
        let entry = json["check_point"].as_object_mut().unwrap().values_mut().next().unwrap();
        match value {
            Some(text) => entry[key] = serde_json::from_str(text).unwrap(),
            None => drop(entry.as_object_mut().unwrap().remove(key)),
        }
        parse(json.to_string().as_bytes()).unwrap().remove(0)
    }

    #[test]
    fn understands_what_the_classic_agent_writes() {
        assert_eq!(parse(CLASSIC.as_bytes()), Ok(vec![Ok(classic())]));
    }

    #[test]
    fn understands_what_its_successor_adds() {
        let places = |value| with("resolved_file_name", Some(value)).unwrap().places;
        let (real, file) = ("/data/pod/logs/app.log.1", "/share/logs/app.log");
        let expected = [real, "/data/pod/logs/app.log", file].map(PathBuf::from);
        assert_eq!(places(r#""/data/pod/logs/app.log""#), expected);
        assert_eq!(places(r#""""#), [real, file].map(PathBuf::from), "it was no link");
        assert_eq!(places(r#""/share/logs/app.log""#), [real, file].map(PathBuf::from));
    }

    #[test]
    fn numbers_may_be_strings_and_strings_numbers() {
        for (key, value) in [("offset", "123456"), ("inode", "\"1311\""), ("dev", "\" 2049 \"")] {
            assert_eq!(with(key, Some(value)), Ok(classic()), "{key}");
        }
        let signature = |key, value| with(key, Some(value)).unwrap().signature;
        assert_eq!(signature("sig_hash", "\"11944296022839773003\""), classic().signature);
        assert_eq!(signature("sig_hash", "-6502448050869778613"), classic().signature);
        assert_eq!(signature("sig_size", "0"), None);
        assert_eq!(with("dev", None).unwrap().device, None);
    }

    #[test]
    fn an_entry_that_cannot_be_used_says_why() {
        for (key, value, reason) in [
            ("file_name", None, "has no file_name"),
            ("file_name", Some("\"app.log\""), "its file_name is not an absolute path"),
            ("file_name", Some("7"), "its file_name is not an absolute path"),
            ("inode", None, "has no inode"),
            ("inode", Some("-1"), "its inode is not a whole number"),
            ("offset", None, "has no offset"),
            ("offset", Some("\"-1\""), "its offset is not a whole number"),
            ("offset", Some("\"12.5\""), "its offset is not a whole number"),
            ("offset", Some("1e300"), "its offset is not a whole number"),
            ("offset", Some("null"), "its offset is not a whole number"),
            ("sig_size", Some("1025"), "its sig_size is not a whole number up to 1024"),
            ("sig_size", Some("-1"), "its sig_size is not"),
            ("sig_hash", None, "no sig_hash"),
            ("sig_hash", Some("\"x\""), "no sig_hash"),
        ] {
            let unusable = with(key, value).unwrap_err();
            assert!(unusable.reason.contains(reason), "{key} {value:?}: {}", unusable.reason);
            assert!(unusable.name.starts_with("/share/logs/app.log"), "{}", unusable.name);
        }
        let text = r#"{"check_point": {"a": 1, "b": null, "c": [], "d": {}}}"#;
        let entries = parse(text.as_bytes()).unwrap();
        assert_eq!(entries.iter().filter(|entry| entry.is_err()).count(), 4);
    }

    #[test]
    fn what_is_no_checkpoint_file_is_refused() {
        for (text, expected) in [
            ("", FormatError::Json { line: 1, column: 0 }),
            ("{\"check_point\": {\n  \"a\"", FormatError::Json { line: 2, column: 5 }),
            ("LFCKPT\r\n", FormatError::Json { line: 1, column: 1 }),
            ("[]", FormatError::Other),
            ("{}", FormatError::Other),
            (r#"{"check_point": []}"#, FormatError::Other),
            (r#"{"version": 20000, "check_point": {}}"#, FormatError::Version(20_000)),
        ] {
            assert_eq!(parse(text.as_bytes()), Err(expected), "{text:?}");
        }
        assert!(parse("[".repeat(100_000).as_bytes()).is_err(), "and no overflow");
    }

    #[test]
    fn an_agent_without_files_is_no_mistake() {
        assert_eq!(parse(br#"{"check_point": null, "version": 200}"#), Ok(vec![]));
        assert_eq!(parse(br#"{"check_point": {}}"#), Ok(vec![]));
    }

    #[test]
    fn a_name_that_is_no_utf_8_spoils_nothing() {
        let text = CLASSIC.replace("app.log.1", "app.XXX");
        let at = text.find("XXX").unwrap();
        let mut bytes = text.into_bytes();
        bytes[at] = 0xff;
        let entry = parse(&bytes).unwrap().remove(0).unwrap();
        assert_eq!(entry.places[0], PathBuf::from("/data/pod/logs/app.\u{fffd}XX"));
    }

    /// The hashes are those of the Python package `mmh3` with logtail's seed.
    #[test]
    fn a_signature_covers_the_first_bytes_up_to_the_first_nul() {
        let line = "2026-11-22T14:45:00 INFO the first line of a log\n";
        let signature = |bytes: &[u8]| Signature::of_head(bytes).map(|one| (one.len, one.hash));
        assert_eq!(signature(line.as_bytes()), Some((49, 11_944_296_022_839_773_003)));
        assert_eq!(signature(b"one\n\0two\n"), Some((4, 5_542_477_762_759_033_885)));
        let long = b"0123456789abcdef".repeat(99);
        assert_eq!(signature(&long), Some((1024, 8_932_160_646_779_697_652)));
        assert_eq!(signature(b""), None);
        assert_eq!(signature(b"\0one\n"), None);
    }

    #[test]
    fn a_signature_matches_a_file_that_grew_and_no_other() {
        let signature = Signature::of_head(b"one\n").unwrap();
        assert!(signature.matches_start_of(b"one\n"));
        assert!(signature.matches_start_of(b"one\ntwo\n"));
        assert!(signature.matches_start_of(b"one\n\0"));
        assert!(!signature.matches_start_of(b"one"));
        assert!(!signature.matches_start_of(b"two\none\n"));
        assert!(!Signature { len: 4, hash: hash(b"on\0\n") }.matches_start_of(b"on\0\n"));
    }

    #[test]
    fn very_old_files_hold_the_first_bytes_themselves() {
        let text = CLASSIC.replace(r#""sig" : "","#, r#""sig" : "one\n","#);
        let mut json: Value = serde_json::from_str(&text).unwrap();
        let entry = json["check_point"].as_object_mut().unwrap().values_mut().next().unwrap();
        entry.as_object_mut().unwrap().retain(|key, _| !key.starts_with("sig_"));
        let entry = parse(json.to_string().as_bytes()).unwrap().remove(0).unwrap();
        assert_eq!(entry.signature, Signature::of_head(b"one\n"));
    }

    proptest! {
        #[test]
        fn never_panics(
            at in any::<proptest::sample::Index>(),
            bytes in proptest::collection::vec(any::<u8>(), 0..20),
        ) {
            let mut text = CLASSIC.as_bytes().to_vec();
            let at = at.index(text.len());
            let end = (at + bytes.len()).min(text.len());
            text.splice(at..end, bytes.iter().copied());
            let _ = parse(&text);
            prop_assert!(parse(&bytes).is_err());
        }
    }
}
