//! One SA: the parts of a packet, and the request that carries it out.
//!
//! ```text
//! one pass, two slices:  | SPI seq | IV | text | ICV |      associated data on the side: SPI, (high half,) low half
//!                                       '-cipher'
//! chain:                 | SPI seq | IV | text | ICV |
//!                        '----- hash ----------'
//! chain with ESN:        | SPI seq | IV | text |, high half |, ICV |      three pieces, of which the middle one is on the side
//!                        '----- hash ---------------------'
//! ```
//!
//! RFC 4303 section 2.2.1: with a separate integrity algorithm the high half of an extended sequence number follows the packet
//! in the computation of the ICV and is not sent. The card hashes one stretch of what it is given, so it is given pieces.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use spi::alg::EncrKind;
use spi::esp::HEADER_LEN;
use spi::{Direction, EspOp, Fault, FaultKind, Outcome, Reject, SaParams};

use crate::fw::descriptor::{self, Form};
use crate::fw::request::{LIST_LEN, Request, WORDS, list};
use crate::fw::response::Answer;
use crate::iv::Ivs;
use crate::pci::PciError;
use crate::ring::Extra;
use crate::vault::{Cell, Vault};

/// Where in its extra memory a request has what goes along with it: associated data, or the high half of a sequence number.
const ASIDE: usize = LIST_LEN;

/// An installed SA.
pub(crate) struct Sa {
    template: Request,
    form: Form,
    kind: EncrKind,
    dir: Direction,
    spi: u32,
    esn: bool,
    salt: [u8; 4],
    head_len: u16,
    icv_len: u16,
    /// Text comes in whole ones of these: 16 with CBC, else 1.
    whole: u16,
    /// Keeps the content descriptor in place.
    _cell: Cell,
    removed: AtomicBool,
}

/// How a packet begins, as requests have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    iv: [u8; 16],
    /// SPI and low half of the sequence number, as they stand in the packet.
    header: u64,
}

impl Sa {
    /// Puts the keys where the card finds them.
    ///
    /// # Errors
    /// [`FaultKind::Unsupported`], or [`FaultKind::Exhausted`] when there is no memory.
    pub(crate) fn new(params: &SaParams, fourth: bool, vault: &Arc<Vault>) -> Result<Sa, Fault> {
        params.check().map_err(|_| FaultKind::Unsupported)?;
        let info = params.encr.info().ok_or(FaultKind::Unsupported)?;
        let built = descriptor::build(params, fourth).ok_or(FaultKind::Unsupported)?;
        let cell = vault.put(&built.octets).map_err(|error: PciError| {
            tracing::warn!(%error, "qat: no memory for an SA");
            FaultKind::Exhausted
        })?;
        let mut template = built.template;
        template.set_descriptor(cell.iova(), built.octets.len());
        let mut salt = [0; 4];
        let given = params.encr_key.expose().get(info.key_len..).unwrap_or_default();
        salt.iter_mut().zip(given).for_each(|(to, from)| *to = *from);
        Ok(Sa {
            template,
            form: built.form,
            kind: info.kind,
            dir: params.dir,
            spi: params.spi,
            esn: params.esn,
            salt,
            head_len: (HEADER_LEN + info.iv_len) as u16,
            icv_len: params.icv_len() as u16,
            whole: if info.block == 16 { 16 } else { 1 },
            _cell: cell,
            removed: AtomicBool::new(false),
        })
    }

    pub(crate) fn dir(&self) -> Direction {
        self.dir
    }

    /// Its handle is stale from now on, whoever still has it in use.
    pub(crate) fn retire(&self) {
        self.removed.store(true, Ordering::Release);
    }

    pub(crate) fn is_retired(&self) -> bool {
        self.removed.load(Ordering::Acquire)
    }

    /// Octets of text of an operation on a buffer of `room` octets; `None` when it cannot be one.
    #[inline]
    pub(crate) fn text_len(&self, room: usize, op: &EspOp) -> Option<u32> {
        let around = usize::from(self.head_len + self.icv_len);
        let text = match self.dir {
            Direction::Seal => usize::from(op.len),
            Direction::Open => usize::from(op.len).checked_sub(around)?,
        };
        let total = text + around;
        let fits = total <= usize::from(u16::MAX) && total <= room.checked_sub(op.at as usize)?;
        (fits && text & usize::from(self.whole - 1) == 0).then_some(text as u32)
    }

    /// Writes header and IV of a packet to be sealed, reads the IV of one to be opened; gives it as requests have it.
    #[inline]
    pub(crate) fn begin(&self, bytes: &mut [u8], op: &EspOp, ivs: &mut Ivs) -> Option<Head> {
        let at = op.at as usize;
        let head = bytes.get_mut(at..at + usize::from(self.head_len))?;
        let (header, iv) = head.split_first_chunk_mut::<HEADER_LEN>()?;
        if self.dir == Direction::Seal {
            *header = (u64::from(self.spi) << 32 | op.seq & 0xffff_ffff).to_be_bytes();
        }
        let mut whole = [0; 16];
        match self.kind {
            EncrKind::Cbc => {
                let iv = iv.first_chunk_mut::<16>()?;
                if self.dir == Direction::Seal {
                    *iv = ivs.next();
                }
                whole = *iv;
            }
            EncrKind::Null => {}
            _ => {
                // The sequence number never repeats under a key (RFC 4106 section 3.1, RFC 3686 section 3.1).
                let iv = iv.first_chunk_mut::<8>()?;
                if self.dir == Direction::Seal {
                    *iv = op.seq.to_be_bytes();
                }
                whole[..4].copy_from_slice(&self.salt);
                whole[4..12].copy_from_slice(iv);
                if self.kind == EncrKind::Ctr {
                    // RFC 3686 section 4: the counter begins with one.
                    whole[15] = 1;
                }
            }
        }
        Some(Head { iv: whole, header: u64::from_be_bytes(*header) })
    }

    /// The request for one packet, which begins at `iova` and has `text` octets of text.
    #[inline]
    pub(crate) fn request(
        &self,
        iova: u64,
        text: u32,
        seq: u64,
        head: Head,
        cookie: u64,
        extra: &mut Extra<'_>,
    ) -> [u8; 4 * WORDS] {
        let mut request = self.template;
        let Head { iv, header } = head;
        let (head, icv) = (u32::from(self.head_len), u32::from(self.icv_len));
        request.set_cookie(cookie);
        request.set_iv(iv);
        match self.form {
            Form::OnePass | Form::TwoSlices => {
                request.set_data(iova, head + text + icv);
                request.set_cipher(head, text);
                extra.put(ASIDE, &self.associated(header, seq));
                request.set_associated(extra.iova + ASIDE as u64);
                if self.form == Form::TwoSlices {
                    request.set_auth(head, text);
                    request.set_digest(iova + u64::from(head + text));
                }
            }
            Form::Chain => {
                request.set_cipher(head, text);
                if self.esn {
                    let high = (seq >> 32) as u32;
                    extra.put(ASIDE, &high.to_be_bytes());
                    let body = (iova, head + text);
                    let aside = (extra.iova + ASIDE as u64, 4);
                    extra.put(0, &list([body, aside, (iova + u64::from(head + text), icv)]));
                    request.set_data(extra.iova, head + text + 4 + icv);
                    request.set_auth(0, head + text + 4);
                } else {
                    request.set_data(iova, head + text + icv);
                    request.set_auth(0, head + text);
                }
                if self.kind == EncrKind::Null {
                    request.set_cipher(0, 0);
                }
            }
        }
        request.octets()
    }

    /// RFC 4106 section 5: SPI and sequence number, all 64 bits of it with ESN; zeroes after it, which some engines read.
    fn associated(&self, header: u64, seq: u64) -> [u8; 16] {
        let (spi, high, low) =
            (u128::from(header >> 32), u128::from(seq >> 32), u128::from(header & 0xffff_ffff));
        let whole = match self.esn {
            true => spi << 96 | high << 64 | low << 32,
            false => spi << 96 | low << 64,
        };
        whole.to_be_bytes()
    }

    /// Writes down how an operation has ended.
    #[inline]
    pub(crate) fn finish(&self, op: &mut EspOp, answer: Answer) {
        op.outcome = match self.dir {
            _ if answer.is_good() => {
                let (head, icv) = (self.head_len, self.icv_len);
                match self.dir {
                    Direction::Seal => op.len += head + icv,
                    Direction::Open => {
                        op.at += u32::from(head);
                        op.len -= head + icv;
                    }
                }
                Outcome::Done
            }
            Direction::Open if answer.is_mismatch() => Outcome::Rejected(Reject::BadIcv),
            _ => Outcome::Failed(Fault { kind: FaultKind::Internal, vendor: answer.vendor() }),
        };
    }

    /// Wipes what a packet was decrypted to although its ICV is wrong: engines decrypt while they check.
    pub(crate) fn scrub(&self, bytes: &mut [u8], op: &EspOp) {
        let at = op.at as usize;
        if let Some(packet) = bytes.get_mut(at..at + usize::from(op.len)) {
            packet.fill(0);
        }
    }
}

#[cfg(test)]
mod tests;
