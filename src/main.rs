//! The binary: parse, load, do, end with a code. Reads the environment once and passes it down.

use std::io::Write as _;
use std::process::ExitCode as ProcessExitCode;
use std::sync::atomic::Ordering::Relaxed;

use logferry::app::{self, App, StartError};
use logferry::cli::{self, Invocation};
use logferry::config::{self, Environment, Flags, Mistakes};
use logferry::exit::{self, ExitCode};
use logferry::signals::Signals;
use logferry::state_command::{self, Action};
use logferry::telemetry::{self, LogWriter};
use logferry::{mock, parked_command, send, status};

fn main() -> ProcessExitCode {
    let env: Environment = std::env::vars_os().collect();
    let code = match cli::parse(std::env::args_os()) {
        Ok(invocation) => perform(invocation, &env).unwrap_or_else(|error| {
            if is_closed_pipe(&error) {
                return ExitCode::Done;
            }
            complain(&format!("{error:#}"));
            ExitCode::Bug
        }),
        Err(usage) if usage.code == ExitCode::Done => {
            // Who does not read the help needs none.
            let _ = write!(std::io::stdout(), "{}", usage.text);
            usage.code
        }
        Err(usage) => {
            let _ = write!(std::io::stderr(), "{}", usage.text);
            usage.code
        }
    };
    code.into()
}

fn perform(invocation: Invocation, env: &Environment) -> anyhow::Result<ExitCode> {
    match invocation {
        Invocation::Run(flags) => {
            keep_to_itself();
            Ok(run(env, &flags, || Ok(())))
        }
        Invocation::Check { flags, connect } => check(env, &flags, connect),
        Invocation::Status { flags, json } => match config::load_local(env, &flags) {
            Ok(local) => {
                Ok(status::run(local.listen, &local.state_dir, json, &mut std::io::stdout())?)
            }
            Err(mistakes) => Ok(refuse(&mistakes)),
        },
        Invocation::Checkpoint { flags, action } => {
            keep_to_itself();
            checkpoint(env, &flags, &action)
        }
        Invocation::Parked { flags, action } => parked(env, &flags, &action),
        Invocation::Replay { flags, ids } => replay(env, &flags, &ids),
        Invocation::Mock(command) => {
            let listen = command.listen;
            match app::runtime()?.block_on(mock::run(command)) {
                Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
                    complain(&format!("{error}; --listen takes another address than {listen}"));
                    Ok(ExitCode::Usage)
                }
                ended => Ok(ended.map(|()| ExitCode::Done)?),
            }
        }
        Invocation::Demo(args) => Ok(mock::demo::run(args, &mut std::io::stdout())?),
        Invocation::DemoAgent { dir } => {
            keep_to_itself();
            let mut is_demo_gone = None;
            let code = run(env, &Flags::default(), || {
                is_demo_gone = Some(mock::demo::end_with_demo()?);
                Ok(())
            });
            if is_demo_gone.is_some_and(|gone| gone.load(Relaxed)) {
                mock::demo::clean_up(&dir)?;
            }
            Ok(code)
        }
        Invocation::Version => {
            writeln!(
                std::io::stdout(),
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

/// `logferry check | head -1`: the reader has seen enough.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    let io = error.downcast_ref::<std::io::Error>();
    io.is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
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
    let mut patience = telemetry::LAST_LINES;
    let code = match (caught, config::load(env, flags)) {
        (Err(error), _) => {
            let error = StartError::System(error);
            log.say(&error.to_string());
            error.exit_code()
        }
        (_, Err(mistakes)) => {
            log.say(&mistakes.to_string());
            ExitCode::Settings
        }
        (Ok((signals, runtime)), Ok(config)) => {
            telemetry::start(&log, &config.log_filter, config.log_format);
            // Within the deadline: a fifth of it is kept back, and hardly needed.
            patience = patience.min(config.drain_deadline / 10);
            match App::build(config, runtime, signals, log.dropped()) {
                Ok(app) => app.run(),
                Err(error) => fail(&error),
            }
        }
    };
    log.flush(patience);
    code
}

fn check(env: &Environment, flags: &Flags, connect: bool) -> anyhow::Result<ExitCode> {
    let config = match config::load(env, flags) {
        Ok(config) => config,
        Err(mistakes) => return Ok(refuse(&mistakes)),
    };
    write!(std::io::stdout(), "{}", config.tables())?;
    for note in app::notes(&config) {
        writeln!(std::io::stdout(), "\nnote: {note}")?;
    }
    if !connect {
        return Ok(ExitCode::Done);
    }
    match app::runtime()?.block_on(send::connect(&config.send)) {
        Ok(connected) => {
            writeln!(std::io::stdout(), "\nendpoint: {connected}")?;
            Ok(ExitCode::Done)
        }
        Err(error) => {
            complain(&format!("{} does not take logs: {error}", config.send.endpoint));
            Ok(ExitCode::Settings)
        }
    }
}

fn checkpoint(env: &Environment, flags: &Flags, action: &Action) -> anyhow::Result<ExitCode> {
    let kept = match config::load_kept(env, flags) {
        Ok(kept) => kept,
        Err(mistakes) => return Ok(refuse(&mistakes)),
    };
    match state_command::run(action, &kept, &mut std::io::stdout()) {
        Ok(()) => Ok(ExitCode::Done),
        Err(state_command::Error::Output(error)) => Err(error.into()),
        Err(error) => {
            complain(&error.to_string());
            Ok(error.exit_code())
        }
    }
}

fn parked(
    env: &Environment,
    flags: &Flags,
    action: &parked_command::Action,
) -> anyhow::Result<ExitCode> {
    match config::load_local(env, flags) {
        Ok(local) => {
            conclude(parked_command::run(action, &local.state_dir, &mut std::io::stdout()))
        }
        Err(mistakes) => Ok(refuse(&mistakes)),
    }
}

fn replay(env: &Environment, flags: &Flags, ids: &[String]) -> anyhow::Result<ExitCode> {
    // Whoever sends needs all that an agent needs.
    let config = match config::load(env, flags) {
        Ok(config) => config,
        Err(mistakes) => return Ok(refuse(&mistakes)),
    };
    let mut out = std::io::stdout();
    let sent = parked_command::send_again(ids, &config.state_dir, config.send, &mut out);
    conclude(app::runtime()?.block_on(sent))
}

fn conclude(done: Result<ExitCode, parked_command::Error>) -> anyhow::Result<ExitCode> {
    match done {
        Ok(code) => Ok(code),
        Err(parked_command::Error::Output(error)) => Err(error.into()),
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

fn fail(error: &StartError) -> ExitCode {
    tracing::error!(target: exit::TARGET, error = %error, "the agent does not start");
    error.exit_code()
}

/// To standard error; if that is closed, the exit code has to do.
fn complain(text: &str) {
    let _ = writeln!(std::io::stderr(), "logferry: {text}");
}
