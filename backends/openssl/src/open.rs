//! A provider in a library context of its own, and everything that can be wrong with that, each with what to do about it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use spi::Secret;
use zeroize::{Zeroize, Zeroizing};

use crate::config::Config;
use crate::pump;
use crate::sys::context::{self, Context};
use crate::sys::engine::Engine;

/// Providers that are inside the library: no module is looked for.
const BUILT_IN: [&str; 3] = ["default", "base", "null"];

/// Longest PIN in a file, octets.
const LONGEST_PIN: u64 = 256;

/// What was opened.
pub(crate) struct Opened {
    pub(crate) context: Arc<Context>,
    pub(crate) engine: Option<Arc<Engine>>,
    /// What it is, in one line.
    pub(crate) about: String,
    /// What the provider's algorithms say of themselves, for when nothing is found among them.
    pub(crate) properties: Vec<String>,
    /// The query in use.
    pub(crate) query: String,
}

/// Opens what the configuration names.
///
/// # Errors
/// What is in the way, and what to do about it.
pub(crate) fn open(config: &Config) -> Result<Opened, String> {
    if !context::can_pause() {
        return Err(format!(
            "{} cannot run jobs on this system (it was built without async): use another build of it",
            context::version()
        ));
    }
    if let Some(left) = pump::too_many_left() {
        return Err(format!(
            "{left} jobs of providers were paused and never woken, and their memory cannot be used again: restart the gateway, \
             and have the provider looked at"
        ));
    }
    let engine = config.engine.as_deref().map(|id| open_engine(id, config)).transpose()?;
    let mut context = Context::new()?;
    let module = Module::new(config);
    // First of all: what the configuration activates is looked for there, and has its parameters from nowhere else.
    if let Some(dir) = &module.dir {
        context.look_in(dir)?;
    }
    if let Some(file) = &config.config {
        context
            .configure(file)
            .map_err(|why| format!("the OpenSSL configuration {} is not accepted: {why}", file.display()))?;
    }
    let provider = context.load(&module.name).map_err(|why| module.why_not(&why))?;
    // Keys are read and written by these, and random numbers made; the query keeps them from everything else.
    let companion = if module.name == "fips" { "base" } else { "default" };
    if module.name != companion {
        context.load(companion).map_err(|why| format!("the provider `{companion}` does not load: {why}"))?;
    }
    let properties = context.properties(provider);
    let query = match &config.properties {
        Some(query) => query.clone(),
        None => own_query(&properties).ok_or_else(|| {
            format!(
                "the algorithms of the provider `{}` do not say whose they are ({}): say with `properties = …` how to find them",
                module.name,
                told(&properties)
            )
        })?,
    };
    context.set_query(&query)?;
    if !context.random(&mut [0; 16]) {
        return Err(format!("the provider `{}` leaves its context without random numbers", module.name));
    }
    let (name, version) = context.about(provider);
    let name = if name.is_empty() { module.name.clone() } else { name };
    let mut about = format!("{}, {name} {version}, properties {query}", context::version());
    if let Some((id, engine)) = config.engine.as_ref().zip(engine.as_ref()) {
        about = format!("{}, keys of the engine {id} ({})", context::version(), engine.name());
    }
    Ok(Opened { context: Arc::new(context), engine: engine.map(Arc::new), about, properties, query })
}

/// What a provider's algorithms say of themselves, for people.
pub(crate) fn told(properties: &[String]) -> String {
    match properties {
        [] => "it has none".to_owned(),
        some => some.iter().map(|one| format!("`{one}`")).collect::<Vec<_>>().join(", "),
    }
}

/// The query that finds a provider's algorithms and no other's.
fn own_query(properties: &[String]) -> Option<String> {
    let parts = properties.iter().flat_map(|one| one.split(',')).map(str::trim);
    let mut own = parts.filter(|part| part.starts_with("provider="));
    own.next().map(str::to_owned)
}

/// Where a provider is looked for.
struct Module {
    name: String,
    dir: Option<PathBuf>,
}

impl Module {
    fn new(config: &Config) -> Self {
        let path = Path::new(&config.provider);
        let of_path = || Some((path.file_stem()?.to_str()?.to_owned(), path.parent()?.to_owned()));
        match config.provider.contains('/').then(of_path).flatten() {
            Some((name, dir)) => Module { name, dir: Some(dir) },
            None => Module { name: config.provider.clone(), dir: config.modules.clone() },
        }
    }

    /// Why it did not load: what was tried, what OpenSSL says, and what to do.
    fn why_not(&self, why: &str) -> String {
        let name = &self.name;
        if BUILT_IN.contains(&name.as_str()) {
            return format!(
                "the provider `{name}`, which is inside {}, does not load: {why}",
                context::version()
            );
        }
        let dir = self.dir.clone().unwrap_or_else(context::modules_dir);
        let file = dir.join(format!("{name}.so"));
        let (state, hint) = match (file.exists(), name.as_str()) {
            (false, "fips") => (
                "which is not there",
                "install the FIPS provider (Debian 13: openssl-provider-fips) or name the directory with `modules = …`",
            ),
            (false, _) => (
                "which is not there",
                "install the provider, or name the directory of its module with `modules = …`, or its file with `provider = …`",
            ),
            (true, "fips") => (
                "which is there",
                "run `openssl fipsinstall -module … -out fipsmodule.cnf` and name a configuration that includes it with \
                 `config = …`",
            ),
            (true, _) => (
                "which is there",
                "see whether it is a provider for this version of OpenSSL, and whether its own configuration is given with \
                 `config = …`",
            ),
        };
        format!(
            "the provider `{name}` does not load; tried {}, {state}; OpenSSL says: {why}; {hint}",
            file.display()
        )
    }
}

fn open_engine(id: &str, config: &Config) -> Result<Engine, String> {
    let mut commands = Vec::new();
    for command in &config.commands {
        let (name, value) = command
            .split_once('=')
            .ok_or_else(|| "an engine's command has the form COMMAND=value".to_owned())?;
        commands.push((name.to_owned(), Zeroizing::new(value.to_owned())));
    }
    if let Some(pin) = pin(config)? {
        commands.push(("PIN".to_owned(), pin));
    }
    Engine::open(id, &commands).map_err(|why| {
        let hint = match id {
            "pkcs11" => {
                "; on Debian it is in libengine-pkcs11-openssl, and wants commands = [\"MODULE_PATH=…\"]"
            }
            _ => "",
        };
        match why.starts_with("OpenSSL") && why.contains("no engines") {
            true => why,
            false => format!("the engine `{id}` does not open: {why}{hint}"),
        }
    })
}

/// The PIN in the file that is named, without the end of its line.
fn pin(config: &Config) -> Result<Option<Zeroizing<String>>, String> {
    use std::io::Read;
    let Some(file) = &config.pin_file else { return Ok(None) };
    let error = |why: &str| format!("the PIN in {} cannot be used: {why}", file.display());
    let open = std::fs::File::open(file).map_err(|io| error(&io.to_string()))?;
    let mut octets = Vec::with_capacity(LONGEST_PIN as usize + 1);
    open.take(LONGEST_PIN + 1).read_to_end(&mut octets).map_err(|io| error(&io.to_string()))?;
    if octets.len() as u64 > LONGEST_PIN {
        octets.zeroize();
        return Err(error("it is too long"));
    }
    let octets = Secret::new(octets);
    let text = std::str::from_utf8(octets.expose()).map_err(|_| error("it is no text"))?;
    let text = text.trim_end_matches(['\r', '\n']);
    if text.is_empty() { Err(error("it is empty")) } else { Ok(Some(Zeroizing::new(text.to_owned()))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_query_is_what_the_algorithms_say_of_themselves() {
        let all = |list: &[&str]| list.iter().map(|one| one.to_string()).collect::<Vec<_>>();
        assert_eq!(own_query(&all(&["fips=yes, provider=fips", "provider=fips"])).unwrap(), "provider=fips");
        assert!(own_query(&all(&["fast=yes"])).is_none());
    }

    #[test]
    fn a_path_is_a_directory_and_a_name() {
        let of = |provider: &str| {
            let module = Module::new(&Config { provider: provider.into(), ..Config::default() });
            (module.name, module.dir)
        };
        assert_eq!(of("/opt/vendor/fast.so"), ("fast".into(), Some("/opt/vendor".into())));
        assert_eq!(of("fast"), ("fast".into(), None));
    }
}
