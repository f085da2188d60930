//! `Driver` and `Device`: one device for each token that is configured.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use spi::caps::Traits;
use spi::crypto::{KeyInfo, KeySource};
use spi::{
    Caps, CryptoQueue, Device, DeviceDesc, Driver, EspQueue, Fault, FaultKind, Health, KeyId, Outcome,
    QueueConfig, SaId, SaParams, Stats, Unusable,
};

use crate::dh;
use crate::find;
use crate::module::Module;
use crate::queue::{self, Gauges};
use crate::seat::{Key, Seat, Shared};
use crate::sign;
use crate::token::{Dh, Site, Token};
use crate::trouble::{Failure, Trouble, What};
use crate::uri::{Class, Uri};

/// What the tokens are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Long-term keys. A token that is not there yet is waited for: whoever needs it hears that it is missing.
    Keys,
    /// Key exchanges, in tokens that do them. One that is not there is no device: whoever is next in the list does the work.
    Exchanges,
}

/// The driver for tokens.
pub struct Pkcs11 {
    sites: Vec<Site>,
    side: Side,
    /// Why tokens did not open.
    unusable: Mutex<Vec<Unusable>>,
}

impl Pkcs11 {
    /// For these tokens.
    pub fn new(sites: Vec<Site>, side: Side) -> Pkcs11 {
        let sites = sites.into_iter().filter(|site| side == Side::Keys || site.dh == Dh::Token).collect();
        Pkcs11 { sites, side, unusable: Mutex::default() }
    }

    fn open_site(&self, site: &Site) -> Result<Arc<dyn Device>, Trouble> {
        let token = Token::new(site.clone());
        let shared = Arc::new(Shared::new(token));
        let found = match self.side {
            // The module has to be there; the token may come later.
            Side::Keys => {
                Module::open(&site.module)?;
                shared.token.mechanisms().unwrap_or_default()
            }
            Side::Exchanges => shared.token.mechanisms()?,
        };
        let mut caps = caps(site, self.side);
        if !found.is_empty() {
            caps.sign = sign::all(&found);
        }
        if self.side == Side::Exchanges {
            let mut seat = Seat::new(Arc::clone(&shared));
            let groups = seat.run(|open| {
                let groups = dh::groups(&found).into_iter();
                Ok(groups.filter(|group| dh::works(&open.session, *group)).collect())
            });
            caps.dh = groups.map_err(|outcome| match outcome {
                Outcome::Failed(fault) => {
                    Trouble::new(What::Token, shared.told(fault).unwrap_or_else(|| fault.to_string()))
                }
                _ => Trouble::new(What::Nonsense, "no key exchange could be tried"),
            })?;
            caps.sign.clear();
        }
        let desc = DeviceDesc { id: site.name.clone(), numa_node: None, caps };
        let office = Mutex::new(Seat::new(Arc::clone(&shared)));
        Ok(Arc::new(TokenDevice { desc, side: self.side, shared, office, gauges: Mutex::default() }))
    }
}

impl Driver for Pkcs11 {
    fn name(&self) -> &'static str {
        "pkcs11"
    }

    fn probe(&self) -> Vec<DeviceDesc> {
        let desc =
            |site: &Site| DeviceDesc { id: site.name.clone(), numa_node: None, caps: caps(site, self.side) };
        self.sites.iter().map(desc).collect()
    }

    fn unusable(&self) -> Vec<Unusable> {
        self.unusable.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn open(&self, desc: &DeviceDesc) -> Result<Arc<dyn Device>, Fault> {
        let site = self.sites.iter().find(|site| site.name == desc.id).ok_or(FaultKind::Unsupported)?;
        let opened = self.open_site(site);
        let mut unusable = self.unusable.lock().unwrap_or_else(PoisonError::into_inner);
        unusable.retain(|device| device.id != desc.id);
        opened.map_err(|trouble| {
            unusable.push(Unusable { id: desc.id.clone(), why: trouble.text.clone() });
            trouble.fault()
        })
    }
}

/// What a token may be able to do, before it was asked.
fn caps(site: &Site, side: Side) -> Caps {
    let all = [
        cryptoki::mechanism::MechanismType::RSA_PKCS,
        cryptoki::mechanism::MechanismType::RSA_PKCS_PSS,
        cryptoki::mechanism::MechanismType::ECDSA,
        cryptoki::mechanism::MechanismType::EDDSA,
        cryptoki::mechanism::MechanismType::ECC_KEY_PAIR_GEN,
        cryptoki::mechanism::MechanismType::ECDH1_DERIVE,
    ];
    Caps {
        esp: Vec::new(),
        dh: if side == Side::Exchanges && site.dh == Dh::Token { dh::groups(&all) } else { Vec::new() },
        sign: if side == Side::Keys { sign::all(&all) } else { Vec::new() },
        verify: Vec::new(),
        prf: Vec::new(),
        traits: Traits::RECOVERS | Traits::ASYNCHRONOUS,
        ring: queue::RING,
        max_sas: 0,
        max_len: 0,
    }
}

struct TokenDevice {
    desc: DeviceDesc,
    side: Side,
    shared: Arc<Shared>,
    /// The session of whoever opens keys.
    office: Mutex<Seat>,
    gauges: Mutex<Gauges>,
}

impl TokenDevice {
    /// What a URI means, if it can be on this token.
    fn understand(&self, text: &str) -> Result<Uri, Trouble> {
        let site = &self.shared.token.site;
        let uri = Uri::parse(text).map_err(|error| Trouble::new(What::BadUri, format!("{error}")))?;
        let module = uri.module_path.as_ref().is_none_or(|path| *path == site.module);
        if !uri.agrees(&Uri { module_path: None, ..site.token.clone() }) || !module {
            let text = format!("{uri} is not on {site}");
            return Err(Trouble::new(What::NotMine, text));
        }
        if uri.is_of_token() || uri.class.is_some() && uri.object.is_none() && uri.id.is_none() {
            let text = format!("{uri} names no object; add object= (its label) or id=");
            return Err(Trouble::new(What::BadUri, text));
        }
        self.shared.token.hint(&uri);
        Ok(uri)
    }

    fn in_office<T>(
        &self,
        work: impl FnMut(&mut crate::seat::Open) -> Result<T, Failure>,
    ) -> Result<T, Fault> {
        let mut office = self.office.lock().unwrap_or_else(PoisonError::into_inner);
        office.run(work).map_err(|outcome| match outcome {
            Outcome::Failed(fault) => fault,
            _ => FaultKind::Internal.into(),
        })
    }
}

impl Device for TokenDevice {
    fn desc(&self) -> &DeviceDesc {
        &self.desc
    }

    fn esp_queue(&self, _: QueueConfig) -> Option<Box<EspQueue>> {
        None
    }

    fn crypto_queue(&self, config: QueueConfig) -> Option<Box<CryptoQueue>> {
        let (queue, gauge) = queue::open(&self.shared, config.depth)?;
        self.gauges.lock().unwrap_or_else(PoisonError::into_inner).push(gauge);
        Some(queue)
    }

    fn install_sa(&self, _: &SaParams) -> Result<SaId, Fault> {
        Err(FaultKind::Unsupported.into())
    }

    fn remove_sa(&self, _: SaId) {}

    fn open_key(&self, source: KeySource) -> Result<KeyInfo, Fault> {
        let KeySource::Uri(text) = source else { return Err(FaultKind::Unsupported.into()) };
        let uri = self.understand(&text).map_err(|trouble| self.shared.fault(&trouble))?;
        let (found, mechanisms) = self.in_office(|open| {
            let found = find::signing_key(&open.session, &uri)?;
            Ok((found, open.mechanisms.clone()))
        })?;
        let mechanisms: Vec<_> = match &found.allowed {
            Some(allowed) => mechanisms.into_iter().filter(|mechanism| allowed.contains(mechanism)).collect(),
            None => mechanisms,
        };
        let schemes = sign::schemes(found.kind, &mechanisms);
        if schemes.is_empty() {
            let text = format!("the token has no mechanism that signs with the {} key of {uri}", found.kind);
            return Err(self.shared.fault(&Trouble::new(What::Unfit, text)));
        }
        let (kind, spki) = (found.kind, found.spki.clone());
        let key = Key { uri, kind, spki: found.spki, schemes: schemes.clone(), mechanisms };
        let (index, epoch) = self.shared.keys().insert(Arc::new(key))?;
        Ok(KeyInfo { id: KeyId { index, epoch }, spki, schemes })
    }

    fn close_key(&self, key: KeyId) {
        self.shared.keys().remove(key.index, key.epoch);
    }

    fn certificates(&self, uri: &str) -> Result<Vec<Vec<u8>>, Fault> {
        let understood = self.understand(uri).and_then(|uri| match uri.class {
            None | Some(Class::Cert | Class::Private) => Ok(uri),
            Some(_) => Err(Trouble::new(What::BadUri, format!("{uri} is no certificate; write type=cert"))),
        });
        let uri = understood.map_err(|trouble| self.shared.fault(&trouble))?;
        self.in_office(|open| find::certificates(&open.session, &uri))
    }

    fn explain(&self, fault: Fault) -> String {
        self.shared.told(fault).unwrap_or_else(|| fault.to_string())
    }

    fn stats(&self) -> Option<Stats> {
        let token = &self.shared.token;
        let counters = &self.shared.counters;
        let identity = match token.find() {
            Ok((_, _, info)) => crate::token::identity(&info),
            Err(trouble) => trouble.text,
        };
        let of = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        Some(Stats {
            identity,
            queues: queue::stats(&mut self.gauges.lock().unwrap_or_else(PoisonError::into_inner)),
            resets: of(&self.shared.resets),
            counters: vec![
                ("signatures", of(&counters.signatures)),
                ("pairs", of(&counters.pairs)),
                ("secrets", of(&counters.secrets)),
                ("random", of(&counters.random)),
                ("failed", of(&counters.failed)),
                ("sessions-opened", of(&token.opened)),
                ("sessions-lost", of(&counters.lost)),
                ("logins", of(&token.logins)),
            ],
        })
    }

    fn health(&self) -> Health {
        match self.side {
            // Whoever asks for a signature is told that the token is missing, and is served as soon as it is back.
            Side::Keys => Health::Ready,
            Side::Exchanges if self.shared.missing.load(Ordering::Acquire) => Health::Failed,
            Side::Exchanges => Health::Ready,
        }
    }

    fn begin_reset(&self) {
        self.shared.reset();
    }
}
