//! Where logs are, and which of them the agent is to find: the patterns of a world, matched here by other
//! code than the agent's.

use crate::disk::{Disk, NodeId};

/// Patterns below the base, as an operator writes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// `*.log`
    Logs,
    /// `app*.log*`
    Generations,
    /// `**/*.log`
    DeepLogs,
    /// `**/*`
    Everything,
}

#[derive(Clone, Debug)]
pub struct Ground {
    /// Base of the pattern, as written.
    pub base: String,
    /// Directory that the apps write to.
    pub home: String,
    pub pattern: Pattern,
}

impl Ground {
    pub fn new(rng: &mut fastrand::Rng) -> Self {
        use Pattern::{DeepLogs, Everything, Generations, Logs};
        let home = "/data/pod/logs".to_owned();
        let base = if rng.u8(..3) > 0 { "/share/logs".to_owned() } else { home.clone() };
        let pattern = [Logs, Logs, Generations, DeepLogs, Everything][rng.usize(..5)];
        Self { base, home, pattern }
    }

    pub fn has_link(&self) -> bool {
        self.base != self.home
    }

    /// The pattern, as the agent is told.
    pub fn written(&self) -> String {
        let rest = match self.pattern {
            Pattern::Logs => "*.log",
            Pattern::Generations => "app*.log*",
            Pattern::DeepLogs => "**/*.log",
            Pattern::Everything => "**/*",
        };
        format!("{}/{rest}", self.base)
    }

    /// The path as configured of what really stands there, if the pattern finds it now.
    pub fn found_as(&self, disk: &Disk, real: &str) -> Option<String> {
        let base = disk.at(&self.base).map(|node| disk.real(node))?;
        let rest = real.strip_prefix(&base)?.strip_prefix('/')?;
        let name = rest.rsplit('/').next().expect("it has a name");
        let is_right = match self.pattern {
            Pattern::Logs => rest == name && name.ends_with(".log"),
            Pattern::Generations => {
                rest == name && name.starts_with("app") && name.contains(".log")
            }
            Pattern::DeepLogs => name.ends_with(".log"),
            Pattern::Everything => true,
        };
        is_right.then(|| format!("{}/{rest}", self.base))
    }

    /// Whether the agent may look at what is really there: below the base, or with a link about where that
    /// leads.
    pub fn allows(&self, disk: &Disk, real: &str) -> bool {
        let Some(base) = disk.at(&self.base).map(|node| disk.real(node)) else { return false };
        let is_below = |dir: &str| real.strip_prefix(dir).is_some_and(|rest| rest.starts_with('/'));
        let names: Vec<&str> = real.split('/').collect();
        let is_alike = names.get(1) == Some(&"data") && names.get(3) == Some(&"logs");
        is_below(&base) || (self.has_link() && (is_below(dir_of(&base)) || is_alike))
    }

    /// The paths as configured under which the pattern finds a file now.
    pub fn paths_of(&self, disk: &Disk, node: NodeId) -> Vec<String> {
        disk.names_of(node).filter_map(|name| self.found_as(disk, &name)).collect()
    }
}

/// The directory of a path.
pub fn dir_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(dir, _)| dir)
}

/// The last name of a path.
pub fn name_of(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(_, name)| name)
}
