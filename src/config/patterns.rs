//! Globs of files, from text to a list that surely compiles.
//!
//! Looks at no file system.

use std::path::Path;

use globset::{Glob, GlobBuilder, GlobSet, GlobSetBuilder};

use crate::tail::pattern;

/// As the kernel limits a path.
const PATTERN_BYTES_MAX: usize = 4096;

/// The names that files have which are shipped.
#[derive(Clone, Debug)]
pub struct Reach {
    paths: GlobSet,
    exclude: GlobSet,
}

impl Reach {
    /// Patterns as [`check`] answers them.
    pub(super) fn new(paths: &[String], exclude: &[String]) -> Self {
        let set = |patterns: &[String]| {
            let mut set = GlobSetBuilder::new();
            for pattern in patterns {
                set.add(compile(pattern).expect("it was checked"));
            }
            set.build().expect("they were checked together")
        };
        Self { paths: set(paths), exclude: set(exclude) }
    }

    /// Whether a file of this name would be shipped. Says nothing about links on its way.
    #[must_use]
    pub fn includes(&self, path: &Path) -> bool {
        self.paths.is_match(path) && !self.exclude.is_match(path)
    }
}

/// Compiles a pattern the way files are matched: `*` and `?` stay within one directory.
fn compile(pattern: &str) -> Result<Glob, globset::Error> {
    GlobBuilder::new(pattern).literal_separator(true).empty_alternates(true).build()
}

/// Splits at commas, except within braces and brackets and after a backslash. Blanks around a
/// pattern and empty patterns are dropped.
pub(super) fn split(text: &str) -> Vec<String> {
    let mut patterns = vec![String::new()];
    let (mut braces, mut in_brackets, mut escaped) = (0_usize, false, false);
    for c in text.chars() {
        match c {
            _ if escaped => {}
            '[' => in_brackets = true,
            ']' => in_brackets = false,
            '{' if !in_brackets => braces += 1,
            '}' if !in_brackets => braces = braces.saturating_sub(1),
            ',' if !in_brackets && braces == 0 => {
                patterns.push(String::new());
                continue;
            }
            _ => {}
        }
        escaped = c == '\\' && !escaped;
        if let Some(pattern) = patterns.last_mut() {
            pattern.push(c);
        }
    }
    patterns
        .into_iter()
        .map(|pattern| pattern.trim().to_owned())
        .filter(|p| !p.is_empty())
        .collect()
}

/// Checks every pattern and tidies it: doubled slashes and `.` parts go.
///
/// # Errors
/// The first pattern that cannot be used, and why.
pub(super) fn check(patterns: &[String]) -> Result<Vec<String>, String> {
    let mut set = GlobSetBuilder::new();
    let mut tidy_patterns = Vec::with_capacity(patterns.len());
    for pattern in patterns {
        let (tidy, glob) =
            check_one(pattern).map_err(|why| format!("{}: {why}", shown(pattern)))?;
        set.add(glob);
        tidy_patterns.push(tidy);
    }
    set.build().map_err(|error| format!("the patterns are too large: {}", error.kind()))?;
    Ok(tidy_patterns)
}

fn check_one(pattern: &str) -> Result<(String, Glob), String> {
    if !pattern.starts_with('/') {
        return Err("the pattern is not absolute".to_owned());
    }
    if pattern.ends_with('/') {
        return Err(format!(
            "the pattern names a directory; for all files in it write {pattern}**"
        ));
    }
    if pattern.len() > PATTERN_BYTES_MAX || pattern.contains('\0') {
        return Err("the pattern is no path".to_owned());
    }
    if pattern.split('/').any(|part| part == "..") {
        return Err("the pattern has a part `..`".to_owned());
    }
    let parts = pattern.split('/').filter(|part| !part.is_empty() && *part != ".");
    let tidy: String = parts.flat_map(|part| ["/", part]).collect();
    let glob = compile(&tidy).map_err(|error| error.kind().to_string())?;
    pattern::check(&tidy).map_err(|error| error.to_string())?;
    // Compiles it by itself, so that a pattern that is too large is named.
    GlobSetBuilder::new().add(glob.clone()).build().map_err(|error| error.kind().to_string())?;
    Ok((tidy, glob))
}

fn shown(pattern: &str) -> String {
    let short: String = pattern.chars().take(80).collect();
    format!("{short:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas_separate_patterns_but_not_within_one() {
        assert_eq!(split("/a/*.log, /b/**"), ["/a/*.log", "/b/**"]);
        assert_eq!(split("/a/*.{log,txt},/b"), ["/a/*.{log,txt}", "/b"]);
        assert_eq!(split("/a/[,]x,/b\\,c"), ["/a/[,]x", "/b\\,c"]);
        assert_eq!(split(" ,, "), [""; 0]);
    }

    #[test]
    fn patterns_are_tidied() {
        let patterns = ["/a//b/./*.log", "/share/logs/**/*.log"].map(str::to_owned);
        assert_eq!(check(&patterns).unwrap(), ["/a/b/*.log", "/share/logs/**/*.log"]);
    }

    #[test]
    fn unusable_patterns_are_named_with_the_reason() {
        for (pattern, part) in [
            ("logs/*.log", "the pattern is not absolute"),
            ("/share/logs/", "write /share/logs/**"),
            ("/a/../b", "has a part `..`"),
            ("/a/[b", "unclosed character class"),
            ("/a/{b,c", "unclosed alternate group"),
            ("/a/[z-a]", "invalid range"),
            ("/a\0", "the pattern is no path"),
        ] {
            let why = check(&[pattern.to_owned()]).unwrap_err();
            assert!(why.contains(part) && why.starts_with('"'), "{why}");
        }
    }

    #[test]
    fn names_are_matched_as_files_are_found() {
        let texts = |patterns: &[&str]| -> Vec<String> {
            patterns.iter().map(|&pattern| pattern.to_owned()).collect()
        };
        let reach =
            Reach::new(&texts(&["/share/logs/**/*.log", "/var/**"]), &texts(&["/**/debug*"]));
        for (path, expected) in [
            ("/share/logs/app.log", true),
            ("/share/logs/a/b/app.log", true),
            ("/share/logs/app.log.1", false),
            ("/share/logs/debug.log", false),
            ("/var/x", true),
            ("/var", false),
        ] {
            assert_eq!(reach.includes(path.as_ref()), expected, "{path}");
        }
    }

    #[test]
    fn deep_and_huge_patterns_are_refused_or_taken_but_never_overflow() {
        let _ = check(&[format!("/{}{}", "{".repeat(2000), "}".repeat(2000))]);
        let _ = check(&[format!("/{}", "{a,b}".repeat(800))]);
        assert!(check(&[format!("/{}", "a".repeat(PATTERN_BYTES_MAX))]).is_err());
    }

    #[test]
    fn a_star_stays_within_its_directory() {
        let matcher = compile("/share/logs/**/*.log").unwrap().compile_matcher();
        assert!(matcher.is_match("/share/logs/app.log"));
        assert!(matcher.is_match("/share/logs/a/b/app.log"));
        assert!(!matcher.is_match("/share/app.log"));
        assert!(!compile("/a/*.log").unwrap().compile_matcher().is_match("/a/b/c.log"));
    }
}
