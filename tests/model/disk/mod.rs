//! The log files, and the app's own picture of them: which bytes it wrote where, what became of
//! them, and what the agent may be asked for.
//!
//! A *node* is an inode. A *generation* of it lasts from its creation, or a rewriting, to the next
//! rewriting. A *line* is a text that was written once; a rewriting that leaves it at its place (or
//! writes the same bytes again) puts the same line into the next generation. Every method does to
//! the real files what it does to the picture.

/// What is known of the agent.
mod agent;
/// What is written.
mod bytes;
/// What the files are called.
mod names;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use crate::actions::FOLLOWS_ARCHIVES;

/// What may be asked of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It stands in the newest generation of its node.
    OnDisk,
    /// Its bytes are gone, and the agent's process had read them before: it owes them while it
    /// lives.
    Read,
    /// Its bytes are gone before anybody is known to have read them: it may arrive or not.
    Gone,
}

/// A text that was written. Their order is the order of writing.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) node: usize,
    /// The generation of it that it was first written in.
    born: u32,
    /// As written so far, without its line end.
    pub(crate) text: Vec<u8>,
    /// Where a writer has paused within it.
    pub(crate) cuts: Vec<usize>,
    /// Its line end, once it is complete.
    ending: &'static str,
    pub(crate) is_complete: bool,
    pub(crate) fate: Fate,
    /// The running process is known to have read it to its end.
    pub(crate) is_read: bool,
    /// Known to be acknowledged in a checkpoint that survives a kill.
    pub(crate) is_safe: bool,
    /// The same for a power cut.
    pub(crate) is_durable: bool,
    /// How often more than once it may arrive.
    pub(crate) repeats_max: usize,
}

/// A line at its place in the newest generation: bytes `start` to `end`, line end included.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Placed {
    pub(crate) line: usize,
    pub(crate) start: u64,
    pub(crate) end: u64,
}

/// A file, whatever its names.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) device: u64,
    pub(crate) inode: u64,
    /// Counts rewritings.
    pub(crate) generation: u32,
    pub(crate) layout: Vec<Placed>,
    /// Largest size of all generations before the newest.
    pub(crate) old_size_max: u64,
    /// The agent's turns when a line of the newest generation was known to have arrived: what it
    /// publishes later is of this generation.
    turns_at_arrival: Option<u64>,
    /// The running agent is known to have it open.
    pub(crate) is_held: bool,
    /// The running agent has a checkpoint that leads it here.
    pub(crate) is_expected: bool,
    /// The generation that a checkpoint speaks of which survives a kill.
    pub(crate) known: Option<u32>,
    /// The same for a power cut.
    pub(crate) known_durably: Option<u32>,
    pub(crate) is_forbidden: bool,
    /// Its directory was moved: no checkpoint is known to lead to it.
    is_displaced: bool,
    /// It has no name, and nobody is known to hold it: what is written there may arrive or not.
    is_lost: bool,
    /// The app's descriptor, kept while the file has no name.
    writer: Option<File>,
    /// The gzipped file that its content went into.
    archive: Option<String>,
    /// Paths as configured that have ever led to it.
    paths: BTreeSet<String>,
    /// Others under which its lines may arrive: those of copies, and of files that its names say it
    /// is a generation of.
    other_paths: BTreeSet<String>,
}

impl Node {
    /// Whether its lines may arrive under this path.
    pub(crate) fn may_arrive_as(&self, path: &str) -> bool {
        self.all_paths().any(|one| one == path)
    }

    pub(crate) fn all_paths(&self) -> impl Iterator<Item = &String> {
        self.paths.iter().chain(&self.other_paths)
    }

    pub(crate) fn size(&self) -> u64 {
        self.layout.last().map_or(0, |last| last.end)
    }
}

/// A line, or a part of one, as the agent may send it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) line: usize,
    pub(crate) start: usize,
    pub(crate) end: usize,
}

/// Which files the agent is asked to ship.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pattern {
    /// `share/logs/**/*.log`, through the link.
    Link,
    /// `share/logs/*.log*`: rotated files too.
    LinkAndRotated,
    /// `data/*/logs/*.log`, not through the link.
    Direct,
}

impl Pattern {
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Link => "share/logs/**/*.log",
            Self::LinkAndRotated => "share/logs/*.log*",
            Self::Direct => "data/*/logs/*.log",
        }
    }
}

/// All files.
pub(crate) struct Disk {
    root: PathBuf,
    seed: u64,
    pattern: Pattern,
    /// Unfinished lines may be sent as they are.
    has_pieces: bool,
    pub(crate) nodes: Vec<Node>,
    /// `a/app.log` is `data/a/logs/app.log`.
    pub(crate) names: BTreeMap<String, usize>,
    /// Lines of which there are copies in other files.
    copied: BTreeSet<usize>,
    /// Links to files, by the names they lead to.
    pub(crate) aliases: BTreeMap<String, String>,
    /// Directories that may not be looked into.
    pub(crate) forbidden_pods: BTreeSet<String>,
    /// The pod that the link leads to.
    pub(crate) link: Option<&'static str>,
    pub(crate) lines: Vec<Line>,
    /// Texts made so far, parts of lines too.
    texts: usize,
    /// What may arrive.
    pub(crate) pieces: HashMap<Vec<u8>, Piece>,
    /// Which line has ever stood behind which.
    pub(crate) neighbours: HashSet<(usize, usize)>,
}

impl Disk {
    pub(crate) fn new(root: &Path, seed: u64, pattern: Pattern, has_pieces: bool) -> Self {
        for pod in ["a", "b"] {
            fs::create_dir_all(directory(root, pod)).expect("a directory");
        }
        Self {
            root: root.to_owned(),
            seed,
            pattern,
            has_pieces,
            nodes: Vec::new(),
            names: BTreeMap::new(),
            copied: BTreeSet::new(),
            aliases: BTreeMap::new(),
            forbidden_pods: BTreeSet::new(),
            link: None,
            lines: Vec::new(),
            texts: 0,
            pieces: HashMap::new(),
            neighbours: HashSet::new(),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        let (pod, file) = parts(name);
        directory(&self.root, pod).join(file)
    }

    pub(crate) fn has_pieces(&self) -> bool {
        self.has_pieces
    }

    /// The path as configured under which the patterns find this name while the link leads there.
    fn shown(&self, name: &str) -> Option<String> {
        let (pod, file) = parts(name);
        if pod.contains('.') {
            return None;
        }
        let (dir, is_match) = match self.pattern {
            Pattern::Link => ("share/logs".to_owned(), file.ends_with(".log")),
            Pattern::LinkAndRotated => ("share/logs".to_owned(), file.contains(".log")),
            Pattern::Direct => (format!("data/{pod}/logs"), file.ends_with(".log")),
        };
        is_match.then(|| self.root.join(dir).join(file).display().to_string())
    }

    /// The same, if the link leads there now.
    fn configured(&self, name: &str) -> Option<String> {
        let (pod, _) = parts(name);
        let is_there = self.pattern == Pattern::Direct || self.link == Some(pod);
        self.shown(name).filter(|_| is_there && !self.forbidden_pods.contains(pod))
    }

    /// The path of the file that this name says it is a generation of.
    fn shown_base(&self, name: &str) -> Option<String> {
        let (pod, file) = parts(name);
        let is_dated = file.contains('-') && file.ends_with(".log");
        let is_generation = is_dated || file.contains(".log.");
        // In a directory that was moved it is one of what stood there before.
        is_generation.then(|| self.shown(&format!("{}/{}.log", &pod[..1], stem(file)))).flatten()
    }

    pub(crate) fn names_of(&self, node: usize) -> impl Iterator<Item = &String> {
        self.names.iter().filter(move |(_, of)| **of == node).map(|(name, _)| name)
    }

    pub(crate) fn has_name(&self, node: usize) -> bool {
        self.names_of(node).next().is_some()
    }

    /// Everything that leads to a file: names, and links to them.
    fn ways(&self) -> impl Iterator<Item = (&String, usize)> {
        let links = self.aliases.iter();
        let links = links.filter_map(|(alias, name)| Some((alias, *self.names.get(name)?)));
        self.names.iter().map(|(name, node)| (name, *node)).chain(links)
    }

    /// The patterns find it, and it may be read.
    pub(crate) fn is_matched(&self, node: usize) -> bool {
        let mut ways = self.ways().filter(|(_, to)| *to == node);
        let Node { is_forbidden, archive, .. } = &self.nodes[node];
        let is_archive_found = archive.as_ref().is_some_and(|name| self.configured(name).is_some());
        is_archive_found || (!is_forbidden && ways.any(|(name, _)| self.configured(name).is_some()))
    }

    /// The running agent has it, or must find it.
    pub(crate) fn is_reachable(&self, node: usize) -> bool {
        let Node { is_held, is_expected, is_forbidden, .. } = self.nodes[node];
        let is_adopted = is_expected && !is_forbidden && self.is_kept(node) && !self.awaits_link();
        is_held || self.is_matched(node) || is_adopted
    }

    /// Whether the patterns lead through a link that is not there: what is known behind it waits.
    fn awaits_link(&self) -> bool {
        self.pattern != Pattern::Direct && self.link.is_none()
    }

    /// It can be found by a name in its directory, or by an archive that bears the name by which
    /// it is known.
    fn is_kept(&self, node: usize) -> bool {
        let is_known_by = |archive: &String| {
            let base = self.shown_base(archive);
            let paths = &self.nodes[node].paths;
            base.is_some() && paths.iter().all(|path| Some(path) == base.as_ref())
        };
        let is_open = |name: &str| !self.forbidden_pods.contains(parts(name).0);
        let archive = self.nodes[node].archive.as_ref();
        let archive = archive.filter(|name| FOLLOWS_ARCHIVES && is_open(name));
        self.names_of(node).any(|name| is_open(name)) || archive.is_some_and(is_known_by)
    }

    /// Whether a directory that cannot be looked into is not everything delivered: where a wildcard
    /// finds it, it is nothing as long as no log was found there.
    pub(crate) fn sees_closed_directories(&self) -> bool {
        self.pattern != Pattern::Direct
    }

    /// What would be if every file could be read; with `all` every directory too.
    pub(crate) fn with_rights<T>(&mut self, all: bool, ask: impl FnOnce(&Self) -> T) -> T {
        let pods = self.forbidden_pods.clone();
        self.forbidden_pods.retain(|_| !all);
        let forbidden: Vec<bool> = self.nodes.iter().map(|node| node.is_forbidden).collect();
        self.nodes.iter_mut().for_each(|node| node.is_forbidden = false);
        let answer = ask(self);
        self.forbidden_pods = pods;
        for (node, is_forbidden) in self.nodes.iter_mut().zip(forbidden) {
            node.is_forbidden = is_forbidden;
        }
        answer
    }

    /// Whether the line must arrive while the running process lives, all other things being left
    /// as they are.
    pub(crate) fn is_owed(&self, line: usize) -> bool {
        let Line { node, is_complete, fate, .. } = self.lines[line];
        is_complete
            && match fate {
                Fate::OnDisk => self.is_reachable(node),
                Fate::Read => true,
                Fate::Gone => false,
            }
    }

    /// The file that has this identity: numbers are used again, by copies too.
    pub(crate) fn node_of(&self, device: u64, inode: u64) -> Option<usize> {
        let is_it = |node: &Node| (node.device, node.inode) == (device, inode) && !node.is_lost;
        self.nodes.iter().rposition(is_it)
    }
}

/// The pod and the file of a name.
pub(crate) fn parts(name: &str) -> (&str, &str) {
    name.split_once('/').expect("a pod and a file")
}

/// What remains of a file's name when it is renamed or rotated.
pub(crate) fn stem(file: &str) -> &str {
    file.split(['.', '-']).next().expect("a first part")
}

/// `a` stands for `data/a/logs`, `a.3` for `data/a/logs.3`.
fn directory(root: &Path, pod: &str) -> PathBuf {
    let (pod, suffix) = pod.split_at(1);
    root.join(format!("data/{pod}/logs{suffix}"))
}
