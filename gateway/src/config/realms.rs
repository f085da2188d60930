//! `[realm.NAME]` and `[[realm.NAME.child]]`: from the file to [`policy::Realm`].

use std::net::IpAddr;
use std::ops::Range;
use std::time::Duration;

use policy::{
    AuthPolicy, Child, ChildMode, Childless, Dpd, DpdAction, Encap, EspProposal, IdMatch, Identity,
    IkeProposal, Lifetime, Peers, Realm, RemoteAddress, Rule, SelectorSpec, SignMethod, Start,
};
use toml::Spanned;

use super::eap;
use super::pool;
use super::raw::{self, Word};
use super::reader::{Reader, prefix};
use super::settings::device_name;
use super::units;

/// A child and what only the data path needs of it.
pub(crate) struct ChildRead {
    /// The child.
    pub(crate) child: Child,
    /// How often dummy packets go out (RFC 4303 section 2.6); zero: never.
    pub(crate) dummy: Duration,
    /// Whether its traffic goes nowhere while it is down.
    pub(crate) blocks: bool,
}

/// A realm, and where its rules stand.
pub(crate) struct RealmRead {
    /// The realm.
    pub(crate) realm: Realm,
    /// The places of the rules of its `remote_id`, in their order.
    pub(crate) rules: Vec<Range<usize>>,
}

/// A prefix of this length or shorter is a good part of all addresses.
const EVERYWHERE: u8 = 1;

const START: [(&str, Start); 3] =
    [("boot", Start::Boot), ("traffic", Start::Traffic), ("manual", Start::Manual)];

/// Reads a realm without its children; `None` if it does not say how both sides prove themselves.
pub(crate) fn realm(name: &str, raw: &raw::Realm, reader: &mut Reader<'_>) -> Option<RealmRead> {
    let ike_rekey =
        lifetime(raw.ike_rekey.as_ref(), Duration::from_secs(4 * 3600), raw.jitter.as_ref(), reader);
    let ike_reauth = lifetime(raw.ike_reauth.as_ref(), Duration::ZERO, raw.jitter.as_ref(), reader);
    let start =
        raw.start.as_ref().and_then(|word| reader.choice("start", word, &START)).unwrap_or(Start::Manual);
    let encap = [("auto", Encap::Auto), ("udp", Encap::Udp), ("raw", Encap::Raw)];
    let encap =
        raw.encap.as_ref().and_then(|word| reader.choice("encap", word, &encap)).unwrap_or(Encap::Auto);
    let childless = [("allow", Childless::Allow), ("prefer", Childless::Prefer), ("never", Childless::Never)];
    let childless = raw.childless.as_ref().and_then(|word| reader.choice("childless", word, &childless));
    let local = raw.local.as_deref().map(|words| local_addresses(words, reader)).unwrap_or_default();
    let remote = raw.remote.as_deref().map(|words| remote_addresses(words, reader)).unwrap_or_default();
    let ike = match &raw.ike {
        Some(words) => reader.list(words, IkeProposal::parse),
        None => IkeProposal::defaults(),
    };
    let fragment_size = raw.fragment_size.as_ref().map_or(1280, |size| {
        let octets = *size.get_ref();
        // A fragment must hold its headers and something of the message.
        if octets < 300 {
            reader.error(
                size.span(),
                format!("`fragment_size` {octets} is too small; 576 or more makes sense"),
            );
        }
        octets
    });
    let eap = eap::policy(raw.local_auth.as_ref(), raw.remote_auth.as_ref(), reader);
    let local_auth = raw.local_auth.as_ref().and_then(|raw| own(raw, reader));
    let remote_auth = raw.remote_auth.as_ref().and_then(|raw| peers(raw, reader));
    let methods = raw.remote_auth.as_ref().map(|auth| methods(auth, reader)).unwrap_or_default();
    let ((mut names, local_auth), (remote_id, rules, remote_auth)) = (local_auth?, remote_auth?);
    let local_id = names.remove(0);
    let realm = Realm {
        name: name.into(),
        local,
        remote,
        ike,
        local_id,
        aliases: names,
        local_auth,
        remote_id,
        remote_auth,
        eap,
        methods,
        children: Vec::new(),
        start,
        encap,
        fragmentation: raw.fragmentation.unwrap_or(true),
        fragment_size,
        childless: childless.unwrap_or(Childless::Allow),
        ike_rekey,
        ike_reauth,
        dpd: dpd(raw.dpd.as_ref(), reader),
        virtual_ip: pool::virtual_ip(raw.virtual_ip.as_ref(), reader),
        pool: raw.pool.as_ref().and_then(|raw| pool::pool(raw, reader)),
        unique: raw.unique.unwrap_or(true),
        worker: raw.worker,
    };
    Some(RealmRead { realm, rules })
}

/// Reads a child of a realm that starts like `start`.
pub(crate) fn child(
    raw: &raw::Child,
    start: Start,
    at: Range<usize>,
    reader: &mut Reader<'_>,
) -> Option<ChildRead> {
    let name = match &raw.name {
        Some(word) => reader.parse(word, child_name),
        None => {
            reader.error(at.clone(), "the child has no `name`");
            None
        }
    };
    let mode = [("tunnel", ChildMode::Tunnel), ("transport", ChildMode::Transport)];
    let mode =
        raw.mode.as_ref().and_then(|word| reader.choice("mode", word, &mode)).unwrap_or(ChildMode::Tunnel);
    let dynamic = || vec![SelectorSpec::Dynamic { protocol: 0, start_port: 0, end_port: u16::MAX }];
    let mut side = |words: &Option<Vec<Word>>| match words {
        Some(words) => reader.list(words, SelectorSpec::parse),
        None => dynamic(),
    };
    let (local, remote) = (side(&raw.local), side(&raw.remote));
    let esp = match &raw.esp {
        Some(words) => reader.list(words, EspProposal::parse),
        None => EspProposal::defaults(),
    };
    let mut rekey = lifetime(raw.rekey.as_ref(), Duration::from_secs(3600), raw.jitter.as_ref(), reader);
    rekey.bytes = raw.rekey_bytes.as_ref().and_then(|word| reader.parse(word, units::size)).unwrap_or(0);
    rekey.packets = raw.rekey_packets.as_ref().map_or(0, |packets| *packets.get_ref());
    let replay_window = raw.replay_window.as_ref().map_or(1024, |window| *window.get_ref());
    if let Some(window) = raw.replay_window.as_ref().filter(|_| !matches!(replay_window, 0 | 32..=65536)) {
        // RFC 4303 section 3.4.3: 32 packets at least, 64 preferred.
        reader.error(window.span(), "`replay_window` must be 0 (off) or 32 to 65536 packets");
    }
    if replay_window == 0 && esp.iter().any(|proposal| proposal.esn.contains(&true)) {
        let at = raw.replay_window.as_ref().map_or(at, |window| window.span());
        reader.error(at, "extended sequence numbers need a replay window (RFC 4303 section 3.3.3)");
    }
    let blocks = blocks(raw.on_down.as_ref(), mode, &remote, reader);
    Some(ChildRead {
        blocks,
        child: Child {
            name: name?.into(),
            mode,
            local,
            remote,
            esp,
            start: raw.start.as_ref().and_then(|word| reader.choice("start", word, &START)).unwrap_or(start),
            rekey,
            replay_window,
            tfc: raw.tfc.as_ref().map_or(0, |tfc| *tfc.get_ref()),
            copy_df: raw.copy_df.unwrap_or(true),
            copy_dscp: raw.copy_dscp.unwrap_or(true),
            tun: raw.tun.as_ref().and_then(|word| reader.parse(word, device_name)).unwrap_or_default().into(),
        },
        dummy: reader.duration(raw.dummy.as_ref(), Duration::ZERO),
    })
}

/// Whether what a child protects goes nowhere while it is down. By default so (RFC 4301 section 4.4.1), with two exceptions
/// that would cut a machine off from those who look after it: a tunnel to everywhere, and transport mode, where the other end
/// is the peer itself. See docs/decisions/0023.
fn blocks(on_down: Option<&Word>, mode: ChildMode, remote: &[SelectorSpec], reader: &mut Reader<'_>) -> bool {
    let fixed = |spec: &SelectorSpec| match spec {
        SelectorSpec::Fixed(ts) => Some(*ts),
        SelectorSpec::Dynamic { .. } => None,
    };
    let fixed: Vec<_> = remote.iter().filter_map(fixed).collect();
    let everywhere = fixed.iter().flat_map(|ts| ts.to_prefixes()).any(|(_, length)| length <= EVERYWHERE);
    let default = mode == ChildMode::Tunnel && !everywhere;
    let choices = [("block", true), ("clear", false)];
    let wanted = on_down.and_then(|word| reader.choice("on_down", word, &choices));
    if let (Some(word), Some(true), true) = (on_down, wanted, fixed.is_empty()) {
        reader.error(word.span(), "there is nothing to block: `remote` is not known before the child is up");
    }
    wanted.unwrap_or(default) && !fixed.is_empty()
}

fn local_addresses(words: &[Word], reader: &mut Reader<'_>) -> Vec<IpAddr> {
    if words.iter().any(|word| word.get_ref() == "any") {
        return Vec::new();
    }
    reader
        .list(words, |text| text.parse::<IpAddr>().map_err(|_| format!("`{text}` is not an address of ours")))
}

fn remote_addresses(words: &[Word], reader: &mut Reader<'_>) -> Vec<RemoteAddress> {
    if words.iter().any(|word| word.get_ref() == "any") {
        return Vec::new();
    }
    reader.list(words, |text| {
        prefix(text).map(|(address, length)| match length {
            None => RemoteAddress::Host(address),
            Some(length) => RemoteAddress::Prefix(address, length),
        })
    })
}

/// What both `local_auth` and `remote_auth` have.
fn method(raw: &Spanned<raw::Auth>, what: &str, reader: &mut Reader<'_>) -> Option<AuthPolicy> {
    const METHODS: [(&str, AuthPolicy); 4] = [
        ("psk", AuthPolicy::Psk),
        ("pubkey", AuthPolicy::Pubkey),
        ("eap", AuthPolicy::Eap),
        ("null", AuthPolicy::Null),
    ];
    match &raw.get_ref().method {
        Some(word) => reader.choice("method", word, &METHODS),
        None => {
            reader.error(
                raw.span(),
                format!("`{what}` has no `method`: \"psk\", \"pubkey\", \"eap\" or \"null\""),
            );
            None
        }
    }
}

/// Our names, of which there is at least one.
fn own(raw: &Spanned<raw::Auth>, reader: &mut Reader<'_>) -> Option<(Vec<Identity>, AuthPolicy)> {
    let method = method(raw, "local_auth", reader);
    for word in raw.get_ref().methods.iter().flatten().chain(&raw.get_ref().trust) {
        reader.error(
            word.span(),
            "`methods` and `trust` say how a peer is checked; they belong into `remote_auth`",
        );
    }
    if method == Some(AuthPolicy::Null) {
        if let Some(id) = &raw.get_ref().id {
            reader.error(id.span(), "with method = \"null\" we do not say who we are, so there is no `id`");
        }
        return Some((vec![Identity::Anonymous(0)], AuthPolicy::Null));
    }
    let names = match &raw.get_ref().id {
        Some(words) => {
            let names = reader.list(&raw::Words::each(words), Identity::parse);
            if matches!(words.get_ref(), raw::Words::Many(list) if list.is_empty()) {
                reader.error(words.span(), "`id` is empty: who are we?");
            }
            names
        }
        None => {
            reader.error(raw.span(), "`local_auth` has no `id`: who are we?");
            Vec::new()
        }
    };
    let method = method?;
    (!names.is_empty()).then_some((names, method))
}

/// Who the peers may be, where the rules stand, and how they prove it.
fn peers(
    raw: &Spanned<raw::Auth>,
    reader: &mut Reader<'_>,
) -> Option<(Peers, Vec<Range<usize>>, AuthPolicy)> {
    let method = method(raw, "remote_auth", reader)?;
    let (mut rules, mut places) = (Vec::new(), Vec::new());
    if method == AuthPolicy::Null {
        if let Some(id) = &raw.get_ref().id {
            reader.error(
                id.span(),
                "with method = \"null\" nobody says who it is, so there is no `id` to compare",
            );
        }
        reader.warn(
            raw.span(),
            "method = \"null\": everybody who can reach us is let in, and nobody knows who it is",
        );
        return Some((Peers::new(rules), places, method));
    }
    match &raw.get_ref().id {
        Some(words) => {
            let each = raw::Words::each(words);
            if each.is_empty() {
                reader
                    .error(words.span(), "`id` is empty, so nobody is accepted; write \"any\" for everybody");
            }
            if each.len() > policy::rule::MAX_RULES {
                reader.error(words.span(), policy::RuleError::TooMany.to_string());
            }
            for word in each {
                let Some(rule) = reader.parse(&word, Rule::parse) else { continue };
                if let Some(text) = pointless(&rule, method, raw.get_ref()) {
                    reader.error(word.span(), text);
                }
                rules.push(rule);
                places.push(word.span());
            }
        }
        None => {
            rules.push(Rule::Id(IdMatch::Any));
            places.push(raw.span());
        }
    }
    Some((Peers::new(rules), places, method))
}

/// Why a rule can never hold.
fn pointless(rule: &Rule, method: AuthPolicy, raw: &raw::Auth) -> Option<String> {
    match rule {
        Rule::Subject(_) | Rule::AlternativeName(_) if method != AuthPolicy::Pubkey => {
            Some(format!("`{rule}` is about a certificate, which comes with method = \"pubkey\" only"))
        }
        Rule::Subject(_) | Rule::AlternativeName(_) if raw.trust.is_some() => {
            Some(format!("`{rule}` means nothing where nobody vouches for what a certificate says"))
        }
        Rule::Eap(_) | Rule::Group(_) if method != AuthPolicy::Eap => {
            Some(format!("`{rule}` is about EAP, which comes with method = \"eap\" only"))
        }
        _ => None,
    }
}

/// The signatures that are taken; none named: all.
fn methods(raw: &Spanned<raw::Auth>, reader: &mut Reader<'_>) -> Vec<SignMethod> {
    let Some(words) = &raw.get_ref().methods else { return Vec::new() };
    let method = raw.get_ref().method.as_ref().map(|word| word.get_ref().as_str());
    let single = SignMethod::ALL.map(|method| (method.name(), Some(method)));
    let known: Vec<(&str, Option<SignMethod>)> =
        single.into_iter().chain([("rsa", None), ("psk", None), ("null", None), ("eap", None)]).collect();
    if words.is_empty() {
        reader.error(raw.span(), "`methods` is empty, so no peer could prove itself");
    }
    let mut taken = Vec::new();
    for word in words {
        let name = word.get_ref().as_str();
        match reader.choice("method", word, &known) {
            None => {}
            Some(Some(one)) if method == Some("pubkey") => taken.push(one),
            Some(None) if name == "rsa" && method == Some("pubkey") => {
                taken.extend([SignMethod::RsaPkcs1, SignMethod::RsaPss]);
            }
            Some(_) if Some(name) == method => {}
            Some(_) => {
                let method = method.unwrap_or("?");
                reader.error(word.span(), format!("`{name}` is none of what method = \"{method}\" takes"));
            }
        }
    }
    taken
}

fn lifetime(
    word: Option<&Word>,
    default: Duration,
    jitter: Option<&Spanned<f64>>,
    reader: &mut Reader<'_>,
) -> Lifetime {
    let mut lifetime = Lifetime::of(reader.duration(word, default));
    if let (Some(word), true) = (word, !lifetime.time.is_zero() && lifetime.time < Duration::from_secs(1)) {
        reader.error(word.span(), "a lifetime of less than a second");
    }
    if let Some(jitter) = jitter {
        if (0.0..=0.5).contains(jitter.get_ref()) {
            lifetime.jitter = *jitter.get_ref();
        } else {
            reader.error(jitter.span(), "`jitter` must be between 0.0 and 0.5");
        }
    }
    lifetime
}

fn dpd(raw: Option<&Spanned<raw::Dpd>>, reader: &mut Reader<'_>) -> Dpd {
    let mut dpd = Dpd { delay: Duration::from_secs(30), action: DpdAction::Restart };
    if let Some(raw) = raw.map(Spanned::get_ref) {
        dpd.delay = reader.duration(raw.delay.as_ref(), dpd.delay);
        let choices =
            [("clear", DpdAction::Clear), ("restart", DpdAction::Restart), ("trap", DpdAction::Trap)];
        let action = raw.action.as_ref().and_then(|word| reader.choice("action", word, &choices));
        dpd.action = action.unwrap_or(dpd.action);
    }
    dpd
}

fn child_name(text: &str) -> Result<String, String> {
    let fits = !text.is_empty() && text.len() <= 64 && text.chars().all(|c| c.is_ascii_graphic() && c != '/');
    if fits {
        Ok(text.to_owned())
    } else {
        Err(format!("`{text}` is not a name: letters, digits, `-`, `_`, `.`"))
    }
}
