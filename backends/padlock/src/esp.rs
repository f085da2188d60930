//! One SA: where the parts of a packet lie, and how they go through cipher and MAC.
//!
//! 1. Find the parts: header and IV, text, ICV; refuse what does not fit.
//! 2. Seal: write SPI, sequence number and IV; encrypt; MAC what is sent, and the high half of the sequence number with ESN
//!    (RFC 4303 section 2.2.1).
//! 3. Open: check the MAC; decrypt; let the operation point at the text.

use spi::alg::EncrKind;
use spi::esp::HEADER_LEN;
use spi::{Direction, EspBurst, EspOp, Fault, FaultKind, Integ, Outcome, Reject, SaParams};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::blocks::{BLOCK, Work};
use crate::caps;
use crate::cipher::Cipher;
use crate::detect::Units;
use crate::drbg::Entropy;
use crate::hash::{Hmac, Kind};
use crate::mode::Mode;

/// An installed SA. Nothing in it changes, so that bursts of one SA on several threads do not wait for each other.
pub(crate) struct Sa {
    spi: u32,
    dir: Direction,
    esn: bool,
    cipher: Cipher,
    /// With counter mode: what its counter blocks begin with (RFC 3686 section 4).
    nonce: Option<Zeroizing<[u8; 4]>>,
    mac: Hmac,
    /// Octets of header and IV, and of ICV.
    head: usize,
    icv: usize,
}

impl Sa {
    /// Schedules the keys.
    ///
    /// # Errors
    /// [`FaultKind::Unsupported`] for what these units do not carry.
    pub(crate) fn new(params: &SaParams, units: Units, work: &mut Work) -> Result<Sa, Fault> {
        const NO: Fault = Fault::new(FaultKind::Unsupported);
        params.check().map_err(|_| NO)?;
        if !caps::esp(units).iter().any(|cap| (cap.encr, cap.integ) == (params.encr, params.integ)) {
            return Err(NO);
        }
        let info = params.encr.info().ok_or(NO)?;
        let (key, salt) = params.encr_key.expose().split_at_checked(info.key_len).ok_or(NO)?;
        let nonce = (info.kind == EncrKind::Ctr).then(|| salt.try_into().map(Zeroizing::new));
        let kind = match params.integ {
            Integ::HMAC_SHA1_96 => Kind::Sha1,
            Integ::HMAC_SHA2_256_128 => Kind::Sha256,
            _ => return Err(NO),
        };
        Ok(Sa {
            spi: params.spi,
            dir: params.dir,
            esn: params.esn,
            cipher: Cipher::new(key).ok_or(NO)?,
            nonce: nonce.transpose().map_err(|_| NO)?,
            mac: Hmac::new(kind, params.integ_key.expose(), &mut work.state),
            head: HEADER_LEN + info.iv_len,
            icv: params.icv_len(),
        })
    }

    /// Carries out every operation of a burst, each for itself.
    pub(crate) fn run(&self, burst: &mut EspBurst, work: &mut Work, ivs: &mut Ivs) {
        if burst.dir != self.dir {
            // An SA has one direction (RFC 4301 section 4.1); the caller has mixed up two.
            return fail(burst, FaultKind::Unsupported);
        }
        let (bytes, ops) = burst.buf.split_mut();
        for op in ops {
            op.outcome = match (self.parts(bytes, op), self.dir) {
                (None, _) => Outcome::Rejected(Reject::BadLength),
                (Some(packet), Direction::Seal) => {
                    let total = packet.body.len() + packet.icv.len();
                    let outcome = self.seal(packet, op.seq, work, ivs);
                    if outcome == Outcome::Done {
                        // `parts` made sure that it fits.
                        op.len = total as u16;
                    }
                    outcome
                }
                (Some(packet), Direction::Open) => {
                    let text = packet.body.len() - self.head;
                    let outcome = self.open(packet, op.seq, work);
                    if outcome == Outcome::Done {
                        op.at += self.head as u32;
                        op.len = text as u16;
                    }
                    outcome
                }
            };
        }
    }

    /// The parts of an operation, if it is one.
    fn parts<'a>(&self, bytes: &'a mut [u8], op: &EspOp) -> Option<Packet<'a>> {
        let around = self.head + self.icv;
        let text = match self.dir {
            Direction::Seal => usize::from(op.len),
            Direction::Open => usize::from(op.len).checked_sub(around)?,
        };
        let whole = self.nonce.is_some() || text.is_multiple_of(BLOCK);
        if !whole || text + around > usize::from(u16::MAX) {
            return None;
        }
        let packet = bytes.get_mut(op.at as usize..)?.get_mut(..text + around)?;
        let (body, icv) = packet.split_at_mut_checked(text + self.head)?;
        Some(Packet { body, icv })
    }

    fn seal(&self, packet: Packet<'_>, seq: u64, work: &mut Work, ivs: &mut Ivs) -> Outcome {
        let Packet { body, icv } = packet;
        let (head, text) = body.split_at_mut(self.head);
        let (header, iv) = head.split_at_mut(HEADER_LEN);
        header.copy_from_slice(&(u64::from(self.spi) << 32 | seq & 0xffff_ffff).to_be_bytes());
        if self.nonce.is_some() {
            // RFC 3686 section 3.1: any value that does not repeat under a key.
            iv.copy_from_slice(&seq.to_be_bytes());
        } else {
            iv.copy_from_slice(&ivs.next(work));
        }
        if !self.crypt(iv, text, work) {
            return Outcome::Failed(FaultKind::Internal.into());
        }
        let mac = self.check_value(body, seq, work);
        icv.copy_from_slice(&mac[..self.icv]);
        Outcome::Done
    }

    fn open(&self, packet: Packet<'_>, seq: u64, work: &mut Work) -> Outcome {
        let Packet { body, icv } = packet;
        let mac = self.check_value(body, seq, work);
        if !bool::from(mac[..self.icv].ct_eq(icv)) {
            return Outcome::Rejected(Reject::BadIcv);
        }
        let (head, text) = body.split_at_mut(self.head);
        match self.crypt(&head[HEADER_LEN..], text, work) {
            true => Outcome::Done,
            false => Outcome::Failed(FaultKind::Internal.into()),
        }
    }

    fn crypt(&self, iv: &[u8], text: &mut [u8], work: &mut Work) -> bool {
        let Some(nonce) = &self.nonce else {
            let Ok(iv) = iv.try_into() else { return false };
            return self.cipher.apply(Mode::Cbc, self.dir, iv, text, work);
        };
        // RFC 3686 section 4: nonce, IV, and a count that begins with one.
        let mut block = [0; BLOCK];
        block[15] = 1;
        block[..4].copy_from_slice(&**nonce);
        let Some(place) = block.get_mut(4..12).filter(|place| place.len() == iv.len()) else { return false };
        place.copy_from_slice(iv);
        self.cipher.apply(Mode::Ctr, self.dir, &block, text, work)
    }

    fn check_value(&self, body: &[u8], seq: u64, work: &mut Work) -> [u8; 32] {
        let high = ((seq >> 32) as u32).to_be_bytes();
        let high = if self.esn { &high[..] } else { &[] };
        self.mac.mac(&[body, high], &mut work.state)
    }
}

/// A packet by its parts.
struct Packet<'a> {
    /// Header, IV and text: all that is sent but for the ICV.
    body: &'a mut [u8],
    icv: &'a mut [u8],
}

/// Marks every operation of a burst as failed.
pub(crate) fn fail(burst: &mut EspBurst, kind: FaultKind) {
    for op in burst.buf.ops_mut() {
        op.outcome = Outcome::Failed(kind.into());
    }
}

/// IVs made in one go: the key is loaded once for all of them.
const IVS: usize = 32;

/// Where the IVs for CBC come from, which must be unpredictable (RFC 3602 section 3): a counter encrypted under a key of the
/// ring's own cannot be foretold and does not repeat, whichever SA it goes to.
pub(crate) struct Ivs {
    cipher: Cipher,
    next: u128,
    ready: [u8; IVS * BLOCK],
    used: usize,
}

impl Ivs {
    /// `None`: no randomness for the key.
    pub(crate) fn new(entropy: &Entropy, work: &mut Work) -> Option<Ivs> {
        let mut key = Zeroizing::new([0; 16]);
        entropy.fill(&mut *key, work).ok()?;
        let cipher = Cipher::new(&*key)?;
        Some(Ivs { cipher, next: 0, ready: [0; IVS * BLOCK], used: IVS })
    }

    fn next(&mut self, work: &mut Work) -> [u8; BLOCK] {
        if self.used == IVS {
            for block in self.ready.as_chunks_mut().0 {
                *block = self.next.to_be_bytes();
                self.next += 1;
            }
            // Whole blocks: this cannot be refused.
            self.cipher.apply(Mode::Ecb, Direction::Seal, &[0; BLOCK], &mut self.ready, work);
            self.used = 0;
        }
        let iv = self.ready.as_chunks().0.get(self.used).copied().unwrap_or_default();
        self.used += 1;
        iv
    }
}
