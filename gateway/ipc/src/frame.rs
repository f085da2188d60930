//! Messages as datagrams. A message that is longer than a datagram goes in several, one after the other; each says whether it
//! is the last, and whose message it is a part of. So the reader knows at every datagram where it is, and one that is not
//! what it may be ends the conversation.
//!
//! A datagram: one octet of flags (1: the last of its message), the token in eight, the least first, and a part of the message.

use std::os::fd::OwnedFd;

use spi::Token;

use crate::codec::{self, Broken, MAX_MESSAGE, Message};

/// Longest datagram, octets. The kernel keeps each in one piece of memory, and longer pieces are hard to come by.
pub(crate) const MAX_DATAGRAM: usize = 32 * 1024;
const HEADER: usize = 9;
const LAST: u8 = 1;

/// A datagram to be, with the descriptors that go beside it.
pub(crate) struct Datagram {
    pub(crate) octets: Vec<u8>,
    pub(crate) fds: Vec<OwnedFd>,
}

/// The datagrams of a message; the descriptors go with the last.
///
/// # Errors
/// The message is one that the other side would not take.
pub(crate) fn cut(token: Token, message: &mut impl Message) -> Result<Vec<Datagram>, Broken> {
    let octets = codec::encode(message)?;
    let parts = octets.chunks(MAX_DATAGRAM - HEADER);
    let count = parts.len();
    let datagram = |(place, part): (usize, &[u8])| {
        let mut octets = Vec::with_capacity(HEADER + part.len());
        octets.push(if place + 1 == count { LAST } else { 0 });
        octets.extend_from_slice(&token.0.to_le_bytes());
        octets.extend_from_slice(part);
        Datagram { octets, fds: Vec::new() }
    };
    let mut all: Vec<Datagram> = parts.enumerate().map(datagram).collect();
    if let Some(last) = all.last_mut() {
        last.fds = message.take_fds();
    }
    Ok(all)
}

/// Puts messages together again.
#[derive(Default)]
pub(crate) struct Assembler {
    /// Of a message whose last part is still to come.
    begun: Option<(Token, Vec<u8>)>,
}

impl Assembler {
    /// Takes a datagram; gives the message that is complete with it.
    ///
    /// # Errors
    /// It is not what it may be. Nothing after it can be believed.
    pub(crate) fn take<M: Message>(
        &mut self,
        datagram: &[u8],
        fds: Vec<OwnedFd>,
    ) -> Result<Option<(Token, M)>, Broken> {
        let Some((&[flags, ref token @ ..], part)) = datagram.split_first_chunk::<HEADER>() else {
            return Err(Broken::Malformed);
        };
        let token = Token(u64::from_le_bytes(*token));
        if flags & !LAST != 0 || part.is_empty() {
            return Err(Broken::Malformed);
        }
        if flags & LAST == 0 {
            if !fds.is_empty() {
                return Err(Broken::Descriptors);
            }
            let (of, octets) = self.begun.get_or_insert_with(|| (token, Vec::new()));
            if *of != token {
                return Err(Broken::Malformed);
            }
            return append(octets, part).map(|()| None);
        }
        let message = match self.begun.take() {
            Some((of, mut octets)) if of == token => {
                append(&mut octets, part)?;
                codec::decode(&octets, fds)?
            }
            Some(_) => return Err(Broken::Malformed),
            None => codec::decode(part, fds)?,
        };
        Ok(Some((token, message)))
    }
}

fn append(octets: &mut Vec<u8>, part: &[u8]) -> Result<(), Broken> {
    if octets.len() + part.len() > MAX_MESSAGE {
        return Err(Broken::TooLong);
    }
    octets.extend_from_slice(part);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::{CertData, Reply, Request, TunSpec};

    fn proof(octets: usize) -> Reply {
        let certs = vec![CertData { encoding: 4, data: (0..octets).map(|n| n as u8).collect() }];
        Reply::Proof { method: 14, data: vec![7; 64], certs }
    }

    #[test]
    fn long_messages_go_in_several_and_arrive_as_one() {
        for octets in [0, 100, MAX_DATAGRAM, 2 * (MAX_DATAGRAM - HEADER), 150_000] {
            let datagrams = cut(Token(9), &mut proof(octets)).unwrap();
            assert_eq!(datagrams.len(), 1 + (octets + 70) / (MAX_DATAGRAM - HEADER), "{octets}");
            let mut assembler = Assembler::default();
            let mut got = None;
            for Datagram { octets, fds } in datagrams {
                assert!(octets.len() <= MAX_DATAGRAM && got.is_none());
                got = assembler.take::<Reply>(&octets, fds).unwrap();
            }
            let Some((Token(9), Reply::Proof { certs, .. })) = got else { panic!() };
            assert_eq!(certs[0].data.len(), octets);
        }
    }

    #[test]
    fn parts_of_different_messages_do_not_mix() {
        let mut assembler = Assembler::default();
        let one = cut(Token(1), &mut proof(100_000)).unwrap();
        let two = cut(Token(2), &mut proof(10)).unwrap();
        assert!(assembler.take::<Reply>(&one[0].octets, Vec::new()).unwrap().is_none());
        assert_eq!(assembler.take::<Reply>(&two[0].octets, Vec::new()).err(), Some(Broken::Malformed));
    }

    #[test]
    fn parts_without_end_are_cut_off() {
        let mut part = vec![0; MAX_DATAGRAM];
        part[1] = 5;
        let mut assembler = Assembler::default();
        let broken = (0..100).find_map(|_| assembler.take::<Request>(&part, Vec::new()).err());
        assert_eq!(broken, Some(Broken::TooLong));
    }

    #[test]
    fn datagrams_that_are_none_are_refused() {
        let tun = TunSpec { name: "t".into(), mtu: 1400, queues: 1, offload: false, ethernet: false };
        let good = cut(Token(1), &mut Request::OpenTun(tun)).unwrap().remove(0).octets;
        let mut flags = good.clone();
        flags[0] = 2;
        for bad in [&good[..0], &good[..8], &good[..9], &flags] {
            assert_eq!(Assembler::default().take::<Request>(bad, Vec::new()).err(), Some(Broken::Malformed));
        }
        assert!(Assembler::default().take::<Request>(&good, Vec::new()).unwrap().is_some());
    }
}
