//! Traffic selectors of the configuration: fixed ones, and `dynamic` for the address a host turns out to have.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use thiserror::Error;
use wire::TrafficSelector;

use crate::realm::SelectorSpec;

/// Why a text is no selector.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SelectorError {
    /// Neither an address, a prefix nor a range; or its protocol or ports are wrong.
    #[error(
        "`{text}`: {why}; write `10.1.0.0/16`, `10.1.0.1-10.1.0.9`, `dynamic`, each with an optional `[tcp/80-90]`"
    )]
    Malformed {
        /// What was written.
        text: String,
        /// What is wrong.
        why: String,
    },
    /// A prefix with bits set behind its length, most likely a slip.
    #[error("`{text}` has bits set behind its prefix length; the network is `{network}`")]
    HostBits {
        /// What was written.
        text: String,
        /// What was probably meant.
        network: String,
    },
}

impl SelectorSpec {
    /// Reads `10.1.0.0/16`, `10.1.0.1`, `10.1.0.1-10.1.0.9`, `dynamic`, each with an optional `[protocol]`,
    /// `[protocol/port]`, `[protocol/first-last]` or `[protocol/opaque]`; for ICMP, type and code in place of ports.
    ///
    /// # Errors
    /// [`SelectorError`].
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let text = text.trim();
        let malformed = |why: String| SelectorError::Malformed { text: text.into(), why };
        let read = |t: &str| {
            t.parse::<TrafficSelector>().map_err(|e| {
                let why = e.to_string();
                malformed(why.strip_prefix("traffic selector: ").unwrap_or(&why).into())
            })
        };
        let head = text.split('[').next().unwrap_or_default().trim();
        if head.eq_ignore_ascii_case("dynamic") || head == "%dynamic" {
            // The suffix is read by the same parser, behind an address that is then forgotten.
            let suffix = text.find('[').and_then(|at| text.get(at..)).unwrap_or_default();
            let ts = read(&format!("0.0.0.0/0{suffix}"))?;
            return Ok(SelectorSpec::Dynamic {
                protocol: ts.protocol,
                start_port: ts.start_port,
                end_port: ts.end_port,
            });
        }
        let ts = read(text)?;
        if let Some((address, _)) = head.split_once('/')
            && address.trim().parse::<IpAddr>().is_ok_and(|address| address != ts.start)
        {
            let network = ts.to_prefix().map_or_else(|| ts.to_string(), |(a, l)| format!("{a}/{l}"));
            return Err(SelectorError::HostBits { text: text.into(), network });
        }
        Ok(SelectorSpec::Fixed(ts))
    }

    /// The selector, with `own` in place of a dynamic address; `None` when that is needed and not known.
    pub fn resolve(&self, own: Option<IpAddr>) -> Option<TrafficSelector> {
        match *self {
            SelectorSpec::Fixed(ts) => Some(ts),
            SelectorSpec::Dynamic { protocol, start_port, end_port } => {
                own.map(|a| TrafficSelector::host(a).with_protocol(protocol, start_port, end_port))
            }
        }
    }
}

impl FromStr for SelectorSpec {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, SelectorError> {
        SelectorSpec::parse(text)
    }
}

impl fmt::Display for SelectorSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            SelectorSpec::Fixed(ts) => ts.fmt(f),
            SelectorSpec::Dynamic { protocol, start_port, end_port } => {
                let any = TrafficSelector::host(Ipv4Addr::UNSPECIFIED.into());
                let text = any.with_protocol(protocol, start_port, end_port).to_string();
                write!(f, "dynamic{}", text.find('[').and_then(|at| text.get(at..)).unwrap_or_default())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_of_the_field_are_read_and_written_alike() {
        for text in [
            "10.1.0.0/16",
            "10.1.0.0/16[tcp/80-90]",
            "10.1.0.1-10.1.0.9[udp]",
            "fec1::/16[icmpv6/128]",
            "dynamic",
            "dynamic[udp/53]",
            "dynamic[gre]",
            "dynamic[tcp/opaque]",
        ] {
            assert_eq!(SelectorSpec::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(SelectorSpec::parse(" 10.1.0.1 ").unwrap().to_string(), "10.1.0.1/32");
    }

    #[test]
    fn a_dynamic_selector_takes_the_address_it_is_given() {
        let spec = SelectorSpec::parse("dynamic[tcp/22]").unwrap();
        assert_eq!(spec.resolve(None), None);
        let ts = spec.resolve(Some("10.3.0.5".parse().unwrap())).unwrap();
        assert_eq!(ts.to_string(), "10.3.0.5/32[tcp/22]");
    }

    #[test]
    fn slips_are_named() {
        let slip = SelectorSpec::parse("10.1.0.1/16[tcp]").unwrap_err();
        assert!(slip.to_string().contains("`10.1.0.0/16`"), "{slip}");
        for bad in [
            "",
            "any",
            "10.1.0.0/33",
            "10.1.0.0/16[tcp",
            "dynamic[foo]",
            "dynamix",
            "10.2.0.0-10.1.0.0",
            "10.0.0.1-fec0::1",
        ] {
            let e = SelectorSpec::parse(bad).unwrap_err();
            assert!(matches!(e, SelectorError::Malformed { .. }), "{bad}");
        }
    }
}
