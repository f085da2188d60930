//! `[accel.NAME]`: a device to use, by the name that messages call it by. What makes sense in it the registry decides, which knows
//! the drivers.

use std::ops::Range;

use registry::Accel;

use super::raw;
use super::reader::Reader;

/// Reads one section after those that were read already; `at` is where messages about the whole go.
pub(crate) fn section(
    name: &str,
    raw: &raw::Accel,
    at: Range<usize>,
    before: &[Accel],
    reader: &mut Reader<'_>,
) -> Option<Accel> {
    let mut accel = Accel::new(name);
    let word = |word: &Option<raw::Word>| word.as_ref().map(|word| word.get_ref().clone());
    (accel.driver, accel.device) = (word(&raw.driver), word(&raw.device));
    accel.interrupts = raw.interrupts;
    if let Some(socket) = &raw.socket {
        let path = reader.path(socket);
        accel.socket = Some(std::path::absolute(&path).unwrap_or(path));
    }
    let sections: Vec<Accel> = before.iter().cloned().chain([accel.clone()]).collect();
    if let Err(error) = registry::accel::check(&sections) {
        // What is said of a key is said at the key.
        let keys =
            [("device =", &raw.device), ("socket =", &raw.socket), ("there is no driver", &raw.driver)];
        let key = keys.into_iter().find(|(begin, _)| error.what.starts_with(begin));
        let at = key.and_then(|(_, word)| word.as_ref()).map_or(at, |word| word.span());
        reader.error(at, error.to_string());
        return None;
    }
    Some(accel)
}

/// Where a device is, for people.
pub(crate) fn place(accel: &Accel) -> String {
    let socket = accel.socket.as_ref().map(|socket| socket.display().to_string());
    accel.device.clone().or(socket).unwrap_or_default()
}
