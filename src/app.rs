//! The agent: opens everything, starts two threads, waits for them, says how it ended.
//!
//! Wiring only. The main thread becomes the *sender* (a current-thread runtime for HTTP, admin
//! port and signals); one more thread, `collect`, is the [`Collector`](crate::collector::Collector).

use std::cell::Cell;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::runtime::{Builder, Runtime};

use crate::base::clock;
use crate::base::exit::{self, ExitCode};
use crate::base::report::CollectorReport;
use crate::checkpoint::error::StoreError;
use crate::checkpoint::store::{self, Loaded, Store};
use crate::collector::{self, fruitless};
use crate::config::Config;
use crate::handoff::{SenderEnd, handoff};
use crate::send::Sender;
use crate::send::http::ClientError;
use crate::shutdown::{self, Shutdown};
use crate::signals::Signals;
use crate::tail::discover::Patterns;
use crate::tail::os::kernel::Kernel;
use crate::tail::pattern::PatternError;
use crate::{access, admin, send};

/// What the agent logs; a file where it is redirected to one (proc(5)).
const STANDARD_ERROR: &str = "/proc/self/fd/2";
/// Logs that `check` complains of.
const NOTES_MAX: usize = 10;
/// How often a state directory is tried that another agent has.
const STATE_PERIOD: Duration = Duration::from_millis(200);
/// How often a thread is asked for that the system has refused.
const THREAD_PERIOD: Duration = Duration::from_secs(1);
/// For notifications, the state directory, discovery, the admin port and its connections.
const DESCRIPTORS_KEPT: usize = 64;

/// Why the agent does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The state directory.
    #[error(transparent)]
    State(#[from] StoreError),
    /// A pattern.
    #[error("paths or exclude: {0:?}: {1}")]
    Pattern(String, PatternError),
    /// What it logs itself would be all that it ships.
    #[error(
        "paths: {0:?} is where the agent's own log goes (standard error leads there), which it never \
         ships; let one of them lead elsewhere"
    )]
    OwnLog(String),
    /// The admin address.
    #[error("{0}")]
    Admin(io::Error),
    /// The HTTP client.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The kernel refused a thread, a descriptor or a signal handler.
    #[error("the system refuses what the agent needs: {0}")]
    System(#[from] io::Error),
}

impl StartError {
    /// The code to end with.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::State(_) => ExitCode::State,
            Self::Pattern(..) | Self::OwnLog(_) | Self::Admin(_) | Self::Client(_) => {
                ExitCode::Settings
            }
            Self::System(_) => ExitCode::Undelivered,
        }
    }
}

/// What stands in the way of the agent here and now, as far as looking shows it: paths that the
/// user who asks may not use, and a state directory that others may.
#[must_use]
pub fn notes(config: &Config) -> Vec<String> {
    let dir = &config.state_dir;
    let state = store::prove(dir).err().and_then(|error| match forbids(dir, &error) {
        Some(why) => Some(format!("the state directory {} cannot be used: {why}", dir.display())),
        None => starts_without(dir, &error).then(|| {
            format!("{error}. The agent starts all the same, and a restart repeats what came since")
        }),
    });
    let exposed = access::explain_exposed_state(dir);
    let mut patterns = patterns(config).ok();
    let among = patterns.as_ref().and_then(|patterns| patterns.base_above(&Kernel, dir));
    let among = among.map(|base| {
        format!(
            "the state directory {} is below {}, where logs are looked for: an app that can write there \
             can forge what the agent remembers; give it a mount of its own",
            dir.display(),
            base.display()
        )
    });
    let scan = patterns.as_mut().map(|patterns| patterns.scan(&Kernel)).unwrap_or_default();
    let fruitless =
        scan.fruitless.iter().map(|found| fruitless::describe(&Kernel, found).to_string());
    let dirs = scan.errors.iter().map(|(path, _)| path);
    let paths = dirs.chain(scan.files.iter().map(|file| &file.path));
    let logs = paths.filter_map(|path| {
        let why = access::explain_log(path)?;
        Some(format!("{} cannot be read: {why}", path.display()))
    });
    let notes = config.notes.iter().cloned().chain(state).chain(exposed).chain(among);
    notes.chain(logs.take(NOTES_MAX)).chain(fruitless).collect()
}

/// Why no agent could use the state directory, here and now. That only this user may not is a note:
/// the agent may be another one.
#[must_use]
pub fn state_trouble(config: &Config) -> Option<StoreError> {
    let dir = &config.state_dir;
    let error = store::prove(dir).err()?;
    let is_note = forbids(dir, &error).is_some() || starts_without(dir, &error);
    (!is_note).then_some(error)
}

/// Why the directory is only shut for this user, if it is.
fn forbids(dir: &Path, error: &StoreError) -> Option<String> {
    if error.is_forbidden() { access::explain_state(dir) } else { None }
}

/// Whether an agent starts although its state directory is in such trouble.
fn starts_without(dir: &Path, error: &StoreError) -> bool {
    error.is_full() || store::has_worked(dir)
}

/// The files to ship, without what is the agent's own or named in the settings.
fn patterns(config: &Config) -> Result<Patterns, (String, PatternError)> {
    let collection = config.plan.collection(config.plan.only_collection());
    let (paths, exclude) = (&collection.paths, &collection.exclude);
    let own = vec![STANDARD_ERROR.into()];
    let patterns = Patterns::new(paths, exclude, own, &config.tail.link_roots)?;
    let patterns = patterns.without(config.named_files.clone());
    Ok(patterns.leaving_out(&config.state_dir, store::is_own))
}

/// The runtime of the sender, or of a command that asks the endpoint.
///
/// # Errors
/// If the kernel refuses a descriptor.
pub fn runtime() -> io::Result<Runtime> {
    // Building it panics where it gets some of its descriptors and not all, so as many are tried first.
    drop([UnixStream::pair()?, UnixStream::pair()?, UnixStream::pair()?, UnixStream::pair()?]);
    Builder::new_current_thread().enable_all().build()
}

/// The collector of the agent.
type Collector = collector::Collector<Kernel, Store>;

/// Everything opened, nothing started.
pub struct App {
    config: Config,
    runtime: Runtime,
    collector: Collector,
    sender: Sender,
    end: SenderEnd,
    admin: admin::Server,
    facts: admin::Facts,
    shutdown: Shutdown,
}

impl App {
    /// Opens the state directory, the admin port and the HTTP client, and takes the lock.
    /// `log_lines_dropped` counts on, for the metrics.
    ///
    /// # Errors
    /// If one of them cannot be had.
    pub fn build(
        config: Config,
        runtime: Runtime,
        signals: Signals,
        log_lines_dropped: Arc<AtomicU64>,
    ) -> Result<Self, StartError> {
        for note in &config.notes {
            tracing::warn!(reason = note, "a setting does not do what it seems to");
        }
        let facts = facts(&config, log_lines_dropped);
        let context = runtime.enter();
        let mut shutdown = Shutdown::new(signals, config.drain_deadline);
        let patterns =
            patterns(&config).map_err(|(pattern, error)| StartError::Pattern(pattern, error))?;
        if let Some(pattern) = patterns.own_file(&Kernel) {
            return Err(StartError::OwnLog(pattern.to_owned()));
        }
        let (collector_end, end) = handoff(config.memory.handoff_bytes_max)?;
        let (store, loaded) = match Store::open(&config.state_dir) {
            Err(StoreError::Locked { holder, .. }) => {
                let taken = CollectorReport { is_state_taken: true, ..CollectorReport::default() };
                collector_end.publish(taken);
                let waiting = wait_for_state(&config, &holder, &end, &facts, &mut shutdown);
                let opened = runtime.block_on(waiting)?;
                collector_end.publish(CollectorReport::default());
                opened
            }
            opened => opened?,
        };
        for (path, reason) in &loaded.damaged {
            tracing::error!(
                file = %path.display(), reason,
                "a checkpoint file is damaged; going on from an older one"
            );
        }
        let admin = admin::Server::bind(&admin::Options { listen: config.listen })
            .map_err(StartError::Admin)?;
        let plan = Arc::clone(&config.plan);
        let sender = Sender::new(config.send.clone(), plan, end.clone(), fastrand::u64(..))?;
        let options = collector::Options {
            plan: Arc::clone(&config.plan),
            tail: config.tail.clone(),
            batch: config.batch.clone(),
            limit: config.limit,
            open_bytes_max: config.memory.open_bytes_max,
            read_bytes: config.memory.read_bytes,
            files_max: files_max(config.send.concurrency_max).min(config.memory.files_max),
            known_max: config.memory.known_max,
            tags: config.tags.clone(),
            stop: collector::stopping::Options {
                quiet: config.drain_quiet,
                sends_partial_lines: config.drain_partial_lines,
                exit_when: config.exit_when.clone(),
            },
            shard_hash_keys: config.shard_hash_keys.clone(),
            concurrency_max: config.send.concurrency_max,
        };
        let collector = Collector::new(Kernel, store, options, patterns, loaded, collector_end)?;
        drop(context);
        Ok(Self { config, runtime, collector, sender, end, admin, facts, shutdown })
    }

    /// Runs until a signal has come, or the file of `exit_when`, and the drain is over.
    #[must_use]
    pub fn run(self) -> ExitCode {
        let Self { config, runtime, collector, sender, end, admin, facts, mut shutdown } = self;
        let started = facts.started;
        let paths = &config.plan.collection(config.plan.only_collection()).paths;
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"), endpoint = %facts.endpoint,
            project = facts.project, logstore = facts.logstore,
            paths = paths.join(","), state = %config.state_dir.display(),
            "logferry starts"
        );
        let asked_at = Cell::new(None);
        let shipped = runtime.block_on(async {
            let shipping = async {
                let (start, collected) = wait_for_thread(&mut shutdown).await?;
                // It waits for just this.
                let _ = start.send(collector);
                Some((sender.run(shutdown.run(&end, &asked_at)).await, collected))
            };
            let serving = async {
                let until = std::future::pending();
                if let Err(error) = admin.serve(end.clone(), facts, until).await {
                    tracing::error!(error = %error, "the admin port ended; shipping goes on");
                }
                std::future::pending().await
            };
            // The admin port ends with the sender: nothing is left to tell.
            tokio::select! {
                shipped = shipping => shipped,
                shipped = serving => shipped,
            }
        });
        let Some((sent, collected)) = shipped else {
            tracing::warn!(
                target: exit::TARGET,
                "stopped before the system gave a thread; the log files hold everything for the \
                 next start"
            );
            return ExitCode::Undelivered;
        };
        let left = shutdown::time_left(asked_at.get(), config.drain_deadline, clock::now());
        let collected = match collected.recv_timeout(left) {
            Ok(summary) => Some(summary),
            Err(_) => {
                end.abandon();
                collected.recv_timeout(shutdown::LAST_WORD).ok()
            }
        };
        conclude(&sent, collected, started)
    }
}

/// The two ends of the collector's thread: who gives it the collector, and who gets what came of it.
type Thread = (SyncSender<Collector>, Receiver<collector::Summary>);

/// Asks the system for the collector's thread until it gives one: a limit of processes is used up by
/// whoever shares it. `None` if a signal came first.
async fn wait_for_thread(shutdown: &mut Shutdown) -> Option<Thread> {
    let mut is_said = false;
    loop {
        let error = match start_thread() {
            Ok(thread) => return Some(thread),
            Err(error) => error,
        };
        if !is_said {
            tracing::warn!(
                %error,
                "the system refuses a thread, so nothing is shipped yet: raise the limit of \
                 processes (the pod's pids limit, RLIMIT_NPROC), or find out who uses it up"
            );
            is_said = true;
        }
        tokio::select! {
            () = tokio::time::sleep(THREAD_PERIOD) => {}
            () = shutdown.signalled() => return None,
        }
    }
}

fn start_thread() -> io::Result<Thread> {
    let (start, started) = mpsc::sync_channel::<Collector>(1);
    let (done, collected) = mpsc::sync_channel(1);
    thread::Builder::new().name("collect".to_owned()).spawn(move || {
        if let Ok(collector) = started.recv() {
            // Nobody listens any more if the deadline has passed.
            let _ = done.send(collector.run());
        }
    })?;
    Ok((start, collected))
}

/// Waits for the agent that has the state directory, which ends: a pod of the same name is started
/// while the one before it still drains. That one has its drain deadline, so as long is waited and a
/// fifth more; or until a signal comes, for what is there is the other agent's to deliver.
async fn wait_for_state(
    config: &Config,
    holder: &str,
    end: &SenderEnd,
    facts: &admin::Facts,
    shutdown: &mut Shutdown,
) -> Result<(Store, Loaded), StoreError> {
    let started = clock::now();
    let at_most = config.drain_deadline + config.drain_deadline / 5;
    tracing::warn!(
        dir = %config.state_dir.display(), holder, ?at_most,
        "another agent uses the state directory; waiting for it to end"
    );
    let taking = async {
        loop {
            let is_told = tokio::select! {
                () = tokio::time::sleep(STATE_PERIOD) => false,
                () = shutdown.signalled() => true,
            };
            if is_told {
                let (dir, holder) = (config.state_dir.clone(), holder.to_owned());
                return Err(StoreError::Locked { dir, holder });
            }
            let is_over = clock::now() >= started + at_most;
            match Store::open(&config.state_dir) {
                Err(StoreError::Locked { .. }) if !is_over => {}
                outcome => return outcome,
            }
        }
    };
    let serving = async {
        // The other agent may have this port too.
        if let Ok(admin) = admin::Server::bind(&admin::Options { listen: config.listen }) {
            let _ = admin.serve(end.clone(), facts.clone(), std::future::pending()).await;
        }
        std::future::pending().await
    };
    let opened = tokio::select! {
        opened = taking => opened?,
        opened = serving => opened,
    };
    tracing::info!(dir = %config.state_dir.display(), "the state directory is free");
    Ok(opened)
}

/// Raises the limit of descriptors as far as it goes, and leaves enough of them to all that is no
/// log file: without a checkpoint and a socket nothing is delivered.
fn files_max(concurrency_max: usize) -> usize {
    let mut limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, ..limit };
    if setrlimit(Resource::Nofile, raised).is_ok() {
        limit = raised;
    }
    let limit = limit.current.map_or(usize::MAX, |n| usize::try_from(n).unwrap_or(usize::MAX));
    limit.saturating_sub(DESCRIPTORS_KEPT + concurrency_max).max(limit / 2)
}

fn facts(config: &Config, log_lines_dropped: Arc<AtomicU64>) -> admin::Facts {
    let destination = config.plan.only_destination();
    admin::Facts {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started: clock::now(),
        started_unix: clock::wall().as_secs(),
        state_dir: config.state_dir.clone(),
        endpoint: destination.endpoint.to_string(),
        project: destination.project.clone(),
        logstore: destination.logstore.clone(),
        log_lines_dropped,
    }
}

/// One line of summary, and the exit code that it comes to.
fn conclude(
    sent: &send::Summary,
    collected: Option<collector::Summary>,
    started: Instant,
) -> ExitCode {
    let seconds = clock::now().saturating_duration_since(started).as_secs();
    let Some(collected) = collected else {
        tracing::error!(
            target: exit::TARGET,
            "the collector does not answer (a disk that hangs?); the files hold the rest"
        );
        return ExitCode::Undelivered;
    };
    let oldest = collected.oldest.as_ref();
    let (path, waits) =
        oldest.map_or((String::new(), 0), |(path, waits)| (path.display().to_string(), *waits));
    let report = &sent.report;
    let has_unfinished = collected.unfinished_files > 0;
    if sent.unfinished == 0 && collected.undelivered_files == 0 {
        let message = match has_unfinished {
            false => "stopped: everything was delivered",
            true => {
                "stopped: every complete line was delivered; unfinished last lines are left for the \
                 next start"
            }
        };
        tracing::info!(
            lines = report.lines_delivered,
            bytes = report.raw_bytes_delivered,
            batches = report.batches_delivered,
            attempts = report.attempts,
            seconds,
            unfinished_files = has_unfinished.then_some(collected.unfinished_files),
            unfinished_bytes = has_unfinished.then_some(collected.unfinished_bytes),
            "{message}"
        );
        name_unfinished(&collected);
        return ExitCode::Done;
    }
    tracing::warn!(
        target: exit::TARGET,
        lines = report.lines_delivered,
        bytes = report.raw_bytes_delivered,
        batches = report.batches_delivered,
        attempts = report.attempts,
        seconds,
        undelivered_bytes = collected.undelivered_bytes,
        undelivered_files = collected.undelivered_files,
        oldest = path,
        oldest_seconds = waits,
        error = report.last_error,
        "stopped before everything was delivered; the log files hold the rest for the next start"
    );
    for left in &collected.left {
        let (path, reason) = (left.path.display(), &left.reason);
        tracing::warn!(file = %path, bytes = left.bytes, %reason, "a file is left for the next start");
    }
    if let more @ 1.. = collected.undelivered_files.saturating_sub(collected.left.len()) {
        tracing::warn!(files = more, "more files are left for the next start");
    }
    name_unfinished(&collected);
    ExitCode::Undelivered
}

fn name_unfinished(collected: &collector::Summary) {
    for left in &collected.unfinished {
        let path = left.path.display();
        tracing::info!(file = %path, bytes = left.bytes, "an unfinished last line is left");
    }
    if let more @ 1.. = collected.unfinished_files.saturating_sub(collected.unfinished.len()) {
        tracing::info!(files = more, "more unfinished last lines are left");
    }
}
