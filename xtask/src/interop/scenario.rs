//! A scenario is data: who meets whom, under which configuration, and what has to come of it.

use crate::strongswan::Release;
use crate::tunnel::{Auth, Encap, End, FirstChild, KeyType, Lease, Start};
use crate::world::{self, Layout};

/// IP version.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// Where the two configurations disagree.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Disagreement {
    /// Two different shared secrets.
    Secret,
    /// The initiator calls itself something nobody was told to expect.
    Identity,
    /// The responder trusts another authority than the one that signed the initiator's certificate.
    Authority,
    /// No IKE proposal in common.
    Ike,
    /// No ESP proposal in common.
    Esp,
    /// Traffic selectors that do not meet.
    Selectors,
}

/// Words of which at least one has to stand in the log of an end that refused, or was refused.
#[derive(Clone, Copy, Debug)]
pub struct Words {
    /// In strongSwan's log.
    pub strongswan: &'static [&'static str],
    /// In ours.
    pub tussock: &'static [&'static str],
}

/// What is done, and what has to come of it.
#[derive(Clone, Copy, Debug)]
pub enum Course {
    /// Up; pings both ways; Child and IKE rekey started by either end under a stream of pings that loses none;
    /// ended by the initiator; up again; ended by the responder; each time nothing left.
    Full,
    /// Up; pings both ways; one Child and one IKE rekey under pings; ended; nothing left.
    Short,
    /// It must not come up, both logs must say why, and nothing may be left.
    Refused {
        /// Where the configurations disagree.
        over: Disagreement,
        /// What the initiator's log has to say.
        initiator: Words,
        /// What the responder's log has to say.
        responder: Words,
    },
}

/// How ESP has to be seen travelling on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OnWire {
    /// In UDP only.
    Udp,
    /// As IP protocol 50 only.
    Raw,
}

/// One scenario.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Its name, for filters and folders.
    pub name: &'static str,
    /// What it shows, one line.
    pub shows: &'static str,
    /// The part of the map it takes.
    pub layout: Layout,
    /// Which strongSwan.
    pub release: Release,
    /// How both ends prove who they are.
    pub auth: Auth,
    /// IKE proposal.
    pub ike: &'static str,
    /// ESP proposal.
    pub esp: &'static str,
    /// Outside addresses.
    pub outer: Family,
    /// Inside addresses.
    pub inner: Family,
    /// How ESP is asked to travel.
    pub encap: Encap,
    /// When the Child SA comes.
    pub first_child: FirstChild,
    /// What brings it up.
    pub start: Start,
    /// IKE fragment size in bytes, if not the default; fragments must then be seen on the wire.
    pub fragment_size: Option<u16>,
    /// What is done.
    pub course: Course,
}

/// Site to site by shared secret, everything else left alone: what scenarios are varied from.
pub const SITES: Scenario = Scenario {
    name: "",
    shows: "",
    layout: Layout::Sites,
    release: Release::Host,
    auth: Auth::Psk,
    ike: "aes128gcm16-prfsha256-x25519",
    esp: "aes128gcm16-x25519",
    outer: Family::V4,
    inner: Family::V4,
    encap: Encap::Udp,
    first_child: FirstChild::WithAuth,
    start: Start::Manual,
    fragment_size: None,
    course: Course::Full,
};

impl Scenario {
    /// Whether the host at the far end of moon's tunnel is the initiator: a roadwarrior calls home.
    pub fn far_end_calls(&self) -> bool {
        self.layout != Layout::Sites
    }

    /// What the wire has to show.
    pub fn on_wire(&self) -> OnWire {
        if self.encap == Encap::Raw { OnWire::Raw } else { OnWire::Udp }
    }

    /// Pings that have to be answered once the tunnel is up, moon's network to the far end's first: from host, to
    /// address. A roadwarrior's address is known only when it has one, and so `None`.
    pub fn pings(&self) -> [(&'static str, Option<&'static str>); 2] {
        match (self.layout, self.inner) {
            (Layout::Sites, Family::V4) => [("alice", Some(world::BOB)), ("bob", Some(world::ALICE))],
            (Layout::Sites, Family::V6) => [("alice", Some(world::BOB6)), ("bob", Some(world::ALICE6))],
            (layout, _) => [("alice", None), (layout.far_end(), Some(world::ALICE))],
        }
    }

    /// Moon's end.
    pub fn moon(&self) -> End {
        let far = self.far_id();
        let (address, peer) = match self.outer {
            Family::V4 => (world::MOON, world::SUN),
            Family::V6 => (world::MOON6, world::SUN6),
        };
        let (local, remote) = match self.inner {
            Family::V4 => (world::MOON_NET, world::SUN_NET),
            Family::V6 => (world::MOON_NET6, world::SUN_NET6),
        };
        let site = self.layout == Layout::Sites;
        let mut end = End {
            host: "moon",
            address: Some(address),
            peer_address: site.then_some(peer),
            id: "moon.lab.test".to_owned(),
            peer_id: far,
            auth: self.auth,
            peer_auth: self.auth,
            secret: SECRET.to_owned(),
            ike: self.ike.to_owned(),
            esp: self.esp.to_owned(),
            local: vec![local],
            remote: if site { vec![remote] } else { vec![] },
            lease: if site { Lease::None } else { Lease::Pool(world::POOL) },
            encap: self.encap,
            first_child: self.first_child,
            start: self.start,
            fragment_size: self.fragment_size,
        };
        if let Course::Refused { over: Disagreement::Identity, .. } = self.course {
            end.id = "mallory.lab.test".to_owned();
        }
        end
    }

    /// The far end: sun's, carol's or dave's.
    pub fn far(&self) -> End {
        let moon = self.moon();
        let site = self.layout == Layout::Sites;
        let mut end = End {
            host: self.layout.far_end(),
            address: moon.peer_address,
            peer_address: moon.address,
            id: moon.peer_id.clone(),
            peer_id: "moon.lab.test".to_owned(),
            local: if site { moon.remote.clone() } else { vec![] },
            remote: moon.local.clone(),
            lease: if site { Lease::None } else { Lease::Request },
            // Traffic starts it at moon only; the responder waits.
            start: if site { Start::Manual } else { self.start },
            ..moon
        };
        if let Course::Refused { over, .. } = self.course {
            match over {
                Disagreement::Secret => end.secret = "another secret altogether".to_owned(),
                Disagreement::Identity => {}
                Disagreement::Authority => end.peer_auth = Auth::Cert(KeyType::Ed25519),
                Disagreement::Ike => end.ike = "aes256-sha512-modp3072".to_owned(),
                Disagreement::Esp => end.esp = "aes256-sha512".to_owned(),
                Disagreement::Selectors => end.local = vec!["10.66.0.0/16"],
            }
        }
        end
    }

    fn far_id(&self) -> String {
        match self.layout {
            Layout::Sites => "sun.lab.test".to_owned(),
            Layout::Roadwarrior => "carol@lab.test".to_owned(),
            Layout::BehindNat => "dave@lab.test".to_owned(),
        }
    }
}

/// The lab's shared secret.
pub const SECRET: &str = "lab-psk-moon-sun-0123456789";
