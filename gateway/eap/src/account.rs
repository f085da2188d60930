//! A user's password, or one that nobody knows: what follows is the same for both, so that a stranger does not learn
//! who has an account here.

use sha2::{Digest, Sha256};
use spi::Secret;
use subtle::{Choice, ConstantTimeEq};

use crate::config::{Random, Users};

/// What is compared with. Ask every question of it before looking at any answer.
pub(crate) struct Account {
    password: Secret,
    known: Choice,
}

impl Account {
    /// Looks the user up: by the whole name, and without the domain that Windows puts in front (`DOMAIN\user`).
    pub(crate) fn find(users: &dyn Users, random: &Random, name: Option<&str>) -> Self {
        // Drawn for everybody, since drawing takes time.
        let mut nobody = [0; 8];
        random(&mut nobody);
        let nobody: Vec<u8> = nobody.iter().map(|octet| b'a' + octet % 26).collect();
        let whole = name.and_then(|name| users.password(name));
        let bare = name.and_then(domainless).and_then(|name| users.password(name));
        let found = whole.or(bare);
        let known = Choice::from(u8::from(found.is_some()));
        Account { password: found.unwrap_or_else(|| Secret::new(nobody)), known }
    }

    /// The password to calculate with, somebody's or nobody's.
    pub(crate) fn password(&self) -> &Secret {
        &self.password
    }

    /// Whether a calculation with the password that came out as `verdict` means yes.
    pub(crate) fn admits(&self, verdict: Choice) -> bool {
        (verdict & self.known).into()
    }

    /// Why somebody is refused, for the log alone: which of the two it was is not said to the one who tried.
    pub(crate) fn refusal(&self, sent: &[u8]) -> String {
        match bool::from(self.known) {
            true => format!("wrong password of {}", printable(sent)),
            false => format!("there is no user {}", printable(sent)),
        }
    }

    /// Whether this is the user's password. By digests, so that the time depends on what was sent alone.
    pub(crate) fn is_password(&self, sent: &[u8]) -> bool {
        let (ours, theirs) = (Sha256::digest(self.password.expose()), Sha256::digest(sent));
        self.admits(ours.as_slice().ct_eq(theirs.as_slice()))
    }
}

/// `user` of `DOMAIN\user`.
pub(crate) fn domainless(name: &str) -> Option<&str> {
    name.split_once('\\').map(|(_, user)| user)
}

/// An identity as text: what is before the first NUL (RFC 3748 section 5.1), if it is one that a user can have.
pub(crate) fn name(octets: &[u8]) -> Option<&str> {
    let octets = octets.split(|octet| *octet == 0).next().unwrap_or_default();
    let name = std::str::from_utf8(octets).ok()?;
    (!name.is_empty() && name.len() <= MAX_NAME && !name.chars().any(char::is_control)).then_some(name)
}

/// What a server sent for a human to read, made harmless.
pub(crate) fn printable(octets: &[u8]) -> String {
    let text = String::from_utf8_lossy(octets.get(..MAX_TEXT).unwrap_or(octets));
    let mut text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    while text.len() > MAX_TEXT {
        text.pop();
    }
    text
}

/// Octets of a user's name (RFC 2865 section 5.1 has room for no more).
pub(crate) const MAX_NAME: usize = 253;
/// Octets of a text for the log or for a prompt.
const MAX_TEXT: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    struct One;
    impl Users for One {
        fn password(&self, name: &str) -> Option<Secret> {
            (name == "alice").then(|| Secret::from_slice(b"wonder"))
        }
    }

    #[test]
    fn nobody_has_no_password_not_even_the_one_that_was_drawn() {
        let random: Random = Arc::new(|out: &mut [u8]| out.fill(0));
        let find = |name| Account::find(&One, &random, name);
        assert!(find(Some("alice")).is_password(b"wonder"));
        assert!(find(Some("WORK\\alice")).is_password(b"wonder"));
        assert!(!find(Some("alice")).is_password(b"aaaaaaaa"));
        assert!(!find(Some("mallory")).is_password(b"aaaaaaaa"));
        assert!(!find(None).is_password(b"aaaaaaaa"));
    }

    #[test]
    fn names_are_short_printable_and_end_at_a_nul() {
        assert_eq!(name(b"bob\0\0options"), Some("bob"));
        for bad in [&b""[..], b"\0bob", b"b\nb", b"\xff\xfe", &[b'x'; 254]] {
            assert_eq!(name(bad), None);
        }
        assert_eq!(printable(b"hi\x1b[31m\n"), "hi [31m ");
        assert!(printable(&[0xff; 4000]).len() <= MAX_TEXT);
    }
}
