//! The command line: what can be asked for, and what was.
//!
//! Parses only. It neither reads settings nor prints nor exits: `main` does, with what
//! [`parse`] answers. The flags of settings come from the table of keys.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{Arg, ArgMatches, Args, CommandFactory as _, FromArgMatches, Parser, Subcommand};

use crate::base::exit::ExitCode;
use crate::command::checkpoint::Action;
use crate::command::{demo, mock, parked, status};
use crate::config::{FILE_FLAG, Flags, KEYS};

/// What was asked for.
#[derive(Clone, Debug)]
pub enum Invocation {
    /// Run the agent.
    Run(Flags),
    /// Check the settings; with `connect`, the endpoint too.
    Check {
        /// Settings given as flags.
        flags: Flags,
        /// Make one signed read-only request.
        connect: bool,
    },
    /// Show the files being shipped.
    Status {
        /// Settings given as flags.
        flags: Flags,
        /// How to show them.
        form: status::Form,
    },
    /// Look at the state directory, or change it.
    Checkpoint {
        /// Settings given as flags.
        flags: Flags,
        /// What to do with it.
        action: Action,
    },
    /// Look at what the service refused for good, or remove it.
    Parked {
        /// Settings given as flags.
        flags: Flags,
        /// What to do with it.
        action: parked::Action,
    },
    /// Send it again.
    Replay {
        /// Settings given as flags.
        flags: Flags,
        /// Which pieces; none means all.
        ids: Vec<String>,
    },
    /// Serve a local endpoint.
    Mock(mock::Command),
    /// Show the whole story.
    Demo(demo::Demo),
    /// Run the agent of a demo.
    DemoAgent {
        /// The demo's directory.
        dir: PathBuf,
    },
    /// Print the version.
    Version,
}

/// The command line asks for nothing that can be done: print and end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usage {
    /// What to print: help to standard output, a complaint to standard error.
    pub text: String,
    /// [`ExitCode::Done`] where help was asked for, else [`ExitCode::Usage`].
    pub code: ExitCode,
}

/// Understands the arguments, the program's name first.
///
/// # Errors
/// The text to print and the code to end with, for help as well as for wrong usage.
pub fn parse<I>(arguments: I) -> Result<Invocation, Usage>
where
    I: IntoIterator,
    I::Item: Into<OsString> + Clone,
{
    let command = Cli::command().mut_args(|arg| {
        // On the top they would bury the commands; `run --help` lists them.
        let is_setting = KEYS.iter().any(|key| key.name == arg.get_id().as_str());
        if is_setting { arg.hide(true) } else { arg }
    });
    let cli = command
        .try_get_matches_from(arguments)
        .and_then(|matches| Cli::from_arg_matches(&matches))
        .map_err(|error| usage(&error))?;
    Ok(match cli.command {
        None => Invocation::Run(cli.settings.0),
        Some(Command::Run { settings }) => Invocation::Run(settings.0),
        Some(Command::Check { settings, connect }) => {
            Invocation::Check { flags: settings.0, connect }
        }
        Some(Command::Status { settings, form }) => Invocation::Status { flags: settings.0, form },
        Some(Command::Checkpoint { command }) => {
            let (settings, action) = match command {
                CheckpointCommand::Show { json, settings } => (settings, Action::Show { json }),
                CheckpointCommand::Reset { path, settings } => (settings, Action::Reset { path }),
                CheckpointCommand::Import { file, settings } => (settings, Action::Import { file }),
            };
            Invocation::Checkpoint { flags: settings.0, action }
        }
        Some(Command::Parked { command }) => command.into(),
        Some(Command::Mock(args)) => Invocation::Mock(args),
        Some(Command::Demo(args)) => Invocation::Demo(args),
        Some(Command::DemoAgent { dir }) => Invocation::DemoAgent { dir },
        Some(Command::Version) => Invocation::Version,
    })
}

fn usage(error: &clap::Error) -> Usage {
    let is_help = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    let code = if is_help { ExitCode::Done } else { ExitCode::Usage };
    Usage { text: error.to_string(), code }
}

#[derive(Debug, Parser)]
#[command(
    name = "logferry",
    version,
    about = "Ships a pod's log files to Simple Log Service.",
    after_help = "Without a command, logferry runs the agent. `logferry run --help` lists all \
                  settings; each is also a key of the file that --config or LOGFERRY_CONFIG names, and \
                  an environment variable.\n\n\
                  Exit codes: 0 all delivered, 64 wrong usage or output that cannot be written, \
                  70 a bug, 73 the state directory cannot be used, 75 the drain deadline passed or \
                  the system refused what is needed, 78 wrong settings.",
    args_conflicts_with_subcommands = true
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    settings: SettingFlags,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the agent until SIGTERM, then deliver what is left and end (the default).
    Run {
        #[command(flatten)]
        settings: SettingFlags,
    },
    /// Load all settings, print each value with its origin, and the memory sum.
    Check {
        /// Also make one signed read-only request to the endpoint.
        #[arg(long)]
        connect: bool,
        #[command(flatten)]
        settings: SettingFlags,
    },
    /// Show the files being shipped, the one that lags most first: offsets, lag, last error.
    Status {
        #[command(flatten)]
        form: status::Form,
        #[command(flatten)]
        settings: SettingFlags,
    },
    /// Show what the state directory remembers, forget a file, take over from logtail.
    Checkpoint {
        #[command(subcommand)]
        command: CheckpointCommand,
    },
    /// What the service refused for good: list it, show it, send it again, remove it.
    Parked {
        #[command(subcommand)]
        command: ParkedCommand,
    },
    /// Serve a local endpoint for development.
    Mock(mock::Command),
    /// Show the whole story: an endpoint, an app that writes, the agent.
    Demo(demo::Demo),
    /// Run the agent of a demo, which ends with it.
    #[command(hide = true)]
    DemoAgent {
        /// The demo's directory, which goes if the demo is gone.
        dir: PathBuf,
    },
    /// Print version, commit and build.
    Version,
}

#[derive(Debug, Subcommand)]
enum CheckpointCommand {
    /// Show everything that the state directory holds, also while an agent runs.
    Show {
        /// Print JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        settings: SettingFlags,
    },
    /// Forget a file, so that the next start ships it from its first byte.
    Reset {
        /// Path of the file, as configured or with links resolved.
        path: PathBuf,
        #[command(flatten)]
        settings: SettingFlags,
    },
    /// Take over the offsets of a logtail checkpoint file, before the first start.
    Import {
        /// The file: /tmp/logtail_check_point in logtail's container, if not moved by
        /// ALIYUN_LOGTAIL_CHECK_POINT_PATH.
        file: PathBuf,
        #[command(flatten)]
        settings: SettingFlags,
    },
}

#[derive(Debug, Subcommand)]
enum ParkedCommand {
    /// List what is set aside, also while an agent runs.
    List {
        /// Print JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        settings: SettingFlags,
    },
    /// Show one piece: why it was refused, and its lines.
    Show {
        /// Id of the piece, as listed.
        id: String,
        #[command(flatten)]
        settings: SettingFlags,
    },
    /// Send pieces again; what the service takes now is removed. Ends with 75 if some are left.
    Replay {
        /// Ids of the pieces, as listed; without any, all.
        #[arg(value_name = "ID")]
        ids: Vec<String>,
        #[command(flatten)]
        settings: SettingFlags,
    },
    /// Remove pieces for good.
    Drop {
        /// Ids of the pieces, as listed.
        #[arg(value_name = "ID", required_unless_present = "all", conflicts_with = "all")]
        ids: Vec<String>,
        /// All of them.
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        settings: SettingFlags,
    },
}

impl From<ParkedCommand> for Invocation {
    fn from(command: ParkedCommand) -> Self {
        use parked::Action;
        let (settings, action) = match command {
            ParkedCommand::List { json, settings } => (settings, Action::List { json }),
            ParkedCommand::Show { id, settings } => (settings, Action::Show { id }),
            ParkedCommand::Drop { ids, all, settings } => {
                (settings, Action::Drop { ids: (!all).then_some(ids) })
            }
            ParkedCommand::Replay { ids, settings } => {
                return Self::Replay { flags: settings.0, ids };
            }
        };
        Self::Parked { flags: settings.0, action }
    }
}

/// The settings that were given as flags: one flag for each key of the table.
#[derive(Debug)]
struct SettingFlags(Flags);

impl Args for SettingFlags {
    fn augment_args(command: clap::Command) -> clap::Command {
        let file = Arg::new(FILE_FLAG)
            .long(FILE_FLAG)
            .value_name("FILE")
            .value_parser(clap::value_parser!(OsString))
            .help(
                "Read settings from this file, TOML or YAML, instead of what LOGFERRY_CONFIG names",
            );
        command.arg(file).args(KEYS.iter().map(|key| {
            let default = match key.default {
                None | Some("") => String::new(),
                Some(default) => format!(" [default: {default}]"),
            };
            Arg::new(key.name)
                .long(key.flag())
                .value_name("VALUE")
                .value_parser(clap::value_parser!(OsString))
                .allow_negative_numbers(true)
                .help_heading("Settings")
                .help(format!("{}{default}", key.doc))
        }))
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for SettingFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let names = KEYS.iter().map(|key| key.name).chain([FILE_FLAG]);
        let given = names.filter_map(|name| {
            let value = matches.get_one::<OsString>(name)?;
            Some((name.to_owned(), value.clone()))
        });
        Ok(Self(given.collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Invocation, Usage> {
        parse(std::iter::once("logferry").chain(line.split_whitespace()))
    }

    fn flag(flags: &Flags, name: &str) -> Option<String> {
        flags.get(name).map(|value| value.to_string_lossy().into_owned())
    }

    #[test]
    fn no_command_runs_the_agent() {
        let Ok(Invocation::Run(flags)) = parsed("") else { panic!("not run") };
        assert!(flags.is_empty());
        let Ok(Invocation::Run(flags)) = parsed("--batch-bytes 1MiB --project=p") else {
            panic!("not run")
        };
        assert_eq!(flag(&flags, "batch_bytes").as_deref(), Some("1MiB"));
        assert_eq!(flag(&flags, "project").as_deref(), Some("p"));
    }

    #[test]
    fn every_key_is_a_flag_of_run_check_and_status() {
        for command in ["run", "check", "status"] {
            for key in &KEYS {
                let line = format!("{command} --{} x", key.flag());
                let (Ok(Invocation::Run(flags))
                | Ok(Invocation::Check { flags, .. })
                | Ok(Invocation::Status { flags, .. })) = parsed(&line)
                else {
                    panic!("{line}")
                };
                assert_eq!(flag(&flags, key.name).as_deref(), Some("x"), "{line}");
            }
        }
    }

    #[test]
    fn a_negative_or_empty_value_reaches_the_check_of_the_settings() {
        let Ok(Invocation::Run(flags)) = parsed("run --max-bytes-per-sec -5 --listen=") else {
            panic!("not run")
        };
        assert_eq!(flag(&flags, "max_bytes_per_sec").as_deref(), Some("-5"));
        assert_eq!(flag(&flags, "listen").as_deref(), Some(""));
    }

    #[test]
    fn commands_take_their_own_flags() {
        assert!(matches!(parsed("check --connect"), Ok(Invocation::Check { connect: true, .. })));
        assert!(matches!(
            parsed("status --json --lagging"),
            Ok(Invocation::Status { form: status::Form { json: true, lagging: true }, .. })
        ));
        assert!(matches!(parsed("version"), Ok(Invocation::Version)));
        let Ok(Invocation::Demo(demo)) = parsed("demo --seconds 3 --rate 50") else {
            panic!("no demo")
        };
        assert_eq!(demo, demo::Demo { seconds: 3, rate: 50 });
        let Ok(Invocation::Mock(mock)) = parsed("mock") else { panic!("no mock") };
        assert_eq!(mock.listen.to_string(), "127.0.0.1:9200");
    }

    #[test]
    fn checkpoint_has_three_commands_that_take_settings() {
        let asked = |line: &str| match parsed(line) {
            Ok(Invocation::Checkpoint { flags, action }) => (action, flag(&flags, "state_dir")),
            other => panic!("{line}: {other:?}"),
        };
        assert_eq!(asked("checkpoint show"), (Action::Show { json: false }, None));
        assert_eq!(asked("checkpoint show --json").0, Action::Show { json: true });
        let dir = Some("/s".to_owned());
        let path = "/share/logs/app.log".into();
        assert_eq!(
            asked("checkpoint reset /share/logs/app.log --state-dir /s"),
            (Action::Reset { path }, dir.clone())
        );
        let file = "/tmp/logtail_check_point".into();
        assert_eq!(
            asked("checkpoint import --state-dir=/s /tmp/logtail_check_point"),
            (Action::Import { file }, dir)
        );
    }

    #[test]
    fn parked_has_four_commands_that_take_settings() {
        use parked::Action;
        let asked = |line: &str| match parsed(line) {
            Ok(Invocation::Parked { flags, action }) => (action, flag(&flags, "state_dir")),
            other => panic!("{line}: {other:?}"),
        };
        let ids = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>();
        let dir = Some("/s".to_owned());
        assert_eq!(asked("parked list --json"), (Action::List { json: true }, None));
        let shown = Action::Show { id: "1-2-3".to_owned() };
        assert_eq!(asked("parked show 1-2-3 --state-dir /s"), (shown, dir.clone()));
        for (line, expected) in
            [("parked replay", ids(&[])), ("parked replay a b", ids(&["a", "b"]))]
        {
            let Ok(Invocation::Replay { ids, .. }) = parsed(line) else { panic!("{line}") };
            assert_eq!(ids, expected, "{line}");
        }
        assert_eq!(asked("parked drop --all").0, Action::Drop { ids: None });
        let dropped = Action::Drop { ids: Some(ids(&["a"])) };
        assert_eq!(asked("parked drop a --state-dir=/s"), (dropped, dir));
    }

    #[test]
    fn help_ends_with_0_and_wrong_usage_with_64() {
        for line in ["--help", "help", "run --help", "--version", "check -h", "checkpoint --help"] {
            assert_eq!(parsed(line).unwrap_err().code, ExitCode::Done, "{line}");
        }
        for line in [
            "fly",
            "--nonsense",
            "run extra",
            "demo --seconds 0",
            "--project",
            "mock --listen x",
            "checkpoint reset",
            "checkpoint import",
            "checkpoint show x",
            "parked",
            "parked show",
            "parked drop",
            "parked drop --all x",
        ] {
            assert_eq!(parsed(line).unwrap_err().code, ExitCode::Usage, "{line}");
        }
    }

    #[test]
    fn the_top_help_shows_commands_and_the_help_of_run_shows_settings() {
        let top = parsed("--help").unwrap_err().text;
        let run = parsed("run --help").unwrap_err().text;
        assert!(top.contains("check") && !top.contains("--batch-bytes"), "{top}");
        assert!(KEYS.iter().all(|key| run.contains(&format!("--{}", key.flag()))), "{run}");
    }
}
