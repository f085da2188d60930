//! Name constraints (RFC 5280 sections 4.2.1.10 and 6.1.4 b, c, g): which names a CA may vouch for. Processed are host names, mail
//! addresses, IP addresses and directory names; a CA with constraints of another kind is refused, and so is a certificate below a
//! constrained CA whose names are of a kind that nobody looks at.

use std::net::IpAddr;

use policy::dn;
use spi::cert::CertError;
use x509_cert::der::Encode;
use x509_cert::ext::pkix::NameConstraints;
use x509_cert::ext::pkix::name::GeneralName;

use crate::cert::Cert;

/// Subtrees in one certificate.
const MAX_SUBTREES: usize = 256;

/// What one CA is limited to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Constraints {
    permitted: Vec<Subtree>,
    excluded: Vec<Subtree>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Subtree {
    /// In lower case; with a dot in front names below it only, which the RFC has for URIs and the field for hosts as well.
    Host(String),
    Mail(String),
    Net(IpAddr, IpAddr),
    /// In canonical form, of which that of a name above is the beginning.
    Directory(Vec<u8>),
}

/// A name that a certificate has.
enum Name<'a> {
    Host(&'a str),
    Mail(&'a str),
    Address(IpAddr),
    Directory(Vec<u8>),
}

impl Constraints {
    /// Takes the extension apart.
    ///
    /// # Errors
    /// What is not supported, to be said after "has".
    pub(crate) fn new(extension: &NameConstraints) -> Result<Self, String> {
        let read = |list: &Option<Vec<_>>| -> Result<Vec<Subtree>, String> {
            let list = list.as_deref().unwrap_or_default();
            if list.len() > MAX_SUBTREES {
                return Err(format!("more than {MAX_SUBTREES} name constraints"));
            }
            list.iter().map(subtree).collect()
        };
        Ok(Constraints {
            permitted: read(&extension.permitted_subtrees)?,
            excluded: read(&extension.excluded_subtrees)?,
        })
    }

    /// Whether a certificate below the CA may have the names that it has.
    ///
    /// # Errors
    /// Which name is outside.
    pub(crate) fn check(&self, cert: &Cert, by: &Cert) -> Result<(), CertError> {
        let refuse = |what: String| {
            Err(CertError::WrongUsage(format!(
                "{} may not vouch for {what} in the certificate of {} (name constraints)",
                by.subject_text(),
                cert.subject_text()
            )))
        };
        if cert.other_names {
            return refuse("names of a kind that is not supported".into());
        }
        let mut names: Vec<Name<'_>> = cert.dns.iter().map(|name| Name::Host(name)).collect();
        names.extend(cert.email.iter().map(|name| Name::Mail(name)));
        names.extend(cert.addresses.iter().map(|address| Name::Address(*address)));
        match dn::check(&cert.subject) {
            Ok(()) if cert.canonical_subject().is_empty() => {}
            Ok(()) => names.push(Name::Directory(cert.canonical_subject().to_vec())),
            Err(_) => return refuse("a subject that does not parse".into()),
        }
        for name in &names {
            let of_kind = |tree: &&Subtree| tree.is_about(name);
            let mut permitted = self.permitted.iter().filter(of_kind).peekable();
            let outside = permitted.peek().is_some() && !permitted.any(|tree| tree.holds(name));
            if outside || self.excluded.iter().any(|tree| tree.holds(name)) {
                return refuse(name.text(cert));
            }
        }
        Ok(())
    }
}

impl Subtree {
    fn is_about(&self, name: &Name<'_>) -> bool {
        matches!(
            (self, name),
            (Subtree::Host(_), Name::Host(_))
                | (Subtree::Mail(_), Name::Mail(_))
                | (Subtree::Net(..), Name::Address(_))
                | (Subtree::Directory(_), Name::Directory(_))
        )
    }

    fn holds(&self, name: &Name<'_>) -> bool {
        match (self, name) {
            (Subtree::Host(tree), Name::Host(name)) => below(&name.to_ascii_lowercase(), tree),
            (Subtree::Mail(tree), Name::Mail(name)) => {
                let Some((local, host)) = name.rsplit_once('@') else { return false };
                let host = host.to_ascii_lowercase();
                match tree.rsplit_once('@') {
                    // One mailbox: its local part is compared as it is (RFC 5321 section 2.4).
                    Some((mailbox, at)) => mailbox == local && at == host,
                    None if tree.starts_with('.') => host.ends_with(tree.as_str()),
                    None => host == *tree,
                }
            }
            (Subtree::Net(net, mask), Name::Address(address)) => match (net, mask, address) {
                (IpAddr::V4(n), IpAddr::V4(m), IpAddr::V4(a)) => {
                    a.to_bits() & m.to_bits() == n.to_bits() & m.to_bits()
                }
                (IpAddr::V6(n), IpAddr::V6(m), IpAddr::V6(a)) => {
                    a.to_bits() & m.to_bits() == n.to_bits() & m.to_bits()
                }
                _ => false,
            },
            (Subtree::Directory(tree), Name::Directory(name)) => name.starts_with(tree),
            _ => false,
        }
    }
}

impl Name<'_> {
    fn text(&self, cert: &Cert) -> String {
        let text = match self {
            Name::Host(name) | Name::Mail(name) => (*name).to_owned(),
            Name::Address(address) => address.to_string(),
            Name::Directory(_) => dn::to_text(&cert.subject),
        };
        format!("`{}`", text.chars().filter(|c| !c.is_control()).take(255).collect::<String>())
    }
}

/// A host name and all below it; an empty constraint is about every name.
fn below(name: &str, tree: &str) -> bool {
    match tree.strip_prefix('.') {
        _ if tree.is_empty() => true,
        Some(_) => name.ends_with(tree) && name.len() > tree.len(),
        None => name.strip_suffix(tree).is_some_and(|rest| rest.is_empty() || rest.ends_with('.')),
    }
}

fn subtree(subtree: &x509_cert::ext::pkix::constraints::name::GeneralSubtree) -> Result<Subtree, String> {
    let unknown = || Err("name constraints of a kind that is not supported".to_owned());
    // RFC 5280 section 4.2.1.10: minimum is zero and there is no maximum.
    if subtree.minimum != 0 || subtree.maximum.is_some() {
        return unknown();
    }
    match &subtree.base {
        GeneralName::DnsName(name) => Ok(Subtree::Host(name.as_str().to_ascii_lowercase())),
        GeneralName::Rfc822Name(name) => Ok(Subtree::Mail(match name.as_str().rsplit_once('@') {
            Some((local, host)) => format!("{local}@{}", host.to_ascii_lowercase()),
            None => name.as_str().to_ascii_lowercase(),
        })),
        GeneralName::IpAddress(octets) => {
            let octets = octets.as_bytes();
            if let Ok(both) = <[u8; 8]>::try_from(octets) {
                let [a, b, c, d, mask @ ..] = both;
                Ok(Subtree::Net([a, b, c, d].into(), mask.into()))
            } else if let Ok(both) = <[u8; 32]>::try_from(octets) {
                let (mut net, mut mask) = ([0; 16], [0; 16]);
                net.copy_from_slice(&both[..16]);
                mask.copy_from_slice(&both[16..]);
                Ok(Subtree::Net(net.into(), mask.into()))
            } else {
                unknown()
            }
        }
        GeneralName::DirectoryName(name) => match name.to_der() {
            Ok(der) if dn::check(&der).is_ok() => Ok(Subtree::Directory(dn::canonical(&der))),
            _ => unknown(),
        },
        _ => unknown(),
    }
}
