//! Proofs: ours are made, those of peers are checked. Sans I/O: questions go in with the time, operations go to the devices,
//! answers come out.
//!
//! `MakeAuth`, by signature: table → octets → [`Stage::Sign`] → answer. By PSK: answered at once.
//!
//! `CheckAuth`, by signature: table → realm → certificates, either believed as they are or [`Chain`] → [`Stage::Verify`] → whether they
//! were revoked ([`papers`]) → answer. Where no CA of the realm vouches for the peer, the next realm that it fits. By PSK, and without
//! proof: answered at once.
//!
//! What the operator is told about a refusal is in its text and in the log; the peer is told AUTHENTICATION_FAILED and
//! nothing else.

mod belief;
mod first_use;
mod in_tls;
mod own;
mod papers;

use std::collections::{HashMap, VecDeque};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use ipc::{
    AuthInput, Binding, CertData, DnsChange, IkeSaRef, NeighbourChange, Offered, PeerProof, Refusal, Reply,
    Request, RouteChange, Table, TunSpec,
};
use policy::{AuthPolicy, Claims, Identity, Realm, SignMethod, dn};
use spi::cert::{CertDone, CertError, CertInfo, CertJob, CertQueue};
use spi::{CryptoDone, CryptoJob, CryptoOp, Doorbell, InFlight, Outcome, SignScheme, Token};
use wire::numbers::{AuthMethod, CertEncoding};

use self::belief::{Belief, Disbelief, untaken};
use crate::candidates::{Candidates, proof_of};
use crate::cert::Cert;
use crate::config::Config;
use crate::devices::{Devices, Place};
use crate::eap::Host;
use crate::eap_judge::Asked;
use crate::identity;
use crate::key::{self, KeyKind};
use crate::method;
use crate::octets::{self, Prover};
use crate::psk::{self, no_psk};
use crate::radius::Radius;
use crate::revocation::Checks;
use crate::validator::Validator;
use crate::vault::{Problem, Vault};
use own::Signing;
#[cfg(feature = "fuzzing")]
pub(crate) use papers::bundle;
use papers::{Parked, Unchecked, Waiting};

/// Operations at once.
const MAX_OPEN: usize = 4096;
/// Times that what a device has done is followed up in one turn.
const ROUNDS: usize = 8;
/// Makes and checks proofs.
pub(crate) struct Authority {
    vault: Vault,
    pub(crate) devices: Devices,
    certs: Box<CertQueue>,
    /// Validators of earlier rules that still have questions.
    retired: Vec<Box<CertQueue>>,
    table: Table,
    open: InFlight<Stage>,
    chains: InFlight<Chained>,
    chain_jobs: VecDeque<CertJob>,
    checks: Checks,
    parked: HashMap<Token, Parked>,
    waiting: Waiting,
    replies: VecDeque<(Token, Reply)>,
    /// How a peer proved itself that knows the PSK, in words.
    by_psk: Arc<str>,
    /// EAP conversations.
    pub(crate) eap: Host,
    /// Servers that some of them go through.
    pub(crate) radius: Option<Radius>,
    /// And one that did not.
    by_nothing: Arc<str>,
}

/// What an operation that is out is for.
enum Stage {
    Sign(Box<Signing>),
    Verify(Box<Verifying>),
    /// For a check of this name.
    Status(Token),
}

/// A peer whose proof is being checked.
struct Peer {
    token: Token,
    sa: IkeSaRef,
    /// The realm, and others it may be.
    realms: Box<Candidates>,
    id: Identity,
    /// Its key is to be remembered when it has turned out to have it.
    first_use: Option<Vec<u8>>,
}

impl Peer {
    fn realm(&self) -> &Arc<Realm> {
        &self.realms.realm
    }

    /// Which realms it may be in, the best first. What its certificate says is not believed yet, but it says which realm would have
    /// to believe it.
    fn sort_realms(&mut self, method: AuthMethod, certs: &[CertData]) -> Result<(), String> {
        let said = match certs.first() {
            Some(cert) if cert.encoding == CertEncoding::X509_SIGNATURE.0 => {
                Cert::parse(&cert.data).ok().map(|cert| cert.info())
            }
            _ => None,
        };
        self.realms.sort(&self.id, method, said.as_ref())
    }
}

struct Verifying {
    peer: Peer,
    octets: Vec<u8>,
    current: Attempt,
    rest: VecDeque<Attempt>,
    /// What is still to be found out of the certificates.
    unchecked: Option<Box<Unchecked>>,
}

/// One way a signature may turn out to be good.
struct Attempt {
    spki: Vec<u8>,
    scheme: SignScheme,
    signature: Vec<u8>,
    place: Place,
    how: String,
}

/// A signature to be checked.
struct Proof {
    octets: Vec<u8>,
    method: AuthMethod,
    data: Vec<u8>,
    certs: Vec<CertData>,
    /// OCSP answers and lists that came with them.
    responses: Vec<Vec<u8>>,
    lists: Vec<Vec<u8>>,
    at: SystemTime,
}

/// Whose certificates are being looked at.
enum Chained {
    InIke(Box<Chain>),
    /// Of somebody in EAP.
    InTls(Asked),
}

/// A proof that waits for the verdict on its certificates.
struct Chain {
    peer: Peer,
    proof: Proof,
}

impl Authority {
    pub(crate) fn new(
        vault: Vault,
        devices: Devices,
        certs: Box<CertQueue>,
        checks: Checks,
        table: Table,
        bell: Doorbell,
    ) -> Self {
        Authority {
            eap: Host::new(bell),
            radius: None,
            vault,
            devices,
            certs,
            retired: Vec::new(),
            table,
            open: InFlight::new(MAX_OPEN),
            chains: InFlight::new(MAX_OPEN),
            chain_jobs: VecDeque::new(),
            checks,
            parked: HashMap::new(),
            waiting: Waiting::default(),
            replies: VecDeque::new(),
            by_psk: "PSK".into(),
            by_nothing: "NULL authentication: it may be anybody".into(),
        }
    }

    /// Takes a question about proofs; others are handed back.
    pub(crate) fn handle(&mut self, at: SystemTime, token: Token, request: Request) -> Option<NetRequest> {
        let refusal = match request {
            Request::MakeAuth { sa, realm, own_id, peer_id, input, offered } => {
                self.make(at, token, sa, &realm, &own_id, peer_id.as_ref(), &input, &offered)
            }
            Request::CheckAuth { sa, realms, asked, peer_id, input, proof } => {
                self.check(at, token, sa, &realms, asked, peer_id, &input, proof)
            }
            Request::EapBegin { sa, role, realms, asked, peer_id, remote } => {
                let question = crate::eap::Question { token, sa, role, peer_id, remote };
                self.eap.begin(&mut self.table, &self.vault, at, question, &realms, asked)
            }
            Request::EapPacket { sa, packet } => {
                let taken = self.eap.packet(&mut self.table, at, token, sa, &packet);
                self.begin_inquiries(at);
                taken
            }
            Request::EapWait { sa } => self.eap.wait(&mut self.table, at, token, sa),
            Request::EapMakeAuth { sa, input } => {
                self.eap.make_auth(&mut self.table, &**self.devices.short(), token, sa, &input)
            }
            Request::EapCheckAuth { sa, input, proof } => {
                self.eap.check_auth(&mut self.table, &**self.devices.short(), token, sa, &input, &proof)
            }
            Request::Account { session, what } => {
                let account = self.radius().and_then(|radius| radius.account(Instant::now(), session, what));
                account.map(|()| self.replies.push_back((token, Reply::Ok)))
            }
            Request::AwaitSessionOrder => self.radius().and_then(|radius| radius.await_order(token)),
            Request::Forget { sa } => {
                self.table.forget(sa);
                self.eap.forget(sa);
                if let Some(radius) = &mut self.radius {
                    radius.forget(sa);
                }
                Ok(())
            }
            Request::OpenTun(spec) => return Some(NetRequest::OpenTun(spec)),
            Request::AdoptTun { spec, queue } => return Some(NetRequest::AdoptTun(spec, queue)),
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
        if self.eap.poll(&mut self.table)
            && let Some(radius) = &mut self.radius
        {
            radius.poll();
        }
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
        let mut came = signatures || !done.is_empty() || !verdicts.is_empty();
        for d in done {
            self.on_done(d);
        }
        for verdict in verdicts {
            self.on_verdict(verdict);
        }
        came |= self.poll_status();
        let _ = self.certs.submit(&mut self.chain_jobs);
        (came, more)
    }

    /// The next answer.
    pub(crate) fn poll_reply(&mut self) -> Option<(Token, Reply)> {
        let eap = || self.eap.replies.pop_front();
        let radius = || self.radius.as_mut().and_then(|radius| radius.replies.pop_front());
        self.replies.pop_front().or_else(eap).or_else(radius)
    }

    /// Doorbells to sleep on; and whether there is work out that rings none.
    pub(crate) fn doorbells(&self) -> (Vec<std::os::fd::BorrowedFd<'_>>, bool) {
        let (mut bells, mut blind) = self.devices.doorbells();
        bells.push(self.eap.bell().as_fd());
        bells.push(self.checks.doorbell());
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
        let (mut vault, problems) = Vault::open(config, &self.devices, at);
        vault.radius = self.radius.as_ref().map(|radius| Arc::clone(radius.opens()));
        if vault.rules.min_rsa_bits != self.vault.rules.min_rsa_bits {
            self.renew_validator(vault.rules.min_rsa_bits);
        }
        std::mem::replace(&mut self.vault, vault).close(&self.devices);
        self.checks.refresh();
        problems
    }

    fn radius(&mut self) -> Result<&mut Radius, Refusal> {
        self.radius.as_mut().ok_or_else(|| Refusal::OutOfTurn("there is no RADIUS server".into()))
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
        if !realm.is_called(own_id) {
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
        self.table.make_auth(sa, input.role, &realm.name, binding)?;
        match realm.local_auth {
            AuthPolicy::Psk => {
                let psk =
                    self.vault.psk(&realm.name, own_id, peer_id).map_err(|e| no_psk(e, own_id, peer_id))?;
                let short = self.devices.short();
                let proof = psk::proof(&**short, input.prf, psk.secret.expose(), &octets)
                    .map_err(|fault| Refusal::System(format!("PRF: {fault}")))?;
                let data = proof.expose().to_vec();
                let reply = Reply::Proof { method: AuthMethod::SHARED_KEY_MIC.0, data, certs: Vec::new() };
                self.replies.push_back((token, reply));
                Ok(())
            }
            AuthPolicy::Pubkey => self.sign(at, token, &realm, octets, offered),
            AuthPolicy::Null => {
                // There is no secret in it: the network side fills it in with SK_p (RFC 7619 section 2.1). What is said here is
                // that the realm lets it.
                let reply = Reply::Proof { method: AuthMethod::NULL.0, data: Vec::new(), certs: Vec::new() };
                self.replies.push_back((token, reply));
                Ok(())
            }
            AuthPolicy::Eap => {
                Err(Refusal::NotAllowed(format!("realm `{}` proves itself by EAP", realm.name)))
            }
        }
    }

    #[allow(clippy::too_many_arguments)] // The fields of one request.
    fn check(
        &mut self,
        at: SystemTime,
        token: Token,
        sa: IkeSaRef,
        realms: &[Arc<str>],
        asked: Option<Identity>,
        peer_id: Identity,
        input: &AuthInput,
        proof: PeerProof,
    ) -> Result<(), Refusal> {
        let realms = Candidates::of(&self.vault, realms, asked)?;
        let (octets, binding) = build(input, Prover::peer(input.role))?;
        self.table.check_auth(sa, input.role, binding)?;
        let peer = Peer { token, sa, realms: Box::new(realms), id: peer_id, first_use: None };
        match self.check_further(at, peer, input, octets, proof) {
            Ok(()) => {}
            Err((peer, refusal)) => self.refuse(peer, refusal),
        }
        Ok(())
    }

    fn check_further(
        &mut self,
        at: SystemTime,
        mut peer: Peer,
        input: &AuthInput,
        octets: Vec<u8>,
        proof: PeerProof,
    ) -> Result<(), (Peer, String)> {
        let method = AuthMethod(proof.method);
        if let Err(what) = peer.sort_realms(method, &proof.certs) {
            return Err((peer, what));
        }
        let wants = peer.realm().remote_auth;
        match (wants, proof_of(method)) {
            (AuthPolicy::Null, AuthPolicy::Null) => {
                self.accept(peer, Arc::clone(&self.by_nothing));
                Ok(())
            }
            (AuthPolicy::Psk, AuthPolicy::Psk) => match self.check_psk(&peer, input, &octets, &proof) {
                Ok(()) => {
                    self.accept(peer, Arc::clone(&self.by_psk));
                    Ok(())
                }
                Err(what) => Err((peer, what)),
            },
            (AuthPolicy::Pubkey, AuthPolicy::Pubkey) => {
                let PeerProof { data, certs, .. } = proof;
                let proof =
                    Proof { octets, method, data, certs, responses: Vec::new(), lists: Vec::new(), at };
                match self.fetch_for(peer, proof)? {
                    Some((peer, proof)) => self.check_papers(peer, proof),
                    None => Ok(()),
                }
            }
            (wants, _) => {
                let wants = match wants {
                    AuthPolicy::Psk => "a PSK",
                    AuthPolicy::Pubkey => "a signature",
                    AuthPolicy::Eap => "EAP",
                    AuthPolicy::Null => "nothing",
                };
                let came = match method {
                    AuthMethod::SHARED_KEY_MIC => "a PSK".to_owned(),
                    other => other.to_string(),
                };
                let realm = &peer.realm().name;
                let what = format!("realm `{realm}` wants {wants}, the peer came with {came}");
                Err((peer, what))
            }
        }
    }

    /// Goes from realm to realm until one believes somebody who vouches for the peer, or the key itself.
    fn check_signature(&mut self, mut peer: Peer, proof: Proof) -> Result<(), (Peer, String)> {
        loop {
            match self.believed(proof.at, &peer, &proof.certs) {
                Ok(Belief::Keys(keys)) => {
                    return match self.attempts(peer.realm(), &keys, proof.method, &proof.data) {
                        Ok(attempts) => self.verify(peer, proof.octets, attempts, None),
                        Err(what) => Err((peer, what)),
                    };
                }
                Ok(Belief::First(key)) => {
                    return match self.attempts(
                        peer.realm(),
                        std::slice::from_ref(&key),
                        proof.method,
                        &proof.data,
                    ) {
                        Ok(attempts) => {
                            peer.first_use = Some(key.0);
                            self.verify(peer, proof.octets, attempts, None)
                        }
                        Err(what) => Err((peer, what)),
                    };
                }
                Ok(Belief::Chain(anchors, between, usages)) => {
                    let chain = proof.certs.iter().map(|c| c.data.clone()).chain(between).collect();
                    let at = proof.at;
                    return match self.chains.insert(Chained::InIke(Box::new(Chain { peer, proof }))) {
                        Ok(token) => {
                            self.chain_jobs.push_back(CertJob { token, chain, anchors, at, usages });
                            let _ = self.certs.submit(&mut self.chain_jobs);
                            Ok(())
                        }
                        Err(Chained::InIke(chain)) => {
                            Err((chain.peer, "too many proofs are being checked".into()))
                        }
                        Err(Chained::InTls(_)) => Ok(()),
                    };
                }
                Err(Disbelief::Unknown(what)) => {
                    if let Err(what) = peer.realms.next(what) {
                        return Err((peer, what));
                    }
                }
                Err(Disbelief::Refused(what)) => return Err((peer, what)),
            }
        }
    }

    /// Every way the proof may be good, with devices that can tell.
    fn attempts(
        &self,
        realm: &Realm,
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
                        if !SignMethod::of(scheme).is_some_and(|method| realm.takes(method)) {
                            why = Some(untaken(realm, &method::scheme_text(scheme, *kind)));
                            continue;
                        }
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
        unchecked: Option<Box<Unchecked>>,
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
        let stage = Stage::Verify(Box::new(Verifying { peer, octets, current, rest: attempts, unchecked }));
        match self.open.insert(stage) {
            Ok(token) => {
                self.devices.submit(place, CryptoJob { token, op });
                Ok(())
            }
            Err(Stage::Verify(v)) => Err((v.peer, "too many proofs are being checked".into())),
            Err(_) => Ok(()),
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
            Some(Stage::Status(check)) => self.on_status_signature(check, done.outcome),
            None => tracing::warn!("a device answered what was not asked"),
        }
    }

    fn on_verified(&mut self, verifying: Verifying, outcome: Outcome) {
        let Verifying { peer, octets, current, rest, unchecked } = verifying;
        match outcome {
            Outcome::Done => match (&peer.first_use, unchecked) {
                (None, None) => self.accept(peer, current.how.into()),
                (None, Some(unchecked)) => self.check_status(peer, current.how.into(), *unchecked),
                (Some(spki), _) => match self.remember(&peer, spki, SystemTime::now()) {
                    Ok(()) => self.accept(peer, current.how.into()),
                    Err(what) => self.refuse(peer, what),
                },
            },
            Outcome::Rejected(_) => {
                if let Err((peer, what)) = self.verify(peer, octets, rest, unchecked) {
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
        let (mut peer, proof) = match self.chains.take(verdict.token) {
            Some(Chained::InIke(chain)) => (chain.peer, chain.proof),
            Some(Chained::InTls(asked)) => return self.on_path_in_tls(asked, verdict.verdict),
            None => return,
        };
        let result = match verdict.verdict {
            // Another realm may have the CA that vouches for it.
            Err(e @ CertError::Untrusted(_)) => match peer.realms.next(e.to_string()) {
                Ok(()) => self.check_signature(peer, proof),
                Err(what) => Err((peer, what)),
            },
            Err(e) => Err((peer, e.to_string())),
            Ok(info) => match self.attempts_by_cert(&info, &peer, proof.method, &proof.data) {
                Ok(attempts) => {
                    let policy = self.vault.believes(&peer.realm().name).and_then(|b| b.revocation.clone());
                    let Proof { octets, responses, lists, at, .. } = proof;
                    let unchecked = policy
                        .map(|policy| Box::new(Unchecked { path: info.path, policy, responses, lists, at }));
                    self.verify(peer, octets, attempts, unchecked)
                }
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
        peer: &Peer,
        method: AuthMethod,
        data: &[u8],
    ) -> Result<VecDeque<Attempt>, String> {
        let (realm, id) = (peer.realm(), &peer.id);
        // What was verified is what was looked at before; the rules count by this and not by that.
        let claims = Claims { cert: Some(info), ..Claims::of(id, AuthPolicy::Pubkey) };
        if realm.rank(&claims).is_none() {
            return Err(format!(
                "the certificate of {} fits no rule of the realm",
                identity::spoken_for(info)
            ));
        }
        // RFC 7296 section 4: the identity of the ID payload has to be that of the certificate.
        if !identity::covers(info, id) {
            return Err(format!("the certificate speaks for {}, not for `{id}`", identity::spoken_for(info)));
        }
        let kind = key::inspect(&info.spki, self.vault.rules.min_rsa_bits).map_err(|e| e.to_string())?;
        let described = format!("certificate of {}", dn::to_text(&info.subject));
        self.attempts(realm, &[(info.spki.clone(), kind, described)], method, data)
    }

    fn accept(&mut self, peer: Peer, how: Arc<str>) {
        let realm = Arc::clone(&peer.realm().name);
        self.table.checked(peer.sa, Some(&realm));
        // The network side says that the IKE SA is up, and how the peer proved itself.
        tracing::debug!(realm = %realm, peer = %peer.id, sa = peer.sa.0, how = %how, "peer accepted");
        self.replies.push_back((peer.token, Reply::PeerAccepted { realm, how }));
    }

    fn refuse(&mut self, peer: Peer, what: String) {
        self.table.checked(peer.sa, None);
        tracing::warn!(realm = %peer.realm().name, peer = %peer.id, sa = peer.sa.0, why = %what, "peer refused");
        self.replies.push_back((peer.token, Reply::Refused(Refusal::AuthenticationFailed(what))));
    }
}

/// A question about the network, to be answered by [`crate::permit`] and [`crate::kernel`].
pub(crate) enum NetRequest {
    OpenTun(TunSpec),
    AdoptTun(TunSpec, Option<OwnedFd>),
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

fn build(input: &AuthInput, prover: Prover) -> Result<(Vec<u8>, Binding), Refusal> {
    octets::build(input, prover).map_err(|e| {
        // Our own engine does not ask such things: either it has a fault or it is no longer our own.
        tracing::warn!(why = %e, "octets that are not IKE_SA_INIT were to be proved");
        Refusal::NotAllowed(e.to_string())
    })
}
