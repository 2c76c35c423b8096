//! The agent's process: started, stopped, killed, frozen.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use logferry::base::clock;
use memchr::memmem;
use rustix::process::{Pid, Signal, kill_process};

/// Makes the command that becomes an agent, with no environment but what it needs itself.
pub(crate) type Launch = fn() -> Command;

/// Long enough for a machine that runs many seeds at once; who waits so long has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// A running agent. Killed when dropped.
pub(crate) struct Agent {
    child: Child,
    log: PathBuf,
    /// Bytes of its log that are older than it.
    log_from: usize,
}

impl Agent {
    /// Starts one. Its log is appended to `log`.
    pub(crate) fn start(mut command: Command, env: &BTreeMap<String, String>, log: &Path) -> Self {
        let file = OpenOptions::new().create(true).append(true).open(log).expect("the log opens");
        let log_from = file.metadata().expect("the log is there").len();
        command.envs(env).stdin(Stdio::null()).stdout(Stdio::null()).stderr(file);
        let child = command.spawn().expect("the agent starts");
        let log_from = usize::try_from(log_from).expect("a small log");
        Self { child, log: log.to_owned(), log_from }
    }

    /// Process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it runs.
    pub(crate) fn is_alive(&mut self) -> bool {
        self.child.try_wait().expect("the agent is waited for").is_none()
    }

    /// SIGTERM, not before it is awaited, then the exit code.
    pub(crate) fn stop(mut self) -> Result<i32, String> {
        wait_for("the signal to be awaited", || self.awaits_term() || !self.is_alive())?;
        if self.is_alive() {
            self.signal(Signal::TERM);
        }
        wait_for("the agent's end", || !self.is_alive())?;
        let status = self.child.wait().expect("it has ended");
        status.code().ok_or_else(|| format!("the agent ended by itself: {status}"))
    }

    /// SIGKILL, and waits until it is gone.
    pub(crate) fn kill(mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Stops it in its tracks.
    pub(crate) fn freeze(&self) {
        self.signal(Signal::STOP);
        let _ = wait_for("the agent to stand still", || {
            let stat = fs::read_to_string(format!("/proc/{}/stat", self.id())).unwrap_or_default();
            stat.rsplit_once(") ").is_none_or(|(_, state)| state.starts_with(['T', 'Z']))
        });
    }

    /// Lets it go on.
    pub(crate) fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.id()).ok().and_then(Pid::from_raw).expect("a process id");
        // One that has ended is told nothing; whoever waits for it learns how.
        let _ = kill_process(id, signal);
    }

    /// Whether it has caught the signals for good: it does so before it says that it starts.
    fn awaits_term(&self) -> bool {
        let text = fs::read(&self.log).unwrap_or_default();
        let said = text.get(self.log_from..).unwrap_or_default();
        memmem::find(said, b"logferry starts").is_some()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until `condition` holds.
///
/// # Errors
/// If it does not within [`PATIENCE`].
pub(crate) fn wait_for(what: &str, condition: impl FnMut() -> bool) -> Result<(), String> {
    if holds_within(PATIENCE, condition) { Ok(()) } else { Err(format!("in vain: {what}")) }
}

/// Waits until `condition` holds, but no longer than `patience`. Says whether it does.
pub(crate) fn holds_within(patience: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let started = clock::now();
    let mut period = Duration::from_millis(1);
    while !condition() {
        if clock::now() - started > patience {
            return false;
        }
        pause(period);
        period = (period * 2).min(Duration::from_millis(20));
    }
    true
}

/// Lets real time pass.
pub(crate) fn pause(duration: Duration) {
    let until = clock::now() + duration;
    while let Some(left) = until.checked_duration_since(clock::now()).filter(|d| !d.is_zero()) {
        std::thread::park_timeout(left);
    }
}
