//! The commands' end of the control socket.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use anyhow::{Context, anyhow, bail};

use super::protocol::{Answer, Request};

/// A connection to a running gateway.
pub struct Client {
    stream: UnixStream,
    lines: BufReader<UnixStream>,
}

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// Nobody there, or not allowed to; the message says what to do.
    pub fn connect(path: &Path) -> anyhow::Result<Client> {
        let stream = connect(path)?;
        let lines = BufReader::new(stream.try_clone()?);
        Ok(Client { stream, lines })
    }

    /// Asks and waits for the answer.
    ///
    /// # Errors
    /// The gateway's own words when it says no.
    pub fn ask(&mut self, request: &Request) -> anyhow::Result<Answer> {
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        self.stream.write_all(&line).context("the gateway does not listen")?;
        let line = self.line()?.context("the gateway went away")?;
        let answer: Answer = serde_json::from_str(&line).context("not an answer; is it another version?")?;
        if answer.ok {
            Ok(answer)
        } else {
            bail!(answer.error.unwrap_or_else(|| "it did not work".to_owned()))
        }
    }

    /// The next line of a stream; `None` when it has ended.
    ///
    /// # Errors
    /// What the socket says.
    pub fn line(&mut self) -> io::Result<Option<String>> {
        let mut line = String::new();
        Ok((self.lines.read_line(&mut line)? > 0).then_some(line))
    }

    /// Copies the octets of a stream until it ends.
    ///
    /// # Errors
    /// What the socket or `to` says.
    pub fn copy(&mut self, to: &mut impl Write) -> io::Result<()> {
        loop {
            let bytes = self.lines.fill_buf()?;
            if bytes.is_empty() {
                return Ok(());
            }
            to.write_all(bytes)?;
            to.flush()?;
            let length = bytes.len();
            self.lines.consume(length);
        }
    }
}

/// A connection to a socket of a running gateway.
pub(super) fn connect(path: &Path) -> anyhow::Result<UnixStream> {
    UnixStream::connect(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            anyhow!(
                "no gateway answers at {}; is `tussock run` running, and is --socket right?",
                path.display()
            )
        }
        io::ErrorKind::PermissionDenied => {
            anyhow!("{}: permission denied; are you root?", path.display())
        }
        _ => anyhow!("{}: {error}", path.display()),
    })
}
