//! The thread of the key side: questions in, work to the devices and the kernel, answers out.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::SystemTime;

use ipc::{DnsChange, NeighbourChange, NetworkEnd, Received, Refusal, Reply, Request, SecureEnd, Table};
use radius::Whose;
use rustix::event::{PollFd, PollFlags, Timespec};
use spi::cert::CertQueue;
use spi::{Device, Doorbell, Secret, Token};

use crate::authority::{Authority, NetRequest};
use crate::config::Config;
use crate::devices::Devices;
use crate::kernel::{Kernel, Linux};
use crate::permit::Permits;
use crate::radius::Radius;
use crate::revocation::Checks;
use crate::validator::Validator;
use crate::vault::{Problem, Vault};

/// Questions taken in one turn, so that answers do not wait behind a flood.
const BUDGET: usize = 64;
/// Passwords that may wait to be taken.
const MAX_PASSWORDS: usize = 64;
/// Sleep while a device without a doorbell has work out.
const BLIND_WAIT: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000 };

/// A configuration, and where to say what is wrong with it.
type Swap = (Config, std::sync::mpsc::Sender<Vec<Problem>>);

#[derive(Default)]
struct Inbox {
    swap: Vec<Swap>,
    /// Realm, user, password.
    passwords: Vec<(String, Option<String>, Secret)>,
    stop: bool,
    /// Nobody looks any more.
    gone: bool,
}

/// Steers a running key side.
pub struct Handle {
    inbox: Arc<Mutex<Inbox>>,
    bell: Doorbell,
    /// Rings when the thread ends.
    ended: Doorbell,
    thread: Option<JoinHandle<()>>,
}

impl Handle {
    /// Puts another configuration in place and says what is wrong with it. Waits until it is in use; proofs under way
    /// end with what they began with.
    ///
    /// # Errors
    /// The key side is gone.
    pub fn reload(&self, config: Config) -> io::Result<Vec<Problem>> {
        let gone = || io::Error::new(io::ErrorKind::BrokenPipe, "the key side is gone");
        let (to, from) = std::sync::mpsc::channel();
        {
            let mut inbox = self.inbox.lock().unwrap_or_else(PoisonError::into_inner);
            if inbox.gone {
                return Err(gone());
            }
            inbox.swap.push((config, to));
        }
        self.bell.ring();
        from.recv().map_err(|_| gone())
    }
}

impl Handle {
    /// Where passwords are given.
    pub fn passwords(&self) -> Passwords {
        Passwords { inbox: Arc::clone(&self.inbox), bell: self.bell.clone() }
    }
}

/// Where passwords are given to a running key side. Does not keep it running.
pub struct Passwords {
    inbox: Arc<Mutex<Inbox>>,
    bell: Doorbell,
}

impl Passwords {
    /// Gives that of a user of a realm, for EAP; without a user that of whoever's is wanted there.
    ///
    /// # Errors
    /// The key side is gone, or has not taken the last ones.
    pub fn give(&self, realm: String, user: Option<String>, password: Secret) -> io::Result<()> {
        let mut inbox = self.inbox.lock().unwrap_or_else(PoisonError::into_inner);
        if inbox.gone {
            return Err(io::Error::new(io::ErrorKind::BrokenPipe, "the key side is gone"));
        }
        if inbox.passwords.len() >= MAX_PASSWORDS {
            return Err(io::Error::new(io::ErrorKind::WouldBlock, "the key side is busy"));
        }
        inbox.passwords.push((realm, user, password));
        drop(inbox);
        self.bell.ring();
        Ok(())
    }
}

impl Handle {
    /// Readable once the key side has ended, and not before.
    pub fn ended(&self) -> BorrowedFd<'_> {
        self.ended.as_fd()
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

/// A key side that runs on its own thread, and where to ask it.
pub struct Running {
    /// Where to ask.
    pub end: NetworkEnd,
    /// The rest.
    pub served: Served,
}

/// A key side that runs on its own thread.
pub struct Served {
    /// Reload and shutdown. The key side also ends when the network side is gone.
    pub handle: Handle,
    /// What is wrong with the configuration; realms not named here work.
    pub problems: Vec<Problem>,
    /// The registry's devices that hold keys, to be asked how they are and for nothing else.
    pub devices: Vec<registry::Opened>,
}

/// Opens every device of the registry's key drivers, then the keys, and starts the thread.
///
/// # Errors
/// No device to be had, no thread, no file descriptor, no netlink socket.
pub fn spawn(config: Config) -> io::Result<Running> {
    let (end, other) = ipc::pair()?;
    Ok(Running { end, served: serve(config, other)? })
}

/// The same, for whoever asks at the other end of `end`.
///
/// # Errors
/// As [`spawn`].
pub fn serve(mut config: Config, end: SecureEnd) -> io::Result<Served> {
    let drivers = registry::key_drivers(&config.devices);
    let (opened, missing) = open(&drivers);
    for why in &missing {
        tracing::warn!("a device for keys does not open: {why}");
    }
    let kernel = Box::new(Linux::new(&mut config)?);
    let devices = opened.iter().map(|opened| Arc::clone(&opened.device)).collect();
    let served = spawn_with(config, devices, missing, kernel, end)?;
    Ok(Served { devices: opened, ..served })
}

/// What opens, and why the rest does not.
fn open(drivers: &[Box<dyn spi::Driver>]) -> (Vec<registry::Opened>, Vec<String>) {
    let (opened, unopened) = registry::open_all(drivers);
    (opened, unopened.into_iter().map(|device| format!("accel.{}: {}", device.id, device.why)).collect())
}

/// The same with devices of the caller's choice, best first.
///
/// # Errors
/// As [`spawn`].
pub fn spawn_on(mut config: Config, devices: Vec<Arc<dyn Device>>) -> io::Result<Running> {
    let kernel = Box::new(Linux::new(&mut config)?);
    let (end, other) = ipc::pair()?;
    Ok(Running { end, served: spawn_with(config, devices, Vec::new(), kernel, other)? })
}

fn spawn_with(
    config: Config,
    devices: Vec<Arc<dyn Device>>,
    missing: Vec<String>,
    kernel: Box<dyn Kernel>,
    end: SecureEnd,
) -> io::Result<Served> {
    let (authority, problems) = authority(config, devices, missing)?;
    let secure = Secure::new(end, authority, kernel)?;
    let (inbox, bell, ended) = (Arc::clone(&secure.inbox), secure.bell.clone(), secure.ended.clone());
    let thread = std::thread::Builder::new().name("secure".into()).spawn(move || secure.run())?;
    let handle = Handle { inbox, bell, ended, thread: Some(thread) };
    Ok(Served { handle, problems, devices: Vec::new() })
}

/// Looks at a configuration as [`spawn`] does, with the registry's devices, and says what is wrong with it.
///
/// # Errors
/// No device to be had.
pub fn check(mut config: Config) -> io::Result<Vec<Problem>> {
    let drivers = registry::key_drivers(&config.devices);
    let (opened, missing) = open(&drivers);
    let devices = opened.into_iter().map(|opened| opened.device).collect();
    let radius = config.radius.take();
    let (_, mut problems) = authority(config, devices, missing)?;
    if let Some(Err(why)) = radius.map(Radius::check) {
        problems.push(Problem::of_radius(why));
    }
    Ok(problems)
}

fn authority(
    mut config: Config,
    devices: Vec<Arc<dyn Device>>,
    missing: Vec<String>,
) -> io::Result<(Authority, Vec<Problem>)> {
    let none = || io::Error::new(io::ErrorKind::NotFound, "no device for operations with long-term keys");
    let devices = Devices::new(devices, missing).ok_or_else(none)?;
    let verifier = devices.verifier().ok_or_else(none)?;
    let validator = Validator::new(verifier, config.rules.min_rsa_bits).ok_or_else(none)?;
    let certs: Box<CertQueue> = Box::new(validator);
    let checks = Checks::new(config.state_dir.as_deref(), Arc::clone(devices.short()))?;
    let radius = config.radius.take();
    let whose = if config.inherits { Whose::Ours } else { Whose::NobodysNow };
    let journal = config.state_dir.clone().map(|folder| (folder, whose));
    let (vault, mut problems) = Vault::open(config, &devices, SystemTime::now());
    let bell = Doorbell::new()?;
    let mut authority = Authority::new(vault, devices, certs, checks, Table::default(), bell, journal);
    problems.extend(authority.reload_radius(radius));
    Ok((authority, problems))
}

struct Secure {
    end: SecureEnd,
    authority: Authority,
    kernel: Box<dyn Kernel>,
    permits: Permits,
    inbox: Arc<Mutex<Inbox>>,
    bell: Doorbell,
    ended: Doorbell,
}

impl Secure {
    fn new(end: SecureEnd, authority: Authority, kernel: Box<dyn Kernel>) -> io::Result<Self> {
        let (inbox, bell, ended) = (Arc::default(), Doorbell::between_threads()?, Doorbell::new()?);
        Ok(Secure { end, authority, kernel, permits: Permits::default(), inbox, bell, ended })
    }

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
        let Inbox { swap, passwords, stop, .. } =
            std::mem::take(&mut *self.inbox.lock().unwrap_or_else(PoisonError::into_inner));
        for (realm, user, password) in passwords {
            self.authority.eap.give_password(&realm, user.as_deref(), password);
        }
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
        match request {
            NetRequest::OpenTun(spec) => {
                self.permits.tun(&spec).map_err(Refusal::NotAllowed)?;
                let (queues, offload) =
                    self.kernel.open_tun(&spec).map_err(|e| system(&tun(&spec.name, &e), &e))?;
                self.permits.made(&spec.name);
                tracing::info!(device = %spec.name, mtu = spec.mtu, queues = queues.len(), ?offload, "TUN device made");
                Ok(Reply::Tun { queues, name: spec.name, offload })
            }
            NetRequest::AdoptTun(spec, queue) => {
                self.permits.tun(&spec).map_err(Refusal::NotAllowed)?;
                let queue =
                    queue.ok_or_else(|| Refusal::NotAllowed("a device without a queue of it".into()))?;
                let is_it = self
                    .kernel
                    .is_queue_of(&spec, &queue)
                    .map_err(|e| system(&format!("TUN device `{}`", spec.name), &e))?;
                if !is_it {
                    return Err(Refusal::NotAllowed(format!(
                        "what was shown is no queue of `{}`",
                        spec.name
                    )));
                }
                self.permits.made(&spec.name);
                tracing::info!(device = %spec.name, "TUN device taken over");
                Ok(Reply::Ok)
            }
            NetRequest::Route(change) => {
                if change.add {
                    self.permits.route(&*self.realm(&change.realm)?, &change).map_err(Refusal::NotAllowed)?;
                } else {
                    self.permits.unroute(&change).map_err(Refusal::NotAllowed)?;
                }
                let (address, len) = change.destination;
                self.kernel.route(&change).map_err(|e| system(&format!("route to {address}/{len}"), &e))?;
                self.permits.routed(&change);
                Ok(Reply::Ok)
            }
            NetRequest::Dns(change) => self.change_names(&change),
            NetRequest::Neighbour(change) => self.change_neighbour(&change),
            NetRequest::Address(change) => {
                if change.add {
                    self.permits
                        .address(&*self.realm(&change.realm)?, &change)
                        .map_err(Refusal::NotAllowed)?;
                } else {
                    self.permits.unaddress(&change).map_err(Refusal::NotAllowed)?;
                }
                self.kernel
                    .address(&change.device, change.address, change.prefix, change.add)
                    .map_err(|e| system(&format!("address {}", change.address), &e))?;
                self.permits.addressed(&change);
                Ok(Reply::Ok)
            }
        }
    }

    /// Name servers and neighbours, each judged by the realm's policy. What was added is removed whatever the policy says since.
    fn change_names(&mut self, change: &DnsChange) -> Result<Reply, Refusal> {
        if change.add {
            let realm = self.realm(&change.realm)?;
            self.permits.dns(&realm, change).map_err(Refusal::NotAllowed)?;
        } else {
            self.permits.undns(change).map_err(Refusal::NotAllowed)?;
        }
        self.kernel.dns(change).map_err(|e| system("name servers", &e))?;
        self.permits.named(change);
        Ok(Reply::Ok)
    }

    fn change_neighbour(&mut self, change: &NeighbourChange) -> Result<Reply, Refusal> {
        if change.add {
            let realm = self.realm(&change.realm)?;
            self.permits.neighbour(&realm, change).map_err(Refusal::NotAllowed)?;
        } else {
            self.permits.unneighbour(change).map_err(Refusal::NotAllowed)?;
        }
        let what = format!("answering for {} on {}", change.address, change.device);
        self.kernel.neighbour(&change.device, change.address, change.add).map_err(|e| system(&what, &e))?;
        self.permits.neighboured(change);
        Ok(Reply::Ok)
    }

    fn realm(&self, name: &str) -> Result<Arc<policy::Realm>, Refusal> {
        let realm = self.authority.vault().realm(name).cloned();
        realm.ok_or_else(|| Refusal::NotAllowed(format!("no realm `{name}`")))
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

impl Drop for Secure {
    fn drop(&mut self) {
        // Whoever waits for a reload must not wait for ever, also if this thread panicked.
        let mut inbox = self.inbox.lock().unwrap_or_else(PoisonError::into_inner);
        inbox.swap.clear();
        inbox.gone = true;
        self.ended.ring();
    }
}

/// What could not be made, and what there is to do about it.
fn tun(name: &str, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::PermissionDenied => format!(
            "TUN device `{name}` (the user that holds the keys has to be able to open /dev/net/tun, as udev has it: chmod 666)"
        ),
        _ => format!("TUN device `{name}`"),
    }
}

fn system(what: &str, error: &io::Error) -> Refusal {
    Refusal::System(format!("{what}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;
    use std::os::fd::OwnedFd;
    use std::time::{Duration, Instant};

    use ipc::{IkeSaRef, Offered, Role, RouteChange, TunOffload, TunSpec};
    use policy::{AuthPolicy, Child, ChildMode, EspProposal, Lifetime, SelectorSpec, Start};

    use crate::testing::*;

    /// A kernel that writes down what it is asked.
    #[derive(Clone, Default)]
    struct Paper(Arc<Mutex<Vec<String>>>);

    impl Paper {
        fn lines(&self) -> Vec<String> {
            self.0.lock().unwrap().clone()
        }

        fn write(&self, line: String) -> io::Result<()> {
            self.0.lock().unwrap().push(line);
            Ok(())
        }
    }

    impl Kernel for Paper {
        fn open_tun(&mut self, spec: &TunSpec) -> io::Result<(Vec<OwnedFd>, TunOffload)> {
            if spec.name == "taken" {
                return Err(io::ErrorKind::ResourceBusy.into());
            }
            self.write(format!("tun {}", spec.name))?;
            let queues = (0..spec.queues).map(|_| std::fs::File::open("/dev/null").unwrap().into());
            Ok((queues.collect(), TunOffload::default()))
        }

        fn is_queue_of(&mut self, _: &TunSpec, _: &OwnedFd) -> io::Result<bool> {
            Ok(false)
        }

        fn route(&mut self, change: &RouteChange) -> io::Result<()> {
            let (address, len) = change.destination;
            self.write(format!("route {address}/{len} {} {}", change.device, change.add))
        }

        fn address(&mut self, device: &str, address: IpAddr, prefix: u8, add: bool) -> io::Result<()> {
            self.write(format!("address {address}/{prefix} {device} {add}"))
        }

        fn dns(&mut self, change: &DnsChange) -> io::Result<()> {
            self.write(format!("dns {:?} {:?} {}", change.servers, change.domains, change.add))
        }

        fn neighbour(&mut self, device: &str, address: IpAddr, add: bool) -> io::Result<()> {
            self.write(format!("neighbour {address} {device} {add}"))
        }
    }

    fn config() -> Config {
        let mut realm = realm("r", "moon.lab.test", "sun.lab.test", AuthPolicy::Psk);
        realm.children.push(Child {
            name: "net".into(),
            mode: ChildMode::Tunnel,
            local: vec![SelectorSpec::parse("10.1.0.0/16").unwrap()],
            remote: vec![SelectorSpec::parse("10.2.0.0/16").unwrap()],
            esp: EspProposal::defaults(),
            start: Start::Manual,
            rekey: Lifetime::of(Duration::from_secs(3600)),
            replay_window: 1024,
            tfc: 0,
            copy_df: true,
            copy_dscp: true,
            tun: "".into(),
        });
        let psks = vec![psk(&["moon.lab.test", "sun.lab.test"], "lab-psk")];
        Config { realms: vec![Arc::new(realm)], psks, ..Config::default() }
    }

    fn start() -> (Running, Paper) {
        let paper = Paper::default();
        let (end, other) = ipc::pair().unwrap();
        let served = spawn_with(config(), devices(), Vec::new(), Box::new(paper.clone()), other).unwrap();
        assert_eq!(served.problems, []);
        (Running { end, served }, paper)
    }

    fn answer(end: &mut NetworkEnd) -> Reply {
        let begin = Instant::now();
        loop {
            let mut got = None;
            end.poll(1, |_, reply| got = Some(reply));
            if let Some(reply) = got {
                return reply;
            }
            assert!(begin.elapsed() < Duration::from_secs(10), "no answer");
            let mut fds = [PollFd::from_borrowed_fd(end.doorbell(), PollFlags::IN)];
            let _ = rustix::event::poll(&mut fds, Some(&Timespec { tv_sec: 1, tv_nsec: 0 }));
        }
    }

    fn ask(end: &mut NetworkEnd, request: Request) -> Reply {
        end.submit(Token(1), request).unwrap();
        answer(end)
    }

    fn make(sa: u64) -> Request {
        Request::MakeAuth {
            sa: IkeSaRef(sa),
            realm: "r".into(),
            own_id: id("moon.lab.test"),
            peer_id: None,
            input: initiators(Role::Initiator),
            offered: Offered::default(),
        }
    }

    fn route(destination: &str, device: &str) -> Request {
        let (address, len) = destination.split_once('/').unwrap();
        Request::Route(RouteChange {
            realm: "r".into(),
            destination: (address.parse().unwrap(), len.parse().unwrap()),
            device: device.into(),
            source: None,
            add: true,
        })
    }

    fn tun(name: &str) -> Request {
        Request::OpenTun(TunSpec { name: name.into(), mtu: 1400, queues: 2, offload: false, ethernet: false })
    }

    #[test]
    fn questions_are_answered_across_the_thread() {
        let (mut running, _) = start();
        let made = proof(ask(&mut running.end, make(1)));
        assert_eq!(made.method, 2);
        assert!(matches!(refusal(ask(&mut running.end, make(1))), Refusal::OutOfTurn(_)));
        running.end.submit(Token(0), Request::Forget { sa: IkeSaRef(1) }).unwrap();
        proof(ask(&mut running.end, make(1)));
    }

    #[test]
    fn the_network_is_changed_only_as_the_realm_allows() {
        let (mut running, paper) = start();
        let end = &mut running.end;
        assert!(
            matches!(refusal(ask(end, route("10.2.0.0/16", "ipsec0"))), Refusal::NotAllowed(_)),
            "no such device"
        );
        let Reply::Tun { queues, name, .. } = ask(end, tun("ipsec0")) else { panic!() };
        assert_eq!((queues.len(), name.as_str()), (2, "ipsec0"));
        assert!(matches!(ask(end, route("10.2.0.0/16", "ipsec0")), Reply::Ok));
        assert!(matches!(refusal(ask(end, route("8.8.8.8/32", "ipsec0"))), Refusal::NotAllowed(_)));
        assert!(matches!(refusal(ask(end, route("10.2.0.0/16", "eth0"))), Refusal::NotAllowed(_)));
        assert!(matches!(refusal(ask(end, tun("../x"))), Refusal::NotAllowed(_)));
        assert!(matches!(refusal(ask(end, tun("taken"))), Refusal::System(_)));
        assert_eq!(paper.lines(), ["tun ipsec0", "route 10.2.0.0/16 ipsec0 true"]);
    }

    #[test]
    fn routes_of_a_realm_that_a_reload_took_away_can_still_be_removed() {
        let (mut running, paper) = start();
        assert!(matches!(ask(&mut running.end, tun("ipsec0")), Reply::Tun { .. }));
        assert!(matches!(ask(&mut running.end, route("10.2.0.0/16", "ipsec0")), Reply::Ok));
        running.served.handle.reload(Config::default()).unwrap();
        let remove = |destination| {
            let Request::Route(change) = route(destination, "ipsec0") else { panic!() };
            Request::Route(RouteChange { add: false, ..change })
        };
        assert!(matches!(refusal(ask(&mut running.end, remove("10.9.0.0/16"))), Refusal::NotAllowed(_)));
        assert!(matches!(ask(&mut running.end, remove("10.2.0.0/16")), Reply::Ok));
        assert_eq!(paper.lines().last().unwrap(), "route 10.2.0.0/16 ipsec0 false");
    }

    #[test]
    fn name_servers_and_neighbours_are_refused_where_the_realm_does_not_name_them() {
        let (mut running, paper) = start();
        let end = &mut running.end;
        assert!(matches!(ask(end, tun("ipsec0")), Reply::Tun { .. }));
        let dns = |servers: &[&str], domains: &[&str], add| {
            let servers = servers.iter().map(|text| text.parse().unwrap()).collect();
            let domains = domains.iter().map(|text| (*text).to_owned()).collect();
            Request::Dns(DnsChange { realm: "r".into(), device: "ipsec0".into(), servers, domains, add })
        };
        let neighbour = |address: &str, device: &str, add| {
            let (realm, device, address) = ("r".into(), device.into(), address.parse().unwrap());
            Request::Neighbour(NeighbourChange { realm, device, address, add })
        };
        let allowed = |reply: Reply| matches!(reply, Reply::Ok);
        assert!(!allowed(ask(end, dns(&["10.1.0.1"], &[], true))), "the realm takes none");
        assert!(!allowed(ask(end, neighbour("10.3.0.7", "eth1", true))), "the realm has no pool");
        let mut other = config();
        let mut realm = (*other.realms[0]).clone();
        realm.virtual_ip.dns = true;
        let network = policy::PoolRange::Network("10.3.0.0".parse().unwrap(), 24);
        let proxy = Some("eth1".into());
        realm.pool = Some(policy::Pool { ranges: vec![network], proxy, ..policy::Pool::default() });
        other.realms = vec![Arc::new(realm)];
        running.served.handle.reload(other).unwrap();
        let end = &mut running.end;
        for wrong in [
            dns(&[], &[], true),
            dns(&["127.0.0.1"], &[], true),
            dns(&["10.1.0.1"; 9], &[], true),
            dns(&["10.1.0.1"], &["a\nnameserver 6.6.6.6"], true),
            dns(&["10.1.0.1"], &["UPPER.example"], true),
            dns(&["10.1.0.1"], &["a.example"; 33], true),
            dns(&["10.1.0.1"], &[], false),
            neighbour("10.3.1.7", "eth1", true),
            neighbour("10.3.0.7", "eth0", true),
            neighbour("10.3.0.7", "eth1", false),
        ] {
            assert!(matches!(refusal(ask(end, wrong)), Refusal::NotAllowed(_)));
        }
        assert!(allowed(ask(end, dns(&["10.1.0.1"], &["corp.example"], true))));
        assert!(allowed(ask(end, neighbour("10.3.0.7", "eth1", true))));
        // What was added can be removed also when the realm is gone.
        running.served.handle.reload(Config::default()).unwrap();
        let end = &mut running.end;
        assert!(
            allowed(ask(end, dns(&[], &[], false)))
                && allowed(ask(end, neighbour("10.3.0.7", "eth1", false)))
        );
        assert_eq!(
            paper.lines()[1..],
            [
                "dns [10.1.0.1] [\"corp.example\"] true",
                "neighbour 10.3.0.7 eth1 true",
                "dns [] [] false",
                "neighbour 10.3.0.7 eth1 false",
            ]
        );
    }

    #[test]
    fn a_reload_is_in_use_when_it_returns() {
        let (mut running, _) = start();
        let problems = running.served.handle.reload(Config { psks: vec![], ..config() }).unwrap();
        assert!(problems[0].what.contains("no pre-shared key"), "{problems:?}");
        assert!(matches!(refusal(ask(&mut running.end, make(1))), Refusal::NoCredential(_)));
        assert_eq!(running.served.handle.reload(config()).unwrap(), []);
        proof(ask(&mut running.end, make(2)));
        drop(running.end);
        assert!(
            running.served.handle.reload(config()).is_err()
                || running.served.handle.reload(config()).is_err(),
            "it ended"
        );
    }

    #[test]
    fn dropping_the_handle_ends_the_thread_and_what_is_out_is_refused() {
        let (running, _) = start();
        let Running { mut end, served } = running;
        let handle = served.handle;
        drop(handle);
        assert!(end.is_closed());
        assert!(end.submit(Token(1), make(1)).unwrap_err().closed);
    }
}
