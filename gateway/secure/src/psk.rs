//! Pre-shared keys: which one two identities share, and the proof made with it.

use policy::{IdMatch, Identity};
use spi::{Fault, Prf, Secret, ShortOps};

use crate::config::Psk;

/// What RFC 7296 section 2.15 keys the outer PRF with, so that a stored key is of use for IKEv2 only.
const KEY_PAD: &[u8] = b"Key Pad for IKEv2";

/// `prf(prf(secret, "Key Pad for IKEv2"), octets)`.
///
/// # Errors
/// The provider does not know the PRF.
pub(crate) fn proof(short: &dyn ShortOps, prf: Prf, secret: &[u8], octets: &[u8]) -> Result<Secret, Fault> {
    let key = short.prf(prf, secret, &[KEY_PAD])?;
    short.prf(prf, key.expose(), &[octets])
}

/// Why there is no key for two identities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoPsk {
    /// None fits.
    Unknown,
    /// The peer is not known yet, and several fit equally well.
    Ambiguous,
}

/// The key that `own` and `peer` share in a realm: the narrowest match of both, of equals the realm's own, then the first. With an unknown peer a key is
/// chosen only if no other fits as well.
pub(crate) fn find<'a>(
    psks: &'a [Psk],
    realm: &str,
    own: &Identity,
    peer: Option<&Identity>,
) -> Result<&'a Psk, NoPsk> {
    let mut best: Option<((u64, u64, bool), &Psk)> = None;
    let mut tied = false;
    for psk in psks.iter().filter(|psk| psk.realm.as_deref().is_none_or(|its| its == realm)) {
        let Some((peers, ours)) = rank(&psk.ids, own, peer) else { continue };
        let rank = (peers, ours, psk.realm.is_some());
        match best {
            Some((other, _)) if rank < other => {}
            Some((other, _)) if rank == other => tied = true,
            _ => {
                best = Some((rank, psk));
                tied = false;
            }
        }
    }
    match best {
        Some(_) if tied && peer.is_none() => Err(NoPsk::Ambiguous),
        Some((_, psk)) => Ok(psk),
        None => Err(NoPsk::Unknown),
    }
}

/// How well a list of identities fits: by the peer first, since that is what tells the keys of one gateway apart.
fn rank(ids: &[IdMatch], own: &Identity, peer: Option<&Identity>) -> Option<(u64, u64)> {
    // One more than the specificity, so that a written `any` beats nothing written.
    let fit = |m: &IdMatch, id: &Identity| m.matches(id).then(|| u64::from(m.specificity()) + 1);
    let fit_peer = |m: &IdMatch| match peer {
        Some(id) => fit(m, id),
        // Unknown: everything is possible.
        None => Some(1),
    };
    match ids {
        [] => Some((0, 0)),
        [one] => {
            let as_peer = fit_peer(one).map(|rank| (rank, 0));
            let as_own = fit(one, own).map(|rank| (0, rank));
            as_peer.max(as_own)
        }
        many => {
            let pairs = many.iter().enumerate().flat_map(|(i, mine)| {
                many.iter().enumerate().filter(move |(j, _)| i != *j).map(move |(_, theirs)| (mine, theirs))
            });
            pairs.filter_map(|(mine, theirs)| Some((fit_peer(theirs)?, fit(mine, own)?))).max()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn psk(ids: &[&str], secret: &str) -> Psk {
        let ids = ids.iter().map(|id| IdMatch::parse(id).unwrap()).collect();
        Psk { ids, realm: None, secret: Secret::from_slice(secret.as_bytes()) }
    }

    fn found(psks: &[Psk], own: &str, peer: Option<&str>) -> Result<String, NoPsk> {
        let peer = peer.map(|p| Identity::parse(p).unwrap());
        find(psks, "r", &Identity::parse(own).unwrap(), peer.as_ref())
            .map(|p| String::from_utf8(p.secret.expose().to_vec()).unwrap())
    }

    #[test]
    fn the_narrowest_pair_wins() {
        let psks = [
            psk(&[], "default"),
            psk(&["moon.lab.test", "*.lab.test"], "suffix"),
            psk(&["sun.lab.test", "moon.lab.test"], "pair"),
            psk(&["carol@lab.test"], "carol"),
            psk(&["moon.lab.test", "any"], "any"),
        ];
        assert_eq!(found(&psks, "moon.lab.test", Some("sun.lab.test")).unwrap(), "pair");
        assert_eq!(found(&psks, "sun.lab.test", Some("moon.lab.test")).unwrap(), "pair", "either order");
        assert_eq!(found(&psks, "moon.lab.test", Some("dave.lab.test")).unwrap(), "suffix");
        assert_eq!(found(&psks, "moon.lab.test", Some("carol@lab.test")).unwrap(), "carol");
        assert_eq!(found(&psks, "moon.lab.test", Some("10.0.0.1")).unwrap(), "any");
        assert_eq!(found(&psks, "sun.lab.test", Some("10.0.0.1")).unwrap(), "default");
    }

    #[test]
    fn one_entry_does_not_stand_for_both_sides() {
        let psks = [psk(&["moon.lab.test", "sun.lab.test"], "pair")];
        assert_eq!(found(&psks, "moon.lab.test", Some("moon.lab.test")), Err(NoPsk::Unknown));
        assert_eq!(found(&psks, "moon.lab.test", Some("venus.lab.test")), Err(NoPsk::Unknown));
    }

    #[test]
    fn a_peer_not_known_yet_needs_a_single_best_key() {
        let psks =
            [psk(&["moon.lab.test", "sun.lab.test"], "a"), psk(&["moon.lab.test", "venus.lab.test"], "b")];
        assert_eq!(found(&psks, "moon.lab.test", None), Err(NoPsk::Ambiguous));
        assert_eq!(found(&psks[..1], "moon.lab.test", None).unwrap(), "a");
        assert_eq!(found(&psks, "moon.lab.test", Some("venus.lab.test")).unwrap(), "b");
        assert_eq!(found(&[], "moon.lab.test", None), Err(NoPsk::Unknown));
    }

    #[test]
    fn a_realms_own_key_goes_before_one_for_all_and_into_no_other_realm() {
        let of =
            |realm: &str, secret| Psk { realm: Some(realm.into()), ..psk(&["a.test", "b.test"], secret) };
        let psks = [psk(&["a.test", "b.test"], "all"), of("r", "own"), of("s", "another")];
        assert_eq!(found(&psks, "a.test", Some("b.test")).unwrap(), "own");
        assert_eq!(found(&psks[..1], "a.test", Some("b.test")).unwrap(), "all");
        assert_eq!(found(&psks[2..], "a.test", Some("b.test")), Err(NoPsk::Unknown));
    }

    #[test]
    fn of_equals_the_first_one_counts() {
        let psks = [psk(&["a.test", "b.test"], "first"), psk(&["b.test", "a.test"], "second")];
        assert_eq!(found(&psks, "a.test", Some("b.test")).unwrap(), "first");
    }
}
