//! Whether a file name is what a rotation makes of another one.
//!
//! logrotate, logging libraries and shell scripts put a number or a date behind the name or in front
//! of its extension, and may compress what they have put away:
//!
//! ```text
//! app.log ─▶ app.log.1   app.log-20261122   app.log.2026-11-22T10:00:00   app.log.2.gz
//!            app.1.log   app-2026-11-22.log   app_2026-11-22.0.log.gz   app.log.gz
//! ```
//!
//! A name is a hint, never a proof: app-2.log may be the log of a second instance. Who acts on it
//! looks at the bytes too.

/// What stands between a name and its number or date.
const SEPARATORS: &[u8] = b".-_";
/// What stands within a date, each between two digits: `2026-11-22T10:00:00.123+08:00`.
const DATE_SEPARATORS: &[u8] = b"-_.:T+";
/// What a compressed file ends with.
const COMPRESSED: &[u8] = b".gz";

/// Whether `name` is the name of a rotated generation of the file `base`, in the same directory or
/// not. A file is no generation of itself.
#[must_use]
pub fn is_generation_of(name: &[u8], base: &[u8]) -> bool {
    if base.is_empty() {
        return false;
    }
    let plain = name.strip_suffix(COMPRESSED);
    if plain == Some(base) {
        return true;
    }
    let plain = plain.unwrap_or(name);
    is_stamped(plain, base, b"")
        || extension(base).is_some_and(|(stem, extension)| is_stamped(plain, stem, extension))
}

/// Whether `name` is `stem`, a separator, a number or date, and `extension`.
fn is_stamped(name: &[u8], stem: &[u8], extension: &[u8]) -> bool {
    let inner = name.strip_prefix(stem).and_then(|rest| rest.strip_suffix(extension));
    match inner {
        Some([separator, stamp @ ..]) => SEPARATORS.contains(separator) && is_stamp(stamp),
        Some([]) | None => false,
    }
}

/// A number, or digits with separators between them as in dates. `Z` may end it.
fn is_stamp(text: &[u8]) -> bool {
    let text = text.strip_suffix(b"Z").unwrap_or(text);
    let mut digits = text.split(|byte| DATE_SEPARATORS.contains(byte));
    digits.all(|part| !part.is_empty() && part.iter().all(u8::is_ascii_digit))
}

/// A name and its extension with the dot. A number is none, nor is what follows a leading dot.
fn extension(name: &[u8]) -> Option<(&[u8], &[u8])> {
    let dot = name.iter().rposition(|&byte| byte == b'.').filter(|&dot| dot > 0)?;
    let (stem, extension) = name.split_at(dot);
    (extension.len() > 1 && !is_stamp(&extension[1..])).then_some((stem, extension))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(base: &str, expected: bool, names: &[&str]) {
        for name in names {
            let found = is_generation_of(name.as_bytes(), base.as_bytes());
            assert_eq!(found, expected, "{name} of {base}");
        }
    }

    #[test]
    fn numbers_and_dates_behind_the_name() {
        check(
            "app.log",
            true,
            &[
                "app.log.1",
                "app.log.10",
                "app.log-1",
                "app.log_1",
                "app.log-20261122",
                "app.log.20261122",
                "app.log.2026-11-22",
                "app.log.2026-11-22-10",
                "app.log.2026-11-22_10-30",
                "app.log.2026-11-22T10:00:00",
                "app.log.2026-11-22T10:00:00.123Z",
                "app.log.2026-11-22T10:00:00+08:00",
                "app.log-20261122-1795312800",
                "app.log.2026-11-22.3",
            ],
        );
    }

    #[test]
    fn numbers_and_dates_before_the_extension() {
        check(
            "app.log",
            true,
            &[
                "app.1.log",
                "app-2026-11-22.log",
                "app_20261122.log",
                "app.2026-11-22.0.log",
                "app-2026-11-22T10-00-00.000.log",
            ],
        );
        check("app.error.log", true, &["app.error.1.log", "app.error-20261122.log"]);
    }

    #[test]
    fn compressed_generations() {
        let names = ["app.log.1.gz", "app.log-20261122.gz", "app-2026-11-22.log.gz", "app.log.gz"];
        check("app.log", true, &names);
        check("app.log.1", true, &["app.log.1.gz"]);
        check("app.log", false, &["app.log.1.gz.gz", "app.log.1gz", "app.log.1.zip", "app.gz"]);
    }

    #[test]
    fn names_without_an_extension() {
        check("messages", true, &["messages.1", "messages-20261122", "messages.1.gz"]);
        check("messages", false, &["messages", "messages1", "messages.old", "message.1"]);
        check(".log", true, &[".log.1"]);
        check(".log", false, &["-1.log", "1.log"]);
    }

    #[test]
    fn other_files() {
        check(
            "app.log",
            false,
            &[
                "app.log",
                "app2.log",
                "app-two.log",
                "app-v2.log",
                "app.log.bak",
                "app.log.swp",
                "app.log.1.bak",
                "app.log~",
                "app.log.",
                "app.log-",
                "app..log",
                "app.log..1",
                "app.log.1.",
                "app.log.1..2",
                "app.log.Z",
                "app.log.-1",
                "app.log.1T",
                "app.logs.1",
                "application.log",
                "myapp.log.1",
                ".app.log.1",
                "app-1.txt",
                "app.log.tmp.1",
                "",
            ],
        );
        check("app.log.1", false, &["app.log.2", "app.log", "app.log.3.1.x", "app.log.11"]);
        check("", false, &["", ".1", ".gz", "1"]);
    }

    #[test]
    fn names_that_are_no_utf8() {
        assert!(is_generation_of(b"\xff.log.1", b"\xff.log"));
        assert!(!is_generation_of(b"\xff.log.\xff", b"\xff.log"));
    }
}
