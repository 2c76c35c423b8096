//! The key that was probably meant.

/// The candidate nearest to `name`, if one is near: a few letters apart, or the beginning or the end
/// of one.
pub(super) fn nearest<'a>(
    name: &str,
    candidates: impl Iterator<Item = &'a str>,
) -> Option<&'a str> {
    let name = name.to_ascii_lowercase().replace('-', "_");
    let distance_max = (name.chars().count() / 4).clamp(1, 3);
    candidates
        .filter_map(|candidate| {
            let distance = if is_part(&name, candidate) { 1 } else { distance(&name, candidate) };
            (distance <= distance_max).then_some((distance, candidate))
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

fn is_part(name: &str, candidate: &str) -> bool {
    const LETTERS_LEAST: usize = 4;
    let (short, long) =
        if name.len() < candidate.len() { (name, candidate) } else { (candidate, name) };
    short.len() >= LETTERS_LEAST && (long.starts_with(short) || long.ends_with(short))
}

/// Letters to insert, delete or replace to get from `a` to `b` (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    const LETTERS_MOST: usize = 64;
    let b: Vec<char> = b.chars().take(LETTERS_MOST).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, letter) in a.chars().take(LETTERS_MOST).enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, other) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(letter != *other);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(name: &str) -> Option<&'static str> {
        nearest(name, super::super::keys::KEYS.iter().map(|key| key.name))
    }

    #[test]
    fn slips_of_the_keyboard_find_their_key() {
        assert_eq!(near("projct"), Some("project"));
        assert_eq!(near("log_store"), Some("logstore"));
        assert_eq!(near("Batch-Bytes"), Some("batch_bytes"));
        assert_eq!(near("cpu_limit"), None);
        assert_eq!(near("cpu_usage"), Some("cpu_usage_limit"));
        assert_eq!(near("path"), Some("paths"));
        assert_eq!(near("deadline"), Some("drain_deadline"));
        assert_eq!(near("frobnicate"), None);
        assert_eq!(near(""), None);
    }

    #[test]
    fn distance_counts_single_letters() {
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("same", "same"), 0);
    }
}
