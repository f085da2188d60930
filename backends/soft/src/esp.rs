//! One SA: where the parts of a packet lie, and how they are sealed and opened in place.
//!
//! 1. Find the parts: header and IV, text, ICV; refuse what does not fit.
//! 2. Seal: write SPI, sequence number and IV; encrypt; write the ICV.
//! 3. Open: check the ICV; decrypt; let the operation point at the text.
//!
//! Keys are scheduled when the SA is made. AES-GCM and ChaCha20-Poly1305 need no state that changes, so bursts of one SA
//! on several workers do not wait for each other; the other transforms take one lock per burst.

use std::sync::{Mutex, PoisonError};

use spi::esp::HEADER_LEN;
use spi::{Direction, EspBurst, EspOp, Fault, FaultKind, Outcome, Reject, SaParams};
use subtle::ConstantTimeEq;

use crate::sys::mac::AesBlock;
use crate::transform::{AeadKey, CcmKey, Cipher, GmacKey, Keyed, Mac};

/// An installed SA.
pub(crate) struct Sa {
    spi: u32,
    dir: Direction,
    esn: bool,
    /// Header and IV.
    head_len: usize,
    icv_len: usize,
    /// 16 for CBC, else 1.
    whole: usize,
    keys: Keys,
}

enum Keys {
    Shared(AeadKey),
    Exclusive(Mutex<Exclusive>),
}

enum Exclusive {
    Ccm(CcmKey),
    Gmac(GmacKey),
    Separate(Cipher, Mac, IvSource),
}

impl Sa {
    /// Schedules the keys.
    pub(crate) fn new(params: &SaParams) -> Result<Sa, Fault> {
        params.check().map_err(|_| FaultKind::Unsupported)?;
        let info = params.encr.info().ok_or(FaultKind::Unsupported)?;
        let exclusive = match Keyed::new(params.encr, params.encr_key.expose(), params.dir)? {
            Keyed::Aead(key) => Err(key),
            Keyed::Ccm(key) => Ok(Exclusive::Ccm(key)),
            Keyed::Gmac(key) => Ok(Exclusive::Gmac(key)),
            Keyed::Plain(cipher) => {
                let ivs = if cipher.wants_blocks() { IvSource::unpredictable()? } else { IvSource::Sequence };
                Ok(Exclusive::Separate(cipher, Mac::new(params.integ, params.integ_key.expose())?, ivs))
            }
        };
        Ok(Sa {
            spi: params.spi,
            dir: params.dir,
            esn: params.esn,
            head_len: HEADER_LEN + info.iv_len,
            icv_len: params.icv_len(),
            whole: if info.block == 16 { 16 } else { 1 },
            keys: match exclusive {
                Ok(state) => Keys::Exclusive(Mutex::new(state)),
                Err(key) => Keys::Shared(key),
            },
        })
    }

    /// Carries out every operation of a burst.
    pub(crate) fn run(&self, burst: &mut EspBurst) {
        if burst.dir != self.dir {
            // An SA has one direction (RFC 4301 section 4.1); the caller has mixed up two.
            return fail(burst, FaultKind::Unsupported);
        }
        let (bytes, ops) = burst.buf.split_mut();
        match &self.keys {
            Keys::Shared(key) => self.each(bytes, ops, |packet, dir| packet.aead(key, dir)),
            Keys::Exclusive(state) => {
                // No code under this lock panics; and every packet sets its own IV, so nothing can be half done.
                let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
                self.each(bytes, ops, |packet, dir| packet.exclusive(&mut state, dir));
            }
        }
    }

    fn each(
        &self,
        bytes: &mut [u8],
        ops: &mut [EspOp],
        mut crypt: impl FnMut(&mut Packet<'_>, Direction) -> bool,
    ) {
        for op in ops {
            let Some(mut packet) = self.parts(bytes, op) else {
                op.outcome = Outcome::Rejected(Reject::BadLength);
                continue;
            };
            if self.dir == Direction::Seal {
                packet.write_header(self.spi, op.seq);
            }
            let good = crypt(&mut packet, self.dir);
            op.outcome = match (good, self.dir) {
                (true, Direction::Seal) => {
                    // `parts` made sure that the sum fits.
                    op.len = (self.head_len + op.len as usize + self.icv_len) as u16;
                    Outcome::Done
                }
                (true, Direction::Open) => {
                    op.at += self.head_len as u32;
                    op.len -= (self.head_len + self.icv_len) as u16;
                    Outcome::Done
                }
                (false, Direction::Seal) => Outcome::Failed(FaultKind::Internal.into()),
                (false, Direction::Open) => Outcome::Rejected(Reject::BadIcv),
            };
        }
    }

    /// Finds the parts; `None` when there is no room for them, or not the right amount of text.
    fn parts<'a>(&self, bytes: &'a mut [u8], op: &EspOp) -> Option<Packet<'a>> {
        let around = self.head_len + self.icv_len;
        let text_len = match self.dir {
            Direction::Seal => op.len as usize,
            Direction::Open => (op.len as usize).checked_sub(around)?,
        };
        let total = text_len + around;
        if !text_len.is_multiple_of(self.whole) || total > u16::MAX as usize {
            return None;
        }
        let packet = bytes.get_mut(op.at as usize..)?.get_mut(..total)?;
        let (head, rest) = packet.split_at_mut_checked(self.head_len)?;
        let (text, icv) = rest.split_at_mut_checked(text_len)?;
        let (header, iv) = head.split_first_chunk_mut()?;
        Some(Packet { header, iv, text, icv, high: self.esn.then_some((op.seq >> 32) as u32), seq: op.seq })
    }
}

/// Marks every operation of a burst as failed.
pub(crate) fn fail(burst: &mut EspBurst, kind: FaultKind) {
    for op in burst.buf.ops_mut() {
        op.outcome = Outcome::Failed(kind.into());
    }
}

/// A packet by its parts, which lie one behind the other.
struct Packet<'a> {
    header: &'a mut [u8; HEADER_LEN],
    iv: &'a mut [u8],
    text: &'a mut [u8],
    icv: &'a mut [u8],
    /// The high half of the sequence number, with ESN only.
    high: Option<u32>,
    seq: u64,
}

impl Packet<'_> {
    fn write_header(&mut self, spi: u32, seq: u64) {
        let (to_spi, to_seq) = self.header.split_at_mut(4);
        to_spi.copy_from_slice(&spi.to_be_bytes());
        to_seq.copy_from_slice(&(seq as u32).to_be_bytes());
    }

    fn aead(&mut self, key: &AeadKey, dir: Direction) -> bool {
        let (aad, len) = self.aad();
        match dir {
            Direction::Seal => {
                self.iv.copy_from_slice(&self.seq.to_be_bytes());
                key.seal(self.iv, &aad[..len], self.text, self.icv)
            }
            Direction::Open => key.open(self.iv, &aad[..len], self.text, self.icv),
        }
    }

    fn exclusive(&mut self, state: &mut Exclusive, dir: Direction) -> bool {
        match (state, dir) {
            (Exclusive::Ccm(key), Direction::Seal) => {
                self.iv.copy_from_slice(&self.seq.to_be_bytes());
                let (aad, len) = self.aad();
                key.seal(self.iv, &aad[..len], self.text, self.icv)
            }
            (Exclusive::Ccm(key), Direction::Open) => {
                let (aad, len) = self.aad();
                key.open(self.iv, &aad[..len], self.text, self.icv)
            }
            (Exclusive::Gmac(key), Direction::Seal) => {
                self.iv.copy_from_slice(&self.seq.to_be_bytes());
                self.gmac(key).is_some_and(|tag| {
                    self.icv.copy_from_slice(&tag);
                    true
                })
            }
            (Exclusive::Gmac(key), Direction::Open) => {
                self.gmac(key).is_some_and(|tag| tag.as_slice().ct_eq(self.icv).into())
            }
            (Exclusive::Separate(cipher, mac, ivs), Direction::Seal) => {
                ivs.write(self.seq, self.iv);
                cipher.apply(self.iv, self.text) && {
                    let (tail, len) = self.icv_tail();
                    mac.write(&[self.header, self.iv, self.text, &tail[..len]], self.icv)
                }
            }
            (Exclusive::Separate(cipher, mac, _), Direction::Open) => {
                let (tail, len) = self.icv_tail();
                mac.check(&[self.header, self.iv, self.text, &tail[..len]], self.icv)
                    && cipher.apply(self.iv, self.text)
            }
        }
    }

    /// RFC 4543 section 3.3: everything is associated data, the header in the form of [`aad`](Self::aad), then IV and text.
    fn gmac(&self, key: &mut GmacKey) -> Option<[u8; 16]> {
        let (aad, len) = self.aad();
        key.tag(self.iv, &[&aad[..len], self.iv, self.text])
    }

    /// RFC 4106 section 5: SPI and sequence number, all 64 bits of it with ESN.
    fn aad(&self) -> ([u8; 12], usize) {
        let mut aad = [0; 12];
        let (spi, low) = self.header.split_at(4);
        aad[..4].copy_from_slice(spi);
        match self.high {
            Some(high) => {
                aad[4..8].copy_from_slice(&high.to_be_bytes());
                aad[8..].copy_from_slice(low);
                (aad, 12)
            }
            None => {
                aad[4..8].copy_from_slice(low);
                (aad, 8)
            }
        }
    }

    /// RFC 4303 section 2.2.1: with a separate integrity algorithm the high half follows the packet in the computation of
    /// the ICV and is not sent.
    fn icv_tail(&self) -> ([u8; 4], usize) {
        match self.high {
            Some(high) => (high.to_be_bytes(), 4),
            None => ([0; 4], 0),
        }
    }
}

/// Where the IVs of one SA come from.
enum IvSource {
    /// The sequence number, which never repeats under a key (RFC 3686 section 3.1).
    Sequence,
    /// A counter encrypted under a key of its own: it cannot be foretold (RFC 3602 section 3) and does not repeat.
    Unpredictable { key: AesBlock, next: u128 },
}

impl IvSource {
    fn unpredictable() -> Result<Self, Fault> {
        let mut key = [0; 16];
        aws_lc_rs::rand::fill(&mut key).map_err(|_| FaultKind::Internal)?;
        let source = IvSource::Unpredictable { key: AesBlock::new(&key), next: 0 };
        zeroize::Zeroize::zeroize(&mut key);
        Ok(source)
    }

    fn write(&mut self, seq: u64, iv: &mut [u8]) {
        match self {
            // NULL has no IV to write.
            IvSource::Sequence => iv.iter_mut().zip(seq.to_be_bytes()).for_each(|(to, from)| *to = from),
            IvSource::Unpredictable { key, next } => {
                let mut block = next.to_be_bytes();
                *next += 1;
                key.encrypt(&mut block);
                iv.copy_from_slice(&block);
            }
        }
    }
}
