//! What the tests share: certificates made when they run, users, and a line between a server and a peer.
#![allow(dead_code, clippy::unwrap_used, unreachable_pub)]

pub mod radius;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use eap::{
    Certificates, Conversation, Grant, Inner, MethodKind, Password, Peer, PeerConfig, Random, Server,
    ServerConfig, Step, TlsClient, TlsServer, TlsVersions, Users,
};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, SerialNumber, date_time_ymd,
};
use spi::Secret;

/// The server's name in its certificate.
pub const SERVER: &str = "aaa.lab.test";
/// Whom everybody knows.
pub const ALICE: &str = "alice@lab.test";
pub const PASSWORD: &str = "wonder\u{e4}land";

/// Every method with everything that can be inside, and what a grant calls it.
pub const ALL: [(MethodKind, Option<Inner>, &str); 12] = [
    (MethodKind::Md5, None, "EAP-MD5"),
    (MethodKind::Gtc, None, "EAP-GTC"),
    (MethodKind::MsChapV2, None, "EAP-MSCHAPv2"),
    (MethodKind::Tls, None, "EAP-TLS"),
    (MethodKind::Ttls, Some(Inner::Pap), "EAP-TTLS with PAP"),
    (MethodKind::Ttls, Some(Inner::MsChapV2), "EAP-TTLS with MSCHAPv2"),
    (MethodKind::Ttls, Some(Inner::Eap(MethodKind::MsChapV2)), "EAP-TTLS with EAP-MSCHAPv2"),
    (MethodKind::Ttls, Some(Inner::Eap(MethodKind::Md5)), "EAP-TTLS with EAP-MD5"),
    (MethodKind::Ttls, Some(Inner::Eap(MethodKind::Gtc)), "EAP-TTLS with EAP-GTC"),
    (MethodKind::Peap, Some(Inner::Eap(MethodKind::MsChapV2)), "PEAP with EAP-MSCHAPv2"),
    (MethodKind::Peap, Some(Inner::Eap(MethodKind::Gtc)), "PEAP with EAP-GTC"),
    (MethodKind::Peap, Some(Inner::Eap(MethodKind::Md5)), "PEAP with EAP-MD5"),
];

pub struct Ca {
    pub der: Vec<u8>,
    pub pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate with its key.
pub struct Cert {
    pub chain: Vec<Vec<u8>>,
    pub key: Vec<u8>,
    pub pem: String,
    pub key_pem: String,
}

impl Ca {
    pub fn new(name: &str) -> Ca {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        let cert = params.self_signed(&key).unwrap();
        Ca { der: cert.der().to_vec(), pem: cert.pem(), issuer: Issuer::new(params, key) }
    }

    /// A server's, or a client's with an e-mail address; `until` a year.
    pub fn issue(&self, name: &str, until: i32, serial: u64) -> Cert {
        let mut params = CertificateParams::new(vec![]).unwrap();
        let name = name.to_string();
        params.distinguished_name.push(DnType::CommonName, &name);
        params.subject_alt_names = vec![match name.contains('@') {
            true => SanType::Rfc822Name(name.try_into().unwrap()),
            false => SanType::DnsName(name.try_into().unwrap()),
        }];
        params.serial_number = Some(SerialNumber::from(serial));
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(until, 1, 1);
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        Cert {
            chain: vec![cert.der().to_vec()],
            key: key.serialize_der(),
            pem: cert.pem(),
            key_pem: key.serialize_pem(),
        }
    }
}

/// The moment tests live in, where no real program looks at the certificates.
pub fn noon() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_600_000)
}

pub fn certificates(own: Option<&Cert>, roots: &[&Ca], versions: TlsVersions) -> Certificates {
    Certificates {
        chain: own.map(|own| own.chain.clone()).unwrap_or_default(),
        key: own.map(|own| Secret::from_slice(&own.key)),
        roots: roots.iter().map(|ca| ca.der.clone()).collect(),
        versions,
        clock: Arc::new(noon),
    }
}

pub fn random() -> Random {
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    Arc::new(move |out: &mut [u8]| provider.secure_random.fill(out).unwrap())
}

pub struct Book(pub BTreeMap<String, String>);

impl Users for Book {
    fn password(&self, name: &str) -> Option<Secret> {
        self.0.get(name).map(|password| Secret::from_slice(password.as_bytes()))
    }
}

pub fn users() -> Arc<dyn Users> {
    Arc::new(Book([(ALICE.to_string(), PASSWORD.to_string())].into()))
}

/// A CA, a server of it, a client of it.
pub struct World {
    pub ca: Ca,
    pub server: Cert,
    pub client: Cert,
}

pub fn world() -> World {
    let ca = Ca::new("Lab");
    let (server, client) = (ca.issue(SERVER, 2049, 1), ca.issue(ALICE, 2049, 2));
    World { ca, server, client }
}

impl World {
    pub fn tls_server(&self, versions: TlsVersions) -> Arc<TlsServer> {
        let certificates = certificates(Some(&self.server), &[&self.ca], versions);
        Arc::new(TlsServer::new(certificates).unwrap())
    }

    pub fn tls_client(&self, versions: TlsVersions) -> Arc<TlsClient> {
        let certificates = certificates(Some(&self.client), &[&self.ca], versions);
        Arc::new(TlsClient::new(certificates, SERVER).unwrap())
    }

    pub fn server(&self, methods: &[MethodKind], inner: &[Inner]) -> ServerConfig {
        ServerConfig {
            name: "lab".into(),
            methods: methods.to_vec(),
            inner: inner.to_vec(),
            users: users(),
            tls: Some(self.tls_server(TlsVersions::Both)),
            ask_identity: true,
            allow_keyless: true,
        }
    }

    pub fn peer(&self, methods: &[MethodKind], inner: &[Inner]) -> PeerConfig {
        PeerConfig {
            identity: ALICE.into(),
            anonymous: None,
            password: Password::Known(Secret::from_slice(PASSWORD.as_bytes())),
            methods: methods.to_vec(),
            inner: inner.to_vec(),
            tls: Some(self.tls_client(TlsVersions::Both)),
            allow_keyless: true,
        }
    }
}

impl World {
    /// A peer of one method, which says no more than it has to outside a tunnel.
    pub fn client_of(&self, kind: MethodKind, inner: Option<Inner>) -> PeerConfig {
        let inner: Vec<Inner> = inner.into_iter().collect();
        let mut peer = self.peer(&[kind], &inner);
        if matches!(kind, MethodKind::Ttls | MethodKind::Peap) {
            peer.anonymous = Some("anonymous@lab.test".into());
        }
        peer
    }
}

/// What a side came to.
pub enum End {
    Open,
    Accepted(Box<Grant>),
    Refused(String),
}

impl End {
    #[track_caller]
    pub fn grant(self) -> Grant {
        match self {
            End::Accepted(grant) => *grant,
            End::Refused(why) => panic!("refused: {why}"),
            End::Open => panic!("it never ended"),
        }
    }

    #[track_caller]
    pub fn why(self) -> String {
        match self {
            End::Refused(why) => why,
            End::Accepted(grant) => panic!("let in: {} by {}", grant.identity, grant.method),
            End::Open => panic!("it never ended"),
        }
    }
}

/// A folder that goes when its test does.
pub struct Folder(pub std::path::PathBuf);

impl Folder {
    pub fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("tussock-eap-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    /// Writes a file; returns its path.
    pub fn write(&self, name: &str, content: &str) -> String {
        let path = self.0.join(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_string()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

/// Where a program is; none, said loudly, where its package is not installed.
pub fn program(name: &str, package: &str) -> Option<std::path::PathBuf> {
    let found =
        ["/usr/bin", "/usr/sbin"].iter().map(|dir| std::path::Path::new(dir).join(name)).find(|p| p.exists());
    if found.is_none() {
        eprintln!("SKIPPED: there is no {name}; Debian has it in {package}");
    }
    found
}

/// What happened on a line.
pub struct Line {
    pub server: End,
    pub peer: End,
    /// Lengths of all packets, the server's first.
    pub lengths: Vec<usize>,
}

pub fn run(server: ServerConfig, peer: PeerConfig) -> Line {
    let server = Server::new(Arc::new(server), None, random());
    let peer = Peer::new(Arc::new(peer), random());
    connect(server, peer, &mut || false)
}

/// Carries packets until both have ended. Where `again` says so, a packet comes twice, which must change nothing.
pub fn connect(mut server: Server, mut peer: Peer, again: &mut dyn FnMut() -> bool) -> Line {
    let mut line = Line { server: End::Open, peer: End::Open, lengths: vec![] };
    let mut step = server.receive(None);
    for _ in 0..400 {
        let (packet, end) = match step {
            Step::Wait => return line,
            Step::Send(packet) => (Some(packet), End::Open),
            Step::Accepted { packet, grant } => (packet, End::Accepted(grant)),
            Step::Refused { packet, why } => (packet, End::Refused(why)),
        };
        let over = !matches!(end, End::Open);
        line.server = end;
        let packet = packet.unwrap();
        assert!(packet.len() <= 1020, "{} octets", packet.len());
        line.lengths.push(packet.len());
        let response = match peer.receive(Some(&packet)) {
            Step::Send(response) => response,
            Step::Wait => return line,
            Step::Accepted { packet, grant } => {
                assert!(packet.is_none());
                line.peer = End::Accepted(grant);
                return line;
            }
            Step::Refused { packet, why } => {
                assert!(packet.is_none());
                line.peer = End::Refused(why);
                return line;
            }
        };
        assert!(!over, "an answer to the last word");
        assert!(response.len() <= 1020, "{} octets", response.len());
        line.lengths.push(response.len());
        if again() {
            match peer.receive(Some(&packet)) {
                Step::Send(second) => assert_eq!(second, response, "another answer to the same request"),
                _ => panic!("no answer to a request that came twice"),
            }
        }
        step = server.receive(Some(&response));
        if again() {
            match (&step, server.receive(Some(&response))) {
                (Step::Send(first), Step::Send(second)) => assert_eq!(*first, second),
                (Step::Accepted { .. } | Step::Refused { .. }, Step::Wait) => {}
                _ => panic!("a response that came twice changed something"),
            }
        }
    }
    panic!("there is no end to it");
}
