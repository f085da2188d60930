//! Key schedule: SKEYSEED, the seven keys of an IKE SA, the keys of a Child SA (RFC 7296 sections 2.13 to 2.18).

use std::fmt;

use ipc::Role;
use spi::{Encr, Fault, FaultKind, Group, Integ, Prf, Secret, ShortOps, SkSuite};
use wire::ike::Spi;

/// The algorithms of an IKE SA. Prints as a proposal is written: `aes256-sha256-prfsha256-modp2048`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IkeSuite {
    /// Encryption.
    pub encr: Encr,
    /// Integrity; [`Integ::NONE`] with combined modes.
    pub integ: Integ,
    /// Pseudo-random function.
    pub prf: Prf,
    /// Key exchange method.
    pub group: Group,
}

impl IkeSuite {
    /// The part that protects messages.
    pub fn sk_suite(&self) -> SkSuite {
        SkSuite { encr: self.encr, integ: self.integ }
    }
}

impl fmt::Display for IkeSuite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.encr)?;
        if self.integ != Integ::NONE {
            write!(f, "-{}", self.integ)?;
        }
        write!(f, "-{}-{}", self.prf, self.group)
    }
}

/// The keys of an IKE SA. `i` is the original initiator of the SA, whoever starts an exchange later.
pub struct IkeKeys {
    /// From which Child SA keys and the next SKEYSEED come.
    pub sk_d: Secret,
    /// Integrity, initiator's messages; empty with combined modes.
    pub sk_ai: Secret,
    /// Integrity, responder's messages; empty with combined modes.
    pub sk_ar: Secret,
    /// Encryption with salt, initiator's messages.
    pub sk_ei: Secret,
    /// Encryption with salt, responder's messages.
    pub sk_er: Secret,
    /// For the initiator's AUTH.
    pub sk_pi: Secret,
    /// For the responder's AUTH.
    pub sk_pr: Secret,
}

impl IkeKeys {
    /// `{SK_d | SK_ai | SK_ar | SK_ei | SK_er | SK_pi | SK_pr} = prf+(SKEYSEED, Ni | Nr | SPIi | SPIr)`
    /// (RFC 7296 section 2.14), all with the new SA's PRF and SPIs.
    ///
    /// # Errors
    /// [`FaultKind::Unsupported`] for an algorithm that is not in the table.
    pub fn derive(
        ops: &dyn ShortOps,
        suite: &IkeSuite,
        skeyseed: &Secret,
        ni: &[u8],
        nr: &[u8],
        spi_i: Spi,
        spi_r: Spi,
    ) -> Result<IkeKeys, Fault> {
        let (e, a) = cipher_key_lens(suite.encr, suite.integ)?;
        let p = suite.prf.info().ok_or(UNSUPPORTED)?.key_len;
        let seed: [&[u8]; 4] = [ni, nr, &spi_i.to_bytes(), &spi_r.to_bytes()];
        let material = prf_plus(ops, suite.prf, skeyseed, &seed, 3 * p + 2 * a + 2 * e)?;
        let mut cut = Cut(material.expose());
        Ok(IkeKeys {
            sk_d: cut.take(p),
            sk_ai: cut.take(a),
            sk_ar: cut.take(a),
            sk_ei: cut.take(e),
            sk_er: cut.take(e),
            sk_pi: cut.take(p),
            sk_pr: cut.take(p),
        })
    }

    /// `prf(SK_pi or SK_pr, ID payload body)`, the last part of the octets a side signs (RFC 7296 section 2.15).
    /// `whose` is the side that proves itself; `id_body` is its ID payload without the generic header.
    ///
    /// # Errors
    /// [`FaultKind::Unsupported`] for an unknown PRF.
    pub fn maced_id(
        &self,
        ops: &dyn ShortOps,
        prf: Prf,
        whose: Role,
        id_body: &[u8],
    ) -> Result<Vec<u8>, Fault> {
        let key = match whose {
            Role::Initiator => &self.sk_pi,
            Role::Responder => &self.sk_pr,
        };
        Ok(ops.prf(prf, key.expose(), &[id_body])?.expose().to_vec())
    }
}

/// The keys of a Child SA pair. `i` is the initiator of the exchange that made it, not of the IKE SA.
pub struct ChildKeys {
    /// Encryption with salt, packets from the exchange's initiator.
    pub encr_i: Secret,
    /// Integrity, packets from the exchange's initiator; empty with combined modes.
    pub integ_i: Secret,
    /// Encryption with salt, packets from its responder.
    pub encr_r: Secret,
    /// Integrity, packets from its responder; empty with combined modes.
    pub integ_r: Secret,
}

impl ChildKeys {
    /// `KEYMAT = prf+(SK_d, [g^ir] | Ni | Nr)` (RFC 7296 section 2.17): the initiator's direction first, encryption before
    /// integrity. The nonces are those of IKE_SA_INIT for the child of IKE_AUTH, else those of CREATE_CHILD_SA.
    ///
    /// # Errors
    /// [`FaultKind::Unsupported`] for an algorithm that is not in the table.
    #[allow(clippy::too_many_arguments)] // The formula has as many.
    pub fn derive(
        ops: &dyn ShortOps,
        prf: Prf,
        sk_d: &Secret,
        g_ir: Option<&Secret>,
        ni: &[u8],
        nr: &[u8],
        encr: Encr,
        integ: Integ,
    ) -> Result<ChildKeys, Fault> {
        let (e, a) = cipher_key_lens(encr, integ)?;
        let seed = [g_ir.map_or(&[][..], Secret::expose), ni, nr];
        let material = prf_plus(ops, prf, sk_d, &seed, 2 * (e + a))?;
        let mut cut = Cut(material.expose());
        Ok(ChildKeys { encr_i: cut.take(e), integ_i: cut.take(a), encr_r: cut.take(e), integ_r: cut.take(a) })
    }
}

/// `SKEYSEED = prf(Ni | Nr, g^ir)` of a new IKE SA (RFC 7296 section 2.14).
///
/// # Errors
/// [`FaultKind::Unsupported`] for an unknown PRF.
pub fn skeyseed(ops: &dyn ShortOps, prf: Prf, ni: &[u8], nr: &[u8], g_ir: &Secret) -> Result<Secret, Fault> {
    let info = prf.info().ok_or(UNSUPPORTED)?;
    // RFC 7296 section 2.14: a PRF whose key has one size takes half of it from the front of each nonce. Everywhere else the
    // nonces go in whole.
    let (ni, nr) = match info.fixed_key {
        true => (front(ni, info.key_len / 2), front(nr, info.key_len / 2)),
        false => (ni, nr),
    };
    ops.prf(prf, &[ni, nr].concat(), &[g_ir.expose()])
}

/// `SKEYSEED = prf(SK_d (old), g^ir (new) | Ni | Nr)` of a rekeyed IKE SA, with the PRF of the old one
/// (RFC 7296 section 2.18).
///
/// # Errors
/// [`FaultKind::Unsupported`] for an unknown PRF.
pub fn skeyseed_rekey(
    ops: &dyn ShortOps,
    old_prf: Prf,
    old_sk_d: &Secret,
    g_ir: &Secret,
    ni: &[u8],
    nr: &[u8],
) -> Result<Secret, Fault> {
    ops.prf(old_prf, old_sk_d.expose(), &[g_ir.expose(), ni, nr])
}

/// `prf+(key, seed)`, cut to `len` octets (RFC 7296 section 2.13).
///
/// # Errors
/// [`FaultKind::Unsupported`] for an unknown PRF, or when `len` exceeds 255 times its output.
pub fn prf_plus(
    ops: &dyn ShortOps,
    prf: Prf,
    key: &Secret,
    seed: &[&[u8]],
    len: usize,
) -> Result<Secret, Fault> {
    // Reserved whole, so that growing leaves no copy of key material behind.
    let mut out = Vec::with_capacity(len);
    let mut last = Secret::new(Vec::new());
    for n in 1..=u8::MAX {
        if out.len() == len {
            break;
        }
        let counter = [n];
        let data = [&[last.expose()], seed, &[&counter]].concat();
        let block = ops.prf(prf, key.expose(), &data)?;
        let rest = len - out.len();
        out.extend_from_slice(front(block.expose(), rest));
        last = block;
    }
    let whole = out.len() == len;
    let out = Secret::new(out);
    // The counter has one octet (RFC 7296 section 2.13).
    if whole { Ok(out) } else { Err(UNSUPPORTED) }
}

const UNSUPPORTED: Fault = Fault::new(FaultKind::Unsupported);

fn cipher_key_lens(encr: Encr, integ: Integ) -> Result<(usize, usize), Fault> {
    let e = encr.info().ok_or(UNSUPPORTED)?;
    let a = integ.info().ok_or(UNSUPPORTED)?;
    Ok((e.key_len + e.salt_len, a.key_len))
}

fn front(bytes: &[u8], n: usize) -> &[u8] {
    bytes.get(..n).unwrap_or(bytes)
}

/// Takes keys off the front of key material.
struct Cut<'a>(&'a [u8]);

impl Cut<'_> {
    fn take(&mut self, n: usize) -> Secret {
        let (head, rest) = self.0.split_at_checked(n).unwrap_or((self.0, &[]));
        self.0 = rest;
        Secret::from_slice(head)
    }
}
