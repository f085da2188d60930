//! What the machine knows about the way to a peer.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;

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

/// Asks the routing table; `mark` as our own packets have it, so that tunnel routes do not count. `None`: no route.
pub fn way_to(remote: IpAddr, mark: u32) -> Option<Way> {
    let any: IpAddr =
        if remote.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).ok()?;
    if mark != 0 {
        // Without the privilege the answer is that of an unmarked packet, which is nearly always the same.
        let _ = set_mark(&socket, mark);
    }
    socket.connect(SocketAddr::new(remote, 9)).ok()?;
    let source = socket.local_addr().ok()?.ip();
    let mtu = sys::path_mtu(socket.as_fd(), remote.is_ipv6()).unwrap_or(1500);
    Some(Way { source, mtu: mtu.min(u32::from(u16::MAX)) as u16 })
}

/// An address of this machine inside one of the selectors, to send our own packets from; those on real interfaces go
/// before the others.
pub fn address_within(selectors: &[TrafficSelector]) -> Option<IpAddr> {
    let all = sys::addresses().ok()?;
    let fits =
        |address: &IpAddr| !address.is_loopback() && selectors.iter().any(|ts| ts.contains_address(*address));
    all.into_iter().map(|(_, address)| address).find(fits)
}

/// The cores this process may use.
pub fn cpus() -> Vec<u16> {
    let Ok(set) = rustix::thread::sched_getaffinity(None) else { return Vec::new() };
    (0..rustix::thread::CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).map(|cpu| cpu as u16).collect()
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
}
