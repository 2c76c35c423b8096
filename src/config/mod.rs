//! Settings, from text to meaning.
//!
//! [`load`] reads all layers (`layers`), checks every value against the one table of keys
//! (`keys`, `kind`) and the rules between keys (`check`), and answers with a [`Config`] that is
//! valid by construction or with all [`Mistakes`] at once. Everything below gets its own `Options`
//! out of it and never sees a setting.
//!
//! Never panics, whatever the environment or a file holds. Secrets do not appear in any message,
//! in `Debug`, or in what `logferry check` prints.

mod check;
mod credentials;
mod endpoint;
mod keys;
mod kind;
mod layers;
mod logtail;
mod mistake;
mod patterns;
mod proxy;
mod reference;
mod suggest;
#[cfg(test)]
mod tests;
mod tls;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::enrich::TagPlan;
use crate::limit::{cgroup, memory};
use crate::{batch, limit, send, tail};

pub(crate) use keys::KEYS;
pub use layers::{Environment, FILE_FLAG, Flags};
pub use mistake::{Mistake, Mistakes};
pub use patterns::Reach;
pub use reference::reference;

/// Everything the agent needs to know, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// For the sender.
    pub send: send::Options,
    /// For the tailer.
    pub tail: tail::Options,
    /// For the batcher.
    pub batch: batch::Options,
    /// The limits of the process, already lowered to the container's.
    pub limit: limit::Options,
    /// How the memory limit is divided; carries the bounds of open groups and of the hand-off.
    pub memory: memory::Plan,
    /// Where checkpoints live. Absolute; may not exist yet.
    pub state_dir: PathBuf,
    /// The files that the settings name: credentials, keys, certificates, the settings themselves.
    /// They are never logs.
    pub named_files: Vec<PathBuf>,
    /// The admin address; `None` switches the port off.
    pub listen: Option<SocketAddr>,
    /// Longest time from SIGTERM to the exit.
    pub drain_deadline: Duration,
    /// How long files must be quiet before a drain is over.
    pub drain_quiet: Duration,
    /// Whether a drain after a signal sends unfinished last lines.
    pub drain_partial_lines: bool,
    /// When something is there, the agent drains and ends.
    pub exit_when: Option<PathBuf>,
    /// What the agent logs about itself: a filter that `tracing_subscriber` takes.
    pub log_filter: String,
    /// How it writes that.
    pub log_format: LogFormat,
    /// Whether each line is to arrive exactly once.
    pub exactly_once: bool,
    /// Names of the tags whose values decide the shard; empty for any shard.
    pub shard_hash_keys: Vec<String>,
    /// The tags of every group, and the pod's address.
    pub tags: TagPlan,
    /// Every setting with its value and origin, for `check`. Holds no secrets.
    pub effective: Vec<Effective>,
    /// What is odd about the settings and no mistake, for people.
    pub notes: Vec<String>,
}

/// How the agent writes its own log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// A setting in effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effective {
    /// Name of the key, or of the environment variable where there is no key.
    pub key: String,
    /// Its value; a secret is `***`.
    pub value: String,
    /// Where the value came from.
    pub origin: String,
}

/// What `logferry status` needs: where the agent listens and keeps its state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Local {
    /// Where checkpoints live.
    pub state_dir: PathBuf,
    /// The admin address, if it is not switched off.
    pub listen: Option<SocketAddr>,
}

/// Loads all settings. Reads the settings files, those of credentials and certificates, and the
/// container's limits.
///
/// # Errors
/// All mistakes, for a person to repair.
pub fn load(env: &Environment, flags: &Flags) -> Result<Config, Mistakes> {
    load_within(env, flags, cgroup::Limits::read(Path::new("/")))
}

/// [`load`] with the container's limits given.
fn load_within(
    env: &Environment,
    flags: &Flags,
    container: cgroup::Limits,
) -> Result<Config, Mistakes> {
    let mut mistakes = Mistakes::default();
    let found = layers::merge(env, flags, &mut mistakes);
    check::compose(env, flags, &found, container, &mut mistakes).ok_or(mistakes)
}

/// What `logferry checkpoint` needs: where the state is kept and which files are shipped.
#[derive(Clone, Debug)]
pub struct Kept {
    /// Where checkpoints live.
    pub state_dir: PathBuf,
    /// The files that `paths` and `exclude` mean.
    pub reach: Reach,
}

/// Loads only what is needed to look at an agent from outside, so that this works where an agent
/// would not start.
///
/// # Errors
/// Mistakes in these keys or in the settings file.
pub fn load_local(env: &Environment, flags: &Flags) -> Result<Local, Mistakes> {
    let meanings = load_only(&["state_dir", "listen"], env, flags)?;
    Ok(Local { state_dir: meanings.state_dir(), listen: meanings.listen() })
}

/// Loads only what is needed to look at the state directory, or to change it.
///
/// # Errors
/// Mistakes in these keys or in the settings file.
pub fn load_kept(env: &Environment, flags: &Flags) -> Result<Kept, Mistakes> {
    let meanings = load_only(&["state_dir", "paths", "exclude"], env, flags)?;
    let reach = Reach::new(&meanings.patterns("paths"), &meanings.patterns("exclude"));
    Ok(Kept { state_dir: meanings.state_dir(), reach })
}

/// Loads only the form of the agent's log, for what is wrong with the other settings; text where that
/// is wrong itself.
#[must_use]
pub fn load_log_format(env: &Environment, flags: &Flags) -> LogFormat {
    let mut mistakes = Mistakes::default();
    let found = layers::merge(env, flags, &mut mistakes);
    check::Meanings::read(&found, &mut mistakes).log_format()
}

fn load_only(keys: &[&str], env: &Environment, flags: &Flags) -> Result<check::Meanings, Mistakes> {
    let mut mistakes = Mistakes::default();
    let found = layers::merge(env, flags, &mut mistakes);
    let meanings = check::Meanings::read(&found, &mut mistakes);
    let is_needed = |key: &str| keys.contains(&key) || key == layers::FILE_VARIABLE;
    mistakes.0.retain(|mistake| is_needed(&mistake.key));
    if mistakes.0.is_empty() { Ok(meanings) } else { Err(mistakes) }
}
