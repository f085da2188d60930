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
    request: Option<Box<Partial>>,
    response: Option<Box<Partial>>,
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
            _ => slot.insert(Box::new(Partial::new(sk.header, place.total))),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protect::tests::{SUITES, ends, ops, request};
    use proptest::prelude::*;
    use wire::ike::{Body, Flags, Notify, Unknown, Vendor, skf_prefix};
    use wire::numbers::NotifyType;

    fn notify(len: usize) -> Payload {
        Notify::with_data(NotifyType::INITIAL_CONTACT, (0..len).map(|i| i as u8).collect()).into()
    }

    fn cut(a: &mut Protection, id: u32, len: usize, max: usize) -> Vec<Vec<u8>> {
        split(&*ops(), a, &request(id), &[notify(len)], max).unwrap()
    }

    fn feed(r: &mut Reassembly, b: &Protection, datagram: &[u8]) -> Result<Progress, OpenError> {
        r.handle_fragment(&*ops(), b, datagram)
    }

    fn complete(len: usize, id: u32) -> Result<Progress, OpenError> {
        let mut header = request(id);
        // The header of a fragment: what it says of itself.
        header.next_payload = PayloadType::SKF;
        Ok(Progress::Complete(Opened { header, payloads: vec![notify(len)] }))
    }

    /// The same but for the length field, which no two fragments need have in common.
    fn same(progress: Result<Progress, OpenError>, want: Result<Progress, OpenError>) -> bool {
        match (progress, want) {
            (Ok(Progress::Complete(mut a)), Ok(Progress::Complete(b))) => {
                a.header.length = b.header.length;
                a == b
            }
            (a, b) => a == b,
        }
    }

    #[test]
    fn short_message_stays_whole_and_long_one_fits_its_fragments() {
        for suite in SUITES {
            let (mut a, b) = ends(suite);
            let whole = cut(&mut a, 1, 100, 1000);
            assert_eq!(whole.len(), 1);
            assert!(b.open(&*ops(), &whole[0]).is_ok());
            for max in [300, 576, 577, 578, 1200, 1252] {
                let parts = cut(&mut a, 1, 5000, max);
                assert!(parts.len() > 4 && parts.iter().all(|p| p.len() <= max), "{suite:?} {max}");
                // No fragment could have been left out.
                assert!(parts[0].len() + suite.block() > max, "{suite:?} {max}");
                let mut r = Reassembly::new();
                let (last, front) = parts.split_last().unwrap();
                for part in front {
                    assert_eq!(feed(&mut r, &b, part), Ok(Progress::Stored));
                }
                assert!(same(feed(&mut r, &b, last), complete(5000, 1)), "{suite:?} {max}");
                assert_eq!(r.octets(), 0);
            }
        }
    }

    #[test]
    fn exactly_fitting_message_is_not_cut() {
        for suite in SUITES {
            let (mut a, _) = ends(suite);
            for len in 0..64 {
                let need = a.sealed_len(8 + len, false);
                assert_eq!(cut(&mut a, 1, len, need).len(), 1, "{suite:?} {len}");
            }
        }
    }

    #[test]
    fn tiny_limit_does_not_make_a_storm() {
        let (mut a, b) = ends(SUITES[0]);
        let parts = cut(&mut a, 1, 5000, 0);
        assert_eq!(parts.len(), 5008usize.div_ceil(MIN_CHUNK));
        let mut r = Reassembly::new();
        let done: Vec<_> = parts.iter().map(|p| feed(&mut r, &b, p)).collect();
        assert!(same(done.into_iter().next_back().unwrap(), complete(5000, 1)));
        let long = [notify(60_000), notify(5_600)];
        assert_eq!(split(&*ops(), &mut a, &request(1), &long, 1200), Err(SealError::TooLong));
    }

    #[test]
    fn room_in_a_datagram_is_what_its_headers_leave() {
        let (v4, v6) = ("192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap());
        assert_eq!(max_message(1280, v4, false), 1252);
        assert_eq!(max_message(1280, v4, true), 1248);
        assert_eq!(max_message(1280, v6, true), 1228);
        assert_eq!(max_message(1280, "::ffff:192.0.2.1".parse().unwrap(), false), 1252);
        assert_eq!(max_message(10, v6, true), 0);
    }

    #[test]
    fn order_does_not_matter_and_duplicates_are_ignored() {
        let (mut a, b) = ends(SUITES[3]);
        let parts = cut(&mut a, 7, 3000, 800);
        let mut r = Reassembly::new();
        for part in parts[1..].iter().rev() {
            assert_eq!(feed(&mut r, &b, part), Ok(Progress::Stored));
            let kept = r.octets();
            assert_eq!(feed(&mut r, &b, part), Ok(Progress::Ignored));
            assert_eq!(r.octets(), kept);
        }
        assert!(same(feed(&mut r, &b, &parts[0]), complete(3000, 7)));
    }

    #[test]
    fn duplicate_with_other_content_changes_nothing() {
        // The peer cuts another message of the same ID into as many parts; the first of each number counts.
        let (mut a, b) = ends(SUITES[0]);
        let parts = cut(&mut a, 7, 3000, 800);
        let others = split(&*ops(), &mut a, &request(7), &[Vendor(vec![0; 3004]).into()], 800).unwrap();
        assert_eq!(parts.len(), others.len());
        let mut r = Reassembly::new();
        let (last, front) = parts.split_last().unwrap();
        for (part, other) in front.iter().zip(&others) {
            assert_eq!(feed(&mut r, &b, part), Ok(Progress::Stored));
            assert_eq!(feed(&mut r, &b, other), Ok(Progress::Ignored));
        }
        assert!(same(feed(&mut r, &b, last), complete(3000, 7)));
    }

    #[test]
    fn finer_cut_starts_anew_and_coarser_one_is_dropped() {
        let (mut a, b) = ends(SUITES[0]);
        let (coarse, fine) = (cut(&mut a, 3, 3000, 1200), cut(&mut a, 3, 3000, 700));
        assert!(coarse.len() < fine.len());
        let mut r = Reassembly::new();
        for part in &coarse[..coarse.len() - 1] {
            assert_eq!(feed(&mut r, &b, part), Ok(Progress::Stored));
        }
        assert_eq!(feed(&mut r, &b, &fine[0]), Ok(Progress::Stored));
        let kept = r.octets();
        assert_eq!(feed(&mut r, &b, &coarse[coarse.len() - 1]), Ok(Progress::Ignored));
        assert_eq!(r.octets(), kept, "of the coarse cut nothing is left");
        for part in &fine[1..fine.len() - 1] {
            assert_eq!(feed(&mut r, &b, part), Ok(Progress::Stored));
        }
        assert!(same(feed(&mut r, &b, &fine[fine.len() - 1]), complete(3000, 3)));
    }

    #[test]
    fn forged_fragment_neither_stores_nor_resets() {
        let (mut a, b) = ends(SUITES[0]);
        let parts = cut(&mut a, 3, 3000, 1200);
        let mut r = Reassembly::new();
        feed(&mut r, &b, &parts[0]).unwrap();
        let kept = r.octets();
        for (id, number, total) in [(3, 2, parts.len() as u16), (3, 1, 60), (4, 1, 2), (u32::MAX, 1, 1)] {
            let place = SkFragment { number, total };
            let mut forged = skf_prefix(&request(id), &[], PayloadType::NOTIFY, place, 100).unwrap();
            forged.resize(forged.len() + 100, 7);
            assert_eq!(feed(&mut r, &b, &forged), Err(OpenError::BadIcv), "{id} {number}/{total}");
            assert_eq!(r.octets(), kept);
        }
        let (last, middle) = parts[1..].split_last().unwrap();
        middle.iter().for_each(|p| assert_eq!(feed(&mut r, &b, p), Ok(Progress::Stored)));
        assert!(same(feed(&mut r, &b, last), complete(3000, 3)));
    }

    #[test]
    fn numbers_outside_the_total_are_malformed() {
        let (mut a, b) = ends(SUITES[0]);
        let part = cut(&mut a, 3, 3000, 1200).remove(1);
        // Octets 32 and 33 are the number, 34 and 35 the total.
        for (number, total) in [(0, 3), (4, 3), (0, 0), (0xffff, 3)] {
            let mut odd = part.clone();
            odd[32..34].copy_from_slice(&u16::to_be_bytes(number));
            odd[34..36].copy_from_slice(&u16::to_be_bytes(total));
            let error = feed(&mut Reassembly::new(), &b, &odd).unwrap_err();
            assert!(matches!(error, OpenError::Malformed(_)), "{number}/{total}: {error}");
        }
    }

    #[test]
    fn totals_past_the_bound_are_dropped_unopened() {
        let (mut a, b) = ends(SUITES[0]);
        let mut r = Reassembly::new();
        for total in [MAX_FRAGMENTS + 1, 1000, u16::MAX] {
            let place = SkFragment { number: 1, total };
            let part =
                a.seal_plain(&*ops(), &request(1), PayloadType::VENDOR, &[0; 100], Some(place)).unwrap();
            assert_eq!(feed(&mut r, &b, &part), Ok(Progress::Ignored));
        }
        assert_eq!(r.octets(), 0);
    }

    #[test]
    fn fragments_too_big_together_are_forgotten() {
        let (mut a, b) = ends(SUITES[0]);
        let mut r = Reassembly::new();
        let mut most = 0;
        for number in 1..=MAX_FRAGMENTS {
            let place = SkFragment { number, total: MAX_FRAGMENTS };
            let first = if number == 1 { PayloadType::VENDOR } else { PayloadType::NONE };
            let part = a.seal_plain(&*ops(), &request(1), first, &[0; 30_000], Some(place)).unwrap();
            assert!(!matches!(feed(&mut r, &b, &part), Ok(Progress::Complete(_))));
            most = most.max(r.octets());
        }
        assert!(most <= MAX_MESSAGE);
    }

    #[test]
    fn message_stuffed_with_outer_payloads_keeps_only_its_inside() {
        let (a, b) = ends(SUITES[0]);
        let stuffing: Vec<Payload> = (0..100)
            .map(|_| Payload {
                flags: 0,
                body: Body::Unknown(Unknown { kind: PayloadType(200), bytes: vec![0; 400] }),
            })
            .collect();
        let (first, plain) = emit_payload_chain(&[notify(300)]);
        let mut r = Reassembly::new();
        let mut last = None;
        for (number, part) in (1..).zip(plain.chunks(200)) {
            let place = SkFragment { number, total: 2 };
            let suite = a.suite();
            let body_len = suite.iv_len() + part.len() + 1 + suite.icv_len();
            let mut message = skf_prefix(&request(1), &stuffing, first, place, body_len).unwrap();
            let at = message.len();
            message.extend_from_slice(&u64::from(number).to_be_bytes());
            message.extend_from_slice(part);
            message.push(0);
            a.seal_in_place(&*ops(), &mut message, at);
            last = Some(feed(&mut r, &b, &message));
            assert!(r.octets() <= 308);
        }
        assert!(matches!(last, Some(Ok(Progress::Complete(o))) if o.payloads == [notify(300)]));
        // More of them than a message may have: dropped before any work is done.
        let many: Vec<Payload> = (0..200).flat_map(|_| stuffing[..1].to_vec()).collect();
        let place = SkFragment { number: 1, total: 2 };
        let mut message = skf_prefix(&request(1), &many, first, place, 100).unwrap();
        message.resize(message.len() + 100, 0);
        assert!(matches!(feed(&mut r, &b, &message), Err(OpenError::Malformed(_))));
    }

    #[test]
    fn request_and_response_of_one_id_do_not_mix() {
        let (mut a, b) = ends(SUITES[0]);
        let response = Header { flags: Flags::INITIATOR | Flags::RESPONSE, ..request(5) };
        let requests = cut(&mut a, 5, 2000, 1200);
        let responses = split(&*ops(), &mut a, &response, &[notify(1999)], 1200).unwrap();
        let mut r = Reassembly::new();
        assert_eq!(feed(&mut r, &b, &requests[0]), Ok(Progress::Stored));
        assert_eq!(feed(&mut r, &b, &responses[1]), Ok(Progress::Stored));
        assert!(same(feed(&mut r, &b, &requests[1]), complete(2000, 5)));
        assert!(matches!(feed(&mut r, &b, &responses[0]), Ok(Progress::Complete(_))));
    }

    #[test]
    fn next_message_takes_the_place_of_an_unfinished_one() {
        let (mut a, b) = ends(SUITES[0]);
        let (old, new) = (cut(&mut a, 5, 2000, 1200), cut(&mut a, 6, 2000, 1200));
        let mut r = Reassembly::new();
        feed(&mut r, &b, &old[0]).unwrap();
        feed(&mut r, &b, &new[1]).unwrap();
        assert!(same(feed(&mut r, &b, &new[0]), complete(2000, 6)));
        assert_eq!(feed(&mut r, &b, &old[1]), Ok(Progress::Stored), "nothing of it was kept");
        r.clear();
        assert_eq!(r.octets(), 0);
    }

    #[test]
    fn malformed_whole_is_the_peers_fault() {
        let (mut a, b) = ends(SUITES[0]);
        let mut r = Reassembly::new();
        let mut done = Ok(Progress::Ignored);
        for (number, part) in [(1, &[0u8, 0, 0][..]), (2, &[200, 1, 1, 1])] {
            let place = SkFragment { number, total: 2 };
            let first = if number == 1 { PayloadType::NONCE } else { PayloadType::NONE };
            let message = a.seal_plain(&*ops(), &request(1), first, part, Some(place)).unwrap();
            done = feed(&mut r, &b, &message);
        }
        assert!(done.unwrap_err().is_authentic());
        let whole = a.seal(&*ops(), &request(1), &[]).unwrap();
        assert_eq!(feed(&mut r, &b, &whole), Err(OpenError::NotProtected));
    }

    proptest! {
        #[test]
        fn any_order_with_any_repetition_gives_the_message_once(
            suite in 0usize..7,
            len in 500usize..4000,
            max in 300usize..900,
            order in prop::collection::vec(any::<prop::sample::Index>(), 0..40),
        ) {
            let (mut a, b) = ends(SUITES[suite]);
            let parts = cut(&mut a, 1, len, max);
            prop_assume!(parts.len() > 1);
            let mut r = Reassembly::new();
            let mut done = 0;
            let order: Vec<usize> = order.iter().map(|i| i.index(parts.len())).chain(0..parts.len()).collect();
            for i in order {
                match feed(&mut r, &b, &parts[i]) {
                    Ok(Progress::Complete(opened)) => {
                        prop_assert_eq!(opened.payloads, [notify(len)]);
                        done += 1;
                    }
                    other => prop_assert!(other.is_ok()),
                }
                prop_assert!(r.octets() <= len + 8);
                if done == 1 {
                    return Ok(());
                }
            }
            prop_assert!(false, "never complete");
        }
    }
}
