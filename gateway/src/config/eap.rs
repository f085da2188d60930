//! EAP in `local_auth`, `remote_auth` and `[[eap]]`.

use std::ops::Range;

use policy::{EapMethod, EapPolicy};
use secure::{EapInner, EapUser};
use spi::Secret;
use toml::Spanned;

use super::credentials::{secret_file, trim_line_end};
use super::raw::{self, Word};
use super::reader::Reader;

/// Longest user name, octets (RFC 2865 section 5.1 has room for no more).
const MAX_USER: usize = 253;
/// Longest password, octets: what MSCHAPv2 has room for.
const MAX_PASSWORD: usize = 256;

const INNER: [(&str, EapInner); 5] = [
    ("mschapv2", EapInner::MsChapV2),
    ("pap", EapInner::Pap),
    ("eap-mschapv2", EapInner::EapMsChapV2),
    ("eap-gtc", EapInner::EapGtc),
    ("eap-md5", EapInner::EapMd5),
];

/// What a realm says of EAP. Complains also about keys that go with EAP where there is none.
pub(crate) fn policy(
    local: Option<&Spanned<raw::Auth>>,
    remote: Option<&Spanned<raw::Auth>>,
    reader: &mut Reader<'_>,
) -> EapPolicy {
    let is_eap = |auth: &&Spanned<raw::Auth>| {
        auth.get_ref().method.as_ref().is_some_and(|method| method.get_ref() == "eap")
    };
    let (client, server) = (local.filter(is_eap), remote.filter(is_eap));
    for auth in local.filter(|auth| !is_eap(auth)).into_iter().chain(remote.filter(|auth| !is_eap(auth))) {
        out_of_place(auth.get_ref(), reader);
    }
    for (auth, what) in [(client, false), (server, true)] {
        if let Some(auth) = auth {
            wrong_side(auth.get_ref(), what, reader);
        }
    }
    let mut policy = EapPolicy::default();
    for auth in client.into_iter().chain(server) {
        one_side(auth, &mut policy, reader);
    }
    if let Some(id) = client.and_then(|auth| auth.get_ref().eap_id.as_ref()) {
        policy.identity = reader.parse(id, user_name);
    }
    let both = client.is_some() && server.is_some();
    let alone = (client.is_some() && remote.is_some_and(|auth| is_eap(&auth)))
        || (server.is_some() && local.is_some_and(|auth| is_eap(&auth)));
    if let Some(auth) = client.or(server).filter(|_| (both || alone) && !policy.only) {
        let text = "EAP on both sides is EAP alone (RFC 5998), which needs `eap_only = true`";
        reader.error(auth.span(), text);
    }
    policy
}

/// What one side says.
fn one_side(auth: &Spanned<raw::Auth>, policy: &mut EapPolicy, reader: &mut Reader<'_>) {
    let raw = auth.get_ref();
    let Some(words) = &raw.eap else {
        reader.error(auth.span(), "method = \"eap\" needs `eap`, for example eap = [\"mschapv2\", \"tls\"]");
        return;
    };
    let mut methods: Vec<EapMethod> = Vec::new();
    for word in words.get_ref() {
        match reader.choice("EAP method", word, &EapMethod::NAMES) {
            Some(method) if methods.contains(&method) => {
                reader.error(word.span(), format!("`{}` stands here twice", method.name()));
            }
            Some(method) => methods.push(method),
            None => {}
        }
    }
    if words.get_ref().is_empty() {
        reader.error(words.span(), "`eap` names no method");
    }
    policy.only |= raw.eap_only.as_ref().is_some_and(|only| *only.get_ref());
    policy.keyless |= raw.keyless.as_ref().is_some_and(|keyless| *keyless.get_ref());
    if let Some(ask) = &raw.ask_identity {
        policy.ask_identity = *ask.get_ref();
    }
    if let Some(word) = &raw.eap_time {
        let time = reader.duration(Some(word), policy.time);
        if EapPolicy::TIME.contains(&time) {
            policy.time = time;
        } else {
            reader.error(word.span(), "`eap_time` must be between 10s and 10m");
        }
    }
    let keyless = methods.iter().find(|method| !method.is_keyed());
    if let Some(method) = keyless.filter(|_| !policy.keyless) {
        let text = format!(
            "`{}` gives no key, so that AUTH does not tie the two sides to each other; `keyless = true` allows it",
            method.name()
        );
        reader.error(words.span(), text);
    }
    if policy.only
        && let Some(method) = methods.iter().find(|method| !method.is_safe_alone())
    {
        let text = format!(
            "`{}` does not authenticate the gateway well enough to do so alone (RFC 5998 section 4); use \"tls\", \
             \"ttls\" or \"peap\", or leave `eap_only` out",
            method.name()
        );
        reader.error(words.span(), text);
    }
    policy.methods = methods;
}

/// Keys of EAP beside another method.
fn out_of_place(raw: &raw::Auth, reader: &mut Reader<'_>) {
    let spans = [
        ("eap", raw.eap.as_ref().map(Spanned::span)),
        ("eap_id", raw.eap_id.as_ref().map(Spanned::span)),
        ("eap_only", raw.eap_only.as_ref().map(Spanned::span)),
        ("eap_time", raw.eap_time.as_ref().map(Spanned::span)),
        ("ask_identity", raw.ask_identity.as_ref().map(Spanned::span)),
        ("keyless", raw.keyless.as_ref().map(Spanned::span)),
        ("inner", raw.inner.as_ref().map(Spanned::span)),
        ("anonymous", raw.anonymous.as_ref().map(Spanned::span)),
        ("server", raw.server.as_ref().map(Spanned::span)),
    ];
    for (key, at) in spans {
        if let Some(at) = at {
            reader.error(at, format!("`{key}` goes with method = \"eap\""));
        }
    }
}

/// Keys of a client in `remote_auth`, and of a server in `local_auth`.
fn wrong_side(raw: &raw::Auth, server: bool, reader: &mut Reader<'_>) {
    let clients = [
        ("eap_id", raw.eap_id.as_ref().map(Spanned::span)),
        ("anonymous", raw.anonymous.as_ref().map(Spanned::span)),
        ("server", raw.server.as_ref().map(Spanned::span)),
    ];
    let servers = [("ask_identity", raw.ask_identity.as_ref().map(Spanned::span))];
    let (wrong, where_) = if server { (&clients[..], "local_auth") } else { (&servers[..], "remote_auth") };
    for (key, at) in wrong {
        if let Some(at) = at {
            reader.error(at.clone(), format!("`{key}` belongs into `{where_}`"));
        }
    }
}

/// What may run inside a tunnel.
pub(crate) fn inner(raw: &raw::Auth, reader: &mut Reader<'_>) -> Vec<EapInner> {
    let words = raw.inner.as_ref().map(|words| words.get_ref().as_slice()).unwrap_or_default();
    words.iter().filter_map(|word| reader.choice("inner method", word, &INNER)).collect()
}

/// Reads one `[[eap]]`, and where its name stands.
pub(crate) fn user(
    raw: raw::EapUser,
    at: Range<usize>,
    reader: &mut Reader<'_>,
) -> Option<(Range<usize>, EapUser)> {
    let name = match &raw.user {
        Some(word) => reader.parse(word, user_name).map(|name| (word.span(), name)),
        None => {
            reader.error(at.clone(), "`user` is missing");
            None
        }
    };
    let (place, password) = match (raw.password, raw.file) {
        (Some(word), None) => (word.span(), Secret::new(word.into_inner().into_bytes())),
        (None, Some(word)) => (word.span(), trim_line_end(secret_file(&word, reader)?)),
        _ => {
            reader.error(at, "exactly one of `password` and `file` says what the password is");
            return None;
        }
    };
    if password.is_empty() || password.len() > MAX_PASSWORD {
        reader.error(place, format!("a password has 1 to {MAX_PASSWORD} octets"));
        return None;
    }
    let realms = raw.realms.unwrap_or_default().into_iter().map(Word::into_inner).collect();
    let (at, name) = name?;
    Some((at, EapUser { name, password, realms }))
}

fn user_name(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > MAX_USER || text.chars().any(char::is_control) {
        return Err(format!("a user name has 1 to {MAX_USER} octets and no control characters"));
    }
    Ok(text.to_owned())
}
