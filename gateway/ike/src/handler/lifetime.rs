//! AUTH_LIFETIME (RFC 4478): a responder says how long it takes our proof for good, and we prove ourselves anew before.

use std::time::Duration;

use ipc::Role;
use wire::ike::{Payload, PayloadList};
use wire::numbers::NotifyType;

use super::{Flow, Handler, Stage};
use crate::core::Core;
use crate::sa::IkeSa;

/// See the module.
pub(super) struct AuthLifetime;

/// Part of the time granted after which we begin, so that the new SA is up before the old one goes.
const EARLY: f64 = 0.9;

/// No peer makes us authenticate more often.
const SHORTEST: Duration = Duration::from_secs(30);

impl Handler for AuthLifetime {
    fn receive(&self, stage: Stage, sa: &mut IkeSa, cx: &mut Core, message: &[Payload]) -> Flow {
        let granted = match (stage, sa.role) {
            // RFC 4478 section 3: from the original responder, with its proof or later.
            (Stage::AuthResponse | Stage::InformationalRequest, Role::Initiator) => {
                message.notify(NotifyType::AUTH_LIFETIME).and_then(|n| n.data_u32())
            }
            _ => None,
        };
        if let Some(seconds) = granted {
            let after = Duration::from_secs(seconds.into()).mul_f64(EARLY);
            sa.reauth_within(cx, after.max(SHORTEST));
        }
        Flow::Continue
    }
}
