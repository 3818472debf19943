//! The reading side of a TFTP transfer as a state machine: packets in, packets out.

use super::Options;
use crate::error::{PhoneError, Result};
use crate::transfer::MAX_FILE;

/// Error code 5: unknown transfer identifier.
pub(super) const UNKNOWN_TRANSFER: u16 = 5;
const NOT_FOUND: u16 = 1;
const DISK_FULL: u16 = 3;
const ILLEGAL: u16 = 4;
const BAD_OPTION: u16 = 8;

const READ: u16 = 1;
const DATA: u16 = 3;
const ACKNOWLEDGE: u16 = 4;
const ERROR: u16 = 5;
const OPTIONS: u16 = 6;

/// Block size without the option (RFC 1350).
const PLAIN_BLOCK: usize = 512;
const WHAT: &str = "TFTP packet";

/// What the transfer does after a packet.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Send this, and repeat it when nothing comes.
    Send(Vec<u8>),
    /// A repeated packet: nothing to do.
    Ignore,
    /// Send this acknowledgement; the file is complete.
    Done(Vec<u8>, Vec<u8>),
}

/// The state of one transfer.
#[derive(Debug)]
pub(super) struct Receiver {
    name: String,
    asked: Vec<(&'static str, u32)>,
    block_size: usize,
    announced: Option<usize>,
    /// The block that comes next; wraps after 65535.
    next_block: u16,
    started: bool,
    file: Vec<u8>,
    error_code: Option<u16>,
}

impl Receiver {
    pub(super) fn new(name: &str, options: &Options) -> Result<Self> {
        if name.is_empty() || name.contains('\0') {
            return Err(PhoneError::Setting("a file name that TFTP cannot carry".to_owned()));
        }
        let asked = [
            options.block_size.map(|size| ("blksize", u32::from(size))),
            options.ask_size.then_some(("tsize", 0)),
            options.timeout.map(|seconds| ("timeout", u32::from(seconds))),
        ];
        Ok(Self {
            name: name.to_owned(),
            asked: asked.into_iter().flatten().collect(),
            block_size: PLAIN_BLOCK,
            announced: None,
            next_block: 1,
            started: false,
            file: Vec::new(),
            error_code: None,
        })
    }

    /// The read request: `1, name NUL, "octet" NUL, (option NUL, value NUL)*`.
    pub(super) fn request(&self) -> Vec<u8> {
        let mut packet = READ.to_be_bytes().to_vec();
        let options = self.asked.iter().flat_map(|(option, value)| [(*option).to_owned(), value.to_string()]);
        for text in [self.name.clone(), "octet".to_owned()].into_iter().chain(options) {
            packet.extend_from_slice(text.as_bytes());
            packet.push(0);
        }
        packet
    }

    /// The code to tell the server after an error, when it is to be told.
    pub(super) fn error_code(&self) -> Option<u16> {
        self.error_code
    }

    pub(super) fn on_packet(&mut self, packet: &[u8]) -> Result<Action> {
        let (opcode, rest) = split_short(packet).ok_or(malformed("shorter than its opcode"))?;
        match opcode {
            DATA => self.on_data(rest),
            OPTIONS => self.on_options(rest),
            ERROR => Err(self.on_error(rest)),
            _ => self.fail(ILLEGAL, "an opcode that a server does not send"),
        }
    }

    fn fail<T>(&mut self, code: u16, why: &'static str) -> Result<T> {
        self.error_code = Some(code);
        Err(malformed(why))
    }

    fn on_error(&self, rest: &[u8]) -> PhoneError {
        let (code, text) = split_short(rest).unwrap_or((0, rest));
        if code == NOT_FOUND {
            return PhoneError::NotFound { name: self.name.clone() };
        }
        let text: String = String::from_utf8_lossy(text).chars().filter(|c| !c.is_control()).take(80).collect();
        PhoneError::FileRefused { name: self.name.clone(), why: format!("TFTP error {code} ({text})") }
    }

    fn on_options(&mut self, rest: &[u8]) -> Result<Action> {
        if self.started {
            // The first acknowledgement was lost; block 1 answers when it is repeated.
            return Ok(if self.next_block == 1 { Action::Send(acknowledgement(0)) } else { Action::Ignore });
        }
        let Some(pairs) = option_pairs(rest) else {
            return self.fail(BAD_OPTION, "its options are not pairs of a name and a number");
        };
        let mut seen = Vec::new();
        for (option, value) in pairs {
            let Some((name, asked)) = self.asked.iter().find(|(name, _)| name.eq_ignore_ascii_case(&option)).copied()
            else {
                return self.fail(BAD_OPTION, "it acknowledges an option that was not asked for");
            };
            if seen.contains(&name) {
                return self.fail(BAD_OPTION, "it acknowledges an option twice");
            }
            seen.push(name);
            match name {
                "blksize" if (8..=asked).contains(&value) => self.block_size = value as usize,
                "tsize" if value as usize <= MAX_FILE => self.announced = Some(value as usize),
                "tsize" => return self.fail(DISK_FULL, "the file is larger than this phone takes"),
                "timeout" if value == asked => {}
                _ => return self.fail(BAD_OPTION, "it answers an option with a value that was not asked for"),
            }
        }
        self.started = true;
        Ok(Action::Send(acknowledgement(0)))
    }

    fn on_data(&mut self, rest: &[u8]) -> Result<Action> {
        let Some((block, data)) = split_short(rest) else {
            return self.fail(ILLEGAL, "a block without its number");
        };
        if block != self.next_block {
            // A repeated block is acknowledged again so that a lost acknowledgement does not stop the server.
            let repeated = self.started && block == self.next_block.wrapping_sub(1);
            return Ok(if repeated { Action::Send(acknowledgement(block)) } else { Action::Ignore });
        }
        if data.len() > self.block_size {
            return self.fail(ILLEGAL, "a block is longer than agreed");
        }
        if self.file.len() + data.len() > MAX_FILE {
            return self.fail(DISK_FULL, "the file is larger than this phone takes");
        }
        self.started = true;
        self.file.extend_from_slice(data);
        self.next_block = self.next_block.wrapping_add(1);
        if data.len() == self.block_size {
            return Ok(Action::Send(acknowledgement(block)));
        }
        if self.announced.is_some_and(|size| size != self.file.len()) {
            return self.fail(ILLEGAL, "the file is not as long as the server announced");
        }
        Ok(Action::Done(acknowledgement(block), std::mem::take(&mut self.file)))
    }
}

/// `5, code, NUL`: an error packet with an empty text.
pub(super) fn error_packet(code: u16) -> Vec<u8> {
    [&ERROR.to_be_bytes()[..], &code.to_be_bytes(), &[0]].concat()
}

fn acknowledgement(block: u16) -> Vec<u8> {
    [ACKNOWLEDGE.to_be_bytes(), block.to_be_bytes()].concat()
}

fn split_short(bytes: &[u8]) -> Option<(u16, &[u8])> {
    bytes.split_first_chunk::<2>().map(|(value, rest)| (u16::from_be_bytes(*value), rest))
}

fn option_pairs(bytes: &[u8]) -> Option<Vec<(String, u32)>> {
    let mut texts = bytes.strip_suffix(&[0])?.split(|byte| *byte == 0);
    let mut pairs = Vec::new();
    while let Some(name) = texts.next() {
        let name = std::str::from_utf8(name).ok()?;
        let value = std::str::from_utf8(texts.next()?).ok()?.parse().ok()?;
        pairs.push((name.to_owned(), value));
    }
    Some(pairs)
}

fn malformed(why: &'static str) -> PhoneError {
    PhoneError::Malformed { what: WHAT, why }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn data(block: u16, bytes: &[u8]) -> Vec<u8> {
        [&[0, 3][..], &block.to_be_bytes(), bytes].concat()
    }

    /// An opcode and texts that end with NUL.
    fn packet(opcode: u16, texts: &[&str]) -> Vec<u8> {
        let texts = texts.iter().flat_map(|text| text.bytes().chain([0]));
        opcode.to_be_bytes().into_iter().chain(texts).collect()
    }

    fn receiver() -> Receiver {
        Receiver::new("a.tlv", &Options::default()).unwrap()
    }

    #[test]
    fn the_request_asks_for_every_option() {
        let texts = ["a.tlv", "octet", "blksize", "1428", "tsize", "0", "timeout", "2"];
        assert_eq!(receiver().request(), packet(1, &texts));
        let plain = Options { block_size: None, ask_size: false, timeout: None, ..Options::default() };
        assert_eq!(Receiver::new("a", &plain).unwrap().request(), packet(1, &["a", "octet"]));
        assert!(Receiver::new("a\0b", &plain).is_err());
    }

    #[test]
    fn a_server_without_options_sends_512_byte_blocks() {
        let mut receiver = receiver();
        assert_eq!(receiver.on_packet(&data(1, &[7; 512])).unwrap(), Action::Send(vec![0, 4, 0, 1]));
        // Repeated: acknowledged again, not taken twice.
        assert_eq!(receiver.on_packet(&data(1, &[7; 512])).unwrap(), Action::Send(vec![0, 4, 0, 1]));
        assert_eq!(receiver.on_packet(&data(9, &[7; 512])).unwrap(), Action::Ignore);
        let file = vec![7; 512];
        assert_eq!(receiver.on_packet(&data(2, &[])).unwrap(), Action::Done(vec![0, 4, 0, 2], file));
    }

    #[test]
    fn options_bind_the_server() {
        let mut receiver = receiver();
        let accepted = packet(6, &["blksize", "1024", "TSIZE", "1030"]);
        assert_eq!(receiver.on_packet(&accepted).unwrap(), Action::Send(vec![0, 4, 0, 0]));
        assert_eq!(receiver.on_packet(&data(1, &[1; 1024])).unwrap(), Action::Send(vec![0, 4, 0, 1]));
        let error = receiver.on_packet(&data(2, &[1; 5])).unwrap_err();
        assert!(error.to_string().contains("announced"), "{error}");
    }

    #[test]
    fn options_that_were_not_asked_for_are_refused() {
        for answer in [
            &["blksize", "2000"][..],
            &["windowsize", "4"],
            &["tsize", "99999999"],
            &["timeout", "9"],
            &["tsize", "1", "tsize", "1"],
            &["blksize"],
            &["blksize", "-8"],
        ] {
            let mut receiver = receiver();
            assert!(receiver.on_packet(&packet(6, answer)).is_err(), "{answer:?}");
            assert!(receiver.error_code().is_some());
        }
    }

    #[test]
    fn absence_is_told_from_refusal() {
        assert!(matches!(receiver().on_packet(b"\0\x05\0\x01gone\0"), Err(PhoneError::NotFound { .. })));
        assert!(matches!(receiver().on_packet(b"\0\x05\0\x02no\0"), Err(PhoneError::FileRefused { .. })));
    }

    proptest! {
        #[test]
        fn arbitrary_packets_never_panic(packets in proptest::collection::vec(
            proptest::collection::vec(any::<u8>(), 0..64), 0..8)) {
            let mut receiver = receiver();
            for packet in packets {
                let _ = receiver.on_packet(&packet);
            }
        }
    }
}
