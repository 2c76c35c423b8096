//! MurmurHash3, the variant for 128 bits on 64-bit machines (x64_128) by Austin Appleby.
//!
//! Pure. It is here for the signatures in logtail's checkpoints and for nothing of our own.

const C1: u64 = 0x87c3_7b91_1142_53d5;
const C2: u64 = 0x4cf5_ad43_2745_937f;

/// The two halves of the hash, the low one first.
#[must_use]
pub(super) fn x64_128(bytes: &[u8], seed: u32) -> [u64; 2] {
    let (mut low, mut high) = (u64::from(seed), u64::from(seed));
    let (blocks, rest) = bytes.as_chunks::<16>();
    for block in blocks {
        let (first, second) = words(block);
        low = (low ^ mix_low(first)).rotate_left(27).wrapping_add(high);
        low = low.wrapping_mul(5).wrapping_add(0x52dc_e729);
        high = (high ^ mix_high(second)).rotate_left(31).wrapping_add(low);
        high = high.wrapping_mul(5).wrapping_add(0x3849_5ab5);
    }
    // Zeroes change nothing: the mix of 0 is 0.
    let mut last = [0; 16];
    last[..rest.len()].copy_from_slice(rest);
    let (first, second) = words(&last);
    low ^= mix_low(first);
    high ^= mix_high(second);

    let len = bytes.len() as u64;
    (low, high) = (low ^ len, high ^ len);
    low = low.wrapping_add(high);
    high = high.wrapping_add(low);
    (low, high) = (finish(low), finish(high));
    low = low.wrapping_add(high);
    [low, high.wrapping_add(low)]
}

fn words(block: &[u8; 16]) -> (u64, u64) {
    let both = u128::from_le_bytes(*block);
    #[expect(clippy::cast_possible_truncation, reason = "the halves are asked for")]
    (both as u64, (both >> 64) as u64)
}

fn mix_low(word: u64) -> u64 {
    word.wrapping_mul(C1).rotate_left(31).wrapping_mul(C2)
}

fn mix_high(word: u64) -> u64 {
    word.wrapping_mul(C2).rotate_left(33).wrapping_mul(C1)
}

fn finish(mut word: u64) -> u64 {
    word = (word ^ (word >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    word = (word ^ (word >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    word ^ (word >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples in the documentation of the Python package `mmh3`, and the empty string.
    #[test]
    fn gives_what_others_give() {
        for (text, seed, expected) in [
            ("", 0, [0, 0]),
            ("", 1, [0x4610_abe5_6eff_5cb5, 0x5162_2daa_78f8_3583]),
            ("foo", 0, [16_316_970_633_193_145_697, 9_128_664_383_759_220_103]),
            (
                "foo",
                42,
                [
                    (-840_311_307_571_801_102_i64).cast_unsigned(),
                    (-6_739_155_424_061_121_879_i64).cast_unsigned(),
                ],
            ),
        ] {
            assert_eq!(x64_128(text.as_bytes(), seed), expected, "{text:?} with {seed}");
        }
    }

    /// The verification of SMHasher, the author's own test suite: all lengths up to 255 with
    /// another seed each, and the hash of all these hashes.
    #[test]
    fn gives_the_verification_value_of_its_author() {
        let key: Vec<u8> = (0..=255).collect();
        let bytes = |hash: [u64; 2]| hash.map(u64::to_le_bytes).concat();
        let hashes: Vec<u8> =
            (0..256_u32).flat_map(|len| bytes(x64_128(&key[..len as usize], 256 - len))).collect();
        assert_eq!(x64_128(&hashes, 0)[0] & 0xffff_ffff, 0x6384_ba69);
    }
}
