//! The form of an SA's packets: where the parts lie, and what an operation is afterwards.

use spi::esp::HEADER_LEN;
use spi::{Direction, EspBurst, EspOp, Fault, FaultKind, Outcome, Reject, SaParams};

/// How one packet ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It has not.
    Open,
    Good,
    BadIcv,
    /// The provider could not.
    Broken,
}

/// The form.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame {
    pub(crate) spi: u32,
    pub(crate) dir: Direction,
    pub(crate) esn: bool,
    /// Octets of header and IV.
    pub(crate) head_len: usize,
    pub(crate) icv_len: usize,
    /// 16 for CBC, else 1.
    whole: usize,
}

impl Frame {
    pub(crate) fn new(params: &SaParams) -> Result<Self, Fault> {
        let info = params.encr.info().ok_or(FaultKind::Unsupported)?;
        Ok(Frame {
            spi: params.spi,
            dir: params.dir,
            esn: params.esn,
            head_len: HEADER_LEN + info.iv_len,
            icv_len: params.icv_len(),
            whole: if info.block == 16 { 16 } else { 1 },
        })
    }

    /// Octets of text that an operation has, if it is one in a buffer of `room` octets.
    pub(crate) fn text_len(&self, room: usize, op: &EspOp) -> Option<usize> {
        let around = self.head_len + self.icv_len;
        let text_len = match self.dir {
            Direction::Seal => usize::from(op.len),
            Direction::Open => usize::from(op.len).checked_sub(around)?,
        };
        let total = text_len + around;
        let fits = total <= usize::from(u16::MAX) && total <= room.checked_sub(op.at as usize)?;
        (fits && text_len.is_multiple_of(self.whole)).then_some(text_len)
    }

    /// Writes down how an operation that fitted has ended.
    pub(crate) fn finish(&self, op: &mut EspOp, verdict: Verdict) {
        let around = (self.head_len + self.icv_len) as u16;
        op.outcome = match (verdict, self.dir) {
            (Verdict::Good, Direction::Seal) => {
                // `text_len` made sure that the sum fits.
                op.len += around;
                Outcome::Done
            }
            (Verdict::Good, Direction::Open) => {
                op.at += self.head_len as u32;
                op.len -= around;
                Outcome::Done
            }
            (Verdict::BadIcv, Direction::Open) => Outcome::Rejected(Reject::BadIcv),
            _ => Outcome::Failed(FaultKind::Internal.into()),
        };
    }

    /// SPI and the low half of the sequence number, as they are sent.
    pub(crate) fn header(&self, seq: u64) -> [u8; HEADER_LEN] {
        (u64::from(self.spi) << 32 | seq & 0xffff_ffff).to_be_bytes()
    }

    /// The high half of the sequence number, if it is in use.
    pub(crate) fn high(&self, seq: u64) -> Option<[u8; 4]> {
        self.esn.then_some(((seq >> 32) as u32).to_be_bytes())
    }
}

/// Marks every operation of a burst as failed.
pub(crate) fn fail(burst: &mut EspBurst, kind: FaultKind) {
    for op in burst.buf.ops_mut() {
        op.outcome = Outcome::Failed(kind.into());
    }
}
