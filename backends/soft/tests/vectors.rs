//! Vectors from beside the checkout: RFC packets and key exchanges, key derivations, and whole sessions that another
//! implementation has held with itself. Skipped, loudly, where they are not there.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Ops, device, engines, hex, open, vectors};
use serde_json::Value;
use spi::short::ShortError;
use spi::{Device, Direction, Encr, Group, Integ, Outcome, Prf, SaParams, Secret, SkSuite};

fn load(name: &str) -> Option<Value> {
    vectors(name).map(|octets| serde_json::from_slice(&octets).expect(name))
}

fn field(value: &Value, name: &str) -> Vec<u8> {
    hex(value[name].as_str().unwrap_or_else(|| panic!("{name} is missing")))
}

fn list(value: &Value) -> &[Value] {
    value.as_array().expect("a list")
}

#[test]
fn rfc_packets_open_and_rfc_exchanges_agree() {
    let Some(file) = load("rfc_vectors.json") else { return };
    let all = &file["vectors"];
    let ops = Ops::new();
    let mut tried = 0;
    for case in list(&all["dh"]) {
        let group = Group(case["group"].as_u64().unwrap() as u16);
        let shared = field(case, "shared");
        for (ours, theirs) in [("priv_i", "pub_r"), ("priv_r", "pub_i")] {
            let got = ops.derive(group, &field(case, ours), &field(case, theirs));
            assert_eq!(got.as_ref(), Ok(&shared), "{}", case["ref"]);
            tried += 1;
        }
    }
    let short = ops.device.short_ops().unwrap();
    for case in list(&all["prf"]) {
        let prf = match case["ref"].as_str().unwrap() {
            name if name.contains("XCBC") => Prf::AES128_XCBC,
            name if name.contains("CMAC") => Prf::AES128_CMAC,
            name => panic!("{name}"),
        };
        let got = short.prf(prf, &field(case, "key"), &[&field(case, "data")]).unwrap();
        assert_eq!(got.expose(), field(case, "prf"), "{}", case["ref"]);
        tried += 1;
    }
    for case in list(&all["esp_packets"]) {
        let spi = u32::from_str_radix(case["spi"].as_str().unwrap(), 16).unwrap();
        let seq = case["seq"].as_u64().unwrap();
        let packet = field(case, "esp_packet")[20..].to_vec();
        // RFC 3602 leaves the ICV out: one is put on here.
        let (encr, integ, key, packet) = match case["encr"].as_str().unwrap() {
            "AES-CBC-128" => {
                let icv = short.prf(Prf::HMAC_SHA1, &[1; 20], &[&packet]).unwrap();
                let packet = [&packet[..], &icv.expose()[..12]].concat();
                (Encr::AES128_CBC, Integ::HMAC_SHA1_96, field(case, "key"), packet)
            }
            "CHACHA20-POLY1305" => (Encr::CHACHA20_POLY1305, Integ::NONE, field(case, "keymat"), packet),
            other => panic!("{other}"),
        };
        let sa = SaParams {
            spi,
            dir: Direction::Open,
            encr,
            integ,
            encr_key: Secret::new(key),
            integ_key: Secret::new(vec![1; integ.info().unwrap().key_len]),
            esn: false,
        };
        for (engine, device) in engines() {
            let id = device.install_sa(&sa).unwrap();
            let (outcome, text) = open(&*device, id, seq, &packet);
            assert_eq!(outcome, Outcome::Done, "{} {engine}", case["ref"]);
            let inner = field(case, "original_packet");
            let inner = if case["mode"] == "tunnel" { &inner[..] } else { &inner[20..] };
            assert_eq!(text[..inner.len()], *inner, "{} {engine}", case["ref"]);
        }
        tried += 1;
    }
    assert!(tried >= 19, "only {tried}");
}

#[test]
fn key_derivations_of_another_implementation() {
    let Some(file) = load("kdf/nss_ike_prf.json") else { return };
    let short = device().short_ops().unwrap();
    let mut tried = 0;
    for case in list(&file["vectors"]) {
        let prf = match case["prf"].as_str().unwrap() {
            "sha1" => Prf::HMAC_SHA1,
            "sha256" => Prf::HMAC_SHA2_256,
            "sha384" => Prf::HMAC_SHA2_384,
            "sha512" => Prf::HMAC_SHA2_512,
            "aesxcbc" => Prf::AES128_XCBC,
            other => panic!("{other}"),
        };
        let mac = |key: &[u8], data: &[&[u8]]| short.prf(prf, key, data).unwrap().expose().to_vec();
        let get = |name| field(case, name);
        let okm = get("okm");
        let got = match case["type"].as_str().unwrap() {
            // RFC 7296 section 2.14: SKEYSEED.
            "ikeGxy" => mac(&[get("ni"), get("nr")].concat(), &[&get("ikm")]),
            // RFC 7296 section 2.13: prf+.
            "ikePlus" => {
                let seed = [get("gxykm"), get("ni"), get("nr"), get("seed_data")].concat();
                let (mut out, mut last) = (Vec::new(), Vec::new());
                for n in 1u8.. {
                    if out.len() >= okm.len() {
                        break;
                    }
                    last = mac(&get("ikm"), &[&last, &seed, &[n]]);
                    out.extend_from_slice(&last);
                }
                out.truncate(okm.len());
                out
            }
            _ => continue,
        };
        assert_eq!(got, okm, "{} {}", case["prf"], case["id"]);
        tried += 1;
    }
    assert!(tried >= 25, "only {tried}");
}

/// The sessions: file, then what protects IKE and what protects ESP.
type Suite = (Encr, Integ);

const SESSIONS: [(&str, Suite, Suite); 7] = [
    ("ecdsa-aes256gcm16-x25519", (Encr::AES256_GCM16, Integ::NONE), (Encr::AES256_GCM16, Integ::NONE)),
    ("psk-aes128ccm16-ctr", (Encr::AES128_CCM16, Integ::NONE), (Encr::AES128_CTR, Integ::HMAC_SHA2_256_128)),
    (
        "psk-aes128gcm16-prfsha256-ecp256",
        (Encr::AES128_GCM16, Integ::NONE),
        (Encr::AES128_GCM16, Integ::NONE),
    ),
    (
        "psk-aes256-sha512-ecp384",
        (Encr::AES256_CBC, Integ::HMAC_SHA2_512_256),
        (Encr::AES256_CBC, Integ::HMAC_SHA2_512_256),
    ),
    (
        "psk-aes256cbc-sha256-modp2048",
        (Encr::AES256_CBC, Integ::HMAC_SHA2_256_128),
        (Encr::AES256_CBC, Integ::HMAC_SHA2_256_128),
    ),
    ("psk-chacha20-x25519", (Encr::CHACHA20_POLY1305, Integ::NONE), (Encr::CHACHA20_POLY1305, Integ::NONE)),
    (
        "rsa-aes128-sha256-ecp256",
        (Encr::AES128_CBC, Integ::HMAC_SHA2_256_128),
        (Encr::AES128_CBC, Integ::HMAC_SHA2_256_128),
    ),
];

/// A key from the session's log of secrets; empty where the log has none.
fn logged(session: &Value, what: &str) -> Secret {
    let entry = list(&session["initiator_secrets_log"]).iter().find(|entry| entry["what"] == what);
    Secret::new(entry.map(|entry| field(entry, "hex")).unwrap_or_default())
}

#[test]
fn every_message_and_packet_of_the_recorded_sessions_opens() {
    let device = device();
    let short = device.short_ops().unwrap();
    for (name, ike, esp) in SESSIONS {
        let Some(session) = load(&format!("golden_sessions/{name}.json")) else { return };
        let mut opened = 0;
        for message in list(&session["ike_messages"]) {
            let mut octets = field(message, "msg");
            // The header's next payload: SK, or SKF, whose own header is four octets longer (RFC 7383 section 2.5).
            let at = match octets[16] {
                46 => 32,
                53 => 36,
                _ => continue,
            };
            let side = if message["from"] == "initiator" { "i" } else { "r" };
            let suite = SkSuite { encr: ike.0, integ: ike.1 };
            let encr_key = logged(&session, &format!("Sk_e{side} secret"));
            let integ_key = logged(&session, &format!("Sk_a{side} secret"));
            let range = short.sk_open(suite, &encr_key, &integ_key, &mut octets, at).unwrap();
            // The pad length octet says how much of the end is padding.
            let pad = usize::from(octets[range.end - 1]);
            assert!(pad < range.len(), "{name}");
            opened += 1;
            octets[0] ^= 1;
            let again = short.sk_open(suite, &encr_key, &integ_key, &mut octets, at);
            assert!(matches!(again, Err(ShortError::Rejected(_))), "{name}");
        }
        assert!(opened >= 4, "{name}: {opened} messages");

        let mut opened = 0;
        for packet in list(&session["esp_packets"]) {
            let side = if packet["from"] == "initiator" { "initiator" } else { "responder" };
            let sa = SaParams {
                spi: u32::from_str_radix(packet["spi"].as_str().unwrap(), 16).unwrap(),
                dir: Direction::Open,
                encr: esp.0,
                integ: esp.1,
                encr_key: logged(&session, &format!("encryption {side} key")),
                integ_key: logged(&session, &format!("integrity {side} key")),
                esn: false,
            };
            for (engine, device) in engines() {
                let id = device.install_sa(&sa).unwrap();
                let seq = packet["seq"].as_u64().unwrap();
                let (outcome, text) = open(&*device, id, seq, &field(packet, "esp"));
                assert_eq!(outcome, Outcome::Done, "{name} {engine}");
                assert_eq!((text[0], text.last()), (0x45, Some(&4)), "{name}: an IPv4 packet in tunnel mode");
            }
            opened += 1;
        }
        assert!(opened >= 6, "{name}: {opened} packets");
    }
}
