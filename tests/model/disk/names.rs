//! Names: files that are made, renamed, linked, copied and removed; links that are pointed elsewhere.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

use super::{Disk, Fate, Node, directory, parts};
use crate::actions::KNOWS_COPIES_AT_ONCE;

impl Disk {
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

    pub(super) fn on_unlinked(&mut self, node: usize) {
        let Node { is_held, is_lost, archive, .. } = &self.nodes[node];
        if self.has_name(node) || archive.is_some() || *is_held || *is_lost {
            return;
        }
        self.nodes[node].is_lost = true;
        for placed in self.nodes[node].layout.clone() {
            self.on_destroyed(placed.line);
        }
    }

    pub(super) fn on_destroyed(&mut self, line: usize) {
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

    /// `cp NAME COPY; truncate -s 0 NAME`. Nothing else ever happens to the copy.
    pub(crate) fn copy_and_truncate(&mut self, name: &str, copy: &str) {
        fs::copy(self.path(name), self.path(copy)).expect("a copy");
        let node = self.names[name];
        // Of a file with several names the agent may know another than the copy bears.
        let is_known = KNOWS_COPIES_AT_ONCE && self.names_of(node).count() == 1;
        for placed in &self.nodes[node].layout {
            self.copied.insert(placed.line);
            self.lines[placed.line].repeats_max += usize::from(!is_known);
        }
        self.note_copy(node, copy);
        self.cut(name, 0);
    }

    /// `gzip NAME`, which must be the only name.
    pub(crate) fn gzip(&mut self, name: &str) {
        let status = std::process::Command::new("gzip").arg("-k").arg(self.path(name)).status();
        assert!(status.expect("gzip").success(), "gzip works");
        self.on_archived(name);
    }

    /// The archive is written; the file goes.
    pub(crate) fn on_archived(&mut self, name: &str) {
        let (node, archive) = (self.names[name], format!("{name}.gz"));
        self.note_copy(node, &archive);
        self.nodes[node].archive = Some(archive);
        self.expect_unfinished(node);
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

    /// What stands under this name may arrive as a generation of another file, or in the place of one
    /// that had the name itself while the link led there; and that one may be known by an earlier
    /// name.
    fn note_base(&mut self, node: usize, name: &str) {
        let (pod, file) = parts(name);
        let same = self.shown(&format!("{}/{file}", &pod[..1]));
        for path in [self.shown_base(name), same].into_iter().flatten() {
            let known = self.nodes.iter().filter(|one| one.may_arrive_as(&path));
            let earlier: Vec<String> = known.flat_map(Node::all_paths).cloned().collect();
            let paths = &mut self.nodes[node].other_paths;
            paths.extend(earlier);
            paths.insert(path);
        }
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
}
