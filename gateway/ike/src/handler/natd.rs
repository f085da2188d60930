//! NAT detection and the move to port 4500 (RFC 7296 section 2.23).

use ipc::Role;
use policy::Encap;
use wire::ike::{Payload, Spi};

use super::{Flow, Handler, Stage};
use crate::core::Core;
use crate::natd;
use crate::sa::IkeSa;

/// See the module.
pub(super) struct NatDetection;

impl Handler for NatDetection {
    fn build(&self, stage: Stage, sa: &mut IkeSa, cx: &mut Core, out: &mut Vec<Payload>) {
        let (spi_r, path) = match stage {
            Stage::InitRequest => (Spi::ZERO, sa.path),
            Stage::InitResponse => (sa.spi_r, sa.reply_path()),
            _ => return,
        };
        // A source that fits no address makes the peer encapsulate, whatever is on the way.
        let conceal = realm_encap(sa) == Some(Encap::Udp);
        if let Ok(both) = natd::make(&*cx.ops, sa.spi_i, spi_r, path.local, path.remote, conceal) {
            out.extend(both.map(Payload::from));
        }
    }

    fn receive(&self, stage: Stage, sa: &mut IkeSa, cx: &mut Core, message: &[Payload]) -> Flow {
        let spi_r = match stage {
            Stage::InitRequest => Spi::ZERO,
            Stage::InitResponse => sa.spi_r,
            _ => return Flow::Continue,
        };
        let seen = natd::compare(&*cx.ops, sa.spi_i, spi_r, message, sa.path.local, sa.path.remote);
        // A peer that sends nothing cannot do NAT traversal: then there is none to be done.
        sa.nat = seen.ok().flatten().unwrap_or_default();
        if sa.role == Role::Initiator && (sa.nat.any() || realm_encap(sa) == Some(Encap::Udp)) {
            sa.move_to_natt(cx);
        }
        Flow::Continue
    }
}

/// The realm's wish; as responder, before the realm is known, that of the best candidate.
fn realm_encap(sa: &IkeSa) -> Option<Encap> {
    let candidate = sa.setup.as_ref().and_then(|s| s.candidates.first());
    sa.realm.as_ref().or(candidate).map(|r| r.encap)
}

impl IkeSa {
    /// From now on requests go between the ports for NAT traversal.
    pub(crate) fn move_to_natt(&mut self, cx: &Core) {
        if self.path.local.port() != cx.config.natt_port {
            self.path.local.set_port(cx.config.natt_port);
            self.path.remote.set_port(cx.config.natt_port);
        }
    }
}
