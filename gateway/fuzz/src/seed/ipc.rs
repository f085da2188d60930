//! Conversations between the two processes, honest and less so.

use ipc::codec::{self, Message};
use ipc::{
    AuthInput, CertData, IkeSaRef, Offered, PeerProof, Refusal, Reply, Request, Role, RouteChange, TunOffload,
    TunSpec,
};
use policy::Identity;
use spi::{Hash, Prf};

const SECURE: u8 = 0;
const NETWORK: u8 = 1;

pub(super) fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let all = [make(), check(), Request::Forget { sa: IkeSaRef(7) }, Request::OpenTun(tun()), route(), address()];
    let requests = all.iter().enumerate().map(|(n, request)| whole(n as u64, request)).collect::<Vec<_>>();
    let proof = Reply::Proof { method: 14, data: vec![5; 64], certs: certs() };
    let refused = Reply::Refused(Refusal::AuthenticationFailed("another pre-shared key".into()));
    let replies =
        [whole(0, &Reply::Ok), whole(1, &proof), whole(2, &Reply::PeerAccepted { how: "PSK".into() }), whole(3, &refused)];
    let queue = Reply::Tun { queues: Vec::new(), name: "ipsec0".into(), offload: TunOffload::default() };
    let cut = |last: bool, part: &[u8]| [&[u8::from(last)][..], &4u64.to_le_bytes(), part].concat();
    let octets = codec::encode(&check()).expect("a question");
    let (one, two) = octets.split_at(octets.len() / 2);
    let adopt = Request::AdoptTun { spec: tun(), queue: None };
    vec![
        ("questions", script(SECURE, &requests)),
        ("in_parts", script(SECURE, &[cut(false, one), cut(true, two)])),
        ("parts_mixed", script(SECURE, &[cut(false, one), whole(5, &make())])),
        ("with_a_descriptor", with_descriptor(SECURE, &whole(1, &adopt))),
        ("a_descriptor_too_many", with_descriptor(SECURE, &whole(1, &make()))),
        ("answers", script(NETWORK, &replies)),
        ("answered_twice", script(NETWORK, &[whole(1, &Reply::Ok), whole(1, &Reply::Ok), whole(77, &Reply::Ok)])),
        ("a_device", with_descriptor(NETWORK, &whole(2, &queue))),
        ("a_device_without_one", script(NETWORK, &[whole(2, &queue)])),
    ]
}

fn whole(token: u64, message: &impl Message) -> Vec<u8> {
    [&[1][..], &token.to_le_bytes(), &codec::encode(message).expect("a message")].concat()
}

fn script(side: u8, datagrams: &[Vec<u8>]) -> Vec<u8> {
    let mut all = vec![side];
    for datagram in datagrams {
        all.extend((datagram.len() as u16).to_le_bytes());
        all.extend(datagram);
    }
    all
}

fn with_descriptor(side: u8, datagram: &[u8]) -> Vec<u8> {
    let length = datagram.len() as u16 | 0x8000;
    [&[side][..], &length.to_le_bytes(), datagram].concat()
}

fn id(name: &str) -> Identity {
    Identity::Fqdn(name.into())
}

fn input(role: Role) -> AuthInput {
    let (message, nonce) = (vec![1; 90], vec![2; 32]);
    AuthInput { role, message, nonce, maced_id: vec![3; 32], prf: Prf::HMAC_SHA2_256, int_auth: Vec::new() }
}

fn certs() -> Vec<CertData> {
    vec![CertData { encoding: 4, data: vec![0x30; 60] }]
}

fn make() -> Request {
    let offered = Offered { hashes: vec![Hash::Sha256, Hash::Identity], authorities: vec![[9; 20]] };
    Request::MakeAuth {
        sa: IkeSaRef(1),
        realm: "site".into(),
        own_id: id("moon.lab.test"),
        peer_id: Some(id("sun.lab.test")),
        input: input(Role::Initiator),
        offered,
    }
}

fn check() -> Request {
    let proof = PeerProof { method: 14, data: vec![4; 64], certs: certs() };
    Request::CheckAuth {
        sa: IkeSaRef(1),
        realm: "site".into(),
        own_id: id("moon.lab.test"),
        peer_id: Identity::KeyId(vec![1, 2, 3]),
        input: input(Role::Responder),
        proof,
    }
}

fn tun() -> TunSpec {
    TunSpec { name: "ipsec0".into(), mtu: 1400, queues: 2, offload: true, ethernet: false }
}

fn route() -> Request {
    Request::Route(RouteChange {
        realm: "site".into(),
        destination: ([10, 2, 0, 0].into(), 16),
        device: "ipsec0".into(),
        source: Some([10, 1, 0, 1].into()),
        add: true,
    })
}

fn address() -> Request {
    let (realm, device) = ("site".into(), "ipsec0".into());
    Request::Address { realm, device, address: [10, 3, 0, 1].into(), prefix: 32, add: true }
}
