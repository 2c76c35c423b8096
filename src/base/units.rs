//! Sizes, times and cores as people write them: parse and print.
//!
//! Level 0. Whole numbers with one unit; no fractions, no sums of units. What is printed can be
//! parsed again and means the same.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use thiserror::Error;

/// A number of bytes, written as `512KiB`, `1MiB`, `2GB` or plain `4096`.
///
/// `KiB`, `MiB`, `GiB` (and Kubernetes' `Ki`, `Mi`, `Gi`) count in 1024, `KB`, `MB`, `GB` in 1000;
/// letter case does not matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

/// Why a text is no size, time or number of cores.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum UnitError {
    /// There is no number in front of the unit.
    #[error("there is no whole number in front")]
    NoNumber,
    /// The number has no unit and needs one.
    #[error("the unit is missing; write one of {0}")]
    NoUnit(&'static str),
    /// The unit is not one of those known.
    #[error("the unit is unknown; write one of {0}")]
    UnknownUnit(&'static str),
    /// The number does not fit.
    #[error("the number is too large")]
    TooLarge,
}

const SIZE_UNITS: &str = "B, KiB, MiB, GiB, KB, MB, GB";
const TIME_UNITS: &str = "ms, s, m, h";

impl FromStr for ByteSize {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let (number, unit) = split(text)?;
        let factor: u64 = match unit.to_ascii_lowercase().as_str() {
            "" | "b" => 1,
            "kib" | "ki" => 1 << 10,
            "mib" | "mi" => 1 << 20,
            "gib" | "gi" => 1 << 30,
            "kb" => 1_000,
            "mb" => 1_000_000,
            "gb" => 1_000_000_000,
            _ => return Err(UnitError::UnknownUnit(SIZE_UNITS)),
        };
        number.checked_mul(factor).map(Self).ok_or(UnitError::TooLarge)
    }
}

impl fmt::Display for ByteSize {
    /// Writes the largest binary unit that divides the number, so that nothing is rounded.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.0;
        for (shift, unit) in [(30, "GiB"), (20, "MiB"), (10, "KiB")] {
            if bytes != 0 && bytes.trailing_zeros() >= shift {
                return write!(f, "{}{unit}", bytes >> shift);
            }
        }
        write!(f, "{bytes}")
    }
}

/// A time, written as `200ms`, `5s`, `2m` or `1h`. The unit is never left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(pub Duration);

impl FromStr for Time {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let (number, unit) = split(text)?;
        let factor: u64 = match unit.to_ascii_lowercase().as_str() {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "" => return Err(UnitError::NoUnit(TIME_UNITS)),
            _ => return Err(UnitError::UnknownUnit(TIME_UNITS)),
        };
        let millis = number.checked_mul(factor).ok_or(UnitError::TooLarge)?;
        Ok(Self(Duration::from_millis(millis)))
    }
}

impl fmt::Display for Time {
    /// Writes the largest unit that divides the time; parts of a millisecond are dropped.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.as_millis();
        for (factor, unit) in [(3_600_000, "h"), (60_000, "m"), (1_000, "s")] {
            if millis != 0 && millis.is_multiple_of(factor) {
                return write!(f, "{}{unit}", millis / factor);
            }
        }
        if millis == 0 { f.write_str("0s") } else { write!(f, "{millis}ms") }
    }
}

/// A number of processor cores, written as a decimal: `2.0`, `0.5`. Always finite and positive
/// or zero.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Cores(f64);

impl Cores {
    /// Wraps a number of cores; `None` when it is negative, infinite or no number.
    #[must_use]
    pub fn new(cores: f64) -> Option<Self> {
        (cores.is_finite() && cores >= 0.0).then_some(Self(cores))
    }

    /// The number.
    #[must_use]
    pub fn count(self) -> f64 {
        self.0
    }
}

impl FromStr for Cores {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        text.trim().parse().ok().and_then(Self::new).ok_or(UnitError::NoNumber)
    }
}

impl fmt::Display for Cores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

/// Parts `512 KiB` into the number and the unit.
fn split(text: &str) -> Result<(u64, &str), UnitError> {
    let text = text.trim();
    let digits_end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(digits_end);
    if digits.is_empty() || unit.starts_with(['.', ',']) {
        return Err(UnitError::NoNumber);
    }
    let number = digits.parse().map_err(|_| UnitError::TooLarge)?;
    Ok((number, unit.trim_start()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn size(text: &str) -> Result<u64, UnitError> {
        text.parse::<ByteSize>().map(|size| size.0)
    }

    fn millis(text: &str) -> Result<u128, UnitError> {
        text.parse::<Time>().map(|time| time.0.as_millis())
    }

    #[test]
    fn sizes_count_in_1024_with_an_i_and_in_1000_without() {
        assert_eq!(size("512KiB"), Ok(524_288));
        assert_eq!(size(" 1 MiB "), Ok(1_048_576));
        assert_eq!(size("2gi"), Ok(2 << 30));
        assert_eq!(size("512KB"), Ok(512_000));
        assert_eq!(size("3mb"), Ok(3_000_000));
        assert_eq!(size("4096"), Ok(4096));
        assert_eq!(size("7B"), Ok(7));
    }

    #[test]
    fn sizes_that_mean_nothing_are_refused() {
        assert_eq!(size(""), Err(UnitError::NoNumber));
        assert_eq!(size("-1"), Err(UnitError::NoNumber));
        assert_eq!(size("1.5MiB"), Err(UnitError::NoNumber));
        assert_eq!(size("5 parsecs"), Err(UnitError::UnknownUnit(SIZE_UNITS)));
        assert_eq!(size("99999999999999999999"), Err(UnitError::TooLarge));
        assert_eq!(size("18446744073709551615KiB"), Err(UnitError::TooLarge));
    }

    #[test]
    fn times_need_their_unit() {
        assert_eq!(millis("200ms"), Ok(200));
        assert_eq!(millis("5s"), Ok(5_000));
        assert_eq!(millis("2m"), Ok(120_000));
        assert_eq!(millis("1h"), Ok(3_600_000));
        assert_eq!(millis("5"), Err(UnitError::NoUnit(TIME_UNITS)));
        assert_eq!(millis("1s200ms"), Err(UnitError::UnknownUnit(TIME_UNITS)));
        assert_eq!(millis("99999999999999999h"), Err(UnitError::TooLarge));
    }

    #[test]
    fn cores_are_finite_and_not_negative() {
        assert_eq!("0.5".parse::<Cores>().map(Cores::count), Ok(0.5));
        assert_eq!("2".parse::<Cores>().unwrap().to_string(), "2.0");
        for text in ["", "-1", "inf", "NaN", "two"] {
            assert_eq!(text.parse::<Cores>(), Err(UnitError::NoNumber), "{text}");
        }
    }

    #[test]
    fn prints_the_largest_unit_that_loses_nothing() {
        let sizes = [0, 1, 1000, 1024, 1536, 524_288, 1 << 20, 3 << 30].map(ByteSize);
        assert_eq!(
            sizes.map(|size| size.to_string()),
            ["0", "1", "1000", "1KiB", "1536", "512KiB", "1MiB", "3GiB"]
        );
        let times = [0, 1, 1500, 5000, 90_000, 120_000, 7_200_000];
        assert_eq!(
            times.map(|millis| Time(Duration::from_millis(millis)).to_string()),
            ["0s", "1ms", "1500ms", "5s", "90s", "2m", "2h"]
        );
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_back(bytes: u64, millis in 0_u64..u64::MAX / 2, text: String) {
            prop_assert_eq!(ByteSize(bytes).to_string().parse(), Ok(ByteSize(bytes)));
            let time = Time(Duration::from_millis(millis));
            prop_assert_eq!(time.to_string().parse(), Ok(time));
            let _ = (size(&text), self::millis(&text), text.parse::<Cores>());
        }
    }
}
