//! `tussock pki init`, `issue`, `renew`, `revoke`, `crl`, `list`: a CA small enough to be looked after by one person.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CrlDistributionPoint,
    CustomExtension, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    RevocationReason, RevokedCertParams, SerialNumber,
};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::Kind;
use super::store::{Issued, Revoked, Store, now, replace, secret};

/// id-kp-ipsecIKE (RFC 4945 section 5.1.3.12).
const IPSEC_IKE: [u64; 9] = [1, 3, 6, 1, 5, 5, 7, 3, 17];
const DAY: u64 = 86_400;

/// Which CA.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct Folder {
    /// The CA's folder
    #[arg(long, value_name = "DIR", default_value = "/etc/tussock/pki")]
    pub dir: PathBuf,
}

/// A CA to make.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct Init {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub folder: Folder,
    /// The name in its certificate, for example "C=CH, O=Lab, CN=Lab CA"
    #[arg(long, value_name = "NAME", default_value = "CN=tussock CA")]
    pub subject: String,
    /// How long it is to last
    #[arg(long, value_name = "DAYS", default_value_t = 3650, value_parser = clap::value_parser!(u32).range(1..=36500))]
    pub days: u32,
    /// What kind of key it signs with
    #[arg(long, value_enum, default_value_t = Kind::P256)]
    pub kind: Kind,
    /// Where its list of revoked certificates will be to be had (http or ldap); stands in every certificate
    #[arg(long = "crl-url", value_name = "URL")]
    pub crl_urls: Vec<String>,
    /// An OCSP responder that can be asked about its certificates (http); stands in every certificate
    #[arg(long = "ocsp-url", value_name = "URL")]
    pub ocsp_urls: Vec<String>,
}

/// A certificate to issue.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct Issue {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub folder: Folder,
    /// Whom it is for: the name of a host, an address, or an e-mail address
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Another name
    #[arg(long = "san", value_name = "NAME")]
    pub names: Vec<String>,
    /// It is a person's, not a gateway's
    #[arg(long)]
    pub user: bool,
    /// The subject; CN=NAME without
    #[arg(long, value_name = "NAME")]
    pub subject: Option<String>,
    /// How long it is to last
    #[arg(long, value_name = "DAYS", default_value_t = 397, value_parser = clap::value_parser!(u32).range(1..=36500))]
    pub days: u32,
    /// What kind of key
    #[arg(long, value_enum, default_value_t = Kind::P256)]
    pub kind: Kind,
}

/// A certificate to renew.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct Renew {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub folder: Folder,
    /// Whose
    #[arg(value_name = "NAME")]
    pub name: String,
    /// How long it is to last from now
    #[arg(long, value_name = "DAYS", default_value_t = 397, value_parser = clap::value_parser!(u32).range(1..=36500))]
    pub days: u32,
    /// With a new key of this kind; without, the key stays
    #[arg(long, value_enum)]
    pub new_key: Option<Kind>,
}

/// A certificate to revoke.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct Revoke {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub folder: Folder,
    /// Whose, or the serial number in hexadecimal
    #[arg(value_name = "NAME|SERIAL")]
    pub which: String,
    /// Why
    #[arg(long, value_enum, default_value_t = Reason::Unspecified)]
    pub reason: Reason,
    /// Days until the next list has to be made
    #[arg(long, value_name = "DAYS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=3650))]
    pub days: u32,
}

/// A list to make.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct Crl {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub folder: Folder,
    /// Days until the next list has to be made
    #[arg(long, value_name = "DAYS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=3650))]
    pub days: u32,
    /// Where a copy goes, in DER, for a web server
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

/// Why a certificate is revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs)]
pub enum Reason {
    Unspecified,
    KeyCompromise,
    AffiliationChanged,
    Superseded,
    CessationOfOperation,
    PrivilegeWithdrawn,
}

impl Reason {
    fn code(self) -> RevocationReason {
        match self {
            Reason::Unspecified => RevocationReason::Unspecified,
            Reason::KeyCompromise => RevocationReason::KeyCompromise,
            Reason::AffiliationChanged => RevocationReason::AffiliationChanged,
            Reason::Superseded => RevocationReason::Superseded,
            Reason::CessationOfOperation => RevocationReason::CessationOfOperation,
            Reason::PrivilegeWithdrawn => RevocationReason::PrivilegeWithdrawn,
        }
    }
}

/// Makes a CA.
pub(super) fn init(init: &Init) -> anyhow::Result<Store> {
    for url in init.crl_urls.iter().chain(&init.ocsp_urls) {
        secure::load::url(url).map_err(anyhow::Error::msg)?;
    }
    let mut params = CertificateParams::default();
    params.distinguished_name = super::subject(&init.subject)?;
    if params.distinguished_name.iter().next().is_none() {
        bail!("a CA needs a name; write for example --subject \"CN=Lab CA\"");
    }
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.serial_number = Some(serial()?);
    lasting(&mut params, init.days);
    let key = init.kind.pair()?;
    let cert = params.self_signed(&key)?;
    let mut store = Store::create(&init.folder.dir)?;
    store.index.crl_urls.clone_from(&init.crl_urls);
    store.index.ocsp_urls.clone_from(&init.ocsp_urls);
    // The index last: without it there is no CA.
    replace(&store.path("ca.key"), &Zeroizing::new(key.serialize_pem()).into_bytes_wiped())?;
    replace(&store.path("ca.crt"), cert.pem().as_bytes())?;
    list_revoked(&mut store, 30)?;
    store.save()?;
    Ok(store)
}

/// Issues a certificate with a key of its own.
pub(super) fn issue(issue: &Issue) -> anyhow::Result<Issued> {
    let mut store = Store::open(&issue.folder.dir)?;
    issue_from(&mut store, issue)
}

pub(super) fn issue_from(store: &mut Store, issue: &Issue) -> anyhow::Result<Issued> {
    if let Ok(before) = store.find(&issue.name)
        && before.is_good(now())
    {
        bail!(
            "`{0}` has a certificate already (serial {1}); renew it with `tussock pki renew {0}`, or revoke it first",
            issue.name,
            before.serial
        );
    }
    let key = issue.kind.pair()?;
    let issued = Issued {
        serial: String::new(),
        name: issue.name.clone(),
        names: issue.names.clone(),
        user: issue.user,
        not_after: 0,
        revoked: None,
    };
    certify(store, issued, issue.subject.as_deref(), issue.days, &key, true)
}

/// Issues the certificate of a name again.
pub(super) fn renew(renew: &Renew) -> anyhow::Result<Issued> {
    let mut store = Store::open(&renew.folder.dir)?;
    let before = store.find(&renew.name)?.clone();
    if before.revoked.is_some() {
        bail!("the certificate of `{0}` was revoked; issue another with `tussock pki issue {0}`", renew.name);
    }
    let key = match renew.new_key {
        Some(kind) => kind.pair()?,
        None => KeyPair::from_pem(&secret(&store.key(&renew.name))?)
            .with_context(|| format!("the key of `{}` cannot be used; renew with --new-key", renew.name))?,
    };
    certify(&mut store, before, None, renew.days, &key, renew.new_key.is_some())
}

/// Takes back what was issued and never left this machine.
pub(super) fn withdraw(store: &mut Store, issued: &Issued) -> anyhow::Result<()> {
    store.index.issued.retain(|other| other.serial != issued.serial);
    for path in [store.cert(&issued.name), store.key(&issued.name)] {
        fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
    }
    store.save()
}

fn certify(
    store: &mut Store,
    mut issued: Issued,
    subject: Option<&str>,
    days: u32,
    key: &KeyPair,
    new_key: bool,
) -> anyhow::Result<Issued> {
    let mut params = CertificateParams::default();
    let common = format!("CN={}", issued.name.replace('\\', "\\\\").replace(',', "\\,"));
    params.distinguished_name = super::subject(subject.unwrap_or(&common))?;
    let names = [&issued.name].into_iter().chain(&issued.names);
    params.subject_alt_names = names.map(|name| super::alternative(name)).collect::<Result<_, _>>()?;
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    // Windows and Apple want serverAuth in a gateway's certificate; everybody takes ipsecIKE beside it.
    let tls =
        if issued.user { ExtendedKeyUsagePurpose::ClientAuth } else { ExtendedKeyUsagePurpose::ServerAuth };
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::Other(IPSEC_IKE.to_vec()), tls];
    params.use_authority_key_identifier_extension = true;
    if !store.index.crl_urls.is_empty() {
        params.crl_distribution_points = vec![CrlDistributionPoint { uris: store.index.crl_urls.clone() }];
    }
    params.custom_extensions.extend(authority_info(&store.index.ocsp_urls));
    let serial = serial()?;
    issued.serial = hex(&serial.to_bytes());
    params.serial_number = Some(serial);
    issued.not_after = lasting(&mut params, days);
    let ca = authority(store)?;
    let until = ca.not_after;
    if issued.not_after > until {
        bail!(
            "the CA itself lasts until {} only, {} days from now; give --days, or make a new CA",
            date(until),
            until.saturating_sub(now()) / DAY
        );
    }
    let signer =
        KeyPair::from_pem(&secret(&store.path("ca.key"))?).context("the key of the CA cannot be used")?;
    let issuer = Issuer::from_ca_cert_der(&ca.der.as_slice().into(), signer)?;
    let cert = params.signed_by(key, &issuer)?;
    if new_key {
        replace(&store.key(&issued.name), &Zeroizing::new(key.serialize_pem()).into_bytes_wiped())?;
    }
    replace(&store.cert(&issued.name), cert.pem().as_bytes())?;
    store.index.issued.push(issued.clone());
    store.save()?;
    Ok(issued)
}

/// Revokes a certificate and makes the list anew.
pub(super) fn revoke(revoke: &Revoke) -> anyhow::Result<Vec<String>> {
    let mut store = Store::open(&revoke.folder.dir)?;
    let wanted = revoke.which.to_ascii_lowercase();
    let at = now();
    let (mut known, mut serials) = (false, Vec::new());
    // All that is out under a name: after a renewal there are two.
    for issued in store.index.issued.iter_mut().filter(|i| i.name == revoke.which || i.serial == wanted) {
        known = true;
        if issued.revoked.is_none() {
            issued.revoked = Some(Revoked { at, reason: revoke.reason });
            serials.push(issued.serial.clone());
        }
    }
    if !known {
        // For its error, which says what there is.
        store.find(&revoke.which)?;
    }
    if serials.is_empty() {
        bail!("`{}` was revoked already", revoke.which);
    }
    list_revoked(&mut store, revoke.days)?;
    Ok(serials)
}

/// Makes the list anew.
pub(super) fn crl(crl: &Crl) -> anyhow::Result<(PathBuf, u64)> {
    let mut store = Store::open(&crl.folder.dir)?;
    let (der, until) = list_revoked(&mut store, crl.days)?;
    if let Some(out) = &crl.out {
        fs::write(out, der).with_context(|| format!("cannot write {}", out.display()))?;
        return Ok((out.clone(), until));
    }
    Ok((store.path("ca.crl"), until))
}

/// The CA's certificate, while it is good for anything.
fn authority(store: &Store) -> anyhow::Result<Certificate> {
    let ca = certificate(&store.path("ca.crt"))?;
    if ca.not_after < now() {
        bail!(
            "the CA expired on {}, and nobody believes what it signs now; make a new one in another folder with `tussock pki init`",
            date(ca.not_after)
        );
    }
    Ok(ca)
}

/// The list, and until when it is good.
fn list_revoked(store: &mut Store, days: u32) -> anyhow::Result<(Vec<u8>, u64)> {
    let signer =
        KeyPair::from_pem(&secret(&store.path("ca.key"))?).context("the key of the CA cannot be used")?;
    let ca = authority(store)?;
    let issuer = Issuer::from_ca_cert_der(&ca.der.as_slice().into(), signer)?;
    let at = now();
    let until = at + u64::from(days) * DAY;
    store.index.crl_number += 1;
    let mut revoked = Vec::new();
    for issued in &store.index.issued {
        // RFC 5280 section 3.3: on one list after it expired, too; a day is more than any clock is wrong.
        if let Some(why) = issued.revoked.as_ref().filter(|_| issued.not_after + DAY * 31 > at) {
            revoked.push(RevokedCertParams {
                serial_number: SerialNumber::from(unhex(&issued.serial)?),
                revocation_time: moment(why.at),
                reason_code: Some(why.reason.code())
                    .filter(|reason| *reason != RevocationReason::Unspecified),
                invalidity_date: None,
            });
        }
    }
    let params = CertificateRevocationListParams {
        this_update: moment(at),
        next_update: moment(until),
        crl_number: SerialNumber::from(store.index.crl_number),
        issuing_distribution_point: None,
        revoked_certs: revoked,
        key_identifier_method: KeyIdMethod::Sha256,
    };
    let list = params.signed_by(&issuer)?;
    // The index first: a number that is used twice would let an old list pass for the new one.
    store.save()?;
    replace(&store.path("ca.crl"), list.pem()?.as_bytes())?;
    Ok((list.der().to_vec(), until))
}

/// What was issued, one a line.
pub(super) fn show(folder: &Folder) -> anyhow::Result<String> {
    let store = Store::open(&folder.dir)?;
    let at = now();
    let mut text = String::new();
    for issued in &store.index.issued {
        let state = match &issued.revoked {
            Some(why) => format!(
                "revoked {} ({})",
                date(why.at),
                why.reason.to_possible_value().map_or_else(String::new, |v| v.get_name().to_owned())
            ),
            None if at > issued.not_after => format!("expired {}", date(issued.not_after)),
            None => format!("good until {}", date(issued.not_after)),
        };
        text += &format!("{}  {}  {state}\n", issued.serial, issued.name);
    }
    if text.is_empty() {
        Ok("nothing was issued yet; `tussock pki issue NAME` does\n".into())
    } else {
        Ok(text)
    }
}

/// A certificate of a file.
pub(super) struct Certificate {
    pub(super) der: Vec<u8>,
    pub(super) not_after: u64,
}

pub(super) fn certificate(path: &Path) -> anyhow::Result<Certificate> {
    let file = path.display().to_string();
    let bytes = fs::read(path).with_context(|| format!("cannot read {file}"))?;
    let certificates = secure::load::certificates(&file, &bytes)?;
    let first = certificates.into_iter().next().with_context(|| format!("no certificate in {file}"))?;
    let not_after = secure::load::not_after(&first)?;
    Ok(Certificate { not_after, der: first.der })
}

impl Kind {
    /// A new key of this kind.
    pub(super) fn pair(self) -> anyhow::Result<KeyPair> {
        use rcgen::RsaKeySize;
        Ok(match self {
            Kind::Rsa2048 => KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048)?,
            Kind::Rsa3072 => KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_3072)?,
            Kind::Rsa4096 => KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_4096)?,
            Kind::P256 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?,
            Kind::P384 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384)?,
            Kind::P521 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P521_SHA512)?,
            Kind::Ed25519 => KeyPair::generate_for(&rcgen::PKCS_ED25519)?,
        })
    }
}

/// A PEM text as octets that are wiped.
trait IntoWiped {
    fn into_bytes_wiped(self) -> Zeroizing<Vec<u8>>;
}

impl IntoWiped for Zeroizing<String> {
    fn into_bytes_wiped(self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(self.as_bytes().to_vec())
    }
}

/// From an hour ago, since clocks differ, for so many days; the end in seconds since 1970.
fn lasting(params: &mut CertificateParams, days: u32) -> u64 {
    let end = now() + u64::from(days) * DAY;
    params.not_before = moment(now() - 3600);
    params.not_after = moment(end);
    end
}

fn moment(seconds: u64) -> time::OffsetDateTime {
    rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds)
}

/// 128 random bits, positive (RFC 5280 section 4.1.2.2).
fn serial() -> anyhow::Result<SerialNumber> {
    let mut octets = [0; 16];
    fs::File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut octets))
        .context("no random octets")?;
    octets[0] = octets[0] & 0x7f | 0x40;
    Ok(SerialNumber::from(octets.to_vec()))
}

/// AuthorityInfoAccess with OCSP responders (RFC 5280 section 4.2.2.1).
fn authority_info(urls: &[String]) -> Option<CustomExtension> {
    let tlv = |tag: u8, value: &[u8]| -> Option<Vec<u8>> {
        let len = match value.len() {
            short @ 0..0x80 => vec![u8::try_from(short).ok()?],
            long => [vec![0x82], u16::try_from(long).ok()?.to_be_bytes().to_vec()].concat(),
        };
        // The shortest form there is, as DER wants it.
        let len = if (0x80..0x100).contains(&value.len()) {
            vec![0x81, u8::try_from(value.len()).ok()?]
        } else {
            len
        };
        Some([vec![tag], len, value.to_vec()].concat())
    };
    const AD_OCSP: [u8; 10] = [0x06, 0x08, 0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x30, 0x01];
    let one = |url: &String| tlv(0x30, &[AD_OCSP.to_vec(), tlv(0x86, url.as_bytes())?].concat());
    let all: Option<Vec<Vec<u8>>> = urls.iter().map(one).collect();
    let content = tlv(0x30, &all.filter(|all| !all.is_empty())?.concat())?;
    Some(CustomExtension::from_oid_content(&[1, 3, 6, 1, 5, 5, 7, 1, 1], content))
}

fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

fn unhex(text: &str) -> anyhow::Result<Vec<u8>> {
    super::hex(text)
        .map(|hex| hex.0)
        .map_err(|_| anyhow::anyhow!("the serial number `{text}` in the index makes no sense"))
}

/// A day, for people.
pub(super) fn date(seconds: u64) -> String {
    let at = moment(seconds);
    format!("{}-{:02}-{:02}", at.year(), u8::from(at.month()), at.day())
}
