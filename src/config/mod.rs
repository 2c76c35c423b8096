//! Settings, from text to meaning.
//!
//! [`load`] reads all layers (`layers`), checks every value against the one table of keys
//! (`keys`, `kind`, `meaning`) and the rules between keys (`check`), and answers with a [`Config`] that is
//! valid by construction or with all [`Mistakes`] at once. Everything below gets its own `Options`
//! out of it and never sees a setting.
//!
//! Never panics, whatever the environment or a file holds. Secrets do not appear in any message,
//! in `Debug`, or in what `logferry check` prints.

mod check;
mod checked;
mod credentials;
mod endpoint;
mod keys;
mod kind;
mod layers;
mod logtail;
mod meaning;
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

use self::meaning::Meanings;
use crate::limit::cgroup;

pub use checked::{Config, Effective, LogFormat};
pub(crate) use keys::KEYS;
pub use layers::{Environment, FILE_FLAG, Flags};
pub use mistake::{Mistake, Mistakes};
pub use patterns::Reach;
pub use reference::reference;

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
    Meanings::read(&found, &mut mistakes).log_format()
}

fn load_only(keys: &[&str], env: &Environment, flags: &Flags) -> Result<Meanings, Mistakes> {
    let mut mistakes = Mistakes::default();
    let found = layers::merge(env, flags, &mut mistakes);
    let meanings = Meanings::read(&found, &mut mistakes);
    let is_needed = |key: &str| keys.contains(&key) || key == layers::FILE_VARIABLE;
    mistakes.0.retain(|mistake| is_needed(&mistake.key));
    if mistakes.0.is_empty() { Ok(meanings) } else { Err(mistakes) }
}
