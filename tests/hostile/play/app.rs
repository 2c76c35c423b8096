//! What the app does to its own directories, and never to another's: it reads and writes only where
//! no link leads out. What it may not do the system would refuse it; here it does not try.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::{Component, Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::pick;

/// Names that the app uses.
const NAMES: [&str; 14] = [
    "app.log",
    "x.log",
    "x0.log",
    "x.log.1",
    "app.log.1",
    "app.log.1.gz",
    "credentials.json",
    "tls.key",
    "token.log",
    "..data",
    "sub",
    "logs",
    "deep",
    "sub.log",
];

/// The app.
pub(crate) struct App {
    /// Its directories. What stands above is not its own.
    areas: [PathBuf; 2],
    pub(crate) logs: PathBuf,
    pub(crate) link: PathBuf,
    count: u32,
}

/// How a link says where it leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Absolute,
    /// By `..` from where it stands.
    Relative,
    /// By way of two other links.
    Chain,
    /// By way of a link of the kernel.
    Kernel,
}

impl Way {
    pub(crate) fn draw(rng: &mut fastrand::Rng) -> Self {
        pick(
            rng,
            &[
                Self::Absolute,
                Self::Absolute,
                Self::Relative,
                Self::Relative,
                Self::Chain,
                Self::Kernel,
            ],
        )
    }
}

impl App {
    pub(crate) fn new(root: &Path) -> Self {
        Self {
            areas: [root.join("data/app"), root.join("share")],
            logs: root.join("data/app/logs"),
            link: root.join("share/logs"),
            count: 0,
        }
    }

    /// A number that it has not used yet.
    pub(crate) fn next(&mut self) -> u32 {
        self.count += 1;
        self.count
    }

    /// Whether a name may be made or taken away: the directory that holds it is the app's.
    fn owns_name(&self, path: &Path) -> bool {
        path.parent().is_some_and(|dir| self.owns(dir))
    }

    /// Whether what a path leads to is the app's.
    fn owns(&self, path: &Path) -> bool {
        let real = path.canonicalize();
        real.is_ok_and(|real| self.areas.iter().any(|area| real.starts_with(area)))
    }

    /// A directory of its own, perhaps by way of links.
    pub(crate) fn some_dir(&self, rng: &mut fastrand::Rng) -> PathBuf {
        let [app, share] = &self.areas;
        let logs = &self.logs;
        let dirs = [
            logs.clone(),
            logs.clone(),
            logs.join("sub"),
            logs.join("sub"),
            logs.join("sub/deep"),
            logs.join("logs"),
            app.clone(),
            share.clone(),
            share.join("logs/sub"),
        ];
        let dir = dirs[rng.usize(..dirs.len())].clone();
        if self.owns(&dir) { dir } else { logs.clone() }
    }

    pub(crate) fn some_path(&self, rng: &mut fastrand::Rng) -> PathBuf {
        self.some_dir(rng).join(pick(rng, &NAMES))
    }

    /// Writes a file, which is a file of its own or none yet; makes the directories above it.
    pub(crate) fn write(&self, path: &Path, bytes: &[u8]) -> bool {
        let Some(dir) = path.parent() else { return false };
        let nearest = dir.ancestors().find(|dir| dir.symlink_metadata().is_ok());
        if !nearest.is_some_and(|dir| self.owns(dir)) || fs::create_dir_all(dir).is_err() {
            return false;
        }
        let is_free = path.symlink_metadata().is_err() || self.owns(path);
        self.owns_name(path) && is_free && fs::write(path, bytes).is_ok()
    }

    pub(crate) fn append(&self, path: &Path, bytes: &[u8]) -> bool {
        let mut options = OpenOptions::new();
        let file = self.owns(path).then(|| options.append(true).open(path));
        file.is_some_and(|file| file.and_then(|mut file| file.write_all(bytes)).is_ok())
    }

    pub(crate) fn truncate(&self, path: &Path) -> bool {
        self.owns(path) && OpenOptions::new().write(true).truncate(true).open(path).is_ok()
    }

    pub(crate) fn make_dir(&self, path: &Path) -> bool {
        self.owns_name(path) && fs::create_dir(path).is_ok()
    }

    /// Takes away whatever has this name, and what is below it if it is a directory.
    pub(crate) fn remove(&self, path: &Path) -> bool {
        if !self.owns_name(path) {
            return false;
        }
        match path.symlink_metadata() {
            Ok(found) if found.is_dir() => fs::remove_dir_all(path).is_ok(),
            Ok(_) => fs::remove_file(path).is_ok(),
            Err(_) => false,
        }
    }

    pub(crate) fn rename(&self, from: &Path, to: &Path) -> bool {
        self.owns_name(from) && self.owns_name(to) && fs::rename(from, to).is_ok()
    }

    pub(crate) fn exchange(&self, one: &Path, other: &Path) -> bool {
        self.owns_name(one)
            && self.owns_name(other)
            && renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).is_ok()
    }

    /// A second name for a file of its own.
    pub(crate) fn hard_link(&self, from: &Path, to: &Path) -> bool {
        self.owns(from) && self.owns_name(to) && fs::hard_link(from, to).is_ok()
    }

    pub(crate) fn compress(&self, path: &Path) -> bool {
        let mut to = path.as_os_str().to_owned();
        to.push(".gz");
        let Some(bytes) = self.read(path) else { return false };
        let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
        let packed = packed.write_all(&bytes).and_then(|()| packed.finish()).expect("memory");
        self.write(Path::new(&to), &packed) && self.remove(path)
    }

    pub(crate) fn copy_and_truncate(&self, path: &Path) -> bool {
        let mut to = path.as_os_str().to_owned();
        to.push(".1");
        let bytes = self.read(path);
        bytes.is_some_and(|bytes| self.write(Path::new(&to), &bytes) && self.truncate(path))
    }

    /// Small files of its own only: who reads a secret could write it.
    fn read(&self, path: &Path) -> Option<Vec<u8>> {
        self.owns(path).then(|| fs::read(path).ok()).flatten()
    }

    /// Makes a link, which takes the place of a file or link, and of no directory.
    pub(crate) fn link(&mut self, to: &Path, at: &Path, way: Way) -> bool {
        if !self.owns_name(at) {
            return false;
        }
        let number = self.next();
        let hop = |name: &str| self.areas[0].join(format!("{name}{number}"));
        let to = match way {
            Way::Absolute => to.to_owned(),
            Way::Relative => relative(at, to),
            Way::Kernel => Path::new("/proc/self/root").join(to.strip_prefix("/").unwrap_or(to)),
            Way::Chain => {
                let (first, second) = (hop("hop"), hop("step"));
                let _ = symlink(to, &first);
                let _ = symlink(relative(&second, &first), &second);
                second
            }
        };
        let next = at.with_extension("next");
        let _ = fs::remove_file(&next);
        symlink(to, &next).is_ok() && fs::rename(&next, at).is_ok()
    }
}

/// A way from the directory that really holds `at` to `to`.
fn relative(at: &Path, to: &Path) -> PathBuf {
    let dir = at.parent().and_then(|dir| dir.canonicalize().ok()).unwrap_or_default();
    let mut way: PathBuf = dir.components().skip(1).map(|_| Component::ParentDir).collect();
    way.push(to.strip_prefix("/").unwrap_or(to));
    way
}
