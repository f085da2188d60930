//! IKE messages, whole, and chains from inside SK with the type of their first payload in front.

use wire::TrafficSelector;
use wire::ike::*;
use wire::numbers::*;

const I: Spi = Spi(0x0102_0304_0506_0708);
const R: Spi = Spi(0x1112_1314_1516_1718);

pub(super) fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("init_request", message(Spi::ZERO, ExchangeType::IKE_SA_INIT, init_request())),
        ("init_response", message(R, ExchangeType::IKE_SA_INIT, init_response())),
        ("init_cookie", message(Spi::ZERO, ExchangeType::IKE_SA_INIT, vec![cookie()])),
        (
            "init_cookie_request",
            message(Spi::ZERO, ExchangeType::IKE_SA_INIT, [vec![cookie()], init_request()].concat()),
        ),
        (
            "init_invalid_ke",
            message(
                Spi::ZERO,
                ExchangeType::IKE_SA_INIT,
                vec![data(NotifyType::INVALID_KE_PAYLOAD, &[0, 19])],
            ),
        ),
        ("init_redirect", message(Spi::ZERO, ExchangeType::IKE_SA_INIT, vec![redirect()])),
        ("resume", message(Spi::ZERO, ExchangeType::IKE_SESSION_RESUME, resume())),
        ("critical", message(R, ExchangeType::INFORMATIONAL, vec![critical()])),
        ("empty_informational", message(R, ExchangeType::INFORMATIONAL, vec![])),
        ("sk", sk(vec![])),
        ("sk_behind_notify", sk(vec![cookie()])),
        ("skf_first", skf(1)),
        ("skf_last", skf(2)),
        ("auth_psk", chain(auth_psk())),
        ("auth_cert", chain(auth_cert())),
        ("auth_client", chain(auth_client())),
        ("auth_server", chain(auth_server())),
        ("auth_eap", chain(vec![Eap(vec![1, 7, 0, 9, 4, 3, 1, 2, 3]).into()])),
        (
            "auth_ppk",
            chain(vec![data(NotifyType::PPK_IDENTITY, b"\x02ppk"), data(NotifyType::NO_PPK_AUTH, &[1; 32])]),
        ),
        ("child", chain(child(TrafficSelector::ANY_V4))),
        (
            "child_rekey",
            chain([vec![Notify::rekey_sa(ProtocolId::ESP, 0x1000).into()], child(narrow())].concat()),
        ),
        ("ike_rekey", chain(ike_rekey())),
        (
            "followup_ke",
            chain(vec![ke(KeId::ML_KEM_768), data(NotifyType::ADDITIONAL_KEY_EXCHANGE, &[1; 8])]),
        ),
        ("delete_children", chain(vec![Delete::children(ProtocolId::ESP, &[0x1000, 0x2000]).into()])),
        ("delete_ike", chain(vec![Delete::ike().into()])),
        ("mobike", chain(mobike())),
        ("label", chain(vec![Body::TsI(labelled()).into(), Body::TsR(labelled()).into()])),
    ]
}

fn message(spi_r: Spi, exchange: ExchangeType, payloads: Vec<Payload>) -> Vec<u8> {
    Message::new(Header::new(I, spi_r, exchange, Flags::INITIATOR, 0), payloads).emit()
}

fn chain(payloads: Vec<Payload>) -> Vec<u8> {
    let (first, bytes) = emit_payload_chain(&payloads);
    [vec![first.0], bytes].concat()
}

fn sk(plain: Vec<Payload>) -> Vec<u8> {
    let header = Header::new(I, R, ExchangeType::IKE_AUTH, Flags::INITIATOR, 1);
    let prefix = sk_prefix(&header, &plain, PayloadType::IDI, 48).expect("short");
    [prefix, vec![0x5a; 48]].concat()
}

fn skf(number: u16) -> Vec<u8> {
    let header = Header::new(I, R, ExchangeType::IKE_AUTH, Flags::INITIATOR, 1);
    let prefix =
        skf_prefix(&header, &[], PayloadType::IDI, SkFragment { number, total: 2 }, 48).expect("short");
    [prefix, vec![0x5a; 48]].concat()
}

fn data(kind: NotifyType, data: &[u8]) -> Payload {
    Notify::with_data(kind, data.into()).into()
}

fn cookie() -> Payload {
    data(NotifyType::COOKIE, &[0xc0; 20])
}

fn ke(method: KeId) -> Payload {
    Ke::new(method, vec![0x4b; 32]).into()
}

fn nonce() -> Payload {
    Nonce(vec![0x4e; 32]).into()
}

fn redirect() -> Payload {
    let redirect = Redirect { gateway: GatewayId::Fqdn("gw.lab.test".into()), nonce: vec![0x4e; 32] };
    redirect.notify(NotifyType::REDIRECT).expect("ASCII").into()
}

fn critical() -> Payload {
    let body = Body::Unknown(Unknown { kind: PayloadType(200), bytes: vec![1, 2, 3, 4] });
    Payload { flags: Payload::CRITICAL, body }
}

fn ike_proposals(spi: &[u8]) -> Sa {
    let aead = vec![
        Transform::with_key_bits(TransformType::ENCR, EncrId::AES_GCM_16, 256),
        Transform::new(TransformType::ENCR, EncrId::CHACHA20_POLY1305),
        Transform::new(TransformType::PRF, PrfId::HMAC_SHA2_256),
        Transform::new(TransformType::KE, KeId::CURVE25519),
        Transform::new(TransformType::ADDKE1, KeId::ML_KEM_768),
    ];
    let mut odd = Transform::new(TransformType(241), 9u16);
    odd.attributes =
        vec![Attribute::Tlv(AttributeType(99), vec![1, 2, 3]), Attribute::Tv(AttributeType(77), 5)];
    let cbc = vec![
        Transform::with_key_bits(TransformType::ENCR, EncrId::AES_CBC, 128),
        Transform::new(TransformType::INTEG, IntegId::HMAC_SHA2_256_128),
        Transform::new(TransformType::PRF, PrfId::HMAC_SHA2_256),
        Transform::new(TransformType::KE, KeId::ECP_256),
        odd,
    ];
    Sa::new(vec![
        Proposal::new(1, ProtocolId::IKE, spi.into(), aead),
        Proposal::new(2, ProtocolId::IKE, spi.into(), cbc),
    ])
}

fn esp_proposal() -> Sa {
    let transforms = vec![
        Transform::with_key_bits(TransformType::ENCR, EncrId::AES_GCM_16, 128),
        Transform::new(TransformType::SN, EsnId::NO_ESN),
        Transform::new(TransformType::SN, EsnId::ESN),
    ];
    Sa::new(vec![Proposal::new(1, ProtocolId::ESP, vec![0, 0, 0x10, 0], transforms)])
}

fn init_request() -> Vec<Payload> {
    vec![
        ike_proposals(&[]).into(),
        ke(KeId::CURVE25519),
        nonce(),
        data(NotifyType::NAT_DETECTION_SOURCE_IP, &[1; 20]),
        data(NotifyType::NAT_DETECTION_DESTINATION_IP, &[2; 20]),
        data(NotifyType::IKEV2_FRAGMENTATION_SUPPORTED, &[]),
        Notify::hash_algorithms(&[HashId::SHA2_256, HashId::IDENTITY]).into(),
        data(NotifyType::INTERMEDIATE_EXCHANGE_SUPPORTED, &[]),
        Vendor(b"tussock".to_vec()).into(),
    ]
}

fn init_response() -> Vec<Payload> {
    let request = CertReq { encoding: CertEncoding::X509_SIGNATURE, authorities: vec![0xca; 40] };
    vec![ike_proposals(&[]).into(), ke(KeId::CURVE25519), nonce(), request.into()]
}

fn resume() -> Vec<Payload> {
    vec![nonce(), data(NotifyType::TICKET_OPAQUE, &[7; 24])]
}

fn id(kind: IdType, name: &[u8]) -> Id {
    Id::new(kind, name.into())
}

fn narrow() -> TrafficSelector {
    TrafficSelector::from_prefix([10, 1, 0, 0].into(), 16).with_protocol(6, 80, 90)
}

fn child(ts: TrafficSelector) -> Vec<Payload> {
    vec![
        esp_proposal().into(),
        nonce(),
        Body::TsI(TsPayload::new([narrow(), ts])).into(),
        Body::TsR(TsPayload::new([TrafficSelector::ANY_V6, ts])).into(),
        data(NotifyType::USE_TRANSPORT_MODE, &[]),
        data(NotifyType::ESP_TFC_PADDING_NOT_SUPPORTED, &[]),
    ]
}

fn auth_psk() -> Vec<Payload> {
    let mut payloads = vec![
        Body::IdI(id(IdType::FQDN, b"sun.lab.test")).into(),
        Body::IdR(id(IdType::IPV4_ADDR, &[192, 0, 2, 1])).into(),
        Auth::new(AuthMethod::SHARED_KEY_MIC, vec![0xa0; 32]).into(),
        data(NotifyType::INITIAL_CONTACT, &[]),
        data(NotifyType::MOBIKE_SUPPORTED, &[]),
    ];
    payloads.extend(child(TrafficSelector::ANY_V4));
    payloads
}

fn auth_cert() -> Vec<Payload> {
    let url = [[0x5a; 20].as_slice(), b"http://ca.lab.test/x"].concat();
    vec![
        Body::IdI(id(IdType::DER_ASN1_DN, &[0x30, 3, 0x31, 1, 0])).into(),
        Cert { encoding: CertEncoding::X509_SIGNATURE, data: vec![0x30, 2, 5, 0] }.into(),
        Cert { encoding: CertEncoding::HASH_AND_URL_X509, data: url }.into(),
        Auth::digital_signature(&[0x30, 5, 6, 3, 0x2b, 0x65, 0x70], &[0xa0; 64]).expect("short").into(),
    ]
}

fn auth_client() -> Vec<Payload> {
    let wanted = [
        CfgAttrType::INTERNAL_IP4_ADDRESS,
        CfgAttrType::INTERNAL_IP6_ADDRESS,
        CfgAttrType::INTERNAL_IP4_DNS,
        CfgAttrType::INTERNAL_DNS_DOMAIN,
    ];
    vec![
        Body::IdI(id(IdType::RFC822_ADDR, b"carol@lab.test")).into(),
        Cp::new(CfgType::REQUEST, wanted.map(CfgAttr::any).into()).into(),
        data(NotifyType::EAP_ONLY_AUTHENTICATION, &[]),
    ]
}

fn auth_server() -> Vec<Payload> {
    let given = vec![
        CfgAttr::from_ipv4(CfgAttrType::INTERNAL_IP4_ADDRESS, [10, 3, 0, 1].into()),
        CfgAttr::from_ipv6(CfgAttrType::INTERNAL_IP6_ADDRESS, 0xfec3.into(), Some(120)),
        CfgAttr::from_ipv4_subnet([10, 1, 0, 0].into(), 16),
        CfgAttr::new(CfgAttrType::INTERNAL_DNS_DOMAIN, b"lab.test".to_vec()),
    ];
    vec![
        Body::IdR(id(IdType::KEY_ID, &[0, 1, 2])).into(),
        Cp::new(CfgType::REPLY, given).into(),
        data(NotifyType::AUTH_LIFETIME, &3600u32.to_be_bytes()),
        data(NotifyType::QUICK_CRASH_DETECTION, &[0x9c; 32]),
        data(NotifyType::TICKET_LT_OPAQUE, &[0, 0, 14, 16, 7, 7, 7, 7]),
    ]
}

fn ike_rekey() -> Vec<Payload> {
    vec![ike_proposals(&I.to_bytes()).into(), nonce(), ke(KeId::CURVE25519)]
}

fn mobike() -> Vec<Payload> {
    vec![
        data(NotifyType::UPDATE_SA_ADDRESSES, &[]),
        data(NotifyType::NAT_DETECTION_SOURCE_IP, &[1; 20]),
        data(NotifyType::ADDITIONAL_IP4_ADDRESS, &[192, 0, 2, 7]),
        data(NotifyType::ADDITIONAL_IP6_ADDRESS, &[0x20; 16]),
        data(NotifyType::COOKIE2, &[0xc2; 16]),
    ]
}

fn labelled() -> TsPayload {
    let mut ts = TsPayload::new([narrow()]);
    ts.entries.push(TsEntry::Other { kind: TsType::SECLABEL, second: 0, data: b"s0:c1".to_vec() });
    ts
}
