//! `driver = "openssl"`: a provider of OpenSSL's, or the keys of an engine.

use super::kind::Wrong;
use super::{Accel, Form, Kind};

pub(crate) const KIND: Kind = Kind {
    driver: "openssl",
    built: cfg!(feature = "openssl"),
    keys: &[
        ("provider", Form::Text),
        ("modules", Form::File),
        ("properties", Form::Text),
        ("config", Form::File),
        ("engine", Form::Text),
        ("engine_module", Form::File),
        ("engine_commands", Form::Text),
        ("pin_file", Form::File),
        // Jobs of one queue that may be paused at one time, and for how long, milliseconds.
        ("jobs", Form::Number),
        ("patience", Form::Number),
    ],
    check,
};

/// Keys that make sense with a provider, and with an engine.
const OF_PROVIDERS: [&str; 4] = ["provider", "modules", "properties", "config"];
const OF_ENGINES: [&str; 3] = ["engine_module", "engine_commands", "pin_file"];

fn check(section: &Accel) -> Result<String, Wrong> {
    let engine = section.text("engine");
    let (others, what) = match engine {
        Some(_) => (
            &OF_PROVIDERS[..],
            "is of a provider, and this section is of an engine: each wants a section of its own",
        ),
        None => (&OF_ENGINES[..], "is of an engine, and this section has no `engine`"),
    };
    if let Some(key) = others.iter().find(|key| section.values.contains_key(**key)) {
        return Err((Some(key), format!("{key} {what}")));
    }
    if let Some(commands) = section.text("engine_commands")
        && let Some(bad) = split(commands).find(|command| !command.contains('='))
    {
        let what =
            format!("engine_commands: {bad:?} is no command; they look like \"NAME=value; OTHER=value\"");
        return Err((Some("engine_commands"), what));
    }
    for (key, range) in [("jobs", 1..=8192), ("patience", 100..=60_000)] {
        if section.number(key).is_some_and(|number| !range.contains(&number)) {
            return Err((Some(key), format!("{key} is from {} to {}", range.start(), range.end())));
        }
    }
    if let Some(engine) = engine {
        #[cfg(feature = "openssl")]
        if !ossl::has_engines() {
            let what = format!(
                "engine = {engine:?}: {} has no engines any more; use the provider that came in its place, with `provider = …`",
                ossl::version()
            );
            return Err((Some("engine"), what));
        }
        return Ok(format!("engine {engine}"));
    }
    let Some(provider) = section.text("provider").filter(|provider| !provider.is_empty()) else {
        return Err((
            None,
            "has neither provider (a name, such as \"default\", or a file) nor engine".into(),
        ));
    };
    if provider.contains('/') && !provider.starts_with('/') {
        return Err((
            Some("provider"),
            format!("provider = {provider:?} is neither a name nor an absolute path"),
        ));
    }
    Ok(match section.text("properties") {
        Some(properties) => format!("provider {provider}, {properties}"),
        None => format!("provider {provider}"),
    })
}

/// Commands for an engine.
fn split(commands: &str) -> impl Iterator<Item = &str> {
    commands.split(';').map(str::trim).filter(|command| !command.is_empty())
}

/// The driver of all sections that are for it: for packets and ephemeral keys, to which engines have nothing to say, or for
/// long-term keys.
#[cfg(feature = "openssl")]
pub(crate) fn driver(sections: &[Accel], long_term: bool) -> Option<ossl::OpenSsl> {
    let site = |section: &Accel| {
        let text = |key| section.text(key).map(str::to_owned);
        let path = |key| section.path(key).map(ToOwned::to_owned);
        let mut config = ossl::Config::default();
        config.provider = text("provider").unwrap_or(config.provider);
        (config.modules, config.config) = (path("modules"), path("config"));
        config.properties = text("properties");
        config.engine = text("engine");
        let module = path("engine_module").map(|module| format!("MODULE_PATH={}", module.display()));
        let commands =
            section.text("engine_commands").map(|all| split(all).map(str::to_owned).collect::<Vec<_>>());
        config.commands = module.into_iter().chain(commands.into_iter().flatten()).collect();
        config.pin_file = path("pin_file");
        config.jobs = section.number("jobs").and_then(|jobs| jobs.try_into().ok()).unwrap_or(config.jobs);
        config.patience =
            section.number("patience").map_or(config.patience, std::time::Duration::from_millis);
        ossl::Site { name: section.name.clone(), config }
    };
    let ours = sections.iter().filter(|section| section.driver == KIND.driver);
    let ours = ours.filter(|section| long_term || section.text("engine").is_none());
    let sites: Vec<ossl::Site> = ours.map(site).collect();
    (!sites.is_empty()).then(|| ossl::OpenSsl::new(sites))
}

#[cfg(test)]
#[cfg(feature = "openssl")]
mod tests {
    use std::path::PathBuf;

    use super::super::check;
    use super::*;

    fn section(provider: &str) -> Accel {
        Accel::new("a").of("openssl").with("provider", provider)
    }

    fn error(section: &Accel) -> String {
        check(std::slice::from_ref(section)).unwrap_err().to_string()
    }

    #[test]
    fn sections_that_make_sense_make_a_driver_of_each_side() {
        let engine = Accel::new("keys").of("openssl").with("engine", "pkcs11");
        let engine = engine.with("engine_module", PathBuf::from("/usr/lib/softhsm/libsofthsm2.so"));
        let sections = [section("default"), engine.with("engine_commands", "VERBOSE=1; INIT_ARGS=x")];
        assert_eq!(check(&sections), Ok(()));
        let names = |long_term| {
            let found = spi::Driver::probe(&driver(&sections, long_term).unwrap());
            found.into_iter().map(|desc| desc.id).collect::<Vec<_>>()
        };
        assert_eq!(
            (names(false), names(true)),
            (vec!["a".to_owned()], vec!["a".to_owned(), "keys".to_owned()])
        );
        assert!(driver(&[], true).is_none());
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        assert!(error(&Accel::new("a").of("openssl")).contains("has neither provider"));
        assert!(error(&section("fast/p.so")).contains("neither a name nor an absolute path"));
        assert!(error(&section("default").with("engine", "pkcs11")).contains("provider is of a provider"));
        assert!(
            error(&section("default").with("pin_file", PathBuf::from("/x")))
                .contains("pin_file is of an engine")
        );
        let engine = Accel::new("a").of("openssl").with("engine", "pkcs11");
        assert!(error(&engine.with("engine_commands", "VERBOSE")).contains("is no command"));
        let mut many = section("default");
        many.values.insert("jobs".into(), super::super::Value::Number(0));
        assert!(error(&many).contains("jobs is from 1 to 8192"));
    }
}
