//! What the agent logs about itself: set-up of tracing, and the panic hook.
//!
//! To standard error, by way of a [`LogWriter`], as text or as one JSON object a line. Messages are
//! constant, facts are fields; the content of a log line never appears. Why the process ends with
//! another code than 0 is said whatever the filter.

mod writer;

use std::borrow::Cow;
use std::io::{self, Write};
use std::time::Duration;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::{Directive, LevelFilter};

use crate::base::escape;
use crate::base::exit::{self, ExitCode};
use crate::config::LogFormat;

pub use self::writer::LogWriter;

/// How long the last lines may take at the end of the process.
pub const LAST_LINES: Duration = Duration::from_millis(500);
/// How long the reason why the agent does not start may take to be written: nothing else waits then.
pub const REFUSAL_LINES: Duration = Duration::from_secs(5);

/// Installs the subscriber. Called once, before anything is logged; a second call changes nothing.
pub fn start(writer: &LogWriter, filter: &str, format: LogFormat) {
    // The settings have checked the filter; what cannot be parsed would be left out.
    let filter = EnvFilter::new(filter).add_directive(always());
    let writer = writer.clone();
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(move || Escaped { out: writer.clone(), format })
        // It would complain to the same standard error, and panic: a full disk must not end us.
        .log_internal_errors(false);
    // It fails only where a subscriber is installed already, and then that one is used.
    let _ = match format {
        LogFormat::Text => builder.with_target(false).with_ansi(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).with_target(false).try_init(),
    };
}

/// Lets the reason of an exit through, more specific than whatever a filter says.
fn always() -> Directive {
    let directive = format!("{}={}", exit::TARGET, LevelFilter::WARN);
    directive.parse().expect("a target and a level")
}

/// A writer, with escapes for whatever a fact holds (a path can hold anything) that acts on a
/// terminal: an event is one line, whatever it tells of.
struct Escaped<W> {
    out: W,
    format: LogFormat,
}

impl<W: Write> Write for Escaped<W> {
    /// Takes one event, its line end included.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let (line, end) = match text.strip_suffix('\n') {
            Some(line) => (line, "\n"),
            None => (&*text, ""),
        };
        let escaped = match self.format {
            LogFormat::Text => escape::text(line),
            LogFormat::Json => escape::json(line),
        };
        match escaped {
            Cow::Borrowed(_) => self.out.write_all(text.as_bytes())?,
            // In one piece: others may write to the same place.
            Cow::Owned(line) => self.out.write_all((line + end).as_bytes())?,
        }
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Lets a panic in any thread end the process with the code of a bug, after saying where it was.
/// Half-running is not a state that anything here is tested in; a restart from the checkpoint is.
pub fn end_on_panic(writer: LogWriter) {
    const WHAT: &str = "a bug: the agent ends; please report this";
    std::panic::set_hook(Box::new(move |panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let what = panic.payload_as_str().unwrap_or("no message");
        let thread = std::thread::current().name().unwrap_or("unnamed").to_owned();
        if tracing::dispatcher::has_been_set() {
            tracing::error!(target: exit::TARGET, place, thread, reason = what, "{WHAT}");
        } else {
            writer.say(&format!("{WHAT}: {place}: {what}"));
        }
        writer.flush(LAST_LINES);
        #[expect(clippy::disallowed_methods, reason = "main cannot return while a thread panics")]
        std::process::exit(i32::from(ExitCode::Bug as u8));
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line_whatever_it_tells_of() {
        let mut text = Escaped { out: Vec::new(), format: LogFormat::Text };
        text.write_all("INFO file=/a\nERROR forged\x1b[31m\u{e4}\u{202e}.log\n".as_bytes())
            .unwrap();
        let expected = "INFO file=/a\\nERROR forged\\u{1b}[31m\u{e4}\\u{202e}.log\n";
        assert_eq!(text.out, expected.as_bytes());

        let mut json = Escaped { out: Vec::new(), format: LogFormat::Json };
        json.write_all("{\"file\":\"/a\\n\x7f\u{9b}.log\"}\n".as_bytes()).unwrap();
        assert_eq!(json.out, "{\"file\":\"/a\\n\\u007f\\u009b.log\"}\n".as_bytes());
    }
}
