//! `tussock pki invite` and `join`: two gateways meet by one file. The first makes a certificate for the second and writes down all that
//! it needs; the second turns that into a configuration. Each has a realm for the other then.
//!
//! An invite holds a private key: who has it is the gateway that it was made for. It is one line of JSON, which fits into a QR code.

use std::fs;
use std::io::{Read, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use base64ct::{Base64, Encoding};
use clap::Args;
use qrcode::{Color, EcLevel, QrCode};
use rcgen::KeyPair;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use super::ca::{self, Folder, Init, Issue};
use super::store::{Store, file_name, folder_of, replace, secret};
use super::{Kind, ca::certificate};
use crate::config;

/// Longest invite that is read, octets.
const MAX_INVITE: u64 = 64 * 1024;

/// Whom to invite.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct Invite {
    /// The name of the other gateway, for example sun.example.org
    #[arg(value_name = "NAME")]
    pub name: String,
    /// The name of this gateway
    #[arg(long = "as", value_name = "NAME")]
    pub own: String,
    /// The address of this gateway, as the other one sees it
    #[arg(long, value_name = "ADDRESS")]
    pub here: IpAddr,
    /// The address of the other one, if it always has the same
    #[arg(long, value_name = "ADDRESS")]
    pub there: Option<IpAddr>,
    /// A network behind this gateway
    #[arg(long, value_name = "PREFIX", required = true)]
    pub local: Vec<String>,
    /// A network behind the other one
    #[arg(long, value_name = "PREFIX", required = true)]
    pub remote: Vec<String>,
    /// Where the invite goes; NAME.invite without
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Where the invite goes as a picture (PNG)
    #[arg(long, value_name = "FILE")]
    pub png: Option<PathBuf>,
    /// Show it as a QR code at the terminal
    #[arg(long)]
    pub qr: bool,
    /// This gateway's configuration, to which a realm for the other one is added
    #[arg(long, value_name = "FILE", default_value = "/etc/tussock/gateway.toml")]
    pub config: PathBuf,
    /// The CA's folder, made if it is not there; `pki` beside the configuration without
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// How long the other one's certificate is to last
    #[arg(long, value_name = "DAYS", default_value_t = 397, value_parser = clap::value_parser!(u32).range(1..=36500))]
    pub days: u32,
}

/// What to join by.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct Join {
    /// The invite; `-` for standard input
    #[arg(value_name = "FILE")]
    pub invite: PathBuf,
    /// The configuration, to which a realm for the inviting gateway is added
    #[arg(long, value_name = "FILE", default_value = "/etc/tussock/gateway.toml")]
    pub config: PathBuf,
}

/// What an invite says.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    tussock_invite: u32,
    name: String,
    from: String,
    here: IpAddr,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    there: Option<IpAddr>,
    local: Vec<String>,
    remote: Vec<String>,
    ca: String,
    cert: String,
    key: String,
}

impl Drop for Content {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

/// A realm for the gateway at the other end.
struct Meeting<'a> {
    own: &'a str,
    peer: &'a str,
    address: Option<IpAddr>,
    start: &'a str,
    local: &'a [String],
    remote: &'a [String],
    cert: PathBuf,
    key: PathBuf,
    ca: PathBuf,
    crl: Option<PathBuf>,
}

/// Invites; gives what to say.
pub(super) fn invite(invite: &Invite) -> anyhow::Result<String> {
    let beside = || folder_of(&invite.config).join("pki");
    let dir = std::path::absolute(invite.dir.clone().unwrap_or_else(beside))?;
    let folder = Folder { dir: dir.clone() };
    for prefix in invite.local.iter().chain(&invite.remote) {
        policy::SelectorSpec::parse(prefix).map_err(|error| anyhow!("{prefix}: {error}"))?;
    }
    let out = invite.out.clone().unwrap_or_else(|| format!("{}.invite", file_name(&invite.name)).into());
    if out.exists() {
        bail!("{} is there already; remove it, or name another with --out", out.display());
    }
    let mut store = match Store::exists(&dir) {
        true => Store::open(&dir)?,
        false => ca::init(&Init {
            folder: folder.clone(),
            subject: "CN=tussock CA".into(),
            days: 3650,
            kind: Kind::P256,
            crl_urls: Vec::new(),
            ocsp_urls: Vec::new(),
        })?,
    };
    let issue = |name: &str| Issue {
        folder: folder.clone(),
        name: name.to_owned(),
        names: Vec::new(),
        user: false,
        subject: None,
        days: invite.days,
        kind: Kind::P256,
    };
    let meeting = Meeting {
        own: &invite.own,
        peer: &invite.name,
        address: invite.there,
        // The one who was invited calls.
        start: "manual",
        local: &invite.local,
        remote: &invite.remote,
        cert: store.cert(&invite.own),
        key: store.key(&invite.own),
        ca: store.path("ca.crt"),
        crl: Some(store.path("ca.crl")),
    };
    // Ours may be there from an earlier invitation.
    if !store.cert(&invite.own).exists() {
        ca::issue_from(&mut store, &issue(&invite.own))?;
    }
    let added = added(&invite.config, &meeting)?;
    let issued = match ca::issue_from(&mut store, &issue(&invite.name)) {
        Ok(issued) => issued,
        Err(error) => {
            let _ = fs::remove_file(&added.half);
            return Err(error);
        }
    };
    let text = write_out(invite, &store, &out).and_then(|text| commit(&invite.config, &added).map(|()| text));
    let text = match text {
        Ok(text) => text,
        Err(error) => {
            // What was not given to anybody is taken back, and the next try begins anew.
            let _ = fs::remove_file(&added.half);
            let _ = fs::remove_file(&out);
            let _ = ca::withdraw(&mut store, &issued);
            return Err(error);
        }
    };
    let mut said = format!(
        "{} knows {} now.\nAt {}: tussock pki join {}\nThe file holds a private key: give it to nobody else, and remove it afterwards.\n",
        invite.config.display(),
        invite.name,
        invite.name,
        out.display()
    );
    if invite.qr {
        said += &at_terminal(&text)?;
    }
    Ok(said)
}

/// Writes the invite, and its picture; gives its text.
fn write_out(invite: &Invite, store: &Store, out: &Path) -> anyhow::Result<Zeroizing<String>> {
    let key = KeyPair::from_pem(&secret(&store.key(&invite.name))?)?;
    let content = Content {
        tussock_invite: 1,
        name: invite.name.clone(),
        from: invite.own.clone(),
        here: invite.here,
        there: invite.there,
        local: invite.local.clone(),
        remote: invite.remote.clone(),
        ca: Base64::encode_string(&certificate(&store.path("ca.crt"))?.der),
        cert: Base64::encode_string(&certificate(&store.cert(&invite.name))?.der),
        key: Base64::encode_string(&Zeroizing::new(key.serialize_der())),
    };
    let text = Zeroizing::new(serde_json::to_string(&content)?);
    replace(out, Zeroizing::new(format!("{}\n", *text)).as_bytes())?;
    if let Some(png) = &invite.png {
        picture(&text, png)?;
    }
    Ok(text)
}

/// Joins; gives what to say.
pub(super) fn join(join: &Join) -> anyhow::Result<String> {
    let file = join.invite.display();
    let mut text = Zeroizing::new(String::with_capacity(MAX_INVITE as usize));
    let read = if join.invite.as_os_str() == "-" {
        std::io::stdin().lock().take(MAX_INVITE - 1).read_to_string(&mut text)
    } else {
        fs::File::open(&join.invite).and_then(|opened| opened.take(MAX_INVITE - 1).read_to_string(&mut text))
    };
    read.with_context(|| format!("cannot read {file}"))?;
    // What a scanner puts before a code ("QR-Code:") is not of it.
    let begin = text.find('{').with_context(|| format!("{file} is no invite"))?;
    let invite: Content = serde_json::from_str(text.get(begin..).unwrap_or_default().trim_end())
        .map_err(|error| anyhow!("{file} is no invite, or not all of one: {error}"))?;
    if invite.tussock_invite != 1 {
        bail!("{file} is an invite of a newer tussock (version {})", invite.tussock_invite);
    }
    let (name, from) = (file_name(&invite.name), file_name(&invite.from));
    let folder = std::path::absolute(folder_of(&join.config))?.join("pki");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
    let (cert, key, ca) = (
        folder.join(format!("{name}.crt")),
        folder.join(format!("{name}.key")),
        folder.join(format!("{from}-ca.crt")),
    );
    if let Some(there) = [&cert, &key, &ca].into_iter().find(|path| path.exists()) {
        bail!("{} is there already; an invite is for one gateway, once", there.display());
    }
    let write = |path: &Path, label: &str, base64: &str| {
        let der = Zeroizing::new(
            Base64::decode_vec(base64).map_err(|_| anyhow!("the {label} in {file} is not base64"))?,
        );
        let pem = Zeroizing::new(pem(label, &der));
        replace(path, pem.as_bytes())
    };
    let written = || {
        write(&key, "PRIVATE KEY", &invite.key)?;
        write(&cert, "CERTIFICATE", &invite.cert)?;
        write(&ca, "CERTIFICATE", &invite.ca)
    };
    let meeting = Meeting {
        own: &invite.name,
        peer: &invite.from,
        address: Some(invite.here),
        start: "boot",
        local: &invite.remote,
        remote: &invite.local,
        cert: cert.clone(),
        key: key.clone(),
        ca: ca.clone(),
        crl: None,
    };
    let done =
        written().and_then(|()| added(&join.config, &meeting)).and_then(|added| commit(&join.config, &added));
    if let Err(error) = done {
        // An invite can be tried again.
        for path in [&cert, &key, &ca] {
            let _ = fs::remove_file(path);
        }
        return Err(error);
    }
    Ok(format!("{} knows {} now; `tussock run` meets it.\n", join.config.display(), invite.from))
}

/// A configuration with a realm more, beside the old one and read once: it is good.
struct Added {
    half: PathBuf,
}

fn added(config: &Path, meeting: &Meeting<'_>) -> anyhow::Result<Added> {
    let before = match fs::read_to_string(config) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            "# Written by `tussock pki`; docs/operations.md has the rest.\n".into()
        }
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", config.display())),
    };
    let realm = realm_name(meeting.peer);
    if before.contains(&format!("[realm.{realm}]")) || before.contains(&format!("[realm.\"{realm}\"]")) {
        bail!("{} has a realm `{realm}` already; take it out first", config.display());
    }
    let path = |path: &Path| toml_text(&path.display().to_string());
    let list = |texts: &[String]| texts.iter().map(|text| toml_text(text)).collect::<Vec<_>>().join(", ");
    let mut text = before.trim_end().to_owned();
    text += &format!("\n\n[realm.{realm}]\n");
    if let Some(address) = meeting.address {
        text += &format!("remote = [\"{address}\"]\n");
    }
    text += &format!("start = \"{}\"\n", meeting.start);
    text += &format!(
        "local_auth = {{ method = \"pubkey\", id = {}, cert = [{}], key = {} }}\n",
        toml_text(meeting.own),
        path(&meeting.cert),
        path(&meeting.key)
    );
    let crl = meeting.crl.as_deref().map(|crl| format!(", crl = [{}]", path(crl))).unwrap_or_default();
    text += &format!(
        "remote_auth = {{ method = \"pubkey\", id = {}, ca = [{}]{crl} }}\n",
        toml_text(meeting.peer),
        path(&meeting.ca)
    );
    text += &format!(
        "\n[[realm.{realm}.child]]\nname = \"net\"\nlocal = [{}]\nremote = [{}]\n",
        list(meeting.local),
        list(meeting.remote)
    );
    let folder = folder_of(config);
    fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
    let half = config.with_extension("toml.new");
    replace(&half, text.as_bytes())?;
    if let Err(problems) = config::load(&half) {
        let _ = fs::remove_file(&half);
        bail!("with the new realm the configuration would be wrong, so it stays as it is:\n{problems}");
    }
    Ok(Added { half })
}

fn commit(config: &Path, added: &Added) -> anyhow::Result<()> {
    fs::rename(&added.half, config).with_context(|| format!("cannot write {}", config.display()))
}

/// The first word of a name, as far as it may stand bare in TOML.
fn realm_name(peer: &str) -> String {
    let word =
        if peer.parse::<IpAddr>().is_ok() { peer } else { peer.split(['.', '@']).next().unwrap_or(peer) };
    word.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' }).take(40).collect()
}

fn toml_text(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => {
                out.push('\\');
                out.push(c);
            }
            c if c.is_control() => out += &format!("\\u{:04x}", u32::from(c)),
            c => out.push(c),
        }
    }
    out + "\""
}

fn pem(label: &str, der: &[u8]) -> String {
    let body = Zeroizing::new(Base64::encode_string(der));
    let mut text = format!("-----BEGIN {label}-----\n");
    text.reserve(2 * body.len());
    for line in body.as_bytes().chunks(64) {
        text += &String::from_utf8_lossy(line);
        text.push('\n');
    }
    text + &format!("-----END {label}-----\n")
}

fn code(text: &str) -> anyhow::Result<QrCode> {
    // The least correction there is: a screen has no scratches, and the code is large as it is.
    QrCode::with_error_correction_level(text, EcLevel::L)
        .map_err(|error| anyhow!("the invite does not fit into a QR code ({error}); use the file"))
}

/// Two modules above each other in one character.
fn at_terminal(text: &str) -> anyhow::Result<String> {
    let code = code(text)?;
    let (width, colors) = (code.width(), code.to_colors());
    let dark = |x: usize, y: usize| {
        // A quiet zone of four modules all around.
        let (x, y) = (x.checked_sub(4), y.checked_sub(4));
        matches!((x, y), (Some(x), Some(y)) if x < width && y < width && colors.get(y * width + x) == Some(&Color::Dark))
    };
    let mut out = String::new();
    for y in (0..width + 8).step_by(2) {
        for x in 0..width + 8 {
            // Light modules are drawn, for terminals are dark.
            out.push(match (dark(x, y), dark(x, y + 1)) {
                (false, false) => '█',
                (false, true) => '▀',
                (true, false) => '▄',
                (true, true) => ' ',
            });
        }
        out.push('\n');
    }
    Ok(out)
}

fn picture(text: &str, path: &Path) -> anyhow::Result<()> {
    const SCALE: usize = 4;
    let code = code(text)?;
    let (width, colors) = (code.width(), code.to_colors());
    let side = (width + 8) * SCALE;
    let mut pixels = Zeroizing::new(vec![255u8; side * side]);
    for (i, _) in colors.iter().enumerate().filter(|(_, color)| **color == Color::Dark) {
        let (x, y) = ((i % width + 4) * SCALE, (i / width + 4) * SCALE);
        for row in y..y + SCALE {
            if let Some(run) = pixels.get_mut(row * side + x..row * side + x + SCALE) {
                run.fill(0);
            }
        }
    }
    let side = u32::try_from(side)?;
    let mut octets = Vec::new();
    let mut encoder = png::Encoder::new(&mut octets, side, side);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(&pixels)?;
    writer.finish()?;
    octets.flush()?;
    replace(path, &octets)
}
