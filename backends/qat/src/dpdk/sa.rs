//! One SA: the session a device has of it, and a packet as a request.
//!
//! ```text
//! combined mode:       | SPI seq | IV | text | ICV |      associated data on the side: SPI, (high half,) low half
//!                                     '-cipher'
//! cipher and HMAC:     | SPI seq | IV | text | ICV |
//!                      '----- hash ----------'
//! ... with ESN:        | SPI seq | IV | text | high half    the ICV on the side meanwhile
//!                      '----- hash ---------------------'
//! ```
//!
//! RFC 4303 section 2.2.1: with a separate integrity algorithm the high half of an extended sequence number follows the packet in the
//! computation of the ICV and is not sent. There is room for it where the ICV will be, so the packet needs no second piece, which
//! not every device of DPDK's could read.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use spi::alg::EncrKind;
use spi::esp::HEADER_LEN;
use spi::{Direction, Encr, EspOp, Fault, FaultKind, Integ, Outcome, Reject, SaParams};

use super::sys::{AAD, Aside, Ended, Engine, ICV, IV, Layout, Session, Transform, auth, cipher, form};
use crate::iv::Ivs;

/// Octets of the high half of a sequence number.
const HIGH: usize = 4;

/// A transform in DPDK's terms.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    form: form::Type,
    cipher: cipher::Type,
    auth: auth::Type,
    kind: EncrKind,
    key_len: usize,
    integ_key_len: usize,
    iv_len: usize,
    icv_len: usize,
    esn: bool,
}

impl Shape {
    /// `None` for what is not carried here, whatever the device.
    pub(super) fn of(encr: Encr, integ: Integ, esn: bool) -> Option<Shape> {
        let (info, check) = (encr.info()?, integ.info()?);
        if info.is_aead() != (integ == Integ::NONE) {
            return None;
        }
        let auth = match integ {
            Integ::NONE => auth::TD_AUTH_NONE,
            Integ::HMAC_SHA1_96 => auth::TD_SHA1_HMAC,
            Integ::HMAC_SHA2_256_128 => auth::TD_SHA256_HMAC,
            Integ::HMAC_SHA2_384_192 => auth::TD_SHA384_HMAC,
            Integ::HMAC_SHA2_512_256 => auth::TD_SHA512_HMAC,
            _ => return None,
        };
        let (form, cipher) = match info.kind {
            EncrKind::Aead if encr == Encr::CHACHA20_POLY1305 => {
                (form::TD_AEAD, cipher::TD_CHACHA20_POLY1305)
            }
            EncrKind::Aead if (Encr::AES128_GCM8.id..=Encr::AES128_GCM16.id).contains(&encr.id) => {
                (form::TD_AEAD, cipher::TD_AES_GCM)
            }
            EncrKind::Cbc => (form::TD_CHAIN, cipher::TD_AES_CBC),
            EncrKind::Ctr => (form::TD_CHAIN, cipher::TD_AES_CTR),
            EncrKind::Null => (form::TD_AUTH, cipher::TD_CIPHER_NONE),
            _ => return None,
        };
        Some(Shape {
            form,
            cipher,
            auth,
            kind: info.kind,
            key_len: info.key_len,
            integ_key_len: check.key_len,
            iv_len: info.iv_len,
            icv_len: info.icv_len + check.icv_len,
            esn,
        })
    }

    pub(super) fn is_done_by(&self, engine: &Engine) -> bool {
        let zeroes = [0; 64];
        let (Some(key), Some(integ_key)) = (zeroes.get(..self.key_len), zeroes.get(..self.integ_key_len))
        else {
            return false;
        };
        engine.does(&self.transform(true, key, integ_key))
            && engine.does(&self.transform(false, key, integ_key))
    }

    fn transform<'a>(&self, seal: bool, cipher_key: &'a [u8], auth_key: &'a [u8]) -> Transform<'a> {
        let iv_len = match self.kind {
            EncrKind::Aead => 12,
            EncrKind::Null => 0,
            _ => 16,
        };
        let aad_len = match (self.kind, self.esn) {
            (EncrKind::Aead, false) => 8,
            (EncrKind::Aead, true) => 12,
            _ => 0,
        };
        Transform {
            form: self.form,
            cipher: self.cipher,
            auth: self.auth,
            seal,
            cipher_key,
            auth_key,
            iv_len,
            aad_len,
            icv_len: self.icv_len as u16,
        }
    }
}

/// An installed SA.
pub(super) struct Sa {
    session: Arc<Session>,
    shape: Shape,
    dir: Direction,
    spi: u32,
    salt: [u8; 4],
    head_len: u16,
    /// Text comes in whole ones of these: 16 with CBC, else 1.
    whole: u16,
    removed: AtomicBool,
}

impl Sa {
    /// Gives the device its keys.
    ///
    /// # Errors
    /// [`FaultKind::Unsupported`], or [`FaultKind::Exhausted`] when the device has as many as there can be.
    pub(super) fn new(params: &SaParams, engine: &Arc<Engine>) -> Result<Sa, Fault> {
        params.check().map_err(|_| FaultKind::Unsupported)?;
        let shape = Shape::of(params.encr, params.integ, params.esn).ok_or(FaultKind::Unsupported)?;
        let (key, given) =
            params.encr_key.expose().split_at_checked(shape.key_len).ok_or(FaultKind::Unsupported)?;
        let transform = shape.transform(params.dir == Direction::Seal, key, params.integ_key.expose());
        let session = Session::new(engine, &transform).map_err(|error| match error {
            error if error == rustix::io::Errno::NOMEM.raw_os_error() => Fault::new(FaultKind::Exhausted),
            error => Fault { kind: FaultKind::Internal, vendor: error.unsigned_abs() },
        })?;
        let mut salt = [0; 4];
        salt.iter_mut().zip(given).for_each(|(to, from)| *to = *from);
        Ok(Sa {
            session: Arc::new(session),
            shape,
            dir: params.dir,
            spi: params.spi,
            salt,
            head_len: (HEADER_LEN + shape.iv_len) as u16,
            whole: if shape.kind == EncrKind::Cbc { 16 } else { 1 },
            removed: AtomicBool::new(false),
        })
    }

    pub(super) fn dir(&self) -> Direction {
        self.dir
    }

    pub(super) fn session(&self) -> &Arc<Session> {
        &self.session
    }

    /// Its handle is stale from now on, whoever still has it in use.
    pub(super) fn retire(&self) {
        self.removed.store(true, Ordering::Release);
    }

    pub(super) fn is_retired(&self) -> bool {
        self.removed.load(Ordering::Acquire)
    }

    /// Whether the ICV is beside the request while the device has it.
    fn moves_icv(&self) -> bool {
        self.shape.esn && self.shape.form != form::TD_AEAD
    }

    /// Octets of text of an operation on a buffer of `room` octets; `None` when it cannot be one.
    fn text_len(&self, room: usize, op: &EspOp) -> Option<usize> {
        let around = usize::from(self.head_len) + self.shape.icv_len;
        let text = match self.dir {
            Direction::Seal => usize::from(op.len),
            Direction::Open => usize::from(op.len).checked_sub(around)?,
        };
        let total = text + around;
        let fits = total <= usize::from(u16::MAX) && total <= room.checked_sub(op.at as usize)?;
        (fits && text.is_multiple_of(usize::from(self.whole))).then_some(text)
    }

    /// Writes header and IV of a packet to be sealed, reads the IV of one to be opened, and says where everything is. `None` when the
    /// operation cannot be one; nothing is written then.
    pub(super) fn begin(&self, bytes: &mut [u8], op: &EspOp, ivs: &mut Ivs) -> Option<(Layout, Aside)> {
        let text = self.text_len(bytes.len(), op)?;
        let (at, head_len) = (op.at as usize, usize::from(self.head_len));
        let packet = bytes.get_mut(at..at + head_len + text + self.shape.icv_len)?;
        let (head, rest) = packet.split_at_mut_checked(head_len)?;
        let (header, iv) = head.split_first_chunk_mut::<HEADER_LEN>()?;
        if self.dir == Direction::Seal {
            *header = (u64::from(self.spi) << 32 | op.seq & 0xffff_ffff).to_be_bytes();
        }
        let mut aside = Aside { iv: [0; IV], aad: [0; AAD], icv: [0; ICV] };
        match self.shape.kind {
            EncrKind::Cbc => {
                let iv = iv.first_chunk_mut::<16>()?;
                if self.dir == Direction::Seal {
                    *iv = ivs.next();
                }
                aside.iv = *iv;
            }
            EncrKind::Null => {}
            _ => {
                // The sequence number never repeats under a key (RFC 4106 section 3.1, RFC 3686 section 3.1).
                let iv = iv.first_chunk_mut::<8>()?;
                if self.dir == Direction::Seal {
                    *iv = op.seq.to_be_bytes();
                }
                aside.iv[..4].copy_from_slice(&self.salt);
                aside.iv[4..12].copy_from_slice(iv);
                if self.shape.kind == EncrKind::Ctr {
                    // RFC 3686 section 4: the counter begins with one.
                    aside.iv[15] = 1;
                }
            }
        }
        if self.shape.kind == EncrKind::Aead {
            aside.aad = self.associated(u64::from_be_bytes(*header), op.seq);
        }
        let (mut hash_len, mut icv_at) = (head_len + text, Some((head_len + text) as u16));
        if self.moves_icv() {
            let icv = rest.get_mut(text..)?;
            if self.dir == Direction::Open {
                aside.icv.iter_mut().zip(icv.iter()).for_each(|(to, from)| *to = *from);
            }
            *icv.first_chunk_mut::<HIGH>()? = ((op.seq >> 32) as u32).to_be_bytes();
            (hash_len, icv_at) = (hash_len + HIGH, None);
        }
        let layout = Layout {
            at: packet.as_ptr() as usize,
            len: packet.len() as u16,
            text_at: self.head_len,
            text_len: text as u16,
            hash_len: hash_len as u16,
            icv_at,
        };
        Some((layout, aside))
    }

    /// RFC 4106 section 5: SPI and sequence number, all 64 bits of it with ESN.
    fn associated(&self, header: u64, seq: u64) -> [u8; AAD] {
        let (spi, high, low) =
            (u128::from(header >> 32), u128::from(seq >> 32), u128::from(header & 0xffff_ffff));
        let whole = match self.shape.esn {
            true => spi << 96 | high << 64 | low << 32,
            false => spi << 96 | low << 64,
        };
        whole.to_be_bytes()
    }

    /// Writes down how an operation has ended. Its octets are not touched: others of the burst may still be with the device.
    pub(super) fn decide(&self, op: &mut EspOp, ended: Ended) {
        op.outcome = match ended {
            Ended::Good => {
                let (head, icv_len) = (self.head_len, self.shape.icv_len as u16);
                match self.dir {
                    Direction::Seal => op.len += head + icv_len,
                    Direction::Open => {
                        op.at += u32::from(head);
                        op.len -= head + icv_len;
                    }
                }
                Outcome::Done
            }
            Ended::Mismatch if self.dir == Direction::Open => Outcome::Rejected(Reject::BadIcv),
            Ended::Mismatch => Outcome::Failed(FaultKind::Internal.into()),
            Ended::Error(status) => Outcome::Failed(Fault { kind: FaultKind::Internal, vendor: status }),
        };
    }

    /// Whether the ICV of a packet that was sealed is beside its request, and has to be put into its place.
    pub(super) fn brings_icv(&self) -> bool {
        self.dir == Direction::Seal && self.moves_icv()
    }

    /// Puts an ICV into its place. The whole burst is back.
    pub(super) fn put_icv(&self, bytes: &mut [u8], op: &EspOp, icv: &[u8; ICV]) {
        let end = op.at as usize + usize::from(op.len);
        if let Some(place) = end.checked_sub(self.shape.icv_len).and_then(|at| bytes.get_mut(at..end)) {
            place.iter_mut().zip(icv).for_each(|(to, from)| *to = *from);
        }
    }

    /// Wipes what a packet was decrypted to although its ICV is wrong: devices decrypt while they check. The whole burst is back.
    pub(super) fn scrub(&self, bytes: &mut [u8], op: &EspOp) {
        let at = op.at as usize;
        if let Some(packet) = bytes.get_mut(at..at + usize::from(op.len)) {
            packet.fill(0);
        }
    }
}
