//! What the tests of this crate share: messages of an IKE_SA_INIT exchange, realms, key sides without a thread, and
//! certificates made at test time.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ipc::{AuthInput, IkeSaRef, Offered, PeerProof, Refusal, Reply, Request, Role, Table};
use policy::{
    AuthPolicy, Childless, Dpd, DpdAction, Encap, IdMatch, Identity, IkeProposal, Lifetime, Realm,
    SIGNATURE_HASHES, Start, VirtualIpRequest,
};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use spi::{Device, KeySource, Prf, Secret, Token};
use wire::ike::{Body, Flags, Header, Ke, Message, Nonce, Payload, Proposal, Sa, Spi, Transform};
use wire::numbers::{ExchangeType, KeId, ProtocolId, TransformType};

use crate::authority::Authority;
use crate::config::{Certificate, Config, Credentials, OwnKey, Psk, RawKey, Trust};
use crate::devices::Devices;
use crate::revocation::Checks;
use crate::validator::Validator;
use crate::vault::{Problem, Vault};

fn message(spi_r: u64, flags: Flags, nonce: u8) -> Vec<u8> {
    let transforms = vec![Transform::new(TransformType::KE, 31u16)];
    let sa = Sa::new(vec![Proposal::new(1, ProtocolId::IKE, vec![], transforms)]);
    let bodies =
        [Body::Sa(sa), Body::Ke(Ke::new(KeId(31), vec![5; 32])), Body::Nonce(Nonce(vec![nonce; 32]))];
    let header = Header::new(Spi(0x1122), Spi(spi_r), ExchangeType::IKE_SA_INIT, flags, 0);
    Message::new(header, bodies.map(|body| Payload { flags: 0, body }).into()).emit()
}

/// A request with the nonce `01…`.
pub(crate) fn init_request() -> Vec<u8> {
    message(0, Flags::INITIATOR, 1)
}

/// The response to it, with the nonce `02…`.
pub(crate) fn init_response() -> Vec<u8> {
    message(0x3344, Flags::RESPONSE, 2)
}

/// What the initiator proves, seen by whoever has this role.
pub(crate) fn initiators(role: Role) -> AuthInput {
    let prf = Prf::HMAC_SHA2_256;
    AuthInput {
        role,
        message: init_request(),
        nonce: vec![2; 32],
        maced_id: vec![3; 32],
        prf,
        int_auth: vec![],
    }
}

/// What the responder proves, seen by whoever has this role.
pub(crate) fn responders(role: Role) -> AuthInput {
    let prf = Prf::HMAC_SHA2_256;
    AuthInput {
        role,
        message: init_response(),
        nonce: vec![1; 32],
        maced_id: vec![4; 32],
        prf,
        int_auth: vec![],
    }
}

pub(crate) fn id(text: &str) -> Identity {
    Identity::parse(text).unwrap()
}

pub(crate) fn realm(name: &str, local: &str, remote: &str, auth: AuthPolicy) -> Realm {
    Realm {
        name: name.into(),
        local: vec![],
        remote: vec![],
        ike: IkeProposal::defaults(),
        local_id: id(local),
        local_auth: auth,
        aliases: vec![],
        remote_id: policy::Peers::parse([remote]).unwrap(),
        remote_auth: auth,
        eap: policy::EapPolicy::default(),
        methods: vec![],
        children: vec![],
        start: Start::Manual,
        encap: Encap::Auto,
        fragmentation: true,
        fragment_size: 1280,
        childless: Childless::Allow,
        ike_rekey: Lifetime::of(Duration::from_secs(14400)),
        ike_reauth: Lifetime::of(Duration::ZERO),
        dpd: Dpd { delay: Duration::from_secs(30), action: DpdAction::Restart },
        virtual_ip: VirtualIpRequest::default(),
        pool: None,
        unique: true,
        worker: None,
    }
}

pub(crate) fn psk(ids: &[&str], secret: &str) -> Psk {
    let ids = ids.iter().map(|t| IdMatch::parse(t).unwrap()).collect();
    Psk { ids, realm: None, secret: Secret::from_slice(secret.as_bytes()) }
}

/// The software device, as the registry gives it.
pub(crate) fn devices() -> Vec<Arc<dyn Device>> {
    let drivers = registry::key_drivers(&registry::Config::default());
    registry::open_all(&drivers).0.into_iter().map(|o| o.device).collect()
}

/// The moment tests live in: November 2026, so that recorded certificates are valid.
pub(crate) fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_600_000)
}

/// A key side without a thread.
pub(crate) struct Side {
    pub(crate) authority: Authority,
    pub(crate) problems: Vec<Problem>,
    pub(crate) at: SystemTime,
    next: u64,
}

impl Side {
    pub(crate) fn new(config: Config) -> Side {
        Side::on(config, devices())
    }

    pub(crate) fn on(config: Config, devices: Vec<Arc<dyn Device>>) -> Side {
        let devices = Devices::new(devices, Vec::new()).unwrap();
        let validator = Validator::new(devices.verifier().unwrap(), config.rules.min_rsa_bits).unwrap();
        let checks = Checks::new(config.state_dir.as_deref(), Arc::clone(devices.short())).unwrap();
        let (vault, problems) = Vault::open(config, &devices, now());
        let bell = spi::Doorbell::new().unwrap();
        let authority =
            Authority::new(vault, devices, Box::new(validator), checks, Table::default(), bell, None);
        Side { authority, problems, at: now(), next: 1 }
    }

    /// Asks and waits.
    pub(crate) fn ask(&mut self, request: Request) -> Reply {
        let token = self.begin(request);
        let (answered, reply) = self.next_answer();
        assert_eq!(answered, token);
        reply
    }

    /// Asks, and does not wait.
    pub(crate) fn begin_check(
        &mut self,
        sa: u64,
        realm: &str,
        own: &str,
        peer: &str,
        input: AuthInput,
        proof: PeerProof,
    ) -> Token {
        self.begin(question(sa, realm, own, peer, input, proof))
    }

    fn begin(&mut self, request: Request) -> Token {
        let token = Token(self.next);
        self.next += 1;
        assert!(self.authority.handle(self.at, token, request).is_none());
        token
    }

    /// Waits for the next answer, whatever was asked.
    pub(crate) fn next_answer(&mut self) -> (Token, Reply) {
        let begin = std::time::Instant::now();
        loop {
            if let Some(answer) = self.authority.poll_reply() {
                return answer;
            }
            assert!(begin.elapsed() < Duration::from_secs(120), "no answer");
            if !self.authority.poll() {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }

    pub(crate) fn answer(&mut self) -> Reply {
        self.next_answer().1
    }

    pub(crate) fn make(&mut self, sa: u64, realm: &str, own: &str, input: AuthInput) -> Reply {
        self.make_offered(
            sa,
            realm,
            own,
            input,
            Offered { hashes: SIGNATURE_HASHES.to_vec(), ..Offered::default() },
        )
    }

    pub(crate) fn make_offered(
        &mut self,
        sa: u64,
        realm: &str,
        own: &str,
        input: AuthInput,
        offered: Offered,
    ) -> Reply {
        self.ask(Request::MakeAuth {
            sa: IkeSaRef(sa),
            realm: realm.into(),
            own_id: id(own),
            peer_id: None,
            input,
            offered,
        })
    }

    pub(crate) fn check(
        &mut self,
        sa: u64,
        realm: &str,
        own: &str,
        peer: &str,
        input: AuthInput,
        proof: PeerProof,
    ) -> Reply {
        self.ask(question(sa, realm, own, peer, input, proof))
    }
}

/// Whether this peer of the realm has proved itself to us of this name.
fn question(sa: u64, realm: &str, own: &str, peer: &str, input: AuthInput, proof: PeerProof) -> Request {
    let (realms, asked, peer_id) = (vec![realm.into()], Some(id(own)), id(peer));
    Request::CheckAuth { sa: IkeSaRef(sa), realms, asked, peer_id, input, proof }
}

pub(crate) fn proof(reply: Reply) -> PeerProof {
    match reply {
        Reply::Proof { method, data, certs } => PeerProof { method, data, certs },
        Reply::Refused(refusal) => panic!("{refusal}"),
        _ => panic!("no proof"),
    }
}

/// How the peer was accepted.
pub(crate) fn accepted(reply: Reply) -> Arc<str> {
    match reply {
        Reply::PeerAccepted { how, .. } => how,
        Reply::Refused(refusal) => panic!("{refusal}"),
        _ => panic!("no verdict"),
    }
}

pub(crate) fn refusal(reply: Reply) -> Refusal {
    match reply {
        Reply::Refused(refusal) => refusal,
        Reply::PeerAccepted { how, .. } => panic!("accepted: {how}"),
        _ => panic!("not refused"),
    }
}

/// Why the peer was not accepted: always AUTHENTICATION_FAILED on the wire.
pub(crate) fn failed(reply: Reply) -> String {
    match refusal(reply) {
        Refusal::AuthenticationFailed(why) => why,
        other => panic!("{other}"),
    }
}

/// A CA made at test time.
pub(crate) struct Ca {
    pub(crate) cert: rcgen::Certificate,
    params: CertificateParams,
    key: KeyPair,
}

pub(crate) fn named(cn: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CountryName, "CH");
    params.distinguished_name.push(DnType::OrganizationName, "Lab");
    params.distinguished_name.push(DnType::CommonName, cn);
    params.use_authority_key_identifier_extension = true;
    params
}

pub(crate) fn ca_params(cn: &str) -> CertificateParams {
    let mut params = named(cn);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

pub(crate) fn ee_params(name: &str) -> CertificateParams {
    let mut params = named(name);
    params.subject_alt_names = CertificateParams::new([name.to_owned()]).unwrap().subject_alt_names;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params
}

impl Ca {
    pub(crate) fn new(cn: &str) -> Ca {
        Ca::root(ca_params(cn), KeyPair::generate().unwrap())
    }

    pub(crate) fn root(params: CertificateParams, key: KeyPair) -> Ca {
        let cert = params.self_signed(&key).unwrap();
        Ca { cert, params, key }
    }

    pub(crate) fn sub(&self, params: CertificateParams) -> Ca {
        let key = KeyPair::generate().unwrap();
        let cert = self.sign(&params, &key);
        Ca { cert, params, key }
    }

    pub(crate) fn sign(
        &self,
        params: &CertificateParams,
        key: &impl rcgen::PublicKeyData,
    ) -> rcgen::Certificate {
        params.signed_by(key, &Issuer::from_params(&self.params, &self.key)).unwrap()
    }

    /// The same CA as another one vouches for it.
    pub(crate) fn resigned(ca: &Ca, by: &Ca) -> Ca {
        let key = KeyPair::from_pem(&ca.key.serialize_pem()).unwrap();
        Ca { cert: by.sign(&ca.params, &key), params: ca.params.clone(), key }
    }

    pub(crate) fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }

    pub(crate) fn sign_crl(&self, params: rcgen::CertificateRevocationListParams) -> Vec<u8> {
        params.signed_by(&Issuer::from_params(&self.params, &self.key)).unwrap().der().to_vec()
    }

    pub(crate) fn issue(&self, name: &str, key: KeyPair) -> Leaf {
        self.issue_as(&ee_params(name), key)
    }

    pub(crate) fn issue_as(&self, params: &CertificateParams, key: KeyPair) -> Leaf {
        Leaf { cert: self.sign(params, &key), key }
    }

    pub(crate) fn named(&self) -> Certificate {
        Certificate { name: "ca.crt".into(), der: self.cert.der().to_vec() }
    }
}

/// An end entity.
pub(crate) struct Leaf {
    pub(crate) cert: rcgen::Certificate,
    pub(crate) key: KeyPair,
}

impl Leaf {
    pub(crate) fn named(&self) -> Certificate {
        Certificate { name: "own.crt".into(), der: self.cert.der().to_vec() }
    }

    pub(crate) fn own(&self, more: &[&Ca]) -> OwnKey {
        let certs = [self.named()].into_iter().chain(more.iter().map(|ca| ca.named()));
        let certs = certs.map(Into::into).collect();
        OwnKey { certs, ..bare(&self.key) }
    }
}

/// A key without a certificate.
pub(crate) fn bare(key: &KeyPair) -> OwnKey {
    let source = KeySource::Der(Secret::from_slice(key.serialized_der()));
    OwnKey { name: "own.key".into(), source, certs: vec![], url: None }
}

pub(crate) fn raw(key: &KeyPair) -> RawKey {
    use rcgen::PublicKeyData;
    RawKey { name: "peer.pub".into(), spki: key.subject_public_key_info() }
}

/// A configuration of one realm `r` that authenticates by public key.
pub(crate) fn pubkey(local: &str, remote: &str, own: Option<OwnKey>, trust: Trust) -> Config {
    let mut realm = realm("r", local, remote, AuthPolicy::Pubkey);
    if own.is_none() {
        realm.local_auth = AuthPolicy::Psk;
    }
    let credentials = [("r".to_owned(), Credentials { own, also: vec![], trust, eap: None })].into();
    Config { realms: vec![Arc::new(realm)], credentials, ..Config::default() }
}

pub(crate) fn trust_ca(cas: &[&Ca]) -> Trust {
    Trust { anchors: cas.iter().map(|ca| ca.named()).collect(), ..Trust::default() }
}

/// One side proves itself as initiator to a side that accepts `moon.lab.test` by these CAs; gives the verdict.
pub(crate) fn verdict(own: OwnKey, trust: Trust) -> Reply {
    let mut moon = Side::new(pubkey("moon.lab.test", "any", Some(own), Trust::default()));
    let proof = proof(moon.make(1, "r", "moon.lab.test", initiators(Role::Initiator)));
    let mut sun = Side::new(pubkey("sun.lab.test", "moon.lab.test", None, trust));
    sun.check(1, "r", "sun.lab.test", "moon.lab.test", initiators(Role::Responder), proof)
}
