//! Engines against servers in memory, and a clock that is ours.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::attribute::Kind;

const SECRET: &[u8] = b"testing123";

/// An engine and what it has sent.
struct Lab {
    engine: Engine,
    now: Instant,
    sent: Vec<(LaneKey, Vec<u8>)>,
    done: Vec<(Ticket, Answer)>,
    said: Vec<String>,
    opened: Vec<(LaneKey, ServerId)>,
    /// Whether a lane is open as soon as it is asked for.
    opens: bool,
}

fn lab(service: Service, servers: &[&str], stream: bool) -> Lab {
    let peers = servers.iter().map(|name| Peer { stream, ..peer(name, SECRET) });
    let mut seed = 0u8;
    let random = move || {
        seed = seed.wrapping_add(1);
        [seed; 16]
    };
    let engine = Engine::new(service, Patience::default(), peers.collect(), 0, Box::new(random));
    Lab {
        engine,
        now: Instant::now(),
        sent: Vec::new(),
        done: Vec::new(),
        said: Vec::new(),
        opened: Vec::new(),
        opens: true,
    }
}

fn peer(name: &str, secret: &[u8]) -> Peer {
    Peer { name: name.into(), secret: Secret::from_slice(secret), stream: false }
}

fn question(name: &str, only: Option<usize>) -> Question {
    let mut attributes = Written::new();
    attributes.text(Kind::USER_NAME, name);
    Question { attributes, only: only.map(ServerId) }
}

/// The reply of a server that knows the secret.
fn reply(request: &[u8], code: Code) -> Vec<u8> {
    let request = Packet::parse(request).unwrap();
    let mut attributes = Written::new();
    attributes.text(Kind::REPLY_MESSAGE, "hello");
    let secret = Secret::from_slice(SECRET);
    packet::reply(code, request.identifier, request.authenticator, &attributes, &secret).unwrap()
}

impl Lab {
    fn run(&mut self) {
        while let Some(effect) = self.engine.poll_effect() {
            match effect {
                Effect::Open(lane, server) => {
                    self.opened.push((lane, server));
                    if self.opens {
                        self.engine.on_opened(self.now, lane);
                    }
                }
                Effect::Send(lane, packet) => self.sent.push((lane, packet)),
                Effect::Close(lane) => self.said.push(format!("close {}", lane.0)),
                Effect::Done(ticket, answer) => self.done.push((ticket, answer)),
                Effect::Lost(name, why) => self.said.push(format!("lost {name}: {why}")),
                Effect::Back(name, _, unanswered) => self.said.push(format!("back {name}, {unanswered}")),
            }
        }
    }

    fn ask(&mut self, ticket: u64, only: Option<usize>) {
        self.engine.ask(self.now, Ticket(ticket), question("alice", only));
        self.run();
    }

    fn hear(&mut self, lane: LaneKey, packet: &[u8]) {
        self.engine.on_packet(self.now, lane, packet);
        self.run();
    }

    /// Lets time pass until the next thing is due; how long that was, in seconds.
    fn step(&mut self) -> f64 {
        let due = self.engine.due().expect("something is due");
        let passed = due.saturating_duration_since(self.now).as_secs_f64();
        self.now = self.now.max(due);
        self.engine.on_time(self.now);
        self.run();
        passed
    }

    fn pass(&mut self, seconds: u64) {
        let until = self.now + Duration::from_secs(seconds);
        while self.engine.due().is_some_and(|due| due <= until) {
            self.step();
        }
        self.now = until;
    }

    fn server_of(&self, lane: LaneKey) -> usize {
        self.opened.iter().find(|(key, _)| *key == lane).unwrap().1.0
    }

    /// The servers that packets went to, in their order.
    fn went_to(&self) -> Vec<usize> {
        self.sent.iter().map(|(lane, _)| self.server_of(*lane)).collect()
    }

    fn nobody(&self, ticket: u64) -> &str {
        match self.done.iter().find(|(done, _)| done.0 == ticket) {
            Some((_, Answer::Nobody(why))) => why,
            Some(_) => panic!("{ticket} was answered"),
            None => panic!("{ticket} is still out"),
        }
    }
}

#[test]
fn an_answer_ends_the_question() {
    let mut lab = lab(Service::Access, &["a"], false);
    lab.ask(1, None);
    let (lane, packet) = lab.sent[0].clone();
    assert_eq!(packet[20..22], [80, 18], "the Message-Authenticator is first");
    lab.now += Duration::from_millis(10);
    lab.hear(lane, &reply(&packet, Code::ACCESS_CHALLENGE));
    let (Ticket(1), Answer::Reply(said)) = &lab.done[0] else { panic!() };
    assert_eq!((said.code, said.server, &*said.name), (Code::ACCESS_CHALLENGE, ServerId(0), "a"));
    assert_eq!(said.attributes.read().first(Kind::REPLY_MESSAGE).unwrap().value, b"hello");
    // Once more is once too often.
    lab.hear(lane, &reply(&packet, Code::ACCESS_CHALLENGE));
    assert_eq!(lab.done.len(), 1);
    let want = Counters { asked: 1, answered: 1, unexpected: 1, ..Default::default() };
    assert_eq!(lab.engine.counters(), want);
    assert!(lab.engine.is_empty());
}

#[test]
fn what_is_not_proven_is_dropped_and_counted_and_the_question_stays_out() {
    let mut lab = lab(Service::Access, &["a"], false);
    lab.ask(1, None);
    let (lane, packet) = lab.sent[0].clone();
    let good = reply(&packet, Code::ACCESS_ACCEPT);
    let request = Packet::parse(&packet).unwrap();
    let (id, authenticator) = (request.identifier, request.authenticator);
    let other = Secret::from_slice(b"other");
    let forged = packet::reply(Code::ACCESS_ACCEPT, id, authenticator, &Written::new(), &other).unwrap();
    // An old server's: right by RFC 2865, and without what CVE-2024-3596 takes.
    let unsigned = {
        use md5::{Digest, Md5};
        let mut packet = vec![Code::ACCESS_ACCEPT.0, id, 0, 20];
        let head = packet.clone();
        let hash = Md5::new().chain_update(head).chain_update(authenticator).chain_update(SECRET);
        packet.extend_from_slice(&hash.finalize());
        packet
    };
    let mut wrong_id = good.clone();
    wrong_id[1] ^= 1;
    let mut wrong_code = good.clone();
    wrong_code[0] = Code::ACCOUNTING_RESPONSE.0;
    for bad in [&forged[..], &unsigned, &wrong_id, &wrong_code, &good[..good.len() - 1], b"", &packet] {
        lab.hear(lane, bad);
    }
    lab.hear(LaneKey(77), &good);
    assert!(lab.done.is_empty());
    let want =
        Counters { asked: 1, forged: 1, unsigned: 1, unexpected: 3, malformed: 2, ..Default::default() };
    assert_eq!(lab.engine.counters(), want);
    lab.hear(lane, &good);
    assert_eq!(lab.done.len(), 1);
}

#[test]
fn a_question_is_repeated_as_it_is_and_then_goes_to_the_next_server() {
    let mut lab = lab(Service::Access, &["a", "b"], false);
    lab.ask(1, None);
    let waits = [lab.step(), lab.step(), lab.step()];
    assert_eq!(waits, [1.0, 2.0, 4.0]);
    assert_eq!(lab.went_to(), [0, 0, 0, 1]);
    assert_eq!(lab.sent[0], lab.sent[1]);
    assert_eq!(lab.sent[0], lab.sent[2]);
    let parsed: Vec<_> = lab.sent.iter().map(|(_, p)| Packet::parse(p).unwrap().authenticator).collect();
    assert_ne!(parsed[2], parsed[3], "another server, another authenticator");
    assert_eq!(lab.said, ["lost a: no answer to 3 tries"]);
    let (lane, packet) = lab.sent[3].clone();
    lab.hear(lane, &reply(&packet, Code::ACCESS_REJECT));
    assert_eq!(lab.done.len(), 1);
    // What comes now goes to the second at once.
    lab.ask(2, None);
    assert_eq!(lab.went_to()[4], 1);
}

#[test]
fn both_down_is_said_and_the_next_is_told_at_once() {
    let mut lab = lab(Service::Access, &["a", "b"], false);
    lab.ask(1, None);
    lab.pass(14);
    assert_eq!(lab.nobody(1), "a: no answer to 3 tries; b: no answer to 3 tries");
    lab.ask(2, None);
    assert_eq!(lab.nobody(2), "a is down: no answer to 3 tries; b is down: no answer to 3 tries");
    assert_eq!(lab.engine.counters().unanswered, 2);
}

#[test]
fn a_closed_port_is_believed_sooner() {
    let mut lab = lab(Service::Access, &["a", "b"], false);
    lab.ask(1, None);
    let lane = lab.sent[0].0;
    lab.engine.on_refused(lab.now, lane);
    lab.run();
    assert_eq!(lab.sent.len(), 1, "anybody may say so");
    assert_eq!(lab.step(), 1.0);
    lab.engine.on_refused(lab.now, lane);
    lab.run();
    assert_eq!(lab.went_to(), [0, 0, 1]);
    assert_eq!(lab.said, ["lost a: nothing listens there"]);
}

#[test]
fn a_conversation_stays_with_its_server() {
    let mut lab = lab(Service::Access, &["a", "b"], false);
    lab.ask(1, Some(0));
    lab.ask(2, None);
    lab.pass(7);
    assert_eq!(lab.nobody(1), "a began with it and fell silent: no answer to 3 tries");
    assert!(lab.went_to().ends_with(&[1]), "the other one goes on");
    // Also if the server is known to be dead, it alone can answer.
    lab.ask(3, Some(0));
    assert_eq!(lab.server_of(lab.sent.last().unwrap().0), 0);
    let (lane, packet) = lab.sent.last().unwrap().clone();
    lab.hear(lane, &reply(&packet, Code::ACCESS_CHALLENGE));
    assert!(lab.said.contains(&"back a, 1".to_owned()));
}

#[test]
fn a_server_that_dislikes_one_question_is_not_dead() {
    let mut lab = lab(Service::Access, &["a", "b"], false);
    lab.ask(1, None);
    lab.now += Duration::from_secs(1);
    lab.ask(2, None);
    let (lane, packet) = lab.sent.last().unwrap().clone();
    lab.hear(lane, &reply(&packet, Code::ACCESS_REJECT));
    lab.pass(7);
    assert!(lab.said.is_empty(), "{:?}", lab.said);
    assert_eq!(lab.went_to().last(), Some(&1), "the question moves on all the same");
    lab.ask(3, None);
    assert_eq!(lab.went_to().last(), Some(&0));
}

#[test]
fn a_dead_server_is_probed_and_used_again_when_it_answers() {
    let mut lab = lab(Service::Access, &["a"], false);
    lab.ask(1, None);
    lab.pass(7);
    let before = lab.sent.len();
    lab.pass(5);
    let (lane, packet) = lab.sent[before].clone();
    assert_eq!(packet[0], Code::STATUS_SERVER.0);
    lab.hear(lane, &reply(&packet, Code::ACCESS_CHALLENGE));
    assert_eq!(lab.engine.counters().unexpected, 1, "no answer to this");
    lab.hear(lane, &reply(&packet, Code::ACCESS_ACCEPT));
    assert_eq!(lab.said.last().unwrap(), "back a, 1");
    assert_eq!(lab.done.len(), 1, "the probe's answer is for the engine");
    lab.ask(2, None);
    assert_eq!(lab.sent.last().unwrap().1[0], Code::ACCESS_REQUEST.0);
}

#[test]
fn a_server_that_knows_no_status_gets_one_question_after_a_minute() {
    let mut lab = lab(Service::Access, &["a", "b"], false);
    lab.ask(1, None);
    lab.pass(7);
    let (lane, packet) = lab.sent.last().unwrap().clone();
    lab.hear(lane, &reply(&packet, Code::ACCESS_REJECT));
    lab.pass(61);
    lab.sent.clear();
    lab.ask(2, None);
    lab.ask(3, None);
    let requests: Vec<usize> = lab
        .sent
        .iter()
        .filter(|(_, packet)| packet[0] == Code::ACCESS_REQUEST.0)
        .map(|(lane, _)| lab.server_of(*lane))
        .collect();
    assert_eq!(requests, [0, 1]);
}

#[test]
fn five_hundred_questions_have_five_hundred_names() {
    let mut lab = lab(Service::Access, &["a"], false);
    for n in 0..500 {
        lab.ask(n, None);
    }
    let names: BTreeSet<(LaneKey, u8)> = lab.sent.iter().map(|(lane, packet)| (*lane, packet[1])).collect();
    assert_eq!(names.len(), 500);
    assert!(lab.opened.len() >= 2, "one socket has 256");
    let sent = std::mem::take(&mut lab.sent);
    for (lane, packet) in sent.iter().rev() {
        lab.hear(*lane, &reply(packet, Code::ACCESS_CHALLENGE));
    }
    let tickets: BTreeSet<u64> = lab.done.iter().map(|(ticket, _)| ticket.0).collect();
    assert_eq!(tickets, (0..500).collect());
    // When all is quiet the sockets go.
    lab.pass(130);
    assert_eq!(lab.engine.status()[0].lanes, 0);
    assert_eq!(lab.engine.due(), None);
}

#[test]
fn a_server_gets_as_much_as_it_can_take_and_the_rest_waits_in_its_order() {
    let mut lab = lab(Service::Access, &["a"], false);
    for n in 0..(MAX_ASKED as u64 + 1) {
        lab.ask(n, None);
    }
    assert_eq!(lab.sent.len(), WINDOW);
    assert!(lab.nobody(MAX_ASKED as u64).contains("are out already"));
    let (lane, packet) = lab.sent[5].clone();
    lab.hear(lane, &reply(&packet, Code::ACCESS_REJECT));
    assert_eq!(lab.sent.len(), WINDOW + 1);
    assert_eq!(Packet::parse(&packet).unwrap().code, Code::ACCESS_REQUEST);
    // Those that wait are not lost when the server dies, they are told.
    lab.pass(7);
    assert_eq!(lab.done.len(), MAX_ASKED + 1);
}

#[test]
fn who_does_not_wait_any_more_is_forgotten() {
    let mut lab = lab(Service::Access, &["a"], false);
    lab.ask(1, None);
    let (lane, packet) = lab.sent[0].clone();
    lab.engine.forget(lab.now, Ticket(1));
    lab.hear(lane, &reply(&packet, Code::ACCESS_ACCEPT));
    lab.pass(100);
    assert!(lab.done.is_empty() && lab.said.is_empty() && lab.sent.len() == 1);
}

#[test]
fn accounting_is_proven_by_its_digest_and_needs_no_signature() {
    let mut lab = lab(Service::Accounting, &["a"], false);
    lab.ask(1, None);
    let (lane, packet) = lab.sent[0].clone();
    let read = Packet::parse(&packet).unwrap();
    assert_eq!(read.code, Code::ACCOUNTING_REQUEST);
    assert_eq!(read.prove_request(&Secret::from_slice(SECRET), false), Ok(()));
    lab.hear(lane, &reply(&packet, Code::ACCESS_ACCEPT));
    assert!(lab.done.is_empty());
    lab.hear(lane, &reply(&packet, Code::ACCOUNTING_RESPONSE));
    assert_eq!(lab.done.len(), 1);
}

#[test]
fn a_stream_is_not_repeated_and_what_breaks_off_is_asked_once_more() {
    let mut lab = lab(Service::Access, &["a", "b"], true);
    lab.ask(1, None);
    let lane = lab.sent[0].0;
    lab.now += Duration::from_secs(5);
    lab.engine.on_time(lab.now);
    lab.run();
    assert_eq!(lab.sent.len(), 1);
    lab.engine.on_failed(lab.now, lane, "closed");
    lab.run();
    assert_eq!(lab.went_to(), [0, 0]);
    lab.engine.on_failed(lab.now, lab.sent[1].0, "closed");
    lab.run();
    assert_eq!(lab.went_to(), [0, 0, 1], "not for ever");
    lab.pass(7);
    assert_eq!(lab.nobody(1), "a: closed; b: no answer");
}

#[test]
fn a_stream_that_does_not_open_moves_everything_on() {
    let mut lab = lab(Service::Access, &["a", "b"], true);
    lab.opens = false;
    for n in 0..300 {
        lab.ask(n, None);
    }
    assert!(lab.sent.is_empty());
    lab.opens = true;
    let first = lab.opened[0].0;
    lab.engine.on_failed(lab.now, first, "TLS: wrong certificate");
    lab.run();
    assert_eq!(lab.said, ["lost a: TLS: wrong certificate"]);
    assert!(lab.went_to().iter().all(|server| *server == 1));
    assert_eq!(lab.sent.len(), 300);
}

#[test]
fn a_server_that_goes_gives_what_it_had_to_the_others() {
    let mut lab = lab(Service::Access, &["a", "b"], false);
    lab.ask(1, None);
    lab.ask(2, Some(0));
    let names =
        lab.engine.replace(lab.now, Patience::default(), vec![Err(peer("c", SECRET)), Ok(ServerId(1))]);
    assert_eq!(names, [ServerId(2), ServerId(1)], "a name is not used for another");
    lab.run();
    assert_eq!(lab.said, ["close 0"]);
    assert_eq!(lab.went_to(), [0, 0, 2], "what was begun elsewhere is nobody else's");
    assert_eq!(lab.nobody(2), "the server that began with it is no server of ours any more");
    // What the one that has gone says is heard by nobody.
    let (lane, packet) = lab.sent[0].clone();
    lab.hear(lane, &reply(&packet, Code::ACCESS_ACCEPT));
    assert_eq!(lab.done.len(), 1);
    let (lane, packet) = lab.sent[2].clone();
    lab.hear(lane, &reply(&packet, Code::ACCESS_ACCEPT));
    assert!(matches!(&lab.done[1], (Ticket(1), Answer::Reply(said)) if said.server == ServerId(2)));
}

#[test]
fn a_server_that_stays_keeps_its_questions_and_what_is_known_of_it() {
    let mut lab = lab(Service::Access, &["a", "b"], false);
    lab.ask(1, None);
    lab.pass(8);
    assert_eq!(lab.said, ["lost a: no answer to 3 tries"]);
    lab.ask(2, Some(1));
    let before = lab.sent.len();
    lab.engine.replace(lab.now, Patience::default(), vec![Ok(ServerId(1)), Ok(ServerId(0))]);
    lab.run();
    assert_eq!((lab.sent.len(), lab.engine.len()), (before, 2), "nothing is asked anew");
    let status = lab.engine.status();
    assert_eq!((&*status[0].name, &*status[1].name), ("b", "a"));
    assert!(status[0].dead.is_none() && status[1].dead.is_some());
    lab.engine.replace(lab.now, Patience::default(), Vec::new());
    lab.run();
    assert_eq!(lab.nobody(1), "no server is configured for it");
    assert!(lab.engine.is_empty());
}

proptest! {
    /// Whatever comes in, every question ends exactly once, and nothing is left behind.
    #[test]
    fn every_question_ends_once(steps in proptest::collection::vec((0u8..9, any::<u16>()), 1..200)) {
        let mut lab = lab(Service::Access, &["a", "b", "c"], false);
        let mut asked = 0;
        for (what, which) in steps {
            let pick = |n: usize| usize::from(which) % n.max(1);
            match what {
                0 | 1 => {
                    let only = (which % 5 == 0).then(|| pick(4));
                    lab.ask(asked, only);
                    asked += 1;
                }
                2 if !lab.sent.is_empty() => {
                    let (lane, packet) = lab.sent[pick(lab.sent.len())].clone();
                    let code = [Code::ACCESS_ACCEPT, Code::ACCESS_CHALLENGE, Code::ACCESS_REJECT][pick(3)];
                    lab.hear(lane, &reply(&packet, code));
                }
                3 if !lab.sent.is_empty() => {
                    let (lane, mut packet) = lab.sent[pick(lab.sent.len())].clone();
                    let at = pick(packet.len());
                    packet[at] ^= 0x40;
                    lab.hear(lane, &packet);
                }
                4 if !lab.opened.is_empty() => {
                    let lane = lab.opened[pick(lab.opened.len())].0;
                    lab.engine.on_refused(lab.now, lane);
                    lab.run();
                }
                5 if !lab.opened.is_empty() => {
                    let lane = lab.opened[pick(lab.opened.len())].0;
                    lab.engine.on_failed(lab.now, lane, "gone");
                    lab.run();
                }
                6 => {
                    // Some stay, in another order; one comes, or none.
                    let stay = lab.engine.servers.ids().into_iter().rev().filter(|id| which >> (id.0 % 16) & 1 == 1);
                    let mut servers: Vec<_> = stay.map(Ok).collect();
                    if which % 3 > 0 {
                        servers.push(Err(peer("new", SECRET)));
                    }
                    lab.engine.replace(lab.now, Patience::default(), servers);
                    lab.run();
                }
                _ => lab.pass(u64::from(which % 10)),
            }
        }
        lab.pass(60);
        let mut ended: Vec<u64> = lab.done.iter().map(|(ticket, _)| ticket.0).collect();
        ended.sort_unstable();
        prop_assert_eq!(ended, (0..asked).collect::<Vec<_>>());
        prop_assert!(lab.engine.is_empty());
        prop_assert!(lab.engine.line.is_empty());
        for (_, server) in lab.engine.servers.iter() {
            prop_assert!(server.out <= 1, "no more than a probe");
        }
    }
}
