//! The configuration file: typed, with every mistake reported at its line.
//!
//! | module | what it holds |
//! |---|---|
//! | [`report`] | places in the file, problems, "did you mean" |
//! | `section` | one table read into a struct, without stopping at the first mistake |
//! | `raw` | the file as serde sees it |
//! | `reader`, [`units`] | words to values |
//! | [`settings`], `dispatch`, `accel` | `[gateway]` and `[[policy]]`; `[dispatch]`; `[accel.…]` |
//! | `realms`, `pool`, `credentials`, `eap` | `[realm.…]`; inner addresses; secrets, keys, certificates; users |
//! | `radius` | `[radius]` |

mod accel;
mod credentials;
mod dispatch;
mod eap;
mod pool;
mod radius;
mod raw;
mod reader;
#[cfg(test)]
mod realm_tests;
mod realms;
pub mod report;
mod section;
pub mod settings;
pub mod summary;
#[cfg(test)]
mod tests;
pub mod units;
mod volatile;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use policy::{AuthPolicy, ChildMode, EspProposal, IdMatch, IkeProposal, Realm, Rule, SelectorSpec, Start};
use spi::Caps;
use toml::Spanned;
use toml::de::{DeTable, DeValue};
use zeroize::Zeroize;

use crate::dispatch::Table;
use crate::sandbox::Side;
use reader::Reader;
use realms::RealmRead;
use report::{Problem, Problems, Source, nearest, unknown};
use section::Section;
pub use settings::{CarveOut, Fallback, LogFormat, RealmWork, Settings};

/// A configuration without errors.
pub struct Loaded {
    /// The gateway itself.
    pub settings: Settings,
    /// The realms, in the order of the file.
    pub realms: Vec<Arc<Realm>>,
    /// Secrets, keys and trust, for the key side.
    pub secure: secure::Config,
    /// Carve-outs.
    pub carve_outs: Vec<CarveOut>,
    /// How often dummy packets go out, by realm and child.
    pub dummies: BTreeMap<(Arc<str>, Arc<str>), Duration>,
    /// Children, by realm and name, whose traffic goes nowhere while they are down.
    pub guarded: BTreeSet<(Arc<str>, Arc<str>)>,
    /// How packets are worked on, by realm, where it is not as usual.
    pub works: BTreeMap<Arc<str>, RealmWork>,
    /// Where the accelerators stand in the file, in the order of the settings; without a text, for whoever has something to say of one.
    pub accel_places: Vec<Problem>,
    /// Where the realms stand, likewise.
    pub realm_places: BTreeMap<Arc<str>, Problem>,
    /// What is worth a word.
    pub warnings: Vec<Problem>,
    /// Realms that secrets say they belong to, and where.
    psk_realms: Vec<(Arc<str>, Range<usize>)>,
}

/// Reads a configuration file and everything it names.
///
/// # Errors
/// Every problem there is, with its place.
pub fn load(path: &Path) -> Result<Loaded, Problems> {
    let whole = |text: String| {
        let problem = Problem { file: path.to_path_buf(), line: 1, column: 1, text };
        Problems { errors: vec![problem], warnings: Vec::new() }
    };
    let mode = fs::metadata(path).map_or(0, |meta| meta.mode());
    let mut text = fs::read_to_string(path).map_err(|error| whole(format!("cannot be read: {error}")))?;
    let result = parse(path, &text, mode);
    text.zeroize();
    result
}

/// Reads a configuration from text; `path` is for messages and for relative paths, `mode` are the file's permissions.
///
/// # Errors
/// As [`load`].
pub fn parse(path: &Path, text: &str, mode: u32) -> Result<Loaded, Problems> {
    let source = Source::new(path, text);
    let mut problems = Problems::default();
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        problems.error(&source, error.span().unwrap_or(0..0), error.message());
    }
    if !errors.is_empty() {
        // What could be saved of a file with syntax errors would only give errors that follow from them.
        problems.sort();
        return Err(problems);
    }
    let loaded = File { source: &source, problems: &mut problems, mode }.read(table);
    problems.sort();
    if problems.errors.is_empty() {
        Ok(Loaded { warnings: problems.warnings, ..loaded })
    } else {
        Err(problems)
    }
}

/// Realms that use algorithms no device here can carry: what would fail later, said at the start.
pub fn unmet(realms: &[Arc<Realm>], caps: &[&Caps]) -> Vec<String> {
    let mut unmet = Vec::new();
    for realm in realms {
        let group = |p: &IkeProposal| p.groups.iter().any(|g| caps.iter().any(|c| c.dh.contains(g)));
        if !realm.ike.iter().any(group) {
            unmet.push(format!(
                "realm `{}`: no device can do the key exchange of any `ike` proposal",
                realm.name
            ));
        }
        let carried = |p: &EspProposal| {
            let integ = if p.integ.is_empty() { &[spi::Integ::NONE][..] } else { &p.integ };
            let esn = p.esn.iter().all(|esn| *esn);
            p.encr.iter().any(|e| integ.iter().any(|i| caps.iter().any(|c| c.carries(*e, *i, esn))))
        };
        for child in realm.children.iter().filter(|child| !child.esp.iter().any(carried)) {
            unmet
                .push(format!("{}/{}: no device carries any of its `esp` proposals", realm.name, child.name));
        }
    }
    unmet
}

/// Where a realm stands, and each of its rules.
struct Place {
    realm: Arc<str>,
    at: Range<usize>,
    rules: Vec<Range<usize>>,
}

impl Place {
    /// Of a rule, or of the realm where it has none.
    fn of(&self, rule: Option<usize>) -> Range<usize> {
        rule.and_then(|rule| self.rules.get(rule)).unwrap_or(&self.at).clone()
    }
}

struct File<'a> {
    source: &'a Source,
    problems: &'a mut Problems,
    mode: u32,
}

impl File<'_> {
    fn read(&mut self, table: Spanned<DeTable<'_>>) -> Loaded {
        let mut root = Section { name: String::new(), span: 0..0, table: table.into_inner() };
        let settings = match root.take("gateway") {
            Some(value) => self.settings(value),
            None => Settings::default(),
        };
        let dispatch = root.take("dispatch").map(|value| self.dispatch(value)).unwrap_or_default();
        let accel = root.take("accel").map(|value| self.accelerators(value)).unwrap_or_default();
        let (accel, accel_places) = accel.into_iter().unzip();
        let mut loaded = Loaded {
            settings: Settings { dispatch, accel, ..settings },
            realms: Vec::new(),
            secure: secure::Config::default(),
            carve_outs: Vec::new(),
            dummies: BTreeMap::new(),
            guarded: BTreeSet::new(),
            works: BTreeMap::new(),
            accel_places,
            realm_places: BTreeMap::new(),
            warnings: Vec::new(),
            psk_realms: Vec::new(),
        };
        for section in root.take_list("psk", self.source, self.problems) {
            self.psk(section, &mut loaded);
        }
        for section in root.take_list("eap", self.source, self.problems) {
            self.eap_user(section, &mut loaded);
        }
        if let Some(value) = root.take("radius") {
            loaded.secure.radius = self.radius(value);
        }
        let mut places: Vec<Place> = Vec::new();
        if let Some(value) = root.take("realm") {
            let realms = Section::of("realm", value, self.source, self.problems);
            for (name, value) in realms.into_iter().flat_map(|realms| realms.table) {
                let at = name.span();
                let name = name.into_inner().into_owned();
                if let Some(RealmRead { realm, rules }) = self.realm(&name, at.clone(), value, &mut loaded) {
                    places.push(Place { realm: realm.name.clone(), at, rules });
                    loaded.realms.push(Arc::new(realm));
                }
            }
        }
        for section in root.take_list("policy", self.source, self.problems) {
            let at = section.span.clone();
            if let Some(raw) = section.read::<raw::Policy>(self.source, self.problems) {
                loaded.carve_outs.extend(settings::carve_out(&raw, at, &mut self.reader()));
            }
        }
        for (key, _) in &root.table {
            let known = ["gateway", "dispatch", "accel", "psk", "eap", "radius", "realm", "policy"];
            self.problems.error(self.source, key.span(), unknown("table", key.get_ref(), &known));
        }
        self.across_realms(&loaded, &places);
        let place = |at: &Range<usize>| self.source.problem(at.clone(), "");
        loaded.realm_places = places.iter().map(|each| (each.realm.clone(), place(&each.at))).collect();
        loaded.secure.realms = loaded.realms.clone();
        loaded.secure.mark = loaded.settings.mark;
        loaded.secure.state_dir = Some(loaded.settings.own_folder(Side::Keys));
        loaded.secure.devices = loaded.settings.devices();
        loaded
    }

    /// Whether a realm says how we and how peers prove ourselves. What is there under a name like it is no longer missing: it is spoken
    /// of as what it is.
    fn both_sides(&mut self, realm: &Section<'_>) {
        for (key, other, who) in [("local_auth", "remote_auth", "moon"), ("remote_auth", "local_auth", "sun")]
        {
            let keys = realm.table.iter().map(|(key, _)| key.get_ref().as_ref()).filter(|key| *key != other);
            if nearest(key, keys).is_none() {
                let text = format!(
                    "`{key}` is missing; write for example {{ method = \"psk\", id = \"{who}.lab.test\" }}"
                );
                self.problems.error(self.source, realm.span.clone(), text);
            }
        }
    }

    /// Whether first keys are remembered for good.
    fn forgetful(&mut self, word: &raw::Word, settings: &Settings) {
        if !volatile::is_volatile(&settings.state_dir) {
            return;
        }
        let text = format!(
            "trust = \"first-use\": the keys are remembered in {}, which the next boot empties, and then any key is a first one again; \
             let `state_dir` in [gateway] be a folder on a disk, for example \"/var/lib/tussock\" (where `control.sock` is then, for \
             --socket)",
            settings.own_folder(Side::Keys).display()
        );
        self.problems.warn(self.source, word.span(), text);
    }

    fn reader(&mut self) -> Reader<'_> {
        Reader { source: self.source, problems: self.problems }
    }

    fn settings(&mut self, value: Spanned<DeValue<'_>>) -> Settings {
        let section = Section::of("gateway", value, self.source, self.problems);
        let raw = section.and_then(|section| section.read::<raw::Gateway>(self.source, self.problems));
        settings::settings(raw.unwrap_or_default(), &mut self.reader())
    }

    fn dispatch(&mut self, value: Spanned<DeValue<'_>>) -> Table {
        let section = Section::of("dispatch", value, self.source, self.problems);
        let raw = section.and_then(|section| section.read::<raw::Dispatch>(self.source, self.problems));
        dispatch::table(&raw.unwrap_or_default(), &mut self.reader())
    }

    /// The sections, each with its place.
    fn accelerators(&mut self, value: Spanned<DeValue<'_>>) -> Vec<(registry::Accel, Problem)> {
        let sections = Section::of("accel", value, self.source, self.problems);
        let mut all: Vec<(registry::Accel, Problem)> = Vec::new();
        for (name, value) in sections.into_iter().flat_map(|sections| sections.table) {
            let at = name.span();
            let name = name.into_inner().into_owned();
            let section = Section::of(format!("accel.{name}"), value, self.source, self.problems);
            let place = self.source.problem(at.clone(), "");
            let before: Vec<registry::Accel> = all.iter().map(|(accel, _)| accel.clone()).collect();
            let read =
                section.and_then(|section| accel::section(&name, section, at, &before, &mut self.reader()));
            all.extend(read.map(|accel| (accel, place)));
        }
        all
    }

    fn psk(&mut self, section: Section<'_>, loaded: &mut Loaded) {
        let at = section.span.clone();
        let Some(raw) = section.read::<raw::Psk>(self.source, self.problems) else { return };
        if let Some(word) = raw.secret.as_ref().or(raw.hex.as_ref())
            && self.mode & 0o044 != 0
        {
            let text = "a secret in a file that others may read; chmod 600 it, or use `file`";
            self.problems.warn(self.source, word.span(), text);
        }
        if let Some(word) = &raw.realm {
            loaded.psk_realms.push((word.get_ref().as_str().into(), word.span()));
        }
        loaded.secure.psks.extend(credentials::psk(raw, at, &mut self.reader()));
    }

    fn radius(&mut self, value: Spanned<DeValue<'_>>) -> Option<secure::Radius> {
        let at = value.span();
        let mut section = Section::of("radius", value, self.source, self.problems)?;
        let servers = section.take_list("server", self.source, self.problems);
        let servers: Vec<_> = servers
            .into_iter()
            .filter_map(|server| Some((server.span.clone(), server.read(self.source, self.problems)?)))
            .collect();
        let raw = section.read::<raw::Radius>(self.source, self.problems)?;
        let open = self.mode & 0o044 != 0;
        radius::section(&raw, servers, at, open, &mut self.reader())
    }

    fn eap_user(&mut self, section: Section<'_>, loaded: &mut Loaded) {
        let at = section.span.clone();
        let Some(raw) = section.read::<raw::EapUser>(self.source, self.problems) else { return };
        if let Some(word) = &raw.password
            && self.mode & 0o044 != 0
        {
            let text = "a password in a file that others may read; chmod 600 it, or use `file`";
            self.problems.warn(self.source, word.span(), text);
        }
        if let Some((at, user)) = eap::user(raw, at, &mut self.reader()) {
            if loaded.secure.users.iter().any(|other| other.name == user.name) {
                let text = format!("`{}` has two passwords", user.name);
                self.problems.error(self.source, at, text);
            }
            loaded.secure.users.push(user);
        }
    }

    fn realm(
        &mut self,
        name: &str,
        at: Range<usize>,
        value: Spanned<DeValue<'_>>,
        loaded: &mut Loaded,
    ) -> Option<RealmRead> {
        if name.is_empty() || name.len() > 64 || !name.chars().all(|c| c.is_ascii_graphic() && c != '/') {
            let text = format!("`{name}` is not a name for a realm: letters, digits, `-`, `_`, `.`");
            self.problems.error(self.source, at.clone(), text);
        }
        let mut section = Section::of(format!("realm.{name}"), value, self.source, self.problems)?;
        section.span = at.clone();
        let children = section.take_list("child", self.source, self.problems);
        self.both_sides(&section);
        let raw: raw::Realm = section.read(self.source, self.problems)?;
        let realm = realms::realm(name, &raw, &mut self.reader());
        let work = settings::realm_work(&raw, &loaded.settings.accel, &mut self.reader());
        if work != RealmWork::default() {
            loaded.works.insert(name.into(), work);
        }
        let start = realm.as_ref().map_or(Start::Manual, |read| read.realm.start);
        let children = self.children(name, children, start, at.clone(), loaded);
        let credentials =
            credentials::credentials(raw.local_auth.as_ref(), raw.remote_auth.as_ref(), &mut self.reader());
        if let Some(word) = raw.remote_auth.as_ref().and_then(|auth| auth.get_ref().trust.as_ref())
            && credentials.as_ref().is_some_and(|credentials| credentials.trust.first_use)
        {
            self.forgetful(word, &loaded.settings);
        }
        if let Some(credentials) = credentials {
            loaded.secure.credentials.insert(name.to_owned(), credentials);
        }
        let RealmRead { realm, rules } = realm?;
        let realm = Realm { children, ..realm };
        self.within_realm(&realm, at);
        Some(RealmRead { realm, rules })
    }

    fn children(
        &mut self,
        realm: &str,
        sections: Vec<Section<'_>>,
        start: Start,
        realm_at: Range<usize>,
        loaded: &mut Loaded,
    ) -> Vec<policy::Child> {
        let mut children: Vec<policy::Child> = Vec::new();
        if sections.is_empty() {
            let text = format!("realm `{realm}` has no child; add [[realm.{realm}.child]]");
            self.problems.warn(self.source, realm_at, text);
        }
        for section in sections {
            let at = section.span.clone();
            let Some(raw) = section.read::<raw::Child>(self.source, self.problems) else { continue };
            let name_at = raw.name.as_ref().map_or(at.clone(), Spanned::span);
            let Some(read) = realms::child(&raw, start, at, &mut self.reader()) else { continue };
            if children.iter().any(|other| other.name == read.child.name) {
                let text = format!("realm `{realm}` has two children called `{}`", read.child.name);
                self.problems.error(self.source, name_at, text);
            }
            if !read.dummy.is_zero() {
                loaded.dummies.insert((realm.into(), read.child.name.clone()), read.dummy);
            }
            if read.blocks {
                loaded.guarded.insert((realm.into(), read.child.name.clone()));
            }
            children.push(read.child);
        }
        children
    }

    /// What makes no sense within one realm.
    fn within_realm(&mut self, realm: &Realm, at: Range<usize>) {
        // RFC 7619 section 2.5.
        let fixed =
            |child: &&policy::Child| child.remote.iter().any(|spec| matches!(spec, SelectorSpec::Fixed(_)));
        if realm.remote_auth == AuthPolicy::Null
            && let Some(child) = realm.children.iter().find(fixed)
        {
            let text = format!(
                "{}/{}: whoever comes may ask for what is sent to `remote`, and nobody knows who it is; with a `pool` and remote = \
                 [\"dynamic\"] each peer has an address of its own and no more",
                realm.name, child.name
            );
            self.problems.warn(self.source, at.clone(), text);
        }
        let mut error = |text: String| self.problems.error(self.source, at.clone(), text);
        if realm.ike.is_empty() {
            error(format!("realm `{}` has no usable `ike` proposal", realm.name));
        }
        if realm.remote_auth == AuthPolicy::Eap && realm.local_auth == AuthPolicy::Psk {
            // RFC 7296 section 2.16: a shared key would let every client pose as the gateway.
            error(format!("realm `{}`: peers that use EAP need a gateway with a certificate", realm.name));
        }
        let serves_only = realm.remote_auth == AuthPolicy::Eap && realm.local_auth != AuthPolicy::Eap;
        if serves_only && (realm.start != Start::Manual || !realm.ike_reauth.time.is_zero()) {
            error(format!(
                "realm `{}`: peers that use EAP begin by themselves; `start` and `ike_reauth` are theirs",
                realm.name
            ));
        }
        if realm.local_auth == AuthPolicy::Null && realm.remote_auth == AuthPolicy::Eap
            || realm.local_auth == AuthPolicy::Eap && realm.remote_auth == AuthPolicy::Null
        {
            // RFC 7619 section 2: the password would be shown to whoever asks for it.
            error(format!("realm `{}`: where one side uses EAP, the other cannot be nobody", realm.name));
        }
        let initiates = realm.children.iter().any(|child| child.start != Start::Manual);
        if initiates && realm.initiates_to().is_none() {
            error(format!(
                "realm `{}` is to come up by itself, but `remote` names no single address",
                realm.name
            ));
        }
        let family = |address: &std::net::IpAddr| address.is_ipv4();
        if let Some(to) = realm.initiates_to()
            && !realm.local.is_empty()
            && !realm.local.iter().any(|local| family(local) == family(&to))
        {
            error(format!("realm `{}`: `local` and `remote` are of different address families", realm.name));
        }
        for child in &realm.children {
            let name = format!("{}/{}", realm.name, child.name);
            if child.local.is_empty() || child.remote.is_empty() {
                error(format!("{name} has no selectors on one side"));
            }
            if child.esp.is_empty() {
                error(format!("{name} has no usable `esp` proposal"));
            }
            if child.mode == ChildMode::Transport && (realm.pool.is_some() || realm.virtual_ip.v4) {
                error(format!(
                    "{name}: transport mode is between the hosts themselves; it has no virtual addresses"
                ));
            }
            let fixed = |spec: &SelectorSpec| match spec {
                SelectorSpec::Fixed(selector) => Some(selector.start.is_ipv4()),
                SelectorSpec::Dynamic { .. } => None,
            };
            let local: BTreeSet<bool> = child.local.iter().filter_map(fixed).collect();
            let remote: BTreeSet<bool> = child.remote.iter().filter_map(fixed).collect();
            let all_fixed = child.local.iter().chain(&child.remote).all(|spec| fixed(spec).is_some());
            if all_fixed && !local.is_empty() && !remote.is_empty() && local.is_disjoint(&remote) {
                error(format!("{name}: `local` and `remote` selectors are of different address families"));
            }
        }
    }

    /// What makes no sense between realms, or for want of a secret.
    fn across_realms(&mut self, loaded: &Loaded, places: &[Place]) {
        let rule = |name: &str, rule: Option<usize>| {
            places.iter().find(|place| *place.realm == *name).map_or(0..0, |place| place.of(rule))
        };
        let place = |name: &str| rule(name, None);
        let realms: Vec<Realm> = loaded.realms.iter().map(|realm| (**realm).clone()).collect();
        for found in policy::ambiguities(&realms) {
            self.ambiguity(
                &found,
                rule(&found.first.0, found.first.1),
                rule(&found.second.0, found.second.1),
            );
        }
        for (realm, at) in &loaded.psk_realms {
            if !places.iter().any(|place| place.realm == *realm) {
                self.problems.error(self.source, at.clone(), format!("there is no realm `{realm}`"));
            }
        }
        for realm in loaded.realms.iter().filter(|realm| realm.eap.radius && loaded.secure.radius.is_none()) {
            let text = format!("realm `{}` wants RADIUS, and there is no [radius]", realm.name);
            self.problems.error(self.source, place(&realm.name), text);
        }
        for realm in &loaded.realms {
            let wants = realm.local_auth == AuthPolicy::Psk || realm.remote_auth == AuthPolicy::Psk;
            let is_ours = |id: &IdMatch| {
                id.matches(&realm.local_id) || realm.aliases.iter().any(|alias| id.matches(alias))
            };
            // Of whom a rule about something else speaks is not known here.
            let may_be_peers = |id: &IdMatch| {
                let rules = realm.remote_id.rules();
                rules.is_empty()
                    || rules.iter().any(|rule| !matches!(rule, Rule::Id(peers) if !peers.overlaps(id)))
            };
            let fits = |psk: &secure::Psk| match &psk.ids[..] {
                [] => true,
                [one] => is_ours(one) || may_be_peers(one),
                ids => ids.iter().any(is_ours) && ids.iter().any(may_be_peers),
            };
            let here = |psk: &&secure::Psk| psk.realm.as_ref().is_none_or(|its| *its == realm.name);
            if wants && !loaded.secure.psks.iter().filter(here).any(fits) {
                let text = format!("no [[psk]] is shared by `{}` and `{}`", realm.local_id, realm.remote_id);
                self.problems.error(self.source, place(&realm.name), text);
            }
        }
    }

    /// Two rules that a peer may fit equally well, at their places.
    fn ambiguity(&mut self, found: &policy::Ambiguity, first: Range<usize>, second: Range<usize>) {
        let (one, other) = (&found.first.0, &found.second.0);
        let first = self.source.problem(first, "");
        let text = format!(
            "a peer may fit realms `{one}` and `{other}` equally well: `{other}` accepts `{}` here, and `{one}` accepts `{}` at \
             {}:{}:{}",
            found.rules.1,
            found.rules.0,
            first.file.display(),
            first.line,
            first.column
        );
        if found.by_name {
            let text = format!(
                "{text}; their names of ours differ, but a peer that asks for none of them gets `{one}`"
            );
            self.problems.warn(self.source, second, text);
        } else {
            let text = format!(
                "{text}; let one be narrower, at other addresses, or by another method or name of ours"
            );
            self.problems.error(self.source, second, text);
        }
    }
}
