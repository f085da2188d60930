//! `[radius]`: servers that say who may come in, and who may have sessions ended.

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::time::Duration;

use secure::{OwnKey, Radius, RadiusDynamic, RadiusServer, RadiusTls};
use spi::Secret;
use toml::Spanned;

use super::credentials::{keep, public_file, secret_file, trim_line_end};
use super::raw::{self, Word};
use super::reader::Reader;

/// Ports (RFC 2865, 2866, 5176, 6614).
const ACCESS: u16 = 1812;
const ACCOUNTING: u16 = 1813;
const DYNAMIC: u16 = 3799;
const TLS: u16 = 2083;
/// RFC 6614 section 2.3: what is secret over TLS is TLS.
const TLS_SECRET: &[u8] = b"radsec";
/// How often a session is accounted for where the server does not say.
const INTERIM: Duration = Duration::from_secs(600);
const TIMEOUT: std::ops::RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(30);

/// Reads it. `at` is where messages about the whole go; `open`: others may read the file.
pub(crate) fn section(
    raw: &raw::Radius,
    servers: Vec<(Range<usize>, raw::RadiusServer)>,
    at: Range<usize>,
    open: bool,
    reader: &mut Reader<'_>,
) -> Option<Radius> {
    let mut known: Vec<RadiusServer> = Vec::new();
    if servers.is_empty() {
        reader.error(at, "[radius] has no server; add [[radius.server]]");
    }
    for (at, raw) in servers {
        let name_at = raw.name.as_ref().map_or(at.clone(), Spanned::span);
        let Some(server) = server(raw, at, known.len(), open, reader) else { continue };
        if known.iter().any(|other| other.name == server.name) {
            reader.error(name_at, format!("two servers are called `{}`", server.name));
        }
        known.push(server);
    }
    let timeout = reader.duration(raw.timeout.as_ref(), Duration::from_secs(1));
    if let Some(word) = raw.timeout.as_ref().filter(|_| !TIMEOUT.contains(&timeout)) {
        reader.error(word.span(), "`timeout` must be between 100ms and 30s");
    }
    let tries = raw.tries.as_ref().map_or(3, |tries| *tries.get_ref());
    if let Some(word) = raw.tries.as_ref().filter(|tries| !(1..=8).contains(tries.get_ref())) {
        reader.error(word.span(), "`tries` must be between 1 and 8");
    }
    let nas_identifier = match &raw.nas_identifier {
        Some(word) if word.get_ref().is_empty() || word.get_ref().len() > 253 => {
            reader.error(word.span(), "`nas_identifier` has 1 to 253 octets");
            return None;
        }
        Some(word) => word.get_ref().clone(),
        None => "tussock".to_owned(),
    };
    let interim = reader.duration(raw.interim.as_ref(), INTERIM);
    Some(Radius {
        nas_identifier,
        nas_address: raw.nas_address.as_ref().and_then(|word| reader.parse(word, address)),
        servers: known,
        timeout,
        tries,
        interim: (!interim.is_zero()).then_some(interim),
        dynamic: raw.dynamic.as_ref().and_then(|dynamic_| dynamic(dynamic_, open, reader)),
    })
}

fn server(
    raw: raw::RadiusServer,
    at: Range<usize>,
    place: usize,
    open: bool,
    reader: &mut Reader<'_>,
) -> Option<RadiusServer> {
    let name = match &raw.name {
        Some(word) => word.get_ref().clone(),
        None => format!("server {}", place + 1),
    };
    let over_tls = raw.tls.is_some();
    let tls = match &raw.tls {
        Some(raw) => Some(tls(raw, reader)?),
        None => None,
    };
    let (port, accounting_port) = if over_tls { (TLS, TLS) } else { (ACCESS, ACCOUNTING) };
    let access = match &raw.address {
        Some(word) => reader.parse(word, |text| with_port(text, port)),
        None => {
            reader.error(at.clone(), "`address` is missing");
            None
        }
    };
    let accounting = match &raw.accounting {
        Some(word) if word.get_ref() == "none" => None,
        Some(word) => reader.parse(word, |text| with_port(text, accounting_port)),
        // Over TLS both go through one port.
        None if over_tls => access,
        None => access.map(|access| SocketAddr::new(access.ip(), accounting_port)),
    };
    let secret = match raw.secret.is_some() || raw.file.is_some() {
        false if over_tls => Secret::from_slice(TLS_SECRET),
        _ => secret(raw.secret, raw.file, at, open, reader)?,
    };
    Some(RadiusServer { name, access: access?, accounting, secret, tls })
}

fn tls(raw: &Spanned<raw::RadiusTls>, reader: &mut Reader<'_>) -> Option<RadiusTls> {
    let (at, raw) = (raw.span(), raw.get_ref());
    let Some(name) = &raw.server else {
        reader.error(at, "`tls` needs `server`, the name that the server's certificate is for");
        return None;
    };
    let certificates = |words: &Option<Vec<Word>>, reader: &mut Reader<'_>| {
        let mut all = Vec::new();
        for word in words.iter().flatten() {
            let file = public_file(word, reader);
            let read =
                file.and_then(|(name, bytes)| keep(word, secure::load::certificates(&name, &bytes), reader));
            all.extend(read.into_iter().flatten());
        }
        all
    };
    let anchors = certificates(&raw.ca, reader);
    if raw.ca.as_ref().is_none_or(Vec::is_empty) {
        reader.error(at.clone(), "`tls` needs `ca`, the CAs that the server's certificate may come from");
    }
    let own = match (&raw.key, &raw.cert) {
        (Some(word), Some(_)) => {
            let bytes = secret_file(word, reader)?;
            let source = keep(word, secure::load::private_key(word.get_ref(), &bytes), reader)?;
            let certs = certificates(&raw.cert, reader).into_iter().map(Into::into).collect();
            Some(OwnKey { name: word.get_ref().clone(), source, certs, url: None })
        }
        (None, None) => {
            // RFC 6614 section 2.3: both sides have certificates.
            reader.warn(at, "without `cert` and `key` the server has only our address to know us by");
            None
        }
        _ => {
            reader.error(at, "`cert` and `key` go together");
            return None;
        }
    };
    Some(RadiusTls { name: name.get_ref().clone(), anchors, own })
}

fn dynamic(raw: &Spanned<raw::RadiusDynamic>, open: bool, reader: &mut Reader<'_>) -> Option<RadiusDynamic> {
    let (at, raw) = (raw.span(), raw.get_ref());
    let listen = match &raw.listen {
        Some(word) => reader.parse(word, |text| with_port(text, DYNAMIC)),
        None => {
            reader.error(at.clone(), "`dynamic` needs `listen`, the address where requests come in");
            None
        }
    };
    let clients = reader.list(raw.clients.as_deref().unwrap_or_default(), address);
    if raw.clients.as_ref().is_none_or(Vec::is_empty) {
        reader.error(at.clone(), "`dynamic` needs `clients`, the addresses that requests may come from");
    }
    let secret = secret(raw.secret.clone(), raw.file.clone(), at.clone(), open, reader)?;
    let strict = raw.strict.unwrap_or(true);
    if !strict {
        reader.warn(at, "with strict = false whoever has seen a request can repeat it later");
    }
    Some(RadiusDynamic { listen: listen?, clients, secret, strict })
}

fn secret(
    given: Option<Word>,
    file: Option<Word>,
    at: Range<usize>,
    open: bool,
    reader: &mut Reader<'_>,
) -> Option<Secret> {
    let (place, secret) = match (given, file) {
        (Some(word), None) => {
            if open {
                let text = "a secret in a file that others may read; chmod 600 it, or use `file`";
                reader.warn(word.span(), text);
            }
            (word.span(), Secret::new(word.into_inner().into_bytes()))
        }
        (None, Some(word)) => (word.span(), trim_line_end(secret_file(&word, reader)?)),
        _ => {
            reader.error(at, "exactly one of `secret` and `file` says what the secret is");
            return None;
        }
    };
    if secret.is_empty() {
        reader.error(place, "the secret is empty");
        return None;
    }
    if secret.len() < 16 {
        // RFC 2865 section 3: a listener who guesses it reads the keys of all sessions.
        reader.warn(place, "the secret is short; 16 random octets or more keep it from being guessed");
    }
    Some(secret)
}

fn address(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| format!("`{text}` is not an address like \"192.0.2.1\" or \"2001:db8::1\""))
}

/// An address with a port, or the usual port.
fn with_port(text: &str, port: u16) -> Result<SocketAddr, String> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(SocketAddr::new(address, port));
    }
    text.parse().map_err(|_| {
        format!("`{text}` is not an address; write for example \"192.0.2.1\", \"192.0.2.1:{port}\" or \"[2001:db8::1]:{port}\"")
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{Loaded, parse};

    const GOOD: &str = r#"[radius]
nas_identifier = "gw.lab.test"
dynamic = { listen = "10.0.0.1", clients = ["10.0.0.5"], secret = "a secret of the laboratory" }

[[radius.server]]
name = "one"
address = "10.0.0.5"
secret = "a secret of the laboratory"

[[radius.server]]
name = "two"
address = "10.0.0.6:1645"
accounting = "none"
secret = "a secret of the laboratory"
"#;

    fn load(text: &str) -> Result<Loaded, Vec<String>> {
        parse(Path::new("g.toml"), text, 0o600)
            .map_err(|problems| problems.errors.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_section_is_understood() {
        let radius = load(GOOD).map_err(|errors| errors.join("\n")).unwrap().secure.radius.unwrap();
        let [one, two] = &radius.servers[..] else { panic!() };
        assert_eq!(
            (one.access, one.accounting),
            ("10.0.0.5:1812".parse().unwrap(), "10.0.0.5:1813".parse().ok())
        );
        assert_eq!((two.access, two.accounting), ("10.0.0.6:1645".parse().unwrap(), None));
        let dynamic = radius.dynamic.unwrap();
        assert_eq!((dynamic.listen, dynamic.strict), ("10.0.0.1:3799".parse().unwrap(), true));
        assert_eq!(radius.interim, Some(INTERIM));
    }

    #[test]
    fn every_mistake_is_said_at_its_line() {
        let one = "address = \"10.0.0.5\"";
        for (line, instead, want) in [
            (one, "address = \"radius.lab.test\"", "g.toml:7:11: `radius.lab.test` is not an address"),
            (one, "", "g.toml:5:1: `address` is missing"),
            (one, "address = \"10.0.0.5\"\nport = 7", "g.toml:8:1: unknown key `port`"),
            ("name = \"two\"", "name = \"one\"", "g.toml:11:8: two servers are called `one`"),
            (
                "nas_identifier = \"gw.lab.test\"",
                "nas_identifier = \"\"",
                "g.toml:2:18: `nas_identifier` has",
            ),
            ("nas_identifier = \"gw.lab.test\"", "tries = 9", "g.toml:2:9: `tries` must be between 1 and 8"),
            (
                "nas_identifier = \"gw.lab.test\"",
                "timeout = \"1h\"",
                "g.toml:2:11: `timeout` must be between",
            ),
            ("accounting = \"none\"", "tls = {}", "g.toml:13:7: `tls` needs `server`"),
        ] {
            let text = GOOD.replacen(line, instead, 1);
            let errors = load(&text).err().unwrap_or_default();
            assert!(errors.iter().any(|error| error.starts_with(want)), "{want}: {errors:#?}");
        }
        let errors = load("[radius]\n").err().unwrap();
        assert!(errors[0].starts_with("g.toml:1:1: [radius] has no server"), "{errors:?}");
        // A secret in the wrong place does not come out again.
        let errors =
            load(&GOOD.replacen("secret = \"a secret of the laboratory\"\n\n", "secret = 4711\n\n", 1));
        assert!(!errors.err().unwrap().join("").contains("4711"));
    }

    #[test]
    fn addresses_have_the_usual_port_unless_they_say_one() {
        assert_eq!(with_port("192.0.2.1", 7), Ok("192.0.2.1:7".parse().unwrap()));
        assert_eq!(with_port("192.0.2.1:8", 7), Ok("192.0.2.1:8".parse().unwrap()));
        assert_eq!(with_port("2001:db8::1", 7), Ok("[2001:db8::1]:7".parse().unwrap()));
        assert_eq!(with_port("[2001:db8::1]:8", 7), Ok("[2001:db8::1]:8".parse().unwrap()));
        for wrong in ["radius.lab.test", "192.0.2.1:", "192.0.2.1:70000", ""] {
            assert!(with_port(wrong, 7).is_err(), "{wrong}");
        }
    }
}
