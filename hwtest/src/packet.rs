//! Packets: every declared transform seals and opens, refuses what it must, and touches nothing else.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use spi::caps::EspCap;
use spi::esp::{HEADER_LEN, MAX_OPS};
use spi::{
    Device, Direction, Driver, Encr, EspBurst, EspOp, EspQueue, FaultKind, Integ, Outcome, PacketBuf, Pool,
    QueueConfig, Reject, SaId, Token,
};

use crate::ring::{DEADLINE, devices, params};
use crate::seed::Seeded;

/// One packet queue and a few buffers.
pub(crate) struct Bench {
    pool: Pool,
    queue: Box<EspQueue>,
}

impl Bench {
    pub(crate) fn new(device: &dyn Device) -> Self {
        let pool = Pool::new(64 * 1024, 4).expect("memory for a pool");
        device.register(pool.region()).expect("the device maps a pool");
        let queue = device.esp_queue(QueueConfig { depth: 4, cpu: None }).expect("a packet queue");
        Bench { pool, queue }
    }

    pub(crate) fn take(&self) -> PacketBuf {
        self.pool.take().expect("a buffer")
    }

    /// Runs one burst to its end.
    pub(crate) fn run(&mut self, sa: SaId, dir: Direction, buf: PacketBuf) -> PacketBuf {
        let mut jobs = VecDeque::from([EspBurst { token: Token(1), sa, dir, buf }]);
        assert_eq!(self.queue.submit(&mut jobs), Ok(1), "an empty ring takes a burst");
        let start = Instant::now();
        let mut back = None;
        while back.is_none() {
            let polled = self.queue.poll(1, &mut |done: EspBurst| back = Some(done));
            if polled.delivered == 0 {
                assert!(start.elapsed() < DEADLINE, "a burst has not come back");
                std::thread::sleep(Duration::from_micros(20));
            }
        }
        let done = back.expect("the loop above ends with it");
        assert_eq!((done.sa, done.dir), (sa, dir), "the burst was changed");
        done.buf
    }

    /// Runs a burst of one operation over zeroes.
    pub(crate) fn one(&mut self, sa: SaId, dir: Direction, op: EspOp) -> Option<EspOp> {
        let mut buf = self.take();
        buf.push_op(op).expect("one operation fits");
        self.run(sa, dir, buf).ops().first().copied()
    }
}

/// A transform, installed both ways.
pub(crate) struct Pair {
    pub(crate) cap: EspCap,
    pub(crate) esn: bool,
    pub(crate) seal: SaId,
    pub(crate) open: SaId,
    pub(crate) head: usize,
    pub(crate) icv: usize,
    pub(crate) block: usize,
}

impl Pair {
    pub(crate) fn new(device: &dyn Device, cap: &EspCap, esn: bool) -> Self {
        let install =
            |dir| device.install_sa(&params(cap, dir, esn, 77)).expect("a declared transform is installed");
        let info = cap.encr.info().expect("in the table");
        Pair {
            cap: *cap,
            esn,
            seal: install(Direction::Seal),
            open: install(Direction::Open),
            head: HEADER_LEN + info.iv_len,
            icv: info.icv_len + cap.integ.info().expect("in the table").icv_len,
            block: info.block,
        }
    }

    pub(crate) fn remove(&self, device: &dyn Device) {
        device.remove_sa(self.seal);
        device.remove_sa(self.open);
    }

    pub(crate) fn name(&self) -> String {
        format!("{} {} esn {}", self.cap.encr, self.cap.integ, self.esn)
    }
}

/// What every octet of a buffer holds where no packet is.
const GUARD: u8 = 0xc3;

/// Lays packets of the given lengths of text out in a buffer, each at an alignment of its own, and gives their texts.
fn lay_out(buf: &mut PacketBuf, pair: &Pair, lengths: &[usize], seeded: &mut Seeded) -> Vec<Vec<u8>> {
    let mut at = 0;
    let mut places = Vec::new();
    for len in lengths.iter().copied() {
        at += 1 + seeded.below(63);
        if at + pair.head + len + pair.icv > buf.capacity() {
            break;
        }
        places.push((at, len));
        at += pair.head + len + pair.icv;
    }
    lay_out_at(buf, pair, &places, seeded)
}

/// Lays packets out at given places, and gives their texts.
fn lay_out_at(
    buf: &mut PacketBuf,
    pair: &Pair,
    places: &[(usize, usize)],
    seeded: &mut Seeded,
) -> Vec<Vec<u8>> {
    buf.bytes_mut().fill(GUARD);
    let mut texts = Vec::new();
    for (n, (at, len)) in places.iter().copied().enumerate() {
        let mut text = vec![0; len];
        seeded.fill(&mut text);
        buf.bytes_mut()[at + pair.head..at + pair.head + len].copy_from_slice(&text);
        let seq = 0x0000_0001_ffff_fff0 + n as u64;
        let seq = if pair.esn { seq } else { seq & 0xffff_ffff };
        buf.push_op(EspOp { mark: n as u16, ..EspOp::new(at as u32, len as u16, seq) }).expect("it fits");
        texts.push(text);
    }
    texts
}

/// Checks that nothing but `ranges` was written to.
fn guards_stand(buf: &PacketBuf, ranges: &[(usize, usize)], name: &str) {
    let mut at = 0;
    for (start, end) in ranges.iter().copied().chain([(buf.capacity(), buf.capacity())]) {
        let between = buf.bytes().get(at..start).unwrap_or_default();
        assert!(
            between.iter().all(|octet| *octet == GUARD),
            "{name}: octets outside the packets were written"
        );
        at = end;
    }
}

/// Seals and opens bursts of packets of every length in `lengths`, and checks every octet there is.
pub(crate) fn round_trip(bench: &mut Bench, pair: &Pair, lengths: &[usize], seeded: &mut Seeded) {
    // So many that they fit: a burst that is cut short would leave lengths out.
    let mut rest = lengths;
    while !rest.is_empty() {
        let mut buf = bench.take();
        let some = &rest[..rest.len().min(MAX_OPS.min(24))];
        let texts = lay_out(&mut buf, pair, some, seeded);
        assert!(!texts.is_empty(), "{}: a packet of {} octets fits no buffer", pair.name(), rest[0]);
        rest = &rest[texts.len()..];
        there_and_back(bench, pair, buf, &texts);
    }
}

/// The same at given places.
pub(crate) fn round_trip_at(bench: &mut Bench, pair: &Pair, places: &[(usize, usize)], seeded: &mut Seeded) {
    let mut buf = bench.take();
    let texts = lay_out_at(&mut buf, pair, places, seeded);
    there_and_back(bench, pair, buf, &texts);
}

fn there_and_back(bench: &mut Bench, pair: &Pair, buf: PacketBuf, texts: &[Vec<u8>]) {
    let name = pair.name();
    let before: Vec<EspOp> = buf.ops().to_vec();
    let buf = bench.run(pair.seal, Direction::Seal, buf);
    let mut ranges = Vec::new();
    for (op, asked) in buf.ops().iter().zip(&before) {
        assert_eq!(op.outcome, Outcome::Done, "{name}: {} octets at {}", asked.len, asked.at);
        assert_eq!((op.mark, op.seq, op.at), (asked.mark, asked.seq, asked.at), "{name}: operation changed");
        assert_eq!(
            op.len as usize,
            pair.head + asked.len as usize + pair.icv,
            "{name}: length of the packet"
        );
        let start = op.at as usize;
        assert_eq!(
            buf.bytes()[start + 4..start + 8],
            (op.seq as u32).to_be_bytes(),
            "{name}: sequence number"
        );
        ranges.push((start, start + op.len as usize));
    }
    assert_eq!(buf.ops().len(), texts.len(), "{name}: operations went missing");
    guards_stand(&buf, &ranges, &name);

    let mut buf = buf;
    for op in buf.ops_mut() {
        op.outcome = Outcome::Pending;
    }
    let buf = bench.run(pair.open, Direction::Open, buf);
    for (n, text) in texts.iter().enumerate() {
        assert_eq!(buf.ops()[n].outcome, Outcome::Done, "{name}: {} octets", text.len());
        assert_eq!(buf.op_bytes(n), text, "{name}: another text came out");
    }
    guards_stand(&buf, &ranges, &name);
}

/// Every declared transform, with and without ESN where declared, opens what it sealed: at any length, at any alignment,
/// and without writing to an octet that is not its own.
pub fn every_declared_transform_opens_what_it_sealed(driver: &dyn Driver) {
    for device in devices(driver) {
        let caps = &device.desc().caps;
        if caps.esp.is_empty() {
            continue;
        }
        let mut bench = Bench::new(&*device);
        let mut seeded = Seeded::new(21);
        for cap in &caps.esp {
            for esn in [false, true].into_iter().filter(|esn| cap.esn || !esn) {
                let pair = Pair::new(&*device, cap, esn);
                let most = caps.max_len.min(4096) - pair.head - pair.icv;
                let whole = |len: usize| len.min(most) / pair.block * pair.block;
                let mut lengths: Vec<usize> = [0, 16, 32, 48, 64, 1024, 1408, 1504, 2048].map(whole).to_vec();
                lengths.extend((0..8).map(|_| whole(seeded.below(4096))));
                round_trip(&mut bench, &pair, &lengths, &mut seeded);
                pair.remove(&*device);
            }
        }
    }
}

/// A changed octet spoils its own packet and no other of the burst; with ESN a wrong high half does too.
pub fn a_changed_octet_spoils_its_own_packet_only(driver: &dyn Driver) {
    for device in devices(driver) {
        let caps = &device.desc().caps;
        if caps.esp.is_empty() {
            continue;
        }
        let mut bench = Bench::new(&*device);
        let mut seeded = Seeded::new(23);
        for cap in &caps.esp {
            for esn in [false, true].into_iter().filter(|esn| cap.esn || !esn) {
                let pair = Pair::new(&*device, cap, esn);
                let name = pair.name();
                let mut buf = bench.take();
                lay_out(&mut buf, &pair, &[64; 12], &mut seeded);
                let mut buf = bench.run(pair.seal, Direction::Seal, buf);
                let mut expected = Vec::new();
                let (bytes, ops) = buf.split_mut();
                for (n, op) in ops.iter_mut().enumerate() {
                    assert_eq!(op.outcome, Outcome::Done, "{name}");
                    op.outcome = Outcome::Pending;
                    let spoiled = match n % 4 {
                        1 => {
                            // First SPI and sequence number, which a device may think it knows; then anywhere.
                            let within = match n {
                                1 => seeded.below(4),
                                5 => 4 + seeded.below(4),
                                _ => seeded.below(op.len as usize),
                            };
                            let at = op.at as usize + within;
                            bytes[at] ^= 1 << seeded.below(8);
                            true
                        }
                        3 if pair.esn => {
                            op.seq ^= 1 << (32 + seeded.below(32));
                            true
                        }
                        _ => false,
                    };
                    expected.push(if spoiled { Outcome::Rejected(Reject::BadIcv) } else { Outcome::Done });
                }
                let buf = bench.run(pair.open, Direction::Open, buf);
                let outcomes: Vec<Outcome> = buf.ops().iter().map(|op| op.outcome).collect();
                assert_eq!(outcomes, expected, "{name}");
                pair.remove(&*device);
            }
        }
    }
}

/// A packet too short for its header, IV and ICV is refused, and so is an operation that leaves its buffer.
pub fn impossible_lengths_are_refused(driver: &dyn Driver) {
    for device in devices(driver) {
        let caps = &device.desc().caps;
        if caps.esp.is_empty() {
            continue;
        }
        let mut bench = Bench::new(&*device);
        for cap in &caps.esp {
            let pair = Pair::new(&*device, cap, false);
            let name = pair.name();
            let refused = Some(Outcome::Rejected(Reject::BadLength));
            for len in [0, 1, 7, 8, pair.head, pair.head + pair.icv - 1] {
                let op = bench.one(pair.open, Direction::Open, EspOp::new(0, len as u16, 1));
                assert_eq!(op.map(|op| op.outcome), refused, "{name}: {len} octets");
            }
            let end = bench.take().capacity() as u32;
            for (sa, dir, at, len) in [
                (pair.seal, Direction::Seal, end, 0),
                (pair.seal, Direction::Seal, end - 64, 64),
                (pair.open, Direction::Open, end, 0),
            ] {
                let op = bench.one(sa, dir, EspOp::new(at, len, 1));
                assert_eq!(op.map(|op| op.outcome), refused, "{name}: {len} octets at {at}");
            }
            if cap.encr.info().is_some_and(|info| info.block == 16) {
                let len = (pair.head + pair.icv + 17) as u16;
                let op = bench.one(pair.open, Direction::Open, EspOp::new(0, len, 1));
                assert_eq!(op.map(|op| op.outcome), refused, "{name}: not whole blocks");
            }
            pair.remove(&*device);
        }
    }
}

/// What is not declared is refused when the SA is installed, as unsupported, and not when its first packet comes.
pub fn undeclared_transforms_are_not_installed(driver: &dyn Driver) {
    for device in devices(driver) {
        let caps = &device.desc().caps;
        for encr in Encr::ALL.iter().copied() {
            for integ in Integ::ALL.iter().copied() {
                if caps.carries(encr, integ, false) {
                    continue;
                }
                let cap = EspCap { encr, integ, esn: false };
                let got = device.install_sa(&params(&cap, Direction::Seal, false, 5));
                let kind = got.map_err(|fault| fault.kind).err();
                assert_eq!(kind, Some(FaultKind::Unsupported), "{encr} {integ}");
            }
        }
    }
}
