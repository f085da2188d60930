//! EAP, both sides, with somebody between them who changes, cuts, doubles and invents packets. Nothing panics, every
//! conversation has an end, nobody but Alice is let in, and who is let in has the peer's key.

use std::sync::{Arc, OnceLock};

use eap::{
    Certificates, Conversation, Grant, Inner, MethodKind, Password, Peer, PeerConfig, Random, Server,
    ServerConfig, Step, TlsClient, TlsServer, TlsVersions, Users,
};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use spi::Secret;

/// What the first octet chooses from.
pub(crate) const METHODS: [(&str, MethodKind, Option<Inner>); 12] = [
    ("md5", MethodKind::Md5, None),
    ("gtc", MethodKind::Gtc, None),
    ("mschapv2", MethodKind::MsChapV2, None),
    ("tls", MethodKind::Tls, None),
    ("ttls_pap", MethodKind::Ttls, Some(Inner::Pap)),
    ("ttls_mschapv2", MethodKind::Ttls, Some(Inner::MsChapV2)),
    ("ttls_eap_mschapv2", MethodKind::Ttls, Some(Inner::Eap(MethodKind::MsChapV2))),
    ("ttls_eap_md5", MethodKind::Ttls, Some(Inner::Eap(MethodKind::Md5))),
    ("ttls_eap_gtc", MethodKind::Ttls, Some(Inner::Eap(MethodKind::Gtc))),
    ("peap_mschapv2", MethodKind::Peap, Some(Inner::Eap(MethodKind::MsChapV2))),
    ("peap_gtc", MethodKind::Peap, Some(Inner::Eap(MethodKind::Gtc))),
    ("peap_md5", MethodKind::Peap, Some(Inner::Eap(MethodKind::Md5))),
];

const ALICE: &str = "alice@lab.test";
const SERVER: &str = "aaa.lab.test";

/// The target.
pub fn eap(data: &[u8]) {
    eap_ends(data);
}

/// Plays a script; returns whether the server let the peer in, and whether the peer believed it.
pub fn eap_ends(data: &[u8]) -> (bool, bool) {
    let mut script = Script(data);
    let (_, kind, inner) = METHODS[usize::from(script.next()) % METHODS.len()];
    let version = usize::from(script.next() & 1);
    let (mut server, mut peer) = sides(kind, inner, version);
    let (mut ours, mut theirs): (Option<Box<Grant>>, Option<Box<Grant>>) = (None, None);
    let mut to_peer = vec![start(&mut server)];
    // Every packet has one answer at most, and every conversation has an end.
    for _ in 0..2000 {
        let Some(packet) = to_peer.pop() else { break };
        for packet in script.disturb(packet) {
            let response = match peer.receive(Some(&packet)) {
                Step::Send(response) => response,
                Step::Accepted { grant, .. } => {
                    theirs = Some(grant);
                    continue;
                }
                Step::Wait | Step::Refused { .. } => continue,
            };
            assert!(response.len() <= 1020);
            for response in script.disturb(response) {
                match server.receive(Some(&response)) {
                    Step::Send(request) => to_peer.push(request),
                    Step::Accepted { packet, grant } => {
                        to_peer.extend(packet);
                        ours = Some(grant);
                    }
                    Step::Refused { packet, .. } => to_peer.extend(packet),
                    Step::Wait => {}
                }
            }
        }
        assert!(to_peer.iter().all(|packet| packet.len() <= 1020));
        // What is doubled again and again is looked at twice.
        to_peer.truncate(2);
    }
    assert!(to_peer.is_empty(), "there is no end to it");
    if let Some(ours) = &ours {
        assert_eq!(ours.identity, ALICE);
        assert_eq!(ours.msk.is_some(), kind.derives_key());
    }
    if let (Some(ours), Some(theirs)) = (&ours, &theirs) {
        let key = |grant: &Grant| grant.msk.as_ref().map(|key| key.expose().to_vec());
        assert!(key(ours) == key(theirs), "two keys");
    }
    (ours.is_some(), theirs.is_some())
}

fn start(server: &mut Server) -> Vec<u8> {
    match server.receive(None) {
        Step::Send(request) => request,
        _ => panic!("a server that does not begin"),
    }
}

/// What happens to packets; as it should be, when the octets are at their end.
struct Script<'a>(&'a [u8]);

impl Script<'_> {
    fn next(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn disturb(&mut self, mut packet: Vec<u8>) -> Vec<Vec<u8>> {
        let how = self.next();
        match how & 7 {
            1 => {
                let at = (usize::from(self.next()) << 2 | usize::from(how >> 6)) % packet.len();
                packet[at] ^= self.next();
            }
            2 => packet.truncate(usize::from(self.next()) % packet.len()),
            3 => return vec![packet.clone(), packet],
            4 => {
                // A packet of somebody else's before this one, as one that could be true.
                let len = usize::from(self.next());
                let body: Vec<u8> = (0..len).map(|_| self.next()).collect();
                let kind = if how & 8 == 0 { packet.get(4).copied().unwrap_or(1) } else { self.next() };
                let id = packet[1].wrapping_add(how >> 6);
                let mut other = vec![packet[0], id, 0, 0, kind];
                other.extend_from_slice(&body);
                other[2..4].copy_from_slice(&(5 + len as u16).to_be_bytes());
                return vec![other, packet];
            }
            5 => {
                // The same with octets more, which the length knows of.
                packet.extend((0..how >> 3).map(|_| self.next()));
                let length = (packet.len() as u16).to_be_bytes();
                packet[2..4].copy_from_slice(&length);
            }
            _ => {}
        }
        vec![packet]
    }
}

fn sides(kind: MethodKind, inner: Option<Inner>, version: usize) -> (Server, Peer) {
    let tls = tls(version);
    let server = ServerConfig {
        name: "lab".into(),
        methods: vec![kind],
        inner: inner.into_iter().collect(),
        users: Arc::new(Alice),
        tls: Some(Arc::clone(&tls.0)),
        ask_identity: true,
        allow_keyless: true,
    };
    let peer = PeerConfig {
        identity: ALICE.into(),
        anonymous: None,
        password: Password::Known(Secret::from_slice(b"wonderland")),
        methods: vec![kind],
        inner: inner.into_iter().collect(),
        tls: Some(Arc::clone(&tls.1)),
        allow_keyless: true,
    };
    // Two sources, so that challenges differ.
    let random = |with: u8| -> Random { Arc::new(move |out: &mut [u8]| out.fill(with)) };
    (Server::new(Arc::new(server), None, random(3)), Peer::new(Arc::new(peer), random(4)))
}

struct Alice;

impl Users for Alice {
    fn password(&self, name: &str) -> Option<Secret> {
        (name == ALICE).then(|| Secret::from_slice(b"wonderland"))
    }
}

/// Certificates, which are the same for every run of a process.
fn tls(version: usize) -> &'static (Arc<TlsServer>, Arc<TlsClient>) {
    static MADE: OnceLock<[(Arc<TlsServer>, Arc<TlsClient>); 2]> = OnceLock::new();
    &MADE.get_or_init(|| {
        let mut ca = CertificateParams::default();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let root = ca.self_signed(&key).expect("a root").der().to_vec();
        let issuer = Issuer::new(ca, key);
        let issue = |name: SanType| {
            let mut params = CertificateParams::default();
            params.subject_alt_names = vec![name];
            let key = KeyPair::generate().expect("a key");
            let cert = params.signed_by(&key, &issuer).expect("a certificate");
            (cert.der().to_vec(), key.serialize_der())
        };
        let server = issue(SanType::DnsName(SERVER.try_into().expect("a name")));
        let client = issue(SanType::Rfc822Name(ALICE.try_into().expect("a name")));
        [TlsVersions::Tls12, TlsVersions::Tls13].map(|versions| {
            let of = |(cert, key): &(Vec<u8>, Vec<u8>)| Certificates {
                chain: vec![cert.clone()],
                key: Some(Secret::from_slice(key)),
                roots: vec![root.clone()],
                versions,
                ..Certificates::default()
            };
            let server = TlsServer::new(of(&server)).expect("a server");
            let client = TlsClient::new(of(&client), SERVER).expect("a client");
            (Arc::new(server), Arc::new(client))
        })
    })[version]
}
