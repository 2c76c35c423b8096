//! Patterns to files.
//!
//! Walks the directories that a pattern can match, through links in any part of the path, and
//! reports every regular file together with the directories whose changes could change the answer:
//! [`super::watch`] watches those. Never opens a file; pipes, sockets and devices are passed over.
//!
//! A pattern is absolute. Its components are literal names, names with `*`, `?`, `[…]` or `{…}`,
//! or `**` for any number of directories, none included; at the end it means all files below. A
//! directory that contains itself through
//! a link is entered once.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

use globset::{GlobBuilder, GlobMatcher, GlobSet, GlobSetBuilder};

/// Links followed in one path before it is called a loop, as path_resolution(7) has it.
const LINKS_MAX: usize = 40;

/// The patterns, understood.
#[derive(Debug)]
pub struct Patterns {
    patterns: Vec<Pattern>,
    exclude: GlobSet,
    /// Directories and files of our own, never entered or matched, under whatever name.
    own: Vec<PathBuf>,
}

#[derive(Debug)]
struct Pattern {
    /// The leading literal components.
    base: PathBuf,
    parts: Vec<Part>,
}

#[derive(Clone, Debug)]
enum Part {
    Literal(String),
    Glob(GlobMatcher),
    AnyDepth,
}

/// Says whether `text` is a pattern.
///
/// # Errors
/// Why it is none.
pub fn check(text: &str) -> Result<(), PatternError> {
    Pattern::new(text).map(drop)
}

/// Why a pattern is none.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// It does not begin with `/`.
    #[error("it must begin with a slash, for example /share/logs/**/*.log")]
    Relative,
    /// A component is `..`, or the last one is missing.
    #[error("it must name files, without `..` and without a slash at its end")]
    Components,
    /// A component is no glob.
    #[error("{0}")]
    Glob(String),
}

/// A file that a pattern matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Path as configured, links not resolved.
    pub path: PathBuf,
    /// Device number of what it leads to.
    pub device: u64,
    /// Inode number of what it leads to.
    pub inode: u64,
    /// Size in bytes.
    pub size: u64,
    /// When its bytes changed last: seconds and nanoseconds of Unix time.
    pub modified: (i64, i64),
}

/// What one walk found.
#[derive(Debug, Default)]
pub struct Scan {
    /// The files, each once, under the first path in order that leads to it.
    pub files: Vec<Found>,
    /// The directories to watch; `true` where files are that could be written.
    pub dirs: BTreeMap<PathBuf, bool>,
    /// What could not be looked at, other than because it is not there.
    pub errors: Vec<(PathBuf, io::Error)>,
}

impl Patterns {
    /// Understands the patterns. Files that are in `own`, or in a directory that is, are never
    /// matched, whichever links lead there.
    ///
    /// # Errors
    /// Names the first pattern that is none, with the reason.
    pub fn new(
        paths: &[String],
        exclude: &[String],
        own: Vec<PathBuf>,
    ) -> Result<Self, (String, PatternError)> {
        let parse = |text: &String| Pattern::new(text).map_err(|error| (text.clone(), error));
        let patterns = paths.iter().map(parse).collect::<Result<_, _>>()?;
        let mut set = GlobSetBuilder::new();
        for text in exclude {
            parse(text)?;
            set.add(glob(text).map_err(|error| (text.clone(), error))?.glob().clone());
        }
        let exclude = set
            .build()
            .map_err(|error| (exclude.join(","), PatternError::Glob(error.kind().to_string())))?;
        Ok(Self { patterns, exclude, own })
    }

    /// Whether `path` is left out.
    #[must_use]
    pub fn is_excluded(&self, path: &Path) -> bool {
        self.exclude.is_match(path)
    }

    /// Walks all patterns. *Cost*: a `readdir` for each directory and a `stat` for each match.
    #[must_use]
    pub fn scan(&self) -> Scan {
        let own = self.own.iter().filter_map(|dir| fs::metadata(dir).ok()).map(|dir| inode(&dir));
        let own = own.collect();
        let mut walk = Walk { patterns: self, own, scan: Scan::default(), above: Vec::new() };
        for pattern in &self.patterns {
            link_dirs(&pattern.base, &mut walk.scan.dirs);
            walk.enter(&pattern.base, &pattern.parts);
        }
        let mut scan = walk.scan;
        scan.files.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        let mut seen = std::collections::HashSet::new();
        scan.files.retain(|file| seen.insert((file.device, file.inode)));
        scan
    }
}

impl Pattern {
    fn new(text: &str) -> Result<Self, PatternError> {
        let relative = text.strip_prefix('/').ok_or(PatternError::Relative)?;
        let mut parts = VecDeque::new();
        for name in relative.split('/') {
            match name {
                "" | "." | ".." => return Err(PatternError::Components),
                "**" => parts.push_back(Part::AnyDepth),
                name if name.contains(['*', '?', '[', ']', '{', '}', '\\']) => {
                    parts.push_back(Part::Glob(glob(name)?));
                }
                name => parts.push_back(Part::Literal(name.to_owned())),
            }
        }
        if matches!(parts.back(), Some(Part::AnyDepth)) {
            parts.push_back(Part::Glob(glob("*")?));
        }
        let mut base = PathBuf::from("/");
        while parts.len() > 1 {
            let Some(Part::Literal(name)) = parts.front() else { break };
            base.push(name);
            parts.pop_front();
        }
        Ok(Self { base, parts: parts.into() })
    }
}

fn glob(text: &str) -> Result<GlobMatcher, PatternError> {
    let glob = GlobBuilder::new(text).literal_separator(true).backslash_escape(true).build();
    glob.map(|glob| glob.compile_matcher())
        .map_err(|error| PatternError::Glob(error.kind().to_string()))
}

struct Walk<'a> {
    patterns: &'a Patterns,
    /// Device and inode of our own directories and files.
    own: Vec<(u64, u64)>,
    scan: Scan,
    /// Device and inode of the directories we are in, to notice a loop.
    above: Vec<(u64, u64)>,
}

impl Walk<'_> {
    /// Matches `parts` below the directory `dir`, if it is one.
    fn enter(&mut self, dir: &Path, parts: &[Part]) {
        let metadata = match fs::metadata(dir) {
            Ok(metadata) if metadata.is_dir() => metadata,
            Ok(_) => return,
            Err(error) => return self.note(dir, error),
        };
        let inode = inode(&metadata);
        let is_loop = self.above.contains(&inode) && !matches!(parts, [Part::Literal(_), ..]);
        if is_loop || self.own.contains(&inode) {
            return;
        }
        self.above.push(inode);
        self.look(dir, parts);
        self.above.pop();
    }

    fn look(&mut self, dir: &Path, parts: &[Part]) {
        let Some((part, rest)) = parts.split_first() else { return };
        let is_last = rest.is_empty();
        let holds_files = is_last || matches!((part, rest), (Part::AnyDepth, [_]));
        *self.scan.dirs.entry(dir.to_owned()).or_default() |= holds_files;
        match part {
            Part::Literal(name) => self.step(&dir.join(name), rest),
            Part::Glob(glob) => {
                for name in self.names(dir) {
                    if glob.is_match(Path::new(&name)) {
                        self.step(&dir.join(name), rest);
                    }
                }
            }
            Part::AnyDepth => {
                self.look(dir, rest);
                for name in self.names(dir) {
                    let path = dir.join(name);
                    if fs::metadata(&path).is_ok_and(|metadata| metadata.is_dir()) {
                        self.follow(&path);
                        self.enter(&path, parts);
                    }
                }
            }
        }
    }

    /// `path` has matched so far: a file if nothing is left to match, else a directory to enter.
    fn step(&mut self, path: &Path, rest: &[Part]) {
        let is_link = self.follow(path);
        if !rest.is_empty() {
            return self.enter(path, rest);
        }
        if self.patterns.exclude.is_match(path) {
            return;
        }
        match fs::metadata(path) {
            Ok(metadata) if self.own.contains(&inode(&metadata)) => {}
            Ok(metadata) if metadata.is_file() => self.found(path, &metadata, is_link),
            Ok(_) => {}
            Err(error) => self.note(path, error),
        }
    }

    fn found(&mut self, path: &Path, metadata: &Metadata, is_link: bool) {
        if is_link
            && let Ok(real) = fs::canonicalize(path)
            && let Some(dir) = real.parent()
        {
            self.scan.dirs.insert(dir.to_owned(), true);
        }
        self.scan.files.push(Found {
            path: path.to_owned(),
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        });
    }

    /// If `path` is a link, the directories on its way are watched too. Returns whether it is.
    fn follow(&mut self, path: &Path) -> bool {
        let is_link = fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_symlink());
        if is_link {
            link_dirs(path, &mut self.scan.dirs);
        }
        is_link
    }

    /// The names in a directory, in order, so that the first path to a file is always the same.
    fn names(&mut self, dir: &Path) -> Vec<std::ffi::OsString> {
        let entries = match fs::read_dir(dir) {
            Ok(entries) => entries,
            Err(error) => {
                self.note(dir, error);
                return Vec::new();
            }
        };
        let mut names: Vec<_> = entries.flatten().map(|entry| entry.file_name()).collect();
        names.sort_unstable();
        names
    }

    /// What is not there is no error: it may come.
    fn note(&mut self, path: &Path, error: io::Error) {
        if error.kind() != io::ErrorKind::NotFound && error.kind() != io::ErrorKind::NotADirectory {
            self.scan.errors.push((path.to_owned(), error));
        }
    }
}

fn inode(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

/// Adds the directories in which a change could make `path` lead elsewhere: those that hold a link
/// on its way, and the one that lacks its first missing component.
fn link_dirs(path: &Path, dirs: &mut BTreeMap<PathBuf, bool>) {
    let mut at = PathBuf::from("/");
    let mut left: VecDeque<_> = owned_components(path).into();
    let mut links = 0;
    while let Some(name) = left.pop_front() {
        match name.as_os_str().as_encoded_bytes() {
            b"/" => at = PathBuf::from("/"),
            b".." => {
                at.pop();
            }
            _ => {
                let next = at.join(&name);
                match fs::symlink_metadata(&next) {
                    Ok(metadata) if metadata.is_symlink() => {
                        dirs.entry(at.clone()).or_default();
                        links += 1;
                        let Ok(target) = fs::read_link(&next) else { return };
                        if links > LINKS_MAX {
                            return;
                        }
                        for name in owned_components(&target).into_iter().rev() {
                            left.push_front(name);
                        }
                    }
                    Ok(_) => at = next,
                    Err(_) => {
                        dirs.entry(at).or_default();
                        return;
                    }
                }
            }
        }
    }
}

fn owned_components(path: &Path) -> Vec<std::ffi::OsString> {
    path.components()
        .filter(|component| !matches!(component, Component::CurDir))
        .map(|component| OsStr::to_owned(component.as_os_str()))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    struct Tree(tempfile::TempDir);

    impl Tree {
        fn new(files: &[&str]) -> Self {
            let tree = Self(tempfile::tempdir().unwrap());
            for file in files {
                let path = tree.path(file);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, file).unwrap();
            }
            tree
        }

        fn path(&self, path: &str) -> PathBuf {
            self.0.path().join(path)
        }

        fn link(&self, target: &str, link: &str) {
            fs::create_dir_all(self.path(link).parent().unwrap()).unwrap();
            symlink(target, self.path(link)).unwrap();
        }

        fn scan(&self, paths: &[&str], exclude: &[&str]) -> Scan {
            let absolute = |texts: &[&str]| -> Vec<String> {
                texts.iter().map(|text| self.path(text).to_str().unwrap().to_owned()).collect()
            };
            Patterns::new(&absolute(paths), &absolute(exclude), vec![self.path("own")])
                .unwrap()
                .scan()
        }

        fn check(&self, paths: &[&str], exclude: &[&str], expected: &[&str]) {
            let scan = self.scan(paths, exclude);
            let names: Vec<_> = scan
                .files
                .iter()
                .map(|file| file.path.strip_prefix(self.0.path()).unwrap().to_str().unwrap())
                .collect();
            assert_eq!(names, expected, "{paths:?}");
        }

        fn watches(&self, paths: &[&str], dir: &str) -> Option<bool> {
            self.scan(paths, &[]).dirs.get(&self.path(dir)).copied()
        }
    }

    #[test]
    fn matches_names_depths_and_alternatives() {
        let tree = Tree::new(&["logs/app.log", "logs/a/b/c.log", "logs/a/x.txt", "logs/z.log"]);
        tree.check(&["logs/*.log"], &[], &["logs/app.log", "logs/z.log"]);
        tree.check(&["logs/**/*.log"], &[], &["logs/a/b/c.log", "logs/app.log", "logs/z.log"]);
        tree.check(&["logs/**/b/*"], &[], &["logs/a/b/c.log"]);
        tree.check(&["logs/{app,z}.log"], &[], &["logs/app.log", "logs/z.log"]);
        tree.check(&["logs/?.log", "logs/z.log"], &[], &["logs/z.log"]);
        tree.check(&["logs/a/x.txt"], &[], &["logs/a/x.txt"]);
        tree.check(&["logs/a/**"], &[], &["logs/a/b/c.log", "logs/a/x.txt"]);
        tree.check(&["none/**/*.log"], &[], &[]);
    }

    #[test]
    fn leaves_out_what_is_excluded_and_what_is_ours() {
        let tree = Tree::new(&["logs/a.log", "logs/b.log", "own/c.log"]);
        tree.link("../own", "logs/way");
        tree.check(&["**/*.log"], &["logs/b*"], &["logs/a.log"]);
    }

    #[test]
    fn follows_links_in_any_part_of_the_path() {
        let tree = Tree::new(&["data/pod/logs/app.log", "data/pod/logs/deep/x.log"]);
        tree.link("../data/pod/logs", "share/logs");
        tree.link("../data", "mid/way");
        tree.link("pod/logs/app.log", "data/current.log");
        tree.check(&["share/logs/**/*.log"], &[], &["share/logs/app.log", "share/logs/deep/x.log"]);
        tree.check(&["mid/way/pod/logs/app.log"], &[], &["mid/way/pod/logs/app.log"]);
        tree.check(&["data/*.log"], &[], &["data/current.log"]);
        tree.check(&["mid/**/app.log"], &[], &["mid/way/pod/logs/app.log"]);
    }

    #[test]
    fn a_file_reached_twice_is_found_once_and_loops_end() {
        let tree = Tree::new(&["logs/app.log"]);
        tree.link("app.log", "logs/again.log");
        tree.link("../logs", "logs/loop");
        tree.link("self", "logs/self");
        tree.check(&["logs/**/*.log"], &[], &["logs/again.log"]);
    }

    #[test]
    fn passes_over_what_is_no_file() {
        let tree = Tree::new(&["logs/a.log"]);
        fs::create_dir(tree.path("logs/dir.log")).unwrap();
        tree.link("nowhere", "logs/dangling.log");
        let _socket = std::os::unix::net::UnixListener::bind(tree.path("logs/socket.log")).unwrap();
        tree.check(&["logs/*.log"], &[], &["logs/a.log"]);
    }

    #[test]
    fn watches_where_a_change_would_matter() {
        let tree = Tree::new(&["data/pod/logs/app.log"]);
        let pattern = &["share/logs/*.log"];
        assert_eq!(tree.watches(pattern, ""), Some(false), "share is missing");
        tree.link("../data/current/logs", "share/logs");
        assert_eq!(tree.watches(pattern, "share"), Some(false), "the link is here");
        assert_eq!(tree.watches(pattern, "data"), Some(false), "current is missing");
        tree.link("pod", "data/current");
        assert_eq!(tree.watches(pattern, "data"), Some(false), "the second link is here");
        assert_eq!(tree.watches(pattern, "share/logs"), Some(true), "files are here");
    }

    #[test]
    fn names_what_is_wrong_with_a_pattern() {
        for (text, expected) in [
            ("logs/*.log", "begin with a slash"),
            ("/logs/../x", "without `..`"),
            ("/logs/", "without a slash at its end"),
            ("/logs/{a,b/c}", "unclosed alternate"),
            ("/logs/[a", "unclosed character class"),
            ("/logs/{a", "unclosed alternate"),
        ] {
            let (_, error) = Patterns::new(&[text.to_owned()], &[], vec![]).unwrap_err();
            assert!(error.to_string().contains(expected), "{text}: {error}");
        }
    }
}
