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
//!              when it has moved beside: the base itself. Never `/`. For the life of the process.
//! ```
//!
//! *Beside* is where a base leads when a link on its way is pointed to a neighbour of what it was
//! pointed to at first sight: current ─▶ v1 becomes v2, and current/var/log/app is let go with it.
//!
//! Decides only; `trace` looks at the links.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

/// What no link opens up by being there: these hold the secrets of processes, of the system and of
/// the pod, and no logs. As written or listed they are roots like any other.
const SYSTEM: [&str; 5] = ["/proc", "/sys", "/etc", "/run/secrets", "/var/run/secrets"];
/// A base that is a link may be pointed to what is beside the directory above its target.
const LEVELS_ABOVE: usize = 2;

/// A directory's neighbours, and the same path in each of them.
#[derive(Debug)]
struct Beside {
    /// Holds the neighbours. Never `/`.
    dir: PathBuf,
    below: PathBuf,
}

/// The directories below which files are shipped.
#[derive(Debug)]
pub(super) struct LinkRoots {
    /// Bases of patterns as written.
    written: Vec<PathBuf>,
    /// As the operator wrote them, and where that really is; none: roots are learnt.
    listed: Vec<(PathBuf, PathBuf)>,
    learnt: BTreeSet<PathBuf>,
    /// Bases that have been there, and what is beside where they led then.
    met: HashMap<PathBuf, Vec<Beside>>,
}

impl LinkRoots {
    /// With the bases of the patterns and what the operator listed, if anything.
    pub(super) fn new(bases: impl IntoIterator<Item = PathBuf>, listed: &[PathBuf]) -> Self {
        Self {
            written: bases.into_iter().collect(),
            listed: listed.iter().map(|dir| (dir.clone(), dir.clone())).collect(),
            learnt: BTreeSet::new(),
            met: HashMap::new(),
        }
    }

    /// Finds out where the listed directories really are. One that cannot be found at the moment
    /// stays where it was.
    pub(super) fn resolve(&mut self, real: impl Fn(&Path) -> Option<PathBuf>) {
        for (written, was) in &mut self.listed {
            if let Some(real) = real(written) {
                *was = real;
            }
        }
    }

    /// A base is there: it really is `real`, and the links on its way lead to `targets`. What that
    /// allows is learnt at the first sight of it.
    pub(super) fn learn<'a>(
        &mut self,
        base: &Path,
        real: &Path,
        targets: impl IntoIterator<Item = &'a Path>,
    ) {
        if !self.is_awaited(base) {
            if self.is_beside(base, real) && !self.allows(real) {
                self.learnt.insert(real.to_owned());
            }
            return;
        }
        let mut targets = targets.into_iter().peekable();
        if targets.peek().is_some() {
            self.learnt.extend(above(real, LEVELS_ABOVE));
        }
        let beside = targets.filter_map(|target| Beside::new(target, real)).collect();
        self.met.insert(base.to_owned(), beside);
    }

    /// Whether the base may lead here: no link is on its way, or what it leads to is still to be
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
        let is_learnt = || self.learnt.iter().any(|root| real.starts_with(root));
        self.explicit().any(|root| real.starts_with(root)) || (is_learnt() && !is_system(real))
    }

    /// Whether the operator says what is allowed.
    pub(super) fn are_listed(&self) -> bool {
        !self.listed.is_empty()
    }

    /// Whether a root is below this path, so that one must pass it.
    pub(super) fn is_on_the_way(&self, real: &Path) -> bool {
        self.explicit().chain(&self.learnt).any(|root| root.starts_with(real))
    }

    /// The roots, for people.
    pub(super) fn list(&self) -> String {
        let all: BTreeSet<_> = self.explicit().chain(&self.learnt).collect();
        let texts: Vec<_> = all.into_iter().map(|root| root.display().to_string()).collect();
        texts.join(",")
    }

    fn explicit(&self) -> impl Iterator<Item = &PathBuf> {
        self.written.iter().chain(self.listed.iter().map(|(_, real)| real))
    }
}

impl Beside {
    /// Beside `target`, if `real` is in it.
    fn new(target: &Path, real: &Path) -> Option<Self> {
        let dir = target.parent().filter(|dir| *dir != Path::new("/"))?;
        let below = real.strip_prefix(target).ok()?;
        Some(Self { dir: dir.to_owned(), below: below.to_owned() })
    }

    fn contains(&self, real: &Path) -> bool {
        let Ok(rest) = real.strip_prefix(&self.dir) else { return false };
        let mut names = rest.components();
        names.next().is_some() && names.as_path() == self.below
    }
}

fn is_system(real: &Path) -> bool {
    SYSTEM.iter().any(|system| real.starts_with(system))
}

/// The directory so many levels above a path, or the highest one below `/`.
fn above(path: &Path, levels: usize) -> Option<PathBuf> {
    let ancestors: Vec<_> = path.ancestors().take(levels + 1).collect();
    let highest = ancestors.into_iter().rev().find(|dir| *dir != Path::new("/"));
    highest.map(Path::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Roots that have learnt where one base led at first sight.
    fn met(base: &str, real: &str, targets: &[&str]) -> LinkRoots {
        let mut roots = LinkRoots::new([base.into()], &[]);
        roots.learn(base.as_ref(), real.as_ref(), targets.iter().map(Path::new));
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

    /// current ─▶ /opt/app/v1, and far below that the base.
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

        roots.learn(base, &next, [Path::new("/opt/app/v2")]);
        assert!(roots.allows(&next.join("app.log")));
        assert!(!roots.allows("/opt/app/v2/etc/key".as_ref()));
        roots.learn(base, "/home/x".as_ref(), ["/home/x".as_ref()]);
        assert!(!roots.allows_base(base, "/home/x".as_ref()));
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
        roots.learn(base, Path::new("/home/x/logs"), [Path::new("/home/x/logs")]);
        assert!(roots.allows("/data/pod-2/logs".as_ref()));
        assert!(!roots.allows("/home/x/logs".as_ref()));
    }

    #[test]
    fn what_is_listed_replaces_what_would_be_learnt() {
        let mut roots = LinkRoots::new(["/share/logs".into()], &["/data/now".into()]);
        roots.resolve(|_| Some("/data/7".into()));
        roots.resolve(|_| None);
        roots.learn(
            "/share/logs".as_ref(),
            "/home/pod/logs".as_ref(),
            [Path::new("/home/pod/logs")],
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
