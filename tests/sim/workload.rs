//! The apps and who looks after their files: lines are appended, whole and in pieces, and files are
//! renamed, copied and emptied, compressed, deleted, moved.
//!
//! All text is random, so that no two places of any file look alike and what was delivered can be
//! told from what was not; but for the few files that are made to look like others.

use std::collections::VecDeque;

use crate::disk::{Disk, NodeId, TextId};
use crate::ground::{dir_of, name_of};
use crate::invariants::Ledger;

pub struct Workload {
    rng: fastrand::Rng,
    apps: Vec<App>,
    line_bytes_max: usize,
    /// The directory that the apps write to.
    pub home: String,
    rotation: Rotation,
    /// Chances of what may happen, in thousandths of all acts.
    chances: Chances,
    /// Files that the agent may not open for a while.
    shut: Vec<NodeId>,
    /// The volume of the logs is not there.
    pub is_away: bool,
    /// Acts so far.
    serial: u64,
    pub tally: Tally,
}

/// What has happened.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub rotations: u64,
    pub rotations_in_outages: u64,
    pub truncations: u64,
    pub deletions: u64,
    pub copies: u64,
    pub archives: u64,
    pub twins: u64,
    pub repointed: u64,
    pub dirs_renamed: u64,
}

impl Tally {
    pub fn add(&mut self, other: &Self) {
        self.rotations += other.rotations;
        self.rotations_in_outages += other.rotations_in_outages;
        self.truncations += other.truncations;
        self.deletions += other.deletions;
        self.copies += other.copies;
        self.archives += other.archives;
        self.twins += other.twins;
        self.repointed += other.repointed;
        self.dirs_renamed += other.dirs_renamed;
    }
}

#[derive(Default)]
struct Chances {
    rotate: u32,
    truncate: u32,
    delete: u32,
    retire: u32,
    twin: u32,
    shut: u32,
    repoint: u32,
    rename_dir: u32,
}

/// How old files are called, and how many are kept.
#[derive(Debug)]
struct Rotation {
    naming: Naming,
    copies: bool,
    compress: Compress,
    /// Where they go, from the log's directory; empty for beside it.
    olddir: &'static str,
    creates: bool,
    keep: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Naming {
    /// `app0.log.1`
    Number,
    /// `app0.1.log`
    Inner,
    /// `app0.log-20260001`
    Date,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Compress {
    Never,
    Now,
    Delayed,
}

struct App {
    stem: String,
    /// The file that it has open.
    node: Option<NodeId>,
    /// Acts for which it keeps writing to a file that was renamed or deleted.
    lag: u32,
    /// The rest of a line that it has begun.
    rest: Vec<u8>,
    is_crlf: bool,
    /// What is under way with its files.
    jobs: VecDeque<Job>,
}

enum Job {
    Copy {
        from: NodeId,
        to: String,
        node: Option<NodeId>,
    },
    Wait(u32),
    Truncate(NodeId),
    Pack {
        path: String,
        node: Option<NodeId>,
        share: f64,
    },
    Open(NodeId),
    /// Makes a log that begins as another one did, which is gone.
    Again {
        path: String,
        like: TextId,
        gone_at: i64,
    },
}

impl Workload {
    pub fn new(mut rng: fastrand::Rng, line_bytes_max: usize, home: &str, has_link: bool) -> Self {
        let apps = (0..rng.usize(1..4))
            .map(|index| App {
                stem: format!("app{index}"),
                node: None,
                lag: 0,
                rest: Vec::new(),
                is_crlf: rng.u8(..4) == 0,
                jobs: VecDeque::new(),
            })
            .collect();
        let naming = [Naming::Number, Naming::Number, Naming::Inner, Naming::Date][rng.usize(..4)];
        let compress = [Compress::Never, Compress::Never, Compress::Now, Compress::Delayed];
        let olddir = ["", "", "", "old", "old/deep", "../archive"][rng.usize(..6)];
        let rotation = Rotation {
            naming,
            copies: rng.u8(..3) == 0,
            compress: compress[rng.usize(..4)],
            olddir,
            creates: rng.bool(),
            keep: rng.u32(1..5),
        };
        let mut seldom = |most: u32, one_in: u8| if rng.u8(..one_in) == 0 { most } else { 0 };
        let chances = Chances {
            truncate: seldom(25, 3),
            delete: seldom(15, 3),
            retire: seldom(10, 4),
            twin: seldom(8, 4),
            shut: seldom(8, 5),
            repoint: if has_link { seldom(6, 4) } else { 0 },
            rename_dir: seldom(6, 6),
            rotate: 0,
        };
        let chances = Chances { rotate: rng.u32(..40), ..chances };
        Self {
            rng,
            apps,
            line_bytes_max,
            home: home.to_owned(),
            rotation,
            chances,
            shut: Vec::new(),
            is_away: false,
            serial: 0,
            tally: Tally::default(),
        }
    }

    /// How logs are rotated, for people.
    pub fn describe(&self) -> String {
        format!("{:?}", self.rotation)
    }

    pub fn len(&self) -> usize {
        self.apps.len()
    }

    pub fn writes_to(&self, node: NodeId) -> bool {
        self.apps.iter().any(|app| app.node == Some(node))
    }

    /// Something that an app does, any if none is named, or that is done to its files. Says what, unless
    /// it only wrote.
    pub fn act(
        &mut self,
        app: Option<usize>,
        disk: &mut Disk,
        ledger: &mut Ledger,
        is_out: bool,
    ) -> Option<String> {
        let index = app.unwrap_or_else(|| self.rng.usize(..self.apps.len()));
        if self.is_away {
            return None;
        }
        self.serial += 1;
        let said = self.act_of(index, disk, ledger, is_out);
        ledger.on_change(disk);
        said
    }

    fn act_of(
        &mut self,
        index: usize,
        disk: &mut Disk,
        ledger: &mut Ledger,
        is_out: bool,
    ) -> Option<String> {
        if !self.apps[index].jobs.is_empty() && self.rng.bool() {
            return self.work(index, disk, ledger);
        }
        let is_idle = self.apps[index].jobs.is_empty();
        let mut dice = self.rng.u32(..1000);
        let mut is = |chance: u32| {
            let left = dice.checked_sub(chance);
            dice = left.unwrap_or_default();
            left.is_none()
        };
        let Chances { rotate, truncate, delete, retire, twin, shut, repoint, rename_dir } =
            self.chances;
        if is(rotate) {
            return is_idle.then(|| self.rotate(index, disk, ledger, is_out)).flatten();
        }
        if is(truncate) {
            return is_idle.then(|| self.truncate(index, disk, ledger)).flatten();
        }
        if is(delete) {
            return is_idle.then(|| self.delete(index, disk, ledger)).flatten();
        }
        if is(retire) {
            return is_idle.then(|| self.retire(index, disk, ledger)).flatten();
        }
        if is(twin) {
            return is_idle.then(|| self.twin(index, disk, ledger)).flatten();
        }
        if is(shut) {
            return is_idle.then(|| self.shut(index, disk)).flatten();
        }
        if is(repoint) {
            return self.repoint(disk, ledger);
        }
        if is(rename_dir) {
            return self.rename_dir(disk, ledger);
        }
        self.write(index, disk)
    }

    /// The end of the storm: what is under way ends, most apps end their last line, some die in it.
    pub fn finish(&mut self, disk: &mut Disk, ledger: &mut Ledger) {
        self.is_away = false;
        for index in 0..self.apps.len() {
            while !self.apps[index].jobs.is_empty() {
                self.work(index, disk, ledger);
                disk.wall += 10_000_000;
            }
        }
        for node in std::mem::take(&mut self.shut) {
            disk.set_shut(node, false);
        }
        for app in &mut self.apps {
            let rest = std::mem::take(&mut app.rest);
            if let Some(node) = app.node
                && !disk.nodes[node].is_freed
                && self.rng.u8(..4) > 0
            {
                disk.append(node, &rest);
            }
        }
        ledger.on_change(disk);
    }

    // === writing

    fn log(&self, index: usize) -> String {
        format!("{}/{}.log", self.home, self.apps[index].stem)
    }

    fn write(&mut self, index: usize, disk: &mut Disk) -> Option<String> {
        let node = self.node_of(index, disk);
        if disk.nodes[node].is_freed {
            return None;
        }
        let mut bytes = std::mem::take(&mut self.apps[index].rest);
        if bytes.is_empty() {
            for _ in 0..self.rng.usize(1..5) {
                // A file never begins with an empty line: all files that do look alike.
                let can_be_empty = !bytes.is_empty() || !disk.bytes(node).is_empty();
                self.line(self.apps[index].is_crlf, can_be_empty, &mut bytes);
            }
        }
        if bytes.len() > 16 && self.rng.u8(..4) == 0 {
            let at = self.rng.usize(12..bytes.len());
            self.apps[index].rest = bytes.split_off(at);
        }
        disk.append(node, &bytes);
        Some(format!("app{index} writes {} bytes to node {node}", bytes.len()))
    }

    /// The file that the app writes to; it notices only after a while that it has another name.
    fn node_of(&mut self, index: usize, disk: &mut Disk) -> NodeId {
        let log = self.log(index);
        let app = &mut self.apps[index];
        let there = disk.at(&log).filter(|node| disk.is_log(*node));
        if let Some(node) = app.node {
            if there == Some(node) {
                return node;
            }
            if app.lag > 0 || (!app.rest.is_empty() && self.rng.bool()) {
                app.lag = app.lag.saturating_sub(1);
                return node;
            }
        }
        app.rest.clear();
        let node = there.unwrap_or_else(|| disk.create(&log, index, None));
        app.node = Some(node);
        node
    }

    fn line(&mut self, is_crlf: bool, can_be_empty: bool, out: &mut Vec<u8>) {
        let rng = &mut self.rng;
        let length = match rng.u8(..20) {
            0..=1 if can_be_empty => 0,
            2..=3 => self.line_bytes_max.saturating_sub(2) + rng.usize(..5),
            4 => rng.usize(self.line_bytes_max..4 * self.line_bytes_max),
            _ => rng.usize(12..60),
        };
        let end = out.len() + length;
        while out.len() < end {
            let special = if out.len() + 12 < end { rng.u8(..60) } else { 9 };
            match special {
                0 => out.extend_from_slice("ä".as_bytes()),
                1 => out.extend_from_slice("日".as_bytes()),
                2 => out.push(0x80),
                3 => out.push(b'\r'),
                _ => out.push(rng.alphanumeric() as u8),
            }
        }
        let is_crlf = is_crlf != (rng.u8(..30) == 0);
        out.extend_from_slice(if is_crlf { b"\r\n" } else { b"\n" });
    }

    // === rotation

    fn old_name(&self, index: usize, age: u32) -> String {
        let Rotation { naming, olddir, .. } = self.rotation;
        let stem = &self.apps[index].stem;
        let dir = match olddir.strip_prefix("../") {
            Some(beside) => format!("{}/{beside}", dir_of(&self.home)),
            None if olddir.is_empty() => self.home.clone(),
            None => format!("{}/{olddir}", self.home),
        };
        match naming {
            Naming::Number => format!("{dir}/{stem}.log.{age}"),
            Naming::Inner => format!("{dir}/{stem}.{age}.log"),
            Naming::Date => format!("{dir}/{stem}.log-2026{:05}", self.serial),
        }
    }

    fn rotate(
        &mut self,
        index: usize,
        disk: &mut Disk,
        ledger: &mut Ledger,
        is_out: bool,
    ) -> Option<String> {
        let log = self.log(index);
        let node = disk.at(&log).filter(|node| disk.is_log(*node))?;
        self.tally.rotations += 1;
        self.tally.rotations_in_outages += u64::from(is_out);
        disk.make_dirs(dir_of(&self.old_name(index, 1)));
        self.make_way(index, disk, ledger);
        let old_name = self.old_name(index, 1);
        let last = match self.rotation.naming {
            Naming::Date => None,
            Naming::Number | Naming::Inner => Some(self.old_name(index, 2)),
        };
        if self.rotation.copies {
            let jobs = &mut self.apps[index].jobs;
            jobs.push_back(Job::Copy { from: node, to: old_name.clone(), node: None });
            jobs.push_back(Job::Wait(self.rng.u32(..3)));
            jobs.push_back(Job::Truncate(node));
        } else {
            disk.rename(&log, &old_name);
            ledger.on_renamed(node, disk);
            self.apps[index].lag = self.rng.u32(..6);
            if self.rotation.creates {
                disk.create(&log, index, None);
            }
        }
        let packed = match self.rotation.compress {
            Compress::Never => None,
            Compress::Now => Some(old_name.clone()),
            Compress::Delayed => last,
        };
        if let Some(path) = packed {
            let job = Job::Pack { path, node: None, share: 0.0 };
            self.apps[index].jobs.push_back(Job::Wait(self.rng.u32(..3)));
            self.apps[index].jobs.push_back(job);
        }
        let how = if self.rotation.copies { "copied to" } else { "renamed to" };
        Some(format!("{log}, node {node}, is {how} {old_name}"))
    }

    /// Makes way for one more generation: the oldest goes, the others move up.
    fn make_way(&self, index: usize, disk: &mut Disk, ledger: &mut Ledger) {
        let keep = self.rotation.keep;
        if self.rotation.naming == Naming::Date {
            return;
        }
        for ending in ["", ".gz"] {
            let oldest = format!("{}{ending}", self.old_name(index, keep));
            self.unlink(&oldest, disk, ledger);
            for age in (1..keep).rev() {
                let (from, to) = (self.old_name(index, age), self.old_name(index, age + 1));
                let (from, to) = (format!("{from}{ending}"), format!("{to}{ending}"));
                if let Some(node) = disk.at(&from) {
                    self.unlink(&to, disk, ledger);
                    disk.rename(&from, &to);
                    ledger.on_renamed(node, disk);
                }
            }
        }
    }

    fn unlink(&self, path: &str, disk: &mut Disk, ledger: &mut Ledger) {
        if let Some(node) = disk.unlink(path)
            && let Some((text, _)) = disk.carried(node)
        {
            disk.reap();
            ledger.on_bytes_gone(text, disk);
        }
    }

    /// Goes on with what is under way.
    fn work(&mut self, index: usize, disk: &mut Disk, ledger: &mut Ledger) -> Option<String> {
        let job = self.apps[index].jobs.pop_front()?;
        match job {
            Job::Wait(0) => self.work(index, disk, ledger),
            Job::Wait(left) => {
                self.apps[index].jobs.push_front(Job::Wait(left - 1));
                self.write(index, disk)
            }
            Job::Copy { from, to, node } => {
                let Some(copy) = node.filter(|node| !disk.nodes[*node].is_freed) else {
                    if disk.nodes[from].is_freed || disk.at(&to).is_some() {
                        self.apps[index].jobs.clear();
                        return None;
                    }
                    let copy = disk.begin_copy(from, &to, false);
                    self.tally.copies += 1;
                    self.apps[index].jobs.push_front(Job::Copy { from, to, node: Some(copy) });
                    return Some(format!("node {copy} is to be a copy of node {from}"));
                };
                let (text, len) = disk.carried(from)?;
                let (of, done) = disk.carried(copy)?;
                let more = if of == text { len.saturating_sub(done) } else { 0 };
                let part = if more > 200 { self.rng.usize(1..=more) } else { more };
                disk.grow_copy(copy, part);
                if part < more {
                    self.apps[index].jobs.push_front(Job::Copy { from, to, node });
                }
                ledger.on_renamed(copy, disk);
                Some(format!("node {copy}, a copy, grows to {}", done + part))
            }
            Job::Truncate(node) => {
                if disk.nodes[node].is_freed || !disk.is_log(node) {
                    return None;
                }
                let old = disk.truncate(node);
                ledger.on_truncated(old, disk);
                self.apps[index].rest.clear();
                Some(format!("node {node} is emptied after the copying, text {old} ends"))
            }
            Job::Pack { path, node, share } => self.pack(index, disk, ledger, path, node, share),
            Job::Open(node) => {
                self.shut.retain(|one| *one != node);
                disk.set_shut(node, false);
                Some(format!("node {node} may be opened again"))
            }
            Job::Again { path, like, gone_at } => {
                if disk.stamp() <= gone_at {
                    self.apps[index].jobs.push_front(Job::Again { path, like, gone_at });
                    return None;
                }
                if disk.at(&path).is_some() || !disk.has_dir(dir_of(&path)) {
                    return None;
                }
                let common = disk.texts[like].bytes.len().min(self.rng.usize(20..3000));
                let bytes = &disk.texts[like].bytes[..common];
                let common = memchr::memrchr(b'\n', bytes).map_or(0, |at| at + 1);
                let node = disk.create(&path, index, Some((like, common)));
                let text = disk.texts.len() - 1;
                disk.texts[text].is_later = disk.volumes[1].knows_births;
                ledger.on_bytes_gone(like, disk);
                self.tally.twins += 1;
                self.apps[index].node = self.apps[index].node.filter(|_| path != self.log(index));
                Some(format!("{path}, node {node}, begins as text {like} did, {common} bytes"))
            }
        }
    }

    fn pack(
        &mut self,
        index: usize,
        disk: &mut Disk,
        ledger: &mut Ledger,
        path: String,
        node: Option<NodeId>,
        share: f64,
    ) -> Option<String> {
        let from = disk.at(&path)?;
        let to = format!("{path}.gz");
        let Some(archive) = node else {
            // It may be compressed already.
            if disk.at(&to).is_some() || name_of(&path).ends_with(".gz") {
                return None;
            }
            let archive = disk.begin_copy(from, &to, true);
            self.tally.archives += 1;
            self.apps[index].jobs.push_front(Job::Pack { path, node: Some(archive), share });
            return Some(format!("{to}, node {archive}, is to be node {from} compressed"));
        };
        if share < 1.0 {
            let share = if self.rng.bool() { 1.0 } else { f64::midpoint(share, 1.0) };
            let (_, len) = disk.carried(from)?;
            disk.write_packed(archive, len, share);
            self.apps[index].jobs.push_front(Job::Pack { path, node, share });
            ledger.on_renamed(archive, disk);
            return Some(format!("node {archive} is written, {share:.2} of it"));
        }
        let writer = self.apps[index].node;
        if writer == Some(from) {
            self.apps[index].lag = 0;
        }
        self.unlink(&path, disk, ledger);
        Some(format!("{path}, node {from}, is removed: it is compressed"))
    }

    // === other acts

    fn truncate(&mut self, index: usize, disk: &mut Disk, ledger: &mut Ledger) -> Option<String> {
        let node = disk.at(&self.log(index)).filter(|node| disk.is_log(*node))?;
        if disk.bytes(node).is_empty() {
            return None;
        }
        self.tally.truncations += 1;
        let old_size = disk.bytes(node).len();
        let ended = disk.truncate(node);
        ledger.on_truncated(ended, disk);
        if self.apps[index].node == Some(node) {
            self.apps[index].rest.clear();
            // Sometimes it has grown beyond its old size before anybody looks.
            for _ in 0..self.rng.usize(..12) {
                self.write(index, disk);
            }
            // Other bytes of the very same size may go unnoticed until it grows.
            while disk.bytes(node).len() == old_size {
                self.write(index, disk);
            }
        }
        Some(format!("node {node} is emptied, text {ended} ends"))
    }

    fn delete(&mut self, index: usize, disk: &mut Disk, ledger: &mut Ledger) -> Option<String> {
        let log = self.log(index);
        let node = disk.at(&log).filter(|node| disk.is_log(*node))?;
        let (text, _) = disk.carried(node)?;
        self.tally.deletions += 1;
        self.unlink(&log, disk, ledger);
        self.apps[index].lag = self.rng.u32(..6);
        let gone_at = disk.nodes[node].changed;
        if self.chances.twin > 0 && self.rng.bool() && self.apps[index].lag == 0 {
            let path = match self.rng.bool() {
                true => log.clone(),
                false => format!("{}/{}-{}.log", self.home, self.apps[index].stem, self.serial),
            };
            self.apps[index].node = None;
            self.apps[index].rest.clear();
            self.apps[index].jobs.push_back(Job::Wait(self.rng.u32(..2)));
            self.apps[index].jobs.push_back(Job::Again { path, like: text, gone_at });
        }
        Some(format!("{log}, node {node}, is deleted"))
    }

    /// A finished log is renamed to a name that may be nobody's.
    fn retire(&self, index: usize, disk: &mut Disk, ledger: &mut Ledger) -> Option<String> {
        let log = self.log(index);
        let node = disk.at(&log).filter(|node| disk.is_log(*node))?;
        let to = format!("{}/{}-{}.done", self.home, self.apps[index].stem, self.serial);
        disk.rename(&log, &to);
        ledger.on_renamed(node, disk);
        Some(format!("{log}, node {node}, is renamed to {to}"))
    }

    /// Somebody copies a log by hand, under a name that may be that of a generation.
    fn twin(&mut self, index: usize, disk: &mut Disk, ledger: &mut Ledger) -> Option<String> {
        if self.tally.twins > 2 {
            return None;
        }
        let node = disk.at(&self.log(index)).filter(|node| disk.is_log(*node))?;
        let (text, len) = disk.carried(node).filter(|(_, len)| *len > 0)?;
        self.tally.twins += 1;
        let path = format!("{}/{}-{}.log", self.home, self.apps[index].stem, self.serial);
        let twin = disk.create(&path, index, Some((text, len)));
        ledger.on_change(disk);
        Some(format!("{path}, node {twin}, is made of the {len} bytes of node {node}"))
    }

    fn shut(&mut self, index: usize, disk: &mut Disk) -> Option<String> {
        let node = disk.at(&self.log(index)).filter(|node| disk.is_log(*node))?;
        disk.set_shut(node, true);
        self.shut.push(node);
        self.apps[index].jobs.push_back(Job::Wait(self.rng.u32(1..10)));
        self.apps[index].jobs.push_back(Job::Open(node));
        Some(format!("node {node} may not be opened"))
    }

    /// The link to the directory of the logs leads to another one from now on.
    fn repoint(&mut self, disk: &mut Disk, ledger: &mut Ledger) -> Option<String> {
        if self.apps.iter().any(|app| !app.jobs.is_empty()) {
            return None;
        }
        self.tally.repointed += 1;
        self.home = format!("/data/pod{}/logs", self.serial);
        disk.make_dirs(&self.home);
        let base = ledger.ground.base.clone();
        disk.unlink(&base);
        disk.symlink(&self.home, &base);
        ledger.ground.home = self.home.clone();
        for app in &mut self.apps {
            app.lag = self.rng.u32(..6);
        }
        ledger.on_all_renamed(disk);
        Some(format!("{base} leads to {}", self.home))
    }

    /// The directory of the logs is renamed, and made anew.
    fn rename_dir(&mut self, disk: &mut Disk, ledger: &mut Ledger) -> Option<String> {
        if self.apps.iter().any(|app| !app.jobs.is_empty()) {
            return None;
        }
        self.tally.dirs_renamed += 1;
        let to = format!("{}.{}", self.home, self.serial);
        disk.rename(&self.home.clone(), &to);
        disk.make_dirs(&self.home);
        for app in &mut self.apps {
            app.lag = self.rng.u32(..6);
        }
        ledger.on_all_renamed(disk);
        Some(format!("{} is renamed to {to}", self.home))
    }
}
