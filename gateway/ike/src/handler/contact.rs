//! INITIAL_CONTACT (RFC 7296 section 2.4): whoever has no other IKE SA with the peer says so, and what the peer still holds
//! from before a crash goes.

use ipc::Role;
use policy::AuthPolicy;
use wire::ike::{Notify, Payload, PayloadList};
use wire::numbers::NotifyType;

use super::{Flow, Handler, Stage};
use crate::core::Core;
use crate::sa::IkeSa;

/// See the module.
pub(super) struct InitialContact;

impl Handler for InitialContact {
    fn build(&self, stage: Stage, sa: &mut IkeSa, cx: &mut Core, out: &mut Vec<Payload>) {
        // RFC 7619 section 2.3: who does not say who it is has no contacts.
        let named = sa.realm.as_ref().is_some_and(|realm| realm.local_auth != AuthPolicy::Null);
        let first = || cx.is_first_contact(&sa.realm_name());
        if stage == Stage::AuthRequest && sa.role == Role::Initiator && named && first() {
            out.push(Notify::new(NotifyType::INITIAL_CONTACT).into());
        }
    }

    fn receive(&self, stage: Stage, sa: &mut IkeSa, _cx: &mut Core, message: &[Payload]) -> Flow {
        if stage == Stage::AuthRequest {
            sa.ext.initial_contact = message.notify(NotifyType::INITIAL_CONTACT).is_some();
        }
        Flow::Continue
    }
}
