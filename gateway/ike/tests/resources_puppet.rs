//! Child SAs for single workers (RFC 9611) with a peer that says anything: what is odd but allowed, what is wrong, and what
//! happens meanwhile.
#![allow(clippy::unwrap_used)] // A message that is not as expected is a failed test.

mod puppet;

use std::sync::Arc;
use std::time::Duration;

use puppet::{Puppet, Rig, realm};
use spi::{Device, ShortOps};
use tussock_ike::protect::Opened;
use tussock_ike::{ChildId, Config, EspSignal, Event, select};
use wire::TrafficSelector;
use wire::ike::{Body, Delete, Nonce, Notify, Payload, PayloadList, TsPayload};
use wire::numbers::{ExchangeType, NotifyType, ProtocolId};

const CREATE_CHILD_SA: ExchangeType = ExchangeType::CREATE_CHILD_SA;
const INFORMATIONAL: ExchangeType = ExchangeType::INFORMATIONAL;
const LANES: u16 = 4;

/// The puppet's inbound SPIs.
const OURS: u32 = 0x7000_0100;
const ANSWERED: u32 = 0x7000_0200;

fn ops() -> Arc<dyn ShortOps> {
    soft::Soft::new(1).device().short_ops().unwrap()
}

fn info(data: &[u8]) -> Payload {
    Notify::with_data(NotifyType::SA_RESOURCE_INFO, data.to_vec()).into()
}

struct Pair {
    rig: Rig,
    puppet: Puppet,
    fallback: ChildId,
    /// Its lane.
    own: u16,
}

/// Established by the puppet, which can have several Child SAs with the same selectors, or says nothing of it.
fn up_saying(said: Option<Payload>, adjust: impl Fn(&mut Config)) -> Pair {
    let ops = ops();
    let mut config = Config { realms: vec![Arc::new(realm())], lanes: LANES, ..Config::default() };
    adjust(&mut config);
    let mut rig = Rig::with(ops.clone(), config);
    let mut puppet = Puppet::initiator(&ops, 1);
    puppet.init(&mut rig);
    let can = said.is_some();
    let payloads = puppet.auth_payloads().into_iter().chain(said).collect();
    let answer = puppet.exchange(&mut rig, ExchangeType::IKE_AUTH, payloads);
    assert!(answer.auth().is_some() && answer.ts_i().is_some(), "{answer:?}");
    let answered = answer.notify(NotifyType::SA_RESOURCE_INFO);
    assert_eq!(answered.map(|n| n.data.len()), can.then_some(0), "nobody is told what he did not ask");
    let (fallback, (spi, _)) = rig.children.iter().map(|(id, spis)| (*id, *spis)).next().unwrap();
    Pair { rig, puppet, fallback, own: (spi % u32::from(LANES)) as u16 }
}

fn up() -> Pair {
    up_saying(Some(info(b"")), |_| ())
}

impl Pair {
    fn want(&mut self, n: u16) {
        let resource = (self.own + n) % LANES;
        self.rig.esp(EspSignal::WantResource { child: self.fallback, resource });
    }

    /// Has the engine ask for one.
    fn asked(&mut self, n: u16) -> Option<Opened> {
        self.want(n);
        self.puppet.next_request(&mut self.rig)
    }

    fn refuse(&mut self, request: &Opened, kind: NotifyType) {
        self.puppet.respond(&mut self.rig, request, vec![Notify::new(kind).into()]);
    }

    fn answer(&mut self, request: &Opened) -> Vec<Payload> {
        let offer = request.payloads.sa().unwrap();
        let chosen = select::choose_esp(&realm().children[0].esp, offer, ANSWERED, true, None).unwrap();
        vec![
            chosen.answer.into(),
            Nonce(vec![7; 32]).into(),
            Body::TsI(request.payloads.ts_i().unwrap().clone()).into(),
            Body::TsR(request.payloads.ts_r().unwrap().clone()).into(),
        ]
    }

    /// The puppet asks for one itself.
    fn ask(&mut self, spi: u32, said: Option<Payload>) -> Vec<Payload> {
        let mut payloads = self.puppet.child_payloads(spi, false);
        payloads.push(Nonce(vec![9; 32]).into());
        payloads.extend(said);
        self.puppet.exchange(&mut self.rig, CREATE_CHILD_SA, payloads)
    }

    /// The same with other selectors.
    fn ask_other(&mut self, spi: u32, said: Option<Payload>) -> Vec<Payload> {
        let mut payloads = self.puppet.child_payloads(spi, false);
        payloads[2] = Body::TsR(TsPayload::new(["10.3.0.0/16".parse::<TrafficSelector>().unwrap()])).into();
        payloads.push(Nonce(vec![9; 32]).into());
        payloads.extend(said);
        self.puppet.exchange(&mut self.rig, CREATE_CHILD_SA, payloads)
    }

    fn resources(&self) -> Vec<Option<u16>> {
        self.rig.engine.status().sas[0].children.iter().map(|c| c.resource).collect()
    }

    /// Answers what is deleted; how many children the engine named.
    fn serve_deletes(&mut self) -> usize {
        let mut named = 0;
        while let Some(request) = self.puppet.next_request(&mut self.rig) {
            assert_eq!(request.header.exchange, INFORMATIONAL, "{:?}", request.payloads);
            named += request.payloads.deletes().flat_map(Delete::child_spis).count();
            self.puppet.respond(&mut self.rig, &request, vec![]);
        }
        named
    }
}

// ---- the engine asks ----

#[test]
fn a_request_says_which_worker_and_offers_what_the_fallback_has() {
    let mut pair = up();
    let request = pair.asked(1).unwrap();
    assert_eq!(request.header.exchange, CREATE_CHILD_SA);
    let lane = (pair.own + 1) % LANES;
    let notify = request.payloads.notify(NotifyType::SA_RESOURCE_INFO).unwrap();
    assert_eq!((&notify.data[..], notify.spi.len()), (&lane.to_be_bytes()[..], 0));
    let sa = request.payloads.sa().unwrap();
    assert!(sa.proposals.iter().all(|p| p.child_spi().unwrap() % u32::from(LANES) == u32::from(lane)));
    let ts = |text: &str| TsPayload::new([text.parse::<TrafficSelector>().unwrap()]);
    assert_eq!(request.payloads.ts_i(), Some(&ts("10.1.0.0/16")));
    assert_eq!(request.payloads.ts_r(), Some(&ts("10.2.0.0/16")));
    let answer = pair.answer(&request);
    pair.puppet.respond(&mut pair.rig, &request, answer);
    assert_eq!(pair.resources(), [None, Some(lane)], "an answer need not say it again");
    assert!(pair.puppet.is_alive(&mut pair.rig));
}

#[test]
fn odd_notifications_say_the_same() {
    let odd = |spi: &[u8], protocol, data: &[u8]| {
        let mut notify = Notify::with_data(NotifyType::SA_RESOURCE_INFO, data.to_vec());
        (notify.spi, notify.protocol) = (spi.to_vec(), protocol);
        Payload::from(notify)
    };
    for said in [
        odd(b"", ProtocolId(0), &[0xff; 2000]),
        odd(b"\x70\x00\x00\x01", ProtocolId::ESP, b"cpu 7"),
        odd(b"12345678", ProtocolId(77), b"\0"),
    ] {
        let mut pair = up_saying(Some(said.clone()), |_| ());
        assert!(pair.ask(OURS, Some(said)).sa().is_some());
        assert_eq!(pair.resources().iter().flatten().count(), 1);
        let request = pair.asked(3).unwrap();
        assert_eq!(request.payloads.notify(NotifyType::SA_RESOURCE_INFO).unwrap().data.len(), 2);
        assert!(pair.rig.log_octets() < 20_000, "what a peer says is not repeated at length");
    }
}

#[test]
fn whoever_says_nothing_is_not_asked_and_gets_no_worker_of_his_own() {
    let mut pair = up_saying(None, |_| ());
    assert!(pair.asked(1).is_none());
    let answer = pair.ask(OURS, None);
    assert!(answer.sa().is_some() && answer.notify(NotifyType::SA_RESOURCE_INFO).is_none());
    assert_eq!(pair.resources(), [None, None]);
}

#[test]
fn after_ts_max_queue_nothing_is_asked_beside_this_child() {
    let mut pair = up();
    let request = pair.asked(1).unwrap();
    pair.refuse(&request, NotifyType::TS_MAX_QUEUE);
    for _ in 0..10 {
        pair.rig.wait(Duration::from_secs(3600));
        (0..LANES).for_each(|n| pair.want(n));
        assert!(pair.puppet.next_request(&mut pair.rig).is_none());
    }
    // It is no word about what the peer may ask for.
    assert!(pair.ask(OURS, Some(info(b"1"))).sa().is_some());
}

#[test]
fn after_no_additional_sas_nothing_is_asked_on_this_ike_sa() {
    let mut pair = up();
    let request = pair.asked(1).unwrap();
    pair.refuse(&request, NotifyType::NO_ADDITIONAL_SAS);
    // A fallback that comes later is no different.
    let deleted = vec![Delete::children(ProtocolId::ESP, &[0x7000_0001]).into()];
    pair.puppet.exchange(&mut pair.rig, INFORMATIONAL, deleted);
    assert!(pair.ask(OURS, Some(info(b""))).sa().is_some());
    pair.fallback = *pair.rig.children.keys().next().unwrap();
    for _ in 0..10 {
        pair.rig.wait(Duration::from_secs(3600));
        (0..LANES).for_each(|n| pair.want(n));
        assert!(pair.puppet.next_request(&mut pair.rig).is_none());
    }
}

#[test]
fn other_refusals_are_good_for_a_while() {
    for kind in [NotifyType::TEMPORARY_FAILURE, NotifyType::NO_PROPOSAL_CHOSEN, NotifyType(9000)] {
        let mut pair = up();
        for round in 1..4 {
            let request = pair.asked(1).unwrap();
            pair.refuse(&request, kind);
            for _ in 0..29 {
                assert!(pair.asked(2).is_none(), "{kind} in round {round}");
                pair.rig.wait(Duration::from_secs(1));
            }
            pair.rig.wait(Duration::from_secs(1));
        }
        let refused = pair.rig.events.iter().filter(|e| matches!(e, Event::ResourceRefused { .. })).count();
        assert_eq!(refused, 3);
        assert_eq!(pair.resources(), [None]);
    }
}

#[test]
fn an_answer_with_other_selectors_is_deleted() {
    let mut pair = up();
    let request = pair.asked(1).unwrap();
    let mut answer = pair.answer(&request);
    let narrower = TsPayload::new(["10.1.7.0/24".parse::<TrafficSelector>().unwrap()]);
    answer[2] = Body::TsI(narrower).into();
    pair.puppet.respond(&mut pair.rig, &request, answer);
    assert_eq!(pair.serve_deletes(), 1);
    assert_eq!(pair.resources(), [None]);
    assert!(pair.asked(2).is_none(), "not at once");
    assert!(pair.puppet.is_alive(&mut pair.rig));
}

#[test]
fn an_answer_that_means_another_algorithm_is_deleted() {
    let mut pair = up();
    let request = pair.asked(1).unwrap();
    let mut answer = pair.answer(&request);
    let mut other = answer.sa().unwrap().clone();
    other.proposals[0].transforms[0].id = spi::Encr::CHACHA20_POLY1305.id;
    answer[0] = other.into();
    pair.puppet.respond(&mut pair.rig, &request, answer);
    pair.serve_deletes();
    assert_eq!(pair.resources(), [None]);
    assert!(pair.puppet.is_alive(&mut pair.rig));
}

#[test]
fn when_the_fallback_goes_while_one_is_asked_for_that_goes_too() {
    let mut pair = up();
    let request = pair.asked(1).unwrap();
    let deleted = vec![Delete::children(ProtocolId::ESP, &[0x7000_0001]).into()];
    pair.puppet.exchange(&mut pair.rig, INFORMATIONAL, deleted);
    let answer = pair.answer(&request);
    pair.puppet.respond(&mut pair.rig, &request, answer);
    assert_eq!(pair.serve_deletes(), 1);
    assert!(pair.rig.children.is_empty() && pair.resources().is_empty());
    assert!(pair.puppet.is_alive(&mut pair.rig));
}

#[test]
fn a_wish_that_waits_for_another_exchange_is_forgotten_with_its_fallback() {
    let mut pair = up();
    let first = pair.asked(1).unwrap();
    pair.want(2);
    pair.want(3);
    let deleted = vec![Delete::children(ProtocolId::ESP, &[0x7000_0001]).into()];
    pair.puppet.exchange(&mut pair.rig, INFORMATIONAL, deleted);
    pair.refuse(&first, NotifyType::TEMPORARY_FAILURE);
    assert!(pair.puppet.next_request(&mut pair.rig).is_none());
    assert!(pair.puppet.is_alive(&mut pair.rig));
}

// ---- the puppet asks ----

#[test]
fn a_peer_gets_as_many_as_are_allowed_and_then_ts_max_queue() {
    let mut pair = up_saying(Some(info(b"")), |config| config.resources_accepted = 5);
    for n in 0..5 {
        let answer = pair.ask(OURS + n, Some(info(&n.to_be_bytes())));
        assert!(answer.sa().is_some() && answer.notify(NotifyType::SA_RESOURCE_INFO).is_some());
    }
    for n in 5..40 {
        let answer = pair.ask(OURS + n, Some(info(&n.to_be_bytes())));
        assert_eq!(answer.len(), 1, "{answer:?}");
        assert!(answer.notify(NotifyType::TS_MAX_QUEUE).is_some());
    }
    assert_eq!(pair.rig.children.len(), 6);
    // They are spread, the fallback's own worker last.
    let mut counts = [0; LANES as usize];
    pair.rig.children.values().for_each(|(spi, _)| counts[(spi % u32::from(LANES)) as usize] += 1);
    counts.sort_unstable();
    assert_eq!(counts, [1, 1, 2, 2]);
    // Room that is given back can be used again.
    let deleted = vec![Delete::children(ProtocolId::ESP, &[OURS]).into()];
    pair.puppet.exchange(&mut pair.rig, INFORMATIONAL, deleted);
    assert!(pair.ask(OURS + 40, Some(info(b""))).sa().is_some());
}

#[test]
fn a_full_ike_sa_refuses_each_in_its_own_words() {
    let mut pair = up_saying(Some(info(b"")), |config| config.children_limit = 2);
    assert!(pair.ask(OURS, Some(info(b""))).sa().is_some());
    let answer = pair.ask(OURS + 1, Some(info(b"")));
    assert!(answer.notify(NotifyType::TS_MAX_QUEUE).is_some(), "{answer:?}");
    for said in [None, Some(info(b""))] {
        let answer = pair.ask_other(OURS + 2, said);
        assert!(answer.notify(NotifyType::NO_ADDITIONAL_SAS).is_some(), "{answer:?}");
    }
}

#[test]
fn without_a_fallback_there_is_one_first() {
    let mut pair = up();
    let deleted = vec![Delete::children(ProtocolId::ESP, &[0x7000_0001]).into()];
    pair.puppet.exchange(&mut pair.rig, INFORMATIONAL, deleted);
    assert!(pair.ask(OURS, Some(info(b"7"))).sa().is_some());
    assert_eq!(pair.resources(), [None], "whatever the peer calls it");
    assert!(pair.ask(OURS + 1, Some(info(b"7"))).sa().is_some());
    assert_eq!(pair.resources().iter().flatten().count(), 1);
}

#[test]
fn a_peer_that_may_have_none_gets_a_child_like_any_other() {
    let mut pair = up_saying(Some(info(b"")), |config| config.resources_accepted = 1);
    assert!(pair.ask(OURS, Some(info(b""))).sa().is_some());
    // A child with other selectors is not what there is enough of.
    let answer = pair.ask_other(OURS + 1, Some(info(b"")));
    assert!(answer.sa().is_some(), "{answer:?}");
    assert_eq!(pair.resources().iter().flatten().count(), 1);
}

#[test]
fn a_rekey_keeps_its_worker_whatever_it_says() {
    for said in [None, Some(info(b"3")), Some(info(&[0; 900]))] {
        let mut pair = up();
        assert!(pair.ask(OURS, Some(info(b"1"))).sa().is_some());
        let before = pair.resources();
        for (n, old) in [(1, OURS), (2, 0x7000_0001)] {
            let mut payloads = pair.puppet.child_payloads(OURS + n, false);
            payloads.insert(0, Notify::rekey_sa(ProtocolId::ESP, old).into());
            payloads.push(Nonce(vec![9; 32]).into());
            payloads.extend(said.clone());
            let answer = pair.puppet.exchange(&mut pair.rig, CREATE_CHILD_SA, payloads);
            assert!(answer.sa().is_some(), "{answer:?}");
            let deleted = vec![Delete::children(ProtocolId::ESP, &[old]).into()];
            pair.puppet.exchange(&mut pair.rig, INFORMATIONAL, deleted);
        }
        let mut after = pair.resources();
        after.sort_unstable();
        assert_eq!(after, before, "{said:?}");
    }
}

#[test]
fn while_the_device_works_the_fallback_may_go() {
    let mut pair = up();
    let mut payloads = pair.puppet.child_payloads(OURS, true);
    let esp = select::offer_esp(&[policy::EspProposal::parse("aes128gcm16-x25519").unwrap()], OURS, true);
    payloads[0] = esp.into();
    payloads.push(Nonce(vec![9; 32]).into());
    payloads.push(wire::ike::Ke::new(wire::numbers::KeId(31), vec![5; 32]).into());
    payloads.push(info(b""));
    let request = pair.puppet.request(CREATE_CHILD_SA, &payloads);
    pair.rig.hold = true;
    pair.rig.datagram(&request);
    pair.rig.esp(EspSignal::HardLimit(pair.fallback));
    pair.rig.let_go();
    let id = pair.puppet.next_id - 1;
    let answer = pair.puppet.response(&mut pair.rig, id).unwrap().payloads;
    assert!(answer.notify(NotifyType::TEMPORARY_FAILURE).is_some(), "{answer:?}");
    assert!(pair.resources().iter().all(Option::is_none));
    assert!(pair.puppet.is_alive(&mut pair.rig));
}
