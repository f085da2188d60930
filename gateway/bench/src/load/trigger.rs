//! Telling the gateway to begin, where it is the initiator: connection after connection, so many at a time.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

/// How long one connection may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// The control socket to speak to, and how.
#[derive(Clone, Debug)]
pub enum Control {
    /// Ours: realms p0, p1, …
    Tussock(PathBuf),
    /// strongSwan's vici: connections p0, p1, …, each with a child of the same name.
    Vici(PathBuf),
}

impl FromStr for Control {
    type Err = String;

    fn from_str(text: &str) -> Result<Control, String> {
        match text.split_once(':') {
            Some(("tussock", path)) => Ok(Control::Tussock(path.into())),
            Some(("vici", path)) => Ok(Control::Vici(path.into())),
            _ => Err("tussock:PATH or vici:PATH".to_owned()),
        }
    }
}

/// How far things are.
#[derive(Default)]
struct Progress {
    /// The next connection to begin.
    next: u32,
    /// How many there are to be.
    wanted: u32,
    /// Which are up, by number.
    up: Vec<bool>,
    /// What went wrong last, and how often.
    failed: Vec<(u32, String)>,
}

/// Some threads that begin connections.
#[derive(Clone)]
pub struct Trigger(Arc<(Mutex<Progress>, Condvar)>);

impl Trigger {
    /// `window` threads; nothing is begun before it is [`wanted`](Trigger::want).
    pub fn start(control: &Control, window: usize) -> Result<Trigger> {
        let trigger = Trigger(Arc::default());
        for _ in 0..window {
            let mut line = Line::open(control)?;
            let trigger = trigger.clone();
            thread::spawn(move || {
                loop {
                    let number = trigger.take();
                    let done = line.begin(number).and_then(|()| trigger.await_up(number));
                    if let Err(error) = done {
                        trigger.lock().failed.push((number, format!("{error:#}")));
                    }
                }
            });
        }
        Ok(trigger)
    }

    /// There are to be so many.
    pub fn want(&self, count: u32) {
        self.lock().wanted = count;
        self.0.1.notify_all();
    }

    /// This one is up.
    pub fn is_up(&self, number: u32) {
        let mut progress = self.lock();
        let number = number as usize;
        if progress.up.len() <= number {
            progress.up.resize(number + 1, false);
        }
        if let Some(up) = progress.up.get_mut(number) {
            *up = true;
        }
        drop(progress);
        self.0.1.notify_all();
    }

    /// Those that failed since the last call.
    pub fn failures(&self) -> Vec<(u32, String)> {
        std::mem::take(&mut self.lock().failed)
    }

    fn take(&self) -> u32 {
        let mut progress = self.lock();
        while progress.next >= progress.wanted {
            progress = self.0.1.wait(progress).unwrap_or_else(PoisonError::into_inner);
        }
        progress.next += 1;
        progress.next - 1
    }

    fn await_up(&self, number: u32) -> Result<()> {
        let is_down = |progress: &mut Progress| progress.up.get(number as usize) != Some(&true);
        let (_guard, waited) = self
            .0
            .1
            .wait_timeout_while(self.lock(), PATIENCE, is_down)
            .unwrap_or_else(PoisonError::into_inner);
        ensure!(!waited.timed_out(), "it was begun and did not come up");
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Progress> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection to a control socket.
enum Line {
    Tussock(BufReader<UnixStream>),
    Vici(UnixStream),
}

impl Line {
    fn open(control: &Control) -> Result<Line> {
        let (Control::Tussock(path) | Control::Vici(path)) = control;
        let stream =
            UnixStream::connect(path).with_context(|| format!("nobody listens at {}", path.display()))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(match control {
            Control::Tussock(_) => Line::Tussock(BufReader::new(stream)),
            Control::Vici(_) => Line::Vici(stream),
        })
    }

    /// Returns when the gateway has taken the order, or, with ours, carried it out.
    fn begin(&mut self, number: u32) -> Result<()> {
        match self {
            Line::Tussock(stream) => {
                writeln!(stream.get_mut(), r#"{{"cmd":"up","realm":"p{number}"}}"#)?;
                let mut answer = String::new();
                stream.read_line(&mut answer)?;
                ensure!(answer.contains(r#""ok":true"#), "the gateway says {}", answer.trim());
                Ok(())
            }
            Line::Vici(stream) => initiate(stream, number),
        }
    }
}

/// vici, strongSwan's control protocol: a length, a packet type, a name, key-value pairs.
fn initiate(stream: &mut UnixStream, number: u32) -> Result<()> {
    const REQUEST: u8 = 0;
    const RESPONSE: u8 = 1;
    const KEY_VALUE: u8 = 3;
    let name = format!("p{number}");
    let mut packet = vec![REQUEST];
    text8(&mut packet, "initiate");
    // A negative time: do not wait for it to come up.
    for (key, value) in [("ike", &*name), ("child", &*name), ("timeout", "-1"), ("loglevel", "-1")] {
        packet.push(KEY_VALUE);
        text8(&mut packet, key);
        packet.extend((value.len() as u16).to_be_bytes());
        packet.extend(value.as_bytes());
    }
    stream.write_all(&[&(packet.len() as u32).to_be_bytes(), &packet[..]].concat())?;
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length) as usize;
    ensure!(length < 1 << 20, "an answer of {length} octets");
    let mut answer = vec![0; length];
    stream.read_exact(&mut answer)?;
    let text = String::from_utf8_lossy(&answer);
    match answer.first() {
        Some(&RESPONSE) if text.contains("success") && text.contains("yes") => Ok(()),
        _ => bail!("strongSwan does not begin p{number}: {text}"),
    }
}

fn text8(packet: &mut Vec<u8>, text: &str) {
    packet.push(text.len() as u8);
    packet.extend(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A control socket that says `answer` to one order; what the order was, and what came of it.
    fn order(answer: &'static [u8]) -> (Vec<u8>, Result<()>) {
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        let other_end = thread::spawn(move || {
            let mut length = [0; 4];
            theirs.read_exact(&mut length).unwrap();
            let mut order = vec![0; u32::from_be_bytes(length) as usize];
            theirs.read_exact(&mut order).unwrap();
            theirs.write_all(&[&(answer.len() as u32).to_be_bytes(), answer].concat()).unwrap();
            order
        });
        let result = initiate(&mut ours, 7);
        (other_end.join().unwrap(), result)
    }

    #[test]
    fn an_order_names_its_values_and_a_refusal_is_an_error() {
        let (sent, done) = order(b"\x01\x03\x07success\x00\x03yes");
        assert!(
            sent.starts_with(b"\x00\x08initiate\x03\x03ike\x00\x02p7\x03\x05child\x00\x02p7"),
            "{sent:?}"
        );
        done.unwrap();
        let (_, done) = order(b"\x01\x03\x07success\x00\x02no");
        assert!(done.is_err());
    }

    #[test]
    fn what_is_wanted_is_begun_once_each_and_waits_until_it_is_up() {
        let trigger = Trigger(Arc::default());
        trigger.want(2);
        assert_eq!((trigger.take(), trigger.take()), (0, 1));
        trigger.is_up(1);
        trigger.await_up(1).unwrap();
    }
}
