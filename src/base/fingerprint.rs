//! A short check sum of some bytes of a file, to know it again.
//!
//! Level 0 and pure. Two of them identify a file beyond device and inode: one of its first bytes
//! (the *head*), one of the bytes just before an offset (the *tail*).

/// Most bytes of the head that are covered. Longer than any common prefix of two logs' first lines.
pub const HEAD_BYTES_MAX: usize = 1024;
/// Most bytes before an offset that are covered.
pub const TAIL_BYTES_MAX: usize = 256;

/// Length and CRC-32 of some bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Fingerprint {
    /// How many bytes are covered. 0 says nothing about the file and matches every one.
    pub len: u32,
    /// CRC-32 (IEEE) of them.
    pub crc32: u32,
}

impl Fingerprint {
    /// The fingerprint of all of `bytes`.
    ///
    /// # Panics
    /// If there are more than `u32::MAX` of them: callers bound them by the constants above.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let len = u32::try_from(bytes.len()).expect("fingerprints cover little");
        Self { len, crc32: crc32fast::hash(bytes) }
    }

    /// The fingerprint of the head of a file that begins with `bytes`.
    #[must_use]
    pub fn of_head(bytes: &[u8]) -> Self {
        Self::of(&bytes[..bytes.len().min(HEAD_BYTES_MAX)])
    }

    /// The fingerprint of the tail that ends with `bytes`.
    #[must_use]
    pub fn of_tail(bytes: &[u8]) -> Self {
        Self::of(&bytes[bytes.len().saturating_sub(TAIL_BYTES_MAX)..])
    }

    /// Whether the first `len` of `bytes` are the covered ones. Too few bytes never match.
    #[must_use]
    pub fn matches_start_of(self, bytes: &[u8]) -> bool {
        bytes.get(..self.len as usize).is_some_and(|bytes| crc32fast::hash(bytes) == self.crc32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_matches_everything() {
        assert!(Fingerprint::default().matches_start_of(b""));
        assert!(Fingerprint::default().matches_start_of(b"anything"));
    }

    #[test]
    fn matches_a_longer_file_with_the_same_start() {
        let head = Fingerprint::of_head(b"one\n");
        assert!(head.matches_start_of(b"one\ntwo\n"));
        assert!(!head.matches_start_of(b"two\none\n"));
        assert!(!head.matches_start_of(b"one"));
    }

    #[test]
    fn head_and_tail_are_bounded() {
        let bytes: Vec<u8> = (0..5000_u32).map(|n| (n % 251) as u8).collect();
        assert_eq!(Fingerprint::of_head(&bytes), Fingerprint::of(&bytes[..HEAD_BYTES_MAX]));
        assert_eq!(Fingerprint::of_tail(&bytes), Fingerprint::of(&bytes[5000 - TAIL_BYTES_MAX..]));
    }
}
