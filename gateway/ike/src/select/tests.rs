use super::*;
use proptest::prelude::*;
use wire::ike::Attribute;
use wire::numbers::AttributeType;

const SPI: u32 = 0x1000_0001;
const PEER_SPI: u32 = 0x2000_0002;

fn ike(texts: &[&str]) -> Vec<IkeProposal> {
    texts.iter().map(|t| IkeProposal::parse(t).unwrap()).collect()
}

fn esp(texts: &[&str]) -> Vec<EspProposal> {
    texts.iter().map(|t| EspProposal::parse(t).unwrap()).collect()
}

fn text(proposal: &Proposal) -> String {
    describe(&Sa::new(vec![proposal.clone()]))
}

/// What a responder with `ours` makes of the offer of an initiator with `theirs`, checked at both ends.
fn agree_ike(ours: &[&str], theirs: &[&str], ke: Option<Group>) -> Option<String> {
    let offered = offer_ike(&ike(theirs), None);
    let chosen = choose_ike(&ike(ours), &offered, None, ke).ok()?;
    assert_eq!(check_ike_answer(&offered, &chosen.answer), Ok((chosen.suite, Spi::ZERO)));
    Some(chosen.suite.to_string())
}

fn agree_esp(ours: &[&str], theirs: &[&str], pfs: bool, ke: Option<Group>) -> Option<String> {
    let offered = offer_esp(&esp(theirs), PEER_SPI, pfs);
    let chosen = choose_esp(&esp(ours), &offered, SPI, pfs, ke).ok()?;
    assert_eq!(chosen.spi, PEER_SPI);
    assert_eq!(check_esp_answer(&offered, &chosen.answer), Ok((chosen.suite, SPI)));
    Some(chosen.suite.to_string())
}

#[test]
fn offer_has_numbered_proposals_with_everything_an_algorithm_needs() {
    let sa =
        offer_ike(&ike(&["aes128gcm16-aes256gcm16-prfsha256-x25519-ecp256", "aes256-sha256-modp2048"]), None);
    let said: Vec<String> = sa.proposals.iter().map(text).collect();
    assert_eq!(said, ["aes128gcm16-aes256gcm16-prfsha256-x25519-ecp256", "aes256-sha256-prfsha256-modp2048"]);
    assert_eq!(sa.proposals.iter().map(|p| p.number).collect::<Vec<_>>(), [1, 2]);
    assert!(sa.proposals.iter().all(|p| p.spi.is_empty() && p.protocol == ProtocolId::IKE));
    let rekey = offer_ike(&ike(&["aes256-sha256-modp2048"]), Some(Spi(5)));
    assert_eq!(rekey.proposals[0].ike_spi(), Some(Spi(5)));
    let child = offer_esp(&esp(&["chacha20poly1305-x25519-esn-noesn"]), SPI, true);
    assert_eq!(child.proposals[0].child_spi(), Some(SPI));
    assert_eq!(text(&child.proposals[0]), "chacha20poly1305-x25519-esn");
    assert_eq!(child.proposals[0].of_kind(TransformType::SN).count(), 2);
}

#[test]
fn combined_modes_and_others_of_one_list_are_offered_apart() {
    let mixed = IkeProposal {
        encr: vec![Encr::AES256_CBC, Encr::AES128_GCM16],
        integ: vec![Integ::HMAC_SHA2_256_128],
        prf: vec![Prf::HMAC_SHA2_256],
        groups: vec![Group::X25519],
    };
    let said: Vec<String> = offer_ike(&[mixed], None).proposals.iter().map(text).collect();
    assert_eq!(said, ["aes256-sha256-prfsha256-x25519", "aes128gcm16-prfsha256-x25519"]);
}

#[test]
fn what_protects_nothing_is_neither_offered_nor_accepted() {
    let naked = EspProposal {
        encr: vec![Encr::AES128_CBC],
        integ: vec![Integ::NONE],
        groups: vec![],
        esn: vec![false],
    };
    assert_eq!(offer_esp(std::slice::from_ref(&naked), SPI, true).proposals, []);
    let theirs = Sa::new(vec![Proposal::new(
        1,
        ProtocolId::ESP,
        PEER_SPI.to_be_bytes().to_vec(),
        vec![
            Transform::with_key_bits(TransformType::ENCR, 12u16, 128),
            Transform::new(TransformType::INTEG, 0u16),
            Transform::new(TransformType::SN, 0u16),
        ],
    )]);
    assert!(choose_esp(&[naked], &theirs, SPI, true, None).is_err());
    assert!(choose_esp(&esp(&["aes128-sha256"]), &theirs, SPI, true, None).is_err());
    let open =
        IkeProposal { encr: vec![Encr::NULL, Encr::AES128_GMAC], ..ike(&["aes128-sha256-x25519"]).remove(0) };
    assert_eq!(offer_ike(&[open], None).proposals, []);
}

#[test]
fn pfs_groups_stay_out_of_ike_auth_and_proposals_are_said_once() {
    let ours = esp(&["aes128gcm16-x25519", "aes128gcm16", "aes256-sha256-ecp256"]);
    let said: Vec<String> = offer_esp(&ours, SPI, false).proposals.iter().map(text).collect();
    assert_eq!(said, ["aes128gcm16", "aes256-sha256"]);
    assert_eq!(offer_esp(&ours, SPI, true).proposals.len(), 3);
}

#[test]
fn our_order_decides_between_proposals_and_within() {
    let table: &[(&[&str], &[&str], Option<&str>)] = &[
        (
            &["aes256gcm16-prfsha384-ecp384", "aes128-sha256-modp2048"],
            &["aes128-sha256-modp2048", "aes256gcm16-prfsha384-ecp384"],
            Some("aes256gcm16-prfsha384-ecp384"),
        ),
        (
            &["aes128-sha256-modp2048", "aes256gcm16-prfsha384-ecp384"],
            &["aes256gcm16-prfsha384-ecp384", "aes128-sha256-modp2048"],
            Some("aes128-sha256-modp2048"),
        ),
        (
            &["aes256gcm16-aes128gcm16-prfsha512-prfsha256-x25519-ecp256"],
            &["aes128gcm16-aes256gcm16-prfsha256-prfsha512-ecp256-x25519"],
            Some("aes256gcm16-prfsha512-x25519"),
        ),
        (&["aes128gcm16-prfsha256-x25519"], &["aes256gcm16-prfsha256-x25519"], None),
        (&["aes128gcm16-prfsha256-x25519"], &["aes128gcm8-prfsha256-x25519"], None),
        (&["aes128gcm16-prfsha256-x25519"], &["aes128gcm16-prfsha384-x25519"], None),
        (&["aes128gcm16-prfsha256-x25519"], &["aes128gcm16-prfsha256-ecp256"], None),
        (&["aes128-sha256-modp2048"], &["aes128-sha512-prfsha256-modp2048"], None),
        (
            &["aes128-sha256-modp3072-modp2048"],
            &["aes192-sha256-modp2048", "aes128-sha1-sha256-prfsha256-modp2048"],
            Some("aes128-sha256-modp2048"),
        ),
        (&[], &["aes128-sha256-modp2048"], None),
        (&["aes128-sha256-modp2048"], &[], None),
    ];
    for (ours, theirs, want) in table {
        assert_eq!(agree_ike(ours, theirs, None).as_deref(), *want, "{ours:?} {theirs:?}");
    }
}

#[test]
fn algorithms_are_not_mixed_across_proposals() {
    // Neither proposal of the peer has both.
    let theirs = ["aes256-sha256-modp2048", "aes128-sha512-modp2048"];
    assert_eq!(agree_ike(&["aes256-sha512-modp2048"], &theirs, None), None);
}

#[test]
fn group_of_the_ke_payload_is_taken_if_the_proposal_has_it() {
    let ours = ["aes128gcm16-prfsha256-x25519-ecp256", "aes128gcm16-prfsha256-modp2048"];
    let theirs = ["aes128gcm16-prfsha256-ecp256-x25519-modp2048"];
    let group = |ke| agree_ike(&ours, &theirs, ke).unwrap();
    assert_eq!(group(Some(Group::ECP256)), "aes128gcm16-prfsha256-ecp256");
    assert_eq!(group(Some(Group::X25519)), "aes128gcm16-prfsha256-x25519");
    assert_eq!(
        group(Some(Group::MODP2048)),
        "aes128gcm16-prfsha256-x25519",
        "a lesser proposal is no reason"
    );
    assert_eq!(group(Some(Group::ECP521)), "aes128gcm16-prfsha256-x25519", "we don't have it");
    assert_eq!(group(Some(Group::NONE)), "aes128gcm16-prfsha256-x25519");
    // A group it sent a value for, but did not offer in the proposal.
    let theirs = ["aes128gcm16-prfsha256-x25519"];
    assert_eq!(agree_ike(&ours, &theirs, Some(Group::ECP256)).unwrap(), "aes128gcm16-prfsha256-x25519");
}

#[test]
fn esp_table_of_pfs_and_esn() {
    type Row<'a> = (&'a [&'a str], &'a [&'a str], bool, Option<&'a str>);
    let table: &[Row<'_>] = &[
        (&["aes128gcm16"], &["aes128gcm16"], true, Some("aes128gcm16")),
        (&["aes128gcm16-x25519"], &["aes128gcm16"], true, None),
        (&["aes128gcm16"], &["aes128gcm16-x25519"], true, None),
        (&["aes128gcm16"], &["aes128gcm16-x25519"], false, Some("aes128gcm16")),
        (&["aes128gcm16-x25519"], &["aes128gcm16"], false, Some("aes128gcm16")),
        (&["aes128gcm16-x25519", "aes128gcm16"], &["aes128gcm16"], true, Some("aes128gcm16")),
        (
            &["aes128gcm16-x25519", "aes128gcm16"],
            &["aes128gcm16", "aes128gcm16-x25519"],
            true,
            Some("aes128gcm16-x25519"),
        ),
        (&["aes128gcm16-esn"], &["aes128gcm16"], false, None),
        (&["aes128gcm16-esn-noesn"], &["aes128gcm16"], false, Some("aes128gcm16")),
        (&["aes128gcm16-esn-noesn"], &["aes128gcm16-noesn-esn"], false, Some("aes128gcm16-esn")),
        (&["aes128gcm16-noesn-esn"], &["aes128gcm16-esn-noesn"], false, Some("aes128gcm16")),
        (&["null-sha256"], &["null-sha256"], false, Some("null-sha256")),
        (&["aes128gmac"], &["aes128gmac"], false, Some("aes128gmac")),
        (&["aes128-sha512"], &["aes128-sha256"], false, None),
    ];
    for (ours, theirs, pfs, want) in table {
        assert_eq!(agree_esp(ours, theirs, *pfs, None).as_deref(), *want, "{ours:?} {theirs:?} {pfs}");
    }
}

fn ike_offer(transforms: Vec<Transform>) -> Sa {
    Sa::new(vec![Proposal::new(1, ProtocolId::IKE, vec![], transforms)])
}

/// Transforms that `aes128-sha256-x25519` accepts.
fn plain() -> Vec<Transform> {
    vec![
        Transform::with_key_bits(TransformType::ENCR, 12u16, 128),
        Transform::new(TransformType::INTEG, 12u16),
        Transform::new(TransformType::PRF, 5u16),
        Transform::new(TransformType::KE, 31u16),
    ]
}

fn chooses(transforms: Vec<Transform>) -> bool {
    choose_ike(&ike(&["aes128-sha256-x25519"]), &ike_offer(transforms), None, None).is_ok()
}

#[test]
fn unknown_transform_type_rules_the_proposal_out_and_no_other() {
    assert!(chooses(plain()));
    for kind in [TransformType::SN, TransformType::ADDKE1, TransformType(99), TransformType(0)] {
        let mut odd = plain();
        odd.push(Transform::new(kind, 0u16));
        assert!(!chooses(odd.clone()), "{kind}");
        let mut sa = ike_offer(odd);
        sa.proposals.push(Proposal::new(2, ProtocolId::IKE, vec![], plain()));
        let chosen = choose_ike(&ike(&["aes128-sha256-x25519"]), &sa, None, None).unwrap();
        assert_eq!(chosen.answer.proposals[0].number, 2, "the number is the peer's");
    }
}

#[test]
fn unknown_transform_ids_and_attributes_rule_out_that_transform_only() {
    let mut odd = plain();
    odd.insert(0, Transform::new(TransformType::ENCR, 999u16));
    odd.insert(0, Transform::new(TransformType::PRF, 999u16));
    assert!(chooses(odd));
    let spoil = |at: usize, attribute: Attribute| {
        let mut odd = plain();
        odd[at].attributes.push(attribute);
        odd
    };
    for at in 0..4 {
        let strange = spoil(at, Attribute::Tv(AttributeType(77), 1));
        assert!(!chooses(strange.clone()), "{at}");
        assert!(!chooses(spoil(at, Attribute::Tlv(AttributeType(77), vec![1, 2]))), "{at}");
        assert!(
            !chooses(spoil(at, Attribute::Tv(AttributeType::KEY_LENGTH, 256))),
            "two key lengths, or one too many"
        );
        let mut both = strange;
        both.extend(plain());
        assert!(chooses(both), "the plain one is there as well");
    }
}

#[test]
fn key_length_must_be_there_exactly_where_keys_have_several() {
    let encr = |t: Transform| {
        let mut offer = plain();
        offer[0] = t;
        chooses(offer)
    };
    assert!(encr(Transform::with_key_bits(TransformType::ENCR, 12u16, 128)));
    assert!(!encr(Transform::new(TransformType::ENCR, 12u16)), "no key length");
    assert!(!encr(Transform::with_key_bits(TransformType::ENCR, 12u16, 0)));
    assert!(!encr(Transform::with_key_bits(TransformType::ENCR, 12u16, 129)));
    let mut long = Transform::new(TransformType::ENCR, 12u16);
    long.attributes.push(Attribute::Tlv(AttributeType::KEY_LENGTH, vec![0, 128]));
    assert!(!encr(long), "key length in the long form");
    let chacha = |t| {
        let offer = ike_offer(vec![t, plain()[2].clone(), plain()[3].clone()]);
        choose_ike(&ike(&["chacha20poly1305-prfsha256-x25519"]), &offer, None, None).is_ok()
    };
    assert!(chacha(Transform::new(TransformType::ENCR, 28u16)));
    assert!(!chacha(Transform::with_key_bits(TransformType::ENCR, 28u16, 256)));
}

#[test]
fn proposal_without_a_needed_type_is_no_choice() {
    for at in 0..4 {
        let mut less = plain();
        less.remove(at);
        assert!(!chooses(less), "{at}");
    }
    let mut none = plain();
    none[3] = Transform::new(TransformType::KE, 0u16);
    assert!(!chooses(none), "an IKE SA without a key exchange");
    none = plain();
    none[1] = Transform::new(TransformType::INTEG, 0u16);
    assert!(!chooses(none), "CBC without integrity");
    assert!(!chooses(vec![]));
}

#[test]
fn combined_mode_is_taken_without_integrity_or_with_none_and_answered_likewise() {
    let ours = ike(&["aes128gcm16-prfsha256-x25519"]);
    let offer = |integ: &[u16]| {
        let mut all = plain();
        all[0] = Transform::with_key_bits(TransformType::ENCR, 20u16, 128);
        all.remove(1);
        all.extend(integ.iter().map(|i| Transform::new(TransformType::INTEG, *i)));
        ike_offer(all)
    };
    let integ_of = |sa: &Sa| {
        let chosen = choose_ike(&ours, sa, None, None).ok()?;
        assert_eq!(chosen.suite.integ, Integ::NONE);
        let answer = &chosen.answer.proposals[0];
        Some(answer.of_kind(TransformType::INTEG).map(|t| t.id).collect::<Vec<_>>())
    };
    assert_eq!(integ_of(&offer(&[])), Some(vec![]));
    assert_eq!(integ_of(&offer(&[0])), Some(vec![0]));
    assert_eq!(integ_of(&offer(&[12, 0])), Some(vec![0]));
    assert_eq!(integ_of(&offer(&[12])), None, "integrity on top of a combined mode was asked for");
}

#[test]
fn answer_has_one_transform_of_each_type_even_when_the_offer_repeats_itself() {
    let mut twice = plain();
    twice.extend(plain());
    let mut offer = ike_offer(twice);
    offer.proposals[0].transforms[0].reserved = [9, 9];
    let chosen = choose_ike(&ike(&["aes128-sha256-x25519"]), &offer, None, None).unwrap();
    assert_eq!(chosen.answer.proposals[0].transforms, plain());
    assert_eq!(check_ike_answer(&offer, &chosen.answer), Ok((chosen.suite, Spi::ZERO)));
}

#[test]
fn spis_must_fit_protocol_and_exchange() {
    let ours = ike(&["aes128-sha256-x25519"]);
    let with = |spi: Vec<u8>| Sa::new(vec![Proposal::new(1, ProtocolId::IKE, spi, plain())]);
    for (spi, init, rekey) in [
        (vec![], true, false),
        (vec![0, 0, 0, 0, 0, 0, 0, 7], false, true),
        (vec![0; 8], false, false),
        (vec![7; 4], false, false),
        (vec![7; 255], false, false),
    ] {
        assert_eq!(choose_ike(&ours, &with(spi.clone()), None, None).is_ok(), init, "{spi:?}");
        let chosen = choose_ike(&ours, &with(spi.clone()), Some(Spi(3)), None);
        assert_eq!(chosen.is_ok(), rekey, "{spi:?}");
        if let Ok(chosen) = chosen {
            assert_eq!((chosen.spi, chosen.answer.proposals[0].ike_spi()), (Spi(7), Some(Spi(3))));
        }
    }
    let ours = esp(&["aes128gcm16"]);
    let offer = |spi: u32| offer_esp(&ours, spi, false);
    for (spi, usable) in [(0, false), (1, false), (255, false), (256, true), (u32::MAX, true)] {
        assert_eq!(choose_esp(&ours, &offer(spi), SPI, false, None).is_ok(), usable, "{spi}");
        assert_eq!(check_esp_answer(&offer(SPI), &offer(spi)).is_ok(), usable, "{spi}");
    }
    let mut wide = offer(SPI);
    wide.proposals[0].spi = vec![1; 8];
    assert!(choose_esp(&ours, &wide, SPI, false, None).is_err());
    let mut ah = offer(SPI);
    ah.proposals[0].protocol = ProtocolId::AH;
    assert!(choose_esp(&ours, &ah, SPI, false, None).is_err());
    assert!(choose_ike(&ike(&["aes128-sha256-x25519"]), &offer(SPI), None, None).is_err());
}

#[test]
fn key_exchange_none_written_down_is_answered_in_writing() {
    let ours = esp(&["aes128gcm16"]);
    let mut offer = offer_esp(&ours, PEER_SPI, true);
    offer.proposals[0].transforms.push(Transform::new(TransformType::KE, 31u16));
    offer.proposals[0].transforms.push(Transform::new(TransformType::KE, 0u16));
    for pfs in [true, false] {
        let chosen = choose_esp(&ours, &offer, SPI, pfs, None).unwrap();
        assert_eq!(chosen.suite.group, None);
        let kes: Vec<u16> = chosen.answer.proposals[0].of_kind(TransformType::KE).map(|t| t.id).collect();
        assert_eq!(kes, [0]);
        assert_eq!(check_esp_answer(&offer, &chosen.answer), Ok((chosen.suite, SPI)));
    }
}

#[test]
fn offer_without_sequence_number_type_means_short_numbers() {
    let mut offer = offer_esp(&esp(&["aes128gcm16"]), PEER_SPI, false);
    offer.proposals[0].transforms.retain(|t| t.kind != TransformType::SN);
    let chosen = choose_esp(&esp(&["aes128gcm16"]), &offer, SPI, false, None).unwrap();
    assert!(!chosen.suite.esn);
    assert_eq!(chosen.answer.proposals[0].of_kind(TransformType::SN).count(), 0);
    assert!(choose_esp(&esp(&["aes128gcm16-esn"]), &offer, SPI, false, None).is_err());
}

#[test]
fn answers_that_are_not_a_choice_from_our_offer_are_refused() {
    let offered =
        offer_ike(&ike(&["aes256gcm16-aes128gcm16-prfsha256-x25519-ecp256", "aes128-sha256-modp2048"]), None);
    let good = choose_ike(&ike(&["aes128gcm16-prfsha256-ecp256"]), &offered, None, None).unwrap().answer;
    assert!(check_ike_answer(&offered, &good).is_ok());
    let wrong = |spoil: &dyn Fn(&mut Sa)| {
        let mut answer = good.clone();
        spoil(&mut answer);
        check_ike_answer(&offered, &answer).unwrap_err()
    };
    let transforms = |spoil: &dyn Fn(&mut Vec<Transform>)| wrong(&|a| spoil(&mut a.proposals[0].transforms));
    assert_eq!(wrong(&|a| a.proposals.clear()), BadAnswer::NotOneProposal);
    assert_eq!(wrong(&|a| a.proposals.push(good.proposals[0].clone())), BadAnswer::NotOneProposal);
    assert_eq!(wrong(&|a| a.proposals[0].number = 3), BadAnswer::NotOffered);
    assert_eq!(wrong(&|a| a.proposals[0].protocol = ProtocolId::ESP), BadAnswer::NotOffered);
    assert_eq!(wrong(&|a| a.proposals[0].number = 2), BadAnswer::BadTransforms);
    assert_eq!(wrong(&|a| a.proposals[0].spi = vec![1; 8]), BadAnswer::BadSpi);
    for at in 0..3 {
        assert_eq!(transforms(&|t| drop(t.remove(at))), BadAnswer::BadTransforms, "{at} missing");
        assert_eq!(transforms(&|t| t.push(t[at].clone())), BadAnswer::BadTransforms, "{at} twice");
        assert_eq!(transforms(&|t| t[at].id = 2), BadAnswer::BadTransforms, "{at} not offered");
        let attribute = Attribute::Tv(AttributeType(50), 3);
        assert_eq!(transforms(&|t| t[at].attributes.push(attribute.clone())), BadAnswer::BadTransforms);
    }
    assert_eq!(transforms(&|t| t[0].attributes.clear()), BadAnswer::BadTransforms);
    assert_eq!(
        transforms(&|t| t.push(Transform::new(TransformType::INTEG, 12u16))),
        BadAnswer::BadTransforms
    );
    assert_eq!(transforms(&|t| t.push(Transform::new(TransformType::SN, 0u16))), BadAnswer::BadTransforms);
    assert_eq!(transforms(&|t| t.push(Transform::new(TransformType(60), 0u16))), BadAnswer::BadTransforms);
    // Integrity NONE for a combined mode says what leaving it out says.
    let mut with_none = good.clone();
    with_none.proposals[0].transforms.push(Transform::new(TransformType::INTEG, 0u16));
    assert!(check_ike_answer(&offered, &with_none).is_ok());
    assert!(check_ike_answer(&offered, &offered).is_err(), "our own offer sent back");
}

#[test]
fn answer_may_not_bring_pfs_or_long_numbers_we_did_not_offer() {
    let offered = offer_esp(&esp(&["aes128gcm16"]), PEER_SPI, true);
    for (kind, id) in [(TransformType::KE, 31u16), (TransformType::SN, 1), (TransformType::INTEG, 12)] {
        let mut answer = offer_esp(&esp(&["aes128gcm16"]), SPI, true);
        answer.proposals[0].transforms.retain(|t| t.kind != kind);
        assert!(check_esp_answer(&offered, &answer).is_ok(), "{kind} left out");
        answer.proposals[0].transforms.push(Transform::new(kind, id));
        assert_eq!(check_esp_answer(&offered, &answer), Err(BadAnswer::BadTransforms), "{kind}");
    }
    // Nor leave out the one it was offered.
    let offered = offer_esp(&esp(&["aes128gcm16-x25519"]), PEER_SPI, true);
    let mut answer = offer_esp(&esp(&["aes128gcm16-x25519"]), SPI, true);
    answer.proposals[0].transforms.retain(|t| t.kind != TransformType::KE);
    assert_eq!(check_esp_answer(&offered, &answer), Err(BadAnswer::BadTransforms));
}

#[test]
fn invalid_ke_leads_only_to_a_group_we_offered() {
    let offered = offer_ike(&ike(&["aes128gcm16-prfsha256-x25519-ecp256", "aes128-sha256-modp2048"]), None);
    let retry = |group: Group| retry_group(&offered, Group::X25519, &invalid_ke(group));
    assert_eq!(retry(Group::ECP256), Some(Group::ECP256));
    assert_eq!(retry(Group::MODP2048), Some(Group::MODP2048));
    for refused in [Group::X25519, Group::NONE, Group::ECP521, Group(2), Group(9999)] {
        assert_eq!(retry(refused), None, "{refused}");
    }
    for data in [vec![], vec![19], vec![0, 0, 19]] {
        let odd = Notify::with_data(NotifyType::INVALID_KE_PAYLOAD, data);
        assert_eq!(retry_group(&offered, Group::X25519, &odd), None);
    }
}

#[test]
fn first_group_is_that_of_the_first_proposal() {
    assert_eq!(
        first_group(&ike(&["aes128-sha256-ecp384-x25519", "aes128-sha256-x448"])),
        Some(Group::ECP384)
    );
    assert_eq!(first_group(&[]), None);
    assert_eq!(first_esp_group(&esp(&["aes128gcm16-x25519", "aes128gcm16"])), Some(Group::X25519));
    assert_eq!(first_esp_group(&esp(&["aes128gcm16", "aes128gcm16-x25519"])), None);
}

#[test]
fn refusal_says_what_there_was_and_stays_short() {
    let offered = offer_ike(&ike(&["aes128-sha1-modp2048"]), None);
    let refusal = choose_ike(&ike(&["aes256gcm16-prfsha384-ecp384"]), &offered, None, None).unwrap_err();
    let said = "the peer offers aes128-sha1-prfsha1-modp2048; we accept aes256gcm16-prfsha384-ecp384";
    assert_eq!(refusal.to_string(), said);
    let many =
        (0..250).map(|i| Transform::with_key_bits(TransformType::ENCR, 60_000u16 + i, 65_535)).collect();
    let storm = Sa::new(vec![Proposal::new(1, ProtocolId::IKE, vec![], many); 128]);
    let refusal = choose_ike(&ike(&["aes256gcm16-prfsha384-ecp384"]), &storm, None, None).unwrap_err();
    assert!(refusal.offered.len() < 1000, "{}", refusal.offered.len());
    let refusal = choose_ike(&[], &Sa::new(vec![]), None, None).unwrap_err();
    assert_eq!(refusal.to_string(), "the peer offers nothing; we accept nothing");
}

fn any_list<T: Copy + std::fmt::Debug>(all: &'static [T]) -> impl Strategy<Value = Vec<T>> {
    prop::sample::subsequence(all.to_vec(), 1..=all.len().min(3)).prop_shuffle()
}

fn any_ike() -> impl Strategy<Value = IkeProposal> {
    const ENCR: &[Encr] = &[Encr::AES128_CBC, Encr::AES256_CBC, Encr::AES128_GCM16, Encr::CHACHA20_POLY1305];
    const INTEG: &[Integ] = &[Integ::HMAC_SHA2_256_128, Integ::HMAC_SHA1_96, Integ::AES_XCBC_96];
    const PRF: &[Prf] = &[Prf::HMAC_SHA2_256, Prf::HMAC_SHA2_512];
    const GROUPS: &[Group] = &[Group::X25519, Group::ECP256, Group::MODP2048];
    (any_list(ENCR), any_list(INTEG), any_list(PRF), any_list(GROUPS))
        .prop_map(|(encr, integ, prf, groups)| IkeProposal { encr, integ, prf, groups })
}

fn any_transform() -> impl Strategy<Value = Transform> {
    let id = prop_oneof![0u16..40, any::<u16>()];
    let bits = prop_oneof![Just(None), prop::sample::select(vec![0u16, 128, 256, 512]).prop_map(Some)];
    (0u8..16, id, bits).prop_map(|(kind, id, bits)| match bits {
        None => Transform::new(TransformType(kind), id),
        Some(bits) => Transform::with_key_bits(TransformType(kind), id, bits),
    })
}

proptest! {
    /// Two ends that agree on anything agree on the same; the initiator accepts what the responder chose; and if there is
    /// something in common in one pair of proposals, it is found.
    #[test]
    fn choice_is_in_both_lists_and_the_initiator_takes_it(
        ours in prop::collection::vec(any_ike(), 0..4),
        theirs in prop::collection::vec(any_ike(), 0..4),
        ke in prop::option::of(prop::sample::select(vec![Group::X25519, Group::ECP256, Group::MODP2048])),
    ) {
        let offered = offer_ike(&theirs, None);
        let common = ours.iter().flat_map(Wanted::of_ike).any(|a| {
            theirs.iter().flat_map(Wanted::of_ike).any(|b| {
                a.encr.iter().any(|x| b.encr.contains(x))
                    && a.integ.iter().any(|x| b.integ.contains(x))
                    && a.prf.iter().any(|x| b.prf.contains(x))
                    && a.groups.iter().any(|x| b.groups.contains(x))
            })
        });
        match choose_ike(&ours, &offered, None, ke) {
            Err(_) => prop_assert!(!common),
            Ok(chosen) => {
                prop_assert!(common);
                prop_assert_eq!(check_ike_answer(&offered, &chosen.answer), Ok((chosen.suite, Spi::ZERO)));
                let s = chosen.suite;
                let has = |p: &IkeProposal| {
                    let integ = s.integ == Integ::NONE || p.integ.contains(&s.integ);
                    p.encr.contains(&s.encr) && integ && p.prf.contains(&s.prf) && p.groups.contains(&s.group)
                };
                prop_assert!(ours.iter().any(has) && theirs.iter().any(has));
                prop_assert_eq!(s.encr.info().unwrap().is_aead(), s.integ == Integ::NONE);
            }
        }
    }

    /// Whatever a peer writes, an answer to it is one proposal of one sound suite that we configured.
    #[test]
    fn no_offer_leads_outside_our_configuration(
        proposals in prop::collection::vec(prop::collection::vec(any_transform(), 0..12), 0..6),
    ) {
        let ours = ike(&["aes128-aes256-sha256-sha1-x25519-modp2048", "aes128gcm16-prfsha256-x25519"]);
        let offer = Sa::new((1..).zip(proposals).map(|(n, t)| Proposal::new(n, ProtocolId::IKE, vec![], t)).collect());
        if let Ok(chosen) = choose_ike(&ours, &offer, None, Some(Group::X25519)) {
            let ours_alone = offer_ike(&ours, None);
            let suite = chosen.suite.to_string();
            let one = IkeProposal::parse(&suite).unwrap();
            prop_assert!(choose_ike(&[one], &ours_alone, None, None).is_ok(), "{}", suite);
            prop_assert_eq!(check_ike_answer(&offer, &chosen.answer), Ok((chosen.suite, Spi::ZERO)));
        }
        // And as an answer to what we offered, none of it may be taken for anything else than a choice from it.
        if let Ok((suite, _)) = check_ike_answer(&offer_ike(&ours, None), &offer) {
            let one = IkeProposal::parse(&suite.to_string()).unwrap();
            prop_assert!(choose_ike(&[one], &offer_ike(&ours, None), None, None).is_ok());
        }
    }
}
