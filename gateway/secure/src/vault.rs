//! What the key side holds for the realms: secrets, opened keys with their certificates, and whom each realm believes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::SystemTime;

use ipc::{CertAsks, CertData, Offered};
use policy::{AuthPolicy, Identity, Realm};
use spi::cert::Usages;
use spi::crypto::KeyInfo;
use spi::{Hash, KeySource, ShortOps};
use wire::numbers::CertEncoding;

use crate::cert::Cert;
use crate::config::{
    Certificate, Config, Credentials, EapCredentials, EapUser, Lookups, OwnCertificate, OwnKey, Psk,
    Revocation, RevocationMode, Rules, Trust,
};
use crate::devices::{Devices, Place};
use crate::eap::{EapUsers, Opens};
use crate::eap_judge::EapTrust;
use crate::eap_methods::Methods;
use crate::identity;
use crate::key::{self, KeyKind};
use crate::path::{MAX_CERTS, MAX_PATH};
use crate::pins::Pins;
use crate::psk::{self, NoPsk};
use crate::revocation::{Issued, Policy};
use crate::usage;

/// Something in the configuration that will keep a realm from working, or will soon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The realm.
    pub realm: Arc<str>,
    /// What is wrong. Holds no secret.
    pub what: String,
}

impl Problem {
    /// Of servers, which belong to no realm.
    pub(crate) fn of_radius(what: String) -> Problem {
        Problem { realm: RADIUS.into(), what }
    }
}

/// In the place of a realm.
const RADIUS: &str = "[radius]";

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if *self.realm == *RADIUS {
            return write!(f, "{RADIUS}: {}", self.what);
        }
        write!(f, "realm `{}`: {}", self.realm, self.what)
    }
}

/// A certificate to send, with the SHA-1 hash of its key (RFC 7296 section 3.7).
type Sent = (Vec<u8>, [u8; 20]);

/// A private key that is open.
pub(crate) struct OpenKey {
    pub(crate) place: Place,
    pub(crate) info: KeyInfo,
    source: KeySource,
    /// Certificates to send, end entity first.
    certs: Vec<Sent>,
    /// Where the first of them is to be had.
    url: Option<String>,
    /// Our certificate and those that go with it, as they were read.
    pub(crate) chain: Vec<Arc<Cert>>,
    /// Our certificate with the CA that issued it, if that is known.
    pub(crate) issued: Option<Issued>,
    /// Hashes of the keys of the CAs above it, as far as they are known.
    authorities: Vec<[u8; 20]>,
}

impl OpenKey {
    /// CERT payloads for a peer.
    pub(crate) fn payloads(&self, offered: &Offered, short: &dyn ShortOps) -> Vec<CertData> {
        let mut certs = Vec::new();
        for (i, (der, key_hash)) in self.certs.iter().enumerate() {
            // A CA the peer named it has already; whatever is above that, too.
            if i > 0 && offered.authorities.contains(key_hash) {
                break;
            }
            let at = self.url.as_ref().filter(|_| i == 0 && offered.urls);
            certs.push(match at.and_then(|url| Some((url, short.hash(Hash::Sha1, &[der]).ok()?))) {
                Some((url, mut data)) => {
                    data.extend_from_slice(url.as_bytes());
                    CertData { encoding: CertEncoding::HASH_AND_URL_X509.0, data }
                }
                None => CertData { encoding: CertEncoding::X509_SIGNATURE.0, data: der.clone() },
            });
        }
        if certs.is_empty() {
            // RFC 7670: a peer that has not seen the key before can at least look at it.
            certs.push(CertData { encoding: CertEncoding::RAW_PUBLIC_KEY.0, data: self.info.spki.clone() });
        }
        certs
    }
}

/// A key that is believed without a CA.
pub(crate) struct Believed {
    pub(crate) spki: Vec<u8>,
    pub(crate) kind: KeyKind,
    /// The pinned certificate, if it is one.
    pub(crate) cert: Option<Cert>,
    pub(crate) name: String,
}

/// Whom a realm believes.
#[derive(Default)]
pub(crate) struct Believes {
    /// DER of its CAs.
    pub(crate) anchors: Arc<[Vec<u8>]>,
    /// DER of CAs below them that peers need not send.
    pub(crate) between: Vec<Vec<u8>>,
    /// How revocation is looked at; `None`: not at all.
    pub(crate) revocation: Option<Arc<Policy>>,
    pub(crate) lookups: Lookups,
    pub(crate) usages: Usages,
    pub(crate) keys: Vec<Believed>,
    /// The first key that a peer comes with is its own from then on.
    pub(crate) first_use: bool,
}

/// Everything that is held.
pub(crate) struct Vault {
    realms: HashMap<Arc<str>, Arc<Realm>>,
    psks: Vec<Psk>,
    own: HashMap<Arc<str>, Vec<OpenKey>>,
    /// Keys of devices that did not open: a token that is put in later is used then.
    absent: HashMap<Arc<str>, OwnKey>,
    /// The CAs of all realms, which may be ours as well.
    cas: Vec<Arc<Cert>>,
    believes: HashMap<Arc<str>, Believes>,
    /// What makes EAP conversations.
    eap: HashMap<Arc<str>, Arc<dyn Opens>>,
    /// Whom of the users each of them may let in.
    eap_users: HashMap<Arc<str>, Arc<EapUsers>>,
    /// What makes those that go through a RADIUS server.
    pub(crate) radius: Option<Arc<dyn Opens>>,
    pins: Option<Pins>,
    pub(crate) rules: Rules,
}

impl Vault {
    /// Opens the keys and looks at everything once. Realms without a problem work whatever is wrong with others.
    pub(crate) fn open(config: Config, devices: &Devices, at: SystemTime) -> (Self, Vec<Problem>) {
        let mut problems = Vec::new();
        let Config {
            realms,
            psks,
            users,
            mut credentials,
            radius: _,
            rules,
            state_dir,
            mark: _,
            inherits: _,
            resolv_conf: _,
            devices: _,
        } = config;
        let cas = cas(&credentials);
        let mut vault = Vault {
            cas,
            realms: HashMap::new(),
            // An empty key would be a proof anybody can make.
            psks: psks.into_iter().filter(|psk| !psk.secret.is_empty()).collect(),
            own: HashMap::new(),
            absent: HashMap::new(),
            believes: HashMap::new(),
            eap: HashMap::new(),
            eap_users: HashMap::new(),
            radius: None,
            pins: state_dir.as_deref().map(Pins::of),
            rules,
        };
        for realm in realms {
            let credentials = credentials.remove(&*realm.name).unwrap_or_default();
            let mut note = |what: String| problems.push(Problem { realm: realm.name.clone(), what });
            if realm.local_auth == AuthPolicy::Eap || realm.remote_auth == AuthPolicy::Eap {
                let (here, elsewhere) = users.iter().partition::<Vec<_>, _>(|user| user.is_for(&realm.name));
                let names = |users: Vec<&EapUser>| users.into_iter().map(|user| user.name.clone()).collect();
                let trust = Arc::new(eap_trust(credentials.eap.as_ref(), rules, &mut note));
                let of = EapUsers { here: names(here), elsewhere: names(elsewhere), trust };
                vault.eap_users.insert(realm.name.clone(), Arc::new(of));
            }
            let methods = realm.remote_auth == AuthPolicy::Eap && !realm.eap.radius;
            if realm.local_auth == AuthPolicy::Eap || methods {
                let trust = Arc::clone(&vault.eap_users(&realm.name).trust);
                match Methods::of(&realm, &credentials, &users, trust, devices.short()) {
                    Ok(methods) => {
                        vault.eap.insert(realm.name.clone(), Arc::new(methods));
                    }
                    Err(what) => note(what),
                }
            }
            if credentials.own.is_none() && realm.local_auth == AuthPolicy::Pubkey {
                note("`local_auth` wants a key and there is none".into());
            }
            for own in credentials.own.into_iter().chain(credentials.also) {
                match open_own(&own, &realm, &vault.cas, devices, rules, at, &mut note) {
                    Ok(open) => vault.own.entry(realm.name.clone()).or_default().push(open),
                    Err(what) => {
                        note(what);
                        if matches!(own.source, KeySource::Uri(_)) {
                            vault.absent.insert(realm.name.clone(), own);
                        }
                    }
                }
            }
            if realm.remote_auth == AuthPolicy::Pubkey && credentials.trust.is_empty() {
                note(
                    "`remote_auth` names no CA, certificate or public key, so no peer can be believed".into(),
                );
            }
            let believes = take_trust(credentials.trust, &realm, rules, at, &mut note);
            vault.believes.insert(realm.name.clone(), believes);
            let psk = realm.local_auth == AuthPolicy::Psk || realm.remote_auth == AuthPolicy::Psk;
            if psk && vault.psks.is_empty() {
                note("there is no pre-shared key at all".into());
            } else if psk
                && let Some(peer) = realm.remote_id.the_one()
                && vault.psk(&realm.name, &realm.local_id, Some(peer)).is_err()
            {
                note(format!("no pre-shared key for `{}` and `{peer}`", realm.local_id));
            }
            vault.realms.insert(realm.name.clone(), realm);
        }
        for name in credentials.into_keys() {
            problems.push(Problem {
                realm: name.into(),
                what: "credentials for a realm that is not there".into(),
            });
        }
        (vault, problems)
    }

    /// Closes the keys.
    pub(crate) fn close(self, devices: &Devices) {
        for key in self.own.into_values().flatten() {
            devices.close_key(key.place, key.info.id);
        }
    }

    pub(crate) fn realm(&self, name: &str) -> Option<&Arc<Realm>> {
        self.realms.get(name)
    }

    pub(crate) fn psk(&self, realm: &str, own: &Identity, peer: Option<&Identity>) -> Result<&Psk, NoPsk> {
        psk::find(&self.psks, realm, own, peer)
    }

    /// The keys that were remembered.
    ///
    /// # Errors
    /// There is no place for them.
    pub(crate) fn pins(&self) -> Result<&Pins, String> {
        self.pins.as_ref().ok_or_else(|| "there is no state directory to remember keys in".to_owned())
    }

    /// The private key that is named by its public half.
    pub(crate) fn own(&self, realm: &str, spki: &[u8]) -> Option<&OpenKey> {
        self.own.get(realm)?.iter().find(|key| key.info.spki == spki)
    }

    /// The first private key that is certified by one of the CAs that the peer asks for, or the first of all.
    pub(crate) fn own_for(&self, realm: &str, authorities: &[[u8; 20]]) -> Option<&OpenKey> {
        let keys = self.own.get(realm)?;
        let asked = |key: &&OpenKey| key.authorities.iter().any(|hash| authorities.contains(hash));
        keys.iter().find(asked).or(keys.first())
    }

    pub(crate) fn believes(&self, realm: &str) -> Option<&Believes> {
        self.believes.get(realm)
    }

    pub(crate) fn eap(&self, realm: &str) -> Option<&Arc<dyn Opens>> {
        match self.realms.get(realm) {
            Some(of) if of.eap.radius => self.radius.as_ref(),
            _ => self.eap.get(realm),
        }
    }

    pub(crate) fn eap_users(&self, realm: &str) -> Arc<EapUsers> {
        let nobody = || {
            let trust = EapTrust { anchors: Arc::default(), policy: None }.into();
            Arc::new(EapUsers { here: Default::default(), elsewhere: Default::default(), trust })
        };
        self.eap_users.get(realm).cloned().unwrap_or_else(nobody)
    }

    /// Tries a key again that did not open before: its token may have been put in meanwhile.
    ///
    /// # Errors
    /// What is in the way, and what to do about it.
    pub(crate) fn try_again(
        &mut self,
        realm: &Realm,
        devices: &Devices,
        at: SystemTime,
    ) -> Result<(), String> {
        let Some(own) = self.absent.get(&realm.name) else {
            return Err(format!("realm `{}` has no usable private key", realm.name));
        };
        let note = &mut |what: String| tracing::warn!(realm = %realm.name, "{what}");
        let open = open_own(own, realm, &self.cas, devices, self.rules, at, note)?;
        tracing::info!(realm = %realm.name, key = %own.name, "the private key is there now");
        self.own.entry(realm.name.clone()).or_default().push(open);
        self.absent.remove(&realm.name);
        Ok(())
    }

    /// Opens a key anew after its device was reset.
    pub(crate) fn reopen(&mut self, realm: &str, spki: &[u8], devices: &Devices) -> Result<(), String> {
        let keys = self.own.get_mut(realm).into_iter().flatten();
        let Some(key) = keys.into_iter().find(|key| key.info.spki == spki) else {
            return Err("there is no such key".into());
        };
        let (place, info) = devices.open_key(&key.source)?;
        (key.place, key.info) = (place, info);
        Ok(())
    }
}

fn open_own(
    own: &OwnKey,
    realm: &Realm,
    cas: &[Arc<Cert>],
    devices: &Devices,
    rules: Rules,
    at: SystemTime,
    note: &mut dyn FnMut(String),
) -> Result<OpenKey, String> {
    let (place, info) = devices
        .open_key(&own.source)
        .map_err(|why| format!("the private key {} cannot be opened: {why}", own.name))?;
    tracing::info!(key = %own.name, device = devices.name(place), "a private key is open");
    match own_chain(own, &info, realm, devices, rules, at, note) {
        Ok(chain) => {
            let source = match &own.source {
                KeySource::Der(der) => KeySource::Der(der.duplicate()),
                KeySource::Uri(uri) => KeySource::Uri(uri.clone()),
                _ => return Err(format!("the private key {} is of an unknown form", own.name)),
            };
            let short = &**devices.short();
            let (issued, authorities) = above(&chain, cas, short);
            // A root: who trusts it has it, who has it not will not take it from us.
            let sent = chain.iter().enumerate().filter(|(i, cert)| *i == 0 || !cert.is_root());
            let certs = sent.map(|(_, cert)| (cert.der.clone(), key_hash(short, &cert.spki))).collect();
            Ok(OpenKey { place, info, source, certs, url: own.url.clone(), chain, issued, authorities })
        }
        Err(what) => {
            devices.close_key(place, info.id);
            Err(what)
        }
    }
}

/// Our certificates, read or fetched from where they are kept, to be sent with a key.
fn own_chain(
    own: &OwnKey,
    info: &KeyInfo,
    realm: &Realm,
    devices: &Devices,
    rules: Rules,
    at: SystemTime,
    note: &mut dyn FnMut(String),
) -> Result<Vec<Arc<Cert>>, String> {
    let mut certs = Vec::new();
    for (i, Certificate { name, der }) in fetch(own, info, devices, note)?.into_iter().enumerate() {
        let cert = Cert::parse(&der).map_err(|e| format!("{name}: {e}"))?;
        if i == 0 {
            if cert.spki != info.spki {
                return Err(format!(
                    "the certificate {name} does not belong to the private key {}",
                    own.name
                ));
            }
            if let Err(e) = usage::check_any(&cert, at, rules.min_rsa_bits)
                .and_then(|()| usage::check_end_entity(&cert, Usages::all()))
            {
                note(format!("{name}: {e}"));
            }
            if !identity::covers(&cert.info(), &realm.local_id) {
                note(format!(
                    "the certificate {name} speaks for {}, not for `{}`; most peers will refuse it",
                    identity::spoken_for(&cert.info()),
                    realm.local_id
                ));
            }
        }
        certs.push(Arc::new(cert));
    }
    Ok(certs)
}

/// Who issued our certificate, and the hashes of the keys of all CAs above it, as far as they are known.
fn above(chain: &[Arc<Cert>], cas: &[Arc<Cert>], short: &dyn ShortOps) -> (Option<Issued>, Vec<[u8; 20]>) {
    let (mut issued, mut hashes) = (None, Vec::new());
    let mut current = chain.first();
    while let Some(cert) = current
        && hashes.len() < MAX_PATH
        && (hashes.is_empty() || !cert.is_self_issued())
    {
        let name = policy::dn::canonical(&cert.issuer);
        let named = |ca: &&Arc<Cert>| ca.canonical_subject() == name;
        let fits = |ca: &&Arc<Cert>| cert.authority_key_id.is_none() || cert.authority_key_id == ca.key_id;
        let all = || chain.iter().skip(1).chain(cas).filter(named);
        let Some(issuer) = all().find(fits).or_else(|| all().next()) else { break };
        hashes.push(key_hash(short, &issuer.spki));
        issued.get_or_insert_with(|| Issued { cert: Arc::clone(cert), issuer: Arc::clone(issuer) });
        current = Some(issuer);
    }
    (issued, hashes)
}

/// The CAs of all realms, each once.
fn cas(credentials: &BTreeMap<String, Credentials>) -> Vec<Arc<Cert>> {
    let all = credentials.values().flat_map(|c| c.trust.anchors.iter().chain(&c.trust.between));
    let ders: BTreeSet<&[u8]> = all.map(|ca| ca.der.as_slice()).collect();
    ders.into_iter().filter_map(|der| Cert::parse(der).ok()).map(Arc::new).collect()
}

fn fetch(
    own: &OwnKey,
    info: &KeyInfo,
    devices: &Devices,
    note: &mut dyn FnMut(String),
) -> Result<Vec<Certificate>, String> {
    let mut all = Vec::new();
    for certificate in &own.certs {
        match certificate {
            OwnCertificate::Given(given) => all.push(given.clone()),
            OwnCertificate::Stored(uri) => {
                let stored = devices.certificates(uri);
                let stored = stored.map_err(|why| format!("the certificate {uri} cannot be had: {why}"))?;
                if stored.is_empty() {
                    return Err(format!("there is no certificate {uri}"));
                }
                all.extend(stored.into_iter().map(|der| Certificate { name: uri.clone(), der }));
            }
        }
    }
    let KeySource::Uri(uri) = &own.source else { return Ok(all) };
    if all.is_empty() {
        // Of several for the same key the one that is good for longest: a renewed one may lie beside the old.
        let beside = devices.certificates(uri).unwrap_or_else(|why| {
            note(format!("no certificate of {} can be had: {why}", own.name));
            Vec::new()
        });
        let read = beside.into_iter().filter_map(|der| Some((Cert::parse(&der).ok()?.info(), der)));
        let newest = read.filter(|(cert, _)| cert.spki == info.spki).max_by_key(|(cert, _)| cert.not_after);
        all.extend(newest.map(|(_, der)| Certificate { name: uri.clone(), der }));
    }
    Ok(all)
}

/// Whom a realm believes in TLS inside EAP.
fn eap_trust(eap: Option<&EapCredentials>, rules: Rules, note: &mut dyn FnMut(String)) -> EapTrust {
    let Some(eap) = eap else { return EapTrust { anchors: Arc::default(), policy: None } };
    EapTrust {
        anchors: eap.anchors.iter().map(|ca| ca.der.clone()).collect(),
        policy: policy(&eap.revocation, rules, note),
    }
}

/// How revocation is looked at, if it is.
fn policy(from: &Revocation, rules: Rules, note: &mut dyn FnMut(String)) -> Option<Arc<Policy>> {
    if from.mode == RevocationMode::Off {
        if !from.crls.is_empty() || from.ocsp.is_some() {
            note("`crl` and `ocsp` say where to ask, and `revocation` is off".into());
        }
        return None;
    }
    Some(Arc::new(Policy::new(from, rules.min_rsa_bits, note)))
}

fn take_trust(
    trust: Trust,
    realm: &Realm,
    rules: Rules,
    at: SystemTime,
    note: &mut dyn FnMut(String),
) -> Believes {
    let (mut believes, mut anchors) = (Believes::default(), Vec::new());
    for Certificate { name, der } in trust.anchors {
        match Cert::parse(&der).and_then(|cert| {
            usage::check_any(&cert, at, rules.min_rsa_bits)?;
            usage::check_authority(&cert, 0)
        }) {
            Ok(()) => anchors.push(der),
            Err(e) => {
                note(format!("CA {name}: {e}"));
                // One that is not valid yet may be later; whether it is, is decided when it is used.
                if matches!(e, spi::cert::CertError::NotValidNow(_)) {
                    anchors.push(der);
                }
            }
        }
    }
    believes.anchors = anchors.into();
    believes.between = trust.between.into_iter().map(|between| between.der).take(MAX_CERTS).collect();
    believes.usages = trust.usages;
    believes.lookups = trust.lookups;
    believes.revocation = policy(&trust.revocation, rules, note);
    for Certificate { name, der } in trust.pinned {
        let read = Cert::parse(&der).map_err(|e| e.to_string()).and_then(|cert| {
            Ok((key::inspect(&cert.spki, rules.min_rsa_bits).map_err(|e| e.to_string())?, cert))
        });
        match read {
            Ok((kind, cert)) => {
                believes.keys.push(Believed { spki: cert.spki.clone(), kind, cert: Some(cert), name });
            }
            Err(e) => note(format!("certificate {name}: {e}")),
        }
    }
    for raw in trust.keys {
        match key::inspect(&raw.spki, rules.min_rsa_bits) {
            Ok(kind) => believes.keys.push(Believed { spki: raw.spki, kind, cert: None, name: raw.name }),
            Err(e) => note(format!("public key {}: {e}", raw.name)),
        }
    }
    believes.first_use = trust.first_use;
    let raw = believes.keys.iter().any(|k| k.cert.is_none());
    if raw && realm.remote_id.the_one().is_none() {
        note("a raw public key says nothing about who has it: `remote_auth` needs one `id`".into());
    }
    believes
}

/// SHA-1 of a SubjectPublicKeyInfo: a name for a CA, not a protection (RFC 7296 section 3.7).
pub(crate) fn key_hash(short: &dyn ShortOps, spki: &[u8]) -> [u8; 20] {
    short.hash(Hash::Sha1, &[spki]).ok().and_then(|h| h.try_into().ok()).unwrap_or([0; 20])
}

/// For each realm what its peers are asked for, for CERTREQ payloads. Certificates that do not parse are left out.
pub fn authorities(config: &Config, short: &dyn ShortOps) -> BTreeMap<String, CertAsks> {
    let hashes = |certs: &[Certificate]| {
        let certs = certs.iter().filter_map(|a| Cert::parse(&a.der).ok());
        certs.map(|cert| key_hash(short, &cert.spki)).collect::<Vec<_>>()
    };
    let of = |trust: &Trust| CertAsks {
        authorities: hashes(&trust.anchors),
        // Of a realm that only believes keys it has, nobody's status is looked at.
        responders: (trust.revocation.mode != RevocationMode::Off && !trust.anchors.is_empty())
            .then(|| hashes(&trust.revocation.signers)),
        urls: trust.lookups != Lookups::No,
    };
    config.credentials.iter().map(|(realm, c)| (realm.clone(), of(&c.trust))).collect()
}
