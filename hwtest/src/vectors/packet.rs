use std::path::{Path, PathBuf};

use serde_json::Value;
use spi::{Device, Direction, Driver, Encr, EspOp, Integ, Outcome, SaParams, Secret};

use super::hex;
use crate::note;
use crate::packet::Bench;
use crate::ring::devices;

/// A packet that somebody has published, and what is in it.
struct Case {
    name: String,
    sa: SaParams,
    seq: u64,
    packet: Vec<u8>,
    /// What the text begins with.
    begins: Vec<u8>,
}

/// The packet of RFC 7634 appendix A, on devices with that transform; and what it makes of the same text is that packet again.
pub fn published_packets_open(driver: &dyn Driver) {
    for device in devices(driver) {
        let caps = &device.desc().caps;
        if caps.esp.is_empty() {
            continue;
        }
        if !caps.carries(Encr::CHACHA20_POLY1305, Integ::NONE, false) {
            note::skip("no packet with its ICV is published but one of chacha20poly1305 (RFC 7634)");
            continue;
        }
        open(&*device, &rfc_7634());
    }
}

/// RFC 7634 appendix A. Its IV is not its sequence number, so it can be opened here, and not made.
fn rfc_7634() -> Case {
    let packet = "
        01020304 00000005 1011121314151617
        24039428b97f417e3c13753a4f05087b67c352e6a7fab1b982d466ef407ae5c614ee8099d52844eb61aa95dfab4c02f72aa71e7c4c4f64c9befe2facc638e8f3
        cbec163fac469b502773f6fb94e664da9165b82829f641e076aaa8266b7fb0f7b11b369907e1ad43";
    let keymat = "808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f a0a1a2a3";
    let inner = "
        45000054a6f200004001e778c6336405c000020508005b7a3a080000553bec10
        0007362708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20212223
        2425262728292a2b2c2d2e2f3031323334353637";
    Case {
        name: "RFC 7634 appendix A".into(),
        sa: SaParams {
            spi: 0x0102_0304,
            dir: Direction::Open,
            encr: Encr::CHACHA20_POLY1305,
            integ: Integ::NONE,
            encr_key: Secret::new(hex(keymat)),
            integ_key: Secret::new(Vec::new()),
            esn: false,
        },
        seq: 5,
        packet: hex(packet),
        begins: hex(inner),
    }
}

fn open(device: &dyn Device, case: &Case) {
    let sa = device.install_sa(&case.sa).expect("a declared transform is installed");
    let mut bench = Bench::new(device);
    let mut buf = bench.take();
    let at = 64 + 3;
    buf.bytes_mut()[at..at + case.packet.len()].copy_from_slice(&case.packet);
    buf.push_op(EspOp::new(at as u32, case.packet.len() as u16, case.seq)).expect("it fits");
    let buf = bench.run(sa, Direction::Open, buf);
    assert_eq!(buf.ops()[0].outcome, Outcome::Done, "{}", case.name);
    assert!(buf.op_bytes(0).starts_with(&case.begins), "{}: another text came out", case.name);
    device.remove_sa(sa);
}

/// Sessions of another implementation: file, then what protects ESP.
const SESSIONS: [(&str, Encr, Integ); 7] = [
    ("ecdsa-aes256gcm16-x25519", Encr::AES256_GCM16, Integ::NONE),
    ("psk-aes128ccm16-ctr", Encr::AES128_CTR, Integ::HMAC_SHA2_256_128),
    ("psk-aes128gcm16-prfsha256-ecp256", Encr::AES128_GCM16, Integ::NONE),
    ("psk-aes256-sha512-ecp384", Encr::AES256_CBC, Integ::HMAC_SHA2_512_256),
    ("psk-aes256cbc-sha256-modp2048", Encr::AES256_CBC, Integ::HMAC_SHA2_256_128),
    ("psk-chacha20-x25519", Encr::CHACHA20_POLY1305, Integ::NONE),
    ("rsa-aes128-sha256-ecp256", Encr::AES128_CBC, Integ::HMAC_SHA2_256_128),
];

/// ESP packets of recorded sessions, where the recordings are: in the folder `TUSSOCK_VECTORS`, or beside the checkout.
pub fn recorded_packets_open(driver: &dyn Driver) {
    let folder = std::env::var_os("TUSSOCK_VECTORS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/vectors"), PathBuf::from)
        .join("golden_sessions");
    for (name, encr, integ) in SESSIONS {
        let path = folder.join(format!("{name}.json"));
        let Ok(octets) = std::fs::read(&path) else {
            note::skip("recorded sessions are not at hand; TUSSOCK_VECTORS names their folder");
            return;
        };
        let session: Value = serde_json::from_slice(&octets).expect("a recorded session is JSON");
        for device in devices(driver) {
            if !device.desc().caps.carries(encr, integ, false) {
                continue;
            }
            for case in cases(name, &session, encr, integ) {
                open(&*device, &case);
            }
        }
    }
}

fn cases(name: &str, session: &Value, encr: Encr, integ: Integ) -> Vec<Case> {
    let field = |value: &Value, key: &str| hex(value[key].as_str().expect("a text"));
    let list = |key: &str| session[key].as_array().expect("a list");
    let logged = |what: String| {
        let entry = list("initiator_secrets_log").iter().find(|entry| entry["what"] == what);
        Secret::new(entry.map(|entry| field(entry, "hex")).unwrap_or_default())
    };
    let case = |packet: &Value| {
        let side = if packet["from"] == "initiator" { "initiator" } else { "responder" };
        let spi = packet["spi"].as_str().and_then(|text| u32::from_str_radix(text, 16).ok());
        Case {
            name: name.to_owned(),
            sa: SaParams {
                spi: spi.expect("an SPI"),
                dir: Direction::Open,
                encr,
                integ,
                encr_key: logged(format!("encryption {side} key")),
                integ_key: logged(format!("integrity {side} key")),
                esn: false,
            },
            seq: packet["seq"].as_u64().expect("a number"),
            packet: field(packet, "esp"),
            // An IPv4 packet in tunnel mode.
            begins: vec![0x45],
        }
    };
    let all: Vec<Case> = list("esp_packets").iter().map(case).collect();
    assert!(all.len() >= 6, "{name} has {} packets", all.len());
    all
}
