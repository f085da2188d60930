//! Several workers on one card, while faults come one after the other, as drawn from a seed: every job comes home once, nothing is
//! leaked, and the card is well in the end.
//!
//! `TUSSOCK_SOAK_FAULTS` says how many (12), `TUSSOCK_SOAK_SEED` which.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use emu_qat::fault::{Fault, Kind};
use emu_qat::{Card, Options, Personality};
use hwtest::seed::Seeded;
use spi::{Device, Health};
use support::InProcess;
use support::traffic::{LIMIT, Traffic, hasty};

const WORKERS: usize = 3;

fn from_environment(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn draw(seeded: &mut Seeded) -> Fault {
    let short = Duration::from_millis(1 + seeded.below(40) as u64);
    let kinds = [
        Kind::Delay(short),
        Kind::Reorder(9),
        Kind::LoseCompletion,
        Kind::DoubleCompletion,
        Kind::WrongCookie,
        Kind::EngineError,
        Kind::RingFull(short),
        Kind::Slow(10.0, short),
        Kind::Uncorrectable,
        Kind::Restart { grace: Duration::from_secs(2), away: short },
        Kind::Silence(None),
        Kind::LoseInterrupt,
        Kind::SpuriousInterrupt,
        Kind::SlowReset(short),
    ];
    let kind = kinds[seeded.below(kinds.len())].clone();
    let fault = Fault::new(kind.clone()).after(seeded.below(50) as u64);
    match kind {
        Kind::Slow(..) | Kind::LoseInterrupt | Kind::SpuriousInterrupt | Kind::SlowReset(_) => fault,
        _ => fault.for_service(seeded.below(2)),
    }
}

/// Too many faults in too short a time fail a card: somebody looks after it.
fn heal(device: &dyn Device) {
    if device.health() == Health::Failed {
        device.begin_reset();
    }
}

fn soak(personality: Personality) {
    let seed = from_environment("TUSSOCK_SOAK_SEED", 1);
    let mut seeded = Seeded::new(seed);
    drop(Traffic::new(personality, &Options::default(), &hasty()));
    let card = Card::running(personality, &Options::default()).unwrap();
    let device = qat::attach("card", Arc::new(InProcess(card.clone())), &hasty()).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|threads| {
        let workers: Vec<_> = (0..WORKERS)
            .map(|_| {
                let (card, device, stop) = (card.clone(), Arc::clone(&device), &stop);
                threads.spawn(move || {
                    let mut traffic = Traffic::on(card, device);
                    while !stop.load(Ordering::Acquire) {
                        traffic.round();
                    }
                    traffic.drain();
                    traffic.packet_tally
                })
            })
            .collect();
        // Nothing below may panic before the workers are told to stop.
        let mut trouble = None;
        for number in 0..from_environment("TUSSOCK_SOAK_FAULTS", 12) {
            card.clear_faults();
            let fault = draw(&mut seeded);
            let before = card.counters().faults;
            card.inject(fault.clone());
            let start = Instant::now();
            // A fault of resets waits for a reset that another fault brings.
            let waits =
                !matches!(fault.kind, Kind::SlowReset(_) | Kind::LoseInterrupt | Kind::SpuriousInterrupt);
            while waits && card.counters().faults == before && start.elapsed() < LIMIT {
                heal(&*device);
                std::thread::sleep(Duration::from_millis(1));
            }
            std::thread::sleep(Duration::from_millis(30 + seeded.below(100) as u64));
            while device.health() != Health::Ready && start.elapsed() < LIMIT {
                heal(&*device);
                std::thread::sleep(Duration::from_millis(5));
            }
            if start.elapsed() >= LIMIT {
                trouble = Some(format!("seed {seed}, fault {number}, {fault:?}: {:?}", device.stats()));
                break;
            }
        }
        stop.store(true, Ordering::Release);
        let tallies: Vec<_> = workers.into_iter().map(|worker| worker.join().unwrap()).collect();
        assert!(trouble.is_none(), "{}", trouble.unwrap());
        for tally in tallies {
            assert!(tally.done > 0, "seed {seed}: a worker got nothing done: {tally:?}");
        }
    });
    let stats = device.stats().unwrap();
    assert_eq!(stats.counters.iter().find(|(name, _)| *name == "leaked"), Some(&("leaked", 0)));
    assert!(stats.resets > 0, "nothing happened: {stats:?}");
    println!("{personality}, seed {seed}: {} resets, {:?}", stats.resets, stats.counters);
}

#[test]
fn workers_on_one_card_survive_faults_of_generation_4() {
    soak(Personality::Vf4941);
}

#[test]
fn workers_on_one_card_survive_faults_of_generation_2() {
    soak(Personality::Vf37c9);
}
