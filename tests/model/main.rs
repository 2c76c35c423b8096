//! A model of log files and of what may happen to them, played on the real file system with the
//! real binary and the real mock endpoint, from seeds.
//!
//! The model ([`disk`]) keeps its own picture of every generation of every file: which bytes were
//! written, under which names they stand, what became of them. Actions ([`actions`]) happen to the
//! files, the agent and the endpoint. Then, exactly ([`world`], [`arrivals`]):
//!
//! 1. Every complete line that the agent had noticed before it was destroyed arrives; so does every
//!    line that was never destroyed. What was destroyed earlier may arrive or not. Whether the agent
//!    has noticed is never guessed from the time: the line has arrived, or the agent's own status
//!    shows an offset behind it.
//! 2. Nothing arrives that was never written, and nothing under a path that never led to it.
//! 3. Within a stream of groups lines come in the order of writing, none left out.
//! 4. A line comes again only where there is a reason: a kill before it was known to be saved, a
//!    rewriting that wrote it again, a lost answer. After a clean stop none does.
//! 5. The agent never ends by itself, a stop with a working endpoint ends with 0, and 0 means that
//!    everything has arrived.
//!
//! What the agent is not asked for yet is switched off at the top of [`actions`]. [`scenes`] are
//! what has once gone wrong.
//!
//! ```text
//! cargo test --test model                            200 seeds
//! LOGFERRY_MODEL_SEEDS=5000 cargo test --test model  more
//! LOGFERRY_MODEL_SEED=7 cargo test --test model -- --nocapture whatever_happens   one, with its trace
//! ```

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

/// What can happen, and how often.
mod actions;
/// What the endpoint has accepted.
mod arrivals;
/// The files, and the app's picture of them.
mod disk;
/// The agent's process.
mod process;
/// What once went wrong.
mod scenes;
/// One builder for each actor, shared with `tests/it`.
#[path = "../it/support/mod.rs"]
mod support;
/// What the app writes.
mod text;
/// One seed, from its first action to its last check.
mod world;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use world::{Tally, run};

const SEEDS: u64 = 200;
/// Seeds played at once on each core: they mostly wait.
const SEEDS_PER_CORE: usize = 16;

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var_os(variable)?.into_string().ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is a number, not {text:?}")))
}

#[test]
fn every_noticed_line_arrives_whatever_happens() {
    if let Some(seed) = number("LOGFERRY_MODEL_SEED") {
        let tale = run(seed, true);
        println!("{:#?}", tale.tally.counts);
        tale.outcome.unwrap();
        return;
    }
    let seeds = number("LOGFERRY_MODEL_SEEDS").unwrap_or(SEEDS);
    let (failed, tally) = run_all(seeds);
    println!("{seeds} seeds: {:#?}", tally.counts);
    assert!(failed.is_empty(), "{} of {seeds} seeds:\n{}", failed.len(), failed.join("\n"));
    if seeds >= SEEDS {
        check_tally(&tally);
    }
}

/// A run in which nothing happens proves nothing.
fn check_tally(tally: &Tally) {
    for (what, least) in [
        ("lines", 10_000),
        ("lines again", 300),
        ("lines destroyed unseen", 1000),
        ("waits before destruction", 100),
        ("kills", 100),
        ("power cuts", 30),
        ("clean stops", 200),
        ("stops with a rest", 1),
        ("groups again", 1),
        ("unfinished lines at the end", 1),
        ("starts with nothing to do", 20),
        ("rotate", 100),
        ("delete and create", 50),
        ("refill to the same size", 30),
        ("point the link elsewhere", 50),
        ("gzip", 10),
    ] {
        let count = tally.counts.get(what).copied().unwrap_or_default();
        assert!(count >= least, "{what}: {count}, and {least} are expected: {:?}", tally.counts);
    }
}

/// Plays the seeds below `seeds`. Returns what failed, in words, and what happened in all of them.
fn run_all(seeds: u64) -> (Vec<String>, Tally) {
    let next = AtomicU64::new(0);
    let failed = Mutex::new(Vec::new());
    let all = Mutex::new(Tally::default());
    let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..cores * SEEDS_PER_CORE {
            scope.spawn(|| {
                while let seed = next.fetch_add(1, Ordering::Relaxed)
                    && seed < seeds
                {
                    let tale = run(seed, false);
                    all.lock().unwrap().absorb(&tale.tally);
                    if let Err(what) = tale.outcome {
                        failed.lock().unwrap().push((seed, what, tale.trace));
                    }
                }
            });
        }
    });
    let mut failed = failed.into_inner().unwrap();
    failed.sort();
    let failed = failed.into_iter().map(|(seed, what, trace)| {
        let trace = trace.join("\n      ");
        format!(
            "seed {seed}: {what}\n    LOGFERRY_MODEL_SEED={seed} cargo test --test model -- \
             --nocapture whatever_happens\n      {trace}"
        )
    });
    (failed.collect(), all.into_inner().unwrap())
}

#[test]
fn the_same_seed_gives_the_same_actions() {
    for seed in 0..4 {
        let [one, other] = [(); 2].map(|()| run(seed, false).trace);
        assert_eq!(one, other, "seed {seed}");
    }
}
