//! `tussock pki`: a small CA ([`ca`], [`store`], [`export`]), gateways that meet by one file ([`invite`]), and `tussock pki token`: what
//! an operator does at a PKCS #11 token before a realm can use it. A PIN or password is read from a file, the environment or the
//! terminal, and never from the command line, which everybody on the machine can read.

pub mod ca;
pub mod export;
pub mod invite;
mod pins;
mod store;
#[cfg(test)]
mod tests;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, anyhow, bail};
use clap::{Args, Subcommand, ValueEnum};
use policy::Identity;
use rcgen::{
    CertificateParams, DistinguishedName, DnType, PublicKeyData, SanType, SignatureAlgorithm, SigningKey,
};
use registry::tokens::{Desk, KeySpec, PinSource, Signer, Uri};
use spi::SignScheme;
use spi::alg::Curve;

/// `tussock pki …`
#[derive(Subcommand, Debug, PartialEq, Eq)]
pub enum Pki {
    /// Make a CA
    Init(ca::Init),
    /// Issue a certificate with a new key
    Issue(ca::Issue),
    /// Issue a certificate again, before it expires
    Renew(ca::Renew),
    /// Revoke a certificate, and make the list of revoked ones anew
    Revoke(ca::Revoke),
    /// Make the list of revoked certificates anew, before it expires
    Crl(ca::Crl),
    /// Show what was issued
    List(ca::Folder),
    /// Write certificate, key and CA into one file with a password (PKCS #12)
    Export(export::Export),
    /// Let another gateway meet this one: by one file, with all that it needs
    Invite(invite::Invite),
    /// Meet the gateway that an invite is from
    Join(invite::Join),
    /// Keys and certificates in PKCS #11 tokens
    #[command(subcommand)]
    Token(Box<Token>),
    /// Show the keys of peers that were believed at first use, or forget one
    Pins(pins::Pins),
}

/// `tussock pki token …`
#[derive(Subcommand, Debug, PartialEq, Eq)]
pub enum Token {
    /// Show the module's tokens and what is on them: with a PIN everything, without what anybody may see
    List(At),
    /// Make a key pair for signing on the token; the private half never leaves it
    Generate(Generate),
    /// Have the token sign a request for a certificate (PKCS #10)
    Csr(Csr),
    /// Put a certificate on the token, beside its key
    Import(Import),
}

/// Which token, and how to log in.
#[derive(Args, Debug, PartialEq, Eq)]
pub struct At {
    /// The token's PKCS #11 library
    #[arg(long, value_name = "FILE")]
    pub module: PathBuf,
    /// Which of the module's tokens: a PKCS #11 URI
    #[arg(long, value_name = "URI", default_value = "pkcs11:", value_parser = Uri::parse)]
    pub token: Uri,
    /// The PIN is in this file
    #[arg(long, value_name = "FILE")]
    pub pin_file: Option<PathBuf>,
    /// The PIN is in this variable of the environment
    #[arg(long, value_name = "NAME", conflicts_with = "pin_file")]
    pub pin_env: Option<String>,
    /// Ask for the PIN at the terminal, which is also done when nothing else says where it is and one is needed
    #[arg(long, conflicts_with_all = ["pin_file", "pin_env"])]
    pub pin_prompt: bool,
}

/// A key to make.
#[derive(Args, Debug, PartialEq, Eq)]
pub struct Generate {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub at: At,
    /// What the key is to be called (CKA_LABEL)
    #[arg(long, value_name = "TEXT")]
    pub label: String,
    /// Its identifier (CKA_ID) in hexadecimal; random without
    #[arg(long, value_name = "HEX", value_parser = hex)]
    pub id: Option<Hex>,
    /// What kind of key
    #[arg(long, value_enum, default_value_t = Kind::P256)]
    pub kind: Kind,
}

/// Octets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hex(pub Vec<u8>);

/// A kind of key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs)]
pub enum Kind {
    Rsa2048,
    Rsa3072,
    Rsa4096,
    P256,
    P384,
    P521,
    Ed25519,
}

/// A request to have signed.
#[derive(Args, Debug, PartialEq, Eq)]
pub struct Csr {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub at: At,
    /// The private key
    #[arg(long, value_name = "URI", value_parser = Uri::parse)]
    pub key: Uri,
    /// Whose certificate, for example "C=CH, O=Lab, CN=moon.lab.test"
    #[arg(long, value_name = "NAME", default_value = "")]
    pub subject: String,
    /// Another name: of a host, an address, or an e-mail address. Peers look here, and not at the CN
    #[arg(long = "san", value_name = "NAME")]
    pub names: Vec<String>,
    /// Where the request goes; standard output without
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

/// A certificate to store.
#[derive(Args, Debug, PartialEq, Eq)]
pub struct Import {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub at: At,
    /// The private key it belongs to
    #[arg(long, value_name = "URI", value_parser = Uri::parse)]
    pub key: Uri,
    /// The certificate, PEM or DER
    #[arg(long, value_name = "FILE")]
    pub cert: PathBuf,
}

/// Carries a command out.
pub fn run(pki: &Pki) -> anyhow::Result<()> {
    let token = match pki {
        Pki::Token(token) => &**token,
        Pki::Init(init) => {
            ca::init(init)?;
            let dir = init.folder.dir.display();
            return super::print(&format!(
                "{dir} holds a CA now. {dir}/ca.crt goes to whoever is to believe it; {dir}/ca.key goes to nobody.\n"
            ));
        }
        Pki::Issue(issue) => {
            let issued = ca::issue(issue)?;
            return super::print(&issued_text(&issue.folder, &issued));
        }
        Pki::Renew(renew) => {
            let issued = ca::renew(renew)?;
            return super::print(&issued_text(&renew.folder, &issued));
        }
        Pki::Revoke(revoke) => {
            let serials = ca::revoke(revoke)?.join(", ");
            let list = revoke.folder.dir.join("ca.crl");
            return super::print(&format!(
                "revoked {serials}; {} says so, put it where gateways look\n",
                list.display()
            ));
        }
        Pki::Crl(crl) => {
            let (file, until) = ca::crl(crl)?;
            return super::print(&format!("{}: good until {}\n", file.display(), ca::date(until)));
        }
        Pki::List(folder) => return super::print(&ca::show(folder)?),
        Pki::Export(export) => {
            export::export(export)?;
            let file = export.out.display();
            return super::print(&format!(
                "{file}: certificate, private key and CA; who has the password has the key\n"
            ));
        }
        Pki::Invite(invite) => return super::print(&invite::invite(invite)?),
        Pki::Join(join) => return super::print(&invite::join(join)?),
        Pki::Pins(pins) => return pins::run(pins),
    };
    match token {
        Token::List(at) => list(at),
        Token::Generate(generate) => {
            let desk = generate.at.desk(true)?;
            let id = generate.id.as_ref().map(|id| id.0.clone());
            let uri = desk.generate(generate.kind.spec(), &generate.label, id)?;
            super::print(&format!("{uri}\n"))
        }
        Token::Csr(csr) => request(csr),
        Token::Import(import) => {
            let file = import.cert.display().to_string();
            let bytes = fs::read(&import.cert).with_context(|| format!("cannot read {file}"))?;
            let certificates = secure::load::certificates(&file, &bytes)?;
            let [certificate] = certificates.as_slice() else {
                bail!("{file} has {} certificates; give the one of the key alone", certificates.len());
            };
            let uri = import.at.desk(true)?.import(&certificate.der, &import.key)?;
            super::print(&format!("{uri}\n"))
        }
    }
}

fn issued_text(folder: &ca::Folder, issued: &store::Issued) -> String {
    let file = folder.dir.join("certs").join(store::file_name(&issued.name));
    format!(
        "{0}.crt, {0}.key: serial {1}, until {2}\n",
        file.display(),
        issued.serial,
        ca::date(issued.not_after)
    )
}

impl At {
    /// At the token. A PIN that nothing says anything of is asked for where it is needed.
    fn desk(&self, needs_pin: bool) -> anyhow::Result<Desk> {
        let pin = match (&self.pin_file, &self.pin_env) {
            (Some(file), _) => PinSource::File(file.clone()),
            (None, Some(name)) => PinSource::Env(name.clone()),
            (None, None) if self.token.pin_source.is_some() => PinSource::None,
            (None, None) if needs_pin || self.pin_prompt => PinSource::Prompt,
            (None, None) => PinSource::None,
        };
        let module = std::path::absolute(&self.module)
            .map_err(|error| anyhow!("{}: {error}", self.module.display()))?;
        Ok(Desk::new(&module, self.token.clone(), pin))
    }
}

fn list(at: &At) -> anyhow::Result<()> {
    let log_in =
        at.pin_file.is_some() || at.pin_env.is_some() || at.pin_prompt || at.token.pin_source.is_some();
    let mut text = String::new();
    for token in at.desk(false)?.list(log_in)? {
        text += &format!("{}\n    {}\n", token.uri, token.text);
        if let Some(why) = token.login {
            text += &format!("    not logged in: {why}\n");
        }
        for object in token.objects {
            text += &format!("  {}\n    {}\n", object.uri, object.text);
        }
    }
    super::print(&text)
}

fn request(csr: &Csr) -> anyhow::Result<()> {
    if csr.subject.is_empty() && csr.names.is_empty() {
        bail!("neither --subject nor --san says whose certificate it is to be");
    }
    let mut params = CertificateParams::default();
    params.distinguished_name = subject(&csr.subject)?;
    params.subject_alt_names = csr.names.iter().map(|name| alternative(name)).collect::<Result<_, _>>()?;
    let key = Remote::new(csr.at.desk(true)?.signer(&csr.key)?)?;
    let made = params.serialize_request(&key);
    // What the token said is worth more than that something went wrong.
    let pem = made.map_err(|error| key.trouble().unwrap_or_else(|| error.into()))?.pem()?;
    match &csr.out {
        Some(file) => fs::write(file, pem).with_context(|| format!("cannot write {}", file.display())),
        None => super::print(&pem),
    }
}

/// A key on a token, as whoever writes the request sees it.
struct Remote {
    signer: Signer,
    public: Vec<u8>,
    algorithm: &'static SignatureAlgorithm,
    said: std::cell::RefCell<Option<anyhow::Error>>,
}

impl Remote {
    fn new(signer: Signer) -> anyhow::Result<Remote> {
        let algorithm = match signer.scheme() {
            SignScheme::RsaPkcs1(_) => &rcgen::PKCS_RSA_SHA256,
            SignScheme::EcdsaDer(Curve::P256, _) => &rcgen::PKCS_ECDSA_P256_SHA256,
            SignScheme::EcdsaDer(Curve::P384, _) => &rcgen::PKCS_ECDSA_P384_SHA384,
            SignScheme::EcdsaDer(Curve::P521, _) => &rcgen::PKCS_ECDSA_P521_SHA512,
            SignScheme::Ed25519 => &rcgen::PKCS_ED25519,
            other => bail!("requests are not made with {other:?}"),
        };
        let public = signer.public_key().context("the token's public key makes no sense")?;
        Ok(Remote { signer, public, algorithm, said: None.into() })
    }

    fn trouble(&self) -> Option<anyhow::Error> {
        self.said.take()
    }
}

impl PublicKeyData for Remote {
    fn der_bytes(&self) -> &[u8] {
        &self.public
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.algorithm
    }
}

impl SigningKey for Remote {
    fn sign(&self, octets: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.signer.sign(octets).map_err(|trouble| {
            self.said.replace(Some(trouble.into()));
            rcgen::Error::RemoteKeyError
        })
    }
}

impl Kind {
    fn spec(self) -> KeySpec {
        match self {
            Kind::Rsa2048 => KeySpec::Rsa(2048),
            Kind::Rsa3072 => KeySpec::Rsa(3072),
            Kind::Rsa4096 => KeySpec::Rsa(4096),
            Kind::P256 => KeySpec::Ec(Curve::P256),
            Kind::P384 => KeySpec::Ec(Curve::P384),
            Kind::P521 => KeySpec::Ec(Curve::P521),
            Kind::Ed25519 => KeySpec::Ed25519,
        }
    }
}

/// `C=CH, O=Lab, CN=moon`; a comma in a value is written `\,`.
fn subject(text: &str) -> anyhow::Result<DistinguishedName> {
    let mut name = DistinguishedName::new();
    let (mut parts, mut part, mut escaped) = (Vec::new(), String::new(), false);
    for letter in text.chars() {
        match letter {
            '\\' if !escaped => escaped = true,
            ',' if !escaped => parts.push(std::mem::take(&mut part)),
            letter => {
                escaped = false;
                part.push(letter);
            }
        }
    }
    parts.push(part);
    for part in parts.iter().map(|part| part.trim()).filter(|part| !part.is_empty()) {
        let (kind, value) = part.split_once('=').with_context(|| {
            format!("in the subject `{part}` has no `=`; write for example \"C=CH, O=Lab, CN=moon.lab.test\"")
        })?;
        let kind = match kind.trim() {
            "C" => DnType::CountryName,
            "ST" => DnType::StateOrProvinceName,
            "L" => DnType::LocalityName,
            "O" => DnType::OrganizationName,
            "OU" => DnType::OrganizationalUnitName,
            "CN" => DnType::CommonName,
            other => bail!("in the subject there is no `{other}`; there are C, ST, L, O, OU, CN"),
        };
        name.push(kind, value.trim());
    }
    Ok(name)
}

fn alternative(name: &str) -> anyhow::Result<SanType> {
    // Peers compare with what an identity of IKE may be.
    let text = |name: String| {
        name.as_str().try_into().map_err(|_| anyhow!("`{name}`: only ASCII, in international names as well"))
    };
    Ok(match Identity::parse(name) {
        Ok(Identity::V4(address)) => SanType::IpAddress(address.into()),
        Ok(Identity::V6(address)) => SanType::IpAddress(address.into()),
        Ok(Identity::Email(name)) => SanType::Rfc822Name(text(name)?),
        Ok(Identity::Fqdn(name)) => SanType::DnsName(text(name)?),
        _ => bail!("`{name}` is no name of a host, no address and no e-mail address"),
    })
}

fn hex(text: &str) -> Result<Hex, String> {
    let octets: Option<Vec<u8>> =
        (0..text.len() / 2).map(|n| u8::from_str_radix(text.get(2 * n..2 * n + 2)?, 16).ok()).collect();
    match octets {
        Some(octets) if text.len().is_multiple_of(2) && !octets.is_empty() => Ok(Hex(octets)),
        _ => Err("an even number of hexadecimal digits, at least two".into()),
    }
}
