//! How the process ends: every exit code there is.
//!
//! Public interface: scripts and probes rely on the numbers. `main` is the only reader.

/// The target of log lines that say why the process ends with another code than 0: no filter leaves
/// them out.
pub const TARGET: &str = "logferry::base::exit";

/// An exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitCode {
    /// Everything was delivered, or the command did what it was asked for.
    Done = 0,
    /// The command line makes no sense, or what it was told to write to cannot be written
    /// (`EX_USAGE`).
    Usage = 64,
    /// A bug: the message says where (`EX_SOFTWARE`).
    Bug = 70,
    /// The state directory cannot be used: it cannot be written, or another agent holds it
    /// (`EX_CANTCREAT`).
    State = 73,
    /// The drain deadline passed with bytes still on disk, or the system refused what is needed, such
    /// as a thread; the next start delivers them (`EX_TEMPFAIL`).
    Undelivered = 75,
    /// Wrong settings: all of them are listed on standard error (`EX_CONFIG`).
    Settings = 78,
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        Self::from(code as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_of_the_contract() {
        use ExitCode::{Bug, Done, Settings, State, Undelivered, Usage};
        let numbers = [Done, Usage, Bug, State, Undelivered, Settings].map(|code| code as u8);
        assert_eq!(numbers, [0, 64, 70, 73, 75, 78]);
    }
}
