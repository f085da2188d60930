//! Certificates that are no good by themselves: out of their time, of a CA that nobody knows, with a CA missing in between. Each end has
//! one and calls, and is called; whoever judges says which certificate it was and what is wrong with it, the other is told by the notify
//! that says no more, and nothing is left behind.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::couple::{Authority, Couple, MOON, SUN};
use super::{Place, Story};
use crate::interop::course::Steps;
use crate::peer::{Peer, log_text};
use crate::process;

pub const STORIES: &[Story] = &[Story::ours(
    "bad-certificates",
    "expired, not valid yet, of an unknown CA, without the CA in between: refused by either end, whoever calls; our own is told of before",
    bad_certificates,
)
.cast("tussock <-> strongSwan")];

/// What is wrong.
struct Fault {
    /// In words.
    what: &'static str,
    /// From when to when the certificate is valid.
    dates: (&'static str, &'static str),
    /// Whose it is.
    by: Issuer,
    /// What we say when it is strongSwan's.
    ours: &'static str,
    /// What strongSwan says when it is ours.
    theirs: &'static str,
    /// What we say of it before anybody has seen it, as far as it can be known.
    before: Option<&'static str>,
}

#[derive(Clone, Copy, PartialEq)]
enum Issuer {
    /// The CA that the other end believes.
    Known,
    /// One that it does not know.
    Stranger,
    /// One below the known one, whose certificate nobody sends.
    Between,
}

const GOOD: (&str, &str) = ("20240101000000Z", "20481231000000Z");

const FAULTS: [Fault; 4] = [
    Fault {
        what: "an expired certificate",
        dates: ("20240101000000Z", "20250203040506Z"),
        by: Issuer::Known,
        ours: "the certificate of CN=sun.lab.test expired on 2025-02-03T04:05:06Z",
        theirs: "subject certificate invalid",
        before: Some("the certificate of CN=moon.lab.test expired on 2025-02-03T04:05:06Z"),
    },
    Fault {
        what: "a certificate that is not valid yet",
        dates: ("20470102030405Z", "20481231000000Z"),
        by: Issuer::Known,
        ours: "the certificate of CN=sun.lab.test is not valid before 2047-01-02T03:04:05Z",
        theirs: "subject certificate invalid",
        before: Some("the certificate of CN=moon.lab.test is not valid before 2047-01-02T03:04:05Z"),
    },
    Fault {
        what: "a certificate of an unknown CA",
        dates: GOOD,
        by: Issuer::Stranger,
        ours: "no path to a trusted CA",
        theirs: "no issuer certificate found",
        before: None,
    },
    Fault {
        what: "a certificate without the CA in between",
        dates: GOOD,
        by: Issuer::Between,
        ours: "no path to a trusted CA",
        theirs: "no issuer certificate found",
        before: None,
    },
];

fn bad_certificates(place: &Place<'_>, steps: &mut Steps) -> Result<()> {
    let authority = Authority::new(place, "ca", &[])?;
    let stranger = Authority::new(place, "stranger", &[])?;
    for name in [MOON, SUN] {
        authority.issue(name)?;
    }
    let mut couple = Couple::new(place, &authority)?;
    couple.judge(&authority, "")?;
    let stock = place.stock()?;
    couple.start()?;
    steps.begin("with good ones it comes up");
    couple.come_up(place)?;
    couple.end()?;
    let loaded = place.stock()?;
    for fault in &FAULTS {
        let made = |name: &str| -> Result<PathBuf> {
            match fault.by {
                Issuer::Known => dated(&authority, name, fault.dates, Signer::of(&authority)),
                Issuer::Stranger => dated(&authority, name, fault.dates, Signer::of(&stranger)),
                Issuer::Between => {
                    let between = dated(&authority, "between", GOOD, Signer::of(&authority))?;
                    let key = authority.key("between");
                    dated(&authority, name, fault.dates, Signer { cert: between, key })
                }
            }
        };
        steps.begin(format!("strongSwan has {}", fault.what));
        couple.sun_has(&made(SUN)?, &authority.key(SUN))?;
        couple.moon_has(&authority.cert(MOON), &authority.key(MOON), "")?;
        couple.reload()?;
        for by in [&couple.moon as &dyn Peer, &couple.sun] {
            couple.refused(by, &[fault.ours], &["AUTHENTICATION_FAILED", "AUTH_FAILED"])?;
            loaded.iter().try_for_each(|host| host.must_return(place.world, "after the refusal"))?;
        }
        steps.begin(format!("we have {}", fault.what));
        couple.sun_has(&authority.cert(SUN), &authority.key(SUN))?;
        couple.moon_has(&made(MOON)?, &authority.key(MOON), "")?;
        let said = log_text(&couple.moon).len();
        couple.reload()?;
        if let Some(words) = fault.before {
            told_before(&couple, words, said)?;
        }
        for by in [&couple.moon as &dyn Peer, &couple.sun] {
            let said = log_text(&couple.moon).len();
            couple.refused(by, &["AUTHENTICATION_FAILED", "does not accept our proof"], &[fault.theirs])?;
            let log = log_text(&couple.moon);
            let new = log.get(said..).unwrap_or_default();
            if let Some(words) = fault.before
                && !(new.contains("our own certificate will be refused") && new.contains(words))
            {
                bail!("when it was used, moon's log did not say \"{words}\"");
            }
            loaded.iter().try_for_each(|host| host.must_return(place.world, "after the refusal"))?;
        }
    }
    steps.begin("with good ones it comes up again");
    couple.moon_has(&authority.cert(MOON), &authority.key(MOON), "")?;
    couple.reload()?;
    couple.come_up(place)?;
    couple.end()?;
    couple.moon.stop()?;
    couple.sun.stop()?;
    stock.iter().try_for_each(|host| host.must_return(place.world, "after the end"))
}

/// `tussock check` refuses a configuration with such a certificate of ours, and the log says it at reload.
fn told_before(couple: &Couple<'_>, words: &str, said: usize) -> Result<()> {
    let judged = couple.moon.check();
    if !judged.as_ref().err().is_some_and(|why| format!("{why:#}").contains(words)) {
        bail!("`tussock check` does not say \"{words}\": {judged:?}");
    }
    if !log_text(&couple.moon).get(said..).unwrap_or_default().contains(words) {
        bail!("at the reload, moon's log does not say \"{words}\"");
    }
    Ok(())
}

/// Who signs.
struct Signer {
    cert: PathBuf,
    key: PathBuf,
}

impl Signer {
    fn of(authority: &Authority<'_>) -> Signer {
        Signer { cert: authority.ca(), key: authority.dir.join("ca.key") }
    }
}

/// A certificate for the key that somebody has, or gets, with these dates: our own command makes none that are no good. `between` is a CA.
fn dated(authority: &Authority<'_>, name: &str, (from, until): (&str, &str), by: Signer) -> Result<PathBuf> {
    let dir = authority.dir.join("odd");
    fs::create_dir_all(&dir)?;
    let (key, request, cert) = (authority.key(name), dir.join("csr"), dir.join(format!("{name}.crt")));
    if !key.exists() {
        let made = ["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out"];
        process::run(Command::new("openssl").args(made).arg(&key))?;
    }
    let subject = format!("/CN={name}");
    let mut ask = Command::new("openssl");
    process::run(ask.args(["req", "-new", "-subj", &subject, "-key"]).arg(&key).arg("-out").arg(&request))?;
    let is_ca = name == "between";
    let extensions = if is_ca {
        "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\n".to_owned()
    } else {
        format!("keyUsage=critical,digitalSignature\nsubjectAltName=DNS:{name}\n")
    };
    let (index, config) = (dir.join("index.txt"), dir.join("openssl.cnf"));
    fs::write(&index, "")?;
    let text = format!(
        "[ca]\ndefault_ca=d\n[d]\ndatabase={}\nnew_certs_dir={}\nrand_serial=yes\ndefault_md=sha256\npolicy=p\n\
         x509_extensions=e\n[p]\ncommonName=supplied\n[e]\n{extensions}subjectKeyIdentifier=hash\n\
         authorityKeyIdentifier=keyid\n",
        shown(&index)?,
        shown(&dir)?,
    );
    fs::write(&config, text)?;
    let mut sign = Command::new("openssl");
    sign.args(["ca", "-batch", "-notext", "-startdate", from, "-enddate", until, "-config"]).arg(&config);
    sign.arg("-cert")
        .arg(&by.cert)
        .arg("-keyfile")
        .arg(&by.key)
        .arg("-in")
        .arg(&request)
        .arg("-out")
        .arg(&cert);
    process::run(&mut sign)?;
    Ok(cert)
}

fn shown(path: &Path) -> Result<&str> {
    path.to_str().context("a path that is no text")
}
