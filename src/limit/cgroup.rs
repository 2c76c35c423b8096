//! What the container allows: the limits of the control group that this process is in.
//!
//! Level 2: reads a few small files under `/proc` and `/sys/fs/cgroup`, version 2 and version 1,
//! and takes the tightest limit between the process's own group and the root, since an outer limit
//! binds too. It never fails: what cannot be read or understood sets no limit.
//!
//! Source: the kernel's `admin-guide/cgroup-v2.rst` and `cgroup-v1/memory.rst`.

use std::path::{Path, PathBuf};

/// Limits of the container; `None` where there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Limits {
    /// Processor time a second, in cores.
    pub cpu_cores: Option<f64>,
    /// Memory, in bytes.
    pub memory_bytes: Option<u64>,
}

impl Limits {
    /// Reads the limits that hold for this process. `root` is `/`, except in tests.
    #[must_use]
    pub fn read(root: &Path) -> Self {
        let memberships = text(&root.join("proc/self/cgroup")).unwrap_or_default();
        let mount = root.join("sys/fs/cgroup");
        let mut limits = Self::default();
        for membership in memberships.lines().filter_map(Membership::parse) {
            for directory in membership.directories(&mount) {
                limits = limits.tightest(read_group(&directory));
            }
        }
        limits
    }

    fn tightest(self, other: Self) -> Self {
        Self {
            cpu_cores: match (self.cpu_cores, other.cpu_cores) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            },
            memory_bytes: match (self.memory_bytes, other.memory_bytes) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            },
        }
    }
}

/// One line of `/proc/self/cgroup`: `4:memory:/kubepods/pod1`, or `0::/kubepods/pod1` in version 2.
struct Membership<'a> {
    /// `memory`, `cpu,cpuacct`; empty in version 2.
    controllers: &'a str,
    /// Path of the group below the mount; `/` inside a container with its own namespace.
    path: &'a str,
}

impl<'a> Membership<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut parts = line.splitn(3, ':');
        let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
        let relevant = controllers.is_empty()
            || controllers.split(',').any(|name| name == "cpu" || name == "memory");
        relevant.then_some(Self { controllers, path })
    }

    /// The directories whose limits bind: the group and all groups around it. A container of
    /// version 1 sees the host's path here but its own group at the mount, which is the last of
    /// these. `..` (a process outside the namespace's root) leads nowhere and is left out.
    fn directories(&self, mount: &Path) -> Vec<PathBuf> {
        let mounts = match self.controllers {
            // The unified hierarchy, alone or beside version 1.
            "" => vec![mount.to_owned(), mount.join("unified")],
            names => std::iter::once(names)
                .chain(names.split(',').filter(|_| names.contains(',')))
                .map(|name| mount.join(name))
                .collect(),
        };
        let group = Path::new(self.path.trim_start_matches('/'));
        if group.components().any(|part| !matches!(part, std::path::Component::Normal(_))) {
            return mounts;
        }
        mounts.iter().flat_map(|mount| group.ancestors().map(|group| mount.join(group))).collect()
    }
}

fn read_group(directory: &Path) -> Limits {
    let file = |name: &str| text(&directory.join(name));
    let version_2 = Limits {
        cpu_cores: file("cpu.max").and_then(|text| cpu_max(&text)),
        memory_bytes: file("memory.max").and_then(|text| memory_max(&text)),
    };
    let version_1 = Limits {
        cpu_cores: file("cpu.cfs_quota_us")
            .zip(file("cpu.cfs_period_us"))
            .and_then(|(quota, period)| cores(&quota, &period)),
        memory_bytes: file("memory.limit_in_bytes").and_then(|text| memory_max(&text)),
    };
    version_2.tightest(version_1)
}

fn text(path: &Path) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

/// `cpu.max` of version 2: `50000 100000`, or `max 100000`.
fn cpu_max(text: &str) -> Option<f64> {
    let mut words = text.split_whitespace();
    cores(words.next()?, words.next()?)
}

/// Quota and period in microseconds; a quota of `-1` or `max` is none.
fn cores(quota: &str, period: &str) -> Option<f64> {
    let quota: u32 = quota.trim().parse().ok()?;
    let period: u32 = period.trim().parse().ok()?;
    (quota > 0 && period > 0).then(|| f64::from(quota) / f64::from(period))
}

/// `memory.max` of version 2 (`max` is none) and `memory.limit_in_bytes` of version 1, where a
/// number near the largest one is none.
fn memory_max(text: &str) -> Option<u64> {
    const NONE_FROM: u64 = 1 << 60;
    let bytes: u64 = text.trim().parse().ok()?;
    (bytes < NONE_FROM).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A root directory with these files.
    fn root(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        root
    }

    fn limits(files: &[(&str, &str)]) -> (Option<f64>, Option<u64>) {
        let limits = Limits::read(root(files).path());
        (limits.cpu_cores, limits.memory_bytes)
    }

    #[test]
    fn reads_version_2_in_a_container() {
        let found = limits(&[
            ("proc/self/cgroup", "0::/\n"),
            ("sys/fs/cgroup/cpu.max", "50000 100000\n"),
            ("sys/fs/cgroup/memory.max", "536870912\n"),
        ]);
        assert_eq!(found, (Some(0.5), Some(512 << 20)));
    }

    #[test]
    fn takes_the_tightest_of_the_groups_around_the_process() {
        let found = limits(&[
            ("proc/self/cgroup", "0::/pods/one/app\n"),
            ("sys/fs/cgroup/pods/cpu.max", "300000 100000\n"),
            ("sys/fs/cgroup/pods/memory.max", "1000000\n"),
            ("sys/fs/cgroup/pods/one/cpu.max", "150000 100000\n"),
            ("sys/fs/cgroup/pods/one/app/cpu.max", "max 100000\n"),
            ("sys/fs/cgroup/pods/one/app/memory.max", "2000000\n"),
        ]);
        assert_eq!(found, (Some(1.5), Some(1_000_000)));
    }

    #[test]
    fn reads_version_1_at_the_mount_when_the_path_is_the_hosts() {
        let found = limits(&[
            ("proc/self/cgroup", "9:cpu,cpuacct:/kube/x\n4:memory:/kube/x\n2:pids:/\n"),
            ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "200000\n"),
            ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "134217728\n"),
        ]);
        assert_eq!(found, (Some(2.0), Some(128 << 20)));
    }

    #[test]
    fn no_limit_is_no_limit() {
        let version_2 = [
            ("proc/self/cgroup", "0::/\n"),
            ("sys/fs/cgroup/cpu.max", "max 100000\n"),
            ("sys/fs/cgroup/memory.max", "max\n"),
        ];
        let version_1 = [
            ("proc/self/cgroup", "2:cpu:/\n1:memory:/\n"),
            ("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n"),
            ("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
        ];
        assert_eq!(limits(&version_2), (None, None));
        assert_eq!(limits(&version_1), (None, None));
    }

    #[test]
    fn nonsense_sets_no_limit() {
        assert_eq!(limits(&[]), (None, None));
        let found = limits(&[
            ("proc/self/cgroup", "0::/../..\nx\n::\n"),
            ("sys/fs/cgroup/cpu.max", "fast 0\n"),
            ("sys/fs/cgroup/memory.max", "-5\n"),
        ]);
        assert_eq!(found, (None, None));
        assert_eq!(cores("100000", "0"), None);
    }
}
