//! Devices that fall ill under traffic: a gateway's devices, one lane of its data path, and a peer that opens what it gets and
//! notes every sequence number. The watchers are the real ones, only quicker.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use esp::{
    ChildId, DfPolicy, DropReason, DscpPolicy, EcnPolicy, Encap, Esp, InboundSa, Inner, Limits, Mode,
    Offload, OutboundSa, Outer, Output, PeerMoves, UdpEncap,
};
use hwtest::{Ailment, Patient};
use soft::Soft;
use spi::{
    CryptoJob, CryptoOp, CryptoOutput, Device, Direction, Driver, Encr, EspBurst, EspQueue, Group, Integ,
    Outcome, Pool, QueueConfig, SaParams, Secret, Token,
};

use super::*;
use crate::config::Fallback;
use crate::io::epoll::Epoll;
use crate::plane::queues::Queues;

const KEY: u64 = 7;
/// What the gateway sends has SPIs from here on, what the peer sends from there on.
const OUT: u32 = 0x1000;
const IN: u32 = 0x2000;
const BUFFERS: usize = 400;

fn pace() -> Pace {
    Pace {
        every: Duration::from_millis(20),
        patience: Duration::from_millis(300),
        look: Duration::from_millis(5),
        again: Duration::from_millis(20),
        relapse: Duration::ZERO,
    }
}

fn faulty(name: &str, patient: &Patient, recovers: bool) -> Source {
    let driver = patient.driver(Soft::new(1), recovers);
    let desc = driver.probe().remove(0);
    Source {
        name: name.to_owned(),
        place: Some("here".to_owned()),
        configured: true,
        hardware: true,
        driver: Arc::new(driver),
        desc,
    }
}

fn software() -> Source {
    let driver = Soft::new(1);
    let desc = driver.probe().remove(0);
    Source {
        name: "soft".to_owned(),
        place: None,
        configured: false,
        hardware: false,
        driver: Arc::new(driver),
        desc,
    }
}

fn params(spi: u32, dir: Direction) -> SaParams {
    SaParams {
        spi,
        dir,
        encr: Encr::AES128_GCM16,
        integ: Integ::NONE,
        encr_key: Secret::new(vec![spi as u8 ^ (spi >> 8) as u8; 20]),
        integ_key: Secret::new(Vec::new()),
        esn: false,
    }
}

fn end(last: u8) -> SocketAddr {
    SocketAddr::new([192, 0, 2, last].into(), 4500)
}

fn outbound(line: u32, spi: u32, device: usize, sa: spi::SaId, (ours, theirs): (u8, u8)) -> OutboundSa {
    OutboundSa {
        child: ChildId(line.into()),
        spi,
        device,
        sa,
        encr: Encr::AES128_GCM16,
        integ: Integ::NONE,
        esn: false,
        mode: Mode::Tunnel { local: end(ours).ip(), remote: end(theirs).ip() },
        encap: Some(UdpEncap { local: end(ours), remote: end(theirs) }),
        ts_local: vec![format!("10.{ours}.{line}.0/24").parse().unwrap()],
        ts_remote: vec![format!("10.{theirs}.{line}.0/24").parse().unwrap()],
        iface: None,
        priority: 1,
        tfc: None,
        dummy: None,
        keepalive: None,
        df: DfPolicy::Copy,
        dscp: DscpPolicy::Copy,
        ecn: EcnPolicy::Copy,
        path_mtu: 1500,
        limits: Limits::default(),
        waits: false,
        at_once: false,
        share: None,
    }
}

fn inbound(line: u32, spi: u32, device: usize, sa: spi::SaId, (ours, theirs): (u8, u8)) -> InboundSa {
    let out = outbound(line, spi, device, sa, (ours, theirs));
    InboundSa {
        child: out.child,
        spi,
        device,
        sa,
        encr: out.encr,
        integ: out.integ,
        esn: false,
        mode: out.mode,
        encap: out.encap,
        ts_local: out.ts_local,
        ts_remote: out.ts_remote,
        iface: 1,
        replay_window: 1024,
        moves: PeerMoves::Report,
        pair: None,
        limits: Limits::default(),
        share: None,
    }
}

fn packet(line: u32, (from, to): (u8, u8)) -> Vec<u8> {
    let [source, destination] = [from, to].map(|side| std::net::Ipv4Addr::new(10, side, line as u8, 1));
    let payload = [0x1f, 0x90, 0, 9, 0, 28, 0, 0].into_iter().chain([7; 20]).collect::<Vec<u8>>();
    let header = wire::ip::Ipv4Emit::new(source, destination, 17).emit(payload.len()).unwrap();
    [header.as_slice(), &payload].concat()
}

/// The peer: software, and a record of what it was sent.
struct Peer {
    esp: Esp,
    device: Arc<dyn Device>,
    queue: Box<EspQueue>,
    out: Output,
    seen: HashSet<(u32, u64)>,
    opened: u64,
}

struct World {
    accel: Accel,
    esp: Esp,
    queues: Queues,
    out: Output,
    pool: Pool,
    epoll: Epoll,
    peer: Peer,
    lines: u32,
    /// Packets of the peer that got through.
    opened: u64,
    news: Vec<Notice>,
    ticked: Instant,
}

impl World {
    fn new(sources: Vec<Source>) -> World {
        let mut accel = Accel::open(sources, Vec::new(), pace()).unwrap();
        let pool = Pool::new(4096, BUFFERS).unwrap();
        accel.register(pool.region()).unwrap();
        let mut esp = Esp::new(esp::Config::new(pool.clone()));
        let queues = Queues::open(&accel.devices(), None);
        accel.add_lane(queues.there(), queues.carried(), None);
        queues.attach(&mut esp);
        accel.watch(&[Arc::clone(pool.region())], &[None]).unwrap();
        let device: Arc<dyn Device> = Soft::new(0).device();
        let queue = device.esp_queue(QueueConfig::default()).unwrap();
        let mut theirs = Esp::new(esp::Config::new(Pool::new(4096, 64).unwrap()));
        theirs.add_device(queue.room());
        let (seen, opened) = (HashSet::new(), 0);
        let peer = Peer { esp: theirs, device, queue, out: Output::new(), seen, opened };
        World {
            accel,
            esp,
            queues,
            out: Output::new(),
            pool,
            epoll: Epoll::new().unwrap(),
            peer,
            lines: 0,
            opened: 0,
            news: Vec::new(),
            ticked: Instant::now(),
        }
    }

    fn id(line: u32, dir: Direction) -> SessionId {
        (ike::ChildId(line.into()), dir)
    }

    fn seat(line: u32, fallback: Fallback, accel: &[&str]) -> Seat {
        let accel = accel.iter().map(|name| (*name).to_owned()).collect();
        Seat { lane: 0, line: ChildId(line.into()), realm: "r".into(), fallback, accel }
    }

    /// Another pair of SAs, on both ends.
    fn add(&mut self, fallback: Fallback) -> Result<u32, route::Refused> {
        self.add_on(fallback, &[])
    }

    /// The same of a realm that names its devices.
    fn add_on(&mut self, fallback: Fallback, accel: &[&str]) -> Result<u32, route::Refused> {
        let line = self.lines;
        let (spi_out, spi_in) = (OUT + line, IN + line);
        let now = Instant::now();
        let seat = World::seat(line, fallback, accel);
        let (device, sa) = self.accel.install(
            World::id(line, Direction::Open),
            seat.clone(),
            params(spi_in, Direction::Open),
        )?;
        self.esp.install_inbound(inbound(line, spi_in, device, sa, (1, 2)), now).unwrap();
        let seal = World::id(line, Direction::Seal);
        let (device, sa) = self.accel.install(seal, seat, params(spi_out, Direction::Seal))?;
        self.esp.install_outbound(outbound(line, spi_out, device, sa, (1, 2)), now).unwrap();
        let peer = &mut self.peer;
        let sa = peer.device.install_sa(&params(spi_out, Direction::Open)).unwrap();
        peer.esp.install_inbound(inbound(line, spi_out, 0, sa, (2, 1)), now).unwrap();
        let sa = peer.device.install_sa(&params(spi_in, Direction::Seal)).unwrap();
        peer.esp.install_outbound(outbound(line, spi_in, 0, sa, (2, 1)), now).unwrap();
        self.lines += 1;
        Ok(line)
    }

    /// One packet each way for every pair, and whatever else there is to do.
    fn turn(&mut self) {
        let now = Instant::now();
        for line in 0..self.lines {
            let there = packet(line, (1, 2));
            self.esp.handle_inner(now, Inner::new(1, &there, Offload::default()), &mut self.out);
            let back = packet(line, (2, 1));
            self.peer.esp.handle_inner(now, Inner::new(1, &back, Offload::default()), &mut self.peer.out);
        }
        self.work(now);
    }

    fn work(&mut self, now: Instant) {
        self.accel.hear_watchers(&self.epoll, KEY);
        self.accel.settle();
        if now.duration_since(self.ticked) > Duration::from_millis(200) {
            self.ticked = now;
            let mut told = Vec::new();
            self.queues.tick(&mut self.esp, &mut self.out, &mut told);
            told.into_iter().for_each(|report| self.accel.hear_lane(0, report));
            self.accel.tick(now);
        }
        while let Some((_, order)) = self.accel.orders.pop_front() {
            let mut told = Vec::new();
            self.queues.obey(order, &self.epoll, &mut self.esp, &mut self.out, &mut told);
            told.into_iter().for_each(|report| self.accel.hear_lane(0, report));
        }
        self.news.append(&mut self.accel.news);
        self.esp.handle_timeout(now, &mut self.out);
        self.peer.work(now);
        let sent: Vec<Vec<u8>> = self.peer.out.outer.drain(..).flat_map(|packets| cut(&packets)).collect();
        for bytes in sent {
            self.esp.handle_outer(
                now,
                &Outer { from: end(2), to: end(1), encap: Encap::Udp, tos: 0 },
                &bytes,
                &mut self.out,
            );
        }
        loop {
            self.esp.flush(now, &mut self.out);
            if !self.queues.pump(now, &mut self.esp, &mut self.out) {
                break;
            }
        }
        self.opened += self.out.inner.drain(..).map(|packets| packets.len() as u64).sum::<u64>();
        let sent: Vec<Vec<u8>> = self.out.outer.drain(..).flat_map(|packets| cut(&packets)).collect();
        for bytes in sent {
            let word = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
            let number = (word(0), u64::from(word(4)));
            assert!(self.peer.seen.insert(number), "sequence number used twice: {number:x?}");
            let outer = Outer { from: end(1), to: end(2), encap: Encap::Udp, tos: 0 };
            self.peer.esp.handle_outer(now, &outer, &bytes, &mut self.peer.out);
        }
        self.peer.work(now);
        assert!(self.pool.available() > 50, "the pool runs dry: {} are left", self.pool.available());
    }

    /// Goes on with traffic until something is so.
    fn until(&mut self, what: &str, is_so: impl Fn(&World) -> bool) {
        let begun = Instant::now();
        while !is_so(self) {
            assert!(begun.elapsed() < Duration::from_secs(60), "never: {what}\n{:#?}", self.news);
            self.turn();
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Goes on until so many more packets got through each way.
    fn pass(&mut self, what: &str, more: u64) {
        let (there, back) = (self.peer.opened + more, self.opened + more);
        self.until(what, |world| world.peer.opened >= there && world.opened >= back);
    }

    fn sas(&self) -> Vec<usize> {
        self.accel.slots.iter().map(|slot| slot.sas).collect()
    }

    fn is_well(&self, number: usize) -> bool {
        self.accel.slots[number].state == State::Well && self.accel.slots[number].lanes[0]
    }

    /// Without traffic everything comes home.
    fn come_to_rest(&mut self) {
        let begun = Instant::now();
        while self.pool.available() < BUFFERS || self.queues.is_waiting() {
            let (left, out) = (self.pool.available(), self.queues.is_waiting());
            assert!(
                begun.elapsed() < Duration::from_secs(60),
                "{left} of {BUFFERS} buffers are there, out: {out}"
            );
            self.work(Instant::now());
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn dropped(&self, reason: DropReason) -> u64 {
        self.esp.counters().drops.of(reason)
    }
}

impl Peer {
    fn work(&mut self, now: Instant) {
        loop {
            self.esp.flush(now, &mut self.out);
            let mut moved = false;
            for jobs in self.out.submit.iter_mut().filter(|jobs| !jobs.is_empty()) {
                moved = true;
                self.queue.submit(jobs).unwrap();
            }
            let (esp, out) = (&mut self.esp, &mut self.out);
            moved |= self.queue.poll(64, &mut |burst: EspBurst| esp.on_done(now, burst, out)).delivered > 0;
            if !moved {
                break;
            }
        }
        self.opened += self.out.inner.drain(..).map(|packets| packets.len() as u64).sum::<u64>();
    }
}

fn cut(packets: &esp::OuterPackets) -> Vec<Vec<u8>> {
    let ops = packets.buf.ops().iter().enumerate().filter(|(_, op)| op.len > 0);
    ops.map(|(index, _)| packets.buf.op_bytes(index).to_vec()).collect()
}

#[test]
fn whatever_ails_a_device_traffic_goes_on_in_software_and_comes_back() {
    for recovers in [true, false] {
        for ailment in [
            Ailment::Silent,
            Ailment::Hoarding,
            Ailment::Lying,
            Ailment::Failing,
            Ailment::Restarting,
            Ailment::Dead,
        ] {
            let patient = Patient::new();
            let mut world = World::new(vec![faulty("card", &patient, recovers), software()]);
            for _ in 0..3 {
                world.add(Fallback::Soft).unwrap();
            }
            world.pass("traffic on the card", 50);
            assert_eq!(world.sas(), [6, 0], "{ailment:?}");
            patient.set(ailment);
            world.until("SAs leave the card", |world| world.sas() == [0, 6]);
            world.pass("traffic in software", 50);
            let served = patient.done();
            patient.set(Ailment::None);
            world.until("SAs are back on the card", |world| world.sas() == [6, 0] && world.is_well(0));
            world.pass("traffic on the card again", 50);
            assert!(patient.done() > served, "{ailment:?}: the card does nothing");
            world.come_to_rest();
            let told = |name: fn(&Notice) -> bool| world.news.iter().filter(|notice| name(notice)).count();
            let (failed, ready) = (
                told(|notice| matches!(notice, Notice::DeviceFailed { .. })),
                told(|notice| matches!(notice, Notice::DeviceReady { .. })),
            );
            assert!(failed >= 1 && ready >= 1, "{ailment:?}: {:?}", world.news);
            let moved = |to: &str| {
                let sas = world.news.iter().filter_map(|notice| match notice {
                    Notice::SasMoved { to: there, sas, .. } if there == to => Some(*sas),
                    _ => None,
                });
                sas.sum::<usize>()
            };
            assert!(moved("soft") >= 6 && moved("card") >= 6, "{ailment:?}: {:?}", world.news);
            assert_eq!(world.dropped(DropReason::Stray), 0);
            if ailment == Ailment::Hoarding {
                assert!(world.dropped(DropReason::DeviceLost) > 0, "what never came back is counted");
            }
        }
    }
}

#[test]
fn a_device_that_forgets_is_reminded() {
    let patient = Patient::new();
    let mut world = World::new(vec![faulty("card", &patient, true), software()]);
    world.add(Fallback::Soft).unwrap();
    world.pass("traffic", 20);
    for _ in 0..3 {
        patient.forget();
        let served = patient.done();
        world.pass("traffic goes on", 50);
        world.until("the card works again", |world| world.sas() == [2, 0] && patient.done() > served + 100);
    }
    world.come_to_rest();
}

#[test]
fn without_a_fallback_packets_are_dropped_and_counted_until_the_device_is_back() {
    let patient = Patient::new();
    let mut world = World::new(vec![faulty("card", &patient, true), software()]);
    world.add(Fallback::Never).unwrap();
    world.pass("traffic", 20);
    patient.set(Ailment::Silent);
    world.until("drops are counted", |world| world.dropped(DropReason::DeviceDown) > 20);
    assert_eq!(world.sas(), [2, 0]);
    let refused = world.add(Fallback::Never).unwrap_err().to_string();
    assert_eq!(refused, "accelerator card is out of order, and `fallback = \"never\"`");
    // One that may is served in software meanwhile.
    world.lines = 5;
    let other = world.add(Fallback::Soft).unwrap();
    assert_eq!((world.sas(), other), (vec![2, 2], 5));
    let before = world.peer.seen.iter().filter(|(spi, _)| *spi == OUT).count();
    world.pass("others go on", 20);
    assert_eq!(world.peer.seen.iter().filter(|(spi, _)| *spi == OUT).count(), before);
    patient.set(Ailment::None);
    world.until("everything is on the card", |world| world.sas() == [4, 0] && world.is_well(0));
    let seen = |world: &World| world.peer.seen.iter().filter(|(spi, _)| *spi == OUT).count();
    world.until("traffic of the first one goes on", |world| seen(world) > before + 20);
    world.come_to_rest();
}

#[test]
fn of_two_cards_each_has_half_and_one_has_all_when_the_other_is_dead() {
    let (one, two) = (Patient::new(), Patient::new());
    let mut world = World::new(vec![faulty("one", &one, true), faulty("two", &two, true), software()]);
    for _ in 0..4 {
        world.add(Fallback::SameClass).unwrap();
    }
    assert_eq!(world.sas(), [4, 4, 0]);
    world.pass("traffic", 40);
    one.set(Ailment::Dead);
    world.until("all are on the other", |world| world.sas() == [0, 8, 0]);
    world.pass("traffic on the other", 40);
    two.set(Ailment::Dead);
    world.until("drops are counted", |world| world.dropped(DropReason::DeviceDown) > 20);
    assert_eq!(world.sas()[2], 0, "software may not");
    one.set(Ailment::None);
    two.set(Ailment::None);
    world.until("each has half again", |world| {
        world.sas() == [4, 4, 0] && world.is_well(0) && world.is_well(1)
    });
    world.pass("traffic on both", 40);
    world.come_to_rest();
}

#[test]
fn a_realms_sas_are_on_the_devices_that_it_names() {
    let (one, two) = (Patient::new(), Patient::new());
    let mut world = World::new(vec![faulty("one", &one, true), faulty("two", &two, true), software()]);
    world.add_on(Fallback::Never, &["two"]).unwrap();
    world.add_on(Fallback::Never, &["two", "soft"]).unwrap();
    world.add_on(Fallback::Never, &["soft"]).unwrap();
    assert_eq!(world.sas(), [0, 4, 2]);
    world.pass("traffic", 20);
    two.set(Ailment::Dead);
    world.until("the one that names software is there, the other waits", |world| world.sas() == [0, 2, 4]);
    let refused = world.add_on(Fallback::Never, &["two"]).unwrap_err().to_string();
    assert_eq!(refused, "accelerator two is out of order, and `fallback = \"never\"`");
    let line = world.add_on(Fallback::SameClass, &["two"]).unwrap();
    assert_eq!(world.sas(), [2, 2, 4], "another card may");
    two.set(Ailment::None);
    world.until("all are home", |world| world.sas() == [0, 6, 2] && world.is_well(1));
    // The realm is told to use the other card.
    let one: Arc<[String]> = ["one".to_owned()].into();
    world.accel.set_policies(|_| (Fallback::Never, Arc::clone(&one)));
    world.until("all have moved", |world| world.sas() == [8, 0, 0]);
    world.pass("traffic on the other card", 20);
    assert_eq!(line, 3);
    world.come_to_rest();
}

#[test]
fn a_realm_that_names_nothing_that_can_is_told_so() {
    let patient = Patient::new();
    let mut world = World::new(vec![faulty("card", &patient, true), software()]);
    let refused = world.add_on(Fallback::Never, &["gone"]).unwrap_err().to_string();
    assert_eq!(refused, "the realm's `accel` (gone) cannot carry it, and `fallback = \"never\"`");
    world.add_on(Fallback::Soft, &["gone"]).unwrap();
    assert_eq!(world.sas(), [2, 0], "as if it had named nothing");
    world.come_to_rest();
}

#[test]
fn the_card_that_has_less_to_do_gets_the_next_sas_however_many_it_has() {
    let (one, two) = (Patient::new(), Patient::new());
    let mut world = World::new(vec![faulty("one", &one, true), faulty("two", &two, true), software()]);
    for _ in 0..3 {
        world.add(Fallback::Soft).unwrap();
    }
    assert_eq!(world.sas(), [3, 3, 0]);
    world.until("what both carry is measured", |world| {
        world.accel.slots[..2].iter().all(|slot| slot.tally.load() > 1000)
    });
    // An SA on the first carries as much as a hundred others.
    let fat = |world: &World| world.accel.slots[0].carried[0].fetch_add(1 << 22, Ordering::Relaxed);
    world.until("that is noticed", |world| {
        fat(world);
        world.accel.slots[0].tally.load() > 100_000_000
    });
    for _ in 0..3 {
        world.add(Fallback::Soft).unwrap();
    }
    assert_eq!(world.sas(), [3, 9, 0], "all of them go to the other");
    world.until("it is over", |world| world.accel.slots[0].tally.load() < 1_000_000);
    world.add(Fallback::Soft).unwrap();
    assert_eq!(world.sas(), [5, 9, 0]);
    world.come_to_rest();
}

#[test]
fn a_device_that_is_missing_at_the_start_is_used_when_it_comes() {
    let patient = Patient::new();
    patient.set_absent(true);
    let mut world = World::new(vec![faulty("card", &patient, true), software()]);
    assert_eq!(world.accel.slots[0].why, "there is no such device");
    let refused = world.add(Fallback::SameClass).unwrap_err().to_string();
    assert_eq!(refused, "accelerator card is out of order, and `fallback = \"same-class\"`");
    world.add(Fallback::Soft).unwrap();
    world.pass("traffic in software", 20);
    assert_eq!(world.sas(), [0, 2]);
    patient.set_absent(false);
    world.until("it is on the card", |world| world.sas() == [2, 0]);
    world.pass("traffic on the card", 20);
    assert!(patient.done() > 20);
    world.come_to_rest();
}

#[test]
fn keys_are_kept_only_where_an_sa_could_move() {
    let kept = |sources: Vec<Source>| {
        let mut world = World::new(sources);
        world.add(Fallback::Soft).unwrap();
        world.accel.is_stale(World::id(0, Direction::Seal))
    };
    assert!(!kept(vec![software()]), "there is nowhere to go");
    assert!(kept(vec![faulty("card", &Patient::new(), true), software()]));
}

fn derive(world: &mut World, token: u64) {
    // RFC 7748 section 6.1, as the engine would ask for it.
    let octets = |hex: &str| crate::config::units::hex(hex).unwrap();
    let ours = octets("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb");
    let theirs = octets("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a");
    let ours = spi::DhPrivate::Bytes(Secret::new(ours));
    let op = CryptoOp::DhDerive { group: Group::X25519, ours, theirs };
    world.accel.submit(CryptoJob { token: Token(token), op });
}

#[test]
fn an_operation_that_its_device_fails_or_loses_is_issued_again_elsewhere() {
    for ailment in [Ailment::Failing, Ailment::Silent, Ailment::Hoarding, Ailment::Dead] {
        let patient = Patient::new();
        let mut world = World::new(vec![faulty("card", &patient, true), software()]);
        // The watcher may notice first; then it is not even tried there.
        patient.set(ailment);
        let (mut next, mut aborted) = (1, 0);
        derive(&mut world, next);
        let begun = Instant::now();
        let secret = loop {
            assert!(begun.elapsed() < Duration::from_secs(60), "{ailment:?}: no answer");
            world.work(Instant::now());
            let mut done = Vec::new();
            world.accel.poll_operations(|operation| done.push(operation));
            match done.pop() {
                Some(CryptoDone { outcome: Outcome::Done, output: CryptoOutput::Secret(secret), .. }) => {
                    break secret;
                }
                // What the engine does (RFC 7296 knows nothing of devices).
                Some(CryptoDone { token, outcome: Outcome::Failed(fault), .. }) => {
                    assert_eq!((token, fault.kind), (Token(next), spi::FaultKind::Aborted), "{ailment:?}");
                    aborted += 1;
                    next += 1;
                    derive(&mut world, next);
                }
                Some(_) => panic!("{ailment:?}: neither done nor failed"),
                None => std::thread::sleep(Duration::from_millis(1)),
            }
        };
        assert_eq!(secret.expose()[..4], [0x4a, 0x5d, 0x9d, 0x5b]);
        assert!(aborted <= 1, "{ailment:?}: issued again {aborted} times");
        assert!(world.accel.out.is_empty());
        patient.set(Ailment::None);
        world.until("the card is well", |world| world.is_well(0));
    }
}
