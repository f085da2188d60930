//! `tussock pki pins`: the keys that `trust = "first-use"` has remembered. The gateway need not run.

use std::fmt::Write;
use std::path::PathBuf;
use std::time::UNIX_EPOCH;

use anyhow::{bail, ensure};
use clap::Args;
use policy::Identity;
use secure::pins::Pin;

use crate::sandbox::Side;

/// `tussock pki pins`
#[derive(Args, Debug, PartialEq, Eq)]
pub struct Pins {
    /// The configuration file, which says where the gateway keeps its state
    #[arg(long, value_name = "FILE", default_value = "/etc/tussock/gateway.toml")]
    pub config: PathBuf,
    /// The folder where the gateway keeps its state, instead
    #[arg(long, value_name = "FOLDER", conflicts_with = "config")]
    pub state_dir: Option<PathBuf>,
    /// Forget the key of this peer, in one realm or in all: the next one that it comes with is remembered in its place
    #[arg(long, value_name = "[REALM/]PEER")]
    pub remove: Option<String>,
    /// JSON instead of text
    #[arg(long, conflicts_with = "remove")]
    pub json: bool,
}

/// Carries the command out.
pub(super) fn run(pins: &Pins) -> anyhow::Result<()> {
    let state_dir = match &pins.state_dir {
        Some(dir) => crate::config::settings::own_folder(dir, Side::Keys),
        None => match crate::config::load(&pins.config) {
            Ok(loaded) => loaded.settings.own_folder(Side::Keys),
            Err(problems) => bail!("{problems}"),
        },
    };
    let store = secure::pins::Pins::of(&state_dir);
    let Some(name) = &pins.remove else {
        let all = store.all()?;
        return super::super::print(&if pins.json { json(&all) } else { text(&all) });
    };
    let (realm, peer) = which(name, &store.all()?)?;
    let gone = store.forget(realm.as_deref(), &peer)?;
    ensure!(gone > 0, "no key of {peer} is remembered");
    super::super::print(&format!("forgot {gone} of {peer}\n"))
}

/// A name of a realm has no slash in it; a DN may.
fn which(name: &str, all: &[Pin]) -> anyhow::Result<(Option<String>, Identity)> {
    if let Some((realm, peer)) = name.split_once('/')
        && all.iter().any(|pin| pin.realm == realm)
        && let Ok(peer) = Identity::parse(peer)
    {
        return Ok((Some(realm.to_owned()), peer));
    }
    Ok((None, Identity::parse(name)?))
}

fn text(all: &[Pin]) -> String {
    if all.is_empty() {
        return "no key was believed at first use\n".to_owned();
    }
    let mut out = String::new();
    for pin in all {
        let since = humantime(pin);
        // Writing into a String cannot fail.
        let _ = writeln!(out, "{}/{}\n  {}\n  since {since}", pin.realm, pin.peer, pin.fingerprint);
    }
    out
}

fn json(all: &[Pin]) -> String {
    let pins: Vec<serde_json::Value> = all
        .iter()
        .map(|pin| {
            let since = pin.since.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
            serde_json::json!({
                "realm": pin.realm, "peer": pin.peer.to_string(), "fingerprint": pin.fingerprint, "since": since,
            })
        })
        .collect();
    format!("{}\n", serde_json::Value::from(pins))
}

/// A date as people read it, of the clock that the log has.
fn humantime(pin: &Pin) -> String {
    let seconds = pin.since.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let (days, time) = (seconds / 86_400, seconds % 86_400);
    // Days from 1 March of the year 0, so that the leap day is the last of its year.
    let z = days + 719_468;
    let (era, of_era) = (z / 146_097, z % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let (month, more) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = year + era * 400 + more;
    format!("{year}-{month:02}-{day:02} {:02}:{:02}:{:02} UTC", time / 3600, time / 60 % 60, time % 60)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn pin(realm: &str, peer: &str, seconds: u64) -> Pin {
        Pin {
            realm: realm.into(),
            peer: Identity::parse(peer).unwrap(),
            fingerprint: format!("SHA256:{}", "ab".repeat(32)),
            since: UNIX_EPOCH + Duration::from_secs(seconds),
        }
    }

    #[test]
    fn pins_are_shown_with_who_what_and_since_when() {
        let all = [pin("site", "sun.lab.test", 0), pin("site", "carol@lab.test", 1_798_761_599)];
        let shown = text(&all);
        assert!(shown.contains("site/sun.lab.test\n  SHA256:abab"), "{shown}");
        assert!(
            shown.contains("since 1970-01-01 00:00:00 UTC")
                && shown.contains("since 2026-12-31 23:59:59 UTC")
        );
        assert_eq!(humantime(&pin("a", "a.test", 951_782_400)), "2000-02-29 00:00:00 UTC");
        assert!(json(&all).contains("\"since\":1798761599"));
        assert_eq!(text(&[]), "no key was believed at first use\n");
    }

    #[test]
    fn a_pin_is_named_as_it_is_shown() {
        let all = [pin("site", "sun.lab.test", 0), pin("site", "/C=CH/CN=x", 0)];
        let of = |name| which(name, &all).unwrap();
        assert_eq!(of("site/sun.lab.test").0.as_deref(), Some("site"));
        assert_eq!(of("sun.lab.test").0, None);
        assert_eq!(of("site/C=CH, CN=x").0.as_deref(), Some("site"));
        assert_eq!(of("/C=CH/CN=x"), (None, Identity::parse("C=CH, CN=x").unwrap()));
        assert!(which("site/", &all).is_err());
    }
}
