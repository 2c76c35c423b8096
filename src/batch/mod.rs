//! Records to payloads.
//!
//! One open group per stream, because `__path__` is a tag of the whole group and because a batch is
//! a byte range of one stream: watermarks rest on that. [`Batcher`] owns the groups, their ages and
//! a compressor for each destination; [`policy`] says when to seal.
//!
//! # Limits
//! [`Batcher::is_over`] asks for the oldest group to be sealed once the buffers of all open groups,
//! and those kept for the next ones, take `open_bytes_max` bytes together. It is asked before each
//! piece of a file, so they take at most one full group more.

pub mod compress;
pub mod log_group;
pub mod pack_id;
pub mod policy;
pub mod rewrite;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use self::policy::Options;

use self::compress::Compressor;
use self::log_group::LogGroup;
use self::pack_id::PackId;
use self::policy::Reason;
use crate::base::fingerprint::Fingerprint;
use crate::base::sealed::{BatchId, DestinationId, Route, SealedBatch};
use crate::base::span::{Span, StreamKey};
use crate::plan::{Destination, Plan};
use logferry_wire::Compression;

/// Used buffers kept for the next groups.
const POOL_MAX: usize = 4;

/// Room for the ages of so many open groups is kept when none is open any more.
const AGES_KEPT: usize = 256;

/// The open groups.
pub struct Batcher {
    streams: HashMap<StreamKey, Stream>,
    shared: Shared,
}

/// What all streams use in turn.
struct Shared {
    options: Options,
    open_bytes_max: usize,
    /// Raw bytes in all open groups.
    open_bytes: usize,
    /// What their buffers take.
    buffer_bytes: usize,
    /// Open groups by age, oldest first; an entry whose serial number is not that of the stream's
    /// open group is stale.
    ages: VecDeque<(Instant, StreamKey, u64)>,
    next_serial: u64,
    next_batch: u64,
    /// The ways out, by the numbers of the destinations.
    outlets: Vec<Outlet>,
    pool: Vec<Vec<u8>>,
    /// What the buffers in the pool take.
    pool_bytes: usize,
}

/// How groups leave for one destination.
struct Outlet {
    compressor: Compressor,
    /// Whether a group ends with the first unfinished line that was sent, and with the end of that
    /// line if it comes: so the same bytes make the same records when they are read again.
    ends_with_partial: bool,
}

impl Outlet {
    fn new(destination: &Destination) -> std::io::Result<Self> {
        let compressor = Compressor::new(destination.compression)?;
        Ok(Self { compressor, ends_with_partial: destination.exactly_once })
    }
}

/// The lines of one stream on their way into groups.
struct Stream {
    destination: DestinationId,
    path: Arc<str>,
    trailer: Arc<[u8]>,
    pack_id: PackId,
    /// Boxed: of many streams few have one.
    open: Option<Box<Open>>,
    /// Raw bytes of the group before.
    last_bytes: usize,
    /// Which shard its batches go to.
    route: Route,
    /// Whether the open group covers a range that is known, and is sealed at its end and not before.
    is_held: bool,
    /// No line will follow; the stream goes with its last group.
    is_ended: bool,
}

struct Open {
    group: LogGroup,
    opened_at: Instant,
    /// None of its lines was written before.
    since: Instant,
    serial: u64,
    /// `Time / 60` of its lines.
    minute: u32,
    /// The bytes covered: from the first line's start to the last one's end.
    start: u64,
    end: u64,
    /// How many of these are holes.
    hole_bytes: u64,
    /// Whether the group gets no more lines.
    is_complete: bool,
    /// The bytes of the file just before `end`.
    tail: Fingerprint,
}

/// A batch, with what the watermark must remember about its end.
#[derive(Debug)]
pub struct Sealed {
    /// The batch.
    pub batch: SealedBatch,
    /// The bytes of the file just before the end of its span.
    pub tail: Fingerprint,
    /// How many bytes of its span are holes, and so no part of it.
    pub hole_bytes: u64,
    /// Why it was sealed.
    pub reason: Reason,
}

impl Batcher {
    /// No group is open yet.
    ///
    /// # Errors
    /// If a compressor cannot be made.
    pub fn new(options: Options, plan: &Plan, open_bytes_max: usize) -> std::io::Result<Self> {
        let outlets = plan.destinations().iter().map(Outlet::new).collect::<Result<_, _>>()?;
        let shared = Shared {
            options,
            open_bytes_max,
            open_bytes: 0,
            buffer_bytes: 0,
            ages: VecDeque::new(),
            next_serial: 0,
            next_batch: 0,
            outlets,
            pool: Vec::new(),
            pool_bytes: 0,
        };
        Ok(Self { streams: HashMap::new(), shared })
    }

    /// Begins a stream whose batches go to `destination`. `trailer` is what [`log_group::trailer`] made
    /// of its tags; `source_id` names the stream for `__pack_id__`.
    pub fn begin(
        &mut self,
        key: StreamKey,
        destination: DestinationId,
        path: Arc<str>,
        trailer: Arc<[u8]>,
        source_id: &str,
    ) {
        let stream = Stream {
            destination,
            path,
            trailer,
            pack_id: PackId::new(source_id),
            open: None,
            last_bytes: 0,
            route: Route::Any,
            is_held: false,
            is_ended: false,
        };
        self.streams.insert(key, stream);
    }

    /// Says which shard the batches of a stream go to; to any, if that is not said.
    pub fn set_route(&mut self, key: StreamKey, route: Route) {
        if let Some(stream) = self.streams.get_mut(&key) {
            stream.route = route;
        }
    }

    /// The next group of a stream is sealed when [`Self::seal`] says so, or the stream has ended; its
    /// size, age and times ask for nothing. Until the next seal.
    ///
    /// # Panics
    /// If a group is open: that one would be sealed for its age.
    pub fn hold(&mut self, key: StreamKey) {
        let Some(stream) = self.streams.get_mut(&key) else { return };
        assert!(stream.open.is_none(), "what is open is sealed before a range begins");
        stream.is_held = true;
    }

    /// Whether the group of a stream, open or not yet, is held.
    #[must_use]
    pub fn is_held(&self, key: StreamKey) -> bool {
        self.streams.get(&key).is_some_and(|stream| stream.is_held)
    }

    /// Whether a stream has an open group.
    #[must_use]
    pub fn is_open(&self, key: StreamKey) -> bool {
        self.streams.get(&key).is_some_and(|stream| stream.open.is_some())
    }

    /// Ends a stream: its open group is sealed like any other, and nothing follows.
    pub fn end(&mut self, key: StreamKey) {
        let Some(stream) = self.streams.get_mut(&key) else { return };
        stream.is_ended = true;
        match &stream.open {
            None => {
                self.streams.remove(&key);
            }
            // It will get no more lines, so it is due at once: to the front.
            Some(open) => {
                let oldest = self.shared.ages.front().map(|(opened_at, ..)| *opened_at);
                let opened_at = oldest.unwrap_or(open.opened_at);
                self.shared.ages.push_front((opened_at, key, open.serial));
            }
        }
    }

    /// A stream, to append lines to.
    ///
    /// # Panics
    /// If it was not begun.
    pub fn writer(&mut self, key: StreamKey) -> Writer<'_> {
        let stream = self.streams.get_mut(&key).expect("a stream is begun before it is read");
        Writer { key, stream, shared: &mut self.shared, since: None }
    }

    /// The stream whose group is the next to seal for its age, if it is time; an ended stream's
    /// group is due at once.
    pub fn due(&mut self, now: Instant) -> Option<(StreamKey, Reason)> {
        let (opened_at, key) = self.oldest()?;
        if self.streams.get(&key).is_some_and(|stream| stream.is_ended) {
            return Some((key, Reason::Shutdown));
        }
        (opened_at + self.shared.options.batch_linger <= now).then_some((key, Reason::Age))
    }

    /// When [`Self::due`] will have something to say, if nothing happens before.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let linger = self.shared.options.batch_linger;
        let (opened_at, ..) = self.shared.ages.iter().find(|age| self.is_current(age))?;
        Some(*opened_at + linger)
    }

    /// Whether a group is still open that was opened then.
    fn is_current(&self, (_, key, serial): &(Instant, StreamKey, u64)) -> bool {
        let open = self.streams.get(key).and_then(|stream| stream.open.as_ref());
        open.is_some_and(|open| open.serial == *serial)
    }

    /// The stream with the oldest open group.
    pub fn oldest(&mut self) -> Option<(Instant, StreamKey)> {
        while let Some(age) = self.shared.ages.front() {
            if self.is_current(age) {
                return Some((age.0, age.1));
            }
            self.shared.ages.pop_front();
        }
        if self.shared.ages.capacity() > AGES_KEPT {
            self.shared.ages = VecDeque::new();
        }
        None
    }

    /// A number for a batch that is made of another one.
    pub fn next_id(&mut self) -> BatchId {
        self.shared.next_id()
    }

    /// How payloads for a destination are compressed.
    #[must_use]
    pub fn compression(&self, destination: DestinationId) -> Compression {
        self.shared.outlets[destination.index()].compressor.compression()
    }

    /// Compresses payloads for a destination so from now on.
    ///
    /// # Errors
    /// If the compressor cannot be made; then the one before stays.
    pub fn set_compression(
        &mut self,
        destination: DestinationId,
        compression: Compression,
    ) -> std::io::Result<()> {
        self.shared.outlets[destination.index()].compressor = Compressor::new(compression)?;
        Ok(())
    }

    /// From now on groups wait no longer than this.
    pub fn lower_linger(&mut self, most: Duration) {
        let linger = &mut self.shared.options.batch_linger;
        *linger = (*linger).min(most);
    }

    /// Whether the open groups together are at their limit. Buffers kept for the next ones make
    /// room first.
    pub fn is_over(&mut self) -> bool {
        let shared = &mut self.shared;
        if shared.buffer_bytes + shared.pool_bytes >= shared.open_bytes_max {
            shared.empty_pool();
        }
        shared.buffer_bytes >= shared.open_bytes_max
    }

    /// Gives up what is kept for the next groups.
    ///
    /// # Errors
    /// If a compressor cannot be made anew; then the one before stays.
    pub fn slim(&mut self) -> std::io::Result<()> {
        self.shared.empty_pool();
        self.shared.ages.shrink_to_fit();
        for Outlet { compressor, .. } in &mut self.shared.outlets {
            *compressor = Compressor::new(compressor.compression())?;
        }
        Ok(())
    }

    /// Raw bytes in all open groups.
    #[must_use]
    pub fn open_bytes(&self) -> usize {
        self.shared.open_bytes
    }

    /// Seals the open group of a stream, if there is one.
    pub fn seal(&mut self, key: StreamKey, reason: Reason) -> Option<Sealed> {
        let stream = self.streams.get_mut(&key)?;
        stream.is_held = false;
        let sealed = self.shared.seal(key, stream, reason);
        if stream.is_ended {
            self.streams.remove(&key);
        }
        sealed
    }
}

/// One stream, borrowed for a turn.
pub struct Writer<'a> {
    key: StreamKey,
    stream: &'a mut Stream,
    shared: &'a mut Shared,
    since: Option<Instant>,
}

impl Writer<'_> {
    /// The lines to be appended may have been written from this moment on; without it, they are
    /// taken for new.
    #[must_use]
    pub fn written_since(mut self, since: Instant) -> Self {
        self.since = Some(since);
        if let Some(open) = &mut self.stream.open {
            open.since = open.since.min(since);
        }
        self
    }

    /// Whether the open group must be sealed before a value of `value_len` bytes read at `time`.
    #[must_use]
    pub fn seal_before(&self, value_len: usize, time: u32) -> Option<Reason> {
        let open = self.stream.open.as_ref().filter(|_| !self.stream.is_held)?;
        if open.is_complete {
            return Some(Reason::Full);
        }
        let (bytes, lines) = (open.group.len(), open.group.lines());
        let added = LogGroup::appended_len(value_len);
        policy::seal_before(&self.shared.options, bytes, lines, open.minute, added, time)
    }

    /// Appends a value read at `time` that covers the bytes `[start, end)` of the file.
    pub fn append(&mut self, value: &[u8], start: u64, end: u64, time: u32, now: Instant) {
        let (shared, is_held) = (&mut *self.shared, self.stream.is_held);
        let since = self.since.unwrap_or(now);
        let last_bytes = self.stream.last_bytes;
        let open = self.stream.open.get_or_insert_with(|| {
            let serial = shared.next_serial;
            shared.next_serial += 1;
            if !is_held {
                shared.ages.push_back((now, self.key, serial));
            }
            let group = LogGroup::in_buffer(shared.buffer(last_bytes));
            shared.buffer_bytes += group.capacity();
            let tail = Fingerprint::default();
            Box::new(Open {
                group,
                opened_at: now,
                since,
                serial,
                minute: time / 60,
                start,
                end: start,
                hole_bytes: 0,
                is_complete: false,
                tail,
            })
        });
        debug_assert_eq!(open.end, start, "a span has no holes");
        let (bytes, buffer_bytes) = (open.group.len(), open.group.capacity());
        open.group.append(time, value);
        open.end = end;
        shared.open_bytes += open.group.len() - bytes;
        shared.buffer_bytes += open.group.capacity() - buffer_bytes;
    }

    /// Lets the open group cover bytes up to `end` that are no record of their own, `hole_bytes` of
    /// them holes. Says whether there is an open group to do so.
    pub fn cover(&mut self, end: u64, hole_bytes: u64) -> bool {
        let Some(open) = &mut self.stream.open else { return false };
        open.end = end;
        open.hole_bytes += hole_bytes;
        true
    }

    /// The line that was appended last is not finished.
    pub fn on_partial(&mut self) {
        if let Some(open) = &mut self.stream.open {
            open.is_complete =
                self.shared.outlets[self.stream.destination.index()].ends_with_partial;
        }
    }

    /// Sets the fingerprint of the bytes before the end of the open group.
    pub fn set_tail(&mut self, tail: Fingerprint) {
        if let Some(open) = &mut self.stream.open {
            open.tail = tail;
        }
    }
}

impl Shared {
    fn next_id(&mut self) -> BatchId {
        self.next_batch += 1;
        BatchId(self.next_batch - 1)
    }

    /// A used buffer, if it is not much too large for a group like the last one of its stream: it is
    /// held for as long as the group is open, and there may be thousands of small ones.
    fn buffer(&mut self, bytes: usize) -> Vec<u8> {
        match self.pool.pop_if(|buffer| buffer.capacity() / 4 <= bytes) {
            Some(buffer) => {
                self.pool_bytes -= buffer.capacity();
                buffer
            }
            None => Vec::new(),
        }
    }

    fn empty_pool(&mut self) {
        self.pool = Vec::new();
        self.pool_bytes = 0;
    }

    fn seal(&mut self, key: StreamKey, stream: &mut Stream, reason: Reason) -> Option<Sealed> {
        let open = stream.open.take()?;
        let (raw_len, lines) = (open.group.len(), open.group.lines());
        self.open_bytes -= raw_len;
        self.buffer_bytes -= open.group.capacity();
        stream.last_bytes = raw_len;
        let raw = open.group.finish(&stream.trailer, &stream.pack_id.next_id());
        let compressor = &mut self.outlets[stream.destination.index()].compressor;
        let (payload, compression) = (compressor.compress(&raw), compressor.compression());
        let batch = SealedBatch {
            id: self.next_id(),
            span: Span::new(key, open.start, open.end),
            destination: stream.destination,
            path: Arc::clone(&stream.path),
            payload,
            compression,
            raw_bytes: u32::try_from(raw.len())
                .expect("the settings bound a group far below 4 GiB"),
            lines,
            first: 0,
            route: stream.route,
            since: open.since,
        };
        if self.pool.len() < POOL_MAX {
            self.pool_bytes += raw.capacity();
            self.pool.push(raw);
        }
        Some(Sealed { batch, tail: open.tail, hole_bytes: open.hole_bytes, reason })
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::base::span::{CollectionId, FileKey};
    use logferry_wire::sls_logs;

    const ONE: StreamKey = StreamKey { file: FileKey(1), collection: CollectionId(0) };
    const TWO: StreamKey = StreamKey { file: FileKey(2), collection: CollectionId(0) };

    fn batcher(batch_lines: u32) -> Batcher {
        batcher_to(batch_lines, vec![Destination::sample()])
    }

    fn batcher_to(batch_lines: u32, destinations: Vec<Destination>) -> Batcher {
        let options = Options {
            batch_bytes: 1 << 20,
            batch_lines,
            batch_linger: Duration::from_secs(1),
            topic: String::new(),
        };
        let plan = Plan::sample(destinations);
        let mut batcher = Batcher::new(options, &plan, 200).unwrap();
        for stream in [ONE, TWO] {
            let tags = [("__path__".to_owned(), b"/a.log".to_vec())];
            let trailer = log_group::trailer("", "10.0.0.1", &tags);
            batcher.begin(stream, DestinationId(0), "/a.log".into(), trailer.into(), "id");
        }
        batcher
    }

    const TIME: u32 = 1_700_000_000;

    #[test]
    fn a_batch_says_which_bytes_it_carries() {
        let now = crate::base::clock::now();
        let mut batcher = batcher(9);
        let mut writer = batcher.writer(ONE);
        writer.append(b"one", 10, 14, TIME, now);
        writer.append(b"two", 14, 18, TIME, now);
        writer.set_tail(Fingerprint { len: 3, crc32: 7 });

        let sealed = batcher.seal(ONE, Reason::Age).unwrap();

        assert_eq!(sealed.batch.span, Span::new(ONE, 10, 18));
        assert_eq!((sealed.batch.lines, sealed.tail.crc32), (2, 7));
        let group = sls_logs::LogGroup::decode(&*sealed.batch.payload).unwrap();
        let values: Vec<&[u8]> = group.logs.iter().map(|log| &*log.contents[0].value).collect();
        assert_eq!(values, [b"one", b"two"]);
        assert_eq!(group.log_tags[0].value, b"/a.log");
        assert!(group.log_tags[1].value.ends_with(b"-0"));
        assert_eq!(batcher.open_bytes(), 0);
        assert!(batcher.seal(ONE, Reason::Age).is_none());
    }

    #[test]
    fn a_batch_is_compressed_as_its_destination_has_it() {
        let now = crate::base::clock::now();
        let other = Destination { compression: Compression::Zstd, ..Destination::sample() };
        let mut batcher = batcher_to(9, vec![Destination::sample(), other]);
        batcher.begin(TWO, DestinationId(1), "/b.log".into(), Vec::new().into(), "id");
        let seal = |batcher: &mut Batcher, stream| {
            let start = batcher.shared.next_batch;
            batcher.writer(stream).append(b"x", start, start + 2, TIME, now);
            let batch = batcher.seal(stream, Reason::Age).unwrap().batch;
            (batch.destination, batch.compression)
        };

        assert_eq!(seal(&mut batcher, ONE), (DestinationId(0), Compression::None));
        assert_eq!(seal(&mut batcher, TWO), (DestinationId(1), Compression::Zstd));
        batcher.set_compression(DestinationId(1), Compression::Lz4).unwrap();
        batcher.slim().unwrap();

        assert_eq!(seal(&mut batcher, ONE), (DestinationId(0), Compression::None));
        assert_eq!(seal(&mut batcher, TWO), (DestinationId(1), Compression::Lz4));
    }

    #[test]
    fn a_batch_is_as_old_as_its_oldest_line() {
        let start = crate::base::clock::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut batcher = batcher(9);
        batcher.writer(ONE).written_since(at(5)).append(b"x", 0, 2, TIME, at(9));
        batcher.writer(ONE).written_since(at(3)).append(b"x", 2, 4, TIME, at(9));
        batcher.writer(ONE).written_since(at(7)).append(b"x", 4, 6, TIME, at(9));

        assert_eq!(batcher.seal(ONE, Reason::Age).unwrap().batch.since, at(3));
        batcher.writer(ONE).append(b"x", 6, 8, TIME, at(9));
        assert_eq!(batcher.seal(ONE, Reason::Age).unwrap().batch.since, at(9));
    }

    #[test]
    fn the_oldest_group_is_due_first() {
        let start = crate::base::clock::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut batcher = batcher(9);
        batcher.writer(TWO).append(b"x", 0, 2, TIME, at(0));
        batcher.writer(ONE).append(b"x", 0, 2, TIME, at(10));

        assert_eq!(batcher.due(at(999)), None);
        assert_eq!(batcher.deadline(), Some(at(1000)));
        assert_eq!(batcher.due(at(1000)), Some((TWO, Reason::Age)));
        batcher.seal(TWO, Reason::Age);
        batcher.writer(TWO).append(b"y", 2, 4, TIME, at(500));
        assert_eq!(batcher.deadline(), Some(at(1010)));
    }

    #[test]
    fn an_ended_stream_is_due_at_once_and_goes_with_its_group() {
        let now = crate::base::clock::now();
        let mut batcher = batcher(9);
        batcher.writer(ONE).append(b"x", 0, 2, TIME, now);
        batcher.writer(TWO).append(b"x", 0, 2, TIME, now);

        batcher.end(TWO);

        assert_eq!(batcher.due(now), Some((TWO, Reason::Shutdown)));
        assert!(batcher.seal(TWO, Reason::Shutdown).is_some());
        assert_eq!(batcher.due(now), None);
        assert!(batcher.seal(TWO, Reason::Shutdown).is_none());
    }

    #[test]
    fn knows_when_all_groups_together_are_too_large() {
        let mut batcher = batcher(9);
        assert!(!batcher.is_over());
        batcher.writer(ONE).append(&[b'x'; 200], 0, 201, TIME, crate::base::clock::now());
        assert!(batcher.is_over());
    }

    #[test]
    fn a_small_group_does_not_hold_the_buffer_of_a_large_one() {
        let now = crate::base::clock::now();
        let mut batcher = batcher(9);
        batcher.shared.open_bytes_max = 20_000;
        batcher.writer(ONE).append(&[b'x'; 5000], 0, 5001, TIME, now);
        batcher.seal(ONE, Reason::Age);

        batcher.writer(TWO).append(b"x", 0, 2, TIME, now);
        assert!(batcher.shared.buffer_bytes < 100);
        batcher.writer(ONE).append(b"x", 5001, 5003, TIME, now);
        assert!(batcher.shared.buffer_bytes > 5000, "it is as likely to be large again");
        assert!(!batcher.is_over());
    }

    #[test]
    fn buffers_that_are_kept_make_room_before_groups_do() {
        let now = crate::base::clock::now();
        let mut batcher = batcher(9);
        batcher.shared.open_bytes_max = 8000;
        batcher.writer(ONE).append(&[b'x'; 7000], 0, 7001, TIME, now);
        batcher.seal(ONE, Reason::Age);
        batcher.writer(TWO).append(&[b'x'; 1500], 0, 1501, TIME, now);

        assert!(!batcher.is_over());
        assert_eq!(batcher.shared.pool_bytes, 0);
    }

    #[test]
    fn a_line_of_another_minute_asks_for_a_seal() {
        let mut batcher = batcher(9);
        let mut writer = batcher.writer(ONE);
        assert_eq!(writer.seal_before(1, TIME), None);
        writer.append(b"x", 0, 2, TIME, crate::base::clock::now());
        assert_eq!(writer.seal_before(1, TIME + 60), Some(Reason::Minute));
    }
}
