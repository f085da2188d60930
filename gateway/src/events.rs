//! Everything that happens and is worth a line: typed, to the log and to whoever listens on the control socket.

use std::time::{SystemTime, UNIX_EPOCH};

use ike::{Event, Path, Why};
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;

/// Events that a slow listener may lag behind before it loses some.
const BACKLOG: usize = 1024;

/// One event with its time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Seconds since 1970.
    pub at: f64,
    /// What.
    #[serde(flatten)]
    pub notice: Notice,
}

/// What happened. Holds no secret.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Notice {
    /// The gateway runs.
    Started {
        /// Its version.
        version: String,
        /// Realms it knows.
        realms: usize,
    },
    /// It is about to end.
    Stopping {},
    /// The configuration was read again.
    Reloaded {
        /// Realms it knows now.
        realms: usize,
    },
    /// An IKE SA is up.
    IkeEstablished {
        /// Its number.
        sa: u64,
        /// Its realm.
        realm: String,
        /// The peer's identity.
        peer: String,
        /// Our address and port.
        local: String,
        /// The peer's.
        remote: String,
        /// The suite.
        suite: String,
        /// How the peer proved itself.
        how: String,
    },
    /// An IKE SA took the place of another.
    IkeRekeyed {
        /// The old one.
        old: u64,
        /// The new one.
        new: u64,
    },
    /// An IKE SA is gone, or never came up.
    IkeClosed {
        /// Its number.
        sa: u64,
        /// Its realm, when it was known.
        realm: Option<String>,
        /// The peer's address and port.
        remote: String,
        /// Why.
        why: String,
        /// Whether it ever was up.
        was_up: bool,
        /// Whether that is in the normal course of things.
        normal: bool,
    },
    /// A Child SA pair is up.
    ChildEstablished {
        /// Its number.
        child: u64,
        /// Its realm.
        realm: String,
        /// Its name.
        name: String,
        /// The suite.
        suite: String,
        /// Selectors of both sides.
        selectors: String,
        /// The pair it replaces.
        replaces: Option<u64>,
        /// The worker it is for, if it is for one alone (RFC 9611).
        resource: Option<u16>,
    },
    /// A Child SA pair is gone.
    ChildClosed {
        /// Its number.
        child: u64,
        /// Its realm.
        realm: String,
        /// Its name.
        name: String,
        /// Why.
        why: String,
    },
    /// Setting up or rekeying a Child SA failed.
    ChildFailed {
        /// Its realm.
        realm: String,
        /// Its name, when known.
        name: String,
        /// Why.
        why: String,
    },
    /// There is no Child SA for a worker alone.
    ResourceRefused {
        /// Its realm.
        realm: String,
        /// Its name.
        name: String,
        /// The worker.
        resource: u16,
        /// Why.
        why: String,
    },
    /// The peer does not answer.
    PeerDead {
        /// The IKE SA.
        sa: u64,
        /// Its realm.
        realm: String,
        /// Seconds it was silent.
        after: f64,
    },
    /// The peer is at another address.
    PeerMoved {
        /// The IKE SA.
        sa: u64,
        /// Where it is now.
        remote: String,
    },
    /// Somebody has to give a password: `tussock credentials REALM`.
    PasswordWanted {
        /// The IKE SA.
        sa: u64,
        /// Its realm.
        realm: String,
        /// Whose.
        user: String,
    },
    /// A message was dropped.
    Dropped {
        /// From whom.
        remote: String,
        /// Why.
        reason: String,
    },
    /// Strangers must return a cookie from now on, or need not any more.
    Cookies {
        /// Whether they must.
        on: bool,
        /// Half-open IKE SAs.
        half_open: usize,
    },
    /// A Child SA could not be installed.
    InstallFailed {
        /// Its realm.
        realm: String,
        /// Its name.
        name: String,
        /// Why.
        why: String,
    },
    /// The machine's network could not be changed.
    NetworkFailed {
        /// What was to be changed.
        what: String,
        /// Why not.
        why: String,
    },
    /// A device is out of order, or does not open.
    DeviceFailed {
        /// Its name.
        device: String,
        /// Why.
        why: String,
    },
    /// A device was reset.
    DeviceReset {
        /// Its name.
        device: String,
    },
    /// A device is in use, for the first time or again.
    DeviceReady {
        /// Its name.
        device: String,
    },
    /// SAs are on another device now.
    SasMoved {
        /// Where they were.
        from: String,
        /// Where they are.
        to: String,
        /// How many, each direction for itself.
        sas: usize,
    },
    /// ESP with an SPI that names nothing came in.
    UnknownSpi {
        /// The SPI, hexadecimal.
        spi: String,
        /// From whom, as far as can be believed.
        remote: String,
    },
    /// We were given inner addresses, or they were taken back.
    Addresses {
        /// The realm.
        realm: String,
        /// Which.
        ours: Vec<String>,
        /// Name servers to use with them.
        dns: Vec<String>,
        /// Domains to ask those for alone.
        #[serde(default)]
        domains: Vec<String>,
        /// Given, or taken back.
        add: bool,
    },
    /// Something has become of an address of a pool.
    Lease {
        /// The realm.
        realm: String,
        /// The address.
        address: String,
        /// Whose it is, or was.
        who: String,
        /// `held`, `idle` or `forgotten`.
        state: String,
    },
    /// The peer sent configuration that we do not act on.
    ConfigurationIgnored {
        /// The IKE SA.
        sa: u64,
        /// Its realm.
        realm: String,
        /// What, and why not.
        what: String,
    },
    /// Leases cannot be written down, or not be read.
    StoreFailed {
        /// The file.
        file: String,
        /// Why, and what follows.
        why: String,
    },
    /// They can again.
    StoreWorks {
        /// The file.
        file: String,
    },
    /// An event that this version has no words for.
    Other {
        /// As it is.
        text: String,
    },
}

impl Notice {
    /// Whether it is about an accelerator.
    pub fn is_about_devices(&self) -> bool {
        use Notice::{DeviceFailed, DeviceReady, DeviceReset, SasMoved};
        matches!(self, DeviceFailed { .. } | DeviceReset { .. } | DeviceReady { .. } | SasMoved { .. })
    }
}

/// Where events go.
#[derive(Clone)]
pub struct Events {
    to: broadcast::Sender<Record>,
}

impl Default for Events {
    fn default() -> Self {
        Events { to: broadcast::channel(BACKLOG).0 }
    }
}

impl Events {
    /// Tells of something that the engine says, if anybody wants to know. Never waits.
    pub fn tell(&self, event: Event) {
        let logged = match event {
            Event::Dropped { .. } => tracing::enabled!(tracing::Level::DEBUG),
            Event::IkeEstablished { .. } | Event::ChildEstablished { .. } => {
                tracing::enabled!(tracing::Level::INFO)
            }
            _ => true,
        };
        if logged || self.to.receiver_count() > 0 {
            self.publish(event.into());
        }
    }

    /// Tells the log and the listeners. Never waits.
    pub fn publish(&self, notice: Notice) {
        log(&notice);
        let at = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
        // Nobody may be listening.
        let _ = self.to.send(Record { at, notice });
    }

    /// Everything from now on.
    pub fn listen(&self) -> broadcast::Receiver<Record> {
        self.to.subscribe()
    }
}

impl From<Event> for Notice {
    fn from(event: Event) -> Notice {
        match event {
            Event::IkeEstablished { sa, realm, peer, path, suite, how } => {
                let Path { local, remote } = path;
                Notice::IkeEstablished {
                    sa: sa.0,
                    realm: realm.to_string(),
                    peer: peer.to_string(),
                    local: local.to_string(),
                    remote: remote.to_string(),
                    suite: suite.to_string(),
                    how: how.to_string(),
                }
            }
            Event::IkeRekeyed { old, new } => Notice::IkeRekeyed { old: old.0, new: new.0 },
            Event::IkeClosed { sa, realm, remote, why, was_up } => Notice::IkeClosed {
                sa: sa.0,
                realm: realm.map(|realm| realm.to_string()),
                remote: remote.to_string(),
                normal: matches!(why, Why::Normal(_)),
                why: why.to_string(),
                was_up,
            },
            Event::ChildEstablished { id, realm, name, suite, ts_local, ts_remote, replaces, resource } => {
                Notice::ChildEstablished {
                    child: id.0,
                    realm: realm.to_string(),
                    name: name.to_string(),
                    suite: suite.to_string(),
                    selectors: ike::selectors_text(&ts_local, &ts_remote),
                    replaces: replaces.map(|old| old.0),
                    resource,
                }
            }
            Event::ChildClosed { id, realm, name, why } => Notice::ChildClosed {
                child: id.0,
                realm: realm.to_string(),
                name: name.to_string(),
                why: why.to_string(),
            },
            Event::ChildFailed { realm, name, why } => {
                Notice::ChildFailed { realm: realm.to_string(), name: name.to_string(), why: why.to_string() }
            }
            Event::ResourceRefused { realm, name, resource, why } => Notice::ResourceRefused {
                realm: realm.to_string(),
                name: name.to_string(),
                resource,
                why: why.to_string(),
            },
            Event::PeerDead { sa, realm, after } => {
                Notice::PeerDead { sa: sa.0, realm: realm.to_string(), after: after.as_secs_f64() }
            }
            Event::PeerMoved { sa, path } => Notice::PeerMoved { sa: sa.0, remote: path.remote.to_string() },
            Event::PasswordWanted { sa, realm, user } => {
                Notice::PasswordWanted { sa: sa.0, realm: realm.to_string(), user }
            }
            Event::Dropped { remote, reason } => {
                Notice::Dropped { remote: remote.to_string(), reason: reason.to_owned() }
            }
            Event::ConfigurationIgnored { sa, realm, what } => {
                Notice::ConfigurationIgnored { sa: sa.0, realm: realm.to_string(), what }
            }
            Event::Cookies { on, half_open } => Notice::Cookies { on, half_open },
            other => Notice::Other { text: format!("{other:?}") },
        }
    }
}

/// The level of each event, and its fields, for the log.
fn log(notice: &Notice) {
    use tracing::{debug, error, info, warn};
    match notice {
        Notice::Started { version, realms } => info!(%version, realms, "started"),
        Notice::Stopping {} => info!("stopping"),
        Notice::Reloaded { realms } => info!(realms, "configuration read again"),
        Notice::IkeEstablished { sa, realm, peer, local, remote, suite, how } => {
            info!(sa, %realm, %peer, %local, %remote, %suite, %how, "IKE SA established");
        }
        Notice::IkeRekeyed { old, new } => info!(old, new, "IKE SA rekeyed"),
        Notice::IkeClosed { sa, realm, remote, why, normal, .. } => {
            let realm = realm.as_deref().unwrap_or("-");
            if *normal {
                info!(sa, %realm, %remote, %why, "IKE SA closed");
            } else {
                warn!(sa, %realm, %remote, %why, "IKE SA closed");
            }
        }
        Notice::ChildEstablished { child, realm, name, suite, selectors, replaces, resource } => {
            info!(child, %realm, %name, %suite, %selectors, ?replaces, ?resource, "Child SA established");
        }
        Notice::ChildClosed { child, realm, name, why } => {
            info!(child, %realm, %name, %why, "Child SA closed")
        }
        Notice::ChildFailed { realm, name, why } => warn!(%realm, %name, %why, "Child SA failed"),
        Notice::ResourceRefused { realm, name, resource, why } => {
            info!(%realm, %name, resource, %why, "no Child SA for this worker alone");
        }
        Notice::PeerDead { sa, realm, after } => warn!(sa, %realm, after, "peer does not answer"),
        Notice::PeerMoved { sa, remote } => info!(sa, %remote, "peer moved"),
        Notice::PasswordWanted { sa, realm, user } => warn!(sa, %realm, %user, "a password is wanted"),
        Notice::Dropped { remote, reason } => debug!(%remote, %reason, "IKE message dropped"),
        Notice::Cookies { on, half_open } => warn!(on, half_open, "cookies"),
        Notice::InstallFailed { realm, name, why } => warn!(%realm, %name, %why, "Child SA not installed"),
        Notice::NetworkFailed { what, why } => warn!(%what, %why, "the network was not changed"),
        Notice::DeviceFailed { device, why } => error!(%device, %why, "a device is out of order"),
        Notice::DeviceReset { device } => info!(%device, "a device was reset"),
        Notice::DeviceReady { device } => info!(%device, "a device is ready"),
        Notice::SasMoved { from, to, sas } => info!(%from, %to, sas, "SAs are on another device"),
        Notice::UnknownSpi { spi, remote } => debug!(%spi, %remote, "ESP with an unknown SPI"),
        Notice::Addresses { realm, ours, dns, domains, add } => {
            info!(%realm, ?ours, ?dns, ?domains, add, "inner addresses");
        }
        Notice::Lease { realm, address, who, state } => debug!(%realm, %address, %who, %state, "lease"),
        Notice::ConfigurationIgnored { sa, realm, what } => {
            warn!(sa, %realm, %what, "configuration of the peer ignored");
        }
        Notice::StoreFailed { file, why } => error!(%file, %why, "the store of leases"),
        Notice::StoreWorks { file } => info!(%file, "the store of leases works again"),
        Notice::Other { text } => info!(%text, "event"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_flat_json_object_with_its_name() {
        let events = Events::default();
        let mut listener = events.listen();
        events.publish(Notice::Cookies { on: true, half_open: 70 });
        let record = listener.try_recv().unwrap();
        let json = serde_json::to_value(&record).unwrap();
        assert_eq!((json["event"].as_str(), json["half_open"].as_u64()), (Some("cookies"), Some(70)));
        assert_eq!(serde_json::from_value::<Record>(json).unwrap(), record);
    }

    #[test]
    fn a_listener_that_sleeps_holds_nobody_up() {
        let events = Events::default();
        let mut listener = events.listen();
        for half_open in 0..BACKLOG * 2 {
            events.publish(Notice::Cookies { on: true, half_open });
        }
        assert!(matches!(listener.try_recv(), Err(broadcast::error::TryRecvError::Lagged(_))));
    }
}
