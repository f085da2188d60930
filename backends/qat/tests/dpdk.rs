//! DPDK's software devices keep the contract, agree with software of another origin, and say what is in their way.
#![cfg(feature = "dpdk")]
#![allow(clippy::unwrap_used)]

mod support {
    pub(crate) mod alone;
}

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use hwtest::ring::params;
use hwtest::seed::Seeded;
use qat::{Dpdk, DpdkPlace, DpdkSite};
use soft::Soft;
use spi::caps::EspCap;
use spi::crypto::KeySource;
use spi::pend::Pend;
use spi::{
    CryptoDone, CryptoOp, CryptoOutput, Device, Direction, Driver, Encr, EspBurst, EspOp, EspQueue, Fault,
    FaultKind, Group, Hash, Health, Integ, Outcome, Pool, QueueConfig, Reject, SaId, Secret, SignScheme,
    Token,
};
use support::alone::alone;

fn software(driver: &str) -> Dpdk {
    Dpdk::new(vec![DpdkSite { name: "dpdk0".into(), place: DpdkPlace::Software(driver.into()) }])
}

fn open(driver: &dyn Driver) -> Result<Arc<dyn Device>, Fault> {
    driver.open(&driver.probe()[0])
}

const DRIVERS: [&str; 2] = ["crypto_openssl", "crypto_aesni_mb"];

mod openssl {
    hwtest::suite!(super::software("crypto_openssl"));
}

mod aesni_mb {
    hwtest::suite!(super::software("crypto_aesni_mb"));
}

/// What would make the checks above pass for nothing: a device that declares nothing.
#[test]
fn devices_declare_what_dpdk_says_they_do() {
    let caps = DRIVERS.map(|driver| open(&software(driver)).unwrap().desc().caps.clone());
    for (driver, caps) in DRIVERS.iter().zip(&caps) {
        for encr in [Encr::AES128_GCM16, Encr::AES192_GCM16, Encr::AES256_GCM16] {
            assert!(caps.carries(encr, Integ::NONE, true), "{driver} {encr}");
        }
        for encr in [Encr::AES128_CBC, Encr::AES256_CBC, Encr::AES128_CTR, Encr::AES256_CTR, Encr::NULL] {
            for integ in [
                Integ::HMAC_SHA1_96,
                Integ::HMAC_SHA2_256_128,
                Integ::HMAC_SHA2_384_192,
                Integ::HMAC_SHA2_512_256,
            ] {
                assert!(caps.carries(encr, integ, true), "{driver} {encr} {integ}");
            }
        }
        assert!(!caps.carries(Encr::AES128_CCM16, Integ::NONE, false), "{driver}");
    }
    let [openssl, aesni_mb] = &caps;
    // One has a tag of one length only, the other no asymmetric services.
    assert!(!openssl.carries(Encr::AES128_GCM8, Integ::NONE, false));
    assert!(aesni_mb.carries(Encr::AES128_GCM8, Integ::NONE, true));
    assert!(aesni_mb.carries(Encr::CHACHA20_POLY1305, Integ::NONE, true));
    assert!(aesni_mb.dh.is_empty() && aesni_mb.sign.is_empty());
    assert!(openssl.dh.contains(&Group::MODP2048) && openssl.dh.contains(&Group::MODP8192));
    assert!(openssl.sign.contains(&SignScheme::RsaPss(Hash::Sha256)));
    assert!(!openssl.dh.contains(&Group::ECP256));
}

/// A device with a queue and buffers.
struct Bench {
    device: Arc<dyn Device>,
    queue: Box<EspQueue>,
    pool: Pool,
}

impl Bench {
    fn new(driver: &dyn Driver) -> Bench {
        let device = open(driver).unwrap();
        let pool = Pool::new(32 * 1024, 64).unwrap();
        device.register(pool.region()).unwrap();
        let queue = device.esp_queue(QueueConfig::default()).unwrap();
        Bench { device, queue, pool }
    }

    fn install(&self, cap: &EspCap, dir: Direction, esn: bool) -> SaId {
        self.device.install_sa(&params(cap, dir, esn, 5)).unwrap()
    }

    /// Carries bursts out; their packets as they came back.
    fn run(&mut self, bursts: Vec<EspBurst>) -> Vec<EspBurst> {
        let (count, mut jobs, mut back) = (bursts.len(), VecDeque::from(bursts), Vec::new());
        let start = std::time::Instant::now();
        while back.len() < count {
            self.queue.submit(&mut jobs).unwrap();
            self.queue.poll(16, &mut |burst| back.push(burst));
            assert!(start.elapsed().as_secs() < 60, "{} of {count} came back", back.len());
        }
        back
    }

    fn burst(&self, sa: SaId, dir: Direction, packets: &[(u64, Vec<u8>)], head: usize) -> EspBurst {
        let mut buf = self.pool.take().unwrap();
        let mut at = 3;
        for (seq, octets) in packets {
            buf.bytes_mut()[at + head..at + head + octets.len()].copy_from_slice(octets);
            buf.push_op(EspOp::new(at as u32, octets.len() as u16, *seq)).unwrap();
            at += head + octets.len() + 65;
        }
        EspBurst { token: Token(1), sa, dir, buf }
    }
}

/// What one device seals the other opens, and the texts are the same, for every transform both carry.
fn agree(sealer: &mut Bench, opener: &mut Bench, cap: &EspCap, esn: bool, seeded: &mut Seeded) {
    let (seal, open) = (sealer.install(cap, Direction::Seal, esn), opener.install(cap, Direction::Open, esn));
    let info = cap.encr.info().unwrap();
    let packets: Vec<(u64, Vec<u8>)> = [1, 3, 16, 88, 89]
        .map(|blocks| {
            let mut text = vec![0; blocks * info.block];
            seeded.fill(&mut text);
            let seq = if esn { 0x1_ffff_fff0 + blocks as u64 } else { blocks as u64 };
            (seq, text)
        })
        .to_vec();
    let burst = sealer.burst(seal, Direction::Seal, &packets, 8 + info.iv_len);
    let sealed = sealer.run(vec![burst]).pop().unwrap();
    let wire: Vec<(u64, Vec<u8>)> = sealed
        .buf
        .ops()
        .iter()
        .enumerate()
        .map(|(n, op)| {
            assert_eq!(op.outcome, Outcome::Done, "{} {}", cap.encr, cap.integ);
            (op.seq, sealed.buf.op_bytes(n).to_vec())
        })
        .collect();
    let burst = opener.burst(open, Direction::Open, &wire, 0);
    let opened = opener.run(vec![burst]).pop().unwrap();
    for (n, (_, text)) in packets.iter().enumerate() {
        assert_eq!(opened.buf.ops()[n].outcome, Outcome::Done, "{} {} esn {esn}", cap.encr, cap.integ);
        assert_eq!(opened.buf.op_bytes(n), text, "{} {}", cap.encr, cap.integ);
    }
    sealer.device.remove_sa(seal);
    opener.device.remove_sa(open);
}

#[test]
fn software_of_another_origin_opens_what_devices_seal_and_seals_what_they_open() {
    let soft = Soft::new(1);
    for driver in DRIVERS {
        let (driver, mut seeded, mut transforms) = (software(driver), Seeded::new(31), 0);
        let (mut ours, mut theirs) = (Bench::new(&driver), Bench::new(&soft));
        for cap in ours.device.desc().caps.esp.clone() {
            for esn in [false, true].into_iter().filter(|esn| cap.esn || !esn) {
                agree(&mut ours, &mut theirs, &cap, esn, &mut seeded);
                agree(&mut theirs, &mut ours, &cap, esn, &mut seeded);
                transforms += 1;
            }
        }
        assert!(transforms >= 60, "only {transforms} transforms were compared");
    }
}

/// A queue on which operations are run one by one.
fn operate(ops: &Pend, op: CryptoOp) -> Result<CryptoOutput, Outcome> {
    match ops.block_on(op) {
        Ok(CryptoDone { outcome: Outcome::Done, output, .. }) => Ok(output),
        Ok(CryptoDone { outcome, .. }) => Err(outcome),
        Err(fault) => Err(Outcome::Failed(fault)),
    }
}

#[test]
fn software_of_another_origin_comes_to_the_same_secrets() {
    let devices = [open(&software("crypto_openssl")).unwrap(), open(&Soft::new(1)).unwrap()];
    let ops =
        devices.each_ref().map(|device| Pend::new(device.crypto_queue(QueueConfig::default()).unwrap(), 4));
    for group in devices[0].desc().caps.dh.iter().copied() {
        let pairs = ops.each_ref().map(|ops| match operate(ops, CryptoOp::DhGenerate { group }) {
            Ok(CryptoOutput::DhPair(ours, public)) => (ours, public),
            _ => panic!("{group}: no pair"),
        });
        let [(a, to_b), (b, to_a)] = pairs;
        let secret = |ops: &Pend, ours, theirs| match operate(ops, CryptoOp::DhDerive { group, ours, theirs })
        {
            Ok(CryptoOutput::Secret(secret)) => secret,
            _ => panic!("{group}: no secret"),
        };
        let (one, other) = (secret(&ops[0], a, to_a), secret(&ops[1], b, to_b));
        assert!(one.len() == group.info().unwrap().secret_len && one.ct_eq(other.expose()), "{group}");
    }
}

/// A base whose power has zeroes in front comes back at full length: 2 to the power of 1 is mostly zeroes.
#[test]
fn zeroes_in_front_of_a_secret_are_kept() {
    let device = open(&software("crypto_openssl")).unwrap();
    let ops = Pend::new(device.crypto_queue(QueueConfig::default()).unwrap(), 4);
    let mut theirs = vec![0; 256];
    theirs[255] = 2;
    let op = CryptoOp::DhDerive {
        group: Group::MODP2048,
        ours: spi::DhPrivate::Bytes(Secret::new(vec![9])),
        theirs,
    };
    let Ok(CryptoOutput::Secret(secret)) = operate(&ops, op) else { panic!("no secret") };
    let mut expected = vec![0; 256];
    (expected[254], expected[255]) = (2, 0);
    assert!(secret.ct_eq(&expected));
}

#[test]
fn signatures_verify_elsewhere_and_those_of_others_verify_here() {
    let devices = [open(&software("crypto_openssl")).unwrap(), open(&Soft::new(1)).unwrap()];
    let ops =
        devices.each_ref().map(|device| Pend::new(device.crypto_queue(QueueConfig::default()).unwrap(), 4));
    let der = include_bytes!("../../../hwtest/testdata/rsa2048.p8");
    let keys =
        devices.each_ref().map(|device| device.open_key(KeySource::Der(Secret::from_slice(der))).unwrap());
    for scheme in devices[0].desc().caps.sign.iter().copied() {
        for (signer, judge) in [(0, 1), (1, 0)] {
            let op = CryptoOp::Sign { key: keys[signer].id, scheme, octets: b"octets".to_vec() };
            let Ok(CryptoOutput::Signature(signature)) = operate(&ops[signer], op) else {
                panic!("{scheme:?}: no signature")
            };
            let verify = |octets: &[u8]| {
                let (spki, signature) = (keys[signer].spki.clone(), signature.clone());
                let op = CryptoOp::Verify { spki, scheme, octets: octets.to_vec(), signature };
                operate(&ops[judge], op).map(drop)
            };
            assert_eq!(verify(b"octets"), Ok(()), "{scheme:?}");
            assert_eq!(verify(b"octet"), Err(Outcome::Rejected(Reject::BadSignature)), "{scheme:?}");
        }
    }
    // Keys of other kinds are somebody else's.
    let der = include_bytes!("../../../hwtest/testdata/p256.p8");
    let refused = devices[0].open_key(KeySource::Der(Secret::from_slice(der))).map_err(|fault| fault.kind);
    assert_eq!(refused.err(), Some(FaultKind::Unsupported));
}

/// More packets than a queue has requests: 40 bursts of 64.
#[test]
fn more_packets_than_requests_wait_and_come_back_once() {
    for driver in DRIVERS {
        let mut bench = Bench::new(&software(driver));
        let cap = EspCap { encr: Encr::AES128_GCM16, integ: Integ::NONE, esn: true };
        let sa = bench.install(&cap, Direction::Seal, true);
        let bursts = (0..40)
            .map(|n| {
                let packets: Vec<(u64, Vec<u8>)> = (0..64).map(|m| (n * 64 + m, vec![m as u8; 64])).collect();
                EspBurst { token: Token(n), ..bench.burst(sa, Direction::Seal, &packets, 16) }
            })
            .collect();
        let back = bench.run(bursts);
        let tokens: BTreeSet<u64> = back.iter().map(|burst| burst.token.0).collect();
        assert_eq!((back.len(), tokens.len()), (40, 40), "{driver}");
        assert!(back.iter().all(|burst| burst.buf.ops().iter().all(|op| op.outcome == Outcome::Done)));
        drop(back);
        assert_eq!((bench.pool.available(), bench.queue.in_flight()), (64, 0), "{driver}");
        let stats = bench.device.stats().unwrap();
        assert!(stats.counters.contains(&("packets", 40 * 64)), "{driver}: {:?}", stats.counters);
    }
}

#[test]
fn two_devices_at_once_and_a_reset_of_one_is_nothing_to_the_other() {
    let mut benches = DRIVERS.map(|driver| Bench::new(&software(driver)));
    let cap = EspCap { encr: Encr::AES256_CBC, integ: Integ::HMAC_SHA2_512_256, esn: true };
    let sas = benches.each_ref().map(|bench| bench.install(&cap, Direction::Seal, true));
    let packets = [(1, vec![7; 64]), (2, vec![8; 640])];
    for round in 0..20 {
        for (bench, sa) in benches.iter_mut().zip(sas) {
            let burst = bench.burst(sa, Direction::Seal, &packets, 24);
            let outcome = bench.run(vec![burst])[0].buf.ops()[1].outcome;
            let first = bench.device.stats().unwrap().resets > 0;
            let expected = match first {
                true => Outcome::Failed(FaultKind::StaleHandle.into()),
                false => Outcome::Done,
            };
            assert_eq!(outcome, expected, "round {round}");
        }
        if round == 9 {
            benches[0].device.begin_reset();
            let start = std::time::Instant::now();
            while benches[0].device.health() != Health::Ready {
                assert!(start.elapsed().as_secs() < 30, "the reset does not end");
                std::thread::yield_now();
            }
        }
    }
}

/// Two workers with a queue each, and resets that come when they come: whatever was taken comes back once, and afterwards all goes on.
#[test]
fn resets_under_traffic_lose_nothing() {
    const RESETS: u64 = 60;
    for driver in DRIVERS {
        let device = open(&software(driver)).unwrap();
        let over = std::sync::atomic::AtomicBool::new(false);
        let cap = EspCap { encr: Encr::AES128_CBC, integ: Integ::HMAC_SHA2_256_128, esn: true };
        let worker = |seed: u64| {
            let pool = Pool::new(8 * 1024, 64).unwrap();
            let mut queue = device.esp_queue(QueueConfig { depth: 48, cpu: None }).unwrap();
            let (mut sa, mut taken, mut back, mut done) = (None, 0_u64, 0_u64, 0_u64);
            while !over.load(std::sync::atomic::Ordering::Acquire) || queue.in_flight() > 0 || done == 0 {
                sa = sa.or_else(|| device.install_sa(&params(&cap, Direction::Seal, true, seed)).ok());
                let mut jobs = VecDeque::new();
                if let Some(sa) = sa {
                    for _ in 0..queue.room().min(4) {
                        let Some(mut buf) = pool.take() else { break };
                        for n in 0..20 {
                            buf.push_op(EspOp::new(n * 384, 64 + 16 * (n as u16 % 3), taken)).unwrap();
                        }
                        jobs.push_back(EspBurst { token: Token(taken), sa, dir: Direction::Seal, buf });
                    }
                }
                taken += queue.submit(&mut jobs).unwrap_or(0) as u64;
                let mut stale = false;
                queue.poll(8, &mut |burst: EspBurst| {
                    back += 1;
                    let ops = burst.buf.ops();
                    assert!(ops.iter().all(|op| op.outcome == ops[0].outcome), "{driver}: {ops:?}");
                    match ops[0].outcome {
                        Outcome::Done => done += 1,
                        Outcome::Failed(fault) if fault.kind == FaultKind::Aborted => stale = true,
                        Outcome::Failed(fault) if fault.kind == FaultKind::StaleHandle => stale = true,
                        other => panic!("{driver}: {other:?}"),
                    }
                });
                sa = sa.filter(|_| !stale);
            }
            assert_eq!((taken, pool.available()), (back, 64), "{driver}");
        };
        std::thread::scope(|threads| {
            let workers = [1, 2].map(|seed| threads.spawn(move || worker(seed)));
            while device.stats().unwrap().resets < RESETS {
                device.begin_reset();
                std::thread::yield_now();
                assert!(!workers.iter().any(|worker| worker.is_finished()), "{driver}: a worker has ended");
            }
            over.store(true, std::sync::atomic::Ordering::Release);
        });
        assert_eq!(device.health(), Health::Ready);
    }
}

/// An SA removed while its packets are out: they come back, done or stale, and nothing of it is left.
#[test]
fn an_sa_is_removed_while_its_packets_are_out() {
    for driver in DRIVERS {
        let mut bench = Bench::new(&software(driver));
        let cap = EspCap { encr: Encr::AES128_CTR, integ: Integ::HMAC_SHA1_96, esn: false };
        for _ in 0..50 {
            let sa = bench.install(&cap, Direction::Seal, false);
            let bursts = (0..20).map(|n| bench.burst(sa, Direction::Seal, &[(n, vec![1; 64])], 16));
            let mut jobs: VecDeque<EspBurst> = bursts.collect();
            bench.queue.submit(&mut jobs).unwrap();
            bench.device.remove_sa(sa);
            let late = bench.burst(sa, Direction::Seal, &[(99, vec![1; 64])], 16);
            jobs.push_back(EspBurst { token: Token(99), ..late });
            bench.queue.submit(&mut jobs).unwrap();
            let (mut stale, mut done) = (0, 0);
            while bench.queue.in_flight() > 0 {
                bench.queue.poll(7, &mut |burst: EspBurst| match burst.buf.ops()[0].outcome {
                    Outcome::Done if burst.token == Token(1) => done += 1,
                    Outcome::Failed(fault) if fault.kind == FaultKind::StaleHandle => stale += 1,
                    other => panic!("{:?}: {other:?}", burst.token),
                });
            }
            assert_eq!((done, stale), (20, 1), "{driver}");
        }
        assert_eq!(bench.pool.available(), 64, "{driver}");
    }
}

fn why(place: DpdkPlace) -> String {
    let driver = Dpdk::new(vec![DpdkSite { name: "dpdk0".into(), place }]);
    assert!(open(&driver).is_err());
    driver.unusable()[0].why.clone()
}

#[test]
fn what_is_in_the_way_is_said() {
    let none = why(DpdkPlace::Software("crypto_abacus".into()));
    assert!(none.contains("no software device crypto_abacus"), "{none}");
    let other = why(DpdkPlace::Software("dma_skeleton".into()));
    assert!(other.contains("none for cryptography"), "{other}");
    // The environment is up by now, without that function.
    open(&software("crypto_openssl")).unwrap();
    let late = why(DpdkPlace::Pci("0000:6b:01.0".into()));
    assert!(late.contains("0000:6b:01.0") && late.contains("restart"), "{late}");
    assert!(open(&software("crypto_openssl")).is_ok());
}

#[test]
fn a_function_that_is_not_there_is_named() {
    alone("a_function_that_is_not_there_is_named", || {
        let none = why(DpdkPlace::Pci("fffe:1e:1f.7".into()));
        assert!(none.contains("fffe:1e:1f.7") && none.contains("vfio-pci"), "{none}");
    });
}

/// The environment starts once in a process, and so does its failure: with too little address space it says so, and goes on saying so.
#[test]
fn an_environment_that_cannot_start_is_said_and_remembered() {
    alone("an_environment_that_cannot_start_is_said_and_remembered", || {
        // A little more than there is already, and less than what packets need.
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmSize:")).unwrap();
        let kilobytes: u64 = line.split_whitespace().next().unwrap().parse().unwrap();
        let limit = Some((kilobytes << 10) + (300 << 20));
        let limit = rustix::process::Rlimit { current: limit, maximum: None };
        rustix::process::setrlimit(rustix::process::Resource::As, limit).unwrap();
        let first = why(DpdkPlace::Software("crypto_openssl".into()));
        assert!(first.contains("environment does not start"), "{first}");
        let limit = rustix::process::Rlimit { current: None, maximum: None };
        rustix::process::setrlimit(rustix::process::Resource::As, limit).unwrap();
        assert_eq!(why(DpdkPlace::Software("crypto_openssl".into())), first);
    });
}

/// Files DPDK might have left, the signals this process handles, the processors its main thread may use, and open sockets.
fn surroundings() -> (Vec<String>, String, String, usize) {
    // Other tests have processes and files of their own.
    let own = std::process::id().to_string();
    let files = ["/run/dpdk", "/dev/shm", "/dev/hugepages"].iter().flat_map(|dir| {
        let all = std::fs::read_dir(dir).into_iter().flatten().flatten();
        all.map(|entry| entry.path().display().to_string()).filter(|path| path.contains(&own))
    });
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = |key: &str| status.lines().find(|line| line.starts_with(key)).unwrap().to_owned();
    let sockets = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    let is_socket = |path: std::path::PathBuf| path.to_string_lossy().starts_with("socket:");
    let sockets =
        sockets.filter_map(|entry| std::fs::read_link(entry.path()).ok()).filter(|p| is_socket(p.clone()));
    (files.collect(), line("SigCgt:"), line("Cpus_allowed_list:"), sockets.count())
}

#[test]
fn dpdk_leaves_files_signals_sockets_and_our_threads_alone() {
    alone("dpdk_leaves_files_signals_sockets_and_our_threads_alone", || {
        let before = surroundings();
        let device = open(&software("crypto_openssl")).unwrap();
        assert_eq!(surroundings(), before);
        hwtest::contract::every_job_comes_back_exactly_once(&software("crypto_openssl"));
        drop(device);
        assert_eq!(surroundings(), before);
    });
}

/// DPDK's driver takes OpenSSL's default provider away with its last device.
#[test]
fn openssl_is_there_for_everybody_when_its_last_device_is_gone() {
    alone("openssl_is_there_for_everybody_when_its_last_device_is_gone", || {
        for _ in 0..3 {
            drop(open(&software("crypto_openssl")).unwrap());
            // Opened when the other one has been closed, and a queue wants random numbers from OpenSSL.
            let device = open(&software("crypto_aesni_mb")).unwrap();
            assert!(device.esp_queue(QueueConfig::default()).is_some());
        }
    });
}

/// Devices until there is no memory or no place for one, which is said; and all of that comes back.
#[test]
fn memory_runs_out_and_comes_back() {
    alone("memory_runs_out_and_comes_back", || {
        for _ in 0..2 {
            let driver = software("crypto_aesni_mb");
            let mut devices = Vec::new();
            let fault = loop {
                match open(&driver) {
                    Ok(device) => devices.push(device),
                    Err(fault) => break fault,
                }
                assert!(devices.len() < 1000, "it never ends");
            };
            let why = &driver.unusable()[0].why;
            assert!(devices.len() >= 4, "only {} devices: {why}", devices.len());
            assert_eq!(fault.kind, FaultKind::Internal);
            assert!(why.len() > 20, "{why}");
            // Those that are there go on; queues may find no memory, and say so.
            let mut queues: Vec<_> =
                devices[0..2].iter().map(|device| device.esp_queue(QueueConfig::default())).collect();
            queues.clear();
            drop(devices);
        }
        hwtest::contract::every_job_comes_back_exactly_once(&software("crypto_aesni_mb"));
    });
}

#[test]
fn queue_pairs_and_sas_run_out_and_come_back() {
    let device = open(&software("crypto_openssl")).unwrap();
    let queues: Vec<_> = std::iter::from_fn(|| device.esp_queue(QueueConfig::default())).collect();
    assert!(queues.len() >= 8, "{}", queues.len());
    assert!(device.crypto_queue(QueueConfig::default()).is_none());
    drop(queues);
    assert!(device.esp_queue(QueueConfig::default()).is_some());
    let cap = EspCap { encr: Encr::AES128_GCM16, integ: Integ::NONE, esn: true };
    let mut sas = Vec::new();
    let fault = loop {
        match device.install_sa(&params(&cap, Direction::Seal, true, 3)) {
            Ok(sa) => sas.push(sa),
            Err(fault) => break fault,
        }
    };
    assert_eq!((fault.kind, sas.len()), (FaultKind::Exhausted, device.desc().caps.max_sas));
    device.remove_sa(sas.pop().unwrap());
    assert!(device.install_sa(&params(&cap, Direction::Seal, true, 3)).is_ok());
}
