//! What goes wrong with tokens, made to happen on the emulated one.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use pkcs11::{KeySpec, Site};
use spi::alg::Curve;
use spi::crypto::KeyInfo;
use spi::{
    CryptoDone, CryptoJob, CryptoOp, CryptoOutput, Device, FaultKind, Group, Hash, Health, Outcome,
    SignScheme, Token,
};

use crate::Check;
use crate::bench::{Bench, fault, key, said, sign, verifies};
use crate::place::{Kind, PIN, Place, open};

macro_rules! checks {
    ($($name:ident)*) => { &[$(Check { name: stringify!($name), kinds: &[Kind::Emulated], run: $name }),*] };
}

pub(crate) const CHECKS: &[Check] = checks! {
    a_token_that_is_pulled_out_fails_at_once_and_serves_again_when_it_is_back
    a_lost_session_and_a_logout_cost_nobody_a_signature
    a_token_that_fails_now_and_then_is_tried_once_more
    a_slow_token_does_as_many_at_a_time_as_it_has_sessions
    a_reset_under_work_aborts_it
    a_call_that_does_not_return_does_not_keep_the_queue
    too_few_sessions_are_said
    the_last_try_and_a_locked_pin_are_not_used
    another_key_under_the_same_name_is_not_used
    exchanges_that_are_given_up_leave_nothing_behind
    a_token_without_a_mechanism_says_so
};

const SCHEME: SignScheme = SignScheme::EcdsaPlain(Curve::P256, Hash::Sha256);

fn with_key(place: &Place, sessions: usize) -> (std::sync::Arc<dyn Device>, KeyInfo, Bench) {
    let uri = place.desk().generate(KeySpec::Ec(Curve::P256), "k", None).unwrap();
    let device = place.keys(Site { sessions, ..place.site() });
    let info = key(&*device, &uri).unwrap();
    let bench = Bench::new(&*device);
    (device, info, bench)
}

fn counter(device: &dyn Device, name: &str) -> u64 {
    device.stats().unwrap().counters.iter().find(|(known, _)| *known == name).unwrap().1
}

fn a_token_that_is_pulled_out_fails_at_once_and_serves_again_when_it_is_back(place: &Place) {
    let (device, info, mut bench) = with_key(place, 2);
    let exchanges = open(&place.exchanges()).unwrap();
    let mut other = Bench::new(&*exchanges);
    bench.sign(&info, SCHEME, b"1").unwrap();
    for round in 0..3u8 {
        place.control("present = false");
        for _ in 0..5 {
            let outcome = bench.sign(&info, SCHEME, b"2").unwrap_err();
            let text = said(&*device, outcome);
            assert_eq!(fault(outcome).kind, FaultKind::Internal, "nobody may take another key instead");
            assert!(text.contains("no token fits pkcs11:token=lab") && text.contains("insert it"), "{text}");
        }
        assert_eq!(device.health(), Health::Ready, "it serves as soon as the token is back");
        assert!(other.run(CryptoOp::DhGenerate { group: Group::ECP256 }).is_err());
        assert_eq!(exchanges.health(), Health::Failed, "others do the exchanges now");
        assert!(open(&place.exchanges()).err().unwrap().contains("insert it"));
        place.control("present = true");
        let signature = bench.sign(&info, SCHEME, &[round]).unwrap();
        assert!(
            verifies(&info.spki, SCHEME, &[round], &signature),
            "the same key, without a word from anybody"
        );
    }
}

fn a_lost_session_and_a_logout_cost_nobody_a_signature(place: &Place) {
    let (device, info, mut bench) = with_key(place, 3);
    for n in 1..6 {
        let ops = (0..30u8).map(|n| sign(&info, SCHEME, &[n])).collect();
        assert!(bench.run_all(ops).iter().all(|(outcome, _)| *outcome == Outcome::Done));
        match n % 2 {
            0 => place.control(&format!("lose_sessions = {n}")),
            _ => place.control(&format!("lose_sessions = {}\nlog_out = {n}", n - 1)),
        }
    }
    let (lost, logins) = (counter(&*device, "sessions-lost"), counter(&*device, "logins"));
    assert!(lost >= 4 && logins >= 5, "{lost} {logins}");
    assert_eq!(counter(&*device, "failed"), 0);
}

fn a_token_that_fails_now_and_then_is_tried_once_more(place: &Place) {
    let (device, info, mut bench) = with_key(place, 1);
    place.control("fail_every = 2");
    for n in 0..20u8 {
        bench.sign(&info, SCHEME, &[n]).unwrap();
    }
    assert!(counter(&*device, "sessions-lost") >= 10);
    // One more, not more: a token that always fails is not hammered.
    place.control("fail_every = 1");
    let before = place.count("C_Sign");
    let text = said(&*device, bench.sign(&info, SCHEME, b"x").unwrap_err());
    assert!(text.contains("CKR_DEVICE_ERROR"), "{text}");
    assert_eq!(place.count("C_Sign") - before, 2);
    // What only says that the request is wrong is not repeated at all.
    place.control("fail_every = 1\nfail_with = 0x21");
    let before = place.count("C_Sign");
    assert!(said(&*device, bench.sign(&info, SCHEME, b"x").unwrap_err()).contains("CKR_DATA_LEN_RANGE"));
    assert_eq!(place.count("C_Sign") - before, 1);
}

/// 64 signatures of 20 ms on a token that does 4 at a time, in 8 sessions: the token's own parallelism is used to the full, and whoever
/// submits is never held up.
fn a_slow_token_does_as_many_at_a_time_as_it_has_sessions(place: &Place) {
    let (_device, info, mut bench) = with_key(place, 8);
    place.control("sign_ms = 20\nparallel = 4");
    let mut jobs: VecDeque<CryptoJob> = (0..64u64)
        .map(|n| CryptoJob { token: Token(n), op: sign(&info, SCHEME, &n.to_be_bytes()) })
        .collect();
    assert_eq!(bench.queue.submit(&mut jobs).unwrap(), 64);
    let (mut done, mut idle_polls, begin) = (0, 0u64, Instant::now());
    while done < 64 {
        let polled = bench.queue.poll(64, &mut |d: CryptoDone| assert_eq!(d.outcome, Outcome::Done));
        done += polled.delivered;
        idle_polls += u64::from(polled.delivered == 0);
        assert!(begin.elapsed() < Duration::from_secs(60));
        std::thread::sleep(Duration::from_micros(100));
    }
    assert_eq!(place.count("peak"), 4, "all of the token's engines were busy at one time");
    assert_eq!(place.count("C_Sign"), 64);
    // The caller went round many times while the token slept 16 rounds of 20 ms.
    assert!(idle_polls > 64, "{idle_polls}");
    println!("     64 signatures of 20 ms, 4 at a time: {:?} (least 320 ms)", begin.elapsed());
}

fn a_reset_under_work_aborts_it(place: &Place) {
    let (device, info, mut bench) = with_key(place, 2);
    place.control("sign_ms = 30\nparallel = 2");
    let mut jobs: VecDeque<CryptoJob> =
        (0..10u64).map(|n| CryptoJob { token: Token(n), op: sign(&info, SCHEME, b"x") }).collect();
    bench.queue.submit(&mut jobs).unwrap();
    device.begin_reset();
    let mut seen = 0;
    let begin = Instant::now();
    while seen < 10 {
        assert!(begin.elapsed() < Duration::from_secs(30));
        bench.queue.poll(64, &mut |d: CryptoDone| {
            assert_eq!(d.outcome, Outcome::Failed(FaultKind::Aborted.into()));
            assert!(matches!(d.output, CryptoOutput::None));
            seen += 1;
        });
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(place.count("C_Sign") <= 2, "what had not begun did not begin");
}

fn a_call_that_does_not_return_does_not_keep_the_queue(place: &Place) {
    let (device, info, mut bench) = with_key(place, 1);
    place.control("sign_ms = 600000");
    let mut jobs: VecDeque<CryptoJob> =
        (0..3u64).map(|n| CryptoJob { token: Token(n), op: sign(&info, SCHEME, b"x") }).collect();
    bench.queue.submit(&mut jobs).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    // Returns after its patience, though the call takes ten minutes; the process may end.
    drop(bench);
    drop(device);
}

fn too_few_sessions_are_said(place: &Place) {
    let (device, info, mut bench) = with_key(place, 1);
    bench.sign(&info, SCHEME, b"x").unwrap();
    place.control("max_sessions = 2");
    let more = place.keys(place.site());
    let text = key(&*more, "pkcs11:object=k").unwrap_err();
    assert!(text.contains("no session left") && text.contains("lower `sessions`"), "{text}");
    bench.sign(&info, SCHEME, b"x").unwrap();
    drop(device);
}

fn the_last_try_and_a_locked_pin_are_not_used(place: &Place) {
    place.desk().generate(KeySpec::Ec(Curve::P256), "k", None).unwrap();
    std::fs::write(place.folder.join("wrong-pins"), "2").unwrap();
    let device = place.keys(place.site());
    let last = key(&*device, "pkcs11:object=k").unwrap_err();
    assert!(
        last.contains("would lock after one more wrong PIN") && last.contains("pkcs11-tool --login"),
        "{last}"
    );
    std::fs::write(place.folder.join("wrong-pins"), "3").unwrap();
    let locked = key(&*device, "pkcs11:object=k").unwrap_err();
    assert!(locked.contains("is locked") && locked.contains("security officer"), "{locked}");
    assert_eq!(counter(&*device, "logins"), 0, "neither was tried");
    // Somebody else logged in, which clears the count.
    std::fs::write(place.folder.join("wrong-pins"), "0").unwrap();
    assert!(key(&*device, "pkcs11:object=k").is_ok());
    assert!(!last.contains(PIN) && !locked.contains(PIN));
}

fn another_key_under_the_same_name_is_not_used(place: &Place) {
    let (device, info, mut bench) = with_key(place, 1);
    bench.sign(&info, SCHEME, b"x").unwrap();
    for file in std::fs::read_dir(place.folder.join("objects")).unwrap() {
        std::fs::remove_file(file.unwrap().path()).unwrap();
    }
    place.control("lose_sessions = 1");
    drop(place.desk().list(true));
    // Another token with the same label was put in.
    place.desk().generate(KeySpec::Ec(Curve::P256), "k", None).unwrap();
    let uri = "pkcs11:object=k";
    let other = key(&*device, uri).unwrap();
    assert_ne!(other.spki, info.spki);
    let outcome = bench.sign(&info, SCHEME, b"x").unwrap_err();
    assert!(
        said(&*device, outcome).contains("no private key fits")
            || said(&*device, outcome).contains("another key")
    );
    assert!(bench.sign(&other, SCHEME, b"x").is_ok());
}

fn exchanges_that_are_given_up_leave_nothing_behind(place: &Place) {
    let device = open(&place.exchanges()).unwrap();
    let mut bench = Bench::new(&*device);
    let group = Group::ECP256;
    let pairs = bench.run_all((0..1500).map(|_| CryptoOp::DhGenerate { group }).collect());
    assert!(pairs.iter().all(|(outcome, _)| *outcome == Outcome::Done));
    let mut pairs = pairs.into_iter();
    let first = pairs.next().unwrap().1;
    let CryptoOutput::DhPair(ours, theirs) = first else { panic!() };
    let outcome = bench.run(CryptoOp::DhDerive { group, ours, theirs }).err().unwrap();
    assert_eq!(fault(outcome).kind, FaultKind::StaleHandle, "the oldest made room");
    let CryptoOutput::DhPair(ours, theirs) = pairs.next_back().unwrap().1 else { panic!() };
    assert!(bench.run(CryptoOp::DhDerive { group, ours, theirs }).is_ok());
    let CryptoOutput::DhPair(ours, theirs) = pairs.next_back().unwrap().1 else { panic!() };
    place.control("lose_sessions = 9");
    let outcome = bench.run(CryptoOp::DhDerive { group, ours, theirs }).err().unwrap();
    assert_eq!(fault(outcome).kind, FaultKind::StaleHandle, "it went with its session");
    assert!(bench.run(CryptoOp::DhGenerate { group }).is_ok());
}

fn a_token_without_a_mechanism_says_so(place: &Place) {
    let uri = place.desk().generate(KeySpec::Ec(Curve::P256), "k", None).unwrap();
    place.control("without = [0x1041]");
    let device = place.keys(place.site());
    let text = key(&*device, &uri).unwrap_err();
    assert!(text.contains("no mechanism that signs with the ECDSA P-256 key"), "{text}");
    let declared = &device.desc().caps.sign;
    assert!(!declared.contains(&SCHEME) && declared.contains(&SignScheme::RsaPss(Hash::Sha256)));
}
