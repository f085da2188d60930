//! Known answers, before a unit is used for anything else: CPUID says what should be there, these say whether it works as it is
//! used here.

use spi::Direction;

use crate::blocks::Work;
use crate::cipher::Cipher;
use crate::detect::Units;
use crate::hash::{self, Kind};
use crate::mode::Mode;
use crate::{modp, number};

/// Tries every unit.
///
/// # Errors
/// What came out wrong.
pub(crate) fn run(units: Units, work: &mut Work) -> Result<(), &'static str> {
    ciphers(units, work)?;
    hashes(work)?;
    if units.contains(Units::PMM) {
        powers()?;
    }
    Ok(())
}

/// FIPS 197 appendix C: each key length once to and fro. That also shows that a new key is taken up.
fn ciphers(units: Units, work: &mut Work) -> Result<(), &'static str> {
    let text: [u8; 16] = std::array::from_fn(|n| n as u8 * 0x11);
    let key: [u8; 32] = std::array::from_fn(|n| n as u8);
    const ANSWERS: [u128; 3] = [
        0x69c4_e0d8_6a7b_0430_d8cd_b780_70b4_c55a,
        0xdda9_7ca4_864c_dfe0_6eaf_70a0_ec0d_7191,
        0x8ea2_b7ca_5167_45bf_eafc_4990_4b49_6089,
    ];
    for (len, answer) in [16, 24, 32].into_iter().zip(ANSWERS) {
        let cipher = Cipher::new(&key[..len]).ok_or("AES has no such key")?;
        // A chain that begins with zeroes is one block of ECB and then something else.
        let mut two = [text, [0; 16]].concat();
        cipher.apply(Mode::Cbc, Direction::Seal, &[0; 16], &mut two, work);
        if two[..16] != answer.to_be_bytes() {
            return Err("REP XCRYPT-CBC encrypts wrongly");
        }
        cipher.apply(Mode::Cbc, Direction::Open, &[0; 16], &mut two, work);
        if two[..16] != text || two[16..] != [0; 16] {
            return Err("REP XCRYPT-CBC decrypts wrongly");
        }
        for (mode, name) in [(Mode::Cfb, "REP XCRYPT-CFB is wrong"), (Mode::Ofb, "REP XCRYPT-OFB is wrong")] {
            // Of a text of zeroes either gives what it feeds back, the first of which is the answer.
            let mut stream = [0; 32];
            cipher.apply(mode, Direction::Seal, &text, &mut stream, work);
            let first = stream[..16] == answer.to_be_bytes();
            cipher.apply(mode, Direction::Open, &text, &mut stream, work);
            if !first || stream != [0; 32] {
                return Err(name);
            }
        }
        if units.contains(Units::ACE2) {
            // The counter block is the text, and the second one its successor.
            let mut stream = [0; 40];
            cipher.apply(Mode::Ctr, Direction::Seal, &text, &mut stream, work);
            let mut next = (u128::from_be_bytes(text) + 1).to_be_bytes();
            cipher.apply(Mode::Ecb, Direction::Seal, &[0; 16], &mut next, work);
            if stream[..16] != answer.to_be_bytes() || stream[16..32] != next {
                return Err("REP XCRYPT-CTR counts or encrypts wrongly");
            }
        }
    }
    Ok(())
}

/// "abc" of FIPS 180, which shows that a message is not ended by the processor: that is done here.
fn hashes(work: &mut Work) -> Result<(), &'static str> {
    let sha1 = hash::hash(Kind::Sha1, &[b"abc"], &mut work.state);
    if sha1[..4] != 0xa999_3e36_u32.to_be_bytes() || sha1[16..20] != 0x9cd0_d89d_u32.to_be_bytes() {
        return Err("REP XSHA1 is wrong over blocks without padding, or ends the message itself");
    }
    let sha256 = hash::hash(Kind::Sha256, &[b"abc"], &mut work.state);
    if sha256[..4] != 0xba78_16bf_u32.to_be_bytes() || sha256[28..] != 0xf200_15ad_u32.to_be_bytes() {
        return Err("REP XSHA256 is wrong over blocks without padding, or ends the message itself");
    }
    Ok(())
}

/// Powers of two that are known without computing: below the modulus, and just above it.
fn powers() -> Result<(), &'static str> {
    // 2^256 - 189 is a prime; that it is one does not matter here.
    let modulus = [u32::MAX - 188, u32::MAX, u32::MAX, u32::MAX, u32::MAX, u32::MAX, u32::MAX, u32::MAX];
    let two = [2, 0, 0, 0, 0, 0, 0, 0];
    let power = |exponent: u16| modp::power(&modulus, &two, &exponent.to_be_bytes());
    let (below, above) = (power(200).ok_or("no memory in the lowest 2 GiB")?, power(257).ok_or("no memory")?);
    let mut expected = [0; 8];
    expected[200 / 32] = 1 << (200 % 32);
    if below != expected || above != [2 * 189, 0, 0, 0, 0, 0, 0, 0] {
        return Err("REP MONTMUL multiplies wrongly, or takes its operands otherwise in 64-bit mode");
    }
    // What is not below the modulus must come out reduced.
    let (most, _) = number::subtract(&modulus, &[1, 0, 0, 0, 0, 0, 0, 0]);
    if modp::power(&modulus, &most, &[2]).ok_or("no memory")? != [1, 0, 0, 0, 0, 0, 0, 0] {
        return Err("REP MONTMUL reduces wrongly");
    }
    Ok(())
}
