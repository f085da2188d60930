//! Reading one table of the file into a typed struct without stopping at the first mistake: what serde complains about is
//! noted, the offending key is taken out, and the table is read again.

use std::ops::Range;

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use super::report::{Problems, Source, nearest};

/// A table of the file: its name for messages and where it is.
pub(crate) struct Section<'i> {
    /// As it stands in the file, for example `realm.site-b`.
    pub(crate) name: String,
    /// Where messages about the table as a whole point to.
    pub(crate) span: Range<usize>,
    /// Its keys.
    pub(crate) table: DeTable<'i>,
}

impl<'i> Section<'i> {
    /// Takes a value of the file that must be a table.
    pub(crate) fn of(
        name: impl Into<String>,
        value: Spanned<DeValue<'i>>,
        source: &Source,
        problems: &mut Problems,
    ) -> Option<Section<'i>> {
        let (name, span) = (name.into(), value.span());
        match value.into_inner() {
            DeValue::Table(table) => Some(Section { name, span, table }),
            other => {
                problems.error(source, span, format!("`{name}` must be a table, not {}", other.type_str()));
                None
            }
        }
    }

    /// Takes a key out of the table.
    pub(crate) fn take(&mut self, key: &str) -> Option<Spanned<DeValue<'i>>> {
        self.table.remove(key)
    }

    /// Takes out a key that holds a list of tables (`[[name]]`).
    pub(crate) fn take_list(
        &mut self,
        key: &str,
        source: &Source,
        problems: &mut Problems,
    ) -> Vec<Section<'i>> {
        let Some(value) = self.take(key) else { return Vec::new() };
        let name = if self.name.is_empty() { key.to_owned() } else { format!("{}.{key}", self.name) };
        let span = value.span();
        match value.into_inner() {
            DeValue::Array(list) => list
                .into_iter()
                .filter_map(|item| Section::of(name.clone(), item, source, problems))
                .collect(),
            _ => {
                problems.error(source, span, format!("`{name}` must be written `[[{name}]]`, once for each"));
                Vec::new()
            }
        }
    }

    /// Reads the table; `T` must be able to do without any key, since a key with a wrong value is taken out and noted.
    pub(crate) fn read<T: DeserializeOwned>(mut self, source: &Source, problems: &mut Problems) -> Option<T> {
        loop {
            let value = Spanned::new(self.span.clone(), DeValue::Table(self.table.clone()));
            let error = match T::deserialize(ValueDeserializer::from(value)) {
                Ok(read) => return Some(read),
                Err(error) => error,
            };
            let at = error.span().unwrap_or(self.span.clone());
            // What stands here may be a secret, whatever it looks like.
            let text = match explain(error.message()) {
                _ if self.name == "psk" && error.message().starts_with("invalid") => {
                    "expected a string, or a list of them for `ids`".to_owned()
                }
                _ if self.name == "eap" && error.message().starts_with("invalid") => {
                    "expected a string, or a list of them for `realms`".to_owned()
                }
                _ if self.name.starts_with("radius") && error.message().starts_with("invalid") => {
                    "expected another type; see [radius] in operations.md".to_owned()
                }
                text => text,
            };
            problems.error(source, at.clone(), text);
            let culprit = self.table.iter().find_map(|(key, value)| {
                let inside =
                    |span: Range<usize>| span.start <= at.start && at.start < span.end.max(span.start + 1);
                (inside(key.span()) || inside(value.span())).then(|| key.get_ref().to_string())
            });
            match culprit {
                Some(key) => {
                    self.table.remove(key.as_str());
                }
                None => return None,
            }
        }
    }
}

/// Serde's message in the words of the one who wrote the file.
fn explain(message: &str) -> String {
    if let Some(rest) = message.strip_prefix("unknown field `") {
        let mut words = rest.split('`').step_by(1);
        let word = words.next().unwrap_or_default();
        let known: Vec<&str> =
            rest.split('`').skip(1).enumerate().filter(|(i, _)| i % 2 == 1).map(|(_, w)| w).collect();
        return match nearest(word, known.iter().copied()) {
            Some(meant) => format!("unknown key `{word}`; did you mean `{meant}`?"),
            None => format!("unknown key `{word}`; known here: {}", known.join(", ")),
        };
    }
    if let Some(rest) = message.strip_prefix("invalid type: ") {
        return match rest.split_once(", expected ") {
            Some((is, "a sequence")) => format!("expected a list, [ … ], not {is}"),
            Some((is, want)) => format!("expected {want}, not {is}"),
            None => rest.to_owned(),
        };
    }
    message.to_owned()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields, default)]
    #[derive(Default)]
    struct Dog {
        name: Option<String>,
        legs: Option<u32>,
    }

    #[test]
    fn all_mistakes_of_a_table_are_reported_and_the_rest_is_read() {
        let text = "[dog]\nname = \"rex\"\nlegs = \"four\"\nnmae = 1\ntail = true\n";
        let source = Source::new(Path::new("d.toml"), text);
        let mut problems = Problems::default();
        let mut root = DeTable::parse(text).unwrap().into_inner();
        let section = Section::of("dog", root.remove("dog").unwrap(), &source, &mut problems).unwrap();
        let dog: Dog = section.read(&source, &mut problems).unwrap();
        assert_eq!((dog.name.as_deref(), dog.legs), (Some("rex"), None));
        problems.sort();
        let said: Vec<String> = problems.errors.iter().map(ToString::to_string).collect();
        assert_eq!(
            said,
            [
                "d.toml:3:8: expected u32, not string \"four\"",
                "d.toml:4:1: unknown key `nmae`; did you mean `name`?",
                "d.toml:5:1: unknown key `tail`; known here: name, legs",
            ]
        );
    }
}
