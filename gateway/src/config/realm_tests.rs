//! What realms say of peers, and what is said when it makes no sense.

use std::path::Path;

use super::tests::{GOOD, problems, with};
use super::*;

const MOON: &str = "method = \"psk\", id = \"moon.test\"";

/// Realms `a` and `b` for anybody anywhere, with these for what they say of both sides.
fn two_realms(a: (&str, &str), b: (&str, &str)) -> String {
    let mut text = "[[psk]]\nids = []\nsecret = \"a secret of the laboratory\"\n".to_owned();
    for (name, (local, remote)) in [("a", a), ("b", b)] {
        text += &format!("[realm.{name}]\nlocal_auth = {{ {local} }}\nremote_auth = {{ {remote} }}\n");
        text += &format!("[[realm.{name}.child]]\nname = \"net\"\n");
    }
    text
}

/// Where this stands the first time after `after`: line and column.
fn place(text: &str, after: &str, what: &str) -> String {
    let from = text.find(after).unwrap();
    let at = from + text[from..].find(what).unwrap();
    let line = text[..at].matches('\n').count() + 1;
    let column = at - text[..at].rfind('\n').map_or(0, |end| end + 1) + 1;
    format!("g.toml:{line}:{column}")
}

#[test]
fn realms_that_fit_the_same_peer_are_an_error_that_names_both() {
    let second =
        GOOD[GOOD.find("[realm").unwrap()..GOOD.find("[[policy").unwrap()].replace("site-b", "site-c");
    let text = GOOD.to_owned() + &second;
    let found = problems(&text);
    let remote = "remote_auth = { method = \"psk\", id = ";
    let (first, second) =
        (place(&text, remote, "\"sun"), place(&text, "[realm.site-c]", "\"sun.lab.test\" }"));
    let expected = format!(
        "{second}: a peer may fit realms `site-b` and `site-c` equally well: `site-c` accepts `sun.lab.test` \
        here, and `site-b` accepts `sun.lab.test` at {first}; let one be narrower, at other addresses, or by another method or \
        name of ours"
    );
    assert_eq!(found, [expected]);
}

#[test]
fn of_many_rules_the_two_that_tie_are_shown() {
    let text = two_realms(
        (MOON, "method = \"psk\", id = [\"*.a.test\", \"*@c.test\"]"),
        (MOON, "method = \"psk\", id = [\"*.b.test\", \"*@C.test\"]"),
    );
    let (one, other) = (place(&text, "", "\"*@c"), place(&text, "", "\"*@C"));
    let expected = format!(
        "{other}: a peer may fit realms `a` and `b` equally well: `b` accepts `*@C.test` here, and `a` accepts \
        `*@c.test` at {one}; let one be narrower, at other addresses, or by another method or name of ours"
    );
    assert_eq!(problems(&text), [expected]);
    let apart = two_realms((MOON, "method = \"psk\", id = \"*.a.test\""), (MOON, "method = \"psk\""));
    assert_eq!(problems(&apart), Vec::<String>::new(), "one is narrower");
    let nobody = "method = \"null\"";
    let found = problems(&two_realms((MOON, nobody), (MOON, nobody)));
    assert!(
        found[0].starts_with("g.toml:9:8: ") && found[0].contains("accepts `anonymous` here"),
        "{found:#?}"
    );
    assert_eq!(problems(&two_realms((MOON, nobody), (MOON, "method = \"psk\""))), Vec::<String>::new());
}

#[test]
fn realms_with_other_names_of_ours_are_a_warning_only() {
    let text =
        two_realms((MOON, "method = \"psk\""), ("method = \"psk\", id = \"vpn.test\"", "method = \"psk\""));
    let loaded = parse(Path::new("g.toml"), &text, 0o600).map_err(|p| p.to_string()).unwrap();
    let said: Vec<String> = loaded.warnings.iter().map(ToString::to_string).collect();
    let expected = "g.toml:11:15: a peer may fit realms `a` and `b` equally well: `b` accepts `any` here, and `a` accepts `any` at \
        g.toml:6:15; their names of ours differ, but a peer that asks for none of them gets `a`";
    assert_eq!(said, [expected]);
}

#[test]
fn how_peers_are_told_and_checked_is_understood() {
    let remote = "method = \"psk\", id = [\"any\", \"10.1.0.0/16\", \"keyid:00ff\"], methods = [\"psk\"]";
    let text = two_realms(
        ("method = \"psk\", id = [\"moon.test\", \"old.test\"]", remote),
        ("method = \"null\"", "method = \"null\""),
    );
    let text = text.replacen("ids = []", "ids = []\nrealm = \"a\"", 1);
    let loaded = parse(Path::new("g.toml"), &text, 0o600).map_err(|p| p.to_string()).unwrap();
    let [a, b] = &loaded.realms[..] else { panic!() };
    assert_eq!(a.remote_id.to_string(), "any or 10.1.0.0/16 or keyid:00ff");
    assert_eq!((a.local_id.to_string(), a.aliases[0].to_string()), ("moon.test".into(), "old.test".into()));
    assert_eq!((b.local_auth, b.remote_auth), (AuthPolicy::Null, AuthPolicy::Null));
    assert!(b.local_id.is_anonymous() && b.remote_id.rules().is_empty());
    assert_eq!(loaded.secure.psks[0].realm.as_deref(), Some("a"));
    let shown = summary::summary(&loaded);
    for words in
        ["we are    moon.test or old.test (pre-shared key)", "peer is   anonymous (no authentication)"]
    {
        assert!(shown.contains(words), "{shown}");
    }
    assert!(loaded.warnings.iter().any(|w| w.text.contains("everybody who can reach us is let in")));
}

#[test]
fn what_makes_no_sense_about_a_peer_is_said_at_its_word() {
    let key = "method = \"pubkey\", trust = \"first-use\"";
    for (local, remote, at, said) in [
        (
            MOON,
            "method = \"psk\", id = []".into(),
            "[]",
            "`id` is empty, so nobody is accepted; write \"any\" for everybody",
        ),
        (
            MOON,
            "method = \"psk\", id = \"subject: OU=x\"".into(),
            "\"subject",
            "`subject: OU=x` is about a certificate, which comes with method = \"pubkey\" only",
        ),
        (
            MOON,
            "method = \"psk\", id = [\"a.test\", \"group: x\"]".into(),
            "\"group",
            "`group: x` is about EAP, which comes with method = \"eap\" only",
        ),
        (
            MOON,
            format!("{key}, id = \"san: *.a.test\""),
            "\"san",
            "`san: *.a.test` means nothing where nobody vouches for what a certificate says",
        ),
        (
            MOON,
            format!("{key}, ca = [\"x\"]"),
            "\"x\"",
            "with trust = \"first-use\" anybody's key is believed, so there is nothing for `ca`, `cert` or `pubkey` to do",
        ),
        (
            MOON,
            "method = \"pubkey\", trust = \"frist-use\"".into(),
            "\"frist",
            "unknown trust `frist-use`; did you mean `first-use`?",
        ),
        (
            MOON,
            "method = \"psk\", trust = \"first-use\"".into(),
            "\"first",
            "`trust` goes with method = \"pubkey\"",
        ),
        (
            MOON,
            "method = \"psk\", methods = [\"ecdsa\"]".into(),
            "\"ecdsa",
            "`ecdsa` is none of what method = \"psk\" takes",
        ),
        (
            MOON,
            format!("{key}, methods = [\"ecdas\"]"),
            "\"ecdas",
            "unknown method `ecdas`; did you mean `ecdsa`?",
        ),
        (
            MOON,
            format!("{key}, methods = []"),
            "{ method = \"pubkey",
            "`methods` is empty, so no peer could prove itself",
        ),
        (
            MOON,
            "method = \"null\", id = \"any\"".into(),
            "\"any",
            "with method = \"null\" nobody says who it is, so there is no `id` to compare",
        ),
        (
            "method = \"null\", id = \"a.test\"",
            "method = \"psk\"".into(),
            "\"a.test\"",
            "with method = \"null\" we do not say who we are, so there is no `id`",
        ),
        ("method = \"psk\", id = []", "method = \"psk\"".into(), "[]", "`id` is empty: who are we?"),
        (
            "method = \"psk\", id = \"a.test\", methods = [\"psk\"]",
            "method = \"psk\"".into(),
            "\"psk\"]",
            "`methods` and `trust` say how a peer is checked; they belong into `remote_auth`",
        ),
        (
            MOON,
            "method = \"psk\", id = 5".into(),
            "5 }",
            "expected a string or a list of strings, not integer `5`",
        ),
    ] {
        let text = two_realms((local, &remote), (MOON, "method = \"psk\", id = \"z.test\""));
        let found = problems(&text);
        let section = if local == MOON { "remote_auth" } else { "local_auth" };
        let expected = format!("{}: {said}", place(&text, section, at));
        assert!(found.contains(&expected), "wanted {expected}: {found:#?}");
    }
    let text = GOOD.replacen("ids = [\"moon", "realm = \"site-c\"\nids = [\"moon", 1);
    assert_eq!(problems(&text)[0], "g.toml:7:9: there is no realm `site-c`");
}

#[test]
fn the_first_key_is_believed_with_a_warning() {
    let said = |id: &str| {
        let remote = format!(
            "method = \"pubkey\", trust = \"first-use\", id = \"{id}\", methods = [\"rsa\", \"ed25519\"]"
        );
        let text = two_realms((MOON, &remote), (MOON, "method = \"psk\", id = \"z.test\""));
        let loaded = parse(Path::new("g.toml"), &text, 0o600).map_err(|p| p.to_string()).unwrap();
        assert!(loaded.secure.credentials["a"].trust.first_use);
        let names: Vec<&str> = loaded.realms[0].methods.iter().map(|m| m.name()).collect();
        assert_eq!(names, ["rsa-pkcs1", "rsa-pss", "ed25519"]);
        assert!(summary::summary(&loaded).contains("the first key that comes is believed"));
        // Where nothing else is said they are forgotten with /run.
        let [first, forgetful] = &loaded.warnings[..] else { panic!("{:?}", loaded.warnings) };
        let forgetful = forgetful.to_string();
        assert!(
            forgetful.starts_with("g.toml:6:44: trust = \"first-use\": the keys are remembered in /run/tussock/secure, which the next boot")
                && forgetful.contains("let `state_dir` in [gateway] be"),
            "{forgetful}"
        );
        let elsewhere = format!("[gateway]\nstate_dir = \"state\"\n{text}");
        let loaded = parse(Path::new("g.toml"), &elsewhere, 0o600).map_err(|p| p.to_string()).unwrap();
        let volatile = volatile::is_volatile(Path::new("state"));
        assert_eq!(loaded.warnings.len(), 1 + usize::from(volatile));
        first.to_string()
    };
    assert!(said("sun.test").contains("g.toml:6:44: trust = \"first-use\": the first key that comes"));
    assert!(
        said("*.test")
            .contains("everybody who can reach us is let in, under any name that nobody had before")
    );
}

#[test]
fn what_is_there_and_wrong_is_not_called_missing() {
    for (local, remote, expected) in [
        (
            "local_auth = \"psk\"",
            "",
            "g.toml:2:14: expected something like { method = \"psk\", id = \"moon.lab.test\" }, not string",
        ),
        (
            "local_auth = { method = \"null\" }",
            "{ method = \"psk\", id = 7 }",
            "g.toml:3:38: expected a string or a list of strings",
        ),
        (
            "local_auht = { method = \"null\" }",
            "",
            "g.toml:2:1: unknown key `local_auht`; did you mean `local_auth`?",
        ),
        (
            "local_auth = { method = \"null\" }",
            "{ method = \"pubkey\", id = \"a.test\", ca = \"ca.crt\" }",
            "g.toml:3:56: expected a list, [ … ], not string \"ca.crt\"",
        ),
        ("start = \"boot\"", "", "g.toml:1:8: `local_auth` is missing; write for example"),
    ] {
        let remote = if remote.is_empty() { "{ method = \"null\" }" } else { remote };
        let text = format!("[realm.a]\n{local}\nremote_auth = {remote}\n[[realm.a.child]]\nname = \"net\"\n");
        let found = problems(&text);
        assert!(found.len() == 1 && found[0].starts_with(expected), "wanted {expected}: {found:#?}");
    }
}

#[test]
fn nobody_does_not_meet_eap_and_has_no_network_of_its_own() {
    let null = "method = \"null\"";
    let eap = "method = \"eap\", eap = [\"mschapv2\"]";
    let users = "[[eap]]\nuser = \"carol\"\npassword = \"a password of the laboratory\"\n";
    for (local, remote) in
        [(null, eap.to_owned()), (&format!("{eap}, id = \"c.test\", eap_id = \"carol\""), null.to_owned())]
    {
        let text =
            users.to_owned() + &two_realms((local, &remote), (MOON, "method = \"psk\", id = \"z.test\""));
        let found = problems(&text);
        assert!(
            found.iter().any(|p| p.ends_with("where one side uses EAP, the other cannot be nobody")),
            "{found:#?}"
        );
    }
    let text = two_realms((null, null), (MOON, "method = \"psk\", id = \"z.test\""));
    let warnings =
        |text: &str| parse(Path::new("g.toml"), text, 0o600).map_err(|p| p.to_string()).unwrap().warnings;
    assert_eq!(warnings(&text).len(), 1);
    let text = text.replacen("name = \"net\"", "name = \"net\"\nremote = [\"10.2.0.0/16\"]", 1);
    assert!(warnings(&text).iter().any(|w| w.text.starts_with("a/net: whoever comes may ask")));
}

#[test]
fn a_realm_without_a_secret_for_its_identities_is_an_error() {
    // Of rules for many, whether any secret is for any of them.
    for (rule, found) in [
        ("*.lab.test", false),
        ("*.mars.test", true),
        ("any", false),
        ("10.1.0.0/16", true),
        ("keyid:0a", true),
    ] {
        let text = GOOD.replacen(
            "remote_auth = { method = \"psk\", id = \"sun.lab.test\" }",
            &format!("remote_auth = {{ method = \"psk\", id = [\"{rule}\", \"*@other.test\"] }}"),
            1,
        );
        let said = format!("no [[psk]] is shared by `moon.lab.test` and `{rule} or *@other.test`");
        assert_eq!(problems(&text).iter().any(|p| p.contains(&said)), found, "{rule}");
    }
    let (text, _) =
        with("ids = [\"moon.lab.test\", \"sun.lab.test\"]", "ids = [\"moon.lab.test\", \"mars.lab.test\"]");
    let found = problems(&text);
    assert!(found[0].contains("no [[psk]] is shared by `moon.lab.test` and `sun.lab.test`"), "{found:#?}");
    assert!(found[0].starts_with("g.toml:10:"), "{found:#?}");
}
