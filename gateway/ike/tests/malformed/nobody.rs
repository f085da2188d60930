//! Peers that do not say who they are (RFC 7619): their AUTH still has to be that of whoever sent the IKE_SA_INIT message.

use policy::{AuthPolicy, Peers};
use wire::ike::Auth;
use wire::numbers::AuthMethod;

use super::*;

/// An engine whose realm is for nobodies, or one that wants a name, and whose key side says yes to every nobody it is asked about.
fn rig(nobodies: bool) -> Rig {
    let mut realm = realm();
    if nobodies {
        (realm.remote_auth, realm.remote_id) = (AuthPolicy::Null, Peers::new(vec![]));
    }
    let mut rig = Rig::new(ops(), realm);
    rig.nobodies = true;
    rig
}

/// The puppet's AUTH data by this secret.
fn null_by(puppet: &Puppet, secret: &[u8]) -> Vec<u8> {
    let (Body::IdI(id) | Body::IdR(id)) = puppet.id_payload() else { unreachable!() };
    puppet.auth_data_as(&id, secret)
}

fn sk_p(puppet: &Puppet) -> [Vec<u8>; 2] {
    let keys = puppet.keys.as_ref().unwrap();
    [&keys.sk_pi, &keys.sk_pr].map(|key| key.expose().to_vec())
}

fn as_null(data: Vec<u8>) -> Payload {
    Auth::new(AuthMethod::NULL, data).into()
}

/// What is not the right AUTH, though all of it is easily had.
fn wrong(puppet: &Puppet, own: &[u8], others: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let good = null_by(puppet, own);
    let flipped = |at: usize| {
        let mut data = good.clone();
        data[at] ^= 1;
        data
    };
    vec![
        ("the first bit", flipped(0)),
        ("the last octet", flipped(good.len() - 1)),
        ("short", good[..good.len() - 1].to_vec()),
        ("long", [&good[..], &[0]].concat()),
        ("empty", vec![]),
        ("zeros", vec![0; good.len()]),
        ("the other side's key", null_by(puppet, others)),
        ("a shared secret", null_by(puppet, puppet::PSK)),
    ]
}

#[test]
fn a_nobody_has_to_be_the_one_of_ike_sa_init() {
    let begin = || {
        let mut rig = rig(true);
        let mut puppet = Puppet::initiator(&rig.ops.clone(), 1);
        puppet.init(&mut rig);
        (rig, puppet)
    };
    let (_, puppet) = begin();
    let [own, others] = sk_p(&puppet);
    for (what, data) in wrong(&puppet, &own, &others) {
        let (mut rig, mut puppet) = begin();
        let mut payloads = puppet.auth_payloads();
        payloads[1] = as_null(data);
        let answer = puppet.exchange(&mut rig, IKE_AUTH, payloads);
        assert_eq!(errors(&answer), [NotifyType::AUTHENTICATION_FAILED], "{what}");
        assert_eq!(answer.len(), 1, "{what}: nothing else is told");
        assert_eq!((rig.work.asked, rig.ike_sas(), rig.children.len()), (0, 0, 0), "{what}");
        let said = |e: &Event| matches!(e, Event::IkeClosed { why, .. } if why.to_string().contains("NULL AUTH is wrong"));
        assert!(rig.events.iter().any(said), "{what}: {:?}", rig.events);
    }
    // The right one, whatever the identity beside it: nobody's, or a name that is not believed.
    for id in [Id::new(IdType::NULL, vec![]), Id::new(IdType::FQDN, puppet::PUPPET_ID.into())] {
        let (mut rig, mut puppet) = begin();
        let mut payloads = puppet.auth_payloads();
        let keys = puppet.keys.as_ref().unwrap();
        payloads[1] = as_null(puppet.auth_data_as(&id, keys.sk_pi.expose()));
        payloads[0] = Body::IdI(id).into();
        let answer = puppet.exchange(&mut rig, IKE_AUTH, payloads);
        assert!(answer.auth().is_some() && errors(&answer).is_empty(), "{answer:?}");
        assert!(rig.engine.status().sas[0].peer_id.as_ref().unwrap().is_anonymous());
    }
}

#[test]
fn a_nobody_that_answers_has_to_be_the_one_of_ike_sa_init() {
    let begin = || {
        let mut rig = rig(true);
        rig.command(Command::Up { realm: "puppet".into(), child: Some("net".into()) });
        let (_, request) = rig.sent.pop_front().unwrap();
        let (mut puppet, response) = Puppet::responder(&rig.ops.clone(), 2, &request);
        rig.datagram(&response);
        let request = puppet.next_request(&mut rig).expect("an IKE_AUTH request");
        (rig, puppet, request)
    };
    let (_, puppet, _) = begin();
    let [others, own] = sk_p(&puppet);
    for (what, data) in wrong(&puppet, &own, &others) {
        let (mut rig, mut puppet, request) = begin();
        let asked = rig.work.asked;
        let mut answer = puppet.auth_answer(&request);
        answer[1] = as_null(data);
        puppet.respond(&mut rig, &request, answer);
        assert_eq!((rig.work.asked, rig.children.len()), (asked, 0), "{what}");
        // RFC 7296 section 2.21.2: it is told in an exchange of its own.
        let told = puppet.next_request(&mut rig).expect("a last word").payloads;
        assert_eq!(errors(&told), [NotifyType::AUTHENTICATION_FAILED], "{what}");
        assert!(rig.engine.status().sas.iter().all(|sa| sa.established.is_none()), "{what}");
    }
    let (mut rig, mut puppet, request) = begin();
    let mut answer = puppet.auth_answer(&request);
    answer[1] = as_null(null_by(&puppet, &sk_p(&puppet)[1]));
    puppet.respond(&mut rig, &request, answer);
    assert_eq!((rig.ike_sas(), rig.children.len()), (1, 1));
}

#[test]
fn a_realm_that_wants_a_name_is_no_place_for_a_nobody_whoever_says_yes() {
    let mut rig = rig(false);
    let mut puppet = Puppet::initiator(&rig.ops.clone(), 1);
    puppet.init(&mut rig);
    let mut payloads = puppet.auth_payloads();
    payloads[1] = as_null(null_by(&puppet, &sk_p(&puppet)[0]));
    let answer = puppet.exchange(&mut rig, IKE_AUTH, payloads);
    assert_eq!(errors(&answer), [NotifyType::AUTHENTICATION_FAILED]);
    assert_eq!((rig.work.asked, rig.ike_sas(), rig.children.len()), (0, 0, 0));
}
