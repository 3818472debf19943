use zeroize::Zeroizing;

use super::{
    Message, ProtocolError,
    message::{HEADER, Header, MAGIC},
};

/// Puts messages together from bytes as they come, in one read or in ten. What it holds may be an authentication string, so
/// it is erased when dropped and cannot be printed.
pub struct Decoder {
    buffer: Zeroizing<Vec<u8>>,
    limit: usize,
}

impl Decoder {
    /// A decoder that takes messages with at most `limit` bytes of elements.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        // Whole from the start: a buffer that grows leaves copies behind that nobody erases.
        Self { buffer: Zeroizing::new(Vec::with_capacity(HEADER + limit.min(usize::from(u16::MAX)))), limit }
    }

    /// How many bytes may be pushed next, at most: the rest of the message that is being read, never the one after it, so
    /// that the buffer cannot grow beyond one message.
    ///
    /// # Errors
    /// As [`Decoder::next_message`].
    pub fn wanted(&self) -> Result<usize, ProtocolError> {
        Ok(self.header()?.map_or(HEADER, |header| HEADER + header.length).saturating_sub(self.buffer.len()))
    }

    /// Takes bytes that were read, at most [`Decoder::wanted`].
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The message, once it is complete; nothing while it is not.
    ///
    /// # Errors
    /// It cannot become one; as early as the bytes show it.
    pub fn next_message(&mut self) -> Result<Option<Message>, ProtocolError> {
        let Some(header) = self.header()? else { return Ok(None) };
        let Some((message, _)) = self.buffer.split_at_checked(HEADER + header.length) else { return Ok(None) };
        let message = Message::decode(&header, message.get(HEADER..).unwrap_or_default())?;
        let taken = HEADER + header.length;
        self.buffer.drain(..taken);
        Ok(Some(message))
    }

    fn header(&self) -> Result<Option<Header>, ProtocolError> {
        if let Some(first) = self.buffer.first().filter(|first| **first != MAGIC) {
            return Err(ProtocolError::Magic(*first));
        }
        let Some(bytes) = self.buffer.first_chunk::<HEADER>() else { return Ok(None) };
        let header = Header::decode(*bytes)?;
        if header.length > self.limit {
            return Err(ProtocolError::TooLong { length: header.length, limit: self.limit });
        }
        Ok(Some(header))
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::super::{Command, Element, Password, Reason};
    use super::*;

    const LIMIT: usize = 4096;

    fn element() -> impl Strategy<Value = Element> {
        let text = "[ -~é]{0,40}";
        prop_oneof![
            any::<u8>().prop_map(|code| Element::Reason(Reason(code))),
            text.prop_map(Element::ReasonInfo),
            any::<u8>().prop_map(Element::CertType),
            (any::<u16>(), vec(any::<u8>(), 0..300)).prop_map(|(kind, der)| Element::Certificate { kind, der }),
            any::<u8>().prop_map(Element::ProtocolVersion),
            any::<u8>().prop_map(Element::AuthType),
            vec(any::<u8>(), 0..300).prop_map(Element::PublicKey),
            any::<u16>().prop_map(Element::KeySize),
            vec(1u8.., 0..20).prop_map(|text| Element::Password(Password::new(&text))),
            text.prop_map(Element::DeviceName),
            any::<u8>().prop_map(Element::KeyType),
            any::<u8>().prop_map(Element::Curve),
            (prop_oneof![5u8..=6, 19u8..], vec(any::<u8>(), 0..50))
                .prop_map(|(tag, value)| Element::Other { tag, value }),
        ]
    }

    fn message() -> impl Strategy<Value = Message> {
        (1u8..=23, any::<u32>(), vec(element(), 0..8)).prop_map(|(command, session, mut elements)| {
            let mut seen = Vec::new();
            elements.retain(|element| {
                let new = !seen.contains(&element.tag());
                seen.push(element.tag());
                new
            });
            Message { command: Command::from_number(command).unwrap(), session, elements }
        })
    }

    fn decode(bytes: &[u8]) -> Result<Option<Message>, ProtocolError> {
        let mut decoder = Decoder::new(LIMIT);
        decoder.push(bytes);
        decoder.next_message()
    }

    #[test]
    fn the_opening_message_is_as_the_reference_says() {
        let hello = Message {
            command: Command::AuthRequest,
            session: 0x0102_0304,
            elements: vec![Element::ProtocolVersion(3), Element::AuthType(0)],
        };
        assert_eq!(
            hello.encode().unwrap(),
            [0x55, 1, 1, 2, 3, 4, 0, 8, /* version */ 7, 0, 1, 3, /* authentication */ 8, 0, 1, 0]
        );
    }

    #[test]
    fn a_certificate_has_its_inner_element() {
        let store = Message {
            command: Command::StoreCertRequest,
            session: 1,
            elements: vec![Element::Certificate { kind: 1, der: vec![0xaa, 0xbb] }],
        };
        assert_eq!(store.encode().unwrap()[8..], [4, 0, 7, 1, 0, 4, 0, 1, 0xaa, 0xbb]);
    }

    #[test]
    fn bad_messages_are_refused_as_early_as_they_show() {
        assert_eq!(decode(b"G"), Err(ProtocolError::Magic(b'G')));
        assert_eq!(decode(&[0x55, 99, 0, 0, 0, 1, 0, 0]), Err(ProtocolError::Command(99)));
        assert_eq!(
            decode(&[0x55, 2, 0, 0, 0, 1, 0xff, 0xff]),
            Err(ProtocolError::TooLong { length: 65535, limit: LIMIT })
        );
        assert_eq!(decode(&[0x55, 2, 0, 0, 0, 1, 0, 2, 1, 0]), Err(ProtocolError::Cut));
        assert_eq!(decode(&[0x55, 2, 0, 0, 0, 1, 0, 4, 1, 0, 2, 0]), Err(ProtocolError::Cut));
        assert_eq!(decode(&[0x55, 2, 0, 0, 0, 1, 0, 5, 1, 0, 2, 0, 0]), Err(ProtocolError::Value { tag: 1 }));
        let twice = [0x55, 2, 0, 0, 0, 1, 0, 8, 1, 0, 1, 1, 1, 0, 1, 1];
        assert_eq!(decode(&twice), Err(ProtocolError::Twice { tag: 1 }));
        let no_nul = [0x55, 2, 0, 0, 0, 1, 0, 5, 11, 0, 2, b'1', b'2'];
        assert_eq!(decode(&no_nul), Err(ProtocolError::Value { tag: 11 }));
        let two_nuls = [0x55, 2, 0, 0, 0, 1, 0, 6, 13, 0, 3, b'A', 0, 0];
        assert_eq!(decode(&two_nuls), Err(ProtocolError::Value { tag: 13 }));
        let inner = [0x55, 9, 0, 0, 0, 1, 0, 9, 4, 0, 6, 1, 0, 4, 0, 1, 0xaa];
        assert_eq!(decode(&inner), Err(ProtocolError::Value { tag: 4 }));
    }

    #[test]
    fn a_password_is_not_printed() {
        let element = Element::Password(Password::new(b"12345"));
        assert!(!format!("{element:?}").contains("12345"));
        let mut decoder = Decoder::new(64);
        decoder.push(&[0x55]);
        assert_eq!(decoder.wanted(), Ok(7));
    }

    proptest! {
        #[test]
        fn a_message_survives_the_wire_however_it_is_cut(message in message(), cut in 1usize..40) {
            let bytes = message.encode().unwrap();
            let mut decoder = Decoder::new(LIMIT);
            let mut rest = bytes.as_slice();
            while !rest.is_empty() {
                prop_assert_eq!(decoder.next_message().unwrap(), None);
                let take = cut.min(decoder.wanted().unwrap()).min(rest.len());
                let (now, later) = rest.split_at(take);
                decoder.push(now);
                rest = later;
            }
            prop_assert_eq!(decoder.next_message().unwrap(), Some(message));
            prop_assert_eq!(decoder.wanted().unwrap(), HEADER);
        }

        #[test]
        fn arbitrary_bytes_never_panic_and_what_is_taken_has_one_form(
            mut bytes in vec(any::<u8>(), 0..200),
            shape: bool,
        ) {
            if shape && bytes.len() >= HEADER {
                let length = u16::try_from(bytes.len() - HEADER).unwrap().to_be_bytes();
                bytes.splice(..2, [MAGIC, 2]);
                bytes.splice(6..8, length);
            }
            if let Ok(Some(message)) = decode(&bytes) {
                let encoded = message.encode().unwrap();
                prop_assert_eq!(&encoded, &bytes[..encoded.len()]);
            }
        }

        #[test]
        fn elements_that_are_almost_right_never_panic(tag in 0u8..24, value in vec(any::<u8>(), 0..12)) {
            let mut bytes = vec![MAGIC, 4, 0, 0, 0, 1, 0, 3 + u8::try_from(value.len()).unwrap(), tag, 0];
            bytes.push(u8::try_from(value.len()).unwrap());
            bytes.extend_from_slice(&value);
            if let Ok(Some(message)) = decode(&bytes) {
                prop_assert_eq!(message.encode().unwrap(), bytes);
            }
        }
    }
}
