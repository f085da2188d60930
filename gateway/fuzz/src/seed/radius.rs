//! An answer with EAP and a vendor's key in it, and a request to send somebody away.

use radius::attribute::{Kind, Written};
use radius::packet::{Code, digested_request, reply};
use spi::Secret;

pub(super) fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let secret = Secret::from_slice(b"testing123");
    let mut accept = Written::new();
    accept.text(Kind::USER_NAME, "alice");
    accept.eap(&[3, 1, 0, 4]);
    let vendor = [[0, 0, 1, 55, 16, 36, 0x80, 1].as_slice(), &[5; 32]].concat();
    accept.push(Kind::VENDOR_SPECIFIC, &vendor).expect("short");
    accept.number(Kind::SESSION_TIMEOUT, 3600);
    let mut challenge = Written::new();
    challenge.eap(&[1; 300]);
    challenge.push(Kind::STATE, &[9; 16]).expect("short");
    let mut disconnect = Written::new();
    disconnect.text(Kind::ACCT_SESSION_ID, "a1");
    disconnect.number(Kind::EVENT_TIMESTAMP, 1_800_000_000);
    let written = |packet: Result<Vec<u8>, _>| packet.expect("short");
    vec![
        ("accept", written(reply(Code::ACCESS_ACCEPT, 1, [7; 16], &accept, &secret))),
        ("challenge", written(reply(Code::ACCESS_CHALLENGE, 1, [7; 16], &challenge, &secret))),
        ("disconnect", written(digested_request(Code::DISCONNECT_REQUEST, 1, &disconnect, &secret, true))),
    ]
}
