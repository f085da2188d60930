//! The control plane's side: SAs and policies come and go.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use spi::{Direction, Encr, Integ, SaId, Token};
use wire::TrafficSelector;
use wire::esp::EspSpi;

use crate::counters::DropReason;
use crate::device::Device;
use crate::esp::Esp;
use crate::mtu::Framing;
use crate::output::Output;
use crate::replay::{MAX_WINDOW, MIN_WINDOW};
use crate::sa::{
    Action, ChildId, Encap, InboundSa, InstallError, MAX_SELECTORS, Mode, OutboundSa, Path, Policy,
    SaSummary, UdpEncap,
};
use crate::sad::{Common, InSa, OutSa};
use crate::timer::Due;

/// Least payload a path must carry for an SA over it to make sense.
const MIN_PAYLOAD: usize = 68;
/// Least path MTU we believe in: below it a report is a mistake or an attack.
const MIN_PATH_V4: u16 = 576;
const MIN_PATH_V6: u16 = 1280;

impl Esp {
    /// Makes a device queue known and says how many bursts it takes now ([`spi::Queue::room`]); returns its index.
    pub fn add_device(&mut self, room: usize) -> usize {
        self.devices.push(Device::new(room));
        self.devices.len() - 1
    }

    /// Corrects the number of bursts a queue would take, beyond those in [`Output::submit`](crate::Output::submit).
    /// Not needed in normal running: every completion gives its place back.
    pub fn set_room(&mut self, device: usize, room: usize) {
        if let Some(device) = self.devices.get_mut(device) {
            device.room = room;
        }
    }

    /// Installs an SA to send with. It is used at once if its child has none, otherwise from
    /// [`use_outbound`](Esp::use_outbound) or the first packet on its pair on. What waits for the child leaves with the
    /// next [`flush`](Esp::flush).
    ///
    /// # Errors
    /// Why not; nothing has changed then.
    pub fn install_outbound(&mut self, sa: OutboundSa, now: Instant) -> Result<(), InstallError> {
        let framing = self.check(sa.spi, sa.device, (sa.encr, sa.integ), &sa.ts_local, &sa.ts_remote)?;
        if self.sad.find_outbound(sa.child, sa.spi).is_some() {
            return Err(InstallError::SpiInUse);
        }
        let path = path(&sa.mode, sa.encap);
        let udp = path.encap == Encap::Udp;
        let max_payload = framing.max_payload(sa.path_mtu.into(), sa.mode.remote(), udp);
        if max_payload < MIN_PAYLOAD {
            return Err(InstallError::PathMtu);
        }
        let (child, dummy, keepalive, iface, priority, waits) =
            (sa.child, sa.dummy, sa.keepalive, sa.iface, sa.priority, sa.waits);
        let mut sa = OutSa::new(sa, framing, path, max_payload);
        let (local, remote) = (&sa.common.ts_local, &sa.common.ts_remote);
        self.spd.insert(local, remote, iface, priority, Action::Protect(child), &mut sa.rules);
        sa.keepalive = keepalive.and_then(|every| self.keep_alive(path, every, now));
        let Ok(token) = self.sad.outbound.insert(sa) else { return Err(InstallError::SpiInUse) };
        if let Some(every) = dummy {
            self.timers.push(now + every, Due::Dummy(token));
        }
        let entry = self.sad.children.entry(child).or_default();
        entry.outbound.push(token);
        if !waits {
            entry.current.get_or_insert(token);
        }
        entry.acquire_again = None;
        if !entry.waiting.is_empty() {
            self.served.push(child);
        }
        self.sad.spread_mtu(child);
        self.flows.new_epoch();
        Ok(())
    }

    /// Installs an SA to receive with.
    ///
    /// # Errors
    /// Why not; nothing has changed then.
    pub fn install_inbound(&mut self, sa: InboundSa, _now: Instant) -> Result<(), InstallError> {
        let framing = self.check(sa.spi, sa.device, (sa.encr, sa.integ), &sa.ts_local, &sa.ts_remote)?;
        let window = sa.replay_window;
        // Without the window nobody could tell the high half of an extended number (RFC 4303 section 2.2.1).
        if !(MIN_WINDOW..=MAX_WINDOW).contains(&window) && (window != 0 || sa.esn) {
            return Err(InstallError::ReplayWindow);
        }
        if self.sad.by_spi.contains_key(&sa.spi) {
            return Err(InstallError::SpiInUse);
        }
        let (child, spi, path) = (sa.child, sa.spi, path(&sa.mode, sa.encap));
        let Ok(token) = self.sad.inbound.insert(InSa::new(sa, framing, path)) else {
            return Err(InstallError::SpiInUse);
        };
        self.sad.by_spi.insert(spi, token);
        self.sad.children.entry(child).or_default().inbound.push(token);
        self.sad.spread_mtu(child);
        Ok(())
    }

    /// Sends with this SA from now on; packets taken before still leave with the old one. False when the child has no
    /// such SA.
    pub fn use_outbound(&mut self, child: ChildId, spi: u32) -> bool {
        let Some(token) = self.sad.find_outbound(child, spi) else { return false };
        let Some(sa) = self.sad.outbound.slot(token).filter(|sa| !sa.retired) else { return false };
        sa.config.waits = false;
        let Some(entry) = self.sad.children.get_mut(&child) else { return false };
        if entry.current.replace(token) != Some(token) {
            self.sad.spread_mtu(child);
            self.flows.new_epoch();
        }
        true
    }

    /// Never sends with this SA again. What it has in devices still leaves; [`remove`](Esp::remove) it when that is over.
    pub fn retire_outbound(&mut self, child: ChildId, spi: u32) {
        let Some(token) = self.sad.find_outbound(child, spi) else { return };
        let Some(sa) = self.sad.outbound.slot(token) else { return };
        sa.retired = true;
        for id in std::mem::take(&mut sa.rules) {
            self.spd.remove(id);
        }
        self.sad.succeed(child, token);
        self.flows.new_epoch();
    }

    /// Removes an SA. Give its handle back to the device. Packets of it that are in a device are dropped when they come
    /// back, so switch with [`use_outbound`](Esp::use_outbound) a moment earlier.
    pub fn remove(&mut self, child: ChildId, spi: u32, dir: Direction) -> Option<SaSummary> {
        let summary = match dir {
            Direction::Seal => self.sad.find_outbound(child, spi).and_then(|t| self.remove_outbound(t)),
            Direction::Open => {
                let token = *self.sad.by_spi.get(&spi)?;
                let is_of = self.sad.inbound.peek(token).is_some_and(|sa| sa.common.child == child);
                is_of.then(|| self.remove_inbound(token)).flatten()
            }
        };
        if self.sad.children.get(&child).is_some_and(|c| c.is_idle()) {
            self.sad.children.remove(&child);
        }
        summary
    }

    /// Removes all SAs of a child, and what waits for it.
    pub fn remove_child(&mut self, child: ChildId) -> Vec<SaSummary> {
        self.acquire_failed(child);
        let Some(entry) = self.sad.children.get(&child) else { return Vec::new() };
        let (outbound, inbound) = (entry.outbound.clone(), entry.inbound.clone());
        let mut all: Vec<_> = outbound.into_iter().filter_map(|t| self.remove_outbound(t)).collect();
        all.extend(inbound.into_iter().filter_map(|t| self.remove_inbound(t)));
        self.sad.children.remove(&child);
        all
    }

    /// The peer or we have moved: new outer addresses for all SAs of a child (RFC 4555, RFC 7296 section 2.23).
    /// Packets in flight go to the new address too.
    pub fn update_peer(
        &mut self,
        child: ChildId,
        local: IpAddr,
        remote: IpAddr,
        encap: Option<UdpEncap>,
        now: Instant,
    ) {
        let Some(entry) = self.sad.children.get(&child) else { return };
        let (outbound, inbound) = (entry.outbound.clone(), entry.inbound.clone());
        for token in inbound {
            let Some(sa) = self.sad.inbound.slot(token) else { continue };
            sa.common.mode = moved(sa.common.mode, local, remote);
            sa.common.path = path(&sa.common.mode, encap);
            sa.reported = None;
        }
        for token in outbound {
            let Some(sa) = self.sad.outbound.slot(token) else { continue };
            sa.common.mode = moved(sa.common.mode, local, remote);
            let path = path(&sa.common.mode, encap);
            self.reroute(token, path, now);
        }
        self.sad.spread_mtu(child);
    }

    /// The path of a child takes outer packets of this many octets, IP header included.
    pub fn update_mtu(&mut self, child: ChildId, path_mtu: u16) {
        self.set_mtu(child, |_| path_mtu);
    }

    /// The path of a child takes no more than this many octets, says somebody who may be anybody: what was known to be less
    /// stays as it is.
    pub fn lower_mtu(&mut self, child: ChildId, path_mtu: u16) {
        self.set_mtu(child, |known| known.min(path_mtu));
    }

    /// The same for all children whose peer has this address.
    pub fn lower_mtu_towards(&mut self, remote: IpAddr, path_mtu: u16) {
        let to_it = |token: &Token| {
            self.sad.outbound.peek(*token).is_some_and(|sa| sa.common.path.remote.ip() == remote)
        };
        let children = self.sad.children.iter().filter(|(_, child)| child.outbound.iter().any(to_it));
        let children: Vec<ChildId> = children.map(|(id, _)| *id).collect();
        children.into_iter().for_each(|child| self.lower_mtu(child, path_mtu));
    }

    fn set_mtu(&mut self, child: ChildId, mtu: impl Fn(u16) -> u16) {
        let Some(entry) = self.sad.children.get(&child) else { return };
        for token in &entry.outbound {
            let Some(sa) = self.sad.outbound.slot(*token) else { continue };
            let least = if sa.common.path.remote.is_ipv4() { MIN_PATH_V4 } else { MIN_PATH_V6 };
            sa.config.path_mtu = mtu(sa.config.path_mtu).max(least);
            measure(sa);
        }
        self.sad.spread_mtu(child);
    }

    /// Replaces the SPD. Installed SAs bring their own selectors; entries here are for what is not set up yet, for
    /// bypass and for discard.
    pub fn set_policies(&mut self, policies: Vec<Policy>) {
        for id in std::mem::take(&mut self.static_rules) {
            self.spd.remove(id);
        }
        for p in policies {
            let (local, remote) = (
                &p.local[..p.local.len().min(MAX_SELECTORS)],
                &p.remote[..p.remote.len().min(MAX_SELECTORS)],
            );
            self.spd.insert(local, remote, p.iface, p.priority, p.action, &mut self.static_rules);
        }
        self.flows.new_epoch();
    }

    /// The SA is known to a device under another handle now: it was installed anew after a reset, or moved to another
    /// device. Numbers, window and order go on where they were; installing the SA here anew would begin at 1 again and
    /// repeat nonces. What is out under the old handle comes home as ever; when it has, the handle appears in
    /// [`Output::left`](crate::Output::left). False when there is no such SA or device.
    pub fn move_sa(
        &mut self,
        child: ChildId,
        spi: u32,
        dir: Direction,
        to: (usize, SaId),
        out: &mut Output,
    ) -> bool {
        let (device, sa) = to;
        if device >= self.devices.len() {
            return false;
        }
        let common = match dir {
            Direction::Seal => {
                let found = self.sad.find_outbound(child, spi);
                found.and_then(|t| self.sad.outbound.slot(t)).map(|sa| &mut sa.common)
            }
            Direction::Open => {
                let found = self.sad.by_spi.get(&spi).and_then(|t| self.sad.inbound.slot(*t));
                found.map(|sa| &mut sa.common).filter(|common| common.child == child)
            }
        };
        let Some(common) = common else { return false };
        if (common.device, common.sa) == to {
            common.stale_told = false;
            return true;
        }
        let (old, old_sa) = (std::mem::replace(&mut common.device, device), common.sa);
        let bursts = std::mem::take(&mut common.out);
        (common.sa, common.stale_told) = (sa, false);
        self.leave(old, old_sa, bursts, out);
        if old != device {
            self.move_waiting(old);
        }
        true
    }

    /// Sends the packets of an outbound SA another way.
    pub(crate) fn reroute(&mut self, token: Token, path: Path, now: Instant) {
        let Some(sa) = self.sad.outbound.slot(token) else { return };
        if sa.common.path == path {
            return;
        }
        sa.common.path = path;
        measure(sa);
        let (old, every) = (sa.keepalive.take(), sa.config.keepalive);
        self.let_go(old);
        let slot = every.and_then(|every| self.keep_alive(path, every, now));
        if let Some(sa) = self.sad.outbound.slot(token) {
            sa.keepalive = slot;
        }
    }

    fn remove_outbound(&mut self, token: Token) -> Option<SaSummary> {
        let mut sa = self.sad.outbound.take(token)?;
        for id in std::mem::take(&mut sa.rules) {
            self.spd.remove(id);
        }
        self.let_go(sa.keepalive);
        let gathered = sa.open.as_ref().map_or(0, |o| o.buf.ops().len());
        self.counters.drops.add(DropReason::SaGone, gathered as u64);
        if let Some(entry) = self.sad.children.get_mut(&sa.common.child) {
            entry.outbound.retain(|t| *t != token);
        }
        self.sad.succeed(sa.common.child, token);
        self.flows.new_epoch();
        Some(summary(&sa.common, Direction::Seal))
    }

    fn remove_inbound(&mut self, token: Token) -> Option<SaSummary> {
        let sa = self.sad.inbound.take(token)?;
        self.sad.by_spi.remove(&sa.common.spi);
        let gathered = sa.open.as_ref().map_or(0, |(o, _)| o.buf.ops().len());
        self.counters.drops.add(DropReason::SaGone, gathered as u64);
        if let Some(entry) = self.sad.children.get_mut(&sa.common.child) {
            entry.inbound.retain(|t| *t != token);
        }
        Some(summary(&sa.common, Direction::Open))
    }

    /// What both directions are checked for.
    fn check(
        &self,
        spi: u32,
        device: usize,
        transforms: (Encr, Integ),
        local: &[TrafficSelector],
        remote: &[TrafficSelector],
    ) -> Result<Framing, InstallError> {
        if EspSpi(spi).is_reserved() {
            return Err(InstallError::SpiReserved);
        }
        if device >= self.devices.len() {
            return Err(InstallError::NoSuchDevice);
        }
        if [local, remote].iter().any(|list| list.is_empty() || list.len() > MAX_SELECTORS) {
            return Err(InstallError::Selectors);
        }
        Framing::of(transforms.0, transforms.1).ok_or(InstallError::Algorithm)
    }
}

/// Computes anew what fits an outbound SA's path.
fn measure(sa: &mut OutSa) {
    let path = &sa.common.path;
    let udp = path.encap == Encap::Udp;
    let max = sa.common.framing.max_payload(sa.config.path_mtu.into(), path.remote.ip(), udp);
    sa.max_payload = max.max(MIN_PAYLOAD);
}

fn path(mode: &Mode, encap: Option<UdpEncap>) -> Path {
    match encap {
        Some(UdpEncap { local, remote }) => Path { local, remote, encap: Encap::Udp },
        None => Path {
            local: SocketAddr::new(mode.local(), 0),
            remote: SocketAddr::new(mode.remote(), 0),
            encap: Encap::Raw,
        },
    }
}

fn moved(mode: Mode, local: IpAddr, remote: IpAddr) -> Mode {
    match mode {
        Mode::Tunnel { .. } => Mode::Tunnel { local, remote },
        Mode::Transport { original, .. } => Mode::Transport { local, remote, original },
    }
}

fn summary(sa: &Common, dir: Direction) -> SaSummary {
    SaSummary {
        child: sa.child,
        spi: sa.spi,
        dir,
        device: sa.device,
        sa: sa.sa,
        packets: sa.usage.packets,
        bytes: sa.usage.bytes,
    }
}
