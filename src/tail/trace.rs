//! Where a path leads, link by link.
//!
//! The kernel follows links in one step; to know which directories to watch, and whether a link
//! leads out of what is allowed, each step counts. Opens nothing.

use std::collections::{BTreeSet, VecDeque};
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Component, Path, PathBuf};

use rustix::io::Errno;

use super::os::{Facts, Os};

/// Most links that are followed in one path before it is called a loop, as path_resolution(7) has
/// it.
const LINKS_MAX: usize = 40;
/// The file system whose links may lead where no path does: into a pipe, or another container. Such
/// links are not followed, so that what is behind one counts as being here.
const KERNEL: &str = "/proc";

/// The way of a path.
#[derive(Debug)]
pub(super) struct Trace {
    /// Where the path leads: without links as far as it exists, the rest of it appended.
    pub(super) real: PathBuf,
    /// The links among the path's own components, in order.
    pub(super) links: Vec<Link>,
    /// The directories in which a change could make the path lead elsewhere: those that hold a link
    /// on its way, and the one that lacks its first missing component.
    pub(super) dirs: BTreeSet<PathBuf>,
    /// How far the path goes.
    pub(super) end: End,
}

/// A link that is a component of a path.
#[derive(Debug)]
pub(super) struct Link {
    /// Path of the link, as the path that was followed names it.
    pub(super) path: PathBuf,
    /// The real directory that holds the link.
    pub(super) dir: PathBuf,
    /// Where the link really leads.
    pub(super) target: PathBuf,
}

/// How far a path goes.
#[derive(Debug)]
pub(super) enum End {
    /// All of the path is there.
    There,
    /// A component of the path is missing.
    Missing,
    /// An error keeps the agent from knowing how far the path goes.
    Failed(io::Error),
}

/// Follows an absolute path.
pub(super) fn path(os: &impl Os, path: &Path) -> Trace {
    let names = components(path).into_iter().skip(1);
    follow(os, Path::new("/"), Path::new("/"), names)
}

/// Follows one name in the directory that really is `real` and is called `dir`. *Cost*: a `lstat`
/// and a `readlink`, and a `lstat` for each component of the target.
pub(super) fn name(os: &impl Os, real: &Path, dir: &Path, name: &OsStr) -> Trace {
    follow(os, real, dir, [name.to_owned()].into_iter())
}

/// Examines what is at a real path. What was no link when the path was followed may be one now, and
/// is not followed.
pub(super) fn stat(os: &impl Os, real: &Path) -> io::Result<Facts> {
    if real.starts_with(KERNEL) { os.stat(real) } else { os.lstat(real) }
}

/// Whether a file system is mounted at this directory. A kernel that does not tell knows only of another
/// device than that of the directory above.
pub(super) fn is_mount(os: &impl Os, dir: &Path) -> bool {
    os.is_mount(dir).unwrap_or_else(|| {
        let device = |path: &Path| os.lstat(path).ok().map(|found| found.device);
        dir.parent().is_some_and(|above| device(above) != device(dir))
    })
}

/// Whether an opened file of this device and inode, of which the kernel says that it is at `told`
/// (proc(5), `/proc/PID/fd`), is the one at this real path, which is behind a link of the kernel:
/// there `told` is a path as another process sees it.
pub(super) fn is_behind_kernel(os: &impl Os, real: &Path, told: &Path, inode: (u64, u64)) -> bool {
    let is_link = |path: &&Path| os.lstat(path).is_ok_and(|found| found.is_link());
    let Some(link) = real.ancestors().skip(1).find(is_link) else { return false };
    let Ok(target) = os.link_target(link) else { return false };
    let is_told = real.strip_prefix(link).is_ok_and(|rest| target.join(rest) == told);
    let is_it = |found: Facts| found.id() == inode;
    link.starts_with(KERNEL) && is_told && os.lstat(real).is_ok_and(is_it)
}

/// Whether a link is one of the kernel's. Behind one there may be others that are not.
fn is_kernels(os: &impl Os, path: &Path, link: &Facts) -> bool {
    path.starts_with(KERNEL)
        && os.lstat(Path::new(KERNEL)).is_ok_and(|kernel| kernel.device == link.device)
}

fn follow(
    os: &impl Os,
    real: &Path,
    dir: &Path,
    mut names: impl Iterator<Item = OsString>,
) -> Trace {
    let mut trace =
        Trace { real: real.to_owned(), links: Vec::new(), dirs: BTreeSet::new(), end: End::There };
    let mut at = dir.to_owned();
    let mut links_left = LINKS_MAX;
    while let Some(name) = names.next() {
        at.push(&name);
        let (dir, links_before) = (trace.real.clone(), links_left);
        if let Err(end) = trace.step(os, name, &mut links_left) {
            trace.end = end;
        }
        if links_left < links_before {
            trace.links.push(Link { path: at.clone(), dir, target: trace.real.clone() });
        }
        if !matches!(trace.end, End::There) {
            trace.real.extend(names);
            break;
        }
    }
    trace
}

impl Trace {
    /// Goes one component further, and on to where it leads if it is a link.
    fn step(&mut self, os: &impl Os, name: OsString, links_left: &mut usize) -> Result<(), End> {
        let mut names = VecDeque::from([name]);
        while let Some(name) = names.pop_front() {
            match name.as_encoded_bytes() {
                b"/" => self.real = PathBuf::from("/"),
                b".." if self.is_unknown(os) => {
                    let why = "what is above the end of a link of /proc is not known";
                    return Err(End::Failed(io::Error::other(why)));
                }
                b".." => {
                    self.real.pop();
                }
                _ => {
                    let next = self.real.join(&name);
                    match self.link(os, &next, links_left) {
                        Ok(None) => self.real = next,
                        Ok(Some(target)) => {
                            for name in components(&target).into_iter().rev() {
                                names.push_front(name);
                            }
                        }
                        Err(error) => {
                            let end = self.stop(error);
                            self.real = next;
                            self.append(names);
                            return Err(end);
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Whether the trace has come to a link that is not followed.
    fn is_unknown(&self, os: &impl Os) -> bool {
        let is_link = |found: Facts| found.is_link();
        self.real.starts_with(KERNEL) && os.lstat(&self.real).is_ok_and(is_link)
    }

    /// The target of a link; `None` if the path is no link.
    fn link(
        &mut self,
        os: &impl Os,
        path: &Path,
        links_left: &mut usize,
    ) -> io::Result<Option<PathBuf>> {
        let found = os.lstat(path)?;
        if !found.is_link() || is_kernels(os, path, &found) {
            return Ok(None);
        }
        self.dirs.insert(self.real.clone());
        *links_left = links_left.checked_sub(1).ok_or(Errno::LOOP)?;
        os.link_target(path).map(Some)
    }

    /// Ends the trace where there is nothing to go on to in `real`: says why, and where to wait for
    /// a change.
    fn stop(&mut self, error: io::Error) -> End {
        match error.kind() {
            io::ErrorKind::NotFound => {
                self.dirs.insert(self.real.clone());
                End::Missing
            }
            io::ErrorKind::NotADirectory => {
                self.dirs.extend(self.real.parent().map(Path::to_owned));
                End::Missing
            }
            _ => End::Failed(error),
        }
    }

    /// Appends components that cannot be looked at.
    fn append(&mut self, names: impl IntoIterator<Item = OsString>) {
        for name in names {
            if name == ".." {
                self.real.pop();
            } else {
                self.real.push(name);
            }
        }
    }
}

/// The components of a path, `/` first if it is absolute.
fn components(path: &Path) -> Vec<OsString> {
    path.components()
        .filter(|component| !matches!(component, Component::CurDir))
        .map(|component| component.as_os_str().to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt as _, symlink};

    use super::*;
    use crate::tail::os::kernel::Kernel;

    fn tree(links: &[(&str, &str)]) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        fs::create_dir_all(root.join("data/pod/logs")).unwrap();
        fs::create_dir_all(root.join("share")).unwrap();
        fs::write(root.join("data/file"), "").unwrap();
        for (target, link) in links {
            symlink(target, root.join(link)).unwrap();
        }
        (dir, root)
    }

    /// Expects the path to lead `to`, with changes in `dirs` to be watched for.
    fn check(links: &[(&str, &str)], from: &str, to: &str, is_there: bool, dirs: &[&str]) {
        let (_dir, root) = tree(links);
        let trace = path(&Kernel, &root.join(from));
        let below = |path: &Path| path.strip_prefix(&root).unwrap().display().to_string();
        assert_eq!(below(&trace.real), to, "{from}");
        assert_eq!(matches!(trace.end, End::There), is_there, "{from}: {:?}", trace.end);
        let seen: Vec<_> = trace.dirs.iter().map(|dir| below(dir)).collect();
        assert_eq!(seen, dirs, "{from}");
        if is_there {
            assert_eq!(trace.real, root.join(from).canonicalize().unwrap(), "as the kernel says");
        }
    }

    #[test]
    fn leads_where_the_kernel_goes() {
        check(&[], "data/pod/logs", "data/pod/logs", true, &[]);
        let link = ("../data/pod/logs", "share/logs");
        check(&[link], "share/logs", "data/pod/logs", true, &["share"]);
        let two = [("../data/now/logs", "share/logs"), ("pod", "data/now")];
        check(&two, "share/logs", "data/pod/logs", true, &["data", "share"]);
        // `..` counts from where the link has led, not from where it was written.
        let up = [("../data/pod/logs", "share/logs"), ("../x", "data/pod/logs/up")];
        check(&up, "share/logs/up", "data/pod/x", false, &["data/pod", "data/pod/logs", "share"]);
        check(&[("./.././data", "share/x")], "share/x/pod", "data/pod", true, &["share"]);
        check(&[("..", "data/pod/up")], "data/pod/up", "data", true, &["data/pod"]);
    }

    #[test]
    fn waits_where_the_first_component_is_missing() {
        check(&[], "data/later/logs", "data/later/logs", false, &["data"]);
        let link = ("../data/later/logs", "share/logs");
        check(&[link], "share/logs/deep", "data/later/logs/deep", false, &["data", "share"]);
        let up = ("../data/later/../x", "share/logs");
        check(&[up], "share/logs", "data/x", false, &["data", "share"]);
        check(&[], "data/file/x/y", "data/file/x/y", false, &["data"]);
    }

    #[test]
    fn names_the_links_of_the_path_with_their_targets() {
        let (_dir, root) = tree(&[("../data/now", "share/pod"), ("pod", "data/now")]);
        symlink("logs", root.join("data/pod/current")).unwrap();
        let trace = path(&Kernel, &root.join("share/pod/current"));
        let links: Vec<_> = trace.links.iter().map(|l| (&l.path, &l.dir, &l.target)).collect();
        assert_eq!(
            links,
            [
                (&root.join("share/pod"), &root.join("share"), &root.join("data/pod")),
                (
                    &root.join("share/pod/current"),
                    &root.join("data/pod"),
                    &root.join("data/pod/logs")
                ),
            ]
        );
    }

    #[test]
    fn a_loop_ends() {
        let (_dir, root) = tree(&[("b", "data/a"), ("a", "data/b")]);
        let trace = path(&Kernel, &root.join("data/a/x"));
        let End::Failed(error) = trace.end else { panic!("{:?}", trace.end) };
        assert_eq!(error.kind(), fs::metadata(root.join("data/a")).unwrap_err().kind());
        assert_eq!(trace.dirs, BTreeSet::from([root.join("data")]));
    }

    #[test]
    fn forty_links_are_followed_as_the_kernel_does() {
        let (_dir, root) = tree(&[]);
        symlink("pod", root.join("data/1")).unwrap();
        for number in 2..=41 {
            symlink((number - 1).to_string(), root.join(format!("data/{number}"))).unwrap();
        }
        for number in [40, 41] {
            let from = root.join(format!("data/{number}"));
            assert_eq!(matches!(path(&Kernel, &from).end, End::There), from.exists(), "{number}");
        }
    }

    #[test]
    fn the_kernels_own_links_are_not_followed() {
        let (_dir, root) = tree(&[("/proc/self/root/data", "share/logs")]);
        assert_eq!(path(&Kernel, &root.join("share/logs")).real, Path::new("/proc/self/root/data"));
        // What is above their end is not what is above their name.
        let out =
            Path::new("/proc/self/cwd").join("../../..").join(root.strip_prefix("/").unwrap());
        symlink(&out, root.join("share/out")).unwrap();
        let out = path(&Kernel, &root.join("share/out"));
        assert!(matches!(out.end, End::Failed(_)), "{out:?}");
        // Links behind them are links like others.
        symlink("/etc", root.join("data/etc")).unwrap();
        let behind = Path::new("/proc/self/root").join(root.strip_prefix("/").unwrap());
        assert_eq!(path(&Kernel, &behind.join("data/etc/x")).real, Path::new("/etc/x"));
        assert!(stat(&Kernel, Path::new("/proc/self/root")).unwrap().is_directory());
    }

    #[test]
    fn a_file_behind_a_link_of_the_kernel_is_told_by_its_place_there() {
        let (_dir, root) = tree(&[("/etc/passwd", "data/link")]);
        let behind =
            |path: &Path| Path::new("/proc/self/root").join(path.strip_prefix("/").unwrap());
        let (file, link) = (root.join("data/file"), root.join("data/link"));
        let inode = |path: &Path| fs::metadata(path).map(|data| (data.dev(), data.ino())).unwrap();
        assert!(is_behind_kernel(&Kernel, &behind(&file), &file, inode(&file)));
        assert!(!is_behind_kernel(&Kernel, &behind(&file), &root.join("data/other"), inode(&file)));
        assert!(!is_behind_kernel(&Kernel, &behind(&file), &file, inode(&root)));
        assert!(!is_behind_kernel(&Kernel, &behind(&link), Path::new("/etc/passwd"), inode(&link)));
        assert!(!is_behind_kernel(&Kernel, &behind(&link), &link, inode(&link)));
        assert!(!is_behind_kernel(&Kernel, &file, &file, inode(&file)));
    }
}
