//! What goes wrong in the units, and what becomes of it. A process of its own: all threads suffer alike.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::{Mutex, MutexGuard, PoisonError};

use emu_padlock::{Emulator, Fault, Options, Units};
use padlock::{Config, Padlock};
use spi::pend::Pend;
use spi::{CryptoOp, CryptoOutput, Device, Driver, FaultKind, Group, QueueConfig};
use support::{driver, emulator};

/// One fault at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Suffers(Fault);

impl Suffers {
    fn from(fault: Fault) -> Suffers {
        emulator().inject(fault, true);
        Suffers(fault)
    }
}

impl Drop for Suffers {
    fn drop(&mut self) {
        emulator().inject(self.0, false);
    }
}

fn why_not(driver: &Padlock) -> String {
    let desc = driver.probe().remove(0);
    assert_eq!(driver.open(&desc).err().map(|fault| fault.kind), Some(FaultKind::Internal));
    driver.unusable().remove(0).why
}

fn random(device: &dyn Device, len: usize) -> Result<Vec<u8>, FaultKind> {
    let ops = Pend::new(device.crypto_queue(QueueConfig::default()).unwrap(), 4);
    match ops.block_on(CryptoOp::Random { len }) {
        Ok(done) => match done.output {
            CryptoOutput::Secret(octets) => Ok(octets.expose().to_vec()),
            _ => panic!("{:?}", done.outcome),
        },
        Err(fault) => Err(fault.kind),
    }
}

fn counter(device: &dyn Device, name: &str) -> u64 {
    let stats = device.stats().unwrap();
    stats.counters.iter().find(|(counted, _)| *counted == name).unwrap().1
}

#[test]
fn a_unit_that_computes_wrongly_is_not_opened_and_says_which() {
    let _alone = alone();
    for (fault, said) in [
        (Fault::XcryptFlips, "REP XCRYPT-CBC encrypts wrongly"),
        (Fault::XshaFlips, "REP XSHA1 is wrong"),
        (Fault::XshaEnds, "or ends the message itself"),
        (Fault::MontmulFlips, "REP MONTMUL multiplies wrongly"),
    ] {
        let _suffers = Suffers::from(fault);
        let why = why_not(&driver());
        assert!(why.contains("a known answer came out wrong") && why.contains(said), "{fault:?}: {why}");
    }
    // And once it is well again it opens, with the same driver.
    let driver = driver();
    let ill = Suffers::from(Fault::XshaFlips);
    why_not(&driver);
    drop(ill);
    let desc = driver.probe().remove(0);
    assert!(driver.open(&desc).is_ok() && driver.unusable().is_empty());
}

#[test]
fn a_source_that_is_stuck_dry_or_biased_gives_nothing_until_it_is_opened_anew() {
    let _alone = alone();
    for fault in [Fault::RngStuck, Fault::RngDry, Fault::RngBiased] {
        let device = support::device();
        assert_eq!(random(&*device, 32).map(|octets| octets.len()), Ok(32));
        let suffers = Suffers::from(fault);
        // A bias shows in some windows only, but soon.
        let tries = (0..200).find(|_| random(&*device, 32).is_err());
        assert!(tries.is_some(), "{fault:?}");
        assert_eq!(counter(&*device, "rng_alarms"), 1, "{fault:?}");
        drop(suffers);
        assert_eq!(random(&*device, 32), Err(FaultKind::Internal), "{fault:?}: once is enough");
        // Keys and IVs then come from the kernel alone: packets and key exchanges go on.
        assert!(device.esp_queue(QueueConfig::default()).is_some());
        let ops = Pend::new(device.crypto_queue(QueueConfig::default()).unwrap(), 4);
        assert!(ops.block_on(CryptoOp::DhGenerate { group: Group::MODP2048 }).is_ok(), "{fault:?}");
        assert!(random(&*support::device(), 32).is_ok(), "{fault:?}: opened anew");
    }
}

#[test]
fn octets_are_asked_for_again_while_the_unit_is_not_ready() {
    let _alone = alone();
    let device = support::device();
    assert!(random(&*device, 4096).is_ok());
    // Now and then the emulator's is not.
    assert!(counter(&*device, "rng_not_ready") > 50);
    assert!(counter(&*device, "rng_octets") >= 1024 + 64);
}

#[test]
fn units_that_are_missing_or_asleep_are_not_declared() {
    let _alone = alone();
    let of = |units: Units, asleep: Units, montmul: bool| {
        // What a processor with these units says; the instructions are those of the one emulator of this process.
        let leaf = move |number| match number {
            0xc000_0001 => [0, 0, 0, units.bits() | (units - asleep).bits() << 1],
            other => emulator().leaf(other),
        };
        Padlock::new(Config { montmul, cpuid: Box::new(leaf), ..Config::new("padlock") })
    };
    let caps = |driver: &Padlock| driver.probe().remove(0).caps;
    let all = of(Units::all(), Units::empty(), true);
    assert_eq!((caps(&all).esp.len(), caps(&all).dh.len()), (12, 5));
    let unasked = of(Units::all(), Units::empty(), false);
    assert_eq!((caps(&unasked).esp.len(), caps(&unasked).dh.len()), (12, 0));
    let desc = unasked.probe().remove(0);
    let identity = unasked.open(&desc).unwrap().stats().unwrap().identity;
    assert!(identity.contains("PMM is not used: montmul = false"), "{identity}");
    let old = of(Units::ACE | Units::PHE, Units::empty(), true);
    assert_eq!((caps(&old).esp.len(), caps(&old).dh.len()), (6, 0));
    let desc = old.probe().remove(0);
    assert!(old.open(&desc).unwrap().crypto_queue(QueueConfig::default()).is_none(), "nothing to do in it");
    let asleep = of(Units::all(), Units::ACE, true);
    assert!(caps(&asleep).esp.is_empty());
    let why = why_not(&asleep);
    assert!(why.contains("CPUID leaf 0xC0000001") && why.contains("ACE is there and not enabled"), "{why}");
}

#[test]
fn an_emulator_is_of_this_process_and_is_there_once() {
    let first = emulator();
    let again = Emulator::install(Options { units: Units::empty(), ..Options::default() }).unwrap();
    assert!(std::ptr::eq(first, again));
}
