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
use rustix::process::{getegid, geteuid, getgroups};

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
    /// Whether it is a directory on the way to something else, through which the agent may not go.
    is_on_way: bool,
    /// Owner and mode allow what the agent wants: something else forbids it.
    is_allowed: bool,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (Self { path, owner: (user, group), mode, .. }, me) = (self, me());
        write!(
            f,
            "{} belongs to user {user} and group {group} with mode {mode:04o}, and the agent runs as \
             user {} and group {}",
            path.display(),
            me.0,
            me.1
        )?;
        match (self.is_allowed, me.0) {
            (true, _) => f.write_str(
                ", which that mode allows: an access control list forbids it, or a security module \
                 such as SELinux (in a pod: seLinuxOptions)",
            ),
            (false, 0) => f.write_str(" without the capability DAC_OVERRIDE"),
            (false, _) => Ok(()),
        }
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
            Err(Errno::ACCESS) => return of(&way, needed, !rest.is_empty()),
            // It would have to be made here.
            Err(Errno::NOENT) if wish == Wish::Write => {
                let needed = Access::WRITE_OK | Access::EXEC_OK;
                let may = accessat(CWD, &dir, needed, AtFlags::EACCESS);
                return if may == Err(Errno::ACCESS) { of(&dir, needed, false) } else { None };
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

fn of(path: &Path, needed: Access, is_on_way: bool) -> Option<Refusal> {
    let stat = statat(CWD, path, AtFlags::empty()).ok()?;
    let (owner, mode) = ((stat.st_uid, stat.st_gid), stat.st_mode & 0o7777);
    let groups = getgroups().unwrap_or_default();
    let groups: Vec<u32> = groups.into_iter().map(|group| group.as_raw()).chain([me().1]).collect();
    let is_allowed = allows(owner, mode, (me().0, &groups), needed.bits());
    Some(Refusal { path: path.to_owned(), owner, mode, is_on_way, is_allowed })
}

/// Whether the mode of a file gives somebody these rights (`rwx`), as path_resolution(7) has it: the
/// first class that he belongs to decides.
fn allows(owner: (u32, u32), mode: u32, (user, groups): (u32, &[u32]), needed: u32) -> bool {
    let class = match owner {
        (owner, _) if owner == user => mode >> 6,
        (_, group) if groups.contains(&group) => mode >> 3,
        _ => mode,
    };
    class & needed == needed
}

/// Why the agent may not read a log, and what would let it.
#[must_use]
pub fn explain_log(path: &Path) -> Option<String> {
    let refusal = refusal(path, Wish::Read)?;
    if refusal.is_allowed {
        return Some(refusal.to_string());
    }
    Some(format!(
        "{refusal}; let the app make its logs readable for others (umask 022), or run the agent as \
         the app's user or group"
    ))
}

/// Why the agent may not use a state directory, and what would let it.
#[must_use]
pub fn explain_state(dir: &Path) -> Option<String> {
    let refusal = refusal(dir, Wish::Write)?;
    if refusal.is_allowed {
        return Some(refusal.to_string());
    }
    let ((user, group), path) = (me(), dir.display());
    let pass = if refusal.is_on_way {
        format!("chmod a+x {} && ", refusal.path.display())
    } else {
        String::new()
    };
    let make = if refusal.path == *dir || dir.exists() {
        String::new()
    } else {
        format!("mkdir -p {path} && ")
    };
    Some(format!(
        "{refusal}; as root: {pass}{make}chown -R {user}:{group} {path} (in a pod, an init container does \
         that), or run the agent as the owner"
    ))
}

/// Who else may write into a state directory, or put another one in its place, and what would keep
/// them out.
#[must_use]
pub fn explain_exposed_state(dir: &Path) -> Option<String> {
    let real = std::fs::canonicalize(dir).ok()?;
    real.ancestors().find_map(|above| {
        let stat = statat(CWD, above, AtFlags::empty()).ok()?;
        let mode = stat.st_mode & 0o7777;
        // In a directory above with the sticky bit nobody removes what is another's.
        let is_kept = *above != real && mode & 0o1000 != 0;
        let who = match mode & 0o022 {
            0 => return None,
            _ if is_kept => return None,
            0o020 => format!("the group {}", stat.st_gid),
            _ => "everybody".to_owned(),
        };
        Some(format!(
            "{who} may write to {} (mode {mode:04o}), and so forge what the agent remembers in its \
             state directory {}: chmod 700 it, or in a pod see to it that no other container mounts it",
            above.display(),
            dir.display()
        ))
    })
}

/// Why the agent may not read a file of its state directory `dir`, and what would let it.
#[must_use]
pub fn explain_state_file(file: &Path, dir: &Path) -> Option<String> {
    let (refusal, (user, group)) = (refusal(file, Wish::Read)?, me());
    if refusal.is_allowed {
        return Some(refusal.to_string());
    }
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

        let forbidden = Access::from_bits_retain(0o10);
        let text = of(dir.path(), forbidden, false).unwrap().to_string();

        let (user, group) = (stat.uid(), stat.gid());
        let mode = stat.mode() & 0o7777;
        let whose = format!("belongs to user {user} and group {group} with mode {mode:04o}");
        assert!(text.contains(&whose), "{text}");
        assert!(text.contains(&format!("runs as user {} and", me().0)), "{text}");
        assert!(!text.contains("SELinux"), "{text}");
        let text = of(dir.path(), Access::READ_OK, false).unwrap().to_string();
        assert!(
            text.contains("SELinux"),
            "what its own user may is not forbidden by the mode: {text}"
        );
    }

    #[test]
    fn a_state_directory_that_others_may_write_is_exposed() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let (above, state) = (dir.path().join("above"), dir.path().join("above/state"));
        fs::create_dir_all(&state).unwrap();
        for (mode_above, mode, expected) in [
            (0o755, 0o700, None),
            (0o755, 0o755, None),
            (0o755, 0o777, Some("everybody may write to STATE (mode 0777)")),
            (0o755, 0o1777, Some("everybody may write to STATE (mode 1777)")),
            (0o755, 0o770, Some("may write to STATE (mode 0770)")),
            (0o777, 0o700, Some("everybody may write to ABOVE (mode 0777)")),
            (0o1777, 0o700, None),
        ] {
            fs::set_permissions(&above, fs::Permissions::from_mode(mode_above)).unwrap();
            fs::set_permissions(&state, fs::Permissions::from_mode(mode)).unwrap();
            let text = explain_exposed_state(&state);
            let name = |path: &Path| path.canonicalize().unwrap().display().to_string();
            let expected = expected
                .map(|text| text.replace("STATE", &name(&state)).replace("ABOVE", &name(&above)));
            match expected {
                None => assert_eq!(text, None),
                Some(part) => assert!(text.as_ref().unwrap().contains(&part), "{text:?}"),
            }
        }
        assert_eq!(explain_exposed_state(&dir.path().join("none")), None);
    }

    #[test]
    fn the_first_class_decides() {
        let somebody = (7, &[8, 9][..]);
        for (owner, mode, needed, expected) in [
            ((7, 1), 0o400, 4, true),
            ((7, 8), 0o077, 4, false),
            ((1, 8), 0o740, 4, true),
            ((1, 9), 0o710, 5, false),
            ((1, 9), 0o704, 4, false),
            ((1, 1), 0o705, 5, true),
            ((1, 1), 0o775, 7, false),
        ] {
            assert_eq!(allows(owner, mode, somebody, needed), expected, "{owner:?} {mode:o}");
        }
    }
}
