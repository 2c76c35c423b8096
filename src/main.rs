//! The binary: parse, load, do, end with a code. Reads the environment once and passes it down.

use std::io::Write;
use std::process::ExitCode as ProcessExitCode;

use logferry::app::{self, App, StartError};
use logferry::base::exit::{self, ExitCode};
use logferry::cli::{self, Invocation};
use logferry::command::checkpoint::{self, Action};
use logferry::command::table::printable;
use logferry::command::{check, demo, mock, parked, status};
use logferry::config::{self, Environment, Flags, LogFormat, Mistake, Mistakes};
use logferry::send;
use logferry::signals::Signals;
use logferry::telemetry::{self, LogWriter};

fn main() -> ProcessExitCode {
    let env: Environment = std::env::vars_os().collect();
    let mut out = Output { error: None };
    let ended = match cli::parse(std::env::args_os()) {
        Ok(invocation) => perform(invocation, &env, &mut out),
        Err(usage) if usage.code == ExitCode::Done => {
            write!(out, "{}", usage.text).map(|()| usage.code).map_err(Into::into)
        }
        Err(usage) => {
            let _ = write!(std::io::stderr(), "{}", shown(&usage.text));
            Ok(usage.code)
        }
    };
    let ended = ended.and_then(|code| Ok(out.flush().map(|()| code)?));
    let code = ended.unwrap_or_else(|error| match out.error {
        // `logferry check | head -1`: the reader has seen enough.
        Some(std::io::ErrorKind::BrokenPipe) => ExitCode::Done,
        Some(_) => {
            complain(&format!(
                "{error:#}; standard output takes no more: let it lead to a terminal, or to a file \
                 on a disk that has room"
            ));
            ExitCode::Usage
        }
        None => {
            complain(&format!("{error:#}"));
            ExitCode::Undelivered
        }
    });
    code.into()
}

/// Standard output, which knows whether it could be written.
struct Output {
    error: Option<std::io::ErrorKind>,
}

impl Output {
    fn note<T>(&mut self, done: std::io::Result<T>) -> std::io::Result<T> {
        done.inspect_err(|error| self.error = Some(error.kind()))
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = std::io::stdout().write(bytes);
        self.note(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        let flushed = std::io::stdout().flush();
        self.note(flushed)
    }
}

/// Does what was asked for. An error is the system's: it refuses output, a thread or a descriptor.
fn perform(
    invocation: Invocation,
    env: &Environment,
    out: &mut Output,
) -> anyhow::Result<ExitCode> {
    match invocation {
        Invocation::Run(flags) => {
            keep_to_itself();
            Ok(run(env, &flags, || Ok(())))
        }
        Invocation::Check { flags, connect } => check(env, &flags, connect, out),
        Invocation::Status { flags, form } => match config::load_local(env, &flags) {
            Ok(local) => Ok(status::run(local.listen, &local.state_dir, form, out)?),
            Err(mistakes) => Ok(refuse(&mistakes)),
        },
        Invocation::Checkpoint { flags, action } => {
            keep_to_itself();
            checkpoint(env, &flags, &action, out)
        }
        Invocation::Parked { flags, action } => parked(env, &flags, &action, out),
        Invocation::Replay { flags, ids } => replay(env, &flags, &ids, out),
        Invocation::Mock(command) => match app::runtime()?.block_on(mock::run(command, out)) {
            Err(mock::CommandError::Start(why)) => {
                complain(&why);
                Ok(ExitCode::Usage)
            }
            Err(mock::CommandError::Output(error)) => Err(error.into()),
            Ok(()) => Ok(ExitCode::Done),
        },
        Invocation::Demo(args) => Ok(demo::run(args, out)?),
        Invocation::DemoAgent { dir } => {
            keep_to_itself();
            let mut word = None;
            let code = run(env, &Flags::default(), || {
                word = Some(demo::end_with_demo()?);
                Ok(())
            });
            if let Some(word) = word.as_ref().and_then(|word| word.get()) {
                demo::clean_up(&dir, word)?;
            }
            Ok(code)
        }
        Invocation::Version => {
            writeln!(
                out,
                "logferry {} (commit {}, {}, {})",
                env!("CARGO_PKG_VERSION"),
                env!("LOGFERRY_COMMIT"),
                env!("LOGFERRY_TARGET"),
                if cfg!(debug_assertions) { "debug build" } else { "release build" },
            )?;
            Ok(ExitCode::Done)
        }
    }
}

/// What is made from here on is for the agent's user, who can read it, whatever umask came with the
/// process.
fn keep_to_itself() {
    rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
}

/// Runs the agent. What it prints goes by way of the log's writer: nobody may read it, and a signal must
/// end it all the same. `on_caught` is called when signals are caught.
fn run(
    env: &Environment,
    flags: &Flags,
    on_caught: impl FnOnce() -> std::io::Result<()>,
) -> ExitCode {
    // First of all: from here on a signal means a drain, however long the start takes.
    let caught = app::runtime().and_then(|runtime| {
        let signals = Signals::catch(&runtime)?;
        on_caught()?;
        Ok((signals, runtime))
    });
    let log = LogWriter::start();
    telemetry::end_on_panic(log.clone());
    let mut patience = telemetry::REFUSAL_LINES;
    let code = match (caught, config::load(env, flags)) {
        (Err(error), _) => {
            let error = StartError::System(error);
            log.say(&error.to_string());
            error.exit_code()
        }
        (_, Err(mistakes)) => {
            refuse_to_run(&mistakes, &log, config::load_log_format(env, flags));
            ExitCode::Settings
        }
        (Ok((signals, runtime)), Ok(config)) => {
            telemetry::start(&log, &config.log_filter, config.log_format);
            // Within the deadline: a fifth of it is kept back, and hardly needed.
            let last_lines = telemetry::LAST_LINES.min(config.drain_deadline / 10);
            match App::build(config, runtime, signals, log.dropped()) {
                Ok(app) => {
                    patience = last_lines;
                    app.run()
                }
                Err(error) => fail(&error),
            }
        }
    };
    log.flush(patience);
    code
}

fn check(
    env: &Environment,
    flags: &Flags,
    connect: bool,
    out: &mut impl Write,
) -> anyhow::Result<ExitCode> {
    let config = match config::load(env, flags) {
        Ok(config) => config,
        Err(mistakes) => return Ok(refuse(&mistakes)),
    };
    write!(out, "{}", check::tables(&config))?;
    for note in app::notes(&config) {
        writeln!(out, "\nnote: {}", shown(&note))?;
    }
    let state = app::state_trouble(&config);
    if let Some(error) = &state {
        complain(&error.to_string());
    }
    let code = if state.is_some() { ExitCode::State } else { ExitCode::Done };
    if !connect {
        return Ok(code);
    }
    let destination = config.plan.only_destination();
    match app::runtime()?.block_on(send::connect(&config.send, destination)) {
        Ok(connected) => {
            writeln!(out, "\nendpoint: {connected}")?;
            Ok(code)
        }
        Err(error) => {
            complain(&format!("{} does not take logs: {error}", destination.endpoint));
            Ok(ExitCode::Settings)
        }
    }
}

fn checkpoint(
    env: &Environment,
    flags: &Flags,
    action: &Action,
    out: &mut impl Write,
) -> anyhow::Result<ExitCode> {
    let kept = match config::load_kept(env, flags) {
        Ok(kept) => kept,
        Err(mistakes) => return Ok(refuse(&mistakes)),
    };
    match checkpoint::run(action, &kept, out) {
        Ok(()) => Ok(ExitCode::Done),
        Err(checkpoint::Error::Output(error)) => Err(error.into()),
        Err(error) => {
            complain(&error.to_string());
            Ok(error.exit_code())
        }
    }
}

fn parked(
    env: &Environment,
    flags: &Flags,
    action: &parked::Action,
    out: &mut impl Write,
) -> anyhow::Result<ExitCode> {
    match config::load_local(env, flags) {
        Ok(local) => conclude(parked::run(action, &local.state_dir, out)),
        Err(mistakes) => Ok(refuse(&mistakes)),
    }
}

fn replay(
    env: &Environment,
    flags: &Flags,
    ids: &[String],
    out: &mut impl Write,
) -> anyhow::Result<ExitCode> {
    // Whoever sends needs all that an agent needs.
    let config = match config::load(env, flags) {
        Ok(config) => config,
        Err(mistakes) => return Ok(refuse(&mistakes)),
    };
    let destination = config.plan.only_destination().clone();
    let sent = parked::send_again(ids, &config.state_dir, config.send, destination, out);
    conclude(app::runtime()?.block_on(sent))
}

fn conclude(done: Result<ExitCode, parked::Error>) -> anyhow::Result<ExitCode> {
    match done {
        Ok(code) => Ok(code),
        Err(parked::Error::Output(error)) => Err(error.into()),
        Err(error) => {
            complain(&error.to_string());
            Ok(error.exit_code())
        }
    }
}

fn refuse(mistakes: &Mistakes) -> ExitCode {
    complain(&mistakes.to_string());
    ExitCode::Settings
}

/// What collects an agent's log as JSON gets the mistakes as JSON too, an event for each.
fn refuse_to_run(mistakes: &Mistakes, log: &LogWriter, format: LogFormat) {
    if format == LogFormat::Text {
        return log.say(&shown(&mistakes.to_string()));
    }
    telemetry::start(log, "error", format);
    for Mistake { key, value, origin, advice, .. } in &mistakes.0 {
        tracing::error!(key, value, origin, error = advice, "a mistake in the settings");
    }
}

fn fail(error: &StartError) -> ExitCode {
    tracing::error!(target: exit::TARGET, error = %error, "the agent does not start");
    error.exit_code()
}

/// To standard error; if that is closed, the exit code has to do.
fn complain(text: &str) {
    let _ = writeln!(std::io::stderr(), "logferry: {}", shown(text));
}

/// The text as it may stand at a terminal, with its line ends.
fn shown(text: &str) -> String {
    text.split_inclusive('\n')
        .map(|line| match line.strip_suffix('\n') {
            Some(line) => printable(line) + "\n",
            None => printable(line),
        })
        .collect()
}
