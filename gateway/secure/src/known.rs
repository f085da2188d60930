//! Chains that were found good, remembered for as long as everything on their path is valid: a peer that comes again costs no
//! signatures but its own. What was found bad is not remembered: it may be good tomorrow.
//!
//! A chain is known by all of its octets and those of the CAs it was judged by. Revocation is none of it: that is looked at each time
//! ([`crate::revocation`]), with what is known of it then.

use std::collections::{HashMap, VecDeque};
use std::time::SystemTime;

use spi::cert::CertInfo;

/// What a chain and its CAs are known by: SHA-256 of their octets.
pub(crate) type Name = [u8; 32];

/// Chains remembered.
const MOST: usize = 4096;
/// Octets of what they said, together.
const OCTETS: usize = 16 << 20;

/// When a path is valid: from the latest beginning of what is on it to the earliest end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) from: SystemTime,
    pub(crate) until: SystemTime,
}

struct Entry {
    info: CertInfo,
    window: Window,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Known {
    entries: HashMap<Name, Entry>,
    /// Oldest first.
    order: VecDeque<Name>,
    octets: usize,
}

impl Known {
    /// What a chain said that was found good, if its path is valid at this time.
    pub(crate) fn find(&self, name: &Name, at: SystemTime) -> Option<CertInfo> {
        let entry = self.entries.get(name)?;
        (entry.window.from <= at && at <= entry.window.until).then(|| entry.info.clone())
    }

    /// A chain was found good.
    pub(crate) fn keep(&mut self, name: Name, info: CertInfo, window: Window) {
        self.forget(&name);
        self.octets += weight(&info);
        self.entries.insert(name, Entry { info, window });
        self.order.push_back(name);
        while (self.order.len() > MOST || self.octets > OCTETS)
            && let Some(oldest) = self.order.front().copied()
        {
            self.forget(&oldest);
        }
    }

    fn forget(&mut self, name: &Name) {
        if let Some(entry) = self.entries.remove(name) {
            self.octets -= weight(&entry.info);
            if let Some(place) = self.order.iter().position(|other| other == name) {
                self.order.remove(place);
            }
        }
    }
}

fn weight(info: &CertInfo) -> usize {
    let texts = info.dns.iter().chain(&info.email).map(|text| text.len() + 24).sum::<usize>();
    let path = info.path.iter().map(Vec::len).sum::<usize>();
    info.spki.len() + info.subject.len() + texts + 17 * info.addresses.len() + path
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn info(octets: usize) -> CertInfo {
        CertInfo {
            spki: vec![0; octets],
            subject: vec![],
            dns: vec![],
            email: vec![],
            addresses: vec![],
            not_after: SystemTime::UNIX_EPOCH,
            path: std::sync::Arc::default(),
        }
    }

    fn name(n: usize) -> Name {
        let mut name = [0; 32];
        name[..8].copy_from_slice(&n.to_be_bytes());
        name
    }

    fn window(from: u64, until: u64) -> Window {
        let at = |s| SystemTime::UNIX_EPOCH + Duration::from_secs(s);
        Window { from: at(from), until: at(until) }
    }

    #[test]
    fn a_chain_is_good_while_its_path_is_valid() {
        let mut known = Known::default();
        known.keep(name(1), info(5), window(10, 20));
        let good = |at| known.find(&name(1), SystemTime::UNIX_EPOCH + Duration::from_secs(at)).is_some();
        assert!(!good(9) && good(10) && good(20) && !good(21));
        assert!(known.find(&name(2), SystemTime::UNIX_EPOCH + Duration::from_secs(15)).is_none());
    }

    #[test]
    fn neither_chains_nor_octets_grow_without_bound() {
        let mut known = Known::default();
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(15);
        for n in 0..MOST + 10 {
            known.keep(name(n), info(5), window(10, 20));
        }
        assert!(known.find(&name(9), at).is_none() && known.find(&name(10), at).is_some());
        assert_eq!((known.order.len(), known.octets), (MOST, 5 * MOST));
        for n in 0..100 {
            known.keep(name(n), info(OCTETS / 10), window(10, 20));
        }
        assert!(known.octets <= OCTETS && known.order.len() == known.entries.len());
        for _ in 0..50 {
            known.keep(name(99), info(7), window(10, 20));
        }
        assert_eq!(known.order.iter().filter(|n| **n == name(99)).count(), 1);
        known.keep(name(1), info(OCTETS + 1), window(10, 20));
        assert_eq!((known.octets, known.order.len()), (0, 0), "what is too long is not kept at all");
    }
}
