//! FreeRADIUS in a namespace: Debian's program with a configuration of ours.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::pki::Pki;
use crate::process::{self, Daemon};
use crate::tunnel::KeyType;
use crate::world::World;

/// What it shares with the gateway.
pub const SECRET: &str = "radius-secret-of-the-lab";
const PATIENCE: Duration = Duration::from_secs(30);

/// A server that runs.
pub struct FreeRadius<'w> {
    world: &'w World,
    host: &'static str,
    dir: PathBuf,
    daemon: Daemon,
}

impl<'w> FreeRadius<'w> {
    /// Starts one at that host and address, with these lines for its file of users. EAP-TLS and EAP-TTLS have moon's
    /// certificate.
    pub fn start(
        world: &'w World,
        results: &Path,
        (host, address): (&'static str, &str),
        users: &str,
    ) -> Result<FreeRadius<'w>> {
        FreeRadius::begin(world, results, (host, address), users, &["-xx"])
    }

    /// The same, and it writes no line for each packet.
    pub fn start_quiet(
        world: &'w World,
        results: &Path,
        (host, address): (&'static str, &str),
        users: &str,
    ) -> Result<FreeRadius<'w>> {
        FreeRadius::begin(world, results, (host, address), users, &[])
    }

    fn begin(
        world: &'w World,
        results: &Path,
        (host, address): (&'static str, &str),
        users: &str,
        more: &[&str],
    ) -> Result<FreeRadius<'w>> {
        let dir = results.join(format!("freeradius-{}", address.replace([':', '.'], "-")));
        fs::create_dir_all(&dir)?;
        let dir = dir.canonicalize()?;
        fs::write(dir.join("users"), users)?;
        fs::write(dir.join("dictionary"), "$INCLUDE /usr/share/freeradius/dictionary\n")?;
        fs::write(dir.join("radiusd.conf"), configuration(&dir, address)?)?;
        let mut command = world.net.command(host, "/usr/sbin/freeradius");
        command.args(["-f", "-l", "stdout"]).args(more).arg("-d").arg(&dir);
        let log = dir.join("log");
        fs::remove_file(&log).ok();
        let mut daemon = Daemon::start(&mut command, &log)?;
        let ready = process::until(PATIENCE, || {
            let text = fs::read_to_string(&log).unwrap_or_default();
            if daemon.has_ended() {
                bail!("FreeRADIUS does not start: {}", process::tail(&log, 10));
            }
            Ok(text.contains("Ready to process requests").then_some(()))
        })?;
        ready.context("FreeRADIUS does not become ready")?;
        Ok(FreeRadius { world, host, dir, daemon })
    }

    /// Its records, each as lines `Name = value`.
    pub fn records(&self) -> Vec<String> {
        let text = fs::read_to_string(self.dir.join("detail")).unwrap_or_default();
        text.split("\n\n").map(str::trim).filter(|record| !record.is_empty()).map(str::to_owned).collect()
    }

    /// Waits for a record in which all of these lines stand.
    pub fn await_record(&self, lines: &[&str]) -> Result<String> {
        let found = process::until(Duration::from_secs(15), || {
            Ok(self.records().into_iter().find(|record| lines.iter().all(|line| record.contains(line))))
        })?;
        found.with_context(|| format!("no record with {lines:?}; there are\n{}", self.records().join("\n\n")))
    }

    /// Sends a Disconnect- or CoA-Request from its host; what `radclient` says.
    pub fn order(&self, to: &str, kind: &str, attributes: &str) -> Result<String> {
        let mut command = self.world.net.command(self.host, "radclient");
        command.args(["-x", "-r", "2", "-t", "5", to, kind, SECRET]);
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs();
        let input = format!("Event-Timestamp = {now}\nMessage-Authenticator = 0x00\n{attributes}\n");
        // It ends with an error when the answer is no; the answer is what counts.
        let file = self.dir.join("order");
        fs::write(&file, input)?;
        let done = process::finish(command.arg("-f").arg(&file), PATIENCE)?;
        Ok(done.text())
    }

    /// Ends it.
    pub fn stop(&mut self) {
        self.daemon.kill();
    }
}

fn configuration(dir: &Path, address: &str) -> Result<String> {
    let pki = Pki::of(KeyType::Rsa)?;
    let (dir, ca) = (dir.display(), pki.ca());
    let (ca, cert, key) = (ca.display(), pki.cert("moon"), pki.key("moon"));
    let (cert, key) = (cert.display(), key.display());
    Ok(format!(
        r#"
prefix = /usr
name = radiusd
confdir = {dir}
raddbdir = {dir}
logdir = {dir}
run_dir = {dir}
libdir = /usr/lib/freeradius
pidfile = {dir}/pid
max_request_time = 30
max_requests = 16384
log {{
 destination = stdout
}}
security {{
 status_server = yes
 reject_delay = 0
}}
thread pool {{
 start_servers = 4
 max_servers = 8
 min_spare_servers = 1
 max_spare_servers = 4
}}
modules {{
 eap {{
  default_eap_type = mschapv2
  timer_expire = 60
  max_sessions = 16384
  tls-config lab {{
   private_key_file = {key}
   certificate_file = {cert}
   ca_file = {ca}
   tls_min_version = "1.2"
   tls_max_version = "1.2"
   ecdh_curve = ""
  }}
  mschapv2 {{
  }}
  tls {{
   tls = lab
  }}
  ttls {{
   tls = lab
   default_eap_type = mschapv2
   virtual_server = inside
   copy_request_to_tunnel = no
   use_tunneled_reply = yes
  }}
 }}
 mschap {{
 }}
 pap {{
 }}
 files {{
  filename = {dir}/users
 }}
 detail {{
  filename = {dir}/detail
  permissions = 0600
 }}
 always ok {{
  rcode = ok
 }}
}}
client lab {{
 ipaddr = 0.0.0.0/0
 secret = {SECRET}
 require_message_authenticator = yes
}}
server default {{
 listen {{
  type = auth
  ipaddr = {address}
  port = 1812
 }}
 listen {{
  type = acct
  ipaddr = {address}
  port = 1813
 }}
 authorize {{
  files
  eap {{
   ok = return
  }}
  pap
 }}
 authenticate {{
  Auth-Type MS-CHAP {{
   mschap
  }}
  mschap
  pap
  eap
 }}
 preacct {{
  ok
 }}
 accounting {{
  detail
 }}
 post-auth {{
  Post-Auth-Type REJECT {{
   eap
  }}
 }}
}}
server inside {{
 authorize {{
  files
  mschap
  eap {{
   ok = return
  }}
  pap
 }}
 authenticate {{
  Auth-Type MS-CHAP {{
   mschap
  }}
  mschap
  pap
  eap
 }}
}}
"#
    ))
}
