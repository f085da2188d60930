//! `driver = "pkcs11"`: a token, by the module that reaches it and a URI that says which of its tokens.

use super::kind::Wrong;
use super::{Accel, Form, Kind};

pub(crate) const KIND: Kind = Kind {
    driver: "pkcs11",
    built: cfg!(feature = "pkcs11"),
    // `token`: a PKCS #11 URI; none: the module's only token. `sessions`: operations under way at one time, in each queue.
    // `dh`: who does key exchanges, the "host" or the "token".
    keys: &[
        ("module", Form::File),
        ("token", Form::Text),
        ("pin_file", Form::File),
        ("pin_env", Form::Text),
        ("pin_prompt", Form::Flag),
        ("sessions", Form::Number),
        ("dh", Form::Text),
    ],
    check,
};

/// Most sessions for one queue. Tokens have few engines, and more threads wait no better.
const MAX_SESSIONS: u64 = 64;

fn check(section: &Accel) -> Result<String, Wrong> {
    let Some(module) = section.path("module") else {
        let what =
            "has no module: name the token's PKCS #11 library, for example /usr/lib/softhsm/libsofthsm2.so";
        return Err((None, what.into()));
    };
    if !module.is_absolute() {
        return Err((Some("module"), format!("module = {:?} is no absolute path", module.display())));
    }
    if let Some(sessions) = section.number("sessions")
        && !(1..=MAX_SESSIONS).contains(&sessions)
    {
        return Err((Some("sessions"), format!("sessions is 1 to {MAX_SESSIONS}, not {sessions}")));
    }
    match section.text("dh") {
        None | Some("host" | "token") => {}
        Some(other) => {
            return Err((Some("dh"), format!("dh is \"host\" or \"token\", not {other:?}")));
        }
    }
    let pins = [
        section.path("pin_file").is_some(),
        section.text("pin_env").is_some(),
        section.flag("pin_prompt") == Some(true),
    ];
    if pins.into_iter().filter(|given| *given).count() > 1 {
        return Err((None, "at most one of pin_file, pin_env and pin_prompt says where the PIN is".into()));
    }
    let token = section.text("token").unwrap_or("pkcs11:");
    check_uri(token).map_err(|what| (Some("token"), what))?;
    Ok(format!("{} in {}", shown(token), module.display()))
}

#[cfg(feature = "pkcs11")]
fn check_uri(text: &str) -> Result<(), String> {
    match ::pkcs11::Uri::parse(text) {
        Err(error) => Err(format!("token: {error}")),
        Ok(uri) if !uri.is_of_token() => {
            Err("token names an object; which key it is says the realm, in local_auth".into())
        }
        Ok(_) => Ok(()),
    }
}

#[cfg(feature = "pkcs11")]
fn shown(text: &str) -> String {
    ::pkcs11::Uri::parse(text).map(|uri| uri.to_string()).unwrap_or_default()
}

/// Without a driver nobody knows.
#[cfg(not(feature = "pkcs11"))]
fn check_uri(_: &str) -> Result<(), String> {
    Ok(())
}

#[cfg(not(feature = "pkcs11"))]
fn shown(text: &str) -> String {
    text.to_owned()
}

/// Whether a section's token is there, which it says without a login.
#[cfg(feature = "pkcs11")]
pub(crate) fn look(section: &Accel) -> Result<String, String> {
    let site = site(section).ok_or_else(|| "makes no sense".to_owned())?;
    site.look().map_err(|trouble| trouble.text)
}

#[cfg(feature = "pkcs11")]
fn site(section: &Accel) -> Option<::pkcs11::Site> {
    use ::pkcs11::{Dh, PinSource, Site, Uri};
    let token = Uri::parse(section.text("token").unwrap_or("pkcs11:")).ok()?;
    let pin = match (section.path("pin_file"), section.text("pin_env"), section.flag("pin_prompt")) {
        (Some(file), _, _) => PinSource::File(file.to_owned()),
        (None, Some(name), _) => PinSource::Env(name.to_owned()),
        (None, None, Some(true)) => PinSource::Prompt,
        (None, None, _) => PinSource::None,
    };
    let dh = if section.text("dh") == Some("token") { Dh::Token } else { Dh::Host };
    let sessions = section.number("sessions").unwrap_or(1) as usize;
    Some(Site { token, pin, dh, sessions, ..Site::new(&section.name, section.path("module")?) })
}

/// The driver of all sections that are for it, for one side of the gateway.
#[cfg(feature = "pkcs11")]
pub(crate) fn driver(sections: &[Accel], side: ::pkcs11::Side) -> Option<::pkcs11::Pkcs11> {
    use ::pkcs11::{Dh, Site};
    let ours = sections.iter().filter(|section| section.driver == KIND.driver);
    let sites: Vec<Site> =
        ours.filter_map(site).filter(|site| side == ::pkcs11::Side::Keys || site.dh == Dh::Token).collect();
    (!sites.is_empty()).then(|| ::pkcs11::Pkcs11::new(sites, side))
}

#[cfg(test)]
#[cfg(feature = "pkcs11")]
mod tests {
    use std::path::PathBuf;

    use ::pkcs11::Side;

    use super::super::check;
    use super::*;

    fn token(name: &str) -> Accel {
        Accel::new(name).of("pkcs11").with("module", PathBuf::from("/usr/lib/p11.so"))
    }

    fn error(section: &Accel) -> String {
        check(std::slice::from_ref(section)).unwrap_err().to_string()
    }

    #[test]
    fn sections_that_make_sense_make_a_driver_for_the_side_they_are_for() {
        let plain =
            token("hsm").with("token", "pkcs11:token=lab").with("pin_file", PathBuf::from("/etc/pin"));
        let both = token("both").with("token", "pkcs11:token=other").with("dh", "token");
        assert_eq!(check(&[plain.clone(), both.clone()]), Ok(()));
        assert_eq!(plain.place(), "pkcs11:token=lab in /usr/lib/p11.so");
        let names = |side| -> Vec<String> {
            let driver = driver(&[plain.clone(), both.clone()], side).unwrap();
            spi::Driver::probe(&driver).into_iter().map(|desc| desc.id).collect()
        };
        assert_eq!(names(Side::Keys), ["hsm", "both"]);
        assert_eq!(names(Side::Exchanges), ["both"]);
        assert!(driver(&[plain], Side::Exchanges).is_none());
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        assert!(error(&Accel::new("a").of("pkcs11")).contains("has no module"));
        assert!(
            error(&Accel::new("a").of("pkcs11").with("module", PathBuf::from("p.so"))).contains("absolute")
        );
        for (key, value, part) in [
            ("token", "pkcs11:tokn=x", "no attribute `tokn`"),
            ("token", "pkcs11:token=x?pin-value=1", "pin-source"),
            ("token", "pkcs11:object=x", "names an object"),
            ("dh", "card", "\"host\" or \"token\""),
        ] {
            let said = error(&token("a").with(key, value));
            assert!(said.starts_with("accel.a: ") && said.contains(part), "{said}");
        }
        let two = token("a").with("pin_env", "PIN").with("pin_file", PathBuf::from("/p"));
        assert!(error(&two).contains("at most one"));
        let mut many = token("a");
        many.values.insert("sessions".into(), super::super::Value::Number(0));
        assert!(error(&many).contains("1 to 64"));
        assert!(check(&[token("a"), token("b")]).unwrap_err().what.contains("same"));
    }
}
