//! Fragmentation of encrypted messages (RFC 7383).
//!
//! Nothing is kept that was not authenticated, and what is kept is bounded: one message at a time for each direction,
//! [`MAX_FRAGMENTS`] fragments, [`MAX_MESSAGE`] octets.

use std::net::IpAddr;

use spi::ShortOps;
use wire::ike::{Header, Payload, SkFragment, emit_payload_chain};
use wire::numbers::PayloadType;

use crate::protect::{OpenError, Opened, Protection, SealError, parse_inside, split as split_sk};

/// Most fragments of a message that are accepted.
pub const MAX_FRAGMENTS: u16 = 64;

/// Most octets of payloads in a fragmented message.
pub const MAX_MESSAGE: usize = 65_535;

/// Fewest octets of payloads in a fragment we make, whatever the path: a wrong setting must not make thousands of them.
const MIN_CHUNK: usize = 128;

/// Octets left for an IKE message in a datagram of `fragment_size` octets with IP header. `marker`: on port 4500, where the
/// non-ESP marker takes four.
pub fn max_message(fragment_size: u16, remote: IpAddr, marker: bool) -> usize {
    let ip = if remote.to_canonical().is_ipv4() { 20 } else { 40 };
    usize::from(fragment_size).saturating_sub(ip + 8 + if marker { 4 } else { 0 })
}

/// The message as one datagram if it is no longer than `max_message` octets, else as fragments of at most that many.
///
/// # Errors
/// [`SealError::TooLong`] past 65535 octets of payloads, or a [`Fault`](spi::Fault).
pub fn split(
    ops: &dyn ShortOps,
    protection: &mut Protection,
    header: &Header,
    payloads: &[Payload],
    max_message: usize,
) -> Result<Vec<Vec<u8>>, SealError> {
    let (first, plain) = emit_payload_chain(payloads);
    if protection.sealed_len(plain.len(), false) <= max_message {
        return Ok(vec![protection.seal_plain(ops, header, first, &plain, None)?]);
    }
    if plain.len() > MAX_MESSAGE {
        return Err(SealError::TooLong);
    }
    let chunk = chunk_len(protection, max_message);
    let total = u16::try_from(plain.len().div_ceil(chunk)).map_err(|_| SealError::TooLong)?;
    let mut datagrams = Vec::with_capacity(usize::from(total));
    for (number, part) in (1..=total).zip(plain.chunks(chunk)) {
        let place = SkFragment { number, total };
        datagrams.push(protection.seal_plain(ops, header, first, part, Some(place))?);
    }
    Ok(datagrams)
}

/// Octets of payloads that fit into a fragment of `max_message` octets.
fn chunk_len(protection: &Protection, max_message: usize) -> usize {
    let block = protection.suite().block().max(1);
    let empty = protection.sealed_len(0, true) - 1usize.next_multiple_of(block);
    let room = max_message.saturating_sub(empty);
    (room / block * block).saturating_sub(1).max(MIN_CHUNK)
}

/// What became of a fragment.
#[derive(Debug, PartialEq, Eq)]
pub enum Progress {
    /// Kept; others are missing.
    Stored,
    /// Already there, or of an older way of cutting the same message: dropped.
    Ignored,
    /// The message is whole.
    Complete(Opened),
}

/// The fragments of the messages an IKE SA is receiving: one request and one response at most.
///
/// The caller has looked at the message ID before: fragments of messages outside the window do not come here.
#[derive(Default)]
pub struct Reassembly {
    request: Option<Partial>,
    response: Option<Partial>,
}

struct Partial {
    header: Header,
    total: u16,
    first_inner: PayloadType,
    /// By number, from 1.
    parts: Vec<Option<Box<[u8]>>>,
    octets: usize,
}

impl Reassembly {
    /// Nothing received.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a datagram with an SKF payload.
    ///
    /// # Errors
    /// As [`Protection::open`]; [`OpenError::NotProtected`] also for a whole SK.
    pub fn handle_fragment(
        &mut self,
        ops: &dyn ShortOps,
        protection: &Protection,
        datagram: &[u8],
    ) -> Result<Progress, OpenError> {
        let sk = split_sk(datagram)?;
        let place = sk.fragment.ok_or(OpenError::NotProtected)?;
        let slot = if sk.header.is_response() { &mut self.response } else { &mut self.request };
        let same = slot.as_ref().filter(|p| p.header.message_id == sk.header.message_id);
        if place.total > MAX_FRAGMENTS || same.is_some_and(|p| p.is_stale(place)) {
            return Ok(Progress::Ignored);
        }
        // RFC 7383 section 2.6: a fragment is authenticated before it is kept or changes anything.
        let plain = protection.open_plain(ops, datagram, &sk)?;
        let partial = match slot.take() {
            // The same number of fragments belongs to the same cut; a larger one means the peer cut anew, into smaller pieces.
            Some(p) if p.header.message_id == sk.header.message_id && p.total == place.total => {
                slot.insert(p)
            }
            _ => slot.insert(Partial::new(sk.header, place.total)),
        };
        partial.store(place.number, sk.first_inner, plain);
        if partial.octets > MAX_MESSAGE {
            *slot = None;
            return Ok(Progress::Ignored);
        }
        if !partial.is_whole() {
            return Ok(Progress::Stored);
        }
        let Some(partial) = slot.take() else { return Ok(Progress::Ignored) };
        let plain = partial.parts.iter().flatten().flat_map(|part| part.iter().copied()).collect::<Vec<u8>>();
        let payloads = parse_inside(partial.first_inner, &plain)?;
        Ok(Progress::Complete(Opened { header: partial.header, payloads }))
    }

    /// Octets of payloads that are kept.
    pub fn octets(&self) -> usize {
        self.request.iter().chain(&self.response).map(|p| p.octets).sum()
    }

    /// Forgets everything, as when the peer gave up.
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

impl Partial {
    fn new(header: Header, total: u16) -> Self {
        let parts = (0..total).map(|_| None).collect();
        Partial { header, total, first_inner: PayloadType::NONE, parts, octets: 0 }
    }

    /// Whether a fragment of this message is known already, or from a coarser cut than the one being received
    /// (RFC 7383 section 2.6): not worth decrypting.
    fn is_stale(&self, place: SkFragment) -> bool {
        place.total < self.total || (place.total == self.total && self.part(place.number).is_some())
    }

    fn part(&self, number: u16) -> Option<&[u8]> {
        self.parts.get(usize::from(number.checked_sub(1)?))?.as_deref()
    }

    fn store(&mut self, number: u16, first_inner: PayloadType, plain: Vec<u8>) {
        let Some(slot) = number.checked_sub(1).and_then(|i| self.parts.get_mut(usize::from(i))) else {
            return;
        };
        self.octets += plain.len();
        *slot = Some(plain.into());
        // RFC 7383 section 2.5: only the first fragment knows what the message begins with.
        if number == 1 {
            self.first_inner = first_inner;
        }
    }

    fn is_whole(&self) -> bool {
        self.parts.iter().all(Option::is_some)
    }
}
