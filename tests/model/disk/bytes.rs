//! Bytes: lines that are appended, whole or in parts, and files that are truncated and written anew.

use std::fs::OpenOptions;
use std::io::Write as _;

use super::{Disk, Fate, Line, Piece, Placed};
use crate::text::{self, LINE_BYTES_MIN};

impl Disk {
    /// Appends to a file, by its name or the app's descriptor.
    fn write(&self, node: usize, bytes: &[u8]) {
        let opened = self.names_of(node).next().map(|name| {
            let path = self.path(name);
            OpenOptions::new().append(true).open(path).expect("the log opens")
        });
        let mut file = opened.as_ref().or(self.nodes[node].writer.as_ref()).expect("a descriptor");
        file.write_all(bytes).expect("the app can write");
    }

    /// Appends a complete line for each size; an unfinished one that stands at the end grows into
    /// the first.
    pub(crate) fn append(&mut self, node: usize, sizes: &[usize]) {
        let mut bytes = Vec::new();
        for &size in sizes {
            bytes.extend(self.put(node, size, true));
        }
        self.write(node, &bytes);
    }

    /// Appends a part of a line, or another part of an unfinished one.
    pub(crate) fn append_part(&mut self, node: usize, size: usize) {
        let bytes = self.put(node, size, false);
        self.write(node, &bytes);
    }

    /// Its last line, if that is unfinished.
    pub(crate) fn unfinished(&self, node: usize) -> Option<usize> {
        let last = self.nodes[node].layout.last()?.line;
        (!self.lines[last].is_complete).then_some(last)
    }

    /// Puts a line of `size` bytes, or the rest of one, or a part, into the picture. Returns the
    /// bytes to write.
    fn put(&mut self, node: usize, size: usize, is_complete: bool) -> Vec<u8> {
        let end = self.nodes[node].size();
        let mut bytes = text::line(self.seed, node, self.texts, size);
        self.texts += 1;
        if let Some(line) = self.unfinished(node) {
            bytes.insert(0, b' ');
            let cut = self.lines[line].text.len();
            self.lines[line].cuts.push(cut);
            self.lines[line].text.extend_from_slice(&bytes);
            self.finish(line, is_complete, &mut bytes);
            let last = self.nodes[node].layout.last_mut().expect("it stands there");
            last.end = end + bytes.len() as u64;
        } else {
            let line = self.begin_line(node, bytes.clone());
            self.finish(line, is_complete, &mut bytes);
            self.place(node, line, bytes.len());
        }
        bytes
    }

    fn begin_line(&mut self, node: usize, text: Vec<u8>) -> usize {
        self.lines.push(Line {
            node,
            born: self.nodes[node].generation,
            text,
            cuts: Vec::new(),
            ending: self.next_ending(),
            is_complete: false,
            fate: Fate::OnDisk,
            is_read: false,
            is_safe: false,
            is_durable: false,
            repeats_max: 0,
        });
        self.lines.len() - 1
    }

    /// Some lines end as on another system.
    fn next_ending(&self) -> &'static str {
        if self.lines.len() % 8 == 7 { "\r\n" } else { "\n" }
    }

    fn finish(&mut self, line: usize, is_complete: bool, bytes: &mut Vec<u8>) {
        self.lines[line].is_complete = is_complete;
        if is_complete {
            bytes.extend_from_slice(self.lines[line].ending.as_bytes());
        }
        let Line { text, cuts, .. } = &self.lines[line];
        let mut ends = vec![0, text.len()];
        if self.has_pieces {
            ends.splice(1..1, cuts.iter().copied());
        } else if !is_complete {
            return;
        }
        self.expect_pieces(line, &ends);
    }

    /// The unfinished line at the end of an archive is as finished as it will be.
    pub(crate) fn expect_unfinished(&mut self, node: usize) {
        if let Some(line) = self.unfinished(node) {
            self.expect_pieces(line, &[0, self.lines[line].text.len()]);
        }
    }

    /// The agent is told to stop: of files without a name it sends unfinished lines, which no next start
    /// would find.
    pub(crate) fn expect_last_words(&mut self) {
        for node in 0..self.nodes.len() {
            if !self.has_name(node) {
                self.expect_unfinished(node);
            }
        }
    }

    fn expect_pieces(&mut self, line: usize, ends: &[usize]) {
        let text = &self.lines[line].text;
        for (index, &start) in ends.iter().enumerate() {
            for &end in &ends[index + 1..] {
                let piece = Piece { line, start, end };
                let old = self.pieces.insert(text[start..end].to_vec(), piece);
                assert!(old.is_none_or(|old| old == piece), "texts are unmistakable: {piece:?}");
            }
        }
    }

    fn place(&mut self, node: usize, line: usize, bytes: usize) {
        let layout = &mut self.nodes[node].layout;
        let start = layout.last().map_or(0, |last| last.end);
        if let Some(last) = layout.last() {
            self.neighbours.insert((last.line, line));
        }
        layout.push(Placed { line, start, end: start + bytes as u64 });
        let is_lost = self.nodes[node].is_lost;
        self.lines[line].fate = if is_lost { Fate::Gone } else { Fate::OnDisk };
    }

    // === rewriting

    /// A size to cut a file to: `size` if it falls within the text of a line and that is wanted,
    /// else the start of the line.
    pub(crate) fn place_to_cut(&self, node: usize, size: u64, is_within: bool) -> u64 {
        let layout = &self.nodes[node].layout;
        let Some(placed) = layout.iter().rfind(|placed| placed.start <= size) else { return 0 };
        let text_end = placed.start + self.lines[placed.line].text.len() as u64;
        if is_within && size < text_end { size } else { placed.start }
    }

    /// `truncate -s SIZE`.
    pub(crate) fn cut(&mut self, name: &str, size: u64) {
        let file = OpenOptions::new().write(true).open(self.path(name)).expect("the log opens");
        file.set_len(size).expect("a truncation");
        let node = self.names[name];
        let old = self.begin_generation(node);
        let mut rest = size;
        for placed in old {
            let bytes = placed.end - placed.start;
            if bytes <= rest {
                self.replace(node, placed, bytes);
            } else if rest > 0 {
                // Cut within: what is left of it is the beginning of another line.
                let len = usize::try_from(rest).expect("small files");
                let text = self.lines[placed.line].text[..len].to_vec();
                let line = self.begin_line(node, text);
                self.finish(line, false, &mut Vec::new());
                self.place(node, line, len);
                self.on_destroyed(placed.line);
            } else {
                self.on_destroyed(placed.line);
            }
            rest -= bytes.min(rest);
        }
    }

    /// Writes the file anew, to `size` bytes: its first `kept` lines as they were, then others.
    /// `is_in_place`: over the old bytes, without a truncation; only to the same size.
    pub(crate) fn refill(&mut self, name: &str, kept: usize, size: u64, is_in_place: bool) {
        let node = self.names[name];
        let old = self.begin_generation(node);
        let mut bytes = Vec::new();
        for (index, placed) in old.into_iter().enumerate() {
            if index < kept && self.lines[placed.line].is_complete {
                bytes.extend_from_slice(&self.lines[placed.line].text);
                bytes.extend_from_slice(self.lines[placed.line].ending.as_bytes());
                self.replace(node, placed, placed.end - placed.start);
            } else {
                self.on_destroyed(placed.line);
            }
        }
        let mut left = usize::try_from(size).expect("small files").saturating_sub(bytes.len());
        while left >= LINE_BYTES_MIN {
            // The last line takes what would be too short for another.
            let line = if left < 6 * LINE_BYTES_MIN { left } else { 4 * LINE_BYTES_MIN };
            bytes.extend(self.put(node, line - self.next_ending().len(), true));
            left -= line;
        }
        let mut options = OpenOptions::new();
        options.write(true).truncate(!is_in_place);
        let mut file = options.open(self.path(name)).expect("the log opens");
        file.write_all(&bytes).expect("the app can write");
    }

    /// Returns what stood in the old one; the new one is empty.
    fn begin_generation(&mut self, node: usize) -> Vec<Placed> {
        let size = self.nodes[node].size();
        let is_matched = self.is_matched(node);
        let node = &mut self.nodes[node];
        node.old_size_max = node.old_size_max.max(size);
        node.generation += 1;
        node.turns_at_arrival = None;
        // A checkpoint of other bytes leads nobody to a name that the patterns do not find.
        node.is_expected &= node.is_held || is_matched;
        std::mem::take(&mut node.layout)
    }

    /// A line stands in the new generation as it did in the old one, and may be sent again.
    fn replace(&mut self, node: usize, placed: Placed, bytes: u64) {
        let line = &mut self.lines[placed.line];
        line.repeats_max += 1;
        line.is_safe = false;
        line.is_durable = false;
        self.place(node, placed.line, usize::try_from(bytes).expect("small files"));
    }
}
