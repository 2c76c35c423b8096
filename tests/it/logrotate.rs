//! The real logrotate (F39): `create`, `copytruncate`, `compress`, `delaycompress`, `olddir`, `dateext`,
//! `shred`, in all combinations that make sense, under three patterns, while the agent runs, is
//! restarted, is killed. Nothing is lost, and nothing comes twice beyond what a kill explains.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::special::skipped;
use crate::support::{Agent, Ledger, PATIENCE, Pod, append_to, each_of, pause};

/// What the agent goes through from one rotation to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Runs,
    Restarted,
    Killed,
}

/// Where old logs go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Here,
    Below,
    Beside,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Compress {
    No,
    AtOnce,
    /// With the next rotation.
    Delayed,
}

/// The directives of one log.
#[derive(Clone, Copy, Debug)]
struct Directives {
    is_copied: bool,
    compress: Compress,
    has_dates: bool,
    is_shredded: bool,
    /// How many generations stay.
    keep: usize,
}

impl Directives {
    /// Each combination that makes sense. `shred` does something only where a file is compressed, or
    /// where there is one too many.
    fn all() -> Vec<Self> {
        let mut all = Vec::new();
        for is_copied in [false, true] {
            for compress in [Compress::No, Compress::AtOnce, Compress::Delayed] {
                for has_dates in [false, true] {
                    let one = Self { is_copied, compress, has_dates, is_shredded: false, keep: 30 };
                    all.push(one);
                }
                let keep = if compress == Compress::No { 2 } else { 30 };
                let has_dates = compress == Compress::Delayed;
                all.push(Self { is_copied, compress, has_dates, is_shredded: true, keep });
            }
        }
        all
    }

    fn text(self) -> String {
        let Self { is_copied, compress, has_dates, is_shredded, keep } = self;
        let compress = match compress {
            Compress::No => "nocompress",
            Compress::AtOnce => "compress\nnodelaycompress",
            Compress::Delayed => "compress\ndelaycompress",
        };
        let method = if is_copied { "copytruncate" } else { "create 0644" };
        // So that each rotation has a name of its own.
        let dates = if has_dates { "dateext\ndateformat -%s" } else { "nodateext" };
        let shred = if is_shredded { "shred" } else { "noshred" };
        format!("rotate {keep}\n{method}\n{compress}\n{dates}\n{shred}")
    }

    fn name(self) -> String {
        self.text().replace('\n', ", ")
    }
}

/// One log and what was written to it.
struct Log {
    directives: Directives,
    /// The name of its pod's directory.
    id: String,
    path: PathBuf,
    writer: File,
    /// Lines, by their numbers.
    lines: Vec<usize>,
    /// How many of them are known to be saved as delivered.
    saved: usize,
    /// Those that may come again, because they were not when the agent was killed.
    may_repeat: HashSet<usize>,
}

/// One agent, and a log for each combination of directives, each with a directory of its own.
struct Field {
    pod: Pod,
    logs: Vec<Log>,
    place: Place,
    /// What went wrong, by the name of the log.
    failed: BTreeMap<String, String>,
    /// The second in which logrotate ran last.
    rotated: u64,
}

impl Field {
    fn new(place: Place, pattern: &str) -> Self {
        let mut pod = Pod::new();
        let mut logs = Vec::new();
        for (number, directives) in Directives::all().into_iter().enumerate() {
            let id = format!("app-{number}x");
            let dir = pod.path(&format!("data/{id}/logs"));
            fs::create_dir_all(&dir).unwrap();
            symlink(&dir, pod.path(&format!("share/{id}"))).unwrap();
            let path = dir.join("app.log");
            let writer = append_to(&path);
            let (lines, may_repeat) = (Vec::new(), HashSet::new());
            logs.push(Log { directives, id, path, writer, lines, saved: 0, may_repeat });
        }
        let patterns: Vec<String> =
            logs.iter().map(|log| format!("share/{}/{pattern}", log.id)).collect();
        pod.patterns(&patterns.iter().map(String::as_str).collect::<Vec<_>>());
        Self { pod, logs, place, failed: BTreeMap::new(), rotated: 0 }
    }

    /// Appends lines to each log that is chosen, as its app does.
    fn write(&mut self, count: usize, is_chosen: impl Fn(&Directives) -> bool) {
        for log in self.logs.iter_mut().filter(|log| is_chosen(&log.directives)) {
            let first = self.pod.ledger.lines.len();
            self.pod.ledger.write(&mut log.writer, count);
            log.lines.extend(first..first + count);
        }
    }

    /// Rotates all logs. What apps write late goes into the old files, where these are left alone.
    /// `None`, said aloud, where there is no logrotate.
    fn rotate(&mut self) -> Option<()> {
        let now = || logferry::base::clock::wall().as_secs();
        while now() == self.rotated {
            pause(Duration::from_millis(10));
        }
        // The clock by which logrotate knows the second is a little late.
        pause(Duration::from_millis(20));
        let mut text = String::new();
        for log in &self.logs {
            let olddir = match self.place {
                Place::Here => "noolddir".to_owned(),
                Place::Below => {
                    format!("olddir {}\ncreateolddir", log.path.with_file_name("old").display())
                }
                Place::Beside => "olddir ../archive\ncreateolddir".to_owned(),
            };
            let (path, directives) = (log.path.display(), log.directives.text());
            text.push_str(&format!("\"{path}\" {{\n{directives}\n{olddir}\n}}\n"));
        }
        let config = self.pod.path("logrotate.conf");
        fs::write(&config, text).unwrap();
        let mut command = Command::new("logrotate");
        command.arg("--force").arg("--state").arg(self.pod.path("logrotate.state")).arg(&config);
        match command.stdin(Stdio::null()).output() {
            Ok(output) => {
                let complaint = String::from_utf8_lossy(&output.stderr);
                assert!(output.status.success() && complaint.is_empty(), "logrotate: {complaint}");
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                skipped("logrotate is not installed");
                return None;
            }
            Err(error) => panic!("logrotate: {error}"),
        }
        self.rotated = now();
        self.write(3, |one| !one.is_copied && one.compress != Compress::AtOnce);
        for log in &mut self.logs {
            log.writer = append_to(&log.path);
        }
        Some(())
    }

    /// Waits until everything has arrived of each log that nothing went wrong with.
    fn expect_all(&mut self) {
        let started = logferry::base::clock::now();
        let mut seen = None;
        loop {
            // Comparing decodes everything.
            let count = self.pod.mock.store().line_count();
            if seen.replace(count) != Some(count) {
                let missing: HashSet<usize> =
                    self.pod.ledger.missing_numbers(&self.pod.mock).into_iter().collect();
                let is_missing = |log: &&Log| log.lines.iter().any(|line| missing.contains(line));
                let failed = &self.failed;
                if !self.logs.iter().filter(is_missing).any(|log| !failed.contains_key(&log.id)) {
                    return;
                }
            }
            if logferry::base::clock::now() - started > PATIENCE {
                return self.note_missing();
            }
            pause(Duration::from_millis(20));
        }
    }

    fn note_missing(&mut self) {
        let missing: HashSet<usize> =
            self.pod.ledger.missing_numbers(&self.pod.mock).into_iter().collect();
        for log in &self.logs {
            let lost: Vec<usize> =
                log.lines.iter().copied().filter(|line| missing.contains(line)).collect();
            if let [first, ..] = lost[..] {
                let at = log.lines.iter().position(|&line| line == first).unwrap_or_default();
                let (count, all) = (lost.len(), log.lines.len());
                let text = format!("{count} of {all} lines are missing, the first its {at}.");
                self.failed.entry(log.id.clone()).or_insert(text);
            }
        }
    }

    /// What came more often than is explained, or was never written.
    fn note_repeats(&mut self) {
        let mut count: HashMap<Vec<u8>, usize> = HashMap::new();
        let mut foreign: BTreeMap<String, usize> = BTreeMap::new();
        let written: HashSet<&[u8]> =
            self.pod.ledger.lines.iter().map(|line| line.as_bytes()).collect();
        for (path, line) in Ledger::arrivals(&self.pod.mock) {
            if written.contains(line.as_slice()) {
                *count.entry(line).or_default() += 1;
            } else {
                *foreign.entry(path).or_default() += 1;
            }
        }
        for log in &self.logs {
            let came = |&line: &usize| count.get(self.pod.ledger.lines[line].as_bytes()).copied();
            let lines = log.lines.iter().filter(|line| !log.may_repeat.contains(line));
            let repeats: usize = lines.map(|line| came(line).unwrap_or(0).saturating_sub(1)).sum();
            let within = format!("/share/{}/", log.id);
            let foreign: usize = foreign
                .iter()
                .filter(|(path, _)| path.contains(&within))
                .map(|(_, count)| count)
                .sum();
            let mut text = String::new();
            if repeats > 0 {
                let all = log.lines.len() - log.may_repeat.len();
                text.push_str(&format!(" {repeats} of {all} lines came again."));
            }
            if foreign > 0 {
                text.push_str(&format!(" {foreign} lines came that nobody wrote."));
            }
            if !text.is_empty() {
                self.failed.entry(log.id.clone()).or_default().push_str(&text);
            }
        }
    }

    /// Everything that was written so far is delivered, and that is saved.
    fn await_saved(&mut self) {
        self.expect_all();
        if self.failed.is_empty() {
            let logs: Vec<_> = self.logs.iter().map(|log| log.path.as_path()).collect();
            self.pod.await_all_saved(&logs);
            self.logs.iter_mut().for_each(|log| log.saved = log.lines.len());
        }
    }

    fn kill(&mut self, agent: Agent) {
        for log in &mut self.logs {
            log.may_repeat.extend(&log.lines[log.saved..]);
        }
        agent.kill();
    }

    fn stop(&mut self, agent: Agent) {
        let code = agent.stop().0;
        if code != 0 && self.failed.is_empty() {
            self.failed.insert("the agent".to_owned(), format!("it ended with {code}"));
        }
        self.logs.iter_mut().for_each(|log| log.saved = log.lines.len());
    }

    /// Three rotations as an agent lives through them, a restart, and what came of it. `None` where
    /// there is no logrotate.
    fn play(&mut self, life: Life) -> Option<()> {
        self.write(20, |_| true);
        let mut agent = self.pod.start();
        for is_hasty in [false, true, false] {
            if life == Life::Killed {
                self.await_saved();
            }
            // What is shredded while the agent may read it is delivered before.
            self.write(30, |one| life != Life::Runs || !is_hasty || !one.is_shredded);
            if life == Life::Runs {
                if !is_hasty {
                    self.expect_all();
                }
                self.rotate()?;
                self.write(25, |_| true);
            } else {
                if life == Life::Killed {
                    self.kill(agent)
                } else {
                    self.stop(agent)
                }
                self.write(20, |_| true);
                self.rotate()?;
                self.write(25, |_| true);
                if is_hasty {
                    // So nobody sees what was written just now under the name of the log.
                    self.rotate()?;
                    self.write(10, |_| true);
                }
                agent = self.pod.start();
            }
            self.expect_all();
        }
        self.stop(agent);
        let agent = self.pod.start();
        self.write(1, |_| true);
        self.expect_all();
        self.stop(agent);
        self.note_repeats();
        Some(())
    }
}

/// All directives in one place and under one pattern, through each life of an agent.
fn check(place: Place, pattern: &str) {
    let lives = [Life::Runs, Life::Restarted, Life::Killed];
    each_of(&lives, lives.len(), |&life| {
        let mut field = Field::new(place, pattern);
        if field.play(life).is_none() {
            return;
        }
        let all = Directives::all().len();
        let name = |id: &String| {
            let log = field.logs.iter().find(|log| log.id == *id);
            log.map_or_else(|| id.clone(), |log| log.directives.name())
        };
        let lines = field.failed.iter().map(|(id, text)| format!("  {}: {text}\n", name(id)));
        let text: String = lines.collect();
        assert!(text.is_empty(), "{place:?} {pattern}, {} of {all}:\n{text}", field.failed.len());
        field.pod.expect_sound();
    });
}

#[test]
fn f39_logrotate_in_place_under_a_pattern_of_logs() {
    check(Place::Here, "*.log");
}

#[test]
fn f39_logrotate_in_place_under_a_pattern_of_one_log_and_its_generations() {
    check(Place::Here, "app.log*");
}

#[test]
fn f39_logrotate_in_place_under_a_pattern_of_everything() {
    check(Place::Here, "**/*");
}

#[test]
fn f39_logrotate_into_a_directory_below_under_a_pattern_of_logs() {
    check(Place::Below, "*.log");
}

#[test]
fn f39_logrotate_into_a_directory_below_under_a_pattern_of_one_log_and_its_generations() {
    check(Place::Below, "app.log*");
}

#[test]
fn f39_logrotate_into_a_directory_below_under_a_pattern_of_everything() {
    check(Place::Below, "**/*");
}

#[test]
fn f39_logrotate_into_a_directory_beside_under_a_pattern_of_logs() {
    check(Place::Beside, "*.log");
}

#[test]
fn f39_logrotate_into_a_directory_beside_under_a_pattern_of_one_log_and_its_generations() {
    check(Place::Beside, "app.log*");
}

#[test]
fn f39_logrotate_into_a_directory_beside_under_a_pattern_of_everything() {
    check(Place::Beside, "**/*");
}
