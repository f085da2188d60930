//! Proposals as the operator writes them: lists of alternatives, in order of preference.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use spi::alg::EncrKind;
use spi::{Encr, Group, Hash, Integ, Prf};
use thiserror::Error;

use crate::token::{self, Token};

/// Hashes we announce for signatures (SIGNATURE_HASH_ALGORITHMS, RFC 7427 section 4) and accept in them; SHA-1 is not
/// among them (RFC 8247 section 3), Identity is for Ed25519 (RFC 8420).
pub const SIGNATURE_HASHES: [Hash; 4] = [Hash::Sha256, Hash::Sha384, Hash::Sha512, Hash::Identity];

/// One IKE proposal. Each list is in order of preference; combined modes have an empty `integ`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IkeProposal {
    /// Encryption.
    pub encr: Vec<Encr>,
    /// Integrity; empty with combined modes.
    pub integ: Vec<Integ>,
    /// Pseudo-random functions.
    pub prf: Vec<Prf>,
    /// Key exchange methods.
    pub groups: Vec<Group>,
}

/// One ESP proposal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EspProposal {
    /// Encryption.
    pub encr: Vec<Encr>,
    /// Integrity; empty with combined modes.
    pub integ: Vec<Integ>,
    /// Key exchange methods for perfect forward secrecy; empty: none. Left out in IKE_AUTH (RFC 7296 section 1.2).
    pub groups: Vec<Group>,
    /// Acceptable values of the extended-sequence-numbers transform, preferred first.
    pub esn: Vec<bool>,
}

/// Why a text is no proposal.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ProposalError {
    /// A token nobody knows.
    #[error("`{proposal}`: unknown token `{token}`{}", suggestion(nearest))]
    Unknown {
        /// The proposal.
        proposal: String,
        /// The token.
        token: String,
        /// What was probably meant.
        nearest: Option<&'static str>,
    },
    /// An algorithm that exists and is not offered.
    #[error("`{proposal}`: `{token}` is refused: {reason}")]
    Refused {
        /// The proposal.
        proposal: String,
        /// The token.
        token: String,
        /// Why.
        reason: &'static str,
    },
    /// Tokens that do not make a proposal together.
    #[error("`{proposal}`: {reason}")]
    Unsound {
        /// The proposal.
        proposal: String,
        /// What is missing or too much.
        reason: String,
    },
}

fn suggestion(nearest: &Option<&'static str>) -> String {
    nearest.map_or(String::new(), |n| format!(", did you mean `{n}`?"))
}

impl IkeProposal {
    /// Reads tokens joined by `-`, for example `aes128gcm16-prfsha256-x25519` or `aes256-sha256-modp2048`. Several tokens
    /// of one kind are alternatives, preferred first. An integrity token implies its PRF unless a PRF is named.
    ///
    /// # Errors
    /// [`ProposalError`]: an unknown token, an algorithm that is refused by name, no encryption, PRF or key exchange, a
    /// cipher without integrity, or combined modes mixed with others (RFC 7296 section 3.3 wants two proposals then).
    pub fn parse(text: &str) -> Result<Self, ProposalError> {
        let mut p = IkeProposal { encr: vec![], integ: vec![], prf: vec![], groups: vec![] };
        let text = text.trim();
        for word in text.split('-') {
            match token::parse(text, word)? {
                Token::Encr(encr) => push(&mut p.encr, encr),
                Token::Integ(integ) => push(&mut p.integ, integ),
                Token::Prf(prf) => push(&mut p.prf, prf),
                Token::Group(group) => push(&mut p.groups, group),
                Token::Esn(_) => return Err(unsound(text, format!("`{word}` belongs to ESP proposals"))),
            }
        }
        for encr in &p.encr {
            let kind = encr.info().map(|i| i.kind);
            if matches!(kind, Some(EncrKind::Null | EncrKind::Gmac)) {
                return Err(unsound(
                    text,
                    format!("IKE messages have to be encrypted, `{encr}` does not encrypt"),
                ));
            }
        }
        check_integrity(text, &p.encr, &p.integ, true)?;
        if p.prf.is_empty() {
            p.prf = p.integ.iter().filter_map(|i| implied_prf(*i)).collect();
        }
        if p.prf.is_empty() {
            return Err(unsound(text, "no PRF; add for example `prfsha256`".into()));
        }
        if p.groups.is_empty() {
            return Err(unsound(text, "no key exchange; add for example `x25519`".into()));
        }
        Ok(p)
    }

    /// What is offered and accepted when the configuration has no `ike`: combined modes first, then AES-CBC with SHA-2
    /// for peers without them. Everything RFC 8247 asks for is in it.
    pub fn defaults() -> Vec<Self> {
        const REST: [Prf; 3] = [Prf::HMAC_SHA2_256, Prf::HMAC_SHA2_384, Prf::HMAC_SHA2_512];
        let aead = IkeProposal {
            encr: DEFAULT_AEAD.into(),
            integ: vec![],
            prf: REST.into(),
            groups: DEFAULT_GROUPS.into(),
        };
        let cbc = IkeProposal {
            encr: DEFAULT_CBC.into(),
            integ: DEFAULT_INTEG.into(),
            prf: REST.into(),
            groups: DEFAULT_GROUPS.into(),
        };
        vec![aead, cbc]
    }
}

impl EspProposal {
    /// Reads tokens joined by `-`, for example `aes128gcm16-x25519-esn` or `aes256-sha256`. Without `esn` or `noesn` it is
    /// `noesn`; with both, the one named first is preferred.
    ///
    /// # Errors
    /// [`ProposalError`], as with [`IkeProposal::parse`]; PRFs do not belong here.
    pub fn parse(text: &str) -> Result<Self, ProposalError> {
        let mut p = EspProposal { encr: vec![], integ: vec![], groups: vec![], esn: vec![] };
        let text = text.trim();
        for word in text.split('-') {
            match token::parse(text, word)? {
                Token::Encr(encr) => push(&mut p.encr, encr),
                Token::Integ(integ) => push(&mut p.integ, integ),
                Token::Group(group) => push(&mut p.groups, group),
                Token::Esn(esn) => push(&mut p.esn, esn),
                Token::Prf(_) => return Err(unsound(text, format!("`{word}` belongs to IKE proposals"))),
            }
        }
        check_integrity(text, &p.encr, &p.integ, false)?;
        if p.esn.is_empty() {
            p.esn.push(false);
        }
        Ok(p)
    }

    /// What is offered and accepted when the configuration has no `esp`: each suite first with perfect forward secrecy,
    /// then without, since many peers have none unless told. Extended sequence numbers preferred (RFC 4303 section 2.2.1).
    pub fn defaults() -> Vec<Self> {
        let mut list = Vec::new();
        for groups in [DEFAULT_GROUPS.to_vec(), vec![]] {
            for (encr, integ) in
                [(DEFAULT_AEAD.to_vec(), vec![]), (DEFAULT_CBC.to_vec(), DEFAULT_INTEG.to_vec())]
            {
                list.push(EspProposal { encr, integ, groups: groups.clone(), esn: vec![true, false] });
            }
        }
        list
    }
}

const DEFAULT_AEAD: [Encr; 3] = [Encr::AES256_GCM16, Encr::AES128_GCM16, Encr::CHACHA20_POLY1305];
const DEFAULT_CBC: [Encr; 2] = [Encr::AES256_CBC, Encr::AES128_CBC];
const DEFAULT_INTEG: [Integ; 3] =
    [Integ::HMAC_SHA2_256_128, Integ::HMAC_SHA2_384_192, Integ::HMAC_SHA2_512_256];
const DEFAULT_GROUPS: [Group; 7] = [
    Group::X25519,
    Group::ECP256,
    Group::ECP384,
    Group::ECP521,
    Group::MODP3072,
    Group::MODP4096,
    Group::MODP2048,
];

fn unsound(proposal: &str, reason: String) -> ProposalError {
    ProposalError::Unsound { proposal: proposal.into(), reason }
}

fn push<T: PartialEq>(list: &mut Vec<T>, item: T) {
    if !list.contains(&item) {
        list.push(item);
    }
}

/// Nothing without integrity can be written down: either every cipher brings its own, or there is an integrity algorithm.
fn check_integrity(text: &str, encr: &[Encr], integ: &[Integ], ike: bool) -> Result<(), ProposalError> {
    let Some(first) = encr.first() else {
        return Err(unsound(text, "no encryption; add for example `aes128gcm16`".into()));
    };
    let is_aead = |e: &Encr| e.info().is_some_and(|i| i.is_aead());
    if let Some(other) = encr.iter().find(|e| is_aead(e) != is_aead(first)) {
        let reason =
            format!("`{first}` and `{other}` need a proposal each: one brings its integrity, one does not");
        return Err(unsound(text, reason));
    }
    match (is_aead(first), integ.first()) {
        (true, Some(integ)) => {
            let mut reason = format!("`{first}` brings its own integrity, leave `{integ}` out");
            if ike && let Some(prf) = implied_prf(*integ) {
                reason += &format!(" or write `{prf}` if the PRF is meant");
            }
            Err(unsound(text, reason))
        }
        (false, None) => Err(unsound(text, format!("`{first}` without integrity; add for example `sha256`"))),
        _ => Ok(()),
    }
}

fn implied_prf(integ: Integ) -> Option<Prf> {
    Some(match integ {
        Integ::HMAC_SHA1_96 => Prf::HMAC_SHA1,
        Integ::AES_XCBC_96 => Prf::AES128_XCBC,
        Integ::AES_CMAC_96 => Prf::AES128_CMAC,
        Integ::HMAC_SHA2_256_128 => Prf::HMAC_SHA2_256,
        Integ::HMAC_SHA2_384_192 => Prf::HMAC_SHA2_384,
        Integ::HMAC_SHA2_512_256 => Prf::HMAC_SHA2_512,
        _ => return None,
    })
}

impl FromStr for IkeProposal {
    type Err = ProposalError;

    fn from_str(text: &str) -> Result<Self, ProposalError> {
        IkeProposal::parse(text)
    }
}

impl FromStr for EspProposal {
    type Err = ProposalError;

    fn from_str(text: &str) -> Result<Self, ProposalError> {
        EspProposal::parse(text)
    }
}

impl fmt::Display for IkeProposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut dash = Dash::default();
        self.encr.iter().try_for_each(|x| dash.put(f, x))?;
        self.integ.iter().try_for_each(|x| dash.put(f, x))?;
        let implied: Vec<Prf> = self.integ.iter().filter_map(|i| implied_prf(*i)).collect();
        if self.prf != implied {
            self.prf.iter().try_for_each(|x| dash.put(f, x))?;
        }
        self.groups.iter().try_for_each(|x| dash.put(f, x))
    }
}

impl fmt::Display for EspProposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut dash = Dash::default();
        self.encr.iter().try_for_each(|x| dash.put(f, x))?;
        self.integ.iter().try_for_each(|x| dash.put(f, x))?;
        self.groups.iter().try_for_each(|x| dash.put(f, x))?;
        if self.esn == [false] {
            return Ok(());
        }
        self.esn.iter().try_for_each(|esn| dash.put(f, &if *esn { "esn" } else { "noesn" }))
    }
}

#[derive(Default)]
struct Dash(bool);

impl Dash {
    fn put(&mut self, f: &mut fmt::Formatter<'_>, what: &dyn fmt::Display) -> fmt::Result {
        if self.0 {
            f.write_str("-")?;
        }
        self.0 = true;
        what.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proposals_of_the_field_are_read_and_written_alike() {
        for text in [
            "aes128gcm16-prfsha256-x25519",
            "aes256gcm16-aes128gcm16-chacha20poly1305-prfsha384-prfsha256-ecp384-x25519",
            "aes128-sha256-modp2048",
            "aes256-sha256-prfsha384-ecp256",
            "aes128ctr-aesxcbc-modp3072",
            "aes256ccm16-prfaescmac-x448",
        ] {
            assert_eq!(IkeProposal::parse(text).unwrap().to_string(), text);
        }
        for text in [
            "aes128gcm16",
            "aes128gcm16-x25519-esn",
            "aes128-aes256-sha256-sha512-ecp256-esn-noesn",
            "aes128gmac",
            "null-sha256",
            "chacha20poly1305-noesn-esn",
        ] {
            assert_eq!(EspProposal::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn integrity_implies_its_prf_and_esn_is_off_unless_named() {
        let ike = IkeProposal::parse("aes128-sha256-sha384-modp2048").unwrap();
        assert_eq!(ike.prf, [Prf::HMAC_SHA2_256, Prf::HMAC_SHA2_384]);
        assert_eq!(IkeProposal::parse("aes128-sha1-prfsha256-modp2048").unwrap().prf, [Prf::HMAC_SHA2_256]);
        assert_eq!(EspProposal::parse("aes128gcm16").unwrap().esn, [false]);
        assert_eq!(EspProposal::parse("aes128gcm16-esn-noesn").unwrap().esn, [true, false]);
        assert_eq!(EspProposal::parse("aes128gcm16-aes128gcm16").unwrap().encr, [Encr::AES128_GCM16]);
    }

    #[test]
    fn nothing_without_integrity_can_be_written_down() {
        for text in ["aes128", "aes128ctr-x25519", "null", "null-esn"] {
            let e = EspProposal::parse(text).unwrap_err();
            assert!(e.to_string().contains("without integrity"), "{e}");
        }
        assert!(IkeProposal::parse("aes128-prfsha256-x25519").is_err());
        assert!(EspProposal::parse("aes128-none").is_err());
        for encr in Encr::ALL {
            let alone = EspProposal::parse(&encr.to_string());
            assert_eq!(alone.is_ok(), encr.info().unwrap().is_aead(), "{encr}");
        }
    }

    #[test]
    fn unsound_combinations_say_what_to_write() {
        let says = |e: ProposalError, what: &str| assert!(e.to_string().contains(what), "{e}");
        says(IkeProposal::parse("aes128gcm16-sha256-x25519").unwrap_err(), "`prfsha256`");
        says(IkeProposal::parse("aes128gcm16-x25519").unwrap_err(), "no PRF");
        says(IkeProposal::parse("aes128gcm16-prfsha256").unwrap_err(), "no key exchange");
        says(IkeProposal::parse("prfsha256-x25519").unwrap_err(), "no encryption");
        says(IkeProposal::parse("aes128-aes128gcm16-sha256-x25519").unwrap_err(), "a proposal each");
        says(IkeProposal::parse("null-sha256-x25519").unwrap_err(), "does not encrypt");
        says(IkeProposal::parse("aes128gmac-prfsha256-x25519").unwrap_err(), "does not encrypt");
        says(IkeProposal::parse("aes128gcm16-prfsha256-x25519-esn").unwrap_err(), "belongs to ESP");
        says(EspProposal::parse("aes128gcm16-prfsha256").unwrap_err(), "belongs to IKE");
        says(EspProposal::parse("").unwrap_err(), "unknown token ``");
    }

    #[test]
    fn every_name_of_the_table_is_a_token() {
        for group in
            Group::ALL.iter().filter(|g| g.info().unwrap().kind != spi::alg::GroupKind::Kem && g.0 != 0)
        {
            assert_eq!(EspProposal::parse(&format!("aes128gcm16-{group}")).unwrap().groups, [*group]);
        }
        for prf in Prf::ALL {
            assert_eq!(IkeProposal::parse(&format!("aes128gcm16-{prf}-x25519")).unwrap().prf, [*prf]);
        }
        for integ in Integ::ALL.iter().filter(|i| **i != Integ::NONE) {
            assert_eq!(EspProposal::parse(&format!("aes128-{integ}")).unwrap().integ, [*integ]);
        }
    }

    #[test]
    fn defaults_are_what_their_own_text_says() {
        for p in IkeProposal::defaults() {
            assert_eq!(IkeProposal::parse(&p.to_string()).unwrap(), p);
        }
        for p in EspProposal::defaults() {
            assert_eq!(EspProposal::parse(&p.to_string()).unwrap(), p);
        }
    }
}
