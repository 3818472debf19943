//! How a phone of the fault tests misbehaves. The default is a phone that does everything right.

use std::time::Duration;

use super::message::{Command, HEADER};

/// How far a phone can come before it falls silent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The TCP connection stands, and not one byte was sent.
    Connected,
    /// The TLS ClientHello was sent, and nothing after it.
    ClientHello,
    /// TLS stands, and the server's first message was not read.
    Handshake,
    /// This message was received, and not answered.
    Received(Command),
    /// This message was sent, and nothing was read after it.
    Sent(Command),
}

/// One thing that the phone does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Falls silent after this step.
    StopAfter(Step),
    /// Writes this message in pieces.
    Split {
        /// The message that is split.
        message: Command,
        /// In how many writes; at least 1.
        writes: usize,
        /// How long it waits between two of them.
        pause: Duration,
    },
    /// Says another length than the message has.
    WrongLength {
        /// The message that lies.
        message: Command,
        /// Added to the length, wrapping in 16 bits.
        by: i16,
    },
    /// Sends this message without its last byte, and then nothing.
    NeverEnd(Command),
}

/// What the phone does wrong, and how long it keeps a connection on which it fell silent.
#[derive(Debug, Clone, Default)]
pub struct Behaviour {
    /// All that it does wrong.
    pub faults: Vec<Fault>,
    /// How long it listens after it fell silent, before it closes.
    pub hold: Duration,
}

/// How one message goes out.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Writing {
    /// What is written, one TLS record each.
    pub(super) pieces: Vec<Vec<u8>>,
    /// The pause between two pieces.
    pub(super) pause: Duration,
    /// Whether the phone falls silent after them.
    pub(super) unfinished: bool,
}

impl Behaviour {
    /// Whether the phone falls silent here.
    pub(super) fn stops_after(&self, step: Step) -> bool {
        self.faults.contains(&Fault::StopAfter(step))
    }

    /// How a message of this kind, encoded as `bytes`, goes out.
    pub(super) fn writing(&self, command: Command, mut bytes: Vec<u8>) -> Writing {
        let (mut writes, mut pause, mut unfinished) = (1, Duration::ZERO, false);
        for fault in &self.faults {
            match *fault {
                Fault::Split { message, writes: count, pause: between } if message == command => {
                    (writes, pause) = (count.max(1), between);
                }
                Fault::WrongLength { message, by } if message == command => {
                    if let Some([high, low]) = bytes.get_mut(HEADER - 2..HEADER) {
                        let length = u16::from_be_bytes([*high, *low]).wrapping_add_signed(by);
                        [*high, *low] = length.to_be_bytes();
                    }
                }
                Fault::NeverEnd(message) if message == command => {
                    bytes.pop();
                    unfinished = true;
                }
                _ => {}
            }
        }
        let size = bytes.len().div_ceil(writes).max(1);
        Writing { pieces: bytes.chunks(size).map(<[u8]>::to_vec).collect(), pause, unfinished }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capf::Message;

    fn bytes() -> Vec<u8> {
        Message::new(Command::AuthResponse, 1).with(1, [1]).with(13, *b"SEP0\0").encode().unwrap()
    }

    #[test]
    fn the_default_writes_once_and_truly() {
        let writing = Behaviour::default().writing(Command::AuthResponse, bytes());
        assert_eq!(writing, Writing { pieces: vec![bytes()], pause: Duration::ZERO, unfinished: false });
    }

    #[test]
    fn faults_change_only_their_message() {
        let faults = vec![
            Fault::Split { message: Command::AuthResponse, writes: 10, pause: Duration::from_millis(1) },
            Fault::WrongLength { message: Command::AuthResponse, by: -3 },
            Fault::NeverEnd(Command::KeyGenResponse),
        ];
        let behaviour = Behaviour { faults, ..Behaviour::default() };
        let writing = behaviour.writing(Command::AuthResponse, bytes());
        assert_eq!(writing.pieces.len(), 10);
        let sent = writing.pieces.concat();
        assert_eq!(sent[7], bytes()[7] - 3);
        assert_eq!(sent[8..], bytes()[8..]);
        let writing = behaviour.writing(Command::KeyGenResponse, bytes());
        assert!(writing.unfinished);
        assert_eq!(writing.pieces, vec![bytes()[..bytes().len() - 1].to_vec()]);
        assert_eq!(behaviour.writing(Command::StoreCertResponse, bytes()).pieces, vec![bytes()]);
    }
}
