//! Mistakes that are made on purpose, to see that an invariant notices them: a system that lies to the
//! collector, a state directory that does, or a shell around it that is wrong.

use logferry::base::fingerprint::Fingerprint;
use logferry::base::sealed::Ack;
use logferry::checkpoint::format::Checkpoint;
use logferry::tail::os::Facts;

use crate::disk::{Body, Disk, NodeId, TextId};
use crate::ground::dir_of;
use crate::machine::Machine;
use crate::owed::is_generation;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// The checkpoint says how far was read.
    CheckpointOfReading,
    /// Each acknowledgement gives the room of its batch back twice.
    RoomTwice,
    /// A 200 of anybody counts.
    TrustsStrangers,
    /// The bytes before the offset look as they did before a file was rewritten.
    BlindToRewriting,
    /// A renamed file does not grow any more.
    DropsRotated,
    /// Only every fifth second is saved.
    SavesSeldom,
    /// An unfinished last line waits for ever.
    KeepsRests,
    /// The end of a drain is told without looking.
    ClaimsAll,
    /// All files are as old as time, and so may be copies of anything.
    NoAlibi,
    /// What has the name of a generation seems to hold what the log does.
    NamesProve,
    /// A used inode seems to be the file that had it before.
    BirthIgnored,
    /// What was born and renamed unseen is not shown in any directory.
    NeverSought,
    /// A file that somebody copied seems to be deleted: its copy waits for its end.
    NeverItsOwn,
    /// A copy seems to have other bytes than its original.
    CopiesUnknown,
}

impl Flaw {
    pub fn of_facts(self, machine: &Machine, node: NodeId, facts: Facts) -> Facts {
        let disk = &machine.disk;
        let Some((text, _)) = disk.carried(node) else { return facts };
        match self {
            Self::DropsRotated if !is_found(machine, node) => {
                let taken = machine.ledger.accounts.get(text).map_or(0, |one| one.taken_to);
                Facts { size: facts.size.min(taken), ..facts }
            }
            Self::NoAlibi => Facts { born: 1, ..facts },
            Self::BirthIgnored => {
                let first = disk.nodes.iter().find(|one| one.number == facts.inode);
                Facts { born: first.map_or(facts.born, |one| one.born), ..facts }
            }
            Self::NeverItsOwn => {
                let is_copied = |of: TextId| {
                    disk.files()
                        .any(|(_, twin, _)| disk.texts[twin].like.is_some_and(|like| like.0 == of))
                };
                Facts { links: if is_copied(text) { 0 } else { facts.links }, ..facts }
            }
            _ => facts,
        }
    }

    /// What a read gives, of `count` bytes that stand there.
    pub fn of_bytes(
        self,
        machine: &Machine,
        node: NodeId,
        buffer: &mut [u8],
        start: usize,
        count: usize,
    ) -> usize {
        let disk = &machine.disk;
        let Some((text, _)) = disk.carried(node) else { return count };
        let other: Option<&[u8]> = match self {
            Self::DropsRotated if !is_found(machine, node) => {
                let taken = machine.ledger.accounts.get(text).map_or(0, |one| one.taken_to);
                return count.min((taken as usize).saturating_sub(start));
            }
            Self::BlindToRewriting => {
                let before = (0..text).rev().find(|one| disk.texts[*one].node == node);
                before.map(|before| &*disk.texts[before].bytes)
            }
            Self::NamesProve if !machine.ledger.now.files.contains_key(&node) => {
                let home = &disk.texts[text].home;
                let names: Vec<String> = disk.names_of(node).collect();
                let is_old = names
                    .iter()
                    .any(|name| is_generation(name, home) && dir_of(name) == dir_of(home));
                let log = disk.at(home).filter(|log| is_old && *log != node);
                log.map(|log| disk.bytes(log))
            }
            Self::CopiesUnknown if !matches!(disk.nodes[node].body, Body::Text(_)) => {
                buffer[..count].iter_mut().for_each(|byte| *byte ^= 1);
                None
            }
            _ => None,
        };
        if let Some(other) = other.and_then(|bytes| bytes.get(start..)) {
            let len = other.len().min(count);
            buffer[..len].copy_from_slice(&other[..len]);
        }
        count
    }

    /// Whether a directory shows a name.
    pub fn shows_name(self, machine: &Machine, dir: &str, name: &str) -> bool {
        let node = machine.disk.at(&format!("{dir}/{name}"));
        let Some(node) = node.filter(|_| self == Self::NeverSought) else { return true };
        machine.disk.carried(node).is_none()
            || is_found(machine, node)
            || machine.ledger.now.files.contains_key(&node)
    }

    /// Claims that all that was read is delivered.
    pub fn read_ahead(saved: &mut Checkpoint, disk: &Disk) {
        let node = disk.files().find(|(node, ..)| disk.nodes[*node].number == saved.inode);
        let Some((_, text, len)) = node else { return };
        let bytes = &disk.texts[text].bytes[..len];
        saved.offset = len as u64;
        saved.tail = Fingerprint::of_tail(bytes);
        saved.rest = Some(0);
    }

    pub fn with_room(ack: Ack) -> Ack {
        Ack {
            payload_bytes: 2 * ack.payload_bytes + logferry::handoff::BATCH_OVERHEAD_BYTES,
            ..ack
        }
    }
}

fn is_found(machine: &Machine, node: NodeId) -> bool {
    !machine.ledger.ground.paths_of(&machine.disk, node).is_empty()
}
