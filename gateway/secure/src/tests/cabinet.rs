//! Keys and certificates that a device keeps: found by URI, beside each other, and later than the gateway.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use ipc::Role;
use rcgen::KeyPair;
use spi::crypto::KeyInfo;
use spi::{
    CryptoQueue, Device, DeviceDesc, EspQueue, Fault, FaultKind, Health, KeyId, KeySource, QueueConfig, SaId,
    SaParams, Secret,
};

use crate::config::{Config, OwnCertificate, OwnKey, Trust};
use crate::testing::*;

const MOON: &str = "moon.lab.test";
const SUN: &str = "sun.lab.test";
const KEY: &str = "pkcs11:object=moon";

/// A device that keeps keys and certificates under names, and lets software sign with them. It may be locked.
struct Cabinet {
    soft: Arc<dyn Device>,
    keys: BTreeMap<&'static str, Vec<u8>>,
    certificates: Mutex<BTreeMap<&'static str, Vec<Vec<u8>>>>,
    locked: AtomicBool,
}

impl Cabinet {
    fn with(key: &KeyPair, certificates: BTreeMap<&'static str, Vec<Vec<u8>>>) -> Arc<Cabinet> {
        let soft = devices().pop().unwrap();
        let keys = BTreeMap::from([(KEY, key.serialized_der().to_vec())]);
        Arc::new(Cabinet { soft, keys, certificates: Mutex::new(certificates), locked: false.into() })
    }

    fn get<T: Clone>(&self, of: &BTreeMap<&'static str, T>, uri: &str) -> Result<T, Fault> {
        match of.get(uri) {
            _ if self.locked.load(Ordering::SeqCst) => Err(Fault { kind: FaultKind::Internal, vendor: 1 }),
            Some(got) => Ok(got.clone()),
            None => Err(Fault { kind: FaultKind::Internal, vendor: 2 }),
        }
    }
}

impl Device for Cabinet {
    fn desc(&self) -> &DeviceDesc {
        self.soft.desc()
    }

    fn esp_queue(&self, _: QueueConfig) -> Option<Box<EspQueue>> {
        None
    }

    fn crypto_queue(&self, config: QueueConfig) -> Option<Box<CryptoQueue>> {
        self.soft.crypto_queue(config)
    }

    fn install_sa(&self, _: &SaParams) -> Result<SaId, Fault> {
        Err(FaultKind::Unsupported.into())
    }

    fn remove_sa(&self, _: SaId) {}

    fn open_key(&self, source: KeySource) -> Result<KeyInfo, Fault> {
        let KeySource::Uri(uri) = source else { return Err(FaultKind::Unsupported.into()) };
        self.soft.open_key(KeySource::Der(Secret::new(self.get(&self.keys, &uri)?)))
    }

    fn close_key(&self, key: KeyId) {
        self.soft.close_key(key);
    }

    fn certificates(&self, uri: &str) -> Result<Vec<Vec<u8>>, Fault> {
        self.get(&self.certificates.lock().unwrap(), uri)
    }

    fn explain(&self, fault: Fault) -> String {
        match fault.vendor {
            1 => "the cabinet is locked; unlock it".into(),
            2 => "there is no such thing in the cabinet".into(),
            _ => fault.to_string(),
        }
    }

    fn health(&self) -> Health {
        Health::Ready
    }

    fn begin_reset(&self) {}
}

fn config(certs: Vec<OwnCertificate>) -> Config {
    let own = OwnKey { name: KEY.into(), source: KeySource::Uri(KEY.into()), certs, url: None };
    pubkey(MOON, "any", Some(own), Trust::default())
}

fn side(cabinet: &Arc<Cabinet>, certs: Vec<OwnCertificate>) -> Side {
    let cabinet: Arc<dyn Device> = cabinet.clone();
    Side::on(config(certs), [vec![cabinet], devices()].concat())
}

fn accepted_by(ca: &Ca, made: ipc::Reply) {
    let mut sun = Side::new(pubkey(SUN, MOON, None, trust_ca(&[ca])));
    accepted(sun.check(1, "r", SUN, MOON, initiators(Role::Responder), proof(made)));
}

#[test]
fn a_certificate_is_taken_by_its_uri_or_from_beside_its_key() {
    let (ca, key) = (Ca::new("CA"), KeyPair::generate().unwrap());
    let other = ca.issue(SUN, KeyPair::generate().unwrap());
    let leaf = ca.issue(MOON, key);
    let der = leaf.cert.der().to_vec();
    let stored = BTreeMap::from([
        ("pkcs11:object=paper", vec![der.clone()]),
        (KEY, vec![other.cert.der().to_vec(), der.clone()]),
        ("pkcs11:object=sun", vec![other.cert.der().to_vec()]),
        ("pkcs11:object=none", vec![]),
    ]);
    let cabinet = Cabinet::with(&leaf.key, stored);
    let by_uri = |uri: &str| vec![OwnCertificate::Stored(uri.into())];
    for certs in [by_uri("pkcs11:object=paper"), vec![], vec![leaf.named().into()]] {
        let mut moon = side(&cabinet, certs);
        // The test believes nobody, and hears that.
        assert!(
            moon.problems.iter().all(|problem| problem.what.contains("names no CA")),
            "{:?}",
            moon.problems
        );
        accepted_by(&ca, moon.make(1, "r", MOON, initiators(Role::Initiator)));
    }
    for (uri, part) in [
        ("pkcs11:object=sun", "does not belong to the private key"),
        ("pkcs11:object=none", "there is no certificate pkcs11:object=none"),
        ("pkcs11:object=gone", "there is no such thing in the cabinet"),
    ] {
        let moon = side(&cabinet, by_uri(uri));
        assert!(moon.problems[0].what.contains(part), "{:?}", moon.problems);
    }
}

#[test]
fn a_key_that_is_put_in_later_is_used_then_and_until_then_the_refusal_says_why() {
    let (ca, key) = (Ca::new("CA"), KeyPair::generate().unwrap());
    let leaf = ca.issue(MOON, key);
    let cabinet = Cabinet::with(&leaf.key, BTreeMap::from([(KEY, vec![leaf.cert.der().to_vec()])]));
    cabinet.locked.store(true, Ordering::SeqCst);
    let mut moon = side(&cabinet, vec![]);
    let said = &moon.problems[0].what;
    assert!(said.contains("pkcs11:object=moon cannot be opened: the cabinet is locked; unlock it"), "{said}");
    for sa in 1..4 {
        let why = refusal(moon.make(sa, "r", MOON, initiators(Role::Initiator))).to_string();
        assert!(why.contains("unlock it"), "{why}");
    }
    cabinet.locked.store(false, Ordering::SeqCst);
    accepted_by(&ca, moon.make(9, "r", MOON, initiators(Role::Initiator)));
}

#[test]
fn without_a_device_for_uris_the_operator_hears_what_to_configure() {
    let moon = Side::new(config(vec![]));
    let said = &moon.problems[0].what;
    assert!(said.contains("no token is configured") && said.contains("[accel.NAME]"), "{said}");
}
