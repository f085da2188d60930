//! Key schedule: SKEYSEED, the seven keys of an IKE SA, the keys of a Child SA (RFC 7296 sections 2.13 to 2.18).

use std::fmt;

use ipc::Role;
use policy::IkeProposal;
use spi::{Encr, Fault, FaultKind, Group, Integ, Prf, Secret, ShortOps, SkSuite};
use wire::ike::Spi;

/// The algorithms of an IKE SA. Prints as a proposal is written: `aes256-sha256-modp2048`.
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

impl IkeSuite {
    /// Whether one of these proposals has all of it.
    pub fn is_among(&self, proposals: &[IkeProposal]) -> bool {
        proposals.iter().any(|p| {
            let integ =
                if p.integ.is_empty() { self.integ == Integ::NONE } else { p.integ.contains(&self.integ) };
            // A combined mode beside others in one proposal has no integrity algorithm of its own (RFC 7296 section 3.3).
            let integ = integ || self.integ == Integ::NONE;
            integ
                && p.encr.contains(&self.encr)
                && p.prf.contains(&self.prf)
                && p.groups.contains(&self.group)
        })
    }
}

impl fmt::Display for IkeSuite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let integ = Some(self.integ).filter(|i| *i != Integ::NONE).into_iter().collect();
        IkeProposal { encr: vec![self.encr], integ, prf: vec![self.prf], groups: vec![self.group] }.fmt(f)
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
        maced_id(
            ops,
            prf,
            match whose {
                Role::Initiator => &self.sk_pi,
                Role::Responder => &self.sk_pr,
            },
            id_body,
        )
    }
}

/// See [`IkeKeys::maced_id`]; `sk_p` is SK_pi or SK_pr.
pub(crate) fn maced_id(
    ops: &dyn ShortOps,
    prf: Prf,
    sk_p: &Secret,
    id_body: &[u8],
) -> Result<Vec<u8>, Fault> {
    Ok(ops.prf(prf, sk_p.expose(), &[id_body])?.expose().to_vec())
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

#[cfg(test)]
mod tests {
    use super::*;
    use spi::Device;
    use std::sync::Arc;

    fn ops() -> Arc<dyn ShortOps> {
        soft::Soft::new(1).device().short_ops().unwrap()
    }

    fn suite(text: &str) -> IkeSuite {
        let p = IkeProposal::parse(text).unwrap();
        let integ = p.integ.first().copied().unwrap_or(Integ::NONE);
        IkeSuite { encr: p.encr[0], integ, prf: p.prf[0], group: p.groups[0] }
    }

    #[test]
    fn suites_print_as_proposals_are_written() {
        for text in
            ["aes128gcm16-prfsha256-x25519", "aes256-sha256-modp2048", "aes256-sha256-prfsha384-ecp256"]
        {
            assert_eq!(suite(text).to_string(), text);
        }
    }

    #[test]
    fn key_lengths_are_those_of_the_algorithms() {
        let table = [
            ("aes256-sha512-ecp384", 64, 64, 32),
            ("aes128gcm16-prfsha256-x25519", 32, 0, 20),
            ("aes256ccm16-prfsha384-x448", 48, 0, 35),
            ("chacha20poly1305-prfaescmac-x25519", 16, 0, 36),
            ("aes192ctr-aesxcbc-modp2048", 16, 16, 28),
        ];
        for (text, p, a, e) in table {
            let suite = suite(text);
            let seed = Secret::from_slice(&[7; 32]);
            let (spi_i, spi_r) = (Spi(1), Spi(2));
            let k = IkeKeys::derive(&*ops(), &suite, &seed, &[1; 32], &[2; 32], spi_i, spi_r).unwrap();
            for (key, len) in [
                (&k.sk_d, p),
                (&k.sk_ai, a),
                (&k.sk_ar, a),
                (&k.sk_ei, e),
                (&k.sk_er, e),
                (&k.sk_pi, p),
                (&k.sk_pr, p),
            ] {
                assert_eq!(key.len(), len, "{text}");
            }
            assert!(!k.sk_ei.ct_eq(k.sk_er.expose()) && !k.sk_pi.ct_eq(k.sk_pr.expose()), "{text}");
        }
    }

    #[test]
    fn prf_with_a_key_of_one_size_takes_half_of_it_from_each_nonce() {
        let ops = ops();
        let secret = Secret::from_slice(&[3; 32]);
        let seed = |prf, ni: &[u8], nr: &[u8]| skeyseed(&*ops, prf, ni, nr, &secret).unwrap();
        let (long_i, long_r) = ([1; 32], [2; 32]);
        for prf in [Prf::AES128_XCBC, Prf::AES128_CMAC] {
            assert!(seed(prf, &long_i, &long_r).ct_eq(seed(prf, &[1; 8], &[2; 8]).expose()), "{prf}");
        }
        let prf = Prf::HMAC_SHA2_256;
        assert!(!seed(prf, &long_i, &long_r).ct_eq(seed(prf, &[1; 8], &[2; 8]).expose()));
    }

    #[test]
    fn prf_plus_is_a_prefix_of_its_longer_self_and_ends_after_255_blocks() {
        let (ops, key) = (ops(), Secret::from_slice(&[5; 32]));
        let prf = Prf::HMAC_SHA2_256;
        let seed: [&[u8]; 2] = [b"a", b"b"];
        let long = prf_plus(&*ops, prf, &key, &seed, 255 * 32).unwrap();
        for len in [0, 1, 31, 32, 33, 64, 1000] {
            assert!(prf_plus(&*ops, prf, &key, &seed, len).unwrap().ct_eq(&long.expose()[..len]));
        }
        assert!(prf_plus(&*ops, prf, &key, &seed, 255 * 32 + 1).is_err());
        assert!(prf_plus(&*ops, Prf(99), &key, &seed, 16).is_err());
    }

    #[test]
    fn perfect_forward_secrecy_changes_child_keys() {
        let (ops, sk_d) = (ops(), Secret::from_slice(&[9; 32]));
        let make = |g: Option<&Secret>| {
            let (encr, integ) = (Encr::AES128_CBC, Integ::HMAC_SHA2_256_128);
            ChildKeys::derive(&*ops, Prf::HMAC_SHA2_256, &sk_d, g, &[1; 16], &[2; 16], encr, integ).unwrap()
        };
        let (with, without) = (make(Some(&Secret::from_slice(&[4; 32]))), make(None));
        assert_eq!((with.encr_i.len(), with.integ_r.len()), (16, 32));
        assert!(!with.encr_i.ct_eq(without.encr_i.expose()));
    }
}
