//! Plug-ins that lie, each in one way: the first lie shuts one out, what it had is leaked and not used again, and who used it goes on.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cabi::Plugin;
use spi::{
    CryptoDone, CryptoJob, CryptoOp, Device, DeviceDesc, Direction, Driver, EspBurst, EspOp, Group, Health,
    Outcome, Pool, QueueConfig, Token,
};

const SOURCES: &[&str] = &["tests/hostile/hostile.c", "example/engine.c"];
const BUFFERS: usize = 64;
const LIMIT: Duration = Duration::from_secs(30);

fn build(flaw: &str) -> PathBuf {
    support::build("cc", &flaw.to_lowercase(), SOURCES, &[&format!("-D{flaw}"), "-Wno-unused", "-O0", "-g0"])
        .expect("tests need a C compiler")
}

/// A device of a plug-in, in use.
struct Victim {
    plugin: Plugin,
    desc: DeviceDesc,
    device: Arc<dyn Device>,
    pool: Pool,
}

impl Victim {
    fn of(flaw: &str) -> Victim {
        let plugin = Plugin::load("liar", &build(flaw)).unwrap();
        let desc = plugin.probe().remove(0);
        let device = plugin.open(&desc).unwrap();
        assert_eq!(device.health(), Health::Ready);
        Victim { plugin, desc, device, pool: Pool::new(2048, BUFFERS).unwrap() }
    }

    fn counter(&self, name: &str) -> u64 {
        let stats = self.device.stats().unwrap();
        stats.counters.iter().find(|(known, _)| *known == name).unwrap().1
    }

    /// Keeps a queue for packets busy until the plug-in is found out, or so many bursts have come back.
    fn packets(&self, most: usize) -> usize {
        let caps = &self.desc.caps;
        let Ok(sa) = self.device.install_sa(&hwtest::ring::params(&caps.esp[0], Direction::Seal, true, 3))
        else {
            return 0;
        };
        let mut queue = self.device.esp_queue(QueueConfig { depth: 32, cpu: None }).unwrap();
        let (mut jobs, mut back, start) = (VecDeque::new(), 0, Instant::now());
        for n in 1.. {
            assert!(start.elapsed() < LIMIT, "neither found out nor done");
            while let Some(mut buf) = self.pool.take() {
                for place in 0..4 {
                    buf.push_op(EspOp::new(place * 256, 64, n * 4 + u64::from(place))).unwrap();
                }
                jobs.push_back(EspBurst { token: Token(n), sa, dir: Direction::Seal, buf });
            }
            if queue.submit(&mut jobs).is_err() || back >= most {
                break;
            }
            queue.poll(8, &mut |done: EspBurst| {
                assert!(done.buf.ops().iter().all(|op| op.outcome == Outcome::Done));
                back += 1;
            });
        }
        back
    }

    fn operations(&self, most: usize) -> usize {
        let mut queue = self.device.crypto_queue(QueueConfig { depth: 8, cpu: None }).unwrap();
        let (mut jobs, mut back, start) = (VecDeque::new(), 0, Instant::now());
        for n in 1.. {
            assert!(start.elapsed() < LIMIT, "neither found out nor done");
            jobs.push_back(CryptoJob { token: Token(n), op: CryptoOp::DhGenerate { group: Group::X25519 } });
            if queue.submit(&mut jobs).is_err() || back >= most {
                break;
            }
            queue.poll(8, &mut |_: CryptoDone| back += 1);
        }
        back
    }

    /// It was found out: for this reason, and for good.
    fn expect_shut_out(self, because: &str) {
        assert_eq!(self.device.health(), Health::Failed, "{because}");
        let identity = self.device.stats().unwrap().identity;
        assert!(identity.contains("shut out") && identity.contains(because), "{identity}");
        let config = QueueConfig { depth: 4, cpu: None };
        assert!(self.device.esp_queue(config).is_none(), "a new queue after {because}");
        assert!(
            self.device
                .install_sa(&hwtest::ring::params(&self.desc.caps.esp[0], Direction::Seal, false, 9))
                .is_err()
        );
        // What it had in its hands is not in the pool, and never will be; everything else is.
        let leaked = self.counter("leaked") as usize;
        assert!(
            BUFFERS - self.pool.available() <= leaked,
            "{leaked} leaked and {} missing",
            BUFFERS - self.pool.available()
        );
        drop(self.device);
        assert!(self.plugin.open(&self.desc).is_err(), "it opens again");
        let why = self.plugin.unusable().remove(0).why;
        assert!(why.contains(because) && why.contains("tell its vendor"), "{why}");
    }
}

#[test]
fn every_lie_about_packets_shuts_the_plug_in_out() {
    let cases = [
        ("LIE_FALSE_TOKEN", "late, doubled or invented"),
        ("LIE_DOUBLED", "late, doubled or invented"),
        ("LIE_LATE", "late, doubled or invented"),
        ("LIE_TOOK_TOO_MANY", "jobs of"),
        ("LIE_GAVE_TOO_MANY", "where 32 fit"),
        ("LIE_WRONG_SA", "as one of SA"),
        ("LIE_WRONG_COUNT", "5 packets of a burst of 4"),
        ("LIE_LONG", "it can only be 96"),
        ("LIE_PENDING", "the status 0"),
        ("LIE_STATUS", "the status 99"),
        ("LIE_SPI", "another SPI or sequence number"),
        ("LIE_SEQ", "another SPI or sequence number"),
        ("LIE_IV", "another IV"),
    ];
    for (flaw, because) in cases {
        eprintln!("{flaw}");
        let victim = Victim::of(flaw);
        victim.packets(100_000);
        victim.expect_shut_out(because);
    }
}

#[test]
fn every_lie_about_operations_shuts_the_plug_in_out() {
    let cases = [
        ("LIE_OP_TOKEN", "completed 0x3039"),
        ("LIE_OP_LONG", "a length of 33"),
        ("LIE_OP_SECRET", "a length of 1048576"),
        ("LIE_OP_STATUS", "the status 2"),
        ("LIE_OP_TOOK", "jobs of"),
    ];
    for (flaw, because) in cases {
        eprintln!("{flaw}");
        let victim = Victim::of(flaw);
        victim.operations(10_000);
        victim.expect_shut_out(because);
    }
}

#[test]
fn one_handle_for_two_sas_shuts_the_plug_in_out() {
    let victim = Victim::of("LIE_HANDLE");
    let install = |seed| {
        victim.device.install_sa(&hwtest::ring::params(
            &victim.desc.caps.esp[0],
            Direction::Seal,
            false,
            seed,
        ))
    };
    assert!(install(1).is_ok());
    assert!(install(2).is_err());
    victim.expect_shut_out("handle 0 to two SAs");
}

#[test]
fn what_comes_after_queue_stop_or_does_not_come_at_all_shuts_the_plug_in_out() {
    for (flaw, because) in
        [("LIE_AFTER_STOP", "after queue_stop"), ("LIE_HOARDS", "have not come back after queue_stop")]
    {
        let victim = Victim::of(flaw);
        victim.packets(40);
        // The queue was dropped with work out.
        victim.expect_shut_out(because);
    }
}

#[test]
fn a_reset_of_a_plug_in_that_says_nothing_ends() {
    let victim = Victim::of("LIE_SILENT");
    let sa = victim
        .device
        .install_sa(&hwtest::ring::params(&victim.desc.caps.esp[0], Direction::Seal, false, 3))
        .unwrap();
    let mut queue = victim.device.esp_queue(QueueConfig { depth: 4, cpu: None }).unwrap();
    let mut buf = victim.pool.take().unwrap();
    buf.push_op(EspOp::new(0, 64, 1)).unwrap();
    let mut jobs = VecDeque::from([EspBurst { token: Token(1), sa, dir: Direction::Seal, buf }]);
    assert_eq!(queue.submit(&mut jobs), Ok(1));
    assert_eq!(queue.poll(1, &mut |_| ()).delivered, 0);
    victim.device.begin_reset();
    let start = Instant::now();
    while victim.device.health() == Health::Ready {
        assert!(start.elapsed() < LIMIT);
        queue.poll(1, &mut |_| ());
        assert!(queue.submit(&mut VecDeque::new()).is_err(), "it takes work while it is stopped");
        std::thread::sleep(Duration::from_millis(10));
    }
    drop(queue);
    assert_eq!(victim.pool.available(), BUFFERS - 1, "the buffer is leaked, and nothing else");
    victim.expect_shut_out("have not come back");
}

#[test]
fn bells_that_are_none_and_odd_lines_harm_nobody() {
    let victim = Victim::of("LIE_RINGS");
    assert!(victim.packets(500) >= 500);
    assert_eq!(victim.device.health(), Health::Ready);
    assert_eq!(victim.counter("leaked"), 0);
    assert_eq!(victim.pool.available(), BUFFERS);
    assert!(victim.counter("packets") >= 2000);
}

#[test]
fn a_plug_in_that_cannot_be_used_says_what_to_do() {
    let cases = [
        ("ODD_NULL", "does not speak ABI 1"),
        ("ODD_ABI", "it speaks ABI 2 of accel.h, this gateway ABI 1: ask its vendor for a build for ABI 1"),
        ("ODD_SIZE", "set .size = sizeof(accel_driver)"),
        ("ODD_MISSING", "NULL for burst_poll, queue_stop"),
        ("ODD_NO_OPS", "op_submit or op_poll is NULL"),
        ("ODD_NAMELESS", "has no name"),
        ("ODD_ADDRESS", "0x1235"),
        ("ODD_NO_DEVICE", "is the hardware there"),
        ("ODD_ENDLESS", "both called thread0"),
        ("ODD_NAME", "its name has no end"),
        ("ODD_SPACE", "no space and no slash"),
        ("ODD_POINTER", "points nowhere"),
        ("ODD_COUNT", "4000000000"),
        ("ODD_TRANSFORM", "{20, 100, 0}"),
        ("ODD_BARE", "RFC 4303 section 3.2"),
        ("ODD_TWICE", "twice"),
        ("ODD_KEM", "group 36"),
        ("ODD_RING", "ring is 0"),
        ("ODD_SAS", "max_sas is 0"),
        ("ODD_IDLE", "can do nothing"),
    ];
    for (flaw, because) in cases {
        let Err(error) = Plugin::load("odd", &build(flaw)) else { panic!("{flaw} is loaded") };
        let error = error.to_string();
        assert!(error.contains(because) && error.starts_with("plug-in /"), "{flaw}: {error}");
    }
    let open = Plugin::load("odd", &build("ODD_OPEN")).unwrap();
    assert!(open.open(&open.probe()[0]).is_err());
    assert!(open.unusable()[0].why.contains("cannot open its device thread0"), "{:?}", open.unusable());
}

#[test]
fn a_file_that_is_no_plug_in_is_named() {
    let error = |path: &str| match Plugin::load("none", std::path::Path::new(path)) {
        Ok(_) => panic!("{path} is loaded"),
        Err(error) => error.to_string(),
    };
    assert!(error("/nonexistent/lib.so").contains("there is no such file"));
    assert!(error("/etc/passwd").contains("cannot be loaded"));
    let other = support::build("cc", "engine", &["example/engine.c"], &[]).unwrap();
    assert!(error(other.to_str().unwrap()).contains("exports no accel_plugin"));
}

#[test]
fn odd_words_on_health_and_installation_are_faults_and_no_more() {
    let plugin = Plugin::load("odd", &build("ODD_HEALTH")).unwrap();
    assert_eq!(plugin.open(&plugin.probe()[0]).unwrap().health(), Health::Failed);
    let victim = Victim::of("ODD_INSTALL");
    assert_eq!(victim.packets(10), 0);
    assert_eq!(victim.device.health(), Health::Ready);
}
