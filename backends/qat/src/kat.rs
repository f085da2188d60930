//! Questions whose answers are known: one packet for rings that carry packets, one power for rings that carry numbers. Asked when
//! a card is opened, after every reset, and when a ring has been idle, so that a card that has stopped to answer, or answers
//! wrongly, is noticed before a packet meets it.

use std::sync::Arc;
use std::time::Duration;

use spi::{Direction, Encr, Fault, Integ, SaParams, Secret};

use crate::dma::Space;
use crate::fw::pke;
use crate::fw::response::Answer;
use crate::generation::Service;
use crate::hex::unhex;
use crate::iv::Ivs;
use crate::pair::Pair;
use crate::sa::Sa;
use crate::sys::mem::Block;
use crate::vault::Vault;

/// Packet: AES-128-GCM with ESN, the key 00 01 02 ..., the salt 10 11 12 13.
const SPI: u32 = 0x5141_5421;
const SEQ: u64 = 0x0000_0001_0000_0002;
const TEXT_LEN: usize = 64;
const SEALED: &str = "
    5fbfad224f458f04a33a8a54ca3903a3b87121250e1bcea4f87b53c1e70eb0bf
    9c8116d4ec8ed50507a6bf1c1266a9dc9f6433cccd2e2a497d4a0c169de4539d
    a437e91a1801b2d53c684592ea901527";

/// Power: modulo 2^512 - 569.
const POWER: &str = "
    1e36e8ca5acf0379def39183a06db734bdd347a02d0914956d6e8ce570d4913c
    0913d213bccbb29a8bdb59ebcceb01ae6211597c64b6c16bc7a65f71ff4c7aa6";

/// Steps until the answer has to be there, and their length.
const STEPS: usize = 5000;
const STEP: Duration = Duration::from_micros(200);

/// How a question was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    /// Rightly.
    Right,
    /// Wrongly: with an error, or with something else.
    Wrong,
    /// Not yet.
    Pending,
    /// The ring is full, or stopped: it could not be asked.
    NoRoom,
}

/// What questions are made of.
pub(crate) struct KnownAnswers {
    packet: Option<Sa>,
    block: Arc<Block>,
    iova: u64,
}

/// Octets of the block for each ring pair.
const PLACE: usize = 1024;
/// Most ring pairs of a card.
const PLACES: usize = 4;

impl KnownAnswers {
    /// Without the question for packets where the card does not carry the transform.
    ///
    /// # Errors
    /// A [`Fault`] when there is no memory.
    pub(crate) fn new(space: &Space, vault: &Arc<Vault>, fourth: bool, packets: bool) -> Result<Self, Fault> {
        let (block, iova) = space.block(PLACE * PLACES, PLACE).map_err(|error| {
            tracing::warn!(%error, "qat: no memory for known answers");
            spi::FaultKind::Exhausted
        })?;
        let params = SaParams {
            spi: SPI,
            dir: Direction::Seal,
            encr: Encr::AES128_GCM16,
            integ: Integ::NONE,
            encr_key: Secret::new((0..20).collect()),
            integ_key: Secret::new(Vec::new()),
            esn: true,
        };
        let packet = if packets { Some(Sa::new(&params, fourth, vault)?) } else { None };
        Ok(KnownAnswers { packet, block, iova })
    }

    /// Puts a question to a pair. One at a time for each pair.
    pub(crate) fn ask(&self, pair: &Pair, tick: u32) -> Known {
        let place = pair.number % PLACES * PLACE;
        let iova = self.iova + place as u64;
        let asked = match (pair.place.service, &self.packet) {
            (Service::Symmetric, Some(sa)) => {
                let Some((mut packet, op, iv)) = prepare(sa) else { return Known::NoRoom };
                self.block.copy_in(place, &packet);
                packet.clear();
                let text = TEXT_LEN as u32;
                pair.hold().ask(tick, |cookie, extra| sa.request(iova, text, op.seq, iv, cookie, extra))
            }
            (Service::Symmetric, None) => return Known::Right,
            (Service::Asymmetric, _) => {
                let function = pke::small_power();
                let size = function.size;
                // The tables, three numbers in, and one out.
                let number = |n: usize| 2 * pke::LEN + n * size;
                for (n, octets) in power_operands().iter().enumerate() {
                    self.block.copy_in(place + number(n), octets);
                    let address = (iova + number(n) as u64).to_le_bytes();
                    self.block.copy_in(place + 8 * n, &address);
                }
                self.block.fill(place + number(3), size, 0);
                self.block.copy_in(place + pke::LEN, &(iova + number(3) as u64).to_le_bytes());
                let tables = [iova, iova + pke::LEN as u64];
                pair.hold().ask(tick, |cookie, _| pke::request(function.id, cookie, tables, 3, 1))
            }
        };
        if asked { Known::Pending } else { Known::NoRoom }
    }

    /// Looks for the answer.
    pub(crate) fn look(&self, pair: &Pair) -> Known {
        let mut held = pair.hold();
        held.harvest(None, usize::MAX, |_| ());
        held.say();
        let Some(arrival) = held.take_known() else { return Known::Pending };
        let place = pair.number % PLACES * PLACE;
        let (at, expected) = match pair.place.service {
            // Header and IV are ours.
            Service::Symmetric => (16, unhex(SEALED)),
            Service::Asymmetric => (2 * pke::LEN + 3 * pke::small_power().size, unhex(POWER)),
        };
        let mut got = vec![0; expected.len()];
        self.block.copy_out(place + at, &mut got);
        if arrival.answer == Answer::GOOD && got == expected { Known::Right } else { Known::Wrong }
    }

    /// Asks and waits, while nobody else uses the card.
    pub(crate) fn check(&self, pair: &Pair) -> Known {
        let mut known = self.ask(pair, 0);
        for _ in 0..STEPS {
            if known != Known::Pending {
                break;
            }
            known = self.look(pair);
            if known == Known::Pending {
                std::thread::sleep(STEP);
            }
        }
        known
    }
}

/// The packet before it is sealed.
fn prepare(sa: &Sa) -> Option<(Vec<u8>, spi::EspOp, crate::sa::Head)> {
    let mut packet = vec![0; 16 + TEXT_LEN + 16];
    for (n, octet) in packet.iter_mut().skip(16).take(TEXT_LEN).enumerate() {
        *octet = (7 * n + 3) as u8;
    }
    let op = spi::EspOp::new(0, TEXT_LEN as u16, SEQ);
    let iv = sa.begin(&mut packet, &op, &mut Ivs::new()?)?;
    Some((packet, op, iv))
}

/// Base, exponent and modulus.
fn power_operands() -> [Vec<u8>; 3] {
    let base = (0..64).map(|n: usize| (5 * n + 1) as u8).collect();
    let exponent = (0..64).map(|n: usize| (11 * n + 7) as u8).collect();
    let mut modulus = vec![0xff; 64];
    // 2^16 - 569.
    modulus[62..].copy_from_slice(&(u16::MAX - 568).to_be_bytes());
    [base, exponent, modulus]
}

#[cfg(test)]
mod tests {
    use super::*;
    use openssl::bn::{BigNum, BigNumContext};
    use openssl::symm::{Cipher, encrypt_aead};

    #[test]
    fn the_answers_are_those_of_an_independent_implementation() {
        let key: Vec<u8> = (0..16).collect();
        let mut nonce = vec![0x10, 0x11, 0x12, 0x13];
        nonce.extend(SEQ.to_be_bytes());
        let text: Vec<u8> = (0..TEXT_LEN).map(|n| (7 * n + 3) as u8).collect();
        let mut associated = SPI.to_be_bytes().to_vec();
        associated.extend(SEQ.to_be_bytes());
        let mut tag = [0; 16];
        let mut sealed =
            encrypt_aead(Cipher::aes_128_gcm(), &key, Some(&nonce), &associated, &text, &mut tag).unwrap();
        sealed.extend(tag);
        assert_eq!(sealed, unhex(SEALED));
        let [base, exponent, modulus] = power_operands().map(|octets| BigNum::from_slice(&octets).unwrap());
        let mut power = BigNum::new().unwrap();
        power.mod_exp(&base, &exponent, &modulus, &mut BigNumContext::new().unwrap()).unwrap();
        assert_eq!(power.to_vec_padded(64).unwrap(), unhex(POWER));
    }
}
