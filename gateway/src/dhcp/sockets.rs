//! Where servers' answers are heard. The ports take privilege, and so do sockets of one device: they are opened at the start, before
//! the process gives it up.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket as StdSocket};
use std::sync::Arc;
use std::time::Duration;

use policy::DhcpSource;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;

/// UDP port of DHCP servers and relay agents.
pub(super) const PORT4: u16 = 67;
/// UDP port of DHCPv6 servers and relay agents.
pub(super) const PORT6: u16 = 547;
/// Longest message that is read.
const LONGEST: usize = 1500;

/// Which socket it is: at an address of ours, or at any, on one device.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    pub(super) address: IpAddr,
    device: Option<Arc<str>>,
}

impl Place {
    /// Where a source is asked from.
    pub(super) fn of<A: Copy + Into<IpAddr>>(source: &DhcpSource<A>) -> Place {
        let relay: IpAddr = source.relay.into();
        match &source.device {
            None => Place { address: relay, device: None },
            Some(device) => {
                let any = if relay.is_ipv4() {
                    IpAddr::V4(Ipv4Addr::UNSPECIFIED)
                } else {
                    IpAddr::V6(Ipv6Addr::UNSPECIFIED)
                };
                Place { address: any, device: Some(Arc::clone(device)) }
            }
        }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.device {
            Some(device) => write!(f, "{device}"),
            None => write!(f, "{}", self.address),
        }
    }
}

/// Open sockets.
pub type Sockets = Vec<(Place, StdSocket)>;

/// Opens the sockets for the DHCP servers of these realms, which takes privilege; and says which could not be had.
pub fn open(realms: &[Arc<policy::Realm>]) -> (Sockets, Vec<String>) {
    let (mut sockets, mut failed) = (Sockets::new(), Vec::new());
    let pools = realms.iter().filter_map(|realm| realm.pool.as_ref());
    let places = pools.flat_map(|pool| {
        let (v4, v6) = (pool.dhcp.as_ref().map(Place::of), pool.dhcp6.as_ref().map(Place::of));
        v4.into_iter().chain(v6)
    });
    for place in places {
        if sockets.iter().any(|(open, _)| *open == place) {
            continue;
        }
        let port = if place.address.is_ipv4() { PORT4 } else { PORT6 };
        match open_at(&place, port) {
            Ok(socket) => sockets.push((place, socket)),
            Err(error) => failed.push(format!("cannot listen for DHCP servers at {place}: {error}")),
        }
    }
    (sockets, failed)
}

fn open_at(place: &Place, port: u16) -> io::Result<StdSocket> {
    let v4 = place.address.is_ipv4();
    let domain = if v4 { Domain::IPV4 } else { Domain::IPV6 };
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    if !v4 {
        socket.set_only_v6(true)?;
    }
    if let Some(device) = &place.device {
        socket.bind_device(Some(device.as_bytes()))?;
        if v4 {
            socket.set_broadcast(true)?;
        } else {
            // What we say to all is nothing to ourselves.
            socket.set_multicast_loop_v6(false)?;
        }
    }
    socket.bind(&SocketAddr::new(place.address, port).into())?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// The sockets of a task; each has another one that listens.
pub(super) struct Ears {
    sockets: HashMap<Place, StdSocket>,
    heard: mpsc::Sender<(SocketAddr, Vec<u8>)>,
    port: u16,
}

impl Ears {
    /// With these sockets; others are opened at this port when they are needed.
    pub(super) fn new(sockets: Sockets, port: u16, heard: mpsc::Sender<(SocketAddr, Vec<u8>)>) -> Ears {
        let mut ears = Ears { sockets: HashMap::new(), heard, port };
        for (place, socket) in sockets {
            if let Err(error) = ears.take(place.clone(), socket) {
                tracing::error!(%place, %error, "nobody listens for DHCP servers");
            }
        }
        ears
    }

    /// Sends from a place.
    pub(super) fn send(&mut self, place: &Place, octets: &[u8], to: SocketAddr) -> Result<(), String> {
        match self.socket(place)?.send_to(octets, to) {
            Ok(_) => Ok(()),
            // It is sent again soon.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(format!("no way to the DHCP server {}: {error}", to.ip())),
        }
    }

    /// The number of the place's device, which addresses of a link go with.
    pub(super) fn scope(&mut self, place: &Place) -> Result<u32, String> {
        let device = place.device.clone().ok_or("no device is named")?;
        let index = rustix::net::netdevice::name_to_index(self.socket(place)?, &device);
        index.map_err(|error| format!("{device}: {error}"))
    }

    fn socket(&mut self, place: &Place) -> Result<&StdSocket, String> {
        if !self.sockets.contains_key(place) {
            // What a reload brought, for a gateway that may still do so.
            let failed =
                |error| format!("cannot listen for DHCP servers at {place}: {error}; a restart helps");
            let socket = open_at(place, self.port).map_err(failed)?;
            self.take(place.clone(), socket).map_err(failed)?;
        }
        self.sockets.get(place).ok_or_else(|| "no socket".to_owned())
    }

    fn take(&mut self, place: Place, socket: StdSocket) -> io::Result<()> {
        let listening = UdpSocket::from_std(socket.try_clone()?)?;
        tokio::spawn(listen(listening, self.heard.clone()));
        self.sockets.insert(place, socket);
        Ok(())
    }
}

async fn listen(socket: UdpSocket, heard: mpsc::Sender<(SocketAddr, Vec<u8>)>) {
    let mut octets = [0; LONGEST];
    loop {
        match socket.recv_from(&mut octets).await {
            Ok((len, from)) => {
                // Where there is too much it is asked again; where nobody listens any more this ends.
                let given = heard.try_send((from, octets.get(..len).unwrap_or_default().to_vec()));
                if let Err(mpsc::error::TrySendError::Closed(_)) = given {
                    return;
                }
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}
