//! A lane over TLS (RFC 6614): packets one behind the other in a stream, whose length fields say where one ends.
//!
//! Nothing here blocks: the thread polls the socket and says when it is readable or writable.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use rustls::ClientConnection;
use socket2::{Domain, Protocol, Socket, Type};

use crate::config::Tls;
use crate::packet::MAX_PACKET;

/// Read at a time.
const CHUNK: usize = 16 * 1024;

/// A connection, from the first SYN to the last octet.
pub(crate) struct TlsLane {
    tcp: TcpStream,
    tls: ClientConnection,
    /// Whether TCP is connected.
    connected: bool,
    /// Whether the engine was told that it is open.
    told: bool,
    received: Vec<u8>,
}

/// What came of looking.
pub(crate) enum Looked {
    /// Whether it has just become open, and the packets that came.
    Fine { opened: bool, packets: Vec<Vec<u8>> },
    /// It is over, and why.
    Broken { why: String, packets: Vec<Vec<u8>> },
}

impl TlsLane {
    /// Begins to connect.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn connect(to: SocketAddr, tls: &Tls) -> io::Result<TlsLane> {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        // Questions are small, and somebody waits for each.
        let _ = socket.set_tcp_nodelay(true);
        let _ = socket.set_keepalive(true);
        match socket.connect(&to.into()) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {}
            Err(error) => return Err(error),
        }
        let mut connection = ClientConnection::new(Arc::clone(&tls.config), tls.name.clone())
            .map_err(|error| io::Error::new(ErrorKind::InvalidInput, error))?;
        // What waits is bounded by the questions that are out.
        connection.set_buffer_limit(None);
        Ok(TlsLane {
            tcp: socket.into(),
            tls: connection,
            connected: false,
            told: false,
            received: Vec::new(),
        })
    }

    /// Takes a packet to send; [`TlsLane::look`] sends it.
    pub(crate) fn send(&mut self, packet: &[u8]) {
        // Writes to memory.
        let _ = self.tls.writer().write_all(packet);
    }

    /// Does what can be done now.
    pub(crate) fn look(&mut self) -> Looked {
        let mut packets = Vec::new();
        match self.go_on(&mut packets) {
            Ok(opened) => Looked::Fine { opened, packets },
            Err(error) => Looked::Broken { why: explain(&error), packets },
        }
    }

    /// Whether it waits to be writable.
    pub(crate) fn wants_write(&self) -> bool {
        !self.connected || self.tls.wants_write()
    }

    pub(crate) fn socket(&self) -> &TcpStream {
        &self.tcp
    }

    fn go_on(&mut self, packets: &mut Vec<Vec<u8>>) -> io::Result<bool> {
        if !self.connected {
            if let Some(error) = self.tcp.take_error()? {
                return Err(error);
            }
            match self.tcp.peer_addr() {
                Ok(_) => self.connected = true,
                Err(error) if error.kind() == ErrorKind::NotConnected => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        let read = self.read(packets);
        // An alert that says why is still to be sent.
        let written = self.write();
        read.and(written)?;
        let opened = !self.told && !self.tls.is_handshaking();
        self.told |= opened;
        Ok(opened)
    }

    fn read(&mut self, packets: &mut Vec<Vec<u8>>) -> io::Result<()> {
        loop {
            let end = match self.tls.read_tls(&mut self.tcp) {
                Ok(0) => true,
                Ok(_) => false,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let state = self
                .tls
                .process_new_packets()
                .map_err(|error| io::Error::new(ErrorKind::InvalidData, plain(&error)))?;
            let mut chunk = [0; CHUNK];
            loop {
                match self.tls.reader().read(&mut chunk) {
                    Ok(0) => break,
                    Ok(count) => {
                        self.received.extend_from_slice(&chunk[..count]);
                        cut(&mut self.received, packets)?;
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error),
                }
            }
            if end || state.peer_has_closed() {
                return Err(io::Error::new(ErrorKind::UnexpectedEof, "the server closed the connection"));
            }
        }
    }

    fn write(&mut self) -> io::Result<()> {
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut self.tcp) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Takes whole packets off the front. RFC 6613 section 2.6.4: a length that cannot be ends the connection.
fn cut(received: &mut Vec<u8>, packets: &mut Vec<Vec<u8>>) -> io::Result<()> {
    let mut taken = 0;
    while let Some([_, _, high, low]) = received[taken..].first_chunk::<4>() {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        if !(20..=MAX_PACKET).contains(&length) {
            return Err(io::Error::new(ErrorKind::InvalidData, format!("a packet of {length} octets")));
        }
        let Some(packet) = received[taken..].get(..length) else { break };
        packets.push(packet.to_vec());
        taken += length;
    }
    received.drain(..taken);
    Ok(())
}

/// What is wrong, for somebody who has written a configuration.
fn plain(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer) => {
            format!("{error}: no CA of `ca` has issued it")
        }
        error => error.to_string(),
    }
}

fn explain(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::ConnectionRefused => "nothing listens there".to_owned(),
        ErrorKind::InvalidData => format!("TLS: {error}"),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_cut_wherever_the_stream_was() {
        let packet = |n: u8, length: u16| {
            let mut packet = vec![n; length.into()];
            packet[2..4].copy_from_slice(&length.to_be_bytes());
            packet
        };
        let all = [packet(1, 20), packet(2, 4096), packet(3, 33)];
        let stream = all.concat();
        for step in [1, 7, 4096, stream.len()] {
            let (mut received, mut packets) = (Vec::new(), Vec::new());
            for piece in stream.chunks(step) {
                received.extend_from_slice(piece);
                cut(&mut received, &mut packets).unwrap();
            }
            assert_eq!(packets, all, "{step}");
            assert!(received.is_empty());
        }
        for length in [0u16, 19, 4097] {
            let mut received = vec![1, 1];
            received.extend_from_slice(&length.to_be_bytes());
            assert!(cut(&mut received, &mut Vec::new()).is_err(), "{length}");
        }
    }
}
