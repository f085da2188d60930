//! One gateway in memory: the engine, the software device, the key side on its thread, and the data path's SAs.

use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Instant;

use ike::{ChildInstall, Command, CommandId, Effect, Engine, Event, Path};
use rustix::event::{PollFd, PollFlags};
use spi::{CryptoDone, CryptoJob, CryptoQueue, Device, Direction, QueueConfig, SaParams};

use crate::mem::{Part, on_behalf, outside};

/// A datagram on its way.
pub(crate) type Datagram = (Path, Vec<u8>);

/// See the module.
pub(crate) struct Side {
    engine: Engine,
    fx: Vec<Effect>,
    device: Arc<dyn Device>,
    crypto: Box<CryptoQueue>,
    jobs: VecDeque<CryptoJob>,
    secure: secure::Running,
    esp: esp::Esp,
    lines: u64,
    /// What was sent.
    pub(crate) sent: Vec<Datagram>,
    /// IKE SAs that came up.
    pub(crate) up: usize,
    /// Child SAs that came up.
    pub(crate) children: usize,
    /// Octets of the device's SAs that a C library holds.
    pub(crate) outside: i64,
    /// What went wrong.
    pub(crate) wrong: Vec<String>,
}

impl Side {
    /// A gateway with this configuration.
    pub(crate) fn new(config: ike::Config, keys: secure::Config) -> anyhow::Result<Side> {
        let drivers = registry::network_drivers(&registry::Config::default());
        let opened = registry::open_all(&drivers).0;
        let device =
            opened.into_iter().next().map(|o| o.device).ok_or_else(|| anyhow::anyhow!("no device"))?;
        let crypto =
            device.crypto_queue(QueueConfig::default()).ok_or_else(|| anyhow::anyhow!("no crypto queue"))?;
        let short = device.short_ops().ok_or_else(|| anyhow::anyhow!("no short primitives"))?;
        let secure = secure::spawn(keys)?;
        if let Some(problem) = secure.served.problems.first() {
            anyhow::bail!("{problem}");
        }
        let mut esp = esp::Esp::new(esp::Config::new(spi::Pool::new(4096, 4)?));
        esp.add_device(64);
        Ok(Side {
            engine: on_behalf(Part::Engine, || Engine::new(config, short, Instant::now())),
            fx: Vec::new(),
            device,
            crypto,
            jobs: VecDeque::new(),
            secure,
            esp,
            lines: 0,
            sent: Vec::new(),
            up: 0,
            children: 0,
            outside: 0,
            wrong: Vec::new(),
        })
    }

    /// Gives a command.
    pub(crate) fn command(&mut self, id: u64, command: Command) {
        let now = Instant::now();
        on_behalf(Part::Engine, || self.engine.handle_command(now, CommandId(id), command, &mut self.fx));
        self.carry_out(now);
    }

    /// Takes a datagram.
    pub(crate) fn datagram(&mut self, (path, message): &Datagram) {
        let (now, natt) = (Instant::now(), path.local.port() != 500);
        self.engine.set_crypto_room(self.crypto.room());
        on_behalf(Part::Engine, || self.engine.handle_datagram(now, *path, message, natt, &mut self.fx));
        self.carry_out(now);
    }

    /// Works until nothing is out any more.
    pub(crate) fn settle(&mut self) {
        loop {
            let now = Instant::now();
            let mut done = Vec::new();
            self.crypto.poll(16, &mut |d: CryptoDone| done.push(d));
            for done in done {
                on_behalf(Part::Engine, || self.engine.handle_crypto(now, done, &mut self.fx));
                self.carry_out(now);
            }
            self.push();
            let mut replies = Vec::new();
            on_behalf(Part::Channel, || {
                self.secure.end.poll(64, |token, reply| replies.push((token, reply)))
            });
            for (token, reply) in replies {
                on_behalf(Part::Engine, || self.engine.handle_reply(now, token, reply, &mut self.fx));
                self.carry_out(now);
            }
            if self.crypto.in_flight() + self.secure.end.in_flight() == 0 && self.jobs.is_empty() {
                return;
            }
            let bells = [self.crypto.doorbell(), Some(self.secure.end.doorbell())];
            wait(bells.into_iter().flatten());
        }
    }

    fn carry_out(&mut self, now: Instant) {
        while !self.fx.is_empty() {
            for effect in std::mem::take(&mut self.fx) {
                self.apply(now, effect);
            }
        }
    }

    fn apply(&mut self, now: Instant, effect: Effect) {
        match effect {
            Effect::Send { path, message } => self.sent.push((path, message)),
            Effect::Crypto(job) => {
                self.jobs.push_back(job);
                self.push();
            }
            Effect::Ask { token, request } => {
                let asked = on_behalf(Part::Channel, || self.secure.end.submit(token, request));
                if let Err(unsent) = asked {
                    self.wrong.push(format!("{unsent:?}"));
                }
            }
            Effect::InstallChild(child) => self.install(now, *child),
            Effect::Event(Event::IkeEstablished { .. }) => self.up += 1,
            Effect::Event(Event::ChildEstablished { .. }) => self.children += 1,
            Effect::Event(other) => self.wrong.push(format!("{other:?}")),
            _ => {}
        }
    }

    fn push(&mut self) {
        if !self.jobs.is_empty() {
            let _ = self.crypto.submit(&mut self.jobs);
        }
    }

    /// As the worker does it, but for routes.
    fn install(&mut self, now: Instant, c: ChildInstall) {
        self.lines += 1;
        let params = |spi, dir, encr_key, integ_key| SaParams {
            spi,
            dir,
            encr: c.encr,
            integ: c.integ,
            encr_key,
            integ_key,
            esn: c.esn,
        };
        let inbound = params(c.spi_in, Direction::Open, c.encr_key_in, c.integ_key_in);
        let outbound = params(c.spi_out, Direction::Seal, c.encr_key_out, c.integ_key_out);
        let (ids, octets) = on_behalf(Part::Device, || {
            outside(|| {
                self.device.install_sa(&inbound).and_then(|i| Ok((i, self.device.install_sa(&outbound)?)))
            })
        });
        self.outside += octets;
        let Ok((sa_in, sa_out)) = ids else { return self.wrong.push("a device took no SA".into()) };
        let mode = esp::Mode::Tunnel { local: c.path.local.ip(), remote: c.path.remote.ip() };
        let udp = esp::UdpEncap { local: c.path.local, remote: c.path.remote };
        let encap = c.encap.then_some(udp);
        let (child, limits) = (esp::ChildId(self.lines), esp::Limits::default());
        let inbound = esp::InboundSa {
            child,
            spi: c.spi_in,
            device: 0,
            sa: sa_in,
            encr: c.encr,
            integ: c.integ,
            esn: c.esn,
            mode,
            encap,
            ts_local: c.ts_local.to_vec(),
            ts_remote: c.ts_remote.to_vec(),
            iface: 0,
            replay_window: 1024,
            moves: esp::PeerMoves::Report,
            pair: Some(c.spi_out),
            limits,
            share: None,
        };
        let outbound = esp::OutboundSa {
            child,
            spi: c.spi_out,
            device: 0,
            sa: sa_out,
            encr: c.encr,
            integ: c.integ,
            esn: c.esn,
            mode,
            encap,
            ts_local: c.ts_local.to_vec(),
            ts_remote: c.ts_remote.to_vec(),
            iface: None,
            priority: 0,
            tfc: None,
            dummy: None,
            keepalive: None,
            df: esp::DfPolicy::Copy,
            dscp: esp::DscpPolicy::Copy,
            ecn: esp::EcnPolicy::Copy,
            path_mtu: 1500,
            limits,
            waits: false,
            at_once: false,
            share: None,
        };
        let installed = on_behalf(Part::Esp, || {
            self.esp.install_inbound(inbound, now).and_then(|()| self.esp.install_outbound(outbound, now))
        });
        if let Err(error) = installed {
            self.wrong.push(error.to_string());
        }
    }
}

fn wait<'a>(bells: impl Iterator<Item = BorrowedFd<'a>>) {
    let mut fds: Vec<PollFd<'_>> = bells.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
    // An interrupted wait is a short one.
    let _ = rustix::event::poll(&mut fds, None);
}
