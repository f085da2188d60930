//! What an engine does with messages that should not exist: forged ones, broken ones, ones in the wrong place, and too many
//! of them. Each test is named for what must hold; after most of them the IKE SA of an honest peer must still be alive.
#![allow(clippy::unwrap_used)] // A message that is not as expected is a failed test.

#[path = "malformed/called.rs"]
mod called;
#[path = "malformed/eap.rs"]
mod eap;
#[path = "malformed/established.rs"]
mod established;
#[path = "malformed/flood.rs"]
mod flood;
#[path = "malformed/half_open.rs"]
mod half_open;
#[path = "malformed/nobody.rs"]
mod nobody;
mod puppet;
#[path = "malformed/stranger.rs"]
mod stranger;

use std::sync::Arc;
use std::time::Duration;

use ipc::Role;
use policy::Identity;
use puppet::{Puppet, Rig, Work, engine_address, public_value, puppet_address, realm};
use spi::{Device, Group, ShortOps};
use tussock_ike::{Command, Config, Event, select};
use wire::ike::{
    Body, Delete, Flags, Header, Id, Ke, Message, Nonce, Notify, Payload, PayloadList, Spi, TsPayload,
    Unknown, Vendor,
};
use wire::numbers::{ExchangeType, IdType, KeId, NotifyType, PayloadType, ProtocolId};

const IKE_AUTH: ExchangeType = ExchangeType::IKE_AUTH;
const CREATE_CHILD_SA: ExchangeType = ExchangeType::CREATE_CHILD_SA;
const INFORMATIONAL: ExchangeType = ExchangeType::INFORMATIONAL;

fn ops() -> Arc<dyn ShortOps> {
    soft::Soft::new(1).device().short_ops().unwrap()
}

fn rig() -> Rig {
    Rig::new(ops(), realm())
}

/// An engine with an established peer.
fn up() -> (Rig, Puppet) {
    let ops = ops();
    let mut rig = Rig::new(ops.clone(), realm());
    let puppet = Puppet::establish(&ops, &mut rig);
    (rig, puppet)
}

/// A puppet that has the keys and has not proved itself.
fn half_open() -> (Rig, Puppet) {
    let mut rig = rig();
    let mut puppet = Puppet::initiator(&rig.ops.clone(), 1);
    puppet.init(&mut rig);
    (rig, puppet)
}

fn unknown(kind: u8, flags: u8, len: usize) -> Payload {
    Payload { flags, body: Body::Unknown(Unknown { kind: PayloadType(kind), bytes: vec![0x41; len] }) }
}

fn errors(payloads: &[Payload]) -> Vec<NotifyType> {
    payloads.notifies().map(|n| n.kind).filter(|k| k.is_error()).collect()
}

fn without(payloads: Vec<Payload>, kind: PayloadType) -> Vec<Payload> {
    payloads.into_iter().filter(|p| p.kind() != kind).collect()
}

/// Nothing happened: no answer, no SA, no work.
fn assert_untouched(rig: &Rig, what: &str) {
    assert!(rig.sent.is_empty(), "{what}: answered");
    assert_eq!(rig.engine.status().sas.len(), 0, "{what}: state was kept");
    assert_eq!(rig.work, Work::default(), "{what}: work was done");
}
