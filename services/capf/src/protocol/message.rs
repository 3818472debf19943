use super::{Command, Element, ProtocolError};

/// The first byte of every message.
pub const MAGIC: u8 = 0x55;

/// Bytes before the elements.
pub const HEADER: usize = 8;

/// One message.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Message {
    /// What it is.
    pub command: Command,
    /// The session that the server chose; every message carries it.
    pub session: u32,
    /// Elements in the order of the wire, which has no meaning.
    pub elements: Vec<Element>,
}

/// The header of a message: what comes before its elements.
pub(super) struct Header {
    pub(super) command: Command,
    pub(super) session: u32,
    pub(super) length: usize,
}

impl Header {
    pub(super) fn decode(bytes: [u8; HEADER]) -> Result<Self, ProtocolError> {
        let [magic, command, s0, s1, s2, s3, high, low] = bytes;
        if magic != MAGIC {
            return Err(ProtocolError::Magic(magic));
        }
        Ok(Self {
            command: Command::from_number(command).ok_or(ProtocolError::Command(command))?,
            session: u32::from_be_bytes([s0, s1, s2, s3]),
            length: usize::from(u16::from_be_bytes([high, low])),
        })
    }
}

impl Message {
    /// The message as one buffer, for one write: phones stall when header and elements come apart (phone-formats §5).
    /// Nothing if the elements do not fit a length of 16 bits.
    #[must_use]
    pub fn encode(&self) -> Option<Vec<u8>> {
        let mut bytes = vec![MAGIC, self.command as u8];
        bytes.extend_from_slice(&self.session.to_be_bytes());
        let mut elements = Vec::new();
        for element in &self.elements {
            let mut value = Vec::new();
            element.encode_value(&mut value);
            elements.push(element.tag());
            elements.extend_from_slice(&u16::try_from(value.len()).ok()?.to_be_bytes());
            elements.append(&mut value);
        }
        bytes.extend_from_slice(&u16::try_from(elements.len()).ok()?.to_be_bytes());
        bytes.append(&mut elements);
        Some(bytes)
    }

    pub(super) fn decode(header: &Header, mut rest: &[u8]) -> Result<Self, ProtocolError> {
        let mut elements: Vec<Element> = Vec::new();
        while !rest.is_empty() {
            let ([tag, high, low], after) = rest.split_first_chunk::<3>().ok_or(ProtocolError::Cut)?;
            let length = usize::from(u16::from_be_bytes([*high, *low]));
            let (value, after) = after.split_at_checked(length).ok_or(ProtocolError::Cut)?;
            if elements.iter().any(|element| element.tag() == *tag) {
                return Err(ProtocolError::Twice { tag: *tag });
            }
            elements.push(Element::decode(*tag, value)?);
            rest = after;
        }
        Ok(Self { command: header.command, session: header.session, elements })
    }

    /// The first value that `pick` takes from an element.
    pub fn find<'a, T>(&'a self, pick: impl FnMut(&'a Element) -> Option<T>) -> Option<T> {
        self.elements.iter().find_map(pick)
    }
}
