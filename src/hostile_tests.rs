//! Whether the hostile app's seeds (`tests/hostile`) would notice a flaw: one is planted, in an agent
//! that is this test binary and no other, and some of them must fail.

#[path = "../tests/hostile/play/mod.rs"]
mod play;

use std::process::Command;

use crate::app::{self, App};
use crate::base::exit::ExitCode;
use crate::config::{self, Environment, Flags};
use crate::signals::Signals;
use crate::telemetry::{self, LogWriter};

/// Says which flaw the agent has; none of the agent's own settings begins so.
const FLAW: &str = "PLANTED_FLAW";
/// Makes this test binary an agent.
const AGENT: &str = "HOSTILE_AGENT";
/// More than enough: one in ten plays what finds it.
const SEEDS: u64 = 200;

/// What an earlier run shipped is opened wherever it leads, unless `link_roots` lists something.
fn trusting_what_it_knows() -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "hostile_tests::agent", "--nocapture", "--test-threads=1"]);
    command.env_clear().env(AGENT, "1").env(FLAW, "known files are trusted");
    command
}

#[test]
fn an_agent_that_trusts_what_it_knows_is_noticed() {
    let told = play::run_all(SEEDS, true, trusting_what_it_knows, "the flaw is planted");

    assert!(!told.failed.is_empty(), "{} seeds: {:?}", told.count, told.tally.counts);
    let is_leak = |what: &String| what.contains(": a leak: ");
    assert!(told.failed.iter().all(is_leak), "{}", told.failed.join("\n"));
}

/// The agent of the test above, as `main` runs it. Without its variable, nothing.
#[test]
#[expect(clippy::disallowed_methods, reason = "here an agent ends, and no test")]
fn agent() {
    if std::env::var_os(AGENT).is_none() {
        return;
    }
    let env: Environment = std::env::vars_os().collect();
    let flags = Flags::default();
    let runtime = app::runtime().unwrap();
    let signals = Signals::catch(&runtime).unwrap();
    let code = match config::load(&env, &flags) {
        Ok(config) => {
            let log = LogWriter::start();
            telemetry::start(&log, &config.log_filter, config.log_format);
            telemetry::end_on_panic(log.clone());
            let code = App::build(config, runtime, signals, log.dropped()).unwrap().run();
            log.flush(telemetry::LAST_LINES);
            code
        }
        Err(mistakes) => {
            eprintln!("{mistakes}");
            ExitCode::Settings
        }
    };
    std::process::exit(code as i32);
}
