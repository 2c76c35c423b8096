//! What the agent owes, and what it can know.
//!
//! Every byte of a text of which a file still has the first bytes, line ends aside, if the agent could
//! know that file:
//!
//! | the file | is known because |
//! |---|---|
//! | is found by the pattern | of that |
//! | is held open | it was found, and renamed or deleted since |
//! | has another name, or another link | a save that survived speaks of it |
//! | was born and renamed away unseen | it is a generation of a log that a save speaks of, born since the last look |
//! | is a copy of what is known, or an archive | it stands where copies are searched for |
//!
//! Of a text that was emptied away without a copy: what the agent had taken, unless it died since.

use std::collections::{BTreeMap, BTreeSet};

use crate::disk::{Body, Disk, NodeId, Text, TextId};
use crate::ground::{Pattern, dir_of, name_of};
use crate::invariants::Ledger;

/// Bytes of a whole head and tail.
const PROOF: usize = 1024 + 256;
/// How far a time of a look may be early, in nanoseconds.
const LOOK_LAG: i64 = 60_000_000;

#[derive(Clone, Default)]
pub struct Known {
    /// Files that the agent has had open, and what was in them.
    pub files: BTreeMap<NodeId, Met>,
    /// Texts that it has had open.
    pub texts: BTreeSet<TextId>,
    /// Copies among the files that it has looked into.
    pub met_copies: BTreeSet<NodeId>,
    /// Texts below which all is acknowledged.
    pub floors: Vec<u64>,
    /// When the last look began, in nanoseconds since 1970.
    pub looked: i64,
    /// Real paths of logs that are known.
    pub homes: BTreeSet<String>,
    /// Directories in which generations of a log were met, by the log's real path.
    pub archives: BTreeSet<(String, String)>,
}

#[derive(Clone, Copy)]
pub struct Met {
    pub text: TextId,
    /// No byte of it was seen.
    pub is_blank: bool,
}

impl Ledger {
    /// A directory was listed.
    pub fn on_listed(&mut self, dir: &str) {
        self.listed.insert(dir.to_owned());
    }

    /// A step begins; it is so late by the wall clock.
    pub fn on_step_begins(&mut self, wall: i64) {
        self.listed.clear();
        self.step_began = wall;
    }

    /// Looks at what the agent holds open after a step.
    pub fn on_held(&mut self, disk: &Disk) {
        let held: BTreeSet<NodeId> =
            disk.files().map(|(node, ..)| node).filter(|node| disk.is_held(*node)).collect();
        let is_same = held == self.held && self.held_at == disk.version;
        self.held_at = disk.version;
        for &node in &held {
            let Some((text, _)) = disk.carried(node) else { continue };
            let is_blank = self.account(text).seen_to == 0;
            self.now.files.insert(node, Met { text, is_blank });
            if !is_blank {
                self.now.texts.insert(text);
            }
            self.faulty.remove(&node);
            if is_same {
                continue;
            }
            for place in disk.names_of(node).collect::<Vec<_>>() {
                let home = disk.texts[text].home.clone();
                if self.ground.found_as(disk, &place).is_some() && !is_generation(&place, &home) {
                    self.now.homes.insert(place.clone());
                }
                self.now.archives.insert((home, dir_of(&place).to_owned()));
            }
        }
        let closed: Vec<NodeId> = self.held.difference(&held).copied().collect();
        self.held = held;
        for node in closed {
            self.counts.closed += 1;
            let Some((text, len)) = disk.carried(node) else { continue };
            let is_lost =
                disk.nodes[node].links == 0 && matches!(disk.nodes[node].body, Body::Text(_));
            let end = whole_end(disk, text, len);
            let covered = self.prefix(text, disk);
            // What is left of it may stand in its archive.
            let is_elsewhere = disk.files().any(|(other, of, _)| of == text && other != node);
            self.check(!is_lost || is_elsewhere || covered >= end, || {
                format!(
                    "a file was closed before its end was delivered: node {node}, text {text}, at \
                     {covered} of {end}"
                )
            });
        }
        let base = disk.at(&self.ground.base).map(|node| disk.real(node));
        if base.is_some_and(|base| self.listed.contains(&base)) {
            self.now.looked = self.step_began;
        }
    }

    // === what happens to files

    /// Names have changed, or bytes were written.
    pub fn on_change(&mut self, disk: &Disk) {
        if std::mem::replace(&mut self.changed_at, disk.version) == disk.version {
            return;
        }
        for (node, text, _) in disk.files().collect::<Vec<_>>() {
            let mut paths = self.ground.paths_of(disk, node);
            match paths.is_empty() {
                true => self.found.remove(&node),
                false => self.found.insert(node),
            };
            if let Some(path) = self.ground.found_as(disk, &disk.texts[text].home) {
                paths.push(path);
            }
            self.account(text).paths.extend(paths);
            // If that one is gone, this one may be taken for its copy.
            if let Some((of, _)) = disk.texts[text].like {
                let paths = self.account(of).paths.clone();
                self.account(text).others.extend(paths);
            }
        }
    }

    /// A file has another name, or none that the pattern finds.
    pub fn on_renamed(&mut self, node: NodeId, disk: &Disk) {
        let was_found = self.found.contains(&node);
        self.on_change(disk);
        let Some((text, _)) = disk.carried(node) else { return };
        let is_found = !self.ground.paths_of(disk, node).is_empty();
        self.excuse_small_copies(node, disk);
        let is_met = self.now.files.get(&node).is_some_and(|met| met.text == text);
        if !is_found && !is_met && self.is_expected(node, text, was_found, disk) {
            self.account(text).is_missed = true;
        }
    }

    /// Where generations are found by the pattern, a log may be known by the name of one, and the next name is
    /// then nobody's: what is compressed or copied under it needs whole proof.
    fn excuse_small_copies(&mut self, node: NodeId, disk: &Disk) {
        let Some((text, len)) = disk.carried(node) else { return };
        let is_copy = !matches!(disk.nodes[node].body, Body::Text(_));
        let finds_old = matches!(self.ground.pattern, Pattern::Everything | Pattern::Generations);
        let is_faulty = self.faulty.contains(&disk.texts[text].node);
        // A head is known of all that stood there, and the copy may be shorter.
        let lacks_head = len < 1024 && len < disk.texts[text].bytes.len();
        if is_copy && ((finds_old && len < PROOF) || is_faulty || lacks_head) {
            self.account(text).excused_from = Some(0);
        }
    }

    /// A file cannot be read. What stands in a copy of it that is still made cannot be proved.
    pub fn on_fault(&mut self, node: NodeId, disk: &Disk) {
        self.faulty.insert(node);
        if let Some((text, _)) = disk.carried(node) {
            let has_copy = disk.files().any(|(copy, of, _)| of == text && !disk.is_log(copy));
            let has_twin = disk.texts.iter().any(|one| one.like.is_some_and(|like| like.0 == text));
            if has_copy || has_twin {
                self.account(text).excused_from = Some(0);
            }
            // One that equals it may be taken for it meanwhile.
            self.on_bytes_gone(text, disk);
        }
    }

    /// All files may have other paths: a directory was renamed, or a link leads elsewhere.
    pub fn on_all_renamed(&mut self, disk: &Disk) {
        for (node, text, _) in disk.files().collect::<Vec<_>>() {
            let home = disk.texts[text].home.clone();
            if self.accounts.get(text).is_some_and(|one| one.is_missed) {
                self.accounts[text].is_missed = self.is_placed(node, &home, disk);
            }
        }
        let before = self.found.clone();
        for node in before {
            self.found.insert(node);
            self.on_renamed(node, disk);
        }
    }

    /// Whether a file that nobody has seen is searched for where it is.
    fn is_expected(&self, node: NodeId, text: TextId, was_found: bool, disk: &Disk) -> bool {
        let home = disk.texts[text].home.clone();
        // A disk that was copied says of all files that they were born then.
        let is_young = disk.nodes[node].born > self.now.looked + LOOK_LAG
            && self.copied_at != Some(disk.nodes[node].born);
        let has_waited = was_found
            && disk.nodes[node].born < self.now.looked - LOOK_LAG
            && !self.faulty.contains(&node);
        // By a name like that only a file is known that a look has found.
        let is_done = disk.names_of(node).any(|name| name.ends_with(".done"));
        let is_known = self.now.homes.contains(&home) && !self.is_blank_since(node, text, disk);
        // Nothing tells it from another file with its inode.
        let is_nobodys = is_done && !disk.volumes[1].knows_births;
        is_known
            && ((is_young && !is_done) || (has_waited && !is_nobodys))
            && self.is_placed(node, &home, disk)
    }

    /// Whether a file is a copy of what was written to a log, and emptied out of it, since no byte of that was
    /// known: it stands in its place, and nothing says that it was rotated.
    fn is_blank_since(&self, node: NodeId, text: TextId, disk: &Disk) -> bool {
        let Text { node: log, home, .. } = &disk.texts[text];
        let is_blank = self.now.files.get(log).is_some_and(|met| met.is_blank);
        !disk.is_log(node) && is_blank && disk.names_of(*log).any(|name| name == *home)
    }

    /// Whether a generation of a log stands where such are searched for: beside it, up to two levels below, or
    /// where others were found.
    fn is_placed(&self, node: NodeId, home: &str, disk: &Disk) -> bool {
        disk.names_of(node).any(|place| {
            let dir = dir_of(&place);
            let below = dir
                .strip_prefix(dir_of(home))
                .filter(|rest| rest.is_empty() || rest.starts_with('/'));
            let is_near = below.is_some_and(|rest| rest.matches('/').count() <= 2);
            let is_learnt = self.now.archives.contains(&(home.to_owned(), dir.to_owned()));
            let is_here = is_near || is_learnt;
            (is_generation(&place, home) || place == home)
                && is_here
                && self.ground.allows(disk, &place)
        })
    }

    /// A text has ended: its file was emptied.
    pub fn on_truncated(&mut self, text: TextId, disk: &Disk) {
        let account = self.account(text);
        account.owed_below = account.taken_to;
        let taken_to = account.taken_to;
        if taken_to > 0 {
            self.unnoticed.insert(disk.texts[text].node, taken_to);
        }
        let taken = taken_to.max(self.prefix(text, disk));
        for (node, of, len) in disk.files().collect::<Vec<_>>() {
            if of == text {
                self.excuse_small_copies(node, disk);
                // More was read than the copy has, and nothing proves where: it comes again from a place at
                // which a reading ended, or whole.
                if (len as u64) < taken && !matches!(disk.nodes[node].body, Body::Text(_)) {
                    self.account(text).excused_from = Some(0);
                }
            }
        }
        self.on_bytes_gone(text, disk);
    }

    /// The bytes of a text went away. What was made before and begins the same may be taken for its copy.
    pub fn on_bytes_gone(&mut self, text: TextId, disk: &Disk) {
        for (other, one) in disk.texts.iter().enumerate() {
            if let Some((of, common)) = one.like
                && of == text
                && !one.is_later
            {
                let covered = self.prefix(other, disk);
                if covered < common as u64 {
                    self.account(other).forgiven = common as u64;
                    self.account(other).excused_from = Some(0);
                }
            }
        }
    }

    /// The agent died: what it was about to search for is searched for only if a save says so.
    pub fn forget_missed(&mut self, disk: &Disk) {
        for text in 0..self.accounts.len() {
            if self.accounts[text].is_missed {
                let node = disk.texts[text].node;
                self.accounts[text].is_missed = disk.nodes[node].born > self.now.looked + LOOK_LAG
                    && self.copied_at != Some(disk.nodes[node].born)
                    && self.is_expected(node, text, false, disk);
            }
        }
    }

    /// The disk has another number: files of which no byte was seen cannot be known again.
    pub fn on_remounted(&mut self) {
        self.each_known(|known| known.files.retain(|_, met| !met.is_blank));
    }

    // === what is owed

    /// Just past the last byte of a text that is owed.
    pub fn owed(&self, text: TextId, disk: &Disk) -> u64 {
        let standing = disk.files().filter(|(_, of, _)| *of == text);
        let reached = standing.filter(|(node, ..)| self.is_reached(*node, text, disk));
        let longest = reached.map(|(_, _, len)| whole_end(disk, text, len)).max();
        let below = self.accounts.get(text).map_or(0, |account| account.owed_below);
        longest.unwrap_or(0).max(below)
    }

    fn is_reached(&self, node: NodeId, text: TextId, disk: &Disk) -> bool {
        if disk.is_held(node) || !self.ground.paths_of(disk, node).is_empty() {
            return true;
        }
        if disk.nodes[node].links == 0 {
            return false;
        }
        if !disk.names_of(node).any(|place| self.ground.allows(disk, &place)) {
            return false;
        }
        let is_known = self.now.files.get(&node).is_some_and(|met| met.text == text);
        let is_missed = self.accounts.get(text).is_some_and(|account| account.is_missed);
        let is_copy = !matches!(disk.nodes[node].body, Body::Text(_));
        let home = disk.texts[text].home.clone();
        let is_sought = self.now.texts.contains(&text) || is_missed;
        is_known
            || (is_missed && !is_copy)
            || (is_copy && is_sought && self.is_placed(node, &home, disk))
    }

    /// What is owed and not delivered: text, delivered up to, owed up to.
    pub fn unsettled(&mut self, disk: &Disk) -> Option<(TextId, u64, u64)> {
        (0..disk.texts.len()).find_map(|text| {
            let prefix = self.prefix(text, disk);
            if prefix >= whole_end(disk, text, disk.texts[text].bytes.len()) {
                return None;
            }
            let owed = self.owed(text, disk);
            (prefix < owed).then_some((text, prefix, owed))
        })
    }

    /// Whether bytes of a text that the agent could know are gone for good, or a file is there that equals
    /// another.
    pub fn has_lost(&mut self, disk: &Disk) -> bool {
        let standing: BTreeSet<TextId> = disk.files().map(|(_, text, _)| text).collect();
        self.has_copied
            || (0..disk.texts.len()).any(|text| {
                let is_twin = standing.contains(&text) && disk.texts[text].like.is_some();
                let is_cut = self.prefix(text, disk) < disk.texts[text].bytes.len() as u64;
                let is_known =
                    self.now.texts.contains(&text) || !self.account(text).paths.is_empty();
                is_twin || (is_cut && is_known)
            })
    }

    /// Complete lines that stand on the disk and are owed: texts, and where they end.
    pub fn promised(&self, disk: &Disk) -> Vec<(TextId, u64)> {
        let line_end = |bytes: &[u8]| memchr::memrchr(b'\n', bytes).map_or(0, |at| at as u64 + 1);
        (0..disk.texts.len())
            .map(|text| {
                let owed = self.owed(text, disk) as usize;
                (text, line_end(&disk.texts[text].bytes[..owed]))
            })
            .filter(|(_, end)| *end > 0)
            .collect()
    }

    pub fn on_drained(&mut self, promised: &[(TextId, u64)], disk: &Disk) {
        for &(text, end) in promised {
            // What equals the beginning of a longer file is taken for its copy until a minute is over.
            let is_doubtful = disk.texts[text].like.is_some_and(|(of, _)| {
                !disk.texts[text].is_later
                    && disk.texts[of].bytes.len() > disk.texts[text].bytes.len()
            });
            if is_doubtful {
                continue;
            }
            let owed = self.owed(text, disk).min(end);
            let covered = self.prefix(text, disk);
            self.check(covered >= owed, || {
                format!(
                    "a drain ended as if all were delivered, and text {text} stands at {covered} of \
                     {owed}"
                )
            });
        }
    }
}

/// The end of what is sent of a text's first `len` bytes: a lone carriage return may be half of a line end.
fn whole_end(disk: &Disk, text: TextId, len: usize) -> u64 {
    let bytes = &disk.texts[text].bytes[..len];
    (len - usize::from(bytes.ends_with(b"\r"))) as u64
}

/// Whether a path has the name of a generation of a log, in whatever directory.
pub fn is_generation(path: &str, home: &str) -> bool {
    let (name, log) = (name_of(path), name_of(home));
    let stem = log.trim_end_matches(".log");
    name != log
        && name.starts_with(stem)
        && !name[stem.len()..].starts_with(|c: char| c.is_ascii_digit())
}
