//! What each fault of a plan looks like to a driver.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use emu_qat::fault::{Fault, Kind, Plan};
use emu_qat::{Card, Interrupt, Options, Personality};
use support::*;

const DATA: u64 = BASE + 0x10_0000;
/// Longer than any request of these tests takes, shorter than any fault lasts.
const SOON: Duration = Duration::from_micros(200);
const MS: Duration = Duration::from_millis(1);

/// A card with faults and a symmetric pair of rings.
fn with(faults: impl IntoIterator<Item = Fault>) -> (Card, Memory, Pair) {
    let plan = Plan { seed: 1, faults: faults.into_iter().collect() };
    let (card, memory) = stepped(Personality::Vf4941, &Options { plan, ..Options::default() });
    let pair = Pair::new(&card, &memory, 1, 128, BASE);
    (card, memory, pair)
}

/// Submits some requests to seal packets. The cookies count from 0.
fn seal(pair: &mut Pair, memory: &Memory, count: u32) {
    for opaque in 0..count {
        pair.push(memory, &esp_gcm(memory, DATA + 0x1000 * u64::from(opaque), opaque));
    }
    pair.doorbell();
}

/// The cookies of all responses that are there.
fn cookies(pair: &mut Pair, memory: &Memory) -> Vec<u8> {
    let cookies = std::iter::from_fn(|| pair.take(memory)).map(|response| response[8]).collect();
    pair.acknowledge();
    cookies
}

/// Asks the physical function for a version.
fn ask_version(card: &Card) -> u32 {
    card.write32(2, 0x1008, 0);
    card.write32(2, 0x100c, 0x0000_051b);
    card.read32(2, 0x1008)
}

/// Says that the function is in use. Who does not say it is told nothing.
fn say_init(card: &Card) {
    card.write32(2, 0x100c, 0x0000_000f);
}

#[test]
fn a_delayed_job_comes_later_and_holds_up_its_ring() {
    let (card, memory, mut pair) = with([Fault::new(Kind::Delay(5 * MS)).after(1)]);
    seal(&mut pair, &memory, 3);
    card.advance(4 * MS);
    assert_eq!(cookies(&mut pair, &memory), [0]);
    card.advance(2 * MS);
    assert_eq!(cookies(&mut pair, &memory), [1, 2]);
}

#[test]
fn a_reordered_job_is_overtaken_by_as_many_as_the_plan_says() {
    let (card, memory, mut pair) = with([Fault::new(Kind::Reorder(2))]);
    seal(&mut pair, &memory, 4);
    card.advance(SOON);
    assert_eq!(cookies(&mut pair, &memory), [1, 2, 0, 3]);
}

#[test]
fn a_job_that_nobody_overtakes_comes_all_the_same() {
    let (card, memory, mut pair) = with([Fault::new(Kind::Reorder(2))]);
    seal(&mut pair, &memory, 1);
    card.advance(MS);
    assert!(cookies(&mut pair, &memory).is_empty());
    card.advance(10 * MS);
    assert_eq!(cookies(&mut pair, &memory), [0]);
}

#[test]
fn a_lost_completion_never_comes_though_the_job_is_done() {
    let (card, memory, mut pair) = with([Fault::new(Kind::LoseCompletion).after(1)]);
    seal(&mut pair, &memory, 3);
    card.advance(Duration::from_secs(10));
    assert_eq!(cookies(&mut pair, &memory), [0, 2]);
    assert_eq!(card.counters().served("aes-256-gcm seal"), 3);
}

#[test]
fn a_doubled_completion_comes_twice() {
    let (card, memory, mut pair) = with([Fault::new(Kind::DoubleCompletion)]);
    seal(&mut pair, &memory, 2);
    card.advance(MS);
    assert_eq!(cookies(&mut pair, &memory), [0, 0, 1]);
}

#[test]
fn a_wrong_cookie_is_that_of_no_job() {
    let (card, memory, mut pair) = with([Fault::new(Kind::WrongCookie).after(1)]);
    seal(&mut pair, &memory, 3);
    card.advance(MS);
    assert_eq!(cookies(&mut pair, &memory), [0, !1, 2]);
}

#[test]
fn a_flipped_bit_is_one_bit_of_the_check_value() {
    let (card, memory, mut pair) = with([Fault::new(Kind::FlipBit)]);
    pair.ask(&memory, &esp_gcm(&memory, DATA, 0));
    let wrong = memory.read(DATA, 96);
    let response = pair.ask(&memory, &esp_gcm(&memory, DATA, 1));
    assert_eq!(response[6], 0, "it is not told");
    let right = memory.read(DATA, 96);
    assert_eq!(wrong[..80], right[..80], "the text is right");
    let bits: u32 = wrong.iter().zip(&right).map(|(a, b)| (a ^ b).count_ones()).sum();
    assert_eq!(bits, 1);
    assert_eq!(card.counters().faults, 1);
}

#[test]
fn an_engine_error_is_told_and_writes_nothing() {
    let (_card, memory, mut pair) = with([Fault::new(Kind::EngineError)]);
    let request = esp_gcm(&memory, DATA, 0);
    let before = memory.read(DATA, 96);
    let response = pair.ask(&memory, &request);
    assert_eq!((response[5] as i8, response[6]), (-16, 0x80));
    assert_eq!(memory.read(DATA, 96), before);
}

#[test]
fn a_ring_that_takes_no_more_fills_up_and_goes_on_later() {
    let (card, memory, mut pair) = with([Fault::new(Kind::RingFull(10 * MS)).after(2)]);
    seal(&mut pair, &memory, 6);
    card.advance(9 * MS);
    assert_eq!(cookies(&mut pair, &memory), [0, 1, 2]);
    assert_eq!(pair.read(0xc0), 3 * 128, "three are still in the ring");
    card.advance(2 * MS);
    assert_eq!(cookies(&mut pair, &memory), [3, 4, 5]);
}

#[test]
fn a_slow_card_is_slow_for_as_long_as_the_plan_says() {
    let (card, memory, mut pair) = with([Fault::new(Kind::Slow(1000.0, 20 * MS))]);
    seal(&mut pair, &memory, 1);
    card.advance(MS);
    assert!(cookies(&mut pair, &memory).is_empty());
    card.advance(20 * MS);
    assert_eq!(cookies(&mut pair, &memory), [0]);
    seal(&mut pair, &memory, 1);
    card.advance(SOON);
    assert_eq!(cookies(&mut pair, &memory), [0]);
}

#[test]
fn an_uncorrectable_error_ends_everything_until_a_reset() {
    let (card, memory, mut pair) = with([Fault::new(Kind::Uncorrectable).after(2)]);
    let (msi, err) = (bell(), bell());
    card.connect(Interrupt::Msi, Some(msi.try_clone().unwrap())).unwrap();
    card.connect(Interrupt::Error, Some(err.try_clone().unwrap())).unwrap();
    card.write32(2, 0x1004, 0);
    say_init(&card);
    seal(&mut pair, &memory, 3);
    card.advance(Duration::from_secs(1));
    assert!(cookies(&mut pair, &memory).is_empty());
    assert_eq!(card.counters().lost, 3);
    assert_eq!(card.read32(2, 0x1008) & 0xff, 0x13, "a message: fatal error");
    assert_eq!((rung(&msi), rung(&err)), (1, 1));
    seal(&mut pair, &memory, 1);
    card.advance(Duration::from_secs(1));
    assert!(cookies(&mut pair, &memory).is_empty());

    card.reset();
    master(&card);
    let mut pair = Pair::new(&card, &memory, 1, 128, BASE);
    seal(&mut pair, &memory, 1);
    card.advance(MS);
    assert_eq!(cookies(&mut pair, &memory), [0]);
}

#[test]
fn a_restart_is_announced_waits_for_consent_and_is_over_some_time() {
    let (card, memory, mut pair) = with([]);
    say_init(&card);
    card.inject(Fault::new(Kind::Restart { grace: 100 * MS, away: 50 * MS }));
    card.advance(MS);
    assert_eq!(card.read32(2, 0x1008), 0x7, "a message: restarting");
    card.write32(2, 0x1008, 0x6);
    seal(&mut pair, &memory, 1);
    card.advance(MS);
    assert_eq!(cookies(&mut pair, &memory), [0], "it works on until it has consent");
    card.write32(2, 0x100c, 0xa << 2 | 3);
    seal(&mut pair, &memory, 1);
    card.advance(40 * MS);
    assert!(cookies(&mut pair, &memory).is_empty());
    card.write32(2, 0x100c, 0x0000_051b);
    assert_eq!(card.read32(2, 0x100c) & 1, 1, "nobody is there to answer");
    card.advance(20 * MS);
    assert_eq!(card.read32(2, 0x1008), 5 << 2 | 3, "a message: restarted");
    assert_ne!(ask_version(&card) & 1, 0);
    let mut pair = Pair::new(&card, &memory, 1, 128, BASE);
    seal(&mut pair, &memory, 1);
    card.advance(MS);
    assert_eq!(cookies(&mut pair, &memory), [0]);
}

#[test]
fn a_restart_without_consent_comes_when_its_grace_is_over() {
    let (card, memory, mut pair) = with([]);
    say_init(&card);
    card.inject(Fault::new(Kind::Restart { grace: 100 * MS, away: 50 * MS }));
    card.advance(90 * MS);
    seal(&mut pair, &memory, 1);
    card.advance(MS);
    assert_eq!(cookies(&mut pair, &memory), [0]);
    card.advance(10 * MS);
    seal(&mut pair, &memory, 1);
    card.advance(Duration::from_secs(1));
    assert!(cookies(&mut pair, &memory).is_empty(), "its rings are not set up any more");
}

#[test]
fn silence_is_silent_and_nothing_is_lost_when_it_ends() {
    let (card, memory, mut pair) = with([Fault::new(Kind::Silence(Some(Duration::from_secs(3)))).after(1)]);
    seal(&mut pair, &memory, 3);
    card.advance(Duration::from_secs(2));
    assert!(cookies(&mut pair, &memory).is_empty());
    card.advance(Duration::from_secs(2));
    assert_eq!(cookies(&mut pair, &memory), [0, 1, 2]);
}

#[test]
fn what_is_unplugged_reads_as_ones_for_ever() {
    let (card, memory, mut pair) = with([]);
    let request = bell();
    card.connect(Interrupt::Request, Some(request.try_clone().unwrap())).unwrap();
    seal(&mut pair, &memory, 1);
    card.inject(Fault::new(Kind::Unplug));
    card.advance(MS);
    assert!(cookies(&mut pair, &memory).is_empty());
    assert_eq!(rung(&request), 1);
    card.reset();
    master(&card);
    let mut id = [0; 4];
    card.read_config(0, &mut id);
    assert_eq!((id, card.read32(0, 0x19c), card.read32(2, 0x1004)), ([0xff; 4], u32::MAX, u32::MAX));
}

#[test]
fn a_slow_reset_shows_ones_until_it_is_over() {
    let (card, _memory, _pair) = with([Fault::new(Kind::SlowReset(700 * MS))]);
    card.write_config(0x88, &[0, 0x80]);
    card.advance(600 * MS);
    let mut id = [0; 2];
    card.read_config(0, &mut id);
    assert_eq!((id, card.read32(2, 0x1004)), ([0xff; 2], u32::MAX));
    card.advance(200 * MS);
    card.read_config(0, &mut id);
    assert_eq!((id, card.read32(2, 0x1004)), ([0x86, 0x80], 1));
}

#[test]
fn a_message_can_meet_silence_a_wrong_checksum_or_another_version() {
    let (card, _memory, _pair) = with([]);
    card.inject(Fault::new(Kind::MailboxSilent));
    assert_eq!(ask_version(&card), 0);
    assert_eq!(card.read32(2, 0x100c), 0x0000_051b, "it is not acknowledged");
    assert_eq!(ask_version(&card), 0x0001_050b);

    let checksum = |card: &Card| {
        card.write32(2, 0x1008, 0);
        card.write32(2, 0x100c, 0x0002_3327);
        card.read32(2, 0x1008) >> 10 & 0xff
    };
    card.inject(Fault::new(Kind::MailboxBadChecksum));
    assert_ne!(checksum(&card), 0xac);
    assert_eq!(checksum(&card), 0xac);

    card.inject(Fault::new(Kind::MailboxIncompatible));
    assert_eq!(ask_version(&card) >> 16 & 3, 2, "incompatible");
}

#[test]
fn interrupts_get_lost_and_come_for_no_reason() {
    for (kind, expected) in [(Kind::LoseInterrupt, 0), (Kind::SpuriousInterrupt, 2)] {
        let (card, memory, mut pair) = with([]);
        let msi = bell();
        card.connect(Interrupt::Msi, Some(msi.try_clone().unwrap())).unwrap();
        pair.write(0x17c, 2);
        pair.write(0x180, 0x8000_0000);
        card.inject(Fault::new(kind));
        seal(&mut pair, &memory, 1);
        card.advance(100 * MS);
        assert_eq!(cookies(&mut pair, &memory), [0]);
        assert_eq!(rung(&msi), expected);
    }
}

#[test]
fn what_a_reset_has_swallowed_touches_memory_no_more() {
    let (card, memory, mut pair) = with([Fault::new(Kind::Delay(5 * MS)).always()]);
    seal(&mut pair, &memory, 8);
    card.advance(MS);
    let before = memory.read(BASE, MEMORY as usize);
    card.write_config(0x88, &[0, 0x80]);
    master(&card);
    card.advance(Duration::from_secs(1));
    assert!(memory.read(BASE, MEMORY as usize) == before);
    assert_eq!((card.counters().lost, card.counters().responses), (8, 0));
}

#[test]
fn faults_of_one_service_leave_the_other_alone() {
    let (card, memory) = stepped(Personality::Vf4941, &Options::default());
    card.inject(Fault::new(Kind::LoseCompletion).always().for_service(1));
    let mut symmetric = Pair::new(&card, &memory, 1, 128, BASE);
    let mut asymmetric = Pair::new(&card, &memory, 0, 64, BASE + 0x8000);
    seal(&mut symmetric, &memory, 2);
    asymmetric.push(&memory, &modexp(&memory, DATA + 0x8000, 9, [&[3], &[200], &[7]]));
    asymmetric.doorbell();
    card.advance(Duration::from_secs(1));
    assert_eq!(cookies(&mut symmetric, &memory), [0, 1]);
    assert!(cookies(&mut asymmetric, &memory).is_empty());
}
