//! A device over another. What a layer does not say otherwise is the inner device's, all of it: also what its keys, its certificates and
//! its faults are about.

use std::sync::Arc;

use spi::crypto::{KeyInfo, KeySource};
use spi::{
    CryptoQueue, Device, DeviceDesc, EngineReport, EspQueue, Fault, Health, KeyId, QueueConfig, Region, SaId,
    SaParams, ShortOps, SignScheme, Stats,
};

/// What a layer says otherwise; each function is that of [`Device`] with the same name.
#[allow(missing_docs)]
pub trait Over: Send + Sync {
    /// The device below.
    fn inner(&self) -> &Arc<dyn Device>;

    fn desc(&self) -> &DeviceDesc {
        self.inner().desc()
    }

    fn esp_queue(&self, config: QueueConfig) -> Option<Box<EspQueue>> {
        self.inner().esp_queue(config)
    }

    fn crypto_queue(&self, config: QueueConfig) -> Option<Box<CryptoQueue>> {
        self.inner().crypto_queue(config)
    }

    #[allow(clippy::missing_errors_doc)]
    fn install_sa(&self, sa: &SaParams) -> Result<SaId, Fault> {
        self.inner().install_sa(sa)
    }

    #[allow(clippy::missing_errors_doc)]
    fn open_key(&self, source: KeySource) -> Result<KeyInfo, Fault> {
        self.inner().open_key(source)
    }

    fn health(&self) -> Health {
        self.inner().health()
    }

    fn begin_reset(&self) {
        self.inner().begin_reset();
    }
}

/// The device that a layer makes of the one below.
pub struct Layer<T>(pub(crate) T);

impl<T: Over> Device for Layer<T> {
    fn desc(&self) -> &DeviceDesc {
        self.0.desc()
    }

    fn esp_queue(&self, config: QueueConfig) -> Option<Box<EspQueue>> {
        self.0.esp_queue(config)
    }

    fn crypto_queue(&self, config: QueueConfig) -> Option<Box<CryptoQueue>> {
        self.0.crypto_queue(config)
    }

    fn short_ops(&self) -> Option<Arc<dyn ShortOps>> {
        self.0.inner().short_ops()
    }

    fn install_sa(&self, sa: &SaParams) -> Result<SaId, Fault> {
        self.0.install_sa(sa)
    }

    fn remove_sa(&self, sa: SaId) {
        self.0.inner().remove_sa(sa);
    }

    fn open_key(&self, source: KeySource) -> Result<KeyInfo, Fault> {
        self.0.open_key(source)
    }

    fn close_key(&self, key: KeyId) {
        self.0.inner().close_key(key);
    }

    fn certificates(&self, uri: &str) -> Result<Vec<Vec<u8>>, Fault> {
        self.0.inner().certificates(uri)
    }

    fn explain(&self, fault: Fault) -> String {
        self.0.inner().explain(fault)
    }

    fn register(&self, region: &Arc<Region>) -> Result<(), Fault> {
        self.0.inner().register(region)
    }

    fn engines(&self) -> Vec<EngineReport> {
        self.0.inner().engines()
    }

    fn stats(&self) -> Option<Stats> {
        self.0.inner().stats()
    }

    fn health(&self) -> Health {
        self.0.health()
    }

    fn begin_reset(&self) {
        self.0.begin_reset();
    }
}

/// A device whose keys stay where they are: what the kit would import is one of these instead, by its URI.
pub struct Keyed {
    inner: Arc<dyn Device>,
    desc: DeviceDesc,
    uris: Vec<String>,
}

impl Layer<Keyed> {
    /// Over an open device; a URI for each key that the kit may sign with, which are as many as it would import. Declares those schemes
    /// that one of the keys signs with.
    ///
    /// # Errors
    /// A key that does not open, and what the device says of it.
    pub fn new(inner: Arc<dyn Device>, uris: Vec<String>) -> Result<Self, String> {
        let most = crate::operation::KEYS.len();
        if uris.len() > most {
            return Err(format!("{} keys are more than the {most} that checks use", uris.len()));
        }
        let mut signs = Vec::new();
        for uri in &uris {
            let opened = inner.open_key(KeySource::Uri(uri.clone()));
            let key = opened.map_err(|fault| format!("{uri}: {}", inner.explain(fault)))?;
            signs.extend(key.schemes);
            inner.close_key(key.id);
        }
        let mut desc = inner.desc().clone();
        desc.caps.sign.retain(|scheme| signs.contains(scheme));
        Ok(Layer(Keyed { inner, desc, uris }))
    }

    /// Schemes that the device declares and none of the keys signs with.
    pub fn without_key(&self) -> Vec<SignScheme> {
        let (all, some) = (&self.0.inner.desc().caps.sign, &self.0.desc.caps.sign);
        all.iter().copied().filter(|scheme| !some.contains(scheme)).collect()
    }
}

impl Over for Keyed {
    fn inner(&self) -> &Arc<dyn Device> {
        &self.inner
    }

    fn desc(&self) -> &DeviceDesc {
        &self.desc
    }

    fn open_key(&self, source: KeySource) -> Result<KeyInfo, Fault> {
        let KeySource::Der(der) = &source else { return self.inner.open_key(source) };
        let place = crate::operation::KEYS.iter().position(|key| der.ct_eq(key));
        match place.and_then(|place| self.uris.get(place)) {
            Some(uri) => self.inner.open_key(KeySource::Uri(uri.clone())),
            None => Err(spi::FaultKind::Unsupported.into()),
        }
    }
}
