//! What an agent does while something happens to its files, and many cases of one claim.

use std::collections::HashMap;
use std::fmt::Debug;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use super::{Agent, Pod, run, wait_for};

/// Cases of one test that run at the same time: most of them wait for something.
const CASES_AT_ONCE: usize = 4;

/// How an agent is while something happens to its files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meanwhile {
    /// It runs.
    Running,
    /// It runs again when everything has happened: SIGSTOP, SIGCONT.
    Frozen,
    /// It was told to end, and is started again: SIGTERM.
    Stopped,
    /// It was killed when all that was delivered was saved, and is started again: SIGKILL.
    Killed,
}

impl Meanwhile {
    /// Each of them.
    pub(crate) const ALL: [Self; 4] = [Self::Running, Self::Frozen, Self::Stopped, Self::Killed];
    /// Those without a process.
    pub(crate) const AWAY: [Self; 2] = [Self::Stopped, Self::Killed];
    /// Those in which the agent looks at nothing until all is over.
    pub(crate) const BLIND: [Self; 3] = [Self::Frozen, Self::Stopped, Self::Killed];
}

impl Pod {
    /// Lets something happen while the agent is so; everything that was written before is delivered.
    /// Returns the agent that goes on.
    pub(crate) fn meanwhile(
        &mut self,
        agent: Agent,
        how: Meanwhile,
        happens: impl FnOnce(&mut Self),
    ) -> Agent {
        self.expect_all();
        match how {
            Meanwhile::Running => {
                happens(self);
                agent
            }
            Meanwhile::Frozen => {
                agent.suspend();
                happens(self);
                agent.resume();
                agent
            }
            Meanwhile::Stopped => {
                assert_eq!(agent.stop().0, 0, "{}", self.agent_log());
                happens(self);
                self.start()
            }
            Meanwhile::Killed => {
                self.await_all_saved(&[]);
                agent.kill();
                happens(self);
                self.start()
            }
        }
    }

    /// Finishes, starts once more, appends to a log, and finishes again: how many lines arrived more
    /// than once in all.
    pub(crate) fn finish_twice(&mut self, agent: Agent, log: &Path) -> usize {
        let repeats = self.finish(agent);
        self.ledger.append(log, 1);
        let agent = self.start();
        let after_a_restart = self.finish(agent);
        assert_eq!(after_a_restart, repeats, "more came again after a restart");
        repeats
    }

    /// Waits until the state directory says of each plain file below `data` that it knows, and of the one
    /// that was written to last and of these, that all of it is delivered.
    pub(crate) fn await_all_saved(&self, logs: &[&Path]) {
        let mut env = self.environment();
        env.insert("LOGFERRY_LISTEN".to_owned(), String::new());
        wait_for("everything to be saved", || {
            let (_, text, _) = run(&["status", "--json"], &env);
            let status: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
            let files = status["files"].as_array().cloned().unwrap_or_default();
            let number = |file: &serde_json::Value, key: &str| file[key].as_u64();
            // An inode may have been used before.
            let mut saved: HashMap<_, Vec<_>> = HashMap::new();
            for file in &files {
                let inode = ["device", "inode"].map(|key| number(file, key));
                saved.entry(inode).or_default().push(number(file, "acked_offset"));
            }
            plain_files(&self.path("data")).iter().all(|path| {
                let Ok(metadata) = fs::metadata(path) else { return true };
                let inode = (metadata.dev(), metadata.ino());
                let known = saved.get(&[Some(inode.0), Some(inode.1)]);
                let must_be_known = self.ledger.last == Some(inode) || logs.contains(&&**path);
                known.map_or(!must_be_known, |offsets| offsets.contains(&Some(metadata.len())))
            })
        });
    }
}

/// All files below a directory, but for compressed ones.
fn plain_files(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
            let path = entry.path();
            if is_dir {
                dirs.push(path);
            } else if path.extension().is_none_or(|extension| extension != "gz") {
                files.push(path);
            }
        }
    }
    files
}

/// Runs a claim for each case, some of them at once.
///
/// # Panics
/// If it fails for a case: all are run, and those that failed are named.
pub(crate) fn each<C: Debug + Sync>(cases: &[C], claim: impl Fn(&C) + Sync) {
    each_of(cases, CASES_AT_ONCE, claim);
}

/// The same with so many of them at once: for those that wait for minutes.
pub(crate) fn each_of<C: Debug + Sync>(cases: &[C], at_once: usize, claim: impl Fn(&C) + Sync) {
    let waiting = Mutex::new(cases.iter());
    let failed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| {
                loop {
                    let case = waiting.lock().expect("nobody panics with it").next();
                    let Some(case) = case else { return };
                    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| claim(case))) {
                        let text = format!("{case:?}: {}", brief(&*panic));
                        failed.lock().expect("nobody panics with it").push(text);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().expect("nobody panics with it");
    let (count, all) = (failed.len(), cases.len());
    assert!(failed.is_empty(), "{count} of {all} cases failed:\n{}", failed.join("\n"));
}

/// The first lines of what a panic says: behind them stands an agent's log.
fn brief(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic");
    let is_of_log = |line: &str| line.get(4..5) == Some("-") && line.starts_with("20");
    let lines = text.lines().take_while(|line| !is_of_log(line)).take(20);
    lines.flat_map(|line| line.chars().take(200).chain(['\n'])).collect()
}

/// All pairs of two lists.
pub(crate) fn pairs<A: Copy, B: Copy>(first: &[A], second: &[B]) -> Vec<(A, B)> {
    first.iter().flat_map(|&a| second.iter().map(move |&b| (a, b))).collect()
}
