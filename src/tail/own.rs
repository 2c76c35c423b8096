//! What is never a log: the agent's own state and log, and the files that the settings name, such as
//! credentials and keys, with what is beside them.
//!
//! ```text
//! our own          the file, or all that is in the directory
//! named            the file itself; what stands right in its directory, as written and as it really
//!                  is; and all of a volume of the orchestrator's, whose versions change
//! ```
//!
//! A directory that a pattern names as its own is looked into all the same, but for the named file.
//! What counts is device and inode of a file and of the directories above it, so that another mount
//! of the same directory is no way around this.

use std::cell::RefCell;
use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// What a volume of the orchestrator's has in its root: a link to the version in force.
const VOLUME: &str = "..data";

/// Device and inode.
type Inode = (u64, u64);

/// Whose a file is that is never a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    /// The agent's own.
    Ours,
    /// Named in the settings, or beside what is.
    Named,
}

/// All of them, as they were when a walk began.
#[derive(Debug, Default)]
pub(super) struct Own {
    ours: HashSet<Inode>,
    /// Named files, and volumes of which all counts.
    named: HashSet<Inode>,
    /// Real paths of the named files: another file may take one's place.
    paths: Vec<PathBuf>,
    /// Directories of which only the files count that stand right in them.
    beside: HashSet<Inode>,
    /// The directory that was asked for last, and the answer: most files stand beside another.
    last: RefCell<Option<(PathBuf, Option<Kept>)>>,
}

impl Own {
    /// `bases` are the directories of the patterns, as written.
    pub(super) fn look(ours: &[PathBuf], named: &[PathBuf], bases: &[&Path]) -> Self {
        let mut own = Self {
            ours: ours.iter().filter_map(|path| inode(path)).collect(),
            named: named.iter().filter_map(|path| inode(path)).collect(),
            ..Self::default()
        };
        for file in named {
            let real = fs::canonicalize(file).ok();
            let dir = file.parent().and_then(|dir| fs::canonicalize(dir).ok());
            let real_dir = real.as_deref().and_then(Path::parent).map(Path::to_owned);
            own.paths.extend(real);
            for dir in dir.into_iter().chain(real_dir) {
                let is_base = bases.iter().any(|base| *base == dir || Some(*base) == file.parent());
                let Some(found) = inode(&dir).filter(|_| !is_base) else { continue };
                let is_volume = dir.join(VOLUME).is_symlink();
                if is_volume { &mut own.named } else { &mut own.beside }.insert(found);
            }
        }
        own
    }

    /// Whether this file or directory is one of ours.
    pub(super) fn is_ours(&self, inode: Inode) -> bool {
        self.ours.contains(&inode)
    }

    /// Whether this is a named file, or a volume that holds one.
    pub(super) fn is_named(&self, inode: Inode) -> bool {
        self.named.contains(&inode)
    }

    /// Whether what stands right in this directory is beside a named file.
    pub(super) fn is_beside(&self, dir: Inode) -> bool {
        self.beside.contains(&dir)
    }

    /// Whose a file is, with this real path. *Cost*: a `stat` for each directory above, unless the
    /// file before stood in the same one.
    pub(super) fn keeps(&self, real: &Path, inode: Inode) -> Option<Kept> {
        if self.is_ours(inode) {
            return Some(Kept::Ours);
        }
        if self.is_named(inode) || self.paths.iter().any(|path| path == real) {
            return Some(Kept::Named);
        }
        let dir = real.parent()?;
        let mut last = self.last.borrow_mut();
        if let Some((_, kept)) = last.as_ref().filter(|(asked, _)| asked == dir) {
            return *kept;
        }
        let kept = self.keeps_dir(dir);
        *last = Some((dir.to_owned(), kept));
        kept
    }

    /// Whose the files are that stand in the directory with this real path.
    pub(super) fn keeps_dir(&self, real: &Path) -> Option<Kept> {
        if self.ours.is_empty() && self.named.is_empty() {
            return None;
        }
        real.ancestors().enumerate().find_map(|(level, dir)| match inode(dir)? {
            found if self.is_ours(found) => Some(Kept::Ours),
            found if self.is_named(found) => Some(Kept::Named),
            found => (level == 0 && self.is_beside(found)).then_some(Kept::Named),
        })
    }
}

fn inode(path: &Path) -> Option<Inode> {
    fs::metadata(path).ok().map(|found| (found.dev(), found.ino()))
}
