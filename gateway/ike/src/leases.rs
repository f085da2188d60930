//! Leases as the engine's callers see them: answers of DHCP servers, what operators ask and forget.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use policy::{Identity, Pool};
use spi::Token;

use crate::core::Core;
use crate::effect::{CommandId, DhcpLease, Effect, IkeSaId};
use crate::engine::Engine;
use crate::pool::{AddressPool, LeaseView, NoAddress};

impl Engine {
    /// Takes the answer to an [`Effect::WantAddress`]: the address, or why there is none.
    pub fn handle_address(
        &mut self,
        now: Instant,
        token: Token,
        answer: Result<DhcpLease, String>,
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

impl Core {
    /// Asks the realm's DHCP server for an address of a family; `None` when too much is out already.
    pub(crate) fn want_address(
        &mut self,
        sa: IkeSaId,
        realm: Arc<str>,
        identity: Identity,
        v4: bool,
        hint: Option<IpAddr>,
    ) -> Option<Token> {
        let token = self.insert_ask(sa)?;
        self.fx.push(Effect::WantAddress { token, realm, identity, v4, hint });
        Some(token)
    }

    /// Who has this address in another realm than this one: the realm, and the identity.
    pub(crate) fn holder_elsewhere(&self, realm: &str, address: IpAddr) -> Option<(Arc<str>, Identity)> {
        let pools = self.pools.iter().map(|(name, (_, pool))| (name, pool)).chain(&self.grants);
        let mut others = pools.filter(|(name, _)| ***name != *realm);
        others.find_map(|(name, pool)| Some((Arc::clone(name), pool.holder_of(address)?.clone())))
    }

    /// Gives an address that an authentication server has named to a client of a realm without a pool. Nobody else in the realm may
    /// have it; whether somebody elsewhere has it is asked before.
    pub(crate) fn grant(
        &mut self,
        sa: IkeSaId,
        realm: &policy::Realm,
        identity: &Identity,
        address: IpAddr,
    ) -> Result<(), NoAddress> {
        let none = || AddressPool::new(&Pool { granted_outside: true, ..Pool::default() });
        let grants = self.grants.entry(Arc::clone(&realm.name)).or_insert_with(none);
        let done = grants.assign(sa, identity, address, realm.unique);
        // The server will name it again: there is nothing to remember.
        grants.take_notes();
        self.tidy_grants(&realm.name);
        done
    }

    /// Takes back what was granted to the IKE SA.
    pub(crate) fn ungrant(&mut self, sa: IkeSaId, realm: &Arc<str>) {
        let Some(grants) = self.grants.get_mut(realm) else { return };
        grants.withdraw(sa);
        grants.take_notes();
        self.tidy_grants(realm);
    }

    fn tidy_grants(&mut self, realm: &Arc<str>) {
        if self.grants.get(realm).is_some_and(|grants| grants.in_use() == 0) {
            self.grants.remove(realm);
        }
    }
}
