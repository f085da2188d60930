//! Arbitrary messages survive emit and parse; arbitrary octets never do harm.

mod common;
use common::fix_length;
use proptest::collection::vec;
use proptest::prelude::*;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use wire::TrafficSelector;
use wire::esp::Trailer;
use wire::ike::*;
use wire::ip::{IpHeader, clamp_mss, too_big};
use wire::numbers::*;

fn bytes(max: usize) -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..max)
}

fn attribute() -> impl Strategy<Value = Attribute> {
    let kind = (0u16..0x8000).prop_map(AttributeType);
    prop_oneof![
        (kind.clone(), any::<u16>()).prop_map(|(k, v)| Attribute::Tv(k, v)),
        (kind, bytes(20)).prop_map(|(k, v)| Attribute::Tlv(k, v)),
    ]
}

fn transform() -> impl Strategy<Value = Transform> {
    (any::<u8>(), any::<u16>(), vec(attribute(), 0..3), any::<[u8; 2]>()).prop_map(
        |(kind, id, attributes, reserved)| Transform { kind: kind.into(), id, attributes, reserved },
    )
}

fn proposal() -> impl Strategy<Value = Proposal> {
    (any::<u8>(), any::<u8>(), bytes(12), vec(transform(), 0..6), any::<u8>()).prop_map(
        |(number, protocol, spi, transforms, reserved)| Proposal {
            number,
            protocol: protocol.into(),
            spi,
            transforms,
            reserved,
        },
    )
}

fn id() -> impl Strategy<Value = Id> {
    (any::<u8>(), any::<[u8; 3]>(), vec(any::<u8>(), 16)).prop_map(|(kind, reserved, mut data)| {
        match IdType(kind) {
            IdType::IPV4_ADDR => data.truncate(4),
            IdType::NULL => data.clear(),
            _ => {}
        }
        Id { kind: IdType(kind), reserved, data }
    })
}

/// Where ranges touch the ends of the number space, and OPAQUE with them.
fn edge_ports() -> impl Strategy<Value = (u16, u16)> {
    let edge = prop_oneof![Just(0u16), Just(1), Just(0xfffe), Just(0xffff)];
    (edge.clone(), edge)
}

fn selector() -> impl Strategy<Value = TrafficSelector> {
    let ends = prop_oneof![
        any::<[u32; 2]>().prop_map(|e| e.map(|a| IpAddr::V4(Ipv4Addr::from_bits(a)))),
        any::<[u128; 2]>().prop_map(|e| e.map(|a| IpAddr::V6(Ipv6Addr::from_bits(a)))),
        // A small world, in which selectors meet.
        any::<[u8; 2]>().prop_map(|e| e.map(|a| IpAddr::V4(Ipv4Addr::new(10, 0, 0, a)))),
    ];
    let ports = prop_oneof![
        Just((0, 0xffff)),
        Just((0xffff, 0)),
        any::<(u16, u16)>(),
        (0u16..9, 0u16..9),
        edge_ports()
    ];
    (prop_oneof![Just(0u8), Just(6), Just(17), any::<u8>()], ports, ends).prop_map(
        |(protocol, (start_port, end_port), [start, end])| TrafficSelector {
            protocol,
            start_port,
            end_port,
            start,
            end,
        },
    )
}

fn ts() -> impl Strategy<Value = TsPayload> {
    let other = (11u8..255, any::<u8>(), bytes(12)).prop_map(|(kind, second, data)| TsEntry::Other {
        kind: TsType(kind),
        second,
        data,
    });
    let entry = prop_oneof![3 => selector().prop_map(TsEntry::Ip), 1 => other];
    (any::<[u8; 3]>(), vec(entry, 0..4)).prop_map(|(reserved, entries)| TsPayload { reserved, entries })
}

fn notify() -> impl Strategy<Value = Notify> {
    (any::<u8>(), any::<u16>(), bytes(9), bytes(30)).prop_map(|(protocol, kind, spi, data)| Notify {
        protocol: protocol.into(),
        kind: kind.into(),
        spi,
        data,
    })
}

fn delete() -> impl Strategy<Value = Delete> {
    prop_oneof![
        Just(Delete::ike()),
        vec(any::<u32>(), 0..5).prop_map(|spis| Delete::children(ProtocolId::ESP, &spis)),
        vec(any::<u32>(), 0..5).prop_map(|spis| Delete::children(ProtocolId::AH, &spis)),
    ]
}

fn cp() -> impl Strategy<Value = Cp> {
    let attr = (0u16..0x8000, any::<bool>(), bytes(20)).prop_map(|(kind, reserved, value)| CfgAttr {
        kind: kind.into(),
        reserved,
        value,
    });
    (any::<u8>(), any::<[u8; 3]>(), vec(attr, 0..4)).prop_map(|(kind, reserved, attributes)| Cp {
        kind: kind.into(),
        reserved,
        attributes,
    })
}

fn body() -> impl Strategy<Value = Body> {
    prop_oneof![
        vec(proposal(), 1..4).prop_map(|p| Body::Sa(Sa::new(p))),
        (any::<u16>(), any::<[u8; 2]>(), bytes(40)).prop_map(|(m, reserved, data)| Body::Ke(Ke {
            method: m.into(),
            reserved,
            data
        })),
        id().prop_map(Body::IdI),
        id().prop_map(Body::IdR),
        (any::<u8>(), bytes(40)).prop_map(|(e, data)| Body::Cert(Cert { encoding: e.into(), data })),
        (any::<u8>(), bytes(60))
            .prop_map(|(e, a)| Body::CertReq(CertReq { encoding: e.into(), authorities: a })),
        (any::<u8>(), any::<[u8; 3]>(), bytes(40)).prop_map(|(m, reserved, data)| Body::Auth(Auth {
            method: m.into(),
            reserved,
            data
        })),
        vec(any::<u8>(), 16..=256).prop_map(|n| Body::Nonce(Nonce(n))),
        notify().prop_map(Body::Notify),
        delete().prop_map(Body::Delete),
        bytes(30).prop_map(|v| Body::Vendor(Vendor(v))),
        ts().prop_map(Body::TsI),
        ts().prop_map(Body::TsR),
        cp().prop_map(Body::Cp),
        bytes(30).prop_map(|e| Body::Eap(Eap(e))),
        (prop_oneof![1u8..33, 54u8..=255], bytes(30))
            .prop_map(|(k, bytes)| Body::Unknown(Unknown { kind: k.into(), bytes })),
    ]
}

fn payload() -> impl Strategy<Value = Payload> {
    (body(), any::<u8>()).prop_map(|(body, flags)| {
        // An unknown payload with the critical bit is refused: not part of what must survive.
        let mask = if matches!(body, Body::Unknown(_)) { 0x7f } else { 0xff };
        Payload { flags: flags & mask, body }
    })
}

fn encrypted() -> impl Strategy<Value = Option<Payload>> {
    let sk = (any::<u8>(), bytes(60))
        .prop_map(|(first, body)| Encrypted { first_inner: first.into(), body }.into());
    let skf = (any::<u8>(), 1u16..9, 0u16..9, bytes(60)).prop_map(|(first, number, more, body)| {
        Fragment { first_inner: first.into(), number, total: number + more, body }.into()
    });
    proptest::option::of(prop_oneof![sk, skf])
}

fn message() -> impl Strategy<Value = Message> {
    let header =
        (any::<(u64, u64, u8, u8, u32)>(), 0u8..16).prop_map(|((i, r, exchange, flags, id), minor)| Header {
            minor,
            ..Header::new(Spi(i), Spi(r), exchange.into(), Flags(flags), id)
        });
    (header, vec(payload(), 0..8), encrypted()).prop_map(|(header, mut payloads, last)| {
        payloads.extend(last);
        Message::new(header, payloads)
    })
}

/// Everything that takes octets from a peer.
fn touch(data: &[u8]) {
    let _ = peek_header(data);
    let parsed = Message::parse(data);
    let split = sk_split(data);
    if let Ok(message) = parsed {
        assert_eq!(message.emit(), data);
        assert!(message.summary().len() < 4_000);
        let closed = message.payloads.sk().is_some() || message.payloads.skf().is_some();
        assert_eq!(split.map(|s| s.is_some()), Ok(closed));
    }
    if let Some((first, rest)) = data.split_first()
        && let Ok(payloads) = parse_payload_chain(PayloadType(*first), rest)
    {
        let (kind, emitted) = emit_payload_chain(&payloads);
        assert_eq!((kind.0, emitted.as_slice()), (*first, rest));
    }
    let _ = wire::natt::classify(data);
    let _ = Trailer::parse(data);
    let _ = wire::eap::EapMessage::parse(data);
    let _ = Redirect::parse(data);
    let _ = IpHeader::parse(data);
    let _ = too_big(data, 1280, Ipv4Addr::LOCALHOST.into());
    let _ = too_big(data, 1280, Ipv6Addr::LOCALHOST.into());
    let _ = clamp_mss(&mut data.to_vec(), 1000);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn arbitrary_message_survives_emit_and_parse(message in message()) {
        let bytes = message.try_emit().unwrap();
        let found = Message::parse(&bytes).unwrap();
        prop_assert_eq!(&found.payloads, &message.payloads);
        let header = Header { next_payload: found.header.next_payload, length: bytes.len() as u32, ..message.header };
        prop_assert_eq!(found.header, header);
        prop_assert_eq!(found.emit(), bytes);
    }

    #[test]
    fn arbitrary_inner_chain_survives(payloads in vec(payload(), 0..8)) {
        let (first, bytes) = emit_payload_chain(&payloads);
        prop_assert_eq!(parse_payload_chain(first, &bytes).unwrap(), payloads);
    }

    #[test]
    fn octets_do_no_harm(data in bytes(200)) {
        touch(&data);
    }

    #[test]
    fn octets_with_a_right_header_do_no_harm(mut data in vec(any::<u8>(), 28..300)) {
        data[17] = 0x20;
        fix_length(&mut data);
        touch(&data);
    }

    #[test]
    fn damaged_messages_do_no_harm(message in message(), damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)) {
        let mut data = message.emit();
        for (at, value) in damage {
            let at = at.index(data.len());
            data[at] = value;
        }
        touch(&data);
    }

    #[test]
    fn damaged_packets_do_no_harm(v6: bool, mut data in vec(any::<u8>(), 40..120)) {
        let len = data.len() as u16;
        if v6 {
            data[0] = 0x60;
            data[4..6].copy_from_slice(&(len - 40).to_be_bytes());
            data[6] = [0, 6, 43, 44, 60][usize::from(data[6] % 5)];
        } else {
            data[0] = 0x45 + data[0] % 3;
            data[2..4].copy_from_slice(&len.to_be_bytes());
            data[6] &= 0x40;
            data[7] = 0;
            data[9] = 6;
        }
        touch(&data);
    }

    #[test]
    fn selector_text_reads_back(ts in selector()) {
        // An empty set can be written but not asked for.
        let expected = (!ts.is_empty()).then_some(ts);
        prop_assert_eq!(ts.to_string().parse::<TrafficSelector>().ok(), expected);
    }

    #[test]
    fn intersection_is_what_both_contain(a in selector(), b in selector(), last: u8, protocol in prop_oneof![Just(6u8), Just(17)], port in proptest::option::of(0u16..9)) {
        let packet = IpAddr::V4(Ipv4Addr::new(10, 0, 0, last));
        let both = a.intersect(&b);
        prop_assert_eq!(both, b.intersect(&a));
        let in_both = a.contains(packet, protocol, port) && b.contains(packet, protocol, port);
        prop_assert_eq!(both.is_some_and(|ts| ts.contains(packet, protocol, port)), in_both);
        if let Some(both) = both {
            prop_assert!(both.is_subset(&a) && both.is_subset(&b));
        }
    }

    #[test]
    fn prefixes_cover_the_range_exactly(ts in selector()) {
        let prefixes = ts.to_prefixes();
        prop_assert!(prefixes.len() <= 254);
        let parts: Vec<_> = prefixes.iter().map(|(a, len)| TrafficSelector::from_prefix(*a, *len)).collect();
        let empty = ts.with_protocol(0, 0, 0xffff).is_empty();
        prop_assert_eq!(parts.is_empty(), empty);
        if !empty {
            prop_assert_eq!(parts.first().map(|p| p.start), Some(ts.start));
            prop_assert_eq!(parts.last().map(|p| p.end), Some(ts.end));
            for pair in parts.windows(2) {
                prop_assert_eq!(next(pair[0].end), Some(pair[1].start));
            }
        }
    }
}

fn next(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(a) => a.to_bits().checked_add(1).map(|n| Ipv4Addr::from_bits(n).into()),
        IpAddr::V6(a) => a.to_bits().checked_add(1).map(|n| Ipv6Addr::from_bits(n).into()),
    }
}
