//! The key side's own socket, beside the control socket: for passwords that somebody types. The control socket is served by the
//! process that faces the network, which is not to see them; this one is served by the process that holds the keys.
//!
//! Whoever connects says one thing, gets one answer, and is gone: there is no more to hold on to.

use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use spi::Secret;
use zeroize::Zeroizing;

use super::protocol::{Answer, Hidden};

/// Longest thing to say, octets.
const MOST: usize = 4096;
/// How long it may take to say it.
const PATIENCE: Duration = Duration::from_secs(2);

/// The socket's place, beside the control socket.
pub fn beside(control: &Path) -> PathBuf {
    control.with_file_name("keys.sock")
}

/// The one thing there is to say: the password of somebody, for EAP. It is kept until the key side ends or the peer refuses it.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Password {
    /// The realm.
    pub realm: String,
    /// Whose; whoever's is wanted, if nobody is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// It.
    pub password: Hidden,
}

/// Says it to the key side of the gateway with this control socket.
///
/// # Errors
/// Nobody there, not allowed to, or the key side's own words.
pub fn give(control: &Path, password: &Password) -> anyhow::Result<()> {
    let path = beside(control);
    let stream = super::client::connect(&path)?;
    let limit = Some(4 * PATIENCE);
    stream.set_read_timeout(limit)?;
    stream.set_write_timeout(limit)?;
    // With all the room there can be, so that growing leaves no copy behind.
    let mut line = Zeroizing::new(Vec::with_capacity(MOST));
    serde_json::to_writer(&mut *line, password)?;
    line.push(b'\n');
    (&stream).write_all(&line)?;
    let mut answer = Vec::new();
    (&stream).take(MOST as u64).read_to_end(&mut answer).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => anyhow::anyhow!("the key side does not answer; is it starting again?"),
        _ => error.into(),
    })?;
    let answer: Answer =
        serde_json::from_slice(&answer).map_err(|_| anyhow::anyhow!("the key side went away"))?;
    anyhow::ensure!(answer.ok, answer.error.unwrap_or_default());
    Ok(())
}

/// Serves the socket on a thread of its own, one client at a time, as long as the process lives. Who may connect is a matter of
/// the file's owner, as with the control socket.
///
/// # Errors
/// No thread.
pub fn serve(listener: UnixListener, passwords: secure::Passwords) -> io::Result<()> {
    listener.set_nonblocking(false)?;
    let run = move || {
        loop {
            let served = listener.accept().and_then(|(stream, _)| {
                let answer = hear(&stream).and_then(|Password { realm, user, password }| {
                    let secret = Secret::from_slice(password.0.as_bytes());
                    passwords.give(realm, user, secret).map_err(|error| error.to_string())
                });
                answer_with(&stream, answer)
            });
            if let Err(error) = served {
                tracing::debug!(%error, "a client of the key side");
                // Without descriptors there would be no end to it.
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    };
    std::thread::Builder::new().name("passwords".into()).spawn(run).map(drop)
}

/// What a client says, or why it is not heard.
fn hear(stream: &UnixStream) -> Result<Password, String> {
    let line = line(stream).map_err(|error| error.to_string())?;
    serde_json::from_slice(&line).map_err(|error| format!("not a password: {error}"))
}

/// A line, within its bounds of length and time.
fn line(mut stream: &UnixStream) -> io::Result<Zeroizing<Vec<u8>>> {
    let until = Instant::now() + PATIENCE;
    let mut line = Zeroizing::new(vec![0; MOST]);
    let mut length = 0;
    while line[..length].last() != Some(&b'\n') {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() || length == MOST {
            return Err(io::Error::other("too long"));
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut line[length..])? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            got => length += got,
        }
    }
    line.truncate(length);
    Ok(line)
}

fn answer_with(mut stream: &UnixStream, answer: Result<(), String>) -> io::Result<()> {
    let answer = answer.map_or_else(Answer::failed, |()| Answer::done("the key side has it"));
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(&serde_json::to_vec(&answer)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the key side makes of these octets.
    fn heard(octets: &[u8]) -> Result<Password, String> {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        ours.write_all(octets).unwrap();
        ours.shutdown(std::net::Shutdown::Write).unwrap();
        hear(&theirs)
    }

    #[test]
    fn a_password_arrives_and_is_not_shown() {
        let line = r#"{"realm":"home","password":"Ar3etTnp"}"#;
        let password = heard(format!("{line}\n").as_bytes()).unwrap();
        assert!(!format!("{password:?}").contains("Ar3etTnp"));
        assert_eq!(serde_json::to_string(&password).unwrap(), line);
    }

    #[test]
    fn what_is_no_password_is_refused() {
        for wrong in ["", "{", "{}\n", "[]\n", "{\"cmd\":\"up\",\"realm\":\"a\"}\n"] {
            assert!(heard(wrong.as_bytes()).is_err(), "{wrong}");
        }
        let endless = vec![b'x'; MOST];
        assert_eq!(heard(&endless), Err("too long".to_owned()));
    }

    #[test]
    fn a_client_that_says_nothing_is_not_waited_for_long() {
        let (_silent, theirs) = UnixStream::pair().unwrap();
        assert!(hear(&theirs).is_err());
    }
}
