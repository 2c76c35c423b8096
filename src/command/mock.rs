//! `logferry mock`: the endpoint as a command.
//!
//! Owns nothing but the words on the command line and what is printed; the rest is [`Server`].

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};

use logferry_mock::{Access, Counts, Fault, Key, Limits, Options, Server};

const FAULT_HELP: &str = "\
Misbehave (may be repeated): KIND[:NAME=VALUE,…], or JSON as for PUT /mock/faults.

  error:code=CODE[,status=N][,retry_after=SECONDS]   answer with this code
  delay:ms=N                                         wait first; adds up with the others
  hang, hang_after                                   never answer; _after: but store
  cut_before, cut_after                              close the connection; likewise
  captive_portal                                     answer 200 as a wrong proxy would
  poison:text=TEXT                                   refuse what holds this text
  refuse_compression:name=lz4|zstd                   refuse what is compressed so
  refuse_lists                                       refuse several groups in a request
  body_limit:bytes=N                                 answer 413 to larger bodies
  quota:bytes_per_second=N[,requests_per_second=N][,code=CODE]

Each also takes times=N, after=N, every=N, probability=P, seed=N, logstore=NAME and
on=put|read|any (default: put).";

/// A local SLS endpoint for development: verifies and stores what it gets, misbehaves on request
#[derive(Clone, Debug, clap::Args)]
pub struct Command {
    /// Address to listen on; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9200")]
    pub listen: SocketAddr,
    /// Also append every accepted LogGroup to DIR/groups.jsonl
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Accept requests signed with this key, and no others (may be repeated). Without it
    /// requests may be unsigned, and signatures must be well formed but are not checked
    #[arg(long = "access-key", value_name = "ID:SECRET")]
    pub access_keys: Vec<Key>,
    /// This project exists, others do not (may be repeated). Default: every project exists
    #[arg(long = "project", value_name = "NAME")]
    pub projects: Vec<String>,
    /// This logstore exists, others do not (may be repeated). Default: every logstore exists
    #[arg(long = "logstore", value_name = "NAME")]
    pub logstores: Vec<String>,
    /// Shards of every logstore
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub shards: u32,
    /// Run the endpoint's clock ahead by so many seconds (negative: behind)
    #[arg(long, value_name = "SECONDS", default_value_t = 0, allow_negative_numbers = true)]
    pub clock_offset: i64,
    /// Misbehave (may be repeated): KIND[:NAME=VALUE,…], or JSON as for PUT /mock/faults
    #[arg(long = "fault", value_name = "FAULT", long_help = FAULT_HELP)]
    pub faults: Vec<Fault>,
}

impl From<Command> for Options {
    fn from(command: Command) -> Self {
        Self {
            listen: command.listen,
            dir: command.dir,
            access: Access {
                keys: command.access_keys,
                projects: command.projects,
                logstores: command.logstores,
            },
            limits: Limits::default(),
            shards: command.shards,
            clock_offset_seconds: command.clock_offset,
            faults: command.faults,
            ..Self::default()
        }
    }
}

/// Why the command ended.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The endpoint cannot be had as it was asked for: what is wrong, and what would be right.
    #[error("{0}")]
    Start(String),
    /// The output cannot be written.
    #[error("cannot print: {0}")]
    Output(#[from] io::Error),
}

/// Runs a mock endpoint until SIGINT or SIGTERM, saying where it is and, at the end, what it got.
///
/// # Errors
/// When it cannot listen, open its file, or print.
pub async fn run(command: Command, out: &mut impl Write) -> Result<(), CommandError> {
    let catch = |kind| {
        signal(kind).map_err(|error| CommandError::Start(format!("cannot catch signals: {error}")))
    };
    let (mut interrupt, mut terminate) =
        (catch(SignalKind::interrupt())?, catch(SignalKind::terminate())?);
    let listen = command.listen;
    let server = Server::start(command.into()).await.map_err(|error| {
        let hint = match error.kind() {
            io::ErrorKind::AddrInUse => {
                format!("; --listen takes another address than {listen}")
            }
            _ => String::new(),
        };
        let why = format!("cannot start a mock endpoint on {listen}: {error}{hint}");
        CommandError::Start(why)
    })?;

    writeln!(out, "mock endpoint, and a page to watch it: http://{}/", server.address())?;
    out.flush()?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }

    let store = Arc::clone(server.endpoint().store());
    server.stop().await;
    Ok(write!(out, "{}", summary(&store.counts()))?)
}

fn summary(counts: &Counts) -> String {
    let mut text = format!(
        "{} lines in {} groups accepted ({} bytes, {} as sent) from {} of {} requests\n",
        counts.lines,
        counts.groups,
        counts.raw_bytes,
        counts.sent_bytes,
        counts.puts,
        counts.requests,
    );
    for (place, lines) in &counts.logstores {
        text.push_str(&format!("  {place}: {lines} lines\n"));
    }
    for (code, count) in &counts.refused {
        text.push_str(&format!("  refused {code}: {count}\n"));
    }
    for (kind, count) in &counts.faults {
        text.push_str(&format!("  fault {kind}: {count}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use logferry_mock::Kind;

    use super::*;

    #[test]
    fn the_command_line_becomes_options() {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            mock: Command,
        }
        let parse = |flags: &str| {
            <Line as clap::Parser>::try_parse_from(["mock"].into_iter().chain(flags.split(' ')))
                .map(|line| Options::from(line.mock))
        };

        let options = parse(
            "--listen 127.0.0.1:0 --access-key id:a:b --logstore one --logstore two --project p \
             --clock-offset -90 --shards 3 --fault hang:times=2 --fault cut_after",
        );
        let options = options.unwrap();

        assert_eq!(options.access.keys, [Key { id: "id".to_owned(), secret: "a:b".to_owned() }]);
        assert_eq!(options.access.logstores, ["one", "two"]);
        assert_eq!(options.access.projects, ["p"]);
        assert_eq!((options.clock_offset_seconds, options.shards), (-90, 3));
        assert_eq!(options.faults[0], Fault { times: Some(2), ..Fault::new(Kind::Hang) });
        assert_eq!(options.faults[1], Fault::new(Kind::CutAfter));
        for wrong in ["--access-key id", "--shards 0", "--fault hung", "--listen here"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
