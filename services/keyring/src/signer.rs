use std::sync::{Mutex, PoisonError};

use casemate_hsm_api::{KeyAlgorithm, SignatureScheme};
use rcgen::{PublicKeyData, SignatureAlgorithm, SigningKey};

use crate::{Client, KeyRecord, KeyringError, Purpose};

/// A key in the token as rcgen wants one: it signs the whole `TBSCertificate` or `CertificationRequestInfo` for one purpose.
pub struct RoleSigner {
    client: Client,
    record: KeyRecord,
    purpose: Purpose,
    public_key: Vec<u8>,
    /// Why it did not sign; rcgen's error has no room for a cause.
    error: Mutex<Option<KeyringError>>,
}

impl RoleSigner {
    /// The key of `record`, for messages of `purpose`.
    #[must_use]
    pub fn new(client: Client, record: KeyRecord, purpose: Purpose) -> Option<Self> {
        let public_key = subject_public_key(&record.spki_der)?.to_vec();
        Some(Self { client, record, purpose, public_key, error: Mutex::default() })
    }

    /// Why the last signature that failed since the last call was not made; nothing if none failed. Ask it when rcgen says
    /// [`rcgen::Error::RemoteKeyError`]: this error is what the operator has to know.
    #[must_use]
    pub fn take_error(&self) -> Option<KeyringError> {
        self.error.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The scheme of certificates and requests: SHA-256 for RSA, the curve's own hash for ECDSA (guide 3411).
    const fn scheme(&self) -> SignatureScheme {
        match self.record.algorithm {
            KeyAlgorithm::Rsa2048 | KeyAlgorithm::Rsa3072 | KeyAlgorithm::Rsa4096 => SignatureScheme::RsaPkcs1Sha256,
            KeyAlgorithm::P256 => SignatureScheme::EcdsaP256Sha256,
            KeyAlgorithm::P384 => SignatureScheme::EcdsaP384Sha384,
            KeyAlgorithm::P521 => SignatureScheme::EcdsaP521Sha512,
        }
    }

    fn ask(&self, message: &[u8]) -> Result<Vec<u8>, KeyringError> {
        self.client.sign(self.record.role, self.scheme(), self.purpose.clone(), message)
    }
}

/// The content of the BIT STRING in a `SubjectPublicKeyInfo`, which rcgen puts back together itself.
fn subject_public_key(spki_der: &[u8]) -> Option<&[u8]> {
    let (outer, rest) = der_value(spki_der, 0x30)?;
    let (_, bits) = der_value(outer, 0x30)?;
    let (content, end) = der_value(bits, 0x03)?;
    match (content.split_first(), rest, end) {
        (Some((0, key)), [], []) => Some(key),
        _ => None,
    }
}

/// One DER value with this tag: its content, and what follows it (X.690, 8.1 and 10.1).
fn der_value(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (found, rest) = der.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = match *first {
        short @ 0..=0x7f => (usize::from(short), rest),
        long @ (0x81 | 0x82) => {
            let (bytes, rest) = rest.split_at_checked(usize::from(long & 0x7f))?;
            (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    (*found == tag).then(|| rest.split_at_checked(length)).flatten()
}

impl PublicKeyData for RoleSigner {
    fn der_bytes(&self) -> &[u8] {
        &self.public_key
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        match self.record.algorithm {
            KeyAlgorithm::Rsa2048 | KeyAlgorithm::Rsa3072 | KeyAlgorithm::Rsa4096 => &rcgen::PKCS_RSA_SHA256,
            KeyAlgorithm::P256 => &rcgen::PKCS_ECDSA_P256_SHA256,
            KeyAlgorithm::P384 => &rcgen::PKCS_ECDSA_P384_SHA384,
            KeyAlgorithm::P521 => &rcgen::PKCS_ECDSA_P521_SHA512,
        }
    }
}

impl SigningKey for RoleSigner {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.ask(message).map_err(|error| {
            tracing::warn!(role = %self.record.role, purpose = self.purpose.name(), %error, "not signed");
            *self.error.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            rcgen::Error::RemoteKeyError
        })
    }
}
