//! IKE messages as they come from anyone: parsed whole, split for decryption, and as a chain from inside SK.

use wire::ike::{Body, Payload};
use wire::ike::{
    HEADER_LEN, Message, PayloadList, Redirect, emit_payload_chain, parse_payload_chain, peek_header,
    sk_split,
};
use wire::numbers::PayloadType;

/// What parses comes out the same; what is split lies inside; nothing grows or panics.
pub fn wire_ike(data: &[u8]) {
    message(data);
    // Most mutations break length or version first: give the payloads behind them a chance as well.
    if data.len() >= HEADER_LEN {
        let mut fixed = data.to_vec();
        fixed[17] = 0x20 | fixed[17] & 0x0f;
        let len = fixed.len() as u32;
        fixed[24..28].copy_from_slice(&len.to_be_bytes());
        message(&fixed);
        chain(fixed[16], &fixed[HEADER_LEN..]);
    }
    if let Some((first, rest)) = data.split_first() {
        chain(*first, rest);
    }
}

fn message(data: &[u8]) {
    let header = peek_header(data);
    let split = sk_split(data);
    match Message::parse(data) {
        Ok(message) => {
            assert_eq!(header, Ok(message.header));
            assert_eq!(message.emit(), data, "emit differs from what was parsed");
            assert!(message.summary().len() < 4_000, "summary is not bounded");
            let split = split.expect("a message that parses can be split");
            let closed = message.payloads.sk().map(|sk| &sk.body);
            let closed = closed.or(message.payloads.skf().map(|skf| &skf.body));
            assert_eq!(split.as_ref().map(|s| &data[s.body.clone()]), closed.map(Vec::as_slice));
            look_into(&message.payloads);
        }
        Err(error) => {
            assert!(error.offset <= data.len());
            assert!(error.to_string().len() < 200, "error text is not bounded");
            let _ = error.notify();
        }
    }
    // The split looks at less than the parser and may accept more; its ranges must hold all the same.
    if let Ok(Some(split)) = sk_split(data) {
        assert!(split.payload_offset >= HEADER_LEN && split.aad_len > split.payload_offset);
        assert_eq!((split.body.start, split.body.end), (split.aad_len, data.len()));
        for (iv_len, icv_len) in [(8, 16), (16, 12), (0, 8)] {
            if let Some(parts) = split.parts(iv_len, icv_len) {
                assert_eq!((parts.iv.len(), parts.icv.len()), (iv_len, icv_len));
                assert!(!data[parts.ciphertext].is_empty());
            }
        }
    }
}

fn chain(first: u8, bytes: &[u8]) {
    if let Ok(payloads) = parse_payload_chain(PayloadType(first), bytes) {
        let (kind, emitted) = emit_payload_chain(&payloads);
        assert_eq!((kind.0, emitted.as_slice()), (first, bytes));
        look_into(&payloads);
    }
}

/// The accessors that interpret what the codec keeps as octets.
fn look_into(payloads: &[Payload]) {
    for body in payloads.bodies() {
        match body {
            Body::Sa(sa) => sa.proposals.iter().for_each(|p| assert!(p.to_string().len() < 4_000)),
            Body::Notify(n) => {
                let _ = (n.child_spi(), n.data_address(), n.data_u16(), n.data_u32(), n.data_u16s().count());
                if let Some(redirect) = Redirect::parse(&n.data) {
                    assert_eq!(redirect.notify(n.kind).map(|again| again.data), Some(n.data.clone()));
                }
            }
            Body::Delete(d) => assert!(d.child_spis().count() <= usize::from(d.count)),
            Body::TsI(ts) | Body::TsR(ts) => {
                let all: Vec<_> = ts.selectors().take(8).collect();
                for a in &all {
                    assert!(a.to_prefixes().len() <= 254);
                    assert_eq!(a.to_string().parse().ok(), (!a.is_empty()).then_some(**a));
                    for b in &all {
                        if let Some(both) = a.intersect(b) {
                            assert!(both.is_subset(a) && both.is_subset(b) && !both.is_empty());
                        }
                    }
                }
            }
            Body::Cert(cert) => {
                let _ = cert.hash_and_url();
            }
            Body::CertReq(req) => {
                let _ = req.key_hashes().count();
            }
            Body::Auth(auth) => {
                if let Some((algorithm, signature)) = auth.signature() {
                    assert_eq!(1 + algorithm.len() + signature.len(), auth.data.len());
                }
            }
            Body::Cp(cp) => cp.attributes.iter().for_each(|a| {
                let _ = (a.ipv4(), a.ipv6(), a.ipv4_subnet());
            }),
            Body::Eap(eap) => {
                let _ = eap.message();
            }
            _ => {}
        }
    }
}
