//! Jobs: all packets of a burst at once.
//!
//! 1. Of each packet: write what goes before and behind the text, and add it to the batch.
//! 2. Run the batch.
//! 3. Of each packet: write the ICV, or compare it with the one that came.

use spi::alg::EncrKind;
use spi::esp::{HEADER_LEN, MAX_OPS};
use spi::{Direction, Encr, EspOp, Fault, FaultKind, Integ, Outcome, Reject, SaParams};

use super::fail;
use crate::esp::{Frame, Keys, aad, header_octets};
use crate::scratch::{Ivs, Scratch};
use crate::sys::imb::{Cipher, Hash, Job, JobKeys, Manager};
use crate::transform::{Salt, nonce, own, same, split};

/// Octets of the longest ICV of the table.
const MAX_ICV: usize = 32;

pub(super) fn carries(encr: Encr, integ: Integ) -> bool {
    algorithms(encr, integ).is_some()
}

fn algorithms(encr: Encr, integ: Integ) -> Option<(Cipher, Hash)> {
    let cipher = match encr.info()?.kind {
        EncrKind::Aead if encr == Encr::CHACHA20_POLY1305 => return Some((Cipher::ChachaPoly, Hash::None)),
        EncrKind::Aead | EncrKind::Gmac => return None,
        EncrKind::Cbc => Cipher::Cbc,
        EncrKind::Ctr => Cipher::Ctr,
        EncrKind::Null => Cipher::Null,
    };
    let hash = match integ {
        Integ::HMAC_SHA1_96 => Hash::Sha1,
        Integ::HMAC_SHA2_256_128 => Hash::Sha256,
        Integ::HMAC_SHA2_384_192 => Hash::Sha384,
        Integ::HMAC_SHA2_512_256 => Hash::Sha512,
        _ => return None,
    };
    Some((cipher, hash))
}

/// Lanes for jobs, and the ICVs of the packets that are being opened.
pub(super) struct Lanes {
    lanes: crate::sys::imb::Lanes,
    came: Vec<[u8; MAX_ICV]>,
}

impl Lanes {
    fn new() -> Option<Self> {
        Some(Lanes { lanes: crate::sys::imb::Lanes::new(MAX_OPS).ok()?, came: Vec::with_capacity(MAX_OPS) })
    }
}

/// The keys of one SA.
pub(super) struct Key {
    keys: JobKeys,
    cipher: Cipher,
    /// Counter mode and ChaCha20 have one.
    salt: Option<Salt<4>>,
}

impl Key {
    pub(super) fn new(manager: &Manager, params: &SaParams) -> Result<Self, Fault> {
        let info = params.encr.info().ok_or(FaultKind::Unsupported)?;
        let (key, salt) = split(&info, params.encr_key.expose())?;
        let (cipher, hash) = algorithms(params.encr, params.integ).ok_or(FaultKind::Unsupported)?;
        let (seal, hash_key) = (params.dir == Direction::Seal, params.integ_key.expose());
        let keys = JobKeys::new(manager, (cipher, key), (hash, hash_key), seal, params.icv_len())
            .ok_or(FaultKind::Exhausted)?;
        Ok(Key { keys, cipher, salt: own(salt) })
    }

    /// Step 1; gives the ICV that came, too. `None`: there is no room for the parts, or not the right amount of text.
    fn prepare(
        &self,
        frame: &Frame,
        op: &EspOp,
        memory: &mut [u8],
        ivs: &mut Ivs,
    ) -> Option<(Job, [u8; MAX_ICV])> {
        let text_len = frame.text_len(memory.len(), op)?;
        let (at, head_len) = (op.at as usize, frame.head_len());
        let (packet, rest) = memory.get_mut(at..)?.split_at_mut_checked(head_len + text_len)?;
        let icv = rest.get_mut(..frame.icv_len())?;
        let (header, rest) = packet.split_at_mut_checked(HEADER_LEN)?;
        let iv = rest.get_mut(..head_len - HEADER_LEN)?;
        let mut came = [0; MAX_ICV];
        match frame.dir {
            Direction::Seal => {
                header.copy_from_slice(&header_octets(frame.spi, op.seq));
                ivs.write(self.cipher == Cipher::Cbc, op.seq, iv);
            }
            Direction::Open => came.get_mut(..icv.len())?.copy_from_slice(icv),
        }
        let mut job = Job::new(at..at + head_len + text_len, head_len);
        match &self.salt {
            // The library begins counting at one, as RFC 3686 section 4 wants it.
            Some(salt) => job.iv.set(&nonce::<4, 12>(salt, iv)?),
            None => job.iv.set(iv),
        }
        let high = frame.esn.then_some((op.seq >> 32) as u32);
        if self.cipher == Cipher::ChachaPoly {
            job.aad.set(aad(header, high, &mut [0; 12]));
        } else if let Some(high) = high {
            // RFC 4303 section 2.2.1: the high half follows the packet and is not sent. HMAC wants it to lie there, and the
            // place of the ICV is free for now.
            let tail = high.to_be_bytes();
            icv.get_mut(..tail.len())?.copy_from_slice(&tail);
            job.tail_len = tail.len();
        }
        Some((job, came))
    }
}

impl Keys for Key {
    fn each(&self, frame: &Frame, bytes: &mut [u8], ops: &mut [EspOp], scratch: &mut Scratch) {
        let Scratch { ivs, imb } = scratch;
        if imb.jobs.is_none() {
            imb.jobs = Lanes::new();
        }
        let Some(Lanes { lanes, came }) = &mut imb.jobs else { return fail(ops) };
        came.clear();
        let mut batch = lanes.batch(bytes);
        for op in ops.iter_mut() {
            op.outcome = match self.prepare(frame, op, batch.memory(), ivs) {
                Some((job, icv)) if batch.push(&job) => {
                    came.push(icv);
                    Outcome::Pending
                }
                Some(_) => Outcome::Failed(FaultKind::Internal.into()),
                None => Outcome::Rejected(Reject::BadLength),
            };
        }
        batch.run(&self.keys);
        let in_batch = ops.iter_mut().filter(|op| op.outcome == Outcome::Pending);
        for ((op, icv), (done, tag)) in in_batch.zip(came).zip(lanes.results()) {
            let tag = &tag[..frame.icv_len().min(tag.len())];
            if !done {
                op.outcome = Outcome::Failed(FaultKind::Internal.into());
                continue;
            }
            let good = match frame.dir {
                Direction::Seal => {
                    let at = op.at as usize + frame.head_len() + usize::from(op.len);
                    bytes.get_mut(at..at + tag.len()).is_some_and(|icv| {
                        icv.copy_from_slice(tag);
                        true
                    })
                }
                Direction::Open => same(tag, &icv[..tag.len()]),
            };
            frame.finish(op, good);
        }
    }
}
