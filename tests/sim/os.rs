//! The world as the agent's collector sees it: the seam, over [`Machine`].

use std::cell::{Ref, RefCell, RefMut};
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use logferry::limit::cgroup::Limits;
use logferry::tail::os::{Event, Facts, Kind, Os, OsEntry, OsFile, OsWatch, Stamp, WatchId, What};
use rustix::io::Errno;

use crate::disk::{Body, Handle, NodeId, error};
use crate::machine::Machine;
use crate::notices;

/// The machine; copies speak of the same one.
#[derive(Clone)]
pub struct System(pub Rc<RefCell<Machine>>);

pub struct File {
    system: System,
    handle: Handle,
}

pub struct Entry {
    system: System,
    dir: String,
    name: String,
    inode: u64,
    kind: Kind,
}

/// The notifications of one agent.
pub struct Channel(System);

impl System {
    /// A call: it takes time, and the world goes on meanwhile.
    fn call(&self) -> RefMut<'_, Machine> {
        let mut machine = self.0.borrow_mut();
        machine.on_call();
        machine
    }

    pub fn get(&self) -> Ref<'_, Machine> {
        self.0.borrow()
    }

    fn examine(&self, path: &Path, follows: bool) -> io::Result<Facts> {
        let machine = self.call();
        let (node, _) = machine.disk.walk(text(path)?, follows)?;
        Ok(facts(&machine, node, machine.disk.device(node)))
    }
}

fn text(path: &Path) -> io::Result<&str> {
    path.to_str().ok_or_else(|| error(Errno::NOENT))
}

fn stamp(nanoseconds: i64) -> Stamp {
    (nanoseconds.div_euclid(1_000_000_000), nanoseconds.rem_euclid(1_000_000_000))
}

fn facts(machine: &Machine, node: NodeId, device: u64) -> Facts {
    let one = &machine.disk.nodes[node];
    let facts = Facts {
        device,
        inode: one.number,
        born: if machine.disk.volumes[one.volume].knows_births { one.born } else { 0 },
        size: machine.disk.bytes(node).len() as u64,
        modified: stamp(one.modified),
        changed: stamp(one.changed),
        links: one.links,
        kind: kind(&one.body),
    };
    machine.flaw.map_or(facts, |flaw| flaw.of_facts(machine, node, facts))
}

const fn kind(body: &Body) -> Kind {
    match body {
        Body::Text(_) | Body::Copy(..) | Body::Packed(..) => Kind::File,
        Body::Dir(_) => Kind::Dir,
        Body::Link(_) => Kind::Link,
    }
}

impl Os for System {
    type File = File;
    type Entry = Entry;
    type Dir = std::vec::IntoIter<io::Result<Entry>>;
    type Watch = Channel;

    fn now(&self) -> Instant {
        self.get().now
    }

    fn wall(&self) -> Duration {
        self.get().wall()
    }

    fn cpu(&self) -> Duration {
        self.get().cpu
    }

    fn thread_cpu(&self) -> Duration {
        self.get().cpu
    }

    fn random(&self, bytes: &mut [u8]) -> io::Result<()> {
        self.0.borrow_mut().rng.fill(bytes);
        Ok(())
    }

    fn limits(&self) -> Limits {
        Limits::default()
    }

    fn trim_memory(&self) {}

    /// Only asked in the middle of a step: nothing comes meanwhile but what apps do.
    fn wait(&self, _: BorrowedFd<'_>, _: Option<&Channel>, at_most: Option<Duration>) -> bool {
        let mut machine = self.call();
        let until = machine.now + at_most.expect("somebody will wake it");
        machine.set_time(until);
        false
    }

    fn open(&self, path: &Path) -> io::Result<File> {
        let mut machine = self.call();
        let handle = match machine.disk.open(text(path)?) {
            Ok(handle) => handle,
            Err(error) => {
                let machine = &mut *machine;
                if let Ok((node, _)) = machine.disk.walk(text(path)?, true) {
                    machine.ledger.on_fault(node, &machine.disk);
                }
                return Err(error);
            }
        };
        machine.try_file(handle.node)?;
        machine.note("open", [handle.node as u64, 0, 0], |_| path.display().to_string());
        drop(machine);
        Ok(File { system: self.clone(), handle })
    }

    fn stat(&self, path: &Path) -> io::Result<Facts> {
        self.examine(path, true)
    }

    fn lstat(&self, path: &Path) -> io::Result<Facts> {
        self.examine(path, false)
    }

    fn stat_without_links(&self, path: &Path) -> io::Result<Facts> {
        let real = self.real(path)?;
        if real == path { self.examine(path, false) } else { Err(error(Errno::LOOP)) }
    }

    fn list(&self, dir: &Path) -> io::Result<Self::Dir> {
        let mut machine = self.call();
        let path = text(dir)?;
        let (node, _) = machine.disk.walk(path, true)?;
        if machine.disk.nodes[node].is_shut {
            return Err(error(Errno::ACCESS));
        }
        let Body::Dir(entries) = &machine.disk.nodes[node].body else {
            return Err(error(Errno::NOTDIR));
        };
        let mut listed: Vec<io::Result<Entry>> = entries
            .iter()
            .map(|(name, &dentry)| {
                let node = &machine.disk.nodes[machine.disk.dentries[dentry].node];
                let (inode, kind) = (node.number, kind(&node.body));
                let (system, dir) = (self.clone(), path.to_owned());
                Ok(Entry { system, dir, name: name.clone(), inode, kind })
            })
            .collect();
        if let Some(flaw) = machine.flaw {
            let shows = |name: &str| flaw.shows_name(&machine, path, name);
            listed.retain(|entry| entry.as_ref().is_ok_and(|entry| shows(&entry.name)));
        }
        machine.chaos.rng.shuffle(&mut listed);
        let real = machine.disk.real(node);
        machine.ledger.on_listed(&real);
        machine.note("list", [node as u64, listed.len() as u64, 0], |_| path.to_owned());
        Ok(listed.into_iter())
    }

    fn link_target(&self, path: &Path) -> io::Result<PathBuf> {
        let machine = self.call();
        let (node, _) = machine.disk.walk(text(path)?, false)?;
        match &machine.disk.nodes[node].body {
            Body::Link(target) => Ok(target.into()),
            _ => Err(error(Errno::INVAL)),
        }
    }

    fn real(&self, path: &Path) -> io::Result<PathBuf> {
        let machine = self.call();
        let (node, dentry) = machine.disk.walk(text(path)?, true)?;
        Ok(dentry.map_or_else(|| machine.disk.real(node), |one| machine.disk.place(one).0).into())
    }

    fn is_mount(&self, dir: &Path) -> Option<bool> {
        let machine = self.call();
        let (node, _) = machine.disk.walk(text(dir).ok()?, false).ok()?;
        Some(machine.disk.is_mount_root(node))
    }

    fn file_system(&self, path: &Path) -> Option<u32> {
        let machine = self.call();
        let (node, _) = machine.disk.walk(text(path).ok()?, true).ok()?;
        Some(machine.disk.volumes[machine.disk.nodes[node].volume].magic)
    }

    fn watch(&self) -> io::Result<Channel> {
        let machine = self.call();
        if !machine.disk.notices.works {
            return Err(error(Errno::MFILE));
        }
        drop(machine);
        Ok(Channel(self.clone()))
    }

    fn explain(&self, _: &Path) -> Option<String> {
        None
    }
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node {}", self.handle.node)
    }
}

impl OsFile for File {
    fn facts(&self) -> io::Result<Facts> {
        let mut machine = self.system.call();
        machine.try_file(self.handle.node)?;
        Ok(facts(&machine, self.handle.node, self.handle.device))
    }

    fn dated_facts(&self) -> io::Result<(Facts, Duration)> {
        let facts = self.facts()?;
        Ok((facts, self.system.wall()))
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut machine = self.system.call();
        let node = self.handle.node;
        machine.try_file(node)?;
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let bytes = machine.disk.bytes(node);
        let left = bytes.get(start..).unwrap_or_default();
        let mut count = left.len().min(buffer.len());
        buffer[..count].copy_from_slice(&left[..count]);
        if let Some(flaw) = machine.flaw {
            count = flaw.of_bytes(&machine, node, buffer, start, count);
        }
        let (text, _) = machine.disk.carried(node).expect("files are read");
        let end = match &machine.disk.nodes[node].body {
            Body::Packed(text, ..) => machine.disk.texts[*text].bytes.len() as u64,
            _ => offset + count as u64,
        };
        if !matches!(machine.disk.nodes[node].body, Body::Text(_)) {
            machine.ledger.now.met_copies.insert(node);
        }
        machine.ledger.on_bytes_seen(text, end);
        machine.note("read", [node as u64, offset, count as u64], |_| format!("text {text}"));
        Ok(count)
    }

    fn data_after(&self, offset: u64) -> io::Result<Option<u64>> {
        let machine = self.system.call();
        let size = machine.disk.bytes(self.handle.node).len() as u64;
        Ok((offset < size).then_some(offset))
    }

    fn place(&self) -> Option<(PathBuf, bool)> {
        let machine = self.system.call();
        let (path, is_deleted) = machine.disk.place(self.handle.dentry);
        machine.chaos.has_proc.then(|| (path.into(), is_deleted))
    }

    fn is_open_for_writing(&self) -> Option<bool> {
        let machine = self.system.call();
        machine.chaos.knows_writers.then(|| machine.workload.writes_to(self.handle.node))
    }

    fn file_system(&self) -> Option<u32> {
        let machine = self.system.call();
        Some(machine.disk.volumes[machine.disk.nodes[self.handle.node].volume].magic)
    }
}

impl OsEntry for Entry {
    fn name(&self) -> OsString {
        self.name.clone().into()
    }

    fn inode(&self) -> u64 {
        self.inode
    }

    fn kind(&self) -> io::Result<Kind> {
        Ok(self.kind)
    }

    fn facts(&self) -> io::Result<Facts> {
        self.system.examine(&Path::new(&self.dir).join(&self.name), false)
    }
}

impl OsWatch for Channel {
    fn add(&mut self, dir: &Path, writes: bool) -> io::Result<WatchId> {
        let mut machine = self.0.call();
        let (node, _) = machine.disk.walk(text(dir)?, true)?;
        if !matches!(machine.disk.nodes[node].body, Body::Dir(_)) {
            return Err(error(Errno::NOTDIR));
        }
        if machine.disk.nodes[node].is_shut {
            return Err(error(Errno::ACCESS));
        }
        machine.disk.notices.add(node, writes).map(WatchId).ok_or_else(|| error(Errno::NOSPC))
    }

    fn remove(&mut self, id: WatchId) {
        self.0.call().disk.notices.remove(id.0);
    }

    fn read(&mut self, mut each: impl FnMut(Event<'_>)) -> io::Result<()> {
        let mut machine = self.0.call();
        let events = machine.disk.notices.take();
        if events.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        machine.ledger.progress += 1;
        drop(machine);
        for event in &events {
            each(Event {
                dir: WatchId(event.watch),
                what: what(event.kind),
                is_dir: event.is_dir,
                name: event.name.as_ref().map(AsRef::as_ref),
            });
        }
        Ok(())
    }
}

const fn what(kind: notices::Kind) -> What {
    match kind {
        notices::Kind::Create => What::Created,
        notices::Kind::Modify => What::Written,
        notices::Kind::MovedFrom => What::MovedFrom,
        notices::Kind::MovedTo => What::MovedTo,
        notices::Kind::Delete => What::Deleted,
        notices::Kind::Attrib => What::Attributes,
        notices::Kind::DeleteSelf | notices::Kind::MoveSelf => What::Dir,
        notices::Kind::Ignored => What::Ended,
        notices::Kind::Overflow => What::Overflow,
    }
}
