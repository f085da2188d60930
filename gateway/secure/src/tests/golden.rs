//! Proofs of recorded sessions between two instances of another implementation: what it sent is accepted, and a PSK proof
//! is recomputed octet for octet.

use std::path::{Path, PathBuf};

use ipc::{AuthInput, CertData, PeerProof, Role};
use policy::AuthPolicy;
use serde_json::Value;
use spi::{Integ, Prf, Secret, SkSuite};
use wire::ike::{Body, Message, Payload, parse_payload_chain, sk_split};
use wire::numbers::{PayloadType, TransformType};

use crate::config::{Config, Trust};
use crate::testing::*;

/// The sessions, from `$TUSSOCK_VECTORS` or from beside the checkout.
fn sessions() -> Option<PathBuf> {
    let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/vectors");
    let root = std::env::var_os("TUSSOCK_VECTORS").map_or_else(|| PathBuf::from(beside), PathBuf::from);
    let dir = root.join("golden_sessions");
    if !dir.is_dir() {
        eprintln!("SKIPPED: no recorded sessions in {}; set TUSSOCK_VECTORS", dir.display());
        return None;
    }
    Some(dir)
}

struct Session {
    init: [Vec<u8>; 2],
    /// IKE_AUTH request and response, decrypted.
    auth: [Vec<Payload>; 2],
    sk_p: [Vec<u8>; 2],
    prf: Prf,
    json: Value,
}

fn hex(value: &Value) -> Vec<u8> {
    let text = value.as_str().unwrap();
    (0..text.len() / 2).map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap()).collect()
}

fn read(path: &Path) -> Session {
    let json: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let messages: Vec<Vec<u8>> =
        json["ike_messages"].as_array().unwrap().iter().map(|m| hex(&m["msg"])).collect();
    let logged = |what: &str| {
        let log = json["initiator_secrets_log"].as_array().unwrap();
        log.iter().find(|e| e["what"] == what).map(|e| hex(&e["hex"])).unwrap_or_default()
    };
    let response = Message::parse(&messages[1]).unwrap();
    let Some(Body::Sa(sa)) = response.payloads.iter().map(|p| &p.body).find(|b| matches!(b, Body::Sa(_)))
    else {
        panic!("no SA");
    };
    let chosen = |kind| sa.proposals[0].transforms.iter().find(|t| t.kind == kind);
    let encr = chosen(TransformType::ENCR).unwrap();
    let key_bits = encr.attributes.first().map_or(0, |a| match a {
        wire::ike::Attribute::Tv(_, value) => *value,
        _ => 0,
    });
    let suite = SkSuite {
        encr: spi::Encr { id: encr.id, key_bits },
        integ: chosen(TransformType::INTEG).map_or(Integ::NONE, |t| Integ(t.id)),
    };
    let prf = Prf(chosen(TransformType::PRF).unwrap().id);
    let open = |from: &str, key: &str, integ: &str| {
        let (key, integ) = (Secret::new(logged(key)), Secret::new(logged(integ)));
        let mut first = PayloadType::NONE;
        let mut plain = Vec::new();
        for m in json["ike_messages"].as_array().unwrap() {
            let mut datagram = hex(&m["msg"]);
            // Message ID 1 is IKE_AUTH; fragments stand in their order.
            if m["from"] != from || datagram[18] != 35 || datagram[23] != 1 {
                continue;
            }
            let split = sk_split(&datagram).unwrap().unwrap();
            let short = devices()[0].short_ops().unwrap();
            let range = short.sk_open(suite, &key, &integ, &mut datagram, split.aad_len).unwrap();
            if plain.is_empty() {
                first = split.first_inner;
            }
            let text = &datagram[range];
            let padding = usize::from(*text.last().unwrap()) + 1;
            plain.extend_from_slice(&text[..text.len() - padding]);
        }
        parse_payload_chain(first, &plain).unwrap()
    };
    let auth = [
        open("initiator", "Sk_ei secret", "Sk_ai secret"),
        open("responder", "Sk_er secret", "Sk_ar secret"),
    ];
    let sk_p = [logged("Sk_pi secret"), logged("Sk_pr secret")];
    Session { init: [messages[0].clone(), messages[1].clone()], auth, sk_p, prf, json }
}

impl Session {
    /// The proof of one side (0: initiator), as the other gets it.
    fn proof(&self, side: usize) -> (AuthInput, PeerProof) {
        let nonce = |message: &[u8]| {
            let message = Message::parse(message).unwrap();
            message
                .payloads
                .iter()
                .find_map(|p| if let Body::Nonce(n) = &p.body { Some(n.0.clone()) } else { None })
                .unwrap()
        };
        let bodies = || self.auth[side].iter().map(|p| &p.body);
        let id = bodies()
            .find_map(|b| match b {
                Body::IdI(id) if side == 0 => Some(id),
                Body::IdR(id) if side == 1 => Some(id),
                _ => None,
            })
            .unwrap();
        let short = devices()[0].short_ops().unwrap();
        let maced_id = short.prf(self.prf, &self.sk_p[side], &[&id.body()]).unwrap().expose().to_vec();
        let certs = bodies().filter_map(|b| if let Body::Cert(c) = b { Some(c) } else { None });
        let certs = certs.map(|c| CertData { encoding: c.encoding.0, data: c.data.clone() }).collect();
        let auth = bodies().find_map(|b| if let Body::Auth(a) = b { Some(a) } else { None }).unwrap();
        let input = AuthInput {
            role: [Role::Responder, Role::Initiator][side],
            message: self.init[side].clone(),
            nonce: nonce(&self.init[1 - side]),
            maced_id,
            prf: self.prf,
            int_auth: vec![],
        };
        (input, PeerProof { method: auth.method.0, data: auth.data.clone(), certs })
    }
}

#[test]
fn recorded_psk_proofs_are_accepted_and_recomputed() {
    let Some(dir) = sessions() else { return };
    let mut seen = 0;
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if !name.starts_with("psk-") || !name.ends_with(".json") {
            continue;
        }
        let session = read(&path);
        let text = session.json["conf_initiator"].as_str().unwrap();
        let secret = text.split("secret = \"").nth(1).unwrap().split('"').next().unwrap().to_owned();
        let side = |local, remote| {
            let realm = realm("r", local, remote, AuthPolicy::Psk).into();
            let psks = vec![psk(&["moon.test", "sun.test"], &secret)];
            Side::new(Config { realms: vec![realm], psks, ..Config::default() })
        };
        // sun began, moon answered.
        let (input, proof_of_sun) = session.proof(0);
        let recorded = proof_of_sun.data.clone();
        accepted(side("moon.test", "sun.test").check(1, "r", "moon.test", "sun.test", input, proof_of_sun));
        let (mut input, _) = session.proof(0);
        input.role = Role::Initiator;
        let made = proof(side("sun.test", "moon.test").make(1, "r", "sun.test", input));
        assert_eq!((made.method, made.data), (2, recorded), "{name}");
        let (input, proof_of_moon) = session.proof(1);
        accepted(side("sun.test", "moon.test").check(1, "r", "sun.test", "moon.test", input, proof_of_moon));
        seen += 1;
    }
    assert_eq!(seen, 5, "all recorded sessions with a PSK were there");
}

#[test]
fn recorded_signatures_and_certificates_are_accepted() {
    let Some(dir) = sessions() else { return };
    for (name, kind) in [("ecdsa-aes256gcm16-x25519", "ecdsa"), ("rsa-aes128-sha256-ecp256", "rsa")] {
        let session = read(&dir.join(format!("{name}.json")));
        let ca = session.json["pki"][format!("ca-{kind}.pem")].as_str().unwrap();
        let trust =
            || Trust { anchors: crate::load::certificates("ca", ca.as_bytes()).unwrap(), ..Trust::default() };
        for (side, own, peer) in [(0, "moon.test", "sun.test"), (1, "sun.test", "moon.test")] {
            let (input, proof) = session.proof(side);
            assert_eq!(proof.method, 14, "{name}");
            let how =
                accepted(Side::new(pubkey(own, peer, None, trust())).check(1, "r", own, peer, input, proof));
            assert!(how.contains("certificate of C=CH"), "{how}");
            let (mut input, proof) = session.proof(side);
            input.maced_id[0] ^= 1;
            failed(Side::new(pubkey(own, peer, None, trust())).check(1, "r", own, peer, input, proof));
        }
    }
}
