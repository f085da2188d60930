//! Realms for tests: node 0 is moon at 192.168.0.1 with 10.1.0.0/16, node 1 is sun at 192.168.0.2 with 10.2.0.0/16.

use std::net::IpAddr;
use std::time::Duration;

use policy::{
    AuthPolicy, Child, ChildMode, Childless, Dpd, DpdAction, Encap, EspProposal, IdMatch, Identity,
    IkeProposal, Lifetime, Realm, RemoteAddress, SelectorSpec, Start, VirtualIpRequest,
};

pub fn address(node: usize) -> IpAddr {
    IpAddr::from([192, 168, 0, 1 + node as u8])
}

pub fn id(node: usize) -> Identity {
    Identity::parse(["moon.lab.test", "sun.lab.test"][node]).expect("a name")
}

pub fn specs(texts: &[&str]) -> Vec<SelectorSpec> {
    texts.iter().map(|t| SelectorSpec::parse(t).expect("a selector")).collect()
}

pub fn ike(texts: &[&str]) -> Vec<IkeProposal> {
    texts.iter().map(|t| IkeProposal::parse(t).expect("a proposal")).collect()
}

pub fn esp(texts: &[&str]) -> Vec<EspProposal> {
    texts.iter().map(|t| EspProposal::parse(t).expect("a proposal")).collect()
}

pub fn child(node: usize, name: &str) -> Child {
    let nets = ["10.1.0.0/16", "10.2.0.0/16"];
    Child {
        name: name.into(),
        mode: ChildMode::Tunnel,
        local: specs(&[nets[node]]),
        remote: specs(&[nets[1 - node]]),
        esp: esp(&["aes128gcm16-x25519", "aes128gcm16"]),
        start: Start::Manual,
        rekey: Lifetime::of(Duration::ZERO),
        replay_window: 64,
        tfc: 0,
        copy_df: false,
        copy_dscp: false,
        tun: "".into(),
    }
}

/// Realm `r` of a node, with child `net`. No timers run.
pub fn realm(node: usize) -> Realm {
    Realm {
        name: "r".into(),
        local: vec![address(node)],
        remote: vec![RemoteAddress::Host(address(1 - node))],
        ike: ike(&["aes128gcm16-prfsha256-x25519"]),
        local_id: id(node),
        local_auth: AuthPolicy::Psk,
        aliases: vec![],
        remote_id: IdMatch::Exact(id(1 - node)).into(),
        remote_auth: AuthPolicy::Psk,
        eap: ::policy::EapPolicy::default(),
        methods: vec![],
        children: vec![child(node, "net")],
        start: Start::Manual,
        encap: Encap::Raw,
        fragmentation: true,
        fragment_size: 1280,
        childless: Childless::Allow,
        ike_rekey: Lifetime::of(Duration::ZERO),
        ike_reauth: Lifetime::of(Duration::ZERO),
        dpd: Dpd { delay: Duration::ZERO, action: DpdAction::Clear },
        virtual_ip: VirtualIpRequest::default(),
        pool: None,
        unique: false,
        worker: None,
    }
}

/// A lifetime by time, with jitter.
pub fn lives(seconds: u64) -> Lifetime {
    Lifetime { hard_factor: 2.0, jitter: 0.2, ..Lifetime::of(Duration::from_secs(seconds)) }
}
