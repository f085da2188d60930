//! What can only be said where time stands still: nothing completes within a submission, and operations on numbers do not delay packets.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use emu_qat::{Card, Options, Personality};
use spi::crypto::KeySource;
use spi::{
    CryptoDone, CryptoJob, CryptoOp, Device, Direction, EspBurst, EspOp, Group, Outcome, Pool, QueueConfig,
    Secret, SignScheme, Token,
};
use support::traffic::params;
use support::{stepped, timeless};

const GENERATIONS: [Personality; 2] = [Personality::Vf4941, Personality::Vf37c9];

struct Bench {
    card: Card,
    device: Arc<dyn Device>,
    pool: Pool,
}

impl Bench {
    fn new(personality: Personality) -> Bench {
        let (card, device) = stepped(personality, &Options::default(), &timeless());
        let pool = Pool::new(32 * 256, 64).unwrap();
        device.register(pool.region()).unwrap();
        Bench { card, device, pool }
    }

    fn bursts(&self, count: u64, packets: u32) -> VecDeque<EspBurst> {
        let sa = self.device.install_sa(&params(Direction::Seal)).unwrap();
        let burst = |number| {
            let mut buf = self.pool.take().unwrap();
            for n in 0..packets {
                buf.push_op(EspOp::new(n * 256, 200, number << 8 | u64::from(n))).unwrap();
            }
            EspBurst { token: Token(number), sa, dir: Direction::Seal, buf }
        };
        (0..count).map(burst).collect()
    }
}

#[test]
fn nothing_completes_within_a_submission() {
    for personality in GENERATIONS {
        let bench = Bench::new(personality);
        let mut packets = bench.device.esp_queue(QueueConfig::default()).unwrap();
        let mut operations = bench.device.crypto_queue(QueueConfig::default()).unwrap();
        for round in 0..50 {
            let before = bench.card.counters().responses;
            let mut bursts = bench.bursts(8, 1 + round % 32);
            assert_eq!(packets.submit(&mut bursts).unwrap(), 8);
            let op = CryptoOp::DhGenerate { group: Group::ECP256 };
            assert_eq!(
                operations.submit(&mut VecDeque::from([CryptoJob { token: Token(1), op }])).unwrap(),
                1
            );
            assert_eq!(bench.card.counters().responses, before, "a response within a submission");
            assert_eq!(packets.poll(64, &mut |_: EspBurst| panic!("too early")).delivered, 0);
            assert_eq!(operations.poll(64, &mut |_: CryptoDone| panic!("too early")).delivered, 0);
            let mut done = 0;
            while packets.in_flight() + operations.in_flight() > 0 {
                bench.card.advance(Duration::from_micros(50));
                packets.poll(64, &mut |burst: EspBurst| {
                    assert!(burst.buf.ops().iter().all(|op| op.outcome == Outcome::Done));
                    done += 1;
                });
                operations.poll(64, &mut |end: CryptoDone| assert_eq!(end.outcome, Outcome::Done));
            }
            assert_eq!(done, 8);
        }
    }
}

/// How long, by the card's clock, 16 bursts of packets take, while so many operations wait.
fn packets_take(personality: Personality, operations: usize) -> Duration {
    let bench = Bench::new(personality);
    let mut packets = bench.device.esp_queue(QueueConfig::default()).unwrap();
    let mut numbers = bench.device.crypto_queue(QueueConfig::default()).unwrap();
    let key = include_bytes!("../../../hwtest/testdata/rsa2048.p8");
    let key = bench.device.open_key(KeySource::Der(Secret::from_slice(key))).unwrap().id;
    let mut jobs: VecDeque<CryptoJob> = (0..operations as u64)
        .map(|number| {
            let op = match number % 2 {
                0 => CryptoOp::DhGenerate { group: Group::MODP2048 },
                _ => CryptoOp::Sign {
                    key,
                    scheme: SignScheme::RsaPkcs1(spi::Hash::Sha256),
                    octets: b"octets".to_vec(),
                },
            };
            CryptoJob { token: Token(number), op }
        })
        .collect();
    assert_eq!(numbers.submit(&mut jobs).unwrap(), operations);
    // The first of them are being worked on.
    bench.card.advance(Duration::from_micros(5));
    let start = bench.card.age();
    packets.submit(&mut bench.bursts(16, 32)).unwrap();
    let mut done = 0;
    while done < 16 {
        bench.card.advance(Duration::from_micros(1));
        packets.poll(64, &mut |_: EspBurst| done += 1);
    }
    let took = bench.card.age() - start;
    assert!(numbers.in_flight() == operations, "the operations were over before the packets");
    while numbers.in_flight() > 0 {
        bench.card.advance(Duration::from_micros(100));
        numbers.poll(64, &mut |end: CryptoDone| assert_eq!(end.outcome, Outcome::Done));
    }
    took
}

#[test]
fn key_exchanges_and_signatures_do_not_delay_packets() {
    for personality in GENERATIONS {
        let (alone, beside) = (packets_take(personality, 0), packets_take(personality, 32));
        println!("{personality}: 512 packets take {alone:?} alone and {beside:?} beside 32 operations");
        assert!(beside < alone * 5 / 4, "{personality}: {alone:?} alone, {beside:?} beside operations");
    }
}
