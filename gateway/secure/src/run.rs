//! The thread of the key side: questions in, work to the devices and the kernel, answers out.

use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::SystemTime;

use ipc::{NetworkEnd, Received, Refusal, Reply, Request, SecureEnd, Table};
use rustix::event::{PollFd, PollFlags, Timespec};
use spi::cert::CertQueue;
use spi::{Device, Doorbell, Token};

use crate::authority::{Authority, NetRequest};
use crate::config::Config;
use crate::devices::Devices;
use crate::kernel::{Kernel, Linux};
use crate::permit::Permits;
use crate::validator::Validator;
use crate::vault::{Problem, Vault};

/// Questions taken in one turn, so that answers do not wait behind a flood.
const BUDGET: usize = 64;
/// Sleep while a device without a doorbell has work out.
const BLIND_WAIT: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000 };

type Swap = (Config, std::sync::mpsc::Sender<Vec<Problem>>);

#[derive(Default)]
struct Inbox {
    swap: Vec<Swap>,
    stop: bool,
}

/// Steers a running key side.
pub struct Handle {
    inbox: Arc<Mutex<Inbox>>,
    bell: Doorbell,
    thread: Option<JoinHandle<()>>,
}

impl Handle {
    /// Puts another configuration in place and says what is wrong with it. Waits until it is in use; proofs under way
    /// end with what they began with.
    ///
    /// # Errors
    /// The key side is gone.
    pub fn reload(&self, config: Config) -> io::Result<Vec<Problem>> {
        let (to, from) = std::sync::mpsc::channel();
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner).swap.push((config, to));
        self.bell.ring();
        from.recv().map_err(|_| io::Error::new(io::ErrorKind::BrokenPipe, "the key side is gone"))
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner).stop = true;
        self.bell.ring();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A key side that runs on its own thread.
pub struct Running {
    /// Where to ask.
    pub end: NetworkEnd,
    /// Reload and shutdown. The key side also ends when `end` is dropped.
    pub handle: Handle,
    /// What is wrong with the configuration; realms not named here work.
    pub problems: Vec<Problem>,
}

/// Opens every device of the registry's key drivers, then the keys, and starts the thread.
///
/// # Errors
/// No device to be had, no thread, no file descriptor, no netlink socket.
pub fn spawn(config: Config) -> io::Result<Running> {
    let drivers = registry::key_drivers(&registry::Config::default());
    let (opened, unopened) = registry::open_all(&drivers);
    for device in unopened {
        tracing::warn!(driver = device.driver, device = %device.id, fault = %device.fault, "a device does not open");
    }
    spawn_on(config, opened.into_iter().map(|o| o.device).collect())
}

/// The same with devices of the caller's choice, best first.
///
/// # Errors
/// As [`spawn`].
pub fn spawn_on(config: Config, devices: Vec<Arc<dyn Device>>) -> io::Result<Running> {
    spawn_with(config, devices, Box::new(Linux::new()?))
}

pub(crate) fn spawn_with(
    config: Config,
    devices: Vec<Arc<dyn Device>>,
    kernel: Box<dyn Kernel>,
) -> io::Result<Running> {
    let (authority, problems) = authority(config, devices)?;
    let (end, secure) = ipc::pair()?;
    let inbox = Arc::new(Mutex::new(Inbox::default()));
    let bell = Doorbell::new()?;
    let secure = Secure {
        end: secure,
        authority,
        kernel,
        permits: Permits::default(),
        inbox: Arc::clone(&inbox),
        bell: bell.clone(),
    };
    let thread = std::thread::Builder::new().name("secure".into()).spawn(move || secure.run())?;
    Ok(Running { end, handle: Handle { inbox, bell, thread: Some(thread) }, problems })
}

/// Looks at a configuration as [`spawn`] does, with the registry's devices, and says what is wrong with it.
///
/// # Errors
/// No device to be had.
pub fn check(config: Config) -> io::Result<Vec<Problem>> {
    let drivers = registry::key_drivers(&registry::Config::default());
    let devices = registry::open_all(&drivers).0.into_iter().map(|o| o.device).collect();
    authority(config, devices).map(|(_, problems)| problems)
}

fn authority(config: Config, devices: Vec<Arc<dyn Device>>) -> io::Result<(Authority, Vec<Problem>)> {
    let none = || io::Error::new(io::ErrorKind::NotFound, "no device for operations with long-term keys");
    let devices = Devices::new(devices).ok_or_else(none)?;
    let verifier = devices.verifier().ok_or_else(none)?;
    let validator = Validator::new(verifier, config.rules.min_rsa_bits).ok_or_else(none)?;
    let certs: Box<CertQueue> = Box::new(validator);
    let (vault, problems) = Vault::open(config, &devices, SystemTime::now());
    Ok((Authority::new(vault, devices, certs, Table::default()), problems))
}

struct Secure {
    end: SecureEnd,
    authority: Authority,
    kernel: Box<dyn Kernel>,
    permits: Permits,
    inbox: Arc<Mutex<Inbox>>,
    bell: Doorbell,
}

impl Secure {
    fn run(mut self) {
        loop {
            if !self.take_inbox() {
                return;
            }
            let mut busy = false;
            for taken in 0..=BUDGET {
                match self.end.try_recv() {
                    Received::Request(token, request) => self.handle(token, *request),
                    Received::Nothing => break,
                    Received::Closed => return,
                }
                busy = taken == BUDGET;
            }
            busy |= self.authority.poll();
            while let Some((token, reply)) = self.authority.poll_reply() {
                self.end.reply(token, reply);
            }
            if !busy {
                self.sleep();
            }
        }
    }

    fn take_inbox(&mut self) -> bool {
        self.bell.answer();
        let Inbox { swap, stop } =
            std::mem::take(&mut *self.inbox.lock().unwrap_or_else(PoisonError::into_inner));
        for (config, to) in swap {
            let problems = self.authority.reload(config, SystemTime::now());
            tracing::info!(problems = problems.len(), "the configuration of the key side was replaced");
            // Nobody may be waiting any more.
            let _ = to.send(problems);
        }
        !stop
    }

    fn handle(&mut self, token: Token, request: Request) {
        if let Some(request) = self.authority.handle(SystemTime::now(), token, request) {
            let reply = self.change_network(request).unwrap_or_else(|refusal| {
                tracing::warn!(why = %refusal, "a change of the network was refused");
                Reply::Refused(refusal)
            });
            self.end.reply(token, reply);
        }
    }

    fn change_network(&mut self, request: NetRequest) -> Result<Reply, Refusal> {
        let realm = |name: &str| {
            self.authority
                .vault()
                .realm(name)
                .cloned()
                .ok_or_else(|| Refusal::NotAllowed(format!("no realm `{name}`")))
        };
        match request {
            NetRequest::OpenTun(spec) => {
                self.permits.tun(&spec).map_err(Refusal::NotAllowed)?;
                let queues = self
                    .kernel
                    .open_tun(&spec)
                    .map_err(|e| system(&format!("TUN device `{}`", spec.name), &e))?;
                self.permits.made(&spec.name);
                tracing::info!(device = %spec.name, mtu = spec.mtu, queues = spec.queues, "TUN device made");
                Ok(Reply::Tun { queues, name: spec.name })
            }
            NetRequest::Route(change) => {
                self.permits.route(&*realm(&change.realm)?, &change).map_err(Refusal::NotAllowed)?;
                let (address, len) = change.destination;
                self.kernel.route(&change).map_err(|e| system(&format!("route to {address}/{len}"), &e))?;
                Ok(Reply::Ok)
            }
            NetRequest::Address(change) => {
                self.permits.address(&*realm(&change.realm)?, &change).map_err(Refusal::NotAllowed)?;
                self.kernel
                    .address(&change.device, change.address, change.prefix, change.add)
                    .map_err(|e| system(&format!("address {}", change.address), &e))?;
                self.permits.addressed(&change);
                Ok(Reply::Ok)
            }
        }
    }

    fn sleep(&self) {
        let (bells, blind) = self.authority.doorbells();
        let own = [self.end.doorbell(), self.bell.as_fd()];
        let mut fds: Vec<PollFd<'_>> =
            own.into_iter().chain(bells).map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
        let limit = blind.then_some(BLIND_WAIT);
        // An interrupted sleep is a short one.
        let _ = rustix::event::poll(&mut fds, limit.as_ref());
    }
}

fn system(what: &str, error: &io::Error) -> Refusal {
    Refusal::System(format!("{what}: {error}"))
}
