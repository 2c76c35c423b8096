//! Why the system refuses a path: whose it is, what its mode is, who the agent is.
//!
//! For the people who read messages: "Permission denied" alone sends them to look for all of this, in
//! an image without a shell. *Cost*: some system calls for each part of the path; only for what has
//! been refused.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, accessat, readlinkat, statat};
use rustix::io::Errno;
use rustix::process::{getegid, geteuid};

/// Links that are followed on the way, as many as the kernel follows.
const LINKS_MAX: usize = 40;

/// What somebody wanted to do with a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Read a file, or list a directory.
    Read,
    /// Make files in a directory.
    Write,
}

/// What the agent may not use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The path itself, a directory on the way to it, or the one in which it would have to be made.
    pub path: PathBuf,
    owner: (u32, u32),
    mode: u32,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (Self { path, owner: (user, group), mode }, me) = (self, me());
        write!(
            f,
            "{} belongs to user {user} and group {group} with mode {mode:04o}, and the agent runs as \
             user {} and group {}",
            path.display(),
            me.0,
            me.1
        )?;
        if me.0 == 0 { f.write_str(" without the capability DAC_OVERRIDE") } else { Ok(()) }
    }
}

/// The user and the group that the agent runs as.
#[must_use]
pub fn me() -> (u32, u32) {
    (geteuid().as_raw(), getegid().as_raw())
}

/// Finds what on the way to `path` its owner and mode forbid the agent; `None` if that is nothing.
#[must_use]
pub fn refusal(path: &Path, wish: Wish) -> Option<Refusal> {
    let mut way = PathBuf::new();
    let mut rest: Vec<PathBuf> = parts(path);
    let mut links = 0;
    while let Some(part) = rest.pop() {
        let dir = if way.as_os_str().is_empty() { PathBuf::from(".") } else { way.clone() };
        way.push(part);
        if let Ok(target) = readlinkat(CWD, &way, Vec::new()) {
            links += 1;
            if links > LINKS_MAX {
                return None;
            }
            way.pop();
            rest.extend(parts(Path::new(OsStr::from_bytes(target.as_bytes()))));
            continue;
        }
        let needed = match (rest.is_empty(), wish) {
            (false, _) => Access::EXEC_OK,
            (true, Wish::Read) => Access::READ_OK,
            (true, Wish::Write) => Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK,
        };
        match accessat(CWD, &way, needed, AtFlags::EACCESS) {
            Ok(()) => {}
            Err(Errno::ACCESS) => return of(&way),
            // It would have to be made here.
            Err(Errno::NOENT) if wish == Wish::Write => {
                let may = accessat(CWD, &dir, Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS);
                return if may == Err(Errno::ACCESS) { of(&dir) } else { None };
            }
            Err(_) => return None,
        }
    }
    None
}

/// The parts of a path, the last one first.
fn parts(path: &Path) -> Vec<PathBuf> {
    let mut parts: Vec<PathBuf> =
        path.components().map(|part: Component<'_>| PathBuf::from(part.as_os_str())).collect();
    parts.reverse();
    parts
}

fn of(path: &Path) -> Option<Refusal> {
    let stat = statat(CWD, path, AtFlags::empty()).ok()?;
    let (owner, mode) = ((stat.st_uid, stat.st_gid), stat.st_mode & 0o7777);
    Some(Refusal { path: path.to_owned(), owner, mode })
}

/// Why the agent may not read a log, and what would let it.
#[must_use]
pub fn explain_log(path: &Path) -> Option<String> {
    let refusal = refusal(path, Wish::Read)?;
    Some(format!(
        "{refusal}; let the app make its logs readable for others (umask 022), or run the agent as \
         the app's user or group"
    ))
}

/// Why the agent may not use a state directory, and what would let it.
#[must_use]
pub fn explain_state(dir: &Path) -> Option<String> {
    let refusal = refusal(dir, Wish::Write)?;
    let ((user, group), path) = (me(), dir.display());
    let make = if refusal.path == *dir || dir.exists() {
        String::new()
    } else {
        format!("mkdir -p {path} && ")
    };
    Some(format!(
        "{refusal}; as root: {make}chown -R {user}:{group} {path} (in a pod, an init container does \
         that), or run the agent as the owner"
    ))
}

/// Why the agent may not read a file of its state directory `dir`, and what would let it.
#[must_use]
pub fn explain_state_file(file: &Path, dir: &Path) -> Option<String> {
    let (refusal, (user, group)) = (refusal(file, Wish::Read)?, me());
    Some(format!("{refusal}; as root: chown -R {user}:{group} {}", dir.display()))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt as _, symlink};

    use super::*;

    #[test]
    fn what_may_be_used_is_not_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("app.log");
        fs::write(&file, "").unwrap();
        symlink(dir.path(), dir.path().join("link")).unwrap();

        for (path, wish) in [
            (file, Wish::Read),
            (dir.path().join("link/link/app.log"), Wish::Read),
            (dir.path().to_owned(), Wish::Write),
            (dir.path().join("link/to/be/made"), Wish::Write),
            (PathBuf::from("."), Wish::Read),
            (dir.path().join("nothing"), Wish::Read),
        ] {
            assert_eq!(refusal(&path, wish), None, "{}", path.display());
        }
    }

    #[test]
    fn links_without_an_end_are_nobodys_refusal() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("link");
        symlink("link", &link).unwrap();
        assert_eq!(refusal(&link, Wish::Read), None);
    }

    #[test]
    fn says_whose_it_is_and_who_asks() {
        let dir = tempfile::tempdir().unwrap();
        let stat = fs::metadata(dir.path()).unwrap();

        let text = of(dir.path()).unwrap().to_string();

        let (user, group) = (stat.uid(), stat.gid());
        let mode = stat.mode() & 0o7777;
        let whose = format!("belongs to user {user} and group {group} with mode {mode:04o}");
        assert!(text.contains(&whose), "{text}");
        assert!(text.contains(&format!("runs as user {} and", me().0)), "{text}");
    }
}
