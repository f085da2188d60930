use super::*;
use crate::request::{CertData, IkeSaRef, TunSpec};

fn question() -> Request {
    Request::OpenTun(TunSpec { name: "t".into(), mtu: 1400, queues: 1, offload: false, ethernet: false })
}

/// Both kinds, with room for so many questions.
fn pairs(depth: usize) -> [(NetworkEnd, SecureEnd); 2] {
    let (ours, theirs) = socket::socket_pair().unwrap();
    let me = Some(Party {
        pid: rustix::process::getpid().as_raw_nonzero().get(),
        uid: rustix::process::getuid().as_raw(),
    });
    let network = NetworkEnd(Net::Socket(Box::new(socket::Network::new(ours, me, depth).unwrap())));
    [pair_of(depth).unwrap(), (network, SecureEnd::of_socket(theirs, me).unwrap())]
}

fn rung(fd: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
    rustix::event::poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) == Ok(1)
}

#[test]
fn answers_come_with_their_tokens_and_both_bells_ring() {
    for (mut net, mut sec) in pairs(4) {
        net.submit(Token(1), question()).unwrap();
        net.submit(Token(2), question()).unwrap();
        assert!(rung(sec.doorbell()));
        let Received::Request(first, _) = sec.recv(None) else { panic!() };
        assert!(rung(sec.doorbell()), "one is left");
        let Received::Request(second, _) = sec.recv(None) else { panic!() };
        assert!(!rung(sec.doorbell()));
        assert!(!rung(net.doorbell()));
        sec.reply(second, Reply::Ok);
        sec.reply(first, Reply::Ok);
        assert!(rung(net.doorbell()));
        let mut got = Vec::new();
        assert_eq!(net.poll(1, |t, _| got.push(t)), 1);
        assert!(rung(net.doorbell()), "the budget left one");
        assert_eq!(net.poll(9, |t, _| got.push(t)), 1);
        assert_eq!(got, [Token(2), Token(1)]);
        assert!(!rung(net.doorbell()) && net.in_flight() == 0);
    }
}

#[test]
fn a_full_channel_hands_the_question_back() {
    for (mut net, mut sec) in pairs(2) {
        net.submit(Token(1), question()).unwrap();
        net.submit(Token(2), question()).unwrap();
        let unsent = net.submit(Token(3), question()).unwrap_err();
        assert!(!unsent.closed && matches!(*unsent.request, Request::OpenTun(_)));
        // Taken out of the queue but not answered: still out.
        assert!(matches!(sec.try_recv(), Received::Request(..)));
        assert!(net.submit(Token(3), question()).is_err());
        sec.reply(Token(1), Reply::Ok);
        net.poll(9, |_, _| ());
        net.submit(Token(3), *unsent.request).unwrap();
    }
}

#[test]
fn forget_is_never_lost_and_keeps_its_place() {
    for (mut net, mut sec) in pairs(1) {
        net.submit(Token(1), question()).unwrap();
        for n in 0..5 {
            net.submit(Token(0), Request::Forget { sa: IkeSaRef(n) }).unwrap();
        }
        let Received::Request(Token(1), _) = sec.try_recv() else { panic!() };
        sec.reply(Token(1), Reply::Ok);
        let mut seen = Vec::new();
        for _ in 0..10 {
            net.poll(9, |_, _| ());
            if let Received::Request(_, request) = sec.try_recv()
                && let Request::Forget { sa } = *request
            {
                seen.push(sa.0);
            }
        }
        assert_eq!(seen, [0, 1, 2, 3, 4]);
    }
}

#[test]
fn answers_nobody_waits_for_are_dropped() {
    for (mut net, mut sec) in pairs(2) {
        net.submit(Token(1), question()).unwrap();
        sec.reply(Token(7), Reply::Ok);
        sec.reply(Token(1), Reply::Ok);
        let mut got = Vec::new();
        net.poll(9, |t, _| got.push(t));
        assert_eq!(got, [Token(1)]);
    }
}

#[test]
fn each_side_learns_that_the_other_is_gone() {
    for (mut net, sec) in pairs(4) {
        net.submit(Token(1), question()).unwrap();
        drop(sec);
        assert!(rung(net.doorbell()));
        let mut refused = 0;
        net.poll(9, |t, reply| {
            assert!(t == Token(1) && matches!(reply, Reply::Refused(Refusal::System(_))));
            refused += 1;
        });
        assert_eq!(refused, 1, "a question that was out is answered");
        assert!(net.submit(Token(2), question()).unwrap_err().closed);
    }
    for (mut net, mut sec) in pairs(4) {
        net.submit(Token(1), question()).unwrap();
        drop(net);
        assert!(matches!(sec.recv(None), Received::Request(..)), "what was asked comes first");
        assert!(matches!(sec.recv(None), Received::Closed));
        assert!(matches!(sec.recv(None), Received::Closed), "and again");
    }
}

#[test]
fn waiting_ends_by_a_question_or_by_the_limit() {
    let (mut net, mut sec) = pair().unwrap();
    assert!(matches!(sec.recv(Some(Duration::from_millis(1))), Received::Nothing));
    let helper = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(20));
        net.submit(Token(5), question()).unwrap();
        net
    });
    assert!(matches!(sec.recv(Some(Duration::from_secs(10))), Received::Request(Token(5), _)));
    drop(helper.join());
}

fn long_proof() -> Reply {
    Reply::Proof {
        method: 14,
        data: vec![1; 64],
        certs: vec![CertData { encoding: 4, data: vec![7; 120_000] }],
    }
}

#[test]
fn long_answers_wait_for_a_reader_and_all_arrive_in_their_order() {
    for (mut net, mut sec) in pairs(64) {
        for n in 0..64 {
            net.submit(Token(n), question()).unwrap();
        }
        for _ in 0..64 {
            let Received::Request(token, _) = sec.recv(None) else { panic!() };
            // More than any socket keeps.
            sec.reply(token, long_proof());
        }
        let mut got = Vec::new();
        for _ in 0..1000 {
            net.poll(3, |token, reply| {
                let Reply::Proof { certs, .. } = reply else { panic!() };
                assert!(certs[0].data.len() == 120_000 && certs[0].data.iter().all(|octet| *octet == 7));
                got.push(token.0);
            });
            assert!(matches!(sec.try_recv(), Received::Nothing));
        }
        assert_eq!(got, (0..64).collect::<Vec<_>>());
        assert!(!rung(net.doorbell()) && !rung(sec.doorbell()), "all is quiet then");
    }
}

#[test]
fn a_side_that_does_not_read_is_not_written_to_without_end() {
    let [_, (mut net, mut sec)] = pairs(4096);
    let (mut answered, mut taken) = (0, 0);
    for n in 0..4096 {
        // Whoever asks and never reads has its questions wait.
        taken += usize::from(net.submit(Token(n), question()).is_ok());
        if let Received::Request(token, _) = sec.try_recv() {
            sec.reply(token, long_proof());
            answered += 1;
        }
    }
    assert!(answered < 600 && taken > 600, "{answered} long answers were kept, of {taken}");
    let mut got = 0;
    while net.poll(16, |_, _| got += 1) > 0 || rung(sec.doorbell()) {
        if let Received::Request(token, _) = sec.try_recv() {
            sec.reply(token, Reply::Ok);
        }
    }
    assert_eq!((got, net.in_flight()), (taken, 0), "and has its answers when it reads");
}

#[test]
fn a_question_that_is_none_is_answered_here() {
    let [_, (mut net, mut sec)] = pairs(4);
    let name = "x".repeat(100);
    let tun = TunSpec { name, mtu: 1400, queues: 1, offload: false, ethernet: false };
    net.submit(Token(3), Request::OpenTun(tun)).unwrap();
    assert!(rung(net.doorbell()));
    let mut why = String::new();
    net.poll(9, |_, reply| {
        if let Reply::Refused(refusal) = reply {
            why = refusal.to_string();
        }
    });
    assert!(why.contains("too much in `device`"), "{why}");
    assert!(matches!(sec.try_recv(), Received::Nothing), "the other side never sees it");
    net.submit(Token(4), question()).unwrap();
    assert!(matches!(sec.try_recv(), Received::Request(Token(4), _)));
}

#[test]
fn descriptors_arrive_and_work() {
    for (mut net, mut sec) in pairs(4) {
        net.submit(Token(1), question()).unwrap();
        let Received::Request(token, _) = sec.recv(None) else { panic!() };
        let (read, write) = rustix::pipe::pipe().unwrap();
        let queues = vec![write];
        sec.reply(token, Reply::Tun { queues, name: "t".into(), offload: Default::default() });
        let mut come = Vec::new();
        net.poll(1, |_, reply| {
            if let Reply::Tun { queues, .. } = reply {
                come = queues;
            }
        });
        rustix::io::write(&come[0], b"hello").unwrap();
        let mut text = [0; 5];
        rustix::io::read(&read, &mut text).unwrap();
        assert_eq!(&text, b"hello");
    }
}

#[test]
fn what_no_network_side_says_closes_the_channel() {
    let garbage: [&[u8]; 5] =
        [&[0xff; 40], &[1], &[1; 9], &[1, 0, 0, 0, 0, 0, 0, 0, 0, 200, 1, 2], &[0; 40_000]];
    for octets in garbage {
        let (ours, theirs) = socket::socket_pair().unwrap();
        let mut sec = SecureEnd::of_socket(theirs, None).unwrap();
        rustix::net::send(&ours, octets, rustix::net::SendFlags::empty()).unwrap();
        assert!(matches!(sec.recv(None), Received::Closed));
        sec.reply(Token(1), Reply::Ok);
    }
    // A descriptor with a question that is about none.
    let (ours, theirs) = socket::socket_pair().unwrap();
    let mut sec = SecureEnd::of_socket(theirs, None).unwrap();
    let mut datagrams = crate::frame::cut(Token(1), &mut question()).unwrap();
    datagrams[0].fds.push(ours.try_clone().unwrap());
    socket::send(ours.as_fd(), &datagrams[0]).unwrap();
    assert!(matches!(sec.recv(None), Received::Closed));
}

#[test]
fn a_datagram_of_another_process_closes_the_channel() {
    let (ours, theirs) = socket::socket_pair().unwrap();
    let stranger = Party { pid: 1, uid: rustix::process::getuid().as_raw() };
    let mut sec = SecureEnd::of_socket(theirs, Some(stranger)).unwrap();
    let mut net = NetworkEnd::of_socket(ours, None).unwrap();
    net.submit(Token(1), question()).unwrap();
    assert!(matches!(sec.recv(None), Received::Closed));
}
