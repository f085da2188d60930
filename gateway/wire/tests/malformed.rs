//! Input that must be refused: precisely, early, and without harm.

mod common;
use common::{chain, fix_length, header, raw};
use wire::TrafficSelector;
use wire::ike::{
    Auth, Cert, Delete, ErrorKind, Id, Ke, Message, Nonce, Notify, Payload, Proposal, Sa, Transform,
    TsPayload, limits, parse_payload_chain, peek_header, sk_split,
};
use wire::numbers::*;

/// One of everything.
fn rich() -> Message {
    let transforms = vec![
        Transform::with_key_bits(TransformType::ENCR, EncrId::AES_GCM_16, 128),
        Transform::new(TransformType::PRF, PrfId::HMAC_SHA2_256),
        Transform::new(TransformType::KE, KeId::CURVE25519),
    ];
    let sa = Sa::new(vec![
        Proposal::new(1, ProtocolId::IKE, vec![], transforms.clone()),
        Proposal::new(2, ProtocolId::ESP, vec![1, 2, 3, 4], transforms),
    ]);
    let id = Id::new(IdType::FQDN, b"moon.lab.test".to_vec());
    let ts = TsPayload::new([TrafficSelector::ANY_V4, TrafficSelector::ANY_V6]);
    let payloads: Vec<Payload> = vec![
        sa.into(),
        Ke::new(KeId::CURVE25519, vec![1; 32]).into(),
        Nonce(vec![2; 32]).into(),
        wire::ike::Body::IdI(id).into(),
        Cert { encoding: CertEncoding::X509_SIGNATURE, data: vec![3; 40] }.into(),
        Auth::new(AuthMethod::SHARED_KEY_MIC, vec![4; 32]).into(),
        Notify::rekey_sa(ProtocolId::ESP, 9).into(),
        Delete::children(ProtocolId::ESP, &[1, 2, 3]).into(),
        wire::ike::Body::TsI(ts).into(),
        wire::ike::Cp::new(
            CfgType::REQUEST,
            vec![wire::ike::CfgAttr::any(CfgAttrType::INTERNAL_IP4_ADDRESS)],
        )
        .into(),
        wire::ike::Eap(vec![1, 1, 0, 5, 1]).into(),
        wire::ike::Fragment { first_inner: PayloadType::IDI, number: 1, total: 2, body: vec![5; 40] }.into(),
    ];
    Message::new(header(ExchangeType::IKE_AUTH), payloads)
}

fn syntax(bytes: &[u8]) -> &'static str {
    match Message::parse(bytes) {
        Err(e) => match e.kind {
            ErrorKind::InvalidSyntax(what) => what,
            other => panic!("refused as {other:?}"),
        },
        Ok(_) => panic!("accepted"),
    }
}

#[test]
fn message_cut_anywhere_is_refused_whatever_its_header_says() {
    let whole = rich().emit();
    assert!(Message::parse(&whole).is_ok());
    for cut in 0..whole.len() {
        let mut bytes = whole[..cut].to_vec();
        assert!(Message::parse(&bytes).is_err(), "cut at {cut}");
        assert!(sk_split(&bytes).is_err(), "cut at {cut}");
        if cut >= 28 {
            fix_length(&mut bytes);
            assert!(Message::parse(&bytes).is_err(), "cut at {cut}, length corrected");
        }
    }
}

#[test]
fn any_octet_changed_is_refused_or_comes_back_unchanged() {
    let whole = rich().emit();
    for at in 0..whole.len() {
        for flip in [0x01, 0x02, 0x04, 0x08, 0x10, 0x20, 0x40, 0x80, 0xff] {
            let mut bytes = whole.clone();
            bytes[at] ^= flip;
            if let Ok(message) = Message::parse(&bytes) {
                assert_eq!(message.emit(), bytes, "octet {at} ^ {flip:#x}");
            }
        }
    }
}

#[test]
fn anything_short_of_a_header_has_no_answer() {
    for len in 0..28 {
        let error = peek_header(&vec![0xff; len]).unwrap_err();
        assert_eq!((error.kind, error.notify()), (ErrorKind::NotIke, None));
    }
}

#[test]
fn other_major_versions_stop_at_the_header() {
    let mut bytes = raw(40, &[0xff; 16]);
    bytes[28..].fill(0xff);
    for (version, answered) in [(0x10, false), (0x00, false), (0x30, true), (0xf5, true)] {
        bytes[17] = version;
        let error = Message::parse(&bytes).unwrap_err();
        assert_eq!(error.kind, ErrorKind::MajorVersion(version >> 4));
        assert_eq!(error.notify().is_some(), answered);
        assert_eq!(peek_header(&bytes).unwrap().major, version >> 4);
    }
}

#[test]
fn length_field_must_be_that_of_the_datagram() {
    let good = raw(40, &[5; 16]);
    for len in [0, 27, 28, good.len() as u32 - 1, good.len() as u32 + 1, u32::MAX] {
        let mut bytes = good.clone();
        bytes[24..28].copy_from_slice(&len.to_be_bytes());
        assert_eq!(syntax(&bytes), "length is not that of the datagram");
    }
}

#[test]
fn payload_lengths_below_4_or_past_the_end_are_refused() {
    for len in [0u16, 1, 2, 3] {
        let mut bytes = raw(43, b"vendor");
        bytes[30..32].copy_from_slice(&len.to_be_bytes());
        assert_eq!(syntax(&bytes), "payload length below 4");
    }
    for len in [11u16, 12, 0xffff] {
        let mut bytes = raw(43, b"vendor");
        bytes[30..32].copy_from_slice(&len.to_be_bytes());
        assert_eq!(syntax(&bytes), "payload length exceeds the message");
    }
    let mut bytes = raw(43, b"vendor");
    bytes[30..32].copy_from_slice(&9u16.to_be_bytes());
    assert_eq!(syntax(&bytes), "octets after the last payload");
    let mut bytes = raw(43, b"vendor");
    bytes[28] = 43;
    assert_eq!(syntax(&bytes), "no room for the payload header");
}

#[test]
fn selector_with_a_length_not_its_own_is_refused() {
    let v4 = |len: u16| {
        let mut content = vec![1, 0, 0, 0, 7, 0];
        content.extend(len.to_be_bytes());
        content.extend([0, 0, 255, 255, 10, 0, 0, 0, 10, 0, 0, 255]);
        // More octets, so that a longer length would find something to read.
        content.extend([0xee; 40]);
        raw(44, &content)
    };
    for len in [0, 3, 4, 8, 12, 15, 17, 40, 56, 0xffff] {
        assert_eq!(syntax(&v4(len)), "selector length does not fit its type", "length {len}");
    }
    assert_eq!(syntax(&v4(16)), "selector count does not fit the length");
    assert_eq!(
        syntax(&raw(45, &[1, 0, 0, 0, 8, 0, 0, 16, 0, 0, 255, 255, 1, 1, 1, 1, 1, 1, 1, 1])),
        "selector length does not fit its type"
    );
    assert_eq!(syntax(&raw(45, &[2, 0, 0, 0, 10, 0, 0, 4])), "truncated");
    assert_eq!(syntax(&raw(45, &[1, 0, 0, 0, 10, 0, 0, 3])), "selector length does not fit its type");
    assert_eq!(syntax(&raw(45, &[1, 0, 0, 0, 10, 0, 0, 5])), "truncated");
}

#[test]
fn proposals_and_transforms_with_lengths_or_counts_that_differ_are_refused() {
    let good = [0, 0, 0, 16, 1, 1, 0, 1, 0, 0, 0, 8, 4, 0, 0, 31];
    assert!(Message::parse(&raw(33, &good)).is_ok());
    for (at, value, why) in [
        (0, 2, "truncated"),
        (0, 1, "proposal is neither last nor followed"),
        (3, 0, "proposal length below 4"),
        (3, 15, "truncated"),
        (3, 17, "truncated"),
        (6, 1, "truncated"),
        (6, 200, "truncated"),
        (7, 0, "transform count does not fit the length"),
        (7, 2, "transform count and last-transform mark differ"),
        (8, 3, "transform count and last-transform mark differ"),
        (11, 3, "transform length below 4"),
        (11, 7, "truncated"),
        (11, 9, "truncated"),
    ] {
        let mut content = good;
        content[at] = value;
        assert_eq!(syntax(&raw(33, &content)), why, "octet {at} = {value}");
    }
    assert_eq!(syntax(&raw(33, &[])), "truncated");
    assert_eq!(syntax(&raw(33, &[good.as_slice(), &[0]].concat())), "octets after the last proposal");
    // A long attribute that runs past its transform.
    let long = [0, 0, 0, 20, 1, 1, 0, 1, 0, 0, 0, 12, 1, 0, 0, 12, 0, 14, 0, 1];
    assert_eq!(syntax(&raw(33, &long)), "truncated");
}

#[test]
fn notifications_and_deletions_with_wrong_spi_sizes_are_refused() {
    assert_eq!(syntax(&raw(41, &[3, 5, 0x40, 9, 1, 2, 3, 4])), "SPI size exceeds the payload");
    assert_eq!(syntax(&raw(41, &[3, 255, 0x40, 9])), "SPI size exceeds the payload");
    assert_eq!(syntax(&raw(41, &[3, 0, 0x40])), "truncated");
    assert_eq!(syntax(&raw(42, &[3, 8, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8])), "SPI size does not fit the protocol");
    assert_eq!(syntax(&raw(42, &[2, 0, 0, 0])), "SPI size does not fit the protocol");
    assert_eq!(syntax(&raw(42, &[1, 4, 0, 1, 1, 2, 3, 4])), "SPI size does not fit the protocol");
    assert_eq!(syntax(&raw(42, &[3, 4, 0, 2, 1, 2, 3, 4])), "SPI count does not fit the length");
    assert_eq!(syntax(&raw(42, &[3, 4, 0, 0, 1, 2, 3, 4])), "SPI count does not fit the length");
}

#[test]
fn nonces_outside_16_to_256_octets_are_refused() {
    for (len, fits) in [(0, false), (15, false), (16, true), (256, true), (257, false)] {
        assert_eq!(Message::parse(&raw(40, &vec![1; len])).is_ok(), fits, "{len}");
    }
}

#[test]
fn fragment_numbers_outside_the_total_are_refused() {
    for (number, total, fits) in
        [(1u16, 1u16, true), (0, 1, false), (2, 1, false), (0, 0, false), (65535, 65535, true)]
    {
        let content = [number.to_be_bytes(), total.to_be_bytes(), [0; 2], [0; 2]].concat();
        assert_eq!(Message::parse(&raw(53, &content)).is_ok(), fits, "{number}/{total}");
        assert_eq!(sk_split(&raw(53, &content)).is_ok(), fits, "{number}/{total}");
    }
    assert!(sk_split(&raw(53, &[0, 1, 0])).is_err());
}

#[test]
fn encrypted_payload_ends_the_chain() {
    let followed = chain(&[(46, 0, &[0; 40]), (41, 0, &[0, 0, 0x40, 0])]);
    assert_eq!(syntax(&followed), "octets after the last payload");
    assert!(sk_split(&followed).is_err());
    let (first, inside) = (PayloadType::SK, [0, 0, 0, 8, 1, 2, 3, 4]);
    assert!(parse_payload_chain(first, &inside).is_err(), "SK inside SK");
}

#[test]
fn sixty_four_kilobytes_of_tiny_elements_fail_early() {
    let error = |bytes: &[u8]| Message::parse(bytes).unwrap_err();
    let many = |what, limit| ErrorKind::TooMany { what, limit };

    let mut payloads = vec![(43, 0, &[][..]); limits::MAX_PAYLOADS];
    assert!(Message::parse(&chain(&payloads)).is_ok());
    payloads.resize(16_000, (43, 0, &[]));
    assert_eq!(error(&chain(&payloads)).kind, many("payloads", limits::MAX_PAYLOADS));
    let unknown = vec![(200, 0, &[][..]); 16_000];
    assert_eq!(sk_split(&chain(&unknown)).unwrap_err().kind, many("payloads", limits::MAX_PAYLOADS));

    let proposals = [2, 0, 0, 8, 1, 1, 0, 0].repeat(8_000);
    assert_eq!(error(&raw(33, &proposals)).kind, many("proposals", limits::MAX_PROPOSALS));

    let transform = [3, 0, 0, 8, 4, 0, 0, 31];
    let mut proposal =
        [2, 0, (8u16 + 8 * 255).to_be_bytes()[0], (8u16 + 8 * 255).to_be_bytes()[1], 1, 1, 0, 255].to_vec();
    proposal.extend(transform.repeat(255));
    let last = proposal.len() - 8;
    proposal[last] = 0;
    assert_eq!(error(&raw(33, &proposal.repeat(30))).kind, many("transforms", limits::MAX_TRANSFORMS));

    let mut attributes = vec![0, 0, 0, 0, 1, 1, 0, 1, 0, 0, 0, 0, 1, 0, 0, 12];
    attributes.extend([0x80, 14, 0, 128].repeat(10_000));
    let len = attributes.len() as u16;
    attributes[2..4].copy_from_slice(&len.to_be_bytes());
    attributes[10..12].copy_from_slice(&(len - 8).to_be_bytes());
    assert_eq!(error(&raw(33, &attributes)).kind, many("attributes", limits::MAX_ATTRIBUTES));

    let cp = [vec![1, 0, 0, 0], [0, 1, 0, 0].repeat(16_000)].concat();
    assert_eq!(error(&raw(47, &cp)).kind, many("configuration attributes", limits::MAX_CFG_ATTRIBUTES));

    let spis = [vec![3, 4, 0x3e, 0x80], vec![0; 64_000]].concat();
    assert_eq!(error(&raw(42, &spis)).kind, many("SPIs", limits::MAX_DELETE_SPIS));
}

#[test]
fn summary_and_errors_stay_one_short_line_for_the_longest_chain() {
    let payloads = vec![(41, 0, &[0, 0, 0x40, 0x24][..]); limits::MAX_PAYLOADS];
    let message = Message::parse(&chain(&payloads)).unwrap();
    let line = message.summary();
    assert!(line.len() < 2_000 && line.ends_with("… 104 more ]"), "{line}");
    assert_eq!(line, message.to_string());
    let error = Message::parse(&chain(&[(41, 0, &[0][..]); 3])).unwrap_err().to_string();
    assert_eq!(error, "truncated in payload N at offset 33");
}

#[test]
fn malformed_payload_is_named_with_its_place() {
    let error = Message::parse(&chain(&[(43, 0, b"vid"), (40, 0, b"short")])).unwrap_err();
    assert_eq!((error.payload, error.offset), (Some(PayloadType::NONCE), 28 + 7 + 4));
    assert_eq!(error.notify(), Some((NotifyType::INVALID_SYNTAX, None)));
}
