//! What the machine knows about the way to a peer.

use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use wire::TrafficSelector;

use super::sys;

/// The way to an address, as the kernel would send there now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// The address it would send from.
    pub source: IpAddr,
    /// Octets an IP packet may have on the way, as far as is known.
    pub mtu: u16,
}

/// How long the list of the machine's addresses is believed: many SAs come at once, and each would ask for it.
const BELIEVED: Duration = Duration::from_secs(1);

/// Sockets to ask with that were made while that was allowed, and their mark.
static SPARE: Mutex<Vec<(UdpSocket, u32)>> = Mutex::new(Vec::new());

/// Makes sockets to ask with, for so many threads that may not mark theirs.
pub fn prepare_to_ask(mark: u32, threads: usize) {
    let fresh = (0..threads).flat_map(|_| [true, false]).filter_map(|v4| make_asking_socket(v4, mark));
    let fresh: Vec<_> = fresh.map(|socket| (socket, mark)).collect();
    *SPARE.lock().unwrap_or_else(PoisonError::into_inner) = fresh;
}

thread_local! {
    /// Sockets that nothing is ever sent through, to ask with: of each family, with its mark.
    static ASKING: RefCell<[Option<(UdpSocket, u32)>; 2]> = const { RefCell::new([None, None]) };
    /// The machine's addresses, and when they were looked up.
    static ADDRESSES: RefCell<Option<(Instant, Vec<IpAddr>)>> = const { RefCell::new(None) };
}

/// Asks the routing table; `mark` as our own packets have it, so that tunnel routes do not count. `None`: no route.
pub fn way_to(remote: IpAddr, mark: u32) -> Option<Way> {
    ASKING.with_borrow_mut(|sockets| {
        let [v4, v6] = sockets;
        let kept = if remote.is_ipv4() { v4 } else { v6 };
        if kept.as_ref().is_none_or(|(_, kept_mark)| *kept_mark != mark) {
            *kept = Some((asking_socket(remote.is_ipv4(), mark)?, mark));
        }
        let (socket, _) = kept.as_ref()?;
        socket.connect(SocketAddr::new(remote, 9)).ok()?;
        let source = socket.local_addr().ok().map(|address| address.ip());
        let mtu = sys::path_mtu(socket.as_fd(), remote.is_ipv6()).unwrap_or(1500);
        // What the next one is sent from must not depend on this one.
        if rustix::net::connect_unspec(socket).is_err() {
            *kept = None;
        }
        Some(Way { source: source?, mtu: mtu.min(u32::from(u16::MAX)) as u16 })
    })
}

fn asking_socket(v4: bool, mark: u32) -> Option<UdpSocket> {
    let mut spare = SPARE.lock().unwrap_or_else(PoisonError::into_inner);
    let fits = |(socket, of): &(UdpSocket, u32)| {
        *of == mark && socket.local_addr().is_ok_and(|address| address.is_ipv4() == v4)
    };
    match spare.iter().position(fits) {
        Some(place) => Some(spare.swap_remove(place).0),
        None => make_asking_socket(v4, mark),
    }
}

fn make_asking_socket(v4: bool, mark: u32) -> Option<UdpSocket> {
    let any: IpAddr = if v4 { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).ok()?;
    if mark != 0 {
        // Without the privilege the answer is that of an unmarked packet, which is nearly always the same.
        let _ = set_mark(&socket, mark);
    }
    Some(socket)
}

/// An address of this machine inside one of the selectors, to send our own packets from; those on real interfaces go
/// before the others.
pub fn address_within(selectors: &[TrafficSelector]) -> Option<IpAddr> {
    if selectors.is_empty() {
        return None;
    }
    ADDRESSES.with_borrow_mut(|known| {
        if known.as_ref().is_none_or(|(at, _)| at.elapsed() >= BELIEVED) {
            let all = sys::addresses().ok()?.into_iter().map(|own| own.address).collect();
            *known = Some((Instant::now(), all));
        }
        let (_, all) = known.as_ref()?;
        let fits = |address: &&IpAddr| {
            !address.is_loopback() && selectors.iter().any(|ts| ts.contains_address(**address))
        };
        all.iter().find(fits).copied()
    })
}

/// The cores this process may use.
pub fn cpus() -> Vec<u16> {
    let Ok(set) = rustix::thread::sched_getaffinity(None) else { return Vec::new() };
    (0..rustix::thread::CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).map(|cpu| cpu as u16).collect()
}

/// The NUMA node of a core, where the machine has several.
pub fn node_of(cpu: u16) -> Option<u8> {
    let entries = std::fs::read_dir(format!("/sys/devices/system/cpu/cpu{cpu}")).ok()?;
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.filter_map(|name| name.strip_prefix("node")?.parse().ok()).next()
}

/// The NUMA node that all of these cores belong to.
pub fn node_of_all(cpus: &[u16]) -> Option<u8> {
    let (first, rest) = cpus.split_first()?;
    node_of(*first).filter(|node| rest.iter().all(|cpu| node_of(*cpu) == Some(*node)))
}

/// Has the calling thread keep to a core; where that is not allowed, it runs wherever it may.
pub fn keep_to(cpu: u16) {
    let mut set = rustix::thread::CpuSet::new();
    set.set(cpu.into());
    if let Err(error) = rustix::thread::sched_setaffinity(None, &set) {
        tracing::warn!(cpu, %error, "a lane cannot be kept to its core");
    }
}

fn set_mark(socket: &UdpSocket, mark: u32) -> std::io::Result<()> {
    sys::set_int(socket.as_fd(), libc::SOL_SOCKET, libc::SO_MARK, mark as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_keeps_to_the_core_it_is_given() {
        let all = cpus();
        let last = *all.last().unwrap();
        std::thread::scope(|threads| {
            threads.spawn(|| {
                keep_to(last);
                assert_eq!(cpus(), [last]);
            });
        });
        assert_eq!(cpus(), all, "and others are not concerned");
    }

    #[test]
    fn cores_of_one_node_are_on_it_and_cores_that_do_not_exist_on_none() {
        let all = cpus();
        let nodes: std::collections::BTreeSet<_> = all.iter().map(|cpu| node_of(*cpu)).collect();
        let one = nodes.first().copied().flatten().filter(|_| nodes.len() == 1);
        assert_eq!(node_of_all(&all), one);
        assert_eq!(node_of_all(&all[..1]), node_of(all[0]));
        assert_eq!(node_of_all(&[all[0], u16::MAX]), None);
        assert_eq!(node_of_all(&[]), None);
    }

    #[test]
    fn ways_do_not_depend_on_what_was_asked_before() {
        // The kernel sends to each of its own addresses from that address.
        let own: Vec<IpAddr> = sys::addresses().unwrap().into_iter().map(|own| own.address).collect();
        let own: Vec<IpAddr> = own.into_iter().filter(IpAddr::is_ipv4).collect();
        assert!(!own.is_empty(), "no address, not even loopback");
        for mark in [0, 7, 0] {
            for address in own.iter().chain(own.iter().rev()) {
                // Nowhere to go, and no harm to the next.
                let _ = way_to("240.0.0.1".parse().unwrap(), mark);
                let way = way_to(*address, mark).unwrap();
                assert_eq!(way.source, *address);
                assert!(way.mtu >= 1280);
            }
        }
    }

    #[test]
    fn an_address_of_no_selector_is_none() {
        assert_eq!(address_within(&[]), None);
        assert_eq!(address_within(&[TrafficSelector::host("192.0.2.77".parse().unwrap())]), None);
    }
}
