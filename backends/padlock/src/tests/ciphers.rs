use openssl::symm::{self, Cipher as Known, Crypter};
use spi::Direction;

use super::{hex, work};
use crate::blocks::Work;
use crate::cipher::Cipher;
use crate::mode::Mode;
use crate::sys::guard::Guarded;

const MODES: [Mode; 5] = [Mode::Ecb, Mode::Cbc, Mode::Ctr, Mode::Cfb, Mode::Ofb];
const BOTH: [Direction; 2] = [Direction::Seal, Direction::Open];

/// The same by OpenSSL.
fn known(mode: Mode, dir: Direction, key: &[u8], iv: &[u8; 16], text: &[u8]) -> Vec<u8> {
    let all = [
        [
            Known::aes_128_ecb(),
            Known::aes_128_cbc(),
            Known::aes_128_ctr(),
            Known::aes_128_cfb128(),
            Known::aes_128_ofb(),
        ],
        [
            Known::aes_192_ecb(),
            Known::aes_192_cbc(),
            Known::aes_192_ctr(),
            Known::aes_192_cfb128(),
            Known::aes_192_ofb(),
        ],
        [
            Known::aes_256_ecb(),
            Known::aes_256_cbc(),
            Known::aes_256_ctr(),
            Known::aes_256_cfb128(),
            Known::aes_256_ofb(),
        ],
    ];
    let cipher = all[(key.len() - 16) / 8][MODES.iter().position(|one| *one == mode).unwrap()];
    let way = if dir == Direction::Seal { symm::Mode::Encrypt } else { symm::Mode::Decrypt };
    let mut crypter = Crypter::new(cipher, way, key, cipher.iv_len().map(|_| &iv[..])).unwrap();
    crypter.pad(false);
    let mut out = vec![0; text.len() + 16];
    let first = crypter.update(text, &mut out).unwrap();
    let rest = crypter.finalize(&mut out[first..]).unwrap();
    out.truncate(first + rest);
    out
}

fn keys() -> [Vec<u8>; 3] {
    [16, 24, 32].map(|len| (0..len).map(|n: u8| n.wrapping_mul(37) ^ 0x5a).collect())
}

fn octets(len: usize) -> Vec<u8> {
    (0..len).map(|n| ((n * 31) >> 3) as u8 ^ n as u8).collect()
}

fn check(mode: Mode, dir: Direction, key: &[u8], iv: &[u8; 16], place: &mut [u8], work: &mut Work) {
    let expected = known(mode, dir, key, iv, place);
    assert!(Cipher::new(key).unwrap().apply(mode, dir, iv, place, work));
    let at = place.as_ptr().addr() % 4096;
    assert!(
        place == expected,
        "{mode:?} {dir:?} {} octets of key, {} of text at {at:#x}",
        key.len(),
        place.len()
    );
}

/// SP 800-38A appendix F: two blocks of each.
#[test]
fn the_modes_are_those_of_the_standard() {
    let mut work = work();
    let keys = [
        hex("2b7e151628aed2a6abf7158809cf4f3c"),
        hex("8e73b0f7da0e6452c810f32b809079e562f8ead2522c6b7b"),
        hex("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4"),
    ];
    let text = hex("6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51");
    let iv: [u8; 16] = std::array::from_fn(|n| n as u8);
    let counter: [u8; 16] = std::array::from_fn(|n| n as u8 + 0xf0);
    let answers = [
        (
            Mode::Cbc,
            iv,
            [
                "7649abac8119b246cee98e9b12e9197d5086cb9b507219ee95db113a917678b2",
                "4f021db243bc633d7178183a9fa071e8b4d9ada9ad7dedf4e5e738763f69145a",
                "f58c4c04d6e5f1ba779eabfb5f7bfbd69cfc4e967edb808d679f777bc6702c7d",
            ],
        ),
        (
            Mode::Cfb,
            iv,
            [
                "3b3fd92eb72dad20333449f8e83cfb4ac8a64537a0b3a93fcde3cdad9f1ce58b",
                "cdc80d6fddf18cab34c25909c99a417467ce7f7f81173621961a2b70171d3d7a",
                "dc7e84bfda79164b7ecd8486985d386039ffed143b28b1c832113c6331e5407b",
            ],
        ),
        (
            Mode::Ofb,
            iv,
            [
                "3b3fd92eb72dad20333449f8e83cfb4a7789508d16918f03f53c52dac54ed825",
                "cdc80d6fddf18cab34c25909c99a4174fcc28b8d4c63837c09e81700c1100401",
                "dc7e84bfda79164b7ecd8486985d38604febdc6740d20b3ac88f6ad82a4fb08d",
            ],
        ),
        (
            Mode::Ctr,
            counter,
            [
                "874d6191b620e3261bef6864990db6ce9806f66b7970fdff8617187bb9fffdff",
                "1abc932417521ca24f2b0459fe7e6e0b090339ec0aa6faefd5ccc2c6f4ce8e94",
                "601ec313775789a5b7a7f504bbf3d228f443e3ca4d62b59aca84e990cacaf5c5",
            ],
        ),
    ];
    for (mode, iv, answers) in answers {
        for (key, answer) in keys.iter().zip(answers) {
            let cipher = Cipher::new(key).unwrap();
            let mut place = text.clone();
            assert!(cipher.apply(mode, Direction::Seal, &iv, &mut place, &mut work));
            assert_eq!(place, hex(answer), "{mode:?} {}", key.len());
            assert!(cipher.apply(mode, Direction::Open, &iv, &mut place, &mut work));
            assert_eq!(place, text, "{mode:?} {}", key.len());
        }
    }
}

/// Aligned texts go as they lie, others through the bounce buffer: nobody can tell.
#[test]
fn every_mode_takes_every_length_up_to_2048_at_any_alignment() {
    let mut work = work();
    let mut memory = vec![0; 2048 + 64];
    let from = memory.as_ptr().addr().wrapping_neg() % 16;
    let iv = [0x3c; 16];
    for (n, key) in keys().iter().enumerate() {
        for mode in MODES {
            for len in 0..=2048 {
                if len % 16 > 0 && !mode.is_stream() {
                    continue;
                }
                // Texts of a few blocks, or not even one, meet every alignment; the others meet all of them together.
                let all = len < 80 || (len % 16 == 0 && len <= 640);
                for skew in (0..16).filter(|skew| all || *skew == (len / 16 * 5 + len + n) % 16) {
                    let dir = BOTH[(len / 16 + skew) % 2];
                    let place = &mut memory[from + skew..from + skew + len];
                    place.copy_from_slice(&octets(len));
                    check(mode, dir, key, &iv, place, &mut work);
                }
            }
        }
    }
    for mode in [Mode::Ecb, Mode::Cbc] {
        let cipher = Cipher::new(&[7; 16]).unwrap();
        let mut text = octets(40);
        assert!(!cipher.apply(mode, Direction::Seal, &iv, &mut text, &mut work), "not whole blocks");
        assert_eq!(text, octets(40));
    }
    assert!(Cipher::new(&[7; 20]).is_none());
}

/// What the processor reads behind the end of a text must be there. The emulator faults if it is not.
#[test]
fn a_text_at_the_very_end_of_memory_is_not_read_beyond() {
    let mut work = work();
    let mut memory = Guarded::new(2);
    let end = memory.bytes().len();
    let key = &keys()[2];
    for mode in MODES {
        for dir in BOTH {
            for gap in [0, 16, 32, 48, 64, 112, 128, 144] {
                for len in [16, 32, 64, 128, 160, 512, 4096, 6000 / 16 * 16] {
                    let place = &mut memory.bytes()[end - gap - len..end - gap];
                    place.copy_from_slice(&octets(len));
                    check(mode, dir, key, &[9; 16], place, &mut work);
                }
            }
            // And one that is not aligned, to the last octet.
            let place = &mut memory.bytes()[end - 48 - 7..end - 7];
            place.copy_from_slice(&octets(48));
            check(mode, dir, key, &[9; 16], place, &mut work);
        }
    }
    for mode in [Mode::Ctr, Mode::Cfb, Mode::Ofb] {
        let place = &mut memory.bytes()[end - 33..];
        place.copy_from_slice(&octets(33));
        check(mode, Direction::Seal, key, &[9; 16], place, &mut work);
    }
}

/// The processor's own counter has 16 bits and no carry, in any place of the text.
#[test]
fn a_counter_goes_on_where_the_processors_ends() {
    let mut work = work();
    let mut memory = vec![0; 4096 + 32];
    let from = memory.as_ptr().addr().wrapping_neg() % 16;
    let key = &keys()[0];
    for counter in [0xffff, 0xfffe, 0xfff0, 0xff00, 0xffff_ffff, u128::MAX, u128::MAX - 40, u128::MAX << 16] {
        for skew in [0, 5] {
            let place = &mut memory[from + skew..from + skew + 4000];
            place.copy_from_slice(&octets(4000));
            check(Mode::Ctr, Direction::Seal, key, &u128::to_be_bytes(counter), place, &mut work);
        }
    }
}
