//! A moment in the life of a device.

use std::fmt;
use std::time::Duration;

/// Nanoseconds of virtual time since the device came to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(u64);

impl Time {
    /// When the device came to be.
    pub const ZERO: Time = Time(0);
    /// What never comes.
    pub const NEVER: Time = Time(u64::MAX);

    /// So many nanoseconds after the beginning.
    pub fn from_nanos(nanos: u64) -> Self {
        Time(nanos)
    }

    /// Nanoseconds since the beginning.
    pub fn as_nanos(self) -> u64 {
        self.0
    }

    /// Later by `by`; [`Time::NEVER`] when that is out of range.
    pub fn after(self, by: Duration) -> Self {
        Time(self.0.saturating_add(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// How much later this is than `earlier`; zero if it is not.
    pub fn since(self, earlier: Time) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:09}", self.0 / 1_000_000_000, self.0 % 1_000_000_000)
    }
}

/// A duration as people write it: `250ns`, `3us`, `20ms`, `1.5s`, `2min`.
///
/// # Errors
/// What is wrong with it, as a sentence.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    let split = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let factor = match unit {
        "ns" => 1e-9,
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "min" => 60.0,
        "" => return Err(format!("\"{text}\" has no unit; write ns, us, ms, s or min after the number")),
        other => return Err(format!("\"{other}\" is no unit of time; there are ns, us, ms, s and min")),
    };
    let number: f64 =
        number.trim().parse().map_err(|_| format!("\"{text}\" does not begin with a number"))?;
    Duration::try_from_secs_f64(number * factor)
        .map_err(|_| format!("\"{text}\" is negative or longer than time goes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        assert_eq!(parse_duration("250ns"), Ok(Duration::from_nanos(250)));
        assert_eq!(parse_duration(" 1.5 s"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse_duration("2min"), Ok(Duration::from_secs(120)));
        for wrong in ["", "5", "ms", "-1s", "1h", "1e400s"] {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn time_does_not_wrap() {
        assert_eq!(Time::from_nanos(u64::MAX - 1).after(Duration::from_secs(1)), Time::NEVER);
        assert_eq!(Time::ZERO.since(Time::from_nanos(5)), Duration::ZERO);
    }
}
