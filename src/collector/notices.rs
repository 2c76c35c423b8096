//! What looks find that a person should know, each told once while it lasts.
//!
//! [`Notices`] remembers what was told, and counts what may be any number. *Absent: any decision about
//! a file.*

use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::fruitless::Fruitless;
use super::left::{self, Beyond};
use super::said::{Kind, Said};
use crate::base::report::FruitlessPattern;
use crate::tail::crowd::{Crowd, Met, Names};
use crate::tail::discover::{Patterns, Permission};
use crate::tail::found::{self, Refused};
use crate::tail::os::Os;

/// What was told, and may be told again when it was otherwise.
#[derive(Default)]
pub(super) struct Notices {
    /// Paths at which the last discovery met an error: the next error there is not news.
    troubled: Names,
    /// How many links the last discovery refused.
    links_refused: u64,
    /// Files that an earlier run shipped and this one may not, by their paths as configured.
    not_allowed: Names,
    /// The patterns that match nothing, and what was said of them.
    fruitless: Fruitless,
    /// What the last discovery has found and left for later.
    beyond: Beyond,
    /// Whether it was logged that files are polled.
    is_polling_logged: bool,
}

impl Notices {
    /// Begins a discovery. What has trouble in it is known from then on; what is not among that any
    /// more is news when it comes back.
    pub(super) fn begin(&mut self) {
        self.troubled.turn();
    }

    /// Begins the search for known files.
    pub(super) fn begin_search(&mut self) {
        self.not_allowed.turn();
    }

    /// Says that something could not be done with what is at a path.
    pub(super) fn trouble(
        &mut self,
        os: &impl Os,
        said: &mut Said,
        path: &Path,
        action: &str,
        error: &io::Error,
    ) {
        if self.troubled.meet(path) == Met::News && said.admits(Kind::Trouble) {
            let error = left::describe(os, path, error);
            tracing::warn!(file = %path.display(), error, "cannot {action} it; trying again");
        }
    }

    // === links

    /// Says of each refused link that it is, once until it has been right again.
    pub(super) fn note_refused(
        &mut self,
        said: &mut Said,
        patterns: &Patterns,
        refused: &Crowd<Refused>,
    ) {
        for one in refused.news() {
            warn_refused(said, patterns, one);
        }
        said.count(Kind::Refused, refused.unnamed_news());
        self.links_refused = refused.count();
    }

    /// Says of a file that was shipped before that it may not be any more, once.
    pub(super) fn note_left(
        &mut self,
        said: &mut Said,
        patterns: &Patterns,
        why: Permission,
        known: &Path,
        place: PathBuf,
    ) {
        // As soon as its link is there, it is looked for again.
        if matches!(why, Permission::Granted | Permission::Awaited)
            || patterns.has_refused(known)
            || self.not_allowed.meet(known) != Met::News
        {
            return;
        }
        if why == Permission::LeadsOut {
            warn_refused(said, patterns, &Refused { link: known.to_owned(), target: place });
        } else if said.admits(Kind::NotConfigured) {
            tracing::warn!(
                file = %known.display(), resolved = %place.display(),
                hint = "to have its rest shipped, let LOGFERRY_PATHS find it and LOGFERRY_EXCLUDE not",
                "a file that was shipped before is not among the patterns now; it is not read on"
            );
        }
    }

    /// Whether the last search has met a file that may not be shipped any more.
    pub(super) fn is_not_allowed(&self, path: &Path) -> bool {
        self.not_allowed.has_met(path)
    }

    /// How many links were refused, those among them that files were found by before.
    pub(super) fn links_refused(&self) -> u64 {
        self.links_refused + self.not_allowed.count() as u64
    }

    // === patterns

    /// Takes the patterns that match nothing.
    pub(super) fn note_fruitless(
        &mut self,
        os: &impl Os,
        found: Vec<found::Fruitless>,
        now: Instant,
    ) {
        self.fruitless.note(os, found, now);
    }

    /// The patterns that match nothing, for the report.
    pub(super) fn fruitless(&self) -> Vec<FruitlessPattern> {
        self.fruitless.list()
    }

    /// Says how much is left for later, when that changes; `known_max` files can be known.
    pub(super) fn note_beyond(&mut self, said: &mut Said, beyond: Beyond, known_max: usize) {
        let Beyond { files, dirs } = beyond;
        let before = std::mem::replace(&mut self.beyond, beyond);
        if before != beyond && beyond != Beyond::default() && said.admits(Kind::Left) {
            tracing::warn!(
                files,
                dirs,
                known = known_max,
                hint = "raise mem_usage_limit, or remove what is delivered",
                "more files or directories than fit in mem_usage_limit; these are left for later"
            );
        }
        if before != beyond && beyond == Beyond::default() && said.admits(Kind::Left) {
            tracing::info!("all that is found fits in mem_usage_limit again");
        }
    }

    /// What the last discovery has found and left for later.
    pub(super) fn beyond(&self) -> Beyond {
        self.beyond
    }

    // === the watch

    /// Says that files are polled, when that begins and when it ends; `why` they are, if so.
    pub(super) fn note_polling(&mut self, said: &mut Said, why: Option<&str>) {
        match why {
            Some(why) if !self.is_polling_logged => {
                self.is_polling_logged = true;
                if said.admits(Kind::Polling) {
                    tracing::warn!(reason = why, "polling files each second");
                }
            }
            None if self.is_polling_logged => {
                self.is_polling_logged = false;
                if said.admits(Kind::Polling) {
                    tracing::info!("all directories are watched again");
                }
            }
            Some(_) | None => {}
        }
    }
}

fn warn_refused(said: &mut Said, patterns: &Patterns, Refused { link, target }: &Refused) {
    if said.admits(Kind::Refused) {
        tracing::warn!(
            file = %link.display(), target = %target.display(), roots = patterns.roots(),
            hint = "if it should be followed, name its directory in LOGFERRY_LINK_ROOTS",
            "a link leads out of the allowed directories; it is not followed"
        );
    }
}

/// Says of all that matches and is no regular file what it is, once while it is.
pub(super) fn note_odd(said: &mut Said, odd: &Crowd<(PathBuf, &'static str)>) {
    for (path, kind) in odd.news() {
        if said.admits(Kind::Odd) {
            tracing::warn!(
                file = %path.display(), kind,
                "it matches the patterns and is no regular file; it is skipped"
            );
        }
    }
    said.count(Kind::Odd, odd.unnamed_news());
}
