//! What a realm asks of the subject of a peer's certificate: a set of relative distinguished names that has to be in it, in
//! whatever order and whatever else is there.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{Hash, Hasher};

use serde::{Deserialize, Serialize};

use crate::dn::{self, DnError};

/// One attribute: its type, and its value folded for comparing.
type Attribute = (Vec<u8>, Vec<u8>);

/// RDNs that a subject has to have. `OU=Sales, O=Example` is in `C=CH, O=example, OU=Sales, CN=carol`. Attributes joined by `+` have
/// to be in one RDN of the subject; what else that RDN has does not matter.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RdnSet {
    /// Each sorted, all sorted, none twice.
    rdns: Vec<Vec<Attribute>>,
    /// As it is shown.
    der: Vec<u8>,
}

impl RdnSet {
    /// Reads what [`dn::parse`] reads.
    ///
    /// # Errors
    /// [`DnError`] naming the part at fault; nothing at all is none.
    pub fn parse(text: &str) -> Result<Self, DnError> {
        let der = dn::parse(text.trim())?;
        let mut rdns = folded(&der)?;
        if rdns.is_empty() {
            return Err(DnError::NoAttribute(text.trim().into()));
        }
        rdns.sort();
        rdns.dedup();
        Ok(RdnSet { rdns, der })
    }

    /// Whether all of it is in the subject, which is the DER of a name. Letter case, runs of spaces and the string type do not
    /// count (RFC 5280 section 7.1, RFC 4518).
    pub fn is_in(&self, subject: &[u8]) -> bool {
        let Ok(subject) = folded(subject) else { return false };
        self.rdns
            .iter()
            .all(|wanted| subject.iter().any(|rdn| wanted.iter().all(|attribute| rdn.contains(attribute))))
    }

    /// How many attributes it has.
    pub fn attributes(&self) -> u32 {
        self.rdns.iter().map(Vec::len).sum::<usize>() as u32
    }

    /// Whether a subject that has both is likely: none of the attribute types that both name has other values in one than in the
    /// other. Two organisational units are taken for two roles, although a certificate can be made that has both.
    pub fn goes_with(&self, other: &Self) -> bool {
        let (a, b) = (self.by_type(), other.by_type());
        a.iter().all(|(kind, values)| b.get(kind).is_none_or(|others| others == values))
    }

    fn by_type(&self) -> BTreeMap<&[u8], Vec<&[u8]>> {
        let mut all: BTreeMap<&[u8], Vec<&[u8]>> = BTreeMap::new();
        for (kind, value) in self.rdns.iter().flatten() {
            all.entry(kind).or_default().push(value);
        }
        for values in all.values_mut() {
            values.sort_unstable();
            values.dedup();
        }
        all
    }
}

fn folded(der: &[u8]) -> Result<Vec<Vec<Attribute>>, DnError> {
    let mut rdns = dn::folded(der)?;
    for rdn in &mut rdns {
        rdn.sort();
        rdn.dedup();
    }
    Ok(rdns)
}

impl PartialEq for RdnSet {
    fn eq(&self, other: &Self) -> bool {
        self.rdns == other.rdns
    }
}

impl Eq for RdnSet {}

impl Hash for RdnSet {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.rdns.hash(state);
    }
}

impl fmt::Display for RdnSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&dn::to_text(&self.der))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(text: &str) -> RdnSet {
        RdnSet::parse(text).unwrap()
    }

    #[test]
    fn a_set_is_in_a_subject_whatever_the_order_the_case_and_the_rest() {
        for (wanted, subject, expected) in [
            ("OU=Sales,O=Example", "C=CH, O=Example, OU=Sales, CN=carol", true),
            ("O=Example, OU=Sales", "OU=Sales, O=Example", true),
            ("ou=SALES", "C=CH, O=Example, OU=sales, CN=carol", true),
            ("OU=North  Sales", "OU= north sales", true),
            ("OU=Sales", "OU=Tech, OU=Sales", true),
            ("OU=Sales", "OU=Sales Support", false),
            ("OU=Sales", "O=Sales", false),
            ("OU=Sales,O=Example", "OU=Sales", false),
            ("OU=Sales,O=Example", "O=Example, OU=Sales+CN=carol", true),
            ("OU=Sales+CN=carol", "O=Example, OU=Sales+CN=carol+E=c@x.test", true),
            ("OU=Sales+CN=carol", "O=Example, OU=Sales, CN=carol", false),
            ("DC=lab, DC=test", "DC=test, DC=lab, CN=x", true),
            ("OU=ZÜRICH", "OU=Zürich", true),
            ("CN=a\\,b", "CN=a\\,b", true),
        ] {
            assert_eq!(set(wanted).is_in(&dn::parse(subject).unwrap()), expected, "{wanted} in {subject}");
        }
    }

    #[test]
    fn what_is_no_name_holds_nothing_and_is_no_set() {
        assert!(!set("CN=a").is_in(&[0x30, 0x80]));
        assert!(!set("CN=a").is_in(&[]));
        for wrong in ["", "Sales", "XX=Sales", "OU="] {
            assert!(RdnSet::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn invisible_characters_do_not_make_another_name() {
        let soft_hyphen = dn::parse("OU=Sa\u{ad}les\u{200b}").unwrap();
        assert!(set("OU=Sales").is_in(&soft_hyphen));
        // A Latin and a Cyrillic letter that look alike are two.
        assert!(!set("OU=Sales").is_in(&dn::parse("OU=S\u{430}les").unwrap()));
    }

    #[test]
    fn roles_of_one_attribute_exclude_each_other_and_others_may_meet() {
        for (a, b, both) in [
            ("OU=Sales", "OU=Tech", false),
            ("OU=Sales", "O=Example", true),
            ("OU=Sales, O=Example", "OU=Tech, O=Example", false),
            ("OU=Sales, O=Example", "L=Bern, O=Example", true),
            ("OU=Sales", "ou=sales", true),
            ("OU=a, OU=b", "OU=a, OU=c", false),
        ] {
            assert_eq!(set(a).goes_with(&set(b)), both, "{a} and {b}");
            assert_eq!(set(b).goes_with(&set(a)), both, "{b} and {a}");
        }
        assert_eq!(set("OU=Sales, O=x, ou=sales").attributes(), 2);
        assert_eq!(set("O=x, OU=Sales"), set("OU=sales, O=X"));
    }
}
