//! The commands. Exit codes: 0 done, 1 failed, 2 wrong use or wrong configuration.

pub mod accel;
pub mod check;
pub mod credentials;
pub mod leases;
pub mod pki;
pub mod table;
pub mod text;

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};

use crate::control::client::Client;
use crate::control::protocol::Request;
use crate::events::Record;
use crate::run::{self, RunError};
use crate::terminal;

/// An IPsec gateway that leaves the heavy work to accelerators.
#[derive(Parser, Debug, PartialEq, Eq)]
#[command(name = "tussock", version, disable_help_subcommand = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Subcommand, Debug, PartialEq, Eq)]
pub enum Command {
    /// Run the gateway in the foreground
    Run(Running),
    /// Read a configuration file and pass it on; a part of `run`
    #[command(hide = true)]
    ReadConfig(ConfigFile),
    /// Read a configuration file and say what it means, or what is wrong with it
    Check(check::Options),
    /// Bring up a realm, or one child of it
    Up(Target),
    /// Take down a realm, or one child of it
    Down(Target),
    /// Rekey the IKE SA of a realm, or one child of it
    Rekey(RekeyTarget),
    /// Give a password that EAP wants and that the configuration does not have
    Credentials(credentials::Credentials),
    /// Show how the gateway is
    Status(Show),
    /// Show the accelerators: health, queues, latency, errors
    Accel(Watch),
    /// Show all IKE SAs and Child SAs
    Sas(Show),
    /// Show the addresses that clients have or had, or release some
    Leases(leases::Leases),
    /// Have the gateway read its configuration again
    Reload(Reach),
    /// Show events as they happen
    Events(Show),
    /// Write inner packets to a pcapng file, before encryption and after decryption, until interrupted
    Capture(CaptureTo),
    /// Keys and certificates
    #[command(subcommand)]
    Pki(Box<pki::Pki>),
}

/// Which configuration.
#[derive(Args, Debug, PartialEq, Eq)]
pub struct ConfigFile {
    /// The configuration file
    #[arg(long, value_name = "FILE", default_value = "/etc/tussock/gateway.toml")]
    pub config: PathBuf,
}

/// How to run.
#[derive(Args, Debug, PartialEq, Eq)]
pub struct Running {
    /// All in one process, keys and all: for developers
    #[arg(long)]
    pub one_process: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub file: ConfigFile,
}

/// Which gateway.
#[derive(Args, Debug, PartialEq, Eq)]
pub struct Reach {
    /// The control socket of the gateway
    #[arg(long, value_name = "PATH", default_value = "/run/tussock/control.sock")]
    pub socket: PathBuf,
}

/// Which realm or child.
#[derive(Args, Debug, PartialEq, Eq)]
pub struct Target {
    /// REALM or REALM/CHILD
    #[arg(value_name = "REALM[/CHILD]", value_parser = name)]
    pub target: Name,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub reach: Reach,
}

/// What to rekey.
#[derive(Args, Debug, PartialEq, Eq)]
pub struct RekeyTarget {
    /// REALM (its IKE SA) or REALM/CHILD
    #[arg(value_name = "REALM[/CHILD]", value_parser = name)]
    pub target: Name,
    /// The IKE SA; the default when no child is named
    #[arg(long)]
    pub ike: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub reach: Reach,
}

/// How to show something.
#[derive(Args, Debug, PartialEq, Eq)]
pub struct Show {
    /// JSON instead of text
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub reach: Reach,
}

/// How to show what changes.
#[derive(Args, Debug, PartialEq, Eq)]
pub struct Watch {
    /// Go on: what happens to accelerators, as it happens, and what each of them does every second
    #[arg(long)]
    pub follow: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub show: Show,
}

/// Where a capture goes.
#[derive(Args, Debug, PartialEq, Eq)]
pub struct CaptureTo {
    /// The file; `-` for standard output
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub reach: Reach,
}

/// A realm, and perhaps one child of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// The realm.
    pub realm: String,
    /// The child.
    pub child: Option<String>,
}

fn name(text: &str) -> Result<Name, String> {
    match text.split_once('/') {
        None if !text.is_empty() => Ok(Name { realm: text.to_owned(), child: None }),
        Some((realm, child)) if !realm.is_empty() && !child.is_empty() && !child.contains('/') => {
            Ok(Name { realm: realm.to_owned(), child: Some(child.to_owned()) })
        }
        _ => Err("write REALM or REALM/CHILD".to_owned()),
    }
}

/// Carries a command out; errors go to standard error.
pub fn main(cli: Cli) -> ExitCode {
    match cli.command {
        Command::ReadConfig(file) => crate::processes::reader::main(&file.config),
        Command::Run(how) => match run(&how) {
            Ok(()) => ExitCode::SUCCESS,
            Err(RunError::Unreadable(problems)) => {
                eprintln!("{problems}");
                ExitCode::from(2)
            }
            Err(RunError::Config(problems)) => {
                eprintln!("{problems}");
                ExitCode::from(2)
            }
            Err(RunError::Failed(error)) => fail(&error),
        },
        Command::Check(options) => {
            // It may ask for the PIN of a token.
            terminal::outlives_this_program();
            check::run(&options)
        }
        Command::Pki(pki) => {
            terminal::outlives_this_program();
            match pki::run(&pki) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => fail(&error),
            }
        }
        command => match ask(command) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&error),
        },
    }
}

fn run(how: &Running) -> Result<(), RunError> {
    if how.one_process { run::run_as_one(&how.file.config) } else { run::run(&how.file.config) }
}

fn fail(error: &anyhow::Error) -> ExitCode {
    eprintln!("tussock: {error:#}");
    ExitCode::FAILURE
}

fn ask(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Run(_) | Command::ReadConfig(_) | Command::Check(_) | Command::Pki(_) => Ok(()),
        Command::Up(Target { target: Name { realm, child }, reach }) => {
            terminal::outlives_this_program();
            credentials::up(&reach, realm, child)
        }
        Command::Credentials(credentials) => {
            terminal::outlives_this_program();
            credentials::give(&credentials)
        }
        Command::Down(Target { target: Name { realm, child }, reach }) => {
            say(&reach, &Request::Down { realm, child })
        }
        Command::Rekey(RekeyTarget { target: Name { realm, child }, ike, reach }) => {
            let child = if ike { None } else { child };
            say(&reach, &Request::Rekey { realm, child })
        }
        Command::Reload(reach) => say(&reach, &Request::Reload {}),
        Command::Status(show) => {
            let answer = Client::connect(&show.reach.socket)?.ask(&Request::Status {})?;
            let status = answer.status.context("no status in the answer")?;
            if show.json { print_json(&status) } else { print(&text::status(&status)) }
        }
        Command::Accel(Watch { follow: true, show }) => accel::follow(&show),
        Command::Accel(Watch { show, .. }) => {
            let answer = Client::connect(&show.reach.socket)?.ask(&Request::Accel {})?;
            let accel = answer.accel.context("no accelerators in the answer")?;
            if show.json { print_json(&accel) } else { print(&accel::text(&accel)) }
        }
        Command::Sas(show) => {
            let answer = Client::connect(&show.reach.socket)?.ask(&Request::Sas {})?;
            let sas = answer.sas.context("no SAs in the answer")?;
            if show.json { print_json(&sas) } else { print(&text::sas(&sas)) }
        }
        Command::Leases(leases) => leases::run(leases),
        Command::Events(show) => events(&show),
        Command::Capture(to) => capture(&to),
    }
}

fn say(reach: &Reach, request: &Request) -> anyhow::Result<()> {
    let answer = Client::connect(&reach.socket)?.ask(request)?;
    match answer.text.filter(|text| !text.is_empty()) {
        Some(text) => print(&(text + "\n")),
        None => Ok(()),
    }
}

fn events(show: &Show) -> anyhow::Result<()> {
    let mut client = Client::connect(&show.reach.socket)?;
    client.ask(&Request::Events {})?;
    while let Some(line) = client.line()? {
        match serde_json::from_str::<Record>(&line) {
            Ok(record) if !show.json => print(&text::event(&record))?,
            _ => print(&line)?,
        }
    }
    Ok(())
}

fn capture(to: &CaptureTo) -> anyhow::Result<()> {
    let mut client = Client::connect(&to.reach.socket)?;
    if to.out.as_os_str() == "-" {
        client.ask(&Request::Capture {})?;
        return Ok(client.copy(&mut io::stdout().lock())?);
    }
    // What was in the tunnel is nobody else's business.
    let open = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&to.out);
    let mut file = open.with_context(|| format!("cannot write {}", to.out.display()))?;
    client.ask(&Request::Capture {})?;
    eprintln!("capturing to {}; interrupt to end", to.out.display());
    Ok(client.copy(&mut file)?)
}

/// Writes to standard output; ends the program when nobody reads any more.
fn print(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        // Whoever reads (`head`) has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        result => Ok(result?),
    }
}

fn print_json(what: &impl serde::Serialize) -> anyhow::Result<()> {
    print(&(serde_json::to_string_pretty(what)? + "\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Command, clap::Error> {
        Cli::try_parse_from(line.split_whitespace()).map(|cli| cli.command)
    }

    #[test]
    fn the_commands_of_the_manual_parse() {
        let reach = || Reach { socket: "/run/tussock/control.sock".into() };
        let target = Name { realm: "a".into(), child: Some("b".into()) };
        assert_eq!(parse("tussock up a/b").unwrap(), Command::Up(Target { target, reach: reach() }));
        let target = Name { realm: "a".into(), child: None };
        assert_eq!(
            parse("tussock rekey a --ike").unwrap(),
            Command::Rekey(RekeyTarget { target, ike: true, reach: reach() })
        );
        assert_eq!(
            parse("tussock status --json").unwrap(),
            Command::Status(Show { json: true, reach: reach() })
        );
        assert_eq!(
            parse("tussock reload --socket /x").unwrap(),
            Command::Reload(Reach { socket: "/x".into() })
        );
        for line in [
            "tussock run --config f",
            "tussock check --config f",
            "tussock check --config f --devices",
            "tussock capture --out f",
            "tussock events",
            "tussock leases --realm a --json",
            "tussock leases release --identity carol@example.org",
            "tussock credentials home",
            "tussock credentials home --user carol",
            "tussock accel --json",
            "tussock pki token list --module p.so",
            "tussock pki token generate --module p.so --token pkcs11:token=lab --label moon --kind rsa3072",
            "tussock pki token csr --module p.so --key pkcs11:object=moon --san moon.lab.test",
            "tussock pki token import --module p.so --key pkcs11:object=moon --cert moon.crt",
            "tussock accel --follow",
        ] {
            assert!(parse(line).is_ok(), "{line}");
        }
    }

    #[test]
    fn wrong_use_is_refused_with_code_2() {
        for line in [
            "tussock",
            "tussock pki token list --module p --pin 1234",
            "tussock pki token list --module p --token x",
            "tussock up",
            "tussock up /b",
            "tussock leases release",
            "tussock leases release --address x",
            "tussock up a/b/c",
            "tussock capture",
            "tussock dance",
        ] {
            assert_eq!(parse(line).unwrap_err().exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn the_help_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}
