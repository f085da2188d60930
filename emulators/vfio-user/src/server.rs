//! The loop: all sockets, one thread, one wait.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::{Errno, write};
use tracing::{info, warn};

use crate::connection::{Broken, Connection};
use crate::function::Function;
use crate::listener::{ListenError, Listener};
use crate::session::Session;

/// Messages of one client before the others have their turn.
const TURN: usize = 64;
/// How long a listener that cannot accept (no descriptors left, say) is left alone.
const PAUSE: Duration = Duration::from_millis(100);

/// Devices, each on a socket of its own. A device has one client at a time; who comes while it has one waits until that
/// one has gone.
pub struct Server {
    ports: Vec<Port>,
    stop: Arc<OwnedFd>,
}

struct Port {
    function: Arc<dyn Function>,
    listener: Listener,
    client: Option<Client>,
    paused: bool,
}

struct Client {
    connection: Connection,
    session: Session,
    /// Nothing more is read, for this reason; what was answered is still sent.
    leaving: Option<Broken>,
}

/// Ends [`Server::run`], from any thread.
#[derive(Clone)]
pub struct Stopper(Arc<OwnedFd>);

impl Stopper {
    /// Ends it.
    pub fn stop(&self) {
        let _ = write(&self.0, &1u64.to_ne_bytes());
    }
}

impl Server {
    /// A server of nothing.
    ///
    /// # Errors
    /// No descriptors left.
    pub fn new() -> io::Result<Self> {
        let stop = Arc::new(eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?);
        Ok(Server { ports: Vec::new(), stop })
    }

    /// Serves a device on a socket at `path`, which is removed when the server is dropped.
    ///
    /// # Errors
    /// The path is taken or cannot be listened on.
    pub fn listen(&mut self, path: &Path, function: Arc<dyn Function>) -> Result<(), ListenError> {
        let listener = Listener::new(path)?;
        self.ports.push(Port { function, listener, client: None, paused: false });
        Ok(())
    }

    /// What ends [`run`](Server::run).
    pub fn stopper(&self) -> Stopper {
        Stopper(Arc::clone(&self.stop))
    }

    /// Serves until it is stopped.
    ///
    /// # Errors
    /// The system cannot wait for descriptors. Nothing that a client does is an error here.
    pub fn run(&mut self) -> io::Result<()> {
        loop {
            let ready = self.wait()?;
            if ready.first() == Some(&true) {
                return Ok(());
            }
            for (port, ready) in self.ports.iter_mut().zip(ready.into_iter().skip(1)) {
                if port.client.is_some() {
                    if ready {
                        port.serve();
                    }
                } else if ready || port.paused {
                    port.accept();
                }
            }
        }
    }

    /// Waits until something is ready: the order to stop first, then each port.
    fn wait(&self) -> io::Result<Vec<bool>> {
        let mut fds = vec![PollFd::new(&*self.stop, PollFlags::IN)];
        let mut paused = false;
        for port in &self.ports {
            fds.push(match &port.client {
                Some(client) => client.poll_fd(),
                None if port.paused => {
                    paused = true;
                    PollFd::from_borrowed_fd(port.listener.as_fd(), PollFlags::empty())
                }
                None => PollFd::from_borrowed_fd(port.listener.as_fd(), PollFlags::IN),
            });
        }
        let pause = Timespec { tv_sec: 0, tv_nsec: PAUSE.subsec_nanos().into() };
        match poll(&mut fds, paused.then_some(&pause)) {
            Ok(_) => Ok(fds.iter().map(|fd| !fd.revents().is_empty()).collect()),
            Err(Errno::INTR) => Ok(Vec::new()),
            Err(error) => Err(error.into()),
        }
    }
}

impl Port {
    fn accept(&mut self) {
        self.paused = false;
        let path = self.listener.path().display();
        match self.listener.accept().and_then(|stream| stream.map(Connection::new).transpose()) {
            Ok(Some(connection)) => {
                info!(socket = %path, "a client has connected");
                self.client = Some(Client { connection, session: Session::new(), leaving: None });
            }
            Ok(None) => {}
            Err(error) => {
                warn!(socket = %path, %error, "cannot accept a client");
                self.paused = true;
            }
        }
    }

    fn serve(&mut self) {
        let Some(client) = &mut self.client else { return };
        let Err(reason) = client.turn(&*self.function) else { return };
        match reason {
            Broken::Closed => info!(socket = %self.listener.path().display(), "the client has gone"),
            reason => warn!(socket = %self.listener.path().display(), %reason, "the client is let go"),
        }
        self.client = None;
        self.function.client_gone();
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        if self.client.take().is_some() {
            self.function.client_gone();
        }
    }
}

impl Client {
    /// Answers some of what has come.
    fn turn(&mut self, function: &dyn Function) -> Result<(), Broken> {
        self.connection.flush()?;
        for _ in 0..TURN {
            if self.leaving.is_some() || self.connection.is_backed_up() {
                break;
            }
            match self.answer(function) {
                Ok(true) => self.connection.flush()?,
                Ok(false) => break,
                Err(reason) => self.leaving = Some(reason),
            }
        }
        // Who has said his last word, or one that ends the conversation, may still be listening.
        self.connection.flush()?;
        if self.connection.wants_to_send() {
            return Ok(());
        }
        self.leaving.take().map_or(Ok(()), Err)
    }

    /// Answers one message; false if none is there.
    fn answer(&mut self, function: &dyn Function) -> Result<bool, Broken> {
        let Some(frame) = self.connection.receive()? else { return Ok(false) };
        self.session.handle(function, &frame.header, &frame.body, frame.fds, self.connection.out())?;
        Ok(true)
    }

    fn poll_fd(&self) -> PollFd<'_> {
        let mut flags = PollFlags::empty();
        flags.set(PollFlags::IN, self.leaving.is_none() && !self.connection.is_backed_up());
        flags.set(PollFlags::OUT, self.connection.wants_to_send());
        PollFd::from_borrowed_fd(self.connection.as_fd(), flags)
    }
}
