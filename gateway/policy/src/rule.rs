//! Which peers belong to a realm: rules about what a peer proves of itself, and how narrow each is.

use std::fmt;

use serde::{Deserialize, Serialize};
use spi::cert::CertInfo;
use thiserror::Error;

use crate::dn::DnError;
use crate::id::{IdError, IdMatch, Identity};
use crate::rdn::RdnSet;
use crate::realm::AuthPolicy;

/// What rules begin with that are not about the ID payload, and what they are about.
const WORDS: [(&str, &str); 4] = [
    ("subject", "the subject of a certificate"),
    ("san", "a certificate's alternative names"),
    ("eap", "the EAP identity"),
    ("group", "a group"),
];

/// Rules of one realm, at most.
pub const MAX_RULES: usize = 64;

/// What is known of a peer, by which its realm is found.
#[derive(Clone, Copy, Debug)]
pub struct Claims<'a> {
    /// The identity of its ID payload; of a client that has passed EAP the one it stands for.
    pub id: &'a Identity,
    /// Whom it asked for, as initiator (RFC 7296 section 2.9.2).
    pub asked: Option<&'a Identity>,
    /// How it proves itself. EAP as soon as its first message has no AUTH payload.
    pub proof: AuthPolicy,
    /// What its certificate says.
    pub cert: Option<&'a CertInfo>,
    /// Its EAP identity.
    pub eap: Option<&'a str>,
    /// Groups that an AAA server put it in.
    pub groups: &'a [String],
    /// Whether what is not known yet may still turn up. Rules about that hold then, as far as the proof is one that brings it:
    /// a certificate comes with a signature, groups with EAP.
    pub open: bool,
}

impl<'a> Claims<'a> {
    /// An identity and how it is proved, and nothing else.
    pub fn of(id: &'a Identity, proof: AuthPolicy) -> Self {
        Claims { id, asked: None, proof, cert: None, eap: None, groups: &[], open: false }
    }
}

/// How narrow a rule is: its kind first, then how much it fixes. Greater goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank(Kind, u32);

/// From the widest to the narrowest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Anybody,
    Pattern,
    EapPattern,
    AlternativeName,
    Subject,
    Group,
    EapUser,
    Identity,
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Rule {
    /// About the identity of the ID payload.
    Id(IdMatch),
    /// The subject of the peer's certificate has all of these (written `subject: OU=Sales, O=Example`).
    Subject(RdnSet),
    /// A DNS name or mail address among the alternative names of its certificate (written `san: *.sales.example`). Never
    /// [`IdMatch::Any`].
    AlternativeName(IdMatch),
    /// Its EAP identity (written `eap: *@sales.example`, `eap: sales-*` or `eap: carol`).
    Eap(EapPattern),
    /// A group that an AAA server put it in (written `group: sales`).
    Group(String),
}

/// Which EAP identities.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum EapPattern {
    /// This one.
    User(String),
    /// Those that begin so.
    Prefix(String),
    /// Those that end so.
    Suffix(String),
}

/// Why a text is no rule.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RuleError {
    /// Not an identity or pattern.
    #[error(transparent)]
    Id(#[from] IdError),
    /// Nothing that could be a rule.
    #[error(
        "`{0}` is no rule: write a name, `*.` or `*@` with a domain, an address or network, a distinguished name, `any`, or what stands \
         after `subject:`, `san:`, `eap:` or `group:`"
    )]
    NoRule(String),
    /// A network whose length is none.
    #[error("`{0}` is not a network: behind the `/` stands how many bits of the address are fixed")]
    NoNetwork(String),
    /// A `*` that is not at the beginning of a domain.
    #[error("`{0}`: a `*` stands before a domain only, as in `*.lab.test` and `*@lab.test`")]
    Wildcard(String),
    /// A distinguished name with a `*` for a value.
    #[error(
        "`{0}`: a distinguished name is one name, without wildcards; `subject:` with a part of it holds for all that have that part"
    )]
    WildName(String),
    /// A word without its colon, or in large letters.
    #[error("`{0}`: if this is to be a rule about {2}, it begins with `{1}:`")]
    Word(String, &'static str, &'static str),
    /// Not a set of RDNs.
    #[error(transparent)]
    Subject(#[from] DnError),
    /// Neither a name nor an address with a mailbox.
    #[error("`san: {0}`: write a domain name or mail address, or `*.` or `*@` with the domain they end in")]
    NoName(String),
    /// A `*` where it means nothing.
    #[error("`{0}`: a `*` may stand at the beginning or at the end, and nowhere else")]
    Star(String),
    /// Nothing after the colon.
    #[error("nothing stands after `{0}:`")]
    Empty(&'static str),
    /// More than [`MAX_RULES`].
    #[error("more than {MAX_RULES} rules")]
    TooMany,
}

impl Rule {
    /// Reads what the variants show, and what [`IdMatch::parse`] reads.
    ///
    /// # Errors
    /// [`RuleError`].
    pub fn parse(text: &str) -> Result<Self, RuleError> {
        let text = text.trim();
        // The words are none an identity starts with: a colon is in IPv6 addresses and key IDs only.
        let Some((word, rest)) = text.split_once(':') else { return Rule::about_id(text) };
        let rest = rest.trim();
        let some = |word| if rest.is_empty() { Err(RuleError::Empty(word)) } else { Ok(rest) };
        match word.trim_end() {
            "subject" => Ok(Rule::Subject(RdnSet::parse(some("subject")?)?)),
            "san" => match IdMatch::parse(some("san")?)? {
                name @ (IdMatch::Exact(Identity::Fqdn(_) | Identity::Email(_))
                | IdMatch::FqdnSuffix(_)
                | IdMatch::EmailSuffix(_)) => Ok(Rule::AlternativeName(name)),
                _ => Err(RuleError::NoName(rest.into())),
            },
            "eap" => Ok(Rule::Eap(EapPattern::parse(some("eap")?)?)),
            "group" => Ok(Rule::Group(some("group")?.into())),
            _ => Rule::about_id(text),
        }
    }

    /// What is about the ID payload, or about nothing, and then what was meant.
    fn about_id(text: &str) -> Result<Self, RuleError> {
        let pattern = match IdMatch::parse(text) {
            Ok(pattern) => pattern,
            Err(error @ (IdError::BadName(_) | IdError::BadDn(_))) => {
                let begins = text.split([':', ' ', '=']).next().unwrap_or_default();
                let word = WORDS.iter().find(|(word, _)| begins.eq_ignore_ascii_case(word));
                return Err(match (word, error) {
                    (Some((word, about)), _) => RuleError::Word(text.into(), word, about),
                    (None, IdError::BadDn(error)) => RuleError::Subject(error),
                    _ if text.contains('*') => RuleError::Wildcard(text.into()),
                    _ if text.contains('/') => RuleError::NoNetwork(text.into()),
                    _ => RuleError::NoRule(text.into()),
                });
            }
            Err(error) => return Err(error.into()),
        };
        let is_name = matches!(pattern, IdMatch::Exact(Identity::Dn(_)));
        if is_name && text.split(',').any(|part| part.trim_end().ends_with("=*")) {
            return Err(RuleError::WildName(text.into()));
        }
        Ok(Rule::Id(pattern))
    }

    /// How narrow it is for such a peer; `None` when the peer does not fit.
    pub fn rank(&self, claims: &Claims<'_>) -> Option<Rank> {
        let by_cert = claims.proof == AuthPolicy::Pubkey && claims.open && claims.cert.is_none();
        let by_eap = claims.proof == AuthPolicy::Eap && claims.open && claims.eap.is_none();
        let fits = match self {
            Rule::Id(pattern) => pattern.matches(claims.id),
            Rule::Subject(set) => by_cert || claims.cert.is_some_and(|cert| set.is_in(&cert.subject)),
            Rule::AlternativeName(pattern) => by_cert || claims.cert.is_some_and(|cert| named(pattern, cert)),
            Rule::Eap(pattern) => by_eap || claims.eap.is_some_and(|user| pattern.matches(user)),
            Rule::Group(group) => by_eap || claims.groups.contains(group),
        };
        fits.then(|| self.narrowness())
    }

    /// The rank of a peer that fits.
    fn narrowness(&self) -> Rank {
        match self {
            Rule::Id(IdMatch::Any) => Rank(Kind::Anybody, 0),
            Rule::Id(IdMatch::Exact(_)) => Rank(Kind::Identity, 0),
            Rule::Id(pattern) => Rank(Kind::Pattern, pattern.specificity()),
            Rule::Subject(set) => Rank(Kind::Subject, set.attributes()),
            Rule::AlternativeName(pattern) => Rank(Kind::AlternativeName, pattern.specificity()),
            Rule::Eap(EapPattern::User(_)) => Rank(Kind::EapUser, 0),
            Rule::Eap(EapPattern::Prefix(part) | EapPattern::Suffix(part)) => {
                Rank(Kind::EapPattern, part.len() as u32)
            }
            Rule::Group(_) => Rank(Kind::Group, 0),
        }
    }

    /// Whether a peer may fit both and neither is narrower. Two groups, two alternative names and two values of one attribute are
    /// taken to be of two peers.
    pub fn ties(&self, other: &Self) -> bool {
        let may_both = match (self, other) {
            (Rule::Id(a), Rule::Id(b)) | (Rule::AlternativeName(a), Rule::AlternativeName(b)) => {
                a.overlaps(b)
            }
            (Rule::Subject(a), Rule::Subject(b)) => a.goes_with(b),
            (Rule::Eap(a), Rule::Eap(b)) => a.overlaps(b),
            (Rule::Group(a), Rule::Group(b)) => a == b,
            _ => false,
        };
        may_both && self.narrowness() == other.narrowness()
    }
}

fn named(pattern: &IdMatch, cert: &CertInfo) -> bool {
    // A name with a wildcard in it is no identity, and so fits nothing.
    let fits = |name: &String| Identity::parse(name).is_ok_and(|name| pattern.matches(&name));
    cert.dns.iter().any(fits) || cert.email.iter().any(fits)
}

impl EapPattern {
    fn parse(text: &str) -> Result<Self, RuleError> {
        let part = text.trim_matches('*');
        if part.contains('*') || text.len() > part.len() + 1 {
            return Err(RuleError::Star(text.into()));
        }
        Ok(match (text.starts_with('*'), text.ends_with('*')) {
            // Of one character both are true.
            (true, _) => EapPattern::Suffix(part.into()),
            (_, true) => EapPattern::Prefix(part.into()),
            _ => EapPattern::User(part.into()),
        })
    }

    /// The realm of an NAI (RFC 7542 section 2.4), behind the last `@`, compares without regard to case; users do not.
    fn matches(&self, user: &str) -> bool {
        let user = folded(user);
        match self {
            EapPattern::User(whole) => user == folded(whole),
            EapPattern::Prefix(part) => user.starts_with(&folded(part)),
            EapPattern::Suffix(part) if part.contains('@') => user.ends_with(&folded(part)),
            EapPattern::Suffix(part) => match user.rsplit_once('@') {
                Some((_, realm)) if realm.len() >= part.len() => realm.ends_with(&part.to_ascii_lowercase()),
                _ => user.ends_with(part),
            },
        }
    }

    fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (EapPattern::User(user), pattern) | (pattern, EapPattern::User(user)) => pattern.matches(user),
            (EapPattern::Prefix(a), EapPattern::Prefix(b)) => a.starts_with(b) || b.starts_with(a),
            (EapPattern::Suffix(a), EapPattern::Suffix(b)) => {
                let (a, b) = (a.to_ascii_lowercase(), b.to_ascii_lowercase());
                a.ends_with(&b) || b.ends_with(&a)
            }
            // One user may begin so and end so.
            _ => true,
        }
    }
}

fn folded(user: &str) -> String {
    match user.rsplit_once('@') {
        Some((name, realm)) => format!("{name}@{}", realm.to_ascii_lowercase()),
        None => user.into(),
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rule::Id(pattern) => pattern.fmt(f),
            Rule::Subject(set) => write!(f, "subject: {set}"),
            Rule::AlternativeName(pattern) => write!(f, "san: {pattern}"),
            Rule::Eap(EapPattern::User(user)) => write!(f, "eap: {user}"),
            Rule::Eap(EapPattern::Prefix(part)) => write!(f, "eap: {part}*"),
            Rule::Eap(EapPattern::Suffix(part)) => write!(f, "eap: *{part}"),
            Rule::Group(group) => write!(f, "group: {group}"),
        }
    }
}

/// The peers of a realm: those that fit at least one of its rules.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Peers(Vec<Rule>);

impl Peers {
    /// Peers that fit one of these.
    pub fn new(rules: Vec<Rule>) -> Self {
        Peers(rules)
    }

    /// Everybody who proves to be somebody.
    pub fn any() -> Self {
        IdMatch::Any.into()
    }

    /// Reads rules.
    ///
    /// # Errors
    /// [`RuleError`] of the first that is none.
    pub fn parse<'a>(rules: impl IntoIterator<Item = &'a str>) -> Result<Self, RuleError> {
        let rules: Vec<Rule> = rules.into_iter().map(Rule::parse).collect::<Result<_, _>>()?;
        if rules.len() > MAX_RULES { Err(RuleError::TooMany) } else { Ok(Peers(rules)) }
    }

    /// The rules.
    pub fn rules(&self) -> &[Rule] {
        &self.0
    }

    /// The one identity there is, if no other fits.
    pub fn the_one(&self) -> Option<&Identity> {
        match &self.0[..] {
            [Rule::Id(IdMatch::Exact(id))] => Some(id),
            _ => None,
        }
    }

    /// Whether the identity is written down as it is: what the realm says of the key that goes with it, it says of this peer.
    pub fn names(&self, id: &Identity) -> bool {
        self.0.iter().any(|rule| matches!(rule, Rule::Id(IdMatch::Exact(exact)) if exact == id))
    }

    /// The rank of the narrowest rule that the peer fits.
    pub fn rank(&self, claims: &Claims<'_>) -> Option<Rank> {
        self.0.iter().filter_map(|rule| rule.rank(claims)).max()
    }
}

impl From<IdMatch> for Peers {
    fn from(pattern: IdMatch) -> Self {
        Peers(vec![Rule::Id(pattern)])
    }
}

impl fmt::Display for Peers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("anonymous");
        }
        for (i, rule) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str(" or ")?;
            }
            rule.fmt(f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dn;
    use std::time::SystemTime;

    fn cert(subject: &str, names: &[&str]) -> CertInfo {
        let (email, dns): (Vec<&str>, Vec<&str>) = names.iter().partition(|name| name.contains('@'));
        CertInfo {
            spki: vec![],
            subject: dn::parse(subject).unwrap(),
            dns: dns.into_iter().map(str::to_owned).collect(),
            email: email.into_iter().map(str::to_owned).collect(),
            addresses: vec![],
            not_after: SystemTime::UNIX_EPOCH,
            path: std::sync::Arc::default(),
        }
    }

    fn fits(rule: &str, claims: &Claims<'_>) -> bool {
        Rule::parse(rule).unwrap().rank(claims).is_some()
    }

    #[test]
    fn identities_of_every_type_fit_their_rules_and_no_others() {
        for (rule, yes, no) in [
            ("any", &["moon.lab.test", "10.0.0.1", "keyid:00"][..], &[][..]),
            ("moon.lab.test", &["MOON.lab.test"], &["sun.lab.test", "moon@lab.test"]),
            ("*.lab.test", &["a.lab.test", "a.b.LAB.test"], &["lab.test", "alab.test", "a@x.lab.test"]),
            ("*@lab.test", &["carol@LAB.test"], &["carol@x.lab.test", "lab.test", "carol.lab.test"]),
            ("carol@lab.test", &["carol@LAB.test"], &["Carol@lab.test"]),
            ("keyid:00ff", &["keyid:00:FF"], &["keyid:00"]),
            ("10.1.0.0/16", &["10.1.255.1"], &["10.2.0.1", "::1", "a.test"]),
            ("10.1.2.3", &["10.1.2.3"], &["10.1.2.4"]),
            ("2001:db8::/32", &["2001:db8:1::1"], &["2001:db9::1", "10.0.0.1"]),
            ("0.0.0.0/0", &["10.1.2.3"], &["::1"]),
            ("C=CH, CN=moon", &["c=ch, cn=Moon"], &["CN=moon"]),
        ] {
            for (ids, expected) in [(yes, true), (no, false)] {
                for id in ids {
                    let id = Identity::parse(id).unwrap();
                    assert_eq!(fits(rule, &Claims::of(&id, AuthPolicy::Psk)), expected, "{rule}: {id}");
                }
            }
            let nobody = Identity::Anonymous(7);
            assert!(!fits(rule, &Claims::of(&nobody, AuthPolicy::Null)), "{rule} and ID_NULL");
        }
    }

    #[test]
    fn rules_about_certificates_fit_what_the_certificate_says() {
        let id = Identity::parse("carol@sales.test").unwrap();
        let said =
            cert("O=Example, OU=Sales, CN=carol", &["carol@sales.test", "pc.sales.test", "*.wild.test"]);
        let with = Claims { cert: Some(&said), ..Claims::of(&id, AuthPolicy::Pubkey) };
        for (rule, expected) in [
            ("subject: OU=Sales", true),
            ("subject: ou=sales, o=EXAMPLE", true),
            ("subject: OU=Tech", false),
            ("san: *.sales.test", true),
            ("san: pc.sales.test", true),
            ("san: *@sales.test", true),
            ("san: carol@sales.test", true),
            ("san: *.test", true),
            ("san: *.wild.test", false),
            ("san: *.other.test", false),
            ("san: other.test", false),
        ] {
            assert_eq!(fits(rule, &with), expected, "{rule}");
            assert!(!fits(rule, &Claims { cert: None, ..with }), "{rule} without a certificate");
            let open = Claims { cert: None, open: true, ..with };
            assert!(fits(rule, &open), "{rule} may fit");
            assert!(
                !fits(rule, &Claims { proof: AuthPolicy::Psk, ..open }),
                "{rule}: no certificate will come"
            );
            assert_eq!(fits(rule, &Claims { open: true, ..with }), expected, "{rule}: it has come");
        }
    }

    #[test]
    fn rules_about_eap_fit_the_user_and_the_groups() {
        let id = Identity::parse("10.0.0.1").unwrap();
        let groups = ["sales".to_owned(), "Bern".to_owned()];
        let by = |user| Claims { eap: Some(user), groups: &groups, ..Claims::of(&id, AuthPolicy::Eap) };
        for (rule, user, expected) in [
            ("eap: carol", "carol", true),
            ("eap: carol", "Carol", false),
            ("eap: carol@x.test", "carol@X.test", true),
            ("eap: *@x.test", "carol@X.TEST", true),
            ("eap: *@x.test", "carol@y.x.test", false),
            ("eap: *.x.test", "carol@y.X.test", true),
            ("eap: *.x.test", "carol@x.test", false),
            ("eap: sales-*", "sales-carol@x.test", true),
            ("eap: sales-*", "Sales-carol", false),
            ("eap: *", "whoever", true),
            ("group: sales", "carol", true),
            ("group: Sales", "carol", false),
            ("group: tech", "carol", false),
            ("any", "carol", true),
        ] {
            assert_eq!(fits(rule, &by(user)), expected, "{rule}: {user}");
        }
        let open = Claims { open: true, ..Claims::of(&id, AuthPolicy::Eap) };
        assert!(fits("group: tech", &open) && fits("eap: dave", &open));
        assert!(
            !fits("group: tech", &Claims { open: true, ..by("carol") }),
            "the groups are known with the user"
        );
        assert!(!fits("group: tech", &Claims { proof: AuthPolicy::Pubkey, ..open }));
    }

    #[test]
    fn narrower_rules_go_first() {
        let order = [
            "any",
            "0.0.0.0/0",
            "*.test",
            "*.sales.test",
            "eap: *@x.test",
            "eap: sales-desk-*",
            "san: *.test",
            "san: *.sales.test",
            "san: a.sales.test",
            "subject: OU=Sales",
            "subject: OU=Sales, O=Example",
            "group: sales",
            "eap: carol",
            "carol@sales.test",
        ];
        let ranks: Vec<Rank> = order.iter().map(|rule| Rule::parse(rule).unwrap().narrowness()).collect();
        assert!(ranks.is_sorted_by(|a, b| a < b), "{ranks:?}");
        let both = Peers::parse(["any", "carol@sales.test"]).unwrap();
        let carol = Identity::parse("carol@sales.test").unwrap();
        assert_eq!(
            both.rank(&Claims::of(&carol, AuthPolicy::Psk)),
            ranks.last().copied(),
            "the narrowest counts"
        );
    }

    #[test]
    fn rules_tie_when_a_peer_may_fit_both_and_neither_is_narrower() {
        for (a, b, tie) in [
            ("any", "any", true),
            ("any", "*.test", false),
            ("a.test", "A.test", true),
            ("a.test", "b.test", false),
            ("*.a.test", "*.b.test", false),
            ("*.a.test", "*.A.test", true),
            ("*.a.test", "*@a.test", false),
            ("10.1.0.0/16", "10.1.0.0/16", true),
            ("10.1.0.0/16", "10.2.0.0/16", false),
            ("10.0.0.0/8", "10.1.0.0/16", false),
            ("subject: OU=Sales", "subject: OU=Tech", false),
            ("subject: OU=Sales", "subject: O=Example", true),
            ("subject: OU=Sales", "subject: OU=Sales, O=Example", false),
            ("san: *.a.test", "san: *.a.test", true),
            ("san: *.a.test", "san: *.b.test", false),
            ("san: *.a.test", "*.a.test", false),
            ("eap: a*", "eap: *b", true),
            ("eap: a*", "eap: b*", false),
            ("eap: *@a.test", "eap: *@A.test", true),
            ("eap: carol", "eap: *l", false),
            ("eap: carol", "eap: carol", true),
            ("group: a", "group: a", true),
            ("group: a", "group: b", false),
        ] {
            let (x, y) = (Rule::parse(a).unwrap(), Rule::parse(b).unwrap());
            assert_eq!((x.ties(&y), y.ties(&x)), (tie, tie), "{a} and {b}");
        }
    }

    #[test]
    fn odd_texts_are_refused_with_what_is_wrong() {
        for (text, words) in [
            ("subject:", "nothing stands after `subject:`"),
            ("subject: Sales", "`Sales` is no attribute"),
            ("san: any", "`san: any`: write a domain name"),
            ("san: 10.0.0.1", "write a domain name"),
            ("san: CN=a", "write a domain name"),
            ("san: *", "write a domain name"),
            ("eap: a*b", "a `*` may stand"),
            ("eap: *a*", "a `*` may stand"),
            ("eap:", "nothing stands after `eap:`"),
            ("group:", "nothing stands after `group:`"),
            ("10.0.0.0/33", "`10.0.0.0/33` is not"),
            ("ou: Sales", "`ou: Sales` is no rule: write a name"),
            ("^.*sun$", "a `*` stands before a domain only"),
            ("a.*.test", "a `*` stands before a domain only"),
            ("*test", "a `*` stands before a domain only"),
            ("10.2.0.1/33", "is not a network"),
            ("Subject: OU=Sales", "a rule about the subject of a certificate, it begins with `subject:`"),
            ("subject OU=Sales", "it begins with `subject:`"),
            ("Group: x", "a rule about a group, it begins with `group:`"),
            ("O=Example, CN=*", "without wildcards"),
            ("OUU=Sales", "unknown attribute type `OUU`"),
            ("", "empty identity"),
        ] {
            let said = Rule::parse(text).unwrap_err().to_string();
            assert!(said.contains(words), "`{text}`: {said}");
        }
        assert_eq!(Peers::parse(vec!["any"; MAX_RULES + 1]), Err(RuleError::TooMany));
    }

    #[test]
    fn rules_are_shown_as_they_are_written() {
        for text in [
            "any",
            "*.lab.test",
            "10.1.0.0/16",
            "2001:db8::/32",
            "keyid:00ff",
            "subject: OU=Sales, O=Example",
            "san: *@sales.test",
            "eap: sales-*",
            "eap: *@sales.test",
            "eap: carol",
            "group: sales",
        ] {
            let rule = Rule::parse(text).unwrap();
            assert_eq!(rule.to_string(), text);
            assert_eq!(Rule::parse(&rule.to_string()).unwrap(), rule);
        }
        let two = Peers::parse(["*.a.test", "group: b"]).unwrap();
        assert_eq!(two.to_string(), "*.a.test or group: b");
        assert_eq!(Peers::new(vec![]).to_string(), "anonymous");
    }

    #[test]
    fn one_identity_is_told_from_many() {
        let moon = Identity::parse("moon.lab.test").unwrap();
        assert_eq!(Peers::from(IdMatch::Exact(moon.clone())).the_one(), Some(&moon));
        let more = Peers::parse(["moon.lab.test", "*.sun.test"]).unwrap();
        assert_eq!(more.the_one(), None);
        assert!(more.names(&moon) && !more.names(&Identity::parse("a.sun.test").unwrap()));
        assert_eq!(Peers::any().the_one(), None);
    }
}
