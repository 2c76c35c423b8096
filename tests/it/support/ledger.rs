//! What the app wrote: the one source of expectations.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use logferry_mock::{self as mock, Background};

use super::append_to;

/// Every line that was written, and into which file.
#[derive(Default)]
pub(crate) struct Ledger {
    /// In the order of writing. The same line may have been written more than once.
    pub(crate) lines: Vec<String>,
    /// The lines of each generation of a file, by index: a file begins one when it is made and when
    /// it has been emptied.
    generations: Vec<Vec<usize>>,
    /// The newest generation by device and inode.
    current: HashMap<(u64, u64), usize>,
    /// Device and inode of the file that was written to last.
    pub(crate) last: Option<(u64, u64)>,
    tally: Mutex<Tally>,
}

impl Ledger {
    /// Appends numbered lines to a file, unique over the whole pod, and remembers them.
    pub(crate) fn write(&mut self, file: &mut File, count: usize) {
        self.write_made(file, count, numbered_line);
    }

    /// The same to a path, which is made if it is missing.
    pub(crate) fn append(&mut self, path: &Path, count: usize) {
        self.write(&mut append_to(path), count);
    }

    /// The same with lines of [`FIXED`] bytes, so that their number says how long the file is.
    pub(crate) fn write_fixed(&mut self, file: &mut File, count: usize) {
        self.write_made(file, count, |number| format!("line {number:0width$}", width = FIXED - 6));
    }

    /// The same with lines of 1 KiB each: many bytes in few lines.
    pub(crate) fn write_kib(&mut self, file: &mut File, count: usize) {
        self.write_made(file, count, |number| format!("line {number:0>1018}"));
    }

    /// Writes lines again that were written before, by their numbers: they are to arrive again.
    pub(crate) fn write_again(&mut self, file: &mut File, numbers: std::ops::Range<usize>) {
        let lines = self.lines[numbers].to_vec();
        self.write_lines(file, lines);
    }

    /// The text of numbered lines that are about to be written to this file in another form.
    pub(crate) fn compose(&mut self, file: &File, count: usize) -> String {
        let first = self.lines.len();
        self.note(file, (first..first + count).map(numbered_line).collect())
    }

    fn write_made(&mut self, file: &mut File, count: usize, make: impl Fn(usize) -> String) {
        let first = self.lines.len();
        self.write_lines(file, (first..first + count).map(make).collect());
    }

    /// Appends these lines to a file, and remembers them.
    pub(crate) fn write_lines(&mut self, file: &mut File, lines: Vec<String>) {
        let text = self.note(file, lines);
        file.write_all(text.as_bytes()).expect("the app can write");
    }

    /// The text of lines that are about to be written to this file in another form.
    pub(crate) fn note(&mut self, file: &File, lines: Vec<String>) -> String {
        let metadata = file.metadata().expect("the log can be examined");
        let generation = self.generation(&metadata);
        let mut text = String::new();
        for line in lines {
            text.push_str(&line);
            text.push('\n');
            self.generations[generation].push(self.lines.len());
            self.lines.push(line);
        }
        text
    }

    fn generation(&mut self, metadata: &std::fs::Metadata) -> usize {
        let inode = (metadata.dev(), metadata.ino());
        self.last = Some(inode);
        match self.current.get(&inode) {
            Some(&generation) if metadata.len() > 0 => generation,
            _ => {
                self.generations.push(Vec::new());
                self.current.insert(inode, self.generations.len() - 1);
                self.generations.len() - 1
            }
        }
    }

    /// Notes that lines, by their numbers, are in this file too: a copy of another one that is to
    /// be shipped by itself.
    pub(crate) fn note_copy(&mut self, numbers: std::ops::Range<usize>, copy: &Path) {
        let metadata = std::fs::metadata(copy).expect("the copy can be examined");
        self.current.remove(&(metadata.dev(), metadata.ino()));
        let generation = self.generation(&metadata);
        let lines = self.lines[numbers].to_vec();
        for line in lines {
            self.generations[generation].push(self.lines.len());
            self.lines.push(line);
        }
    }

    /// Bytes that all lines take in their files.
    pub(crate) fn bytes(&self) -> u64 {
        self.lines.iter().map(|line| line.len() as u64 + 1).sum()
    }

    /// Lines that have not arrived, or not as often as they were written.
    pub(crate) fn missing(&self, mock: &Background) -> Vec<&str> {
        let missing = self.tally(mock).missing();
        missing.into_iter().map(|number| self.lines[number].as_str()).collect()
    }

    /// The same by their numbers, of lines that were written once.
    pub(crate) fn missing_numbers(&self, mock: &Background) -> Vec<usize> {
        self.tally(mock).missing()
    }

    /// Checks that nothing arrived that was never written; returns the number of repeats.
    pub(crate) fn check(&self, mock: &Background) -> usize {
        let foreign = self.foreign(mock);
        let first = foreign.first().map(|line| String::from_utf8_lossy(line).into_owned());
        assert_eq!(first, None, "arrived but never written, and {} in all", foreign.len());
        self.tally(mock).repeats()
    }

    /// All lines that arrived, each with the path that it came under.
    pub(crate) fn arrivals(mock: &Background) -> Vec<(String, Vec<u8>)> {
        let groups = mock.store().groups();
        let lines = groups.iter().flat_map(|group| {
            let path = group.tag("__path__").unwrap_or_default();
            group.logs().into_iter().map(move |entry| (path.clone(), entry.line()))
        });
        lines.collect()
    }

    /// What arrived and was never written.
    pub(crate) fn foreign(&self, mock: &Background) -> Vec<Vec<u8>> {
        self.tally(mock).foreign()
    }

    /// The tally as it is now.
    fn tally(&self, mock: &Background) -> MutexGuard<'_, Tally> {
        let mut tally = self.tally.lock().expect("nobody panics with it");
        tally.write(&self.lines);
        tally.take(&mock.store());
        tally
    }

    /// Checks the order within each file: the groups of one stream, in the order of their
    /// `__pack_id__`, hold lines of one generation in the order in which they were written.
    pub(crate) fn check_order(&self, mock: &Background) {
        let mut of_line: HashMap<&[u8], Vec<usize>> = HashMap::new();
        for (generation, lines) in self.generations.iter().enumerate() {
            for &line in lines {
                of_line.entry(self.lines[line].as_bytes()).or_default().push(generation);
            }
        }
        for (stream, mut lines) in streams(mock) {
            // What a test noted without a file has no order.
            lines.retain(|line| of_line.contains_key(line.as_slice()));
            if lines.is_empty() {
                continue;
            }
            let candidates = lines.first().and_then(|first| of_line.get(first.as_slice())).cloned();
            let candidates = candidates.unwrap_or_default();
            let is_ordered = candidates.iter().any(|&generation| self.holds(generation, &lines));
            let ends = [lines.first(), lines.last()].map(|line| {
                line.map(|line| String::from_utf8_lossy(line).into_owned()).unwrap_or_default()
            });
            let count = lines.len();
            assert!(
                is_ordered,
                "the {count} lines of stream {stream}, from {:?} to {:?}, are not those of one \
                 file in their order",
                ends[0], ends[1]
            );
        }
    }

    /// Whether these lines stand in a generation, in this order; others may stand in between.
    fn holds(&self, generation: usize, lines: &[Vec<u8>]) -> bool {
        let mut written =
            self.generations[generation].iter().map(|&line| self.lines[line].as_bytes());
        lines.iter().all(|line| written.any(|one| one == line.as_slice()))
    }
}

/// What arrived, held against what was written. Tests ask again and again until all is there, so each
/// line and each group is counted once.
#[derive(Default)]
struct Tally {
    /// The distinct lines, written or arrived; each has its place in `counts`.
    places: HashMap<Vec<u8>, usize>,
    counts: Vec<Count>,
    /// The place of each line that was written.
    written: Vec<usize>,
    /// The places of lines that arrived before they were known to be written.
    strangers: Vec<usize>,
    /// Where the lines arrived.
    store: Option<Arc<mock::Store>>,
    /// How many groups have been counted.
    groups: u64,
}

#[derive(Default)]
struct Count {
    written: usize,
    arrived: usize,
}

impl Tally {
    /// Counts the lines that have been written since the last call; `lines` are all.
    fn write(&mut self, lines: &[String]) {
        for line in &lines[self.written.len()..] {
            let place = self.place(line.as_bytes().to_vec());
            self.counts[place].written += 1;
            self.written.push(place);
        }
    }

    /// Counts what has arrived since the last call. Another store is another count.
    fn take(&mut self, store: &Arc<mock::Store>) {
        if !self.store.as_ref().is_some_and(|last| Arc::ptr_eq(last, store)) {
            self.counts.iter_mut().for_each(|count| count.arrived = 0);
            self.strangers.clear();
            self.groups = 0;
            self.store = Some(Arc::clone(store));
        }
        for group in store.groups() {
            if group.number < self.groups {
                continue;
            }
            self.groups = group.number + 1;
            for line in group.logs().into_iter().map(mock::Entry::line) {
                let place = self.place(line);
                self.counts[place].arrived += 1;
                if self.counts[place].written == 0 {
                    self.strangers.push(place);
                }
            }
        }
    }

    fn place(&mut self, line: Vec<u8>) -> usize {
        let next = self.counts.len();
        let place = *self.places.entry(line).or_insert(next);
        if place == next {
            self.counts.push(Count::default());
        }
        place
    }

    /// The numbers of lines that have not arrived, or not as often as they were written.
    fn missing(&self) -> Vec<usize> {
        let is_missing = |number: &usize| {
            let count = &self.counts[self.written[*number]];
            count.arrived < count.written
        };
        (0..self.written.len()).filter(is_missing).collect()
    }

    /// How many lines arrived more often than they were written.
    fn repeats(&self) -> usize {
        let written = self.counts.iter().filter(|count| count.written > 0);
        written.map(|count| count.arrived.saturating_sub(count.written)).sum()
    }

    /// What arrived and was never written, as often as it did.
    fn foreign(&self) -> Vec<Vec<u8>> {
        let foreign: Vec<usize> =
            self.strangers.iter().copied().filter(|&at| self.counts[at].written == 0).collect();
        if foreign.is_empty() {
            return Vec::new();
        }
        let texts: HashMap<usize, &Vec<u8>> =
            self.places.iter().map(|(text, &place)| (place, text)).collect();
        foreign.into_iter().map(|place| texts[&place].clone()).collect()
    }
}

fn numbered_line(number: usize) -> String {
    format!("line {number:08} {}", "abcdefghij".repeat(1 + number % 12))
}

/// Bytes of a line of [`Ledger::write_fixed`], its end included.
pub(crate) const FIXED: usize = 64;

/// The lines of each stream in the order of its groups. A group that came twice, because its reply
/// was lost, counts once.
fn streams(mock: &Background) -> HashMap<String, Vec<Vec<u8>>> {
    let mut groups: HashMap<String, BTreeMap<u64, Vec<Vec<u8>>>> = HashMap::new();
    for group in mock.store().groups() {
        let id = group.tag("__pack_id__").expect("every group has its number");
        let (stream, number) = id.split_once('-').expect("a stream and a number");
        let number = u64::from_str_radix(number, 16).expect("a number");
        let lines = group.logs().into_iter().map(mock::Entry::line).collect();
        groups.entry(stream.to_owned()).or_default().insert(number, lines);
    }
    groups
        .into_iter()
        .map(|(stream, groups)| (stream, groups.into_values().flatten().collect()))
        .collect()
}

/// Counts the lines that arrive again, from one look to the next.
#[derive(Default)]
pub(crate) struct Repeats {
    seen: HashSet<Vec<u8>>,
    groups: usize,
}

impl Repeats {
    /// How many of the lines that have arrived since the last call had arrived before.
    pub(crate) fn take(&mut self, mock: &Background) -> usize {
        let groups = mock.store().groups();
        let new = &groups[self.groups..];
        self.groups = groups.len();
        let lines = new.iter().flat_map(|group| group.logs()).map(mock::Entry::line);
        lines.filter(|line| !self.seen.insert(line.clone())).count()
    }
}
