//! Patterns, from text to parts.
//!
//! A pattern is an absolute path. Its components are literal names, names with `*`, `?`, `[…]` or
//! `{…}`, or `**` for any number of directories, none included; at the end it means all files
//! below. A backslash takes the meaning from what follows. Looks at no file system.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use globset::{Candidate, ErrorKind, Glob, GlobBuilder, GlobSet, GlobSetBuilder};

/// A pattern of files.
#[derive(Debug)]
pub(super) struct Pattern {
    /// The leading literal components, without the last one of the pattern.
    pub(super) base: PathBuf,
    /// What is to be matched below; never empty.
    pub(super) parts: Vec<Part>,
}

/// One component of a pattern.
#[derive(Debug)]
pub(super) enum Part {
    /// A name without wildcards.
    Literal(OsString),
    /// Any name: `*`.
    AnyName,
    /// Names that a glob matches.
    Glob(GlobSet),
    /// Any number of directories: `**`.
    AnyDepth,
}

/// Why a pattern is none.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// The pattern does not begin with `/`.
    #[error("it must begin with a slash, for example /share/logs/**/*.log")]
    Relative,
    /// A component is `..`, or the last one is missing.
    #[error("it must name files, without `..` and without a slash at its end")]
    Components,
    /// A group in braces or brackets goes over a slash.
    #[error("{0}; a group cannot hold a slash: write a pattern for each directory")]
    Slash(String),
    /// A component is no glob.
    #[error("{0}")]
    Glob(String),
}

/// Says whether `text` is a pattern.
///
/// # Errors
/// Why it is none.
pub fn check(text: &str) -> Result<(), PatternError> {
    Pattern::new(text).map(drop)
}

impl Pattern {
    pub(super) fn new(text: &str) -> Result<Self, PatternError> {
        let relative = text.strip_prefix('/').ok_or(PatternError::Relative)?;
        let names: Vec<&str> = relative.split('/').collect();
        let mut parts = VecDeque::with_capacity(names.len());
        for (index, name) in names.iter().enumerate() {
            let is_last = index + 1 == names.len();
            parts.push_back(Part::new(name, is_last)?);
        }
        if matches!(parts.back(), Some(Part::AnyDepth)) {
            parts.push_back(Part::AnyName);
        }
        let mut base = PathBuf::from("/");
        while parts.len() > 1 {
            let Some(Part::Literal(name)) = parts.front() else { break };
            base.push(name);
            parts.pop_front();
        }
        Ok(Self { base, parts: parts.into() })
    }

    /// Whether the pattern has no wildcard and so stands for one path.
    pub(super) fn is_literal(&self) -> bool {
        matches!(self.parts.as_slice(), [Part::Literal(_)])
    }

    /// Whether the pattern matches this path, component by component, whatever stands there.
    pub(super) fn finds(&self, path: &Path) -> bool {
        let Ok(below) = path.strip_prefix(&self.base) else { return false };
        let names: Vec<&OsStr> = below.iter().collect();
        // The parts that the next name may be matched with, as the walk has them.
        let mut ahead = vec![0];
        for (index, name) in names.iter().enumerate() {
            self.pass_any_depth(&mut ahead);
            if index + 1 == names.len() {
                let last = self.parts.len() - 1;
                return ahead.contains(&last) && self.parts[last].is_match(name);
            }
            ahead = self.below(&ahead, name);
        }
        false
    }

    /// Adds to the parts that a name may match those behind `**`, which may stand for nothing.
    pub(super) fn pass_any_depth(&self, parts: &mut Vec<usize>) {
        let mut index = 0;
        while let Some(&part) = parts.get(index) {
            index += 1;
            if matches!(self.parts[part], Part::AnyDepth) && !parts.contains(&(part + 1)) {
                parts.push(part + 1);
            }
        }
    }

    /// What is left to match in a directory of this name, which may match these parts.
    pub(super) fn below(&self, parts: &[usize], name: &OsStr) -> Vec<usize> {
        let below = |&part: &usize| match &self.parts[part] {
            Part::AnyDepth => Some(part),
            one => (part + 1 < self.parts.len() && one.is_match(name)).then_some(part + 1),
        };
        let mut below: Vec<_> = parts.iter().filter_map(below).collect();
        below.sort_unstable();
        below.dedup();
        below
    }

    /// The directory in which the pattern's files are, as written. `/` is one only where a wildcard
    /// follows: one file in it does not stand for all files.
    pub(super) fn root(&self) -> PathBuf {
        match self.parts.as_slice() {
            [Part::Literal(name)] if self.base == Path::new("/") => self.base.join(name),
            _ => self.base.clone(),
        }
    }
}

impl Part {
    fn new(name: &str, is_last: bool) -> Result<Self, PatternError> {
        match name {
            "" | "." | ".." => Err(PatternError::Components),
            "*" => Ok(Self::AnyName),
            "**" => Ok(Self::AnyDepth),
            name => match literal(name) {
                Some(name) => Ok(Self::Literal(name.into())),
                None => one_glob(name, is_last).map(Self::Glob),
            },
        }
    }

    /// Whether a component of the pattern matches a name. `**` is no part of a name.
    pub(super) fn is_match(&self, name: &OsStr) -> bool {
        match self {
            Self::Literal(literal) => literal == name,
            Self::AnyName => true,
            Self::Glob(glob) => glob.is_match_candidate(&Candidate::new(Path::new(name))),
            Self::AnyDepth => false,
        }
    }
}

/// The name that a component without wildcards stands for.
fn literal(name: &str) -> Option<String> {
    let mut text = String::with_capacity(name.len());
    let mut chars = name.chars();
    while let Some(char) = chars.next() {
        match char {
            '*' | '?' | '[' | ']' | '{' | '}' => return None,
            '\\' => text.push(chars.next()?),
            char => text.push(char),
        }
    }
    (text != "." && text != "..").then_some(text)
}

fn one_glob(text: &str, is_last: bool) -> Result<GlobSet, PatternError> {
    let glob = glob(text).map_err(|error| match error.kind() {
        ErrorKind::UnclosedAlternates | ErrorKind::UnclosedClass if !is_last => {
            PatternError::Slash(error.kind().to_string())
        }
        kind => PatternError::Glob(kind.to_string()),
    })?;
    // Not `compile_matcher`, which panics where this has an error.
    let set = GlobSetBuilder::new().add(glob).build();
    set.map_err(|error| PatternError::Glob(error.kind().to_string()))
}

/// Compiles a glob the way files are matched: `*` and `?` stay within one directory, and an empty
/// alternative is one, as in `app{,-error}.log`.
pub(super) fn glob(text: &str) -> Result<Glob, globset::Error> {
    let mut builder = GlobBuilder::new(text);
    builder.literal_separator(true).backslash_escape(true).empty_alternates(true).build()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(name: &str, of: &str) -> bool {
        let pattern = Pattern::new(&format!("/{of}")).unwrap();
        pattern.parts[0].is_match(OsStr::new(name))
    }

    #[test]
    fn the_base_is_what_stands_before_the_first_wildcard() {
        for (text, base, parts, root) in [
            ("/share/logs/**/*.log", "/share/logs", 2, "/share/logs"),
            ("/share/logs/**", "/share/logs", 2, "/share/logs"),
            ("/share/logs/app.log", "/share/logs", 1, "/share/logs"),
            ("/app.log", "/", 1, "/app.log"),
            ("/*/a/b.log", "/", 3, "/"),
            ("/a\\,b/c\\*d/x.log", "/a,b/c*d", 1, "/a,b/c*d"),
        ] {
            let pattern = Pattern::new(text).unwrap();
            assert_eq!(pattern.base, Path::new(base), "{text}");
            assert_eq!(pattern.parts.len(), parts, "{text}");
            assert_eq!(pattern.root(), Path::new(root), "{text}");
            assert_eq!(pattern.is_literal(), parts == 1, "{text}");
        }
    }

    #[test]
    fn names_match_as_in_a_shell() {
        for (name, of, expected) in [
            ("app.log", "*.log", true),
            (".hidden.log", "*.log", true),
            ("app.log.1", "*.log", false),
            ("app.log", "app{,-error}.log", true),
            ("app-error.log", "app{,-error}.log", true),
            ("app-x.log", "app{,-error}.log", false),
            ("a,b.log", "{a\\,b,c}.log", true),
            ("b.log", "[!a].log", true),
            ("*.log", "\\*.log", true),
            ("x.log", "\\*.log", false),
            ("журнал.log", "жур*.log", true),
        ] {
            assert_eq!(matches(name, of), expected, "{name} of {of}");
        }
    }

    #[test]
    fn names_that_are_no_utf8_match() {
        use std::os::unix::ffi::OsStrExt as _;
        let pattern = Pattern::new("/*.log").unwrap();
        assert!(pattern.parts[0].is_match(OsStr::from_bytes(b"\xff\xfe.log")));
    }

    #[test]
    fn names_what_is_wrong_with_a_pattern() {
        for (text, expected) in [
            ("logs/*.log", "begin with a slash"),
            ("/logs/../x", "without `..`"),
            ("/logs/", "without a slash at its end"),
            ("/logs//x", "without a slash at its end"),
            ("/logs/{a,b/c}", "write a pattern for each directory"),
            ("/logs/[a/b]", "write a pattern for each directory"),
            ("/logs/[a", "unclosed character class"),
            ("/logs/{a", "unclosed alternate"),
            ("/logs/a\\", "dangling"),
        ] {
            let error = check(text).map_err(|error| error.to_string());
            assert!(error.as_ref().is_err_and(|why| why.contains(expected)), "{text}: {error:?}");
        }
    }

    #[test]
    fn finds_paths_as_the_walk_does() {
        for (text, path, expected) in [
            ("/logs/app.log", "/logs/app.log", true),
            ("/logs/app.log", "/logs/app.log/x", false),
            ("/logs/*.log", "/logs/app.log", true),
            ("/logs/*.log", "/logs/a/app.log", false),
            ("/logs/**/*.log", "/logs/app.log", true),
            ("/logs/**/*.log", "/logs/a/b/app.log", true),
            ("/logs/**/*.log", "/logs/a/b/app.txt", false),
            ("/logs/**/*.log", "/log/app.log", false),
            ("/logs/**/a/**/x", "/logs/a/x", true),
            ("/logs/**/a/**/x", "/logs/b/a/c/x", true),
            ("/logs/**/a/**/x", "/logs/b/c/x", false),
            ("/logs/**", "/logs/a/b", true),
            ("/logs/**", "/logs", false),
            ("/logs/*/{x,y}", "/logs/a/y", true),
        ] {
            let pattern = Pattern::new(text).unwrap();
            assert_eq!(pattern.finds(Path::new(path)), expected, "{text} {path}");
        }
    }
}
