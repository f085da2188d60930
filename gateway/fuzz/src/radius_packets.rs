//! What RADIUS servers send, and what comes to the port for Disconnect and CoA.

use radius::attribute::{MICROSOFT, Written};
use radius::packet::{Code, Packet, access_request};
use spi::Secret;

/// A packet that is read says the same when it is written again; nothing that is not proven is believed.
pub fn radius(data: &[u8]) {
    let Ok(packet) = Packet::parse(data) else { return };
    let secret = Secret::from_slice(b"testing123");
    let _ = packet.prove_reply(&[7; 16], &secret, true);
    let _ = packet.prove_request(&secret, true);
    let _ = packet.attributes.vendor(MICROSOFT, 16).map(<[u8]>::len).sum::<usize>();
    let mut again = Written::new();
    for attribute in packet.attributes.iter() {
        again.push(attribute.kind, attribute.value).expect("it was an attribute");
    }
    assert_eq!(again.read().as_bytes(), packet.attributes.as_bytes());
    if let Some(eap) = packet.attributes.eap() {
        let mut pieces = Written::new();
        pieces.eap(&eap);
        assert_eq!(pieces.read().eap(), Some(eap).filter(|eap| !eap.is_empty()));
    }
    if let Ok(written) = access_request(Code::ACCESS_REQUEST, 1, [1; 16], &again, &secret) {
        assert!(Packet::parse(&written).is_ok());
    }
}
