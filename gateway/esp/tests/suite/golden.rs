//! ESP packets another implementation has made go through the whole way in.

use std::net::SocketAddr;
use std::path::PathBuf;

use esp::{Encap, Outer};
use serde_json::Value;
use spi::{Direction, Encr, Integ, SaParams, Secret};
use wire::ip::{IpHeader, Ports};

use crate::rig::*;

fn vectors() -> Option<PathBuf> {
    let beside = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/vectors");
    let dir = std::env::var_os("TUSSOCK_VECTORS").map_or_else(beside, PathBuf::from);
    let found = dir.join("golden_sessions").is_dir().then_some(dir);
    if found.is_none() {
        eprintln!("SKIPPED: no vectors; set TUSSOCK_VECTORS");
    }
    found
}

fn octets(hex: &str) -> Vec<u8> {
    let hex = hex.trim_start_matches("0x");
    (0..hex.len() / 2).map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap()).collect()
}

/// Algorithms by the words of Wireshark's table; the key's length tells the size.
fn transforms(encr: &str, integ: &str, key: usize) -> (Encr, Integ) {
    let encr = match (encr.split(' ').next(), key) {
        (Some("AES-GCM"), 20) => Encr::AES128_GCM16,
        (Some("AES-GCM"), 36) => Encr::AES256_GCM16,
        (Some("AES-CTR"), 20) => Encr::AES128_CTR,
        (Some("AES-CBC"), 16) => Encr::AES128_CBC,
        (Some("AES-CBC"), 32) => Encr::AES256_CBC,
        other => panic!("{other:?}"),
    };
    let integ = match integ.split(' ').next() {
        Some("HMAC-SHA-256-128") => Integ::HMAC_SHA2_256_128,
        Some("HMAC-SHA-512-256") => Integ::HMAC_SHA2_512_256,
        _ => Integ::NONE,
    };
    (encr, integ)
}

#[test]
fn packets_of_recorded_sessions_are_delivered() {
    let Some(dir) = vectors() else { return };
    let mut delivered = 0;
    for file in std::fs::read_dir(dir.join("golden_sessions")).unwrap() {
        let file = file.unwrap().path();
        if file.extension().is_none_or(|e| e != "json") {
            continue;
        }
        let session: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        for line in session["wireshark_esp_sa"].as_str().unwrap().lines() {
            let cells: Vec<&str> = line.split("\",\"").map(|c| c.trim_matches('"')).collect();
            let [_, src, _, spi, encr, key, integ, integ_key] = cells[..] else { continue };
            let (encr_key, integ_key) = (octets(key), octets(integ_key));
            let (encr, integ) = transforms(encr, integ, encr_key.len());
            let spi = u32::from_str_radix(&spi[2..], 16).unwrap();
            let deal = Deal {
                encr,
                integ,
                ts_left: vec![ts("10.1.0.1/32"), ts("10.2.0.1/32")],
                ts_right: vec![ts("10.1.0.1/32"), ts("10.2.0.1/32")],
                ..Deal::default()
            };
            let mut end = End::new(RIGHT_IFACE);
            let mut sa = end.inbound(&deal, spi);
            let (encr_key, integ_key) = (Secret::new(encr_key), Secret::new(integ_key));
            let params = SaParams { spi, dir: Direction::Open, encr, integ, encr_key, integ_key, esn: false };
            sa.sa = end.device.install_sa(&params).unwrap();
            end.esp.install_inbound(sa, end.now).unwrap();
            let from = SocketAddr::new(ip(src), 4500);
            let outer = Outer { from, to: from, encap: Encap::Udp, tos: 0 };
            for packet in session["esp_packets"].as_array().unwrap() {
                let bytes = octets(packet["esp"].as_str().unwrap());
                if bytes[..4] == spi.to_be_bytes() {
                    end.esp.handle_outer(end.now, &outer, &bytes, &mut end.out);
                }
            }
            end.turn();
            assert!(!end.written.is_empty(), "{}: {:?}", file.display(), end.esp.counters().drops);
            for packet in &end.written {
                let ports = IpHeader::parse(packet).unwrap().ports;
                assert!(matches!(ports, Ports::Icmp(0 | 8, 0)), "{ports:?}");
                delivered += 1;
            }
        }
    }
    assert!(delivered >= 24, "{delivered}");
}
