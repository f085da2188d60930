//! Secrets, keys and certificates: read from where the file names them into what the key side takes over.

use std::fs;
use std::io::Read;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use policy::IdMatch;
use secure::{
    Certificate, Credentials, CrlSource, EapCredentials, LoadError, Lookups, OwnCertificate, OwnKey, Psk,
    Revocation, RevocationMode, Trust,
};
use spi::cert::Usages;
use spi::{KeySource, Secret};
use toml::Spanned;
use zeroize::Zeroize;

use super::raw::{self, Word, Words};
use super::reader::Reader;
use super::units;

/// Largest file read for a key or certificate, octets.
const MAX_FILE: u64 = secure::load::MAX_FILE as u64;

/// Reads one `[[psk]]`; `at` is where messages about the whole go.
pub(crate) fn psk(raw: raw::Psk, at: Range<usize>, reader: &mut Reader<'_>) -> Option<Psk> {
    let ids = match &raw.ids {
        Some(ids) => reader.list(ids.get_ref(), IdMatch::parse),
        None => {
            reader.error(
                at.clone(),
                "`ids` is missing; write for example [\"moon.lab.test\", \"sun.lab.test\"]",
            );
            Vec::new()
        }
    };
    let given = [raw.secret.is_some(), raw.file.is_some(), raw.hex.is_some()];
    if given.iter().filter(|given| **given).count() != 1 {
        reader.error(at, "exactly one of `secret`, `file` and `hex` says what the secret is");
        return None;
    }
    let (at, secret) = if let Some(word) = raw.secret {
        (word.span(), Secret::new(word.into_inner().into_bytes()))
    } else if let Some(word) = raw.hex {
        let at = word.span();
        let mut text = word.into_inner();
        let bytes = units::hex(&text);
        text.zeroize();
        match bytes {
            Ok(bytes) => (at, Secret::new(bytes)),
            Err(error) => {
                reader.error(at, format!("`hex` {error}"));
                return None;
            }
        }
    } else if let Some(word) = raw.file {
        (word.span(), trim_line_end(secret_file(&word, reader)?))
    } else {
        return None;
    };
    if secret.is_empty() {
        reader.error(at, "the secret is empty");
        return None;
    }
    if secret.len() < 16 {
        // RFC 7296 section 2.15: a secret that can be guessed can be guessed by anybody who plays responder.
        reader.warn(at, "the secret is short; 16 random octets or more keep it from being guessed");
    }
    Some(Psk { ids, realm: raw.realm.map(|word| word.into_inner().into()), secret })
}

/// Reads the keys and certificates of a realm; `None` when it has neither.
pub(crate) fn credentials(
    local: Option<&Spanned<raw::Auth>>,
    remote: Option<&Spanned<raw::Auth>>,
    reader: &mut Reader<'_>,
) -> Option<Credentials> {
    let own = local.filter(|auth| !is_eap(auth)).and_then(|auth| own_keys(auth, reader));
    let trust = remote.filter(|auth| !is_eap(auth)).map(|auth| trust(auth, reader)).unwrap_or_default();
    let eap = eap_credentials(local, remote, &trust.revocation, reader);
    let mut own = own.into_iter().flatten();
    let (own, also) = (own.next(), own.collect());
    let some = own.is_some() || eap.is_some() || !trust.is_empty();
    some.then_some(Credentials { own, also, trust, eap })
}

/// Certificates for EAP methods in TLS: of the side that says `method = "eap"`. What a client does not say of the server it
/// takes from what it says of the gateway.
fn eap_credentials(
    local: Option<&Spanned<raw::Auth>>,
    remote: Option<&Spanned<raw::Auth>>,
    gateways: &Revocation,
    reader: &mut Reader<'_>,
) -> Option<EapCredentials> {
    let auth = remote.into_iter().chain(local).find(|auth| is_eap(auth))?;
    let raw = auth.get_ref();
    if let Some(word) = &raw.pubkey {
        reader.error(word.span(), "EAP has no use for a `pubkey`");
    }
    // What `local_auth` has of it is spoken of with the methods.
    let trust = remote.filter(|auth| is_eap(auth)).and_then(|auth| auth.get_ref().trust.as_ref());
    if let Some(word) = trust {
        reader.error(word.span(), "`trust` goes with method = \"pubkey\"");
    }
    let own = match (&raw.key, &raw.cert) {
        (Some(key), _) => own_key(&raw.cert, Some(key), None, auth.span(), reader),
        (None, Some(certs)) => {
            let at = certs.first().map_or(auth.span(), Word::span);
            reader.error(at, "a `cert` without its `key`");
            None
        }
        (None, None) => None,
    };
    let elsewhere = remote.filter(|auth| !is_eap(auth)).and_then(|auth| auth.get_ref().ca.as_deref());
    let mut anchors = Vec::new();
    for word in raw.ca.as_deref().or(elsewhere).unwrap_or_default() {
        let file = public_file(word, reader);
        let read =
            file.and_then(|(name, bytes)| keep(word, secure::load::certificates(&name, &bytes), reader));
        anchors.extend(read.into_iter().flatten());
    }
    // The gateway's name, where it has one.
    let ids = remote.and_then(|auth| auth.get_ref().id.as_ref()).map(Words::each);
    let gateway = ids.filter(|ids| ids.len() == 1).and_then(|ids| ids.into_iter().next());
    let server = raw.server.clone().or(gateway);
    Some(EapCredentials {
        own,
        anchors,
        revocation: eap_revocation(raw, gateways, reader),
        server_name: server.map(Word::into_inner),
        inner: super::eap::inner(raw, reader),
        anonymous: raw.anonymous.as_ref().map(|word| word.get_ref().clone()),
    })
}

/// How revocation of certificates in TLS is looked at: as it says here, or as it says of the gateway's.
fn eap_revocation(raw: &raw::Auth, gateways: &Revocation, reader: &mut Reader<'_>) -> Revocation {
    let about_revocation = ["revocation", "crl", "ocsp", "ocsp_signer"];
    let radius = raw.radius.as_ref().is_some_and(|radius| *radius.get_ref());
    let mut said = false;
    for (word, key) in peers_words(raw) {
        if about_revocation.contains(&key) {
            said = true;
            if radius {
                let text =
                    "with `radius = true` it is the RADIUS server that judges certificates; leave this out";
                reader.error(word.span(), text);
            }
        } else if ["intermediate", "usages", "lookup"].contains(&key) {
            reader.error(word.span(), format!("`{key}` goes with method = \"pubkey\""));
        }
    }
    if said { revocation(raw, reader) } else { gateways.clone() }
}

/// Our keys, the first one first.
fn own_keys(auth: &Spanned<raw::Auth>, reader: &mut Reader<'_>) -> Option<Vec<OwnKey>> {
    let raw = auth.get_ref();
    // `trust` is spoken of with the methods.
    for (word, key) in peers_words(raw).filter(|(_, key)| *key != "trust") {
        reader
            .error(word.span(), format!("`{key}` says how a peer is checked; it belongs into `remote_auth`"));
    }
    if !is_pubkey(raw) {
        if let Some(word) = raw.key.as_ref().or_else(|| raw.cert.as_ref().and_then(|list| list.first())) {
            reader.error(word.span(), "`key` and `cert` go with method = \"pubkey\"");
        }
        return None;
    }
    let mut keys =
        Vec::from_iter(own_key(&raw.cert, raw.key.as_ref(), raw.url.as_ref(), auth.span(), reader));
    for also in raw.also.iter().flatten() {
        let raw = also.get_ref();
        keys.extend(own_key(&raw.cert, raw.key.as_ref(), raw.url.as_ref(), also.span(), reader));
    }
    Some(keys)
}

fn own_key(
    cert: &Option<Vec<Word>>,
    key: Option<&Word>,
    url: Option<&Word>,
    at: Range<usize>,
    reader: &mut Reader<'_>,
) -> Option<OwnKey> {
    let mut certs = Vec::new();
    for word in cert.iter().flatten() {
        if word.get_ref().starts_with("pkcs11:") {
            certs.push(OwnCertificate::Stored(word.get_ref().clone()));
            continue;
        }
        let file = public_file(word, reader);
        let read =
            file.and_then(|(name, bytes)| keep(word, secure::load::certificates(&name, &bytes), reader));
        certs.extend(read.into_iter().flatten().map(OwnCertificate::Given));
    }
    // RFC 7296 section 3.6: HTTP is all that peers have to understand.
    let url = url.and_then(|word| reader.parse(word, |text| plain_url(text, &["http"])));
    let Some(word) = key else {
        reader.error(at, "`local_auth` with method = \"pubkey\" needs a `key`");
        return None;
    };
    let name = word.get_ref().clone();
    if name.starts_with("pkcs11:") {
        return Some(OwnKey { name: name.clone(), source: KeySource::Uri(name), certs, url });
    }
    let bytes = secret_file(word, reader)?;
    let source = keep(word, secure::load::private_key(&name, &bytes), reader)?;
    Some(OwnKey { name, source, certs, url })
}

/// What says how a peer is checked, with the key it stands under.
fn peers_words(raw: &raw::Auth) -> impl Iterator<Item = (&Word, &'static str)> {
    let lists = [
        (&raw.ca, "ca"),
        (&raw.intermediate, "intermediate"),
        (&raw.usages, "usages"),
        (&raw.crl, "crl"),
        (&raw.ocsp_signer, "ocsp_signer"),
    ];
    let words = [
        (&raw.pubkey, "pubkey"),
        (&raw.revocation, "revocation"),
        (&raw.ocsp, "ocsp"),
        (&raw.lookup, "lookup"),
        (&raw.trust, "trust"),
    ];
    let lists = lists.into_iter().filter_map(|(list, key)| Some((list.as_ref()?.first()?, key)));
    lists.chain(words.into_iter().filter_map(|(word, key)| Some((word.as_ref()?, key))))
}

fn plain_url(text: &str, schemes: &[&str]) -> Result<String, String> {
    let known = schemes.iter().any(|scheme| text.starts_with(&format!("{scheme}://")));
    if !known {
        let schemes = schemes.iter().map(|scheme| format!("`{scheme}://…`")).collect::<Vec<_>>().join(" or ");
        return Err(format!("`{text}` is not {schemes}"));
    }
    secure::load::url(text).map(|()| text.to_owned())
}

fn trust(auth: &Spanned<raw::Auth>, reader: &mut Reader<'_>) -> Trust {
    let raw = auth.get_ref();
    if let Some(word) = &raw.key {
        reader.error(word.span(), "`key` is our own private key; it belongs into `local_auth`");
    }
    if let Some(word) = &raw.url {
        reader.error(
            word.span(),
            "`url` is where our own certificate is to be had; it belongs into `local_auth`",
        );
    }
    if let Some(also) = raw.also.as_ref().and_then(|list| list.first()) {
        reader.error(also.span(), "`also` is about more keys of ours; it belongs into `local_auth`");
    }
    let mut trust = Trust::default();
    if !is_pubkey(raw) {
        if let Some((word, key)) = peers_words(raw).next() {
            reader.error(word.span(), format!("`{key}` goes with method = \"pubkey\""));
        } else if let Some(word) = raw.cert.iter().flatten().next() {
            reader.error(word.span(), "`cert` goes with method = \"pubkey\"");
        }
        return trust;
    }
    let certificates = |word: &Word, reader: &mut Reader<'_>| {
        let (name, bytes) = public_file(word, reader)?;
        keep(word, secure::load::certificates(&name, &bytes), reader)
    };
    if let Some(word) = &raw.trust {
        trust.first_use = first_use(auth, word, reader);
        return trust;
    }
    for word in raw.ca.iter().flatten() {
        trust.anchors.extend(certificates(word, reader).into_iter().flatten());
    }
    for word in raw.cert.iter().flatten() {
        // Of a chain only the first is the peer's; the others would be believed as peers too.
        trust.pinned.extend(certificates(word, reader).into_iter().flatten().take(1));
    }
    if let Some(word) = &raw.pubkey {
        let file = public_file(word, reader);
        trust.keys.extend(
            file.and_then(|(name, bytes)| keep(word, secure::load::public_key(&name, &bytes), reader)),
        );
    }
    for word in raw.intermediate.iter().flatten() {
        trust.between.extend(certificates(word, reader).into_iter().flatten());
    }
    trust.usages = usages(raw.usages.as_deref(), reader);
    trust.revocation = revocation(raw, reader);
    let lookups = [("no", Lookups::No), ("public", Lookups::Public), ("anywhere", Lookups::Anywhere)];
    trust.lookups =
        raw.lookup.as_ref().and_then(|word| reader.choice("lookup", word, &lookups)).unwrap_or_default();
    if raw.ca.is_none() && raw.cert.is_none() && raw.pubkey.is_none() {
        reader.error(
            auth.span(),
            "`remote_auth` with method = \"pubkey\" needs `ca`, `cert` or `pubkey` to check the peer with, or \
             trust = \"first-use\"",
        );
    }
    trust
}

/// Whether the first key of a peer is believed. It is what makes a tunnel with two commands, and what an attacker who comes first
/// makes use of.
fn first_use(auth: &Spanned<raw::Auth>, word: &Word, reader: &mut Reader<'_>) -> bool {
    let raw = auth.get_ref();
    if reader.choice("trust", word, &[("first-use", ())]).is_none() {
        return false;
    }
    if let Some(other) = raw.ca.iter().flatten().chain(raw.cert.iter().flatten()).chain(&raw.pubkey).next() {
        let text = "with trust = \"first-use\" anybody's key is believed, so there is nothing for `ca`, `cert` or `pubkey` to do";
        reader.error(other.span(), text);
    }
    let one = raw.id.as_ref().is_some_and(|id| {
        raw::Words::each(id).iter().all(|id| policy::Identity::parse(id.get_ref()).is_ok())
    });
    reader.warn(
        word.span(),
        if one {
            "trust = \"first-use\": the first key that comes is believed without anybody vouching for it; compare its fingerprint \
             (tussock pki pins)"
        } else {
            "trust = \"first-use\" without one `id`: everybody who can reach us is let in, under any name that nobody had before"
        },
    );
    true
}

/// Which extended key usages let a peer in, if its certificate has any; `ipsecIKE` always does.
fn usages(words: Option<&[Word]>, reader: &mut Reader<'_>) -> Usages {
    let Some(words) = words else { return Usages::default() };
    let known = [("ipsecIKE", Usages::IPSEC), ("serverAuth", Usages::SERVER), ("clientAuth", Usages::CLIENT)];
    let all = words.iter().filter_map(|word| reader.choice("extended key usage", word, &known));
    all.fold(Usages::IPSEC, |all, one| all | one)
}

fn revocation(raw: &raw::Auth, reader: &mut Reader<'_>) -> Revocation {
    let modes = [
        ("off", RevocationMode::Off),
        ("relaxed", RevocationMode::Relaxed),
        ("strict", RevocationMode::Strict),
    ];
    let mode = raw.revocation.as_ref().and_then(|word| reader.choice("revocation", word, &modes));
    let mut crls = Vec::new();
    for word in raw.crl.iter().flatten() {
        if word.get_ref().contains("://") {
            crls.extend(reader.parse(word, |text| plain_url(text, &["http", "ldap"])).map(CrlSource::Url));
            continue;
        }
        let path = reader.path(word);
        match read(&path, secure::load::MAX_CRL_FILE as u64) {
            Ok((bytes, _)) => {
                let name = word.get_ref().clone();
                let lists = keep(word, secure::load::crls(&name, &bytes), reader).into_iter().flatten();
                crls.extend(lists.map(|der| CrlSource::Given(Certificate { name: name.clone(), der })));
            }
            Err(error) => reader.error(word.span(), format!("cannot read {}: {error}", path.display())),
        }
    }
    let ocsp = raw.ocsp.as_ref().and_then(|word| reader.parse(word, |text| plain_url(text, &["http"])));
    let mut signers = Vec::new();
    for word in raw.ocsp_signer.iter().flatten() {
        let file = public_file(word, reader);
        let read =
            file.and_then(|(name, bytes)| keep(word, secure::load::certificates(&name, &bytes), reader));
        signers.extend(read.into_iter().flatten());
    }
    Revocation { mode: mode.unwrap_or_default(), crls, ocsp, signers }
}

fn is_pubkey(raw: &raw::Auth) -> bool {
    raw.method.as_ref().is_some_and(|method| method.get_ref() == "pubkey")
}

fn is_eap(auth: &Spanned<raw::Auth>) -> bool {
    auth.get_ref().method.as_ref().is_some_and(|method| method.get_ref() == "eap")
}

pub(crate) fn keep<T>(word: &Word, result: Result<T, LoadError>, reader: &mut Reader<'_>) -> Option<T> {
    result.map_err(|error| reader.error(word.span(), error.to_string())).ok()
}

pub(crate) fn public_file(word: &Word, reader: &mut Reader<'_>) -> Option<(String, Vec<u8>)> {
    let path = reader.path(word);
    match read(&path, MAX_FILE) {
        Ok((bytes, _)) => Some((word.get_ref().clone(), bytes)),
        Err(error) => {
            reader.error(word.span(), format!("cannot read {}: {error}", path.display()));
            None
        }
    }
}

/// Reads a file that holds a secret, into memory that is wiped, and warns when others may read it too.
pub(crate) fn secret_file(word: &Word, reader: &mut Reader<'_>) -> Option<Secret> {
    let path = reader.path(word);
    match read(&path, MAX_FILE) {
        Ok((bytes, mode)) => {
            if mode & 0o077 != 0 {
                let text = format!(
                    "{} may be read by others (mode {:o}); chmod 600 it",
                    path.display(),
                    mode & 0o777
                );
                reader.warn(word.span(), text);
            }
            Some(Secret::new(bytes))
        }
        Err(error) => {
            reader.error(word.span(), format!("cannot read {}: {error}", path.display()));
            None
        }
    }
}

fn read(path: &Path, most: u64) -> std::io::Result<(Vec<u8>, u32)> {
    let file = fs::File::open(path)?;
    let meta = file.metadata()?;
    if meta.len() > most {
        return Err(std::io::Error::other("too long for what it is to be"));
    }
    // All the room there can be, so that growing leaves no copy of a key behind.
    let mut bytes = Vec::with_capacity(meta.len() as usize + 64);
    file.take(most).read_to_end(&mut bytes)?;
    Ok((bytes, meta.mode()))
}

/// A secret in a file ends before the line break that editors put there.
pub(crate) fn trim_line_end(secret: Secret) -> Secret {
    let bytes = secret.expose();
    let end = bytes.iter().rposition(|octet| !matches!(octet, b'\n' | b'\r')).map_or(0, |last| last + 1);
    Secret::from_slice(&bytes[..end])
}
