//! What a report has to say of the machine.

use std::fs;

/// The machine, as names and values.
pub(crate) fn facts() -> Vec<(&'static str, String)> {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, key: &str, mark: char| {
        let line = text.lines().find(|line| line.starts_with(key));
        let value = line
            .and_then(|line| line.split_once(mark))
            .map(|(_, value)| value.trim().trim_matches('"').to_owned());
        value.unwrap_or_else(|| "unknown".into())
    };
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    let name = rustix::system::uname();
    let text = |part: &std::ffi::CStr| part.to_string_lossy().into_owned();
    vec![
        ("processor", format!("{} ({cpus} usable)", field(&read("/proc/cpuinfo"), "model name", ':'))),
        ("memory", field(&read("/proc/meminfo"), "MemTotal", ':')),
        ("system", field(&read("/etc/os-release"), "PRETTY_NAME", '=')),
        ("kernel", format!("{} {} {}", text(name.sysname()), text(name.release()), text(name.machine()))),
        (
            "load at the end",
            format!(
                "{} (one minute): what others ran beside makes rates lower and latencies longer",
                load(&read("/proc/loadavg"))
            ),
        ),
        ("date", date(now())),
    ]
}

fn load(averages: &str) -> &str {
    averages.split(' ').next().filter(|load| !load.is_empty()).unwrap_or("unknown")
}

fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Date and time of day, UTC, from seconds since 1970.
fn date(seconds: u64) -> String {
    let (mut days, rest) = (seconds / 86_400, seconds % 86_400);
    let mut year = 1970;
    let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    while days >= 365 + u64::from(leap(year)) {
        days -= 365 + u64::from(leap(year));
        year += 1;
    }
    let mut month = 1;
    for len in [31, 28 + u64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if days < len {
            break;
        }
        days -= len;
        month += 1;
    }
    format!("{year}-{month:02}-{:02} {:02}:{:02} UTC", days + 1, rest / 3600, rest / 60 % 60)
}

#[cfg(test)]
mod tests {
    use super::date;

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(date(0), "1970-01-01 00:00 UTC");
        assert_eq!(date(951_782_400), "2000-02-29 00:00 UTC");
        assert_eq!(date(1_735_689_599), "2024-12-31 23:59 UTC");
        assert_eq!(date(4_107_542_400), "2100-03-01 00:00 UTC");
    }
}
