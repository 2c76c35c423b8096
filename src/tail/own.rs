//! What is never a log: the agent's own state and log, and the files that the settings name, such as
//! credentials and keys, with what is beside them.
//!
//! ```text
//! our own          the file; in the state directory, below which may be logs too, what bears the name
//!                  of one of the state's files, however deep below. No link leads to that directory
//!                  or what stands right in it
//! named            the file itself; what stands right in its directory, as written and as it really
//!                  is; and all of a volume of the orchestrator's, whose versions change
//! ```
//!
//! A directory that a pattern names as its own is looked into all the same, but for the named file.
//! What counts is device and inode of a file and of the directories above it, so that another mount
//! of the same directory is no way around this.

use std::cell::RefCell;
use std::collections::HashSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use super::os::Os;

/// Name of the link in the root of an orchestrator's volume that leads to the version in force.
const VOLUME: &str = "..data";

/// Device and inode.
type Inode = (u64, u64);

/// A function that says whether a name in the private directory is our own.
pub(super) type IsOwn = fn(&OsStr) -> bool;

/// A directory, and which names in it are our own.
#[derive(Debug)]
pub(super) struct Private {
    pub(super) dir: PathBuf,
    pub(super) is_own: IsOwn,
}

/// Whose a file is that is never a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    /// The file is the agent's own.
    Ours,
    /// The settings name the file, or one beside it.
    Named,
}

/// All files that are never logs, as they were when a walk began.
#[derive(Debug, Default)]
pub(super) struct Own {
    ours: HashSet<Inode>,
    private: Option<(Inode, IsOwn)>,
    /// Named files, and volumes of which all counts.
    named: HashSet<Inode>,
    /// Real paths of the named files: another file may take one's place.
    paths: Vec<PathBuf>,
    /// Directories of which only the files count that stand right in them.
    beside: HashSet<Inode>,
    /// The directory that was asked for last, and the answer: most files stand beside another.
    last: RefCell<Option<(PathBuf, Dir)>>,
}

/// What a directory means for the files that stand right in it.
#[derive(Clone, Copy, Debug)]
enum Dir {
    Free,
    /// The directory is the private one: the name of a file decides.
    Private,
    Kept(Kept),
}

impl Own {
    /// Looks at all files that are never logs. `bases` are the directories of the patterns, as
    /// written.
    pub(super) fn look(
        os: &impl Os,
        ours: &[PathBuf],
        private: Option<&Private>,
        named: &[PathBuf],
        bases: &[&Path],
    ) -> Self {
        let mut own = Self {
            private: private.and_then(|one| Some((inode(os, &one.dir)?, one.is_own))),
            ours: ours.iter().filter_map(|path| inode(os, path)).collect(),
            named: named.iter().filter_map(|path| inode(os, path)).collect(),
            ..Self::default()
        };
        for file in named {
            let real = os.real(file).ok();
            let dir = file.parent().and_then(|dir| os.real(dir).ok());
            let real_dir = real.as_deref().and_then(Path::parent).map(Path::to_owned);
            own.paths.extend(real);
            for dir in dir.into_iter().chain(real_dir) {
                let is_base = bases.iter().any(|base| *base == dir || Some(*base) == file.parent());
                let Some(found) = inode(os, &dir).filter(|_| !is_base) else { continue };
                let is_volume = os.lstat(&dir.join(VOLUME)).is_ok_and(|found| found.is_link());
                if is_volume { &mut own.named } else { &mut own.beside }.insert(found);
            }
        }
        own
    }

    /// Whether a directory is the one in which names may be our own.
    pub(super) fn is_private(&self, dir: Inode) -> bool {
        self.private.is_some_and(|(private, _)| private == dir)
    }

    /// Whether a name in the private directory is our own.
    pub(super) fn is_private_name(&self, name: &OsStr) -> bool {
        self.private.is_some_and(|(_, is_own)| is_own(name))
    }

    /// Whether a file or directory is one of ours.
    pub(super) fn is_ours(&self, inode: Inode) -> bool {
        self.ours.contains(&inode)
    }

    /// Whether a file is a named one, or a directory is a volume that holds one.
    pub(super) fn is_named(&self, inode: Inode) -> bool {
        self.named.contains(&inode)
    }

    /// Whether what stands right in a directory is beside a named file.
    pub(super) fn is_beside(&self, dir: Inode) -> bool {
        self.beside.contains(&dir)
    }

    /// Whose a file is, with this real path. *Cost*: a `stat` for each directory above, unless the
    /// file before stood in the same one.
    pub(super) fn keeps(&self, os: &impl Os, real: &Path, inode: Inode) -> Option<Kept> {
        if self.is_ours(inode) {
            return Some(Kept::Ours);
        }
        if self.is_named(inode) || self.paths.iter().any(|path| path == real) {
            return Some(Kept::Named);
        }
        let (dir, name) = (real.parent()?, real.file_name()?);
        match self.recall(os, dir) {
            Dir::Free => None,
            Dir::Private => self.is_private_name(name).then_some(Kept::Ours),
            Dir::Kept(kept) => Some(kept),
        }
    }

    /// Whose a file or directory is to which a link leads, with this real path: none leads to what
    /// stands right in the private directory.
    pub(super) fn keeps_target(&self, os: &impl Os, real: &Path, inode: Inode) -> Option<Kept> {
        let is_in_private =
            || matches!(real.parent().map(|dir| self.judge(os, dir)), Some(Dir::Private));
        self.keeps(os, real, inode).or_else(|| is_in_private().then_some(Kept::Ours))
    }

    /// Whose a directory is to which a link leads, with this real path.
    pub(super) fn keeps_dir(&self, os: &impl Os, real: &Path) -> Option<Kept> {
        if self.is_empty() {
            return None;
        }
        match self.judge(os, real) {
            Dir::Kept(kept) => Some(kept),
            Dir::Private => Some(Kept::Ours),
            Dir::Free => None,
        }
    }

    /// Whether a real path is that of the private directory.
    pub(super) fn is_private_dir(&self, os: &impl Os, real: &Path) -> bool {
        matches!(self.recall(os, real), Dir::Private)
    }

    /// What a directory means, as [`Self::judge`] says. The answer is kept for files that stand
    /// beside each other.
    fn recall(&self, os: &impl Os, dir: &Path) -> Dir {
        let mut last = self.last.borrow_mut();
        let known = last.as_ref().filter(|(asked, _)| asked == dir).map(|(_, known)| *known);
        known.unwrap_or_else(|| {
            let found = self.judge(os, dir);
            *last = Some((dir.to_owned(), found));
            found
        })
    }

    fn judge(&self, os: &impl Os, dir: &Path) -> Dir {
        if self.is_empty() {
            return Dir::Free;
        }
        let mut below: Option<&OsStr> = None;
        for dir in dir.ancestors() {
            let name = std::mem::replace(&mut below, dir.file_name());
            let Some(found) = inode(os, dir) else { continue };
            match name {
                _ if self.is_ours(found) => return Dir::Kept(Kept::Ours),
                _ if self.is_named(found) => return Dir::Kept(Kept::Named),
                None if self.is_beside(found) => return Dir::Kept(Kept::Named),
                None if self.is_private(found) => return Dir::Private,
                Some(name) if self.is_private(found) && self.is_private_name(name) => {
                    return Dir::Kept(Kept::Ours);
                }
                _ => {}
            }
        }
        Dir::Free
    }

    fn is_empty(&self) -> bool {
        self.ours.is_empty()
            && self.named.is_empty()
            && self.beside.is_empty()
            && self.private.is_none()
    }
}

/// Device and inode of what a path leads to.
pub(super) fn inode(os: &impl Os, path: &Path) -> Option<Inode> {
    os.stat(path).ok().map(|found| found.id())
}
