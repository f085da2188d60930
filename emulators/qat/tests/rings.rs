//! Rings as a driver uses them, on cards that are stepped and on cards that run.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use emu_qat::{Card, Options, Personality};
use support::*;

const SECOND: u64 = BASE + 0x10_0000;

#[test]
fn a_packet_is_sealed_in_one_pass() {
    let (card, memory) = stepped(Personality::Vf4941, &Options::default());
    let mut pair = Pair::new(&card, &memory, 1, 128, BASE);
    let request = esp_gcm(&memory, SECOND, 0x1234_5678);
    let response = pair.ask(&memory, &request);
    assert_eq!(response[..8], [0, 0, 4, 0x80, 0, 0, 0, 0]);
    assert_eq!(response[8..16], [0x78, 0x56, 0x34, 0x12, 0, 0, 0, 0]);
    // What another library makes of it.
    let packet = memory.read(SECOND, 96);
    assert_eq!(
        packet[16..],
        hex(
            "e7c383f0456ca2b92c74b6a4d2d41bc489b6a3b0eb9593d7b57c5cd92ae704f8be8f498577a699864c00a5e81e0a25438d0f1d805c74f47f6682c04524e7386f867253c44c98fd6041540ca089441f72"
        )
    );
    assert_eq!(card.counters().served("aes-256-gcm seal"), 1);
}

#[test]
fn a_power_is_computed() {
    for personality in [Personality::Vf4941, Personality::Vf37c9] {
        let (card, memory) = stepped(personality, &Options::default());
        let mut pair = Pair::new(&card, &memory, 0, 64, BASE);
        let response = pair.ask(&memory, &modexp(&memory, SECOND, 7, [&[3], &[200], &[0x01, 0x00, 0x01]]));
        assert_eq!(response[..8], [0, 0, 3, 0x80, 0, 0, 0, 0]);
        assert_eq!(response[16..24], SECOND.to_le_bytes());
        // 3^200 modulo 65537.
        let expected = (0..200).fold(1u64, |power, _| power * 3 % 65537);
        let mut octets = vec![0; 56];
        octets.extend(expected.to_be_bytes());
        assert_eq!(memory.read(SECOND + 0x200, 64), octets);
    }
}

#[test]
fn nothing_happens_within_the_doorbell() {
    let (card, memory) = stepped(Personality::Vf4941, &Options::default());
    let mut pair = Pair::new(&card, &memory, 1, 128, BASE);
    pair.push(&memory, &esp_gcm(&memory, SECOND, 1));
    pair.doorbell();
    assert_eq!(card.counters().fetched, 0);
    assert_eq!(pair.read(0xc0), 0, "the request is still in its ring");
    card.advance(Duration::from_micros(1));
    assert_eq!(card.counters().fetched, 1);
    assert_eq!(pair.read(0xc0), 128);
    assert!(pair.take(&memory).is_none());
    card.advance(Duration::from_millis(1));
    assert!(pair.take(&memory).is_some());
}

#[test]
fn a_running_card_answers_in_order_on_each_ring() {
    let card = Card::running(Personality::Vf4941, &Options::default()).unwrap();
    let memory = Memory::new(&card);
    master(&card);
    let mut symmetric = Pair::new(&card, &memory, 1, 128, BASE);
    let mut asymmetric = Pair::new(&card, &memory, 0, 64, BASE + 0x8000);
    let seal = esp_gcm(&memory, SECOND, 0);
    for opaque in 0..40u32 {
        let mut request = seal.clone();
        request[24..28].copy_from_slice(&opaque.to_le_bytes());
        symmetric.push(&memory, &request);
        asymmetric.push(
            &memory,
            &modexp(&memory, SECOND + 0x1000 + 0x400 * u64::from(opaque), opaque, [&[2], &[5], &[9]]),
        );
    }
    symmetric.doorbell();
    asymmetric.doorbell();
    for pair in [&mut symmetric, &mut asymmetric] {
        for opaque in 0..40u8 {
            let response = loop {
                if let Some(response) = pair.take(&memory) {
                    break response;
                }
                std::thread::yield_now();
            };
            assert_eq!(response[8], opaque);
        }
    }
}
