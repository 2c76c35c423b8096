//! The apps: they append lines, whole and in pieces, and their files are rotated, truncated and
//! deleted.
//!
//! All text is random, so that no two places of any file look alike: what was delivered can be
//! told from what was not.

use crate::disk::Disk;
use crate::invariants::Ledger;

pub struct Workload {
    rng: fastrand::Rng,
    writers: Vec<Writer>,
    line_bytes_max: usize,
    rotation: Rotation,
    /// Chances of a rotation, a truncation and a deletion, in thousandths of all acts.
    chances: [u32; 3],
    pub rotations: u64,
    pub truncations: u64,
    pub deletions: u64,
}

/// How old files are called, and how many are kept.
struct Rotation {
    /// The new name is matched by the patterns too: `app.1.log`, not `app.log.1`.
    is_matched: bool,
    keep: u32,
}

struct Writer {
    stem: String,
    /// The file that it has open.
    inode: Option<usize>,
    /// Acts for which it keeps writing to a file that was renamed or deleted.
    lag: u32,
    /// The rest of a line that it has begun.
    rest: Vec<u8>,
    is_crlf: bool,
}

impl Workload {
    pub fn new(mut rng: fastrand::Rng, line_bytes_max: usize) -> Self {
        let writers = (0..rng.usize(1..5))
            .map(|index| Writer {
                stem: format!("app{index}"),
                inode: None,
                lag: 0,
                rest: Vec::new(),
                is_crlf: rng.u8(..4) == 0,
            })
            .collect();
        let rotation = Rotation { is_matched: rng.u8(..3) == 0, keep: rng.u32(1..5) };
        let chances = [rng.u32(..40), rng.u32(..25), rng.u32(..15)];
        let (rotations, truncations, deletions) = (0, 0, 0);
        Self { rng, writers, line_bytes_max, rotation, chances, rotations, truncations, deletions }
    }

    pub fn len(&self) -> usize {
        self.writers.len()
    }

    /// Something that any of the apps does.
    pub fn act_any(&mut self, disk: &mut Disk, ledger: &mut Ledger) {
        let index = self.rng.usize(..self.writers.len());
        self.act(index, disk, ledger);
    }

    /// Something that one app does, or that is done to its files.
    pub fn act(&mut self, index: usize, disk: &mut Disk, ledger: &mut Ledger) {
        let [rotate, truncate, delete] = self.chances;
        let dice = self.rng.u32(..1000);
        if dice < rotate {
            self.rotate(index, disk, ledger);
        } else if dice < rotate + truncate {
            self.truncate(index, disk, ledger);
        } else if dice < rotate + truncate + delete {
            self.delete(index, disk, ledger);
        } else {
            self.write(index, disk);
        }
        ledger.on_unlinked(disk);
    }

    /// The end of the storm: most apps end their last line, some die in it.
    pub fn finish(&mut self, disk: &mut Disk) {
        for writer in &mut self.writers {
            let rest = std::mem::take(&mut writer.rest);
            if let Some(inode) = writer.inode
                && !disk.inodes[inode].is_freed
                && self.rng.u8(..4) > 0
            {
                disk.append(inode, &rest);
            }
        }
    }

    fn write(&mut self, index: usize, disk: &mut Disk) {
        let inode = self.inode_of(index, disk);
        if disk.inodes[inode].is_freed {
            return;
        }
        let mut bytes = std::mem::take(&mut self.writers[index].rest);
        if bytes.is_empty() {
            for _ in 0..self.rng.usize(1..5) {
                // A file never begins with an empty line: all files that do look alike.
                let can_be_empty = !bytes.is_empty() || !disk.bytes(inode).is_empty();
                self.line(self.writers[index].is_crlf, can_be_empty, &mut bytes);
            }
        }
        if bytes.len() > 16 && self.rng.u8(..4) == 0 {
            let at = self.rng.usize(12..bytes.len());
            self.writers[index].rest = bytes.split_off(at);
        }
        disk.append(inode, &bytes);
    }

    /// The file that the app writes to; it notices only after a while that it has another name.
    fn inode_of(&mut self, index: usize, disk: &mut Disk) -> usize {
        let writer = &mut self.writers[index];
        let name = format!("{}.log", writer.stem);
        if let Some(inode) = writer.inode {
            if disk.named(&name) == Some(inode) {
                return inode;
            }
            if writer.lag > 0 || (!writer.rest.is_empty() && self.rng.bool()) {
                writer.lag = writer.lag.saturating_sub(1);
                return inode;
            }
        }
        writer.rest.clear();
        let inode = disk.named(&name).unwrap_or_else(|| disk.create(&name, &mut self.rng));
        writer.inode = Some(inode);
        inode
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

    fn old_name(&self, index: usize, age: u32) -> String {
        let stem = &self.writers[index].stem;
        if self.rotation.is_matched {
            format!("{stem}.{age}.log")
        } else {
            format!("{stem}.log.{age}")
        }
    }

    fn rotate(&mut self, index: usize, disk: &mut Disk, ledger: &mut Ledger) {
        let name = format!("{}.log", self.writers[index].stem);
        if disk.named(&name).is_none() {
            return;
        }
        self.rotations += 1;
        disk.unlink(&self.old_name(index, self.rotation.keep));
        ledger.on_unlinked(disk);
        for age in (1..self.rotation.keep).rev() {
            disk.rename(&self.old_name(index, age), &self.old_name(index, age + 1));
        }
        let old_name = self.old_name(index, 1);
        disk.rename(&name, &old_name);
        let inode = disk.named(&old_name).expect("it was just renamed");
        ledger.on_renamed(inode, &old_name, disk);
        self.writers[index].lag = self.rng.u32(..6);
    }

    fn truncate(&mut self, index: usize, disk: &mut Disk, ledger: &mut Ledger) {
        let Some(inode) = disk.named(&format!("{}.log", self.writers[index].stem)) else { return };
        if disk.bytes(inode).is_empty() {
            return;
        }
        self.truncations += 1;
        let old_size = disk.bytes(inode).len();
        let ended = disk.truncate(inode);
        ledger.on_truncated(ended);
        if self.writers[index].inode == Some(inode) {
            self.writers[index].rest.clear();
            // Sometimes it has grown beyond its old size before anybody looks.
            for _ in 0..self.rng.usize(..12) {
                self.write(index, disk);
            }
            // Without notifications, other bytes of the very same size go unnoticed until it grows.
            while disk.bytes(inode).len() == old_size {
                self.write(index, disk);
            }
        }
    }

    fn delete(&mut self, index: usize, disk: &mut Disk, ledger: &mut Ledger) {
        if disk.unlink(&format!("{}.log", self.writers[index].stem)).is_some() {
            self.deletions += 1;
            self.writers[index].lag = self.rng.u32(..6);
            ledger.on_unlinked(disk);
        }
    }
}
