//! Whom the processes run as. Users are looked up in `/etc/passwd` and `/etc/group` and nowhere else: name services are
//! libraries that do as they like.

use std::fs;

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};

use crate::config::Settings;

/// User of `tussock-gateway` where the system has one.
const GATEWAY: &str = "tussock-gateway";
/// User of `tussock-secure` where the system has one.
const SECURE: &str = "tussock-secure";
/// Where it has none: numbers that nobody gives to anybody, `tsg` and a digit.
const GATEWAY_NUMBER: u32 = 0x7473_6701;
/// The same for the key side.
const SECURE_NUMBER: u32 = 0x7473_6702;

/// A user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// Its number.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Further groups it is in.
    pub groups: Vec<u32>,
}

/// The users of the two processes; `None` where we may not choose, because we are not root.
pub(super) struct Users {
    pub(super) gateway: Option<User>,
    pub(super) secure: Option<User>,
}

/// The users that the settings name, or the usual ones.
pub(super) fn users(settings: &Settings) -> anyhow::Result<Users> {
    if !rustix::process::geteuid().is_root() {
        return Ok(Users { gateway: None, secure: None });
    }
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let group = fs::read_to_string("/etc/group").unwrap_or_default();
    let gateway = choose(settings.user.as_deref(), GATEWAY, GATEWAY_NUMBER, &passwd, &group)?;
    let secure = choose(settings.secure_user.as_deref(), SECURE, SECURE_NUMBER, &passwd, &group)?;
    if gateway.uid == secure.uid {
        bail!(
            "`user` and `secure_user` are the same: the process that faces the network could look at the keys"
        );
    }
    Ok(Users { gateway: Some(gateway), secure: Some(secure) })
}

fn choose(named: Option<&str>, usual: &str, number: u32, passwd: &str, group: &str) -> anyhow::Result<User> {
    let user = match named {
        Some(name) => match name.parse() {
            Ok(uid) => by_number(uid, passwd, group),
            Err(_) => by_name(name, passwd, group).with_context(|| format!("there is no user `{name}`"))?,
        },
        None => by_name(usual, passwd, group).unwrap_or_else(|| by_number(number, passwd, group)),
    };
    if user.uid == 0 {
        bail!("a process that is to have no privilege cannot run as root");
    }
    Ok(user)
}

fn by_number(uid: u32, passwd: &str, group: &str) -> User {
    let line = passwd.lines().find(|line| line.split(':').nth(2) == Some(&uid.to_string()));
    let known = line.and_then(|line| by_name(line.split(':').next()?, passwd, group));
    known.unwrap_or_else(|| User { uid, gid: uid, groups: Vec::new() })
}

fn by_name(name: &str, passwd: &str, group: &str) -> Option<User> {
    let line = passwd.lines().find(|line| line.split(':').next() == Some(name))?;
    let number = |place| line.split(':').nth(place)?.parse().ok();
    let groups = group.lines().filter_map(|line| {
        let mut fields = line.split(':').skip(2);
        let (gid, members) = (fields.next()?, fields.next()?);
        members.split(',').any(|member| member == name).then(|| gid.parse().ok())?
    });
    Some(User { uid: number(2)?, gid: number(3)?, groups: groups.collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/bash\ntussock-secure:x:991:990::/nonexistent:/bin/false\n";
    const GROUP: &str = "root:x:0:\nvfio:x:44:tussock-secure,other\nkvm:x:45:other\n";

    #[test]
    fn users_come_from_the_configuration_the_system_or_nowhere() {
        let there = choose(None, SECURE, SECURE_NUMBER, PASSWD, GROUP).unwrap();
        assert_eq!(there, User { uid: 991, gid: 990, groups: vec![44] });
        let nobodys = choose(None, GATEWAY, GATEWAY_NUMBER, PASSWD, GROUP).unwrap();
        assert_eq!(nobodys, User { uid: GATEWAY_NUMBER, gid: GATEWAY_NUMBER, groups: vec![] });
        assert_eq!(choose(Some("991"), GATEWAY, 1, PASSWD, GROUP).unwrap(), there);
        assert!(
            choose(Some("nobodys"), GATEWAY, 1, PASSWD, GROUP).unwrap_err().to_string().contains("nobodys")
        );
        for root in ["root", "0"] {
            assert!(choose(Some(root), GATEWAY, 1, PASSWD, GROUP).is_err());
        }
    }
}
