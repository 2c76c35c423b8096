//! A seed from its first action to its last check: the app, the agent's life, an honest neighbour
//! whose lines must arrive, and the look for secrets.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use logferry::checkpoint::store;
use memchr::memmem;

use super::agent::{Agent, Launch, holds_within, pause, wait_for};
use super::app::{App, Way};
use super::ground::{Ground, Roots, Setting};
use super::secrets::MARKER;
use super::{gambits, pick};

/// How every checkpoint file begins.
const CHECKPOINT: &[u8] = b"LFCKPT";
/// So long what the app has laid out may take to be shipped; it may have hidden it from itself.
const BAIT_PATIENCE: Duration = Duration::from_secs(2);

/// What happened, over all seeds: a run in which nothing happens proves nothing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) counts: BTreeMap<&'static str, usize>,
}

impl Tally {
    pub(crate) fn add(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    pub(crate) fn absorb(&mut self, other: &Self) {
        for (what, count) in &other.counts {
            *self.counts.entry(what).or_default() += count;
        }
    }
}

/// How a seed ended.
pub(crate) struct Tale {
    /// The actions, in words.
    pub(crate) trace: Vec<String>,
    pub(crate) tally: Tally,
    pub(crate) outcome: Result<(), String>,
}

/// How the agent's life is interrupted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pause {
    /// It is not.
    None,
    Stopped,
    Killed,
    Frozen,
}

/// Everything that a seed plays with.
pub(crate) struct World {
    pub(crate) ground: Ground,
    pub(crate) rng: fastrand::Rng,
    pub(crate) app: App,
    launch: Launch,
    agent: Option<Agent>,
    is_frozen: bool,
    /// The base of the patterns was there and led to the app's directory when this agent saw it
    /// first: what it may trust is settled.
    is_base_met: bool,
    /// It led elsewhere then. This agent need not trust it any more.
    is_base_lost: bool,
    /// Lines of the honest app.
    honest: Vec<String>,
    groups_seen: usize,
    trace: Vec<String>,
    pub(crate) tally: Tally,
    is_printed: bool,
}

/// Plays a seed. The directories of a seed that failed are kept, and named in the outcome.
pub(crate) fn run(seed: u64, launch: Launch, is_printed: bool) -> Tale {
    let mut rng = fastrand::Rng::with_seed(seed);
    let setting = Setting::draw(seed, &mut rng);
    tell(World::new(setting, launch, rng, is_printed), World::play)
}

/// Plays a scene: what a test says, and the end that every seed has.
pub(crate) fn scene(
    setting: Setting,
    launch: Launch,
    play: impl FnOnce(&mut World) -> Result<(), String>,
) {
    let world = World::new(setting, launch, fastrand::Rng::with_seed(0), false);
    let tale = tell(world, |world| {
        play(world)?;
        world.end()
    });
    if let Err(what) = tale.outcome {
        panic!("{what}\n      {}", tale.trace.join("\n      "));
    }
}

fn tell(mut world: World, play: impl FnOnce(&mut World) -> Result<(), String>) -> Tale {
    let outcome = catch_unwind(AssertUnwindSafe(|| play(&mut world))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        Err(text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic").to_owned())
    });
    let World { trace, tally, ground, agent, .. } = world;
    drop(agent);
    let outcome = outcome.map_err(|what| {
        let log = ground.setting.agent;
        format!("{what}\n    kept: {}, with the agent's log in {log}/log", ground.keep())
    });
    Tale { trace, tally, outcome }
}

impl World {
    fn new(setting: Setting, launch: Launch, rng: fastrand::Rng, is_printed: bool) -> Self {
        let said = format!("{setting:?}");
        let ground = Ground::new(setting);
        let app = App::new(&ground.root);
        let mut world = Self {
            ground,
            rng,
            app,
            launch,
            agent: None,
            is_frozen: false,
            is_base_met: false,
            is_base_lost: false,
            honest: Vec::new(),
            groups_seen: 0,
            trace: Vec::new(),
            tally: Tally::default(),
            is_printed,
        };
        world.say(said);
        world
    }

    /// Tells of an action.
    pub(crate) fn say(&mut self, what: String) {
        let what = self.ground.shorten(&what);
        if self.is_printed {
            println!("{:3} {what}", self.trace.len());
        }
        self.trace.push(what);
    }

    fn play(&mut self) -> Result<(), String> {
        self.write_honestly();
        for _ in 0..self.rng.usize(4..=9) {
            gambits::act(self)?;
            if self.rng.u8(..3) == 0 {
                self.write_honestly();
            }
            // Only how far the agent has come by the next action depends on this.
            pause(Duration::from_millis(pick(&mut self.rng, &[0, 0, 2, 10, 40])));
            self.look()?;
        }
        self.end()
    }

    /// The app makes its link and directory as they were; then what is honest must arrive, and
    /// nothing else that matters.
    fn end(&mut self) -> Result<(), String> {
        self.thaw();
        let pause = pick(&mut self.rng, &[Pause::Stopped, Pause::Killed]);
        self.interrupt(pause)?;
        self.look()?;
        self.put_base_back();
        self.start()?;
        self.write_honestly();
        if self.ground.setting.finds_all_logs() {
            let number = self.app.next();
            let line = format!("the app is honest at last {number}");
            let path = self.app.logs.join(format!("last{number}.log"));
            assert!(self.app.write(&path, format!("{line}\n").as_bytes()), "{path:?}");
            self.honest.push(line);
        }
        self.await_honest()?;
        self.interrupt(Pause::Stopped)?;
        self.look()
    }

    // The honest neighbour.

    pub(crate) fn write_honestly(&mut self) {
        let line = format!("honest {}.", self.honest.len());
        let path = self.ground.path("fair/app.log");
        let file = OpenOptions::new().create(true).append(true).open(path);
        let written = file.and_then(|mut file| writeln!(file, "{line}"));
        written.expect("the honest app writes");
        self.honest.push(line);
        self.tally.add("honest lines");
    }

    pub(crate) fn await_honest(&self) -> Result<(), String> {
        let mut missing = self.honest.clone();
        let store = self.ground.mock.store();
        let mut at = 0;
        wait_for("the honest lines arrive", || {
            let groups = store.groups();
            for group in &groups[at..] {
                missing.retain(|line| memmem::find(group.raw(), line.as_bytes()).is_none());
            }
            at = groups.len();
            missing.is_empty()
        })
        .map_err(|error| format!("{error}: {missing:?}"))
    }

    pub(crate) fn has_arrived(&self, text: &str) -> bool {
        let groups = self.ground.mock.store().groups();
        groups.iter().any(|group| memmem::find(group.raw(), text.as_bytes()).is_some())
    }

    // The look for secrets.

    /// Looks at all that has arrived since the last look, and at the agent's own log.
    pub(crate) fn look(&mut self) -> Result<(), String> {
        let groups = self.ground.mock.store().groups();
        for group in &groups[self.groups_seen..] {
            let raw = group.raw();
            let found =
                [MARKER.as_bytes(), CHECKPOINT].iter().find_map(|what| memmem::find(raw, what));
            if let Some(at) = found {
                let shown = raw[at..raw.len().min(at + 60)].escape_ascii().to_string();
                let path = group.tag("__path__").unwrap_or_default();
                let path = self.ground.shorten(&path);
                return Err(format!("a leak: \"{shown}\", shipped as {path}"));
            }
        }
        self.groups_seen = groups.len();
        let log = fs::read(self.ground.log()).expect("the agent's log");
        let told = log.iter().position(|byte| *byte == b'\n').map_or(&log[..], |end| &log[end..]);
        for (what, name) in [(MARKER, "a secret"), ("panicked", "a panic")] {
            if let Some(at) = memmem::find(told, what.as_bytes()) {
                let shown = told[at..told.len().min(at + 60)].escape_ascii().to_string();
                return Err(format!("{name} in the agent's log: {shown}"));
            }
        }
        Ok(())
    }

    // The agent's life.

    pub(crate) fn is_running(&self) -> bool {
        self.agent.is_some()
    }

    pub(crate) fn agent_id(&self) -> Option<u32> {
        self.agent.as_ref().map(Agent::id)
    }

    /// Starts an agent if none runs. What it would trust at first sight is the app's own directory.
    pub(crate) fn start(&mut self) -> Result<(), String> {
        if self.agent.is_some() {
            return Ok(());
        }
        if self.ground.setting.roots == Roots::Learnt {
            self.put_base_back();
        }
        self.start_as_it_is();
        Ok(())
    }

    /// Starts an agent, wherever the base leads.
    pub(crate) fn start_as_it_is(&mut self) {
        let place = self.app.link.canonicalize().ok();
        self.is_base_lost = place.as_ref() != Some(&self.app.logs);
        self.say("start".to_owned());
        self.tally.add("starts");
        let (env, log) = (self.ground.environment(), self.ground.log());
        self.agent = Some(Agent::start((self.launch)(), env, &log));
        self.is_base_met = false;
    }

    pub(crate) fn interrupt(&mut self, pause: Pause) -> Result<(), String> {
        if pause == Pause::None {
            return Ok(());
        }
        let Some(mut agent) = self.agent.take() else { return Ok(()) };
        self.say(format!("{pause:?}"));
        if !agent.is_alive() {
            let ended = agent.stop();
            // It does not start while the base leads into its state directory.
            let has_refused = self.is_base_lost && ended == Ok(78);
            self.say("it has refused to start".to_owned());
            return if has_refused {
                Ok(())
            } else {
                Err(format!("the agent has ended by itself: {ended:?}"))
            };
        }
        match pause {
            Pause::None => unreachable!("it is none"),
            Pause::Frozen => {
                self.tally.add("freezes");
                agent.freeze();
                self.is_frozen = true;
                self.agent = Some(agent);
            }
            Pause::Killed => {
                self.tally.add("kills");
                agent.kill();
                self.is_frozen = false;
            }
            Pause::Stopped => {
                if std::mem::take(&mut self.is_frozen) {
                    agent.thaw();
                }
                self.tally.add("stops");
                let code = agent.stop()?;
                if code != 0 && code != 75 {
                    return Err(format!("the agent ended with {code}"));
                }
            }
        }
        Ok(())
    }

    /// Ends an interruption.
    pub(crate) fn resume(&mut self) -> Result<(), String> {
        self.thaw();
        self.start()
    }

    pub(crate) fn thaw(&mut self) {
        if let Some(agent) = self.agent.as_ref().filter(|_| self.is_frozen) {
            agent.thaw();
            self.is_frozen = false;
            self.say("thaw".to_owned());
        }
    }

    /// Waits until a file of the app's is delivered so far, as the state directory tells. Says
    /// whether that was to be seen.
    pub(crate) fn await_delivered(&self, path: &Path, bytes: u64) -> bool {
        use std::os::unix::fs::MetadataExt as _;
        let Ok(found) = fs::metadata(path) else { return false };
        let (device, inode) = (found.dev(), found.ino());
        let state = self.ground.agent("state");
        holds_within(BAIT_PATIENCE, || {
            let saved = store::peek(&state).checkpoints;
            saved
                .iter()
                .any(|one| (one.device, one.inode) == (device, inode) && one.offset >= bytes)
        })
    }

    // The base of the patterns.

    /// Whether the app may do as it likes with what the base leads through. Without `link_roots`
    /// the first sight of it is trusted: after that only.
    pub(crate) fn may_move_base(&mut self) -> Result<bool, String> {
        if self.ground.setting.roots != Roots::Learnt {
            return Ok(true);
        }
        if self.agent.is_none() || self.is_frozen || self.is_base_lost {
            return Ok(false);
        }
        if !self.is_base_met {
            let number = self.app.next();
            let line = format!("the base is met {number}.");
            let path = self.app.logs.join(format!("met{number}.log"));
            self.app.write(&path, format!("{line}\n").as_bytes());
            wait_for("the base to be met", || self.has_arrived(&line))?;
            self.is_base_met = true;
        }
        Ok(true)
    }

    /// Whether this is a name that the base leads through.
    pub(crate) fn is_base(&self, path: &Path) -> bool {
        let real = path.parent().and_then(|dir| dir.canonicalize().ok());
        let real = real.map(|dir| dir.join(path.file_name().unwrap_or_default()));
        real.is_some_and(|real| real == self.app.logs || real == self.app.link)
    }

    /// Makes the link and the directory as they were at the beginning.
    pub(crate) fn put_base_back(&mut self) {
        let (logs, link) = (self.app.logs.clone(), self.app.link.clone());
        if !logs.symlink_metadata().is_ok_and(|found| found.is_dir()) {
            self.app.remove(&logs);
            fs::create_dir(&logs).expect("the log directory");
            self.say("put the log directory back".to_owned());
        }
        if fs::read_link(&link).ok() != Some(logs.clone()) {
            self.app.remove(&link);
            assert!(self.app.link(&logs, &link, Way::Absolute), "the link to the log directory");
            self.say("put the link back".to_owned());
        }
    }

    /// Makes the base lead to the app's directory, with an agent that may follow it there.
    pub(crate) fn find_base_again(&mut self) -> Result<(), String> {
        self.put_base_back();
        if self.is_base_lost { self.interrupt(Pause::Stopped) } else { Ok(()) }
    }

    /// A secret, and the directory that holds it: they match by `below`.
    pub(crate) fn some_secret(&mut self) -> (PathBuf, PathBuf) {
        let vault = &self.ground.vaults[self.rng.usize(..self.ground.vaults.len())];
        let (name, below) = (
            pick(&mut self.rng, &super::secrets::NAMES),
            pick(&mut self.rng, &super::secrets::BELOW),
        );
        let is_data = vault.is_mounted && self.rng.bool();
        let dir = if is_data { vault.dir.join("..data") } else { vault.dir.clone() };
        (dir, Path::new(below).join(name))
    }
}
