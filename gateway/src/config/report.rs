//! What is wrong with a configuration: every problem with its place, in the order of the file.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// A configuration file and where its lines begin.
pub struct Source {
    path: PathBuf,
    /// Offset of the first octet of each line.
    lines: Vec<usize>,
    /// For columns: which octets start a character.
    length: usize,
}

/// One thing that is wrong, or worth a warning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file.
    pub file: PathBuf,
    /// Line, from 1.
    pub line: usize,
    /// Column in octets, from 1.
    pub column: usize,
    /// What is wrong, and what was probably meant.
    pub text: String,
}

/// Everything that is wrong.
#[derive(Debug, Default)]
pub struct Problems {
    /// What keeps the configuration from being used.
    pub errors: Vec<Problem>,
    /// What does not.
    pub warnings: Vec<Problem>,
}

impl Source {
    /// Notes where the lines of `text` begin.
    pub fn new(path: &Path, text: &str) -> Source {
        let breaks = text.bytes().enumerate().filter(|(_, octet)| *octet == b'\n').map(|(at, _)| at + 1);
        Source {
            path: path.to_path_buf(),
            lines: std::iter::once(0).chain(breaks).collect(),
            length: text.len(),
        }
    }

    /// A problem at a place in the text.
    pub fn problem(&self, at: Range<usize>, text: impl Into<String>) -> Problem {
        let start = at.start.min(self.length);
        let line = self.lines.partition_point(|begin| *begin <= start).max(1);
        let column = start - self.lines.get(line - 1).copied().unwrap_or(0) + 1;
        Problem { file: self.path.clone(), line, column, text: text.into() }
    }

    /// The folder that relative paths in the file start from.
    pub fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new(""))
    }
}

impl Problems {
    /// Adds an error.
    pub fn error(&mut self, source: &Source, at: Range<usize>, text: impl Into<String>) {
        self.errors.push(source.problem(at, text));
    }

    /// Adds a warning.
    pub fn warn(&mut self, source: &Source, at: Range<usize>, text: impl Into<String>) {
        self.warnings.push(source.problem(at, text));
    }

    /// Puts both lists in the order of the file.
    pub fn sort(&mut self) {
        let place = |problem: &Problem| (problem.line, problem.column);
        self.errors.sort_by_key(place);
        self.warnings.sort_by_key(place);
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}", self.file.display(), self.line, self.column, self.text)
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.errors.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// The candidate that `word` was most likely meant to be, if any is close.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let close = (word.chars().count() / 3).max(1) + 1;
    candidates
        .into_iter()
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= close.min(candidate.len()))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// What to say about a word that is not among `known`.
pub fn unknown(what: &str, word: &str, known: &[&str]) -> String {
    match nearest(word, known.iter().copied()) {
        Some(meant) => format!("unknown {what} `{word}`; did you mean `{meant}`?"),
        None => format!("unknown {what} `{word}`; known here: {}", known.join(", ")),
    }
}

/// Edit distance with swaps of neighbours counted as one.
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().flat_map(char::to_lowercase).collect();
    let b: Vec<char> = b.chars().flat_map(char::to_lowercase).collect();
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let same = usize::from(a[i - 1] != b[j - 1]);
            let mut best = (above[j] + 1).min(row[j - 1] + 1).min(above[j - 1] + same);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(before[j - 2] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut above, row);
    }
    above.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_lines_and_columns_from_one() {
        let source = Source::new(Path::new("a.toml"), "one\ntwo = 3\n");
        let place = |at| {
            let problem = source.problem(at..at, "");
            (problem.line, problem.column)
        };
        assert_eq!(place(0), (1, 1));
        assert_eq!(place(3), (1, 4));
        assert_eq!(place(4), (2, 1));
        assert_eq!(place(10), (2, 7));
        assert_eq!(place(999), (3, 1), "past the end is the end");
    }

    #[test]
    fn the_nearest_name_is_offered_and_a_far_one_is_not() {
        let known = ["delay", "action", "remote_auth"];
        assert_eq!(nearest("dealy", known), Some("delay"));
        assert_eq!(nearest("remote_aut", known), Some("remote_auth"));
        assert_eq!(nearest("fish", known), None);
        assert!(unknown("key", "fish", &known).contains("known here: delay, action"));
    }
}
