//! IKEV2_FRAGMENTATION_SUPPORTED (RFC 7383 section 2.3): used only when both sides said so.

use wire::ike::{Notify, Payload, PayloadList};
use wire::numbers::NotifyType;

use super::{Flow, Handler, Stage};
use crate::core::Core;
use crate::sa::IkeSa;

/// See the module.
pub(super) struct Fragmentation;

impl Handler for Fragmentation {
    fn build(&self, stage: Stage, sa: &mut IkeSa, _cx: &mut Core, out: &mut Vec<Payload>) {
        // RFC 7383 section 2.3: the responder answers only a peer that asked.
        let wanted = match stage {
            Stage::InitRequest => allowed(sa),
            Stage::InitResponse => sa.ext.fragments,
            _ => false,
        };
        if wanted {
            out.push(Notify::new(NotifyType::IKEV2_FRAGMENTATION_SUPPORTED).into());
        }
    }

    fn receive(&self, stage: Stage, sa: &mut IkeSa, _cx: &mut Core, message: &[Payload]) -> Flow {
        if matches!(stage, Stage::InitRequest | Stage::InitResponse) {
            let offered = message.notify(NotifyType::IKEV2_FRAGMENTATION_SUPPORTED).is_some();
            sa.ext.fragments = offered && allowed(sa);
        }
        Flow::Continue
    }
}

fn allowed(sa: &IkeSa) -> bool {
    let candidate = sa.setup.as_ref().and_then(|s| s.candidates.first());
    sa.realm.as_ref().or(candidate).is_some_and(|r| r.fragmentation)
}
