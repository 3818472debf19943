//! A TFTP reader: RFC 1350 with the options of RFC 2347 (negotiation), 2348 (blksize) and 2349 (timeout, tsize).

mod receiver;

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use crate::error::{PhoneError, Result};
use crate::tls::Endpoint;
use receiver::{Action, Receiver};

/// What the phone asks the server for beside the file. Everything `None` is a plain RFC 1350 request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Block size in bytes, 8 to 65464.
    pub block_size: Option<u16>,
    /// Whether to ask for the file's size.
    pub ask_size: bool,
    /// Retransmission time-out of the server in seconds, 1 to 255.
    pub timeout: Option<u8>,
    /// How long the phone waits for a packet before it repeats its own.
    pub wait: Duration,
    /// How often it repeats before it gives up.
    pub repeats: u32,
}

impl Default for Options {
    /// One block fits an Ethernet frame: 1500 less the IPv4, UDP and TFTP headers, rounded down.
    fn default() -> Self {
        Self { block_size: Some(1428), ask_size: true, timeout: Some(2), wait: Duration::from_secs(1), repeats: 5 }
    }
}

/// Fetches `name` in octet mode.
///
/// # Errors
/// [`PhoneError::NotFound`] for error code 1, [`PhoneError::FileRefused`] for any other, [`PhoneError::TimedOut`],
/// [`PhoneError::Malformed`] for a packet that breaks the RFCs.
pub fn fetch(endpoint: &Endpoint, name: &str, options: Options) -> Result<Vec<u8>> {
    let server = endpoint.address()?;
    let any: SocketAddr = if server.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0_u16; 8], 0).into() };
    let socket = UdpSocket::bind(any).map_err(|error| endpoint.failed(error))?;
    Transfer { endpoint, socket, server, peer: None, deadline: Instant::now() + endpoint.limit, options }.run(name)
}

struct Transfer<'a> {
    endpoint: &'a Endpoint,
    socket: UdpSocket,
    server: SocketAddr,
    /// The server's transfer identifier: the port of its first answer.
    peer: Option<SocketAddr>,
    deadline: Instant,
    options: Options,
}

impl Transfer<'_> {
    fn run(mut self, name: &str) -> Result<Vec<u8>> {
        let mut receiver = Receiver::new(name, &self.options)?;
        let mut last = receiver.request();
        self.send(&last)?;
        loop {
            let packet = self.next_packet(&last)?;
            match receiver.on_packet(&packet) {
                Ok(Action::Send(next)) => {
                    self.send(&next)?;
                    last = next;
                }
                Ok(Action::Ignore) => {}
                Ok(Action::Done(acknowledgement, file)) => {
                    // Lost or not, the file is here; a server that misses it repeats into a closed port.
                    self.send(&acknowledgement)?;
                    return Ok(file);
                }
                Err(error) => {
                    if let Some(code) = receiver.error_code() {
                        self.send(&receiver::error_packet(code))?;
                    }
                    return Err(error);
                }
            }
        }
    }

    fn timed_out(&self) -> PhoneError {
        PhoneError::TimedOut { service: self.endpoint.service }
    }

    fn send(&self, packet: &[u8]) -> Result<()> {
        let to = self.peer.unwrap_or(self.server);
        self.socket.send_to(packet, to).map(drop).map_err(|error| self.endpoint.failed(error))
    }

    /// Waits for a packet from the server; repeats `last` when none comes.
    fn next_packet(&mut self, last: &[u8]) -> Result<Vec<u8>> {
        let mut buffer = vec![0; 65536];
        let mut repeats = 0;
        let mut wait_until = Instant::now() + self.options.wait;
        loop {
            let now = Instant::now();
            if now >= self.deadline {
                return Err(self.timed_out());
            }
            let left = wait_until.min(self.deadline).saturating_duration_since(now).max(Duration::from_millis(1));
            self.socket.set_read_timeout(Some(left)).map_err(|error| self.endpoint.failed(error))?;
            match self.socket.recv_from(&mut buffer) {
                Ok((length, from)) if self.is_peer(from)? => {
                    buffer.truncate(length);
                    return Ok(buffer);
                }
                Ok(_) => {}
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    if Instant::now() >= wait_until {
                        if repeats == self.options.repeats {
                            return Err(self.timed_out());
                        }
                        self.send(last)?;
                        repeats += 1;
                        wait_until = Instant::now() + self.options.wait;
                    }
                }
                Err(error) => return Err(self.endpoint.failed(error)),
            }
        }
    }

    /// A stranger's packet is answered with error 5 and changes nothing (RFC 1350 §4).
    fn is_peer(&mut self, from: SocketAddr) -> Result<bool> {
        match self.peer {
            None if from.ip() == self.server.ip() => {
                self.peer = Some(from);
                Ok(true)
            }
            Some(peer) if peer == from => Ok(true),
            _ => {
                let answer = receiver::error_packet(receiver::UNKNOWN_TRANSFER);
                self.socket.send_to(&answer, from).map_err(|error| self.endpoint.failed(error))?;
                Ok(false)
            }
        }
    }
}
