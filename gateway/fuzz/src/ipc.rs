//! The channel between the two processes: the octets are the datagrams of a process that is no longer ours, to either side. Each
//! begins with its length in two octets, of which the highest bit says that a descriptor goes beside it. Whatever they are, the end
//! that hears them gives messages that it would itself say the same way, or closes; and it goes on as long as it does not.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use ipc::codec::{self, Message};
use ipc::{NetworkEnd, Received, Reply, Request, SecureEnd, TunSpec};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use spi::Token;

/// The target.
pub fn ipc(data: &[u8]) {
    either_way::<Request>(data);
    either_way::<Reply>(data);
    let Some((side, datagrams)) = data.split_first() else { return };
    let Ok((ours, theirs)) = ::ipc::socket_pair() else { return };
    if side & 1 == 0 { to_secure(datagrams, &ours, theirs) } else { to_network(datagrams, &ours, theirs) }
}

/// What reads as a message is written as one, and as the same.
fn either_way<M: Message>(octets: &[u8]) {
    if let Ok(message) = codec::decode::<M>(octets, Vec::new()) {
        let again = codec::encode(&message).expect("what was taken can be said");
        let twice: M = codec::decode(&again, Vec::new()).expect("and is taken again");
        assert_eq!(codec::encode(&twice), Ok(again));
    }
}

fn to_secure(datagrams: &[u8], ours: &OwnedFd, theirs: OwnedFd) {
    let Ok(mut end) = SecureEnd::of_socket(theirs, None) else { return };
    send_all(datagrams, ours, || loop {
        match end.try_recv() {
            Received::Request(token, request) => {
                assert!(codec::encode(&*request).is_ok());
                end.reply(token, Reply::Ok);
            }
            Received::Nothing => return true,
            Received::Closed => {
                // Nothing comes after the end, whatever is said.
                assert!(matches!(end.try_recv(), Received::Closed));
                return false;
            }
        }
    });
}

fn to_network(datagrams: &[u8], ours: &OwnedFd, theirs: OwnedFd) {
    let Ok(mut end) = NetworkEnd::of_socket(theirs, None) else { return };
    let question = || {
        let spec = TunSpec { name: "t".into(), mtu: 1400, queues: 1, offload: false, ethernet: false };
        Request::OpenTun(spec)
    };
    // Answers to the first tokens find who asked; each is answered once, at the latest by the end.
    for token in 0..4 {
        end.submit(Token(token), question()).expect("there is room");
    }
    let mut answered = [false; 4];
    let mut hear = |end: &mut NetworkEnd| {
        while end.poll(16, |token, _| {
            let place = usize::try_from(token.0).expect("a token that was asked with");
            assert!(!std::mem::replace(&mut answered[place], true), "answered twice");
        }) > 0
        {}
        !end.is_closed()
    };
    send_all(datagrams, ours, || hear(&mut end));
    if end.is_closed() {
        hear(&mut end);
        assert_eq!(end.in_flight(), 0);
        assert!(end.submit(Token(9), question()).is_err());
    }
}

fn send_all(mut datagrams: &[u8], ours: &OwnedFd, mut hear: impl FnMut() -> bool) {
    while let Some((length, rest)) = datagrams.split_first_chunk::<2>() {
        let length = u16::from_le_bytes(*length);
        let (datagram, rest) = rest.split_at(rest.len().min(usize::from(length & 0x7fff)));
        datagrams = rest;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let fds = [ours.as_fd()];
        if length & 0x8000 != 0 {
            control.push(SendAncillaryMessage::ScmRights(&fds));
        }
        let sent = sendmsg(ours, &[IoSlice::new(datagram)], &mut control, SendFlags::NOSIGNAL);
        // Answers that nobody reads fill the socket at some time.
        if sent.is_err() || !hear() {
            return;
        }
    }
}
