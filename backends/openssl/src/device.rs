//! `Device`: one provider in a context of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use spi::caps::Traits;
use spi::crypto::{KeyInfo, KeySource};
use spi::{
    Caps, CryptoQueue, Device, DeviceDesc, EspQueue, Fault, FaultKind, Health, KeyId, QueueConfig, SaId,
    SaParams, Stats,
};

use crate::config::Config;
use crate::driver::unknown;
use crate::keys::SigningKey;
use crate::lane::Lane;
use crate::open::{self, Opened, told};
use crate::operations::Operations;
use crate::packets::Packets;
use crate::probe::{self, Found};
use crate::pump;
use crate::sa::Sa;
use crate::shared::{MAX_SAS, Shared};
use crate::sys::engine::Engine;
use crate::sys::pkey::Key;
use crate::sys::store;

/// Jobs one ring holds at most.
const RING: usize = 4096;

/// An open device.
pub(crate) struct OpenSslDevice {
    desc: DeviceDesc,
    about: String,
    engine: Option<Arc<Engine>>,
    pin_refused: AtomicBool,
    shared: Arc<Shared>,
}

impl OpenSslDevice {
    /// Opens what is configured, and tries what it can do.
    ///
    /// # Errors
    /// What is in the way, and what to do about it.
    pub(crate) fn open(id: &str, config: &Config) -> Result<Self, String> {
        let Opened { context, engine, about, properties, query } = open::open(config)?;
        let mut found = probe::everything(&context);
        if found.is_empty() {
            return Err(format!(
                "the provider `{}` is loaded, and nothing that a gateway needs is found with properties = {query:?}; its own \
                 algorithms have: {}",
                config.provider,
                told(&properties)
            ));
        }
        if engine.is_some() {
            // An engine is there for its keys; everything else is the business of other devices.
            found = Found { esp: Vec::new(), dh: Vec::new(), ..found };
        }
        let mut traits = Traits::RECOVERS | Traits::ASYNCHRONOUS;
        let validated = |query: &str| {
            query.split(',').any(|part| part.trim() == "provider=fips" || part.trim() == "fips=yes")
        };
        traits.set(Traits::FIPS, validated(&query) && engine.is_none());
        let caps = Caps {
            esp: found.esp.clone(),
            dh: found.dh.clone(),
            sign: found.sign.clone(),
            verify: found.verify.clone(),
            traits,
            ring: RING,
            max_sas: MAX_SAS,
            max_len: u16::MAX as usize,
            ..unknown()
        };
        Ok(OpenSslDevice {
            desc: DeviceDesc { id: id.to_owned(), numa_node: None, caps },
            about,
            engine,
            pin_refused: AtomicBool::new(false),
            shared: Arc::new(Shared::new(context, found, config.jobs, config.patience)),
        })
    }

    /// A key where it stays. A PIN that was refused is not tried again: tokens lock themselves after a few attempts.
    fn key_by_uri(&self, uri: &str) -> Result<(Key, Option<Arc<Engine>>), Fault> {
        if self.pin_refused.load(Ordering::Relaxed) {
            return Err(FaultKind::Unsupported.into());
        }
        let found = match &self.engine {
            Some(engine) => engine.private_key(uri).map(|key| (key, Some(Arc::clone(engine)))),
            None => store::open(&self.shared.context, uri).map(|key| (key, None)),
        };
        found.map_err(|why| {
            let device = &self.desc.id;
            if why.contains("PIN incorrect") || why.contains("PIN locked") {
                self.pin_refused.store(true, Ordering::Relaxed);
                let what = "the token refuses the PIN, which is not tried again: put it right and restart";
                tracing::error!(%device, %why, "openssl: {what}");
            } else {
                tracing::warn!(%device, %why, "openssl: a key by URI does not open");
            }
            FaultKind::Unsupported.into()
        })
    }
}

impl Device for OpenSslDevice {
    fn desc(&self) -> &DeviceDesc {
        &self.desc
    }

    fn esp_queue(&self, config: QueueConfig) -> Option<Box<EspQueue>> {
        if self.desc.caps.esp.is_empty() {
            return None;
        }
        let depth = config.depth.clamp(1, RING);
        Some(Box::new(Lane::open(&self.shared, "packets", depth, Packets::default())?))
    }

    fn crypto_queue(&self, config: QueueConfig) -> Option<Box<CryptoQueue>> {
        let depth = config.depth.clamp(1, RING);
        Some(Box::new(Lane::open(&self.shared, "operations", depth, Operations)?))
    }

    fn install_sa(&self, sa: &SaParams) -> Result<SaId, Fault> {
        if !self.desc.caps.carries(sa.encr, sa.integ, sa.esn) {
            return Err(FaultKind::Unsupported.into());
        }
        self.shared.insert_sa(Sa::new(&self.shared.context, sa)?)
    }

    fn remove_sa(&self, sa: SaId) {
        self.shared.remove_sa(sa);
    }

    fn open_key(&self, source: KeySource) -> Result<KeyInfo, Fault> {
        let (key, engine) = match source {
            KeySource::Der(der) if self.engine.is_none() => {
                let key = Key::from_private_der(&self.shared.context, der.expose());
                (key.ok_or(FaultKind::Unsupported)?, None)
            }
            KeySource::Uri(uri) => self.key_by_uri(&uri)?,
            _ => return Err(FaultKind::Unsupported.into()),
        };
        let key = SigningKey::new(&self.shared.context, key, engine, &self.desc.caps.sign)
            .ok_or(FaultKind::Unsupported)?;
        let (spki, schemes) = (key.spki().to_vec(), key.schemes().to_vec());
        Ok(KeyInfo { id: self.shared.insert_key(key)?, spki, schemes })
    }

    fn close_key(&self, key: KeyId) {
        self.shared.remove_key(key);
    }

    fn stats(&self) -> Option<Stats> {
        let counters = &self.shared.counters;
        let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        Some(Stats {
            identity: self.about.clone(),
            queues: self.shared.queue_stats(),
            resets: self.shared.resets(),
            counters: vec![
                ("paused", count(&counters.paused)),
                ("most-paused", count(&counters.most_paused)),
                ("abandoned", count(&counters.abandoned)),
                ("overdue", count(&counters.overdue)),
                ("refused", count(&counters.refused)),
                ("orphans", pump::left() as u64),
            ],
        })
    }

    fn health(&self) -> Health {
        if self.shared.has_failed() { Health::Failed } else { Health::Ready }
    }

    fn begin_reset(&self) {
        self.shared.reset();
    }
}
