//! The gateway's end of the control socket. Runs on the control thread; slow clients hold up nobody but themselves.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener as StdListener;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use serde::Serialize;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixListener;
use tokio::sync::{Semaphore, broadcast, oneshot};

use super::protocol::{Answer, MAX_REQUEST, Request};
use crate::backlog;
use crate::events::Events;
use crate::report::AccelDevice;
use crate::worker::order::{Order, Orders};

/// Clients at one time.
const CLIENTS: usize = 64;
/// How long a client may take to read what it asked for.
const PATIENCE: Duration = Duration::from_secs(10);
/// Blocks of a capture that may wait for a client.
const CAPTURE_BACKLOG: usize = 4096;
/// Their octets.
const CAPTURE_OCTETS: usize = 16 << 20;
/// How long a client may say nothing before it makes room for another.
const IDLE: Duration = Duration::from_secs(60);

/// Reads the configuration again; says what came of it.
pub type Reloader = Arc<dyn Fn() -> Result<String, String> + Send + Sync>;

/// How devices are that hold keys. May take a moment: a token is asked who it is.
pub type Looker = Arc<dyn Fn() -> Vec<AccelDevice> + Send + Sync>;

/// What clients reach.
#[derive(Clone)]
pub struct Server {
    /// The worker.
    pub orders: Orders,
    /// Events.
    pub events: Events,
    /// What `reload` does. May block for a moment.
    pub reloader: Reloader,
    /// Devices that hold keys.
    pub keys: Looker,
}

/// Makes a socket, in the place of one that a killed gateway left; only its owner may use it.
///
/// # Errors
/// What the file system says.
pub fn listen(path: &Path) -> anyhow::Result<StdListener> {
    match std::fs::remove_file(path) {
        Ok(()) => tracing::debug!(path = %path.display(), "removed a socket of an earlier run"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("cannot remove {}", path.display())),
    }
    // The mask sees to it that there is no moment in which others may connect.
    let mask = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o177));
    let listener = StdListener::bind(path);
    rustix::process::umask(mask);
    let listener = listener.with_context(|| format!("cannot make the socket {}", path.display()))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

impl Server {
    /// Serves clients for ever.
    pub async fn serve(self, listener: UnixListener) {
        let places = Arc::new(Semaphore::new(CLIENTS));
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            match listener.accept().await {
                Ok((stream, _)) => {
                    let server = self.clone();
                    tokio::spawn(async move {
                        let (from, to) = stream.into_split();
                        if let Err(error) = server.client(from, to).await {
                            tracing::debug!(%error, "control client");
                        }
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "the control socket");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    /// Serves one client: requests until it goes, or one that streams.
    ///
    /// # Errors
    /// The client went, or was too slow.
    pub async fn client(
        &self,
        from: impl AsyncReadExt + Unpin,
        mut to: impl AsyncWriteExt + Unpin,
    ) -> io::Result<()> {
        let mut from = BufReader::new(from);
        let mut line = Vec::new();
        loop {
            line.clear();
            let mut limited = (&mut from).take(MAX_REQUEST as u64);
            let request = limited.read_until(b'\n', &mut line);
            let got = tokio::time::timeout(IDLE, request).await.map_err(too_slow)??;
            if got == 0 {
                return Ok(());
            }
            if line.last() != Some(&b'\n') && got >= MAX_REQUEST {
                return send(&mut to, &Answer::failed("the request is too long")).await;
            }
            let request = match serde_json::from_slice::<Request>(&line) {
                Ok(request) => request,
                Err(error) => {
                    send(&mut to, &Answer::failed(format!("not a request: {error}"))).await?;
                    continue;
                }
            };
            match request {
                Request::Events {} => return self.stream_events(&mut from, &mut to).await,
                Request::Capture {} => return self.stream_capture(&mut from, &mut to).await,
                request => {
                    // A client that goes while its command is carried out needs no answer.
                    let answer = self.answer(request).await;
                    send(&mut to, &answer).await?;
                }
            }
        }
    }

    async fn answer(&self, request: Request) -> Answer {
        if let Some(command) = request.command() {
            let (answer, result) = oneshot::channel();
            return match self.order(Order::Command { command, answer }, result).await {
                Ok(Ok(text)) => Answer::done(text),
                Ok(Err(why)) | Err(why) => Answer::failed(why),
            };
        }
        match request {
            Request::Status {} => {
                let (answer, status) = oneshot::channel();
                match self.order(Order::Status(answer), status).await {
                    Ok(status) => Answer { ok: true, status: Some(status), ..Answer::default() },
                    Err(why) => Answer::failed(why),
                }
            }
            Request::Accel {} => {
                let (answer, accel) = oneshot::channel();
                match self.order(Order::Accel(answer), accel).await {
                    Ok(mut accel) => {
                        let keys = Arc::clone(&self.keys);
                        // A token that hangs keeps one thread, and this one client.
                        let devices = tokio::task::spawn_blocking(move || keys()).await;
                        accel.devices.extend(devices.unwrap_or_default());
                        Answer { ok: true, accel: Some(accel), ..Answer::default() }
                    }
                    Err(why) => Answer::failed(why),
                }
            }
            Request::Sas {} => {
                let (answer, sas) = oneshot::channel();
                match self.order(Order::Sas(answer), sas).await {
                    Ok(sas) => Answer { ok: true, sas: Some(sas), ..Answer::default() },
                    Err(why) => Answer::failed(why),
                }
            }
            Request::Leases {} => {
                let (answer, leases) = oneshot::channel();
                match self.order(Order::Leases(answer), leases).await {
                    Ok(leases) => Answer { ok: true, leases: Some(leases), ..Answer::default() },
                    Err(why) => Answer::failed(why),
                }
            }
            Request::Reload {} => self.reload().await,
            _ => Answer::failed("not here"),
        }
    }

    /// Reads the configuration again, on a thread that may block.
    pub async fn reload(&self) -> Answer {
        let reloader = Arc::clone(&self.reloader);
        match tokio::task::spawn_blocking(move || reloader()).await {
            Ok(Ok(text)) => Answer::done(text),
            Ok(Err(why)) => Answer::failed(why),
            Err(error) => Answer::failed(error),
        }
    }

    async fn order<T>(&self, order: Order, answer: oneshot::Receiver<T>) -> Result<T, String> {
        self.orders.give(order).map_err(|error| error.to_string())?;
        answer.await.map_err(|_| "the gateway is ending".to_owned())
    }

    async fn stream_events(
        &self,
        from: &mut (impl AsyncReadExt + Unpin),
        to: &mut (impl AsyncWriteExt + Unpin),
    ) -> io::Result<()> {
        let mut events = self.events.listen();
        send(to, &Answer::done("events follow")).await?;
        loop {
            tokio::select! {
                event = events.recv() => match event {
                    Ok(record) => send(to, &record).await?,
                    Err(broadcast::error::RecvError::Lagged(lost)) => {
                        send(to, &serde_json::json!({ "event": "lost", "count": lost })).await?;
                    }
                    Err(broadcast::error::RecvError::Closed) => return Ok(()),
                },
                () = gone(from) => return Ok(()),
            }
        }
    }

    async fn stream_capture(
        &self,
        from: &mut (impl AsyncReadExt + Unpin),
        to: &mut (impl AsyncWriteExt + Unpin),
    ) -> io::Result<()> {
        let (tap, mut packets) = backlog::channel(CAPTURE_BACKLOG, CAPTURE_OCTETS);
        if let Err(error) = self.orders.give(Order::Capture(tap)) {
            return send(to, &Answer::failed(error)).await;
        }
        // The first block is the file's header; none means that there are too many already.
        let Some(header) = packets.take().await else {
            return send(to, &Answer::failed("too many captures at once")).await;
        };
        send(to, &Answer::done("capture follows")).await?;
        write(to, &header).await?;
        loop {
            tokio::select! {
                block = packets.take() => match block {
                    Some(block) => write(to, &block).await?,
                    None => return Ok(()),
                },
                () = gone(from) => return Ok(()),
            }
        }
    }
}

/// Ends when the client has closed its side.
async fn gone(from: &mut (impl AsyncReadExt + Unpin)) {
    let mut scrap = [0; 64];
    while matches!(from.read(&mut scrap).await, Ok(got) if got > 0) {}
}

async fn send(to: &mut (impl AsyncWriteExt + Unpin), what: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(what)?;
    line.push(b'\n');
    write(to, &line).await
}

fn too_slow(_: tokio::time::error::Elapsed) -> io::Error {
    io::ErrorKind::TimedOut.into()
}

async fn write(to: &mut (impl AsyncWriteExt + Unpin), bytes: &[u8]) -> io::Result<()> {
    tokio::time::timeout(PATIENCE, to.write_all(bytes)).await.map_err(too_slow)??;
    to.flush().await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::Notice;
    use crate::report::{Accel, Leases, Sas, Status};
    use crate::worker::order::{Taker, channel};
    use ike::Command;
    use tokio::io::DuplexStream;

    fn server() -> (Server, Taker) {
        let (orders, taker) = channel().unwrap();
        let reloader: Reloader = Arc::new(|| Err("g.toml:3:1: unknown key `x`".to_owned()));
        let keys: Looker = Arc::new(Vec::new);
        (Server { orders, events: Events::default(), reloader, keys }, taker)
    }

    /// Answers orders as a worker would, until the test drops the server.
    fn work(taker: Taker) {
        std::thread::spawn(move || {
            for order in taker.from {
                match order {
                    Order::Command { command: Command::Up { realm, .. }, answer } if realm == "good" => {
                        answer.send(Ok("up".to_owned())).unwrap();
                    }
                    Order::Command { answer, .. } => answer.send(Err("no answer: x".to_owned())).unwrap(),
                    Order::Status(answer) => answer.send(Status { pid: 7, ..Status::default() }).unwrap(),
                    Order::Sas(answer) => answer.send(Sas::default()).unwrap(),
                    Order::Accel(answer) => answer.send(Accel::default()).unwrap(),
                    Order::Leases(answer) => answer.send(Leases::default()).unwrap(),
                    Order::Capture(to) => {
                        to.give(b"header".to_vec()).unwrap();
                        to.give(b"packet".to_vec()).unwrap();
                    }
                    Order::Reload { .. }
                    | Order::KeySide(_)
                    | Order::Stop(_)
                    | Order::Address { .. }
                    | Order::AddressLost { .. } => {}
                }
            }
        });
    }

    fn connect(server: Server) -> BufReader<DuplexStream> {
        let (ours, theirs) = tokio::io::duplex(4096);
        let (from, to) = tokio::io::split(theirs);
        tokio::spawn(async move { server.client(from, to).await });
        BufReader::new(ours)
    }

    async fn ask(client: &mut BufReader<DuplexStream>, line: &str) -> Answer {
        client.get_mut().write_all(format!("{line}\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        client.read_line(&mut answer).await.unwrap();
        serde_json::from_str(&answer).unwrap()
    }

    #[tokio::test]
    async fn one_connection_serves_many_requests_and_wrong_ones_do_not_end_it() {
        let (server, taker) = server();
        work(taker);
        let mut client = connect(server);
        assert_eq!(ask(&mut client, r#"{"cmd":"up","realm":"good"}"#).await, Answer::done("up"));
        assert_eq!(ask(&mut client, r#"{"cmd":"up","realm":"bad"}"#).await, Answer::failed("no answer: x"));
        assert!(ask(&mut client, "nonsense").await.error.unwrap().starts_with("not a request"));
        assert_eq!(ask(&mut client, r#"{"cmd":"status"}"#).await.status.unwrap().pid, 7);
        assert!(ask(&mut client, r#"{"cmd":"accel"}"#).await.accel.unwrap().devices.is_empty());
        assert!(ask(&mut client, r#"{"cmd":"sas"}"#).await.sas.unwrap().ike_sas.is_empty());
        let reload = ask(&mut client, r#"{"cmd":"reload"}"#).await;
        assert_eq!(reload, Answer::failed("g.toml:3:1: unknown key `x`"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_says_nothing_makes_room() {
        let (server, _taker) = server();
        let mut client = connect(server);
        client.get_mut().write_all(b"{").await.unwrap();
        let mut rest = String::new();
        let end = tokio::time::timeout(2 * IDLE, client.read_to_string(&mut rest)).await;
        assert_eq!(end.expect("the server hangs up").unwrap(), 0);
    }

    #[tokio::test]
    async fn a_request_without_end_is_cut_off() {
        let (server, _taker) = server();
        let mut client = connect(server);
        client.get_mut().write_all(&vec![b'x'; MAX_REQUEST]).await.unwrap();
        let mut rest = String::new();
        client.read_to_string(&mut rest).await.unwrap();
        assert_eq!(serde_json::from_str::<Answer>(&rest).unwrap(), Answer::failed("the request is too long"));
    }

    #[tokio::test]
    async fn events_are_streamed_until_the_client_goes() {
        let (server, _taker) = server();
        let events = server.events.clone();
        let mut client = connect(server);
        assert!(ask(&mut client, r#"{"cmd":"events"}"#).await.ok);
        events.publish(Notice::Reloaded { realms: 3 });
        let mut line = String::new();
        client.read_line(&mut line).await.unwrap();
        assert!(line.contains(r#""event":"reloaded","realms":3"#), "{line}");
    }

    #[tokio::test]
    async fn a_capture_is_the_answer_and_then_the_file() {
        let (server, taker) = server();
        work(taker);
        let mut client = connect(server);
        assert!(ask(&mut client, r#"{"cmd":"capture"}"#).await.ok);
        let mut file = [0; 12];
        client.read_exact(&mut file).await.unwrap();
        assert_eq!(&file, b"headerpacket");
    }

    #[tokio::test]
    async fn when_the_worker_has_ended_everyone_is_told() {
        let (server, taker) = server();
        drop(taker);
        let mut client = connect(server);
        let answer = ask(&mut client, r#"{"cmd":"sas"}"#).await;
        assert_eq!(answer.error.as_deref(), Some("the gateway is ending"));
    }

    #[test]
    fn the_socket_is_for_its_owner_alone_and_an_old_one_is_replaced() {
        let path = std::env::temp_dir().join(format!("tussock-control-{}.sock", std::process::id()));
        let first = listen(&path).unwrap();
        drop(first);
        assert!(path.exists(), "as a killed gateway leaves it");
        let _second = listen(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::remove_file(&path).unwrap();
    }
}
