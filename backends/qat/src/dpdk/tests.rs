//! Lanes on devices that are full, that refuse, and that are halted with work in them.

use std::sync::Arc;

use spi::{Direction, Encr, EspOp, Integ, Pool, SaParams, Secret};

use super::eal;
use super::sa::Sa;
use super::sys::{Ended, Engine, Lane, Wanted, plug};
use crate::iv::Ivs;

/// A device of `driver` with pairs of `places` requests.
fn engine(driver: &str, name: &str, places: u32) -> Arc<Engine> {
    eal::start(&[]).unwrap();
    let name = format!("{driver}_{name}");
    let opened = eal::call(move || {
        plug("vdev", &name, "max_nb_queue_pairs=2").unwrap();
        let plugged = Some(("vdev", name.clone()));
        Engine::open(&name, Wanted { plugged, pairs: 2, places, sessions: 4, operations: 4 }).unwrap()
    });
    Arc::new(opened.unwrap())
}

fn lane(engine: &Arc<Engine>, requests: usize) -> Lane {
    let engine = Arc::clone(engine);
    eal::call(move || Lane::open(&engine, requests)).unwrap().unwrap()
}

fn sa(engine: &Arc<Engine>) -> Sa {
    let params = SaParams {
        spi: 0x1234_5678,
        dir: Direction::Seal,
        encr: Encr::AES128_CBC,
        integ: Integ::HMAC_SHA2_256_128,
        encr_key: Secret::new(vec![1; 16]),
        integ_key: Secret::new(vec![2; 32]),
        esn: false,
    };
    Sa::new(&params, engine).unwrap()
}

/// Packets in one buffer, 128 octets from each other.
fn packets(sa: &Sa, lane: &mut Lane, bytes: &mut [u8], count: usize) {
    let mut ivs = Ivs::new().unwrap();
    for n in 0..count {
        let (layout, aside) = sa.begin(bytes, &EspOp::new(128 * n as u32, 64, n as u64), &mut ivs).unwrap();
        assert!(lane.put(sa.session(), &layout, &aside).is_some());
    }
}

#[test]
fn what_a_full_device_does_not_take_waits_and_is_done_once() {
    const COUNT: usize = 200;
    let engine = engine("crypto_aesni_mb", "full", 64);
    let (mut lane, sa, pool) = (lane(&engine, COUNT), sa(&engine), Pool::new(128 * COUNT, 1).unwrap());
    let mut buf = pool.take().unwrap();
    packets(&sa, &mut lane, buf.bytes_mut(), COUNT);
    assert_eq!(lane.room(), 0);
    let access = engine.enter(lane.pair()).unwrap();
    let refused = |number, ended| panic!("request {number} was refused: {ended:?}");
    assert!(lane.push(&access, refused), "a device of 64 places takes {COUNT}");
    assert!((1..COUNT).contains(&lane.out()), "{} were taken", lane.out());
    let mut seen = vec![0; COUNT];
    for _ in 0..10 * COUNT {
        lane.take(&access, 7, |number, ended, _| {
            assert_eq!(ended, Ended::Good);
            seen[number as usize] += 1;
        });
        lane.push(&access, refused);
    }
    assert!(seen.iter().all(|times| *times == 1), "{seen:?}");
    assert_eq!((lane.out(), lane.room()), (0, COUNT));
}

/// OpenSSL's driver does the work while it takes a request, and keeps what it cannot do out of its ring: such a request must end, once,
/// and those behind it must not wait for it.
#[test]
fn what_a_device_judges_at_once_holds_nothing_up() {
    let engine = engine("crypto_openssl", "judge", 64);
    let (mut lane, sa, pool) = (lane(&engine, 8), sa(&engine), Pool::new(1024, 1).unwrap());
    let mut buf = pool.take().unwrap();
    let mut ivs = Ivs::new().unwrap();
    for n in 0..4 {
        let op = EspOp::new(128 * n, 64, n.into());
        let (mut layout, aside) = sa.begin(buf.bytes_mut(), &op, &mut ivs).unwrap();
        if n == 1 {
            // Text that begins behind the end of the packet.
            (layout.len, layout.text_at) = (10, 20);
        }
        assert!(lane.put(sa.session(), &layout, &aside).is_some());
    }
    let access = engine.enter(lane.pair()).unwrap();
    let mut judged = Vec::new();
    assert!(!lane.push(&access, |number, ended| judged.push((number, ended))));
    assert!(matches!(judged[..], [(_, Ended::Error(_))]), "{judged:?}");
    assert_eq!((lane.out(), lane.room()), (3, 5));
    let mut good = 0;
    lane.take(&access, 8, |_, ended, _| good += u32::from(ended == Ended::Good));
    assert_eq!((good, lane.out(), lane.room()), (3, 0, 8));
}

#[test]
fn a_halted_device_lets_nobody_in_and_has_forgotten_everything_when_it_runs_again() {
    let engine = engine("crypto_aesni_mb", "halt", 64);
    let (mut lane, sa, pool) = (lane(&engine, 16), sa(&engine), Pool::new(4096, 1).unwrap());
    let mut buf = pool.take().unwrap();
    packets(&sa, &mut lane, buf.bytes_mut(), 16);
    {
        let access = engine.enter(lane.pair()).unwrap();
        lane.push(&access, |_, _| ());
    }
    assert_eq!(lane.out(), 16);
    engine.halt();
    assert!(engine.enter(lane.pair()).is_none());
    lane.forget();
    engine.revive().unwrap();
    let access = engine.enter(lane.pair()).unwrap();
    assert_eq!((lane.out(), lane.room()), (0, 16));
    packets(&sa, &mut lane, buf.bytes_mut(), 3);
    lane.push(&access, |_, _| ());
    let mut seen = 0;
    for _ in 0..100 {
        lane.take(&access, 16, |_, ended, _| {
            assert_eq!(ended, Ended::Good);
            seen += 1;
        });
    }
    assert_eq!(seen, 3, "requests of the life before came back");
}

#[test]
fn pairs_and_sessions_run_out_and_come_back() {
    let engine = engine("crypto_openssl", "few", 64);
    let lanes = [lane(&engine, 8), lane(&engine, 8)];
    let (one_more, other) = (Arc::clone(&engine), Arc::clone(&engine));
    let refused = eal::call(move || Lane::open(&one_more, 8)).unwrap();
    assert_eq!(refused.err().unwrap(), "every queue pair is taken");
    drop(lanes);
    assert!(eal::call(move || Lane::open(&other, 8)).unwrap().is_ok());
    let sas: Vec<Sa> = (0..4).map(|_| sa(&engine)).collect();
    let params = SaParams {
        spi: 256,
        dir: Direction::Open,
        encr: Encr::AES256_GCM16,
        integ: Integ::NONE,
        encr_key: Secret::new(vec![1; 36]),
        integ_key: Secret::new(Vec::new()),
        esn: true,
    };
    let kind = |sa: Result<Sa, spi::Fault>| sa.err().map(|fault| fault.kind);
    assert_eq!(kind(Sa::new(&params, &engine)), Some(spi::FaultKind::Exhausted));
    drop(sas);
    assert_eq!(kind(Sa::new(&params, &engine)), None);
}

#[test]
fn a_session_of_another_device_is_not_used() {
    let (one, other) = (engine("crypto_aesni_mb", "one", 64), engine("crypto_openssl", "other", 64));
    let (mut lane, sa, pool) = (lane(&one, 8), sa(&other), Pool::new(1024, 1).unwrap());
    let mut buf = pool.take().unwrap();
    let (layout, aside) = sa.begin(buf.bytes_mut(), &EspOp::new(0, 64, 1), &mut Ivs::new().unwrap()).unwrap();
    assert!(lane.put(sa.session(), &layout, &aside).is_none() && lane.room() == 8);
}
