//! C02: the agent dies at each system call that touches its state directory, one after the other
//! until none is left, and the next start loses nothing. Then each of them fails instead, once or
//! from there on, and the agent goes on shipping.
//!
//! A *life* is a short run in which everything happens that writes to the directory: the start,
//! finding a file, acknowledgements while later lines still wait, a refused line that is set
//! aside, the last save. strace(1) counts the calls of one thread; *main* opens the directory, and
//! *collect* saves. An undisturbed life is recorded first, to know which calls there are, and that
//! none of them escapes the count.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::{Condvar, Mutex};

use logferry_mock::{Fault, Kind};

use crate::support::special::skipped;
use crate::support::strace::{self, Attached, Injection};
use crate::support::{Agent, Pod, wait_for};

/// Lines of an earlier life, delivered and saved.
const EARLIER: usize = 20;
/// Lives of one trial at the same time: they wait more than they work.
const WORKERS: usize = 6;
/// Lives of all trials at the same time, each with two agents, an endpoint and strace.
const LIVES: usize = 8;
/// Those that may still begin.
static LIVES_LEFT: (Mutex<usize>, Condvar) = (Mutex::new(LIVES), Condvar::new());
/// More calls of one kind than any life makes.
const CALLS_MAX: usize = 300;

/// Whose calls are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Thread {
    /// The main thread, where there is no directory yet.
    First,
    /// The main thread, where an earlier life has left one, with half a save.
    Again,
    /// The collector's, there too.
    Collect,
}

/// All calls of one kind that a thread makes, a life for each.
#[derive(Clone, Debug)]
struct Sweep {
    thread: Thread,
    call: String,
    /// How many there were in the recorded life.
    recorded: usize,
}

#[test]
fn c02_death_at_any_call_on_the_state_directory_loses_nothing() {
    Trial { what: "died", harm: "signal=KILL", is_lasting: false, refuses: true, is_once: false }
        .at_every_call();
}

/// The same where each line is to arrive exactly once: none comes twice.
#[test]
fn n04_death_at_any_call_on_the_state_directory_repeats_nothing() {
    Trial { what: "died", harm: "signal=KILL", is_lasting: false, refuses: true, is_once: true }
        .at_every_call();
}

#[test]
fn c02_a_call_on_the_state_directory_that_fails_does_not_stop_shipping() {
    Trial { what: "failed", harm: "error=EIO", is_lasting: false, refuses: true, is_once: false }
        .at_every_call();
}

/// From any moment on. A refused batch that cannot be set aside would hold up all others, as it
/// should; so there is none.
#[test]
fn c02_a_disk_that_becomes_full_does_not_stop_shipping() {
    Trial {
        what: "found it full",
        harm: "error=ENOSPC",
        is_lasting: true,
        refuses: false,
        is_once: false,
    }
    .at_every_call();
}

/// What is done to the agent at each call.
struct Trial {
    /// In the past tense, for the count.
    what: &'static str,
    /// As strace calls it.
    harm: &'static str,
    /// The calls that follow fail too.
    is_lasting: bool,
    /// The endpoint refuses a line for good.
    refuses: bool,
    /// Each line is to arrive exactly once.
    is_once: bool,
}

impl Trial {
    /// A life for each call, until no call is left; says how many there were.
    fn at_every_call(&self) {
        if !strace::is_there() {
            return skipped("strace cannot trace here");
        }
        let threads = [Thread::First, Thread::Again, Thread::Collect];
        let mut sweeps: Vec<Sweep> = threads
            .into_iter()
            .flat_map(|thread| record(thread, self.refuses, self.is_once))
            .collect();
        // Taken from the end: the longest first.
        sweeps.sort_by_key(|sweep| sweep.recorded);
        let queue = Mutex::new(sweeps);
        let counts = Mutex::new(BTreeMap::new());
        let work = || {
            loop {
                let Some(sweep) = queue.lock().unwrap().pop() else { return };
                let covered = (1..CALLS_MAX).take_while(|&nth| self.at(&sweep, nth)).count();
                let mut counts = counts.lock().unwrap();
                let (sum, recorded) = counts.entry(sweep.thread).or_insert((0, 0));
                *sum += covered;
                *recorded += sweep.recorded;
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..WORKERS {
                scope.spawn(work);
            }
        });
        let counts = counts.into_inner().unwrap();
        for (thread, (covered, recorded)) in counts {
            let told =
                format!("{} at {covered} calls of {thread:?}, {recorded} recorded", self.what);
            // Not eprintln: the test harness would keep it to itself.
            writeln!(std::io::stderr(), "c02: {told}").expect("standard error");
            // No two lives are the same, but nearly.
            assert!(covered * 2 > recorded, "{told}");
        }
    }

    /// At the nth call of a kind. Whether there was one.
    fn at(&self, sweep: &Sweep, nth: usize) -> bool {
        let when = format!("{nth}{}", if self.is_lasting { "+" } else { "" });
        let injection = Injection { call: sweep.call.clone(), when, harm: self.harm };
        let _turn = Turn::take();
        let mut life = Life::new(sweep.thread, self.refuses, self.is_once);
        let ended = life.live(injection);
        let is_hit = life.was_harmed(ended);
        if !(is_hit && ended.signal() == Some(9)) {
            life.expect_shipped(ended);
        }
        life.expect_the_next_to_lose_nothing();
        is_hit
    }
}

/// One of the lives at the same time; given back when dropped.
struct Turn;

impl Turn {
    fn take() -> Self {
        let (left, given_back) = &LIVES_LEFT;
        let left = given_back.wait_while(left.lock().unwrap(), |left| *left == 0);
        *left.unwrap() -= 1;
        Self
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let (left, given_back) = &LIVES_LEFT;
        // A claim that failed holds no lock.
        *left.lock().unwrap() += 1;
        given_back.notify_one();
    }
}

/// The kinds of calls on the state directory in an undisturbed life, and how many there are.
fn record(thread: Thread, refuses: bool, is_once: bool) -> Vec<Sweep> {
    let mut life = Life::new(thread, refuses, is_once);
    life.pod.link("data/pod/logs");
    let out = life.pod.path("strace.out");
    let binary = env!("CARGO_BIN_EXE_logferry");
    let mut agent = life.pod.start_with(strace::recording(&out, binary));
    let ended = life.play(&mut agent);
    assert_eq!(ended.code(), Some(0), "{}", life.pod.agent_log());
    let mut text = String::new();
    wait_for("the record's end", || {
        text = fs::read_to_string(&out).unwrap();
        text.contains("+++ exited with 0 +++")
    });

    let state = life.pod.path("state").display().to_string();
    let counted: Vec<String> = life.paths().iter().map(|path| path.display().to_string()).collect();
    let main = text.split(' ').next().unwrap();
    let mut calls = BTreeMap::new();
    for line in text.lines().filter(|line| line.contains(&state)) {
        let (task, call) = line.split_once(' ').unwrap();
        // The second half of a call that another thread has come between is no other call.
        if call.trim_start().starts_with('<') {
            continue;
        }
        let (name, arguments) = call.trim_start().split_once('(').unwrap();
        let is_whole = |path: &String| {
            [">", "\""].iter().any(|end| arguments.contains(&format!("{path}{end}")))
        };
        assert!(counted.iter().any(is_whole), "escapes the count: {line}");
        if (task == main) == (thread != Thread::Collect) {
            *calls.entry(name.to_owned()).or_insert(0) += 1;
        }
    }
    let sweeps = calls.into_iter().map(|(call, recorded)| Sweep { thread, call, recorded });
    sweeps.collect()
}

/// A pod, its one log, and the agent's run under observation.
struct Life {
    pod: Pod,
    log: PathBuf,
    thread: Thread,
    is_once: bool,
    injection: Option<Injection>,
}

impl Drop for Life {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Self { thread, injection, pod, .. } = self;
            println!("{thread:?}, {injection:?}:\n{}", pod.agent_log());
        }
    }
}

impl Life {
    /// The app has written; nothing leads to it yet.
    fn new(thread: Thread, refuses: bool, is_once: bool) -> Self {
        let mut pod = Pod::new();
        pod.set("LOGFERRY_BATCH_LINES", "10").set("LOGFERRY_BATCH_LINGER", "20ms");
        pod.set("LOGFERRY_READ_LINGER", "5ms").set("send_request_concurrency", "1");
        // To find the line that was set aside.
        pod.set("LOGFERRY_COMPRESSION", "none");
        if is_once {
            pod.set("LOGFERRY_EXACTLY_ONCE", "true");
        }
        let log = pod.path("data/pod/logs/app.log");
        fs::create_dir_all(log.parent().unwrap()).unwrap();
        let mut life = Self { pod, log, thread, is_once, injection: None };
        if thread != Thread::First {
            life.live_earlier();
        }
        let poisoned = life.pod.ledger.lines.len() + 12;
        life.pod.ledger.append(&life.log, 20);
        // The second batch is late: what is saved before must not speak of it.
        let late = Fault { after: 1, times: Some(1), ..Fault::new(Kind::CutBefore) };
        let text = life.pod.ledger.lines[poisoned].clone();
        let refused = Fault::new(Kind::Poison { text });
        life.pod.mock.faults().set(if refuses { vec![late, refused] } else { vec![late] });
        life
    }

    /// Leaves all that a state directory can have in it.
    fn live_earlier(&mut self) {
        self.pod.link("data/pod/logs");
        self.pod.ledger.append(&self.log, EARLIER);
        let agent = self.pod.start();
        self.pod.expect_all();
        assert_eq!(agent.stop().0, 0);
        fs::remove_file(self.pod.path("share/logs")).unwrap();
        fs::create_dir(self.pod.path("state/parked")).unwrap();
        for half in ["checkpoint.tmp", "checkpoint.spare", "parked/batch.tmp"] {
            fs::write(self.pod.path("state").join(half), "half").unwrap();
        }
    }

    /// Every path in the state directory that calls are counted on.
    fn paths(&self) -> Vec<PathBuf> {
        let below = [
            "lock",
            "checkpoint.0",
            "checkpoint.1",
            "checkpoint.now",
            "checkpoint.spare",
            "checkpoint.tmp",
            "parked",
            "parked/batch.tmp",
        ];
        let state = self.pod.path("state");
        let mut paths: Vec<_> = below.iter().map(|name| state.join(name)).collect();
        paths.push(state);
        paths
    }

    /// An agent's life with one injection.
    fn live(&mut self, injection: Injection) -> ExitStatus {
        let (paths, out) = (self.paths(), self.pod.path("strace.out"));
        let injection = &*self.injection.insert(injection);
        if self.thread == Thread::Collect {
            let mut agent = self.pod.start();
            let _strace = Attached::to(agent.id(), "collect", injection, &paths, &out);
            self.pod.link("data/pod/logs");
            return self.play(&mut agent);
        }
        self.pod.link("data/pod/logs");
        let binary = env!("CARGO_BIN_EXE_logferry");
        let strace = strace::harming(injection, &paths, &out, binary);
        let mut agent = self.pod.start_with(strace);
        self.play(&mut agent)
    }

    /// What the app and the pod do while an agent lives: one more piece of log, then SIGTERM.
    fn play(&mut self, agent: &mut Agent) -> ExitStatus {
        self.wait_until_all_is_safe(agent);
        self.pod.ledger.append(&self.log, 20);
        self.wait_until_all_is_safe(agent);
        if !agent.has_ended() {
            agent.terminate();
        }
        wait_for("the agent's end", || agent.has_ended());
        agent.ended().unwrap()
    }

    /// Waits until each line has arrived or was set aside, or the agent is no more.
    fn wait_until_all_is_safe(&self, agent: &mut Agent) {
        wait_for("all lines, or the end", || agent.has_ended() || self.missing().is_empty());
    }

    /// Lines that have neither arrived nor were set aside.
    fn missing(&self) -> Vec<&str> {
        let mut missing = self.pod.ledger.missing(&self.pod.mock);
        if !missing.is_empty() {
            let parked = self.parked();
            missing.retain(|line| memchr::memmem::find(&parked, line.as_bytes()).is_none());
        }
        missing
    }

    fn parked(&self) -> Vec<u8> {
        let Ok(entries) = fs::read_dir(self.pod.path("state/parked")) else { return Vec::new() };
        let paths = entries.flatten().map(|entry| entry.path());
        let batches = paths.filter(|path| path.extension().is_some_and(|end| end == "batch"));
        batches.flat_map(|path| fs::read(path).unwrap()).collect()
    }

    /// Whether it came to the injection: the agent is dead, or strace tells of a failed call.
    fn was_harmed(&self, ended: ExitStatus) -> bool {
        ended.signal() == Some(9) || strace::has_failed_a_call(&self.pod.path("strace.out"))
    }

    /// The agent went on after a call had failed. One that had not begun yet may refuse to.
    fn expect_shipped(&self, ended: ExitStatus) {
        if self.thread != Thread::Collect && ended.code() == Some(73) {
            assert!(self.pod.agent_log().contains("the state directory"));
            return;
        }
        assert_eq!(ended.code(), Some(0));
        assert_eq!(self.missing(), Vec::<&str>::new());
    }

    /// An agent that nobody disturbs starts where the last one has ended.
    fn expect_the_next_to_lose_nothing(&mut self) {
        self.pod.mock.faults().clear();
        self.pod.link("data/pod/logs");
        self.pod.ledger.append(&self.log, 10);
        let agent = self.pod.start();
        wait_for("what the last one left", || self.missing().is_empty());
        assert_eq!(agent.stop().0, 0);

        let mut arrivals: HashMap<Vec<u8>, usize> = HashMap::new();
        for line in self.pod.mock.store().lines() {
            *arrivals.entry(line).or_default() += 1;
        }
        // A life sends each line once. What an earlier one has saved comes again only if it could
        // not be read.
        let is_read = self.injection.as_ref().is_none_or(|injection| {
            self.thread == Thread::Collect || injection.harm == "signal=KILL"
        });
        for (index, line) in self.pod.ledger.lines.iter().enumerate() {
            let is_saved = self.thread != Thread::First && index < EARLIER && is_read;
            let count = arrivals.remove(line.as_bytes()).unwrap_or(0);
            assert!(
                count <= if is_saved || self.is_once { 1 } else { 2 },
                "{line:?} came {count} times"
            );
        }
        assert!(arrivals.is_empty(), "never written: {arrivals:?}");
    }
}
