//! Handlers that suspend, resume and refuse, between two engines without a link in between.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipc::{Reply, Request};
use policy::{
    AuthPolicy, Childless, Dpd, DpdAction, Encap, IdMatch, Identity, IkeProposal, Lifetime, Realm,
    RemoteAddress, Start, VirtualIpRequest,
};
use spi::{CryptoDone, Device, QueueConfig};
use wire::ike::PayloadList;
use wire::numbers::NotifyType;

use super::*;
use crate::core::{Op, Slot};
use crate::{Command, CommandId, Config, Effect, Engine, Event};

/// Grants the initiator's proof this many seconds (RFC 4478).
struct Grants(u32);

impl Handler for Grants {
    fn build(&self, stage: Stage, _sa: &mut IkeSa, _cx: &mut Core, out: &mut Vec<Payload>) {
        if stage == Stage::AuthResponse {
            out.push(Notify::with_data(NotifyType::AUTH_LIFETIME, self.0.to_be_bytes().to_vec()).into());
        }
    }
}

/// Asks a device for random octets at every message of the set-up, and says no where it was told to.
struct Slow {
    refuse: Option<Stage>,
}

impl Handler for Slow {
    fn receive(&self, stage: Stage, sa: &mut IkeSa, cx: &mut Core, _message: &[Payload]) -> Flow {
        if matches!(stage, Stage::InformationalRequest | Stage::InformationalResponse) {
            return Flow::Continue;
        }
        match cx.submit(sa.id, Slot::Handler, Op::Random(16)) {
            Some(token) => Flow::Suspend(token),
            None => Flow::Continue,
        }
    }

    fn resume(
        &self,
        stage: Stage,
        _sa: &mut IkeSa,
        _cx: &mut Core,
        message: &[Payload],
        answer: (Outcome, CryptoOutput),
    ) -> Flow {
        assert!(matches!(answer, (Outcome::Done, CryptoOutput::Secret(ref s)) if s.len() == 16));
        assert!(message.sa().is_some() || message.auth().is_some(), "the message waited, too");
        if self.refuse == Some(stage) {
            let notify = Notify::new(NotifyType::AUTHENTICATION_FAILED);
            return Flow::Refuse(notify, Why::Normal("refused by a handler".into()));
        }
        Flow::Continue
    }
}

fn realm(node: u8) -> Arc<Realm> {
    let id = |n: u8| Identity::Fqdn(format!("node{n}.test"));
    Arc::new(Realm {
        name: "r".into(),
        local: vec![[10, 0, 0, node].into()],
        remote: vec![RemoteAddress::Host([10, 0, 0, 1 - node].into())],
        ike: vec![IkeProposal::parse("aes128gcm16-prfsha256-x25519").unwrap()],
        local_id: id(node),
        local_auth: AuthPolicy::Psk,
        aliases: vec![],
        remote_id: IdMatch::Exact(id(1 - node)).into(),
        remote_auth: AuthPolicy::Psk,
        eap: policy::EapPolicy::default(),
        methods: vec![],
        children: Vec::new(),
        start: Start::Manual,
        encap: Encap::Raw,
        fragmentation: false,
        fragment_size: 1280,
        childless: Childless::Prefer,
        ike_rekey: Lifetime::of(Duration::ZERO),
        ike_reauth: Lifetime::of(Duration::ZERO),
        dpd: Dpd { delay: Duration::ZERO, action: DpdAction::Clear },
        virtual_ip: VirtualIpRequest::default(),
        pool: None,
        unique: false,
        worker: None,
    })
}

/// Two engines whose node 1 has a slow handler between all the others; runs until nothing moves.
fn meet(refuse: Option<Stage>, slow_node: usize) -> ([Engine; 2], Vec<(usize, Event)>) {
    meet_with(|node| match node == slow_node {
        true => Some(Box::new(Slow { refuse })),
        false => None,
    })
}

fn meet_with(extra: impl Fn(usize) -> Option<Box<dyn Handler>>) -> ([Engine; 2], Vec<(usize, Event)>) {
    let device = soft::Soft::new(1).device();
    let short = device.short_ops().unwrap();
    let mut crypto = device.crypto_queue(QueueConfig { depth: 8, cpu: None }).unwrap();
    let now = Instant::now();
    let engine = |node: usize| {
        let config = Config { realms: vec![realm(node as u8)], ..Config::default() };
        let mut handlers: Vec<Box<dyn Handler>> =
            vec![Box::new(cookie::Cookie), Box::new(natd::NatDetection)];
        handlers.extend(extra(node));
        handlers.push(Box::new(childless::Childless));
        Engine::with_handlers(config, short.clone(), now, handlers.into())
    };
    let mut engines = [engine(0), engine(1)];
    let mut events = Vec::new();
    let mut work = VecDeque::new();
    let mut fx = Vec::new();
    engines[0].handle_command(now, CommandId(1), Command::Up { realm: "r".into(), child: None }, &mut fx);
    work.extend(fx.drain(..).map(|e| (0, e)));
    while let Some((node, effect)) = work.pop_front() {
        let mut target = node;
        match effect {
            Effect::Send { path, message } => {
                target = 1 - node;
                let path = Path { local: path.remote, remote: path.local };
                engines[target].handle_datagram(now, path, &message, false, &mut fx);
            }
            Effect::Crypto(job) => {
                crypto.submit(&mut VecDeque::from([job])).unwrap();
                let mut done = None;
                while done.is_none() {
                    crypto.poll(1, &mut |d: CryptoDone| done = Some(d));
                }
                engines[node].handle_crypto(now, done.unwrap(), &mut fx);
            }
            Effect::Ask { token, request } => {
                let reply = match request {
                    Request::MakeAuth { .. } => {
                        Reply::Proof { method: 2, data: vec![7; 32], certs: Vec::new() }
                    }
                    Request::CheckAuth { realms, .. } => {
                        Reply::PeerAccepted { realm: realms[0].clone(), how: "test".into() }
                    }
                    _ => continue,
                };
                engines[node].handle_reply(now, token, reply, &mut fx);
            }
            Effect::Event(event) => events.push((node, event)),
            _ => {}
        }
        work.extend(fx.drain(..).map(|e| (target, e)));
    }
    (engines, events)
}

fn established(engine: &Engine) -> usize {
    engine.status().sas.iter().filter(|sa| sa.state == "Established").count()
}

#[test]
fn a_suspended_exchange_goes_on_with_the_handlers_after_it() {
    for slow in 0..2 {
        let (engines, events) = meet(None, slow);
        assert_eq!((established(&engines[0]), established(&engines[1])), (1, 1), "{events:?}");
        assert!(engines.iter().all(|e| e.status().in_flight == 0));
    }
}

#[test]
fn a_handler_may_refuse_any_message_of_the_set_up() {
    for (stage, node) in
        [(Stage::InitRequest, 1), (Stage::InitResponse, 0), (Stage::AuthRequest, 1), (Stage::AuthResponse, 0)]
    {
        let (engines, events) = meet(Some(stage), node);
        let why =
            |e: &Event| matches!(e, Event::IkeClosed { why: Why::Normal(w), .. } if w.contains("handler"));
        assert!(events.iter().any(|(n, e)| *n == node && why(e)), "{stage:?}: {events:?}");
        assert_eq!(established(&engines[node]), 0, "{stage:?}");
        assert!(engines.iter().all(|e| e.status().in_flight == 0), "{stage:?}");
    }
}

#[test]
fn the_initiator_authenticates_anew_before_the_lifetime_it_was_granted_ends() {
    for (granted, after) in [(1000, 900), (1, 30), (u32::MAX, 3_865_470_565)] {
        let (engines, _) = meet_with(|node| match node {
            0 => Some(Box::new(lifetime::AuthLifetime)),
            _ => Some(Box::new(Grants(granted))),
        });
        let sa = &engines[0].status().sas[0];
        let wait = sa.reauth_at.unwrap() - sa.established.unwrap();
        assert_eq!(wait.as_secs(), after);
        assert!(engines[1].status().sas[0].reauth_at.is_none());
    }
}
