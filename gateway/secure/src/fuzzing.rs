//! What takes octets of others apart where certificates are concerned, for the fuzzer: certificates, chains, lists, OCSP answers, LDAP
//! conversations, bundles and files. Whatever comes, what it says of them holds, and it comes to an end. Each function says whether
//! there was anything in it.

use std::io::{self, Read, Write};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use spi::cert::Usages;
use spi::{Secret, ShortOps};

use crate::authority::bundle;
use crate::cert::{Cert, MAX_CERT};
use crate::crl::Crl;
use crate::fetch::{self, Url, ldap};
use crate::ocsp::{Answer, MAX_RESPONSE};
use crate::{identity, key, load, path, usage};

/// The moment that counts: 2027-01-01, when the certificates of the seeds are valid.
const AT: Duration = Duration::from_secs(1_798_761_600);
/// Shortest RSA key.
const BITS: usize = 2048;

/// One certificate.
pub fn certificate(der: &[u8]) -> bool {
    let Ok(cert) = Cert::parse(der) else { return false };
    assert!(cert.der == der && der.len() <= MAX_CERT);
    assert!(der.windows(cert.tbs.len()).any(|part| part == cert.tbs), "what was signed is part of it");
    let info = cert.info();
    let _ = (cert.subject_text(), cert.is_self_issued(), cert.is_root(), identity::spoken_for(&info));
    let at = SystemTime::UNIX_EPOCH + AT;
    let valid = usage::check_any(&cert, at, BITS).is_ok();
    assert!(
        !valid || (cert.not_before <= at && at <= cert.not_after && key::inspect(&cert.spki, BITS).is_ok())
    );
    let _ = usage::check_end_entity(&cert, Usages::all());
    assert!(usage::check_authority(&cert, 0).is_err() || cert.ca);
    for name in &cert.dns {
        if let Ok(id) = policy::Identity::parse(name) {
            let _ = identity::covers(&info, &id);
        }
    }
    for url in cert.crl_urls.iter().chain(&cert.ocsp_urls) {
        let _ = Url::parse(url);
    }
    if let Some(constraints) = &cert.constraints {
        let _ = constraints.check(&cert, &cert);
    }
    true
}

/// What a peer sends: certificates, each after its length in two octets. Paths lead from the first of them to one of `anchors`.
pub fn chain(octets: &[u8], anchors: &[&[u8]]) -> bool {
    let anchors: Vec<Arc<Cert>> =
        anchors.iter().filter_map(|der| Cert::parse(der).ok()).map(Arc::new).collect();
    let (mut rest, mut chain) = (octets, Vec::new());
    while let Some((len, after)) = rest.split_first_chunk::<2>()
        && chain.len() < path::MAX_CERTS
    {
        let (der, after) = after.split_at(after.len().min(usize::from(u16::from_be_bytes(*len))));
        rest = after;
        chain.extend(Cert::parse(der).ok().map(Arc::new));
    }
    let at = SystemTime::UNIX_EPOCH + AT;
    let Ok(found) = path::candidates(&chain, &anchors, at, BITS, Usages::all()) else { return false };
    assert!(!found.is_empty());
    for path in found {
        assert!(path.path.len() <= path::MAX_PATH + 1 && path.path.len() == path.links.len() + 1);
        assert!(path.path.first().is_some_and(|end| *end == chain[0].der));
        assert!(path.path.last().is_some_and(|top| anchors.iter().any(|anchor| anchor.der == *top)));
        assert!(path.window.from <= at && at <= path.window.until, "all of it is valid");
        for link in path.links {
            assert_eq!(policy::dn::canonical(&link.cert.issuer), link.issuer.canonical_subject());
            assert!(link.issuer.ca);
        }
    }
    true
}

/// A list of revoked certificates, as a server gives it away.
pub fn list(octets: &[u8]) -> bool {
    let Ok(crl) = fetch::list(octets.to_vec()) else { return false };
    let der = crl.der();
    // A serial number and a date are 20 octets at least: what it takes in memory is bounded by what came.
    assert!(crl.len() * 20 <= der.len());
    assert!(der.windows(crl.tbs().len()).any(|part| part == crl.tbs()));
    for serial in [&[2, 1, 7][..], &[2, 0], &[]] {
        let _ = crl.find(serial).map(|revoked| crate::crl::reason_text(revoked.reason));
    }
    assert_eq!(Crl::parse(der.to_vec()).map(|again| again.len()), Ok(crl.len()));
    true
}

/// An OCSP answer about a certificate and who issued it.
pub fn answer(octets: &[u8], cert: &[u8], issuer: &[u8]) -> bool {
    let (Ok(cert), Ok(issuer)) = (Cert::parse(cert), Cert::parse(issuer)) else { return false };
    let short = short();
    let Ok(answer) = Answer::parse(octets, &cert, &issuer, &**short) else { return false };
    assert!(octets.len() <= MAX_RESPONSE && !answer.tbs.is_empty());
    assert!(octets.windows(answer.tbs.len()).any(|part| part == answer.tbs));
    let _ = answer.is_by(&issuer, &**short);
    let _ = answer.certs.iter().filter(|cert| answer.is_by(cert, &**short)).count();
    true
}

/// Everything that an LDAP server says, and an URL that it is asked by.
pub fn directory(octets: &[u8], url: &str) -> bool {
    const MOST: usize = 4096;
    let Ok(url) = Url::parse(url) else { return false };
    let Ok(wanted) = ldap::Wanted::of(&url) else { return false };
    let until = Instant::now() + Duration::from_secs(600);
    let Ok(value) = ldap::ask(&wanted, Said(octets), until, MOST) else { return false };
    assert!(value.len() <= MOST);
    assert!(value.is_empty() || octets.windows(value.len()).any(|part| part == value));
    true
}

/// Certificates and lists in one (RFC 7296 section 3.6).
pub fn bundles(octets: &[u8]) -> bool {
    let Ok(certs) = bundle(octets) else { return false };
    assert!(!certs.is_empty() && certs.len() <= path::MAX_CERTS);
    assert!(certs.iter().map(|cert| cert.data.len()).sum::<usize>() <= octets.len());
    true
}

/// A file of the configuration, or what somebody else made of one.
pub fn file(octets: &[u8]) -> bool {
    let _ = load::private_key("file", &Secret::from_slice(octets)).is_ok();
    let _ = load::public_key("file", octets).is_ok();
    let lists = load::crls("file", octets).is_ok();
    let Ok(certs) = load::certificates("file", octets) else { return lists };
    assert!(!certs.is_empty() && certs.len() <= load::MAX_CERTS);
    true
}

/// A server that has said everything already.
struct Said<'a>(&'a [u8]);

impl Read for Said<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Said<'_> {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        Ok(octets.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl ldap::Stream for Said<'_> {
    fn allow(&self, _: Duration) -> io::Result<()> {
        Ok(())
    }
}

fn short() -> &'static Arc<dyn ShortOps> {
    static SHORT: OnceLock<Arc<dyn ShortOps>> = OnceLock::new();
    SHORT.get_or_init(|| {
        let drivers = registry::key_drivers(&registry::Config::default());
        let (open, _) = registry::open_all(&drivers);
        open.into_iter().find_map(|open| open.device.short_ops()).expect("software hashes")
    })
}
