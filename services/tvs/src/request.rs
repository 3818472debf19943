//! What a phone asks, and what it is told (phone-formats §6).

use casemate_phonefile::Role;

use crate::{
    codec::{CodecError, Command, Element, Message},
    trust::Verdict,
};

/// Longest device name in bytes, its prefix not counted. The known form `CP-<4 digits>-SEP<MAC>` has 23.
const DEVICE_LIMIT: usize = 64;

const DEVICE: u8 = 1;
const CERTIFICATE: u8 = 2;
const STATUS: u8 = 7;
const ROLES: u8 = 8;
const TTL: u8 = 9;

/// A phone's question: is this certificate one to trust, and in which roles.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct VerifyRequest {
    /// Whose question, as the phone says: for the audit trail only, nothing proves it.
    pub device: String,
    /// The certificate, DER.
    pub certificate: Vec<u8>,
}

/// A message of the right form that asks nothing.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum RequestError {
    /// Element 1 or 2 is missing or there twice.
    #[error("the TVS request has {count} elements of tag {tag}, not one")]
    Count {
        /// Which element.
        tag: u8,
        /// How many.
        count: usize,
    },
    /// The device name does not begin with byte 1, is empty, over 64 bytes, or not printable ASCII.
    #[error("the TVS request has no proper device name")]
    Device,
    /// The certificate is empty.
    #[error("the TVS request has an empty certificate")]
    Certificate,
}

impl VerifyRequest {
    /// Reads the elements of a request. Tags 3 to 6 are not known and not looked at.
    ///
    /// # Errors
    /// As [`RequestError`] says.
    pub fn parse(message: &Message) -> Result<Self, RequestError> {
        let device = device(one(message, DEVICE)?).ok_or(RequestError::Device)?;
        let certificate = one(message, CERTIFICATE)?;
        if certificate.is_empty() {
            return Err(RequestError::Certificate);
        }
        Ok(Self { device, certificate: certificate.to_vec() })
    }

    /// The request as a phone sends it in `session`.
    ///
    /// # Errors
    /// The certificate is too long for a message.
    pub fn encode(&self, session: u32) -> Result<Vec<u8>, CodecError> {
        let mut device = vec![1];
        device.extend_from_slice(self.device.as_bytes());
        let elements =
            vec![Element { tag: DEVICE, value: device }, Element { tag: CERTIFICATE, value: self.certificate.clone() }];
        Message { command: Command::VerifyRequest, session, elements }.encode()
    }
}

fn one(message: &Message, tag: u8) -> Result<&[u8], RequestError> {
    let mut found = message.elements.iter().filter(|element| element.tag == tag);
    match (found.next(), found.count()) {
        (Some(element), 0) => Ok(&element.value),
        (None, _) => Err(RequestError::Count { tag, count: 0 }),
        (Some(_), more) => Err(RequestError::Count { tag, count: more + 1 }),
    }
}

/// Byte 1, then printable ASCII without NUL. The model part differs between phones, so no more is asked of it.
fn device(value: &[u8]) -> Option<String> {
    let name = value.strip_prefix(&[1])?;
    let proper = !name.is_empty() && name.len() <= DEVICE_LIMIT && name.iter().all(u8::is_ascii_graphic);
    proper.then(|| String::from_utf8(name.to_vec()).ok()).flatten()
}

/// A role as TVS writes it. No role of [`crate::trust::roles_of`] is above 255.
fn one_byte(role: &Role) -> Option<u8> {
    u8::try_from(role.number()).ok()
}

/// The answer to a [`VerifyRequest`]: an invalid certificate gets its status and nothing else.
#[must_use]
pub fn answer(session: u32, verdict: &Verdict, ttl: u32) -> Message {
    let elements = match verdict {
        Verdict::Valid { roles, seconds_left } => vec![
            Element { tag: STATUS, value: vec![0] },
            Element { tag: ROLES, value: roles.iter().filter_map(one_byte).collect() },
            Element { tag: TTL, value: ttl.min(*seconds_left).to_be_bytes().to_vec() },
        ],
        Verdict::Unknown | Verdict::OutOfDate => vec![Element { tag: STATUS, value: vec![1] }],
    };
    Message { command: Command::VerifyResponse, session, elements }
}

/// The answer to a `QueryRequest`, of which only the number is known: "invalid", the one status that makes no phone trust
/// anything, in the response command of its pair (an assumption: phone-formats §6 marks 3 and 4 as unknown).
#[must_use]
pub fn query_refused(session: u32) -> Message {
    Message { command: Command::QueryResponse, session, elements: vec![Element { tag: STATUS, value: vec![1] }] }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::codec::decode;

    fn message(elements: &[(u8, &[u8])]) -> Message {
        let elements = elements.iter().map(|(tag, value)| Element { tag: *tag, value: value.to_vec() }).collect();
        Message { command: Command::VerifyRequest, session: 1, elements }
    }

    #[test]
    fn elements_may_stand_in_any_order_and_beside_unknown_ones() {
        let request = VerifyRequest::parse(&message(&[(2, b"der"), (5, b"?"), (1, b"\x01CP-8841-SEP001122334455")]));
        let expected = VerifyRequest { device: "CP-8841-SEP001122334455".into(), certificate: b"der".to_vec() };
        assert_eq!(request, Ok(expected));
    }

    #[test]
    fn a_request_without_one_of_each_is_refused() {
        let device: (u8, &[u8]) = (1, b"\x01CP-8841-SEP001122334455");
        for (elements, error) in [
            (&[device][..], RequestError::Count { tag: 2, count: 0 }),
            (&[(2, b"der")], RequestError::Count { tag: 1, count: 0 }),
            (&[device, (2, b"a"), (2, b"b")], RequestError::Count { tag: 2, count: 2 }),
            (&[device, (2, b"")], RequestError::Certificate),
            (&[(1, b"CP-8841"), (2, b"der")], RequestError::Device),
            (&[(1, b"\x01"), (2, b"der")], RequestError::Device),
            (&[(1, b"\x01a\nb"), (2, b"der")], RequestError::Device),
            (&[(1, &[1; 66]), (2, b"der")], RequestError::Device),
        ] {
            assert_eq!(VerifyRequest::parse(&message(elements)), Err(error));
        }
    }

    #[test]
    fn an_answer_byte_by_byte() {
        // Written by hand from phone-formats §6: status 0, roles 0 and 2, TTL 3600.
        let valid = Verdict::Valid { roles: vec![Role::Sast, Role::CcmTftp], seconds_left: u32::MAX };
        assert_eq!(
            answer(7, &valid, 3600).encode().unwrap(),
            b"\x57\x01\x02\x00\x00\x00\x00\x07\x00\x10\x07\x00\x01\x00\x08\x00\x02\x00\x02\x09\x00\x04\x00\x00\x0e\x10"
        );
        let invalid = b"\x57\x01\x02\x00\x00\x00\x00\x07\x00\x04\x07\x00\x01\x01";
        assert_eq!(answer(7, &Verdict::Unknown, 3600).encode().unwrap(), invalid);
        assert_eq!(answer(7, &Verdict::OutOfDate, 3600).encode().unwrap(), invalid);
    }

    #[test]
    fn no_phone_trusts_a_certificate_beyond_its_end() {
        let verdict = Verdict::Valid { roles: vec![Role::Capf], seconds_left: 60 };
        let ttl = answer(7, &verdict, 3600).elements.pop().unwrap();
        assert_eq!((ttl.tag, ttl.value), (9, vec![0, 0, 0, 60]));
    }

    proptest! {
        #[test]
        fn what_a_phone_sends_is_read(device in "[!-~]{1,64}", certificate in proptest::collection::vec(any::<u8>(), 1..4000), session: u32) {
            let request = VerifyRequest { device, certificate };
            let bytes = request.encode(session).unwrap();
            let (message, _) = decode(&bytes, 70_000).unwrap().unwrap();
            prop_assert_eq!(message.session, session);
            prop_assert_eq!(VerifyRequest::parse(&message), Ok(request));
        }
    }
}
