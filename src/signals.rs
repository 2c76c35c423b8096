//! What signals ask of the process: to stop, or to read its settings again. All others that would end
//! it are caught and mean nothing.

use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, SigmaskHow};
use rustix::process::Signal as Number;
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::base::clock;
use crate::limit::repeat::Repeat;

/// Signals within this time after the first are the same stop.
pub const ONE_STOP: Duration = Duration::from_secs(1);

/// How often it is said that SIGHUP changes nothing.
const HANGUP_PERIOD: Duration = Duration::from_secs(60);

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// SIGTERM, SIGINT, SIGQUIT: to end in good order.
    Stop,
    /// SIGHUP: to read the settings again; or the terminal is gone.
    Reload,
}

/// Signals that would end the process and mean nothing to it (signal(7)). SIGXFSZ becomes an error of
/// the write that passes the limit. Those that tell of a fault of the program itself are not here.
const MEANINGLESS: [Number; 10] = [
    Number::USR1,
    Number::USR2,
    Number::ALARM,
    Number::VTALARM,
    Number::PROF,
    Number::IO,
    Number::XCPU,
    Number::XFSZ,
    Number::STKFLT,
    Number::POWER,
];
/// The real-time signals, with those that a C library keeps to itself.
const REAL_TIME: std::ops::RangeInclusive<i32> = 34..=64;

/// The signals that end a process, caught: one that comes before anybody waits for it is kept.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
    hangup: Signal,
    hangups: Repeat<()>,
}

impl Signals {
    /// Catches them from now on. Called while this is the only thread: meanwhile signals are held back,
    /// because of one that comes when its handler is there and not yet known to the runtime nobody
    /// would hear.
    ///
    /// # Errors
    /// If a handler cannot be installed.
    pub fn catch(runtime: &Runtime) -> std::io::Result<Self> {
        let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
        let caught = Self::install(runtime);
        before.thread_set_mask()?;
        caught
    }

    fn install(runtime: &Runtime) -> std::io::Result<Self> {
        let _context = runtime.enter();
        // What is caught once stays so, though nobody listens.
        for number in MEANINGLESS {
            let _ = signal(SignalKind::from_raw(number.as_raw()))?;
        }
        for number in REAL_TIME {
            // The C library refuses its own.
            let _ = signal(SignalKind::from_raw(number));
        }
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            hangups: Repeat::new(HANGUP_PERIOD),
            quit: signal(SignalKind::quit())?,
            interrupt: signal(SignalKind::interrupt())?,
            // The last, so that with it all are caught.
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// Waits for the next one.
    pub async fn next(&mut self) -> Wish {
        // Each arm is cancel-safe: what has come is kept.
        tokio::select! {
            _ = self.terminate.recv() => Wish::Stop,
            _ = self.interrupt.recv() => Wish::Stop,
            _ = self.quit.recv() => Wish::Stop,
            _ = self.hangup.recv() => Wish::Reload,
        }
    }

    /// Waits for one that means a stop; of others it is said that they change nothing.
    pub async fn stop(&mut self) {
        while self.next().await != Wish::Stop {
            if self.hangups.on_fault((), clock::now()).is_some() {
                tracing::info!("SIGHUP changes nothing: settings are read at the start");
            }
        }
    }

    /// Waits for one that means a stop and comes after this.
    pub async fn stop_after(&mut self, time: Instant) {
        loop {
            self.stop().await;
            if clock::now() >= time {
                return;
            }
            tracing::debug!("a signal within a second of the first is the same stop");
        }
    }
}
