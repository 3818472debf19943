//! TFTP packets (RFC 1350, 5; RFC 2347).

/// Longest request in bytes (RFC 2347, page 3).
pub const REQUEST_LIMIT: usize = 512;

/// Options of one request that are looked at. Three are known to this server.
const OPTIONS_LIMIT: usize = 16;

/// Names and values of options, as sent.
pub type Options = Vec<(Vec<u8>, Vec<u8>)>;

/// Error codes (RFC 1350, appendix I; 8 by RFC 2347).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u16)]
#[allow(missing_docs)] // RFC 1350's words
pub enum ErrorCode {
    NotDefined = 0,
    FileNotFound = 1,
    AccessViolation = 2,
    IllegalOperation = 4,
    UnknownTransfer = 5,
    OptionRefused = 8,
}

/// What a request wants.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Direction {
    /// RRQ, opcode 1.
    Read,
    /// WRQ, opcode 2.
    Write,
}

/// `opcode: u16, name, 0, mode, 0, {option, 0, value, 0}`, texts without NUL (RFC 1350, figure 5-1; RFC 2347).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Request {
    /// RRQ or WRQ.
    pub direction: Direction,
    /// File name, as sent.
    pub name: Vec<u8>,
    /// `octet`, `netascii` or `mail` in any case.
    pub mode: Vec<u8>,
    /// Option names and values, as sent.
    pub options: Options,
}

/// A packet. Block numbers wrap from 65535 to 0.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Packet<'a> {
    /// Opcodes 1 and 2.
    Request(Request),
    /// `3, block: u16, data` (figure 5-2).
    Data {
        /// Block number.
        block: u16,
        /// Content; shorter than the block size in the last block.
        data: &'a [u8],
    },
    /// `4, block: u16` (figure 5-3).
    Ack(u16),
    /// `5, code: u16, message, 0` (figure 5-4).
    Error {
        /// [`ErrorCode`], or one that this server does not know.
        code: u16,
        /// For a person, as sent.
        message: &'a [u8],
    },
    /// `6, {option, 0, value, 0}` (RFC 2347).
    OptionAck(Options),
}

/// The bytes are no TFTP packet.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum PacketError {
    /// Shorter than its kind, or a text without its NUL.
    #[error("the TFTP packet is cut short")]
    Short,
    /// Bytes after the end of an acknowledgment, or a request over 512 bytes or 16 options.
    #[error("the TFTP packet is too long for its kind")]
    Long,
    /// No such opcode.
    #[error("TFTP opcode {0} does not exist")]
    Opcode(u16),
    /// A text holds NUL and cannot be encoded.
    #[error("a text of the TFTP packet holds NUL")]
    Nul,
}

impl<'a> Packet<'a> {
    /// Parses one datagram.
    ///
    /// # Errors
    /// It is no TFTP packet.
    pub fn decode(datagram: &'a [u8]) -> Result<Self, PacketError> {
        let (opcode, rest) = number(datagram)?;
        match opcode {
            1 => request(Direction::Read, rest),
            2 => request(Direction::Write, rest),
            3 => number(rest).map(|(block, data)| Self::Data { block, data }),
            4 => match number(rest)? {
                (block, []) => Ok(Self::Ack(block)),
                _ => Err(PacketError::Long),
            },
            5 => {
                let (code, rest) = number(rest)?;
                // Some clients leave out the NUL; an error is an error.
                let message = text(rest).map_or(rest, |(message, _)| message);
                Ok(Self::Error { code, message })
            }
            6 => options(rest).map(Self::OptionAck),
            other => Err(PacketError::Opcode(other)),
        }
    }

    /// The bytes of the packet.
    ///
    /// # Errors
    /// A text holds NUL.
    pub fn encode(&self) -> Result<Vec<u8>, PacketError> {
        let mut bytes = Vec::new();
        match self {
            Self::Request(request) => {
                put(&mut bytes, if request.direction == Direction::Read { 1 } else { 2 });
                put_text(&mut bytes, &request.name)?;
                put_text(&mut bytes, &request.mode)?;
                put_options(&mut bytes, &request.options)?;
            }
            Self::Data { block, data } => bytes = data_packet(*block, data),
            Self::Ack(block) => {
                put(&mut bytes, 4);
                put(&mut bytes, *block);
            }
            Self::Error { code, message } => {
                put(&mut bytes, 5);
                put(&mut bytes, *code);
                put_text(&mut bytes, message)?;
            }
            Self::OptionAck(options) => {
                put(&mut bytes, 6);
                put_options(&mut bytes, options)?;
            }
        }
        Ok(bytes)
    }
}

/// A DATA packet.
#[must_use]
pub fn data_packet(block: u16, data: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(4 + data.len());
    put(&mut bytes, 3);
    put(&mut bytes, block);
    bytes.extend_from_slice(data);
    bytes
}

/// An ERROR packet; `message` is cut at its first NUL.
#[must_use]
pub fn error_packet(code: ErrorCode, message: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(5 + message.len());
    put(&mut bytes, 5);
    put(&mut bytes, code as u16);
    bytes.extend(message.bytes().take_while(|byte| *byte != 0));
    bytes.push(0);
    bytes
}

fn number(bytes: &[u8]) -> Result<(u16, &[u8]), PacketError> {
    let (number, rest) = bytes.split_first_chunk().ok_or(PacketError::Short)?;
    Ok((u16::from_be_bytes(*number), rest))
}

fn text(bytes: &[u8]) -> Result<(&[u8], &[u8]), PacketError> {
    let end = bytes.iter().position(|byte| *byte == 0).ok_or(PacketError::Short)?;
    let (text, rest) = bytes.split_at_checked(end).ok_or(PacketError::Short)?;
    Ok((text, rest.get(1..).unwrap_or_default()))
}

fn request(direction: Direction, rest: &[u8]) -> Result<Packet<'_>, PacketError> {
    if rest.len() > REQUEST_LIMIT - 2 {
        return Err(PacketError::Long);
    }
    let (name, rest) = text(rest)?;
    let (mode, rest) = text(rest)?;
    Ok(Packet::Request(Request { direction, name: name.to_vec(), mode: mode.to_vec(), options: options(rest)? }))
}

fn options(mut rest: &[u8]) -> Result<Options, PacketError> {
    let mut options = Vec::new();
    while !rest.is_empty() {
        if options.len() == OPTIONS_LIMIT {
            return Err(PacketError::Long);
        }
        let (name, after_name) = text(rest)?;
        let (value, after_value) = text(after_name)?;
        options.push((name.to_vec(), value.to_vec()));
        rest = after_value;
    }
    Ok(options)
}

fn put(bytes: &mut Vec<u8>, number: u16) {
    bytes.extend_from_slice(&number.to_be_bytes());
}

fn put_text(bytes: &mut Vec<u8>, text: &[u8]) -> Result<(), PacketError> {
    if text.contains(&0) {
        return Err(PacketError::Nul);
    }
    bytes.extend_from_slice(text);
    bytes.push(0);
    Ok(())
}

fn put_options(bytes: &mut Vec<u8>, options: &[(Vec<u8>, Vec<u8>)]) -> Result<(), PacketError> {
    options.iter().try_for_each(|(name, value)| {
        put_text(bytes, name)?;
        put_text(bytes, value)
    })
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    #[test]
    fn a_request_as_rfc_2347_prints_it() {
        let packet = Packet::decode(b"\0\x01ITLFile.tlv\0octet\0blksize\x001428\0tsize\x000\0").unwrap();
        let Packet::Request(request) = packet else { panic!("{packet:?}") };
        assert_eq!((request.direction, &request.name[..]), (Direction::Read, &b"ITLFile.tlv"[..]));
        assert_eq!(request.options[0], (b"blksize".to_vec(), b"1428".to_vec()));
        assert_eq!(request.options[1], (b"tsize".to_vec(), b"0".to_vec()));
    }

    #[test]
    fn what_is_cut_or_overlong_is_refused() {
        assert_eq!(Packet::decode(b""), Err(PacketError::Short));
        assert_eq!(Packet::decode(b"\0\x01name\0octet"), Err(PacketError::Short));
        assert_eq!(Packet::decode(b"\0\x01name\0octet\0blksize\0"), Err(PacketError::Short));
        assert_eq!(Packet::decode(b"\0\x04\0\x01x"), Err(PacketError::Long));
        assert_eq!(Packet::decode(b"\0\x07"), Err(PacketError::Opcode(7)));
        let mut long = b"\0\x01".to_vec();
        long.resize(REQUEST_LIMIT + 1, b'a');
        assert_eq!(Packet::decode(&long), Err(PacketError::Long));
        let mut many = b"\0\x01a\0octet\0".to_vec();
        many.extend(b"a\0b\0".repeat(OPTIONS_LIMIT + 1));
        assert_eq!(Packet::decode(&many), Err(PacketError::Long));
    }

    #[test]
    fn an_error_text_cannot_carry_a_nul() {
        assert_eq!(error_packet(ErrorCode::FileNotFound, "no\0pe"), b"\0\x05\0\x01no\0");
    }

    fn any_text() -> impl Strategy<Value = Vec<u8>> {
        vec(1u8..=255, 0..12)
    }

    fn any_packet() -> impl Strategy<Value = Vec<u8>> {
        let options = || vec((any_text(), any_text()), 0..=OPTIONS_LIMIT);
        let direction = prop_oneof![Just(Direction::Read), Just(Direction::Write)];
        let request = (direction, any_text(), any_text(), vec((any_text(), any_text()), 0..=8));
        prop_oneof![
            request.prop_map(|(direction, name, mode, options)| {
                Packet::Request(Request { direction, name, mode, options }).encode()
            }),
            (any::<u16>(), any::<Vec<u8>>()).prop_map(|(block, data)| Packet::Data { block, data: &data }.encode()),
            any::<u16>().prop_map(|block| Packet::Ack(block).encode()),
            (any::<u16>(), any_text()).prop_map(|(code, message)| Packet::Error { code, message: &message }.encode()),
            options().prop_map(|options| Packet::OptionAck(options).encode()),
        ]
        .prop_map(Result::unwrap)
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(bytes in any_packet()) {
            prop_assert_eq!(Packet::decode(&bytes).unwrap().encode().unwrap(), bytes);
        }

        #[test]
        fn fields_survive(name in any_text(), mode in any_text(), options in vec((any_text(), any_text()), 0..=8)) {
            let packet = Packet::Request(Request { direction: Direction::Read, name, mode, options });
            let bytes = packet.encode().unwrap();
            prop_assert_eq!(Packet::decode(&bytes), Ok(packet));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = Packet::decode(&bytes);
        }
    }
}
