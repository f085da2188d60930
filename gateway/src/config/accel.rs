//! `[accel.NAME]`: a device to use, by the name that messages call it by. Which keys there are for which driver, and what makes sense in
//! them, the registry decides, which knows the drivers.

use std::ops::Range;

use registry::Accel;
use registry::accel::{Form, Value, check, kind};
use toml::Spanned;
use toml::de::DeValue;

use super::reader::Reader;
use super::report::unknown;
use super::section::Section;

/// Reads one section after those that were read already; `at` is where messages about the whole go.
pub(crate) fn section(
    name: &str,
    mut section: Section<'_>,
    at: Range<usize>,
    before: &[Accel],
    reader: &mut Reader<'_>,
) -> Option<Accel> {
    let mut accel = Accel::new(name);
    let mut places: Vec<(String, Range<usize>)> = Vec::new();
    if let Some(word) = section.take("driver") {
        places.push(("driver".into(), word.span()));
        match word.get_ref().as_str() {
            Some(driver) => accel.driver = driver.to_owned(),
            None => {
                reader.error(word.span(), format!("expected a string, not {}", word.get_ref().type_str()));
                return None;
            }
        }
    }
    // An unknown driver's keys nobody knows; what is said is that there is no such driver.
    let keys = kind(&accel.driver).map_or(&[][..], |kind| kind.keys);
    let mut sound = true;
    for (key, value) in section.table {
        let Some((key, form)) = keys.iter().find(|(name, _)| *name == key.get_ref().as_ref()) else {
            if kind(&accel.driver).is_some() {
                let known: Vec<&str> = keys.iter().map(|(name, _)| *name).chain(["driver"]).collect();
                reader.error(key.span(), unknown("key", key.get_ref(), &known));
                sound = false;
            }
            continue;
        };
        match held(*form, &value, reader) {
            Some(held) => {
                // It may come later, like any device, and a path that was mistyped never does.
                if let (Form::File, Value::Path(path)) = (form, &held)
                    && !path.exists()
                {
                    reader.warn(value.span(), format!("{}: there is no such file", path.display()));
                }
                accel.values.insert((*key).to_owned(), held)
            }
            None => {
                let text = format!("expected {}, not {}", form.expected(), value.get_ref().type_str());
                reader.error(value.span(), text);
                sound = false;
                None
            }
        };
        places.push(((*key).to_owned(), value.span()));
    }
    if !sound {
        return None;
    }
    let sections: Vec<Accel> = before.iter().cloned().chain([accel.clone()]).collect();
    if let Err(error) = check(&sections) {
        // What is said of a key is said at the key.
        let place = places.into_iter().find(|(key, _)| Some(key.as_str()) == error.key);
        reader.error(place.map_or(at, |(_, span)| span), error.to_string());
        return None;
    }
    Some(accel)
}

/// What a key was given, if it is what it should be.
fn held(form: Form, value: &Spanned<DeValue<'_>>, reader: &Reader<'_>) -> Option<Value> {
    let value = value.get_ref();
    Some(match form {
        Form::Text => Value::Text(value.as_str()?.to_owned()),
        Form::Path | Form::File => {
            let path = reader.source.folder().join(value.as_str()?);
            Value::Path(std::path::absolute(&path).unwrap_or(path))
        }
        Form::Flag => Value::Flag(value.as_bool()?),
        Form::Number => {
            let number = value.as_integer()?;
            Value::Number(u64::from_str_radix(number.as_str(), number.radix()).ok()?)
        }
    })
}
