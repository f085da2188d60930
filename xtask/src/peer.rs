//! What the lab can do with a gateway, whoever made it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, bail};

use crate::process;

/// An IKE SA as its owner lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IkeSa {
    /// Initiator's and responder's SPI, hex, in that order: what distinguishes it from the one before a rekey.
    pub spis: (String, String),
    /// Whether it is usable (not half open, not being deleted).
    pub established: bool,
    /// Its Child SAs.
    pub children: Vec<ChildSa>,
}

/// A Child SA as its owner lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChildSa {
    /// Inbound and outbound SPI, hex.
    pub spis: (String, String),
    /// Whether it carries traffic (not merely lingering after a rekey).
    pub installed: bool,
    /// Whether it is beside another with the same selectors, for one worker alone (RFC 9611).
    pub beside: bool,
}

/// One IKE SA with one Child SA, by SPI: what a healthy tunnel of this lab looks like from one end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tunnel {
    /// SPIs of the IKE SA, initiator's first.
    pub ike: (String, String),
    /// SPIs of the Child SA, inbound first.
    pub child: (String, String),
}

/// A gateway on a lab host.
pub trait Peer {
    /// Who made it, with the version.
    fn maker(&self) -> String;
    /// Start it with its configuration loaded; returns when it can be talked to.
    fn start(&mut self) -> Result<()>;
    /// Ask it to end, the way an operator does.
    fn stop(&mut self) -> Result<()>;
    /// `kill -9`.
    fn kill(&mut self);
    /// Its process id while it runs.
    fn pid(&self) -> Option<u32>;
    /// Bring the tunnel up; an error if that fails.
    fn up(&self) -> Result<()>;
    /// End the IKE SA and all its children.
    fn down(&self) -> Result<()>;
    /// Rekey the Child SA.
    fn rekey_child(&self) -> Result<()>;
    /// Rekey the IKE SA.
    fn rekey_ike(&self) -> Result<()>;
    /// List what there is.
    fn sas(&self) -> Result<Vec<IkeSa>>;
    /// What there is, for a person to read.
    fn shown_sas(&self) -> Result<String>;
    /// Forget the process: it goes on when this value goes away.
    fn leave(&mut self);
    /// Where it writes its log.
    fn log(&self) -> &Path;
}

/// The tunnel, if there is exactly one usable IKE SA with exactly one usable Child SA; those for single workers do not count.
pub fn tunnel(peer: &dyn Peer) -> Result<Option<Tunnel>> {
    let all = peer.sas()?;
    let [ike] = all.iter().filter(|sa| sa.established).collect::<Vec<_>>()[..] else { return Ok(None) };
    let [child] = ike.children.iter().filter(|sa| sa.installed && !sa.beside).collect::<Vec<_>>()[..] else {
        return Ok(None);
    };
    Ok(Some(Tunnel { ike: ike.spis.clone(), child: child.spis.clone() }))
}

/// Wait until a peer has a tunnel that `is_right`; the error shows what it has instead.
pub fn await_tunnel(peer: &dyn Peer, what: &str, is_right: impl Fn(&Tunnel) -> bool) -> Result<Tunnel> {
    let found =
        process::until(Duration::from_secs(10), || Ok(tunnel(peer)?.filter(|tunnel| is_right(tunnel))))?;
    match found {
        Some(tunnel) => Ok(tunnel),
        None => bail!("{what}: {} still has {:?}", peer.maker(), peer.sas()?),
    }
}

/// Wait until a peer has no SA at all.
pub fn await_nothing(peer: &dyn Peer, what: &str) -> Result<()> {
    let gone = process::until(Duration::from_secs(8), || Ok(peer.sas()?.is_empty().then_some(())))?;
    if gone.is_none() {
        bail!("{what}: {} still has {:?}", peer.maker(), peer.sas()?);
    }
    Ok(())
}

/// The whole log of a peer.
pub fn log_text(peer: &dyn Peer) -> String {
    String::from_utf8_lossy(&std::fs::read(peer.log()).unwrap_or_default()).into_owned()
}

/// A file in the folder of a host, which is made on the way.
pub fn host_dir(results: &Path, host: &str) -> Result<PathBuf> {
    let dir = results.join(host);
    std::fs::create_dir_all(&dir)?;
    Ok(dir)
}
