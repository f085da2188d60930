//! Requests with answers that others have published. The rest is for the judges, see docs/hardware/qat-emulator.md.
#![allow(clippy::unwrap_used)]

mod support;

use emu_qat::{Options, Personality};
use support::*;

const DATA: u64 = BASE + 0x10_0000;
const DESCRIPTOR: u64 = BASE + 0x11_0000;
const DIGEST: u64 = BASE + 0x12_0000;

/// A request to hash `len` octets at [`DATA`] by the descriptor, with the result at [`DIGEST`].
fn hash(len: u32, digest_len: u32) -> Vec<u8> {
    request(
        128,
        &[
            (0, 0x8004_0100),
            (1, 0x0000_0024),
            (2, low(DESCRIPTOR)),
            (3, high(DESCRIPTOR)),
            (8, low(DATA)),
            (9, high(DATA)),
            (10, low(DATA)),
            (11, high(DATA)),
            (12, len),
            (13, len),
            (21, len),
            (24, low(DIGEST)),
            (25, high(DIGEST)),
            (26, digest_len << 24),
            // The second state lies behind 16 octets of setup and 32 of the first, in words of 8.
            (30, 0x2006_2000),
        ],
    )
}

#[test]
fn hmac_sha256_begins_with_states_that_the_driver_has_computed() {
    for (personality, pair) in [(Personality::Vf4941, 1), (Personality::Vf37c9, 2)] {
        let (card, memory) = stepped(personality, &Options::default());
        let mut pair = Pair::new(&card, &memory, pair, 128, BASE);
        // RFC 4231 section 4.2: the key is twenty times 0x0b.
        memory.write(DATA, b"Hi There");
        memory.write(
            DESCRIPTOR,
            &[
                hex("14200000 00000000 00000040 00000000"),
                hex("2bb2180423b95bf9b4e8258cfab5e65411f2921e4feb78ee9890e5fe64b78036"),
                hex("27e7739fd956258356d666e25f810de8ec5e4f8a553d4fb83cff20ba10234b40"),
            ]
            .concat(),
        );
        let response = pair.ask(&memory, &hash(8, 32));
        assert_eq!(response[..8], [0, 0, 4, 0x80, 0, 0, 0, 1]);
        let expected = hex("b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7");
        assert_eq!(memory.read(DIGEST, 32), expected, "{personality}");
    }
}

#[test]
fn x25519_takes_and_gives_numbers_with_the_highest_octet_first() {
    let (card, memory) = stepped(Personality::Vf4941, &Options::default());
    let mut pair = Pair::new(&card, &memory, 0, 64, BASE);
    let reversed = |digits: &str| hex(digits).into_iter().rev().collect::<Vec<u8>>();
    // RFC 7748 section 5.2, the first vector.
    let point = reversed("e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c");
    let scalar = reversed("a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4");
    memory.write(DATA, &[(DATA + 0x100).to_le_bytes(), (DATA + 0x140).to_le_bytes()].concat());
    memory.write(DATA + 0x40, &(DATA + 0x180).to_le_bytes());
    memory.write(DATA + 0x100, &point);
    memory.write(DATA + 0x140, &scalar);
    let response = pair.ask(
        &memory,
        &request(
            64,
            &[
                (0, 0x8003_0000),
                (5, 0x0a06_34c6),
                (8, low(DATA)),
                (9, high(DATA)),
                (10, low(DATA + 0x40)),
                (11, high(DATA + 0x40)),
                (12, 0x0201),
            ],
        ),
    );
    assert_eq!(response[..8], [0, 0, 3, 0x80, 0, 0, 0, 0]);
    let expected = reversed("c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552");
    assert_eq!(memory.read(DATA + 0x180, 32), expected);
}

#[test]
fn what_is_not_there_is_refused_loudly_or_quietly() {
    for (quiet_refusals, status) in [(false, 0x84), (true, 0x04)] {
        let (card, memory) = stepped(Personality::Vf4941, &Options { quiet_refusals, ..Options::default() });
        let mut pair = Pair::new(&card, &memory, 1, 128, BASE);
        memory.write(DATA, &[0; 64]);
        memory.write(DIGEST, &[0xee; 32]);
        // SNOW 3G: algorithm 13.
        memory.write(DESCRIPTOR, &[hex("0d000000 00000000 00000000 00000000"), vec![0; 64]].concat());
        let response = pair.ask(&memory, &hash(64, 4));
        assert_eq!(response[6], status);
        assert_eq!(memory.read(DIGEST, 32), [0xee; 32], "and nothing is written");
        assert_eq!(card.counters().refused.get("SNOW 3G"), Some(&1));
    }
}
