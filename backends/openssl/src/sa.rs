//! One SA: its keys, and how a packet goes through them.

use std::ffi::CStr;
use std::sync::{Arc, Mutex, PoisonError};

use spi::alg::EncrKind;
use spi::esp::HEADER_LEN;
use spi::{Direction, Encr, Fault, FaultKind, Integ, SaParams, Secret};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::frame::{Frame, Verdict};
use crate::sys::cipher::{self, Cipher, Failed};
use crate::sys::context::Context;
use crate::sys::mac::{self, Hmac};

/// Keyed contexts that an SA keeps when nothing needs them.
const SPARE: usize = 64;

/// OpenSSL's name of a cipher; `None`: not one of those that are offered here.
pub(crate) fn cipher_name(encr: Encr) -> Option<&'static CStr> {
    Some(match (encr.id, encr.key_bits) {
        (12, 128) => c"AES-128-CBC",
        (12, 192) => c"AES-192-CBC",
        (12, 256) => c"AES-256-CBC",
        (13, 128) => c"AES-128-CTR",
        (13, 192) => c"AES-192-CTR",
        (13, 256) => c"AES-256-CTR",
        (18..=20, 128) => c"AES-128-GCM",
        (18..=20, 192) => c"AES-192-GCM",
        (18..=20, 256) => c"AES-256-GCM",
        (28, 0) => c"ChaCha20-Poly1305",
        _ => return None,
    })
}

/// OpenSSL's name of the hash of an HMAC; `None` likewise.
pub(crate) fn hash_name(integ: Integ) -> Option<&'static CStr> {
    Some(match integ {
        Integ::HMAC_SHA1_96 => c"SHA1",
        Integ::HMAC_SHA2_256_128 => c"SHA256",
        Integ::HMAC_SHA2_384_192 => c"SHA384",
        Integ::HMAC_SHA2_512_256 => c"SHA512",
        _ => return None,
    })
}

/// Header and IV, text, ICV.
type Parts<'a> = (&'a [u8], &'a mut [u8], &'a mut [u8]);

/// An installed SA. Any number of its packets may be under way: each has contexts of its own.
pub(crate) struct Sa {
    pub(crate) frame: Frame,
    kind: EncrKind,
    key: Secret,
    salt: Secret,
    integ_key: Secret,
    hash: Option<&'static CStr>,
    idle: Mutex<Vec<Keys>>,
    cipher: Cipher,
    hmac: Option<Hmac>,
    /// Behind what was fetched from it, so that it goes last.
    _context: Arc<Context>,
}

/// The keys of an SA, scheduled, for one packet at a time.
pub(crate) struct Keys {
    cipher: cipher::Keyed,
    mac: Option<mac::Keyed>,
}

impl Sa {
    /// Fetches what it needs. One set of keys is scheduled at once: what does not work is refused here, not with a packet.
    pub(crate) fn new(context: &Arc<Context>, params: &SaParams) -> Result<Self, Fault> {
        const UNSUPPORTED: Fault = Fault::new(FaultKind::Unsupported);
        params.check().map_err(|_| UNSUPPORTED)?;
        let info = params.encr.info().ok_or(UNSUPPORTED)?;
        let name = cipher_name(params.encr).ok_or(UNSUPPORTED)?;
        let (key, salt) = params.encr_key.expose().split_at_checked(info.key_len).ok_or(UNSUPPORTED)?;
        let hash = match params.integ {
            Integ::NONE => None,
            integ => Some(hash_name(integ).ok_or(UNSUPPORTED)?),
        };
        let hmac = match hash {
            Some(_) => Some(Hmac::fetch(context).ok_or(UNSUPPORTED)?),
            None => None,
        };
        let sa = Sa {
            frame: Frame::new(params)?,
            kind: info.kind,
            key: Secret::from_slice(key),
            salt: Secret::from_slice(salt),
            integ_key: params.integ_key.duplicate(),
            hash,
            idle: Mutex::default(),
            cipher: Cipher::fetch(context, name).ok_or(UNSUPPORTED)?,
            hmac,
            _context: Arc::clone(context),
        };
        let keys = sa.schedule().ok_or(UNSUPPORTED)?;
        sa.give_back(keys);
        Ok(sa)
    }

    /// Keys for one packet.
    pub(crate) fn keys(&self) -> Option<Keys> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        idle.or_else(|| self.schedule())
    }

    /// They are not needed any more.
    pub(crate) fn give_back(&self, keys: Keys) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < SPARE {
            idle.push(keys);
        }
    }

    fn schedule(&self) -> Option<Keys> {
        let seal = self.frame.dir == Direction::Seal;
        let cipher = cipher::Keyed::new(&self.cipher, self.key.expose(), seal)?;
        let mac = match (&self.hmac, self.hash) {
            (Some(hmac), Some(hash)) => Some(mac::Keyed::new(hmac, hash, self.integ_key.expose())?),
            _ => None,
        };
        Some(Keys { cipher, mac })
    }

    /// Whether the IV must be unpredictable (RFC 3602 section 3); otherwise it is the sequence number.
    pub(crate) fn wants_random_iv(&self) -> bool {
        self.kind == EncrKind::Cbc
    }

    /// Carries out one packet in place: `packet` is header, IV, text and ICV.
    pub(crate) fn run(&self, keys: &mut Keys, packet: &mut [u8], seq: u64) -> Verdict {
        let done = match self.kind {
            EncrKind::Aead => self.combined(keys, packet, seq),
            _ => self.separate(keys, packet, seq),
        };
        match done {
            Ok(()) => Verdict::Good,
            Err(Failed::BadIcv) => Verdict::BadIcv,
            Err(Failed::Broken) => Verdict::Broken,
        }
    }

    /// Cipher and check value in one (RFC 4106, RFC 7634).
    fn combined(&self, keys: &mut Keys, packet: &mut [u8], seq: u64) -> Result<(), Failed> {
        let (head, text, icv) = self.parts(packet)?;
        let (header, iv) = head.split_at(HEADER_LEN);
        let mut nonce = Zeroizing::new([0; 12]);
        join(&mut nonce[..], &[self.salt.expose(), iv])?;
        // RFC 4106 section 5: SPI and sequence number, all 64 bits of it with ESN.
        let mut aad = [0; 12];
        let aad = match self.frame.high(seq) {
            Some(high) => {
                let (spi, low) = header.split_at(4);
                let parts = spi.iter().chain(&high).chain(low);
                aad.iter_mut().zip(parts).for_each(|(to, from)| *to = *from);
                &aad[..]
            }
            None => header,
        };
        let cipher = &mut keys.cipher;
        cipher.begin(&nonce[..])?;
        match self.frame.dir {
            Direction::Seal => {
                cipher.aad(aad)?;
                cipher.apply(text)?;
                cipher.tag(icv)
            }
            Direction::Open => {
                cipher.expect(icv)?;
                cipher.aad(aad)?;
                cipher.apply(text)?;
                cipher.verify()
            }
        }
    }

    /// A cipher, and a check value over what it gave (RFC 4303 section 3.3.2).
    fn separate(&self, keys: &mut Keys, packet: &mut [u8], seq: u64) -> Result<(), Failed> {
        let mac = keys.mac.as_mut().ok_or(Failed::Broken)?;
        let covered = packet.len().checked_sub(self.frame.icv_len).ok_or(Failed::Broken)?;
        // RFC 4303 section 2.2.1: the high half follows the packet in the computation of the ICV and is not sent.
        let high = self.frame.high(seq);
        let tail = high.as_ref().map_or(&[][..], |high| high);
        if self.frame.dir == Direction::Open {
            let (body, icv) = packet.split_at(covered);
            let mut own = [0; 64];
            let own = own.get_mut(..icv.len()).ok_or(Failed::Broken)?;
            if !mac.write([body, tail], own) {
                return Err(Failed::Broken);
            }
            if !bool::from(own.ct_eq(icv)) {
                return Err(Failed::BadIcv);
            }
        }
        let (head, text, _) = self.parts(packet)?;
        let iv = &head[HEADER_LEN..];
        match self.kind {
            EncrKind::Cbc => keys.cipher.begin(iv)?,
            EncrKind::Ctr => {
                // RFC 3686 section 4: nonce, IV, and a block counter that starts at one.
                let mut block = Zeroizing::new([0; 16]);
                join(&mut block[..], &[self.salt.expose(), iv, &[0, 0, 0, 1]])?;
                keys.cipher.begin(&block[..])?;
            }
            _ => return Err(Failed::Broken),
        }
        keys.cipher.apply(text)?;
        keys.cipher.end()?;
        if self.frame.dir == Direction::Seal {
            let (body, icv) = packet.split_at_mut(covered);
            if !mac.write([body, tail], icv) {
                return Err(Failed::Broken);
            }
        }
        Ok(())
    }

    /// Header and IV, text, ICV.
    fn parts<'a>(&self, packet: &'a mut [u8]) -> Result<Parts<'a>, Failed> {
        let (head, rest) = packet.split_at_mut_checked(self.frame.head_len).ok_or(Failed::Broken)?;
        let text_len = rest.len().checked_sub(self.frame.icv_len).ok_or(Failed::Broken)?;
        let (text, icv) = rest.split_at_mut_checked(text_len).ok_or(Failed::Broken)?;
        Ok((head, text, icv))
    }
}

/// Puts parts one behind the other, which fill the place.
fn join(to: &mut [u8], parts: &[&[u8]]) -> Result<(), Failed> {
    let mut rest = to;
    for part in parts {
        let (head, tail) = rest.split_at_mut_checked(part.len()).ok_or(Failed::Broken)?;
        head.copy_from_slice(part);
        rest = tail;
    }
    if rest.is_empty() { Ok(()) } else { Err(Failed::Broken) }
}
