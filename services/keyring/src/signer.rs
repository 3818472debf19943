use std::sync::{Mutex, PoisonError};

use casemate_hsm_api::{KeyAlgorithm, SignatureScheme};
use casemate_pki::SpkiFacts;
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
    /// The key of `record`, for messages of `purpose`; nothing if the record's public key is none, or not of its algorithm.
    #[must_use]
    pub fn new(client: Client, record: KeyRecord, purpose: Purpose) -> Option<Self> {
        let SpkiFacts { algorithm, public_key } = SpkiFacts::parse(&record.spki_der).ok()?;
        (algorithm == record.algorithm).then(|| Self { client, record, purpose, public_key, error: Mutex::default() })
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
        let KeyRecord { role, fingerprint, .. } = &self.record;
        self.client.sign_named(*role, fingerprint, self.scheme(), self.purpose.clone(), message)
    }
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

#[cfg(test)]
mod tests {
    use casemate_hsm_api::{Backup, KeyRole};
    use casemate_post::Passed;
    use casemate_runtime::peer::LocalServer;
    use rcgen::KeyPair;

    use super::*;
    use crate::ClientSettings;

    fn signer(algorithm: KeyAlgorithm, spki_der: Vec<u8>) -> Option<RoleSigner> {
        let server = LocalServer::new("/nowhere".into(), 0);
        let client = Client::new(&Passed::testing(), server, ClientSettings::default());
        let record = KeyRecord {
            role: KeyRole::Capf,
            algorithm,
            backup: Backup::None,
            key_id: "00".repeat(16),
            token: "TEST1".into(),
            fingerprint: String::new(),
            spki_der,
        };
        RoleSigner::new(client, record, Purpose::SelfSigned)
    }

    #[test]
    fn a_record_that_is_no_public_key_in_der_or_of_another_algorithm_has_no_signer() {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let spki = key.subject_public_key_info();
        let good = signer(KeyAlgorithm::P256, spki.clone()).unwrap();
        assert_eq!(good.der_bytes(), key.der_bytes());
        assert!(signer(KeyAlgorithm::P384, spki.clone()).is_none(), "another algorithm");
        let long_length = [&[0x30, 0x81], &spki[1..]].concat();
        let mut off_the_curve = spki.clone();
        *off_the_curve.last_mut().unwrap() ^= 1;
        let no_algorithm = [&[0x30, 0x46, 0x30, 0, 3, 0x42, 0][..], key.der_bytes()].concat();
        for damaged in [long_length, off_the_curve, no_algorithm, [spki, vec![0]].concat(), Vec::new()] {
            assert!(signer(KeyAlgorithm::P256, damaged.clone()).is_none(), "{damaged:x?}");
        }
    }
}
