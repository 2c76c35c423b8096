//! Names that rotation gives.
//!
//! Pure. A *generation* of `app.log` has its name with a number, a date or a word such as `old` behind
//! it or before its extension, compressed or not. A name proves nothing; it says which file to compare
//! the bytes with.
//!
//! | who | names |
//! |---|---|
//! | logrotate, Python, log4j | `app.log.1`, `app.log-20261122`, `app.log.2026-11-22-10`, `app.log.1.gz` |
//! | log4j, logback, lumberjack | `app.1.log`, `app-2026-11-22.log`, `app-2026-11-22T10-00-00.000.log` |
//! | pm2-logrotate | `app__2026-11-22_00-00-00.log` |
//! | scripts | `app.log.old`, `app.log.bak`, `app.log.prev`, `app.log~`, `app.old` |
//! | svlogd, multilog | `@4000000065…` of `current`, also with `.s`, `.u` and `.t` |

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// Ending that gzip adds to a name.
const GZIP: &[u8] = b".gz";
/// Endings that scripts add to a name, or put in the place of its extension.
const WORDS: [&[u8]; 4] = [b".old", b".bak", b".prev", b".orig"];
/// Text before a time in the names of svlogd and multilog, which write to [`CURRENT`].
const TAI64N: &[u8] = b"@";
const TAI64N_DIGITS: usize = 24;
const CURRENT: &[u8] = b"current";

/// The names that a file may have had before it got this one: none if the name looks like no
/// generation.
#[must_use]
pub fn bases(name: &[u8]) -> Vec<Vec<u8>> {
    let plain = name.strip_suffix(GZIP).unwrap_or(name);
    let mut bases: Vec<Vec<u8>> = unnumbered(plain).map(<[u8]>::to_vec).collect();
    if let Some(dot) = plain.iter().rposition(|&byte| byte == b'.') {
        let (stem, extension) = plain.split_at(dot);
        bases.extend(unnumbered(stem).map(|base| [base, extension].concat()));
        if WORDS.contains(&extension) && !stem.is_empty() {
            bases.push(stem.to_vec());
            bases.push([stem, b".log"].concat());
        }
    }
    bases.extend(plain.strip_suffix(b"~").filter(|base| !base.is_empty()).map(<[u8]>::to_vec));
    if is_tai64n(plain) {
        bases.push(CURRENT.to_vec());
    }
    // Compressed under its own name.
    if plain.len() < name.len() {
        bases.push(plain.to_vec());
    }
    bases
}

/// Whether a file named `base` may have got this name from rotation.
#[must_use]
pub fn is_generation(name: &[u8], base: &[u8]) -> bool {
    bases(name).iter().any(|one| one == base)
}

/// How the path of a file is related to the paths of another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kin {
    /// The path is that of a generation of the other file, in the same directory.
    Generation,
    /// The path is that of a generation of the other file, in another directory.
    Elsewhere,
    /// Both paths are those of generations of the same, and this one is compressed: it may have had the
    /// other number before.
    Sibling,
    /// The names have nothing to do with each other.
    Stranger,
}

/// Relates a path to those under which another file was known, of which the last is where that file
/// really was. `None` if the path is that last one: whatever has taken the place of a file is no
/// copy of it.
#[must_use]
pub fn kin(path: &Path, known: &[&Path]) -> Option<Kin> {
    let (Some(name), Some(real)) = (path.file_name(), known.last()) else { return None };
    if path == *real {
        return None;
    }
    let bases = bases(name.as_bytes());
    let is_here = path.parent() == real.parent();
    let is_base = |one: &[u8]| bases.iter().any(|base| one == base);
    let mut names = known.iter().filter_map(|known| known.file_name()).map(OsStr::as_bytes);
    // An app that starts again may write the same to a log of the same name in a directory of its own.
    let is_kin = names.clone().any(is_base);
    let is_compressed = name.as_bytes().ends_with(GZIP);
    let mut is_of_same = || names.any(|known| self::bases(known).iter().any(|base| is_base(base)));
    Some(match (is_kin, is_here) {
        (true, true) => Kin::Generation,
        (true, false) => Kin::Elsewhere,
        (false, _) if is_compressed && is_of_same() => Kin::Sibling,
        (false, _) => Kin::Stranger,
    })
}

/// How far two paths are from each other: components that they do not share.
#[must_use]
pub fn distance(one: &Path, other: &Path) -> usize {
    let shared = one.components().zip(other.components()).take_while(|(a, b)| a == b).count();
    one.components().count() + other.components().count() - 2 * shared
}

/// The parts of a name that stand before a separator with nothing but a number or a date behind it.
fn unnumbered(name: &[u8]) -> impl Iterator<Item = &[u8]> {
    // A date may end with its zone.
    let dated = name.strip_suffix(b"Z").filter(|rest| rest.last().is_some_and(u8::is_ascii_digit));
    let name = dated.unwrap_or(name);
    let is_of_date = |byte: &u8| byte.is_ascii_digit() || b".-_:T+".contains(byte);
    let is_separator = |byte: &u8| b".-_".contains(byte);
    let end = name.iter().rposition(|byte| !is_of_date(byte)).map_or(0, |last| last + 1);
    (end.max(1)..name.len())
        .filter(move |&at| is_separator(&name[at]))
        .filter(|&at| name.get(at + 1).is_some_and(u8::is_ascii_digit))
        .filter_map(move |at| {
            // There may be more than one of them.
            let last = name[..at].iter().rposition(|byte| !is_separator(byte))?;
            Some(&name[..if last + 1 < end { at } else { last + 1 }])
        })
}

fn is_tai64n(name: &[u8]) -> bool {
    let Some(rest) = name.strip_prefix(TAI64N) else { return false };
    let digits = rest.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    digits == TAI64N_DIGITS && (rest.len() == digits || rest[digits] == b'.')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_generation(name: &str, base: &str) -> bool {
        super::is_generation(name.as_bytes(), base.as_bytes())
    }

    #[test]
    fn knows_the_schemes_of_rotation() {
        for name in [
            "app.log.1",
            "app.log.10",
            "app.log-20261122",
            "app.log-20261122-1763800000",
            "app.log.2026-11-22-10",
            "app.log.2026-11-22T10:00:00",
            "app.log_3",
            "app.1.log",
            "app-2026-11-22.log",
            "app-20261122.3.log",
            "app__2026-11-30_00-00-00.log",
            "app-2026-11-30T10-00-00.000.log",
            "app.log.20261130T100000Z",
            "app.20261130T100000Z.log",
            "app.log.old",
            "app.log.prev",
            "app.log~",
            "app.old",
        ] {
            assert!(is_generation(name, "app.log"), "{name}");
            assert!(is_generation(&format!("{name}.gz"), "app.log"), "{name}.gz");
        }
        assert!(is_generation("app.log.gz", "app.log"));
        assert!(is_generation("app.log.1.gz", "app.log.1"));
        assert!(is_generation("app.log.2", "app.log"));
        assert!(is_generation("@4000000065a1b2c3d4e5f601.s", "current"));
        assert!(is_generation("@4000000065a1b2c3d4e5f601", "current"));
    }

    #[test]
    fn relates_paths() {
        let known = ["/share/logs/app.log", "/data/pod/logs/app.log.1"].map(Path::new);
        for (path, expected) in [
            ("/data/pod/logs/app.log.2", Kin::Generation),
            ("/data/pod/logs/app.log.1.gz", Kin::Generation),
            ("/data/pod/logs/app.log", Kin::Stranger),
            ("/data/pod/logs/old/app.log.7", Kin::Elsewhere),
            ("/data/pod/archive/app.log", Kin::Stranger),
            ("/data/pod/archive/other.log", Kin::Stranger),
            ("/data/pod/archive/app.log.2.gz", Kin::Elsewhere),
        ] {
            assert_eq!(kin(Path::new(path), &known), Some(expected), "{path}");
        }
        assert_eq!(kin(Path::new("/data/pod/logs/app.log.1"), &known), None, "its own place");
        let known = [Path::new("/data/pod/logs/old/app.log.1")];
        for (name, expected) in [
            ("app.log.2.gz", Kin::Sibling),
            ("app.log.1.gz", Kin::Generation),
            ("app.log.2", Kin::Stranger),
            ("other.log.2.gz", Kin::Stranger),
        ] {
            let path = Path::new("/data/pod/logs/old").join(name);
            assert_eq!(kin(&path, &known), Some(expected), "{name}");
        }
        assert_eq!(kin(Path::new("/"), &known), None);
    }

    #[test]
    fn knows_which_path_is_nearer() {
        let from = |path: &str| distance(Path::new("/data/pod/logs/app.log.1"), Path::new(path));
        assert!(from("/data/pod/logs/app.log") < from("/data/pod/old/app.log"));
        assert!(from("/data/pod/old/app.log") < from("/data/other/logs/x/app.log"));
    }

    #[test]
    fn takes_no_other_name_for_a_generation() {
        for name in [
            "app.log",
            "app2.log",
            "app.log.swp",
            "app.log.1.tmp",
            "app.log.",
            "app.log1",
            "application.log",
            "other.log.1",
            "other.log.old",
            "old",
            "~",
            "@4000",
            ".1",
            "",
        ] {
            assert!(!is_generation(name, "app.log"), "{name}");
        }
        assert_eq!(bases(b"2026-11-22"), [b"2026".to_vec(), b"2026-11".to_vec()]);
    }
}
