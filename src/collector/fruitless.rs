//! Patterns that match no file: said once when it begins, once more if it lasts, and when it ends.
//!
//! A pod whose app starts later is ordinary, so the first word is no warning. Pure but for the names in
//! a directory, which are looked up only for a message.

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::base::report::FruitlessPattern;
use crate::tail::discover::names_in;
use crate::tail::found;
use crate::tail::os::Os;

/// How long a pattern may match nothing before the agent warns: by then an app has its logs.
const PATIENCE: Duration = Duration::from_secs(60);
/// Most changes of one pattern that are told as they come: an app may come and go.
const TOLD_MAX: u32 = 5;
/// How long the agent waits between two words on a pattern of which it has told [`TOLD_MAX`] times.
const TOLD_PAUSE: Duration = Duration::from_secs(600);
/// Most names of a directory that a message has.
const NAMES_MAX: usize = 5;
/// Most characters of a name in a message; a longer one is cut.
const NAME_CHARS_MAX: usize = 60;

/// What was said of patterns that match nothing.
#[derive(Debug, Default)]
pub(super) struct Fruitless {
    known: Vec<Known>,
    told: HashMap<String, Told>,
}

/// What the log has of a pattern.
#[derive(Debug, Default)]
struct Told {
    times: u32,
    last: Option<Instant>,
    /// Changes that were not told since the last one that was.
    untold: u32,
    /// Whether the pattern has found files in this run: an app has been there.
    is_proven: bool,
}

impl Told {
    /// Whether a change is told now, and how many before it were not told.
    fn may_tell(&mut self, now: Instant) -> Option<u32> {
        let is_late = |last| now.saturating_duration_since(last) >= TOLD_PAUSE;
        if self.times >= TOLD_MAX && !self.last.is_none_or(is_late) {
            self.untold += 1;
            return None;
        }
        self.times += 1;
        self.last = Some(now);
        Some(std::mem::take(&mut self.untold))
    }
}

#[derive(Debug)]
struct Known {
    found: found::Fruitless,
    report: FruitlessPattern,
    since: Instant,
    is_warned: bool,
}

impl Fruitless {
    /// Takes what a discovery says, and logs what is news.
    pub(super) fn note(&mut self, os: &impl Os, found: Vec<found::Fruitless>, now: Instant) {
        let mut before = std::mem::take(&mut self.known);
        for found in found {
            let at = before.iter().position(|known| known.found.pattern == found.pattern);
            let known = at.map(|at| before.swap_remove(at));
            let known = match known {
                Some(known) if known.found == found => known,
                known => self.begin(os, found, known, now),
            };
            self.known.push(known);
        }
        for known in before {
            let pattern = known.found.pattern;
            let told = self.told.entry(pattern.clone()).or_default();
            told.is_proven = true;
            if let Some(untold) = told.may_tell(now) {
                tracing::info!(pattern, untold, "a pattern matches files now");
            }
        }
        for known in self.known.iter_mut().filter(|known| !known.is_warned) {
            if now.saturating_duration_since(known.since) >= PATIENCE {
                known.is_warned = true;
                let FruitlessPattern { pattern, reason, nearest, holds } = &known.report;
                tracing::warn!(pattern, reason, nearest, holds, "still no file matches a pattern");
            }
        }
    }

    /// Notes that a pattern matches nothing from now on, or for another reason than `before`.
    fn begin(
        &mut self,
        os: &impl Os,
        found: found::Fruitless,
        before: Option<Known>,
        now: Instant,
    ) -> Known {
        let report = describe(os, &found);
        let FruitlessPattern { pattern, reason, nearest, holds } = &report;
        let told = self.told.entry(pattern.clone()).or_default();
        if let Some(untold) = told.may_tell(now) {
            tracing::info!(pattern, reason, nearest, holds, untold, "no file matches a pattern");
        }
        let (since, is_warned) =
            before.map_or((now, told.is_proven), |before| (before.since, before.is_warned));
        Known { found, report, since, is_warned }
    }

    /// The patterns that match nothing, for the report.
    pub(super) fn list(&self) -> Vec<FruitlessPattern> {
        self.known.iter().map(|known| known.report.clone()).collect()
    }
}

/// Puts into words why a pattern matches nothing.
#[must_use]
pub fn describe(os: &impl Os, found: &found::Fruitless) -> FruitlessPattern {
    let found::Fruitless { pattern, base, real, nearest, is_left_out, may_be_listed } = found;
    let leads =
        if base == real { String::new() } else { format!(" (it leads to {})", real.display()) };
    let reason = if nearest != real {
        format!("{}{leads} is not there yet, or is not mounted here", base.display())
    } else if *is_left_out {
        "exclude leaves out what would match".to_owned()
    } else {
        format!("nothing in {}{leads} has such a name", base.display())
    };
    FruitlessPattern {
        pattern: pattern.clone(),
        reason,
        nearest: nearest.display().to_string(),
        holds: if *may_be_listed { holds(os, nearest) } else { String::new() },
    }
}

fn holds(os: &impl Os, dir: &Path) -> String {
    let (names, more) = names_in(os, dir, NAMES_MAX);
    let cut = |name: &String| name.chars().take(NAME_CHARS_MAX).collect::<String>();
    let names: Vec<String> = names.iter().map(cut).collect();
    match (names.is_empty(), more) {
        (true, _) => "nothing".to_owned(),
        (false, 0) => names.join(", "),
        (false, more) => format!("{} and {more} more", names.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::tail::os::kernel::Kernel;

    fn found(nearest: &str) -> found::Fruitless {
        found::Fruitless {
            pattern: "/nowhere/logs/*.log".to_owned(),
            base: PathBuf::from("/nowhere/logs"),
            real: PathBuf::from("/nowhere/logs"),
            nearest: PathBuf::from(nearest),
            is_left_out: false,
            may_be_listed: false,
        }
    }

    #[test]
    fn is_warned_of_once_if_it_lasts_and_no_app_was_ever_there() {
        let now = crate::base::clock::now();
        let mut fruitless = Fruitless::default();
        let mut is_warned = |at: Duration, found: Vec<found::Fruitless>| {
            fruitless.note(&Kernel, found, now + at);
            fruitless.known.first().map(|known| known.is_warned)
        };

        assert_eq!(is_warned(Duration::ZERO, vec![found("/")]), Some(false));
        // Another directory is there by now: it is told, and the time goes on.
        assert_eq!(is_warned(PATIENCE / 2, vec![found("/nowhere")]), Some(false));
        assert_eq!(is_warned(PATIENCE, vec![found("/nowhere")]), Some(true));
        assert_eq!(is_warned(PATIENCE, Vec::new()), None);
        // The app has been there, and its logs have gone.
        assert_eq!(is_warned(PATIENCE, vec![found("/nowhere")]), Some(true), "nothing to warn of");
    }

    #[test]
    fn an_app_that_comes_and_goes_is_told_of_some_times_and_then_seldom() {
        let now = crate::base::clock::now();
        let mut fruitless = Fruitless::default();
        for _ in 0..1000 {
            fruitless.note(&Kernel, vec![found("/")], now);
            fruitless.note(&Kernel, Vec::new(), now);
        }
        let told = |fruitless: &Fruitless| {
            let told = &fruitless.told["/nowhere/logs/*.log"];
            (told.times, told.untold)
        };
        assert_eq!(told(&fruitless), (TOLD_MAX, 2000 - TOLD_MAX));

        fruitless.note(&Kernel, vec![found("/")], now + TOLD_PAUSE);
        assert_eq!(told(&fruitless), (TOLD_MAX + 1, 0), "with how many were not told");
    }

    #[test]
    fn tells_how_far_the_way_goes() {
        let text = |found: found::Fruitless| describe(&Kernel, &found).to_string();
        assert_eq!(
            text(found("/nowhere")),
            "no file matches /nowhere/logs/*.log: /nowhere/logs is not there yet, or is not mounted \
             here; the nearest directory is /nowhere"
        );
        let linked = found::Fruitless { real: PathBuf::from("/data/x"), ..found("/data") };
        assert!(text(linked).contains("/nowhere/logs (it leads to /data/x) is not there"));
        let left_out = found::Fruitless { is_left_out: true, ..found("/nowhere/logs") };
        assert!(text(left_out).contains("exclude leaves out what would match"));
        assert!(text(found("/nowhere/logs")).contains("nothing in /nowhere/logs has such a name"));
    }
}
