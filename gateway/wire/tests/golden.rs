//! Recorded sessions of another implementation: every message must come out as it went in. Read at run time from
//! `$TUSSOCK_VECTORS`, or from the vectors that lie beside the checkout; skipped, loudly, where there are none.
#![allow(clippy::unwrap_used)] // A vector that does not read is a failed test.

use serde_json::Value;
use std::path::PathBuf;
use wire::esp::EspHeader;
use wire::ike::{Message, PayloadList, sk_split};
use wire::natt::{Datagram, classify};
use wire::numbers::{ExchangeType, PayloadType};

fn sessions() -> Vec<(String, Value)> {
    let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/vectors");
    let root = std::env::var("TUSSOCK_VECTORS").unwrap_or_else(|_| beside.into());
    let dir = PathBuf::from(root).join("golden_sessions");
    let Ok(entries) = std::fs::read_dir(&dir) else {
        eprintln!("SKIPPED: no golden sessions in {}", dir.display());
        return Vec::new();
    };
    let files = entries.map(|e| e.unwrap().path()).filter(|p| p.extension().is_some_and(|x| x == "json"));
    let read = |p: PathBuf| {
        let text = std::fs::read_to_string(&p).unwrap();
        (p.display().to_string(), serde_json::from_str(&text).unwrap())
    };
    files.map(read).collect()
}

fn hex(value: &Value) -> Vec<u8> {
    let text = value.as_str().unwrap();
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
}

#[test]
fn recorded_ike_messages_are_read_and_written_alike() {
    let mut seen = 0;
    for (name, session) in sessions() {
        for entry in session["ike_messages"].as_array().unwrap() {
            let bytes = hex(&entry["msg"]);
            let message = Message::parse(&bytes).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert_eq!(message.emit(), bytes, "{name}: {message}");
            assert_eq!(message.header.is_initiator(), entry["from"] == "initiator", "{name}");
            let split = sk_split(&bytes).unwrap();
            if message.header.exchange == ExchangeType::IKE_SA_INIT {
                assert!(split.is_none());
                let list = &message.payloads;
                assert!(list.sa().is_some() && list.ke().is_some() && list.nonce().is_some(), "{message}");
                assert!(!list.iter().any(|p| p.kind().name().is_none()), "{message}");
            } else {
                let split = split.unwrap();
                assert_eq!((split.payload_offset, split.body.end), (28, bytes.len()));
                let is_fragment = message.header.next_payload == PayloadType::SKF;
                assert_eq!(split.fragment.is_some(), is_fragment);
            }
            seen += 1;
        }
    }
    eprintln!("{seen} recorded messages");
}

#[test]
fn recorded_esp_packets_show_their_spi_and_sequence() {
    for (name, session) in sessions() {
        for entry in session["esp_packets"].as_array().unwrap() {
            let bytes = hex(&entry["esp"]);
            let header = EspHeader::peek(&bytes).unwrap();
            assert_eq!(header.spi.to_string(), entry["spi"].as_str().unwrap(), "{name}");
            assert_eq!(u64::from(header.seq), entry["seq"].as_u64().unwrap(), "{name}");
            assert_eq!(classify(&bytes), Datagram::Esp(&bytes));
        }
    }
}
