//! Times and sizes as people write them.

use std::time::Duration;

/// `30s`, `5m`, `4h`, `2d`, `500ms`, `1h30m`; a bare number only when it is 0. At most a year.
///
/// # Errors
/// What would be right.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong =
        || format!("`{text}` is not a time; write for example \"30s\", \"5m\", \"4h\", \"1h30m\" or \"0s\"");
    let mut rest = text.trim();
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    let mut total = Duration::ZERO;
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let (number, after) = number(rest).ok_or_else(wrong)?;
        let unit_len = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let (unit, next) = after.split_at(unit_len);
        let millis = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" | "min" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(wrong()),
        };
        let part = number.checked_mul(millis).ok_or_else(wrong)?;
        total = total.checked_add(Duration::from_millis(part)).ok_or_else(wrong)?;
        rest = next;
    }
    const YEAR: Duration = Duration::from_secs(366 * 86_400);
    if total > YEAR { Err(format!("`{text}` is more than a year")) } else { Ok(total) }
}

/// `1500`, `64KiB`, `100MB`, `64GiB`, `2TiB`; octets.
///
/// # Errors
/// What would be right.
pub fn size(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is not a size; write for example \"500MB\" or \"64GiB\"");
    let (number, unit) = number(text.trim()).ok_or_else(wrong)?;
    let factor = match unit.trim() {
        "" | "B" => 1,
        "kB" | "KB" => 1000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return Err(wrong()),
    };
    number.checked_mul(factor).ok_or_else(wrong)
}

/// A time for people: the two largest units.
pub fn show_duration(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0 if !time.is_zero() => format!("{}ms", time.as_millis()),
        0..60 => format!("{seconds}s"),
        60..3600 if seconds.is_multiple_of(60) => format!("{}m", seconds / 60),
        60..3600 => format!("{}m{}s", seconds / 60, seconds % 60),
        3600..86_400 if seconds % 3600 < 60 => format!("{}h", seconds / 3600),
        3600..86_400 => format!("{}h{}m", seconds / 3600, seconds % 3600 / 60),
        _ if seconds % 86_400 < 3600 => format!("{}d", seconds / 86_400),
        _ => format!("{}d{}h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

/// A size for people.
pub fn show_size(octets: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = octets as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{octets} B") } else { format!("{value:.1} {}", units[unit]) }
}

/// Hexadecimal digits, white space and colons between them allowed, an even number of them.
///
/// # Errors
/// What is wrong, without the digits, which may be a secret.
pub fn hex(text: &str) -> Result<Vec<u8>, String> {
    let mut digits = Vec::with_capacity(text.len());
    for c in text.trim().trim_start_matches("0x").chars().filter(|c| !c.is_whitespace() && *c != ':') {
        digits.push(c.to_digit(16).ok_or("holds something that is not a hexadecimal digit")? as u8);
    }
    if digits.len() % 2 != 0 {
        return Err("has an odd number of hexadecimal digits".to_owned());
    }
    Ok(digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

fn number(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    Some((digits.parse().ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_with_their_units_and_refused_without() {
        let seconds = |text| duration(text).unwrap().as_secs();
        assert_eq!(
            (seconds("30s"), seconds("4h"), seconds("1h30m"), seconds("2d")),
            (30, 14_400, 5400, 172_800)
        );
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("0"), Ok(Duration::ZERO));
        for wrong in ["", "30", "4 hours", "-3s", "h", "99999999999999999999s", "9999d"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sizes_are_read_with_binary_and_decimal_units() {
        assert_eq!((size("1500"), size("64GiB"), size("2MB")), (Ok(1500), Ok(64 << 30), Ok(2_000_000)));
        for wrong in ["", "x", "1 parsec", "99999999TiB"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn people_see_round_figures() {
        let show = |seconds| show_duration(Duration::from_secs(seconds));
        assert_eq!((show(5).as_str(), show(65).as_str(), show(7200).as_str()), ("5s", "1m5s", "2h"));
        assert_eq!((show_size(900), show_size(1536)), ("900 B".into(), "1.5 KiB".into()));
    }

    #[test]
    fn hexadecimal_allows_separators_only() {
        assert_eq!(hex("de:ad BE ef"), Ok(vec![0xde, 0xad, 0xbe, 0xef]));
        assert!(hex("abc").is_err() && hex("zz").is_err());
    }
}
