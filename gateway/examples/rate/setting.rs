//! Who the two gateways are: one responder for anybody, and as many initiators as SAs are wanted, in one engine.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use policy::{
    AuthPolicy, Child, ChildMode, Childless, Dpd, DpdAction, Encap, EspProposal, IdMatch, Identity,
    IkeProposal, Lifetime, Realm, RemoteAddress, SelectorSpec, Start, VirtualIpRequest,
};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use secure::{Certificate, Credentials, OwnKey, Psk, Trust};
use spi::{KeySource, Secret};

/// What is to be set up.
#[derive(Clone)]
pub(crate) struct Setting {
    pub(crate) sas: usize,
    pub(crate) certificates: bool,
    pub(crate) child: bool,
    pub(crate) ike: String,
    pub(crate) esp: String,
}

pub(crate) const RESPONDER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
pub(crate) const INITIATOR: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));

/// Private keys that a device opens.
const KEYS: usize = 4000;

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    der: Vec<u8>,
}

impl Authority {
    fn new() -> Result<Authority> {
        let mut params = CertificateParams::new(vec![])?;
        params.distinguished_name.push(DnType::CommonName, "Lab CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let der = params.self_signed(&key)?.der().to_vec();
        Ok(Authority { issuer: Issuer::new(params, key), der })
    }

    fn issue(&self, names: Vec<String>) -> Result<(Vec<u8>, Vec<u8>)> {
        let mut params = CertificateParams::new(names.clone())?;
        params.distinguished_name.push(DnType::CommonName, names.concat().get(..14).unwrap_or("c"));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        Ok((params.signed_by(&key, &self.issuer)?.der().to_vec(), key.serialize_der()))
    }

    fn credentials(&self, cert: &[u8], key: &[u8]) -> Credentials {
        let certificate = |der: &[u8]| Certificate { name: "generated".into(), der: der.to_vec() };
        Credentials {
            own: Some(OwnKey {
                name: "generated".into(),
                source: KeySource::Der(Secret::from_slice(key)),
                certs: vec![certificate(cert).into()],
                url: None,
            }),
            eap: None,
            also: Vec::new(),
            trust: Trust { anchors: vec![certificate(&self.der)], ..Trust::default() },
        }
    }
}

/// Configurations: the initiator's, the responder's.
pub(crate) type Configs = [(ike::Config, secure::Config); 2];

impl Setting {
    /// Both sides' configurations.
    pub(crate) fn configs(&self) -> Result<Configs> {
        let name = |n: usize| format!("c{n}.lab.test");
        let auth = if self.certificates { AuthPolicy::Pubkey } else { AuthPolicy::Psk };
        let mut initiators = Vec::new();
        for n in 0..self.sas {
            let inner = Ipv4Addr::from(0x0a40_0000 + n as u32);
            let child = self.child(&format!("{inner}/32"), "10.1.0.0/16")?;
            let mut realm = self.realm(&format!("r{n}"), &name(n), "moon.lab.test", auth)?;
            realm.remote = vec![RemoteAddress::Host(RESPONDER)];
            realm.children = vec![child];
            if !self.child {
                realm.childless = Childless::Prefer;
                realm.children.clear();
            }
            initiators.push(Arc::new(realm));
        }
        let mut realm = self.realm("gate", "moon.lab.test", "any", auth)?;
        realm.children = vec![self.child("10.1.0.0/16", "10.64.0.0/10")?];
        let realm = Arc::new(realm);
        let mut keys = [secure::Config::default(), secure::Config::default()];
        let [initiator, responder] = &mut keys;
        if self.certificates {
            let ca = Authority::new()?;
            // As many as a device has room for keys; beyond, several initiators share one.
            let count = self.sas.min(KEYS);
            for first in 0..count {
                let of_cert = || (first..self.sas).step_by(count);
                let (cert, key) = ca.issue(of_cert().map(name).collect())?;
                for n in of_cert() {
                    initiator.credentials.insert(format!("r{n}"), ca.credentials(&cert, &key));
                }
            }
            let (cert, key) = ca.issue(vec!["moon.lab.test".into()])?;
            responder.credentials.insert("gate".into(), ca.credentials(&cert, &key));
        } else {
            for config in [&mut *initiator, &mut *responder] {
                config.psks.push(Psk {
                    ids: vec![],
                    realm: None,
                    secret: Secret::from_slice(b"load-test-psk"),
                });
            }
        }
        initiator.realms = initiators.clone();
        responder.realms = vec![realm.clone()];
        let [initiator, responder] = keys;
        let engine = |own: IpAddr, realms| ike::Config {
            realms,
            listen: vec![own],
            cookie_threshold: usize::MAX,
            half_open_limit: usize::MAX,
            ike_sa_limit: usize::MAX,
            ..ike::Config::default()
        };
        Ok([(engine(INITIATOR, initiators), initiator), (engine(RESPONDER, vec![realm]), responder)])
    }

    fn realm(&self, name: &str, own: &str, peer: &str, auth: AuthPolicy) -> Result<Realm> {
        Ok(Realm {
            name: name.into(),
            local: vec![],
            remote: vec![],
            ike: vec![IkeProposal::parse(&self.ike).context("no IKE proposal")?],
            local_id: Identity::parse(own)?,
            local_auth: auth,
            aliases: vec![],
            remote_id: IdMatch::parse(peer)?.into(),
            remote_auth: auth,
            eap: policy::EapPolicy::default(),
            methods: vec![],
            children: vec![],
            start: Start::Manual,
            encap: Encap::Udp,
            fragmentation: true,
            fragment_size: 1280,
            childless: Childless::Allow,
            ike_rekey: Lifetime::of(Duration::from_secs(14400)),
            ike_reauth: Lifetime::of(Duration::ZERO),
            dpd: Dpd { delay: Duration::from_secs(30), action: DpdAction::Clear },
            virtual_ip: VirtualIpRequest::default(),
            pool: None,
            unique: true,
            worker: None,
        })
    }

    fn child(&self, local: &str, remote: &str) -> Result<Child> {
        Ok(Child {
            name: "net".into(),
            mode: ChildMode::Tunnel,
            local: vec![SelectorSpec::parse(local)?],
            remote: vec![SelectorSpec::parse(remote)?],
            esp: vec![EspProposal::parse(&self.esp).context("no ESP proposal")?],
            start: Start::Manual,
            rekey: Lifetime::of(Duration::from_secs(3600)),
            replay_window: 1024,
            tfc: 0,
            copy_df: true,
            copy_dscp: true,
            tun: "".into(),
        })
    }
}
