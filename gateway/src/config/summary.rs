//! A configuration in words, for `tussock check`.

use std::collections::BTreeSet;
use std::fmt::{Display, Write};
use std::sync::Arc;

use policy::{AuthPolicy, Child, ChildMode, Realm, RemoteAddress, Start};

use super::Loaded;
use super::units::show_duration;

/// What the gateway would do with this configuration, in lines for people. Shows no secret.
pub fn summary(loaded: &Loaded) -> String {
    let mut text = String::new();
    // Writing into a String cannot fail.
    let _ = write(loaded, &mut text);
    text
}

fn write(loaded: &Loaded, out: &mut String) -> std::fmt::Result {
    let settings = &loaded.settings;
    writeln!(out, "listen      {}", join(&settings.listen))?;
    writeln!(out, "state       {}", settings.state_dir.display())?;
    if let Some(leases) = settings.leases.as_ref().filter(|_| loaded.realms.iter().any(|r| r.pool.is_some()))
    {
        writeln!(out, "leases      {}", leases.display())?;
    }
    if let Some(dir) = &settings.keylog {
        writeln!(out, "keylog      {}  (keys of all SAs are written there)", dir.display())?;
    }
    for accel in &settings.accel {
        writeln!(out, "accelerator {} at {}", accel.name, accel.place())?;
    }
    for policy in &loaded.carve_outs {
        let action = if policy.bypass { "bypass" } else { "discard" };
        let (local, remote) = (join(&policy.local), join(&policy.remote));
        writeln!(out, "{action:<11} {local} <-> {remote}  priority {}", policy.priority)?;
    }
    for realm in &loaded.realms {
        writeln!(out)?;
        let first_use = loaded.secure.credentials.get(&*realm.name).is_some_and(|c| c.trust.first_use);
        self::realm(realm, &loaded.guarded, first_use, out)?;
        if let Some(work) = loaded.works.get(&realm.name) {
            let manner = if work.at_once { "at once" } else { "in bursts" };
            let share = work.share.map(|share| format!(", {:.0} % of each core", share * 100.0));
            writeln!(out, "  packets    {manner}{}", share.unwrap_or_default())?;
            if !work.accel.is_empty() {
                writeln!(out, "  accel      {}", work.accel.join(", "))?;
            }
            writeln!(out, "  fallback   {}", work.fallback.name())?;
        }
    }
    Ok(())
}

fn realm(
    realm: &Realm,
    guarded: &BTreeSet<(Arc<str>, Arc<str>)>,
    first_use: bool,
    out: &mut String,
) -> std::fmt::Result {
    let local = if realm.local.is_empty() { "any".to_owned() } else { join(&realm.local) };
    let remote: Vec<String> = realm.remote.iter().map(remote_address).collect();
    let remote = if remote.is_empty() { "any".to_owned() } else { remote.join(", ") };
    writeln!(out, "realm {}", realm.name)?;
    writeln!(out, "  between   {local} <-> {remote}")?;
    let names: Vec<String> =
        std::iter::once(&realm.local_id).chain(&realm.aliases).map(ToString::to_string).collect();
    writeln!(out, "  we are    {} ({})", names.join(" or "), method(realm.local_auth))?;
    let first_use = if first_use { ", the first key that comes is believed" } else { "" };
    writeln!(out, "  peer is   {} ({}{first_use})", realm.remote_id, method(realm.remote_auth))?;
    if !realm.methods.is_empty() {
        let names: Vec<&str> = realm.methods.iter().map(|method| method.name()).collect();
        writeln!(out, "  by        {}", names.join(", "))?;
    }
    if realm.local_auth == AuthPolicy::Eap || realm.remote_auth == AuthPolicy::Eap {
        let methods: Vec<&str> = realm.eap.methods.iter().map(|method| method.name()).collect();
        let alone = if realm.eap.only { ", alone where the peer agrees" } else { "" };
        let methods = if realm.eap.radius { "by RADIUS".to_owned() } else { methods.join(", ") };
        writeln!(out, "  eap       {methods}{alone}")?;
    }
    writeln!(out, "  ike       {}", join(&realm.ike))?;
    writeln!(
        out,
        "  rekey     {}{}",
        lifetime(realm.ike_rekey.time),
        match realm.ike_reauth.time {
            time if time.is_zero() => String::new(),
            time => format!(", reauthentication {}", show_duration(time)),
        }
    )?;
    if let Some(pool) = &realm.pool {
        writeln!(out, "  pool      {}", super::pool::text(pool))?;
    }
    if realm.virtual_ip.v4 || realm.virtual_ip.v6 {
        let dns = if realm.virtual_ip.dns { ", and name servers" } else { "" };
        writeln!(out, "  asks for  an address of its own{dns}")?;
    }
    realm.children.iter().try_for_each(|child| {
        self::child(child, out)?;
        let blocked = guarded.contains(&(realm.name.clone(), child.name.clone()));
        writeln!(
            out,
            "    down    {}",
            if blocked { "its traffic is blocked" } else { "its traffic goes in the clear" }
        )
    })
}

fn child(child: &Child, out: &mut String) -> std::fmt::Result {
    let mode = match child.mode {
        ChildMode::Tunnel => "tunnel",
        ChildMode::Transport => "transport",
    };
    let start = match child.start {
        Start::Boot => "at start",
        Start::Traffic => "on traffic",
        Start::Manual => "when asked",
    };
    writeln!(out, "  child {}  ({mode}, {start})", child.name)?;
    writeln!(out, "    carries {} <-> {}", join(&child.local), join(&child.remote))?;
    writeln!(out, "    esp     {}", join(&child.esp))?;
    writeln!(out, "    rekey   {}", lifetime(child.rekey.time))
}

fn lifetime(time: std::time::Duration) -> String {
    if time.is_zero() { "never".to_owned() } else { show_duration(time) }
}

fn method(policy: AuthPolicy) -> &'static str {
    match policy {
        AuthPolicy::Psk => "pre-shared key",
        AuthPolicy::Pubkey => "public key",
        AuthPolicy::Eap => "EAP",
        AuthPolicy::Null => "no authentication",
    }
}

fn remote_address(remote: &RemoteAddress) -> String {
    match remote {
        RemoteAddress::Host(address) => address.to_string(),
        RemoteAddress::Prefix(address, length) => format!("{address}/{length}"),
    }
}

fn join<T: Display>(list: &[T]) -> String {
    let words: Vec<String> = list.iter().map(ToString::to_string).collect();
    words.join(", ")
}
