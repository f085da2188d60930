//! `tussock leases`

use std::net::IpAddr;

use anyhow::Context;
use clap::{Args, Subcommand};

use super::table::Table;
use super::{Reach, Show};
use crate::config::units::show_duration;
use crate::control::client::Client;
use crate::control::protocol::Request;
use crate::report;

/// Which leases to show, or what to do with them.
#[derive(Args, Debug, PartialEq, Eq)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Leases {
    #[command(subcommand)]
    #[allow(missing_docs)]
    pub release: Option<Action>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub which: Which,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub show: Show,
}

/// What to do with leases.
#[derive(Subcommand, Debug, PartialEq, Eq)]
pub enum Action {
    /// Forget who had addresses; those that are in use stay
    Release(Release),
}

/// Which to forget.
#[derive(Args, Debug, PartialEq, Eq)]
#[command(group(clap::ArgGroup::new("some").args(["realm", "identity", "address"]).required(true).multiple(true)))]
pub struct Release {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub which: Which,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub reach: Reach,
}

/// Which leases; all of these must fit.
#[derive(Args, Debug, PartialEq, Eq)]
pub struct Which {
    /// Those of one realm
    #[arg(long)]
    pub realm: Option<String>,
    /// Those of one identity, as it is shown
    #[arg(long)]
    pub identity: Option<String>,
    /// One address
    #[arg(long)]
    pub address: Option<IpAddr>,
}

pub(super) fn run(leases: Leases) -> anyhow::Result<()> {
    let Leases { release, which, show } = leases;
    if let Some(Action::Release(Release { which: Which { realm, identity, address }, reach })) = release {
        return super::say(&reach, &Request::ReleaseLeases { realm, identity, address });
    }
    let answer = Client::connect(&show.reach.socket)?.ask(&Request::Leases {})?;
    let mut all = answer.leases.context("no leases in the answer")?;
    let fits = |wanted: &Option<String>, is: &str| wanted.as_ref().is_none_or(|wanted| wanted == is);
    let address = which.address.map(|address| address.to_string());
    all.leases.retain(|lease| {
        fits(&which.realm, &lease.realm)
            && fits(&which.identity, &lease.who)
            && fits(&address, &lease.address)
    });
    if show.json { super::print_json(&all) } else { super::print(&text(&all)) }
}

fn text(leases: &report::Leases) -> String {
    if leases.leases.is_empty() {
        return "no leases\n".to_owned();
    }
    let mut table = Table::new(&["realm", "address", "whose", "ike sas", "kept for"]);
    for lease in &leases.leases {
        let sas: Vec<String> = lease.sas.iter().map(|sa| format!("#{sa}")).collect();
        let kept = match lease.kept {
            None => String::new(),
            Some(0) => "until it is needed".to_owned(),
            Some(seconds) => show_duration(std::time::Duration::from_secs(seconds)),
        };
        table.row(vec![lease.realm.clone(), lease.address.clone(), lease.who.clone(), sas.join(" "), kept]);
    }
    table.text("")
}
