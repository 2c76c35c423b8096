//! A strict reading of a LogGroup: required fields, keys in UTF-8, times.
//!
//! prost lets proto2's required fields be missing, and stops at the first text that is not UTF-8
//! without saying which; the service does neither. So this walks the wire form itself. It keeps
//! nothing but sums.

use super::answer::Refusal;

/// What a LogGroup amounts to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Summary {
    /// Log entries.
    pub(super) lines: u32,
    /// Smallest time of a log, Unix seconds.
    pub(super) earliest: u32,
    /// Largest time of a log, Unix seconds.
    pub(super) latest: u32,
}

/// Walks the protobuf bytes of one LogGroup.
///
/// # Errors
/// `PostBodyInvalid` for what is no LogGroup or has no log, `InvalidEncoding` for text that is
/// not UTF-8, `InvalidKey` for an empty key. Values may be any bytes.
pub(super) fn summarise(raw: &[u8]) -> Result<Summary, Refusal> {
    let mut summary = Summary { lines: 0, earliest: u32::MAX, latest: 0 };
    for field in Fields(raw) {
        match field? {
            (1, Value::Bytes(log)) => {
                let time = log_time(log)?;
                summary.lines = summary.lines.saturating_add(1);
                summary.earliest = summary.earliest.min(time);
                summary.latest = summary.latest.max(time);
            }
            (2..=5, Value::Bytes(text)) => {
                utf8(text, "a text field of the LogGroup")?;
            }
            (6, Value::Bytes(tag)) => pair(tag, "LogTags")?,
            (1..=6, _) => return Err(invalid("a field of the LogGroup has the wrong wire type")),
            _ => {}
        }
    }
    match summary.lines {
        0 => Err(invalid("the LogGroup has no log")),
        _ => Ok(summary),
    }
}

fn log_time(log: &[u8]) -> Result<u32, Refusal> {
    let mut time = None;
    for field in Fields(log) {
        match field? {
            (1, Value::Varint(seconds)) => {
                time = Some(u32::try_from(seconds).map_err(|_| {
                    Refusal::new("InvalidTimestamp", format!("Time {seconds} is no 32-bit number"))
                })?);
            }
            (2, Value::Bytes(content)) => pair(content, "Contents")?,
            (4, Value::Fixed32(nanoseconds)) if nanoseconds < 1_000_000_000 => {}
            (4, Value::Fixed32(nanoseconds)) => {
                return Err(Refusal::new(
                    "InvalidTimestamp",
                    format!("Time_ns {nanoseconds} is a second or more"),
                ));
            }
            (1 | 2 | 4, _) => return Err(invalid("a field of a Log has the wrong wire type")),
            _ => {}
        }
    }
    time.ok_or_else(|| invalid("a Log has no Time"))
}

fn pair(message: &[u8], place: &str) -> Result<(), Refusal> {
    let (mut key, mut value) = (None, None);
    for field in Fields(message) {
        match field? {
            (1, Value::Bytes(bytes)) => key = Some(utf8(bytes, "a Key")?),
            (2, Value::Bytes(bytes)) => value = Some(bytes),
            (1 | 2, _) => return Err(invalid("a Key or Value has the wrong wire type")),
            _ => {}
        }
    }
    match (key, value) {
        (Some(""), _) => {
            Err(Refusal::new("InvalidKey", format!("an entry of {place} has an empty Key")))
        }
        (Some(_), Some(_)) => Ok(()),
        (None, _) => Err(invalid(&format!("an entry of {place} has no Key"))),
        (_, None) => Err(invalid(&format!("an entry of {place} has no Value"))),
    }
}

fn utf8<'a>(bytes: &'a [u8], what: &str) -> Result<&'a str, Refusal> {
    std::str::from_utf8(bytes)
        .map_err(|_| Refusal::new("InvalidEncoding", format!("{what} is not UTF-8")))
}

fn invalid(message: &str) -> Refusal {
    Refusal::new("PostBodyInvalid", message)
}

/// The value of a field, by wire type.
#[derive(Clone, Copy, Debug)]
enum Value<'a> {
    Varint(u64),
    Fixed64,
    Bytes(&'a [u8]),
    Fixed32(u32),
}

/// The fields of a message, in order. Ends after the first error.
struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Value<'a>), Refusal>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            self.0 = &[];
        }
        Some(field.ok_or_else(|| invalid("the protobuf cannot be parsed")))
    }
}

impl<'a> Fields<'a> {
    fn field(&mut self) -> Option<(u64, Value<'a>)> {
        let tag = self.varint()?;
        let value = match tag & 7 {
            0 => Value::Varint(self.varint()?),
            1 => {
                self.take(8)?;
                Value::Fixed64
            }
            2 => {
                let length = usize::try_from(self.varint()?).ok()?;
                Value::Bytes(self.take(length)?)
            }
            5 => Value::Fixed32(u32::from_le_bytes(self.take(4)?.try_into().ok()?)),
            _ => return None,
        };
        (tag >> 3 != 0).then_some((tag >> 3, value))
    }

    fn varint(&mut self) -> Option<u64> {
        let mut number = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = *self.take(1)?.first()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }
}

#[cfg(test)]
mod unit {
    use prost::Message as _;

    use super::*;
    use logferry_wire::sls_logs::{Log, LogGroup, LogTag, log::Content};

    fn group() -> LogGroup {
        let content = Content { key: "content".to_owned(), value: b"\xff\0raw".to_vec() };
        let log = |time| Log { time, contents: vec![content.clone()], time_ns: Some(7) };
        LogGroup {
            logs: vec![log(20), log(10)],
            topic: Some("日志".to_owned()),
            log_tags: vec![LogTag { key: "k".to_owned(), value: b"v".to_vec() }],
            ..LogGroup::default()
        }
    }

    fn refused(raw: &[u8]) -> String {
        summarise(raw).unwrap_err().code.into_owned()
    }

    #[test]
    fn sums_up_what_prost_encodes() {
        let summary = summarise(&group().encode_to_vec()).unwrap();

        assert_eq!(summary, Summary { lines: 2, earliest: 10, latest: 20 });
    }

    #[test]
    fn refuses_every_cut_of_a_group_that_cuts_a_field() {
        let raw = group().encode_to_vec();
        for end in 0..raw.len() {
            let strict = summarise(&raw[..end]).is_ok();
            let lenient = LogGroup::decode(&raw[..end]).is_ok_and(|group| !group.logs.is_empty());
            assert_eq!(strict, lenient, "cut at {end}");
        }
    }

    #[test]
    fn refuses_missing_required_fields_and_bad_text() {
        for (raw, code) in [
            (&b""[..], "PostBodyInvalid"),
            (b"\x1a\x01t", "PostBodyInvalid"), // a topic, no log
            (b"\x0a\x00", "PostBodyInvalid"),  // a log without Time
            (b"\x0a\x06\x08\x01\x12\x02\x12\x00", "PostBodyInvalid"), // no Key
            (b"\x0a\x07\x08\x01\x12\x03\x0a\x01k", "PostBodyInvalid"), // no Value
            (b"\x0a\x09\x08\x01\x12\x05\x0a\x01\xff\x12\x00", "InvalidEncoding"),
            (b"\x0a\x08\x08\x01\x12\x04\x0a\x00\x12\x00", "InvalidKey"),
            (b"\x0a\x02\x08\x01\x1a\x01\xff", "InvalidEncoding"), // topic
            (b"\x0a\x06\x08\xff\xff\xff\xff\x7f", "InvalidTimestamp"),
            (b"\x08\x01", "PostBodyInvalid"), // Logs as a number
            (b"\x00\x00", "PostBodyInvalid"), // field number 0
        ] {
            assert_eq!(refused(raw), code, "{raw:x?}");
        }
    }
}
