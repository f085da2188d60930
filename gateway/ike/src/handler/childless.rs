//! IKE SAs without a Child SA (RFC 6023).

use policy::Childless as Policy;
use wire::ike::{Notify, Payload, PayloadList};
use wire::numbers::NotifyType;

use super::{Flow, Handler, Stage};
use crate::core::Core;
use crate::sa::IkeSa;

/// See the module.
pub(super) struct Childless;

impl Handler for Childless {
    fn build(&self, stage: Stage, sa: &mut IkeSa, _cx: &mut Core, out: &mut Vec<Payload>) {
        // RFC 6023 section 3: the responder announces it; the initiator does it.
        let allowed =
            || sa.setup.as_ref().is_some_and(|s| s.candidates.iter().any(|r| r.childless != Policy::Never));
        if stage == Stage::InitResponse && allowed() {
            out.push(Notify::new(NotifyType::CHILDLESS_IKEV2_SUPPORTED).into());
        }
    }

    fn receive(&self, stage: Stage, sa: &mut IkeSa, _cx: &mut Core, message: &[Payload]) -> Flow {
        if stage == Stage::InitResponse {
            sa.ext.childless = message.notify(NotifyType::CHILDLESS_IKEV2_SUPPORTED).is_some();
        }
        Flow::Continue
    }
}
