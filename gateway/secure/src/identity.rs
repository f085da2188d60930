//! Whether a certificate speaks for an identity (RFC 4945 section 3.1, RFC 7296 section 4).

use policy::{Identity, dn};
use spi::cert::CertInfo;

/// Whether the verified certificate speaks for this identity: a subject alternative name of the same type, or the subject
/// itself for a DN. The common name is not looked at: RFC 4945 section 3.1.2 has host names in the alternative name only,
/// and what a CA checked before writing it into a CN is anybody's guess.
pub(crate) fn covers(info: &CertInfo, id: &Identity) -> bool {
    match id {
        // Names compare by `Identity`'s own equality, so that case is treated in one place. A wildcard stands for
        // no identity: it would let one host speak for its neighbours.
        Identity::Fqdn(_) => info.dns.iter().any(|name| Identity::parse(name).is_ok_and(|name| name == *id)),
        Identity::Email(_) => {
            info.email.iter().any(|name| Identity::parse(name).is_ok_and(|name| name == *id))
        }
        Identity::V4(address) => info.addresses.iter().any(|a| a == address),
        Identity::V6(address) => info.addresses.iter().any(|a| a == address),
        Identity::Dn(name) => dn::check(name).is_ok() && dn::canonical(name) == dn::canonical(&info.subject),
        // Opaque octets are in no certificate, and neither is nobody.
        Identity::KeyId(_) | Identity::Anonymous(_) => false,
    }
}

/// What the certificate would speak for, for the operator who sees that it does not fit.
pub(crate) fn spoken_for(info: &CertInfo) -> String {
    let mut names = vec![dn::to_text(&info.subject)];
    names.extend(info.dns.iter().chain(&info.email).cloned());
    names.extend(info.addresses.iter().map(ToString::to_string));
    let names: Vec<String> = names
        .iter()
        .filter(|name| !name.is_empty())
        .take(8)
        .map(|name| name.chars().filter(|c| !c.is_control()).take(255).collect())
        .collect();
    if names.is_empty() { "nobody".into() } else { format!("`{}`", names.join("`, `")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::SystemTime;

    fn info() -> CertInfo {
        CertInfo {
            spki: vec![],
            subject: dn::parse("C=CH, O=Lab, CN=moon.lab.test").unwrap(),
            dns: vec!["Moon.lab.test".into(), "*.wild.test".into()],
            email: vec!["carol@lab.test".into()],
            addresses: vec!["192.168.0.1".parse().unwrap(), "fec0::1".parse().unwrap()],
            not_after: SystemTime::UNIX_EPOCH,
            path: std::sync::Arc::default(),
        }
    }

    #[test]
    fn every_identity_type_has_its_own_place_in_the_certificate() {
        for yes in
            ["moon.lab.test", "carol@LAB.test", "192.168.0.1", "fec0::1", "c=ch, o=lab, cn=MOON.lab.test"]
        {
            assert!(covers(&info(), &Identity::parse(yes).unwrap()), "{yes}");
        }
        for no in [
            "sun.lab.test",
            "a.wild.test",
            "lab.test",
            "dave@lab.test",
            "192.168.0.2",
            "CN=moon.lab.test",
            "keyid:00",
        ] {
            assert!(!covers(&info(), &Identity::parse(no).unwrap()), "{no}");
        }
    }

    #[test]
    fn a_name_of_another_type_or_in_the_subject_does_not_count() {
        let bare = CertInfo { dns: vec![], email: vec![], addresses: vec![], ..info() };
        assert!(!covers(&bare, &Identity::parse("moon.lab.test").unwrap()), "the common name is no identity");
        let text = CertInfo { dns: vec!["192.168.0.1".into()], ..bare };
        assert!(!covers(&text, &Identity::parse("192.168.0.1").unwrap()));
        assert!(!covers(&text, &Identity::Fqdn("192.168.0.1".into())), "an address is no host name");
        assert_eq!(spoken_for(&text), "`C=CH, O=Lab, CN=moon.lab.test`, `192.168.0.1`");
    }
}
