//! What the agent logs about itself: set-up of tracing, and the panic hook.
//!
//! To standard error, as text or as one JSON object a line. Messages are constant, facts are
//! fields; the content of a log line never appears.

use tracing_subscriber::EnvFilter;

use crate::config::LogFormat;
use crate::exit::ExitCode;

/// Installs the subscriber. Called once, before anything is logged; a second call changes nothing.
pub fn start(filter: &str, format: LogFormat) {
    // The settings have checked the filter; what cannot be parsed would be left out.
    let filter = EnvFilter::new(filter);
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // It would complain to the same standard error, and panic: a full disk must not end us.
        .log_internal_errors(false);
    // It fails only where a subscriber is installed already, and then that one is used.
    let _ = match format {
        LogFormat::Text => builder.with_target(false).with_ansi(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).with_target(false).try_init(),
    };
}

/// Lets a panic in any thread end the process with the code of a bug, after saying where it was.
/// Half-running is not a state that anything here is tested in; a restart from the checkpoint is.
pub fn end_on_panic() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let what = panic.payload_as_str().unwrap_or("no message");
        let thread = std::thread::current().name().unwrap_or("unnamed").to_owned();
        tracing::error!(place, thread, reason = what, "a bug: the agent ends; please report this");
        #[expect(clippy::disallowed_methods, reason = "main cannot return while a thread panics")]
        std::process::exit(i32::from(ExitCode::Bug as u8));
    }));
}
