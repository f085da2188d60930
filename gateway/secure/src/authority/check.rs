//! A peer's proof, from the question to the verdict: its realm, what it is judged by, its signature, whether it was revoked.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::SystemTime;

use ipc::{AuthInput, CertData, IkeSaRef, PeerProof, Refusal, Reply};
use policy::{AuthPolicy, Claims, Identity, Realm, SignMethod, dn};
use spi::cert::{CertDone, CertError, CertInfo, CertJob};
use spi::{CryptoJob, CryptoOp, Outcome, SignScheme, Token};
use wire::numbers::{AuthMethod, CertEncoding};

use super::belief::{Belief, Disbelief, untaken};
use super::papers::Unchecked;
use super::{Authority, Chained, Stage, build};
use crate::candidates::{Candidates, proof_of};
use crate::cert::Cert;
use crate::devices::Place;
use crate::key::{self, KeyKind};
use crate::octets::Prover;
use crate::{identity, method};

/// A peer whose proof is being checked.
pub(super) struct Peer {
    token: Token,
    pub(super) sa: IkeSaRef,
    /// The realm, and others it may be.
    pub(super) realms: Box<Candidates>,
    pub(super) id: Identity,
    /// Its key is to be remembered when it has turned out to have it.
    pub(super) first_use: Option<Vec<u8>>,
}

impl Peer {
    pub(super) fn realm(&self) -> &Arc<Realm> {
        &self.realms.realm
    }

    /// Which realms it may be in, the best first. What its certificate says is not believed yet, but it says which realm would have
    /// to believe it.
    pub(super) fn sort_realms(&mut self, method: AuthMethod, certs: &[CertData]) -> Result<(), String> {
        let said = match certs.first() {
            Some(cert) if cert.encoding == CertEncoding::X509_SIGNATURE.0 => {
                Cert::parse(&cert.data).ok().map(|cert| cert.info())
            }
            _ => None,
        };
        self.realms.sort(&self.id, method, said.as_ref())
    }
}

/// A signature that a device looks at.
pub(super) struct Verifying {
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
pub(super) struct Proof {
    pub(super) octets: Vec<u8>,
    pub(super) method: AuthMethod,
    pub(super) data: Vec<u8>,
    pub(super) certs: Vec<CertData>,
    /// OCSP answers and lists that came with them.
    pub(super) responses: Vec<Vec<u8>>,
    pub(super) lists: Vec<Vec<u8>>,
    pub(super) at: SystemTime,
}

/// A proof that waits for the verdict on its certificates.
pub(super) struct Chain {
    peer: Peer,
    proof: Proof,
}

impl Authority {
    #[allow(clippy::too_many_arguments)] // The fields of one request.
    pub(super) fn check(
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
    pub(super) fn check_signature(&mut self, mut peer: Peer, proof: Proof) -> Result<(), (Peer, String)> {
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

    pub(super) fn on_verified(&mut self, verifying: Verifying, outcome: Outcome) {
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

    pub(super) fn on_verdict(&mut self, verdict: CertDone) {
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

    pub(super) fn accept(&mut self, peer: Peer, how: Arc<str>) {
        let realm = Arc::clone(&peer.realm().name);
        self.table.checked(peer.sa, Some(&realm));
        // The network side says that the IKE SA is up, and how the peer proved itself.
        tracing::debug!(realm = %realm, peer = %peer.id, sa = peer.sa.0, how = %how, "peer accepted");
        self.replies.push_back((peer.token, Reply::PeerAccepted { realm, how }));
    }

    pub(super) fn refuse(&mut self, peer: Peer, what: String) {
        self.table.checked(peer.sa, None);
        tracing::warn!(realm = %peer.realm().name, peer = %peer.id, sa = peer.sa.0, why = %what, "peer refused");
        self.replies.push_back((peer.token, Reply::Refused(Refusal::AuthenticationFailed(what))));
    }
}
