//! Choosing among proposals (RFC 7296 sections 2.7 and 3.3).
//!
//! The responder's order decides: the first of our proposals that any of the peer's satisfies, and in it the first of our
//! algorithms that the peer has. One exception saves a round trip: a key exchange method that the peer already sent a public
//! value for is taken, wherever in that proposal it stands. An operator who minds writes two proposals.
//!
//! Three rules of section 3.3.6 run through everything below: an unknown transform type makes the whole proposal
//! unacceptable, an unknown transform ID or attribute only that transform, and an answer has exactly one transform of each
//! type that was offered.

use std::fmt;

use policy::{EspProposal, IkeProposal};
use spi::alg::EncrKind;
use spi::{Encr, Group, Integ, Prf};
use wire::ike::{Notify, Proposal, Sa, Spi, Transform};
use wire::numbers::{NotifyType, ProtocolId, TransformType};

use crate::keymat::IkeSuite;

/// What the responder of an IKE_SA_INIT or of an IKE rekey chose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChosenIke {
    /// The algorithms. If the KE payload is for another group than this one, INVALID_KE_PAYLOAD names it
    /// ([`invalid_ke`]).
    pub suite: IkeSuite,
    /// The peer's SPI: zero in IKE_SA_INIT, where the header has it.
    pub spi: Spi,
    /// The SA payload to answer with.
    pub answer: Sa,
}

/// What was chosen for a Child SA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EspSuite {
    /// Encryption.
    pub encr: Encr,
    /// Integrity; [`Integ::NONE`] with combined modes.
    pub integ: Integ,
    /// Extended sequence numbers.
    pub esn: bool,
    /// Key exchange method, when there is perfect forward secrecy.
    pub group: Option<Group>,
}

impl fmt::Display for EspSuite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let integ = Some(self.integ).filter(|i| *i != Integ::NONE).into_iter().collect();
        let groups = self.group.into_iter().collect();
        EspProposal { encr: vec![self.encr], integ, groups, esn: vec![self.esn] }.fmt(f)
    }
}

/// What the responder chose for a Child SA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChosenEsp {
    /// The algorithms. With a group, the KE payload must be for it, else INVALID_KE_PAYLOAD names it.
    pub suite: EspSuite,
    /// The peer's inbound SPI.
    pub spi: u32,
    /// The SA payload to answer with, our inbound SPI in it.
    pub answer: Sa,
}

/// NO_PROPOSAL_CHOSEN, and for the log what there was to choose from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoChoice {
    /// What the peer offered, bounded in length.
    pub offered: String,
    /// What we accept.
    pub accepted: String,
}

impl fmt::Display for NoChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the peer offers {}; we accept {}", self.offered, self.accepted)
    }
}

impl std::error::Error for NoChoice {}

/// Why an answer to our offer is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BadAnswer {
    /// There must be one proposal.
    NotOneProposal,
    /// Its number is none of ours, or the protocol is another one.
    NotOffered,
    /// The SPI has the wrong length, or may not be used.
    BadSpi,
    /// A transform we did not offer, two of a type, or none of a type that was needed.
    BadTransforms,
}

impl fmt::Display for BadAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BadAnswer::NotOneProposal => "the answer does not have one proposal",
            BadAnswer::NotOffered => "the answer repeats none of our proposals",
            BadAnswer::BadSpi => "the answer has an impossible SPI",
            BadAnswer::BadTransforms => "the answer has other algorithms than we offered",
        })
    }
}

impl std::error::Error for BadAnswer {}

// ---- IKE ----

/// The SA payload to offer. `spi`: our new SPI when rekeying, `None` in IKE_SA_INIT.
pub fn offer_ike(ours: &[IkeProposal], spi: Option<Spi>) -> Sa {
    let spi = ike_spi_bytes(spi);
    offer(ours.iter().flat_map(Wanted::of_ike), ProtocolId::IKE, &spi)
}

/// Chooses as responder. `our_spi`: our new SPI when an IKE SA is being rekeyed, `None` in IKE_SA_INIT. `ke`: the group of
/// the peer's KE payload.
///
/// # Errors
/// [`NoChoice`]: answer NO_PROPOSAL_CHOSEN.
pub fn choose_ike(
    ours: &[IkeProposal],
    theirs: &Sa,
    our_spi: Option<Spi>,
    ke: Option<Group>,
) -> Result<ChosenIke, NoChoice> {
    for wanted in ours.iter().flat_map(Wanted::of_ike) {
        for proposal in theirs.proposals.iter().filter(|p| p.protocol == ProtocolId::IKE) {
            let Some(spi) = ike_spi(proposal, our_spi.is_some()) else { continue };
            let Some(picked) = wanted.pick(proposal, ke) else { continue };
            let Some(suite) = picked.ike_suite() else { continue };
            let answer = picked.answer(proposal, &ike_spi_bytes(our_spi));
            return Ok(ChosenIke { suite, spi, answer });
        }
    }
    Err(NoChoice { offered: describe(theirs), accepted: list(ours.iter().map(IkeProposal::to_string)) })
}

/// Checks the responder's answer. The SPI is zero in IKE_SA_INIT.
///
/// # Errors
/// [`BadAnswer`]: the exchange failed.
pub fn check_ike_answer(offered: &Sa, answer: &Sa) -> Result<(IkeSuite, Spi), BadAnswer> {
    let (offered, answer) = one_answer(offered, answer)?;
    let spi = ike_spi(answer, !offered.spi.is_empty()).ok_or(BadAnswer::BadSpi)?;
    let suite = Picked::of_answer(offered, answer).and_then(|p| p.ike_suite());
    Ok((suite.ok_or(BadAnswer::BadTransforms)?, spi))
}

/// The group to send a public value for in the first try.
pub fn first_group(ours: &[IkeProposal]) -> Option<Group> {
    ours.iter().flat_map(|p| &p.groups).copied().find(|g| *g != Group::NONE)
}

// ---- ESP ----

/// The SA payload to offer for a Child SA; `spi` is our inbound one. Without `with_pfs`, as in IKE_AUTH, key exchange
/// methods are left out (RFC 7296 section 1.2), and proposals that then say the same are said once.
pub fn offer_esp(ours: &[EspProposal], spi: u32, with_pfs: bool) -> Sa {
    offer(ours.iter().flat_map(|p| Wanted::of_esp(p, with_pfs)), ProtocolId::ESP, &spi.to_be_bytes())
}

/// Chooses as responder; `our_spi` is our inbound SPI. `ke`: the group of the peer's KE payload. Without `with_pfs`, as in
/// IKE_AUTH, key exchange methods in the offer count for nothing.
///
/// # Errors
/// [`NoChoice`]: answer NO_PROPOSAL_CHOSEN.
pub fn choose_esp(
    ours: &[EspProposal],
    theirs: &Sa,
    our_spi: u32,
    with_pfs: bool,
    ke: Option<Group>,
) -> Result<ChosenEsp, NoChoice> {
    for wanted in ours.iter().flat_map(|p| Wanted::of_esp(p, with_pfs)) {
        for proposal in theirs.proposals.iter().filter(|p| p.protocol == ProtocolId::ESP) {
            let Some(spi) = child_spi(proposal) else { continue };
            let Some(picked) = wanted.pick(proposal, ke) else { continue };
            let suite = picked.esp_suite();
            let answer = picked.answer(proposal, &our_spi.to_be_bytes());
            return Ok(ChosenEsp { suite, spi, answer });
        }
    }
    Err(NoChoice {
        offered: describe(theirs),
        accepted: list(ours.iter().map(|p| without_pfs(p, with_pfs).to_string())),
    })
}

/// Checks the responder's answer: the algorithms, and the peer's inbound SPI.
///
/// # Errors
/// [`BadAnswer`]: the Child SA failed.
pub fn check_esp_answer(offered: &Sa, answer: &Sa) -> Result<(EspSuite, u32), BadAnswer> {
    let (offered, answer) = one_answer(offered, answer)?;
    let spi = child_spi(answer).ok_or(BadAnswer::BadSpi)?;
    let picked = Picked::of_answer(offered, answer).ok_or(BadAnswer::BadTransforms)?;
    Ok((picked.esp_suite(), spi))
}

/// The group to send a public value for in the first try; `None`: send no KE payload.
pub fn first_esp_group(ours: &[EspProposal]) -> Option<Group> {
    // The first proposal is the one we hope for: if it goes without, so do we.
    ours.first()?.groups.first().copied().filter(|g| *g != Group::NONE)
}

// ---- INVALID_KE_PAYLOAD ----

/// The notification that asks for a public value of another group (RFC 7296 section 1.2).
pub fn invalid_ke(group: Group) -> Notify {
    Notify::with_data(NotifyType::INVALID_KE_PAYLOAD, group.0.to_be_bytes().to_vec())
}

/// The group the peer asks for instead of `tried`, if it is one we offered: a notification nobody authenticated must not
/// lead us to another (RFC 7296 section 2.7).
pub fn retry_group(offered: &Sa, tried: Group, notify: &Notify) -> Option<Group> {
    let asked = Group(notify.data_u16()?);
    let offered = offered.proposals.iter().flat_map(|p| p.of_kind(TransformType::KE));
    let known = asked != Group::NONE && asked != tried && asked.info().is_some();
    offered.map(|t| t.id).any(|id| id == asked.0).then_some(asked).filter(|_| known)
}

// ---- how it is done ----

/// One proposal of ours whose encryption is either all combined modes or none (RFC 5282 section 8 keeps the two apart).
/// Every list is in order of preference.
#[derive(PartialEq)]
struct Wanted {
    encr: Vec<Encr>,
    /// [`Integ::NONE`] alone with combined modes.
    integ: Vec<Integ>,
    /// Empty for ESP.
    prf: Vec<Prf>,
    /// [`Group::NONE`] where it may be left out; empty where it does not count.
    groups: Vec<Group>,
    /// Empty for IKE.
    esn: Vec<bool>,
}

impl Wanted {
    fn of_ike(p: &IkeProposal) -> Vec<Wanted> {
        let groups: Vec<Group> = p.groups.iter().copied().filter(|g| *g != Group::NONE).collect();
        // An SK payload that is not encrypted does not exist (RFC 7296 section 3.14, RFC 4543 section 1).
        let hides = |e: &Encr| e.info().is_some_and(|i| !matches!(i.kind, EncrKind::Null | EncrKind::Gmac));
        let encr: Vec<Encr> = p.encr.iter().copied().filter(hides).collect();
        Self::by_kind(&encr, &p.integ, &p.prf, &groups, &[])
    }

    fn of_esp(p: &EspProposal, with_pfs: bool) -> Vec<Wanted> {
        let groups: &[Group] = match (with_pfs, p.groups.as_slice()) {
            (false, _) => &[],
            (true, []) => &[Group::NONE],
            (true, groups) => groups,
        };
        let esn: &[bool] = if p.esn.is_empty() { &[false] } else { &p.esn };
        Self::by_kind(&p.encr, &p.integ, &[], groups, esn)
    }

    fn by_kind(encr: &[Encr], integ: &[Integ], prf: &[Prf], groups: &[Group], esn: &[bool]) -> Vec<Wanted> {
        let is_aead = |e: &Encr| e.info().is_some_and(|i| i.is_aead());
        // The kind preferred comes first.
        let first = encr.first().is_some_and(is_aead);
        let mut wanted = Vec::new();
        for aead in [first, !first] {
            let encr: Vec<Encr> = encr.iter().copied().filter(|e| is_aead(e) == aead).collect();
            // RFC 8221 section 4: encryption without integrity is never offered and never accepted.
            let integ = match aead {
                true => vec![Integ::NONE],
                false => integ.iter().copied().filter(|i| *i != Integ::NONE).collect(),
            };
            if !encr.is_empty() && !integ.is_empty() {
                let (prf, groups, esn) = (prf.to_vec(), groups.to_vec(), esn.to_vec());
                wanted.push(Wanted { encr, integ, prf, groups, esn });
            }
        }
        wanted
    }

    /// All transforms, as they are offered. What is left out because it is the only one and none: integrity with combined
    /// modes, the group where there is no key exchange.
    fn transforms(&self) -> Vec<Transform> {
        let mut all = Vec::new();
        for encr in &self.encr {
            all.push(match encr.key_bits {
                0 => Transform::new(TransformType::ENCR, encr.id),
                bits => Transform::with_key_bits(TransformType::ENCR, encr.id, bits),
            });
        }
        if self.integ != [Integ::NONE] {
            all.extend(self.integ.iter().map(|i| Transform::new(TransformType::INTEG, i.0)));
        }
        all.extend(self.prf.iter().map(|p| Transform::new(TransformType::PRF, p.0)));
        if self.groups != [Group::NONE] {
            all.extend(self.groups.iter().map(|g| Transform::new(TransformType::KE, g.0)));
        }
        all.extend(self.esn.iter().map(|esn| Transform::new(TransformType::SN, u16::from(*esn))));
        all
    }

    /// What of this proposal of ours is in one of the peer's; `None`: something is missing.
    fn pick(&self, theirs: &Proposal, ke: Option<Group>) -> Option<Picked> {
        let ike = theirs.protocol == ProtocolId::IKE;
        if !theirs.transforms.iter().all(|t| belongs(t.kind, ike)) {
            return None;
        }
        let encr = self.encr.iter().copied().find(|e| has_encr(theirs, *e))?;
        let integ = self.integ.iter().copied().find(|i| has_or_lacks(theirs, TransformType::INTEG, i.0))?;
        let prf = match self.prf.as_slice() {
            [] => None,
            prfs => Some(prfs.iter().copied().find(|p| has(theirs, TransformType::PRF, p.0))?),
        };
        let group = match self.groups.as_slice() {
            [] => Group::NONE,
            groups => {
                let usable = |g: &Group| has_or_lacks(theirs, TransformType::KE, g.0);
                let sent = ke.filter(|g| groups.contains(g) && usable(g));
                sent.or_else(|| groups.iter().copied().find(usable))?
            }
        };
        let esn = match self.esn.as_slice() {
            [] => false,
            // RFC 7296 section 3.3.3 asks for the type; where it is left out there are no extended numbers.
            wanted => {
                wanted.iter().copied().find(|esn| has_or_lacks(theirs, TransformType::SN, u16::from(*esn)))?
            }
        };
        Some(Picked { encr, integ, prf, group, esn })
    }
}

/// One algorithm of each type.
struct Picked {
    encr: Encr,
    integ: Integ,
    prf: Option<Prf>,
    group: Group,
    esn: bool,
}

impl Picked {
    /// Reads the algorithms of an answer, which must be one transform for each type that was offered, from among those
    /// offered. A type whose NONE was offered, or that was not offered at all, may be missing or say NONE.
    fn of_answer(offered: &Proposal, answer: &Proposal) -> Option<Picked> {
        let known = answer.transforms.iter().all(|t| belongs(t.kind, answer.protocol == ProtocolId::IKE));
        let encr = one(answer, TransformType::ENCR).ok()??;
        let encr = Encr { id: encr.id, key_bits: encr.key_bits().unwrap_or(0) };
        if !known || !has_encr(offered, encr) || !has_encr(answer, encr) {
            return None;
        }
        let plain = |kind| {
            let id = match one(answer, kind).ok()? {
                Some(t) if !t.attributes.is_empty() => return None,
                Some(t) => t.id,
                None => 0,
            };
            has_or_lacks(offered, kind, id).then_some(id)
        };
        let prf = match one(answer, TransformType::PRF).ok()? {
            Some(_) => Some(Prf(plain(TransformType::PRF)?)),
            None => None,
        };
        let integ = Integ(plain(TransformType::INTEG)?);
        let group = Group(plain(TransformType::KE)?);
        let esn = plain(TransformType::SN)? == 1;
        // RFC 5282 section 8: the two kinds of encryption come from different proposals, so a mixture was not offered.
        let aead = encr.info()?.is_aead();
        (aead == (integ == Integ::NONE)).then_some(Picked { encr, integ, prf, group, esn })
    }

    fn ike_suite(&self) -> Option<IkeSuite> {
        let (prf, group) = (self.prf?, self.group);
        (group != Group::NONE).then_some(IkeSuite { encr: self.encr, integ: self.integ, prf, group })
    }

    fn esp_suite(&self) -> EspSuite {
        let group = Some(self.group).filter(|g| *g != Group::NONE);
        EspSuite { encr: self.encr, integ: self.integ, esn: self.esn, group }
    }

    /// The proposal with everything else left out, and our SPI in it. NONE is repeated where the peer wrote it down
    /// (RFC 7296 section 3.3.6).
    fn answer(&self, theirs: &Proposal, our_spi: &[u8]) -> Sa {
        let chosen = |t: &&Transform| match t.kind {
            TransformType::ENCR => is_encr(t, self.encr),
            TransformType::INTEG => is(t, self.integ.0),
            TransformType::PRF => self.prf.is_some_and(|p| is(t, p.0)),
            TransformType::KE => is(t, self.group.0),
            TransformType::SN => is(t, u16::from(self.esn)),
            _ => false,
        };
        let mut transforms: Vec<Transform> = Vec::new();
        for t in theirs.transforms.iter().filter(chosen) {
            // A peer may write the same one twice.
            if transforms.iter().all(|before| before.kind != t.kind) {
                transforms.push(Transform { reserved: [0; 2], ..t.clone() });
            }
        }
        Sa::new(vec![Proposal::new(theirs.number, theirs.protocol, our_spi.to_vec(), transforms)])
    }
}

/// Whether a transform type has a meaning for the protocol (RFC 7296 section 3.3.3). One that has none makes the proposal
/// unacceptable (section 3.3.6).
fn belongs(kind: TransformType, ike: bool) -> bool {
    match kind {
        TransformType::ENCR | TransformType::INTEG | TransformType::KE => true,
        TransformType::PRF => ike,
        TransformType::SN => !ike,
        _ => false,
    }
}

fn is(t: &Transform, id: u16) -> bool {
    // An attribute we don't know, or a key length where the key has one size, makes another algorithm of it.
    t.id == id && t.attributes.is_empty()
}

fn is_encr(t: &Transform, encr: Encr) -> bool {
    t.id == encr.id && t.key_bits().unwrap_or(0) == encr.key_bits && !t.has_unknown_attribute()
}

fn has_encr(p: &Proposal, encr: Encr) -> bool {
    p.of_kind(TransformType::ENCR).any(|t| is_encr(t, encr))
}

fn has(p: &Proposal, kind: TransformType, id: u16) -> bool {
    p.of_kind(kind).any(|t| is(t, id))
}

/// Transform ID 0 is NONE, and the same as leaving the type out.
fn has_or_lacks(p: &Proposal, kind: TransformType, id: u16) -> bool {
    has(p, kind, id) || (id == 0 && p.of_kind(kind).next().is_none())
}

/// The one transform of a type.
fn one(p: &Proposal, kind: TransformType) -> Result<Option<&Transform>, ()> {
    let mut of_kind = p.of_kind(kind);
    match (of_kind.next(), of_kind.next()) {
        (first, None) => Ok(first),
        _ => Err(()),
    }
}

fn offer(wanted: impl Iterator<Item = Wanted>, protocol: ProtocolId, spi: &[u8]) -> Sa {
    let mut said: Vec<Vec<Transform>> = Vec::new();
    for wanted in wanted {
        let transforms = wanted.transforms();
        if !said.contains(&transforms) {
            said.push(transforms);
        }
    }
    let numbered = (1..=u8::MAX).zip(said);
    Sa::new(numbered.map(|(n, transforms)| Proposal::new(n, protocol, spi.to_vec(), transforms)).collect())
}

fn one_answer<'a>(offered: &'a Sa, answer: &'a Sa) -> Result<(&'a Proposal, &'a Proposal), BadAnswer> {
    let [answer] = answer.proposals.as_slice() else { return Err(BadAnswer::NotOneProposal) };
    let same = |p: &&Proposal| p.number == answer.number && p.protocol == answer.protocol;
    Ok((offered.proposals.iter().find(same).ok_or(BadAnswer::NotOffered)?, answer))
}

/// The SPI of an IKE proposal: none in IKE_SA_INIT, 8 octets and not zero when rekeying (RFC 7296 section 3.3.1).
fn ike_spi(p: &Proposal, rekey: bool) -> Option<Spi> {
    match (rekey, p.spi.is_empty()) {
        (false, true) => Some(Spi::ZERO),
        (true, false) => p.ike_spi().filter(|spi| !spi.is_zero()),
        _ => None,
    }
}

/// RFC 4303 section 2.1: 0 is never used, 1 to 255 are reserved.
fn child_spi(p: &Proposal) -> Option<u32> {
    p.child_spi().filter(|spi| *spi > 255)
}

fn ike_spi_bytes(spi: Option<Spi>) -> Vec<u8> {
    spi.map_or(Vec::new(), |spi| spi.to_bytes().to_vec())
}

// ---- text for people ----

/// Longest text about an offer; a peer decides how long the offer is.
const MAX_TEXT: usize = 400;

fn describe(theirs: &Sa) -> String {
    list(theirs.proposals.iter().map(|p| {
        let names =
            p.transforms.iter().filter(|t| t.kind != TransformType::SN || t.id != 0).map(|t| match t.kind {
                TransformType::ENCR => Encr { id: t.id, key_bits: t.key_bits().unwrap_or(0) }.to_string(),
                TransformType::INTEG => Integ(t.id).to_string(),
                TransformType::PRF => Prf(t.id).to_string(),
                TransformType::KE => Group(t.id).to_string(),
                TransformType::SN => "esn".to_owned(),
                kind => format!("{kind}:{}", t.id),
            });
        join(names, "-")
    }))
}

fn without_pfs(p: &EspProposal, with_pfs: bool) -> EspProposal {
    let groups = if with_pfs { p.groups.clone() } else { Vec::new() };
    EspProposal { groups, ..p.clone() }
}

fn list(texts: impl Iterator<Item = String>) -> String {
    match join(texts, ", ") {
        nothing if nothing.is_empty() => "nothing".to_owned(),
        some => some,
    }
}

/// Joins until [`MAX_TEXT`] is reached; says so when it stops.
fn join(texts: impl Iterator<Item = String>, separator: &str) -> String {
    let mut out = String::new();
    for text in texts {
        if out.len() > MAX_TEXT {
            out.push('…');
            break;
        }
        if !out.is_empty() {
            out.push_str(separator);
        }
        out.push_str(&text);
    }
    out
}

#[cfg(test)]
mod tests;
