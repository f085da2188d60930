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
mod check;
mod first_use;
mod in_tls;
mod own;
mod papers;

use std::collections::{HashMap, VecDeque};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use ipc::{
    AuthInput, Binding, DnsChange, IkeSaRef, NeighbourChange, Offered, Refusal, Reply, Request, RouteChange,
    Table, TunSpec,
};
use policy::{AuthPolicy, Identity, Realm};
use radius::Whose;
use spi::cert::{CertDone, CertJob, CertQueue};
use spi::{CryptoDone, CryptoJob, CryptoOp, Doorbell, InFlight, Token};
use wire::numbers::AuthMethod;

use crate::config::Config;
use crate::devices::{Devices, Place};
use crate::eap::Host;
use crate::eap_judge::Asked;
use crate::octets::{self, Prover};
use crate::psk::{self, no_psk};
use crate::radius::Radius;
use crate::revocation::Checks;
use crate::validator::Validator;
use crate::vault::{Problem, Vault};
use check::{Chain, Verifying};
use own::Signing;
#[cfg(feature = "fuzzing")]
pub(crate) use papers::bundle;
use papers::{Parked, Waiting};

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
    radius: Option<Radius>,
    /// Where it writes down what it knows of sessions, and whose those are that are there when it is started.
    journal: Option<(PathBuf, Whose)>,
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

/// Whose certificates are being looked at.
enum Chained {
    InIke(Box<Chain>),
    /// Of somebody in EAP.
    InTls(Asked),
}

impl Authority {
    pub(crate) fn new(
        vault: Vault,
        devices: Devices,
        certs: Box<CertQueue>,
        checks: Checks,
        table: Table,
        bell: Doorbell,
        journal: Option<(PathBuf, Whose)>,
    ) -> Self {
        Authority {
            eap: Host::new(bell),
            radius: None,
            journal,
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
    pub(crate) fn reload(&mut self, mut config: Config, at: SystemTime) -> Vec<Problem> {
        let radius = config.radius.take();
        let (vault, mut problems) = Vault::open(config, &self.devices, at);
        if vault.rules.min_rsa_bits != self.vault.rules.min_rsa_bits {
            self.renew_validator(vault.rules.min_rsa_bits);
        }
        std::mem::replace(&mut self.vault, vault).close(&self.devices);
        problems.extend(self.reload_radius(radius));
        self.checks.refresh();
        problems
    }

    /// Other RADIUS servers, or none. What is wrong with them.
    pub(crate) fn reload_radius(&mut self, told: Option<crate::config::Radius>) -> Option<Problem> {
        let result = match (&mut self.radius, told) {
            (Some(radius), told) => radius.reload(told),
            (None, Some(told)) => {
                let started = Radius::start(told, self.eap.bell().clone(), self.journal.clone());
                started.map(|radius| {
                    self.radius = Some(radius);
                    // Whatever is there from now on is of a gateway that is there.
                    self.journal.iter_mut().for_each(|(_, whose)| *whose = Whose::Ours);
                })
            }
            (None, None) => Ok(()),
        };
        self.vault.radius = self.radius.as_ref().map(|radius| Arc::clone(radius.opens()));
        result.err().map(Problem::of_radius)
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
