//! From words to values, noting what is wrong and going on.

use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use policy::SelectorSpec;
use wire::TrafficSelector;

use super::raw::Word;
use super::report::{Problems, Source, unknown};
use super::units;

/// Reads the words of one file.
pub(crate) struct Reader<'a> {
    /// The file.
    pub(crate) source: &'a Source,
    /// What was wrong so far.
    pub(crate) problems: &'a mut Problems,
}

impl Reader<'_> {
    /// Notes an error.
    pub(crate) fn error(&mut self, at: Range<usize>, text: impl Into<String>) {
        self.problems.error(self.source, at, text);
    }

    /// Notes a warning.
    pub(crate) fn warn(&mut self, at: Range<usize>, text: impl Into<String>) {
        self.problems.warn(self.source, at, text);
    }

    /// Reads a word with a parser of its own.
    pub(crate) fn parse<T, E: Display>(
        &mut self,
        word: &Word,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Option<T> {
        match parse(word.get_ref()) {
            Ok(value) => Some(value),
            Err(error) => {
                self.error(word.span(), error.to_string());
                None
            }
        }
    }

    /// Reads every word of a list; what cannot be read is noted and left out.
    pub(crate) fn list<T, E: Display>(
        &mut self,
        words: &[Word],
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Vec<T> {
        words.iter().filter_map(|word| self.parse(word, &parse)).collect()
    }

    /// Reads one of a few words.
    pub(crate) fn choice<T: Copy>(&mut self, what: &str, word: &Word, choices: &[(&str, T)]) -> Option<T> {
        let found = choices.iter().find(|(name, _)| *name == word.get_ref().as_str());
        if found.is_none() {
            let known: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
            self.error(word.span(), unknown(what, word.get_ref(), &known));
        }
        found.map(|(_, value)| *value)
    }

    /// Reads a time, `default` when there is none.
    pub(crate) fn duration(&mut self, word: Option<&Word>, default: Duration) -> Duration {
        word.and_then(|word| self.parse(word, units::duration)).unwrap_or(default)
    }

    /// A path, relative ones from the folder of the file.
    pub(crate) fn path(&self, word: &Word) -> PathBuf {
        self.source.folder().join(word.get_ref())
    }
}

/// An address, or a prefix with its length.
///
/// # Errors
/// What is wrong.
pub(crate) fn prefix(text: &str) -> Result<(IpAddr, Option<u8>), String> {
    let wrong = || {
        format!("`{text}` is not an address or prefix; write for example \"192.168.0.1\" or \"10.0.0.0/8\"")
    };
    let Some((address, length)) = text.split_once('/') else {
        return Ok((text.parse().map_err(|_| wrong())?, None));
    };
    let address: IpAddr = address.parse().map_err(|_| wrong())?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let length: u8 = length.parse().ok().filter(|length| *length <= most).ok_or_else(wrong)?;
    Ok((address, Some(length)))
}

/// An IPv4 network.
///
/// # Errors
/// What is wrong.
pub(crate) fn network_v4(text: &str) -> Result<(Ipv4Addr, u8), String> {
    match prefix(text)? {
        (IpAddr::V4(address), Some(length)) => {
            let (network, _) = canonical(IpAddr::V4(address), length);
            if network != IpAddr::V4(address) {
                return Err(format!("`{text}` has host bits set; did you mean `{network}/{length}`?"));
            }
            Ok((address, length))
        }
        _ => Err(format!("`{text}` is not an IPv4 network like \"10.3.0.0/24\"")),
    }
}

/// An IPv6 network.
///
/// # Errors
/// What is wrong.
pub(crate) fn network_v6(text: &str) -> Result<(Ipv6Addr, u8), String> {
    match prefix(text)? {
        (IpAddr::V6(address), Some(length)) => {
            let (network, _) = canonical(IpAddr::V6(address), length);
            if network != IpAddr::V6(address) {
                return Err(format!("`{text}` has host bits set; did you mean `{network}/{length}`?"));
            }
            Ok((address, length))
        }
        _ => Err(format!("`{text}` is not an IPv6 network like \"fec3::/120\"")),
    }
}

/// A network of either family; a bare address is a network of one.
///
/// # Errors
/// What is wrong.
pub(crate) fn network(text: &str) -> Result<(IpAddr, u8), String> {
    let (address, length) = prefix(text)?;
    let length = length.unwrap_or(if address.is_ipv4() { 32 } else { 128 });
    Ok(canonical(address, length))
}

/// A traffic selector that may not be `dynamic`, as carve-outs need it.
///
/// # Errors
/// What is wrong.
pub(crate) fn fixed_selector(text: &str) -> Result<TrafficSelector, String> {
    match SelectorSpec::parse(text) {
        Ok(SelectorSpec::Fixed(selector)) => Ok(selector),
        Ok(SelectorSpec::Dynamic { .. }) => {
            Err("`dynamic` means nothing here; write a prefix or a range".to_owned())
        }
        Err(error) => Err(error.to_string()),
    }
}

fn canonical(address: IpAddr, length: u8) -> (IpAddr, u8) {
    (TrafficSelector::from_prefix(address, length).start, length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_checked_against_their_family() {
        assert_eq!(prefix("10.0.0.0/8"), Ok(("10.0.0.0".parse().unwrap(), Some(8))));
        assert_eq!(prefix("::1"), Ok(("::1".parse().unwrap(), None)));
        for wrong in ["10.0.0.0/33", "::/129", "10.0.0/8", "site.lab.test", ""] {
            assert!(prefix(wrong).is_err(), "{wrong}");
        }
        assert!(network_v4("10.3.0.7/24").unwrap_err().contains("`10.3.0.0/24`"));
        assert!(network_v6("10.3.0.0/24").is_err());
        assert_eq!(network("10.3.0.7/24"), Ok(("10.3.0.0".parse().unwrap(), 24)));
    }
}
