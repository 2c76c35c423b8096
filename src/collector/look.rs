//! What a discovery knows from the last one, and when the next one comes.
//!
//! [`Look`] owns what is wanted of discoveries, what the last one has left, and their pace. It never
//! asks the system: it is told what was found, and says what follows.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::expected::Expected;
use super::left::Unopened;
use super::news::News;
use super::notices::Notices;
use super::stamp::nanoseconds;
use super::timers::{Timer, Timers};
use crate::checkpoint::format::Checkpoint;
use crate::tail::catalog::originals::Originals;
use crate::tail::discover::Room;

/// Time between two discoveries that nothing asks for; of very many files it is longer.
const SCAN_PERIOD: Duration = Duration::from_secs(5);
/// Time between two discoveries while notifications cannot be had or trusted, or while there may be
/// none of some files.
const SCAN_PERIOD_POLLING: Duration = Duration::from_secs(1);
/// Time between two discoveries while files wait for descriptors that others give up.
const SCAN_PERIOD_SHORT: Duration = Duration::from_millis(250);
/// Longest time between two discoveries of very many files that nothing asks for.
const SCAN_PERIOD_MAX: Duration = Duration::from_secs(60);
/// Pause after a discovery, in multiples of the CPU time that it took, while nothing asks for the
/// next one. Discoveries so take a five-hundredth of the CPU.
const SCAN_PAUSE_FACTOR: u32 = 499;
/// Pause after a discovery, in multiples of the CPU time that it took, while files wait for
/// descriptors, perhaps for as long as the endpoint is down. Discoveries so take a twentieth of the
/// CPU.
const SCARCE_PAUSE_FACTOR: u32 = 19;
/// Pause after a discovery, in multiples of the CPU time that it took, while batches are
/// acknowledged, because then files may give descriptors up. Discoveries so take a fourth of the
/// CPU.
const SHORT_PAUSE_FACTOR: u32 = 3;
/// Pause after a discovery, in multiples of the CPU time that it took, if a change of names asks
/// for the next one. Discoveries so take a tenth of the CPU.
const NAMES_PAUSE_FACTOR: u32 = 9;
/// Longest pause before a discovery that a change of names asks for. An app may make and delete a
/// name every moment, and the agent still examines the files.
const NAMES_PAUSE_MAX: Duration = Duration::from_secs(1);
/// How long files without notifications are looked at each second while nothing comes of it.
const FRUITLESS_MAX: Duration = Duration::from_secs(10);
/// How long after the birth of a file others are expected.
const BIRTHS_EXPECTED: Duration = Duration::from_secs(10);
/// How long it is known which open files there are, while files are born between two discoveries.
const BIRTHS_PAUSE: Duration = Duration::from_millis(100);
/// How long a discovery works before it does what cannot wait for its end.
pub(super) const BREATH_PERIOD: Duration = Duration::from_millis(10);
/// Divisor of the files that can be known: an eighth is kept for files that are written to.
const ROOM_FOR_YOUNG: usize = 8;
/// Divisor of the files that can be known: a fourth as many directories can be known.
const FILES_PER_DIR: usize = 4;
/// Least number of directories that can be known, however few files can be.
const DIRS_LEAST: usize = 256;

/// What is known from the last discovery.
pub(super) struct Look {
    last: LastLook,
    news: News,
    wants: Wants,
    /// What was told of what discoveries find.
    pub(super) notices: Notices,
    /// Where files are expected that no pattern finds.
    pub(super) expected: Expected,
    /// Files that the last discovery found and could not open, or not yet.
    pub(super) unopened: Unopened,
    /// The open files, by what a copy has of them; made when the first copy is suspected in a discovery.
    pub(super) originals: Option<Originals>,
    /// What the last discovery knew of files that are not watched, and since when that is so.
    unwatched: (Unwatched, Instant),
    breath: Breath,
    /// Further names of the files that the last discovery found, with device and inode.
    aliases: Vec<(PathBuf, (u64, u64))>,
    /// How many files may be known.
    known_max: usize,
    started: Instant,
    /// Time from which on a file that was written to is new, in seconds of Unix time.
    young_from: i64,
    /// When a file was last born whose name the patterns find.
    born_at: Option<Instant>,
    /// When files that are born are compared with what is open by then.
    births_from: Option<Instant>,
    /// Whether the first discovery is done.
    is_ready: bool,
    /// Whether the last discovery left files for later because others were new.
    is_opening_cut: bool,
}

/// When the last discovery began.
#[derive(Clone, Copy)]
struct LastLook {
    /// The moment as time stamps of files count, in nanoseconds since 1970.
    stamp: i64,
    /// The moment by the clock that nobody sets.
    when: Instant,
}

impl LastLook {
    /// The stamp by the clock as it is set now: it may have been set back since. `stamp` is that of
    /// `now`.
    fn by_clock_of(self, stamp: i64, now: Instant) -> i64 {
        let age = nanoseconds(now.saturating_duration_since(self.when));
        self.stamp.min(stamp.saturating_sub(age))
    }
}

/// What discoveries and looks are wanted for.
#[derive(Default)]
struct Wants {
    /// Whether discovery runs with the next look.
    scan: bool,
    /// Whether discovery runs because names changed, as soon as [`Timer::NamesFrom`] lets it.
    names: bool,
    /// Whether something that has no known name was written to during a discovery.
    unknown_written: bool,
    /// Whether a file waits for the search for its original, since this discovery and the one before.
    search: (bool, bool),
}

/// Files of which no notification may tell, to notice that something came of looking at them.
#[derive(Default, PartialEq, Eq)]
pub(super) struct Unwatched {
    pub(super) unopened: usize,
    pub(super) files_opened: u64,
    pub(super) files: usize,
    /// Sizes of the files and how far they are read, all together, in bytes.
    pub(super) bytes: u128,
}

/// What a discovery does meanwhile for those who cannot wait for its end.
struct Breath {
    /// When the discovery is to do it next.
    at: Instant,
    /// CPU time that this discovery has used for others so far.
    used: Duration,
    /// Time that this discovery has taken for others so far, pauses for the CPU limit among it.
    took: Duration,
}

impl Breath {
    const fn new(at: Instant) -> Self {
        Self { at, used: Duration::ZERO, took: Duration::ZERO }
    }
}

impl Look {
    /// Begins a run at `now`, which is `unix` in seconds and `stamp` as time stamps of files count. Until
    /// the first discovery is over, the last look is that of the run before, as far as its checkpoints
    /// tell.
    pub(super) fn new(
        checkpoints: &[Checkpoint],
        known_max: usize,
        stamp: i64,
        unix: u64,
        now: Instant,
    ) -> Self {
        let before = checkpoints.iter().map(|saved| saved.looked_at);
        let before = before.filter(|looked_at| *looked_at != 0).max();
        Self {
            last: LastLook { stamp: before.unwrap_or(stamp), when: now },
            news: News::new(now),
            wants: Wants { scan: true, ..Wants::default() },
            notices: Notices::default(),
            expected: Expected::default(),
            unopened: Unopened::default(),
            originals: None,
            unwatched: (Unwatched::default(), now),
            breath: Breath::new(now),
            aliases: Vec::new(),
            known_max,
            started: now,
            young_from: i64::try_from(unix).unwrap_or(i64::MAX),
            born_at: None,
            births_from: None,
            is_ready: false,
            is_opening_cut: false,
        }
    }

    // === what is wanted

    /// Has discovery run with the next look.
    pub(super) fn want_scan(&mut self) {
        self.wants.scan = true;
    }

    /// Has discovery run with the next look, because the original of a file is searched for until then. A
    /// search that leads to nothing is not repeated at once.
    pub(super) fn want_scan_after_search(&mut self) {
        let (_, was_wanted) = self.wants.search;
        self.wants.search.0 = true;
        self.wants.scan |= !was_wanted;
    }

    /// Has discovery run with the next look, if so.
    pub(super) fn want_scan_if(&mut self, is_wanted: bool) {
        self.wants.scan |= is_wanted;
    }

    /// Has discovery run because names changed, if they did.
    pub(super) fn want_names_if(&mut self, are_changed: bool) {
        self.wants.names |= are_changed;
    }

    pub(super) fn is_scan_wanted(&self) -> bool {
        self.wants.scan
    }

    pub(super) fn are_names_changed(&self) -> bool {
        self.wants.names
    }

    /// Notes whether something that has no known name was written to during a discovery.
    pub(super) fn note_unknown_written(&mut self, is_written: bool) {
        self.wants.unknown_written |= is_written;
    }

    /// Whether something that has no known name was written to since this was asked last.
    pub(super) fn take_unknown_written(&mut self) -> bool {
        std::mem::take(&mut self.wants.unknown_written)
    }

    /// Whether a discovery runs now.
    pub(super) fn is_due(&mut self, timers: &Timers, now: Instant) -> bool {
        let Wants { scan, names, .. } = self.wants;
        if scan || names {
            self.news.want_discovery();
        }
        let is_for_names = names && !timers.holds(Timer::NamesFrom, now);
        let is_due = scan || timers.is_due(Timer::Scan, now) || is_for_names;
        is_due && !timers.holds(Timer::ScanFrom, now)
    }

    /// When the next discovery runs, as far as is known.
    pub(super) fn deadline(&self, timers: &Timers, now: Instant) -> Instant {
        let at = |held_by: &[Timer]| {
            timers.free_at(&[held_by, &[Timer::ScanFrom, Timer::TurnFrom]].concat(), now)
        };
        let wanted = self.wants.scan.then(|| at(&[]));
        let for_names = self.wants.names.then(|| at(&[Timer::NamesFrom]));
        wanted.into_iter().chain(for_names).fold(at(&[Timer::Scan]), Instant::min)
    }

    // === the course of a discovery

    /// Begins a look at events. Returns the moment after which what it finds was written.
    pub(super) fn on_look(&mut self, now: Instant) -> Instant {
        self.news.on_look(now)
    }

    /// Notes that the loop goes to sleep, and nothing has happened since the look.
    pub(super) fn on_rest(&mut self) {
        // A discovery that is due finds what had happened before.
        self.news.on_rest(!self.wants.scan);
    }

    /// Begins a discovery. Returns the moment after which what it finds was written.
    pub(super) fn begin(&mut self, is_told: bool, now: Instant) -> Instant {
        (self.wants.scan, self.wants.names) = (false, false);
        self.wants.search = (false, self.wants.search.0);
        self.news.on_discovery(is_told, now)
    }

    /// Notes when the discovery that has ended began: by time stamps of files, and by the clock. All
    /// that it found has been looked at since then. Files that wait for descriptors wait since
    /// `waiting_from`.
    pub(super) fn end(&mut self, stamp: i64, when: Instant, waiting_from: Option<Instant>) {
        self.last = LastLook { stamp, when };
        self.news.on_discovered(waiting_from);
    }

    /// When the last discovery began.
    pub(super) fn discovered(&self) -> Instant {
        self.news.discovered()
    }

    /// When the last discovery began that has ended, as time stamps of files count.
    pub(super) fn looked_at(&self) -> i64 {
        self.last.stamp
    }

    /// When the last discovery began that has ended, by the clock as it is set now. `stamp` is that of
    /// `now`.
    pub(super) fn looked_at_by(&self, stamp: i64, now: Instant) -> i64 {
        self.last.by_clock_of(stamp, now)
    }

    /// When the run began.
    pub(super) fn started(&self) -> Instant {
        self.started
    }

    /// Whether the first discovery is done.
    pub(super) fn is_ready(&self) -> bool {
        self.is_ready
    }

    /// Notes that all that was found is opened. Returns whether that was the first time.
    pub(super) fn on_opened(&mut self) -> bool {
        !std::mem::replace(&mut self.is_ready, true)
    }

    /// Leaves the other files that were found for later, because there is news.
    pub(super) fn cut_opening(&mut self) {
        (self.wants.scan, self.is_opening_cut) = (true, true);
    }

    /// Whether the last discovery left files for later because others were new.
    pub(super) fn take_opening_cut(&mut self) -> bool {
        std::mem::take(&mut self.is_opening_cut)
    }

    /// How many files may be known.
    pub(super) fn known_max(&self) -> usize {
        self.known_max
    }

    /// How much a walk may find. Files that were not written to since the agent started are left for
    /// later first.
    pub(super) fn room(&self) -> Room {
        Room {
            files: self.known_max,
            young_files: self.known_max / ROOM_FOR_YOUNG,
            young_from: self.young_from,
            dirs: (self.known_max / FILES_PER_DIR).max(DIRS_LEAST),
        }
    }

    // === breath

    /// Begins to count what the discovery does for others, which has its time from then on.
    pub(super) fn begin_breath(&mut self, now: Instant) {
        self.breath = Breath::new(now + BREATH_PERIOD);
    }

    /// Whether it is time to do what cannot wait for the end of the discovery.
    pub(super) fn is_breath_due(&self, now: Instant) -> bool {
        self.breath.at <= now
    }

    /// Notes that others were served from `began` to `ended`, with so much CPU time.
    pub(super) fn on_breath(&mut self, began: Instant, ended: Instant, used: Duration) {
        self.breath.at = ended + BREATH_PERIOD;
        self.breath.used += used;
        self.breath.took += ended - began;
    }

    /// What of the CPU time and the time of this discovery was its own.
    pub(super) fn own_share(&self, used: Duration, took: Duration) -> (Duration, Duration) {
        (used.saturating_sub(self.breath.used), took.saturating_sub(self.breath.took))
    }

    // === births

    /// Notes that a file is born whose name the patterns find.
    pub(super) fn on_birth(&mut self, now: Instant) {
        self.born_at = Some(now);
    }

    /// Whether files that are born now are compared with what is open by now, rather than with what
    /// was open a moment ago.
    pub(super) fn begins_births(&mut self, now: Instant) -> bool {
        let begins = self.births_from.is_none_or(|from| from <= now);
        if begins {
            self.births_from = Some(now + BIRTHS_PAUSE);
        }
        begins
    }

    /// Whether files have been born lately.
    pub(super) fn are_births_lately(&self, now: Instant) -> bool {
        self.born_at.is_some_and(|born_at| now < born_at + BIRTHS_EXPECTED)
    }

    // === names and known files

    /// Takes further names of the files that the discovery found.
    pub(super) fn set_aliases(&mut self, aliases: Vec<(PathBuf, (u64, u64))>) {
        self.aliases = aliases;
    }

    /// Further names of files, with device and inode.
    pub(super) fn aliases(&self) -> impl Iterator<Item = (&Path, (u64, u64))> {
        self.aliases.iter().map(|(name, inode)| (name.as_path(), *inode))
    }

    /// Whether there are no files of which no notification may tell, or nothing has come of
    /// looking at them for a while.
    pub(super) fn are_quiet(&mut self, unwatched: Unwatched, now: Instant) -> bool {
        let waits = unwatched.unopened > 0 || unwatched.files > 0;
        let is_same = self.unwatched.0 == unwatched;
        if !is_same {
            self.unwatched = (unwatched, now);
        }
        !waits || (is_same && now >= self.unwatched.1 + FRUITLESS_MAX)
    }
}

/// What a discovery has cost, and what it leads to expect.
#[derive(Clone, Copy)]
pub(super) struct Effort {
    pub(super) ended: Instant,
    /// CPU time that it has used, and time that it took.
    pub(super) own: (Duration, Duration),
    /// How many cores the agent may use.
    pub(super) cores: f64,
    /// Whether no file was opened. To open files is no part of looking for them.
    pub(super) is_plain: bool,
    /// Whether files wait for descriptors.
    pub(super) is_short: bool,
    /// Whether notifications tell of all that may happen.
    pub(super) is_told: bool,
}

impl Effort {
    /// Sets the timers of the next discovery. Of many files one takes long, and hardly ever finds what no
    /// notification told.
    pub(super) fn set_pace(&self, timers: &mut Timers) {
        let Self { ended, own: (used, took), is_plain, is_short, .. } = *self;
        // Even if it was wanted again at once it would take half the time, and half of the CPU limit.
        let fair = used.div_f64(self.cores) * 2;
        // (Who was frozen meanwhile has not worked that long.)
        let took = took.clamp(fair.min(SCAN_PERIOD), SCAN_PERIOD_MAX);
        timers.set(Timer::ScanFrom, ended + took);
        let pause = (used * NAMES_PAUSE_FACTOR).min(NAMES_PAUSE_MAX);
        timers.set(Timer::NamesFrom, ended + pause);
        let pause = SCAN_PERIOD_SHORT.max(used * SHORT_PAUSE_FACTOR);
        timers.set(Timer::ShortFrom, ended + pause);
        let period = if is_plain { used * SCAN_PAUSE_FACTOR } else { SCAN_PERIOD };
        let period = match () {
            // Some were opened, and others will be when these are delivered.
            () if is_short && !is_plain => SCAN_PERIOD_SHORT,
            () if is_short => SCAN_PERIOD_SHORT.max(used * SCARCE_PAUSE_FACTOR),
            () if self.is_told => period.clamp(SCAN_PERIOD, SCAN_PERIOD_MAX),
            () => SCAN_PERIOD_POLLING,
        };
        timers.set(Timer::Scan, ended + period);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(now: Instant) -> Look {
        Look::new(&[], 16, 0, 0, now)
    }

    #[test]
    fn the_last_look_is_that_of_the_run_before() {
        let now = crate::base::clock::now();
        let saved = |looked_at| Checkpoint { looked_at, ..Checkpoint::default() };

        assert_eq!(Look::new(&[saved(3), saved(7), saved(0)], 16, 9, 0, now).looked_at(), 7);
        assert_eq!(Look::new(&[saved(0)], 16, 9, 0, now).looked_at(), 9, "it says nothing");
    }

    #[test]
    fn a_clock_that_was_set_back_sets_the_last_look_back() {
        let now = crate::base::clock::now();
        let mut look = look(now);
        look.end(1_000_000_000, now, None);
        let later = now + Duration::from_nanos(100);

        assert_eq!(look.looked_at_by(1_000_000_100, later), 1_000_000_000);
        assert_eq!(look.looked_at_by(5_000_000_000, later), 1_000_000_000, "set forward");
        assert_eq!(look.looked_at_by(500_000_100, later), 500_000_000);
    }

    #[test]
    fn a_discovery_is_due_when_it_is_wanted_and_nothing_holds_it_back() {
        let now = crate::base::clock::now();
        let at = |seconds| now + Duration::from_secs(seconds);
        let (mut look, mut timers) = (look(now), Timers::default());
        assert!(look.is_due(&timers, now), "the first one");
        look.begin(true, now);
        timers.set(Timer::Scan, at(5));
        assert!(!look.is_due(&timers, now));
        assert_eq!(look.deadline(&timers, now), at(5));

        look.want_names_if(true);
        timers.set(Timer::NamesFrom, at(2));
        assert!(!look.is_due(&timers, now) && look.is_due(&timers, at(2)));
        assert_eq!(look.deadline(&timers, now), at(2));

        look.want_scan();
        timers.set(Timer::ScanFrom, at(1));
        assert!(!look.is_due(&timers, now) && look.is_due(&timers, at(1)));
        assert_eq!(look.deadline(&timers, now), at(1));
    }

    #[test]
    fn a_search_that_leads_to_nothing_is_not_repeated_at_once() {
        let now = crate::base::clock::now();
        let mut look = look(now);
        let wants = |is_waiting: bool| {
            look.begin(true, now);
            if is_waiting {
                look.want_scan_after_search();
            }
            look.is_scan_wanted()
        };

        let wanted = [true, true, true, false, true].map(wants);

        assert_eq!(wanted, [true, false, false, false, true]);
    }

    #[test]
    fn files_that_nobody_tells_of_are_quiet_after_a_while_without_change() {
        let now = crate::base::clock::now();
        let mut look = look(now);
        let unwatched = |bytes| Unwatched { files: 1, bytes, ..Unwatched::default() };
        assert!(look.are_quiet(Unwatched::default(), now), "there are none");

        assert!(!look.are_quiet(unwatched(1), now));
        assert!(!look.are_quiet(unwatched(1), now + FRUITLESS_MAX / 2));
        assert!(look.are_quiet(unwatched(1), now + FRUITLESS_MAX));
        assert!(!look.are_quiet(unwatched(2), now + FRUITLESS_MAX), "one has grown");
    }

    #[test]
    fn the_next_discovery_comes_as_its_cost_and_what_waits_allow() {
        let ended = crate::base::clock::now();
        let effort = Effort {
            ended,
            own: (Duration::from_millis(1), Duration::from_millis(2)),
            cores: 1.0,
            is_plain: true,
            is_short: false,
            is_told: true,
        };
        let scan = |effort: Effort| {
            let mut timers = Timers::default();
            effort.set_pace(&mut timers);
            timers.get(Timer::Scan).unwrap() - ended
        };
        let slow = (Duration::from_millis(20), Duration::from_millis(20));

        assert_eq!(scan(Effort { own: slow, ..effort }), slow.0 * SCAN_PAUSE_FACTOR);
        assert_eq!(scan(Effort { own: slow, is_plain: false, ..effort }), SCAN_PERIOD);
        assert_eq!(scan(Effort { is_told: false, ..effort }), SCAN_PERIOD_POLLING);
        assert_eq!(scan(Effort { is_short: true, ..effort }), SCAN_PERIOD_SHORT);
        let scarce = Effort { own: slow, is_short: true, ..effort };
        assert_eq!(scan(scarce), slow.0 * SCARCE_PAUSE_FACTOR);
        assert_eq!(scan(effort), SCAN_PERIOD);
    }
}
