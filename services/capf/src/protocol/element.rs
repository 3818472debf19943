use std::fmt;

use zeroize::Zeroizing;

use super::ProtocolError;

/// Element 1: how a step or the session ended (phone-formats §5).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Reason(pub u8);

impl Reason {
    /// Nothing is to be done.
    pub const NO_ACTION: Self = Self(0);
    /// Done; certificate updated.
    pub const SUCCESS: Self = Self(1);
    /// Declined; Casemate sends the cause as `ReasonInfo`.
    pub const DECLINED: Self = Self(7);
    /// The server does not know the device.
    pub const UNKNOWN_DEVICE: Self = Self(9);
}

/// Element 11: what the phone's user typed. Erased when dropped, never printed.
#[derive(Clone, Eq, PartialEq)]
pub struct Password(Zeroizing<Vec<u8>>);

impl Password {
    /// The text without its NUL.
    #[must_use]
    pub fn new(text: &[u8]) -> Self {
        Self(Zeroizing::new(text.to_vec()))
    }

    /// The text without its NUL.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}

/// One element of a message: a tag and what it means. Numbers are big-endian, text has one NUL at its end that is not part of
/// it here.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Element {
    /// 1.
    Reason(Reason),
    /// 2: text for a person.
    ReasonInfo(String),
    /// 3: 1 LSC, 2 MIC.
    CertType(u8),
    /// 4: an inner element of tag 1 with a kind (1: LSC) before the certificate.
    Certificate {
        /// 1 for an LSC.
        kind: u16,
        /// X.509, DER.
        der: Vec<u8>,
    },
    /// 7.
    ProtocolVersion(u8),
    /// 8: 0 none, 1 password, 2 no password, 3 LSC, 4 MIC.
    AuthType(u8),
    /// 9: a `SubjectPublicKeyInfo`, DER.
    PublicKey(Vec<u8>),
    /// 10: RSA modulus in bits.
    KeySize(u16),
    /// 11.
    Password(Password),
    /// 13: `SEP` and the MAC address, or another device's name.
    DeviceName(String),
    /// 17: 0 RSA, 1 elliptic curve.
    KeyType(u8),
    /// 18: 0 P-256, 1 P-384, 2 P-521.
    Curve(u8),
    /// Those that Casemate does not read: 5 CertId, 6 SignedData, 12 RetryDelay, 16 SudiData, 19 DigestType,
    /// 20 Sha2SignedData, and any that is not known.
    Other {
        /// Which.
        tag: u8,
        /// Its value.
        value: Vec<u8>,
    },
}

impl Element {
    /// The element's tag.
    #[must_use]
    pub const fn tag(&self) -> u8 {
        match self {
            Self::Reason(_) => 1,
            Self::ReasonInfo(_) => 2,
            Self::CertType(_) => 3,
            Self::Certificate { .. } => 4,
            Self::ProtocolVersion(_) => 7,
            Self::AuthType(_) => 8,
            Self::PublicKey(_) => 9,
            Self::KeySize(_) => 10,
            Self::Password(_) => 11,
            Self::DeviceName(_) => 13,
            Self::KeyType(_) => 17,
            Self::Curve(_) => 18,
            Self::Other { tag, .. } => *tag,
        }
    }

    /// Reads the value of an element with this `tag`.
    pub(super) fn decode(tag: u8, value: &[u8]) -> Result<Self, ProtocolError> {
        let error = ProtocolError::Value { tag };
        let element = match tag {
            1 => byte(value).map(|code| Self::Reason(Reason(code))),
            2 => text(value).map(Self::ReasonInfo),
            3 => byte(value).map(Self::CertType),
            4 => certificate(value),
            7 => byte(value).map(Self::ProtocolVersion),
            8 => byte(value).map(Self::AuthType),
            9 => Some(Self::PublicKey(value.to_vec())),
            10 => value.try_into().ok().map(|bits| Self::KeySize(u16::from_be_bytes(bits))),
            11 => terminated(value).map(|text| Self::Password(Password::new(text))),
            13 => text(value).map(Self::DeviceName),
            17 => byte(value).map(Self::KeyType),
            18 => byte(value).map(Self::Curve),
            _ => Some(Self::Other { tag, value: value.to_vec() }),
        };
        element.ok_or(error)
    }

    /// Appends the value to `to`.
    pub(super) fn encode_value(&self, to: &mut Vec<u8>) {
        match self {
            Self::Reason(Reason(byte))
            | Self::CertType(byte)
            | Self::ProtocolVersion(byte)
            | Self::AuthType(byte)
            | Self::KeyType(byte)
            | Self::Curve(byte) => to.push(*byte),
            Self::ReasonInfo(text) | Self::DeviceName(text) => terminate(text.as_bytes(), to),
            Self::Password(password) => terminate(password.as_bytes(), to),
            Self::KeySize(bits) => to.extend_from_slice(&bits.to_be_bytes()),
            Self::PublicKey(value) | Self::Other { value, .. } => to.extend_from_slice(value),
            Self::Certificate { kind, der } => {
                to.push(1);
                // A message that is too long is cut off by `Message::encode`, which checks the sum.
                to.extend_from_slice(&u16::try_from(der.len() + 2).unwrap_or(u16::MAX).to_be_bytes());
                to.extend_from_slice(&kind.to_be_bytes());
                to.extend_from_slice(der);
            }
        }
    }
}

fn byte(value: &[u8]) -> Option<u8> {
    match value {
        [byte] => Some(*byte),
        _ => None,
    }
}

fn certificate(value: &[u8]) -> Option<Element> {
    let ([1, high, low, kind @ ..], der) = value.split_first_chunk::<5>()? else { return None };
    let announced = usize::from(u16::from_be_bytes([*high, *low]));
    (announced == der.len() + kind.len())
        .then(|| Element::Certificate { kind: u16::from_be_bytes(*kind), der: der.to_vec() })
}

fn terminated(value: &[u8]) -> Option<&[u8]> {
    let (end, text) = value.split_last()?;
    (*end == 0 && !text.contains(&0)).then_some(text)
}

fn text(value: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(terminated(value)?).ok()?;
    (!text.chars().any(char::is_control)).then(|| text.to_owned())
}

fn terminate(text: &[u8], to: &mut Vec<u8>) {
    to.extend_from_slice(text);
    to.push(0);
}
