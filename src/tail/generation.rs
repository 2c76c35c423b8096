//! Names that rotation gives.
//!
//! Pure. `app.log.1`, `app.log-20261122`, `app-2026-11-22.log` and `app.1.log.gz` are *generations*
//! of `app.log`: its name with a number or a date behind it or before its extension, compressed or
//! not. A name proves nothing; it says which file to compare the bytes with.

/// What gzip adds to a name.
const GZIP: &[u8] = b".gz";

/// The names that a file may have had before it got this one: none if it looks like no generation.
#[must_use]
pub fn bases(name: &[u8]) -> Vec<Vec<u8>> {
    let plain = name.strip_suffix(GZIP).unwrap_or(name);
    let mut bases: Vec<Vec<u8>> = unnumbered(plain).map(<[u8]>::to_vec).collect();
    if let Some(dot) = plain.iter().rposition(|&byte| byte == b'.') {
        let (stem, extension) = plain.split_at(dot);
        bases.extend(unnumbered(stem).map(|base| [base, extension].concat()));
    }
    // Compressed under its own name.
    if plain.len() < name.len() {
        bases.push(plain.to_vec());
    }
    bases
}

/// What stands before a separator with nothing but a number or a date behind it.
fn unnumbered(name: &[u8]) -> impl Iterator<Item = &[u8]> {
    let is_of_date = |byte: &u8| byte.is_ascii_digit() || b".-_:T".contains(byte);
    let end = name.iter().rposition(|byte| !is_of_date(byte)).map_or(0, |last| last + 1);
    (end.max(1)..name.len())
        .filter(|&at| b".-_".contains(&name[at]))
        .filter(|&at| name.get(at + 1).is_some_and(u8::is_ascii_digit))
        .map(|at| &name[..at])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_generation(name: &str, base: &str) -> bool {
        bases(name.as_bytes()).iter().any(|one| one == base.as_bytes())
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
        ] {
            assert!(is_generation(name, "app.log"), "{name}");
            assert!(is_generation(&format!("{name}.gz"), "app.log"), "{name}.gz");
        }
        assert!(is_generation("app.log.gz", "app.log"));
        assert!(is_generation("app.log.1.gz", "app.log.1"));
        assert!(is_generation("app.log.2", "app.log"));
    }

    #[test]
    fn takes_no_other_name_for_a_generation() {
        for name in [
            "app.log",
            "app2.log",
            "app.log.bak",
            "app.log.swp",
            "app.log.1.tmp",
            "app.log.",
            "app.log1",
            "application.log",
            "other.log.1",
            ".1",
            "",
        ] {
            assert!(!is_generation(name, "app.log"), "{name}");
        }
        assert_eq!(bases(b"2026-11-22"), [b"2026".to_vec(), b"2026-11".to_vec()]);
    }
}
