//! `__pack_id__`: which groups belong to one stream of lines, and in which order.
//!
//! Pure. `<PREFIX>-<SEQ>`, both upper-case hexadecimal without leading zeros; the service's context
//! query follows a file's lines by it, so SEQ grows by one with each group of one stream. Source:
//! facts of the wire protocol, section 1.2.

/// The numbering of one stream.
#[derive(Debug)]
pub struct PackId {
    prefix: u64,
    next: u64,
}

impl PackId {
    /// A numbering from 0 of the stream that `source_id` names.
    #[must_use]
    pub fn new(source_id: &str) -> Self {
        Self { prefix: fnv1a_64_signed(source_id.as_bytes()), next: 0 }
    }

    /// The id of the next group.
    pub fn next_id(&mut self) -> String {
        let id = format!("{:X}-{:X}", self.prefix, self.next);
        self.next += 1;
        id
    }
}

/// FNV-1a with 64 bits, its bytes taken as signed: those from 0x80 are sign-extended before the
/// exclusive or, as the service's own agents do it.
fn fnv1a_64_signed(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        let extended = i64::from(byte.cast_signed()).cast_unsigned();
        (hash ^ extended).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_up_in_upper_case_hex() {
        let mut id = PackId::new("");
        assert_eq!(id.next_id(), "CBF29CE484222325-0");
        for _ in 1..10 {
            id.next_id();
        }
        assert_eq!(id.next_id(), "CBF29CE484222325-A");
    }

    #[test]
    fn hashes_ascii_as_published_and_sign_extends_the_rest() {
        assert_eq!(fnv1a_64_signed(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv1a_64_signed(b"foobar"), 0x8594_4171_f739_67e8);
        let basis: u64 = 0xcbf2_9ce4_8422_2325;
        assert_eq!(
            fnv1a_64_signed(&[0x80]),
            (basis ^ 0xffff_ffff_ffff_ff80).wrapping_mul(0x0100_0000_01b3)
        );
    }
}
