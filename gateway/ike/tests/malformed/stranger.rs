//! Before anything is there: messages that begin nothing.

use super::*;

#[test]
fn octets_that_are_no_ike_message_do_nothing() {
    let mut rig = rig();
    for len in 0..60 {
        for octet in [0, 0x20, 0x21, 0xff] {
            rig.datagram(&vec![octet; len]);
        }
    }
    let good = {
        let puppet = Puppet::initiator(&rig.ops.clone(), 1);
        puppet.init_message(puppet.init_payloads())
    };
    for len in 0..good.len() {
        rig.datagram(&good[..len]);
    }
    rig.datagram(&[good.clone(), vec![0]].concat());
    assert_untouched(&rig, "cut short or too long");
    for length in [0u32, 27, 28, good.len() as u32 - 1, good.len() as u32 + 1, u32::MAX] {
        let mut lie = good.clone();
        lie[24..28].copy_from_slice(&length.to_be_bytes());
        rig.datagram(&lie);
    }
    assert_untouched(&rig, "a length that lies");
}

#[test]
fn older_versions_are_dropped_and_higher_ones_told_once_what_we_speak() {
    let mut rig = rig();
    let puppet = Puppet::initiator(&rig.ops.clone(), 1);
    let good = puppet.init_message(puppet.init_payloads());
    for version in [0x00, 0x10, 0x11, 0x1f] {
        let mut old = good.clone();
        old[17] = version;
        rig.datagram(&old);
    }
    assert_untouched(&rig, "IKEv1");
    let mut new = good.clone();
    new[17] = 0x30;
    rig.datagram(&new);
    let (_, answer) = rig.sent.pop_front().expect("INVALID_MAJOR_VERSION");
    let answer = Message::parse(&answer).unwrap();
    assert!(answer.header.is_response() && answer.header.major == 2);
    assert_eq!(errors(&answer.payloads), [NotifyType::INVALID_MAJOR_VERSION]);
    assert!(answer.emit().len() < new.len());
    // Never an answer to an answer, or two gateways would talk for ever.
    new[19] |= Flags::RESPONSE.0;
    rig.datagram(&new);
    assert_untouched(&rig, "a response of a higher version");
    // RFC 7296 section 2.5: the minor version means nothing.
    let mut minor = good;
    minor[17] = 0x2f;
    rig.datagram(&minor);
    assert_eq!(rig.sent.len(), 1);
}

#[test]
fn answers_to_higher_versions_are_rate_limited() {
    let mut rig = rig();
    let puppet = Puppet::initiator(&rig.ops.clone(), 1);
    let mut new = puppet.init_message(puppet.init_payloads());
    new[17] = 0x30;
    for n in 0..10_000u64 {
        new[..8].copy_from_slice(&n.to_be_bytes());
        rig.datagram(&new);
    }
    assert!(rig.sent.len() <= 100, "{} answers to strangers in no time", rig.sent.len());
}

#[test]
fn init_without_one_of_its_payloads_does_nothing() {
    for missing in [PayloadType::SA, PayloadType::KE, PayloadType::NONCE] {
        let mut rig = rig();
        let puppet = Puppet::initiator(&rig.ops.clone(), 1);
        rig.datagram(&puppet.init_message(without(puppet.init_payloads(), missing)));
        assert_eq!((rig.work, rig.engine.status().sas.len()), (Work::default(), 0), "{missing}");
    }
    let mut rig = rig();
    let puppet = Puppet::initiator(&rig.ops.clone(), 1);
    rig.datagram(&puppet.init_message(vec![]));
    assert_eq!((rig.work, rig.engine.status().sas.len()), (Work::default(), 0));
}

#[test]
fn init_with_a_response_flag_or_no_initiator_flag_or_another_id_does_nothing() {
    let mut rig = rig();
    let puppet = Puppet::initiator(&rig.ops.clone(), 1);
    let good = puppet.init_message(puppet.init_payloads());
    for flags in [Flags::RESPONSE.0, Flags::RESPONSE.0 | Flags::INITIATOR.0, 0] {
        let mut odd = good.clone();
        odd[19] = flags;
        rig.datagram(&odd);
        assert_untouched(&rig, "flags");
    }
    for id in [1u32, 2, u32::MAX] {
        let mut odd = good.clone();
        odd[20..24].copy_from_slice(&id.to_be_bytes());
        rig.datagram(&odd);
        assert_untouched(&rig, "message ID");
    }
    let mut no_spi = good.clone();
    no_spi[..8].fill(0);
    rig.datagram(&no_spi);
    assert_untouched(&rig, "SPIi of zero");
    let mut with_spi = good;
    with_spi[8] = 9;
    rig.datagram(&with_spi);
    assert_eq!((rig.work, rig.engine.status().sas.len()), (Work::default(), 0), "SPIr of a first message");
}

#[test]
fn ke_payload_of_the_wrong_length_costs_no_exponentiation() {
    for len in [0usize, 1, 31, 33, 64, 60_000] {
        let mut rig = rig();
        let puppet = Puppet::initiator(&rig.ops.clone(), 1);
        let mut payloads = puppet.init_payloads();
        payloads[1] = Ke::new(KeId(Group::X25519.0), vec![7; len]).into();
        rig.datagram(&puppet.init_message(payloads));
        assert_eq!((rig.work, rig.engine.status().sas.len()), (Work::default(), 0), "{len}");
    }
}

#[test]
fn ke_payload_of_another_group_is_answered_statelessly_with_ours() {
    for group in [Group::MODP2048, Group(2), Group(0), Group(0xffff)] {
        let mut rig = rig();
        let puppet = Puppet::initiator(&rig.ops.clone(), 1);
        let mut payloads = puppet.init_payloads();
        payloads[1] = Ke::new(KeId(group.0), vec![7; 256]).into();
        rig.datagram(&puppet.init_message(payloads));
        let (_, answer) = rig.sent.pop_front().unwrap();
        let answer = Message::parse(&answer).unwrap();
        let asked = answer.payloads.notify(NotifyType::INVALID_KE_PAYLOAD).unwrap().data_u16();
        assert_eq!(asked, Some(Group::X25519.0), "{group}");
        assert_eq!((rig.work, rig.engine.status().sas.len()), (Work::default(), 0));
    }
}

#[test]
fn nonces_too_short_or_too_long_are_refused() {
    for len in [0, 1, 15, 257, 1000] {
        let mut rig = rig();
        let puppet = Puppet::initiator(&rig.ops.clone(), 1);
        let mut payloads = puppet.init_payloads();
        payloads[2] = Nonce(vec![7; len]).into();
        rig.datagram(&puppet.init_message(payloads));
        assert_eq!((rig.work, rig.engine.status().sas.len()), (Work::default(), 0), "{len}");
    }
}

#[test]
fn unknown_payloads_of_init_are_ignored_and_critical_ones_refused_by_type() {
    for kind in [1, 13, 32, 49, 130, 255] {
        let mut rig = rig();
        let puppet = Puppet::initiator(&rig.ops.clone(), 1);
        let mut payloads = puppet.init_payloads();
        payloads.insert(1, unknown(kind, 0, 10));
        rig.datagram(&puppet.init_message(payloads.clone()));
        let (_, answer) = rig.sent.pop_front().unwrap();
        assert!(Message::parse(&answer).unwrap().payloads.sa().is_some(), "{kind}");
        let mut rig = self::rig();
        payloads[1].flags = Payload::CRITICAL;
        rig.datagram(&puppet.init_message(payloads));
        let (_, answer) = rig.sent.pop_front().unwrap();
        let answer = Message::parse(&answer).unwrap();
        let notify = answer.payloads.notify(NotifyType::UNSUPPORTED_CRITICAL_PAYLOAD).unwrap();
        assert_eq!((notify.data.as_slice(), rig.work), (&[kind][..], Work::default()));
    }
}

#[test]
fn critical_bit_and_reserved_bits_on_known_payloads_mean_nothing() {
    let mut rig = rig();
    let puppet = Puppet::initiator(&rig.ops.clone(), 1);
    let mut payloads = puppet.init_payloads();
    payloads.iter_mut().for_each(|p| p.flags = 0xff);
    let mut message = puppet.init_message(payloads);
    message[19] |= 0x47; // Reserved flag bits.
    rig.datagram(&message);
    let (_, answer) = rig.sent.pop_front().unwrap();
    assert!(Message::parse(&answer).unwrap().payloads.sa().is_some());
}

#[test]
fn payloads_in_any_order_are_accepted() {
    let mut rig = rig();
    let mut puppet = Puppet::initiator(&rig.ops.clone(), 1);
    let payloads: Vec<Payload> = puppet.init_payloads().into_iter().rev().collect();
    let message = puppet.init_message(payloads);
    puppet.init_request = message.clone();
    rig.datagram(&message);
    let (_, answer) = rig.sent.pop_front().unwrap();
    puppet.take_init_response(&answer);
    let auth = puppet.auth_payloads().into_iter().rev().collect();
    assert!(puppet.exchange(&mut rig, IKE_AUTH, auth).auth().is_some());
}

#[test]
fn fragment_or_sk_in_the_first_message_does_nothing() {
    let mut rig = rig();
    let puppet = Puppet::initiator(&rig.ops.clone(), 1);
    let mut payloads = puppet.init_payloads();
    let header = Header::new(puppet.spi_i, Spi::ZERO, ExchangeType::IKE_SA_INIT, Flags::INITIATOR, 0);
    payloads.push(
        wire::ike::Fragment { first_inner: PayloadType::NONE, number: 1, total: 2, body: vec![0; 64] }.into(),
    );
    rig.datagram(&Message::new(header, payloads.clone()).emit());
    assert!(rig.engine.status().sas.iter().all(|sa| sa.established.is_none()));
    let alone = vec![payloads.pop().unwrap()];
    let mut rig = self::rig();
    rig.datagram(&Message::new(header, alone).emit());
    assert_untouched(&rig, "SKF");
}

#[test]
fn messages_for_nobody_keep_no_state_and_get_little_back() {
    let mut rig = rig();
    let (_, mut stranger) = half_open();
    for exchange in
        [IKE_AUTH, CREATE_CHILD_SA, INFORMATIONAL, ExchangeType::IKE_SESSION_RESUME, ExchangeType(200)]
    {
        for flags in [Flags(0), Flags::INITIATOR, Flags::RESPONSE, Flags::INITIATOR | Flags::RESPONSE] {
            let header = Header { flags, ..stranger.header(exchange, 1) };
            let message = stranger.seal(&header, &[]);
            rig.datagram(&message);
            let plain = Message::new(header, vec![Delete::ike().into()]).emit();
            rig.datagram(&plain);
            let answers = std::mem::take(&mut rig.sent);
            for (_, answer) in answers {
                // RFC 7296 section 2.21.4: a request may be told, a response never.
                assert!(!header.is_response(), "an answer to a response");
                let answer = Message::parse(&answer).unwrap();
                assert!(answer.header.is_response() && answer.emit().len() <= plain.len() + 8);
                assert_eq!(errors(&answer.payloads), [NotifyType::INVALID_IKE_SPI]);
            }
        }
    }
    assert_untouched(&rig, "messages for nobody");
    for id in 0..10_000 {
        let header = Header { flags: Flags::INITIATOR, ..stranger.header(INFORMATIONAL, id) };
        rig.datagram(&Message::new(header, vec![]).emit());
    }
    assert!(rig.sent.len() <= 100, "{} answers to strangers in no time", rig.sent.len());
}
