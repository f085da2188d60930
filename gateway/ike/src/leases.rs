//! Leases as the engine's callers see them: answers of DHCP servers, what operators ask and forget.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Instant;

use spi::Token;

use crate::effect::{CommandId, Effect};
use crate::engine::Engine;
use crate::pool::LeaseView;

impl Engine {
    /// Takes the answer to an [`Effect::WantAddress`]: the address, or why there is none.
    pub fn handle_address(
        &mut self,
        now: Instant,
        token: Token,
        answer: Result<Ipv4Addr, String>,
        fx: &mut Vec<Effect>,
    ) {
        self.core.now = now;
        match self.core.take_ask(token) {
            Some(id) => self.with(id, |sa, cx| sa.address_came(cx, token, answer)),
            None => *self.core.dropped.entry("stale answer of a DHCP server").or_default() += 1,
        }
        self.settle(fx);
    }

    /// An address that a client has is no longer ours to give: its IKE SAs are closed.
    pub fn handle_address_lost(&mut self, now: Instant, realm: &str, address: IpAddr, fx: &mut Vec<Effect>) {
        self.core.now = now;
        let pool = self.core.pools.get(realm).map(|(_, pool)| pool.leases(now)).unwrap_or_default();
        for holder in
            pool.into_iter().filter(|lease| lease.address == address).flat_map(|lease| lease.holders)
        {
            self.with(holder, |sa, cx| sa.finish(cx, "the DHCP server has taken its address back"));
        }
        self.settle(fx);
    }

    /// The addresses of all pools that are in use or remembered.
    pub fn leases(&self, now: Instant) -> Vec<(Arc<str>, LeaseView)> {
        let mut all = Vec::new();
        for (realm, (_, pool)) in &self.core.pools {
            all.extend(pool.leases(now).into_iter().map(|lease| (Arc::clone(realm), lease)));
        }
        all
    }

    pub(crate) fn forget_leases(
        &mut self,
        command: CommandId,
        realm: Option<&str>,
        identity: Option<&str>,
        address: Option<IpAddr>,
    ) {
        let now = self.core.now;
        let fits = |lease: &LeaseView| {
            identity.is_none_or(|identity| lease.identity.to_string() == identity)
                && address.is_none_or(|address| lease.address == address)
        };
        let names = self.core.pools.keys().filter(|name| realm.is_none_or(|realm| ***name == *realm));
        let (mut forgotten, mut in_use) = (0, 0);
        for name in names.cloned().collect::<Vec<_>>() {
            let Some((_, pool)) = self.core.pools.get_mut(&name) else { continue };
            for lease in pool.leases(now).into_iter().filter(fits) {
                if pool.forget(lease.address) { forgotten += 1 } else { in_use += 1 }
            }
            self.core.tell_leases(&name);
        }
        let result = match (forgotten, in_use) {
            (0, 0) => Err("there is no such lease".to_owned()),
            (0, in_use) => Err(format!("in use: {in_use}; take the IKE SAs down first")),
            (forgotten, 0) => Ok(format!("released: {forgotten}")),
            (forgotten, in_use) => Ok(format!("released: {forgotten}; still in use: {in_use}")),
        };
        self.core.fx.push(Effect::Answer { command, result });
    }
}
