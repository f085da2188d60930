//! The file as serde sees it: every key optional, every word with its place, nothing judged yet.

use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use toml::Spanned;

/// A word with its place.
pub(crate) type Word = Spanned<String>;

/// One word, or a list of words.
pub(crate) enum Words {
    One(String),
    Many(Vec<Word>),
}

impl Words {
    /// Each with its place.
    pub(crate) fn each(words: &Spanned<Words>) -> Vec<Word> {
        match words.get_ref() {
            Words::One(word) => vec![Spanned::new(words.span(), word.clone())],
            Words::Many(words) => words.clone(),
        }
    }
}

impl<'de> Deserialize<'de> for Words {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Words;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or a list of strings")
            }

            fn visit_str<E: serde::de::Error>(self, word: &str) -> Result<Words, E> {
                Ok(Words::One(word.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Words, A::Error> {
                let mut words = Vec::new();
                while let Some(word) = list.next_element()? {
                    words.push(word);
                }
                Ok(Words::Many(words))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// `[gateway]`
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Gateway {
    pub(crate) listen: Option<Vec<Word>>,
    pub(crate) state_dir: Option<Word>,
    pub(crate) leases: Option<Word>,
    pub(crate) user: Option<Word>,
    pub(crate) secure_user: Option<Word>,
    pub(crate) sandbox: Option<Word>,
    pub(crate) log: Option<Word>,
    pub(crate) log_format: Option<Word>,
    pub(crate) keylog: Option<Word>,
    pub(crate) cookie_threshold: Option<Spanned<u32>>,
    pub(crate) ike_sa_limit: Option<Spanned<u32>>,
    pub(crate) retransmit: Option<Spanned<Retransmit>>,
    pub(crate) keepalive: Option<Word>,
    pub(crate) tun: Option<Word>,
    pub(crate) tun_kind: Option<Word>,
    pub(crate) mtu: Option<Spanned<u16>>,
    pub(crate) mark: Option<Spanned<u32>>,
    pub(crate) workers: Option<Spanned<u16>>,
    pub(crate) sas_per_worker: Option<bool>,
    pub(crate) pin: Option<bool>,
    pub(crate) offload: Option<bool>,
    pub(crate) soft_engine: Option<Word>,
}

/// `[dispatch]`
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Dispatch {
    pub(crate) order: Option<Spanned<Vec<Word>>>,
    pub(crate) control: Option<Spanned<DispatchRow>>,
    pub(crate) ike: Option<Spanned<DispatchRow>>,
    pub(crate) critical: Option<Spanned<DispatchRow>>,
    pub(crate) esp: Option<Spanned<DispatchRow>>,
    pub(crate) stranger: Option<Spanned<DispatchRow>>,
}

/// `esp = { … }` in `[dispatch]`
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct DispatchRow {
    pub(crate) quota: Option<Spanned<usize>>,
    pub(crate) depth: Option<Spanned<usize>>,
    pub(crate) packets: Option<Vec<Word>>,
}

/// `retransmit = { … }`
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Retransmit {
    pub(crate) tries: Option<u32>,
    pub(crate) first: Option<Word>,
    pub(crate) base: Option<Spanned<f64>>,
    pub(crate) limit: Option<Word>,
}

/// `[[psk]]`
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Psk {
    pub(crate) ids: Option<Spanned<Vec<Word>>>,
    pub(crate) realm: Option<Word>,
    pub(crate) secret: Option<Word>,
    pub(crate) file: Option<Word>,
    pub(crate) hex: Option<Word>,
}

/// `[[eap]]`
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct EapUser {
    pub(crate) user: Option<Word>,
    pub(crate) password: Option<Word>,
    pub(crate) file: Option<Word>,
    pub(crate) realms: Option<Vec<Word>>,
}

/// `[realm.NAME]`; its children are read on their own.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Realm {
    pub(crate) local: Option<Vec<Word>>,
    pub(crate) remote: Option<Vec<Word>>,
    pub(crate) start: Option<Word>,
    pub(crate) encap: Option<Word>,
    pub(crate) ike: Option<Vec<Word>>,
    pub(crate) fragmentation: Option<bool>,
    pub(crate) fragment_size: Option<Spanned<u16>>,
    pub(crate) childless: Option<Word>,
    pub(crate) ike_rekey: Option<Word>,
    pub(crate) ike_reauth: Option<Word>,
    pub(crate) jitter: Option<Spanned<f64>>,
    pub(crate) unique: Option<bool>,
    pub(crate) mode: Option<Word>,
    pub(crate) cpu_share: Option<Spanned<f64>>,
    pub(crate) worker: Option<u16>,
    pub(crate) accel: Option<Spanned<Vec<Word>>>,
    pub(crate) fallback: Option<Word>,
    pub(crate) dpd: Option<Spanned<Dpd>>,
    pub(crate) local_auth: Option<Spanned<Auth>>,
    pub(crate) remote_auth: Option<Spanned<Auth>>,
    pub(crate) virtual_ip: Option<Spanned<VirtualIp>>,
    pub(crate) pool: Option<Spanned<Pool>>,
}

/// `dpd = { … }`
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Dpd {
    pub(crate) delay: Option<Word>,
    pub(crate) action: Option<Word>,
}

/// `[radius]`; its servers are read on their own.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Radius {
    pub(crate) nas_identifier: Option<Word>,
    pub(crate) nas_address: Option<Word>,
    pub(crate) timeout: Option<Word>,
    pub(crate) tries: Option<Spanned<u8>>,
    pub(crate) interim: Option<Word>,
    pub(crate) dynamic: Option<Spanned<RadiusDynamic>>,
}

/// `[[radius.server]]`
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RadiusServer {
    pub(crate) name: Option<Word>,
    pub(crate) address: Option<Word>,
    pub(crate) accounting: Option<Word>,
    pub(crate) secret: Option<Word>,
    pub(crate) file: Option<Word>,
    pub(crate) tls: Option<Spanned<RadiusTls>>,
}

/// `tls = { … }` in `[[radius.server]]`
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RadiusTls {
    pub(crate) server: Option<Word>,
    pub(crate) ca: Option<Vec<Word>>,
    pub(crate) cert: Option<Vec<Word>>,
    pub(crate) key: Option<Word>,
}

/// `dynamic = { … }` in `[radius]`
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RadiusDynamic {
    pub(crate) listen: Option<Word>,
    pub(crate) clients: Option<Vec<Word>>,
    pub(crate) secret: Option<Word>,
    pub(crate) file: Option<Word>,
    pub(crate) strict: Option<bool>,
}

/// `local_auth = { … }`, `remote_auth = { … }`
#[derive(Deserialize, Default)]
#[serde(
    deny_unknown_fields,
    default,
    expecting = "something like { method = \"psk\", id = \"moon.lab.test\" }"
)]
pub(crate) struct Auth {
    pub(crate) method: Option<Word>,
    pub(crate) id: Option<Spanned<Words>>,
    pub(crate) methods: Option<Vec<Word>>,
    pub(crate) trust: Option<Word>,
    pub(crate) cert: Option<Vec<Word>>,
    pub(crate) key: Option<Word>,
    pub(crate) ca: Option<Vec<Word>>,
    pub(crate) pubkey: Option<Word>,
    pub(crate) eap: Option<Spanned<Vec<Word>>>,
    pub(crate) eap_id: Option<Word>,
    pub(crate) eap_only: Option<Spanned<bool>>,
    pub(crate) eap_time: Option<Word>,
    pub(crate) ask_identity: Option<Spanned<bool>>,
    pub(crate) keyless: Option<Spanned<bool>>,
    pub(crate) inner: Option<Spanned<Vec<Word>>>,
    pub(crate) anonymous: Option<Word>,
    pub(crate) server: Option<Word>,
    pub(crate) radius: Option<Spanned<bool>>,
    pub(crate) url: Option<Word>,
    pub(crate) also: Option<Vec<Spanned<OwnKey>>>,
    pub(crate) intermediate: Option<Vec<Word>>,
    pub(crate) usages: Option<Vec<Word>>,
    pub(crate) revocation: Option<Word>,
    pub(crate) crl: Option<Vec<Word>>,
    pub(crate) ocsp: Option<Word>,
    pub(crate) ocsp_signer: Option<Vec<Word>>,
    pub(crate) lookup: Option<Word>,
}

/// `also = [{ … }]` in `local_auth`
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct OwnKey {
    pub(crate) cert: Option<Vec<Word>>,
    pub(crate) key: Option<Word>,
    pub(crate) url: Option<Word>,
}

/// `virtual_ip = { … }`
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct VirtualIp {
    pub(crate) request: Option<Vec<Word>>,
    pub(crate) dns: Option<Word>,
}

/// `pool = { … }`
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Pool {
    pub(crate) ipv4: Option<Word>,
    pub(crate) ipv6: Option<Word>,
    pub(crate) ranges: Option<Vec<Word>>,
    pub(crate) reserve: Option<super::pool::Reserve>,
    pub(crate) hold: Option<Word>,
    pub(crate) dhcp: Option<Spanned<DhcpPool>>,
    pub(crate) dhcp6: Option<Spanned<DhcpPool>>,
    pub(crate) granted_outside: Option<bool>,
    pub(crate) proxy: Option<Word>,
    pub(crate) dns: Option<Vec<Word>>,
    pub(crate) domains: Option<Vec<Word>>,
    pub(crate) nbns: Option<Vec<Word>>,
    pub(crate) subnets: Option<Vec<Word>>,
}

/// `dhcp = "eth1"` or `dhcp = { … }` in a pool, and `dhcp6` alike
pub(crate) enum DhcpPool {
    Device(String),
    Relay(DhcpRelay),
}

/// A server, and our address in the network the addresses are of.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct DhcpRelay {
    pub(crate) server: Option<Word>,
    pub(crate) relay: Option<Word>,
}

impl<'de> Deserialize<'de> for DhcpPool {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = DhcpPool;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a device, or { server = …, relay = … }")
            }

            fn visit_str<E: serde::de::Error>(self, word: &str) -> Result<DhcpPool, E> {
                Ok(DhcpPool::Device(word.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<DhcpPool, A::Error> {
                DhcpRelay::deserialize(MapAccessDeserializer::new(map)).map(DhcpPool::Relay)
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// `[[realm.NAME.child]]`
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Child {
    pub(crate) name: Option<Word>,
    pub(crate) mode: Option<Word>,
    pub(crate) local: Option<Vec<Word>>,
    pub(crate) remote: Option<Vec<Word>>,
    pub(crate) esp: Option<Vec<Word>>,
    pub(crate) start: Option<Word>,
    pub(crate) on_down: Option<Word>,
    pub(crate) rekey: Option<Word>,
    pub(crate) rekey_bytes: Option<Word>,
    pub(crate) rekey_packets: Option<Spanned<u64>>,
    pub(crate) jitter: Option<Spanned<f64>>,
    pub(crate) replay_window: Option<Spanned<u32>>,
    pub(crate) tfc: Option<Spanned<u16>>,
    pub(crate) dummy: Option<Word>,
    pub(crate) copy_df: Option<bool>,
    pub(crate) copy_dscp: Option<bool>,
    pub(crate) tun: Option<Word>,
}

/// `[[policy]]`
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Policy {
    pub(crate) action: Option<Word>,
    pub(crate) local: Option<Vec<Word>>,
    pub(crate) remote: Option<Vec<Word>>,
    pub(crate) priority: Option<Spanned<u32>>,
}
