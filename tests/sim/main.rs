//! A simulation of the whole, pure: seeded, without files, sockets, threads or real time inside.
//!
//! A seed makes a world ([`world`]): apps that write, rotate, truncate and delete ([`workload`]) on
//! a disk ([`disk`]), a service that delays, refuses and loses answers ([`server`]), a machine that
//! fails ([`machine`]), and an agent ([`agent`]) of the crate's own pure parts that dies between
//! any two steps. What must be true all
//! the while is in [`invariants`].
//!
//! ```text
//! cargo test --test sim                          200 seeds
//! LOGFERRY_SIM_SEEDS=2000 cargo test --test sim  more
//! LOGFERRY_SIM_SEED=7 cargo test --test sim -- --nocapture every_line    one, with its trace
//! ```

#![expect(unreachable_pub, reason = "a test has no interface; pub says what a module offers")]
#![expect(clippy::cast_possible_truncation, reason = "made-up files are small")]

mod agent;
mod disk;
mod invariants;
mod machine;
mod pace;
mod server;
mod workload;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use agent::Flaw;
use world::Tale;

const SEEDS: u64 = 200;

/// Runs a seed; a panic of the crate's own assertions is a broken invariant too.
fn run(seed: u64, flaw: Option<Flaw>, is_printed: bool) -> Result<Tale, String> {
    let outcome = catch_unwind(AssertUnwindSafe(|| world::run(seed, flaw, is_printed)));
    outcome.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        Err(text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic").to_owned())
    })
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var_os(variable)?.into_string().ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is a number, not {text:?}")))
}

#[test]
fn every_line_arrives_whatever_the_seed() {
    if let Some(seed) = number("LOGFERRY_SIM_SEED") {
        println!("{:#?}", run(seed, None, true).unwrap());
        return;
    }
    let seeds = number("LOGFERRY_SIM_SEEDS").unwrap_or(SEEDS);
    let next = AtomicU64::new(0);
    let failed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, std::num::NonZero::get) {
            scope.spawn(|| {
                while let seed = next.fetch_add(1, Ordering::Relaxed)
                    && seed < seeds
                {
                    if let Err(violation) = run(seed, None, false) {
                        failed.lock().unwrap().push((seed, violation));
                    }
                }
            });
        }
    });
    let mut failed = failed.into_inner().unwrap();
    failed.sort();
    let lines: Vec<String> = failed
        .iter()
        .map(|(seed, violation)| {
            format!(
                "seed {seed}: {violation}\n    LOGFERRY_SIM_SEED={seed} cargo test --test sim -- \
                 --nocapture every_line"
            )
        })
        .collect();
    assert!(failed.is_empty(), "{} of {seeds} seeds:\n{}", failed.len(), lines.join("\n"));
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in 0..10 {
        let traces = [(); 2].map(|()| run(seed, None, false).map(|tale| tale.trace));
        assert_eq!(traces[0], traces[1], "seed {seed}");
    }
    assert_ne!(run(0, None, false).unwrap().trace, run(1, None, false).unwrap().trace);
}

/// A run in which nothing happens proves nothing.
#[test]
fn storms_bring_all_that_they_are_meant_to_bring() {
    let mut all = Tale::default();
    for seed in 0..80 {
        let tale = run(seed, None, false).unwrap();
        all.kills += tale.kills;
        all.power_losses += tale.power_losses;
        all.drains_done += tale.drains_done;
        all.drains_cut += tale.drains_cut;
        all.rotations += tale.rotations;
        all.truncations += tale.truncations;
        all.deletions += tale.deletions;
        all.counts.batches += tale.counts.batches;
        all.counts.stored_again += tale.counts.stored_again;
        all.counts.repeated_bytes += tale.counts.repeated_bytes;
        all.counts.parked += tale.counts.parked;
        all.counts.split += tale.counts.split;
        all.counts.closed += tale.counts.closed;
        all.counts.restarts += tale.counts.restarts;
    }
    let Tale { counts, .. } = all;
    for (what, count, least) in [
        ("kills", all.kills, 40),
        ("power losses", all.power_losses, 5),
        ("drains to the end", all.drains_done, 40),
        ("drains cut short", all.drains_cut, 3),
        ("rotations", all.rotations, 100),
        ("truncations", all.truncations, 100),
        ("deletions", all.deletions, 50),
        ("batches", counts.batches, 4000),
        ("batches stored twice", counts.stored_again, 20),
        ("bytes repeated", counts.repeated_bytes, 1000),
        ("batches set aside", counts.parked, 5),
        ("batches taken apart", counts.split, 20),
        ("files closed", counts.closed, 5),
        ("files begun anew", counts.restarts, 50),
    ] {
        assert!(count >= least, "{what}: {count} in {all:?}");
    }
}

/// Runs seeds until the invariant that watches over such a flaw has noticed it.
fn check(flaw: Flaw, expected: &str) {
    let mut violations = (0..60).filter_map(|seed| run(seed, Some(flaw), false).err());
    assert!(violations.any(|what| what.contains(expected)), "{flaw:?} is not noticed");
}

#[test]
fn notices_a_checkpoint_that_runs_ahead() {
    check(Flaw::CheckpointOfReading, "a checkpoint of");
}

#[test]
fn notices_an_acknowledgement_that_counts_twice() {
    check(Flaw::RoomTwice, "a full hand-off");
}

#[test]
fn notices_an_acknowledgement_by_a_stranger() {
    check(Flaw::TrustsStrangers, "a checkpoint of");
}

#[test]
fn notices_that_a_rewritten_file_is_read_on() {
    check(Flaw::BlindToRewriting, "a checkpoint of");
}

#[test]
fn notices_a_rotated_file_that_is_dropped() {
    check(Flaw::DropsRotated, "is delivered up to");
}

#[test]
fn notices_that_more_than_what_was_in_flight_is_repeated() {
    check(Flaw::SavesSeldom, "was acknowledged and saved");
}

#[test]
fn notices_an_unfinished_line_that_is_kept_back() {
    check(Flaw::KeepsRests, "is delivered up to");
}

#[test]
fn notices_a_drain_that_claims_too_much() {
    check(Flaw::ClaimsAll, "as if all were delivered");
}
