//! The TLS connection to CAPF, message by message.

use std::io::{self, Read, Write};
use std::thread;
use std::time::Duration;

use super::behaviour::Behaviour;
use super::message::{MAX_MESSAGE, Message};
use crate::error::{PhoneError, Result};
use crate::tls::{Endpoint, TlsStream};

/// Whether the server still listened when the phone stopped waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Silence {
    /// The connection was open when the time to hold it was over.
    StillOpen,
    /// The server closed it.
    Closed,
    /// The server ended the session with this reason.
    Ended(u8),
}

pub(super) struct Link<'a> {
    endpoint: &'a Endpoint,
    behaviour: &'a Behaviour,
    stream: TlsStream,
    received: Vec<u8>,
}

impl<'a> Link<'a> {
    pub(super) fn new(endpoint: &'a Endpoint, behaviour: &'a Behaviour, stream: TlsStream) -> Self {
        Self { endpoint, behaviour, stream, received: Vec::new() }
    }

    /// Sends a message in one write, or as the behaviour says. Returns false when the phone is to be silent after it.
    pub(super) fn send(&mut self, message: &Message) -> Result<bool> {
        let writing = self.behaviour.writing(message.command, message.encode()?);
        for (index, piece) in writing.pieces.iter().enumerate() {
            if index > 0 {
                thread::sleep(writing.pause);
            }
            self.stream
                .write_all(piece)
                .and_then(|()| self.stream.flush())
                .map_err(|error| self.endpoint.failed(error))?;
        }
        Ok(!writing.unfinished)
    }

    /// The server's next message, which must have come in one TLS record.
    pub(super) fn receive(&mut self) -> Result<Message> {
        if self.received.is_empty() {
            self.read_record()?;
        }
        match Message::decode(&self.received)? {
            Some((message, length)) => {
                self.received.drain(..length);
                Ok(message)
            }
            None => Err(PhoneError::CapfSplitMessage),
        }
    }

    /// Listens without a word until the server closes, ends the session, or the time is over.
    pub(super) fn stay_silent(mut self, hold: Duration) -> Silence {
        self.stream.sock.allow(hold);
        loop {
            match self.receive() {
                Ok(message) if message.command == super::Command::EndSession => {
                    return message.reason().map_or(Silence::Closed, Silence::Ended);
                }
                Ok(_) => {}
                Err(PhoneError::TimedOut { .. }) => return Silence::StillOpen,
                Err(_) => return Silence::Closed,
            }
        }
    }

    /// Tells the server that nothing follows. The session is over: whether that arrives no longer matters.
    pub(super) fn close(mut self) {
        self.stream.conn.send_close_notify();
        let _ = self.stream.flush();
    }

    fn read_record(&mut self) -> Result<()> {
        let mut buffer = vec![0; MAX_MESSAGE];
        let count = self.stream.read(&mut buffer).map_err(|error| self.endpoint.failed(error))?;
        if count == 0 {
            return Err(self.endpoint.failed(io::ErrorKind::UnexpectedEof.into()));
        }
        buffer.truncate(count);
        self.received = buffer;
        Ok(())
    }
}
