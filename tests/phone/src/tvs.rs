//! Asking TVS about a certificate that the trust list does not hold (phone-formats §6).
//!
//! Wire form: `0x57, 0x01, command:u8, 0x00, session:u32, length:u16, elements`. The phone speaks first.

use std::io::{Read, Write};

use aws_lc_rs::rand;

use crate::error::{PhoneError, Result};
use crate::tls::{Endpoint, TlsVersions};
use crate::tlv::record::Role;
use crate::tlv::{Elements, byte, long};
use crate::trust::TrustList;

const PROTOCOL: u8 = 0x57;
const VERSION: u8 = 1;
const VERIFY_REQUEST: u8 = 1;
const VERIFY_RESPONSE: u8 = 2;
const HEADER: usize = 10;
/// An answer holds a status, a few roles and a time: longer ones are refused.
const MAX_ANSWER: usize = 1024;
const WHAT: &str = "TVS response";
/// The model number in the name under which a phone asks: a Cisco 7841's.
const MODEL: &str = "7841";

/// What TVS says about a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is valid.
    Valid {
        /// What it may do.
        roles: Vec<Role>,
        /// How long the phone may remember this, in seconds.
        ttl: u32,
    },
    /// It is not.
    Invalid,
}

/// Asks TVS, whose certificate must be one that `list` names in role TVS, about `certificate` (DER).
///
/// # Errors
/// What [`Endpoint::connect_tls`] fails with, and [`PhoneError::Malformed`] for an answer to something else.
pub fn ask(
    endpoint: &Endpoint,
    versions: TlsVersions,
    list: &TrustList,
    device: &str,
    certificate: &[u8],
) -> Result<Verdict> {
    let pinned = list.with_role(Role::Tvs).map(|record| record.certificate.clone()).collect();
    let mut session = [0; 4];
    rand::fill(&mut session).map_err(|_| PhoneError::Module("no random bytes"))?;
    let session = u32::from_be_bytes(session);
    let request = encode_request(session, device, certificate)?;
    let mut stream = endpoint.connect_tls(versions, pinned)?;
    stream.write_all(&request).and_then(|()| stream.flush()).map_err(|error| endpoint.failed(error))?;
    let mut received = Vec::new();
    loop {
        if let Some(verdict) = decode_response(session, &received)? {
            stream.conn.send_close_notify();
            // The answer is here; whether the farewell arrives no longer matters.
            let _ = stream.flush();
            return Ok(verdict);
        }
        let mut buffer = [0; MAX_ANSWER];
        let count = stream.read(&mut buffer).map_err(|error| endpoint.failed(error))?;
        if count == 0 {
            return Err(malformed("the connection closed before its end"));
        }
        received.extend_from_slice(buffer.get(..count).unwrap_or_default());
    }
}

fn encode_request(session: u32, device: &str, certificate: &[u8]) -> Result<Vec<u8>> {
    let name = [&[1][..], format!("CP-{MODEL}-{device}").as_bytes()].concat();
    let mut body = Vec::new();
    for (tag, value) in [(1, name.as_slice()), (2, certificate)] {
        let length = u16::try_from(value.len())
            .map_err(|_| PhoneError::Setting("a certificate too long for a question to TVS".to_owned()))?;
        body.push(tag);
        body.extend_from_slice(&length.to_be_bytes());
        body.extend_from_slice(value);
    }
    let length = u16::try_from(body.len())
        .map_err(|_| PhoneError::Setting("a certificate too long for a question to TVS".to_owned()))?;
    let mut bytes = vec![PROTOCOL, VERSION, VERIFY_REQUEST, 0];
    bytes.extend_from_slice(&session.to_be_bytes());
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(&body);
    Ok(bytes)
}

/// Returns `None` while the answer is not whole.
fn decode_response(session: u32, bytes: &[u8]) -> Result<Option<Verdict>> {
    let Some(([protocol, version, command, zero, id @ .., high, low], body)) = bytes.split_first_chunk::<HEADER>()
    else {
        return Ok(None);
    };
    if [*protocol, *version, *command, *zero] != [PROTOCOL, VERSION, VERIFY_RESPONSE, 0] {
        return Err(malformed("it is no answer to a verification"));
    }
    if u32::from_be_bytes(*id) != session {
        return Err(malformed("it belongs to another session"));
    }
    let length = usize::from(u16::from_be_bytes([*high, *low]));
    if length > MAX_ANSWER {
        return Err(malformed("it is longer than an answer may be"));
    }
    if body.len() > length {
        return Err(malformed("bytes follow it"));
    }
    let Some(body) = body.get(..length) else { return Ok(None) };
    decode_verdict(body).map(Some)
}

fn decode_verdict(body: &[u8]) -> Result<Verdict> {
    let (mut status, mut roles, mut ttl) = (None, Vec::new(), None);
    let mut elements = Elements::new(WHAT, body);
    while let Some(element) = elements.next_element()? {
        let twice = match element.tag {
            7 => status.replace(byte(WHAT, element.value)?).is_some(),
            8 => {
                let twice = !roles.is_empty();
                roles = element.value.iter().map(|role| Role::from_number(u16::from(*role))).collect();
                twice
            }
            9 => ttl.replace(long(WHAT, element.value)?).is_some(),
            _ => return Err(malformed("an element that no answer is known to carry")),
        };
        if twice {
            return Err(malformed("an element appears twice"));
        }
    }
    match (status, ttl) {
        (Some(0), Some(ttl)) if !roles.is_empty() => Ok(Verdict::Valid { roles, ttl }),
        (Some(0), _) => Err(malformed("it says valid without a role or a time to live")),
        (Some(1), None) if roles.is_empty() => Ok(Verdict::Invalid),
        (Some(1), _) => Err(malformed("it says invalid and more than that")),
        _ => Err(malformed("no status that is known")),
    }
}

fn malformed(why: &'static str) -> PhoneError {
    PhoneError::Malformed { what: WHAT, why }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn response(session: u32, body: &[u8]) -> Vec<u8> {
        [&[0x57, 1, 2, 0], &session.to_be_bytes()[..], &(body.len() as u16).to_be_bytes(), body].concat()
    }

    #[test]
    fn a_question_has_these_bytes() {
        let bytes = encode_request(0x0a0b_0c0d, "SEP001122334455", &[0x30, 0]).unwrap();
        let name = b"\x01CP-7841-SEP001122334455";
        let body = [&[1, 0, 24][..], name, &[2, 0, 2, 0x30, 0]].concat();
        assert_eq!(bytes, [&[0x57, 1, 1, 0, 10, 11, 12, 13, 0, 32][..], &body].concat());
    }

    #[test]
    fn answers_are_read() {
        let valid = response(5, &[7, 0, 1, 0, 8, 0, 2, 2, 3, 9, 0, 4, 0, 0, 0x0e, 0x10]);
        let roles = vec![Role::CcmTftp, Role::Tftp];
        assert_eq!(decode_response(5, &valid).unwrap(), Some(Verdict::Valid { roles, ttl: 3600 }));
        for cut in 0..valid.len() {
            assert_eq!(decode_response(5, &valid[..cut]).unwrap(), None);
        }
        assert_eq!(decode_response(5, &response(5, &[7, 0, 1, 1])).unwrap(), Some(Verdict::Invalid));
    }

    #[test]
    fn doubtful_answers_are_refused() {
        let valid = [7, 0, 1, 0, 8, 0, 1, 2, 9, 0, 4, 0, 0, 0, 60];
        assert!(decode_response(6, &response(5, &valid)).is_err());
        for body in [
            &[7, 0, 1, 0][..],
            &[7, 0, 1, 2],
            &[7, 0, 1, 1, 8, 0, 1, 2],
            &[7, 0, 1, 1, 7, 0, 1, 1],
            &[],
            &[7, 0, 2, 0, 0],
        ] {
            assert!(decode_response(5, &response(5, body)).is_err(), "{body:?}");
        }
        let mut request = response(5, &valid);
        request[2] = 1;
        assert!(decode_response(5, &request).is_err());
        let trailing = [response(5, &valid), vec![0]].concat();
        assert!(decode_response(5, &trailing).is_err());
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(body in proptest::collection::vec(any::<u8>(), 0..64), raw: bool) {
            let bytes = if raw { body } else { response(5, &body) };
            let _ = decode_response(5, &bytes);
        }
    }
}
