//! What each key means, and where that came from: every value against its kind.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::checked::{Effective, LogFormat};
use super::endpoint;
use super::keys::{self, KEYS};
use super::kind::{Kind, Meaning};
use super::layers::Found;
use super::mistake::{Mistake, Mistakes, shown};
use crate::limit::cgroup;
use crate::send::Endpoint;

/// What each key means, and where that came from.
pub(super) struct Meanings(BTreeMap<&'static str, (Meaning, String)>);

impl Meanings {
    /// Reads every value. One that means nothing is noted, and the default stands in for it so
    /// that the rules between keys can still be checked.
    pub(super) fn read(found: &BTreeMap<String, Found>, mistakes: &mut Mistakes) -> Self {
        let mut meanings = BTreeMap::new();
        for key in &KEYS {
            let Some(Found { value, origin }) = found.get(key.name) else { continue };
            match key.kind.read(value) {
                Ok(meaning) => {
                    meanings.insert(key.name, (meaning, origin.clone()));
                }
                Err(advice) => {
                    let value = match key.kind {
                        Kind::Endpoint => endpoint::hide_user(&shown(value)),
                        _ => shown(value),
                    };
                    mistakes.push(Mistake::new(key.name, advice).value(value).origin(origin));
                    if let Some(meaning) = key.default.and_then(|d| key.kind.read(&d.into()).ok()) {
                        meanings.insert(key.name, (meaning, "default".to_owned()));
                    }
                }
            }
        }
        Self(meanings)
    }

    pub(super) fn origin(&self, name: &str) -> &str {
        self.0.get(name).map_or("", |(_, origin)| origin)
    }

    pub(super) fn text(&self, name: &str) -> Option<String> {
        match self.0.get(name) {
            Some((Meaning::Text(text), _)) => Some(text.clone()),
            _ => None,
        }
    }

    pub(super) fn endpoint(&self) -> Option<Endpoint> {
        match self.0.get("endpoint") {
            Some((Meaning::Endpoint(endpoint), _)) => Some(endpoint.clone()),
            _ => None,
        }
    }

    pub(super) fn path(&self, name: &str) -> Option<PathBuf> {
        match self.0.get(name) {
            Some((Meaning::Path(path), _)) => Some(path.clone()),
            _ => None,
        }
    }

    /// A list of patterns that surely compile.
    pub(super) fn patterns(&self, name: &str) -> Vec<String> {
        match self.0.get(name) {
            Some((Meaning::Patterns(patterns), _)) => patterns.clone(),
            _ => unreachable!("{name} has a default that is a list of patterns"),
        }
    }

    pub(super) fn directories(&self, name: &str) -> Vec<PathBuf> {
        match self.0.get(name) {
            Some((Meaning::Directories(dirs), _)) => dirs.clone(),
            _ => unreachable!("{name} has a default that is a list of directories"),
        }
    }

    pub(super) fn tags(&self, name: &str) -> Vec<String> {
        match self.0.get(name) {
            Some((Meaning::Tags(tags), _)) => tags.clone(),
            _ => unreachable!("{name} has a default that is a list of tags"),
        }
    }

    pub(super) fn number(&self, name: &str) -> u64 {
        match self.0.get(name) {
            Some((Meaning::Size(number) | Meaning::Count(number), _)) => *number,
            _ => unreachable!("{name} has a default that is a number"),
        }
    }

    pub(super) fn count(&self, name: &str) -> usize {
        usize::try_from(self.number(name)).unwrap_or(usize::MAX)
    }

    pub(super) fn time(&self, name: &str) -> Duration {
        match self.0.get(name) {
            Some((Meaning::Time(time), _)) => *time,
            _ => unreachable!("{name} has a default that is a time"),
        }
    }

    pub(super) fn cores(&self, name: &str) -> f64 {
        match self.0.get(name) {
            Some((Meaning::Cores(cores), _)) => cores.count(),
            _ => unreachable!("{name} has a default that is a number of cores"),
        }
    }

    /// How the agent writes its log.
    pub(super) fn log_format(&self) -> LogFormat {
        match self.text("log_format").as_deref() {
            Some("json") => LogFormat::Json,
            _ => LogFormat::Text,
        }
    }

    pub(super) fn switch(&self, name: &str) -> bool {
        matches!(self.0.get(name), Some((Meaning::Switch(true), _)))
    }

    /// Where the state is kept.
    pub(super) fn state_dir(&self) -> PathBuf {
        self.path("state_dir").unwrap_or_else(|| unreachable!("state_dir has a default"))
    }

    /// The admin address.
    pub(super) fn listen(&self) -> Option<SocketAddr> {
        match self.0.get("listen") {
            Some((Meaning::Listen(address), _)) => *address,
            _ => unreachable!("listen has a default"),
        }
    }

    /// Lowers the limits to those of the container, and says so in their origin.
    pub(super) fn lower_to(&mut self, container: cgroup::Limits) {
        if let Some((Meaning::Cores(cores), origin)) = self.0.get_mut("cpu_usage_limit")
            && let Some(quota) = container.cpu_cores.and_then(crate::base::units::Cores::new)
            && quota < *cores
        {
            *origin = lowered(origin, &cores.to_string(), "quota");
            *cores = quota;
        }
        if let Some((Meaning::Count(mebibytes), origin)) = self.0.get_mut("mem_usage_limit")
            && let Some(bytes) = container.memory_bytes
            && bytes >> 20 < *mebibytes
        {
            *origin = lowered(origin, &mebibytes.to_string(), "limit");
            *mebibytes = bytes >> 20;
        }
    }

    /// Sets what nobody has set, and says where it was found.
    pub(super) fn supply(&mut self, name: &'static str, text: String, origin: String) {
        self.0.insert(name, (Meaning::Text(text), origin));
    }

    pub(super) fn effective(&self) -> Vec<Effective> {
        let row = |key: &keys::Key| {
            let (value, origin) = match self.0.get(key.name) {
                Some((meaning, origin)) => (meaning.to_string(), origin.clone()),
                None => (String::new(), "not set".to_owned()),
            };
            Effective { key: key.name.to_owned(), value, origin }
        };
        KEYS.iter().map(row).collect()
    }
}

fn lowered(origin: &str, value: &str, what: &str) -> String {
    format!("the container's {what} (lower than {value} from {origin})")
}
