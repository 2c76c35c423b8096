//! A hostile app against the agent, with the real binary, from seeds.
//!
//! The app may do anything within its own directories: files, directories, links of every kind, at
//! any moment of the agent's life. Somebody else may write the state directory. Around them lie files
//! that must never be read: a mounted Secret, the node's, a neighbour's, the agent's own. Each has a
//! marker in every line. So ([`play`]):
//!
//! 1. No marker ever arrives, and none is in the agent's own log.
//! 2. What an honest app writes beside all that arrives, and so does what the hostile one writes when
//!    it has put its directories back.
//! 3. The agent never ends by itself.
//!
//! Without `link_roots` the agent trusts where the base of a pattern leads at first sight. The app
//! does not try to pass for somebody else then; but even then nothing that is the agent's own is read.
//! [`scenes`] are the plans by name. That the seeds would notice a flaw is shown by one that is planted
//! (`src/hostile_tests.rs`).
//!
//! ```text
//! cargo test --test hostile                              200 seeds
//! LOGFERRY_HOSTILE_SEEDS=10000 cargo test --test hostile more
//! LOGFERRY_HOSTILE_SEED=7 cargo test --test hostile -- --nocapture whatever   one, with its trace
//! ```

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

/// One seed.
mod play;
/// Plans by name.
mod scenes;

use std::process::Command;

use play::{Tally, run, run_all};

const SEEDS: u64 = 200;
const AGAIN: &str = "cargo test --test hostile -- --nocapture whatever";

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var_os(variable)?.into_string().ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is a number, not {text:?}")))
}

fn binary() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_logferry"));
    command.env_clear();
    command
}

#[test]
fn no_secret_is_read_whatever_the_app_does() {
    if let Some(seed) = number("LOGFERRY_HOSTILE_SEED") {
        let tale = run(seed, binary, true);
        println!("{:#?}", tale.tally.counts);
        tale.outcome.unwrap();
        return;
    }
    let seeds = number("LOGFERRY_HOSTILE_SEEDS").unwrap_or(SEEDS);
    let told = run_all(seeds, false, binary, AGAIN);
    println!("{seeds} seeds: {:#?}", told.tally.counts);
    let failed = &told.failed;
    assert!(failed.is_empty(), "{} of {seeds} seeds:\n{}", failed.len(), failed.join("\n"));
    if seeds >= SEEDS {
        check_tally(&told.tally);
    }
}

/// A run in which nothing happens proves nothing.
fn check_tally(tally: &Tally) {
    for (what, least) in [
        ("honest lines", 500),
        ("starts", 500),
        ("stops", 200),
        ("kills", 100),
        ("freezes", 50),
        ("baits taken", 150),
        ("led away", 150),
        ("flips", 50),
        ("forgeries", 50),
        ("first links", 20),
        ("bases moved", 30),
        ("moves", 300),
    ] {
        let count = tally.counts.get(what).copied().unwrap_or_default();
        assert!(count >= least, "{what}: {count}, and {least} are expected: {:?}", tally.counts);
    }
}

#[test]
fn the_same_seed_gives_the_same_actions() {
    for seed in 0..3 {
        let [one, other] = [(); 2].map(|()| run(seed, binary, false).trace);
        assert_eq!(one, other, "seed {seed}");
    }
}
