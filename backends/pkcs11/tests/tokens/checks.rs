//! What every token must do with the backend.

use std::collections::BTreeSet;

use openssl::asn1::Asn1Time;
use openssl::derive::Deriver;
use openssl::hash::MessageDigest;
use openssl::pkey::{Id, PKey};
use openssl::x509::{X509, X509Builder, X509NameBuilder};
use pkcs11::{KeySpec, PinSource, Pkcs11, Side, Site, Uri};
use spi::alg::Curve;
use spi::{CryptoOp, CryptoOutput, DhPrivate, FaultKind, Group, Hash, Outcome, SignScheme};

use crate::Check;
use crate::bench::{Bench, fault, key, said, sign, verifies};
use crate::place::{Kind, PIN, Place, open};

macro_rules! checks {
    ($($name:ident)*) => { &[$(Check { name: stringify!($name), kinds: Kind::ALL, run: $name }),*] };
}

pub(crate) const CHECKS: &[Check] = checks! {
    every_scheme_of_every_kind_of_key_verifies
    many_signatures_in_several_sessions_come_once_each
    a_certificate_is_found_by_its_uri_and_by_its_key
    exchanges_agree_with_openssl
    the_kit_finds_nothing
    a_wrong_pin_is_tried_once
    what_cannot_be_is_said_and_what_to_do
    a_reset_makes_handles_stale_and_nothing_else
};

const KINDS: [(&str, KeySpec); 5] = [
    ("rsa", KeySpec::Rsa(2048)),
    ("p256", KeySpec::Ec(Curve::P256)),
    ("p384", KeySpec::Ec(Curve::P384)),
    ("p521", KeySpec::Ec(Curve::P521)),
    ("ed25519", KeySpec::Ed25519),
];

/// Signs with every scheme of every kind of key that the token makes. All make RSA and ECDSA; Ed25519 where they can.
fn every_scheme_of_every_kind_of_key_verifies(place: &Place) {
    let (desk, device) = (place.desk(), place.keys(place.site()));
    let mut bench = Bench::new(&*device);
    let mut seen = BTreeSet::new();
    for (label, spec) in KINDS {
        let uri = match desk.generate(spec, label, None) {
            Ok(uri) => uri,
            Err(trouble) => {
                assert!(label == "ed25519" && place.kind != Kind::Emulated, "{label}: {trouble}");
                println!("     {label}: {trouble}");
                continue;
            }
        };
        let info = key(&*device, &uri).unwrap();
        for scheme in &info.schemes {
            for octets in [&b""[..], b"octets", &[7; 3000]] {
                let signature = bench.sign(&info, *scheme, octets).unwrap();
                assert!(verifies(&info.spki, *scheme, octets, &signature), "{scheme:?}");
                assert!(!verifies(&info.spki, *scheme, b"other octets", &signature), "{scheme:?}");
            }
            assert!(device.desc().caps.sign.contains(scheme), "{scheme:?} is not declared");
            seen.insert(*scheme);
        }
        let foreign = if label == "rsa" { SignScheme::Ed25519 } else { SignScheme::RsaPss(Hash::Sha256) };
        assert_eq!(fault(bench.sign(&info, foreign, b"").unwrap_err()).kind, FaultKind::Unsupported);
    }
    for wanted in [
        SignScheme::RsaPss(Hash::Sha256),
        SignScheme::RsaPkcs1(Hash::Sha512),
        SignScheme::EcdsaDer(Curve::P384, Hash::Sha384),
        SignScheme::EcdsaPlain(Curve::P256, Hash::Sha256),
    ] {
        assert!(seen.contains(&wanted), "{wanted:?} of {seen:?}");
    }
    println!("     {} schemes", seen.len());
}

fn many_signatures_in_several_sessions_come_once_each(place: &Place) {
    let uri = place.desk().generate(KeySpec::Ec(Curve::P256), "k", None).unwrap();
    let device = place.keys(Site { sessions: 4, ..place.site() });
    let info = key(&*device, &uri).unwrap();
    let mut bench = Bench::new(&*device);
    let scheme = SignScheme::EcdsaPlain(Curve::P256, Hash::Sha256);
    let ops = (0..300u32).map(|n| sign(&info, scheme, &n.to_be_bytes())).collect();
    for (n, (outcome, output)) in bench.run_all(ops).into_iter().enumerate() {
        let CryptoOutput::Signature(signature) = output else { panic!("{}", said(&*device, outcome)) };
        assert!(verifies(&info.spki, scheme, &(n as u32).to_be_bytes(), &signature));
    }
    let stats = device.stats().unwrap();
    assert!(
        stats.counters.contains(&("signatures", 300)) && stats.counters.contains(&("logins", 1)),
        "{stats:?}"
    );
    assert!(stats.queues[0].done == 300 && stats.queues[0].latency.p50_ns > 0, "{stats:?}");
    drop(bench);
    assert!(device.stats().unwrap().queues.is_empty());
}

fn certificate(spki: &[u8]) -> X509 {
    let issuer = PKey::generate_ed25519().unwrap();
    let mut name = X509NameBuilder::new().unwrap();
    name.append_entry_by_text("CN", "moon.lab.test").unwrap();
    let name = name.build();
    let mut builder = X509Builder::new().unwrap();
    builder.set_subject_name(&name).unwrap();
    builder.set_issuer_name(&name).unwrap();
    builder.set_pubkey(&PKey::public_key_from_der(spki).unwrap()).unwrap();
    builder.set_not_before(&Asn1Time::days_from_now(0).unwrap()).unwrap();
    builder.set_not_after(&Asn1Time::days_from_now(9).unwrap()).unwrap();
    builder.sign(&issuer, MessageDigest::null()).unwrap();
    builder.build()
}

fn a_certificate_is_found_by_its_uri_and_by_its_key(place: &Place) {
    let desk = place.desk();
    let device = place.keys(place.site());
    let uri = desk.generate(KeySpec::Ec(Curve::P256), "moon", Some(vec![1, 0xfe])).unwrap();
    assert_eq!(device.certificates(&uri).unwrap(), Vec::<Vec<u8>>::new(), "none is beside the key yet");
    let signer = desk.signer(&Uri::parse(&uri).unwrap()).unwrap();
    let der = certificate(signer.spki()).to_der().unwrap();
    let stored = desk.import(&der, &Uri::parse(&uri).unwrap()).unwrap();
    for by in [uri.as_str(), &stored, "pkcs11:object=moon", "pkcs11:token=lab;id=%01%fe;type=cert"] {
        assert_eq!(device.certificates(by).unwrap(), std::slice::from_ref(&der), "{by}");
    }
    assert_eq!(
        desk.import(&der, &Uri::parse(&uri).unwrap()).unwrap(),
        stored,
        "a second time changes nothing"
    );
    let newer = certificate(signer.spki()).to_der().unwrap();
    desk.import(&newer, &Uri::parse(&uri).unwrap()).unwrap();
    assert_eq!(device.certificates(&uri).unwrap(), [newer], "a newer one takes the place");
    let foreign =
        certificate(&PKey::generate_ed25519().unwrap().public_key_to_der().unwrap()).to_der().unwrap();
    let refused = desk.import(&foreign, &Uri::parse(&uri).unwrap()).unwrap_err();
    assert!(refused.text.contains("of another"), "{refused}");
    assert!(
        desk.import(b"0\x03abc", &Uri::parse(&uri).unwrap()).unwrap_err().text.contains("no certificate")
    );
    let missing = device.certificates("pkcs11:object=sun;type=cert").unwrap_err();
    assert!(device.explain(missing).contains("there is `object=moon"), "{}", device.explain(missing));
    let listing = desk.list(true).unwrap().remove(0);
    let texts: Vec<&str> = listing.objects.iter().map(|object| object.text.as_str()).collect();
    assert!(
        texts.contains(&"private key, ECDSA P-256") && texts.contains(&"public key, ECDSA P-256"),
        "{texts:?}"
    );
    assert!(
        texts.iter().any(|text| text.starts_with("certificate") && text.contains("moon.lab.test")),
        "{texts:?}"
    );
    assert!(listing.uri.starts_with("pkcs11:token=lab"), "{}", listing.uri);
    // Signed by the token, checked by OpenSSL.
    let signature = signer.sign(b"request").unwrap();
    assert!(verifies(signer.spki(), signer.scheme(), b"request", &signature));
}

/// The token's half with the token's own other half, and with a key that OpenSSL made; also a half that is brought in.
fn exchanges_agree_with_openssl(place: &Place) {
    let device = open(&place.exchanges()).unwrap();
    let mut bench = Bench::new(&*device);
    let groups = &device.desc().caps.dh;
    assert!(groups.contains(&Group::ECP256) && groups.contains(&Group::ECP521), "{groups:?}");
    for group in groups.clone() {
        let Ok(CryptoOutput::DhPair(ours, public)) = bench.run(CryptoOp::DhGenerate { group }) else {
            panic!("{group}")
        };
        assert!(matches!(ours, DhPrivate::Handle(_)), "{group}: the private half came out");
        let Some(peer) = Peer::new(group) else { continue };
        let theirs = peer.public();
        let secret = |output| match output {
            Ok(CryptoOutput::Secret(secret)) => secret,
            Err(outcome) => panic!("{group}: {}", said(&*device, outcome)),
            _ => panic!("{group}: no secret"),
        };
        let got = secret(bench.run(CryptoOp::DhDerive { group, ours, theirs: theirs.clone() }));
        assert!(got.ct_eq(&peer.derive(&public)), "{group}: OpenSSL comes to another secret");
        let bytes = DhPrivate::Bytes(peer.private());
        let Ok(CryptoOutput::DhPair(_, other)) = bench.run(CryptoOp::DhGenerate { group }) else {
            panic!("{group}")
        };
        let got = secret(bench.run(CryptoOp::DhDerive { group, ours: bytes, theirs: other.clone() }));
        assert!(got.ct_eq(&peer.derive(&other)), "{group}: a half that was brought in");
    }
    // A half serves for one secret.
    let group = Group::ECP256;
    let Ok(CryptoOutput::DhPair(DhPrivate::Handle(id), public)) = bench.run(CryptoOp::DhGenerate { group })
    else {
        panic!()
    };
    let derive = || CryptoOp::DhDerive { group, ours: DhPrivate::Handle(id), theirs: public.clone() };
    assert!(bench.run(derive()).is_ok());
    assert_eq!(fault(bench.run(derive()).err().unwrap()).kind, FaultKind::StaleHandle);
    println!("     {}", groups.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "));
}

/// OpenSSL's end of an exchange.
struct Peer {
    group: Group,
    key: PKey<openssl::pkey::Private>,
}

impl Peer {
    fn new(group: Group) -> Option<Peer> {
        use openssl::nid::Nid;
        let on = |nid| {
            let group = openssl::ec::EcGroup::from_curve_name(nid).unwrap();
            PKey::from_ec_key(openssl::ec::EcKey::generate(&group).unwrap()).unwrap()
        };
        let key = match group {
            Group::ECP256 => on(Nid::X9_62_PRIME256V1),
            Group::ECP384 => on(Nid::SECP384R1),
            Group::ECP521 => on(Nid::SECP521R1),
            Group::X25519 => PKey::generate_x25519().unwrap(),
            Group::X448 => PKey::generate_x448().unwrap(),
            _ => return None,
        };
        Some(Peer { group, key })
    }

    fn id(&self) -> Option<Id> {
        match self.group {
            Group::X25519 => Some(Id::X25519),
            Group::X448 => Some(Id::X448),
            _ => None,
        }
    }

    fn public(&self) -> Vec<u8> {
        if self.id().is_some() {
            return self.key.raw_public_key().unwrap();
        }
        let der = self.key.public_key_to_der().unwrap();
        let len = self.group.info().unwrap().public_len;
        der[der.len() - len..].to_vec()
    }

    fn private(&self) -> spi::Secret {
        spi::Secret::new(match self.id() {
            Some(_) => self.key.raw_private_key().unwrap(),
            None => {
                let len = self.group.info().unwrap().secret_len as i32;
                self.key.ec_key().unwrap().private_key().to_vec_padded(len).unwrap()
            }
        })
    }

    fn derive(&self, theirs: &[u8]) -> Vec<u8> {
        let theirs = match self.id() {
            Some(id) => PKey::public_key_from_raw_bytes(theirs, id).unwrap(),
            None => {
                let ec = self.key.ec_key().unwrap();
                let mut context = openssl::bn::BigNumContext::new().unwrap();
                let octets = [&[4], theirs].concat();
                let point = openssl::ec::EcPoint::from_bytes(ec.group(), &octets, &mut context).unwrap();
                PKey::from_ec_key(openssl::ec::EcKey::from_public_key(ec.group(), &point).unwrap()).unwrap()
            }
        };
        let mut deriver = Deriver::new(&self.key).unwrap();
        deriver.set_peer(&theirs).unwrap();
        deriver.derive_to_vec().unwrap()
    }
}

/// Every check of the conformance kit, on both sides of the driver.
fn the_kit_finds_nothing(place: &Place) {
    let keys = Pkcs11::new(vec![Site { sessions: 2, ..place.site() }], Side::Keys);
    for (name, check) in hwtest::CHECKS {
        for driver in [&keys, &place.exchanges()] {
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| check(driver)));
            assert!(result.is_ok(), "{name}");
        }
    }
}

/// One try, whoever asks and however often: another key, another queue, another device, after a reset. Then the right PIN is taken.
fn a_wrong_pin_is_tried_once(place: &Place) {
    let uri = place.desk().generate(KeySpec::Ec(Curve::P256), "k", None).unwrap();
    std::fs::write(place.pin_file(), "87654329\n").unwrap();
    let logins = |device: &dyn spi::Device| {
        let stats = device.stats().unwrap();
        stats.counters.iter().find(|(name, _)| *name == "logins").unwrap().1
    };
    let device = place.keys(place.site());
    let first = key(&*device, &uri).unwrap_err();
    assert!(first.contains("refuses the PIN") && !first.contains("87654329"), "{first}");
    for _ in 0..5 {
        let again = key(&*device, &uri).unwrap_err();
        assert!(again.contains("refused this PIN before"), "{again}");
        device.begin_reset();
    }
    assert_eq!(logins(&*device), 1);
    let other = place.keys(place.site());
    assert!(key(&*other, &uri).unwrap_err().contains("refused this PIN before"));
    let why = open(&place.exchanges()).err().unwrap();
    assert!(why.contains("refused this PIN before"), "{why}");
    assert_eq!(logins(&*other), 0);
    if place.kind == Kind::Emulated {
        assert_eq!(place.count("C_Login"), 2, "one to make the key, one that was refused");
    }
    // The operator corrects the file; nothing has to be started again.
    std::fs::write(place.pin_file(), PIN).unwrap();
    let info = key(&*device, &uri).unwrap();
    Bench::new(&*device).sign(&info, info.schemes[0], b"octets").unwrap();
}

fn what_cannot_be_is_said_and_what_to_do(place: &Place) {
    let desk = place.desk();
    let device = place.keys(place.site());
    let none = key(&*device, "pkcs11:object=moon").unwrap_err();
    assert!(none.contains("has none at all") && none.contains("tussock pki token generate"), "{none}");
    desk.generate(KeySpec::Ec(Curve::P256), "moon", Some(vec![1])).unwrap();
    let missing = key(&*device, "pkcs11:token=lab;object=sun").unwrap_err();
    assert!(missing.contains("object=sun") && missing.contains("there is `object=moon;id=%01`"), "{missing}");
    let twice = desk.generate(KeySpec::Ec(Curve::P256), "moon", None).unwrap_err();
    assert!(twice.text.contains("already"), "{twice}");
    // The same CKA_ID again, under another label: by the ID alone it is not plain which.
    desk.generate(KeySpec::Ec(Curve::P256), "moon2", Some(vec![1])).unwrap();
    let many = key(&*device, "pkcs11:id=%01").unwrap_err();
    assert!(many.contains("2 private keys fit") && many.contains("object=moon2;id=%01"), "{many}");
    for (uri, part) in [
        ("pkcs11:token=lab", "names no object"),
        ("pkcs11:token=lab;type=private", "names no object"),
        ("pkcs11:object=moon;type=cert", "is no private key"),
        ("pkcs11:objct=moon", "no attribute `objct`"),
        ("pkcs11:token=other;object=moon", "is not on the token of accel.lab"),
        ("pkcs11:object=moon?module-path=/other.so", "is not on the token"),
        ("pkcs11:object=moon?pin-value=1234", "pin-source"),
    ] {
        let said = key(&*device, uri).unwrap_err();
        assert!(said.contains(part), "{uri}: {said}");
    }
    let kind =
        device.open_key(spi::KeySource::Uri("pkcs11:token=other;object=moon".into())).unwrap_err().kind;
    assert_eq!(kind, FaultKind::Unsupported, "so that the next device is asked");
    assert!(device.open_key(spi::KeySource::Der(spi::Secret::from_slice(b"0"))).is_err());
    may_not_sign(place);
    // A site that fits nothing.
    let elsewhere = Site { token: Uri::parse("pkcs11:token=other").unwrap(), ..place.site() };
    let absent = key(&*place.keys(elsewhere), "pkcs11:object=moon").unwrap_err();
    assert!(absent.contains("no token fits pkcs11:token=other") && absent.contains("`lab`"), "{absent}");
    let no_pin = key(&*place.keys(Site { pin: PinSource::None, ..place.site() }), "pkcs11:object=moon");
    // Who is logged in is the process; then nobody asks for a PIN. The emulated token has just lost its sessions.
    match place.kind {
        Kind::Emulated => assert!(no_pin.unwrap_err().contains("wants a PIN; name it by pin_file")),
        _ => assert!(no_pin.is_ok()),
    }
    let gone = Pkcs11::new(vec![Site::new("x", "/nonexistent.so")], Side::Keys);
    assert!(open(&gone).err().unwrap().contains("/nonexistent.so cannot be found"));
}

/// A key that is not for signing. SoftHSM lets every key sign of which nothing is said, and OpenSC's tool says nothing.
fn may_not_sign(place: &Place) {
    match place.kind {
        Kind::SoftHsm => return,
        Kind::Kryoptic => {
            let usage = [
                "--keypairgen",
                "--key-type",
                "EC:prime256v1",
                "--usage-derive",
                "--label",
                "dh",
                "--id",
                "09",
            ];
            place.tool(&[&usage[..], &["--token-label", "lab", "--login", "--pin", PIN]].concat()).unwrap();
        }
        Kind::Emulated => {
            place.desk().generate(KeySpec::Ec(Curve::P256), "dh", Some(vec![9])).unwrap();
            place.edit_last_object("264", &[0]);
            place.control("lose_sessions = 1");
        }
    }
    let unfit = key(&*place.keys(place.site()), "pkcs11:object=dh").unwrap_err();
    assert!(unfit.contains("CKA_SIGN is false"), "{unfit}");
}

fn a_reset_makes_handles_stale_and_nothing_else(place: &Place) {
    let uri = place.desk().generate(KeySpec::Ec(Curve::P256), "k", None).unwrap();
    let device = place.keys(place.site());
    let info = key(&*device, &uri).unwrap();
    let mut bench = Bench::new(&*device);
    bench.sign(&info, info.schemes[0], b"1").unwrap();
    device.begin_reset();
    assert_eq!(
        bench.sign(&info, info.schemes[0], b"2").unwrap_err(),
        Outcome::Failed(FaultKind::StaleHandle.into())
    );
    let info = key(&*device, &uri).unwrap();
    bench.sign(&info, info.schemes[0], b"3").unwrap();
    device.close_key(info.id);
    assert_eq!(
        bench.sign(&info, info.schemes[0], b"4").unwrap_err(),
        Outcome::Failed(FaultKind::StaleHandle.into())
    );
}
