//! Signals by their numbers: of the real-time ones there are no names.

use std::process::Command;

pub(crate) const HANGUP: i32 = 1;
pub(crate) const INTERRUPT: i32 = 2;
pub(crate) const QUIT: i32 = 3;
pub(crate) const KILL: i32 = 9;
pub(crate) const TERM: i32 = 15;
pub(crate) const CONTINUE: i32 = 18;
pub(crate) const STOP: i32 = 19;

/// Those that end a process unless it sees to them, and ask for nothing (signal(7)): SIGUSR1, SIGUSR2,
/// SIGALRM, SIGSTKFLT, SIGXCPU, SIGXFSZ, SIGVTALRM, SIGPROF, SIGIO, SIGPWR, and the real-time ones.
pub(crate) fn meaningless() -> impl Iterator<Item = i32> {
    [10, 12, 14, 16, 24, 25, 26, 27, 29, 30].into_iter().chain(34..=64)
}

/// Sends a signal, as kill(1) does.
pub(crate) fn kill(id: u32, number: i32) {
    let mut command = Command::new("sh");
    let script = "kill -$0 $1";
    let status = command.args(["-c", script, &number.to_string(), &id.to_string()]).status();
    assert!(status.expect("sh runs").success(), "signal {number} to {id}");
}
