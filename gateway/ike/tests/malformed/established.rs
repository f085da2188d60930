//! On an established SA: a peer that proved itself and misbehaves.

use super::*;

#[test]
fn forged_and_unprotected_messages_change_nothing() {
    let (mut rig, mut puppet) = up();
    let delete: Vec<Payload> = vec![Delete::ike().into()];
    let header = puppet.header(INFORMATIONAL, puppet.next_id);
    rig.datagram(&Message::new(header, delete.clone()).emit());
    for kind in [NotifyType::INVALID_SYNTAX, NotifyType::AUTHENTICATION_FAILED, NotifyType::INVALID_IKE_SPI] {
        rig.datagram(&Message::new(header, vec![Notify::new(kind).into()]).emit());
        let response = Header { flags: Flags::INITIATOR | Flags::RESPONSE, ..header };
        rig.datagram(&Message::new(response, vec![Notify::new(kind).into()]).emit());
    }
    let mut forged = puppet.seal(&header, &delete);
    for bit in 0..forged.len() * 8 {
        forged[bit / 8] ^= 1 << (bit % 8);
        rig.datagram_from("203.0.113.66:4500".parse().unwrap(), &forged);
        forged[bit / 8] ^= 1 << (bit % 8);
    }
    rig.sent.clear();
    let status = rig.engine.status();
    assert_eq!(status.sas.len(), 1);
    assert_eq!(status.sas[0].path.remote, puppet_address(), "nobody moved");
    assert!(puppet.is_alive(&mut rig) && rig.children.len() == 1);
}

#[test]
fn wrong_initiator_flag_is_dropped() {
    let (mut rig, mut puppet) = up();
    let header = puppet.header(INFORMATIONAL, puppet.next_id);
    let turned = Header { flags: Flags(0), ..header };
    let message = puppet.seal(&turned, &[Delete::ike().into()]);
    rig.datagram(&message);
    assert!(rig.sent.is_empty() && puppet.is_alive(&mut rig));
}

#[test]
fn responses_nobody_waits_for_are_dropped() {
    let (mut rig, mut puppet) = up();
    for id in [0u32, 1, 2, 7, u32::MAX] {
        for exchange in [IKE_AUTH, CREATE_CHILD_SA, INFORMATIONAL] {
            let mut header = puppet.header(exchange, id);
            header.flags = header.flags | Flags::RESPONSE;
            let message =
                puppet.seal(&header, &[Delete::ike().into(), Notify::new(NotifyType::INVALID_SYNTAX).into()]);
            rig.datagram(&message);
        }
    }
    assert!(rig.sent.is_empty() && puppet.is_alive(&mut rig) && rig.children.len() == 1);
}

#[test]
fn message_ids_outside_the_window_are_dropped() {
    let (mut rig, mut puppet) = up();
    let next = puppet.next_id;
    for id in [0, next + 1, next + 2, next + 1000, u32::MAX - 1, u32::MAX] {
        let message = puppet.seal(&puppet.header(INFORMATIONAL, id), &[Delete::ike().into()]);
        rig.datagram(&message);
        assert!(rig.sent.is_empty(), "{id}");
    }
    assert!(puppet.is_alive(&mut rig));
}

#[test]
fn retransmitted_requests_are_answered_with_the_same_octets_and_not_done_again() {
    let (mut rig, mut puppet) = up();
    let mut payloads = puppet.child_payloads(0x7000_0033, true);
    let only = policy::EspProposal::parse("aes128gcm16-x25519").unwrap();
    payloads[0] = select::offer_esp(&[only], 0x7000_0033, true).into();
    payloads.push(Nonce(vec![5; 32]).into());
    payloads.push(Ke::new(KeId(Group::X25519.0), public_value(Group::X25519, 5)).into());
    let message = puppet.request(CREATE_CHILD_SA, &payloads);
    rig.hold = true;
    for _ in 0..5 {
        rig.datagram(&message);
    }
    rig.let_go();
    let (_, first) = rig.sent.pop_front().unwrap();
    assert!(rig.sent.is_empty());
    let (work, children) = (rig.work, rig.children.clone());
    for _ in 0..100 {
        rig.datagram(&message);
        assert_eq!(rig.sent.pop_front().map(|(_, m)| m), Some(first.clone()));
    }
    assert_eq!((rig.work, &rig.children), (work, &children));
    // After the next request it is too old for an answer.
    assert!(puppet.is_alive(&mut rig));
    rig.datagram(&message);
    assert!(rig.sent.is_empty());
    assert_eq!(rig.children, children);
}

#[test]
fn unknown_critical_payload_is_refused_and_the_sa_lives_on() {
    let (mut rig, mut puppet) = up();
    for exchange in [INFORMATIONAL, CREATE_CHILD_SA] {
        let answer = puppet.exchange(&mut rig, exchange, vec![unknown(201, Payload::CRITICAL, 4)]);
        let notify = answer.notify(NotifyType::UNSUPPORTED_CRITICAL_PAYLOAD).unwrap();
        assert_eq!(notify.data, [201]);
        assert!(puppet.is_alive(&mut rig), "{exchange}");
    }
    let answer = puppet.exchange(&mut rig, INFORMATIONAL, vec![unknown(201, 0, 4)]);
    assert!(errors(&answer).is_empty());
}

#[test]
fn exchanges_nobody_knows_are_not_carried_out() {
    let (mut rig, mut puppet) = up();
    for exchange in
        [ExchangeType::IKE_SA_INIT, ExchangeType::IKE_SESSION_RESUME, ExchangeType(0), ExchangeType(240)]
    {
        let message = puppet.request(exchange, &[Delete::ike().into()]);
        puppet.next_id -= 1;
        rig.datagram(&message);
        rig.sent.clear();
        assert_eq!((rig.ike_sas(), rig.children.len()), (1, 1), "{exchange}");
    }
}

#[test]
fn selector_length_that_lies_is_invalid_syntax() {
    for length in [0u16, 4, 8, 15, 17, 24, 40, 0xffff] {
        let (mut rig, mut puppet) = up();
        let mut ts = vec![1, 0, 0, 0, 7, 0];
        ts.extend_from_slice(&length.to_be_bytes());
        ts.extend_from_slice(&[0, 0, 255, 255, 10, 2, 0, 0, 10, 2, 255, 255]);
        let mut payloads = puppet.child_payloads(0x7000_0034, false);
        payloads.push(Nonce(vec![5; 32]).into());
        payloads[1] =
            Payload { flags: 0, body: Body::Unknown(Unknown { kind: PayloadType::TSI, bytes: ts }) };
        let answer = puppet.exchange(&mut rig, CREATE_CHILD_SA, payloads);
        assert_eq!(errors(&answer), [NotifyType::INVALID_SYNTAX], "{length}");
    }
}

#[test]
fn selectors_that_hold_nothing_are_unacceptable() {
    let table: Vec<TsPayload> = vec![
        TsPayload::new([]),
        TsPayload::new(["10.9.0.0/16".parse().unwrap()]),
        TsPayload::new(["::/0".parse().unwrap()]),
        TsPayload::new([wire::TrafficSelector::range(
            "10.2.0.9".parse().unwrap(),
            "10.2.0.1".parse().unwrap(),
        )]),
        TsPayload::new(
            (0..255u8).map(|i| wire::TrafficSelector::host(std::net::Ipv4Addr::new(172, 16, 0, i).into())),
        ),
    ];
    let (mut rig, mut puppet) = up();
    for ts in table {
        let mut payloads = puppet.child_payloads(0x7000_0034, false);
        payloads.push(Nonce(vec![5; 32]).into());
        payloads[1] = Body::TsI(ts).into();
        let answer = puppet.exchange(&mut rig, CREATE_CHILD_SA, payloads);
        assert_eq!(errors(&answer), [NotifyType::TS_UNACCEPTABLE]);
    }
    assert!(puppet.is_alive(&mut rig) && rig.children.len() == 1);
    assert!(rig.log_octets() < 20_000);
}

#[test]
fn rekey_of_what_is_not_there_names_it_and_harms_nothing() {
    let (mut rig, mut puppet) = up();
    for protocol in [0u8, 1, 2, 3, 4, 200] {
        for spi in [vec![], vec![0; 4], vec![1, 2, 3, 4], vec![9; 8], vec![9; 255]] {
            let mut payloads = puppet.child_payloads(0x7000_0035, false);
            payloads.push(Nonce(vec![5; 32]).into());
            let notify =
                Notify { protocol: ProtocolId(protocol), kind: NotifyType::REKEY_SA, spi, data: vec![] };
            payloads.insert(0, notify.into());
            let answer = puppet.exchange(&mut rig, CREATE_CHILD_SA, payloads);
            assert_eq!(errors(&answer), [NotifyType::CHILD_SA_NOT_FOUND], "protocol {protocol}");
        }
    }
    // The right SPI under the wrong protocol is not the child either.
    let mut payloads = puppet.child_payloads(0x7000_0035, false);
    payloads.push(Nonce(vec![5; 32]).into());
    payloads.insert(0, Notify::about_child(NotifyType::REKEY_SA, ProtocolId::AH, 0x7000_0001).into());
    let answer = puppet.exchange(&mut rig, CREATE_CHILD_SA, payloads);
    assert_eq!(errors(&answer), [NotifyType::CHILD_SA_NOT_FOUND]);
    assert!(puppet.is_alive(&mut rig) && rig.children.len() == 1);
}

#[test]
fn create_child_sa_without_its_payloads_is_refused() {
    let full = |puppet: &Puppet| {
        let mut payloads = puppet.child_payloads(0x7000_0036, false);
        payloads.push(Nonce(vec![5; 32]).into());
        payloads
    };
    for missing in [PayloadType::SA, PayloadType::NONCE, PayloadType::TSI, PayloadType::TSR] {
        let (mut rig, mut puppet) = up();
        let payloads = without(full(&puppet), missing);
        let answer = puppet.exchange(&mut rig, CREATE_CHILD_SA, payloads);
        assert_eq!(errors(&answer), [NotifyType::INVALID_SYNTAX], "{missing}");
        assert!(rig.children.len() <= 1);
    }
    let (mut rig, mut puppet) = up();
    assert_eq!(errors(&puppet.exchange(&mut rig, CREATE_CHILD_SA, vec![])), [NotifyType::INVALID_SYNTAX]);
}

#[test]
fn pfs_without_a_ke_payload_or_with_another_group_asks_for_ours() {
    let (mut rig, mut puppet) = up();
    for ke in [None, Some(Ke::new(KeId(Group::ECP256.0), vec![7; 64])), Some(Ke::new(KeId(0), vec![]))] {
        let mut payloads = puppet.child_payloads(0x7000_0037, true);
        // PFS only, so that there is no way round it.
        let only = policy::EspProposal::parse("aes128gcm16-x25519").unwrap();
        payloads[0] = select::offer_esp(&[only], 0x7000_0037, true).into();
        payloads.push(Nonce(vec![5; 32]).into());
        payloads.extend(ke.map(Payload::from));
        let work = rig.work;
        let answer = puppet.exchange(&mut rig, CREATE_CHILD_SA, payloads);
        let notify = answer.notify(NotifyType::INVALID_KE_PAYLOAD).unwrap();
        assert_eq!((notify.data_u16(), rig.work), (Some(Group::X25519.0), work));
    }
    assert!(puppet.is_alive(&mut rig) && rig.children.len() == 1);
}

#[test]
fn ke_payload_of_the_wrong_length_in_a_rekey_is_invalid_syntax() {
    for len in [0usize, 31, 33, 5000] {
        let (mut rig, mut puppet) = up();
        let mut payloads = puppet.rekey_payloads(Spi(0x99), &[5; 32]);
        payloads[2] = Ke::new(KeId(Group::X25519.0), vec![1; len]).into();
        let work = rig.work;
        let answer = puppet.exchange(&mut rig, CREATE_CHILD_SA, payloads);
        assert_eq!((errors(&answer), rig.work), (vec![NotifyType::INVALID_SYNTAX], work), "{len}");
    }
}

#[test]
fn ike_rekey_with_an_impossible_spi_finds_no_proposal() {
    for spi in [vec![], vec![1; 4], vec![0; 8], vec![1; 16]] {
        let (mut rig, mut puppet) = up();
        let mut payloads = puppet.rekey_payloads(Spi(0x99), &[5; 32]);
        let mut offer = select::offer_ike(&realm().ike, Some(Spi(1)));
        offer.proposals.iter_mut().for_each(|p| p.spi = spi.clone());
        payloads[0] = offer.into();
        let work = rig.work;
        let answer = puppet.exchange(&mut rig, CREATE_CHILD_SA, payloads);
        assert_eq!((errors(&answer), rig.work), (vec![NotifyType::NO_PROPOSAL_CHOSEN], work), "{spi:?}");
        assert!(puppet.is_alive(&mut rig) && rig.ike_sas() == 1);
    }
}

#[test]
fn children_without_end_come_to_an_end() {
    let ops = ops();
    let config = Config { realms: vec![Arc::new(realm())], children_limit: 20, ..Config::default() };
    let mut rig = Rig::with(ops.clone(), config);
    let mut puppet = Puppet::establish(&ops, &mut rig);
    let mut refused = 0;
    for n in 0..100u32 {
        let mut payloads = puppet.child_payloads(0x7100_0000 + n, false);
        payloads.push(Nonce(vec![5; 32]).into());
        let answer = puppet.exchange(&mut rig, CREATE_CHILD_SA, payloads);
        refused += usize::from(errors(&answer) == [NotifyType::NO_ADDITIONAL_SAS]);
    }
    assert_eq!((rig.children.len(), refused), (20, 81));
    assert!(puppet.is_alive(&mut rig));
}

#[test]
fn rekeying_without_ever_deleting_comes_to_an_end() {
    let ops = ops();
    let config = Config { realms: vec![Arc::new(realm())], children_limit: 20, ..Config::default() };
    let mut rig = Rig::with(ops.clone(), config);
    let mut puppet = Puppet::establish(&ops, &mut rig);
    let mut last = 0x7000_0001;
    for n in 0..100u32 {
        let mut payloads = puppet.child_payloads(0x7200_0000 + n, false);
        payloads.push(Nonce(vec![5; 32]).into());
        payloads.insert(0, Notify::rekey_sa(ProtocolId::ESP, last).into());
        let answer = puppet.exchange(&mut rig, CREATE_CHILD_SA, payloads);
        if answer.sa().is_some() {
            last = 0x7200_0000 + n;
        }
    }
    assert!(rig.children.len() <= 20, "{}", rig.children.len());
    assert!(puppet.is_alive(&mut rig));
}

#[test]
fn rekeying_the_ike_sa_without_ever_deleting_comes_to_an_end() {
    let (mut rig, mut puppet) = up();
    for n in 0..200u64 {
        let spi = Spi(0xaaaa_0000 + n);
        let nonce = vec![n as u8; 32];
        let payloads = puppet.rekey_payloads(spi, &nonce);
        let answer = puppet.exchange(&mut rig, CREATE_CHILD_SA, payloads);
        let Some(sa) = answer.sa() else { continue };
        let (theirs, secret) = (sa.proposals[0].ike_spi().unwrap(), puppet.rekey_secret(&answer));
        let nr = answer.nonce().unwrap().0.clone();
        puppet = puppet.successor(Role::Initiator, spi, theirs, nonce, nr, &secret);
    }
    assert!(rig.engine.status().sas.len() <= 64, "{} IKE SAs of one peer", rig.engine.status().sas.len());
    assert!(puppet.is_alive(&mut rig) && rig.children.len() == 1);
}

#[test]
fn deletes_of_what_is_not_there_are_answered_and_harm_nothing() {
    let (mut rig, mut puppet) = up();
    let own: u32 = rig.children.values().next().unwrap().0;
    let many: Vec<u32> = (0..1000).map(|n| 0x5000_0000 + n).collect();
    let odd = |protocol: u8, spi_size: u8, spis: Vec<Vec<u8>>| -> Payload {
        let mut bytes = vec![protocol, spi_size];
        bytes.extend_from_slice(&(spis.len() as u16).to_be_bytes());
        bytes.extend(spis.concat());
        Payload { flags: 0, body: Body::Unknown(Unknown { kind: PayloadType::DELETE, bytes }) }
    };
    for payloads in [
        vec![Delete::children(ProtocolId::ESP, &[1, 2, 3]).into()],
        vec![Delete::children(ProtocolId::ESP, &many).into()],
        vec![Delete::children(ProtocolId::ESP, &[]).into()],
        vec![Delete::children(ProtocolId::AH, &[0x7000_0001]).into()],
        // Our own inbound SPI is not how the peer names the child.
        vec![Delete::children(ProtocolId::ESP, &[own]).into()],
        vec![odd(3, 4, vec![]), odd(99, 4, vec![vec![1; 4]])],
    ] {
        let answer = puppet.exchange(&mut rig, INFORMATIONAL, payloads);
        assert!(answer.deletes().next().is_none(), "{answer:?}");
        assert_eq!(rig.children.len(), 1);
    }
    assert!(puppet.is_alive(&mut rig));
    // Named twice in one message, it is deleted once.
    let twice = vec![Delete::children(ProtocolId::ESP, &[0x7000_0001, 0x7000_0001]).into(); 2];
    let answer = puppet.exchange(&mut rig, INFORMATIONAL, twice);
    assert_eq!(answer.deletes().flat_map(Delete::child_spis).collect::<Vec<_>>(), [own]);
    assert!(puppet.is_alive(&mut rig));
}

#[test]
fn delete_whose_count_lies_is_invalid_syntax() {
    for (size, count, octets) in
        [(4u8, 2u16, 4usize), (4, 0xffff, 64), (255, 2, 255), (0, 1, 1), (4, 1, 5), (8, 1, 4)]
    {
        let (mut rig, mut puppet) = up();
        let mut bytes = vec![3, size];
        bytes.extend_from_slice(&count.to_be_bytes());
        bytes.resize(4 + octets, 7);
        let delete = Payload { flags: 0, body: Body::Unknown(Unknown { kind: PayloadType::DELETE, bytes }) };
        let answer = puppet.exchange(&mut rig, INFORMATIONAL, vec![delete]);
        assert_eq!(errors(&answer), [NotifyType::INVALID_SYNTAX], "{size} {count}");
    }
}

#[test]
fn storms_inside_an_established_sa_leave_little_log_and_a_living_sa() {
    let (mut rig, mut puppet) = up();
    let storms: Vec<Vec<Payload>> = vec![
        (0..100).map(|_| Vendor(vec![b'%'; 600]).into()).collect(),
        (0..100).map(|_| Notify::with_data(NotifyType(16_999), vec![b'%'; 600]).into()).collect(),
        (0..100).map(|_| Notify::with_data(NotifyType(5000), vec![b'%'; 600]).into()).collect(),
        (0..100).map(|_| unknown(200, 0, 600)).collect(),
        vec![Vendor(vec![0; 65_000]).into()],
    ];
    for storm in storms {
        let answer = puppet.exchange(&mut rig, INFORMATIONAL, storm);
        assert!(errors(&answer).is_empty());
    }
    assert!(rig.log_octets() < 20_000, "{} octets of log", rig.log_octets());
    assert!(puppet.is_alive(&mut rig) && rig.children.len() == 1);
}

#[test]
fn delete_of_the_ike_sa_is_answered_and_everything_goes() {
    let (mut rig, mut puppet) = up();
    let message = puppet.request(INFORMATIONAL, &[Delete::ike().into()]);
    rig.datagram(&message);
    let (_, first) = rig.sent.pop_front().unwrap();
    assert_eq!((rig.ike_sas(), rig.children.len()), (0, 0));
    rig.datagram(&message);
    assert_eq!(rig.sent.pop_front().map(|(_, m)| m), Some(first), "the response may have been lost");
    let late = puppet.request(CREATE_CHILD_SA, &puppet.child_payloads(0x7000_0040, false));
    rig.datagram(&late);
    assert!(rig.sent.is_empty() && rig.children.is_empty());
    rig.wait(Duration::from_secs(60));
    assert_eq!(rig.engine.status().sas.len(), 0);
}

#[test]
fn address_of_the_peer_changes_only_where_a_nat_may_have_moved_it() {
    let (mut rig, mut puppet) = up();
    let elsewhere = "203.0.113.66:500".parse().unwrap();
    // Authentic, from elsewhere: answered there, but without a NAT nothing moves (RFC 7296 sections 2.11 and 2.23).
    puppet.address = elsewhere;
    let answer = puppet.request(INFORMATIONAL, &[]);
    rig.datagram_from(elsewhere, &answer);
    assert_eq!(rig.sent.pop_front().map(|(path, _)| path.remote), Some(elsewhere));
    assert_eq!(rig.engine.status().sas[0].path.remote, puppet_address());
    assert_eq!(rig.engine.status().sas[0].path.local, engine_address());
}
