//! PKCS #11 URIs (RFC 7512): which token, which object on it, and where its PIN is to be found.

use std::path::PathBuf;

/// What kind of object is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// `cert`
    Cert,
    /// `private`
    Private,
    /// `public`
    Public,
    /// `secret-key`
    SecretKey,
    /// `data`
    Data,
}

/// A URI, taken apart. What it does not say is `None` and fits everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Uri {
    /// Label of the token.
    pub token: Option<String>,
    /// Manufacturer of the token.
    pub manufacturer: Option<String>,
    /// Model of the token.
    pub model: Option<String>,
    /// Serial number of the token.
    pub serial: Option<String>,
    /// Number of the slot.
    pub slot_id: Option<u64>,
    /// Label of the object (CKA_LABEL).
    pub object: Option<String>,
    /// Identifier of the object (CKA_ID).
    pub id: Option<Vec<u8>>,
    /// Class of the object (CKA_CLASS).
    pub class: Option<Class>,
    /// Path of the module.
    pub module_path: Option<PathBuf>,
    /// The file with the PIN.
    pub pin_source: Option<PathBuf>,
}

/// Why a text is no URI that can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UriError(String);

impl std::fmt::Display for UriError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for UriError {}

const KNOWN: &str =
    "token, manufacturer, model, serial, slot-id, object, id, type; after `?`: module-path, pin-source";

fn error<T>(text: impl Into<String>) -> Result<T, UriError> {
    Err(UriError(text.into()))
}

impl Uri {
    /// Takes a URI apart.
    ///
    /// # Errors
    /// What is wrong with it, and what would be right. The text never shows a PIN.
    pub fn parse(text: &str) -> Result<Uri, UriError> {
        let Some(rest) = text.strip_prefix("pkcs11:") else {
            return error("a PKCS #11 URI begins with pkcs11:, for example pkcs11:token=lab;object=moon");
        };
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let mut uri = Uri::default();
        let mut seen: Vec<&str> = Vec::new();
        let parts =
            path.split(';').map(|part| (part, false)).chain(query.split('&').map(|part| (part, true)));
        for (part, in_query) in parts.filter(|(part, _)| !part.is_empty()) {
            let Some((name, value)) = part.split_once('=') else {
                return error(format!("`{part}` has no `=`; attributes are written name=value"));
            };
            // RFC 7512 section 2.3: no attribute of the path more than once; twice in the query helps nobody either.
            if seen.contains(&name) {
                return error(format!("`{name}` is there twice"));
            }
            seen.push(name);
            match in_query {
                false => uri.take(name, value)?,
                true => uri.take_query(name, value)?,
            }
        }
        Ok(uri)
    }

    fn take(&mut self, name: &str, value: &str) -> Result<(), UriError> {
        match name {
            "token" => self.token = Some(text(name, value)?),
            "manufacturer" => self.manufacturer = Some(text(name, value)?),
            "model" => self.model = Some(text(name, value)?),
            "serial" => self.serial = Some(text(name, value)?),
            "object" => self.object = Some(text(name, value)?),
            "id" => self.id = Some(octets(name, value)?),
            "slot-id" => match value.parse() {
                Ok(number) => self.slot_id = Some(number),
                Err(_) => return error(format!("slot-id is a number, not `{value}`")),
            },
            "type" => {
                self.class = Some(match value {
                    "cert" => Class::Cert,
                    "private" => Class::Private,
                    "public" => Class::Public,
                    "secret-key" => Class::SecretKey,
                    "data" => Class::Data,
                    _ => {
                        return error(format!(
                            "type is cert, private, public, secret-key or data, not `{value}`"
                        ));
                    }
                });
            }
            // Which library it is says the configuration, by its path.
            "library-manufacturer"
            | "library-description"
            | "library-version"
            | "slot-manufacturer"
            | "slot-description" => {}
            "pin-value" | "pin-source" | "module-path" | "module-name" => {
                return error(format!("`{name}` stands after a `?`"));
            }
            _ => return error(format!("there is no attribute `{name}`; there are {KNOWN}")),
        }
        Ok(())
    }

    fn take_query(&mut self, name: &str, value: &str) -> Result<(), UriError> {
        match name {
            "module-path" => self.module_path = Some(text(name, value)?.into()),
            "pin-source" => {
                let source = text(name, value)?;
                if source.starts_with('|') {
                    return error("pin-source is a command, and none is run; name a file");
                }
                // RFC 7512 section 2.4: a path, or a file: URI with an empty or local authority.
                let path = match source.strip_prefix("file:") {
                    Some(rest) => {
                        rest.strip_prefix("//localhost").or(rest.strip_prefix("//")).unwrap_or(rest)
                    }
                    None => &source,
                };
                if !path.starts_with('/') {
                    return error(
                        "pin-source is the absolute path of a file, for example pin-source=/etc/tussock/hsm.pin",
                    );
                }
                self.pin_source = Some(path.into());
            }
            "pin-value" => {
                return error(
                    "pin-value shows the PIN to everybody who sees the URI; put it into a file and name that by pin-source",
                );
            }
            "module-name" => return error("module-name is not understood; name the module by its path"),
            _ => return error(format!("there is no attribute `{name}`; there are {KNOWN}")),
        }
        Ok(())
    }

    /// Whether it says nothing about an object, so that it means a token.
    pub fn is_of_token(&self) -> bool {
        self.object.is_none() && self.id.is_none() && self.class.is_none()
    }

    /// Whether a token with these words and in this slot may be meant.
    pub fn fits(&self, token: &Words<'_>, slot: u64) -> bool {
        let fits = |wanted: &Option<String>, is: &str| {
            wanted.as_deref().is_none_or(|wanted| wanted == is.trim_end())
        };
        fits(&self.token, token.label)
            && fits(&self.manufacturer, token.manufacturer)
            && fits(&self.model, token.model)
            && fits(&self.serial, token.serial)
            && self.slot_id.is_none_or(|wanted| wanted == slot)
    }

    /// Whether one and the same token may be meant by both.
    pub fn agrees(&self, other: &Uri) -> bool {
        fn agree<T: PartialEq>(a: &Option<T>, b: &Option<T>) -> bool {
            a.is_none() || b.is_none() || a == b
        }
        agree(&self.token, &other.token)
            && agree(&self.manufacturer, &other.manufacturer)
            && agree(&self.model, &other.model)
            && agree(&self.serial, &other.serial)
            && agree(&self.slot_id, &other.slot_id)
            && agree(&self.module_path, &other.module_path)
    }
}

/// What a token says of itself.
#[derive(Clone, Copy, Debug)]
pub struct Words<'a> {
    /// Its label.
    pub label: &'a str,
    /// Who made it.
    pub manufacturer: &'a str,
    /// What it is.
    pub model: &'a str,
    /// Which of them it is.
    pub serial: &'a str,
}

impl std::fmt::Display for Uri {
    /// The URI without where its PIN is.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let class = self.class.map(|class| match class {
            Class::Cert => "cert",
            Class::Private => "private",
            Class::Public => "public",
            Class::SecretKey => "secret-key",
            Class::Data => "data",
        });
        let texts = [
            ("token", self.token.as_deref()),
            ("manufacturer", self.manufacturer.as_deref()),
            ("model", self.model.as_deref()),
            ("serial", self.serial.as_deref()),
            ("object", self.object.as_deref()),
        ];
        let mut parts: Vec<String> = texts
            .into_iter()
            .filter_map(|(name, text)| Some(format!("{name}={}", written(text?.as_bytes()))))
            .collect();
        parts.extend(self.slot_id.map(|slot| format!("slot-id={slot}")));
        parts.extend(
            self.id
                .as_ref()
                .map(|id| format!("id={}", id.iter().map(|o| format!("%{o:02x}")).collect::<String>())),
        );
        parts.extend(class.map(|class| format!("type={class}")));
        write!(f, "pkcs11:{}", parts.join(";"))
    }
}

/// Octets with everything escaped that is not allowed as it is (RFC 7512 section 2.3, `pk11-pchar`).
fn written(octets: &[u8]) -> String {
    let plain = |octet: u8| octet.is_ascii_alphanumeric() || b"-._~:[]@!$'()*+,=&".contains(&octet);
    let one =
        |octet: &u8| if plain(*octet) { char::from(*octet).to_string() } else { format!("%{octet:02X}") };
    octets.iter().map(one).collect()
}

fn octets(name: &str, value: &str) -> Result<Vec<u8>, UriError> {
    let mut out = Vec::with_capacity(value.len());
    let mut rest = value.bytes();
    while let Some(octet) = rest.next() {
        if octet != b'%' {
            out.push(octet);
            continue;
        }
        let digit = |octet: Option<u8>| octet.and_then(|octet| char::from(octet).to_digit(16));
        match (digit(rest.next()), digit(rest.next())) {
            (Some(high), Some(low)) => out.push((high * 16 + low) as u8),
            _ => return error(format!("in `{name}` a % is not followed by two hexadecimal digits")),
        }
    }
    Ok(out)
}

fn text(name: &str, value: &str) -> Result<String, UriError> {
    let octets = octets(name, value)?;
    String::from_utf8(octets).or_else(|_| error(format!("`{name}` is not UTF-8")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(text: &str) -> String {
        Uri::parse(text).unwrap_err().to_string()
    }

    #[test]
    fn the_attributes_are_found_and_unescaped() {
        let uri = Uri::parse(
            "pkcs11:token=The%20Software%20PKCS%2311%20Softtoken;serial=32;object=my-key;type=private;id=%01%ffA\
             ?pin-source=file:///etc/token&module-path=/usr/lib/p11.so",
        )
        .unwrap();
        assert_eq!(uri.token.as_deref(), Some("The Software PKCS#11 Softtoken"));
        assert_eq!(uri.serial.as_deref(), Some("32"));
        assert_eq!(uri.object.as_deref(), Some("my-key"));
        assert_eq!(uri.class, Some(Class::Private));
        assert_eq!(uri.id.as_deref(), Some(&[1, 0xff, b'A'][..]));
        assert_eq!(uri.pin_source, Some("/etc/token".into()));
        assert_eq!(uri.module_path, Some("/usr/lib/p11.so".into()));
        let again = Uri::parse(&uri.to_string()).unwrap();
        assert_eq!(again, Uri { pin_source: None, module_path: None, ..uri }, "what is shown says the same");
        assert_eq!(Uri::parse("pkcs11:").unwrap(), Uri::default());
        assert!(Uri::parse("pkcs11:slot-id=7;library-version=3").unwrap().is_of_token());
    }

    #[test]
    fn errors_say_what_would_be_right_and_show_no_pin() {
        for (text, part) in [
            ("moon.key", "begins with pkcs11:"),
            ("pkcs11:token", "has no `=`"),
            ("pkcs11:token=a;token=b", "twice"),
            ("pkcs11:tokn=a", "no attribute `tokn`; there are token"),
            ("pkcs11:type=key", "cert, private"),
            ("pkcs11:id=%0", "hexadecimal"),
            ("pkcs11:object=%ff", "UTF-8"),
            ("pkcs11:slot-id=x", "number"),
            ("pkcs11:pin-source=/a", "after a `?`"),
            ("pkcs11:?pin-source=|echo", "none is run"),
            ("pkcs11:?pin-source=a", "absolute path"),
            ("pkcs11:?module-name=a", "path"),
        ] {
            let said = wrong(text);
            assert!(said.contains(part), "{text}: {said}");
        }
        let said = wrong("pkcs11:token=a?pin-value=s3cret");
        assert!(said.contains("pin-source") && !said.contains("s3cret"), "{said}");
    }

    #[test]
    fn what_is_not_said_fits_everything() {
        let words = Words { label: "lab   ", manufacturer: "m", model: "x", serial: "1" };
        for fits in ["pkcs11:", "pkcs11:token=lab", "pkcs11:serial=1;slot-id=7;object=k"] {
            assert!(Uri::parse(fits).unwrap().fits(&words, 7), "{fits}");
        }
        for not in ["pkcs11:token=la", "pkcs11:serial=2", "pkcs11:slot-id=8;token=lab"] {
            assert!(!Uri::parse(not).unwrap().fits(&words, 7), "{not}");
        }
        let site = Uri::parse("pkcs11:token=lab").unwrap();
        assert!(site.agrees(&Uri::parse("pkcs11:object=k").unwrap()));
        assert!(!site.agrees(&Uri::parse("pkcs11:token=lob;object=k").unwrap()));
    }

    /// Whatever comes in, nothing panics, and what parses is shown as something that parses.
    #[test]
    fn any_text_is_taken_or_refused() {
        let pieces =
            ["pkcs11:", "token", "=", ";", "?", "&", "%", "%41", "%zz", "id", "é", "|", "pin-source=/", "\0"];
        let mut seed = 7u64;
        for _ in 0..20_000 {
            let mut text = String::from("pkcs11:");
            for _ in 0..8 {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                text.push_str(pieces[(seed >> 40) as usize % pieces.len()]);
            }
            if let Ok(uri) = Uri::parse(&text) {
                assert!(Uri::parse(&uri.to_string()).is_ok(), "{text}");
            }
        }
    }
}
