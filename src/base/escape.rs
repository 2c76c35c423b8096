//! Text from outside, as it may stand at a terminal or in a line of a log.
//!
//! Level 0 and pure. Names of files, tags and errors of others may hold what moves a cursor, turns the
//! direction of the text, breaks a line or is not seen at all. Every output for people goes through
//! [`text`], every JSON output through [`json`].

use std::borrow::Cow;
use std::fmt::Write as _;

/// The text with an escape such as `\u{9b}` in the place of each letter that does more than be seen.
#[must_use]
pub fn text(text: &str) -> Cow<'_, str> {
    replace(text, |shown, letter| shown.extend(letter.escape_default()))
}

/// JSON with an escape such as `\u009b` for each such letter: the same values for programs, and
/// nothing that a terminal would act on.
#[must_use]
pub fn json(text: &str) -> Cow<'_, str> {
    // The line ends between its parts are its own; within a text JSON has none.
    replace(text, |shown, letter| match letter {
        '\n' => shown.push(letter),
        letter => {
            for unit in letter.encode_utf16(&mut [0; 2]) {
                write!(shown, "\\u{unit:04x}").expect("writing to a string does not fail");
            }
        }
    })
}

fn replace(text: &str, push_escape: impl Fn(&mut String, char)) -> Cow<'_, str> {
    if !text.contains(is_more_than_seen) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for letter in text.chars() {
        match is_more_than_seen(letter) {
            true => push_escape(&mut shown, letter),
            false => shown.push(letter),
        }
    }
    Cow::Owned(shown)
}

/// Whether a letter is a control character, changes how others are shown, ends a line, or cannot be
/// seen. Marks that are put on letters, as in a decomposed `ü`, are seen.
#[must_use]
pub fn is_more_than_seen(letter: char) -> bool {
    match letter {
        ' '..='~' => false,
        // Blank, and not for the standard library: letters and marks by their category.
        '\u{34f}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}' => {
            true
        }
        '\u{3164}' | '\u{ffa0}' | '\u{e0000}'..='\u{e0fff}' => true,
        // The ideographic blank is as wide as a letter.
        '\u{3000}' => false,
        // It escapes what is not printable: controls, formats (directions, joiners, marks of order),
        // separators, what is private or not assigned. Behind a letter it leaves marks as they are.
        letter => {
            let mut pair = [b'a'; 5];
            let end = 1 + letter.encode_utf8(&mut pair[1..]).len();
            std::str::from_utf8(&pair[..end]).is_ok_and(|pair| pair.escape_debug().count() > 2)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Controls of C0 and C1, directions, isolates, separators, what has no width, and tags.
    const ACTING: &[std::ops::RangeInclusive<char>] = &[
        '\0'..='\u{1f}',
        '\u{7f}'..='\u{9f}',
        '\u{ad}'..='\u{ad}',
        '\u{61c}'..='\u{61c}',
        '\u{180e}'..='\u{180e}',
        '\u{200b}'..='\u{200f}',
        '\u{2028}'..='\u{202e}',
        '\u{2060}'..='\u{206f}',
        '\u{feff}'..='\u{feff}',
        '\u{fff9}'..='\u{fffb}',
        '\u{e0001}'..='\u{e01ef}',
    ];

    fn acting() -> impl Iterator<Item = char> {
        ACTING.iter().cloned().flatten()
    }

    #[test]
    fn whatever_acts_on_a_terminal_is_escaped() {
        for letter in acting() {
            assert!(is_more_than_seen(letter), "{letter:?}");
            let shown = text(&format!("/a{letter}b.log")).into_owned();
            assert!(shown.starts_with("/a\\") && shown.is_ascii(), "{shown}");
        }
        assert_eq!(text("/a\n\u{9b}\u{202e}\u{2028}"), "/a\\n\\u{9b}\\u{202e}\\u{2028}");
    }

    #[test]
    fn what_people_write_stays_as_it_is() {
        for plain in [
            "/data/app-1/logs/app.log",
            "日志 ログ 로그 журнал سجل יומן लॉग u\u{308}ber 𝒳 🚢 a\\b \"c\" 'd' 全角\u{3000}",
        ] {
            assert!(matches!(text(plain), Cow::Borrowed(_)), "{}", text(plain));
            assert!(matches!(json(plain), Cow::Borrowed(_)), "{}", json(plain));
        }
    }

    #[test]
    fn json_keeps_its_values_and_its_lines() {
        let value: Vec<String> = acting().map(|letter| format!("/a{letter}b\"\\")).collect();
        let plain = serde_json::to_string_pretty(&value).unwrap();

        let shown = json(&plain);

        assert!(shown.is_ascii() && shown.lines().count() == plain.lines().count());
        assert_eq!(serde_json::from_str::<Vec<String>>(&shown).unwrap(), value);
    }

    proptest! {
        #[test]
        fn nothing_is_left_and_nothing_is_lost(value in ".*") {
            prop_assert!(!text(&value).contains(is_more_than_seen));
            let plain = serde_json::to_string(&value).unwrap();
            let shown = json(&plain).into_owned();
            prop_assert!(!shown.contains(is_more_than_seen));
            prop_assert_eq!(serde_json::from_str::<String>(&shown).unwrap(), value);
        }
    }
}
