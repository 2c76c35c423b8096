//! One seed of the hostile app: the ground it is played on, the app, the agent, and what must hold.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(dead_code, reason = "two crates share it, each using a part")]

/// The agent's process.
pub(crate) mod agent;
/// What the app may do: anything, within its own directories.
pub(crate) mod app;
/// What somebody who can write the state directory may do.
pub(crate) mod forgery;
/// The app's plans, each of several moves.
pub(crate) mod gambits;
/// The directories, the endpoint and the settings of a seed.
pub(crate) mod ground;
/// What must never be read.
pub(crate) mod secrets;
/// A seed from its first action to its last check.
pub(crate) mod world;

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use agent::Launch;
pub(crate) use world::{Tally, run};

/// Seeds played at once on each core: they mostly wait.
const SEEDS_PER_CORE: usize = 16;

/// What some seeds came to.
pub(crate) struct Told {
    /// Those that failed, in words.
    pub(crate) failed: Vec<String>,
    /// How many were played.
    pub(crate) count: u64,
    pub(crate) tally: Tally,
}

/// Plays seeds from 0 on, all of them or until one has failed.
pub(crate) fn run_all(seeds: u64, is_one_enough: bool, launch: Launch, again: &str) -> Told {
    let next = AtomicU64::new(0);
    let is_over = AtomicBool::new(false);
    let failed = Mutex::new(Vec::new());
    let all = Mutex::new((0, Tally::default()));
    let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..cores * SEEDS_PER_CORE {
            scope.spawn(|| {
                while let seed = next.fetch_add(1, Ordering::Relaxed)
                    && seed < seeds
                    && !is_over.load(Ordering::Relaxed)
                {
                    let tale = run(seed, launch, false);
                    let mut all = all.lock().unwrap();
                    all.0 += 1;
                    all.1.absorb(&tale.tally);
                    if let Err(what) = tale.outcome {
                        is_over.fetch_or(is_one_enough, Ordering::Relaxed);
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
        format!("seed {seed}: {what}\n    LOGFERRY_HOSTILE_SEED={seed} {again}\n      {trace}")
    });
    let (count, tally) = all.into_inner().unwrap();
    Told { failed: failed.collect(), count, tally }
}

/// One of several.
pub(crate) fn pick<T: Copy>(rng: &mut fastrand::Rng, all: &[T]) -> T {
    all[rng.usize(..all.len())]
}
