//! Results as tables, in the three forms they are shown in: text, Markdown, JSON.

use serde_json::{Map, Value, json};

/// One value.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    /// A name.
    Text(String),
    /// A figure, and how many decimals of it mean something.
    Number(f64, usize),
    /// There is none.
    Missing,
}

impl From<&str> for Cell {
    fn from(text: &str) -> Cell {
        Cell::Text(text.to_owned())
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Cell {
        Cell::Text(text)
    }
}

impl Cell {
    /// A figure, or that there is none.
    pub fn number(value: impl Into<Option<f64>>, decimals: usize) -> Cell {
        value
            .into()
            .filter(|value| value.is_finite())
            .map_or(Cell::Missing, |value| Cell::Number(value, decimals))
    }

    fn shown(&self) -> String {
        match self {
            Cell::Text(text) => text.clone(),
            Cell::Number(value, decimals) => format!("{value:.decimals$}"),
            Cell::Missing => "–".to_owned(),
        }
    }

    fn json(&self) -> Value {
        match self {
            Cell::Text(text) => json!(text),
            Cell::Number(value, _) => json!(value),
            Cell::Missing => Value::Null,
        }
    }
}

/// Rows under headings.
#[derive(Clone, Debug)]
pub struct Table {
    /// Its name: also that of its place in a page.
    pub name: &'static str,
    /// What it says, one line.
    pub title: String,
    columns: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// Without rows yet.
    pub fn new(name: &'static str, title: impl Into<String>, columns: &[&'static str]) -> Table {
        Table { name, title: title.into(), columns: columns.to_vec(), rows: Vec::new() }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// For a terminal.
    pub fn text(&self) -> String {
        let shown: Vec<Vec<String>> =
            self.rows.iter().map(|row| row.iter().map(Cell::shown).collect()).collect();
        let width = |column: usize| {
            let cells = shown.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
            cells.max().unwrap_or(0).max(self.columns.get(column).map_or(0, |name| name.chars().count()))
        };
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        let is_text = |column: usize| {
            self.rows.iter().filter_map(|row| row.get(column)).any(|cell| matches!(cell, Cell::Text(_)))
        };
        let line = |cells: &mut dyn Iterator<Item = &str>| {
            let mut line = String::from("  ");
            for (column, cell) in cells.enumerate() {
                let width = widths.get(column).copied().unwrap_or(0);
                let padded =
                    if is_text(column) { format!("{cell:<width$}") } else { format!("{cell:>width$}") };
                line += &padded;
                line += "  ";
            }
            line.trim_end().to_owned() + "\n"
        };
        let mut text = format!("{}\n", self.title);
        text += &line(&mut self.columns.iter().copied());
        for row in &shown {
            text += &line(&mut row.iter().map(String::as_str));
        }
        text
    }

    /// For a page.
    pub fn markdown(&self) -> String {
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        let heads: Vec<String> = self.columns.iter().map(|name| (*name).to_owned()).collect();
        let mut text = format!("{}\n\n", self.title) + &line(&heads);
        text += &format!("|{}\n", "---|".repeat(self.columns.len()));
        for row in &self.rows {
            text += &line(&row.iter().map(Cell::shown).collect::<Vec<_>>());
        }
        text
    }

    /// For programs: an object for each row.
    pub fn json(&self) -> Value {
        let row = |cells: &Vec<Cell>| {
            let pairs = self.columns.iter().zip(cells).map(|(name, cell)| ((*name).to_owned(), cell.json()));
            Value::Object(pairs.collect::<Map<_, _>>())
        };
        json!({ "name": self.name, "title": self.title, "rows": self.rows.iter().map(row).collect::<Vec<_>>() })
    }
}

/// The median: the middle one, or the mean of the two in the middle. Nothing of nothing.
pub fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.len() / 2;
    let upper = values.get(middle).copied()?;
    if values.len() % 2 == 1 {
        return Some(upper);
    }
    values.get(middle.checked_sub(1)?).map(|lower| (lower + upper) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new("t", "A title", &["who", "s/GB"]);
        table.row(["ours".into(), Cell::number(1.25, 1)]);
        table.row(["another".into(), Cell::number(None, 1)]);
        table
    }

    #[test]
    fn columns_line_up_and_a_missing_figure_is_seen() {
        assert_eq!(table().text(), "A title\n  who      s/GB\n  ours      1.2\n  another     –\n");
    }

    #[test]
    fn the_three_forms_say_the_same() {
        assert_eq!(
            table().markdown(),
            "A title\n\n| who | s/GB |\n|---|---|\n| ours | 1.2 |\n| another | – |\n"
        );
        let json = table().json();
        assert_eq!(json["rows"][0], json!({ "who": "ours", "s/GB": 1.25 }));
        assert!(json["rows"][1]["s/GB"].is_null());
    }

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median([3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median([4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median([]), None);
    }
}
