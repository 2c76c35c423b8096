//! What the endpoint has accepted, held against what was written.
//!
//! A group that comes again under its own `__pack_id__` (an answer was lost) counts once.

use std::collections::{BTreeMap, HashMap};

use logferry_mock::{Entry, Group, Store};

use crate::disk::{Disk, Piece};

/// Everything that has arrived so far.
#[derive(Default)]
pub(crate) struct Arrivals {
    /// Groups looked at.
    groups: usize,
    /// Groups that came again under the same number.
    pub(crate) groups_again: usize,
    /// Parts of each line, and how often each came.
    parts: HashMap<usize, BTreeMap<(usize, usize), usize>>,
    /// Groups by stream and number.
    streams: BTreeMap<String, BTreeMap<u64, Vec<Piece>>>,
}

impl Arrivals {
    /// Looks at what is new.
    ///
    /// # Errors
    /// If something arrived that was never written, or under a path that never led to it.
    pub(crate) fn take(&mut self, store: &Store, disk: &Disk) -> Result<(), String> {
        if store.counts().groups == self.groups as u64 {
            return Ok(());
        }
        for group in store.groups().iter().skip(self.groups) {
            self.groups += 1;
            self.take_group(group, disk)?;
        }
        Ok(())
    }

    fn take_group(&mut self, group: &Group, disk: &Disk) -> Result<(), String> {
        let id = group.tag("__pack_id__").ok_or("a group without __pack_id__")?;
        let path = group.tag("__path__").ok_or("a group without __path__")?;
        let mut pieces = Vec::new();
        for line in group.logs().into_iter().map(Entry::line) {
            let piece = disk.pieces.get(&line);
            let text = || String::from_utf8_lossy(&line).into_owned();
            let piece = *piece.ok_or_else(|| {
                format!("arrived and was never written: {:?} from {path} in {id}", text())
            })?;
            let node = disk.lines[piece.line].node;
            if !disk.nodes[node].may_arrive_as(&path) {
                return Err(format!("{:?} of node {node} arrived as {path} in {id}", text()));
            }
            pieces.push(piece);
        }
        self.keep(&id, pieces)
    }

    fn keep(&mut self, id: &str, pieces: Vec<Piece>) -> Result<(), String> {
        let (stream, number) = id.split_once('-').ok_or_else(|| format!("__pack_id__ {id}"))?;
        let number = u64::from_str_radix(number, 16).map_err(|_| format!("__pack_id__ {id}"))?;
        let stream = self.streams.entry(stream.to_owned()).or_default();
        if let Some(before) = stream.get(&number) {
            self.groups_again += 1;
            let is_same = *before == pieces;
            return is_same.then_some(()).ok_or_else(|| format!("two groups are called {id}"));
        }
        for Piece { line, start, end } in &pieces {
            *self.parts.entry(*line).or_default().entry((*start, *end)).or_default() += 1;
        }
        stream.insert(number, pieces);
        Ok(())
    }

    /// Whether something of a line has arrived.
    pub(crate) fn has_part(&self, line: usize) -> bool {
        self.parts.contains_key(&line)
    }

    /// Whether every byte of a line has arrived.
    pub(crate) fn has_line(&self, disk: &Disk, line: usize) -> bool {
        let Some(parts) = self.parts.get(&line) else { return false };
        let mut covered = 0;
        for &(start, end) in parts.keys() {
            if start <= covered {
                covered = covered.max(end);
            }
        }
        covered == disk.lines[line].text.len()
    }

    /// Checks order: within a stream, group after group by their numbers, the lines are those of
    /// one file as they stood behind each other. A group that is missing (it was under way when
    /// the agent was killed) leaves a gap and nothing else.
    ///
    /// # Errors
    /// Names the first lines out of order.
    pub(crate) fn check_order(&self, disk: &Disk) -> Result<(), String> {
        for (id, groups) in &self.streams {
            let mut before: Option<(u64, Piece)> = None;
            for (&number, pieces) in groups {
                for &piece in pieces {
                    if let Some((last_number, last)) = before {
                        let is_next = number <= last_number + 1;
                        check_pair(disk, last, piece, is_next).map_err(|what| {
                            format!("{what} in {id}-{last_number:X} and {id}-{number:X}")
                        })?;
                    }
                    before = Some((number, piece));
                }
            }
        }
        Ok(())
    }

    /// Checks that nothing came more often than a reason was given for. Returns how many came
    /// again.
    ///
    /// # Errors
    /// Names the first line that came too often.
    pub(crate) fn check_repeats(&self, disk: &Disk) -> Result<usize, String> {
        let mut again = 0;
        for (&line, parts) in &self.parts {
            let most = 1 + disk.lines[line].repeats_max;
            for (&(start, end), &count) in parts {
                again += count - 1;
                if count > most {
                    let text = &disk.lines[line].text[start..end];
                    let text = String::from_utf8_lossy(text);
                    return Err(format!("{text:?} arrived {count} times, at most {most} expected"));
                }
            }
        }
        Ok(again)
    }
}

/// Whether `next` may come behind `last`, immediately so if `is_next`.
fn check_pair(disk: &Disk, last: Piece, next: Piece, is_next: bool) -> Result<(), String> {
    let text = |piece: Piece| {
        let text = &disk.lines[piece.line].text[piece.start..piece.end];
        format!("{:?}", String::from_utf8_lossy(text))
    };
    let is_one_file = disk.lines[last.line].node == disk.lines[next.line].node;
    let is_forward = (last.line, last.end) <= (next.line, next.start);
    let is_behind = if last.line == next.line {
        last.end == next.start
    } else {
        let is_whole = last.end == disk.lines[last.line].text.len() && next.start == 0;
        is_whole && disk.neighbours.contains(&(last.line, next.line))
    };
    let is_right = is_one_file && is_forward && (is_behind || !is_next);
    is_right.then_some(()).ok_or_else(|| format!("{} stands before {}", text(last), text(next)))
}
