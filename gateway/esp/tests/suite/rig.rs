//! Two ends in memory: each an `Esp` with a device, a clock that only the test moves, and no network.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use esp::{
    ChildId, DfPolicy, DscpPolicy, EcnPolicy, Encap, Esp, Event, InboundSa, Inner, Limits, Mode, Offload,
    OutboundSa, Outer, Output, Path, PeerMoves, UdpEncap, Verdict,
};
use hwtest::{Pace, SlowDevice};
use spi::{Device, Direction, Driver, Encr, EspQueue, Integ, Pool, QueueConfig, SaParams, Secret};
use wire::TrafficSelector;
use wire::ip::{Ipv4Emit, Ipv6Emit, Sum};

pub(crate) const CHILD: ChildId = ChildId(1);
/// SPI of what the left end sends.
pub(crate) const TO_RIGHT: u32 = 0x1001;
/// SPI of what the right end sends.
pub(crate) const TO_LEFT: u32 = 0x2002;
pub(crate) const LEFT_IFACE: u32 = 11;
pub(crate) const RIGHT_IFACE: u32 = 22;

/// What the two ends agree on.
#[derive(Clone)]
pub(crate) struct Deal {
    pub(crate) encr: Encr,
    pub(crate) integ: Integ,
    pub(crate) esn: bool,
    pub(crate) udp: bool,
    pub(crate) transport: bool,
    pub(crate) left: &'static str,
    pub(crate) right: &'static str,
    pub(crate) ts_left: Vec<TrafficSelector>,
    pub(crate) ts_right: Vec<TrafficSelector>,
    pub(crate) window: u32,
    pub(crate) tfc: Option<u16>,
    pub(crate) dummy: Option<Duration>,
    pub(crate) keepalive: Option<Duration>,
    pub(crate) df: DfPolicy,
    pub(crate) dscp: DscpPolicy,
    pub(crate) ecn: EcnPolicy,
    pub(crate) mtu: u16,
    pub(crate) limits: Limits,
    pub(crate) moves: PeerMoves,
}

impl Default for Deal {
    fn default() -> Self {
        Deal {
            encr: Encr::AES128_GCM16,
            integ: Integ::NONE,
            esn: false,
            udp: true,
            transport: false,
            left: "192.0.2.1",
            right: "192.0.2.2",
            ts_left: vec![ts("10.1.0.0/16"), ts("2001:db8:1::/48")],
            ts_right: vec![ts("10.2.0.0/16"), ts("2001:db8:2::/48")],
            window: 1024,
            tfc: None,
            dummy: None,
            keepalive: None,
            df: DfPolicy::Copy,
            dscp: DscpPolicy::Copy,
            ecn: EcnPolicy::Copy,
            mtu: 1500,
            limits: Limits::default(),
            moves: PeerMoves::Report,
        }
    }
}

/// A packet on the outer network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wire {
    pub(crate) path: Path,
    pub(crate) tos: u8,
    pub(crate) df: bool,
    pub(crate) bytes: Vec<u8>,
}

/// One end.
pub(crate) struct End {
    pub(crate) esp: Esp,
    pub(crate) pool: Pool,
    pub(crate) device: Arc<dyn Device>,
    pub(crate) queue: Box<EspQueue>,
    pub(crate) out: Output,
    pub(crate) now: Instant,
    pub(crate) iface: u32,
    pub(crate) sent: Vec<Wire>,
    pub(crate) written: Vec<Vec<u8>>,
    pub(crate) icmp: Vec<Vec<u8>>,
    pub(crate) events: Vec<Event>,
    pub(crate) keepalives: Vec<Path>,
}

pub(crate) fn ts(text: &str) -> TrafficSelector {
    text.parse().unwrap_or_else(|_| panic!("selector {text}"))
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn soft() -> Arc<dyn Device> {
    let driver = soft::Soft::new(0);
    let desc = driver.probe().remove(0);
    driver.open(&desc).unwrap()
}

impl End {
    pub(crate) fn new(iface: u32) -> End {
        End::over(soft(), iface, |_| {})
    }

    pub(crate) fn over(device: Arc<dyn Device>, iface: u32, change: impl FnOnce(&mut esp::Config)) -> End {
        End::with_depth(device, iface, 64, change)
    }

    pub(crate) fn with_depth(
        device: Arc<dyn Device>,
        iface: u32,
        depth: usize,
        change: impl FnOnce(&mut esp::Config),
    ) -> End {
        let pool = Pool::new(70_000, 32).unwrap();
        let mut config = esp::Config::new(pool.clone());
        config.seed = 42;
        change(&mut config);
        let mut esp = Esp::new(config);
        let queue = device.esp_queue(QueueConfig { depth, cpu: None }).unwrap();
        assert_eq!(esp.add_device(queue.room()), 0);
        End {
            esp,
            pool,
            device,
            queue,
            out: Output::new(),
            now: Instant::now(),
            iface,
            sent: Vec::new(),
            written: Vec::new(),
            icmp: Vec::new(),
            events: Vec::new(),
            keepalives: Vec::new(),
        }
    }

    pub(crate) fn slow(iface: u32, seed: u64) -> End {
        let pace = Pace { seed, least: 0, most: 5, shuffle: true };
        End::over(Arc::new(SlowDevice::new(soft(), pace)), iface, |_| {})
    }

    /// Hands in a packet from the interface.
    pub(crate) fn inner(&mut self, packet: &[u8]) -> Verdict {
        self.inner_with(packet, Offload::default())
    }

    pub(crate) fn inner_with(&mut self, packet: &[u8], offload: Offload) -> Verdict {
        let inner = Inner::new(self.iface, packet, offload);
        self.esp.handle_inner(self.now, inner, &mut self.out)
    }

    /// Hands in a packet from the socket, as it was sent.
    pub(crate) fn outer(&mut self, wire: &Wire) {
        let from = wire.path.local;
        self.outer_from(wire, from);
    }

    pub(crate) fn outer_from(&mut self, wire: &Wire, from: SocketAddr) {
        let outer = Outer { from, to: wire.path.remote, encap: wire.path.encap, tos: wire.tos };
        self.esp.handle_outer(self.now, &outer, &wire.bytes, &mut self.out);
    }

    /// What the worker does with its queue, until nothing is out.
    pub(crate) fn turn(&mut self) {
        self.esp.flush(self.now, &mut self.out);
        for _ in 0..10_000 {
            self.step();
            if self.queue.in_flight() == 0 && self.out.submit.iter().all(|q| q.is_empty()) {
                return;
            }
        }
        panic!("the queue never got empty");
    }

    /// Submits and polls once, and collects what came out.
    pub(crate) fn step(&mut self) {
        for jobs in &mut self.out.submit {
            if !jobs.is_empty() {
                self.queue.submit(jobs).unwrap();
                assert!(jobs.is_empty(), "there was room for all of them");
            }
        }
        let (esp, out, now) = (&mut self.esp, &mut self.out, self.now);
        self.queue.poll(usize::MAX, &mut |burst| esp.on_done(now, burst, out));
        self.collect();
    }

    pub(crate) fn collect(&mut self) {
        for packets in self.out.outer.drain(..) {
            for run in packets.runs(64, 65_000) {
                let bytes = &packets.buf.bytes()[run.range.clone()];
                for one in bytes.chunks(run.segment) {
                    let path = packets.path;
                    self.sent.push(Wire { path, tos: run.tos, df: run.df, bytes: one.to_vec() });
                }
            }
        }
        for packets in self.out.inner.drain(..) {
            let to = if packets.child.is_some() { &mut self.written } else { &mut self.icmp };
            to.extend(packets.packets().map(<[u8]>::to_vec));
            assert_eq!(packets.iface, self.iface);
        }
        self.events.extend(self.out.events.drain(..));
        self.keepalives.extend(self.out.keepalives.drain(..));
    }

    pub(crate) fn later(&mut self, by: Duration) {
        self.now += by;
        self.esp.handle_timeout(self.now, &mut self.out);
        self.turn();
    }

    pub(crate) fn take_sent(&mut self) -> Vec<Wire> {
        std::mem::take(&mut self.sent)
    }

    pub(crate) fn take_written(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.written)
    }

    pub(crate) fn dropped(&self, reason: esp::DropReason) -> u64 {
        self.esp.counters().drops.of(reason)
    }

    /// An SA in the device; both ends make the same keys from the SPI.
    pub(crate) fn keys(&self, deal: &Deal, spi: u32, dir: Direction) -> spi::SaId {
        let encr = deal.encr.info().unwrap();
        let key = |len: usize, salt: u8| Secret::new((0..len).map(|i| i as u8 ^ salt ^ spi as u8).collect());
        let params = SaParams {
            spi,
            dir,
            encr: deal.encr,
            integ: deal.integ,
            encr_key: key(encr.key_len + encr.salt_len, 0x55),
            integ_key: key(deal.integ.info().unwrap().key_len, 0xaa),
            esn: deal.esn,
        };
        self.device.install_sa(&params).unwrap()
    }

    pub(crate) fn outbound(&self, deal: &Deal, spi: u32) -> OutboundSa {
        let side = Side::of(self, deal);
        OutboundSa {
            child: CHILD,
            spi,
            device: 0,
            sa: self.keys(deal, spi, Direction::Seal),
            encr: deal.encr,
            integ: deal.integ,
            esn: deal.esn,
            mode: side.mode,
            encap: side.encap,
            ts_local: side.ts_local,
            ts_remote: side.ts_remote,
            iface: None,
            priority: 1000,
            tfc: deal.tfc,
            dummy: deal.dummy,
            keepalive: deal.keepalive,
            df: deal.df,
            dscp: deal.dscp,
            ecn: deal.ecn,
            path_mtu: deal.mtu,
            limits: deal.limits,
            waits: false,
            at_once: false,
            share: None,
        }
    }

    pub(crate) fn inbound(&self, deal: &Deal, spi: u32) -> InboundSa {
        let side = Side::of(self, deal);
        InboundSa {
            child: CHILD,
            spi,
            device: 0,
            sa: self.keys(deal, spi, Direction::Open),
            encr: deal.encr,
            integ: deal.integ,
            esn: deal.esn,
            mode: side.mode,
            encap: side.encap,
            ts_local: side.ts_local,
            ts_remote: side.ts_remote,
            iface: self.iface,
            replay_window: deal.window,
            moves: deal.moves,
            pair: None,
            limits: deal.limits,
            share: None,
        }
    }

    pub(crate) fn install(&mut self, deal: &Deal) {
        let (out, back) = if self.iface == LEFT_IFACE { (TO_RIGHT, TO_LEFT) } else { (TO_LEFT, TO_RIGHT) };
        let (o, i) = (self.outbound(deal, out), self.inbound(deal, back));
        self.esp.install_inbound(i, self.now).unwrap();
        self.esp.install_outbound(o, self.now).unwrap();
    }
}

struct Side {
    mode: Mode,
    encap: Option<UdpEncap>,
    ts_local: Vec<TrafficSelector>,
    ts_remote: Vec<TrafficSelector>,
}

impl Side {
    fn of(end: &End, deal: &Deal) -> Side {
        let (l, r) = (ip(deal.left), ip(deal.right));
        let is_left = end.iface == LEFT_IFACE;
        let (local, remote) = if is_left { (l, r) } else { (r, l) };
        let (mine, theirs) =
            if is_left { (&deal.ts_left, &deal.ts_right) } else { (&deal.ts_right, &deal.ts_left) };
        let port = |a| SocketAddr::new(a, 4500);
        Side {
            mode: match deal.transport {
                true => Mode::Transport { local, remote, original: None },
                false => Mode::Tunnel { local, remote },
            },
            encap: deal.udp.then(|| UdpEncap { local: port(local), remote: port(remote) }),
            ts_local: mine.clone(),
            ts_remote: theirs.clone(),
        }
    }
}

/// Two ends with an SA each way.
pub(crate) fn pair(deal: &Deal) -> (End, End) {
    let (mut left, mut right) = (End::new(LEFT_IFACE), End::new(RIGHT_IFACE));
    left.install(deal);
    right.install(deal);
    (left, right)
}

/// Carries everything one end has sent to the other, and lets that one work.
pub(crate) fn carry(from: &mut End, to: &mut End) {
    for wire in from.take_sent() {
        to.outer(&wire);
    }
    to.turn();
}

/// A UDP datagram in IPv4, DF set.
pub(crate) fn udp4(src: &str, dst: &str, ports: (u16, u16), len: usize) -> Vec<u8> {
    v4(src, dst, 17, &udp(ports, len), true)
}

/// A UDP datagram in IPv6.
pub(crate) fn udp6(src: &str, dst: &str, ports: (u16, u16), len: usize) -> Vec<u8> {
    v6(src, dst, 17, &udp(ports, len))
}

pub(crate) fn udp(ports: (u16, u16), len: usize) -> Vec<u8> {
    let mut bytes = [ports.0.to_be_bytes(), ports.1.to_be_bytes()].concat();
    bytes.extend((8 + len as u16).to_be_bytes());
    bytes.extend([0, 0]);
    bytes.extend((0..len).map(|i| (i * 7) as u8));
    bytes
}

/// A TCP segment with a right checksum; a SYN carries an MSS option.
pub(crate) fn tcp4(src: &str, dst: &str, syn_mss: Option<u16>, len: usize) -> Vec<u8> {
    let mut tcp = vec![0x30, 0x39, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x10, 0xff, 0xff, 0, 0, 0, 0];
    if let Some(mss) = syn_mss {
        tcp[12] = 0x60;
        tcp[13] = 0x02;
        tcp.extend([2, 4]);
        tcp.extend(mss.to_be_bytes());
    }
    tcp.extend((0..len).map(|i| (i * 3) as u8));
    let sum = Sum::new().pseudo(ip(src), ip(dst), 6, tcp.len()).octets(&tcp).finish();
    tcp[16..18].copy_from_slice(&sum.to_be_bytes());
    v4(src, dst, 6, &tcp, true)
}

pub(crate) fn v4(src: &str, dst: &str, protocol: u8, payload: &[u8], df: bool) -> Vec<u8> {
    let emit = Ipv4Emit { df, id: 77, ..Ipv4Emit::new(src.parse().unwrap(), dst.parse().unwrap(), protocol) };
    [emit.emit(payload.len()).unwrap().as_slice(), payload].concat()
}

pub(crate) fn v6(src: &str, dst: &str, next: u8, payload: &[u8]) -> Vec<u8> {
    let emit = Ipv6Emit::new(src.parse().unwrap(), dst.parse().unwrap(), next);
    [emit.emit(payload.len()).unwrap().as_slice(), payload].concat()
}

/// Seals a payload of the test's own making, as a peer that knows the keys could.
pub(crate) fn forge(end: &End, deal: &Deal, spi: u32, seq: u64, plain: &[u8]) -> Wire {
    let info = deal.encr.info().unwrap();
    let icv = info.icv_len + deal.integ.info().unwrap().icv_len;
    let sa = end.keys(deal, spi, Direction::Seal);
    let mut queue = end.device.esp_queue(QueueConfig::default()).unwrap();
    let mut buf = Pool::new(70_000, 1).unwrap().take().unwrap();
    let at = 8 + info.iv_len;
    buf.bytes_mut()[at..at + plain.len()].copy_from_slice(plain);
    buf.push_op(spi::EspOp::new(0, plain.len() as u16, seq)).unwrap();
    let burst = spi::EspBurst { token: spi::Token(9), sa, dir: Direction::Seal, buf };
    queue.submit(&mut [burst].into_iter().collect()).unwrap();
    let mut bytes = Vec::new();
    while queue.in_flight() > 0 {
        queue.poll(9, &mut |b: spi::EspBurst| bytes = b.buf.op_bytes(0).to_vec());
    }
    assert_eq!(bytes.len(), at + plain.len() + icv);
    let (l, r) = (SocketAddr::new(ip(deal.left), 4500), SocketAddr::new(ip(deal.right), 4500));
    let (local, remote) = if spi == TO_RIGHT { (l, r) } else { (r, l) };
    Wire { path: Path { local, remote, encap: Encap::Udp }, tos: 0, df: false, bytes }
}

/// A payload with padding to a multiple of four and a trailer.
pub(crate) fn trailed(payload: &[u8], next_header: u8) -> Vec<u8> {
    let mut plain = payload.to_vec();
    let pad = (4 - (plain.len() + 2) % 4) % 4;
    plain.extend(1..=pad as u8);
    plain.extend([pad as u8, next_header]);
    plain
}
