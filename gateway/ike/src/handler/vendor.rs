//! Gateways of this kind tell each other by a Vendor ID, so that `encap = "auto"` can prefer ESP in UDP between them: one
//! socket, and no raw one.

use ipc::Role;
use policy::Encap;
use wire::ike::{Payload, PayloadList, Vendor};

use super::{Flow, Handler, Stage};
use crate::core::Core;
use crate::sa::IkeSa;

/// See the module.
pub(super) struct OurOwn;

/// Random octets, chosen once.
const VENDOR: [u8; 16] =
    [0x9c, 0x3e, 0x51, 0xd7, 0x08, 0xb4, 0x4f, 0x6a, 0xa2, 0x7d, 0xe1, 0x15, 0x60, 0xcb, 0x38, 0xf9];

impl Handler for OurOwn {
    fn build(&self, stage: Stage, sa: &mut IkeSa, _cx: &mut Core, out: &mut Vec<Payload>) {
        if stage == Stage::InitRequest || (stage == Stage::InitResponse && sa.ext.peer_is_ours) {
            out.push(Vendor(VENDOR.to_vec()).into());
        }
    }

    fn receive(&self, stage: Stage, sa: &mut IkeSa, cx: &mut Core, message: &[Payload]) -> Flow {
        if matches!(stage, Stage::InitRequest | Stage::InitResponse)
            && message.vendors().any(|v| v.0 == VENDOR)
        {
            sa.ext.peer_is_ours = true;
            if sa.role == Role::Initiator && sa.realm.as_ref().is_some_and(|r| r.encap == Encap::Auto) {
                // RFC 7296 section 2.23: an initiator may use port 4500 without any NAT.
                sa.move_to_natt(cx);
            }
        }
        Flow::Continue
    }
}
