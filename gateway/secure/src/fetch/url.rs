//! The URLs of certificates, as much of them as is needed: scheme, host, port and the rest.

/// A URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Url {
    /// In lower case.
    pub(crate) scheme: String,
    /// A name, or an address without brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
    /// From the slash on, without a fragment.
    pub(crate) rest: String,
}

/// Longest URL that is taken, octets.
const MAX_URL: usize = 2048;

impl Url {
    /// Takes a URL apart.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn parse(text: &str) -> Result<Url, String> {
        let shown: String = text.chars().filter(|c| !c.is_control()).take(200).collect();
        let wrong = |what: &str| Err(format!("`{shown}` {what}"));
        if text.len() > MAX_URL || !text.bytes().all(|octet| octet.is_ascii_graphic()) {
            return wrong("is not a URL");
        }
        let Some((scheme, after)) = text.split_once("://") else { return wrong("is not a URL") };
        let scheme = scheme.to_ascii_lowercase();
        let default = match &*scheme {
            "http" => 80,
            "ldap" => 389,
            "https" | "ldaps" => {
                return wrong("is by TLS, which needs a certificate to check another; write http or ldap");
            }
            _ => return wrong("is of a kind that is not fetched; http and ldap are"),
        };
        let end = after.find(['/', '?', '#']).unwrap_or(after.len());
        let (authority, rest) = after.split_at(end);
        let rest = rest.split('#').next().unwrap_or_default();
        if authority.contains('@') {
            return wrong("has a user name in it");
        }
        let (host, port) = match authority.strip_prefix('[') {
            Some(inside) => match inside.split_once(']') {
                Some((host, port)) if host.parse::<std::net::Ipv6Addr>().is_ok() => {
                    (host, port.strip_prefix(':'))
                }
                _ => return wrong("has an address that makes no sense"),
            },
            None => match authority.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (authority, None),
            },
        };
        let port = match port {
            None | Some("") => default,
            Some(port) => match port.parse() {
                Ok(port) if port > 0 => port,
                _ => return wrong("has a port that makes no sense"),
            },
        };
        if host.is_empty() || host.len() > 253 {
            return wrong("names no server");
        }
        let rest = if rest.starts_with('/') { rest.to_owned() } else { format!("/{rest}") };
        Ok(Url { scheme, host: host.to_ascii_lowercase(), port, rest })
    }

    /// The host as it stands before a port.
    pub(crate) fn bracketed(&self) -> String {
        if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() }
    }
}

/// `%41` to `A`; `None` where it makes no sense.
pub(crate) fn decode(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut octets = text.bytes();
    while let Some(octet) = octets.next() {
        if octet != b'%' {
            out.push(octet);
            continue;
        }
        let digit = |octet: u8| char::from(octet).to_digit(16);
        let (high, low) = (digit(octets.next()?)?, digit(octets.next()?)?);
        out.push(u8::try_from(high * 16 + low).ok()?);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart_or_refused_with_a_reason() {
        let url = Url::parse("HTTP://Crl.Lab.Test:8080/a/b.crl?x=1#frag").unwrap();
        assert_eq!(
            (&*url.scheme, &*url.host, url.port, &*url.rest),
            ("http", "crl.lab.test", 8080, "/a/b.crl?x=1")
        );
        let url = Url::parse("http://[fec0::1]").unwrap();
        assert_eq!((&*url.bracketed(), url.port, &*url.rest), ("[fec0::1]", 80, "/"));
        assert_eq!(Url::parse("ldap://h/cn=x?a").unwrap().port, 389);
        for (text, why) in [
            ("https://a/", "by TLS"),
            ("file:///etc/passwd", "not fetched"),
            ("ldap:///cn=x", "names no server"),
            ("http://u:p@a/", "user name"),
            ("http://a:0/", "port"),
            ("http://[a]/", "address"),
            ("http:a", "not a URL"),
            ("http://a/ b", "not a URL"),
            ("http://a/\r\nX: y", "not a URL"),
        ] {
            assert!(Url::parse(text).unwrap_err().contains(why), "{text}");
        }
        assert_eq!(decode("a%20b%2C").unwrap(), b"a b,");
        assert!(decode("%4").is_none() && decode("%zz").is_none());
    }
}
