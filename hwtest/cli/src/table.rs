//! Tables for a terminal.

/// Lines with the columns under each other; the first is the heading. Numbers stand to the right.
pub(crate) fn text(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, width))| match column {
            0 => format!("{cell:<width$}"),
            _ => format!("{cell:>width$}"),
        });
        out += cells.collect::<Vec<_>>().join("  ").trim_end();
        out.push('\n');
    }
    out
}

/// A number of things in a second, or of nanoseconds, with three digits that mean something.
pub(crate) fn short(value: f64) -> String {
    let units = [(1e9, "G"), (1e6, "M"), (1e3, "k")];
    match units.iter().find(|(unit, _)| value >= *unit) {
        Some((unit, name)) => format!("{:.*}{name}", digits(value / unit), value / unit),
        None => format!("{:.*}", digits(value), value),
    }
}

/// Nanoseconds, in the unit that suits.
pub(crate) fn time(ns: f64) -> String {
    let units = [(1e9, "s"), (1e6, "ms"), (1e3, "µs"), (1.0, "ns")];
    let (unit, name) = units.into_iter().find(|(unit, _)| ns >= *unit).unwrap_or((1.0, "ns"));
    format!("{:.*} {name}", digits(ns / unit), ns / unit)
}

fn digits(value: f64) -> usize {
    match value {
        100.0.. => 0,
        10.0.. => 1,
        _ => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_under_each_other() {
        let rows = [vec!["a".to_owned(), "number".to_owned()], vec!["longer".to_owned(), "7".to_owned()]];
        assert_eq!(text(&rows), "a       number\nlonger       7\n");
        assert_eq!(
            (short(1234.0), short(0.5), short(2.5e9)),
            ("1.23k".into(), "0.50".into(), "2.50G".into())
        );
        assert_eq!((time(999.0), time(1500.0)), ("999 ns".into(), "1.50 µs".into()));
    }
}
