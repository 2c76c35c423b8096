//! Time stamps of files, in nanoseconds since 1970.

use std::time::Duration;

use crate::tail::os::Os;

/// How far time stamps of files may lag behind: they come from a clock that is read in ticks.
const STAMP_LAG: Duration = Duration::from_millis(50);

/// The time that a file born from now on may bear as its time stamp, in nanoseconds since 1970.
pub(super) fn stamp(os: &impl Os) -> i64 {
    wall_nanoseconds(os).saturating_sub(nanoseconds(STAMP_LAG))
}

pub(super) fn wall_nanoseconds(os: &impl Os) -> i64 {
    nanoseconds(os.wall())
}

pub(super) fn nanoseconds(time: Duration) -> i64 {
    i64::try_from(time.as_nanos()).unwrap_or(i64::MAX)
}
