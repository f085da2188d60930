//! The gateway under test where thousands of peers meet it: ours or strongSwan, always on moon.

use std::fmt::Write as _;

use anyhow::{Context, Result};

use super::Setup;
use super::contest::QUIET;
use super::crowd::{HOST, ID, IDS, INSIDE, Proof, SECRET};
use crate::interop::scenario::SITES;
use crate::peer::Peer;
use crate::pki::{Pki, shown};
use crate::strongswan::{Release, StrongSwan};
use crate::tunnel::{Auth, End};
use crate::tussock::{GATEWAY, NET, SITE, Tussock};
use crate::world::{MOON, MOON_NET};

/// Whose it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Make {
    /// Ours.
    Tussock,
    /// strongSwan's.
    StrongSwan,
}

impl Make {
    /// Ours, and strongSwan's if it is to be compared with.
    pub fn all(versus: bool) -> &'static [Make] {
        if versus { &[Make::Tussock, Make::StrongSwan] } else { &[Make::Tussock] }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Make::Tussock => "tussock",
            Make::StrongSwan => "strongSwan",
        }
    }
}

/// A gateway on moon.
pub enum Gateway<'s> {
    /// Ours.
    Tussock(Tussock<'s>),
    /// strongSwan.
    StrongSwan(StrongSwan<'s>),
}

/// No protection against floods, tables sized for the job, threads for as many orders as may be out, no log to speak of.
pub const CROWDED: &str = "charon {
  dos_protection = no
  cookie_threshold = 0
  block_threshold = 0
  init_limit_half_open = 0
  ikesa_table_size = 16384
  ikesa_table_segments = 16
  reuse_ikesa = no
  threads = 32
}
";

impl<'s> Gateway<'s> {
    /// One that anybody of the crowd may connect to.
    pub fn responder(setup: &'s Setup, make: Make, proof: Proof) -> Result<Gateway<'s>> {
        let end = End {
            peer_address: None,
            peer_id: if proof == Proof::Psk { IDS } else { ID }.to_owned(),
            auth: proof.auth(),
            peer_auth: proof.auth(),
            secret: SECRET.to_owned(),
            esp: "aes128gcm16".to_owned(),
            remote: vec![INSIDE],
            ..SITES.moon()
        };
        Ok(match make {
            Make::Tussock => {
                let gateway = Tussock::new(&setup.world, &end, &setup.gateway, &setup.results)?;
                prepare(&gateway)?;
                for (key, value) in LASTING {
                    gateway.set(SITE, key, value)?;
                }
                gateway.set(NET, "rekey", "\"0s\"")?;
                Gateway::Tussock(gateway)
            }
            Make::StrongSwan => {
                let gateway = StrongSwan::new(&setup.world, end, Release::Trixie, &setup.results)?;
                gateway.configure(&format!("{QUIET}{CROWDED}"))?;
                gateway.append(
                    "connections { site {\n  unique = never\n  rekey_time = 0\n  children { net { rekey_time = 0 } }\n} }\n",
                )?;
                Gateway::StrongSwan(gateway)
            }
        })
    }

    /// One that knows so many peers and begins with none of them before it is told.
    pub fn initiator(setup: &'s Setup, make: Make, proof: Proof, count: u32) -> Result<Gateway<'s>> {
        // A realm that nobody is in: the files are written from an end, and the peers come behind it.
        let end = End { auth: proof.auth(), peer_auth: proof.auth(), ..SITES.moon() };
        let auth = proof.auth();
        Ok(match make {
            Make::Tussock => {
                let gateway = Tussock::new(&setup.world, &end, &setup.gateway, &setup.results)?;
                prepare(&gateway)?;
                let mut more = format!("[[psk]]\nids = [\"{}\", \"{IDS}\"]\nsecret = \"{SECRET}\"\n", end.id);
                for number in 0..count {
                    more += &realm(number, auth)?;
                }
                gateway.append(&more)?;
                Gateway::Tussock(gateway)
            }
            Make::StrongSwan => {
                let gateway = StrongSwan::new(&setup.world, end, Release::Trixie, &setup.results)?;
                gateway.configure(&format!("{QUIET}{CROWDED}"))?;
                let mut more = String::from("connections {\n");
                for number in 0..count {
                    more += &connection(number, auth)?;
                }
                more += &format!(
                    "}}\nsecrets {{ ike-load {{\n  id-1 = moon.lab.test\n  id-2 = {IDS}\n  secret = \"{SECRET}\"\n}} }}\n"
                );
                gateway.append(&more)?;
                Gateway::StrongSwan(gateway)
            }
        })
    }

    /// To be started, stopped and asked.
    pub fn peer(&mut self) -> &mut (dyn Peer + 's) {
        match self {
            Gateway::Tussock(gateway) => gateway,
            Gateway::StrongSwan(gateway) => gateway,
        }
    }

    /// Its process.
    pub fn pid(&self) -> Result<u32> {
        let pid = match self {
            Gateway::Tussock(gateway) => gateway.pid(),
            Gateway::StrongSwan(gateway) => gateway.pid(),
        };
        pid.context("the gateway is not running")
    }

    /// Its control socket, as `tussock-bench` wants it.
    pub fn control(&self) -> String {
        match self {
            Gateway::Tussock(gateway) => format!("tussock:{}", gateway.socket().display()),
            Gateway::StrongSwan(gateway) => format!("vici:{}", gateway.socket().display()),
        }
    }

    /// How many IKE SAs it says it has.
    pub fn ike_sas(&self) -> Result<u64> {
        match self {
            Gateway::Tussock(gateway) => gateway.count("/ike/sas"),
            Gateway::StrongSwan(gateway) => gateway.ike_sas(),
        }
    }
}

/// Nothing is rekeyed, watched or replaced while it is measured.
const LASTING: [(&str, &str); 3] =
    [("unique", "false"), ("dpd", "{ delay = \"0s\" }"), ("ike_rekey", "\"0s\"")];

/// A log that costs nothing, no cookies (the crowd is no flood), and room for it.
pub fn prepare(gateway: &Tussock<'_>) -> Result<()> {
    gateway.set(GATEWAY, "log", "\"warn\"")?;
    gateway.set(GATEWAY, "cookie_threshold", "1000000")?;
    let before = gateway.text()?;
    gateway.set(GATEWAY, "ike_sa_limit", "1000000")?;
    // A gateway whose limit is fixed does not know the key.
    if gateway.check().is_err() {
        gateway.rewrite(|_| before.clone())?;
    }
    Ok(())
}

/// A peer's addresses, outside and inside, as `tussock-bench load` gives them.
fn addresses(number: u32) -> (std::net::Ipv4Addr, std::net::Ipv4Addr) {
    ((0xac10_0001 + number).into(), (0x0a40_0000 + number).into())
}

fn realm(number: u32, auth: Auth) -> Result<String> {
    let (outside, inside) = addresses(number);
    let mut text = format!(
        "[realm.p{number}]\nlocal = [\"{MOON}\"]\nremote = [\"{outside}\"]\nencap = \"udp\"\nike = [\"{}\"]\n",
        SITES.ike
    );
    for (key, value) in LASTING {
        writeln!(text, "{key} = {value}")?;
    }
    match auth {
        Auth::Psk => write!(
            text,
            "local_auth = {{ method = \"psk\", id = \"moon.lab.test\" }}\n\
             remote_auth = {{ method = \"psk\", id = \"p{number}@load.lab.test\" }}\n"
        )?,
        Auth::Cert(kind) => {
            let pki = Pki::of(kind)?;
            let (cert, key, ca) = (shown(&pki.cert("moon")), shown(&pki.key("moon")), shown(&pki.ca()));
            write!(
                text,
                "local_auth = {{ method = \"pubkey\", id = \"moon.lab.test\", cert = [\"{cert}\"], key = \"{key}\" }}\n\
                 remote_auth = {{ method = \"pubkey\", id = \"{ID}\", ca = [\"{ca}\"] }}\n"
            )?;
        }
    }
    write!(
        text,
        "[[realm.p{number}.child]]\nname = \"net\"\nlocal = [\"{MOON_NET}\"]\nremote = [\"{inside}/32\"]\n\
         esp = [\"aes128gcm16\"]\nrekey = \"0s\"\n"
    )?;
    Ok(text)
}

fn connection(number: u32, auth: Auth) -> Result<String> {
    let (outside, inside) = addresses(number);
    let (how, cert, id) = match auth {
        Auth::Psk => ("psk", "", format!("p{number}@load.lab.test")),
        Auth::Cert(_) => ("pubkey", "certs = moon.crt", ID.to_owned()),
    };
    Ok(format!(
        "  p{number} {{
    version = 2
    local_addrs = {MOON}
    remote_addrs = {outside}
    proposals = {}
    encap = yes
    mobike = no
    unique = never
    rekey_time = 0
    local {{
      auth = {how}
      id = moon.lab.test
      {cert}
    }}
    remote {{
      auth = {how}
      id = {id}
    }}
    children {{ p{number} {{
      local_ts = {MOON_NET}
      remote_ts = {inside}/32
      esp_proposals = aes128gcm16
      rekey_time = 0
    }} }}
  }}
",
        SITES.ike
    ))
}

/// A further realm, or connection, for the crowd on a gateway that has another tunnel already.
pub fn also_for_the_crowd(gateway: &Gateway<'_>) -> Result<()> {
    match gateway {
        Gateway::Tussock(gateway) => {
            let mut text = format!(
                "[[psk]]\nids = [\"moon.lab.test\", \"{IDS}\"]\nsecret = \"{SECRET}\"\n\
                 [realm.{HOST}]\nlocal = [\"{MOON}\"]\nencap = \"udp\"\nike = [\"{}\"]\n\
                 local_auth = {{ method = \"psk\", id = \"moon.lab.test\" }}\n\
                 remote_auth = {{ method = \"psk\", id = \"{IDS}\" }}\n",
                SITES.ike
            );
            for (key, value) in LASTING {
                writeln!(text, "{key} = {value}")?;
            }
            text += &format!(
                "[[realm.{HOST}.child]]\nname = \"net\"\nlocal = [\"{MOON_NET}\"]\nremote = [\"{INSIDE}\"]\n\
                 esp = [\"aes128gcm16\"]\nrekey = \"0s\"\n"
            );
            gateway.append(&text)
        }
        Gateway::StrongSwan(gateway) => gateway.append(&format!(
            "connections {{ {HOST} {{
    version = 2
    local_addrs = {MOON}
    proposals = {}
    encap = yes
    mobike = no
    unique = never
    rekey_time = 0
    local {{
      auth = psk
      id = moon.lab.test
    }}
    remote {{
      auth = psk
      id = {IDS}
    }}
    children {{ net {{
      local_ts = {MOON_NET}
      remote_ts = {INSIDE}
      esp_proposals = aes128gcm16
      rekey_time = 0
    }} }}
}} }}
secrets {{ ike-load {{
  id-1 = moon.lab.test
  id-2 = {IDS}
  secret = \"{SECRET}\"
}} }}
",
            SITES.ike
        )),
    }
}
