//! What the app writes: lines that cannot be taken for one another, nor for a piece of one.

/// Shortest line that [`line`] can make, line end included.
pub(crate) const LINE_BYTES_MIN: usize = 16;

/// The text of a line of `bytes` bytes, line end not included: who wrote it, as which of all lines,
/// numbered words, and a check sum at its end where there is room.
pub(crate) fn line(seed: u64, node: usize, number: usize, bytes: usize) -> Vec<u8> {
    let mut text = format!("{number:06}.{node}.{seed}").into_bytes();
    text.truncate(bytes);
    let mut word = 0;
    while text.len() < bytes {
        word += 1;
        text.extend_from_slice(format!(" {number:06}-{word}").as_bytes());
    }
    text.truncate(bytes);
    if let Some(start) = bytes.checked_sub(9).filter(|&start| start > 2 * LINE_BYTES_MIN) {
        let sum = format!("~{:08x}", crc32fast::hash(&text[..start]));
        text[start..].copy_from_slice(sum.as_bytes());
    }
    text
}

/// Where a line may be cut so that both pieces, and every piece between two cuts, are unmistakable:
/// before its words, behind the first and before the check sum.
pub(crate) fn cuts(text: &[u8]) -> Vec<usize> {
    let end = text.len().saturating_sub(LINE_BYTES_MIN);
    (LINE_BYTES_MIN..end).filter(|&at| text[at] == b' ').collect()
}

#[test]
fn no_piece_of_a_line_is_a_piece_of_another() {
    let mut seen = std::collections::HashSet::new();
    for number in 0..40 {
        let text = line(7, number % 3, number, LINE_BYTES_MIN + 5 * number);
        assert_eq!(text.len(), LINE_BYTES_MIN + 5 * number);
        let mut ends = cuts(&text);
        ends.extend([0, text.len()]);
        ends.sort_unstable();
        for (index, &start) in ends.iter().enumerate() {
            for &end in &ends[index + 1..] {
                assert!(seen.insert(text[start..end].to_vec()), "{start}..{end} of {number}");
            }
        }
    }
}
