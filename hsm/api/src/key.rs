use std::fmt;

use serde::{Deserialize, Serialize};

/// The kind and size of a key pair.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs)] // the names say it
pub enum KeyAlgorithm {
    #[serde(rename = "rsa-2048")]
    Rsa2048,
    #[serde(rename = "rsa-3072")]
    Rsa3072,
    #[serde(rename = "rsa-4096")]
    Rsa4096,
    #[serde(rename = "p-256")]
    P256,
    #[serde(rename = "p-384")]
    P384,
    #[serde(rename = "p-521")]
    P521,
}

impl KeyAlgorithm {
    /// Every algorithm that a token may be asked for.
    pub const ALL: [Self; 6] = [Self::Rsa2048, Self::Rsa3072, Self::Rsa4096, Self::P256, Self::P384, Self::P521];

    /// The modulus in bits for RSA, nothing for a curve.
    #[must_use]
    pub const fn rsa_bits(self) -> Option<u16> {
        match self {
            Self::Rsa2048 => Some(2048),
            Self::Rsa3072 => Some(3072),
            Self::Rsa4096 => Some(4096),
            Self::P256 | Self::P384 | Self::P521 => None,
        }
    }
}

impl fmt::Display for KeyAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rsa2048 => "RSA-2048",
            Self::Rsa3072 => "RSA-3072",
            Self::Rsa4096 => "RSA-4096",
            Self::P256 => "P-256",
            Self::P384 => "P-384",
            Self::P521 => "P-521",
        })
    }
}

/// Whether a private key may ever leave its token. Decided before the key is made, and never after.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Backup {
    /// Never: `CKA_EXTRACTABLE` is false for the life of the key.
    None,
    /// Only wrapped, and only under a wrapping key that the security officer marked `CKA_TRUSTED`
    /// (`CKA_EXTRACTABLE` and `CKA_WRAP_WITH_TRUSTED` both true; PKCS#11 v2.40, 4.9).
    Wrapped,
}

/// What a key is to be. A token makes exactly this or refuses.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct KeySpec {
    /// Kind and size.
    pub algorithm: KeyAlgorithm,
    /// Whether it may leave.
    pub backup: Backup,
}

/// The name of a key on its token (`CKA_ID`): 16 random bytes chosen before the key is made, so that a generation that was
/// interrupted can be told from any other key.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
pub struct KeyId(pub [u8; 16]);

impl KeyId {
    /// Reads the lower-case hexadecimal form, 32 digits.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        let digits: Vec<u8> =
            text.chars().map(|c| c.to_digit(16).and_then(|d| u8::try_from(d).ok())).collect::<Option<_>>()?;
        let bytes: Vec<u8> =
            digits.chunks_exact(2).map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit)).collect();
        if digits.len() != 32 {
            return None;
        }
        bytes.try_into().ok().map(Self)
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

/// The public half of a key, as a DER `SubjectPublicKeyInfo` (RFC 5280, 4.1.2.7).
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct PublicKey {
    /// Kind and size, as the token says.
    pub algorithm: KeyAlgorithm,
    /// The `SubjectPublicKeyInfo`.
    pub spki_der: Vec<u8>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_id_survives_its_text() {
        let id = KeyId(*b"\x00\x01\xfe\xff0123456789ab");
        assert_eq!(KeyId::from_hex(&id.to_string()), Some(id));
        assert_eq!(KeyId::from_hex("00"), None);
        assert_eq!(KeyId::from_hex(&"é".repeat(32)), None);
        assert_eq!(KeyId::from_hex(&"0".repeat(33)), None);
    }
}
