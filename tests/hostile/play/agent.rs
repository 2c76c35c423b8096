//! The agent's process: started, stopped, killed, frozen.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use logferry::clock;
use rustix::process::{Pid, Signal, kill_process};

/// Makes the command that becomes an agent, with no environment but what it needs itself.
pub(crate) type Launch = fn() -> Command;

/// Long enough for a machine that runs many seeds at once; who waits so long has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// A running agent. Killed when dropped.
pub(crate) struct Agent(Child);

impl Agent {
    /// Starts one. Its log is appended to `log`.
    pub(crate) fn start(mut command: Command, env: &BTreeMap<String, String>, log: &Path) -> Self {
        let log = OpenOptions::new().create(true).append(true).open(log).expect("the log opens");
        command.envs(env).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        Self(command.spawn().expect("the agent starts"))
    }

    /// Process id.
    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }

    /// Whether it runs.
    pub(crate) fn is_alive(&mut self) -> bool {
        self.0.try_wait().expect("the agent is waited for").is_none()
    }

    /// SIGTERM, not before it is awaited, then the exit code.
    pub(crate) fn stop(mut self) -> Result<i32, String> {
        wait_for("the signal to be awaited", || self.awaits_term() || !self.is_alive())?;
        if self.is_alive() {
            self.signal(Signal::TERM);
        }
        wait_for("the agent's end", || !self.is_alive())?;
        let status = self.0.wait().expect("it has ended");
        status.code().ok_or_else(|| format!("the agent ended by itself: {status}"))
    }

    /// SIGKILL, and waits until it is gone.
    pub(crate) fn kill(mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
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

    /// Whether SIGTERM would not end it at once (proc_pid_status(5)).
    fn awaits_term(&self) -> bool {
        let text = fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap_or_default();
        let mask = text.lines().find_map(|line| line.strip_prefix("SigCgt:"));
        let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
        mask.is_some_and(|mask| mask & (1 << (Signal::TERM.as_raw() - 1)) != 0)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
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
