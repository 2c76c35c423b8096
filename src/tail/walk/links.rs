//! The links that a walk meets: followed, waited on, or refused.
//!
//! A link is followed step by step before anything behind it is entered. Of what a refused link
//! leads to no more is asked than what it is; only the directory that holds the link is watched.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::{Place, Walk};
use crate::tail::found::Refused;
use crate::tail::os::{Facts, Os};
use crate::tail::own::Kept;
use crate::tail::trace::{self, End, Link, Trace};

/// A link whose name matches.
struct Met<'a> {
    place: &'a Place,
    name: &'a OsStr,
    path: PathBuf,
    /// Whether a file at the end of the link is one to take.
    is_match: bool,
    /// Parts of the pattern that are left to match in a directory at the end of the link.
    parts: Vec<usize>,
}

impl<O: Os> Walk<'_, O> {
    /// Follows the base of the pattern, which may lead through links.
    pub(super) fn base(&mut self) -> Option<Place> {
        let base = &self.pattern.base;
        let (os, trace) = (self.ground.os, trace::path(self.ground.os, base));
        if let End::Failed(error) = trace.end {
            self.watch(trace.links.into_iter().next().map(|link| link.dir));
            self.note(base, error);
            return None;
        }
        let kept = self.ground.own.keeps_dir(os, &trace.real);
        let leads_to_own = !trace.links.is_empty() && kept.is_some();
        if !leads_to_own && trace::stat(os, &trace.real).is_ok_and(|found| found.is_directory()) {
            let targets = trace.links.iter().map(|link| link.target.as_path());
            let is_mount = |dir: &Path| trace::is_mount(os, dir);
            self.roots.learn(base, &trace.real, targets, is_mount);
        }
        if leads_to_own || !self.roots.allows_base(base, &trace.real) {
            self.refuse_base(&trace);
            return None;
        }
        self.watch(trace.dirs);
        let place = Place {
            path: base.clone(),
            real: trace.real,
            is_hidden: false,
            has_own: false,
            parts: vec![0],
            above: None,
        };
        (kept != Some(Kept::Ours)).then_some(place)
    }

    /// Refuses the first link on the way that leads neither into nor towards an allowed directory.
    /// Up to there, what holds the links is watched: they may be pointed back.
    fn refuse_base(&mut self, trace: &Trace) {
        let goes_astray = |link: &Link| {
            !self.roots.allows(&link.target) && !self.roots.is_on_the_way(&link.target)
        };
        // A link to what the settings name may lead to an allowed place: it is the last one.
        let last = trace.links.len().saturating_sub(1);
        let index = trace.links.iter().position(goes_astray).unwrap_or(last);
        let Some(link) = trace.links.get(index) else { return };
        self.refuse(link.path.clone(), trace.real.clone());
        self.watch(trace.links[..=index].iter().map(|link| link.dir.clone()));
    }

    /// Follows a link that matches, or that may lead to a directory to enter.
    pub(super) fn follow(&mut self, place: &Place, name: &OsStr, dirs: &mut Vec<Place>) {
        let path = place.path.join(name);
        let mut is_match = self.is_match(place, name);
        if is_match && self.ground.exclude.has_file(&path) {
            self.scan.left_out += 1;
            is_match = false;
        }
        let mut parts = self.parts_below(place, name);
        if !parts.is_empty() && self.ground.exclude.has_tree(&path) {
            self.scan.left_out += 1;
            parts.clear();
        }
        if !is_match && parts.is_empty() {
            return;
        }
        if !self.scan.ways.contains(&place.path) {
            self.scan.ways.insert(place.path.clone());
        }
        let met = Met { place, name, path, is_match, parts };
        let mut trace = trace::name(self.ground.os, &place.real, &place.path, name);
        // This directory is watched under its own name.
        trace.dirs.remove(&place.real);
        match trace.end {
            End::There => match self.ground.os.stat(&met.path) {
                Ok(facts) => self.arrive(met, trace, &facts, dirs),
                Err(error) => self.note_link(&met, error),
            },
            End::Missing => self.await_target(met, trace),
            End::Failed(error) => self.note_link(&met, error),
        }
    }

    /// Takes what is at the end of a link.
    fn arrive(&mut self, met: Met<'_>, trace: Trace, facts: &Facts, dirs: &mut Vec<Place>) {
        if self.ground.own.is_ours(facts.id()) {
            return;
        }
        let Met { place, name, path, is_match, parts } = met;
        if is_match && !facts.is_regular() {
            self.pass_over(place, name, path.clone(), facts.kind);
        }
        let is_dir = facts.is_directory() && !parts.is_empty();
        let is_file = facts.is_regular() && is_match;
        if !is_dir && !is_file {
            return;
        }
        // What may not be followed anyway is not asked for what is above it.
        let is_literal = self.pattern.is_literal();
        let may_follow = is_literal || self.roots.allows(&trace.real);
        let kept = may_follow
            .then(|| self.ground.own.keeps_target(self.ground.os, &trace.real, facts.id()))
            .flatten();
        let kept = match kept {
            Some(Kept::Ours) => return,
            None if is_dir && self.ground.own.is_beside(facts.id()) => Some(Kept::Named),
            kept => kept,
        };
        if is_literal && kept.is_none() {
            let targets = Some(trace.real.as_path());
            let os = self.ground.os;
            let is_mount = |dir: &Path| trace::is_mount(os, dir);
            self.roots.learn(&path, &trace.real, targets, is_mount);
        }
        if kept.is_some() || !self.may_lead(&path, &trace.real) {
            return self.refuse(path, trace.real);
        }
        self.watch(trace.dirs);
        if is_dir {
            return self.plan(dirs, || place.below(name, trace.real, parts));
        }
        if let Some(dir) = trace.real.parent()
            && dir != place.real
            && (self.scan.dirs.contains_key(dir) || self.has_room_to_watch())
        {
            self.scan.ways.insert(dir.to_owned());
            self.scan.dirs.insert(dir.to_owned(), true);
        }
        self.take(place, name, path, facts, true);
    }

    /// Watches where the missing end of a link may come, if it may.
    fn await_target(&mut self, met: Met<'_>, trace: Trace) {
        if self.may_lead(&met.path, &trace.real) {
            self.watch(trace.dirs);
        } else if met.is_match {
            self.refuse(met.path, trace.real);
        }
    }

    /// Notes a link that leads nowhere for ever, unless only `**` has met it.
    fn note_link(&mut self, met: &Met<'_>, error: io::Error) {
        let asks = |&part: &usize| self.pattern.parts[part].is_match(met.name);
        let is_loop = error.raw_os_error() == Some(Errno::LOOP.raw_os_error());
        if !is_loop || met.place.parts.iter().any(asks) {
            self.note(&met.path, error);
        }
    }

    /// Whether a path may lead to `real`. The one file of a pattern without wildcards is a base
    /// too.
    fn may_lead(&self, path: &Path, real: &Path) -> bool {
        let is_base = self.pattern.is_literal();
        self.roots.allows(real) || (is_base && self.roots.allows_base(path, real))
    }

    fn refuse(&mut self, link: PathBuf, target: PathBuf) {
        let met = self.noted.refused.meet(&link);
        self.scan.refused.add(met, || Refused { link, target });
    }
}
