//! Newlines, over-long lines, the unterminated last line.
//!
//! Pure, borrows everything. A line ends at `\n`, or at `\r\n`; a `\r` elsewhere belongs to the
//! line. An offset that does not stand at the start of a line is called *mid-line*: the first part
//! of that line has been delivered already (it was too long, or it was sent unterminated after its
//! quiet time). What remains of such a line is delivered too, unless nothing but the line end
//! remains.
//!
//! A run of NUL bytes where a line or a piece of one begins, followed by other bytes, is a *hole*:
//! what an app leaves that writes on at its old position after the file was truncated, or what a
//! power cut leaves. It is no text and is passed over. NULs with nothing behind them may be space
//! that was taken in advance: they are waited on. What may still be filled is not among the bytes that
//! come here: see [`crate::tail::filled`].

/// Fewer NUL bytes in a row than this are text.
pub const HOLE_BYTES_MIN: usize = 8;

/// A piece of a file that becomes one record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// The bytes to deliver, as written, without the line end. `None` where only the end of a line
    /// remained whose text has been delivered, and for a hole.
    pub value: Option<&'a [u8]>,
    /// How many bytes of the input it covers, line end included. Never 0.
    pub consumed: usize,
    /// The line goes on behind this piece.
    pub is_cut: bool,
    /// Whether these are NUL bytes that nobody wrote.
    pub is_hole: bool,
}

/// Bytes that must be at hand to decide about a line: the limit, and a line end behind it.
#[must_use]
pub const fn lookahead(line_bytes_max: usize) -> usize {
    line_bytes_max + 2
}

/// The first line of `bytes`, or `None` when more bytes are needed to know it.
///
/// A line of more than `line_bytes_max` bytes is cut there, or up to three bytes earlier so that
/// no UTF-8 character is torn, or before a hole. With [`lookahead`] bytes the answer is `None` only
/// if they are nothing but NULs.
#[must_use]
pub fn next_line(bytes: &[u8], is_mid_line: bool, line_bytes_max: usize) -> Option<Line<'_>> {
    if bytes.starts_with(&[0; HOLE_BYTES_MIN]) {
        let consumed = bytes.iter().position(|&byte| byte != 0)?;
        return Some(Line { value: None, consumed, is_cut: true, is_hole: true });
    }
    let window = &bytes[..bytes.len().min(lookahead(line_bytes_max))];
    if let Some(newline) = memchr::memchr(b'\n', window) {
        let text = &window[..newline];
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        if text.len() <= line_bytes_max {
            let value = (!text.is_empty() || !is_mid_line).then_some(text);
            return Some(Line { value, consumed: newline + 1, is_cut: false, is_hole: false });
        }
    } else if window.len() < lookahead(line_bytes_max) {
        return None;
    }
    let end = cut_before(window, line_bytes_max);
    let text = without_nuls(&window[..end]);
    let end = if end - text.len() < HOLE_BYTES_MIN { end } else { text.len() };
    Some(Line { value: Some(&window[..end]), consumed: end, is_cut: true, is_hole: false })
}

/// The unterminated rest of a file as a line, once it has been quiet for long enough.
///
/// A last `\r` is left for later: it may be half of a line end. So are NULs at the end: they may
/// still be written over. `None` if nothing else is there. Cut at `line_bytes_max` like any line.
#[must_use]
pub fn partial_line(bytes: &[u8], line_bytes_max: usize) -> Option<Line<'_>> {
    let text = unfinished(bytes);
    let is_long = text.len() > line_bytes_max;
    let end = if is_long { cut_before(text, line_bytes_max) } else { text.len() };
    let line = Line { value: Some(&text[..end]), consumed: end, is_cut: true, is_hole: false };
    (!text.is_empty()).then_some(line)
}

/// What is left before an offset at which a record ended when the bytes were read before: the same
/// pieces as then, although what stands behind them is out of sight. `None` if nothing is left.
#[must_use]
pub fn last_line(bytes: &[u8], line_bytes_max: usize) -> Option<Line<'_>> {
    if bytes.starts_with(&[0; HOLE_BYTES_MIN]) {
        let consumed = bytes.iter().position(|&byte| byte != 0).unwrap_or(bytes.len());
        return Some(Line { value: None, consumed, is_cut: true, is_hole: true });
    }
    let is_long = bytes.len() > line_bytes_max;
    let end = if is_long { cut_before(bytes, line_bytes_max) } else { bytes.len() };
    let text = without_nuls(&bytes[..end]);
    let end = if end - text.len() < HOLE_BYTES_MIN { end } else { text.len() };
    let line = Line { value: Some(&bytes[..end]), consumed: end, is_cut: true, is_hole: false };
    (!bytes.is_empty()).then_some(line)
}

/// Whether `bytes`, left at the end of a file, are nothing that would ever be sent by themselves.
#[must_use]
pub fn is_idle(bytes: &[u8]) -> bool {
    !bytes.is_empty() && unfinished(bytes).is_empty()
}

/// What of the bytes at the end of a file may be sent.
fn unfinished(bytes: &[u8]) -> &[u8] {
    let text = without_nuls(bytes);
    text.strip_suffix(b"\r").unwrap_or(text)
}

/// `bytes` up to the last one that is not NUL.
#[must_use]
pub fn without_nuls(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
    &bytes[..end]
}

/// The largest index up to `at` that does not tear a UTF-8 character; `at` if that is not UTF-8.
fn cut_before(bytes: &[u8], at: usize) -> usize {
    let is_continuation = |index: usize| bytes[index] & 0b1100_0000 == 0b1000_0000;
    if !is_continuation(at) {
        return at;
    }
    let lead = (at.saturating_sub(3)..at).rev().find(|&index| !is_continuation(index));
    match lead {
        Some(lead) if lead > 0 && bytes[lead] >= 0b1100_0000 => lead,
        _ => at,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// All records of `file`, read in chunks that end at the given sizes, as the reader would.
    fn records(file: &[u8], sizes: &[usize], line_bytes_max: usize) -> (Vec<Vec<u8>>, usize) {
        let mut out = Vec::new();
        let (mut offset, mut is_mid_line) = (0, false);
        for &size in sizes.iter().chain([&file.len()]) {
            let size = size.min(file.len()).max(offset);
            while let Some(line) = next_line(&file[offset..size], is_mid_line, line_bytes_max) {
                out.extend(line.value.map(<[u8]>::to_vec));
                offset += line.consumed;
                is_mid_line = line.is_cut;
            }
        }
        (out, offset)
    }

    fn check(file: &str, line_bytes_max: usize, expected: &[&str]) {
        let (found, _) = records(file.as_bytes(), &[], line_bytes_max);
        let found: Vec<&str> = found.iter().map(|line| str::from_utf8(line).unwrap()).collect();
        assert_eq!(found, expected, "{file:?} at {line_bytes_max}");
    }

    #[test]
    fn ends_a_line_at_lf_and_crlf_only() {
        check("a\nb\r\nc\rd\n\n\r\ne", 9, &["a", "b", "c\rd", "", ""]);
    }

    #[test]
    fn cuts_long_lines_without_dropping_a_byte() {
        check("abcdefg\nh\n", 3, &["abc", "def", "g", "h"]);
        check("abcdef\nh\n", 3, &["abc", "def", "h"]);
        check("abcdef\r\nh\n", 3, &["abc", "def", "h"]);
        check("abc\r\n", 3, &["abc"]);
        check("ab\r\r\n", 3, &["ab\r"]);
        check("abc\rd\n", 3, &["abc", "\rd"]);
    }

    #[test]
    fn does_not_tear_characters() {
        check("aä\nxää\n", 2, &["a", "ä", "x", "ä", "ä"]);
        check("日本\n", 4, &["日", "本"]);
    }

    #[test]
    fn cuts_bytes_that_are_no_text_at_the_limit() {
        let (found, _) = records(&[0x80; 7], &[], 3);
        assert_eq!(found, [vec![0x80; 3]]);
    }

    #[test]
    fn waits_for_the_rest_of_a_line() {
        assert_eq!(next_line(b"abc", false, 9), None);
        assert_eq!(next_line(b"", false, 9), None);
        assert_eq!(next_line(b"abc\r", false, 3), None);
    }

    #[test]
    fn passes_over_holes_and_keeps_other_nuls() {
        let hole = "\0".repeat(HOLE_BYTES_MIN);
        check(&format!("a\n{hole}\0b\n"), 99, &["a", "b"]);
        check(&format!("a\n{hole}\nb\n"), 99, &["a", "b"]);
        check(&format!("a{hole}b\n"), 99, &[&format!("a{hole}b")]);
        check("\0a\0\0b\n", 99, &["\0a\0\0b"]);
        check(&format!("abc{hole}def\n"), 11, &["abc", "def"]);
        check(&hole, 3, &[]);
    }

    #[test]
    fn waits_for_what_stands_behind_nuls() {
        assert_eq!(next_line(&[0; 99], false, 9), None);
        assert_eq!(partial_line(&[0; 99], 9), None);
        assert_eq!(partial_line(b"ab\r\0\0\0", 9).unwrap().value, Some(&b"ab"[..]));
    }

    /// One byte more than the limit is too little to know whether a line end follows.
    #[test]
    fn an_unfinished_line_is_cut_at_the_limit_too() {
        assert_eq!(next_line(b"abcd", false, 3), None);
        assert_eq!(partial_line(b"abcd", 3).unwrap().value, Some(&b"abc"[..]));
        assert_eq!(partial_line("abä".as_bytes(), 3).unwrap().value, Some(&b"ab"[..]));
    }

    #[test]
    fn swallows_the_line_end_behind_a_partial_line() {
        let line = partial_line(b"abc\r", 9).unwrap();
        assert_eq!((line.value, line.consumed, line.is_cut), (Some(&b"abc"[..]), 3, true));
        let end = next_line(b"\r\nnext\n", true, 9).unwrap();
        assert_eq!((end.value, end.consumed), (None, 2));
        assert_eq!(partial_line(b"\r", 9), None);
    }

    /// All pieces of `file`, holes too, with what is left at its end taken for whole if it is said so.
    fn pieces(file: &[u8], is_range_end: bool, start: usize) -> Vec<(Option<Vec<u8>>, usize)> {
        let (mut out, mut offset) = (Vec::new(), start);
        let mut is_mid_line = start > 0 && file[start - 1] != b'\n';
        loop {
            let left = &file[offset..];
            let line = next_line(left, is_mid_line, 8);
            let Some(line) = line.or_else(|| last_line(left, 8).filter(|_| is_range_end)) else {
                return out;
            };
            offset += line.consumed;
            out.push((line.value.map(<[u8]>::to_vec), offset));
            is_mid_line = line.is_cut;
        }
    }

    proptest! {
        /// From the end of any piece to that of any other the same pieces come out, although what
        /// follows is cut off.
        #[test]
        fn a_range_makes_the_same_pieces_again(
            file in proptest::collection::vec(prop_oneof![Just(b'\n'), Just(b'\r'), Just(b'a'), Just(0xc3), Just(0xa4), Just(0), Just(0), Just(0), Just(0)], 0..80),
            ends in any::<(proptest::sample::Index, proptest::sample::Index)>(),
        ) {
            let whole = pieces(&file, false, 0);
            if !whole.is_empty() {
                let (one, other) = (ends.0.index(whole.len()), ends.1.index(whole.len()));
                let (from, to) = (one.min(other), one.max(other));
                let again = pieces(&file[..whole[to].1], true, whole[from].1);
                prop_assert_eq!(&again, &whole[from + 1..=to]);
            }
        }

        /// Splitting is the same whatever the reads were, and joins back to the file.
        #[test]
        fn chunking_changes_nothing(
            file in proptest::collection::vec(prop_oneof![Just(b'\n'), Just(b'\r'), Just(b'a'), Just(0xc3), Just(0xa4), Just(0), Just(0), Just(0), Just(0)], 0..60),
            mut sizes in proptest::collection::vec(0_usize..60, 0..6),
            line_bytes_max in 8_usize..14,
        ) {
            sizes.sort_unstable();
            let (whole, end) = records(&file, &[], line_bytes_max);
            prop_assert_eq!(&records(&file, &sizes, line_bytes_max), &(whole.clone(), end));
            for line in &whole {
                prop_assert!(line.len() <= line_bytes_max && !line.contains(&b'\n'));
            }
            let is_text = |byte: &&u8| ![b'\n', b'\r', 0].contains(*byte);
            let written: usize = file[..end].iter().filter(is_text).count();
            let found: usize = whole.iter().flatten().filter(is_text).count();
            prop_assert_eq!(written, found);
        }
    }
}
