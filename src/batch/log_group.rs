//! The LogGroup encoder: appends protobuf straight from the borrowed line.
//!
//! Pure. Wire order as the service's own agents write it: every Log, then Topic, Source and the
//! LogTags (facts of the wire protocol, section 1). Equal to what prost makes of the same message:
//! the property test below holds it to that.
//!
//! ```text
//! Logs    0a len { 08 time(varint)  12 len { 0a 07 "content"  12 len value } }   once per line
//! Topic   1a len text        left out when empty
//! Source  22 len text        left out when empty
//! LogTag  32 len { 0a len key  12 len value }                                    once per tag
//! ```

/// Key of the only content of an unparsed line.
pub const CONTENT_KEY: &[u8] = b"content";

/// Times are lifted to this, so that their varint has five bytes and lengths are known beforehand.
/// It is a day in 1978: no clock of ours says less unless it is broken.
const TIME_MIN: u32 = 1 << 28;
const TIME_BYTES: usize = 5;

/// A group that is being appended to.
#[derive(Debug, Default)]
pub struct LogGroup {
    bytes: Vec<u8>,
    lines: u32,
}

impl LogGroup {
    /// An empty group in a used buffer.
    #[must_use]
    pub fn in_buffer(mut bytes: Vec<u8>) -> Self {
        bytes.clear();
        Self { bytes, lines: 0 }
    }

    /// Appends a line that was read at `time` (Unix seconds). *Cost*: one copy, no allocation once
    /// the buffer has grown.
    pub fn append(&mut self, time: u32, value: &[u8]) {
        let content = content_len(value.len());
        let mut head = Head { bytes: [0; HEAD_BYTES_MAX], len: 0 };
        head.tag(0x0a, log_len(content));
        head.tag(0x08, time.max(TIME_MIN) as usize);
        head.tag(0x12, content);
        head.tag(0x0a, CONTENT_KEY.len());
        head.bytes[head.len..head.len + CONTENT_KEY.len()].copy_from_slice(CONTENT_KEY);
        head.len += CONTENT_KEY.len();
        head.tag(0x12, value.len());
        self.bytes.reserve(head.len + value.len());
        self.bytes.extend_from_slice(&head.bytes[..head.len]);
        self.bytes.extend_from_slice(value);
        self.lines += 1;
    }

    /// Bytes that [`Self::append`] of a value of this length adds.
    #[must_use]
    pub fn appended_len(value_len: usize) -> usize {
        field_len(log_len(content_len(value_len)))
    }

    /// Bytes so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Bytes that its buffer takes.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// Whether there is no line in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lines == 0
    }

    /// Lines so far.
    #[must_use]
    pub fn lines(&self) -> u32 {
        self.lines
    }

    /// Ends the group with its trailer and the tag `__pack_id__`; returns the whole message.
    #[must_use]
    pub fn finish(mut self, trailer: &[u8], pack_id: &str) -> Vec<u8> {
        self.bytes.extend_from_slice(trailer);
        put_tag(&mut self.bytes, "__pack_id__", pack_id.as_bytes());
        self.bytes
    }
}

/// Five tags, each with a varint of at most ten bytes, and the key.
const HEAD_BYTES_MAX: usize = 5 * (1 + 10) + CONTENT_KEY.len();

/// What stands before a line's value, put together on the stack: to append it a field at a time takes
/// several times as long.
struct Head {
    bytes: [u8; HEAD_BYTES_MAX],
    len: usize,
}

impl Head {
    /// A tag of one byte and a varint.
    fn tag(&mut self, tag: u8, mut value: usize) {
        self.put(tag);
        while value >= 0x80 {
            self.put(value.to_le_bytes()[0] | 0x80);
            value >>= 7;
        }
        self.put(value.to_le_bytes()[0]);
    }

    fn put(&mut self, byte: u8) {
        self.bytes[self.len] = byte;
        self.len += 1;
    }
}

/// Encodes what follows the lines: topic, source and tags. The same for all groups of a file, so
/// it is made once.
#[must_use]
pub fn trailer(topic: &str, source: &str, tags: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    if !topic.is_empty() {
        put_bytes(&mut bytes, 0x1a, topic.as_bytes());
    }
    if !source.is_empty() {
        put_bytes(&mut bytes, 0x22, source.as_bytes());
    }
    for (key, value) in tags {
        put_tag(&mut bytes, key, value);
    }
    bytes
}

fn put_tag(bytes: &mut Vec<u8>, key: &str, value: &[u8]) {
    bytes.push(0x32);
    put_varint(bytes, field_len(key.len()) + field_len(value.len()));
    put_bytes(bytes, 0x0a, key.as_bytes());
    put_bytes(bytes, 0x12, value);
}

fn put_bytes(bytes: &mut Vec<u8>, tag: u8, value: &[u8]) {
    bytes.push(tag);
    put_varint(bytes, value.len());
    bytes.extend_from_slice(value);
}

fn put_varint(bytes: &mut Vec<u8>, mut value: usize) {
    while value >= 0x80 {
        bytes.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    bytes.push(value.to_le_bytes()[0]);
}

/// Length of a `Content` message with a value of this length.
fn content_len(value_len: usize) -> usize {
    field_len(CONTENT_KEY.len()) + field_len(value_len)
}

/// Length of a `Log` message with a content of this length.
fn log_len(content_len: usize) -> usize {
    1 + TIME_BYTES + field_len(content_len)
}

/// Length of a length-delimited field with its one-byte tag.
fn field_len(value_len: usize) -> usize {
    1 + varint_len(value_len) + value_len
}

fn varint_len(value: usize) -> usize {
    let bits = (usize::BITS - value.leading_zeros()).max(1);
    bits.div_ceil(7) as usize
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message as _;

    use super::*;
    use logferry_wire::sls_logs;

    fn with_prost(
        lines: &[(u32, Vec<u8>)],
        topic: &str,
        source: &str,
        tags: &[(String, Vec<u8>)],
    ) -> Vec<u8> {
        let content = |value: &Vec<u8>| sls_logs::log::Content {
            key: "content".to_owned(),
            value: value.clone(),
        };
        let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        sls_logs::LogGroup {
            logs: lines
                .iter()
                .map(|(time, value)| sls_logs::Log {
                    time: *time,
                    contents: vec![content(value)],
                    time_ns: None,
                })
                .collect(),
            category: None,
            topic: text(topic),
            source: text(source),
            machine_uuid: None,
            log_tags: tags
                .iter()
                .map(|(key, value)| sls_logs::LogTag { key: key.clone(), value: value.clone() })
                .collect(),
        }
        .encode_to_vec()
    }

    proptest! {
        #[test]
        fn equals_prost(
            lines in proptest::collection::vec(
                (TIME_MIN..=u32::MAX, prop_oneof![
                    proptest::collection::vec(any::<u8>(), 0..40),
                    proptest::collection::vec(any::<u8>(), 100..140),
                    proptest::collection::vec(Just(b'x'), 16_300..16_400),
                ]),
                0..8,
            ),
            topic in ".{0,5}",
            source in "[0-9.]{0,15}",
            tags in proptest::collection::vec((".{0,9}", proptest::collection::vec(any::<u8>(), 0..200)), 0..5),
            pack_id in "[0-9A-F]{1,16}-[0-9A-F]{1,4}",
        ) {
            let mut group = LogGroup::in_buffer(vec![1, 2, 3]);
            for (time, value) in &lines {
                let before = group.len();
                group.append(*time, value);
                prop_assert_eq!(group.len() - before, LogGroup::appended_len(value.len()));
            }
            let ours = group.finish(&trailer(&topic, &source, &tags), &pack_id);

            let mut tags = tags;
            tags.push(("__pack_id__".to_owned(), pack_id.into_bytes()));
            prop_assert_eq!(ours, with_prost(&lines, &topic, &source, &tags));
        }
    }

    #[test]
    fn lifts_the_time_of_a_broken_clock() {
        let mut group = LogGroup::default();
        group.append(0, b"x");
        assert_eq!(
            group.finish(&[], "1-0"),
            with_prost(
                &[(TIME_MIN, b"x".to_vec())],
                "",
                "",
                &[("__pack_id__".to_owned(), b"1-0".to_vec())]
            )
        );
    }
}
