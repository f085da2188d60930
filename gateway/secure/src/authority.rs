//! Proofs: ours are made, those of peers are checked. Sans I/O: questions go in with the time, operations go to the devices,
//! answers come out.
//!
//! `MakeAuth`, by signature: table → octets → [`Stage::Sign`] → answer. By PSK: answered at once.
//!
//! `CheckAuth`, by signature: table → identity → certificates, either believed as they are or [`Stage::Chain`] →
//! [`Stage::Verify`] → answer. By PSK: answered at once.
//!
//! What the operator is told about a refusal is in its text and in the log; the peer is told AUTHENTICATION_FAILED and
//! nothing else.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::SystemTime;

use ipc::{
    AuthInput, Binding, CertData, DnsChange, IkeSaRef, NeighbourChange, Offered, PeerProof, Refusal, Reply,
    Request, RouteChange, Table, TunSpec,
};
use policy::{AuthPolicy, IdMatch, Identity, Realm, dn};
use spi::cert::{CertDone, CertInfo, CertJob, CertQueue};
use spi::{
    CryptoDone, CryptoJob, CryptoOp, CryptoOutput, FaultKind, InFlight, KeyId, Outcome, SignScheme, Token,
};
use wire::numbers::{AuthMethod, CertEncoding};

use crate::cert::Cert;
use crate::config::Config;
use crate::devices::{Devices, Place};
use crate::identity;
use crate::key::{self, KeyKind};
use crate::method;
use crate::octets::{self, Prover};
use crate::path;
use crate::psk::{self, NoPsk};
use crate::usage;
use crate::validator::Validator;
use crate::vault::{Believed, Problem, Vault};

/// Operations at once.
const MAX_OPEN: usize = 4096;
/// Times that what a device has done is followed up in one turn.
const ROUNDS: usize = 8;
/// Keys that are tried when a peer sends no certificate.
const MAX_KEYS_TRIED: usize = 16;
/// How often a signature is begun again after a device was reset.
const MAX_TRIES: usize = 3;

/// Makes and checks proofs.
pub(crate) struct Authority {
    vault: Vault,
    pub(crate) devices: Devices,
    certs: Box<CertQueue>,
    /// Validators of earlier rules that still have questions.
    retired: Vec<Box<CertQueue>>,
    table: Table,
    open: InFlight<Stage>,
    chains: InFlight<Chain>,
    chain_jobs: VecDeque<CertJob>,
    replies: VecDeque<(Token, Reply)>,
    /// How a peer proved itself that knows the PSK, in words.
    by_psk: Arc<str>,
}

/// What an operation that is out is for.
enum Stage {
    Sign(Box<Signing>),
    Verify(Box<Verifying>),
}

struct Signing {
    token: Token,
    realm: Arc<str>,
    place: Place,
    key: KeyId,
    spki: Vec<u8>,
    chosen: method::Chosen,
    octets: Vec<u8>,
    certs: Vec<CertData>,
    tries: usize,
}

/// A peer whose proof is being checked.
struct Peer {
    token: Token,
    sa: IkeSaRef,
    realm: Arc<Realm>,
    id: Identity,
}

struct Verifying {
    peer: Peer,
    octets: Vec<u8>,
    current: Attempt,
    rest: VecDeque<Attempt>,
}

/// One way a signature may turn out to be good.
struct Attempt {
    spki: Vec<u8>,
    scheme: SignScheme,
    signature: Vec<u8>,
    place: Place,
    how: String,
}

/// A proof that waits for the verdict on its certificates.
struct Chain {
    peer: Peer,
    octets: Vec<u8>,
    method: AuthMethod,
    data: Vec<u8>,
}

impl Authority {
    pub(crate) fn new(vault: Vault, devices: Devices, certs: Box<CertQueue>, table: Table) -> Self {
        Authority {
            vault,
            devices,
            certs,
            retired: Vec::new(),
            table,
            open: InFlight::new(MAX_OPEN),
            chains: InFlight::new(MAX_OPEN),
            chain_jobs: VecDeque::new(),
            replies: VecDeque::new(),
            by_psk: "PSK".into(),
        }
    }

    /// Takes a question about proofs; others are handed back.
    pub(crate) fn handle(&mut self, at: SystemTime, token: Token, request: Request) -> Option<NetRequest> {
        let refusal = match request {
            Request::MakeAuth { sa, realm, own_id, peer_id, input, offered } => {
                self.make(at, token, sa, &realm, &own_id, peer_id.as_ref(), &input, &offered)
            }
            Request::CheckAuth { sa, realm, own_id, peer_id, input, proof } => {
                self.check(at, token, sa, &realm, &own_id, peer_id, &input, proof)
            }
            Request::Forget { sa } => {
                self.table.forget(sa);
                Ok(())
            }
            Request::OpenTun(spec) => return Some(NetRequest::OpenTun(spec)),
            Request::Route(change) => return Some(NetRequest::Route(change)),
            Request::Dns(change) => return Some(NetRequest::Dns(change)),
            Request::Neighbour(change) => return Some(NetRequest::Neighbour(change)),
            Request::Address { realm, device, address, prefix, add } => {
                return Some(NetRequest::Address(AddressChange { realm, device, address, prefix, add }));
            }
        };
        if let Err(refusal) = refusal {
            self.replies.push_back((token, Reply::Refused(refusal)));
        }
        None
    }

    /// Lets the devices work; returns whether more can be done at once. What a device does at once is followed up at once:
    /// the signature of a peer when its certificates are good.
    pub(crate) fn poll(&mut self) -> bool {
        for _ in 0..ROUNDS {
            let (came, more) = self.turn();
            if !came {
                return more;
            }
        }
        true
    }

    /// Takes what is there; returns whether something was, and whether more can be had at once.
    fn turn(&mut self) -> (bool, bool) {
        let mut done = Vec::new();
        let mut more = self.devices.poll(&mut |d| done.push(d));
        let _ = self.certs.submit(&mut self.chain_jobs);
        let (mut verdicts, mut signatures) = (Vec::new(), false);
        for queue in self.retired.iter_mut().chain([&mut self.certs]) {
            let polled = queue.poll(64, &mut |d: CertDone| verdicts.push(d));
            more |= polled.more;
            signatures |= polled.more && polled.delivered == 0;
        }
        self.retired.retain(|queue| queue.in_flight() > 0);
        let came = signatures || !done.is_empty() || !verdicts.is_empty();
        for d in done {
            self.on_done(d);
        }
        for verdict in verdicts {
            self.on_verdict(verdict);
        }
        let _ = self.certs.submit(&mut self.chain_jobs);
        (came, more)
    }

    /// The next answer.
    pub(crate) fn poll_reply(&mut self) -> Option<(Token, Reply)> {
        self.replies.pop_front()
    }

    /// Doorbells to sleep on; and whether there is work out that rings none.
    pub(crate) fn doorbells(&self) -> (Vec<std::os::fd::BorrowedFd<'_>>, bool) {
        let (mut bells, mut blind) = self.devices.doorbells();
        for queue in self.retired.iter().chain([&self.certs]) {
            match queue.doorbell() {
                Some(bell) => bells.push(bell),
                None => blind |= queue.in_flight() > 0,
            }
        }
        (bells, blind)
    }

    /// Puts another configuration in place. Proofs under way go on with what they began with.
    pub(crate) fn reload(&mut self, config: Config, at: SystemTime) -> Vec<Problem> {
        let (vault, problems) = Vault::open(config, &self.devices, at);
        if vault.rules.min_rsa_bits != self.vault.rules.min_rsa_bits {
            self.renew_validator(vault.rules.min_rsa_bits);
        }
        std::mem::replace(&mut self.vault, vault).close(&self.devices);
        problems
    }

    /// A validator for other rules. The old one ends what it began.
    fn renew_validator(&mut self, min_rsa_bits: usize) {
        let Some(fresh) = self.devices.verifier().and_then(|device| Validator::new(device, min_rsa_bits))
        else {
            tracing::error!(
                "no device for another certificate validator: the shortest RSA key stays what it was"
            );
            return;
        };
        self.retired.push(std::mem::replace(&mut self.certs, Box::new(fresh)));
    }

    pub(crate) fn vault(&self) -> &Vault {
        &self.vault
    }

    fn realm(&self, name: &str, own_id: &Identity) -> Result<Arc<Realm>, Refusal> {
        let realm =
            self.vault.realm(name).ok_or_else(|| Refusal::NotAllowed(format!("no realm `{name}`")))?;
        if realm.local_id != *own_id {
            return Err(Refusal::NotAllowed(format!("realm `{name}` does not speak as `{own_id}`")));
        }
        Ok(Arc::clone(realm))
    }

    #[allow(clippy::too_many_arguments)] // The fields of one request.
    fn make(
        &mut self,
        at: SystemTime,
        token: Token,
        sa: IkeSaRef,
        realm: &str,
        own_id: &Identity,
        peer_id: Option<&Identity>,
        input: &AuthInput,
        offered: &Offered,
    ) -> Result<(), Refusal> {
        let realm = self.realm(realm, own_id)?;
        let (octets, binding) = build(input, Prover::us(input.role))?;
        self.table.make_auth(sa, input.role, binding)?;
        match realm.local_auth {
            AuthPolicy::Psk => {
                let psk = self.vault.psk(own_id, peer_id).map_err(|e| no_psk(e, own_id, peer_id))?;
                let short = self.devices.short();
                let proof = psk::proof(&**short, input.prf, psk.secret.expose(), &octets)
                    .map_err(|fault| Refusal::System(format!("PRF: {fault}")))?;
                let data = proof.expose().to_vec();
                let reply = Reply::Proof { method: AuthMethod::SHARED_KEY_MIC.0, data, certs: Vec::new() };
                self.replies.push_back((token, reply));
                Ok(())
            }
            AuthPolicy::Pubkey => self.sign(at, token, &realm, octets, offered),
        }
    }

    fn sign(
        &mut self,
        at: SystemTime,
        token: Token,
        realm: &Realm,
        octets: Vec<u8>,
        offered: &Offered,
    ) -> Result<(), Refusal> {
        if self.vault.own(&realm.name).is_none() {
            self.vault.try_again(realm, &self.devices, at).map_err(Refusal::NoCredential)?;
        }
        let own = self.vault.own(&realm.name).ok_or_else(|| {
            Refusal::NoCredential(format!("realm `{}` has no usable private key", realm.name))
        })?;
        let chosen = method::choose(&own.info.schemes, &offered.hashes, self.vault.rules)
            .map_err(Refusal::NoCredential)?;
        let mut certs = Vec::new();
        for (i, (der, key_hash)) in own.certs.iter().enumerate() {
            // A CA the peer named it has already; whatever is above that, too.
            if i > 0 && offered.authorities.contains(key_hash) {
                break;
            }
            certs.push(CertData { encoding: CertEncoding::X509_SIGNATURE.0, data: der.clone() });
        }
        let (place, key, spki) = (own.place, own.info.id, own.info.spki.clone());
        let op = CryptoOp::Sign { key, scheme: chosen.scheme, octets: octets.clone() };
        let signing =
            Signing { token, realm: realm.name.clone(), place, key, spki, chosen, octets, certs, tries: 1 };
        self.begin(Stage::Sign(Box::new(signing)), place, op)
    }

    #[allow(clippy::too_many_arguments)] // The fields of one request.
    fn check(
        &mut self,
        at: SystemTime,
        token: Token,
        sa: IkeSaRef,
        realm: &str,
        own_id: &Identity,
        peer_id: Identity,
        input: &AuthInput,
        proof: PeerProof,
    ) -> Result<(), Refusal> {
        let realm = self.realm(realm, own_id)?;
        let (octets, binding) = build(input, Prover::peer(input.role))?;
        self.table.check_auth(sa, input.role, binding)?;
        let peer = Peer { token, sa, realm, id: peer_id };
        match self.check_further(at, peer, own_id, input, octets, proof) {
            Ok(()) => {}
            Err((peer, refusal)) => self.refuse(peer, refusal),
        }
        Ok(())
    }

    fn check_further(
        &mut self,
        at: SystemTime,
        peer: Peer,
        own_id: &Identity,
        input: &AuthInput,
        octets: Vec<u8>,
        proof: PeerProof,
    ) -> Result<(), (Peer, String)> {
        if !peer.realm.remote_id.matches(&peer.id) {
            let what = format!("`{}` is not `{}`, whom the realm accepts", peer.id, peer.realm.remote_id);
            return Err((peer, what));
        }
        let method = AuthMethod(proof.method);
        match (peer.realm.remote_auth, method) {
            (AuthPolicy::Psk, AuthMethod::SHARED_KEY_MIC) => {
                match self.check_psk(&peer, own_id, input, &octets, &proof) {
                    Ok(()) => {
                        self.accept(peer, Arc::clone(&self.by_psk));
                        Ok(())
                    }
                    Err(what) => Err((peer, what)),
                }
            }
            (AuthPolicy::Psk, other) => {
                Err((peer, format!("the realm wants a PSK, the peer came with {other}")))
            }
            (AuthPolicy::Pubkey, AuthMethod::SHARED_KEY_MIC) => {
                Err((peer, "the realm wants a signature, the peer came with a PSK".into()))
            }
            (AuthPolicy::Pubkey, _) => self.check_signature(at, peer, octets, method, proof),
        }
    }

    fn check_psk(
        &self,
        peer: &Peer,
        own_id: &Identity,
        input: &AuthInput,
        octets: &[u8],
        proof: &PeerProof,
    ) -> Result<(), String> {
        let psk = self.vault.psk(own_id, Some(&peer.id));
        // The same work without a key as with a wrong one, so that time does not tell which identities are known.
        let secret = psk.map_or(&b"no key"[..], |psk| psk.secret.expose());
        let expected = psk::proof(&**self.devices.short(), input.prf, secret, octets)
            .map_err(|f| format!("PRF: {f}"))?;
        let right = expected.ct_eq(&proof.data);
        match psk {
            Err(_) => Err(format!("no pre-shared key for `{own_id}` and `{}`", peer.id)),
            Ok(_) if !right => Err(format!("`{}` has another pre-shared key", peer.id)),
            Ok(_) => Ok(()),
        }
    }

    fn check_signature(
        &mut self,
        at: SystemTime,
        peer: Peer,
        octets: Vec<u8>,
        method: AuthMethod,
        proof: PeerProof,
    ) -> Result<(), (Peer, String)> {
        if let Err(what) = check_cert_payloads(&proof.certs) {
            return Err((peer, what));
        }
        let found = self.believed(at, &peer, &proof.certs);
        match found {
            Err(what) => Err((peer, what)),
            Ok(Belief::Keys(keys)) => {
                let attempts = self.attempts(&keys, method, &proof.data);
                match attempts {
                    Ok(attempts) => self.verify(peer, octets, attempts),
                    Err(what) => Err((peer, what)),
                }
            }
            Ok(Belief::Chain(anchors)) => {
                let chain = proof.certs.into_iter().map(|c| c.data).collect();
                match self.chains.insert(Chain { peer, octets, method, data: proof.data }) {
                    Ok(token) => {
                        self.chain_jobs.push_back(CertJob { token, chain, anchors, at });
                        let _ = self.certs.submit(&mut self.chain_jobs);
                        Ok(())
                    }
                    Err(chain) => Err((chain.peer, "too many proofs are being checked".into())),
                }
            }
        }
    }

    /// What the peer's certificates are to be judged by.
    fn believed(&self, at: SystemTime, peer: &Peer, certs: &[CertData]) -> Result<Belief, String> {
        let believes = self.vault.believes(&peer.realm.name).ok_or("the realm believes nobody")?;
        let named = |b: &&Believed| b.speaks_for(at, &peer.realm, &peer.id).is_ok();
        let as_key = |b: &Believed| (b.spki.clone(), b.kind, b.describe());
        let Some(first) = certs.first() else {
            // RFC 7296 section 3.6: a peer whose key we have need not send it.
            let keys: Vec<_> = believes.keys.iter().filter(named).take(MAX_KEYS_TRIED).map(as_key).collect();
            return match keys.is_empty() {
                false => Ok(Belief::Keys(keys)),
                true => Err("the peer sent no certificate, and none is known for it".into()),
            };
        };
        let raw = first.encoding == CertEncoding::RAW_PUBLIC_KEY.0;
        let pinned = believes.keys.iter().find(|b| match &b.cert {
            Some(cert) if !raw => cert.der == first.data,
            _ if raw => b.spki == first.data,
            _ => false,
        });
        // A certificate around a raw key that is believed: the key counts, the paper does not.
        let pinned = pinned.or_else(|| {
            if raw || believes.keys.iter().all(|b| b.cert.is_some()) {
                return None;
            }
            let spki = Cert::parse(&first.data).ok()?.spki;
            believes.keys.iter().find(|b| b.cert.is_none() && b.spki == spki)
        });
        match pinned {
            Some(b) => {
                b.speaks_for(at, &peer.realm, &peer.id)?;
                Ok(Belief::Keys(vec![as_key(b)]))
            }
            None if raw => Err("the raw public key of the peer is not one the realm believes".into()),
            None if believes.anchors.is_empty() => {
                Err("the certificate of the peer is not one the realm believes".into())
            }
            None => Ok(Belief::Chain(Arc::clone(&believes.anchors))),
        }
    }

    /// Every way the proof may be good, with devices that can tell.
    fn attempts(
        &self,
        keys: &[(Vec<u8>, KeyKind, String)],
        method: AuthMethod,
        data: &[u8],
    ) -> Result<VecDeque<Attempt>, String> {
        let mut attempts = VecDeque::new();
        let mut why = None;
        for (spki, kind, described) in keys {
            match method::attempts(method, data, *kind, self.vault.rules) {
                Ok(ways) => {
                    for (scheme, signature) in ways {
                        let how = format!("{}, {described}", method::scheme_text(scheme, *kind));
                        match self.devices.verifies(scheme) {
                            Some(place) => {
                                attempts.push_back(Attempt {
                                    spki: spki.clone(),
                                    scheme,
                                    signature,
                                    place,
                                    how,
                                });
                            }
                            None => {
                                why =
                                    Some(format!("no device verifies {}", method::scheme_text(scheme, *kind)))
                            }
                        }
                    }
                }
                Err(e) => why = Some(e.to_string()),
            }
        }
        if attempts.is_empty() {
            Err(why.unwrap_or_else(|| "nothing to verify".into()))
        } else {
            Ok(attempts)
        }
    }

    fn verify(
        &mut self,
        peer: Peer,
        octets: Vec<u8>,
        mut attempts: VecDeque<Attempt>,
    ) -> Result<(), (Peer, String)> {
        let Some(current) = attempts.pop_front() else {
            return Err((peer, "the signature does not verify".into()));
        };
        let op = CryptoOp::Verify {
            spki: current.spki.clone(),
            scheme: current.scheme,
            octets: octets.clone(),
            signature: current.signature.clone(),
        };
        let place = current.place;
        let stage = Stage::Verify(Box::new(Verifying { peer, octets, current, rest: attempts }));
        match self.open.insert(stage) {
            Ok(token) => {
                self.devices.submit(place, CryptoJob { token, op });
                Ok(())
            }
            Err(Stage::Verify(v)) => Err((v.peer, "too many proofs are being checked".into())),
            Err(Stage::Sign(_)) => Ok(()),
        }
    }

    fn begin(&mut self, stage: Stage, place: Place, op: CryptoOp) -> Result<(), Refusal> {
        match self.open.insert(stage) {
            Ok(token) => {
                self.devices.submit(place, CryptoJob { token, op });
                Ok(())
            }
            Err(_) => Err(Refusal::System("too many operations at once".into())),
        }
    }

    fn on_done(&mut self, done: CryptoDone) {
        // A token that is unknown, late or doubled names nothing.
        match self.open.take(done.token) {
            Some(Stage::Sign(signing)) => self.on_signed(*signing, done),
            Some(Stage::Verify(verifying)) => self.on_verified(*verifying, done.outcome),
            None => tracing::warn!("a device answered what was not asked"),
        }
    }

    fn on_signed(&mut self, mut signing: Signing, done: CryptoDone) {
        let token = signing.token;
        let fault = match (done.outcome, done.output) {
            (Outcome::Done, CryptoOutput::Signature(signature)) => {
                let mut data = signing.chosen.prefix;
                data.extend_from_slice(&signature);
                let method = signing.chosen.method.0;
                self.replies.push_back((token, Reply::Proof { method, data, certs: signing.certs }));
                return;
            }
            (Outcome::Failed(fault), _) => fault,
            _ => FaultKind::Internal.into(),
        };
        let why = self.devices.explain(signing.place, fault);
        // Nothing went out yet: after a reset the signature is begun again, with the same key, opened anew.
        let again =
            matches!(fault.kind, FaultKind::Aborted | FaultKind::StaleHandle) && signing.tries < MAX_TRIES;
        if again && let Some((place, key)) = self.same_key(&signing) {
            signing.tries += 1;
            (signing.place, signing.key) = (place, key);
            let op = CryptoOp::Sign { key, scheme: signing.chosen.scheme, octets: signing.octets.clone() };
            if self.begin(Stage::Sign(Box::new(signing)), place, op).is_ok() {
                return;
            }
        }
        // Never another key in its place: a key that lives in a device is there for a reason.
        let refusal = Refusal::NoCredential(format!("the device with the private key failed: {why}"));
        self.replies.push_back((token, Reply::Refused(refusal)));
    }

    fn same_key(&mut self, signing: &Signing) -> Option<(Place, KeyId)> {
        if self.vault.own(&signing.realm)?.info.id == signing.key {
            self.vault.reopen(&signing.realm, &self.devices).ok()?;
        }
        let own = self.vault.own(&signing.realm)?;
        (own.info.spki == signing.spki).then_some((own.place, own.info.id))
    }

    fn on_verified(&mut self, verifying: Verifying, outcome: Outcome) {
        let Verifying { peer, octets, current, rest } = verifying;
        match outcome {
            Outcome::Done => self.accept(peer, current.how.into()),
            Outcome::Rejected(_) => {
                if let Err((peer, what)) = self.verify(peer, octets, rest) {
                    self.refuse(peer, what);
                }
            }
            Outcome::Failed(fault) => {
                self.refuse(peer, format!("the signature could not be verified: {fault}"))
            }
            Outcome::Pending => self.refuse(peer, "a device gave no verdict".into()),
        }
    }

    fn on_verdict(&mut self, verdict: CertDone) {
        let Some(Chain { peer, octets, method, data }) = self.chains.take(verdict.token) else { return };
        let result = match verdict.verdict {
            Err(e) => Err((peer, e.to_string())),
            Ok(info) => match self.attempts_by_cert(&info, &peer.id, method, &data) {
                Ok(attempts) => self.verify(peer, octets, attempts),
                Err(what) => Err((peer, what)),
            },
        };
        if let Err((peer, what)) = result {
            self.refuse(peer, what);
        }
    }

    fn attempts_by_cert(
        &self,
        info: &CertInfo,
        id: &Identity,
        method: AuthMethod,
        data: &[u8],
    ) -> Result<VecDeque<Attempt>, String> {
        // RFC 7296 section 4: the identity of the ID payload has to be that of the certificate.
        if !identity::covers(info, id) {
            return Err(format!("the certificate speaks for {}, not for `{id}`", identity::spoken_for(info)));
        }
        let kind = key::inspect(&info.spki, self.vault.rules.min_rsa_bits).map_err(|e| e.to_string())?;
        let described = format!("certificate of {}", dn::to_text(&info.subject));
        self.attempts(&[(info.spki.clone(), kind, described)], method, data)
    }

    fn accept(&mut self, peer: Peer, how: Arc<str>) {
        self.table.checked(peer.sa, true);
        // The network side says that the IKE SA is up, and how the peer proved itself.
        tracing::debug!(realm = %peer.realm.name, peer = %peer.id, sa = peer.sa.0, how = %how, "peer accepted");
        self.replies.push_back((peer.token, Reply::PeerAccepted { how }));
    }

    fn refuse(&mut self, peer: Peer, what: String) {
        self.table.checked(peer.sa, false);
        tracing::warn!(realm = %peer.realm.name, peer = %peer.id, sa = peer.sa.0, why = %what, "peer refused");
        self.replies.push_back((peer.token, Reply::Refused(Refusal::AuthenticationFailed(what))));
    }
}

/// What a peer's certificates are judged by.
enum Belief {
    /// These keys, believed as they are: SubjectPublicKeyInfo, kind, description.
    Keys(Vec<(Vec<u8>, KeyKind, String)>),
    /// A path to one of these CAs.
    Chain(Arc<[Vec<u8>]>),
}

impl Believed {
    /// Whether the key may speak for the identity: the operator wrote the two down together, or the certificate says so.
    fn speaks_for(&self, at: SystemTime, realm: &Realm, id: &Identity) -> Result<(), String> {
        let named = matches!(realm.remote_id, IdMatch::Exact(_));
        match &self.cert {
            Some(cert) => {
                // The length of RSA keys was looked at when the certificate was read.
                usage::check_any(cert, at, 0)
                    .and_then(|()| usage::check_end_entity(cert))
                    .map_err(|e| e.to_string())?;
                if !named && !identity::covers(&cert.info(), id) {
                    let info = cert.info();
                    return Err(format!(
                        "the certificate speaks for {}, not for `{id}`",
                        identity::spoken_for(&info)
                    ));
                }
                Ok(())
            }
            None if named => Ok(()),
            None => {
                Err("a raw public key cannot say whose it is, and the realm accepts many identities".into())
            }
        }
    }

    fn describe(&self) -> String {
        match &self.cert {
            Some(cert) => format!("pinned certificate of {}", cert.subject_text()),
            None => format!("public key {}", self.name),
        }
    }
}

/// A question about the network, to be answered by [`crate::permit`] and [`crate::kernel`].
pub(crate) enum NetRequest {
    OpenTun(TunSpec),
    Route(RouteChange),
    Address(AddressChange),
    Dns(DnsChange),
    Neighbour(NeighbourChange),
}

/// An address on a TUN device.
pub(crate) struct AddressChange {
    pub(crate) realm: Arc<str>,
    pub(crate) device: Arc<str>,
    pub(crate) address: std::net::IpAddr,
    pub(crate) prefix: u8,
    pub(crate) add: bool,
}

/// Encodings are looked at before anything is parsed: nothing but X.509 certificates and raw public keys has any business
/// here, and every other parser would be one more to attack.
fn check_cert_payloads(certs: &[CertData]) -> Result<(), String> {
    if certs.len() > path::MAX_CERTS {
        return Err(format!("{} certificates, at most {} are looked at", certs.len(), path::MAX_CERTS));
    }
    if certs.iter().map(|c| c.data.len()).sum::<usize>() > path::MAX_CERT_OCTETS {
        return Err(format!("more than {} octets of certificates", path::MAX_CERT_OCTETS));
    }
    for (i, cert) in certs.iter().enumerate() {
        match CertEncoding(cert.encoding) {
            CertEncoding::X509_SIGNATURE => {}
            CertEncoding::RAW_PUBLIC_KEY if i == 0 => {}
            other => return Err(format!("a CERT payload of encoding {other}, which is not supported")),
        }
    }
    Ok(())
}

fn build(input: &AuthInput, prover: Prover) -> Result<(Vec<u8>, Binding), Refusal> {
    octets::build(input, prover).map_err(|e| {
        // Our own engine does not ask such things: either it has a fault or it is no longer our own.
        tracing::warn!(why = %e, "octets that are not IKE_SA_INIT were to be proved");
        Refusal::NotAllowed(e.to_string())
    })
}

fn no_psk(why: NoPsk, own: &Identity, peer: Option<&Identity>) -> Refusal {
    let peer = peer.map_or_else(|| "a peer not known yet".to_owned(), |p| format!("`{p}`"));
    Refusal::NoCredential(match why {
        NoPsk::Unknown => format!("no pre-shared key for `{own}` and {peer}"),
        NoPsk::Ambiguous => format!("several pre-shared keys for `{own}` and {peer}"),
    })
}
