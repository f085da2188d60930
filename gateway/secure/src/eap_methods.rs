//! What EAP conversations of a realm are made of: methods, users, certificates.

use std::collections::HashMap;
use std::sync::Arc;

use eap::{
    Answer, Certificates, Conversation, Inner, MethodKind, Password, Peer, PeerConfig, Prompt, Random,
    Server, ServerConfig, TlsClient, TlsServer, Users,
};
use ipc::Role;
use policy::{AuthPolicy, EapMethod, Realm};
use spi::{KeySource, Secret, ShortOps};

use crate::config::{Credentials, EapCredentials, EapInner, EapUser, OwnCertificate, OwnKey};
use crate::eap::{Opening, Opens, Passwords};
use crate::eap_judge::{About, EapTrust};

/// Methods of our own, both sides.
pub(crate) struct Methods {
    random: Random,
    server: Option<Arc<ServerConfig>>,
    client: Option<Client>,
    trust: Arc<EapTrust>,
}

struct Client {
    identity: String,
    anonymous: Option<String>,
    password: Option<Secret>,
    methods: Vec<MethodKind>,
    inner: Vec<Inner>,
    tls: Option<Arc<TlsClient>>,
    keyless: bool,
}

impl Methods {
    /// What the realm and its credentials allow.
    ///
    /// # Errors
    /// What is missing, for the operator.
    pub(crate) fn of(
        realm: &Realm,
        credentials: &Credentials,
        users: &[EapUser],
        trust: Arc<EapTrust>,
        short: &Arc<dyn ShortOps>,
    ) -> Result<Methods, String> {
        let ops = Arc::clone(short);
        let random: Random = Arc::new(move |out: &mut [u8]| ops.random(out));
        let none = EapCredentials::default();
        let eap = credentials.eap.as_ref().unwrap_or(&none);
        let server = (realm.remote_auth == AuthPolicy::Eap)
            .then(|| server(realm, eap, credentials.own.as_ref(), users))
            .transpose()?;
        let client =
            (realm.local_auth == AuthPolicy::Eap).then(|| Client::of(realm, eap, users)).transpose()?;
        Ok(Methods { random, server: server.map(Arc::new), client, trust })
    }
}

impl Opens for Methods {
    fn open(&self, opening: &Opening) -> Result<Box<dyn Conversation>, String> {
        let random = Arc::clone(&self.random);
        let (realm, peer) = (Arc::clone(&opening.realm.name), opening.peer_id.clone());
        let judge = opening.inquiries.judge(&self.trust, About { realm, peer, sa: opening.sa });
        match (opening.role, &self.server, &self.client) {
            (Role::Responder, Some(config), _) => {
                let (_, claimed) = opening.peer_id.to_wire();
                let server = Server::new(Arc::clone(config), Some(&claimed), random);
                Ok(Box::new(server.judged_by(judge)))
            }
            (Role::Initiator, _, Some(client)) => {
                let config = client.config(opening);
                config.check()?;
                Ok(Box::new(Peer::new(Arc::new(config), random).judged_by(judge)))
            }
            _ => Err(format!("realm `{}` has no EAP for this side", opening.realm.name)),
        }
    }
}

fn server(
    realm: &Realm,
    eap: &EapCredentials,
    own: Option<&OwnKey>,
    users: &[EapUser],
) -> Result<ServerConfig, String> {
    let methods = kinds(&realm.eap.methods);
    let tls = if methods.iter().any(|kind| kind.needs_tls()) {
        let own = eap.own.as_ref().or(own).ok_or("EAP in TLS needs a `cert` and a `key`")?;
        Some(Arc::new(TlsServer::new(certificates(Some(own), eap)?)?))
    } else {
        None
    };
    // Also those of other realms: the user may belong to one of those, which is found out when it is known who it is.
    let known = users.iter();
    let config = ServerConfig {
        name: realm.local_id.to_string(),
        methods,
        inner: inner(eap),
        users: Arc::new(Known(known.map(|user| (user.name.clone(), user.password.duplicate())).collect())),
        tls,
        ask_identity: realm.eap.ask_identity,
        allow_keyless: realm.eap.keyless,
    };
    config.check()?;
    if realm.eap.methods.iter().any(|method| method.needs_password()) && users.is_empty() {
        return Err("there is no [[eap]] user".into());
    }
    Ok(config)
}

impl Client {
    fn of(realm: &Realm, eap: &EapCredentials, users: &[EapUser]) -> Result<Client, String> {
        let identity = realm.eap.identity.clone().unwrap_or_else(|| realm.local_id.to_string());
        let methods = kinds(&realm.eap.methods);
        let tls = if methods.iter().any(|kind| kind.needs_tls()) {
            let name = eap.server_name.as_deref().ok_or("EAP in TLS needs the name of the `server`")?;
            Some(Arc::new(TlsClient::new(certificates(eap.own.as_ref(), eap)?, name)?))
        } else {
            None
        };
        if methods.contains(&MethodKind::Tls) && eap.own.is_none() {
            return Err("EAP-TLS needs a `cert` and a `key` of ours".into());
        }
        let user = users.iter().find(|user| user.is_for(&realm.name) && user.name == identity);
        Ok(Client {
            identity,
            anonymous: eap.anonymous.clone(),
            password: user.map(|user| user.password.duplicate()),
            methods,
            inner: inner(eap),
            tls,
            keyless: realm.eap.keyless,
        })
    }

    fn config(&self, opening: &Opening) -> PeerConfig {
        let password = match &self.password {
            Some(password) => Password::Known(password.duplicate()),
            None if self.methods == [MethodKind::Tls] => Password::None,
            None => Password::Ask(Arc::new(Ask {
                realm: opening.realm.name.to_string(),
                passwords: opening.passwords.clone(),
            })),
        };
        PeerConfig {
            identity: self.identity.clone(),
            anonymous: self.anonymous.clone(),
            password,
            methods: self.methods.clone(),
            inner: self.inner.clone(),
            tls: self.tls.clone(),
            allow_keyless: self.keyless,
        }
    }
}

/// Asks whoever steers the gateway.
struct Ask {
    realm: String,
    passwords: Passwords,
}

impl Prompt for Ask {
    fn ask(&self, identity: &str, _question: Option<&str>) -> Answer {
        self.passwords.ask(&self.realm, identity).map_or(Answer::Pending, Answer::Given)
    }
}

/// The users of a configuration.
struct Known(HashMap<String, Secret>);

impl Users for Known {
    fn password(&self, name: &str) -> Option<Secret> {
        self.0.get(name).map(Secret::duplicate)
    }
}

fn certificates(own: Option<&OwnKey>, eap: &EapCredentials) -> Result<Certificates, String> {
    let mut certificates = Certificates {
        roots: eap.anchors.iter().map(|ca| ca.der.clone()).collect(),
        ..Certificates::default()
    };
    let Some(own) = own else { return Ok(certificates) };
    let KeySource::Der(der) = &own.source else {
        return Err(format!("EAP in TLS needs a key in a file; {} is in a device", own.name));
    };
    certificates.key = Some(der.duplicate());
    for cert in &own.certs {
        match cert {
            OwnCertificate::Given(cert) => certificates.chain.push(cert.der.clone()),
            OwnCertificate::Stored(uri) => {
                return Err(format!("EAP in TLS needs a certificate in a file; {uri} is in a device"));
            }
        }
    }
    Ok(certificates)
}

/// What runs inside tunnels, unless the operator says.
fn inner(eap: &EapCredentials) -> Vec<Inner> {
    match eap.inner.as_slice() {
        [] => vec![Inner::MsChapV2, Inner::Eap(MethodKind::MsChapV2), Inner::Pap],
        said => said.iter().map(|inner| nested(*inner)).collect(),
    }
}

fn nested(inner: EapInner) -> Inner {
    match inner {
        EapInner::Pap => Inner::Pap,
        EapInner::MsChapV2 => Inner::MsChapV2,
        EapInner::EapMsChapV2 => Inner::Eap(MethodKind::MsChapV2),
        EapInner::EapGtc => Inner::Eap(MethodKind::Gtc),
        EapInner::EapMd5 => Inner::Eap(MethodKind::Md5),
    }
}

fn kinds(methods: &[EapMethod]) -> Vec<MethodKind> {
    methods.iter().map(|method| kind(*method)).collect()
}

/// The method as the conversations have it.
pub(crate) fn kind(method: EapMethod) -> MethodKind {
    match method {
        EapMethod::Md5 => MethodKind::Md5,
        EapMethod::Gtc => MethodKind::Gtc,
        EapMethod::MsChapV2 => MethodKind::MsChapV2,
        EapMethod::Tls => MethodKind::Tls,
        EapMethod::Ttls => MethodKind::Ttls,
        EapMethod::Peap => MethodKind::Peap,
    }
}
