//! Exchanges of both sides that meet (RFC 7296 sections 2.8 and 2.25), in every order the network can make of them. However
//! it goes, in the end there is one IKE SA and one child, both sides mean the same ones, and nothing else is left.
#![allow(clippy::unwrap_used)] // A message that is not as expected is a failed test.

mod puppet;

use std::sync::Arc;
use std::time::Duration;

use ipc::Role;
use puppet::{Puppet, Rig, realm};
use spi::{Device, ShortOps};
use tussock_ike::protect::Opened;
use tussock_ike::{Command, Event, select};
use wire::ike::{Body, Delete, Ke, Nonce, Notify, Payload, PayloadList, Spi};
use wire::numbers::{ExchangeType, KeId, NotifyType, ProtocolId};

const CREATE_CHILD_SA: ExchangeType = ExchangeType::CREATE_CHILD_SA;
const INFORMATIONAL: ExchangeType = ExchangeType::INFORMATIONAL;

/// Inbound SPIs of the puppet's children.
const FIRST: u32 = 0x7000_0001;
const OURS: u32 = 0x7000_0100;
const ANSWERED: u32 = 0x7000_0200;

const LOW: [u8; 32] = [0; 32];
const HIGH: [u8; 32] = [0xff; 32];

fn ops() -> Arc<dyn ShortOps> {
    soft::Soft::new(1).device().short_ops().unwrap()
}

/// The engine's next request, as soon as it comes.
fn wait_for(rig: &mut Rig, puppet: &mut Puppet, seconds: u32) -> Opened {
    for _ in 0..seconds {
        rig.wait(Duration::from_secs(1));
        if let Some(request) = puppet.next_request(rig) {
            return request;
        }
    }
    panic!("no request in {seconds} s");
}

/// An established pair, and what the puppet knows of its children: the engine's inbound SPI and its own.
struct Pair {
    rig: Rig,
    puppet: Puppet,
    children: Vec<(u32, u32)>,
}

fn up() -> Pair {
    let ops = ops();
    let mut rig = Rig::new(ops.clone(), realm());
    let puppet = Puppet::establish(&ops, &mut rig);
    let theirs = rig.children.values().next().unwrap().0;
    Pair { rig, puppet, children: vec![(theirs, FIRST)] }
}

impl Pair {
    fn rekey_child(&mut self) -> Opened {
        self.rig.command(Command::Rekey { realm: "puppet".into(), child: Some("net".into()) });
        let request = self.puppet.next_request(&mut self.rig).expect("a CREATE_CHILD_SA request");
        assert_eq!(
            request.payloads.notify(NotifyType::REKEY_SA).and_then(Notify::child_spi).map(|(_, s)| s),
            Some(self.children[0].0)
        );
        request
    }

    fn rekey_ike(&mut self) -> Opened {
        self.rig.command(Command::Rekey { realm: "puppet".into(), child: None });
        self.puppet.next_request(&mut self.rig).expect("a CREATE_CHILD_SA request")
    }

    /// The puppet's own rekey of the child.
    fn own_rekey(&self, nonce: [u8; 32]) -> Vec<Payload> {
        let mut payloads = self.puppet.child_payloads(OURS, false);
        payloads.push(Nonce(nonce.to_vec()).into());
        payloads.insert(0, Notify::rekey_sa(ProtocolId::ESP, FIRST).into());
        payloads
    }

    /// Sends the puppet's own rekey and says what came back.
    fn send_own_rekey(&mut self, nonce: [u8; 32]) -> Vec<Payload> {
        let payloads = self.own_rekey(nonce);
        let answer = self.puppet.exchange(&mut self.rig, CREATE_CHILD_SA, payloads);
        if let Some(sa) = answer.sa() {
            self.children.push((sa.proposals[0].child_spi().unwrap(), OURS));
        }
        answer
    }

    /// Grants the engine's rekey of the child.
    fn grant_child(&mut self, request: &Opened, nonce: [u8; 32]) {
        let offer = request.payloads.sa().unwrap();
        let ours = &realm().children[0].esp;
        let chosen = select::choose_esp(ours, offer, ANSWERED, true, None).unwrap();
        self.children.push((chosen.spi, ANSWERED));
        let answer = vec![
            chosen.answer.into(),
            Nonce(nonce.to_vec()).into(),
            Body::TsI(request.payloads.ts_i().unwrap().clone()).into(),
            Body::TsR(request.payloads.ts_r().unwrap().clone()).into(),
        ];
        self.puppet.respond(&mut self.rig, request, answer);
    }

    fn refuse(&mut self, request: &Opened, kind: NotifyType) {
        self.puppet.respond(&mut self.rig, request, vec![Notify::new(kind).into()]);
    }

    /// The puppet deletes one of its children.
    fn delete_child(&mut self, spi: u32) -> Vec<Payload> {
        let delete = vec![Delete::children(ProtocolId::ESP, &[spi]).into()];
        let answer = self.puppet.exchange(&mut self.rig, INFORMATIONAL, delete);
        self.children.retain(|(_, own)| *own != spi);
        answer
    }

    /// Answers everything the engine still asks: Deletes with the other half of the pair, the rest with nothing.
    fn serve(&mut self) {
        while let Some(request) = self.puppet.next_request(&mut self.rig) {
            assert_eq!(request.header.exchange, INFORMATIONAL, "{:?}", request.payloads);
            let named: Vec<u32> = request.payloads.deletes().flat_map(Delete::child_spis).collect();
            let halves: Vec<u32> = self
                .children
                .iter()
                .filter(|(theirs, _)| named.contains(theirs))
                .map(|(_, own)| *own)
                .collect();
            self.children.retain(|(theirs, _)| !named.contains(theirs));
            let answer = match halves.is_empty() {
                true => vec![],
                false => vec![Delete::children(ProtocolId::ESP, &halves).into()],
            };
            self.puppet.respond(&mut self.rig, &request, answer);
        }
    }

    /// In the end there is one child, the same for both, installed and in use.
    fn settled(mut self, expected: u32) {
        self.serve();
        self.rig.wait(Duration::from_secs(60));
        self.serve();
        let status = self.rig.engine.status();
        let mut sas = status.sas.iter().filter(|sa| sa.state != "Closed");
        let sa = sas.next().expect("an IKE SA");
        assert!(sas.next().is_none(), "more than one IKE SA");
        let children: Vec<(u32, &str)> = sa.children.iter().map(|c| (c.spi_out, c.state)).collect();
        assert_eq!(children, [(expected, "Installed")]);
        assert_eq!(self.rig.children.len(), 1, "something else is left in the data path");
        assert_eq!(
            self.children.iter().map(|(_, own)| *own).collect::<Vec<_>>(),
            [expected],
            "the puppet means another"
        );
        assert!(self.puppet.is_alive(&mut self.rig));
        assert!(self.rig.sent.is_empty());
    }
}

// ---- one side alone ----

#[test]
fn engine_rekeys_a_child_and_deletes_the_old_one() {
    let mut pair = up();
    let request = pair.rekey_child();
    pair.grant_child(&request, HIGH);
    pair.settled(ANSWERED);
}

#[test]
fn puppet_rekeys_a_child_and_deletes_the_old_one() {
    let mut pair = up();
    assert!(pair.send_own_rekey(HIGH).sa().is_some());
    let answer = pair.delete_child(FIRST);
    assert_eq!(answer.deletes().count(), 1);
    pair.settled(OURS);
}

// ---- both rekey the child ----

#[test]
fn lowest_nonce_in_our_exchange_makes_ours_redundant() {
    // Both requests cross; the puppet's nonce in the engine's exchange is the lowest.
    let mut pair = up();
    let request = pair.rekey_child();
    assert!(pair.send_own_rekey(HIGH).sa().is_some());
    pair.grant_child(&request, LOW);
    // The engine deletes its own; the puppet, whose pair stands, deletes the old one.
    pair.serve();
    assert_eq!(pair.children.iter().map(|(_, own)| *own).collect::<Vec<_>>(), [FIRST, OURS]);
    pair.delete_child(FIRST);
    pair.settled(OURS);
}

#[test]
fn lowest_nonce_in_the_peers_exchange_makes_the_peers_redundant() {
    let mut pair = up();
    let request = pair.rekey_child();
    assert!(pair.send_own_rekey(LOW).sa().is_some());
    pair.grant_child(&request, HIGH);
    // The engine's pair stands: it deletes the old one. The puppet deletes its own.
    pair.serve();
    assert_eq!(pair.children.iter().map(|(_, own)| *own).collect::<Vec<_>>(), [OURS, ANSWERED]);
    pair.delete_child(OURS);
    pair.settled(ANSWERED);
}

#[test]
fn redundant_child_the_peer_forgets_to_delete_is_deleted_for_it() {
    let mut pair = up();
    let request = pair.rekey_child();
    assert!(pair.send_own_rekey(LOW).sa().is_some());
    pair.grant_child(&request, HIGH);
    pair.serve();
    // Not before a peer that retransmits as we do would have given up.
    let mut puppet = std::mem::replace(&mut pair.puppet, Puppet::initiator(&ops(), 99));
    let request = wait_for(&mut pair.rig, &mut puppet, 300);
    assert_eq!(request.payloads.deletes().flat_map(Delete::child_spis).count(), 1);
    pair.children.retain(|(_, own)| *own != OURS);
    puppet.respond(&mut pair.rig, &request, vec![Delete::children(ProtocolId::ESP, &[OURS]).into()]);
    pair.puppet = puppet;
    pair.settled(ANSWERED);
}

#[test]
fn deletes_of_a_collision_may_come_in_any_order() {
    let mut pair = up();
    let request = pair.rekey_child();
    assert!(pair.send_own_rekey(HIGH).sa().is_some());
    pair.grant_child(&request, LOW);
    // The puppet's Delete of the old one comes before it has seen the engine's of the redundant one.
    pair.delete_child(FIRST);
    pair.settled(OURS);
}

#[test]
fn peers_request_that_was_lost_comes_after_ours_is_through() {
    let mut pair = up();
    let request = pair.rekey_child();
    let late = pair.own_rekey(LOW);
    pair.grant_child(&request, HIGH);
    // The old child is being deleted: the engine says so, and the puppet, which knows of both exchanges, lets go of its own.
    let answer = pair.puppet.exchange(&mut pair.rig, CREATE_CHILD_SA, late);
    let kind = answer.error_notify().unwrap().kind;
    assert!(kind == NotifyType::TEMPORARY_FAILURE || kind == NotifyType::CHILD_SA_NOT_FOUND, "{kind}");
    pair.settled(ANSWERED);
}

#[test]
fn peers_request_after_the_delete_finds_nothing() {
    let mut pair = up();
    let request = pair.rekey_child();
    let late = pair.own_rekey(LOW);
    pair.grant_child(&request, HIGH);
    pair.serve();
    let answer = pair.puppet.exchange(&mut pair.rig, CREATE_CHILD_SA, late);
    assert_eq!(answer.error_notify().unwrap().kind, NotifyType::CHILD_SA_NOT_FOUND);
    pair.settled(ANSWERED);
}

#[test]
fn our_request_that_was_lost_is_refused_after_the_peers_is_through() {
    for kind in [NotifyType::TEMPORARY_FAILURE, NotifyType::CHILD_SA_NOT_FOUND] {
        let mut pair = up();
        let request = pair.rekey_child();
        assert!(pair.send_own_rekey(HIGH).sa().is_some());
        pair.delete_child(FIRST);
        pair.refuse(&request, kind);
        pair.settled(OURS);
    }
    // Or before its Delete of the old one arrives.
    for kind in [NotifyType::TEMPORARY_FAILURE, NotifyType::CHILD_SA_NOT_FOUND] {
        let mut pair = up();
        let request = pair.rekey_child();
        assert!(pair.send_own_rekey(HIGH).sa().is_some());
        pair.refuse(&request, kind);
        pair.delete_child(FIRST);
        pair.settled(OURS);
    }
}

#[test]
fn our_answer_is_in_while_a_device_still_works_for_the_peers_request() {
    // With PFS, so that the device has something to do.
    let mut pair = up();
    let request = pair.rekey_child();
    let mut own = pair.own_rekey(LOW);
    let only = policy::EspProposal::parse("aes128gcm16-x25519").unwrap();
    own[1] = select::offer_esp(&[only], OURS, true).into();
    own.push(Ke::new(KeId(spi::Group::X25519.0), puppet::public_value(spi::Group::X25519, 9)).into());
    pair.rig.hold = true;
    let message = pair.puppet.request(CREATE_CHILD_SA, &own);
    pair.rig.datagram(&message);
    pair.grant_child(&request, HIGH);
    pair.rig.let_go();
    let answer = pair.puppet.response(&mut pair.rig, pair.puppet.next_id - 1).unwrap();
    if let Some(sa) = answer.payloads.sa() {
        // Carried out as a collision: the puppet's has the lowest nonce, and is the puppet's to delete.
        pair.children.push((sa.proposals[0].child_spi().unwrap(), OURS));
        pair.delete_child(OURS);
    }
    pair.settled(ANSWERED);
}

#[test]
fn rekey_refused_for_the_moment_is_tried_again() {
    let mut pair = up();
    let request = pair.rekey_child();
    pair.refuse(&request, NotifyType::TEMPORARY_FAILURE);
    assert!(pair.rig.sent.is_empty(), "not at once");
    let request = wait_for(&mut pair.rig, &mut pair.puppet, 30);
    pair.grant_child(&request, HIGH);
    pair.settled(ANSWERED);
}

// ---- rekey and delete of a child meet ----

#[test]
fn peer_deletes_the_child_we_are_rekeying() {
    let mut pair = up();
    let request = pair.rekey_child();
    let answer = pair.delete_child(FIRST);
    assert_eq!(answer.deletes().count(), 1, "it is gone on both sides");
    pair.refuse(&request, NotifyType::CHILD_SA_NOT_FOUND);
    pair.rig.wait(Duration::from_secs(10));
    assert!(pair.rig.children.is_empty());
    assert!(pair.puppet.is_alive(&mut pair.rig));
}

#[test]
fn peer_rekeys_the_child_we_are_deleting() {
    let mut pair = up();
    pair.rig.command(Command::Down { realm: "puppet".into(), child: Some("net".into()) });
    let request = pair.puppet.next_request(&mut pair.rig).expect("a Delete");
    let answer = pair.send_own_rekey(HIGH);
    assert_eq!(answer.error_notify().map(|n| n.kind), Some(NotifyType::TEMPORARY_FAILURE));
    pair.puppet.respond(&mut pair.rig, &request, vec![Delete::children(ProtocolId::ESP, &[FIRST]).into()]);
    pair.rig.wait(Duration::from_secs(10));
    assert!(pair.rig.children.is_empty() && pair.puppet.is_alive(&mut pair.rig));
}

#[test]
fn both_delete_the_same_child() {
    let mut pair = up();
    pair.rig.command(Command::Down { realm: "puppet".into(), child: Some("net".into()) });
    let request = pair.puppet.next_request(&mut pair.rig).expect("a Delete");
    let answer = pair.delete_child(FIRST);
    // RFC 7296 section 1.4.1: what one's own Delete says already is not said again.
    assert_eq!(answer.deletes().count(), 0);
    pair.puppet.respond(&mut pair.rig, &request, vec![]);
    pair.rig.wait(Duration::from_secs(10));
    assert!(pair.rig.children.is_empty() && pair.puppet.is_alive(&mut pair.rig));
}

// ---- both rekey the IKE SA ----

impl Pair {
    /// The puppet's own rekey of the IKE SA: what comes back, and the other end of the new SA.
    fn send_own_ike_rekey(&mut self, nonce: [u8; 32]) -> Result<Puppet, NotifyType> {
        let spi = Spi(0xaaaa_0001);
        let payloads = self.puppet.rekey_payloads(spi, &nonce);
        let answer = self.puppet.exchange(&mut self.rig, CREATE_CHILD_SA, payloads);
        self.own_ike_successor(spi, nonce, &answer)
    }

    fn own_ike_successor(&self, spi: Spi, nonce: [u8; 32], answer: &[Payload]) -> Result<Puppet, NotifyType> {
        let Some(sa) = answer.sa() else { return Err(answer.error_notify().unwrap().kind) };
        let theirs = sa.proposals[0].ike_spi().unwrap();
        let nr = answer.nonce().unwrap().0.clone();
        let secret = self.puppet.rekey_secret(answer);
        Ok(self.puppet.successor(Role::Initiator, spi, theirs, nonce.to_vec(), nr, &secret))
    }

    /// Grants the engine's rekey of the IKE SA: the other end of the new SA.
    fn grant_ike(&mut self, request: &Opened, nonce: [u8; 32]) -> Puppet {
        let spi = Spi(0xbbbb_0002);
        let offer = request.payloads.sa().unwrap();
        let chosen = select::choose_ike(&realm().ike, offer, Some(spi), None).unwrap();
        let mut answer = self.puppet.rekey_payloads(spi, &nonce);
        answer[0] = chosen.answer.into();
        self.puppet.respond(&mut self.rig, request, answer);
        let secret = self.puppet.rekey_secret(&request.payloads);
        let ni = request.payloads.nonce().unwrap().0.clone();
        self.puppet.successor(Role::Responder, chosen.spi, spi, ni, nonce.to_vec(), &secret)
    }

    /// The engine deletes an SA: the puppet's end of it answers.
    fn expect_ike_delete(&mut self, mut of: Puppet, what: &str) {
        // Of the old one it comes a little later, so that the peer's own exchange can end on it.
        let request = wait_for(&mut self.rig, &mut of, 5);
        assert!(request.payloads.deletes().any(Delete::is_ike), "{what}: {:?}", request.payloads);
        of.respond(&mut self.rig, &request, vec![]);
    }

    fn send_ike_delete(&mut self, mut of: Puppet, what: &str) {
        let answer = of.exchange(&mut self.rig, INFORMATIONAL, vec![Delete::ike().into()]);
        assert!(answer.error_notify().is_none(), "{what}");
    }

    /// In the end there is one IKE SA, with the child, and this is its other end.
    fn ike_settled(mut self, mut last: Puppet) {
        self.rig.wait(Duration::from_secs(100));
        assert!(last.is_alive(&mut self.rig), "the SA both mean is dead");
        let status = self.rig.engine.status();
        let sas: Vec<(u64, u64, &str)> = status
            .sas
            .iter()
            .filter(|sa| sa.state != "Closed")
            .map(|sa| (sa.spi_i, sa.spi_r, sa.state))
            .collect();
        assert_eq!(sas, [(last.spi_i.0, last.spi_r.0, "Established")]);
        assert_eq!(status.sas[0].children.len(), 1, "the child went along");
        assert_eq!(self.rig.children.len(), 1);
        let closed = self.rig.events.iter().any(|e| matches!(e, Event::ChildClosed { .. }));
        assert!(!closed, "the child was never interrupted");
        assert!(self.rig.sent.is_empty(), "{:?}", self.rig.sent.len());
        // And it can make another child.
        let mut payloads = last.child_payloads(0x7000_0999, false);
        payloads.push(Nonce(vec![1; 32]).into());
        assert!(last.exchange(&mut self.rig, CREATE_CHILD_SA, payloads).sa().is_some());
    }

    fn take_old(&mut self) -> Puppet {
        let ops = self.puppet.ops.clone();
        std::mem::replace(&mut self.puppet, Puppet::initiator(&ops, 99))
    }
}

#[test]
fn engine_rekeys_the_ike_sa_and_deletes_the_old_one() {
    let mut pair = up();
    let request = pair.rekey_ike();
    let new = pair.grant_ike(&request, HIGH);
    let old = pair.take_old();
    pair.expect_ike_delete(old, "old");
    pair.ike_settled(new);
}

#[test]
fn puppet_rekeys_the_ike_sa_and_deletes_the_old_one() {
    let mut pair = up();
    let new = pair.send_own_ike_rekey(HIGH).unwrap();
    let old = pair.take_old();
    pair.send_ike_delete(old, "old");
    pair.ike_settled(new);
}

#[test]
fn old_ike_sa_the_peer_forgets_to_delete_does_not_stay() {
    let mut pair = up();
    let new = pair.send_own_ike_rekey(HIGH).unwrap();
    pair.rig.wait(Duration::from_secs(60));
    pair.rig.sent.clear();
    // A Delete of ours nobody answers ends too.
    pair.rig.wait(Duration::from_secs(300));
    pair.rig.sent.clear();
    pair.ike_settled(new);
}

#[test]
fn lowest_nonce_in_our_ike_rekey_makes_ours_redundant() {
    let mut pair = up();
    let request = pair.rekey_ike();
    let theirs = pair.send_own_ike_rekey(HIGH).unwrap();
    let ours = pair.grant_ike(&request, LOW);
    pair.expect_ike_delete(ours, "the redundant one is its maker's to delete");
    let old = pair.take_old();
    pair.send_ike_delete(old, "old");
    pair.ike_settled(theirs);
}

#[test]
fn lowest_nonce_in_the_peers_ike_rekey_makes_the_peers_redundant() {
    let mut pair = up();
    let request = pair.rekey_ike();
    let theirs = pair.send_own_ike_rekey(LOW).unwrap();
    let ours = pair.grant_ike(&request, HIGH);
    let old = pair.take_old();
    pair.expect_ike_delete(old, "old");
    pair.send_ike_delete(theirs, "redundant");
    pair.ike_settled(ours);
}

#[test]
fn redundant_ike_sa_the_peer_forgets_to_delete_does_not_stay() {
    let mut pair = up();
    let request = pair.rekey_ike();
    let theirs = pair.send_own_ike_rekey(LOW).unwrap();
    let ours = pair.grant_ike(&request, HIGH);
    let old = pair.take_old();
    pair.expect_ike_delete(old, "old");
    let mut theirs = theirs;
    let request = wait_for(&mut pair.rig, &mut theirs, 300);
    assert!(request.payloads.deletes().any(Delete::is_ike));
    theirs.respond(&mut pair.rig, &request, vec![]);
    pair.ike_settled(ours);
}

#[test]
fn peer_that_noticed_no_ike_collision_says_so_and_its_sa_stands() {
    let mut pair = up();
    let request = pair.rekey_ike();
    let theirs = pair.send_own_ike_rekey(HIGH).unwrap();
    pair.refuse(&request, NotifyType::TEMPORARY_FAILURE);
    let old = pair.take_old();
    pair.send_ike_delete(old, "old");
    pair.ike_settled(theirs);
}

#[test]
fn peer_that_deletes_the_old_ike_sa_before_answering_our_rekey_has_its_way() {
    let mut pair = up();
    let _lost = pair.rekey_ike();
    let theirs = pair.send_own_ike_rekey(HIGH).unwrap();
    let old = pair.take_old();
    pair.send_ike_delete(old, "old");
    pair.ike_settled(theirs);
}

#[test]
fn peers_ike_rekey_that_was_lost_comes_after_ours_is_through() {
    let mut pair = up();
    let request = pair.rekey_ike();
    let ours = pair.grant_ike(&request, HIGH);
    assert_eq!(pair.send_own_ike_rekey(LOW).err(), Some(NotifyType::TEMPORARY_FAILURE));
    let old = pair.take_old();
    pair.expect_ike_delete(old, "old");
    pair.ike_settled(ours);
}

#[test]
fn our_ike_answer_is_in_while_a_device_still_works_for_the_peers_rekey() {
    for nonce in [LOW, HIGH] {
        let mut pair = up();
        let request = pair.rekey_ike();
        pair.rig.hold = true;
        let spi = Spi(0xaaaa_0001);
        let message = pair.puppet.rekey_payloads(spi, &nonce);
        let message = pair.puppet.request(CREATE_CHILD_SA, &message);
        pair.rig.datagram(&message);
        let ours = pair.grant_ike(&request, [0x7f; 32]);
        // The jobs come back in another order than they went: ours first.
        pair.rig.turn_jobs();
        pair.rig.let_go();
        let id = pair.puppet.next_id - 1;
        let answer = pair.puppet.response(&mut pair.rig, id).unwrap();
        match pair.own_ike_successor(spi, nonce, &answer.payloads) {
            // The puppet knows of both exchanges: refused, it forgets its own.
            Err(kind) => {
                assert_eq!(kind, NotifyType::TEMPORARY_FAILURE);
                let old = pair.take_old();
                pair.expect_ike_delete(old, "old");
                pair.ike_settled(ours);
            }
            Ok(theirs) => {
                let ours_low = ours.ni.clone().min(ours.nr.clone());
                let theirs_low = theirs.ni.clone().min(theirs.nr.clone());
                let old = pair.take_old();
                if ours_low < theirs_low {
                    pair.expect_ike_delete(ours, "redundant");
                    pair.send_ike_delete(old, "old");
                    pair.ike_settled(theirs);
                } else {
                    pair.expect_ike_delete(old, "old");
                    pair.send_ike_delete(theirs, "redundant");
                    pair.ike_settled(ours);
                }
            }
        }
    }
}

#[test]
fn old_ike_sa_goes_even_when_a_device_is_slower_than_our_patience() {
    let mut pair = up();
    let request = pair.rekey_ike();
    let mut theirs = pair.send_own_ike_rekey([0x40; 32]).unwrap();
    // The peer uses its own already, and only then answers ours; what comes of that waits for a device.
    assert!(theirs.is_alive(&mut pair.rig));
    pair.rig.hold = true;
    pair.grant_ike(&request, HIGH);
    pair.rig.wait(Duration::from_secs(400));
    pair.rig.let_go();
    // Nobody answers the Deletes of what is too much: they end too.
    pair.rig.wait(Duration::from_secs(700));
    pair.rig.sent.clear();
    pair.ike_settled(theirs);
}

// ---- the IKE SA is busy with something else ----

#[test]
fn nothing_new_begins_on_an_ike_sa_we_are_rekeying() {
    let mut pair = up();
    let request = pair.rekey_ike();
    let mut new_child = pair.puppet.child_payloads(0x7000_0050, false);
    new_child.push(Nonce(vec![1; 32]).into());
    let answer = pair.puppet.exchange(&mut pair.rig, CREATE_CHILD_SA, new_child);
    assert_eq!(answer.error_notify().map(|n| n.kind), Some(NotifyType::TEMPORARY_FAILURE));
    let answer = pair.send_own_rekey(HIGH);
    assert_eq!(answer.error_notify().map(|n| n.kind), Some(NotifyType::TEMPORARY_FAILURE));
    let new = pair.grant_ike(&request, HIGH);
    let old = pair.take_old();
    pair.expect_ike_delete(old, "old");
    pair.ike_settled(new);
}

#[test]
fn ike_sa_on_which_we_make_a_child_is_not_rekeyed() {
    let mut pair = up();
    let request = pair.rekey_child();
    assert_eq!(pair.send_own_ike_rekey(HIGH).err(), Some(NotifyType::TEMPORARY_FAILURE));
    pair.grant_child(&request, HIGH);
    pair.settled(ANSWERED);
}

#[test]
fn ike_sa_we_are_deleting_takes_nothing_but_a_delete() {
    let mut pair = up();
    pair.rig.command(Command::Down { realm: "puppet".into(), child: None });
    let request = pair.puppet.next_request(&mut pair.rig).expect("a Delete");
    assert_eq!(pair.send_own_ike_rekey(HIGH).err(), Some(NotifyType::TEMPORARY_FAILURE));
    let answer = pair.send_own_rekey(HIGH);
    assert_eq!(answer.error_notify().map(|n| n.kind), Some(NotifyType::TEMPORARY_FAILURE));
    // RFC 7296 section 2.25.2: both delete it.
    let answer = pair.puppet.exchange(&mut pair.rig, INFORMATIONAL, vec![Delete::ike().into()]);
    assert!(answer.is_empty());
    pair.puppet.respond(&mut pair.rig, &request, vec![]);
    assert_eq!((pair.rig.ike_sas(), pair.rig.children.len()), (0, 0));
}

#[test]
fn peer_deletes_the_ike_sa_we_are_rekeying_for_good() {
    let mut pair = up();
    let _unanswered = pair.rekey_ike();
    let answer = pair.puppet.exchange(&mut pair.rig, INFORMATIONAL, vec![Delete::ike().into()]);
    assert!(answer.error_notify().is_none());
    pair.rig.wait(Duration::from_secs(60));
    assert_eq!((pair.rig.ike_sas(), pair.rig.children.len()), (0, 0));
    assert!(pair.rig.events.iter().any(|e| matches!(e, Event::IkeClosed { .. })));
}
