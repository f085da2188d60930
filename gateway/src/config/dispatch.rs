//! `[dispatch]`: what goes first, how much of it, and how much of it may wait.

use toml::Spanned;

use super::raw;
use super::reader::Reader;
use crate::dispatch::critical::{Kinds, NAMES};
use crate::dispatch::{Class, Row, Table};

/// Units in one turn, at most: more would be no order any more.
const MAX_QUOTA: usize = 4096;
/// Units that may wait, at most.
const MAX_DEPTH: usize = 65_536;

/// Reads the dispatch table.
pub(crate) fn table(raw: &raw::Dispatch, reader: &mut Reader<'_>) -> Table {
    let mut table = Table::default();
    if let Some(words) = &raw.order
        && let Some(order) = order(words, reader)
    {
        table = table.with_order(order);
    }
    let rows = [
        (Class::Control, &raw.control),
        (Class::Ike, &raw.ike),
        (Class::Critical, &raw.critical),
        (Class::Esp, &raw.esp),
        (Class::Stranger, &raw.stranger),
    ];
    for (class, raw) in rows {
        let Some(raw) = raw else { continue };
        let row = row(class, table.row(class), raw.get_ref(), reader);
        table.set(class, row);
        match &raw.get_ref().packets {
            Some(words) if class == Class::Critical => {
                let kinds = words.iter().filter_map(|word| reader.choice("kind of packet", word, &NAMES));
                table.set_critical(kinds.fold(Kinds::empty(), |all, kind| all | kind));
            }
            Some(_) => {
                reader.error(raw.span(), "`packets` belongs to `critical`; all others follow from it");
            }
            None => {}
        }
    }
    table
}

fn order(words: &Spanned<Vec<raw::Word>>, reader: &mut Reader<'_>) -> Option<[Class; 5]> {
    let choices = Class::ALL.map(|class| (class.name(), class));
    let read: Vec<Class> =
        words.get_ref().iter().filter_map(|word| reader.choice("class", word, &choices)).collect();
    if read.len() < words.get_ref().len() {
        return None;
    }
    let every = Class::ALL.iter().all(|class| read.iter().filter(|other| *other == class).count() == 1);
    match read.try_into() {
        Ok(order) if every => Some(order),
        _ => {
            let names = Class::ALL.map(Class::name).join("\", \"");
            reader.error(words.span(), format!("`order` must name every class once: \"{names}\""));
            None
        }
    }
}

fn row(class: Class, usual: Row, raw: &raw::DispatchRow, reader: &mut Reader<'_>) -> Row {
    let mut number = |what: &str, given: &Option<Spanned<usize>>, usual: usize, most: usize| match given {
        None => usual,
        Some(number) if (1..=most).contains(number.get_ref()) => *number.get_ref(),
        Some(number) => {
            // Nothing of a class would be a way to lock oneself out.
            reader.error(number.span(), format!("`{what}` must be between 1 and {most}"));
            usual
        }
    };
    let quota = number("quota", &raw.quota, usual.quota, MAX_QUOTA);
    let depth = number("depth", &raw.depth, usual.depth, MAX_DEPTH);
    if class == Class::Control && raw.depth.is_some() {
        let at = raw.depth.as_ref().map_or(0..0, |depth| depth.span());
        reader.error(at, "what waits in `control` is bounded by those who send it; it has no `depth`");
    }
    Row { quota, depth }
}
