//! One socket towards the outside: UDP 500, UDP 4500 or protocol 50, IPv4 or IPv6, with the options they all need.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::{Domain, Protocol, Type};

use spi::Pool;

use super::sys::{self, Arrived, Inbox, Landing, Outgoing, SendError, Sender};

/// What travels over a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Port {
    /// IKE without a marker: UDP 500.
    Ike,
    /// ESP in UDP, IKE with the non-ESP marker, keepalives: UDP 4500.
    Natt,
    /// ESP as IP protocol 50.
    Raw,
}

/// What a socket carried, and what it could not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Datagrams received.
    pub received: u64,
    /// Pieces they came in: with UDP_GRO one may hold many.
    pub arrivals: u64,
    /// Datagrams sent.
    pub sent: u64,
    /// Pieces they left in: with UDP_SEGMENT one may hold many.
    pub departures: u64,
    /// Datagrams that came and found the receive buffer full.
    pub lost: u64,
    /// Datagrams the kernel would not take: no room, no route, not allowed.
    pub unsent: u64,
    /// Datagrams that were larger than the path takes.
    pub too_big: u64,
}

/// One socket.
pub struct Socket {
    inner: socket2::Socket,
    port: Port,
    bound: SocketAddr,
    /// Whether DF is set on what is sent now; `None`: never said.
    df: Option<bool>,
    /// Whether the kernel cuts segments for us, and gathers them.
    gso: bool,
    gro: bool,
    sender: Sender,
    /// What the kernel's count of lost datagrams was last.
    lost: u32,
    traffic: Traffic,
    errors: Vec<SendError>,
    /// When the send buffer was waited for in vain, the last time.
    stuck: Option<Instant>,
}

/// Receive and send buffers, octets: some hundred superpackets.
const BUFFER: usize = 8 << 20;

/// Errors kept until somebody takes them; more would say the same.
const ERRORS: usize = 64;

/// Errors taken off the kernel's queue at one time.
const DRAIN: usize = 256;

/// How long a full send buffer is waited for before datagrams are dropped. Anything longer would stall every peer.
const FULL_WAIT: Duration = Duration::from_millis(2);

/// Such waits for one list of datagrams.
const WAITS: u32 = 4;

/// How long after a wait in vain nothing is waited for.
const STUCK: Duration = Duration::from_millis(50);

impl Socket {
    /// Opens a socket and binds it; `share` allows a second one on the same address, opened with `share` too.
    ///
    /// # Errors
    /// What the kernel says: a port in use, an address that is not ours, no privilege.
    pub fn open(port: Port, address: SocketAddr, mark: u32, share: bool) -> io::Result<Socket> {
        let v6 = address.is_ipv6();
        let domain = if v6 { Domain::IPV6 } else { Domain::IPV4 };
        let (kind, protocol) = match port {
            Port::Ike | Port::Natt => (Type::DGRAM, Protocol::UDP),
            Port::Raw => (Type::RAW, Protocol::from(libc::IPPROTO_ESP)),
        };
        let inner = socket2::Socket::new(domain, kind, Some(protocol))?;
        // Raw IPv6 sockets never see IPv4, and refuse the option.
        if v6 && port != Port::Raw {
            inner.set_only_v6(true)?;
        }
        if share {
            inner.set_reuse_port(true)?;
        }
        if mark != 0 {
            inner.set_mark(mark)?;
        }
        // The unprivileged calls are capped by net.core.rmem_max; a smaller buffer is no reason to stop.
        enlarge(inner.as_fd());
        let on = |level, name| sys::set_int(inner.as_fd(), level, name, 1);
        if v6 {
            on(libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO)?;
            on(libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS)?;
            on(libc::IPPROTO_IPV6, libc::IPV6_RECVERR)?;
        } else {
            on(libc::IPPROTO_IP, libc::IP_PKTINFO)?;
            on(libc::IPPROTO_IP, libc::IP_RECVTOS)?;
            on(libc::IPPROTO_IP, libc::IP_RECVERR)?;
        }
        let gso = port == Port::Natt;
        // Old kernels do without.
        let gro = gso && sys::set_gro(inner.as_fd()).is_ok();
        on(libc::SOL_SOCKET, libc::SO_RXQ_OVFL)?;
        inner.bind(&address.into())?;
        let bound = inner.local_addr()?.as_socket().unwrap_or(address);
        Ok(Socket {
            inner,
            port,
            bound,
            df: None,
            gso,
            gro,
            sender: Sender::default(),
            lost: 0,
            traffic: Traffic::default(),
            errors: Vec::new(),
            stuck: None,
        })
    }

    /// Receives a batch into `inbox`; returns how many datagrams came.
    ///
    /// # Errors
    /// `WouldBlock` when there is nothing. Errors that came back for what was sent are kept for
    /// [`take_errors`](Socket::take_errors) and reported as `Interrupted`: try again.
    pub fn receive(&mut self, inbox: &mut Inbox, limit: usize) -> io::Result<usize> {
        let received = inbox.receive(self.inner.as_fd(), limit);
        inbox.datagrams().for_each(|(arrived, bytes)| self.note_arrival(arrived, bytes.len()));
        self.received(received)
    }

    /// Receives a batch into packet buffers; returns how many pieces came.
    ///
    /// # Errors
    /// As [`receive`](Socket::receive).
    pub fn land(&mut self, landing: &mut Landing, pool: &Pool, limit: usize) -> io::Result<usize> {
        let received = landing.receive(self.inner.as_fd(), pool, limit);
        landing.datagrams().for_each(|(arrived, length)| self.note_arrival(arrived, length));
        self.received(received)
    }

    fn received(&mut self, received: io::Result<usize>) -> io::Result<usize> {
        match received {
            Ok(count) => Ok(count),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                // A pending error makes the socket look readable for ever: fetch it.
                if self.drain_errors() { Err(io::ErrorKind::Interrupted.into()) } else { Err(error) }
            }
            Err(error) => {
                self.drain_errors();
                match error.raw_os_error() {
                    Some(libc::EBADF | libc::EINVAL | libc::ENOTSOCK) => Err(error),
                    _ => Err(io::ErrorKind::Interrupted.into()),
                }
            }
        }
    }

    fn note_arrival(&mut self, arrived: &Arrived, length: usize) {
        self.traffic.arrivals += 1;
        self.traffic.received += match arrived.segment {
            0 => 1,
            segment => length.div_ceil(segment) as u64,
        };
        if let Some(lost) = arrived.lost {
            self.traffic.lost += u64::from(lost.wrapping_sub(self.lost));
            self.lost = lost;
        }
    }

    /// Sends datagrams, with or without DF. What the kernel does not take is counted and gone; the reasons that have an
    /// address come out of [`take_errors`](Socket::take_errors).
    pub fn send(&mut self, list: &[Outgoing<'_>], df: bool) {
        self.set_df(df);
        let mut next = 0;
        let mut retried = false;
        let mut waits = 0;
        while let Some(rest) = list.get(next..).filter(|rest| !rest.is_empty()) {
            match self.sender.send(self.inner.as_fd(), rest) {
                Ok(count) => {
                    let count = count.max(1);
                    self.traffic.sent += rest.iter().take(count).map(datagrams).sum::<u64>();
                    self.traffic.departures += count as u64;
                    next += count;
                    retried = false;
                }
                Err(error) => match error.raw_os_error() {
                    Some(libc::EAGAIN) => {
                        waits += 1;
                        if waits > WAITS || !self.wait_for_room() {
                            self.traffic.unsent += rest.iter().map(datagrams).sum::<u64>();
                            return;
                        }
                    }
                    // The interface's queue is full and has dropped it already. There is nothing to wait for that would tell
                    // when there is room, and to insist would only add to the crowd.
                    Some(libc::ENOBUFS) => {
                        self.traffic.unsent += datagrams(&rest[0]);
                        next += 1;
                    }
                    Some(libc::EMSGSIZE) if rest[0].segment == 0 => {
                        self.traffic.too_big += 1;
                        self.drain_errors();
                        next += 1;
                    }
                    Some(libc::EMSGSIZE) => {
                        // The kernel cuts, but does not fragment as well; and it says nothing in the error queue.
                        let (to, errno) = (rest[0].to, libc::EMSGSIZE);
                        self.note(SendError { to, errno, mtu: None, local: true });
                        self.send_pieces(&rest[0]);
                        next += 1;
                    }
                    Some(libc::EIO | libc::EINVAL | libc::EOPNOTSUPP) if rest[0].segment != 0 => {
                        // A device without checksum offload, or a size its driver will not cut: one by one from now on.
                        self.gso = error.raw_os_error() == Some(libc::EINVAL);
                        self.send_pieces(&rest[0]);
                        next += 1;
                    }
                    // An error of an earlier datagram, reported here: look at it, and send again.
                    _ if !retried && self.drain_errors() => retried = true,
                    _ => {
                        self.traffic.unsent += datagrams(&rest[0]);
                        next += 1;
                        retried = false;
                    }
                },
            }
        }
    }

    /// Errors that came back for what was sent, oldest first.
    pub fn take_errors(&mut self) -> std::vec::Drain<'_, SendError> {
        self.errors.drain(..)
    }

    /// Whether [`take_errors`](Socket::take_errors) has any.
    pub fn has_errors(&self) -> bool {
        !self.errors.is_empty()
    }

    /// Whether runs of datagrams may be handed over in one piece.
    pub fn cuts_segments(&self) -> bool {
        self.gso
    }

    /// Whether runs of datagrams come in one piece.
    pub fn gathers_segments(&self) -> bool {
        self.gro
    }

    /// Octets that wait to be received, as the kernel counts them, and those that may.
    pub fn queued(&self) -> (u32, u32) {
        sys::queued(self.inner.as_fd()).unwrap_or_default()
    }

    /// What travels over it.
    pub fn port(&self) -> Port {
        self.port
    }

    /// Address and port it is bound to.
    pub fn bound(&self) -> SocketAddr {
        self.bound
    }

    /// What it carried.
    pub fn traffic(&self) -> Traffic {
        self.traffic
    }

    /// Whether it can send from `local`.
    pub fn serves(&self, local: IpAddr) -> bool {
        let bound = self.bound.ip();
        bound.is_ipv4() == local.is_ipv4() && (bound.is_unspecified() || bound == local)
    }

    fn send_pieces(&mut self, out: &Outgoing<'_>) {
        for piece in out.bytes.chunks(usize::from(out.segment.max(1))) {
            let one = Outgoing { bytes: piece, segment: 0, ..*out };
            match self.sender.send(self.inner.as_fd(), std::slice::from_ref(&one)) {
                Ok(_) => {
                    self.traffic.sent += 1;
                    self.traffic.departures += 1;
                }
                Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) => self.traffic.too_big += 1,
                Err(_) => self.traffic.unsent += 1,
            }
        }
        self.drain_errors();
    }

    fn set_df(&mut self, df: bool) {
        if self.df == Some(df) {
            return;
        }
        let (level, name, value) = match (self.bound.is_ipv6(), df) {
            (false, true) => (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DO),
            // DONT would clear DF, too. But it also throws away ICMP errors about the path MTU, and those for packets with DF of
            // any socket of the port may be brought to this one.
            (false, false) => (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_OMIT),
            (true, true) => (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_DO),
            (true, false) => (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_DONT),
        };
        if sys::set_int(self.inner.as_fd(), level, name, value).is_ok() {
            self.df = Some(df);
        }
    }

    /// Moves the kernel's error queue into ours, up to a bound; true if there was anything.
    pub fn drain_errors(&mut self) -> bool {
        let mut any = false;
        // Whoever sends ICMP errors faster than they are read must not hold us here.
        for _ in 0..DRAIN {
            let Ok(error) = sys::take_error(self.inner.as_fd()) else { break };
            any = true;
            if let Some(error) = error {
                self.note(error);
            }
        }
        any
    }

    fn note(&mut self, error: SendError) {
        if self.errors.len() < ERRORS {
            self.errors.push(error);
        }
    }

    /// Waits a moment for the send buffer to have room; false when it is not worth it. One wait in vain is enough for a while:
    /// a link that stands still would otherwise make everything else stand still too.
    fn wait_for_room(&mut self) -> bool {
        if self.stuck.is_some_and(|since| since.elapsed() < STUCK) {
            return false;
        }
        let mut fds = [PollFd::new(&self.inner, PollFlags::OUT)];
        let limit = Timespec { tv_sec: 0, tv_nsec: FULL_WAIT.as_nanos() as i64 };
        let room = poll(&mut fds, Some(&limit)).is_ok_and(|ready| ready > 0);
        self.stuck = (!room).then(Instant::now);
        room
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.as_fd()
    }
}

fn datagrams(out: &Outgoing<'_>) -> u64 {
    match out.segment {
        0 => 1,
        segment => out.bytes.len().div_ceil(usize::from(segment)) as u64,
    }
}

fn enlarge(fd: BorrowedFd<'_>) {
    use rustix::net::sockopt;
    if sockopt::set_socket_recv_buffer_size_force(fd, BUFFER).is_err() {
        let _ = sockopt::set_socket_recv_buffer_size(fd, BUFFER);
    }
    if sockopt::set_socket_send_buffer_size_force(fd, BUFFER).is_err() {
        let _ = sockopt::set_socket_send_buffer_size(fd, BUFFER);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_serves_its_own_address_or_all_of_its_family() {
        let any = Socket::open(Port::Ike, "0.0.0.0:0".parse().unwrap(), 0, false).unwrap();
        assert!(any.serves("10.1.2.3".parse().unwrap()));
        assert!(!any.serves("::1".parse().unwrap()));
        let one = Socket::open(Port::Ike, "127.0.0.1:0".parse().unwrap(), 0, false).unwrap();
        assert!(one.serves("127.0.0.1".parse().unwrap()));
        assert!(!one.serves("127.0.0.2".parse().unwrap()));
    }

    #[test]
    fn two_sockets_cannot_have_one_port_unless_both_share() {
        let first = Socket::open(Port::Natt, "127.0.0.1:0".parse().unwrap(), 0, false).unwrap();
        assert!(Socket::open(Port::Natt, first.bound(), 0, false).is_err());
        assert!(Socket::open(Port::Natt, first.bound(), 0, true).is_err());
    }

    #[test]
    fn a_closed_port_gives_an_error_with_its_address_and_the_socket_lives_on() {
        let gone = Socket::open(Port::Ike, "127.0.0.1:0".parse().unwrap(), 0, false).unwrap().bound();
        let mut socket = Socket::open(Port::Ike, "127.0.0.1:0".parse().unwrap(), 0, false).unwrap();
        let out = Outgoing { bytes: b"x", to: gone, from: None, tos: 0, segment: 0 };
        socket.send(std::slice::from_ref(&out), false);
        let mut inbox = Inbox::new(2048);
        let mut errors = Vec::new();
        for _ in 0..200 {
            let _ = socket.receive(&mut inbox, 8);
            errors.extend(socket.take_errors());
            if !errors.is_empty() {
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(errors.first().map(|error| error.to), Some(gone));
        socket.send(std::slice::from_ref(&out), true);
        assert_eq!(socket.traffic().sent, 2);
    }
}
