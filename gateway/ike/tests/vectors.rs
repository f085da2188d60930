//! The key schedule, message protection and selection against data we did not make: the KDF vectors of NSS and ACVP, and
//! recorded sessions of another implementation with all their secrets. Read from `$TUSSOCK_VECTORS`, or from the vectors
//! that lie beside the checkout; skipped, loudly, where there are none.

#![allow(clippy::unwrap_used)] // A vector that does not read is a failed test.

use std::path::PathBuf;
use std::sync::Arc;

use ipc::Role;
use serde_json::Value;
use spi::{Device, Prf, Secret, ShortOps};
use tussock_ike::frag::{Progress, Reassembly};
use tussock_ike::keymat::{ChildKeys, IkeKeys, IkeSuite, prf_plus, skeyseed, skeyseed_rekey};
use tussock_ike::protect::{OpenError, Opened, Protection};
use tussock_ike::{natd, select};
use wire::ike::{Body, Message, Nonce, Payload, PayloadList, Spi};
use wire::numbers::{ExchangeType, NotifyType};

fn vectors() -> Option<PathBuf> {
    let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/vectors");
    let root = std::env::var_os("TUSSOCK_VECTORS").map_or_else(|| beside.into(), PathBuf::from);
    if root.is_dir() {
        return Some(root);
    }
    eprintln!("SKIPPED: no vectors in {}; set TUSSOCK_VECTORS", root.display());
    None
}

fn json(path: PathBuf) -> Value {
    let text = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_slice(&text).unwrap()
}

fn ops() -> Arc<dyn ShortOps> {
    soft::Soft::new(1).device().short_ops().unwrap()
}

fn hex(value: &Value) -> Vec<u8> {
    let text = value.as_str().unwrap();
    (0..text.len() / 2).map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap()).collect()
}

fn secret(value: &Value) -> Secret {
    Secret::new(hex(value))
}

#[test]
fn nist_samples_of_skeyseed_and_prf_plus_come_out() {
    let Some(root) = vectors() else { return };
    let (mut seeds, mut streams, mut rekeys) = (0, 0, 0);
    for v in json(root.join("kdf/nss_ike_prf.json"))["vectors"].as_array().unwrap() {
        if v["ikev2_relevant"] != true {
            continue;
        }
        let prf = match v["prf"].as_str().unwrap() {
            "sha1" => Prf::HMAC_SHA1,
            "sha256" => Prf::HMAC_SHA2_256,
            "sha384" => Prf::HMAC_SHA2_384,
            "sha512" => Prf::HMAC_SHA2_512,
            "aesxcbc" => Prf::AES128_XCBC,
            other => panic!("unknown PRF {other}"),
        };
        let (ni, nr, ikm, want) = (hex(&v["ni"]), hex(&v["nr"]), secret(&v["ikm"]), hex(&v["okm"]));
        let id = format!("{} {} {}", v["prf"], v["type"], v["id"]);
        match v["type"].as_str().unwrap() {
            "ikeGxy" => {
                assert!(skeyseed(&*ops(), prf, &ni, &nr, &ikm).unwrap().ct_eq(&want), "{id}");
                seeds += 1;
            }
            "ikePlus" => {
                let (gxy, rest) = (hex(&v["gxykm"]), hex(&v["seed_data"]));
                let seed: [&[u8]; 4] = [&gxy, &ni, &nr, &rest];
                let out = prf_plus(&*ops(), prf, &ikm, &seed, want.len()).unwrap();
                assert!(out.ct_eq(&want), "{id}");
                streams += 1;
            }
            "ikeV2Rekey" => {
                let out = skeyseed_rekey(&*ops(), prf, &ikm, &secret(&v["gxykm"]), &ni, &nr).unwrap();
                assert!(out.ct_eq(&want), "{id}");
                rekeys += 1;
            }
            other => panic!("unknown type {other}"),
        }
    }
    assert_eq!((seeds, streams, rekeys), (10, 15, 4), "all the samples were there");
}

#[test]
fn acvp_cases_come_out_from_first_seed_to_rekey() {
    let Some(root) = vectors() else { return };
    let cases = json(root.join("kdf/acvp_ikev2_kdf.json"));
    for v in cases["vectors"].as_array().unwrap() {
        let prf = match v["hashAlg"].as_str().unwrap() {
            "SHA-1" => Prf::HMAC_SHA1,
            "SHA2-256" => Prf::HMAC_SHA2_256,
            other => panic!("unknown hash {other}"),
        };
        let ops = ops();
        let (ni, nr) = (hex(&v["nInit"]), hex(&v["nResp"]));
        let seed = skeyseed(&*ops, prf, &ni, &nr, &secret(&v["gir"])).unwrap();
        assert!(seed.ct_eq(&hex(&v["sKeySeed"])));
        let dkm = hex(&v["derivedKeyingMaterial"]);
        let input: [&[u8]; 4] = [&ni, &nr, &hex(&v["spiInit"]), &hex(&v["spiResp"])];
        assert!(prf_plus(&*ops, prf, &seed, &input, dkm.len()).unwrap().ct_eq(&dkm));
        let sk_d = Secret::from_slice(&dkm[..prf.info().unwrap().key_len]);
        let rekeyed = skeyseed_rekey(&*ops, prf, &sk_d, &secret(&v["girNew"]), &ni, &nr).unwrap();
        assert!(rekeyed.ct_eq(&hex(&v["sKeySeedReKey"])));
        for (name, gir) in
            [("derivedKeyingMaterialChild", None), ("derivedKeyingMaterialDh", Some(&v["girNew"]))]
        {
            let want = if v[name].is_null() { hex(&v[format!("{name}_prefix")]) } else { hex(&v[name]) };
            let gir = gir.map(hex).unwrap_or_default();
            let seed: [&[u8]; 3] = [&gir, &ni, &nr];
            assert!(prf_plus(&*ops, prf, &sk_d, &seed, want.len()).unwrap().ct_eq(&want), "{name}");
        }
    }
}

/// One recorded session: datagrams with their direction, and what its initiator logged.
struct Session {
    name: String,
    datagrams: Vec<(Role, Vec<u8>)>,
    log: Vec<(String, Vec<u8>)>,
}

impl Session {
    fn all(root: &std::path::Path) -> Vec<Session> {
        let mut paths: Vec<PathBuf> =
            std::fs::read_dir(root.join("golden_sessions")).unwrap().map(|e| e.unwrap().path()).collect();
        paths.retain(|p| p.extension().is_some_and(|e| e == "json"));
        paths.sort();
        paths.into_iter().map(Session::read).collect()
    }

    fn read(path: PathBuf) -> Session {
        let v = json(path);
        let role = |m: &Value| if m["from"] == "initiator" { Role::Initiator } else { Role::Responder };
        let datagrams =
            v["ike_messages"].as_array().unwrap().iter().map(|m| (role(m), hex(&m["msg"]))).collect();
        let log = v["initiator_secrets_log"].as_array().unwrap().iter();
        let log = log.map(|e| (e["what"].as_str().unwrap().to_owned(), hex(&e["hex"]))).collect();
        Session { name: v["name"].as_str().unwrap().to_owned(), datagrams, log }
    }

    fn logged_all<'a>(&'a self, what: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.log.iter().filter(move |(w, _)| w.starts_with(what)).map(|(_, octets)| octets.as_slice())
    }

    /// What was logged first; empty when it never was, as the integrity keys of combined modes.
    fn logged(&self, what: &str) -> &[u8] {
        self.log
            .iter()
            .find(|(w, _)| w.starts_with(what))
            .map(|(_, octets)| octets.as_slice())
            .unwrap_or_default()
    }

    fn init(&self) -> (Message, Message) {
        let parse = |i: usize| Message::parse(&self.datagrams[i].1).unwrap();
        (parse(0), parse(1))
    }

    /// The algorithms of the IKE SA, from the offer and the answer.
    fn suite(&self) -> IkeSuite {
        let (request, response) = self.init();
        let offered = request.payloads.sa().unwrap();
        select::check_ike_answer(offered, response.payloads.sa().unwrap()).unwrap().0
    }

    fn nonces(&self) -> (Vec<u8>, Vec<u8>) {
        let (request, response) = self.init();
        let nonce = |m: &Message| m.payloads.nonce().map(|Nonce(n)| n.clone()).unwrap();
        (nonce(&request), nonce(&response))
    }

    fn keys(&self, ops: &dyn ShortOps) -> IkeKeys {
        let suite = self.suite();
        let (ni, nr) = self.nonces();
        let header = self.init().1.header;
        let g_ir = Secret::from_slice(self.logged("key exchange secret"));
        let seed = skeyseed(ops, suite.prf, &ni, &nr, &g_ir).unwrap();
        assert!(seed.ct_eq(self.logged("SKEYSEED")), "{}", self.name);
        IkeKeys::derive(ops, &suite, &seed, &ni, &nr, header.spi_i, header.spi_r).unwrap()
    }

    /// The encrypted messages, each with its fragments.
    fn encrypted(&self) -> Vec<(Role, Vec<Vec<u8>>)> {
        let mut messages: Vec<(Role, Vec<Vec<u8>>)> = Vec::new();
        for (from, datagram) in &self.datagrams[2..] {
            match messages.last_mut() {
                Some((role, pieces)) if role == from && pieces[0][18..24] == datagram[18..24] => {
                    pieces.push(datagram.clone());
                }
                _ => messages.push((*from, vec![datagram.clone()])),
            }
        }
        messages
    }

    fn ike_auth(&self, ops: &dyn ShortOps, from: Role, receiver: &Protection) -> Vec<Payload> {
        let messages = self.encrypted();
        let (_, pieces) = messages.iter().find(|(role, _)| *role == from).unwrap();
        open(ops, receiver, pieces).unwrap().payloads
    }

    fn protections(&self, ops: &dyn ShortOps) -> (Protection, Protection) {
        let (suite, keys) = (self.suite().sk_suite(), self.keys(ops));
        (Protection::new(suite, Role::Initiator, &keys), Protection::new(suite, Role::Responder, &keys))
    }
}

/// Opens a message that came in one datagram or in several.
fn open(ops: &dyn ShortOps, receiver: &Protection, pieces: &[Vec<u8>]) -> Result<Opened, OpenError> {
    let mut reassembly = Reassembly::new();
    for datagram in pieces {
        match receiver.open(ops, datagram) {
            Err(OpenError::IsFragment) => match reassembly.handle_fragment(ops, receiver, datagram)? {
                Progress::Complete(message) => return Ok(message),
                progress => assert_eq!(progress, Progress::Stored),
            },
            done => return done,
        }
    }
    panic!("fragments are missing")
}

#[test]
fn recorded_sessions_have_the_keys_we_derive() {
    let Some(root) = vectors() else { return };
    let sessions = Session::all(&root);
    assert_eq!(sessions.len(), 7);
    for s in sessions {
        let keys = s.keys(&*ops());
        let logged = ["Sk_d", "Sk_ai", "Sk_ar", "Sk_ei", "Sk_er", "Sk_pi", "Sk_pr"];
        let ours = [&keys.sk_d, &keys.sk_ai, &keys.sk_ar, &keys.sk_ei, &keys.sk_er, &keys.sk_pi, &keys.sk_pr];
        for (name, key) in logged.into_iter().zip(ours) {
            assert!(key.ct_eq(s.logged(&format!("{name} secret"))), "{}: {name}", s.name);
        }
    }
}

#[test]
fn recorded_messages_open_and_spoiled_ones_do_not() {
    let Some(root) = vectors() else { return };
    let mut in_fragments = 0;
    for s in Session::all(&root) {
        let ops = ops();
        let (initiator, responder) = s.protections(&*ops);
        let mut opened = 0;
        for (from, pieces) in s.encrypted() {
            let (ours, theirs) = match from {
                Role::Initiator => (&responder, &initiator),
                Role::Responder => (&initiator, &responder),
            };
            let message = open(&*ops, ours, &pieces).unwrap_or_else(|e| panic!("{}: {e}", s.name));
            opened += 1;
            in_fragments += usize::from(pieces.len() > 1);
            if message.header.exchange == ExchangeType::IKE_AUTH {
                assert!(message.payloads.auth().is_some() && message.payloads.ts_i().is_some(), "{}", s.name);
            }
            // Whoever has no key cannot change a bit of it, nor turn it round.
            for datagram in &pieces {
                for at in [0, 8, 19, 20, 23, 29, 32, datagram.len() / 2, datagram.len() - 1] {
                    let mut spoiled = datagram.clone();
                    spoiled[at] ^= 1;
                    let error = open(&*ops, ours, &[spoiled]).unwrap_err();
                    assert!(!error.is_authentic(), "{}: octet {at}: {error}", s.name);
                }
            }
            assert_eq!(open(&*ops, theirs, &pieces), Err(OpenError::BadIcv));
        }
        assert!(opened >= 2, "{}", s.name);
    }
    assert!(in_fragments > 0, "one of the recordings has a fragmented message");
}

#[test]
fn recorded_psk_proofs_come_out_of_our_octets() {
    let Some(root) = vectors() else { return };
    let mut proofs = 0;
    for s in Session::all(&root) {
        let ops = ops();
        let (suite, keys) = (s.suite(), s.keys(&*ops));
        let (ni, nr) = s.nonces();
        let (initiator, responder) = s.protections(&*ops);
        let octets: Vec<&[u8]> = s.logged_all("octets = ").collect();
        let identities: Vec<&[u8]> = s.logged_all("IDx'").collect();
        for (i, (role, nonce)) in [(Role::Initiator, &nr), (Role::Responder, &ni)].into_iter().enumerate() {
            let maced_id = keys.maced_id(&*ops, suite.prf, role, identities[i]).unwrap();
            let ours = [s.datagrams[i].1.as_slice(), nonce, &maced_id].concat();
            assert_eq!(ours, octets[i], "{}: {role:?}", s.name);
            if s.logged("secret").is_empty() || s.logged_all("AUTH = ").next().is_none() {
                continue;
            }
            let receiver = if role == Role::Initiator { &responder } else { &initiator };
            let sent = s.ike_auth(&*ops, role, receiver).auth().unwrap().data.clone();
            let padded = ops.prf(suite.prf, s.logged("secret"), &[b"Key Pad for IKEv2"]).unwrap();
            assert!(
                ops.prf(suite.prf, padded.expose(), &[&ours]).unwrap().ct_eq(&sent),
                "{}: {role:?}",
                s.name
            );
            proofs += 1;
        }
    }
    assert_eq!(proofs, 10, "five sessions with a PSK, two proofs each");
}

#[test]
fn recorded_child_keys_come_out() {
    let Some(root) = vectors() else { return };
    for s in Session::all(&root) {
        let ops = ops();
        let (suite, keys) = (s.suite(), s.keys(&*ops));
        let (ni, nr) = s.nonces();
        let (initiator, responder) = s.protections(&*ops);
        let request = s.ike_auth(&*ops, Role::Initiator, &responder);
        let response = s.ike_auth(&*ops, Role::Responder, &initiator);
        let (esp, spi) = select::check_esp_answer(request.sa().unwrap(), response.sa().unwrap()).unwrap();
        assert!(spi > 255);
        let child =
            ChildKeys::derive(&*ops, suite.prf, &keys.sk_d, None, &ni, &nr, esp.encr, esp.integ).unwrap();
        assert!(child.encr_i.ct_eq(s.logged("encryption initiator key")), "{}", s.name);
        assert!(child.encr_r.ct_eq(s.logged("encryption responder key")), "{}", s.name);
        assert!(child.integ_i.ct_eq(s.logged("integrity initiator key")), "{}", s.name);
        assert!(child.integ_r.ct_eq(s.logged("integrity responder key")), "{}", s.name);
    }
}

#[test]
fn recorded_nat_detection_hashes_name_some_address_of_the_lab() {
    let Some(root) = vectors() else { return };
    for s in Session::all(&root) {
        let (request, response) = s.init();
        let (initiator, responder) = ("10.99.0.2:500".parse().unwrap(), "10.99.0.1:500".parse().unwrap());
        let nat = |m: &Message, local, remote| {
            natd::compare(&*ops(), m.header.spi_i, m.header.spi_r, &m.payloads, local, remote)
                .unwrap()
                .unwrap()
        };
        // The recording forced encapsulation: the source was concealed, the destination is the real one.
        let seen = nat(&request, responder, initiator);
        assert!(!seen.we_behind && seen.peer_behind, "{}: {seen:?}", s.name);
        let seen = nat(&response, initiator, responder);
        assert!(!seen.we_behind && seen.peer_behind, "{}: {seen:?}", s.name);
        assert_eq!(request.header.spi_r, Spi::ZERO);
        assert!(
            request
                .payloads
                .bodies()
                .any(|b| matches!(b, Body::Notify(n) if n.kind == NotifyType::NAT_DETECTION_SOURCE_IP))
        );
    }
}
