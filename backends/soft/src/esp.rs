//! One SA: where the parts of a packet lie, and how a burst goes through the keys.
//!
//! 1. Find the parts: header and IV, text, ICV; refuse what does not fit.
//! 2. Seal: write SPI, sequence number and IV; encrypt; write the ICV.
//! 3. Open: check the ICV; decrypt; let the operation point at the text.
//!
//! The steps in the middle belong to an engine: `lc` has AWS-LC's, `imb` those of ipsec-mb. Keys are scheduled when the SA is
//! made. Where an engine needs no state that changes, bursts of one SA on several workers do not wait for each other.

use std::sync::Arc;

use spi::esp::HEADER_LEN;
use spi::{Direction, EspBurst, EspOp, Fault, FaultKind, Outcome, Reject, SaParams};

use crate::choose::EngineChoice;
use crate::lc;
use crate::scratch::Scratch;

/// An installed SA, whatever its engine.
pub(crate) trait Run: Send + Sync {
    /// Carries out every operation of a burst.
    fn run(&self, burst: &mut EspBurst, scratch: &mut Scratch);
}

/// The keys of one SA in the form an engine wants.
pub(crate) trait Keys: Send + Sync {
    /// Carries out every operation, each for itself.
    fn each(&self, frame: &Frame, bytes: &mut [u8], ops: &mut [EspOp], scratch: &mut Scratch);
}

/// Schedules the keys for the engines that carry the SA.
pub(crate) fn install(params: &SaParams, choice: EngineChoice) -> Result<Arc<dyn Run>, Fault> {
    params.check().map_err(|_| FaultKind::Unsupported)?;
    let frame = Frame::new(params)?;
    #[cfg(feature = "ipsec-mb")]
    if let Some(sa) = crate::imb::install(params, frame, crate::choose::picks(choice, params))? {
        return Ok(sa);
    }
    let _ = choice;
    lc::install(params, frame)
}

/// An SA whose engine is known when it is compiled: one call through a pointer for each burst, none for a packet.
pub(crate) struct Sa<K> {
    pub(crate) frame: Frame,
    pub(crate) keys: K,
}

impl<K: Keys> Run for Sa<K> {
    fn run(&self, burst: &mut EspBurst, scratch: &mut Scratch) {
        if burst.dir != self.frame.dir {
            // An SA has one direction (RFC 4301 section 4.1); the caller has mixed up two.
            return fail(burst, FaultKind::Unsupported);
        }
        let (bytes, ops) = burst.buf.split_mut();
        self.keys.each(&self.frame, bytes, ops, scratch);
    }
}

/// Marks every operation of a burst as failed.
pub(crate) fn fail(burst: &mut EspBurst, kind: FaultKind) {
    for op in burst.buf.ops_mut() {
        op.outcome = Outcome::Failed(kind.into());
    }
}

/// The form of an SA's packets.
#[derive(Clone, Copy)]
pub(crate) struct Frame {
    pub(crate) spi: u32,
    pub(crate) dir: Direction,
    pub(crate) esn: bool,
    /// Header and IV.
    head_len: u8,
    icv_len: u8,
    /// 16 for CBC, else 1.
    whole: u8,
}

impl Frame {
    fn new(params: &SaParams) -> Result<Self, Fault> {
        let info = params.encr.info().ok_or(FaultKind::Unsupported)?;
        let short = |len| u8::try_from(len).map_err(|_| Fault::new(FaultKind::Unsupported));
        Ok(Frame {
            spi: params.spi,
            dir: params.dir,
            esn: params.esn,
            head_len: short(HEADER_LEN + info.iv_len)?,
            icv_len: short(params.icv_len())?,
            whole: if info.block == 16 { 16 } else { 1 },
        })
    }

    /// Octets of header and IV.
    pub(crate) fn head_len(&self) -> usize {
        usize::from(self.head_len)
    }

    /// Octets of ICV.
    pub(crate) fn icv_len(&self) -> usize {
        usize::from(self.icv_len)
    }

    /// Octets of text that an operation has, if it is one: the parts lie in a buffer of `room` octets, and the amount of text
    /// is right.
    pub(crate) fn text_len(&self, room: usize, op: &EspOp) -> Option<usize> {
        let around = self.head_len() + self.icv_len();
        let text_len = match self.dir {
            Direction::Seal => usize::from(op.len),
            Direction::Open => usize::from(op.len).checked_sub(around)?,
        };
        let total = text_len + around;
        let fits = total <= usize::from(u16::MAX) && total <= room.checked_sub(op.at as usize)?;
        (fits && text_len & (usize::from(self.whole) - 1) == 0).then_some(text_len)
    }

    /// Writes down how an operation that fitted has ended.
    pub(crate) fn finish(&self, op: &mut EspOp, good: bool) {
        op.outcome = match (good, self.dir) {
            (true, Direction::Seal) => {
                // `text_len` made sure that the sum fits.
                op.len += u16::from(self.head_len) + u16::from(self.icv_len);
                Outcome::Done
            }
            (true, Direction::Open) => {
                op.at += u32::from(self.head_len);
                op.len -= u16::from(self.head_len) + u16::from(self.icv_len);
                Outcome::Done
            }
            (false, Direction::Seal) => Outcome::Failed(FaultKind::Internal.into()),
            (false, Direction::Open) => Outcome::Rejected(Reject::BadIcv),
        };
    }

    /// Carries out operations one by one; `crypt` says whether it went well.
    pub(crate) fn each(
        &self,
        bytes: &mut [u8],
        ops: &mut [EspOp],
        mut crypt: impl FnMut(Packet<'_>, Direction) -> bool,
    ) {
        for op in ops {
            let Some(packet) = self.packet(bytes, op) else {
                op.outcome = Outcome::Rejected(Reject::BadLength);
                continue;
            };
            let good = crypt(packet, self.dir);
            self.finish(op, good);
        }
    }

    /// Finds the parts; when sealing, writes the header.
    fn packet<'a>(&self, bytes: &'a mut [u8], op: &EspOp) -> Option<Packet<'a>> {
        let text_len = self.text_len(bytes.len(), op)?;
        let rest = bytes.get_mut(op.at as usize..)?;
        let (body, rest) = rest.split_at_mut_checked(self.head_len() + text_len)?;
        let icv = rest.get_mut(..self.icv_len())?;
        let packet = Packet {
            body,
            icv,
            head_len: self.head_len(),
            high: self.esn.then_some((op.seq >> 32) as u32),
            seq: op.seq,
        };
        if self.dir == Direction::Seal {
            let header = packet.body.first_chunk_mut::<HEADER_LEN>()?;
            *header = header_octets(self.spi, op.seq);
        }
        Some(packet)
    }
}

/// SPI and the low half of the sequence number, as they are sent.
pub(crate) fn header_octets(spi: u32, seq: u64) -> [u8; HEADER_LEN] {
    (u64::from(spi) << 32 | seq & 0xffff_ffff).to_be_bytes()
}

/// A packet by its parts, which lie one behind the other.
pub(crate) struct Packet<'a> {
    /// Header, IV and text: all that is sent but for the ICV.
    pub(crate) body: &'a mut [u8],
    pub(crate) icv: &'a mut [u8],
    head_len: usize,
    /// The high half of the sequence number, with ESN only.
    pub(crate) high: Option<u32>,
    pub(crate) seq: u64,
}

impl Packet<'_> {
    /// The header, the IV, the text, and the ICV.
    pub(crate) fn parts(&mut self) -> (&[u8], &mut [u8], &mut [u8], &mut [u8]) {
        let (head, text) = self.body.split_at_mut(self.head_len);
        let (header, iv) = head.split_at_mut(HEADER_LEN);
        (header, iv, text, self.icv)
    }

    /// RFC 4303 section 2.2.1: with a separate integrity algorithm the high half follows the packet in the computation of
    /// the ICV and is not sent.
    pub(crate) fn tail(&self) -> ([u8; 4], usize) {
        match self.high {
            Some(high) => (high.to_be_bytes(), 4),
            None => ([0; 4], 0),
        }
    }
}

/// RFC 4106 section 5: SPI and sequence number, all 64 bits of it with ESN. `room` is where it is put together if it must be.
pub(crate) fn aad<'a>(header: &'a [u8], high: Option<u32>, room: &'a mut [u8; 12]) -> &'a [u8] {
    let (Some(high), Some((spi, low))) = (high, header.split_at_checked(4)) else { return header };
    let (to_spi, rest) = room.split_at_mut(4);
    let (to_high, to_low) = rest.split_at_mut(4);
    to_spi.copy_from_slice(spi);
    to_high.copy_from_slice(&high.to_be_bytes());
    to_low.copy_from_slice(low);
    room
}
