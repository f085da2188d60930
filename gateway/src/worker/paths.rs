//! What was heard of paths to peers, for SAs that come later: those of other lanes, and new ones after a rekeying.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// How long a path is taken to be as it was heard to be: the kernel's own patience (`mtu_expires`).
const GOOD_FOR: Duration = Duration::from_secs(600);
/// Peers of whom something is known at once.
const PEERS: usize = 4096;

/// Path MTUs by peer.
#[derive(Default)]
pub(super) struct Paths(HashMap<IpAddr, (u16, Instant)>);

impl Paths {
    /// An error said that the path takes no more than this.
    pub(super) fn heard(&mut self, now: Instant, remote: IpAddr, mtu: u16) {
        if self.0.len() >= PEERS {
            self.0.retain(|_, (_, at)| now.duration_since(*at) < GOOD_FOR);
        }
        if self.0.len() < PEERS || self.0.contains_key(&remote) {
            self.0.insert(remote, (mtu, now));
        }
    }

    /// What the path takes, as far as that is known.
    pub(super) fn mtu(&self, now: Instant, remote: IpAddr) -> Option<u16> {
        let (mtu, at) = self.0.get(&remote)?;
        (now.duration_since(*at) < GOOD_FOR).then_some(*mtu)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_known_for_a_while_and_there_are_only_so_many() {
        let mut paths = Paths::default();
        let now = Instant::now();
        let peer = |n: u32| IpAddr::from(n.to_be_bytes());
        (0..PEERS as u32).for_each(|n| paths.heard(now, peer(n), 1300));
        paths.heard(now, peer(99_999), 1300);
        assert_eq!((paths.0.len(), paths.mtu(now, peer(99_999))), (PEERS, None));
        paths.heard(now, peer(7), 1280);
        assert_eq!(paths.mtu(now, peer(7)), Some(1280));
        let later = now + GOOD_FOR;
        assert_eq!(paths.mtu(later, peer(7)), None);
        paths.heard(later, peer(99_999), 1300);
        assert_eq!(paths.0.len(), 1, "room is made by forgetting what is old");
    }
}
