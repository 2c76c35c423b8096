//! The disks: directories, files, links and mounts as a kernel keeps them, and all text that was ever
//! written.
//!
//! A *node* has bytes, names or a target; *dentries* are its names, which come and go. A node lives as
//! long as it has a name or the agent holds it open, and its number is used again afterwards. What an
//! app writes to one file until that is truncated is a *text*. Copies and archives hold the first bytes
//! of a text. Texts are kept for ever, for the invariants and not for the agent.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::rc::Rc;

use crate::notices::{Kind as Notice, Notices};

pub type NodeId = usize;
pub type TextId = usize;
pub type DentryId = usize;

/// Time stamps are those of the last tick.
const TICK: i64 = 4_000_000;
const LINKS_MAX: usize = 40;

pub struct Disk {
    pub nodes: Vec<Node>,
    pub texts: Vec<Text>,
    pub dentries: Vec<Dentry>,
    pub volumes: Vec<Volume>,
    /// Directories that something is mounted at, and the root of that.
    mounts: BTreeMap<NodeId, NodeId>,
    pub notices: Notices,
    /// The time that new stamps bear, in nanoseconds since 1970.
    pub wall: i64,
    /// Grows whenever a name comes, goes or changes, or a text begins.
    pub version: u64,
    /// Names by node.
    names: Vec<Vec<DentryId>>,
    numbers_free: Vec<(usize, u64)>,
    number_next: u64,
    rng: fastrand::Rng,
}

pub struct Volume {
    pub device: u64,
    pub knows_births: bool,
    pub magic: u32,
    /// The kernel tells of what happens here.
    pub tells: bool,
}

pub struct Node {
    pub volume: usize,
    pub number: u64,
    pub born: i64,
    pub modified: i64,
    pub changed: i64,
    pub links: u64,
    pub is_freed: bool,
    /// The agent may not look.
    pub is_shut: bool,
    pub body: Body,
    /// Of a directory: its name.
    dentry: Option<DentryId>,
    hold: Rc<()>,
}

pub enum Body {
    /// The whole of a text, which an app may add to.
    Text(TextId),
    /// The first bytes of a text.
    Copy(TextId, usize),
    /// The first bytes of a text, compressed.
    Packed(TextId, usize, Vec<u8>),
    Dir(BTreeMap<String, DentryId>),
    Link(String),
}

pub struct Dentry {
    pub dir: NodeId,
    pub name: String,
    pub node: NodeId,
    pub is_dead: bool,
}

/// What was written to one file until that was truncated.
pub struct Text {
    pub bytes: Vec<u8>,
    pub app: usize,
    /// The text that this one equals up to there, written by somebody else or before.
    pub like: Option<(TextId, usize)>,
    /// Real path of the log that it was written as.
    pub home: String,
    /// It was begun after the bytes of that other one had gone away.
    pub is_later: bool,
    pub node: NodeId,
    /// An archive of it was cut off for a while: its text ended anywhere.
    pub is_cut_off: bool,
    /// Where it ended, or a copy of it, at some time.
    pub ends: BTreeSet<usize>,
}

/// An open descriptor: holds its node until it is dropped.
#[derive(Clone)]
pub struct Handle {
    pub node: NodeId,
    pub dentry: DentryId,
    pub device: u64,
    _hold: Rc<()>,
}

pub fn error(errno: rustix::io::Errno) -> io::Error {
    errno.into()
}

impl Disk {
    pub fn new(mut rng: fastrand::Rng, wall: i64) -> Self {
        let volume = |device| Volume { device, knows_births: true, magic: 0xef53, tells: true };
        let mut disk = Self {
            nodes: Vec::new(),
            texts: Vec::new(),
            dentries: Vec::new(),
            volumes: vec![volume(1), volume(2)],
            mounts: BTreeMap::new(),
            notices: Notices::default(),
            wall,
            version: 0,
            names: Vec::new(),
            numbers_free: Vec::new(),
            number_next: 100,
            rng: rng.fork(),
        };
        let root = disk.node(0, Body::Dir(BTreeMap::new()));
        let data = disk.add(root, "data", Body::Dir(BTreeMap::new()));
        let volume_root = disk.node(1, Body::Dir(BTreeMap::new()));
        disk.mounts.insert(data, volume_root);
        disk
    }

    fn node(&mut self, volume: usize, body: Body) -> NodeId {
        let free: Vec<usize> = (0..self.numbers_free.len())
            .filter(|&index| self.numbers_free[index].0 == volume)
            .collect();
        let number = if !free.is_empty() && self.rng.u8(..10) < 7 {
            let index = free[self.rng.usize(..free.len())];
            self.numbers_free.swap_remove(index).1
        } else {
            self.number_next += 1;
            self.number_next
        };
        let stamp = self.stamp();
        let dentry = None;
        self.nodes.push(Node {
            volume,
            number,
            born: stamp,
            modified: stamp,
            changed: stamp,
            links: 1,
            is_freed: false,
            is_shut: false,
            body,
            dentry,
            hold: Rc::new(()),
        });
        self.names.push(Vec::new());
        self.nodes.len() - 1
    }

    pub fn stamp(&self) -> i64 {
        self.wall - self.wall.rem_euclid(TICK)
    }

    fn add(&mut self, dir: NodeId, name: &str, body: Body) -> NodeId {
        let node = self.node(self.nodes[dir].volume, body);
        self.link(dir, name, node);
        let is_dir = matches!(self.nodes[node].body, Body::Dir(_));
        self.tell(dir, Notice::Create, name, is_dir);
        node
    }

    fn link(&mut self, dir: NodeId, name: &str, node: NodeId) {
        self.dentries.push(Dentry { dir, name: name.to_owned(), node, is_dead: false });
        self.names[node].push(self.dentries.len() - 1);
        self.enter(dir, name, self.dentries.len() - 1);
    }

    fn enter(&mut self, dir: NodeId, name: &str, dentry: DentryId) {
        let node = self.dentries[dentry].node;
        (self.dentries[dentry].dir, self.dentries[dentry].name) = (dir, name.to_owned());
        if matches!(self.nodes[node].body, Body::Dir(_)) {
            self.nodes[node].dentry = Some(dentry);
        }
        let before = self.entries_mut(dir).insert(name.to_owned(), dentry);
        assert!(before.is_none(), "the name {name} is free");
        self.touch_dir(dir);
    }

    fn touch_dir(&mut self, dir: NodeId) {
        self.version += 1;
        let stamp = self.stamp();
        (self.nodes[dir].modified, self.nodes[dir].changed) = (stamp, stamp);
    }

    fn entries_mut(&mut self, dir: NodeId) -> &mut BTreeMap<String, DentryId> {
        let Body::Dir(entries) = &mut self.nodes[dir].body else { panic!("it is a directory") };
        entries
    }

    fn tell(&mut self, dir: NodeId, what: Notice, name: &str, is_dir: bool) {
        if self.volumes[self.nodes[dir].volume].tells {
            self.notices.push(dir, what, name, is_dir);
        }
    }

    // === paths

    /// What a path leads to, and the last name on its way.
    pub fn walk(&self, path: &str, follows: bool) -> io::Result<(NodeId, Option<DentryId>)> {
        use rustix::io::Errno;
        let mut names: VecDeque<String> = components(path).collect();
        let mut way = vec![(0, None)];
        let mut links = 0;
        while let Some(name) = names.pop_front() {
            if name == ".." {
                if way.len() > 1 {
                    way.pop();
                }
                continue;
            }
            let (at, _) = way[way.len() - 1];
            let Body::Dir(entries) = &self.nodes[at].body else { return Err(error(Errno::NOTDIR)) };
            if self.nodes[at].is_shut {
                return Err(error(Errno::ACCESS));
            }
            let Some(&dentry) = entries.get(&name) else { return Err(error(Errno::NOENT)) };
            let node = self.dentries[dentry].node;
            match &self.nodes[node].body {
                Body::Link(target) if follows || !names.is_empty() => {
                    links += 1;
                    if links > LINKS_MAX {
                        return Err(error(Errno::LOOP));
                    }
                    if target.starts_with('/') {
                        way.truncate(1);
                    }
                    components(target).collect::<Vec<_>>().into_iter().rev().for_each(|name| {
                        names.push_front(name);
                    });
                }
                _ => way.push((self.mounts.get(&node).copied().unwrap_or(node), Some(dentry))),
            }
        }
        Ok(way[way.len() - 1])
    }

    /// The file or directory at a path.
    pub fn at(&self, path: &str) -> Option<NodeId> {
        self.walk(path, true).ok().map(|(node, _)| node)
    }

    /// Directory and name of a path; the directory is there.
    fn split(&self, path: &str) -> (NodeId, String) {
        let (dir, name) = path.rsplit_once('/').expect("an absolute path");
        let dir = if dir.is_empty() { 0 } else { self.at(dir).expect("the directory is there") };
        (dir, name.to_owned())
    }

    pub fn has_dir(&self, path: &str) -> bool {
        self.at(path).is_some_and(|node| matches!(self.nodes[node].body, Body::Dir(_)))
    }

    /// Where a name really stands, and whether it is gone.
    pub fn place(&self, dentry: DentryId) -> (String, bool) {
        let mut names = Vec::new();
        let is_dead = self.dentries[dentry].is_dead;
        let mut next = Some(dentry);
        while let Some(dentry) = next {
            names.push(self.dentries[dentry].name.clone());
            let dir = self.dentries[dentry].dir;
            let covered = self.mounts.iter().find(|(_, root)| **root == dir).map(|(at, _)| *at);
            next = self.nodes[covered.unwrap_or(dir)].dentry;
        }
        names.push(String::new());
        names.reverse();
        (names.join("/"), is_dead)
    }

    /// Where a directory really is.
    pub fn real(&self, dir: NodeId) -> String {
        let covered = self.mounts.iter().find(|(_, root)| **root == dir).map(|(at, _)| *at);
        let dentry = self.nodes[covered.unwrap_or(dir)].dentry;
        dentry.map_or_else(|| "/".to_owned(), |dentry| self.place(dentry).0)
    }

    pub fn is_mount_root(&self, node: NodeId) -> bool {
        node == 0 || self.mounts.values().any(|root| *root == node)
    }

    /// The names of a node that it still has.
    pub fn names_of(&self, node: NodeId) -> impl Iterator<Item = String> {
        let names = self.names[node].iter().filter(|name| !self.dentries[**name].is_dead);
        names.map(|name| self.place(*name).0)
    }

    // === what apps and people do

    pub fn make_dirs(&mut self, path: &str) {
        let mut at = String::new();
        for name in components(path) {
            let above = at.clone();
            at = format!("{at}/{name}");
            if self.walk(&at, false).is_err() {
                let dir = if above.is_empty() { 0 } else { self.at(&above).expect("it was made") };
                self.add(dir, &name, Body::Dir(BTreeMap::new()));
            }
        }
    }

    pub fn symlink(&mut self, target: &str, path: &str) {
        let (dir, name) = self.split(path);
        self.add(dir, &name, Body::Link(target.to_owned()));
    }

    /// Makes a file with a text of its own, which begins like another one up to there.
    pub fn create(&mut self, path: &str, app: usize, like: Option<(TextId, usize)>) -> NodeId {
        let (dir, name) = self.split(path);
        let text = self.texts.len();
        let node = self.add(dir, &name, Body::Text(text));
        let home = self.names_of(node).next().expect("it has just got a name");
        self.begin_text(app, home, node, like);
        node
    }

    fn begin_text(
        &mut self,
        app: usize,
        home: String,
        node: NodeId,
        like: Option<(TextId, usize)>,
    ) -> TextId {
        let bytes = like.map(|(text, len)| self.texts[text].bytes[..len].to_vec());
        let bytes = bytes.unwrap_or_default();
        let ends = BTreeSet::from([bytes.len()]);
        self.version += 1;
        self.texts.push(Text {
            bytes,
            app,
            home,
            like,
            is_later: false,
            is_cut_off: false,
            node,
            ends,
        });
        self.texts.len() - 1
    }

    pub fn append(&mut self, node: NodeId, bytes: &[u8]) {
        let Body::Text(text) = self.nodes[node].body else { panic!("apps write to their logs") };
        self.texts[text].bytes.extend_from_slice(bytes);
        let end = self.texts[text].bytes.len();
        self.texts[text].ends.insert(end);
        self.on_written(node);
    }

    /// Empties a file; returns the text that ended.
    pub fn truncate(&mut self, node: NodeId) -> TextId {
        let Body::Text(old) = self.nodes[node].body else { panic!("logs are truncated") };
        let home = self.texts[old].home.clone();
        let text = self.begin_text(self.texts[old].app, home, node, None);
        self.nodes[node].body = Body::Text(text);
        self.on_written(node);
        old
    }

    /// Makes an empty file that a copy of `of` is written to.
    pub fn begin_copy(&mut self, of: NodeId, path: &str, is_packed: bool) -> NodeId {
        let (text, _) = self.carried(of).expect("files are copied");
        let (dir, name) = self.split(path);
        let body = if is_packed { Body::Packed(text, 0, Vec::new()) } else { Body::Copy(text, 0) };
        self.add(dir, &name, body)
    }

    /// Writes so many more bytes to a copy.
    pub fn grow_copy(&mut self, node: NodeId, more: usize) {
        if let Body::Copy(text, len) = &mut self.nodes[node].body {
            *len += more;
            self.texts[*text].ends.insert(*len);
        }
        self.on_written(node);
    }

    /// Writes the first `len` bytes of the text compressed, the file's first `part` of all parts.
    pub fn write_packed(&mut self, node: NodeId, len: usize, share: f64) {
        use std::io::Write as _;
        let Body::Packed(text, ..) = self.nodes[node].body else { panic!("archives are written") };
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&self.texts[text].bytes[..len]).expect("memory");
        let mut bytes = encoder.finish().expect("memory");
        bytes.truncate((bytes.len() as f64 * share) as usize);
        self.texts[text].ends.insert(len);
        self.texts[text].is_cut_off |= share < 1.0;
        self.nodes[node].body = Body::Packed(text, if share < 1.0 { 0 } else { len }, bytes);
        self.on_written(node);
    }

    /// Whether it is a file that an app may write to.
    pub fn is_log(&self, node: NodeId) -> bool {
        matches!(self.nodes[node].body, Body::Text(_))
    }

    /// The text that a file holds the first bytes of, and how many.
    pub fn carried(&self, node: NodeId) -> Option<(TextId, usize)> {
        match self.nodes[node].body {
            Body::Text(text) => Some((text, self.texts[text].bytes.len())),
            Body::Copy(text, len) | Body::Packed(text, len, _) => Some((text, len)),
            Body::Dir(_) | Body::Link(_) => None,
        }
    }

    pub fn rename(&mut self, old: &str, new: &str) -> bool {
        let Ok((_, Some(dentry))) = self.walk(old, false) else { return false };
        if self.walk(new, false).is_ok() {
            self.unlink(new);
        }
        let (dir, name) = (self.dentries[dentry].dir, self.dentries[dentry].name.clone());
        let node = self.dentries[dentry].node;
        let is_dir = matches!(self.nodes[node].body, Body::Dir(_));
        self.entries_mut(dir).remove(&name);
        self.touch_dir(dir);
        self.tell(dir, Notice::MovedFrom, &name, is_dir);
        let (new_dir, new_name) = self.split(new);
        self.enter(new_dir, &new_name, dentry);
        self.tell(new_dir, Notice::MovedTo, &new_name, is_dir);
        if is_dir {
            self.notices.push_self(node, Notice::MoveSelf);
        }
        self.nodes[node].changed = self.stamp();
        true
    }

    /// Takes a name away: of a file, a link, or an empty directory.
    pub fn unlink(&mut self, path: &str) -> Option<NodeId> {
        let (_, dentry) = self.walk(path, false).ok()?;
        let dentry = dentry?;
        let Dentry { dir, node, .. } = self.dentries[dentry];
        let name = self.dentries[dentry].name.clone();
        let is_dir = matches!(self.nodes[node].body, Body::Dir(_));
        self.dentries[dentry].is_dead = true;
        self.entries_mut(dir).remove(&name);
        self.touch_dir(dir);
        self.nodes[node].links -= 1;
        self.nodes[node].changed = self.stamp();
        if is_dir {
            self.notices.push_self(node, Notice::DeleteSelf);
        }
        self.tell(dir, Notice::Delete, &name, is_dir);
        Some(node)
    }

    pub fn set_shut(&mut self, node: NodeId, is_shut: bool) {
        self.nodes[node].is_shut = is_shut;
        self.nodes[node].changed = self.stamp();
        for dentry in self.names[node].clone() {
            if self.dentries[dentry].is_dead {
                continue;
            }
            let (dir, name) = (self.dentries[dentry].dir, self.dentries[dentry].name.clone());
            let is_dir = matches!(self.nodes[node].body, Body::Dir(_));
            self.tell(dir, Notice::Attrib, &name, is_dir);
        }
    }

    fn on_written(&mut self, node: NodeId) {
        let stamp = self.stamp();
        (self.nodes[node].modified, self.nodes[node].changed) = (stamp, stamp);
        let names = self.names[node].iter().map(|name| &self.dentries[*name]);
        let names: Vec<_> =
            names.filter(|one| !one.is_dead).map(|one| (one.dir, one.name.clone())).collect();
        for (dir, name) in names {
            self.tell(dir, Notice::Modify, &name, false);
        }
    }

    // === volumes

    /// Mounts the volume of the logs, or takes it away.
    pub fn mount(&mut self, is_there: bool) {
        self.version += 1;
        let data = self.nodes.iter().position(|node| node.dentry.is_some()).expect("/data");
        let root = 2;
        if is_there {
            self.mounts.insert(data, root);
        } else {
            self.mounts.remove(&data);
        }
    }

    /// The same volume, under another number.
    pub fn renumber(&mut self) {
        self.version += 1;
        self.volumes[1].device += 2;
    }

    /// All files stand on another volume from now on: other numbers and births for everything.
    pub fn copy_elsewhere(&mut self) {
        self.renumber();
        self.numbers_free.retain(|(volume, _)| *volume != 1);
        self.number_next += 1000;
        let stamp = self.stamp();
        for node in 0..self.nodes.len() {
            if self.nodes[node].volume == 1 && !self.nodes[node].is_freed {
                self.number_next += 1;
                self.nodes[node].number = self.number_next;
                self.nodes[node].born = stamp;
                self.nodes[node].changed = stamp;
            }
        }
    }

    // === descriptors

    pub fn open(&self, path: &str) -> io::Result<Handle> {
        let (node, dentry) = self.walk(path, true)?;
        if self.nodes[node].is_shut {
            return Err(error(rustix::io::Errno::ACCESS));
        }
        let device = self.device(node);
        let dentry = dentry.ok_or_else(|| error(rustix::io::Errno::ISDIR))?;
        Ok(Handle { node, dentry, device, _hold: Rc::clone(&self.nodes[node].hold) })
    }

    pub fn device(&self, node: NodeId) -> u64 {
        self.volumes[self.nodes[node].volume].device
    }

    pub fn bytes(&self, node: NodeId) -> &[u8] {
        match &self.nodes[node].body {
            Body::Text(text) => &self.texts[*text].bytes,
            Body::Copy(text, len) => &self.texts[*text].bytes[..*len],
            Body::Packed(.., bytes) => bytes,
            Body::Dir(_) | Body::Link(_) => &[],
        }
    }

    pub fn is_held(&self, node: NodeId) -> bool {
        Rc::strong_count(&self.nodes[node].hold) > 1
    }

    /// Frees the nodes that have neither a name nor a holder.
    pub fn reap(&mut self) {
        for node in 0..self.nodes.len() {
            let Node { links, is_freed, number, volume, .. } = self.nodes[node];
            if links == 0 && !is_freed && !self.is_held(node) {
                self.nodes[node].is_freed = true;
                self.numbers_free.push((volume, number));
            }
        }
    }

    /// Files that are there, by name or held by the agent.
    pub fn files(&self) -> impl Iterator<Item = (NodeId, TextId, usize)> {
        let there = (0..self.nodes.len()).filter(|&node| !self.nodes[node].is_freed);
        there.filter_map(|node| self.carried(node).map(|(text, len)| (node, text, len)))
    }
}

fn components(path: &str) -> impl Iterator<Item = String> {
    path.split('/').filter(|name| !name.is_empty() && *name != ".").map(str::to_owned)
}
