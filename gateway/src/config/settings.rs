//! `[gateway]` and `[[policy]]`: what concerns the gateway as a whole.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use policy::Retransmission;
use registry::{Accel, SoftEngine};
use serde::{Deserialize, Serialize};
use wire::TrafficSelector;

use super::raw;
use super::reader::{Reader, fixed_selector};
use crate::dispatch::Table;
use crate::sandbox::Side;

/// Settings of the gateway itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Addresses to listen on.
    pub listen: Vec<IpAddr>,
    /// Whether `listen` was written down, so that an address that cannot be had is an error.
    pub listen_given: bool,
    /// Folder of the control socket and of what must survive until the next start.
    pub state_dir: PathBuf,
    /// The file in which leases are remembered; `None`: they are forgotten at the end.
    pub leases: Option<PathBuf>,
    /// Whom `tussock-gateway` runs as, by name or number; `None`: the usual one.
    pub user: Option<String>,
    /// Whom `tussock-secure` runs as; the same.
    pub secure_user: Option<String>,
    /// Whether what the processes may ask of the kernel is limited (seccomp, Landlock).
    pub sandbox: bool,
    /// Filter for the log, as `tracing` reads it.
    pub log: String,
    /// How the log looks.
    pub log_format: LogFormat,
    /// Where keys are written for Wireshark; `None`: nowhere.
    pub keylog: Option<PathBuf>,
    /// Half-open IKE SAs before strangers must return a COOKIE.
    pub cookie_threshold: usize,
    /// IKE SAs there may be; who comes when there are so many is turned away.
    pub ike_sa_limit: usize,
    /// Retransmission of IKE requests.
    pub retransmission: Retransmission,
    /// Silence towards a NAT before it gets a keepalive (RFC 3948 section 4); zero: none are sent.
    pub keepalive: Duration,
    /// Default name of the TUN device.
    pub tun: Arc<str>,
    /// Whether they are TAP devices: with Ethernet headers.
    pub ethernet: bool,
    /// MTU of TUN devices in octets; `None`: from the MTU of the outside.
    pub mtu: Option<u16>,
    /// Mark on our own packets, by which they get around the tunnel routes.
    pub mark: u32,
    /// Lanes of the data path.
    pub workers: u16,
    /// Whether peers that can (RFC 9611) have a Child SA for each worker that has packets for them.
    pub sas_per_worker: bool,
    /// Whether each lane keeps to one core.
    pub pin: bool,
    /// Whether the kernel is asked for offloads of TUN devices.
    pub offload: bool,
    /// Which engines of the software device carry packets.
    pub soft_engine: SoftEngine,
    /// Devices to use, the preferred one first.
    pub accel: Vec<Accel>,
    /// What goes first.
    pub dispatch: Table,
}

/// How packets of a realm are worked on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RealmWork {
    /// Each packet at once, instead of bursts while there is more to read.
    pub at_once: bool,
    /// CPU time it may use, as a part of each worker's core.
    pub share: Option<f64>,
    /// The accelerators that its SAs belong on, the preferred one first; empty: as the gateway prefers them. `soft` is software.
    pub accel: Arc<[String]>,
    /// What its SAs may move to when their device dies.
    pub fallback: Fallback,
}

/// What may carry an SA in the place of the device that should.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fallback {
    /// Nothing: its packets are dropped until the device is back.
    Never,
    /// Another device, but not software.
    SameClass,
    /// Whatever can.
    #[default]
    Soft,
}

impl Fallback {
    /// As the configuration writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Fallback::Never => "never",
            Fallback::SameClass => "same-class",
            Fallback::Soft => "soft",
        }
    }
}

/// How the log looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
    /// To the system journal, each field a field there.
    Journal,
}

/// A carve-out: traffic that goes in the clear or not at all, whatever the realms say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CarveOut {
    /// True: in the clear; false: dropped.
    pub bypass: bool,
    /// Our side.
    pub local: Vec<TrafficSelector>,
    /// The other side.
    pub remote: Vec<TrafficSelector>,
    /// Lower goes first.
    pub priority: u32,
}

/// Lanes of the data path, at most; also the queues a TUN device of the kernel has for us.
pub const MAX_WORKERS: usize = 64;

/// Mark of our own packets unless the configuration has another.
pub const DEFAULT_MARK: u32 = 0x7473;

impl Default for Settings {
    fn default() -> Self {
        Settings {
            listen: vec![IpAddr::from([0u8; 4]), IpAddr::from([0u8; 16])],
            listen_given: false,
            state_dir: PathBuf::from("/run/tussock"),
            leases: Some(PathBuf::from("/var/lib/tussock/leases.db")),
            user: None,
            secure_user: None,
            sandbox: true,
            log: "info".to_owned(),
            log_format: LogFormat::Text,
            keylog: None,
            cookie_threshold: 64,
            ike_sa_limit: 20_000,
            retransmission: Retransmission::default(),
            keepalive: Duration::from_secs(20),
            tun: "ipsec0".into(),
            ethernet: false,
            mtu: None,
            mark: DEFAULT_MARK,
            workers: std::thread::available_parallelism().map_or(1, |cores| cores.get().min(MAX_WORKERS))
                as u16,
            sas_per_worker: true,
            pin: false,
            offload: true,
            soft_engine: SoftEngine::Auto,
            accel: Vec::new(),
            dispatch: Table::default(),
        }
    }
}

impl Settings {
    /// The control socket.
    pub fn socket(&self) -> PathBuf {
        self.state_dir.join("control.sock")
    }

    /// The key side's own.
    pub fn key_socket(&self) -> PathBuf {
        crate::control::passwords::beside(&self.socket())
    }

    /// Where a process may keep files of its own.
    pub fn own_folder(&self, side: Side) -> PathBuf {
        own_folder(&self.state_dir, side)
    }

    /// What drivers are told.
    pub fn devices(&self) -> registry::Config {
        let mut config = registry::Config::default();
        config.soft_engine = self.soft_engine;
        config.accel.clone_from(&self.accel);
        config
    }
}

/// Where a process may keep files of its own, by the state folder.
pub fn own_folder(state_dir: &Path, side: Side) -> PathBuf {
    state_dir.join(match side {
        Side::Network => "gateway",
        Side::Keys => "secure",
    })
}

/// Reads `[gateway]`.
pub(crate) fn settings(raw: raw::Gateway, reader: &mut Reader<'_>) -> Settings {
    let mut settings = Settings::default();
    if let Some(listen) = &raw.listen {
        settings.listen = reader.list(listen, |text| {
            text.parse::<IpAddr>().map_err(|_| format!("`{text}` is not an address to listen on"))
        });
        settings.listen_given = true;
    }
    if let Some(dir) = &raw.state_dir {
        settings.state_dir = reader.path(dir);
        settings.leases = Some(settings.own_folder(Side::Network).join("leases.db"));
    }
    if let Some(file) = &raw.leases {
        settings.leases = Some(file).filter(|file| file.get_ref() != "off").map(|file| reader.path(file));
    }
    settings.user = raw.user.as_ref().map(|user| user.get_ref().clone());
    settings.secure_user = raw.secure_user.as_ref().map(|user| user.get_ref().clone());
    if let Some(word) = &raw.sandbox {
        settings.sandbox = reader.choice("sandbox", word, &[("on", true), ("off", false)]).unwrap_or(true);
        if !settings.sandbox {
            reader.warn(
                word.span(),
                "sandbox = \"off\": a process that is taken over may ask the kernel for anything",
            );
        }
    }
    if let Some(log) = &raw.log {
        let fits = reader.parse(log, |text| {
            tracing_subscriber::EnvFilter::builder().parse(text).map(|_| text.to_owned()).map_err(|_| {
                format!("`{text}` is not a log filter; write for example \"info\" or \"tussock=debug\"")
            })
        });
        settings.log = fits.unwrap_or(settings.log);
    }
    if let Some(format) = &raw.log_format {
        let choices = [("text", LogFormat::Text), ("json", LogFormat::Json), ("journal", LogFormat::Journal)];
        settings.log_format = reader.choice("log format", format, &choices).unwrap_or(LogFormat::Text);
    }
    settings.keylog = raw.keylog.as_ref().map(|dir| reader.path(dir));
    if let Some(threshold) = &raw.cookie_threshold {
        settings.cookie_threshold = *threshold.get_ref() as usize;
    }
    if let Some(limit) = &raw.ike_sa_limit {
        settings.ike_sa_limit = *limit.get_ref() as usize;
        if settings.ike_sa_limit == 0 {
            reader.error(limit.span(), "an `ike_sa_limit` of 0 lets nobody in");
        }
    }
    if let Some(retransmit) = &raw.retransmit {
        settings.retransmission = retransmission(retransmit, reader);
    }
    settings.keepalive = reader.duration(raw.keepalive.as_ref(), settings.keepalive);
    if let Some(name) = raw.tun.as_ref().and_then(|tun| reader.parse(tun, device_name)) {
        settings.tun = name.into();
    }
    if let Some(kind) = &raw.tun_kind {
        let choices = [("tun", false), ("tap", true)];
        settings.ethernet = reader.choice("kind of device", kind, &choices).unwrap_or(false);
    }
    if let Some(mtu) = &raw.mtu {
        match *mtu.get_ref() {
            // IPv6 needs 1280 on every link (RFC 8200 section 5); a tunnel for IPv4 alone could do with less.
            mtu @ 576.. => settings.mtu = Some(mtu),
            mtu => reader
                .error(raw.mtu.as_ref().map_or(0..0, |m| m.span()), format!("an MTU of {mtu} is too small")),
        }
    }
    if let Some(mark) = &raw.mark {
        settings.mark = *mark.get_ref();
        if settings.mark == 0 {
            reader.error(mark.span(), "mark 0 marks nothing; write another number");
        }
    }
    settings.sas_per_worker = raw.sas_per_worker.unwrap_or(settings.sas_per_worker);
    if let Some(workers) = &raw.workers {
        settings.workers = *workers.get_ref();
        if !(1..=MAX_WORKERS).contains(&usize::from(settings.workers)) {
            reader.error(workers.span(), format!("`workers` must be between 1 and {MAX_WORKERS}"));
        }
    }
    settings.pin = raw.pin.unwrap_or(false);
    settings.offload = raw.offload.unwrap_or(true);
    if let Some(engine) = &raw.soft_engine {
        let choices =
            [("auto", SoftEngine::Auto), ("aws-lc", SoftEngine::AwsLc), ("ipsec-mb", SoftEngine::IpsecMb)];
        settings.soft_engine = reader.choice("engine", engine, &choices).unwrap_or_default();
    }
    settings
}

fn retransmission(raw: &toml::Spanned<raw::Retransmit>, reader: &mut Reader<'_>) -> Retransmission {
    let (at, raw) = (raw.span(), raw.get_ref());
    let mut result = Retransmission::default();
    result.tries = raw.tries.unwrap_or(result.tries);
    if result.tries > 30 {
        reader.error(at.clone(), "more than 30 tries");
    }
    result.first = reader.duration(raw.first.as_ref(), result.first);
    if result.first < Duration::from_millis(50) {
        // RFC 7296 section 2.4: retransmission must not flood the network.
        reader.error(raw.first.as_ref().map_or(at, |w| w.span()), "the first wait must be 50 ms or more");
    }
    if let Some(base) = &raw.base {
        if (1.0..=10.0).contains(base.get_ref()) {
            result.base = *base.get_ref();
        } else {
            reader.error(base.span(), "`base` must be between 1.0 and 10.0");
        }
    }
    result.limit = reader.duration(raw.limit.as_ref(), result.limit);
    result
}

/// Reads how packets of a realm are worked on.
pub(crate) fn realm_work(raw: &raw::Realm, known: &[Accel], reader: &mut Reader<'_>) -> RealmWork {
    let modes = [("throughput", false), ("latency", true)];
    let at_once = raw.mode.as_ref().and_then(|word| reader.choice("mode", word, &modes)).unwrap_or(false);
    let share = raw.cpu_share.as_ref().and_then(|share| {
        let part = *share.get_ref();
        // One percent of a core is some thousand packets in a second.
        let fits = (0.01..=1.0).contains(&part);
        if !fits {
            let text = "`cpu_share` is a part of each worker's core, from 0.01 to 1.0";
            reader.error(share.span(), text);
        }
        (fits && part < 1.0).then_some(part)
    });
    let choices = [Fallback::Never, Fallback::SameClass, Fallback::Soft].map(|f| (f.name(), f));
    let fallback = raw.fallback.as_ref().and_then(|word| reader.choice("fallback", word, &choices));
    RealmWork {
        at_once,
        share,
        accel: realm_accel(raw, known, reader),
        fallback: fallback.unwrap_or_default(),
    }
}

/// The name that software goes by in `accel`.
pub const SOFTWARE: &str = "soft";

fn realm_accel(raw: &raw::Realm, known: &[Accel], reader: &mut Reader<'_>) -> Arc<[String]> {
    let Some(words) = &raw.accel else { return Arc::default() };
    if words.get_ref().is_empty() {
        reader.error(words.span(), "`accel` is empty; write [\"soft\"] for software alone, or leave it away");
    }
    let mut names: Vec<(&str, ())> = known.iter().map(|accel| (accel.name.as_str(), ())).collect();
    names.push((SOFTWARE, ()));
    let mut wanted: Vec<String> = Vec::new();
    for word in words.get_ref() {
        if reader.choice("accelerator", word, &names).is_some() && !wanted.contains(word.get_ref()) {
            wanted.push(word.get_ref().clone());
        }
    }
    wanted.into()
}

/// Reads one `[[policy]]`; `at` is where messages about the whole go.
pub(crate) fn carve_out(
    raw: &raw::Policy,
    at: std::ops::Range<usize>,
    reader: &mut Reader<'_>,
) -> Option<CarveOut> {
    let bypass = match &raw.action {
        Some(word) => reader.choice("action", word, &[("bypass", true), ("discard", false)]),
        None => {
            reader.error(at.clone(), "`action` is missing: \"bypass\" or \"discard\"");
            None
        }
    };
    let mut side = |name: &str, words: &Option<Vec<raw::Word>>| match words {
        Some(words) => reader.list(words, fixed_selector),
        None => {
            reader.error(at.clone(), format!("`{name}` is missing; write for example [\"10.1.0.0/16\"]"));
            Vec::new()
        }
    };
    let (local, remote) = (side("local", &raw.local), side("remote", &raw.remote));
    let priority = raw.priority.as_ref().map_or(100, |priority| *priority.get_ref());
    Some(CarveOut { bypass: bypass?, local, remote, priority })
}

/// A name that Linux takes for an interface.
///
/// # Errors
/// What is wrong.
pub(crate) fn device_name(text: &str) -> Result<String, String> {
    let fits = (1..=15).contains(&text.len())
        && text.chars().all(|c| c.is_ascii_graphic() && !"/:%".contains(c))
        && text != "."
        && text != "..";
    if fits {
        Ok(text.to_owned())
    } else {
        Err(format!("`{text}` is not a name for an interface: 1 to 15 letters, digits, `-`, `_` or `.`"))
    }
}
