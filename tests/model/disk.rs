//! The log files, and the app's own picture of them: which bytes it wrote where, what became of
//! them, and what the agent may be asked for.
//!
//! A *node* is an inode. A *generation* of it lasts from its creation, or a rewriting, to the next
//! rewriting. A *line* is a text that was written once; a rewriting that leaves it at its place (or
//! writes the same bytes again) puts the same line into the next generation. Every method does to
//! the real files what it does to the picture.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use crate::text::{self, LINE_BYTES_MIN};

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
        self.paths.contains(path) || self.other_paths.contains(path)
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
    has_archives: bool,
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
            has_archives: false,
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

    pub(crate) fn pattern(&self) -> Pattern {
        self.pattern
    }

    pub(crate) fn has_pieces(&self) -> bool {
        self.has_pieces
    }

    // === what the agent can find

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
        let stem = file.split(['.', '-', '_']).next().expect("a first part");
        let is_dated = file.contains('-') && file.ends_with(".log");
        let is_generation = is_dated || file.contains(".log.");
        // In a directory that was moved it is one of what stood there before.
        is_generation.then(|| self.shown(&format!("{}/{stem}.log", &pod[..1]))).flatten()
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
        is_held || self.is_matched(node) || (is_expected && !is_forbidden && self.is_kept(node))
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
        let archive = self.nodes[node].archive.as_ref().filter(|name| is_open(name));
        self.names_of(node).any(|name| is_open(name)) || archive.is_some_and(is_known_by)
    }

    /// Whether there is a gzipped file.
    pub(crate) fn has_archives(&self) -> bool {
        self.has_archives
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

    /// The file that had this identity last: numbers are used again.
    pub(crate) fn node_of(&self, device: u64, inode: u64) -> Option<usize> {
        self.nodes.iter().rposition(|node| (node.device, node.inode) == (device, inode))
    }

    // === names

    pub(crate) fn create(&mut self, name: &str) -> usize {
        let path = self.path(name);
        let file = OpenOptions::new().append(true).create_new(true).open(path).expect("a new file");
        let metadata = file.metadata().expect("its numbers");
        self.nodes.push(Node {
            device: metadata.dev(),
            inode: metadata.ino(),
            generation: 0,
            layout: Vec::new(),
            old_size_max: 0,
            turns_at_arrival: None,
            is_held: false,
            is_expected: false,
            known: None,
            known_durably: None,
            is_forbidden: false,
            is_displaced: false,
            is_lost: false,
            writer: None,
            archive: None,
            paths: BTreeSet::new(),
            other_paths: BTreeSet::new(),
        });
        let node = self.nodes.len() - 1;
        self.names.insert(name.to_owned(), node);
        self.note_base(node, name);
        self.note_paths();
        node
    }

    /// As rename(2): a file that has the new name loses it.
    pub(crate) fn rename(&mut self, from: &str, to: &str) {
        let node = self.names[from];
        fs::rename(self.path(from), self.path(to)).expect("a rename");
        self.names.remove(from);
        let loser = self.names.insert(to.to_owned(), node);
        self.note_base(node, to);
        self.note_paths();
        if let Some(loser) = loser {
            self.on_unlinked(loser);
        }
    }

    /// Removes a name. `keeps_writer`: the app keeps its descriptor if it was the last one.
    pub(crate) fn unlink(&mut self, name: &str, keeps_writer: bool) {
        let node = self.names[name];
        if keeps_writer && self.names_of(node).count() == 1 {
            let file = OpenOptions::new().append(true).open(self.path(name));
            self.nodes[node].writer = Some(file.expect("the log opens"));
        }
        fs::remove_file(self.path(name)).expect("a removal");
        self.names.remove(name);
        self.on_unlinked(node);
    }

    /// Files without a name that the app still writes to.
    pub(crate) fn written_without_name(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|&node| self.nodes[node].writer.is_some()).collect()
    }

    fn on_unlinked(&mut self, node: usize) {
        let Node { is_held, is_lost, archive, .. } = &self.nodes[node];
        if self.has_name(node) || archive.is_some() || *is_held || *is_lost {
            return;
        }
        self.nodes[node].is_lost = true;
        for placed in self.nodes[node].layout.clone() {
            self.on_destroyed(placed.line);
        }
    }

    fn on_destroyed(&mut self, line: usize) {
        let line = &mut self.lines[line];
        line.fate = if line.is_read { Fate::Read } else { Fate::Gone };
    }

    pub(crate) fn hard_link(&mut self, name: &str, other: &str) {
        fs::hard_link(self.path(name), self.path(other)).expect("another name");
        let node = self.names[name];
        self.names.insert(other.to_owned(), node);
        self.note_base(node, other);
        self.note_paths();
    }

    /// `ln -sfn NAME ALIAS`, at once.
    pub(crate) fn symbolic_link(&mut self, name: &str, alias: &str) {
        let next = self.path(alias).with_file_name("next");
        symlink(self.path(name), &next).expect("a link");
        fs::rename(next, self.path(alias)).expect("the link takes its place");
        self.aliases.insert(alias.to_owned(), name.to_owned());
        self.note_paths();
    }

    /// `cp NAME COPY; truncate -s 0 NAME`. Nothing else ever happens to the copy. `may_repeat`: the
    /// agent is not asked to know it at once.
    pub(crate) fn copy_and_truncate(&mut self, name: &str, copy: &str, may_repeat: bool) {
        fs::copy(self.path(name), self.path(copy)).expect("a copy");
        let node = self.names[name];
        for placed in &self.nodes[node].layout {
            self.copied.insert(placed.line);
            self.lines[placed.line].repeats_max += usize::from(may_repeat);
        }
        self.note_copy(node, copy);
        self.cut(name, 0);
    }

    /// `gzip NAME`. `knows_gzip`: the agent is asked to go on in the archive.
    pub(crate) fn gzip(&mut self, name: &str, knows_gzip: bool) {
        let status = std::process::Command::new("gzip").arg("-fk").arg(self.path(name)).status();
        assert!(status.expect("gzip").success(), "gzip works");
        self.has_archives = true;
        let node = self.names[name];
        if knows_gzip && self.names_of(node).count() == 1 {
            self.nodes[node].archive = Some(format!("{name}.gz"));
        }
        self.note_copy(node, &format!("{name}.gz"));
        self.unlink(name, false);
    }

    /// Points the link at a pod, at once; or removes it.
    pub(crate) fn point(&mut self, pod: Option<&'static str>) {
        let link = self.root.join("share/logs");
        match pod {
            Some(pod) => {
                let next = self.root.join("share/logs.next");
                symlink(self.root.join(format!("data/{pod}/logs")), &next).expect("a link");
                fs::rename(next, link).expect("the link takes its place");
            }
            None => fs::remove_file(link).expect("the link goes"),
        }
        self.link = pod;
        self.note_paths();
    }

    /// `mv logs logs.NUMBER; mkdir logs`.
    pub(crate) fn move_directory(&mut self, pod: &str, number: usize) {
        let to = format!("{pod}.{number}");
        fs::rename(directory(&self.root, pod), directory(&self.root, &to)).expect("a rename");
        fs::create_dir(directory(&self.root, pod)).expect("a directory");
        let moved = |name: &String| match parts(name) {
            (of, file) if of == pod => format!("{to}/{file}"),
            _ => name.clone(),
        };
        self.names = std::mem::take(&mut self.names)
            .into_iter()
            .map(|(name, node)| (moved(&name), node))
            .collect();
        self.aliases = std::mem::take(&mut self.aliases)
            .into_iter()
            .map(|(alias, name)| (moved(&alias), name))
            .collect();
        for index in 0..self.nodes.len() {
            let is_there = self.names_of(index).any(|name| parts(name).0 == to);
            let node = &mut self.nodes[index];
            node.archive = node.archive.as_ref().map(moved);
            if is_there || node.archive.as_ref().is_some_and(|name| parts(name).0 == to) {
                // Until the next clean stop its checkpoint may lead to where it was.
                node.is_displaced = true;
                node.is_expected = false;
                (node.known, node.known_durably) = (None, None);
            }
        }
    }

    pub(crate) fn forbid_directory(&mut self, pod: &str, is_forbidden: bool) {
        let mode = if is_forbidden { 0o000 } else { 0o755 };
        let permissions = fs::Permissions::from_mode(mode);
        fs::set_permissions(directory(&self.root, pod), permissions).expect("chmod");
        if is_forbidden {
            self.forbidden_pods.insert(pod.to_owned());
        } else {
            self.forbidden_pods.remove(pod);
        }
        self.note_paths();
    }

    fn note_paths(&mut self) {
        let found: Vec<(usize, String)> = self
            .ways()
            .filter(|(name, _)| self.configured(name).is_some())
            .map(|(name, node)| (node, name.clone()))
            .collect();
        for (node, name) in found {
            let path = self.shown(&name).expect("it is configured");
            self.nodes[node].paths.insert(path);
        }
    }

    /// What stands under this name may arrive as a generation of another file.
    fn note_base(&mut self, node: usize, name: &str) {
        let path = self.shown_base(name);
        self.nodes[node].other_paths.extend(path);
    }

    /// What stands there is, or was, a copy.
    fn note_copy(&mut self, node: usize, name: &str) {
        let path = self.shown(name);
        self.nodes[node].other_paths.extend(path);
        self.note_base(node, name);
    }

    pub(crate) fn forbid(&mut self, name: &str, is_forbidden: bool) {
        let mode = if is_forbidden { 0o000 } else { 0o644 };
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(mode)).expect("chmod");
        let node = self.names[name];
        self.nodes[node].is_forbidden = is_forbidden;
    }

    // === bytes

    /// Appends to a file, by its name or the app's descriptor.
    fn write(&self, node: usize, bytes: &[u8]) {
        let opened = self.names_of(node).next().map(|name| {
            let path = self.path(name);
            OpenOptions::new().append(true).open(path).expect("the log opens")
        });
        let mut file = opened.as_ref().or(self.nodes[node].writer.as_ref()).expect("a descriptor");
        file.write_all(bytes).expect("the app can write");
    }

    /// Appends a complete line for each size; an unfinished one that stands at the end grows into
    /// the first.
    pub(crate) fn append(&mut self, node: usize, sizes: &[usize]) {
        let mut bytes = Vec::new();
        for &size in sizes {
            bytes.extend(self.put(node, size, true));
        }
        self.write(node, &bytes);
    }

    /// Appends a part of a line, or another part of an unfinished one.
    pub(crate) fn append_part(&mut self, node: usize, size: usize) {
        let bytes = self.put(node, size, false);
        self.write(node, &bytes);
    }

    /// Its last line, if that is unfinished.
    pub(crate) fn unfinished(&self, node: usize) -> Option<usize> {
        let last = self.nodes[node].layout.last()?.line;
        (!self.lines[last].is_complete).then_some(last)
    }

    /// Puts a line of `size` bytes, or the rest of one, or a part, into the picture. Returns the
    /// bytes to write.
    fn put(&mut self, node: usize, size: usize, is_complete: bool) -> Vec<u8> {
        let end = self.nodes[node].size();
        let mut bytes = text::line(self.seed, node, self.texts, size);
        self.texts += 1;
        if let Some(line) = self.unfinished(node) {
            bytes.insert(0, b' ');
            let cut = self.lines[line].text.len();
            self.lines[line].cuts.push(cut);
            self.lines[line].text.extend_from_slice(&bytes);
            self.finish(line, is_complete, &mut bytes);
            let last = self.nodes[node].layout.last_mut().expect("it stands there");
            last.end = end + bytes.len() as u64;
        } else {
            let line = self.begin_line(node, bytes.clone());
            self.finish(line, is_complete, &mut bytes);
            self.place(node, line, bytes.len());
        }
        bytes
    }

    fn begin_line(&mut self, node: usize, text: Vec<u8>) -> usize {
        self.lines.push(Line {
            node,
            born: self.nodes[node].generation,
            text,
            cuts: Vec::new(),
            ending: self.next_ending(),
            is_complete: false,
            fate: Fate::OnDisk,
            is_read: false,
            is_safe: false,
            is_durable: false,
            repeats_max: 0,
        });
        self.lines.len() - 1
    }

    /// Some lines end as on another system.
    fn next_ending(&self) -> &'static str {
        if self.lines.len() % 8 == 7 { "\r\n" } else { "\n" }
    }

    fn finish(&mut self, line: usize, is_complete: bool, bytes: &mut Vec<u8>) {
        self.lines[line].is_complete = is_complete;
        if is_complete {
            bytes.extend_from_slice(self.lines[line].ending.as_bytes());
        }
        let Line { text, cuts, .. } = &self.lines[line];
        let mut ends = vec![0, text.len()];
        if self.has_pieces {
            ends.splice(1..1, cuts.iter().copied());
        } else if !is_complete {
            return;
        }
        for (index, &start) in ends.iter().enumerate() {
            for &end in &ends[index + 1..] {
                let piece = Piece { line, start, end };
                let old = self.pieces.insert(text[start..end].to_vec(), piece);
                assert!(old.is_none_or(|old| old == piece), "texts are unmistakable: {piece:?}");
            }
        }
    }

    fn place(&mut self, node: usize, line: usize, bytes: usize) {
        let layout = &mut self.nodes[node].layout;
        let start = layout.last().map_or(0, |last| last.end);
        if let Some(last) = layout.last() {
            self.neighbours.insert((last.line, line));
        }
        layout.push(Placed { line, start, end: start + bytes as u64 });
        let is_lost = self.nodes[node].is_lost;
        self.lines[line].fate = if is_lost { Fate::Gone } else { Fate::OnDisk };
    }

    // === rewriting

    /// A size to cut a file to: `size` if it falls within the text of a line and that is wanted,
    /// else the start of the line.
    pub(crate) fn place_to_cut(&self, node: usize, size: u64, is_within: bool) -> u64 {
        let layout = &self.nodes[node].layout;
        let Some(placed) = layout.iter().rfind(|placed| placed.start <= size) else { return 0 };
        let text_end = placed.start + self.lines[placed.line].text.len() as u64;
        if is_within && size < text_end { size } else { placed.start }
    }

    /// `truncate -s SIZE`.
    pub(crate) fn cut(&mut self, name: &str, size: u64) {
        let file = OpenOptions::new().write(true).open(self.path(name)).expect("the log opens");
        file.set_len(size).expect("a truncation");
        let node = self.names[name];
        let old = self.begin_generation(node);
        let mut rest = size;
        for placed in old {
            let bytes = placed.end - placed.start;
            if bytes <= rest {
                self.replace(node, placed, bytes);
            } else if rest > 0 {
                // Cut within: what is left of it is the beginning of another line.
                let len = usize::try_from(rest).expect("small files");
                let text = self.lines[placed.line].text[..len].to_vec();
                let line = self.begin_line(node, text);
                self.finish(line, false, &mut Vec::new());
                self.place(node, line, len);
                self.on_destroyed(placed.line);
            } else {
                self.on_destroyed(placed.line);
            }
            rest -= bytes.min(rest);
        }
    }

    /// Writes the file anew, to `size` bytes: its first `kept` lines as they were, then others.
    /// `is_in_place`: over the old bytes, without a truncation; only to the same size.
    pub(crate) fn refill(&mut self, name: &str, kept: usize, size: u64, is_in_place: bool) {
        let node = self.names[name];
        let old = self.begin_generation(node);
        let mut bytes = Vec::new();
        for (index, placed) in old.into_iter().enumerate() {
            if index < kept && self.lines[placed.line].is_complete {
                bytes.extend_from_slice(&self.lines[placed.line].text);
                bytes.extend_from_slice(self.lines[placed.line].ending.as_bytes());
                self.replace(node, placed, placed.end - placed.start);
            } else {
                self.on_destroyed(placed.line);
            }
        }
        let mut left = usize::try_from(size).expect("small files").saturating_sub(bytes.len());
        while left >= LINE_BYTES_MIN {
            // The last line takes what would be too short for another.
            let line = if left < 6 * LINE_BYTES_MIN { left } else { 4 * LINE_BYTES_MIN };
            bytes.extend(self.put(node, line - self.next_ending().len(), true));
            left -= line;
        }
        let mut options = OpenOptions::new();
        options.write(true).truncate(!is_in_place);
        let mut file = options.open(self.path(name)).expect("the log opens");
        file.write_all(&bytes).expect("the app can write");
    }

    /// Returns what stood in the old one; the new one is empty.
    fn begin_generation(&mut self, node: usize) -> Vec<Placed> {
        let size = self.nodes[node].size();
        let is_matched = self.is_matched(node);
        let node = &mut self.nodes[node];
        node.old_size_max = node.old_size_max.max(size);
        node.generation += 1;
        node.turns_at_arrival = None;
        // A checkpoint of other bytes leads nobody to a name that the patterns do not find.
        node.is_expected &= node.is_held || is_matched;
        std::mem::take(&mut node.layout)
    }

    /// A line stands in the new generation as it did in the old one, and may be sent again.
    fn replace(&mut self, node: usize, placed: Placed, bytes: u64) {
        let line = &mut self.lines[placed.line];
        line.repeats_max += 1;
        line.is_safe = false;
        line.is_durable = false;
        self.place(node, placed.line, usize::try_from(bytes).expect("small files"));
    }

    // === what becomes of it when a process ends

    /// The agent's process is gone, and did not deliver everything.
    pub(crate) fn on_died(&mut self) {
        for line in &mut self.lines {
            if line.fate == Fate::Read {
                line.fate = Fate::Gone;
            }
            // What it had not saved, the next one sends again.
            if line.fate == Fate::OnDisk && !line.is_safe {
                line.repeats_max += 1;
            }
        }
        // Whose copy a copy is may not have been saved.
        for &line in &self.copied {
            self.lines[line].repeats_max += 1;
        }
        self.on_ended();
    }

    /// The agent's process is gone, and has delivered everything.
    pub(crate) fn on_drained(&mut self) {
        for node in 0..self.nodes.len() {
            if self.is_kept(node) && self.is_reachable(node) {
                let node = &mut self.nodes[node];
                node.known = Some(node.generation);
                node.is_displaced = false;
            }
        }
        for index in 0..self.lines.len() {
            if self.is_owed(index) {
                self.lines[index].is_safe = true;
                self.lines[index].is_durable = true;
            }
        }
        for node in &mut self.nodes {
            node.known_durably = node.known;
        }
        self.on_ended();
    }

    fn on_ended(&mut self) {
        for line in &mut self.lines {
            line.is_read = false;
        }
        for node in 0..self.nodes.len() {
            self.nodes[node].is_held = false;
            self.nodes[node].is_expected = false;
            self.nodes[node].turns_at_arrival = None;
            self.nodes[node].writer = None;
            self.on_unlinked(node);
        }
    }

    /// After a death, all that was saved and not synced is lost as well.
    pub(crate) fn on_power_cut(&mut self) {
        for line in &mut self.lines {
            if line.fate == Fate::OnDisk && line.is_safe && !line.is_durable {
                line.repeats_max += 1;
            }
            line.is_safe = line.is_durable;
        }
        for node in &mut self.nodes {
            node.known = node.known_durably;
        }
    }

    /// A process starts: its checkpoint leads it to what has a name and the same bytes.
    pub(crate) fn on_started(&mut self) {
        for index in 0..self.nodes.len() {
            let is_kept = self.is_kept(index);
            let node = &mut self.nodes[index];
            node.is_expected = is_kept && node.known == Some(node.generation);
        }
    }

    /// Lines that were first written in the newest generation of a node.
    pub(crate) fn lines_born_in(&self, node: usize) -> Vec<usize> {
        let Node { generation, layout, .. } = &self.nodes[node];
        let lines = layout.iter().map(|placed| placed.line);
        lines.filter(|&line| self.lines[line].born == *generation).collect()
    }

    /// One of them has arrived: the agent knows of the generation.
    pub(crate) fn on_arrival(&mut self, node: usize, turns: u64) {
        self.nodes[node].turns_at_arrival.get_or_insert(turns);
    }

    /// The running agent says, after so many turns, how far it has come with a file.
    pub(crate) fn on_status(&mut self, index: usize, turns: u64, read: u64, acked: u64) {
        let node = &mut self.nodes[index];
        node.is_held = true;
        let is_fresh = node.turns_at_arrival.is_some_and(|before| before < turns);
        let is_of_this =
            |offset: u64| node.generation == 0 || offset > node.old_size_max || is_fresh;
        if is_of_this(read) && !node.is_displaced {
            node.known = Some(node.generation);
        }
        for placed in &node.layout {
            let line = &mut self.lines[placed.line];
            line.is_read |= is_of_this(read) && placed.end <= read && line.is_complete;
            line.is_safe |= is_of_this(acked) && placed.end <= acked && line.is_complete;
        }
    }
}

/// The pod and the file of a name.
pub(crate) fn parts(name: &str) -> (&str, &str) {
    name.split_once('/').expect("a pod and a file")
}

/// `a` stands for `data/a/logs`, `a.3` for `data/a/logs.3`.
fn directory(root: &Path, pod: &str) -> PathBuf {
    let (pod, suffix) = pod.split_at(1);
    root.join(format!("data/{pod}/logs{suffix}"))
}
