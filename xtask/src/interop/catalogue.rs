//! The scenarios.

use crate::interop::scenario::{Course, Disagreement, Family, SITES, Scenario, Words};
use crate::strongswan::Release;
use crate::tunnel::{Auth, Encap, FirstChild, KeyType, Start};
use crate::world::Layout;

/// All of them, in the order they are run.
pub fn all() -> Vec<Scenario> {
    let mut list = sites();
    list.extend(roadwarriors());
    list.extend(proposals());
    list.extend(refusals());
    list
}

fn sites() -> Vec<Scenario> {
    vec![
        Scenario { name: "psk", shows: "site to site by shared secret", ..SITES },
        Scenario {
            name: "cert-ecdsa",
            shows: "site to site by ECDSA P-256 certificates",
            auth: Auth::Cert(KeyType::Ecdsa),
            ..SITES
        },
        Scenario {
            name: "cert-rsa",
            shows: "site to site by RSA-3072 certificates",
            auth: Auth::Cert(KeyType::Rsa),
            ..SITES
        },
        Scenario {
            name: "cert-ed25519",
            shows: "site to site by Ed25519 certificates",
            auth: Auth::Cert(KeyType::Ed25519),
            ..SITES
        },
        Scenario {
            name: "raw-esp",
            shows: "ESP as IP protocol 50, no UDP around it",
            encap: Encap::Raw,
            release: Release::Trixie,
            ..SITES
        },
        Scenario {
            name: "young-strongswan",
            shows: "site to site with strongSwan 6, ECDSA certificates",
            auth: Auth::Cert(KeyType::Ecdsa),
            release: Release::Trixie,
            ..SITES
        },
        Scenario {
            name: "fragments",
            shows: "IKE_AUTH with RSA certificates in fragments of 400 bytes",
            auth: Auth::Cert(KeyType::Rsa),
            fragment_size: Some(400),
            ..SITES
        },
        Scenario {
            name: "childless",
            shows: "IKE_AUTH without a Child SA, which CREATE_CHILD_SA then makes",
            first_child: FirstChild::Later,
            ..SITES
        },
        Scenario {
            name: "traffic",
            shows: "the first packet brings the tunnel up",
            start: Start::Traffic,
            // Debian 12's has user-space ESP that drops the packet and asks nobody.
            release: Release::Trixie,
            ..SITES
        },
        Scenario {
            name: "ipv6",
            shows: "IPv6 outside and inside",
            outer: Family::V6,
            inner: Family::V6,
            ..SITES
        },
        Scenario {
            name: "ipv6-in-ipv4",
            shows: "IPv6 inside, IPv4 outside",
            inner: Family::V6,
            course: Course::Short,
            ..SITES
        },
        Scenario {
            name: "ipv4-in-ipv6",
            shows: "IPv4 inside, IPv6 outside",
            outer: Family::V6,
            course: Course::Short,
            ..SITES
        },
    ]
}

fn roadwarriors() -> Vec<Scenario> {
    let carol = Scenario { layout: Layout::Roadwarrior, ..SITES };
    let dave = Scenario { layout: Layout::BehindNat, encap: Encap::Auto, ..SITES };
    vec![
        Scenario {
            name: "roadwarrior-psk",
            shows: "a client gets a virtual address, shared secret",
            ..carol.clone()
        },
        Scenario {
            name: "roadwarrior-cert",
            shows: "a client gets a virtual address, ECDSA certificates",
            auth: Auth::Cert(KeyType::Ecdsa),
            ..carol
        },
        Scenario { name: "nat-psk", shows: "the same from behind a masquerading router", ..dave.clone() },
        Scenario {
            name: "nat-cert",
            shows: "the same from behind a masquerading router, ECDSA certificates",
            auth: Auth::Cert(KeyType::Ecdsa),
            ..dave
        },
    ]
}

/// IKE and ESP suites. Every cipher kind, key exchange and hash of the default set appears on both sides of the `x`.
const SUITES: &[(&str, &str, &str)] = &[
    ("suite-gcm128-x25519", "aes128gcm16-prfsha256-x25519", "aes128gcm16"),
    ("suite-gcm256-ecp384", "aes256gcm16-prfsha384-ecp384", "aes256gcm16-ecp384"),
    ("suite-gcm256-modp3072", "aes256gcm16-prfsha512-modp3072", "aes256-sha256-modp3072"),
    ("suite-gcm192-ecp256", "aes192gcm16-prfsha256-ecp256", "aes192gcm16-ecp256"),
    ("suite-cbc128-modp2048", "aes128-sha256-modp2048", "aes128-sha256-modp2048"),
    ("suite-cbc256-modp3072", "aes256-sha512-modp3072", "aes256-sha512-modp3072"),
    ("suite-cbc192-ecp384", "aes192-sha384-ecp384", "aes192-sha384-ecp384"),
    ("suite-cbc256-x25519", "aes256-sha256-x25519", "aes256gcm16-x25519"),
    ("suite-chacha-x25519", "chacha20poly1305-prfsha256-x25519", "chacha20poly1305-x25519"),
    ("suite-chacha-ecp384", "chacha20poly1305-prfsha512-ecp384", "aes128-sha256-ecp256"),
    ("suite-ctr128-ecp256", "aes128ctr-sha256-ecp256", "aes128ctr-sha256-ecp256"),
    ("suite-ctr256-modp2048", "aes256ctr-sha512-modp2048", "aes256ctr-sha512"),
    ("suite-cbc-ike-chacha-esp", "aes128-sha256-ecp256", "chacha20poly1305"),
    ("suite-gcm-ike-ctr-esp", "aes128gcm16-prfsha256-ecp256", "aes128ctr-sha384"),
];

fn proposals() -> Vec<Scenario> {
    let suite = |&(name, ike, esp)| Scenario { name, shows: "", ike, esp, course: Course::Short, ..SITES };
    SUITES.iter().map(suite).collect()
}

fn refusals() -> Vec<Scenario> {
    vec![
        Scenario {
            name: "refused-secret",
            shows: "two different shared secrets",
            course: Course::Refused {
                over: Disagreement::Secret,
                initiator: Words {
                    strongswan: &["received AUTHENTICATION_FAILED"],
                    tussock: &["AUTHENTICATION_FAILED"],
                },
                responder: Words {
                    strongswan: &["MAC mismatched"],
                    tussock: &["`moon.lab.test` has another pre-shared key"],
                },
            },
            ..SITES
        },
        Scenario {
            name: "refused-identity",
            shows: "an initiator nobody expects",
            course: Course::Refused {
                over: Disagreement::Identity,
                initiator: Words {
                    strongswan: &["received AUTHENTICATION_FAILED"],
                    tussock: &["AUTHENTICATION_FAILED"],
                },
                responder: Words {
                    strongswan: &["no matching peer config found"],
                    tussock: &["no realm for mallory.lab.test"],
                },
            },
            ..SITES
        },
        Scenario {
            name: "refused-authority",
            shows: "a certificate from an authority the responder does not trust",
            auth: Auth::Cert(KeyType::Ecdsa),
            course: Course::Refused {
                over: Disagreement::Authority,
                initiator: Words {
                    strongswan: &["received AUTHENTICATION_FAILED"],
                    tussock: &["AUTHENTICATION_FAILED"],
                },
                responder: Words {
                    strongswan: &["no issuer certificate found", "no trusted ECDSA public key"],
                    tussock: &["no path to a trusted CA"],
                },
            },
            ..SITES
        },
        Scenario {
            name: "refused-ike-proposal",
            shows: "no IKE proposal in common",
            course: Course::Refused {
                over: Disagreement::Ike,
                initiator: Words {
                    strongswan: &["received NO_PROPOSAL_CHOSEN"],
                    tussock: &["NO_PROPOSAL_CHOSEN"],
                },
                responder: Words {
                    strongswan: &["received proposals unacceptable", "received proposals inacceptable"],
                    tussock: &["the peer offers aes128gcm16-prfsha256-x25519; we accept"],
                },
            },
            ..SITES
        },
        Scenario {
            name: "refused-esp-proposal",
            shows: "no ESP proposal in common",
            course: Course::Refused {
                over: Disagreement::Esp,
                initiator: Words {
                    strongswan: &["received NO_PROPOSAL_CHOSEN"],
                    tussock: &["NO_PROPOSAL_CHOSEN"],
                },
                responder: Words {
                    strongswan: &["no acceptable proposal found"],
                    tussock: &["the peer offers aes128gcm16; we accept"],
                },
            },
            ..SITES
        },
        Scenario {
            name: "refused-selectors",
            shows: "traffic selectors that do not meet",
            course: Course::Refused {
                over: Disagreement::Selectors,
                initiator: Words { strongswan: &["received TS_UNACCEPTABLE"], tussock: &["TS_UNACCEPTABLE"] },
                responder: Words {
                    strongswan: &["traffic selectors", "TS_UNACCEPTABLE"],
                    tussock: &["the peer asks for 10.2.0.0/16 === 10.1.0.0/16"],
                },
            },
            ..SITES
        },
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_scenario_has_a_name_of_its_own() {
        let names: Vec<_> = all().into_iter().map(|scenario| scenario.name).collect();
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
        assert!(names.iter().all(|name| !name.is_empty()));
    }

    #[test]
    fn the_matrix_has_every_cipher_kind_and_key_exchange_on_the_ike_side() {
        for token in [
            "gcm16",
            "-sha256-",
            "chacha20poly1305",
            "ctr-",
            "x25519",
            "ecp256",
            "ecp384",
            "modp2048",
            "modp3072",
        ] {
            assert!(SUITES.iter().any(|(_, ike, _)| ike.contains(token)), "{token}");
        }
        assert!(SUITES.len() >= 12);
    }
}
