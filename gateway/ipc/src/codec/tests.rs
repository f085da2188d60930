use std::net::IpAddr;
use std::sync::Arc;

use proptest::prelude::*;
use spi::{Hash, Prf};

use super::*;
use crate::request::{IkeSaRef, Role, TunOffload};

fn octets(most: usize) -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), 0..=most)
}

fn realm() -> impl Strategy<Value = Arc<str>> {
    "[a-z0-9._-]{1,64}".prop_map(Arc::from)
}

fn identity_of_any_kind() -> impl Strategy<Value = Identity> {
    prop_oneof![
        "[a-z]{1,20}\\.[a-z]{2,5}".prop_map(Identity::Fqdn),
        "[a-z]{1,20}@[a-z]{1,9}\\.test".prop_map(Identity::Email),
        any::<[u8; 4]>().prop_map(|v4| Identity::V4(v4.into())),
        any::<[u8; 16]>().prop_map(|v6| Identity::V6(v6.into())),
        proptest::collection::vec(any::<u8>(), 1..=policy::MAX_ID_LEN).prop_map(Identity::KeyId),
        Just(Identity::parse("C=DE, O=Lab, CN=moon").unwrap()),
        any::<u64>().prop_map(Identity::Anonymous),
    ]
}

fn input() -> impl Strategy<Value = AuthInput> {
    let role = prop_oneof![Just(Role::Initiator), Just(Role::Responder)];
    (role, octets(3000), octets(MAX_NONCE), octets(MAX_PRF), octets(MAX_INT_AUTH), any::<u16>()).prop_map(
        |(role, message, nonce, maced_id, int_auth, prf)| AuthInput {
            role,
            message,
            nonce,
            maced_id,
            prf: Prf(prf),
            int_auth,
        },
    )
}

fn certs() -> impl Strategy<Value = Vec<CertData>> {
    let one = (any::<u8>(), octets(900)).prop_map(|(encoding, data)| CertData { encoding, data });
    proptest::collection::vec(one, 0..=8)
}

fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![any::<[u8; 4]>().prop_map(IpAddr::from), any::<[u8; 16]>().prop_map(IpAddr::from)]
}

fn request() -> impl Strategy<Value = Request> {
    let hash = prop_oneof![Just(Hash::Sha1), Just(Hash::Sha512), Just(Hash::Identity)];
    let offered = (
        proptest::collection::vec(hash, 0..=5),
        proptest::collection::vec(any::<[u8; 20]>(), 0..=40),
        any::<[bool; 2]>(),
    )
        .prop_map(|(hashes, authorities, [ocsp, urls])| Offered { hashes, authorities, ocsp, urls });
    let peer = proptest::option::of(identity_of_any_kind());
    let make = (any::<u64>(), realm(), identity_of_any_kind(), peer, input(), offered).prop_map(
        |(sa, realm, own_id, peer_id, input, offered)| Request::MakeAuth {
            sa: IkeSaRef(sa),
            realm,
            own_id,
            peer_id,
            input,
            offered,
        },
    );
    let proof = (any::<u8>(), octets(600), certs()).prop_map(|(method, data, certs)| PeerProof {
        method,
        data,
        certs,
    });
    let check = (
        any::<u64>(),
        prop::collection::vec(realm(), 0..4),
        proptest::option::of(identity_of_any_kind()),
        identity_of_any_kind(),
        input(),
        proof,
    )
        .prop_map(|(sa, realms, asked, peer_id, input, proof)| Request::CheckAuth {
            sa: IkeSaRef(sa),
            realms,
            asked,
            peer_id,
            input,
            proof,
        });
    let tun = ("[a-z0-9]{1,15}", any::<(u16, u16, bool, bool)>()).prop_map(
        |(name, (mtu, queues, offload, ethernet))| {
            Request::OpenTun(TunSpec { name, mtu, queues, offload, ethernet })
        },
    );
    let route = (realm(), address(), any::<u8>(), proptest::option::of(address()), any::<bool>()).prop_map(
        |(realm, address, len, source, add)| {
            Request::Route(RouteChange {
                realm,
                destination: (address, len),
                device: "ipsec0".into(),
                source,
                add,
            })
        },
    );
    let given = (realm(), address(), any::<u8>(), any::<bool>()).prop_map(|(realm, address, prefix, add)| {
        Request::Address { realm, device: "ipsec0".into(), address, prefix, add }
    });
    let domains = proptest::collection::vec("[a-z]{1,20}\\.[a-z]{2,5}", 0..=32);
    let servers = proptest::collection::vec(address(), 0..=8);
    let names = (realm(), servers, domains, any::<bool>()).prop_map(|(realm, servers, domains, add)| {
        Request::Dns(DnsChange { realm, device: "ipsec0".into(), servers, domains, add })
    });
    let neighbour = (realm(), address(), any::<bool>()).prop_map(|(realm, address, add)| {
        Request::Neighbour(NeighbourChange { realm, device: "eth1".into(), address, add })
    });
    let role = prop_oneof![Just(Role::Initiator), Just(Role::Responder)];
    let asked = proptest::option::of(identity_of_any_kind());
    let begin =
        (any::<u64>(), role, prop::collection::vec(realm(), 0..4), asked, identity_of_any_kind(), address())
            .prop_map(|(sa, role, realms, asked, peer_id, remote)| Request::EapBegin {
                sa: IkeSaRef(sa),
                role,
                realms,
                asked,
                peer_id,
                remote,
            });
    let packet =
        (any::<u64>(), octets(2000)).prop_map(|(sa, packet)| Request::EapPacket { sa: IkeSaRef(sa), packet });
    prop_oneof![
        make,
        check,
        names,
        neighbour,
        begin,
        packet,
        any::<u64>().prop_map(|sa| Request::Forget { sa: IkeSaRef(sa) }),
        tun,
        route,
        given
    ]
}

fn reply() -> impl Strategy<Value = Reply> {
    let proof = (any::<u8>(), octets(600), certs()).prop_map(|(method, data, certs)| Reply::Proof {
        method,
        data,
        certs,
    });
    let refused = ".{0,200}".prop_flat_map(|text| {
        prop_oneof![
            Just(Refusal::AuthenticationFailed(text.clone())),
            Just(Refusal::NoCredential(text.clone())),
            Just(Refusal::NotAllowed(text.clone())),
            Just(Refusal::OutOfTurn(text.clone())),
            Just(Refusal::System(text)),
        ]
    });
    prop_oneof![
        Just(()).prop_map(|()| Reply::Ok),
        proof,
        (realm(), ".{0,100}").prop_map(|(realm, how)| Reply::PeerAccepted { realm, how: how.into() }),
        refused.prop_map(Reply::Refused),
        eap_step().prop_map(Reply::Eap),
    ]
}

fn eap_step() -> impl Strategy<Value = EapStep> {
    let packet = || proptest::option::of(octets(2000));
    let lists = (prop::collection::vec(address(), 0..4), prop::collection::vec("[a-z]{0,60}", 0..4));
    let grant = ("[a-z]{1,60}", any::<bool>(), lists, proptest::option::of(any::<u32>())).prop_map(
        |(identity, keyed, (addresses, groups), seconds)| EapGrant {
            identity,
            method: "EAP-TLS".into(),
            keyed,
            dns: addresses.clone(),
            addresses,
            session_timeout: seconds.map(|s| std::time::Duration::from_secs(s.into())),
            interim: None,
            accounted: keyed,
            class: groups.iter().map(|group| group.clone().into_bytes()).collect(),
            groups,
        },
    );
    prop_oneof![
        octets(2000).prop_map(EapStep::Send),
        Just(EapStep::Ready),
        "[a-z]{1,60}".prop_map(EapStep::WantPassword),
        (packet(), realm(), grant).prop_map(|(packet, realm, grant)| EapStep::Accepted {
            packet,
            realm,
            grant: Box::new(grant)
        }),
        (packet(), ".{0,60}").prop_map(|(packet, why)| EapStep::Refused { packet, why }),
    ]
}

proptest! {
    #[test]
    fn what_was_asked_is_what_arrives(request in request()) {
        let once = encode(&request).unwrap();
        let again: Request = decode(&once, Vec::new()).unwrap();
        prop_assert_eq!(encode(&again).unwrap(), once);
    }

    #[test]
    fn what_was_answered_is_what_arrives(reply in reply()) {
        let once = encode(&reply).unwrap();
        let again: Reply = decode(&once, Vec::new()).unwrap();
        prop_assert_eq!(encode(&again).unwrap(), once);
    }

    #[test]
    fn octets_of_any_kind_are_a_message_or_refused(octets in octets(400)) {
        if let Ok(request) = decode::<Request>(&octets, Vec::new()) {
            prop_assert!(encode(&request).is_ok());
        }
        if let Ok(reply) = decode::<Reply>(&octets, vec![std::fs::File::open("/dev/null").unwrap().into()]) {
            prop_assert!(encode(&reply).is_ok());
        }
    }

    #[test]
    fn a_message_cut_short_or_made_longer_is_none(request in request(), cut in any::<prop::sample::Index>()) {
        let mut octets = encode(&request).unwrap();
        let short = &octets[..cut.index(octets.len())];
        prop_assert!(decode::<Request>(short, Vec::new()).is_err());
        octets.push(0);
        prop_assert!(decode::<Request>(&octets, Vec::new()).is_err());
    }
}

fn an_input(message: usize, nonce: usize) -> AuthInput {
    AuthInput {
        role: Role::Initiator,
        message: vec![0; message],
        nonce: vec![0; nonce],
        maced_id: vec![0; 32],
        prf: Prf(5),
        int_auth: Vec::new(),
    }
}

fn check(asked: Identity, input: AuthInput, certs: Vec<CertData>) -> Request {
    let peer_id = Identity::Fqdn("sun.lab.test".into());
    let proof = PeerProof { method: 14, data: vec![0; 64], certs };
    Request::CheckAuth {
        sa: IkeSaRef(1),
        realms: vec!["r".into()],
        asked: Some(asked),
        peer_id,
        input,
        proof,
    }
}

#[test]
fn each_bound_holds_on_both_ends() {
    let moon = || Identity::Fqdn("moon.lab.test".into());
    let cases = [
        (check(moon(), an_input(MAX_IKE + 1, 32), Vec::new()), Broken::TooMuch("message")),
        (check(moon(), an_input(100, MAX_NONCE + 1), Vec::new()), Broken::TooMuch("nonce")),
        (
            check(moon(), an_input(100, 32), vec![CertData { encoding: 4, data: Vec::new() }; MAX_CERTS + 1]),
            Broken::TooMuch("certs"),
        ),
        (
            check(moon(), an_input(MAX_IKE, 32), vec![CertData { encoding: 4, data: vec![0; 140_000] }]),
            Broken::TooLong,
        ),
        (
            check(Identity::KeyId(vec![1; policy::MAX_ID_LEN + 1]), an_input(1, 32), Vec::new()),
            Broken::TooMuch("identity"),
        ),
        (check(Identity::Fqdn("two names".into()), an_input(1, 32), Vec::new()), Broken::Malformed),
        (check(Identity::Dn(vec![0x30, 5]), an_input(1, 32), Vec::new()), Broken::Malformed),
    ];
    for (request, broken) in cases {
        assert_eq!(encode(&request).unwrap_err(), broken);
        // One that does not keep to the bounds itself.
        let octets = postcard::to_stdvec(&request).unwrap();
        assert_eq!(decode::<Request>(&octets, Vec::new()).err(), Some(broken));
    }
    let longest =
        check(moon(), an_input(MAX_IKE, MAX_NONCE), vec![CertData { encoding: 4, data: vec![0; MAX_IKE] }]);
    assert!(encode(&longest).is_ok(), "whatever fits into two IKE messages");
}

#[test]
fn lengths_that_promise_more_than_there_is_cost_no_memory() {
    // `CheckAuth` of one realm whose name would be 2^63 octets long.
    let mut octets = vec![1, 0, 1];
    octets.extend([0xff; 8]);
    octets.push(0x7f);
    assert_eq!(decode::<Request>(&octets, Vec::new()).err(), Some(Broken::Malformed));
}

#[test]
fn descriptors_come_with_the_message_that_is_about_them_and_with_no_other() {
    let null = || OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
    let offload = TunOffload::default();
    let mut tun = Reply::Tun { queues: vec![null(), null()], name: "ipsec0".into(), offload };
    let fds = tun.take_fds();
    assert_eq!(fds.len(), 2);
    let octets = encode(&tun).unwrap();
    let Ok(Reply::Tun { queues, .. }) = decode(&octets, fds) else { panic!() };
    assert_eq!(queues.len(), 2);
    assert_eq!(decode::<Reply>(&octets, Vec::new()).err(), Some(Broken::Descriptors));
    let ok = encode(&Reply::Ok).unwrap();
    assert_eq!(decode::<Reply>(&ok, vec![null()]).err(), Some(Broken::Descriptors));
    let forget = encode(&Request::Forget { sa: IkeSaRef(1) }).unwrap();
    assert_eq!(decode::<Request>(&forget, vec![null()]).err(), Some(Broken::Descriptors));
}
