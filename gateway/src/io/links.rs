//! Word from the kernel about interfaces: a device of ours that was set down has lost its routes, and needs them again when
//! it comes back. Reads RTM_NEWLINK and RTM_DELLINK (`linux/rtnetlink.h`) and asks for nothing.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SocketFlags, SocketType, bind, netlink::SocketAddrNetlink, recv, socket_with,
};

/// `RTMGRP_LINK`.
const GROUP_LINK: u32 = 1;
const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const IFLA_IFNAME: u16 = 3;
const IFF_UP: u32 = 1;

/// `struct nlmsghdr` and `struct ifinfomsg`.
const HEADER: usize = 16;
const LINK: usize = 16;

/// Datagrams read at one time; the others come the next time.
const BUDGET: usize = 32;
/// The kernel puts one link into one datagram.
const BUFFER: usize = 16 * 1024;

/// How an interface is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Up.
    Up,
    /// There, but down.
    Down,
    /// Gone.
    Gone,
}

/// One thing that was said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Word {
    /// Of this interface.
    Link(String, State),
    /// Too much was said at once, and some of it is lost.
    Lost,
}

/// Where it is heard.
pub struct Links {
    socket: OwnedFd,
}

impl Links {
    /// Listens from now on.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn open() -> io::Result<Links> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        // NETLINK_ROUTE is protocol 0.
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
        bind(&socket, &SocketAddrNetlink::new(0, GROUP_LINK))?;
        Ok(Links { socket })
    }

    /// What was said since the last time, oldest first.
    pub fn heard(&self) -> Vec<Word> {
        let mut words = Vec::new();
        let mut buffer = vec![0; BUFFER];
        for _ in 0..BUDGET {
            match recv(&self.socket, &mut buffer[..], RecvFlags::DONTWAIT) {
                Ok((length, _)) => read(buffer.get(..length).unwrap_or_default(), &mut words),
                Err(Errno::NOBUFS) => words.push(Word::Lost),
                Err(Errno::INTR) => {}
                Err(_) => break,
            }
        }
        words
    }
}

impl AsFd for Links {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn read(mut data: &[u8], words: &mut Vec<Word>) {
    while let Some(length) = number(data, 0).map(|length| length as usize).filter(|length| *length >= HEADER)
    {
        let Some(message) = data.get(..length) else { return };
        words.extend(link(message));
        data = data.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
}

fn link(message: &[u8]) -> Option<Word> {
    let kind = u16::from_ne_bytes(*message.get(4..)?.first_chunk()?);
    if kind != RTM_NEWLINK && kind != RTM_DELLINK {
        return None;
    }
    let up = number(message, HEADER + 8)? & IFF_UP != 0;
    let state = match (kind, up) {
        (RTM_DELLINK, _) => State::Gone,
        (_, true) => State::Up,
        (_, false) => State::Down,
    };
    let mut rest = message.get(HEADER + LINK..)?;
    loop {
        let length = usize::from(u16::from_ne_bytes(*rest.first_chunk()?));
        let kind = u16::from_ne_bytes(*rest.get(2..)?.first_chunk()?);
        let value = rest.get(4..length)?;
        if kind == IFLA_IFNAME {
            let name = value.split(|octet| *octet == 0).next()?;
            return Some(Word::Link(String::from_utf8_lossy(name).into_owned(), state));
        }
        rest = rest.get(length.next_multiple_of(4)..)?;
    }
}

fn number(data: &[u8], at: usize) -> Option<u32> {
    data.get(at..)?.first_chunk().map(|octets| u32::from_ne_bytes(*octets))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, flags: u32, name: &str) -> Vec<u8> {
        let mut attributes = vec![8, 0, 4, 0, 0x78, 5, 0, 0];
        attributes.extend((5 + name.len() as u16).to_ne_bytes());
        attributes.extend(IFLA_IFNAME.to_ne_bytes());
        attributes.extend(name.as_bytes());
        attributes.push(0);
        attributes.resize(attributes.len().next_multiple_of(4), 0);
        let mut out = ((HEADER + LINK + attributes.len()) as u32).to_ne_bytes().to_vec();
        out.extend(kind.to_ne_bytes());
        out.extend([0; 10 + 8]);
        out.extend(flags.to_ne_bytes());
        out.extend([0; 4]);
        out.extend(attributes);
        out
    }

    #[test]
    fn links_are_told_by_name_and_state() {
        let mut data = message(RTM_NEWLINK, 0x10091, "ipsec0");
        data.extend(message(RTM_NEWLINK, 0x10090, "eth0"));
        data.extend(message(RTM_DELLINK, 0x10090, "tun9"));
        data.extend(message(20, 1, "not a link"));
        let mut words = Vec::new();
        read(&data, &mut words);
        let expected = [("ipsec0", State::Up), ("eth0", State::Down), ("tun9", State::Gone)];
        assert_eq!(words, expected.map(|(name, state)| Word::Link(name.to_owned(), state)));
    }

    #[test]
    fn cut_and_lying_messages_end_the_reading() {
        let whole = message(RTM_NEWLINK, 1, "ipsec0");
        for cut in 0..whole.len() {
            let mut words = Vec::new();
            read(&whole[..cut], &mut words);
            assert_eq!(words, []);
        }
        let mut words = Vec::new();
        for lie in [0u32, 1, 15, 17, u32::MAX] {
            let mut data = whole.clone();
            data[..4].copy_from_slice(&lie.to_ne_bytes());
            read(&data, &mut words);
        }
        let mut short = whole;
        short[HEADER + LINK..HEADER + LINK + 2].copy_from_slice(&0u16.to_ne_bytes());
        read(&short, &mut words);
        assert_eq!(words, []);
    }
}
