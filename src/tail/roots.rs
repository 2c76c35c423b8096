//! Where links may lead.
//!
//! Who may write a log directory can put a link there to any file of the node, and the agent, often
//! root, would ship it. So a file is shipped only if its real path is below a *root*:
//!
//! ```text
//! as written   the base of each pattern, its components before the first wildcard
//! listed       the directories that the operator names (`link_roots`); then nothing is learnt
//! learnt       when a base is first there and leads through links: the directory two levels above
//!              it, so that /share/logs ─▶ /data/pod-1/logs may become /data/pod-2/logs later; and
//!              when it has moved beside: the base itself. For the life of the process.
//! ```
//!
//! Two levels above is too much where that is `/`, a directory of every system (`/var`, `/usr`,
//! `/home`) or the root of a mount: then it is one level above. It is never above the root of a mount,
//! and where one level above is a directory of every system too, it is where the base leads. On a
//! mount what bears the same name in its other directories is learnt as well: with /data mounted,
//! /data/pod-1/logs allows /data/pod-1 and /data/*/logs, and nothing else of /data.
//!
//! *Beside* is where a base leads when a link on its way is pointed to a neighbour of what it was
//! pointed to at first sight: current ─▶ v1 becomes v2, and current/var/log/app is let go with it.
//!
//! Decides only; `trace` looks at the links.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

/// Directories that no link opens up by being there. They hold the secrets of processes, of the
/// system and of the pod, and no logs. As written or listed they are roots like any other.
const SYSTEM: [&str; 5] = ["/proc", "/sys", "/etc", "/run/secrets", "/var/run/secrets"];
/// Directories of every system that hold the files of many. No link opens up all of one.
const SHARED: [&str; 20] = [
    "/bin",
    "/boot",
    "/dev",
    "/home",
    "/lib",
    "/lib64",
    "/media",
    "/mnt",
    "/opt",
    "/root",
    "/sbin",
    "/srv",
    "/tmp",
    "/usr",
    "/usr/local",
    "/usr/share",
    "/var",
    "/var/lib",
    "/var/log",
    "/var/tmp",
];
/// Levels from where a base leads up to the directory that is learnt. A base that is a link may be
/// pointed to what is beside the directory above its target.
const LEVELS_ABOVE: usize = 2;

/// A directory that the operator names.
#[derive(Debug)]
struct Listed {
    written: PathBuf,
    /// Where the directory really is, as far as is known.
    real: PathBuf,
    /// The links on the way to the directory when it was first there.
    links: Option<Vec<PathBuf>>,
}

/// A directory's neighbours, and the same path in each of them.
#[derive(Debug)]
struct Beside {
    /// The directory that holds the neighbours. Never `/`.
    dir: PathBuf,
    below: PathBuf,
}

/// Directories that were learnt.
#[derive(Debug, Default)]
struct Reach {
    dirs: BTreeSet<PathBuf>,
    /// Neighbours of the same name in the root of a mount, with all that is below them.
    alike: Vec<Beside>,
}

/// The directories below which files are shipped.
#[derive(Debug)]
pub(super) struct LinkRoots {
    /// Bases of patterns as written.
    written: Vec<PathBuf>,
    /// Directories that the operator wrote; if there are none, roots are learnt.
    listed: Vec<Listed>,
    /// Directories that links led to.
    learnt: Reach,
    /// Bases that have been there, and what is beside where they led then.
    met: HashMap<PathBuf, Vec<Beside>>,
}

impl LinkRoots {
    /// Makes the roots from the bases of the patterns and what the operator listed, if anything.
    pub(super) fn new(bases: impl IntoIterator<Item = PathBuf>, listed: &[PathBuf]) -> Self {
        Self {
            written: bases.into_iter().collect(),
            listed: listed.iter().cloned().map(Listed::new).collect(),
            learnt: Reach::default(),
            met: HashMap::new(),
        }
    }

    /// Finds out where the listed directories really are. `real` says that, and which links are on
    /// the way. A directory that cannot be found at the moment stays where it was.
    pub(super) fn resolve(&mut self, real: impl Fn(&Path) -> Option<(PathBuf, Vec<PathBuf>)>) {
        for listed in &mut self.listed {
            if let Some((real, links)) = real(&listed.written) {
                listed.on_found(real, links);
            }
        }
    }

    /// Learns what a base allows, when it is there for the first time: the base really is `real`,
    /// and the links on its way lead to `targets`. `is_mount` says of a directory that it is the
    /// root of a mount.
    pub(super) fn learn<'a>(
        &mut self,
        base: &Path,
        real: &Path,
        targets: impl IntoIterator<Item = &'a Path>,
        is_mount: impl Fn(&Path) -> bool,
    ) {
        if !self.is_awaited(base) {
            if self.is_beside(base, real) && !self.allows(real) {
                self.learnt.dirs.insert(real.to_owned());
            }
            return;
        }
        let mut targets = targets.into_iter().peekable();
        if targets.peek().is_some() {
            self.learnt.open_up(real, is_mount);
        }
        let beside = targets.filter_map(|target| Beside::new(target, real)).collect();
        self.met.insert(base.to_owned(), beside);
    }

    /// Whether a base may lead to `real`: no link is on its way, or what it leads to is still to be
    /// learnt, or is allowed.
    pub(super) fn allows_base(&self, base: &Path, real: &Path) -> bool {
        base == real || self.is_awaited(base) || self.allows(real) || self.is_beside(base, real)
    }

    fn is_awaited(&self, base: &Path) -> bool {
        !self.are_listed() && !self.met.contains_key(base)
    }

    fn is_beside(&self, base: &Path, real: &Path) -> bool {
        let beside = self.met.get(base).into_iter().flatten();
        beside.into_iter().any(|one| one.contains(real)) && !is_system(real)
    }

    /// Whether a file or directory with this real path is below a root, or is one.
    pub(super) fn allows(&self, real: &Path) -> bool {
        self.explicit().any(|root| real.starts_with(root)) || self.learnt.contains(real)
    }

    /// Whether a base has not been there yet, so that what it will allow is not known.
    pub(super) fn are_awaited(&self) -> bool {
        self.written.iter().any(|base| self.is_awaited(base))
    }

    /// Whether the operator says what is allowed.
    pub(super) fn are_listed(&self) -> bool {
        !self.listed.is_empty()
    }

    /// Whether a root is below this path, so that one must pass it.
    pub(super) fn is_on_the_way(&self, real: &Path) -> bool {
        let mounts = self.learnt.alike.iter().map(|one| &one.dir);
        self.explicit().chain(&self.learnt.dirs).chain(mounts).any(|root| root.starts_with(real))
    }

    /// The roots, for people.
    pub(super) fn list(&self) -> String {
        let alike = self.learnt.alike.iter().map(|one| one.dir.join("*").join(&one.below));
        let all: BTreeSet<_> =
            self.explicit().chain(&self.learnt.dirs).cloned().chain(alike).collect();
        let texts: Vec<_> = all.into_iter().map(|root| root.display().to_string()).collect();
        texts.join(",")
    }

    fn explicit(&self) -> impl Iterator<Item = &PathBuf> {
        self.written.iter().chain(self.listed.iter().map(|listed| &listed.real))
    }
}

impl Reach {
    /// Learns what is around `real`.
    fn open_up(&mut self, real: &Path, is_mount: impl Fn(&Path) -> bool) {
        let mut root = real;
        for (level, dir) in real.ancestors().enumerate().skip(1).take(LEVELS_ABOVE) {
            let is_too_high = level == LEVELS_ABOVE && is_mount(dir);
            if is_shared(dir) || is_too_high {
                let below = real.strip_prefix(dir).unwrap_or(real).components().skip(1).collect();
                let alike = Beside { dir: dir.to_owned(), below };
                self.alike.extend((!is_shared(dir)).then_some(alike));
                break;
            }
            root = dir;
            if is_mount(dir) {
                break;
            }
        }
        self.dirs.extend((root != Path::new("/")).then(|| root.to_owned()));
    }

    /// Whether `real` is in a learnt directory. The system's own never is.
    fn contains(&self, real: &Path) -> bool {
        let is_below = || self.dirs.iter().any(|dir| real.starts_with(dir));
        (is_below() || self.alike.iter().any(|one| one.is_around(real))) && !is_system(real)
    }
}

impl Listed {
    fn new(written: PathBuf) -> Self {
        Self { real: written.clone(), written, links: None }
    }

    /// Takes where the directory is now, if only links lead there that were on its way at first.
    /// Such a link may be pointed elsewhere, as `current` is. A link that has come later was made
    /// by whoever may write there, and is not followed; nor is one to the system's own.
    fn on_found(&mut self, real: PathBuf, links: Vec<PathBuf>) {
        let is_opened_up = is_system(&real) && !is_system(&self.written);
        let known = self.links.get_or_insert_with(|| links.clone());
        if !is_opened_up && links.iter().all(|link| known.contains(link)) {
            self.real = real;
        }
    }
}

impl Beside {
    /// The neighbours of `target`, if `real` is in it.
    fn new(target: &Path, real: &Path) -> Option<Self> {
        let dir = target.parent().filter(|dir| *dir != Path::new("/") && !is_shared(dir))?;
        let below = real.strip_prefix(target).ok()?;
        Some(Self { dir: dir.to_owned(), below: below.to_owned() })
    }

    fn contains(&self, real: &Path) -> bool {
        let Ok(rest) = real.strip_prefix(&self.dir) else { return false };
        let mut names = rest.components();
        names.next().is_some() && names.as_path() == self.below
    }

    /// Whether `real` is in the same path below a neighbour, or below that.
    fn is_around(&self, real: &Path) -> bool {
        let Ok(rest) = real.strip_prefix(&self.dir) else { return false };
        let mut names = rest.components();
        names.next().is_some() && names.as_path().starts_with(&self.below)
    }
}

fn is_shared(dir: &Path) -> bool {
    dir == Path::new("/") || SHARED.iter().any(|shared| dir == Path::new(shared))
}

fn is_system(real: &Path) -> bool {
    SYSTEM.iter().any(|system| real.starts_with(system))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Roots that have learnt where one base led at first sight.
    fn met(base: &str, real: &str, targets: &[&str]) -> LinkRoots {
        let mut roots = LinkRoots::new([base.into()], &[]);
        roots.learn(base.as_ref(), real.as_ref(), targets.iter().map(Path::new), |_| false);
        roots
    }

    /// Roots that have learnt where /share/logs led at first sight, with these directories mounted.
    fn met_on(mounts: &[&str], real: &str) -> LinkRoots {
        let mut roots = LinkRoots::new(["/share/logs".into()], &[]);
        let is_mount = |dir: &Path| mounts.iter().any(|mount| dir == Path::new(mount));
        roots.learn("/share/logs".as_ref(), real.as_ref(), [Path::new(real)], is_mount);
        roots
    }

    #[test]
    fn a_base_without_links_allows_what_is_below_it() {
        let roots = met("/share/logs", "/share/logs", &[]);
        for (real, expected) in [
            ("/share/logs/app.log", true),
            ("/share/logs/a/b.log", true),
            ("/share/logs", true),
            ("/share/logs-2/app.log", false),
            ("/share/app.log", false),
            ("/data/app.log", false),
            ("/", false),
        ] {
            assert_eq!(roots.allows(real.as_ref()), expected, "{real}");
        }
    }

    #[test]
    fn a_linked_base_allows_what_is_beside_its_first_target() {
        for (real, target, allowed, refused) in [
            ("/data/pod-1/logs", "/data/pod-1/logs", "/data/pod-2/logs", "/data-2/logs"),
            ("/data/logs", "/data/logs", "/data/other", "/srv/logs"),
            ("/logs", "/logs", "/logs/x", "/logs-2/x"),
            ("/data/logs", "/", "/data/x", "/home/x"),
        ] {
            let roots = met("/share/logs", real, &[target]);
            assert!(roots.allows(real.as_ref()), "{real}");
            assert!(roots.allows(allowed.as_ref()), "{allowed} of {real}");
            assert!(!roots.allows(refused.as_ref()), "{refused} of {real}");
        }
    }

    /// Links `current` to /opt/app/v1, and has the base far below that.
    #[test]
    fn a_link_far_above_the_base_may_be_pointed_to_a_neighbour() {
        let base = Path::new("/current/var/log/app/x");
        let below = |version: &str| PathBuf::from(format!("/opt/app/{version}/var/log/app/x"));
        let mut roots =
            met("/current/var/log/app/x", below("v1").to_str().unwrap(), &["/opt/app/v1"]);
        let next = below("v2");
        assert!(roots.allows_base(base, &next));
        assert!(!roots.allows(&next), "as long as no base leads there");
        for other in
            ["/opt/app/v2/var/log/app", "/opt/app/a/b/var/log/app/x", "/opt/b/var/log/app/x"]
        {
            assert!(!roots.allows_base(base, other.as_ref()), "{other}");
        }

        roots.learn(base, &next, [Path::new("/opt/app/v2")], |_| false);
        assert!(roots.allows(&next.join("app.log")));
        assert!(!roots.allows("/opt/app/v2/etc/key".as_ref()));
        roots.learn(base, "/home/x".as_ref(), ["/home/x".as_ref()], |_| false);
        assert!(!roots.allows_base(base, "/home/x".as_ref()));
    }

    #[test]
    fn a_link_opens_up_no_directory_of_many() {
        for (mounts, real, allowed, refused) in [
            (&[][..], "/var/log/app", "/var/log/app/x", "/var/log/other/x"),
            (&[], "/var/log/app/logs", "/var/log/app/x", "/var/log/auth.log"),
            (&[], "/home/app/logs", "/home/app/x", "/home/other/logs/x"),
            (&[], "/usr/app", "/usr/app/x", "/usr/other/x"),
            (&[], "/var/log", "/var/log/x", "/var/lib/x"),
            (&["/data"], "/data/pod-1/logs", "/data/pod-2/logs/x", "/data/pod-2/key"),
            (&["/data"], "/data/pod-1/logs", "/data/pod-1/x", "/data/key"),
            (&["/data"], "/data/logs", "/data/other", "/dat"),
            (&["/data/pod-1"], "/data/pod-1/logs", "/data/pod-1/x", "/data/pod-2/logs/x"),
            (&["/data"], "/data", "/data/x", "/dat"),
        ] {
            let roots = met_on(mounts, real);
            for real in [real, allowed] {
                assert!(roots.allows(real.as_ref()), "{real} of {}", roots.list());
            }
            assert!(!roots.allows(refused.as_ref()), "{refused} of {}", roots.list());
        }
        assert_eq!(
            met_on(&["/data"], "/data/pod-1/logs").list(),
            "/data/*/logs,/data/pod-1,/share/logs"
        );
    }

    #[test]
    fn the_root_directory_is_never_learnt() {
        for real in ["/", "/data", "/data/logs"] {
            let roots = met("/share/logs", real, &[real]);
            assert!(!roots.allows("/home/x".as_ref()), "{real}: {}", roots.list());
        }
        assert!(!met("/share/logs", "/", &["/"]).allows("/".as_ref()));
    }

    #[test]
    fn what_was_learnt_at_first_sight_stays_and_nothing_is_learnt_later() {
        let base = Path::new("/share/logs");
        let mut roots = met("/share/logs", "/data/pod-1/logs", &["/data/pod-1/logs"]);
        roots.learn(base, Path::new("/home/x/logs"), [Path::new("/home/x/logs")], |_| false);
        assert!(roots.allows("/data/pod-2/logs".as_ref()));
        assert!(!roots.allows("/home/x/logs".as_ref()));
    }

    #[test]
    fn what_is_listed_replaces_what_would_be_learnt() {
        let mut roots = LinkRoots::new(["/share/logs".into()], &["/data/now".into()]);
        roots.resolve(|_| Some(("/data/7".into(), vec!["/data/now".into()])));
        roots.resolve(|_| None);
        roots.learn(
            "/share/logs".as_ref(),
            "/home/pod/logs".as_ref(),
            [Path::new("/home/pod/logs")],
            |_| false,
        );
        for (real, expected) in [
            ("/home/pod/logs", false),
            ("/data/7/app.log", true),
            ("/data/8/app.log", false),
            ("/share/logs/app.log", true),
        ] {
            assert_eq!(roots.allows(real.as_ref()), expected, "{real}");
        }
        assert!(!roots.allows_base("/share/logs".as_ref(), "/home/pod/logs".as_ref()));
    }

    #[test]
    fn a_listed_directory_does_not_become_a_link() {
        let mut roots = LinkRoots::new([], &["/data/logs".into()]);
        let link = || vec![PathBuf::from("/data/logs")];
        roots.resolve(|_| Some(("/data/logs".into(), Vec::new())));
        roots.resolve(|_| Some(("/home/x".into(), link())));
        assert!(roots.allows("/data/logs/x".as_ref()) && !roots.allows("/home/x".as_ref()));

        let mut linked = LinkRoots::new([], &["/data/logs".into()]);
        linked.resolve(|_| Some(("/data/1".into(), link())));
        linked.resolve(|_| Some(("/data/2".into(), link())));
        assert!(linked.allows("/data/2/x".as_ref()) && !linked.allows("/data/1/x".as_ref()));
        linked.resolve(|_| Some(("/etc/x".into(), link())));
        assert!(!linked.allows("/etc/x".as_ref()));
    }

    #[test]
    fn no_link_opens_up_the_systems_own_directories() {
        let learnt = met("/share/logs", "/run/app/logs", &["/run/app/logs"]);
        assert!(learnt.allows("/run/other/x.log".as_ref()));
        assert!(!learnt.allows("/run/secrets/token".as_ref()));
        for system in ["/etc/shadow", "/proc/1/environ", "/sys/kernel/x"] {
            assert!(!met("/share/app.log", system, &[system]).allows(system.as_ref()), "{system}");
        }
        assert!(met("/etc/app/logs", "/etc/app/logs", &[]).allows("/etc/app/logs/x".as_ref()));
        let listed = LinkRoots::new([], &["/etc/app".into()]);
        assert!(listed.allows("/etc/app/x".as_ref()));
    }
}
