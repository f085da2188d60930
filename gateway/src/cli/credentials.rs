//! Passwords that EAP wants: typed without being shown, or read from standard input, and given to the key side.

use std::io::{self, BufRead, IsTerminal, Write};
use std::sync::mpsc;

use anyhow::{Context, bail};
use clap::Args;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

use super::{Reach, print};
use crate::control::client::Client;
use crate::control::passwords::{self, Password};
use crate::control::protocol::{Answer, Hidden, Request};
use crate::events::{Notice, Record};

/// How often a password may be typed for one `up`.
const TRIES: usize = 3;
/// Longest password, octets.
const MAX_PASSWORD: usize = 256;

/// Whose password.
#[derive(Args, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// The realm
    #[arg(value_name = "REALM")]
    pub realm: String,
    /// Whose password; by default that of whoever's is wanted now
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub reach: Reach,
}

/// `tussock credentials`: from the terminal, or the first line of standard input.
///
/// # Errors
/// No gateway, or nothing typed.
pub fn give(what: &Credentials) -> anyhow::Result<()> {
    let of = what.user.as_deref().unwrap_or(&what.realm);
    let password = read(&format!("password for {of}: "))?;
    send(&what.reach, &what.realm, what.user.clone(), password)
}

/// `tussock up`: asks for a password when one is wanted, and there is a terminal to ask on.
///
/// # Errors
/// The gateway's own words.
pub fn up(reach: &Reach, realm: String, child: Option<String>) -> anyhow::Result<()> {
    let request = Request::Up { realm: realm.clone(), child };
    let mut tries = 0;
    loop {
        let typed = match once(reach, &realm, &request, tries < TRIES)? {
            (Ok(answer), _) => {
                return answer
                    .text
                    .filter(|text| !text.is_empty())
                    .map_or(Ok(()), |text| print(&(text + "\n")));
            }
            (Err(error), false) => return Err(error),
            (Err(error), true) => {
                eprintln!("tussock: {error:#}");
                1
            }
        };
        tries += typed;
    }
}

/// What `up` waits for.
enum News {
    Wanted(String),
    Ended(Box<anyhow::Result<Answer>>),
}

/// One attempt; whether a password was typed in it.
fn once(
    reach: &Reach,
    realm: &str,
    request: &Request,
    may_ask: bool,
) -> anyhow::Result<(anyhow::Result<Answer>, bool)> {
    let (tell, news) = mpsc::channel();
    let mut events = Client::connect(&reach.socket)?;
    events.ask(&Request::Events {})?;
    let (listener, of) = (tell.clone(), realm.to_owned());
    // Ends with the gateway's stream, or with this program.
    std::thread::spawn(move || {
        while let Ok(Some(line)) = events.line() {
            let Ok(record) = serde_json::from_str::<Record>(&line) else { continue };
            if let Notice::PasswordWanted { realm, user, .. } = record.notice
                && realm == of
                && listener.send(News::Wanted(user)).is_err()
            {
                return;
            }
        }
    });
    let mut client = Client::connect(&reach.socket)?;
    let request = request.clone();
    std::thread::spawn(move || {
        let _ = tell.send(News::Ended(Box::new(client.ask(&request))));
    });
    let mut typed = false;
    loop {
        match news.recv().context("the gateway went away")? {
            News::Ended(result) => return Ok((*result, typed)),
            News::Wanted(user) if may_ask && io::stdin().is_terminal() => {
                let password = read(&format!("password for {user}: "))?;
                send(reach, realm, Some(user), password)?;
                typed = true;
            }
            News::Wanted(user) => {
                eprintln!("the password of {user} is wanted: tussock credentials {realm}");
            }
        }
    }
}

fn send(reach: &Reach, realm: &str, user: Option<String>, password: Hidden) -> anyhow::Result<()> {
    passwords::give(&reach.socket, &Password { realm: realm.to_owned(), user, password })
}

/// Reads a line from standard input; from a terminal without showing it.
fn read(prompt: &str) -> anyhow::Result<Hidden> {
    let stdin = io::stdin();
    let quiet = if stdin.is_terminal() { Some(Quiet::begin(prompt)?) } else { None };
    // With all the room there can be, so that growing leaves no copy behind.
    let mut line = Zeroizing::new(Vec::with_capacity(MAX_PASSWORD + 2));
    let mut lock = stdin.lock();
    loop {
        let buffer = lock.fill_buf()?;
        let at = buffer.iter().position(|octet| *octet == b'\n');
        let (taken, consumed) = at.map_or((buffer.len(), buffer.len()), |at| (at, at + 1));
        let end = at.is_some() || buffer.is_empty();
        if line.len() + taken > MAX_PASSWORD + 1 {
            bail!("a password has at most {MAX_PASSWORD} octets");
        }
        line.extend_from_slice(&buffer[..taken]);
        lock.consume(consumed);
        if end {
            break;
        }
    }
    drop(quiet);
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    if line.is_empty() {
        bail!("no password was given");
    }
    Ok(Hidden(std::str::from_utf8(&line).context("the password is not UTF-8")?.to_owned()))
}

/// A terminal that does not show what is typed, until this is dropped.
struct Quiet(Termios);

impl Quiet {
    fn begin(prompt: &str) -> anyhow::Result<Quiet> {
        let mut err = io::stderr();
        write!(err, "{prompt}")?;
        err.flush()?;
        let before = tcgetattr(io::stdin())?;
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ECHO);
        tcsetattr(io::stdin(), OptionalActions::Flush, &quiet)?;
        Ok(Quiet(before))
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin(), OptionalActions::Flush, &self.0);
        eprintln!();
    }
}
