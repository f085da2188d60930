//! Every payload from the octets the RFC draws, and back to the same octets.

mod common;
use common::{chain, header, only, raw};
use wire::TrafficSelector;
use wire::ike::{
    Attribute, Auth, Body, CertReq, CfgAttr, Cp, Delete, ErrorKind, Id, Message, Notify, PayloadList,
    Proposal, SkFragment, Transform, TsEntry, emit_payload_chain, parse_payload_chain, peek_header,
    sk_prefix, sk_split, skf_prefix,
};
use wire::numbers::*;

#[test]
fn header_carries_every_field() {
    let mut bytes = raw(40, &[5; 16]);
    bytes[17] = 0x23;
    bytes[19] = 0xf1;
    let h = peek_header(&bytes).unwrap();
    assert_eq!((h.spi_i.0, h.spi_r.0), (0x1122_3344_5566_7788, 0x99aa_bbcc_ddee_ff00));
    assert_eq!((h.major, h.minor, h.flags.0, h.message_id, h.length), (2, 3, 0xf1, 7, 48));
    assert!(h.is_response() && !h.is_initiator());
    assert_eq!(Message::parse(&bytes).unwrap().emit(), bytes, "minor version and reserved flags are kept");
}

#[test]
fn response_header_turns_both_direction_flags() {
    let request = header(ExchangeType::IKE_AUTH);
    let response = request.response();
    assert!(response.is_response() && !response.is_initiator());
    assert_eq!((response.message_id, response.exchange), (7, ExchangeType::IKE_AUTH));
    assert_eq!(request.receiver_spi(), request.spi_r);
    assert_eq!(response.receiver_spi(), request.spi_i);
}

#[test]
fn sa_with_two_proposals_attributes_and_unknown_transforms() {
    #[rustfmt::skip]
    let content = [
        2, 0, 0, 36, 1, 1, 0, 3,            // proposal 1, IKE, three transforms
        3, 0, 0, 12, 1, 0, 0, 20, 0x80, 14, 1, 0,   // ENCR_AES_GCM_16, 256 bits
        3, 0, 0, 8, 4, 0, 0, 31,            // Curve25519
        0, 0, 0, 8, 77, 0, 0, 9,            // a transform type nobody knows
        0, 9, 0, 32, 2, 3, 4, 2, 0xde, 0xad, 0xbe, 0xef, // proposal 2, ESP, SPI, reserved octet set
        3, 5, 0, 8, 5, 6, 0, 1,             // ESN, reserved octets set
        0, 0, 0, 12, 1, 0, 0, 12, 0, 99, 0, 0, // AES-CBC with an empty long attribute
    ];
    let payload = only(&raw(33, &content));
    let Body::Sa(sa) = payload.body else { panic!("not an SA") };
    let [ike, esp] = sa.proposals.as_slice() else { panic!("not two proposals") };
    assert_eq!(ike.transforms[0].key_bits(), Some(256));
    assert_eq!(ike.transforms[2].kind, TransformType(77));
    assert_eq!(ike.of_kind(TransformType::KE).map(|t| t.id).collect::<Vec<_>>(), [31]);
    assert_eq!((esp.number, esp.protocol, esp.child_spi()), (2, ProtocolId::ESP, Some(0xdead_beef)));
    assert_eq!(esp.transforms[0].reserved, [5, 6]);
    assert!(esp.transforms[1].has_unknown_attribute() && !ike.transforms[0].has_unknown_attribute());
    assert_eq!(esp.transforms[1].attributes, [Attribute::Tlv(AttributeType(99), vec![])]);
    assert_eq!(ike.to_string(), "1 IKE ENCR_AES_GCM_16_256/Curve25519/77(9)");
}

#[test]
fn two_key_lengths_make_a_transform_unfit_to_choose() {
    let mut t = Transform::with_key_bits(TransformType::ENCR, EncrId::AES_CBC, 128);
    assert!(!t.has_unknown_attribute());
    t.attributes.push(Attribute::Tv(AttributeType::KEY_LENGTH, 256));
    assert!(t.has_unknown_attribute());
}

#[test]
fn rekey_proposal_carries_the_new_ike_spi() {
    let p = Proposal::new(1, ProtocolId::IKE, vec![0, 0, 0, 0, 0, 0, 0, 5], vec![]);
    assert_eq!(p.ike_spi().map(|s| s.0), Some(5));
    assert_eq!(p.child_spi(), None);
}

#[test]
fn ke_id_auth_keep_their_reserved_octets() {
    let Body::Ke(ke) = only(&raw(34, &[0, 31, 1, 2, 9, 9])).body else { panic!() };
    assert_eq!((ke.method, ke.reserved, ke.data), (KeId::CURVE25519, [1, 2], vec![9, 9]));
    let Body::IdI(id) = only(&raw(35, &[2, 7, 7, 7, b'a', b'b'])).body else { panic!() };
    assert_eq!((id.kind, id.body()), (IdType::FQDN, vec![2, 7, 7, 7, b'a', b'b']));
    let Body::IdR(id) = only(&raw(36, &[1, 0, 0, 0, 192, 0, 2, 1])).body else { panic!() };
    assert_eq!(id, Id::new(IdType::IPV4_ADDR, vec![192, 0, 2, 1]));
    let Body::Auth(auth) = only(&raw(39, &[2, 0, 0, 1, 5])).body else { panic!() };
    assert_eq!((auth.method, auth.reserved), (AuthMethod::SHARED_KEY_MIC, [0, 0, 1]));
}

#[test]
fn every_id_type_parses_at_the_length_it_needs() {
    for (kind, len, fits) in [
        (1, 4, true),
        (1, 0, false),
        (1, 5, false),
        (5, 16, true),
        (5, 4, false),
        (2, 0, false),
        (2, 1, true),
        (3, 0, false),
        (9, 0, false),
        (9, 2000, true),
        (11, 0, false),
        (11, 60000, true),
        (13, 0, true),
        (13, 1, false),
        (201, 3, true),
    ] {
        let mut content = vec![kind, 0, 0, 0];
        content.resize(4 + len, 0x30);
        assert_eq!(Message::parse(&raw(35, &content)).is_ok(), fits, "type {kind} of {len} octets");
    }
}

#[test]
fn certificates_requests_and_their_helpers() {
    let mut hash_url = vec![12];
    hash_url.extend([3; 20]);
    hash_url.extend(b"http://ca/x");
    let Body::Cert(cert) = only(&raw(37, &hash_url)).body else { panic!() };
    assert_eq!(cert.hash_and_url(), Some((&[3; 20], b"http://ca/x".as_slice())));
    let Body::CertReq(req) = only(&raw(38, &[[4].as_slice(), &[1; 20], &[2; 20], &[9]].concat())).body else {
        panic!()
    };
    assert_eq!(req.key_hashes().copied().collect::<Vec<_>>(), [[1; 20], [2; 20]]);
    assert_eq!(
        CertReq { encoding: CertEncoding::X509_SIGNATURE, authorities: vec![] }.key_hashes().count(),
        0
    );
}

#[test]
fn digital_signature_divides_into_algorithm_and_signature() {
    let auth = Auth::digital_signature(&[0x30, 5, 6, 3, 0x2b, 0x65, 0x70], &[7; 64]).unwrap();
    assert_eq!(auth.signature().map(|(a, s)| (a.len(), s.len())), Some((7, 64)));
    let mut short = auth.clone();
    short.data = vec![200, 1, 2];
    assert_eq!(short.signature(), None);
    short.data.clear();
    assert_eq!(short.signature(), None);
    assert!(Auth::digital_signature(&[0; 256], &[]).is_none());
}

#[test]
fn notifications_name_their_child_sa_only_when_they_do() {
    let Body::Notify(n) = only(&raw(41, &[3, 4, 0x40, 0x09, 1, 2, 3, 4])).body else { panic!() };
    assert_eq!(n, Notify::rekey_sa(ProtocolId::ESP, 0x0102_0304));
    assert_eq!(n.child_spi(), Some((ProtocolId::ESP, 0x0102_0304)));
    for (protocol, spi) in [(0, &[1, 2, 3, 4][..]), (1, &[1, 2, 3, 4]), (3, &[1, 2, 3]), (3, &[])] {
        let n =
            Notify { protocol: ProtocolId(protocol), spi: spi.into(), ..Notify::new(NotifyType::REKEY_SA) };
        assert_eq!(n.child_spi(), None);
    }
    let hashes = Notify::hash_algorithms(&[HashId::SHA2_256, HashId::IDENTITY]);
    assert_eq!(hashes.data_u16s().collect::<Vec<_>>(), [2, 5]);
    let address = Notify::with_data(NotifyType::ADDITIONAL_IP4_ADDRESS, vec![192, 0, 2, 9]);
    assert_eq!(address.data_address(), Some([192, 0, 2, 9].into()));
    assert_eq!(address.data_u32(), Some(0xc000_0209));
    assert_eq!(address.data_u16(), None);
}

#[test]
fn deletions_count_their_spis() {
    let Body::Delete(d) = only(&raw(42, &[3, 4, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2])).body else { panic!() };
    assert_eq!(d, Delete::children(ProtocolId::ESP, &[1, 2]));
    assert_eq!(d.child_spis().collect::<Vec<_>>(), [1, 2]);
    let Body::Delete(d) = only(&raw(42, &[1, 0, 0, 0])).body else { panic!() };
    assert!(d.is_ike() && d.child_spis().count() == 0);
    let Body::Delete(d) = only(&raw(42, &[1, 8, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8])).body else { panic!() };
    assert!(d.is_ike() && d.child_spis().count() == 0);
}

#[test]
fn selectors_of_both_families_and_labels() {
    #[rustfmt::skip]
    let content = [
        3, 0, 0, 0,
        7, 6, 0, 16, 0, 80, 0, 90, 10, 0, 0, 0, 10, 255, 255, 255,
        8, 0, 0, 40, 0, 0, 255, 255, 0xfe, 0xc0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        0xfe, 0xc0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff,
        10, 1, 0, 7, b'l', b'b', b'l',
    ];
    let Body::TsI(ts) = only(&raw(44, &content)).body else { panic!() };
    let texts: Vec<_> = ts.selectors().map(TrafficSelector::to_string).collect();
    assert_eq!(texts, ["10.0.0.0/8[tcp/80-90]", "fec0::/120"]);
    assert_eq!(ts.entries[2], TsEntry::Other { kind: TsType::SECLABEL, second: 1, data: b"lbl".to_vec() });
}

#[test]
fn configuration_attributes_read_their_values() {
    let cp = Cp::new(
        CfgType::REPLY,
        vec![
            CfgAttr::from_ipv4(CfgAttrType::INTERNAL_IP4_ADDRESS, [10, 3, 0, 1].into()),
            CfgAttr::from_ipv6(CfgAttrType::INTERNAL_IP6_ADDRESS, "fec3::1".parse().unwrap(), Some(120)),
            CfgAttr::from_ipv4_subnet([10, 1, 0, 0].into(), 16),
            CfgAttr::any(CfgAttrType::INTERNAL_IP4_DNS),
        ],
    );
    let bytes = Message::new(header(ExchangeType::IKE_AUTH), vec![cp.clone().into()]).emit();
    let Body::Cp(found) = only(&bytes).body else { panic!() };
    assert_eq!(found, cp);
    assert_eq!(found.attributes[0].ipv4(), Some([10, 3, 0, 1].into()));
    assert_eq!(found.attributes[1].ipv6(), Some(("fec3::1".parse().unwrap(), Some(120))));
    assert_eq!(found.attributes[2].ipv4_subnet(), Some(([10, 1, 0, 0].into(), [255, 255, 0, 0].into())));
    assert_eq!(found.all(CfgAttrType::INTERNAL_IP4_DNS).count(), 1);
    assert_eq!(found.attributes[3].ipv4(), None);
    let Body::Cp(odd) = only(&raw(47, &[1, 0, 0, 0, 0x80, 1, 0, 0])).body else { panic!() };
    assert!(odd.attributes[0].reserved && odd.attributes[0].kind == CfgAttrType::INTERNAL_IP4_ADDRESS);
}

#[test]
fn vendor_eap_and_unknown_payloads_are_kept_verbatim() {
    let bytes = chain(&[(43, 0, b"vid"), (48, 0x7f, &[3, 1, 0, 4]), (200, 0x01, b"??"), (1, 0, b"")]);
    let message = Message::parse(&bytes).unwrap();
    assert_eq!(message.emit(), bytes);
    assert_eq!(message.payloads.eap().unwrap().message().unwrap().code, EapCode::SUCCESS);
    assert_eq!(message.payloads[2].kind(), PayloadType(200));
    assert_eq!(message.summary(), "INFORMATIONAL request 7 [ V EAP ?200 ?1 ]");
}

#[test]
fn critical_bit_matters_on_unknown_payloads_only() {
    assert!(Message::parse(&chain(&[(43, 0x80, b"vid")])).is_ok());
    let error = Message::parse(&chain(&[(43, 0, b"vid"), (200, 0x80, b"??")])).unwrap_err();
    assert_eq!(error.kind, ErrorKind::UnsupportedCritical(PayloadType(200)));
    assert_eq!(error.offset, 28 + 7);
    assert_eq!(error.notify(), Some((NotifyType::UNSUPPORTED_CRITICAL_PAYLOAD, Some(200))));
    // Names from the registry that this codec has no payload for count as unknown.
    assert!(Message::parse(&chain(&[(54, 0x80, b"")])).is_err());
    assert!(sk_split(&chain(&[(54, 0x80, b""), (46, 0, &[0; 40])])).is_err());
    assert!(sk_split(&chain(&[(54, 0, b""), (46, 0, &[0; 40])])).unwrap().is_some());
}

#[test]
fn encrypted_message_is_built_and_split_at_the_same_offsets() {
    let inner = vec![Notify::new(NotifyType::INITIAL_CONTACT).into(), Delete::ike().into()];
    let (first, plaintext) = emit_payload_chain(&inner);
    assert_eq!((first, plaintext.len()), (PayloadType::NOTIFY, 16));
    let body = [vec![1; 8], plaintext, vec![2; 16]].concat();
    for plain in [vec![], vec![Notify::new(NotifyType::COOKIE).into()]] {
        let prefix = sk_prefix(&header(ExchangeType::INFORMATIONAL), &plain, first, body.len()).unwrap();
        let datagram = [prefix.clone(), body.clone()].concat();
        let split = sk_split(&datagram).unwrap().unwrap();
        assert_eq!(split.aad_len, prefix.len());
        assert_eq!(split.payload_offset + 4, split.aad_len);
        assert_eq!(split.body, split.aad_len..datagram.len());
        assert_eq!((split.first_inner, split.fragment), (first, None));
        let parts = split.parts(8, 16).unwrap();
        assert_eq!(datagram[parts.iv], [1; 8]);
        assert_eq!(datagram[parts.icv], [2; 16]);
        assert_eq!(parse_payload_chain(split.first_inner, &datagram[parts.ciphertext]).unwrap(), inner);
        assert_eq!(split.parts(20, 20), None, "nothing left to decrypt");
        assert_eq!(Message::parse(&datagram).unwrap().emit(), datagram);
    }
}

#[test]
fn fragment_names_what_is_inside_only_in_the_first() {
    for number in 1..=3 {
        let fragment = SkFragment { number, total: 3 };
        let prefix =
            skf_prefix(&header(ExchangeType::IKE_AUTH), &[], PayloadType::IDI, fragment, 40).unwrap();
        let datagram = [prefix.as_slice(), &[0; 40]].concat();
        let split = sk_split(&datagram).unwrap().unwrap();
        assert_eq!(split.first_inner, if number == 1 { PayloadType::IDI } else { PayloadType::NONE });
        assert_eq!((split.fragment, split.aad_len, split.body.len()), (Some(fragment), 36, 40));
        let message = Message::parse(&datagram).unwrap();
        assert_eq!(message.emit(), datagram);
        assert_eq!(message.summary(), format!("IKE_AUTH request 7 [ SKF({number}/3) ]"));
    }
}

#[test]
fn message_without_encrypted_payload_has_nothing_to_split() {
    assert_eq!(sk_split(&raw(40, &[5; 16])).unwrap(), None);
}

#[test]
fn empty_chain_is_a_message() {
    let bytes = chain(&[]);
    assert_eq!(Message::parse(&bytes).unwrap().payloads, []);
    assert_eq!(parse_payload_chain(PayloadType::NONE, &[]).unwrap(), []);
    assert_eq!(emit_payload_chain(&[]), (PayloadType::NONE, vec![]));
}

#[test]
fn payload_too_long_for_its_length_is_not_emitted() {
    let message =
        Message::new(header(ExchangeType::IKE_AUTH), vec![wire::ike::Vendor(vec![0; 65532]).into()]);
    assert!(message.try_emit().is_err());
    assert!(Message::parse(&message.emit()).is_err());
    assert!(sk_prefix(&message.header, &[], PayloadType::NONE, 65532).is_err());
    assert!(sk_prefix(&message.header, &[], PayloadType::NONE, 65531).is_ok());
}
