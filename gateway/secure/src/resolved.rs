//! systemd-resolved, told of name servers over the system bus (org.freedesktop.resolve1). It lets root do so, and users whom a rule of
//! polkit names; capabilities do not count.

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::dbus::{Body, Connection, Service};
use crate::kernel::{family, octets};

/// How long it may take; the keys wait meanwhile.
const PATIENCE: Duration = Duration::from_secs(2);
/// There while it runs.
const SOCKET: &str = "/run/systemd/resolve/io.systemd.Resolve";
const BUS: &str = "/run/dbus/system_bus_socket";

const MANAGER: Service = Service {
    name: "org.freedesktop.resolve1",
    path: "/org/freedesktop/resolve1",
    interface: "org.freedesktop.resolve1.Manager",
};

/// Where it is found.
pub(crate) struct Resolved {
    socket: PathBuf,
    bus: PathBuf,
}

impl Resolved {
    pub(crate) fn new() -> Resolved {
        Resolved { socket: SOCKET.into(), bus: BUS.into() }
    }

    /// None, for tests.
    #[cfg(test)]
    pub(crate) fn absent(dir: &Path) -> Resolved {
        Resolved { socket: dir.join("no-resolved"), bus: dir.join("no-bus") }
    }

    /// Whether it runs.
    pub(crate) fn is_there(&self) -> bool {
        self.socket.exists()
    }

    /// Has it ask these servers by a device, for names below these domains; none: for all.
    pub(crate) fn tell(&self, device: u32, servers: &[IpAddr], domains: &[String]) -> io::Result<()> {
        let mut bus = self.connect()?;
        let mut body = Body::default();
        body.u32(device).structs(servers, |body, server| {
            body.u32(family(*server).into()).octets(&octets(*server));
        });
        bus.call(&MANAGER, "SetLinkDNS", "ia(iay)", &body).map_err(explain)?;
        let mut body = Body::default();
        // Routing only: such a domain is not appended to other names. The root stands for all.
        let all = [".".to_owned()];
        let domains = if domains.is_empty() { &all[..] } else { domains };
        body.u32(device).structs(domains, |body, domain| {
            body.text(domain).bool(true);
        });
        bus.call(&MANAGER, "SetLinkDomains", "ia(sb)", &body).map_err(explain)
    }

    /// Has it forget what it was told of a device.
    pub(crate) fn revert(&self, device: u32) -> io::Result<()> {
        let mut body = Body::default();
        body.u32(device);
        self.connect()?.call(&MANAGER, "RevertLink", "i", &body).map_err(explain)
    }

    fn connect(&self) -> io::Result<Connection> {
        let bus: &Path = &self.bus;
        Connection::new(bus, PATIENCE).map_err(explain)
    }
}

fn explain(error: io::Error) -> io::Error {
    let hint = match error.kind() {
        io::ErrorKind::PermissionDenied => "; it takes a rule of polkit for our user, see docs/operations.md",
        _ => "",
    };
    io::Error::new(error.kind(), format!("systemd-resolved is not to be told: {error}{hint}"))
}
