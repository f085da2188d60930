//! One capability at a time: a device that declares nothing but that, over one that declares more. A check that follows what is
//! declared thereby becomes as many checks as there is declared.

use std::fmt;
use std::sync::Arc;

use spi::caps::EspCap;
use spi::{
    Caps, CryptoQueue, Device, DeviceDesc, Driver, EspQueue, Fault, FaultKind, Group, QueueConfig, SaId,
    SaParams, SignScheme, Unusable,
};

use crate::layer::{Layer, Over};

/// What a check is run over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The device as it is.
    Whole,
    /// Each ring: packets under each transform, and operations.
    Rings,
    /// Each transform.
    Packets,
    /// Each group of key exchange.
    Groups,
    /// Each signature scheme, and all of them together.
    Schemes,
    /// The device as it is, if it signs.
    Signing,
    /// The device as it is, if it verifies.
    Verifying,
    /// The device as it is, if it has PRFs.
    Prfs,
}

/// One capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capability {
    /// All there are.
    All,
    /// Packets under one transform.
    Packets(EspCap),
    /// Operations, of whatever kind.
    Operations,
    /// One group.
    Group(Group),
    /// One scheme.
    Scheme(SignScheme),
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Capability::All => f.write_str("all"),
            Capability::Packets(cap) if cap.integ == spi::Integ::NONE => write!(f, "{}", cap.encr),
            Capability::Packets(cap) => write!(f, "{}-{}", cap.encr, cap.integ),
            Capability::Operations => f.write_str("operations"),
            Capability::Group(group) => write!(f, "{group}"),
            Capability::Scheme(scheme) => write!(f, "{scheme:?}"),
        }
    }
}

impl Scope {
    /// What there is to run over; nothing where the device declares nothing of the kind.
    pub fn split(self, caps: &Caps) -> Vec<Capability> {
        let packets = caps.esp.iter().copied().map(Capability::Packets);
        let whole = |none: bool| if none { Vec::new() } else { vec![Capability::All] };
        match self {
            Scope::Whole => whole(false),
            Scope::Signing => whole(caps.sign.is_empty()),
            Scope::Verifying => whole(caps.verify.is_empty()),
            Scope::Prfs => whole(caps.prf.is_empty()),
            Scope::Rings => packets.chain([Capability::Operations]).collect(),
            Scope::Packets => packets.collect(),
            Scope::Groups => caps.dh.iter().copied().map(Capability::Group).collect(),
            Scope::Schemes if caps.sign.is_empty() => Vec::new(),
            Scope::Schemes => {
                let each = caps.sign.iter().copied().map(Capability::Scheme);
                [Capability::All].into_iter().chain(each).collect()
            }
        }
    }
}

/// A driver of one device, open already, that declares one capability. What it does not declare it refuses.
pub struct Narrow {
    device: Arc<dyn Device>,
    desc: DeviceDesc,
    packets: bool,
    operations: bool,
}

impl Narrow {
    /// Over an open device.
    pub fn new(device: &Arc<dyn Device>, to: Capability) -> Narrow {
        let mut desc = device.desc().clone();
        let caps = &mut desc.caps;
        let (mut packets, mut operations) = (true, true);
        match to {
            Capability::All => {}
            Capability::Packets(cap) => {
                operations = false;
                caps.esp = vec![cap];
                (caps.dh, caps.sign, caps.verify, caps.prf) = Default::default();
            }
            Capability::Operations => (packets, caps.esp) = (false, Vec::new()),
            Capability::Group(group) => {
                (packets, caps.esp) = (false, Vec::new());
                caps.dh = vec![group];
                (caps.sign, caps.verify, caps.prf) = Default::default();
            }
            Capability::Scheme(scheme) => {
                (packets, caps.esp) = (false, Vec::new());
                caps.sign = vec![scheme];
                caps.verify.retain(|other| *other == scheme);
                (caps.dh, caps.prf) = Default::default();
            }
        }
        Narrow { device: Arc::clone(device), desc, packets, operations }
    }
}

impl Driver for Narrow {
    fn name(&self) -> &'static str {
        "narrow"
    }

    fn probe(&self) -> Vec<DeviceDesc> {
        vec![self.desc.clone()]
    }

    fn unusable(&self) -> Vec<Unusable> {
        Vec::new()
    }

    fn open(&self, _: &DeviceDesc) -> Result<Arc<dyn Device>, Fault> {
        let Narrow { device, desc, packets, operations } = self;
        Ok(Arc::new(Layer(Narrowed {
            inner: Arc::clone(device),
            desc: desc.clone(),
            packets: *packets,
            operations: *operations,
        })))
    }
}

struct Narrowed {
    inner: Arc<dyn Device>,
    desc: DeviceDesc,
    packets: bool,
    operations: bool,
}

impl Over for Narrowed {
    fn inner(&self) -> &Arc<dyn Device> {
        &self.inner
    }

    fn desc(&self) -> &DeviceDesc {
        &self.desc
    }

    fn esp_queue(&self, config: QueueConfig) -> Option<Box<EspQueue>> {
        if self.packets { self.inner.esp_queue(config) } else { None }
    }

    fn crypto_queue(&self, config: QueueConfig) -> Option<Box<CryptoQueue>> {
        if self.operations { self.inner.crypto_queue(config) } else { None }
    }

    fn install_sa(&self, sa: &SaParams) -> Result<SaId, Fault> {
        // What the device below cannot do it refuses itself: that is looked at with all its capabilities.
        if self.desc.caps.carries(sa.encr, sa.integ, sa.esn) {
            self.inner.install_sa(sa)
        } else {
            Err(FaultKind::Unsupported.into())
        }
    }
}
