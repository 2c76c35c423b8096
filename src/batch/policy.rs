//! When to seal a group.
//!
//! Pure. A group is sealed *before* the line that would break a rule, so that no rule is ever
//! broken: size, lines, one minute of `Time`.

use std::time::Duration;

/// When to seal a group, and with which topic.
#[derive(Clone, Debug)]
pub struct Options {
    /// Seal at this raw size.
    pub batch_bytes: usize,
    /// Seal at this many lines. At most [`logferry_wire::GROUP_LINES_MAX`].
    pub batch_lines: u32,
    /// Seal at this age.
    pub batch_linger: Duration,
    /// Topic of every group; empty for none.
    pub topic: String,
}

/// Why a group was sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The bytes or lines of the group are at the limit.
    Full,
    /// The group is as old as `batch_linger`.
    Age,
    /// The next line belongs to another minute: the service wants one minute in a group.
    Minute,
    /// All open groups together are at their limit.
    Pressure,
    /// No more lines will come: the agent is stopping, or the file has ended.
    Shutdown,
}

/// Whether a group of `bytes` and `lines` of minute `minute` must be sealed before a line that
/// adds `added_bytes` at `time` (Unix seconds).
#[must_use]
pub fn seal_before(
    options: &Options,
    bytes: usize,
    lines: u32,
    minute: u32,
    added_bytes: usize,
    time: u32,
) -> Option<Reason> {
    if time / 60 != minute {
        return Some(Reason::Minute);
    }
    let is_full = lines >= options.batch_lines || bytes + added_bytes > options.batch_bytes;
    is_full.then_some(Reason::Full)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn seals_before_the_line_that_would_break_a_rule() {
        let options = Options {
            batch_bytes: 100,
            batch_lines: 3,
            batch_linger: Duration::from_secs(1),
            topic: String::new(),
        };
        let check = |bytes, lines, time, expected| {
            assert_eq!(seal_before(&options, bytes, lines, 2, 10, time), expected);
        };
        check(90, 2, 120, None);
        check(91, 2, 120, Some(Reason::Full));
        check(10, 3, 120, Some(Reason::Full));
        check(10, 1, 179, None);
        check(10, 1, 180, Some(Reason::Minute));
        check(10, 1, 119, Some(Reason::Minute));
    }
}
