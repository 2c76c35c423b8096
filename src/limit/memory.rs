//! Memory is a sum: the worst case of every buffer, from the options, before anything is allocated.
//!
//! [`Plan::fit`] divides the memory limit among the buffers whose size is ours to choose (open
//! groups and the hand-off) and refuses a limit that does not hold even the least of them. The
//! rows are what `logferry check` prints. Pure: it measures nothing.
//!
//! ```text
//!  file ─▶ read buffer ─▶ open groups ─▶ compression buffer ─▶ hand-off ─▶ copies being sent
//!     one, and a .gz       bounded        one                   bounded    bounded by the hand-off
//! ```

use thiserror::Error;

use crate::base::units::ByteSize;
use logferry_wire::Compression;

/// Most bytes that a group holds besides the values of its lines: tags, topic, source, and the
/// field headers of its lines (24 bytes each).
pub const GROUP_OVERHEAD_BYTES_MAX: usize = 256 * KIB;

/// Most bytes of a list of batches, which is a copy of them: what is larger goes alone, and is not
/// copied.
pub const LIST_BYTES_MAX: usize = 256 * KIB;

/// The process without any file: code, runtime, TLS roots, stacks, and what the allocator keeps
/// beside what is asked of it.
const BASE_BYTES: u64 = 12 << 20;
/// What is remembered of a file: its state, its names, its watermark, its checkpoint.
const FILE_BYTES: u64 = 2048;
/// What is remembered of a file that is delivered and closed: its checkpoint, and its place in the walk
/// that finds it.
const CLOSED_BYTES: u64 = 1280;
/// Files at rest that are remembered whatever the limit.
const CLOSED_LEAST: u64 = 128;
/// Most files at rest that are remembered: more are of no use.
const CLOSED_MOST: u64 = 200_000;
/// So many files are known whatever the limit: with the least limit the sum does not hold them, but what
/// is never in use all at once does.
const KNOWN_LEAST: u64 = 10_000;
/// Files that are kept open whatever the limit.
const FILES_LEAST: u64 = 512;
/// Most files that are kept open at once: more take turns.
const FILES_MOST: u64 = 20_000;
/// What a request takes beside its body: headers, the buffers of its connection and of TLS.
const REQUEST_BYTES: u64 = 64 << 10;
/// What the zstd encoder keeps at its default level.
const ZSTD_CONTEXT_BYTES: u64 = 2 << 20;
/// A growing vector holds up to twice what is in it.
const GROWTH: u64 = 2;
/// More does not make anything faster: it is half a second of sending at the speed of a core.
const HANDOFF_BYTES_MOST: u64 = 16 << 20;
/// Enough for some hundred files that write a little.
const OPEN_BYTES_USUAL: u64 = 16 << 20;
/// What decodes a compressed file: a step of its bytes (64 KiB) and of its text, the decoder with its
/// window (45 KiB), and what stands before some hundred marks.
const GZIP_BYTES: u64 = 256 << 10;
const READ_BYTES_LEAST: usize = 1024 * KIB;
const KIB: usize = 1024;

/// The options that the sum depends on.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// A group is sealed at this raw size.
    pub batch_bytes: usize,
    /// Longest line.
    pub line_bytes_max: usize,
    /// Most requests in flight.
    pub concurrency_max: usize,
    /// How payloads are compressed.
    pub compression: Compression,
}

impl Sizes {
    /// Size of the one read buffer: a longest line and room to read on, in steps of 64 KiB.
    #[must_use]
    pub fn read_bytes(self) -> usize {
        self.line_bytes_max
            .saturating_add(64 * KIB)
            .checked_next_multiple_of(64 * KIB)
            .unwrap_or(usize::MAX)
            .max(READ_BYTES_LEAST)
    }

    /// Most bytes of all lists that are sent at once.
    fn copies_bytes_max(self) -> u64 {
        (self.concurrency_max as u64).saturating_mul(LIST_BYTES_MAX as u64)
    }

    /// Most bytes of an encoded group: the line that fills it may be a longest one.
    #[must_use]
    pub fn group_bytes_max(self) -> usize {
        self.batch_bytes
            .saturating_add(self.line_bytes_max)
            .saturating_add(GROUP_OVERHEAD_BYTES_MAX)
    }

    /// Most bytes of a request body: a group that does not compress at all.
    #[must_use]
    pub fn payload_bytes_max(self) -> usize {
        let raw = self.group_bytes_max();
        match self.compression {
            // The bounds of the encoders: lz4_flex asks for a tenth more, zstd for a 256th.
            Compression::Lz4 => raw.saturating_add(raw / 10).saturating_add(20),
            Compression::Zstd => raw.saturating_add(raw / 256).saturating_add(512),
            Compression::None => raw,
        }
    }
}

/// How the memory limit is divided. The rows never add up to more than the limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Size of the one read buffer.
    pub read_bytes: usize,
    /// Most bytes of the buffers of all open groups together; beyond it groups are sealed early.
    pub open_bytes_max: usize,
    /// Most files open at once; of others only what is saved is remembered.
    pub files_max: usize,
    /// Most files known: those that are open, and those that are delivered and closed. Others that are
    /// found are left for later.
    pub known_max: usize,
    /// Most payload bytes handed over and not acknowledged (one payload more is possible, since a
    /// batch is taken when there is any room).
    pub handoff_bytes_max: usize,
    /// The limit that was divided.
    pub limit_bytes: u64,
    /// The sum, row by row.
    pub rows: Vec<Row>,
}

/// A row of the sum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// What the memory is for.
    pub name: &'static str,
    /// How `bytes` came about.
    pub formula: String,
    /// Most bytes it can take.
    pub bytes: u64,
}

/// The limit does not hold even the least sum.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("the least that these settings need is {} MB", least_bytes.div_ceil(1 << 20))]
pub struct TooSmall {
    /// The least sum, in bytes.
    pub least_bytes: u64,
}

impl Plan {
    /// Divides `limit_bytes`: the fixed buffers first, then a quarter of what is left to open files,
    /// half of the rest to closed ones and half of the rest to open groups, each up to what is
    /// useful, then what is left to the hand-off up to what is useful.
    ///
    /// # Errors
    /// [`TooSmall`] when the limit does not hold one open group and two payloads: one under way
    /// and one that waits. Raise the limit or lower `batch_bytes` or `line_bytes_max`.
    pub fn fit(limit_bytes: u64, sizes: Sizes) -> Result<Self, TooSmall> {
        let group = sizes.group_bytes_max() as u64;
        let payload = sizes.payload_bytes_max() as u64;
        let (open_least, handoff_least) = (group, payload.saturating_mul(2));
        let files_least = (FILES_LEAST, CLOSED_LEAST);
        let least = Self::with(limit_bytes, sizes, files_least, open_least, handoff_least);
        let Some(spare) = limit_bytes.checked_sub(least.total()) else {
            return Err(TooSmall { least_bytes: least.total() });
        };

        let files = FILES_MOST.min(FILES_LEAST + spare / 4 / FILE_BYTES);
        let spare = spare - (files - FILES_LEAST) * FILE_BYTES;
        let closed = CLOSED_MOST.min(CLOSED_LEAST + spare / 2 / CLOSED_BYTES);
        let spare = spare - (closed - CLOSED_LEAST) * CLOSED_BYTES;
        let files = (files, closed);
        let open_useful = OPEN_BYTES_USUAL.max(4 * sizes.batch_bytes as u64).max(open_least);
        let open = open_useful.min(open_least + spare / 2);
        let used = Self::with(limit_bytes, sizes, files, open, 0).total_without_handoff(sizes);
        let handoff = largest_handoff(limit_bytes - used, payload, sizes.copies_bytes_max());
        let handoff = handoff.clamp(handoff_least, HANDOFF_BYTES_MOST.max(handoff_least));
        let plan = Self::with(limit_bytes, sizes, files, open, handoff);
        debug_assert!(plan.total() <= limit_bytes, "a plan fits its limit");
        Ok(plan)
    }

    /// The worst case: all rows together.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.rows.iter().fold(0, |sum, row| sum.saturating_add(row.bytes))
    }

    /// All but what depends on the hand-off. Of the last row that is without the requests' own part.
    fn total_without_handoff(&self, sizes: Sizes) -> u64 {
        let [.., handoff, _] = self.rows.as_slice() else { unreachable!("a plan has its rows") };
        let payload = sizes.payload_bytes_max() as u64;
        self.total() - handoff.bytes - copies(0, payload, sizes.copies_bytes_max())
    }

    fn with(
        limit_bytes: u64,
        sizes: Sizes,
        (files, closed): (u64, u64),
        open: u64,
        handoff: u64,
    ) -> Self {
        let payload = sizes.payload_bytes_max() as u64;
        let concurrency = sizes.concurrency_max as u64;
        let row = |name, formula, bytes| Row { name, formula, bytes };
        let mut rows = vec![
            row("base", "the process without any file".to_owned(), BASE_BYTES),
            row(
                "files",
                format!("{files} open at once, {FILE_BYTES} bytes each"),
                files.saturating_mul(FILE_BYTES),
            ),
            row(
                "closed files",
                format!("{closed} delivered and at rest, {CLOSED_BYTES} bytes each"),
                closed.saturating_mul(CLOSED_BYTES),
            ),
            row(
                "read buffer",
                format!("one, for a line of {}", about(sizes.line_bytes_max as u64)),
                sizes.read_bytes() as u64,
            ),
            row(
                "compressed file",
                "one at a time: its decoder, and its text beside the read buffer".to_owned(),
                GZIP_BYTES.saturating_add(sizes.read_bytes() as u64),
            ),
            row(
                "open groups",
                format!("{}, and {GROWTH} × a group that grows by doubling", about(open)),
                (sizes.group_bytes_max() as u64).saturating_mul(GROWTH).saturating_add(open),
            ),
            row(
                "compression buffer",
                format!("one payload, of a group of {}", about(sizes.group_bytes_max() as u64)),
                if sizes.compression == Compression::None { 0 } else { payload },
            ),
        ];
        if sizes.compression == Compression::Zstd {
            rows.push(row("zstd encoder", "its tables".to_owned(), ZSTD_CONTEXT_BYTES));
        }
        rows.push(row(
            "hand-off",
            format!("{} waiting or in flight, and one payload", about(handoff)),
            handoff.saturating_add(payload),
        ));
        rows.push(row(
            "requests",
            format!("{concurrency}, each with a copy of small batches: a list"),
            copies(handoff, payload, sizes.copies_bytes_max())
                .saturating_add(concurrency.saturating_mul(REQUEST_BYTES)),
        ));
        Self {
            read_bytes: sizes.read_bytes(),
            open_bytes_max: to_usize(open),
            files_max: to_usize(files),
            known_max: to_usize(files.saturating_add(closed).max(KNOWN_LEAST)),
            handoff_bytes_max: to_usize(handoff),
            limit_bytes,
            rows,
        }
    }
}

/// A list of batches holds copies of them: as many lists as requests may be in flight, but no more
/// than has been handed over.
fn copies(handoff: u64, payload: u64, copies_max: u64) -> u64 {
    copies_max.min(handoff.saturating_add(payload))
}

/// The largest `handoff` for which `handoff + payload + copies(handoff, …) <= room`, or 0.
fn largest_handoff(room: u64, payload: u64, copies_max: u64) -> u64 {
    let all_are_copied = (room / 2).saturating_sub(payload);
    let some_are_copied = room.saturating_sub(payload).saturating_sub(copies_max);
    all_are_copied.max(some_are_copied)
}

fn to_usize(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

/// A size for people: exact where it is round, otherwise, and from 10 MiB on unless it is whole,
/// in tenths of a MiB, rounded up.
#[must_use]
pub fn about(bytes: u64) -> String {
    let exact = ByteSize(bytes).to_string();
    let is_many_kib = exact.ends_with("KiB") && bytes >= 10 << 20;
    if (exact.ends_with('B') && !is_many_kib) || bytes < 1024 {
        return exact;
    }
    let tenths = (u128::from(bytes) * 10).div_ceil(1 << 20);
    format!("{}.{}MiB", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use proptest::prelude::*;

    use super::*;

    const MIB: u64 = 1 << 20;
    const USUAL: Sizes = Sizes {
        batch_bytes: 512 * KIB,
        line_bytes_max: 512 * KIB,
        concurrency_max: 8,
        compression: Compression::Lz4,
    };

    fn rows(plan: &Plan) -> String {
        plan.rows
            .iter()
            .map(|row| format!("{:<20}{:>9}  {}\n", row.name, about(row.bytes), row.formula))
            .collect()
    }

    #[test]
    fn the_default_limit_leaves_room_for_all_that_is_useful() {
        let plan = Plan::fit(384 * MIB, USUAL).unwrap();

        expect![[r#"
            base                    12MiB  the process without any file
            files                 39.1MiB  20000 open at once, 2048 bytes each
            closed files         159.6MiB  130700 delivered and at rest, 1280 bytes each
            read buffer              1MiB  one, for a line of 512KiB
            compressed file       1280KiB  one at a time: its decoder, and its text beside the read buffer
            open groups           18.5MiB  16MiB, and 2 × a group that grows by doubling
            compression buffer     1.4MiB  one payload, of a group of 1280KiB
            hand-off              17.4MiB  16MiB waiting or in flight, and one payload
            requests              2560KiB  8, each with a copy of small batches: a list
        "#]]
        .assert_eq(&rows(&plan));
        assert_eq!(plan.open_bytes_max as u64, OPEN_BYTES_USUAL);
        assert_eq!(plan.handoff_bytes_max as u64, HANDOFF_BYTES_MOST);
    }

    #[test]
    fn thirty_two_megabytes_hold_the_default_batches() {
        let plan = Plan::fit(32 * MIB, USUAL).unwrap();

        expect![[r#"
            base                    12MiB  the process without any file
            files                 2262KiB  1131 open at once, 2048 bytes each
            closed files          2020KiB  1616 delivered and at rest, 1280 bytes each
            read buffer              1MiB  one, for a line of 512KiB
            compressed file       1280KiB  one at a time: its decoder, and its text beside the read buffer
            open groups            4.7MiB  2.2MiB, and 2 × a group that grows by doubling
            compression buffer     1.4MiB  one payload, of a group of 1280KiB
            hand-off               5.1MiB  3747KiB waiting or in flight, and one payload
            requests              2560KiB  8, each with a copy of small batches: a list
        "#]]
        .assert_eq(&rows(&plan));
    }

    #[test]
    fn a_limit_below_the_least_sum_is_refused_and_the_least_sum_is_taken() {
        let TooSmall { least_bytes } = Plan::fit(8 * MIB, USUAL).unwrap_err();

        assert_eq!(Plan::fit(least_bytes - 1, USUAL), Err(TooSmall { least_bytes }));
        assert_eq!(Plan::fit(least_bytes, USUAL).unwrap().total(), least_bytes);
    }

    #[test]
    fn payload_bounds_are_those_of_the_encoders() {
        let payload = |compression| Sizes { compression, ..USUAL }.payload_bytes_max();
        let raw = USUAL.group_bytes_max();

        assert!(payload(Compression::Lz4) >= lz4_flex::block::get_maximum_output_size(raw));
        assert!(payload(Compression::Zstd) >= zstd::zstd_safe::compress_bound(raw));
        assert_eq!(payload(Compression::None), raw);
    }

    /// What the rows say of all files that may be known, as if each were closed.
    fn known_bytes(plan: &Plan) -> u64 {
        let row = |name| plan.rows.iter().find(|row| row.name == name).unwrap().bytes;
        row("files") / FILE_BYTES * CLOSED_BYTES + row("closed files")
    }

    proptest! {
        #[test]
        fn a_plan_never_exceeds_its_limit(
            limit in 0..512 * MIB,
            batch_bytes in 0..4_usize << 20,
            line_bytes_max in 0..4_usize << 20,
            concurrency_max in 1_usize..1001,
            codec in 0..3_usize,
        ) {
            let compression = [Compression::Lz4, Compression::Zstd, Compression::None][codec];
            let sizes = Sizes { batch_bytes, line_bytes_max, concurrency_max, compression };

            match Plan::fit(limit, sizes) {
                Ok(plan) => {
                    prop_assert!(plan.total() <= limit);
                    let known = known_bytes(&plan).max(KNOWN_LEAST * CLOSED_BYTES);
                    prop_assert_eq!(plan.known_max as u64 * CLOSED_BYTES, known);
                    prop_assert!(plan.open_bytes_max >= sizes.group_bytes_max());
                    prop_assert!(plan.handoff_bytes_max >= 2 * sizes.payload_bytes_max());
                }
                Err(TooSmall { least_bytes }) => prop_assert!(least_bytes > limit),
            }
        }

        #[test]
        fn absurd_sizes_are_refused_without_overflow(a: usize, b: usize, c: usize) {
            let sizes = Sizes {
                batch_bytes: a | 1 << 40, line_bytes_max: b, concurrency_max: c, ..USUAL
            };
            prop_assert!(Plan::fit(1 << 30, sizes).is_err());
        }
    }
}
